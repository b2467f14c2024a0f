"""What became of an upload, row by row as far as anybody knows."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Literal

from attrs import asdict, field, frozen

from nudgescribe_async.arguments import check_flag
from nudgescribe_async.errors import NudgescribeError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

__all__ = ["RowProblem", "UploadChunk", "UploadReport", "counted", "reasons"]

_SHOWN = 3  # reasons in the text of an error
_LOOK = "customers.iter"
_STATES = {"sent": "sent", "unknown": "UNKNOWN", "refused": "REFUSED as a whole", "not_sent": "not sent"}


def counted(number: int, noun: str) -> str:
    """Such as ``"1 row"`` and ``"1,500 rows"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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

    @property
    def answered(self) -> bool:
        """Whether the service has said of every row what became of it: queued, taken or refused."""
        counted_all = (self.accepted or 0) + (self.rejected or 0) == self.rows
        return self.state == "sent" and (self.job_uid is not None or counted_all)


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
        return not self.dry_run and all(chunk.answered for chunk in self.chunks)

    @property
    def accepted(self) -> int:
        """Rows that the service said it took."""
        return sum(chunk.accepted or 0 for chunk in self.chunks)

    @property
    def queued(self) -> int:
        """Rows in chunks that the service queued: taken, but to be found among the customers only later."""
        queued = (chunk for chunk in self.chunks if chunk.job_uid is not None)
        return sum(chunk.rows if chunk.accepted is None else chunk.accepted for chunk in queued)

    @property
    def unknown(self) -> tuple[UploadChunk, ...]:
        """The chunks that may have taken effect, or not. Look before you send them again."""
        return tuple(chunk for chunk in self.chunks if chunk.state == "unknown")

    @property
    def not_sent(self) -> tuple[UploadChunk, ...]:
        """The chunks that have had no effect: those that the service refused, and those that were not sent."""
        return tuple(chunk for chunk in self.chunks if chunk.state in {"refused", "not_sent"})

    def left(self, *, took_effect: Iterable[UploadChunk]) -> tuple[tuple[int, int], ...]:
        """The rows that are still to be sent: first and last of each range, for ``from_row`` and ``to_row``.

        Those of the chunks that were not sent, and of the unknown ones that have had no effect, in their order, and
        neighbours as one. Chunks that the service refused are left out, as it would refuse them again; so are those
        that it answered without saying what became of each row, which are in ``remarks``.

        Args:
            took_effect: the chunks of ``unknown`` that you have looked for and found.

        Raises:
            ValueError: a chunk in it is not one of ``unknown``.
        """
        there = tuple(took_effect)
        unknown = self.unknown
        if any(chunk not in unknown for chunk in there):
            raise ValueError("took_effect must have chunks of report.unknown only.")
        ranges: list[tuple[int, int]] = []
        before = 0
        for chunk in self.chunks:
            if chunk.state == "not_sent" or (chunk.state == "unknown" and chunk not in there):
                first = ranges.pop()[0] if before and before + 1 == chunk.number else chunk.first_row
                ranges.append((first, chunk.last_row))
                before = chunk.number
        return tuple(ranges)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What does not fit in the service's answers."""
        return tuple(f"Chunk {chunk.number}: {chunk.remark}" for chunk in self.chunks if chunk.remark)

    def raise_for_failures(self, *, refused: bool = False) -> None:
        """Raise what ended the sending, if anything did, or that the service has not said what became of all rows.

        After this, an upload is ``complete``, unless it was a dry run. Refused rows are no failure unless you say so.

        Args:
            refused: rows that the check or the service refused are a failure too, in a dry run as well.

        Raises:
            NudgescribeError: ``failure``; or the service has answered without saying what became of every row; or rows
                were refused: how many, and why the first three were.
        """
        check_flag("refused", refused)
        if self.failure is not None:
            raise self.failure
        if not self.dry_run and not self.complete:
            raise self._unanswered()
        count = self.refused_by_check + self.refused_by_service
        if refused and count:
            error = NudgescribeError(
                f"{count:,} of {counted(self.rows, 'row')} {'was' if count == 1 else 'were'} refused, {self.accepted:,} "
                f"accepted{reasons(self.problems, self.problems_total)}",
                operation="customers.upload",
            )
            error.advice = "The problems of the report have the rows and the reasons."
            raise error

    def _unanswered(self) -> NudgescribeError:
        chunks = [chunk for chunk in self.chunks if not chunk.answered]
        spans = ", ".join(f"{chunk.first_row:,} to {chunk.last_row:,}" for chunk in chunks[:_SHOWN])
        more = f" and {counted(len(chunks) - _SHOWN, 'more chunk')}" if len(chunks) > _SHOWN else ""
        error = NudgescribeError(
            f"The service answered, but did not say what became of each of the rows {spans}{more}.",
            operation="customers.upload",
        )
        error.may_have_taken_effect, error.look = True, _LOOK
        error.advice = f"The remarks of the report say what does not fit: look with {_LOOK} before you send them again."
        return error

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it. Reasons and errors of the service are in its own words."""
        parts = asdict(self, filter=lambda attribute, _: attribute.name != "failure")
        parts["problems"], parts["chunks"] = list(parts["problems"]), list(parts["chunks"])
        failure = None if self.failure is None else str(self.failure)
        counts = {"complete": self.complete, "accepted": self.accepted, "queued": self.queued}
        return parts | counts | {"failure": failure}

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write ``problems`` to a file: row, line, field, reason, by. It blocks; an existing file is replaced."""
        with open(path, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - any path will do
            writer = csv.writer(file)
            writer.writerow(["row", "line", "field", "reason", "by"])
            writer.writerows([item.row, item.line, item.field, item.reason, item.by] for item in self.problems)

    def __repr__(self) -> str:
        by_check = [f"{self.refused_by_check:,} refused by the check"]
        if self.dry_run:
            rows = sum(chunk.rows for chunk in self.chunks)
            would = f"{rows:,} would be sent in {counted(len(self.chunks), 'chunk')}"
            return f"<UploadReport dry run: {', '.join([counted(self.rows, 'row'), would, *by_check])}>"
        parts = [
            counted(self.rows, "row"),
            f"{self.accepted:,} accepted",
            *([f"{self.queued:,} queued: they appear later"] if self.queued else []),
            *by_check,
            f"{self.refused_by_service:,} by the service",
        ]
        states = ", ".join(
            f"{count} {name}"
            for state, name in _STATES.items()
            if (count := sum(chunk.state == state for chunk in self.chunks))
        )
        ends = [f"chunks: {states or 'none'}"]
        ends += ["see remarks"] if self.remarks else []
        ends += [f"{type(self.failure).__name__}: call raise_for_failures()"] if self.failure is not None else []
        return f"<UploadReport {self._verdict()}: {', '.join(parts)}; {'; '.join(ends)}>"

    def _verdict(self) -> str:
        """What a reader takes in first: an upload without any effect must not look like a success."""
        unsure = any(
            chunk.state == "unknown" or (chunk.state == "sent" and chunk.accepted is None) for chunk in self.chunks
        )
        nothing = self.rows > 0 and self.accepted == 0 and not unsure
        if self.complete:
            return "NOTHING was accepted" if nothing else "complete"
        return "NOT COMPLETE, NOTHING was accepted" if nothing else "NOT COMPLETE"


def reasons(problems: Sequence[RowProblem], total: int) -> str:
    """The first problems, as the end of a sentence. The service's words may repeat values, and are left out."""
    if not problems:
        return "."
    shown = [
        ", ".join(
            [
                *([] if problem.row is None else [f"row {problem.row:,}"]),
                *([] if problem.line is None else [f"line {problem.line:,}"]),
                *([] if problem.field is None else [f"field {problem.field!r}"]),
            ]
        )
        + f": {problem.reason if problem.by == 'check' else 'refused by the service'}"
        for problem in problems[:_SHOWN]
    ]
    more = f"; and {counted(total - len(shown), 'more problem')}" if total > len(shown) else ""
    return f": {'; '.join(shown)}{more}."
