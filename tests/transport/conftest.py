from __future__ import annotations

import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import aioresponses.core
import pytest
import trustme
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestServer

from nudgescribe_async.testing.conformance._servers import RawHandler, RawServer
from nudgescribe_async.transport.aiohttp import AiohttpTransport


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


ServeRaw = Callable[..., Awaitable[RawServer]]


@pytest.fixture
async def serve_raw() -> AsyncIterator[ServeRaw]:
    """Servers that speak bytes: those of the conformance suite."""
    started: list[RawServer] = []

    async def serve(handler: RawHandler, *, tls: ssl.SSLContext | None = None, read_bodies: bool = True) -> RawServer:
        started.append(await RawServer(handler, read_bodies=read_bodies, tls=tls).start())
        return started[-1]

    yield serve
    for server in started:
        await server.stop()
        assert server.failure is None


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
