"""The rows of one partition on their way into an upload.

Rows that lack the identifier are left out: the service would have them twice if they were sent twice.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc
from attrs import evolve

from nudgescribe_async.bulk.upload import RowProblem
from nudgescribe_async.bulk.upload.rules import REQUIRED
from nudgescribe_async.spark.writing_report import PartitionReport, RefusedRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from nudgescribe_async.bulk.upload import UploadSource

__all__ = ["Batch", "Rows"]

Batch: TypeAlias = Any
"""A record batch of pyarrow, which has no types."""

_pa = cast("Any", pa)
_compute = cast("Any", pc)


class Rows:
    """The rows of a partition. What it says of rows holds once the table has been read.

    Args:
        batches: all of them.
        identifier: the column without which a row is left out; ``None`` keeps all.
        partition: the number of the partition.
        fields: the columns.
    """

    def __init__(
        self, batches: Iterable[Batch], *, identifier: str | None, partition: int, fields: Collection[str]
    ) -> None:
        self._batches = batches
        self._identifier = identifier
        self._partition = partition
        self._fields = fields
        self._kept = 0
        self._before: list[int] = []  # for each row that was left out, how many were kept before it

    def table(self) -> UploadSource | None:
        """Those that are kept, as a table that is read as it goes; ``None`` if there are none."""
        batches: Iterator[Batch] = (batch for batch in map(self._pick, self._batches) if batch.num_rows)
        first: Batch = next(batches, None)
        if first is None:
            return None
        return cast("UploadSource", _pa.RecordBatchReader.from_batches(first.schema, chain([first], batches)))

    def refused(self, problem: RowProblem) -> RefusedRow:
        """A problem that the upload of the table has, with the number of the row among all of the partition."""
        if problem.row is not None:
            problem = evolve(problem, row=problem.row + bisect_left(self._before, problem.row))
        return RefusedRow.of(problem, partition=self._partition, fields=self._fields)

    def with_lacking(self, report: PartitionReport, *, keep: int) -> PartitionReport:
        """The report with the rows that were left out, and the reasons of the first refused ones, so many."""
        count = len(self._before)
        reason = f"{REQUIRED}, as the identifier"
        lacking = [
            RefusedRow.of(
                RowProblem(row=kept + number, field=self._identifier, reason=reason),
                partition=self._partition,
                fields=self._fields,
            )
            for number, kept in enumerate(self._before[:keep], start=1)
        ]
        refused = sorted([*report.refused, *lacking], key=lambda row: (row.by, row.row or 0))
        return evolve(
            report,
            rows=report.rows + count,
            refused_by_check=report.refused_by_check + count,
            reasons=report.reasons + count,
            refused=tuple(refused[:keep]),
        )

    def _pick(self, batch: Batch) -> Batch:
        if self._identifier is not None:
            there = _there(batch.column(self._identifier))
            kept = self._kept
            for is_there in there.to_pylist():
                if is_there:
                    kept += 1
                else:
                    self._before.append(kept)
            batch = batch.filter(there)
        self._kept += batch.num_rows
        return batch


def _there(column: Any) -> Any:
    """Which values are some: a null, NaN and an empty text would be an empty cell."""
    there = _compute.invert(_compute.is_null(column, nan_is_null=True))
    if _pa.types.is_string(column.type) or _pa.types.is_large_string(column.type):
        blank = _compute.equal(_compute.utf8_length(_compute.utf8_trim_whitespace(column)), 0)
        there = _compute.and_(there, _compute.invert(_compute.fill_null(blank, True)))
    return there
