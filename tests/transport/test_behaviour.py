"""What the conformance suite does not ask of every transport: texts, and how an application is reached by both of aiohttp.

The suite itself runs in ``test_conformance.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from nudgescribe_async.errors import (
    ConfigurationError,
    OutcomeUnknownError,
)
from nudgescribe_async.transport import Request, StreamBody, Transport
from nudgescribe_async.transport.aiohttp import AiohttpTransport
from nudgescribe_async.transport.in_process import InProcessTransport

ServeApp = Callable[..., Awaitable[TestServer]]
Connect = Callable[[web.Application], Awaitable[tuple[Transport, str]]]
MEGABYTE = 1024 * 1024


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


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    seen = {f"seen-{name}": value for name, value in request.headers.items()}
    return web.Response(body=body, headers=seen | {"method": request.method, "target": request.raw_path})


def application(handler: Callable[[web.Request], Awaitable[web.StreamResponse]] = echo) -> web.Application:
    app = web.Application(client_max_size=1024 * MEGABYTE)
    app.router.add_route("*", "/{path:.*}", handler)
    return app


def chunks(*given: bytes) -> Callable[[], AsyncIterator[bytes]]:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in given:
            yield chunk

    return stream


@pytest.mark.parametrize(("length", "says"), [(3, "more than the 3 bytes"), (5, "4 bytes instead of the 5")])
async def test_a_stream_of_the_wrong_length_is_a_clear_error_and_no_whole_request(
    connect: Connect, length: int, says: str
) -> None:
    whole: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        with suppress(Exception):
            whole.append(await request.read())
        return web.Response()

    transport, url = await connect(application(handler))
    body = StreamBody(open=chunks(b"ab", b"cd"), length=length)
    with pytest.raises(ConfigurationError, match=says):
        await transport.send(Request(method="PUT", url=url, body=body))
    assert (await transport.send(Request(method="GET", url=url))).status == 200
    assert whole == [b""]  # the second request


@pytest.mark.parametrize("before", [0, 1, 300], ids=["at once", "after a chunk", "in the middle"])
async def test_what_the_stream_raises_comes_out_as_it_is(connect: Connect, before: int) -> None:
    transport, url = await connect(application())
    gone = FileNotFoundError("gone")
    closed = asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        try:
            for _ in range(before):
                yield b"x" * 10_000
            raise gone
        finally:
            closed.set()

    with pytest.raises(FileNotFoundError) as caught:
        await transport.send(Request(method="PUT", url=url, body=StreamBody(open=stream)))
    assert caught.value is gone
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert closed.is_set()
    assert (await transport.send(Request(method="GET", url=url))).status == 200


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00b", "Ελλάδα"])
async def test_a_header_that_cannot_be_sent_is_named_and_nothing_is_sent(connect: Connect, value: str) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    transport, url = await connect(application(handler))
    with pytest.raises(ConfigurationError, match="X-Name") as caught:
        await transport.send(Request(method="GET", url=url, headers={"X-Name": value}))
    assert value not in str(caught.value)
    assert seen == []


async def test_a_handler_that_fails_is_a_500(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(_: web.Request) -> web.Response:
        raise LookupError("inside")

    transport, url = await connect(application(handler))
    response = await transport.send(Request(method="GET", url=url))
    await response.aclose()
    assert response.status == 500
    assert "inside" in caplog.text


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_server_that_goes_away_without_an_answer(connect: Connect, how: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        getattr(request.transport, how)()
        return web.Response()

    transport, url = await connect(application(handler))
    with pytest.raises(OutcomeUnknownError, match=r"without a whole answer|the connection was lost"):
        await transport.send(Request(method="PUT", url=url))


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_server_that_goes_away_in_the_middle_of_its_answer(connect: Connect, how: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        await read_some.wait()
        assert request.transport is not None
        getattr(request.transport, how)()
        return response

    read_some = asyncio.Event()
    transport, url = await connect(application(handler))
    response = await transport.send(Request(method="GET", url=url))
    chunks_read = aiter(response.stream)
    assert await anext(chunks_read) == b"x" * 10
    read_some.set()
    with pytest.raises(OutcomeUnknownError):
        await anext(chunks_read)
    await response.aclose()


async def test_cancelling_while_waiting_for_the_answer_leaves_nothing(connect: Connect) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/slow":
            arrived.set()
            await release.wait()
        return web.Response()

    transport, url = await connect(application(handler))
    sending = asyncio.create_task(transport.send(Request(method="PUT", url=f"{url}/slow")))
    await arrived.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    release.set()
    assert (await transport.send(Request(method="GET", url=f"{url}/fast"))).status == 200


async def test_cancelling_an_upload_closes_its_stream(connect: Connect) -> None:
    started, closed, release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # closing a file takes a turn too
            closed.set()

    async def handler(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    transport, url = await connect(application(handler))
    sending = asyncio.create_task(transport.send(Request(method="PUT", url=url, body=StreamBody(open=upload))))
    await started.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert closed.is_set()
    release.set()


async def test_cancelling_while_reading_leaves_nothing(connect: Connect) -> None:
    release = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"some")
        if request.path == "/slow":
            await release.wait()
        return response

    transport, url = await connect(application(handler))
    response = await transport.send(Request(method="GET", url=f"{url}/slow"))
    reading = asyncio.create_task(response.read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    release.set()
    assert await (await transport.send(Request(method="GET", url=f"{url}/fast"))).read() == b"some"


async def test_connections_are_used_again_unless_a_body_was_left(connect: Connect) -> None:
    connections: set[int] = set()
    kept: list[object] = []

    async def handler(request: web.Request) -> web.Response:
        connections.add(id(request.transport))
        kept.append(request.transport)  # so that no id is used twice
        return web.Response(body=bytes(10 * MEGABYTE) if request.path == "/large" else b"small")

    transport, url = await connect(application(handler))
    for _ in range(5):
        await (await transport.send(Request(method="PUT", url=url, body=b"x"))).read()
    assert len(connections) == 1
    response = await transport.send(Request(method="GET", url=f"{url}/large"))
    await response.aclose()
    await (await transport.send(Request(method="GET", url=url))).read()
    assert len(connections) == 2


def test_a_request_with_a_broken_url_can_be_shown() -> None:
    assert "geheim" not in repr(Request(method="GET", url="https://[geheim"))
