"""A transport into an ``aiohttp.web.Application`` in the same process, without a socket.

For tests of whatever calls the service: no port, no waiting, no network that may be down. It is not a
mock: the real HTTP client of aiohttp writes to the real HTTP server of aiohttp, through two buffers in
memory, so that headers, framing, compression, keep-alive and broken connections are what they are on
a wire. Everything else is ``AiohttpTransport``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import aiohttp

# ResponseHandler, BaseConnector._create_connection and the call of AppRunner.server are no public API
# of aiohttp. tests/transport/test_in_process.py pins them.
from aiohttp.client_proto import ResponseHandler
from aiohttp.web import AppRunner

from nudgescribe_async.errors import ClientClosedError, ConfigurationError
from nudgescribe_async.transport.aiohttp import AiohttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from aiohttp.tracing import Trace
    from aiohttp.web import Application

    from nudgescribe_async.transport import Request, Response

__all__ = ["InProcessTransport"]

HIGH_WATER: Final = 256 * 1024  # bytes that wait to be read before the writer has to pause
LOW_WATER: Final = 64 * 1024
PIECE: Final = 64 * 1024  # bytes that are handed over at once


class InProcessTransport:
    """Sends requests to an application in this process, whatever the host of their URL.

    The application is started by the first ``send``, which concurrent ones wait for, and shut down and
    cleaned up by ``aclose``. It belongs to the transport from then on: aiohttp starts an application
    only once. Cancelling the ``send`` that started it does not stop the others.

    Args:
        app: an application that was not started yet.
        limit: the most connections at once; 0 is no limit.
        shutdown_timeout: seconds that ``aclose`` gives to handlers that are still at work.
    """

    def __init__(self, app: Application, *, limit: int = 100, shutdown_timeout: float = 1.0) -> None:
        self._app = app
        self._limit = limit
        self._shutdown_timeout = shutdown_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Task[_Running] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<InProcessTransport into {type(self._app).__name__}{', closed' if self._closed else ''}>"

    async def send(self, request: Request) -> Response:
        """Send the request once; everything as with ``AiohttpTransport.send``.

        Raises:
            ConfigurationError: also if the application does not start; ``__cause__`` says why.
        """
        if self._closed:
            raise ClientClosedError("The transport is closed. Nothing was sent.")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise ConfigurationError(
                "The transport belongs to the event loop that used it first, and this is another one:"
                " make one transport, and one application, for each event loop. Nothing was sent."
            )
        if self._starting is None:
            self._starting = loop.create_task(self._start())
        try:
            running = await asyncio.shield(self._starting)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"The application does not start: {type(error).__name__}: {error}. Nothing was sent."
            ) from error
        if self._closed:
            raise ClientClosedError("The transport was closed while the application started. Nothing was sent.")
        return await running.transport.send(request)

    async def aclose(self) -> None:
        """Cut the connections, then shut the application down and clean it up.

        May be called more than once, by several tasks, and before the first ``send``; an application
        that was never started is left alone. If the waiting is cancelled, the closing goes on.
        """
        self._closed = True
        if self._starting is None:
            return
        running = asyncio.get_running_loop()
        if self._closing is None:
            if self._loop is not running:
                raise ConfigurationError("The transport was used in another event loop: close it there.")
            self._closing = running.create_task(self._close(self._starting))
        if self._closing.done():
            self._closing.result()
        else:
            await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _start(self) -> _Running:
        runner = AppRunner(
            self._app, access_log=None, handler_cancellation=True, shutdown_timeout=self._shutdown_timeout
        )
        try:
            await runner.setup()
        except BaseException:
            await runner.cleanup()
            raise
        server = runner.server
        assert server is not None  # noqa: S101 - for the type checker: setup() made it
        session = aiohttp.ClientSession(
            connector=_AppConnector(server, limit=self._limit), cookie_jar=aiohttp.DummyCookieJar()
        )
        return _Running(runner, session)

    @staticmethod
    async def _close(starting: asyncio.Task[_Running]) -> None:
        await asyncio.wait({starting})
        if starting.cancelled() or starting.exception() is not None:
            return  # it cleaned up after itself
        await starting.result().close()


class _Running:
    """An application that was started, and the way into it."""

    def __init__(self, runner: AppRunner, session: aiohttp.ClientSession) -> None:
        self.runner = runner
        self.session = session
        self.transport = AiohttpTransport(session)

    async def close(self) -> None:
        await self.transport.aclose()
        await self.session.close()
        await self.runner.cleanup()


class _AppConnector(aiohttp.BaseConnector):
    """Connects every request to the one application, TLS or not."""

    def __init__(self, server: Callable[[], asyncio.Protocol], *, limit: int) -> None:
        super().__init__(limit=limit)
        self._server = server

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,  # noqa: ARG002
        traces: list[Trace],  # noqa: ARG002
        timeout: aiohttp.ClientTimeout,  # noqa: ARG002, ASYNC109
    ) -> ResponseHandler:
        client = ResponseHandler(asyncio.get_running_loop())
        server = self._server()
        near, far = _MemoryTransport(client), _MemoryTransport(server)
        near.peer, far.peer = far, near
        server.connection_made(far)
        client.connection_made(near)
        return client


class _MemoryTransport(asyncio.Transport):
    """One end of a connection in memory. What is written waits at the other end until it is read there.

    It keeps to the rules that protocols rely on: no callback runs inside of the call that causes it,
    data comes before the end of data, ``connection_lost`` comes once and last, and a writer is paused
    while more than ``HIGH_WATER`` bytes wait.
    """

    peer: _MemoryTransport

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 0), "sockname": ("127.0.0.1", 0)})
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._inbox: deque[bytes] = deque()
        self._waiting = 0
        self._ended = False  # the peer will send nothing more
        self._end_told = False
        self._reading = True
        self._delivery: asyncio.Handle | None = None
        self._closing = False
        self._lost = False
        self._wrote_end = False
        self._writer_paused = False

    def __repr__(self) -> str:
        return f"<_MemoryTransport{' closing' if self._closing else ''}, {self._waiting} bytes to read>"

    # What the protocol at this end calls.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)  # noqa: S101
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._deliver_soon()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._wrote_end:
            raise RuntimeError("Cannot call write() after write_eof()")
        if data and not self._closing:
            self.peer._receive(bytes(data))  # noqa: SLF001
            if self.peer._waiting > HIGH_WATER and not self._writer_paused:  # noqa: SLF001
                self._writer_paused = True
                self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self.peer._waiting  # noqa: SLF001

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._wrote_end:
            self._wrote_end = True
            self.peer._receive_end()  # noqa: SLF001

    def close(self) -> None:
        """End both directions. What was written is still delivered; what was not read is gone."""
        if not self._closing:
            self._shut(None)
            self.peer._receive_end()  # noqa: SLF001

    def abort(self) -> None:
        """End both directions at once: the peer gets a ``ConnectionResetError``."""
        if not self._lost:
            self._shut(None)
            self.peer._shut(ConnectionResetError("Connection reset by peer"))  # noqa: SLF001

    # What the other end calls.

    def _receive(self, data: bytes) -> None:
        if not self._closing:
            self._inbox.extend(data[start : start + PIECE] for start in range(0, len(data), PIECE))
            self._waiting += len(data)
            self._deliver_soon()

    def _receive_end(self) -> None:
        self._ended = True
        self._deliver_soon()

    def _room(self) -> None:
        if self._writer_paused and not self._lost:
            self._writer_paused = False
            self._protocol.resume_writing()

    # What the event loop calls.

    def _deliver_soon(self) -> None:
        if self._delivery is None and self.is_reading() and (self._inbox or (self._ended and not self._end_told)):
            self._delivery = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._delivery = None
        if not self.is_reading():
            return
        if self._inbox:
            data = self._inbox.popleft()
            self._waiting -= len(data)
            if self._waiting <= LOW_WATER:
                self.peer._room()  # noqa: SLF001
            self._protocol.data_received(data)
        elif self._ended:
            self._end_told = True
            if not self._protocol.eof_received():
                self.close()
        self._deliver_soon()

    def _shut(self, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._inbox.clear()
        self._waiting = 0
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None
        self._loop.call_soon(self._lose, error)
        self._loop.call_soon(self.peer._room)  # noqa: SLF001

    def _lose(self, error: Exception | None) -> None:
        self._lost = True
        self._protocol.connection_lost(error)
