"""What an export leaves behind, who may go on with it, and what happens when the disk or the caller gives up."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bulk.export_source import Group, content, customer, customers, ids, left

from nudgescribe_async import ConfigurationError, NudgescribeError, PageDriftError, PageError
from nudgescribe_async.bulk.export.arrow import pack
from nudgescribe_async.bulk.files import AppendFile, InUseError, Lock
from nudgescribe_async.errors import BadRequestError, ExportError, ServerError

if TYPE_CHECKING:
    from nudgescribe_async.bulk.export import ExportProgress, ExportReport

FORMS = [
    pytest.param("x.ndjson", {}, id="ndjson"),
    pytest.param("x.csv.gz", {}, id="csv.gz"),
    pytest.param("x.parquet", {}, id="parquet"),
    pytest.param("x", {"format": "parquet", "rows_per_part": 9}, id="parts"),
]


class Stop(Exception):  # noqa: N818 - no error of the package
    pass


def stop_at(group: Group, page: int) -> Group:
    def stop(asked: int) -> None:
        if asked == page:
            raise Stop

    group.on_page = stop
    return group


async def interrupted(path: Path, people: int = 60, **options: Any) -> Path:
    """What an export leaves that was interrupted about half way; the folder that it works in."""
    with pytest.raises(Stop):
        await stop_at(Group(customers(people)), 12).export(path, **options)
    return path.with_name(path.name + ".partial")


async def refused(path: Path, group: Group | None = None, **options: Any) -> str:
    """What is said, and that nothing was asked for and nothing was changed."""
    group = group or Group(customers(60))
    before = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}
    with pytest.raises(ExportError) as failure:
        await group.export(path, **options)
    assert group.asked == []
    assert {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()} == before
    return str(failure.value)


# --- a whole export ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), FORMS)
@pytest.mark.parametrize("count", [0, 1, 4, 9, 60])
async def test_everybody_is_in_it_and_nothing_else_is_left(
    tmp_path: Path, name: str, options: dict[str, Any], count: int
) -> None:
    report = await Group(customers(count)).export(tmp_path / name, **options)
    assert ids(tmp_path / name) == [f"c{number}" for number in range(count)]
    manifest = tmp_path / name / "_manifest.json" if options else tmp_path / f"{name}.manifest.json"
    assert left(tmp_path) == sorted({name, manifest.relative_to(tmp_path).parts[0]})
    assert report.manifest == str(manifest)
    assert (report.rows, report.resumed, report.drift, report.left_out) == (count, False, (), 0)
    assert report.pages == -(-count // 4)
    found = json.loads(manifest.read_bytes())
    for part in report.parts:
        file = tmp_path / name / part.name if options else tmp_path / name
        assert part.bytes == file.stat().st_size
        shown = subprocess.run(["sha256sum", str(file)], capture_output=True, check=True, text=True)  # noqa: ASYNC221
        assert shown.stdout.split()[0] == part.sha256
    assert (found["rows"], found["sha256"], found["format"]) == (count, report.sha256, report.format)
    assert [part["sha256"] for part in found["parts"]] == [part.sha256 for part in report.parts]
    assert pickle.loads(pickle.dumps(report)) == report
    assert f"{count:,} customers" in str(report)


async def test_a_part_ends_with_the_page_that_fills_it(tmp_path: Path) -> None:
    report = await Group(customers(30)).export(tmp_path / "x", "csv", rows_per_part=6)
    assert [(part.name, part.rows) for part in report.parts] == [
        ("part-00001.csv", 8),
        ("part-00002.csv", 8),
        ("part-00003.csv", 8),
        ("part-00004.csv", 6),
    ]
    assert ids(tmp_path / "x") == [f"c{number}" for number in range(30)]


async def test_progress_is_told_and_what_it_raises_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[ExportProgress] = []
    threads: set[threading.Thread] = set()

    def on_progress(progress: ExportProgress) -> None:
        threads.add(threading.current_thread())
        told.append(progress)
        raise Stop

    report = await Group(customers(30)).export(tmp_path / "x.csv", on_progress=on_progress)
    assert [progress.pages for progress in told] == list(range(1, 9))
    assert [progress.rows for progress in told] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert {progress.total for progress in told} == {8}
    assert told[-1].bytes == report.bytes
    assert told[-1].rate > 0
    assert threads == {threading.main_thread()}
    assert "on_progress failed" in caplog.text


async def test_the_event_loop_writes_nothing_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_loop: list[str] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                on_the_loop.append(name)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, watched)

    export = "nudgescribe_async.bulk.export"
    watch(sys.modules["nudgescribe_async.bulk.files"].AppendFile, "write")
    watch(sys.modules[f"{export}.arrow"].Arrow, "encode")
    watch(sys.modules[f"{export}.writing"], "pack")
    watch(sys.modules[f"{export}.writing"], "checksum")
    watch(os, "fsync")
    watch(os, "replace")
    watch(os, "mkdir")
    await Group(customers(30)).export(tmp_path / "x.parquet")
    await Group(customers(30)).export(tmp_path / "x.csv.gz")
    assert on_the_loop == []
    os.fsync(os.open(tmp_path, os.O_RDONLY))
    assert on_the_loop == ["fsync"]  # so watching works


# --- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "options", "error", "text"),
    [
        ("x.txt", {}, ValueError, "does not say the format"),
        ("x", {"rows_per_part": 5}, ValueError, "destination is a folder, so give the format"),
        ("x.csv", {"format": "xlsx"}, ValueError, "not 'xlsx'"),
        ("x.csv", {"format": 5}, TypeError, "not int"),
        ("x.parquet.gz", {}, ValueError, "compressed by itself"),
        ("x.gz", {"format": "parquet"}, ValueError, "compressed by itself"),
        ("x.csv", {"format": "parquet"}, ValueError, "destination says csv, and format says parquet"),
        ("x.csv.gz", {"format": "csv"}, ValueError, r"destination says csv\.gz, and format says csv\."),
        ("x.csv", {"format": "csv.gz"}, ValueError, r"destination says csv, and format says csv\.gz"),
        ("x.gz", {"format": "csv"}, ValueError, r"destination says csv\.gz, and format says csv\."),
        ("memory://b/x.csv?a=b", {"format": "ndjson"}, ValueError, "destination says csv, and format says ndjson"),
        ("x", {"format": "csv", "rows_per_part": 0}, ValueError, "at least 1"),
        ("x", {"format": "csv", "rows_per_part": "5"}, TypeError, "not str"),
        ("", {"format": "csv"}, ValueError, "must not be empty"),
        (5, {}, TypeError, "not int"),
        (b"x.csv", {}, TypeError, "not bytes"),
        ("x.csv", {"overwrite": "yes"}, TypeError, "overwrite"),
        ("x.csv", {"restart": 1}, TypeError, "restart"),
        ("x.csv", {"checkpoint_every": -1}, ValueError, "checkpoint_every"),
        ("x.csv", {"on_progress": 5}, TypeError, "on_progress must be a plain function, not int"),
        ("x.csv", {"on_progress": asyncio.sleep}, TypeError, "not a coroutine function"),
        ("x.csv", {"workspace_id": 5}, TypeError, "workspace_id"),
        ("x.csv", {"workspace_id": " "}, ValueError, "workspace_id must not be empty"),
        ("x.csv", {"spool": "/tmp"}, ValueError, "are for destinations that are URLs"),
        ("memory://x.csv", {"storage_options": 5}, TypeError, "storage_options"),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_touched(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    destination: Any,
    options: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    group = Group(customers(3))
    with pytest.raises(error, match=text):
        await group.export(destination, **options)
    assert group.asked == []
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "given", "format_"),
    [
        ("x.NDJSON", None, "ndjson"),
        ("x.jsonl.gz", None, "ndjson.gz"),
        ("x.out", "jsonl", "ndjson"),
        ("x.out", "csv.gz", "csv.gz"),
        ("x.gz", "csv.gz", "csv.gz"),
        ("x.csv.gz", ".csv.gz", "csv.gz"),
        ("x.v2", ".csv", "csv"),
        ("x.jsonl", "ndjson", "ndjson"),
    ],
)
async def test_the_format_is_what_is_given_or_what_the_name_says(
    tmp_path: Path, name: str, given: str | None, format_: str
) -> None:
    assert (await Group(customers(3)).export(tmp_path / name, given)).format == format_


async def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    group = Group(customers(3))
    with pytest.raises(ConfigurationError, match=r"nudgescribe_async\[parquet\]"):
        await group.export(tmp_path / "x.parquet")
    assert (group.asked, left(tmp_path)) == ([], [])


# --- what is in the way ---------------------------------------------------------------------------------------------


async def test_what_exists_is_kept_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("mine")
    text = await refused(path)
    assert str(path) in text
    assert "overwrite=True" in text
    assert left(tmp_path) == ["x.csv"]
    await Group(customers(5)).export(path, overwrite=True)
    assert ids(path) == ["c0", "c1", "c2", "c3", "c4"]


async def test_a_file_that_turns_up_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    group = Group(customers(40))
    group.on_page = lambda page: path.write_text("mine") if page == 8 else None  # type: ignore[assignment]
    with pytest.raises(ExportError, match="exists"):
        await group.export(path)
    assert path.read_text() == "mine"
    path.unlink()
    again = Group(customers(40))
    report = await again.export(path)
    assert (report.resumed, again.asked) == (True, [])
    assert len(ids(path)) == 40


async def test_to_begin_anew_forgets_nothing_where_the_destination_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    await interrupted(path)
    path.write_text("mine")
    assert "overwrite=True" in await refused(path, restart=True)
    path.unlink()
    assert (await Group(customers(60)).export(path)).resumed


async def test_a_folder_is_replaced_only_if_an_export_made_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    options: dict[str, Any] = {"format": "csv", "rows_per_part": 5}
    path.mkdir()
    await Group(customers(30)).export(path, **options)  # an empty one is nobody's
    assert "not empty" in await refused(path, **options)
    await Group(customers(7)).export(path, overwrite=True, **options)
    assert len(ids(path)) == 7
    (path / "holiday.jpg").write_text("mine")
    text = await refused(path, overwrite=True, **options)
    assert "holiday.jpg" in text
    assert left(tmp_path) == ["x"]


async def test_a_folder_of_somebody_elses_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("mine")
    assert "thesis.txt" in await refused(tmp_path / "x", format="csv", rows_per_part=5, overwrite=True)
    assert "is a folder" in await refused(tmp_path / "x", format="csv", overwrite=True)
    (tmp_path / "y").write_text("mine")
    assert "no folder" in await refused(tmp_path / "y", format="csv", rows_per_part=5, overwrite=True)


async def test_a_folder_to_work_in_that_is_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    work = tmp_path / "x.csv.partial"
    work.mkdir()
    (work / "thesis.txt").write_text("mine")
    assert "thesis.txt" in await refused(tmp_path / "x.csv", restart=True)
    (tmp_path / "y.csv.partial").write_text("mine")
    assert "in the way" in await refused(tmp_path / "y.csv", restart=True)
    (tmp_path / "z.csv.partial").symlink_to(tmp_path / "elsewhere")
    assert "in the way" in await refused(tmp_path / "z.csv")


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    assert f"There is no folder {tmp_path / 'none'}" in await refused(tmp_path / "none" / "x.csv")


# --- two at once ------------------------------------------------------------------------------------------------------


async def test_two_exports_to_one_destination_the_second_is_refused_at_once(tmp_path: Path) -> None:
    path, reached, go = tmp_path / "x.csv", asyncio.Event(), asyncio.Event()
    first = Group(customers(30))
    begin = first._count

    async def wait() -> int:
        reached.set()
        await go.wait()
        return await begin()

    first._count = wait  # type: ignore[method-assign]
    running = asyncio.create_task(first.export(path))
    await reached.wait()
    assert "Another export is writing" in await refused(path)
    assert "Another export is writing" in await refused(path, restart=True, overwrite=True)
    go.set()
    assert (await running).rows == 30


async def test_an_export_of_another_process_is_noticed(tmp_path: Path) -> None:
    work = tmp_path / "x.csv.partial"
    work.mkdir()
    held = os.open(work / "lock", os.O_RDWR | os.O_CREAT)
    program = f"import fcntl; fcntl.flock({held}, fcntl.LOCK_EX)"
    subprocess.run([sys.executable, "-c", program], pass_fds=[held], check=True)  # noqa: ASYNC221
    assert "Another export is writing" in await refused(tmp_path / "x.csv")
    fcntl.flock(held, fcntl.LOCK_UN)
    os.close(held)
    assert (await Group(customers(3)).export(tmp_path / "x.csv")).rows == 3


async def test_whoever_gets_a_lock_that_was_removed_takes_the_next(tmp_path: Path) -> None:
    async def one(number: int) -> str:
        try:
            await Group(customers(3)).export(tmp_path / "x.csv", overwrite=True)
        except ExportError as error:
            return error.message.partition(" to ")[0]
        return "done"

    outcomes = await asyncio.gather(*(one(number) for number in range(20)))
    assert "done" in outcomes
    assert set(outcomes) <= {"done", "Another export is writing"}
    assert ids(tmp_path / "x.csv") == ["c0", "c1", "c2"]
    assert left(tmp_path) == ["x.csv", "x.csv.manifest.json"]


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened, real = tmp_path / "lock", 0, os.open

    def open_and_lose(name: Any, *options: Any, **more: Any) -> int:
        nonlocal opened
        descriptor = real(name, *options, **more)
        opened += 1
        if opened == 1:
            path.unlink()
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_and_lose)
        lock = Lock(path)
    with lock:
        assert opened == 2
        with pytest.raises(InUseError):
            Lock(path)
    Lock(path).release()
    assert open_files(tmp_path) == []


# --- what was left and is not as it was --------------------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [cut, flipped, lambda _: b"", lambda _: b"[]", lambda _: b"\xff", lambda _: b'{"version":9}']
)
async def test_a_damaged_checkpoint_is_named_and_restart_forgets_it(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "x.csv"
    work = await interrupted(path)
    checkpoint = work / "checkpoint.json"
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    text = await refused(path)
    assert str(checkpoint) in text
    assert "restart=True" in text
    report = await Group(customers(60)).export(path, restart=True)
    assert (report.resumed, len(ids(path))) == (False, 60)
    assert left(tmp_path) == ["x.csv", "x.csv.manifest.json"]


async def test_every_byte_of_a_checkpoint_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    checkpoint = await interrupted(path) / "checkpoint.json"
    good = checkpoint.read_bytes()
    dice = random.Random(4)
    for place in sorted(dice.sample(range(len(good) - 1), 60)):
        checkpoint.write_bytes(good[:place] + bytes([good[place] ^ 1 << dice.randrange(7)]) + good[place + 1 :])
        with pytest.raises(ExportError):
            await Group(customers(60)).export(path)
    checkpoint.write_bytes(good)
    assert (await Group(customers(60)).export(path)).resumed


@pytest.mark.parametrize(("name", "options"), FORMS)
@pytest.mark.parametrize("damage", [cut, flipped, lambda _: b""])
async def test_a_damaged_file_is_named_and_restart_forgets_it(
    tmp_path: Path, name: str, options: dict[str, Any], damage: Any
) -> None:
    path = tmp_path / name
    work = await interrupted(path, **options)
    files = [file for file in work.rglob("*") if file.is_file() and file.name not in {"lock", "checkpoint.json"}]
    assert files
    for file in files:
        good = file.read_bytes()
        file.write_bytes(damage(good))
        text = await refused(path, **options)
        assert str(file) in text
        assert "restart=True" in text
        file.unlink()
        assert str(file) in await refused(path, **options)
        file.write_bytes(good)
    assert (await Group(customers(60)).export(path, **options)).resumed


async def test_what_stands_behind_the_checkpoint_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    work = await interrupted(path)
    with (work / "parts" / "x.csv").open("ab") as file:
        file.write(b"half a li" * 10_000)
    (work / "parts" / "x.csv.of-an-earlier-attempt").write_bytes(b"rubbish")
    assert (await Group(customers(60)).export(path)).resumed
    assert ids(path) == [f"c{number}" for number in range(60)]


async def test_what_no_checkpoint_names_is_not_among_the_parts(tmp_path: Path) -> None:
    path = tmp_path / "x"
    work = await interrupted(path, format="csv", rows_per_part=9)
    (work / "parts" / "part-00099.csv").write_bytes(b"rubbish")
    report = await Group(customers(60)).export(path, "csv", rows_per_part=9)
    assert left(path) == sorted([part.name for part in report.parts] + ["_manifest.json"])


async def test_files_without_a_checkpoint_are_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    work = await interrupted(path)
    (work / "checkpoint.json").unlink()
    text = await refused(path)
    assert str(work / "checkpoint.json") in text
    assert (await Group(customers(60)).export(path, restart=True)).rows == 60


@pytest.mark.parametrize(
    ("options", "changed", "text"),
    [
        ({"format": "csv"}, {"format": "ndjson"}, "begun with format='csv', and this call has 'ndjson'"),
        ({}, {"workspace_id": "other"}, "begun with workspace_id=None, and this call has 'other'"),
        (
            {"format": "csv", "rows_per_part": 8},
            {"rows_per_part": 9},
            "begun with rows_per_part=8, and this call has 9",
        ),
    ],
)
async def test_what_was_begun_otherwise_is_not_continued(
    tmp_path: Path, options: dict[str, Any], changed: dict[str, Any], text: str
) -> None:
    path = tmp_path / ("x" if options else "x.csv")
    await interrupted(path, **options)
    assert text in await refused(path, **(options | changed))
    assert (await Group(customers(60)).export(path, **options)).resumed


async def test_another_group_another_reading_and_another_way_to_read_profiles_do_not_continue(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    await interrupted(path)
    other = Group(customers(60))
    other.asks = {"customer_group_id": "other"}
    assert "begun with customer_group_id='g', and this call has 'other'" in await refused(path, other)
    assert "consistency='warn'" in await refused(path, Group(customers(60), consistency="dedupe"))
    assert "profiles='decrypted'" in await refused(path, Group(customers(60), decrypted=False))


async def test_a_cursor_that_the_iteration_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.csv"
    await interrupted(path)
    group = Group(customers(60))
    iterate = group.iterate

    def refusing(resume_from: str | None) -> Any:
        if resume_from is not None:
            raise ValueError("The cursor is of another query.")
        return iterate(None)

    monkeypatch.setattr(group, "iterate", refusing)
    text = await refused(path, group)
    assert "cannot go on where it stopped: The cursor is of another query. restart=True" in text


async def test_a_complete_file_that_somebody_took_away_is_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.csv"
    from nudgescribe_async.bulk.export.writing import Writing

    def never(_: Writing) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Writing, "_sweep", never)
        with pytest.raises(Stop):
            await Group(customers(6)).export(path)
    path.unlink()
    assert "somebody has removed it" in await refused(path)


# --- the disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "Free some space"), (errno.EACCES, "permissions"), (errno.EIO, "the same call goes on")],
)
@pytest.mark.parametrize("after", [1, 2, 9])
async def test_trouble_with_the_disk_is_told_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str, after: int
) -> None:
    path = tmp_path / "x.csv"
    write, writes = AppendFile.write, 0

    def full(file: AppendFile, data: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes > after:
            write(file, data[:3])
            raise OSError(number, os.strerror(number), str(file.path))
        write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "write", full)
        with pytest.raises(ExportError, match=advice) as failure:
            await Group(customers(60)).export(path)
    assert str(tmp_path / "x.csv.partial" / "parts" / "x.csv") in str(failure.value)
    assert isinstance(failure.value.__cause__, OSError)
    report = await Group(customers(60)).export(path)
    assert (report.resumed, ids(path)) == (True, [f"c{number}" for number in range(60)])


async def test_a_page_that_was_written_in_part_is_in_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.csv"
    write, writes = AppendFile.write, 0

    def full(file: AppendFile, data: bytes) -> None:
        nonlocal writes
        writes += file.path.name == "seen"
        if file.path.name == "seen" and writes == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(file.path))
        write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "write", full)
        with pytest.raises(ExportError, match="Free some space"):
            await Group(customers(60), consistency="dedupe").export(path, checkpoint_every=1_000)
    report = await Group(customers(60), consistency="dedupe").export(path)
    assert (report.rows, ids(path)) == (60, [f"c{number}" for number in range(60)])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
async def test_a_disk_that_is_really_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.csv"
    group = Group(customers(60))

    with monkeypatch.context() as patch:

        def swap(page: int) -> None:
            if page == 8:
                replace = "nudgescribe_async.bulk.export.checkpoint.replace_file"
                patch.setattr(replace, lambda _, data: Path("/dev/full").write_bytes(data))

        group.on_page = swap
        with pytest.raises(ExportError, match="Free some space"):
            await group.export(path)
    assert (await Group(customers(60)).export(path)).rows == 60
    assert ids(path) == [f"c{number}" for number in range(60)]


async def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x.csv.partial"))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(ExportError, match=r"Permission denied\. See to the permissions"):
        await Group(customers(3)).export(tmp_path / "x.csv")


# --- the service -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consistency", ["warn", "dedupe", "strict"])
async def test_a_page_that_cannot_be_had_is_told_and_the_same_call_goes_on(tmp_path: Path, consistency: Any) -> None:
    path = tmp_path / "x.csv"
    group = Group(customers(60), consistency=consistency)

    def fail(page: int) -> None:
        if page == 9:
            raise ServerError("The service failed", status=500, operation="customers.list")

    group.on_page = fail
    with pytest.raises(PageError, match="the same call goes on") as failure:
        await group.export(path)
    assert failure.value.page == 9
    again = Group(customers(60), consistency=consistency)
    report = await again.export(path)
    assert (report.resumed, report.rows, report.left_out, report.drift) == (True, 60, 0, ())
    assert min(again.asked) >= 8
    assert ids(path) == [f"c{number}" for number in range(60)]


async def test_a_group_that_is_gone_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    group = Group(customers(3))

    async def gone() -> int:
        raise BadRequestError("There is no such group", status=400)

    group._count = gone  # type: ignore[method-assign]
    with pytest.raises(NudgescribeError, match="no such group"):
        await group.export(tmp_path / "x.csv")
    assert left(tmp_path) == []


async def test_dedupe_leaves_out_who_came_before_the_interruption(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    people = customers(60)
    with pytest.raises(Stop):
        await stop_at(Group(people, consistency="dedupe"), 12).export(path)
    # Meanwhile, ten were added at the front: all who were written, and ten more, are behind where they were.
    shifted = [customer(number) for number in range(1_000, 1_010)] + people
    report = await Group(shifted, consistency="dedupe").export(path)
    assert report.resumed
    assert (report.again, report.left_out) == (10, 10)
    assert "10 customers came that an earlier call had written, and were left out." in report.drift
    manifest = json.loads((tmp_path / "x.csv.manifest.json").read_bytes())
    assert (manifest["left_out"], manifest["drift"]) == (10, list(report.drift))
    found = ids(path)
    assert len(found) == len(set(found)) == 60
    assert report.rows == 60


async def test_warn_reports_what_it_saw_in_every_call(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    people = customers(60)
    doubled = people[:8] + people[4:60]
    with pytest.raises(Stop):
        await stop_at(Group(doubled), 12).export(path)
    report = await Group(doubled).export(path)
    assert report.resumed
    assert any("came more than once" in sentence for sentence in report.drift)
    assert len(ids(path)) == 64
    manifest = json.loads((tmp_path / "x.csv.manifest.json").read_bytes())
    assert manifest["drift"] == list(report.drift)


async def test_strict_ends_with_the_first_change_and_what_it_wrote_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    people = customers(60)
    doubled = people[:24] + people[20:60]
    with pytest.raises(PageDriftError, match="restart=True"):
        await Group(doubled, consistency="strict").export(path)
    text = await refused(path, Group(people, consistency="strict"))
    assert "not to be trusted" in text
    report = await Group(people, consistency="strict").export(path, restart=True)
    assert (report.rows, report.drift) == (60, ())


async def test_strict_notices_who_came_before_the_interruption(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    people = customers(60)
    with pytest.raises(Stop):
        await stop_at(Group(people, consistency="strict"), 12).export(path)
    shifted = people[:]
    shifted[55] = customer(0)  # far from where it was
    with pytest.raises(PageDriftError):
        await Group(shifted, consistency="strict").export(path)
    assert "not to be trusted" in await refused(path, Group(people, consistency="strict"))


# --- the caller --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), FORMS)
async def test_cancelled_at_any_moment_again_and_again_it_gets_there(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    people = customers(120)
    await Group(people).export(tmp_path / f"straight-{name}", **options)
    path = tmp_path / name
    dice = random.Random(name)
    cancelled = 0
    report: ExportReport | None = None
    while report is None:
        group = Group(people)
        running = asyncio.create_task(group.export(path, **options))
        for _ in range(dice.randrange(40)):
            await asyncio.sleep(0)
        await asyncio.sleep(dice.choice([0, 0, 0.001, 0.003, 0.01, 0.02]))
        if cancelled < 12:
            running.cancel()
            if dice.random() < 0.5:
                await asyncio.sleep(0)
                running.cancel()
        try:
            report = await running
        except asyncio.CancelledError:
            cancelled += 1
            assert open_files(tmp_path) == []
            if path.exists():  # cancelled behind the last step
                break
    assert cancelled > 0
    straight, found = content(tmp_path / f"straight-{name}"), content(path)
    assert [*found.values()] == [*straight.values()]
    assert ids(path) == [person.customer_id for person in people]


def open_files(folder: Path) -> list[str]:
    """What this process has open below a folder."""
    names = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(each.readlink()))
        except OSError:
            continue
    return [name for name in names if name.startswith(str(folder))]


@pytest.mark.parametrize("everything", [False, True])
async def test_cancelling_waits_for_the_write_under_way_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, everything: bool
) -> None:
    path = tmp_path / "x.csv"
    writing, go = threading.Event(), threading.Event()
    write = AppendFile.write

    def slow(file: AppendFile, data: bytes) -> None:
        if b"c20," in data:
            writing.set()
            assert go.wait(10)
        write(file, data)

    monkeypatch.setattr(AppendFile, "write", slow)
    running = asyncio.create_task(Group(customers(60)).export(path, checkpoint_every=1_000))
    await asyncio.to_thread(writing.wait, 10)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(2):
        for task in others if everything else [running]:  # an event loop that shuts down cancels every task
            task.cancel()
        await asyncio.sleep(0.01)
    assert not running.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert open_files(tmp_path) == []
    state = json.loads((tmp_path / "x.csv.partial" / "checkpoint.json").read_bytes())["state"]
    assert state["pages"] == 6  # the page that was being written is among them
    again = Group(customers(60))
    assert (await again.export(path)).resumed
    assert ids(path) == [f"c{number}" for number in range(60)]


async def test_packing_is_interrupted_between_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nudgescribe_async.bulk.export.arrow.GROUP", 4)
    begun, go = threading.Event(), threading.Event()
    pauses = 0

    def slow(stream: Path, file: Path, *, pause: Any) -> None:
        def paused() -> None:
            nonlocal pauses
            pauses += 1
            begun.set()
            assert go.wait(10)
            pause()

        pack(stream, file, pause=paused)

    monkeypatch.setattr("nudgescribe_async.bulk.export.writing.pack", slow)
    running = asyncio.create_task(Group(customers(60)).export(tmp_path / "x.parquet", checkpoint_every=1_000))
    await asyncio.to_thread(begun.wait, 10)
    running.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pauses == 1
    again = Group(customers(60))
    report = await again.export(tmp_path / "x.parquet")
    assert (report.resumed, report.rows) == (True, 60)
    assert min(again.asked, default=15) >= 15  # nothing was read again
    assert ids(tmp_path / "x.parquet") == [f"c{number}" for number in range(60)]


async def test_with_the_columns_as_the_service_sends_them_no_field_is_asked_for(tmp_path: Path) -> None:
    group = Group(customers(6), decrypted=False)
    report = await group.export(tmp_path / "x.csv")
    assert group.fields_asked == []
    assert "extended_profile" in report.columns


async def test_the_workspace_is_the_one_given_or_that_of_the_first_customer(tmp_path: Path) -> None:
    group = Group([customer(1, workspace_id=None), customer(2)])
    await group.export(tmp_path / "1.csv")
    await group.export(tmp_path / "2.csv", workspace_id="mine")
    assert group.fields_asked == ["w", "mine"]
    nobody = Group([])
    assert "extended_profile" in (await nobody.export(tmp_path / "3.csv")).columns
    assert "points" in (await nobody.export(tmp_path / "4.csv", workspace_id="mine")).columns
    assert nobody.fields_asked == ["mine"]
