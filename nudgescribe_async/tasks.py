"""Waiting for the end of tasks, such that none is left behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["end", "outlast"]


async def outlast(tasks: Iterable[asyncio.Task[Any]]) -> asyncio.CancelledError | None:
    """Wait until all have ended, however often the caller is cancelled: the last time, if it was.

    For tasks that end soon, or that the caller has told to.
    """
    under_way: set[asyncio.Task[Any]] = {task for task in tasks if not task.done()}
    cancelled: asyncio.CancelledError | None = None
    while under_way:
        try:
            await asyncio.wait(under_way)
        except asyncio.CancelledError as error:
            cancelled = error
        under_way = {task for task in under_way if not task.done()}
    return cancelled


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them, and wait for all, however often that is cancelled itself."""
    under_way = {task for task in tasks if not task.done()}
    for task in under_way:
        task.cancel()
    cancelled = await outlast(under_way)
    if cancelled is not None:
        raise cancelled
