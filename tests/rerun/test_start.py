"""One campaign until it has its one new run, whatever becomes of the requests on the way."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rerun_world import LOST, NOT_SENT, PUBLISHABLE, PUBLISHED, QUICK, World, receipt, states, steps

from nudgescribe_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CallOptions,
    JournalError,
    OutcomeUnknownError,
    QuotaExceededError,
    RerunOutcome,
    RerunReport,
    Response,
    ResponseDecodeError,
    RetryPolicy,
)
from nudgescribe_async.rerun.journal import Journal
from nudgescribe_async.rerun.start import REQUESTS
from nudgescribe_async.testing import HANG, SentRequest, VirtualClock, answer

pytestmark = pytest.mark.usefixtures("no_threads")

SETTLE = 10.0
RETRY_AFTER = {"Retry-After": "1"}
REFUSALS = [answer(status, {"message": "no"}) for status in (400, 401, 403, 404, 409)]
ODD_REFUSALS = [answer(404), answer(200, {"success": False, "message": "timed out, still at work"})]


async def run(world: World, journal: Path, *, settle: float = SETTLE, **options: Any) -> RerunReport:
    async with world.client(clock=VirtualClock()) as ns:
        return await ns.reruns.run(world.plan(), journal=journal, settle=settle, **options)


async def one(world: World, journal: Path, **options: Any) -> RerunOutcome:
    (outcome,) = await run(world, journal, **options)
    return outcome


# --- success -----------------------------------------------------------------------------------------------------------


async def test_a_success_has_all_that_the_answer_said(journal: Path) -> None:
    world = World()
    outcome = await one(world, journal)
    assert (outcome.state, outcome.reason, outcome.error) == ("succeeded", "", None)
    assert (outcome.run_number, outcome.previous_run, outcome.rerun_id) == (2, 1, "c-1-r2")
    assert (outcome.adopted, outcome.attempts, outcome.archived_count) == (False, 1, 4)
    assert outcome.comparison is not None
    assert (outcome.comparison.matched_count, outcome.comparison.new_count, outcome.comparison.orphaned_count) == (
        3,
        2,
        1,
    )
    assert (outcome.campaign_name, outcome.campaign_status) == ("Campaign 1", PUBLISHABLE)
    assert steps(outcome) == ["intended", "started"]
    assert world.runs("c-1") == ["g-1"]


async def test_the_intention_is_on_the_disk_with_the_newest_run_before_anything_is_sent(journal: Path) -> None:
    world = World()
    world.camps["c-1"].runs[0]["run_number"] = 6
    seen: list[Any] = []

    def look(_: SentRequest) -> None:
        connection = sqlite3.connect(journal)
        seen.extend(connection.execute("SELECT state, newest_run, attempts FROM items"))
        connection.close()

    world.say("reruns.initiate", "c-1", look)
    outcome = await one(world, journal)
    assert seen == [("intended", 6, 1)]
    assert (outcome.previous_run, outcome.run_number) == (6, 7)


async def test_what_is_done_is_not_done_again(journal: Path) -> None:
    world = World()
    await run(world, journal)
    asked = len(world.sent)
    report = await run(world, journal)
    assert report.complete
    assert report.sent == 0
    assert len(world.sent) == asked, "nothing was left to ask"
    assert world.runs("c-1") == ["g-1"]


# --- no answer ---------------------------------------------------------------------------------------------------------


async def test_a_run_whose_answer_was_lost_is_adopted_at_the_first_look(journal: Path) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", world.lost)
    clock = VirtualClock()
    async with world.client(clock=clock) as ns:
        (outcome,) = report = await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE)
    assert (outcome.state, outcome.adopted, outcome.run_number, outcome.attempts) == ("succeeded", True, 2, 1)
    assert (outcome.rerun_id, outcome.archived_count, outcome.campaign_status) == ("c-1-r2", 4, PUBLISHABLE)
    assert outcome.comparison is not None
    assert outcome.comparison.matched_count == 3
    assert steps(outcome) == ["intended", "lost", "adopted"]
    assert (world.count("reruns.initiate"), report.sent) == (1, 1)
    assert not [seconds for seconds in clock.slept if seconds >= 1], "there was nothing to wait for"


async def test_a_late_arrival_within_the_time_to_settle_is_adopted(journal: Path) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", world.late(1))
    outcome = await one(world, journal)
    assert (outcome.state, outcome.adopted, outcome.attempts) == ("succeeded", True, 1)
    assert world.count("reruns.initiate") == 1
    assert world.runs("c-1") == ["g-1"]


async def test_what_has_not_arrived_in_the_time_to_settle_is_sent_again_and_not_before(journal: Path) -> None:
    world = World()
    clock = VirtualClock()
    moments: list[float] = []

    def note(_: SentRequest) -> None:
        moments.append(clock.now)

    def note_and_lose(sent: SentRequest) -> Exception:
        note(sent)
        return LOST

    world.say("reruns.initiate", "c-1", note_and_lose, note)
    async with world.client(clock=clock) as ns:
        (outcome,) = await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE)
    assert moments[1] - moments[0] >= SETTLE
    assert (outcome.state, outcome.adopted, outcome.attempts) == ("succeeded", False, 2)
    assert steps(outcome) == ["intended", "lost", "absent", "intended", "started"]
    assert outcome.previous_run == 1
    assert world.runs("c-1") == ["g-1"]


async def test_the_history_is_asked_between_any_two_requests(journal: Path) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", LOST, LOST, LOST)
    await one(world, journal)
    sent = [operation for operation in world.sent if operation.startswith("reruns.") and operation != "reruns.messages"]
    asked = "reruns.history"
    assert sent == [asked, *(["reruns.initiate", asked, asked] * 3), "reruns.initiate"]


async def test_an_earlier_request_that_arrives_with_the_second_one_is_not_doubled(journal: Path) -> None:
    world = World()

    def first_arrives(_: SentRequest) -> None:
        world.camps["c-1"].run("g-1")

    world.say("reruns.initiate", "c-1", LOST, first_arrives)
    outcome = await one(world, journal)
    assert world.runs("c-1") == ["g-1"]
    assert (outcome.state, outcome.adopted, outcome.run_number, outcome.attempts) == ("succeeded", True, 2, 2)
    assert steps(outcome)[-3:] == ["intended", "denied", "adopted"]


@pytest.mark.parametrize("again", [1, 3])
async def test_the_newest_known_run_stays_what_it_was_before_the_first_request(journal: Path, again: int) -> None:
    """Else a first request that arrives between two looks is taken for what was there before."""
    world = World()
    world.say("reruns.initiate", "c-1", *[LOST] * again, world.lost)
    outcome = await one(world, journal)
    assert (outcome.previous_run, outcome.run_number, outcome.state) == (1, 2, "succeeded")


async def test_a_history_that_lags_does_not_make_an_old_run_for_the_same_group_the_new_one(journal: Path) -> None:
    """The group of last quarter: were the newest known run what a lagging history says, the old run would be adopted."""
    world = World()
    world.camps["c-1"].run("g-1", "Published")
    lagging = answer(200, [{"run_number": 1, "customer_group_id": "g-0"}])
    world.say("reruns.initiate", "c-1", LOST, LOST)
    world.say("reruns.history", "c-1", None, lagging, lagging)
    outcome = await one(world, journal)
    assert (outcome.state, outcome.previous_run, outcome.run_number) == ("succeeded", 2, 3)
    assert world.runs("c-1") == ["g-1", "g-1"]
    assert world.count("reruns.initiate") == 3


async def test_an_answer_that_cannot_be_read_is_a_lost_one(journal: Path) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", world.done_and(answer(200, {"success": True})))
    outcome = await one(world, journal)
    assert (outcome.state, outcome.adopted) == ("succeeded", True)
    assert world.count("reruns.initiate") == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, "503 with Retry-After"])
@pytest.mark.parametrize("done", [True, False])
async def test_a_service_in_trouble_has_done_it_or_not(journal: Path, status: int | str, done: bool) -> None:
    """Whoever says "not now, come back later" may stand before the service, and may have passed it on."""
    world = World()
    said = answer(status, {"message": "trouble"}) if isinstance(status, int) else answer(503, headers=RETRY_AFTER)
    world.say("reruns.initiate", "c-1", world.done_and(said) if done else said)
    outcome = await one(world, journal)
    assert (outcome.state, outcome.adopted) == ("succeeded", done)
    assert steps(outcome)[:2] == ["intended", "lost"]
    assert world.count("reruns.initiate") == (1 if done else 2)
    assert world.runs("c-1") == ["g-1"]


async def test_a_request_that_takes_too_long_is_looked_for(journal: Path) -> None:
    world = World()

    def done_and_silent(sent: SentRequest) -> Any:
        world.lost(sent)
        return HANG

    world.say("reruns.initiate", "c-1", done_and_silent)
    outcome = await one(world, journal, options=CallOptions(timeout=3))
    assert (outcome.state, outcome.adopted) == ("succeeded", True)


async def test_settle_0_does_not_wait(journal: Path) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", LOST)
    outcome = await one(world, journal, settle=0)
    assert (outcome.state, outcome.attempts) == ("succeeded", 2)


async def test_five_requests_without_effect_are_enough_for_one_call(journal: Path) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", *[LOST] * REQUESTS)
    outcome = await one(world, journal)
    assert (outcome.state, outcome.attempts) == ("not_started", REQUESTS)
    assert f"{REQUESTS} times" in outcome.reason
    assert world.count("reruns.initiate") == REQUESTS
    outcome = await one(world, journal)
    assert (outcome.state, outcome.attempts) == ("succeeded", REQUESTS + 1), "attempts count over all calls"
    assert world.runs("c-1") == ["g-1"]


async def test_those_that_were_turned_away_do_not_count_for_that(journal: Path) -> None:
    world = World()
    turned_away = answer(429)
    world.say("reruns.initiate", "c-1", LOST, LOST, turned_away, *[LOST] * (REQUESTS - 3))
    outcome = await one(world, journal)
    assert (outcome.state, outcome.attempts) == ("succeeded", REQUESTS + 1)


async def test_what_arrives_after_all_is_found_by_the_next_call(journal: Path) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", *[LOST] * REQUESTS)
    assert (await one(world, journal)).state == "not_started"
    world.camps["c-1"].run("g-1")
    outcome = await one(world, journal)
    assert (outcome.state, outcome.adopted, outcome.run_number) == ("succeeded", True, 2)
    assert world.count("reruns.initiate") == REQUESTS
    assert world.runs("c-1") == ["g-1"]


# --- somebody else -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [LOST, answer(500), answer(400, {"message": "not published"})])
async def test_a_newer_run_for_another_group_is_a_conflict_for_ever(journal: Path, step: Any) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", world.overtaken("g-2", step))
    outcome = await one(world, journal)
    assert outcome.state == "conflict"
    assert outcome.run_number is None
    assert "another group" in outcome.reason
    assert steps(outcome)[-1] == "conflict"
    asked = len(world.sent)
    again = await one(world, journal)
    assert (again.state, again.reason) == ("conflict", outcome.reason)
    assert len(world.sent) == asked, "a conflict is final"
    assert world.runs("c-1") == ["g-2"]
    assert world.count("reruns.initiate") == 1


async def test_a_conflict_is_seen_in_the_time_to_settle_too(journal: Path) -> None:
    world = World()

    def later(_: SentRequest) -> Exception:
        world.say("reruns.history", "c-1", None, lambda _: world.camps["c-1"].run("g-2") and None)
        return LOST

    world.say("reruns.initiate", "c-1", later)
    outcome = await one(world, journal)
    assert outcome.state == "conflict"
    assert world.count("reruns.initiate") == 1


async def test_ours_is_adopted_though_somebody_made_another_run_after_it(journal: Path) -> None:
    world = World()

    def overtaken(sent: SentRequest) -> Any:
        world.lost(sent)
        world.camps["c-1"].run("g-2")
        return LOST

    world.say("reruns.initiate", "c-1", overtaken)
    outcome = await one(world, journal)
    assert (outcome.state, outcome.run_number) == ("succeeded", 2)
    assert "1 more" in outcome.steps[-1].detail


@pytest.mark.parametrize("step", [LOST, answer(400, {"message": "no"})])
async def test_a_newer_run_for_nobody_knows_whom_is_unknown_and_nothing_is_sent(journal: Path, step: Any) -> None:
    world = World()

    def odd(_: SentRequest) -> Any:
        world.camps["c-1"].run("g-1")["customer_group_id"] = None
        return step

    world.say("reruns.initiate", "c-1", odd)
    for _ in range(3):
        outcome = await one(world, journal)
        assert outcome.state == "unknown"
        assert "does not say for which group" in outcome.reason
    assert world.count("reruns.initiate") == 1
    world.camps["c-1"].runs[-1]["customer_group_id"] = "g-1"
    outcome = await one(world, journal)
    assert (outcome.state, outcome.adopted) == ("succeeded", True)


@pytest.mark.parametrize("first", [[LOST] * REQUESTS, [answer(400, {"message": "no"})]], ids=["absent", "refused"])
async def test_what_was_thought_to_be_settled_is_unknown_again_with_such_a_run(journal: Path, first: list[Any]) -> None:
    """It may be the one that was sent: to call it "not started", or "refused", would invite doing it by hand."""
    world = World()
    world.say("reruns.initiate", "c-1", *first)
    assert (await one(world, journal)).state in {"not_started", "refused"}
    world.camps["c-1"].run("g-1")["customer_group_id"] = None
    outcome = await one(world, journal)
    assert outcome.state == "unknown"
    assert "does not say for which group" in outcome.reason


async def test_a_run_for_the_group_in_other_letters_is_ours(journal: Path) -> None:
    world = World()
    world.camps["c-1"].after_run = PUBLISHED

    def done(sent: SentRequest) -> Exception:
        world.lost(sent)
        world.camps["c-1"].runs[-1]["customer_group_id"] = "G-1"
        return LOST

    world.say("reruns.initiate", "c-1", done)
    outcome = await one(world, journal)
    assert (outcome.state, outcome.adopted, outcome.run_number) == ("succeeded", True, 2)
    assert world.count("reruns.initiate") == 1


@pytest.mark.parametrize("group", ["g-1", "g-2"])
async def test_what_somebody_runs_between_the_checks_and_the_first_look_is_refused_and_not_overwritten(
    journal: Path, group: str
) -> None:
    world = World(3)
    world.camps["c-1"].after_run = PUBLISHED

    def meanwhile(_: SentRequest) -> None:
        world.camps["c-1"].run(group)

    world.say("reruns.history", "c-1", meanwhile)
    report = await run(world, journal)
    assert states(report) == ["refused", "succeeded", "succeeded"]
    outcome = report.outcomes[0]
    assert (outcome.attempts, steps(outcome)) == (0, ["refused"])
    assert "The history has run 2" in outcome.reason
    assert "its run was 1" in outcome.reason
    assert world.count("reruns.initiate", "c-1") == 0
    assert world.runs("c-1") == [group]


async def test_a_list_that_counts_in_another_way_stands_in_nobodys_way(journal: Path) -> None:
    world = World(12)
    for camp in world.camps.values():
        camp.runs[0]["run_number"] = 7
    listed = [
        {"campaign_id": camp.campaign_id, "campaign_status": PUBLISHED, "run_number": 3}
        for camp in world.camps.values()
    ]
    always = answer(200, [{"workspace_id": "w-1", "campaigns": listed}])
    world.say("campaigns.list", "", *[always] * 100)
    report = await run(world, journal, concurrency=1)
    assert report.complete
    assert {outcome.run_number for outcome in report} == {8}
    assert world.count("campaigns.list") == 2, "it is asked once whether it counts so"


async def test_a_campaign_that_is_not_listed_any_more_is_left_to_the_service(journal: Path) -> None:
    world = World()

    def meanwhile(_: SentRequest) -> None:
        world.camps["c-1"].run("g-2", PUBLISHED)
        world.say("campaigns.list", "", answer(200, []))

    world.say("reruns.history", "c-1", meanwhile)
    assert (await one(world, journal)).run_number == 3


async def test_a_list_that_fails_then_leaves_it_not_started(journal: Path) -> None:
    world = World(2)

    def meanwhile(_: SentRequest) -> None:
        world.camps["c-1"].run("g-2", PUBLISHED)
        world.say("campaigns.list", "", answer(404))

    world.say("reruns.history", "c-1", meanwhile)
    report = await run(world, journal)
    assert states(report) == ["not_started", "succeeded"]
    assert "could not be looked at" in report.outcomes[0].reason
    assert world.count("reruns.initiate", "c-1") == 0


@pytest.mark.parametrize("lags", [answer(200, []), answer(200, [{"run_number": 1, "customer_group_id": "g-0"}])])
async def test_the_newest_run_is_not_older_than_the_list_says(journal: Path, lags: Response) -> None:
    """Else an old run for the same group, which the history did not show yet, is taken for the new one."""
    world = World()
    for group in ("g-9", "g-1"):
        world.camps["c-1"].run(group, PUBLISHED)
    world.say("reruns.history", "c-1", lags)
    world.say("reruns.initiate", "c-1", LOST)
    outcome = await one(world, journal)
    assert (outcome.previous_run, outcome.run_number, outcome.adopted) == (3, 4, False)
    assert world.runs("c-1") == ["g-9", "g-1", "g-1"]


# --- numbers that cannot be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2**63, 10**30, -1])
async def test_a_history_with_a_number_that_cannot_be_stops_no_other_campaign(journal: Path, number: int) -> None:
    world = World(3)
    odd = answer(200, [{"run_number": number, "customer_group_id": "g-0"}])
    world.say("reruns.history", "c-1", odd, odd)
    for _ in range(2):
        report = await run(world, journal)
        assert states(report) == ["not_started", "succeeded", "succeeded"]
        assert isinstance(report.outcomes[0].error, ResponseDecodeError)
        assert not report.stopped
    assert (await run(world, journal)).complete
    assert world.runs("c-1") == ["g-1"]


@pytest.mark.parametrize("number", [2**63, -1])
async def test_a_receipt_with_a_number_that_cannot_be_is_looked_for(journal: Path, number: int) -> None:
    world = World(2)

    def odd(sent: SentRequest) -> Response:
        world.lost(sent)
        return answer(200, receipt(world.camps["c-1"].runs[-1], run_number=number))

    world.say("reruns.initiate", "c-1", odd)
    report = await run(world, journal)
    assert report.complete
    assert (report.outcomes[0].run_number, report.outcomes[0].adopted) == (2, True)
    assert world.count("reruns.initiate", "c-1") == 1


@pytest.mark.parametrize("adopted", [False, True])
async def test_counts_that_no_database_can_hold_are_not_known(journal: Path, adopted: bool) -> None:
    world = World(2)

    def odd(sent: SentRequest) -> Response | Exception:
        world.lost(sent)
        made = world.camps["c-1"].runs[-1]
        made |= {"archived_count": 2**63, "comparison": {"matched_count": 2**63, "new_count": 1, "orphaned_count": 1}}
        return LOST if adopted else answer(200, receipt(made))

    world.say("reruns.initiate", "c-1", odd)
    report = await run(world, journal)
    assert report.complete
    outcome = report.outcomes[0]
    assert (outcome.run_number, outcome.archived_count, outcome.comparison) == (2, None, None)
    assert outcome.adopted is adopted
    assert (await run(world, journal)).complete


async def test_a_list_with_a_number_that_cannot_be_is_not_believed(journal: Path) -> None:
    world = World()
    odd = {"campaign_id": "c-1", "campaign_status": PUBLISHED, "run_number": 2**63}
    world.say("campaigns.list", "", answer(200, [{"workspace_id": "w-1", "campaigns": [odd]}]))
    assert (await one(world, journal)).run_number == 2


# --- a receipt that cannot be ------------------------------------------------------------------------------------------


async def test_a_receipt_of_an_old_run_is_verified(journal: Path) -> None:
    world = World()

    def odd(sent: SentRequest) -> Response:
        world.lost(sent)
        return answer(200, receipt(world.camps["c-1"].runs[-1], run_number=1))

    world.say("reruns.initiate", "c-1", odd)
    outcome = await one(world, journal)
    assert (outcome.state, outcome.run_number, outcome.adopted) == ("succeeded", 2, True)


async def test_a_receipt_of_an_old_run_that_nothing_confirms_is_unknown_and_never_sent_again(journal: Path) -> None:
    world = World()
    fake = {"rerun_id": "r", "run_number": 1, "archived_count": 0, "comparison": None}
    fake["comparison"] = {"matched_count": 0, "new_count": 0, "orphaned_count": 0}
    world.say("reruns.initiate", "c-1", answer(200, receipt(fake)))
    for _ in range(2):
        outcome = await one(world, journal)
        assert outcome.state == "unknown"
        assert outcome.run_number is None
        assert "cannot be a new one" in outcome.reason
    assert world.count("reruns.initiate") == 1
    world.camps["c-1"].run("g-1")
    assert (await one(world, journal)).state == "succeeded"


async def test_a_success_that_says_no_is_a_refusal(journal: Path) -> None:
    world = World()
    fake = {
        "rerun_id": "r",
        "run_number": 2,
        "archived_count": 0,
        "comparison": {"matched_count": 0, "new_count": 0, "orphaned_count": 0},
    }
    world.say("reruns.initiate", "c-1", answer(200, receipt(fake, success=False, message="no such luck")))
    outcome = await one(world, journal)
    assert outcome.state != "succeeded"
    assert outcome.run_number is None


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (402, QuotaExceededError),
        (403, APIStatusError),
        (404, APIStatusError),
        (409, APIStatusError),
    ],
)
async def test_a_refusal_is_final_for_this_call(journal: Path, status: int, kind: type[Exception]) -> None:
    world = World(2)
    world.say("reruns.initiate", "c-1", answer(status, {"message": "not like this"}), *[None] * 5)
    if status == 403:  # it may be the token, and is sent again with another
        world.script["reruns.initiate", "c-1"][1:1] = [answer(status, {"message": "not like this"})]
    first, second = report = await run(world, journal)
    assert states(report) == ["refused", "succeeded"]
    assert isinstance(first.error, kind)
    assert "not like this" in first.reason
    again = ["denied", "absent", "intended"] if status == 403 else []
    assert steps(first) == ["intended", *again, "denied", "refused"]
    assert all("not like this" not in step.detail for step in first.steps), "words of the service are not kept"
    assert b"not like this" not in await asyncio.to_thread(journal.read_bytes)
    assert (second.error, second.run_number) == (None, 2)
    assert states(await run(world, journal)) == ["succeeded", "succeeded"], "a later call tries again"


@pytest.mark.parametrize("refusal", [*REFUSALS, *ODD_REFUSALS])
async def test_a_refusal_is_not_believed_before_nothing_can_arrive_any_more(journal: Path, refusal: Response) -> None:
    """Somebody between says no, the request goes its way nevertheless, and the run is in the history some looks later."""
    world = World()
    world.camps["c-1"].after_run = PUBLISHED
    late = world.late(1)

    def refused_on_the_way_back(sent: SentRequest) -> Response:
        late(sent)
        return refusal

    world.say("reruns.initiate", "c-1", refused_on_the_way_back)
    outcome = await one(world, journal)
    assert (outcome.state, outcome.adopted, outcome.attempts) == ("succeeded", True, 1)
    assert steps(outcome) == ["intended", "denied", "adopted"]
    assert world.runs("c-1") == ["g-1"]


@pytest.mark.parametrize("settle", [0.0, 7.0])
async def test_a_refused_one_is_looked_for_until_the_time_to_settle_is_over(journal: Path, settle: float) -> None:
    world = World()
    clock = VirtualClock()
    moments: dict[str, float] = {}
    world.say("reruns.initiate", "c-1", answer(400, {"message": "no"}))
    async with world.client(clock=clock) as ns:
        report = await ns.reruns.run(
            world.plan(),
            journal=journal,
            settle=settle,
            on_event=lambda event: moments.setdefault(event.step, clock.now),
        )
    assert states(report) == ["refused"]
    assert settle <= moments["refused"] - moments["denied"] < settle + 1


async def test_a_refused_one_is_unknown_if_there_is_no_time_to_look_for_it(journal: Path) -> None:
    world = World()
    stop = asyncio.Event()

    def refuse(_: SentRequest) -> Response:
        stop.set()
        return answer(400, {"message": "no"})

    world.say("reruns.initiate", "c-1", refuse)
    outcome = await one(world, journal, stop=stop, grace=SETTLE / 2)
    assert outcome.state == "unknown"
    assert (await one(world, journal)).state == "succeeded"


async def test_another_token_does_not_hurry_what_was_refused_with_the_one_before(journal: Path) -> None:
    world = World()
    clock = VirtualClock()
    moments: list[float] = []

    def refuse(_: SentRequest) -> Response:
        moments.append(clock.now)
        return answer(403, {"message": "no"})

    world.say("reruns.initiate", "c-1", refuse, lambda _: moments.append(clock.now))
    async with world.client(clock=clock) as ns:
        (outcome,) = report = await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE)
    assert (outcome.state, outcome.attempts, report.sent) == ("succeeded", 2, 2)
    assert moments[1] - moments[0] >= SETTLE
    used = [sent.headers["authorization"] for sent in world.transport.requests if sent.operation == "reruns.initiate"]
    assert used[0] != used[1]


@pytest.mark.parametrize(
    "login",
    [NOT_SENT, LOST, answer(503), answer(403, {"message": "no"}), HANG],
    ids=["unsent", "lost", 503, 403, "hangs"],
)
@pytest.mark.parametrize("status", [401, 403])
async def test_what_was_sent_and_refused_was_sent_though_there_is_no_other_token(
    journal: Path, status: int, login: Any
) -> None:
    """It was taken for a request that never left, and the call after it took the run for somebody else's: there were two."""
    world = World()
    world.camps["c-1"].after_run = PUBLISHED

    def refuse(sent: SentRequest) -> Response:
        world.camps[sent.body["campaign_id"]].run(sent.body["new_customer_group_id"], PUBLISHED)
        world.transport.on("auth.authenticate", lambda _: login)
        world.transport.on("auth.reauthenticate", lambda _: login)
        return answer(status, {"message": "no"})

    world.say("reruns.initiate", "c-1", refuse)
    world.say("reruns.history", "c-1", None, answer(404, {"message": "no"}))
    outcome = await one(world, journal, options=CallOptions(timeout=30))
    assert (outcome.state, outcome.attempts) == ("unknown", 1)
    assert [(step.step, step.detail) for step in outcome.steps][1:] == [("denied", "no other token could be had")]

    world.transport.on("auth.authenticate", lambda _: answer(200, tokens()))
    outcome = await one(world, journal)
    assert (outcome.state, outcome.adopted, outcome.run_number) == ("succeeded", True, 2)
    assert world.runs("c-1") == ["g-1"]


