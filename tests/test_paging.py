"""Pages: in order, bounded, and nothing left behind."""

from __future__ import annotations

import asyncio
import copy
import csv
import gc
import gzip
import pickle
import random
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from attrs import evolve, fields
from helpers import ONCE, Server, Service, client, settle, watch

from nudgescribe_async import (
    AuthenticationError,
    ClientClosedError,
    DeadlineExceededError,
    NudgescribeError,
    OutcomeUnknownError,
    PageError,
    PageIterator,
    Request,
    Response,
    ResponseDecodeError,
    ServerError,
)
from nudgescribe_async.events import PageFetched
from nudgescribe_async.message_file import Rows
from nudgescribe_async.paging import PageSource
from nudgescribe_async.sandbox import Sandbox
from nudgescribe_async.testing import answer
from nudgescribe_async.transport.aiohttp import AiohttpTransport


class Pages:
    """A fake of what is paged. A page is fetched when the test lets it be, or at once."""

    def __init__(self, total: int, *, held: bool = False) -> None:
        self.total = total
        self.held = held
        self.asked: list[int] = []
        self.in_flight = self.most_in_flight = self.cancelled = 0
        self.gates: dict[int, asyncio.Event] = {}
        self.errors: dict[int, Exception] = {}

    async def count(self) -> int:
        return self.total

    async def fetch(self, page: int) -> list[int]:
        self.asked.append(page)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.held:
                await self.gates.setdefault(page, asyncio.Event()).wait()
            if page in self.errors:
                raise self.errors[page]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        return [page * 10, page * 10 + 1] if page <= self.total else []

    def let(self, *pages: int) -> None:
        for page in pages:
            self.gates.setdefault(page, asyncio.Event()).set()

    def iterator(self, **options: Any) -> PageIterator[int]:
        known = {item.name for item in fields(PageSource)}
        source: dict[str, Any] = {
            "operation": "things.list",
            "count": self.count,
            "fetch": self.fetch,
            "decode": lambda page: page,
        }
        source |= {name: options.pop(name) for name in [*options] if name in known}
        return PageIterator(PageSource(**source), **({"concurrency": 4} | options))


def items(*pages: int) -> list[int]:
    return [item for page in pages for item in (page * 10, page * 10 + 1)]


async def test_order_is_kept_whatever_comes_first() -> None:
    pages = Pages(60)
    shuffle = random.Random(7)

    async def fetch(page: int) -> list[int]:
        for _ in range(shuffle.randrange(30)):
            await asyncio.sleep(0)
        return await pages.fetch(page)

    assert [item async for item in pages.iterator(fetch=fetch, concurrency=9)] == items(*range(1, 61))
    assert sorted(pages.asked) == list(range(1, 61))


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, None), (3, None), (3, 3), (3, 5), (5, 2), (2, 1)])
async def test_no_more_than_concurrency_in_flight_and_prefetch_ahead(concurrency: int, prefetch: int | None) -> None:
    pages = Pages(30, held=True)
    ahead = prefetch if prefetch is not None else 2 * concurrency
    async with pages.iterator(concurrency=concurrency, prefetch=prefetch) as stream:
        first = asyncio.ensure_future(anext(stream))
        await settle()
        assert len(pages.asked) == min(concurrency, ahead)
        pages.let(*range(1, 31))
        assert await first == 10
        for page in range(1, 31):
            await settle()
            # The consumer has the items of `page`: that many are ahead of it, and not one more.
            assert pages.asked == list(range(1, min(page + ahead, 30) + 1))
            assert pages.in_flight == 0
            rest = [await anext(stream, None), await anext(stream, None)]
            assert rest == ([page * 10 + 1, (page + 1) * 10] if page < 30 else [page * 10 + 1, None])
    assert pages.most_in_flight == min(concurrency, ahead)


async def test_a_page_is_let_go_of_while_its_items_are_handed_out() -> None:
    class Held(list[int]):
        pass

    alive: list[weakref.ref[Held]] = []

    async def fetch(page: int) -> Held:
        held = Held([page])
        alive.append(weakref.ref(held))
        return held

    source = PageSource(operation="x", count=Pages(1).count, fetch=fetch, decode=lambda held: [*held, 2, 3])
    stream: PageIterator[int] = PageIterator(source, concurrency=1)
    async with stream:
        assert await anext(stream) == 1
        await settle()
        assert alive[0]() is None


