"""Metrics made of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define

from nudgescribe_async.events import (
    CallEnded,
    CallStarted,
    RequestFinished,
    RequestRetrying,
    RequestsPaused,
    RequestStarted,
    TokenRenewalFailed,
    TokenRenewed,
)
from nudgescribe_async.otel import names
from nudgescribe_async.otel.target import Targets, error_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.metrics import Meter

    from nudgescribe_async.events import Event, SpanEvent

__all__ = ["Measures"]

_OF_NO_CALL = (RequestsPaused, TokenRenewed, TokenRenewalFailed)
"""They belong to the client, and to no call of which the end is waited for."""


@define(eq=False)
class _Call:
    labels: Mapping[str, str | int]
    error: str | None = None
    """What its last attempt failed with."""


class Measures:
    """Records the metrics of one client."""

    def __init__(self, meter: Meter) -> None:
        self._targets = Targets()
        self._calls: dict[int, _Call] = {}
        self._request_duration = meter.create_histogram(
            names.REQUEST_DURATION,
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=names.REQUEST_BUCKETS,
        )
        self._active_requests = meter.create_up_down_counter(
            names.ACTIVE_REQUESTS, "{request}", "Number of active HTTP requests."
        )
        self._call_duration = meter.create_histogram(
            names.CALL_DURATION,
            "s",
            "Duration of calls, with their retries and all that they wait for.",
            explicit_bucket_boundaries_advisory=names.CALL_BUCKETS,
        )
        self._active_calls = meter.create_up_down_counter(
            names.ACTIVE_CALLS, "{call}", "Number of calls that have begun and not ended."
        )
        self._retries = meter.create_counter(names.RETRIES, "{retry}", "Number of attempts after the first.")
        self._pauses = meter.create_histogram(
            names.PAUSE_DURATION,
            "s",
            "Pauses that the service has asked for.",
            explicit_bucket_boundaries_advisory=names.PAUSE_BUCKETS,
        )
        self._renewals = meter.create_counter(names.RENEWALS, "{renewal}", "Number of attempts to renew the token.")
        self._hearers: dict[type[object], Callable[[Any], None]] = {
            CallEnded: self._call_ended,
            RequestFinished: self._request_finished,
            RequestRetrying: self._retrying,
            RequestStarted: self._request_started,
            RequestsPaused: self._paused,
            TokenRenewalFailed: self._not_renewed,
            TokenRenewed: self._renewed,
        }

    @property
    def open(self) -> bool:
        """Whether a call is counted that has not ended."""
        return bool(self._calls)

    def hear(self, event: Event | SpanEvent, *, begins: bool) -> None:
        """Take note of an event. ``begins``: whether what begins is counted: calls, pauses, and renewals."""
        if isinstance(event, CallStarted):
            if begins:
                self._calls[event.call] = _Call(self._targets.of(event).labels)
                self._active_calls.add(1, {names.OPERATION: event.operation})
        elif (hearer := self._hearers.get(type(event))) is not None and (begins or not isinstance(event, _OF_NO_CALL)):
            hearer(event)

    def _call_ended(self, event: CallEnded) -> None:
        if self._calls.pop(event.call, None) is None:
            return
        self._active_calls.add(-1, {names.OPERATION: event.operation})
        labels: dict[str, str | int] = {names.OPERATION: event.operation}
        if event.status is not None:
            labels[names.STATUS_CODE] = event.status
        if (error := error_type(event.status, event.error)) is not None:
            labels[names.ERROR_TYPE] = error
        self._call_duration.record(event.seconds, labels)

    def _request_started(self, event: RequestStarted) -> None:
        if (call := self._calls.get(event.call)) is not None:
            self._active_requests.add(1, call.labels)

    def _request_finished(self, event: RequestFinished) -> None:
        call = self._calls.get(event.call)
        if call is None:
            return
        self._active_requests.add(-1, call.labels)
        labels = dict(call.labels)
        if event.status is not None:
            labels[names.STATUS_CODE] = event.status
        call.error = error_type(event.status, event.error)
        if call.error is not None:
            labels[names.ERROR_TYPE] = call.error
        self._request_duration.record(event.seconds, labels)

    def _retrying(self, event: RequestRetrying) -> None:
        if (call := self._calls.get(event.call)) is not None:
            why, call.error = call.error or "RequestNotSentError", None  # nothing is sent where there is no token
            self._retries.add(1, {names.OPERATION: event.operation, names.ERROR_TYPE: why})

    def _paused(self, event: RequestsPaused) -> None:
        self._pauses.record(event.seconds, {names.STATUS_CODE: event.status})

    def _renewed(self, event: TokenRenewed) -> None:
        self._renewals.add(1, {names.TOKEN_SOURCE: event.source})

    def _not_renewed(self, event: TokenRenewalFailed) -> None:
        self._renewals.add(1, {names.TOKEN_SOURCE: event.source, names.ERROR_TYPE: "TokenRenewalFailed"})
