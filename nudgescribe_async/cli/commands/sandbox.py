"""``nudgescribe sandbox``: the service, embedded, as a process of its own.

The options are those of ``python -m nudgescribe_async.sandbox``, read by its own parser.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from cyclopts import App, Parameter

from nudgescribe_async.cli.context import InContext  # noqa: TC001 - read at run time
from nudgescribe_async.cli.conventions import EPILOGUE
from nudgescribe_async.cli.failures import CommandError, UsageError
from nudgescribe_async.cli.running import run

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from nudgescribe_async.cli.context import Context
    from nudgescribe_async.sandbox import Sandbox

__all__ = ["app", "need_sandbox"]


def need_sandbox() -> None:
    """Refuse to go on without the packages of the sandbox.

    Raises:
        UsageError: they are not installed.
    """
    if find_spec("cryptography") is None or find_spec("jwt") is None:
        raise UsageError(
            "The sandbox needs two more packages.", hint='Run: pip install "nudgescribe_async[cli,sandbox]".'
        )


def _parser() -> ArgumentParser:
    from nudgescribe_async.sandbox import __main__ as program  # noqa: PLC0415 - an extra, and slow to load

    def refuse(message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", hint="`nudgescribe sandbox --help` lists the options.")

    parser = program.new_parser()
    parser.prog = "nudgescribe sandbox"
    parser.error = refuse  # type: ignore[method-assign]
    return parser


def _options_as_text() -> str:
    try:
        need_sandbox()
    except UsageError as error:
        return f"{error.message} {error.hint}"
    _, _, options = _parser().format_help().partition("options:\n")
    return f"Options of the sandbox. Durations: 20ms, 1.5s, 0.1, 5m, 14d.\n\n```text\n{options}```\n"


app = App(name="sandbox", help_epilogue=f"{_options_as_text()}\n{EPILOGUE}")


@app.default
def sandbox(
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    context: InContext,
) -> None:
    """Run the sandbox of the service until Ctrl-C."""
    need_sandbox()
    from nudgescribe_async.sandbox import Sandbox  # noqa: PLC0415 - an extra, and slow to load

    parser = _parser()
    # What stands behind an option of the sandbox is not looked at for the options of every command.
    rest = [argument for argument in arguments if argument not in {"--json", "--debug"}]
    context.output.json = context.output.json or "--json" in arguments
    options = vars(parser.parse_args(rest))
    faults = {name: options.pop(name) for name in ("error_rate", "lose_answers", "rate_limit")}
    try:
        service = Sandbox(**options)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    run(_served(service, context, example=options["example"], **faults))


async def _served(service: Sandbox, context: Context, *, example: bool, **faults: Any) -> None:
    from nudgescribe_async.sandbox import SandboxError  # noqa: PLC0415 - see above
    from nudgescribe_async.sandbox.__main__ import describe, serve  # noqa: PLC0415

    def announce(sandbox: Sandbox) -> None:
        context.output.row(_as_document(sandbox, example=example), describe(sandbox, example=example))

    try:
        await serve(service, announce=announce, **faults)  # being told to stop is how it ends, and no interruption
    except SandboxError as error:
        raise CommandError(str(error)) from None


def _as_document(service: Sandbox, *, example: bool) -> dict[str, object]:
    owner = service.credentials
    return {
        "url": service.url,
        "page_url": service.page_url,
        "storage_url": service.storage_url,
        "account_id": service.account_id,
        "environment": {
            "NUDGESCRIBE_BASE_URL": service.url,
            "NUDGESCRIBE_API_KEY": owner.api_key,
            "NUDGESCRIBE_EMAIL": owner.email,
            "NUDGESCRIBE_PASSWORD": owner.password,
            "NUDGESCRIBE_WORKSPACE_ID": service.workspace_id,
            "NUDGESCRIBE_PROFILE_KEY": service.profile_key.hex(),
        },
        "customer_groups": dict(service.example.customer_groups) if example else {},
        "campaigns": dict(service.example.campaigns) if example else {},
    }
