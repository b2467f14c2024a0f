"""What an upload can be made from, as pieces that come one after the other.

Reading is done in threads, but for what is asynchronous itself. What was opened here is closed here; a file object
that was passed in is left open, and a generator is closed.
"""

from __future__ import annotations

import inspect
import io
import os
import stat
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast, runtime_checkable

from nudgescribe_async.bulk.upload.arrow import is_table, parts
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from nudgescribe_async.bulk.upload.intake import Intake

__all__ = ["Kind", "Source", "UploadSource"]

PIECE: Final = 256 * 1024
"""Bytes of a file that are read at once, and more or less of texts that are held at once."""
_ROWS: Final = 1_000
_BINARY: Final = (bytes, bytearray, memoryview)
_END: Final = object()  # None may be an item, and must not end a source in silence


class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


class _ArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: Any = None) -> Any: ...


class _Interchange(Protocol):
    def __dataframe__(self, nan_as_null: bool = ..., allow_copy: bool = ...) -> Any: ...


@runtime_checkable
class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


_Plain: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Iterable[Mapping[str, Any]]
    | AsyncIterable[Mapping[str, Any]]
    | Iterable[bytes]
    | AsyncIterable[bytes]
    | _ArrowStream
    | _ArrowArray
    | _Interchange
)
UploadSource: TypeAlias = _Plain | Callable[[], _Plain]
"""What ``customers.upload`` takes. ``docs/upload.md`` says what becomes of each."""

_ACCEPTED = (
    "a path, bytes, a file opened with 'rb', an iterable of mappings (or of bytes), async or plain, a table with "
    "__arrow_c_stream__ or __dataframe__, or a function without arguments that gives one of them"
)


class Kind:
    """Which intake the pieces are for, and up to which row they are wanted."""

    to_row: int | None

    def csv(self) -> Intake:
        """For bytes."""
        raise NotImplementedError

    def mappings(self) -> Intake:
        """For lists of mappings."""
        raise NotImplementedError

    def table(self) -> Intake:
        """For parts of tables."""
        raise NotImplementedError


class Source:
    """One source, read once. Use it as a context, within which ``intake`` and ``next`` may be used."""

    intake: Intake

    def __init__(self, source: UploadSource, kind: Kind) -> None:
        """Check what was given, and touch nothing yet.

        Raises:
            TypeError: it is nothing that can be uploaded.
            ValueError: it is an empty path, or a pipe.
        """
        _check(source)
        self._source = source
        self._kind = kind
        self._pieces: Iterator[object] | None = None
        self._async_pieces: AsyncIterator[object] | None = None
        self._iterator: Iterator[object] | None = None
        self._async_rows: AsyncIterator[object] | None = None
        self._file: IO[bytes] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def discard(self) -> None:
        """Close a generator that was passed in, since it will not be read."""
        source: object = self._source
        if isinstance(source, AsyncGenerator):
            self._async_rows = cast("AsyncIterator[object]", source)
        elif isinstance(source, Generator):
            self._iterator = cast("Iterator[object]", source)
        await self._close()

    async def next(self) -> object:
        """The next piece; ``None`` at the end."""
        if self._async_pieces is not None:
            return await anext(self._async_pieces, None)
        pieces = self._pieces
        return None if pieces is None else await in_thread(lambda: next(pieces, None))

    async def _open(self) -> None:
        source: object = self._source
        if _is_function(source):
            source = cast("Callable[[], object]", source)()
            _check(source, made=True)
            if isinstance(source, io.IOBase):
                self._file = cast("IO[bytes]", source)
        if isinstance(source, str | os.PathLike):
            path = cast("str | os.PathLike[str]", source)
            source = await in_thread(lambda: self._open_path(path))
        stream = _is_stream(source)
        if is_table(source):
            self.intake, self._pieces = self._kind.table(), parts(source)
        elif isinstance(source, bytes | bytearray | memoryview):
            self.intake, self._pieces = self._kind.csv(), _cut(cast("bytes", source))
        elif stream or isinstance(source, AsyncIterable):
            items = _async_blocks(source) if stream else cast("AsyncIterable[object]", source)
            rows = self._async_rows = aiter(items)
            first = await anext(rows, _END)
            self.intake = self._intake_of(first)
            self._async_pieces = _gathered(first, rows, self._kind.to_row)
        elif isinstance(source, _Readable):
            self.intake, self._pieces = self._kind.csv(), _blocks(source)
        else:
            iterator = iter(cast("Iterable[object]", source))
            self._iterator = iterator
            first = await in_thread(lambda: next(iterator, _END))
            self.intake = self._intake_of(first)
            self._pieces = _grouped(first, iterator, self._kind.to_row)

    def _open_path(self, path: str | os.PathLike[str]) -> IO[bytes]:
        # Kept here, in the thread: whoever waits for it may be cancelled meanwhile.
        self._file = _open_path(path)
        return self._file

    def _intake_of(self, first: object) -> Intake:
        return self._kind.csv() if isinstance(first, _BINARY) else self._kind.mappings()

    async def _close(self) -> None:
        try:
            for iterator in (self._async_pieces, self._async_rows):
                aclose = getattr(iterator, "aclose", None)
                if aclose is not None:
                    await aclose()
        finally:
            # In a thread as all else: the code of a generator may block, and so may closing a file.
            await in_thread(self._close_blocking)

    def _close_blocking(self) -> None:
        try:
            for pieces in (self._pieces, self._iterator):
                if isinstance(pieces, Generator):
                    cast("Generator[object, None, None]", pieces).close()
        finally:
            if self._file is not None:
                self._file.close()