async def test_what_waits_for_a_token_that_cannot_be_had_was_never_sent(journal: Path) -> None:
    world = World()
    clock = VirtualClock()
    world.transport.on("auth.authenticate", [answer(200, {**tokens(), "expires_in": 1000}), *[answer(403)] * 5])
    world.transport.on("auth.reauthenticate", answer(403))

    async def takes_long(_: SentRequest) -> None:
        await clock.sleep(2000)  # the token is old then

    world.say("reruns.history", "c-1", takes_long)
    async with world.client(clock=clock) as ns:
        (outcome,) = await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE)
    assert (outcome.state, steps(outcome)) == ("not_started", ["intended", "unsent"])
    assert isinstance(outcome.error, AuthenticationError)
    assert world.count("reruns.initiate") == 0


async def test_a_login_that_fails_for_a_while_does_not_hurry_what_was_refused(journal: Path) -> None:
    world = World()
    clock = VirtualClock()
    moments: list[float] = []

    def refuse(_: SentRequest) -> Response:
        moments.append(clock.now)
        world.transport.on("auth.reauthenticate", [LOST] * 2)
        world.transport.on("auth.authenticate", [*[LOST] * 2, *[answer(200, tokens())] * 5])
        return answer(401, {"message": "no"})

    world.say("reruns.initiate", "c-1", refuse, lambda _: moments.append(clock.now))
    async with world.client(clock=clock) as ns:
        (outcome,) = await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE)
    assert (outcome.state, outcome.attempts) == ("succeeded", 2)
    assert steps(outcome) == ["intended", "denied", "absent", "intended", "started"]
    assert moments[1] - moments[0] >= SETTLE


