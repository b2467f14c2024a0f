"""``nudgescribe customers``: the customers of a group, up and down."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from attrs import evolve
from cyclopts import App, Parameter
from cyclopts.types import PositiveInt  # noqa: TC002 - read at run time

from nudgescribe_async.cli.commands.groups import find_group
from nudgescribe_async.cli.context import InContext, Workspace, Yes  # noqa: TC001 - read at run time
from nudgescribe_async.cli.ending import advising
from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.failures import UsageError, failure_of
from nudgescribe_async.cli.progress import Progress
from nudgescribe_async.cli.result_file import attempted, check_free, code_with
from nudgescribe_async.cli.stream_out import StreamOut
from nudgescribe_async.cli.upload_told import counted, tell, write_problems
from nudgescribe_async.cli.wording import in_command_words, retell, same_command, spoken_as_command
from nudgescribe_async.errors import NudgescribeError, PermissionDeniedError, UploadSourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nudgescribe_async.bulk.export import ExportProgress
    from nudgescribe_async.bulk.upload import UploadChunk, UploadReport
    from nudgescribe_async.cli.context import Context
    from nudgescribe_async.cli.output import Output
    from nudgescribe_async.client import Nudgescribe

__all__ = ["app"]

app = App(name="customers")

Group = Annotated[
    str, Parameter(help="The id of the group; or its name, where the workspace is known and no other group has it.")
]
Flag = Parameter(negative=(), show_default=False)
STREAM = "-"


def _no_option(_: object, value: str | None) -> None:
    """``-`` alone is no option, so any of them gets here; one that is misspelt must not become a file."""
    if value is not None and value.startswith("-") and value != STREAM:
        raise ValueError(f"There is no option {value}. A file of that name is ./{value}.")


PathOrStream = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_no_option)]
IDS_PER_REQUEST = 1_000
_PROFILE_KEY = "NUDGESCRIBE_PROFILE_KEY"


async def _group_id(ns: Nudgescribe, context: Context, workspace: str | None, wanted: str) -> tuple[str, str]:
    """The id of a group, and what to call it. Without a workspace to look in, what is given is the id."""
    place = workspace or context.settings.get("workspace_id")
    if place is None:
        return wanted, wanted
    try:
        found = await find_group(ns, place, wanted)
    except PermissionDeniedError:  # who may not see the groups may still work with one
        return wanted, wanted
    return found.customer_group_id, f"{found.group_name!r} ({found.customer_group_id})"


# --- count -------------------------------------------------------------------------------------------------------------


@app.command
async def count(
    group: Group,
    /,
    *,
    exact: Annotated[bool, Flag] = False,
    workspace: Workspace = None,
    context: InContext,
) -> None:
    """Count the customers of a group.

    From the number of pages, and how many customers are on the first and on the last: a few requests, however large
    the group is. What was uploaded a moment ago may still be queued, and is not counted.

    Args:
        exact: Read all pages and count who is there, each customer once.
    """
    with spoken_as_command():
        async with context.client() as ns:
            group_id, _ = await _group_id(ns, context, workspace, group)
            pages, customers = await (_read_all(ns, context.output, group_id) if exact else _by_pages(ns, group_id))
    context.output.document(
        {"customer_group_id": group_id, "customers": customers, "pages": pages, "exact": exact},
        f"{counted(customers, 'customer')} on {counted(pages, 'page')}",
    )


async def _by_pages(ns: Nudgescribe, group_id: str) -> tuple[int, int]:
    async with aclosing(ns.customers.iter(group_id, concurrency=1, prefetch=1).pages()) as pages:
        first = await anext(pages, None)
    if first is None or not first.items:
        return 0, 0
    total = first.total or 1
    # The number of the first page is the service's affair.
    last = await ns.customers.list(group_id, first.number + total - 1) if total > 1 else first.items
    return total, len(first.items) * (total - 1) + len(last)


async def _read_all(ns: Nudgescribe, output: Output, group_id: str) -> tuple[int, int]:
    customers = done = 0
    with Progress(output.notes, "Counting", "customers", shown=output.shows_progress) as progress:
        ns.events.subscribe(progress.hear)
        stream = ns.customers.iter(group_id, consistency="dedupe")
        async with aclosing(stream.pages()) as pages:
            async for page in pages:
                done, customers = done + 1, customers + len(page.items)
                progress.update(done, page.total, customers)
    _note_drift(output, stream.report.drift)
    return done, customers


def _note_drift(output: Output, drift: Sequence[str]) -> None:
    if drift:
        output.note(f"The group changed while it was read. {' '.join(drift)}")


# --- export ------------------------------------------------------------------------------------------------------------


@app.command
async def export(
    group: Group,
    path: PathOrStream,
    /,
    *,
    format: Literal["ndjson", "ndjson.gz", "csv", "csv.gz", "parquet"] | None = None,  # noqa: A002 - the option's name
    rows_per_part: PositiveInt | None = None,
    consistency: Literal["warn", "dedupe", "strict"] = "warn",
    overwrite: Annotated[bool, Flag] = False,
    restart: Annotated[bool, Flag] = False,
    decrypt: Annotated[bool, Flag] = False,
    concurrency: PositiveInt = 8,
    spool: Path | None = None,
    workspace: Workspace = None,
    context: InContext,
) -> None:
    """Export all customers of a group to a file, a folder of parts, or standard output.

    A file that is there is whole: it is written as PATH.partial, and renamed at the end. Whatever ends the command,
    the same command goes on where it stopped. Nothing is overwritten without --overwrite. Only your user can read the
    file.

    Args:
        path: A file, or a URL that fsspec knows; - writes NDJSON to standard output, which cannot be gone on with.
        format: Default: what the suffix of PATH says.
        rows_per_part: Make a folder of files with about so many customers each. Needs --format.
        consistency: What to do when the group changes meanwhile: say so; leave out who comes twice; or stop.
        overwrite: Replace what is there, once the new one is complete.
        restart: Begin anew, and forget what an earlier command has left.
        decrypt: Write profiles in the clear, with the key in NUDGESCRIBE_PROFILE_KEY. Only for the sandbox: how the
            service encrypts is not documented.
        concurrency: Requests in flight.
        spool: For a URL, the folder to write in until a file is complete.
    """
    options: dict[str, Any] = {"profile_decryptor": _decryptor()} if decrypt else {}
    if path == STREAM:
        if overwrite or restart or rows_per_part or spool or (format or "ndjson") != "ndjson":
            raise UsageError("Standard output takes NDJSON, and no option that is about files.")
        await _stream(group, workspace, consistency, concurrency, options, context)
        return
    output, again = context.output, same_command(sys.argv[1:], without="--restart")
    rows, complete = 0, False

    def show(progress_of_export: ExportProgress) -> None:
        nonlocal rows
        rows = progress_of_export.rows
        progress.update(progress_of_export.pages, progress_of_export.total, rows)

    def advice() -> str:
        if complete:
            return "The export is complete."
        kept = f"{counted(rows, 'customer')} are kept. " if rows else ""
        return f"{kept}To go on, run it again: {again}"

    with advising(advice), spoken_as_command():
        async with context.client(**options) as ns:
            group_id, _ = await _group_id(ns, context, workspace, group)
            with Progress(output.notes, "Exporting", "customers", shown=output.shows_progress) as progress:
                ns.events.subscribe(progress.hear)
                report = await ns.customers.export(
                    group_id,
                    path,
                    format,
                    rows_per_part=rows_per_part,
                    consistency=consistency,
                    overwrite=overwrite,
                    restart=restart,
                    spool=spool,
                    on_progress=show,
                    concurrency=concurrency,
                    # Only where profiles are read, and then the columns are there even if the group is empty.
                    workspace_id=(workspace or context.settings.get("workspace_id")) if decrypt else None,
                )
                complete = True
    document = {
        "destination": report.destination,
        "format": report.format,
        "customers": report.rows,
        "pages": report.pages,
        "bytes": report.bytes,
        "sha256": report.sha256,
        "parts": report.parts,
        "columns": report.columns,
        "manifest": report.manifest,
        "seconds": report.seconds,
        "resumed": report.resumed,
        "left_out": report.left_out,
        "drift": report.drift,
    }
    if output.json:
        _note_drift(output, report.drift)
    resumed = " It went on with what an earlier command had begun." if report.resumed else ""
    output.document(document, f"{report}{resumed}")


def _decryptor() -> object:
    from nudgescribe_async.profiles import AesGcmProfiles  # noqa: PLC0415 - seldom

    text = os.environ.get(_PROFILE_KEY, "").strip()
    if not text:
        raise UsageError(f"--decrypt needs a key in {_PROFILE_KEY}.", hint="The sandbox prints it when it starts.")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if not key:
        raise UsageError(f"{_PROFILE_KEY} is no key: it must be hexadecimal digits.")
    return AesGcmProfiles(key)


async def _stream(
    group: str,
    workspace: str | None,
    consistency: Literal["warn", "dedupe", "strict"],
    concurrency: int,
    options: dict[str, Any],
    context: Context,
) -> None:
    from nudgescribe_async.bulk.export.columns import columns_of  # noqa: PLC0415 - see above
    from nudgescribe_async.bulk.export.text import Ndjson  # noqa: PLC0415

    output = context.output
    lines = Ndjson(columns_of(None, decrypted=bool(options)))
    written = done = 0

    def so_far() -> str:
        return f"What was written is not complete: {counted(written, 'customer')}."

    with advising(lambda: f"{so_far()} An export to a file can be gone on with."), spoken_as_command():
        async with context.client(**options) as ns:
            group_id, _ = await _group_id(ns, context, workspace, group)
            shown = output.shows_progress and not output.results.is_terminal  # the rows themselves show it
            with (
                Progress(output.notes, "Exporting", "customers", shown=shown) as progress,
                StreamOut(output) as out,
            ):
                ns.events.subscribe(progress.hear)
                stream = ns.customers.iter(group_id, concurrency=concurrency, consistency=consistency)
                try:
                    async with aclosing(stream.pages()) as pages:
                        async for page in pages:
                            await out.write(lines.encode(tuple(page.items)))
                            done, written = done + 1, written + len(page.items)
                            progress.update(done, page.total, written)
                except NudgescribeError as error:
                    error.advice = f"{so_far()} {error.advice}".rstrip()
                    raise
    _note_drift(output, stream.report.drift)


# --- upload ------------------------------------------------------------------------------------------------------------


@app.command
async def upload(
    group: Group,
    file: PathOrStream,
    /,
    *,
    format: Literal["csv", "ndjson", "parquet"] | None = None,  # noqa: A002 - the option's name
    dry_run: Annotated[bool, Flag] = False,
    problems: Path | None = None,
    overwrite: Annotated[bool, Flag] = False,
    field: Annotated[list[str] | None, Parameter(negative=())] = None,
    unique: str | None = None,
    bad_rows: Literal["skip", "refuse"] = "skip",
    no_check: Annotated[bool, Flag] = False,
    from_row: PositiveInt = 1,
    to_row: PositiveInt | None = None,
    encoding: str = "utf-8",
    delimiter: str = ",",
    rows_per_chunk: PositiveInt = 10_000,
    concurrency: PositiveInt = 1,
    repeat_unknown: Annotated[bool, Flag] = False,
    spool: Path | None = None,
    workspace: Workspace = None,
    context: InContext,
) -> int:
    """Upload customers into a group, and account for every row.

    The whole file is checked against the profile fields of the workspace before anything is sent. Ends with 0 if all
    rows were taken, with 3 if some were not, and with 1 if none was.

    Args:
        file: CSV with a header that names profile fields, NDJSON with an object a line, or Parquet; packed with gzip,
            too (.gz). - is standard input.
        format: Default: what the suffix says; of standard input, csv.
        dry_run: Check only, and send nothing.
        problems: Write all refused rows with their reasons to this CSV file. It may repeat values of customers, and
            only your user can read it.
        overwrite: Replace the file of --problems, if it is there.
        field: Send this column; may be given several times. Default: all columns.
        unique: A column in which no value may come twice; later rows with it are refused.
        bad_rows: With "refuse", nothing is sent if there is a bad row.
        no_check: Leave group, names and values to the service.
        from_row: The first row to look at; 1 is the first below the header.
        to_row: The last row to look at.
        encoding: Of the text, such as latin-1.
        delimiter: Between cells.
        rows_per_chunk: The most rows of one request.
        concurrency: Requests in flight. With more than one, rows may take effect in another order.
        repeat_unknown: Send rows again whose outcome is not known. For rows with the identifier of the customer.
        spool: The folder for checked rows until they are sent. Default: the system's for temporary files.
    """
    from nudgescribe_async.cli.upload_source import Tally, upload_source  # noqa: PLC0415 - see above

    output, tally = context.output, Tally()
    place = context.workspace(workspace)
    source = upload_source(file, format, tally)
    if problems is not None:
        check_free(problems, overwrite=overwrite, needed=[] if file == STREAM else [Path(file)])
    account = ""

    async def keep(whole: UploadReport) -> OSError | None:
        if problems is None:
            return None
        return await attempted(partial(write_problems, whole, problems, overwrite=overwrite))

    def seen(chunk: UploadChunk) -> None:
        if not sent:
            progress.begin("Uploading", "rows")
            progress.update(from_row - 1, None)
        sent.append(chunk)
        # The lines of a file are as good as its rows, for somebody who watches.
        progress.update(chunk.last_row, max(tally.lines, chunk.last_row))

    def looked() -> None:
        if not sent:
            progress.update(tally.read, tally.size, tally.lines)

    sent: list[UploadChunk] = []
    with advising(lambda: account or "Nothing was sent."), spoken_as_command():
        async with context.client() as ns:
            group_id, _ = await _group_id(ns, context, place, group) if not no_check else (group, group)
            with Progress(output.notes, "Checking", "lines", shown=output.shows_progress) as progress:
                ns.events.subscribe(progress.hear)
                progress.begin("Checking", "lines", looked)
                try:
                    report = await ns.customers.upload(
                        place,
                        group_id,
                        source,
                        fields=field,
                        encoding=encoding,
                        delimiter=delimiter,
                        validate=not no_check,
                        unique=unique,
                        bad_rows=bad_rows,
                        dry_run=dry_run,
                        from_row=from_row,
                        to_row=to_row,
                        concurrency=concurrency,
                        repeat_unknown=repeat_unknown,
                        rows_per_chunk=rows_per_chunk,
                        keep_problems=10_000 if problems is None else sys.maxsize,
                        spool=spool,
                        on_chunk=seen,
                    )
                    account = f"The upload had ended: {report!r}."
                except asyncio.CancelledError as error:
                    account = _account(error)
                    raise
                except UploadSourceError as error:
                    if error.report is not None and (trouble := await keep(error.report)) is not None:
                        output.note(f"{problems} could not be written: {trouble.strerror}.")
                    raise
    trouble = await keep(report)
    code = tell(report, output, problems=problems if trouble is None else None, repeatable=file != STREAM)
    return code_with(trouble, code, output)


def _account(error: asyncio.CancelledError) -> str:
    """What the package says of the rows, in the words of the command."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("customers.upload: ")]
    account = in_command_words(notes[-1].removeprefix("customers.upload: ")) if notes else ""
    return f"{account[:1].upper()}{account[1:]}"


