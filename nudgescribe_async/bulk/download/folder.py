"""The directory of a download: its files, its lock, its manifest. Everything here blocks.

A name is never taken by anything that is not whole: what comes is written to ``page-00001.csv.partial``, and renamed
when it is checked; the manifest is written beside and renamed. The lock is the system's, on the file ``.lock``, which
stays: it ends with the process, however that ends.
"""

from __future__ import annotations

import errno
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from nudgescribe_async.bulk.download.manifest import Manifest, ManifestError
from nudgescribe_async.bulk.files import Lock, checksum, flush_file, replace_file
from nudgescribe_async.threads import check

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection

    from nudgescribe_async.bulk.download.manifest import FinishedPage

__all__ = ["Folder"]

_OURS = re.compile(r"page-\d{5,}\.csv(\.partial|\.rejected)?")
_DIGITS = 5
PARTIAL = ".partial"
REJECTED = ".rejected"


class Folder:
    """A directory that one download at a time works in. ``close`` gives it free."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Lock | None = None
        self._digits = _DIGITS

    # --- whose it is -----------------------------------------------------------------------------------------------

    def is_there(self) -> bool:
        """Whether there is such a directory.

        Raises:
            NotADirectoryError: there is none, and none can be made, since a file is in the way.
        """
        found = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not found.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(found))
        return found == self.path

    def open(self) -> None:
        """Make the directory and its parents if they are not there, and lock it.

        Raises:
            InUseError: somebody else has locked it.
            ConfigurationError: this system has no such locks.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.path / ".lock")

    def close(self) -> None:
        """Unlock the directory. May be called more than once."""
        if self._lock is not None:
            self._lock.release()

    # --- names -----------------------------------------------------------------------------------------------------

    def expect(self, last_page: int) -> None:
        """Have names long enough for so many pages."""
        self._digits = max(_DIGITS, len(str(last_page)))

    def page(self, number: int) -> Path:
        """Where a page's file is when it is whole."""
        return self.path / f"page-{number:0{self._digits}d}.csv"

    def partial(self, number: int) -> Path:
        """Where it is before."""
        return self._beside(number, PARTIAL)

    def _beside(self, number: int, suffix: str) -> Path:
        path = self.page(number)
        return path.with_name(path.name + suffix)

    # --- the manifest ----------------------------------------------------------------------------------------------

    @property
    def manifest(self) -> Path:
        """Where the manifest is."""
        return self.path / "manifest.json"

    def read_manifest(self) -> Manifest | None:
        """What is written there; ``None`` if there is none.

        Raises:
            ManifestError: it cannot be read.
        """
        try:
            text = self.manifest.read_bytes()
        except FileNotFoundError:
            return None
        return Manifest.from_json(text)

    def write_manifest(self, manifest: Manifest) -> None:
        """Put it in the place of the one that was there."""
        replace_file(self.manifest, manifest.to_json().encode())

    @property
    def _draft(self) -> Path:
        return self.path / f"manifest.json{PARTIAL}"

    def read_draft(self, wanted: Manifest) -> Manifest:
        """What is noted of parts of this very set; if there is nothing, or of another one, the same as before."""
        try:
            draft = Manifest.from_json(self._draft.read_bytes())
        except (FileNotFoundError, ManifestError):
            return wanted
        return draft if evolve(draft, unfinished=wanted.unfinished) == wanted else wanted

    def write_draft(self, manifest: Manifest) -> None:
        """Note parts, and leave the manifest of what they are to replace as it is."""
        replace_file(self._draft, manifest.to_json().encode())

    # --- files -----------------------------------------------------------------------------------------------------

    def strays(self, known: Collection[str] = ()) -> list[Path]:
        """Files with names of pages, or of parts of them, that are not known."""
        return sorted(path for path in self.path.iterdir() if _OURS.fullmatch(path.name) and path.name not in known)

    def holds_something(self) -> bool:
        """Whether there is anything of a download."""
        return self.manifest.exists() or bool(self.strays())

    def tidy(self, known: Collection[str]) -> None:
        """Remove what looks like a page and is not known, so that nobody takes it for one."""
        for path in (*self.strays(known), *self.path.glob(f"{self._draft.name}*")):  # and what a crash left beside it
            path.unlink()

    def is_as_noted(self, page: FinishedPage, stop: threading.Event) -> bool:
        """Whether a file is still what it was when it was finished."""
        path = self.path / page.name
        try:
            if path.stat().st_size != page.bytes:
                return False
            hashed, _ = checksum(path, pause=partial(check, stop))
        except FileNotFoundError:
            return False
        return bool(hashed.hexdigest() == page.sha256)

    def finish(self, number: int) -> Path:
        """Give a part that is whole its name; what was rejected under that name before is gone then."""
        part, path = self.partial(number), self.page(number)
        flush_file(part)
        part.replace(path)
        self._beside(number, REJECTED).unlink(missing_ok=True)
        return path

    def reject(self, number: int) -> Path:
        """Put a part aside that is no file of messages, for somebody to look at."""
        rejected = self._beside(number, REJECTED)
        self.partial(number).replace(rejected)
        return rejected
