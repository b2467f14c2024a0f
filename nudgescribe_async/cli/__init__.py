"""The command ``nudgescribe`` (extra ``cli``)."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows the name of the command; those of the process if left out.

    Returns:
        The exit code; see ``ExitCode``.
    """
    if find_spec("cyclopts") is None or find_spec("rich") is None:
        print('The command needs two more packages: pip install "nudgescribe_async[cli]".', file=sys.stderr)  # noqa: T201
        return 1
    try:
        from nudgescribe_async.cli.app import execute  # noqa: PLC0415 - Ctrl-C may come while it is loaded

        return execute(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)  # noqa: T201
        return 130
    finally:
        if arguments is None:
            _end_quietly()


def _end_quietly() -> None:
    """All is done and said: from here on Ctrl-C ends the process, without a traceback of the interpreter's end."""
    import signal  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_DFL)
