"""Connections: TLS, proxies, sessions of others, cancelling and closing."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from nudgescribe_async.errors import (
    ClientClosedError,
    ConfigurationError,
    OutcomeUnknownError,
    RequestNotSentError,
)
from nudgescribe_async.testing.conformance._servers import OK, ProxyServer, RawConnection, RawRequest
from nudgescribe_async.transport import Request
from nudgescribe_async.transport.aiohttp import AiohttpTransport

ServeApp = Callable[..., Awaitable[Any]]
ServeRaw = Callable[..., Awaitable[Any]]


def hello() -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({name.lower(): value for name, value in request.headers.items()})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return app


async def seen_headers(transport: AiohttpTransport, url: str, **headers: str) -> dict[str, str]:
    import json

    response = await transport.send(Request(method="GET", url=url, headers=headers))
    assert response.status == 200
    seen: dict[str, str] = json.loads(await response.read())
    return seen


# TLS


async def test_the_default_context_is_not_built_for_a_request(
    serve_app: ServeApp, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve_app(hello(), context=server_tls)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def built(*_: object, **__: object) -> ssl.SSLContext:
        raise AssertionError("16 ms on the event loop")

    monkeypatch.setattr(ssl, "create_default_context", built)
    async with AiohttpTransport() as transport:
        with pytest.raises(RequestNotSentError, match=r"certificate"):
            await transport.send(Request(method="PUT", url=str(server.make_url("/"))))


async def test_tls_connections_are_gone_when_closing_returns(
    serve_raw: ServeRaw, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """With every kind of end a connection can have. What is left behind is a ResourceWarning, an error here."""

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.target == "/silent":
            silent_arrived.set()
            await connection.gone()
        elif request.target == "/endless":
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                await connection.say(bytes(65536))
        else:
            await connection.say(OK)

    silent_arrived = asyncio.Event()
    server = await serve_raw(handler, tls=server_tls)
    transport = AiohttpTransport(ssl_context=client_tls)
    await (await transport.send(Request(method="GET", url=f"{server.url}/kept"))).read()
    silent = asyncio.create_task(transport.send(Request(method="GET", url=f"{server.url}/silent")))
    await silent_arrived.wait()
    silent.cancel()
    await asyncio.wait({silent})
    endless = await transport.send(Request(method="GET", url=f"{server.url}/endless"))
    await anext(aiter(endless.stream))
    await endless.aclose()
    with pytest.raises(OutcomeUnknownError):
        await transport.send(Request(method="GET", url=f"{server.url}/silent", read_timeout=0.01))
    await transport.aclose()
    assert not transport._sockets._open
    gc.collect()


# Proxies


@pytest.fixture
async def serve_proxy() -> AsyncIterator[Callable[..., Awaitable[tuple[ProxyServer, str]]]]:
    started: list[ProxyServer] = []

    async def serve() -> tuple[ProxyServer, str]:
        started.append(await ProxyServer().start())
        return started[-1], started[-1].address

    yield serve
    for proxy in started:
        await proxy.stop()


async def test_headers_for_the_proxy_go_to_the_proxy_alone(
    serve_app: ServeApp, serve_proxy: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = await serve_app(hello(), context=server_tls)
    proxy, address = await serve_proxy()
    async with AiohttpTransport(
        proxy=f"http://me:pass@{address}", proxy_headers={"X-Proxy": "1"}, ssl_context=client_tls
    ) as transport:
        assert "pass" not in repr(transport)
        seen = await seen_headers(transport, str(server.make_url("/")), Authorization="Bearer token")
    assert seen["authorization"] == "Bearer token"
    assert "proxy-authorization" not in seen
    assert "x-proxy" not in seen
    (asked,) = proxy.requests
    assert asked.line == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"
    assert asked.values("X-Proxy") == ["1"]
    assert "Bearer" not in asked.head


async def test_plain_http_passes_through_no_proxy_but_one_on_this_machine(
    serve_app: ServeApp, serve_proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve_app(hello())
    proxy, address = await serve_proxy()
    monkeypatch.setenv("http_proxy", f"http://{address}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with AiohttpTransport(trust_env=True) as transport:
        await seen_headers(transport, str(server.make_url("/")), Authorization="Bearer token")
    assert proxy.requests == []
    async with AiohttpTransport(proxy="http://proxy.example.com:3128") as transport:
        with pytest.raises(ConfigurationError, match="plain http is not sent through a proxy"):
            await transport.send(Request(method="GET", url=str(server.make_url("/"))))


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": "socks5://127.0.0.1:1"},
        {"proxy": "127.0.0.1:1"},
        {"proxy": "http://me:geheim@host:port"},
        {"proxy_headers": {"X": "1"}},
        {"proxy": "http://proxy:1", "proxy_headers": {"X": "geheim\n"}},
        {"limit": -1},
        {"limit_per_host": -1},
        {"keepalive_timeout": 0},
        {"read_buffer": 0},
    ],
    ids=str,
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AiohttpTransport(**options)
    assert "geheim" not in str(caught.value) + str(caught.value.__cause__)


# Sessions


async def test_a_given_session_is_used_and_left_open(serve_app: ServeApp) -> None:
    server = await serve_app(hello())
    async with aiohttp.ClientSession(headers={"X-Default": "1"}, raise_for_status=True) as session:
        transport = AiohttpTransport(session)
        assert (await seen_headers(transport, str(server.make_url("/"))))["x-default"] == "1"
        await transport.aclose()
        assert not session.closed
        with pytest.raises(ClientClosedError):
            await transport.send(Request(method="GET", url=str(server.make_url("/"))))


async def test_a_given_session_that_is_closed() -> None:
    session = aiohttp.ClientSession()
    transport = AiohttpTransport(session)
    await session.close()
    with pytest.raises(ClientClosedError, match=r"session"):
        await transport.send(Request(method="GET", url="http://127.0.0.1:9/"))
    await transport.aclose()


async def test_a_given_session_that_is_closed_meanwhile(serve_raw: ServeRaw) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        arrived.set()
        await connection.gone()

    arrived = asyncio.Event()
    server = await serve_raw(handler)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
    transport = AiohttpTransport(session)
    first = asyncio.create_task(transport.send(Request(method="PUT", url=server.url)))
    await arrived.wait()
    waiting = asyncio.create_task(transport.send(Request(method="PUT", url=server.url)))
    for _ in range(5):
        await asyncio.sleep(0)
    await session.close()
    with pytest.raises(OutcomeUnknownError):
        await first
    with pytest.raises(ClientClosedError, match=r"Nothing was sent"):
        await waiting


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proxy", "http://127.0.0.1:1"),
        ("proxy_headers", {"X": "1"}),
        ("trust_env", True),
        ("ssl_context", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)),
        ("limit", 5),
        ("limit_per_host", 5),
        ("keepalive_timeout", 1.0),
        ("read_buffer", 1),
    ],
)
async def test_a_session_and_its_settings_cannot_both_be_given(name: str, value: Any) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match=rf"^{name} cannot be given together with session"):
            AiohttpTransport(session, **{name: value})


async def test_a_session_with_credentials_of_its_own_is_refused_clearly(recwarn: pytest.WarningsRecorder) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # auth= is deprecated by aiohttp
        session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("me", "geheim"))
    async with session:
        with pytest.raises(ConfigurationError, match=r"auth="):
            await AiohttpTransport(session).send(
                Request(method="GET", url="http://127.0.0.1:9/", headers={"Authorization": "Bearer token"})
            )


async def test_concurrent_first_requests_make_one_session(serve_app: ServeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serve_app(hello())
    async with AiohttpTransport() as transport:
        made = []
        make = transport._new_session

        def counting() -> aiohttp.ClientSession:
            made.append(1)
            return make()

        monkeypatch.setattr(transport, "_new_session", counting)
        await asyncio.gather(*(seen_headers(transport, str(server.make_url("/"))) for _ in range(20)))
    assert made == [1]


async def test_a_transport_may_be_made_before_the_loop_runs() -> None:
    transport = await asyncio.to_thread(AiohttpTransport)
    assert transport._session is None
    await transport.aclose()


@pytest.mark.parametrize("option", ["limit", "limit_per_host"])
async def test_the_limit_is_kept(serve_app: ServeApp, option: str) -> None:
    at_once, most = 0, 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        for _turn in range(5):
            await asyncio.sleep(0)
        at_once -= 1
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    server = await serve_app(app)
    options: dict[str, Any] = {option: 3}
    async with AiohttpTransport(**options) as transport:

        async def one() -> None:
            await (await transport.send(Request(method="GET", url=str(server.make_url("/"))))).read()

        await asyncio.gather(*(one() for _ in range(30)))
    assert most <= 3


# Cancelling and closing


async def test_cancelling_while_names_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def never(*_: object, **__: object) -> Any:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    async with AiohttpTransport() as transport:
        sending = asyncio.create_task(transport.send(Request(method="PUT", url="http://slow.invalid/")))
        await asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelling_the_close_does_not_stop_it(serve_app: ServeApp) -> None:
    server = await serve_app(hello())
    transport = AiohttpTransport()
    await seen_headers(transport, str(server.make_url("/")))
    closing = asyncio.create_task(transport.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    await transport.aclose()
    assert not transport._sockets._open


async def test_closing_does_not_wait_for_a_server_that_took_nothing_of_an_upload(
    serve_raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nudgescribe_async.transport.aiohttp.CLOSE_GRACE", 1_000.0)

    async def deaf(*_: Any) -> None:
        await asyncio.Event().wait()

    server = await serve_raw(deaf, read_bodies=False)
    transport = AiohttpTransport()
    with pytest.raises(OutcomeUnknownError, match="took nothing more of the body"):
        await transport.send(Request(method="PUT", url=server.url, body=bytes(30_000_000), read_timeout=0.05))
    async with asyncio.timeout(10):
        await transport.aclose()


def test_closing_under_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop closes descriptors by itself and tells the socket with ``detach``."""
    uvloop = pytest.importorskip("uvloop")
    cut = []
    monkeypatch.setattr(socket.socket, "shutdown", lambda *_: cut.append(1))

    async def use() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, AiohttpTransport() as transport:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            await (await transport.send(Request(method="GET", url=url))).read()
            await transport.aclose()
            assert not transport._sockets._open

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()
        writer.close()

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(use())
    finally:
        loop.close()
    assert cut == []


def test_closing_after_the_loop_is_gone() -> None:
    async def use() -> AiohttpTransport:
        transport = AiohttpTransport()
        with pytest.raises(RequestNotSentError):
            await transport.send(Request(method="GET", url="http://127.0.0.1:9/"))
        return transport

    transport = asyncio.run(use())
    asyncio.run(transport.aclose())


def test_the_seam_does_not_load_aiohttp() -> None:
    import subprocess
    import sys

    code = "import sys, nudgescribe_async.transport; assert 'aiohttp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
