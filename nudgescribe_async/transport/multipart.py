"""Bodies of files: where their bytes come from, and how a form carries them.

Nothing here blocks the event loop: files are opened, read and closed in a thread. Cancelling waits
for the read that is under way, closes the file, and goes on.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final, Protocol, TypeAlias, cast, runtime_checkable

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.threads import in_thread
from nudgescribe_async.transport import StreamBody

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FileSource", "file_body", "multipart_body"]

PIECE: Final = 256 * 1024

FileSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Callable[[], AsyncIterator[bytes]]
    | AsyncIterable[bytes]
    | Iterator[bytes]
    | StreamBody
)

_ACCEPTED = (
    "a path, bytes, a file opened with 'rb', a function without arguments that gives an async iterator of bytes, or an"
    " iterator of bytes"
)


def multipart_body(
    fields: Mapping[str, str],
    *,
    name: str,
    filename: str,
    content_type: str,
    file: StreamBody | bytes,
) -> tuple[str, StreamBody]:
    """A form (``multipart/form-data``, RFC 7578) of text fields and one file, as browsers send it.

    The file is read while it is sent. Its first piece is read before anything is given out, so that a
    file that has gone is noticed before a byte is sent.

    Args:
        fields: the text fields, in their order; values are sent in UTF-8.
        name: the name of the field of the file.
        filename: what to call the file.
        content_type: what the file is, such as ``text/csv``.
        file: the content.

    Returns:
        The value for the header ``Content-Type``, and the body: with an exact length if the file has
        one, and replayable if the file is.

    Raises:
        ValueError: ``content_type`` cannot be the value of a header.
        TypeError: a name or a value is not a ``str``.
    """
    if re.search(r"[\x00-\x1f\x7f]", content_type) or not content_type.isascii():
        raise ValueError(f"{content_type!r} is no content type.")
    boundary = f"nudgescribe-{secrets.token_hex(24)}"  # 192 random bits: no file holds it
    head = bytearray()
    for field, value in fields.items():
        if not isinstance(value, str):
            raise TypeError(f"The value of the field {field!r} must be a str, not {type(value).__name__}.")
        head += f'--{boundary}\r\nContent-Disposition: form-data; name="{_escaped(field)}"\r\n\r\n{value}\r\n'.encode()
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_escaped(name)}"; filename="{_escaped(filename)}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    content = _bytes_body(file) if isinstance(file, bytes) else file

    async def stream() -> AsyncIterator[bytes]:
        chunks = content.open()
        try:
            first = await anext(chunks, b"")
            yield bytes(head) + first
            async for chunk in chunks:
                yield chunk
        finally:
            await _close(chunks)
        yield tail

    length = None if content.length is None else len(head) + content.length + len(tail)
    body = StreamBody(open=stream, length=length, replayable=content.replayable)
    return f"multipart/form-data; boundary={boundary}", body


def file_body(source: FileSource) -> StreamBody:
    """A body of whatever a caller may mean by "a file".

    ================================  =============================================================
    a path                            opened anew for each attempt; replayable; its size is the
                                      length. If the size changes before or while it is sent, the
                                      request is cut off with a ``ConfigurationError``.
    ``bytes`` and the like            replayable
    a file opened with ``"rb"``       read once, from where it stands, and left open; not replayable
    a function                        called for each attempt, gives an async iterator of bytes;
                                      replayable; sent in chunks, since the length is not known
    an iterator of bytes, async or    read once; not replayable; sent in chunks. A plain one runs in a
    plain, such as a generator        thread, which cannot be stopped: whoever ends the call waits for
                                      the piece that it is at
    a ``StreamBody``                  as it is
    ================================  =============================================================

    Raises:
        OSError: the path is missing (``FileNotFoundError``), a directory (``IsADirectoryError``), or
            may not be read (``PermissionError``). The look at it is a system call or two.
        ValueError: the path is empty, or it is a pipe or another file whose reading may wait for ever.
        TypeError: anything else was given, a file in text mode, or a text of several lines, which is
            taken for the content of a file rather than for its path.
    """
    if isinstance(source, StreamBody):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _bytes_body(bytes(source))
    if isinstance(source, str) and ("\n" in source or "\r" in source):
        # It is not quoted: it may be a whole file of customers.
        raise TypeError("The file looks like the content of a file, and a text is a path: pass content as bytes.")
    if source == "":
        raise ValueError("The path of the file is empty.")
    if isinstance(source, (str, os.PathLike)):
        return _path_body(os.fspath(source))
    if isinstance(source, io.TextIOBase) or "b" not in getattr(source, "mode", "b"):
        raise TypeError("The file is open in text mode: open it with 'rb'.")
    other = cast("object", source)
    if isinstance(other, _Readable):
        if _may_block(other):
            raise _blocking()
        return _object_body(other)
    if isinstance(other, (AsyncIterable, Iterator)):
        return _iterator_body(cast("AsyncIterable[object] | Iterator[object]", other))
    if callable(other):
        return _function_body(other)
    raise TypeError(f"A file is {_ACCEPTED}; not {type(other).__name__}.")


@runtime_checkable
class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _escaped(text: str) -> str:
    """A name inside of quotes, as browsers write it: a backslash would be taken for itself."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _bytes_body(data: bytes) -> StreamBody:
    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]

    return StreamBody(open=stream, length=len(data))


