"""What follows once a campaign has its new run."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from rerun_world import LOST, NOT_SENT, PUBLISHABLE, PUBLISHED, REVIEW, World, states, steps

from nudgescribe_async import (
    AuthenticationError,
    DeadlineExceededError,
    JournalError,
    QuotaExceededError,
    RerunOutcome,
    RerunReport,
    RetryPolicy,
)
from nudgescribe_async.rerun.follow import PATIENCE, REQUESTS, folder_name
from nudgescribe_async.rerun.journal import Journal
from nudgescribe_async.rerun.service import Service
from nudgescribe_async.testing import HANG, SentRequest, VirtualClock, answer

pytestmark = pytest.mark.usefixtures("no_threads")


async def run(
    world: World, journal: Path, *, settle: float = 10, clock: VirtualClock | None = None, **options: Any
) -> RerunReport:
    if clock is None:
        # Downloads have threads of their own.
        clock = VirtualClock(idle=0.05) if "download" in options else VirtualClock()
    async with world.client(clock=clock) as ns:
        return await ns.reruns.run(world.plan(), journal=journal, settle=settle, **options)


async def one(world: World, journal: Path, **options: Any) -> RerunOutcome:
    (outcome,) = await run(world, journal, **options)
    return outcome


# --- waiting -----------------------------------------------------------------------------------------------------------


async def test_without_wait_the_run_itself_is_enough(journal: Path) -> None:
    world = World()
    world.camps["c-1"].after_run = "Generating"
    outcome = await one(world, journal)
    assert (outcome.state, outcome.campaign_status) == ("succeeded", "Generating")


@pytest.mark.parametrize("end", [REVIEW, PUBLISHABLE, PUBLISHED])
async def test_wait_waits_for_the_state(journal: Path, end: str) -> None:
    world = World()
    world.camps["c-1"].after_run = "Generating"
    world.say("reruns.initiate", "c-1", lambda _: world.camps["c-1"].soon.extend(["Generating", "Generating", end]))
    outcome = await one(world, journal, wait=True)
    assert (outcome.state, outcome.campaign_status) == ("succeeded", end)
    assert steps(outcome) == ["intended", "started", "published" if end == PUBLISHED else "ready"]
    assert outcome.in_review is (end == REVIEW)
    assert outcome.published is (end == PUBLISHED)
    assert world.count("messages.publish") == 0


async def test_a_service_that_fails_in_its_work_is_unfinished_and_looked_at_again(journal: Path) -> None:
    world = World(2)
    world.camps["c-1"].after_run = "Generation failed"
    first, second = await run(world, journal, wait=True)
    assert (first.state, second.state) == ("unfinished", "succeeded")
    assert "Generation failed" in first.reason
    assert first.run_number == 2
    assert states(await run(world, journal, wait=True)) == ["unfinished", "succeeded"]
    world.camps["c-1"].status = REVIEW
    assert states(await run(world, journal, wait=True)) == ["succeeded"] * 2
    assert world.count("reruns.initiate", "c-1") == 1


async def test_waiting_has_an_end_if_it_was_given_one(journal: Path) -> None:
    world = World(2)
    world.camps["c-1"].after_run = "Generating"
    first, second = await run(world, journal, wait=True, wait_timeout=60)
    assert (first.state, second.state) == ("unfinished", "succeeded")
    assert isinstance(first.error, DeadlineExceededError)
    assert "'Generating'" in first.reason
    world.camps["c-1"].status = REVIEW
    assert (await one_of(world, journal, wait=True)).state == "succeeded"
    assert world.runs("c-1") == ["g-1"]


async def one_of(world: World, journal: Path, **options: Any) -> RerunOutcome:
    return (await run(world, journal, **options)).outcomes[0]


async def test_what_was_started_by_an_earlier_call_is_followed_by_a_later_one(journal: Path) -> None:
    world = World(2)
    assert (await run(world, journal)).complete
    asked = world.count("reruns.initiate")
    report = await run(world, journal, wait=True, publish=True)
    assert [outcome.published for outcome in report] == [True, True]
    assert world.count("reruns.initiate") == asked


async def test_a_run_that_vanishes_is_unfinished(journal: Path) -> None:
    world = World()
    assert (await run(world, journal)).complete
    world.camps["c-1"].runs.pop()
    outcome = await one(world, journal, wait=True)
    assert outcome.state == "unfinished"
    assert "no run 2" in outcome.reason
    assert world.count("reruns.initiate") == 1


# --- publishing --------------------------------------------------------------------------------------------------------


async def test_publish_publishes_what_may_be_published(journal: Path) -> None:
    world = World()
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published, outcome.campaign_status) == ("succeeded", True, PUBLISHED)
    assert steps(outcome) == ["intended", "started", "ready", "publishing", "publishing", "published"]
    assert world.count("messages.publish") == 1
    assert (await one(world, journal, publish=True)).published
    assert world.count("messages.publish") == 1


async def test_a_publication_that_was_denied_is_looked_for_before_it_is_asked_for_with_another_token(
    journal: Path,
) -> None:
    """Whoever says no may not be the one who has the work."""
    world = World()

    def denied_on_the_way_back(_: SentRequest) -> Any:
        world.camps["c-1"].status = PUBLISHED
        return answer(403, {"message": "no"})

    world.say("messages.publish", "c-1", denied_on_the_way_back)
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert steps(outcome)[-3:] == ["publishing", "denied", "published"]
    assert world.count("messages.publish") == 1


async def test_what_is_to_be_reviewed_is_left_to_people(journal: Path) -> None:
    world = World()
    world.camps["c-1"].after_run = REVIEW
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.in_review, outcome.published) == ("succeeded", True, False)
    assert world.count("messages.publish") == 0
    world.camps["c-1"].status = PUBLISHABLE  # people have done their work
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)


async def test_what_people_have_published_is_not_published_again(journal: Path) -> None:
    world = World()
    assert (await one(world, journal, wait=True)).campaign_status == PUBLISHABLE
    world.camps["c-1"].status = PUBLISHED
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == 0


async def test_what_people_publish_at_the_last_moment_is_not_published_again(journal: Path) -> None:
    """Between the look that found it ready, and the look before the request."""
    world = World()
    world.say("reruns.history", "c-1", None, None, lambda _: setattr(world.camps["c-1"], "status", PUBLISHED))
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == 0


async def test_a_publication_whose_answer_was_lost_is_seen(journal: Path) -> None:
    world = World()
    world.say("messages.publish", "c-1", world.publish_lost)
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == 1
    assert steps(outcome) == ["intended", "started", "ready", "publishing", "lost", "published"]


async def test_a_publication_that_did_not_arrive_is_asked_for_again_and_not_before_it_is_clear(journal: Path) -> None:
    world = World()
    clock = VirtualClock()
    moments: list[float] = []

    def lose(_: SentRequest) -> Any:
        moments.append(clock.now)
        return LOST if len(moments) == 1 else None

    world.say("messages.publish", "c-1", lose, lose)
    async with world.client(clock=clock) as ns:
        (outcome,) = await ns.reruns.run(world.plan(), journal=journal, settle=10, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert len(moments) == 2
    assert moments[1] - moments[0] >= 10


async def test_three_publications_without_effect_are_enough_for_one_call(journal: Path) -> None:
    world = World()
    world.say("messages.publish", "c-1", *[LOST] * REQUESTS)
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("unfinished", False)
    assert f"{REQUESTS} times" in outcome.reason
    assert world.count("messages.publish") == REQUESTS
    assert (await one(world, journal, publish=True)).published


async def test_a_refusal_while_the_earlier_request_takes_effect_waits_for_the_effect(journal: Path) -> None:
    world = World()

    def arrives_late(_: SentRequest) -> Any:
        world.camps["c-1"].status = "Publishing"
        world.camps["c-1"].soon = ["Publishing", "Publishing", PUBLISHED]
        return answer(400, {"message": "it is being published"})

    world.say("messages.publish", "c-1", LOST, arrives_late)
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == 2


async def test_a_publication_under_way_is_waited_for_as_long_as_was_said(journal: Path) -> None:
    world = World()

    def begins(_: SentRequest) -> Any:
        world.camps["c-1"].status = "Publishing"
        return LOST

    world.say("messages.publish", "c-1", begins)
    outcome = await one(world, journal, publish=True, wait_timeout=60)
    assert outcome.state == "unfinished"
    assert isinstance(outcome.error, DeadlineExceededError)
    assert world.count("messages.publish") == 1
    world.camps["c-1"].status = PUBLISHED
    outcome = await one(world, journal, publish=True, wait_timeout=60)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == 1


async def test_a_publication_that_somebody_has_begun_is_waited_for(journal: Path) -> None:
    world = World()

    def begins(_: SentRequest) -> None:
        world.camps["c-1"].soon = ["Publishing", "Publishing", PUBLISHED]

    world.say("reruns.history", "c-1", None, None, begins)
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == 0


@pytest.mark.parametrize(
    "step", [answer(402, {"message": "used up"}), answer(400, {"message": "no"}), answer(409), answer(429), NOT_SENT]
)
async def test_a_publication_that_is_refused_is_unfinished_and_tried_by_the_next_call(journal: Path, step: Any) -> None:
    world = World(2)
    world.say("messages.publish", "c-1", step, step)
    first, second = await run(world, journal, publish=True)
    assert (first.state, second.state) == ("unfinished", "succeeded")
    assert first.error is not None
    passes = step is NOT_SENT or step.status == 429
    assert world.count("messages.publish", "c-1") == (2 if passes else 1), "as often as the retries of the client allow"
    assert (first.error.not_repeated is not None) is passes
    world.script["messages.publish", "c-1"].clear()
    assert isinstance(first.error, QuotaExceededError) is ("used up" in first.reason)
    assert steps(first)[-1] == "unsent"
    assert states(await run(world, journal, publish=True)) == ["succeeded"] * 2
    assert world.camps["c-1"].status == PUBLISHED


async def test_a_run_that_somebody_has_followed_with_another_is_not_published(journal: Path) -> None:
    """``messages.publish`` names the campaign only: it would publish the run of somebody else."""
    world = World()

    def overtake(_: SentRequest) -> None:
        world.camps["c-1"].runs[-1]["campaign_status"] = PUBLISHABLE
        world.camps["c-1"].run("g-2")

    world.say("reruns.history", "c-1", None, None, overtake)
    outcome = await one(world, journal, publish=True)
    assert outcome.state == "unfinished"
    assert "somebody else" in outcome.reason
    assert world.count("messages.publish") == 0


async def test_a_later_call_that_does_not_ask_for_publication_publishes_nothing(journal: Path) -> None:
    world = World()
    world.say("messages.publish", "c-1", LOST)
    world.say("reruns.history", "c-1", None, None, None, answer(404))
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, steps(outcome)[-1]) == ("unfinished", "lost")
    outcome = await one(world, journal, wait=True)
    assert (outcome.state, outcome.published, outcome.campaign_status) == ("succeeded", False, PUBLISHABLE)
    assert world.count("messages.publish") == 1


async def test_a_lost_publication_of_an_earlier_call_is_given_time_to_arrive(journal: Path) -> None:
    world = World()
    clock = VirtualClock()
    world.say("messages.publish", "c-1", LOST)
    world.say("reruns.history", "c-1", None, None, None, answer(404))
    assert (await one(world, journal, publish=True)).state == "unfinished"
    moments: list[float] = []
    world.say("messages.publish", "c-1", lambda _: moments.append(clock.now))
    began = clock.now
    async with world.client(clock=clock) as ns:
        report = await ns.reruns.run(world.plan(), journal=journal, settle=10, publish=True)
    assert report.complete
    assert moments[0] - began >= 10


async def test_a_history_that_does_not_say_where_campaigns_stand_is_helped_by_the_list(journal: Path) -> None:
    world = World(2)
    world.silent = True
    for camp in world.camps.values():
        camp.after_run = "Generating"
        world.say(
            "reruns.initiate",
            camp.campaign_id,
            lambda _, camp=camp: camp.listed_soon.extend(["Generating", PUBLISHABLE]),
        )
    report = await run(world, journal, publish=True, wait_timeout=600)
    assert report.complete
    assert [outcome.published for outcome in report] == [True, True]
    assert world.count("messages.publish") == 2


@pytest.mark.parametrize("phase", ["asked", "seen"])
async def test_stopping_before_a_publication_is_seen(journal: Path, phase: str) -> None:
    world = World()
    stop = asyncio.Event()

    async def lose(_: SentRequest) -> Any:
        stop.set()
        for _turn in range(5):
            await asyncio.sleep(0)
        return LOST if phase == "asked" else None

    async def hold(_: SentRequest) -> None:
        stop.set()
        for _turn in range(5):
            await asyncio.sleep(0)

    if phase == "asked":
        world.say("messages.publish", "c-1", lose)
    else:
        world.say("reruns.history", "c-1", None, hold)
    outcome = await one(world, journal, publish=True, stop=stop)
    assert (outcome.state, outcome.published) == ("unfinished", False)
    assert "stopped" in outcome.reason
    assert world.count("messages.publish") == (1 if phase == "asked" else 0)
    assert (await one(world, journal, publish=True)).published
    assert world.runs("c-1") == ["g-1"]


async def test_a_publication_that_was_accepted_is_not_asked_for_again_by_a_later_call(journal: Path) -> None:
    world = World()
    world.say("messages.publish", "c-1", answer(200, {"success": True}))
    outcome = await one(world, journal, publish=True, wait_timeout=30)
    assert outcome.state == "unfinished"
    world.camps["c-1"].soon = [*[PUBLISHABLE] * 4, PUBLISHED]
    outcome = await one(world, journal, publish=True, wait_timeout=30)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == 1


async def test_a_publication_that_cannot_be_written_down_is_not_sent(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    write = Journal.write

    def full(self: Journal, item: Any, step: str, detail: str = "") -> None:
        if step == "publishing":
            raise JournalError("The disk is full.")
        write(self, item, step, detail)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", full)
        with pytest.raises(JournalError) as caught:
            await run(world, journal, publish=True)
    assert world.count("messages.publish") == 0
    assert caught.value.report is not None
    assert states(caught.value.report) == ["unfinished"]
    assert (await run(world, journal, publish=True)).complete


async def test_a_history_that_fails_before_publication_leaves_it_unfinished(journal: Path) -> None:
    world = World()
    world.say("reruns.history", "c-1", None, None, answer(404))
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, world.count("messages.publish")) == ("unfinished", 0)
    assert (await one(world, journal, publish=True)).published


async def test_credentials_that_are_refused_at_publication_stop_everything(journal: Path) -> None:
    world = World(3)
    tokens = answer(200, {"access_token": "a", "refresh_token": "r", "expires_in": 1_000_000})
    world.transport.on("auth.authenticate", [tokens, *[answer(403)] * 9])
    world.transport.on("auth.reauthenticate", answer(403))
    for name in world.camps:
        world.say("messages.publish", name, answer(401), answer(401))
    report = await run(world, journal, publish=True)
    assert states(report) == ["unfinished"] * 3
    assert report.stopped
    assert [outcome.run_number for outcome in report] == [2] * 3


async def test_credentials_that_are_refused_while_waiting_stop_everything(journal: Path) -> None:
    world = World(2)
    tokens = answer(200, {"access_token": "a", "refresh_token": "r", "expires_in": 1_000_000})
    world.transport.on("auth.authenticate", [tokens, *[answer(403)] * 9])
    world.transport.on("auth.reauthenticate", answer(403))
    for name in world.camps:
        world.camps[name].after_run = "Generating"
        world.say("reruns.history", name, None, None, *[answer(401)] * 9)
    report = await run(world, journal, wait=True)
    assert states(report) == ["unfinished"] * 2
    assert report.stopped
    assert all(isinstance(outcome.error, AuthenticationError) for outcome in report if outcome.error is not None)


async def test_a_run_that_vanishes_before_publication_is_not_published(journal: Path) -> None:
    world = World()

    def vanish(_: SentRequest) -> None:
        world.camps["c-1"].runs.pop()

    world.say("reruns.history", "c-1", None, None, vanish)
    outcome = await one(world, journal, publish=True)
    assert outcome.state == "unfinished"
    assert "does not have run 2" in outcome.reason
    assert world.count("messages.publish") == 0


async def test_what_waits_for_its_turn_when_it_is_time_to_stop_is_not_published(journal: Path) -> None:
    world = World(2)
    stop = asyncio.Event()

    async def hold(_: SentRequest) -> None:
        stop.set()
        for _turn in range(20):
            await asyncio.sleep(0)

    await run(world, journal, wait=True)
    for name in world.camps:
        world.say("messages.publish", name, hold)
    report = await run(world, journal, publish=True, concurrency=1, stop=stop)
    assert sorted(states(report)) == ["succeeded", "unfinished"] or states(report) == ["unfinished"] * 2
    assert world.count("messages.publish") == 1
    assert any("not published, since the call stopped" in outcome.reason for outcome in report)
    assert (await run(world, journal, publish=True)).complete
    assert world.count("messages.publish") == 2


def soon_publishing(world: World, *states: str) -> None:
    """Publication is accepted, and the service takes its time."""

    def begins(_: SentRequest) -> Any:
        world.camps["c-1"].status = states[0]
        world.camps["c-1"].soon = list(states[1:])
        return answer(200, {"success": True})

    world.say("messages.publish", "c-1", begins)


async def test_too_many_is_waited_out_and_looked_at_before_it_is_asked_again(journal: Path) -> None:
    world, clock = World(), VirtualClock()
    moments: list[float] = []

    def busy(_: SentRequest) -> Any:
        moments.append(clock.now)
        return answer(429, headers={"Retry-After": "7"}) if len(moments) == 1 else None

    world.say("messages.publish", "c-1", busy, busy)
    outcome = await one(world, journal, publish=True, clock=clock)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert 7 <= moments[1] - moments[0] < 10, "it is known to have had no effect: nothing has to settle"
    last = [each for each in world.sent if each in {"reruns.history", "messages.publish"}]
    assert last[-4:] == ["messages.publish", "reruns.history", "messages.publish", "reruns.history"]
    assert steps(outcome)[3:] == ["publishing", "unsent", "publishing", "publishing", "published"]


async def test_requests_that_were_turned_away_are_none_without_effect(journal: Path) -> None:
    world = World(retry=RetryPolicy(attempts=REQUESTS + 3, base=0.001))
    world.say("messages.publish", "c-1", *[answer(429)] * (REQUESTS + 1))
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == REQUESTS + 2


async def test_what_could_not_be_sent_is_not_sent_again_at_once(journal: Path) -> None:
    world, clock = World(retry=RetryPolicy(attempts=2, base=100, longest=200)), VirtualClock()
    moments: list[float] = []

    def fail(_: SentRequest) -> Any:
        moments.append(clock.now)
        return NOT_SENT if len(moments) == 1 else None

    world.say("messages.publish", "c-1", fail, fail)
    assert (await one(world, journal, publish=True, clock=clock)).published
    assert moments[1] - moments[0] > 0.01


@pytest.mark.parametrize(
    ("step", "state"),
    [(answer(429, headers={"Retry-After": "5"}), "unfinished"), (answer(401), "succeeded")],  # it may have been ours
    ids=["too many", "token"],
)
async def test_what_somebody_makes_meanwhile_is_not_published(journal: Path, step: Any, state: str) -> None:
    """While it waits for its turn, a colleague publishes ours, and makes a run of her own."""
    world = World()

    def overtaken(_: SentRequest) -> Any:
        world.camps["c-1"].run("g-2")
        return step

    world.say("messages.publish", "c-1", overtaken)
    outcome = await one(world, journal, publish=True)
    assert outcome.state == state
    assert ("somebody else" in outcome.reason) == (state == "unfinished")
    assert world.count("messages.publish") == 1
    assert world.camps["c-1"].status == PUBLISHABLE
    assert (await one(world, journal, publish=True)).published, "only what is published can be run again"
    assert world.count("messages.publish") == 1


async def test_a_new_token_is_a_reason_to_look_again(journal: Path) -> None:
    world = World()
    world.say("messages.publish", "c-1", answer(401))
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert steps(outcome)[3:] == ["publishing", "denied", "publishing", "publishing", "published"]
    assert world.sent[-4:] == ["messages.publish", "reruns.history", "messages.publish", "reruns.history"]


class Held:
    """Lets a publication wait before it is sent, as a busy client does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *waits: Any) -> None:
        self.left = list(waits)
        publish = Service.publish

        async def late(service: Service, *arguments: Any) -> Any:
            if self.left:
                await self.left.pop(0)()
            return await publish(service, *arguments)

        monkeypatch.setattr(Service, "publish", late)


