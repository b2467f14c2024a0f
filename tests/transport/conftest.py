from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import aioresponses.core
import pytest
import trustme
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestServer

from nudgescribe_async.transport import Transport
from nudgescribe_async.transport.aiohttp import AiohttpTransport
from nudgescribe_async.transport.in_process import InProcessTransport


class _ResponseOfToday(ClientResponse):
    """aioresponses 0.7.9 does not give what aiohttp 3.14 asks for (pnuckowski/aioresponses#289)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **kwargs)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses.aioresponses]:
    """What aiohttp answers, or raises, without a connection."""
    if "stream_writer" in inspect.signature(ClientResponse.__init__).parameters:
        monkeypatch.setattr(aioresponses.core, "ClientResponse", _ResponseOfToday)
    with aioresponses.aioresponses() as given:
        yield given


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    async with AiohttpTransport() as made:
        yield made


Handler = Callable[["RawRequest", asyncio.StreamWriter], Awaitable[None]]


class RawRequest:
    def __init__(self, head: bytes, body: bytes, reader: asyncio.StreamReader) -> None:
        self.head = head.decode()
        self.line = self.head.partition("\r\n")[0]
        self.method, self.target, _ = self.line.split(" ")
        self.headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in self.head.split("\r\n")[1:] if line)
        }
        self.body = body
        self.reader = reader


class RawServer:
    """A server that does what a test tells it to, valid HTTP or not."""

    def __init__(self, handler: Handler, *, read_bodies: bool = True) -> None:
        self.handler = handler
        self.read_bodies = read_bodies
        self.requests: list[RawRequest] = []
        self.connections = 0
        self.found = asyncio.Event()  # a client has come
        self.lost = asyncio.Event()  # a client has gone away
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.found.set()
        try:
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                while not writer.is_closing():
                    try:
                        head = await reader.readuntil(b"\r\n\r\n")
                    except asyncio.IncompleteReadError:
                        break
                    request = RawRequest(head, b"", reader)
                    if self.read_bodies:
                        request.body = await reader.readexactly(int(request.headers.get("content-length", 0)))
                    self.requests.append(request)
                    await self.handler(request, writer)
        finally:
            self.lost.set()
            self._tasks.discard(task)
            writer.transport.abort()


ServeRaw = Callable[..., Awaitable[RawServer]]


@pytest.fixture
async def serve_raw() -> AsyncIterator[ServeRaw]:
    started: list[RawServer] = []

    async def serve(handler: Handler, *, context: ssl.SSLContext | None = None, read_bodies: bool = True) -> RawServer:
        server = RawServer(handler, read_bodies=read_bodies)
        await server.start(context)
        started.append(server)
        return server

    yield serve
    for server in started:
        await server.stop()


ServeApp = Callable[..., Awaitable[TestServer]]


@pytest.fixture
async def serve_app() -> AsyncIterator[ServeApp]:
    started: list[TestServer] = []

    async def serve(app: web.Application, *, context: ssl.SSLContext | None = None) -> TestServer:
        server = TestServer(app, scheme="http" if context is None else "https")
        await server.start_server(ssl=context, shutdown_timeout=0.1)
        started.append(server)
        return server

    yield serve
    for server in started:
        await server.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


Connect = Callable[[web.Application], Awaitable[tuple[Transport, str]]]


@pytest.fixture(params=["aiohttp", "in_process"])
async def connect(request: pytest.FixtureRequest, serve_app: ServeApp) -> AsyncIterator[Connect]:
    """Gives a transport to an application, and the URL of the application."""
    made: list[Transport] = []

    async def over_sockets(app: web.Application) -> tuple[Transport, str]:
        server = await serve_app(app)
        made.append(AiohttpTransport())
        return made[-1], str(server.make_url("")).rstrip("/")

    async def in_process(app: web.Application) -> tuple[Transport, str]:
        made.append(InProcessTransport(app, shutdown_timeout=0.1))
        return made[-1], "https://api.example.test"

    yield over_sockets if request.param == "aiohttp" else in_process
    for transport in made:
        await transport.aclose()