async def test_a_refusal_is_believed_only_after_a_look(journal: Path) -> None:
    """Whoever stands between may have sent it twice: the second one is refused, and its answer is the one that comes."""
    world = World()
    world.say("reruns.initiate", "c-1", world.done_and(answer(400, {"message": "it is not published"})))
    outcome = await one(world, journal)
    assert (outcome.state, outcome.adopted, outcome.run_number) == ("succeeded", True, 2)
    assert outcome.reason == ""
    assert world.runs("c-1") == ["g-1"]


async def test_a_refusal_that_cannot_be_verified_is_unknown(journal: Path) -> None:
    world = World()
    world.say("reruns.history", "c-1", None, answer(400, {"message": "out of order"}))
    world.say("reruns.initiate", "c-1", world.done_and(answer(400, {"message": "it is not published"})))
    outcome = await one(world, journal)
    assert outcome.state == "unknown"
    assert "the history could not be asked" in outcome.reason
    assert (await one(world, journal)).adopted
    assert world.runs("c-1") == ["g-1"]


# --- not sent, or not let in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step", [NOT_SENT, answer(429), answer(429, headers=RETRY_AFTER)], ids=["unsent", "429", "429+"]
)
async def test_what_provably_was_not_begun_is_not_started_when_the_attempts_are_used_up(
    journal: Path, step: Any
) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", *[step] * QUICK.attempts)
    outcome = await one(world, journal)
    assert (outcome.state, outcome.run_number) == ("not_started", None)
    assert steps(outcome) == ["intended", "unsent"] * QUICK.attempts
    assert outcome.error is not None
    assert f"{QUICK.attempts} of {QUICK.attempts}" in outcome.reason
    assert outcome.attempts == (0 if step is NOT_SENT else QUICK.attempts), "what nobody listens to is never sent"
    outcome = await one(world, journal)
    sent = 0 if step is NOT_SENT else QUICK.attempts
    assert (outcome.state, outcome.attempts, outcome.adopted) == ("succeeded", sent + 1, False)


