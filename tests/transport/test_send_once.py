"""A request is sent exactly once, also where aiohttp by itself would send it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from nudgescribe_async.errors import OutcomeUnknownError
from nudgescribe_async.transport import Request, StreamBody
from nudgescribe_async.transport.aiohttp import AiohttpTransport

if TYPE_CHECKING:
    import asyncio

ServeRaw = Callable[..., Awaitable[Any]]
METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"]


async def answer_first_only(request: Any, writer: asyncio.StreamWriter) -> None:
    """Answer what warms the connection up; read any other request and close without a word."""
    if request.target == "/warm":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
    else:
        writer.close()


async def two_bytes() -> AsyncIterator[bytes]:
    yield b"ab"


@pytest.fixture(params=["own", "foreign"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[AiohttpTransport]:
    if request.param == "own":
        async with AiohttpTransport() as own:
            yield own
    else:
        async with aiohttp.ClientSession() as session:
            yield AiohttpTransport(session)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("body", [None, b"ab", StreamBody(open=two_bytes, length=2)], ids=["none", "bytes", "stream"])
async def test_a_kept_connection_that_dies_gets_the_request_once(
    serve_raw: ServeRaw, transport: AiohttpTransport, method: str, body: bytes | StreamBody | None
) -> None:
    server = await serve_raw(answer_first_only)
    await (await transport.send(Request(method="GET", url=f"{server.url}/warm"))).read()
    with pytest.raises(OutcomeUnknownError, match="closed without a whole answer") as caught:
        await transport.send(Request(method=method, url=f"{server.url}/once", body=body))
    assert isinstance(caught.value.__cause__, aiohttp.ServerDisconnectedError)
    assert [request.line for request in server.requests] == ["GET /warm HTTP/1.1", f"{method} /once HTTP/1.1"]
    assert server.connections == 1


async def reset_second(request: Any, writer: asyncio.StreamWriter) -> None:
    if request.target == "/warm":
        await answer_first_only(request, writer)
    else:
        writer.get_extra_info("socket").setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER 0: a reset
        writer.transport.abort()


@pytest.mark.parametrize("method", METHODS)
async def test_a_kept_connection_that_is_reset_gets_the_request_once(
    serve_raw: ServeRaw, transport: AiohttpTransport, method: str
) -> None:
    server = await serve_raw(reset_second)
    await (await transport.send(Request(method="GET", url=f"{server.url}/warm"))).read()
    with pytest.raises(OutcomeUnknownError):
        await transport.send(Request(method=method, url=f"{server.url}/once"))
    assert [request.line for request in server.requests] == ["GET /warm HTTP/1.1", f"{method} /once HTTP/1.1"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_aiohttp_by_itself_sends_twice(serve_raw: ServeRaw, method: str) -> None:
    """The control: should this fail one day, aiohttp has changed, and ``_send_once`` may go."""
    server = await serve_raw(answer_first_only)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/warm") as response:
            await response.read()
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.request(method, f"{server.url}/twice")
    assert len(server.requests) == 3


async def test_a_session_with_middlewares_of_its_own_does_not_send_twice(serve_raw: ServeRaw) -> None:
    ran = []

    async def theirs(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        ran.append(request.method)
        return await handler(request)

    server = await serve_raw(answer_first_only)
    async with aiohttp.ClientSession(middlewares=(theirs,)) as session:
        transport = AiohttpTransport(session)
        await (await transport.send(Request(method="GET", url=f"{server.url}/warm"))).read()
        with pytest.raises(OutcomeUnknownError):
            await transport.send(Request(method="PUT", url=f"{server.url}/once"))
    assert len(server.requests) == 2
    assert ran == []  # documented: they are replaced
