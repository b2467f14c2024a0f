"""Unpacking the body of an answer in pieces of bounded size, which httpx does not do by itself.

It unpacks at once whatever a read has brought: 64 KiB can be 64 MiB, before anybody looks at a limit. It also takes
the first of several members of a gzip stream for the whole of it, and half a stream for a whole one.

What is not asked for, brotli for instance, is left as it comes, whichever packages are installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

import httpx

from nudgescribe_async.transport._unpacking import DamagedBodyError, Unpacker, unpacker_for

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Self

__all__ = ["Body", "body_of"]


class Unpacked:
    """The pieces of a body, unpacked.

    Args:
        packed: the body as it comes.
        unpacker: that of its encoding.

    Raises:
        httpx.DecodingError: while iterating: it is damaged, or ends too early.
    """

    def __init__(self, packed: AsyncGenerator[bytes, None], unpacker: Unpacker) -> None:
        self._packed = packed
        self._unpacker = unpacker

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._unpacker.next_of(self._next)
        except DamagedBodyError as error:
            raise httpx.DecodingError(str(error)) from None
        if not piece:
            raise StopAsyncIteration
        return piece

    async def _next(self) -> bytes:
        async for data in self._packed:
            if data:  # a transport that was given may make empty ones
                return data
        return b""

    async def aclose(self) -> None:
        """Forget the rest."""
        self._unpacker.forget()
        await self._packed.aclose()


Body: TypeAlias = "AsyncGenerator[bytes, None] | Unpacked"


def body_of(answer: httpx.Response) -> Body:
    """The pieces of a body, unpacked if they are packed in a way that was asked for."""
    if answer.is_stream_consumed:  # a given transport has made it of bytes, which httpx has unpacked
        return cast("AsyncGenerator[bytes, None]", answer.aiter_bytes())
    packed = cast("AsyncGenerator[bytes, None]", answer.aiter_raw())
    unpacker = unpacker_for(answer.headers.get("content-encoding"))
    return packed if unpacker is None else Unpacked(packed, unpacker)
