"""Blocking work off the event loop, such that nothing of it is left behind."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["StoppedError", "check", "in_own_thread", "in_thread", "stoppable"]

P = ParamSpec("P")
T = TypeVar("T")


class StoppedError(Exception):
    """Nobody waits for the work any more. It never leaves this package."""


async def in_thread(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Do blocking work in a thread.

    Cancelling waits for its end, however often: until then it may hold a file open, and nothing else may touch what it
    works on.
    """
    return await _awaited(partial(work, *arguments, **options), None)


async def in_own_thread(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """The same, in a thread that nobody else has, for what shall not wait until one is free."""
    with ThreadPoolExecutor(1) as thread:
        return await _awaited(partial(work, *arguments, **options), None, thread)


async def stoppable(stop: threading.Event, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """The same, for work that looks at ``stop`` now and then: cancelling sets it."""
    return await _awaited(partial(work, *arguments, **options), stop)


def check(stop: threading.Event) -> None:
    """For long work, now and then.

    Raises:
        StoppedError: it need not go on.
    """
    if stop.is_set():
        raise StoppedError


async def _awaited(work: Callable[[], T], stop: threading.Event | None, executor: Executor | None = None) -> T:
    # A future, and no task as that of to_thread(): an event loop that shuts down cancels every task.
    running = asyncio.get_running_loop().run_in_executor(executor, partial(copy_context().run, work))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
            if stop is not None:
                stop.set()
    if cancelled is None:
        return running.result()
    if not running.cancelled():
        running.exception()  # nobody else asks for it
    raise cancelled
