"""This package, as its README shows it."""

from __future__ import annotations

import asyncio
import time

from nudgescribe_async import Credentials, Customer, Nudgescribe
from nudgescribe_async.events import Event, RequestFinished
from nudgescribe_async.transport import Transport
from suite.contender import CONCURRENCY, Base, Memory, verified, whole


class Contender(Base):
    """A client that is kept."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.ns = Nudgescribe(
            Credentials(api_key="key", email="a@example.com", password="secret"),
            base_url=url,
            transport=self.transport(),
        )
        self.kept: list[Customer] = []

    def transport(self) -> Transport | None:
        """The one of the client, unless another is measured."""
        return None

    async def aclose(self) -> None:
        await self.ns.aclose()

    async def count(self) -> int:
        return await self.ns.customers.count_pages("group")

    async def read(self, *, pages: int, records: int) -> int:
        seen = 0
        async for _ in self.ns.customers.iter("group", concurrency=CONCURRENCY):
            seen += 1
        return whole(seen, pages=pages, records=records)

    async def check(self, *, pages: int, records: int) -> int:
        stream = self.ns.customers.iter("group", concurrency=CONCURRENCY)
        ids = [customer.customer_id async for customer in stream]
        if stream.report.drift:
            raise AssertionError(stream.report.drift)
        return verified(ids, pages=pages, records=records)

    async def first(self) -> float:
        """Seconds until the first record is here."""
        started = time.perf_counter()
        async with self.ns.customers.iter("group", concurrency=CONCURRENCY) as stream:
            async for _ in stream:
                return time.perf_counter() - started
        raise AssertionError("there was none")

    async def collect(self, *, pages: int, records: int) -> int:
        """All records in a list, which is kept until the clock has been stopped."""
        self.kept = await self.ns.customers.iter("group", concurrency=CONCURRENCY).collect()
        return whole(len(self.kept), pages=pages, records=records)

    async def collect_by_hand(self, *, pages: int, records: int) -> int:
        """The same without ``collect``, the garbage collector left as it is."""
        self.kept = [customer async for customer in self.ns.customers.iter("group", concurrency=CONCURRENCY)]
        return whole(len(self.kept), pages=pages, records=records)

    async def memory(self, *, pages: int, records: int, pause: float) -> dict[str, float]:
        """Read everything, with a pause after each page; how far memory grew, and how many pages were ahead at most."""
        came = ahead = seen = 0

        def count(event: Event) -> None:
            nonlocal came
            came += isinstance(event, RequestFinished) and event.operation == "customers.list" and event.status == 200

        await self.ns.customers.list("group", page=1)
        self.ns.events.subscribe(count)
        memory = Memory()
        async for _ in self.ns.customers.iter("group", concurrency=CONCURRENCY):
            seen += 1
            if seen % records == 1:
                ahead = max(ahead, came - seen // records - 1)
                if pause:
                    await asyncio.sleep(pause)
        whole(seen, pages=pages, records=records)
        return {"bytes": memory.growth(), "ahead": ahead}