Leave = Callable[[PageIterator[int]], Awaitable[None]]


async def _break(stream: PageIterator[int]) -> None:
    async with stream as found:
        async for _ in found:
            break


async def _raise(stream: PageIterator[int]) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with stream as found:
            async for item in found:
                _ = item / 0


async def _close(stream: PageIterator[int]) -> None:
    await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def _cancel(stream: PageIterator[int]) -> None:
    async def consume() -> None:
        async for _ in stream:
            pass

    consumer = asyncio.create_task(consume())
    await settle()
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer


@pytest.mark.parametrize("leave", [_break, _raise, _close, _cancel])
async def test_leaving_early_cancels_what_is_in_flight_and_starts_nothing(leave: Leave) -> None:
    pages = Pages(50, held=True)
    pages.let(1)
    await leave(pages.iterator(concurrency=4))
    assert pages.in_flight == 0
    assert pages.cancelled == len(pages.asked) - 1 > 0
    asked = list(pages.asked)
    pages.let(*range(1, 51))
    await settle()
    assert pages.asked == asked
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_plain_break_cancels_as_soon_as_the_iterator_is_let_go() -> None:
    pages = Pages(50, held=True)
    pages.let(1)
    async for _ in pages.iterator():
        break
    gc.collect()
    await settle()
    assert pages.in_flight == 0
    assert pages.cancelled == len(pages.asked) - 1 > 0


async def test_closing_before_the_first_item_and_never_iterating_send_nothing() -> None:
    pages = Pages(3)
    stream = pages.iterator()
    await stream.aclose()
    pages.iterator()
    assert pages.asked == []
    with pytest.raises(RuntimeError, match="iterated once only"):
        aiter(stream)


async def test_iterating_twice_is_an_error_and_no_pages_are_no_items() -> None:
    pages = Pages(0)
    stream = pages.iterator()
    assert [item async for item in stream] == []
    with pytest.raises(RuntimeError, match="call iter\\(\\) again"):
        [item async for item in stream]
    with pytest.raises(RuntimeError, match="call iter\\(\\) again"):
        await anext(stream)
    assert pages.asked == [1]  # together with their number


@pytest.mark.parametrize(
    "error",
    [
        OutcomeUnknownError("lost", request_id="r7"),
        ServerError("down", status=500, request_id="r7"),
        ResponseDecodeError("odd", request_id="r7"),
        DeadlineExceededError("late", may_have_taken_effect=False, request_id="r7"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["fetch", "decode"])
async def test_a_page_that_fails_comes_after_all_before_it_and_says_which(error: NudgescribeError, where: str) -> None:
    pages = Pages(9)
    options: dict[str, Any] = {}
    if where == "fetch":
        pages.errors[4] = error
    else:

        def decode(page: list[int]) -> list[int]:
            if page[0] == 40:
                raise error
            return page

        options["decode"] = decode
    got: list[int] = []
    with pytest.raises(PageError, match="Page 4 of 9") as caught:  # noqa: PT012
        async for item in pages.iterator(**options):
            got.append(item)  # noqa: PERF401 - what came before the error counts
    assert got == items(1, 2, 3)
    assert (caught.value.page, caught.value.__cause__, caught.value.request_id) == (4, error, "r7")
    assert caught.value.operation == "things.list"
    assert pickle.loads(pickle.dumps(caught.value)).page == copy.copy(caught.value).page == 4
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("error", [AuthenticationError("no"), ClientClosedError("closed"), KeyError("bug")])
async def test_what_is_no_failure_of_a_page_comes_as_it_is(error: Exception) -> None:
    pages = Pages(9)
    pages.errors[2] = error
    with pytest.raises(type(error)) as caught:
        [item async for item in pages.iterator()]
    assert caught.value is error


async def test_the_count_that_fails_comes_as_it_is() -> None:
    async def count() -> int:
        raise ServerError("down", status=500)

    with pytest.raises(ServerError):
        [item async for item in Pages(1).iterator(count=count)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"concurrency": 0}, ValueError),
        ({"concurrency": -1}, ValueError),
        ({"concurrency": True}, TypeError),
        ({"concurrency": 2.0}, TypeError),
        ({"prefetch": 0}, ValueError),
        ({"prefetch": "3"}, TypeError),
    ],
)
async def test_wrong_arguments_are_refused_where_they_are_given(
    options: dict[str, Any], error: type[Exception]
) -> None:
    async with client(Service()) as ns:
        name = next(iter(options))
        for make in (ns.customers.iter, ns.messages.iter):
            with pytest.raises(error, match=name):
                make("c", **options)
        wrong: Any
        for wrong in ("", None, 5):
            for iterate in (ns.customers.iter, ns.messages.iter):
                with pytest.raises((TypeError, ValueError)):
                    iterate(wrong)
        with pytest.raises(ValueError, match="run_number"):
            ns.messages.iter("c", 0)


