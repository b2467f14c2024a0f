"""Waiting until the service has ended its work on runs: many at a time, with few requests.

While more than three are waited for, each look is one request for all of them (``campaigns.list``); only where that says
that a campaign has come as far as is waited for, or does not say, its history is asked. Where a history does not say where
the campaign stands, the list is believed. A list that fails once is done without: nobody is looked at. If it fails again,
or will never be had, the histories are asked instead. The looks are one second apart at first, then more, up to half a
minute, and spread at random.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import backoff
from attrs import define, evolve, field

from nudgescribe_async.endpoints.models import CampaignStatus
from nudgescribe_async.errors import (
    ClientClosedError,
    DeadlineExceededError,
    NudgescribeError,
    RerunError,
    ResponseDecodeError,
)
from nudgescribe_async.rerun.decide import concerns_all, is_refusal, newest_run, stands
from nudgescribe_async.rerun.halt import StoppedWaitingError
from nudgescribe_async.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from nudgescribe_async.clock import Clock, Timer
    from nudgescribe_async.endpoints.models import RerunRecord
    from nudgescribe_async.rerun.service import ListedCampaign, Service

__all__ = ["Watch", "listed_status"]

FEW = 3
"""So many campaigns are asked for one by one."""
SOONEST = 1.0
LONGEST = 30.0
GROWTH = 1.5
LOOKS_FOR_MISSING = 3
"""So many looks without the run, at least, before it is said that there is none."""
LOOKS_IN_VAIN = 5
"""So many looks in a row may fail, each after its own retries; then it is no use to look again."""
LISTS_IN_VAIN = 2
"""After so many lists in a row that have failed, the campaigns are asked for one by one."""
LOOKS_WHILE_BEHIND = 3
"""So many times is a list believed that knows only an earlier run: it may lag behind, or never speak of runs."""


@define(eq=False)
class _Wait:
    campaign_id: str
    run_number: int
    until: frozenset[str]
    found: asyncio.Future[RerunRecord]
    missing: int = 0
    missing_since: float = 0.0
    vain: int = 0
    asking: asyncio.Task[None] | None = None
    error: NudgescribeError | None = None
    behind: int = 0
    status: str | None = field(default=None)

    def fail(self, error: BaseException) -> None:
        if not self.found.done():
            self.found.set_exception(error)


class Watch:
    """Looks for many. ``async with`` ends its task."""

    def __init__(
        self,
        service: Service,
        clock: Clock,
        slots: asyncio.Semaphore,
        operation: str,
        *,
        settle: float = 10.0,
        seen: Callable[[str, str], None] | None = None,
    ) -> None:
        """Make one.

        Args:
            service: who is asked.
            clock: the client's time.
            slots: one is taken for each request.
            operation: for errors.
            settle: seconds that a history may lag behind.
            seen: told where a campaign stands with each look: its id, its status.
        """
        self._settle = settle
        self._seen = seen
        self._service = service
        self._clock = clock
        self._slots = slots
        self._operation = operation
        self._waits: dict[_Wait, None] = {}  # in the order in which they came
        self._asking: set[asyncio.Task[None]] = set()
        self._lists_in_vain = 0
        self._list_error: NudgescribeError | None = None
        self._looking: asyncio.Task[None] | None = None
        self._interval = SOONEST
        self._rested: asyncio.Event | None = None
        self._timer: Timer | None = None
        self._due = 0.0
        self._stopped = False
        self._silent = False  # whether histories do not say where campaigns stand

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        await end({*self._asking, *(() if self._looking is None else (self._looking,))})

    async def until(
        self, campaign_id: str, run_number: int, states: frozenset[str], seconds: float | None = None
    ) -> RerunRecord:
        """The record of a run, once the campaign stands as wanted, or the service has failed.

        Args:
            campaign_id: the campaign.
            run_number: the run.
            states: how it may stand, in the words of ``decide.stands``.
            seconds: how long to wait.

        Raises:
            StoppedWaitingError: ``stop`` was called.
            DeadlineExceededError: time ran out.
            RerunError: there is no such run.
            NudgescribeError: the service refuses to say.
        """
        if self._stopped:
            raise StoppedWaitingError
        found: asyncio.Future[RerunRecord] = asyncio.get_running_loop().create_future()
        wait = _Wait(campaign_id, run_number, states | {"failed"}, found)
        self._waits[wait] = None
        self._interval = SOONEST
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on(), name="nudgescribe rerun watch")
        elif self._rested is not None and self._due - self._clock.monotonic() > SOONEST:
            self._wake_after(SOONEST, self._rested)  # the long pause is that of the others
        timer = None
        if seconds is not None:
            timer = self._clock.call_later(seconds, lambda: wait.fail(self._late(wait, seconds)))
        try:
            return await found
        finally:
            if timer is not None:
                timer.cancel()
            del self._waits[wait]
            if wait.asking is not None:
                wait.asking.cancel()  # nobody wants to know any more, and others want the slot
            if found.done() and not found.cancelled():
                found.exception()  # nobody else asks for it, if the waiting was cancelled in the same turn

    def stop(self) -> None:
        """Have nobody wait any more."""
        self._stopped = True
        for wait in self._waits:
            wait.fail(StoppedWaitingError())

    def close(self) -> None:
        """Have nobody wait any more, since the client closes."""
        self._stopped = True
        for wait in self._waits:
            wait.fail(ClientClosedError("The client was closed while a run was waited for.", operation=self._operation))

    def _late(self, wait: _Wait, seconds: float) -> DeadlineExceededError:
        status = f"The campaign is {wait.status!r}." if wait.status else "Nothing is known of it yet."
        error = DeadlineExceededError(
            f"Run {wait.run_number} was not ready within {seconds:g} s. {status}",
            may_have_taken_effect=False,
            operation=self._operation,
        )
        error.__cause__ = wait.error if wait.vain else self._list_error
        error.phase, error.advice = "waiting for the service to end its work", "Nothing has changed: wait again."
        return error

    async def _look_on(self) -> None:
        try:
            while self._waits:
                await self._look(tuple(self._waits))
                half, self._interval = self._interval / 2, min(self._interval * GROWTH, LONGEST)
                await self._rest(half + backoff.full_jitter(half))
        except Exception as error:  # noqa: BLE001 - a defect, here or in a transport, must leave nobody waiting
            for wait in self._waits:
                wait.fail(error)

    async def _rest(self, seconds: float) -> None:
        self._rested = asyncio.Event()
        self._wake_after(seconds, self._rested)
        try:
            await self._rested.wait()
        finally:
            self._rested = None
            if self._timer is not None:
                self._timer.cancel()

    def _wake_after(self, seconds: float, rested: asyncio.Event) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = self._clock.monotonic() + seconds
        self._timer = self._clock.call_later(seconds, rested.set)

    async def _look(self, waits: tuple[_Wait, ...]) -> None:
        listed: Mapping[str, ListedCampaign] | None = None
        if len(waits) <= FEW and not self._silent:
            self._lists_in_vain, self._list_error = 0, None
        else:
            try:
                async with self._slots:
                    if all(wait.found.done() for wait in waits):
                        return  # it took long to get the slot, and nobody wants to know any more
                    listed = await self._service.campaigns()
            except NudgescribeError as error:
                self._lists_in_vain += 1
                self._list_error = error
                if concerns_all(error):
                    for wait in waits:
                        wait.fail(error)
                if not _lasts(error) and self._lists_in_vain < LISTS_IN_VAIN:
                    return
            else:
                self._lists_in_vain, self._list_error = 0, None
        for wait in waits:
            if wait.found.done():  # meanwhile
                continue
            if listed is not None and (status := _status_in(listed, wait)) is not None:
                self._tell(wait, status)
            # One that is slow to answer must not keep the others from being seen.
            if wait.asking is None and (listed is None or _worth_asking(wait, listed)):
                wait.asking = asyncio.create_task(self._ask(wait, listed), name="nudgescribe rerun watch")
                self._asking.add(wait.asking)
                wait.asking.add_done_callback(self._asking.discard)

    async def _ask(self, wait: _Wait, listed: Mapping[str, ListedCampaign] | None) -> None:
        try:
            async with self._slots:
                history = await self._service.history(wait.campaign_id)
            self._judge(wait, history, listed)
        except NudgescribeError as error:
            self._give_up(wait, error)
        except Exception as error:  # noqa: BLE001 - a defect elsewhere is raised where the run is waited for
            wait.fail(error)
        finally:
            wait.asking = None
        if wait.found.done():
            self._interval = SOONEST

    def _judge(self, wait: _Wait, history: Sequence[RerunRecord], listed: Mapping[str, ListedCampaign] | None) -> None:
        wait.vain = 0
        record = next((record for record in history if record.run_number == wait.run_number), None)
        if record is None:
            now = self._clock.monotonic()
            wait.missing += 1
            wait.missing_since = now if wait.missing == 1 else wait.missing_since
            if wait.missing >= LOOKS_FOR_MISSING and now - wait.missing_since >= self._settle:
                newest = max((record.run_number for record in history), default=0)
                none = RerunError(
                    f"The campaign has no run {wait.run_number}; the newest is {newest}.", operation=self._operation
                )
                none.advice = "Look with reruns.history."
                wait.fail(none)
            return
        if newest_run(history) > wait.run_number and stands(record.campaign_status) not in wait.until:
            # Whatever the history calls it now: only what is published can have been run again.
            record = evolve(record, campaign_status=CampaignStatus.PUBLISHED)
        wait.missing = 0
        if record.campaign_status is None:
            self._silent = True
            if listed is None:  # the next look has the list, unless there is none to be had
                if self._list_error is not None:
                    self._do_without_list(wait, self._list_error)
                return
            record = evolve(record, campaign_status=listed_status(record, wait.campaign_id, listed))
        if record.campaign_status is not None:
            self._tell(wait, record.campaign_status)
        if stands(record.campaign_status) in wait.until and not wait.found.done():
            wait.found.set_result(record)

    def _give_up(self, wait: _Wait, error: NudgescribeError) -> None:
        """What passes is looked at again; what lasts ends the waiting."""
        wait.vain += 1
        wait.error = error
        if _lasts(error) or wait.vain >= LOOKS_IN_VAIN:
            wait.fail(error)

    def _do_without_list(self, wait: _Wait, error: NudgescribeError) -> None:
        """Neither the history nor the list says where the campaign stands."""
        if _lasts(error) or self._lists_in_vain >= LOOKS_IN_VAIN:
            wait.fail(error)

    def _tell(self, wait: _Wait, status: str) -> None:
        wait.status = str(status)
        if self._seen is not None:
            self._seen(wait.campaign_id, wait.status)


def _lasts(error: NudgescribeError) -> bool:
    """Whether the same question would have the same answer."""
    misfit = isinstance(error, ResponseDecodeError) and not error.unreadable
    return concerns_all(error) or is_refusal(error) or misfit


def listed_status(record: RerunRecord, campaign_id: str, listed: Mapping[str, ListedCampaign]) -> str | None:
    """Where a campaign stands, as far as the list of all tells it of this run."""
    if campaign_id not in listed:
        return None
    campaign = listed[campaign_id].campaign
    return campaign.campaign_status if campaign.run_number in {None, record.run_number} else None


def _status_in(listed: Mapping[str, ListedCampaign], wait: _Wait) -> str | None:
    there = listed.get(wait.campaign_id)
    return None if there is None or there.campaign.run_number != wait.run_number else there.campaign.campaign_status


def _worth_asking(wait: _Wait, listed: Mapping[str, ListedCampaign]) -> bool:
    if wait.campaign_id not in listed:
        return True
    campaign = listed[wait.campaign_id].campaign
    if campaign.run_number is None or campaign.campaign_status is None:
        return True
    if campaign.run_number < wait.run_number:
        wait.behind = (wait.behind + 1) % LOOKS_WHILE_BEHIND
        return not wait.behind
    if campaign.run_number > wait.run_number:
        return True
    return stands(campaign.campaign_status) in wait.until
