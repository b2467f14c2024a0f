"""One campaign, until it has its one new run, or a reason why it has none.

Each request to run it is written down before it is sent, with the newest run that the history knows. Whatever comes of
it but a plain success, the history is asked what happened, and only then is anything decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from nudgescribe_async.errors import JournalError, NudgescribeError, RequestNotSentError
from nudgescribe_async.rerun.checks import Failed, Refused
from nudgescribe_async.rerun.decide import (
    Absent,
    Found,
    SomebodyElses,
    Unclear,
    brief,
    is_refusal,
    judge,
    may_have_arrived,
    newest_run,
    was_denied,
    whole,
)
from nudgescribe_async.rerun.once import NotNowError, Once
from nudgescribe_async.rerun.worker import Trial, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nudgescribe_async.endpoints.models import RerunReceipt, RerunRecord
    from nudgescribe_async.rerun.worker import Means

__all__ = ["Starter"]

AT_THE_END = 0.5
"""Seconds between two looks, at the most, once it is time to stop."""
REQUESTS = 5
"""So often is a campaign sent in one call, each time after it was verified that the time before had no effect."""
_NO_OTHER = "no other token could be had"


@define
class _Trial(Trial):
    never_sent: bool = False
    """Whether nothing of ours can be on its way or have arrived: then a newer run is no matter of ours."""
    refusal: NudgescribeError | None = None
    """What the service said of the last request, if that was no."""


class Starter(Worker):
    """Starts campaigns."""

    def __init__(self, means: Means, *, objections: Mapping[str, Refused | Failed]) -> None:
        """Make one.

        Args:
            means: what to work with.
            objections: what stands in the way of sending again what an earlier call has sent.
        """
        super().__init__(means)
        self._objections = objections
        self._list_counts_otherwise = False

    async def start(self, campaign_id: str) -> None:
        """See to it that a campaign has its one new run. What becomes of it is in the ledger.

        Closing the client gives it time; when it is time to stop, what may have had an effect is looked for on.
        """
        item = self._ledger.item(campaign_id)
        trial = _Trial(Once(self._clock, self._halt), never_sent=item.state != "intended" and not item.attempts)
        if item.state == "intended":
            # Left by a process that is gone, and so are its connections. When it went is not known; before now.
            trial.late_until = self._began + self._settle
        try:
            await self._session.together(self._see_through(campaign_id, trial), self._operation)
        except NudgescribeError as error:
            self._note(campaign_id, error)

    async def _see_through(self, campaign_id: str, trial: _Trial) -> None:
        while True:
            async with self._slots:
                if self._halt and not self._may_have_effect(campaign_id):
                    return
                pause = await self._turn(campaign_id, trial)
            if pause is None:
                return
            if not await self._halt.pause(pause):
                # What was sent is looked for as long as there is time: who stops says how long that is.
                await self._clock.sleep(min(pause, AT_THE_END))

    def _may_have_effect(self, campaign_id: str) -> bool:
        return self._ledger.item(campaign_id).state == "intended"

    def _note(self, campaign_id: str, error: NudgescribeError) -> None:
        self._stop_if_hopeless(error)
        sent = self._may_have_effect(campaign_id)
        if isinstance(error, JournalError):
            what = "It was sent, and what became of it could not be written" if sent else "It was not sent"
        else:
            what = "It was sent, and the history could not be asked" if sent else "It could not be looked at"
        self._ledger.note(campaign_id, f"{what}: {error}", error)

    async def _turn(self, campaign_id: str, trial: _Trial) -> float | None:
        """Look, send, look: the seconds after which to look again, ``None`` if there is nothing more to do."""
        # Asked before the look: what a look shows that began too early is no proof when it ends.
        late = self._time_left(trial) > 0
        history = await self._service.history(campaign_id, closing=True)
        trial.once.looked()
        item = self._ledger.item(campaign_id)
        if not trial.never_sent:
            if await self._decided(campaign_id, history, trial, late=late):
                return None
            if late:
                return self._time_left(trial)
            if not await self._is_absent(campaign_id, trial):
                return None
        if self._halt:
            return None
        if trial.requests - trial.unsent >= REQUESTS:
            reason = (
                f"It was sent {REQUESTS} times, and had no effect: the answers were lost, and the history has no run."
            )
            self._ledger.note(campaign_id, reason)
            return None
        if campaign_id in self._objections and not trial.requests:
            await self._object(campaign_id, self._objections[campaign_id])
            return None
        newest = None if trial.never_sent else item.newest_run
        if newest is None:
            listed = self._ledger.listed_runs.get(campaign_id)
            newest = max(newest_run(history), listed or 0)
            if listed is not None and newest > listed and await self._is_outrun(campaign_id, newest):
                await self._outrun(campaign_id, newest, listed)
                return None
        return await self._send(campaign_id, newest, trial)

    async def _is_outrun(self, campaign_id: str, newest: int) -> bool:
        """Whether a campaign has been run since it was checked, or the list of campaigns just counts in another way."""
        if self._list_counts_otherwise:
            return False
        there = (await self._service.campaigns(closing=True)).get(campaign_id)
        outrun = there is not None and there.campaign.run_number == newest
        self._list_counts_otherwise = not outrun
        return outrun

    async def _outrun(self, campaign_id: str, newest: int, listed: int) -> None:
        """Somebody was faster: nothing was sent, and the next call looks again."""
        reason = (
            f"The history has run {newest}, and when the campaign was checked its run was {listed}: somebody has run it "
            "meanwhile."
        )
        self._ledger.note(campaign_id, reason)
        await self._ledger.write(campaign_id, "refused", reason, state="refused", reason=reason)

    async def _object(self, campaign_id: str, objection: Refused | Failed) -> None:
        """What stands in the way of sending again what an earlier call has sent without effect."""
        if isinstance(objection, Failed):
            self._ledger.note(
                campaign_id, f"It could not be checked, so it was not sent again: {objection.error}", objection.error
            )
            return
        self._ledger.note(campaign_id, objection.reason)
        await self._ledger.write(campaign_id, "refused", objection.reason, state="refused", reason=objection.reason)

    async def _send(self, campaign_id: str, newest: int, trial: _Trial) -> float | None:
        item = self._ledger.item(campaign_id)
        await self._ledger.write(
            campaign_id,
            "intended",
            f"the newest run is {newest}",
            state="intended",
            newest_run=newest,
            attempts=item.attempts + 1,
            reason="",
        )
        trial.never_sent = False
        trial.requests += 1
        self._ledger.sent += 1
        try:
            receipt = await self._service.initiate(campaign_id, item.new_customer_group_id, trial.once)
        except NotNowError as not_now:
            if not_now.denied is not None:
                # It was sent, and whoever said no may not be the one who has the work: another token does not hurry it.
                trial.refusal = None
                return await self._lost(campaign_id, f"HTTP {not_now.denied}, {not_now.why}", trial, step="denied")
            trial.requests -= 1
            self._ledger.sent -= 1
            await self._ledger.write(
                campaign_id, "unsent", not_now.why, state="planned", attempts=item.attempts, reason=""
            )
            return 0.0
        except NudgescribeError as error:
            return await self._failed(campaign_id, error, trial)
        if receipt.run_number > newest:
            await self._write_receipt(campaign_id, receipt, newest)
            return None
        detail = f"the answer speaks of run {receipt.run_number}, and {newest} was there before"
        return await self._lost(campaign_id, detail, trial, run_number=receipt.run_number)

    async def _failed(self, campaign_id: str, error: NudgescribeError, trial: _Trial) -> float | None:
        self._stop_if_hopeless(error)
        self._ledger.note(campaign_id, str(error), error)
        trial.refusal = error if is_refusal(error) else None
        if trial.refusal is not None:
            # Whoever stands between may say no while the request goes its way, or may have sent it twice.
            return await self._lost(campaign_id, brief(error), trial, step="denied")
        if trial.once.let_go and was_denied(error):
            # The error says that nothing was sent, and means: not again.
            self._ledger.note(campaign_id, f"It was sent and refused, and {_NO_OTHER}.", error)
            return await self._lost(campaign_id, _NO_OTHER, trial, step="denied")
        if may_have_arrived(error):
            return await self._lost(campaign_id, brief(error), trial)
        attempts = self._ledger.item(campaign_id).attempts
        if isinstance(error, RequestNotSentError):
            attempts -= 1
            self._ledger.sent -= 1
        await self._ledger.write(
            campaign_id, "unsent", brief(error), state="planned", attempts=attempts, reason=brief(error)
        )
        return self._wait_to_repeat(campaign_id, error, trial)

    async def _lost(
        self, campaign_id: str, detail: str, trial: _Trial, *, step: str = "lost", run_number: int | None = None
    ) -> float | None:
        self._may_be_late(trial)
        await self._ledger.write(campaign_id, step, detail, run_number=run_number)
        history = await self._service.history(campaign_id, closing=True)
        if await self._decided(campaign_id, history, trial, late=True):
            return None
        return self._time_left(trial)

    async def _is_absent(self, campaign_id: str, trial: _Trial) -> bool:
        """Nothing has come, and nothing will: whether it may be sent again."""
        trial.late_until = None
        claimed = self._ledger.item(campaign_id).run_number
        if claimed is not None:
            reason = (
                f"The service said that it made run {claimed}, which cannot be a new one, and the history has no new run. "
                "Nothing more is sent. Look with reruns.history, and decide."
            )
            self._ledger.note(campaign_id, reason)
            return False
        if trial.refusal is not None:
            reason = brief(trial.refusal)
            await self._ledger.write(campaign_id, "refused", reason, state="refused", reason=reason)
            return False
        if self._may_have_effect(campaign_id):
            await self._ledger.write(campaign_id, "absent", f"no run within {self._settle:g} s", state="planned")
            self._ledger.note(campaign_id, "It was sent, and had no effect: the history has no new run.")
        return True

    async def _decided(self, campaign_id: str, history: Sequence[RerunRecord], trial: _Trial, *, late: bool) -> bool:
        """Whether the history tells what became of what was intended. ``late``: whether a request may arrive yet."""
        item = self._ledger.item(campaign_id)
        known = item.newest_run if item.newest_run is not None else newest_run(history)
        verdict = judge(history, newest_known=known, customer_group_id=item.new_customer_group_id)
        if isinstance(verdict, Absent):
            return False
        if isinstance(verdict, SomebodyElses) and late:
            return False  # ours may arrive yet, if that run is published first, and a conflict is final
        if isinstance(verdict, Found):
            await self._adopt(campaign_id, verdict)
        elif isinstance(verdict, Unclear):
            reason = (
                f"The history has a new run, {verdict.record.run_number}, and does not say for which group it is. "
                "Nothing more is sent. Look with reruns.history, and decide."
            )
            self._ledger.note(campaign_id, reason)
            if not self._may_have_effect(campaign_id):  # it was thought that there is no effect, and this may be it
                detail = f"run {verdict.record.run_number} is for nobody knows which group"
                await self._ledger.write(campaign_id, "lost", detail, state="intended", reason="")
        else:
            number = verdict.record.run_number
            reason = f"Run {number} is there, for another group than the wanted one: somebody else has made it."
            self._ledger.note(campaign_id, reason)
            await self._ledger.write(
                campaign_id, "conflict", f"run {number} is for another group", state="conflict", reason=reason
            )
        trial.late_until = None
        return True

    async def _adopt(self, campaign_id: str, found: Found) -> None:
        record, comparison = found.record, found.record.comparison
        self._ledger.notes.pop(campaign_id, None)
        others = f", and {found.others} more" if found.others else ""
        await self._ledger.write(
            campaign_id,
            "adopted",
            f"run {record.run_number} is in the history{others}",
            state="started",
            adopted=True,
            run_number=record.run_number,
            rerun_id=record.rerun_id,
            campaign_status=record.campaign_status,
            archived_count=whole(record.archived_count),
            matched_count=None if comparison is None else whole(comparison.matched_count),
            new_count=None if comparison is None else whole(comparison.new_count),
            orphaned_count=None if comparison is None else whole(comparison.orphaned_count),
            reason="",
        )

    async def _write_receipt(self, campaign_id: str, receipt: RerunReceipt, newest: int) -> None:
        self._ledger.notes.pop(campaign_id, None)
        await self._ledger.write(
            campaign_id,
            "started",
            f"run {receipt.run_number}"
            if receipt.run_number == newest + 1
            else f"run {receipt.run_number} after {newest}",
            state="started",
            run_number=receipt.run_number,
            rerun_id=receipt.rerun_id,
            job_uid=receipt.job_uid,
            campaign_status=receipt.campaign_status,
            archived_count=whole(receipt.archived_count),
            matched_count=whole(receipt.comparison.matched_count),
            new_count=whole(receipt.comparison.new_count),
            orphaned_count=whole(receipt.comparison.orphaned_count),
            reason="",
        )
