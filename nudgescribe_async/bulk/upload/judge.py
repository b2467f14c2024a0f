"""The check of rows before they are sent: bad ones are noted, good ones kept in the spool."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, cast

from nudgescribe_async.bulk.upload.faults import fault
from nudgescribe_async.bulk.upload.report import RowProblem
from nudgescribe_async.bulk.upload.rules import REPEATED, REQUIRED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nudgescribe_async.bulk.upload.header import Columns
    from nudgescribe_async.bulk.upload.intake import Batch
    from nudgescribe_async.bulk.upload.spool import Spool

__all__ = ["Judge", "Problems"]


class Problems:
    """Keeps the first problems, and counts all."""

    def __init__(self, most: int) -> None:
        self.kept: list[RowProblem] = []
        self.total = 0
        self._most = most

    def add(self, problem: RowProblem) -> None:
        """One more."""
        self.total += 1
        if len(self.kept) < self._most:
            self.kept.append(problem)


class Judge:
    """Judges the rows of one source. Its methods run off the event loop, one at a time.

    Attributes:
        rows: how many rows were looked at.
        refused: how many of them were refused.
        ended: whether the last row that is wanted is through.
        last: the number of the last row that came, looked at or not.
    """

    def __init__(
        self,
        columns: Columns,
        spool: Spool,
        problems: Problems,
        *,
        from_row: int,
        to_row: int | None,
        max_cell_bytes: int,
        unique: str | None,
    ) -> None:
        self.rows = 0
        self.refused = 0
        self.ended = False
        self.last = 0
        self._rules = columns.rules
        self._checks = [
            (index, rule.required, rule.check)
            for index, rule in enumerate(columns.rules)
            if rule.required or rule.check is not None
        ]
        self._unique = None if unique is None else columns.names.index(unique)
        self._seen: set[bytes] = set()
        self._spool = spool
        self._problems = problems
        self._from_row = from_row
        self._to_row = to_row
        self._max_cell = max_cell_bytes

    def take(self, batch: Batch) -> None:
        """Judge the rows of a batch, and keep the good ones."""
        first, rows, lines = batch.first, batch.rows, batch.lines
        if not rows:
            return
        begin = max(self._from_row - first, 0)
        end = len(rows) if self._to_row is None else min(self._to_row - first + 1, len(rows))
        self.last = first + len(rows) - 1
        self.ended = self._to_row is not None and self.last >= self._to_row
        if self._unique is not None and begin:
            # As when they were sent, by the call that this one goes on with: it would have refused their repeats.
            blank = [""] * len(self._rules)
            before = [row if len(row) == len(blank) else blank for row in rows[:begin]]
            self._judged(before, first, written=lines is not None)
        if begin >= end:
            return
        rows, first = rows[begin:end], first + begin
        lines = None if lines is None else lines[begin:end]
        self.rows += len(rows)
        texts, bad = self._judged(rows, first, written=lines is not None)
        if not bad:
            self._spool.add(texts, range(first, first + len(texts)), lines)
            return
        self._note(bad, first, lines)
        good = [index for index in range(len(texts)) if index not in bad]
        if good:
            self._spool.add(
                [texts[index] for index in good],
                [first + index for index in good],
                None if lines is None else [lines[index] for index in good],
            )

    def _judged(
        self, rows: Sequence[Sequence[object]], first: int, *, written: bool
    ) -> tuple[Sequence[Sequence[str]], dict[int, dict[int, str]]]:
        """The rows as texts; and the reasons against each bad one, by its index and that of the column."""
        if written:
            texts, bad = cast("Sequence[Sequence[str]]", rows), dict[int, dict[int, str]]()
        else:
            texts, bad = self._written(rows, first)
        checks = self._checks
        for index, row in enumerate(texts):
            for column, required, check in checks:
                text = row[column]
                reason = check(text) if text and check is not None else None if text or not required else REQUIRED
                if reason is not None:
                    bad.setdefault(index, {}).setdefault(column, reason)
        if self._unique is not None:
            self._compare(texts, self._unique, bad)
        return texts, bad

    def _compare(self, texts: Sequence[Sequence[str]], column: int, bad: dict[int, dict[int, str]]) -> None:
        """Refuse good rows with a value that a good row before has."""
        for index, row in enumerate(texts):
            if index in bad or not row[column]:
                continue
            mark = blake2b(row[column].encode("utf-8", "surrogatepass"), digest_size=12).digest()
            if mark in self._seen:
                bad[index] = {column: REPEATED}
            else:
                self._seen.add(mark)

    def _note(self, bad: dict[int, dict[int, str]], first: int, lines: Sequence[int] | None) -> None:
        self.refused += len(bad)
        for index in sorted(bad):
            for column, reason in sorted(bad[index].items()):
                name, line = self._rules[column].name, None if lines is None else lines[index]
                self._problems.add(RowProblem(row=first + index, line=line, field=name, reason=reason))

    def _written(
        self, rows: Sequence[Sequence[object]], first: int
    ) -> tuple[Sequence[Sequence[str]], dict[int, dict[int, str]]]:
        """Values of Python as texts; what cannot be written is bad, and its place is left empty."""
        bad: dict[int, dict[int, str]] = {}
        texts: list[list[str]] = []
        for index, row in enumerate(rows):
            cells: list[str] = []
            for column, (rule, value) in enumerate(zip(self._rules, row, strict=True)):
                try:
                    text = rule.write(value)
                except ValueError as error:
                    bad.setdefault(index, {})[column] = str(error)
                    text = ""
                if len(text) * 4 > self._max_cell and len(text.encode()) > self._max_cell:
                    raise fault(
                        f"A value has more than {self._max_cell:,} bytes.",
                        row=first + index,
                        field=rule.name,
                        advice="If that is meant, pass a larger max_cell_bytes.",
                    )
                cells.append(text)
            texts.append(cells)
        return texts, bad
