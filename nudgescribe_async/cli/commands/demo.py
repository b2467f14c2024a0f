"""``nudgescribe demo``: the whole product once."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nudgescribe_async.cli.commands.sandbox import need_sandbox
from nudgescribe_async.cli.context import InContext  # noqa: TC001 - read at run time
from nudgescribe_async.cli.failures import CommandError
from nudgescribe_async.cli.running import run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nudgescribe_async.cli.context import Context
    from nudgescribe_async.demo import Report

__all__ = ["demo"]


def demo(*, context: InContext) -> None:
    """Show the whole product once."""
    need_sandbox()
    from nudgescribe_async import demo as program  # noqa: PLC0415 - an extra, and slow to load

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nudgescribe-demo-"))
        if context.output.json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if not _is_open(sys.stdout):
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        _tell(context, *run(_run(lambda: program.run(Path(folder)))))


def _is_open(stream: TextIO | None) -> bool:
    """Python has no stream where the shell has closed it (>&-)."""
    return stream is not None


async def _run(program: Callable[[], Coroutine[Any, Any, Report]]) -> tuple[Report, float]:
    from nudgescribe_async.demo import DifferenceError, say  # noqa: PLC0415 - see above

    started = time.perf_counter()
    say("\nNudgescribe, end to end: 23,570 customers of the shop CDNOW (1997-98), the sandbox, one client.\n")
    try:
        return await program(), time.perf_counter() - started
    except DifferenceError as difference:
        raise CommandError(str(difference), hint="What came back is not what went up; please report it.") from None


def _tell(context: Context, report: Report, seconds: float) -> None:
    lines = ["", "Verified", "", *(f"  - {line}" for line in report.verified), "", f"All of it in {seconds:.1f} s."]
    context.output.document({"verified": report.verified, "seconds": round(seconds, 3)}, "\n".join(lines))
