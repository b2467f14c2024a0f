"""``messages.download`` against the sandbox: what it leaves, what it asks for, and how it goes on."""

from __future__ import annotations

import asyncio
import csv
import errno
import hashlib
import io
import json
import os
import pickle
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import watch
from message_shop import QUICK, Shop, serve_with_ranges, table

from nudgescribe_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CallOptions,
    ClientClosedError,
    DownloadError,
    Nudgescribe,
    NudgescribeError,
    RateLimitedError,
    RequestNotSentError,
    RetryPolicy,
    ServerError,
)
from nudgescribe_async.bulk.download import DownloadedFile, DownloadReport
from nudgescribe_async.bulk.download.folder import Folder
from nudgescribe_async.events import PageFetched
from nudgescribe_async.sandbox import Sandbox, Status

AWKWARD = 'He said "{n}",\r\nthen; ünd\nagain {n}'


async def campaign_of(sandbox: Sandbox, customers: int, **options: Any) -> str:
    await sandbox.create_profile_field("n", "number")
    group = await sandbox.create_customer_group("group", customers=[{"n": n} for n in range(customers)])
    return await sandbox.create_campaign("campaign", group, **{"template": AWKWARD} | options)


def client(sandbox: Sandbox, **options: Any) -> Nudgescribe:
    return Nudgescribe(sandbox.credentials, base_url=sandbox.url, **{"retry": QUICK} | options)


@pytest.fixture
async def small() -> AsyncIterator[tuple[Sandbox, str]]:
    """Seven files of 20 rows, the last with five."""
    async with Sandbox(rows_per_file=20) as sandbox:
        yield sandbox, await campaign_of(sandbox, 125)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


PAGES = [f"page-0000{number}.csv" for number in range(1, 8)]
WHOLE = [".lock", "manifest.json", *PAGES]


# --- what it leaves ----------------------------------------------------------------------------------------------------