async def test_a_publication_that_had_to_wait_looks_again(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, clock = World(), VirtualClock()
    Held(monkeypatch, lambda: clock.sleep(1.5), lambda: clock.sleep(1.5))
    outcome = await one(world, journal, publish=True, clock=clock)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert steps(outcome)[3:] == ["publishing", "unsent", "publishing", "publishing", "published"], "then it is fresh"
    assert world.count("messages.publish") == 1


async def test_a_publication_that_waits_when_it_is_time_to_stop_is_not_sent(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, stop = World(), asyncio.Event()

    async def hold() -> None:
        stop.set()
        for _turn in range(5):
            await asyncio.sleep(0)

    Held(monkeypatch, hold)
    outcome = await one(world, journal, publish=True, stop=stop)
    assert (outcome.state, outcome.published) == ("unfinished", False)
    assert "It was not published, since the call stopped: the caller asked for it." in outcome.reason
    assert steps(outcome)[-1] == "unsent"
    assert world.count("messages.publish") == 0
    assert (await one(world, journal, publish=True)).published


async def test_stopping_before_a_second_request_leaves_the_first_one_open(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, stop, clock = World(), asyncio.Event(), VirtualClock()

    async def at_once() -> None:
        pass

    async def hold() -> None:
        stop.set()
        for _turn in range(5):
            await asyncio.sleep(0)

    Held(monkeypatch, at_once, hold)
    world.say("messages.publish", "c-1", LOST)
    outcome = await one(world, journal, publish=True, stop=stop)
    assert (outcome.state, outcome.published) == ("unfinished", False)
    assert "was asked for, and the call stopped" in outcome.reason
    assert world.count("messages.publish") == 1
    moments: list[float] = []
    world.say("messages.publish", "c-1", lambda _: moments.append(clock.now))
    began = clock.now
    assert (await one(world, journal, publish=True, clock=clock)).published
    assert moments[0] - began >= 10, "the first may have arrived yet"


@pytest.mark.parametrize("step", [answer(500), answer(503), answer(503, headers={"Retry-After": "1"}), answer(502)])
@pytest.mark.parametrize("done", [True, False])
async def test_a_failure_of_the_service_may_have_had_an_effect(journal: Path, step: Any, *, done: bool) -> None:
    """Whenever it says to come back: who says so may have passed the request on."""
    world, clock = World(), VirtualClock()
    moments: list[float] = []

    def fail(sent: SentRequest) -> Any:
        moments.append(clock.now)
        if done:
            world.publish_lost(sent)
        return step

    world.say("messages.publish", "c-1", fail, lambda _: moments.append(clock.now))
    outcome = await one(world, journal, publish=True, clock=clock)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert "lost" in steps(outcome)
    assert len(moments) == (1 if done else 2)
    assert done or moments[1] - moments[0] >= 10


async def test_a_publication_in_which_the_service_fails_is_asked_for_again_once_it_is_repaired(journal: Path) -> None:
    world = World()
    soon_publishing(world, "Publishing", "Publishing", "Publishing failed")
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("unfinished", False)
    assert "'Publishing failed'" in outcome.reason
    world.camps["c-1"].status = PUBLISHABLE
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == 2


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_a_publication_that_ends_in_a_review_is_asked_for_again_after_it(journal: Path, when: str) -> None:
    world = World()
    if when == "at once":
        soon_publishing(world, "Publishing", "Publishing", REVIEW)
    else:
        soon_publishing(world, PUBLISHABLE)
        assert (await one(world, journal, publish=True, wait_timeout=20)).state == "unfinished"
        world.camps["c-1"].status = REVIEW
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.in_review, outcome.published) == ("succeeded", True, False)
    assert world.count("messages.publish") == 1
    world.camps["c-1"].status = PUBLISHABLE
    assert (await one(world, journal, publish=True)).published
    assert world.count("messages.publish") == 2


@pytest.mark.parametrize("seconds", [None, 30])
async def test_a_publication_of_which_nothing_comes_is_asked_for_again(journal: Path, seconds: float | None) -> None:
    world = World()
    soon_publishing(world, PUBLISHABLE)
    outcome = await one(world, journal, publish=True, wait_timeout=30)
    assert (outcome.state, steps(outcome)[-1]) == ("unfinished", "publishing")
    clock = VirtualClock()
    began = clock.now
    outcome = await one(world, journal, publish=True, wait_timeout=seconds, clock=clock)
    assert clock.now - began == pytest.approx(seconds or PATIENCE, abs=1)
    assert (outcome.state, outcome.published, steps(outcome)[-1]) == ("unfinished", False, "absent")
    assert "nothing came of it" in outcome.reason
    assert "The same call asks again" in outcome.reason
    assert isinstance(outcome.error, DeadlineExceededError)
    assert world.count("messages.publish") == 1
    assert (await one(world, journal, publish=True)).published
    assert world.count("messages.publish") == 2


async def test_who_does_not_publish_is_told_which_call_does(journal: Path) -> None:
    world = World()
    soon_publishing(world, PUBLISHABLE)
    assert (await one(world, journal, publish=True, wait_timeout=30)).state == "unfinished"
    outcome = await one(world, journal, download=journal.parent / "out", wait_timeout=30)
    assert (outcome.state, steps(outcome)[-1]) == ("unfinished", "absent")
    assert "A call with publish=True asks again" in outcome.reason
    assert world.count("messages.publish") == 1


async def test_a_publication_that_the_service_is_at_is_never_given_up(journal: Path) -> None:
    world = World()
    soon_publishing(world, "Publishing")
    assert (await one(world, journal, publish=True, wait_timeout=30)).state == "unfinished"
    for _call in range(2):
        outcome = await one(world, journal, publish=True)
        assert (outcome.state, outcome.published, outcome.campaign_status) == ("unfinished", False, "Publishing")
        assert "absent" not in steps(outcome)
        assert "'Publishing'" in outcome.reason
    world.camps["c-1"].status = PUBLISHED
    assert (await one(world, journal, publish=True)).published
    assert world.count("messages.publish") == 1


async def test_a_service_that_does_not_say_is_no_proof_that_nothing_came_of_it(journal: Path) -> None:
    world = World()
    soon_publishing(world, PUBLISHABLE)
    assert (await one(world, journal, publish=True, wait_timeout=30)).state == "unfinished"
    world.say("reruns.history", "c-1", HANG)
    outcome = await one(world, journal, publish=True, wait_timeout=5)
    assert (outcome.state, steps(outcome)[-1]) == ("unfinished", "publishing")
    assert "Nothing is known" in outcome.reason
    world.script["reruns.history", "c-1"].clear()
    world.camps["c-1"].soon = [PUBLISHABLE, PUBLISHED]
    assert (await one(world, journal, publish=True, wait_timeout=30)).published
    assert world.count("messages.publish") == 1


async def test_a_run_with_a_lost_publication_that_is_followed_by_another_was_published(journal: Path) -> None:
    world = World()
    world.say("messages.publish", "c-1", LOST)
    world.say("reruns.history", "c-1", None, None, None, answer(404))
    assert (await one(world, journal, publish=True)).state == "unfinished"
    world.camps["c-1"].runs[-1]["campaign_status"] = "Archived"
    world.camps["c-1"].run("g-2")
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published, outcome.reason) == ("succeeded", True, "")
    assert world.count("messages.publish") == 1


async def test_a_history_that_lags_behind_once_is_waited_for(journal: Path) -> None:
    world, clock = World(), VirtualClock()
    moments: list[float] = []

    def behind(_: SentRequest) -> Any:
        moments.append(clock.now)
        return answer(200, [{"run_number": 1, "customer_group_id": "g-0", "campaign_status": PUBLISHED}])

    world.say("messages.publish", "c-1", lambda _: moments.append(clock.now))
    world.say("reruns.history", "c-1", None, None, behind)
    outcome = await one(world, journal, publish=True, clock=clock)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert moments[1] - moments[0] >= 10


async def test_stopping_while_the_history_lags_behind(journal: Path) -> None:
    world, stop = World(), asyncio.Event()

    def behind(_: SentRequest) -> Any:
        stop.set()
        return answer(200, [{"run_number": 1, "customer_group_id": "g-0", "campaign_status": PUBLISHED}])

    world.say("reruns.history", "c-1", None, None, behind)
    outcome = await one(world, journal, publish=True, stop=stop)
    assert outcome.state == "unfinished"
    assert "It was not published, since the call stopped" in outcome.reason
    assert world.count("messages.publish") == 0
    assert (await one(world, journal, publish=True)).published


# --- what was ready, and is looked at again ------------------------------------------------------------------------------


async def test_what_people_are_having_published_is_waited_for(journal: Path) -> None:
    world = World()
    assert (await one(world, journal, wait=True)).campaign_status == PUBLISHABLE
    world.camps["c-1"].soon = [*["Publishing"] * 4, PUBLISHED]
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)
    assert world.count("messages.publish") == 0


