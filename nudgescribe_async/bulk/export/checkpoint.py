"""Where an export stands, as a small file beside what it has written: replaced as a whole, and checked when it is read."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import attrs
from attrs import asdict, field, frozen

from nudgescribe_async.bulk.export.report import ExportPart
from nudgescribe_async.bulk.files import canonical, replace_file
from nudgescribe_async.consistency import PageReport
from nudgescribe_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Checkpoint", "Phase", "read", "write"]

_VERSION = 1

Phase: TypeAlias = Literal["reading", "drifted", "written"]
"""``drifted``: what was read cannot be trusted. ``written``: nothing is left to be read; all may be in its place already,
but nobody got the report."""


@frozen(kw_only=True)
class Checkpoint:
    """What is on the disk for sure.

    Attributes:
        asked: what the export is of, and how it is written.
        columns: its columns.
        decrypted: whether profiles are in the clear.
        phase: what comes next.
        cursor: where reading goes on, as JSON; ``None`` from the start.
        pages: pages that were written.
        total: pages there were at the start.
        parts: files that are complete.
        sent: how many of them are at their destination already.
        begun: the file that is being written, as long as it is good; of Parquet, the stream it is made of.
        seen: the file of the ids that were written, likewise; ``None`` if there is none.
        runs: what each call read and noticed.
        again: customers that were left out, since an earlier call had written them.
        started: when the first call began.
        finished: when all was written; with the phase ``written``.
        drift: what was noticed; with the phase ``drifted``.
    """

    asked: Mapping[str, Any]
    columns: list[dict[str, Any]]
    decrypted: bool
    phase: Phase = "reading"
    cursor: str | None = None
    pages: int = 0
    total: int | None = None
    parts: tuple[ExportPart, ...] = ()
    sent: int = 0
    begun: ExportPart | None = None
    seen: ExportPart | None = None
    runs: tuple[PageReport, ...] = field(default=())
    again: int = 0
    started: str = ""
    finished: str | None = None
    drift: str = ""

    @property
    def rows(self) -> int:
        """How many customers were written."""
        return sum(part.rows for part in self.parts) + (self.begun.rows if self.begun is not None else 0)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file. Raises ``OSError``."""
    content = {"version": _VERSION, "package": __version__, "state": asdict(checkpoint)}
    replace_file(path, canonical(content | {"sha256": _seal(content)}) + b"\n")


def _seal(content: dict[str, Any]) -> str:
    return sha256(canonical(content)).hexdigest()


def read(path: Path) -> Checkpoint:
    """Read the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none, or damaged; with a sentence.
    """
    try:
        content: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError("it is damaged") from None
    if not isinstance(content, dict):
        raise ValueError("it is no checkpoint")  # noqa: TRY004 - as everything that is wrong with it
    parts = cast("dict[str, Any]", content)
    if parts.get("version") != _VERSION:
        raise ValueError(f"it is no checkpoint of this version of the package ({__version__})")
    sealed = {name: value for name, value in parts.items() if name != "sha256"}
    if parts.get("sha256") != _seal(sealed):
        raise ValueError("it is damaged")
    values = parts["state"]
    state = cast("dict[str, Any]", values)
    known = {each.name for each in attrs.fields(PageReport)}
    runs = [{name: value for name, value in run.items() if name in known} for run in state["runs"]]
    typed: dict[str, Any] = {
        "parts": tuple(ExportPart(**part) for part in state["parts"]),
        "begun": _part(state["begun"]),
        "seen": _part(state["seen"]),
        "runs": tuple(PageReport(**run) for run in runs),
    }
    return Checkpoint(**(state | typed))


def _part(values: dict[str, Any] | None) -> ExportPart | None:
    return None if values is None else ExportPart(**values)
