"""Listening while a body is sent, which httpx does not do by itself.

A server may answer before it has the whole body, "too large" for instance, and read no more of it. httpcore, which is
what httpx sends with, looks for an answer only when everything is written, so it would wait for each other's end with
the server. But it goes on to the answer when a write fails; so here a write fails when there is one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import httpcore
import httpx

from nudgescribe_async.tasks import end, outlast

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from typing import Self

__all__ = ["DuplexTransport"]

SMALL: Final = 64 * 1024  # what the system takes in any case
_INFORMATIONAL: Final = (b"HTTP/1.1 1", b"HTTP/1.0 1")


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

    async def aclose(self) -> None:
        """Close all connections, and those that the pool has lost: it may be cancelled while it closes them."""
        await super().aclose()
        for stream in [*self._streams]:
            await stream.aclose()


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

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        self._writes += 1
        if self._writes == 1 or (self._writes == 2 and len(buffer) <= SMALL):  # the head, a small body
            await self._stream.write(buffer, timeout)
            return
        writing = asyncio.ensure_future(self._stream.write(buffer, timeout))
        try:
            while not writing.done():
                if self._listening is None:
                    self._listening = asyncio.ensure_future(self._stream.read(SMALL))
                await asyncio.wait({writing, self._listening}, return_when=asyncio.FIRST_COMPLETED)
                if self._listening.done() and self._is_answer(self._listening):
                    break
        finally:
            await end([writing])
        if not writing.cancelled():
            writing.result()
        if writing.cancelled() or (self._listening is not None and self._listening.done()):
            raise httpcore.WriteError("There was an answer before the end of the request.")

    def _is_answer(self, listening: asyncio.Task[bytes]) -> bool:
        """Whether what was heard ends the request, as anything but an informational answer does."""
        if listening.exception() is None and listening.result().startswith(_INFORMATIONAL):
            self._heard += listening.result()
            self._listening = None
            return False
        return True

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
