"""Where an export goes on the disk: beside its destination while it grows, and renamed when it is complete. Blocking."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from attrs import frozen

from nudgescribe_async.bulk.files import flush_folder, names_in, replace_file
from nudgescribe_async.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nudgescribe_async.bulk.export.report import ExportPart

__all__ = ["FOLDER_MANIFEST", "MANIFEST", "LocalFile", "LocalFolder", "Target"]

MANIFEST = ".manifest.json"
"""Behind the name of a single file."""

FOLDER_MANIFEST = "_manifest.json"
"""In a folder of parts. Readers of folders skip what begins with an underscore."""

TAKEN = "Choose another destination, or pass overwrite=True to replace it."


class Target(Protocol):
    """Where complete files go."""

    @property
    def work(self) -> Path:
        """The folder to write in until then."""
        ...

    @property
    def manifest(self) -> str:
        """Where the manifest will be."""
        ...

    @property
    def takes_parts(self) -> bool:
        """Whether each part is sent as soon as it is complete."""
        ...

    def prepare(self) -> None:
        """Make the folder to write in."""
        ...

    def check(self, *, overwrite: bool) -> None:
        """Refuse a destination that is taken, or cannot be one."""
        ...

    def gate(self) -> Path | None:
        """A lock besides that of the folder to write in, if another call may have another folder."""
        ...

    def put_back(self) -> None:
        """Undo the first of two renames, if an earlier call ended between them."""
        ...

    def found(self, folder: Path, part: ExportPart) -> Path | None:
        """Where a complete part is on this machine, in its place or not yet; ``None`` if it is not there."""
        ...

    def send(self, file: Path, part: ExportPart, *, overwrite: bool) -> None:
        """Bring one complete part to its place; may be called again for the same."""
        ...

    def publish(self, folder: Path, parts: Sequence[ExportPart], manifest: bytes, *, overwrite: bool) -> None:
        """Put everything in its place; may be called again if it did not end."""
        ...


@frozen
class _Local:
    """Somewhere on this machine. Beside it is the folder to write in, so that what is complete can be renamed."""

    path: Path
    takes_parts = False

    @property
    def work(self) -> Path:
        """Beside it."""
        return self.path.with_name(self.path.name + ".partial")

    def prepare(self) -> None:
        """Make the folder to write in."""
        _make(self.work)

    def gate(self) -> None:
        """None: there is one folder to write in."""

    def send(self, file: Path, part: ExportPart, *, overwrite: bool) -> None:
        """Nothing: all is renamed in the end."""


@frozen
class LocalFile(_Local):
    """A single file, with its manifest beside it."""

    @property
    def manifest(self) -> str:
        """Beside it, too."""
        return str(self.path) + MANIFEST

    def check(self, *, overwrite: bool) -> None:
        """Refuse a folder, and a file that is not to be replaced."""
        if self.path.is_dir():
            raise ExportError(
                f"{self.path} is a folder. Give the path of a file, or rows_per_part= for a folder of parts."
            )
        if not overwrite and os.path.lexists(self.path):
            raise ExportError(f"{self.path} exists. {TAKEN}")

    def put_back(self) -> None:
        """Nothing: there is one rename."""

    def found(self, folder: Path, part: ExportPart) -> Path | None:
        """Where it was written, or where it was renamed to."""
        return next((path for path in (folder / part.name, self.path) if path.exists()), None)

    def publish(self, folder: Path, parts: Sequence[ExportPart], manifest: bytes, *, overwrite: bool) -> None:
        """Rename the file, then write the manifest."""
        complete = folder / parts[0].name
        if complete.exists():  # else it was renamed before a crash
            self.check(overwrite=overwrite)
            Path(self.manifest).unlink(missing_ok=True)  # the old one, which says nothing of the new file
            complete.replace(self.path)
            flush_folder(self.path.parent)
        _see(self.path, self.path, parts[0])
        replace_file(Path(self.manifest), manifest)


@frozen
class LocalFolder(_Local):
    """A folder of parts, with the manifest in it. It is there as a whole or not at all."""

    @property
    def manifest(self) -> str:
        """In the folder."""
        return str(self.path / FOLDER_MANIFEST)

    def check(self, *, overwrite: bool) -> None:
        """Refuse what is no folder, and one with anything in it that is not to be replaced, or no export."""
        if not os.path.lexists(self.path):
            return
        if self.path.is_symlink() or not self.path.is_dir():
            raise ExportError(f"{self.path} is no folder. Choose another destination, or leave rows_per_part out.")
        there = names_in(self.path)
        if there and not overwrite:
            raise ExportError(f"{self.path} exists, and is not empty. {TAKEN}")
        foreign = sorted(there - _of_an_export(self.path))
        if foreign:
            raise ExportError(
                f"{self.path} has things in it that no export has made, such as {foreign[0]!r}, so it is not replaced. "
                "Choose another destination, or move them."
            )

    def put_back(self) -> None:
        """What was there stays there until the new folder is."""
        old = self.work / "replaced"
        if old.is_dir() and not os.path.lexists(self.path):
            old.replace(self.path)
            flush_folder(self.path.parent)

    def found(self, folder: Path, part: ExportPart) -> Path | None:
        """Where it was written, or where its folder was renamed to."""
        if folder.exists():
            return folder / part.name
        return self.path / part.name if (self.path / part.name).exists() else None

    def publish(
        self,
        folder: Path,
        parts: Sequence[ExportPart],
        manifest: bytes,
        *,
        overwrite: bool,
    ) -> None:
        """Rename the folder that was there out of the way, and the new one to its place."""
        if folder.exists():  # else it was renamed before a crash
            self.check(overwrite=overwrite)
            replace_file(folder / FOLDER_MANIFEST, manifest)
            if self.path.exists() and names_in(self.path):
                self.path.replace(self.work / "replaced")
            folder.replace(self.path)
            flush_folder(self.path.parent)
        for part in parts:
            _see(self.path, self.path / part.name, part)


def _make(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise ExportError(f"There is no folder {folder.parent}. Make it first.")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ExportError(
            f"{folder} is in the way: an export is written there first. Move it, or choose another destination."
        )
    folder.mkdir(mode=0o700, exist_ok=True)


def _see(path: Path, file: Path, part: ExportPart) -> None:
    """An earlier call may have put it there, long before this one says so."""
    if not file.exists():
        raise ExportError(f"{path} was complete, and somebody has removed it. restart=True begins anew.")
    if file.stat().st_size != part.bytes:
        raise ExportError(
            f"{file} was complete, and somebody has changed it. Move it away; then restart=True begins anew."
        )


def _of_an_export(folder: Path) -> set[str]:
    """What an export has made in a folder, by its manifest."""
    try:
        content: Any = json.loads((folder / FOLDER_MANIFEST).read_bytes())
    except (OSError, ValueError):
        return set()
    match content:
        case {"parts": [*parts]}:
            listed = cast("list[object]", parts)
        case _:
            return set()
    names = {str(cast("dict[str, Any]", part).get("name")) for part in listed if isinstance(part, dict)}
    return names | {FOLDER_MANIFEST}
