"""What happened, as frozen values. Logging is one subscriber; progress and tracing are others.

``str()`` of an event is a sentence for a log. No event holds a secret, a body, or anything of a customer:
of the headers of an answer, an allow-list is kept.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TypeAlias

from attrs import field, fields, frozen

__all__ = [
    "CallGivenUp",
    "EffectUnknown",
    "Event",
    "Events",
    "PageFetched",
    "PagesDrifted",
    "RequestFinished",
    "RequestRetrying",
    "RequestStarted",
    "RequestsPaused",
    "RequestsResumed",
    "RerunProgress",
    "RerunsBegan",
    "TokenRenewalFailed",
    "TokenRenewed",
    "log_event",
]


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

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``subscriber`` with every event from now on; what comes back ends that.

        Raises:
            TypeError: it cannot be called, or it is a coroutine function, which nobody would await.
        """
        if not callable(subscriber) or inspect.iscoroutinefunction(subscriber):
            raise TypeError(
                f"A subscriber must be a plain function of an event, not {subscriber!r}: it is called on the event "
                "loop, at once; for work that waits, put the event into an asyncio.Queue."
            )

        def entry(event: Event) -> None:  # one of its own, so that who subscribes twice can end either
            subscriber(event)

        self._subscribers.append(entry)

        def unsubscribe() -> None:
            if entry in self._subscribers:
                self._subscribers.remove(entry)

        return unsubscribe

    def heard(self, kind: type[Event]) -> bool:
        """Whether anybody would take note of such an event; for those that come with every request."""
        if self._subscribers != [log_event]:
            return True
        logger, level = _LOGGERS[kind]
        return logger.isEnabledFor(level)

    def emit(self, event: Event) -> None:
        """Tell everybody."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:  # whatever a subscriber does wrong is its own affair
                _LOGGER.exception("A subscriber failed on %s.", type(event).__name__)
