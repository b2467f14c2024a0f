"""Files of messages: whether an answer is one, and whole, and the rows in it.

A row that is lost, or a text that is cut, would be a letter that somebody does not get, or gets half.
So nothing is guessed: what cannot be shown to be a whole file is an error.
"""

from __future__ import annotations

import csv
import io
import sys
import threading
from typing import TYPE_CHECKING

from nudgescribe_async.codec import InvalidJSONError, loads
from nudgescribe_async.errors import ResponseDecodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nudgescribe_async.transport import Headers

__all__ = ["end_is_known", "not_a_file", "read_rows"]

_OPERATION = "messages.fetch"
_CSV = frozenset({"text/csv", "application/csv", "text/comma-separated-values"})
_NOT_CSV = frozenset({"application/json", "application/problem+json", "application/xhtml+xml", "text/html"})
_CELLS = threading.Lock()


def end_is_known(headers: Headers) -> bool:
    """Whether a body that was cut off on the way would have been noticed.

    It would not where it ends with the connection, or is compressed: libraries differ in whether they
    check that a compressed stream came to its end, so the session asks for an uncompressed one.
    """
    framed = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
    return framed and headers.get("content-encoding", "identity").strip().lower() in ("", "identity")


def not_a_file(status: int, headers: Headers, body: bytes) -> str | None:
    """What an answer is, if it is no message file; ``None`` if it is one."""
    if status != 200:
        return f"one with status {status}"
    start = body[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "empty"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
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


def is_visibly_none(status: int, headers: Headers, body: bytes) -> bool:
    """Whether an answer is nothing, or a page for browsers: somebody in front of the service answered."""
    what = not_a_file(status, headers, body)
    return what is not None and (what == "empty" or "html" in what.lower())


def read_rows(text: str) -> list[dict[str, str]]:
    """The rows of a message file.

    Raises:
        ResponseDecodeError: the text is no CSV with a header and as many cells in each row.
    """
    lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    with _CELLS:  # the limit on the size of a cell is the process's; a letter with a picture in it is longer
        limit = csv.field_size_limit(sys.maxsize)
        try:
            return list(_rows(lines))
        except csv.Error as error:
            raise _unreadable(f"line {lines.line_num} is no CSV: {error}", "CSV", "something else") from None
        finally:
            csv.field_size_limit(limit)


def _rows(lines: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    header = next(lines, None)
    if header is None:
        raise _unreadable("it is empty", "a header", "nothing")
    if len(set(header)) < len(header):
        raise _unreadable("two columns have the same name", "a header of different names", "a name twice")
    for number, cells in enumerate(lines, start=1):
        if not cells:
            continue  # an empty line, as at the end of some files
        if len(cells) != len(header):
            raise _unreadable(
                f"row {number} has {len(cells)} cells under {len(header)} columns",
                f"{len(header)} cells",
                f"{len(cells)} cells",
            )
        yield dict(zip(header, cells, strict=True))


def _unreadable(what: str, expected: str, received: str) -> ResponseDecodeError:
    return ResponseDecodeError(
        f"The message file cannot be read: {what}.",
        expected=expected,
        received=received,
        operation=_OPERATION,
        evidence="reference",
    )
