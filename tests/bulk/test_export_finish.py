"""The end of an export: whoever did not get the report gets it by the same call, and whoever did is refused."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bulk.export_source import Group, content, customers, ids, left

from nudgescribe_async.bulk.export.writing import Writing
from nudgescribe_async.errors import ExportError

FORMS = [
    pytest.param("{folder}/x.csv", {}, id="file"),
    pytest.param("{folder}/x", {"format": "parquet", "rows_per_part": 9}, id="folder of parts"),
    pytest.param("file://{folder}/x.csv", {}, id="url"),
    pytest.param("file://{folder}/x", {"format": "csv", "rows_per_part": 9}, id="url of parts"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "there"
    made.mkdir()
    return made


@pytest.fixture
def again(folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Makes the same call, and says what was asked of the service."""

    async def call(destination: str, options: dict[str, Any]) -> tuple[Any, Group]:
        group = Group(customers(60))
        spool: dict[str, Any] = {"spool": tmp_path / "spool"} if "://" in destination else {}
        return await group.export(destination.format(folder=folder), **options, **spool), group

    return call


class Held:
    """A piece of work that is held up when it has been done."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.go = threading.Event()

    @contextmanager
    def at(self, monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
        real = getattr(Writing, name)

        def held(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            self.done.set()
            assert self.go.wait(10)
            return result

        with monkeypatch.context() as patch:
            patch.setattr(Writing, name, held)
            yield


async def cancelled(running: asyncio.Task[Any], held: Held) -> None:
    await asyncio.to_thread(held.done.wait, 10)
    running.cancel()
    await asyncio.sleep(0)
    held.go.set()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(("destination", "options"), FORMS)
@pytest.mark.parametrize("step", ["finish", "close"])
async def test_who_is_cancelled_at_the_very_end_gets_the_report_by_the_same_call(
    folder: Path,
    again: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    destination: str,
    options: dict[str, Any],
    step: str,
) -> None:
    held = Held()
    with held.at(monkeypatch, step):
        await cancelled(asyncio.create_task(again(destination, options)), held)
    there = content(folder)
    report, group = await again(destination, options)
    assert (report.rows, report.resumed, group.asked) == (60, True, [])
    assert {name: data for name, data in content(folder).items() if name != "lock"}.items() <= there.items()
    with pytest.raises(ExportError, match="exists"):
        await again(destination, options)


@pytest.mark.parametrize(("destination", "options"), FORMS)
async def test_who_gets_the_report_leaves_nothing_behind_and_is_refused(
    folder: Path, tmp_path: Path, again: Callable[..., Any], destination: str, options: dict[str, Any]
) -> None:
    report, _ = await again(destination, options)
    assert (report.rows, report.resumed) == (60, False)
    assert left(folder) == (["x"] if options else ["x.csv", "x.csv.manifest.json"])
    assert not (tmp_path / "spool").exists() or left(tmp_path / "spool") == []
    with pytest.raises(ExportError, match="exists"):
        await again(destination, options)
    assert left(folder) == (["x"] if options else ["x.csv", "x.csv.manifest.json"])


async def test_who_is_cancelled_while_somebody_else_begins_there_leaves_that_alone(
    folder: Path, again: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    with held.at(monkeypatch, "close"):
        running = asyncio.create_task(again("{folder}/x.csv", {}))
        await asyncio.to_thread(held.done.wait, 10)
        (folder / "x.csv.partial").mkdir()
        (folder / "x.csv.partial" / "checkpoint.json").write_text("of somebody else")
        await cancelled(running, held)
    assert (folder / "x.csv.partial" / "checkpoint.json").read_text() == "of somebody else"


@pytest.mark.parametrize("replacing", [False, True])
async def test_what_somebody_changed_before_the_report_came_is_not_reported(
    folder: Path, again: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, replacing: bool
) -> None:
    held = Held()
    with held.at(monkeypatch, "finish"):
        await cancelled(asyncio.create_task(again("{folder}/x.csv", {})), held)
    (folder / "x.csv").write_text("mine")
    with pytest.raises(ExportError, match="somebody has changed it"):
        await again("{folder}/x.csv", {"overwrite": replacing})
    assert (folder / "x.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.parquet", "parts"])
async def test_files_with_customers_are_for_their_owner_alone(folder: Path, name: str) -> None:
    options: dict[str, Any] = {"format": "parquet", "rows_per_part": 9} if name == "parts" else {}
    loose, seen = list[str](), list[str]()

    def on_progress(_: Any) -> None:
        work = folder / f"{name}.partial"
        seen.append(work.name)
        secret = [work, work / "parts", work / "seen", *(work / "parts").iterdir(), *work.glob("stream*")]
        loose.extend(str(path) for path in secret if path.stat().st_mode & 0o077)

    before = os.umask(0)
    try:
        await Group(customers(60), consistency="dedupe").export(folder / name, on_progress=on_progress, **options)
    finally:
        os.umask(before)
    made = [folder / name] if (folder / name).is_file() else [folder / name, *(folder / name).glob("part-*")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in made} <= {0o600, 0o700}
    assert {stat.S_IMODE(file.stat().st_mode) for file in made if file.is_file()} == {0o600}
    assert (loose, len(seen)) == ([], 15)


async def test_a_manifest_has_its_keys_in_the_same_order_after_an_interruption(folder: Path) -> None:
    def stop(page: int) -> None:
        if page == 12:
            raise ZeroDivisionError

    def keys(value: Any) -> Any:
        if isinstance(value, dict):
            return [(name, keys(each)) for name, each in value.items() if name != "runs"]
        return [keys(each) for each in value] if isinstance(value, list) else None

    straight, resumed = folder / "1.csv", folder / "2.csv"
    await Group(customers(60)).export(straight)
    group = Group(customers(60))
    group.on_page = stop
    with pytest.raises(ZeroDivisionError):
        await group.export(resumed)
    assert (await Group(customers(60)).export(resumed)).resumed
    manifests = [json.loads((folder / f"{number}.csv.manifest.json").read_bytes()) for number in (1, 2)]
    assert keys(manifests[0]) == keys(manifests[1])
    assert ids(straight) == ids(resumed)
