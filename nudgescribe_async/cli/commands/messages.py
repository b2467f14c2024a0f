"""``nudgescribe messages``: publishing the messages of a campaign, and fetching what was published."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.types import PositiveInt  # noqa: TC002 - read at run time

from nudgescribe_async.cli.context import InContext, Yes  # noqa: TC001 - read at run time
from nudgescribe_async.cli.ending import advising
from nudgescribe_async.cli.failures import CommandError, UsageError
from nudgescribe_async.cli.progress import Progress
from nudgescribe_async.cli.wording import same_command, spoken_as_command
from nudgescribe_async.errors import NudgescribeError, PermissionDeniedError
from nudgescribe_async.events import PageFetched

if TYPE_CHECKING:
    from nudgescribe_async.cli.output import Output
    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.endpoints.models import Campaign
    from nudgescribe_async.events import Event

__all__ = ["app"]

app = App(name="messages")

CampaignId = Annotated[str, Parameter(help="The id of the campaign.")]
LOOK_EVERY = 2.0
"""Seconds between two looks whether a campaign is published."""
_PUBLISHED = "published"
_LOOK = "`nudgescribe campaigns list` shows whether it is Published."


async def _campaign(ns: Nudgescribe, campaign_id: str) -> Campaign | None:
    """What the service says of a campaign; ``None`` if it does not let these credentials see campaigns.

    Raises:
        CommandError: the account has no such campaign.
    """
    try:
        workspaces = await ns.campaigns.list()
    except PermissionDeniedError:
        return None
    for workspace in workspaces:
        for campaign in workspace.campaigns:
            if campaign.campaign_id == campaign_id:
                return campaign
    raise CommandError(
        f"The account has no campaign {campaign_id!r}.", hint="`nudgescribe campaigns list` shows those that it has."
    )


@app.command
async def publish(
    campaign: CampaignId,
    /,
    *,
    wait: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    yes: Yes = False,
    context: InContext,
) -> None:
    """Publish the messages of a campaign.

    They are final then, and it counts against the quota of the account. Asks first. It is never sent twice by itself:
    if the answer gets lost, `nudgescribe campaigns list` tells whether it took effect.

    Args:
        wait: Wait until the service says that the campaign is published, and the files are there.
    """
    output, sent, asked = context.output, False, False

    def advice() -> str:
        if not sent:
            return f"It may have been published: {_LOOK}" if asked else "Nothing was published."
        return f"It was sent, and goes on at the service: {_LOOK}"

    with advising(advice), spoken_as_command():
        async with context.client() as ns:
            found = await _campaign(ns, campaign)
            name = campaign if found is None or not found.campaign_name else f"{found.campaign_name!r} ({campaign})"
            stands = "" if found is None or found.campaign_status is None else f", which is {found.campaign_status!s}"
            await context.confirm(
                f"Publish the messages of the campaign {name}{stands}? It counts against the quota.", yes=yes
            )
            asked = True
            receipt = await ns.messages.publish(campaign)
            sent = True
            files = await _published(ns, output, campaign) if wait else None
    document = {"campaign_id": campaign, "success": receipt.success, "job_uid": receipt.job_uid, "files": files}
    if files is None:
        output.document(document, f"The publication of {name} is queued. {_LOOK}")
    else:
        output.document(document, f"{name} is published: {files:,} file{'' if files == 1 else 's'} to download.")


async def _published(ns: Nudgescribe, output: Output, campaign_id: str) -> int:
    """Wait until there are files; how many they are."""
    with Progress(output.notes, "Publishing", "looks", shown=output.shows_progress) as progress:
        ns.events.subscribe(progress.hear)
        progress.say("waiting for the service")
        while True:
            found = await _campaign(ns, campaign_id)
            if found is None or str(found.campaign_status).lower() == _PUBLISHED:
                files = await ns.messages.count_pages(campaign_id)
                if files:
                    return files
            await asyncio.sleep(LOOK_EVERY)


@app.command
async def download(
    campaign: CampaignId,
    path: Path,
    /,
    *,
    run: PositiveInt | None = None,
    overwrite: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    concurrency: PositiveInt = 4,
    via: Literal["url", "csv"] = "url",
    context: InContext,
) -> None:
    """Download the published message files of a campaign into a folder.

    Each file is checked, and is what was published, byte for byte. Whatever ends the command, the same command goes
    on: files that are there and unchanged are not fetched again. manifest.json says what is there.

    Args:
        path: The folder. It is made if it is not there.
        run: A run in the history of the campaign. Default: the current one.
        overwrite: Replace the files of another run or campaign that are there.
        concurrency: Files under way at once.
        via: "url" fetches from the storage where the service gives signed URLs; "csv" always from the service.
    """
    output, files = context.output, 0
    _check_folder(path)

    def advice() -> str:
        kept = f"{files:,} files are there. " if files else ""
        return f"{kept}To go on, run it again: {same_command(sys.argv[1:])}"

    def hear(event: Event) -> None:
        nonlocal files
        if isinstance(event, PageFetched):
            files = event.done
            progress.update(event.done, event.total, event.items)
        else:
            progress.hear(event)

    with advising(advice), spoken_as_command():
        async with context.client() as ns:
            with Progress(output.notes, "Downloading", "messages", shown=output.shows_progress) as progress:
                ns.events.subscribe(hear)
                try:
                    report = await ns.messages.download(
                        campaign, path, run, concurrency=concurrency, via=via, overwrite=overwrite
                    )
                except NudgescribeError as error:
                    if files:
                        error.advice = f"{error.advice} {files:,} files are there.".lstrip()
                    raise
    document = {
        "directory": report.directory,
        "campaign_id": report.campaign_id,
        "run_number": report.run_number,
        "current_run": report.current_run,
        "files": report.files,
        "rows": report.rows,
        "bytes": report.bytes,
        "seconds": report.seconds,
        "notes": report.notes,
    }
    if output.json:
        for note in report.notes:
            output.note(note)
    output.document(document, str(report))


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is no folder.", hint="Name another one.")
