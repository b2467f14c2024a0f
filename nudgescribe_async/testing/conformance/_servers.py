"""Servers on loopback: one that says what a rule wants it to say, valid HTTP or not, and a proxy."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from aiohttp import web

from nudgescribe_async.tasks import end

if TYPE_CHECKING:
    import ssl

__all__ = [
    "EMPTY",
    "HOST",
    "OK",
    "AppHandler",
    "AppServer",
    "Counted",
    "Hanging",
    "ProxyServer",
    "RawConnection",
    "RawHandler",
    "RawRequest",
    "RawServer",
    "application",
    "http",
    "say_ok",
    "saying",
]

HOST: Final = "127.0.0.1"
GOODBYE: Final = 2.0  # seconds in which a client that has closed must be seen to have
MANY: Final = 2_048

# aiohttp complains here of requests that no good transport would send; the rules say so themselves.
_SILENT: Final = logging.Logger("nudgescribe_async.testing.conformance")  # noqa: LOG001 - nothing comes to the root
_SILENT.addHandler(logging.NullHandler())


def http(status: int, body: bytes = b"", *headers: str) -> bytes:
    """An answer."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


OK: Final = http(200, b"ok")
EMPTY: Final = http(200)


class RawRequest:
    """A request as it came."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.method, self.target, _ = self.line.split(" ")
        self.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:] if line)]
        self.head = head.decode("latin-1")
        self.body = body

    def values(self, name: str) -> list[str]:
        """All values of one header."""
        return [value for found, value in self.headers if found.lower() == name.lower()]


class RawConnection:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def body(self, request: RawRequest) -> AsyncIterator[bytes]:
        """The body of a request, while it arrives."""
        if "chunked" in request.values("Transfer-Encoding"):
            while size := int(await self.reader.readline(), 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        else:
            left = int((request.values("Content-Length") or ["0"])[0])
            while left:
                piece = await self.reader.read(min(left, 65_536))
                if not piece:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(piece)
                yield piece

    async def gone(self) -> None:
        """Wait until the client has closed its end, or cut the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass

    def close(self) -> None:
        """Close it, after what was written."""
        self.writer.close()

    def reset(self) -> None:
        """Cut it, so that the client gets a reset."""
        linger_not = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self.writer.transport.abort()

    def end(self) -> None:
        """Say nothing more, at once: before the event loop turns. What the client says is still read."""
        self.writer.get_extra_info("socket").shutdown(socket.SHUT_WR)


RawHandler: TypeAlias = Callable[[RawRequest, RawConnection], Awaitable[None]]


async def say_ok(_: RawRequest, connection: RawConnection) -> None:
    """Answer, whatever it is."""
    await connection.say(OK)


def saying(answers: Iterable[bytes]) -> RawHandler:
    """What says one of the answers, the first to a request for ``/0``, and closes."""
    given = [*answers]

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        await connection.say(given[int(request.target[1:])])
        connection.close()

    return handler


class Hanging:
    """Answers what is for ``/ok``, and begins to answer what is for ``/half``; then it waits until the client has gone.

    Attributes:
        arrived: a request has come that has no answer, or half of one.
        gone: the client of one has gone.
    """

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()

    async def handler(self, request: RawRequest, connection: RawConnection) -> None:
        """Answer, or hang."""
        if request.target == "/ok":
            await connection.say(OK)
            return
        if request.target == "/half":
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        self.arrived.set()
        await connection.gone()
        self.gone.set()
        connection.close()


