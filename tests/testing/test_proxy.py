"""What each fault does on the wire, to both sides; that everything else passes; that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import logging
import re
import socket
import struct
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import pytest

from nudgescribe_async import Nudgescribe, OutcomeUnknownError, RetryPolicy
from nudgescribe_async.sandbox import Sandbox
from nudgescribe_async.testing import (
    Close,
    Corrupt,
    ProxyFault,
    Replace,
    Reset,
    Stall,
    Trickle,
    Truncate,
    _connection,
    _corruption,
    _ends,
    _framing,
    faults,
)
from nudgescribe_async.testing.proxy import Exchange, FaultProxy

SOON = 10.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED_ANSWER = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    b"5;name=value\r\nhello\r\n009\r\n\r\nwor\r\nld\r\n0\r\nX: y\r\n\r\n"
)


def both_loops(test: Callable[..., Awaitable[None]]) -> Any:
    """Run under asyncio and uvloop; what the event loop complains about fails the test."""
    signature = inspect.signature(test)

    @pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
    @functools.wraps(test)
    def run(loop_name: str, **arguments: Any) -> None:
        factory = None if loop_name == "asyncio" else pytest.importorskip("uvloop").new_event_loop
        complaints: list[dict[str, Any]] = []

        async def body() -> None:
            asyncio.get_running_loop().slow_callback_duration = 60.0  # debug mode would log what is only slow
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(60):
                await test(**arguments)
            await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left: {left}"

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(body())
        assert complaints == []

    loop_name = inspect.Parameter("loop_name", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted: Any = run
    wanted.__signature__ = signature.replace(parameters=[*signature.parameters.values(), loop_name])
    return wanted


def linger_not(writer: asyncio.StreamWriter) -> None:
    """Closing becomes a reset."""
    option = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)


class Upstream:
    """A server that keeps every byte it gets, and how each connection ended."""

    def __init__(self, answer: bytes | Callable[[Seen], Awaitable[None]] = ANSWER) -> None:
        self.answer = answer
        self.connections: list[Seen] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for seen in self.connections:
            seen.writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        seen = Seen(reader, writer)
        self.connections.append(seen)
        try:
            if callable(self.answer):
                await self.answer(seen)
            else:
                while await seen.request():
                    writer.write(self.answer)
        except ConnectionError:
            seen.end = "reset"
        except asyncio.CancelledError:
            pass  # asyncio.start_server would complain
        finally:
            seen.ended.set()
            writer.transport.abort()


class Seen:
    """One connection, as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.data = b""
        self.requests = 0
        self.end = ""
        self.ended = asyncio.Event()

    async def request(self) -> bool:
        """Read a request with a Content-Length or without a body."""
        head = await self._until(lambda data: b"\r\n\r\n" in data)
        if head is None:
            return False
        length = re.search(rb"Content-Length: (\d+)", head)
        start = head.index(b"\r\n\r\n") + 4
        self._rest = start + (int(length[1]) if length else 0)
        if await self._until(lambda data: len(data) >= self._rest) is None:
            return False
        self._used += self._rest
        self.requests += 1
        return True

    _used = 0
    _rest = 0

    async def _until(self, enough: Callable[[bytes], bool]) -> bytes | None:
        while not enough(self.data[self._used :]):
            piece = await self.reader.read(65536)
            if not piece:
                self.end = "eof"
                return None
            self.data += piece
        return self.data[self._used :]


