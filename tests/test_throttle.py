"""The slots and the pause: what holds whatever happens in whatever order, and what a client makes of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest
from attrs import define, field
from helpers import START, Service, client, hanging, names, settle, watch
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from machines import THEN, AsyncMachine, run

from nudgescribe_async import (
    CallOptions,
    DeadlineExceededError,
    Nudgescribe,
    Priority,
    RateLimitedError,
    Request,
    RequestNotSentError,
    Response,
    RetryBudget,
    RetryPolicy,
)
from nudgescribe_async.events import Event, Events, RequestsPaused, RequestsResumed
from nudgescribe_async.sandbox import Sandbox, Status
from nudgescribe_async.testing import VirtualClock, answer
from nudgescribe_async.throttle import BULK_EVERY, Throttle

# --- whatever happens in whatever order ------------------------------------------------------------


@define(eq=False)
class Caller:
    """Somebody who wants a slot."""

    number: int
    priority: Priority
    task: asyncio.Task[None] | None = None
    arrived: bool = False
    waits: bool = False
    """Whether it waited when everything stood still last."""
    holds: bool = False
    left: bool = False
    era: int = -1
    sent_after: int = 0
    """How many bursts of refusals there had been when it was sent."""
    cancelled: bool = False
    passed_by: int = 0
    """How many interactive calls got a slot since it came and no bulk call did."""


@define(eq=False)
class Throttled:
    """A throttle, its callers, and what is found wrong."""

    limit: int
    clock: VirtualClock = field(factory=lambda: VirtualClock(auto=False))
    events: list[Event] = field(factory=list)
    callers: list[Caller] = field(factory=list)
    renewals: list[asyncio.Task[None]] = field(factory=list)
    paused_until: float = -math.inf
    calm: bool = True
    """Whether the window cannot have shrunk since everything stood still last."""
    since_bulk: int = 0
    cancelled: int = 0
    """How many waiting callers were cancelled; who had been served by then took part in the order all the same."""
    bursts: int = 0
    lowest: float = field(init=False)
    highest: float = field(init=False)
    throttle: Throttle = field(init=False)

    def __attrs_post_init__(self) -> None:
        events = Events()
        events.subscribe(self.events.append)
        self.throttle = Throttle(self.limit, clock=self.clock, events=events)
        self.lowest = self.highest = float(self.limit)

    @property
    def holders(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.holds]

    @property
    def waiting(self) -> list[Caller]:
        return [
            caller
            for caller in self.callers
            if caller.arrived and not (caller.holds or caller.left or caller.cancelled)
        ]

    # --- what can happen ---------------------------------------------------------------------------

    def arrive(self, priority: Priority) -> None:
        caller = Caller(len(self.callers), priority)
        self.callers.append(caller)
        caller.task = asyncio.create_task(self._come(caller))

    async def _come(self, caller: Caller) -> None:
        caller.arrived = True
        caller.era = await self.throttle.acquire(caller.priority)
        caller.holds = True
        caller.sent_after = self.bursts
        assert caller.era == self.bursts
        self._admitted(caller)

    def _admitted(self, caller: Caller) -> None:
        throttle = self.throttle
        assert not throttle.paused, "somebody is sent off in a pause"
        assert self.clock.now >= self.paused_until
        assert throttle.in_flight <= self.limit
        if self.calm:
            assert throttle.in_flight <= throttle.window
        waiting = [other for other in self.waiting if other.waits]
        # Who did not wait when everything stood still may have been served before the others were there.
        if (
            self.calm
            and caller.waits
            and any(o.priority is caller.priority and o.number < caller.number for o in waiting)
        ):
            raise AssertionError("somebody was overtaken by one of its own kind")
        if caller.priority is Priority.INTERACTIVE:
            self.since_bulk += 1
            for other in waiting:
                if other.priority is Priority.BULK:
                    other.passed_by += 1
                    # Up to as many as there are slots may have been served before it came, and have kept a pause since.
                    assert other.passed_by < BULK_EVERY * (1 + self.cancelled) + self.limit, "bulk stands still"
            return
        if self.calm and caller.waits and any(other.priority is Priority.INTERACTIVE for other in waiting):
            assert self.since_bulk + self.cancelled >= BULK_EVERY - 1, "bulk went before interactive"
        self.since_bulk = 0
        for other in waiting:
            other.passed_by = 0

    def release(self, which: int, outcome: str, seconds: float) -> None:
        if not self.holders:
            return
        caller = self.holders[which % len(self.holders)]
        if outcome == "success":
            self._succeed(caller.era)
        elif outcome == "refusal":
            self.refuse(seconds, caller)
        caller.holds, caller.left = False, True
        self.throttle.release()

    def _succeed(self, era: int) -> None:
        window = self.throttle.window
        self.throttle.succeeded(era)
        if era != self.bursts:
            assert self.throttle.window == window, "success of what was sent before the refusal counted"
            return
        # One more for each round: the square of the window grows by two and a little.
        self.lowest = min(math.sqrt(self.lowest**2 + 2), self.limit)
        self.highest = min(math.sqrt(self.highest**2 + 3), self.limit)

    def refuse(self, seconds: float, caller: Caller | None) -> None:
        window, in_flight, events = self.throttle.window, self.throttle.in_flight, len(self.events)
        paused = self.throttle.paused
        counted = caller is None or caller.sent_after == self.bursts
        era = caller.era if caller is not None else self.bursts  # a renewal that passed the gate just now
        self.throttle.refused(seconds, era=era, operation="o", status=429)
        self.paused_until = max(self.paused_until, self.clock.now + seconds)
        self.calm = False
        if counted:
            self.bursts += 1
            self.lowest = max(1.0, min(self.lowest, in_flight or self.limit) / 2)
            self.highest = max(1.0, min(self.highest, in_flight or self.limit) / 2)
        else:
            assert self.throttle.window == window, "a refusal of the same burst counted again"
        if seconds > 0:
            assert self.throttle.paused
            if not paused:
                assert names(self.events[events:]) == ["RequestsPaused"]

    def cancel(self, which: int) -> None:
        left = [caller for caller in self.callers if not caller.holds and not caller.cancelled and caller.task]
        left = [caller for caller in left if caller.task is not None and not caller.task.done()]
        if left:
            caller = left[which % len(left)]
            caller.cancelled = True
            self.cancelled += 1
            assert caller.task is not None
            caller.task.cancel()

    def renew(self) -> None:
        async def pass_the_gate() -> None:
            await self.throttle.gate()
            assert not self.throttle.paused, "a renewal is sent off in a pause"

        self.renewals.append(asyncio.create_task(pass_the_gate()))

    def cancel_renewal(self, which: int) -> None:
        left = [task for task in self.renewals if not task.done()]
        if left:
            left[which % len(left)].cancel()

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    # --- what must hold once everything stands still -----------------------------------------------

    async def stand_still(self) -> None:
        await settle(12)
        throttle = self.throttle
        for caller in self.callers:
            if caller.task is not None and caller.task.done() and not caller.task.cancelled():
                caller.task.result()
        for task in self.renewals:
            if task.done() and not task.cancelled():
                task.result()
        # Somebody may have been given a slot just before a pause began, and keep it until that is over.
        assert len(self.holders) <= throttle.in_flight <= self.limit
        assert 1 <= throttle.window <= self.limit
        assert math.floor(self.lowest + 1e-6) <= throttle.window <= self.highest + 1e-6
        assert throttle.paused == (self.clock.now < self.paused_until)
        if not throttle.paused:
            assert throttle.in_flight == len(self.holders), "slots are lost, or were handed out twice"
            assert not self.waiting or throttle.in_flight >= throttle.window, "somebody waits before a free slot"
            assert all(task.done() for task in self.renewals)
        for caller in self.waiting:
            caller.waits = True
        paused = [type(event) for event in self.events if isinstance(event, RequestsPaused | RequestsResumed)]
        resumed = paused.count(RequestsResumed)
        assert resumed <= paused.count(RequestsPaused)
        assert not paused or throttle.paused == (resumed == 0 or paused[-1] is RequestsPaused)
        self.calm = not throttle.paused  # who kept a slot over a pause may be one too many after it

    async def end(self) -> None:
        for _ in range(10_000):
            await self.stand_still()
            if self.throttle.paused:
                self.pass_time(self.paused_until - self.clock.now)
            elif self.holders:
                self.release(0, "success", 0.0)
            elif not self.waiting:
                break
        assert not self.waiting
        while self.throttle.window < self.limit:
            self._succeed(self.bursts)
        for _ in range(self.limit + 1):
            self.arrive(Priority.BULK)
        await self.stand_still()
        assert len(self.holders) == self.limit
        assert len(self.waiting) == 1
        self.cancel(0)
        await self.stand_still()
        for _ in range(self.limit):
            self.release(0, "failure", 0.0)
        await self.stand_still()
        assert self.throttle.in_flight == 0
        self.throttle.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}


SECONDS = st.sampled_from([0.0, 0.1, 1.0, 1.5, 3.0, 120.0])


class ThrottleMachine(AsyncMachine[Throttled]):
    @initialize(limit=st.sampled_from([1, 2, 3, 5, 9]), crowd=st.integers(0, 12))
    def begin(self, limit: int, crowd: int) -> None:
        self.start(lambda: Throttled(limit))
        for number in range(crowd):
            self.script.append(lambda number=number: self.subject.arrive(list(Priority)[number % 3 // 2]))  # type: ignore[misc]
        self.do(lambda: None, "stand still")

    @rule(priority=st.sampled_from(Priority), many=st.integers(1, 4), then=THEN)
    def somebody_comes(self, priority: Priority, many: int, then: str) -> None:
        def come() -> None:
            for _ in range(many):
                self.subject.arrive(priority)

        self.do(come, then)

    @rule(which=st.integers(0, 9), outcome=st.sampled_from(["success", "failure"]), then=THEN)
    def a_holder_is_done(self, which: int, outcome: str, then: str) -> None:
        self.do(lambda: self.subject.release(which, outcome, 0.0), then)

    @rule(which=st.integers(0, 9), seconds=SECONDS, then=THEN)
    def a_holder_is_refused(self, which: int, seconds: float, then: str) -> None:
        self.do(lambda: self.subject.release(which, "refusal", seconds), then)

    @rule(seconds=SECONDS, then=THEN)
    def a_renewal_is_refused(self, seconds: float, then: str) -> None:
        self.do(lambda: self.subject.refuse(seconds, None), then)

    @rule(which=st.integers(0, 9), then=THEN)
    def somebody_is_cancelled(self, which: int, then: str) -> None:
        self.do(lambda: self.subject.cancel(which), then)

    @rule(which=st.integers(0, 2))
    def somebody_is_served_and_cancelled_at_once(self, which: int) -> None:
        self.do(lambda: None, "stand still")
        self.do(lambda: self.subject.release(0, "failure", 0.0), "at once")
        self.do(lambda: self.subject.cancel(which), "stand still")

    @rule(then=THEN)
    def a_renewal_comes(self, then: str) -> None:
        self.do(self.subject.renew, then)

    @rule(which=st.integers(0, 9), then=THEN)
    def a_renewal_is_cancelled(self, which: int, then: str) -> None:
        self.do(lambda: self.subject.cancel_renewal(which), then)

    @rule(seconds=SECONDS, then=THEN)
    def time_passes(self, seconds: float, then: str) -> None:
        self.do(lambda: self.subject.pass_time(seconds), then)

    @precondition(lambda self: self.subject.throttle.paused)
    @rule(then=THEN)
    def the_pause_ends(self, then: str) -> None:
        self.do(lambda: self.subject.pass_time(max(0.0, self.subject.paused_until - self.subject.clock.now)), then)

    async def end(self) -> None:
        await self.subject.end()


def test_the_throttle_whatever_happens() -> None:
    run(ThrottleMachine, examples=200, steps=40)


async def test_who_was_served_when_a_pause_began_waits_for_its_end() -> None:
    """Two answers arrive in the same turn of the event loop: a success, which frees a slot, and a refusal."""
    clock = VirtualClock(auto=False)
    throttle = Throttle(2, clock=clock, events=Events())
    era = await throttle.acquire(Priority.INTERACTIVE)
    await throttle.acquire(Priority.INTERACTIVE)
    third = asyncio.create_task(throttle.acquire(Priority.INTERACTIVE))
    await settle()
    throttle.release()
    throttle.refused(1.0, era=era, operation="o", status=429)
    throttle.release()
    await settle()
    assert not third.done()
    await clock.advance(1.0)
    assert third.done()
    throttle.close()


# --- what a client makes of it ---------------------------------------------------------------------


class Timed(Service):
    """Notes when each request was sent."""

    def __init__(self, clock: VirtualClock, latency: float = 0.01, **fields: object) -> None:
        super().__init__(**fields)
        self.clock, self.latency = clock, latency
        self.sent: list[float] = []
        self.flying = self.most = 0

    async def send(self, request: Request) -> Response:
        self.sent.append(self.clock.now)
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await self.clock.sleep(self.latency)
            return await super().send(request)
        finally:
            self.flying -= 1


def refusal(status: int, retry_after: str | None) -> Response:
    return answer(status, {}, headers={} if retry_after is None else {"Retry-After": retry_after})


@pytest.mark.parametrize(
    ("status", "retry_after", "shortest", "longest"),
    [
        (429, "1", 1.0, 1.0),
        (429, None, 0.0, 0.5),
        (503, "2", 2.0, 2.0),
        (503, "date", 4.0, 5.0),
        (429, "3600", 120.0, 120.0),
    ],
)
async def test_one_refusal_pauses_everybody_once(
    clock: VirtualClock, status: int, retry_after: str | None, shortest: float, longest: float
) -> None:
    service = Timed(clock)
    refused_at: list[float] = []

    def respond(_: Request) -> Response:
        if len(service.requests) == 8 and not refused_at:
            refused_at.append(clock.now)
            when = formatdate(clock.time() + 5, usegmt=True) if retry_after == "date" else retry_after
            return refusal(status, when)
        return answer(200, [])

    service.on_call = respond
    async with client(service, clock=clock, concurrency=10) as ns:
        events = watch(ns)
        tasks = [asyncio.create_task(ns.customer_groups.list("w")) for _ in range(50)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if retry_after == "3600":
            assert results.count([]) == 49
            [error] = [result for result in results if result != []]
            assert isinstance(error, RateLimitedError)
        else:
            assert results == [[]] * 50
        [paused] = [event for event in events if isinstance(event, RequestsPaused)]
        [resumed] = [event for event in events if isinstance(event, RequestsResumed)]
        assert names(events).index("RequestsPaused") < names(events).index("RequestsResumed")
        assert (paused.operation, paused.status, paused.concurrency) == ("customer_groups.list", status, 5)
        assert 34 <= resumed.waiting <= 40  # six had been answered, and their slots given to others
        assert 5 <= resumed.concurrency <= 7  # the nine that were on their way succeeded meanwhile
        assert shortest <= paused.seconds <= longest
        [moment] = refused_at
        assert not [sent for sent in service.sent if moment <= sent < moment + paused.seconds - 1e-6]
        assert [sent for sent in service.sent if sent >= moment + paused.seconds - 1e-6]
        for _ in range(60):
            await ns.customer_groups.list("w")
        service.flying = service.most = 0
        await asyncio.gather(*(ns.customer_groups.list("w") for _ in range(50)))
    assert service.most == 10


async def test_the_window_grows_by_one_each_round(clock: VirtualClock) -> None:
    service = Timed(clock, latency=1.0)
    first = True

    def respond(_: Request) -> Response:
        nonlocal first
        refused, first = first, False
        return refusal(429, "10") if refused else answer(200, [])

    service.on_call = respond
    async with client(service, clock=clock, concurrency=8) as ns:
        await ns.auth.authenticate()
        await asyncio.gather(*(ns.customer_groups.list("w") for _ in range(80)))
    rounds = sorted({moment for moment in service.sent if moment > START + 10})
    sizes = [service.sent.count(moment) for moment in rounds]
    assert 4 <= sizes[0] <= 5
    assert all(after - before <= 2 for before, after in pairwise(sizes))
    assert max(sizes) <= 8
    assert 8 in sizes


async def test_a_renewal_waits_for_the_end_of_a_pause_too(clock: VirtualClock) -> None:
    service = Timed(clock)
    service.on_call = lambda _: refusal(429, "5") if len(service.requests) == 2 else answer(200, [])
    async with client(service, clock=clock) as ns:
        first = asyncio.create_task(ns.customer_groups.list("w"))
        await clock.sleep(0.1)
        before = len(service.sent)
        by_hand = asyncio.create_task(ns.auth.authenticate())
        await clock.sleep(4.8)
        assert len(service.sent) == before
        await asyncio.gather(first, by_hand)


async def test_a_refused_renewal_counts_once_with_the_calls_it_flew_with(clock: VirtualClock) -> None:
    """The login was on its way when the first refusal came, so its own is one of the same burst."""
    service = Timed(clock, expires_in=10_000)
    service.on_call = lambda _: refusal(429, "1") if clock.now < START + 1 else answer(200, [])
    async with client(service, clock=clock, concurrency=16) as ns:
        await ns.auth.authenticate()
        service.on_login = lambda _: refusal(429, "1") if clock.now < START + 1 else service.tokens()
        events = watch(ns)
        calls = [ns.customer_groups.list("w") for _ in range(16)]
        await asyncio.gather(ns.auth.authenticate(), *calls)
        [resumed] = [event for event in events if isinstance(event, RequestsResumed)]
    assert resumed.concurrency == 8


async def test_a_subscriber_that_ends_the_program_leaves_nobody_waiting(clock: VirtualClock) -> None:
    class Over(BaseException):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, RequestsResumed):
            raise Over

    service = Service()
    refusals = [refusal(429, "1")]
    service.on_call = lambda _: refusals.pop() if refusals else answer(200, [])
    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context.get("exception")))
    async with client(service, clock=clock) as ns:
        ns.events.subscribe(stop)
        calls = [asyncio.create_task(ns.customer_groups.list("w")) for _ in range(5)]
        try:
            assert await asyncio.gather(*calls) == [[]] * 5
        except Over:  # the virtual clock calls from where somebody waits
            assert await asyncio.gather(*calls) == [[]] * 5
    asyncio.get_running_loop().set_exception_handler(None)


async def test_a_retry_after_of_0_is_a_short_pause(clock: VirtualClock) -> None:
    service = Timed(clock)
    service.on_call = lambda _: refusal(429, "0") if len(service.requests) == 2 else answer(200, [])
    async with client(service, clock=clock) as ns:
        events = watch(ns)
        await ns.customer_groups.list("w")
    assert names(events).count("RequestsPaused") == 1
    # The pause, and the call's own wait; the clock may let one pass before the other begins.
    assert 0 < service.sent[-1] - START <= 2 * RetryPolicy().base


async def test_plain_calls_overtake_the_pages_of_an_iterator(clock: VirtualClock) -> None:
    service = Timed(clock, latency=1.0)
    order: list[str] = []

    def respond(request: Request) -> Response:
        if request.url.endswith("/v1/cg"):
            order.append("plain")
            return answer(200, [])
        if request.url.endswith("/v1/customer/pages"):
            return answer(200, 40)
        order.append("page")
        return answer(200, [{"customer_id": "c", "customer_group_id": "g", "extended_profile": {}}])

    service.on_call = respond
    async with client(service, clock=clock, concurrency=2) as ns:
        await ns.auth.authenticate()

        async def read() -> int:
            return sum([1 async for _ in ns.customers.iter("g", concurrency=20)])

        reading = asyncio.create_task(read())
        await clock.sleep(2.5)
        plain = [asyncio.create_task(ns.customer_groups.list("w")) for _ in range(21)]
        await asyncio.gather(*plain)
        begun = order.index("plain")
        among = order[begun : len(order) - order[::-1].index("plain")]
        assert 2 <= among.count("page") <= 5, "each eighth slot is a page's"
        assert await reading == 40


@pytest.mark.parametrize("priority", Priority)
async def test_a_slot_is_free_while_its_call_waits_for_its_next_attempt(
    clock: VirtualClock, priority: Priority
) -> None:
    service = Timed(clock)
    service.on_call = lambda request: refusal(500, None) if "extra" in request.headers else answer(200, [])
    async with client(service, clock=clock, concurrency=1, retry=RetryPolicy(base=30, longest=30)) as ns:
        options = CallOptions(headers={"extra": "1"}, priority=priority)
        events = watch(ns)
        sleeping = asyncio.create_task(ns.customer_groups.list("w", options=options))
        while "RequestRetrying" not in names(events):
            await asyncio.sleep(0)
        before = clock.now
        await ns.customer_groups.list("w")
        assert clock.now - before < 0.1
        sleeping.cancel()
        await settle()


async def test_a_slot_is_free_while_calls_wait_for_a_token(clock: VirtualClock) -> None:
    service, go = Service(), asyncio.Event()

    async def slow(_: Request) -> Response:
        await go.wait()
        return service.tokens()

    service.on_login = slow
    async with client(service, clock=VirtualClock(auto=False), concurrency=1) as ns:
        tasks = [asyncio.create_task(ns.customer_groups.list("w")) for _ in range(5)]
        await settle()
        assert ns._session._throttle.in_flight == 0
        go.set()
        await asyncio.gather(*tasks)


# --- deadlines -------------------------------------------------------------------------------------


class EndlessBody:
    async def __aiter__(self) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async def aclose(self) -> None: ...


Call = Callable[[Nudgescribe, CallOptions], Coroutine[Any, Any, object]]


def reading(ns: Nudgescribe, options: CallOptions) -> Coroutine[Any, Any, object]:
    return ns.customer_groups.list("w", options=options)


def publishing(ns: Nudgescribe, options: CallOptions) -> Coroutine[Any, Any, object]:
    return ns.messages.publish("c", options=options)


@define
class Scene:
    """A client in which the next call gets stuck in one phase."""

    ns: Nudgescribe
    service: Service
    clock: VirtualClock
    budget: RetryBudget
    others: list[asyncio.Task[Any]] = field(factory=list)
    priority: Priority = Priority.INTERACTIVE

    async def prepare(self, phase: str) -> None:
        service = self.service
        if phase == "token":
            service.on_login = hanging()
            return
        await self.ns.auth.authenticate()
        match phase:
            case "slot":
                service.on_call = hanging()
                for _ in range(2):
                    self.others.append(asyncio.create_task(self.ns.customer_groups.list("w")))
                await settle()
            case "pause":
                service.on_call = lambda _: refusal(429, "100")
                self.others.append(asyncio.create_task(self.ns.customer_groups.list("w")))
                await settle()
            case "next attempt":
                service.on_call = lambda _: refusal(429, "6")
            case "another token":
                service.on_call = lambda _: answer(403, {})
                service.on_renewal = service.on_login = hanging()
            case "budget":
                self.priority = Priority.BULK

                def fail(_: Request) -> Response:
                    raise RequestNotSentError("down")

                service.on_call = fail
                self.ns._session._budget._saved = 0.0
            case "answer":
                service.on_call = hanging()
            case "reading":
                service.on_call = lambda _: Response(
                    status=200, headers={"content-type": "application/json"}, stream=EndlessBody()
                )
            case _:
                raise AssertionError(phase)

    async def stop(self) -> None:
        for task in self.others:
            task.cancel()
        await asyncio.gather(*self.others, return_exceptions=True)


PHASES_OF_A_CALL = {
    "token": "waiting for a token",
    "slot": "waiting for a free slot",
    "pause": "waiting for the end of a pause",
    "next attempt": "waiting for its next attempt, since",
    "another token": "waiting for another token",
    "budget": "waiting for the client's budget of retries",
    "answer": "waiting for the answer",
    "reading": "reading the answer",
}


def scene(clock: VirtualClock) -> Scene:
    service, budget = Service(expires_in=10_000), RetryBudget(reserve=10, per_second=0.001)
    policy = RetryPolicy(attempts=4, base=0.001, longest=0.001)
    return Scene(client(service, clock=clock, concurrency=2, retry=policy, retry_budget=budget), service, clock, budget)


@pytest.mark.parametrize("call", [reading, publishing])
@pytest.mark.parametrize("phase", [phase for phase in PHASES_OF_A_CALL if phase != "next attempt"])
async def test_a_deadline_in_each_phase(phase: str, call: Call) -> None:
    clock = VirtualClock(auto=False)
    it = scene(clock)
    await it.prepare(phase)
    task = asyncio.create_task(call(it.ns, CallOptions(timeout=7.0, priority=it.priority)))
    await clock.advance(6.999)
    assert not task.done()
    await clock.advance(0.001)
    await settle()
    assert task.done()
    error = task.exception()
    assert isinstance(error, DeadlineExceededError)
    assert error.phase.startswith(PHASES_OF_A_CALL[phase])
    unknown = call is publishing and phase in ("answer", "reading")
    assert error.may_have_taken_effect is unknown
    if unknown:
        assert "may have taken effect" in str(error)
    else:
        assert error.look is None
    if call is publishing and not unknown:
        assert "has not taken effect" in str(error)
    await it.stop()
    await it.ns.aclose(grace=0)


async def test_no_call_waits_for_an_attempt_after_its_deadline() -> None:
    it = scene(VirtualClock(auto=False))
    await it.prepare("next attempt")
    with pytest.raises(RateLimitedError) as caught:
        await reading(it.ns, CallOptions(timeout=5.9))
    assert (caught.value.not_repeated or "").endswith("after the deadline")
    assert it.clock.now == START
    await it.ns.aclose(grace=0)


@pytest.mark.parametrize("phase", PHASES_OF_A_CALL)
async def test_a_call_cancelled_in_each_phase_gives_back_what_it_held(phase: str) -> None:
    clock = VirtualClock(auto=False)
    it = scene(clock)
    await it.prepare(phase)
    throttle, budget = it.ns._session._throttle, it.ns._session._budget
    slots, left, waiting = throttle.in_flight, budget.left, len(clock._waiters)
    task = asyncio.create_task(reading(it.ns, CallOptions(timeout=1e6, priority=it.priority)))
    await clock.advance(1.0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert throttle.in_flight == slots
    assert budget.left == pytest.approx(min(left + 0.001, 10), abs=1e-6)
    assert not throttle._interactive.turns
    assert not throttle._bulk.turns
    assert not budget._line.turns
    if phase not in ("token", "another token", "next attempt"):  # a renewal goes on, and a pause does
        assert sum(waiter.waiting for waiter in clock._waiters) <= waiting
    await it.stop()
    await it.ns.aclose(grace=0)


async def test_an_interactive_call_cancelled_before_its_next_attempt_gives_back_the_retry() -> None:
    clock = VirtualClock(auto=False)
    service = Service()
    service.on_call = lambda _: refusal(500, None)
    async with client(service, clock=clock, retry=RetryPolicy(base=30, longest=30)) as ns:
        events = watch(ns)
        task = asyncio.create_task(ns.customer_groups.list("w"))
        await settle()
        assert "RequestRetrying" in names(events)
        task.cancel()
        await settle()
        assert ns._session._budget.left == 100


@pytest.mark.slow
async def test_a_429_on_one_of_50_calls_pauses_all_as_the_server_sees_it() -> None:
    async with (
        Sandbox() as sandbox,
        Nudgescribe(sandbox.credentials, base_url=sandbox.url, concurrency=8) as ns,
    ):
        sandbox.inject(Status(429, retry_after=1), operation="customer_groups.list", skip=10)
        answers = await asyncio.gather(*(ns.customer_groups.list(sandbox.workspace_id) for _ in range(50)))
        log = sandbox.log
    assert answers == [[]] * 50
    refused = next(record for record in log if record.status == 429)
    told = refused.when + timedelta(seconds=refused.seconds)
    later = [(record.when - told).total_seconds() for record in log if record.when > told]
    # What was on its way already when the refusal was sent may arrive a moment after it.
    assert [seconds for seconds in later if 0.1 < seconds < 0.95] == []
    assert len([seconds for seconds in later if seconds >= 0.95]) >= 50 - 11 - 8
    assert [record.status for record in log if record.operation == "customer_groups.list"].count(200) == 50
