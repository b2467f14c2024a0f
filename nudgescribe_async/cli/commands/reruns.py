"""``nudgescribe reruns``: many campaigns run again, each exactly once; and what their journal says of them."""

from __future__ import annotations

import asyncio
import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from attrs import define, frozen
from cyclopts import App, Parameter
from cyclopts.types import NonNegativeFloat, PositiveFloat, PositiveInt  # noqa: TC002 - read at run time
from rich.console import Group

from nudgescribe_async.cli.context import InContext, Yes  # noqa: TC001 - read at run time
from nudgescribe_async.cli.ending import advising, ended_patiently
from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.cli.output import Column, legible
from nudgescribe_async.cli.progress import Progress
from nudgescribe_async.cli.result_file import attempted, check_free, code_with
from nudgescribe_async.cli.stream_out import StreamOut
from nudgescribe_async.cli.wording import in_command_words, same_command, spoken_as_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from nudgescribe_async.cli.context import Context
    from nudgescribe_async.cli.journal_view import JournalView
    from nudgescribe_async.cli.output import Output
    from nudgescribe_async.cli.rerun_outlook import Outlook
    from nudgescribe_async.events import Event, RerunProgress
    from nudgescribe_async.rerun.outcome import Asked
    from nudgescribe_async.rerun.plan import RerunPlan
    from nudgescribe_async.rerun.report import RerunOutcome, RerunReport

__all__ = ["app"]

app = App(name="reruns")

Flag = Parameter(negative=(), show_default=False)
PlanPath = Annotated[
    Path, Parameter(help="A CSV file with a header and the columns campaign_id and new_customer_group_id.")
]
JournalPath = Annotated[Path, Parameter(help="The journal of `nudgescribe reruns run`.")]
NARROWEST: Final = 60
"""Columns that a table of outcomes needs."""
_ENDING: Final = (
    "Ending: nothing new is begun, and what is in flight has {grace:g} s to end. Ctrl-C again does not wait."
)
_CSV: Final = (
    "position",
    "campaign_id",
    "campaign_name",
    "new_customer_group_id",
    "state",
    "reason",
    "previous_run",
    "run_number",
    "rerun_id",
    "adopted",
    "attempts",
    "campaign_status",
    "archived_count",
    "matched_count",
    "new_count",
    "orphaned_count",
    "published",
    "directory",
    "files",
    "seconds",
)


@Parameter(name="*")
@frozen(kw_only=True)
class PlanOptions:
    """How the file of a plan is written.

    Attributes:
        campaign_column: the column of the campaigns.
        group_column: the column of the groups.
        encoding: of the text.
        delimiter: between cells.
    """

    campaign_column: Annotated[str, Parameter(help="The column of the campaigns.")] = "campaign_id"
    group_column: Annotated[str, Parameter(help="The column of the groups.")] = "new_customer_group_id"
    encoding: Annotated[str, Parameter(help="Of the text, such as cp1252.")] = "utf-8"
    delimiter: Annotated[str, Parameter(help="Between cells.")] = ","

    async def read(self, file: Path) -> RerunPlan:
        """The plan.

        Raises:
            RerunPlanError: it is none; nothing of it is repeated but ids of columns.
            UsageError: an option has a value that cannot be right.
        """
        from nudgescribe_async.rerun.plan import RerunPlan  # noqa: PLC0415 - takes its time to load

        return await asyncio.to_thread(
            RerunPlan.from_csv,
            file,
            campaign_column=self.campaign_column,
            group_column=self.group_column,
            encoding=self.encoding,
            delimiter=self.delimiter,
        )


# --- plan --------------------------------------------------------------------------------------------------------------


