"""The floor: raw aiohttp and orjson, to plain dicts. Nothing is checked, retried, renewed or limited."""

from __future__ import annotations

import asyncio
import gc
import math
from typing import Any

import aiohttp
import orjson
from yarl import URL

from suite.contender import GROUP, HEADERS, Memory, Windowed, sliding, whole


class Contender(Windowed):
    """A session that is kept, bodies as bytes, and addresses that are parsed once."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.kept: list[Any] = []
        self._session: aiohttp.ClientSession | None = None
        self._page, self._count = URL(f"{url}/v1/customer"), URL(f"{url}/v1/customer/pages")

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made within the event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=HEADERS, raise_for_status=True)
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def count(self) -> int:
        async with self.session.post(self._count, data=orjson.dumps(GROUP)) as response:
            return int(orjson.loads(await response.read())["pages"])

    async def fetch(self, page: int) -> bytes:
        body = orjson.dumps({**GROUP, "page": page})
        async with self.session.post(self._page, data=body) as response:
            return await response.read()

    def decode(self, body: bytes) -> list[Any]:
        return orjson.loads(body)  # type: ignore[no-any-return]  # a list, since that is what was asked for

    def identify(self, record: dict[str, Any]) -> str:
        return str(record["customer_id"])

    async def collect(self, *, pages: int, records: int) -> int:
        """All records in a list, which is kept until the clock has been stopped."""
        self.kept = []
        async for body in sliding(self.fetch, await self.count()):
            self.kept += self.decode(body)
        return whole(len(self.kept), pages=pages, records=records)

    async def collect_without_gc(self, *, pages: int, records: int) -> int:
        """The same, by who knows that the garbage collector looks at all of it again and again."""
        gc.disable()
        try:
            return await self.collect(pages=pages, records=records)
        finally:
            gc.enable()

    async def memory(self, *, pages: int, records: int, pause: float) -> dict[str, float]:
        """Read everything, with a pause after each page; how far memory grew."""
        await self.fetch(1)
        memory, seen = Memory(), 0
        async for body in sliding(self.fetch, await self.count()):
            for _ in self.decode(body):
                seen += 1
            if pause:
                await asyncio.sleep(pause)
        whole(seen, pages=pages, records=records)
        return {"bytes": memory.growth(), "ahead": math.nan}
