"""The calls that reruns are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from attrs import evolve, frozen

from nudgescribe_async.arguments import kind
from nudgescribe_async.bulk.download.job import download
from nudgescribe_async.endpoints.campaigns import LIST as LIST_CAMPAIGNS
from nudgescribe_async.endpoints.customer_groups import LIST as LIST_GROUPS
from nudgescribe_async.endpoints.messages import PUBLISH
from nudgescribe_async.endpoints.reruns import HISTORY, INITIATE, MESSAGES
from nudgescribe_async.errors import ResponseDecodeError
from nudgescribe_async.options import CallOptions, RetryPolicy, bulk
from nudgescribe_async.rerun.decide import MOST

if TYPE_CHECKING:
    from pathlib import Path

    from nudgescribe_async.bulk.download import DownloadReport
    from nudgescribe_async.endpoints.models import (
        Campaign,
        PublishReceipt,
        RerunReceipt,
        RerunRecord,
        RunMessage,
    )
    from nudgescribe_async.rerun.once import Once
    from nudgescribe_async.session import Session

__all__ = ["ListedCampaign", "Service"]


@frozen
class ListedCampaign:
    """A campaign, and the workspace that it is in."""

    workspace_id: str
    campaign: Campaign


class Service:
    """What is asked of the service. What belongs to something that has begun may be asked while the client closes."""

    def __init__(self, session: Session, options: CallOptions | None) -> None:
        if options is not None and not isinstance(cast("object", options), CallOptions):
            raise TypeError(f"options must be CallOptions(...); got {kind(options)}.")
        self._session = session
        self._options = bulk(options)
        # Before anything is sent again, the history is asked and the intention written down: not here.
        self._options_once = evolve(self._options, retries=RetryPolicy(attempts=1))
        self.patience = session.retry_policy(self._options)

    async def campaigns(self, *, closing: bool = False) -> dict[str, ListedCampaign]:
        """All campaigns of the account, by their ids."""
        workspaces = await self._session.call(LIST_CAMPAIGNS, {}, self._options, closing=closing)
        return {
            campaign.campaign_id: ListedCampaign(workspace.workspace_id, campaign)
            for workspace in workspaces
            for campaign in workspace.campaigns
        }

    async def groups(self, workspace_id: str) -> frozenset[str]:
        """The customer groups of a workspace."""
        groups = await self._session.call(LIST_GROUPS, {"workspace_id": workspace_id}, self._options)
        return frozenset(group.customer_group_id for group in groups)

    async def messages(self, campaign_id: str) -> list[RunMessage]:
        """The active messages of the current run."""
        return await self._session.call(MESSAGES, {"campaign_id": campaign_id}, self._options)

    async def history(self, campaign_id: str, *, closing: bool = False) -> list[RerunRecord]:
        """All runs of a campaign."""
        records = await self._session.call(HISTORY, {"campaign_id": campaign_id}, self._options, closing=closing)
        for record in records:
            _check_number(record.run_number, HISTORY.operation)
        return records

    async def initiate(self, campaign_id: str, customer_group_id: str, once: Once) -> RerunReceipt:
        """Run a campaign again: one request, whatever comes of it."""
        asked = {"campaign_id": campaign_id, "new_customer_group_id": customer_group_id}
        receipt = await self._session.call(INITIATE, asked, self._options_once, closing=True, once=once)
        try:
            _check_number(receipt.run_number, INITIATE.operation)
        except ResponseDecodeError as error:
            error.may_have_taken_effect, error.look = True, INITIATE.look
            raise
        return receipt

    async def publish(self, campaign_id: str, once: Once) -> PublishReceipt:
        """Publish the messages of the current run: one request, whatever comes of it."""
        asked = {"campaign_id": campaign_id}
        return await self._session.call(PUBLISH, asked, self._options_once, closing=True, once=once)

    async def download(self, campaign_id: str, directory: Path, run_number: int) -> DownloadReport:
        """All message files of a run, into a directory."""
        # A run that is named cannot be mixed up with one that somebody makes meanwhile.
        return await download(
            self._session,
            campaign_id,
            directory,
            run_number,
            concurrency=2,
            via="csv",
            overwrite=False,
            options=self._options,
        )


def _check_number(run_number: int, operation: str) -> None:
    if not 0 <= run_number < MOST:
        raise ResponseDecodeError(
            "The service numbers a run as none can be numbered.",
            path="run_number",
            expected="a number of a run",
            received="another number",
            operation=operation,
        )
