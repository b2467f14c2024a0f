"""How a job ends that somebody ends: it says what it waits for, and how to go on."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any

__all__ = ["advising", "ended_patiently"]

T = TypeVar("T")


@contextmanager
def advising(advice: Callable[[], str]) -> Generator[None]:
    """Say how to go on, should the command be told to end within.

    Put it around the client as well: closing it may be cut short by a second signal, whose error knows nothing.

    Args:
        advice: asked at the end, for what is known by then.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        # In the place of what the package says there, which is for programmers.
        error.__notes__ = [advice()]
        raise


async def ended_patiently(work: Coroutine[Any, Any, T], tell: Callable[[], None]) -> T:
    """The result of work that takes its time to end in good order.

    Each cancellation is passed on; with the first one ``tell`` is called, so that nobody thinks that the command hangs.
    """
    task = asyncio.create_task(work, name="nudgescribe command")
    told = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if not told:
                tell()
            told = True
            task.cancel()
    return task.result()