@app.command
async def plan(
    file: PlanPath,
    /,
    *,
    journal: Path | None = None,
    amend: Annotated[bool, Flag] = False,
    offline: Annotated[bool, Flag] = False,
    concurrency: PositiveInt = 8,
    how: PlanOptions = PlanOptions(),
    context: InContext,
) -> int:
    """Check a plan, and show what `reruns run` would do with it. Changes nothing.

    Asks the service the same as the run does before it begins: whether there is such a campaign and such a group, and
    whether all messages are published. Ends with 3 if something stands in the way of some campaigns, with 1 if of all.

    Args:
        journal: The journal of the run, if it was begun: what it has done is not done again.
        amend: The plan was corrected since then, as for `reruns run`.
        offline: Look at the plan and the journal only, and ask the service nothing.
        concurrency: Requests in flight.
    """
    from nudgescribe_async.cli.rerun_outlook import checked_outlook  # noqa: PLC0415 - takes its time to load

    output = context.output
    with advising(lambda: "Nothing was changed."), spoken_as_command():
        wanted, asked = await how.read(file), _asked()
        view = await _view(journal, begun=True) if journal is not None else None
        outlook = _outlook(context, wanted, view, asked=asked, amend=amend)
        if not offline:
            async with context.client() as ns:
                with Progress(output.notes, "Checking", "campaigns", shown=output.shows_progress) as progress:
                    ns.events.subscribe(progress.hear)
                    ns.events.subscribe(_Checked(progress, outlook.counts["run"]))
                    outlook = await checked_outlook(ns, outlook, concurrency=concurrency)
    document = {
        "plan": file,
        "journal": journal,
        "checked": outlook.checked,
        "campaigns": len(outlook.prospects),
        "counts": outlook.counts,
        "items": outlook.prospects,
    }
    output.document(document, _outlook_as_text(outlook, output))
    if outlook.is_clear:
        return ExitCode.OK
    return ExitCode.PARTIAL if outlook.changes_something or outlook.counts["nothing"] else ExitCode.FAILURE


