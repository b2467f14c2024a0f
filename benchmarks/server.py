"""A stand-in for the service that costs next to nothing: pre-rendered pages, in a process of its own.

The customers of page 7 are ``00000007-00000000``, ``00000007-00000001`` and so on. It prints its port, and serves until
it is ended. With ``--controlled`` it takes a line of JSON with new settings (``Settings``) from its standard input
as often as one comes, answers each with the CPU seconds that it has used, and ends with its input.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import heapq
import itertools
import json
import math
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

PAGE = b"@@PAGE@@"

ENCRYPTED_PROFILE = {
    "alg": "A256GCM",
    "kid": "k1",
    "iv": "bm9uY2Utbm9uY2U=",
    "ciphertext": "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo" * 8,
}
PLAIN_PROFILE = {
    "external_id": "C-0048213",
    "first_name": "Johanna",
    "last_name": "Vellacott",
    "email": "johanna.vellacott@example.com",
    "age": 41,
    "balance": 10532.75,
    "currency": "EUR",
    "is_active": True,
    "segments": ["retail", "mobile", "premium"],
    "address": {"street": "12 Harbour Lane", "city": "Rotterdam", "postcode": "3011", "country": "NL"},
    "last_contact": None,
}
RECORD = {
    "account_id": "9a3d6a55-1f0b-4d39-8d3f-0a6f2f1a7c22",
    "workspace_id": "1c4e2f7b-7a55-4a53-9a44-9b7b8c6d5e33",
    "customer_group_id": "2d5f308c-8b66-4b64-8b55-0c8c9d7e6f44",
    "extended_profile": ENCRYPTED_PROFILE,
    "created_at": "2026-01-29T13:09:11.123Z",
    "updated_at": "2026-01-29T13:09:11.123Z",
    "created_by": "3e60419d-9c77-4c75-9c66-1d9d0e8f7a55",
    "updated_by": "3e60419d-9c77-4c75-9c66-1d9d0e8f7a55",
}
TOKENS = {"access_token": "a.b.c" * 40, "refresh_token": "d.e.f" * 40, "expires_in": 86_400}

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PAGE_NUMBER = re.compile(rb'"page" *: *(\d+)')


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is served: so many pages of so many records, each answer after ``latency`` seconds.

    ``jitter`` spreads the latency of pages, by up to that part of it to either side: it depends on the number of the
    page, so that whoever asks has the same.
    """

    pages: int
    records: int
    latency: float = 0.0
    jitter: float = 0.0
    readable: bool = False

    def delay(self, page: int) -> float:
        """The seconds until a page is answered."""
        if not self.jitter:
            return self.latency
        return self.latency * (1 + self.jitter * random.Random(page).uniform(-1, 1))

    def ideal(self, concurrency: int) -> float:
        """The least seconds in which all pages can be had, so many at once."""
        if not self.jitter:
            return math.ceil(self.pages / concurrency) * self.latency
        return sum(map(self.delay, range(1, self.pages + 1))) / concurrency


def page_body(records: int, *, readable: bool = False, page: bytes = PAGE) -> bytes:
    """A page of customers, as it comes over the wire."""
    record = {**RECORD, "extended_profile": PLAIN_PROFILE} if readable else RECORD
    customers = [{"customer_id": f"{PAGE.decode()}-{index:08}", **record} for index in range(records)]
    return json.dumps(customers, separators=(",", ":")).encode().replace(PAGE, page)


