"""Many pages, asked for side by side, handed out in order. Knows no resource.

At most ``concurrency`` requests are in flight, and at most ``prefetch`` pages are ahead of the
consumer; they are held as they came, and decoded when their turn comes. So a slow consumer slows the
requests down, and memory does not grow with the number of pages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from nudgescribe_async.errors import (
    APIStatusError,
    DeadlineExceededError,
    NudgescribeError,
    PageError,
    ResponseDecodeError,
    TransportError,
)
from nudgescribe_async.events import Events, PageFetched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
    from typing import Self

__all__ = ["PageIterator"]

P = TypeVar("P")
T = TypeVar("T")


def _at_least_one(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}.")
    return value


class PageIterator(Generic[T]):
    """The items of all pages, in order: ``async for item in ...``.

    It may be iterated once. Leaving the loop early, by ``break``, an exception or cancellation, cancels
    what is in flight: at once if it is used as ``async with ... as items`` (or closed with ``aclose``), and
    as soon as Python lets go of it otherwise. One consumer at a time.

    Raises (while iterating):
        PageError: a page could not be had, whatever was tried; ``__cause__`` says why. All items of
            the pages before it were handed out.
        NudgescribeError: the number of pages could not be had, or there is no token.
    """

    def __init__(
        self,
        *,
        operation: str,
        count: Callable[[], Awaitable[int]],
        fetch: Callable[[int], Awaitable[P]],
        decode: Callable[[P], Iterable[T]],
        concurrency: int,
        prefetch: int | None = None,
        first_page: int = 1,
        events: Events | None = None,
    ) -> None:
        """Prepare an iteration; nothing is asked for before the first item is.

        Args:
            operation: what is paged, for errors and events.
            count: asks for the number of pages.
            fetch: asks for one page.
            decode: the items of a page; called when the page's turn comes.
            concurrency: the most requests in flight.
            prefetch: the most pages ahead of the consumer; twice ``concurrency`` if left out, which
                keeps the requests going where answers take unequally long.
            first_page: the number of the first page.
            events: is told of each page.
        """
        _at_least_one("concurrency", concurrency)
        _at_least_one("prefetch", prefetch if prefetch is not None else 1)
        self._operation = operation
        self._events = events if events is not None else Events()
        self._ended = False
        ahead = prefetch if prefetch is not None else 2 * concurrency
        self._items = self._iterate(count, fetch, decode, asyncio.Semaphore(concurrency), ahead, first_page)

    def __aiter__(self) -> AsyncIterator[T]:
        if self._ended:
            raise RuntimeError("The iteration has ended; call iter() again for another.")
        # The generator itself, so that leaving the loop leaves nothing that refers to it.
        return self._items

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def aclose(self) -> None:
        """Cancel what is in flight, and end. May be called more than once."""
        self._ended = True
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _iterate(
        self,
        count: Callable[[], Awaitable[int]],
        fetch: Callable[[int], Awaitable[P]],
        decode: Callable[[P], Iterable[T]],
        slots: asyncio.Semaphore,
        ahead: int,
        first_page: int,
    ) -> AsyncGenerator[T, None]:
        async def fetch_in_slot(page: int) -> P:
            async with slots:
                return await fetch(page)

        window: deque[tuple[int, asyncio.Task[P]]] = deque()
        try:
            total = await count()
            numbers = iter(range(first_page, first_page + total))
            for page in numbers:
                window.append((page, asyncio.create_task(fetch_in_slot(page))))
                if len(window) == ahead:
                    break
            while window:
                page, task = window[0]
                try:
                    held = await task
                    window.popleft()
                    if (following := next(numbers, None)) is not None:
                        window.append((following, asyncio.create_task(fetch_in_slot(following))))
                    items = decode(held)
                except (TransportError, DeadlineExceededError, APIStatusError, ResponseDecodeError) as error:
                    raise self._failure(page, total, error) from error
                self._events.emit(PageFetched(operation=self._operation, page=page, total=total))
                del held, task  # the bytes; the items are all that is needed now
                for item in items:
                    yield item
        finally:
            self._ended = True
            for _, task in window:
                task.cancel()
            await asyncio.gather(*(task for _, task in window), return_exceptions=True)

    def _failure(self, page: int, total: int, error: NudgescribeError) -> PageError:
        failure = PageError(
            f"Page {page} of {total} could not be had: {error.message}",
            page=page,
            operation=error.operation or self._operation,
            request_id=error.request_id,
            attempts=error.attempts,
        )
        failure.not_repeated, failure.advice = error.not_repeated, error.advice
        return failure
