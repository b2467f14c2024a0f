"""``FaultProxy``: stands between a client and a server on loopback, and lets the network go wrong for real.

What a client makes of a fault depends on its sockets, its HTTP library and its event loop; here nothing of that is
replaced. The proxy passes bytes on as they come, and reads of HTTP/1.1 only where requests and answers begin and end.
Each connection of a client gets a connection of its own to the server, and whatever the one side does to its
connection, close it or reset it, is done to the other. What does not look like HTTP is passed on and counted nowhere.

A fault is decided on when the head of a request has arrived, and befalls that exchange alone, except that a connection
which it ends is lost to the requests that were sent ahead on it. Memory is bounded: a slow reader slows the writer
down, in both directions.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
import logging
import math
import os
import random
import re
import select
import socket
import string
import struct
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen

from nudgescribe_async.injection import FaultPlan, Injection

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "Close",
    "Corrupt",
    "Exchange",
    "FaultProxy",
    "ProxyFault",
    "Replace",
    "Reset",
    "Stall",
    "Trickle",
    "Truncate",
]

_logger = logging.getLogger(__name__)

_BUFFER = 64 * 1024  # of each direction; also the longest head and the longest line of a chunk
_LOG_SIZE = 10_000
_BACKLOG = 1_024
_LOOK_SECONDS = 0.02  # how often a client that is not read from is looked at
_LINGER_NOT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # closing is a reset


# --- faults ----------------------------------------------------------------------------------------------------------


def _one_of(*choices: str) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def check(fault: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        name = f"{type(fault).__name__}.{attribute.name}"
        known = ", ".join(map(repr, choices))
        if not isinstance(value, str):
            raise TypeError(f"{name} must be one of {known}; got {type(value).__name__}.")
        if value not in choices:
            raise ValueError(f"{name} must be one of {known}; got {value!r}.")

    return check


def _seconds(fault: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    name = f"{type(fault).__name__}.{attribute.name}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}.")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a number of seconds, 0 or more; got {value}.")


def _answer_bytes(fault: object, _: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bytes) and not callable(value):
        raise TypeError(
            "Replace.raw must be bytes, or be callable and return an asynchronous iterator of bytes;"
            f" got {type(value).__name__}."
        )


def _shown(raw: object) -> str:
    return f"<{len(raw):,} bytes>" if isinstance(raw, bytes) else getattr(raw, "__qualname__", type(raw).__name__)


@frozen(kw_only=True)
class ProxyFault:
    """What a fault of the proxy is; see its subclasses."""


_ENDS = ("before_request", "in_request", "after_request", "in_body")


@frozen(kw_only=True)
class Reset(ProxyFault):
    """The connection is reset: the client gets ``ECONNRESET``.

    Attributes:
        at: ``"before_request"``: the server sees nothing. ``"in_request"``: the server gets half of the body (of the
            head, if there is no body, or the client wants to be asked for it), then a reset as well.
            ``"after_request"``: the server has done its work and answered, and none of the answer arrives.
            ``"in_body"``: the head and half of the body of the answer arrive (half of the head, if there is no body).
    """

    at: Literal["before_request", "in_request", "after_request", "in_body"] = field(validator=_one_of(*_ENDS))


@frozen(kw_only=True)
class Close(ProxyFault):
    """The connection is closed in good order: the client reads an end of file.

    Attributes:
        at: as for ``Reset``; ``"in_body"`` is what ``Truncate`` does.
    """

    at: Literal["before_request", "in_request", "after_request", "in_body"] = field(validator=_one_of(*_ENDS))


@frozen(kw_only=True)
class Truncate(ProxyFault):
    """The answer ends in the middle of its body, with an end of file."""


@frozen(kw_only=True)
class Stall(ProxyFault):
    """Nothing moves any more, and the connection stays open.

    Attributes:
        at: ``"request"``: the rest of the request is not read, and nothing of it reaches the server until the stall is
            over. ``"head"``: the server has the whole request, the answer does not begin. ``"body"``: half of the body
            of the answer arrives (half of the head, if there is no body).
        seconds: how long; ``None`` until the client gives up or the proxy is closed.
    """

    at: Literal["request", "head", "body"] = field(validator=_one_of("request", "head", "body"))
    seconds: float | None = field(default=None, validator=attrs.validators.optional(_seconds))


@frozen(kw_only=True)
class Trickle(ProxyFault):
    """The answer arrives byte by byte, each in a segment of its own.

    Attributes:
        pause: seconds after each byte.
    """

    pause: float = field(default=0.001, validator=_seconds)


@frozen(kw_only=True)
class Corrupt(ProxyFault):
    """Bytes of the answer are changed on the way. The same seed changes the same answer in the same way.

    Attributes:
        where: ``"status"``: the status line is nonsense. ``"head"``: one line of the head is no header. ``"body"``:
            bits are flipped in the first byte and in some of the others (lengths stay; an answer without a body passes
            unchanged), so that what was ASCII is not even UTF-8.
    """

    where: Literal["status", "head", "body"] = field(validator=_one_of("status", "head", "body"))


@frozen(kw_only=True)
class Replace(ProxyFault):
    """The server does not see the request; the client gets these bytes for an answer.

    The request is read to its end first.

    Attributes:
        raw: the answer with its status line and head, or a callable that returns an asynchronous iterator of its
            pieces, which may be endless.
        then: ``"close"`` the connection, or ``"keep"`` it for the next request.
    """

    raw: bytes | Callable[[], AsyncIterator[bytes]] = field(validator=_answer_bytes, repr=_shown)
    then: Literal["close", "keep"] = field(default="close", validator=_one_of("close", "keep"))


_KINDS: tuple[type[ProxyFault], ...] = (Reset, Close, Truncate, Stall, Trickle, Corrupt, Replace)


@frozen(kw_only=True)
class Exchange:
    """One request whose head has arrived.

    Attributes:
        operation: its name in the contract; ``None`` if it is none of it.
        method: the method.
        path: the path, without the query.
        fault: what befell it, if anything did.
    """

    operation: str | None
    method: str
    path: str
    fault: ProxyFault | None


# --- where requests and answers end ----------------------------------------------------------------------------------

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_BLANK = re.compile(rb"[\r\n]*")
_REQUEST = re.compile(rb"([!-~]+) ([!-~]+) HTTP/1\.[01]\r?\n")
_ANSWER = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r\n]")
_LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*\r?\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding[ \t]*:[^\r\n]*chunked[ \t]*\r?\n", re.IGNORECASE)
_EXPECT = re.compile(rb"\nexpect[ \t]*:[ \t]*100-continue", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?\r?")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_Alter = Callable[[bytearray, int, int], None]  # changes a stretch of the body in place


class _TooLongError(Exception):
    """There is no end to a head."""


class _Sized:
    """A body of known length, perhaps 0."""

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def done(self) -> bool:
        return not self.left

    def take(self, buffer: bytearray, alter: _Alter | None) -> bytes:
        """Remove from the buffer what belongs to the body."""
        count = min(self.left, len(buffer))
        self.left -= count
        return _cut(buffer, count, alter)


class _Endless:
    """A body that ends with the connection."""

    done = False

    def take(self, buffer: bytearray, alter: _Alter | None) -> bytes:
        """Remove from the buffer what belongs to the body: everything."""
        return _cut(buffer, len(buffer), alter)


class _Chunks:
    """A chunked body, with its trailer. If it is none, it is passed on until the connection ends."""

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # of this chunk, with the line break behind it
        self._in_trailer = False
        self._damaged = False

    def take(self, buffer: bytearray, alter: _Alter | None) -> bytes:
        """Remove from the buffer what belongs to the body, with the lines between the chunks."""
        position = 0
        while position < len(buffer) and not self.done:
            if self._damaged:
                return _cut(buffer, len(buffer), None)
            if self._left:
                count = min(self._left, len(buffer) - position)
                if alter is not None:
                    alter(buffer, position, position + min(count, max(self._left - 2, 0)))
                self._left -= count
                position += count
                continue
            end = buffer.find(b"\n", position)
            if end < 0:
                self._damaged = len(buffer) - position > _BUFFER
                if self._damaged:
                    continue
                break
            self._read_line(bytes(buffer[position:end]))
            position = end + 1
        return _cut(buffer, position, None)

    def _read_line(self, line: bytes) -> None:
        if self._in_trailer:
            self.done = not line.strip()
            return
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            self._damaged = True
        elif count := int(size[1], 16):
            self._left = count + 2
        else:
            self._in_trailer = True


_Body = _Sized | _Endless | _Chunks


def _cut(buffer: bytearray, count: int, alter: _Alter | None) -> bytes:
    if alter is not None:
        alter(buffer, 0, count)
    if count == len(buffer):
        taken = bytes(buffer)
        buffer.clear()
        return taken
    with memoryview(buffer) as view:
        taken = bytes(view[:count])
    del buffer[:count]
    return taken


def _body_of_request(head: bytes) -> _Body:
    if _CHUNKED.search(head):
        return _Chunks()
    length = _LENGTH.search(head)
    return _Sized(int(length[1]) if length else 0)


def _body_of_answer(head: bytes, status: int, method: str) -> _Body:
    if method == "HEAD" or status in {204, 304}:
        return _Sized(0)
    if _CHUNKED.search(head):
        return _Chunks()
    length = _LENGTH.search(head)
    return _Sized(int(length[1])) if length else _Endless()


# --- corruption ------------------------------------------------------------------------------------------------------


class _Flips:
    """Flips the upper bit of bytes of a body, at places that do not depend on how it was cut into pieces."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance
        self._offset = 0
        self._next = 0

    def __call__(self, buffer: bytearray, start: int, stop: int) -> None:
        end = self._offset + stop - start
        while self._next < end:
            buffer[start + self._next - self._offset] ^= 0x80
            self._next += self._random.randint(2, 500)  # two neighbours could be a letter in UTF-8
        self._offset = end


