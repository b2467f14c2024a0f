"""``nudgescribe doctor``: how far a request gets, one check after the other; and whether the contract is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from nudgescribe_async.cli.context import InContext  # noqa: TC001 - read at run time
from nudgescribe_async.cli.contract_examination import ContractOptions, check_contract
from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.output import legible
from nudgescribe_async.cli.running import run

if TYPE_CHECKING:
    from nudgescribe_async.cli.checks import Check

__all__ = ["doctor"]

STYLES = {"ok": "green", "failed": "bold red", "not run": "yellow"}


def doctor(
    *,
    contract: Annotated[
        bool,
        Parameter(
            negative=(), show_default=False, help="Tell where the answers of the service differ from the contract."
        ),
    ] = False,
    how: ContractOptions = ContractOptions(),  # noqa: B008 - frozen
    context: InContext,
) -> int:
    """Find out how far a request gets, and what to do about it."""
    how.check(contract=contract)
    if contract:
        return run(check_contract(context, how))
    from nudgescribe_async.cli.checks import examine  # noqa: PLC0415 - loads the client

    checks = run(examine(context))
    failed = [check for check in checks if check.result == "failed"]
    document = {"ok": not failed, "checks": checks}
    context.output.document(document, Group(*(_line(check) for check in checks)))
    return ExitCode.FAILURE if failed else ExitCode.OK


def _line(check: Check) -> Text:
    line = Text.assemble((f"{check.result:<8}", STYLES[check.result]), f" {check.name}: {legible(check.detail)}")
    if check.advice:
        line.append(f"\n         {legible(check.advice)}")
    return line
