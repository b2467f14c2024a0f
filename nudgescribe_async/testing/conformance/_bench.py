"""What a rule works with: transports of the kind that is tried, servers for them, and an end to all of it."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from nudgescribe_async.tasks import outlast
from nudgescribe_async.testing.conformance._certificates import Certificates, certificates
from nudgescribe_async.testing.conformance._servers import (
    AppHandler,
    AppServer,
    ProxyServer,
    RawHandler,
    RawServer,
    application,
)
from nudgescribe_async.testing.conformance._values import BrokenPromiseError, TransportFactory, TransportSettings
from nudgescribe_async.transport import Request, Response, StreamBody, Transport

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "Bench",
    "Caught",
    "Upload",
    "Watched",
    "body_of",
    "chunks",
    "expect",
    "settle",
    "shown",
    "soon",
    "standstill",
    "text_of",
    "within",
]

T = TypeVar("T")
E = TypeVar("E", bound=Exception)
SOON: Final = 3.0  # seconds
PATIENCE_OF_CLOSING: Final = 5.0


def expect(kept: bool, otherwise: str) -> None:
    """Find the promise broken, unless it was kept."""
    if not kept:
        raise BrokenPromiseError(otherwise)


def shown(error: BaseException) -> str:
    """Which error, in words."""
    return f"{type(error).__module__}.{type(error).__qualname__}: {error}"


async def settle(turns: int = 20) -> None:
    """Let everything that can run do so; and a moment for transports that have threads of their own."""
    for _ in range(turns):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)


async def standstill(count: Callable[[], int]) -> None:
    """Wait until what is counted has begun, and then goes on no more."""
    before = -1
    while before != count() or not before:
        before = count()
        for _ in range(3):
            await settle(50)


def soon() -> asyncio.Timeout:
    """For what takes no time at all, unless it never happens."""
    return asyncio.timeout(SOON)


async def within(event: asyncio.Event, otherwise: str) -> None:
    """Wait for what has to happen by itself."""
    try:
        async with soon():
            await event.wait()
    except TimeoutError:
        raise BrokenPromiseError(otherwise) from None


def chunks(*given: bytes) -> Callable[[], AsyncIterator[bytes]]:
    """A body that is opened anew each time."""

    async def stream() -> AsyncIterator[bytes]:
        for chunk in given:
            yield chunk

    return stream


async def body_of(response: Response, *, whole: bool) -> bytes:
    """Read it at once, or in pieces: a fault of one way must not hide in the other."""
    return await response.read() if whole else b"".join([piece async for piece in response.stream])


class Upload:
    """A body whose stream tells what becomes of it.

    Attributes:
        opened: how often it was opened.
        asked: how many chunks were asked for.
        closed: it was closed, or has ended.
    """

    def __init__(self, chunk: bytes, *, count: int, error: Exception | None = None, then_wait: bool = False) -> None:
        self._chunk = chunk
        self._count = count
        self._error = error
        self._then_wait = then_wait
        self.opened = self.asked = 0
        self.closed = asyncio.Event()
        self.waiting = asyncio.Event()  # all its chunks were taken, and it gives no more

    def body(self, length: int | None = None) -> StreamBody:
        """As the body of a request."""
        return StreamBody(open=self._stream, length=length)

    async def _stream(self) -> AsyncIterator[bytes]:
        self.opened += 1
        try:
            for _ in range(self._count):
                self.asked += 1
                yield self._chunk
            if self._error is not None:
                raise self._error
            if self._then_wait:
                self.waiting.set()
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # closing a file takes a turn too
            self.closed.set()


class Watched:
    """A transport that is tried, and the responses that it has given: a rule that fails leaves them open."""

    def __init__(self, bare: Transport) -> None:
        self.bare = bare
        self.responses: list[Response] = []

    async def send(self, request: Request) -> Response:
        """As the transport."""
        response = await self.bare.send(request)
        self.responses.append(response)
        return response

    async def aclose(self) -> None:
        """As the transport."""
        await self.bare.aclose()


class Caught(Generic[E]):
    """The error that was expected."""

    error: E


class Bench:
    """Made for one rule. Leaving it closes the transports, then the servers, and looks for what is left."""

    def __init__(self, factory: TransportFactory, rule: str) -> None:
        self._factory = factory
        self._rule = rule
        self._transports: list[Watched] = []
        self._servers: list[RawServer | AppServer | ProxyServer] = []
        self._started: list[asyncio.Task[Any]] = []

    @property
    def certificates(self) -> Certificates:
        """For servers with TLS."""
        return certificates()

    async def transport(self, **settings: Any) -> Watched:
        """One of the kind that is tried."""
        made = self._factory(TransportSettings(rule=self._rule, **settings))
        watched = Watched(await made if isawaitable(made) else made)
        self._transports.append(watched)
        return watched

    async def application(self, handler: AppHandler, **settings: Any) -> tuple[Watched, str]:
        """A transport, and the address of an application with one handler for everything."""
        server = await AppServer(handler).start()
        self._servers.append(server)
        return await self.transport(application=lambda: application(handler), **settings), server.url

    async def raw(
        self, handler: RawHandler, *, read_bodies: bool = True, tls: ssl.SSLContext | None = None
    ) -> RawServer:
        """A server that speaks bytes."""
        server = await RawServer(handler, read_bodies=read_bodies, tls=tls).start()
        self._servers.append(server)
        return server

    async def proxy(self, *, credentials: str | None = None, refuse: int | None = None) -> ProxyServer:
        """A proxy that wants these credentials, or refuses everything: see ``ProxyServer``."""
        server = await ProxyServer(credentials=credentials, refuse=refuse).start()
        self._servers.append(server)
        return server

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something at the same time."""
        task = asyncio.get_running_loop().create_task(work)
        self._started.append(task)
        return task

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """What was started."""
        return {*self._started}

    async def fetch(self, transport: Transport, request: Request) -> bytes:
        """Send a request that has to be answered with 200, and read the answer."""
        response = await transport.send(request)
        body = await response.read()
        expect(response.status == 200, f"The answer had the status {response.status} instead of 200.")
        return body

    @contextmanager
    def expect_error(self, kind: type[E], when: str) -> Generator[Caught[E]]:
        """What is done inside of it has to end with this error, and with none else."""
        caught = Caught[E]()
        try:
            yield caught
        except BrokenPromiseError:
            raise
        except kind as error:
            caught.error = error
        except Exception as error:
            raise BrokenPromiseError(f"{when}: expected {kind.__name__}, and got {shown(error)}") from error
        else:
            raise BrokenPromiseError(f"{when}: expected {kind.__name__}, and got no error.")

    async def try_out(self, scenario: Awaitable[None], patience: float) -> None:
        """Play it, in a task of its own: a transport that does not mind being cancelled must not hold up the suite."""
        playing = asyncio.ensure_future(scenario)
        playing.add_done_callback(_heard)
        try:
            await asyncio.wait({playing}, timeout=patience)
        finally:
            in_time = playing.done()
            deaf = await _stopped([playing])
        if not in_time:
            nor_then = " Nor did it when it was cancelled: it is still at it." if deaf else ""
            raise BrokenPromiseError(f"It hangs: it has not come to an end in {patience:g} s.{nor_then}")
        try:
            playing.result()
        except asyncio.CancelledError as error:
            raise BrokenPromiseError("It raised CancelledError, and nobody had cancelled it.") from error

    async def __aenter__(self) -> Self:
        self._before = asyncio.all_tasks()
        loop = asyncio.get_running_loop()
        self._handler = loop.get_exception_handler()
        loop.set_exception_handler(self._on_loop_error)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        found = await self._finish()
        asyncio.get_running_loop().set_exception_handler(self._handler)
        if found and error is None:
            raise BrokenPromiseError(" ".join(found))

    async def _finish(self) -> list[str]:
        found: list[str] = []
        deaf = await _stopped(self._started)
        if deaf:
            found.append(f"It was cancelled, and does not end: {_names(deaf)}.")
        for task in self._started:
            if task.done() and not task.cancelled():
                task.exception()  # the rule has seen what it wanted to see
        for transport in self._transports:
            closing = asyncio.ensure_future(_close(transport))
            closing.add_done_callback(_heard)
            try:
                await asyncio.wait({closing}, timeout=PATIENCE_OF_CLOSING)
            finally:
                in_time = closing.done()
                await _stopped([closing])
            if not in_time:
                found.append("aclose() did not come to an end.")
            elif closing.cancelled():
                found.append("aclose() raised CancelledError, and nobody had cancelled it.")
            elif (error := closing.exception()) is not None:
                found.append(f"aclose() raised {shown(error)}.")
        for server in self._servers:
            found += [f"After aclose() the transport still held {what}." for what in await server.stop()]
            if server.failure is not None:
                found.append(f"A server of the suite could not make sense of what came: {shown(server.failure)}.")
        for _ in range(10):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - self._before - {asyncio.current_task()}
        if left:
            found.append(f"Tasks are left: {_names(left)}.")
            await _stopped(left)
        return found

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), (ssl.SSLError, ConnectionError)):
            return  # a server complains of a client that did not like its certificate, as it was to be
        if self._handler is None:
            loop.default_exception_handler(context)
        else:
            self._handler(loop, context)


async def _close(transport: Watched) -> None:
    await transport.aclose()
    for response in transport.responses:
        await response.aclose()


def _heard(task: asyncio.Task[None]) -> None:
    """Take note of what one has raised, which may be long after anybody waits for it."""
    if not task.cancelled():
        task.exception()


async def _stopped(tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Cancel them, and wait for their end, but not for ever: tells which ones are deaf to it."""
    under_way = {task for task in tasks if not task.done()}
    if not under_way:
        return under_way
    for task in under_way:
        task.cancel()
    waiting = asyncio.ensure_future(asyncio.wait(under_way, timeout=PATIENCE_OF_CLOSING))
    cancelled = await outlast([waiting])
    if cancelled is not None:
        raise cancelled
    return waiting.result()[1]


def _names(tasks: Iterable[asyncio.Task[Any]]) -> str:
    coroutines = [task.get_coro() for task in tasks]
    return ", ".join(sorted(getattr(coroutine, "__qualname__", repr(coroutine)) for coroutine in coroutines))


def text_of(error: BaseException) -> str:
    """All that is shown of an error where it is logged: with its causes, and their reprs."""
    texts, seen = ["".join(traceback.format_exception(error))], set[int]()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        texts += [repr(current), str(current)]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n".join(texts)