async def test_what_people_are_having_published_is_downloaded(journal: Path, tmp_path: Path) -> None:
    world = World()
    assert (await one(world, journal, wait=True)).campaign_status == PUBLISHABLE
    world.camps["c-1"].soon = [*["Publishing"] * 3, PUBLISHED]
    outcome = await one(world, journal, download=tmp_path / "out")
    assert (outcome.state, outcome.files) == ("succeeded", 1)


async def test_what_people_have_published_in_vain_is_not_downloaded(journal: Path, tmp_path: Path) -> None:
    world = World()
    assert (await one(world, journal, wait=True)).campaign_status == PUBLISHABLE
    world.camps["c-1"].soon = ["Publishing", PUBLISHABLE]
    outcome = await one(world, journal, download=tmp_path / "out")
    assert (outcome.state, outcome.campaign_status) == ("unfinished", PUBLISHABLE)
    assert "It is not published" in outcome.reason
    assert world.count("messages.publish") == 0


async def test_who_only_waits_has_what_was_ready_and_is_told_where_it_stands_now(journal: Path) -> None:
    world = World(5)
    await run(world, journal, wait=True)
    for camp, status in zip(
        world.camps.values(), [PUBLISHABLE, REVIEW, "Publishing", PUBLISHED, "Publishing failed"], strict=True
    ):
        camp.status = status
    report = await run(world, journal, wait=True)
    assert states(report) == ["succeeded"] * 4 + ["unfinished"]
    assert [outcome.campaign_status for outcome in report] == [camp.status for camp in world.camps.values()]
    assert [outcome.published for outcome in report] == [False, False, False, True, False]


