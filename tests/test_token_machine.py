"""The manager of tokens whatever happens in whatever order; and closing a client in each of its phases."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from attrs import define, field
from helpers import START, Service, client, hanging, settle
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from machines import THEN, AsyncMachine, run

from nudgescribe_async import (
    ClientClosedError,
    Nudgescribe,
    NudgescribeError,
    OutcomeUnknownError,
    Request,
    RequestNotSentError,
    ResponseDecodeError,
    Tokens,
)
from nudgescribe_async.auth import VERDICT_WITHIN, Replacement, TokenManager
from nudgescribe_async.errors import DeadlineExceededError, status_error
from nudgescribe_async.events import Event, Events
from nudgescribe_async.testing import VirtualClock, answer

LIFETIME = 1_000

# --- whatever happens in whatever order ------------------------------------------------------------

ERRORS: dict[str, Callable[[], NudgescribeError]] = {
    "not sent": lambda: RequestNotSentError("down"),
    "unknown": lambda: OutcomeUnknownError("lost"),
    "too late": lambda: DeadlineExceededError("late", may_have_taken_effect=False),
    "odd": lambda: ResponseDecodeError("odd"),
    "400": lambda: status_error(400)("no", status=400),
    "401": lambda: status_error(401)("no", status=401),
    "403": lambda: status_error(403)("no", status=403),
    "429": lambda: status_error(429)("no", status=429),
    "500": lambda: status_error(500)("no", status=500),
    "503": lambda: status_error(503)("no", status=503, retry_after=1.0),
}
REJECTIONS = ("400", "401", "403")


@define(eq=False)
class Asker:
    """A caller, and what it asked."""

    what: str
    task: asyncio.Task[Any] | None = None
    since: int = 0
    """The newest token when it asked."""


@define(eq=False)
class Managed:
    """A manager, an issuer that answers when it is told to, and what is found wrong."""

    clock: VirtualClock = field(factory=lambda: VirtualClock(auto=False))
    events: list[Event] = field(factory=list)
    askers: list[Asker] = field(factory=list)
    issued: list[float] = field(factory=lambda: [-math.inf])
    """When each token was given; the first stands for none."""
    pending: asyncio.Future[Tokens] | None = None
    pending_login: bool = False
    asked: int = 0
    """How often the issuer was."""
    rejected: int = 0
    rejected_until: float = -math.inf
    by_hand: bool = False
    refused_for: dict[int, tuple[int, str]] = field(factory=dict)
    """Tokens that were bought for a refusal: its status and operation."""
    tired_of_401: bool = False
    helped: set[int] = field(factory=set)
    manager: TokenManager = field(init=False)

    def __attrs_post_init__(self) -> None:
        events = Events()
        events.subscribe(self.events.append)
        self.manager = TokenManager(self, fingerprint="f", clock=self.clock, events=events)

    # --- the issuer --------------------------------------------------------------------------------

    async def authenticate(self) -> Tokens:
        if self.clock.now < self.rejected_until:
            assert self.by_hand, "refused credentials were sent again in their pause"
        return await self._issue(login=True)

    async def reauthenticate(self, refresh_token: str) -> Tokens:
        assert refresh_token == f"refresh-SECRET-{self.newest}"
        return await self._issue(login=False)

    async def _issue(self, *, login: bool) -> Tokens:
        assert self.pending is None, "two renewals at once"
        self.asked += 1
        self.pending, self.pending_login = asyncio.get_running_loop().create_future(), login
        try:
            return await self.pending
        finally:
            self.pending = None

    def answer(self, how: str) -> None:
        if self.pending is None or self.pending.done():
            return
        if how == "tokens":
            self.issued.append(self.clock.now)
            number = self.newest
            self.rejected = self.rejected if not self.pending_login else 0
            self.pending.set_result(
                Tokens(
                    access_token=f"access-SECRET-{number}",
                    refresh_token=f"refresh-SECRET-{number}",
                    expires_in=LIFETIME,
                )
            )
            return
        if self.pending_login and how in REJECTIONS:
            self.rejected += 1
            self.rejected_until = self.clock.now + min(10.0 * 2 ** (self.rejected - 1), 300.0)
            self.by_hand = any(a.what == "login" and a.task is not None and not a.task.done() for a in self.askers)
        self.pending.set_exception(ERRORS[how]())

    @property
    def newest(self) -> int:
        return len(self.issued) - 1

    # --- the callers -------------------------------------------------------------------------------

    def ask(self) -> None:
        asker = Asker("token", since=self.newest)

        async def ask() -> None:
            token = int((await self.manager.token()).removeprefix("access-SECRET-"))
            assert token >= asker.since, "an old token, where there was a newer one"
            assert self.clock.now < self.issued[token] + LIFETIME, "an expired token"

        self._start(asker, ask)

    def refuse(self, token: int, status: int, operation: str) -> None:
        """A call was refused that was sent with a token."""
        asker = Asker("replace", since=self.newest)
        asked = self.asked

        async def replace() -> None:
            newest, idle = self.newest, self.manager._renewal is None
            final = status == 401 and self.tired_of_401 and not self.helped
            if idle and token == newest:
                self.refused_for[newest + 1] = (status, operation)
            result = await self.manager.replace(f"access-SECRET-{token}", status, operation)
            if token < newest:
                assert result is Replacement.NEWER
                assert self.asked == asked, "bought a token for one that had been replaced"
            if final and token == newest:
                assert result is Replacement.KEPT, "bought a token for a refusal that is not about it"
            if result is Replacement.RENEWED:
                assert self.newest > token
            if result is Replacement.KEPT:
                assert token == self.newest
                if status == 401 and 401 not in self.helped:
                    self.tired_of_401 = True

        self._start(asker, replace)

    def settle(self, status: int, operation: str, helped: bool) -> None:
        """The verdict on the newest token, if it was bought for such a refusal."""
        newest = self.newest
        bought = self.refused_for.get(newest)
        self.manager.settle(f"access-SECRET-{newest}", status, operation, helped=helped)
        if bought is not None and bought[0] == status and status == 401 and self.settled_for != newest:
            self.settled_for = newest
            if helped:
                self.helped.add(401)
            elif 401 not in self.helped:
                self.tired_of_401 = True

    settled_for: int = 0

    def login(self) -> None:
        self.by_hand = True
        self._start(Asker("login", since=self.newest), partial(self._by_hand, self.manager.login))

    def refresh(self) -> None:
        self._start(Asker("refresh", since=self.newest), partial(self._by_hand, self.manager.refresh))

    async def _by_hand(self, what: Callable[[], Coroutine[Any, Any, Tokens]]) -> None:
        tokens = await what()
        assert "SECRET" not in repr(tokens)
        assert tokens.access_token == f"access-SECRET-{self.newest}"

    def _start(self, asker: Asker, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except NudgescribeError as caught:
                error = caught
            else:
                return
            assert "SECRET" not in f"{error!s} {error!r} {error.__cause__!r} {error.__context__!r}"
            assert isinstance(error, ClientClosedError) is self.manager._closed

        self.askers.append(asker)
        asker.task = asyncio.create_task(guarded())

    @property
    def waiting(self) -> list[asyncio.Task[Any]]:
        return [asker.task for asker in self.askers if asker.task is not None and not asker.task.done()]

    def cancel(self, which: int) -> None:
        if self.waiting:
            self.waiting[which % len(self.waiting)].cancel()

    # --- what must hold ----------------------------------------------------------------------------

    async def stand_still(self) -> None:
        await settle(15)
        for asker in self.askers:
            if asker.task is not None and asker.task.done() and not asker.task.cancelled():
                asker.task.result()
        renewals = [task for task in asyncio.all_tasks() if task.get_name() == "nudgescribe renewal"]
        assert len(renewals) == (self.pending is not None), "a renewal too many, or one that asks nobody"
        if self.pending is None:
            assert not self.waiting, "somebody waits for nothing"
        for event in self.events:
            assert "SECRET" not in f"{event!s} {event!r}"
        self.events.clear()

    async def end(self, at_once: bool) -> None:
        while self.pending is not None and not at_once:
            self.answer("tokens")
            await self.stand_still()
        await self.manager.aclose()
        await self.manager.aclose()
        await settle()
        assert not self.waiting
        assert self.pending is None
        for asker in self.askers:
            if asker.task is not None and not asker.task.cancelled():
                asker.task.result()
        for method in (self.manager.login, self.manager.refresh):
            with pytest.raises(ClientClosedError):
                await method()
        assert asyncio.all_tasks() == {asyncio.current_task()}


STATUS = st.sampled_from([401, 403])
OPERATION = st.sampled_from(["one", "other"])


class TokenMachine(AsyncMachine[Managed]):
    @initialize(logged_in=st.booleans())
    def begin(self, logged_in: bool) -> None:
        self.start(Managed)
        if logged_in:
            self.do(self.subject.ask, "stand still")
            self.do(lambda: self.subject.answer("tokens"), "stand still")

    @rule(many=st.integers(1, 3), then=THEN)
    def somebody_asks(self, many: int, then: str) -> None:
        for _ in range(many):
            self.do(self.subject.ask, "at once")
        self.do(lambda: None, then)

    @precondition(lambda self: self.subject.newest > 0)
    @rule(ago=st.sampled_from([0, 0, 0, 1, 2]), status=STATUS, operation=OPERATION, many=st.integers(1, 3))
    def a_call_is_refused(self, ago: int, status: int, operation: str, many: int) -> None:
        self.loop.run_until_complete(self.play())
        token = max(1, self.subject.newest - ago)
        for _ in range(many):
            self.do(lambda: self.subject.refuse(token, status, operation), "at once")
        self.do(lambda: None, "stand still")

    @precondition(lambda self: self.subject.newest > 0)
    @rule(status=STATUS, operation=OPERATION, helped=st.booleans())
    def the_verdict_is_known(self, status: int, operation: str, helped: bool) -> None:
        self.do(lambda: None, "stand still")
        self.do(lambda: self.subject.settle(status, operation, helped), "stand still")

    @precondition(lambda self: self.subject.pending is not None)
    @rule(then=THEN)
    def the_issuer_gives_tokens(self, then: str) -> None:
        self.do(lambda: self.subject.answer("tokens"), then)

    @precondition(lambda self: self.subject.pending is not None)
    @rule(how=st.sampled_from(sorted(ERRORS)), then=THEN)
    def the_issuer_fails(self, how: str, then: str) -> None:
        self.do(lambda: self.subject.answer(how), then)

    @rule(which=st.sampled_from([0, 0, 0, 1, 2, 5]), then=THEN)
    def somebody_is_cancelled(self, which: int, then: str) -> None:
        self.do(lambda: self.subject.cancel(which), then)

    @rule(then=THEN)
    def somebody_logs_in(self, then: str) -> None:
        self.do(self.subject.login, then)

    @rule(then=THEN)
    def somebody_renews(self, then: str) -> None:
        self.do(self.subject.refresh, then)

    @rule(seconds=st.sampled_from([1.0, 11.0, VERDICT_WITHIN + 1, 870.0, 2_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(lambda: None, "stand still")
        self.subject.clock.now += seconds

    at_once = False

    @rule(at_once=st.booleans())
    def closing_will_be(self, at_once: bool) -> None:
        self.at_once = at_once

    async def end(self) -> None:
        await self.subject.end(self.at_once)


def test_the_manager_of_tokens_whatever_happens() -> None:
    run(TokenMachine, examples=250, steps=40)


async def test_a_closed_manager_starts_no_renewal() -> None:
    subject = Managed()
    asking = asyncio.create_task(subject.manager.token())
    await settle()
    subject.answer("tokens")
    await asking
    await subject.manager.aclose()
    subject.clock.now += LIFETIME * 0.9  # it is ageing
    with suppress(ClientClosedError):
        await subject.manager.token()
    await settle()
    asked, renewal = subject.asked, subject.manager._renewal
    if renewal is not None:
        renewal.cancel()
        await settle()
    assert asked == 1


# --- closing, in each phase ------------------------------------------------------------------------


def scene(clock: VirtualClock) -> tuple[Service, Nudgescribe]:
    service = Service(expires_in=10_000)
    return service, client(service, clock=clock, concurrency=1)


async def get_stuck(phase: str, service: Service, ns: Nudgescribe) -> list[asyncio.Task[Any]]:
    """Calls that do not end by themselves, the last of them in that phase."""
    calls: list[asyncio.Task[Any]] = []
    match phase:
        case "token":
            service.on_login = hanging()
        case "by hand":
            service.on_login = hanging()
            calls.append(asyncio.create_task(ns.auth.authenticate()))
            await settle()
            return calls
        case "another token":
            await ns.auth.authenticate()
            service.on_call = lambda _: answer(403, {})
            service.on_renewal = hanging()
        case "slot":
            service.on_call = hanging()
            calls.append(asyncio.create_task(ns.customer_groups.list("w")))
        case "pause" | "next attempt":
            service.on_call = lambda _: answer(429, {}, headers={"Retry-After": "100"})
            if phase == "pause":
                calls.append(asyncio.create_task(ns.customer_groups.list("w")))
        case _:
            service.on_call = hanging()
    await settle()
    calls.append(asyncio.create_task(ns.customer_groups.list("w")))
    await settle()
    return calls


STUCK = ("token", "by hand", "another token", "slot", "pause", "next attempt", "answer")


async def ended(calls: list[asyncio.Task[Any]]) -> None:
    for call in calls:
        assert call.done()
        assert isinstance(call.exception(), ClientClosedError)


@pytest.mark.parametrize("phase", STUCK)
async def test_closing_gives_grace_and_then_ends_the_calls(phase: str) -> None:
    clock = VirtualClock(auto=False)
    service, ns = scene(clock)
    calls = await get_stuck(phase, service, ns)
    closing = asyncio.create_task(ns.aclose(grace=5))
    await clock.advance(4.9)
    assert not closing.done()
    assert not calls[-1].done()
    await clock.advance(0.1)
    assert closing.done()
    await closing
    await ended(calls)
    assert service.closed == 1
    assert ns._session._throttle.in_flight == 0
    assert not any(waiter.waiting for waiter in clock._waiters)


@pytest.mark.parametrize("phase", STUCK)
async def test_a_second_close_with_less_grace_shortens_the_first(phase: str) -> None:
    clock = VirtualClock(auto=False)
    service, ns = scene(clock)
    calls = await get_stuck(phase, service, ns)
    first = asyncio.create_task(ns.aclose(grace=50))
    await clock.advance(1)
    second = asyncio.create_task(ns.aclose(grace=2))
    third = asyncio.create_task(ns.aclose(grace=math.inf))
    await clock.advance(1.9)
    assert not first.done()
    await clock.advance(0.1)
    await asyncio.gather(first, second, third)
    await ended(calls)
    assert clock.now == START + 3
    assert service.closed == 1


@pytest.mark.parametrize("phase", STUCK)
async def test_cancelling_a_close_cuts_the_grace_short_and_closes(phase: str) -> None:
    clock = VirtualClock(auto=False)
    service, ns = scene(clock)
    calls = await get_stuck(phase, service, ns)
    closing = asyncio.create_task(ns.aclose(grace=50))
    await settle()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await ended(calls)
    assert service.closed == 1
    await ns.aclose()
    assert service.closed == 1
    assert not any(waiter.waiting for waiter in clock._waiters)


@pytest.mark.parametrize("phase", STUCK)
async def test_cancelling_the_task_that_closes_leaves_nothing_open(phase: str) -> None:
    """As an event loop does that shuts down."""
    clock = VirtualClock(auto=False)
    service, ns = scene(clock)
    calls = await get_stuck(phase, service, ns)
    closing = asyncio.create_task(ns.aclose(grace=50))
    await settle()
    [inner] = [task for task in asyncio.all_tasks() if task.get_name() == "nudgescribe close"]
    inner.cancel()
    await asyncio.wait([closing])
    await ended(calls)
    assert service.closed >= 1
    await ns.aclose()


async def test_a_renewal_in_the_background_does_not_use_up_the_grace() -> None:
    clock = VirtualClock(auto=False)
    service, ns = scene(clock)
    await ns.customer_groups.list("w")
    service.on_renewal = hanging()
    clock.now += 9_000  # it is ageing
    await ns.customer_groups.list("w")
    await settle()
    assert service.renewals == 1
    before = clock.now
    await ns.aclose(grace=100)
    assert clock.now == before
    assert service.closed == 1


async def test_a_login_by_hand_may_end_in_the_grace() -> None:
    clock = VirtualClock(auto=False)
    service, ns = scene(clock)
    go = asyncio.Event()

    async def slow(_: Request) -> Any:
        await go.wait()
        return service.tokens()

    service.on_login = slow
    by_hand = asyncio.create_task(ns.auth.authenticate())
    await settle()
    closing = asyncio.create_task(ns.aclose(grace=5))
    await clock.advance(1)
    assert not closing.done()
    go.set()
    assert (await by_hand).access_token == "access-MARKED-1"
    await closing
    with pytest.raises(ClientClosedError):
        await ns.auth.authenticate()


async def test_a_call_under_way_may_log_in_in_the_grace() -> None:
    clock = VirtualClock(auto=False)
    service, ns = scene(clock)
    entered, go = asyncio.Event(), asyncio.Event()

    async def refuse_late(request: Request) -> Any:
        if not go.is_set():
            entered.set()
            await go.wait()
            return answer(403, {})
        return service.authorised(request)

    service.on_call = refuse_late
    call = asyncio.create_task(ns.customer_groups.list("w"))
    await entered.wait()
    closing = asyncio.create_task(ns.aclose(grace=5))
    await settle()
    go.set()
    assert await call == []
    await closing
    assert service.bought == 2
