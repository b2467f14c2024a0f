from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

from nudgescribe_async.errors import ClientClosedError, ConfigurationError
from nudgescribe_async.transport import Request
from nudgescribe_async.transport.in_process import HIGH_WATER, LOW_WATER, InProcessTransport, _MemoryTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def test_what_is_used_of_aiohttp_beyond_its_public_api() -> None:
    """Should this fail, aiohttp has changed, and in_process.py has to follow."""
    assert list(inspect.signature(aiohttp.BaseConnector._create_connection).parameters) == [
        "self", "req", "traces", "timeout",
    ]  # fmt: skip
    assert list(inspect.signature(ResponseHandler).parameters) == ["loop"]
    assert issubclass(ResponseHandler, asyncio.Protocol)
    assert issubclass(web.RequestHandler, asyncio.Protocol)
    assert list(inspect.signature(web.Server.__call__).parameters) == ["self"]
    assert isinstance(inspect.getattr_static(web.AppRunner, "server"), property)


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def app(self) -> web.Application:
        async def around(_: web.Application) -> AsyncIterator[None]:
            self.events.append("start")
            yield
            self.events.append("cleanup")

        async def handler(request: web.Request) -> web.Response:
            self.events.append(f"{request.host}{request.path}")
            return web.Response(text="ok")

        async def shutdown(_: web.Application) -> None:
            self.events.append("shutdown")

        app = web.Application()
        app.cleanup_ctx.append(around)
        app.on_shutdown.append(shutdown)
        app.router.add_get("/{path:.*}", handler)
        return app


async def test_the_application_is_started_once_and_cleaned_up_once() -> None:
    log = Log()
    async with InProcessTransport(log.app()) as transport:
        assert log.events == []
        requests = (transport.send(Request(method="GET", url="https://a.test/x")) for _ in range(3))
        for response in await asyncio.gather(*requests):
            assert await response.read() == b"ok"
        await (await transport.send(Request(method="GET", url="http://b.test:81/y"))).read()
        await transport.aclose()
    assert log.events == ["start", "a.test/x", "a.test/x", "a.test/x", "b.test:81/y", "shutdown", "cleanup"]


async def test_an_application_that_was_never_used_is_left_alone() -> None:
    log = Log()
    await InProcessTransport(log.app()).aclose()
    assert log.events == []


async def test_an_application_that_does_not_start() -> None:
    log = Log()
    app = log.app()

    async def fail(_: web.Application) -> None:
        raise LookupError("no table called customers")

    app.on_startup.append(fail)
    async with InProcessTransport(app) as transport:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"LookupError: no table called customers. Nothing") as caught:
                await transport.send(Request(method="GET", url="https://a.test/"))
            assert isinstance(caught.value.__cause__, LookupError)
    assert log.events == ["start", "cleanup"]


async def test_cancelling_the_request_that_starts_it_does_not_stop_the_others() -> None:
    starting, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Application) -> None:
        starting.set()
        await go_on.wait()

    app = Log().app()
    app.on_startup.append(slow)
    async with InProcessTransport(app) as transport:
        first = asyncio.create_task(transport.send(Request(method="GET", url="https://a.test/")))
        await starting.wait()
        second = asyncio.create_task(transport.send(Request(method="GET", url="https://a.test/")))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        assert await (await second).read() == b"ok"


async def test_closing_while_it_starts() -> None:
    log = Log()
    starting, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Application) -> None:
        starting.set()
        await go_on.wait()

    app = log.app()
    app.on_startup.append(slow)
    transport = InProcessTransport(app)
    sending = asyncio.create_task(transport.send(Request(method="GET", url="https://a.test/")))
    await starting.wait()
    closing = asyncio.create_task(transport.aclose())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    with pytest.raises(ClientClosedError, match=r"Nothing was sent"):
        await sending
    assert log.events == ["start", "shutdown", "cleanup"]


# The connection in memory


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = b""
        self.keep_open = False

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.events.append("data")

    def eof_received(self) -> bool:
        self.events.append("end")
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost" if exc is None else type(exc).__name__)

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


@pytest.fixture
async def ends() -> tuple[_MemoryTransport, Recorder, _MemoryTransport, Recorder]:
    left, right = Recorder(), Recorder()
    near, far = _MemoryTransport(left), _MemoryTransport(right)
    near.peer, far.peer = far, near
    return near, left, far, right


Ends = tuple[_MemoryTransport, Recorder, _MemoryTransport, Recorder]


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nothing_is_delivered_inside_of_a_write(ends: Ends) -> None:
    near, _, _, right = ends
    near.write(b"a")
    near.writelines([b"b", b"c"])
    assert right.events == []
    await turns()
    assert right.data == b"abc"


async def test_a_mutable_buffer_is_copied(ends: Ends) -> None:
    near, _, _, right = ends
    data = bytearray(b"abc")
    near.write(data)
    near.write(memoryview(data))
    data[:] = b"xyz"
    await turns()
    assert right.data == b"abcabc"


async def test_a_paused_reader_pauses_the_writer(ends: Ends) -> None:
    near, left, far, right = ends
    far.pause_reading()
    near.write(bytes(HIGH_WATER))
    assert left.events == []
    near.write(b"x")
    assert left.events == ["pause"]
    assert near.get_write_buffer_size() == HIGH_WATER + 1
    await turns()
    assert right.data == b""
    far.resume_reading()
    await turns()
    assert left.events == ["pause", "resume"]
    assert len(right.data) == HIGH_WATER + 1
    assert LOW_WATER < HIGH_WATER


async def test_close_delivers_what_was_written(ends: Ends) -> None:
    near, left, far, right = ends
    far.pause_reading()
    near.write(b"last words")
    near.close()
    near.write(b"too late")
    far.resume_reading()
    await turns()
    assert right.data == b"last words"
    assert right.events == ["data", "end", "lost"]
    assert left.events == ["lost"]


async def test_abort_resets_the_other_end(ends: Ends) -> None:
    near, left, far, right = ends
    near.write(b"never read")
    near.abort()
    near.abort()
    await turns()
    assert (left.events, right.events) == (["lost"], ["ConnectionResetError"])
    assert far.is_closing()


async def test_half_of_it_can_be_closed(ends: Ends) -> None:
    near, left, far, right = ends
    right.keep_open = True
    assert near.can_write_eof()
    near.write(b"question")
    near.write_eof()
    with pytest.raises(RuntimeError):
        near.write(b"more")
    await turns()
    assert right.events == ["data", "end"]
    far.write(b"answer")
    await turns()
    assert left.data == b"answer"
    far.close()
    await turns()
    assert left.events == ["data", "end", "lost"]
    assert right.events == ["data", "end", "lost"]


async def test_a_writer_is_woken_when_the_other_end_goes(ends: Ends) -> None:
    near, left, far, _ = ends
    far.pause_reading()
    near.write(bytes(HIGH_WATER + 1))
    far.close()
    await turns()
    assert left.events[0] == "pause"
    assert left.events[-1] == "lost"