async def test_what_was_ready_is_looked_at_even_where_histories_do_not_say(journal: Path) -> None:
    world = World()
    world.silent = True
    assert (await one(world, journal, wait=True)).campaign_status == PUBLISHABLE
    outcome = await one(world, journal, publish=True)
    assert (outcome.state, outcome.published) == ("succeeded", True)


async def test_stopping_while_what_was_ready_is_looked_at(journal: Path) -> None:
    world, stop = World(), asyncio.Event()
    assert (await one(world, journal, wait=True)).state == "succeeded"

    async def endless(_: SentRequest) -> None:
        stop.set()
        await asyncio.Event().wait()

    world.say("reruns.history", "c-1", endless)
    outcome = await one(world, journal, publish=True, stop=stop)
    assert (outcome.state, outcome.reason) == (
        "unfinished",
        "The call stopped before it was published: the caller asked for it.",
    )


# --- downloading -------------------------------------------------------------------------------------------------------


async def test_download_has_the_messages_of_the_run(journal: Path, tmp_path: Path) -> None:
    world = World(2)
    report = await run(world, journal, publish=True, download=tmp_path / "out")
    assert report.complete
    for outcome in report:
        target = tmp_path / "out" / outcome.campaign_id / "run-2"
        assert (outcome.directory, outcome.files) == (target, 1)
        assert outcome.campaign_id in (target / "page-00001.csv").read_text()
    fetched = [sent for sent in world.transport.requests if sent.operation == "messages.fetch"]
    assert [sent.body["run_number"] for sent in fetched] == [2, 2]
    again = await run(world, journal, publish=True, download=tmp_path / "out")
    assert again.complete
    assert world.count("messages.fetch") == 2


