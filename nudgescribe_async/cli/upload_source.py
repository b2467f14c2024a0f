"""What ``nudgescribe customers upload`` reads: a file or standard input, of CSV, NDJSON or Parquet, packed or not.

CSV goes to the upload as bytes, which checks all of it. A line of NDJSON is an object of profile field to value, whose
numbers keep their digits. No text here repeats anything of a row.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
import sys
import zlib
from contextlib import contextmanager, suppress
from decimal import Decimal
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from attrs import define

from nudgescribe_async.bulk.upload.faults import fault
from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Mapping

    from nudgescribe_async.bulk.upload import UploadSource

__all__ = ["STANDARD_INPUT", "Tally", "UploadFormat", "read_standard_input", "upload_source"]

STANDARD_INPUT: Final = "-"
UploadFormat: TypeAlias = Literal["csv", "ndjson", "parquet"]

_SUFFIXES: Final[dict[str, UploadFormat]] = {
    ".csv": "csv",
    ".txt": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
_PIECE: Final = 256 * 1024
_LONGEST_LINE: Final = 16 * 2**20
_PACKED: Final = ".gz"


@define
class Tally:
    """How much was read so far, for whoever watches.

    Attributes:
        size: bytes of the file; ``None`` if nobody knows.
        read: how many of them were read.
        lines: how many lines that were, or rows of a table.
    """

    size: int | None = None
    read: int = 0
    lines: int = 0

    def count(self, data: bytes, at: int | None = None) -> None:
        """Take note of what was read; ``at`` is where in the file that was."""
        self.read = self.read + len(data) if at is None else at
        self.lines += data.count(b"\n")


def upload_source(
    path: str,
    format: UploadFormat | None,  # noqa: A002 - what the option is called
    tally: Tally,
) -> UploadSource:
    """What to hand to ``customers.upload``. Nothing is read yet.

    Args:
        path: of a file; ``-`` for standard input.
        format: what is in it; left out, the suffix says it, and standard input is CSV.
        tally: is kept while it is read.

    Raises:
        UsageError: the suffix says nothing, there is no such file, or standard input is a terminal.
    """
    if path == STANDARD_INPUT:
        return _of_standard_input(format or "csv", tally)
    packed = path.lower().endswith(_PACKED)
    kind = format or _SUFFIXES.get(os.path.splitext(path[: -len(_PACKED)] if packed else path)[1].lower())  # noqa: PTH122
    if kind is None:
        raise UsageError(
            f"The name of {path} does not say what is in it.", hint="Say it with --format csv, ndjson or parquet."
        )
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is no file.", hint="What comes through a pipe is read with -, from standard input.")
    tally.size = status.st_size
    if kind == "parquet":
        if packed:
            raise UsageError("A Parquet file is packed by itself.", hint="Unpack the file with gunzip first.")
        return _parquet(path, tally)
    return _blocks(path, tally, packed=packed) if kind == "csv" else _rows(path, tally, packed=packed)


# --- files -------------------------------------------------------------------------------------------------------------


def _blocks(path: str, tally: Tally, *, packed: bool) -> Iterator[bytes]:
    with _opened(path, packed=packed) as (raw, file):
        while block := file.read(_PIECE):
            tally.count(block, raw.tell())
            yield block


def _rows(path: str, tally: Tally, *, packed: bool) -> Iterator[Mapping[str, object]]:
    reader = _Lines()
    with _opened(path, packed=packed) as (raw, file):
        while line := file.readline(_LONGEST_LINE + 1):
            tally.count(line, raw.tell())
            row = reader.row(line)
            if row is not None:
                yield row


@contextmanager
def _opened(path: str, *, packed: bool) -> Generator[tuple[IO[bytes], IO[bytes]]]:
    """The file itself, which knows how far it was read, and what is in it."""
    with _unpacking(), open(path, "rb") as raw:  # noqa: PTH123
        if not packed:
            yield raw, raw
            return
        with gzip.GzipFile(fileobj=raw) as file:
            yield raw, cast("IO[bytes]", file)


@contextmanager
def _unpacking() -> Generator[None]:
    damaged = False
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error):
        damaged = True
    if damaged:  # not above: that error may hold what was read
        raise fault("The file is damaged, or not packed with gzip.", advice="Unpack it with gunzip, which says more.")


def _parquet(path: str, tally: Tally) -> UploadSource:
    try:
        arrow: Any = import_module("pyarrow")  # an extra, which has no types
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        error = ConfigurationError("Reading Parquet needs pyarrow.")
        error.advice = "Install the extra: nudgescribe_async[parquet]."
        raise error from None

    def reader() -> Any:
        try:
            file = parquet.ParquetFile(path)
        except arrow.ArrowInvalid:
            raise fault("The file is no Parquet, or damaged.", advice="Say what it is with --format.") from None
        tally.size, rows = file.metadata.num_rows, 0  # of rows, since that is what is counted

        def batches() -> Iterator[Any]:
            nonlocal rows
            for batch in file.iter_batches():
                rows += batch.num_rows
                tally.read = tally.lines = rows
                yield batch

        return arrow.RecordBatchReader.from_batches(file.schema_arrow, batches())

    return cast("UploadSource", reader)


# --- standard input ----------------------------------------------------------------------------------------------------


def _of_standard_input(kind: UploadFormat, tally: Tally) -> UploadSource:
    if kind == "parquet":
        raise UsageError("Parquet cannot be read from standard input.", hint="Name a file: its end is read first.")
    if standard_input() == "terminal":
        raise UsageError(
            "Standard input is a terminal.", hint="Name a file, or pipe one in: `... | nudgescribe customers upload`."
        )
    blocks = read_standard_input(tally)
    return blocks if kind == "csv" else _async_rows(blocks)


def standard_input() -> Literal["terminal", "stream", "file"]:
    """What standard input is; whatever it is not waited for with is a file.

    Raises:
        UsageError: there is none.
    """
    if sys.stdin is None:  # its number may be that of something else by now
        raise UsageError("Standard input is closed.", hint="Name a file, or pipe one in.")
    mode = os.fstat(0).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return "stream"
    return "terminal" if os.isatty(0) else "file"


async def read_standard_input(tally: Tally) -> AsyncIterator[bytes]:
    """What comes in, without a thread that waits for it and could not be stopped.

    Nothing is made non-blocking: that would hold for other programs, too, which have it from the same shell.

    Args:
        tally: is kept.
    """
    waits = standard_input() != "file"
    file = os.dup(0)
    try:
        while block := await (_when_there(file) if waits else asyncio.to_thread(os.read, file, _PIECE)):
            tally.count(block)
            yield block
    finally:
        os.close(file)


async def _when_there(file: int) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        there = asyncio.Event()
        loop.add_reader(file, there.set)
        try:
            await there.wait()
        finally:
            loop.remove_reader(file)
        with suppress(BlockingIOError):  # somebody else has taken it
            return os.read(file, _PIECE)


async def _async_rows(blocks: AsyncIterator[bytes]) -> AsyncIterator[Mapping[str, object]]:
    reader, rest = _Lines(), b""
    async for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            row = reader.row(line)
            if row is not None:
                yield row
        reader.check_length(rest)
    row = reader.row(rest)
    if row is not None:
        yield row


# --- lines of JSON -----------------------------------------------------------------------------------------------------


class _NoObjectError(ValueError):
    pass


class _Lines:
    """Reads lines, and knows where it is."""

    def __init__(self) -> None:
        self._line = 0
        self._row = 0

    def row(self, line: bytes) -> Mapping[str, object] | None:
        """The row in a line; ``None`` if the line is blank."""
        self.check_length(line)
        self._line += 1
        if not line.strip():
            return None
        self._row += 1
        value: object = None
        why = "it is no JSON"
        try:
            value = json.loads(
                line.removeprefix(b"\xef\xbb\xbf") if self._line == 1 else line,
                parse_float=Decimal,
                parse_constant=_refused,
                object_pairs_hook=_object,
            )
            why = "it is no object of profile field to value"
        except _NoObjectError as error:
            why = str(error)
        except (ValueError, RecursionError):
            pass
        if isinstance(value, dict):
            return cast("dict[str, object]", value)
        # Not where it was caught: that error holds the line.
        raise fault(
            f"A line must be a JSON object, and {why}.",
            row=self._row,
            line=self._line,
            advice='Write each customer as one line, such as {"external_id": "A1", "purchases": 3}.',
        )

    def check_length(self, line: bytes) -> None:
        """Refuse a file without line breaks before all of it is in memory."""
        if len(line) > _LONGEST_LINE:
            raise fault(
                f"The line has more than {_LONGEST_LINE // 2**20} MiB.",
                row=self._row + 1,
                line=self._line + 1,
                advice="NDJSON has one customer a line; a JSON array is something else.",
            )


def _refused(_: str) -> object:
    raise _NoObjectError("it holds NaN or Infinity, which are no JSON")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _NoObjectError("it names a field twice")
    return found
