"""``nudgescribe campaigns``: the campaigns of the account."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import App, Parameter

from nudgescribe_async.cli.context import InContext  # noqa: TC001 - read at run time
from nudgescribe_async.cli.output import Column
from nudgescribe_async.cli.plain import members
from nudgescribe_async.cli.wording import spoken_as_command

__all__ = ["app"]

app = App(name="campaigns")


@app.command(name="list")
async def list_campaigns(
    *,
    published_from: Annotated[
        datetime | None,
        Parameter(
            name="--from",
            help="Only those that were published at this moment or later, such as 2026-11-01 or "
            "2026-11-01T08:00:00+01:00. Without a zone it is UTC.",
        ),
    ] = None,
    published_to: Annotated[
        datetime | None, Parameter(name="--to", help="Only those that were published at this moment or before.")
    ] = None,
    workspace: Annotated[str | None, Parameter(help="Only those of the workspace with this id.")] = None,
    context: InContext,
) -> None:
    """List the campaigns of the account, of all its workspaces."""
    with spoken_as_command():
        async with context.client() as ns:
            workspaces = await ns.campaigns.list(_zoned(published_from), _zoned(published_to))
    found = [
        {"workspace_id": place.workspace_id, "workspace_name": place.workspace_name, **members(campaign)}
        for place in workspaces
        if workspace in {None, place.workspace_id}
        for campaign in place.campaigns
    ]
    context.output.table(
        found,
        [
            Column("id", whole=True),
            Column("name"),
            Column("status"),
            Column("run", right=True),
            Column("published"),
            Column("workspace"),
        ],
        lambda campaign: (
            campaign["campaign_id"],
            campaign["campaign_name"],
            campaign["campaign_status"],
            campaign["run_number"],
            campaign["published_at"],
            campaign["workspace_name"] or campaign["workspace_id"],
        ),
        empty="There are no such campaigns.",
    )


def _zoned(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
