"""Answers that come while the stream of an upload is silent, which httpx does not look for by itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("httpx")

from nudgescribe_async.errors import OutcomeUnknownError
from nudgescribe_async.testing.conformance._servers import (
    ProxyServer,
    RawConnection,
    RawHandler,
    RawRequest,
    http,
)
from nudgescribe_async.transport import Request, Response, StreamBody
from nudgescribe_async.transport.httpx import HttpxTransport

ServeRaw = Callable[..., Awaitable[Any]]

TOO_LARGE = http(413, b"too large")  # without "Connection: close", so it is the client that must not use it again


async def turns(count: int) -> None:
    """Let the event loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


class Upload:
    """A body that gives some pieces and then nothing more, until it is told to go on.

    Attributes:
        waits: it gives nothing more.
        go_on: let it end.
        closed: it was closed, or has ended.
    """

    def __init__(self, *pieces: bytes, length: int | None = None, closing: int = 5) -> None:
        self._closing = closing
        self.body = StreamBody(open=self._open, length=length)
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()
        self.closed = asyncio.Event()
        self._pieces = pieces

    async def _open(self) -> AsyncIterator[bytes]:
        try:
            for piece in self._pieces:
                yield piece
            self.waits.set()
            await self.go_on.wait()
            yield b"last"
        finally:
            await turns(self._closing)  # as what there is to close would take
            self.closed.set()


def begun_by(*pieces: bytes) -> RawHandler:
    """What answers "too large" to ``/upload`` when the pieces are here, and waits for the client to go."""

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.target == "/upload":
            for piece in pieces:
                await connection.reader.readuntil(piece)
            await connection.say(TOO_LARGE)
            await connection.gone()
            connection.close()
        else:
            await connection.say(http(200, b"ok"))

    return handler


async def silent(_: RawRequest, connection: RawConnection) -> None:
    """Says nothing, and waits for the client to go."""
    await connection.gone()
    connection.close()


async def put(transport: HttpxTransport, url: str, body: StreamBody) -> Response:
    async with asyncio.timeout(10):  # in place of for ever
        return await transport.send(Request(method="PUT", url=f"{url}/upload", body=body))


async def answer_of(transport: HttpxTransport, url: str, upload: Upload) -> tuple[int, bytes]:
    response = await put(transport, url, upload.body)
    assert upload.closed.is_set()
    return response.status, await response.read()


async def fetched(transport: HttpxTransport, url: str) -> bytes:
    async with await transport.send(Request(method="GET", url=f"{url}/ok")) as response:
        return await response.read()


@pytest.mark.parametrize("length", [None, 1_000])
@pytest.mark.parametrize("pieces", [(), (b"one",), (b"one", b"two", b"three")], ids=len)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_answer_comes_out_while_the_stream_is_silent(
    serve_raw: ServeRaw,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    scheme: str,
    pieces: tuple[bytes, ...],
    length: int | None,
) -> None:
    server = await serve_raw(begun_by(*pieces), tls=server_tls if scheme == "https" else None, read_bodies=False)
    async with HttpxTransport(ssl_context=client_tls, limit=1) as transport:
        for _ in range(2):
            assert await answer_of(transport, server.url, Upload(*pieces, length=length)) == (413, b"too large")
        assert await fetched(transport, server.url) == b"ok"
    assert server.connections == 3


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_through_a_proxy(
    serve_raw: ServeRaw, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, scheme: str
) -> None:
    server = await serve_raw(begun_by(b"one"), tls=server_tls if scheme == "https" else None, read_bodies=False)
    proxy = await ProxyServer().start()
    try:
        async with HttpxTransport(ssl_context=client_tls, proxy=f"http://{proxy.address}") as transport:
            assert await answer_of(transport, server.url, Upload(b"one")) == (413, b"too large")
            assert await fetched(transport, server.url) == b"ok"
    finally:
        await proxy.stop()
    assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    "said",
    [
        [b"HTTP/1.1 102 Processing\r\n\r\n", TOO_LARGE],
        [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + TOO_LARGE],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTT", b"P/1.1 1", b"02 Processing\r\nX-A: 1\r\n", b"\r\n" + TOO_LARGE],
        [TOO_LARGE[:3], TOO_LARGE[3:40], TOO_LARGE[40:]],
    ],
    ids=["before", "together", "in parts", "slowly"],
)
async def test_informational_answers_come_before_it(serve_raw: ServeRaw, said: list[bytes]) -> None:
    async def handler(request: RawRequest, connection: RawConnection) -> None:
        assert request.target == "/upload"
        await connection.reader.readuntil(b"one")
        for part in said:
            await connection.say(part)
            await turns(10)  # so that they come one by one
        await connection.gone()
        connection.close()

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        assert await answer_of(transport, server.url, Upload(b"one")) == (413, b"too large")


