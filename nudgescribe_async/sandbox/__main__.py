"""``python -m nudgescribe_async.sandbox``: the sandbox as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import re
import signal
import sys
from typing import TYPE_CHECKING

from nudgescribe_async.sandbox import LoseAnswer, RateLimit, Sandbox, SandboxError, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
_SHARE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)", re.ASCII)
_RATE = re.compile(r"(\d{1,18})\s*/\s*([\d.]*\s*[a-z]+)", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.ASCII)


def duration(text: str) -> float:
    """Seconds from ``20ms``, ``1.5s``, ``0.1``, ``5m``, ``2h`` or ``14d``."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 20ms, 1.5s or 0.1")
    return float(found[1]) * _UNITS[found[2]]


def share(text: str) -> float:
    """A part of all requests, from ``5%`` or ``0.05``."""
    found = _SHARE.fullmatch(text.strip())
    part = float(found[1]) / (100 if found[2] else 1) if found else math.inf
    if part > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 5% or 0.05")
    return part


def rate(text: str) -> RateLimit:
    """A limit, from ``10/s``, ``100/min`` or ``5/10s``."""
    found = _RATE.fullmatch(text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate such as 10/s or 100/min")
    try:
        return RateLimit(int(found[1]), duration(f"1{found[2]}" if found[2].isalpha() else found[2]))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate such as 10/s or 100/min") from None


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _port(text: str) -> int:
    port = _number(text)
    if port > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: they end at 65535")
    return port


def new_parser() -> argparse.ArgumentParser:
    """What reads the options: those of ``Sandbox``, ``example``, and the faults that ``serve`` takes."""
    parser = argparse.ArgumentParser(
        prog="python -m nudgescribe_async.sandbox",
        usage="%(prog)s [--port PORT] [--db FILE] [--edition 1|2|3] [options]; --help lists them",
        description="The Nudgescribe service, embedded, to test integrations on. Durations: 20ms, 1.5s, 0.1, 5m, 14d.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="where to listen (default: %(default)s, this machine only)")
    add("--port", type=_port, default=8765, help="the port of the API; 0 takes a free one (default: %(default)s)")
    add("--storage-port", type=_port, default=0, help="the port of the signed URLs (default: a free one)")
    add("--db", metavar="FILE", help="a file that survives (default: everything in memory)")
    add("--edition", type=_number, default=3, help="edition of the API: 1, 2 or 3 (default: %(default)s)")
    add("--page-size", type=_number, default=100, help="customers on a page (default: %(default)s)")
    add("--first-page", type=_number, help="from where pages count, 0 or 1 (default: as in the contract)")
    add("--rows-per-file", type=_number, default=5_000, help="rows of a published file (default: %(default)s)")
    add("--latency", type=duration, default=0.0, help="how long every answer is held back (default: 0)")
    add("--job-time", type=duration, default=0.0, help="how long a job waits in the queue (default: 0)")
    add("--queue-above", type=_number, default=1_000, help="larger uploads are queued, in rows (default: %(default)s)")
    add("--max-upload-bytes", type=_number, default=2**30, help="larger uploads are refused (default: %(default)s)")
    add("--access-token-lifetime", type=duration, default=14 * 86_400.0, help="(default: 14d)")
    add("--refresh-token-lifetime", type=duration, default=15 * 86_400.0, help="(default: 15d)")
    add("--url-lifetime", type=duration, default=3_600.0, help="how long signed URLs are good (default: 1h)")
    add("--publish-quota", type=_number, help="how many times an account may publish (default: no limit)")
    add("--state-while-running", metavar="STATE", help="of a campaign while its rerun is queued, such as Generating")
    add("--error-rate", type=share, default=0.0, help="answer so many requests with 503, undone, such as 5%%")
    add("--lose-answers", type=share, default=0.0, help="do so many requests and drop the connection, such as 1%%")
    add("--rate-limit", type=rate, help="answer more requests than these with 429, such as 10/s")
    add("--fault-seed", type=_number, help="makes the choice of these requests repeatable")
    add("--no-page", dest="page", action="store_false", help="no page for browsers at the address of the API")
    add("--no-example", dest="example", action="store_false", help="start without example groups and campaigns")
    return parser


def describe(sandbox: Sandbox, *, example: bool) -> str:
    """What is printed of a sandbox that runs: lines for a shell, the rest as comments."""
    credentials = sandbox.credentials
    lines = [
        f"# The sandbox of the Nudgescribe API listens on {sandbox.url}",
        f"# Its storage listens on {sandbox.storage_url}",
        *([f"# Its page, to open in a browser: {sandbox.page_url}"] if sandbox.page_url else []),
        f"export NUDGESCRIBE_BASE_URL={sandbox.url}",
        f"export NUDGESCRIBE_API_KEY={credentials.api_key}",
        f"export NUDGESCRIBE_EMAIL={credentials.email}",
        f"export NUDGESCRIBE_PASSWORD={credentials.password}",
        f"# account {sandbox.account_id}",
        f"export NUDGESCRIBE_WORKSPACE_ID={sandbox.workspace_id}",
        "# The key of the profiles: AesGcmProfiles(bytes.fromhex(os.environ['NUDGESCRIBE_PROFILE_KEY']))",
        f"export NUDGESCRIBE_PROFILE_KEY={sandbox.profile_key.hex()}",
    ]
    if example:
        for name, group_id in sandbox.example.customer_groups.items():
            lines.append(f"# customer group {group_id}  {name}")
        for name, campaign_id in sandbox.example.campaigns.items():
            lines.append(f"# campaign {campaign_id}  {name}")
    return "\n".join([*lines, "# Stop it with Ctrl-C."])


async def serve(
    sandbox: Sandbox,
    *,
    announce: Callable[[Sandbox], None],
    error_rate: float = 0.0,
    lose_answers: float = 0.0,
    rate_limit: RateLimit | None = None,
) -> None:
    """Run until SIGINT or SIGTERM.

    Args:
        sandbox: what is to run; not entered yet.
        announce: called when it listens.
        error_rate: the share of requests to answer with 503.
        lose_answers: the share of answers to lose.
        rate_limit: how many requests are let through.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # On Windows, and in another thread than the main one: there, Ctrl-C ends asyncio.run by itself.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, stop.set)
    async with sandbox:
        if rate_limit is not None:
            sandbox.inject(rate_limit)
        for fault, part in ((Status(503), error_rate), (LoseAnswer(), lose_answers)):
            if part:
                sandbox.inject(fault, times=None, share=part)
        announce(sandbox)
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = new_parser()
    options = vars(parser.parse_args(arguments))
    faults = {name: options.pop(name) for name in ("error_rate", "lose_answers", "rate_limit")}
    try:
        sandbox = Sandbox(**options)
    except (TypeError, ValueError) as error:
        parser.error(str(error))

    def announce(sandbox: Sandbox) -> None:
        print(describe(sandbox, example=options["example"]), flush=True)  # noqa: T201 - what the command is for

    try:
        asyncio.run(serve(sandbox, announce=announce, **faults))
    except SandboxError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