@pytest.mark.parametrize("given", ["client", "options", "nothing"])
async def test_how_often_it_is_tried_is_what_the_client_or_the_call_was_given(journal: Path, given: str) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", *[answer(429)] * 50)
    four = RetryPolicy(attempts=4, base=0.001, longest=0.002)
    async with world.client(clock=VirtualClock(), retry=four if given == "client" else None) as ns:
        options = CallOptions(retries=four) if given == "options" else None
        report = await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE, options=options)
    assert states(report) == ["not_started"]
    assert world.count("reruns.initiate") == report.sent == (10 if given == "nothing" else 4)


async def test_a_wait_that_is_longer_than_allowed_is_left_to_the_next_call(journal: Path) -> None:
    world = World(2)
    world.say("reruns.initiate", "c-1", answer(429, headers={"Retry-After": "100000"}))
    report = await run(world, journal)
    assert states(report) == ["not_started", "succeeded"]
    assert "100,000 s" in report.outcomes[0].reason
    assert world.count("reruns.initiate", "c-1") == 1
    assert (await run(world, journal)).complete


async def test_one_that_waits_when_told_to_asks_the_history_again_before_it_is_sent_again(journal: Path) -> None:
    world = World()
    clock = VirtualClock()
    moments: list[float] = []

    def note(_: SentRequest) -> None:
        moments.append(clock.now)

    def busy(sent: SentRequest) -> Response:
        note(sent)
        return answer(429, headers={"Retry-After": "30"})

    world.say("reruns.initiate", "c-1", busy, note)
    async with world.client(clock=clock) as ns:
        (outcome,) = await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE)
    assert (outcome.state, outcome.attempts, outcome.adopted) == ("succeeded", 2, False)
    assert steps(outcome) == ["intended", "unsent", "intended", "started"]
    assert moments[1] - moments[0] >= 30
    asked = [operation for operation in world.sent if operation in {"reruns.initiate", "reruns.history"}]
    assert asked == ["reruns.history", "reruns.initiate"] * 2