def _path_body(path: str) -> StreamBody:
    status = os.stat(path)  # noqa: PTH116 - a path may be bytes-like to the system, not to pathlib
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise _blocking()
    with open(path, "rb"):  # noqa: PTH123 - a file that may not be read should be known before anything is sent
        pass
    length = status.st_size

    async def stream() -> AsyncIterator[bytes]:
        given = 0
        chunks = _read(_File(path, length))
        try:
            async for chunk in chunks:
                given += len(chunk)
                if given > length:
                    raise _changed(path, length, "more")
                yield chunk
        finally:
            await _close(chunks)
        if given < length:
            raise _changed(path, length, f"{given:,}")

    return StreamBody(open=stream, length=length)


def _may_block(file: object) -> bool:
    if not isinstance(file, (io.BufferedReader, io.BufferedRandom, io.FileIO)):
        return False
    return not stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _blocking() -> ValueError:
    # A thread that waits for a pipe cannot be stopped: neither a deadline nor closing would end the call.
    return ValueError(
        "The file is a pipe, a socket or a device, and reading it may wait for ever: read it yourself, and pass bytes"
        " or a function that gives an async iterator of them."
    )


def _changed(path: str, length: int, now: str) -> ConfigurationError:
    return ConfigurationError(
        f"{os.path.basename(path)} changed between the call and the upload: it had {length:,} bytes, then {now}."  # noqa: PTH119
        " The server has not seen a whole request. Upload a file that nobody writes to."
    )


class _File:
    """A file that is opened, read and closed in threads, one call after the other."""

    def __init__(self, path: str, length: int | None = None) -> None:
        self._path = path
        self._length = length
        self._file: IO[bytes] | None = None

    def read(self, size: int, /) -> bytes:
        if self._file is None:
            self._file = open(self._path, "rb")  # noqa: PTH123, SIM115 - closed by close()
            now = os.fstat(self._file.fileno()).st_size
            if self._length is not None and now != self._length:
                raise _changed(self._path, self._length, f"{now:,}")
        return self._file.read(size)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


async def _read(file: _File) -> AsyncIterator[bytes]:
    try:
        while chunk := await in_thread(lambda: file.read(PIECE)):
            yield chunk
    finally:
        await in_thread(file.close)


def _object_body(file: _Readable) -> StreamBody:
    async def stream() -> AsyncIterator[bytes]:
        while chunk := await in_thread(lambda: file.read(PIECE)):
            if not isinstance(chunk, (bytes, bytearray, memoryview)):
                raise TypeError(f"read() of the file gave {type(chunk).__name__}, not bytes: open it with 'rb'.")
            yield bytes(chunk)

    return _once(stream, "A file object", "its path", length=_rest(file))


def _iterator_body(chunks: AsyncIterable[object] | Iterator[object]) -> StreamBody:
    async def stream() -> AsyncIterator[bytes]:
        source = aiter(chunks if isinstance(chunks, AsyncIterable) else _in_threads(chunks))
        try:
            async for chunk in source:
                if not isinstance(chunk, (bytes, bytearray, memoryview)):
                    raise TypeError(f"The iterator of a file gave {type(chunk).__name__}, not bytes.")
                if chunk:  # an empty one would end the body
                    yield bytes(cast("bytes", chunk))
        finally:
            await _close(source)

    return _once(stream, "An iterator", "a function that gives one")


async def _in_threads(chunks: Iterator[object]) -> AsyncIterator[object]:
    end = object()
    try:
        while (chunk := await in_thread(lambda: next(chunks, end))) is not end:
            yield chunk
    finally:
        if isinstance(chunks, Generator):
            await in_thread(chunks.close)


def _once(
    stream: Callable[[], AsyncIterator[bytes]], what: str, instead: str, *, length: int | None = None
) -> StreamBody:
    """A body that can be opened one time only."""
    opened = False

    def open_once() -> AsyncIterator[bytes]:
        nonlocal opened
        if opened:
            raise ConfigurationError(
                f"{what} can be read only once, so its request cannot be sent again: give {instead} instead."
            )
        opened = True
        return stream()

    return StreamBody(open=open_once, length=length, replayable=False)


def _rest(file: _Readable) -> int | None:
    """The bytes from where the file stands to its end, if that can be told without reading."""
    if isinstance(file, io.BytesIO):
        return max(len(file.getbuffer()) - file.tell(), 0)
    if isinstance(file, (io.BufferedReader, io.BufferedRandom, io.FileIO)):
        with suppress(OSError, ValueError):
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                return max(status.st_size - file.tell(), 0)
    return None


def _function_body(function: Callable[[], object]) -> StreamBody:
    def open_checked() -> AsyncIterator[bytes]:
        stream = function()
        if not isinstance(stream, AsyncIterator):
            close = getattr(stream, "close", None)  # a coroutine that nobody awaits would complain
            if close is not None:
                close()
            raise TypeError(
                f"The function of a file must give an async iterator of bytes, not {type(stream).__name__}:"
                " write it as an async generator (async def with yield)."
            )
        return cast("AsyncIterator[bytes]", stream)

    return StreamBody(open=open_checked)


async def _close(stream: AsyncIterator[object]) -> None:
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()
