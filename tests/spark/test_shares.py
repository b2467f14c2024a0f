"""What a task reads of its share, and what the driver plans, against the sandbox. Without Spark."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from attrs import evolve

from nudgescribe_async import AesGcmProfiles, ConfigurationError, Nudgescribe, PageDriftError, PageError
from nudgescribe_async.endpoints.models import Campaign, ProfileField, WorkspaceCampaigns
from nudgescribe_async.errors import ResponseDecodeError
from nudgescribe_async.sandbox import BadAnswer, RateLimit, Sandbox, Status
from nudgescribe_async.spark import columns, reading
from nudgescribe_async.spark.columns import EXTRA, Field, Table
from nudgescribe_async.spark.job import Job, Range, Share
from nudgescribe_async.spark.reading import Chunk, chunks, fields_of, plan, runs_with_files

MakeJob = Callable[..., Job]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(page_size=10, rows_per_file=2) as running:
        await running.create_profile_field("external_id", "string")
        await running.create_profile_field("age", "number")
        yield running


@pytest.fixture
def job(sandbox: Sandbox, options_for: Callable[[Sandbox], dict[str, str]]) -> MakeJob:
    def make(**options: str) -> Job:
        return Job.of({**options_for(sandbox), **options})

    return make


async def group_of(sandbox: Sandbox, customers: int) -> str:
    made = [{"external_id": f"C{number}", "age": number} for number in range(customers)]
    return await sandbox.create_customer_group("g", customers=made)


async def items_of(job: Job, share: Share) -> list[Any]:
    return [item async for chunk in chunks(job, share) for item in chunk.items]


async def rows_of(job: Job, share: Share, *wanted: str) -> list[tuple[Any, ...]]:
    fields = await fields_of(job)
    table = Table(fields, wanted, operation="x")
    made = [table.columns(one.items, one.given, attributes=one.attributes) async for one in chunks(job, share)]
    return [row for cells in made for row in zip(*cells, strict=True)]


# --- customers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [1, 4, 50])
async def test_shares_together_have_every_customer_once(sandbox: Sandbox, job: MakeJob, parallelism: int) -> None:
    group = await group_of(sandbox, 95)
    asked = job(customer_group_id=group, parallelism=str(parallelism))
    shares = await plan(asked)
    assert len(shares) == min(parallelism, 10)
    found = [item for share in shares for item in await items_of(asked, share)]
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        assert found == await ns.customers.iter(group).collect()
    assert sandbox.count("auth.authenticate") == 2  # the other one is of this test


async def test_tasks_at_once_log_in_once(sandbox: Sandbox, job: MakeJob) -> None:
    asked = job(customer_group_id=await group_of(sandbox, 95), parallelism="8")
    shares = asked.shares([Range(first=1, last=10, pages=10)])
    await asyncio.gather(*(items_of(asked, share) for share in shares))
    assert sandbox.count("auth.authenticate") == 1


async def test_a_limit_on_requests_holds_for_the_driver_and_the_tasks_together(sandbox: Sandbox, job: MakeJob) -> None:
    limited = sandbox.inject(RateLimit(8, 0.5))
    asked = job(customer_group_id=await group_of(sandbox, 95), parallelism="3", requests_per_second="16")
    shares = await plan(asked)
    found = await asyncio.gather(*(items_of(asked, share) for share in shares))
    assert sum(map(len, found)) == 95
    assert limited.fired == 0
    assert {record.status for record in sandbox.log} == {200}


async def test_pages_are_gathered_into_batches(sandbox: Sandbox, job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROWS", 25)
    asked = job(customer_group_id=await group_of(sandbox, 95), parallelism="1")
    (share,) = await plan(asked)
    made: list[Chunk] = [chunk async for chunk in chunks(asked, share)]
    assert [len(chunk.items) for chunk in made] == [30, 30, 30, 5]
    assert made[1].given == {"page": [4] * 10 + [5] * 10 + [6] * 10}


async def test_a_group_without_pages_is_one_share_without_rows(sandbox: Sandbox, job: MakeJob) -> None:
    asked = job(customer_group_id=await group_of(sandbox, 0))
    (share,) = await plan(asked)
    assert await items_of(asked, share) == []


async def test_pages_that_are_not_asked_for_are_not_planned(sandbox: Sandbox, job: MakeJob) -> None:
    group = await group_of(sandbox, 95)
    (share,) = await plan(job(customer_group_id=group, pages="9-", parallelism="1"))
    assert [(each.first, each.last, each.pages) for each in share.ranges] == [(9, 10, 10)]
    assert await plan(job(customer_group_id=group, pages="11-12")) == []


async def test_reads_that_divide_a_group_without_pages_have_what_came_meanwhile_once(
    sandbox: Sandbox, job: MakeJob
) -> None:
    group = await group_of(sandbox, 0)
    whole, first, rest = (job(customer_group_id=group, pages=pages) for pages in ("1-", "1-5", "6-"))
    planned = [(asked, share) for asked in (whole, first, rest) for share in await plan(asked)]
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        await ns.customers.check(sandbox.workspace_id, group, customers=[{"external_id": "C0"}])
    await sandbox.drain()
    assert [len(await items_of(asked, share)) for asked, share in planned] == [1, 1]
    assert await plan(rest) == []


async def test_a_page_that_cannot_be_had_is_an_error_of_the_task(sandbox: Sandbox, job: MakeJob) -> None:
    asked = job(customer_group_id=await group_of(sandbox, 95), parallelism="2")
    sandbox.inject(Status(404), operation="customers.list", skip=2)
    with pytest.raises(PageError, match=r"Spark tries the task again.*operation customers\.list"):
        await items_of(asked, (await plan(asked))[0])


async def test_a_group_that_grew_is_told(sandbox: Sandbox, job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    group = await group_of(sandbox, 95)
    asked = job(customer_group_id=group, parallelism="2")
    first, second = await plan(asked)
    planned_with_fewer = evolve(first, ranges=tuple(evolve(each, pages=9) for each in first.ranges))
    with caplog.at_level("WARNING"):
        assert len(await items_of(asked, planned_with_fewer)) == 50
    assert "There were 9 pages when the read was planned, and there are 10 now." in caplog.text
    caplog.clear()
    assert len(await items_of(asked, second)) == 45
    assert not caplog.records
    strict = job(customer_group_id=group, consistency="strict")
    with pytest.raises(PageDriftError, match="There were 9 pages when the read was planned") as drifted:
        await items_of(strict, planned_with_fewer)
    assert drifted.value.drift


async def test_a_group_that_shrank_is_told(sandbox: Sandbox, job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    group = await group_of(sandbox, 95)
    beyond = Share(number=1, shares=2, lanes=2, ranges=(Range(first=9, last=200, pages=200),))
    with caplog.at_level("WARNING"):
        assert len(await items_of(job(customer_group_id=group), beyond)) == 15
    assert "There were 200 pages when the read was planned, and there are 10 now." in caplog.text
    with pytest.raises(PageDriftError):
        await items_of(job(customer_group_id=group, consistency="strict"), beyond)


async def test_a_short_page_in_the_middle_is_told(
    sandbox: Sandbox, job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    group = await group_of(sandbox, 95)
    alone = [{"customer_id": "c", "customer_group_id": group, "extended_profile": {}}]
    sandbox.inject(
        BadAnswer(json.dumps(alone).encode(), content_type="application/json"), operation="customers.list", skip=1
    )
    middle = Share(ranges=(Range(first=4, last=5, pages=10),))
    with caplog.at_level("WARNING"):
        assert len(await items_of(job(customer_group_id=group, concurrency="1"), middle)) == 11
    assert "Page 5 has fewer items than others, and is not the last." in caplog.text


# --- messages --------------------------------------------------------------------------------------------------------


async def rerun(sandbox: Sandbox, campaign: str, customers: int, *, publish: bool) -> None:
    group = await group_of(sandbox, customers)
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        await ns.reruns.initiate(campaign, group)
        await sandbox.drain()
        if publish:
            await sandbox.approve(campaign)
            await ns.messages.publish(campaign)
            await sandbox.drain()


async def test_runs(sandbox: Sandbox, job: MakeJob) -> None:
    campaign = await sandbox.create_campaign("c", await group_of(sandbox, 3))
    await rerun(sandbox, campaign, 5, publish=True)
    await rerun(sandbox, campaign, 7, publish=False)

    async def planned(**options: str) -> list[tuple[int | None, int]]:
        (share,) = await plan(job(resource="messages", campaign_id=campaign, parallelism="1", **options))
        return [(each.run_number, each.pages) for each in share.ranges]

    assert await planned() == [(2, 3)]
    assert await planned(run_number="all") == [(1, 2), (2, 3)]
    assert await planned(run_number="1") == [(1, 2)]
    with pytest.raises(ConfigurationError, match=r"Run 3 of campaign .* has no files"):
        await planned(run_number="1,3")
    fresh = await sandbox.create_campaign("d", await group_of(sandbox, 1), status="Ready for review")
    with pytest.raises(ConfigurationError, match=r"No run of campaign .* has files"):
        await plan(job(resource="messages", campaign_id=fresh))
    assert await plan(job(resource="messages", campaign_id=fresh, run_number="all")) == []


async def test_a_run_that_is_being_published_is_left_for_later(sandbox: Sandbox, job: MakeJob) -> None:
    campaign = await sandbox.create_campaign("c", await group_of(sandbox, 3))
    await sandbox.set_campaign_state(campaign, "Ready to publish")  # some of its files are there
    asked = job(resource="messages", campaign_id=campaign)
    async with asked.connection.new_client() as ns:
        assert await runs_with_files(ns, asked, campaign) == []
        await sandbox.set_campaign_state(campaign, "Published")
        assert [each.run_number for each in await runs_with_files(ns, asked, campaign)] == [1]
        assert await runs_with_files(ns, asked, campaign, after=1) == []


async def test_rows_of_files_with_their_place(sandbox: Sandbox, job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await sandbox.create_campaign("c", await group_of(sandbox, 3), template="Dear {external_id}")
    asked = job(resource="messages", campaign_id=campaign, message_columns="message,not_there", parallelism="1")
    (share,) = await plan(asked)
    monkeypatch.setattr(reading, "ROWS", 1)
    rows = await rows_of(asked, share, "run_number", "page", "position", "message", "not_there", "campaign_id")
    assert rows == [
        (1, 1, 1, "Dear C0", None, campaign),
        (1, 1, 2, "Dear C1", None, campaign),
        (1, 2, 1, "Dear C2", None, campaign),
    ]
    ((extra,), *_) = await rows_of(asked, share, EXTRA)
    assert '"external_id":"C0"' in extra
    assert "message" not in extra
    with pytest.raises(ConfigurationError, match="names 'page', which is a column anyway"):
        await fields_of(job(resource="messages", campaign_id=campaign, message_columns="page"))


# --- columns ---------------------------------------------------------------------------------------------------------


async def test_typed_profiles(sandbox: Sandbox, job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("keys_of_the_bank")
    made.decryptor = lambda: AesGcmProfiles(sandbox.profile_key)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keys_of_the_bank", made)
    await sandbox.create_profile_field("since", "Date", field_format="dd/MM/yyyy")
    await sandbox.create_profile_field("balance", "currency", field_format="EUR")
    await sandbox.create_profile_field("page", "string")
    group = await sandbox.create_customer_group(
        "g", customers=[{"external_id": "C1", "age": 7, "since": "31/12/2024", "balance": "1.50", "page": "p"}]
    )
    asked = job(
        customer_group_id=group,
        profile_columns="true",
        workspace_id=sandbox.workspace_id,
        profile_decryptor="keys_of_the_bank:decryptor",
    )
    (share,) = await plan(asked)
    wanted = ("external_id", "age", "since", "balance", "profile.page", "page", EXTRA)
    (row,) = await rows_of(asked, share, *wanted)
    assert row == ("C1", 7.0, date(2024, 12, 31), Decimal("1.50"), "p", 1, None)
    assert "extended_profile" not in {field.name for field in await fields_of(asked)}


class Item:
    """A customer with what does not fit its columns."""

    def __init__(self) -> None:
        self.customer_id = "c"
        self.extra = {"new": True}

    def profile(self) -> dict[str, Any]:
        return {"age": "old", "beyond": 1}


PROFILE = columns.customer_fields(
    [ProfileField(profile_field_id="p", field_name="age", field_type="number", workspace_id="w")]
)


def test_what_does_not_fit_a_column_is_in_extra() -> None:
    fields = [field for field in PROFILE if field.name in {"customer_id", "age", EXTRA}]
    table = Table(fields, ("age", EXTRA), operation="x")
    assert table.columns([Item()], {}, attributes=True) == [
        [None],
        ['{"new":true,"extended_profile":{"age":"old","beyond":1}}'],
    ]
    # Without ``extra``, nothing is made for it.
    assert Table(fields, ("age",), operation="x").columns([Item()], {}, attributes=True) == [[None]]


def test_what_is_never_null_and_cannot_be_held_is_an_error() -> None:
    fields = (Field(name="id", kind="text", needed=True), Field(name="name", kind="text"), columns._EXTRA_FIELD)
    table = Table(fields, ("id", "name", EXTRA), operation="customers.list")
    assert table.columns([{"id": "1", "name": "\ud800"}], {}) == [["1"], [None], ['{"name":"\\ud800"}']]
    with pytest.raises(ResponseDecodeError, match="id of an item cannot be held by Spark"):
        table.columns([{"id": "\ud800"}], {})


def test_numbers_and_moments_beyond_what_spark_holds_are_in_extra() -> None:
    late = datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=2)))
    fields = (
        Field(name="needed", kind="whole", needed=True),
        Field(name="run", kind="whole"),
        Field(name="made", kind="timestamp"),
        columns._EXTRA_FIELD,
    )
    table = Table(fields, [field.name for field in fields], operation="x")
    assert table.columns([{"needed": 2**63 - 1, "run": -(2**63) - 1, "made": late}], {}) == [
        [2**63 - 1],
        [None],
        [None],
        ['{"run":-9223372036854775809,"made":"9999-12-31 23:00:00-02:00"}'],
    ]
    with pytest.raises(ResponseDecodeError, match="needed of an item cannot be held by Spark") as refused:
        table.columns([{"needed": 2**63}], {})
    assert str(2**63) not in str(refused.value)


def test_no_two_columns_differ_in_upper_and_lower_case_alone() -> None:
    names = ["Age", "age", "Customer_ID", "PAGE", "Extra"]
    fields = columns.customer_fields(
        [ProfileField(profile_field_id=name, field_name=name, field_type="string", workspace_id="w") for name in names]
    )
    found = {field.profile_field: field.name for field in fields if field.profile_field is not None}
    assert found == {name: name if name == "Age" else f"profile.{name}" for name in names}
    with pytest.raises(ConfigurationError, match="names 'Message', 'message', which Spark takes for the same"):
        columns.message_fields(["Message", "segment", "message"])
    with pytest.raises(ConfigurationError, match="names 'Page', which is a column anyway"):
        columns.message_fields(["Page"])


async def test_what_has_no_pages(sandbox: Sandbox, job: MakeJob) -> None:
    campaign = await sandbox.create_campaign("c", await group_of(sandbox, 3))
    rows = await rows_of(
        job(resource="campaigns"), Share(), "workspace_id", "campaign_id", "campaign_status", "run_number"
    )
    assert rows == [(sandbox.workspace_id, campaign, "Published", 1)]
    assert await plan(job(resource="campaigns")) == [Share()]
    workspace = {"workspace_id": sandbox.workspace_id}
    ((group, made),) = await rows_of(job(resource="groups", **workspace), Share(), "group_name", "created_at")
    assert group == "g"
    assert isinstance(made, datetime)
    assert made.tzinfo is not None
    fields = await rows_of(
        job(resource="profile_fields", **workspace), Share(), "field_name", "field_type", "is_required"
    )
    assert fields == [("external_id", "string", False), ("age", "number", False)]


def test_what_a_workspace_has_beyond_the_contract_is_kept() -> None:
    campaign = Campaign(campaign_id="c", created_at=datetime(2024, 1, 1, tzinfo=UTC), extra={"a": 1})
    (row,) = columns.campaign_rows([WorkspaceCampaigns(workspace_id="w", campaigns=[campaign], extra={"b": 2})])
    assert row[EXTRA] == {"a": 1, "workspace": {"b": 2}}
    assert row["workspace_id"] == "w"


def test_the_columns_are_those_of_the_contract() -> None:
    kinds = {field.name: (field.kind, field.needed) for field in columns.CUSTOMERS}
    assert kinds["customer_id"] == ("text", True)
    assert kinds["extended_profile"] == ("json", True)
    assert kinds["created_at"] == ("timestamp", False)
    assert {field.name: field.kind for field in columns.PROFILE_FIELDS}["is_required"] == "flag"
    assert {field.name: field.kind for field in columns.CAMPAIGNS}["campaign_status"] == "text"
    with pytest.raises(ConfigurationError, match=r"There is no column 'surname'\. Those that there are: customer_id"):
        columns.chosen(columns.CUSTOMERS, ["page", "surname"])
