"""What all contenders have in common: the work, and the sliding window that those write who have none."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CONCURRENCY = 16
AHEAD = 32
GROUP = {"customer_group_id": "group"}
TOKEN = "a.b.c" * 40
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Accept": "application/json"}


class Base:
    """A contender: opened once for an address, and asked for the same work again and again."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def aclose(self) -> None:
        """Close the client."""

    async def count(self) -> int:
        """One small call: the number of pages."""
        raise NotImplementedError

    async def read(self, *, pages: int, records: int) -> int:
        """Count the pages, then visit every record of all of them in page order."""
        raise NotImplementedError

    async def read_again(self, *, times: int, pages: int, records: int) -> None:
        """The same so many times."""
        for _ in range(times):
            await self.read(pages=pages, records=records)

    async def check(self, *, pages: int, records: int) -> int:
        """Read, and look at every id. Not to be timed."""
        raise NotImplementedError

    async def call(self, *, times: int) -> None:
        """So many small calls, one after the other."""
        for _ in range(times):
            await self.count()

    async def callers(self, *, callers: int, times: int) -> None:
        """So many small calls in all, by so many callers at once."""
        await asyncio.gather(*(self.call(times=times // callers) for _ in range(callers)))


def verified(ids: list[str], *, pages: int, records: int) -> int:
    """The number of records; raises if it is not every one, once, in order."""
    expected = [f"{page:08}-{index:08}" for page in range(1, pages + 1) for index in range(records)]
    if ids != expected:
        wrong = next((pair for pair in zip(ids, expected, strict=False) if pair[0] != pair[1]), "the number of them")
        raise AssertionError(f"{len(ids):,} ids of {len(expected):,}; the first difference: {wrong}")
    return len(ids)


async def sliding(fetch: Callable[[int], Awaitable[T]], pages: int) -> AsyncGenerator[T, None]:
    """Pages in order, at most ``CONCURRENCY`` in flight and ``AHEAD`` ahead. For who has no better of their own."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def fetch_in_slot(page: int) -> T:
        async with slots:
            return await fetch(page)

    window = deque(asyncio.create_task(fetch_in_slot(page)) for page in range(1, min(AHEAD, pages) + 1))
    try:
        for page in range(AHEAD + 1, pages + AHEAD + 1):
            if not window:
                return
            body = await window.popleft()
            if page <= pages:
                window.append(asyncio.create_task(fetch_in_slot(page)))
            yield body
    finally:
        for task in window:
            task.cancel()


class Windowed(Base):
    """A contender that has to bring its own window: it fetches a page as bytes, and decodes it when its turn comes."""

    async def fetch(self, page: int) -> bytes:
        """The body of one page."""
        raise NotImplementedError

    def decode(self, body: bytes) -> list[Any]:
        """The records of a page."""
        raise NotImplementedError

    def identify(self, record: Any) -> str:
        """The id of a record."""
        return str(record.customer_id)

    async def read(self, *, pages: int, records: int) -> int:
        seen = 0
        async for body in sliding(self.fetch, await self.count()):
            for _ in self.decode(body):
                seen += 1
        return whole(seen, pages=pages, records=records)

    async def check(self, *, pages: int, records: int) -> int:
        ids = [
            self.identify(record)
            async for body in sliding(self.fetch, await self.count())
            for record in self.decode(body)
        ]
        return verified(ids, pages=pages, records=records)

    async def first(self) -> float:
        """Seconds until the first record is here."""
        started = time.perf_counter()
        async with aclosing(sliding(self.fetch, await self.count())) as pages:
            async for body in pages:
                for _ in self.decode(body):
                    return time.perf_counter() - started
        raise AssertionError("there was none")


def whole(seen: int, *, pages: int, records: int) -> int:
    """The number of records; raises if some are missing."""
    if seen != pages * records:
        raise AssertionError(f"{seen:,} records of {pages * records:,}")
    return seen


class Memory:
    """How far the peak of the memory of this process grows from now on."""

    def __init__(self) -> None:
        gc.collect()
        with suppress(OSError):  # elsewhere, the peak so far has to do
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = peak()

    def growth(self) -> int:
        """In bytes."""
        return peak() - self._before


def peak() -> int:
    """The most bytes that this process had in memory."""
    with suppress(OSError):  # not ru_maxrss, which a process takes over from the one that started it
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
