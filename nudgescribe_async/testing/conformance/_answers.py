"""Rules about answers."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Final

from aiohttp import web

from nudgescribe_async.errors import OutcomeUnknownError, ResponseDecodeError
from nudgescribe_async.testing.conformance._bench import Bench, body_of, expect, settle, soon, standstill
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import EMPTY, OK, RawConnection, RawRequest, http, saying
from nudgescribe_async.testing.conformance._values import BrokenPromiseError, Need
from nudgescribe_async.transport import Request

__all__ = ["BOOK"]

BOOK: Final = RuleBook("answers")
STATUSES: Final = (
    200,
    201,
    204,
    300,
    301,
    302,
    303,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    407,
    418,
    429,
    500,
    502,
    503,
    599,
)


@BOOK.rule("A status is never an exception.")
async def any_status(bench: Bench) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=int(request.path[1:]))

    transport, url = await bench.application(handler)
    for status in STATUSES:
        async with await transport.send(Request(method="GET", url=f"{url}/{status}")) as response:
            expect(response.status == status, f"The status {status} came out as {response.status}.")


@BOOK.rule("A redirect is an answer like any other: it is not followed.")
async def no_redirect(bench: Bench) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=int(request.path[1:]), headers={"Location": "/200"})

    transport, url = await bench.application(handler)
    for status in (301, 302, 303, 307, 308):
        for method in ("GET", "POST"):
            seen.clear()
            async with await transport.send(Request(method=method, url=f"{url}/{status}")) as response:
                expect(response.status == status, f"{method}: the redirect {status} came out as {response.status}.")
                expect(response.headers.get("location") == "/200", f"{method}: the Location of {status} was lost.")
            expect(seen == [f"/{status}"], f"{method}: the redirect {status} was followed: {seen}.")


@BOOK.rule("No cookie is kept.")
async def no_cookie(bench: Bench) -> None:
    cookies: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        response = web.Response()
        response.set_cookie("a", "1")
        return response

    transport, url = await bench.application(handler)
    for _ in range(2):
        await bench.fetch(transport, Request(method="GET", url=url))
    expect(cookies == [None, None], "A cookie of the first answer was sent with the second request.")


@BOOK.rule("The headers of an answer are found whatever the case of their letters, and repeated ones are joined.")
async def headers(bench: Bench) -> None:
    async def handler(_: web.Request) -> web.Response:
        response = web.Response(headers={"X-UPPER-lower": "Value"})
        response.headers.add("X-Many", "one")
        response.headers.add("x-many", "two, three")
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    transport, url = await bench.application(handler)
    async with await transport.send(Request(method="GET", url=url)) as response:
        for name, value in (
            ("x-upper-lower", "Value"),
            ("X-UPPER-LOWER", "Value"),
            ("X-Many", "one, two, three"),
            ("Set-Cookie", "a=1; Path=/, b=2; Path=/"),
        ):
            got = response.headers.get(name)
            expect(got == value, f"The header {name} of the answer was {got!r} instead of {value!r}.")


@BOOK.rule("send returns when the head of the answer is here, and the body streams while it comes.")
async def streamed(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b"second")
        return response

    transport, url = await bench.application(handler)
    try:
        async with soon():
            response = await transport.send(Request(method="GET", url=url))
            pieces = aiter(response.stream)
            first = await anext(pieces)
    except TimeoutError:
        raise BrokenPromiseError(
            "The head and the first piece of an answer had been sent, and did not come out."
        ) from None
    expect(first == b"first", f"The first piece was {first!r}.")
    go_on.set()
    rest = b"".join([piece async for piece in pieces])
    expect(rest == b"second", f"What followed was {rest!r} instead of b'second'.")
    await response.aclose()


@BOOK.rule("A body that nobody reads holds up the server: it is not collected in memory.", Need.SOCKET)
async def held_up(bench: Bench) -> None:
    block, count = bytes(64 * 1024), 640
    written = 0

    async def handler(_: RawRequest, connection: RawConnection) -> None:
        nonlocal written
        connection.writer.transport.set_write_buffer_limits(high=0)
        await connection.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(block) * count}\r\n\r\n".encode())
        for _block in range(count):
            await connection.say(block)
            written += 1

    server = await bench.raw(handler)
    transport = await bench.transport()
    response = await transport.send(Request(method="GET", url=server.url))
    await standstill(lambda: written)
    expect(
        written < 400,
        f"Nobody read the answer, and {written} blocks of 64 KiB of 640 were taken: they must be in memory.",
    )
    received = 0
    async for piece in response.stream:
        received += len(piece)
    await response.aclose()
    expect(received == len(block) * count, f"Of {len(block) * count} bytes {received} came.")


@BOOK.rule("An answer that is compressed with gzip or deflate comes out decompressed.")
async def decompressed(bench: Bench) -> None:
    text = b"customer_id,message\r\n" * 10_000

    async def handler(request: web.Request) -> web.Response:
        encoding = request.path[1:]
        body = gzip.compress(text) if encoding == "gzip" else zlib.compress(text)
        return web.Response(body=body, headers={"Content-Encoding": encoding})

    transport, url = await bench.application(handler)
    for encoding in ("gzip", "deflate"):
        got = await bench.fetch(transport, Request(method="GET", url=f"{url}/{encoding}"))
        expect(got == text, f"{encoding}: of {len(text):,} bytes, other {len(got):,} came.")
        async with await transport.send(Request(method="GET", url=f"{url}/{encoding}")) as response:
            streamed_text = b"".join([piece async for piece in response.stream])
        expect(
            streamed_text == text, f"{encoding}: of {len(text):,} bytes, other {len(streamed_text):,} were streamed."
        )


@BOOK.rule("No empty piece comes out of a body: it would look like its end.")
async def no_empty_piece(bench: Bench) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b"x"), headers={"Content-Encoding": "gzip"})

    transport, url = await bench.application(handler)
    async with await transport.send(Request(method="GET", url=url)) as response:
        pieces = [piece async for piece in response.stream]
    expect(pieces == [b"x"], f"The body b'x' came in these pieces: {pieces}.")


@BOOK.rule("Answers that have no body (to HEAD; 204; 304) end with their head, whatever it says.", Need.SOCKET)
async def without_body(bench: Bench) -> None:
    async def handler(request: RawRequest, connection: RawConnection) -> None:
        status = int(request.target[1:])
        length = "" if status == 204 else "Content-Length: 100\r\n"
        await connection.say(f"HTTP/1.1 {status} Status\r\n{length}X-Here: yes\r\n\r\n".encode())

    server = await bench.raw(handler)
    transport = await bench.transport()
    for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404), ("PUT", 204)):
        async with await transport.send(Request(method=method, url=f"{server.url}/{status}")) as response:
            body = await response.read()
            expect(response.status == status, f"{method}: the status {status} came out as {response.status}.")
            expect(body == b"", f"{method} with the status {status} has no body, and {body!r} came.")
            expect(response.headers.get("X-Here") == "yes", f"{method} with the status {status} lost its headers.")
    expect(server.connections == 1, f"Five of them one after the other took {server.connections} connections.")


@BOOK.rule("Answers with 1xx come before the answer, and are not it.", Need.SOCKET)
async def informational(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        for line in ("100 Continue", "102 Processing", "103 Early Hints\r\nLink: </a>"):
            await connection.say(f"HTTP/1.1 {line}\r\n\r\n".encode())
            await asyncio.sleep(0)
        await connection.say(http(201, b"made"))

    server = await bench.raw(handler)
    transport = await bench.transport()
    for _ in range(2):
        async with await transport.send(Request(method="PUT", url=server.url, body=b"x")) as response:
            body = await response.read()
            expect(response.status == 201, f"The status was {response.status} instead of 201.")
            expect(body == b"made", f"The body was {body!r}.")


@BOOK.rule("An answer without a length ends with the connection.", Need.SOCKET)
async def until_the_end(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\none")
        await asyncio.sleep(0)
        await connection.say(b"two")
        connection.close()

    server = await bench.raw(handler)
    transport = await bench.transport()
    got = await bench.fetch(transport, Request(method="GET", url=server.url))
    expect(got == b"onetwo", f"Of b'onetwo', {got!r} came.")


@BOOK.rule("What comes byte by byte is understood as if it came at once.", Need.SOCKET)
async def byte_by_byte(bench: Bench) -> None:
    whole = b"HTTP/1.1 200 OK\r\nX-Name: value\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;name=value\r\nde\r\n0\r\n\r\n"

    async def handler(_: RawRequest, connection: RawConnection) -> None:
        for position in range(len(whole)):
            await connection.say(whole[position : position + 1])
            await asyncio.sleep(0)

    server = await bench.raw(handler)
    transport = await bench.transport()
    for _ in range(2):
        got = await bench.fetch(transport, Request(method="GET", url=server.url))
        expect(got == b"abcde", f"Of b'abcde', {got!r} came.")
    expect(server.connections == 1, "The connection was not used again after a chunked answer.")


@BOOK.rule("Reading with a limit ends at the limit, and the rest of the body is not read.")
async def limit_of_reading(bench: Bench) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=bytes(2_000_000 if request.path == "/large" else 10))

    transport, url = await bench.application(handler)
    async with await transport.send(Request(method="GET", url=f"{url}/large")) as response:
        with bench.expect_error(ResponseDecodeError, "2,000,000 bytes were read with a limit of 1,000"):
            await response.read(limit=1_000)
    for limit in (10, 11, None):
        async with await transport.send(Request(method="GET", url=url)) as response:
            got = await response.read(limit=limit)
            expect(len(got) == 10, f"10 bytes, read with a limit of {limit}, came as {len(got)}.")


@BOOK.rule("A response can be closed at any time, and more than once.")
async def closed_more_than_once(bench: Bench) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=bytes(int(request.path[1:])))

    transport, url = await bench.application(handler)
    for size in (0, 10, 5_000_000):
        response = await transport.send(Request(method="GET", url=f"{url}/{size}"))
        for _ in range(3):
            await response.aclose()
        response = await transport.send(Request(method="GET", url=f"{url}/{size}"))
        got = await response.read()
        expect(len(got) == size, f"Of {size:,} bytes {len(got):,} came.")
        await response.aclose()
    response = await transport.send(Request(method="GET", url=f"{url}/5000000"))
    pieces = aiter(response.stream)
    await anext(pieces)
    await response.aclose()
    try:
        got = b"".join([piece async for piece in pieces])
    except OutcomeUnknownError:
        pass
    else:
        raise BrokenPromiseError(
            f"A response was closed in the middle, and its stream ended as if it were whole, with {len(got):,} bytes."
        )


@BOOK.rule("A body that is broken off is never taken for a whole one.", Need.SOCKET)
async def never_cut_silently(bench: Bench) -> None:
    compressed = gzip.compress(b"row\r\n" * 1_000)
    cut = {
        "half of the bytes that Content-Length announced": b"Content-Length: 10\r\n\r\nabcde",
        "nothing of the bytes that Content-Length announced": b"Content-Length: 10\r\n\r\n",
        "no last chunk": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "half a chunk": b"Transfer-Encoding: chunked\r\n\r\n10\r\nabc",
        "no line after the last chunk": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        "half of a compressed body": b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed)
        + compressed[: len(compressed) // 2],
    }

    server = await bench.raw(saying(b"HTTP/1.1 200 OK\r\n" + rest for rest in cut.values()))
    transport = await bench.transport()
    for number, what in enumerate(cut):
        for whole in (True, False):
            with bench.expect_error(OutcomeUnknownError, f"An answer with {what}, and then the end of the connection"):
                async with await transport.send(Request(method="GET", url=f"{server.url}/{number}")) as response:
                    await body_of(response, whole=whole)


@BOOK.rule("A compressed body comes with all of its members, or is an OutcomeUnknownError.", Need.SOCKET)
async def all_of_the_members(bench: Bench) -> None:
    rows = [b"row %d\r\n" % number * 1_000 for number in range(3)]
    members = [gzip.compress(part) for part in rows]
    whole, cut = b"".join(members), b"".join(members)[:-100]

    def head(body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)

    server = await bench.raw(saying([head(whole) + whole, head(cut) + cut]))
    transport = await bench.transport()
    got = await bench.fetch(transport, Request(method="GET", url=f"{server.url}/0"))
    expect(got == b"".join(rows), f"Of three members of gzip, {sum(map(len, rows)):,} bytes, {len(got):,} bytes came.")
    for at_once in (True, False):
        with bench.expect_error(OutcomeUnknownError, "An answer that is framed well, and ends too early for gzip"):
            async with await transport.send(Request(method="GET", url=f"{server.url}/1")) as response:
                await body_of(response, whole=at_once)


@BOOK.rule("A body that cannot be understood is an OutcomeUnknownError.", Need.SOCKET)
async def malformed_body(bench: Bench) -> None:
    bad = {
        "a chunk whose size is no number": b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
        "a chunk that is longer than its size": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        "a body that is no gzip": b"Content-Encoding: gzip\r\nContent-Length: 6\r\n\r\nabcdef",
    }

    server = await bench.raw(saying(b"HTTP/1.1 200 OK\r\n" + rest for rest in bad.values()))
    transport = await bench.transport()
    for number, what in enumerate(bad):
        with bench.expect_error(OutcomeUnknownError, f"An answer with {what}"):
            async with await transport.send(Request(method="GET", url=f"{server.url}/{number}")) as response:
                await response.read()


@BOOK.rule("An answer is given to the request that it is for, however many there are on a connection.", Need.SOCKET)
async def in_order(bench: Bench) -> None:
    async def handler(request: RawRequest, connection: RawConnection) -> None:
        await connection.say(http(200, request.target.encode()) if request.target != "/none" else EMPTY)

    server = await bench.raw(handler)
    transport = await bench.transport()
    for target in ("/a", "/none", "/b", "/none", "/c"):
        got = await bench.fetch(transport, Request(method="GET", url=server.url + target))
        expect(got == (b"" if target == "/none" else target.encode()), f"{target} was answered with {got!r}.")


@BOOK.rule("An answer that came before there was a request is not taken for the answer to the next one.", Need.SOCKET)
async def unasked(bench: Bench) -> None:
    for stale in (http(200, b"stale"), http(408), b"HTTP/1.1 200 OK\r\nCont"):
        said, say = asyncio.Event(), asyncio.Event()

        async def handler(
            request: RawRequest,
            connection: RawConnection,
            stale: bytes = stale,
            say: asyncio.Event = say,
            said: asyncio.Event = said,
        ) -> None:
            await connection.say(OK)
            if request.target == "/first":
                await say.wait()
                await connection.say(stale)
                said.set()

        server = await bench.raw(handler)
        transport = await bench.transport()
        await bench.fetch(transport, Request(method="PUT", url=f"{server.url}/first"))
        say.set()
        await said.wait()
        await settle()
        try:
            response = await transport.send(Request(method="PUT", url=f"{server.url}/second"))
            got = await response.read()
        except OutcomeUnknownError:
            continue
        expect(got == b"ok", f"The next request was answered with {got!r}, which had come before it.")
