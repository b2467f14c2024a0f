"""httpx, and pydantic that reads the bytes itself."""

from __future__ import annotations

from typing import Any

import httpx

from suite.contender import GROUP, HEADERS, Windowed
from suite.contenders.pydantic_models import CUSTOMERS, PAGE_COUNT


class Contender(Windowed):
    """One client, as many connections as are used, none of them let go of."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=300)
        self._client = httpx.AsyncClient(base_url=url, headers=HEADERS, limits=limits, trust_env=False)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def count(self) -> int:
        response = await self._client.post("/v1/customer/pages", json=GROUP)
        return PAGE_COUNT.validate_json(response.raise_for_status().content).pages

    async def fetch(self, page: int) -> bytes:
        response = await self._client.post("/v1/customer", json={**GROUP, "page": page})
        return response.raise_for_status().content

    def decode(self, body: bytes) -> list[Any]:
        return CUSTOMERS.validate_json(body)
