"""Files that survive a crash, where the system does not play along."""

from __future__ import annotations

import asyncio
import builtins
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import settle

from nudgescribe_async import ConfigurationError
from nudgescribe_async.bulk.files import AppendFile, InUseError, Lock, checksum, flush_folder, names_in, replace_file
from nudgescribe_async.threads import StoppedError, check, in_thread, stoppable


def open_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()]) if Path("/proc/self/fd").is_dir() else 0


def test_a_file_that_cannot_be_cut_back_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    file = AppendFile(path)
    file.write(b"good")
    size, sha256 = file.size, file.sha256
    file.write(b" and more")
    file.close()
    real = Path.open

    class Stubborn:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            if name == "truncate":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return getattr(self.file, name)

    def opened(path: Path, mode: str = "r", **options: Any) -> Any:
        file = real(path, mode, **options)
        return Stubborn(file) if mode == "r+b" else file

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            AppendFile(path, size=size, sha256=sha256)
    assert open_descriptors() == before
    again = AppendFile(path, size=size, sha256=sha256)
    again.close()
    assert path.read_bytes() == b"good"


@pytest.mark.parametrize(("number", "matters"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_folder_that_knows_no_fsync_is_forgiven_and_a_disk_that_fails_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, matters: bool
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        if matters:
            with pytest.raises(OSError, match=os.strerror(number)):
                flush_folder(tmp_path)
        else:
            flush_folder(tmp_path)
    assert open_descriptors() == before


def test_without_locks_of_the_system_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "fcntl":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match="POSIX file locks"):
        Lock(tmp_path / "lock")
    assert names_in(tmp_path) == set()


def test_a_lock_that_fails_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
            Lock(tmp_path / "lock")
    assert open_descriptors() == before
    with Lock(tmp_path / "lock"), pytest.raises(InUseError):
        Lock(tmp_path / "lock")
    assert open_descriptors() == before


def test_a_lock_says_who_holds_it_until_it_is_signed_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock(path) as lock:
        assert lock.signature() == ""
        lock.sign("the first, with a long name")
        assert path.read_text() == lock.signature() == "the first, with a long name"
        lock.sign("2nd")
        assert path.read_text() == "2nd"
    assert path.read_text() == "2nd"  # as after a crash
    with Lock(path) as lock:
        assert lock.signature() == "2nd"
        lock.sign("")
    assert path.read_bytes() == b""


def test_a_disk_that_is_full_leaves_the_signature_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Lock(tmp_path / "lock") as lock:
        lock.sign("before")
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                lock.sign("after")
        assert lock.signature() == "before"


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    replace_file(path, b"old")

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert (path.read_bytes(), names_in(tmp_path)) == (b"new", {"a.json"})


def test_a_checksum_can_be_told_to_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    stop = threading.Event()
    assert checksum(path, 40, pause=lambda: check(stop))[1] == 40
    stop.set()
    with pytest.raises(StoppedError):
        checksum(path, pause=lambda: check(stop))


# --- threads -----------------------------------------------------------------------------------------------------------


async def test_whoever_is_cancelled_waits_for_the_thread_however_often() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(3):
        task.cancel()
        await settle()
        assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_long_work_is_told_to_end() -> None:
    stop, begun = threading.Event(), threading.Event()

    def work() -> None:
        while True:
            begun.set()
            check(stop)

    task = asyncio.create_task(stoppable(stop, work))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_the_thread_gives_or_raises_is_the_result() -> None:
    assert await in_thread(int, "7") == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "seven")


def test_an_event_loop_that_shuts_down_waits_for_the_thread() -> None:
    """It cancels every task, also those that nobody sees, but no thread."""
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        threading.Event().wait(0.2)
        ended.set()

    async def main() -> None:
        task = asyncio.create_task(in_thread(work))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.add_done_callback(lambda _: order.append(ended.is_set()))

    order = list[bool]()
    asyncio.run(main())
    assert order == [True]
