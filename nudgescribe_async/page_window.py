"""Requests for pages, so many at once and so far ahead of the consumer. Knows nothing of what is in a page."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from nudgescribe_async.events import Job

__all__ = ["ORDERS", "Order", "PageWindow"]

P = TypeVar("P")

Order: TypeAlias = Literal["page", "completion"]
ORDERS: tuple[Order, ...] = ("page", "completion")


class PageWindow(Generic[P]):
    """The pages that were asked for, and not taken yet.

    Args:
        fetch: asks for one page.
        numbers: which pages, one after the other; without an end.
        slots: how many may be in flight.
        ahead: how many pages may wait for the consumer, in flight or here.
        order: whether they are taken in their order, or as they come.
        reach: the last page that may be asked for now, where they are taken as they come. To be moved on.
    """

    def __init__(
        self,
        fetch: Callable[[int], Awaitable[P]],
        numbers: Iterator[int],
        *,
        slots: asyncio.Semaphore,
        ahead: int,
        order: Order,
        reach: int,
    ) -> None:
        self._last: int | None = None
        self._fetch = fetch
        self._numbers = numbers
        self._slots = slots
        self.ahead = ahead
        self.reach = reach
        self._next = next(numbers)
        self._waiting: dict[asyncio.Task[P], int] = {}
        # What is to be taken next: in the order of pages as they were asked for, else as they came.
        self._line: deque[asyncio.Task[P]] = deque()
        self._cancelled: list[asyncio.Task[Any]] = []
        self._closed = False
        self._by_completion = order == "completion"
        self._came = asyncio.Event()
        self.job: Job | None = None
        """That the requests are part of, if somebody wants to know."""

    def ask(self, *, first: bool = False) -> None:
        """Ask for the next page, whether or not there is one.

        Args:
            first: whether it is to be taken before all others, even if they come before it.
        """
        start = asyncio.create_task if self.job is None else self.job.task
        task = start(self._in_slot(self._next), name=f"nudgescribe page {self._next}")
        self._waiting[task] = self._next
        self._next = next(self._numbers)
        if self._by_completion and not first:
            task.add_done_callback(self._arrived)
        else:
            self._line.append(task)

    async def take(self) -> tuple[int, asyncio.Task[P]] | None:
        """The next page: its number, and the task that has ended with it, or with what went wrong.

        ``None`` if there are no more. As a page is taken, another one is asked for, unless it went wrong.
        """
        self._fill()
        while self._waiting and not self._line:
            self._came.clear()
            await self._came.wait()
        if not self._waiting:
            return None
        task = self._line[0]
        if not task.done():
            await asyncio.wait([task])
        if task not in self._waiting:
            return None  # closed meanwhile
        self._line.popleft()
        number = self._waiting.pop(task)
        if task.exception() is None:
            self._fill()
        return number, task

    def end_at(self, last: int) -> None:
        """There are no pages after this one: ask for none, and cancel what is in flight of them."""
        self._last = last
        for task, number in [*self._waiting.items()]:
            if number > last:
                del self._waiting[task]
                if task in self._line:
                    self._line.remove(task)
                self.adopt(task)

    def go_on(self) -> None:
        """Nobody knows where the pages end after all."""
        self._last = None

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """End another task along with those of the pages."""
        task.cancel()
        self._cancelled.append(task)

    async def aclose(self) -> None:
        """Cancel what is in flight, and wait for its end."""
        for task in self._waiting:
            self.adopt(task)
        self._waiting.clear()
        self._line.clear()
        self._closed = True
        self._came.set()
        ending, self._cancelled = self._cancelled, []  # who keeps the iterator for its cursor does not keep the pages
        await asyncio.gather(*ending, return_exceptions=True)

    def _fill(self) -> None:
        while (
            not self._closed
            and len(self._waiting) < self.ahead
            and (self._last is None or self._next <= self._last)
            and (not self._by_completion or self._next <= self.reach)
        ):
            self.ask()

    def _arrived(self, task: asyncio.Task[P]) -> None:
        if task in self._waiting:
            self._line.append(task)
            self._came.set()

    async def _in_slot(self, number: int) -> P:
        async with self._slots:
            return await self._fetch(number)
