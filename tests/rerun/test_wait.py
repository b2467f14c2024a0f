"""``ns.reruns.wait``: one run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from helpers import settle
from rerun_world import PUBLISHABLE, PUBLISHED, REVIEW, World

from nudgescribe_async import (
    CallOptions,
    ClientClosedError,
    ConfigurationError,
    DeadlineExceededError,
    NotFoundError,
    RerunError,
)
from nudgescribe_async.testing import HANG, VirtualClock, answer


def world_at(status: str) -> World:
    world = World()
    world.camps["c-1"].run("g-1", status)
    return world


@pytest.mark.parametrize("status", [REVIEW, PUBLISHABLE, PUBLISHED, "ready to publish"])
async def test_a_run_that_is_ready(status: str) -> None:
    world = world_at("Generating")
    world.camps["c-1"].soon = ["Generating", "Generating", status]
    async with world.client(clock=VirtualClock()) as ns:
        record = await ns.reruns.wait("c-1", 2)
    assert (record.run_number, str(record.campaign_status).casefold()) == (2, status.casefold())
    assert world.sent == ["reruns.history"] * 3


async def test_the_first_run_of_a_campaign() -> None:
    async with World().client(clock=VirtualClock()) as ns:
        assert (await ns.reruns.wait("c-1", 1)).campaign_status == PUBLISHED


async def test_a_service_that_fails_in_its_work() -> None:
    world = world_at("Generation failed")
    async with world.client(clock=VirtualClock()) as ns:
        with pytest.raises(RerunError, match="'Generation failed'") as caught:
            await ns.reruns.wait("c-1", 2)
    assert caught.value.operation == "reruns.wait"
    assert caught.value.advice


async def test_a_deadline() -> None:
    world = world_at("Generating")
    clock = VirtualClock()
    began = clock.now
    async with world.client(clock=clock) as ns:
        with pytest.raises(DeadlineExceededError, match=r"within 30 s.*'Generating'") as caught:
            await ns.reruns.wait("c-1", 2, timeout=30)
    assert clock.now - began == pytest.approx(30)
    assert caught.value.operation == "reruns.wait"
    assert caught.value.phase
    assert not caught.value.may_have_taken_effect


async def test_a_deadline_ends_a_look_that_hangs() -> None:
    world = world_at(REVIEW)
    world.say("reruns.history", "c-1", HANG)
    async with world.client(clock=VirtualClock()) as ns:
        with pytest.raises(DeadlineExceededError):
            await ns.reruns.wait("c-1", 2, timeout=30)


async def test_a_run_that_is_not_there() -> None:
    async with world_at(REVIEW).client(clock=VirtualClock()) as ns:
        with pytest.raises(RerunError, match="no run 7; the newest is 2") as caught:
            await ns.reruns.wait("c-1", 7)
    assert "reruns.history" in caught.value.advice


async def test_a_campaign_that_is_not_there() -> None:
    world = World()
    world.transport.on("reruns.history", answer(404, {"message": "no such campaign"}))
    async with world.client(clock=VirtualClock()) as ns:
        with pytest.raises(NotFoundError):
            await ns.reruns.wait("c-x", 2)


async def test_a_defect_comes_out_as_it_is() -> None:
    world = world_at(REVIEW)
    world.say("reruns.history", "c-1", ZeroDivisionError("oops"))
    async with world.client(clock=VirtualClock()) as ns:
        with pytest.raises(ZeroDivisionError):
            await ns.reruns.wait("c-1", 2)


@pytest.mark.parametrize("hangs", [False, True], ids=["between looks", "in a look"])
async def test_closing_the_client_ends_it(hangs: bool) -> None:
    world = world_at("Generating")
    if hangs:
        world.say("reruns.history", "c-1", HANG)
    ns = world.client()
    waiting = asyncio.create_task(ns.reruns.wait("c-1", 2))
    while "reruns.history" not in world.sent:
        await asyncio.sleep(0)
    await settle()
    async with asyncio.timeout(5):
        await ns.aclose()
    with pytest.raises(ClientClosedError) as caught:
        await waiting
    assert caught.value.operation == "reruns.wait"


async def test_a_closed_client() -> None:
    ns = World().client()
    await ns.aclose()
    with pytest.raises(ClientClosedError):
        await ns.reruns.wait("c-1", 2)


async def test_cancelling_it_leaves_nothing_behind() -> None:
    world = world_at("Generating")
    async with world.client() as ns:
        waiting = asyncio.create_task(ns.reruns.wait("c-1", 2))
        while "reruns.history" not in world.sent:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await ns.reruns.wait("c-1", 1)).run_number == 1
    assert world.closed == 1


async def test_several_at_once() -> None:
    world = World(3)
    for camp in world.camps.values():
        camp.run("g-1", "Generating")
        camp.soon = ["Generating", REVIEW]
    async with world.client(clock=VirtualClock()) as ns:
        records = await asyncio.gather(*(ns.reruns.wait(name, 2) for name in world.camps))
    assert [record.campaign_status for record in records] == [REVIEW] * 3


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "named"),
    [
        (("c-1", 0), {}, ValueError, "run_number"),
        (("c-1", -1), {}, ValueError, "run_number"),
        (("c-1", "2"), {}, TypeError, "run_number"),
        (("c-1", 2.0), {}, TypeError, "run_number"),
        (("c-1", True), {}, TypeError, "run_number"),
        ((None, 2), {}, TypeError, "campaign_id"),
        ((7, 2), {}, TypeError, "campaign_id"),
        (("c-1", 2), {"timeout": 0}, ValueError, "timeout"),
        (("c-1", 2), {"timeout": -1}, ValueError, "timeout"),
        (("c-1", 2), {"timeout": float("nan")}, ValueError, "timeout"),
        (("c-1", 2), {"timeout": float("inf")}, ValueError, "timeout"),
        (("c-1", 2), {"timeout": "5"}, TypeError, "timeout"),
        (("c-1", 2), {"options": {"timeout": 5}}, TypeError, "options"),
    ],
)
async def test_arguments_that_are_wrong(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception], named: str
) -> None:
    world = World()
    async with world.client() as ns:
        with pytest.raises(kind, match=named):
            await ns.reruns.wait(*arguments, **options)
    assert not world.sent


async def test_options_are_those_of_each_request() -> None:
    world = world_at(REVIEW)
    async with world.client(clock=VirtualClock()) as ns:
        await ns.reruns.wait("c-1", 2, options=CallOptions(headers={"x-mine": "yes"}))
    assert [sent.headers.get("x-mine") for sent in world.transport.requests if sent.operation == "reruns.history"] == [
        "yes"
    ]


def test_another_event_loop_is_refused() -> None:
    world = world_at(REVIEW)
    ns = world.client()
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(ns.reruns.wait("c-1", 2))
        other = asyncio.new_event_loop()
        try:
            with pytest.raises(ConfigurationError, match="another event loop"):
                other.run_until_complete(ns.reruns.wait("c-1", 2))
        finally:
            other.close()
        loop.run_until_complete(ns.aclose())
    finally:
        loop.close()
