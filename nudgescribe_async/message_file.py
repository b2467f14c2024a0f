"""Files of messages: whether an answer is one, and whole, and the rows in it.

A row that is lost, or a text that is cut, would be a letter that somebody does not get, or gets half.
So nothing is guessed: what cannot be shown to be a whole file is an error.
"""

from __future__ import annotations

import csv
import re
import sys
import threading
from collections import deque
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from nudgescribe_async.codec import InvalidJSONError, loads
from nudgescribe_async.errors import ResponseDecodeError

if TYPE_CHECKING:
    from nudgescribe_async.transport import Headers

__all__ = ["Rows", "end_is_known", "not_a_file"]

_OPERATION = "messages.fetch"
_CSV = frozenset({"text/csv", "application/csv", "text/comma-separated-values"})
_NOT_CSV = frozenset({"application/json", "application/problem+json", "application/xhtml+xml", "text/html"})
_CELLS = threading.Lock()
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # str.splitlines() knows more ends than CSV does


def end_is_known(headers: Headers) -> bool:
    """Whether a body that was cut off on the way would have been noticed.

    It would not where it ends with the connection, or is compressed: libraries differ in whether they
    check that a compressed stream came to its end, so the session asks for an uncompressed one.
    """
    framed = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
    return framed and headers.get("content-encoding", "identity").strip().lower() in ("", "identity")


def _kind(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def not_a_file(status: int, headers: Headers, body: bytes) -> str | None:
    """What an answer is, if it is no message file; ``None`` if it is one."""
    if status != 200:
        return f"one with status {status}"
    start = body[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "empty"
    kind = _kind(headers)
    if kind in _NOT_CSV:
        return kind
    if start.lower().startswith((b"<!doctype html", b"<html")):
        return "HTML"
    if start.startswith(b"{"):
        try:
            return "JSON" if isinstance(loads(body), dict) else None
        except InvalidJSONError:
            return None
    if kind not in _CSV and b"\n" not in body.strip() and b"\r" not in body.strip():
        return f"a single line of {kind or 'an unknown type'}"  # a proxy's excuse, more likely than a header
    return None


def says_otherwise(headers: Headers) -> bool:
    """Whether an answer says itself that it is something else than a message file."""
    return _kind(headers) in _NOT_CSV


def is_visibly_none(status: int, headers: Headers, body: bytes) -> bool:
    """Whether an answer is nothing, or a page for browsers: somebody in front of the service answered."""
    what = not_a_file(status, headers, body)
    return what is not None and (what == "empty" or "html" in what.lower())


class Rows(Collection[dict[str, str]]):
    """The rows of a message file, each a mapping of column to text, made as they are asked for.

    The whole file is checked at once: that takes a tenth of the time and none of the memory of making all rows.

    Raises:
        ResponseDecodeError: the text is no CSV with a header and as many cells in each row.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        lines = _Lines(text)
        try:
            self._header = _checked_header(next(lines, None))
            self._count = 0
            for cells in lines:
                if cells:  # an empty line, as at the end of some files, is none
                    self._count += 1
                    if len(cells) != len(self._header):
                        raise _ragged(self._count, len(cells), len(self._header))
        except csv.Error as error:
            raise _unreadable(f"line {lines.number} is no CSV: {error}", "CSV", "something else") from None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, str]]:
        return _RowIterator(self._text, self._header, self._count)

    def __contains__(self, row: object) -> bool:
        return any(row == found for found in self)


class _RowIterator(Iterator[dict[str, str]]):
    """Knows how many rows are left, as the iterator of a list does."""

    def __init__(self, text: str, header: list[str], count: int) -> None:
        self._lines = _Lines(text)
        self._header = header
        self._left = count
        next(self._lines, None)

    def __next__(self) -> dict[str, str]:
        for cells in self._lines:
            if cells:
                self._left -= 1
                return dict(zip(self._header, cells, strict=True))
        raise StopIteration

    def __length_hint__(self) -> int:
        return self._left


@contextmanager
def long_cells(most: int = sys.maxsize) -> Generator[None, None, None]:
    """Let the cells of any CSV file be longer than usual: for a short time, since others wait for their turn."""
    with _CELLS:
        limit = csv.field_size_limit(most)
        try:
            yield
        finally:
            csv.field_size_limit(limit)


class _Lines(Iterator[list[str]]):
    """The lines of a CSV file, some at a time: the limit on the size of a cell is the process's, and changed meanwhile.

    A letter with a picture in it is longer than that limit.
    """

    def __init__(self, text: str) -> None:
        lines = (found[0] for found in _LINE.finditer(text, 1 if text.startswith("\ufeff") else 0))
        self._reader = csv.reader(lines, strict=True)
        self._at_hand: deque[list[str]] = deque()
        self.number = 0

    def __next__(self) -> list[str]:
        if not self._at_hand:
            self._read()
        if not self._at_hand:
            raise StopIteration
        return self._at_hand.popleft()

    def _read(self) -> None:
        try:
            with long_cells():
                self._at_hand.extend(islice(self._reader, 256))
        finally:
            self.number = self._reader.line_num


def _checked_header(header: list[str] | None) -> list[str]:
    if header is None:
        raise _unreadable("it is empty", "a header", "nothing")
    if len(set(header)) < len(header):
        raise _unreadable("two columns have the same name", "a header of different names", "a name twice")
    return header


def _ragged(row: int, cells: int, columns: int) -> ResponseDecodeError:
    what = f"row {row} has {cells} cells under {columns} columns"
    return _unreadable(what, f"{columns} cells", f"{cells} cells")


def _unreadable(what: str, expected: str, received: str) -> ResponseDecodeError:
    return ResponseDecodeError(
        f"The message file cannot be read: {what}.",
        expected=expected,
        received=received,
        operation=_OPERATION,
        evidence="reference",
    )
