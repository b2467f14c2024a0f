"""Where an export goes that has a URL: written in a folder of this machine, and put in its place with fsspec. Blocking.

A URL may hold a password and the options do, so neither is shown: errors have the address alone, and texts of
the storage are searched for what is secret.
"""

from __future__ import annotations

import json
import re
import stat
from contextlib import suppress
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from nudgescribe_async.bulk.export.target import FOLDER_MANIFEST, MANIFEST, TAKEN
from nudgescribe_async.bulk.files import is_private, own_folder
from nudgescribe_async.errors import ConfigurationError, ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from nudgescribe_async.bulk.export.plan import Plan
    from nudgescribe_async.bulk.export.report import ExportPart

__all__ = ["Remote"]

UPLOADING = ".uploading"
"""Behind the name of a single file that is on its way, and what is its own of the export. Not ``.partial``, as an export to
the same disk has it."""

T = TypeVar("T")

_PART = re.compile(r"part-\d{5,}\.[a-z.]+")
_LONGEST = 300
_PIECE = 2**20


class Remote:
    """A file or a folder in a storage that fsspec knows."""

    def __init__(self, plan: Plan, *, options: Mapping[str, Any], spool: Path | None) -> None:
        self._plan = plan
        self._options = dict(options)
        self._spool = spool
        secrets = {*_in_url(plan.destination), *_in_options(options)}
        self._secrets = sorted({way for secret in secrets for way in _written(secret)}, key=len, reverse=True)
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
        return self._spool if self._spool is not None else own_folder()

    def prepare(self) -> None:
        """Make the folder to write in, which nobody else may read; and see whether there is a storage of that kind."""
        folder = self._spool_folder()
        if not folder.parent.is_dir():
            raise ExportError(f"There is no folder {folder.parent}. Make it first.")
        folder.mkdir(mode=0o700, exist_ok=True)
        if not stat.S_ISDIR(folder.lstat().st_mode) or (self._spool is None and not is_private(folder)):
            raise ExportError(f"{folder} is not a folder of yours alone. Give another one as spool=.")
        self._storage()
        self.work.mkdir(mode=0o700, exist_ok=True)

    def check(self, *, overwrite: bool) -> None:
        """Refuse what exists and is not to be replaced, and where nothing can be written: better now than in hours."""
        if not overwrite and self._do("looked at", self._exists):
            raise ExportError(f"{self._plan.shown} exists. {self._unfinished()}{TAKEN}")
        if not self.takes_parts:  # parts find out soon enough
            self._do("written", self._try)

    def gate(self) -> Path:
        """Other arguments, or another spool, mean another folder to write in, and the same destination."""
        folder = own_folder()
        with suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
        if self._spool is not None and not is_private(folder):
            folder = self._spool
        return folder / f"{sha256(self._plan.shown.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.lock"

    def put_back(self) -> None:
        """Nothing: nothing is put aside."""

    def found(self, folder: Path, part: ExportPart) -> Path | None:
        """Where it was written, unless it was sent."""
        path = folder / part.name
        return path if path.exists() else None

    def send(self, file: Path, part: ExportPart, *, overwrite: bool) -> None:
        """Put a part. One of the same size that is there may be another one's.

        Before the first, a manifest that is there is removed: it would say that what is half replaced is complete. One
        that is there before a later part is of an export that somebody has made meanwhile, and is left alone.
        """
        names = self._do("looked at", lambda: self._names(self._storage()[1]))
        if part.name != self._plan.part_name(1):
            if FOLDER_MANIFEST in names:
                raise self._made_meanwhile()
        elif not overwrite and set(names) - {part.name}:
            raise ExportError(f"{self._plan.shown} exists, and was made meanwhile. {TAKEN}")
        elif FOLDER_MANIFEST in names:
            self._do("removed", lambda: self._remove(self._path(FOLDER_MANIFEST)))
        self._put(file, self._path(part.name), part)

    def publish(self, folder: Path, parts: Sequence[ExportPart], manifest: bytes, *, overwrite: bool) -> None:
        """Put the file under another name and move it; or see whether all parts are there. Then write the manifest."""
        if self.takes_parts:
            self._see_to_parts(parts, manifest, overwrite=overwrite)
            self._do("written", lambda: self._pipe(self._path(FOLDER_MANIFEST), manifest))
            return
        (part,) = parts
        _, path = self._storage()
        file = folder / part.name
        if self._do("looked at", lambda: self._is_there(path, part)):  # it was moved before a crash
            if self._do("looked at", lambda: self._size(self._on_its_way)) is not None:
                self._do("removed", lambda: self._remove(self._on_its_way))
        else:
            if not file.exists():
                self._verify(path, part)
                raise self._made_meanwhile()
            if self._do("looked at", lambda: self._size(self._on_its_way)) != part.bytes:  # else the move broke off
                self.check(overwrite=overwrite)
            self._put(file, self._on_its_way, part)
            if self._do("looked at", lambda: self._size(path + MANIFEST)) is not None:
                self._do("removed", lambda: self._remove(path + MANIFEST))  # it says nothing of the new file
            self._do("moved into its place", lambda: self._move(self._on_its_way, path))
        self._verify(path, part)
        self._do("written", lambda: self._pipe(path + MANIFEST, manifest))

    # --- the storage ---------------------------------------------------------------------------------------------

    @property
    def _on_its_way(self) -> str:
        return f"{self._storage()[1]}.{self._plan.fingerprint[:16]}{UPLOADING}"

    def _made_meanwhile(self) -> ExportError:
        return ExportError(
            f"{self._plan.shown} holds what somebody else has put there meanwhile, and it is not touched. Move it away, "
            "or choose another destination; then restart=True begins anew."
        )

    def _see_to_parts(self, parts: Sequence[ExportPart], manifest: bytes, *, overwrite: bool) -> None:
        for part in parts:
            self._verify(self._path(part.name), part)
        there = self._do("looked at", lambda: self._names(self._storage()[1]))
        if FOLDER_MANIFEST in there and not self._do("looked at", lambda: self._is_ours(manifest)):
            raise self._made_meanwhile()
        names = {part.name for part in parts}
        others = [name for name in there if _PART.fullmatch(name) and name not in names]
        if others and not overwrite:
            raise ExportError(f"{self._plan.shown} has parts of another export in it, such as {others[0]!r}. {TAKEN}")
        for name in others:  # of the export that this one replaces
            self._do("removed", partial(self._remove, self._path(name)))

    def _is_ours(self, manifest: bytes) -> bool:
        """Whether the manifest there is of this export: then an earlier call ended right behind it."""
        storage, _ = self._storage()
        try:
            there: Any = json.loads(storage.cat_file(self._path(FOLDER_MANIFEST)))
        except ValueError:
            return False
        return isinstance(there, dict) and cast("dict[str, Any]", there).get("sha256") == json.loads(manifest)["sha256"]

    def _is_there(self, path: str, part: ExportPart) -> bool:
        """Whether a file is this very one: one of the same size may be another one's."""
        if self._size(path) != part.bytes:
            return False
        storage, _ = self._storage()
        running = sha256()
        with storage.open(path, "rb") as file:
            while piece := file.read(_PIECE):
                running.update(piece)
        return running.hexdigest() == part.sha256

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

    def _unfinished(self) -> str:
        """What a folder of parts looks like whose export did not end, and whose spool is lost."""
        manifest = partial(self._size, self._path(FOLDER_MANIFEST))
        if not self.takes_parts or self._do("looked at", manifest) is not None:
            return ""
        return f"It has no {FOLDER_MANIFEST}, so no export has ended there, and none that this call can go on with. "

    def _try(self) -> None:
        storage, path = self._storage()
        folder = path.rpartition("/")[0]
        if folder:
            storage.makedirs(folder, exist_ok=True)
        storage.pipe_file(self._on_its_way, b"")
        storage.rm_file(self._on_its_way)

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
        try:
            return [str(name).rstrip("/").rpartition("/")[2] for name in storage.ls(path, detail=False)]
        except FileNotFoundError:
            return []

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
            self._know_protocols()
            open_url = partial(core.url_to_fs, self._plan.destination, **self._options)
            self._opened = cast("tuple[Any, str]", self._do("opened", open_url))
        return self._opened

    def _know_protocols(self) -> None:
        """Say which package is missing, before anything else is tried."""
        registry: Any = import_module("fsspec.registry")
        for url in self._plan.destination.split("::"):
            protocol = url.partition("://")[0]
            known = registry.known_implementations.get(protocol, {})
            try:
                registry.get_filesystem_class(protocol)
            except ValueError:
                problem = f"fsspec knows no storage {protocol!r}. Check the URL, or register one with fsspec"
            except ImportError:
                package = str(known.get("class", "")).partition(".")[0]
                missing = str(known.get("err", "a package is missing"))
                install = f": pip install {package}" if package not in {"", "fsspec"} else ""
                problem = f"{missing}{install}"
            else:
                continue
            raise ConfigurationError(f"{self._plan.shown} cannot be opened: {problem}.")

    def _do(self, done: str, step: Callable[[], T]) -> T:
        """Take a step. What a storage raises may be anything, and may say anything."""
        try:
            return step()
        except ExportError:
            raise
        except Exception as error:  # noqa: BLE001 - any storage, any error
            said = self._masked(f"{type(error).__name__}: {error}")
        # Out here, so that no traceback holds the error, whose text and frames may have secrets.
        text = f"{self._plan.shown} cannot be {done}: {said[:_LONGEST]}"
        if (self.work / "checkpoint.json").exists():
            text += f" What was written is kept in {self.work}: the same call goes on from there."
        raise ExportError(text)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = re.sub(r"(?<=://)[^/\s]*@", "***@", text)
        return text if text.endswith((".", "!", "?")) else f"{text}."


def _written(secret: str) -> Iterator[str]:
    """The ways in which a text may say it."""
    yield secret
    yield repr(secret)[1:-1]
    with suppress(UnicodeEncodeError):
        yield quote(secret, safe="")
        yield quote_plus(secret)


def _in_url(url: str) -> Iterator[str]:
    """What is nobody's business in a URL."""
    for one in url.split("::"):
        # Not urlsplit(): what it says of a URL that it does not like has the password in it.
        user, _, _ = re.split(r"[/?#]", one.partition("://")[2])[0].rpartition("@")
        query = one.partition("?")[2].partition("#")[0]
        for word in (user, *user.split(":", 1), query, *(value for _, value in parse_qsl(query))):
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