def _corrupt_status(head: bytes, chance: random.Random) -> bytes:
    line, separator, rest = head.partition(b"\n")
    letters = "".join(chance.choices(string.ascii_lowercase, k=max(len(line.rstrip(b"\r")), 12)))
    return letters.encode() + (b"\r" if line.endswith(b"\r") else b"") + separator + rest


def _corrupt_head(head: bytes, chance: random.Random) -> bytes:
    line, separator, rest = head.partition(b"\n")
    # Control characters and no colon: no reading of the grammar, however lenient, makes a header of it.
    nonsense = bytes(chance.choices(range(0x0E, 0x20), k=12))
    return line + separator + nonsense + b" " + nonsense + b"\r\n" + rest


# --- connections -----------------------------------------------------------------------------------------------------


class _GoneError(Exception):
    """One of the two ends is not there any more, so there is nothing left to do."""


class _End(asyncio.Protocol):
    """The proxy's socket towards the client, or towards the server.

    One coroutine at a time may wait for bytes, and one for room to write. ``ended`` is called when the other side
    will send nothing more.
    """

    def __init__(self, *, made: Callable[[_End], None] | None, ended: Callable[[], None] | None = None) -> None:
        self._made = made
        self.ended = ended
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
        if len(self.buffer) > _BUFFER:
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

    def take(self, body: _Body, alter: _Alter | None = None) -> bytes:
        """What has arrived of a body, perhaps nothing."""
        taken = body.take(self.buffer, alter)
        if len(self.buffer) <= _BUFFER:
            self.resume()
        return taken

    async def head(self) -> bytes | None:
        """The next head, with the empty line; ``None`` if none comes.

        Raises:
            _TooLongError: it is too long.
        """
        while True:
            blank = _BLANK.match(self.buffer)
            start = blank.end() if blank else 0
            if found := _HEAD_END.search(self.buffer, start):
                return self.take(_Sized(found.end()))
            if len(self.buffer) > _BUFFER:
                raise _TooLongError
            if not await self.more():
                return None

    async def leaves(self, seconds: float | None = None) -> bool:
        """Wait for the other side to close; ``False`` if it has not within that time."""
        if not self.over:
            self._leaving = self._loop.create_future()
            try:
                await asyncio.wait_for(self._leaving, seconds)
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
        if self._finished or self.lost or self._transport.is_closing():
            raise _GoneError
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
            raise _GoneError

    async def send(self, data: bytes) -> None:
        self.write(data)
        if self.full:
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


