"""The budget of retries: what holds whatever happens, and what it makes of an outage."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import pytest
from attrs import define, field
from helpers import START, Service, client, settle
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from machines import THEN, AsyncMachine, run

from nudgescribe_async import (
    CallOptions,
    NudgescribeError,
    Priority,
    Request,
    RequestNotSentError,
    Response,
    RetryBudget,
    RetryPolicy,
    ServerError,
)
from nudgescribe_async.testing import VirtualClock, answer
from nudgescribe_async.throttle import Budget

BULK = CallOptions(priority=Priority.BULK)
USED_UP = "the client's budget of retries is used up"
SLACK = 0.01  # seconds for each turn: no timer is shorter than a millisecond

# --- whatever happens in whatever order ------------------------------------------------------------


@define(eq=False)
class Waiter:
    number: int
    came: float = math.inf
    task: asyncio.Task[None] | None = None
    in_line: bool = False
    served: bool = False
    cancelled: bool = False

    @property
    def waits(self) -> bool:
        return self.came < math.inf and not self.served and not self.cancelled


@define(eq=False)
class Budgeted:
    rules: RetryBudget
    clock: VirtualClock = field(factory=lambda: VirtualClock(auto=False))
    waiters: list[Waiter] = field(factory=list)
    used: int = 0
    earned: float = 0.0
    budget: Budget = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.budget = Budget(self.rules, clock=self.clock)

    def come(self) -> None:
        if not self.budget.refills:
            return  # the session does not wait for what never comes
        waiter = Waiter(len(self.waiters))
        self.waiters.append(waiter)

        async def wait() -> None:
            waiter.came = self.clock.now
            await self.budget.turn()
            waiter.served = True
            self.used += 1
            if waiter.in_line:
                ahead = [other for other in self.waiters if other.in_line and other.number < waiter.number]
                assert not [other for other in ahead if other.waits], "somebody was overtaken"

        waiter.task = asyncio.create_task(wait())

    def cancel(self, which: int) -> None:
        left = [w for w in self.waiters if w.task is not None and not w.task.done() and not w.cancelled]
        if left:
            waiter = left[which % len(left)]
            waiter.cancelled = True
            assert waiter.task is not None
            waiter.task.cancel()

    def take(self) -> None:
        if self.budget.left >= 1:
            self.budget.take()
            self.used += 1

    def succeed(self, repeated: bool) -> None:
        self.earned += 2.0 if repeated else self.rules.share
        self.budget.succeeded(repeated=repeated)

    async def stand_still(self) -> None:
        await settle(12)
        for waiter in self.waiters:
            if waiter.task is not None and waiter.task.done() and not waiter.task.cancelled():
                waiter.task.result()
        left = self.budget.left
        assert -1e-6 <= left <= self.rules.reserve
        granted = self.rules.reserve + self.earned + self.rules.per_second * (self.clock.now - START)
        assert self.used + left <= granted + 1e-6, "more retries than there are"
        waiting = [waiter for waiter in self.waiters if waiter.waits]
        for ahead, waiter in enumerate(waiting):
            waiter.in_line = True
            assert left < 1 or self.clock.now - waiter.came <= SLACK
            # Whoever came before and went was served or cancelled; the latter take nothing from anybody.
            served = [o for o in self.waiters if o.number < waiter.number and o.served]
            turns = ahead + 1 + len(served)
            assert self.clock.now - waiter.came <= turns / self.rules.per_second + turns * SLACK, "turns are lost"

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def end(self) -> None:
        waiting = sum(waiter.waits for waiter in self.waiters)
        if waiting:
            await self.clock.advance((waiting + 1) / self.rules.per_second + 1)
        await self.stand_still()
        assert not any(waiter.waits for waiter in self.waiters), "somebody waits for ever"
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not any(waiter.waiting for waiter in self.clock._waiters), "a timer is left"
        self.budget.close()


class BudgetMachine(AsyncMachine[Budgeted]):
    @initialize(
        reserve=st.sampled_from([0, 0.5, 1, 1.5, 3, 10]),
        share=st.sampled_from([0, 0.2, 1, 3]),
        per_second=st.sampled_from([0, 0.1, 1, 7, 3000]),
    )
    def begin(self, reserve: float, share: float, per_second: float) -> None:
        self.start(lambda: Budgeted(RetryBudget(reserve=reserve, share=share, per_second=per_second)))

    @rule(many=st.integers(1, 5), then=THEN)
    def somebody_comes(self, many: int, then: str) -> None:
        for _ in range(many):
            self.do(self.subject.come, "at once")
        self.do(lambda: None, then)

    @rule(which=st.integers(0, 6), then=THEN)
    def somebody_is_cancelled(self, which: int, then: str) -> None:
        self.do(lambda: self.subject.cancel(which), then)

    @rule(then=THEN)
    def a_plain_call_takes_one(self, then: str) -> None:
        self.do(self.subject.take, then)

    @rule(repeated=st.booleans(), then=THEN)
    def a_call_succeeds(self, repeated: bool, then: str) -> None:
        self.do(lambda: self.subject.succeed(repeated), then)

    @rule()
    def somebody_is_served_and_cancelled_at_once(self) -> None:
        self.do(lambda: None, "stand still")
        subject = self.subject
        before = subject.used + subject.budget.left
        waiting = any(waiter.waits for waiter in subject.waiters)
        self.do(lambda: subject.succeed(True), "at once")
        self.do(lambda: subject.cancel(0), "stand still")
        if waiting and subject.rules.reserve >= 3:
            assert abs(subject.used + subject.budget.left - before - 2) < 1e-6, "what it was given is lost"

    @rule(seconds=st.sampled_from([0.001, 0.1, 1 / 3, 1.0, 2.5, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(self.play())
        self.loop.run_until_complete(self.subject.pass_time(seconds))
        self.loop.run_until_complete(self.play())

    async def end(self) -> None:
        await self.subject.end()


def test_the_budget_whatever_happens() -> None:
    run(BudgetMachine, examples=200, steps=30)


# --- an outage -------------------------------------------------------------------------------------

OUTAGE = 30.0


class Outage(Service):
    """A service that is down from the first call until ``OUTAGE`` is over."""

    def __init__(self, clock: VirtualClock, how: str, **fields: object) -> None:
        super().__init__(**{"expires_in": 100_000} | fields)
        self.clock, self.how = clock, how
        self.begun = math.inf
        self.sent: list[float] = []
        self.asked = 0

    async def send(self, request: Request) -> Response:
        self.sent.append(self.clock.now)
        await self.clock.sleep(0.01)
        if self.begun <= self.clock.now < self.begun + OUTAGE:
            if self.how == "not sent":
                raise RequestNotSentError("refused")
            return answer(503, {})
        return await super().send(request)

    def begin(self) -> None:
        self.begun = self.clock.now
        self.sent.clear()

    @property
    def during(self) -> int:
        return sum(moment < self.begun + OUTAGE for moment in self.sent)


HOW = pytest.mark.parametrize("how", ["not sent", "503"])


@HOW
@pytest.mark.parametrize("expired", [False, True], ids=["token", "login"])
async def test_500_bulk_calls_live_through_an_outage(clock: VirtualClock, how: str, expired: bool) -> None:
    rules = RetryBudget()
    service = Outage(clock, how)
    async with client(service, clock=clock, retry_budget=rules) as ns:
        await ns.auth.authenticate()
        if expired:
            clock.now += 200_000
        service.begin()
        results = await asyncio.gather(
            *(ns.customer_groups.list("w", options=BULK) for _ in range(500)), return_exceptions=True
        )
        took = clock.now - service.begun
    assert [result for result in results if result != []] == []
    login = 2 if expired else 0  # with the refresh token, and with the credentials
    # What is sent in the outage: each call once, and what the budget gives in that time.
    assert service.during <= 500 + login + rules.reserve + rules.per_second * OUTAGE
    repeated = 500 + login
    assert len(service.sent) <= 500 + login + rules.reserve + rules.per_second * took + 2 * repeated
    # Everyone is answered once, so whatever else was sent was sent in the outage.
    assert len(service.sent) - service.during <= 500 + login
    assert took < OUTAGE + 60


@HOW
@pytest.mark.parametrize("expired", [False, True], ids=["token", "login"])
async def test_an_iterator_of_500_pages_lives_through_an_outage(clock: VirtualClock, how: str, expired: bool) -> None:
    rules = RetryBudget()
    service = Outage(clock, how)

    def respond(request: Request) -> Response:
        if request.url.endswith("/v1/customer/pages"):
            return answer(200, 500)
        service.asked += 1
        return answer(200, [{"customer_id": f"{service.asked}", "customer_group_id": "g", "extended_profile": {}}])

    service.on_call = respond
    async with client(service, clock=clock, retry_budget=rules) as ns:
        seen = 0
        async with ns.customers.iter("g", concurrency=32) as customers:
            async for _ in customers:
                seen += 1
                if seen == 10:
                    if expired:
                        clock.now += 200_000
                    service.begin()
        took = clock.now - service.begun
    assert seen == 500
    assert service.asked == 501  # with a look at the last page in the beginning
    login = 2 if expired else 0
    assert service.during <= 64 + login + rules.reserve + rules.per_second * OUTAGE
    assert len(service.sent) - service.during <= 504 + login  # and the number of pages, twice, and a login
    assert took < OUTAGE + 60


@HOW
async def test_plain_calls_end_quickly_in_an_outage_and_work_at_once_after_it(clock: VirtualClock, how: str) -> None:
    rules = RetryBudget(reserve=20, per_second=0.01)
    service = Outage(clock, how)
    async with client(service, clock=clock, retry_budget=rules) as ns:
        await ns.auth.authenticate()
        service.begin()
        results = await asyncio.gather(*(ns.customer_groups.list("w") for _ in range(100)), return_exceptions=True)
        assert all(isinstance(result, RequestNotSentError | ServerError) for result in results)
        assert len(service.sent) <= 120
        before = clock.now
        with pytest.raises(NudgescribeError) as caught:
            await ns.customer_groups.list("w")
        assert caught.value.not_repeated == USED_UP
        assert len(caught.value.attempts) == 1
        assert clock.now - before < 0.1
        clock.now = service.begun + OUTAGE
        before = clock.now
        assert await ns.customer_groups.list("w") == []
        assert clock.now - before < 0.1


async def test_a_plain_call_ends_where_its_login_does_in_an_outage(clock: VirtualClock) -> None:
    service = Outage(clock, "not sent")
    async with client(service, clock=clock, retry_budget=RetryBudget(reserve=0)) as ns:
        service.begin()
        before = clock.now
        with pytest.raises(RequestNotSentError, match="No token could be had"):
            await ns.customer_groups.list("w")
        assert clock.now - before < 0.1
        clock.now = service.begun + OUTAGE
        assert await ns.customer_groups.list("w") == []


@pytest.mark.parametrize(
    "rules",
    [
        RetryBudget(per_second=0),
        RetryBudget(reserve=0),
        RetryBudget(reserve=0, per_second=0),
        RetryBudget(reserve=0.9),
        RetryBudget(reserve=1, per_second=0),
    ],
)
@pytest.mark.parametrize("expired", [False, True], ids=["token", "login"])
async def test_nobody_waits_for_retries_that_never_come(clock: VirtualClock, rules: RetryBudget, expired: bool) -> None:
    service = Outage(clock, "not sent")
    async with client(service, clock=clock, retry_budget=rules) as ns:
        await ns.auth.authenticate()
        if expired:
            clock.now += 200_000
        service.begin()
        calls = (ns.customer_groups.list("w", options=BULK) for _ in range(300))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert clock.now - service.begun < OUTAGE
        assert {type(result) for result in results} == {RequestNotSentError}
        reasons = {result.not_repeated for result in results if isinstance(result, NudgescribeError)}
        assert USED_UP in reasons
        clock.now = service.begun + OUTAGE
        assert await ns.customer_groups.list("w") == []


async def test_a_success_after_a_retry_puts_two_back_and_any_other_a_share(clock: VirtualClock) -> None:
    service = Service()
    answers: Iterator[Response] = iter(())
    service.on_call = lambda _: next(answers)
    rules = RetryBudget(reserve=10, share=0.25, per_second=0)
    policy = RetryPolicy(base=0.001, longest=0.001)
    async with client(service, clock=clock, retry_budget=rules, retry=policy) as ns:
        budget = ns._session._budget
        await ns.auth.authenticate()
        budget._saved = 5.0
        answers = iter([answer(200, [])])
        await ns.customer_groups.list("w")
        assert budget.left == 5.25
        answers = iter([answer(500), answer(200, [])])
        await ns.customer_groups.list("w")
        assert budget.left == 6.25
        # What the service itself asked for takes nothing, and proves nothing.
        answers = iter([answer(429, headers={"Retry-After": "1"}), answer(200, [])])
        await ns.customer_groups.list("w")
        assert budget.left == 6.5
