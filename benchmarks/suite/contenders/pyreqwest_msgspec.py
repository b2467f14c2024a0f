"""pyreqwest, and msgspec into its own structures."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from pyreqwest.client import Client, ClientBuilder

from suite.contender import GROUP, HEADERS, Windowed


class Customer(msgspec.Struct, gc=False):
    """The fields that the contract has."""

    customer_id: str
    customer_group_id: str
    extended_profile: dict[str, Any]
    account_id: str | None = None
    workspace_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: str | None = None
    updated_by: str | None = None


class PageCount(msgspec.Struct):
    """How many pages there are."""

    pages: int


CUSTOMERS = msgspec.json.Decoder(list[Customer])
PAGE_COUNT = msgspec.json.Decoder(PageCount)
ENCODER = msgspec.json.Encoder()


class Contender(Windowed):
    """One client, one thread beside that of Python, connections kept."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Made within the event loop."""
        if self._client is None:
            self._client = (
                ClientBuilder()
                .base_url(self.url)
                .default_headers(HEADERS)
                .http1_only()
                .no_proxy()
                .error_for_status(True)
                .pool_idle_timeout(timedelta(minutes=5))
                .timeout(timedelta(minutes=5))
                .build()
            )
        return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        response = await self.client.post(path).body_bytes(ENCODER.encode(body)).build().send()
        return await response.bytes()

    async def count(self) -> int:
        return PAGE_COUNT.decode(await self.post("/v1/customer/pages", GROUP)).pages

    async def fetch(self, page: int) -> bytes:
        return await self.post("/v1/customer", {**GROUP, "page": page})  # type: ignore[no-any-return]  # a buffer of bytes

    def decode(self, body: bytes) -> list[Any]:
        return CUSTOMERS.decode(body)