# --- through the client ----------------------------------------------------------------------------


def customer(number: int) -> dict[str, object]:
    return {"customer_id": f"{number}", "customer_group_id": "g", "extended_profile": {}}


async def test_customers_one_page_after_the_other_with_events_and_a_bound_of_the_client() -> None:
    service = Service()
    in_flight = most = 0

    async def call(request: Any) -> Any:
        nonlocal in_flight, most
        if request.url.endswith("/pages"):
            return answer(200, {"pages": 12})
        in_flight += 1
        most = max(most, in_flight)
        await settle(3)
        in_flight -= 1
        return answer(200, [customer(1)])

    service.on_call = call
    async with client(service, concurrency=3) as ns:
        events = watch(ns)
        assert len([c async for c in ns.customers.iter("g", concurrency=10)]) == 12
    assert most == 3
    fetched = [event for event in events if isinstance(event, PageFetched)]
    assert [(e.page, e.total, e.operation) for e in fetched] == [(n, 12, "customers.list") for n in range(1, 13)]


async def test_closing_the_client_ends_an_iteration() -> None:
    service, started = Service(), asyncio.Event()

    async def call(request: Any) -> Any:
        if request.url.endswith("/pages"):
            return answer(200, {"pages": 5})
        started.set()
        return await asyncio.Event().wait()

    service.on_call = call
    ns = client(service)
    stream = ns.customers.iter("g")
    first = asyncio.ensure_future(anext(stream))
    await started.wait()
    await ns.aclose(grace=0)
    with pytest.raises(ClientClosedError, match="closed while the call was waiting for the answer"):
        await first


async def rows(*files: bytes, content_type: str | None = "text/csv; charset=utf-8") -> list[dict[str, str]]:
    bodies = iter(files)

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/messages/pages":
            return web.json_response({"pages": len(files)})
        headers = {} if content_type is None else {"Content-Type": content_type}
        return web.Response(body=next(bodies, files[-1]), headers=headers)

    async with Server(handler) as server:
        from helpers import CREDENTIALS

        from nudgescribe_async import Nudgescribe, RetryPolicy

        policy = RetryPolicy(attempts=2, base=0.001)
        async with Nudgescribe(CREDENTIALS, base_url=server.url, retry=policy) as ns:
            return [row async for row in ns.messages.iter("c", concurrency=1)]


async def test_rows_with_all_that_csv_allows() -> None:
    tricky = b'\xef\xbb\xbfid,text\r\n1,"a ""quoted"" word, and a comma"\r\n2,"two\r\nlines"\r\n3,"one\nmore"\r\n'
    assert await rows(tricky, b"id,text\n4,\xc3\xa9\n\n", b"id,text\n") == [
        {"id": "1", "text": 'a "quoted" word, and a comma'},
        {"id": "2", "text": "two\r\nlines"},
        {"id": "3", "text": "one\nmore"},
        {"id": "4", "text": "é"},
    ]


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        (b"a,b\n1\n", "text/csv", "row 1 has 1 cells under 2 columns"),
        (b"a,b\n1,2\n1,2,3\n", "text/csv", "row 2 has 3 cells under 2 columns"),
        (b"a,a\n1,2\n", "text/csv", "two columns have the same name"),
        (b'a,b\n1,"cut off', "text/csv", "line 2 is no CSV"),
        (b'a,b\n1,"x"y\n', "text/csv", "no CSV"),
        (b"a\n\xff\n", "text/csv", "no valid UTF-8"),
        (b"<html>Sorry</html>", "text/html; charset=utf-8", "is a web page, not CSV"),
        (b"<!DOCTYPE html><p>Sorry", "text/plain", "is a web page, not CSV"),
        (b"\xef\xbb\xbf \n<HTML>", None, "is a web page, not CSV"),
        (b'[{"a": 1}]', "Application/JSON", "is application/json, not CSV"),
        (b'{"url": "x"}', "text/plain", "is JSON, not CSV"),
        (b'{"success": false, "message": "not yet"}', "application/json", "not yet"),
        (b'{"success": false, "message": "not yet"}', "text/csv", "not yet"),
        (b"", "text/csv", "is empty, not CSV"),
        (b"\xef\xbb\xbf", "text/csv", "is empty, not CSV"),
        (b"Service temporarily unavailable\n", "text/plain", "is a single line of text/plain, not CSV"),
        (b'"Internal error"', None, "is a single line of application/octet-stream, not CSV"),
    ],
)
async def test_what_is_no_csv_is_an_error_and_not_rows(data: bytes, content_type: str | None, text: str) -> None:
    with pytest.raises(PageError, match=text) as caught:
        await rows(data, content_type=content_type)
    assert caught.value.page == 1
    assert caught.value.operation == "messages.fetch"