async def test_another_folder_gets_the_messages_too(journal: Path, tmp_path: Path) -> None:
    world = World()
    assert (await one(world, journal, publish=True, download=tmp_path / "out")).state == "succeeded"
    world.say("messages.fetch", "c-1", answer(404))
    outcome = await one(world, journal, publish=True, download=tmp_path / "other")
    assert outcome.state == "unfinished", "they are in the first folder only"
    outcome = await one(world, journal, publish=True, download=tmp_path / "other")
    assert (outcome.state, outcome.directory) == ("succeeded", tmp_path / "other" / "c-1" / "run-2")
    assert [path.name for path in (tmp_path / "other" / "c-1" / "run-2").glob("page-*")] == ["page-00001.csv"]


async def test_what_is_not_published_is_not_downloaded(journal: Path, tmp_path: Path) -> None:
    world = World()
    outcome = await one(world, journal, download=tmp_path / "out")
    assert (outcome.state, outcome.directory) == ("unfinished", None)
    assert "It is not published" in outcome.reason
    world.camps["c-1"].status = REVIEW
    outcome = await one(world, journal, download=tmp_path / "out")
    assert (outcome.state, outcome.in_review, outcome.directory) == ("succeeded", True, None)
    assert world.count("messages.fetch") == 0
    world.camps["c-1"].status = PUBLISHED
    outcome = await one(world, journal, download=tmp_path / "out")
    assert outcome.files == 1


