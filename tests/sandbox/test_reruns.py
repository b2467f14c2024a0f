from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import pytest

from nudgescribe_async.sandbox import SandboxError

HISTORY = "/v1/campaign/rerun/history"
MESSAGES = "/v1/campaign/rerun/messages"
INITIATE = "/v1/campaign/rerun/initiate"
PUBLISH = "/v1/messages/publish"
PAGES = "/v1/messages/pages"
FETCH = "/v1/messages/fetch"


class Scene:
    """A campaign for cities A, B and C, and a group for others to be rerun with."""

    def __init__(self, api: Any, campaign: str, groups: dict[str, str]) -> None:
        self.api = api
        self.campaign = campaign
        self.groups = groups

    async def initiate(self, cities: str) -> Any:
        return await self.api.call(
            "POST", INITIATE, campaign_id=self.campaign, new_customer_group_id=self.groups[cities]
        )

    async def messages(self, **more: Any) -> dict[str, tuple[str, bool]]:
        found = await self.api.ok("POST", MESSAGES, campaign_id=self.campaign, **more)
        return {m["segment"]["city"]: (m["review_status"], m["is_archived"]) for m in found}

    async def history(self) -> Any:
        return await self.api.ok("POST", HISTORY, campaign_id=self.campaign)

    async def publish(self) -> None:
        await self.api.ok("POST", PUBLISH, campaign_id=self.campaign)
        await self.api.sandbox.drain(hurry=True)

    async def cities(self, **more: Any) -> list[str]:
        answer = await self.api.call("POST", FETCH, campaign_id=self.campaign, page=1, **more)
        assert answer.status == 200, answer.body
        rows = csv.DictReader(io.StringIO(answer.body.decode(), newline=""))
        return [row["segment"].removeprefix("city: ") for row in rows]


async def scene(api: Any, status: str = "Published") -> Scene:
    await api.sandbox.create_profile_field("city", "string")
    groups = {}
    for cities in ("ABC", "BCD", "AB", "XY", ""):
        customers = [{"city": city} for city in cities]
        groups[cities] = await api.sandbox.create_customer_group(f"group {cities}", customers=customers)
    campaign = await api.sandbox.create_campaign("c", groups["ABC"], segment_by={"city": None}, status=status)
    return Scene(api, campaign, groups)


@pytest.fixture
async def slow(start: Any) -> Scene:
    """Jobs do not run before they are told to."""
    return await scene(await start(job_time=3_600))


async def test_a_campaign_that_was_never_rerun_has_one_run(slow: Scene) -> None:
    (run,) = await slow.history()

    assert run.pop("created_at")
    assert run == {
        "rerun_id": None,
        "run_number": 1,
        "customer_group_id": slow.groups["ABC"],
        "customer_group_name": "group ABC",
        "segment_count": 3,
        "archived_count": 0,
        "comparison": None,
        "campaign_status": "Published",
    }


async def test_the_answer_is_exactly_that_of_the_reference(slow: Scene) -> None:
    answer = (await slow.initiate("BCD")).json

    assert list(answer) == [
        "success",
        "rerun_id",
        "run_number",
        "campaign_status",
        "job_uid",
        "archived_count",
        "comparison",
        "message",
    ]
    assert answer["success"] is True
    assert answer["run_number"] == 2
    assert answer["campaign_status"] == "Ready for review"
    assert answer["archived_count"] == 3
    assert answer["comparison"] == {"matched_count": 2, "new_count": 1, "orphaned_count": 1}
    assert answer["message"] == "Campaign rerun initiated successfully"


async def test_a_rerun_with_new_segments_goes_through_review(slow: Scene) -> None:
    rerun = (await slow.initiate("BCD")).json

    assert await slow.messages() == {"B": ("Approved", False), "C": ("Approved", False)}
    assert await slow.messages(run_number=1) == {
        "A": ("Published", False),
        "B": ("Published", True),
        "C": ("Published", True),
    }
    await slow.api.sandbox.drain(hurry=True)
    assert await slow.messages() == {"B": ("Approved", False), "C": ("Approved", False), "D": ("Pending", False)}
    assert {archived for _, archived in (await slow.messages(run_number=1)).values()} == {True}
    assert await slow.api.sandbox.approve(slow.campaign) == "Ready to publish"
    await slow.publish()

    newest, first = await slow.history()
    assert (newest["rerun_id"], newest["run_number"], newest["segment_count"]) == (rerun["rerun_id"], 2, 3)
    assert (newest["archived_count"], newest["comparison"]) == (3, rerun["comparison"])
    assert newest["customer_group_name"] == "group BCD"
    assert newest["campaign_status"] == "Published"
    assert (first["rerun_id"], first["run_number"], first["campaign_status"]) == (None, 1, "Published")


