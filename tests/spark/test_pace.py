"""A limit on requests that is kept by processes that do not know of each other. Without Spark, and without waiting."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudgescribe_async.spark.pace import RESERVE, Lane, PacedTransport
from nudgescribe_async.testing import VirtualClock, answer
from nudgescribe_async.transport import Request, Response

REQUEST = Request(method="GET", url="http://127.0.0.1/")


@given(
    per_second=st.floats(0.01, 2_000),
    lanes=st.integers(1, 300),
    number=st.integers(0, 299),
    moment=st.floats(1.7e9, 1.8e9),
)
def test_turns_of_lanes_never_meet(per_second: float, lanes: int, number: int, moment: float) -> None:
    lane = Lane(number=number % lanes, lanes=lanes, per_second=per_second)
    begins = lane.next_turn(moment)
    assert -1e-3 <= begins - moment <= lane.round + 1e-3
    next_one = Lane(number=(number + 1) % lanes, lanes=lanes, per_second=per_second).next_turn(begins + lane.turn / 2)
    assert next_one - begins == pytest.approx(lane.turn, abs=1e-3)


class Service:
    """Takes note of when requests were sent."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.moments: list[float] = []
        self.closed = 0

    async def send(self, request: Request) -> Response:  # noqa: ARG002
        self.moments.append(self.clock.time())
        return answer(200, [])

    async def aclose(self) -> None:
        self.closed += 1


async def test_all_lanes_together_stay_below_the_limit(clock: VirtualClock) -> None:
    service = Service(clock)
    lanes = [PacedTransport(service, Lane(number=number, lanes=3, per_second=50), clock=clock) for number in range(3)]
    async with AsyncExitStack() as exits:
        for lane in lanes:
            exits.push_async_callback(lane.aclose)
        await asyncio.gather(*(lane.send(REQUEST) for lane in lanes for _ in range(100)))
    moments = sorted(service.moments)
    assert len(moments) == 300
    assert service.closed == 3
    in_a_second = [number - bisect_left(moments, moment - 1) for number, moment in enumerate(moments, 1)]
    assert max(in_a_second) <= 50 / RESERVE + 1
    assert moments[-1] - moments[0] == pytest.approx(299 * RESERVE / 50)


async def test_a_pause_is_followed_by_no_crowd(clock: VirtualClock) -> None:
    service = Service(clock)
    paced = PacedTransport(service, Lane(number=0, lanes=1, per_second=10), clock=clock)
    await paced.send(REQUEST)
    await clock.sleep(60)
    await asyncio.gather(*(paced.send(REQUEST) for _ in range(3)))
    first, second, third = service.moments[1:]
    assert second - first == pytest.approx(0.12, abs=1e-5)
    assert third - second == pytest.approx(0.12, abs=1e-5)


class StandingLoop(VirtualClock):
    """The event loop stands still while Spark takes a batch, and whoever slept wakes up late."""

    late = 0.0

    async def sleep(self, seconds: float) -> None:
        late, self.late = self.late, 0.0
        await super().sleep(seconds + late)


async def test_who_wakes_up_late_does_not_send_in_the_turns_of_others() -> None:
    clock = StandingLoop()
    service = Service(clock)
    lane = Lane(number=0, lanes=10, per_second=10)
    paced = PacedTransport(service, lane, clock=clock)
    await paced.send(REQUEST)
    clock.late = lane.round * 0.9
    await paced.send(REQUEST)
    await paced.send(REQUEST)
    first, second, third = service.moments
    assert second - first == pytest.approx(2 * lane.round, abs=1e-5)
    assert third - second == pytest.approx(lane.round, abs=1e-5)


async def test_whoever_is_cancelled_leaves_the_turn_to_the_next(clock: VirtualClock) -> None:
    service = Service(clock)
    paced = PacedTransport(service, Lane(number=0, lanes=1, per_second=1), clock=clock)
    waiting = [asyncio.create_task(paced.send(REQUEST)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    await asyncio.wait(waiting)
    assert waiting[0].cancelled()
    assert waiting[1].cancelled()
    assert len(service.moments) == 1


class JumpingClock(VirtualClock):
    """The wall clock is put back while somebody waits."""

    offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset


async def test_a_clock_that_is_put_back_holds_nobody_up() -> None:
    clock = JumpingClock()
    service = Service(clock)
    paced = PacedTransport(service, Lane(number=0, lanes=2, per_second=2), clock=clock)
    await paced.send(REQUEST)
    clock.offset = -3600.0
    begun = clock.monotonic()
    await paced.send(REQUEST)
    assert clock.monotonic() - begun <= 2 * paced._lane.round
    sending = asyncio.create_task(paced.send(REQUEST))
    await asyncio.sleep(0)
    clock.offset = -7200.0
    await sending
    assert clock.monotonic() - begun <= 6 * paced._lane.round
