"""Lets faults happen to requests.

What happens to one request, in this order, at most one fault of each kind:

1. ``Delay`` with ``before_work``;
2. ``LoseRequest``: nothing else happens then, but the connection breaks after a ``Delay``;
3. ``RateLimit``;
4. ``RevokeTokens``, and the request goes on;
5. the one of ``RefuseToken``, ``Status``, ``BadAnswer`` and ``LoseAnswer`` that was injected first;
6. the work, unless one of these has prevented it, with ``ShiftPages``;
7. ``Delay``.

A fault that does not get its turn is not used up.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from aiohttp import web

from nudgescribe_async.injection import FaultPlan, Injection, check_operation
from nudgescribe_async.sandbox import answers
from nudgescribe_async.sandbox.faults import (
    BadAnswer,
    Delay,
    LoseAnswer,
    LoseRequest,
    RateLimit,
    RefuseToken,
    RevokeTokens,
    SandboxFault,
    ShiftPages,
    Status,
    http_date,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from types import EllipsisType

    from nudgescribe_async.sandbox.values import Visit

    Work = Callable[[], Awaitable[web.StreamResponse]]

_F = TypeVar("_F", bound=SandboxFault)

DOWNLOAD = "storage.download"
PAGES = "customers.list"
_KINDS = (BadAnswer, Delay, LoseAnswer, LoseRequest, RateLimit, RefuseToken, RevokeTokens, ShiftPages, Status)
_DECIDING = (RefuseToken, Status, BadAnswer, LoseAnswer)
_ABOUT_TOKENS = (RefuseToken, RevokeTokens)
_WITHOUT_TOKEN = {DOWNLOAD, "auth.authenticate"}
_BODILESS = {204, 304}


class Trouble:
    """The faults of one sandbox. Lives on the event loop.

    Args:
        operations: those of the edition.
        refused_token: the status of the edition for a token that is refused.
        hold: sleeps, and is known to do so.
        revoke: revokes the tokens.
        seed: for faults that befall a share of the requests.

    Attributes:
        operations: what can be named, ``"storage.download"`` included.
    """

    def __init__(
        self,
        *,
        operations: Collection[str],
        refused_token: int,
        hold: Callable[[float], Awaitable[None]],
        revoke: Callable[[bool], Awaitable[None]],
        seed: int | None,
    ) -> None:
        self.operations = frozenset({*operations, DOWNLOAD})
        self._plan: FaultPlan[SandboxFault] = FaultPlan(operations=self.operations, kinds=_KINDS, seed=seed)
        self._refused_token = refused_token
        self._hold = hold
        self._revoke = revoke
        self._windows: WeakKeyDictionary[Injection[SandboxFault], _Window] = WeakKeyDictionary()
        self._shifts: Counter[str] = Counter()

    # --- what is to happen ---------------------------------------------------------------------------------------

    def inject(
        self,
        fault: SandboxFault,
        *,
        operation: str | None,
        times: int | EllipsisType | None,
        skip: int,
        share: float,
        seconds: float | None,
    ) -> Injection[SandboxFault]:
        """Plan a fault; ``ValueError`` if it can never befall the operation."""
        if operation is not None:
            check_operation(operation, self.operations)
        if isinstance(fault, ShiftPages) and operation not in {None, PAGES}:
            raise ValueError(f"ShiftPages moves the pages of {PAGES}; {operation!r} has none of them.")
        if isinstance(fault, _ABOUT_TOKENS) and operation in _WITHOUT_TOKEN:
            raise ValueError(f"{type(fault).__name__} is about the token of a request; {operation!r} has none.")
        return self._plan.inject(fault, operation=operation, times=times, skip=skip, share=share, seconds=seconds)

    @property
    def injections(self) -> tuple[Injection[SandboxFault], ...]:
        """Those that may still happen."""
        return self._plan.injections

    def clear(self) -> None:
        """End all, and let the pages be where they are."""
        self._plan.clear()
        self._shifts.clear()

    # --- what happens --------------------------------------------------------------------------------------------

    async def befall(self, request: web.Request, visit: Visit, operation: str, work: Work) -> web.StreamResponse:
        """Do the work, or let a fault happen in its place, or both; the answer, of whatever it is worth."""
        delay = self._take(visit, operation, Delay)
        if delay is not None and delay.before_work:
            await self._hold(delay.seconds)
        answer = await self._decide(request, visit, operation, work)
        if delay is not None and not delay.before_work:
            await self._hold(delay.seconds)
        return answer

    async def _decide(self, request: web.Request, visit: Visit, operation: str, work: Work) -> web.StreamResponse:
        if self._take(visit, operation, LoseRequest) is not None:
            visit.lost = True
            return web.Response()
        refused = self._limit(visit, operation)
        if refused is not None:
            return refused
        revoking = self._take(visit, operation, RevokeTokens)
        if revoking is not None:
            await self._revoke(revoking.refresh_tokens)
        fault = self._take(visit, operation, *_DECIDING)
        match fault:
            case RefuseToken():
                await self._hold(fault.delay)
                status = self._refused_token if fault.status is None else fault.status
                return answers.error(status, "unauthorised", "Unauthorised")
            case Status() | BadAnswer():
                if fault.after_work:
                    await work()
                return _status(fault) if isinstance(fault, Status) else _nonsense(request, fault)
            case LoseAnswer():
                await work()
                visit.lost = True
                return web.Response()
            case _:
                return await work()

    def _limit(self, visit: Visit, operation: str) -> web.Response | None:
        wait = 0.0

        def over(injection: Injection[SandboxFault]) -> bool:
            nonlocal wait
            assert isinstance(injection.fault, RateLimit)  # noqa: S101 - for the type checkers
            wait = self._windows.setdefault(injection, _Window(injection.fault)).admit()
            return wait > 0

        limit = self._take(visit, operation, RateLimit, when=over)
        if limit is None:
            return None
        answer = answers.error(429, "too_many_requests", "Too Many Requests")
        if limit.retry_after == "date":
            when = math.ceil(time.time() + wait)
            answer.headers["Retry-After"] = http_date(datetime.fromtimestamp(when, UTC))
        elif limit.retry_after:
            answer.headers["Retry-After"] = str(math.ceil(wait))
        return answer

    def shift(self, visit: Visit, operation: str, customer_group_id: str) -> int:
        """How far the pages of a group are shifted for this request."""
        if operation == PAGES:
            fault = self._take(visit, operation, ShiftPages)
            if fault is not None:
                self._shifts[customer_group_id] += fault.by
        shift = self._shifts.get(customer_group_id, 0)
        if shift and "ShiftPages" not in visit.faults:
            visit.faults.append("ShiftPages")
        return shift

    def _take(
        self,
        visit: Visit,
        operation: str,
        *kinds: type[_F],
        when: Callable[[Injection[SandboxFault]], bool] = lambda _: True,
    ) -> _F | None:
        def applies(injection: Injection[SandboxFault]) -> bool:
            if operation == DOWNLOAD and injection.operation is None:
                return False
            if operation in _WITHOUT_TOKEN and isinstance(injection.fault, _ABOUT_TOKENS):
                return False
            return when(injection)

        fault = self._plan.take(operation, *kinds, when=applies)
        if not isinstance(fault, kinds):
            return None
        visit.faults.append(type(fault).__name__)
        return fault


class _Window:
    """The requests that a rate limit has let pass in the last ``per`` seconds."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._passed: deque[float] = deque()

    def admit(self) -> float:
        """Let one more pass: 0, or in how many seconds there is room for it."""
        now = time.monotonic()
        while self._passed and self._passed[0] + self._limit.per <= now:
            self._passed.popleft()
        if len(self._passed) >= self._limit.requests:
            return self._passed[0] + self._limit.per - now
        self._passed.append(now)
        return 0.0


def _status(fault: Status) -> web.Response:
    headers = {"Content-Type": "application/json"} | {name.title(): value for name, value in fault.headers.items()}
    if isinstance(fault.retry_after, datetime):
        headers["Retry-After"] = http_date(fault.retry_after)
    elif fault.retry_after is not None:
        headers["Retry-After"] = f"{fault.retry_after:.3f}".rstrip("0").rstrip(".")
    body = answers.error_body(answers.code_of(fault.phrase), fault.phrase) if fault.body is None else fault.body
    return web.Response(status=fault.status, headers=headers, body=body)


def _nonsense(request: web.Request, fault: BadAnswer) -> web.StreamResponse:
    headers = {"Content-Type": fault.content_type} | {name.title(): value for name, value in fault.headers.items()}
    if isinstance(fault.body, bytes):
        return web.Response(status=fault.status, headers=headers, body=fault.body)
    bodiless = fault.status in _BODILESS or request.method == "HEAD"
    return answers.Stream(fault.body(), status=fault.status, headers=headers, bodiless=bodiless)


def drop(request: web.Request) -> None:
    """Break the connection at once; there is none any more if the client has broken it before."""
    if request.transport is not None:
        request.transport.abort()
