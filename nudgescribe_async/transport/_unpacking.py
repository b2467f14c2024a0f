"""Unpacking the body of an answer in pieces of bounded size, whatever the HTTP library."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["ACCEPT_ENCODING", "DamagedBodyError", "Unpacker", "unpacker_for"]

MOST_AT_ONCE: Final = 256 * 1024
"""Bytes of a piece: so much more than its limit a body can be before it is noticed."""

SLICE: Final = 16 * 1024
"""Bytes that are unpacked at once, since each member of a gzip stream makes a copy of what follows it."""

ACCEPT_ENCODING: Final = "gzip, deflate"
"""What is asked for, and unpacked. Anything else is left as it comes, whichever packages are installed."""

_METHOD: Final = 0x0F, 8  # the bits that tell it in the first byte of zlib's format, which "deflate" should be


class DamagedBodyError(Exception):
    """A body that is not packed as it says, or ends too early. Its text holds nothing of it."""


def unpacker_for(encoding: str | None) -> Unpacker | None:
    """What unpacks a body with this ``Content-Encoding``; ``None`` if it is left as it comes."""
    encoding = "" if encoding is None else encoding.strip().lower()
    return Unpacker(encoding) if encoding in {"gzip", "deflate"} else None


class Unpacker:
    """Unpacks one body, which is handed in as it comes.

    Args:
        encoding: ``gzip`` or ``deflate``.
    """

    def __init__(self, encoding: str) -> None:
        self._window = 16 + zlib.MAX_WBITS if encoding == "gzip" else zlib.MAX_WBITS
        self._member = zlib.decompressobj(self._window)
        self._begun = False
        self._pieces: Iterator[bytes] | None = None  # of what came last

    def take(self, data: bytes) -> None:
        """What came, to be unpacked by ``next_of``, which has nothing left of what came before."""
        self._pieces = self._fed(data)

    def forget(self) -> None:
        """Let go of what came, and is not unpacked."""
        self._pieces = None

    async def next_of(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """The next piece of what was taken, and then of what ``read`` gives; as there, an empty one is the end.

        Nothing is lost if it is cancelled, unless ``read`` loses it.

        Raises:
            DamagedBodyError: it is damaged, or ends too early.
        """
        if self._pieces is not None:
            await asyncio.sleep(0)  # little may unpack to much, and others have work to do
        while True:
            for piece in self._pieces or ():
                return piece
            self._pieces = None
            data = await read()
            if not data:
                self._finish()
                return data
            self.take(data)
            del data  # see _fed

    def _fed(self, data: bytes) -> Iterator[bytes]:
        try:
            yield from self._unpack(data)
        except zlib.error:
            data = b""  # tracebacks may be kept with their locals, and this may be a customer
        else:
            return
        raise DamagedBodyError("The body is damaged.")  # without the context that has been in the middle of it

    def _finish(self) -> None:
        if self._begun and not self._member.eof:
            raise DamagedBodyError("The body ends too early.")

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        if data and not self._begun:
            self._begin(data[0])
        for start in range(0, len(data), SLICE):
            rest = data[start : start + SLICE]
            while rest:
                if self._member.eof:
                    self._member = zlib.decompressobj(self._window)
                while not self._member.eof and (piece := self._member.decompress(rest, MOST_AT_ONCE)):
                    yield piece
                    rest = self._member.unconsumed_tail  # may be empty while more is to come
                rest = self._member.unused_data

    def _begin(self, first: int) -> None:
        self._begun = True
        if self._window == zlib.MAX_WBITS and first & _METHOD[0] != _METHOD[1]:
            self._window = -zlib.MAX_WBITS  # some servers leave out the frame
            self._member = zlib.decompressobj(self._window)
