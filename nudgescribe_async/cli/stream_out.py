"""Rows on standard output as they come, while the event loop goes on.

A reader that takes its time, such as ``less``, stops whoever writes to it. What stops here is a thread that does
nothing else, so that Ctrl-C ends the command at once. It is a daemon, and writes to the descriptor itself: the
interpreter ends without it, and waits for no lock of ``sys.stdout``.

The descriptor is not made non-blocking instead: that mode belongs to the open file, which the shell and other programs
share.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeAlias

from nudgescribe_async.cli.output import OutputClosedError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from nudgescribe_async.cli.output import Output

__all__ = ["StreamOut"]

_Job: TypeAlias = "tuple[bytes, asyncio.AbstractEventLoop, asyncio.Future[None]]"
_PIECE: Final = 64 * 1024
"""Bytes of one write, between which the thread looks whether it is still wanted."""


class StreamOut:
    """Standard output, for bytes as they are. Use it as a context; one coroutine writes at a time.

    Cancelling a write leaves it at once, and what was not handed over by then is not written any more, but for one
    piece that may be on its way.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._descriptor = _descriptor()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._ended = threading.Event()
        self._left = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._jobs.put(None)
        if self._thread is not None and not self._left:
            self._thread.join()

    async def write(self, data: bytes) -> None:
        """Hand bytes over; returns once all of them are.

        Raises:
            OutputClosedError: whoever read it has gone away.
            OSError: it cannot be written, since the disk is full.
        """
        if self._descriptor is None:
            self._output.raw(data)
            return
        if self._thread is None:
            self._output.flush()  # what was printed before comes first
            self._thread = threading.Thread(target=self._work, args=(self._descriptor,), name="stdout", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._jobs.put((data, loop, written))
        try:
            await written
        except asyncio.CancelledError:
            self._left = True
            raise
        except BrokenPipeError:
            raise OutputClosedError from None

    def _work(self, descriptor: int) -> None:
        while (job := self._jobs.get()) is not None:
            data, loop, written = job
            trouble: OSError | None = None
            try:
                self._write(descriptor, memoryview(data))
            except OSError as error:
                trouble = error
            with suppress(RuntimeError):  # nobody waits for it any more, and the event loop is closed
                loop.call_soon_threadsafe(_tell, written, trouble)

    def _write(self, descriptor: int, data: memoryview) -> None:
        while data and not self._ended.is_set():
            try:
                data = data[os.write(descriptor, data[:_PIECE]) :]
            except BlockingIOError:  # somebody else has made it so
                select.select((), (descriptor,), ())


def _descriptor() -> int | None:
    """That of standard output; ``None`` if it has none."""
    # Python has no stream where the shell has closed it (>&-): its number may be that of something else by now.
    if sys.stdout is None:
        return None
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError):
        return None


def _tell(written: asyncio.Future[None], trouble: OSError | None) -> None:
    if written.done():
        return
    if trouble is None:
        written.set_result(None)
    else:
        written.set_exception(trouble)