# --- delete ------------------------------------------------------------------------------------------------------------


@app.command
async def delete(
    group: Group,
    /,
    *customer_ids: str,
    ids_file: Annotated[str | None, Parameter(allow_leading_hyphen=True, validator=_no_option)] = None,
    dry_run: Annotated[bool, Flag] = False,
    yes: Yes = False,
    workspace: Workspace = None,
    context: InContext,
) -> int:
    """Delete customers from a group, by their ids.

    Deleting twice is the same as once, so the same command may be run again. Ends with 3 if some were not deleted.

    Args:
        customer_ids: The ids of the customers, as an export has them.
        ids_file: A file with an id a line; - for standard input. Blank lines are skipped.
        dry_run: Read the group, say how many of the ids are in it, and delete nothing.
    """
    output = context.output
    with advising(lambda: "Nothing was deleted."):
        wanted, twice = await _ids(customer_ids, ids_file)
    if twice:
        output.note(f"{counted(twice, 'id')} came more than once, and count once.")
    deleted: int | None = 0
    asked = 0

    def advice() -> str:
        unsure = min(IDS_PER_REQUEST, len(wanted) - asked)
        if not under_way:
            return "Nothing was deleted."
        return (
            f"{asked:,} of {len(wanted):,} ids were dealt with, {unsure:,} more may have been. To go on, run it "
            f"again: {same_command(sys.argv[1:])}"
        )

    under_way = False
    with advising(advice), spoken_as_command():
        async with context.client() as ns:
            group_id, name = await _group_id(ns, context, workspace, group)
            if dry_run:
                return await _would_delete(ns, output, group_id, wanted)
            await context.confirm(f"Delete {counted(len(wanted), 'customer')} of the group {name}?", yes=yes)
            with Progress(output.notes, "Deleting", "customers", shown=output.shows_progress) as progress:
                ns.events.subscribe(progress.hear)
                for start in range(0, len(wanted), IDS_PER_REQUEST):
                    some = wanted[start : start + IDS_PER_REQUEST]
                    under_way = True
                    try:
                        receipt = await ns.customers.delete(group_id, some)
                    except NudgescribeError as error:
                        if asked:
                            error.advice = f"{asked:,} of {len(wanted):,} ids were dealt with before. {error.advice}"
                        error.advice = f"{error.advice} The same command goes on.".lstrip()
                        if not asked:
                            raise
                        retell(error)
                        output.failure(
                            evolve(failure_of(error), code=ExitCode.FAILURE if deleted == 0 else ExitCode.PARTIAL)
                        )
                        break
                    asked += len(some)
                    said = receipt.deleted_count
                    deleted = None if deleted is None or said is None else deleted + said
                    progress.update(asked, len(wanted))
    return _deleted(output, group_id, wanted=len(wanted), asked=asked, deleted=deleted)


