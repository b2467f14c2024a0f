"""Rules about connections: used again, never twice for one request, and so many at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from aiohttp import web

from nudgescribe_async.errors import NudgescribeError, OutcomeUnknownError, RequestNotSentError
from nudgescribe_async.testing.conformance._bench import Bench, chunks, expect, settle, within
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import OK, RawConnection, RawRequest, RawServer, http, say_ok
from nudgescribe_async.testing.conformance._values import BrokenPromiseError, Need
from nudgescribe_async.transport import Request, StreamBody

__all__ = ["BOOK"]

BOOK: Final = RuleBook("connections")
ALL_METHODS: Final = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH")
MANY: Final = 1_000


@BOOK.rule("A connection is used again when an answer was read.", Need.SOCKET)
async def used_again(bench: Bench) -> None:
    transport = await bench.transport()
    for body in (None, b"ab", StreamBody(open=chunks(b"ab"), length=2), StreamBody(open=chunks(b"ab"))):
        server = await bench.raw(say_ok)
        for _ in range(2):
            await bench.fetch(transport, Request(method="PUT", url=server.url, body=body))
            await settle(1)
        async with await transport.send(Request(method="PUT", url=server.url, body=body)) as response:
            [piece async for piece in response.stream]
        await settle(1)
        await bench.fetch(transport, Request(method="PUT", url=server.url, body=body))
        expect(server.connections == 1, f"Four requests, one after the other, took {server.connections} connections.")


@BOOK.rule("A connection whose answer was not read to its end is dropped.", Need.SOCKET)
async def dropped_if_unread(bench: Bench) -> None:
    gone = asyncio.Event()

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.target == "/endless":
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
            try:
                while True:
                    await connection.say(bytes(65_536))
            except ConnectionError:
                gone.set()
                raise
        await connection.say(OK)

    server = await bench.raw(handler)
    transport = await bench.transport()
    response = await transport.send(Request(method="GET", url=f"{server.url}/endless"))
    await anext(aiter(response.stream))
    await response.aclose()
    await within(gone, "The rest of an endless answer was given up with aclose(), and its connection was not dropped.")
    got = await bench.fetch(transport, Request(method="GET", url=server.url))
    expect(got == b"ok", f"The next request was answered with {got!r}.")
    expect(server.connections == 2, f"There were {server.connections} connections instead of 2.")


@BOOK.rule("After an answer with 'Connection: close' the next request gets a new connection.", Need.SOCKET)
async def told_to_close(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(http(200, b"ok", "Connection: close"))

    server = await bench.raw(handler)
    transport = await bench.transport()
    for _ in range(3):
        await bench.fetch(transport, Request(method="PUT", url=server.url, body=b"x"))
    expect(server.connections == 3, f"Three such answers took {server.connections} connections.")


@BOOK.rule("A kept connection that the server has closed meanwhile is not used.", Need.SOCKET)
async def closed_while_idle(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(OK)
        connection.close()  # without having said so

    server = await bench.raw(handler)
    transport = await bench.transport()
    for method in ("PUT", "GET", "POST"):
        try:
            got = await bench.fetch(transport, Request(method=method, url=server.url))
        except NudgescribeError as error:
            raise BrokenPromiseError(
                f"{method}: the connection had been closed before, and send raised {error!r}."
            ) from error
        expect(got == b"ok", f"{method}: the answer was {got!r}.")
        await settle()
    expect(len(server.requests) == 3, f"Three requests arrived {len(server.requests)} times.")


async def _all_sent_once(server: RawServer) -> None:
    await settle()
    for target, count in Counter(server.targets).items():
        expect(count == 1 or target == "/first", f"{target[1:]}: the request was sent {count} times.")


@BOOK.rule("A request on a kept connection that the server closes without a word is sent once.", Need.SOCKET)
async def sent_once(bench: Bench) -> None:
    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.target == "/first":
            await connection.say(OK)
        else:
            connection.close()

    server = await bench.raw(handler)
    transport = await bench.transport()
    for method in ALL_METHODS:
        for number, body in enumerate((None, b"ab", StreamBody(open=chunks(b"ab"), length=2))):
            await bench.fetch(transport, Request(method="GET", url=f"{server.url}/first"))
            with bench.expect_error(OutcomeUnknownError, f"{method}: the server read the request and closed"):
                await transport.send(Request(method=method, url=f"{server.url}/{method}/{number}", body=body))
    await _all_sent_once(server)


@BOOK.rule("A request on a kept connection that the server resets is sent once.", Need.SOCKET)
async def sent_once_after_a_reset(bench: Bench) -> None:
    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.target == "/first":
            await connection.say(OK)
        else:
            connection.reset()

    server = await bench.raw(handler)
    transport = await bench.transport()
    for method in ALL_METHODS:
        await bench.fetch(transport, Request(method="GET", url=f"{server.url}/first"))
        with bench.expect_error(OutcomeUnknownError, f"{method}: the server read the request and reset the connection"):
            await transport.send(Request(method=method, url=f"{server.url}/{method}"))
    await _all_sent_once(server)


@BOOK.rule("A request on a new connection that the server closes without a word is sent once.", Need.SOCKET)
async def sent_once_on_a_new_connection(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        connection.close()

    server = await bench.raw(handler)
    transport = await bench.transport()
    for method in ALL_METHODS:
        with bench.expect_error(OutcomeUnknownError, f"{method}: the server read the request and closed"):
            await transport.send(Request(method=method, url=f"{server.url}/{method}"))
    await _all_sent_once(server)


@BOOK.rule("Where the server closes an idle connection just as a request goes out, nothing is sent twice.", Need.SOCKET)
async def race_with_an_idle_close(bench: Bench) -> None:
    kept: list[RawConnection] = []

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.target == "/first":
            kept.append(connection)
        await connection.say(OK)

    server = await bench.raw(handler)
    transport = await bench.transport()
    came_to: dict[str, tuple[int, int, str]] = {}
    for method in ("PUT", "GET", "POST"):
        for cut in (RawConnection.close, RawConnection.reset, RawConnection.end):
            await bench.fetch(transport, Request(method="GET", url=f"{server.url}/first"))
            target = f"/{method}/{cut.__name__}"
            cut(kept[-1])  # the event loop has not told anybody yet
            try:
                response = await transport.send(Request(method=method, url=server.url + target))
                await response.read()
            except RequestNotSentError:
                came_to[target] = 0, 0, "RequestNotSentError"
            except OutcomeUnknownError:
                came_to[target] = 0, 1, "OutcomeUnknownError"
            else:
                came_to[target] = 1, 1, "an answer"
    await settle()
    for target, (least, most, what) in came_to.items():
        got = server.targets.count(target)
        expect(least <= got <= most, f"{target[1:]}: the server saw the request {got} times, and send came to {what}.")


@BOOK.rule("There are never more connections at once than the limit says.", Need.SOCKET)
async def limit(bench: Bench) -> None:
    at_once = most = 0

    async def handler(_: RawRequest, connection: RawConnection) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.002)
        at_once -= 1
        await connection.say(OK)

    server = await bench.raw(handler)
    transport = await bench.transport(limit=3)
    await asyncio.gather(*(bench.fetch(transport, Request(method="GET", url=server.url)) for _ in range(30)))
    expect(most <= 3, f"The limit was 3, and {most} requests were on the wire at once.")
    expect(most > 1, "The limit was 3, and requests went one after the other.")
    expect(server.connections <= 3, f"The limit was 3, and there were {server.connections} connections.")


@BOOK.rule("A thousand requests at once are all answered, each with its own answer.")
async def a_thousand_at_once(bench: Bench) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=request.path.encode() + await request.read())

    transport, url = await bench.application(handler)

    async def one(number: int) -> bool:
        body = f":{number}".encode()
        request = Request(method="PUT", url=f"{url}/{number}", body=body, connect_timeout=None)
        return await bench.fetch(transport, request) == f"/{number}:{number}".encode()

    right = sum(await asyncio.gather(*(one(number) for number in range(MANY))))
    expect(right == MANY, f"Of {MANY} requests, {MANY - right} got the answer to another one.")
