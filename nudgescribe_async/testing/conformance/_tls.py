"""Rules about TLS."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from nudgescribe_async.errors import RequestNotSentError
from nudgescribe_async.testing.conformance._bench import Bench, chunks, expect, within
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import Hanging, say_ok
from nudgescribe_async.testing.conformance._values import Need
from nudgescribe_async.transport import Request, StreamBody

__all__ = ["BOOK"]

BOOK: Final = RuleBook("tls", Need.SOCKET, Need.TLS)


async def _refused(bench: Bench, certificate: ssl.SSLContext, what: str, *, trusts: bool = True) -> None:
    server = await bench.raw(say_ok, tls=certificate)
    transport = await bench.transport(certificate_authority=bench.certificates.authority if trusts else None)
    for _ in range(2):
        with bench.expect_error(RequestNotSentError, what):
            await transport.send(Request(method="PUT", url=server.url, body=b"body"))
    expect(not server.requests, f"{what}: the request was sent.")


@BOOK.rule("It speaks TLS with a server whose certificate its authority has issued, and keeps the connection.")
async def trusted(bench: Bench) -> None:
    server = await bench.raw(say_ok, tls=bench.certificates.server())
    transport = await bench.transport(certificate_authority=bench.certificates.authority)
    for url in (server.url, f"https://localhost:{server.port}"):
        for _ in range(2):
            got = await bench.fetch(transport, Request(method="PUT", url=url, body=b"x" * 100_000))
            expect(got == b"ok", f"The answer was {got!r}.")
    expect(server.connections == 2, f"Four requests to two names took {server.connections} connections.")
    expect(all(request.body == b"x" * 100_000 for request in server.requests), "A body did not arrive whole.")


@BOOK.rule("A certificate of an authority that nobody knows is a RequestNotSentError.")
async def unknown_authority(bench: Bench) -> None:
    certificate = bench.certificates.server()
    await _refused(bench, certificate, "A certificate of an authority that nobody knows", trusts=False)


@BOOK.rule("A certificate for another host is a RequestNotSentError.")
async def another_host(bench: Bench) -> None:
    await _refused(bench, bench.certificates.server("elsewhere.example"), "A certificate for another host")


@BOOK.rule("A certificate that has expired is a RequestNotSentError.")
async def expired(bench: Bench) -> None:
    await _refused(bench, bench.certificates.server(expired=True), "A certificate that has expired")


@BOOK.rule("A server that speaks no TLS is a RequestNotSentError.")
async def no_tls(bench: Bench) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    transport = await bench.transport(certificate_authority=bench.certificates.authority)
    for speaks, what in ((nonsense, "speaks plain HTTP"), (nothing, "cuts the handshake")):
        async with await asyncio.start_server(speaks, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with bench.expect_error(RequestNotSentError, f"A server that {what}"):
                await transport.send(Request(method="PUT", url=f"https://127.0.0.1:{port}/", body=b"body"))


@BOOK.rule("An answer over TLS that is broken off is never taken for a whole one, and its connection is dropped.")
async def broken_off(bench: Bench) -> None:
    hanging = Hanging()
    server = await bench.raw(hanging.handler, tls=bench.certificates.server())
    transport = await bench.transport(certificate_authority=bench.certificates.authority)
    response = await transport.send(Request(method="GET", url=f"{server.url}/half"))
    await anext(aiter(response.stream))
    await response.aclose()
    await within(hanging.gone, "A response was closed in the middle, and its TLS connection is still there.")


@BOOK.rule("A stream can be uploaded over TLS.")
async def upload(bench: Bench) -> None:
    block = bytes(range(256)) * 256

    server = await bench.raw(say_ok, tls=bench.certificates.server())
    transport = await bench.transport(certificate_authority=bench.certificates.authority)
    for length in (None, 32 * len(block)):
        body = StreamBody(open=chunks(*[block] * 32), length=length)
        await bench.fetch(transport, Request(method="PUT", url=server.url, body=body))
        expect(server.requests[-1].body == block * 32, "What was uploaded did not arrive as it was.")
