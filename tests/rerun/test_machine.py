"""Reruns whatever happens in whatever order: ``kill -9`` between any two steps, lost answers, people, and others at work.

The engine and its journal are the real ones, with a real file; the service is a model. A process is one call of
``reruns.run`` with a client of its own. To kill it is to keep the folder as it is at that moment (a commit may be half
written), and to let nothing reach the service any more; what the dead code still does, it does to a folder that is
thrown away. The same call then goes on with what was kept.

Two machines differ in how late a request may arrive: within ``settle``, where no campaign is ever run twice, and beyond,
where nobody can promise that. What holds there: nothing is sent once the history has shown a new run, so there are never
more runs than requests that came too late and one; and the call after them finds them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

import pytest
from attrs import define, field, frozen
from helpers import CREDENTIALS
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from machines import AsyncMachine, run
from rerun_service import (
    GARBAGE_AFTER,
    HANG,
    LOST_AFTER,
    LOST_BEFORE,
    MESSAGE_FILE,
    NOT_SENT,
    PUBLISHED,
    READY_FOR_REVIEW,
    READY_TO_PUBLISH,
    UNAVAILABLE,
    UNAVAILABLE_AFTER,
    RefusedError,
    RerunService,
    Run,
    Trouble,
    late,
)

from nudgescribe_async import CallOptions, Nudgescribe, NudgescribeError
from nudgescribe_async.codec import loads
from nudgescribe_async.rerun import RerunOutcome, RerunPlan, RerunReport, job
from nudgescribe_async.rerun.item import RUN_EXISTS, RerunItem
from nudgescribe_async.rerun.journal import Journal
from nudgescribe_async.testing import VirtualClock
from nudgescribe_async.testing._operations import OPERATIONS

if TYPE_CHECKING:
    from nudgescribe_async.transport import Request, Response

EXAMPLES = int(os.environ.get("RERUN_MACHINE_EXAMPLES", "80"))
STEPS = int(os.environ.get("RERUN_MACHINE_STEPS", "5"))
SETTLE = 10.0
INITIATE, HISTORY, PUBLISH = "reruns.initiate", "reruns.history", "messages.publish"
MEMORY = Path("/dev/shm")  # the journal waits for the disk with each entry
PATIENCE = 20.0
"""Real seconds in which a call must end, all of whose waits are virtual."""


# --- what is drawn -----------------------------------------------------------------------------------------------------


@frozen
class Moment:
    """In a call: the n-th time that it comes by somewhere, or so many seconds after its beginning."""

    where: str
    which: float


@frozen
class Act:
    """What somebody else does meanwhile."""

    at: Moment
    campaign: int
    what: str


@frozen(kw_only=True)
class Ending:
    """How a call is brought to its end."""

    how: str
    at: Moment
    grace: float = 0.0
    share: float = 0.5
    """Of a commit that is under way, if it is there that the process is killed."""


@frozen(kw_only=True)
class Call:
    """A call of ``reruns.run``: what is asked for, and what befalls it."""

    ending: Ending | None = None
    concurrency: int = 2
    wait: bool = False
    publish: bool = False
    download: bool = False
    fail_fast: bool = False
    timeout: float | None = None
    troubles: tuple[tuple[str, int, Trouble], ...] = ()
    """Operation, how many of its requests come before, and what befalls this one."""
    acts: tuple[Act, ...] = ()


SECONDS = (0.05, 0.25, 0.45, 2.0, 6.0, 9.9, 10.05, 11.0, 25.0)
ACTS = ("publish", "publish", "other group", "wanted group", "approve")
GRACES = (0.0, 0.1, 5.0, 30.0)


def moments(**often: int) -> st.SearchStrategy[Moment]:
    """By the clock, or one of the first times at each of these places."""
    places = [Moment(where, float(which)) for where, many in often.items() for which in range(many)]
    return st.sampled_from([*places, *(Moment("seconds", seconds) for seconds in SECONDS)])


KILLS = st.builds(
    Ending,
    how=st.just("kill"),
    at=moments(
        initiated=6,
        written=8,
        initiate=4,
        torn=5,
        write=5,
        opened=1,
        request=7,
        answer=5,
        report=1,
        closing=1,
        opening=1,
    ),
    share=st.sampled_from([0.0, 0.3, 0.6, 0.99]),
)
STOPS = st.builds(
    Ending,
    how=st.sampled_from(["cancel", "cancel", "cancel twice", "stop", "close"]),
    at=moments(written=5, request=7, answer=7, initiate=4, initiated=4),
    grace=st.sampled_from(GRACES),
)
DOUBLED = Trouble("doubled")
"""Whoever stands between sends it twice, and hands on the second answer."""
TROUBLES = (
    LOST_BEFORE,
    LOST_BEFORE,
    LOST_AFTER,
    NOT_SENT,
    UNAVAILABLE,
    UNAVAILABLE_AFTER,
    GARBAGE_AFTER,
    DOUBLED,
    HANG,
)


def calls(lateness: tuple[float, ...]) -> st.SearchStrategy[Call]:
    befalls = st.sampled_from([*TROUBLES, *map(late, lateness)])
    elsewhere = st.tuples(st.sampled_from([HISTORY, HISTORY, PUBLISH, "campaigns.list"]), st.integers(0, 5), befalls)
    return st.builds(
        Call,
        ending=st.one_of(KILLS, KILLS, STOPS, st.none()),
        concurrency=st.integers(1, 4),
        wait=st.booleans(),
        publish=st.booleans(),
        download=st.sampled_from([False, False, True]),
        fail_fast=st.sampled_from([False, False, False, True]),
        timeout=st.sampled_from([None, 20.0]),
        troubles=st.builds(
            lambda sent, other: (*((INITIATE, which, it) for which, it in enumerate(sent) if it is not None), *other),
            st.lists(st.one_of(befalls, befalls, st.none()), max_size=5),
            st.lists(elsewhere, max_size=2),
        ),
        acts=st.lists(st.builds(Act, moments(request=12), st.integers(0, 3), st.sampled_from(ACTS)), max_size=3).map(
            tuple
        ),
    )


Between: TypeAlias = tuple[int, str] | float
"""What somebody does before a call, or the seconds that pass."""

BETWEEN: st.SearchStrategy[list[Between]] = st.lists(
    st.one_of(st.tuples(st.integers(0, 3), st.sampled_from(ACTS)), st.sampled_from([0.5, 5.0, 60.0])), max_size=3
)


BEFALLS: ContextVar[Trouble | None] = ContextVar("befalls", default=None)
"""What befalls the request that a task is about to send."""


# --- a process ---------------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """In code that does not run any more."""


class Inline(ThreadPoolExecutor):
    """Has what belongs into threads done at once, in turns that can be told from each other. The dead do nothing."""

    def __init__(self, process: Process) -> None:
        super().__init__(1)
        self._process = process

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            if self._process.dead:
                raise KilledError
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future


class WatchedJournal(Journal):
    """The journal, with places in it at which a process may be killed."""

    process: ClassVar[Process]

    @classmethod
    def open(cls, path: Path, plan: RerunPlan, **options: Any) -> Journal:
        cls.process.comes_by("opening")
        journal = super().open(path, plan, **options)
        cls.process.journals.append(journal)
        cls.process.comes_by("opened")
        return journal

    def write(self, item: RerunItem, step: str, detail: str = "") -> None:
        self.process.comes_by("write")
        before = self.process.world.log_size()
        super().write(item, step, detail)
        self.process.torn_from = before
        self.process.comes_by("torn")
        self.process.torn_from = None
        self.process.comes_by("written")

    def steps(self) -> Any:
        self.process.comes_by("report")
        return super().steps()

    def close(self) -> None:
        self.process.comes_by("closing")
        super().close()


@define(eq=False)
class Process:
    """One call with a client of its own, and what stands between it and the world."""

    world: World
    call: Call
    dead: bool = False
    journals: list[Journal] = field(factory=list)
    torn_from: int | None = None
    sent: int = 0
    _came_by: Counter[str] = field(factory=Counter)
    _asked: Counter[str] = field(factory=Counter)
    _seen: dict[str, int] = field(factory=dict)
    """The newest run in the history of a campaign, as this process was last told."""
    _ended: bool = False
    _over: asyncio.Event = field(factory=asyncio.Event)
    _stop: asyncio.Event = field(factory=asyncio.Event)
    _task: asyncio.Task[RerunReport] | None = None
    _client: Nudgescribe | None = None
    _closing: asyncio.Task[None] | None = None

    async def live(self) -> RerunReport | None:
        """The report, if it came so far."""
        world, call = self.world, self.call
        asyncio.get_running_loop().set_default_executor(Inline(self))
        self._client = ns = Nudgescribe(CREDENTIALS, transport=self, clock=world.clock)
        timers = [
            world.clock.call_later(act.at.which, partial(world.act, act.campaign, act.what))
            for act in call.acts
            if act.at.where == "seconds"
        ]
        if call.ending is not None and call.ending.at.where == "seconds":
            timers.append(world.clock.call_later(call.ending.at.which, self._end_by_the_clock))
        with watched(self):
            self._task = asyncio.create_task(
                ns.reruns.run(
                    world.plan,
                    concurrency=call.concurrency,
                    journal=world.journal,
                    settle=SETTLE,
                    wait=call.wait,
                    publish=call.publish,
                    download=world.folder / "files" if call.download else None,
                    fail_fast=call.fail_fast,
                    grace=0.0 if call.ending is None else call.ending.grace,
                    stop=self._stop,
                    options=CallOptions(timeout=call.timeout),
                )
            )
            over = asyncio.create_task(self._over.wait())
            await asyncio.wait({self._task, over}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            for timer in timers:
                timer.cancel()
            if self.dead:
                await self._bury()
                return None
            if not self._task.done():
                world.wrong.append(f"a call never ends: {call}")
                self.dead = True
                await self._bury()
                return None
            over.cancel()
        await ns.aclose()
        if self._closing is not None:
            await self._closing
        return self._result(self._task)

    def _result(self, task: asyncio.Task[RerunReport]) -> RerunReport | None:
        how = "" if self.call.ending is None or not self._ended else self.call.ending.how
        try:
            return task.result()
        except asyncio.CancelledError as error:
            if not how.startswith("cancel"):
                self.world.wrong.append(f"a call that nobody cancelled was: {error!r}")
            report = getattr(error, "report", None)
        except NudgescribeError as error:
            report = getattr(error, "report", None)
            if not how and not self.call.troubles:
                self.world.wrong.append(f"an undisturbed call failed: {error!r}")
        except Exception as error:  # noqa: BLE001
            report = None
            self.world.wrong.append(f"a defect: {error!r}")
        if report is None and self.sent:
            self.world.wrong.append("something was sent, and there is no report")
        return report

    async def _bury(self) -> None:
        """Have what is left of a dead process leave the memory. None of it reaches anything."""
        for _ in range(100):
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if not left:
                break
            for task in left:
                task.cancel()
            await asyncio.wait(left)
            for task in left:
                if not task.cancelled():
                    task.exception()
        else:
            self.world.wrong.append("tasks that do not end")
        assert self._client is not None
        await self._client.aclose(grace=0)
        for journal in self.journals:
            Journal.close(journal)
        self.world.go_on()

    # --- the moments ---------------------------------------------------------------------------------------------------

    def comes_by(self, where: str) -> None:
        """It comes by somewhere, and may not get any further."""
        if self.dead:
            raise KilledError
        moment = Moment(where, float(self._came_by[where]))
        self._came_by[where] += 1
        for act in self.call.acts:
            if act.at == moment:
                self.world.act(act.campaign, act.what)
        if self.call.ending is not None and self.call.ending.at == moment:
            self._end()

    def _end_by_the_clock(self) -> None:
        with suppress(KilledError):
            self._end()

    def _end(self) -> None:
        assert self.call.ending is not None
        assert self._task is not None
        assert self._client is not None
        how, grace = self.call.ending.how, self.call.ending.grace
        if self._task.done():
            return
        self._ended = True
        match how:
            case "kill":
                self.dead = True
                self.world.keep(self.torn_from, self.call.ending.share)
                self._over.set()
                raise KilledError
            case "stop":
                self._stop.set()
            case "close":
                self._closing = asyncio.create_task(self._client.aclose(grace=grace))
            case _:
                self._task.cancel()
                if how == "cancel twice":
                    self.world.clock.call_later(grace / 2, self._task.cancel)

    # --- a transport ---------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        pass

    async def send(self, request: Request) -> Response:
        try:
            return await self._send(request)
        except KilledError:
            await asyncio.get_running_loop().create_future()
            raise

    async def _send(self, request: Request) -> Response:
        if self.dead:
            raise KilledError
        world = self.world
        operation = OPERATIONS[request.method, urlsplit(request.url).path]
        BEFALLS.set(None)
        if operation.startswith("auth."):
            return await world.service.send(request)
        assert isinstance(request.body, bytes)
        body: Any = loads(request.body)
        campaign = str(body.get("campaign_id", ""))
        self.comes_by("request")
        if operation == INITIATE:
            self.comes_by("initiate")
        trouble = next(
            (it for name, which, it in self.call.troubles if (name, which) == (operation, self._asked[operation])), None
        )
        self._asked[operation] += 1
        newest = len(world.service.runs(campaign)) if campaign else 0
        if operation == INITIATE:
            self.sent += 1
            world.may_be_sent(campaign, self._seen.get(campaign), trouble)
        if operation == PUBLISH:
            world.may_be_published(campaign)
        BEFALLS.set(trouble if trouble != DOUBLED else None)
        try:
            if trouble == DOUBLED and operation == INITIATE:
                both = (world.service.send(request), world.service.send(request))
                _, response = await asyncio.gather(*both)  # at once: nobody can publish the first run in between
            else:
                response = await world.service.send(request)
        except NudgescribeError:
            self._is_answered(operation)
            raise
        self._is_answered(operation)
        if trouble in {None, DOUBLED} and operation == HISTORY and response.status == 200:
            self._seen[campaign] = newest
        if trouble in {None, DOUBLED} and operation == INITIATE:
            world.in_doubt.pop(campaign, None)
        return response

    def _is_answered(self, operation: str) -> None:
        """Or it turns out that there is no answer."""
        self.comes_by("answer")
        if operation == INITIATE:
            self.comes_by("initiated")


@contextmanager
def watched(process: Process) -> Iterator[None]:
    kind = type("WatchedJournalOfOne", (WatchedJournal,), {"process": process})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "Journal", kind)
        yield


# --- the world ---------------------------------------------------------------------------------------------------------


@define(eq=False)
class World:
    """The service, a folder, whoever else is there, and what is found wrong."""

    campaigns: int = 1
    share_new: float = 0.0
    generation_time: float = 0.0
    within_settle: bool = True
    clock: VirtualClock = field(factory=VirtualClock)
    wrong: list[str] = field(factory=list)
    todo: list[Callable[[], Awaitable[object]]] = field(factory=list)
    in_doubt: dict[str, float] = field(factory=dict)
    """When the last request left of whose effect its sender cannot know."""
    tried: Counter[str] = field(factory=Counter)
    newest: dict[str, int] = field(factory=dict)
    """The newest run that was known when it was first intended to run a campaign."""
    left: set[str] = field(factory=set)
    """Campaigns of which a request may have left."""
    late: Counter[str] = field(factory=Counter)
    """Requests that arrive beyond ``settle``."""
    root: Path = field(init=False)
    service: RerunService = field(init=False)
    plan: RerunPlan = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="reruns", dir=MEMORY if MEMORY.is_dir() else None))
        self.folder.mkdir()
        self.service = RerunService(
            self.campaigns,
            clock=self.clock,
            latency=0.1,
            generation_time=self.generation_time,
            publish_time=1.0,
            share_new=self.share_new,
            trouble=lambda _, __: BEFALLS.get(),
        )
        self.plan = self.service.plan()

    # --- the folder ----------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self.root / "now"

    @property
    def journal(self) -> Path:
        return self.folder / "reruns.db"

    def log_size(self) -> int:
        try:
            return (self.folder / "reruns.db-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def keep(self, torn_from: int | None, share: float) -> None:
        """Keep what a process that is killed leaves on the disk; the end of the log in part, if that is being written."""
        kept = self.root / "kept"
        shutil.copytree(self.folder, kept)
        if torn_from is not None and (size := self.log_size()) > torn_from:
            os.truncate(kept / "reruns.db-wal", torn_from + int((size - torn_from) * share))

    def go_on(self) -> None:
        kept = self.root / "kept"
        if kept.exists():
            shutil.rmtree(self.folder)
            kept.rename(self.folder)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The journal as the disk has it."""
        if not self.journal.exists():
            return {}
        with closing(sqlite3.connect(self.journal.as_uri(), uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            if not connection.execute("PRAGMA page_count").fetchone()[0]:
                return {}
            return {row["campaign_id"]: dict(row) for row in connection.execute("SELECT * FROM items")}

    # --- whoever else is there -----------------------------------------------------------------------------------------

    def campaign(self, index: int) -> str:
        return self.plan.requests[index % self.campaigns].campaign_id

    def act(self, index: int, what: str) -> None:
        campaign = self.campaign(index)
        state = self.service.state(campaign)
        match what:
            case "publish":
                if state in {READY_FOR_REVIEW, READY_TO_PUBLISH}:
                    self.service.set_state(campaign, PUBLISHED)
            case "approve":
                if state == READY_FOR_REVIEW:
                    self.service.set_state(campaign, READY_TO_PUBLISH)
            case _:
                with suppress(RefusedError):
                    self.service.rerun_by_somebody_else(
                        campaign, self.service.groups(campaign)[1 if what == "wanted group" else 2]
                    )

    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    # --- what must hold at a request -------------------------------------------------------------------------------------

    def may_be_sent(self, campaign: str, seen: int | None, trouble: Trouble | None) -> None:
        """Look at the disk, while the request is about to leave."""
        row = self.rows().get(campaign, {})
        if row.get("state") != "intended" or not row["attempts"]:
            self.wrong.append(f"{campaign} is sent, and the disk has no intention: {row}")
            return
        newest, attempts = row["newest_run"], row["attempts"]
        if seen is None:
            self.wrong.append(f"{campaign} is sent without a look at its history")
        elif seen > newest:
            self.wrong.append(f"{campaign} is sent, and the history has shown run {seen} after {newest}")
        if attempts == 1 and campaign not in self.left:
            # None that was sent before has left, and the journal knows: all runs so far are somebody else's.
            self.newest.pop(campaign, None)
        if self.newest.setdefault(campaign, newest) != newest:
            self.wrong.append(f"{campaign}: what was known first was {self.newest[campaign]}, and is now {newest}")
        if attempts == 1 and seen is not None and newest != seen:
            self.wrong.append(f"{campaign}: the intention knows run {newest}, the history had {seen}")
        if attempts > self.tried[campaign]:
            since = self.in_doubt.get(campaign)
            if since is not None and self.clock.now - since < SETTLE - 0.001:
                self.wrong.append(f"{campaign} is sent again {self.clock.now - since} s after a request in doubt")
            self.tried[campaign] = attempts
        if trouble != NOT_SENT:
            self.left.add(campaign)
            self.in_doubt[campaign] = self.clock.now
        if trouble is not None and trouble.seconds > SETTLE:
            self.late[campaign] += 1

    def may_be_published(self, campaign: str) -> None:
        row = self.rows().get(campaign, {})
        if row.get("state") != "publishing" or not row["publish_attempts"]:
            self.wrong.append(f"{campaign} is published, and the disk does not know: {row}")

    # --- what must hold between calls ------------------------------------------------------------------------------------

    async def stand_still(self) -> None:
        todo, self.todo = self.todo, []
        for work in todo:
            await work()
        self.look()

    def call(self, call: Call) -> None:
        self.todo.append(partial(self.perform, call))

    async def perform(self, call: Call) -> RerunReport | None:
        report = await Process(self, call).live()
        self.look()
        if report is not None:
            self.compare(report)
        return report

    def wanted(self, campaign: str) -> str:
        return self.service.groups(campaign)[1]

    def ours(self, campaign: str) -> list[Run]:
        return [run for run in self.service.new_runs(campaign) if run.by == "the client"]

    def newer(self, campaign: str, than: int) -> list[Run]:
        return [run for run in self.service.new_runs(campaign) if run.number > than]

    def look(self) -> None:
        rows = self.rows()
        for request in self.plan:
            self._look(request.campaign_id, rows.get(request.campaign_id))
        self._all_is_well()

    def _all_is_well(self) -> None:
        if self.wrong:
            pytest.fail("\n".join(["", *self.wrong]))

    def _look(self, campaign: str, row: dict[str, Any] | None) -> None:
        ours = self.ours(campaign)
        if len(ours) > (1 + self.late[campaign]):
            self.wrong.append(f"{campaign} was run {len(ours)} times: {ours}")
        if row is None:
            if ours:
                self.wrong.append(f"{campaign} has a run, and there is no journal")
            return
        state, newest = row["state"], row["newest_run"]
        if ours and newest is None:
            self.wrong.append(f"{campaign} has a run that the journal never intended: {row}")
            return
        newer = [] if newest is None else self.newer(campaign, newest)
        fitting = [run for run in newer if run.group == self.wanted(campaign)]
        if state in RUN_EXISTS:
            found = [run for run in fitting if run.number == row["run_number"]]
            if not found:
                self.wrong.append(f"{campaign} is {state!r}, and there is no such run: {row}, {newer}")
            elif ours and self.within_settle and all(run.by == "the client" for run in fitting) and found != ours:
                self.wrong.append(f"{campaign} is said to have run {row['run_number']}, and has {ours}")
            if state in {"published", "downloaded"} and row["run_number"] not in self.published(campaign):
                self.wrong.append(f"{campaign} is not published: {row}")
            if state == "downloaded" and (Path(row["directory"]) / "page-00001.csv").read_bytes() != MESSAGE_FILE:
                self.wrong.append(f"{campaign} has no file, or another one")
        elif state == "conflict":
            if not any(run.by != "the client" and run.group != self.wanted(campaign) for run in newer):
                self.wrong.append(f"{campaign} is in conflict with nobody: {row}, {newer}")
            if ours and self.within_settle:
                self.wrong.append(f"{campaign} is in conflict, and has our run: {row}, {newer}")
        elif state != "intended" and ours and self.within_settle:
            self.wrong.append(f"{campaign} is {state!r}, and has our run: {row}, {newer}")

    def published(self, campaign: str) -> set[int]:
        self.service.state(campaign)
        return self.service._campaigns[campaign].published

    def compare(self, report: RerunReport) -> None:
        """The report with the journal, and so with the world."""
        rows = self.rows()
        assert [outcome.campaign_id for outcome in report.outcomes] == [it.campaign_id for it in self.plan]
        for outcome in report.outcomes:
            row = rows[outcome.campaign_id]
            agrees = (
                outcome.state in _SAID.get(row["state"], {"succeeded", "unfinished"})
                and outcome.attempts == row["attempts"]
                and outcome.run_number == (row["run_number"] if row["state"] in RUN_EXISTS else None)
                and outcome.published == (row["state"] in {"published", "downloaded"})
                and bool(outcome.reason) == (outcome.state != "succeeded")
            )
            if not agrees:
                self.wrong.append(f"the report has {outcome}, and the journal {row}")
        self._all_is_well()

    async def end(self) -> None:
        """Everything is published, what is late arrives, and two calls that nobody disturbs bring it to its end."""
        if not self.within_settle:
            self.time_passes(10_000)  # the service has seen all of it; nobody has looked yet
        for request in self.plan:
            self.service.set_state(request.campaign_id, PUBLISHED)
        had = {request.campaign_id: len(self.ours(request.campaign_id)) for request in self.plan}
        report = await self.perform(Call(concurrency=4, wait=True))
        assert report is not None
        for outcome in report.outcomes:
            self._judge_last(outcome, had=had[outcome.campaign_id])
        sent = self.service.requests[INITIATE]
        again = await self.perform(Call(concurrency=4))
        assert again is not None
        assert self.service.requests[INITIATE] == sent, "a plan that is done was sent again"
        states = [outcome.state for outcome in report.outcomes]
        assert [outcome.state for outcome in again.outcomes] == states

    def _judge_last(self, outcome: RerunOutcome, *, had: int) -> None:
        campaign = outcome.campaign_id
        ours = self.ours(campaign)
        if outcome.state not in {"succeeded", "conflict"}:
            self.wrong.append(f"in the end, {outcome}; {self.service.runs(campaign)}")
        if outcome.state == "succeeded":
            others = [run for run in self.service.new_runs(campaign) if run.by != "the client"]
            if not others and not ours:
                self.wrong.append(f"{campaign} was forgotten: {outcome}")
            if had and len(ours) > had:
                self.wrong.append(f"{campaign} was run again, though it had its run: {ours}")
        self._all_is_well()


_SAID = {
    "planned": {"not_started"},
    "intended": {"unknown"},
    "refused": {"refused"},
    "conflict": {"conflict"},
}


# --- the machines ------------------------------------------------------------------------------------------------------


class RerunMachine(AsyncMachine[World]):
    """No request arrives later than ``settle``."""

    @initialize(
        campaigns=st.integers(1, 4),
        share_new=st.sampled_from([0.0, 0.5, 1.0]),
        generation_time=st.sampled_from([0.0, 0.0, 4.0, 40.0]),
    )
    def begin(self, campaigns: int, share_new: float, generation_time: float) -> None:
        self.start(partial(self.world, campaigns, share_new, generation_time))
        self.loop.set_exception_handler(lambda *_: None)  # of the dead

    def world(self, campaigns: int, share_new: float, generation_time: float) -> World:
        return World(campaigns, share_new, generation_time)

    @rule(between=BETWEEN, call=calls((1.0, 5.0, 9.5)))
    def somebody_calls(self, between: list[Between], call: Call) -> None:
        self._call(between, call)

    def _call(self, between: list[Between], call: Call) -> None:
        for what in between:
            if isinstance(what, float):
                self.do(partial(self.subject.time_passes, what), "stand still")
            else:
                self.do(partial(self.subject.act, *what), "at once")
        self.do(partial(self.subject.call, call), "stand still")

    async def end(self) -> None:
        await self.subject.end()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            if hasattr(self, "subject"):
                shutil.rmtree(self.subject.root)


class LateMachine(RerunMachine):
    """Some requests arrive later than ``settle``."""

    def world(self, campaigns: int, share_new: float, generation_time: float) -> World:
        return World(campaigns, share_new, generation_time, within_settle=False)

    @rule(between=BETWEEN, call=calls((5.0, 10.5, 10.5, 30.0, 200.0)))
    def somebody_calls(self, between: list[Between], call: Call) -> None:
        self._call(between, call)


def test_whatever_happens_in_whatever_order() -> None:
    run(RerunMachine, examples=EXAMPLES, steps=STEPS)


def test_requests_that_arrive_too_late() -> None:
    run(LateMachine, examples=EXAMPLES // 2, steps=STEPS)


# --- what was found ----------------------------------------------------------------------------------------------------


async def test_a_conflict_waits_for_what_is_late(world: World) -> None:
    """Somebody else's run was a conflict at once, and what was published before our request arrived made a second run."""
    theirs, published = Act(Moment("request", 5.0), 0, "other group"), Act(Moment("seconds", 2.0), 0, "publish")
    report = await world.perform(Call(troubles=((INITIATE, 0, late(5.0)),), acts=(theirs, published)))

    assert report is not None
    (outcome,) = report.outcomes
    assert (outcome.state, outcome.run_number, outcome.adopted) == ("succeeded", 3, True)
    await world.end()


async def test_what_never_left_is_taken_up_after_the_run_of_somebody_else(world: World) -> None:
    """The machine took it for a defect that the later call begins with what the history knows by then."""
    network_is_down = Call(troubles=((INITIATE, 0, NOT_SENT),), ending=Ending(how="stop", at=Moment("initiate", 0.0)))
    report = await world.perform(network_is_down)
    assert report is not None
    assert [(outcome.state, outcome.attempts) for outcome in report.outcomes] == [("not_started", 0)]

    world.act(0, "other group")
    world.act(0, "publish")
    report = await world.perform(Call())

    assert report is not None
    (outcome,) = report.outcomes
    assert (outcome.state, outcome.previous_run, outcome.run_number) == ("succeeded", 2, 3)
    await world.end()


@pytest.mark.parametrize("arrives", [False, True], ids=["lost", "late"])
async def test_what_may_have_left_is_judged_by_what_was_known_then(world: World, arrives: bool) -> None:
    """In a later call too, which begins when the request was thought to have had no effect, and it was not sent again."""
    world.within_settle = not arrives
    befalls = late(30.0) if arrives else LOST_BEFORE
    # Killed once the disk has "absent".
    killed = Ending(how="kill", at=Moment("written", 2.0))
    await world.perform(Call(troubles=((INITIATE, 0, befalls),), ending=killed))
    (row,) = world.rows().values()
    assert (row["state"], row["attempts"], row["newest_run"]) == ("planned", 1, 1)

    world.time_passes(60)
    world.act(0, "publish")
    report = await world.perform(Call())

    assert report is not None
    (outcome,) = report.outcomes
    assert (outcome.state, outcome.run_number, outcome.adopted) == ("succeeded", 2, arrives)
    (row,) = world.rows().values()
    assert row["newest_run"] == 1
    assert len(world.ours(outcome.campaign_id)) == 1
    await world.end()


async def test_a_conflict_is_one_once_nothing_can_be_late(world: World) -> None:
    theirs = Act(Moment("request", 5.0), 0, "other group")
    report = await world.perform(Call(troubles=((INITIATE, 0, LOST_BEFORE),), acts=(theirs,)))

    assert report is not None
    assert [outcome.state for outcome in report.outcomes] == ["conflict"]
    assert world.clock.now - 1_700_000_000 >= SETTLE
    await world.end()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    shutil.rmtree(made.root)
