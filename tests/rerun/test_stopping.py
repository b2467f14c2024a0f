"""``reruns.run`` is stopped in every way there is, against a sandbox on real sockets; and one journal, two processes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

from nudgescribe_async import (
    JournalError,
    Nudgescribe,
    NudgescribeError,
    RerunPlan,
    RerunReport,
    RerunRequest,
    RetryPolicy,
)
from nudgescribe_async.events import RerunProgress, RerunsBegan
from nudgescribe_async.rerun.journal import Journal
from nudgescribe_async.sandbox import Delay, LoseAnswer, LoseRequest, Sandbox, SandboxFault, Status

QUICK = RetryPolicy(attempts=10, base=0.005, longest=0.05)
CAMPAIGNS = 24
THIRD = CAMPAIGNS // 3
AT_ONCE = 3
ROUNDS = 25
GRACE = 20.0
"""Seconds; what ends after much less has not used it up."""
PROMPT = GRACE / 2
RUN_EXISTS = {"started", "ready", "publishing", "published", "downloaded", "failed"}
DEBUG = {"PYTHONASYNCIODEBUG", "PYTHONDEVMODE"}


# --- the world -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_is_left_open(tmp_path: Path) -> Iterator[None]:
    """No file of a test, and no thread but those that the event loop keeps for the next work."""
    before = set(threading.enumerate())
    yield
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert [link for link in links if link.startswith(str(tmp_path))] == []
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()]
    assert [name for name in left if not name.startswith("asyncio_")] == []


class World:
    """A sandbox with campaigns, all of which somebody publishes the moment that they have a new run.

    So nothing but the orchestrator keeps a campaign from being run twice.
    """

    def __init__(self, sandbox: Sandbox, journal: Path) -> None:
        self.sandbox = sandbox
        self.journal = journal
        self.plan = RerunPlan([])

    async def fill(self, count: int = CAMPAIGNS, *, published_at_once: bool = True) -> None:
        sandbox = self.sandbox
        await sandbox.create_profile_field("external_id", "string", is_required=True)
        before, *wanted = [
            await sandbox.create_customer_group(name, customers=[{"external_id": name}])
            for name in ("before", "A", "B")
        ]
        campaigns = [await sandbox.create_campaign(f"Campaign {number}", before) for number in range(count)]
        self.plan = RerunPlan(
            RerunRequest(campaign, wanted[number % len(wanted)]) for number, campaign in enumerate(campaigns)
        )
        if published_at_once:
            await sandbox._write(publish_at_once)

    def client(self) -> Nudgescribe:
        return Nudgescribe(self.sandbox.credentials, base_url=self.sandbox.url, retry=QUICK)

    async def run(self, ns: Nudgescribe, **options: Any) -> RerunReport:
        defaults: dict[str, Any] = {
            "journal": self.journal,
            "concurrency": AT_ONCE,
            "settle": 0.3,
            "grace": GRACE,
        }
        return await ns.reruns.run(self.plan, **defaults | options)

    async def made(self) -> Counter[tuple[str, str]]:
        """The campaign and the group of each new run, as the sandbox has them, also of requests that it still sits on."""
        query = "SELECT campaign_id, customer_group_id FROM runs WHERE run_number > 1"
        rows = await self.sandbox._write(lambda database: database.all(query))
        return Counter((row["campaign_id"], row["customer_group_id"]) for row in rows)

    @property
    def requests(self) -> int:
        """To run a campaign, whatever became of them, as far as the sandbox has done with them."""
        return self.sandbox.count("reruns.initiate") + self.sandbox.count("reruns.initiate", 0)

    def states(self) -> dict[str, str]:
        with closing(sqlite3.connect(self.journal)) as database:
            return dict(database.execute("SELECT campaign_id, state FROM items").fetchall())

    def attempts(self) -> int:
        """Requests to run a campaign that are written down."""
        if not self.journal.exists():
            return 0
        with closing(sqlite3.connect(self.journal)) as database:
            return int(database.execute("SELECT sum(attempts) FROM items").fetchone()[0])

    async def account(self, report: RerunReport | Mapping[str, Any]) -> Counter[str]:
        """What the report says, the journal says as well, and the sandbox bears out; how many are in each state."""
        told = report.as_dict() if isinstance(report, RerunReport) else report
        outcomes = {outcome["campaign_id"]: outcome for outcome in told["outcomes"]}
        assert list(outcomes) == [request.campaign_id for request in self.plan]
        assert len(told["outcomes"]) == len(self.plan)
        runs = await self.made()
        assert set(runs.values()) <= {1}
        made = {campaign for campaign, _ in runs}
        states = self.states()
        for campaign, outcome in outcomes.items():
            match outcome["state"]:
                case "succeeded" | "unfinished":
                    assert campaign in made
                    assert outcome["run_number"] == 2
                    assert states[campaign] in RUN_EXISTS
                case "unknown":
                    assert states[campaign] == "intended"
                case "not_started":
                    assert campaign not in made
                    assert states[campaign] == "planned"
                case other:
                    pytest.fail(f"{other}: {outcome['reason']}")
            assert bool(outcome["reason"]) == (outcome["state"] != "succeeded")
        return Counter(outcome["state"] for outcome in outcomes.values())

    async def the_same_call_again(self, **options: Any) -> RerunReport:
        """With another client, and nothing in the way: all is done, and nothing twice."""
        self.sandbox.clear_faults()
        async with self.client() as ns:
            report = await self.run(ns, **options)
        assert report.complete, report.as_table()
        await self.account(report)
        assert await self.made() == Counter(
            (request.campaign_id, request.new_customer_group_id) for request in self.plan
        )
        assert self.sandbox.effects["reruns.initiate"] == len(self.plan)
        return report


def publish_at_once(database: Any) -> None:
    """What the sandbox keeps people from doing, it does not keep its database from."""
    database.run(
        """CREATE TRIGGER published_at_once AFTER UPDATE OF campaign_status ON campaigns
        WHEN NEW.campaign_status != 'Published' BEGIN
            UPDATE campaigns SET campaign_status = 'Published' WHERE campaign_id = NEW.campaign_id;
        END"""
    )
    database.run(
        """CREATE TRIGGER messages_at_once AFTER INSERT ON messages
        BEGIN UPDATE messages SET review_status = 'Published' WHERE message_id = NEW.message_id; END"""
    )


@pytest.fixture
async def world(sandbox: Sandbox, tmp_path: Path) -> World:
    made = World(sandbox, tmp_path / "reruns.db")
    await made.fill()
    return made


class After:
    """An ``on_event`` that does something once, when so many steps of some kinds have been told."""

    def __init__(self, count: int, act: Callable[[], object], *steps: str) -> None:
        self.seen = 0
        self._count, self._act, self._steps = count, act, steps or ("started", "adopted")

    def __call__(self, event: RerunProgress) -> None:
        self.seen += event.step in self._steps
        if event.step in self._steps and self.seen == self._count:
            self._act()


async def until(told: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not told():
            await asyncio.sleep(0.005)


async def cancelled_report(task: asyncio.Task[RerunReport]) -> RerunReport:
    """That of the error which a cancelled call ends with."""
    async with asyncio.timeout(GRACE * 2):
        await asyncio.wait({task})
    assert task.cancelled()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    report: RerunReport = caught.value.report  # type: ignore[attr-defined]
    assert any("The same call goes on" in note for note in caught.value.__notes__)
    return report


async def promptly(task: asyncio.Task[Any]) -> None:
    """It ends long before the grace is over."""
    async with asyncio.timeout(PROMPT):
        await asyncio.wait({task})


# --- after a third ---------------------------------------------------------------------------------------------------


Act = Callable[["asyncio.Task[RerunReport]"], object]


def at_third(world: World, ns: Nudgescribe, act: Act, **options: Any) -> asyncio.Task[RerunReport]:
    """A call to which something is done after a third of the plan, with some requests in flight."""
    world.sandbox.inject(Delay(0.03), operation="reruns.initiate", times=None)
    task = asyncio.create_task(world.run(ns, on_event=After(THIRD, lambda: act(task)), **options))
    return task


async def begun(world: World, ns: Nudgescribe, act: Act, **options: Any) -> asyncio.Task[RerunReport]:
    """The same, once it has ended."""
    task = at_third(world, ns, act, **options)
    await promptly(task)
    return task


async def check_third(world: World, report: RerunReport, *, unknown: int = 0) -> None:
    counts = await world.account(report)
    assert THIRD <= counts["succeeded"] < THIRD + AT_ONCE
    assert counts["unknown"] <= unknown
    assert counts["not_started"] >= CAMPAIGNS - THIRD - AT_ONCE - unknown
    # What was in flight has ended or was verified, and nothing new was sent.
    assert counts["succeeded"] == sum((await world.made()).values())
    assert world.requests < THIRD + AT_ONCE + unknown
    assert report.sent == world.requests


@pytest.fixture(params=["all is well", "answers are lost"])
def some_answers_are_lost(request: pytest.FixtureRequest, sandbox: Sandbox) -> None:
    if request.param == "answers are lost":
        sandbox.inject(LoseAnswer(), operation="reruns.initiate", times=None, share=0.5)


@pytest.mark.usefixtures("some_answers_are_lost")
async def test_cancelling_after_a_third(world: World) -> None:
    async with world.client() as ns:
        task = await begun(world, ns, asyncio.Task.cancel)
        report = await cancelled_report(task)
        assert report.stopped == "It was cancelled."
        await check_third(world, report)
        assert not ns._session._active
    await world.the_same_call_again()


@pytest.mark.usefixtures("some_answers_are_lost")
async def test_an_event_that_stops_it_after_a_third(world: World) -> None:
    stop = asyncio.Event()
    async with world.client() as ns:
        task = await begun(world, ns, lambda _: stop.set(), stop=stop)
        report = await task
        assert report.stopped == "The caller asked for it."
        await check_third(world, report)
        assert await ns.campaigns.list()  # the client is as good as before
    await world.the_same_call_again()


@pytest.mark.usefixtures("some_answers_are_lost")
async def test_closing_the_client_after_a_third(world: World) -> None:
    ns = world.client()
    closing_it: list[asyncio.Task[None]] = []

    def close(_: object) -> None:
        closing_it.append(asyncio.create_task(ns.aclose(grace=GRACE)))

    task = await begun(world, ns, close)
    report = await task
    await promptly(closing_it[0])
    assert report.stopped == "The client was closed."
    await check_third(world, report)
    await world.the_same_call_again()


async def test_an_event_that_is_set_before_it_begins_sends_nothing(world: World) -> None:
    stop = asyncio.Event()
    stop.set()
    async with world.client() as ns:
        report = await world.run(ns, stop=stop)
    assert await world.account(report) == {"not_started": CAMPAIGNS}
    assert world.requests == 0
    await world.the_same_call_again()


async def test_what_is_lost_when_it_is_cancelled_is_unknown_and_no_more_than_that(world: World) -> None:
    world.sandbox.inject(LoseRequest(), operation="reruns.initiate", times=None, share=0.3)
    async with world.client() as ns:
        # Those that wait for late arrivals hold no slot, so there may be more of them than are at work at once.
        task = await begun(world, ns, asyncio.Task.cancel, settle=60, grace=0.5)
        report = await cancelled_report(task)
    counts = await world.account(report)
    assert counts["succeeded"] == sum((await world.made()).values())
    assert counts["unknown"] == world.requests - counts["succeeded"]
    assert counts["not_started"] > 0
    await world.the_same_call_again()


# --- with less time --------------------------------------------------------------------------------------------------


async def in_flight(world: World, ns: Nudgescribe, fault: Delay, **options: Any) -> asyncio.Task[RerunReport]:
    """A call with as many requests in flight as may be, which will not be answered for long."""
    world.sandbox.inject(fault, operation="reruns.initiate", times=None)
    intended = asyncio.Event()
    task = asyncio.create_task(world.run(ns, on_event=After(AT_ONCE, intended.set, "intended"), **options))
    await intended.wait()
    return task


async def test_cancelling_twice_does_not_wait(world: World) -> None:
    async with world.client() as ns:
        task = await in_flight(world, ns, Delay(3 * GRACE))
        await until(lambda: world.sandbox.effects["reruns.initiate"] == AT_ONCE)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done(), "the grace is worth nothing"
        task.cancel()
        await promptly(task)
        report = await cancelled_report(task)
        states = {outcome.state for outcome in report.outcomes[:AT_ONCE]}
        assert states == {"unknown"}
        assert [outcome.state for outcome in report.outcomes[AT_ONCE:]] == ["not_started"] * (CAMPAIGNS - AT_ONCE)
        assert all("what became of it is not known" in outcome.reason for outcome in report.unknown)
    again = await world.the_same_call_again()
    assert [outcome.adopted for outcome in again.outcomes] == [True] * AT_ONCE + [False] * (CAMPAIGNS - AT_ONCE)


@pytest.mark.parametrize("late", [Delay(3 * GRACE), Delay(0.2, before_work=True)], ids=["after", "before the work"])
async def test_no_grace_at_all(world: World, late: Delay) -> None:
    async with world.client() as ns:
        task = await in_flight(world, ns, late, grace=0)
        if not late.before_work:
            await until(lambda: world.sandbox.effects["reruns.initiate"] == AT_ONCE)
        task.cancel()
        await promptly(task)
        report = await cancelled_report(task)
        assert await world.account(report) == {"unknown": AT_ONCE, "not_started": CAMPAIGNS - AT_ONCE}
    # Longer than the service sits on a request, as the documentation asks for.
    await world.the_same_call_again(settle=1.0)


async def test_a_grace_that_runs_out(world: World) -> None:
    async with world.client() as ns:
        task = await in_flight(world, ns, Delay(3 * GRACE), grace=0.1)
        await until(lambda: world.sandbox.effects["reruns.initiate"] == AT_ONCE)
        task.cancel()
        await promptly(task)
        report = await cancelled_report(task)
        assert {outcome.state for outcome in report.outcomes[:AT_ONCE]} == {"unknown"}
    await world.the_same_call_again()


async def test_closing_the_client_without_grace(world: World) -> None:
    ns = world.client()
    task = await in_flight(world, ns, Delay(3 * GRACE))
    await until(lambda: world.sandbox.effects["reruns.initiate"] == AT_ONCE)
    await ns.aclose(grace=0)
    await promptly(task)
    report = await task
    assert report.stopped == "The client was closed."
    assert {outcome.state for outcome in report.outcomes[:AT_ONCE]} == {"unknown"}
    assert len(report.not_started) == CAMPAIGNS - AT_ONCE
    await world.the_same_call_again()


# --- at any moment -------------------------------------------------------------------------------------------------


async def stop_it(
    way: str, task: asyncio.Task[RerunReport], stop: asyncio.Event, ns: Nudgescribe, pause: float
) -> None:
    match way:
        case "cancel":
            task.cancel()
        case "cancel twice":
            task.cancel()
            await asyncio.sleep(pause)
            task.cancel()
        case "stop":
            stop.set()
        case "aclose":
            await ns.aclose(grace=GRACE)
        case _:
            await ns.aclose(grace=0)


@pytest.mark.slow
async def test_stopped_again_and_again_at_any_moment(world: World) -> None:
    """Each call is stopped in another way, after so many requests; what each says of every campaign holds."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    faults: dict[SandboxFault, float] = {LoseAnswer(): 0.3, LoseRequest(): 0.2, Status(503, after_work=True): 0.1}
    for fault, share in faults.items():
        world.sandbox.inject(fault, times=None, share=share)
    world.sandbox.inject(Delay(0.02), times=None, share=0.3)
    for _ in range(ROUNDS):
        way = chance.choice(("cancel", "cancel", "cancel twice", "stop", "aclose", "aclose at once"))
        stop, ns, attempts = asyncio.Event(), world.client(), world.attempts()
        task = asyncio.create_task(world.run(ns, stop=stop))
        target = len(world.sandbox.log) + chance.randrange(60)
        while not task.done() and len(world.sandbox.log) < target:
            await asyncio.sleep(0.002)
        await asyncio.sleep(chance.choice((0.0, chance.uniform(0, 0.01), chance.uniform(0, 0.15))))
        stopped = not task.done()
        if stopped:
            await stop_it(way, task, stop, ns, chance.choice((0.0, 0.001, 0.01)))
        await promptly(task)
        await ns.aclose()
        note = f"seed {seed}, {way}"
        try:
            report = await task
            assert not stopped or not way.startswith("cancel"), note
        except asyncio.CancelledError as cancelled:
            assert way.startswith("cancel"), note
            if not hasattr(cancelled, "report"):  # it had not even begun
                assert world.attempts() == attempts, note
                continue
            report = cancelled.report
        except NudgescribeError as failed:  # with so much going wrong, not even the campaigns may be had
            note = f"{note}: {failed}"
            assert world.attempts() == attempts, note
            continue
        counts = await world.account(report)
        assert counts.total() == CAMPAIGNS, note
        if counts["succeeded"] == CAMPAIGNS:
            break
    await world.the_same_call_again()


