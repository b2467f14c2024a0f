"""Rules about the body of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import sha256
from typing import Final

from aiohttp import web

from nudgescribe_async.errors import ConfigurationError, OutcomeUnknownError
from nudgescribe_async.testing.conformance._bench import (
    Bench,
    Upload,
    chunks,
    expect,
    settle,
    soon,
    standstill,
)
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import RawConnection, RawRequest, http, say_ok
from nudgescribe_async.testing.conformance._values import BrokenPromiseError, Need
from nudgescribe_async.transport import Request, StreamBody, Transport

__all__ = ["BOOK", "METHODS"]

BOOK: Final = RuleBook("bodies")
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
MEGABYTE: Final = 2**20


async def echo(request: web.Request) -> web.Response:
    """Sends back what came, and how it came."""
    body = await request.read()
    framing = {
        name: request.headers[header]
        for name, header in (("X-Length", "Content-Length"), ("X-Encoding", "Transfer-Encoding"))
        if header in request.headers
    }
    return web.Response(body=body, headers=framing | {"X-Method": request.method})


async def _expect_framing(transport: Transport, request: Request, *, length: str | None, encoding: str | None) -> None:
    """Send the body ``b"abcd"`` to ``echo``, and look whether it came with these headers."""
    async with await transport.send(request) as response:
        expect(await response.read() == b"abcd", f"{request.method}: the body did not arrive as it was.")
        for name, header, wanted in (
            ("X-Length", "Content-Length", length),
            ("X-Encoding", "Transfer-Encoding", encoding),
        ):
            got = response.headers.get(name)
            expect(got == wanted, f"{request.method}: {header} was {got} instead of {wanted}.")


async def _returned(transport: Transport, request: Request, what: str) -> None:
    """Send a body to ``echo``, and look whether it comes back."""
    async with await transport.send(request) as response:
        body = await response.read()
        method = response.headers.get("X-Method")
        expect(response.status == 200, f"{what}: the answer had the status {response.status}.")
        expect(method == request.method, f"{what}: it arrived as {method}.")
        sent = request.body if isinstance(request.body, bytes) else b""
        expect(body == sent, f"{what}: of {len(sent):,} bytes that were sent, other {len(body):,} arrived.")


@BOOK.rule("Every method can carry a body of bytes, GET and DELETE too, or none.")
async def every_method(bench: Bench) -> None:
    transport, url = await bench.application(echo)
    for method in METHODS:
        for body in (None, b"", b"some bytes", b"x" * 300_000):
            size = "no body" if body is None else f"{len(body):,} bytes"
            await _returned(transport, Request(method=method, url=f"{url}/a", body=body), f"{method} with {size}")


@BOOK.rule("A large body arrives whole, and so does a large answer.")
async def large(bench: Bench) -> None:
    block, count = bytes(range(256)) * 1024, 48

    async def handler(request: web.Request) -> web.StreamResponse:
        received = sha256()
        async for chunk in request.content.iter_any():
            received.update(chunk)
        response = web.StreamResponse(headers={"X-Sum": received.hexdigest()})
        await response.prepare(request)
        for _ in range(count):
            await response.write(block)
        return response

    transport, url = await bench.application(handler)
    whole = sha256(block * count).hexdigest()
    upload = StreamBody(open=chunks(*[block] * count), length=len(block) * count)
    for body, what in ((upload, "a stream"), (block * count, "bytes")):
        async with await transport.send(Request(method="PUT", url=url, body=body)) as response:
            expect(response.headers.get("X-Sum") == whole, f"12 MiB sent as {what} did not arrive whole.")
            received = sha256()
            async for chunk in response.stream:
                received.update(chunk)
            expect(received.hexdigest() == whole, "An answer of 12 MiB did not arrive whole.")


@BOOK.rule("A stream of known length is sent with Content-Length, whatever the method.")
async def with_length(bench: Bench) -> None:
    transport, url = await bench.application(echo)
    for method in METHODS:
        body = StreamBody(open=chunks(b"ab", b"", b"cd"), length=4)
        await _expect_framing(transport, Request(method=method, url=url, body=body), length="4", encoding=None)


@BOOK.rule("A stream of unknown length is sent in chunks, whatever the method.")
async def without_length(bench: Bench) -> None:
    transport, url = await bench.application(echo)
    for method in METHODS:
        body = StreamBody(open=chunks(b"ab", b"cd"))
        await _expect_framing(transport, Request(method=method, url=url, body=body), length=None, encoding="chunked")


@BOOK.rule("An empty chunk in a stream does not end the body.")
async def empty_chunks(bench: Bench) -> None:
    transport, url = await bench.application(echo)
    body = StreamBody(open=chunks(b"", b"ab", b"", b"", b"cd", b""))
    got = await bench.fetch(transport, Request(method="POST", url=url, body=body))
    expect(got == b"abcd", f"Of b'abcd', with empty chunks between, {got!r} arrived.")


@BOOK.rule("Each send opens the body anew, once, so that a request can be sent again.")
async def opened_anew(bench: Bench) -> None:
    transport, url = await bench.application(echo)
    upload = Upload(b"ab", count=2)
    request = Request(method="POST", url=url, body=upload.body(4))
    for number in (1, 2, 3):
        got = await bench.fetch(transport, request)
        expect(got == b"abab", f"Send {number}: of b'abab', {got!r} arrived.")
        expect(upload.opened == number, f"After {number} sends the body had been opened {upload.opened} times.")


@BOOK.rule("The stream of a body is closed when the request has been sent.")
async def closed(bench: Bench) -> None:
    class Stream:
        """An iterator and no generator: nothing closes it by itself."""

        def __init__(self) -> None:
            self.left, self.closed = [b"ab", b"cd"], False

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

        async def aclose(self) -> None:
            self.closed = True

    transport, url = await bench.application(echo)
    stream = Stream()
    body = StreamBody(open=lambda: stream, length=4)
    got = await bench.fetch(transport, Request(method="PUT", url=url, body=body))
    expect(got == b"abcd", f"Of b'abcd', {got!r} arrived.")
    expect(stream.closed, "The request was answered, and aclose() of the stream of its body was not called.")


@BOOK.rule("A chunk is sent before the next one is asked for: a body is never collected first.")
async def streamed(bench: Bench) -> None:
    arrived = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        body = b""
        async for chunk in request.content.iter_any():
            body += chunk
            arrived.set()
        return web.Response(body=body)

    async def stream() -> AsyncIterator[bytes]:
        yield b"first"
        try:
            async with soon():
                await arrived.wait()
        except TimeoutError:
            raise BrokenPromiseError(
                "The second chunk was asked for, and the server still does not have the first one."
            ) from None
        yield b"second"

    transport, url = await bench.application(handler)
    got = await bench.fetch(transport, Request(method="PUT", url=url, body=StreamBody(open=stream)))
    expect(got == b"firstsecond", f"Of b'firstsecond', {got!r} arrived.")


@BOOK.rule("A server that reads slowly holds up the stream of the body.")
async def held_up(bench: Bench) -> None:
    go_on = asyncio.Event()
    upload = Upload(bytes(64 * 1024), count=640)

    async def handler(request: web.Request) -> web.Response:
        await go_on.wait()
        received = 0
        async for chunk in request.content.iter_any():
            received += len(chunk)
        return web.Response(text=str(received))

    transport, url = await bench.application(handler)
    sending = bench.start(transport.send(Request(method="PUT", url=url, body=upload.body())))
    await standstill(lambda: upload.asked)
    expect(
        upload.asked < 400,
        f"The server read nothing, and {upload.asked} chunks of 64 KiB of 640 were taken: they must be in memory.",
    )
    go_on.set()
    got = await (await sending).read()
    expect(got == str(640 * 64 * 1024).encode(), f"Of {640 * 64 * 1024} bytes {got.decode()} arrived.")


@BOOK.rule("What the stream of a body raises comes out of send as it is, and the server sees no whole request.")
async def error_of_the_stream(bench: Bench) -> None:
    whole: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        with suppress(Exception):
            await request.read()
            whole.append(request.path)
        return web.Response()

    transport, url = await bench.application(handler)
    for length in (None, 10_000_000):
        for count in (0, 1, 300):
            gone = FileNotFoundError("gone")
            upload = Upload(bytes(10_000), count=count, error=gone)
            when = f"A stream {'without' if length is None else 'with'} a length that fails after {count} chunks"
            with bench.expect_error(FileNotFoundError, when) as caught:
                await transport.send(Request(method="PUT", url=f"{url}/failing", body=upload.body(length)))
            expect(caught.error is gone, f"{when}: another FileNotFoundError came out of send.")
            expect(upload.closed.is_set(), f"{when}: it was not closed when send raised.")
    await bench.fetch(transport, Request(method="GET", url=f"{url}/after"))
    expect(whole == ["/after"], "The server took a body whose stream had failed for a whole one.")


@BOOK.rule("What opening a body raises comes out of send as it is.")
async def error_of_opening(bench: Bench) -> None:
    denied = PermissionError("no")

    def opened() -> AsyncIterator[bytes]:
        raise denied

    transport, url = await bench.application(echo)
    with bench.expect_error(PermissionError, "A body that cannot be opened") as caught:
        await transport.send(Request(method="PUT", url=url, body=StreamBody(open=opened)))
    expect(caught.error is denied, "Another PermissionError came out of send.")
    await bench.fetch(transport, Request(method="GET", url=url))


@BOOK.rule("A stream that gives more or less than its length is a ConfigurationError, and never a whole request.")
async def wrong_length(bench: Bench) -> None:
    whole: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        with suppress(Exception):
            whole.append(await request.read())
        return web.Response()

    transport, url = await bench.application(handler)
    for length, given in ((3, (b"ab", b"cd")), (4, (b"ab", b"cd", b"e")), (5, (b"ab", b"cd")), (1, (b"",))):
        size = sum(map(len, given))
        with bench.expect_error(ConfigurationError, f"A stream of {size} bytes with the length {length}"):
            body = StreamBody(open=chunks(*given), length=length)
            await transport.send(Request(method="PUT", url=url, body=body))
    await settle()
    expect(whole == [], f"Streams that did not have the length that they announced reached the server as {whole}.")
    await bench.fetch(transport, Request(method="GET", url=url))


@BOOK.rule("An answer that comes before the end of the upload comes out, and the stream of the body is closed.")
async def answered_early(bench: Bench) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=413, text="too large")

    transport, url = await bench.application(handler)
    upload = Upload(bytes(64 * 1024), count=10**9)
    response = await transport.send(Request(method="PUT", url=url, body=upload.body()))
    expect(response.status == 413, f"The status was {response.status} instead of 413.")
    got = await response.read()
    expect(got == b"too large", f"The body of the early answer was {got!r}.")
    expect(upload.closed.is_set(), "The answer was read, and the stream of the upload was not closed.")
    response = await transport.send(Request(method="GET", url=url))
    expect(await response.read() == b"too large", "The next request was not answered.")


@BOOK.rule("An early answer comes out though the server reads no more of the upload and closes.", Need.SOCKET)
async def answered_and_closed(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(http(413, b"too large", "Connection: close"))
        await asyncio.Event().wait()

    server = await bench.raw(handler, read_bodies=False)
    transport = await bench.transport()
    response = await transport.send(Request(method="PUT", url=server.url, body=bytes(30_000_000)))
    expect(response.status == 413, f"The status was {response.status} instead of 413.")
    got = await response.read()
    expect(got == b"too large", f"The body of the early answer was {got!r}.")


@BOOK.rule("An early answer comes out though the stream of the upload gives nothing more.", Need.SOCKET)
async def answered_in_silence(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.reader.readuntil(b"one")
        await connection.say(http(413, b"too large"))
        await connection.gone()
        connection.close()

    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.Event().wait()
        finally:
            closed.set()

    server = await bench.raw(handler, read_bodies=False)
    transport = await bench.transport()
    try:
        async with soon():
            response = await transport.send(Request(method="PUT", url=server.url, body=StreamBody(open=body)))
    except TimeoutError:
        raise BrokenPromiseError("The server had answered, and send still waited for the stream.") from None
    expect(response.status == 413, f"The status was {response.status} instead of 413.")
    got = await response.read()
    expect(got == b"too large", f"The body of the early answer was {got!r}.")
    expect(closed.is_set(), "The answer was read, and the stream of the upload was not closed.")


@BOOK.rule("When the server goes away in the middle of an upload, the stream of the body is closed.", Need.SOCKET)
async def closed_by_the_server(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.reader.read(1)
        connection.reset()

    server = await bench.raw(handler, read_bodies=False)
    transport = await bench.transport()
    upload = Upload(bytes(64 * 1024), count=10**9)
    with bench.expect_error(OutcomeUnknownError, "The server cut the connection in the middle of an upload"):
        await transport.send(Request(method="PUT", url=server.url, body=upload.body()))
    expect(upload.closed.is_set(), "The stream of the body was not closed when send raised.")


@BOOK.rule("A body is framed as HTTP/1.1 says, and nothing comes between it and the next request.", Need.SOCKET)
async def framed(bench: Bench) -> None:
    server = await bench.raw(say_ok)
    transport = await bench.transport()
    bodies: list[bytes | StreamBody | None] = [
        None,
        b"",
        b"bytes",
        StreamBody(open=chunks(), length=0),
        StreamBody(open=chunks()),
        StreamBody(open=chunks(b"abc", b"d" * 100_000)),
        StreamBody(open=chunks(b"abc"), length=3),
    ]
    for method in METHODS:
        for body in bodies:
            await bench.fetch(transport, Request(method=method, url=server.url, body=body))
    expected = [b"", b"", b"bytes", b"", b"", b"abc" + b"d" * 100_000, b"abc"] * len(METHODS)
    got = [request.body for request in server.requests]
    expect(got == expected, "The bodies of requests that followed one another did not arrive as they were.")
    lines = [request.method for request in server.requests]
    expect(lines == [method for method in METHODS for _ in bodies], f"The requests arrived as {lines}.")