async def test_a_rerun_whose_segments_all_matched_needs_no_review(slow: Scene) -> None:
    answer = (await slow.initiate("AB")).json

    assert answer["campaign_status"] == "Ready to publish"
    assert answer["comparison"] == {"matched_count": 2, "new_count": 0, "orphaned_count": 1}
    await slow.publish()
    assert await slow.cities() == ["A", "B"]


async def test_matched_segments_keep_their_text(slow: Scene) -> None:
    before = await slow.api.ok("POST", MESSAGES, campaign_id=slow.campaign)
    await slow.initiate("AB")
    after = await slow.api.ok("POST", MESSAGES, campaign_id=slow.campaign)

    assert [message["content"] for message in after] == [message["content"] for message in before[:2]]
    assert not {message["message_id"] for message in after} & {message["message_id"] for message in before}


async def test_a_rerun_for_nobody_orphans_everything(slow: Scene) -> None:
    answer = (await slow.initiate("")).json

    assert answer["comparison"] == {"matched_count": 0, "new_count": 0, "orphaned_count": 3}
    assert answer["campaign_status"] == "Ready to publish"


async def test_a_rerun_of_the_same_group_matches_everything(slow: Scene) -> None:
    assert (await slow.initiate("ABC")).json["comparison"] == {
        "matched_count": 3,
        "new_count": 0,
        "orphaned_count": 0,
    }


async def test_the_files_of_every_run_stay(slow: Scene) -> None:
    await slow.initiate("BCD")
    pages = {"campaign_id": slow.campaign}
    assert (await slow.api.ok("POST", PAGES, **pages))["pages"] == 0
    assert (await slow.api.ok("POST", PAGES, **pages, run_number=1))["pages"] == 1
    await slow.api.sandbox.drain(hurry=True)
    await slow.api.sandbox.approve(slow.campaign)
    await slow.publish()

    assert await slow.cities() == ["B", "C", "D"]
    assert await slow.cities(run_number=2) == ["B", "C", "D"]
    assert await slow.cities(run_number=1) == ["A", "B", "C"]
    url = {"campaign_id": slow.campaign, "page": 1, "format": "url"}
    assert (await slow.api.call("POST", FETCH, **url, run_number=2)).status == 200
    refused = await slow.api.call("POST", FETCH, **url, run_number=1)
    assert refused.message == "Bad Request: a signed URL is not to be had for a historical run"


async def test_runs_are_counted_on(slow: Scene) -> None:
    for number, cities in ((2, "AB"), (3, "ABC"), (4, "XY")):
        assert (await slow.initiate(cities)).json["run_number"] == number
        await slow.api.sandbox.drain(hurry=True)
        await slow.api.sandbox.approve(slow.campaign)
        await slow.publish()

    assert [run["run_number"] for run in await slow.history()] == [4, 3, 2, 1]
    assert await slow.messages() == {"X": ("Published", False), "Y": ("Published", False)}
    (workspace,) = await slow.api.ok("POST", "/v1/campaign/all")
    assert workspace["campaigns"][0]["run_number"] == 4
    assert workspace["campaigns"][0]["customer_group_id"] == slow.groups["XY"]


@pytest.mark.parametrize("status", ["Ready for review", "Ready to publish"])
async def test_only_a_published_campaign_is_rerun(api: Any, status: str) -> None:
    made = await scene(api, status)

    answer = await made.initiate("AB")

    assert (answer.status, answer.message) == (400, f"Bad Request: the campaign is '{status}', not 'Published'")


async def test_a_rerun_is_not_initiated_twice(slow: Scene) -> None:
    assert (await slow.initiate("AB")).status == 200
    assert (await slow.initiate("AB")).status == 400
    assert slow.api.sandbox.effects["reruns.initiate"] == 1
    assert slow.api.sandbox.count("reruns.initiate") == 2
    assert slow.api.sandbox.count("reruns.initiate", 400) == 1
    assert len(await slow.history()) == 2


