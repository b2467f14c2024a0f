"""An answer that came before there was a question is nobody's answer."""

import asyncio
import contextlib
import socket
import ssl
import threading

import aiohttp
import pytest

from nudgescribe_async.errors import OutcomeUnknownError, RequestNotSentError
from nudgescribe_async.transport import Request
from nudgescribe_async.transport.aiohttp import AiohttpTransport


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def test_what_the_event_loop_has_not_seen_yet_is_noticed_too() -> None:
    """The second copy arrives in the very moment in which the next request takes the connection."""
    requests: list[bytes] = []
    loop_of_client = asyncio.get_running_loop()

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):
                while head := connection.recv(65_536):
                    requests.append(head)
                    connection.sendall(http(200, b"real"))
                    if len(requests) == 1:
                        answered.wait()
                        connection.sendall(http(200, b"stale"))
                        sent.set()

    answered, sent = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        async with AiohttpTransport() as transport:
            request = Request(method="PUT", url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1/cg", body=b"")
            async with await transport.send(request) as response:
                assert await response.read() == b"real"
            answered.set()
            sent.wait()  # blocks the event loop on purpose: it cannot have read the second copy
            async with await transport.send(request) as response:
                assert await response.read() == b"real"
        assert loop_of_client.is_running()
        listener.shutdown(socket.SHUT_RDWR)
    assert len(requests) == 2


async def test_a_server_that_speaks_first_is_not_connected_to_for_ever(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(http(503, b"overloaded"))
        await reader.read()  # until the client has gone
        writer.close()
        gone.set()

    gone = asyncio.Event()
    server_tls.maximum_version = ssl.TLSVersion.TLSv1_2  # the answer comes with the end of the handshake
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_tls)
    async with server, AiohttpTransport(ssl_context=client_tls) as transport:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/cg"
        with pytest.raises(RequestNotSentError):
            await transport.send(Request(method="PUT", url=url, body=b""))
        await gone.wait()
    assert connections == 1


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("the collector is down")], ids=repr)
async def test_a_hook_of_the_session_that_fails_after_the_answer_hides_no_effect(error: Exception) -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                requests += 1
                writer.write(http(200, b"done"))
        writer.close()

    async def hook(*_: object) -> None:
        raise error

    tracing = aiohttp.TraceConfig()
    tracing.on_request_end.append(hook)
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with (
        server,
        aiohttp.ClientSession(trace_configs=[tracing]) as session,
        AiohttpTransport(session) as transport,
    ):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/cg"
        with pytest.raises(OutcomeUnknownError):
            await transport.send(Request(method="PUT", url=url, body=b""))
        assert session.connector is not None
        assert not session.connector._acquired
    assert requests == 1
