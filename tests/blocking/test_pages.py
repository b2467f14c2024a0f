"""Pages that are read in the background while a loop in another thread works on them."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import pytest
from blocking_service import JANUARY, PATIENCE, WELCOME, client, running, seen
from helpers import CREDENTIALS, Service, settle

from nudgescribe_async import ClientClosedError, Customer, Nudgescribe, PageError, blocking
from nudgescribe_async.events import Event, RequestFinished, RequestStarted
from nudgescribe_async.sandbox import Delay, Status
from nudgescribe_async.testing import answer

if TYPE_CHECKING:
    from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox

NUMBER = 467


@pytest.fixture(scope="module")
def shared() -> Iterator[ThreadedSandbox]:
    with running(rows_per_file=40) as sandbox:
        yield sandbox


@pytest.fixture
def ids(ns: blocking.Nudgescribe, group: str) -> list[str]:
    """As the async client has them."""

    async def read(inner: Nudgescribe) -> list[str]:
        return [customer.customer_id async for customer in inner.customers.iter(group)]

    return ns.run(read)


def test_all_items_come_in_their_order_by_any_way(ns: blocking.Nudgescribe, group: str, ids: list[str]) -> None:
    by_item = ns.customers.iter(group)
    assert [customer.customer_id for customer in by_item] == ids
    assert (by_item.report.items, by_item.report.complete) == (NUMBER, True)
    by_page = [[customer.customer_id for customer in page.items] for page in ns.customers.iter(group).pages()]
    assert ([len(page) for page in by_page], [*chain(*by_page)]) == ([10] * 46 + [7], ids)
    into: list[Customer] = []
    assert ns.customers.iter(group, concurrency=2).collect(into) is into
    assert [customer.customer_id for customer in into] == ids
    stepped = ns.customers.iter(group)
    first = next(stepped)
    assert [customer.customer_id for customer in (first, *stepped)] == ids
    assert isinstance(stepped, Iterator)


def test_rows_of_messages_come_too(ns: blocking.Nudgescribe, live: ThreadedSandbox) -> None:
    stream = ns.messages.iter(live.example.campaigns[WELCOME])
    rows = [*islice(stream, 50)]
    rest = ns.messages.iter(live.example.campaigns[WELCOME], resume_from=stream.cursor)
    assert len({row["customer_id"] for row in (*rows, *rest)}) == NUMBER


def test_a_cursor_counts_what_was_handed_out_and_nothing_more(
    ns: blocking.Nudgescribe, group: str, ids: list[str]
) -> None:
    for taken in (0, 1, 9, 10, 11, 25, NUMBER):
        stream = ns.customers.iter(group, concurrency=4)
        found = [customer.customer_id for customer in islice(stream, taken)]
        rest = ns.customers.iter(group, resume_from=stream.cursor.to_json(), consistency="strict")
        assert [*found, *(customer.customer_id for customer in rest)] == ids


def test_the_cursor_of_a_page_is_where_to_go_on_after_it(ns: blocking.Nudgescribe, group: str, ids: list[str]) -> None:
    for page in ns.customers.iter(group).pages():
        if page.number == 3:
            break
    rest = ns.customers.iter(group, resume_from=page.cursor)
    assert [customer.customer_id for customer in rest] == ids[30:]


def test_it_is_iterated_once(ns: blocking.Nudgescribe, group: str) -> None:
    stream = ns.customers.iter(group)
    assert len([*stream]) == NUMBER
    for again in (stream.__iter__, stream.__next__, stream.pages, stream.collect):
        with pytest.raises(RuntimeError, match="iterated once only"):
            again()


def test_a_page_that_fails_raises_in_the_loop_and_says_where_to_go_on(
    ns: blocking.Nudgescribe, live: ThreadedSandbox, group: str, ids: list[str]
) -> None:
    live.inject(Status(400), operation="customers.list", skip=7, times=None)
    found: list[str] = []
    with pytest.raises(PageError) as caught:
        found += (customer.customer_id for customer in ns.customers.iter(group, concurrency=1))
    live.clear_faults()
    assert caught.value.cursor is not None
    assert caught.value.cursor.page == 7
    found = ids[:60]
    assert [*found, *(item.customer_id for item in ns.customers.iter(group, resume_from=caught.value.cursor))] == ids


def test_a_slow_loop_slows_the_requests_down(ns: blocking.Nudgescribe, live: ThreadedSandbox, group: str) -> None:
    before = live.count("customers.list", 200)
    stream = ns.customers.iter(group, concurrency=2, prefetch=3)
    taken = [next(stream) for _ in range(10)]
    ns.run(_settle)
    ns.customer_groups.list(live.example.workspace_id)
    # The page in hand, three that wait, and the look at the last one.
    assert live.count("customers.list", 200) - before <= 5
    assert len([*taken, *stream]) == NUMBER


async def _settle(_: object) -> None:
    await settle(100)


# --- leaving early ------------------------------------------------------------------------------------------------------


class Held:
    """Pages of a group, of which only the first comes; the second is in flight for ever."""

    def __init__(self, ns: blocking.Nudgescribe, live: ThreadedSandbox) -> None:
        live.inject(Delay(PATIENCE, before_work=True), operation="customers.list", skip=1, times=None)
        self._begun = threading.Semaphore(0)
        ns.events.subscribe(self._count)
        self.cancelled = seen(ns, "customers.list", RequestFinished, error="CancelledError")
        # One at a time, for they would arrive in any order.
        self.stream = ns.customers.iter(live.example.customer_groups[JANUARY], concurrency=1)

    def _count(self, event: Event) -> None:
        if isinstance(event, RequestStarted) and event.operation == "customers.list":
            self._begun.release()

    def is_in_flight(self) -> bool:
        """When the second one is."""
        return self._begun.acquire(timeout=PATIENCE) and self._begun.acquire(timeout=PATIENCE)


@pytest.fixture
def held(ns: blocking.Nudgescribe, live: ThreadedSandbox) -> Held:
    return Held(ns, live)


def test_breaking_the_loop_cancels_what_is_in_flight(held: Held) -> None:
    for _ in held.stream:
        assert held.is_in_flight()
        break
    assert held.cancelled.wait(PATIENCE)
    assert held.stream.report.items == 1  # it may be kept all the same
    assert held.stream.cursor.page == 1


def test_an_error_in_the_body_of_the_loop_does_so_too(held: Held) -> None:
    def body() -> None:
        for _ in held.stream:
            assert held.is_in_flight()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        body()
    assert held.cancelled.wait(PATIENCE)  # though the error, with its frames, is kept
    assert caught.value.__traceback__ is not None


@pytest.mark.parametrize("way", ["items", "pages", "steps"])
def test_what_nobody_refers_to_any_more_is_cancelled(held: Held, way: str) -> None:
    begun: Any = iter(held.stream) if way == "items" else held.stream.pages() if way == "pages" else held.stream
    next(begun)
    assert held.is_in_flight()
    cycle: list[Any] = [begun]
    cycle.append(cycle)
    del begun, cycle, held.stream
    gc.collect()
    assert held.cancelled.wait(PATIENCE)


def test_a_finalizer_may_run_in_the_thread_of_the_loop(ns: blocking.Nudgescribe, held: Held) -> None:
    begun = [iter(held.stream)]
    next(begun[0])
    assert held.is_in_flight()

    async def let_go(_: object) -> None:
        begun.clear()

    ns.run(let_go)
    assert held.cancelled.wait(PATIENCE)


def test_leaving_the_block_waits_until_nothing_is_in_flight(held: Held) -> None:
    with held.stream as customers:
        for _ in customers:
            assert held.is_in_flight()
            break
    assert held.cancelled.is_set()
    customers.close()
    with pytest.raises(RuntimeError, match="iterated once only"):
        iter(customers)


def test_another_thread_ends_an_iteration(held: Held) -> None:
    for _ in range(10):
        next(held.stream)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(next, held.stream)
        begun: Any = held.stream._stepped
        while not begun.gi_running:
            time.sleep(0.001)
        held.stream.close()
        with pytest.raises(RuntimeError, match="closed by somebody else"):
            waiting.result(PATIENCE)


def test_a_handler_of_a_signal_ends_an_iteration_that_waits(held: Held) -> None:
    for _ in range(10):
        next(held.stream)
    assert held.is_in_flight()
    before = signal.signal(signal.SIGUSR1, lambda *_: held.stream.close())
    main = threading.main_thread().ident
    assert main is not None
    begun: Any = held.stream._stepped

    def when_it_waits() -> None:
        while not begun.gi_running:
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGUSR1)

    try:
        thread = threading.Thread(target=when_it_waits)
        thread.start()
        with pytest.raises(RuntimeError, match="closed by somebody else"):
            next(held.stream)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert held.cancelled.is_set()


def test_another_thread_ends_an_iteration_that_works_on_a_page(ns: blocking.Nudgescribe, group: str) -> None:
    found = 0
    stream = ns.customers.iter(group)
    with pytest.raises(RuntimeError, match="closed by somebody else"):  # noqa: PT012 - the loop is what is tested
        for _ in stream:
            found += 1
            closing = threading.Thread(target=stream.close)
            closing.start()
            closing.join()
    assert found == 10


@pytest.mark.parametrize("way", ["items", "pages"])
def test_the_own_thread_ends_an_iteration_in_peace(ns: blocking.Nudgescribe, group: str, way: str) -> None:
    stream = ns.customers.iter(group)
    found = 0
    for _ in stream if way == "items" else stream.pages():
        found += 1
        stream.close()
    assert found == 1
    unbegun = ns.customers.iter(group)
    items = iter(unbegun)
    unbegun.close()
    assert [*items] == []


def test_threads_may_take_turns(ns: blocking.Nudgescribe, group: str, ids: list[str]) -> None:
    stream = ns.customers.iter(group)
    lock = threading.Lock()

    def take(_: int) -> list[str]:
        with lock:
            return [customer.customer_id for _ in range(10) if (customer := next(stream, None)) is not None]

    with ThreadPoolExecutor(4) as threads:
        found = [item for part in threads.map(take, range(47)) for item in part]
    assert sorted(found) == sorted(ids)


def test_many_iterations_at_once(ns: blocking.Nudgescribe, group: str, ids: list[str]) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(
            lambda size: [item.customer_id for item in ns.customers.iter(group, concurrency=size)], (1, 2, 4, 8)
        )
        assert [*found] == [ids] * 4


def test_a_client_that_closes_ends_the_loop_with_an_error(live: ThreadedSandbox, group: str) -> None:
    ns = client(live)
    found = 0
    with pytest.raises(ClientClosedError):  # noqa: PT012 - the loop is what is tested
        for _ in ns.customers.iter(group, prefetch=1, concurrency=1):
            found += 1
            ns.close()
    assert found == 10


def test_the_iterator_keeps_the_client(live: ThreadedSandbox, group: str) -> None:
    def read() -> int:
        return len([*client(live).customers.iter(group)])

    with pytest.warns(ResourceWarning, match="never closed"):
        assert read() == NUMBER


def test_items_cross_to_the_thread_by_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call into the loop for each item would cost as much as ten items: so the calls are counted."""
    service = Service()
    customers = [{"customer_id": str(n), "customer_group_id": "g", "extended_profile": {}} for n in range(1_000)]
    service.on_call = lambda request: answer(200, {"pages": 3} if request.url.endswith("/pages") else customers)
    with blocking.Nudgescribe(CREDENTIALS, transport=service) as ns:
        calls: list[object] = []
        call = ns._thread.call

        def counted(work: Any) -> Any:
            calls.append(work)
            return call(work)

        monkeypatch.setattr(ns._thread, "call", counted)
        assert len([*ns.customers.iter("g")]) == 3_000
        assert len(calls) == 4
