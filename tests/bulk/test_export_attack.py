"""What somebody found who tried to make an export lose, mix up or tell something."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from bulk.export_source import Group, customer, customers, ids, left
from fsspec.implementations.memory import MemoryFileSystem

from nudgescribe_async.bulk.export.plan import plan_of, shown
from nudgescribe_async.bulk.export.remote import Remote
from nudgescribe_async.bulk.export.target import LocalFile, LocalFolder
from nudgescribe_async.bulk.export.writing import Writing
from nudgescribe_async.errors import ExportError

PARTS: dict[str, Any] = {"format": "ndjson", "rows_per_part": 8}


class Killed(BaseException):
    pass


class Down(Exception):  # noqa: N818 - no error of the package
    pass


@pytest.fixture(autouse=True)
def storage(temporary: Path) -> Any:
    """An empty storage."""
    return fsspec.filesystem("memory")


async def killed_at(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, group: Group, destination: Path | str, **options: Any
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        with pytest.raises(Killed):
            await group.export(destination, **options)


def down(page: int) -> None:
    raise Down(page)


def down_from(page: int) -> Callable[[int], None]:
    def look(asked: int) -> None:
        if asked >= page:
            raise Down

    return look


# --- all is written, but the report was not handed over -------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.ndjson", "x.parquet"])
@pytest.mark.parametrize("cut", [0, 3])
async def test_a_file_that_was_damaged_before_it_was_renamed_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, cut: int
) -> None:
    group, file = Group(customers(20)), tmp_path / name
    await killed_at(monkeypatch, LocalFile, "publish", group, file)
    part = tmp_path / f"{name}.partial" / "parts" / name
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data[: len(data) - cut])
    with pytest.raises(ExportError, match="is not what was written"):
        await group.export(file)
    assert not file.exists()
    assert (await group.export(file, restart=True)).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


async def test_an_old_file_is_not_taken_for_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group, file = Group(customers(20)), tmp_path / "x.ndjson"
    file.write_text("OLD\n")
    await killed_at(monkeypatch, LocalFile, "publish", group, file, overwrite=True)
    shutil.rmtree(tmp_path / "x.ndjson.partial" / "parts")
    with pytest.raises(ExportError, match="is not what was written"):
        await group.export(file, overwrite=True)
    assert file.read_text() == "OLD\n"


async def test_a_file_of_somebody_else_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group, file = Group(customers(20)), tmp_path / "x.ndjson"
    await killed_at(monkeypatch, Writing, "_sweep", group, file)
    file.write_bytes(file.read_bytes()[::-1])  # as long as it was
    with pytest.raises(ExportError, match="somebody has changed it"):
        await group.export(file)


@pytest.mark.parametrize("step", ["publish", "_sweep"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
async def test_a_folder_whose_part_is_not_there_or_another_one_is_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, damage: str
) -> None:
    group, folder = Group(customers(20)), tmp_path / "x"
    await killed_at(monkeypatch, LocalFolder if step == "publish" else Writing, step, group, folder, **PARTS)
    parts = tmp_path / "x.partial" / "parts" if step == "publish" else folder
    part = parts / "part-00002.ndjson"
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[::-1])
    with pytest.raises(ExportError, match=r"is missing|is not what was written|has removed it"):
        await group.export(folder, **PARTS)
    assert folder.exists() == (step == "_sweep")


async def test_restart_does_not_destroy_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group, folder, replace = Group(customers(20)), tmp_path / "x", Path.replace

    def die(self: Path, to: Path) -> Path:
        if self.name == "parts":
            raise Killed
        return replace(self, to)

    await group.export(folder, **PARTS)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(Killed):
            await group.export(folder, overwrite=True, **PARTS)
    assert not folder.exists()  # between the two renames
    group.on_page = down
    with pytest.raises(Down):
        await group.export(folder, overwrite=True, restart=True, **PARTS)
    assert ids(folder) == [f"c{number}" for number in range(20)]
    group.on_page = lambda _: None
    assert (await group.export(folder, overwrite=True, **PARTS)).rows == 20
    assert left(tmp_path) == ["temporary", "x"]


async def test_a_kill_between_rename_and_manifest_leaves_no_old_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, manifest = tmp_path / "x.ndjson", tmp_path / "x.ndjson.manifest.json"
    await Group(customers(5)).export(file)
    group = Group(customers(20))
    with monkeypatch.context() as patch:
        patch.setattr("nudgescribe_async.bulk.export.target._see", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            await group.export(file, overwrite=True)
    assert (len(ids(file)), manifest.exists()) == (20, False)
    report = await group.export(file, overwrite=True)
    assert json.loads(manifest.read_bytes())["sha256"] == report.sha256


# --- storages --------------------------------------------------------------------------------------------------------


def named(letter: str, group_id: str) -> Group:
    group = Group([customer(number, customer_id=f"{letter}{number:03}") for number in range(40)])
    group.asks = {"customer_group_id": group_id}
    return group


@pytest.mark.parametrize("other_spool", [False, True])
@pytest.mark.parametrize(("url", "options"), [("memory://b/out", PARTS), ("memory://b/out.ndjson", {})])
async def test_two_exports_to_one_url_at_once_are_refused(
    tmp_path: Path, storage: Any, url: str, options: dict[str, Any], other_spool: bool
) -> None:
    spools: list[dict[str, Any]] = [{"spool": tmp_path / "1"}, {"spool": tmp_path / "2"} if other_spool else {}]
    results = await asyncio.gather(
        named("A", "g").export(url, **options, **spools[0]),
        named("B", "h").export(url, **options, **spools[1]),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, ExportError)]
    assert [error.message.partition(".")[0] for error in refused] == [
        f"Another export is writing to {url}".partition(".")[0]
    ]
    letter = b'"B0' if isinstance(results[0], ExportError) else b'"A0'
    files = [path for path in storage.find("/b") if not path.endswith("manifest.json")]
    assert all(b'"customer_id":' + letter in storage.cat_file(path) for path in files)
    assert left(tmp_path / "temporary" / f"nudgescribe-{os.getuid()}") == []


async def test_a_destination_can_be_had_when_the_other_export_has_ended(storage: Any) -> None:
    await named("A", "g").export("memory://b/1.csv")
    await named("B", "h").export("memory://b/1.csv", overwrite=True)
    assert b"\nB000" in storage.cat_file("/b/1.csv")


async def test_a_complete_export_that_came_before_the_first_part_is_kept(tmp_path: Path, storage: Any) -> None:
    mine, other = named("A", "g"), named("B", "h")
    mine.on_page = down_from(3)
    options: dict[str, Any] = {"format": "ndjson", "rows_per_part": 100}
    with pytest.raises(Down):
        await mine.export("memory://b/out", **options, spool=tmp_path / "1")
    await other.export("memory://b/out", **PARTS, spool=tmp_path / "2")
    before = {path: storage.cat_file(path) for path in storage.find("/b")}
    mine.on_page = lambda _: None
    with pytest.raises(ExportError, match="exists, and was made meanwhile"):
        await mine.export("memory://b/out", **options, spool=tmp_path / "1")
    assert {path: storage.cat_file(path) for path in storage.find("/b")} == before


@pytest.mark.parametrize("page", [6, 10])
async def test_a_complete_export_that_came_between_two_parts_is_kept(tmp_path: Path, storage: Any, page: int) -> None:
    mine, other = named("A", "g"), named("B", "h")
    mine.on_page = down_from(page)
    with pytest.raises(Down):
        await mine.export("memory://b/out", **PARTS, overwrite=True)
    await other.export("memory://b/out", **PARTS, overwrite=True)
    before = {path: storage.cat_file(path) for path in storage.find("/b")}
    mine.on_page = lambda _: None
    with pytest.raises(ExportError, match="somebody else has put there meanwhile"):
        await mine.export("memory://b/out", **PARTS, overwrite=True)
    assert {path: storage.cat_file(path) for path in storage.find("/b")} == before


async def test_an_export_made_while_the_last_manifest_was_missing_is_kept(
    storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = named("A", "g"), named("B", "h")
    await killed_at(monkeypatch, Remote, "publish", mine, "memory://b/out", **PARTS)
    await other.export("memory://b/out", **PARTS, overwrite=True)
    before = {path: storage.cat_file(path) for path in storage.find("/b")}
    with pytest.raises(ExportError, match="somebody else has put there meanwhile"):
        await mine.export("memory://b/out", **PARTS)
    assert {path: storage.cat_file(path) for path in storage.find("/b")} == before


async def test_parts_of_another_export_are_only_removed_if_they_are_to_be(
    storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = named("A", "g")
    await killed_at(monkeypatch, Remote, "publish", group, "memory://b/out", **PARTS)
    storage.pipe_file("/b/out/part-00099.ndjson", b"theirs")
    with pytest.raises(ExportError, match=r"part-00099\.ndjson.*overwrite=True"):
        await group.export("memory://b/out", **PARTS)
    assert storage.cat_file("/b/out/part-00099.ndjson") == b"theirs"
    await group.export("memory://b/out", **PARTS, overwrite=True)
    assert not storage.exists("/b/out/part-00099.ndjson")


@pytest.mark.parametrize("step", ["publish", "_sweep"])
async def test_a_file_of_the_same_size_is_not_replaced_and_not_reported(
    storage: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    group = named("A", "g")
    size = (await named("A", "g").export("memory://b/other.csv")).bytes
    await killed_at(monkeypatch, Remote if step == "publish" else Writing, step, group, "memory://b/x.csv")
    storage.pipe_file("/b/x.csv", b"x" * size)
    with pytest.raises(ExportError, match="exists"):
        await group.export("memory://b/x.csv")
    assert storage.cat_file("/b/x.csv") == b"x" * size


async def test_a_file_of_the_same_size_is_not_reported_once_nothing_is_left_here(
    storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = named("A", "g")
    real = Writing.finish

    def die(self: Writing, run: Any) -> Any:
        real(self, run)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Writing, "finish", die)
        with pytest.raises(Killed):
            await group.export("memory://b/x.csv")
    storage.pipe_file("/b/x.csv", b"x" * len(storage.cat_file("/b/x.csv")))
    with pytest.raises(ExportError, match="somebody else has put there meanwhile"):
        await group.export("memory://b/x.csv")


async def test_a_move_that_broke_off_halfway_is_done_again(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: Any, path: str, to: str, **_: Any) -> None:
        self.pipe_file(to, b"half")
        raise ConnectionError("gone")

    group = Group(customers(20))
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cp_file", half)
        with pytest.raises(ExportError, match="moved into its place"):
            await group.export("memory://b/x.csv")
    assert (await group.export("memory://b/x.csv")).rows == 20
    assert sorted(storage.find("/b")) == ["/b/x.csv", "/b/x.csv.manifest.json"]


async def test_a_move_that_only_left_its_source_behind_is_tidied(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stay(self: Any, path: str, to: str, **_: Any) -> None:
        self.cp_file(path, to)
        raise ConnectionError("gone")

    group = Group(customers(20))
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "mv", stay)
        with pytest.raises(ExportError, match="moved into its place"):
            await group.export("memory://b/x.csv")
    assert (await group.export("memory://b/x.csv")).rows == 20
    assert sorted(storage.find("/b")) == ["/b/x.csv", "/b/x.csv.manifest.json"]


async def test_what_somebody_calls_so_is_not_overwritten_on_the_way(storage: Any) -> None:
    for suffix in (".partial", ".uploading"):
        storage.pipe_file(f"/b/x.csv{suffix}", b"somebody's")
    await Group(customers(20)).export("memory://b/x.csv")
    assert [storage.cat_file(f"/b/x.csv{suffix}") for suffix in (".partial", ".uploading")] == [b"somebody's"] * 2


# --- URLs and secrets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://user:p@MARKED@host/x.csv",
        "ftp://user:MAR/MARKED@host/x.csv",
        "ftp://user:12/MARKED@host/x.csv",
        "ftp://user:p@MARKED/MARKED@host/x.csv",
        "ftp://user:MARKED#MARKED@host/x.csv",
        "ftp://user:MARKED?MARKED@host/x.csv",
        "ftp://MARKED#MARKED@host/x.csv",
        "simplecache::ftp://user:MAR/MARKED@host/x.csv",
        "zip://x.csv::ftp://user:MAR/MARKED@host/x.csv",
    ],
)
def test_no_part_of_a_password_is_shown_whatever_is_in_it(url: str) -> None:
    assert "MAR" not in shown(url)
    assert shown(url).endswith("host/x.csv")
    try:
        plan = plan_of(url, None, rows_per_part=None, asked={})
    except ValueError as error:
        assert "%2F" in str(error)  # noqa: PT017
        assert "MAR" not in "".join(traceback.format_exception_only(error))  # noqa: PT017
    else:
        assert "MAR" not in repr(plan) + json.dumps(dict(plan.asked))


@pytest.mark.parametrize(
    "url", ["zip://x.csv::ftp://u:p@h/a.zip", "ftp://h:21/x.csv", "https://h/x.csv?sig=a:b%40", "s3://b/a@b:1/x.csv"]
)
def test_urls_with_a_clear_password_or_none_are_taken(url: str) -> None:
    plan_of(url, "csv", rows_per_part=None, asked={})


@pytest.mark.parametrize("url", ["memory://", "s3://", "file:///", "simplecache::s3://", "s3://?x=1"])
async def test_a_url_of_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="Put the name"):
        await Group(customers(3)).export(url, "ndjson")
    assert left(tmp_path) == ["temporary"]


def test_a_secret_is_masked_in_all_the_ways_of_writing_it() -> None:
    options = {"secret": "ab/cd+ef==", "password": "it's a\\x", "line": "\nMARKED"}
    remote = Remote(plan_of("s3://b/x.csv", None, rows_per_part=None, asked={}), options=options, spool=None)
    said = remote._masked("ab/cd+ef== ab%2Fcd%2Bef%3D%3D it%27s+a%5Cx " + repr("it's a\\x") + repr("\nMARKED"))
    assert [word for word in ("ab", "cd", "it", "MARKED") if word in said] == []
    assert remote._masked("of x://a:b@MARKED@host") == "of x://***@host."


# --- what is in it, and what it is called ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (b"caf\xe9.ndjson", {}),
        (b"caf\xe9.parquet", {}),
        (b"caf\xe9", {"format": "csv", "rows_per_part": 8}),
        (b"caf\xe9", {"format": "parquet", "rows_per_part": 8}),
    ],
)
async def test_a_name_that_is_not_utf_8_is_a_name(tmp_path: Path, name: bytes, options: dict[str, Any]) -> None:
    path = tmp_path / os.fsdecode(name)
    report = await Group(customers(20)).export(path, **options)
    manifest = path / "_manifest.json" if options else Path(f"{path}.manifest.json")
    parts = json.loads(manifest.read_bytes())["parts"]
    assert (report.rows, [part["name"] for part in parts]) == (20, [part.name for part in report.parts])


def nested(depth: int) -> object:
    value: object = "MARKED"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("name", ["x.ndjson", "x.csv", "x.parquet"])
@pytest.mark.parametrize("value", [nested(100_000), 10**5_000, {("MARKED", 1): 2}], ids=["deep", "long", "key"])
async def test_what_no_format_holds_is_told_with_its_customer(tmp_path: Path, name: str, value: object) -> None:
    people = customers(3)
    people[1] = customer(1, extended_profile={"undeclared": value})
    with pytest.raises(ExportError, match="Customer 'c1' cannot be written") as failure:
        await Group(people, size=3).export(tmp_path / name)
    error = failure.value
    assert "MARKED" not in "".join(traceback.format_exception(error))
    assert (error.__cause__, error.__context__) == (None, None)


async def test_columns_are_those_of_the_first_customer_though_the_first_pages_are_empty(tmp_path: Path) -> None:
    group = Group(customers(20))
    fetch, straight = group._fetch, await Group(customers(20)[8:]).export(tmp_path / "1.csv")

    async def some(page: int) -> Any:
        return [] if page <= 2 else await fetch(page)

    group._fetch = some  # type: ignore[method-assign]
    report = await group.export(tmp_path / "2.csv")
    assert (report.columns, report.rows, report.pages) == (straight.columns, 12, 5)
    assert (tmp_path / "2.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()


# --- on_progress ----------------------------------------------------------------------------------------------------


async def test_an_object_with_an_asynchronous_call_is_refused(tmp_path: Path) -> None:
    class Show:
        async def __call__(self, _: Any) -> None:
            raise AssertionError

    with pytest.raises(TypeError, match="on_progress must be a plain function, not a coroutine function"):
        await Group(customers(3)).export(tmp_path / "x.csv", on_progress=Show())
    assert left(tmp_path) == ["temporary"]


async def test_a_coroutine_that_comes_back_is_closed_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "nudgescribe_async"):
        await Group(customers(3)).export(tmp_path / "x.csv", on_progress=lambda _: asyncio.sleep(0))
    assert "on_progress returned a coroutine" in caplog.text
