"""Files that survive a crash: appended to, cut back, replaced as a whole, locked. Blocking: called in a thread.

What ``fsync`` has promised is there after a crash of the machine; a file that is renamed is the old one or the
new one, and never half of either.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nudgescribe_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = [
    "AppendFile",
    "InUseError",
    "Lock",
    "canonical",
    "checksum",
    "flush_file",
    "flush_folder",
    "is_private",
    "names_in",
    "own_folder",
    "replace_file",
]

CHUNK = 2**20
_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP}
"""What file systems say that have no fsync for folders."""
_SIGNATURE = 4096
"""How much is read of what a lock is signed with; bytes."""


def own_folder() -> Path:
    """Where this user's processes keep what is not for others, under the folder for temporary files.

    Anybody may have made it before: see ``is_private``.
    """
    return Path(tempfile.gettempdir()) / f"nudgescribe-{os.getuid()}"


def is_private(folder: Path) -> bool:
    """Whether it is a folder of this user alone, and no link to one."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def canonical(value: object) -> bytes:
    """JSON whose bytes depend on the value alone."""
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()


def checksum(path: Path, size: int | None = None, *, pause: Callable[[], None]) -> tuple[Any, int]:
    """The running SHA-256 of a file, or of its first bytes, and how many they are.

    Args:
        path: the file.
        size: how many bytes at most; all if left out.
        pause: called between pieces; may raise to end it.
    """
    running, left = hashlib.sha256(), size
    done = 0
    with path.open("rb", buffering=0) as file:
        while left is None or left > 0:
            pause()
            piece = file.read(CHUNK if left is None else min(CHUNK, left))
            if not piece:
                break
            running.update(piece)
            done += len(piece)
            left = None if left is None else left - len(piece)
    return running, done


class AppendFile:
    """A file that grows, and knows its length and checksum at any time.

    Args:
        path: the file. Made anew, unless ``size`` is given.
        size: as long as it was when it was good; what stands behind that is cut off.
        sha256: what the checksum of these bytes was.
        pause: called between pieces while they are read; may raise to end it.

    Raises:
        OSError: it cannot be opened, read or cut.
        ValueError: it is not as it was, with a sentence.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: int | None = None,
        sha256: str | None = None,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        self.size = 0
        if size is None:
            self._file = path.open("wb", buffering=0)
            return
        self._hash, self.size = checksum(path, size, pause=pause)
        if self.size < size:
            raise ValueError(f"it has {self.size:,} bytes, and had {size:,}")
        if self._hash.hexdigest() != sha256:
            raise ValueError("its content is not what was written")
        self._file = path.open("r+b", buffering=0)
        try:
            self._file.truncate(size)
            self._file.seek(size)
        except BaseException:
            self._file.close()
            raise

    def write(self, data: bytes) -> None:
        """Append. If it fails, the file may be longer than ``size``, which stays right."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._hash.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        """The checksum of what was written."""
        return str(self._hash.copy().hexdigest())

    def flush(self) -> None:
        """Return once the disk has it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """May be called more than once."""
        self._file.close()


def names_in(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


def flush_folder(folder: Path) -> None:
    """Return once the disk knows the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(descriptor)


def flush_file(path: Path) -> None:
    """Return once the disk has a file that somebody else wrote."""
    flush_folder(path)  # a file is opened and flushed just the same


def replace_file(path: Path, data: bytes) -> None:
    """Write a file as a whole: a crash leaves the old one or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    try:
        with fresh.open("xb") as file:  # never through a link that somebody put there
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


class InUseError(Exception):
    """Somebody else works there. It never leaves this package."""


class Lock:
    """Keeps everybody else, of this process and of others, off a folder, as long as it is held.

    It ends with the process, however that ends.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            InUseError: somebody else holds it.
            ConfigurationError: this system has no such locks.
            OSError: the file cannot be opened.
        """
        try:
            import fcntl  # noqa: PLC0415 - not on every platform
        except ImportError:
            raise ConfigurationError("This needs POSIX file locks, which this platform lacks.") from None
        self._fcntl = fcntl
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), path.stat()):
                        self._descriptor = descriptor
                        return
            except BlockingIOError:
                os.close(descriptor)
                break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # whoever held it has removed the file meanwhile: try the new one
        raise InUseError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def signature(self) -> str:
        """What the file says: of whoever held the lock last, until it is signed anew."""
        return os.pread(self._descriptor, _SIGNATURE, 0).decode(errors="replace")

    def sign(self, text: str) -> None:
        """Write into the file who holds the lock, in place of what is there, and return once the disk has it.

        For others to read. The file stays when the lock is let go, and what it says with it: who wants it empty then
        signs with nothing before.
        """
        data = text.encode()
        # Not the other way round: a disk that is full takes nothing, and leaves what was there.
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))
        os.fsync(self._descriptor)

    def release(self) -> None:
        """Let go. May be called more than once."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # Closing alone would not do: a process that was forked meanwhile has the file open too.
            self._fcntl.flock(descriptor, self._fcntl.LOCK_UN)
            os.close(descriptor)