_Send = Callable[[bytes], Awaitable[None]]


class _Connection:
    """One connection of a client, and the one to the server that belongs to it.

    One task serves it; a second one forwards the body of a request that is still arriving, so that the server may
    answer early. Whatever ends the task ends both sockets.
    """

    def __init__(
        self,
        client: _End,
        *,
        connect: Callable[[], Awaitable[_End]],
        decide: Callable[[str, str], ProxyFault | None],
        seed: int,
    ) -> None:
        self._connect = connect
        self._decide = decide
        self._seed = seed
        self.client = client
        self.upstream: _End | None = None
        self._idle = True  # between two exchanges
        self._sent = False  # the request that is under way has been forwarded
        client.ended = self._client_ended
        self.task = asyncio.get_running_loop().create_task(self._serve(), name="nudgescribe fault proxy connection")

    def ends(self) -> list[_End]:
        return [end for end in (self.client, self.upstream) if end is not None]

    def reset(self) -> None:
        for end in self.ends():
            end.reset()

    async def _serve(self) -> None:
        try:
            while await self._exchange():
                pass
        except _GoneError:
            pass
        except Exception:
            _logger.exception("The fault proxy failed")
            self.client.reset()
        finally:
            for end in self.ends():
                end.abort()
            await asyncio.wait([end.closed for end in self.ends()])

    # what one side does to its connection is done to the other

    def _client_ended(self) -> None:
        if self.upstream is None:
            return
        if self.client.lost:
            self.upstream.abort()
        elif self._sent and not self.client.buffer:
            self.upstream.finish()

    def _upstream_ended(self) -> None:
        if self._idle:
            self._follow_upstream()

    def _follow_upstream(self) -> None:
        upstream = self.upstream
        if upstream is not None and upstream.over:
            if upstream.error is not None:
                self.client.reset()
            else:
                self.client.finish(silent=True)

    async def _hang_up(self) -> bool:
        """The server has closed its connection: so does the proxy, in the same way."""
        self._follow_upstream()
        await self.client.leaves()
        return False

    # one exchange; these return whether another one may follow

    async def _exchange(self) -> bool:
        self._idle, self._sent = True, False
        self._follow_upstream()
        try:
            head = await self.client.head()
        except _TooLongError:
            return await self._tunnel()
        if head is None:
            return False
        self._idle = False
        line = _REQUEST.match(head.lstrip(b"\r\n"))
        if line is None:
            return await self._tunnel(head)
        method = line[1].decode()
        fault = self._decide(method, line[2].decode())
        body = _body_of_request(head)
        match fault:
            case Replace():
                return await self._replace(fault, head, body)
            case Reset(at="before_request") | Close(at="before_request"):
                return await self._break(fault)
            case Stall(at="request") if await self._stop_reading(fault.seconds):
                return False
            case _:
                pass
        upstream = await self._connected()
        if isinstance(fault, Reset | Close) and fault.at == "in_request":
            if _EXPECT.search(head):
                body = _Sized(0)  # the client waits to be asked, and will not be
            await self._send_half(self.client, upstream.send, head, body)
            return await self._break(fault)
        upstream.write(head + self.client.take(body))
        if body.done and not upstream.full:
            self._request_sent()
            return await self._answer(upstream, method, fault)
        return await self._answer_while_sending(upstream, body, method, fault)

    def _request_sent(self) -> None:
        self._sent = True
        if self.client.over:
            self._client_ended()

    async def _answer_while_sending(self, upstream: _End, body: _Body, method: str, fault: ProxyFault | None) -> bool:
        sending = asyncio.get_running_loop().create_task(
            self._send_body(upstream, body), name="nudgescribe fault proxy body"
        )
        try:
            return await self._answer(upstream, method, fault, sending)
        finally:
            await _stop(sending)

    async def _send_body(self, upstream: _End, body: _Body) -> None:
        with suppress(_GoneError):
            await upstream.drain()
            await _pump(self.client, upstream.send, body)
            if body.done:
                self._request_sent()
            elif self.client.lost:
                upstream.abort()
            else:
                upstream.finish()

    async def _answer(
        self,
        upstream: _End,
        method: str,
        fault: ProxyFault | None,
        sending: asyncio.Task[None] | None = None,
    ) -> bool:
        client = self.client
        while True:
            try:
                head = await upstream.head()
            except _TooLongError:
                head = None
            line = _ANSWER.match(head) if head is not None else None
            if head is None or line is None:
                if head is None and upstream.lost:
                    return await self._hang_up()
                return await self._tunnel(back=head or b"", sending=sending)
            status = int(line[1])
            if status == 101:
                return await self._tunnel(back=head, sending=sending)
            if status >= 200:
                break
            await client.send(head)
        body = _body_of_answer(head, status, method)
        alter: _Alter | None = None
        send: _Send = client.send
        match fault:
            case Reset(at="after_request") | Close(at="after_request"):
                await _pump(upstream, _discard, body)
                await self._until_sent(upstream, sending)
                return await self._break(fault)
            case Reset() | Close() | Truncate():
                await self._send_half(upstream, send, head, body)
                return await self._break(fault)
            case Stall(at="head"):
                if await client.leaves(fault.seconds):
                    return False
            case Stall(at="body"):
                rest = await self._send_half(upstream, send, head, body)
                if await client.leaves(fault.seconds):
                    return False
                head = rest
            case Trickle():
                send = functools.partial(self._trickle, fault.pause)
            case Corrupt(where="status"):
                head = _corrupt_status(head, random.Random(self._seed))  # noqa: S311 - no secret
            case Corrupt(where="head"):
                head = _corrupt_head(head, random.Random(self._seed))  # noqa: S311 - no secret
            case Corrupt():
                alter = _Flips(random.Random(self._seed))  # noqa: S311 - no secret
            case _:
                pass
        await send(head + upstream.take(body, alter))
        if not body.done:
            await _pump(upstream, send, body, alter)
        if not body.done:
            return await self._hang_up()
        await self._until_sent(upstream, sending)
        return True

    async def _until_sent(self, upstream: _End, sending: asyncio.Task[None] | None) -> None:
        """The answer may come before the request has been forwarded; the next exchange begins after both."""
        while sending is not None and not sending.done() and not upstream.over:
            listening = asyncio.ensure_future(upstream.more())
            try:
                await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _stop(listening)

    async def _replace(self, fault: Replace, head: bytes, body: _Body) -> bool:
        client = self.client
        if _EXPECT.search(head) and not body.done and not client.buffer:
            await client.send(_CONTINUE)
        await _pump(client, _discard, body)
        if not body.done:
            return False
        if isinstance(fault.raw, bytes):
            await client.send(fault.raw)
        elif not await self._send_pieces(fault.raw):
            return False
        return fault.then == "keep" or await self._break(fault)

    # parts of faults

    async def _send_pieces(self, raw: Callable[[], AsyncIterator[bytes]]) -> bool:
        """Whether the client stayed to the end."""

        async def send() -> None:
            pieces = raw()
            try:
                async for piece in pieces:
                    await self.client.send(piece)
                    await asyncio.sleep(0)  # an endless answer must not keep the event loop for itself
            finally:
                if (aclose := getattr(pieces, "aclose", None)) is not None:
                    await aclose()

        sending = asyncio.ensure_future(send())
        leaving = asyncio.ensure_future(self.client.leaves())
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            return sending.done()
        finally:
            await _stop(sending)
            await _stop(leaving)

    async def _connected(self) -> _End:
        if self.upstream is None:
            try:
                self.upstream = await self._connect()
            except OSError:
                self.client.reset()
                raise _GoneError from None
            self.upstream.ended = self._upstream_ended
            if self.client.lost:
                raise _GoneError
        return self.upstream

    async def _break(self, fault: ProxyFault) -> bool:
        """End both connections; always ``False``."""
        if isinstance(fault, Reset):
            self.reset()
            return False
        if self.upstream is not None:
            self.upstream.close()
        self.client.finish(silent=True)
        await self.client.leaves()
        return False

    async def _send_half(self, source: _End, send: _Send, head: bytes, body: _Body) -> bytes:
        """Send the head and half of the body, or half of the head if there is no body.

        How long a body will be is not known of all: of others it is half of what comes first.

        Returns:
            what was taken and not sent.
        """
        if body.done:
            await send(head[: len(head) // 2])
            return head[len(head) // 2 :]
        await send(head)
        half = body.left // 2 if isinstance(body, _Sized) else None
        while True:
            piece = source.take(body)
            if not piece:
                if not await source.more():
                    return b""
                continue
            count = len(piece) // 2 if half is None else half
            if half is None or len(piece) >= count:
                await send(piece[:count])
                return piece[count:]
            await send(piece)
            half = count - len(piece)

    async def _stop_reading(self, seconds: float | None) -> bool:
        """Whether the client went away meanwhile."""
        ends = None if seconds is None else time.monotonic() + seconds
        self.client.pause()
        while not self.client.has_left():
            left = _LOOK_SECONDS if ends is None else ends - time.monotonic()
            if left <= 0:
                self.client.resume()
                return False
            await asyncio.sleep(min(left, _LOOK_SECONDS))
        return True

    async def _trickle(self, pause: float, data: bytes) -> None:
        for position in range(len(data)):
            await self.client.send(data[position : position + 1])
            await asyncio.sleep(pause)

    async def _tunnel(
        self, there: bytes = b"", *, back: bytes = b"", sending: asyncio.Task[None] | None = None
    ) -> bool:
        """Pass on what cannot be understood, both ways, until it ends; always ``False``."""
        self._idle = self._sent = False
        upstream = await self._connected()

        async def pass_on(first: bytes, source: _End, sink: _End) -> None:
            with suppress(_GoneError):
                await sink.send(first)
                await _pump(source, sink.send, _Endless())
                sink.finish()

        async def forward() -> None:
            if sending is not None:
                await asyncio.wait({sending})
            await pass_on(there, self.client, upstream)

        forwarding = asyncio.ensure_future(forward())
        try:
            await pass_on(back, upstream, self.client)
        finally:
            await _stop(forwarding)
        return await self._hang_up()


async def _pump(source: _End, send: _Send, body: _Body, alter: _Alter | None = None) -> None:
    """Pass a body on until it is complete, or ``source`` has no more."""
    while not body.done:
        if piece := source.take(body, alter):
            await send(piece)
        elif not await source.more():
            return


async def _stop(task: asyncio.Future[Any]) -> None:
    """Cancel a task and join it; what it raised is of no interest."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


async def _discard(_: bytes) -> None:
    pass


# --- the proxy -------------------------------------------------------------------------------------------------------


@functools.cache
def _operations() -> Mapping[tuple[str, str], str]:
    """The operations of the contract, by method and path. None of its paths has parameters."""
    text = files("nudgescribe_async").joinpath("contract", "openapi.json").read_text(encoding="utf-8")
    paths: dict[str, dict[str, dict[str, Any]]] = json.loads(text)["paths"]
    return {
        (method.upper(), path): node["operationId"]
        for path, methods in paths.items()
        for method, node in methods.items()
    }


class FaultProxy:
    """A proxy on loopback in which connections really break.

    ::

        async with FaultProxy(sandbox.url) as proxy:
            proxy.inject(Reset(at="after_request"), operation="customers.update")
            ...  # use proxy.url instead of sandbox.url

    Entering listens; leaving closes every socket and joins every task, whatever is under way. It can be entered once.
    Faults may be injected at any time, before entering as well; nothing here is safe to call from another thread.
    If the server cannot be reached, the client's connection is reset at its first request.

    Args:
        upstream: the address of a server on this machine, ``http://`` and a port.
        host: where to listen: an address of loopback, or ``"localhost"``, which stands for 127.0.0.1.
        port: the port; 0 takes a free one.
        seed: for ``share`` and for what ``Corrupt`` changes, so that a run can be repeated.

    Raises:
        ValueError: ``upstream`` is no such address, or one of the two is not on this machine.
    """

    def __init__(self, upstream: str, *, host: str = "127.0.0.1", port: int = 0, seed: int | None = None) -> None:
        self._upstream_host, self._upstream_port, self._prefix = _checked_upstream(upstream)
        self._host = host
        self._address = _loopback(
            host, "host must be on loopback: whoever can reach the proxy reaches the server behind it, and sees tokens"
        )
        self._port = port
        self._seed = seed
        self._operations = _operations()
        self._plan: FaultPlan[ProxyFault] = FaultPlan(
            operations=frozenset(self._operations.values()), kinds=_KINDS, seed=seed
        )
        self._log: deque[Exchange] = deque(maxlen=_LOG_SIZE)
        self._counts: Counter[str | None] = Counter()
        self._connections: set[_Connection] = set()
        self._state: Literal["new", "open", "closed"] = "new"
        self._turned_away = False  # connections that were on their way when the proxy began to refuse
        self._socket: socket.socket | None = None  # bound and not listening: keeps the port while refusing
        self._server: asyncio.Server | None = None

    # --- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError("A FaultProxy can be entered once: make another one.")
        self._socket = self._bound()
        self._port = self._socket.getsockname()[1]
        self._state = "open"
        try:
            await self.accept()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every socket and join every task. Idempotent; if it is cancelled, it closes all the same."""
        self._state = "closed"
        closing = asyncio.ensure_future(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            while not closing.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({closing})
            raise

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        # A connection that the event loop has accepted and not handed over yet comes within a turn or two.
        for _ in range(2):
            await asyncio.sleep(0)
            connections = list(self._connections)
            for connection in connections:
                connection.task.cancel()
            if connections:
                await asyncio.wait([connection.task for connection in connections])
                await asyncio.wait([end.closed for connection in connections for end in connection.ends()])
        if server is not None:
            await server.wait_closed()

    # --- what goes wrong ---------------------------------------------------------------------------------------

    def inject(
        self,
        fault: ProxyFault,
        *,
        operation: str | None = None,
        times: int | None = 1,
        skip: int = 0,
        share: float = 1.0,
        seconds: float | None = None,
    ) -> Injection[ProxyFault]:
        """Let a fault happen.

        Args:
            fault: what is to go wrong.
            operation: only with this operation, such as ``"customers.list"``; left out: with any request.
            times: how often at most; ``None`` for ever.
            skip: how many requests are spared first.
            share: the probability with which it happens each time.
            seconds: how long it lasts from now on; left out: until it has happened ``times`` times.

        Returns:
            The injection: ``fired`` counts, ``remove()`` ends it.

        Raises:
            TypeError: ``fault`` is no fault of the proxy, or a number is of the wrong type.
            ValueError: there is no such operation, or a number cannot be right.
        """
        return self._plan.inject(fault, operation=operation, times=times, skip=skip, share=share, seconds=seconds)

    @property
    def injections(self) -> tuple[Injection[ProxyFault], ...]:
        """Those that may still happen, oldest first."""
        return self._plan.injections

    def clear(self) -> None:
        """End all injections. What has befallen an exchange already, such as a stall, goes on."""
        self._plan.clear()

    async def refuse(self, *, keep_connections: bool = False) -> None:
        """Stop listening: whoever connects is refused, until ``accept``. May be called again.

        The port stays reserved.

        Args:
            keep_connections: leave those that are established; otherwise they are reset, with what they are doing.
        """
        self._check_open()
        server, self._server = self._server, None
        self._turned_away = not keep_connections
        if server is not None:
            server.close()
            await asyncio.sleep(0)  # uvloop closes in its next turn
            self._socket = self._bound()
        if not keep_connections:
            connections = list(self._connections)
            for connection in connections:
                connection.reset()
            if connections:
                await asyncio.wait([connection.task for connection in connections])

    async def accept(self) -> None:
        """Listen again, on the same port. Does nothing while it listens."""
        self._check_open()
        if self._socket is None:
            return
        bound, self._socket = self._socket, None
        self._turned_away = False
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: _End(made=self._accepted), sock=bound, backlog=_BACKLOG
            )
        except BaseException:
            bound.close()
            self._socket = self._bound()
            raise
        if self._state == "open":
            self._server = server
        else:  # closed meanwhile
            server.close()

    @asynccontextmanager
    async def down(self, *, keep_connections: bool = False) -> AsyncGenerator[None, None]:
        """Refuse connections inside of the block, accept them again after it."""
        await self.refuse(keep_connections=keep_connections)
        try:
            yield
        finally:
            if self._state == "open":
                await self.accept()

    # --- what has happened -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """What to give to the client instead of the server's address."""
        if self._state == "new":
            raise RuntimeError("The FaultProxy has no address yet: enter it with 'async with'.")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}{self._prefix}"

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return len(self._connections)

    @property
    def log(self) -> tuple[Exchange, ...]:
        """The last 10,000 exchanges, oldest first."""
        return tuple(self._log)

    def count(self, operation: str | None = None) -> int:
        """How many requests have come, of one operation or of all, whatever befell them.

        Raises:
            ValueError: there is no such operation.
        """
        if operation is None:
            return self._counts.total()
        known = self._operations.values()
        if operation not in known:
            raise ValueError(f"There is no operation {operation!r}. There are: {', '.join(sorted(known))}.")
        return self._counts[operation]

    # --- inside ------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._state != "open":
            raise RuntimeError("The FaultProxy is not running: enter it with 'async with'.")

    def _bound(self) -> socket.socket:
        bound = socket.socket(socket.AF_INET6 if ":" in self._address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind((self._address, self._port))
        except BaseException:
            bound.close()
            raise
        return bound

    def _accepted(self, client: _End) -> None:
        if self._state != "open" or self._turned_away:
            client.reset()
            return
        connection = _Connection(client, connect=self._connect, decide=self._decide, seed=self._seed or 0)
        self._connections.add(connection)
        connection.task.add_done_callback(lambda _: self._connections.discard(connection))

    async def _connect(self) -> _End:
        _, end = await asyncio.get_running_loop().create_connection(
            lambda: _End(made=None), self._upstream_host, self._upstream_port
        )
        return end

    def _decide(self, method: str, target: str) -> ProxyFault | None:
        path = target if target.startswith("/") else urlsplit(target).path
        path = path.partition("?")[0]
        operation = self._operations.get((method, path.removeprefix(self._prefix)))
        fault = self._plan.take(operation)
        self._counts[operation] += 1
        self._log.append(Exchange(operation=operation, method=method, path=path, fault=fault))
        return fault


def _checked_upstream(upstream: str) -> tuple[str, int, str]:
    if not isinstance(cast("object", upstream), str):
        raise TypeError(f"upstream must be an address such as 'http://127.0.0.1:8765', not {type(upstream).__name__}.")
    try:
        parts = urlsplit(upstream)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("upstream is no URL: its host or port cannot be read.") from None
    if parts.scheme != "http" or not host:
        raise ValueError("upstream must begin with http:// and name a host: the proxy has to read what it passes on.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("upstream must be a host, a port and perhaps a path, and nothing else.")
    _loopback(host, "upstream must be on this machine: the proxy would send tokens over a network unencrypted")
    return host, port or 80, parts.path.rstrip("/")


def _loopback(host: str, otherwise: str) -> str:
    """The address to listen on."""
    if not isinstance(cast("object", host), str):
        raise TypeError(f"host must be a text, not {type(host).__name__}.")
    if host.lower() == "localhost":
        return "127.0.0.1"
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise ValueError(f"{otherwise}. Use 127.0.0.1, ::1 or localhost; got {host!r}.")
