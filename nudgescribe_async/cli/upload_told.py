"""What an upload has come to, printed: counts, refused rows with their reasons, and what is left to be sent."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import evolve
from rich.console import Group

from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.failures import failure_of
from nudgescribe_async.cli.output import Column
from nudgescribe_async.cli.wording import command_line, in_command_words, option_name, retell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from nudgescribe_async.bulk.upload import UploadReport
    from nudgescribe_async.cli.output import Output

__all__ = ["counted", "tell", "write_problems"]

SHOWN: Final = 10
"""Problems that are printed; a file takes all."""


def counted(number: int, noun: str) -> str:
    """Such as ``"1 row"`` and ``"1,500 rows"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def write_problems(report: UploadReport, path: Path, *, overwrite: bool) -> None:
    """Write all refused rows to a file that only this user can read. It blocks.

    Raises:
        OSError: it cannot be written, or has come to be there meanwhile and is not to be replaced.
    """
    # What the service says of a row may repeat its values.
    new = 0 if overwrite else os.O_EXCL
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | new, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    report.write_csv(path)


def tell(report: UploadReport, output: Output, *, problems: Path | None, repeatable: bool) -> int:
    """Print the report; how the command ends.

    Args:
        report: of the upload.
        output: where it goes.
        problems: the file that all problems were written to, if they were.
        repeatable: whether the source can be read again.
    """
    left = () if report.dry_run else report.left(took_effect=report.unknown)
    commands = {span: _resend(*span) for span in left} if repeatable else {}
    code = _code(report)
    document = report.as_dict() | {
        "left": [{"from_row": first, "to_row": last} for first, last in left],
        "next": list(commands.values()),
    }
    output.document(document, _as_text(report, output, problems=problems))
    if report.failure is not None:
        retell(report.failure)
        output.failure(evolve(failure_of(report.failure), code=code))
    for chunk in report.chunks:
        rows = f"Rows {chunk.first_row:,} to {chunk.last_row:,}"
        if chunk.state == "refused":
            output.note(f"{rows} were refused as a whole, and had no effect.")
        elif chunk.state == "unknown":
            output.note(f"{rows} may have been taken, or not: look whether they are in the group.")
            if repeatable:
                output.note(f"If they are not there, send them again:\n  {_resend(chunk.first_row, chunk.last_row)}")
    for (first, last), command in commands.items():
        output.note(f"Rows {first:,} to {last:,} were not sent. To send them:\n  {command}")
    if left and not repeatable:
        rows = ", ".join(f"{first:,} to {last:,}" for first, last in left)
        output.note(f"Rows {rows} were not sent, and standard input cannot be read again.")
    return code


def _resend(first: int, last: int) -> str:
    """The command of this upload for some of its rows."""
    words, kept = iter(sys.argv[1:]), list[str]()
    for word in words:
        if word == "--":  # no options follow
            words = iter(["--", *words])
            break
        _, joined, value = word.partition("=")
        name = option_name(word)
        if name not in {"--from-row", "--to-row", "--problems"}:
            kept.append(word)
            continue
        value = value if joined else next(words, "")
        if name == "--problems":  # the first part's are there, and are not overwritten
            path = Path(value)
            kept += [name, str(path.with_name(f"{path.stem}-from-row-{first}{path.suffix}"))]
    return command_line([*kept, "--from-row", str(first), "--to-row", str(last), *words])


def _code(report: UploadReport) -> ExitCode:
    refused = report.refused_by_check + report.refused_by_service
    if report.dry_run:
        if not refused:
            return ExitCode.OK
        return ExitCode.PARTIAL if report.chunks else ExitCode.FAILURE
    if report.complete and not refused:
        return ExitCode.OK
    taken = any((chunk.accepted or 0) > 0 or (chunk.job_uid and chunk.accepted is None) for chunk in report.chunks)
    # A success without counts may have taken all of them.
    unsure = report.unknown or any(chunk.state == "sent" and not chunk.answered for chunk in report.chunks)
    return ExitCode.PARTIAL if taken or unsure else ExitCode.FAILURE


def _as_text(report: UploadReport, output: Output, *, problems: Path | None) -> RenderableType:
    parts: list[RenderableType] = []
    shown = report.problems[:SHOWN]
    if shown:
        columns = [
            Column("row", right=True),
            Column("line", right=True),
            Column("field", whole=True),
            Column("reason"),
            Column("refused by"),
        ]
        cells = [(item.row, item.line, item.field, item.reason, item.by) for item in shown]
        parts.append(output.as_table(columns, cells))
        if report.problems_total > len(shown):
            where = f"all are in {problems}" if problems is not None else "--problems FILE writes all of them"
            parts.append(f"and {counted(report.problems_total - len(shown), 'more problem')}: {where}.")
    parts += _sums(report)
    parts += [in_command_words(remark) for remark in report.remarks]
    return Group(*parts)


def _sums(report: UploadReport) -> Iterator[str]:
    if report.dry_run:
        fit = sum(chunk.rows for chunk in report.chunks)
        yield (
            f"Dry run of {counted(report.rows, 'row')}: {fit:,} would be sent in "
            f"{counted(len(report.chunks), 'request')}, {report.refused_by_check:,} refused. Nothing was sent."
        )
        return
    yield (
        f"{counted(report.rows, 'row')}: {report.accepted:,} accepted, {report.refused_by_check:,} refused by the check, "
        f"{report.refused_by_service:,} by the service."
    )
    if report.queued:
        yield f"{counted(report.queued, 'row')} of them are queued, and appear among the customers later."
    waiting = sum(chunk.rows for chunk in report.chunks if chunk.state in {"not_sent", "refused"})
    unknown = sum(chunk.rows for chunk in report.unknown)
    if waiting or unknown:
        yield f"NOT COMPLETE: {waiting:,} were not taken, and of {unknown:,} it is not known."
