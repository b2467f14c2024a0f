"""An answer that came before there was a question is nobody's answer."""

import asyncio
import logging

import pytest

from nudgescribe_async.errors import OutcomeUnknownError
from nudgescribe_async.transport import Request
from nudgescribe_async.transport.aiohttp import AiohttpTransport


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize("unasked", [http(200, b"stale"), http(408, b""), b"HTTP/1.1 200 OK\r\nCont"])
async def test_an_answer_that_came_unasked_is_not_taken_for_the_next_one(unasked: bytes) -> None:
    answered, arrived = asyncio.Event(), asyncio.Event()
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(http(200, b"real"))
                if len(requests) == 1:
                    await answered.wait()
                    writer.write(unasked)
                    await writer.drain()
                    arrived.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AiohttpTransport() as transport:
        request = Request(method="PUT", url=f"http://127.0.0.1:{port}/v1/cg", body=b"")
        async with await transport.send(request) as response:
            assert await response.read() == b"real"
        answered.set()
        await arrived.wait()
        for _ in range(20):  # the loop reads what has arrived
            await asyncio.sleep(0)
        async with await transport.send(request) as response:
            assert (response.status, await response.read()) == (200, b"real")
    assert len(requests) == 2


async def test_what_a_broken_answer_quotes_is_not_in_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{"access_token":"MARKED-token"}\r\n')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AiohttpTransport() as transport:
        try:
            async with await transport.send(Request(method="GET", url=f"http://127.0.0.1:{port}/")) as response:
                await response.read()
        except OutcomeUnknownError:
            logging.getLogger("test").exception("broken")
        else:
            pytest.fail("the answer is broken")
    assert "broken" in caplog.text
    assert "MARKED" not in caplog.text
