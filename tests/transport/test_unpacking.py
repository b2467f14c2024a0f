"""Answers that are compressed, over each transport with sockets."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from nudgescribe_async.errors import OutcomeUnknownError, ResponseDecodeError
from nudgescribe_async.transport import Request, Transport
from nudgescribe_async.transport._unpacking import MOST_AT_ONCE
from nudgescribe_async.transport.aiohttp import AiohttpTransport
from nudgescribe_async.transport.httpx import HttpxTransport
from nudgescribe_async.transport.pyreqwest import PyreqwestTransport

ServeRaw = Callable[..., Awaitable[Any]]

MEGABYTE = 2**20
ROWS = b"".join(b"row %d\r\n" % number for number in range(20_000))


@pytest.fixture(params=[AiohttpTransport, HttpxTransport, PyreqwestTransport])
async def transport(request: pytest.FixtureRequest, serve_raw: ServeRaw) -> AsyncIterator[Transport]:
    """Closed before the server, which would wait for it."""
    made: Transport = request.param()
    yield made
    await made.aclose()


def without_frame(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


async def answering(serve_raw: ServeRaw, encoding: str, body: bytes) -> str:
    async def handler(_: Any, connection: Any) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
        await connection.say(head.encode() + body)

    return str((await serve_raw(handler)).url)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_body_beyond_its_limit_takes_little_more_memory_than_the_limit(
    transport: Transport, serve_raw: ServeRaw, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    url = await answering(serve_raw, encoding, pack(bytes(32 * MEGABYTE)))
    response = await transport.send(Request(method="GET", url=url))
    tracemalloc.start()
    try:
        with pytest.raises(ResponseDecodeError, match="longer than the 1,048,576 bytes allowed"):
            await response.read(limit=MEGABYTE)
        assert tracemalloc.get_traced_memory()[1] < 3 * MEGABYTE
    finally:
        tracemalloc.stop()


async def test_the_pieces_of_a_body_are_of_bounded_size(transport: Transport, serve_raw: ServeRaw) -> None:
    whole = bytes(3 * MEGABYTE + 1)
    url = await answering(serve_raw, "gzip", gzip.compress(whole))
    async with await transport.send(Request(method="GET", url=url)) as response:
        pieces = [piece async for piece in response.stream]
    assert b"".join(pieces) == whole
    assert 0 < min(map(len, pieces)) <= max(map(len, pieces)) <= MOST_AT_ONCE


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(ROWS)),
        ("GZip", gzip.compress(ROWS)),
        ("gzip", b"".join(gzip.compress(ROWS[start : start + 1_000]) for start in range(0, len(ROWS), 1_000))),
        ("gzip", gzip.compress(b"") + gzip.compress(ROWS) + gzip.compress(b"")),
        ("deflate", zlib.compress(ROWS)),
        ("deflate", without_frame(ROWS)),
    ],
    ids=["one member", "in capitals", "many members", "empty members", "deflate", "deflate without its frame"],
)
async def test_a_compressed_body_comes_whole(
    transport: Transport, serve_raw: ServeRaw, encoding: str, body: bytes
) -> None:
    url = await answering(serve_raw, encoding, body)
    assert await (await transport.send(Request(method="GET", url=url))).read(limit=len(ROWS)) == ROWS
    assert await (await transport.send(Request(method="GET", url=url))).read() == ROWS


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_no_body_at_all_is_not_a_broken_one(transport: Transport, serve_raw: ServeRaw, encoding: str) -> None:
    url = await answering(serve_raw, encoding, b"")
    assert await (await transport.send(Request(method="GET", url=url))).read() == b""


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(ROWS)[:-1]),
        ("gzip", gzip.compress(ROWS)[: len(gzip.compress(ROWS)) // 2]),
        ("gzip", gzip.compress(ROWS)[:5]),
        ("gzip", gzip.compress(ROWS) + gzip.compress(ROWS)[:-9]),
        ("gzip", gzip.compress(ROWS)[:-8] + bytes(8)),
        ("gzip", gzip.compress(ROWS) + b"and more"),
        ("gzip", ROWS),
        ("deflate", zlib.compress(ROWS)[:-1]),
        ("deflate", without_frame(ROWS)[:-1]),
        ("deflate", zlib.compress(ROWS)[:-4] + bytes(4)),
    ],
    ids=[
        "without its last byte",
        "half",
        "half a head",
        "half a second member",
        "another checksum",
        "what follows is no member",
        "no gzip",
        "deflate without its last byte",
        "deflate without its frame and its last byte",
        "deflate with another checksum",
    ],
)
async def test_a_damaged_body_is_never_taken_for_a_whole_one(
    transport: Transport, serve_raw: ServeRaw, encoding: str, body: bytes
) -> None:
    url = await answering(serve_raw, encoding, body)
    for limit in (None, 2 * len(ROWS)):
        response = await transport.send(Request(method="GET", url=url))
        with pytest.raises(OutcomeUnknownError, match=r"broke off, or is damaged\."):
            await response.read(limit=limit)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "utf-8", "identity"])
async def test_what_was_not_asked_for_is_left_as_it_comes(
    transport: Transport, serve_raw: ServeRaw, encoding: str
) -> None:
    url = await answering(serve_raw, encoding, ROWS)
    assert await (await transport.send(Request(method="GET", url=url))).read() == ROWS


async def test_a_given_transport_may_make_empty_pieces() -> None:
    class Pieces(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            packed = gzip.compress(ROWS)
            for piece in (b"", packed[:100], b"", packed[100:], b""):
                yield piece

    def answer(_: Any) -> Any:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Pieces())

    async with HttpxTransport(httpx.MockTransport(answer)) as transport:
        response = await transport.send(Request(method="GET", url="http://localhost/"))
        assert await response.read() == ROWS


async def test_a_given_transport_may_have_unpacked_it() -> None:
    def answer(_: Any) -> Any:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(ROWS))

    async with HttpxTransport(httpx.MockTransport(answer)) as transport:
        response = await transport.send(Request(method="GET", url="http://localhost/"))
        assert await response.read() == ROWS