async def test_the_current_run_comes_by_signed_urls_byte_for_byte(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        events = watch(ns)
        report = await ns.messages.download(campaign, tmp_path / "a" / "b")

        assert (report.pages, report.rows, report.run_number, report.current_run) == (7, 125, None, 1)
        assert names(tmp_path / "a" / "b") == WHOLE
        for number, file in enumerate(report.files, start=1):
            content = file.path.read_bytes()
            assert content == (await ns.messages.fetch(campaign, number, "csv")).encode()
            assert (file.page, file.bytes, file.via) == (number, len(content), "url")
            assert file.sha256 == hashlib.sha256(content).hexdigest()
            assert file.rows == len(list(csv.DictReader(io.StringIO(content.decode(), newline=""))))
            assert not file.skipped
            assert not file.resumed
        assert report.bytes == sum(file.bytes for file in report.files)
        assert report.notes == ()
        pages = [event for event in events if isinstance(event, PageFetched)]
        assert sorted(event.page for event in pages) == [1, 2, 3, 4, 5, 6, 7]
        assert {(event.operation, event.total) for event in pages} == {("messages.download", 7)}
        assert [event.done for event in pages] == [1, 2, 3, 4, 5, 6, 7]
        assert pages[-1].items == 125
    assert sandbox.count("storage.download") == 7


async def test_the_manifest_says_all_and_no_url(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        report = await ns.messages.download(campaign, tmp_path)
    text = (tmp_path / "manifest.json").read_text()
    manifest = json.loads(text)

    assert (manifest["complete"], manifest["pages"], manifest["rows"], manifest["bytes"]) == (
        True,
        7,
        125,
        report.bytes,
    )
    assert (manifest["campaign_id"], manifest["run_number"], manifest["current_run"]) == (campaign, None, 1)
    assert manifest["files"]["7"] == {
        "name": "page-00007.csv",
        "bytes": report.files[6].bytes,
        "rows": 5,
        "sha256": report.files[6].sha256,
        "via": "url",
    }
    assert manifest["unfinished"] == {}
    assert "http" not in text
    assert "signature" not in text


async def test_a_run_that_is_named_comes_from_the_service_itself(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        current = await ns.messages.download(campaign, tmp_path / "current")
        group = await sandbox.create_customer_group("other", customers=[{"n": n} for n in range(9)])
        await ns.reruns.initiate(campaign, group)
        await sandbox.drain()
        before = sandbox.count("storage.download")
        report = await ns.messages.download(campaign, tmp_path / "named", 1)

    assert (report.run_number, report.current_run) == (1, None)
    assert {file.via for file in report.files} == {"csv"}
    assert [file.sha256 for file in report.files] == [file.sha256 for file in current.files]
    assert sandbox.count("storage.download") == before


async def test_csv_on_demand_asks_for_no_link(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        report = await ns.messages.download(campaign, tmp_path, via="csv", concurrency=1)

    assert {file.via for file in report.files} == {"csv"}
    assert sandbox.count("storage.download") == 0
    assert {record.body["format"] for record in sandbox.log if record.operation == "messages.fetch"} == {"csv"}


async def test_more_than_a_thousand_awkward_rows_in_a_file(tmp_path: Path) -> None:
    async with Sandbox(rows_per_file=1_700) as sandbox:
        campaign = await campaign_of(sandbox, 2_000)
        async with client(sandbox) as ns:
            report = await ns.messages.download(campaign, tmp_path)

    assert [file.rows for file in report.files] == [1_700, 300]
    texts = [
        row["message"]
        for file in report.files
        for row in csv.DictReader(io.StringIO(file.path.read_bytes().decode(), newline=""))
    ]
    assert texts == [AWKWARD.replace("{n}", str(n)) for n in range(2_000)]


async def test_a_report_can_be_pickled(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        report = await ns.messages.download(campaign, tmp_path)

    assert pickle.loads(pickle.dumps(report)) == report
    assert isinstance(report, DownloadReport)
    assert len(repr(report)) < 500


async def test_a_report_is_a_sentence(tmp_path: Path) -> None:
    async with Sandbox(rows_per_file=2_000) as sandbox:
        campaign = await campaign_of(sandbox, 2_003)
        async with client(sandbox) as ns:
            first = await ns.messages.download(campaign, tmp_path)
            (tmp_path / "page-00001.csv").unlink()
            second = await ns.messages.download(campaign, tmp_path)
            third = await ns.messages.download(campaign, tmp_path)

    size = f"{first.bytes / 1e3:.1f} kB"
    assert 10_000 < first.bytes < 999_000
    assert str(first) == f"2 files of run 1 in {tmp_path}: 2,003 rows, {size}."
    assert str(second) == (
        f"2 files of run 1 in {tmp_path}: 2,003 rows, {size}; 1 was there already. {second.notes[0]}"
    )
    assert str(third) == f"2 files of run 1 in {tmp_path}: 2,003 rows, {size}; 2 were there already."


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (4_200_000, "4.2 MB"),
        (999_960_000, "1.0 GB"),
        (12_345_600_000_000, "12,345.6 GB"),
    ],
)
@pytest.mark.parametrize(
    ("run", "current", "which"), [(3, None, "run 3"), (None, 4, "run 4"), (None, None, "the current run")]
)
def test_sizes_and_runs_in_the_sentence_of_a_report(
    size: int, text: str, run: int | None, current: int | None, which: str
) -> None:
    path = Path("messages")
    file = DownloadedFile(page=1, path=path / "page-00001.csv", rows=1, bytes=size, sha256="", via="csv")
    report = DownloadReport(
        directory=path, campaign_id="c", run_number=run, current_run=current, pages=1, files=(file,), seconds=1.0
    )
    assert str(report) == f"1 file of {which} in messages: 1 row, {text}."


async def test_pages_that_count_from_0(tmp_path: Path) -> None:
    async with Sandbox(rows_per_file=2, first_page=0) as sandbox:
        campaign = await campaign_of(sandbox, 5)
        async with client(sandbox, first_page=0) as ns:
            report = await ns.messages.download(campaign, tmp_path)

    assert [(file.page, file.path.name, file.rows) for file in report.files] == [
        (0, "page-00000.csv", 2),
        (1, "page-00001.csv", 2),
        (2, "page-00002.csv", 1),
    ]


# --- the same call again -----------------------------------------------------------------------------------------------


async def test_the_same_call_again_downloads_nothing(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        first = await ns.messages.download(campaign, tmp_path)
        before, log = contents(tmp_path), len(sandbox.log)
        again = await ns.messages.download(campaign, tmp_path)

    assert [record.operation for record in sandbox.log[log:]] == ["reruns.history", "messages.count_pages"]
    assert all(file.skipped for file in again.files)
    assert [file.sha256 for file in again.files] == [file.sha256 for file in first.files]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("change", ["bytes", "length", "gone"])
async def test_a_file_that_was_changed_comes_again(small: tuple[Sandbox, str], tmp_path: Path, change: str) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        await ns.messages.download(campaign, tmp_path)
        before = contents(tmp_path)
        page = tmp_path / "page-00003.csv"
        if change == "gone":
            page.unlink()
        else:
            page.write_bytes(before[page.name][:-1] + (b"" if change == "length" else b"!"))
        report = await ns.messages.download(campaign, tmp_path)

    assert [file.page for file in report.files if not file.skipped] == [3]
    assert report.notes == ("page-00003.csv was changed or removed since it was downloaded, and came again.",)
    assert contents(tmp_path) == before


async def test_a_failure_leaves_what_is_finished_and_the_same_call_goes_on(
    small: tuple[Sandbox, str], tmp_path: Path
) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        injection = sandbox.inject(Status(410), operation="storage.download", times=None, skip=4)
        with pytest.raises(DownloadError) as caught:
            await ns.messages.download(campaign, tmp_path, concurrency=1)
        assert caught.value.page == 5
        assert "the same call continues" in str(caught.value)
        assert names(tmp_path) == [".lock", "manifest.json", *PAGES[:4]]
        injection.remove()
        report = await ns.messages.download(campaign, tmp_path)

    assert [file.skipped for file in report.files] == [True] * 4 + [False] * 3
    assert names(tmp_path) == WHOLE


async def test_an_error_says_all_and_pickles(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    sandbox.inject(Status(400), operation="messages.fetch", times=None, skip=2)
    async with client(sandbox) as ns:
        with pytest.raises(DownloadError) as caught:
            await ns.messages.download(campaign, tmp_path, via="csv", concurrency=1)
    error = caught.value

    assert isinstance(error.__cause__, BadRequestError)
    assert (error.page, error.operation, error.request_id) == (3, "messages.fetch", error.__cause__.request_id)
    assert error.request_id
    assert len(error.attempts) == 1
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.page, copy.advice) == (str(error), 3, error.advice)


async def test_the_first_error_ends_the_others_and_is_the_only_one(tmp_path: Path) -> None:
    async with Sandbox(rows_per_file=2, latency=0.02) as sandbox:
        campaign = await campaign_of(sandbox, 60)
        async with client(sandbox) as ns:
            sandbox.inject(Status(400), operation="messages.fetch", times=None, skip=5)
            with pytest.raises(DownloadError):
                await ns.messages.download(campaign, tmp_path, via="csv", concurrency=8)
            asked = sandbox.count("messages.fetch")
            await asyncio.sleep(0.1)

        assert sandbox.count("messages.fetch") <= asked + 8
    assert asked < 30


# --- whose directory it is ---------------------------------------------------------------------------------------------


async def test_a_directory_of_something_else_is_refused_and_can_be_overwritten(
    small: tuple[Sandbox, str], tmp_path: Path
) -> None:
    sandbox, campaign = small
    other = await sandbox.create_campaign("other", await sandbox.create_customer_group("g", customers=[{"n": 1}]))
    async with client(sandbox) as ns:
        await ns.messages.download(campaign, tmp_path)
        before, log = contents(tmp_path), len(sandbox.log)
        for arguments in ((other,), (campaign, 1)):
            with pytest.raises(DownloadError, match="overwrite=True") as caught:
                await ns.messages.download(arguments[0], tmp_path, *arguments[1:])
            assert caught.value.page is None
        assert len(sandbox.log) == log, "something was asked for"
        assert contents(tmp_path) == before
        (tmp_path / "notes.txt").write_text("mine")
        report = await ns.messages.download(other, tmp_path, overwrite=True)

    assert report.rows == 1
    assert names(tmp_path) == [".lock", "manifest.json", "notes.txt", "page-00001.csv"]


async def test_overwrite_continues_what_is_of_the_same_run(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        await ns.messages.download(campaign, tmp_path)
        report = await ns.messages.download(campaign, tmp_path, overwrite=True)

    assert all(file.skipped for file in report.files)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 99}', '{"version": 1, "query": 7}', "\xff"])
async def test_a_manifest_that_cannot_be_read_is_not_replaced_unasked(
    small: tuple[Sandbox, str], tmp_path: Path, text: str
) -> None:
    sandbox, campaign = small
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    async with client(sandbox) as ns:
        with pytest.raises(DownloadError, match=r"manifest\.json is.*overwrite=True"):
            await ns.messages.download(campaign, tmp_path)
        assert (tmp_path / "manifest.json").read_text(encoding="latin-1") == text
        await ns.messages.download(campaign, tmp_path, overwrite=True)

    assert names(tmp_path) == WHOLE


async def test_files_of_unknown_origin_are_not_replaced_unasked(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    (tmp_path / "page-00099.csv").write_text("mine")
    async with client(sandbox) as ns:
        with pytest.raises(DownloadError, match=r"page-00099\.csv, and no manifest"):
            await ns.messages.download(campaign, tmp_path)
        assert (tmp_path / "page-00099.csv").read_text() == "mine"
        await ns.messages.download(campaign, tmp_path, overwrite=True)

    assert names(tmp_path) == WHOLE


async def publish_again(sandbox: Sandbox, ns: Nudgescribe, campaign: str, group: str) -> None:
    await ns.reruns.initiate(campaign, group)
    await sandbox.drain()
    await sandbox.approve(campaign)
    await ns.messages.publish(campaign)
    await sandbox.drain()


async def test_a_rerun_before_the_next_call_is_not_mixed_in(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    group = await sandbox.create_customer_group("other", customers=[{"n": n} for n in range(9)])
    async with client(sandbox) as ns:
        await ns.messages.download(campaign, tmp_path)
        before = contents(tmp_path)
        await publish_again(sandbox, ns, campaign, group)
        with pytest.raises(DownloadError, match=r"is of run 1 .* current run is 2.*run_number=1"):
            await ns.messages.download(campaign, tmp_path)
        assert contents(tmp_path) == before
        report = await ns.messages.download(campaign, tmp_path, overwrite=True)

    assert (report.current_run, report.rows) == (2, 9)
    assert names(tmp_path) == [".lock", "manifest.json", "page-00001.csv"]


@pytest.mark.parametrize("last", [False, True])
async def test_a_rerun_meanwhile_is_noticed(tmp_path: Path, last: bool) -> None:
    async with Shop([table(3, page=page) for page in (1, 2, 3)]) as shop, shop.client() as ns:

        async def serve(request: Any, page: int) -> Any:
            if page == 2:
                shop.run = 2
                if not last:  # the file of the new run is not there yet
                    shop.files.clear()
                    shop.link = shop.on_csv = lambda _: shop_refusal()
            return await serve_with_ranges(request, table(3, page=page))

        shop.serve = serve
        with pytest.raises(DownloadError, match=r"run 1 of the campaign, and the current run is 2"):
            await ns.messages.download("c", tmp_path, concurrency=1)
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is False


def shop_refusal() -> Any:
    from aiohttp import web

    return web.json_response({"message": "there is no such page"}, status=400)


async def test_another_number_of_files_means_other_files(tmp_path: Path) -> None:
    async with Shop([table(3, page=page) for page in (1, 2, 3)]) as shop, shop.client() as ns:
        await ns.messages.download("c", tmp_path)
        shop.files = [table(5, page=page) for page in (7, 8)]
        report = await ns.messages.download("c", tmp_path)

        assert [(file.rows, file.skipped) for file in report.files] == [(5, False), (5, False)]
        assert names(tmp_path) == [".lock", "manifest.json", *PAGES[:2]]
        assert report.notes[0].startswith("The run had 3 files when the download began, and has 2 now")


async def test_another_number_of_files_at_the_end_is_an_error(tmp_path: Path) -> None:
    async with Shop([table(3, page=page) for page in (1, 2, 3)]) as shop, shop.client() as ns:

        async def serve(request: Any, page: int) -> Any:
            shop.files = [table(3, page=page) for page in (1, 2, 3, 4)]
            return await serve_with_ranges(request, shop.files[page - 1])

        shop.serve = serve
        with pytest.raises(DownloadError, match="3 files when the download began, and 4 at its end"):
            await ns.messages.download("c", tmp_path)
        assert (await ns.messages.download("c", tmp_path)).pages == 4


async def test_a_service_without_a_history_of_runs(tmp_path: Path) -> None:
    async with Sandbox(edition=1) as sandbox:
        campaign = await campaign_of(sandbox, 5)
        async with client(sandbox) as ns:
            report = await ns.messages.download(campaign, tmp_path)

    assert (report.rows, report.current_run) == (5, None)
    assert len(report.notes) == 1
    assert "a rerun meanwhile goes unnoticed" in report.notes[0]


async def test_one_download_at_a_time_works_in_a_directory(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        first, second = await asyncio.gather(
            ns.messages.download(campaign, tmp_path),
            ns.messages.download(campaign, tmp_path),
            return_exceptions=True,
        )
    refused, report = (first, second) if isinstance(first, BaseException) else (second, first)

    assert isinstance(refused, DownloadError)
    assert "Another download is at work" in str(refused)
    assert isinstance(report, DownloadReport)
    assert report.rows == 125


async def test_another_process_is_refused_at_once(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(tmp_path / ".lock")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    log = len(sandbox.log)
    async with client(sandbox) as ns:
        with pytest.raises(DownloadError, match="Another download is at work"):
            await ns.messages.download(campaign, tmp_path)
        assert len(sandbox.log) == log
        process.kill()
        await process.communicate()
        assert (await ns.messages.download(campaign, tmp_path)).rows == 125


# --- nothing to download, and what is there already ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("Ready to publish", r"Publish it \(ns\.messages\.publish\)"),
        ("Ready for review", "Have its messages approved, publish"),
    ],
)
@pytest.mark.parametrize("run_number", [None, 1])
async def test_a_campaign_that_was_not_published_is_an_error_and_leaves_nothing(
    tmp_path: Path, status: str, advice: str, run_number: int | None
) -> None:
    async with Sandbox() as sandbox:
        campaign = await campaign_of(sandbox, 3, status=status)
        async with client(sandbox) as ns:
            with pytest.raises(
                DownloadError, match=f"Run 1 of campaign {campaign} has no files yet: it is '{status}'.*{advice}"
            ) as caught:
                await ns.messages.download(campaign, tmp_path / "a" / "b", run_number)

    assert caught.value.page is None
    assert names(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_rerun_that_is_not_published_yet_costs_no_file(
    small: tuple[Sandbox, str], tmp_path: Path, overwrite: bool
) -> None:
    sandbox, campaign = small
    await sandbox.create_profile_field("m", "number")
    group = await sandbox.create_customer_group("other", customers=[{"m": 1, "n": 2}])
    async with client(sandbox) as ns:
        await ns.messages.download(campaign, tmp_path)
        before = contents(tmp_path)
        await ns.reruns.initiate(campaign, group)
        with pytest.raises(DownloadError, match=r"Run 2 of campaign .* no files yet.*is left as it was.*run_number="):
            await ns.messages.download(campaign, tmp_path, overwrite=overwrite)
        assert contents(tmp_path) == before
        with pytest.raises(DownloadError, match=r"Run 2 of campaign .* no files yet"):
            await ns.messages.download(campaign, tmp_path / "named", 2)

    assert not (tmp_path / "named").exists()


@pytest.mark.parametrize("run_number", [None, 3])
async def test_a_service_that_does_not_say_more_than_that_there_are_no_files(
    tmp_path: Path, run_number: int | None
) -> None:
    async with Shop() as shop, shop.client() as ns:
        shop.run = None
        with pytest.raises(
            DownloadError, match=r"(The current run|Run 3) of campaign c has no files yet\. .*Publish it"
        ):
            await ns.messages.download("c", tmp_path, run_number)
    assert names(tmp_path) == [".lock"]


async def test_a_published_run_without_files_is_not_to_be_published(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        campaign = await campaign_of(sandbox, 0)
        async with client(sandbox) as ns:
            with pytest.raises(DownloadError, match=r"it is 'Published'.*try again later\. Perhaps there was nobody"):
                await ns.messages.download(campaign, tmp_path)


OLD = [table(3, page=page) for page in (1, 2, 3, 4)]
NEW = [table(5, page=page) for page in (11, 12, 13)]


async def refuse_from(shop: Shop, page: int) -> None:
    from aiohttp import web

    async def serve(request: Any, number: int) -> Any:
        if number >= page:
            return web.Response(status=400)
        return await serve_with_ranges(request, shop.files[number - 1])

    shop.serve = serve


async def test_what_is_replaced_stays_until_the_first_new_file_is_whole(tmp_path: Path) -> None:
    async with Shop(OLD) as shop, shop.client() as ns:
        await ns.messages.download("c", tmp_path)
        before = contents(tmp_path)
        shop.files, shop.run = list(NEW), 2
        await refuse_from(shop, 1)
        with pytest.raises(DownloadError):
            await ns.messages.download("c", tmp_path, overwrite=True)
        assert {name: content for name, content in contents(tmp_path).items() if name in before} == before
        assert json.loads(before["manifest.json"])["complete"] is True


@pytest.mark.parametrize("other", [False, True])
async def test_a_part_of_a_new_file_is_continued_and_no_reason_to_give_up_the_old_ones(
    tmp_path: Path, other: bool
) -> None:
    async with Shop([table(3)]) as shop, shop.client() as ns:
        await ns.messages.download("c", tmp_path)
        before = contents(tmp_path)
        shop.files, shop.run = [table(20_000)], 2
        shop.serve = slow(shop, asyncio.Event(), page_of_trouble=1)
        with pytest.raises(DownloadError):
            await ns.messages.download("c", tmp_path, overwrite=True, options=CallOptions(timeout=0.3))
        came = json.loads((tmp_path / "manifest.json.partial").read_text())["unfinished"]["1"]["bytes"]
        assert came > 0
        assert {name: content for name, content in contents(tmp_path).items() if name in before} == before
        shop.serve = shop.serve_whole
        if other:
            shop.run = 3
        report = await ns.messages.download("c", tmp_path, overwrite=True)
        assert report.rows == 20_000
        assert report.files[0].resumed is not other
        assert shop.ranges[-1] == (None if other else f"bytes={came}-")
    assert names(tmp_path) == [".lock", "manifest.json", "page-00001.csv"]


@pytest.mark.parametrize("again", [False, True])
async def test_half_replaced_is_told_apart_and_the_same_call_goes_on(tmp_path: Path, again: bool) -> None:
    async with Shop(OLD) as shop, shop.client() as ns:
        await ns.messages.download("c", tmp_path)
        shop.files, shop.run = list(NEW), 2
        await refuse_from(shop, 2)
        with pytest.raises(DownloadError):
            await ns.messages.download("c", tmp_path, overwrite=True, concurrency=1)
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert (manifest["complete"], manifest["current_run"], manifest["pages"]) == (False, 2, 3)
        assert list(manifest["files"]) == ["1"]
        found = contents(tmp_path)
        assert [found[name] for name in PAGES[:4]] == [NEW[0], *OLD[1:]]
        shop.serve = shop.serve_whole
        report = await ns.messages.download("c", tmp_path, overwrite=again)

        assert [file.skipped for file in report.files] == [True, False, False]
    assert [file.path.read_bytes() for file in report.files] == NEW
    assert names(tmp_path) == [".lock", "manifest.json", *PAGES[:3]]


async def test_the_manifest_is_of_the_new_run_before_a_file_of_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    finish = Folder.finish

    def look(folder: Folder, number: int) -> Path:
        manifest = json.loads(folder.manifest.read_text())
        seen.append((manifest["complete"], manifest["current_run"]))
        return finish(folder, number)

    async with Shop(OLD) as shop, shop.client() as ns:
        await ns.messages.download("c", tmp_path)
        shop.files, shop.run = list(NEW), 2
        monkeypatch.setattr(Folder, "finish", look)
        await ns.messages.download("c", tmp_path, overwrite=True)
    assert seen == [(False, 2)] * 3


async def test_what_is_left_of_the_old_files_goes_before_the_new_ones_are_called_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "page-00004.csv"))

    async with Shop(OLD) as shop, shop.client() as ns:
        await ns.messages.download("c", tmp_path)
        shop.files, shop.run = list(NEW), 2
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "tidy", refuse)
            with pytest.raises(DownloadError, match=r"page-00004\.csv cannot be read or written"):
                await ns.messages.download("c", tmp_path, overwrite=True)
        assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is False
        assert all(file.skipped for file in (await ns.messages.download("c", tmp_path)).files)
    assert names(tmp_path) == [".lock", "manifest.json", *PAGES[:3]]


async def test_a_set_with_a_file_that_has_to_come_again_is_not_complete(tmp_path: Path) -> None:
    async with Shop(OLD) as shop, shop.client() as ns:
        await ns.messages.download("c", tmp_path)
        (tmp_path / "page-00003.csv").unlink()
        await refuse_from(shop, 1)
        with pytest.raises(DownloadError):
            await ns.messages.download("c", tmp_path)
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert (manifest["complete"], list(manifest["files"])) == (False, ["1", "2", "4"])
        shop.serve = shop.serve_whole
        await ns.messages.download("c", tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is True


async def test_files_that_are_not_of_a_download_are_left_alone(tmp_path: Path) -> None:
    others = {"page-1.csv": b"a", "pages.csv": b"b", "page-00001.txt": b"c", "customers.csv": b"d"}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    async with Shop(OLD) as shop, shop.client() as ns:
        await ns.messages.download("c", tmp_path)
    found = contents(tmp_path)
    assert {name: found[name] for name in others} == others


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (
            ("c", None),
            ("c", 1),
            r"the current run \(which was run 1\) of campaign c, and this call asks for run 1 of it\.",
        ),
        (("c", 1), ("c", None), r"run 1 of campaign c, and this call asks for the current run of it\."),
        (("c", 1), ("c", 2), r"run 1 of campaign c, and this call asks for run 2 of it\."),
        (("c", 1), ("d", 1), r"run 1 of campaign c, and this call asks for run 1 of campaign d\."),
    ],
)
async def test_a_refusal_says_what_is_different(
    tmp_path: Path, first: tuple[str, int | None], second: tuple[str, int | None], text: str
) -> None:
    async with Shop(OLD) as shop, shop.client() as ns:
        await ns.messages.download(first[0], tmp_path, first[1])
        with pytest.raises(DownloadError, match=f"holds a download of {text}"):
            await ns.messages.download(second[0], tmp_path, second[1])


async def test_the_same_campaign_of_another_service_is_something_else(tmp_path: Path) -> None:
    async with Shop(OLD) as shop, Shop(OLD) as other, shop.client() as ns, other.client() as others:
        await ns.messages.download("c", tmp_path)
        with pytest.raises(DownloadError, match=r"of campaign c, but from another service \(base_url\)"):
            await others.messages.download("c", tmp_path)


# --- a service that does not answer ----------------------------------------------------------------------------------------


async def test_a_service_that_is_down_at_the_start_is_a_failed_download(tmp_path: Path) -> None:
    async with Shop() as shop:
        ns = shop.client()
    async with ns:
        with pytest.raises(
            DownloadError, match=r"Campaign c could not be downloaded.*the same call continues"
        ) as caught:
            await ns.messages.download("c", tmp_path / "a" / "b")
    assert isinstance(caught.value.__cause__, RequestNotSentError)
    assert caught.value.page is None
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("operation", "text"),
    [("reruns.history", "which run is the current one"), ("messages.count_pages", "how many files there are")],
)
@pytest.mark.parametrize(("status", "kind"), [(503, ServerError), (400, BadRequestError), (429, RateLimitedError)])
async def test_a_question_that_is_refused_is_told_as_of_the_download(
    small: tuple[Sandbox, str], tmp_path: Path, operation: str, text: str, status: int, kind: type[APIStatusError]
) -> None:
    sandbox, campaign = small
    sandbox.inject(Status(status), operation=operation, times=None)
    async with client(sandbox, retry=RetryPolicy(attempts=2, base=0.001, longest=0.01)) as ns:
        with pytest.raises(
            DownloadError, match=f"Campaign {campaign} could not be downloaded, since the service did not say {text}: "
        ) as caught:
            await ns.messages.download(campaign, tmp_path / "new")
    error, cause = caught.value, caught.value.__cause__

    assert isinstance(cause, kind)
    assert (error.operation, error.request_id, error.attempts) == (operation, cause.request_id, cause.attempts)
    assert ("Check the id" in error.advice) == (status == 400)
    assert names(tmp_path) == []


async def test_a_question_at_the_end_that_is_not_answered_is_told_so_and_the_same_call_goes_on(
    small: tuple[Sandbox, str], tmp_path: Path
) -> None:
    sandbox, campaign = small
    injection = sandbox.inject(Status(400), operation="messages.count_pages", times=None, skip=1)
    async with client(sandbox) as ns:
        with pytest.raises(DownloadError, match="how many files there are") as caught:
            await ns.messages.download(campaign, tmp_path)
        assert isinstance(caught.value.__cause__, BadRequestError)
        assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is False
        injection.remove()
        assert all(file.skipped for file in (await ns.messages.download(campaign, tmp_path)).files)


async def test_a_campaign_that_does_not_exist_is_named_and_leaves_no_directory(
    small: tuple[Sandbox, str], tmp_path: Path
) -> None:
    sandbox, _ = small
    async with client(sandbox) as ns:
        with pytest.raises(DownloadError, match=r"Campaign mistyped could not be downloaded.*Check the id") as caught:
            await ns.messages.download("mistyped", tmp_path / "messages" / "mistyped")
    assert isinstance(caught.value.__cause__, APIStatusError)
    assert names(tmp_path) == []


async def test_credentials_that_are_refused_are_told_as_such(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    sandbox.inject(Status(401), operation="auth.authenticate", times=None)
    async with client(sandbox) as ns:
        with pytest.raises(AuthenticationError):
            await ns.messages.download(campaign, tmp_path / "new")
    assert names(tmp_path) == []


# --- arguments -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"campaign_id": ""}, ValueError, "messages.download: campaign_id must not be empty"),
        ({"campaign_id": 7}, TypeError, "messages.download: campaign_id must be text"),
        ({"run_number": 0}, ValueError, "run_number must be at least 1"),
        ({"run_number": "1"}, TypeError, "run_number must be a whole number"),
        ({"directory": ""}, ValueError, "directory must be a path"),
        ({"directory": "a\0b"}, ValueError, "directory must be a path"),
        ({"directory": 7}, TypeError, "directory must be a path, not int"),
        ({"directory": b"x"}, TypeError, "directory must be a path, not bytes"),
        ({"directory": __file__}, ValueError, "directory is no directory"),
        ({"directory": f"{__file__}/x"}, ValueError, "directory is no directory"),
        ({"concurrency": 0}, ValueError, "concurrency must be at least 1"),
        ({"concurrency": True}, TypeError, "concurrency must be a whole number"),
        ({"concurrency": 1.5}, TypeError, "concurrency must be a whole number"),
        ({"via": "json"}, ValueError, "via must be 'url' or 'csv'"),
        ({"via": None}, TypeError, "via must be 'url' or 'csv'"),
        ({"overwrite": 1}, TypeError, "overwrite must be True or False"),
        ({"options": {}}, TypeError, "options must be CallOptions"),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_sent(
    tmp_path: Path, arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    async with Shop() as shop, shop.client() as ns:
        given: dict[str, Any] = {"campaign_id": "c", "directory": tmp_path / "new"} | arguments
        with pytest.raises(kind, match=text):
            await ns.messages.download(**given)
        assert shop.service.requests == []
    assert not (tmp_path / "new").exists()


async def test_a_closed_client_refuses(tmp_path: Path) -> None:
    async with Shop() as shop:
        ns = shop.client()
        await ns.aclose()
        with pytest.raises(ClientClosedError):
            await ns.messages.download("c", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- the end that somebody else decides on -------------------------------------------------------------------------------


def open_files(directory: Path) -> list[str]:
    found: list[str] = []
    for number in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists
            found.append(str(number.readlink()))
    return [target for target in found if target.startswith(str(directory))]


def slow(shop: Shop, started: asyncio.Event, page_of_trouble: int = 2) -> Callable[..., Any]:
    """Files come whole, but for one, of which the start comes and then nothing more."""
    from aiohttp import web

    async def serve(request: web.Request, page: int) -> web.StreamResponse:
        if page != page_of_trouble:
            return await serve_with_ranges(request, shop.files[page - 1])
        content = shop.files[page - 1]
        response = web.StreamResponse(
            headers={"ETag": '"one"', "Accept-Ranges": "bytes", "Content-Length": str(len(content))}
        )
        response.content_type = "text/csv"
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    return serve


async def test_cancelling_leaves_nothing_open_and_what_came_is_continued(tmp_path: Path) -> None:
    files = [table(3), table(20_000, page=2), table(3, page=3)]
    async with Shop(files) as shop, shop.client() as ns:
        started = asyncio.Event()
        shop.serve = slow(shop, started)
        download = asyncio.create_task(ns.messages.download("c", tmp_path))
        await started.wait()
        await asyncio.sleep(0.1)
        assert "nudgescribe download" in [task.get_name() for task in asyncio.all_tasks()]
        download.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await download

        assert caught.value.__notes__ == [
            f"messages.download was cancelled. What is finished in {tmp_path} stays: the same call goes on."
        ]
        assert "nudgescribe download" not in [task.get_name() for task in asyncio.all_tasks()]
        assert open_files(tmp_path) == []
        assert names(tmp_path) == [
            ".lock",
            "manifest.json",
            "page-00001.csv",
            "page-00002.csv.partial",
            "page-00003.csv",
        ]
        checkpoint = json.loads((tmp_path / "manifest.json").read_text())["unfinished"]["2"]
        assert checkpoint["etag"] == '"one"'
        assert 0 < checkpoint["bytes"] < checkpoint["total"] == len(files[1])
        shop.serve = shop.serve_whole
        before = len(shop.ranges)
        report = await ns.messages.download("c", tmp_path)

        assert shop.ranges[before:] == [f"bytes={checkpoint['bytes']}-"]
        assert [file.resumed for file in report.files] == [False, True, False]
    assert [file.path.read_bytes() for file in report.files] == files
    assert names(tmp_path) == [".lock", "manifest.json", *PAGES[:3]]


async def test_cancelling_at_any_moment(small: tuple[Sandbox, str], tmp_path: Path) -> None:
    sandbox, campaign = small
    async with client(sandbox) as ns:
        await ns.messages.download(campaign, tmp_path / "whole")
        ended = 0
        for turn in range(1, 60):
            download = asyncio.create_task(ns.messages.download(campaign, tmp_path / "cut"))
            for _ in range(turn * 3):
                await asyncio.sleep(0)
            if turn % 3 == 0:
                await asyncio.sleep(turn / 2_000)
            download.cancel()
            try:
                await download
                ended += 1
            except asyncio.CancelledError:
                pass
            assert open_files(tmp_path) == []
        report = await ns.messages.download(campaign, tmp_path / "cut")

    assert report.rows == 125
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


async def test_closing_the_client_ends_it(tmp_path: Path) -> None:
    async with Shop([table(3), table(20_000)]) as shop:
        ns = shop.client()
        started = asyncio.Event()
        shop.serve = slow(shop, started)
        download = asyncio.create_task(ns.messages.download("c", tmp_path))
        await started.wait()
        await ns.aclose(grace=0)
        with pytest.raises(ClientClosedError):
            await download
    assert open_files(tmp_path) == []


async def test_the_deadline_of_a_call_holds_for_a_file(tmp_path: Path) -> None:
    async with Shop([table(3), table(20_000)]) as shop, shop.client() as ns:
        shop.serve = slow(shop, asyncio.Event())
        with pytest.raises(DownloadError, match=r"Page 2 of 2 .*did not end within 0.2 s") as caught:
            await ns.messages.download("c", tmp_path, options=CallOptions(timeout=0.2))
    assert caught.value.page == 2


# --- the disk ------------------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_the_same_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [table(3), table(20_000, page=2)]
    room = 600_000
    write = os.write

    def write_while_there_is_room(descriptor: int, data: Any) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[:room])
        room -= written
        return written

    async with Shop(files) as shop, shop.client() as ns:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write_while_there_is_room)
            with pytest.raises(DownloadError, match=r"No space left.*Make room") as caught:
                await ns.messages.download("c", tmp_path, concurrency=1)  # so that the first file is whole by then
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.page == 2
        assert open_files(tmp_path) == []
        before = len(shop.ranges)
        report = await ns.messages.download("c", tmp_path)

        asked = shop.ranges[before:]
        assert len(asked) == 1
        assert asked[0] is not None, "it did not continue"
    assert [file.path.read_bytes() for file in report.files] == files


@pytest.mark.parametrize("function", ["fsync", "open"])
async def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "x"))

    async with Shop([table(3)]) as shop, shop.client() as ns:
        with monkeypatch.context() as patch:
            patch.setattr(os, function, refuse)
            with pytest.raises(DownloadError, match=r"/x cannot be read or written: Permission denied"):
                await ns.messages.download("c", tmp_path)
        assert open_files(tmp_path) == []
        assert (await ns.messages.download("c", tmp_path)).rows == 3


async def test_it_is_one_error_of_the_package_whatever_happens(tmp_path: Path) -> None:
    async with Shop([table(3, page=page) for page in range(1, 9)]) as shop, shop.client() as ns:

        async def serve(request: Any, page: int) -> Any:
            request.transport.abort()
            return await serve_with_ranges(request, b"")

        shop.serve = serve
        with pytest.raises(NudgescribeError) as caught:
            await ns.messages.download("c", tmp_path, concurrency=8)
    assert type(caught.value) is DownloadError
    assert len(caught.value.attempts) == 4
