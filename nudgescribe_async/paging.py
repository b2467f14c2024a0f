"""Many pages, asked for side by side, handed out in order. Knows no resource.

At most ``concurrency`` requests are in flight, and at most ``prefetch`` pages are ahead of the
consumer; they are held as they came, and decoded when their turn comes. So a slow consumer slows the
requests down, and memory does not grow with the number of pages.

Where it stands is a value (``cursor``), with which another iteration goes on. What it notices of changes
of the set meanwhile is in its ``report``, see ``consistency``.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import count as count_from
from operator import length_hint
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import define, evolve, field, frozen

from nudgescribe_async.consistency import CONSISTENCIES, Consistency, PageReport, Watch
from nudgescribe_async.cursor import MOST_AHEAD, PageCursor, digest
from nudgescribe_async.errors import (
    APIStatusError,
    DeadlineExceededError,
    NudgescribeError,
    PageDriftError,
    PageError,
    ResponseDecodeError,
    TransportError,
)
from nudgescribe_async.events import Events, PageFetched, PagesDrifted
from nudgescribe_async.garbage import full_collections_put_off
from nudgescribe_async.page_window import ORDERS, Order, PageWindow

if TYPE_CHECKING:
    from typing import Self

    from nudgescribe_async.events import Job

__all__ = ["Page", "PageIterator", "PageSource"]

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")

LARGE = 2**20
"""Bytes of a page from which on it is decoded in a thread, so that the event loop is not held up."""

MOST_EMPTY = 100
"""Pages without items, one after the other, from which on a number of pages is not believed any more."""

_FAILURES = (TransportError, DeadlineExceededError, APIStatusError, ResponseDecodeError)


def _size(items: Collection[object]) -> str:
    return f"<{len(items):,} items>"


@frozen(kw_only=True)
class Page(Generic[T]):
    """One page of an iteration.

    Attributes:
        number: as the service counts.
        items: what is on it, without what ``consistency="dedupe"`` leaves out.
        total: how many pages there were at the start; ``None`` if that is not known.
        cursor: where to go on once this page is dealt with. Keep it together with what you made of the page, and
            nothing is lost or repeated however your program ends.
    """

    number: int
    items: Collection[T] = field(repr=_size)
    total: int | None
    cursor: PageCursor


@frozen(kw_only=True)
class PageSource(Generic[P, T]):
    """What an iteration has to know of a resource.

    Attributes:
        operation: what is paged, for errors and events.
        fetch: asks for one page.
        decode: the items of a page; called when the page's turn comes, in a thread if the page is large.
        count: asks for the number of pages; ``None`` if nobody knows it: then the pages end with an empty one.
        query: a fingerprint of what is asked for; a cursor fits no other.
        first_page: the number of the first page.
        identify: tells items apart; ``None`` if they cannot be.
        even: whether all pages but the last have the same number of items.
        weigh: the bytes of a page as it came.
    """

    operation: str
    fetch: Callable[[int], Awaitable[P]]
    decode: Callable[[P], Collection[T]]
    count: Callable[[], Awaitable[int]] | None
    query: str = ""
    first_page: int = 1
    identify: Callable[[T], str] | None = None
    even: bool = False
    weigh: Callable[[P], int] = field(default=lambda _: 0)


def _at_least_one(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}.")
    return value


def _one_of(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}.")


def _start(source: PageSource[Any, Any], resume_from: PageCursor | str | None) -> PageCursor:
    if resume_from is None:
        return PageCursor(query=source.query, page=source.first_page)
    if isinstance(resume_from, str):
        resume_from = PageCursor.from_json(resume_from)
    if not isinstance(resume_from, PageCursor):
        raise TypeError(f"resume_from must be a PageCursor or its JSON, not {type(resume_from).__name__}.")
    if resume_from.query != source.query:
        raise ValueError(
            "resume_from is a cursor of another query: of another resource, other arguments, another address of the "
            "service, or pages counted from another number. It fits only the one that it is from."
        )
    if resume_from.page < source.first_page:
        raise ValueError(f"resume_from is damaged: there is no page {resume_from.page}.")
    return resume_from


def _numbers(cursor: PageCursor) -> Iterator[int]:
    """The pages that are left; first the one that was handed out in part."""
    begun = None if cursor.part is None else cursor.part[0]
    if begun is not None:
        yield begun
    for number in count_from(cursor.page):
        if number != begun and not cursor.has(number):
            yield number


class PageIterator(Generic[T]):
    """The items of all pages: ``async for item in ...``; or the pages: ``async for page in ....pages()``.

    It may be iterated once, one way or the other. Leaving the loop early, by ``break``, an exception or
    cancellation, cancels what is in flight: at once if it is used as ``async with ... as items`` (or closed with
    ``aclose``), and as soon as Python lets go of it otherwise. One consumer at a time.

    ``cursor`` and ``report`` may be read at any time, also after the end, whatever it was.

    Raises (while iterating):
        PageError: a page could not be had, whatever was tried; ``__cause__`` says why, ``cursor`` where to go on.
            In the order of pages, all items of the pages before it were handed out.
        PageDriftError: the set changed meanwhile, and ``consistency="strict"``.
        NudgescribeError: the number of pages could not be had, or there is no token.
    """

    def __init__(
        self,
        source: PageSource[Any, T],
        *,
        concurrency: int,
        prefetch: int | None = None,
        order: Order = "page",
        consistency: Consistency = "warn",
        resume_from: PageCursor | str | None = None,
        events: Events | None = None,
    ) -> None:
        """Prepare an iteration; nothing is asked for before the first item is.

        Args:
            source: what is paged.
            concurrency: the most requests in flight.
            prefetch: the most pages ahead of the consumer; twice ``concurrency`` if left out, which
                keeps the requests going where answers take unequally long.
            order: ``"page"``, or ``"completion"``: whichever page comes first. Then a slow page holds nobody up.
            consistency: what to do about changes of the set meanwhile: ``"warn"`` logs and reports them, ``"dedupe"``
                leaves out what came before, ``"strict"`` raises ``PageDriftError``.
            resume_from: where an earlier iteration stood: a ``PageCursor``, or its JSON.
            events: is told of each page.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right, such as a cursor of another query.
        """
        _at_least_one("concurrency", concurrency)
        _at_least_one("prefetch", prefetch if prefetch is not None else 1)
        _one_of("order", order, ORDERS)
        _one_of("consistency", consistency, CONSISTENCIES)
        cursor = _start(source, resume_from)
        slots = asyncio.Semaphore(concurrency)
        window: PageWindow[Any] = PageWindow(
            source.fetch,
            _numbers(cursor),
            slots=slots,
            ahead=prefetch if prefetch is not None else 2 * concurrency,
            order=order,
            reach=cursor.page + MOST_AHEAD,
        )
        self._reading = _Reading[Any, T](
            source=source,
            window=window,
            slots=slots,
            watch=Watch(consistency, source.identify, source.even),
            events=events if events is not None else Events(),
            cursor=cursor,
            marks=source.identify is not None and order == "page",
        )
        # Weak, so that leaving the loop ends it, also if the iterator is kept for its cursor and report.
        self._items: weakref.ref[AsyncGenerator[T, None]] | None = None
        self._pages: weakref.ref[AsyncGenerator[Page[T], None]] | None = None
        self._stepped: AsyncGenerator[T, None] | None = None
        """Held by those who call ``anext`` with it."""

    @property
    def cursor(self) -> PageCursor:
        """Where to go on: everything that was handed out counts as dealt with, the item in your hands included."""
        return self._reading.where()

    @property
    def report(self) -> PageReport:
        """What was read so far, and what was noticed of changes."""
        return self._reading.report()

    def pages(self) -> AsyncGenerator[Page[T], None]:
        """By page, for those who keep the cursor of each: ``async for page in stream.pages()``.

        Raises:
            RuntimeError: it was iterated already, or closed.
        """
        self._refuse_a_second_time()
        begun = self._reading.pages()
        self._pages = weakref.ref(begun)
        return begun

    async def collect(self, into: list[T] | None = None) -> list[T]:
        """All items in a list, in the order in which they would be handed out.

        For what fits into memory: a million customers take about 1.6 GB. Python's full garbage collections are put off
        meanwhile, in the whole process, since each would look at all that was collected so far; the first one after it
        may take some tenths of a second, unless ``gc.freeze()`` is called before.

        Args:
            into: a list of yours to append to. It keeps the pages that came if the reading ends early, however, and then
                ``cursor``, also that of the error, is where to go on.

        Raises:
            PageError: a page could not be had. Without ``into``, what came before it is lost, and ``error.cursor`` is
                where this began.
            PageDriftError: the set changed meanwhile, and ``consistency="strict"``. As before.
            NudgescribeError: the number of pages could not be had, or there is no token.
            RuntimeError: it was iterated already, or closed.
            TypeError: ``into`` is no list.
        """
        if into is not None and not isinstance(cast("object", into), list):
            raise TypeError(f"into must be a list, not {type(into).__name__}.")
        start, collected = self.cursor, into if into is not None else []
        try:
            with full_collections_put_off():
                async with aclosing(self.pages()) as pages:
                    async for page in pages:
                        self._append(collected, page)
        except PageError as error:
            if into is None:
                error.cursor = start
                error.advice = "What was collected is lost: collect(into=...) a list of yours keeps it."
            raise
        return collected

    def _append(self, collected: list[T], page: Page[T]) -> None:
        size = len(collected)
        try:
            collected += page.items
        except BaseException:  # there is no memory, or Ctrl-C; the page is taken whole or not at all
            del collected[size:]
            self._reading.take_back()
            raise

    def __aiter__(self) -> AsyncIterator[T]:
        if self._stepped is not None and self._reading.ended is None:
            return self._stepped
        self._refuse_a_second_time()
        # The generator itself, so that leaving the loop leaves nothing that refers to it.
        begun = self._reading.items()
        self._items = weakref.ref(begun)
        return begun

    async def __anext__(self) -> T:
        if self._stepped is None:
            self._refuse_a_second_time()
            self._stepped = self._reading.items()
            self._items = weakref.ref(self._stepped)
        return await anext(self._stepped)

    async def aclose(self) -> None:
        """Cancel what is in flight, and end. May be called more than once.

        Also by another task than the one that iterates, whose iteration then ends with ``RuntimeError``.
        """
        await self._reading.close()
        if not self._reading.is_read_by_another:  # whose loop would end as if there were no more
            for known in (self._items, self._pages):
                begun = known() if known is not None else None
                if begun is not None:
                    await begun.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _refuse_a_second_time(self) -> None:
        if self._items is not None or self._pages is not None or self._reading.ended is not None:
            raise RuntimeError(
                "It has been iterated, or closed, and is iterated once only: call iter() again for another, with "
                "resume_from=stream.cursor to go on."
            )


@define(eq=False)
class _Open(Generic[T]):
    """A page whose items are being handed out."""

    number: int
    items: Collection[T]
    ahead: Iterator[T]
    """What is left of them."""
    positions: Sequence[int] | None
    """Where each of them stands on the page; ``None`` if that is all of it."""
    after: PageCursor
    """Where to go on once all are handed out."""

    @property
    def handed_out(self) -> int:
        return len(self.items) - length_hint(self.ahead)


@define(eq=False)
class _Reading(Generic[P, T]):
    """An iteration under way. It refers to no generator, so that one that is let go of ends at once."""

    source: PageSource[P, T]
    window: PageWindow[P]
    slots: asyncio.Semaphore
    watch: Watch[T]
    events: Events
    cursor: PageCursor
    """Without the page that is open."""
    marks: bool
    """Whether a cursor remembers what was handed out last."""
    before: tuple[PageCursor, int, int] = field(init=False)
    """The cursor, and what was handed out, before the page that was done last."""
    open: _Open[T] | None = None
    total: int | None = None
    total_at_resumption: int | None = None
    empty_in_a_row: int = 0
    pages_out: int = 0
    items_out: int = 0
    """Of pages that are done."""
    total_at_end: int | None = None
    complete: bool = False
    started: float | None = None
    ended: float | None = None
    told: set[str] = field(factory=set[str])
    reader: asyncio.Task[Any] | None = None
    """Who iterates."""
    tail: asyncio.Task[None] | None = None
    """A look at the last page, while the others are read."""
    job: Job | None = None
    """What its calls belong to, if somebody wants to know."""
    outcome: tuple[str, str | None] = ("left", None)
    """How it ends: unless anything else is found out, its consumer wants no more."""

    # --- what is known of it -------------------------------------------------------------------------------------

    def where(self) -> PageCursor:
        page = self.open
        handed_out = 0 if page is None else page.handed_out
        if page is None or handed_out == 0:
            return self.cursor
        if handed_out == len(page.items):
            return evolve(page.after, tail=self.cursor.tail)
        mark = self._mark(cast("Sequence[T]", page.items)[handed_out - 1]) if self.marks else None
        items = page.positions[handed_out - 1] + 1 if page.positions is not None else handed_out
        return self.cursor.within(page.number, items, mark)

    def report(self) -> PageReport:
        return PageReport(
            operation=self.source.operation,
            consistency=self.watch.consistency,
            pages=self.pages_out,
            items=self.items_out + (self.open.handed_out if self.open is not None else 0),
            total=self.cursor.total,
            total_at_resumption=self.total_at_resumption,
            total_at_end=self.total_at_end,
            complete=self.complete,
            repeated=self.watch.repeated,
            short_pages=self.watch.short_pages,
            empty_pages=self.watch.empty_pages,
            uncounted_pages=self.watch.uncounted_pages,
            last_page_changed=self.watch.last_page_changed,
            moved=self.watch.moved,
            seconds=self._seconds(),
        )

    def _seconds(self) -> float:
        if self.started is None:
            return 0.0
        return (self.ended if self.ended is not None else time.monotonic()) - self.started

    # --- handing out ---------------------------------------------------------------------------------------------

    async def items(self) -> AsyncGenerator[T, None]:
        # One generator, and none within it: an event loop that shuts down closes all of them side by side.
        try:
            while (page := await self._turn()) is not None:
                for item in page.ahead:
                    yield item
                self._done(page)
                # Gone before the next one is decoded, which then takes its place in memory: that is a fifth faster.
                del page
        finally:
            await self.close()

    async def pages(self) -> AsyncGenerator[Page[T], None]:
        try:
            while (page := await self._turn()) is not None:
                self._done(page)
                yield Page(number=page.number, items=page.items, total=self.total, cursor=self.cursor)
        finally:
            await self.close()

    def take_back(self) -> None:
        """The page that was done last is not dealt with after all."""
        self.cursor, self.pages_out, self.items_out = self.before

    def _done(self, page: _Open[T]) -> None:
        self.open, self.before = None, (self.cursor, self.pages_out, self.items_out)
        tail = self.cursor.tail  # which may have been seen while the page was handed out
        self.cursor = page.after if page.after.tail == tail else evolve(page.after, tail=tail)
        self.window.reach = self.cursor.page + MOST_AHEAD
        self.pages_out += 1
        self.items_out += len(page.items)

    async def turns(self) -> AsyncGenerator[Iterator[T], None]:
        """What is left of each page, a page at a time. It counts as handed out as far as the iterator is used up."""
        try:
            while (page := await self._turn()) is not None:
                yield page.ahead
                self._done(page)
                del page
        finally:
            await self.close()

    async def _turn(self) -> _Open[T] | None:
        """The next page; ``None`` at the end."""
        try:
            page = await self._after_that()
        except BaseException as error:
            self.outcome = ("failed", type(error).__name__)
            raise
        if page is None:
            self.outcome = ("complete", None)
        return page

    async def _after_that(self) -> _Open[T] | None:
        if self.started is None:
            self.started = time.monotonic()
            self.reader = asyncio.current_task()
            self.job = self.window.job = self.events.job(self.source.operation, "pages")
            # Together with the number of pages. One that was begun comes first, since a cursor remembers only one.
            self.window.ask(first=self.cursor.part is not None)
            await self._begin()
        page = await self._next()
        if self.ended is not None:
            raise RuntimeError("The iteration was closed by somebody else.")
        if page is None:
            await self._end()
            return None
        self.open = page
        self._tell(page)
        return page

    @property
    def is_read_by_another(self) -> bool:
        """Whether it is iterated by another task than this one, which goes on."""
        reader = self.reader
        return reader is not None and reader is not asyncio.current_task() and not reader.done()

    async def close(self) -> None:
        """End: cancel what is in flight. May be called more than once, and by another task than the one that reads."""
        if self.ended is None:
            self.ended = time.monotonic()
            if self.told:
                self._emit(" ".join(self.report().drift))
        if self.tail is not None:
            self.window.adopt(self.tail)
        try:
            await self.window.aclose()
        finally:
            if self.job is not None:
                outcome, error = self.outcome
                self.job.end(outcome, done=self.pages_out, items=self.report().items, error=error)
                self.job = self.window.job = None  # who keeps the iterator for its cursor does not keep the context

    async def _begin(self) -> None:
        """Ask how many pages there are; and look whether the items are still where the cursor says."""
        first, before = self.source.first_page, self.cursor.total
        self.total = await self._count()
        if self.total is not None:
            # Of none, page one is looked at all the same: it was asked for, and must not have items.
            self.window.end_at(first + max(self.total, 1) - 1)
            if before is None:
                self.cursor = evolve(self.cursor, total=self.total)
            else:
                self.total_at_resumption = self.total
                self.watch.compare_totals(before, self.total)
            self._look_at_the_end(self.total)
        if self.cursor.last is not None and (self.cursor.part is None or self.cursor.part[0] != self.cursor.page):
            items = await self._again(self.cursor.page - 1)
            if not items or self._mark(items[-1]) != self.cursor.last:
                self.watch.found_moved()
            self.watch.remember(items)
        self._judge(None)

    async def _count(self) -> int | None:
        """How many pages the service says that there are; ``None`` if nobody knows."""
        if self.source.count is None:
            return None
        async with self.slots:
            return await self._asked(self.source.count)

    async def _asked(self, ask: Callable[[], Awaitable[R]]) -> R:
        """A call that the iteration waits for: in a task of its own only if it must be known where it belongs."""
        if self.job is None:
            return await ask()

        async def asking() -> R:
            return await ask()

        return await self.job.task(asking(), name="nudgescribe iteration")

    async def _again(self, number: int) -> Sequence[T]:
        """The items of a page that was handed out by an earlier iteration."""
        try:
            async with self.slots:
                return [*(await self._decoded(await self._asked(partial(self.source.fetch, number))))]
        except _FAILURES as error:
            raise self._failure(number, error) from error

    def _look_at_the_end(self, total: int) -> None:
        """See what the last page is now. Items that are removed on the way show nowhere else, if they are few.

        If all pages are asked for at once, there is no need; but who is strict wants to know.
        """
        last = self.source.first_page + total - 1
        worth_it = total > 1 if self.watch.consistency == "strict" else total > self.window.ahead
        known = self.source.identify is None or self.cursor.tail is not None or self.cursor.has(last)
        if worth_it and not known:
            self.tail = asyncio.create_task(self._see_tail(last), name="nudgescribe last page")

    async def _see_tail(self, last: int) -> None:
        tail = self._tail(last, await self._again(last))
        self.cursor = evolve(self.cursor, tail=tail)  # which has gone on meanwhile

    def _tail(self, number: int, items: Collection[T]) -> str:
        return digest(number, [*map(self.source.identify, items)] if self.source.identify is not None else None)

    async def _compare_tail(self, number: int, items: Collection[T]) -> None:
        """The last page's turn has come."""
        if self.tail is not None:
            await asyncio.wait([self.tail])
            failure = None if self.tail.cancelled() else self.tail.exception()
            if failure is not None and (self.watch.consistency == "strict" or not isinstance(failure, PageError)):
                if isinstance(failure, PageError):
                    failure.cursor = self.where()  # it was made long ago
                raise failure
        if self.cursor.tail is not None:
            self.watch.compare_tails(self.cursor.tail, self._tail(number, items))

    async def _next(self) -> _Open[T] | None:
        """The next page, with what is to be handed out of it; ``None`` at the end."""
        while (turn := await self.window.take()) is not None:
            number, task = turn
            try:
                items = await self._decoded(task.result())
            except _FAILURES as error:
                if self.total == 0:
                    return None  # there is no page one either
                raise self._failure(number, error) from error
            if self.total == 0 and items:
                self.watch.found_uncounted()
                self._judge(number)
                self.total = None
                self.window.go_on()
            if not items:
                self.empty_in_a_row += 1
                if not self.total:
                    self.window.end_at(number)  # nobody knows how many there are, but this one tells
                    continue
                await self._count_again(number, self.total)
            else:
                self.empty_in_a_row = 0
            if number == self._last():
                await self._compare_tail(number, items)
            return self._opened(number, items)
        return None

    def _last(self) -> int | None:
        return None if self.total is None else self.source.first_page + self.total - 1

    async def _count_again(self, number: int, known: int) -> None:
        """A page within the number of pages has no items: there may be fewer by now."""
        if number == self._last():
            return
        if self.empty_in_a_row > MOST_EMPTY:
            raise self._drift(
                f"{self.empty_in_a_row} pages in a row have no items, so there cannot be {known:,} of them.",
                number,
            )
        try:
            total = await self._count()
        except _FAILURES as error:
            raise self._failure(number, error) from error
        if total is not None and self.source.first_page + total <= number:
            self.window.end_at(number)

    async def _decoded(self, held: P) -> Collection[T]:
        if self.source.weigh(held) < LARGE:
            return self.source.decode(held)
        return await asyncio.to_thread(self.source.decode, held)

    def _opened(self, number: int, items: Collection[T]) -> _Open[T]:
        last = None if self.total is None else number == self._last()
        part, size = self.cursor.part, len(items)
        skip = part[1] if part is not None and part[0] == number else 0
        positions = self.watch.look(number, items, last=last)
        mark = self._mark(cast("Sequence[T]", items)[-1]) if self.marks and items else None
        if skip and self.marks and self.cursor.last is not None:
            before = cast("Sequence[T]", items)[skip - 1] if skip <= size else None
            if before is None or self._mark(before) != self.cursor.last:
                self.watch.found_moved()
        self._judge(number)
        if self.total is None and self.watch.nothing_new:
            # A service that gives the same page for every number would do so for ever.
            raise self._drift(
                f"Page {number} has nothing but items that came before, so the pages may never end.", number
            )
        if skip:
            positions = [where for where in (positions if positions is not None else range(size)) if where >= skip]
        if positions is not None:
            everything = [*items]
            items = [everything[where] for where in positions]
        return _Open(number, items, iter(items), positions, self.cursor.after(number, mark))

    async def _end(self) -> None:
        """Ask for the number of pages once more."""
        try:
            self.total_at_end = await self._count()
        except _FAILURES as error:
            if self.watch.consistency == "strict":
                raise self._failure(None, error) from error
        if self.total_at_end is not None:
            self.watch.compare_totals(self.total or 0, self.total_at_end)
            self._judge(None)
        self.complete = True

    # --- what is told --------------------------------------------------------------------------------------------

    def _mark(self, item: T) -> str:
        """What a cursor remembers an item by."""
        assert self.source.identify is not None  # noqa: S101 - else nothing is marked
        return digest(self.source.identify(item))

    def _judge(self, number: int | None) -> None:
        """Say what was noticed, the first time of each kind; or raise it."""
        noticed, self.watch.noticed = self.watch.noticed, []
        for kind, sentence in noticed:
            if self.watch.consistency == "strict":
                failure = self._drift(sentence, number)
                failure.advice = "Read it anew, or go on from the cursor with another consistency."
                raise failure
            if kind not in self.told:
                self.told.add(kind)
                self._emit(sentence)

    def _drift(self, sentence: str, number: int | None) -> PageDriftError:
        failure = PageDriftError(
            f"The set changed while its pages were read. {sentence}",
            page=number,
            cursor=self.cursor,
            operation=self.source.operation,
        )
        failure.drift = sentence
        return failure

    def _emit(self, drift: str) -> None:
        tell = self.events.emit if self.job is None else self.job.tell
        tell(PagesDrifted(operation=self.source.operation, drift=drift))

    def _tell(self, page: _Open[T]) -> None:
        if self.events.heard(PageFetched):
            self.events.emit(
                PageFetched(
                    operation=self.source.operation,
                    page=page.number,
                    total=self.total,
                    done=self.pages_out + 1,
                    items=self.items_out + len(page.items),
                    seconds=self._seconds(),
                )
            )

    def _failure(self, page: int | None, error: NudgescribeError) -> PageError:
        what = "The number of pages" if page is None else f"Page {page}"
        of = f" of {self.total}" if page is not None and self.total is not None else ""
        failure = PageError(
            f"{what}{of} could not be had: {error.message}",
            page=page,
            cursor=self.where(),
            operation=error.operation or self.source.operation,
            request_id=error.request_id,
            attempts=error.attempts,
        )
        failure.not_repeated = error.not_repeated
        failure.advice = "What was handed out stays: go on with resume_from=error.cursor."
        return failure
