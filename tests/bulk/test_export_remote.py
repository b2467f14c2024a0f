"""Exports to where fsspec leads; and nothing that is secret is anywhere in what they leave and say."""

from __future__ import annotations

import json
import logging
import os
import pickle
import stat
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from bulk.export_source import Group, content, customer, customers, ids, left
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from nudgescribe_async import ConfigurationError
from nudgescribe_async.bulk.export.plan import shown
from nudgescribe_async.errors import ExportError

if TYPE_CHECKING:
    from nudgescribe_async.endpoints.models import Customer

pytestmark = pytest.mark.usefixtures("temporary")
SECRETS = ("pass-MARKED", "token-MARKED", "option-MARKED", "nested-MARKED")
OPTIONS = {"secret": "option-MARKED", "client_kwargs": {"keys": ["nested-MARKED"]}}


class Stop(Exception):  # noqa: N818 - no error of the package
    pass


def stop_at(page: int, at: int) -> None:
    if page == at:
        raise Stop


class Vault(MemoryFileSystem):  # type: ignore[misc]
    """A storage with secrets, which talks too much when something goes wrong."""

    protocol = "vault"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its base has it
    pseudo_dirs: list[str] = [""]  # noqa: RUF012 - as its base has it
    cachable = False
    broken: Exception | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.given = options

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(
            super()._strip_protocol("memory://" + (path.partition("://")[2] or path).rpartition("@")[2].split("?")[0])
        )

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        if self.broken is not None:
            raise type(self.broken)(f"{self.broken} for vault://user:pass-MARKED@host {self.given}")
        super().put_file(lpath, rpath, **options)


fsspec.register_implementation("vault", Vault)


def stored(protocol: str = "memory") -> dict[str, bytes]:
    storage = fsspec.filesystem(protocol)
    return {path: storage.cat_file(path) for path in storage.find("/")}


async def straight(folder: Path, name: str, people: int = 60, **options: Any) -> dict[str, bytes]:
    await Group(customers(people)).export(folder / name, **options)
    return content(folder / name)


async def test_a_file_is_put_in_its_place_with_its_manifest(tmp_path: Path, temporary: Path) -> None:
    report = await Group(customers(60)).export("memory://bucket/a/x.csv")
    files = stored()
    assert set(files) == {"/bucket/a/x.csv", "/bucket/a/x.csv.manifest.json"}
    assert [files["/bucket/a/x.csv"]] == [*(await straight(tmp_path, "x.csv")).values()]
    assert (report.destination, report.manifest) == ("memory://bucket/a/x.csv", "memory://bucket/a/x.csv.manifest.json")
    assert json.loads(files["/bucket/a/x.csv.manifest.json"])["sha256"] == report.sha256
    assert left(temporary / f"nudgescribe-{os.getuid()}") == []


async def test_a_url_of_a_file_is_one_of_the_disk(tmp_path: Path) -> None:
    await Group(customers(60)).export(f"file://{tmp_path}/there/x.parquet")
    assert left(tmp_path / "there") == ["x.parquet", "x.parquet.manifest.json"]
    assert ids(tmp_path / "there" / "x.parquet") == [f"c{number}" for number in range(60)]


@pytest.mark.parametrize("protocol", ["memory", "file"])
async def test_parts_are_put_as_soon_as_they_are_complete(tmp_path: Path, temporary: Path, protocol: str) -> None:
    url = f"file://{tmp_path}/there" if protocol == "file" else "memory://there"
    storage = fsspec.filesystem(protocol)
    path = url.partition("://")[2] if protocol == "file" else "/there"
    group, seen, waiting = Group(customers(60)), list[int](), list[int]()

    def on_progress(_: Any) -> None:
        if storage.exists(path):
            seen.append(len(storage.ls(path)))
        (work,) = (path for path in (temporary / f"nudgescribe-{os.getuid()}").iterdir() if path.is_dir())
        waiting.append(len(left(work / "parts")))

    options: dict[str, Any] = {"format": "parquet", "rows_per_part": 9}
    report = await group.export(url, on_progress=on_progress, **options)
    assert set(waiting) <= {0, 1}
    assert len(waiting) == 15
    assert seen[0] == 1
    assert seen[-1] == 5
    expected = await straight(tmp_path, "straight", **options)
    assert {name: storage.cat_file(f"{path}/{name}") for name in expected} == expected
    assert json.loads(storage.cat_file(f"{path}/_manifest.json"))["sha256"] == report.sha256


