"""A service that a test scripts, a real server, and what else several tests need."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from aiohttp import web

from nudgescribe_async import Credentials, Nudgescribe, Request, Response, RetryPolicy
from nudgescribe_async.testing import answer

if TYPE_CHECKING:
    from nudgescribe_async.events import Event

API_KEY = "key-MARKED-7f3a9c"
PASSWORD = 'pass"word-MARKED-5e1d\\/&'
CREDENTIALS = Credentials(api_key=API_KEY, email="someone@example.org", password=PASSWORD)
START = 1_700_000_000.0
DAY = 86_400.0
ONCE = RetryPolicy(attempts=1)

Handler = Callable[[Request], Response | Awaitable[Response]]


def free_port() -> int:
    """A port where nobody listens, below those that systems hand out by themselves, lest a connection of another test take it."""
    while True:
        port = random.randint(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def edit(path: Path, old: str, new: str) -> None:
    """Replace what stands in a file once."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


class Service:
    """A transport that answers by itself: tokens by their rules, everything else as the test says."""

    def __init__(self, **fields: object) -> None:
        self.fields: dict[str, object] = {"expires_in": 1_000} | fields
        self.requests: list[Request] = []
        self.logins = self.renewals = self.closed = 0
        self.refresh_tokens: set[str] = set()
        self.good: set[str] = set()
        self.on_call: Handler = lambda _: answer(200, [])
        self.on_login: Handler = lambda _: self.tokens()
        self.on_renewal: Handler = self.renew

    def tokens(self) -> Response:
        number = self.logins + self.renewals
        access, refresh = f"access-MARKED-{number}", f"refresh-MARKED-{number}"
        self.good = {access}
        self.refresh_tokens.add(refresh)
        return answer(200, {"access_token": access, "refresh_token": refresh} | self.fields)

    def renew(self, request: Request) -> Response:
        token = bearer(request)
        if token not in self.refresh_tokens:
            return answer(403, {"message": f"unknown {token}"})
        self.refresh_tokens.discard(token)
        return self.tokens()

    def authorised(self, request: Request, status: int = 403) -> Response:
        """Judges the token, as the real service does."""
        return answer(200, []) if bearer(request) in self.good else answer(status, {"message": "Unauthorised"})

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        if urlsplit(request.url).path != "/v1/auth":
            handler = self.on_call
        elif request.method == "POST":
            self.logins += 1
            handler = self.on_login
        else:
            self.renewals += 1
            handler = self.on_renewal
        result = handler(request)
        return await result if isawaitable(result) else result

    async def aclose(self) -> None:
        self.closed += 1

    @property
    def bought(self) -> int:
        return self.logins + self.renewals


def bearer(request: Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def client(service: Any, **options: Any) -> Nudgescribe:
    return Nudgescribe(CREDENTIALS, transport=service, **options)


def hanging(started: asyncio.Event | None = None) -> Handler:
    async def hang(_: Request) -> Response:
        if started is not None:
            started.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    return hang


def raising(*errors: Exception | Response) -> Handler:
    """Each in turn, the last one for ever."""
    left = list(errors)

    def take(_: Request) -> Response:
        result = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(result, Exception):
            raise result
        return result

    return take


def watch(ns: Nudgescribe) -> list[Event]:
    events: list[Event] = []
    ns.events.subscribe(events.append)
    return events


async def settle(turns: int = 20) -> None:
    """Let everything that can run do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


class Server:
    """A real server on loopback, with one handler for everything."""

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.handler = handler
        self.requests: list[tuple[str, str, Mapping[str, str], bytes]] = []
        self.connections = 0
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.method, request.path, dict(request.headers), body))
        if request.path == "/v1/auth":
            return web.json_response({"access_token": "token", "refresh_token": "refresh", "expires_in": 1_000})
        return await self.handler(request)

    @property
    def calls(self) -> list[tuple[str, str, Mapping[str, str], bytes]]:
        return [request for request in self.requests if request[1] != "/v1/auth"]

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def names(events: Iterable[Event]) -> list[str]:
    return [type(event).__name__ for event in events]