def _deleted(output: Output, group_id: str, *, wanted: int, asked: int, deleted: int | None) -> int:
    complete = asked == wanted and deleted in {None, wanted}
    document = {"customer_group_id": group_id, "ids": wanted, "asked": asked, "deleted": deleted, "complete": complete}
    if deleted is None:
        text = f"The service took {counted(asked, 'id')}, and did not say how many customers it deleted."
    else:
        text = f"{deleted:,} of {counted(wanted, 'customer')} were deleted."
    output.document(document, text)
    if deleted is not None and deleted < asked:
        output.note(f"Of no customer of the group: {counted(asked - deleted, 'id')}.")
    if asked < wanted:
        output.note(f"{counted(wanted - asked, 'id')} are left: run the same command again.")
    if complete:
        return ExitCode.OK
    return ExitCode.FAILURE if deleted == 0 else ExitCode.PARTIAL


async def _would_delete(ns: Nudgescribe, output: Output, group_id: str, wanted: Sequence[str]) -> int:
    left = set(wanted)
    done = 0
    with Progress(output.notes, "Looking", "pages", shown=output.shows_progress) as progress:
        ns.events.subscribe(progress.hear)
        async with aclosing(ns.customers.iter(group_id).pages()) as pages:
            async for page in pages:
                done += 1
                left.difference_update(customer.customer_id for customer in page.items)
                progress.update(done, page.total)
    there = len(wanted) - len(left)
    document = {"customer_group_id": group_id, "ids": len(wanted), "would_delete": there, "dry_run": True}
    output.document(document, f"{there:,} of {counted(len(wanted), 'customer')} would be deleted. Nothing was deleted.")
    if not left:
        return ExitCode.OK
    return ExitCode.PARTIAL if there else ExitCode.FAILURE