class Wire:
    """A client that shows what comes, and how it ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.data = b""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def reset(self) -> None:
        linger_not(self.writer)
        self.writer.transport.abort()

    async def exactly(self, expected: bytes) -> None:
        assert await asyncio.wait_for(self.reader.readexactly(len(expected)), SOON) == expected

    async def end(self) -> str:
        """Read to the end, and say which."""
        try:
            while piece := await asyncio.wait_for(self.reader.read(65536), SOON):
                self.data += piece
        except ConnectionResetError:
            return "reset"
        return "eof"

    async def is_silent(self) -> bool:
        try:
            piece = await asyncio.wait_for(self.reader.read(1), 0.05)
        except TimeoutError:
            return True
        raise AssertionError(f"There came {piece!r}.")


@asynccontextmanager
async def wire(proxy: FaultProxy) -> AsyncIterator[Wire]:
    address = urlsplit(proxy.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def post(body: bytes = b"abcdefghij", path: str = "/v1/cg", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.001)


async def create_group(sandbox: Sandbox, proxy: FaultProxy, name: str = "A") -> BaseException | None:
    async with Nudgescribe(sandbox.credentials, base_url=proxy.url, retry=RetryPolicy(attempts=1)) as ns:
        try:
            await ns.customer_groups.create(sandbox.workspace_id, name)
        except OutcomeUnknownError as error:
            return error
    return None


# Ends of connections


HALF_REQUEST = post()[:-5]
HALF_ANSWER = ANSWER[:-5]


@pytest.mark.parametrize(
    ("at", "server_saw", "client_saw"),
    [
        ("before_request", b"", b""),
        ("in_request", HALF_REQUEST, b""),
        ("after_request", post(), b""),
        ("in_body", post(), HALF_ANSWER),
    ],
)
@pytest.mark.parametrize(("kind", "end"), [(Reset, "reset"), (Close, "eof")])
@both_loops
async def test_reset_and_close(kind: Any, end: str, at: Any, server_saw: bytes, client_saw: bytes) -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        injection = proxy.inject(kind(at=at))
        async with wire(proxy) as client:
            client.send(post())
            assert (await client.end(), client.data) == (end, client_saw)
        assert injection.fired == 1
        await until(lambda: not proxy.connections)
        for seen in upstream.connections:
            await seen.ended.wait()
        assert b"".join(seen.data for seen in upstream.connections) == server_saw
        if at == "in_request":
            assert [seen.end for seen in upstream.connections] == [end]
        async with wire(proxy) as client:  # the next one is spared
            client.send(post())
            await client.exactly(ANSWER)


@pytest.mark.parametrize("kind", [Reset, Close])
@both_loops
async def test_after_the_request_is_after_the_whole_answer(kind: Any) -> None:
    go_on = asyncio.Event()

    async def answer(seen: Seen) -> None:
        await seen.request()
        seen.writer.write(HALF_ANSWER)
        await go_on.wait()
        seen.writer.write(ANSWER[-5:])
        await seen.reader.read()

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        proxy.inject(kind(at="after_request"))
        client.send(post())
        assert await client.is_silent()
        go_on.set()
        assert await client.end() == ("reset" if kind is Reset else "eof")
        assert client.data == b""


@both_loops
async def test_truncate() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Truncate())
        async with wire(proxy) as client:
            client.send(post())
            assert (await client.end(), client.data) == ("eof", HALF_ANSWER)
        assert upstream.connections[0].requests == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 204 No Content\r\nDate: 1\r\n\r\n", b"HTTP/1.1 204 No Co"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nCo"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd",
        ),
    ],
)
@both_loops
async def test_the_middle_of_other_answers(answer: bytes, expected: bytes) -> None:
    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Truncate())
        async with wire(proxy) as client:
            client.send(post())
            assert (await client.end(), client.data) == ("eof", expected)


@both_loops
async def test_half_of_a_request_without_a_body() -> None:
    head = b"GET /v1/auth HTTP/1.1\r\nHost: x\r\n\r\n"
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Reset(at="in_request"), operation="auth.reauthenticate")
        async with wire(proxy) as client:
            client.send(head)
            assert await client.end() == "reset"
        await upstream.connections[0].ended.wait()
        assert upstream.connections[0].data == head[: len(head) // 2]


@both_loops
async def test_half_of_a_large_body() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Close(at="in_request"))
        body = bytes(3_000_000)
        async with wire(proxy) as client:
            client.send(post(body))
            assert await client.end() == "eof"
        await upstream.connections[0].ended.wait()
        assert len(upstream.connections[0].data) == len(post(body)) - 1_500_000


@both_loops
async def test_closing_in_good_order_is_no_reset_for_a_client_that_still_sends() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Close(at="before_request"))
        async with wire(proxy) as client:
            client.send(post(bytes(64_000_000)))  # more than the kernel holds
            await asyncio.wait_for(client.writer.drain(), SOON)
            assert await client.end() == "eof"
        assert upstream.connections == []


@pytest.mark.parametrize(
    ("fault", "effects"),
    [
        (Reset(at="before_request"), 0),
        (Reset(at="in_request"), 0),
        (Reset(at="after_request"), 1),
        (Reset(at="in_body"), 1),
        (Close(at="before_request"), 0),
        (Close(at="in_request"), 0),
        (Close(at="after_request"), 1),
        (Close(at="in_body"), 1),
        (Truncate(), 1),
        (Corrupt(where="status"), 1),
        (Corrupt(where="head"), 1),
    ],
    ids=str,
)
@both_loops
async def test_what_a_real_service_has_done(fault: ProxyFault, effects: int) -> None:
    async with Sandbox() as sandbox, FaultProxy(sandbox.url) as proxy:
        proxy.inject(fault, operation="customer_groups.create")
        assert await create_group(sandbox, proxy) is not None
        assert sandbox.effects.get("customer_groups.create", 0) == effects
        assert await create_group(sandbox, proxy, "B") is None
        assert sandbox.effects["customer_groups.create"] == effects + 1
        assert proxy.count("customer_groups.create") == 2


# Stalls


@both_loops
async def test_a_request_that_is_not_read() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Stall(at="request"))
        async with wire(proxy) as client:
            client.send(post(bytes(64_000_000)))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.writer.drain(), 0.2)
            assert proxy.connections == 1
            client.reset()
        await until(lambda: not proxy.connections)
        assert upstream.connections == []


@pytest.mark.parametrize("reset", [False, True])
@both_loops
async def test_it_is_noticed_that_a_client_leaves_that_is_not_read_from(reset: bool) -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Stall(at="request"))
        async with wire(proxy) as client:
            client.send(post())
            await until(lambda: not proxy.injections)
            if reset:
                client.reset()
        await until(lambda: not proxy.connections)
        assert upstream.connections == []


@both_loops
async def test_answers_that_do_not_begin_or_go_on() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Stall(at="head"))
        proxy.inject(Stall(at="body"))
        async with wire(proxy) as first, wire(proxy) as second:
            first.send(post())
            assert await first.is_silent()
            second.send(post())
            await second.exactly(HALF_ANSWER)
            assert await second.is_silent()
            assert [seen.requests for seen in upstream.connections] == [1, 1]
        await until(lambda: not proxy.connections)


@pytest.mark.parametrize("at", ["request", "head", "body"])
@both_loops
async def test_a_stall_that_ends(at: Any) -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Stall(at=at, seconds=0.2))
        async with wire(proxy) as client:
            client.send(post(bytes(1_000_000)))
            if at == "body":
                await client.exactly(HALF_ANSWER)
            assert await client.is_silent()
            await client.exactly(ANSWER[-5:] if at == "body" else ANSWER)
            client.send(post())
            await client.exactly(ANSWER)


# Slow, corrupted and replaced answers


class Arrivals(asyncio.Protocol):
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)


@both_loops
async def test_a_trickle_comes_byte_by_byte() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Trickle(pause=0.002))
        transport, arrivals = await asyncio.get_running_loop().create_connection(
            Arrivals, "127.0.0.1", int(proxy.url.rpartition(":")[2])
        )
        transport.write(post())
        await until(lambda: sum(map(len, arrivals.pieces)) == len(ANSWER))
        assert b"".join(arrivals.pieces) == ANSWER
        assert len(arrivals.pieces) > len(ANSWER) / 2  # a busy machine may read two at once
        arrivals.pieces.clear()
        transport.write(post())
        await until(lambda: sum(map(len, arrivals.pieces)) == len(ANSWER))
        assert len(arrivals.pieces) < 3
        transport.abort()
        await asyncio.sleep(0)


async def corrupted(where: Any, seed: int | None, answer: bytes) -> bytes:
    async with Upstream(answer) as upstream, FaultProxy(upstream.url, seed=seed) as proxy:
        proxy.inject(Corrupt(where=where))
        async with wire(proxy) as client:
            client.send(post())
            client.writer.write_eof()
            await client.end()
            return client.data


@both_loops
async def test_a_corrupt_status_line() -> None:
    data = await corrupted("status", 1, ANSWER)
    line, _, rest = data.partition(b"\r\n")
    assert line.isalpha()
    assert rest == ANSWER.partition(b"\r\n")[2]


@both_loops
async def test_a_corrupt_head() -> None:
    data = await corrupted("head", 1, ANSWER)
    lines, wanted = data.split(b"\r\n"), ANSWER.split(b"\r\n")
    assert lines[:1] + lines[2:] == wanted
    assert b":" not in lines[1]
    assert lines[1]


@pytest.mark.parametrize("answer", [ANSWER, CHUNKED_ANSWER], ids=["length", "chunked"])
@both_loops
async def test_a_corrupt_body(answer: bytes) -> None:
    data = await corrupted("body", 1, answer)
    assert len(data) == len(answer)
    changed = [position for position, (old, new) in enumerate(zip(answer, data, strict=True)) if old != new]
    assert changed
    assert min(changed) == answer.index(b"0123" if answer is ANSWER else b"hello")
    assert {answer[position] ^ data[position] for position in changed} == {0x80}
    with pytest.raises(UnicodeDecodeError):
        data.decode()


@both_loops
async def test_corruption_depends_on_nothing_but_the_seed() -> None:
    body = bytes(range(32, 127)) * 100
    sized = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    cut = [body[start : start + 700] for start in range(0, len(body), 700)]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*cut, b""]
    )
    first = (await corrupted("body", 7, sized)).partition(b"\r\n\r\n")[2]
    assert first == (await corrupted("body", 7, sized)).partition(b"\r\n\r\n")[2]
    assert first != (await corrupted("body", 8, sized)).partition(b"\r\n\r\n")[2]
    assert first != body
    unframed = re.sub(rb"(^|\r\n)[0-9a-f]+\r\n", b"", (await corrupted("body", 7, chunked)).partition(b"\r\n\r\n")[2])
    assert unframed.removesuffix(b"\r\n") == first
    assert await corrupted("status", 7, ANSWER) == await corrupted("status", 7, ANSWER)
    assert await corrupted("head", 7, ANSWER) == await corrupted("head", 7, ANSWER)
    assert await corrupted("head", 7, ANSWER) != await corrupted("head", 8, ANSWER)


@pytest.mark.parametrize("where", ["status", "head"])
@both_loops
async def test_aiohttp_refuses_what_is_corrupt(where: Any) -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy, aiohttp.ClientSession() as session:
        proxy.inject(Corrupt(where=where))
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"{proxy.url}/v1/cg", data=b"x")
        async with session.post(f"{proxy.url}/v1/cg", data=b"x") as response:
            assert await response.read() == b"0123456789"


@both_loops
async def test_a_replaced_answer() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Replace(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nNo", then="keep"), times=2)
        proxy.inject(Replace(raw=b"nonsense"), skip=1)
        async with wire(proxy) as client:
            for _ in range(2):
                client.send(post(bytes(500_000)))
                await client.exactly(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nNo")
            assert upstream.connections == []
            client.send(post())
            await client.exactly(ANSWER)
            client.send(post())
            assert (await client.end(), client.data) == ("eof", b"nonsense")
        assert upstream.connections[0].requests == 1


@both_loops
async def test_an_endless_answer() -> None:
    closed = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"HTTP/1.1 200 OK\r\n\r\n"
            while True:
                yield b"x" * 10_000
        finally:
            closed.set()

    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Replace(raw=pieces))
        async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}/v1/auth") as response:
            assert await response.content.readexactly(5_000_000) == b"x" * 5_000_000
            response.close()
        await asyncio.wait_for(closed.wait(), SOON)
        await until(lambda: not proxy.connections)


@both_loops
async def test_an_answer_that_waits_for_ever_ends_with_its_client() -> None:
    closed = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"HTTP"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Replace(raw=pieces))
        async with wire(proxy) as client:
            client.send(post())
            await client.exactly(b"HTTP")
        await asyncio.wait_for(closed.wait(), SOON)


@both_loops
async def test_an_iterator_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"HTTP"
        raise RuntimeError("a defect of the test")

    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Replace(raw=pieces))
        async with wire(proxy) as client:
            client.send(post())
            assert await client.end() == "reset"
    assert "a defect of the test" in caplog.text
    caplog.clear()


@both_loops
async def test_a_replaced_answer_asks_for_the_body_itself() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        proxy.inject(Replace(raw=ANSWER, then="keep"))
        async with wire(proxy) as client:
            client.send(post(Expect="100-continue")[:-10])
            await client.exactly(b"HTTP/1.1 100 Continue\r\n\r\n")
            client.send(b"abcdefghij")
            await client.exactly(ANSWER)
        assert upstream.connections == []


# Which exchange


@both_loops
async def test_a_fault_befalls_one_of_many_exchanges_on_a_connection() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        injection = proxy.inject(Reset(at="after_request"), operation="customer_groups.list", skip=3)
        async with wire(proxy) as client:
            for _ in range(3):
                client.send(post())
                client.send(post(path="/v1/campaign/all"))  # ahead of the first answer
                await client.exactly(ANSWER * 2)
            client.send(post(path="/v1/campaign/all"))
            await client.exactly(ANSWER)
            client.send(post())
            assert await client.end() == "reset"
        assert (injection.fired, proxy.injections) == (1, ())
        assert len(upstream.connections) == 1
        assert upstream.connections[0].requests == 8


@both_loops
async def test_the_log() -> None:
    async with Upstream() as upstream, FaultProxy(f"{upstream.url}/behind") as proxy:
        assert proxy.url.endswith("/behind")
        fault = Corrupt(where="body")
        proxy.inject(fault, operation="customer_groups.list")
        async with wire(proxy) as client:
            for path in ("/behind/elsewhere?token=secret", "/behind/v1/cg?token=secret", "/v1/cg"):
                client.send(post(path=path))
                await asyncio.wait_for(client.reader.readexactly(len(ANSWER)), SOON)
        assert proxy.log == (
            Exchange(operation=None, method="POST", path="/behind/elsewhere", fault=None),
            Exchange(operation="customer_groups.list", method="POST", path="/behind/v1/cg", fault=fault),
            Exchange(operation="customer_groups.list", method="POST", path="/v1/cg", fault=None),
        )
        assert (proxy.count(), proxy.count("customer_groups.list"), proxy.count("customers.list")) == (3, 2, 0)
        with pytest.raises(ValueError, match=r"There is no operation 'customers.lst'"):
            proxy.count("customers.lst")


@both_loops
async def test_many_at_once_with_a_share_of_faults() -> None:
    async with Sandbox() as sandbox, FaultProxy(sandbox.url, seed=3) as proxy, aiohttp.ClientSession() as session:
        faults: list[ProxyFault] = [
            Reset(at="before_request"),
            Close(at="after_request"),
            Truncate(),
            Corrupt(where="status"),
            Replace(raw=b"HTTP/1.1 600 ?\r\n\r\n"),
        ]
        injections = [proxy.inject(fault, times=None, share=0.1) for fault in faults]
        outcomes: Counter[str] = Counter()

        async def call(number: int) -> None:
            body = b"x" * (number % 7) * 20_000
            try:
                async with session.post(f"{proxy.url}/v1/campaign/all", data=body) as response:
                    await response.read()
                    outcomes[str(response.status)] += 1
            except (aiohttp.ClientError, ConnectionError):
                outcomes["error"] += 1

        async def calls(first: int) -> None:
            for number in range(first, first + 10):
                await call(number)

        await asyncio.gather(*map(calls, range(40)))
        fired = [injection.fired for injection in injections]
        assert all(fired)
        assert outcomes["600"] == fired[-1]
        assert outcomes["error"] == sum(fired[:-1])
        assert outcomes.total() == proxy.count() == 400
        proxy.clear()
        assert proxy.injections == ()
        async with session.post(f"{proxy.url}/v1/campaign/all") as response:
            assert response.status < 500


def test_the_same_seed_chooses_the_same_requests() -> None:
    def chosen(seed: int) -> list[bool]:
        proxy = FaultProxy("http://127.0.0.1:1", seed=seed)
        proxy.inject(Truncate(), times=None, share=0.5)
        return [proxy._decide("POST", "/v1/cg") is not None for _ in range(50)]

    assert chosen(1) == chosen(1) != chosen(2)


# What passes


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("POST", ANSWER),
        ("POST", CHUNKED_ANSWER),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + ANSWER),
        ("POST", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        ("POST", b"HTTP/1.1 204 No Content\nServer: bare line feeds\n\n"),
    ],
)
@both_loops
async def test_answers_pass_as_they_are_on_a_connection_that_stays(method: str, answer: bytes) -> None:
    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy:
        async with wire(proxy) as client:
            for _ in range(3):
                client.send(post().replace(b"POST", method.encode(), 1))
                await client.exactly(answer)
        assert len(upstream.connections) == 1
        assert proxy.count() == 3


@both_loops
async def test_chunks_pass_however_they_are_cut() -> None:
    request = b"POST /v1/cg HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED_ANSWER.partition(b"\r\n\r\n")[2]

    async def answer(seen: Seen) -> None:
        for _ in range(2):
            seen.data += await seen.reader.readexactly(len(request))
            for position in range(len(CHUNKED_ANSWER)):
                seen.writer.write(CHUNKED_ANSWER[position : position + 1])
                await asyncio.sleep(0)
        await seen.reader.read()

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy:
        async with wire(proxy) as client:
            for position in range(len(request)):
                client.send(request[position : position + 1])
                await asyncio.sleep(0)
            await client.exactly(CHUNKED_ANSWER)
            client.send(request)
            await client.exactly(CHUNKED_ANSWER)
        assert upstream.connections[0].data == request * 2
        assert proxy.count() == 2


@pytest.mark.parametrize("chunks", [b"5\r\nhello\r\n-1\r\n", b"nonsense\r\n", b"1" * 100_000])
@both_loops
async def test_chunks_that_are_wrong_pass_too(chunks: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    request = b"POST /v1/cg HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks

    async def serve(seen: Seen) -> None:
        seen.data = await seen.reader.readexactly(len(request))
        seen.writer.write(answer)
        assert await seen.reader.read() == b"more"

    async with Upstream(serve) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        client.send(request)
        await client.exactly(answer)
        client.send(b"more")
        client.writer.write_eof()
        assert await client.end() == "eof"
        assert upstream.connections[0].data == request


@both_loops
async def test_an_answer_that_ends_with_the_connection() -> None:
    async def answer(seen: Seen) -> None:
        await seen.request()
        seen.writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(1_000_000))
        await seen.writer.drain()
        seen.writer.close()
        await seen.writer.wait_closed()

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        client.send(post())
        assert await client.end() == "eof"
        assert len(client.data) == 1_000_019


@both_loops
async def test_the_client_is_asked_for_the_body() -> None:
    async def answer(seen: Seen) -> None:
        await seen.reader.readuntil(b"\r\n\r\n")
        seen.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await seen.reader.readexactly(10) == b"abcdefghij"
        seen.writer.write(ANSWER)
        await seen.reader.read()

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        client.send(post(Expect="100-continue")[:-10])
        await client.exactly(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"abcdefghij")
        await client.exactly(ANSWER)


@both_loops
async def test_an_answer_before_the_request_is_complete() -> None:
    async def answer(seen: Seen) -> None:
        await seen.reader.readuntil(b"\r\n\r\n")
        seen.writer.write(ANSWER)
        await seen.reader.readexactly(1_000_000)
        await seen.request()
        seen.writer.write(ANSWER)
        await seen.reader.read()

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        request = post(bytes(1_000_000))
        client.send(request[:1_000])
        await client.exactly(ANSWER)
        client.send(request[1_000:] + post())
        await client.exactly(ANSWER)
        assert proxy.count() == 2


@both_loops
async def test_a_server_that_answers_early_and_closes() -> None:
    async def answer(seen: Seen) -> None:
        await seen.reader.readuntil(b"\r\n\r\n")
        seen.writer.write(ANSWER)
        seen.writer.write_eof()
        while await seen.reader.read(65536):
            pass

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        client.send(post(bytes(100_000))[:50_000])
        assert (await client.end(), client.data) == ("eof", ANSWER)


@both_loops
async def test_other_protocols_pass() -> None:
    async def answer(seen: Seen) -> None:
        line = await seen.reader.readline()
        if line.startswith(b"GET"):
            await seen.reader.readuntil(b"\r\n\r\n")
            seen.writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        else:
            assert line == b"not http\n"
        while data := await seen.reader.read(100):
            seen.writer.write(data.upper())

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy:
        async with wire(proxy) as client:
            client.send(b"GET /v1/auth HTTP/1.1\r\nUpgrade: x\r\n\r\n")
            await client.exactly(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            client.send(b"hello")
            await client.exactly(b"HELLO")
            client.writer.write_eof()
            assert await client.end() == "eof"
        async with wire(proxy) as client:
            client.send(b"not http\n\r\n\r\n")
            await client.exactly(b"\r\n\r\n")
            client.send(b"hello")
            await client.exactly(b"HELLO")
        assert proxy.count() == 1


@pytest.mark.slow
@both_loops
async def test_a_large_upload_takes_no_memory() -> None:
    size, piece = 256 * 2**20, bytes(2**18)

    async def answer(seen: Seen) -> None:
        await seen.reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await seen.reader.read(2**18))
        seen.writer.write(ANSWER)
        await seen.reader.read()

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        tracemalloc.start()
        try:
            client.send(b"POST /v1/customer/check HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // len(piece)):
                client.send(piece)
                await client.writer.drain()
            await client.exactly(ANSWER)
            assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        finally:
            tracemalloc.stop()


@both_loops
async def test_a_slow_server_slows_the_client_down() -> None:
    async def answer(seen: Seen) -> None:
        await asyncio.Event().wait()

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        client.send(b"POST /v1/customer/check HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n")
        sent, piece = 0, bytes(2**20)
        with contextlib.suppress(TimeoutError):
            while sent < 200 * 2**20:
                client.send(piece)
                await asyncio.wait_for(client.writer.drain(), 0.3)
                sent += len(piece)
        assert sent < 100 * 2**20  # what the kernel holds of three sockets
        (connection,) = proxy._connections
        assert all(len(end.buffer) < 2**20 for end in connection.ends())


@both_loops
async def test_a_slow_client_slows_the_server_down() -> None:
    sent = 0

    async def answer(seen: Seen) -> None:
        nonlocal sent
        await seen.request()
        seen.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while sent < 200 * 2**20:
            seen.writer.write(bytes(2**20))
            await seen.writer.drain()
            sent += 2**20

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(post())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 100 * 2**20
        (connection,) = proxy._connections
        assert all(len(end.buffer) < 2**20 for end in connection.ends())


# Both sides do as the other does


@both_loops
async def test_a_server_that_cannot_be_reached() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with FaultProxy(f"http://127.0.0.1:{bound.getsockname()[1]}") as proxy, wire(proxy) as client:
            client.send(post())
            assert await client.end() == "reset"
            await until(lambda: not proxy.connections)


@pytest.mark.parametrize("end", ["eof", "reset"])
@pytest.mark.parametrize("when", ["idle", "in_head", "in_body"])
@both_loops
async def test_what_the_server_does_the_client_sees(end: str, when: str) -> None:
    first = {"idle": ANSWER, "in_head": b"HTTP/1.1 2", "in_body": HALF_ANSWER}[when]
    go_on = asyncio.Event()

    async def answer(seen: Seen) -> None:
        await seen.request()
        seen.writer.write(first)
        await go_on.wait()
        if end == "reset":
            linger_not(seen.writer)

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        client.send(post())
        if when == "in_head":  # held back until it is complete or known not to come
            await until(lambda: bool(upstream.connections))
        else:
            await client.exactly(first)
        go_on.set()
        assert await client.end() == end
        if when == "in_head" and end == "eof":
            assert client.data == first


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("when", ["idle", "in_request", "in_answer"])
@both_loops
async def test_a_client_that_leaves(when: str, reset: bool) -> None:
    async def answer(seen: Seen) -> None:
        await seen.request()
        if when == "idle":
            seen.writer.write(ANSWER)
        assert await seen.reader.read() == b""

    async with Upstream(answer) as upstream, FaultProxy(upstream.url) as proxy:
        async with wire(proxy) as client:
            client.send(post()[:-3] if when == "in_request" else post())
            await until(lambda: bool(upstream.connections) and bool(upstream.connections[0].data))
            if when == "idle":
                await client.exactly(ANSWER)
            if reset:
                client.reset()
        await asyncio.wait_for(upstream.connections[0].ended.wait(), SOON)
        await until(lambda: not proxy.connections)


# Refusing


async def refused(proxy: FaultProxy) -> bool:
    try:
        async with wire(proxy):
            return False
    except ConnectionRefusedError:
        return True


@both_loops
async def test_refusing_and_accepting_again() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy:
        url = proxy.url
        for _ in range(3):
            async with wire(proxy) as idle, wire(proxy) as busy:
                idle.send(post())
                await idle.exactly(ANSWER)
                proxy.inject(Stall(at="head"))
                busy.send(post())
                await until(lambda: not proxy.injections)
                await proxy.refuse()
                assert proxy.connections == 0
                assert [await idle.end(), await busy.end()] == ["reset", "reset"]
            assert await refused(proxy)
            await proxy.refuse()
            assert await refused(proxy)
            await proxy.accept()
            await proxy.accept()
            assert proxy.url == url
            async with wire(proxy) as client:
                client.send(post())
                await client.exactly(ANSWER)


@both_loops
async def test_connections_can_be_kept() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy, wire(proxy) as client:
        client.send(post())
        await client.exactly(ANSWER)
        async with proxy.down(keep_connections=True):
            assert await refused(proxy)
            client.send(post())
            await client.exactly(ANSWER)
        assert not await refused(proxy)
        down = proxy.down()
        await down.__aenter__()
        assert await client.end() == "reset"
        assert await refused(proxy)
        assert not await down.__aexit__(KeyError, KeyError(), None)
        assert not await refused(proxy)


@both_loops
async def test_the_port_is_kept_while_refusing() -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url) as proxy, proxy.down():
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(proxy.url.rpartition(":")[2])))


# Closing


@pytest.mark.parametrize("cancelled", [False, True])
@both_loops
async def test_closing_in_the_middle_of_everything(caplog: pytest.LogCaptureFixture, cancelled: bool) -> None:
    async def answer(seen: Seen) -> None:
        await seen.request()
        seen.writer.write(ANSWER[:-1])
        await asyncio.Event().wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000

    faults = [
        Stall(at="request"),
        Stall(at="head"),
        Stall(at="body"),
        Trickle(pause=100),
        Close(at="before_request"),
        Close(at="after_request"),
        Replace(raw=endless),
        None,
    ]
    loop = asyncio.get_running_loop()
    caplog.set_level(logging.WARNING)
    async with Upstream(answer) as upstream, contextlib.AsyncExitStack() as clients:
        proxy = FaultProxy(upstream.url)
        await proxy.__aenter__()
        for body in (b"x" * 10, bytes(10_000_000)):
            for fault in faults:
                client = await clients.enter_async_context(wire(proxy))
                if fault is not None:
                    proxy.inject(fault)
                client.send(post(body))
                await until(lambda: not proxy.injections)
        await clients.enter_async_context(wire(proxy))  # says nothing
        arriving = loop.create_task(clients.enter_async_context(wire(proxy)))
        assert proxy.connections >= len(faults) * 2
        closing = loop.create_task(proxy.aclose())
        await asyncio.sleep(0)
        if cancelled:
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        await closing if not cancelled else None
        assert proxy.connections == 0
        await asyncio.wait({arriving})
        if arriving.exception() is None:
            assert await arriving.result().end()
        assert await refused(proxy)
        await proxy.aclose()
    gc.collect()  # a socket that was forgotten would warn
    assert [record for record in caplog.records if record.name.startswith(("asyncio", "nudgescribe"))] == []


@both_loops
async def test_it_can_be_entered_once() -> None:
    proxy = FaultProxy("http://127.0.0.1:1")
    with pytest.raises(RuntimeError, match="enter it"):
        _ = proxy.url
    with pytest.raises(RuntimeError, match="not running"):
        await proxy.refuse()
    async with proxy:
        pass
    with pytest.raises(RuntimeError, match="not running"):
        await proxy.accept()
    with pytest.raises(RuntimeError, match="entered once"):
        await proxy.__aenter__()


@both_loops
async def test_a_port_that_is_taken() -> None:
    async with FaultProxy("http://127.0.0.1:1") as proxy:
        with pytest.raises(OSError, match="in use"):
            await FaultProxy("http://127.0.0.1:1", port=int(proxy.url.rpartition(":")[2])).__aenter__()


@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.2"])
@both_loops
async def test_hosts_of_loopback(host: str) -> None:
    async with Upstream() as upstream, FaultProxy(upstream.url, host=host) as proxy, aiohttp.ClientSession() as session:
        assert await (await session.get(proxy.url)).read() == b"0123456789"


# What is no fault

BAD_INJECTIONS = [
    ({"operation": ["customers.list"]}, TypeError, 'operation must be a text such as "customers.list", not list'),
    ({"operation": "customer_group.list"}, ValueError, "no operation 'customer_group.list'. Perhaps customer_groups"),
    ({"skip": None}, TypeError, "skip must be a whole number, 0 or more; got None"),
    ({"skip": -1}, ValueError, "skip must be a whole number, 0 or more; got -1"),
    ({"share": 0}, ValueError, "share must be a number above 0 and up to 1; got 0"),
    ({"share": 1.5}, ValueError, "share must be a number above 0 and up to 1; got 1.5"),
    ({"share": None}, TypeError, "share must be a number above 0 and up to 1; got None"),
    ({"times": 0}, ValueError, "times must be a whole number, 1 or more, or None for ever; got 0"),
    ({"times": 1.5}, TypeError, "times must be .*; got float"),
    ({"times": True}, TypeError, "times must be .*; got bool"),
    ({"seconds": 0}, ValueError, "seconds must be a number above 0 and finite, or None for ever; got 0"),
    ({"seconds": float("nan")}, ValueError, "seconds must be .*; got nan"),
    ({"seconds": 10**400}, ValueError, "seconds must be .*; got 1000"),
    ({"seconds": "1"}, TypeError, "seconds must be .*; got str"),
]

LOOSE: dict[Any, Any] = {kind: kind for kind in (Reset, Close, Stall, Trickle, Corrupt, Replace, FaultProxy)}


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: LOOSE[Reset](at="request"), ValueError, "Reset.at must be one of 'before_request', .*; got 'request'"),
        (lambda: LOOSE[Close](at=None), TypeError, "Close.at must be one of .*; got NoneType"),
        (lambda: LOOSE[Stall](at="in_body"), ValueError, "Stall.at"),
        (
            lambda: LOOSE[Stall](at="head", seconds=-1),
            ValueError,
            "Stall.seconds must be a number of seconds, 0 or more",
        ),
        (lambda: LOOSE[Stall](at="head", seconds=True), TypeError, "Stall.seconds"),
        (lambda: LOOSE[Trickle](pause=float("nan")), ValueError, "Trickle.pause"),
        (lambda: LOOSE[Trickle](pause="1"), TypeError, "Trickle.pause .*not str"),
        (lambda: LOOSE[Corrupt](where="all"), ValueError, "Corrupt.where"),
        (lambda: LOOSE[Replace](raw="text"), TypeError, "Replace.raw must be bytes"),
        (lambda: LOOSE[Replace](raw=b"", then="stall"), ValueError, "Replace.then"),
        (lambda: LOOSE[Reset]("in_body"), TypeError, "positional"),
        (
            lambda: LOOSE[FaultProxy]("http://127.0.0.1:1").inject(ProxyFault()),
            TypeError,
            "fault must be one of Reset, ",
        ),
        (
            lambda: LOOSE[FaultProxy]("http://127.0.0.1:1").inject(Truncate(), operation="x"),
            ValueError,
            "no operation 'x'",
        ),
        (
            lambda: LOOSE[FaultProxy]("http://127.0.0.1:1", host="0.0.0.0"),
            ValueError,
            "host must be on loopback: whoever can",
        ),
        (lambda: LOOSE[FaultProxy]("http://127.0.0.1:1", host=""), ValueError, "host must be on loopback"),
        (
            lambda: LOOSE[FaultProxy]("http://api.example.test"),
            ValueError,
            "upstream must be on this machine: the proxy",
        ),
        (lambda: LOOSE[FaultProxy]("https://127.0.0.1:1"), ValueError, "upstream must begin with http://"),
        (lambda: LOOSE[FaultProxy]("http://user:geheim@127.0.0.1:1"), ValueError, "and nothing else.$"),
        (lambda: LOOSE[FaultProxy]("http://127.0.0.1:x"), ValueError, "cannot be read"),
        (lambda: LOOSE[FaultProxy](None), TypeError, "upstream must be an address"),
        (lambda: LOOSE[FaultProxy]("http://127.0.0.1:1", port="1"), TypeError, "port must be a whole .*; got str"),
        (lambda: LOOSE[FaultProxy]("http://127.0.0.1:1", port=65_536), ValueError, "port must be .*; got 65536"),
        (lambda: LOOSE[FaultProxy]("http://127.0.0.1:1", seed="1"), TypeError, "seed must be a whole .*; got str"),
    ],
)
def test_what_cannot_be_right(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(("options", "error", "message"), BAD_INJECTIONS)
def test_an_injection_that_cannot_be_is_refused(options: Any, error: type[Exception], message: str) -> None:
    proxy = FaultProxy("http://127.0.0.1:1")
    with pytest.raises(error, match=message):
        proxy.inject(Truncate(), **options)
    assert proxy.injections == ()


def test_what_is_no_operation_is_not_counted() -> None:
    proxy = FaultProxy("http://127.0.0.1:1")
    with pytest.raises(TypeError, match=r"operation must be a text .*, not list"):
        proxy.count(["customers.list"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Perhaps customer_groups\.list"):
        proxy.count("customer_group.list")


def test_faults_are_values() -> None:
    values: list[ProxyFault] = [Reset(at="in_body"), Reset(at="in_body"), Close(at="in_body")]
    assert values[0] == values[1] != values[2]
    assert len({Truncate(), Truncate(), Trickle()}) == 2
    assert repr(Replace(raw=b"a" * 5_000)) == "Replace(raw=<5,000 bytes>, then='close')"
    with pytest.raises(AttributeError):
        Truncate().at = "x"  # type: ignore[attr-defined]


def test_it_needs_neither_aiohttp_nor_the_sandbox_itself() -> None:
    """Of the package its parts import each other, the plan, checks and the operations; those may load what they like."""
    parts = [faults, _framing, _corruption, _ends, _connection, sys.modules[FaultProxy.__module__]]
    allowed = {part.__name__ for part in parts} | {
        "nudgescribe_async.arguments",
        "nudgescribe_async.injection",
        "nudgescribe_async.testing._operations",
    }
    for part in parts:
        imported = set(re.findall(r"^(?:from|import) (\w+(?:\.\w+)*)", inspect.getsource(part), re.MULTILINE))
        assert imported
        others = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
        assert others - {"attrs"} <= allowed
    program = (
        "import sys; sys.modules['cryptography'] = sys.modules['jwt'] = None; import nudgescribe_async.testing.proxy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