@pytest.mark.parametrize("when", ["steps", "close"])
@pytest.mark.parametrize("before", ["nothing", "a cancellation"])
async def test_cancelled_when_all_is_done_but_the_report(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str, before: str
) -> None:
    begun_with_it, go_on = threading.Event(), threading.Event()
    honest = getattr(Journal, when)

    def slow(journal: Journal) -> object:
        begun_with_it.set()
        go_on.wait(PROMPT)
        return honest(journal)

    monkeypatch.setattr(Journal, when, slow)
    async with world.client() as ns:
        task = at_third(world, ns, asyncio.Task.cancel if before == "a cancellation" else lambda _: None)
        await until(begun_with_it.is_set)
        task.cancel()
        await asyncio.sleep(0.01)
        go_on.set()
        report = await cancelled_report(task)
    counts = await world.account(report)
    assert counts["succeeded"] == sum((await world.made()).values())
    monkeypatch.undo()
    await world.the_same_call_again()


# --- while it waits --------------------------------------------------------------------------------------------------


async def stopped(
    way: str, task: asyncio.Task[RerunReport], stop: asyncio.Event, ns: Nudgescribe, *, grace: float
) -> RerunReport:
    """Stop a call in one of three ways; it ends promptly, and gives its report."""
    match way:
        case "cancel":
            task.cancel()
        case "stop":
            stop.set()
        case _:
            await ns.aclose(grace=grace)
    await promptly(task)
    return await (cancelled_report(task) if way == "cancel" else task)


