"""The virtual clock: it stands while anything happens, jumps when nothing does, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.util
import math
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from helpers import START, settle

from nudgescribe_async.clock import Clock, SystemClock, Timer
from nudgescribe_async.testing import VirtualClock


def uses(clock: Clock) -> Clock:
    """For the type checkers: the protocol is kept."""
    return clock


def by_hand() -> VirtualClock:
    return VirtualClock(auto=False)


# --- looking, sleeping -----------------------------------------------------------------------------


async def test_it_is_a_clock_with_all_that_the_real_one_has() -> None:
    clock = uses(VirtualClock(5.0))
    assert clock.monotonic() == clock.time() == 5.0
    for name in ("monotonic", "time", "sleep", "call_later"):
        assert hasattr(SystemClock, name)
        assert hasattr(clock, name)


def test_the_wall_clock_may_be_wrong() -> None:
    clock = VirtualClock()
    clock.wrong_by = -40.0
    assert (clock.now, clock.monotonic(), clock.time()) == (START, START, START - 40)


async def test_sleepers_wake_in_the_order_of_their_moments_each_at_its_own() -> None:
    clock = VirtualClock()
    woken: list[tuple[int, float]] = []
    seconds = list(range(1, 301))
    random.Random(1).shuffle(seconds)

    async def sleeper(wanted: int) -> None:
        await clock.sleep(wanted)
        woken.append((wanted, clock.monotonic() - START))

    before = time.monotonic()
    await asyncio.gather(*map(sleeper, seconds))
    assert woken == [(wanted, wanted) for wanted in range(1, 301)]
    assert clock.slept == seconds
    assert time.monotonic() - before < 100  # and not the 300 s of the last


async def test_concurrent_sleepers_do_not_add_up() -> None:
    clock = VirtualClock()
    await asyncio.gather(*(clock.sleep(10) for _ in range(1_000)))
    assert clock.now == START + 10


async def test_of_one_moment_first_come_first_woken() -> None:
    clock = VirtualClock()
    order: list[int] = []

    async def sleeper(number: int) -> None:
        await clock.sleep(3)
        order.append(number)

    tasks = []
    for number in range(0, 20, 2):
        tasks.append(asyncio.create_task(sleeper(number)))
        await asyncio.sleep(0)
        clock.call_later(3, lambda number=number: order.append(number + 1))  # type: ignore[misc]
    await asyncio.gather(*tasks)
    await settle()
    assert order == list(range(20))


async def test_whoever_sleeps_again_and_again_is_interleaved_with_the_others() -> None:
    clock = VirtualClock()
    seen: list[tuple[float, str]] = []

    async def every(seconds: float, times: int, name: str) -> None:
        for _ in range(times):
            await clock.sleep(seconds)
            seen.append((clock.monotonic() - START, name))

    await asyncio.gather(every(2, 3, "two"), every(3, 2, "three"), every(7, 1, "seven"))
    assert seen == [(2, "two"), (3, "three"), (4, "two"), (6, "three"), (6, "two"), (7, "seven")]


@pytest.mark.parametrize("seconds", [0, -1, -math.inf])
async def test_no_time_at_all_is_one_turn(seconds: float) -> None:
    clock = by_hand()
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    task = asyncio.create_task(other())
    await clock.sleep(seconds)
    turns.append("sleeper")
    await task
    assert turns == ["other", "sleeper"]
    assert clock.now == START
    assert clock.slept == [seconds]


async def test_what_is_no_number_of_seconds_is_refused() -> None:
    clock = VirtualClock()
    with pytest.raises(ValueError, match="nan"):
        await clock.sleep(math.nan)
    with pytest.raises(ValueError, match="nan"):
        clock.call_later(math.nan, pytest.fail)
    for seconds in (-1, math.nan, math.inf, 10**400):
        with pytest.raises(ValueError, match=f"seconds must be a finite number, 0 or more.*; got {seconds}"):
            await clock.advance(seconds)
    for moment in (START - 1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"now must be .* forward from {START}; got {moment}"):
            clock.now = moment
    assert clock.now == START
    assert clock.slept == []


@pytest.mark.parametrize(
    ("seconds", "given"), [("60", "str"), (None, "None"), (True, "bool"), (timedelta(1), "timedelta")]
)
async def test_what_is_no_number_at_all_is_refused(seconds: Any, given: str) -> None:
    clock = VirtualClock()
    with pytest.raises(TypeError, match=f"seconds must be a number; got {given}"):
        await clock.sleep(seconds)
    with pytest.raises(TypeError, match=f"seconds must be a number; got {given}"):
        clock.call_later(seconds, pytest.fail)
    with pytest.raises(TypeError, match=f"seconds must be a finite number, 0 or more.*; got {given}"):
        await clock.advance(seconds)
    with pytest.raises(TypeError, match=f"now must be a finite number of seconds that goes forward .*; got {given}"):
        clock.now = seconds
    assert (clock.now, clock.slept) == (START, [])
    await clock.advance(1)  # none of it is left behind
    assert clock.now == START + 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"now": "now"}, TypeError, "now must be a finite number of seconds since 1970; got str"),
        ({"now": None}, TypeError, "now must be .*; got None"),
        (
            {"now": datetime(2030, 1, 1, tzinfo=UTC)},
            TypeError,
            r"now must be .*; got a datetime: give its timestamp\(\)",
        ),
        ({"now": math.inf}, ValueError, "now must be .*; got inf"),
        ({"now": math.nan}, ValueError, "now must be .*; got nan"),
        ({"idle": "x"}, TypeError, "idle must be a finite number of real seconds, 0 or more; got str"),
        ({"idle": True}, TypeError, "idle must be .*; got bool"),
        ({"idle": -1}, ValueError, "idle must be .*; got -1"),
        ({"idle": math.nan}, ValueError, "idle must be .*; got nan"),
        ({"auto": "no"}, TypeError, "auto must be True or False; got str"),
        ({"auto": None}, TypeError, "auto must be True or False; got None"),
    ],
)
def test_a_clock_that_cannot_be_is_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        VirtualClock(**options)


async def test_whoever_sleeps_in_the_smallest_steps_gets_somewhere() -> None:
    clock = VirtualClock()
    moments = [clock.monotonic()]
    for _ in range(5):
        await clock.sleep(1e-12)
        moments.append(clock.monotonic())
    assert len(set(moments)) == 6
    assert moments == sorted(moments)
    assert moments[-1] - START < 1e-4


async def test_for_ever_is_never_jumped_to() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(math.inf))
    await settle(500)
    await clock.sleep(1)
    await settle(500)
    assert not task.done()
    assert clock.now == START + 1
    task.cancel()


# --- timers ----------------------------------------------------------------------------------------


async def test_a_timer_is_called_once_at_its_moment_in_the_context_it_was_made_in() -> None:
    clock = VirtualClock()
    before = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="")
    name.set("then")
    called: list[tuple[float, str]] = []
    clock.call_later(30, lambda: called.append((clock.now, name.get())))
    name.set("now")
    await clock.sleep(60)
    await before
    assert called == [(START + 30, "then")]


@pytest.mark.parametrize("seconds", [0, -5])
async def test_a_timer_without_delay_is_not_called_before_this_turn_ends(seconds: float) -> None:
    clock = VirtualClock()
    called = asyncio.Event()
    clock.call_later(seconds, called.set)
    assert not called.is_set()
    await called.wait()
    assert clock.now == START


async def test_a_deadline_of_what_hangs_for_ever_comes_by_itself() -> None:
    clock = VirtualClock()
    hanging = asyncio.create_task(asyncio.Event().wait())
    clock.call_later(30, hanging.cancel)
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert clock.now == START + 30


async def test_a_cancelled_timer_never_fires_and_nothing_jumps_to_it() -> None:
    clock = VirtualClock()
    called: list[str] = []
    timer = clock.call_later(30, lambda: called.append("late"))
    timer.cancel()
    timer.cancel()
    await settle(500)
    assert clock.now == START
    early = clock.call_later(5, lambda: called.append("early"))
    task = asyncio.create_task(clock.sleep(10))
    await asyncio.sleep(0)
    early.cancel()
    moments = {clock.now}
    while not task.done():
        await asyncio.sleep(0)
        moments.add(clock.now)
    assert moments == {START, START + 10}
    assert called == []


async def test_a_timer_cancelled_at_its_very_moment_by_another_is_not_called() -> None:
    clock = VirtualClock()
    timers: list[Timer] = []
    called: list[str] = []

    def cancel_both() -> None:
        called.append("first")
        for timer in timers:
            timer.cancel()

    timers += [
        clock.call_later(5, cancel_both),
        clock.call_later(5, lambda: called.append("second")),
    ]
    await clock.sleep(10)
    assert called == ["first"]


async def test_a_timer_cancelled_too_late_does_nothing() -> None:
    clock = VirtualClock()
    called: list[int] = []
    timer = clock.call_later(1, lambda: called.append(1))
    await clock.sleep(2)
    timer.cancel()
    assert called == [1]


async def test_timers_of_calls_that_ended_are_not_kept() -> None:
    clock = by_hand()
    first = clock.call_later(1, lambda: None)
    for _ in range(10_000):
        clock.call_later(30, lambda: None).cancel()
    assert len(clock._waiters) < 1_000
    first.cancel()
    assert clock._waiters == []


# --- cancelling ------------------------------------------------------------------------------------


async def test_a_cancelled_sleeper_is_forgotten_at_once() -> None:
    clock = VirtualClock()
    short, long = asyncio.create_task(clock.sleep(5)), asyncio.create_task(clock.sleep(10))
    await asyncio.sleep(0)
    short.cancel()
    moments: set[float] = set()
    while not long.done():
        await asyncio.sleep(0)
        moments.add(clock.now)
    assert moments <= {START, START + 10}
    assert short.cancelled()


async def test_nobody_is_left_once_the_last_sleeper_is_cancelled() -> None:
    clock = VirtualClock()
    tasks = asyncio.all_tasks()
    sleeper = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks | {sleeper}
    sleeper.cancel()
    await asyncio.wait([sleeper])
    assert repr(clock) == f"<VirtualClock at {START}, 0 waiting>"
    await settle(500)
    assert clock.now == START


async def test_nothing_of_the_event_loop_is_held_once_the_last_is_cancelled() -> None:
    clock = VirtualClock(idle=60)
    sleeper, timer = asyncio.create_task(clock.sleep(5)), clock.call_later(5, lambda: None)
    await settle(300)
    assert clock._driver is not None
    timer.cancel()
    sleeper.cancel()
    await asyncio.wait([sleeper])
    assert clock._driver is None


async def test_a_sleeper_cancelled_as_it_wakes_is_cancelled() -> None:
    clock = by_hand()
    sleeper = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    clock.now += 5
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper


async def test_a_sleeper_cancelled_and_due_in_the_same_turn_is_cancelled() -> None:
    clock = by_hand()
    sleeper = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    sleeper.cancel()
    clock.now += 5
    with pytest.raises(asyncio.CancelledError):
        await sleeper


async def test_asyncio_s_own_timeouts_can_end_a_sleep() -> None:
    clock = by_hand()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(clock.sleep(1_000), 0.01)
    assert repr(clock).endswith(", 0 waiting>")


# --- moving it by hand -----------------------------------------------------------------------------


async def test_by_hand_it_moves_only_when_told() -> None:
    clock = by_hand()
    sleeper = asyncio.create_task(clock.sleep(10))
    await settle(500)
    assert clock.now == START
    await clock.advance(9.5)
    assert clock.now == START + 9.5
    assert not sleeper.done()
    await clock.advance(0.5)
    assert sleeper.done()
    await clock.advance(0)
    assert clock.now == START + 10


async def test_advancing_begins_with_what_can_run_and_stops_at_each_moment() -> None:
    clock = by_hand()
    seen: list[tuple[str, float]] = []

    async def work() -> None:
        for name in "abc":
            await settle(5)  # work of a few turns
            seen.append((name, clock.monotonic() - START))
            await clock.sleep(10)

    task = asyncio.create_task(work())
    await clock.advance(25)
    assert seen == [("a", 0), ("b", 10), ("c", 20)]
    assert clock.now == START + 25
    await clock.advance(5)
    assert task.done()


async def test_with_auto_advancing_stops_where_it_should_all_the_same() -> None:
    clock = VirtualClock()
    sleeper = asyncio.create_task(clock.sleep(60))
    await clock.advance(59)
    assert (clock.now, sleeper.done()) == (START + 59, False)
    await sleeper  # and goes on by itself from here
    assert clock.now == START + 60


async def test_ten_tenths_are_a_second() -> None:
    clock = by_hand()
    sleepers = [asyncio.create_task(clock.sleep(number / 10)) for number in range(1, 101)]
    for number in range(100):
        await clock.advance(0.1)
        assert sum(sleeper.done() for sleeper in sleepers) == number + 1
    assert clock.now == pytest.approx(START + 10, abs=1e-4)


async def test_two_cannot_advance_it_at_once() -> None:
    clock = by_hand()
    first = asyncio.create_task(clock.advance(5))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await clock.advance(5)
    await first
    assert clock.now == START + 5


async def test_advancing_may_be_cancelled_and_then_it_runs_by_itself_again() -> None:
    clock = VirtualClock()
    sleeper = asyncio.create_task(clock.sleep(60))
    advancing = asyncio.create_task(clock.advance(30))
    await settle(3)
    advancing.cancel()
    await asyncio.wait([advancing])
    await sleeper
    assert clock.now == START + 60


async def test_setting_it_lets_time_pass_at_one_blow() -> None:
    clock = by_hand()
    seen: list[float] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append(clock.monotonic() - START)

    clock.call_later(2, lambda: seen.append(clock.now - START))
    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 100)]
    await asyncio.sleep(0)
    clock.now += 50
    await settle()
    assert seen == [50, 50, 50]
    assert [task.done() for task in tasks] == [True, True, False]
    tasks[2].cancel()


def test_without_an_event_loop_it_can_be_looked_at_and_set() -> None:
    clock = VirtualClock(0.0)
    clock.now = 7
    clock.now += 1
    assert clock.monotonic() == 8
    assert repr(clock) == "<VirtualClock at 8, 0 waiting>"


# --- when it jumps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("auto", [True, False])
async def test_it_stands_while_anybody_looks(auto: bool) -> None:
    clock = VirtualClock(auto=auto)
    sleeper = asyncio.create_task(clock.sleep(60))
    advancing = None if auto else asyncio.create_task(clock.advance(60))
    looks: tuple[Callable[[], object], ...] = (
        clock.monotonic,
        clock.time,
        lambda: timers.pop().cancel(),
    )
    timers = [clock.call_later(1e6, pytest.fail) for _ in range(20)]
    for number in range(60):
        await settle(80)
        looks[number % 3]()
        assert clock.now == START
    await sleeper
    if advancing is not None:
        await advancing
    assert clock.now == START + 60


async def test_work_without_a_look_of_fewer_turns_is_not_overtaken() -> None:
    clock = VirtualClock()
    done: list[float] = []

    async def work() -> None:
        await settle(80)
        done.append(clock.monotonic())

    clock.call_later(30, lambda: done.append(math.nan))
    await work()
    assert done == [START]
    await clock.sleep(31)


async def through_a_socket(seconds: float) -> None:
    """An answer that takes so long, through a real socket and a thread."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await asyncio.to_thread(time.sleep, seconds)
        writer.write(b"answer\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"request\n")
        assert await reader.readline() == b"answer\n"
        writer.close()
        await writer.wait_closed()
    await settle()


@pytest.mark.parametrize("idle", [5.0, 0.0])
async def test_with_idle_it_waits_for_what_comes_through_a_real_socket(idle: float) -> None:
    clock = VirtualClock(idle=idle)
    timer = clock.call_later(30, lambda: None)
    await through_a_socket(0.05)
    assert (clock.now == START) is (idle > 0)
    timer.cancel()


async def test_with_idle_it_does_jump_in_the_end() -> None:
    clock = VirtualClock(idle=0.02)
    before = time.monotonic()
    await clock.sleep(30)
    await clock.advance(30)
    assert clock.now == START + 60
    assert time.monotonic() - before >= 0.03


async def test_the_idle_time_begins_anew_with_every_look() -> None:
    clock = VirtualClock(idle=0.2)
    sleeper = asyncio.create_task(clock.sleep(30))
    began = last = time.monotonic()
    while time.monotonic() < began + 0.3:
        await asyncio.sleep(0.01)
        clock.monotonic()
        last, before = time.monotonic(), last
        if last - before > 0.1:
            pytest.skip("this machine stalls")
        assert clock.now == START
    await sleeper


# --- event loops -----------------------------------------------------------------------------------


def test_one_clock_serves_one_loop_after_the_other() -> None:
    clock = VirtualClock()
    asyncio.run(clock.sleep(5))
    asyncio.run(clock.sleep(5))
    clock.now += 1
    asyncio.run(clock.advance(5))
    assert clock.now == START + 16


def test_what_waited_in_a_loop_that_is_gone_is_forgotten() -> None:
    clock = VirtualClock()
    called: list[int] = []

    async def leave_a_timer() -> None:
        clock.call_later(5, lambda: called.append(1))

    asyncio.run(leave_a_timer())
    clock.now += 10
    asyncio.run(leave_a_timer())
    asyncio.run(clock.sleep(10))
    assert clock.now == START + 20
    assert called == []


def test_two_loops_at_once_are_refused() -> None:
    clock = by_hand()
    loop = asyncio.new_event_loop()
    try:
        sleeper = loop.create_task(clock.sleep(5))
        loop.run_until_complete(settle())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(clock.sleep(5))
        sleeper.cancel()
        loop.run_until_complete(asyncio.wait([sleeper]))
        asyncio.run(clock.advance(5))  # nothing waits there any more
    finally:
        loop.close()
    assert clock.now == START + 5


def test_a_loop_that_is_torn_down_in_the_middle_leaves_nothing() -> None:
    clock = VirtualClock(idle=60)

    async def leave() -> None:
        sleeper = asyncio.create_task(clock.sleep(5))
        advancing = asyncio.create_task(clock.advance(5))
        await settle(300)
        assert not sleeper.done()
        assert not advancing.done()

    asyncio.run(leave())
    gc.collect()
    clock = VirtualClock()
    asyncio.run(clock.sleep(1))


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
@pytest.mark.parametrize(
    "test",
    [
        test_sleepers_wake_in_the_order_of_their_moments_each_at_its_own,
        test_of_one_moment_first_come_first_woken,
        test_whoever_sleeps_again_and_again_is_interleaved_with_the_others,
        test_a_deadline_of_what_hangs_for_ever_comes_by_itself,
        test_a_cancelled_timer_never_fires_and_nothing_jumps_to_it,
        test_a_cancelled_sleeper_is_forgotten_at_once,
        test_advancing_begins_with_what_can_run_and_stops_at_each_moment,
        test_work_without_a_look_of_fewer_turns_is_not_overtaken,
        test_with_idle_it_does_jump_in_the_end,
    ],
)
def test_uvloop_too(test: Callable[[], Awaitable[None]]) -> None:
    import uvloop

    async def run() -> None:
        await test()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_a_timer_of_no_time_is_due_at_once_though_the_clock_stands() -> None:
    clock = VirtualClock(auto=False)
    called: list[float] = []
    clock.call_later(0, lambda: called.append(0))
    clock.call_later(-1, lambda: called.append(-1))
    clock.call_later(0, lambda: called.append(7)).cancel()
    assert called == []
    await asyncio.sleep(0)
    assert called == [0, -1]
    assert clock.now == clock.monotonic()
