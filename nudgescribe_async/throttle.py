"""What all calls of one client share: the slots, the pause, and the budget of retries.

*Slots.* At most ``limit`` requests are in flight. A slot is held while a request is on its way and its
answer is read; it is free while a call waits for a token or for its next attempt. Who waits is served in
the order of arrival, interactive calls before bulk ones; each eighth slot goes to bulk, if there is any,
so that nobody waits for ever.

*The pause.* Where the service says "too many" (429, or 503 with ``Retry-After``), no call of the client is
sent until that time is over. After that only half as many are in flight as were at the refusal
(multiplicative decrease), and one more for each round that succeeds (additive increase), up to ``limit``
again. Refusals of requests that were on their way already when the first one came count once.

*The budget.* See ``RetryBudget``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from nudgescribe_async.events import Events, RequestsPaused, RequestsResumed
from nudgescribe_async.options import Priority, RetryBudget, check_whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from nudgescribe_async.clock import Clock, Timer

__all__ = ["Budget", "Throttle"]

BULK_EVERY = 8
"""One slot in so many goes to a bulk call, even where interactive ones wait."""
_WORTH_TELLING = 1.0  # seconds by which a pause must grow to be told again
_NEARLY_ONE = 1.0 - 1e-9
_SHORTEST_TIMER = 1e-3


class _Line:
    """Callers who wait for their turn, in the order in which they came."""

    def __init__(self) -> None:
        self.turns: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    async def wait(self, give_back: Callable[[], None]) -> None:
        """Return when it is the caller's turn.

        Args:
            give_back: called if the caller is cancelled when it had been served already, and cannot take it.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.turns[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self.turns:
                del self.turns[turn]
            elif not turn.cancelled():
                give_back()
            raise

    def serve(self) -> bool:
        """Tell the next that it is its turn; ``False`` if nobody is there."""
        while self.turns:
            turn, _ = self.turns.popitem(last=False)
            if not turn.done():  # else its task is cancelled, and does not know yet
                turn.set_result(None)
                return True
        return False


class Throttle:
    """The slots and the pause.

    Renewals of the token need no slot, or a client whose slots are all taken by calls that wait for a token
    would never move again; they do keep the pause.
    """

    def __init__(self, limit: int, *, clock: Clock, events: Events) -> None:
        check_whole_number("concurrency", limit)
        self.limit = limit
        self.in_flight = 0
        self._clock = clock
        self._events = events
        self._window = float(limit)
        self._era = 0
        self._paused_until: float | None = None
        self._resumption: Timer | None = None
        self._interactive = _Line()
        self._bulk = _Line()
        self._passed = 0  # slots that interactive calls took while bulk ones waited
        self._at_gate = _Line()

    @property
    def window(self) -> int:
        """How many may be in flight at the moment."""
        return int(self._window)

    @property
    def paused(self) -> bool:
        """Whether nothing is sent at the moment."""
        return self._paused_until is not None

    async def acquire(self, priority: Priority) -> int:
        """Take a slot, as soon as there is one. What comes back is for ``refused``.

        A caller that is cancelled while it waits leaves the queue, and what it may have been given already
        goes to the next.
        """
        if self._is_free() and not self._interactive.turns and not self._bulk.turns:
            self.in_flight += 1
        else:
            line = self._bulk if priority is Priority.BULK else self._interactive
            await line.wait(give_back=self.release)
            try:
                await self.gate()  # a pause may have begun between being served and going on
            except asyncio.CancelledError:
                self.release()
                raise
        return self._era

    def release(self) -> None:
        """Give a slot back."""
        self.in_flight -= 1
        if self._interactive.turns or self._bulk.turns:
            self._serve()

    async def gate(self) -> int:
        """Wait until no pause is on. What comes back is for ``refused``."""
        while self.paused:
            await self._at_gate.wait(give_back=lambda: None)
        return self._era

    def succeeded(self, era: int) -> None:
        """A request was answered in earnest: let one more in for each round of them.

        Args:
            era: what ``acquire`` or ``gate`` gave; success of what was sent before the last refusal shows nothing.
        """
        if era == self._era and self._window < self.limit:
            self._window = min(self._window + 1.0 / self._window, float(self.limit))
            self._serve()

    def refused(self, seconds: float, *, era: int, operation: str, status: int) -> None:
        """The service said "too many": send nothing for so long, and fewer at once after that.

        To be called before the slot is given back, or the next call would slip through.

        Args:
            seconds: how long; a pause that is on already and lasts longer stays as it is.
            era: what ``acquire`` or ``gate`` gave to the refused call.
            operation: what was refused, for the event.
            status: 429 or 503, for the event.
        """
        if era == self._era:
            self._era += 1
            # A renewal is refused without a slot: if nothing else is in flight, that says nothing of how much is too much.
            self._window = max(1.0, min(self._window, self.in_flight or self._window) / 2)
        now = self._clock.monotonic()
        already = self._paused_until if self._paused_until is not None else now
        if seconds <= 0 or now + seconds <= already:
            return
        tell = not self.paused or now + seconds > already + _WORTH_TELLING
        if self._resumption is not None:
            self._resumption.cancel()
        self._paused_until = now + seconds
        self._resumption = self._clock.call_later(seconds, self._resume)
        if tell:  # last, since a subscriber may raise what ends a program
            self._events.emit(
                RequestsPaused(operation=operation, status=status, seconds=seconds, concurrency=self.window)
            )

    def close(self) -> None:
        """Forget the pause. Whoever still waits is ended by the session."""
        if self._resumption is not None:
            self._resumption.cancel()

    def _is_free(self) -> bool:
        return not self.paused and self.in_flight < self.window

    def _resume(self) -> None:
        self._paused_until = self._resumption = None
        waiting = len(self._interactive.turns) + len(self._bulk.turns)
        while self._at_gate.serve():
            pass
        self._serve()
        self._events.emit(RequestsResumed(concurrency=self.window, waiting=waiting))

    def _serve(self) -> None:
        while self._is_free():
            first, second = (
                (self._bulk, self._interactive) if self._passed + 1 >= BULK_EVERY else (self._interactive, self._bulk)
            )
            if first.serve():
                line = first
            elif second.serve():
                line = second
            else:
                return
            self._passed = self._passed + 1 if line is self._interactive and self._bulk.turns else 0
            self.in_flight += 1


class Budget:
    """The budget of retries of one client. See ``RetryBudget``."""

    def __init__(self, budget: RetryBudget, *, clock: Clock) -> None:
        self._budget = budget
        self._clock = clock
        self._saved = float(budget.reserve)
        self._as_of = clock.monotonic()
        self._line = _Line()
        self._next: Timer | None = None

    @property
    def left(self) -> float:
        """How many retries are there at the moment."""
        now = self._clock.monotonic()
        self._saved = min(self._saved + (now - self._as_of) * self._budget.per_second, self._budget.reserve)
        self._as_of = now
        return self._saved

    @property
    def refills(self) -> bool:
        """Whether it is worth waiting for a retry: with time there will be one."""
        return self._budget.per_second > 0 and self._budget.reserve >= 1

    def take(self) -> None:
        """Take one, which is there."""
        self._saved = max(self.left - 1.0, 0.0)

    def give_back(self) -> None:
        """Put one back that was taken and not used."""
        self._put(1.0)

    async def turn(self) -> None:
        """Take one, as soon as there is one, in the order of arrival. Only where it ``refills``."""
        if self.left >= _NEARLY_ONE and not self._line.turns:
            self.take()
            return
        if self._line.turns:
            self._serve()
        if self._next is None:
            self._set_timer()
        try:
            await self._line.wait(give_back=self.give_back)
        finally:
            if not self._line.turns:
                self.close()

    def succeeded(self, *, repeated: bool) -> None:
        """A call succeeded: at once, or after it was repeated."""
        if self._saved < self._budget.reserve:
            self._put(2.0 if repeated else self._budget.share)

    def close(self) -> None:
        """Forget who waits: the session ends them."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _put(self, retries: float) -> None:
        self._saved = min(self.left + retries, self._budget.reserve)
        if self._line.turns:
            self._serve()

    def _serve(self) -> None:
        self.close()
        while self.left >= _NEARLY_ONE and self._line.serve():
            self.take()
        if self._line.turns:
            self._set_timer()

    def _set_timer(self) -> None:
        missing = max(1.0 - self.left, 0.0) / self._budget.per_second
        self._next = self._clock.call_later(max(missing, _SHORTEST_TIMER), self._serve)
