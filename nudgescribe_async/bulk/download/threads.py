"""Blocking work off the event loop, such that nothing of it is left behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

__all__ = ["StoppedError", "check", "off_loop"]

P = ParamSpec("P")
T = TypeVar("T")


class StoppedError(Exception):
    """Nobody waits for the work any more. It never leaves this package."""


async def off_loop(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Do blocking work in a thread. Cancelling waits for its end, for it may hold a file open until then."""
    future = asyncio.get_running_loop().run_in_executor(None, partial(work, *arguments, **options))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # nobody else asks for it
        raise


def check(stop: threading.Event) -> None:
    """For long work, now and then.

    Raises:
        StoppedError: it need not go on.
    """
    if stop.is_set():
        raise StoppedError