@pytest.mark.parametrize("options", [{}, {"format": "csv", "rows_per_part": 9}])
async def test_what_was_interrupted_goes_on_from_the_spool(tmp_path: Path, options: dict[str, Any]) -> None:
    def stop(page: int) -> None:
        if page == 12:
            raise Stop

    group = Group(customers(60))
    group.on_page = stop
    with pytest.raises(Stop):
        await group.export("memory://there/x.csv", **options)
    again = Group(customers(60))
    report = await again.export("memory://there/x.csv", **options)
    assert report.resumed
    assert min(again.asked) > 5
    expected = await straight(tmp_path, "x.csv", **options)
    found = {path.rpartition("/")[2]: data for path, data in stored().items() if not path.endswith("manifest.json")}
    assert found == expected


@pytest.mark.parametrize("options", [{}, {"format": "csv", "rows_per_part": 9}])
async def test_a_storage_that_fails_is_told_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    put, puts = MemoryFileSystem.put_file, 0

    def fail(self: MemoryFileSystem, lpath: str, rpath: str, **more: Any) -> None:
        nonlocal puts
        puts += 1
        if puts % 2:
            put(self, lpath, rpath, **more)
            self.pipe_file(rpath, self.cat_file(rpath)[:-5])
            raise ConnectionError("gone")
        put(self, lpath, rpath, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", fail)
    failures = 0
    report = None
    while report is None:
        try:
            report = await Group(customers(60)).export("memory://there/x.csv", **options)
        except ExportError as error:
            failures += 1
            assert "ConnectionError: gone" in error.message  # noqa: PT017
            assert "the same call goes on" in error.message  # noqa: PT017
    assert failures == len(report.parts)
    assert (report.resumed, report.rows) == (True, 60)
    expected = await straight(tmp_path, "x.csv", **options)
    found = {path.rpartition("/")[2]: data for path, data in stored().items() if not path.endswith("manifest.json")}
    assert found == expected


async def test_a_part_that_somebody_removes_is_noticed() -> None:
    storage = fsspec.filesystem("memory")
    group = Group(customers(60))
    group.on_page = lambda page: storage.rm("/there/part-00001.csv") if page == 12 else None
    with pytest.raises(ExportError, match=r"part-00001\.csv is not there"):
        await group.export("memory://there", "csv", rows_per_part=9)
    assert "/there/_manifest.json" not in stored()


@pytest.mark.parametrize("options", [{}, {"format": "csv", "rows_per_part": 9}])
async def test_what_exists_there_is_kept_unless_it_is_to_be_replaced(options: dict[str, Any]) -> None:
    await Group(customers(60)).export("memory://there/x.csv", **options)
    before = stored()
    group = Group(customers(5))
    with pytest.raises(ExportError, match=r"memory://there/x\.csv exists.*overwrite=True"):
        await group.export("memory://there/x.csv", **options)
    assert (stored(), group.asked) == (before, [])
    report = await group.export("memory://there/x.csv", overwrite=True, **options)
    assert report.rows == 5
    assert len(stored()) == 2  # no part of the larger one is left


async def test_parts_that_are_being_replaced_have_no_manifest() -> None:
    options: dict[str, Any] = {"format": "csv", "rows_per_part": 9}
    await Group(customers(60)).export("memory://there", **options)
    seen: list[tuple[int, bool]] = []

    def on_progress(progress: Any) -> None:
        seen.append((progress.pages, "/there/_manifest.json" in stored()))

    await Group(customers(60)).export("memory://there", overwrite=True, on_progress=on_progress, **options)
    assert [there for pages, there in seen if pages < 3] == [True, True]
    assert not any(there for pages, there in seen if pages >= 3)
    assert "/there/_manifest.json" in stored()


@pytest.mark.parametrize("options", [{}, {"format": "csv", "rows_per_part": 9}])
async def test_what_is_replaced_is_replaced_though_it_has_the_same_size(options: dict[str, Any]) -> None:
    def people(letter: str) -> list[Customer]:
        return [customer(7, customer_id=f"{letter}{number:02d}", extended_profile={}) for number in range(20)]

    await Group(people("a")).export("memory://there/x.csv", **options)
    old = stored()
    await Group(people("b")).export("memory://there/x.csv", overwrite=True, **options)
    new = stored()
    assert {path: len(data) for path, data in old.items() if path.endswith(".csv")} == {
        path: len(data) for path, data in new.items() if path.endswith(".csv")
    }
    assert not [path for path, data in new.items() if path.endswith(".csv") and (b"\na0" in data or b"\na1" in data)]


async def test_the_spool_is_for_its_owner_alone(tmp_path: Path, temporary: Path) -> None:
    modes: list[int] = []

    def on_progress(_: Any) -> None:
        spool = temporary / f"nudgescribe-{os.getuid()}"
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in (spool, *spool.iterdir()))

    await Group(customers(6)).export("memory://x.csv", on_progress=on_progress)
    assert set(modes) == {0o700, 0o600}  # the folders, and the lock of the destination
    spool = temporary / f"nudgescribe-{os.getuid()}"
    spool.chmod(0o755)
    with pytest.raises(ExportError, match="not a folder of yours alone"):
        await Group(customers(6)).export("memory://y.csv")
    await Group(customers(6)).export("memory://y.csv", spool=tmp_path / "mine")
    assert left(tmp_path / "mine") == []
    spool.rmdir()
    spool.symlink_to(tmp_path)
    with pytest.raises(ExportError, match="not a folder of yours alone"):
        await Group(customers(6)).export("memory://z.csv")


