"""Waiting for many runs with few requests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from helpers import ONCE, settle
from rerun_world import NOT_SENT, PUBLISHABLE, PUBLISHED, REVIEW, World

from nudgescribe_async import (
    AuthenticationError,
    ClientClosedError,
    DeadlineExceededError,
    NudgescribeError,
    RequestNotSentError,
    RerunError,
    ResponseDecodeError,
)
from nudgescribe_async.rerun.halt import StoppedWaitingError
from nudgescribe_async.rerun.service import Service
from nudgescribe_async.rerun.watch import FEW, LONGEST, LOOKS_FOR_MISSING, LOOKS_IN_VAIN, Watch
from nudgescribe_async.testing import HANG, SentRequest, VirtualClock, answer

if TYPE_CHECKING:
    from nudgescribe_async.endpoints.models import RerunRecord

READY = frozenset({"in review", "publishable", "published"})
MANY = FEW + 2
GARBLED = answer(200, body=b"<html>a proxy</html>", headers={"Content-Type": "text/html"})
MISFIT = answer(200, [{"run_number": "two", "workspace_id": 7}])
"""An answer of the service, which does not fit the contract."""


class Setting:
    """A watch, and a service in which every campaign has its second run, and is at work on it."""

    def __init__(self, world: World, watch: Watch, clock: VirtualClock, slots: asyncio.Semaphore) -> None:
        self.world, self.watch, self.clock, self.slots = world, watch, clock, slots
        self.seen: list[tuple[str, str]] = []

    def until(self, campaign_id: str = "c-1", run_number: int = 2, seconds: float | None = None) -> Any:
        return self.watch.until(campaign_id, run_number, READY, seconds)

    async def all(self) -> list[RerunRecord]:
        return list(await asyncio.gather(*map(self.until, self.world.camps)))

    async def ends(self) -> list[Any]:
        return list(await asyncio.gather(*map(self.until, self.world.camps), return_exceptions=True))

    def set_all(self, status: str) -> None:
        for camp in self.world.camps.values():
            camp.status = status


@asynccontextmanager
async def watching(
    campaigns: int = 1, concurrency: int = 8, settle: float = 10, **options: Any
) -> AsyncIterator[Setting]:
    world, clock = World(campaigns), VirtualClock()
    for camp in world.camps.values():
        camp.run("g-1", "Generating")
    async with world.client(clock=clock, **options) as ns:
        slots = asyncio.Semaphore(concurrency)
        seen: list[tuple[str, str]] = []
        async with Watch(
            Service(ns.reruns._session, None),
            clock,
            slots,
            "reruns.run",
            settle=settle,
            seen=lambda *told: seen.append(told),
        ) as watch:
            at = Setting(world, watch, clock, slots)
            at.seen = seen
            yield at


async def test_a_run_that_is_ready_is_found_with_one_request() -> None:
    async with watching() as at:
        at.world.camps["c-1"].status = REVIEW
        record = await at.until()
        assert (record.run_number, record.campaign_status) == (2, REVIEW)
        assert at.world.sent == ["reruns.history"]


async def test_the_looks_become_rarer_up_to_half_a_minute() -> None:
    async with watching() as at:
        began = at.clock.now
        moments: list[float] = []
        at.world.say("reruns.history", "c-1", *[lambda _: moments.append(at.clock.now)] * 100)
        with pytest.raises(DeadlineExceededError):
            await at.until(seconds=1200)
        gaps = [after - before for before, after in itertools.pairwise(moments)]
        assert moments[0] == began
        assert 0.5 <= gaps[0] <= 1
        assert max(gaps) <= LONGEST
        assert all(gap >= LONGEST / 2 for gap in gaps[12:])
        assert len(set(gaps[12:])) > 5, "they are spread"


async def test_many_are_looked_for_with_few_requests() -> None:
    many = 200
    async with watching(many) as at:
        waiting = asyncio.gather(*map(at.until, at.world.camps))
        at.clock.call_later(600, lambda: at.set_all(REVIEW))
        records = await waiting
        assert [record.campaign_status for record in records] == [REVIEW] * many
        assert at.world.count("reruns.history") <= many + FEW, "once for each, when it is worth it"
        assert at.world.count("campaigns.list") < 40


async def test_those_that_become_ready_one_by_one_do_not_make_the_looks_follow_each_other_without_a_pause() -> None:
    many = 60
    async with watching(many) as at:
        moments: list[float] = []
        at.world.say("campaigns.list", "", *[lambda _: moments.append(at.clock.now)] * 1000)
        left = iter(at.world.camps.values())

        def next_ready() -> None:
            camp = next(left, None)
            if camp is not None:
                camp.status = REVIEW
                at.clock.call_later(0.1, next_ready)

        next_ready()
        await at.all()
        gaps = [after - before for before, after in itertools.pairwise(moments)]
        assert all(gap >= 0.25 for gap in gaps), "half of the shortest interval, and not nothing"


@pytest.mark.parametrize("number", [1, FEW])
async def test_few_are_asked_for_one_by_one(number: int) -> None:
    async with watching(number) as at:
        for camp in at.world.camps.values():
            camp.soon = ["Generating", REVIEW]
        await at.all()
        assert at.world.count("campaigns.list") == 0
        assert at.world.count("reruns.history") == 2 * number


async def test_a_list_that_names_no_run_is_not_relied_upon() -> None:
    async with watching(FEW + 2) as at:
        camps = [{"campaign_id": name, "campaign_status": "Generating"} for name in at.world.camps]
        at.world.transport.on("campaigns.list", lambda _: answer(200, [{"workspace_id": "w-1", "campaigns": camps}]))
        for camp in at.world.camps.values():
            camp.soon = ["Generating", "Generating", REVIEW]
        assert len(await at.all()) == FEW + 2


@pytest.mark.parametrize("camps", [[], [{"campaign_id": "c-1", "run_number": 2}]], ids=["missing", "no state"])
async def test_a_list_that_lacks_a_campaign_or_its_state_is_not_relied_upon(camps: list[dict[str, Any]]) -> None:
    async with watching(FEW + 2) as at:
        at.world.transport.on("campaigns.list", lambda _: answer(200, [{"workspace_id": "w-1", "campaigns": camps}]))
        for camp in at.world.camps.values():
            camp.soon = ["Generating", REVIEW]
        assert len(await at.all()) == FEW + 2


@pytest.mark.parametrize("status", [PUBLISHED, "Generating"])
async def test_a_list_that_lags_behind_for_ever_is_not_believed_for_ever(status: str) -> None:
    """It still has the run before, which is published: that is not the one that is waited for."""
    async with watching(FEW + 2) as at:
        camps = [{"campaign_id": name, "campaign_status": status, "run_number": 1} for name in at.world.camps]
        at.world.transport.on("campaigns.list", lambda _: answer(200, [{"workspace_id": "w-1", "campaigns": camps}]))
        waiting = asyncio.gather(*map(at.until, at.world.camps))
        at.clock.call_later(100, lambda: at.set_all(REVIEW))
        records = await waiting
        assert [record.run_number for record in records] == [2] * (FEW + 2)
        asked, listed = at.world.count("reruns.history"), at.world.count("campaigns.list")
        assert asked <= (FEW + 2) * (listed / 2 + 2), "most lists are believed"


async def test_a_run_that_somebody_has_followed_with_another_is_asked_for() -> None:
    async with watching(FEW + 2) as at:
        for camp in at.world.camps.values():
            camp.run("g-2", "Generating")
        records = await at.all()
        assert {(record.run_number, record.campaign_status) for record in records} == {(2, PUBLISHED)}


@pytest.mark.parametrize("step", [NOT_SENT, answer(500), answer(503), answer(429)])
@pytest.mark.parametrize("many", [1, FEW + 2])
async def test_what_passes_is_waited_out(step: Any, many: int) -> None:
    async with watching(many) as at:
        at.world.say("campaigns.list", "", *[step] * 6)
        for camp in at.world.camps.values():
            at.world.say("reruns.history", camp.campaign_id, *[step] * 6)
            camp.status = REVIEW
        assert len(await at.all()) == many


@pytest.mark.parametrize("step", [answer(404), answer(403), answer(400)])
async def test_a_refusal_ends_the_waiting_of_one(step: Any) -> None:
    async with watching(2) as at:
        for camp in at.world.camps.values():
            camp.soon = ["Generating", REVIEW]
        at.world.say("reruns.history", "c-1", step, step)
        first, second = await at.ends()
        assert isinstance(first, Exception)
        assert second.campaign_status == REVIEW


@pytest.mark.parametrize("step", [answer(404), answer(400), MISFIT], ids=["404", "400", "misfit"])
async def test_where_the_list_will_never_be_had_the_histories_are_asked(step: Any) -> None:
    """One campaign that does not fit the contract does not keep the others from being seen."""
    async with watching(MANY) as at:
        at.world.transport.on("campaigns.list", step)
        for camp in at.world.camps.values():
            camp.soon = ["Generating", REVIEW]
        assert len(await at.all()) == MANY
        assert at.world.sent[: MANY + 1] == ["campaigns.list"] + ["reruns.history"] * MANY
        assert at.world.count("reruns.history") == 2 * MANY


@pytest.mark.parametrize("step", [NOT_SENT, answer(500), GARBLED], ids=["not sent", "500", "garbled"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_list_that_fails_once_asks_nobody_and_if_it_fails_again_all_are_asked(step: Any, times: int) -> None:
    async with watching(MANY, retry=ONCE) as at:
        at.world.say("campaigns.list", "", *[step] * times)
        at.set_all(REVIEW)
        assert len(await at.all()) == MANY
        lists = 2 if times > 1 else times + 1
        assert at.world.sent == ["campaigns.list"] * lists + ["reruns.history"] * MANY


async def test_lists_that_fail_now_and_then_are_not_done_without() -> None:
    async with watching(MANY, retry=ONCE) as at:
        at.world.say("campaigns.list", "", *[NOT_SENT, None] * 5)
        at.clock.call_later(30, lambda: at.set_all(REVIEW))
        assert len(await at.all()) == MANY
        assert at.world.count("reruns.history") == MANY


@pytest.mark.parametrize("many", [1, MANY])
async def test_credentials_that_are_refused_end_it(many: int) -> None:
    async with watching(many) as at:
        at.world.transport.on("auth.authenticate", answer(403))
        assert {type(error) for error in await at.ends()} == {AuthenticationError}
        assert not at.world.sent
        assert at.world.count("auth.authenticate") == 1, "it is not asked for each"


@pytest.mark.parametrize("step", [MISFIT, answer(200, {"no": "list"})])
async def test_a_history_that_does_not_fit_the_contract_ends_the_waiting_of_one(step: Any) -> None:
    async with watching(2) as at:
        at.world.camps["c-2"].soon = ["Generating", REVIEW]
        at.world.say("reruns.history", "c-1", *[step] * 100)
        first, second = await at.ends()
        assert isinstance(first, ResponseDecodeError)
        assert second.campaign_status == REVIEW
        assert at.world.count("reruns.history", "c-1") == 1


@pytest.mark.parametrize(
    "step", [NOT_SENT, answer(500), answer(429), GARBLED], ids=["not sent", "500", "429", "garbled"]
)
async def test_looks_in_vain_have_an_end(step: Any) -> None:
    async with watching(2, retry=ONCE) as at:
        at.world.camps["c-2"].soon = ["Generating"] * 10 + [REVIEW]
        at.world.say("reruns.history", "c-1", *[step] * 100)
        first, second = await at.ends()
        assert isinstance(first, NudgescribeError)
        assert second.campaign_status == REVIEW
        assert at.world.count("reruns.history", "c-1") == LOOKS_IN_VAIN


async def test_looks_in_vain_are_counted_in_a_row() -> None:
    async with watching(retry=ONCE) as at:
        bad = [NOT_SENT] * (LOOKS_IN_VAIN - 1)
        at.world.say("reruns.history", "c-1", *bad, None, *bad, None, *bad)
        at.clock.call_later(600, lambda: at.set_all(REVIEW))
        assert (await at.until()).campaign_status == REVIEW
        assert at.world.count("reruns.history") > 3 * len(bad)


async def test_a_look_at_a_history_that_lags_behind_is_none_in_vain() -> None:
    async with watching(retry=ONCE, settle=600) as at:
        bad = [NOT_SENT] * (LOOKS_IN_VAIN - 1)
        behind = answer(200, [{"run_number": 1, "campaign_status": PUBLISHED, "customer_group_id": "g-0"}])
        at.world.say("reruns.history", "c-1", *bad, behind, *bad)
        at.set_all(REVIEW)
        assert (await at.until()).campaign_status == REVIEW


async def test_a_deadline_names_what_kept_it_from_seeing() -> None:
    async with watching(retry=ONCE) as at:
        at.world.say("reruns.history", "c-1", NOT_SENT, NOT_SENT)
        with pytest.raises(DeadlineExceededError, match="Nothing is known") as caught:
            await at.until(seconds=0.9)
        assert isinstance(caught.value.__cause__, RequestNotSentError)


async def test_a_deadline_does_not_blame_what_has_passed() -> None:
    async with watching(retry=ONCE) as at:
        at.world.say("reruns.history", "c-1", NOT_SENT)
        with pytest.raises(DeadlineExceededError, match="'Generating'") as caught:
            await at.until(seconds=60)
        assert caught.value.__cause__ is None


async def test_a_deadline_names_the_list_that_could_not_be_had() -> None:
    async with watching(MANY, retry=ONCE) as at:
        at.world.say("campaigns.list", "", NOT_SENT)
        others = [asyncio.create_task(at.until(name)) for name in list(at.world.camps)[1:]]
        with pytest.raises(DeadlineExceededError) as caught:
            await at.until(seconds=0.2)
        assert isinstance(caught.value.__cause__, RequestNotSentError)
        at.set_all(REVIEW)
        await asyncio.gather(*others)


async def test_a_defect_is_raised_where_it_is_waited_and_leaves_no_task() -> None:
    async with watching(3) as at:
        for name in ("c-2", "c-3"):
            at.world.camps[name].soon = ["Generating", REVIEW]
        at.world.say("reruns.history", "c-1", ZeroDivisionError("oops"))
        first, *others = await at.ends()
        assert isinstance(first, ZeroDivisionError)
        assert [other.campaign_status for other in others] == [REVIEW] * 2


async def test_a_defect_of_the_list_leaves_nobody_waiting() -> None:
    async with watching(FEW + 2) as at:
        at.world.say("campaigns.list", "", ZeroDivisionError("oops"))
        found = await asyncio.gather(*map(at.until, at.world.camps), return_exceptions=True)
        assert {type(error) for error in found} == {ZeroDivisionError}
        at.world.camps["c-1"].status = REVIEW
        assert (await at.until()).campaign_status == REVIEW, "it goes on for others"


async def test_a_run_that_is_missing_may_be_late() -> None:
    async with watching() as at:
        camp = at.world.camps["c-1"]
        camp.status = REVIEW
        run = camp.runs.pop()
        at.world.say("reruns.history", "c-1", None, None, lambda _: camp.runs.append(run))
        assert (await at.until()).run_number == 2


@pytest.mark.parametrize("settle", [0, 10, 60])
async def test_a_run_that_stays_missing_is_an_error_and_not_before_the_history_must_have_it(settle: float) -> None:
    async with watching(settle=settle) as at:
        began = at.clock.now
        with pytest.raises(RerunError, match="no run 9; the newest is 2") as caught:
            await at.until(run_number=9)
        assert "reruns.history" in caught.value.advice
        assert settle <= at.clock.now - began <= settle + LONGEST
        assert at.world.count("reruns.history") >= LOOKS_FOR_MISSING
        assert settle or at.world.count("reruns.history") == LOOKS_FOR_MISSING


async def test_a_campaign_without_any_run() -> None:
    async with watching() as at:
        at.world.camps["c-1"].runs[:] = [at.world.camps["c-1"].runs[0]]
        at.world.transport.on("reruns.history", answer(200, []))
        with pytest.raises(RerunError, match="no run 2; the newest is 0"):
            await at.until()


async def test_a_run_that_is_seen_in_between_is_not_missing() -> None:
    """Copies of a history that lag behind, and take turns."""
    async with watching(settle=5) as at:
        behind = answer(200, [{"run_number": 1, "campaign_status": PUBLISHED, "customer_group_id": "g-0"}])
        at.world.say("reruns.history", "c-1", *[behind, behind, None] * 4)
        at.clock.call_later(40, lambda: at.set_all(REVIEW))
        assert (await at.until()).run_number == 2


@pytest.mark.parametrize("kept", ["Generating", "Archived", "Ready for something", None])
@pytest.mark.parametrize("many", [1, MANY])
async def test_a_run_that_is_not_the_newest_any_more_was_published(kept: str | None, many: int) -> None:
    """Whatever the history calls it: only what is published can be run again."""
    async with watching(many) as at:
        for camp in at.world.camps.values():
            camp.runs[-1]["campaign_status"] = kept
            camp.run("g-2", "Generating")
        assert {record.campaign_status for record in await at.all()} == {PUBLISHED}
        assert {state for _, state in at.seen} == {PUBLISHED}


async def test_a_run_that_failed_and_is_not_the_newest_any_more_has_failed() -> None:
    async with watching() as at:
        camp = at.world.camps["c-1"]
        camp.runs[-1]["campaign_status"] = "Generation failed"
        camp.run("g-2", "Generating")
        assert (await at.until()).campaign_status == "Generation failed"


async def test_a_service_that_has_failed_ends_the_waiting() -> None:
    async with watching() as at:
        at.world.camps["c-1"].soon = ["Generating", "Failed"]
        assert (await at.until()).campaign_status == "Failed"


async def test_time_that_runs_out_is_that_of_one() -> None:
    async with watching(2) as at:
        late, found = asyncio.create_task(at.until("c-1", seconds=5)), asyncio.create_task(at.until("c-2"))
        with pytest.raises(DeadlineExceededError, match="'Generating'") as caught:
            await late
        assert not caught.value.may_have_taken_effect
        at.world.camps["c-2"].status = PUBLISHABLE
        assert (await found).campaign_status == PUBLISHABLE


async def test_a_deadline_before_the_first_answer_says_that_nothing_is_known() -> None:
    async with watching() as at:
        at.world.say("reruns.history", "c-1", HANG)
        with pytest.raises(DeadlineExceededError, match="Nothing is known of it yet"):
            await at.until(seconds=5)


async def test_who_comes_late_does_not_wait_for_the_long_pause_of_the_others() -> None:
    async with watching(2) as at:
        first = asyncio.create_task(at.until("c-1"))
        await at.clock.advance(600)
        at.world.camps["c-2"].status = REVIEW
        before = at.clock.now
        assert (await at.until("c-2", seconds=5)).campaign_status == REVIEW
        assert at.clock.now - before <= 2
        first.cancel()
        await asyncio.wait([first])


async def test_stopping_ends_all_waiting_at_once() -> None:
    async with watching(2) as at:
        waiting = [asyncio.create_task(at.until(name)) for name in at.world.camps]
        await settle()
        at.watch.stop()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(error) for error in found} == {StoppedWaitingError}
        with pytest.raises(StoppedWaitingError):
            await at.until()


async def test_closing_the_client_says_so() -> None:
    async with watching() as at:
        waiting = asyncio.create_task(at.until())
        await settle()
        at.watch.close()
        with pytest.raises(ClientClosedError):
            await waiting


async def test_leaving_ends_a_look_under_way() -> None:
    cut = False

    async def slow(_: SentRequest) -> None:
        nonlocal cut
        try:
            await asyncio.Event().wait()
        finally:
            cut = True

    async with watching() as at:
        at.world.say("reruns.history", "c-1", slow)
        waiting = asyncio.create_task(at.until())
        await settle()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], StoppedWaitingError)
    assert cut


async def test_who_is_cancelled_leaves_the_others_waiting() -> None:
    async with watching(2) as at:
        first, second = (asyncio.create_task(at.until(name)) for name in at.world.camps)
        await settle()
        first.cancel()
        await asyncio.wait([first])
        at.world.camps["c-2"].status = REVIEW
        assert (await second).campaign_status == REVIEW
        asked = at.world.count("reruns.history", "c-1")
        await at.clock.advance(100)
        assert at.world.count("reruns.history", "c-1") == asked


async def test_the_list_of_all_keeps_to_the_slots() -> None:
    async with watching(FEW + 2, concurrency=1) as at:
        at.set_all(REVIEW)
        async with at.slots:
            waiting = asyncio.gather(*map(at.until, at.world.camps))
            await settle(50)
            assert not at.world.sent
        await waiting
        assert at.world.sent[0] == "campaigns.list"


async def test_the_looks_keep_to_the_slots() -> None:
    async with watching(20, concurrency=2) as at:
        at.world.latency = 0.001
        for camp in at.world.camps.values():
            camp.status = REVIEW
        await at.all()
        assert at.world.most <= 2


# --- slow ones -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [2, MANY])
async def test_a_history_that_is_slow_does_not_hold_up_the_others(many: int) -> None:
    async with watching(many) as at:
        at.set_all(REVIEW)
        released = asyncio.Event()

        async def slow(_: SentRequest) -> None:
            await released.wait()

        at.world.say("reruns.history", "c-1", slow)
        began = at.clock.now
        first, *others = [asyncio.create_task(at.until(name)) for name in at.world.camps]
        await asyncio.gather(*others)
        await at.clock.advance(5)
        assert not first.done()
        assert at.world.count("reruns.history", "c-1") == 1, "it is asked once at a time"
        late = await at.until("c-2")
        assert late.campaign_status == REVIEW
        assert at.clock.now - began <= 7
        released.set()
        assert (await first).campaign_status == REVIEW


@pytest.mark.parametrize("how", ["cancelled", "late"])
async def test_whoever_does_not_wait_any_more_gives_the_slot_back(how: str) -> None:
    async with watching(2, concurrency=1) as at:
        at.set_all(REVIEW)
        at.world.say("reruns.history", "c-1", HANG)
        first = asyncio.create_task(at.until("c-1", seconds=2))
        await settle()
        second = asyncio.create_task(at.until("c-2"))
        await settle()
        if how == "cancelled":
            first.cancel()
        began = at.clock.now
        assert (await second).campaign_status == REVIEW
        assert at.clock.now - began <= 4
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else DeadlineExceededError):
            await first
        assert not at.slots.locked()


async def test_who_comes_while_a_list_is_under_way_is_seen_by_the_next_and_who_goes_is_not_asked_for() -> None:
    async with watching(MANY + 1) as at:
        at.set_all(REVIEW)
        released = asyncio.Event()

        async def slow(_: SentRequest) -> None:
            await released.wait()

        at.world.say("campaigns.list", "", slow)
        goes, *stay = [asyncio.create_task(at.until(name)) for name in list(at.world.camps)[:MANY]]
        await settle()
        comes = asyncio.create_task(at.until(f"c-{MANY + 1}"))
        goes.cancel()
        await settle()
        assert at.world.sent == ["campaigns.list"]
        began = at.clock.now
        released.set()
        assert {record.campaign_status for record in await asyncio.gather(*stay, comes)} == {REVIEW}
        assert at.clock.now - began <= 2
        assert at.world.count("reruns.history", "c-1") == 0
        assert at.world.count("reruns.history") == MANY
        assert "c-1" not in dict(at.seen)
        await asyncio.wait([goes])


async def test_who_comes_while_histories_are_asked_is_seen_soon() -> None:
    async with watching(2) as at:
        at.set_all(REVIEW)
        released = asyncio.Event()

        async def slow(_: SentRequest) -> None:
            await released.wait()

        at.world.say("reruns.history", "c-1", slow)
        first = asyncio.create_task(at.until("c-1"))
        await settle()
        began = at.clock.now
        assert (await at.until("c-2")).campaign_status == REVIEW
        assert at.clock.now - began <= 2
        released.set()
        await first


@pytest.mark.parametrize("many", [2, MANY])
async def test_nothing_is_sent_after_stopping(many: int) -> None:
    async with watching(many, concurrency=1) as at:
        async with at.slots:
            waiting = asyncio.gather(*map(at.until, at.world.camps), return_exceptions=True)
            await settle(50)
            at.watch.stop()
        assert {type(error) for error in await waiting} == {StoppedWaitingError}
        await at.clock.advance(100)
        assert not at.world.sent


@pytest.mark.parametrize("end", ["stop", "close"])
@pytest.mark.parametrize("many", [2, MANY])
async def test_the_end_while_something_is_asked(end: str, many: int) -> None:
    async with watching(many) as at:
        at.world.say("campaigns.list", "", HANG)
        for name in at.world.camps:
            at.world.say("reruns.history", name, HANG)
        waiting = asyncio.gather(*map(at.until, at.world.camps), return_exceptions=True)
        await settle(50)
        assert at.world.sent
        began = at.clock.now
        getattr(at.watch, end)()
        kinds = {type(error) for error in await waiting}
        assert kinds == {StoppedWaitingError if end == "stop" else ClientClosedError}
        assert at.clock.now == began


@pytest.mark.parametrize("many", [1, MANY])
async def test_leaving_leaves_no_task_behind_even_if_it_is_cancelled(many: int) -> None:
    ended = 0

    async def slow(_: SentRequest) -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            for _turn in range(10):
                await asyncio.sleep(0)
            ended += 1

    async with watching(many) as at:
        at.world.say("campaigns.list", "", slow)
        at.world.say("reruns.history", "c-1", slow)
        waiting = asyncio.gather(*map(at.until, at.world.camps), return_exceptions=True)
        await settle()
        leaving = asyncio.create_task(at.watch.__aexit__(None, None, None))
        await settle(3)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert ended == 1
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "nudgescribe rerun watch"]
        await waiting


# --- what is told ------------------------------------------------------------------------------------------------------


async def test_each_look_tells_where_the_campaign_stands() -> None:
    async with watching() as at:
        at.world.camps["c-1"].soon = ["Generating", "Nearly there", REVIEW]
        await at.until()
        assert at.seen == [("c-1", "Generating"), ("c-1", "Nearly there"), ("c-1", REVIEW)]


async def test_each_list_tells_where_the_campaigns_stand_and_nothing_of_another_run() -> None:
    async with watching(MANY) as at:

        def listed(_: SentRequest) -> Any:
            camps = [
                {"campaign_id": name, "campaign_status": camp.status, "run_number": 2}
                if name != "c-2"
                else {"campaign_id": name, "campaign_status": PUBLISHED, "run_number": 1}
                for name, camp in at.world.camps.items()
            ]
            return answer(200, [{"workspace_id": "w-1", "campaigns": camps}])

        at.world.transport.on("campaigns.list", listed)
        at.clock.call_later(10, lambda: at.set_all("Nearly there"))
        at.clock.call_later(60, lambda: at.set_all(REVIEW))
        await at.all()
        told = [state for name, state in at.seen if name == "c-1"]
        assert list(dict.fromkeys(told)) == ["Generating", "Nearly there", REVIEW]
        assert at.world.count("reruns.history", "c-1") == 1, "the list has told the rest"
        assert PUBLISHED not in {state for name, state in at.seen if name == "c-2"}


# --- histories that do not say where campaigns stand ----------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, MANY])
async def test_where_histories_say_nothing_the_list_is_believed(many: int) -> None:
    async with watching(many) as at:
        at.world.silent = True
        at.clock.call_later(20, lambda: at.set_all(REVIEW))
        records = await at.all()
        assert {(record.run_number, record.campaign_status) for record in records} == {(2, REVIEW)}


async def test_what_is_not_known_is_no_state() -> None:
    """Who wants to know where a campaign stands now, whatever that is, is not told "at work" unless it is."""
    async with watching() as at:
        at.world.silent = True
        at.world.camps["c-1"].status = PUBLISHABLE
        record = await at.watch.until("c-1", 2, READY | {"working"})
        assert record.campaign_status == PUBLISHABLE
        assert at.world.sent == ["reruns.history", "campaigns.list", "reruns.history"]


@pytest.mark.parametrize("step", [answer(404), MISFIT], ids=["404", "misfit"])
@pytest.mark.parametrize("many", [1, MANY])
async def test_where_neither_can_tell_it_is_said(step: Any, many: int) -> None:
    async with watching(many) as at:
        at.world.silent = True
        at.world.transport.on("campaigns.list", step)
        assert all(isinstance(error, NudgescribeError) for error in await at.ends())
        assert at.world.count("reruns.history") <= 2 * many


async def test_where_histories_say_nothing_and_the_list_is_down_it_has_an_end() -> None:
    async with watching(retry=ONCE) as at:
        at.world.silent = True
        at.world.transport.on("campaigns.list", answer(500))
        (error,) = await at.ends()
        assert isinstance(error, NudgescribeError)
        assert at.world.count("campaigns.list") == LOOKS_IN_VAIN
