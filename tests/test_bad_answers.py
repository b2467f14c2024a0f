"""Answers that no service should give: each is a typed error, soon, and in bounded memory."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from helpers import CREDENTIALS, ONCE, Server, names, watch

from nudgescribe_async import (
    CallOptions,
    ConfigurationError,
    DeadlineExceededError,
    Nudgescribe,
    NudgescribeError,
    OutcomeUnknownError,
    PageError,
    ResponseDecodeError,
    RetryPolicy,
)

MEGABYTE = 2**20
Call = Callable[[Nudgescribe], Awaitable[Any]]

READS: dict[str, Call] = {
    "a list": lambda ns: ns.customer_groups.list("w"),
    "an object": lambda ns: ns.customers.count_pages("g"),
    "a file": lambda ns: ns.messages.fetch("c", 1),
}
WRITES: dict[str, Call] = {
    "create": lambda ns: ns.customer_groups.create("w", "n"),
    "delete": lambda ns: ns.customer_groups.delete("w", "g"),
}
NONSENSE: dict[str, tuple[bytes, str]] = {
    "HTML": (b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Welcome</body></html>", "text/html"),
    "truncated JSON": (b'[{"customer_group_id": "1", "customer_gr', "application/json"),
    "empty": (b"", "application/json"),
    "a wrong type": (b'"seven"', "application/json"),
    "a number": (b"7e999", "application/json"),
    "invalid UTF-8": (b'[{"customer_group_id": "\xff\xfe"}]', "application/json"),
    "null": (b"null", "application/json"),
    "NUL bytes": (bytes(1_000), "application/json"),
    "deep": (b"[" * 100_000, "application/json"),
    "nested": (b"[" * 100_000 + b"]" * 100_000, "application/json"),
}
UNREADABLE = {"HTML", "truncated JSON", "empty", "a number", "NUL bytes", "deep"}
"""What a look at both ends shows to be no answer. The rest looks like one, and asking again would not help."""
WEB_PAGE = 'a web page ("Sign in")'
SOON = RetryPolicy(attempts=3, base=0.001)


def answering(body: bytes, content_type: str, **headers: str) -> Server:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, headers=headers)

    return Server(handle)


def streaming(chunks: Callable[[], AsyncIterator[bytes]], **headers: str) -> Server:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        response.content_type = "application/json"
        await response.prepare(request)
        try:
            async for chunk in chunks():
                await response.write(chunk)
            await response.write_eof()
        except ConnectionError:  # the client had enough
            pass
        return response

    return Server(handle)


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("read", ["a list", "an object"])
async def test_nonsense_in_place_of_json(read: str, nonsense: str) -> None:
    server = answering(*NONSENSE[nonsense])
    async with server, Nudgescribe(CREDENTIALS, base_url=server.url, retry=SOON) as ns:
        with pytest.raises(ResponseDecodeError) as caught:
            await READS[read](ns)
    error = caught.value
    assert error.unreadable == (nonsense in UNREADABLE)
    assert len(server.calls) == len(error.attempts) == (3 if error.unreadable else 1)
    assert error.operation is not None
    assert error.expected
    assert error.received
    assert "Welcome" not in str(error)
    assert error.advice.startswith("Something between you and the service") == error.unreadable
    if nonsense in {"HTML", "empty"}:
        assert error.message == f"The answer is {'empty' if nonsense == 'empty' else WEB_PAGE}, not JSON."


@pytest.mark.parametrize("nonsense", ["HTML", "truncated JSON", "empty", "null"])
@pytest.mark.parametrize("write", WRITES)
async def test_nonsense_in_answer_to_a_write_says_that_it_has_probably_taken_effect(write: str, nonsense: str) -> None:
    server = answering(*NONSENSE[nonsense])
    async with server, Nudgescribe(CREDENTIALS, base_url=server.url, retry=SOON) as ns:
        events = watch(ns)
        with pytest.raises(ResponseDecodeError, match="has probably taken effect") as caught:
            await WRITES[write](ns)
    assert names(events).count("EffectUnknown") == 1
    assert caught.value.may_have_taken_effect
    assert len(server.calls) == (3 if write == "delete" and nonsense in UNREADABLE else 1)


async def test_nonsense_now_and_then_is_no_failure_of_a_write_that_may_be_repeated() -> None:
    answers = [NONSENSE["HTML"], (b'{"success": true}', "application/json")]

    async def handle(_: web.Request) -> web.Response:
        body, kind = answers.pop(0)
        return web.Response(body=body, content_type=kind)

    async with Server(handle) as server, Nudgescribe(CREDENTIALS, base_url=server.url, retry=SOON) as ns:
        events = watch(ns)
        await ns.customer_groups.delete("w", "g")
    assert not answers
    assert "EffectUnknown" not in names(events)


@pytest.mark.parametrize("nonsense", sorted(UNREADABLE - {"deep"}))
@pytest.mark.parametrize("read", READS)
async def test_nonsense_now_and_then_is_no_failure_of_a_read(read: str, nonsense: str) -> None:
    answers = [NONSENSE[nonsense]] if read != "a file" else [NONSENSE["HTML"], NONSENSE["empty"]]
    good = {"a list": b"[]", "an object": b'{"pages": 1}', "a file": b"id\n1\n"}[read]

    async def handle(_: web.Request) -> web.Response:
        body, kind = answers.pop(0) if answers else (good, "text/csv" if read == "a file" else "application/json")
        return web.Response(body=body, content_type=kind)

    async with Server(handle) as server, Nudgescribe(CREDENTIALS, base_url=server.url, retry=SOON) as ns:
        await READS[read](ns)
    assert not answers


@pytest.mark.parametrize("nonsense", ["HTML", "invalid UTF-8"])
async def test_nonsense_in_place_of_a_message_file(nonsense: str) -> None:
    server = answering(*NONSENSE[nonsense])
    async with server, Nudgescribe(CREDENTIALS, base_url=server.url, retry=SOON) as ns:
        with pytest.raises(ResponseDecodeError):
            await ns.messages.fetch("c", 1)


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_nonsense_in_place_of_tokens(nonsense: str) -> None:
    body, content_type = NONSENSE[nonsense]

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with Nudgescribe(CREDENTIALS, base_url=url, retry=SOON) as ns:
            with pytest.raises(NudgescribeError) as caught:
                await ns.campaigns.list()
        assert "no token that can be read" in str(caught.value)
    finally:
        await runner.cleanup()


@pytest.mark.slow
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", ["100 MB", "gzip bomb", "deflate bomb", "never ends"])
async def test_an_answer_without_measure_is_an_error_in_bounded_memory(read: str, kind: str) -> None:
    piece = b"[" + b"0," * (MEGABYTE // 2)
    sent = 0

    async def garbage() -> AsyncIterator[bytes]:
        nonlocal sent
        while kind == "never ends" or sent < 100:
            sent += 1
            yield piece

    async def bomb() -> AsyncIterator[bytes]:
        nonlocal sent
        packer = zlib.compressobj(9, wbits=31 if kind == "gzip bomb" else 15)
        yield packer.compress(b"[") + packer.flush(zlib.Z_FULL_FLUSH)
        again = packer.compress(bytes(16 * MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
        while sent < 200:  # 3 GB if anybody unpacked it all
            sent += 1
            yield again

    encoding = {"gzip bomb": "gzip", "deflate bomb": "deflate"}.get(kind)
    server = streaming(garbage) if encoding is None else streaming(bomb, **{"Content-Encoding": encoding})
    limit = 8 * MEGABYTE
    async with server, Nudgescribe(CREDENTIALS, base_url=server.url, max_answer_bytes=limit, retry=ONCE) as ns:
        await ns.auth.authenticate()
        tracemalloc.start()
        try:
            with pytest.raises((ResponseDecodeError, OutcomeUnknownError)) as caught:
                await READS[read](ns)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 5 * limit
    assert len(server.calls) == 1
    if read == "a file" and encoding is None:
        assert "cut off" in str(caught.value) or "longer than" in str(caught.value)
    if isinstance(caught.value, ResponseDecodeError):
        assert "longer than the 8,388,608 bytes allowed" in str(caught.value)


async def test_an_answer_just_within_the_limit_is_read() -> None:
    body = b"[]" + b" " * 998
    async with answering(body, "application/json") as server:
        async with Nudgescribe(CREDENTIALS, base_url=server.url, max_answer_bytes=1_000) as ns:
            assert await ns.customer_groups.list("w") == []
        async with Nudgescribe(CREDENTIALS, base_url=server.url, max_answer_bytes=999) as ns:
            with pytest.raises(ResponseDecodeError, match="longer than the 999 bytes allowed") as caught:
                await ns.customer_groups.create("w", "n")
    assert "has probably taken effect" in str(caught.value)
    assert [(item.status, item.error) for item in caught.value.attempts] == [(None, "ResponseDecodeError")]


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, None, "1"])
def test_the_limit_is_a_number_of_bytes(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_answer_bytes must be a whole number above 0"):
        Nudgescribe(CREDENTIALS, max_answer_bytes=limit)


async def test_a_body_that_trickles_for_ever_ends_with_the_deadline() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"["
            await asyncio.sleep(0.01)

    async with streaming(trickle) as server, Nudgescribe(CREDENTIALS, base_url=server.url) as ns:
        await ns.auth.authenticate()
        with pytest.raises(DeadlineExceededError) as caught:
            await ns.customer_groups.list("w", options=CallOptions(timeout=0.2))
    assert caught.value.phase == "reading the answer"
    assert not caught.value.may_have_taken_effect


async def test_gzip_that_is_none_is_an_error() -> None:
    server = answering(b"this is no gzip", "application/json", **{"Content-Encoding": "gzip"})
    async with server, Nudgescribe(CREDENTIALS, base_url=server.url, retry=ONCE) as ns:
        with pytest.raises(OutcomeUnknownError):
            await ns.customer_groups.list("w")


async def test_gzip_that_is_cut_off_is_read_again_and_never_taken_for_the_whole() -> None:
    whole = gzip.compress(b"[" + b'{"customer_group_id":"g","customer_group_name":"n"},' * 1_000 + b"{}]")
    server = answering(whole[: len(whole) // 2], "application/json", **{"Content-Encoding": "gzip"})
    policy = RetryPolicy(attempts=3, base=0.001)
    async with server, Nudgescribe(CREDENTIALS, base_url=server.url, retry=policy) as ns:
        with pytest.raises(NudgescribeError) as caught:
            await ns.customer_groups.list("w")
    assert isinstance(caught.value, OutcomeUnknownError | ResponseDecodeError)


async def test_one_page_of_nonsense_ends_an_iteration_and_names_the_page() -> None:
    async def handle(request: web.Request) -> web.Response:
        asked = await request.json()
        if "page" not in asked:
            return web.json_response({"total_pages": 5})
        if asked["page"] == 3:
            return web.Response(text="<html>Oops</html>", content_type="text/html")
        return web.json_response([])

    async with Server(handle) as server, Nudgescribe(CREDENTIALS, base_url=server.url, retry=SOON) as ns:
        with pytest.raises(PageError) as caught:
            async with ns.customers.iter("g") as customers:
                [customer async for customer in customers]
    assert caught.value.page == 3
    assert isinstance(caught.value.__cause__, ResponseDecodeError)


async def test_a_refusal_without_measure_is_read_no_further_than_needed() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * MEGABYTE)
        except ConnectionError:
            return response

    async with Server(handle) as server, Nudgescribe(CREDENTIALS, base_url=server.url) as ns:
        await ns.auth.authenticate()
        tracemalloc.start()
        try:
            with pytest.raises(NudgescribeError, match="HTTP 400") as caught:
                await ns.customer_groups.list("w")
            assert tracemalloc.get_traced_memory()[1] < 16 * MEGABYTE
        finally:
            tracemalloc.stop()
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    "answered",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n12",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s"
        % (len(gzip.compress(b"12345")[:-10]), gzip.compress(b"12345")[:-10]),
    ],
)
async def test_a_number_that_may_have_been_cut_off_is_no_number_of_pages(answered: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        token = b'{"access_token": "a.b.c"}'
        ok = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(token), token)
        writer.write(ok if b"auth" in head.partition(b"\r\n")[0] else answered)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Nudgescribe(CREDENTIALS, base_url=url, retry=ONCE) as ns:
            with pytest.raises(OutcomeUnknownError, match=r"cut off|broke off"):
                await ns.customers.count_pages("g")
