"""requests in 16 threads, and pydantic that reads the bytes itself."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from suite.contender import AHEAD, CONCURRENCY, GROUP, HEADERS, Base, verified, whole
from suite.contenders.pydantic_models import CUSTOMERS, PAGE_COUNT, Customer


class Contender(Base):
    """A session for each thread, since a session is not for several. Pages are decoded where they are visited."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._of_thread = threading.local()
        self._sessions: list[requests.Session] = []
        self._pool = ThreadPoolExecutor(CONCURRENCY)

    async def aclose(self) -> None:
        self._pool.shutdown()
        for session in self._sessions:
            session.close()

    def session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = self._of_thread.session = requests.Session()
            session.trust_env = False
            session.headers.update(HEADERS)
            session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1))
            self._sessions.append(session)
        return session

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        response = self.session().post(f"{self.url}{path}", json=body, timeout=60)
        response.raise_for_status()
        return response.content

    def pages(self) -> Any:
        """The bodies of all pages in order, so many in flight and so many ahead."""
        pages = PAGE_COUNT.validate_json(self.post("/v1/customer/pages", GROUP)).pages
        window: deque[Future[bytes]] = deque()
        for page in range(1, pages + 1):
            window.append(self._pool.submit(self.post, "/v1/customer", {**GROUP, "page": page}))
            if len(window) == AHEAD:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()

    async def count(self) -> int:
        return PAGE_COUNT.validate_json(self.post("/v1/customer/pages", GROUP)).pages

    async def callers(self, *, callers: int, times: int) -> None:
        def call() -> None:
            for _ in range(times // callers):
                PAGE_COUNT.validate_json(self.post("/v1/customer/pages", GROUP))

        for future in [self._pool.submit(call) for _ in range(callers)]:
            future.result()

    async def read(self, *, pages: int, records: int) -> int:
        seen = 0
        for body in self.pages():
            for _ in CUSTOMERS.validate_json(body):
                seen += 1
        return whole(seen, pages=pages, records=records)

    async def check(self, *, pages: int, records: int) -> int:
        customers: list[Customer] = [customer for body in self.pages() for customer in CUSTOMERS.validate_json(body)]
        return verified([customer.customer_id for customer in customers], pages=pages, records=records)