@pytest.mark.parametrize("way", ["cancel", "stop", "aclose"])
async def test_stopping_while_late_arrivals_are_waited_for(world: World, way: str) -> None:
    world.sandbox.inject(LoseRequest(), operation="reruns.initiate", times=None)
    stop, lost = asyncio.Event(), asyncio.Event()
    ns = world.client()
    # It is looked for as long as there is time.
    task = asyncio.create_task(world.run(ns, settle=1_000, stop=stop, grace=0.7, on_event=After(5, lost.set, "lost")))
    await lost.wait()
    report = await stopped(way, task, stop, ns, grace=0.7)
    await ns.aclose()
    counts = await world.account(report)
    assert counts["unknown"] == world.requests >= 5
    assert counts["succeeded"] == 0
    words = "The client was closed" if way == "aclose" else "may have taken effect"
    assert all(words in outcome.reason for outcome in report.unknown)
    again = await world.the_same_call_again()
    assert sum(outcome.attempts for outcome in again.outcomes) == world.requests


@pytest.mark.parametrize("way", ["cancel", "stop", "aclose"])
async def test_stopping_while_the_service_is_at_work(tmp_path: Path, way: str) -> None:
    async with Sandbox(job_time=1_000, state_while_running="Generating") as sandbox:
        world = World(sandbox, tmp_path / "reruns.db")
        await world.fill(9, published_at_once=False)
        stop, started = asyncio.Event(), asyncio.Event()
        ns = world.client()
        task = asyncio.create_task(world.run(ns, wait=True, stop=stop, on_event=After(9, started.set)))
        await started.wait()
        looks = sandbox.count("campaigns.list")
        await until(lambda: sandbox.count("campaigns.list") > looks)  # it does wait, and looks
        report = await stopped(way, task, stop, ns, grace=GRACE)
        await ns.aclose()
        assert await world.account(report) == {"unfinished": 9}
        assert [outcome.campaign_status for outcome in report] == ["Generating"] * 9
        assert "before the run was ready" in report.outcomes[0].reason
        await sandbox.drain(hurry=True)
        again = await world.the_same_call_again(wait=True)
        assert again.sent == 0
        assert world.requests == 9
        assert {outcome.campaign_status for outcome in again} == {"Ready to publish"}