async def test_an_informational_answer_alone_ends_nothing(serve_raw: ServeRaw) -> None:
    upload = Upload(b"one")

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        await connection.say(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 10")
        await upload.waits.wait()
        await turns(10)
        await connection.say(b"2 Processing\r\n\r\n")
        await turns(10)
        upload.go_on.set()
        body = b"".join([piece async for piece in connection.body(request)])
        await connection.say(http(200, body))

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        for _ in range(2):
            assert await answer_of(transport, server.url, upload) == (200, b"onelast")
    assert server.connections == 1


async def test_a_server_that_goes_away(serve_raw: ServeRaw) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.reader.readuntil(b"one")
        connection.close()

    server = await serve_raw(handler, read_bodies=False)
    upload = Upload(b"one")
    async with HttpxTransport() as transport:
        with pytest.raises(OutcomeUnknownError, match="closed without a whole answer"):
            await put(transport, server.url, upload.body)
    assert upload.closed.is_set()


@pytest.mark.parametrize("after", range(8))
async def test_an_answer_that_comes_just_before_a_piece(serve_raw: ServeRaw, after: int) -> None:
    """It may be heard while the piece is written, which is small."""

    async def body() -> AsyncIterator[bytes]:
        await server.found.wait()
        server.open_connections[0].writer.write(TOO_LARGE)
        await turns(after)
        yield b"one"
        await asyncio.Event().wait()

    server = await serve_raw(silent, read_bodies=False)
    async with HttpxTransport() as transport:
        response = await put(transport, server.url, StreamBody(open=body))
        assert (response.status, await response.read()) == (413, b"too large")


async def test_a_head_without_end(serve_raw: ServeRaw) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(b"HTTP/1.1 102 Processing\r\nX-A: " + bytes([65]) * 200_000)
        await connection.gone()
        connection.close()

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        with pytest.raises(OutcomeUnknownError, match="not valid HTTP"):
            await put(transport, server.url, Upload(b"one").body)


async def test_another_protocol_that_nobody_asked_for(serve_raw: ServeRaw) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        await connection.gone()
        connection.close()

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        with pytest.raises(OutcomeUnknownError):
            await put(transport, server.url, Upload(b"one").body)


async def test_an_answer_that_never_ends(serve_raw: ServeRaw) -> None:
    """Once it has begun, it is the server's turn."""

    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(TOO_LARGE[:20])
        await connection.gone()
        connection.close()

    server = await serve_raw(handler, read_bodies=False)
    upload = Upload(b"one")
    async with HttpxTransport() as transport:
        with pytest.raises(OutcomeUnknownError, match=r"sent nothing for 0\.05 s"):
            await transport.send(Request(method="PUT", url=server.url, body=upload.body, read_timeout=0.05))
    assert upload.closed.is_set()


@pytest.mark.parametrize("known", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("last", [b"last", b""])
@pytest.mark.parametrize("first", [b"one", b""])
async def test_a_stream_that_ends_when_it_is_cut_off_makes_no_whole_request(
    serve_raw: ServeRaw, first: bytes, last: bytes, known: bool
) -> None:
    rest: list[bytes] = []

    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.reader.readexactly(0 if not first else len(first) if known else len(b"3\r\none"))
        await connection.say(TOO_LARGE)
        rest.append(await connection.reader.read())
        connection.close()

    async def body() -> AsyncIterator[bytes]:
        yield first
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield last

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        response = await put(
            transport, server.url, StreamBody(open=body, length=len(first + b"last") if known else None)
        )
        assert (response.status, await response.read()) == (413, b"too large")
        await server.lost.wait()
    assert rest[0].strip() == b""


async def test_what_a_stream_raises_because_it_is_cut_off_hides_no_answer(serve_raw: ServeRaw) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise FileNotFoundError from None

    server = await serve_raw(begun_by(b"one"), read_bodies=False)
    async with HttpxTransport() as transport:
        response = await put(transport, server.url, StreamBody(open=body))
        assert (response.status, await response.read()) == (413, b"too large")


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), TimeoutError("gone"), StopAsyncIteration("gone")])
async def test_an_error_of_the_stream_itself_comes_out_as_it_is(serve_raw: ServeRaw, error: Exception) -> None:
    class Failing:
        def __init__(self) -> None:
            self.given = False

        def __aiter__(self) -> Failing:
            return self

        async def __anext__(self) -> bytes:
            if not self.given:
                self.given = True
                return b"one"
            await asyncio.sleep(0)
            raise error

    server = await serve_raw(silent, read_bodies=False)
    async with HttpxTransport() as transport:
        if isinstance(error, StopAsyncIteration):  # which ends the body
            with pytest.raises(OutcomeUnknownError):
                await transport.send(
                    Request(method="PUT", url=server.url, body=StreamBody(open=Failing), read_timeout=0.05)
                )
        else:
            with pytest.raises(type(error)) as caught:
                await put(transport, server.url, StreamBody(open=Failing))
            assert caught.value is error
        await server.lost.wait()


