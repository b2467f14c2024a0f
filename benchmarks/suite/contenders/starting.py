"""The first call of a program, and what it does to the event loop."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from suite.contender import GROUP, HEADERS, Base

PAUSE = 0.0005


class Contender(Base):
    """Everything in a fresh process: only the modules of the first import are there."""

    async def ours(self) -> dict[str, float]:
        """From building a client to its first answer; the login is part of it."""
        package = importlib.import_module("nudgescribe_async")
        kind, owner = package.Nudgescribe, package.Credentials(api_key="key", email="a@example.com", password="secret")
        client: Any = None

        async def build() -> None:
            nonlocal client
            client = kind(owner, base_url=self.url)

        async def call() -> None:
            await client.customers.count_pages("group")

        try:
            return {**await _watched("built", build), **await _watched("first", call), **await _watched("second", call)}
        finally:
            await client.aclose()

    async def floor(self) -> dict[str, float]:
        """The same with raw aiohttp and orjson, without a login."""
        session: Any = None

        async def build() -> None:
            nonlocal session
            session = importlib.import_module("aiohttp").ClientSession(headers=HEADERS)

        async def call() -> None:
            orjson = importlib.import_module("orjson")
            async with session.post(f"{self.url}/v1/customer/pages", data=orjson.dumps(GROUP)) as response:
                orjson.loads(await response.read())

        try:
            return {**await _watched("built", build), **await _watched("first", call), **await _watched("second", call)}
        finally:
            await session.close()


async def _watched(name: str, work: Callable[[], Awaitable[None]]) -> dict[str, float]:
    """Seconds that it took, and seconds that the event loop was held up at most."""
    longest, before, going = 0.0, time.perf_counter(), True

    async def look() -> None:
        nonlocal longest, before
        while going:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now

    looking = asyncio.create_task(look())
    await asyncio.sleep(PAUSE)
    longest, started = 0.0, time.perf_counter()
    await work()
    took = time.perf_counter() - started
    await asyncio.sleep(0)
    going = False
    await looking
    return {name: took, f"{name}, held up": longest}
