"""What happened, as frozen values. Logging is one subscriber; progress and tracing are others.

No event holds a secret, a body, or anything of a customer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from attrs import field, frozen

__all__ = [
    "Event",
    "Events",
    "PageFetched",
    "RequestFinished",
    "RequestRetrying",
    "RequestStarted",
    "TokenRenewalFailed",
    "TokenRenewed",
    "log_event",
]


@frozen(kw_only=True)
class RequestStarted:
    """A request is about to be sent."""

    operation: str
    attempt: int


@frozen(kw_only=True)
class RequestFinished:
    """A request ended: with an answer (``status``) or without (``error``, the name of the error's class)."""

    operation: str
    attempt: int
    seconds: float
    status: int | None = None
    error: str | None = None
    request_id: str | None = None


@frozen(kw_only=True)
class RequestRetrying:
    """A request will be sent again after ``after`` seconds."""

    operation: str
    attempt: int
    after: float
    reason: str


@frozen(kw_only=True)
class TokenRenewed:
    """There is a new access token: from a ``"login"``, a ``"refresh"``, or the token ``"store"``."""

    source: str
    expires_after: float


@frozen(kw_only=True)
class TokenRenewalFailed:
    """One way to a new token failed. ``error`` says why, without the words of the service."""

    source: str
    error: str


@frozen(kw_only=True)
class PageFetched:
    """A page of an iteration is here; ``total`` pages are expected."""

    operation: str
    page: int
    total: int


Event: TypeAlias = RequestStarted | RequestFinished | RequestRetrying | TokenRenewed | TokenRenewalFailed | PageFetched

_LOGGERS = {
    RequestStarted: (logging.getLogger("nudgescribe_async.session"), logging.DEBUG),
    RequestFinished: (logging.getLogger("nudgescribe_async.session"), logging.DEBUG),
    RequestRetrying: (logging.getLogger("nudgescribe_async.retry"), logging.INFO),
    TokenRenewed: (logging.getLogger("nudgescribe_async.auth"), logging.INFO),
    TokenRenewalFailed: (logging.getLogger("nudgescribe_async.auth"), logging.WARNING),
    PageFetched: (logging.getLogger("nudgescribe_async.paging"), logging.DEBUG),
}
_LOGGER = logging.getLogger("nudgescribe_async.events")
# Without a handler of the user's, Python would print warnings to stderr, bare.
logging.getLogger("nudgescribe_async").addHandler(logging.NullHandler())


def log_event(event: Event) -> None:
    """The subscriber that every client has: the event as a line in the log of its part."""
    logger, level = _LOGGERS[type(event)]
    logger.log(level, "%s", event)


@frozen
class Events:
    """Hands each event to all subscribers, in the order in which they came.

    Subscribers are called at once, on the event loop, so they must be quick. One that raises is
    logged, and harms no call.
    """

    _subscribers: list[Callable[[Event], None]] = field(factory=lambda: [log_event])

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``subscriber`` with every event from now on; what comes back ends that."""

        def entry(event: Event) -> None:  # one of its own, so that who subscribes twice can end either
            subscriber(event)

        self._subscribers.append(entry)

        def unsubscribe() -> None:
            if entry in self._subscribers:
                self._subscribers.remove(entry)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell everybody."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:  # whatever a subscriber does wrong is its own affair
                _LOGGER.exception("A subscriber failed on %s.", type(event).__name__)