async def test_every_message_must_be_published(api: Any) -> None:
    made = await scene(api)
    messages = await api.ok("POST", MESSAGES, campaign_id=made.campaign)
    await api.sandbox.reject(made.campaign, [messages[0]["message_id"]])

    answer = await made.initiate("AB")

    assert answer.status == 400
    assert answer.message == "Bad Request: 1 messages of the current run are not 'Published'"
    assert await api.sandbox.approve(made.campaign) == "Published"
    assert (await made.initiate("AB")).status == 200


async def test_the_group_must_be_of_the_same_workspace(api: Any) -> None:
    made = await scene(api)
    elsewhere = await api.sandbox.create_workspace("elsewhere")
    made.groups["there"] = await api.sandbox.create_customer_group("g", workspace_id=elsewhere)
    made.groups["nowhere"] = "unknown"

    assert "another workspace" in (await made.initiate("there")).message
    assert "no such customer group" in (await made.initiate("nowhere")).message
    assert len(await made.history()) == 1


async def test_a_missing_group_is_a_missing_field(api: Any) -> None:
    made = await scene(api)

    answer = await api.call("POST", INITIATE, campaign_id=made.campaign)

    assert (answer.status, answer.message) == (401, "Missing Fields: new_customer_group_id")


async def test_a_run_that_was_not_has_no_messages(api: Any) -> None:
    made = await scene(api)

    for number in (2, 10**30):
        assert (await api.call("POST", MESSAGES, campaign_id=made.campaign, run_number=number)).status == 400


async def test_history_knows_groups_by_their_newest_name_and_after_they_are_gone(slow: Scene) -> None:
    body = {"workspace_id": slow.api.sandbox.workspace_id, "customer_group_id": slow.groups["ABC"]}
    await slow.api.ok("PATCH", "/v1/cg", **body, group_name="renamed")
    assert [run["customer_group_name"] for run in await slow.history()] == ["renamed"]
    await slow.initiate("AB")
    await slow.api.ok("DELETE", "/v1/cg", **body)

    assert [run["customer_group_name"] for run in await slow.history()] == ["group AB", "group ABC"]


async def test_approving_waits_for_the_messages_of_a_rerun(api: Any) -> None:
    made = await scene(api)
    await made.initiate("BCD")

    assert await api.sandbox.approve(made.campaign) == "Ready to publish"
    assert set(await made.messages()) == {"B", "C", "D"}


# --- states while the work is under way, and beyond the three --------------------------------------------------------


async def states(scene: Scene) -> tuple[str, str]:
    """What the history says of the current run, and what the list of campaigns says."""
    (workspace,) = await scene.api.ok("POST", "/v1/campaign/all")
    (campaign,) = workspace["campaigns"]
    return (await scene.history())[0]["campaign_status"], campaign["campaign_status"]


@pytest.mark.parametrize(("cities", "then"), [("BCD", "Ready for review"), ("AB", "Ready to publish")])
async def test_a_rerun_may_show_that_it_is_under_way(start: Any, cities: str, then: str) -> None:
    slow = await scene(await start(job_time=3_600, state_while_running="Generating"))

    assert (await slow.initiate(cities)).json["campaign_status"] == "Generating"
    assert await states(slow) == ("Generating", "Generating")
    assert [run["campaign_status"] for run in await slow.history()] == ["Generating", "Published"]
    answer = await slow.api.call("POST", PUBLISH, campaign_id=slow.campaign)
    assert (answer.status, answer.message) == (400, "Bad Request: the campaign is 'Generating', not 'Ready to publish'")
    answer = await slow.initiate("ABC")
    assert (answer.status, answer.message) == (400, "Bad Request: the campaign is 'Generating', not 'Published'")

    await slow.api.sandbox.drain(hurry=True)
    assert await states(slow) == (then, then)
    assert {city for city, (_, archived) in (await slow.messages()).items() if not archived} == set(cities)
    if then == "Ready for review":
        assert await slow.api.sandbox.approve(slow.campaign) == "Ready to publish"
    await slow.publish()
    assert await states(slow) == ("Published", "Published")


