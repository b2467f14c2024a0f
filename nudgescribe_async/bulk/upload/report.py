"""What became of an upload, row by row as far as anybody knows."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Literal

from attrs import asdict, field, frozen

if TYPE_CHECKING:
    import os

    from nudgescribe_async.errors import NudgescribeError

__all__ = ["RowProblem", "UploadChunk", "UploadReport"]


@frozen(kw_only=True, repr=False)
class RowProblem:
    """Why a row was refused.

    Attributes:
        row: the row of the source; 1 is the first below the header, or the first mapping. Blank lines do not count.
            ``None`` where the service named none.
        line: the line of the file at which the row begins, if it is of a file. Cells may hold line breaks.
        field: the profile field; ``None`` if it is about the whole row.
        reason: what is wrong. Those from here repeat no value; those of the service are in its own words.
        by: ``"check"`` for the check before sending, ``"service"`` for the service.
    """

    row: int | None
    line: int | None = None
    field: str | None = None
    reason: str
    by: Literal["check", "service"] = "check"

    def __repr__(self) -> str:
        reason = repr(self.reason) if self.by == "check" else "<the service's words>"
        return f"<RowProblem row {self.row}, line {self.line}, field {self.field!r}, by {self.by}: {reason}>"


@frozen(kw_only=True)
class UploadChunk:
    """One request of an upload, or one that was to be made.

    Attributes:
        number: counts from 1.
        first_row: the first row of the source in it.
        last_row: the last row of the source in it. Rows between that were refused before are not in it.
        rows: how many rows it has.
        state: ``"sent"``: the service answered. ``"unknown"``: it was sent, and nobody knows whether it took
            effect. ``"refused"``: the service refused it as a whole. ``"not_sent"``: it has no effect.
        accepted: rows taken, if the service said.
        rejected: rows refused, if the service said.
        unexplained: refused rows for which the service gave no reason.
        job_uid: the job, where the service queued the rows.
        request_id: what the service called the request.
        error: what went wrong, as a sentence.
        remark: what does not fit in the service's answer, as a sentence; empty if all of it does.
    """

    number: int
    first_row: int
    last_row: int
    rows: int
    state: Literal["sent", "unknown", "refused", "not_sent"] = "not_sent"
    accepted: int | None = None
    rejected: int | None = None
    unexplained: int = 0
    job_uid: str | None = None
    request_id: str | None = None
    error: str | None = field(default=None, repr=False)
    remark: str = ""


@frozen(kw_only=True, repr=False)
class UploadReport:
    """What became of an upload. It pickles; ``repr()`` holds nothing of a customer.

    Attributes:
        rows: how many rows of the source were looked at.
        from_row: the first of them.
        dry_run: whether nothing was to be sent.
        refused_by_check: rows that the check refused, all of them.
        refused_by_service: rows that the service refused, as far as it said.
        problems: why rows were refused, in the order of the rows, those of the check first; as many as were to be kept.
            A row may have several.
        problems_total: how many there were.
        chunks: the requests, in the order of the rows.
        failure: the first error that ended the sending.
    """

    rows: int
    from_row: int = 1
    dry_run: bool = False
    refused_by_check: int = 0
    refused_by_service: int = 0
    problems: tuple[RowProblem, ...] = ()
    problems_total: int = 0
    chunks: tuple[UploadChunk, ...] = ()
    failure: NudgescribeError | None = None

    @property
    def complete(self) -> bool:
        """Whether the service has answered for every row that the check let through. Rows may have been refused."""
        return not self.dry_run and all(chunk.state == "sent" for chunk in self.chunks)

    @property
    def accepted(self) -> int:
        """Rows that the service said it took."""
        return sum(chunk.accepted or 0 for chunk in self.chunks)

    @property
    def unknown(self) -> tuple[UploadChunk, ...]:
        """The chunks that may have taken effect, or not. Look before you send them again."""
        return tuple(chunk for chunk in self.chunks if chunk.state == "unknown")

    @property
    def not_sent(self) -> tuple[UploadChunk, ...]:
        """The chunks that have had no effect: those that the service refused, and those that were not sent."""
        return tuple(chunk for chunk in self.chunks if chunk.state in {"refused", "not_sent"})

    @property
    def remarks(self) -> tuple[str, ...]:
        """What does not fit in the service's answers."""
        return tuple(f"Chunk {chunk.number}: {chunk.remark}" for chunk in self.chunks if chunk.remark)

    def raise_for_failures(self) -> None:
        """Raise what ended the sending, if anything did. Refused rows are no failure.

        Raises:
            NudgescribeError: ``failure``.
        """
        if self.failure is not None:
            raise self.failure

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it. Reasons and errors of the service are in its own words."""
        parts = asdict(self, filter=lambda attribute, _: attribute.name != "failure")
        parts["problems"], parts["chunks"] = list(parts["problems"]), list(parts["chunks"])
        failure = None if self.failure is None else str(self.failure)
        return parts | {"complete": self.complete, "accepted": self.accepted, "failure": failure}

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write ``problems`` to a file: row, line, field, reason, by. It blocks; an existing file is replaced."""
        with open(path, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - any path will do
            writer = csv.writer(file)
            writer.writerow(["row", "line", "field", "reason", "by"])
            writer.writerows([item.row, item.line, item.field, item.reason, item.by] for item in self.problems)

    def __repr__(self) -> str:
        states = ", ".join(
            f"{count} {state}"
            for state in ("sent", "unknown", "refused", "not_sent")
            if (count := sum(chunk.state == state for chunk in self.chunks))
        )
        return (
            f"<UploadReport {'complete' if self.complete else 'dry run' if self.dry_run else 'not complete'}: "
            f"{self.rows:,} rows, {self.accepted:,} accepted, {self.refused_by_check:,} refused by the check, "
            f"{self.refused_by_service:,} by the service; chunks: {states or 'none'}>"
        )
