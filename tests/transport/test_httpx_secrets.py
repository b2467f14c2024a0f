"""What can be seen of a request over ``HttpxTransport`` when its error is shown with the variables of each frame."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from helpers import free_port

from nudgescribe_async.errors import NudgescribeError
from nudgescribe_async.transport import Request, StreamBody

pytest.importorskip("httpx")

from nudgescribe_async.transport.httpx import HttpxTransport

ServeRaw = Callable[..., Awaitable[Any]]

SECRET = "s3cr3t-of-the-test"


async def pieces() -> AsyncIterator[bytes]:
    yield b"row of "
    yield SECRET.encode()


BODIES: dict[str, Any] = {
    "nothing": None,
    "bytes": f'{{"password":"{SECRET}"}}'.encode(),
    "many bytes": SECRET.encode() * 100_000,
    "a stream": StreamBody(open=pieces, length=7 + len(SECRET)),
}


def request(url: str, body: object, **options: Any) -> Request:
    headers = {"Authorization": f"Bearer {SECRET}-token", "X-API-Key": f"{SECRET}-key", "x-ip": f"{SECRET}-address"}
    given: Any = body
    return Request(method="PUT", url=f"{url}/?signature={SECRET}", headers=headers, body=given, **options)


def frames_of(error: BaseException | None) -> Iterator[str]:
    """All frames but that of the test, with their variables."""
    while error is not None:
        frames = [*traceback.walk_tb(error.__traceback__)]
        own = [frame for frame in frames if frame[0].f_code.co_filename != __file__]
        yield from traceback.StackSummary.extract(iter(own), capture_locals=True).format()
        error = error.__cause__ or error.__context__


async def shown(transport: HttpxTransport, sent: Request) -> str:
    with pytest.raises(NudgescribeError) as caught:
        await (await transport.send(sent)).read()
    text = "".join(frames_of(caught.value))
    assert "request = Request(" in text  # the variables are there
    return text


@pytest.mark.parametrize("body", BODIES)
async def test_of_what_had_no_connection(body: str) -> None:
    async with HttpxTransport() as transport:
        assert SECRET not in await shown(transport, request(f"http://127.0.0.1:{free_port()}", BODIES[body]))


@pytest.mark.parametrize("body", BODIES)
async def test_of_what_was_not_answered(serve_raw: ServeRaw, body: str) -> None:
    async def handler(_: Any, connection: Any) -> None:
        connection.close()

    server = await serve_raw(handler)
    async with HttpxTransport() as transport:
        assert SECRET not in await shown(transport, request(server.url, BODIES[body]))


@pytest.mark.parametrize("option", ["connect_timeout", "read_timeout"])
async def test_of_what_cannot_be_sent(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    async with HttpxTransport() as transport:
        assert SECRET not in await shown(transport, request("http://127.0.0.1", BODIES["bytes"], **options))


async def test_of_what_was_cut_off_by_closing(serve_raw: ServeRaw) -> None:
    arrived, never = asyncio.Event(), asyncio.Event()

    async def handler(_: Any, __: Any) -> None:
        arrived.set()
        await never.wait()

    server = await serve_raw(handler)
    transport = HttpxTransport()
    showing = asyncio.create_task(shown(transport, request(server.url, BODIES["bytes"])))
    await arrived.wait()
    await transport.aclose()
    assert SECRET not in await showing
