"""``ns.customers.export`` against the sandbox, over a socket."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
from collections.abc import AsyncIterator, Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bulk.export_source import content, ids, left, read_csv, read_ndjson
from helpers import ONCE

from nudgescribe_async import ClientClosedError, Nudgescribe, NudgescribeError, PageDriftError, PageError, RetryPolicy
from nudgescribe_async.errors import ExportError, ProfileError
from nudgescribe_async.profiles import AesGcmProfiles
from nudgescribe_async.sandbox import Sandbox, ShiftPages, Status, sample_csv, sample_customers
from nudgescribe_async.sandbox.examples import SAMPLE_FIELDS, create_sample_fields

NAMES = [name for name, _, _ in SAMPLE_FIELDS]


@pytest.fixture
async def group(sandbox: Sandbox) -> str:
    """The first 500 of the real customers; 100 on a page."""
    await create_sample_fields(sandbox)
    return await sandbox.create_customer_group("Some", customers=sample_customers()[:500])


@pytest.fixture
async def ns(sandbox: Sandbox) -> AsyncIterator[Nudgescribe]:
    async with client(sandbox) as running:
        yield running


def client(sandbox: Sandbox, **options: Any) -> Nudgescribe:
    decryptor = AesGcmProfiles(sandbox.profile_key)
    return Nudgescribe(sandbox.credentials, base_url=sandbox.url, profile_decryptor=decryptor, **options)


def typed(row: dict[str, str]) -> dict[str, Any]:
    """A row of the data set with the types of its fields."""
    kinds: dict[str, Callable[[str], Any]] = {
        "Date": date.fromisoformat,
        "number": float,
        "currency": Decimal,
        "string": str,
    }
    return {name: kinds[kind](row[name]) for name, kind, _ in SAMPLE_FIELDS}


@pytest.mark.slow
async def test_the_real_customers_go_up_come_back_and_are_equal_in_every_format(tmp_path: Path) -> None:
    from pyarrow import parquet

    sent = sample_customers()
    assert len(sent) == 23_570
    async with Sandbox(page_size=1_000, queue_above=10**6) as sandbox, client(sandbox) as ns:
        await create_sample_fields(sandbox)
        group = (await ns.customer_groups.create(sandbox.workspace_id, "Everyone")).customer_group_id
        receipt = await ns.customers.check(sandbox.workspace_id, group, file=sample_csv())
        assert receipt.accepted_count == len(sent)
        came = [customer async for customer in ns.customers.iter(group)]
        reports = [
            await ns.customers.export(group, tmp_path / "x.ndjson"),
            await ns.customers.export(group, tmp_path / "x.csv.gz"),
            await ns.customers.export(group, tmp_path / "x.parquet"),
        ]
    assert [report.rows for report in reports] == [len(sent)] * 3
    assert [report.pages for report in reports] == [24] * 3
    assert [report.drift for report in reports] == [()] * 3

    lines = read_ndjson((tmp_path / "x.ndjson").read_bytes())
    assert [line["extended_profile"] for line in lines] == [customer.profile() for customer in came]
    assert [{name: str(line["extended_profile"][name]) for name in NAMES} for line in lines] == sent
    assert [line["customer_id"] for line in lines] == [customer.customer_id for customer in came]

    rows = read_csv(gzip.decompress((tmp_path / "x.csv.gz").read_bytes()))
    assert [{name: row[name] for name in NAMES} for row in rows] == sent
    assert [row["customer_id"] for row in rows] == [customer.customer_id for customer in came]

    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.select(NAMES).to_pylist() == [typed(row) for row in sent]
    assert table.column("customer_id").to_pylist() == [customer.customer_id for customer in came]
    assert table.column("created_at").to_pylist() == [customer.created_at for customer in came]
    assert table.column("extra").null_count == len(sent)


async def test_a_csv_goes_up_again_as_it_came_down(
    tmp_path: Path, sandbox: Sandbox, group: str, ns: Nudgescribe
) -> None:
    await ns.customers.export(group, tmp_path / "x.csv")
    rows = read_csv((tmp_path / "x.csv").read_bytes())
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, NAMES, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    other = (await ns.customer_groups.create(sandbox.workspace_id, "Other")).customer_group_id
    receipt = await ns.customers.check(sandbox.workspace_id, other, file=text.getvalue().encode())
    assert (receipt.accepted_count, receipt.rejected_count) == (500, 0)


async def test_without_a_decryptor_profiles_are_written_as_they_were_sent(
    tmp_path: Path, sandbox: Sandbox, group: str
) -> None:
    from pyarrow import parquet

    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        came = [customer async for customer in ns.customers.iter(group)]
        for name in ("x.ndjson", "x.csv", "x.parquet"):
            report = await ns.customers.export(group, tmp_path / name)
            assert "purchases" not in report.columns
    assert sandbox.count("profile_fields.list") == 0
    envelopes = [customer.extended_profile for customer in came]
    assert [line["extended_profile"] for line in read_ndjson((tmp_path / "x.ndjson").read_bytes())] == envelopes
    rows = read_csv((tmp_path / "x.csv").read_bytes())
    assert [json.loads(row["extended_profile"]) for row in rows] == envelopes
    column = parquet.read_table(tmp_path / "x.parquet").column("extended_profile").to_pylist()
    assert [json.loads(text) for text in column] == envelopes


async def test_a_field_called_like_a_documented_one_gets_another_name(
    tmp_path: Path, sandbox: Sandbox, ns: Nudgescribe
) -> None:
    for name in ("external_id", "created_by"):
        await sandbox.create_profile_field(name, "string")
    group = await sandbox.create_customer_group("x", customers=[{"external_id": "1", "created_by": "me"}])
    await ns.customers.export(group, tmp_path / "x.csv")
    (row,) = read_csv((tmp_path / "x.csv").read_bytes())
    assert row["profile.created_by"] == "me"
    assert row["created_by"] != "me"


async def test_an_empty_group_is_a_file_without_rows(tmp_path: Path, sandbox: Sandbox, ns: Nudgescribe) -> None:
    await create_sample_fields(sandbox)
    group = await sandbox.create_customer_group("Nobody")
    report = await ns.customers.export(group, tmp_path / "x.csv", workspace_id=sandbox.workspace_id)
    assert (report.rows, report.pages) == (0, 0)
    assert (tmp_path / "x.csv").read_text().strip().split(",") == [*report.columns]
    assert set(NAMES) < set(report.columns)


async def test_one_customer(tmp_path: Path, sandbox: Sandbox, ns: Nudgescribe) -> None:
    await create_sample_fields(sandbox)
    group = await sandbox.create_customer_group("One", customers=sample_customers()[:1])
    report = await ns.customers.export(group, tmp_path / "x.parquet")
    assert (report.rows, report.pages, len(ids(tmp_path / "x.parquet"))) == (1, 1, 1)


async def test_a_group_that_there_is_not_leaves_nothing(tmp_path: Path, group: str, ns: Nudgescribe) -> None:
    with pytest.raises(NudgescribeError):
        await ns.customers.export("none", tmp_path / "x.csv")
    assert left(tmp_path) == []
    with pytest.raises(ValueError, match="customer_group_id"):
        await ns.customers.export("", tmp_path / "x.csv")
    with pytest.raises(ValueError, match="concurrency"):
        await ns.customers.export(group, tmp_path / "x.csv", concurrency=0)
    with pytest.raises(ValueError, match="consistency"):
        await ns.customers.export(group, tmp_path / "x.csv", consistency="maybe")  # type: ignore[arg-type]
    assert left(tmp_path) == []


async def test_a_page_that_fails_for_good_and_then_does_not(tmp_path: Path, sandbox: Sandbox, group: str) -> None:
    fault = sandbox.inject(Status(500), operation="customers.list", skip=2, times=None)
    async with client(sandbox, retry=ONCE) as ns:
        with pytest.raises(PageError, match="the same call goes on"):
            await ns.customers.export(group, tmp_path / "x.csv", concurrency=1)
        fault.remove()
        report = await ns.customers.export(group, tmp_path / "x.csv")
        expected = [customer.customer_id async for customer in ns.customers.iter(group)]
    assert (report.resumed, report.rows) == (True, 500)
    assert ids(tmp_path / "x.csv") == expected


def documented(name: str) -> Any:
    """A function of the guide."""
    guide = Path(__file__).parents[2] / "docs" / "export.md"
    (block,) = (block for block in guide.read_text().split("```python\n")[1:] if f"def {name}(" in block)
    space: dict[str, Any] = {}
    exec(block.partition("```")[0], space)
    return space[name]


async def test_the_loop_of_the_guide_gets_through_an_outage_at_the_start_and_one_in_the_middle(
    tmp_path: Path, sandbox: Sandbox, group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with client(sandbox, retry=ONCE) as ns:
        for name, faults in {
            "start.csv": [("customers.count_pages", 0, 2), ("profile_fields.list", 0, 1)],
            "middle.csv": [("customers.list", 2, 3)],
        }.items():
            for operation, skip, times in faults:
                sandbox.inject(Status(503), operation=operation, skip=skip, times=times)
            report = await documented("patient")(ns, group, str(tmp_path / name), pause=0)
            assert (report.rows, len(set(ids(tmp_path / name)))) == (500, 500)
            printed = capsys.readouterr().out.splitlines()
            assert printed
            assert len(printed) == 3 or name != "start.csv"
            assert all("customers.export" in line for line in printed)


async def test_the_loop_of_the_guide_does_not_repeat_what_cannot_help(
    tmp_path: Path, sandbox: Sandbox, group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with client(sandbox, retry=ONCE) as ns:
        with pytest.raises(NudgescribeError, match=r"customers\.export, and nothing was written"):
            await documented("patient")(ns, "none", str(tmp_path / "x.csv"), pause=0)
        sandbox.inject(Status(400), operation="customers.list", times=None)
        with pytest.raises(PageError):
            await documented("patient")(ns, group, str(tmp_path / "x.csv"), pause=0)
    assert capsys.readouterr().out == ""


async def test_passing_trouble_is_not_even_noticed(tmp_path: Path, sandbox: Sandbox, group: str) -> None:
    sandbox.inject(Status(503), operation="customers.list", times=3)
    async with client(sandbox, retry=RetryPolicy(attempts=5, base=0.001)) as ns:
        report = await ns.customers.export(group, tmp_path / "x.csv")
    assert (report.resumed, report.rows) == (False, 500)


@pytest.mark.parametrize("consistency", ["warn", "dedupe"])
async def test_pages_that_shift_are_reported_or_put_right(
    tmp_path: Path, sandbox: Sandbox, group: str, ns: Nudgescribe, consistency: Any
) -> None:
    sandbox.inject(ShiftPages(by=-5), operation="customers.list", skip=3)
    report = await ns.customers.export(group, tmp_path / "x.csv", concurrency=1, consistency=consistency)
    found = ids(tmp_path / "x.csv")
    assert report.drift
    assert report.rows == len(found)
    assert (len(found) > len(set(found))) == (consistency == "warn")
    assert report.left_out == (0 if consistency == "warn" else 5)
    assert report.again == 0
    manifest = json.loads((tmp_path / "x.csv.manifest.json").read_bytes())
    assert manifest["drift"] == list(report.drift)


async def test_pages_that_shift_end_a_strict_export(
    tmp_path: Path, sandbox: Sandbox, group: str, ns: Nudgescribe
) -> None:
    sandbox.inject(ShiftPages(by=-5), operation="customers.list", skip=3)
    with pytest.raises(PageDriftError):
        await ns.customers.export(group, tmp_path / "x.csv", concurrency=1, consistency="strict")
    assert not (tmp_path / "x.csv").exists()
    with pytest.raises(ExportError, match="not to be trusted"):
        await ns.customers.export(group, tmp_path / "x.csv", consistency="strict")
    sandbox.clear_faults()
    report = await ns.customers.export(group, tmp_path / "x.csv", consistency="strict", restart=True)
    assert (report.rows, report.drift) == (500, ())


async def test_a_client_that_is_closed_ends_the_export_and_another_goes_on(
    tmp_path: Path, sandbox: Sandbox, group: str
) -> None:
    sandbox.inject(Status(503, retry_after=60), operation="customers.list", skip=3, times=None)
    reached = asyncio.Event()
    async with client(sandbox) as ns:
        running = asyncio.create_task(
            ns.customers.export(group, tmp_path / "x.csv", concurrency=1, on_progress=lambda _: reached.set())
        )
        await reached.wait()
        await ns.aclose(grace=0)
        with pytest.raises((ClientClosedError, PageError)):
            await running
    sandbox.clear_faults()
    async with client(sandbox) as ns:
        report = await ns.customers.export(group, tmp_path / "x.csv")
    assert (report.resumed, report.rows) == (True, 500)
    assert len(set(ids(tmp_path / "x.csv"))) == 500


async def test_a_wrong_key_ends_the_export_and_tells_nothing_of_the_profile(
    tmp_path: Path, sandbox: Sandbox, group: str
) -> None:
    decryptor = AesGcmProfiles(bytes(32))
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, profile_decryptor=decryptor) as ns:
        with pytest.raises(ProfileError):
            await ns.customers.export(group, tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


async def test_another_service_does_not_continue_it(tmp_path: Path, sandbox: Sandbox, group: str) -> None:
    fault = sandbox.inject(Status(500), operation="customers.list", skip=2, times=None)
    async with client(sandbox, retry=ONCE) as ns:
        with pytest.raises(PageError):
            await ns.customers.export(group, tmp_path / "x.csv", concurrency=1)
    fault.remove()
    async with Sandbox() as other, client(other) as ns:
        with pytest.raises(ExportError, match="begun with base_url="):
            await ns.customers.export(group, tmp_path / "x.csv")


async def test_no_credential_is_in_what_is_left(tmp_path: Path, sandbox: Sandbox, group: str) -> None:
    sandbox.inject(Status(500), operation="customers.list", skip=2, times=None)
    secrets = [sandbox.credentials.api_key, sandbox.credentials.password, sandbox.credentials.email]
    async with client(sandbox, retry=ONCE) as ns:
        with pytest.raises(PageError):
            await ns.customers.export(group, tmp_path / "x.csv", concurrency=1)
        files = content(tmp_path)
        assert {"checkpoint.json", "x.csv"} <= set(files)
        text = b"".join(files.values()).decode()
        sandbox.clear_faults()
        report = await ns.customers.export(group, tmp_path / "x.csv")
    text += (tmp_path / "x.csv.manifest.json").read_text() + repr(report)
    assert not [secret for secret in secrets if secret in text]
    assert sandbox.profile_key.hex() not in text
