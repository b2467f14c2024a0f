"""Rules about cancelling, in every phase of a request: nothing is left, and nothing goes on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from nudgescribe_async.testing.conformance._bench import (
    Bench,
    Upload,
    body_of,
    expect,
    settle,
    shown,
    soon,
    within,
)
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import OK, Hanging, RawConnection, RawRequest, http
from nudgescribe_async.testing.conformance._values import BrokenPromiseError, Need
from nudgescribe_async.transport import Request, Response, Transport

__all__ = ["BOOK"]

BOOK: Final = RuleBook("cancelling", Need.SOCKET)
MOST_TURNS: Final = 150


async def _cancel(task: asyncio.Task[Any], when: str) -> None:
    task.cancel()
    try:
        async with soon():
            await asyncio.wait({task})
    except TimeoutError:
        raise BrokenPromiseError(f"{when}: it was cancelled, and does not end.") from None
    if not task.cancelled():
        error = task.exception()
        raise BrokenPromiseError(
            f"{when}: it was cancelled, and {'returned' if error is None else f'raised {shown(error)}'}."
        )


@BOOK.rule("Cancelled while it waits for a connection, a request is never sent, and takes no place.")
async def waiting_for_a_connection(bench: Bench) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        arrived.set()
        await release.wait()
        await connection.say(OK)

    server = await bench.raw(handler)
    transport = await bench.transport(limit=1)
    first = bench.start(bench.fetch(transport, Request(method="PUT", url=f"{server.url}/first")))
    await arrived.wait()
    waiting = [bench.start(transport.send(Request(method="PUT", url=f"{server.url}/never"))) for _ in range(3)]
    await settle()
    for task in waiting:
        await _cancel(task, "Waiting for a connection")
    release.set()
    await first
    await bench.fetch(transport, Request(method="PUT", url=f"{server.url}/last"))
    expect(server.targets == ["/first", "/last"], f"The server saw {server.targets}.")


@BOOK.rule("Cancelled while it connects, nothing is left of the connection.")
async def connecting(bench: Bench) -> None:
    hanging = Hanging()
    server = await bench.raw(hanging.handler)
    transport = await bench.transport()
    task = bench.start(transport.send(Request(method="PUT", url=f"https://127.0.0.1:{server.port}/")))
    await server.found.wait()
    await settle(5)
    await _cancel(task, "In the middle of the TLS handshake")
    await within(
        server.lost, "In the middle of the TLS handshake: it was cancelled, and the connection is still there."
    )


@BOOK.rule("Cancelled while it sends the body, the body is closed, the connection dropped, and no whole request sent.")
async def sending(bench: Bench) -> None:
    whole: list[bytes] = []
    lost = asyncio.Event()

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.method == "GET":
            await connection.say(OK)
            return
        try:
            with suppress(asyncio.IncompleteReadError, ValueError):
                whole.append(b"".join([piece async for piece in connection.body(request)]))
        finally:
            lost.set()

    server = await bench.raw(handler, read_bodies=False)
    transport = await bench.transport()
    for length in (None, 1_000):
        lost.clear()
        upload = Upload(b"some", count=2, then_wait=True)
        task = bench.start(transport.send(Request(method="PUT", url=server.url, body=upload.body(length))))
        await upload.waiting.wait()
        await settle(5)
        await _cancel(task, "While the body was sent")
        expect(
            upload.closed.is_set(), "It was cancelled, and the stream of the body was not closed when that was over."
        )
        await within(lost, "It was cancelled while the body was sent, and the connection is still there.")
        expect(not whole, f"It was cancelled while the body was sent, and the server has a whole request: {whole}.")
    await bench.fetch(transport, Request(method="GET", url=server.url))


@BOOK.rule("Cancelled while the server takes nothing of the body, it ends at once.")
async def sending_to_nobody(bench: Bench) -> None:
    arrived = asyncio.Event()

    async def handler(_: RawRequest, connection: RawConnection) -> None:
        arrived.set()
        await asyncio.Event().wait()

    server = await bench.raw(handler, read_bodies=False)
    transport = await bench.transport()
    upload = Upload(bytes(65_536), count=10**9)
    for body in (bytes(30_000_000), upload.body()):
        arrived.clear()
        task = bench.start(transport.send(Request(method="PUT", url=server.url, body=body)))
        await arrived.wait()
        await settle()
        await _cancel(task, "While the server took nothing of the body")
    expect(upload.closed.is_set(), "It was cancelled, and the stream of the body was not closed when that was over.")


@BOOK.rule("Cancelled while it waits for the answer, the connection is dropped and never used again.")
async def waiting_for_the_answer(bench: Bench) -> None:
    hanging = Hanging()
    server = await bench.raw(hanging.handler)
    transport = await bench.transport()
    await bench.fetch(transport, Request(method="GET", url=f"{server.url}/ok"))
    task = bench.start(transport.send(Request(method="PUT", url=f"{server.url}/hang", body=b"body")))
    await hanging.arrived.wait()
    await _cancel(task, "Waiting for the answer")
    await within(hanging.gone, "It was cancelled while it waited for the answer, and the connection is still there.")
    got = await bench.fetch(transport, Request(method="GET", url=f"{server.url}/ok"))
    expect(got == b"ok", f"The next request was answered with {got!r}.")
    expect(server.targets == ["/ok", "/hang", "/ok"], f"The server saw {server.targets}.")


@BOOK.rule("Cancelled while the body of the answer is read, the connection is dropped and never used again.")
async def reading(bench: Bench) -> None:
    for whole in (True, False):
        hanging = Hanging()
        server = await bench.raw(hanging.handler)
        transport = await bench.transport()
        response = await transport.send(Request(method="GET", url=f"{server.url}/half"))

        async def read(response: Response = response, whole: bool = whole) -> None:
            async with response:
                await body_of(response, whole=whole)

        task = bench.start(read())
        await settle()
        await _cancel(task, "Reading the body of the answer")
        await within(hanging.gone, "It was cancelled while the answer was read, and the connection is still there.")
        got = await bench.fetch(transport, Request(method="GET", url=f"{server.url}/ok"))
        expect(got == b"ok", f"The next request was answered with {got!r}.")


@BOOK.rule("A cancelled request gives back its place among the connections, whatever it was doing.")
async def place_given_back(bench: Bench) -> None:
    hanging = Hanging()
    server = await bench.raw(hanging.handler)
    transport = await bench.transport(limit=2)
    for target in ("/hang", "/half", "/hang", "/half", "/hang"):
        hanging.arrived.clear()

        async def work(target: str = target) -> None:
            async with await transport.send(Request(method="GET", url=server.url + target)) as response:
                await response.read()

        task = bench.start(work())
        await hanging.arrived.wait()
        await settle(5)
        await _cancel(task, target)
    for _ in range(3):
        await bench.fetch(transport, Request(method="GET", url=f"{server.url}/ok", connect_timeout=3))


@BOOK.rule("Cancelled at any turn of the event loop, once or twice, a request gives back its place.")
async def at_any_turn(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(http(200, b"ok", "Connection: close"))
        connection.close()

    server = await bench.raw(handler)
    for twice in (False, True):
        transport = await bench.transport(limit=1)
        request = Request(method="PUT", url=server.url, body=b"body")
        for turns in range(MOST_TURNS):
            task = bench.start(bench.fetch(transport, request))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.done():
                break
            task.cancel()
            if twice:
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                raise BrokenPromiseError(f"It was cancelled after {turns} turns, and raised {shown(error)}.")
            await _is_free(bench, transport, request, f"{'twice ' * twice}after {turns} turns")


async def _is_free(bench: Bench, transport: Transport, request: Request, when: str) -> None:
    try:
        async with soon():
            await bench.fetch(transport, request)
    except Exception as error:
        raise BrokenPromiseError(
            f"The only connection was not free for the next request, when one was cancelled {when}: {shown(error)}"
        ) from error
