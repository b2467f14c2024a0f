"""Who holds a lock: written into the lock file, for others to read."""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from nudgescribe_async.bulk.files import Lock

__all__ = ["holder_in", "is_beginning", "is_this_process", "iso", "read_holder", "sign", "signature"]

_NAMELESS = "another process, which has not said its name"


def iso(seconds: float) -> str:
    """A moment in UTC; seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def signature(now: float, *, beginning: bool = False) -> str:
    """Who this is. Not the command line: its arguments may hold secrets.

    ``beginning`` says that what the lock is for is about to be made: whoever finds that after a crash knows that it may
    never have been there.
    """
    said: dict[str, object] = {"process": os.getpid(), "machine": platform.node(), "since": iso(now)}
    if beginning:
        said["beginning"] = True
    return json.dumps(said) + "\n"


def is_beginning(text: str) -> bool:
    """Whether who signed was about to make what the lock is for."""
    try:
        return json.loads(text.partition("\n")[0])["beginning"] is True
    except (ValueError, TypeError, KeyError):
        return False


def sign(lock: Lock, text: str) -> None:
    """Say who holds it; nothing depends on it."""
    with suppress(OSError):
        lock.sign(text)


def holder_in(text: str) -> str:
    """Who signed, in words; a file that was written to by somebody else may say anything."""
    try:
        found = json.loads(text.partition("\n")[0])
        process, machine = int(found["process"]), str(found["machine"])
        since = datetime.fromisoformat(found["since"]).astimezone(UTC)
    except (ValueError, TypeError, KeyError):
        return _NAMELESS
    if not machine.isprintable():
        return _NAMELESS
    return f"process {process} on {machine}, since {since:%Y-%m-%d %H:%M:%S} UTC"


def is_this_process(holder: str) -> bool:
    """Whether a holder, in the words of ``holder_in``, is this very process. Ask only of one that holds the lock now: one
    that has crashed may have had the same number.
    """
    return holder.startswith(f"process {os.getpid()} on {platform.node()}, since ")


def read_holder(path: Path) -> str:
    """Who has signed a lock file that somebody else holds; it may be about to."""
    for _ in range(10):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            break
        try:
            text = os.read(descriptor, 4096).decode(errors="replace")
        finally:
            os.close(descriptor)
        if text:
            return holder_in(text)
        time.sleep(0.01)
    return _NAMELESS
