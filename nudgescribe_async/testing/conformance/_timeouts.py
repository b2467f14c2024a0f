"""Rules about the timeouts of a request. There is none over all of it: that is the affair of the call above."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Final

from nudgescribe_async.errors import OutcomeUnknownError, RequestNotSentError
from nudgescribe_async.testing.conformance._bench import Bench, body_of, expect, shown, within
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import OK, Hanging, RawConnection, RawRequest, say_ok
from nudgescribe_async.testing.conformance._values import BrokenPromiseError, Need
from nudgescribe_async.transport import Request, StreamBody

__all__ = ["BOOK"]

BOOK: Final = RuleBook("timeouts", Need.SOCKET)
SHORT: Final = 0.05
SILENCE: Final = 0.3  # of which the rules about what is allowed take a half at a time


async def _silent(_: RawRequest, connection: RawConnection) -> None:
    await connection.gone()


@BOOK.rule("connect_timeout spans the TLS handshake: a server that does not finish it is a RequestNotSentError.")
async def connecting(bench: Bench) -> None:
    server = await bench.raw(_silent)  # it waits for the head of a request, and speaks no TLS
    transport = await bench.transport()
    with bench.expect_error(RequestNotSentError, "A handshake that is not answered, with a connect_timeout"):
        await transport.send(
            Request(method="PUT", url=f"https://127.0.0.1:{server.port}/", connect_timeout=SHORT, read_timeout=5)
        )
    await within(server.found, "There was no connection at all.")


@BOOK.rule("connect_timeout spans waiting for a free connection, which is a RequestNotSentError.")
async def waiting_for_a_connection(bench: Bench) -> None:
    hanging = Hanging()
    server = await bench.raw(hanging.handler)
    transport = await bench.transport(limit=1)
    bench.start(transport.send(Request(method="PUT", url=f"{server.url}/first")))
    await hanging.arrived.wait()
    with bench.expect_error(RequestNotSentError, "No connection was free within connect_timeout"):
        await transport.send(Request(method="PUT", url=f"{server.url}/second", connect_timeout=SHORT))
    expect(server.targets == ["/first"], "The request that got no connection in time was sent all the same.")


@BOOK.rule("read_timeout is the longest silence before the answer, and its end is an OutcomeUnknownError.")
async def no_answer(bench: Bench) -> None:
    server = await bench.raw(_silent)
    transport = await bench.transport()
    for body in (None, b"body"):
        server.lost.clear()
        with bench.expect_error(OutcomeUnknownError, "No answer within read_timeout"):
            await transport.send(Request(method="PUT", url=server.url, body=body, read_timeout=SHORT))
        await within(server.lost, "The connection was not dropped.")
    expect(len(server.requests) == 2, f"Two requests were sent {len(server.requests)} times.")


@BOOK.rule("read_timeout is the longest silence within the body of an answer, too.")
async def stalled_answer(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await connection.gone()

    server = await bench.raw(handler)
    transport = await bench.transport()
    for whole in (True, False):
        server.lost.clear()
        response = await transport.send(Request(method="GET", url=server.url, read_timeout=SHORT))
        with bench.expect_error(OutcomeUnknownError, "Nothing more of the body came within read_timeout"):
            await body_of(response, whole=whole)
        await response.aclose()
        await within(server.lost, "The connection of an answer that stalled was not dropped.")


@BOOK.rule("read_timeout is the longest time in which a server may take nothing more of an upload.")
async def stalled_upload(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await release.wait()
        await connection.gone()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65_536)
        finally:
            closed.set()

    closed, release = asyncio.Event(), asyncio.Event()
    server = await bench.raw(handler, read_bodies=False)
    transport = await bench.transport()
    for body in (bytes(30_000_000), StreamBody(open=endless)):
        with bench.expect_error(OutcomeUnknownError, "The server took nothing more of an upload within read_timeout"):
            await transport.send(Request(method="PUT", url=server.url, body=body, read_timeout=SHORT))
    expect(closed.is_set(), "The stream of the body was not closed.")
    release.set()


@BOOK.rule("An answer that comes slowly, and never stops for as long as read_timeout, comes whole.")
async def slow_answer(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await asyncio.sleep(SILENCE / 2)
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        for _number in range(3):
            await asyncio.sleep(SILENCE / 2)
            await connection.say(b"x")

    server = await bench.raw(handler)
    transport = await bench.transport()
    await _goes_well(bench.fetch(transport, Request(method="GET", url=server.url, read_timeout=SILENCE)), b"xxx")


@BOOK.rule("read_timeout is about the server: a body whose stream is slow itself is sent in peace.")
async def slow_body(bench: Bench) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x"
            await asyncio.sleep(SHORT * 2)

    server = await bench.raw(say_ok)
    transport = await bench.transport()
    request = Request(method="PUT", url=server.url, body=StreamBody(open=slow), read_timeout=SHORT * 2)
    await _goes_well(bench.fetch(transport, request), b"ok")


@BOOK.rule("A timeout that is None is none.")
async def no_timeout(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await asyncio.sleep(SHORT)
        await connection.say(OK)

    server = await bench.raw(handler)
    transport = await bench.transport()
    request = Request(method="PUT", url=server.url, body=b"x", connect_timeout=None, read_timeout=None)
    await _goes_well(bench.fetch(transport, request), b"ok")


async def _goes_well(fetching: Awaitable[bytes], expected: bytes) -> None:
    try:
        got = await fetching
    except Exception as error:
        raise BrokenPromiseError(f"It was given up: {shown(error)}") from error
    expect(got == expected, f"The answer was {got!r} instead of {expected!r}.")
