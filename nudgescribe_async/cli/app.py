"""Assembles the commands, runs the one that is asked for, and says how it ended."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from nudgescribe_async.cli.context import Context, GlobalOptions
from nudgescribe_async.cli.conventions import ABOUT, COMMANDS, EPILOGUE
from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.failures import Failure, failure_of
from nudgescribe_async.cli.output import Output, OutputClosedError
from nudgescribe_async.cli.running import Interruption, run
from nudgescribe_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

__all__ = ["app", "execute"]

TOLD_BY_ERRORS = frozenset({"CallGivenUp", "EffectUnknown", "TokenRenewalFailed"})
"""Events that end with an error, which says the same."""

app = App(
    name="nudgescribe",
    help=ABOUT,
    help_epilogue=EPILOGUE,
    help_format="markdown",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

# Loaded when they are used: each takes its time.
for name, (place, text) in COMMANDS.items():
    app.command(f"nudgescribe_async.cli.commands.{place}", name=name, help=text)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    options: GlobalOptions = GlobalOptions(),  # noqa: B008 - frozen
) -> int:
    """Run the command that the tokens name."""
    output = Output(as_json=options.json)
    context = Context(options, output)
    with _reported(output, debug=options.debug) as outcome:
        command, bound, injected = app.parse_args(
            tokens, console=output.help, error_console=output.notes, exit_on_error=False, print_error=False
        )
        if "context" in injected:
            bound.arguments["context"] = context
        with _logging(output, debug=options.debug):
            result = command(*bound.args, **bound.kwargs)
            if inspect.iscoroutine(result):
                result = run(result)
        outcome.append(ExitCode.OK if result is None else result)
        output.flush()
    return outcome[-1]


def execute(arguments: Sequence[str]) -> int:
    """Run the command line; the code to exit with."""
    output = Output(as_json="--json" in arguments)
    with _reported(output, debug="--debug" in arguments) as outcome:
        result = app.meta(
            arguments, console=output.help, error_console=output.notes, exit_on_error=False, print_error=False
        )
        if not isinstance(result, int):  # help or the version; a command has flushed its own
            result = ExitCode.OK
            output.flush()
        outcome.append(result)
    return int(outcome[-1])


@contextmanager
def _reported(output: Output, *, debug: bool) -> Generator[list[int], None, None]:
    """Whatever is raised inside is told on stderr, and becomes the last exit code of the list."""
    outcome: list[int] = []
    try:
        yield outcome
    except (OutputClosedError, BrokenPipeError):  # the demonstration prints by itself
        _discard_output()
        outcome.append(ExitCode.CLOSED_PIPE)
    except (KeyboardInterrupt, Interruption) as ended:
        outcome.append(_interrupted(output, ended))
    except CycloptsError as error:
        failure = Failure(
            code=ExitCode.USAGE,
            kind=type(error).__name__,
            message=_one_line(str(error)),
            hint=_help_of(error),
            details={},
        )
        outcome.append(_failed(output, failure, debug=debug))
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends here
        outcome.append(_failed(output, failure_of(error), debug=debug))


def _failed(output: Output, failure: Failure, *, debug: bool) -> int:
    with suppress(OutputClosedError, OSError):  # on a disk that is full, the code is all that can be said
        if debug:
            output.note(traceback.format_exc().rstrip())
        output.failure(failure)
    _hand_over(output)
    return failure.code


def _interrupted(output: Output, ended: KeyboardInterrupt | Interruption) -> int:
    terminated = isinstance(ended, Interruption) and ended.number == signal.SIGTERM
    advice = ended.advice if isinstance(ended, Interruption) else ""
    code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
    word = "Terminated." if terminated else "Interrupted."
    failure = Failure(code=code, kind=word.rstrip("."), message=f"{word} {advice}".rstrip(), details={})
    with suppress(OutputClosedError, OSError):
        if output.json:
            output.failure(failure)
        else:
            output.note(failure.message)
    _hand_over(output)
    return code


def _hand_over(output: Output) -> None:
    """What was printed before it ended, if somebody reads it."""
    try:
        output.flush()
    except (OutputClosedError, OSError):
        _discard_output()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _help_of(error: CycloptsError) -> str:
    chain = " ".join(("nudgescribe", *(error.command_chain or ())))
    return f"`{chain} --help` explains it."


def _discard_output() -> None:
    """What is still in the buffer goes nowhere, lest the interpreter complains when it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def _logging(output: Output, *, debug: bool) -> Generator[None, None, None]:
    """What the package logs is noted: warnings, and with ``--debug`` everything."""
    logger = logging.getLogger("nudgescribe_async")
    handler = _Noting(output, leave_out=() if debug else TOLD_BY_ERRORS)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Noting(logging.Handler):
    def __init__(self, output: Output, *, leave_out: Collection[str]) -> None:
        super().__init__()
        self._output = output
        self._leave_out = leave_out

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", None) in self._leave_out:
            return
        with suppress(Exception):  # a log must harm nobody
            self._output.note(f"{record.levelname.capitalize()}: {record.getMessage()}")
