"""What the report of a test that failed says of its sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nudgescribe_async.sandbox.page.masking import mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nudgescribe_async.injection import Injection
    from nudgescribe_async.sandbox import LogRecord, SandboxFault

__all__ = ["story"]

_MOST = 20  # requests


def story(requests: Sequence[LogRecord], injections: Sequence[Injection[SandboxFault]]) -> str:
    """The last requests, and the faults that may still happen; empty if there are none.

    Reports are kept and passed on, so neither bodies nor queries are in it, nor what a fault answers with. What looks
    like a key or a token is masked in a path.
    """
    lines: list[str] = []
    shown = requests[-_MOST:]
    if shown:
        more = f" of {len(requests):,}" if len(requests) > len(shown) else ""
        lines.append(f"the last {len(shown)}{more} requests:" if more else f"requests: {len(shown)}")
        lines += [_line(record) for record in shown]
    if injections:
        lines.append("faults that may still happen:")
        lines += [_fault(injection) for injection in injections]
    return "\n".join(lines)


def _line(record: LogRecord) -> str:
    status = str(record.status) if record.status else "---"
    name = record.operation or record.origin
    notes = [f"fault: {record.fault}"] if record.fault else []
    notes += ["no answer"] if not record.status else []
    notes += ["changed something"] if record.effect else []
    when = record.when.isoformat(timespec="milliseconds").partition("T")[2].removesuffix("+00:00")
    path = ascii(mask(record.path))[1:-1]  # whatever was requested, it does nothing to a terminal
    end = f"  ({', '.join(notes)})" if notes else ""
    return f"  {when}  {status}  {record.seconds * 1000:6.0f} ms  {name}  {record.method} {path[:120]}{end}"


def _fault(injection: Injection[SandboxFault]) -> str:
    where = injection.operation or "any operation"
    most = "" if injection.times is None else f" of {injection.times}"
    return f"  {type(injection.fault).__name__} on {where}: happened {injection.fired}{most} times"
