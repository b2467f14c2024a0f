from __future__ import annotations

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nudgescribe_async.sandbox import SandboxError

ALL = "/v1/campaign/all"
PUBLISH = "/v1/messages/publish"
PAGES = "/v1/messages/pages"
FETCH = "/v1/messages/fetch"
SEGMENT_BY = {"n": [2, 5]}


async def campaign(api: Any, size: int = 6, **options: Any) -> str:
    group = await api.group([{"external_id": str(n), "n": n} for n in range(size)], external_id="string", n="number")
    options = {"segment_by": SEGMENT_BY, **options}
    return str(await api.sandbox.create_campaign("Spring, early", group, **options))


async def status(api: Any, campaign_id: str) -> str:
    (workspace,) = await api.ok("POST", ALL)
    (found,) = [found for found in workspace["campaigns"] if found["campaign_id"] == campaign_id]
    return str(found["campaign_status"])


async def messages(api: Any, campaign_id: str, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await api.ok("POST", "/v1/campaign/rerun/messages", campaign_id=campaign_id, **more)
    return found


async def rows(api: Any, campaign_id: str, page: int = 1, **more: Any) -> list[dict[str, str]]:
    answer = await api.call("POST", FETCH, campaign_id=campaign_id, page=page, **more)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))


async def test_a_campaign_goes_from_review_to_publication(api: Any) -> None:
    made = await campaign(api, status="Ready for review")

    assert await status(api, made) == "Ready for review"
    found = await messages(api, made)
    assert [message["segment"] for message in found] == [
        {"n": "below 2"},
        {"n": "2 to below 5"},
        {"n": "5 and above"},
    ]
    assert {(message["review_status"], message["is_archived"]) for message in found} == {("Pending", False)}
    assert await api.sandbox.approve(made, [found[0]["message_id"]]) == "Ready for review"
    assert await api.sandbox.approve(made) == "Ready to publish"
    assert await api.sandbox.reject(made, [found[1]["message_id"]]) == "Ready for review"
    assert [m["review_status"] for m in await messages(api, made)] == ["Approved", "Rejected", "Approved"]
    assert (await api.call("POST", PUBLISH, campaign_id=made)).status == 400
    assert await api.sandbox.approve(made) == "Ready to publish"
    assert (await api.ok("POST", PAGES, campaign_id=made))["pages"] == 0
    assert (await api.ok("POST", PUBLISH, campaign_id=made))["job_uid"]
    await api.sandbox.drain()
    assert await status(api, made) == "Published"
    assert {message["review_status"] for message in await messages(api, made)} == {"Published"}
    assert (await api.ok("POST", PAGES, campaign_id=made))["pages"] == 1


async def test_only_what_is_ready_is_published_and_only_once(start: Any) -> None:
    api = await start(job_time=3_600)
    made = await campaign(api, status="Ready to publish")
    await api.ok("POST", PUBLISH, campaign_id=made)

    answer = await api.call("POST", PUBLISH, campaign_id=made)
    assert (answer.status, answer.message) == (400, "Bad Request: the campaign is being published already")
    assert await status(api, made) == "Ready to publish"
    await api.sandbox.drain(hurry=True)
    answer = await api.call("POST", PUBLISH, campaign_id=made)
    assert answer.message == "Bad Request: the campaign is 'Published', not 'Ready to publish'"
    assert api.sandbox.effects["messages.publish"] == 1


async def test_a_quota_runs_out_for_each_account(start: Any) -> None:
    api = await start(publish_quota=1)
    first = await campaign(api, status="Ready to publish")
    group = await api.sandbox.create_customer_group("other")
    second = await api.sandbox.create_campaign("other", group, status="Ready to publish")

    await api.ok("POST", PUBLISH, campaign_id=first)
    answer = await api.call("POST", PUBLISH, campaign_id=second)

    assert (answer.status, answer.json["code"]) == (402, "quota_exceeded")
    assert await status(api, second) == "Ready to publish"


async def test_the_files_hold_every_customer_once(start: Any) -> None:
    api = await start(rows_per_file=4)
    made = await campaign(api, size=10)

    assert (await api.ok("POST", PAGES, campaign_id=made))["pages"] == 3
    found = [row for page in (1, 2, 3) for row in await rows(api, made, page)]
    assert list(found[0]) == ["customer_id", "external_id", "segment", "message"]
    assert [row["external_id"] for row in found] == [str(n) for n in range(10)]
    assert [row["segment"] for row in found[:3]] == ["n: below 2", "n: below 2", "n: 2 to below 5"]
    assert len({row["customer_id"] for row in found}) == 10


