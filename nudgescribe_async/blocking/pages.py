"""``PageIterator`` for ``for`` in place of ``async for``.

It takes the pages of the asynchronous iterator from below its public side, which would give them one item at a time: a call
into the event loop costs as much as some fifty items.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator
    from typing import Self

    from nudgescribe_async.blocking.loop_thread import LoopThread
    from nudgescribe_async.consistency import PageReport
    from nudgescribe_async.cursor import PageCursor
    from nudgescribe_async.paging import Page
    from nudgescribe_async.paging import PageIterator as AsyncPageIterator

__all__ = ["PageIterator"]

T = TypeVar("T")


class PageIterator(Generic[T]):
    """The items of all pages: ``for item in ...``; or the pages: ``for page in ....pages()``.

    Pages are asked for in the background, while your loop works: at most ``prefetch`` of them are ahead of it, however slow
    it is. They come over a page at a time, so that an item costs no more than that of a list.

    It may be iterated once, one way or the other. Leaving the loop early, by ``break``, an exception or Ctrl-C, cancels what
    is in flight: at once, and waits for it, if it is used as ``with ... as items`` (or closed with ``close``); as soon as
    Python lets go of it, and without waiting, otherwise. One consumer at a time; it need not be the thread that made it.

    ``cursor`` and ``report`` may be read by the thread that iterates, also after the end, whatever it was, and after
    the client is closed.

    Raises (while iterating):
        PageError: a page could not be had, whatever was tried; ``__cause__`` says why, ``cursor`` where to go on.
            In the order of pages, all items of the pages before it were handed out.
        PageDriftError: the set changed meanwhile, and ``consistency="strict"``.
        ClientClosedError: the client is closed.
        NudgescribeError: the number of pages could not be had, or there is no token.
    """

    def __init__(self, stream: AsyncPageIterator[T], thread: LoopThread) -> None:
        self._stream = stream
        self._thread = thread
        self._stepped: Generator[T, None, None] | None = None
        """Held by those who call ``next`` with it."""
        # Weak, so that leaving the loop ends it, also if the iterator is kept for its cursor and report.
        self._begun: weakref.ref[Generator[Any, None, None]] | None = None
        self._consumer = _Consumer()

    @property
    def cursor(self) -> PageCursor:
        """Where to go on: everything that was handed out counts as dealt with, the item in your hands included."""
        return self._stream.cursor

    @property
    def report(self) -> PageReport:
        """What was read so far, and what was noticed of changes."""
        return self._stream.report

    def pages(self) -> Generator[Page[T], None, None]:
        """By page, for those who keep the cursor of each: ``for page in stream.pages()``.

        Raises:
            RuntimeError: it was iterated already, or closed.
        """
        pages = _handed_over(self._thread, self._stream.pages(), self._consumer)
        self._begun = weakref.ref(pages)
        return pages

    def collect(self, into: list[T] | None = None) -> list[T]:
        """All items in a list, in the order in which they would be handed out.

        For what fits into memory: a million customers take about 1.6 GB. Python's full garbage collections are put off
        meanwhile, in the whole process; see ``nudgescribe_async.PageIterator``.

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
        return self._thread.call(partial(self._stream.collect, into))

    def __iter__(self) -> Iterator[T]:
        if self._stepped is not None and self._stream._reading.ended is None:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            return self._stepped
        return self._begin()

    def __next__(self) -> T:
        if self._stepped is None:
            self._stepped = self._begin()
        return next(self._stepped)

    def close(self) -> None:
        """Cancel what is in flight, wait for its end, and end. May be called more than once, and when the client is closed.

        Also by another thread than the one that iterates, or by a handler of a signal while it waits: the iteration then ends
        with ``RuntimeError``.
        """
        if not self._thread.ended and self._thread.is_here:
            self._thread.call(self._stream._reading.close)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        begun = self._begun() if self._begun is not None else None
        # Else the loop of another thread, or that which a handler of a signal interrupts, would end as if there were no more.
        mine = self._consumer.thread in {None, threading.get_ident()}
        if begun is not None and mine and inspect.getgeneratorstate(begun) != inspect.GEN_RUNNING:
            begun.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> Generator[T, None, None]:
        items = _items(self._thread, _turns(self._stream), self._consumer)
        self._begun = weakref.ref(items)
        return items


def _turns(stream: AsyncPageIterator[T]) -> AsyncGenerator[Iterator[T], None]:
    """What is left of each page, a page at a time. It counts as handed out as far as the iterator is used up."""
    stream._refuse_a_second_time()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    begun = stream._reading.turns()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    stream._pages = weakref.ref(cast("AsyncGenerator[Page[T], None]", begun))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return begun


# Functions, that refer to no PageIterator: one that is let go of ends at once.


def _items(
    thread: LoopThread, turns: AsyncGenerator[Iterator[T], None], consumer: _Consumer
) -> Generator[T, None, None]:
    for ahead in _handed_over(thread, turns, consumer):
        yield from ahead
        del ahead  # and its page with it, before the next one is decoded


def _handed_over(thread: LoopThread, values: AsyncGenerator[T, None], consumer: _Consumer) -> Generator[T, None, None]:
    # Whatever ends this lets go of the values, and Python tells their event loop, from whichever thread: it closes them.
    consumer.thread = threading.get_ident()
    while (value := thread.call(partial(anext, values, None))) is not None:
        yield value
        del value
        consumer.thread = threading.get_ident()


class _Consumer:
    """The thread that iterates; none before it has begun."""

    thread: int | None = None
