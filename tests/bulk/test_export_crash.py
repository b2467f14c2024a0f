"""An export that is killed at any moment is continued by the same call, and nobody can tell by the files."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from bulk.export_source import Group, content, customers, ids, left
from fsspec.implementations.local import LocalFileSystem
from helpers import Server

from nudgescribe_async.errors import ExportError

KILLS = int(os.environ.get("NUDGESCRIBE_EXPORT_KILLS", "2"))
CUSTOMERS = int(os.environ.get("NUDGESCRIBE_EXPORT_CUSTOMERS", "6000"))
PAGE = 100 if CUSTOMERS < 100_000 else 1_000
DEBUG = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE")

FORMS = [
    pytest.param("x.ndjson", {}, id="ndjson"),
    pytest.param("x.csv.gz", {}, id="csv.gz"),
    pytest.param("x.parquet", {}, id="parquet"),
    pytest.param("x", {"format": "parquet", "rows_per_part": 1_050}, id="parts"),
]
# --- kill -9 -----------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, json, os
from nudgescribe_async import Nudgescribe


async def main():
    options = json.loads(os.environ["OPTIONS"])
    async with Nudgescribe.from_env() as ns:
        report = await ns.customers.export("g", os.environ["DESTINATION"], checkpoint_every=0.02, **options)
    print(json.dumps({"rows": report.rows, "pages": report.pages, "sha256": report.sha256, "resumed": report.resumed}))


asyncio.run(main())
"""


