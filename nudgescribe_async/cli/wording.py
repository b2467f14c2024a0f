"""The package speaks to programmers; whoever types commands is told of commands and options.

Errors and reports name arguments (``restart=True``) and coroutines (``ns.reruns.run``). The same sentences, said of
options and commands, are made here, and nowhere else.
"""

from __future__ import annotations

import os
import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from nudgescribe_async.bulk.export.plan import is_url, shown
from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.errors import NudgescribeError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

__all__ = ["command_line", "in_command_words", "option_name", "retell", "same_command", "spoken_as_command"]

_SENTENCES: Final = (
    ("the same call of ns.reruns.run looks at it again", "the same command looks at it again"),
    ("Call ns.reruns.run again", "Run `nudgescribe reruns run` again"),
    ("call ns.reruns.run again", "run `nudgescribe reruns run` again"),
    ("or correct the plan, and call it with", "or correct the plan, and run it with"),
    ("error.report.problems has the rows and the reasons.", "--problems FILE keeps all rows and reasons."),
    ("The problems of the report have the rows and the reasons.", "--problems FILE keeps all rows and reasons."),
    ("make the same call again", "run the same command again"),
    ("make the same call when", "run the same command when"),
    ("then make the same call: it", "then run the same command: it"),
    ("See to the permissions; then call it again.", "See to the permissions; then run it again."),
    ("give it as format=", "say it with --format"),
    ("Give another one as spool=", "Name another one with --spool"),
    ("and this call has", "and this command has"),
    ("and this call asks for", "and this command asks for"),
    ("was there before this call", "was there before this command"),
    ("Call it as before to go on", "Run it as before to go on"),
    ("that this call can go on with", "that this command can go on with"),
    ("What was handed out stays: go on with resume_from=error.cursor.", ""),
    ("The same call", "The same command"),
    ("the same call", "the same command"),
    ("The remarks of the report say", "The output says"),
    ("run_number if you gave one", "--run if you gave it"),
    ("upload the source with", "upload the file again with"),
)
_OPERATIONS: Final = {
    "campaigns.list": "`nudgescribe campaigns list`",
    "customer_groups.list": "`nudgescribe groups list`",
    "customers.iter": "`nudgescribe customers export`",
    "customers.list": "`nudgescribe customers export`",
    "customers.export": "`nudgescribe customers export`",
    "customers.upload": "`nudgescribe customers upload`",
    "messages.download": "`nudgescribe messages download`",
    "messages.publish": "`nudgescribe messages publish`",
    "profile_fields.list": "`nudgescribe fields list`",
    "reruns.history": "`nudgescribe reruns history`",
    "reruns.run": "`nudgescribe reruns run`",
}
_OPTIONS: Final = {"run_number": "run", "workspace_id": "workspace"}
_FLAG: Final = re.compile(r"\b(amend|fail_fast|overwrite|publish|repeat_unknown|restart|wait)=True\b")
_VALUE: Final = re.compile(
    r"\b(campaign_column|concurrency|consistency|delimiter|encoding|fields|format|from_row|group_column|journal|rows_per_chunk"
    r"|rows_per_part|run_number|to_row|unique|via|workspace_id)=(?=(\S?))"
)
_OPERATION: Final = re.compile(rf"`?(?:\bns\.|\b)({'|'.join(map(re.escape, _OPERATIONS))})\b`?")


def in_command_words(text: str) -> str:
    """A sentence of the package, with options and commands in the place of arguments and coroutines."""
    for ours, theirs in _SENTENCES:
        text = text.replace(ours, theirs)
    text = _FLAG.sub(lambda found: f"--{_option(found[1])}", text)
    text = _VALUE.sub(lambda found: f"--{_option(found[1])}{' ' if _begins_value(found[2]) else ''}", text)
    return _OPERATION.sub(lambda found: _OPERATIONS[found[1]], text)


def _begins_value(letter: str) -> bool:
    return letter.isalnum() or letter in tuple("<['\"")


def _option(name: str) -> str:
    return _OPTIONS.get(name, name).replace("_", "-")


@contextmanager
def spoken_as_command() -> Generator[None]:
    """What the package raises within, in the words of commands.

    Raises:
        UsageError: an argument has a value that cannot be right, which the package says with a ``ValueError``.
    """
    try:
        yield
    except NudgescribeError as error:
        retell(error)
        raise
    except ValueError as error:
        if type(error) is not ValueError:
            raise  # of what could not be decoded, and holds it
        raise UsageError(in_command_words(str(error))) from error


def retell(error: NudgescribeError) -> None:
    """Put all that an error says into the words of commands."""
    error.message = in_command_words(error.message)
    error.advice = in_command_words(error.advice)
    error.look = None if error.look is None else in_command_words(error.look)


def same_command(arguments: Sequence[str], *, without: str | None = None, also: str | None = None) -> str:
    """The command to run again; in words where a URL in it may hold a password.

    Args:
        arguments: what followed the name of the program.
        without: an option without a value that would not go on, but begin anew.
        also: an option without a value that is needed from now on.
    """
    if any(is_url(each) and shown(each) != each for each in arguments):
        changes = [f"without {without}"] if without in arguments else []
        changes += [f"with {also}"] if also else []
        return f"the same command {' and '.join(changes)}" if changes else "the very same command"
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [each for each in arguments[:end] if without is None or option_name(each) != without]
    return command_line([*options, *([also] if also else []), *arguments[end:]])


def option_name(argument: str) -> str:
    """The name in ``--from-row``, ``--from-row=5`` and ``--from_row``, which are all taken."""
    return argument.partition("=")[0].replace("_", "-")


def command_line(arguments: Sequence[str]) -> str:
    """A line to paste into a shell, for these arguments of the command."""
    return " ".join(["nudgescribe", *map(_quoted, arguments)])


def _quoted(argument: str) -> str:
    # What a terminal would not show would not be copied neither.
    if argument.isprintable():
        return shlex.quote(argument)
    letters = (
        f"\\{letter}" if letter in "\\'" else letter if letter.isprintable() else _octal(letter) for letter in argument
    )
    return f"$'{''.join(letters)}'"


def _octal(letter: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(letter))
