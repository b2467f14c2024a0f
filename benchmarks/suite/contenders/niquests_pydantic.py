"""niquests, its async session, and pydantic that reads the bytes itself."""

from __future__ import annotations

from typing import Any

import niquests

from suite.contender import CONCURRENCY, GROUP, HEADERS, Windowed
from suite.contenders.pydantic_models import CUSTOMERS, PAGE_COUNT


class Contender(Windowed):
    """One session with a connection for each request in flight."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._session = niquests.AsyncSession(
            pool_connections=1, pool_maxsize=2 * CONCURRENCY, disable_http2=True, disable_http3=True, headers=HEADERS
        )
        self._session.trust_env = False

    async def aclose(self) -> None:
        await self._session.close()

    async def post(self, path: str, body: dict[str, Any]) -> bytes:
        response = await self._session.post(f"{self.url}{path}", json=body)
        content = response.raise_for_status().content
        assert isinstance(content, bytes)
        return content

    async def count(self) -> int:
        return PAGE_COUNT.validate_json(await self.post("/v1/customer/pages", GROUP)).pages

    async def fetch(self, page: int) -> bytes:
        return await self.post("/v1/customer", {**GROUP, "page": page})

    def decode(self, body: bytes) -> list[Any]:
        return CUSTOMERS.validate_json(body)