async def test_the_texts_need_quoting(api: Any) -> None:
    made = await campaign(api)

    texts = [row["message"] for row in await rows(api, made)]

    assert all(f"customer {n}, " in text for n, text in enumerate(texts))
    assert any('"' in text for text in texts)
    assert any("\n" in text for text in texts)


async def test_a_template_is_filled_in_for_each_customer(api: Any) -> None:
    made = await campaign(api, size=1, template="{segment}: {n}, {external_id}, {unknown}.")

    assert (await messages(api, made))[0]["content"] == "n: below 2: {n}, {external_id}, {unknown}."
    assert (await rows(api, made))[0]["message"] == "n: below 2: 0, 0, ."


async def test_texts_make_segments_of_their_own_and_so_does_nothing(api: Any) -> None:
    customers = [{"city": "Bonn"}, {"city": "Rome"}, {}, {"city": "Bonn"}]
    group = await api.group(customers, city="string")
    made = await api.sandbox.create_campaign("c", group, segment_by={"city": None})
    everybody = await api.sandbox.create_campaign("c", group)

    assert [m["segment"]["city"] for m in await messages(api, made)] == ["Bonn", "Rome", "none"]
    assert [m["segment"] for m in await messages(api, everybody)] == [{}]
    assert [row["segment"] for row in await rows(api, everybody)] == ["everyone"] * 4


@pytest.mark.parametrize("segment_by", [{"nope": None}, {"city": [1, 2]}, {"n": []}])
async def test_a_way_to_divide_that_does_not_fit_is_refused(api: Any, segment_by: Any) -> None:
    group = await api.group(city="string", n="number")

    with pytest.raises(SandboxError, match="segment_by"):
        await api.sandbox.create_campaign("c", group, segment_by=segment_by)
    assert await api.ok("POST", ALL) == []


async def test_a_campaign_of_an_empty_group_has_no_files(api: Any) -> None:
    made = await campaign(api, size=0)

    assert await messages(api, made) == []
    assert (await api.ok("POST", PAGES, campaign_id=made))["pages"] == 0


async def test_customers_who_came_late_have_no_message(api: Any) -> None:
    made = await campaign(api, size=2, status="Ready to publish")
    (workspace,) = await api.ok("POST", ALL)
    group = workspace["campaigns"][0]["customer_group_id"]
    await api.ok(
        "POST",
        "/v1/customer/check",
        workspace_id=api.sandbox.workspace_id,
        customer_group_id=group,
        customers=[{"n": 1}, {"n": 9}],
    )
    await api.ok("POST", PUBLISH, campaign_id=made)
    await api.sandbox.drain()

    assert len(await rows(api, made)) == 3


async def test_json_is_cut_at_1000_rows_without_notice(api: Any) -> None:
    made = await campaign(api, size=1_200)

    found = await api.ok("POST", FETCH, campaign_id=made, page=1, format="json")
    assert found == (await rows(api, made))[:1_000]
    assert len(await rows(api, made)) == 1_200


async def test_csv_is_the_default_format(api: Any) -> None:
    made = await campaign(api)
    body = {"campaign_id": made, "page": 1}

    assert (await api.call("POST", FETCH, **body)).body == (await api.call("POST", FETCH, **body, format="csv")).body


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"page": 2}, 400),
        ({"page": 10**30}, 400),
        ({"page": 0}, 400),
        ({"page": 1, "run_number": 2}, 400),
        ({"page": 1, "run_number": 10**30}, 400),
        ({"page": 1, "run_number": 0}, 400),
        ({"page": 1, "format": "xml"}, 400),
        ({"page": 1, "run_number": None}, 400),
        ({}, 401),
        ({"page": 1, "run_number": 1}, 200),
        ({"page": 1, "run_number": 1, "format": "url"}, 200),
    ],
)
async def test_what_can_be_fetched(api: Any, more: dict[str, Any], expected: int) -> None:
    made = await campaign(api)

    assert (await api.call("POST", FETCH, campaign_id=made, **more)).status == expected