async def test_who_is_cancelled_while_the_stream_is_silent(serve_raw: ServeRaw) -> None:
    server = await serve_raw(silent, read_bodies=False)
    upload = Upload(b"one")
    async with HttpxTransport(limit=1) as transport:
        sending = asyncio.create_task(put(transport, server.url, upload.body))
        await upload.waits.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert upload.closed.is_set()
        await server.lost.wait()


async def test_an_answer_does_not_disturb_a_stream_that_is_closed(serve_raw: ServeRaw) -> None:
    """It was cancelled once, and is not cancelled again for an answer of which nobody will know."""

    waits, closed = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        try:
            waits.set()
            await asyncio.Event().wait()
        finally:
            server.open_connections[0].writer.write(TOO_LARGE)
            await turns(20)
            closed.set()

    server = await serve_raw(silent, read_bodies=False)
    async with HttpxTransport() as transport:
        sending = asyncio.create_task(put(transport, server.url, StreamBody(open=body)))
        await waits.wait()
        await server.found.wait()
        sending.cancel()
        await asyncio.wait({sending})
        assert sending.cancelled()
        assert closed.is_set()


@pytest.mark.parametrize("after", range(12))
async def test_who_is_cancelled_when_the_answer_comes(serve_raw: ServeRaw, after: int) -> None:
    """The cancellation comes out, or the answer; never an error, and nothing is left."""
    answered = asyncio.Event()

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.target == "/upload":
            await connection.reader.readuntil(b"one")
            connection.writer.write(TOO_LARGE)
            answered.set()
            await connection.gone()
            connection.close()
        else:
            await connection.say(http(200, b"ok"))

    server = await serve_raw(handler, read_bodies=False)
    upload = Upload(b"one", closing=0)  # it may be cancelled twice
    async with HttpxTransport(limit=1) as transport:
        sending = asyncio.create_task(put(transport, server.url, upload.body))
        await answered.wait()
        await turns(after)
        sending.cancel()
        await asyncio.wait({sending})
        assert upload.closed.is_set()
        if not sending.cancelled():
            await sending.result().aclose()
        assert await fetched(transport, server.url) == b"ok"
    assert server.connections == 2


