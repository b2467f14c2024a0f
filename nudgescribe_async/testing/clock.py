"""A clock that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
from datetime import datetime
from typing import TYPE_CHECKING, cast

from attrs import define, field

from nudgescribe_async.arguments import check_flag, check_number, kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nudgescribe_async.clock import Timer

__all__ = ["VirtualClock"]

_TURNS = 100
"""So many turns of the event loop without a look at the clock: whoever could run has run."""
_ROUNDING = 1e-6


@define(order=True)
class _Waiter:
    """A sleeper or a timer."""

    moment: float
    number: int
    wake: Callable[[], None] = field(order=False, repr=False)
    woken: asyncio.Future[None] | None = field(default=None, order=False)
    gave_up: bool = field(default=False, order=False)

    @property
    def waiting(self) -> bool:
        """Whether it still does. A task that was cancelled only says so when it runs next."""
        return not self.gave_up and (self.woken is None or not self.woken.done())


class _Timer:
    """What ``call_later`` gives. Cancelled between its moment and its call, it is not called either."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        self._cancel()


class VirtualClock:
    """A ``Clock`` that stands still while anything happens, and jumps when nothing does.

    Whoever sleeps, and whatever is to be called later, waits for its moment. With ``auto`` the clock jumps
    to the next moment by itself once nobody has asked it for anything for 100 turns of the event loop: whoever
    could run has run by then, and the rest waits for time to pass. So a test of waits and deadlines takes no
    time, and sees them in their true order, however many tasks wait at once. Without ``auto`` time passes
    only by ``advance``, or by setting ``now``.

    The clock cannot see what goes on outside the event loop. Where sockets, threads or processes are
    involved, set ``idle``, or it takes an answer that is on its way for one that never comes, and jumps
    to the deadline. It cannot tell either whether code that asks for the time over and over will ever stop:
    as long as it does, the clock stands.

    It starts no task and leaves nothing behind. It belongs to one event loop at a time: to another one only
    when nothing waits in the first any more, or that is closed (what waited there is forgotten then).

    Args:
        now: where it begins, in seconds since 1970.
        auto: whether it jumps by itself.
        idle: real seconds that must pass as well, without anybody asking, before it jumps (or ``advance``
            goes on); more than the slowest answer takes.

    Attributes:
        slept: the seconds of each ``sleep``, in the order in which they began.
        wrong_by: how far ``time()`` is off; ``monotonic()`` does not care.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: ``now`` is no finite number, or ``idle`` is below 0.
    """

    def __init__(self, now: float = 1_700_000_000.0, *, auto: bool = True, idle: float = 0.0) -> None:
        if isinstance(cast("object", now), datetime):
            raise TypeError("now must be a number of seconds since 1970; got a datetime: give its timestamp().")
        check_number("now", now, "a finite number of seconds since 1970")
        check_flag("auto", auto)
        check_number("idle", idle, "a finite number of real seconds, 0 or more", least=0)
        self._now = now
        self._auto = auto
        self._idle = idle
        self.slept: list[float] = []
        self.wrong_by = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: list[_Waiter] = []  # a heap; those that gave up are taken out when it is convenient
        self._given_up = 0
        self._count = 0
        self._looked = 0
        self._driver: asyncio.Handle | None = None
        self._advancing = False

    def __repr__(self) -> str:
        return f"<VirtualClock at {self._now}, {sum(waiter.waiting for waiter in self._waiters)} waiting>"

    @property
    def now(self) -> float:
        """What ``monotonic()`` says. Asking here does not count as a look at the clock.

        Set it to let time pass at one blow, as it does for a machine that was asleep: nothing runs meanwhile,
        and all that has come due comes due at the new moment.
        """
        return self._now

    @now.setter
    def now(self, moment: float) -> None:
        check_number("now", moment, f"a finite number of seconds that goes forward from {self._now}", least=self._now)
        self._looked += 1
        self._jump(moment)

    def monotonic(self) -> float:
        """Seconds. Never goes back."""
        self._looked += 1
        return self._now

    def time(self) -> float:
        """Seconds since 1970, off by ``wrong_by``."""
        self._looked += 1
        return self._now + self.wrong_by

    async def sleep(self, seconds: float) -> None:
        """Return once the clock is ``seconds`` further; 0 or less lets the others run for one turn.

        Raises:
            TypeError: ``seconds`` is of the wrong type.
            ValueError: ``seconds`` is not a number.
        """
        loop = self._attend(seconds)
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = loop.create_future()
        waiter = self._wait(seconds, lambda: woken.set_result(None), woken)
        try:
            await woken
        finally:
            self._give_up(waiter)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Have the event loop call ``callback`` once the clock is ``seconds`` further; 0 or less: soon.

        Raises:
            TypeError: ``seconds`` is of the wrong type.
            ValueError: ``seconds`` is not a number.
        """
        loop = self._attend(seconds)
        context = contextvars.copy_context()
        if seconds <= 0:
            return loop.call_soon(callback, context=context)
        call: asyncio.Handle | None = None

        def wake() -> None:
            nonlocal call
            call = loop.call_soon(callback, context=context)

        def cancel() -> None:
            self._give_up(waiter)
            if call is not None:
                call.cancel()

        waiter = self._wait(seconds, wake)
        return _Timer(cancel)

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass.

        First whoever can run does. Then the clock goes from one moment for which somebody waits to the
        next, and lets all that follows from each happen, new sleepers included, before it goes on. At the end it
        stands ``seconds`` further (or where ``now`` was set to meanwhile, if that is later). Whoever waits for
        a moment within a microsecond of the end is woken as well, so that ten tenths are a second.

        Raises:
            TypeError: ``seconds`` is of the wrong type.
            ValueError: ``seconds`` is below 0, or no finite number.
            RuntimeError: another task is at it.
        """
        check_number("seconds", seconds, "a finite number, 0 or more: time goes forward", least=0)
        self._attend(seconds)
        if self._advancing:
            raise RuntimeError("The clock is being advanced already, by another task.")
        self._advancing = True
        try:
            target = self._now + seconds
            await self._settled()
            while (waiter := self._next()) is not None and waiter.moment <= target + _ROUNDING:
                self._jump(waiter.moment)
                await self._settled()
            self._now = max(self._now, target)
        finally:
            self._advancing = False
            self._drive()

    # --- who waits ---------------------------------------------------------------------------------

    def _attend(self, seconds: float) -> asyncio.AbstractEventLoop:
        """Take note of somebody who wants something."""
        if isinstance(cast("object", seconds), bool) or not isinstance(cast("object", seconds), int | float):
            raise TypeError(f"seconds must be a number; got {kind(seconds)}.")
        if math.isnan(seconds):
            raise ValueError(f"seconds must be a number; got {seconds}.")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed() and self._next() is not None:
                raise RuntimeError("The clock is in use in another event loop: make one clock for each.")
            self._loop = loop
            self._waiters.clear()
            self._given_up = 0
            self._driver = None
            self._advancing = False
        self._looked += 1
        return loop

    def _wait(self, seconds: float, wake: Callable[[], None], woken: asyncio.Future[None] | None = None) -> _Waiter:
        self._count += 1
        # However short a wait, time passes: otherwise whoever sleeps until a moment would never get there.
        moment = max(self._now + seconds, math.nextafter(self._now, math.inf))
        waiter = _Waiter(moment, self._count, wake, woken)
        heapq.heappush(self._waiters, waiter)
        self._drive()
        return waiter

    def _give_up(self, waiter: _Waiter) -> None:
        if waiter.gave_up:
            return
        waiter.gave_up = True
        self._looked += 1  # something is going on
        self._given_up += 1
        if self._given_up > 64 and self._given_up > len(self._waiters) // 2:
            self._waiters = [waiter for waiter in self._waiters if waiter.waiting]
            heapq.heapify(self._waiters)
            self._given_up = 0
        if self._next() is None and self._driver is not None:
            self._driver.cancel()
            self._driver = None

    def _next(self) -> _Waiter | None:
        if self._loop is not None and self._loop.is_closed():
            self._waiters.clear()
        while self._waiters and not self._waiters[0].waiting:
            heapq.heappop(self._waiters)
        return self._waiters[0] if self._waiters else None

    def _jump(self, moment: float) -> None:
        """Go to a moment, and wake all who wait for it, in the order in which they came."""
        self._now = max(self._now, moment)
        while (waiter := self._next()) is not None and waiter.moment <= moment:
            heapq.heappop(self._waiters).wake()

    # --- when time moves ---------------------------------------------------------------------------

    def _quiet(self) -> Iterator[float]:
        """What to wait before asking again, in real seconds (0 is a turn), until nobody has looked for long enough."""
        clock = asyncio.get_running_loop().time
        seen, turns, since = self._looked, 0, clock()
        while True:
            if self._looked != seen:
                seen, turns, since = self._looked, 0, clock()
            turns += 1
            if turns <= _TURNS:
                yield 0.0
            elif (left := since + self._idle - clock()) > 0:
                yield left
            else:
                return

    async def _settled(self) -> None:
        for wait in self._quiet():
            await asyncio.sleep(wait)

    def _drive(self) -> None:
        """See to it that the clock jumps by itself, if there is anything to jump to."""
        if self._auto and self._driver is None:
            self._turn(self._quiet())

    def _turn(self, quiet: Iterator[float]) -> None:
        self._driver = None
        waiter = self._next()
        if self._advancing or waiter is None or waiter.moment == math.inf:
            return  # until there is reason again
        wait = next(quiet, None)
        if wait is None:
            self._jump(waiter.moment)
            self._drive()
            return
        assert self._loop is not None  # noqa: S101 - for the type checkers: somebody waits in it
        # Not a task: there would be one to cancel with the last waiter, and to be found by whoever looks for leftovers.
        self._driver = (
            self._loop.call_later(wait, self._turn, quiet) if wait else self._loop.call_soon(self._turn, quiet)
        )
