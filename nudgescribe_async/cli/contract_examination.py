"""``nudgescribe doctor --contract``: asks, writes the files that were asked for, and says how it ends."""

from __future__ import annotations

import os
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrs import fields, frozen
from cyclopts import Parameter
from cyclopts.types import PositiveInt  # noqa: TC002 - read at run time

from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.cli.result_file import attempted, check_free, code_with
from nudgescribe_async.cli.wording import spoken_as_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from nudgescribe_async.cli.context import Context
    from nudgescribe_async.contract_doctor import ContractReport

__all__ = ["ContractOptions", "check_contract"]

Flag = Parameter(negative=(), show_default=False)


@Parameter(name="*")
@frozen(kw_only=True)
class ContractOptions:
    """What concerns the contract alone.

    Attributes:
        workspace: the workspace to look at.
        group: the group to look at.
        campaign: the campaign to look at.
        max_requests: so many are sent at most.
        record: where to record the session.
        replay: the recording to look at instead of the service.
        report: where to write the report.
        patch: where to write the patch.
        overwrite: whether files that are there may be replaced.
    """

    workspace: Annotated[
        str | None,
        Parameter(
            help="With --contract: the id of the workspace to look at. Default: NUDGESCRIBE_WORKSPACE_ID, else the "
            "profile's, else the one that has campaigns."
        ),
    ] = None
    group: Annotated[
        str | None,
        Parameter(help="With --contract: the id of the group to look at. Default: the first that has customers."),
    ] = None
    campaign: Annotated[
        str | None,
        Parameter(help="With --contract: the id of the campaign to look at. Default: the first that is published."),
    ] = None
    max_requests: Annotated[
        PositiveInt | None, Parameter(help="With --contract: so many requests are sent at most. Default: 40.")
    ] = None
    record: Annotated[
        Path | None,
        Parameter(help="With --contract: record the session in this file, every value replaced by a made-up one."),
    ] = None
    replay: Annotated[
        Path | None,
        Parameter(help="With --contract: look at this recording, and send nothing."),
    ] = None
    report: Annotated[Path | None, Parameter(help="With --contract: write the report to this file, too, as JSON.")] = (
        None
    )
    patch: Annotated[
        Path | None,
        Parameter(help="With --contract: write to this file what marks in the contract what was confirmed."),
    ] = None
    overwrite: Annotated[bool, Flag, Parameter(help="With --contract: replace files that are there.")] = False

    def check(self, *, contract: bool) -> None:
        """Refuse what does not go together, and files that cannot be written.

        Raises:
            UsageError: the sentence names it.
        """
        given = [item.name for item in fields(type(self)) if getattr(self, item.name) not in {None, False}]
        names = [f"--{name.replace('_', '-')}" for name in given]
        if given and not contract:
            raise UsageError(f"{names[0]} goes with --contract only.", hint="Add --contract, or leave it out.")
        if self.replay is not None:
            live = {"workspace", "group", "campaign", "max_requests", "record"} & {*given}
            if live:
                wrong = f"--{min(live).replace('_', '-')}"
                raise UsageError(
                    f"{wrong} is for the service, and --replay looks at a recording.", hint="Give one of them."
                )
        files = [path for path in (self.record, self.report, self.patch) if path is not None]
        if len({path.absolute() for path in files}) < len(files):
            raise UsageError("--record, --report and --patch must name different files.")
        for path in files:
            check_free(path, overwrite=self.overwrite, needed=[self.replay] if self.replay is not None else ())

    def old_recording(self) -> Path | None:
        """The file to be replaced by the recording, if there is one."""
        return self.record if self.record is not None and os.path.lexists(self.record) else None


async def check_contract(context: Context, how: ContractOptions) -> int:
    """Examine the service or a recording, print the report, and write it and the patch; the code to end with."""
    output = context.output
    with spoken_as_command():
        if how.patch is not None:
            from nudgescribe_async.contract_doctor.patch import need_yaml  # noqa: PLC0415 - loads the client

            need_yaml()
        if (old := how.old_recording()) is not None:
            report, not_replaced = await _examined_again(context, how, old)
        else:
            report, not_replaced = await _examined(context, how, how.record), None
    output.document(report.as_dict(), str(report))
    code = code_with(not_replaced, _code(report), output)
    writing: list[tuple[Path | None, Callable[[], str]]] = [
        (how.report, lambda: f"{report.to_json()}\n"),
        (how.patch, report.patch),
    ]
    for path, text in writing:
        if path is None:
            continue
        with spoken_as_command():
            trouble = await attempted(_Writing(path, text))
        code = code_with(trouble, code, output)
        if path is how.patch and trouble is None:
            output.note(
                f"{path} marks {len(report.confirmed):,} assumptions as observed: `git apply` it in a checkout, and generate."
            )
    return code


async def _examined_again(
    context: Context, how: ContractOptions, record: Path
) -> tuple[ContractReport, OSError | None]:
    """The report, and why the recording could not be replaced, if it could not.

    The recording that is there stays as it is until there is a report of a session that got past the login; the new one
    stands beside it until then, and is taken away if it does not come to that.
    """
    from nudgescribe_async.contract_doctor.watching import LOGIN  # noqa: PLC0415 - loads the client

    beside = record.with_name(f"{record.name}.{secrets.token_hex(4)}")
    is_better = False
    try:
        report = await _examined(context, how, beside)
        is_better = any(each.operation == LOGIN and 200 in each.statuses for each in report.asked)
    finally:
        if not is_better:
            beside.unlink(missing_ok=True)
    if is_better:
        return report, await attempted(partial(os.replace, beside, record))
    context.output.note(f"{record} is as it was, since the login failed.")
    return report, None


async def _examined(context: Context, how: ContractOptions, record: Path | None) -> ContractReport:
    from nudgescribe_async.contract_doctor import examination  # noqa: PLC0415 - loads the client

    if how.replay is not None:
        return await examination.examine_recording(how.replay)
    from nudgescribe_async.auth import Credentials  # noqa: PLC0415 - slow to load
    from nudgescribe_async.transport.aiohttp import AiohttpTransport  # noqa: PLC0415 - slow to load, too

    settings = context.settings
    api_key, email, password = settings.need_credentials()
    settings.need_destination()
    return await examination.examine(
        Credentials(api_key=api_key, email=email, password=password),
        base_url=settings.base_url,
        transport=AiohttpTransport(limit=0, trust_env=True),  # proxies, as every command has them
        api_code=settings.get("api_code"),
        workspace_id=how.workspace or settings.workspace_id,
        customer_group_id=how.group,
        campaign_id=how.campaign,
        record=record,
        max_requests=how.max_requests or examination.MOST_REQUESTS,
        pause=examination.PAUSE,
    )


def _code(report: ContractReport) -> ExitCode:
    if report.findings:
        return ExitCode.DIFFERENT
    return ExitCode.OK if report.complete else ExitCode.PARTIAL


@frozen
class _Writing:
    """Writes a text that is made when it is written."""

    path: Path
    text: Callable[[], str]

    def __call__(self) -> None:
        self.path.write_text(self.text(), encoding="utf-8")
