"""The folder of the journals that nobody named: what the others there have run already.

A plan that is corrected is another plan, and has another journal in that folder. Those of its campaigns that the journal
of the plan before has run must not be run again, which the new one knows nothing of. So that what is read there stays
true, one call at a time works with that folder. Blocking: called in a thread.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from nudgescribe_async.bulk.files import InUseError, Lock
from nudgescribe_async.errors import JournalError
from nudgescribe_async.rerun.decide import folded
from nudgescribe_async.rerun.holder import read_holder, sign, signature
from nudgescribe_async.rerun.item import RUN_EXISTS
from nudgescribe_async.rerun.journal import APPLICATION, BUSY_SECONDS, VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from nudgescribe_async.rerun.item import RerunItem

__all__ = ["Shelf"]

_LOCK = "unnamed.lock"
_SELECT = (
    "SELECT i.campaign_id, i.new_customer_group_id, i.state, max(s.at) FROM items i JOIN steps s USING (campaign_id) "
    "WHERE (SELECT service FROM job) = ? AND i.state NOT IN ('planned', 'refused', 'conflict') GROUP BY i.campaign_id"
)


@frozen
class _Entry:
    journal: Path
    last: str
    """The moment of its last step."""


@define
class Shelf:
    """What other journals of a folder know. ``Shelf()`` knows of none."""

    _runs: dict[tuple[str, str], _Entry] = field(factory=dict[tuple[str, str], _Entry])
    _intentions: dict[str, _Entry] = field(factory=dict[str, _Entry])
    _lock: Lock | None = None

    @classmethod
    def beside(cls, journal: Path, service: str, *, now: float) -> Shelf:
        """Read the journals that are in the folder of this one, and are for the same service.

        Nobody else can until it is closed, or this process ends.

        Args:
            journal: the one that is of this plan. It is there.
            service: the address of the service.
            now: seconds since 1970.

        Raises:
            JournalError: somebody else holds the folder; or a journal there cannot be read, so nobody knows what it has run.
        """
        shelf = cls()
        try:
            shelf._take(journal, now)
            for path in sorted(journal.parent.glob("*.db")):
                if path.name != journal.name:
                    try:
                        shelf._read(path, service)
                    except (sqlite3.Error, OSError) as error:
                        raise _unreadable(path, str(error)) from error
        except BaseException:
            shelf.close()
            raise
        return shelf

    def close(self) -> None:
        """Let others in. May be called more than once."""
        if self._lock is not None:
            sign(self._lock, "")
            self._lock.release()
            self._lock = None

    def _take(self, journal: Path, now: float) -> None:
        path = journal.parent / _LOCK
        try:
            self._lock = Lock(path)
        except InUseError as error:
            holder = read_holder(path)
            held = JournalError(
                f"A call that names no journal is under way: {holder}. One at a time can keep its journal in {path.parent}, "
                "since what one runs must not be run by the other."
            )
            held.path, held.holder = str(journal), holder
            held.advice = "Wait until it has ended, or name a journal: journal=PATH."
            raise held from error
        except OSError as error:
            raise _unreadable(path, error.strerror or str(error)) from error
        sign(self._lock, signature(now))

    def _read(self, path: Path, service: str) -> None:
        if not path.is_file() or not path.stat().st_size:
            return
        # Reading leaves files beside a journal that nobody has open, unless SQLite is told that it does not change.
        log = path.with_name(f"{path.name}-wal")
        how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
        with closing(sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=BUSY_SECONDS)) as connection:
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
                return
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                raise _unreadable(path, "it is of another version")
            for campaign_id, group, state, last in connection.execute(_SELECT, (service,)):
                entry = _Entry(path, last[:10])
                if state in RUN_EXISTS:
                    self._runs[campaign_id, folded(group)] = entry
                else:
                    self._intentions[campaign_id] = entry

    def objection(self, item: RerunItem) -> str:
        """Why a campaign should not be run for all that is known here; empty if there is no reason."""
        if (run := self._runs.get((item.campaign_id, folded(item.new_customer_group_id)))) is not None:
            return (
                f"It has its run for this very group already, last seen on {run.last}, says the journal {run.journal}. "
                "Leave it out of the plan. Only for a new round, name a journal of its own: journal=PATH."
            )
        if (intention := self._intentions.get(item.campaign_id)) is not None:
            return (
                f"A request to run it was sent on {intention.last}, and what became of it is not known, says the journal "
                f"{intention.journal}. First repeat the call that it is of, which finds out."
            )
        return ""


def _unreadable(path: Path, why: str) -> JournalError:
    error = JournalError(
        f"The journal {path}, beside the one for this plan, cannot be read: {why}. It may have run campaigns of this plan."
    )
    error.path = str(path)
    error.advice = "Move it away if you know that it has not, or name a journal: journal=PATH."
    return error
