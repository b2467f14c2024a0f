"""From lines to rows of cells: CSV, RFC 4180, read strictly.

The standard library's reader would do, but for three things: the longest cell that it takes is a setting of the whole
process, it does not say at which line a row begins, and it says nothing of what is wrong that a person could use.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nudgescribe_async.bulk.upload.faults import fault

if TYPE_CHECKING:
    from nudgescribe_async.errors import UploadSourceError

__all__ = ["Records"]

_QUOTE = '"'


class Records:
    """Takes one line after the other, and gives a row whenever one ends.

    Attributes:
        line: the number of the last line that was taken, from 1.
        begin: the number of the line at which the row begins that was given last, or that is under way.
        row: the number of that row for messages; ``None`` is the header.
        header: the names of the columns for messages, as far as they are known.
    """

    def __init__(self, delimiter: str, max_cell_bytes: int, longest: int) -> None:
        self._delimiter = delimiter
        self._max_cell = max_cell_bytes
        self._cells: list[str] = []
        self._open: list[str] | None = None  # the pieces of a cell in quotes that has not ended yet
        self._open_length = 0
        self._longest = longest  # characters of a row: a quote in each line may make one row of all of them
        self._length = 0
        self.line = 0
        self.begin = 0
        self.row: int | None = None
        self.header: list[str | None] = []

    @property
    def inside(self) -> bool:
        """Whether a row is under way."""
        return self._open is not None

    def take(self, line: str) -> list[str] | None:
        """The row that ends with this line, if one does and is not blank.

        Raises:
            UploadSourceError: quotes are not as they should be, or a cell or the row is too large.
        """
        self.line += 1
        if self._open is None:
            self.begin = self.line
            if _QUOTE not in line:
                text = line.rstrip("\r\n")
                if not text:
                    return None
                cells = text.split(self._delimiter)
                if len(text) * 4 > self._max_cell:
                    for index, cell in enumerate(cells):
                        self._measure(cell, index)
                return cells
        return self._scan(line)

    def look_for_large(self, line: str) -> None:
        """The beginning of a line that is too long: it may be for a single cell of it.

        Raises:
            UploadSourceError: there is one.
        """
        large = re.search(rf'[^"{re.escape(self._delimiter)}]{{{self._max_cell + 1},}}', line)
        if large is not None:
            if not self.inside:
                self.begin = self.line + 1
            known = not self.inside and _QUOTE not in line
            raise self._too_large(line.count(self._delimiter, 0, large.start()) if known else len(self.header))

    def end(self) -> None:
        """The file has ended.

        Raises:
            UploadSourceError: within quotes.
        """
        if self._open is not None:
            raise self._fault(
                len(self._cells),
                "A quote that opens a cell is never closed.",
                advice='Close it, and write a quote within a cell in quotes twice ("").',
            )

    def _scan(self, line: str) -> list[str] | None:
        """A line with quotes in it, or within a cell in quotes."""
        position = 0
        self._length += len(line)
        while True:
            if self._open is None:
                if not line.startswith(_QUOTE, position):
                    end = line.find(self._delimiter, position)
                    cell = line[position:].rstrip("\r\n") if end < 0 else line[position:end]
                    self._add(cell)
                    if end < 0:
                        return self._finish()
                    position = end + 1
                    continue
                self._open, self._open_length, position = [], 0, position + 1
            end = line.find(_QUOTE, position)
            if end < 0:
                self._grow(line[position:])
                self._look_at_length()
                return None
            if line.startswith(_QUOTE, end + 1):
                self._grow(line[position : end + 1])
                position = end + 2
                continue
            self._grow(line[position:end])
            self._add("".join(self._open))
            self._open = None
            rest = line[end + 1 : end + 2]
            if rest in {"", "\r", "\n"}:
                return self._finish()
            if rest != self._delimiter:
                raise self._fault(
                    len(self._cells) - 1,
                    "Behind the quote that closes a cell stands something else than the delimiter.",
                    advice='Write a quote within a cell in quotes twice ("").',
                )
            position = end + 2

    def _grow(self, piece: str) -> None:
        if self._open is not None:
            self._open.append(piece)
            self._open_length += len(piece)
            if self._open_length > self._max_cell:
                raise self._too_large(len(self._cells))

    def _add(self, cell: str) -> None:
        self._measure(cell, len(self._cells))
        self._cells.append(cell)

    def _finish(self) -> list[str]:
        cells, self._cells, self._length = self._cells, [], 0
        return cells

    def _look_at_length(self) -> None:
        if self._length > self._longest:
            raise self._fault(
                len(self.header),
                f"The row has more than {self._longest:,} characters.",
                advice="A quote may be missing; if that is meant, pass a larger max_cell_bytes.",
            )

    def _measure(self, cell: str, index: int) -> None:
        if len(cell) * 4 > self._max_cell and len(cell.encode("utf-8", "surrogatepass")) > self._max_cell:
            raise self._too_large(index)

    def _too_large(self, index: int) -> UploadSourceError:
        return self._fault(
            index,
            f"A cell has more than {self._max_cell:,} bytes.",
            advice="A quote may be missing; if it is meant, pass a larger max_cell_bytes.",
        )

    def _fault(self, index: int, what: str, *, advice: str) -> UploadSourceError:
        field = self.header[index] if index < len(self.header) else None
        return fault(what, row=self.row, line=self.begin, field=field, advice=advice)