async def test_closing_the_transport_while_the_stream_is_silent(serve_raw: ServeRaw) -> None:
    server = await serve_raw(silent, read_bodies=False)
    upload = Upload(b"one")
    async with HttpxTransport() as transport:
        sending = asyncio.create_task(put(transport, server.url, upload.body))
        await upload.waits.wait()
    with pytest.raises(OutcomeUnknownError):
        await sending
    assert upload.closed.is_set()


@pytest.mark.parametrize("length", [None, 7])
async def test_after_a_silence_the_upload_goes_on_and_the_connection_is_kept(
    serve_raw: ServeRaw, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, length: int | None
) -> None:
    async def handler(request: RawRequest, connection: RawConnection) -> None:
        await connection.say(http(200, b"".join([piece async for piece in connection.body(request)])))

    server = await serve_raw(handler, tls=server_tls, read_bodies=False)
    async with HttpxTransport(ssl_context=client_tls) as transport:
        for _ in range(3):
            upload = Upload(b"one", length=length)
            sending = asyncio.create_task(answer_of(transport, server.url, upload))
            await upload.waits.wait()
            await asyncio.sleep(0)
            upload.go_on.set()
            assert await sending == (200, b"onelast")
    assert server.connections == 1


async def test_when_all_tasks_are_cancelled_at_once_nobody_complains(serve_raw: ServeRaw) -> None:
    """As at the end of ``asyncio.run``: the one that listens is among them."""

    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    server = await serve_raw(silent, read_bodies=False)
    upload = Upload(b"one")
    others = asyncio.all_tasks()
    async with HttpxTransport() as transport:
        sending = asyncio.create_task(put(transport, server.url, upload.body))
        await upload.waits.wait()
        await server.found.wait()
        of_the_upload = asyncio.all_tasks() - others - server.tasks
        assert len(of_the_upload) == 2
        for task in of_the_upload:
            task.cancel()
        await asyncio.wait(of_the_upload)
        assert sending.cancelled()
        assert upload.closed.is_set()
        await server.lost.wait()
    assert complaints == []


async def test_a_stream_that_sends_requests_itself(serve_raw: ServeRaw) -> None:
    """Each body listens to its own connection, though both are of one task."""
    inner = asyncio.Event()

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.target == "/ok":
            await connection.say(http(200, b"ok"))
        else:
            await connection.reader.readuntil(b"ok")
            await connection.reader.readuntil(b"ok")
            inner.set()
            await connection.say(TOO_LARGE)
            await connection.gone()
            connection.close()

    server = await serve_raw(handler, read_bodies=False)

    async def body() -> AsyncIterator[bytes]:
        yield await fetched(transport, server.url)
        yield await fetched(transport, server.url)
        await inner.wait()
        await asyncio.Event().wait()

    async with HttpxTransport() as transport:
        response = await put(transport, server.url, StreamBody(open=body))
        assert (response.status, await response.read()) == (413, b"too large")


async def test_a_stream_may_hold_a_limit_of_time_from_piece_to_piece(serve_raw: ServeRaw) -> None:
    """It is asked for its pieces by one task."""
    tasks: set[Any] = set()

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        await connection.say(http(200, b"".join([piece async for piece in connection.body(request)])))

    async def body() -> AsyncIterator[bytes]:
        async with asyncio.timeout(10):
            for _ in range(3):
                tasks.add(asyncio.current_task())
                await asyncio.sleep(0)
                yield b"piece"

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        assert await (await transport.send(Request(method="PUT", url=server.url, body=StreamBody(open=body)))).read()
    assert len(tasks) == 1
