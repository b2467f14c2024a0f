"""Unpacking the body of an answer in pieces of bounded size, which httpx does not do by itself.

It unpacks at once whatever a read has brought: 64 KiB can be 64 MiB, before anybody looks at a limit. It also takes
the first of several members of a gzip stream for the whole of it, and half a stream for a whole one.

What is not asked for, brotli for instance, is left as it comes, whichever packages are installed.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["ENCODINGS", "Unpacked", "body_of"]

MOST_AT_ONCE: Final = 256 * 1024
"""Bytes of a piece: so much more than its limit a body can be before it is noticed."""

SLICE: Final = 16 * 1024
"""Bytes that are unpacked at once, since each member of a gzip stream makes a copy of what follows it."""

ENCODINGS: Final = ("gzip", "deflate")
_DEFLATE: Final = 8  # the method, in the first byte of what is named deflate and should be zlib


class Unpacked:
    """The pieces of a body, unpacked.

    Args:
        packed: the body as it comes.
        encoding: one of ``ENCODINGS``.

    Raises:
        httpx.DecodingError: while iterating: it is damaged, or ends too early.
    """

    def __init__(self, packed: AsyncGenerator[bytes], encoding: str) -> None:
        self._packed = packed
        self._window = 16 + zlib.MAX_WBITS if encoding == "gzip" else zlib.MAX_WBITS
        self._member: zlib._Decompress | None = None  # none before the first byte
        self._pieces: Iterator[bytes] = iter(())  # of what came last

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                for piece in self._pieces:
                    return piece
            except zlib.error:
                raise httpx.DecodingError("The body is damaged.") from None
            try:
                self._pieces = self._unpack(await anext(self._packed))
            except StopAsyncIteration:
                if self._member is not None and not self._member.eof:
                    raise httpx.DecodingError("The body ends too early.") from None
                raise

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), SLICE):
            rest = data[start : start + SLICE]
            while rest:
                member = self._member
                if member is None or member.eof:
                    member = self._member = self._next_member(rest)
                while piece := member.decompress(rest, MOST_AT_ONCE):
                    yield piece
                    rest = member.unconsumed_tail  # may be empty while more is to come
                rest = member.unused_data

    def _next_member(self, start: bytes) -> zlib._Decompress:
        if self._member is None and self._window == zlib.MAX_WBITS and start[0] & 0x0F != _DEFLATE:
            self._window = -zlib.MAX_WBITS  # some servers leave out the frame
        return zlib.decompressobj(self._window)

    async def aclose(self) -> None:
        """Forget the rest."""
        self._pieces = iter(())
        await self._packed.aclose()
