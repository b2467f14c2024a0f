"""The journal as the event loop sees it: what is written is told, and why something stands where it stands is kept."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from nudgescribe_async.errors import JournalError
from nudgescribe_async.events import RerunProgress
from nudgescribe_async.rerun.decide import named
from nudgescribe_async.rerun.item import RUN_EXISTS
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from nudgescribe_async.errors import NudgescribeError
    from nudgescribe_async.events import Events
    from nudgescribe_async.rerun.halt import Halt
    from nudgescribe_async.rerun.item import RerunItem
    from nudgescribe_async.rerun.journal import Journal

__all__ = ["Ledger", "Note"]

_LOGGER = logging.getLogger("nudgescribe_async.rerun")


@frozen
class Note:
    """Why a campaign stands where it stands, in this call."""

    reason: str
    error: NudgescribeError | None = None


class Ledger:
    """Writes to the journal, one entry at a time, and tells everybody."""

    def __init__(
        self,
        journal: Journal,
        *,
        halt: Halt,
        operation: str,
        total: int,
        events: Events,
        on_event: Callable[[RerunProgress], object] | None,
    ) -> None:
        self.failure: JournalError | None = None
        self.interruption: BaseException | None = None
        self.notes: dict[str, Note] = {}
        self.names: dict[str, str] = {}
        self.listed_runs: dict[str, int] = {}
        self.statuses: dict[str, str] = {}
        self.sent = 0
        self._journal = journal
        self._halt = halt
        self._operation = operation
        self._total = total
        self._done = 0
        self._events = events
        self._on_event = on_event
        self._turn = asyncio.Lock()

    def item(self, campaign_id: str) -> RerunItem:
        """What is known of a campaign."""
        return self._journal.items[campaign_id]

    async def write(self, campaign_id: str, step: str, detail: str = "", **changes: Any) -> None:
        """Change what is known of a campaign. Returns once the disk has it.

        The journal keeps the status of the campaign as ``decide.named`` has it; ``statuses`` as the service does.

        Raises:
            JournalError: the disk does not have it. Nothing further is to be sent.
        """
        if (status := changes.get("campaign_status")) is not None:
            self.statuses[campaign_id] = str(status)
            changes["campaign_status"] = named(str(status))
        async with self._turn:
            item = evolve(self.item(campaign_id), **changes)
            if campaign_id in self.names:
                item = evolve(item, campaign_name=self.names[campaign_id])
            try:
                await in_thread(self._journal.write, item, step, detail)
            except JournalError as error:
                self.failure = self.failure if self.failure is not None else error
                self._halt.now("the journal cannot be written")
                raise
        self._tell(campaign_id, step, detail)

    def note(self, campaign_id: str, reason: str, error: NudgescribeError | None = None) -> None:
        """Keep why a campaign stands where it stands."""
        self.notes[campaign_id] = Note(reason, error)

    def finish(self, campaign_id: str, state: str) -> None:
        """This call has done with a campaign, and leaves it in a state, in the words of the report."""
        self._done += 1
        self._tell(campaign_id, state, "", final=True)

    def has_run(self, campaign_id: str) -> bool:
        """Whether a campaign has its new run."""
        return self.item(campaign_id).state in RUN_EXISTS

    def _tell(self, campaign_id: str, step: str, detail: str, *, final: bool = False) -> None:
        event = RerunProgress(
            operation=self._operation,
            campaign_id=campaign_id,
            step=step,
            detail=detail,
            done=self._done,
            total=self._total,
            final=final,
        )
        self._events.emit(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except (Exception, asyncio.CancelledError):  # whatever it does wrong is its own affair
                _LOGGER.exception("on_event failed on a %s.", step)
            except BaseException as error:  # noqa: BLE001 - it wants to end the program: in good order, if you please
                self.interruption = error if self.interruption is None else self.interruption
                self._halt.now(f"on_event raised {type(error).__name__}")
