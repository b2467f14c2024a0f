"""More of the transport over pyreqwest: cancelled or closed by others while it reads, packed answers, forks. ``test_pyreqwest`` has what else is special."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nudgescribe_async.errors import OutcomeUnknownError, ResponseDecodeError
from nudgescribe_async.transport import Request

pytest.importorskip("pyreqwest")

from nudgescribe_async.transport.pyreqwest import PyreqwestTransport

ServeRaw = Callable[..., Awaitable[Any]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def woken_while_nobody_looks(until: Callable[[], Awaitable[Any]]) -> None:
    """Go on in the turn of the event loop in which the library has what it waits for, and nobody has been told."""
    loop, woken = asyncio.get_running_loop(), threading.Event()
    call_soon_threadsafe = loop.call_soon_threadsafe

    def counted(*given: Any, **options: Any) -> asyncio.Handle:
        woken.set()
        return call_soon_threadsafe(*given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_soon_threadsafe", counted)
        await until()
        assert woken.wait(10)  # in the thread of the event loop


@pytest.mark.parametrize("where", ["head", "whole", "chunks"])
@pytest.mark.parametrize("broken", [False, True])
async def test_a_cancellation_is_not_lost_though_the_answer_is_here(
    serve_raw: ServeRaw, where: str, broken: bool
) -> None:
    """By itself the library takes one or the other, as it comes."""
    rest = b"" if broken else OK if where == "head" else b"ok"

    async def handler(_: Any, connection: Any) -> None:
        if where != "head":
            await connection.say(OK[:-2])
        arrived.put_nowait(connection)
        await answered.wait()

    async def fetch() -> None:
        response = await transport.send(Request(method="GET", url=server.url))
        begun.set()
        if where == "chunks":
            [chunk async for chunk in response.stream]
        else:
            await response.read()

    async def answer() -> None:
        await here.say(rest)
        if broken:
            here.reset()
            await asyncio.sleep(0)  # the next turn does it
        answered.set()

    arrived = asyncio.Queue[Any]()
    server = await serve_raw(handler)
    async with PyreqwestTransport(limit=1) as transport:
        for _ in range(20):
            begun, answered = asyncio.Event(), asyncio.Event()
            fetching = asyncio.create_task(fetch())
            here = await arrived.get()
            if where != "head":
                await begun.wait()
                await asyncio.sleep(0)
            await woken_while_nobody_looks(answer)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            assert not transport._answers


@pytest.mark.parametrize("whole", [True, False])
async def test_another_task_closes_the_response_that_is_read(serve_raw: ServeRaw, whole: bool) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await connection.gone()

    async def read() -> None:
        if whole:
            await response.read()
        else:
            async for _chunk in response.stream:
                begun.set()

    begun = asyncio.Event()
    server = await serve_raw(handler)
    async with PyreqwestTransport(limit=1) as transport:
        response = await transport.send(Request(method="GET", url=server.url))
        reading = asyncio.create_task(read())
        if not whole:
            await begun.wait()
        await asyncio.sleep(0)
        await response.aclose()
        await response.aclose()
        with pytest.raises(OutcomeUnknownError, match="given up before its end"):
            await reading
        assert not reading.cancelling()
        await server.lost.wait()
        with pytest.raises(OutcomeUnknownError, match="given up before its end"):
            await response.read()
        assert transport._places is not None
        assert not transport._places.locked()


async def test_what_is_packed_is_unpacked_in_pieces_of_bounded_size(serve_raw: ServeRaw) -> None:
    packed = gzip.compress(bytes(20_000_000)) + gzip.compress(b"ok")

    async def handler(_: Any, connection: Any) -> None:
        await connection.say(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: GZip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
        )

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        request = Request(method="GET", url=server.url)
        response = await transport.send(request)
        pieces = [piece async for piece in response.stream]
        assert b"".join(pieces) == bytes(20_000_000) + b"ok"
        assert max(map(len, pieces)) <= 256 * 1024
        with pytest.raises(ResponseDecodeError, match="longer than the 1,000 bytes"):
            await (await transport.send(request)).read(limit=1_000)
        assert not transport._answers
    assert [asked.values("Accept-Encoding") for asked in server.requests] == [["gzip, deflate"]] * 2


async def test_nothing_is_missing_when_another_read_follows_a_cancelled_one(serve_raw: ServeRaw) -> None:
    packed = gzip.compress(bytes(2_000_000))

    async def handler(_: Any, connection: Any) -> None:
        await connection.say(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
        )

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        response = await transport.send(Request(method="GET", url=server.url))
        pieces = aiter(response.stream)
        size = len(await anext(pieces))
        reading = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        reading.cancel()  # between two pieces of one chunk
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert size + sum([len(piece) async for piece in pieces]) == 2_000_000


@pytest.mark.parametrize("packed", [False, True])
async def test_the_rest_of_a_body_is_read_after_a_part(serve_raw: ServeRaw, packed: bool) -> None:
    body = gzip.compress(bytes(2_000_000)) if packed else bytes(2_000_000)
    encoding = b"gzip" if packed else b"identity"

    async def handler(_: Any, connection: Any) -> None:
        await connection.say(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (encoding, len(body)) + body
        )

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        response = await transport.send(Request(method="GET", url=server.url))
        first = await anext(aiter(response.stream))
        assert 0 < len(first) < 2_000_000
        assert first + await response.read(limit=2_000_000) == bytes(2_000_000)


IN_A_FORK = """
import asyncio, os
from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.transport import Request
from nudgescribe_async.transport.pyreqwest import PyreqwestTransport

async def fetch():
    async with PyreqwestTransport() as transport:
        await transport.send(Request(method="PUT", url="http://127.0.0.1:1/"))

PyreqwestTransport(proxy="http://127.0.0.1:1")  # which starts the thread
child = os.fork()
if child:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    asyncio.run(fetch())
except ConfigurationError as error:
    os._exit(7 if "does not survive a fork" in error.message else 1)
finally:
    os._exit(2)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_after_a_fork_it_says_that_nothing_was_sent() -> None:
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", IN_A_FORK], check=False, timeout=30).returncode == 7
