"""What ``reruns run`` would do with a plan: campaign by campaign, before anything is sent that changes something.

From the plan and the journal alone, which asks nobody; or with the same look at the service that the run itself begins with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

from attrs import evolve, frozen

from nudgescribe_async.clock import SystemClock
from nudgescribe_async.errors import JournalError
from nudgescribe_async.rerun.checks import Failed, Passed, check_all
from nudgescribe_async.rerun.difference import Difference
from nudgescribe_async.rerun.halt import Halt
from nudgescribe_async.rerun.item import RUN_EXISTS, RerunItem
from nudgescribe_async.rerun.outcome import is_settled
from nudgescribe_async.rerun.service import ListedCampaign, Service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async import Nudgescribe
    from nudgescribe_async.cli.journal_view import JournalView
    from nudgescribe_async.endpoints.models import RunMessage
    from nudgescribe_async.rerun.outcome import Asked
    from nudgescribe_async.rerun.plan import RerunPlan

__all__ = ["MEANINGS", "Outlook", "Prospect", "Would", "checked_outlook", "outlook_of"]

Would: TypeAlias = Literal["run", "verify", "go on", "nothing", "refuse", "conflict", "unchecked"]

MEANINGS: Final[Mapping[Would, str]] = {
    "run": "would be run",
    "verify": "perhaps sent: the history would be asked first",
    "go on": "with a run already: the steps after it would be done",
    "nothing": "done already",
    "refuse": "would be refused",
    "conflict": "run by somebody else: nothing would be sent",
    "unchecked": "could not be looked at",
}


@frozen(kw_only=True)
class Prospect:
    """What would become of one campaign.

    Attributes:
        position: in the plan; the first is 1.
        campaign_id: the campaign.
        new_customer_group_id: the group that it is to be run for.
        would: what would be done.
        reason: why it would not be run, as a sentence.
        campaign_name: its name, as far as known.
        run_number: the run that it has by the journal; else its current run, as far as the service said.
    """

    position: int
    campaign_id: str
    new_customer_group_id: str
    would: Would
    reason: str = ""
    campaign_name: str | None = None
    run_number: int | None = None


@frozen(kw_only=True)
class Outlook:
    """What would become of a plan.

    Attributes:
        prospects: one for each item, in the order of the plan.
        checked: whether the service was asked.
    """

    prospects: tuple[Prospect, ...]
    checked: bool = False

    @property
    def counts(self) -> dict[Would, int]:
        """How many there are of each kind, those of which there are none included."""
        found: dict[Would, int] = dict.fromkeys(get_args(Would), 0)
        for prospect in self.prospects:
            found[prospect.would] += 1
        return found

    @property
    def changes_something(self) -> bool:
        """Whether anything may be sent that changes something."""
        counts = self.counts
        return bool(counts["run"] or counts["verify"] or counts["go on"])

    @property
    def is_clear(self) -> bool:
        """Whether nothing stands in the way of any campaign."""
        counts = self.counts
        return not (counts["refuse"] or counts["conflict"] or counts["unchecked"])


def outlook_of(
    plan: RerunPlan, view: JournalView | None, *, asked: Asked, service: str, amend: bool = False
) -> Outlook:
    """By the plan and the journal alone.

    Args:
        plan: what is to be run.
        view: the journal, if it was begun.
        asked: what is to be done with runs that exist.
        service: the address of the service.
        amend: whether the plan may differ from that of the journal in what was never sent.

    Raises:
        JournalError: the journal is for another service or plan, so that the run would refuse it.
    """
    known: Mapping[str, RerunItem] = {}
    if view is not None:
        _check(plan, view, service=service, amend=amend)
        known = view.by_campaign
    mistakes = plan.mistakes()
    prospects: list[Prospect] = []
    for index, request in enumerate(plan):
        fresh = RerunItem(campaign_id=request.campaign_id, new_customer_group_id=request.new_customer_group_id)
        item = known.get(request.campaign_id, fresh)
        if item.new_customer_group_id != request.new_customer_group_id:
            item = fresh
        prospect = Prospect(
            position=index + 1,
            campaign_id=request.campaign_id,
            new_customer_group_id=request.new_customer_group_id,
            would=_would(item, asked),
            campaign_name=item.campaign_name,
            run_number=item.run_number,
            reason=item.reason if item.state == "conflict" else "",
        )
        if index in mistakes:
            prospect = evolve(prospect, would="refuse", reason=mistakes[index])
        prospects.append(prospect)
    return Outlook(prospects=tuple(prospects))


async def checked_outlook(ns: Nudgescribe, outlook: Outlook, *, concurrency: int) -> Outlook:
    """The same, once the service was asked of the campaigns that would be run: reads only.

    Raises:
        NudgescribeError: the campaigns of the account cannot be had.
    """
    wanted = [
        RerunItem(campaign_id=each.campaign_id, new_customer_group_id=each.new_customer_group_id)
        for each in outlook.prospects
        if each.would == "run"
    ]
    # Only its three reads are called.
    service = cast("Service", _Reads(ns))
    found = await check_all(wanted, service, Halt(SystemClock()), concurrency=concurrency)

    def judged(prospect: Prospect) -> Prospect:
        seen = found.get(prospect.campaign_id) if prospect.would == "run" else None
        if seen is None:
            return prospect
        named = evolve(prospect, campaign_name=seen.campaign_name)
        if isinstance(seen, Passed):
            return evolve(named, run_number=seen.run_number)
        if isinstance(seen, Failed):
            return evolve(named, would="unchecked", reason=seen.error.message)
        return evolve(named, would="refuse", reason=seen.reason)

    return Outlook(prospects=tuple(map(judged, outlook.prospects)), checked=True)


def _would(item: RerunItem, asked: Asked) -> Would:
    if item.state == "conflict":
        return "conflict"
    if item.state in RUN_EXISTS:
        return "nothing" if is_settled(item, asked) else "go on"
    return "verify" if item.state == "intended" or item.attempts else "run"


def _check(plan: RerunPlan, view: JournalView, *, service: str, amend: bool) -> None:
    if view.service != service:
        raise _error(
            view,
            f"The journal {view.path} is for the service {view.service}, and not for {service}.",
            "Name another journal for another service.",
        )
    if view.plan == plan.digest:
        return
    change = Difference.between(view.by_campaign, plan)
    if not amend:
        repeated = len(change.repeated)
        raise _error(
            view,
            f"The journal {view.path} is for another plan: {len(change.removed):,} campaigns are only in the journal, "
            f"{len(change.added):,} only in the plan, {len(change.regrouped):,} in both, but for another group. It has run, or "
            f"may have run, {repeated:,} of this plan.",
            "If the plan was corrected, pass --amend: what was run stays, and is not run again. A new journal is for a new "
            "round, and runs everything again.",
        )
    if change.overturned:
        raise _error(
            view,
            f"The journal {view.path} cannot be amended: {len(change.overturned):,} campaigns were sent already, and the plan "
            f"has them no longer, or for another group: {', '.join(change.overturned[:3])}"
            f"{', ...' if len(change.overturned) > 3 else ''}.",
            "Take them back into the plan as they were: what was run is not run again.",
        )


def _error(view: JournalView, message: str, advice: str) -> JournalError:
    error = JournalError(message)
    error.path, error.advice = str(view.path), advice
    return error


class _Reads:
    """The reads that a check makes, by the public operations of a client."""

    def __init__(self, ns: Nudgescribe) -> None:
        self._ns = ns

    async def campaigns(self) -> dict[str, ListedCampaign]:
        return {
            campaign.campaign_id: ListedCampaign(workspace.workspace_id, campaign)
            for workspace in await self._ns.campaigns.list()
            for campaign in workspace.campaigns
        }

    async def groups(self, workspace_id: str) -> frozenset[str]:
        return frozenset(group.customer_group_id for group in await self._ns.customer_groups.list(workspace_id))

    async def messages(self, campaign_id: str) -> list[RunMessage]:
        return await self._ns.reruns.messages(campaign_id)
