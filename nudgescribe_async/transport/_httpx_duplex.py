"""Listening while a body is sent, which httpx does not do by itself.

A server may answer before it has the whole body, "too large" for instance, and read no more of it. httpcore, which is
what httpx sends with, looks for an answer only when everything is written, so it would wait for each other's end with
the server. But it goes on to the answer when a write fails; so here a write fails when there is one, and so does the
waiting for the next piece of the body.
"""

from __future__ import annotations

import asyncio
import math
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import httpcore
import httpx

from nudgescribe_async.tasks import end, outlast

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import Self

__all__ = ["DuplexTransport"]

SMALL: Final = 64 * 1024  # what the system takes in any case
_BEGINNINGS: Final = (b"HTTP/1.1 1", b"HTTP/1.0 1")
_ANSWERED: Final = "There was an answer before the end of the request."
_SWITCHING: Final = b"101"  # informational by its number alone: it is the last
_INFORMATIONAL: Final = re.compile(rb"(?:HTTP/1\.[01] 1(?!01)[0-9]{2}[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n)*")


class DuplexTransport(httpx.AsyncHTTPTransport):
    """httpx's own, but listening.

    There is no public way to give its pool another network. Should these attributes go one day, it falls back to what
    httpx does, and a test notices.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._streams: set[_Stream] = set()
        pool: Any = self._pool
        if hasattr(pool, "_network_backend"):
            pool._network_backend = _Network(pool._network_backend, self._streams)  # noqa: SLF001

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it. A body that may keep it waiting listens on the connection that its head was written to."""
        body: _Body | None = None
        if isinstance(request.stream, httpx.AsyncByteStream) and not isinstance(request.stream, httpx.ByteStream):
            body = request.stream = _Body(request.stream)
        before = _BODY.set(body)  # a body may send requests itself, in the same task
        try:
            return await super().handle_async_request(request)
        finally:
            _BODY.reset(before)

    async def aclose(self) -> None:
        """Close all connections, and those that the pool has lost: it may be cancelled while it closes them."""
        await super().aclose()
        for stream in [*self._streams]:
            await stream.aclose()


class _Body(httpx.AsyncByteStream):
    """The pieces of a body, up to an answer.

    Attributes:
        connection: the one that the head of the request was written to.
    """

    def __init__(self, pieces: httpx.AsyncByteStream) -> None:
        self._pieces = aiter(pieces)
        self.connection: _Stream | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self.connection is None:
            return await anext(self._pieces)
        return await self.connection.next_of(self._pieces)


_BODY: Final[ContextVar[_Body | None]] = ContextVar("nudgescribe_async.httpx.body", default=None)


class _Network(httpcore.AsyncNetworkBackend):
    def __init__(self, network: httpcore.AsyncNetworkBackend, streams: set[_Stream]) -> None:
        self._network = network
        self._streams = streams

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._streams)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection. The first write after a read is the head of a request; what follows is its body.

    Args:
        stream: what it is over.
        streams: those that are open; it puts itself among them.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream, streams: set[_Stream]) -> None:
        self._stream = stream
        self._streams = streams
        streams.add(self)
        self._writes = 0  # of this request
        self._heard = b""
        self._listening: asyncio.Task[bytes] | None = None
        self._cut: Callable[[], None] | None = None  # what is waiting for a piece of the body

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        if not buffer:  # the end of a body that has a length
            return
        self._writes += 1
        if self._writes == 1:
            body = _BODY.get()
            if body is not None:
                body.connection = self
        if self._writes == 1 or (self._writes == 2 and len(buffer) <= SMALL):  # the head, a small body
            await self._stream.write(buffer, timeout)
            return
        writing = asyncio.ensure_future(self._stream.write(buffer, timeout))
        try:
            while not writing.done() and not self._is_answered():
                await asyncio.wait({writing, self._listen()}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end([writing])
        if not writing.cancelled():
            writing.result()
        if writing.cancelled() or self._is_answered():
            raise httpcore.WriteError(_ANSWERED)

    async def next_of(self, pieces: AsyncIterator[bytes]) -> bytes:
        """The next piece of a body.

        If there is an answer before it is here, who gives the pieces is cancelled, in the task that asks for all of
        them; whatever comes of that, the request is not continued. Who has been cancelled already, and cleans up, is
        left alone. A cancellation from outside while it cleans up because of an answer is a second one to it.

        Raises:
            httpcore.WriteError: there is an answer, or the connection is at its end.
            Exception: what the body raised, ``StopAsyncIteration`` for instance.
        """
        scope = asyncio.timeout(None)
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()

        def cut() -> None:
            if task is None or task.cancelling() == cancelled:
                scope.reschedule(-math.inf)

        if not self._is_answered():
            try:
                async with scope:
                    self._cut = cut
                    self._listen()
                    try:
                        piece = await anext(pieces)
                    finally:
                        self._cut = None
            except Exception:
                if not scope.expired():
                    raise
            else:
                if not scope.expired():
                    return piece
        raise httpcore.WriteError(_ANSWERED)

    def _listen(self) -> asyncio.Task[bytes]:
        if self._listening is None:
            self._listening = asyncio.ensure_future(self._stream.read(SMALL))
            self._listening.add_done_callback(self._heard_while_waiting)
        return self._listening

    def _heard_while_waiting(self, listening: asyncio.Task[bytes]) -> None:
        if self._cut is None or self._listening is not listening or listening.cancelled():
            return
        if self._is_answered():
            self._cut()
        else:
            self._listen()

    def _is_answered(self) -> bool:
        """Whether what was heard ends the request, as anything but informational answers does: those are passed over."""
        listening = self._listening
        if listening is None or not listening.done():
            return False
        if listening.exception() is not None or not listening.result():
            return True
        heard = self._heard + listening.result()
        passed = _INFORMATIONAL.match(heard)
        rest = heard if passed is None else heard[passed.end() :]
        if len(rest) > SMALL or rest[9:12] == _SWITCHING or not any(one.startswith(rest[:10]) for one in _BEGINNINGS):
            return True
        self._heard, self._listening = rest, None
        return False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        self._writes = 0
        if self._heard:
            heard, self._heard = self._heard[:max_bytes], self._heard[max_bytes:]
            return heard
        if self._listening is None:
            return await self._stream.read(max_bytes, timeout)
        listening = self._listening
        await asyncio.wait({listening}, timeout=timeout)
        if not listening.done():
            raise httpcore.ReadTimeout
        self._listening = None
        heard = listening.result()
        self._heard = heard[max_bytes:]
        return heard[:max_bytes]

    async def aclose(self) -> None:
        closing = asyncio.ensure_future(self._close())
        cancelled = await outlast([closing])  # half closed, it would stay as long as the server likes
        closing.result()
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        self._streams.discard(self)
        listening, self._listening = self._listening, None
        if listening is not None:
            await end([listening])
            if not listening.cancelled():
                listening.exception()  # nobody reads any more
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> Self:
        try:
            stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:
            await self.aclose()  # httpcore forgets it
            raise
        self._streams.discard(self)
        return type(self)(stream, self._streams)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
