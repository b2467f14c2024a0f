"""Time as a part that can be exchanged, so that no test has to wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "SystemClock", "Timer"]


class Timer(Protocol):
    """Something that will happen, unless it is cancelled before."""

    def cancel(self) -> None:
        """See to it that it does not happen. May be called more than once, and too late."""
        ...


class Clock(Protocol):
    """What the package knows of time: all waits, pauses and deadlines of a client run on its clock.

    The limits of a transport (``Timeout.connect``, ``Timeout.read``) do not, since real sockets know real
    time only.
    """

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def time(self) -> float:
        """Seconds since 1970 by the wall clock, which may be wrong and may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Have the event loop call ``callback`` after ``seconds``."""
        ...


class SystemClock:
    """The real time."""

    def monotonic(self) -> float:
        """``time.monotonic``."""
        return time.monotonic()

    def time(self) -> float:
        """``time.time``."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """``asyncio.sleep``."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """``loop.call_later``."""
        return asyncio.get_running_loop().call_later(seconds, callback)
