"""The model of the service that the other tests here, and the simulation, believe in."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from helpers import CREDENTIALS
from rerun_service import (
    GARBAGE_AFTER,
    HANG,
    LOST_AFTER,
    LOST_BEFORE,
    MESSAGE_FILE,
    NOT_SENT,
    UNAVAILABLE,
    UNAVAILABLE_AFTER,
    RerunService,
    Trouble,
    by_chance,
    late,
    threads_hold,
)

from nudgescribe_async import (
    BadRequestError,
    Nudgescribe,
    NudgescribeError,
    OutcomeUnknownError,
    Request,
    RequestNotSentError,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
    Transport,
)
from nudgescribe_async.testing import VirtualClock

INITIATE = "reruns.initiate"


def client(service: RerunService, **options: Any) -> Nudgescribe:
    return Nudgescribe(CREDENTIALS, transport=service, clock=service.clock, **options)


def once(operation: str, trouble: Trouble) -> Any:
    left = [trouble]
    return lambda asked, _: left.pop() if asked == operation and left else None


async def test_it_is_a_transport_whose_answers_fit_the_contract() -> None:
    service = RerunService(4, clock=VirtualClock(), workspaces=2, share_new=1.0)
    assert isinstance(service, Transport)
    nobody = Request(method="POST", url="https://service.invalid/v1/campaign/all", body=b"{}")
    assert (await service.send(nobody)).status == 403
    async with client(service) as ns:
        workspaces = await ns.campaigns.list()
        assert [len(workspace.campaigns) for workspace in workspaces] == [2, 2]
        campaign = workspaces[1].campaigns[0]
        groups = await ns.customer_groups.list(workspaces[1].workspace_id)
        assert [group.customer_group_id for group in groups] == service.groups(campaign.campaign_id)
        messages = await ns.reruns.messages(campaign.campaign_id)
        assert {(message.review_status, message.is_archived) for message in messages} == {("Published", False)}

        receipt = await ns.reruns.initiate(campaign.campaign_id, groups[1].customer_group_id)
        newest, first = await ns.reruns.history(campaign.campaign_id)

        assert (newest.run_number, newest.rerun_id) == (receipt.run_number, receipt.rerun_id) == (2, newest.rerun_id)
        assert newest.comparison == receipt.comparison
        assert newest.campaign_status == receipt.campaign_status == "Ready for review"
        assert (first.rerun_id, first.comparison, first.campaign_status) == (None, None, "Published")
        service.set_state(campaign.campaign_id, "Ready to publish")
        await ns.messages.publish(campaign.campaign_id)
        assert await ns.messages.count_pages(campaign.campaign_id, run_number=2) == 1
        assert await ns.messages.fetch(campaign.campaign_id, 1, run_number=2) == MESSAGE_FILE.decode()
    assert [(run.group, run.by) for run in service.new_runs(campaign.campaign_id)] == [("g-2-2", "the client")]
    assert service.requests["reruns.history"] == 1


async def test_the_rules_are_those_of_the_service() -> None:
    service = RerunService(["one", "two"], clock=VirtualClock(), workspaces=2)
    mine, other = service.groups("one"), service.groups("two")
    async with client(service) as ns:
        for campaign, group, why in (
            ("three", mine[1], "no such campaign"),
            ("one", "unknown", "or there is none"),
            ("one", other[1], "another workspace"),
        ):
            with pytest.raises(BadRequestError, match=why):
                await ns.reruns.initiate(campaign, group)
        with pytest.raises(BadRequestError, match="'Published', not 'Ready to publish'"):
            await ns.messages.publish("one")

        service.take_back("one")
        assert [m.review_status for m in await ns.reruns.messages("one")] == ["Rejected", "Published", "Published"]
        with pytest.raises(BadRequestError, match="1 messages of the current run"):
            await ns.reruns.initiate("one", mine[1])
        service.set_state("one", "Published")
        await ns.reruns.initiate("one", mine[1])
        with pytest.raises(BadRequestError, match="'Ready to publish', not 'Published'"):
            await ns.reruns.initiate("one", mine[1])

        assert service.rerun_by_somebody_else("two", other[2]) == 2
    assert [(run.campaign, run.run, run.by) for run in service.initiated] == [
        ("one", 2, "the client"),
        ("two", 2, "somebody else"),
    ]


async def test_work_takes_its_time() -> None:
    clock = VirtualClock()
    service = RerunService(clock=clock, latency=0.3, generation_time=60, publish_time=30)
    (request,) = service.plan()
    campaign = request.campaign_id
    async with client(service) as ns:
        assert (await ns.reruns.initiate(campaign, request.new_customer_group_id)).campaign_status == "Generating"
        with pytest.raises(BadRequestError, match="'Generating', not 'Ready to publish'"):
            await ns.messages.publish(campaign)
        await clock.advance(60)
        assert service.state(campaign) == "Ready to publish"
        await ns.messages.publish(campaign)
        with pytest.raises(BadRequestError, match="being published already"):
            await ns.messages.publish(campaign)
        assert await ns.messages.count_pages(campaign) == 0
        await clock.advance(30)
        assert await ns.messages.count_pages(campaign) == 1
    assert service.state(campaign) == "Published"
    assert set(clock.slept) == {0.3}


@pytest.mark.parametrize(
    ("trouble", "error", "runs"),
    [
        (LOST_BEFORE, OutcomeUnknownError, 0),
        (LOST_AFTER, OutcomeUnknownError, 1),
        (late(5), OutcomeUnknownError, 0),
        (NOT_SENT, RequestNotSentError, 0),
        (UNAVAILABLE, ServerError, 0),
        (UNAVAILABLE_AFTER, ServerError, 1),
        (GARBAGE_AFTER, ResponseDecodeError, 1),
        (HANG, OutcomeUnknownError, 1),
    ],
)
async def test_trouble_is_what_it_says(trouble: Trouble, error: type[NudgescribeError], runs: int) -> None:
    clock = VirtualClock()
    service = RerunService(clock=clock, latency=0.1, trouble=once(INITIATE, trouble))
    (request,) = service.plan()
    async with client(service, retry=RetryPolicy(attempts=1)) as ns:
        with pytest.raises(error) as caught:
            await ns.reruns.initiate(request.campaign_id, request.new_customer_group_id)
        assert isinstance(caught.value, OutcomeUnknownError) is (trouble not in {NOT_SENT, GARBAGE_AFTER})
        assert len(service.new_runs(request.campaign_id)) == runs
        if trouble.name == "late":
            await clock.advance(4.9)
            assert not service.new_runs(request.campaign_id)
            await clock.advance(0.2)
            (run,) = service.new_runs(request.campaign_id)
            assert clock.now - run.at == pytest.approx(0.1, abs=0.01)
    assert service.requests[INITIATE] == 1


async def test_what_is_late_comes_to_nothing_if_the_rules_are_against_it_by_then() -> None:
    clock = VirtualClock()
    service = RerunService(clock=clock, trouble=once(INITIATE, late(5)))
    (request,) = service.plan()
    async with client(service) as ns:
        with pytest.raises(OutcomeUnknownError):
            await ns.reruns.initiate(request.campaign_id, request.new_customer_group_id)
        service.rerun_by_somebody_else(request.campaign_id, service.groups(request.campaign_id)[2])
        await clock.advance(6)
    assert [run.by for run in service.new_runs(request.campaign_id)] == ["somebody else"]


async def test_an_answer_that_nobody_waits_for_has_had_its_effect() -> None:
    clock = VirtualClock()
    service = RerunService(clock=clock, latency=10)
    (request,) = service.plan()
    async with client(service) as ns:
        await ns.auth.authenticate()
        call = asyncio.create_task(ns.reruns.initiate(request.campaign_id, request.new_customer_group_id))
        while not service.requests[INITIATE]:
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
    assert len(service.new_runs(request.campaign_id)) == 1


async def test_too_many_requests_are_told_when_to_come_again() -> None:
    clock = VirtualClock()
    service = RerunService(clock=clock, rate=5, burst=10)
    began = clock.now
    async with client(service) as ns:
        await asyncio.gather(*(ns.campaigns.list() for _ in range(60)))
    served = service.requests.total() - service.limited
    assert service.limited > 0
    assert served == 61
    assert served <= 10 + 5 * (clock.now - began) + 1


async def test_the_same_seed_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def played(seed: int) -> list[Any]:
        trouble = by_chance({LOST_BEFORE: 0.2, UNAVAILABLE_AFTER: 0.2}, seed, [INITIATE])
        service = RerunService(30, clock=VirtualClock(), share_new=0.5, seed=seed, trouble=trouble)
        async with client(service) as ns:
            for request in service.plan():
                try:
                    await ns.reruns.initiate(request.campaign_id, request.new_customer_group_id)
                except OutcomeUnknownError:
                    continue
        assert service.requests[INITIATE] == 30
        return [(run, service.state(run.campaign)) for run in service.initiated]

    first = await played(1)
    assert first == await played(1)
    assert first != await played(2)
    assert 15 < len(first) < 30
    assert {state for _, state in first} == {"Ready for review", "Ready to publish"}


async def test_the_clock_stands_while_a_thread_works() -> None:
    clock = VirtualClock()
    deadline = asyncio.create_task(clock.sleep(1))
    with threads_hold(clock):
        await asyncio.to_thread(time.sleep, 0.1)
        assert not deadline.done()
    await deadline
    deadline = asyncio.create_task(clock.sleep(1))
    await asyncio.to_thread(time.sleep, 0.1)
    assert deadline.done()  # without it, a tenth of a second of work is over a second of the clock