# --- signals ---------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, json, signal, sys
from nudgescribe_async import Nudgescribe, RerunPlan, RerunRequest, RetryPolicy

seen = 0


def on_event(event):
    global seen
    seen += event.step in {"started", "adopted"}
    if event.step in {"started", "adopted"} and seen == TELL_AT:
        print("reached", flush=True)


async def main():
    stop = None
    if OBEYS:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    plan = RerunPlan([RerunRequest(*pair) for pair in PLAN])
    async with Nudgescribe.from_env(retry=RetryPolicy(attempts=10, base=0.005, longest=0.05)) as ns:
        try:
            report = await ns.reruns.run(plan, journal=sys.argv[1], on_event=on_event, stop=stop, **OPTIONS)
        except asyncio.CancelledError as error:
            print(error.report.to_json(indent=None), flush=True)
            raise
        print(report.to_json(indent=None), flush=True)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left


asyncio.run(main())
"""


class Program:
    """A process that runs the plan, and says when it has come as far as is of interest."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def of(cls, world: World, *, tell_at: int = THIRD, obeys: bool = False, **options: Any) -> Program:
        pairs = [(request.campaign_id, request.new_customer_group_id) for request in world.plan]
        given = {"concurrency": AT_ONCE, "settle": 0.3, "grace": GRACE} | options
        constants = {"PLAN": pairs, "OPTIONS": given, "TELL_AT": tell_at, "OBEYS": obeys}
        program = "".join(f"{name} = {value!r}\n" for name, value in constants.items()) + PROGRAM
        credentials = world.sandbox.credentials
        environment = {name: value for name, value in os.environ.items() if name not in DEBUG} | {
            "NUDGESCRIBE_API_KEY": credentials.api_key,
            "NUDGESCRIBE_EMAIL": credentials.email,
            "NUDGESCRIBE_PASSWORD": credentials.password,
            "NUDGESCRIBE_BASE_URL": world.sandbox.url,
        }
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "error", "-c", program, str(world.journal)),
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=2**24,
            )
        )

    async def __aenter__(self) -> Self:
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        if line != b"reached\n":
            _, errors = await self._process.communicate()
            pytest.fail(errors.decode())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    def send(self, which: signal.Signals) -> None:
        self._process.send_signal(which)

    async def end(self) -> tuple[int, str, dict[str, Any] | None]:
        """How it ended, what it complained of, and its report."""
        async with asyncio.timeout(60):
            output, errors = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, errors.decode(), json.loads(output) if output else None


