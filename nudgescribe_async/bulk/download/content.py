"""Whether a file that has come to its end is a whole file of messages. Everything here blocks, and can be stopped.

It is read from disk again, so that what is found out is true of what is there, and in pieces, so that its size does
not matter. The reader of CSV makes each row as a whole, and lets no other thread do anything meanwhile, so how long a
row may be is limited.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from itertools import islice
from typing import TYPE_CHECKING

from attrs import frozen

from nudgescribe_async.message_file import long_cells, not_a_file
from nudgescribe_async.threads import check

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterator
    from pathlib import Path
    from typing import Self

    from nudgescribe_async.bulk.download.digests import Digest
    from nudgescribe_async.transport import Headers

__all__ = ["Content", "DamageError", "examine"]

_CHUNK = 2**20
_SHORT = 2**20
_LONGEST = 4 * 2**20  # letters of a row: an open quote must not draw a whole file into memory
_MOST = 2**18  # commas of a row, those within cells too: each may be a cell, which takes more memory than its letters
_AT_ONCE = 256
_JSON = re.compile(rb'\s*(?:\{\s*"|\[\s*[{\]])')
_XML = re.compile(rb"\s*<(?:\?xml|!doctype|html|error)\b", re.IGNORECASE)


@frozen(kw_only=True)
class Content:
    """What is in a file."""

    bytes: int
    rows: int
    sha256: str


class DamageError(Exception):
    """A file is not whole, or not what it should be. The text says what it is, as the end of a sentence.

    Attributes:
        as_published: whether a checksum shows that the storage has it just so; fetching it again would not help.
    """

    def __init__(self, what: str, *, as_published: bool) -> None:
        super().__init__(what)
        self.as_published = as_published


def examine(path: Path, headers: Headers, digests: Collection[Digest], stop: threading.Event) -> Content:
    """Look at the whole file.

    Args:
        path: the file.
        headers: of the answer that it came with, the last one.
        digests: the checksums that it must have, each of them.
        stop: ends it early.

    Raises:
        DamageError: it is not whole, or no file of messages.
        StoppedError: ``stop`` was set.
    """
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *(name for name, _ in digests)}}
    size = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_CHUNK):
            check(stop)
            size += len(piece)
            for running in hashes.values():
                running.update(piece)
    for name, digest in digests:
        if hashes[name].digest() != digest:
            raise DamageError(f"does not match the {name} checksum that the storage gave with it", as_published=False)
    what = _what_it_is(path, headers, size)
    if what is not None:
        raise DamageError(f"is {what}, not CSV", as_published=bool(digests))
    try:
        rows = _count_rows(path, stop)
    except DamageError as error:
        error.as_published = bool(digests)
        raise
    return Content(bytes=size, rows=rows, sha256=hashes["sha256"].hexdigest())


def _what_it_is(path: Path, headers: Headers, size: int) -> str | None:
    with path.open("rb") as file:
        start = file.read(_SHORT)
    what = not_a_file(200, headers, start)
    if what is not None:
        return what
    bare = start.removeprefix(b"\xef\xbb\xbf")
    if _XML.match(bare):
        return "XML or HTML"
    return "JSON" if _JSON.match(bare) and size > 0 else None


def _count_rows(path: Path, stop: threading.Event) -> int:
    """The rows below the header, each with as many cells as that."""
    with io.TextIOWrapper(path.open("rb"), encoding="utf-8-sig", newline="") as text:
        lines = _Lines(text)
        reader = csv.reader(lines, strict=True)
        try:
            columns = _header(reader, lines)
            while _some(reader, lines, columns):
                check(stop)
        except csv.Error as error:
            what = f"is no CSV after row {lines.rows:,}, near line {reader.line_num:,}: {error}"
            raise DamageError(what, as_published=False) from None
        except UnicodeDecodeError:
            raise DamageError(f"is not UTF-8 after row {lines.rows:,}", as_published=False) from None
        return lines.rows


def _header(reader: Iterator[list[str]], lines: _Lines) -> int:
    """How many columns there are."""
    with long_cells(_LONGEST):
        cells = next(reader, None)
    lines.end_row()
    if not cells or len(set(cells)) < len(cells):
        raise DamageError("has no header of different names", as_published=False)
    return len(cells)


def _some(reader: Iterator[list[str]], lines: _Lines, columns: int) -> bool:
    """Count some more rows, none of which is kept; whether there were any."""
    cells: list[str] | None = None
    with long_cells(_LONGEST):
        for cells in islice(reader, _AT_ONCE):
            lines.end_row()
            if cells:  # an empty line, as at the end of some files, is none
                lines.rows += 1
                if len(cells) != columns:
                    what = f"has {len(cells):,} cells in row {lines.rows:,}, under {columns:,} columns"
                    raise DamageError(what, as_published=False)
    return cells is not None


class _Lines:
    """The lines of a file, as long as those of one row are not too many or too long.

    Attributes:
        rows: how many rows whoever reads the lines has found in them.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.rows = 0
        self.end_row()

    def end_row(self) -> None:
        """What comes next is of another row."""
        self._letters = self._commas = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LONGEST + 1)
        if not line:
            raise StopIteration
        self._letters += len(line)
        self._commas += line.count(",")
        if self._letters > _LONGEST:
            raise csv.Error(f"a row is longer than {_LONGEST:,} letters")
        if self._commas > _MOST:
            raise csv.Error(f"a row has more than {_MOST:,} commas")
        return line
