"""The last look before a request that must not happen twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rerun_world import PUBLISHED, World, steps

from nudgescribe_async import CallOptions, RerunReport
from nudgescribe_async.rerun.halt import Halt
from nudgescribe_async.rerun.once import FRESH, NotNowError, Once
from nudgescribe_async.testing import SentRequest, VirtualClock

pytestmark = pytest.mark.usefixtures("no_threads")


def fresh() -> tuple[Once, VirtualClock, Halt]:
    clock = VirtualClock()
    halt = Halt(clock)
    once = Once(clock, halt)
    once.looked()
    return once, clock, halt


async def passes(once: Once, clock: VirtualClock, seconds: float) -> bool:
    """Whether it is sent so long after the look."""
    once.looked()
    await clock.sleep(seconds)
    try:
        once.check(once.replaced)
    except NotNowError as not_now:
        return (not_now.why, not_now.denied) != ("it had to wait, and the history is asked again first", None)
    return True


async def test_it_is_sent_soon_after_the_look_and_not_long_after_it() -> None:
    once, clock, _ = fresh()
    assert await passes(once, clock, 0)
    assert await passes(once, clock, FRESH)
    assert not await passes(once, clock, FRESH + 0.1)


async def test_each_look_that_was_too_old_may_be_twice_as_old_the_next_time() -> None:
    once, clock, _ = fresh()
    for turn in range(5):
        assert not await passes(once, clock, FRESH * 2**turn + 0.1)
        assert await passes(once, clock, FRESH * 2**turn + 0.1)


async def test_nothing_is_sent_when_it_is_time_to_stop_and_it_says_why() -> None:
    once, _, halt = fresh()
    once.check(None)
    halt.now("the cat is on the keyboard")
    with pytest.raises(NotNowError, match="the cat is on the keyboard") as caught:
        once.check(None)
    assert caught.value.denied is None


async def test_another_token_is_used_only_after_another_look() -> None:
    once, _, halt = fresh()
    with pytest.raises(NotNowError) as caught:
        once.check(403)
    assert (caught.value.denied, once.replaced) == (403, 403)
    once.check(403)  # the session goes on with it
    halt.now("stop")
    with pytest.raises(NotNowError) as caught:
        once.check(401)
    assert caught.value.denied == 401, "that a request was refused counts for more than that it is time to stop"


async def test_it_knows_whether_a_request_was_let_go_since_the_look() -> None:
    once, _, halt = fresh()
    told = [once.let_go]
    once.check(None)
    told.append(once.let_go)
    with pytest.raises(NotNowError):
        once.check(401)
    told.append(once.let_go)  # the one before was
    once.looked()
    told.append(once.let_go)
    halt.now("stop")
    with pytest.raises(NotNowError):
        once.check(401)
    told.append(once.let_go)
    assert told == [False, True, True, False, False]


# --- in a call ---------------------------------------------------------------------------------------------------------


async def busy(
    world: World, journal: Path, *holds: Callable[[], object], seconds: float, **options: Any
) -> RerunReport:
    """A call of a client that has one slot, which something else takes after each of the first looks."""
    clock = VirtualClock()
    others: list[asyncio.Task[Any]] = []
    world.camps["c-1"].after_run = PUBLISHED

    async with world.client(clock=clock, concurrency=1) as ns:
        for hold in holds:

            async def slow(_: SentRequest, hold: Callable[[], object] = hold) -> None:
                hold()
                await clock.sleep(seconds)

            async def take_it(_: SentRequest) -> None:
                others.append(asyncio.create_task(ns.reruns.messages("c-2")))
                for _turn in range(10):  # until it waits for the slot
                    await asyncio.sleep(0)

            world.say("reruns.history", "c-1", take_it)
            world.say("reruns.messages", "c-2", slow)
        report = await ns.reruns.run(world.plan("c-1"), journal=journal, settle=1, **options)
        await asyncio.gather(*others)
    return report


def nothing() -> None: ...


async def test_what_had_to_wait_for_a_slot_is_looked_for_again_before_it_is_sent(journal: Path) -> None:
    world = World(2)
    (outcome,) = report = await busy(world, journal, nothing, seconds=FRESH * 3)
    assert steps(outcome) == ["intended", "unsent", "intended", "started"]
    assert (outcome.state, outcome.attempts, report.sent) == ("succeeded", 1, 1)
    assert world.count("reruns.history", "c-1") == 2


async def test_a_client_that_is_busy_for_long_gets_on_nevertheless(journal: Path) -> None:
    world = World(2)
    (outcome,) = await busy(world, journal, *[nothing] * 9, seconds=FRESH * 3)
    assert steps(outcome) == ["intended", "unsent"] * 2 + ["intended", "started"]


@pytest.mark.parametrize(("group", "state"), [("g-2", "conflict"), ("g-1", "succeeded")])
async def test_what_somebody_runs_meanwhile_is_not_overwritten(journal: Path, group: str, state: str) -> None:
    world = World(2)
    (outcome,) = report = await busy(world, journal, lambda: world.camps["c-1"].run(group), seconds=FRESH * 3)
    assert (outcome.state, outcome.attempts, report.sent) == (state, 0, 0)
    assert world.count("reruns.initiate") == 0
    assert world.runs("c-1") == [group]


async def test_what_waits_for_a_slot_is_not_sent_when_it_is_time_to_stop(journal: Path) -> None:
    world = World(2)
    stop = asyncio.Event()
    (outcome,) = report = await busy(world, journal, stop.set, seconds=FRESH / 2, stop=stop)
    assert steps(outcome) == ["intended", "unsent"]
    assert (outcome.state, outcome.attempts, report.sent) == ("not_started", 0, 0)
    assert "The caller asked for it" in report.stopped
    assert world.count("reruns.initiate") == 0
    async with world.client() as ns:
        assert (await ns.reruns.run(world.plan("c-1"), journal=journal)).complete


async def test_what_waits_for_a_slot_until_its_time_is_up_was_never_sent(journal: Path) -> None:
    world = World(2)
    options = CallOptions(timeout=2)
    (outcome,) = report = await busy(world, journal, nothing, seconds=30, options=options)
    assert outcome.state == "not_started"
    assert (world.count("reruns.initiate"), world.runs("c-1")) == (0, [])
    assert report.sent == outcome.attempts
