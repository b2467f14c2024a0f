"""What every transport does. It runs over all that this package brings."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from aiohttp import web

from nudgescribe_async.errors import (
    ClientClosedError,
    ConfigurationError,
    OutcomeUnknownError,
    RequestNotSentError,
    ResponseDecodeError,
)
from nudgescribe_async.transport import Request, StreamBody, Transport
from nudgescribe_async.transport.aiohttp import AiohttpTransport
from nudgescribe_async.transport.in_process import InProcessTransport

Connect = Callable[[web.Application], Awaitable[tuple[Transport, str]]]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
MEGABYTE = 1024 * 1024


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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "body", [None, b"", b"some bytes", b"x" * (2 * MEGABYTE)], ids=["none", "empty", "small", "large"]
)
async def test_bytes_arrive_and_come_back(connect: Connect, method: str, body: bytes | None) -> None:
    transport, url = await connect(application())
    response = await transport.send(Request(method=method, url=f"{url}/a", body=body))
    assert response.status == 200
    assert response.headers["METHOD"] == method
    assert await response.read() == (body or b"")


@pytest.mark.parametrize("method", METHODS)
async def test_a_stream_with_a_length_is_sent_with_its_length(connect: Connect, method: str) -> None:
    transport, url = await connect(application())
    body = StreamBody(open=chunks(b"ab", b"", b"cd"), length=4)
    response = await transport.send(Request(method=method, url=url, body=body))
    assert await response.read() == b"abcd"
    assert response.headers["seen-content-length"] == "4"
    assert "seen-transfer-encoding" not in response.headers


async def test_a_stream_without_a_length_is_sent_in_chunks(connect: Connect) -> None:
    transport, url = await connect(application())
    response = await transport.send(Request(method="PUT", url=url, body=StreamBody(open=chunks(b"ab", b"cd"))))
    assert await response.read() == b"abcd"
    assert response.headers["seen-transfer-encoding"] == "chunked"
    assert "seen-content-length" not in response.headers


async def test_a_request_can_be_sent_again_with_the_same_body(connect: Connect) -> None:
    transport, url = await connect(application())
    request = Request(method="POST", url=url, body=StreamBody(open=chunks(b"ab", b"cd"), length=4))
    for _ in range(3):
        assert await (await transport.send(request)).read() == b"abcd"


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


async def test_opening_the_stream_may_fail(connect: Connect) -> None:
    transport, url = await connect(application())

    def opened() -> AsyncIterator[bytes]:
        raise PermissionError("no")

    with pytest.raises(PermissionError, match="no"):
        await transport.send(Request(method="PUT", url=url, body=StreamBody(open=opened)))


@pytest.mark.parametrize("status", [200, 204, 301, 302, 303, 307, 308, 304, 400, 401, 403, 404, 429, 500, 503])
async def test_a_status_is_never_an_exception_and_redirects_are_not_followed(connect: Connect, status: int) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    transport, url = await connect(application(handler))
    async with await transport.send(Request(method="GET", url=f"{url}/here")) as response:
        assert response.status == status
        assert response.headers["location"] == "/elsewhere"
    assert seen == ["/here"]


async def test_no_cookie_is_kept(connect: Connect) -> None:
    cookies: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        response = web.Response()
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    transport, url = await connect(application(handler))
    for _ in range(2):
        response = await transport.send(Request(method="GET", url=url))
        await response.aclose()
        assert response.headers["Set-Cookie"] == "a=1; Path=/, b=2; Path=/"
    assert cookies == [None, None]


async def test_headers_and_url_are_sent_as_they_are(connect: Connect) -> None:
    transport, url = await connect(application())
    signed = "/x%2Fy?signature=a%2Bb%3D&empty=&space=%20&plus=+"
    response = await transport.send(Request(method="POST", url=url + signed, headers={"X-One": "1, 2"}, body=b"{}"))
    await response.aclose()
    assert response.headers["target"] == signed
    assert response.headers["seen-x-one"] == "1, 2"
    assert "seen-content-type" not in response.headers


async def test_a_compressed_answer_is_decompressed(connect: Connect) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b"rows" * 1000), headers={"Content-Encoding": "gzip"})

    transport, url = await connect(application(handler))
    assert await (await transport.send(Request(method="GET", url=url))).read() == b"rows" * 1000


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


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"bad name": "1"}},
        {"headers": {"": "1"}},
        {"headers": {"X-Number": 1}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"Content-Length": "7"}},
        {"method": "GE T"},
        {"body": "text"},
        {"connect_timeout": 0},
        {"read_timeout": -1},
    ],
    ids=str,
)
async def test_what_cannot_be_sent_is_a_configuration_error(connect: Connect, changes: dict[str, object]) -> None:
    transport, url = await connect(application())
    with pytest.raises(ConfigurationError):
        await transport.send(Request(**({"method": "GET", "url": url} | changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/relative",
        "ftp://host/",
        "https://",
        "https://host:port/",
        "https://u:geheim@host/",
        "https://h/a b",
        "https://h/\r\nX: 1",
    ],
)
async def test_a_url_that_cannot_be_used_is_not_repeated(connect: Connect, url: str) -> None:
    transport, _ = await connect(application())
    with pytest.raises(ConfigurationError, match="URL") as caught:
        await transport.send(Request(method="GET", url=url))
    assert "geheim" not in str(caught.value)


async def test_large_bodies_flow_both_ways(connect: Connect) -> None:
    size = 50 * MEGABYTE
    block = bytes(256 * 1024)

    async def handler(request: web.Request) -> web.StreamResponse:
        received = 0
        async for chunk in request.content.iter_any():
            received += len(chunk)
        response = web.StreamResponse(headers={"received": str(received)})
        await response.prepare(request)
        for _ in range(size // len(block)):
            await response.write(block)
        return response

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(size // len(block)):
            yield block

    transport, url = await connect(application(handler))
    response = await transport.send(Request(method="PUT", url=url, body=StreamBody(open=upload, length=size)))
    assert response.headers["received"] == str(size)
    received = 0
    async for chunk in response.stream:
        received += len(chunk)
    await response.aclose()
    assert received == size


async def test_a_slow_reader_holds_up_the_sender(connect: Connect) -> None:
    sent = 0
    block = bytes(64 * 1024)
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await go_on.wait()
        received = 0
        async for chunk in request.content.iter_any():
            received += len(chunk)
        return web.Response(text=str(received))

    stalled = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1600):
            sent += len(block)
            yield block

    async def watch() -> None:
        before = -1
        while before != sent or not sent:  # until nothing more is taken
            before = sent
            for _ in range(200):
                await asyncio.sleep(0)
        stalled.set()

    transport, url = await connect(application(handler))
    sending = asyncio.create_task(transport.send(Request(method="PUT", url=url, body=StreamBody(open=upload))))
    await watch()
    assert sent < 40 * MEGABYTE
    go_on.set()
    assert await (await sending).read() == str(1600 * len(block)).encode()


async def test_two_hundred_at_once(connect: Connect) -> None:
    transport, url = await connect(application())

    async def one(number: int) -> bool:
        body = str(number).encode() * 100
        return await (await transport.send(Request(method="PUT", url=url, body=body))).read() == body

    assert all(await asyncio.gather(*(one(number) for number in range(200))))


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


async def test_an_answer_before_the_end_of_the_upload_comes_out(connect: Connect) -> None:
    closed = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(64 * 1024)
        finally:
            closed.set()

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=413, text="too large")

    transport, url = await connect(application(handler))
    response = await transport.send(Request(method="PUT", url=url, body=StreamBody(open=upload)))
    assert response.status == 413
    assert await response.read() == b"too large"
    assert closed.is_set()
    assert (await transport.send(Request(method="GET", url=url))).status == 413


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


async def test_a_limit_ends_the_reading(connect: Connect) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=bytes(MEGABYTE))

    transport, url = await connect(application(handler))
    response = await transport.send(Request(method="GET", url=url))
    with pytest.raises(ResponseDecodeError, match="longer"):
        await response.read(limit=1000)
    await response.aclose()
    with pytest.raises(OutcomeUnknownError):
        await anext(aiter(response.stream))


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


async def test_closing(connect: Connect) -> None:
    transport, url = await connect(application())
    await (await transport.send(Request(method="GET", url=url))).read()
    await asyncio.gather(transport.aclose(), transport.aclose())
    await transport.aclose()
    with pytest.raises(ClientClosedError):
        await transport.send(Request(method="GET", url=url))


async def test_closing_before_the_first_request(connect: Connect) -> None:
    transport, url = await connect(application())
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ClientClosedError):
        await transport.send(Request(method="GET", url=url))


async def test_closing_cuts_off_what_is_on_its_way(connect: Connect) -> None:
    arrived = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    transport, url = await connect(application(handler))
    sending = asyncio.create_task(transport.send(Request(method="PUT", url=url)))
    await arrived.wait()
    await transport.aclose()
    with pytest.raises(OutcomeUnknownError):
        await sending


@pytest.mark.parametrize(
    "make", [AiohttpTransport, lambda: InProcessTransport(application())], ids=["aiohttp", "in_process"]
)
def test_another_event_loop_is_refused(make: Callable[[], Transport]) -> None:
    transport = make()
    request = Request(method="GET", url="http://127.0.0.1:1/")

    async def first() -> None:
        with suppress(RequestNotSentError):
            await transport.send(request)

    async def second() -> None:
        with pytest.raises(ConfigurationError, match="event loop"):
            await transport.send(request)
        with pytest.raises(ConfigurationError, match="event loop"):
            await transport.aclose()

    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        one.run_until_complete(first())
        other.run_until_complete(second())
        one.run_until_complete(transport.aclose())
    finally:
        one.close()
        other.close()


async def test_they_are_transports(connect: Connect) -> None:
    transport, _ = await connect(application())
    assert isinstance(transport, Transport)


def test_a_request_with_a_broken_url_can_be_shown() -> None:
    assert "geheim" not in repr(Request(method="GET", url="https://[geheim"))