@pytest.mark.parametrize(("group", "state"), [("g-2", "conflict"), ("g-1", "succeeded")])
async def test_what_somebody_runs_while_it_waits_is_not_overwritten(journal: Path, group: str, state: str) -> None:
    world = World()
    world.camps["c-1"].after_run = PUBLISHED
    world.say("reruns.initiate", "c-1", world.overtaken(group, answer(429, headers=RETRY_AFTER)))
    outcome = await one(world, journal)
    assert outcome.state == state
    assert world.count("reruns.initiate") == 1
    assert world.runs("c-1") == [group]


@pytest.mark.parametrize("step", [NOT_SENT, answer(429, headers={"Retry-After": "100"})], ids=["unsent", "429"])
async def test_what_waits_for_its_next_attempt_is_not_sent_any_more_when_it_is_time_to_stop(
    journal: Path, step: Any
) -> None:
    world = World()
    stop = asyncio.Event()

    def busy(_: SentRequest) -> Any:
        stop.set()
        return step

    world.say("reruns.initiate", "c-1", busy)
    outcome = await one(world, journal, stop=stop)
    assert (outcome.state, world.count("reruns.initiate"), world.runs("c-1")) == ("not_started", 1, [])
    assert (await one(world, journal)).state == "succeeded"


async def test_credentials_that_are_refused_in_the_middle_stop_everything(journal: Path) -> None:
    world = World(5)
    world.transport.on("auth.authenticate", [answer(200, tokens()), answer(403, {"message": "no"})])
    world.transport.on("auth.reauthenticate", answer(403, {"message": "no"}))
    world.say("reruns.initiate", "c-2", answer(403, {"message": "no"}))
    report = await run(world, journal, concurrency=1)
    assert states(report) == ["succeeded", *["not_started"] * 4] or states(report)[1] in {"not_started", "refused"}
    assert [outcome.state for outcome in report][2:] == ["not_started"] * 3
    assert report.stopped
    assert world.count("reruns.initiate") == 2
    world.transport.on("auth.authenticate", lambda _: answer(200, tokens()))
    report = await run(world, journal)
    assert report.complete
    assert all(world.runs(name) == [f"g-{name[2:]}"] for name in world.camps)


