"""What is looked at before anything is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rerun_world import NOT_SENT, PUBLISHABLE, PUBLISHED, REVIEW, World, states

from nudgescribe_async import (
    AuthenticationError,
    NudgescribeError,
    RequestNotSentError,
    RerunOutcome,
    RerunReport,
    RerunRequest,
)
from nudgescribe_async.testing import SentRequest, VirtualClock, answer

if TYPE_CHECKING:
    from nudgescribe_async.events import RerunProgress

pytestmark = pytest.mark.usefixtures("no_threads")


async def run(world: World, journal: Path, plan: list[RerunRequest] | None = None, **options: Any) -> RerunReport:
    async with world.client(clock=VirtualClock()) as ns:
        return await ns.reruns.run(world.plan() if plan is None else plan, journal=journal, settle=1, **options)


async def first(world: World, journal: Path, **options: Any) -> RerunOutcome:
    """Of two campaigns, the second of which has nothing wrong with it."""
    one, other = await run(world, journal, **options)
    assert (other.state, world.runs("c-2")) == ("succeeded", ["g-2"])
    return one


def refused(world: World, outcome: RerunOutcome, *words: str) -> None:
    assert outcome.state == "refused"
    for word in words:
        assert word in outcome.reason
    assert world.count("reruns.initiate", "c-1") == 0
    assert world.count("reruns.history", "c-1") == 0
    assert (outcome.attempts, outcome.run_number) == (0, None)


async def test_a_campaign_that_is_not_known(journal: Path) -> None:
    world = World(2)
    camp = world.camps.pop("c-1")
    plan = world.plan("c-1", "c-2")
    one, _ = await run(world, journal, plan)
    refused(world, one, "no such campaign")
    assert world.count("reruns.messages", "c-1") == 0
    world.camps["c-1"] = camp
    assert (await run(world, journal, plan)).complete, "a later call looks again"


async def test_a_group_that_is_not_known(journal: Path) -> None:
    world = World(2)
    world.groups["w-1"].remove("g-1")
    refused(world, await first(world, journal), "no such customer group")


async def test_a_group_of_another_workspace(journal: Path) -> None:
    world = World(2)
    world.groups["w-1"].remove("g-1")
    world.groups["w-2"] = ["g-1"]
    world.camps["c-3"] = World(3).camps["c-3"]
    world.camps["c-3"].workspace_id = "w-2"
    plan = [RerunRequest("c-1", "g-1"), RerunRequest("c-2", "g-2"), RerunRequest("c-3", "g-1")]
    report = await run(world, journal, plan)
    assert states(report) == ["refused", "succeeded", "succeeded"]
    refused(world, report.outcomes[0], "The workspace of the campaign has no such customer group")
    assert world.count("customer_groups.list") == 2, "once for each workspace"


@pytest.mark.parametrize("status", [REVIEW, PUBLISHABLE, "Draft", "Publishing"])
async def test_a_campaign_that_is_not_published(journal: Path, status: str) -> None:
    world = World(2)
    world.camps["c-1"].status = status
    refused(world, await first(world, journal), "must be 'Published'", repr(status))


@pytest.mark.parametrize("status", ["", "Held for Jane Doe, policy 12345"])
async def test_a_state_of_no_known_words_is_not_repeated(journal: Path, status: str) -> None:
    """It may be a sentence about a customer, and the reason is in the journal."""
    world = World(2)
    world.camps["c-1"].status = status
    refused(world, await first(world, journal), "must be 'Published'", "in another state")
    assert b"Jane" not in b"".join([path.read_bytes() for path in journal.parent.iterdir()])


async def test_a_state_in_other_letters_is_the_same_state(journal: Path) -> None:
    world = World()
    world.camps["c-1"].status = "PUBLISHED"
    world.say("reruns.initiate", "c-1", lambda _: setattr(world.camps["c-1"], "status", PUBLISHED))
    assert (await run(world, journal)).complete


async def test_a_state_that_is_not_said_is_left_to_the_service(journal: Path) -> None:
    world = World()
    world.camps["c-1"].status = None
    (outcome,) = await run(world, journal)
    assert (outcome.state, outcome.attempts) == ("refused", 1)


def message(status: str | None, archived: bool | None = False) -> dict[str, Any]:
    return {"message_id": "m", "review_status": status, "is_archived": archived}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([message("Pending"), message(PUBLISHED)], "1 of 2 message of its current run is not"),
        ([message("Approved"), message("Rejected"), message(PUBLISHED)], "2 of 3 messages of its current run are not"),
        ([message("Approved", None)], "1 of 1"),
        ([message("Pending"), message("Pending", True)], "1 of 1"),
    ],
)
async def test_messages_that_are_not_published(journal: Path, messages: list[dict[str, Any]], words: str) -> None:
    world = World(2)
    world.camps["c-1"].messages = messages
    refused(world, await first(world, journal), words)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [message("Pending", True), message("Rejected", True), message(PUBLISHED)],
        [message(None), message("published")],
    ],
    ids=["none", "archived", "not said"],
)
async def test_messages_that_are_in_nobodys_way(journal: Path, messages: list[dict[str, Any]]) -> None:
    world = World(2)
    world.camps["c-1"].messages = messages
    assert (await first(world, journal)).state == "succeeded"


async def test_groups_that_may_not_be_seen_are_left_to_the_service(journal: Path) -> None:
    world = World(2)
    world.transport.on("customer_groups.list", lambda _: answer(403, {"message": "no"}))
    plan = [RerunRequest("c-1", "g-nobody-knows"), RerunRequest("c-2", "g-2")]
    report = await run(world, journal, plan)
    assert states(report) == ["succeeded", "succeeded"]


@pytest.mark.parametrize("step", [NOT_SENT, answer(404), answer(500), answer(200, {"odd": True})])
async def test_groups_that_cannot_be_had(journal: Path, step: Any) -> None:
    world = World(2)
    world.say("customer_groups.list", "w-1", *[step] * 2)
    report = await run(world, journal)
    assert states(report) == ["not_started"] * 2
    for outcome in report:
        assert outcome.reason.startswith("It could not be checked, so it was not sent")
        assert outcome.error is not None
        assert outcome.campaign_id in world.camps
    assert world.count("reruns.initiate") == 0
    world.script.clear()
    assert (await run(world, journal)).complete


@pytest.mark.parametrize("step", [NOT_SENT, answer(403), answer(404), answer(500), answer(200, {"odd": True})])
async def test_messages_that_cannot_be_had(journal: Path, step: Any) -> None:
    world = World(2)
    world.say("reruns.messages", "c-1", *[step] * 2)
    outcome = await first(world, journal)
    assert outcome.state == "not_started"
    assert outcome.reason.startswith("It could not be checked, so it was not sent")
    assert outcome.error is not None
    assert (world.count("reruns.initiate", "c-1"), outcome.steps) == (0, ())


@pytest.mark.parametrize(
    ("step", "kind"),
    [(NOT_SENT, RequestNotSentError), (answer(403), NudgescribeError), (answer(500), NudgescribeError)],
)
async def test_without_the_campaigns_nothing_is_sent(journal: Path, step: Any, kind: type[Exception]) -> None:
    world = World(2)
    world.say("campaigns.list", "", *[step] * 2)
    with pytest.raises(kind):
        await run(world, journal)
    assert set(world.sent) == {"campaigns.list"}
    world.script.clear()
    assert (await run(world, journal)).complete


async def test_credentials_that_are_refused(journal: Path) -> None:
    world = World(2)
    world.transport.on("auth.authenticate", answer(403, {"message": "no"}))
    with pytest.raises(AuthenticationError):
        await run(world, journal)
    assert not world.sent


async def test_a_look_that_fails_for_all_stops_everything(journal: Path) -> None:
    """Credentials that are withdrawn while the campaigns are checked."""
    world = World(6)
    world.transport.on("auth.reauthenticate", answer(403))
    world.transport.on(
        "auth.authenticate",
        [answer(200, {"access_token": "a", "refresh_token": "r", "expires_in": 1_000_000}), answer(403), answer(403)],
    )
    world.say("reruns.messages", "c-1", answer(401))
    report = await run(world, journal, concurrency=1)
    assert set(states(report)) == {"not_started"}
    assert report.stopped
    assert world.count("reruns.initiate") == 0


async def test_all_checks_come_before_the_first_request(journal: Path) -> None:
    world = World(12)

    async def slow(_: SentRequest) -> None:
        for _turn in range(50):
            await asyncio.sleep(0)

    world.say("reruns.messages", "c-7", slow)
    world.camps["c-3"].status = REVIEW
    await run(world, journal, concurrency=4)
    sent = world.sent
    start = sent.index("reruns.initiate")
    assert sent[:start].count("reruns.messages") == 11
    assert sent[start:].count("reruns.messages") == 0
    assert sent.count("campaigns.list") == sent.count("customer_groups.list") == 1


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_the_checks_are_made_several_at_a_time(journal: Path, concurrency: int) -> None:
    world = World(12)
    world.latency = 0.001
    await run(world, journal, concurrency=concurrency)
    assert world.most == concurrency


async def test_what_is_wrong_with_the_plan_as_such(journal: Path) -> None:
    world = World(3)
    plan = [
        RerunRequest("c-1", "g-1"),
        RerunRequest("c-2", "g-2"),
        RerunRequest("c-1", "g-2"),
        RerunRequest(" ", "g-2"),
        RerunRequest("c-3", ""),
    ]
    report = await run(world, journal, plan)
    assert states(report) == ["refused", "succeeded", "refused", "refused", "refused"]
    assert [outcome.position for outcome in report] == [1, 2, 3, 4, 5]
    assert "2 times" in report.outcomes[0].reason
    assert "campaign id is empty" in report.outcomes[3].reason
    assert "customer group is empty" in report.outcomes[4].reason
    assert world.count("reruns.initiate") == 1
    assert world.count("reruns.messages") == 1


async def test_a_name_is_known_of_what_is_refused_too(journal: Path) -> None:
    world = World(2)
    world.camps["c-1"].status = REVIEW
    outcome = await first(world, journal)
    assert outcome.campaign_name == "Campaign 1"


@pytest.mark.parametrize("wrong", ["group", "messages", "unreadable"])
async def test_what_was_sent_without_effect_is_checked_again_before_it_is_sent_again(journal: Path, wrong: str) -> None:
    world = World(2)
    world.say("reruns.initiate", "c-1", answer(409, {"message": "not now"}))
    assert states(await run(world, journal)) == ["refused", "succeeded"]
    if wrong == "group":
        world.groups["w-1"].remove("g-1")
    elif wrong == "messages":
        world.camps["c-1"].messages = [message("Pending")]
    else:
        world.say("reruns.messages", "c-1", answer(404))
    outcome = (await run(world, journal)).outcomes[0]
    words = {"group": "no such customer group", "messages": "1 of 1", "unreadable": "could not be checked"}
    assert outcome.state == "refused"
    assert words[wrong] in outcome.reason
    assert world.count("reruns.initiate", "c-1") == 1
    world.groups["w-1"].append("g-1")
    world.camps["c-1"].messages = []
    assert (await run(world, journal)).complete


async def test_what_arrived_late_is_adopted_though_the_campaign_is_not_published_any_more(journal: Path) -> None:
    world = World(2)
    world.say("reruns.initiate", "c-1", answer(409, {"message": "not now"}))
    await run(world, journal)
    world.camps["c-1"].run("g-1", REVIEW)
    outcome = (await run(world, journal)).outcomes[0]
    assert (outcome.state, outcome.adopted) == ("succeeded", True)


# --- fail_fast ---------------------------------------------------------------------------------------------------------


async def test_fail_fast_sends_nothing_if_one_is_refused(journal: Path) -> None:
    world = World(3)
    world.camps["c-3"].status = REVIEW
    report = await run(world, journal, fail_fast=True)
    assert states(report) == ["not_started", "not_started", "refused"]
    assert world.count("reruns.initiate") == 0
    assert "c-3" in report.stopped
    assert "c-3" in report.outcomes[0].reason


async def test_fail_fast_sends_nothing_if_one_cannot_be_checked(journal: Path) -> None:
    world = World(3)
    world.say("reruns.messages", "c-3", answer(404))
    report = await run(world, journal, fail_fast=True)
    assert states(report) == ["not_started"] * 3
    assert world.count("reruns.initiate") == 0


async def test_fail_fast_sends_nothing_if_the_plan_has_a_mistake(journal: Path) -> None:
    world = World(2)
    report = await run(world, journal, [*world.plan(), RerunRequest("", "g-1")], fail_fast=True)
    assert states(report) == ["not_started", "not_started", "refused"]
    assert world.count("reruns.initiate") == 0


async def test_fail_fast_in_the_middle_ends_what_is_in_flight_and_starts_nothing_new(journal: Path) -> None:
    world = World(20)
    world.latency = 0.001
    refused = asyncio.Event()
    told: list[RerunProgress] = []

    async def wait(sent: SentRequest) -> Any:
        await refused.wait()
        return world.lost(sent)

    def tell(event: RerunProgress) -> None:
        told.append(event)
        if event.campaign_id == "c-2" and event.final:
            refused.set()

    world.say("reruns.initiate", "c-1", wait)
    world.say("reruns.initiate", "c-2", answer(400, {"message": "no"}))
    # A refusal is looked for until nothing can arrive any more; here that is at once.
    async with world.client() as ns:
        report = await ns.reruns.run(
            world.plan(), journal=journal, concurrency=2, fail_fast=True, settle=0, on_event=tell
        )
    assert states(report)[:2] == ["succeeded", "refused"]
    assert report.outcomes[0].adopted
    assert "fail_fast" in report.stopped
    assert report.not_started
    (known,) = [at for at, event in enumerate(told) if event.campaign_id == "c-2" and event.final]
    assert "intended" in {event.step for event in told[:known]}
    assert "intended" not in {event.step for event in told[known:]}
    report = await run(world, journal, fail_fast=True)
    assert report.complete
    assert all(world.runs(name) == [f"g-{name[2:]}"] for name in world.camps)


async def test_without_fail_fast_one_bad_campaign_stops_no_other(journal: Path) -> None:
    world = World(6)
    world.say("reruns.initiate", "c-1", answer(400))
    world.say("reruns.initiate", "c-2", world.overtaken("g-9", answer(500)))
    world.say("reruns.history", "c-3", answer(404))
    world.camps["c-4"].status = REVIEW
    report = await run(world, journal, concurrency=1)
    assert states(report) == ["refused", "conflict", "not_started", "refused", "succeeded", "succeeded"]
    assert not report.stopped