@pytest.mark.slow
@pytest.mark.usefixtures("some_answers_are_lost")
async def test_sigterm_with_a_handler_that_stops_it(world: World) -> None:
    world.sandbox.inject(Delay(0.03), operation="reruns.initiate", times=None)
    async with await Program.of(world, obeys=True) as program:
        program.send(signal.SIGTERM)
        code, errors, report = await program.end()
    assert (code, errors) == (0, "")
    assert report is not None
    assert report["stopped"] == "The caller asked for it."
    counts = await world.account(report)
    assert counts["succeeded"] == sum((await world.made()).values()) == CAMPAIGNS - counts["not_started"]
    assert counts["not_started"] > 0
    await world.the_same_call_again()


@pytest.mark.slow
@pytest.mark.usefixtures("some_answers_are_lost")
async def test_ctrl_c_without_any_handler(world: World) -> None:
    world.sandbox.inject(Delay(0.03), operation="reruns.initiate", times=None)
    async with await Program.of(world) as program:
        program.send(signal.SIGINT)
        code, errors, report = await program.end()
    assert code == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "never" not in errors  # no "Task exception was never retrieved", no "was never awaited"
    assert report is not None
    assert report["stopped"] == "It was cancelled."
    counts = await world.account(report)
    assert counts["succeeded"] == sum((await world.made()).values()) == CAMPAIGNS - counts["not_started"]
    assert counts["not_started"] > 0
    await world.the_same_call_again()