def tokens() -> dict[str, object]:
    return {"access_token": "access", "refresh_token": "refresh", "expires_in": 1_000_000}


# --- the history -------------------------------------------------------------------------------------------------------


async def test_a_history_that_fails_before_the_request_leaves_it_not_started(journal: Path) -> None:
    world = World(2)
    world.say("reruns.history", "c-1", answer(404, {"message": "no"}))
    first, second = await run(world, journal)
    assert (first.state, first.attempts, first.steps) == ("not_started", 0, ())
    assert "could not be looked at" in first.reason
    assert second.state == "succeeded"
    assert world.count("reruns.initiate", "c-1") == 0


@pytest.mark.parametrize("looks", [1, 2])
async def test_a_history_that_fails_after_the_request_leaves_it_unknown(journal: Path, looks: int) -> None:
    world = World(2)
    world.say("reruns.history", "c-1", *[None] * looks, answer(404, {"message": "no"}))
    world.say("reruns.initiate", "c-1", LOST)
    first, second = await run(world, journal)
    assert (first.state, second.state) == ("unknown", "succeeded")
    assert "the history could not be asked" in first.reason
    assert world.count("reruns.initiate", "c-1") == 1
    assert states(await run(world, journal)) == ["succeeded"] * 2
    assert world.runs("c-1") == ["g-1"]


