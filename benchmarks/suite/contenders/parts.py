"""What each part of a call costs: each is taken out of the session in turn, of a client without a network.

It reaches into the client, which nobody else may do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from nudgescribe_async import CallOptions, Nudgescribe, Timeout
from nudgescribe_async.endpoints.customers import COUNT_PAGES
from suite.contender import GROUP, Base
from suite.contenders.layers import canned


class NoThrottle:
    """Every call has a slot."""

    paused = False

    async def acquire(self, _: object) -> int:
        return 0

    async def gate(self) -> int:
        return 0

    def free(self, *_: object) -> int:
        return 0

    def release(self, *_: object) -> None: ...
    def succeeded(self, *_: object) -> None: ...
    def close(self) -> None: ...


class NoBudget:
    """Nothing is counted."""

    left = 0.0
    refills = False

    def succeeded(self, **_: object) -> None: ...
    def close(self) -> None: ...


class NoTokens:
    """There is one."""

    async def token(self) -> str:
        return "a.b.c"

    def fresh(self) -> str:
        return "a.b.c"

    def newest(self, token: str) -> str:
        return token

    def secrets(self) -> tuple[str, ...]:
        return ()

    def settle(self, *_: object, **__: object) -> None: ...
    async def aclose(self) -> None: ...


class Deaf:
    """Nobody listens."""

    spans_heard = False

    def heard(self, _: object) -> bool:
        return False

    def emit(self, _: object) -> None: ...

    def job(self, *_: object) -> None: ...


def _nothing(_: Nudgescribe) -> None: ...


def _no_throttle(ns: Nudgescribe) -> None:
    ns._session._throttle = NoThrottle()  # type: ignore[assignment]  # for what it costs


def _no_budget(ns: Nudgescribe) -> None:
    ns._session._budget = NoBudget()  # type: ignore[assignment]  # for what it costs


def _no_tokens(ns: Nudgescribe) -> None:
    ns._session.tokens = NoTokens()  # type: ignore[assignment]  # for what it costs


def _no_events(ns: Nudgescribe) -> None:
    ns._session.events = Deaf()  # type: ignore[assignment]  # for what it costs


def _all_out(ns: Nudgescribe) -> None:
    for take_out in (_no_throttle, _no_budget, _no_tokens, _no_events):
        take_out(ns)


def _subscriber(ns: Nudgescribe) -> None:
    ns.events.subscribe(lambda _: None)


class Quiet(logging.Handler):
    """Takes what is logged, and does nothing with it."""

    def emit(self, record: logging.LogRecord) -> None: ...


VARIANTS: dict[str, Callable[[Nudgescribe], None]] = {
    "as it is": _nothing,
    "without slots and pauses (throttle)": _no_throttle,
    "without a budget of retries": _no_budget,
    "without tokens (auth)": _no_tokens,
    "without events": _no_events,
    "without a deadline": _nothing,
    "without any of these": _all_out,
    "with a subscriber to events": _subscriber,
    "with logging at DEBUG": _nothing,
}


class Contender(Base):
    """A client for each variant."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._clients: dict[str, tuple[Nudgescribe, Any]] = {}

    async def aclose(self) -> None:
        for ns, tokens in self._clients.values():
            ns._session.tokens = tokens
            with suppress(Exception):  # parts are missing
                await ns.aclose()

    async def names(self) -> list[str]:
        return [*VARIANTS]

    async def variant(self, *, name: str, times: int) -> float:
        """Seconds of CPU a call."""
        if name not in self._clients:
            no_deadline = name in ("without a deadline", "without any of these")
            ns = canned(timeout=Timeout(total=None)) if no_deadline else canned()
            await ns.customers.count_pages("group")  # logs in
            self._clients[name] = ns, ns._session.tokens
            VARIANTS[name](ns)
        session = self._clients[name][0]._session
        logger, handler = logging.getLogger("nudgescribe_async"), Quiet()
        if name == "with logging at DEBUG":
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
            logger.propagate = False
        try:
            options = CallOptions()
            for _ in range(10):
                await session.call(COUNT_PAGES, GROUP, options)
            started = time.process_time()
            for _ in range(times):
                await session.call(COUNT_PAGES, GROUP, options)
            return (time.process_time() - started) / times
        finally:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
