"""What a download gives back, as values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import field, frozen

__all__ = ["DownloadReport", "DownloadedFile", "Via"]

Via = Literal["url", "csv"]
"""How a file comes: from the storage, by a signed URL, or from the service itself, as CSV."""


@frozen(kw_only=True)
class DownloadedFile:
    """One message file in the directory, whole and checked.

    Attributes:
        page: its number, as the service counts.
        path: where it is.
        rows: how many rows it has, the header not counted.
        bytes: how long it is.
        sha256: of the whole file, in hexadecimal.
        via: ``"url"`` or ``"csv"``: how it came.
        skipped: whether an earlier call had downloaded it already; it was compared with what was noted then.
        resumed: whether it broke off, and was continued where it had.
    """

    page: int
    path: Path
    rows: int
    bytes: int
    sha256: str
    via: Via
    skipped: bool = False
    resumed: bool = False


@frozen(kw_only=True)
class DownloadReport:
    """A download that is complete.

    Attributes:
        directory: where the files are.
        campaign_id: whose messages they are.
        run_number: the run that was asked for; ``None`` for the current one.
        current_run: which run was the current one, where that was asked for and the service told.
        pages: how many files the run has.
        files: all of them, in the order of their pages.
        seconds: how long the call took.
        notes: what was noticed on the way and is worth knowing, a sentence each: that the number of files had changed
            since the last call, that a file had been changed on disk, that there were no signed URLs to be had.
    """

    directory: Path
    campaign_id: str
    run_number: int | None
    current_run: int | None
    pages: int
    files: tuple[DownloadedFile, ...] = field(repr=lambda files: f"<{len(files):,} files>")
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of all files together."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.bytes for file in self.files)

    def __str__(self) -> str:
        number = self.run_number if self.run_number is not None else self.current_run
        run = "the current run" if number is None else f"run {number}"
        kept = sum(file.skipped for file in self.files)
        there = f"; {kept:,} {'was' if kept == 1 else 'were'} there already" if kept else ""
        text = f"{_counted(self.pages, 'file')} of {run} in {self.directory}: {_counted(self.rows, 'row')}, "
        return " ".join((f"{text}{_size(self.bytes)}{there}.", *self.notes))


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _size(number: int) -> str:
    if number < 1_000:
        return _counted(number, "byte")
    size = float(number)
    for unit in ("kB", "MB"):
        size /= 1_000
        if size < 999.95:  # what would be written as 1,000.0 is written in the next unit
            return f"{size:.1f} {unit}"
    return f"{size / 1_000:,.1f} GB"