async def test_a_call_that_ends_before_the_time_to_settle_leaves_the_waiting_to_the_next(journal: Path) -> None:
    """How long ago the request was sent is not known then: the whole time is waited again before it is sent again."""
    world = World()
    world.say("reruns.initiate", "c-1", LOST)
    world.say("reruns.history", "c-1", None, answer(404, {"message": "no"}))
    assert (await one(world, journal)).state == "unknown"
    clock = VirtualClock()
    began = clock.now
    moments: list[float] = []
    world.say("reruns.initiate", "c-1", lambda _: moments.append(clock.now))
    async with world.client(clock=clock) as ns:
        (outcome,) = await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE)
    assert outcome.state == "succeeded"
    assert moments[0] - began >= SETTLE


# --- the journal -------------------------------------------------------------------------------------------------------


def breaking(monkeypatch: pytest.MonkeyPatch, breaks: Callable[[Any, str], bool]) -> None:
    """The disk is full for some."""
    write = Journal.write

    def full(self: Journal, item: Any, step: str, detail: str = "") -> None:
        if breaks(item, step):
            raise JournalError("The disk is full.")
        write(self, item, step, detail)

    monkeypatch.setattr(Journal, "write", full)


async def test_without_an_intention_on_the_disk_nothing_is_sent(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3)
    with monkeypatch.context() as patch:
        breaking(patch, lambda _, step: step == "intended")
        with pytest.raises(JournalError, match="full") as caught:
            await run(world, journal)
    assert world.count("reruns.initiate") == 0
    report = caught.value.report
    assert report is not None
    assert states(report) == ["not_started"] * 3
    assert "It was not sent: The disk is full." in {outcome.reason for outcome in report}
    assert (await run(world, journal)).complete


