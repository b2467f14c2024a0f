"""Stopping in good order: nothing new begins, what waits stops waiting, what is in flight ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nudgescribe_async.clock import Clock

__all__ = ["Halt", "StoppedWaitingError"]

T = TypeVar("T")


class StoppedWaitingError(Exception):
    """It is time to stop. It never leaves this package."""


class Halt:
    """Whether to stop, and why."""

    def __init__(self, clock: Clock) -> None:
        self.why = ""
        self._clock = clock
        self._to_tell: list[Callable[[], object]] = []

    def __bool__(self) -> bool:
        return bool(self.why)

    def now(self, why: str) -> None:
        """Stop. The first reason stays.

        Args:
            why: a sentence without its full stop.
        """
        if self.why:
            return
        self.why = why
        for tell in tuple(self._to_tell):
            tell()

    def then(self, tell: Callable[[], object]) -> Callable[[], None]:
        """Have ``tell`` called when it is time to stop: at once, if it is. What comes back ends that."""
        if self.why:
            tell()
        else:
            self._to_tell.append(tell)

        def forget() -> None:
            if tell in self._to_tell:
                self._to_tell.remove(tell)

        return forget

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """Await what changes nothing, or can go on another time: when it is time to stop, it is ended.

        Raises:
            StoppedWaitingError: it was.
        """
        task = asyncio.create_task(work, name="nudgescribe rerun")
        forget = self.then(task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not self or caller is None or caller.cancelling():
                raise
            raise StoppedWaitingError from None
        finally:
            forget()

    async def pause(self, seconds: float) -> bool:
        """Wait, unless it is time to stop: then return at once, and say ``False``."""
        over = asyncio.Event()
        forget = self.then(over.set)
        timer = self._clock.call_later(seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()
            forget()
        return not self.why
