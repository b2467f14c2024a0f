"""What happened, as frozen values. Logging is one subscriber; progress and tracing are others.

``str()`` of an event is a sentence for a log. No event holds a secret, a body, or anything of a customer:
of the headers of an answer, an allow-list is kept.

Four events say where a call, or a job of several calls, begins and ends. They are for tracing: the log has no line
for them, and only a subscriber that asks for them (``spans=True``) is told.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

from attrs import field, fields, frozen

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

__all__ = [
    "CallEnded",
    "CallGivenUp",
    "CallStarted",
    "EffectUnknown",
    "Event",
    "Events",
    "Job",
    "JobEnded",
    "JobKind",
    "JobStarted",
    "PageFetched",
    "PagesDrifted",
    "RequestFinished",
    "RequestRetrying",
    "RequestStarted",
    "RequestsPaused",
    "RequestsResumed",
    "RerunProgress",
    "RerunsBegan",
    "SpanEvent",
    "TokenRenewalFailed",
    "TokenRenewed",
    "log_event",
]

T = TypeVar("T")

JobKind: TypeAlias = Literal["pages", "reruns", "rerun"]
"""``"pages"``: an iteration over pages. ``"reruns"``: a plan of reruns. ``"rerun"``: one campaign of a plan."""


@frozen(kw_only=True, str=False)
class RequestStarted:
    """A request is about to be sent.

    Attributes:
        operation: what is requested.
        call: the number of the call within its client, by which the events of one call are known.
        attempt: counts from 1 within the call.
    """

    operation: str
    call: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.operation} (call {self.call}): attempt {self.attempt} is sent"


@frozen(kw_only=True, str=False)
class RequestFinished:
    """A request ended: with an answer (``status``) or without (``error``, the name of the error's class).

    Attributes:
        operation: what was requested.
        call: the number of the call within its client.
        attempt: counts from 1 within the call.
        seconds: from the start of the request to the end of its answer.
        status: the HTTP status, if there was an answer.
        error: the name of the error's class, if there was none; ``"CancelledError"`` if the request was cut off
            by the caller, by the call's deadline, or because the client was closed.
        request_id: what the service called the request.
        headers: of an answer that is no success, the name and value of those on an allow-list.
    """

    operation: str
    call: int
    attempt: int
    seconds: float
    status: int | None = None
    error: str | None = None
    request_id: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        outcome = f"was answered with {self.status}" if self.status is not None else f"ended with {self.error}"
        known_as = f", request id {self.request_id}" if self.request_id is not None else ""
        headers = "".join(f", {name}: {value}" for name, value in self.headers)
        known_as = f"{known_as}{headers}"
        return f"{self.operation} (call {self.call}): attempt {self.attempt} {outcome} after {self.seconds:.3f} s{known_as}"


@frozen(kw_only=True, str=False)
class RequestRetrying:
    """A request will be sent again.

    Attributes:
        operation: what was requested.
        call: the number of the call within its client.
        attempt: the one that failed.
        after: seconds until the next one.
        reason: what went wrong.
        asked: whether the service asked for it (429, or 503 with ``Retry-After``), and all calls pause.
    """

    operation: str
    call: int
    attempt: int
    after: float
    reason: str
    asked: bool = False

    def __str__(self) -> str:
        attempt = f"attempt {self.attempt} failed, the next one is in {self.after:.2f} s"
        return f"{self.operation} (call {self.call}): {attempt}: {self.reason}"


@frozen(kw_only=True, str=False)
class CallGivenUp:
    """A call ended with an error that allowed another attempt; ``reason`` says why there was none."""

    operation: str
    call: int
    attempts: int
    reason: str

    def __str__(self) -> str:
        attempts = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"{self.operation} (call {self.call}): given up after {attempts}: {self.reason}"


@frozen(kw_only=True, str=False)
class EffectUnknown:
    """A call that changes something has ended, and nobody knows whether it took effect.

    Attributes:
        operation: what was called.
        call: the number of the call within its client.
        error: the name of the class of the error that it ended with.
        phase: what the call was doing.
        look: the read that tells whether it took effect.
    """

    operation: str
    call: int
    error: str
    phase: str
    look: str | None

    def __str__(self) -> str:
        ended = f"ended with {self.error} while {self.phase}"
        return f"{self.operation} (call {self.call}) {ended}, and may have taken effect: look with {self.look}"


@frozen(kw_only=True, str=False)
class RequestsPaused:
    """The service said "too many": no call of the client is sent for ``seconds``.

    Attributes:
        operation: what was refused.
        status: 429 or 503.
        seconds: how long.
        concurrency: how many may be in flight after that.
    """

    operation: str
    status: int
    seconds: float
    concurrency: int

    def __str__(self) -> str:
        return (
            f"{self.operation} was refused with {self.status}: nothing is sent for {self.seconds:.2f} s, then at most "
            f"{self.concurrency} at once"
        )


@frozen(kw_only=True, str=False)
class RequestsResumed:
    """A pause is over: ``waiting`` calls stand in line for one of ``concurrency`` slots."""

    concurrency: int
    waiting: int

    def __str__(self) -> str:
        return f"The pause is over; calls in line: {self.waiting}, at once: at most {self.concurrency}"


@frozen(kw_only=True, str=False)
class TokenRenewed:
    """There is a new access token: from a ``"login"``, a ``"refresh"``, or the token ``"store"``."""

    source: str
    expires_after: float

    def __str__(self) -> str:
        return f"There is a new access token from the {self.source}; it expires in {self.expires_after:,.0f} s"


@frozen(kw_only=True, str=False)
class TokenRenewalFailed:
    """One way to a new token failed. ``error`` says why, without the words of the service."""

    source: str
    error: str

    def __str__(self) -> str:
        return f"The {self.source} gave no token: {self.error}"


@frozen(kw_only=True, str=False)
class PageFetched:
    """A page of an iteration is here, and about to be handed out.

    Attributes:
        operation: what is paged.
        page: the number of the page, as the service counts.
        total: how many pages are expected; ``None`` if nobody knows.
        done: how many pages the iteration has handed out, this one included.
        items: how many items, those of this page included.
        seconds: since the iteration began.
    """

    operation: str
    page: int
    total: int | None
    done: int = 0
    items: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        of = f" of {self.total:,}" if self.total is not None else ""
        return f"{self.operation}: page {self.page:,}{of}; {self.items:,} items so far, {self.rate:,.0f} a second"


@frozen(kw_only=True, str=False)
class PagesDrifted:
    """The set changed while its pages were read: what was noticed first of each kind, and at the end all of it."""

    operation: str
    drift: str

    def __str__(self) -> str:
        return f"{self.operation}: the set changed while its pages were read. {self.drift}"


@frozen(kw_only=True, str=False)
class RerunsBegan:
    """Campaigns of a plan are going to be run again.

    Attributes:
        operation: what was called.
        campaigns: how many the plan has.
        settled: with how many of them nothing is left to do, as an earlier call has done it.
        journal: the path of the journal.
        named: whether the caller has named it.
        taken_over: which process left the journal without closing it; empty if none did.
    """

    operation: str
    campaigns: int
    settled: int
    journal: str
    named: bool = True
    taken_over: str = ""

    def __str__(self) -> str:
        crashed = f"; it was left behind by {self.taken_over}" if self.taken_over else ""
        text = f"{self.operation}: the journal is {self.journal}{crashed}. Campaigns: {self.campaigns:,}"
        if self.campaigns and self.settled == self.campaigns:
            text = f"{text}, all of them done by earlier calls: nothing is sent"
        else:
            text = f"{text}, done by earlier calls: {self.settled:,}"
        return f"{text}. For a new round, name another journal" if self.is_bad_news else text

    @property
    def is_bad_news(self) -> bool:
        """Whether somebody may have meant a new round, and gets none, or not all of one."""
        return self.settled > 0 and (not self.named or self.settled == self.campaigns)


@frozen(kw_only=True, str=False)
class RerunProgress:
    """Something happened to one campaign of a plan.

    Attributes:
        operation: what was called.
        campaign_id: the campaign.
        step: what: one of those of ``RerunStep``; if it is ``final``, how the call leaves the campaign: one of ``RerunState``.
        detail: a few words more, without any of the service's own.
        done: how many campaigns the call has done with.
        total: how many the plan has.
        final: whether the call has done with this one.
    """

    operation: str
    campaign_id: str
    step: str
    detail: str
    done: int
    total: int
    final: bool = False

    @property
    def is_bad_news(self) -> bool:
        """Whether somebody should look."""
        return self.step in (_OPEN_ENDS if self.final else _BAD_STEPS)

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        step = f"is done with: {self.step.replace('_', ' ')}" if self.final else self.step
        return f"{self.operation}: campaign {self.campaign_id} {step}{detail} ({self.done:,} of {self.total:,} done)"


# --- where calls and jobs begin and end ----------------------------------------------------------------------------


@frozen(kw_only=True, str=False)
class CallStarted:
    """A call begins: all its requests, what it waits for, and the reading of its answer lie between this and its end.

    Attributes:
        operation: what is called.
        call: the number of the call within its client.
        method: of its requests.
        url: where they go. No operation has arguments in its URL. Of a signed URL, the origin alone.
        signed: whether it goes to a signed URL, at another origin than that of the service.
    """

    operation: str
    call: int
    method: str
    url: str
    signed: bool = False

    def __str__(self) -> str:
        return f"{self.operation} (call {self.call}) begins: {self.method} {self.url}"


@frozen(kw_only=True, str=False)
class CallEnded:
    """A call has ended. It is told in the task, and in the context, in which ``CallStarted`` was.

    Attributes:
        operation: what was called.
        call: the number of the call within its client.
        seconds: all of it.
        attempts: requests that were sent.
        status: of the answer that it ended with, a success or an error; ``None`` if it ended with none.
        error: the name of the class of the error that it ended with; ``None`` if it succeeded.
    """

    operation: str
    call: int
    seconds: float
    attempts: int
    status: int | None = None
    error: str | None = None

    def __str__(self) -> str:
        ended = "ended" if self.error is None else f"ended with {self.error}"
        return f"{self.operation} (call {self.call}) {ended} after {self.seconds:.3f} s, attempts: {self.attempts}"


@frozen(kw_only=True, str=False)
class JobStarted:
    """Several calls that belong together are going to be made.

    It is told in a context of its own (``contextvars``), of which each task that makes the calls has a copy. So a
    context variable that a subscriber sets is seen by these calls, and by nothing else.

    Attributes:
        operation: what is done.
        job: the number of the job within its client.
        kind: of what the job consists.
        total: the campaigns of a plan.
        campaign_id: the campaign, if the job is one.
    """

    operation: str
    job: int
    kind: JobKind
    total: int | None = None
    campaign_id: str | None = None

    def __str__(self) -> str:
        campaign = f", campaign {self.campaign_id}" if self.campaign_id is not None else ""
        return f"{self.operation} (job {self.job}, {self.kind}{campaign}) begins"


@frozen(kw_only=True, str=False)
class JobEnded:
    """A job has ended, and so have its calls.

    Attributes:
        operation: what was done.
        job: the number of the job within its client.
        kind: of what the job consisted.
        outcome: of pages, ``"complete"``, ``"left"`` (the consumer wanted no more) or ``"failed"``; of a plan,
            ``"complete"``, ``"incomplete"`` or ``"failed"``; of a campaign, one of ``RerunState``.
        done: pages that were handed out, or campaigns that succeeded.
        items: items that were handed out.
        error: the name of the class of the error that it ended with, if there is one.
    """

    operation: str
    job: int
    kind: JobKind
    outcome: str
    done: int = 0
    items: int = 0
    error: str | None = None

    def __str__(self) -> str:
        error = f", {self.error}" if self.error is not None else ""
        return f"{self.operation} (job {self.job}, {self.kind}) ended: {self.outcome}{error}"


SpanEvent: TypeAlias = CallStarted | CallEnded | JobStarted | JobEnded

Event: TypeAlias = (
    RequestStarted
    | RequestFinished
    | RequestRetrying
    | CallGivenUp
    | EffectUnknown
    | RequestsPaused
    | RequestsResumed
    | TokenRenewed
    | TokenRenewalFailed
    | PageFetched
    | PagesDrifted
    | RerunsBegan
    | RerunProgress
)

_LOGGERS = {
    RequestStarted: (logging.getLogger("nudgescribe_async.session"), logging.DEBUG),
    RequestFinished: (logging.getLogger("nudgescribe_async.session"), logging.DEBUG),
    RequestRetrying: (logging.getLogger("nudgescribe_async.retry"), logging.INFO),
    EffectUnknown: (logging.getLogger("nudgescribe_async.session"), logging.WARNING),
    CallGivenUp: (logging.getLogger("nudgescribe_async.retry"), logging.WARNING),
    RequestsPaused: (logging.getLogger("nudgescribe_async.throttle"), logging.WARNING),
    RequestsResumed: (logging.getLogger("nudgescribe_async.throttle"), logging.INFO),
    TokenRenewed: (logging.getLogger("nudgescribe_async.auth"), logging.INFO),
    TokenRenewalFailed: (logging.getLogger("nudgescribe_async.auth"), logging.WARNING),
    PageFetched: (logging.getLogger("nudgescribe_async.paging"), logging.DEBUG),
    PagesDrifted: (logging.getLogger("nudgescribe_async.paging"), logging.WARNING),
    RerunsBegan: (logging.getLogger("nudgescribe_async.rerun"), logging.INFO),
    RerunProgress: (logging.getLogger("nudgescribe_async.rerun"), logging.INFO),
}
_BAD_STEPS = {"refused", "lost", "conflict", "failed"}
_OPEN_ENDS = {"unknown", "not_started", "unfinished"}
_LOGGER = logging.getLogger("nudgescribe_async.events")
# Without a handler of the user's, Python would print warnings to stderr, bare.
logging.getLogger("nudgescribe_async").addHandler(logging.NullHandler())


def log_event(event: Event) -> None:
    """The subscriber that every client has: the event as a line in the log of its part.

    The record has the event's class as ``event`` and its fields as ``nudgescribe``, for those who log JSON.
    """
    logger, level = _LOGGERS[type(event)]
    if isinstance(event, RequestRetrying) and event.asked:
        level = logging.DEBUG  # the pause has been told, once for all calls
    elif isinstance(event, RerunProgress | RerunsBegan) and event.is_bad_news:
        level = logging.WARNING
    elif isinstance(event, RerunProgress) and event.final:
        level = logging.DEBUG  # the step before has told it
    if logger.isEnabledFor(level):
        details = {item.name: getattr(event, item.name) for item in fields(type(event))}
        logger.log(level, "%s", event, extra={"event": type(event).__name__, "nudgescribe": details})


@frozen
class Events:
    """Hands each event to all subscribers, in the order in which they came.

    Subscribers are called at once, on the event loop, so they must be quick. One that raises is
    logged, and harms no call.
    """

    _subscribers: list[Callable[[Event], None]] = field(factory=lambda: [log_event])
    _span_subscribers: list[Callable[[Event | SpanEvent], None]] = field(
        factory=list["Callable[[Event | SpanEvent], None]"], init=False
    )
    _jobs: Iterator[int] = field(factory=lambda: count(1), init=False)

    @overload
    def subscribe(
        self, subscriber: Callable[[Event], None], *, spans: Literal[False] = False
    ) -> Callable[[], None]: ...

    @overload
    def subscribe(
        self, subscriber: Callable[[Event | SpanEvent], None], *, spans: Literal[True]
    ) -> Callable[[], None]: ...

    def subscribe(self, subscriber: Callable[..., None], *, spans: bool = False) -> Callable[[], None]:
        """Call ``subscriber`` with every event from now on; what comes back ends that.

        Args:
            subscriber: a plain function of an event.
            spans: whether it is also told where calls and jobs begin and end: ``SpanEvent``. Of what has begun already it
                may be told the end alone.

        Raises:
            TypeError: it cannot be called, or it is a coroutine function, which nobody would await.
        """
        if not callable(subscriber) or inspect.iscoroutinefunction(subscriber):
            raise TypeError(
                f"A subscriber must be a plain function of an event, not {subscriber!r}: it is called on the event "
                "loop, at once; for work that waits, put the event into an asyncio.Queue."
            )

        def entry(event: Event | SpanEvent) -> None:  # one of its own, so that who subscribes twice can end either
            subscriber(event)

        self._subscribers.append(entry)
        if spans:
            self._span_subscribers.append(entry)

        def unsubscribe() -> None:
            for entries in (self._subscribers, self._span_subscribers):
                if entry in entries:
                    entries.remove(entry)

        return unsubscribe

    def heard(self, kind: type[Event]) -> bool:
        """Whether anybody would take note of such an event; for those that come with every request."""
        if self._subscribers != [log_event]:
            return True
        logger, level = _LOGGERS[kind]
        return logger.isEnabledFor(level)

    @property
    def spans_heard(self) -> bool:
        """Whether anybody wants to know where calls and jobs begin and end."""
        return bool(self._span_subscribers)

    def emit(self, event: Event) -> None:
        """Tell everybody."""
        _tell(self._subscribers, event)

    def emit_span(self, event: SpanEvent) -> None:
        """Tell those who want to know where calls and jobs begin and end."""
        _tell(self._span_subscribers, event)

    def job(self, operation: str, kind: JobKind, *, total: int | None = None) -> Job | None:
        """Several calls that belong together begin; ``None`` if nobody wants to know."""
        if not self._span_subscribers:
            return None
        return Job(self, JobStarted(operation=operation, job=self.next_job(), kind=kind, total=total))

    def next_job(self) -> int:
        """A number for a job."""
        return next(self._jobs)


def _tell(subscribers: list[Callable[[Any], None]], event: Event | SpanEvent) -> None:
    for subscriber in tuple(subscribers):
        try:
            subscriber(event)
        except Exception:  # whatever a subscriber does wrong is its own affair
            _LOGGER.exception("A subscriber failed on %s.", type(event).__name__)


class Job:
    """A job that somebody wants to know of.

    Each task that makes calls of the job runs in a copy of the context in which its begin was told. The context of the
    caller, whose loop may be suspended in the middle of the job, is never touched.
    """

    def __init__(self, events: Events, started: JobStarted) -> None:
        self._events = events
        self._started = started
        self._ended = False
        self._context = contextvars.copy_context()
        self._context.run(events.emit_span, started)

    def task(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """A task that makes calls of the job."""
        return asyncio.create_task(work, name=name, context=self._context.copy())

    def begin(self, operation: str, kind: JobKind, *, campaign_id: str) -> Job:
        """A job that is a part of this one."""
        started = JobStarted(operation=operation, job=self._events.next_job(), kind=kind, campaign_id=campaign_id)
        return self._context.run(Job, self._events, started)

    def tell(self, event: Event) -> None:
        """Tell everybody of something that happened to the job, and not to one of its calls."""
        self._context.run(self._events.emit, event)

    def end(self, outcome: str, *, done: int = 0, items: int = 0, error: str | None = None) -> None:
        """Tell its end. What comes after the first time is not told."""
        if self._ended:
            return
        self._ended = True
        started = self._started
        self._context.run(
            self._events.emit_span,
            JobEnded(
                operation=started.operation,
                job=started.job,
                kind=started.kind,
                outcome=outcome,
                done=done,
                items=items,
                error=error,
            ),
        )
