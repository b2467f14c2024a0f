"""Rules about the end of a transport, and about event loops."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from nudgescribe_async.errors import (
    ClientClosedError,
    ConfigurationError,
    NudgescribeError,
    OutcomeUnknownError,
    RequestNotSentError,
)
from nudgescribe_async.testing.conformance._bench import Bench, expect, settle, shown, within
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import Counted, Hanging, RawConnection
from nudgescribe_async.testing.conformance._values import BrokenPromiseError, Need
from nudgescribe_async.threads import in_own_thread
from nudgescribe_async.transport import Request, Transport

__all__ = ["BOOK"]

BOOK: Final = RuleBook("closing")


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="ok")


@BOOK.rule("It is a Transport: it has the coroutines send and aclose.")
async def a_transport(bench: Bench) -> None:
    transport, url = await bench.application(_ok)
    expect(isinstance(transport.bare, Transport), f"{type(transport.bare).__name__} has no send, or no aclose.")
    await bench.fetch(transport, Request(method="GET", url=url))


@BOOK.rule("aclose may be called more than once, at the same time, and before the first send.")
async def more_than_once(bench: Bench) -> None:
    for used in (True, False):
        transport, url = await bench.application(_ok)
        if used:
            await bench.fetch(transport, Request(method="GET", url=url))
        await asyncio.gather(transport.aclose(), transport.aclose())
        await transport.aclose()


@BOOK.rule("After aclose, send is a ClientClosedError, and nothing is sent.")
async def send_afterwards(bench: Bench) -> None:
    for used in (True, False):
        counted = Counted()
        transport, url = await bench.application(counted.handler)
        if used:
            await bench.fetch(transport, Request(method="GET", url=url))
        await transport.aclose()
        counted.seen = 0
        for _ in range(2):
            with bench.expect_error(ClientClosedError, "send after aclose"):
                await transport.send(Request(method="PUT", url=url, body=b"body"))
        expect(counted.seen == 0, "A request was sent after aclose.")


@BOOK.rule("aclose cuts requests that wait for their answers: an OutcomeUnknownError.")
async def under_way(bench: Bench) -> None:
    arrived = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    transport, url = await bench.application(handler)
    sending = bench.start(transport.send(Request(method="PUT", url=url)))
    await arrived.wait()
    await transport.aclose()
    with bench.expect_error(OutcomeUnknownError, "The transport was closed while a request waited for its answer"):
        await sending


@BOOK.rule(
    "aclose ends requests that wait for a connection: nothing of them was sent, and the error says so.", Need.SOCKET
)
async def waiting(bench: Bench) -> None:
    hanging = Hanging()
    server = await bench.raw(hanging.handler)
    transport = await bench.transport(limit=1)
    bench.start(transport.send(Request(method="PUT", url=f"{server.url}/first")))
    await hanging.arrived.wait()
    second = bench.start(transport.send(Request(method="PUT", url=f"{server.url}/second")))
    await settle()
    await transport.aclose()
    try:
        await second
    except (ClientClosedError, RequestNotSentError):
        pass
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and not second.done():
            raise  # it is the rule that is cancelled, and not the request by its transport
        raise BrokenPromiseError(f"A request that had no connection yet ended with {shown(error)}.") from None
    else:
        raise BrokenPromiseError("A request that had no connection yet was answered.")
    expect(server.targets == ["/first"], f"The server saw {server.targets}.")


@BOOK.rule("aclose with responses open drops their connections, and no cut body is taken for a whole one.", Need.SOCKET)
async def open_responses(bench: Bench) -> None:
    hanging = Hanging()
    server = await bench.raw(hanging.handler)
    transport = await bench.transport()
    response = await transport.send(Request(method="GET", url=f"{server.url}/half"))
    pieces = aiter(response.stream)
    await anext(pieces)
    await transport.aclose()
    await within(hanging.gone, "The transport was closed, and the connection of an open response was not.")
    try:
        await anext(pieces)
    except (OutcomeUnknownError, ClientClosedError):
        pass
    except StopAsyncIteration:
        raise BrokenPromiseError(
            "The transport was closed in the middle of an answer, which ended as if it were whole."
        ) from None
    await response.aclose()


@BOOK.rule("After aclose nothing is left: no task, no connection, kept, cancelled, failed or half read.", Need.SOCKET)
async def nothing_left(bench: Bench) -> None:
    hanging = Hanging()
    server = await bench.raw(hanging.handler)
    before = asyncio.all_tasks()
    transport = await bench.transport()
    kept = (bench.fetch(transport, Request(method="GET", url=f"{server.url}/ok")) for _ in range(5))
    await asyncio.gather(*kept)
    silent = bench.start(transport.send(Request(method="PUT", url=f"{server.url}/silent")))
    await hanging.arrived.wait()
    silent.cancel()
    await asyncio.wait({silent})
    with bench.expect_error(OutcomeUnknownError, "No answer within read_timeout"):
        await transport.send(Request(method="PUT", url=f"{server.url}/silent", read_timeout=0.02))
    half = await transport.send(Request(method="GET", url=f"{server.url}/half"))
    await anext(aiter(half.stream))
    forgotten = await transport.send(Request(method="GET", url=f"{server.url}/half"))
    await transport.aclose()
    for connection in server.open_connections:
        left = asyncio.Event()
        bench.start(_tell(connection, left))
        await within(left, "aclose has returned, and a connection is still open.")
    tasks = asyncio.all_tasks() - before - bench.tasks - server.tasks
    expect(not tasks, f"aclose has returned, and tasks are left: {tasks}")
    for response in (half, forgotten):
        await response.aclose()


async def _tell(connection: RawConnection, left: asyncio.Event) -> None:
    await connection.gone()
    left.set()


@BOOK.rule("In another event loop it works, or is a ConfigurationError: it neither hangs nor fails in other ways.")
async def another_event_loop(bench: Bench) -> None:
    transport, url = await bench.application(_ok)
    await bench.fetch(transport, Request(method="GET", url=url))

    async def elsewhere() -> str:
        try:
            async with asyncio.timeout(5):
                return (await bench.fetch(transport, Request(method="GET", url=url))).decode()
        except ConfigurationError:
            return "ok"
        except (NudgescribeError, TimeoutError, RuntimeError) as error:
            return shown(error)

    got = await in_own_thread(lambda: asyncio.run(elsewhere()))
    expect(got == "ok", f"Used in a second event loop, it came to this: {got}")
    await bench.fetch(transport, Request(method="GET", url=url))
