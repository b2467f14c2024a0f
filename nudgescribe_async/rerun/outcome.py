"""From the line of the journal to the outcome in the report: pure functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from nudgescribe_async.endpoints.models import RerunComparison
from nudgescribe_async.rerun.decide import stands
from nudgescribe_async.rerun.follow import target_of
from nudgescribe_async.rerun.item import IS_PUBLISHED, RUN_EXISTS
from nudgescribe_async.rerun.report import RerunOutcome

if TYPE_CHECKING:
    from nudgescribe_async.rerun.item import RerunItem, RerunStep
    from nudgescribe_async.rerun.ledger import Note
    from nudgescribe_async.rerun.plan import RerunRequest
    from nudgescribe_async.rerun.report import RerunState

__all__ = ["Asked", "is_settled", "outcome_of", "state_of"]


@frozen(kw_only=True)
class Asked:
    """What is to be done with a run that exists."""

    wait: bool
    publish: bool
    directory: Path | None
    """Where its messages are to be downloaded to; ``None`` if they are not."""

    @property
    def download(self) -> bool:
        """Whether its messages are to be downloaded."""
        return self.directory is not None

    @property
    def follow(self) -> bool:
        """Whether anything is to be done with it."""
        return self.wait or self.download


def outcome_of(
    position: int,
    request: RerunRequest,
    item: RerunItem,
    *,
    asked: Asked,
    note: Note | None = None,
    steps: tuple[RerunStep, ...] = (),
    stopped: str = "",
    status: str | None = None,
) -> RerunOutcome:
    """What became of one campaign.

    Args:
        position: in the plan; the first is 1.
        request: what was wanted.
        item: what the journal knows.
        asked: what was to be done with the run.
        note: why it stands where it stands, if this call knows.
        steps: what happened.
        stopped: why the call stopped before its end, if it did.
        status: what the service said of the campaign in this call, if it said anything.
    """
    state = state_of(item, asked)
    return RerunOutcome(
        position=position,
        campaign_id=request.campaign_id,
        new_customer_group_id=request.new_customer_group_id,
        state=state,
        reason="" if state == "succeeded" else _reason(item, asked, state, note, stopped),
        campaign_name=item.campaign_name,
        previous_run=item.newest_run,
        run_number=item.run_number if item.state in RUN_EXISTS else None,
        rerun_id=item.rerun_id,
        adopted=item.adopted,
        attempts=item.attempts,
        campaign_status=status if status is not None else item.campaign_status,
        archived_count=item.archived_count,
        comparison=_comparison(item),
        published=item.state in IS_PUBLISHED,
        directory=None if item.directory is None else Path(item.directory),
        files=item.files,
        steps=steps,
        error=None if note is None or state == "succeeded" else note.error,
    )


def state_of(item: RerunItem, asked: Asked) -> RerunState:
    """How a campaign stands, in the words of the report."""
    match item.state:
        case "planned":
            return "not_started"
        case "intended":
            return "unknown"
        case "refused" | "conflict":
            return item.state
        case _:
            return "unfinished" if _left(item, asked) else "succeeded"


def is_settled(item: RerunItem, asked: Asked) -> bool:
    """Whether a call has nothing to do with a campaign, and nothing to ask."""
    if item.state == "ready":
        return not asked.follow  # people may have moved it on
    return state_of(item, asked) in {"succeeded", "conflict"}


def _left(item: RerunItem, asked: Asked) -> str:
    """What is left to do with a run, and can be done without people."""
    match item.state:
        case "failed":
            return "The service has failed in its work on it"
        case "started" if asked.follow:
            return "It is not known to be ready"
        case "ready" if (asked.publish or asked.download) and stands(item.campaign_status) in {
            "publishable",
            "working",
        }:
            return "It is not published" if asked.publish else "It is not published, so there is nothing to download"
        case "publishing" if asked.follow:
            return "It is not known to be published"
        case "published" if asked.download:
            return "Its messages are not downloaded"
        case "downloaded" if asked.directory is not None and item.directory != str(target_of(item, asked.directory)):
            return "Its messages are downloaded, but not into the folder that is asked for"
        case _:
            return ""


def _reason(item: RerunItem, asked: Asked, state: RerunState, note: Note | None, stopped: str) -> str:
    if note is not None:
        return note.reason
    if item.reason:
        return item.reason
    because = f", since the call stopped: {stopped}." if stopped else "."
    if item.state == "failed":
        because = ". Ask the service what is wrong with the campaign; the same call looks again."
    match state:
        case "unknown":
            return f"It was sent, and what became of it is not known{because} The same call again finds out."
        case "not_started":
            return f"It was not sent{because}"
        case _:
            return f"Run {item.run_number} is there. {_left(item, asked)}{because}"


def _comparison(item: RerunItem) -> RerunComparison | None:
    if item.matched_count is None or item.new_count is None or item.orphaned_count is None:
        return None
    return RerunComparison(
        matched_count=item.matched_count, new_count=item.new_count, orphaned_count=item.orphaned_count
    )
