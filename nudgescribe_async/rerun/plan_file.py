"""A plan from a CSV file, read strictly: whoever is in the wrong column is written to by mistake.

Nothing of the file is repeated in an error but the names of its columns, since it may hold more than ids.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from attrs import field, frozen

from nudgescribe_async.arguments import check_delimiter, check_encoding, kind
from nudgescribe_async.errors import RerunPlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from attrs import Attribute

__all__ = ["PlanFile"]

_LISTED: Final = 10
_NAMES: Final = 20
_NAME: Final = 60  # characters that are shown of the name of a column
_MARKS: Final = (
    # UTF-32 first: one of its marks begins with one of UTF-16.
    ("utf-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    ("utf-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
_WORKBOOKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_OTHER_DELIMITERS: Final = ",;\t|"


def _column(instance: object, attribute: Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be the name of a column; got {kind(value)}.")
    if not value.strip():
        raise ValueError(f"{attribute.name} must be the name of a column, and not empty.")


@frozen(kw_only=True)
class PlanFile:
    """What to read of which file, and how. All of it blocks.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument cannot be right.
    """

    path: str | os.PathLike[str] = field()
    campaign_column: str = field(validator=_column)
    group_column: str = field(validator=_column)
    encoding: str = field(converter=check_encoding)
    delimiter: str = field()

    def __attrs_post_init__(self) -> None:
        if not isinstance(cast("object", self.path), str | os.PathLike):
            raise TypeError(f"path must be the path of a CSV file; got {kind(self.path)}.")
        if not os.fspath(self.path):
            raise ValueError("path must be the path of a CSV file, and not empty.")
        check_delimiter(self.delimiter)
        if self.campaign_column.strip() == self.group_column.strip():
            raise ValueError("campaign_column and group_column must be two columns; both name the same one.")

    def read(self) -> list[tuple[str, str]]:
        """The ids of campaigns and groups, in the order of the file.

        Raises:
            RerunPlanError: there is no such file, or it is no plan.
        """
        try:
            data = Path(self.path).read_bytes()
        except OSError as error:
            raise RerunPlanError(
                f"{self._shown} cannot be read: {error.strerror or type(error).__name__}. Nothing was sent."
            ) from error
        rows = self._rows(self._text(data))
        line, header = next(rows, (None, None))
        if header is None:
            raise self._refusal("it is empty", f"Its first line must name the columns: {_named(self._columns)}.")
        places = self._places(line, [name.strip() for name in header])
        found: list[tuple[str, str]] = []
        wrong: list[tuple[int, str]] = []
        for line, cells in rows:
            pair, mistake = self._pair(cells, places, len(header))
            if mistake:
                wrong.append((line, mistake))
            found.append(pair)
        if wrong:
            raise self._lines(wrong)
        if not found:
            raise self._refusal("it has a header, and no campaigns", "Add a line for each campaign.")
        return found

    @property
    def _shown(self) -> str:
        return f"The plan {os.fspath(self.path)}"

    @property
    def _columns(self) -> tuple[str, str]:
        return self.campaign_column.strip(), self.group_column.strip()

    def _refusal(self, what: str, advice: str, line: int | None = None) -> RerunPlanError:
        place = "" if line is None else f", line {line:,}"
        error = RerunPlanError(f"{self._shown}{place}: {what}.")
        error.line = line
        error.advice = f"{advice} Nothing was sent."
        return error

    # --- from bytes to rows -----------------------------------------------------------------------------------

    def _text(self, data: bytes) -> str:
        if data.startswith(_WORKBOOKS):
            raise self._refusal("it is a workbook or an archive, by its first bytes", "Save it as CSV in UTF-8.")
        for encoding, marks in _MARKS:
            if data.startswith(marks) and not self.encoding.startswith(encoding):
                raise self._refusal(
                    f"it is encoded in {encoding.upper()}, by the mark that it begins with, and {self.encoding} was tried",
                    f"Save it as UTF-8, or pass encoding={encoding!r}.",
                    1,
                )
        line: int | None = None
        try:
            text = data.decode(self.encoding).removeprefix("\ufeff")
        except UnicodeError as error:  # not always a UnicodeDecodeError, and then it has no place
            text = None
            if isinstance(error, UnicodeDecodeError):
                line = _line_of_next(data[: error.start].decode(self.encoding, "ignore"))
        if text is None:  # not above: that error holds the file
            raise self._refusal(
                f"it cannot be decoded as {self.encoding}",
                "Save it as UTF-8, or name its encoding, such as encoding='cp1252', which Windows writes.",
                line,
            )
        nul = text.find("\0")
        if nul >= 0:
            raise self._refusal(
                "it holds a NUL character, which no text has",
                "It is another kind of file, damaged, or encoded in UTF-16 without a mark: pass encoding='utf-16-le' then.",
                _line_of_next(text[:nul]),
            )
        return text

    def _rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """The rows that are not blank, and the line at which each begins."""
        # newline="" knows LF, CRLF and CR; splitlines() has more.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                said = str(error)
                if "expected after" in said:
                    what = "behind the quote that closes a cell stands something else than the delimiter"
                elif "larger than" in said:
                    what = f"a cell has more than {csv.field_size_limit():,} characters; a quote may not be closed"
                else:
                    what = "a quote that opens a cell is never closed"
                raise self._refusal(
                    what, 'Close it, and write a quote within a cell in quotes twice ("").', line
                ) from None
            if cells is None:
                return
            if cells and (len(cells) > 1 or cells[0].strip()):
                yield line, cells

    # --- from rows to ids -------------------------------------------------------------------------------------

    def _places(self, line: int | None, names: Sequence[str]) -> tuple[int, int]:
        wanted = self._columns
        for name in wanted:
            if names.count(name) > 1:
                raise self._refusal(
                    f"the header has the column {name!r} {names.count(name)} times",
                    "Rename or remove all but one.",
                    line,
                )
        absent = [name for name in wanted if name not in names]
        if not absent:
            return names.index(wanted[0]), names.index(wanted[1])
        advice = "Its first line must name the columns; name others with campaign_column= and group_column=."
        other = next((mark for mark in _OTHER_DELIMITERS if len(names) == 1 and mark in names[0]), None)
        if other is not None:
            advice = f"The cells may be divided by {other!r}: pass delimiter={other!r}."
        # Without a header, the first line is about somebody, and ids have digits.
        if len(absent) == len(wanted) and any(character.isdigit() for name in names for character in name):
            there = "its first line seems to be no header"
        else:
            shown = ", ".join(repr(name[:_NAME]) for name in names[:_NAMES])
            there = f"it has {shown}" + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
        raise self._refusal(f"there is no column {_named(absent)}; {there}", advice, line)

    def _pair(self, cells: Sequence[str], places: tuple[int, int], width: int) -> tuple[tuple[str, str], str]:
        if len(cells) != width:
            # A cell too many may be a delimiter that lacks its quotes: what stands behind it is not what it seems.
            many = "short" if len(cells) < width else "long"
            return ("", ""), f"the row is too {many}: it has {_cells(len(cells))}, and the header {width}"
        campaign, group = (cells[place].strip() for place in places)
        ids = dict(zip(self._columns, (campaign, group), strict=True))
        empty = [name for name, value in ids.items() if not value]
        odd = [name for name, value in ids.items() if not value.isprintable()]
        mistake = ""
        if empty:
            mistake = f"{_named(empty)} must not be empty"
        elif odd:  # two rows in one, by two quotes too many, would lose a campaign
            mistake = f"{_named(odd)} must not hold line breaks or control characters; a quote may not be closed"
        return (campaign, group), mistake

    def _lines(self, wrong: Sequence[tuple[int, str]]) -> RerunPlanError:
        line, what = wrong[0]
        if len(wrong) > 1:
            others = "; ".join(f"line {line:,}: {mistake}" for line, mistake in wrong[1:_LISTED])
            more = f"; and {len(wrong) - _LISTED:,} more" if len(wrong) > _LISTED else ""
            what = f"{what}; {others}{more}"
        return self._refusal(what, "Correct the file: each row has a cell for each column, and both ids.", line)


def _line_of_next(text: str) -> int:
    """The number of the line in which stands what follows a text."""
    return len(io.StringIO(f"{text}.", newline="").readlines())


def _named(columns: Sequence[str]) -> str:
    return " and ".join(map(repr, columns))


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count:,} cells"