async def test_messages_that_were_removed_are_downloaded_again(journal: Path, tmp_path: Path) -> None:
    world = World(2)
    assert (await run(world, journal, publish=True, download=tmp_path / "out")).complete
    shutil.rmtree(tmp_path / "out" / "c-1")
    report = await run(world, journal, publish=True, download=tmp_path / "out")
    assert report.complete
    assert (tmp_path / "out" / "c-1" / "run-2" / "page-00001.csv").is_file()
    assert [world.count("messages.fetch", name) for name in world.camps] == [2, 1]


@pytest.mark.parametrize("end", ["time", "stop"])
async def test_what_is_still_being_published_is_not_downloaded_and_not_said_to_be(
    journal: Path, tmp_path: Path, end: str
) -> None:
    world, stop = World(), asyncio.Event()
    soon_publishing(world, "Publishing")
    assert (await one(world, journal, publish=True, wait_timeout=5)).state == "unfinished"
    world.say("reruns.history", "c-1", None, lambda _: stop.set() if end == "stop" else None)
    outcome = await one(world, journal, download=tmp_path / "out", wait_timeout=5 if end == "time" else None, stop=stop)
    assert (outcome.state, outcome.directory, outcome.published) == ("unfinished", None, False)
    assert not (tmp_path / "out").exists()


