"""Files beside the result of a job, such as a report as a page.

Whether one can be written is found out before the job; should it fail all the same, that hides nothing of what the job
itself has come to.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from attrs import evolve

from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.failures import UsageError, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from nudgescribe_async.cli.output import Output

__all__ = ["attempted", "check_free", "code_with"]


def check_free(path: Path, *, overwrite: bool, needed: Iterable[Path] = ()) -> None:
    """Find out before a job whether its file can be written.

    Args:
        path: of the file.
        overwrite: whether a file that is there may be replaced.
        needed: files that the job reads or keeps, which are replaced in no case.

    Raises:
        UsageError: it cannot.
    """
    if any(_same(path, each) for each in needed):
        raise UsageError(f"{path} is what the command reads.", hint="Name another file.")
    if os.path.lexists(path):
        if not overwrite:
            raise UsageError(f"{path} is there already.", hint="Name another file, or pass --overwrite.")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no file.", hint="Name a file.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {path.parent}.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"{path} cannot be written.", hint="Name another file.")


def _same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


async def attempted(write: Callable[[], None]) -> OSError | None:
    """Write a file, in a thread; what went wrong, if something did."""
    try:
        await asyncio.to_thread(write)
    except OSError as error:
        return error
    return None


def code_with(error: OSError | None, code: int, output: Output) -> int:
    """How a job ends whose file could not be written, which is told."""
    if error is None:
        return code
    code = code or ExitCode.PARTIAL
    output.failure(evolve(failure_of(error), code=ExitCode(code)))
    return code
