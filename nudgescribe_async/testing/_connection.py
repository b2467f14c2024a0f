"""One connection of a client through the proxy: request by request, and what befalls each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from nudgescribe_async.testing._corruption import Flips, corrupt_head, corrupt_status
from nudgescribe_async.testing._ends import End, GoneError, Send, TooLongError
from nudgescribe_async.testing._framing import (
    CONTINUE,
    Alter,
    Body,
    Endless,
    Sized,
    body_of_answer,
    body_of_request,
    request_line,
    status_of,
    waits_to_be_asked,
)
from nudgescribe_async.testing.faults import Close, Corrupt, ProxyFault, Replace, Reset, Stall, Trickle, Truncate

__all__ = ["Connection"]

_logger = logging.getLogger("nudgescribe_async.testing.proxy")  # of the public module, for those who filter

_LOOK_SECONDS: Final = 0.02  # how often a client that is not read from is looked at


class Connection:
    """One connection of a client, and the one to the server that belongs to it.

    One task serves it; a second one forwards the body of a request that is still arriving, so that the server may
    answer early. Whatever ends the task ends both sockets.
    """

    def __init__(
        self,
        client: End,
        *,
        connect: Callable[[], Awaitable[End]],
        decide: Callable[[str, str], ProxyFault | None],
        seed: int,
    ) -> None:
        self._connect = connect
        self._decide = decide
        self._seed = seed
        self.client = client
        self.upstream: End | None = None
        self._idle = True  # between two exchanges
        self._sent = False  # the request that is under way has been forwarded
        client.ended = self._client_ended
        self.task = asyncio.get_running_loop().create_task(self._serve(), name="nudgescribe fault proxy connection")

    def ends(self) -> list[End]:
        return [end for end in (self.client, self.upstream) if end is not None]

    def reset(self) -> None:
        for end in self.ends():
            end.reset()

    async def _serve(self) -> None:
        try:
            while await self._exchange():
                pass
        except GoneError:
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
        except TooLongError:
            return await self._tunnel()
        if head is None:
            return False
        self._idle = False
        line = request_line(head)
        if line is None:
            return await self._tunnel(head)
        method, target = line
        fault = self._decide(method, target)
        body = body_of_request(head)
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
            if waits_to_be_asked(head):
                body = Sized(0)  # the client waits to be asked, and will not be
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

    async def _answer_while_sending(self, upstream: End, body: Body, method: str, fault: ProxyFault | None) -> bool:
        sending = asyncio.get_running_loop().create_task(
            self._send_body(upstream, body), name="nudgescribe fault proxy body"
        )
        try:
            return await self._answer(upstream, method, fault, sending)
        finally:
            await _stop(sending)

    async def _send_body(self, upstream: End, body: Body) -> None:
        with suppress(GoneError):
            await upstream.drain()
            await self.client.pump(upstream.send, body)
            if body.done:
                self._request_sent()
            elif self.client.lost:
                upstream.abort()
            else:
                upstream.finish()

    async def _answer(
        self,
        upstream: End,
        method: str,
        fault: ProxyFault | None,
        sending: asyncio.Task[None] | None = None,
    ) -> bool:
        """Pass on the answer, and what comes before it."""
        while True:
            try:
                head = await upstream.head()
            except TooLongError:
                head = None
            if head is None and upstream.lost:
                return await self._hang_up()
            status = status_of(head) if head is not None else None
            if head is None or status is None or status == 101:
                return await self._tunnel(back=head or b"", sending=sending)
            if status >= 200:
                return await self._last_answer(upstream, head, body_of_answer(head, status, method), fault, sending)
            await self.client.send(head)

    async def _last_answer(
        self,
        upstream: End,
        head: bytes,
        body: Body,
        fault: ProxyFault | None,
        sending: asyncio.Task[None] | None,
    ) -> bool:
        client = self.client
        alter: Alter | None = None
        send: Send = client.send
        match fault:
            case Reset(at="after_request") | Close(at="after_request"):
                await upstream.pump(_discard, body)
                await self._until_sent(upstream, sending)
                return await self._break(fault)
            case Reset() | Close() | Truncate():
                await self._send_half(upstream, send, head, body)
                return await self._break(fault)
            case Stall(at="head"):
                if await client.leaves(fault.seconds):
                    return False
            case Stall(at="body"):
                head = await self._send_half(upstream, send, head, body)
                if await client.leaves(fault.seconds):
                    return False
            case Trickle():
                send = partial(self._trickle, fault.pause)
            case Corrupt(where="status"):
                head = corrupt_status(head, self._seed)
            case Corrupt(where="head"):
                head = corrupt_head(head, self._seed)
            case Corrupt():
                alter = Flips(self._seed)
            case _:
                pass
        await send(head + upstream.take(body, alter))
        await upstream.pump(send, body, alter)
        if not body.done:
            return await self._hang_up()
        await self._until_sent(upstream, sending)
        return True

    async def _until_sent(self, upstream: End, sending: asyncio.Task[None] | None) -> None:
        """The answer may come before the request has been forwarded; the next exchange begins after both."""
        while sending is not None and not sending.done() and not upstream.over:
            listening = asyncio.ensure_future(upstream.more())
            try:
                await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _stop(listening)

    async def _replace(self, fault: Replace, head: bytes, body: Body) -> bool:
        client = self.client
        if waits_to_be_asked(head) and not body.done and not client.buffer:
            await client.send(CONTINUE)
        await client.pump(_discard, body)
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

    async def _connected(self) -> End:
        if self.upstream is None:
            try:
                self.upstream = await self._connect()
            except OSError:
                self.client.reset()
                raise GoneError from None
            self.upstream.ended = self._upstream_ended
            if self.client.lost:
                raise GoneError
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

    async def _send_half(self, source: End, send: Send, head: bytes, body: Body) -> bytes:
        """Send the head and half of the body, or half of the head if there is no body.

        How long a body will be is not known of all: of others it is half of what comes first.

        Returns:
            what was taken and not sent.
        """
        if body.done:
            await send(head[: len(head) // 2])
            return head[len(head) // 2 :]
        await send(head)
        left = body.left // 2 if isinstance(body, Sized) else None
        while piece := await source.piece(body):
            if left is None:
                left = len(piece) // 2
            await send(piece[:left])
            if len(piece) >= left:
                return piece[left:]
            left -= len(piece)
        return b""

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

        async def pass_on(first: bytes, source: End, sink: End) -> None:
            with suppress(GoneError):
                await sink.send(first)
                await source.pump(sink.send, Endless())
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


async def _stop(task: asyncio.Future[Any]) -> None:
    """Cancel a task and join it; what it raised is of no interest."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


async def _discard(_: bytes) -> None:
    pass