async def test_what_is_under_way_goes_on_after_a_restart(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    first = await scene(await start(db=file, job_time=3_600, state_while_running="Generating"))
    await first.initiate("BCD")
    await first.api.sandbox.aclose()

    second = Scene(await start(db=file), first.campaign, first.groups)
    assert await states(second) == ("Generating", "Generating")
    await second.api.sandbox.drain(hurry=True)
    assert await states(second) == ("Ready for review", "Ready for review")
    assert (await second.messages())["D"] == ("Pending", False)


async def test_a_job_that_an_older_sandbox_has_queued_still_runs(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    first = await scene(await start(db=file, job_time=3_600))
    await first.initiate("BCD")
    store = first.api.sandbox._now.store
    await store.write(lambda db: db.run("UPDATE jobs SET payload = json_remove(payload, '$.ready')"))
    await first.api.sandbox.aclose()

    second = Scene(await start(db=file), first.campaign, first.groups)
    await second.api.sandbox.drain(hurry=True)
    assert await states(second) == ("Ready for review", "Ready for review")
    assert set(await second.messages()) == set("BCD")


@pytest.mark.parametrize("running", [None, "Generating"])
async def test_a_campaign_can_be_put_in_any_state(start: Any, tmp_path: Path, running: str | None) -> None:
    file = tmp_path / "sandbox.db"
    slow = await scene(await start(db=file, job_time=3_600, state_while_running=running))
    await slow.initiate("BCD")

    await slow.api.sandbox.set_campaign_state(slow.campaign, "Failed")
    await slow.api.sandbox.drain(hurry=True)

    assert await states(slow) == ("Failed", "Failed")
    assert "D" not in await slow.messages()
    assert (await slow.api.call("POST", PUBLISH, campaign_id=slow.campaign)).status == 400
    assert (await slow.initiate("ABC")).status == 400
    await slow.api.sandbox.aclose()
    later = Scene(await start(db=file), slow.campaign, slow.groups)
    await later.api.sandbox.drain()
    assert await states(later) == ("Failed", "Failed")

    await later.api.sandbox.set_campaign_state(later.campaign, "Ready to publish")
    await later.publish()
    assert await states(later) == ("Published", "Published")


async def test_a_publication_can_fail(start: Any) -> None:
    slow = await scene(await start(job_time=3_600), status="Ready to publish")
    await slow.api.ok("POST", PUBLISH, campaign_id=slow.campaign)
    waiting = asyncio.create_task(slow.api.sandbox.drain())
    await asyncio.sleep(0.1)  # until nothing but the job's time would wake it
    assert not waiting.done()

    await slow.api.sandbox.set_campaign_state(slow.campaign, "Failed")

    await asyncio.wait_for(waiting, 30)  # nothing is queued any more
    assert await states(slow) == ("Failed", "Failed")
    await slow.api.sandbox.set_campaign_state(slow.campaign, "Ready to publish")
    await slow.publish()
    assert await states(slow) == ("Published", "Published")


async def test_the_queue_of_other_campaigns_is_left_alone(start: Any) -> None:
    slow = await scene(await start(job_time=3_600))
    other = await slow.api.sandbox.create_campaign("other", slow.groups["ABC"], segment_by={"city": None})
    await slow.api.ok("POST", INITIATE, campaign_id=other, new_customer_group_id=slow.groups["BCD"])
    await slow.api.sandbox.set_campaign_state(slow.campaign, "Failed")

    await slow.api.sandbox.drain(hurry=True)
    found = await slow.api.ok("POST", MESSAGES, campaign_id=other)
    assert {message["segment"]["city"] for message in found} == set("BCD")


async def test_states_that_cannot_be_are_refused(slow: Scene) -> None:
    sandbox = slow.api.sandbox
    with pytest.raises(SandboxError, match="There is no campaign unknown"):
        await sandbox.set_campaign_state("unknown", "Failed")
    with pytest.raises(ValueError, match="state must not be empty"):
        await sandbox.set_campaign_state(slow.campaign, " ")
    with pytest.raises(TypeError, match="state must be a text, not NoneType"):
        await sandbox.set_campaign_state(slow.campaign, None)
    assert await states(slow) == ("Published", "Published")
