"""A request is sent exactly once, also where aiohttp by itself would send it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from nudgescribe_async.errors import OutcomeUnknownError
from nudgescribe_async.testing import RULES, Rule, TransportSettings
from nudgescribe_async.testing.conformance._servers import OK
from nudgescribe_async.transport import Request
from nudgescribe_async.transport.aiohttp import AiohttpTransport

if TYPE_CHECKING:
    from nudgescribe_async.testing.conformance._servers import RawConnection, RawRequest

ServeRaw = Callable[..., Awaitable[Any]]


async def answer_first_only(request: RawRequest, connection: RawConnection) -> None:
    """Answer what warms the connection up; read any other request and close without a word."""
    if request.target == "/warm":
        await connection.say(OK)
    else:
        connection.close()


@pytest.mark.parametrize("rule", [rule for rule in RULES if "sent_once" in rule.name], ids=str)
async def test_over_a_session_of_others(rule: Rule) -> None:
    """What holds for its own sessions, the conformance suite shows."""
    async with aiohttp.ClientSession() as session:

        def make(_: TransportSettings) -> AiohttpTransport:
            return AiohttpTransport(session)

        await rule.check(make)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_aiohttp_by_itself_sends_twice(serve_raw: ServeRaw, method: str) -> None:
    """The control: should this fail one day, aiohttp has changed, and ``_Sending`` may go."""
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
