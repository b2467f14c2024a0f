"""What holds for each transport of the package, and is no rule for those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import pytest
from aiohttp import web
from helpers import free_port

from nudgescribe_async import ConfigurationError, OutcomeUnknownError, RequestNotSentError
from nudgescribe_async.transport import Headers, Request, Response, Transport
from nudgescribe_async.transport.aiohttp import AiohttpTransport
from nudgescribe_async.transport.httpx import HttpxTransport
from nudgescribe_async.transport.in_process import InProcessTransport
from nudgescribe_async.transport.pyreqwest import PyreqwestTransport

Make: TypeAlias = Callable[[], Transport]

over_sockets = pytest.mark.parametrize("make", [AiohttpTransport, HttpxTransport, PyreqwestTransport])
SECRET = "Bearer of-bad-news"


@pytest.mark.parametrize(
    "make", [AiohttpTransport, HttpxTransport, PyreqwestTransport, lambda: InProcessTransport(web.Application())]
)
def test_another_event_loop_is_refused(make: Make) -> None:
    transport = make()
    request = Request(method="GET", url=f"http://127.0.0.1:{free_port()}/")

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


@over_sockets
def test_under_uvloop(make: Make) -> None:
    uvloop = pytest.importorskip("uvloop")
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    async def use() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        transport = make()
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            assert await (await transport.send(Request(method="GET", url=url))).read() == b"ok"
            await transport.aclose()
            await left.wait()

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(use())
    finally:
        loop.close()


@over_sockets
async def test_what_its_caller_is_dealing_with_is_left_as_it_is(make: Make) -> None:
    """Python links it to what is raised meanwhile; only the latter may lose its frames and texts."""

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def whole(answer: Response) -> None:
        await answer.read()

    async def in_pieces(answer: Response) -> None:
        async with answer:
            async for _ in answer.stream:
                pass

    transport, server = make(), await asyncio.start_server(break_off, "127.0.0.1", 0)
    broken = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        for url, read in ((f"http://127.0.0.1:{free_port()}/", whole), (broken, whole), (broken, in_pieces)):
            request = Request(method="GET", url=url, headers=Headers({"Authorization": SECRET}))
            dealt_with, told = FileNotFoundError(2, f"It has the same words: {SECRET}"), ""
            try:
                raise dealt_with
            except FileNotFoundError:
                try:
                    await read(await transport.send(request))
                except (OutcomeUnknownError, RequestNotSentError) as failure:
                    told = str(failure)
            assert dealt_with.__traceback__ is not None
            assert SECRET in str(dealt_with)
            assert told
            assert "No such file" not in told
    finally:
        await transport.aclose()
        server.close()
        await server.wait_closed()
