"""Where rows wait between their check and their sending: one file that has no name.

It is unlinked as soon as it is open, so the system frees it when it is closed or its process dies, however that
happens; nobody else can open it meanwhile. The methods block.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from array import array
from bisect import bisect_right
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import IO, TYPE_CHECKING, Final

from attrs import define, field

from nudgescribe_async.bulk.upload.faults import fault
from nudgescribe_async.threads import in_thread
from nudgescribe_async.transport import StreamBody

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["Kept", "Spool"]

_PIECE: Final = 256 * 1024


@define(kw_only=True)
class Kept:
    """One chunk in the spool.

    Attributes:
        first_row: the first row of the source in it.
        last_row: the last one.
        rows: how many there are.
        start: where it begins in the file.
        length: its bytes.
        places: how many places of rows are written behind it.
    """

    first_row: int
    last_row: int
    rows: int = 0
    start: int
    length: int = 0
    places: int = 0


@define
class _Places:
    """Which row of the source, and which line, a row of the chunk is: an entry where they do not simply go on."""

    flat: array[int] = field(factory=lambda: array("q"))  # position in the chunk, row, line; and again

    def add(self, position: int, numbers: Sequence[int], lines: Sequence[int] | None) -> None:
        if self._goes_on(position, numbers, lines):
            return
        for index, number in enumerate(numbers):
            line = 0 if lines is None else lines[index]
            if not self._fits(position + index, number, line):
                self.flat.extend((position + index, number, line))

    def _fits(self, position: int, number: int, line: int) -> bool:
        if not self.flat:
            return False
        step = position - self.flat[-3]
        return number - self.flat[-2] == step and (not line or line - self.flat[-1] == step)

    def _goes_on(self, position: int, numbers: Sequence[int], lines: Sequence[int] | None) -> bool:
        # Rows and lines only grow: if the ends fit, so does all between.
        last = position + len(numbers) - 1
        return self._fits(position, numbers[0], lines[0] if lines else 0) and self._fits(
            last, numbers[-1], lines[-1] if lines else 0
        )

    def find(self, position: int) -> tuple[int, int | None]:
        index = bisect_right(range(0, len(self.flat), 3), position, key=lambda at: self.flat[at]) - 1
        start, number, line = self.flat[index * 3 : index * 3 + 3]
        step = position - start
        return number + step, line + step if line else None


class Spool:
    """The good rows, as CSV in chunks, each with the header.

    Args:
        folder: where the file is; the system's place for temporary files if ``None``.
        header: the names of the columns.
        rows_per_chunk: the most rows of a chunk.
        chunk_bytes: a chunk that has as many bytes ends.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, header: Sequence[str], *, rows_per_chunk: int, chunk_bytes: int
    ) -> None:
        self.chunks: list[Kept] = []
        self._file = _open(folder)
        self._header = _csv([header])
        self._rows_per_chunk = rows_per_chunk
        self._chunk_bytes = chunk_bytes
        self._size = 0
        self._current: Kept | None = None
        self._places = _Places()
        self._lock = Lock()
        self._closed = False

    def add(self, rows: Sequence[Sequence[str]], numbers: Sequence[int], lines: Sequence[int] | None) -> None:
        """Keep rows, with their numbers in the source and the lines at which they begin."""
        done = 0
        while done < len(rows):
            current = self._current
            if current is None:
                current = self._current = Kept(first_row=numbers[done], last_row=0, start=self._size)
                self._places = _Places()
                current.length = self._write(self._header)
            end = min(done + self._rows_per_chunk - current.rows, len(rows))
            end = _reached(rows, done, end, min(self._chunk_bytes - current.length, _PIECE))
            part = slice(done, end)
            self._places.add(current.rows, numbers[part], None if lines is None else lines[part])
            current.length += self._write(_csv(rows[part]))
            current.rows += end - done
            current.last_row = numbers[end - 1]
            done = end
            if current.rows == self._rows_per_chunk or current.length >= self._chunk_bytes:
                self._end_chunk()

    def end(self) -> None:
        """All rows are here."""
        if self._current is not None:
            self._end_chunk()
        self._file.flush()

    def body(self, chunk: Kept) -> StreamBody:
        """The chunk as the body of a file, as often as need be."""

        async def stream() -> AsyncIterator[bytes]:
            for start in range(0, chunk.length, _PIECE):
                size = min(_PIECE, chunk.length - start)
                yield await in_thread(partial(self._read, chunk.start + start, size))

        return StreamBody(open=stream, length=chunk.length)

    def places(self, chunk: Kept, positions: Sequence[int]) -> list[tuple[int, int | None]]:
        """The row of the source and the line of rows of a chunk, which count from 1."""
        places = _Places()
        size = chunk.places * 3 * places.flat.itemsize
        places.flat.frombytes(self._read(chunk.start + chunk.length, size))
        return [places.find(position - 1) for position in positions]

    def close(self) -> None:
        """Free the file. May be called more than once."""
        with self._lock:
            self._closed = True
            # It writes what it still holds, which nobody wants any more; a full disk must not hide why this ends.
            with suppress(OSError):
                self._file.close()

    def _end_chunk(self) -> None:
        current = self._current
        if current is not None:
            current.places = len(self._places.flat) // 3
            self._write(self._places.flat.tobytes())
            self.chunks.append(current)
            self._current = None

    def _write(self, data: bytes) -> int:
        self._file.write(data)
        self._size += len(data)
        return len(data)

    def _read(self, start: int, size: int) -> bytes:
        pieces: list[bytes] = []
        # Under the lock: once closed, the number of the file may be that of another one.
        with self._lock:
            if self._closed:
                raise ValueError("The spool of this upload is closed.")
            while size:
                piece = os.pread(self._file.fileno(), size, start)
                if not piece:
                    raise OSError("The spool of this upload was cut short.")
                pieces.append(piece)
                start, size = start + len(piece), size - len(piece)
        return b"".join(pieces)


def _open(folder: str | os.PathLike[str] | None) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=folder)  # closed by close()
    except OSError as error:
        if folder is None:
            raise
        # What it says otherwise is the path of a file that nobody has asked for.
        why = f"spool, the folder for the kept rows, cannot be used: {error.strerror}"
        raise OSError(error.errno, why, os.fspath(folder)) from error


def _reached(rows: Sequence[Sequence[str]], start: int, end: int, size: int) -> int:
    """Behind the row with which the rows from ``start`` have about as many bytes."""
    for index in range(start, end):
        row = rows[index]
        size -= sum(map(len, row)) + len(row)
        if size <= 0:
            return index + 1
    return end


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    try:
        return text.getvalue().encode()
    except UnicodeEncodeError:
        raise fault("A cell holds half of a character (a lone surrogate), which UTF-8 cannot hold.") from None
