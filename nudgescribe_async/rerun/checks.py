"""What is looked at before anything is sent: whether there is such a campaign, such a group, and nothing in the way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from nudgescribe_async.errors import NudgescribeError, PermissionDeniedError
from nudgescribe_async.rerun.decide import named, stands, whole

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from nudgescribe_async.rerun.halt import Halt
    from nudgescribe_async.rerun.item import RerunItem
    from nudgescribe_async.rerun.service import ListedCampaign, Service

__all__ = ["Checked", "Failed", "Passed", "Refused", "check_all"]


@frozen
class Passed:
    """Nothing stands in the way, as far as the service says."""

    campaign_name: str | None
    run_number: int | None = None
    """The current run, as far as the list of campaigns says."""


@frozen
class Refused:
    """It must not be run."""

    reason: str
    campaign_name: str | None = None


@frozen
class Failed:
    """It could not be looked at."""

    error: NudgescribeError
    campaign_name: str | None = None


Checked: TypeAlias = Passed | Refused | Failed


async def check_all(
    items: Iterable[RerunItem], service: Service, halt: Halt, *, concurrency: int
) -> Mapping[str, Checked]:
    """Look at campaigns, several at a time. Where it is time to stop, those not looked at are missing.

    What the service does not say, or does not let these credentials see of the groups, is left for it to judge.

    Raises:
        NudgescribeError: the campaigns of the account cannot be had.
    """
    wanted = list(items)
    slots = asyncio.Semaphore(concurrency)
    if not wanted:
        return {}
    listed = await service.campaigns()
    workspaces = {listed[item.campaign_id].workspace_id for item in wanted if item.campaign_id in listed}
    groups: dict[str, frozenset[str] | NudgescribeError | None] = {}
    found: dict[str, Checked] = {}

    async def ask_groups(workspace_id: str) -> None:
        async with slots:
            try:
                groups[workspace_id] = await service.groups(workspace_id)
            except PermissionDeniedError:
                groups[workspace_id] = None
            except NudgescribeError as error:
                groups[workspace_id] = error

    async def look(left: Iterable[RerunItem]) -> None:
        for item in left:
            if halt:
                return
            found[item.campaign_id] = await _look(item, listed, groups, service, slots)

    await _all(ask_groups(workspace_id) for workspace_id in sorted(workspaces))
    left = iter(wanted)
    await _all(look(left) for _ in range(min(concurrency, len(wanted))))
    return found


async def _all(works: Iterable[Coroutine[object, object, None]]) -> None:
    """Do them at once. What fails in a way that nobody has thought of ends the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work, name="nudgescribe rerun check")
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


async def _look(
    item: RerunItem,
    listed: Mapping[str, ListedCampaign],
    groups: Mapping[str, frozenset[str] | NudgescribeError | None],
    service: Service,
    slots: asyncio.Semaphore,
) -> Checked:
    there = listed.get(item.campaign_id)
    if there is None:
        return Refused("The account has no such campaign.")
    name, status = there.campaign.campaign_name, there.campaign.campaign_status
    known = groups[there.workspace_id]
    if isinstance(known, NudgescribeError):
        return Failed(known, name)
    if known is not None and item.new_customer_group_id not in known:
        return Refused("The workspace of the campaign has no such customer group.", name)
    if status is not None and stands(status) != "published":
        return Refused(f"The campaign is {named(str(status))!r}, and must be 'Published'.", name)
    try:
        async with slots:
            messages = await service.messages(item.campaign_id)
    except NudgescribeError as error:
        return Failed(error, name)
    left = sum(
        not message.is_archived and message.review_status is not None and stands(message.review_status) != "published"
        for message in messages
    )
    if left:
        are = "message of its current run is" if left == 1 else "messages of its current run are"
        of = sum(not message.is_archived for message in messages)
        return Refused(f"{left:,} of {of:,} {are} not 'Published'.", name)
    return Passed(name, whole(there.campaign.run_number))
