"""A service with message files, and a storage that does with its links whatever a test says."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from aiohttp import web
from helpers import CREDENTIALS, Server

from nudgescribe_async import Nudgescribe, RetryPolicy

SIGNATURE = "signature-MARKED-4d2e81"
QUICK = RetryPolicy(attempts=4, base=0.001, longest=0.01)
Serve = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


def table(rows: int, *, page: int = 1, width: int = 40) -> bytes:
    """A message file with texts that need quoting; each page has other customers."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["customer_id", "message"])
    for row in range(rows):
        letter = f'Dear {page}-{row}, "so"\r\nmuch, ünd\nmore ' + "x" * width
        writer.writerow([f"{page}-{row}", letter])
    return text.getvalue().encode()


async def serve_with_ranges(request: web.Request, content: bytes, *, etag: str = '"one"') -> web.Response:
    """As a storage does that can."""
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "text/csv"}
    if "Range" not in request.headers or request.headers.get("If-Range", etag) != etag:
        return web.Response(body=content, headers=headers)
    start = request.http_range.start
    if start >= len(content):
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return web.Response(status=206, body=content[start:], headers=headers)


async def break_off(
    request: web.Request, content: bytes, after: int, *, headers: dict[str, str], status: int = 200
) -> web.StreamResponse:
    """Announce all of it, send the start, and drop the connection."""
    response = web.StreamResponse(status=status, headers={"Content-Length": str(len(content)), **headers})
    await response.prepare(request)
    await response.write(content[:after])
    assert request.transport is not None
    while request.transport.get_write_buffer_size():
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)  # what has come and was not read yet when the connection ends is lost
    request.transport.close()
    return response


class Shop:
    """Two servers: the service, and the storage that its links point to.

    Attributes:
        files: what there is, page by page; tests change it.
        serve: how the storage answers a link to a page; left alone, with the whole file.
        link: makes the answer to a wish for a link.
        on_fetch: answers wishes for CSV.
        run: the current run; ``None``: the service has no history.
    """

    def __init__(self, files: Sequence[bytes] = ()) -> None:
        self.files = list(files)
        self.serve: Serve = self.serve_whole
        self.link: Callable[[int], web.Response] = lambda page: web.json_response(
            {"url": self.url_of(page), "expires_in": 3_600}
        )
        self.on_csv: Callable[[int], web.Response] = lambda page: web.Response(
            body=self.files[page - 1], content_type="text/csv"
        )
        self.run: int | None = 1
        self.links = self.csvs = self.histories = 0
        self.service = Server(self._service)
        self.storage = Server(self._storage)
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._exits.enter_async_context(self.service)
        await self._exits.enter_async_context(self.storage)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def client(self, **options: Any) -> Nudgescribe:
        return Nudgescribe(CREDENTIALS, base_url=self.service.url, **{"retry": QUICK} | options)

    def url_of(self, page: int) -> str:
        return f"{self.storage.url}/files/{page}?number={self.links}&X-Signature={SIGNATURE}%2F%3D"

    @property
    def logins(self) -> int:
        return sum(path == "/v1/auth" for _, path, _, _ in self.service.requests)

    @property
    def ranges(self) -> list[str | None]:
        """What was asked for of the storage, request by request."""
        return [headers.get("Range") for _, _, headers, _ in self.storage.requests]

    async def serve_whole(self, request: web.Request, page: int) -> web.StreamResponse:
        return await serve_with_ranges(request, self.files[page - 1])

    async def _service(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/campaign/rerun/history":
            self.histories += 1
            if self.run is None:
                return web.json_response({"message": "no such thing"}, status=404)
            return web.json_response([{"run_number": number} for number in range(self.run, 0, -1)])
        if request.path == "/v1/messages/pages":
            return web.json_response({"pages": len(self.files)})
        wish = await request.json()
        if wish["format"] == "url":
            self.links += 1
            return self.link(wish["page"])
        assert wish["format"] == "csv", wish
        self.csvs += 1
        return self.on_csv(wish["page"])

    async def _storage(self, request: web.Request) -> web.StreamResponse:
        assert request.query["X-Signature"] == f"{SIGNATURE}/=", "the link arrived changed"
        return await self.serve(request, int(request.path.rpartition("/")[2]))