@pytest.mark.parametrize("broken", ["started", "lost", "adopted", "denied", "refused", "unsent", "absent"])
async def test_an_outcome_that_cannot_be_written_is_unknown_until_the_next_call(
    journal: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    world = World(3)
    first = {
        "started": None,
        "lost": world.lost,
        "adopted": world.lost,
        "denied": answer(400, {"message": "no"}),
        "refused": answer(400, {"message": "no"}),
        "unsent": NOT_SENT,
        "absent": LOST,
    }[broken]
    world.say("reruns.initiate", "c-1", first)
    with monkeypatch.context() as patch:
        breaking(patch, lambda item, step: step == broken and item.campaign_id == "c-1")
        with pytest.raises(JournalError, match="full") as caught:
            await run(world, journal, concurrency=1)
    report = caught.value.report
    assert report is not None
    assert report.outcomes[0].state == "unknown"
    assert report.outcomes[0].reason.startswith("It was sent, and what became of it could not be written")
    assert report.stopped == "The journal cannot be written."
    assert world.count("reruns.initiate", "c-1") == 1, "nothing more of it was sent"
    report = await run(world, journal)
    assert report.complete
    assert all(world.runs(name) == [f"g-{name[2:]}"] for name in world.camps)


# --- what nobody has thought of ----------------------------------------------------------------------------------------


async def test_a_defect_is_raised_once_the_others_have_ended(journal: Path) -> None:
    world = World(4)
    others = asyncio.Event()

    async def slow(_: SentRequest) -> None:
        await others.wait()

    def broken(_: SentRequest) -> Exception:
        others.set()
        return ZeroDivisionError("oops")

    world.say("reruns.initiate", "c-1", slow)
    world.say("reruns.initiate", "c-2", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        await run(world, journal, concurrency=2)
    assert any(str(journal) in note for note in caught.value.__notes__)
    assert world.runs("c-1") == ["g-1"]
    assert world.count("reruns.initiate") == 2, "nothing new was begun"
    report = await run(world, journal)
    assert report.complete
    assert [outcome.adopted for outcome in report] == [False] * 4
    assert world.count("reruns.initiate", "c-1") == 1


@pytest.mark.parametrize("operation", ["reruns.messages", "customer_groups.list", "campaigns.list", "reruns.history"])
async def test_a_defect_in_a_read_is_raised_as_it_is(journal: Path, operation: str) -> None:
    world = World(3)
    who = {"campaigns.list": "", "customer_groups.list": "w-1"}.get(operation, "c-2")
    world.say(operation, who, ZeroDivisionError("oops"))
    with pytest.raises(ZeroDivisionError):
        await run(world, journal, concurrency=2)
    assert (await run(world, journal)).complete


# --- what it says ------------------------------------------------------------------------------------------------------


async def test_what_was_verified_to_be_absent_is_not_told_as_if_it_might_be_there(journal: Path) -> None:
    """The call is stopped after the look that shows that the request had no effect."""
    world = World()
    stop = asyncio.Event()
    world.say("reruns.history", "c-1", None, None, lambda _: stop.set())
    world.say("reruns.initiate", "c-1", LOST)

    async def stopped(sent: SentRequest) -> None:
        stop.set()
        await asyncio.sleep(0)

    world.script["reruns.history", "c-1"][2] = stopped
    outcome = await one(world, journal, stop=stop)
    assert outcome.state == "not_started"
    assert "may have taken effect" not in outcome.reason
    assert "no effect" in outcome.reason
    assert steps(outcome) == ["intended", "lost", "absent"], "nothing more is intended when it is time to stop"


async def test_a_lost_answer_is_a_warning_in_the_log(journal: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.say("reruns.initiate", "c-1", OutcomeUnknownError("The connection broke."))
    with caplog.at_level(logging.INFO, "nudgescribe_async.rerun"):
        await one(world, journal)
    levels = {
        record.nudgescribe["step"]: record.levelname
        for record in caplog.records
        if hasattr(record, "nudgescribe") and "step" in record.nudgescribe
    }
    assert levels["lost"] == "WARNING"
    assert levels["started"] == "INFO"


async def test_no_error_of_one_is_the_reason_of_another(journal: Path) -> None:
    world = World(3)
    world.say("reruns.initiate", "c-2", answer(400, {"message": "only c-2"}))
    report = await run(world, journal)
    assert [outcome.reason for outcome in report if outcome.campaign_id != "c-2"] == ["", ""]


@pytest.mark.parametrize("others", [False, True])
async def test_a_look_that_began_before_the_end_of_the_time_to_settle_is_no_proof(journal: Path, others: bool) -> None:
    """The request arrives while the look is under way, after the history was read for it."""
    world = World()
    clock = VirtualClock()
    world.say("reruns.initiate", "c-1", LOST)
    world.say("reruns.history", "c-1", None, answer(404))
    async with world.client(clock=clock) as ns:
        await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE)

        async def slow(_: SentRequest) -> Response:
            history = [{"run_number": 1, "customer_group_id": "g-0"}]
            if others:
                history.append({"run_number": 2, "customer_group_id": "g-2"})
                world.camps["c-1"].run("g-2", "Published")
            await clock.sleep(SETTLE + 1)
            world.camps["c-1"].run("g-1")
            return answer(200, history)

        world.say("reruns.history", "c-1", slow)
        (outcome,) = await ns.reruns.run(world.plan(), journal=journal, settle=SETTLE)
    assert (outcome.state, outcome.adopted) == ("succeeded", True)
    assert world.count("reruns.initiate") == 1


# --- when it is time to stop -------------------------------------------------------------------------------------------


async def stopped(
    world: World, journal: Path, way: str, first: Callable[[VirtualClock, SentRequest], Any], *, grace: float
) -> tuple[RerunReport, float]:
    """The report of a call that is stopped while the first request is under way, and how long it took to end."""
    clock = VirtualClock()
    stop = asyncio.Event()
    ended: list[float] = []
    closing: list[asyncio.Task[None]] = []
    ns = world.client(clock=clock)

    async def act(sent: SentRequest) -> Any:
        ended.append(clock.now)
        match way:
            case "cancel":
                running.cancel()
            case "stop":
                stop.set()
            case _:
                closing.append(asyncio.create_task(ns.aclose(grace=grace)))
        for _turn in range(10):  # until it is heard
            await asyncio.sleep(0)
        return first(clock, sent)

    world.say("reruns.initiate", "c-1", act)
    options: dict[str, Any] = {"concurrency": 1, "settle": 1000, "stop": stop, "grace": grace}
    running = asyncio.create_task(ns.reruns.run(world.plan(), journal=journal, **options))
    try:
        report = await running
        assert way != "cancel"
    except asyncio.CancelledError as cancelled:
        assert way == "cancel"
        report = cancelled.report  # type: ignore[attr-defined]
    seconds = clock.now - ended[0]
    await asyncio.gather(*closing)
    await ns.aclose()
    return report, seconds


WAYS = ["cancel", "stop", "aclose"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [LOST, answer(400, {"message": "no"}), answer(503, headers=RETRY_AFTER)])
async def test_what_may_have_had_an_effect_is_looked_for_as_long_as_there_is_time(
    journal: Path, way: str, step: Any
) -> None:
    world = World(4)

    def late(clock: VirtualClock, _: SentRequest) -> Any:
        clock.call_later(3.2, lambda: world.camps["c-1"].run("g-1"))
        return step

    report, seconds = await stopped(world, journal, way, late, grace=20)
    assert states(report) == ["succeeded", *["not_started"] * 3]
    assert report.outcomes[0].adopted
    assert 3.2 <= seconds < 4.5, "it is asked often, and it ends once all is decided"
    assert world.count("reruns.initiate") == 1
    assert (await run(world, journal)).complete
    assert world.runs("c-1") == ["g-1"]


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_not_found_in_that_time_is_unknown_and_found_by_the_next_call(journal: Path, way: str) -> None:
    world = World(4)
    report, seconds = await stopped(world, journal, way, lambda _, __: LOST, grace=5)
    assert states(report) == ["unknown", *["not_started"] * 3]
    assert 5 <= seconds < 6
    assert 5 <= world.count("reruns.history", "c-1") <= 14, "twice a second is enough"
    world.camps["c-1"].run("g-1")
    assert (await run(world, journal)).complete
    assert world.runs("c-1") == ["g-1"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_history_that_hangs_then_is_given_no_more_than_that_time(journal: Path, way: str) -> None:
    world = World(2)

    def lost(_: VirtualClock, sent: SentRequest) -> Any:
        world.say("reruns.history", "c-1", *[HANG] * 20)
        return world.lost(sent)

    report, seconds = await stopped(world, journal, way, lost, grace=5)
    assert states(report) == ["unknown", "not_started"]
    assert 5 <= seconds < 6
    world.script.clear()
    assert (await run(world, journal)).complete
    assert world.runs("c-1") == ["g-1"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_request_that_hangs_then_is_given_no_more_than_that_time(journal: Path, way: str) -> None:
    world = World(2)

    def silent(_: VirtualClock, sent: SentRequest) -> Any:
        world.lost(sent)
        return HANG

    report, seconds = await stopped(world, journal, way, silent, grace=5)
    assert states(report) == ["unknown", "not_started"]
    assert 5 <= seconds < 6
    assert (await run(world, journal)).complete
    assert world.runs("c-1") == ["g-1"]


async def test_what_was_never_sent_is_no_conflict_when_somebody_else_runs_the_campaign(journal: Path) -> None:
    world = World(retry=RetryPolicy(attempts=1))
    world.say("reruns.initiate", "c-1", NOT_SENT)
    outcome = await one(world, journal)
    assert (outcome.state, outcome.attempts) == ("not_started", 0)
    world.camps["c-1"].run("g-2", PUBLISHED)
    world.camps["c-1"].status = PUBLISHED
    outcome = await one(world, journal)
    assert (outcome.state, outcome.previous_run, outcome.run_number) == ("succeeded", 2, 3)