async def test_nothing_can_be_fetched_before_publication(api: Any) -> None:
    made = await campaign(api, status="Ready to publish")

    assert (await api.call("POST", FETCH, campaign_id=made, page=1)).status == 400


async def test_campaigns_are_grouped_by_workspace(api: Any) -> None:
    elsewhere = await api.sandbox.create_workspace("Elsewhere")
    await api.sandbox.create_workspace("Empty")
    there = await api.sandbox.create_customer_group("g", workspace_id=elsewhere)
    second = await api.sandbox.create_campaign("there", there)
    first = await campaign(api)

    listed = await api.ok("POST", ALL)

    assert [workspace["workspace_name"] for workspace in listed] == ["Default workspace", "Elsewhere"]
    assert [workspace["campaigns"][0]["campaign_id"] for workspace in listed] == [first, second]
    assert listed[0]["campaigns"][0]["run_number"] == 1
    assert listed[0]["campaigns"][0]["campaign_name"] == "Spring, early"


async def test_the_window_is_on_the_publication_and_includes_its_ends(api: Any) -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    group = await api.group()
    for days in range(3):
        await api.sandbox.create_campaign(f"c{days}", group, published_at=moment + timedelta(days=days))
    await api.sandbox.create_campaign("unpublished", group, status="Ready to publish")

    async def names(**window: str) -> list[str]:
        listed = await api.ok("POST", ALL, **window)
        return [found["campaign_name"] for workspace in listed for found in workspace["campaigns"]]

    assert await names() == ["c0", "c1", "c2", "unpublished"]
    assert await names(published_from="2026-03-02T12:00:00.000Z") == ["c1", "c2"]
    assert await names(published_from="2026-03-02T12:00:00.001Z") == ["c2"]
    assert await names(published_to="2026-03-02T13:00:00+01:00") == ["c0", "c1"]
    assert await names(published_from="2026-03-02", published_to="2026-03-03") == ["c1"]
    assert await names(published_from="2027-01-01T00:00:00Z") == []


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0001-01-01T00:00:00+23:59"])
async def test_a_window_must_be_times(api: Any, text: str) -> None:
    assert (await api.call("POST", ALL, published_from=text)).status == 400


async def test_code_is_told_what_it_did_wrong(api: Any) -> None:
    made = await campaign(api)
    sandbox = api.sandbox

    with pytest.raises(SandboxError, match="There is no campaign unknown"):
        await sandbox.approve("unknown")
    with pytest.raises(SandboxError, match="There is no customer group unknown"):
        await sandbox.create_campaign("c", "unknown")
    with pytest.raises(SandboxError, match="There is no workspace unknown"):
        await sandbox.create_customer_group("g", workspace_id="unknown")
    with pytest.raises(SandboxError, match="There is no account unknown"):
        await sandbox.create_workspace("w", account_id="unknown")
    with pytest.raises(SandboxError, match="has no message unknown"):
        await sandbox.approve(made, ["unknown"])
    with pytest.raises(SandboxError, match="name the messages"):
        await sandbox.reject(made)
    with pytest.raises(ValueError, match="status must be one of"):
        await sandbox.create_campaign("c", "unknown", status="Draft")
    with pytest.raises(SandboxError, match="field_type must be one of"):
        await sandbox.create_profile_field("f", "text")
    with pytest.raises(SandboxError, match="no example data"):
        _ = sandbox.example


async def test_a_campaign_on_its_way_out_is_not_reviewed(start: Any) -> None:
    api = await start(job_time=3_600)
    made = await campaign(api, status="Ready to publish")
    await api.ok("POST", PUBLISH, campaign_id=made)

    review = asyncio.create_task(api.sandbox.reject(made))
    await api.ok("POST", PAGES, campaign_id=made)
    assert not review.done()
    await api.sandbox.drain(hurry=True)
    with pytest.raises(SandboxError, match="name the messages"):
        await review


async def test_a_publication_that_begins_during_a_review_wins(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api = await start(job_time=3_600)
    made = await campaign(api, status="Ready to publish")

    async def publish_instead(**_: object) -> None:
        await api.ok("POST", PUBLISH, campaign_id=made)

    monkeypatch.setattr(api.sandbox, "drain", publish_instead)
    with pytest.raises(SandboxError, match="is being published"):
        await api.sandbox.reject(made)