@pytest.mark.slow
async def test_ctrl_c_twice_does_not_wait(world: World) -> None:
    world.sandbox.inject(Delay(3 * GRACE), operation="reruns.initiate", skip=THIRD, times=None)
    async with await Program.of(world) as program:
        await until(lambda: world.sandbox.effects["reruns.initiate"] == THIRD + AT_ONCE)
        program.send(signal.SIGINT)
        await asyncio.sleep(0.1)
        program.send(signal.SIGINT)
        async with asyncio.timeout(PROMPT):
            code, _, _ = await program.end()
    assert code == -signal.SIGINT
    states = Counter(world.states().values())
    assert states == {"started": THIRD, "intended": AT_ONCE, "planned": CAMPAIGNS - THIRD - AT_ONCE}
    await world.the_same_call_again()


# --- one journal -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_second_process_is_told_who_has_the_journal(world: World) -> None:
    world.sandbox.inject(Delay(0.05), operation="reruns.initiate", times=None)
    async with await Program.of(world, concurrency=1, tell_at=2) as first:
        async with world.client() as ns:
            with pytest.raises(JournalError, match=f"process {first.pid} ") as caught:
                await world.run(ns)
        assert caught.value.report is None
        assert caught.value.advice
        assert sum((await world.made()).values()) < CAMPAIGNS, "the first was done already: this shows nothing"
        code, errors, report = await first.end()
    assert (code, errors) == (0, "")
    assert report is not None
    assert report["complete"]
    assert report["sent"] == world.requests == CAMPAIGNS
    assert await world.account(report) == {"succeeded": CAMPAIGNS}
    again = await world.the_same_call_again()
    assert again.sent == 0


