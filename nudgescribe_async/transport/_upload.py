"""The body of one request, for libraries that take an async iterator of bytes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.tasks import outlast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Self

    from nudgescribe_async.transport import StreamBody

__all__ = ["PIECE", "Upload", "wrong_length"]

PIECE: Final = 256 * 1024
"""Bytes of a body in memory that are written at once: no write holds the loop up for long, and a server that takes its time
is noticed."""


class UploadCutOffError(Exception):
    """Ends a body whose request was given up, so that the library drops the connection. Never leaves a transport."""


class Upload:
    """The pieces of the body of one attempt: opened at the first, and closed by ``aclose`` whatever happens.

    The piece that completes the announced length is held back until the stream has ended, so that a stream that gives
    more than it announced never makes a whole request. What the stream raises is kept in ``error``, and ends the
    request, as does ``aclose`` before the end.

    A library may ask for pieces from a task of its own. ``aclose`` waits for it, whatever it is at.

    Args:
        body: the content.
        on_turn: told whose turn it is: ``True`` when a piece was given and the server has to take it, ``False`` while
            the next one is not here yet.
    """

    def __init__(self, body: StreamBody | bytes, on_turn: Callable[[bool], None] | None = None) -> None:
        self._body = body
        self._on_turn = on_turn
        self._stream: AsyncIterator[bytes] | None = None
        self._held = b""
        self._given = 0
        self._ended = False
        self._cut = False
        self._asking: asyncio.Task[object] | None = None
        self._idle: asyncio.Event | None = None
        self.error: Exception | None = None

    @property
    def ended(self) -> bool:
        """Whether the last piece was given out."""
        return self._ended

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._on_turn is not None:
            self._on_turn(False)
        if self._cut:
            raise UploadCutOffError
        self._asking = asyncio.current_task()
        try:
            piece = self._next_of_bytes(self._body) if isinstance(self._body, bytes) else await self._next(self._body)
        finally:
            self._asking = None
            if self._idle is not None:
                self._idle.set()
            if self._on_turn is not None:
                self._on_turn(True)
        if self._cut:
            raise UploadCutOffError
        if not piece:
            self._ended = True
            raise StopAsyncIteration
        return piece

    def _next_of_bytes(self, data: bytes) -> bytes:
        piece = data[self._given : self._given + PIECE]
        self._given += len(piece)
        return piece

    async def _next(self, body: StreamBody) -> bytes:
        try:
            if self._stream is None:
                self._stream = body.open()
            while not self._ended:
                chunk = await anext(self._stream, None)
                if chunk is None:
                    if body.length is not None and self._given < body.length:
                        raise wrong_length(f"{self._given:,} bytes instead of the {body.length:,}")
                    self._ended = True
                elif chunk:
                    self._given += len(chunk)
                    if body.length is not None and self._given > body.length:
                        raise wrong_length(f"more than the {body.length:,} bytes")
                    if body.length is None or self._given < body.length:
                        return chunk
                    self._held = chunk
        except Exception as error:
            self.error = error
            raise
        held, self._held = self._held, b""
        return held

    async def aclose(self) -> None:
        """Cut it off, unless it has ended; wait until nobody is at it any more, and close the stream.

        However often this is cancelled, it goes on; the cancellation comes out at the end.
        """
        self._cut = True
        cancelled: asyncio.CancelledError | None = None
        while self._asking is not None:
            self._asking.cancel()
            self._idle = asyncio.Event()
            try:
                await self._idle.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        stream, self._stream = self._stream, None
        close = getattr(stream, "aclose", None)
        if close is not None:
            closing = asyncio.ensure_future(close())
            cancelled = await outlast([closing]) or cancelled
            closing.result()
        if cancelled is not None:
            raise cancelled


def wrong_length(what: str) -> ConfigurationError:
    """What to raise for a stream that gave ``what`` instead of what it announced."""
    return ConfigurationError(
        f"The stream of the body gave {what} that its length announced. The request was cut off before its end,"
        " so the server has not seen a whole one. Did the file change while it was sent?"
    )
