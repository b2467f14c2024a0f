"""Server-sent events: what has been logged, and that something has changed.

==========  ==========================================================================================
event       data
==========  ==========================================================================================
``log``     JSON: ``rows`` (markup, newest first), and how many requests: ``count`` new ones, of which
            ``failed`` failed and ``skipped`` are not among the rows, ``total`` since the start
``change``  nothing: whatever the page shows may have changed, and should be asked for again
``restart`` nothing: this is another sandbox than the one that the page is of
==========  ==========================================================================================

Nothing is queued for a browser, and the service tells nobody of a request. Each stream looks for what is new a few times
a second, as soon as the browser is ready for more: at the log, of which it sends at most so many rows at a time and counts the
rest, and at a few numbers that change with everything else. So a slow browser costs nothing, and neither does none.
Each row is made once for all browsers, the service has its turn after each, and the more there is to do the longer is
the time between two looks.
Each event has an id, which a browser sends along when it connects again, and gets what came since.

A stream ends when the browser has gone, and when the sandbox stops, which does not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING

from aiohttp import web

from nudgescribe_async.sandbox.trouble import drop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from nudgescribe_async.sandbox.page.record import Record, Row

_logger = logging.getLogger(__name__)
_ROWS = 50  # rows of one event
_TURN_SECONDS = 0.25  # between two looks for what is new
_MOST_WORK = 0.2  # the share of the time in which a stream may be at work
_LONGEST_TURN_SECONDS = 2.0
_HEARTBEAT_SECONDS = 15.0
_KEPT = 200  # rows of which the markup is kept for other streams
_MOST = 32  # browsers that follow at a time
_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


class _Follower:
    """A browser that follows."""

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        self.response = web.StreamResponse(headers={**headers, **_HEADERS})
        self._end = asyncio.Event()
        self._sending = False

    async def begin(self) -> None:
        """Answer, and say after how many milliseconds to come again."""
        await self.response.prepare(self._request)
        await self._write("retry: 1000\n\n")

    @property
    def gone(self) -> bool:
        """Whether there is nobody to send to any more."""
        return self._end.is_set() or self._request.transport is None

    async def send(self, event: str, data: str, id_: str) -> None:
        """Send one event."""
        await self._write(f"id: {id_}\nevent: {event}\ndata: {data}\n\n")

    async def beat(self) -> None:
        """Send nothing, so that whatever is between here and there keeps the connection."""
        await self._write(":\n\n")

    async def _write(self, text: str) -> None:
        self._sending = True
        try:
            await self.response.write(text.encode())
        finally:
            self._sending = False

    async def pause(self, seconds: float) -> None:
        """Return after some time, or at once when it is to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._end.wait()

    def end(self) -> None:
        """Let it end now. One that is stuck in sending to a slow browser loses its connection."""
        self._end.set()
        if self._sending:
            drop(self._request)


class Streams:
    """Everybody who follows.

    Args:
        boot: what tells this sandbox from the next one on the same address.
        record: the log.
        look: something that is different after anything has changed that a page shows.
        render: makes markup of rows.

    Attributes:
        ended: whether the sandbox stops or has stopped.
    """

    def __init__(
        self,
        *,
        boot: str,
        record: Record,
        look: Callable[[], Awaitable[object]],
        render: Callable[[Sequence[Row]], str],
    ) -> None:
        self._boot = boot
        self._record = record
        self._look = look
        self._render = render
        self._markup: dict[int, str] = {}
        self._followers: set[_Follower] = set()
        self.ended = False

    def id_of(self, number: int) -> str:
        """The id of an event after the request of that number."""
        return f"{self._boot}-{number}"

    def end(self) -> None:
        """End all. Idempotent."""
        self.ended = True
        for follower in self._followers:
            follower.end()

    async def follow(self, request: web.Request, headers: Mapping[str, str]) -> web.StreamResponse:
        """Send events until the browser goes or the sandbox stops. ``headers`` are more of the answer."""
        if self.ended or len(self._followers) >= _MOST:
            raise web.HTTPServiceUnavailable(text="Too many pages follow this sandbox. Close some of them.")
        follower = _Follower(request, headers)
        self._followers.add(follower)
        try:
            with contextlib.suppress(ConnectionError):  # the browser has gone
                await follower.begin()
                await self._send(request, follower)
        except Exception:
            if not follower.response.prepared:
                raise
            # There is no other answer any more. The browser comes again, and begins where this one has ended.
            _logger.exception("The sandbox's page failed while a browser followed")
        finally:
            self._followers.discard(follower)
        return follower.response

    async def _send(self, request: web.Request, follower: _Follower) -> None:
        boot, _, number = request.headers.get("Last-Event-ID", request.query.get("after", "")).partition("-")
        if boot != self._boot:
            await follower.send("restart", "", self.id_of(self._record.total))
            return
        total = self._record.total
        sent = min(int(number), total) if number.isascii() and number.isdigit() and len(number) < 19 else total
        wants_rows = request.query.get("log") != "0"
        seen: object = None  # the page may be older than this stream, so it looks again at once
        beaten = -_HEARTBEAT_SECONDS
        while not follower.gone:
            begun = time.monotonic()
            total = self._record.total
            if total > sent and wants_rows:
                await follower.send("log", await self._news(sent, total), self.id_of(total))
            sent = total
            found = await self._look()
            if found != seen:
                seen = found
                await follower.send("change", "", self.id_of(sent))
            now = time.monotonic()
            if now - beaten >= _HEARTBEAT_SECONDS:
                beaten = now
                await follower.beat()
            pause = min((now - begun) / _MOST_WORK, _LONGEST_TURN_SECONDS)
            await follower.pause(max(pause, _TURN_SECONDS))

    async def _news(self, sent: int, total: int) -> str:
        rows = await self._record.newest(_ROWS, after=sent, before=total + 1)
        failed = sum(row.outcome != "" for row in rows)
        count = total - sent
        return json.dumps(
            {
                "rows": "".join([await self._row(row) for row in rows]),
                "count": count,
                "failed": failed,
                "skipped": count - len(rows),
                "total": total,
            }
        )

    async def _row(self, row: Row) -> str:
        markup = self._markup.get(row.number)
        if markup is None:
            markup = self._markup[row.number] = self._render([row])
            while len(self._markup) > _KEPT:
                del self._markup[next(iter(self._markup))]
            await asyncio.sleep(0)
        return markup