async def test_a_download_that_fails_is_unfinished_and_goes_on(journal: Path, tmp_path: Path) -> None:
    world = World(2)
    world.say("messages.fetch", "c-1", answer(404))
    first, second = await run(world, journal, publish=True, download=tmp_path / "out")
    assert (first.state, second.state) == ("unfinished", "succeeded")
    assert first.published
    assert first.error is not None
    assert states(await run(world, journal, publish=True, download=tmp_path / "out")) == ["succeeded"] * 2
    assert world.count("messages.publish") == 2


async def test_a_folder_that_cannot_be_made_stops_no_campaign(journal: Path, tmp_path: Path) -> None:
    world = World(2)
    (tmp_path / "out").write_text("in the way")
    report = await run(world, journal, publish=True, download=tmp_path / "out")
    assert states(report) == ["unfinished"] * 2
    assert all(outcome.published and outcome.reason for outcome in report)
    (tmp_path / "out").unlink()
    assert (await run(world, journal, publish=True, download=tmp_path / "out")).complete


async def test_stopping_ends_a_download_which_goes_on_in_the_next_call(journal: Path, tmp_path: Path) -> None:
    world = World()
    stop = asyncio.Event()

    async def endless(_: SentRequest) -> None:
        stop.set()
        await asyncio.Event().wait()

    world.say("messages.fetch", "c-1", endless)
    async with asyncio.timeout(20):
        outcome = await one(world, journal, publish=True, download=tmp_path / "out", stop=stop)
    assert (outcome.state, outcome.published) == ("unfinished", True)
    assert "the caller asked for it" in outcome.reason
    assert (await one(world, journal, publish=True, download=tmp_path / "out")).files == 1