async def test_without_fsspec_it_says_what_to_install(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    group = Group(customers(3))
    with pytest.raises(ConfigurationError, match=r"nudgescribe_async\[fsspec\]"):
        await group.export("memory://x.csv")
    assert group.asked == []


async def test_what_cannot_be_written_to_is_told_before_anything_is_read() -> None:
    group = Group(customers(3))
    with pytest.raises(ExportError, match=r"cannot be (opened|looked at|written)") as failure:
        await group.export("http://127.0.0.1:9/x.csv")
    assert "is kept" not in failure.value.message  # nothing was written
    assert group.asked == []


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nosuchthing://u:pass-MARKED@h/x.csv", "nosuchthing://h/x.csv cannot be opened: fsspec knows no storage 'nos"),
        ("absent://u:pass-MARKED@h/x.csv", "absent://h/x.csv cannot be opened: Install it: pip install absentfs."),
        ("simplecache::absent://h/x.csv", "simplecache::absent://h/x.csv cannot be opened: Install it: pip install a"),
    ],
)
async def test_a_storage_whose_package_is_missing_says_what_to_install(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, url: str, text: str
) -> None:
    entry = {"class": "absentfs.AbsentFileSystem", "err": "Install it"}
    monkeypatch.setitem(known_implementations, "absent", entry)
    group = Group(customers(3))
    with pytest.raises(ConfigurationError) as failure:
        await group.export(url)
    assert text in failure.value.message
    assert "MARKED" not in "".join(traceback.format_exception(failure.value))
    assert failure.value.__context__ is None
    assert group.asked == []
    assert left(temporary / f"nudgescribe-{os.getuid()}") == []


async def test_what_an_export_to_the_disk_left_does_not_block_a_url_of_the_same_file(tmp_path: Path) -> None:
    group = Group(customers(60))
    group.on_page = lambda page: stop_at(page, 12)
    with pytest.raises(Stop):
        await group.export(tmp_path / "x.csv")
    assert (tmp_path / "x.csv.partial").is_dir()
    report = await Group(customers(60)).export(f"file://{tmp_path}/x.csv")
    assert (report.resumed, len(ids(tmp_path / "x.csv"))) == (False, 60)
    assert left(tmp_path) == ["temporary", "x.csv", "x.csv.manifest.json", "x.csv.partial"]


