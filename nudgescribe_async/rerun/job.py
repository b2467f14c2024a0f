"""A plan from its first look at the service to its report."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from nudgescribe_async.address import normal_address
from nudgescribe_async.errors import JournalError, NudgescribeError
from nudgescribe_async.events import RerunsBegan
from nudgescribe_async.rerun.checks import Checked, Failed, Passed, Refused, check_all
from nudgescribe_async.rerun.decide import cause, concerns_all
from nudgescribe_async.rerun.follow import Follower
from nudgescribe_async.rerun.halt import Halt, StoppedWaitingError
from nudgescribe_async.rerun.journal import Journal, default_path
from nudgescribe_async.rerun.ledger import Ledger
from nudgescribe_async.rerun.outcome import is_settled, outcome_of, state_of
from nudgescribe_async.rerun.report import RerunOutcome, RerunReport, sentence
from nudgescribe_async.rerun.service import Service
from nudgescribe_async.rerun.shelf import Shelf
from nudgescribe_async.rerun.start import Starter
from nudgescribe_async.rerun.watch import Watch
from nudgescribe_async.rerun.worker import Means
from nudgescribe_async.tasks import outlast
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from nudgescribe_async.events import Job
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.rerun.choices import Choices
    from nudgescribe_async.rerun.item import RerunItem, RerunStep
    from nudgescribe_async.rerun.plan import RerunPlan
    from nudgescribe_async.session import Session

__all__ = ["run"]

OPERATION = "reruns.run"
SETTLING = 4
"""For each campaign at work, so many more may wait for late arrivals."""


async def run(
    session: Session, plan: RerunPlan, choices: Choices, options: CallOptions | None, busy: set[str]
) -> RerunReport:
    """See ``Reruns.run``. ``busy``: the campaigns that this client is at work on."""
    session.admit(OPERATION)
    return await _Job(session, plan, choices, options, busy).run()


class _Job:
    def __init__(
        self, session: Session, plan: RerunPlan, choices: Choices, options: CallOptions | None, busy: set[str]
    ) -> None:
        self._session = session
        self._plan = plan
        self._choices = choices
        self._busy = busy
        self._clock = session.clock
        self._service = Service(session, options)
        self._halt = Halt(self._clock)
        self._slots = asyncio.Semaphore(choices.concurrency)
        self._mistakes: Mapping[int, str] = {}
        self._address = normal_address(session.base_url)
        self._journal: Journal | None = None
        self._shelf = Shelf()
        self._objections: dict[str, Refused | Failed] = {}
        self._defect: Exception | None = None
        self._finished: set[str] = set()
        self._job: Job | None = None
        self._campaigns: dict[str, Job] = {}
        """Those at work, if somebody wants to know."""
        self._cut = False
        self._told: RerunReport | None = None
        self._began = self._now()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)

    async def run(self) -> RerunReport:
        """All of it."""
        try:
            try:
                await in_thread(self._open)
                return await self._with_journal(self._opened)
            finally:
                await in_thread(self._close)
        except asyncio.CancelledError as error:
            if self._told is not None:  # else there was no journal yet
                self._attach(self._told, error)
            raise

    def _open(self) -> None:
        self._mistakes = self._plan.mistakes()
        path = self._choices.journal
        if path is None:
            path = default_path(self._plan, self._address).absolute()  # wherever the process goes
        # Kept by itself: whoever is cancelled meanwhile never sees what a thread returns.
        self._journal = Journal.open(
            path,
            self._plan,
            service=self._address,
            now=self._clock.time,
            amend=self._choices.amend,
        )
        if self._choices.journal is None:
            self._shelf = Shelf.beside(self._journal.path, self._address, now=self._clock.time())

    def _close(self) -> None:
        self._shelf.close()
        if self._journal is not None:
            self._journal.close()

    @property
    def _opened(self) -> Journal:
        assert self._journal is not None  # noqa: S101 - else nobody would ask
        return self._journal

    async def _with_journal(self, journal: Journal) -> RerunReport:
        ledger = Ledger(
            journal,
            halt=self._halt,
            operation=OPERATION,
            total=len(self._plan),
            events=self._session.events,
            on_event=self._choices.on_event,
        )
        self._tell_beginning(journal)
        if self._mistakes and self._choices.fail_fast:
            self._halt.now("the plan has a mistake, and fail_fast was asked for")
        claimed = self._claim(ledger)
        self._busy.update(claimed)
        forget = self._session.when_closing(partial(self._halt.now, "the client was closed"))
        outcome, done, failure = "failed", 0, None
        try:
            self._job = self._session.events.job(OPERATION, "reruns", total=len(self._plan))
            report = await self._conduct(claimed, ledger)
            outcome, done = "complete" if report.complete else "incomplete", len(report.succeeded)
        except BaseException as error:
            failure = type(error).__name__
            raise
        finally:
            forget()
            self._busy.difference_update(claimed)
            if self._job is not None:
                self._job.end(outcome, done=done, error=failure)
        return report

    def _tell_beginning(self, journal: Journal) -> None:
        asked = self._choices.asked
        settled = sum(
            is_settled(journal.items[request.campaign_id], asked)
            for index, request in enumerate(self._plan)
            if index not in self._mistakes
        )
        self._session.events.emit(
            RerunsBegan(
                operation=OPERATION,
                campaigns=len(self._plan),
                settled=settled,
                journal=str(self._opened.path),
                named=self._choices.journal is not None,
                taken_over=journal.taken_over,
            )
        )

    def _claim(self, ledger: Ledger) -> list[str]:
        """The campaigns to work on: none is worked on twice at a time, not with two journals either."""
        claimed: list[str] = []
        for index, request in enumerate(self._plan):
            campaign_id = request.campaign_id
            if index in self._mistakes:
                ledger.finish(campaign_id, "refused")
            elif campaign_id in self._busy:
                ledger.note(campaign_id, "Another call of this client is at work on the campaign at the moment.")
                self._finish(campaign_id, ledger)
            else:
                claimed.append(campaign_id)
        return claimed

    # --- stopping --------------------------------------------------------------------------------------------------

    async def _conduct(self, campaigns: list[str], ledger: Ledger) -> RerunReport:
        """Do the work in a task of its own, which a cancelled caller leaves time to end in good order."""
        start = asyncio.create_task if self._job is None else self._job.task
        work = start(self._work(campaigns, ledger), name="nudgescribe reruns")
        stopper = self._stopper(work)
        cancelled: asyncio.CancelledError | None = None
        timer = None

        def cut_short() -> None:
            work.cancel()

        try:
            while not work.done():
                try:
                    await asyncio.wait({work})
                except asyncio.CancelledError as error:
                    if cancelled is None:
                        cancelled = error
                        self._halt.now("it was cancelled")
                        timer = self._clock.call_later(self._choices.grace, cut_short)
                    else:
                        work.cancel()  # whoever asks twice does not want to wait
        finally:
            if timer is not None:
                timer.cancel()
        if stopper is not None:
            stopper.cancel()
            cancelled = await outlast({stopper}) or cancelled
        failure = None if work.cancelled() else work.exception()
        if failure is not None and cancelled is None:
            raise failure
        for campaign_id in campaigns:
            self._finish(campaign_id, ledger)  # those that were not reached
        reading = asyncio.create_task(self._steps(), name="nudgescribe reruns report")
        cancelled = await outlast({reading}) or cancelled
        report = self._report(ledger, {} if reading.cancelled() else reading.result())
        return self._hand_over(report, ledger, cancelled, cut=work.cancelled())

    def _stopper(self, work: asyncio.Task[None]) -> asyncio.Task[None] | None:
        stop = self._choices.stop
        if stop is None:
            return None

        async def obey() -> None:
            try:
                await stop.wait()
            except RuntimeError as error:  # it belongs to another event loop, and would be ignored without a word
                self._defect = error
            self._halt.now("the caller asked for it")
            await self._clock.sleep(self._choices.grace)
            self._cut = True
            work.cancel()

        return asyncio.create_task(obey(), name="nudgescribe reruns stop")

    def _hand_over(
        self, report: RerunReport, ledger: Ledger, cancelled: asyncio.CancelledError | None, *, cut: bool
    ) -> RerunReport:
        self._told = report
        if ledger.interruption is not None:
            raise ledger.interruption
        if self._defect is not None:
            self._defect.add_note(f"The journal of the reruns is {self._opened.path}: the same call goes on.")
            raise self._defect
        if cancelled is not None or (cut and not self._cut):
            stopped = cancelled if cancelled is not None else asyncio.CancelledError()
            self._attach(report, stopped)
            raise stopped
        if ledger.failure is not None:
            ledger.failure.report = report
            raise ledger.failure
        return report

    def _attach(self, report: RerunReport, cancelled: asyncio.CancelledError) -> None:
        if not hasattr(cancelled, "report"):
            cancelled.report = report  # type: ignore[attr-defined]
            cancelled.add_note(
                f"{OPERATION} was cancelled: {report!r}. The same call goes on; the journal is {self._opened.path}."
            )

    async def _steps(self) -> Mapping[str, tuple[RerunStep, ...]]:
        try:
            return await in_thread(self._opened.steps)
        except JournalError:  # then it has failed before, and that is what is raised
            return {}

    def _report(self, ledger: Ledger, steps: Mapping[str, tuple[RerunStep, ...]]) -> RerunReport:
        outcomes: list[RerunOutcome] = []
        for index, request in enumerate(self._plan):
            mistake = self._mistakes.get(index)
            if mistake is not None:
                outcomes.append(
                    RerunOutcome(
                        position=index + 1,
                        campaign_id=request.campaign_id,
                        new_customer_group_id=request.new_customer_group_id,
                        state="refused",
                        reason=mistake,
                    )
                )
                continue
            outcomes.append(
                outcome_of(
                    index + 1,
                    request,
                    ledger.item(request.campaign_id),
                    asked=self._choices.asked,
                    note=ledger.notes.get(request.campaign_id),
                    steps=steps.get(request.campaign_id, ()),
                    stopped=self._halt.why,
                    status=ledger.statuses.get(request.campaign_id),
                )
            )
        return RerunReport(
            outcomes=tuple(outcomes),
            journal=self._opened.path,
            began=self._began,
            ended=self._now(),
            sent=ledger.sent,
            stopped=sentence(self._halt.why) if self._halt else "",
        )

    # --- the work --------------------------------------------------------------------------------------------------

    async def _work(self, campaigns: list[str], ledger: Ledger) -> None:
        choices = self._choices
        starting = await self._checked(campaigns, ledger)
        means = Means(
            session=self._session,
            service=self._service,
            ledger=ledger,
            halt=self._halt,
            slots=self._slots,
            operation=OPERATION,
            settle=choices.settle,
        )
        async with Watch(
            self._service,
            self._clock,
            self._slots,
            OPERATION,
            settle=choices.settle,
            seen=ledger.statuses.__setitem__,
        ) as watch:
            self._halt.then(watch.stop)
            starter = Starter(means, objections=self._objections)
            follower = Follower(
                means,
                watch,
                publish=choices.publish,
                directory=choices.download,
                wait_timeout=choices.wait_timeout,
            )
            async with asyncio.TaskGroup() as tasks:
                follow = partial(self._follow, tasks, follower, ledger)
                for campaign_id in campaigns:
                    if ledger.has_run(campaign_id):
                        follow(campaign_id)
                left = iter(starting)
                for _ in range(min(choices.concurrency * SETTLING, len(starting))):
                    tasks.create_task(self._start(left, starter, ledger, follow), name="nudgescribe rerun")

    async def _checked(self, campaigns: list[str], ledger: Ledger) -> list[str]:
        """Those that may be started, those first whose outcome is not known."""
        items = [ledger.item(campaign_id) for campaign_id in campaigns if not ledger.has_run(campaign_id)]
        unknown = [item.campaign_id for item in items if item.state == "intended"]
        # What was sent before may be why a campaign is not 'Published' any more: there the history decides first.
        sent = [item for item in items if item.attempts and item.state != "conflict"]
        fresh: list[RerunItem] = []
        for item in items:
            if item.state in {"planned", "refused"} and not item.attempts:
                if objection := self._shelf.objection(item):
                    await self._refuse(item.campaign_id, objection, ledger)
                else:
                    fresh.append(item)
        for item in items:
            if item.state == "conflict":
                self._finish(item.campaign_id, ledger)
        checks: Mapping[str, Checked] = {}
        try:
            looking = check_all([*fresh, *sent], self._service, self._halt, concurrency=self._choices.concurrency)
            checks = await self._halt.unless(looking)
        except StoppedWaitingError:
            pass  # nothing was sent, and nothing will be
        except NudgescribeError as error:
            others = len(campaigns) > len(items) or bool(unknown)
            if not self._halt and (concerns_all(error) or not others):  # nothing was sent, and nothing can be
                raise
            checks = {item.campaign_id: Failed(error) for item in [*fresh, *sent]}
        for campaign_id, seen in checks.items():
            if seen.campaign_name is not None:
                ledger.names[campaign_id] = seen.campaign_name
            if isinstance(seen, Passed) and seen.run_number is not None:
                ledger.listed_runs[campaign_id] = seen.run_number
        for item in sent:
            if isinstance(found := checks.get(item.campaign_id), Refused | Failed):
                self._objections[item.campaign_id] = found
        for item in fresh:
            checked = checks.get(item.campaign_id)
            if isinstance(checked, Refused):
                await self._refuse(item.campaign_id, checked.reason, ledger)
            elif isinstance(checked, Failed):
                reason = f"It could not be checked, so it was not sent: {checked.error}"
                ledger.note(item.campaign_id, reason, checked.error)
                if concerns_all(checked.error):
                    self._halt.now(cause(checked.error))
                self._finish(item.campaign_id, ledger)
        passed = [item.campaign_id for item in fresh if isinstance(checks.get(item.campaign_id), Passed)]
        again = [item.campaign_id for item in sent if item.state != "intended"]
        return [*unknown, *again, *passed]

    async def _refuse(self, campaign_id: str, reason: str, ledger: Ledger) -> None:
        ledger.note(campaign_id, reason)
        with suppress(JournalError):  # the ledger has stopped everything, and keeps it
            await ledger.write(campaign_id, "refused", reason, state="refused", reason=reason)
        self._finish(campaign_id, ledger)

    async def _start(
        self, left: Iterator[str], starter: Starter, ledger: Ledger, follow: Callable[[str], None]
    ) -> None:
        for campaign_id in left:
            if self._halt:
                return
            await self._belonging(campaign_id, partial(self._started, campaign_id, starter, ledger, follow))

    async def _started(self, campaign_id: str, starter: Starter, ledger: Ledger, follow: Callable[[str], None]) -> None:
        await self._guarded(starter.start(campaign_id))
        if ledger.has_run(campaign_id):
            follow(campaign_id)
        else:
            self._finish(campaign_id, ledger)

    def _follow(self, tasks: asyncio.TaskGroup, follower: Follower, ledger: Ledger, campaign_id: str) -> None:
        asked = self._choices.asked

        async def follow() -> None:
            await self._guarded(follower.follow(campaign_id))
            self._finish(campaign_id, ledger)

        if asked.follow:
            tasks.create_task(self._belonging(campaign_id, follow), name="nudgescribe rerun")
        else:
            self._finish(campaign_id, ledger)

    async def _belonging(self, campaign_id: str, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Work on a campaign: in a task of its own only if it must be known where its calls belong."""
        if self._job is None:
            await work()
            return
        if campaign_id not in self._campaigns:
            self._campaigns[campaign_id] = self._job.begin(OPERATION, "rerun", campaign_id=campaign_id)
        await self._campaigns[campaign_id].task(work(), name="nudgescribe rerun")

    def _end_campaign(self, campaign_id: str, ledger: Ledger) -> None:
        if (job := self._campaigns.pop(campaign_id, None)) is not None:
            note = ledger.notes.get(campaign_id)
            state = state_of(ledger.item(campaign_id), self._choices.asked)
            error = None if note is None or note.error is None else type(note.error).__name__
            job.end(state, done=int(state == "succeeded"), error=None if state == "succeeded" else error)

    async def _guarded(self, work: Coroutine[object, object, None]) -> None:
        """What fails in a way that nobody has thought of stops everything in good order, and is raised at the end."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - raised at the end
            self._defect = self._defect if self._defect is not None else error
            self._halt.now("an unexpected error")

    def _finish(self, campaign_id: str, ledger: Ledger) -> None:
        state = state_of(ledger.item(campaign_id), self._choices.asked)
        if campaign_id in self._finished:
            return
        self._finished.add(campaign_id)
        ledger.finish(campaign_id, state)
        self._end_campaign(campaign_id, ledger)
        if state != "succeeded" and self._choices.fail_fast:
            self._halt.now(f"campaign {campaign_id} was not run as wanted, and fail_fast was asked for")