@pytest.mark.parametrize(
    ("campaign_id", "name"),
    [
        ("c-1", "c-1"),
        ("3f2a_b.c", "3f2a_b.c"),
        ("..", "%2E%2E"),
        (".hidden", "%2Ehidden"),
        ("a/b", "a%2Fb"),
        ("../../etc", "%2E%2E%2F%2E%2E%2Fetc"),
        ("a\0b", "a%00b"),
        ("a b", "a%20b"),
        ("-rf", "-rf"),
    ],
)
def test_the_folder_of_a_campaign(campaign_id: str, name: str) -> None:
    assert folder_name(campaign_id) == name


def test_folders_of_different_campaigns_differ() -> None:
    ids = ["a/b", "a%2Fb", "a.b", "a%2Eb", "A", "a", "..", "%2E%2E"]
    assert len({folder_name(each) for each in ids}) == len(ids)


def test_a_folder_has_a_name_that_file_systems_take_and_no_other_campaign_has() -> None:
    ids = ["c" * 200, "c" * 201, "c" * 400, "c" * 400 + "d", "/" * 70, "/" * 71, "\u00e9" * 100, "\u00e9" * 101]
    names = [folder_name(each) for each in ids]
    assert len(set(names)) == len(ids)
    assert max(len(name.encode()) for name in names) <= 200
    assert names[0] == ids[0]
    assert folder_name(ids[2]) == names[2], "it is the same each time"
