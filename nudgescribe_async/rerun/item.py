"""What is known of one campaign of a plan, and how that may change: the line that the journal keeps of it.

::

    planned ──> intended ──> started ──> ready ──> publishing ──> published ──> downloaded
      │  ^       │  │  ^ │      │          ^  │         │             ^
      v  │       v  │  └─┘      v          │  └─────────│─────────────┘  somebody else has published it
    refused <────┘  v         failed ──────┘            └──> ready       it was not published
                 conflict

What was intended once and thought to have had no effect may turn out, in a later call, to have arrived after all: so
``planned`` and ``refused`` may become ``started`` or ``conflict`` as well.

``planned``
    Nothing was sent, or what was sent has provably had no effect.
``intended``
    A request may have been sent, and its outcome is not known: before anything else, the history must be asked.
``refused``
    It may not be run, and was not. Nothing has changed, so a later call looks again.
``conflict``
    Somebody else has run the campaign for another group meanwhile. Final.
``started``
    The campaign has its one new run.
``ready``
    The service has ended its work on the run: it is to be reviewed, or may be published.
``publishing``
    Publication may have been asked for, and whether it was is not known.
``published``, ``downloaded``
    What they say.
``failed``
    The service has failed in its work on the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, TypeAlias

from attrs import frozen

__all__ = ["IS_PUBLISHED", "RUN_EXISTS", "ItemState", "RerunItem", "RerunStep", "check_move"]

ItemState: TypeAlias = Literal[
    "planned",
    "intended",
    "refused",
    "conflict",
    "started",
    "ready",
    "publishing",
    "published",
    "downloaded",
    "failed",
]

RUN_EXISTS: Final[frozenset[ItemState]] = frozenset(
    {"started", "ready", "publishing", "published", "downloaded", "failed"}
)
"""The states of a campaign that has its new run."""

IS_PUBLISHED: Final[frozenset[ItemState]] = frozenset({"published", "downloaded"})
"""Those in which its messages are known to be published."""

_MOVES: Final[Mapping[ItemState, frozenset[ItemState]]] = {
    "planned": frozenset({"intended", "refused", "started", "conflict"}),
    "refused": frozenset({"planned", "intended", "started", "conflict"}),
    "intended": frozenset({"planned", "started", "refused", "conflict"}),
    "conflict": frozenset(),
    "started": frozenset({"ready", "published", "failed"}),
    "ready": frozenset({"publishing", "published", "failed"}),
    "publishing": frozenset({"ready", "published", "failed"}),
    "published": frozenset({"downloaded"}),
    "downloaded": frozenset(),
    "failed": frozenset({"ready", "published"}),
}


def check_move(before: ItemState, after: ItemState) -> None:
    """Whether what is known of a campaign may change so. To stay the same is always possible.

    Raises:
        ValueError: it may not; there is a defect in this package.
    """
    if after != before and after not in _MOVES[before]:
        raise ValueError(f"A campaign that is {before!r} cannot become {after!r}.")


@frozen(kw_only=True)
class RerunStep:
    """Something that happened to one campaign of a plan.

    Attributes:
        at: when, by the clock of the machine; UTC.
        step: what: ``"refused"``, ``"intended"``, ``"started"``, ``"adopted"``, ``"lost"``, ``"denied"``, ``"absent"``,
            ``"unsent"``, ``"conflict"``, ``"ready"``, ``"publishing"``, ``"published"``, ``"downloaded"``, ``"failed"``; and
            where the plan was amended ``"added"``, ``"amended"``, ``"removed"``.
        detail: a few words more, without any of the service's own.
    """

    at: datetime
    step: str
    detail: str = ""


@frozen(kw_only=True)
class RerunItem:
    """What the journal knows of one campaign.

    Attributes:
        campaign_id: the campaign.
        new_customer_group_id: the group that it is to be run for.
        state: see the text of the module.
        campaign_name: the name, as far as it was asked for.
        attempts: requests to run the campaign that may have been sent.
        newest_run: the newest run that was known when the intention was written.
        run_number: the run that was made for this plan.
        rerun_id: its id.
        adopted: whether it was found in the history, and not in an answer.
        job_uid: the job of the service, if it said.
        campaign_status: what the service last said of the campaign.
        archived_count: messages of the run before that were archived.
        matched_count: segments that both runs have.
        new_count: segments that need new messages.
        orphaned_count: segments that only the run before had.
        publish_attempts: requests to publish it that may have been sent.
        publish_accepted: whether one of them was answered with success.
        directory: where the messages of the run were downloaded to.
        files: how many files they are.
        reason: why it stands where it stands, without words of the service.
    """

    campaign_id: str
    new_customer_group_id: str
    state: ItemState = "planned"
    campaign_name: str | None = None
    attempts: int = 0
    newest_run: int | None = None
    run_number: int | None = None
    rerun_id: str | None = None
    adopted: bool = False
    job_uid: str | None = None
    campaign_status: str | None = None
    archived_count: int | None = None
    matched_count: int | None = None
    new_count: int | None = None
    orphaned_count: int | None = None
    publish_attempts: int = 0
    publish_accepted: bool = False
    directory: str | None = None
    files: int | None = None
    reason: str = ""
