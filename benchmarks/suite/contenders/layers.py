"""The same work through ever more layers, from raw aiohttp up to typed iteration; and all but the network.

It reaches into the client, since what lies between is nothing that a user has in hands.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import aiohttp
import orjson
from server import TOKENS, page_body
from yarl import URL

import nudgescribe_async
from nudgescribe_async import Credentials, Nudgescribe
from nudgescribe_async.endpoints.customers import COUNT_PAGES, LIST
from nudgescribe_async.transport import BytesStream, Headers, Request, Response
from nudgescribe_async.transport.aiohttp import AiohttpTransport
from suite.contender import CONCURRENCY, GROUP, HEADERS, Base, sliding

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
OWNER = Credentials(api_key="key", email="a@example.com", password="secret")
ANSWER_HEADERS = Headers({"Content-Type": "application/json", "Content-Length": "1000"})


class Canned:
    """A transport without a network: the answers are here already."""

    def __init__(self, pages: int, records: int) -> None:
        self._pages = [page_body(records, page=b"%08d" % (page + 1)) for page in range(pages)]
        self._answers = {
            "/v1/customer/pages": orjson.dumps({"pages": pages}),
            "/v1/auth": orjson.dumps(TOKENS),
        }

    async def send(self, request: Request) -> Response:
        path = request.url.removeprefix("http://127.0.0.1")
        if path == "/v1/customer":
            assert isinstance(request.body, bytes)
            body = self._pages[orjson.loads(request.body)["page"] - 1]
        else:
            body = self._answers[path]
        return Response(status=200, headers=ANSWER_HEADERS, stream=BytesStream(body))

    async def aclose(self) -> None:
        """Nothing to close."""


def canned(pages: int = 1, records: int = 1, **options: Any) -> Nudgescribe:
    return Nudgescribe(OWNER, base_url="http://127.0.0.1", transport=Canned(pages, records), **options)


class Contender(Base):
    """One coroutine for each layer, named after it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.ns = Nudgescribe(OWNER, base_url=url)
        self.transport = AiohttpTransport(limit=0)
        self._raw: aiohttp.ClientSession | None = None
        self._page, self._count = URL(f"{url}/v1/customer"), URL(f"{url}/v1/customer/pages")
        self._headers = Headers(HEADERS)
        self._canned: dict[tuple[int, int], Nudgescribe] = {}

    async def aclose(self) -> None:
        await self.ns.aclose()
        await self.transport.aclose()
        if self._raw is not None:
            await self._raw.close()
        for client in self._canned.values():
            await client.aclose()

    @property
    def raw(self) -> aiohttp.ClientSession:
        if self._raw is None:
            self._raw = aiohttp.ClientSession(headers=HEADERS, raise_for_status=True)
        return self._raw

    # --- one request, by each layer --------------------------------------------------------------------------------

    async def _aiohttp(self, url: URL, body: Mapping[str, Any]) -> bytes:
        async with self.raw.post(url, data=orjson.dumps(body)) as response:
            return await response.read()

    async def _transport(self, path: str, body: Mapping[str, Any]) -> bytes:
        request = Request(method="POST", url=self.url + path, headers=self._headers, body=orjson.dumps(body))
        async with await self.transport.send(request) as response:
            return await response.read()

    async def _session(self, page: int) -> Any:
        return await self.ns._session.exchange(LIST, {**GROUP, "page": page})

    # --- calls ----------------------------------------------------------------------------------------------------

    async def call_aiohttp(self, *, times: int) -> None:
        for _ in range(times):
            await self._aiohttp(self._count, GROUP)

    async def call_floor(self, *, times: int) -> None:
        for _ in range(times):
            orjson.loads(await self._aiohttp(self._count, GROUP))

    async def call_transport(self, *, times: int) -> None:
        for _ in range(times):
            await self._transport("/v1/customer/pages", GROUP)

    async def call_exchange(self, *, times: int) -> None:
        for _ in range(times):
            await self.ns._session.exchange(COUNT_PAGES, GROUP)

    async def call_session(self, *, times: int) -> None:
        for _ in range(times):
            await self.ns._session.call(COUNT_PAGES, GROUP)

    async def call_ours(self, *, times: int) -> None:
        for _ in range(times):
            await self.ns.customers.count_pages("group")

    # --- pages ----------------------------------------------------------------------------------------------------

    async def pages_aiohttp(self, *, pages: int) -> None:
        async for _ in sliding(lambda page: self._aiohttp(self._page, {**GROUP, "page": page}), pages):
            pass

    async def pages_floor(self, *, pages: int) -> None:
        async for body in sliding(lambda page: self._aiohttp(self._page, {**GROUP, "page": page}), pages):
            for _ in orjson.loads(body):
                pass

    async def pages_transport(self, *, pages: int) -> None:
        async for _ in sliding(lambda page: self._transport("/v1/customer", {**GROUP, "page": page}), pages):
            pass

    async def pages_exchange(self, *, pages: int) -> None:
        async for _ in sliding(self._session, pages):
            pass

    async def pages_decode(self, *, pages: int) -> None:
        decode = self.ns._session.decode
        async for answer in sliding(self._session, pages):
            for _ in decode(LIST, answer):
                pass

    async def pages_engine(self, *, pages: int) -> None:
        async for page in self.ns.customers.iter("group", concurrency=CONCURRENCY).pages():
            for _ in page.items:
                pass
            pages -= 1
        assert not pages

    async def pages_items(self, *, pages: int) -> None:
        async for _ in self.ns.customers.iter("group", concurrency=CONCURRENCY):
            pass
        assert pages > 0

    # --- without a network ------------------------------------------------------------------------------------------

    def _client(self, pages: int, records: int) -> Nudgescribe:
        key = pages, records
        if key not in self._canned:
            self._canned[key] = canned(pages, records)
        return self._canned[key]

    async def canned_exchange(self, *, times: int) -> None:
        session = self._client(1, 1)._session
        for _ in range(times):
            await session.exchange(COUNT_PAGES, GROUP)

    async def canned_session(self, *, times: int) -> None:
        session = self._client(1, 1)._session
        for _ in range(times):
            await session.call(COUNT_PAGES, GROUP)

    async def canned_ours(self, *, times: int) -> None:
        customers = self._client(1, 1).customers
        for _ in range(times):
            await customers.count_pages("group")

    async def canned_page_exchange(self, *, pages: int, records: int) -> None:
        session = self._client(pages, records)._session
        for page in range(pages):
            await session.exchange(LIST, {**GROUP, "page": page + 1})

    async def canned_page_list(self, *, pages: int, records: int) -> None:
        customers = self._client(pages, records).customers
        for page in range(pages):
            for _ in await customers.list("group", page + 1):
                pass

    async def canned_page_engine(self, *, pages: int, records: int) -> None:
        async for page in self._quiet(pages, records).pages():
            for _ in page.items:
                pass

    async def canned_page_items(self, *, pages: int, records: int) -> None:
        async for _ in self._quiet(pages, records):
            pass

    def _quiet(self, pages: int, records: int) -> Any:
        return self._client(pages, records).customers.iter("group", concurrency=CONCURRENCY, order="page")

    # --- where our own code spends its time ---------------------------------------------------------------------------

    async def profile_call(self, *, times: int) -> list[list[Any]]:
        await self.canned_ours(times=100)
        return await self._profile(self.canned_ours(times=times), times)

    async def profile_pages(self, *, pages: int, records: int) -> list[list[Any]]:
        await self.canned_page_items(pages=pages, records=records)
        return await self._profile(self.canned_page_items(pages=pages, records=records), pages)

    async def _profile(self, work: Any, times: int) -> list[list[Any]]:
        """``[function, calls, µs of its own]`` for each piece of work, the costliest first. The profiler's own cost is in."""
        profile = cProfile.Profile()
        task = asyncio.ensure_future(work)
        profile.enable()
        await task
        profile.disable()
        stats: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # not in its stub
        package = PurePath(nudgescribe_async.__file__).parent
        rows: list[list[Any]] = []
        for (file, _, name), (_, calls, own, _, _) in stats.items():
            path = PurePath(file)
            place = path.relative_to(package).as_posix() if path.is_relative_to(package) else path.name
            rows.append([f"{place}:{name}" if file != "~" else ADDRESS.sub("", name), calls / times, own / times * 1e6])
        return sorted(rows, key=lambda row: -row[2])[:25]
