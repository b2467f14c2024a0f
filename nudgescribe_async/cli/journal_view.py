"""A journal of reruns as somebody sees it who only looks: nothing is asked of the service, and nothing is written.

``reruns.run`` opens a journal for itself alone; here it is read beside a call that is at work with it, and no file is
made, changed or locked. What a journal does not say is what the call was asked to do with its runs (``--wait``,
``--publish``, ``--download``); that is taken from the steps: what was begun was asked for.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from nudgescribe_async.errors import JournalError
from nudgescribe_async.rerun.follow import target_of
from nudgescribe_async.rerun.holder import holder_in
from nudgescribe_async.rerun.item import RerunStep
from nudgescribe_async.rerun.journal import APPLICATION, BUSY_SECONDS, COLUMNS, VERSION, read_item, read_text
from nudgescribe_async.rerun.outcome import Asked, outcome_of
from nudgescribe_async.rerun.plan import RerunRequest
from nudgescribe_async.rerun.report import RerunReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async.rerun.item import RerunItem

__all__ = ["JournalView", "read_journal"]

_JOB: Final = "SELECT plan_digest, service, created_at, opened_at FROM job"
_ITEMS: Final = f"SELECT position, {', '.join(COLUMNS)} FROM items ORDER BY position"  # noqa: S608 - names of our own
_STEPS: Final = "SELECT campaign_id, at, step, detail FROM steps ORDER BY id"
_FOLLOWED: Final = {"ready", "publishing", "published", "downloaded", "failed"}
_OTHER_FILE: Final = "Name the journal of `nudgescribe reruns run`."


@frozen(kw_only=True)
class JournalView:
    """What a journal says.

    Attributes:
        path: the file.
        plan: the digest of the plan that it is for.
        service: the address of the service that it is for.
        began: when it was begun.
        opened: when a call last began with it.
        items: what is known of each campaign, by its position in the plan; the first is 1.
        steps: what happened to each, oldest first.
        holder: who has not closed it: who is at work with it, or was ended without a word; empty if nobody.
        at_work: whether that process is there, as far as this machine can tell.
    """

    path: Path
    plan: str
    service: str
    began: datetime
    opened: datetime
    items: Mapping[int, RerunItem]
    steps: Mapping[str, tuple[RerunStep, ...]]
    holder: str = ""
    at_work: bool = False

    @property
    def by_campaign(self) -> Mapping[str, RerunItem]:
        """What is known of each campaign, by its id."""
        return {item.campaign_id: item for item in self.items.values()}

    @property
    def missing(self) -> int:
        """How many items of the plan stand before the last one and are not in it, since something is wrong with them."""
        return max(self.items, default=0) - len(self.items)

    @property
    def asked(self) -> Asked:
        """What was to be done with the runs, as far as the steps show."""
        items = self.items.values()
        folder = None
        for item in items:
            if item.directory is not None and target_of(item, Path(item.directory).parents[1]) == Path(item.directory):
                folder = Path(item.directory).parents[1]
        return Asked(
            wait=any(step.step in _FOLLOWED for steps in self.steps.values() for step in steps),
            publish=any(item.publish_attempts for item in items),
            directory=folder,
        )

    def report(self) -> RerunReport:
        """All calls with this journal together, as one report."""
        asked = self.asked
        outcomes = tuple(
            outcome_of(
                position,
                RerunRequest(item.campaign_id, item.new_customer_group_id),
                item,
                asked=asked,
                steps=self.steps.get(item.campaign_id, ()),
            )
            for position, item in self.items.items()
        )
        ends = [end for outcome in outcomes if (end := outcome.ends) is not None]
        return RerunReport(
            outcomes=outcomes,
            journal=self.path,
            began=self.began,
            ended=max([self.opened, *ends]),
            sent=sum(item.attempts for item in self.items.values()),
        )


def read_journal(path: str | os.PathLike[str]) -> JournalView:
    """Look into a journal. It blocks.

    Raises:
        JournalError: there is none, it is of another version or damaged, or cannot be read.
    """
    file = Path(path).absolute()
    if not file.is_file() or not file.stat().st_size:
        raise _error(file, f"There is no journal {file}.", _OTHER_FILE)
    holder, at_work = _holder(file)
    # A log that nobody has open is left by a crash, and holds what was written last. Without one, reading must not make any.
    log = file.with_name(f"{file.name}-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?{how}", uri=True, timeout=BUSY_SECONDS)) as connection:
            connection.text_factory = read_text
            _check(file, connection)
            plan, service, began, opened = connection.execute(_JOB).fetchone()
            items = {position: read_item(row) for position, *row in connection.execute(_ITEMS)}
            steps: dict[str, list[RerunStep]] = {}
            for campaign, at, step, detail in connection.execute(_STEPS):
                steps.setdefault(campaign, []).append(
                    RerunStep(at=datetime.fromisoformat(at), step=step, detail=detail)
                )
            return JournalView(
                path=file,
                plan=plan,
                service=service,
                began=datetime.fromisoformat(began),
                opened=datetime.fromisoformat(opened),
                items=items,
                steps={campaign: tuple(taken) for campaign, taken in steps.items()},
                holder=holder,
                at_work=at_work,
            )
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:
        what = "is no SQLite database" if "not a database" in str(error) else f"cannot be read: {error}"
        raise _error(file, f"{file} {what}.", _OTHER_FILE) from error


def _check(file: Path, connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise _error(file, f"{file} is a SQLite database, but no journal of reruns.", _OTHER_FILE)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        advice = "Look at it with the nudgescribe_async that began it, or with a later one."
        raise _error(file, f"The journal {file} has version {version}, and this reads version {VERSION}.", advice)


def _holder(file: Path) -> tuple[str, bool]:
    """Who has signed the lock file. Taking the lock would tell for sure, and might turn a run away in that moment."""
    with suppress(OSError):
        text = file.with_name(f"{file.name}.lock").read_text(errors="replace")
        if text.strip():
            return holder_in(text), _is_there(text)
    return "", False


def _is_there(text: str) -> bool:
    try:
        said = json.loads(text.partition("\n")[0])
        process, machine = int(said["process"]), said["machine"]
    except (ValueError, TypeError, KeyError):
        return True
    if machine != platform.node():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _error(file: Path, message: str, advice: str) -> JournalError:
    error = JournalError(message)
    error.path, error.advice = str(file), advice
    return error
