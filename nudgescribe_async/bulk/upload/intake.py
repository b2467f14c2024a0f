"""From the pieces of a source, whatever it is, to numbered rows.

An intake knows its columns once the header, or the first piece, is through. It holds one piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from attrs import frozen

from nudgescribe_async.bulk.upload.faults import fault
from nudgescribe_async.bulk.upload.lines import Lines
from nudgescribe_async.bulk.upload.records import Records
from nudgescribe_async.errors import UploadSourceError

if TYPE_CHECKING:
    from nudgescribe_async.bulk.upload.header import Columns

__all__ = ["Batch", "CsvIntake", "Intake", "MappingIntake", "Match", "Table", "TableIntake"]

Match = Callable[[Sequence[str], int | None], "Columns"]
"""Given the names of the columns and the line that they stand in, the columns that are sent."""
_LONGEST_ROW = 4  # times the largest cell


@frozen(kw_only=True)
class Batch:
    """Rows that follow each other.

    Attributes:
        first: the number of the first one.
        rows: the cells that are sent, in the order of the columns: texts of a file, else values of Python.
        lines: the line of the file at which each begins, if it is of a file.
    """

    first: int
    rows: Sequence[Sequence[object]]
    lines: Sequence[int] | None = None


class Intake(Protocol):
    """Takes pieces of a source."""

    columns: Columns | None

    def feed(self, piece: object) -> Batch:
        """The rows that end in this piece."""
        ...

    def end(self) -> Batch:
        """The rows that are left, now that the source has ended."""
        ...


class CsvIntake:
    """A file: its pieces are bytes. The number of cells is checked here, of the rows that are to be sent.

    A row before them that has another number is not given as it is. Those behind them are not looked at.
    """

    def __init__(
        self,
        match: Match,
        *,
        encoding: str,
        delimiter: str,
        max_cell_bytes: int,
        from_row: int,
        to_row: int | None = None,
    ) -> None:
        self.columns: Columns | None = None
        self._match = match
        longest = max(_LONGEST_ROW * max_cell_bytes, 2**20)
        self._lines = Lines(encoding, longest)
        self._records = Records(delimiter, max_cell_bytes, longest)
        self._row = 0
        self._from_row = from_row
        self._to_row = to_row

    def feed(self, piece: object) -> Batch:
        """The rows that end in this block of bytes."""
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise TypeError("The source gave something else after bytes: it must give bytes throughout.")
        return self._take(self._lines.feed(bytes(cast("bytes", piece))))

    def end(self) -> Batch:
        """The last row, if its line has no end."""
        batch = self._take(self._lines.end())
        self._records.end()
        if self.columns is None:
            raise fault("The file is empty.", advice="It needs a header that names profile fields, and rows.")
        if self._row == 0:
            raise fault("The file has a header, and no rows below it.")
        return batch

    def _take(self, lines: Sequence[str]) -> Batch:
        first, rows, begins = self._row + 1, list[list[str]](), list[int]()
        records, columns, row = self._records, self.columns, self._row
        for line in lines:
            if row == self._to_row:
                break
            cells = records.take(line)
            if cells is None:
                continue
            if columns is None:
                columns = self._begin(cells)
                records.row = 1
                continue
            row += 1
            records.row = row + 1
            if len(cells) != columns.width and row >= self._from_row:
                if len(cells) == 1 and not cells[0].strip():
                    raise fault(
                        f"The line has only blanks, and a row has {columns.width:,} cells.",
                        row=row,
                        line=records.begin,
                        advice="Remove the line, or what is in it: empty lines are passed over.",
                    )
                raise fault(
                    f"The row has {len(cells):,} {'cell' if len(cells) == 1 else 'cells'}, and the header "
                    f"{columns.width:,}.",
                    row=row,
                    line=records.begin,
                    advice="Put cells that hold the delimiter into quotes, and keep empty cells.",
                )
            rows.append(cells)
            begins.append(records.begin)
        self._row = row
        if self._lines.fault is not None and row != self._to_row:
            raise self._placed(self._lines.fault)
        if columns is not None and len(columns.picked) < columns.width:
            picked = columns.picked
            rows = [[cells[index] for index in picked] if len(cells) == columns.width else [] for cells in rows]
        return Batch(first=first, rows=rows, lines=begins)

    def _begin(self, cells: list[str]) -> Columns:
        if not any(name.strip() for name in cells):
            raise fault("The first row is empty.", line=self._records.begin, advice="It must name profile fields.")
        self.columns = self._match(cells, self._records.begin)
        # Only names of the workspace, or those that a caller vouches for, are fit to be repeated.
        self._records.header = [None] * len(cells)
        for index, name in zip(self.columns.picked, self.columns.names, strict=True):
            self._records.header[index] = name
        return self.columns

    def _placed(self, error: UploadSourceError) -> UploadSourceError:
        records = self._records
        if self._lines.cut is not None:
            records.look_for_large(self._lines.cut)
        line = records.begin if records.inside else records.line + 1
        return fault(error.message, row=records.row, line=line, advice=error.advice.removesuffix("Nothing was sent."))


class MappingIntake:
    """Rows that are mappings of field to value: pieces are lists of them. All have the fields that the first one has.

    One before ``from_row`` that has not is given as an empty row.
    """

    def __init__(self, match: Match, *, wanted: Sequence[str] | None, from_row: int = 1) -> None:
        self.columns: Columns | None = None
        self._match = match
        self._wanted = wanted
        self._names: tuple[str, ...] = ()
        self._row = 0
        self._from_row = from_row

    def feed(self, piece: object) -> Batch:
        """The rows of this list."""
        first, rows = self._row + 1, list[list[object]]()
        for item in cast("list[object]", piece):
            self._row += 1
            try:
                rows.append(self._values(item))
            except UploadSourceError:
                if self.columns is None or self._row >= self._from_row:
                    raise
                rows.append([])
        return Batch(first=first, rows=rows)

    def end(self) -> Batch:
        """Nothing is left, as a rule; a source without rows is a fault."""
        if self._row == 0:
            raise fault("The source has no rows.")
        return Batch(first=self._row + 1, rows=())

    def _values(self, row: object) -> list[object]:
        if not isinstance(row, Mapping):
            raise fault(
                f"The source gave {type(row).__name__}, and a row is a mapping of profile field to value.",
                row=self._row,
            )
        item = cast("Mapping[object, object]", row)
        if self.columns is None:
            self._begin(item)
        if self._wanted is not None:
            if not all(name in item for name in self._names):
                # White space around names does not count, as in the header of a file.
                item = {name.strip(): value for name, value in item.items() if isinstance(name, str)} | dict(item)
            return [item.get(name) for name in self._names]
        values = [item.get(name, self) for name in self._names]
        if len(item) == len(values) and all(value is not self for value in values):
            return values
        lacking = next((name for name in self._names if name not in item), None)
        if lacking is not None:
            raise fault(
                "The row has not all the fields that row 1 has.",
                row=self._row,
                field=lacking,
                advice="An empty value takes a value away from a customer who is there already, so none is made up: give"
                " every row the same fields, or name them: with fields=[...], those that a row lacks are empty.",
            )
        raise fault(
            "The row has a field that row 1 has not.",
            row=self._row,
            advice="Give every row the same fields, or name them: fields=[...].",
        )

    def _begin(self, item: Mapping[object, object]) -> None:
        names = list(item) if self._wanted is None else list(self._wanted)
        if not all(isinstance(name, str) for name in names):
            raise fault("A name of a field is no text.", row=self._row)
        if not names:
            raise fault("The row has no fields.", row=self._row)
        self._names = tuple(cast("list[str]", names))
        self.columns = self._match(self._names, None)


class Table(Protocol):
    """A part of a table: its columns as lists of Python values."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the columns."""
        ...

    def rows(self, picked: Sequence[int]) -> Sequence[Sequence[object]]:
        """Its rows, each with the columns picked."""
        ...


class TableIntake:
    """A table: its pieces are parts of it, a few thousand rows each."""

    def __init__(self, match: Match) -> None:
        self.columns: Columns | None = None
        self._match = match
        self._row = 0

    def feed(self, piece: object) -> Batch:
        """The rows of this part."""
        table = cast("Table", piece)
        if self.columns is None:
            if not table.names:
                raise fault("The table has no columns.")
            self.columns = self._match(table.names, None)
        rows = table.rows(self.columns.picked)
        first, self._row = self._row + 1, self._row + len(rows)
        return Batch(first=first, rows=rows)

    def end(self) -> Batch:
        """Nothing is left; a table without rows is a fault."""
        if self._row == 0:
            raise fault("The table has no rows.")
        return Batch(first=self._row + 1, rows=())