def _is_function(source: object) -> bool:
    other = (str, os.PathLike, bytes, bytearray, memoryview, Iterable, AsyncIterable, _Readable)
    return callable(source) and not isinstance(source, other) and not is_table(source)


def _check(source: object, *, made: bool = False) -> None:
    whose = "What the function gave" if made else "The source"
    if isinstance(source, str) and ("\n" in source or "\r" in source):
        raise TypeError(f"{whose} looks like the content of a file, and a text is a path: pass content as bytes.")
    if isinstance(source, str) and not source:
        raise ValueError(f"{whose} is an empty path.")
    if isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or is_table(source):
        return
    mode = getattr(source, "mode", None)
    if isinstance(source, io.TextIOBase) or (isinstance(mode, str) and "b" not in mode and hasattr(source, "read")):
        raise TypeError(f"{whose} is a file in text mode: open it with 'rb'.")
    if isinstance(source, _Readable):
        if isinstance(source, io.BufferedReader | io.BufferedRandom | io.FileIO) and not _is_regular(source.fileno()):
            raise _blocking()
        return
    if isinstance(source, Mapping):
        raise TypeError(f"{whose} is one mapping: pass an iterable of them, one for each customer.")
    if isinstance(source, Iterable | AsyncIterable) or (callable(source) and not made and not isinstance(source, type)):
        return
    if type(source).__name__ == "LazyFrame":
        raise TypeError(f"{whose} is a LazyFrame, which has no rows yet: collect() it first.")
    raise TypeError(f"{whose} must be {_ACCEPTED}; not {type(source).__name__}.")


def _open_path(path: str | os.PathLike[str]) -> IO[bytes]:
    # A look first: opening a pipe waits for somebody to write to it.
    if stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116 - any path will do
        raise _blocking()
    file = open(path, "rb")  # noqa: PTH123, SIM115 - any path will do; closed by the source
    if not _is_regular(file.fileno()):
        file.close()
        raise _blocking()
    return file


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _blocking() -> ValueError:
    # A thread that waits for a pipe cannot be stopped.
    return ValueError(
        "The source is a pipe, a socket or a device, and reading it may wait for ever: read it yourself, and pass an"
        " async iterable of bytes."
    )


def _blocks(file: _Readable) -> Iterator[object]:
    while (block := file.read(PIECE)) != b"":
        if not isinstance(block, bytes | bytearray | memoryview):
            raise TypeError(f"read() of the source gave {type(block).__name__}, not bytes: open it with 'rb'.")
        yield block


async def _async_blocks(stream: Any) -> AsyncIterator[object]:
    """Rather than by its lines, which are small, and of which it refuses long ones."""
    while (block := await stream.read(PIECE)) != b"":
        yield block


def _is_stream(source: object) -> bool:
    """Whether it is a file or an answer that is read asynchronously, such as those of aiohttp and asyncio."""
    return inspect.iscoroutinefunction(getattr(source, "read", None)) and not isinstance(source, type)


def _cut(data: bytes) -> Iterator[bytes]:
    """A piece that is much too large would be as large again as text, and again as rows."""
    view = memoryview(data)
    view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    for start in range(0, len(view), PIECE):
        yield view[start : start + PIECE].tobytes()  # so that nobody holds the view but this generator


def _size(row: object) -> int:
    if isinstance(row, Mapping):
        values = cast("Mapping[object, object]", row).values()
        return sum(len(cast("str", value)) for value in values if isinstance(value, (str, *_BINARY)))
    return 0


class _Group:
    """Gathers what a source gives one by one: mappings in lists, bytes in blocks. The first one says which.

    With ``to_row``, mappings end there, and bytes are not held back: the next ones may be long in coming, and not be
    wanted any more.
    """

    def __init__(self, first: object, to_row: int | None) -> None:
        self._binary = isinstance(first, _BINARY)
        self._most = PIECE if to_row is None else 1
        self._left = to_row
        self._bytes = bytearray()
        self._items: list[object] = []
        self._size = 0

    @property
    def ended(self) -> bool:
        """Whether no more is wanted."""
        return self._left == 0 and not self._binary

    def add(self, item: object) -> Iterator[object]:
        """The pieces that are full with one more."""
        if not self._binary:
            self._items.append(item)
            self._size += _size(item)
            self._left = None if self._left is None else self._left - 1
            if len(self._items) == _ROWS or self._size >= PIECE or self.ended:
                yield from self.rest()
        elif not isinstance(item, _BINARY):
            yield from self.rest()
            yield item  # to be refused in its place
        else:
            for block in _cut(cast("bytes", item)):
                self._bytes += block
                if len(self._bytes) >= self._most:
                    yield from self.rest()

    def rest(self) -> Iterator[object]:
        """What is left."""
        items, data = self._items, self._bytes
        self._items, self._bytes, self._size = [], bytearray(), 0
        if items:
            yield items
        if data:
            yield data


def _grouped(first: object, items: Iterator[object], to_row: int | None) -> Iterator[object]:
    group, item = _Group(first, to_row), first
    while item is not _END:
        yield from group.add(item)
        if group.ended:
            return
        item = next(items, _END)
    yield from group.rest()


async def _gathered(first: object, items: AsyncIterator[object], to_row: int | None) -> AsyncIterator[object]:
    group, item = _Group(first, to_row), first
    while item is not _END:
        for piece in group.add(item):
            yield piece
        if group.ended:
            return
        item = await anext(items, _END)
    for piece in group.rest():
        yield piece
