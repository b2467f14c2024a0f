"""A limit on requests a second, kept by processes that do not know of each other.

Time is cut into turns, so many a second as requests are allowed, and the turns go round among the lanes: with three lanes,
the first has turns 0, 3, 6, the second 1, 4, 7. Whoever has a lane sends one request in each of its turns, at most. The
clock of the wall says which turn it is, so nobody has to ask anybody; a task that takes a lane over from another, or is
tried again, goes on in the same turns. Clocks that differ shift a lane against the others, and no lane sends more for it.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from attrs import frozen

from nudgescribe_async.clock import Clock, SystemClock

if TYPE_CHECKING:
    from nudgescribe_async.transport import Request, Response, Transport

__all__ = ["RESERVE", "Lane", "PacedTransport"]

RESERVE: Final = 1.2
"""By how much turns are longer than the limit asks for: what was sent evenly may arrive in heaps."""

LATE: Final = 0.1
"""Seconds after its beginning in which a turn may be used. Half of what ``RESERVE`` leaves of a second: so the turns that are
used in a second began in 1.1 seconds, and are fewer than the limit."""


@frozen(kw_only=True)
class Lane:
    """A share of a limit.

    Attributes:
        number: which lane, from 0.
        lanes: how many there are.
        per_second: requests a second of all lanes together.
    """

    number: int
    lanes: int
    per_second: float

    @property
    def turn(self) -> float:
        """Seconds of a turn."""
        return RESERVE / self.per_second

    @property
    def round(self) -> float:
        """Seconds between two turns of this lane."""
        return self.turn * self.lanes

    def next_turn(self, moment: float) -> float:
        """When the next turn of this lane begins that begins at a moment or after it. Seconds since 1970."""
        offset = self.turn * self.number
        return math.ceil((moment - offset) / self.round) * self.round + offset


class PacedTransport:
    """Sends requests in the turns of a lane, first come, first served. Logins and repetitions are requests as any other.

    A turn that nobody used is lost, so that a pause is never followed by a crowd; so is one that whoever waited woke up too
    late for, as when Spark took its time with a batch and the event loop stood still. Cancelling whoever waits leaves the
    turn to the next. Closing closes the transport underneath.

    Args:
        transport: what sends.
        lane: the share of the limit.
        clock: the time, for tests.
    """

    def __init__(self, transport: Transport, lane: Lane, *, clock: Clock | None = None) -> None:
        self._transport = transport
        self._lane = lane
        self._clock = clock if clock is not None else SystemClock()
        self._line = asyncio.Lock()
        self._used = -math.inf

    async def send(self, request: Request) -> Response:
        """Send the request in a turn of its own."""
        async with self._line:
            await self._turn()
        return await self._transport.send(request)

    async def aclose(self) -> None:
        """Close the transport underneath."""
        await self._transport.aclose()

    async def _turn(self) -> None:
        lane = self._lane
        while True:
            now = self._clock.time()
            if self._used > now + lane.round:
                self._used = -math.inf  # the clock was put back
            # Half a turn beyond the one that was used, lest rounding gives the same one again.
            begins = lane.next_turn(max(now, self._used + lane.turn / 2))
            await self._clock.sleep(begins - now)
            if 0 <= self._clock.time() - begins <= LATE:
                self._used = begins
                return
