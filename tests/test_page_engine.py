"""The page engine against a set that changes, breaks off, and goes on: in any order, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import random
import threading
import weakref
from collections import Counter
from contextlib import aclosing
from typing import Any

import pytest
from attrs import fields
from helpers import settle
from hypothesis import given, settings
from hypothesis import strategies as st

from nudgescribe_async import (
    APIStatusError,
    ConfigurationError,
    OutcomeUnknownError,
    Page,
    PageCursor,
    PageDriftError,
    PageError,
    PageIterator,
    PageReport,
    ServerError,
)
from nudgescribe_async.consistency import NEAR
from nudgescribe_async.cursor import MOST_AHEAD
from nudgescribe_async.events import Event, Events, PageFetched, PagesDrifted
from nudgescribe_async.paging import LARGE, PageSource

SIZE = 10


class Things:
    """A set that is paged, by offset, as it is at the moment of each request."""

    def __init__(self, number: int, *, size: int = SIZE, first_page: int = 1) -> None:
        self.ids = [f"id {index}" for index in range(number)]
        self.size = size
        self.first_page = first_page
        self.asked: list[int] = []
        self.counted = 0
        self.fails: dict[int, list[Exception]] = {}
        self.before_page: dict[int, Any] = {}
        self.gates: dict[int, asyncio.Event] = {}
        self.shuffle: random.Random | None = None
        self.counts = True
        self.events = Events()
        self.told: list[Event] = []
        self.events.subscribe(self.told.append)
        self.decoded_in: list[str] = []

    @property
    def total(self) -> int:
        return -(-len(self.ids) // self.size)

    async def count(self) -> int:
        self.counted += 1
        return self.total

    async def fetch(self, page: int) -> list[str]:
        if page in self.gates:
            await self.gates[page].wait()
        self.asked.append(page)
        if page in self.before_page:
            self.before_page.pop(page)()
        start = (page - self.first_page) * self.size
        answer = self.ids[start : start + self.size]
        if self.shuffle is not None:
            for _ in range(self.shuffle.randrange(20)):
                await asyncio.sleep(0)
        if self.fails.get(page):
            raise self.fails[page].pop(0)
        return answer

    def decode(self, page: list[str]) -> list[str]:
        self.decoded_in.append(threading.current_thread().name)
        return page

    def iterator(self, **options: Any) -> PageIterator[str]:
        source: dict[str, Any] = {
            "operation": "things.list",
            "count": self.count if self.counts else None,
            "fetch": self.fetch,
            "decode": self.decode,
            "query": "q",
            "first_page": self.first_page,
            "identify": str,
            "even": True,
        }
        source |= {name: options.pop(name) for name in [*options] if name in {item.name for item in fields(PageSource)}}
        chosen: dict[str, Any] = {"concurrency": 3, "events": self.events} | options
        return PageIterator(PageSource(**source), **chosen)

    def drifts(self) -> list[str]:
        return [event.drift for event in self.told if isinstance(event, PagesDrifted)]


async def everything(stream: PageIterator[str]) -> list[str]:
    return [item async for item in stream]


async def into(found: list[str], stream: PageIterator[str]) -> None:
    async for item in stream:
        found.append(item)  # noqa: PERF401 - what was found before an error stays


# --- where pages begin and end ---------------------------------------------------------------------------------------


async def test_page_one_is_asked_for_together_with_the_count_which_is_asked_for_again_at_the_end() -> None:
    things, order = Things(25), list[str]()
    gate = asyncio.Event()

    async def count() -> int:
        order.append("count")
        await gate.wait()
        return things.total

    async def fetch(page: int) -> list[str]:
        order.append(f"page {page}")
        return await things.fetch(page)

    stream = things.iterator(count=count, fetch=fetch)
    reading = asyncio.ensure_future(everything(stream))
    await settle()
    assert sorted(order) == ["count", "page 1"]
    gate.set()
    assert await reading == things.ids
    assert sorted(order[2:-1]) == ["page 2", "page 3"]
    assert order[-1] == "count"


async def test_with_a_concurrency_of_one_there_is_one_request_at_a_time() -> None:
    things = Things(35)
    in_flight = most = 0

    def counted(work: Any) -> Any:
        async def run(*arguments: Any) -> Any:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0)
            try:
                return await work(*arguments)
            finally:
                in_flight -= 1

        return run

    stream = things.iterator(count=counted(things.count), fetch=counted(things.fetch), concurrency=1)
    assert await everything(stream) == things.ids
    assert most == 1


@pytest.mark.parametrize("order", ["page", "completion"])
@pytest.mark.parametrize("number", [0, 1, 9, 10, 11, 60, 95])
@pytest.mark.parametrize("first_page", [0, 1, 5])
@pytest.mark.parametrize("counts", [True, False])
async def test_all_is_there_once_with_or_without_a_count_whatever_the_first_page(
    order: str, number: int, first_page: int, counts: bool
) -> None:
    things = Things(number, first_page=first_page)
    things.counts, things.shuffle = counts, random.Random(number)
    stream = things.iterator(order=order)
    found = await everything(stream)
    assert sorted(found) == sorted(things.ids)
    if order == "page":
        assert found == things.ids
    report = stream.report
    assert (report.complete, report.drift) == (True, ())
    assert (report.pages, report.items) == (things.total, number)
    assert report.total == (things.total if counts else None)
    assert min(things.asked, default=first_page) == first_page
    if counts and number:
        last = first_page + things.total - 1
        # The last page is looked at in the beginning as well, unless all are asked for at once.
        assert sorted(things.asked) == sorted([*range(first_page, last + 1), *([last] if things.total > 6 else [])])


async def test_an_empty_group_needs_no_page_even_if_there_is_trouble_with_page_one() -> None:
    things = Things(0)
    things.fails[1] = [APIStatusError("there is no page 1", status=400)]
    assert await everything(things.iterator()) == []


async def test_in_the_order_of_completion_a_slow_page_holds_nobody_up_and_only_so_many_go_ahead() -> None:
    things = Things(SIZE * (MOST_AHEAD + 500))
    slow = asyncio.Event()

    async def fetch(page: int) -> list[str]:
        if page == 2:
            await slow.wait()
        return await things.fetch(page)

    stream = things.iterator(fetch=fetch, order="completion", concurrency=4)
    found = list[int]()
    async with aclosing(stream.pages()) as pages:
        async for page in pages:
            found.append(page.number)
            if len(found) == MOST_AHEAD:
                # All but page 2 are there, up to the bound of the cursor.
                await settle()
                assert sorted({*things.asked}) == [1, *range(3, MOST_AHEAD + 3), things.total]
                assert sorted(found) == [1, *range(3, MOST_AHEAD + 2)]
                assert len(page.cursor.to_json()) < 500
                slow.set()
    assert sorted(found) == [*range(1, things.total + 1)]
    assert (stream.cursor.page, stream.cursor.ahead, stream.cursor.part) == (things.total + 1, frozenset(), None)


# --- pages, and progress ---------------------------------------------------------------------------------------------


async def test_by_page_with_a_cursor_after_each() -> None:
    things = Things(25)
    stream = things.iterator()
    pages = [page async for page in stream.pages()]
    assert [(page.number, len(page.items), page.total) for page in pages] == [(1, 10, 3), (2, 10, 3), (3, 5, 3)]
    assert [page.cursor.page for page in pages] == [2, 3, 4]
    assert pages[-1].cursor == stream.cursor
    assert repr(pages[0]).startswith("Page(number=1, items=<10 items>, total=3")
    assert pickle.loads(pickle.dumps(pages[0])) == pages[0]


async def test_progress_has_pages_items_time_and_rate() -> None:
    things = Things(25)
    await everything(things.iterator())
    told = [event for event in things.told if isinstance(event, PageFetched)]
    assert [(event.page, event.total, event.done, event.items) for event in told] == [
        (1, 3, 1, 10),
        (2, 3, 2, 20),
        (3, 3, 3, 25),
    ]
    assert all(event.rate == event.items / event.seconds for event in told)


async def test_one_way_of_iterating_at_a_time() -> None:
    things = Things(25)
    stream = things.iterator()
    await anext(stream)
    with pytest.raises(RuntimeError, match="another"):
        stream.pages()
    await stream.aclose()
    by_page = things.iterator()
    await anext(by_page.pages())
    with pytest.raises(RuntimeError, match="another"):
        aiter(by_page)
    with pytest.raises(RuntimeError, match="another"):
        await anext(by_page)
    await by_page.aclose()
    with pytest.raises(RuntimeError, match="another"):
        by_page.pages()


async def test_a_large_page_is_decoded_in_a_thread() -> None:
    things = Things(40)
    stream = things.iterator(weigh=lambda page: LARGE if "id 10" in page else LARGE - 1)
    assert await everything(stream) == things.ids
    here = threading.current_thread().name
    assert [name == here for name in things.decoded_in] == [True, False, True, True]


# --- going on --------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    order=st.sampled_from(["page", "completion"]),
    number=st.integers(0, 120),
    stops=st.lists(st.integers(0, 30), max_size=6),
    by_page=st.booleans(),
    seed=st.integers(0, 1_000),
    counts=st.booleans(),
    consistency=st.sampled_from(["warn", "dedupe", "strict"]),
)
def test_broken_off_anywhere_and_resumed_nothing_is_lost_and_nothing_comes_twice(
    order: str, number: int, stops: list[int], by_page: bool, seed: int, counts: bool, consistency: str
) -> None:
    async def run() -> None:
        things = Things(number)
        things.shuffle, things.counts = random.Random(seed), counts
        found, cursor = list[str](), None
        for stop in [*stops, None]:
            stream = things.iterator(order=order, resume_from=cursor, consistency=consistency)
            left = stop
            if by_page:
                async with aclosing(stream.pages()) as pages:
                    async for page in pages:
                        found += page.items
                        left = left - 1 if left is not None else None
                        if left is not None and left < 0:
                            break
            else:
                async with stream as items:
                    async for item in items:
                        found.append(item)
                        left = left - 1 if left is not None else None
                        if left is not None and left < 0:
                            break
            cursor = stream.cursor.to_json()
            assert len(cursor) < 500
            assert stream.report.drift == ()
        assert Counter(found) == Counter(things.ids)
        if order == "page":
            assert found == things.ids

    asyncio.run(run())


@pytest.mark.parametrize("order", ["page", "completion"])
async def test_a_page_that_fails_has_the_cursor_with_which_the_same_goes_on(order: str) -> None:
    things = Things(95)
    things.fails[5] = [ServerError("gone", status=500, request_id="r-1")]
    stream, found = things.iterator(order=order), list[str]()
    with pytest.raises(PageError, match="Page 5 of 10 could not be had: gone") as caught:
        await into(found, stream)
    assert caught.value.cursor == stream.cursor
    assert not stream.report.complete
    cursor = pickle.loads(pickle.dumps(caught.value)).cursor
    found += await everything(things.iterator(order=order, resume_from=cursor))
    assert Counter(found) == Counter(things.ids)


async def test_a_cursor_at_the_end_has_nothing_left() -> None:
    things = Things(25)
    stream = things.iterator()
    await everything(stream)
    again = things.iterator(resume_from=stream.cursor)
    assert await everything(again) == []
    assert (again.report.complete, again.report.drift) == (True, ())


async def test_what_is_in_your_hands_counts_as_dealt_with() -> None:
    things = Things(25)
    stream = things.iterator()
    assert stream.cursor == PageCursor(query="q", page=1)
    for expected in [(1, 1), (1, 2), (1, 3)]:
        await anext(stream)
        assert stream.cursor.part == expected
    for _ in range(7):
        await anext(stream)
    assert (stream.cursor.page, stream.cursor.part) == (2, None)
    await stream.aclose()
    assert (stream.cursor.page, stream.cursor.part) == (2, None)


async def test_a_page_of_which_nothing_was_handed_out_yet_is_not_begun() -> None:
    things = Things(25)
    stream = things.iterator()
    for _ in range(13):
        await anext(stream)
    await stream.aclose()
    again, seen = things.iterator(resume_from=stream.cursor), list[PageCursor]()
    things.events.subscribe(lambda event: seen.append(again.cursor) if isinstance(event, PageFetched) else None)
    await everything(again)
    assert [(cursor.page, cursor.part) for cursor in seen] == [(2, (2, 3)), (3, None)]


async def test_after_a_page_that_failed_no_further_one_is_asked_for() -> None:
    things = Things(300)
    things.fails[3] = [ServerError("gone", status=500)]
    stream = things.iterator(concurrency=2, prefetch=2)
    with pytest.raises(PageError):
        await everything(stream)
    assert max({*things.asked} - {30}) == 4


async def test_who_keeps_the_iterator_for_its_cursor_does_not_keep_its_pages() -> None:
    class Held(list[str]):
        pass

    things, alive = Things(300), list[weakref.ref[Held]]()

    async def fetch(page: int) -> Held:
        held = Held(await things.fetch(page))
        alive.append(weakref.ref(held))
        return held

    for order in ("page", "completion"):
        stream = things.iterator(fetch=fetch, decode=lambda held: [*held], order=order)
        await anext(stream)
        await settle()
        assert [held for held in alive if held() is not None]
        await stream.aclose()
        await settle()
        assert [held for held in alive if held() is not None] == []
        assert stream.cursor.part == (1, 1)


@pytest.mark.parametrize(
    ("cursor", "kind", "says"),
    [
        (PageCursor(query="another", page=1), ValueError, "a cursor of another query"),
        (PageCursor(query="q", page=0), ValueError, "there is no page 0"),
        ("no cursor", ValueError, "This is no cursor"),
        (7, TypeError, "resume_from must be a PageCursor or its JSON, not int"),
        ({"page": 1}, TypeError, "resume_from must be a PageCursor or its JSON, not dict"),
    ],
)
def test_a_cursor_that_does_not_fit_is_refused_before_anything_is_sent(
    cursor: Any, kind: type[Exception], says: str
) -> None:
    things = Things(25)
    with pytest.raises(kind, match=says):
        things.iterator(resume_from=cursor)
    assert things.asked == []


@pytest.mark.parametrize("name", ["order", "consistency"])
@pytest.mark.parametrize("value", ["", "x", None, 1])
def test_a_word_that_is_none_of_those_allowed_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be one of '"):
        Things(1).iterator(**{name: value})


async def test_the_page_before_is_asked_for_again_and_shows_that_nothing_moved() -> None:
    things = Things(50)
    stream = things.iterator()
    for _ in range(20):
        await anext(stream)
    await stream.aclose()
    things.asked.clear()
    again = things.iterator(resume_from=stream.cursor, consistency="strict")
    assert await everything(again) == things.ids[20:]
    assert sorted(things.asked) == [2, 3, 4, 5, 5]


@pytest.mark.parametrize("taken", [20, 23])
@pytest.mark.parametrize("change", ["insert", "delete"])
async def test_a_set_that_moved_between_the_two_is_noticed(taken: int, change: str) -> None:
    things = Things(50)
    stream = things.iterator()
    for _ in range(taken):
        await anext(stream)
    await stream.aclose()
    if change == "insert":
        things.ids.insert(0, "new")
    else:
        del things.ids[0]
    again = things.iterator(resume_from=stream.cursor)
    await everything(again)
    assert again.report.moved
    assert "The items had moved when the iteration was resumed." in again.report.drift
    with pytest.raises(PageDriftError, match=r"moved since the cursor|came before|at the start, and now"):
        await everything(things.iterator(resume_from=stream.cursor, consistency="strict"))


async def test_the_page_before_that_fails_says_so() -> None:
    things = Things(50)
    stream = things.iterator()
    for _ in range(20):
        await anext(stream)
    await stream.aclose()
    things.fails[2] = [ServerError("gone", status=500)]
    with pytest.raises(PageError, match="Page 2 of 5 could not be had") as caught:
        await everything(things.iterator(resume_from=stream.cursor))
    assert caught.value.cursor == stream.cursor


# --- a set that changes ----------------------------------------------------------------------------------------------


def insert(things: Things, where: int, *ids: str) -> Any:
    def change() -> None:
        things.ids[where:where] = ids

    return change


def delete(things: Things, where: int, number: int = 1) -> Any:
    def change() -> None:
        del things.ids[where : where + number]

    return change


async def test_what_comes_twice_is_seen_left_out_or_an_error() -> None:
    for consistency in ("warn", "dedupe", "strict"):
        things = Things(95)
        before = [*things.ids]
        things.before_page[7] = insert(things, 0, "new 1", "new 2")
        stream = things.iterator(consistency=consistency, concurrency=1, prefetch=1)
        if consistency == "strict":
            with pytest.raises(PageDriftError, match="2 items of page 7 came before") as caught:
                await everything(stream)
            assert (caught.value.page, caught.value.drift) == (7, "2 items of page 7 came before.")
            assert caught.value.cursor == stream.cursor
            assert stream.cursor.page == 7
            continue
        found = await everything(stream)
        assert stream.report.repeated == 2
        if consistency == "dedupe":
            assert found == before
            assert stream.report.drift == (
                "2 items came more than once, and were left out.",
                "The last page was another one at the end than at the start.",
            )
        else:
            assert Counter(found) == Counter([*before, "id 58", "id 59"])
            assert stream.report.drift[0] == "At least 2 items came more than once."
            assert stream.report.complete


async def test_what_was_taken_away_shows_in_the_number_of_pages_or_a_short_page() -> None:
    things = Things(91)
    things.before_page[7] = delete(things, 0)
    stream = things.iterator(concurrency=1, prefetch=1)
    ids = [*things.ids]
    assert await everything(stream) == [*ids[:60], *ids[61:]]  # one was missed, which nobody can see
    assert stream.report.drift == (
        "1 page had no items, though more were expected.",
        "The last page was another one at the end than at the start.",
        "There were 10 pages at the start, and 9 at the end.",
    )
    assert things.drifts() == [
        "The last page is not the one that it was at the start.",
        "Page 10 has no items, though more were expected.",
        "There were 10 pages at the start, and now there are 9.",
        " ".join(stream.report.drift),
    ]


@pytest.mark.parametrize("consistency", ["warn", "strict"])
async def test_more_pages_at_the_end_than_at_the_start(consistency: str) -> None:
    things = Things(30)
    things.before_page[3] = insert(things, 30, *(f"new {number}" for number in range(11)))
    stream = things.iterator(consistency=consistency)
    if consistency == "strict":
        with pytest.raises(PageDriftError, match="There were 3 pages at the start, and now there are 5"):
            await everything(stream)
        assert not stream.report.complete
    else:
        assert len(await everything(stream)) == 30
        assert stream.report.drift == ("There were 3 pages at the start, and 5 at the end.",)


@pytest.mark.parametrize(
    ("sizes", "short", "empty"),
    [
        ([10, 10, 4], 0, 0),
        ([10, 9, 10, 4], 1, 0),
        ([9, 10, 10, 4], 1, 0),
        ([9, 9, 10, 4], 2, 0),
        ([10, 0, 10, 4], 0, 1),
        ([10, 9, 0, 4], 1, 1),
        ([10, 0, 0, 0], 0, 3),
        ([4, 10], 1, 0),
        ([1, 2, 3], 2, 0),
        ([10, 10, 11], 2, 0),
        ([5], 0, 0),
    ],
)
@pytest.mark.parametrize("even", [True, False])
async def test_short_and_empty_pages_are_counted(sizes: list[int], short: int, empty: int, even: bool) -> None:
    things = Things(0)
    names = iter(range(10_000))
    pages = [[f"id {next(names)}" for _ in range(size)] for size in sizes]

    async def fetch(page: int) -> list[str]:
        return pages[page - 1]

    async def count() -> int:
        return len(pages)

    stream = things.iterator(fetch=fetch, count=count, even=even)
    await everything(stream)
    assert (stream.report.short_pages, stream.report.empty_pages) == (short if even else 0, empty)


@pytest.mark.parametrize(("sizes", "short"), [([10, 4], 0), ([10, 9, 10, 4], 1), ([10, 9, 8, 10], 2), ([10, 4, 4], 1)])
@pytest.mark.parametrize("order", ["page", "completion"])
async def test_without_a_count_only_the_page_after_tells_whether_one_is_short(
    sizes: list[int], short: int, order: str
) -> None:
    things = Things(0)
    names = iter(range(10_000))
    pages = [[f"id {next(names)}" for _ in range(size)] for size in sizes]

    async def fetch(page: int) -> list[str]:
        return pages[page - 1] if page <= len(pages) else []

    stream = things.iterator(fetch=fetch, count=None, order=order, concurrency=1)
    await everything(stream)
    assert (stream.report.short_pages, stream.report.empty_pages) == (short, 0)


@pytest.mark.parametrize("consistency", ["warn", "dedupe", "strict"])
async def test_a_service_that_gives_the_same_page_for_ever_is_left(consistency: str) -> None:
    things = Things(30)

    async def fetch(page: int) -> list[str]:
        return await things.fetch(min(page, 3))

    stream = things.iterator(fetch=fetch, count=None, consistency=consistency)
    found = list[str]()
    with pytest.raises(PageDriftError) as caught:
        await into(found, stream)
    assert found == things.ids
    assert caught.value.page == 4
    if consistency != "strict":
        assert "may never end" in str(caught.value)


async def test_warn_sees_what_is_near_and_strict_and_dedupe_see_all() -> None:
    for distance, near in ((NEAR - 1, True), (2 * NEAR, False)):
        for consistency in ("warn", "dedupe", "strict"):
            things = Things(SIZE * 60)
            things.ids[distance * SIZE + 3] = "id 3"
            stream = things.iterator(consistency=consistency)
            if consistency == "strict":
                with pytest.raises(PageDriftError, match="1 item of page"):
                    await everything(stream)
            else:
                found = await everything(stream)
                assert stream.report.repeated == (1 if near or consistency == "dedupe" else 0)
                assert len(found) == len(things.ids) - (consistency == "dedupe")


async def test_twice_on_one_page_is_twice() -> None:
    things = Things(30)
    things.ids[5] = things.ids[4] = things.ids[3]
    stream = things.iterator(consistency="dedupe")
    found = await everything(stream)
    assert stream.report.repeated == 2
    assert found == [*things.ids[:4], *things.ids[6:]]


async def test_a_cursor_within_a_page_of_which_items_were_left_out_counts_them_too() -> None:
    things = Things(30)
    things.ids[12] = things.ids[13] = things.ids[11]
    stream = things.iterator(consistency="dedupe")
    found = [await anext(stream) for _ in range(14)]
    assert stream.cursor.part == (2, 6)
    await stream.aclose()
    again = things.iterator(consistency="dedupe", resume_from=stream.cursor)
    found += await everything(again)
    assert Counter(found) == Counter(set(things.ids))
    assert not again.report.moved


async def test_a_log_has_each_kind_of_change_once_and_the_sum_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    things = Things(300)
    for page in range(5, 25):
        things.before_page[page] = insert(things, 0, f"new {page}")
    stream = things.iterator(concurrency=1, prefetch=1)
    await everything(stream)
    assert stream.report.repeated == 20
    lines = [record.getMessage() for record in caplog.records if record.name == "nudgescribe_async.paging"]
    assert len(lines) == len(things.drifts()) == 4
    assert "1 item of page 5 came before" in lines[0]
    assert lines[-1].endswith(
        "At least 20 items came more than once. The last page was another one at the end than at the start. "
        "There were 30 pages at the start, and 32 at the end."
    )


async def test_the_count_at_the_end_that_fails_is_no_reason_to_lose_what_was_read() -> None:
    for consistency in ("warn", "strict"):
        things = Things(30)
        answers: list[int | Exception] = [3, ServerError("gone", status=500)]

        async def count(answers: list[int | Exception] = answers) -> int:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        stream = things.iterator(count=count, consistency=consistency)
        if consistency == "warn":
            assert await everything(stream) == things.ids
            assert (stream.report.total_at_end, stream.report.complete) == (None, True)
        else:
            with pytest.raises(PageError, match="The number of pages could not be had: gone") as caught:
                await everything(stream)
            assert caught.value.cursor is not None
            assert await everything(things.iterator(resume_from=caught.value.cursor, consistency="strict")) == []


async def test_an_error_that_is_no_failure_of_a_page_leaves_the_cursor_on_the_iterator() -> None:
    things = Things(50)
    things.fails[3] = [ConfigurationError("no")]
    stream, found = things.iterator(), list[str]()
    with pytest.raises(ConfigurationError):
        await into(found, stream)
    found += await everything(things.iterator(resume_from=stream.cursor))
    assert found == things.ids


async def test_a_few_that_are_gone_show_only_on_the_last_page() -> None:
    for consistency in ("warn", "strict"):
        things = Things(230)
        things.before_page[11] = delete(things, 0, 5)  # as many pages as before, each full but the last
        stream = things.iterator(consistency=consistency, concurrency=1)
        if consistency == "strict":
            with pytest.raises(PageDriftError, match="The last page is not the one"):
                await everything(stream)
        else:
            assert len(await everything(stream)) == 225
            assert stream.report.drift == ("The last page was another one at the end than at the start.",)
        assert things.asked.count(23) == 2


async def test_the_last_page_is_compared_with_what_it_was_before_the_iteration_broke_off() -> None:
    things = Things(230)
    stream = things.iterator()
    for _ in range(45):
        await anext(stream)
    await settle()
    await stream.aclose()
    assert stream.cursor.tail is not None
    del things.ids[70:73]  # behind what was read: nothing is lost, and still it is not the set that it was
    things.asked.clear()
    again = things.iterator(resume_from=stream.cursor.to_json())
    await everything(again)
    assert again.report.drift == ("The last page was another one at the end than at the start.",)
    assert things.asked.count(23) == 1


async def test_what_the_last_page_was_is_remembered_also_if_it_comes_while_a_page_is_open() -> None:
    things = Things(230)
    gate = things.gates[23] = asyncio.Event()
    stream = things.iterator()
    await anext(stream)
    assert stream.cursor.to_json().endswith('"tail":null}')
    gate.set()
    await settle()
    for _ in range(15):
        await anext(stream)
    assert stream.cursor.tail is not None
    await stream.aclose()


async def test_who_has_the_last_page_does_not_look_at_it() -> None:
    things = Things(100)
    stream = things.iterator(prefetch=20)
    await everything(stream)
    assert things.asked.count(10) == 1
    again = things.iterator(prefetch=2, resume_from=stream.cursor)
    assert await everything(again) == []
    assert things.asked.count(10) == 2  # to see whether something moved


async def test_items_of_the_page_before_are_known_when_it_goes_on() -> None:
    things = Things(50)
    stream = things.iterator()
    for _ in range(20):
        await anext(stream)
    await stream.aclose()
    looked = asyncio.Event()

    async def fetch(page: int) -> list[str]:
        if page == 2:
            found = await things.fetch(page)
            things.ids.insert(0, "new")
            looked.set()
            return found
        await looked.wait()
        return await things.fetch(page)

    again = things.iterator(fetch=fetch, resume_from=stream.cursor)
    assert await anext(again) == "id 19"  # which came before
    assert again.report.repeated == 1
    assert not again.report.moved
    await again.aclose()


async def test_a_look_at_the_last_page_that_fails_is_forgiven_unless_who_asks_is_strict() -> None:
    for consistency in ("warn", "strict"):
        things = Things(230)
        things.fails[23] = [ServerError("gone", status=500)]
        stream = things.iterator(consistency=consistency)
        if consistency == "strict":
            with pytest.raises(PageError, match="Page 23 of 23 could not be had"):
                await everything(stream)
        else:
            assert await everything(stream) == things.ids
            assert not stream.report.last_page_changed


async def test_a_look_at_the_last_page_that_fails_for_another_reason_is_an_error() -> None:
    things = Things(230)
    things.fails[23] = [ConfigurationError("no")]
    with pytest.raises(ConfigurationError):
        await everything(things.iterator())


async def test_a_look_that_fails_unseen_is_no_complaint_of_asyncio() -> None:
    things = Things(230)
    things.fails[23] = [ServerError("gone", status=500)]
    complaints = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    stream = things.iterator()
    await anext(stream)
    await settle()
    await stream.aclose()
    del stream, things
    gc.collect()
    await settle()
    assert complaints == []


async def test_who_leaves_early_leaves_no_look_behind() -> None:
    things = Things(230)
    things.gates[23] = asyncio.Event()
    async with things.iterator() as stream:
        await anext(stream)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- what an attacker found ------------------------------------------------------------------------------------------


async def test_a_look_that_failed_long_ago_does_not_send_anybody_back() -> None:
    things = Things(200)
    things.fails[20] = [ServerError("gone", status=500)]
    stream, found = things.iterator(consistency="strict"), list[str]()
    with pytest.raises(PageError) as caught:
        await into(found, stream)
    assert caught.value.cursor == stream.cursor
    assert stream.cursor.page == 20
    found += await everything(things.iterator(consistency="strict", resume_from=caught.value.cursor))
    assert found == things.ids


async def test_pages_that_were_fewer_for_a_while_are_in_the_report() -> None:
    things = Things(40, size=4)
    stream = things.iterator()
    for _ in range(8):
        await anext(stream)
    await stream.aclose()
    gone = things.ids[36:]
    del things.ids[36:]
    again = things.iterator(resume_from=stream.cursor)
    await anext(again)
    things.ids += gone
    found = [item async for item in again]
    assert len(found) < 40 - 9 + 4
    assert again.report.drift[-2:] == (
        "There were 10 pages at the start, and 9 when it was resumed.",
        "There were 9 pages when it was resumed, and 10 at the end.",
    )


async def test_after_a_break_nothing_more_is_asked_for_also_if_the_iterator_is_kept() -> None:
    things = Things(500)
    stream = things.iterator(concurrency=4, prefetch=16, weigh=lambda _: 0)
    things.shuffle = random.Random(3)
    async for page in stream.pages():
        if page.number == 3:
            break
    await settle()
    asked = [*things.asked]
    for _ in range(5):
        await settle()
    assert things.asked == asked
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert stream.cursor.page == 4
    with pytest.raises(RuntimeError, match="iterated once only"):
        stream.pages()


def test_an_event_loop_that_ends_with_an_iterator_in_hand_has_nothing_to_complain_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = list[Any]()

    async def main(by_page: bool) -> None:
        stream = Things(500).iterator()
        kept.append(stream)
        generator = stream.pages() if by_page else aiter(stream)
        kept.append(generator)
        await anext(generator)

    for by_page in (True, False):
        asyncio.run(main(by_page))
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("order", ["page", "completion"])
async def test_a_count_of_none_is_not_believed_if_page_one_has_items(order: str) -> None:
    answers = list[int]()

    async def count() -> int:
        return answers.pop(0)

    for counts in ([0, 0], [0, 3]):
        things = Things(25)
        answers[:] = counts
        stream = things.iterator(count=count, order=order)
        assert sorted(await everything(stream)) == sorted(things.ids)
        assert stream.report.uncounted_pages == 1
        assert stream.report.drift[0] == "1 page had items, though the service had said that there are none."
        assert stream.report.complete
    answers[:] = [0, 0]
    with pytest.raises(PageDriftError, match="the service has said that there are no pages"):
        await everything(Things(25).iterator(count=count, consistency="strict"))


async def test_a_set_that_shrinks_to_nothing_is_not_asked_for_page_after_page() -> None:
    things = Things(5_000)
    things.before_page[5] = delete(things, 0, 4_990)
    stream = things.iterator(concurrency=1, prefetch=2)
    await everything(stream)
    assert len(things.asked) < 20
    assert stream.report.total_at_end == 1


async def test_a_number_of_pages_that_cannot_be_is_not_believed_for_ever() -> None:
    async def count() -> int:
        return 10**12

    things = Things(25)
    stream, found = things.iterator(count=count, prefetch=200, concurrency=50), list[str]()
    with pytest.raises(PageDriftError, match=r"101 pages in a row have no items, so there cannot be 1,000,000,000,000"):
        await into(found, stream)
    assert found == things.ids


async def test_a_count_that_fails_in_the_middle_has_a_cursor_too() -> None:
    things = Things(50)
    things.before_page[3] = delete(things, 0, 50)
    answers: list[int | Exception] = [5, ServerError("gone", status=500)]

    async def count() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(PageError, match="Page 3 of 5 could not be had: gone"):
        await everything(things.iterator(count=count, concurrency=1, prefetch=1))


async def test_many_empty_pages_at_once_are_no_trouble_where_nobody_knows_how_many_there_are() -> None:
    things = Things(0)
    stream = things.iterator(count=None, order="completion", prefetch=3_000, concurrency=3_000)
    assert await everything(stream) == []


async def test_what_comes_again_and_again_is_counted_each_time() -> None:
    things = Things(SIZE * 25)
    for page in (NEAR - 6, 2 * NEAR - 12):
        things.ids[page * SIZE] = "id 3"
    stream = things.iterator()
    await everything(stream)
    assert stream.report.repeated == 2


async def test_the_last_page_is_remembered_when_the_last_item_of_a_page_is_in_hand() -> None:
    things = Things(230)
    stream = things.iterator()
    for _ in range(30):
        await anext(stream)
    assert (stream.cursor.page, stream.cursor.part) == (4, None)
    assert stream.cursor.to_json().endswith('"}')
    await stream.aclose()


async def test_closing_while_somebody_else_waits_ends_his_iteration_with_an_error() -> None:
    things = Things(230)
    gate = asyncio.Event()
    things.gates.update(dict.fromkeys(range(3, 24), gate))
    stream, found = things.iterator(), list[str]()
    reading = asyncio.create_task(into(found, stream))
    await settle()
    await stream.aclose()
    with pytest.raises(RuntimeError, match="closed by somebody else"):
        await reading
    assert found == things.ids[:20]
    assert not stream.report.complete
    asked = [*things.asked]
    gate.set()
    await settle()
    assert things.asked == asked
    rest = things.iterator(resume_from=stream.cursor)
    assert [*found, *await everything(rest)] == things.ids


# --- reports ---------------------------------------------------------------------------------------------------------


def test_a_report_is_a_sentence_and_never_claims_to_have_seen_all() -> None:
    report = PageReport(operation="a.b", consistency="warn", pages=1, items=1_000, seconds=2.0)
    assert str(report) == "a.b: 1,000 items on 1 page, not to the end. No change was noticed meanwhile."
    assert report.rate == 500
    assert PageReport(operation="a.b", consistency="warn").rate == 0
    full = PageReport(
        operation="a.b", consistency="strict", pages=2, items=1, complete=True, repeated=1, short_pages=2, empty_pages=1,
        moved=True, total=2, total_at_end=3,
    )  # fmt: skip
    assert str(full) == (
        "a.b: 1 item on 2 pages. 1 item came more than once. 2 pages had fewer items than others, without being the "
        "last. 1 page had no items, though more were expected. The items had moved when the iteration was resumed. "
        "There were 2 pages at the start, and 3 at the end."
    )
    assert pickle.loads(pickle.dumps(full)) == full


async def test_a_report_may_be_read_at_any_time() -> None:
    things = Things(25)
    stream = things.iterator()
    assert stream.report == PageReport(operation="things.list", consistency="warn")
    for _ in range(13):
        await anext(stream)
    assert (stream.report.pages, stream.report.items, stream.report.complete) == (1, 13, False)
    await stream.aclose()
    ended = stream.report
    assert (ended.pages, ended.items) == (1, 13)
    assert stream.report == ended  # time stands still


async def test_a_page_is_a_value() -> None:
    cursor = PageCursor(query="q", page=2)
    assert Page(number=1, items=["a"], total=1, cursor=cursor) == Page(number=1, items=["a"], total=1, cursor=cursor)


# --- collecting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consistency", ["warn", "dedupe", "strict"])
@pytest.mark.parametrize("order", ["page", "completion"])
async def test_collecting_gives_all_items_in_a_list(consistency: Any, order: Any) -> None:
    things = Things(235)
    stream = things.iterator(consistency=consistency, order=order)
    assert await stream.collect() == things.ids
    assert stream.report.complete
    assert stream.report.items == 235
    with pytest.raises(RuntimeError, match="iterated once only"):
        await stream.collect()


async def test_collecting_nothing_gives_an_empty_list() -> None:
    assert await Things(0).iterator().collect() == []


async def test_collecting_puts_off_full_garbage_collections_until_it_ends_however_it_ends() -> None:
    before = gc.get_threshold()
    things = Things(100)
    seen = list[int]()
    things.before_page[5] = lambda: seen.append(gc.get_threshold()[2])
    things.fails[7] = [OutcomeUnknownError("It broke off.")]
    with pytest.raises(PageError):
        await things.iterator().collect()
    assert seen[0] > 10**6
    assert gc.get_threshold() == before


async def test_where_nothing_keeps_what_came_the_error_s_cursor_is_where_collecting_began() -> None:
    things = Things(100)
    things.fails[7] = [OutcomeUnknownError("It broke off.")]
    with pytest.raises(PageError, match="Page 7") as caught:
        await things.iterator().collect()
    assert caught.value.page == 7
    assert caught.value.cursor is not None
    assert "collect(into=...)" in str(caught.value)
    assert await things.iterator(resume_from=caught.value.cursor).collect() == things.ids


async def test_a_list_of_the_caller_s_keeps_what_came_and_the_cursor_goes_on_behind_it() -> None:
    things, kept = Things(100), ["before"]
    things.fails[7] = [OutcomeUnknownError("It broke off.")]
    with pytest.raises(PageError, match="Page 7") as caught:
        await things.iterator().collect(kept)
    assert kept == ["before", *things.ids[:60]]
    assert await things.iterator(resume_from=caught.value.cursor).collect(into=kept) is kept
    assert kept == ["before", *things.ids]


async def test_cancelling_leaves_what_came_in_the_caller_s_list_and_nothing_in_flight() -> None:
    things, kept = Things(100), list[str]()
    gate = things.gates[4] = asyncio.Event()
    stream = things.iterator()
    collecting = asyncio.create_task(stream.collect(kept))
    await settle()
    collecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    assert kept == things.ids[:30]
    gate.set()
    assert await things.iterator(resume_from=stream.cursor).collect(kept) == things.ids


async def test_strict_collecting_stops_where_the_set_changed() -> None:
    things = Things(100)
    things.before_page[6] = lambda: things.ids.insert(0, "new")
    with pytest.raises(PageDriftError) as caught:
        await things.iterator(consistency="strict", concurrency=1, prefetch=1).collect()
    assert caught.value.cursor is not None
    assert caught.value.cursor.page == 1


async def test_collecting_a_second_time_harms_nobody_who_iterates() -> None:
    things, pages = Things(50), list[int]()
    stream = things.iterator()
    async for page in stream.pages():
        if not pages:
            with pytest.raises(RuntimeError, match="iterated once only"):
                await stream.collect()
        pages.append(page.number)
    assert pages == [1, 2, 3, 4, 5]
    assert stream.report.complete


@pytest.mark.parametrize("into", [(), "", set(), {}, 3])
async def test_what_is_no_list_is_refused_before_anything_is_asked_for(into: Any) -> None:
    things = Things(50)
    stream = things.iterator()
    with pytest.raises(TypeError, match="into must be a list"):
        await stream.collect(into)
    assert things.asked == []
    assert await stream.collect([]) == things.ids


class Full(list[str]):
    """A list for which there is no memory."""

    def __iadd__(self, items: Any) -> Any:  # type: ignore[misc]
        for item in items:
            if len(self) == 24:
                raise MemoryError
            self.append(item)
        return self


async def test_a_page_is_kept_as_a_whole_or_not_at_all() -> None:
    things, kept = Things(50), Full()
    stream = things.iterator()
    with pytest.raises(MemoryError):
        await stream.collect(kept)
    assert kept == things.ids[:20]
    assert (stream.report.pages, stream.report.items, stream.report.complete) == (2, 20, False)
    assert await things.iterator(resume_from=stream.cursor).collect([*kept]) == things.ids


async def test_closing_by_somebody_else_ends_a_loop_with_an_error_also_within_its_body() -> None:
    things, found = Things(50), list[str]()
    stream = things.iterator()
    go_on, closed = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async for item in stream:
            found.append(item)
            if len(found) == 3:
                go_on.set()
                await closed.wait()

    reading = asyncio.create_task(read())
    await go_on.wait()
    await stream.aclose()
    closed.set()
    with pytest.raises(RuntimeError, match="closed by somebody else"):
        await reading


async def test_closing_while_the_last_page_is_compared_cancels_nobody() -> None:
    things = Things(230)
    gate = asyncio.Event()

    async def fetch(page: int) -> list[str]:
        if page == 23 and 23 not in things.asked:
            things.asked.append(23)
            await gate.wait()
        return await things.fetch(page)

    stream, found = things.iterator(fetch=fetch), list[str]()
    reading = asyncio.create_task(into(found, stream))
    await settle()
    await stream.aclose()
    with pytest.raises(RuntimeError, match="closed by somebody else"):
        await reading
    assert not reading.cancelled()
