"""One side of a connection: what arrives is kept until it is asked for, and what is sent has left when it was sent."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias, cast

from nudgescribe_async.testing._framing import BUFFER, Alter, Body, Sized, end_of_head

__all__ = ["End", "GoneError", "Send", "TooLongError"]

Send: TypeAlias = Callable[[bytes], Awaitable[None]]

_LINGER_NOT: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # closing is a reset


class GoneError(Exception):
    """One of the two ends is not there any more, so there is nothing left to do."""


class TooLongError(Exception):
    """There is no end to a head."""


class End(asyncio.Protocol):
    """The proxy's socket towards the client, or towards the server.

    One coroutine at a time may wait for bytes, and one for room to write.

    Attributes:
        ended: called when the other side will send nothing more.
        buffer: what has arrived and was not taken yet.
        eof: the other side has sent an end of file.
        lost: the connection is gone.
        error: what it was lost by.
        full: the kernel takes no more for now.
        closed: done when the connection is gone.
    """

    def __init__(self, made: Callable[[End], None] | None = None) -> None:
        self._made = made
        self.ended: Callable[[], None] | None = None
        self.buffer = bytearray()
        self.eof = False
        self.lost = False
        self.error: Exception | None = None
        self.full = False
        self._silent = False  # what arrives is of no interest any more
        self._finished = False
        self._paused = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._leaving: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # What was written is in the kernel when drain() returns: faults come after it, and segments are not merged.
        self._transport.set_write_buffer_limits(high=0)
        if self._made is not None:
            self._made(self)

    def data_received(self, data: bytes) -> None:
        if self._silent:
            return
        self.buffer += data
        if len(self.buffer) > BUFFER:
            self.pause()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self.eof = True
        self._over()
        return True  # the other direction stays open

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.error = exc
        if not self.closed.done():
            self.closed.set_result(None)
        _wake(self._writer)
        self._over()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        _wake(self._writer)

    def _over(self) -> None:
        _wake(self._reader)
        _wake(self._leaving)
        if self.ended is not None:
            self.ended()

    # reading

    @property
    def over(self) -> bool:
        """Whether nothing more will arrive."""
        return self.eof or self.lost

    def pause(self) -> None:
        if not (self._paused or self.over or self._transport.is_closing()):
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    async def more(self) -> bool:
        """Wait for more than there is; ``False`` if nothing more will come."""
        if self.over:
            return False
        self.resume()
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None
        return True

    def take(self, body: Body, alter: Alter | None = None) -> bytes:
        """What has arrived of a body, perhaps nothing."""
        taken = body.take(self.buffer, alter)
        if len(self.buffer) <= BUFFER:
            self.resume()
        return taken

    async def piece(self, body: Body, alter: Alter | None = None) -> bytes:
        """The next piece of a body; nothing once it is complete, or nothing more will come."""
        while not body.done:
            if taken := self.take(body, alter):
                return taken
            if not await self.more():
                break
        return b""

    async def pump(self, send: Send, body: Body, alter: Alter | None = None) -> None:
        """Pass a body on until it is complete, or nothing more will come."""
        while piece := await self.piece(body, alter):
            await send(piece)

    async def head(self) -> bytes | None:
        """The next head, with the empty line; ``None`` if none comes.

        Raises:
            TooLongError: there is no end to it.
        """
        while not (end := end_of_head(self.buffer)):
            if len(self.buffer) > BUFFER:
                raise TooLongError
            if not await self.more():
                return None
        return self.take(Sized(end))

    async def leaves(self, seconds: float | None = None) -> bool:
        """Wait for the other side to close; ``False`` if it has not within that time."""
        if not self.over:
            self._leaving = self._loop.create_future()
            try:
                async with asyncio.timeout(seconds):  # wait_for() may lose a cancellation
                    await self._leaving
            except TimeoutError:
                return False
            finally:
                self._leaving = None
        return True

    def has_left(self) -> bool:
        """Whether the other side has closed, for when nothing is read and so nothing is noticed."""
        if self.over:
            return True
        if not hasattr(select, "POLLRDHUP"):  # noticed at the next read, then
            return False
        look = select.poll()
        look.register(self._socket().fileno(), select.POLLRDHUP)
        return bool(look.poll(0))

    # writing

    def write(self, data: bytes) -> None:
        """Send without waiting for the kernel to take it.

        Raises:
            GoneError: nothing can be sent any more.
        """
        if self._finished or self.lost or self._transport.is_closing():
            raise GoneError
        if data:
            self._transport.write(data)

    async def drain(self) -> None:
        while self.full and not self.lost:
            self._writer = self._loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        if self.lost:
            raise GoneError

    async def send(self, data: bytes) -> None:
        self.write(data)
        await self.drain()

    # ending

    def finish(self, *, silent: bool = False) -> None:
        """Send an end of file after what was written.

        With ``silent``, what still arrives is thrown away: closing on it would make a reset of the end of file.
        """
        if silent:
            self._silent = True
            self.buffer.clear()
            self.resume()
        if not (self._finished or self.lost or self._transport.is_closing()):
            self._finished = True
            with suppress(OSError):  # the other side was quicker
                self._transport.write_eof()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def reset(self) -> None:
        if not (self.lost or self._transport.is_closing()):
            with suppress(OSError):
                self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._transport.abort()

    def _socket(self) -> socket.socket:
        return cast("socket.socket", self._transport.get_extra_info("socket"))


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
