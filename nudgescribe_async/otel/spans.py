"""Spans made of events.

The span of a call is the current one while the call lasts, in the task of the caller: so what happens within it, a renewal
of the token or a span of the HTTP library, is its child. The span of a job is current in the job's own context alone, and
never in the caller's, whose loop is suspended again and again while the job lasts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define
from opentelemetry import baggage, context, propagate
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from nudgescribe_async.events import (
    CallEnded,
    CallGivenUp,
    CallStarted,
    EffectUnknown,
    JobEnded,
    JobStarted,
    PagesDrifted,
    RequestFinished,
    RequestsPaused,
    RequestStarted,
    RerunProgress,
    TokenRenewalFailed,
    TokenRenewed,
)
from nudgescribe_async.otel import names
from nudgescribe_async.otel.target import Targets, error_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    from nudgescribe_async.clock import Clock
    from nudgescribe_async.events import Event, SpanEvent

__all__ = ["Spans"]

_WITHIN = context.create_key("nudgescribe")
"""The call or job in whose context something happens."""
_ERROR = Status(StatusCode.ERROR)  # without a text, which might be the service's
_LONGEST_HEADER = 2_048
"""Whoever calls a service may have it pass on a ``tracestate`` of many kilobytes, and servers refuse requests with such
headers. It may be left out, by its specification, which asks for 512 characters."""
_JOB_NAMES = {"pages": "pages", "rerun": "campaign"}


@define(eq=False)
class _Job:
    owner: Spans
    span: Span
    kind: str
    campaign_id: str | None


@define(eq=False)
class _Call:
    owner: Spans
    span: Span
    recording: bool
    quiet_since: float
    """When it began, or its last attempt ended."""
    in_pages: bool
    """Whether it is one of an iteration."""
    context: Context
    token: Token[Context] | None = None
    wait: float = 0.0
    sent: int = 0
    status: int | None = None


class Spans:
    """Begins and ends the spans of one client."""

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock
        self._targets = Targets()
        self._calls: dict[int, _Call] = {}
        self._jobs: dict[int, _Job] = {}
        self._hearers: dict[type[object], Callable[[Any], None]] = {
            CallEnded: self._call_ended,
            CallGivenUp: self._given_up,
            EffectUnknown: self._effect_unknown,
            JobEnded: self._job_ended,
            PagesDrifted: self._drifted,
            RequestFinished: self._request_finished,
            RequestStarted: self._request_started,
            RequestsPaused: self._paused,
            RerunProgress: self._rerun_progress,
            TokenRenewalFailed: self._not_renewed,
            TokenRenewed: self._renewed,
        }

    @property
    def open(self) -> bool:
        """Whether a span is open."""
        return bool(self._calls or self._jobs)

    def hear(self, event: Event | SpanEvent, *, begins: bool) -> None:
        """Take note of an event.

        Args:
            event: what happened.
            begins: whether spans may begin.
        """
        if isinstance(event, CallStarted):
            if begins:
                self._call_started(event)
        elif isinstance(event, JobStarted):
            if begins:
                self._job_started(event)
        elif (hearer := self._hearers.get(type(event))) is not None:
            hearer(event)

    def headers(self, call: int) -> Mapping[str, str]:
        """The context of a call, as the global propagator writes it.

        Without baggage, which is meant for services of one's own, and without headers of which a request could fail.
        """
        known = self._calls.get(call)
        headers: dict[str, str] = {}
        if known is not None:
            propagate.inject(headers, baggage.clear(known.context))
        return {
            name: value
            for name, value in headers.items()
            if len(name) + len(text := str(value)) <= _LONGEST_HEADER and text.isascii()
        }

    # --- calls -----------------------------------------------------------------------------------------------------

    def _call_started(self, event: CallStarted) -> None:
        target = self._targets.of(event)
        within = context.get_value(_WITHIN)
        span = self._tracer.start_span(target.name, kind=SpanKind.CLIENT, attributes=target.attributes)
        call = self._calls[event.call] = _Call(
            self,
            span,
            recording=span.is_recording(),
            quiet_since=self._clock.monotonic(),
            in_pages=isinstance(within, _Job) and within.owner is self and within.kind == "pages",
            context=set_span_in_context(span),
        )
        call.context = context.set_value(_WITHIN, call, call.context)
        call.token = context.attach(call.context)

    def _call_ended(self, event: CallEnded) -> None:
        call = self._calls.pop(event.call, None)
        if call is None:
            return
        try:
            if call.recording:
                self._tell_end(call, event)
        finally:
            try:
                call.span.end()
            finally:
                # In another context, as when a coroutine is thrown away, there is nothing to take back.
                if call.token is not None and context.get_value(_WITHIN) is call:
                    context.detach(call.token)

    def _tell_end(self, call: _Call, event: CallEnded) -> None:
        span = call.span
        if call.sent > 1:
            span.set_attribute(names.RESEND_COUNT, call.sent - 1)
        if call.status is not None:
            span.set_attribute(names.STATUS_CODE, call.status)
        if event.error == "CancelledError" and call.in_pages:
            span.set_attribute(names.CUT_OFF, value=True)  # the span of the iteration says why, and whether that is bad
        elif (error := error_type(event.status, event.error)) is not None:
            span.set_attribute(names.ERROR_TYPE, error)
            span.set_status(_ERROR)

    def _request_started(self, event: RequestStarted) -> None:
        if (call := self._calls.get(event.call)) is not None:
            now = self._clock.monotonic()
            call.wait, call.quiet_since = max(0.0, now - call.quiet_since), now

    def _request_finished(self, event: RequestFinished) -> None:
        call = self._calls.get(event.call)
        if call is None:
            return
        call.quiet_since = self._clock.monotonic()
        call.sent += 1
        call.status = event.status
        if call.recording:
            attributes: dict[str, AttributeValue] = {
                names.ATTEMPT_NUMBER: event.attempt,
                names.ATTEMPT_DURATION: event.seconds,
                names.ATTEMPT_WAIT: call.wait,
            }
            if event.status is not None:
                attributes[names.STATUS_CODE] = event.status
            if (error := error_type(event.status, event.error)) is not None:
                attributes[names.ERROR_TYPE] = error
            if event.request_id is not None:
                attributes[names.REQUEST_ID] = event.request_id
            call.span.add_event(names.ATTEMPT, attributes)

    def _effect_unknown(self, event: EffectUnknown) -> None:
        if (call := self._calls.get(event.call)) is not None:
            call.span.set_attribute(names.EFFECT_UNKNOWN, value=True)

    def _given_up(self, event: CallGivenUp) -> None:
        if (call := self._calls.get(event.call)) is not None:
            call.span.add_event(names.GIVEN_UP)

    # --- jobs ------------------------------------------------------------------------------------------------------

    def _job_started(self, event: JobStarted) -> None:
        attributes: dict[str, AttributeValue] = {names.OPERATION: event.operation}
        if event.total is not None:
            attributes[names.CAMPAIGNS] = event.total
        if event.campaign_id is not None:
            attributes[names.CAMPAIGN_ID] = event.campaign_id
        part = _JOB_NAMES.get(event.kind)
        name = event.operation if part is None else f"{event.operation} {part}"
        span = self._tracer.start_span(name, attributes=attributes)
        job = self._jobs[event.job] = _Job(self, span, event.kind, event.campaign_id)
        context.attach(context.set_value(_WITHIN, job, set_span_in_context(span)))  # in the job's own context, for good

    def _job_ended(self, event: JobEnded) -> None:
        job = self._jobs.pop(event.job, None)
        if job is None:
            return
        try:
            span = job.span
            if span.is_recording():
                span.set_attribute(names.OUTCOME, event.outcome)
                if event.kind == "pages":
                    span.set_attribute(names.PAGES, event.done)
                    span.set_attribute(names.ITEMS, event.items)
                elif event.kind == "reruns":
                    span.set_attribute(names.CAMPAIGNS_SUCCEEDED, event.done)
                if event.outcome not in {"complete", "left", "succeeded"}:
                    span.set_attribute(names.ERROR_TYPE, event.error or event.outcome)
                    span.set_status(_ERROR)
        finally:
            job.span.end()

    def _rerun_progress(self, event: RerunProgress) -> None:
        job = self._within()
        if isinstance(job, _Job) and job.campaign_id == event.campaign_id and not event.final:
            self._add(names.RERUN_STEP, {names.STEP: event.step})

    def _drifted(self, _: PagesDrifted) -> None:
        self._add(names.PAGES_DRIFTED, {})

    # --- what happens within them ------------------------------------------------------------------------------------

    def _paused(self, event: RequestsPaused) -> None:
        self._add(names.PAUSED, {names.STATUS_CODE: event.status, names.PAUSE_SECONDS: event.seconds})

    def _renewed(self, event: TokenRenewed) -> None:
        self._add(names.TOKEN_RENEWED, {names.TOKEN_SOURCE: event.source})

    def _not_renewed(self, event: TokenRenewalFailed) -> None:
        self._add(names.TOKEN_NOT_RENEWED, {names.TOKEN_SOURCE: event.source})

    def _within(self) -> _Call | _Job | None:
        within = context.get_value(_WITHIN)
        # Not of another client, nor of what this one was instrumented with before or since, which hears it itself.
        return within if isinstance(within, _Call | _Job) and within.owner is self else None

    def _add(self, name: str, attributes: dict[str, AttributeValue]) -> None:
        """An event of the call or job in whose context it happens; none if that has ended, as before a background renewal."""
        within = self._within()
        if within is not None and within.span.is_recording():
            within.span.add_event(name, attributes)