class Pages:
    """Answers with pages that were made beforehand, and tells when one was asked for."""

    def __init__(self, count: int) -> None:
        self.total = -(-count // PAGE)
        self._pages = [
            json.dumps([self._customer(number) for number in range(start, min(start + PAGE, count))]).encode()
            for start in range(0, count, PAGE)
        ]
        self.served = 0
        self._moved = asyncio.Condition()

    @staticmethod
    def _customer(number: int) -> dict[str, Any]:
        return {
            "customer_id": f"customer-{number:08d}",
            "customer_group_id": "g",
            "account_id": "account",
            "workspace_id": "workspace",
            "extended_profile": {"alg": "x", "ciphertext": f'{number * 7919:040x}, "quoted"\n'},
            "created_at": "2025-01-01T00:00:00.000Z",
            "updated_at": None if number % 2 else "2025-06-01T12:30:00.125Z",
            "created_by": "ü🎈",
            "updated_by": "",
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("pages"):
            return web.json_response({"pages": self.total})
        page = (await request.json())["page"]
        async with self._moved:
            self.served += 1
            self._moved.notify_all()
        body = self._pages[page - 1] if page <= self.total else b"[]"
        return web.Response(body=body, content_type="application/json")

    async def until(self, count: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self.served >= count)


async def begin(server: Server, destination: Path, options: dict[str, Any]) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if name not in DEBUG} | {
        "NUDGESCRIBE_API_KEY": "k",
        "NUDGESCRIBE_EMAIL": "e@example.org",
        "NUDGESCRIBE_PASSWORD": "p",
        "NUDGESCRIBE_BASE_URL": server.url,
        "DESTINATION": str(destination),
        "OPTIONS": json.dumps(options),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        PROGRAM,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def to_its_end(process: asyncio.subprocess.Process) -> dict[str, Any]:
    output, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "")
    report: dict[str, Any] = json.loads(output)
    return report


async def kill_at_random(process: asyncio.subprocess.Process, pages: Pages, dice: random.Random) -> None:
    """All kills together leave some pages for the last call, which goes on undisturbed."""
    await pages.until(pages.served + dice.randint(1, pages.total // (KILLS + 2)))
    await asyncio.sleep(dice.random() * 0.03)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), FORMS)
async def test_kill_9_at_random_moments_costs_no_row_and_doubles_none(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    pages = Pages(CUSTOMERS)
    dice = random.Random(f"{name} {KILLS}")
    straight, killed = made(tmp_path / "straight"), made(tmp_path / "killed")
    async with Server(pages.answer) as server:
        whole = await to_its_end(await begin(server, straight / name, options))
        for _ in range(KILLS):
            await kill_at_random(await begin(server, killed / name, options), pages, dice)
        report = await to_its_end(await begin(server, killed / name, options))
        assert (report["rows"], report["pages"]) == (whole["rows"], whole["pages"])
        assert report["sha256"] == whole["sha256"]
        assert report["resumed"] or KILLS < 10  # a few kills may all come before the first checkpoint
    assert ids(straight / name) == [f"customer-{number:08d}" for number in range(CUSTOMERS)]
    assert content(killed / name) == content(straight / name)
    assert left(killed) == left(straight)


STEPS_AFTER = 3
"""After the checkpoint is removed, a call flushes, and removes the lock and the empty folder; then it returns."""

# --- every single step -------------------------------------------------------------------------------------------


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests count what is flushed, and need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class PowerCut(BaseException):
    """From here on, nothing reaches the disk any more."""


class Plug:
    """Counts the steps that change the disk, and pulls the plug at one of them: before it, or, of a write, within it."""

    def __init__(self, step: int | None) -> None:
        self.step = step
        self.steps = 0
        self._flushed: dict[int, int] = {}

    def before(self) -> bool:
        self.steps += 1
        if self.step is not None and self.steps > self.step:
            raise PowerCut
        return self.step == self.steps

    @contextmanager
    def plugged_in(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", self._flushing(os.fsync))
            for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
                patch.setattr(os, name, self._guarded(getattr(os, name)))
            patch.setattr(shutil, "rmtree", self._guarded(shutil.rmtree))
            for name in ("put_file", "pipe_file"):
                patch.setattr(LocalFileSystem, name, self._guarded(getattr(LocalFileSystem, name)))
            patch.setattr("nudgescribe_async.bulk.files.AppendFile.write", self._torn())
            yield

    def lose_what_was_not_flushed(self, folder: Path) -> None:
        """What a disk may do at a power cut."""
        for file in folder.rglob("*"):
            found = file.stat()
            good = self._flushed.get(found.st_ino, 0)
            if file.is_file() and found.st_size > good:
                os.truncate(file, good)

    def _flushing(self, flush: Any) -> Any:
        def flushing(descriptor: int) -> None:
            if self.before():
                raise PowerCut
            flush(descriptor)
            found = os.fstat(descriptor)
            self._flushed[found.st_ino] = found.st_size

        return flushing

    def _guarded(self, step: Any) -> Any:
        def guarded(*args: Any, **options: Any) -> Any:
            if self.before():
                raise PowerCut
            return step(*args, **options)

        return guarded

    def _torn(self) -> Any:
        from nudgescribe_async.bulk.files import AppendFile

        write = AppendFile.write

        def torn(file: AppendFile, data: bytes) -> None:
            if self.before():
                write(file, data[: len(data) // 2])
                raise PowerCut
            write(file, data)

        return torn


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "consistency"),
    [
        pytest.param("x.ndjson", {}, "dedupe", id="ndjson"),
        pytest.param("x.csv.gz", {}, "warn", id="csv.gz"),
        pytest.param("x.parquet", {}, "warn", id="parquet"),
        pytest.param("x", {"format": "csv", "rows_per_part": 5}, "warn", id="csv parts"),
        pytest.param("x", {"format": "parquet", "rows_per_part": 5}, "dedupe", id="parquet parts"),
    ],
)
async def test_the_plug_is_pulled_at_every_single_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], consistency: Any
) -> None:
    people = customers(10)

    async def straight(folder: Path) -> dict[str, bytes]:
        await Group(people, consistency=consistency).export(made(folder) / name, **options)
        return content(folder / name)

    expected = await straight(tmp_path / "straight")
    counting = Plug(None)
    with counting.plugged_in(monkeypatch):
        await straight(tmp_path / "counted")
    assert counting.steps > 20
    moments = set()
    for step in range(1, counting.steps + 1):
        folder = made(tmp_path / str(step))
        plug = Plug(step)
        with plug.plugged_in(monkeypatch), pytest.raises(PowerCut):
            await straight(folder)
        plug.lose_what_was_not_flushed(folder)
        group = Group(people, consistency=consistency)
        if (folder / name).exists() and not (folder / f"{name}.partial" / "checkpoint.json").exists():
            moments.add("reported")  # all but the caller has the report
            assert counting.steps - step < STEPS_AFTER
            assert content(folder / name) == expected
            with pytest.raises(ExportError, match="exists"):
                await group.export(folder / name, **options)
            assert left(folder) == left(tmp_path / "straight")
            continue
        complete = (folder / name).exists()
        report = await group.export(folder / name, **options)
        moments.add("finished" if complete else "resumed" if report.resumed else "begun")
        assert report.resumed or not complete
        assert group.asked == [] or not complete
        with pytest.raises(ExportError, match="exists"):
            await group.export(folder / name, **options)
        assert content(folder / name) == expected
        assert ids(folder / name) == [person.customer_id for person in people]
        assert report.rows == len(people)
        assert left(folder) == left(tmp_path / "straight")
    assert moments == {"begun", "resumed", "finished", "reported"}


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("x.ndjson", {}, id="ndjson"),
        pytest.param("x", {"format": "csv", "rows_per_part": 5}, id="csv parts"),
    ],
)
async def test_the_plug_is_pulled_while_something_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]
) -> None:
    old, new = customers(3), customers(6)

    async def prepared(folder: Path) -> Path:
        await Group(old).export(made(folder) / name, **options)
        return folder / name

    counting = Plug(None)
    path = await prepared(tmp_path / "straight")
    before = content(path)
    with counting.plugged_in(monkeypatch):
        await Group(new).export(path, overwrite=True, **options)
    expected = content(path)
    for step in range(1, counting.steps + 1):
        path = await prepared(tmp_path / str(step))
        with Plug(step).plugged_in(monkeypatch), pytest.raises(PowerCut):
            await Group(new).export(path, overwrite=True, **options)
        if path.exists():  # of a folder, there is a moment between the two renames
            assert content(path) in (before, expected)
        else:
            assert path.suffix == ""
        await Group(new).export(path, overwrite=True, **options)
        assert content(path) == expected
        assert left(path.parent) == left(tmp_path / "straight")


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("x.ndjson", {}, id="ndjson"),
        pytest.param("x", {"format": "parquet", "rows_per_part": 5}, id="parquet parts"),
    ],
)
async def test_the_plug_is_pulled_at_every_single_step_on_the_way_to_a_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]
) -> None:
    people = customers(10)

    async def run(folder: Path) -> None:
        await Group(people).export(f"file://{made(folder)}/{name}", spool=folder / "spool", **options)

    counting = Plug(None)
    with counting.plugged_in(monkeypatch):
        await run(tmp_path / "straight")
    expected = content(tmp_path / "straight" / name)
    for step in range(1, counting.steps + 1):
        folder = made(tmp_path / str(step))
        plug = Plug(step)
        with plug.plugged_in(monkeypatch), pytest.raises(PowerCut):
            await run(folder)
        made(folder / "spool")
        plug.lose_what_was_not_flushed(folder / "spool")
        manifest = folder / name / "_manifest.json" if options else folder / f"{name}.manifest.json"
        if manifest.exists() and not any((folder / "spool").glob("*/checkpoint.json")):
            assert counting.steps - step < STEPS_AFTER + 1  # and the lock of the destination
        else:
            await run(folder)
        assert content(folder / name) == expected
        with pytest.raises(ExportError, match="exists"):
            await run(folder)
        assert left(folder / "spool") == []
        assert json.loads(manifest.read_bytes())["rows"] == 10


# --- the shape of what is left -----------------------------------------------------------------------------------


async def test_what_was_written_is_not_read_again(tmp_path: Path) -> None:
    group = Group(customers(80))
    group.on_page = lambda page: stop(page, 17)
    with pytest.raises(ZeroDivisionError):
        await group.export(tmp_path / "x.csv")
    again = Group(customers(80))
    report = await again.export(tmp_path / "x.csv")
    assert report.resumed
    assert again.asked[0] > 10
    assert again.asked[-1] >= 20
    first, second = report.runs
    assert (first.pages + second.pages, first.items + second.items) == (20, 80)
    assert second.pages < 8


def stop(page: int, at: int) -> None:
    if page == at:
        raise ZeroDivisionError


async def test_the_columns_stay_though_fields_were_added_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group(customers(40))
    group.on_page = lambda page: stop(page, 7)
    with pytest.raises(ZeroDivisionError):
        await group.export(tmp_path / "x.csv")
    assert group.fields_asked == ["w"]
    again = Group(customers(40))
    monkeypatch.setattr("bulk.export_source.FIELDS", ())
    report = await again.export(tmp_path / "x.csv")
    assert again.fields_asked == []
    assert "points" in report.columns