def _answer(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Answers:
    """Rendered once for all settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._page = _answer(page_body(settings.records, readable=settings.readable))
        self._count = _answer(json.dumps({"pages": settings.pages}).encode())
        self._tokens = _answer(json.dumps(TOKENS).encode())

    def to(self, path: bytes, body: bytes) -> tuple[bytes, float]:
        """An answer, and after how many seconds it is due."""
        if path == b"/v1/customer":
            found = _PAGE_NUMBER.search(body)
            number = int(found[1]) if found else 1
            return self._page.replace(PAGE, b"%08d" % number), self.settings.delay(number)
        if path == b"/v1/customer/pages":
            return self._count, self.settings.latency
        if path.startswith(b"/v1/auth"):
            return self._tokens, self.settings.latency
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 0.0


class _Span(ctypes.Structure):
    """``struct itimerspec`` of Linux: once, after so long."""

    _fields_ = (("every", ctypes.c_long * 2), ("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Alarm:
    """Calls once at a moment, to some hundredths of a millisecond; where there is no ``timerfd``, to a millisecond.

    That is what the timers of event loops are good to, and it is 5 % of 20 ms. Turning round and round until the moment
    comes would be as exact, but not where others have work for the same core.
    """

    MONOTONIC, NONBLOCK = 1, 0o4000

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop, self._call = loop, call
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._later: asyncio.TimerHandle | None = None
        if self._libc is not None:
            self._timer: int = self._libc.timerfd_create(self.MONOTONIC, self.NONBLOCK)
            loop.add_reader(self._timer, self._rings)

    def set(self, seconds: float) -> None:
        """Call after so many seconds, and not when it was to be before."""
        if self._libc is not None:
            whole, part = divmod(max(1000, int(seconds * 1e9)), 1_000_000_000)
            self._libc.timerfd_settime(self._timer, 0, ctypes.byref(_Span((0, 0), whole, part)), None)
            return
        if self._later is not None:
            self._later.cancel()
        self._later = self._loop.call_later(seconds, self._call)

    def _rings(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._timer, 8)
            self._call()


class Stand:
    """What all connections share: the answers, and when they are due."""

    def __init__(self, settings: Settings) -> None:
        self.answers = Answers(settings)
        self.loop = asyncio.get_running_loop()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._alarm = Alarm(self.loop, self._look)

    def later(self, delay: float, write: Callable[[], None]) -> None:
        """Write after so many seconds."""
        entry = (time.perf_counter() + delay, next(self._order), write)
        heapq.heappush(self._due, entry)
        if self._due[0] is entry:
            self._alarm.set(delay)

    def _look(self) -> None:
        while self._due:
            wait = self._due[0][0] - time.perf_counter()
            if wait > 0:
                self._alarm.set(wait)
                return
            heapq.heappop(self._due)[2]()


class Connection(asyncio.Protocol):
    """One connection. Requests come one after the other: no client that is measured sends another one ahead."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._came = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # that of uvloop is one by its methods only

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        came = self._came + data
        while (end := came.find(b"\r\n\r\n") + 4) >= 4:
            length = _CONTENT_LENGTH.search(came, 0, end)
            whole = end + (int(length[1]) if length else 0)
            if len(came) < whole:
                break
            answer, delay = self._stand.answers.to(came.split(b" ", 2)[1], came[end:whole])
            came = came[whole:]
            if delay:
                self._stand.later(delay, partial(self._write, answer))
            else:
                self._write(answer)
        self._came = came

    def _write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


def _follow(stand: Stand, ended: asyncio.Event) -> None:
    """In a thread: take new settings from the standard input."""

    def change(settings: Settings) -> None:
        stand.answers = Answers(settings)
        print(json.dumps({"cpu": time.process_time()}), flush=True)

    with suppress(RuntimeError):  # the event loop is gone
        for line in sys.stdin:
            stand.loop.call_soon_threadsafe(change, Settings(**json.loads(line)))
        stand.loop.call_soon_threadsafe(ended.set)


async def serve(settings: Settings, *, controlled: bool) -> None:
    stand, ended = Stand(settings), asyncio.Event()
    server = await stand.loop.create_server(lambda: Connection(stand), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    if controlled:
        threading.Thread(target=_follow, args=(stand, ended), daemon=True).start()
    await ended.wait()


def fastest_loop() -> Any:
    """Of the event loops that are installed."""
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415 - an extra

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds until an answer")
    parser.add_argument("--jitter", type=float, default=0.0, help="the part of it by which that of pages differs")
    parser.add_argument("--readable", action="store_true", help="profiles in the clear")
    parser.add_argument("--core", type=int, help="the processor to run on")
    parser.add_argument("--controlled", action="store_true", help="take settings from the standard input")
    options = vars(parser.parse_args())
    core, controlled = options.pop("core"), options.pop("controlled")
    if core is not None:
        os.sched_setaffinity(0, {core})
    settings = Settings(**options)
    with asyncio.Runner(loop_factory=fastest_loop) as runner:
        runner.run(serve(settings, controlled=controlled))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