class _Checked:
    """Counts the campaigns that were looked at, by the requests for their messages."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, event: Event) -> None:
        from nudgescribe_async.events import RequestFinished  # noqa: PLC0415 - is loaded by then

        if isinstance(event, RequestFinished) and event.operation == "reruns.messages" and event.status == 200:
            self._done += 1
            self._progress.update(self._done, self._total)


def _asked(*, wait: bool = False, publish: bool = False, download: Path | None = None) -> Asked:
    from nudgescribe_async.rerun.outcome import Asked  # noqa: PLC0415 - takes its time to load

    return Asked(wait=wait or publish, publish=publish, directory=None if download is None else download.absolute())


async def _view(journal: Path, *, begun: bool) -> JournalView | None:
    """The journal; ``None`` if it need not be begun, and is not."""
    from nudgescribe_async.cli.journal_view import read_journal  # noqa: PLC0415 - takes its time to load

    def read() -> JournalView | None:
        if not begun and not (journal.exists() and journal.stat().st_size):
            return None
        return read_journal(journal)

    return await asyncio.to_thread(read)


def _outlook(context: Context, wanted: RerunPlan, view: JournalView | None, *, asked: Asked, amend: bool) -> Outlook:
    from nudgescribe_async.address import normal_address  # noqa: PLC0415
    from nudgescribe_async.cli.rerun_outlook import outlook_of  # noqa: PLC0415 - takes its time to load

    return outlook_of(wanted, view, asked=asked, service=normal_address(context.settings.base_url), amend=amend)


def _outlook_as_text(outlook: Outlook, output: Output) -> RenderableType:
    columns = [
        Column("#", right=True),
        Column("campaign", whole=True),
        Column("name"),
        Column("for the group", whole=True),
        Column("run", right=True),
        Column("would"),
        Column("because"),
    ]
    rows = [
        (
            each.position,
            each.campaign_id,
            each.campaign_name,
            each.new_customer_group_id,
            each.run_number,
            each.would,
            each.reason,
        )
        for each in outlook.prospects
    ]
    asked = "" if outlook.checked else " The service was not asked."
    return Group(output.as_table(columns, rows), f"{_summary(outlook)}{asked}")


def _summary(outlook: Outlook) -> str:
    from nudgescribe_async.cli.rerun_outlook import MEANINGS  # noqa: PLC0415 - takes its time to load

    counts = outlook.counts
    parts = [f"{counts[would]:,} {meaning}" for would, meaning in MEANINGS.items() if counts[would]]
    return f"{_campaigns(len(outlook.prospects))}: {'; '.join(parts)}."


def _campaigns(number: int) -> str:
    return f"{number:,} campaign{'' if number == 1 else 's'}"


# --- run ---------------------------------------------------------------------------------------------------------------


@app.command
async def run(
    file: PlanPath,
    /,
    *,
    journal: Path,
    concurrency: PositiveInt = 8,
    wait: Annotated[bool, Flag] = False,
    publish: Annotated[bool, Flag] = False,
    download: Path | None = None,
    wait_timeout: PositiveFloat | None = None,
    settle: NonNegativeFloat = 10.0,
    grace: NonNegativeFloat = 10.0,
    fail_fast: Annotated[bool, Flag] = False,
    amend: Annotated[bool, Flag] = False,
    html: Path | None = None,
    overwrite: Annotated[bool, Flag] = False,
    how: PlanOptions = PlanOptions(),
    yes: Yes = False,
    context: InContext,
) -> int:
    """Run the campaigns of a plan again, every one exactly once. Asks first.

    All are checked before the first is sent. The journal is written before each request and after each answer: whatever
    ends the command, the same command goes on, and runs no campaign twice. Ends with 0 if all have succeeded, with 3
    if some have not, and with 1 if none has.

    Args:
        journal: The file of the journal, on a disk of this machine that stays. Another round needs another one.
        concurrency: Campaigns at work at once.
        wait: Wait until the service has done with each run.
        publish: Wait, and publish the runs that are Ready to publish. Those to be reviewed are left to people.
        download: A folder for the messages of published runs: <campaign>/run-<number>/.
        wait_timeout: Seconds that each run is waited for. Default: without end.
        settle: Seconds after which a request that nobody has answered does not arrive any more.
        grace: Seconds that Ctrl-C gives to what is in flight; a second Ctrl-C does not wait.
        fail_fast: Start nothing new once a campaign was not run as wanted.
        amend: The plan was corrected since the command before: what was never sent may differ from the journal.
        html: Write the report to this file, as a page for people.
        overwrite: Replace the file of --html, if it is there.
    """
    output, again = context.output, same_command(sys.argv[1:])
    if html is not None:
        check_free(html, overwrite=overwrite, needed=[file, journal])
    done = _Sofar()
    with advising(lambda: done.advice(again, journal)), spoken_as_command():
        wanted = await how.read(file)
        asked = _asked(wait=wait, publish=publish, download=download)
        view = await _view(journal, begun=False)
        outlook = _outlook(context, wanted, view, asked=asked, amend=amend)
        if outlook.changes_something:
            await context.confirm(_question(outlook, context, asked), yes=yes)
        async with context.client() as ns:
            with Progress(output.notes, "Rerunning", "campaigns", shown=output.shows_progress) as progress:
                ns.events.subscribe(progress.hear)

                def show(event: RerunProgress) -> None:
                    done.done, done.total = event.done, event.total
                    progress.update(event.done, event.total)

                work = ns.reruns.run(
                    wanted,
                    concurrency=concurrency,
                    journal=journal,
                    settle=settle,
                    wait=wait,
                    publish=publish,
                    download=download,
                    on_event=show,
                    fail_fast=fail_fast,
                    amend=amend,
                    wait_timeout=wait_timeout,
                    grace=grace,
                )
                report = await ended_patiently(work, lambda: output.note(_ENDING.format(grace=grace)))
    trouble = None if html is None else await attempted(lambda: report.write_html(html))
    if html is not None and trouble is None and not overwrite:
        again = same_command(sys.argv[1:], also="--overwrite")  # since the page is there now
    return code_with(trouble, _told(report, output, again), output)


@define
class _Sofar:
    """How far a run is, for the moment in which somebody ends it."""

    done: int = 0
    total: int = 0

    def advice(self, again: str, journal: Path) -> str:
        """How to go on."""
        if not journal.exists():
            return "Nothing was sent."
        known = f"{self.done:,} of {_campaigns(self.total)} are done with. " if self.total else ""
        return f"{known}To go on, run it again: {again}"


def _question(outlook: Outlook, context: Context, asked: Asked) -> str:
    steps = ["wait until the service has done with them"] if asked.wait and not asked.publish else []
    steps += ["publish those that need no review"] if asked.publish else []
    steps += [f"download their messages to {asked.directory}"] if asked.download else []
    then = f" Then {', and '.join(steps)}." if steps else ""
    return f"{_summary(outlook)}{then} All are checked before the first is sent. Go on, at {context.settings.base_url}?"


def _told(report: RerunReport, output: Output, again: str) -> int:
    """Print the report; how the command ends."""
    output.document({**report.as_dict(), "next": None if report.complete else again}, _report_as_text(report, output))
    if report.complete:
        return ExitCode.OK
    for advice in _advice(report):
        output.note(advice)
    undone = all(outcome.state in {"refused", "not_started", "conflict"} for outcome in report)
    return ExitCode.FAILURE if undone else ExitCode.PARTIAL


def _advice(report: RerunReport) -> Sequence[str]:
    """What to do about those that have not succeeded, a sentence for each need."""
    from nudgescribe_async.rerun.report import ADVICE, need_of  # noqa: PLC0415 - is loaded by then

    needs: dict[Any, int] = {}
    for outcome in report:
        if (need := need_of(outcome)) is not None:
            needs[need] = needs.get(need, 0) + 1
    return [f"{number:,} {need.replace('_', ' ')}: {in_command_words(ADVICE[need])}" for need, number in needs.items()]


def _report_as_text(report: RerunReport, output: Output) -> str:
    """The table of the package; on a terminal that is too narrow for it, a line for each campaign."""
    console = output.results
    if not console.is_terminal:
        return in_command_words(report.as_table())
    if console.width >= NARROWEST:
        return in_command_words(report.as_table(width=console.width))
    lines = [f"{outcome.campaign_id}: {_in_words(outcome)}" for outcome in report]
    return in_command_words("\n".join([*lines, f"Journal: {report.journal}", report.headline]))


def _in_words(outcome: RerunOutcome) -> str:
    from nudgescribe_async.rerun.report import one_line  # noqa: PLC0415 - is loaded by then

    run_number = "" if outcome.run_number is None else f", run {outcome.run_number}"
    reason = f": {one_line(outcome.reason)}" if outcome.reason else ""
    return f"{outcome.state.replace('_', ' ')}{run_number}{reason}"


# --- what the journal says ---------------------------------------------------------------------------------------------


@app.command
async def status(journal: JournalPath, /, *, context: InContext) -> None:
    """Show how far the runs of a journal are. Reads the journal only, also while a run is at work with it."""
    output = context.output
    with spoken_as_command():
        view = await _view(journal, begun=True)
    assert view is not None  # noqa: S101 - else it would have said so
    report_of_all = view.report()
    counts = report_of_all.counts
    in_review, published = len(report_of_all.in_review), len(report_of_all.published)
    shown: dict[str, int] = {**dict(counts.items()), "in_review": in_review, "published": published}
    document = {
        "journal": view.path,
        "service": view.service,
        "began": view.began,
        "opened": view.opened,
        "last_step": report_of_all.ended,
        "held_by": view.holder or None,
        "at_work": view.at_work,
        "complete": report_of_all.complete,
        "campaigns": len(report_of_all),
        "counts": shown,
    }
    lines = [
        f"Journal:   {view.path}",
        f"Service:   {view.service}",
        f"Begun:     {view.began:%Y-%m-%d %H:%M:%S} UTC, last step {report_of_all.ended:%Y-%m-%d %H:%M:%S} UTC",
        f"At work:   {_at_work(view)}",
        f"Campaigns: {len(report_of_all):,}",
        *(f"  {state.replace('_', ' '):<12} {number:,}" for state, number in counts.items() if number),
        *([f"  of these, {in_review:,} in review"] if in_review else []),
        *([f"  of these, {published:,} published"] if published else []),
    ]
    output.document(document, "\n".join(lines))
    _note_missing(view, output)


def _at_work(view: JournalView) -> str:
    if not view.holder:
        return "nobody"
    if view.at_work:
        return view.holder
    return f"nobody; {view.holder}, was ended and did not close it. The same `nudgescribe reruns run` goes on"


def _note_missing(view: JournalView, output: Output) -> None:
    if view.missing:
        output.note(
            f"{view.missing:,} items of the plan are not in the journal, since something is wrong with them: "
            "`nudgescribe reruns plan` says what."
        )


@app.command
async def report(
    journal: JournalPath,
    /,
    *,
    html: Path | None = None,
    overwrite: Annotated[bool, Flag] = False,
    csv: Annotated[bool, Parameter(name="--csv", negative=(), show_default=False)] = False,
    context: InContext,
) -> None:
    """Report what became of each campaign, of all commands with a journal together. Reads the journal only.

    Args:
        html: Write a page for people to this file, with a timeline.
        overwrite: Replace the file of --html, if it is there.
        csv: Print CSV, a line for each campaign. A name that a spreadsheet would take for a formula gets a ' before it.
    """
    output = context.output
    if csv and output.json:
        raise UsageError("--csv and --json are two ways to print it: choose one.")
    if html is not None:
        check_free(html, overwrite=overwrite, needed=[journal])
    with spoken_as_command():
        view = await _view(journal, begun=True)
    assert view is not None  # noqa: S101 - else it would have said so
    whole = await asyncio.to_thread(view.report)
    if html is not None:
        await asyncio.to_thread(whole.write_html, html)
    if csv:
        with StreamOut(output) as out:
            await out.write(_as_csv(whole).encode())
    elif html is None or output.json:
        output.document(whole.as_dict(), _report_as_text(whole, output))
    if html is not None:
        output.note(f"The report is in {html}.")
    _note_missing(view, output)


def _as_csv(whole: RerunReport) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_CSV)
    for outcome in whole:
        values: dict[str, Any] = outcome.as_dict()
        values.update(values.pop("comparison") or {})
        writer.writerow([_as_cell(name, values.get(name)) for name in _CSV])
    return text.getvalue()


def _as_cell(name: str, value: object) -> object:
    """Names and reasons are words of others: no terminal is to obey them, and no spreadsheet to compute them."""
    if value is None:
        return ""
    if name not in {"campaign_name", "reason"}:
        return value
    text = legible(str(value), lines=False)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


@app.command
async def history(
    campaign: Annotated[str, Parameter(help="The id of the campaign.")], /, *, context: InContext
) -> None:
    """List the runs of a campaign, newest first."""
    with spoken_as_command():
        async with context.client() as ns:
            runs = await ns.reruns.history(campaign)
    columns = [
        Column("run", right=True),
        Column("group", whole=True),
        Column("name"),
        Column("status"),
        Column("archived", right=True),
        Column("matched/new/orphaned"),
        Column("made"),
    ]
    context.output.table(
        runs,
        columns,
        lambda run: (
            run.run_number,
            run.customer_group_id,
            run.customer_group_name,
            None if run.campaign_status is None else str(run.campaign_status),
            run.archived_count,
            None
            if run.comparison is None
            else f"{run.comparison.matched_count}/{run.comparison.new_count}/{run.comparison.orphaned_count}",
            None if run.created_at is None else f"{run.created_at:%Y-%m-%d %H:%M}",
        ),
        empty="The campaign has no runs.",
    )