async def _ids(given: Sequence[str], file: str | None) -> tuple[list[str], int]:
    """The ids, each once, and how many came again."""
    if bool(given) == (file is not None):
        raise UsageError("Name the customers by their ids, or name a file with --ids-file; one of the two.")
    found = list(given)
    if file is not None:
        try:
            text = await _read_ids(file)
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError:
            text = None
        if text is None:
            raise UsageError(f"{file} is no text in UTF-8.")
        found = [line.strip() for line in text.splitlines()]
        found = [line for line in found if line]
        # A file with more than ids in its lines is another file; deleting by its first column would be a guess.
        wrong = next((number for number, line in enumerate(found, 1) if len(line.split()) > 1 or "," in line), None)
        if wrong is not None:
            raise UsageError(
                f"Line {wrong:,} of {file} is no id.", hint="The file must have one id a line, and no header."
            )
    if not found or not all(each.strip() for each in found):
        raise UsageError("There is no id, or an empty one.")
    unique = list(dict.fromkeys(found))
    return unique, len(found) - len(unique)


async def _read_ids(file: str) -> str:
    from nudgescribe_async.cli.upload_source import Tally, read_standard_input  # noqa: PLC0415 - see above

    if file == STREAM:
        data = b"".join([block async for block in read_standard_input(Tally())])
    else:
        data = await asyncio.to_thread(Path(file).read_bytes)
    return data.decode("utf-8-sig")
