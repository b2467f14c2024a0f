"""What the command ends with."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """The exit codes of ``nudgescribe``. They are listed in its ``--help``, and stay as they are."""

    OK = 0
    """All that was asked for was done."""

    FAILURE = 1
    """It was not done: the service refused it, could not be reached, or a check failed."""

    USAGE = 2
    """Arguments or settings are wrong, or a question could not be asked. Nothing was sent that changes something."""

    PARTIAL = 3
    """Part of it was done; the output says which part."""

    DIFFERENT = 4
    """It was done, and what was compared differs, as in ``doctor --contract``."""

    INTERRUPTED = 130
    """Ctrl-C."""

    CLOSED_PIPE = 141
    """Whoever read the output has gone away, as ``head`` does."""

    TERMINATED = 143
    """SIGTERM."""
