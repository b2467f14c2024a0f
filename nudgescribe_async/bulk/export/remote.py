"""Where an export goes that has a URL: written in a folder of this machine, and put in its place with fsspec. Blocking.

A URL may hold a password and the options do, so neither is shown: errors have the address alone, and texts of
the storage are searched for what is secret.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from nudgescribe_async.bulk.export.target import FOLDER_MANIFEST, MANIFEST, TAKEN
from nudgescribe_async.errors import ConfigurationError, ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from nudgescribe_async.bulk.export.plan import Plan
    from nudgescribe_async.bulk.export.report import ExportPart

__all__ = ["Remote"]

T = TypeVar("T")

_PART = re.compile(r"part-\d{5,}\.[a-z.]+")
_LONGEST = 300


class Remote:
    """A file or a folder in a storage that fsspec knows."""

    def __init__(self, plan: Plan, *, options: Mapping[str, Any], spool: Path | None) -> None:
        self._plan = plan
        self._options = dict(options)
        self._spool = spool
        self._secrets = sorted({*_in_url(plan.destination), *_in_options(options)}, key=len, reverse=True)
        self._opened: tuple[Any, str] | None = None

    def __repr__(self) -> str:
        return f"<Remote {self._plan.shown}>"

    @property
    def takes_parts(self) -> bool:
        """Parts go as soon as they are complete, so that the disk here need not hold them all."""
        return self._plan.rows_per_part is not None

    @property
    def work(self) -> Path:
        """In the spool, known by what was asked for, so that the same call finds it again."""
        return self._spool_folder() / self._plan.fingerprint[:32]

    @property
    def manifest(self) -> str:
        """Beside the file, or in the folder."""
        return self._plan.shown + (f"/{FOLDER_MANIFEST}" if self.takes_parts else MANIFEST)

    def _spool_folder(self) -> Path:
        if self._spool is not None:
            return self._spool
        return Path(tempfile.gettempdir()) / f"nudgescribe-{os.getuid()}"

    def prepare(self) -> None:
        """Make the folder to write in, which nobody else may read; and see whether there is a storage of that kind."""
        folder = self._spool_folder()
        if not folder.parent.is_dir():
            raise ExportError(f"There is no folder {folder.parent}. Make it first.")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or (
            self._spool is None and (found.st_uid != os.getuid() or found.st_mode & 0o077)
        ):
            raise ExportError(f"{folder} is not a folder of yours alone. Give another one as spool=.")
        self._storage()
        self.work.mkdir(mode=0o700, exist_ok=True)

    def check(self, *, overwrite: bool) -> None:
        """Refuse what exists and is not to be replaced, and where nothing can be written: better now than in hours."""
        if not overwrite and self._do("looked at", self._exists):
            raise ExportError(f"{self._plan.shown} exists. {TAKEN}")
        if not self.takes_parts:  # parts find out soon enough
            self._do("written", self._try)

    def send(self, file: Path, part: ExportPart) -> None:
        """Put a part. One of the same size that is there may be another one's.

        Before the first, a manifest that is there is removed: it would say that what is half replaced is complete.
        """
        manifest = self._path(FOLDER_MANIFEST)
        if part.name == self._plan.part_name(1) and self._do("looked at", lambda: self._size(manifest)) is not None:
            self._do("removed", lambda: self._remove(manifest))
        self._put(file, self._path(part.name), part)

    def publish(self, folder: Path, parts: Sequence[ExportPart], manifest: bytes, *, overwrite: bool) -> None:
        """Put the file under another name and move it; or see whether all parts are there. Then write the manifest."""
        if self.takes_parts:
            self._see_to_parts(parts)
            self._do("written", lambda: self._pipe(self._path(FOLDER_MANIFEST), manifest))
            return
        (part,) = parts
        _, path = self._storage()
        file = folder / part.name
        if file.exists():  # else it was moved before a crash
            if self._do("looked at", lambda: self._size(path)) != part.bytes:
                self.check(overwrite=overwrite)
            self._put(file, f"{path}.partial", part)
            self._do("moved into its place", lambda: self._move(f"{path}.partial", path))
        self._verify(path, part)
        self._do("written", lambda: self._pipe(path + MANIFEST, manifest))

    # --- the storage ---------------------------------------------------------------------------------------------

    def _see_to_parts(self, parts: Sequence[ExportPart]) -> None:
        for part in parts:
            self._verify(self._path(part.name), part)
        names = {part.name for part in parts}
        _, path = self._storage()
        for name in self._do("looked at", lambda: self._names(path)):
            if _PART.fullmatch(name) and name not in names:  # of the export that this one replaces
                self._do("removed", partial(self._remove, self._path(name)))

    def _put(self, file: Path, path: str, part: ExportPart) -> None:
        def put() -> None:
            storage, _ = self._storage()
            folder = path.rpartition("/")[0]
            if folder:
                storage.makedirs(folder, exist_ok=True)
            storage.put_file(str(file), path)

        self._do("written", put)
        self._verify(path, part)

    def _verify(self, path: str, part: ExportPart) -> None:
        size = self._do("looked at", lambda: self._size(path))
        if size != part.bytes:
            there = "is not there" if size is None else f"has {size:,} bytes there instead of {part.bytes:,}"
            raise ExportError(
                f"{part.name} {there} ({self._plan.shown}). If it was changed meanwhile, begin anew with restart=True."
            )

    def _path(self, name: str) -> str:
        return f"{self._storage()[1]}/{name}"

    def _exists(self) -> bool:
        # Not exists(): it takes any trouble for an answer.
        storage, path = self._storage()
        storage.invalidate_cache()
        try:
            found = storage.info(path)
        except FileNotFoundError:
            return False
        is_folder = found.get("type") == "directory"
        return not (self.takes_parts and is_folder and not storage.ls(path, detail=False))

    def _try(self) -> None:
        storage, path = self._storage()
        folder = path.rpartition("/")[0]
        if folder:
            storage.makedirs(folder, exist_ok=True)
        storage.pipe_file(f"{path}.partial", b"")
        storage.rm_file(f"{path}.partial")

    def _size(self, path: str) -> int | None:
        storage, _ = self._storage()
        storage.invalidate_cache()
        try:
            return cast("int", storage.info(path)["size"])
        except FileNotFoundError:
            return None

    def _names(self, path: str) -> list[str]:
        storage, _ = self._storage()
        storage.invalidate_cache()
        return [str(name).rstrip("/").rpartition("/")[2] for name in storage.ls(path, detail=False)]

    def _move(self, path: str, to: str) -> None:
        storage, _ = self._storage()
        storage.mv(path, to)

    def _remove(self, path: str) -> None:
        storage, _ = self._storage()
        storage.rm_file(path)

    def _pipe(self, path: str, data: bytes) -> None:
        storage, _ = self._storage()
        storage.pipe_file(path, data)

    def _storage(self) -> tuple[Any, str]:
        if self._opened is None:
            try:
                core: Any = import_module("fsspec.core")  # the extra `fsspec`, which has no types
            except ImportError:
                raise ConfigurationError(
                    'A URL as destination needs the package fsspec: pip install "nudgescribe_async[fsspec]".'
                ) from None
            open_url = partial(core.url_to_fs, self._plan.destination, **self._options)
            self._opened = cast("tuple[Any, str]", self._do("opened", open_url))
        return self._opened

    def _do(self, done: str, step: Callable[[], T]) -> T:
        """Take a step. What a storage raises may be anything, and may say anything."""
        try:
            return step()
        except ExportError:
            raise
        except Exception as error:  # noqa: BLE001 - any storage, any error
            said = self._masked(f"{type(error).__name__}: {error}")
        # Out here, so that no traceback holds the error, whose text and frames may have secrets.
        raise ExportError(
            f"{self._plan.shown} cannot be {done}: {said[:_LONGEST]} What was written is kept in {self.work}: "
            "the same call goes on from there."
        )

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = re.sub(r"(?<=://)[^/@\s]*@", "***@", text)
        return text if text.endswith((".", "!", "?")) else f"{text}."


def _in_url(url: str) -> Iterator[str]:
    """What is nobody's business in a URL."""
    for one in url.split("::"):
        parts = urlsplit(one)
        user, _, _ = parts.netloc.rpartition("@")
        for word in (user, *user.split(":", 1), parts.query, *(value for _, value in parse_qsl(parts.query))):
            for secret in (word, unquote(word)):
                if len(secret) > 2:
                    yield secret


def _in_options(value: object) -> Iterator[str]:
    """Every text in the options but the shortest, whatever it is for."""
    if isinstance(value, str) and len(value) > 3:
        yield value
    elif isinstance(value, bytes):
        yield from _in_options(value.decode(errors="replace"))
    elif isinstance(value, dict):
        for item in cast("dict[object, object]", value).values():
            yield from _in_options(item)
    elif isinstance(value, list | tuple | set):
        for item in cast("Sequence[object]", value):
            yield from _in_options(item)