async def test_parts_whose_spool_is_lost_are_said_to_be_unfinished(tmp_path: Path) -> None:
    options: dict[str, Any] = {"format": "csv", "rows_per_part": 9}
    group = Group(customers(60))
    group.on_page = lambda page: stop_at(page, 12)
    with pytest.raises(Stop):
        await group.export("memory://there", spool=tmp_path / "lost", **options)
    with pytest.raises(ExportError, match=r"exists\. It has no _manifest\.json, so no export has ended there"):
        await Group(customers(60)).export("memory://there", spool=tmp_path / "other", **options)
    await Group(customers(60)).export("memory://there", spool=tmp_path / "other", overwrite=True, **options)
    with pytest.raises(ExportError, match=r"exists\. Choose another") as failure:
        await Group(customers(60)).export("memory://there", spool=tmp_path / "other", **options)
    assert "_manifest" not in failure.value.message


async def test_what_is_left_in_the_spool_is_forgotten_on_restart(tmp_path: Path) -> None:
    group = Group(customers(60))
    group.on_page = lambda page: stop_at(page, 12)
    with pytest.raises(Stop):
        await group.export("memory://x.csv", spool=tmp_path / "mine")
    (work,) = (tmp_path / "mine").iterdir()
    assert (stat.S_IMODE((tmp_path / "mine").stat().st_mode), stat.S_IMODE(work.stat().st_mode)) == (0o700, 0o700)
    again = Group(customers(3))
    report = await again.export("memory://x.csv", spool=tmp_path / "mine", restart=True)
    assert (report.resumed, report.rows) == (False, 3)
    assert left(tmp_path / "mine") == []


# --- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://key:pass@bucket/x.csv", "s3://bucket/x.csv"),
        ("https://h/x.csv?sig=1#f", "https://h/x.csv"),
        ("simplecache::ftp://u:p@h/x.csv", "simplecache::ftp://h/x.csv"),
        ("s3://bucket/a@b/x.csv", "s3://bucket/a@b/x.csv"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, text: str) -> None:
    assert shown(url) == text


async def test_no_secret_is_anywhere(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = "vault://user:pass-MARKED@host/x.csv?token=token-MARKED"
    group = Group(customers(30))
    said: list[str] = []
    for broken in (PermissionError("denied"), ValueError("what"), OSError("trouble")):
        monkeypatch.setattr(Vault, "broken", broken)
        with pytest.raises(ExportError) as failure:
            await group.export(url, storage_options=OPTIONS)
        error = failure.value
        said += [str(error), repr(error), "".join(traceback.format_exception(error))]
        assert error.__cause__ is None
        assert error.__context__ is None
        assert pickle.loads(pickle.dumps(error)).message == error.message
        assert "***" in error.message
        assert "vault://host/x.csv" in error.message
    said += [name + data.decode(errors="replace") for name, data in content(temporary).items()]
    monkeypatch.setattr(Vault, "broken", None)
    report = await group.export(url, storage_options=OPTIONS)
    assert report.resumed
    said += [repr(report), str(report), caplog.text]
    said += [path + data.decode(errors="replace") for path, data in stored("vault").items()]
    for secret in SECRETS:
        assert not [text for text in said if secret in text]


async def test_a_repr_shows_no_secret(tmp_path: Path) -> None:
    from nudgescribe_async.bulk.export.plan import plan_of
    from nudgescribe_async.bulk.export.remote import Remote

    plan = plan_of("s3://u:pass-MARKED@bucket/x.csv", None, rows_per_part=None, asked={})
    target = Remote(plan, options=OPTIONS, spool=tmp_path)
    assert not [secret for secret in SECRETS if secret in repr(plan) + repr(target) + json.dumps(dict(plan.asked))]
    assert "bucket" in repr(target)


async def test_to_begin_anew_where_parts_are_already_takes_both(tmp_path: Path) -> None:
    def stop(page: int) -> None:
        if page == 12:
            raise Stop

    options: dict[str, Any] = {"format": "csv", "rows_per_part": 9}
    group = Group(customers(60))
    group.on_page = stop
    with pytest.raises(Stop):
        await group.export("memory://there", **options)
    with pytest.raises(ExportError, match="overwrite=True"):
        await Group(customers(20)).export("memory://there", restart=True, **options)
    report = await Group(customers(20)).export("memory://there", restart=True, overwrite=True, **options)
    assert (report.resumed, report.rows) == (False, 20)
    expected = await straight(tmp_path, "x", 20, **options)
    found = {path.rpartition("/")[2]: data for path, data in stored().items() if not path.endswith("manifest.json")}
    assert found == expected
