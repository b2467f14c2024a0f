"""``ns.reruns.run`` as a whole: arguments, events, order, several calls, and what closing and stopping leave."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers import API_KEY, PASSWORD, settle, watch
from rerun_world import LOST, PUBLISHED, REVIEW, World, states, steps

from nudgescribe_async import (
    AuthenticationError,
    CallOptions,
    ClientClosedError,
    ConfigurationError,
    JournalError,
    RerunRequest,
)
from nudgescribe_async.address import normal_address
from nudgescribe_async.endpoints.reruns import HISTORY
from nudgescribe_async.events import RerunProgress, RerunsBegan
from nudgescribe_async.rerun.halt import Halt
from nudgescribe_async.rerun.job import SETTLING
from nudgescribe_async.testing import HANG, SentRequest, VirtualClock, answer

if TYPE_CHECKING:
    from nudgescribe_async import Nudgescribe, RerunReport

SECRETS = (API_KEY, PASSWORD, "access-1", "refresh-1")


def _exists(path: Path) -> bool:
    return path.exists()


async def ended(running: asyncio.Task[Any]) -> None:
    """Not ``asyncio.timeout``: that would cancel it once more, and so end what should have ended by itself."""
    done, _ = await asyncio.wait({running}, timeout=20)
    assert done


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def no_file_or_thread_is_left() -> Iterator[None]:
    def files() -> set[str]:
        found: set[str] = set()
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found.add(str(descriptor.readlink()))
        return {name for name in found if name.endswith((".db", ".db-wal", ".db-shm", ".lock"))}

    yield
    assert not files()
    assert not [thread for thread in threading.enumerate() if "nudgescribe" in thread.name]


# --- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("concurrency", 0, ValueError),
        ("concurrency", -3, ValueError),
        ("concurrency", 2.0, TypeError),
        ("concurrency", "8", TypeError),
        ("concurrency", True, TypeError),
        ("concurrency", None, TypeError),
        ("settle", -1, ValueError),
        ("settle", float("nan"), ValueError),
        ("settle", float("inf"), ValueError),
        ("settle", "10", TypeError),
        ("settle", None, TypeError),
        ("settle", True, TypeError),
        ("grace", -1, ValueError),
        ("grace", "10", TypeError),
        ("grace", None, TypeError),
        ("wait_timeout", 0, ValueError),
        ("wait_timeout", -1, ValueError),
        ("wait_timeout", "60", TypeError),
        ("wait", 1, TypeError),
        ("wait", None, TypeError),
        ("publish", "no", TypeError),
        ("fail_fast", 0, TypeError),
        ("journal", "", ValueError),
        ("journal", "  ", ValueError),
        ("journal", "a\0b", ValueError),
        ("journal", ":memory:", ValueError),
        ("journal", "~nobody-of-that-name/reruns.db", ValueError),
        ("journal", b"reruns.db", TypeError),
        ("journal", 7, TypeError),
        ("download", "", ValueError),
        ("download", True, TypeError),
        ("on_event", "print", TypeError),
        ("stop", True, TypeError),
        ("stop", threading.Event(), TypeError),
        ("options", {"timeout": 3}, TypeError),
        ("plan", None, TypeError),
        ("plan", "c-1", TypeError),
        ("plan", {"c-1": "g-1"}, TypeError),
        ("plan", [("c-1", "g-1")], TypeError),
        ("plan", 7, TypeError),
    ],
)
async def test_an_argument_that_is_wrong_is_named_and_nothing_is_made(
    name: str, value: Any, kind: type[Exception], journal: Path
) -> None:
    world = World()
    arguments: dict[str, Any] = {"plan": world.plan(), "journal": journal} | {name: value}
    async with world.client() as ns:
        with pytest.raises(kind, match=name):
            await ns.reruns.run(arguments.pop("plan"), **arguments)
    assert not world.sent
    assert not _exists(journal)


async def test_a_listener_that_nobody_would_await_is_refused(journal: Path) -> None:
    async def listener(_: RerunProgress, _more: object = None) -> None: ...

    class Listener:
        async def __call__(self, _: RerunProgress) -> None: ...

    world = World()
    async with world.client() as ns:
        for wrong in (listener, functools.partial(listener, _more=1), Listener(), Listener().__call__):
            with pytest.raises(TypeError, match=r"on_event must be a plain function.* async"):
                await ns.reruns.run(world.plan(), journal=journal, on_event=wrong)


async def test_a_plan_may_be_a_generator_and_its_errors_come_out(journal: Path) -> None:
    world = World(2)
    async with world.client() as ns:
        report = await ns.reruns.run((request for request in world.plan()), journal=journal)
        assert report.complete

        def broken() -> Iterator[RerunRequest]:
            yield world.plan()[0]
            raise OSError("the file has gone")

        with pytest.raises(OSError, match="has gone"):
            await ns.reruns.run(broken(), journal=journal)


async def test_an_empty_plan_is_a_slip(journal: Path) -> None:
    """An iterator that is used up, for example: to call that complete would be the wrong answer."""
    world = World()
    used_up = iter(world.plan())
    list(used_up)
    async with world.client() as ns:
        plans: list[Iterable[RerunRequest]] = [[], used_up]
        for plan in plans:
            with pytest.raises(ValueError, match="The plan is empty"):
                await ns.reruns.run(plan, journal=journal)
    assert not world.sent
    assert not _exists(journal)


async def test_left_out_the_journal_is_in_the_folder_of_the_user_and_the_report_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    world = World(2)
    async with world.client() as ns:
        report = await ns.reruns.run(world.plan())
        assert report.journal.is_relative_to(tmp_path)
        assert _exists(report.journal)
        again = await ns.reruns.run(reversed(world.plan()))
    assert again.complete
    assert again.journal == report.journal
    assert (again.sent, world.count("reruns.initiate")) == (0, 2)


async def test_the_journal_that_nobody_named_is_found_however_the_address_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    world = World(2)
    journals: set[Path] = set()
    addresses = ("https://api.example/v1", "https://API.example:443/v1/", "HTTPS://api.example./v1")
    for address in addresses:
        async with world.client(base_url=address) as ns:
            journals.add((await ns.reruns.run(world.plan())).journal)
    assert len(journals) == 1
    assert world.count("reruns.initiate") == 2
    for address in ("https://api.example:444/v1", "https://api.example/v2"):
        async with World(2).client(base_url=address) as ns:
            journals.add((await ns.reruns.run(world.plan())).journal)
    assert len(journals) == 3


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        ("https://a.example", "https://a.example"),
        ("https://A.Example:443/", "https://a.example"),
        ("https://a.example.:8443/v1/", "https://a.example:8443/v1"),
        ("https://a.example/V1", "https://a.example/V1"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://127.0.0.1:443", "http://127.0.0.1:443"),
    ],
)
def test_an_address_in_one_way_of_writing(address: str, normal: str) -> None:
    assert normal_address(address) == normal
    assert normal_address(normal) == normal


async def test_paths_stay_where_they_were_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    world = World()
    world.camps["c-1"].after_run = PUBLISHED
    async with world.client() as ns:
        report = await ns.reruns.run(
            world.plan(), journal="here.db", download="messages", on_event=lambda _: os.chdir(elsewhere)
        )
    (outcome,) = report
    assert report.journal == tmp_path / "here.db"
    assert outcome.directory is not None
    assert outcome.directory.is_relative_to(tmp_path / "messages")
    assert not [*elsewhere.iterdir()]


async def test_options_are_those_of_each_request(journal: Path) -> None:
    world = World()
    async with world.client() as ns:
        await ns.reruns.run(world.plan(), journal=journal, options=CallOptions(headers={"x-mine": "yes"}))
    sent = [sent for sent in world.transport.requests if not sent.operation.startswith("auth.")]
    assert {request.headers.get("x-mine") for request in sent} == {"yes"}


# --- the client --------------------------------------------------------------------------------------------------------


async def test_a_closed_client_makes_nothing(journal: Path) -> None:
    world = World()
    ns = world.client()
    await ns.aclose()
    with pytest.raises(ClientClosedError):
        await ns.reruns.run(world.plan(), journal=journal)
    assert not _exists(journal)


def test_a_client_of_another_event_loop_makes_nothing(journal: Path) -> None:
    world = World()
    ns = world.client()
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        loop.run_until_complete(ns.campaigns.list())
        with pytest.raises(ConfigurationError, match="another event loop"):
            other.run_until_complete(ns.reruns.run(world.plan(), journal=journal))
        loop.run_until_complete(ns.aclose())
    finally:
        loop.close()
        other.close()
    assert not _exists(journal)


# --- events ------------------------------------------------------------------------------------------------------------


async def test_events_tell_the_same_to_all(journal: Path) -> None:
    world = World(4)
    world.say("reruns.initiate", "c-1", world.lost)
    world.say("reruns.initiate", "c-2", answer(400, {"message": "no"}))
    world.camps["c-3"].status = REVIEW
    told: list[RerunProgress] = []
    async with world.client() as ns:
        events = watch(ns)
        await ns.reruns.run(
            [*world.plan(), RerunRequest("", "g-1")], journal=journal, settle=0.01, on_event=told.append
        )
    began = [event for event in events if isinstance(event, RerunsBegan)]
    assert [(event.campaigns, event.settled, event.journal) for event in began] == [(5, 0, str(journal))]
    assert [event for event in events if isinstance(event, RerunProgress)] == told
    mine = {name: [event.step for event in told if event.campaign_id == name] for name in ("c-1", "c-2", "c-3", "c-4")}
    assert mine == {
        "c-1": ["intended", "lost", "adopted", "succeeded"],
        "c-2": ["intended", "denied", "refused", "refused"],
        "c-3": ["refused", "refused"],
        "c-4": ["intended", "started", "succeeded"],
    }
    assert [event.done for event in told if event.final] == [1, 2, 3, 4, 5]
    assert told[-1].done == told[-1].total == 5
    assert all(event.operation == "reruns.run" for event in told)
    assert all(str(event) for event in [*told, *began])


async def test_a_later_call_says_what_was_done_before(journal: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(2)
    async with world.client() as ns:
        await ns.reruns.run(world.plan(), journal=journal)
        events = watch(ns)
        with caplog.at_level(logging.INFO, "nudgescribe_async.rerun"):
            await ns.reruns.run(world.plan(), journal=journal)
    (began,) = (event for event in events if isinstance(event, RerunsBegan))
    assert began.settled == 2
    assert "For a new round, name another journal" in caplog.text


async def test_a_listener_that_fails_harms_nothing(journal: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: RerunProgress) -> None:
        raise RuntimeError("oops")

    world = World(2)
    async with world.client() as ns:
        with caplog.at_level(logging.ERROR, "nudgescribe_async.rerun"):
            report = await ns.reruns.run(world.plan(), journal=journal, on_event=fail)
    assert report.complete
    assert "on_event failed" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at", ["intended", "lost", "adopted", "succeeded", "started"])
async def test_a_listener_that_ends_the_program_ends_it_in_good_order(
    journal: Path, kind: type[BaseException], at: str
) -> None:
    """As a handler of Ctrl+C does that hits while the listener runs."""
    world = World(5)
    world.say("reruns.initiate", "c-1", world.lost)
    told: list[str] = []
    raised = 0

    def listen(event: RerunProgress) -> None:
        nonlocal raised
        told.append(event.step)
        if event.step == at and not raised:
            raised = len(told)
            raise kind

    async with world.client() as ns:
        with pytest.raises(kind):
            await ns.reruns.run(world.plan(), journal=journal, settle=0.05, concurrency=1, on_event=listen)
        assert "intended" not in told[raised:], "nothing new was begun"
        sent = world.count("reruns.initiate")
        assert sent == sum(map(len, map(world.runs, world.camps))) < 5
        assert sent == (0 if at == "intended" else 2 if at == "started" else 1)
        report = await ns.reruns.run(world.plan(), journal=journal, settle=0.05)
    assert report.complete
    assert all(world.runs(name) == [f"g-{name[2:]}"] for name in world.camps)


async def test_the_first_of_several_listeners_words_to_end_the_program_is_raised(journal: Path) -> None:
    codes = iter(range(3, 100))

    def listen(_: RerunProgress) -> None:
        raise SystemExit(next(codes))

    async with World(3).client() as ns:
        with pytest.raises(SystemExit) as caught:
            await ns.reruns.run(World(3).plan(), journal=journal, on_event=listen)
    assert caught.value.code == 3


async def test_a_listener_cancels_nobody(journal: Path, caplog: pytest.LogCaptureFixture) -> None:
    def listen(_: RerunProgress) -> None:
        raise asyncio.CancelledError

    world = World(3)
    async with world.client() as ns:
        with caplog.at_level(logging.ERROR, "nudgescribe_async.rerun"):
            report = await ns.reruns.run(world.plan(), journal=journal, on_event=listen)
    assert report.complete
    assert "on_event failed" in caplog.text


@pytest.mark.parametrize("way", ["stop", "cancel", "fail_fast"])
async def test_those_that_were_not_reached_are_told_of_as_well(journal: Path, way: str) -> None:
    world = World(30)
    world.latency = 0.001
    stop = asyncio.Event()
    told: list[RerunProgress] = []

    def listen(event: RerunProgress) -> None:
        told.append(event)
        if event.step == "started" and way == "cancel":
            running.cancel()
        elif event.step == "started" and way == "stop":
            stop.set()

    if way == "fail_fast":
        world.camps["c-7"].status = REVIEW
    async with world.client() as ns:
        running = asyncio.create_task(
            ns.reruns.run(
                world.plan(), journal=journal, concurrency=1, on_event=listen, stop=stop, fail_fast=way == "fail_fast"
            )
        )
        await ended(running)
        assert running.cancelled() is (way == "cancel")
    ends = [event for event in told if event.final]
    assert sorted(event.campaign_id for event in ends) == sorted(world.camps)
    assert [event.done for event in ends] == list(range(1, 31))
    assert (told[-1].done, told[-1].total) == (30, 30)
    assert "not_started" in {event.step for event in ends}


async def test_no_secret_is_in_anything_that_is_kept_or_told(journal: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(4)
    said = f"{API_KEY} {PASSWORD} access-1 is what you sent"
    world.say("reruns.initiate", "c-1", answer(400, {"message": said}))
    world.say("reruns.initiate", "c-2", LOST)
    world.say("reruns.history", "c-2", None, answer(404, {"message": said}))
    world.say("reruns.messages", "c-3", answer(400, {"message": said}))
    told: list[RerunProgress] = []
    async with world.client() as ns:
        events = watch(ns)
        with caplog.at_level(logging.DEBUG):
            report = await ns.reruns.run(world.plan(), journal=journal, settle=0.01, on_event=told.append)
    assert states(report) == ["refused", "unknown", "not_started", "succeeded"]
    files = await asyncio.to_thread(lambda: [path.read_bytes() for path in journal.parent.iterdir()])
    texts = [
        caplog.text,
        report.to_json(),
        report.as_table(),
        report.as_html(),
        repr(report),
        *map(repr, report),
        *map(repr, [*events, *told]),
        *map(str, [*events, *told]),
        *(content.decode("latin-1") for content in files),
    ]
    for text in texts:
        assert not [secret for secret in SECRETS if secret in text]
    kept = b"".join(files)
    assert b"is what you sent" not in kept, "the service's own words may hold anything"


@pytest.mark.parametrize("silent", [False, True])
async def test_words_of_the_service_are_in_the_report_and_not_in_the_journal(journal: Path, silent: bool) -> None:
    """They may be about a customer."""
    world = World(2)
    world.silent = silent
    world.camps["c-1"].after_run = "Held for Jane Doe, policy 12345"
    page = b"<html><head><title>Dear Jane Doe</title></head><body>policy 12345</body></html>"
    world.say("reruns.initiate", "c-2", world.done_and(answer(200, body=page, headers={"Content-Type": "text/html"})))
    stop = asyncio.Event()
    async with world.client() as ns:
        running = await start(ns, world, journal, wait=True, stop=stop)
        await until(lambda: world.count("reruns.history", "c-1") > 1 and len(world.runs("c-2")))
        await settle()
        stop.set()
        first, second = await running
        kept = await asyncio.to_thread(lambda: b"".join([path.read_bytes() for path in journal.parent.iterdir()]))
        assert b"Jane" not in kept
        assert b"policy" not in kept
        assert first.campaign_status == "Held for Jane Doe, policy 12345"
        assert second.run_number == 2
        again = await ns.reruns.run(world.plan(), journal=journal)
    assert again.outcomes[0].campaign_status == "in another state", (
        "this call has not asked, and the journal knows no more"
    )


# --- the report --------------------------------------------------------------------------------------------------------


async def test_outcomes_are_in_the_order_of_the_plan_whatever_comes_first(journal: Path) -> None:
    world = World(6)

    async def slow(_: SentRequest) -> None:
        await asyncio.sleep(0.05)

    world.say("reruns.initiate", "c-1", slow)
    world.say("reruns.initiate", "c-4", slow)
    plan = [*reversed(world.plan())]
    async with world.client() as ns:
        report = await ns.reruns.run(plan, journal=journal)
        assert [outcome.campaign_id for outcome in report] == [request.campaign_id for request in plan]
        again = await ns.reruns.run(world.plan(), journal=journal)
    assert [outcome.campaign_id for outcome in again] == [request.campaign_id for request in world.plan()]
    assert [outcome.position for outcome in again] == [1, 2, 3, 4, 5, 6]


async def test_a_continued_call_reports_what_earlier_ones_did(journal: Path) -> None:
    world = World(3)
    world.say("reruns.initiate", "c-2", answer(400))
    async with world.client() as ns:
        first = await ns.reruns.run(world.plan(), journal=journal, settle=0.01)
        second = await ns.reruns.run(world.plan(), journal=journal, settle=0.01)
    assert (first.sent, second.sent) == (3, 1)
    assert states(second) == ["succeeded"] * 3
    before, after = first.outcomes[0], second.outcomes[0]
    assert before == after
    assert steps(second.outcomes[1]) == ["intended", "denied", "refused", "intended", "started"]
    assert second.outcomes[1].attempts == 2
    assert json.loads(second.to_json())["complete"] is True
    second.raise_for_failures()


# --- the list of campaigns fails -------------------------------------------------------------------------------------


async def left_unknown(ns: Nudgescribe, world: World, journal: Path) -> None:
    """Of two campaigns one was sent, and nobody knows what became of it; the other was not."""
    world.say("reruns.initiate", "c-1", world.lost)
    world.say("reruns.history", "c-1", None, answer(404))
    world.say("reruns.messages", "c-2", answer(404))
    report = await ns.reruns.run(world.plan(), journal=journal, settle=0.01)
    assert states(report) == ["unknown", "not_started"]


@pytest.mark.parametrize("step", [answer(404), answer(200, [{"workspace_id": 7}])], ids=["404", "odd"])
async def test_without_the_list_what_may_have_had_an_effect_is_looked_for(journal: Path, step: Any) -> None:
    world = World(2)
    async with world.client() as ns:
        await left_unknown(ns, world, journal)
        world.say("campaigns.list", "", step)
        first, second = await ns.reruns.run(world.plan(), journal=journal, settle=0.01)
        assert (first.state, first.adopted) == ("succeeded", True)
        assert second.state == "not_started"
        assert second.error is not None
        assert second.reason.startswith("It could not be checked, so it was not sent")
        assert world.count("reruns.initiate") == 1
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete


async def test_without_the_list_what_has_its_run_is_followed(journal: Path) -> None:
    world = World(2)
    world.say("reruns.messages", "c-2", answer(404))
    async with world.client() as ns:
        assert states(await ns.reruns.run(world.plan(), journal=journal)) == ["succeeded", "not_started"]
        world.say("campaigns.list", "", answer(404))
        report = await ns.reruns.run(world.plan(), journal=journal, publish=True)
        assert states(report) == ["succeeded", "not_started"]
        assert report.outcomes[0].published
        assert world.count("reruns.initiate") == 1


async def test_without_the_list_what_had_no_effect_before_is_not_sent_again_unchecked(journal: Path) -> None:
    world = World(2)
    world.say("reruns.initiate", "c-1", answer(409))
    async with world.client() as ns:
        assert states(await ns.reruns.run(world.plan("c-1"), journal=journal, settle=0)) == ["refused"]
        world.say("campaigns.list", "", answer(404))
        with pytest.raises(Exception, match="404"):  # there is nothing to verify, and nothing to follow
            await ns.reruns.run(world.plan("c-1"), journal=journal, settle=0)
    assert world.count("reruns.initiate") == 1


async def test_without_a_token_there_is_nothing_to_be_done(journal: Path) -> None:
    world = World(2)
    async with world.client() as ns:
        await left_unknown(ns, world, journal)
    world.transport.on("auth.authenticate", answer(403, {"message": "no"}))
    async with world.client() as ns:
        with pytest.raises(AuthenticationError):
            await ns.reruns.run(world.plan(), journal=journal)
    assert world.count("reruns.initiate") == 1


# --- several calls at once ---------------------------------------------------------------------------------------------


async def test_two_calls_with_one_journal_the_second_says_who_holds_it(journal: Path) -> None:
    world = World()
    world.say("campaigns.list", "", HANG)
    async with world.client() as ns:
        first = asyncio.create_task(ns.reruns.run(world.plan(), journal=journal))
        await until(lambda: "campaigns.list" in world.sent)
        with pytest.raises(JournalError, match=f"process {os.getpid()}") as caught:
            await ns.reruns.run(world.plan(), journal=journal)
        assert str(os.getpid()) in caught.value.holder
        first.cancel()
        await asyncio.wait([first])
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete, "the first has let go of it"


async def test_two_calls_of_a_client_never_work_on_the_same_campaign(journal: Path, tmp_path: Path) -> None:
    world = World(3)
    go = asyncio.Event()

    async def wait(_: SentRequest) -> None:
        await go.wait()

    world.say("reruns.initiate", "c-1", wait)
    async with world.client() as ns:
        first = asyncio.create_task(ns.reruns.run(world.plan("c-1", "c-2"), journal=journal))
        await until(lambda: world.count("reruns.initiate", "c-1"))
        second = await ns.reruns.run(world.plan("c-1", "c-3"), journal=tmp_path / "other.db")
        one, three = second
        assert one.state == "not_started"
        assert "Another call of this client" in one.reason
        assert three.state == "succeeded"
        go.set()
        assert (await first).complete
        assert world.runs("c-1") == ["g-1"]
        report = await ns.reruns.run(world.plan("c-2", "c-3"), journal=tmp_path / "third.db")
        assert all("Another call" not in outcome.reason for outcome in report), "they are free again"


async def test_a_call_that_failed_lets_go_of_its_campaigns(journal: Path) -> None:
    world = World()
    world.say("campaigns.list", "", answer(403), answer(403))
    async with world.client() as ns:
        with pytest.raises(Exception, match="403"):
            await ns.reruns.run(world.plan(), journal=journal)
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete


# --- how many at once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_never_more_requests_than_were_allowed(journal: Path, concurrency: int) -> None:
    world = World(20)
    world.latency = 0.002
    for name in ("c-1", "c-5", "c-9"):
        world.say("reruns.initiate", name, LOST)
    world.say("messages.publish", "c-3", world.publish_lost)
    for camp in world.camps.values():
        camp.soon = []
    async with world.client() as ns:
        report = await ns.reruns.run(
            world.plan(), journal=journal, concurrency=concurrency, settle=0.01, wait=True, publish=True
        )
    assert report.complete
    assert world.most == concurrency


@pytest.mark.usefixtures("no_threads")
async def test_who_waits_for_a_late_arrival_holds_no_slot(journal: Path) -> None:
    world = World(SETTLING + 6)
    world.say("reruns.initiate", "c-1", LOST)
    clock = VirtualClock()
    moments: dict[str, float] = {}
    async with world.client(clock=clock) as ns:
        began = clock.now

        def tell(event: RerunProgress) -> None:
            if event.step == "started":
                moments[event.campaign_id] = clock.now - began

        report = await ns.reruns.run(world.plan(), journal=journal, concurrency=1, settle=1000, on_event=tell)
    assert report.complete
    assert moments.pop("c-1") >= 1000
    assert max(moments.values()) < 10


@pytest.mark.usefixtures("no_threads")
async def test_so_many_may_wait_for_late_arrivals_and_no_more(journal: Path) -> None:
    """An outage must not have every campaign of a large plan sent into it."""
    world = World(40)
    for name in world.camps:
        world.say("reruns.initiate", name, *[LOST] * 20)
    clock = VirtualClock()
    stop = asyncio.Event()
    async with world.client(clock=clock) as ns:
        clock.call_later(900, stop.set)
        report = await ns.reruns.run(world.plan(), journal=journal, concurrency=2, settle=1000, stop=stop)
    assert world.count("reruns.initiate") == 2 * SETTLING
    assert states(report).count("unknown") == 2 * SETTLING
    assert states(report).count("not_started") == 40 - 2 * SETTLING


# --- stopping ----------------------------------------------------------------------------------------------------------


async def start(ns: Nudgescribe, world: World, journal: Path, **options: Any) -> asyncio.Task[RerunReport]:
    """A call, some of whose campaigns are in flight."""
    running = asyncio.create_task(ns.reruns.run(world.plan(), journal=journal, **{"settle": 0.05} | options))
    await until(lambda: world.count("reruns.initiate"))
    return running


async def test_stop_ends_it_in_good_order(journal: Path) -> None:
    world = World(5)
    go, stop = asyncio.Event(), asyncio.Event()

    async def wait(_: SentRequest) -> None:
        await go.wait()

    world.say("reruns.initiate", "c-1", wait)
    async with world.client() as ns:
        running = await start(ns, world, journal, concurrency=1, stop=stop)
        stop.set()
        await settle()
        go.set()
        report = await running
        assert states(report) == ["succeeded", *["not_started"] * 4]
        assert report.stopped
        assert all("the caller asked for it" in outcome.reason for outcome in report.not_started)
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete
    assert all(world.runs(name) == [f"g-{name[2:]}"] for name in world.camps)


async def test_a_stop_that_was_asked_for_before_sends_nothing(journal: Path) -> None:
    world = World(5)
    stop = asyncio.Event()
    stop.set()
    async with world.client() as ns:
        report = await ns.reruns.run(world.plan(), journal=journal, stop=stop)
    assert states(report) == ["not_started"] * 5
    assert world.count("reruns.initiate") == 0


def test_an_event_of_another_loop_is_told_and_not_ignored(journal: Path) -> None:
    world = World(5)
    stop = asyncio.Event()

    async def bind() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.001)

    async def main() -> None:
        async with world.client() as ns:
            await ns.reruns.run(world.plan(), journal=journal, stop=stop)

    asyncio.run(bind())
    with pytest.raises(RuntimeError, match="different event loop") as caught:
        asyncio.run(main())
    assert any(str(journal) in note for note in caught.value.__notes__)
    assert world.count("reruns.initiate") == 0


async def test_a_request_that_hangs_is_given_the_grace_when_it_is_stopped_and_no_more(journal: Path) -> None:
    world = World(3)
    stop = asyncio.Event()

    world.say("reruns.initiate", "c-1", world.done_and_silent)
    async with world.client() as ns:
        running = await start(ns, world, journal, concurrency=1, stop=stop, grace=0.05)
        await settle()
        stop.set()
        await ended(running)
        report = await running
        assert states(report) == ["unknown", "not_started", "not_started"]
        assert report.stopped == "The caller asked for it."
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete
    assert all(world.runs(name) == [f"g-{name[2:]}"] for name in world.camps)


async def test_stop_ends_the_waiting_for_late_arrivals(journal: Path) -> None:
    world = World()
    stop = asyncio.Event()
    world.say("reruns.initiate", "c-1", LOST)
    async with world.client() as ns:
        running = await start(ns, world, journal, settle=600, stop=stop, grace=0.1)
        await until(lambda: world.count("reruns.history") == 2)
        stop.set()
        await ended(running)
        (outcome,) = await running
    assert outcome.state == "unknown"
    assert "may have taken effect" in outcome.reason
    assert world.count("reruns.initiate") == 1


async def test_stop_ends_the_waiting_for_the_service(journal: Path) -> None:
    world = World(5)
    stop = asyncio.Event()
    for camp in world.camps.values():
        camp.after_run = "Generating"
    async with world.client() as ns:
        running = await start(ns, world, journal, wait=True, stop=stop)
        await until(lambda: world.count("reruns.initiate") == 5)
        stop.set()
        await ended(running)
        report = await running
    assert states(report) == ["unfinished"] * 5
    assert [outcome.run_number for outcome in report] == [2] * 5


async def test_cancelling_gives_what_is_in_flight_time_to_end(journal: Path) -> None:
    world = World(5)
    go = asyncio.Event()

    async def wait(_: SentRequest) -> None:
        await go.wait()

    world.say("reruns.initiate", "c-1", wait)
    async with world.client() as ns:
        running = await start(ns, world, journal, concurrency=1)
        running.cancel()
        await settle()
        go.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await running
        report = caught.value.report  # type: ignore[attr-defined]
        assert states(report) == ["succeeded", *["not_started"] * 4]
        assert any(str(journal) in note for note in caught.value.__notes__)
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete
    assert all(world.runs(name) == [f"g-{name[2:]}"] for name in world.camps)


@pytest.mark.parametrize("twice", [False, True])
async def test_cancelling_ends_what_does_not_end_by_itself(journal: Path, twice: bool) -> None:
    world = World(3)

    world.say("reruns.initiate", "c-1", world.done_and_silent)
    async with world.client() as ns:
        running = await start(ns, world, journal, concurrency=1, grace=600 if twice else 0.05)
        await settle()
        running.cancel()
        await settle()
        if twice:
            running.cancel()
        await ended(running)
        with pytest.raises(asyncio.CancelledError) as caught:
            await running
        report = caught.value.report  # type: ignore[attr-defined]
        assert states(report) == ["unknown", "not_started", "not_started"]
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete
    assert all(world.runs(name) == [f"g-{name[2:]}"] for name in world.camps)


async def test_an_event_loop_that_ends_every_task_leaves_a_journal_that_goes_on(journal: Path) -> None:
    """As ``asyncio.run`` does when it is over: it cancels all tasks, those of this package too."""
    world = World(3)

    world.say("reruns.initiate", "c-1", world.done_and_silent)
    async with world.client() as ns:
        running = await start(ns, world, journal, concurrency=1, grace=600)
        await settle()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await ended(running)
        with pytest.raises(asyncio.CancelledError) as caught:
            await running
        assert states(caught.value.report) == ["unknown", "not_started", "not_started"]  # type: ignore[attr-defined]
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete
    assert all(world.runs(name) == [f"g-{name[2:]}"] for name in world.camps)


async def test_what_went_wrong_before_is_not_why_it_is_unfinished(journal: Path) -> None:
    world = World()
    world.camps["c-1"].after_run = "Generating"
    world.say("reruns.initiate", "c-1", world.lost)
    async with world.client() as ns:
        running = await start(ns, world, journal, wait=True, grace=0)
        await until(lambda: world.count("reruns.history") == 3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await running
    (outcome,) = caught.value.report  # type: ignore[attr-defined]
    assert (outcome.state, outcome.run_number) == ("unfinished", 2)
    assert outcome.error is None
    assert "connection broke" not in outcome.reason


async def test_cancelling_while_the_campaigns_are_checked_waits_for_nothing(journal: Path) -> None:
    """What only reads need not be waited for: not even one that hangs."""
    world = World(3)
    world.say("reruns.messages", "c-2", HANG)
    async with world.client() as ns:
        running = asyncio.create_task(ns.reruns.run(world.plan(), journal=journal, grace=600))
        await until(lambda: world.count("reruns.messages", "c-2"))
        running.cancel()
        await ended(running)
        with pytest.raises(asyncio.CancelledError) as caught:
            await running
        assert states(caught.value.report) == ["not_started"] * 3  # type: ignore[attr-defined]
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete


async def test_cancelling_before_the_journal_is_open_leaves_it_to_others(journal: Path) -> None:
    world = World()
    async with world.client() as ns:
        running = asyncio.create_task(ns.reruns.run(world.plan(), journal=journal))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert world.count("reruns.initiate") == 0
        assert (await ns.reruns.run(world.plan(), journal=journal)).complete


async def test_closing_the_client_ends_what_is_in_flight_and_returns_the_report(journal: Path) -> None:
    world = World(5)
    go = asyncio.Event()

    async def lost_late(sent: SentRequest) -> Any:
        await go.wait()
        return world.lost(sent)

    world.say("reruns.initiate", "c-1", lost_late)
    ns = world.client()
    running = await start(ns, world, journal, concurrency=1)
    await settle()
    closing = asyncio.create_task(ns.aclose())
    await settle()
    go.set()
    report = await running
    await closing
    assert states(report) == ["succeeded", *["not_started"] * 4]
    assert report.outcomes[0].adopted, (
        "the look after the request is part of it, and may be made while the client closes"
    )
    assert "closed" in report.stopped
    assert world.count("reruns.initiate") == 1


async def test_closing_without_grace_leaves_it_unknown_and_the_next_client_finds_it(journal: Path) -> None:
    world = World(2)

    world.say("reruns.initiate", "c-1", world.done_and_silent)
    ns = world.client()
    running = await start(ns, world, journal, concurrency=1)
    await settle()
    await ns.aclose(grace=0)
    report = await running
    assert states(report) == ["unknown", "not_started"]
    async with world.client() as other:
        assert (await other.reruns.run(world.plan(), journal=journal)).complete
    assert world.runs("c-1") == ["g-1"]


async def test_closing_while_the_campaigns_are_checked_sends_nothing(journal: Path) -> None:
    world = World(5)
    go = asyncio.Event()

    async def wait(_: SentRequest) -> None:
        await go.wait()

    world.say("reruns.messages", "c-1", wait)
    ns = world.client()
    running = asyncio.create_task(ns.reruns.run(world.plan(), journal=journal, concurrency=1))
    await until(lambda: world.count("reruns.messages"))
    closing = asyncio.create_task(ns.aclose())
    await settle()
    go.set()
    report = await running
    await closing
    assert states(report) == ["not_started"] * 5
    assert world.count("reruns.initiate") == 0


# --- what the session has for it ---------------------------------------------------------------------------------------


async def test_calls_that_belong_together_are_not_torn_apart_by_closing() -> None:
    world = World()
    go = asyncio.Event()
    ns = world.client()
    session = ns.reruns._session
    told: list[str] = []
    session.when_closing(lambda: told.append("first"))
    forget = session.when_closing(lambda: told.append("second"))
    forget()

    async def work() -> int:
        await go.wait()
        history = await session.call(HISTORY, {"campaign_id": "c-1"}, closing=True)
        with pytest.raises(ClientClosedError):
            await session.call(HISTORY, {"campaign_id": "c-1"})
        return len(history)

    running = asyncio.create_task(session.together(work(), "reruns.run"))
    await settle()
    closing = asyncio.create_task(ns.aclose())
    await settle()
    assert told == ["first"]
    assert not closing.done()
    go.set()
    assert await running == 1
    await closing
    with pytest.raises(ClientClosedError):
        await session.together(work(), "reruns.run")


async def test_what_belongs_together_is_ended_when_the_grace_is_over() -> None:
    ns = World().client()
    session = ns.reruns._session

    async def work() -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(session.together(work(), "reruns.run"))
    await settle()
    await ns.aclose(grace=0)
    with pytest.raises(ClientClosedError, match="under way") as caught:
        await running
    assert caught.value.operation == "reruns.run"


async def test_a_halt_tells_each_once_and_keeps_the_first_reason() -> None:
    halt = Halt(VirtualClock())
    told: list[int] = []
    halt.then(lambda: told.append(1))
    forget = halt.then(lambda: told.append(2))
    forget()
    forget()
    assert not halt
    assert await halt.pause(5), "it has waited to the end"
    waiting = asyncio.create_task(halt.pause(1e9))
    await asyncio.sleep(0)
    halt.now("one")
    halt.now("two")
    assert not await waiting
    assert not await halt.pause(1e9)
    halt.then(lambda: told.append(3))
    assert (halt.why, told) == ("one", [1, 3])
