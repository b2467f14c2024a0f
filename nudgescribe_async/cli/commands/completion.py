"""``nudgescribe completion``: commands completed by the shell."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from nudgescribe_async.cli.context import InContext  # noqa: TC001 - read at run time
from nudgescribe_async.cli.failures import UsageError

__all__ = ["completion"]


def completion(
    shell: Annotated[
        Literal["zsh", "bash", "fish", "powershell"] | None,  # in cyclopts' order: typing takes one order for the other
        Parameter(show_default=False, help="The shell; the one that this runs in, if left out."),
    ] = None,
    /,
    *,
    install: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="Write the script to where the shell looks for it, and a line into its start file where that is needed.",
        ),
    ] = False,
    context: InContext,
) -> None:
    """Print the script that completes commands in a shell, or install it."""
    from cyclopts.completion import ShellDetectionError  # noqa: PLC0415 - slow to load

    from nudgescribe_async.cli.app import app  # noqa: PLC0415 - which loads this

    try:
        if install:
            path = app.install_completion(shell=shell)
            context.output.document({"installed": path}, f"Installed: {path}. New shells have it.")
        else:
            script = app.generate_completion(shell=shell)
            context.output.document({"shell": shell, "script": script}, script)
    except ShellDetectionError:
        raise UsageError(
            "It cannot be told which shell this is.", hint="Name it: `nudgescribe completion bash`."
        ) from None