class RawServer:
    """Reads requests, one after the other on each connection, and lets a handler do what it wants with them.

    Attributes:
        requests: those whose head has arrived, and their body where the server reads bodies.
        connections: how many there were.
        found: a client has come.
        lost: a client has gone away, or was sent away.
        failure: what a handler has raised.
    """

    def __init__(self, handler: RawHandler, *, read_bodies: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._read_bodies = read_bodies
        self._tls = tls
        self._open: dict[asyncio.Task[None], RawConnection] = {}
        self._left: list[RawConnection] = []
        self.requests: list[RawRequest] = []
        self.connections = 0
        self.found = asyncio.Event()
        self.lost = asyncio.Event()
        self.failure: Exception | None = None

    async def start(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, HOST, 0, ssl=self._tls, backlog=MANY, limit=2**20)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'http' if self._tls is None else 'https'}://{HOST}:{self.port}"
        return self

    @property
    def targets(self) -> list[str]:
        """What the requests were for."""
        return [request.target for request in self.requests]

    @property
    def open_connections(self) -> list[RawConnection]:
        """Those that a handler holds."""
        return list(self._open.values())

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What the server itself is doing."""
        return {*self._open}

    async def stop(self) -> list[str]:
        """Stop; tells which connections the client had not closed by then."""
        self._server.close()
        await end(self._open)
        still_open = [await self._has_left(connection) for connection in self._left]
        for connection in self._left:
            connection.writer.transport.abort()
        await asyncio.sleep(0)
        await self._server.wait_closed()
        return [text for text in still_open if text]

    async def _has_left(self, connection: RawConnection) -> str:
        if connection.writer.is_closing():
            return ""
        try:
            async with asyncio.timeout(GOODBYE):
                await connection.gone()
        except TimeoutError:
            return f"a connection to port {self.port}"
        return ""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        connection = RawConnection(reader, writer)
        if task is not None:
            self._open[task] = connection
            task.add_done_callback(self._open.pop)
        self._left.append(connection)
        self.connections += 1
        self.found.set()
        try:
            while not writer.is_closing():
                await self._one(connection)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # the client has gone, or the server is stopped, which closes what is left
        except asyncio.LimitOverrunError:
            pass  # a head without end
        except Exception as error:  # noqa: BLE001 - it is told when the server is stopped
            self.failure = error
        finally:
            self.lost.set()
        writer.close()

    async def _one(self, connection: RawConnection) -> None:
        request = RawRequest(await connection.reader.readuntil(b"\r\n\r\n"), b"")
        self.requests.append(request)
        if self._read_bodies:
            request.body = b"".join([piece async for piece in connection.body(request)])
        await self._handler(request, connection)


class ProxyServer:
    """A proxy that tunnels with ``CONNECT``, forwards what has an absolute address, and keeps what it was asked.

    Args:
        credentials: the value of ``Proxy-Authorization`` that it wants; ``None`` takes any, and none.
        refuse: the status with which it refuses everything.

    Attributes:
        requests: their heads.
    """

    def __init__(self, *, credentials: str | None = None, refuse: int | None = None) -> None:
        self._wanted = credentials
        self._refuse = refuse
        self._server = RawServer(self._pass_on, read_bodies=False)

    async def start(self) -> Self:
        """Listen."""
        await self._server.start()
        self.port = self._server.port
        self.address = f"{HOST}:{self.port}"
        return self

    @property
    def requests(self) -> list[RawRequest]:
        """What it was asked."""
        return self._server.requests

    @property
    def failure(self) -> Exception | None:
        """What went wrong with the proxy itself."""
        return self._server.failure

    async def stop(self) -> list[str]:
        """Stop."""
        return await self._server.stop()

    async def _pass_on(self, request: RawRequest, client: RawConnection) -> None:
        if self._refuse is not None or (
            self._wanted is not None and request.values("Proxy-Authorization") != [self._wanted]
        ):
            await client.say(http(self._refuse or 407, b"", "Proxy-Authenticate: Basic", "Connection: close"))
            client.close()
            return
        is_tunnel = request.method == "CONNECT"
        found = re.fullmatch(r"([^/:]+):([0-9]+)" if is_tunnel else r"http://([^/:]+):([0-9]+)(/.*)?", request.target)
        if found is None:
            await client.say(http(400, b"", "Connection: close"))
            client.close()
            return
        host, port = found[1], found[2]
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            if is_tunnel:
                await client.say(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                writer.write(_forwarded(request, found[3] or "/"))
            await _pump_both(client.reader, writer, reader, client.writer)
        finally:
            writer.transport.abort()
        client.writer.transport.abort()


def _forwarded(request: RawRequest, path: str) -> bytes:
    lines = [f"{request.method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers if name.lower() != "proxy-authorization"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _pump_both(
    near: asyncio.StreamReader, far_end: asyncio.StreamWriter, far: asyncio.StreamReader, near_end: asyncio.StreamWriter
) -> None:
    pumps = [asyncio.ensure_future(_pump(near, far_end)), asyncio.ensure_future(_pump(far, near_end))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(pumps)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


AppHandler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(handler: AppHandler) -> web.Application:
    """One that has a single handler for everything."""
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", handler)
    return app


class Counted:
    """An ``AppHandler`` that counts what arrives."""

    def __init__(self) -> None:
        self.seen = 0

    async def handler(self, _: web.Request) -> web.Response:
        """Count it."""
        self.seen += 1
        return web.Response(text="ok")


class AppServer:
    """An ``aiohttp.web`` application that listens."""

    failure: Exception | None = None  # nothing goes wrong with it: it answers with 500

    def __init__(self, handler: AppHandler) -> None:
        self._runner = web.AppRunner(
            application(handler), access_log=None, logger=_SILENT, handler_cancellation=True, shutdown_timeout=0.1
        )

    async def start(self) -> Self:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0, backlog=MANY).start()
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}"
        return self

    async def stop(self) -> list[str]:
        """Stop."""
        await self._runner.cleanup()
        return []
