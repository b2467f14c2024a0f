"""Runs the coroutine of a command until it ends, or somebody ends it.

Ctrl-C and SIGTERM cancel the coroutine, so that everything that it opened is closed and what it does is left in a
state to go on from. A second signal cancels it again, for commands that take their time.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from attrs import define

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

__all__ = ["Interruption", "run"]

T = TypeVar("T")


class Interruption(Exception):  # noqa: N818 - nothing went wrong
    """The command was told to end, and has ended.

    Attributes:
        number: the signal.
        advice: how to go on, as far as the command said.
    """

    def __init__(self, number: signal.Signals, advice: str = "") -> None:
        super().__init__(number.name)
        self.number = number
        self.advice = advice


@define
class _Ender:
    task: asyncio.Task[Any]
    received: signal.Signals | None = None

    def end(self, number: signal.Signals) -> None:
        self.received = number
        self.task.cancel()


def run(command: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, in an event loop of its own.

    Raises:
        Interruption: a signal has ended it. Notes of the ``CancelledError`` are its advice.
    """
    return asyncio.run(_until_told(command))


async def _until_told(command: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine of asyncio.run is one
    ender = _Ender(task)
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        with suppress(NotImplementedError, ValueError, RuntimeError):  # Windows; a thread other than the main one
            loop.add_signal_handler(number, ender.end, number)
    try:
        return await command
    except asyncio.CancelledError as error:
        if ender.received is None:
            raise
        task.uncancel()
        raise Interruption(ender.received, " ".join(getattr(error, "__notes__", ()))) from None
    finally:
        for number in numbers:
            with suppress(NotImplementedError, ValueError, RuntimeError):
                loop.remove_signal_handler(number)