@pytest.mark.slow
async def test_after_kill_9_the_next_one_takes_the_journal_over(world: World) -> None:
    world.sandbox.inject(Delay(0.05), operation="reruns.initiate", times=None)
    told: list[RerunsBegan] = []
    async with await Program.of(world) as first:
        first.send(signal.SIGKILL)
        assert await first.end() == (-signal.SIGKILL, "", None)
    async with world.client() as ns:
        ns.events.subscribe(lambda event: told.append(event) if isinstance(event, RerunsBegan) else None)
        report = await world.run(ns)
    assert report.complete
    assert len(told) == 1
    assert told[0].taken_over.startswith(f"process {first.pid} on ")
    assert THIRD <= told[0].settled < CAMPAIGNS
    assert await world.account(report) == {"succeeded": CAMPAIGNS}
    assert world.sandbox.effects["reruns.initiate"] == CAMPAIGNS
    async with world.client() as ns:
        ns.events.subscribe(lambda event: told.append(event) if isinstance(event, RerunsBegan) else None)
        await world.run(ns)
    assert (told[1].taken_over, told[1].settled) == ("", CAMPAIGNS)


# --- nobody speaks of a journal --------------------------------------------------------------------------------------


async def test_without_a_journal_there_is_one_and_everybody_is_told_where(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    caplog.set_level(logging.INFO, "nudgescribe_async.rerun")
    async with world.client() as ns:
        stopped = await cancelled_report(await begun(world, ns, asyncio.Task.cancel, journal=None))
        world.journal = stopped.journal
        assert stopped.journal.parent == state / "nudgescribe" / "reruns"
        assert stopped.journal.is_file()
        assert stopped.journal.stat().st_mode & 0o077 == 0
        await world.account(stopped)

        report = await world.run(ns, journal=None)
        assert report.complete
        assert report.journal == stopped.journal
        assert report.sent == CAMPAIGNS - len(stopped.succeeded)
        began = [it for it in caplog.records if getattr(it, "event", None) == "RerunsBegan"]
        assert [it.levelno for it in began] == [logging.INFO, logging.WARNING], (
            "the second may be meant to be a new round"
        )
        assert all(str(report.journal) in it.getMessage() for it in began)

        caplog.clear()
        requests = world.sandbox.count("reruns.initiate")
        again = await world.run(ns, journal=None)
    assert again.complete
    assert again.nothing_new
    assert (again.sent, again.journal) == (0, report.journal)
    assert world.sandbox.count("reruns.initiate") == requests == CAMPAIGNS
    [warning] = [
        it for it in caplog.records if it.levelno >= logging.WARNING and it.name.startswith("nudgescribe_async")
    ]
    assert str(report.journal) in warning.getMessage()
    assert "nothing is sent" in warning.getMessage()
    assert "For a new round, name another journal" in warning.getMessage()