async def test_a_row_that_begins_like_json_is_still_a_row() -> None:
    assert await rows(b"{id},b\n1,2\n") == [{"{id}": "1", "b": "2"}]


async def test_a_cell_may_be_longer_than_the_csv_module_allows_by_default() -> None:
    limit = csv.field_size_limit()
    letter = "x" * (limit + 1)
    assert await rows(f"id,text\n1,{letter}\n".encode()) == [{"id": "1", "text": letter}]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("status", [202, 204, 206])
async def test_another_success_than_200_is_no_file(status: int) -> None:
    service = Service()
    service.on_call = lambda r: (
        answer(200, {"pages": 1}) if r.url.endswith("pages") else answer(status, body=b"a,b\n1,2\n")
    )
    async with client(service) as ns:
        with pytest.raises(PageError, match=f"status {status}, not CSV"):
            [row async for row in ns.messages.iter("c")]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nConnection: close\r\n\r\na,b\n1,2\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n",
    ],
    ids=["ends with the connection", "a compressed stream that is cut"],
)
async def test_a_file_that_may_have_been_cut_off_is_an_error_and_not_rows(head: bytes) -> None:
    compressed = gzip.compress(b"a,b\n" + b"1,2\n" * 1_000)[:-20]
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(head % len(compressed) + compressed if b"%d" in head else head)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server, AiohttpTransport() as real:
        service = Service()

        async def respond(request: Request) -> Response:
            if request.url.endswith("pages"):
                return answer(200, {"pages": 1})
            return await real.send(evolve(request, url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))

        service.on_call = respond
        async with client(service, retry=ONCE) as ns:
            with pytest.raises(PageError, match="may have been cut off"):
                [row async for row in ns.messages.iter("c")]
    assert b"Accept-Encoding: identity\r\n" in asked[0]


async def test_a_broken_file_names_the_request(sandbox: Sandbox) -> None:
    service = Service()
    service.on_call = lambda r: (
        answer(200, {"pages": 1})
        if r.url.endswith("pages")
        else answer(body=b"a,b\n1\n", headers={"X-Request-Id": "req-1"})
    )
    async with client(service) as ns:
        with pytest.raises(PageError, match="request id req-1") as caught:
            [row async for row in ns.messages.iter("c")]
    assert isinstance(caught.value.__cause__, ResponseDecodeError)
    assert len(caught.value.__cause__.attempts) == 1


async def test_rows_of_the_sandbox_file_after_file() -> None:
    async with Sandbox(example=True, rows_per_file=40) as sandbox:
        from nudgescribe_async import Nudgescribe

        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
            campaign = sandbox.example.campaigns["Welcome back"]
            group = sandbox.example.customer_groups["January 1997"]
            found = [row["customer_id"] async for row in ns.messages.iter(campaign, concurrency=3)]
            assert found == [c.customer_id async for c in ns.customers.iter(group)]
            assert len(found) > 400


def test_rows_of_nothing_are_an_error() -> None:
    with pytest.raises(ResponseDecodeError, match="cannot be read: it is empty"):
        Rows("")
