"""What follows once a campaign has its new run: waiting until the service has done with it, publishing, downloading."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from attrs import define, evolve

from nudgescribe_async.errors import (
    BadRequestError,
    ConflictError,
    DeadlineExceededError,
    NudgescribeError,
)
from nudgescribe_async.rerun.decide import SETTLED, brief, may_have_arrived, named, newest_run, stands
from nudgescribe_async.rerun.halt import StoppedWaitingError
from nudgescribe_async.rerun.item import IS_PUBLISHED
from nudgescribe_async.rerun.once import NotNowError, Once
from nudgescribe_async.rerun.watch import listed_status
from nudgescribe_async.rerun.worker import Trial, Worker
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from nudgescribe_async.endpoints.models import RerunRecord
    from nudgescribe_async.rerun.item import ItemState, RerunItem
    from nudgescribe_async.rerun.watch import Watch
    from nudgescribe_async.rerun.worker import Means

__all__ = ["Follower", "folder_name", "target_of"]

REQUESTS = 3
"""So often is publication asked for in one call, each time after it was verified that the time before had no effect."""
PATIENCE = 600.0
"""Seconds that a publication is waited for which the service has not accepted in so many words."""
_OUT = frozenset({"published", "in review"})
"""How a campaign stands that is not about to be published any more."""
_LONGEST = 200  # file systems have 255
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def folder_name(campaign_id: str) -> str:
    """The name of the folder for a campaign: its id, with whatever has a meaning in paths written as ``%2F``."""
    name = campaign_id if _PLAIN.fullmatch(campaign_id) else quote(campaign_id, safe="").replace(".", "%2E")
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 17]}-{hashlib.sha256(campaign_id.encode()).hexdigest()[:16]}"


def target_of(item: RerunItem, directory: Path) -> Path:
    """The folder for the messages of a run, wherever the process stands."""
    return directory.absolute() / folder_name(item.campaign_id) / f"run-{item.run_number}"


@define
class _Trial(Trial):
    under_way: bool = False
    """Whether the service is at it, whoever has asked."""
    behind: bool = False
    """Whether the history has lagged behind once."""


class Follower(Worker):
    """Follows runs."""

    def __init__(
        self, means: Means, watch: Watch, *, publish: bool, directory: Path | None, wait_timeout: float | None
    ) -> None:
        super().__init__(means)
        self._watch = watch
        self._publish = publish
        self._directory = directory
        self._wait_timeout = wait_timeout

    async def follow(self, campaign_id: str) -> None:
        """Take a run as far as is asked for and can be done without people. What becomes of it is in the ledger."""
        try:
            state = self._ledger.item(campaign_id).state
            if state in {"started", "failed"}:
                await self._until(campaign_id, SETTLED, self._wait_timeout)
            elif state == "ready":  # it may have been reviewed, or published, by people since
                await self._until(campaign_id, SETTLED | {"working"}, self._wait_timeout)
            item = self._ledger.item(campaign_id)
            where = stands(item.campaign_status)
            # Somebody else may have had it published: the service is at it then, and is waited for.
            wanted = where == "publishable" if self._publish else False
            wanted = wanted or (where == "working" and (self._publish or self._directory is not None))
            if item.state == "publishing" or (item.state == "ready" and wanted):
                await self._until_published(campaign_id)
            if self._directory is not None and not self._halt:
                await self._download(campaign_id, self._directory)
        except StoppedWaitingError:
            state = self._ledger.item(campaign_id).state
            before = "the run was ready"
            if state == "ready":
                before = "it was published" if self._publish else "it was seen where the run stands now"
            elif state == "publishing":
                before = "its publication, which was asked for, was seen"
            elif state in IS_PUBLISHED:
                before = "its messages were downloaded"
            self._ledger.note(campaign_id, f"The call stopped before {before}: {self._halt.why}.")
        except NudgescribeError as error:
            self._stop_if_hopeless(error)
            self._ledger.note(campaign_id, str(error), error)

    # --- waiting ---------------------------------------------------------------------------------------------------

    async def _until(self, campaign_id: str, states: frozenset[str], seconds: float | None) -> None:
        number = self._run_number(campaign_id)
        record = await self._watch.until(campaign_id, number, states, seconds)
        await self._write_status(campaign_id, record)

    async def _write_status(self, campaign_id: str, record: RerunRecord) -> None:
        """Take down where a run stands, if that is news."""
        item = self._ledger.item(campaign_id)
        state: ItemState
        match stands(record.campaign_status):
            case "published":
                state, step = "published", "published"
            case "failed":
                state, step = "failed", "failed"
            case _:
                state, step = "ready", "ready"
        status = record.campaign_status
        self._ledger.notes.pop(campaign_id, None)  # whatever went wrong before has not kept it from coming so far
        if (state, named(status)) != (item.state, item.campaign_status):
            says = f"{named(status)!r}"
            failed = f"The service has failed in its work on run {item.run_number}: the campaign is {says}."
            await self._ledger.write(
                campaign_id,
                step,
                f"the campaign is {says}",
                state=state,
                campaign_status=status,
                publish_accepted=False,
                reason=failed if state == "failed" else "",
            )
        elif status is not None:
            self._ledger.statuses[campaign_id] = str(status)

    def _run_number(self, campaign_id: str) -> int:
        number = self._ledger.item(campaign_id).run_number
        assert number is not None  # noqa: S101 - else it would not have a run
        return number

    # --- publishing ------------------------------------------------------------------------------------------------

    async def _until_published(self, campaign_id: str) -> None:
        trial = _Trial(Once(self._clock, self._halt))
        resumed = self._ledger.item(campaign_id).state == "publishing"
        if resumed:
            trial.late_until = self._began + self._settle
        while not self._ledger.item(campaign_id).publish_accepted:
            async with self._slots:
                if self._halt:
                    self._ledger.note(campaign_id, f"It was not published, since the call stopped: {self._halt.why}.")
                    return
                pause = await self._session.together(self._turn(campaign_id, trial), self._operation)
            if pause is None:
                break
            if not await self._halt.pause(pause):
                reason = f"It was not published, since the call stopped: {self._halt.why}."
                if self._ledger.item(campaign_id).state == "publishing":
                    reason = "Publication was asked for, and the call stopped before it was seen."
                self._ledger.note(campaign_id, reason)
                return
        item = self._ledger.item(campaign_id)
        if item.state != "publishing" and not trial.under_way:
            return
        if item.state == "publishing" and (resumed or not item.publish_accepted):
            # Not in so many words, or some time ago: it is not waited for without end.
            await self._until_seen(campaign_id, self._wait_timeout if self._wait_timeout is not None else PATIENCE)
        else:
            wanted = _OUT if item.state == "publishing" else SETTLED
            await self._until(campaign_id, wanted, self._wait_timeout)

    async def _until_seen(self, campaign_id: str, seconds: float) -> None:
        """Wait for a publication that may have come to nothing. If it has, a later call asks for it again."""
        statuses = self._ledger.statuses
        before = statuses.pop(campaign_id, None)
        try:
            await self._until(campaign_id, _OUT, seconds)
        except DeadlineExceededError as error:
            if stands(statuses.get(campaign_id)) != "publishable":
                raise  # the service is at it, or did not say: nothing is known to have come to nothing
            await self._ledger.write(
                campaign_id, "absent", "nothing came of the publication", state="ready", publish_accepted=False
            )
            again = "The same call" if self._publish else "A call with publish=True"
            reason = f"Publication was asked for, and nothing came of it within {seconds:g} s. {again} asks again."
            self._ledger.note(campaign_id, reason, error)
        finally:
            if before is not None:
                statuses.setdefault(campaign_id, before)

    async def _turn(self, campaign_id: str, trial: _Trial) -> float | None:
        """Look, and ask for publication: the seconds after which to look again, ``None`` if there is no need."""
        left = self._time_left(trial)  # asked before the look, as in start.py
        history = await self._service.history(campaign_id, closing=True)
        trial.once.looked()
        number = self._run_number(campaign_id)
        record = next((record for record in history if record.run_number == number), None)
        if record is None and newest_run(history) < number and not trial.behind:
            trial.behind = True  # a history may lag behind
            return max(self._settle, 1.0)
        if record is None:
            self._ledger.note(campaign_id, f"It was not published: the history does not have run {number} any more.")
            return None
        if newest_run(history) > number:
            reason = (
                f"It was not published: run {number} is not the newest run any more, somebody else has made another."
            )
            self._ledger.note(campaign_id, reason)
            return None
        if record.campaign_status is None:
            status = listed_status(record, campaign_id, await self._service.campaigns(closing=True))
            record = evolve(record, campaign_status=status)
        where = stands(record.campaign_status)
        if where == "working":
            trial.under_way = True
            return None
        if where != "publishable":
            await self._write_status(campaign_id, record)
            return None
        if left > 0:
            return left
        if not self._publish and self._ledger.item(campaign_id).state == "ready":
            await self._write_status(campaign_id, record)
            return None
        if trial.requests - trial.unsent >= REQUESTS or not self._publish:
            if trial.requests:
                self._ledger.note(campaign_id, f"Publication was asked for {REQUESTS} times, and had no effect.")
            await self._ledger.write(campaign_id, "ready", "publication had no effect", state="ready")
            return None
        return await self._ask(campaign_id, trial)

    async def _ask(self, campaign_id: str, trial: _Trial) -> float | None:
        item = self._ledger.item(campaign_id)
        unsure = item.state == "publishing"
        await self._ledger.write(
            campaign_id, "publishing", state="publishing", publish_attempts=item.publish_attempts + 1
        )
        trial.requests += 1
        try:
            await self._service.publish(campaign_id, trial.once)
        except NotNowError as not_now:
            if not_now.denied is not None:  # it was sent: as in start.py
                self._may_be_late(trial)
                await self._ledger.write(campaign_id, "denied", f"HTTP {not_now.denied}, {not_now.why}")
                return self._settle
            trial.requests -= 1
            state = "publishing" if unsure else "ready"
            await self._ledger.write(
                campaign_id, "unsent", not_now.why, state=state, publish_attempts=item.publish_attempts
            )
            return 0.0
        except NudgescribeError as error:
            self._ledger.note(campaign_id, str(error), error)
            self._stop_if_hopeless(error)
            if may_have_arrived(error):
                self._may_be_late(trial)
                await self._ledger.write(campaign_id, "lost", brief(error))
                return self._settle
            if unsure and isinstance(error, BadRequestError | ConflictError):
                return None  # it may be refused since the request before it has arrived: its effect is waited for
            await self._ledger.write(campaign_id, "unsent", brief(error), state="ready")
            return self._wait_to_repeat(campaign_id, error, trial)
        self._ledger.notes.pop(campaign_id, None)
        await self._ledger.write(campaign_id, "publishing", "the service has accepted it", publish_accepted=True)
        return None

    # --- downloading -----------------------------------------------------------------------------------------------

    async def _download(self, campaign_id: str, directory: Path) -> None:
        item, number = self._ledger.item(campaign_id), self._run_number(campaign_id)
        target = target_of(item, directory)
        if item.state not in IS_PUBLISHED:
            return
        if item.state == "downloaded" and item.directory == str(target) and await in_thread(target.is_dir):
            return
        async with self._slots:
            try:
                report = await self._halt.unless(self._service.download(campaign_id, target, number))
            except ValueError as error:  # something else stands where the folder is to be
                self._ledger.note(campaign_id, str(error))
                return
        await self._ledger.write(
            campaign_id,
            "downloaded",
            f"{report.pages} files, {report.rows} rows",
            state="downloaded",
            directory=str(target),
            files=report.pages,
        )
