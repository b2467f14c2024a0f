"""An event loop in a thread of its own, and calls into it that wait.

Any number of threads may call at once; what they call runs side by side in the one event loop. Each call has a copy of its
caller's context variables.

A call that is interrupted while it waits, by Ctrl-C or by whatever a handler of a signal raises, is cancelled in the loop
and waited for, so that it leaves things as a cancelled coroutine leaves them. A second interruption cancels it once more,
which cuts short what it takes its time for; a third one is obeyed at once. Calls of the threads that it waits for are
cancelled with it: those of an upload whose rows come from another call, for instance.

The thread is a daemon, and ended at the exit of the interpreter: whoever forgot to close it is told so, and waits for a few
seconds at most.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import warnings
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nudgescribe_async.errors import ClientClosedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LoopThread"]

T = TypeVar("T")

_PATIENCE_AT_EXIT = 10.0
"""Seconds in which a forgotten client has to close at the exit of the interpreter."""

_GLANCE = 0.5
"""Seconds after which the main thread looks up from waiting: a signal does not wake it on Windows, and elsewhere not if it
comes in the very moment in which the waiting begins."""

_CLOSED = "The client is closed; build a new one."
_ENDED = "The client was closed while this was under way."


class _Thread(threading.Thread):
    """A thread with an event loop, in which nobody may wait for one."""


class LoopThread:
    """The thread, begun with the first call, and ended by ``close``, or when nobody refers to this any more.

    Args:
        close: closes what lives in the loop: called at the end of the loop, whatever ends it. May be called more than once.
        name: of whose calls it does, for messages.
    """

    def __init__(self, close: Callable[[], Awaitable[None]], name: str) -> None:
        self._life = _Life(close, name)

    @property
    def ended(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._life.stop.is_set()

    @property
    def is_here(self) -> bool:
        """Whether the thread lives in this process, if anywhere: forks have none."""
        return self._life.is_here

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """What awaiting ``work()`` in the loop gives, or raises.

        Raises:
            ClientClosedError: the thread has ended, or ends before the work does.
            ConfigurationError: this is a thread with such a loop, which would wait for itself; or a process that was forked.
        """
        self._life.check_caller()
        job = _Job(work)
        try:
            job.above = self._life.current()
            try:
                self._life.take(job)
                job.wait()
            except BaseException as interruption:
                if not job.taken:
                    raise
                raise interruption from self._life.give_up(job)
            return job.result(closed=self.ended)
        finally:
            del job  # an exception that it holds would hold this frame, and so itself

    def end(self) -> None:
        """End the thread, and wait for it: what is still under way is cancelled. Idempotent; from any thread but its own.

        In a process that was forked, there is nothing to end.
        """
        if self._life.is_here:
            self.check_end()
            self._life.end()

    def check_end(self) -> None:
        """Whether this thread may end the other one.

        Raises:
            ConfigurationError: that would wait for itself: a call waits for what is done here.
        """
        self._life.check_caller()
        if self._life.current() is not None:
            raise ConfigurationError(
                f"{self._life.name} was closed by a function or an iterator that one of its calls is waiting for, and that "
                "would wait for itself for ever. Close it once the call has returned."
            )

    def __del__(self) -> None:
        if life := getattr(self, "_life", None):
            life.abandon(self)


class _Life:
    """What the thread knows of; it refers to nobody who calls, so that a forgotten client can be noticed."""

    def __init__(self, close: Callable[[], Awaitable[None]], name: str) -> None:
        self.name = name
        self.stop = asyncio.Event()
        self._close = close
        # One that may be taken twice: a handler of a signal may make a call in the thread that holds it.
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._thread: _Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # What the thread does first, if its loop is not there yet. It makes the loop itself: in the thread that calls, whoever
        # is interrupted in the wrong moment would lose an open one.
        self._posted: list[Callable[[], object]] = []
        self._jobs: set[_Job[Any]] = set()
        self._forgotten = False

    @property
    def is_here(self) -> bool:
        return self._thread is None or self._process == os.getpid()

    def check_caller(self) -> None:
        if not self.is_here:
            raise ConfigurationError(
                f"{self.name} was used before this process was forked, and its event loop is left behind in the parent "
                "process. Build a client in each process."
            )
        if isinstance(threading.current_thread(), _Thread):
            raise ConfigurationError(
                f"{self.name} was called in the thread of an event loop of a blocking client, by a subscriber, an on_... "
                "function or a coroutine, and would wait for itself for ever. Within run(...), await the client that your "
                "function is given; elsewhere, leave it to another thread."
            )

    def current(self) -> _Frame | None:
        """The call on behalf of which this thread works, such as an upload that reads rows in a thread."""
        frame = _FRAME.get()
        return frame if frame is not None and frame.life is self and not frame.ended else None

    def take(self, job: _Job[Any]) -> None:
        with self._lock:
            if self.stop.is_set():
                raise ClientClosedError(_CLOSED)
            if self._thread is None:
                self._start()
            job.forget = self._jobs.discard
            self._jobs.add(job)
            job.taken = True
            if not self._post(partial(self._begin, job)):  # it has just ended, of itself
                job.fail(ClientClosedError(_CLOSED))

    def _start(self) -> None:
        self._process = os.getpid()
        turn = [None]  # whoever takes it out has it: the thread, which lives, or who gives up beginning one
        thread = _Thread(target=self._live, args=(turn,), name="nudgescribe event loop", daemon=True)
        try:
            self._thread = thread
            _LIVING.add(self)
            thread.start()
        except BaseException:
            with contextlib.suppress(IndexError):  # it was interrupted while it waited for a thread that lives by now
                turn.pop()
                self._forget_thread()
            raise

    def _forget_thread(self) -> None:
        """The next call begins another."""
        self._thread = None
        self._posted.clear()
        _LIVING.discard(self)

    def give_up(self, job: _Job[Any]) -> BaseException | None:
        """Cancel it and wait; interrupted again, do so again; and then no more. What it raised, as far as that is known."""
        for _ in range(2):
            with contextlib.suppress(BaseException):  # the first interruption is the one to be raised
                self._post(job.cancel)
                job.wait()
                break
        return job.error

    def _post(self, callback: Callable[[], object]) -> bool:
        """Have it called in the loop, if that has not ended."""
        with self._lock:
            if self._loop is None:
                self._posted.append(callback)
                return True
            try:
                self._loop.call_soon_threadsafe(callback)
            except RuntimeError:  # the loop is closed, and all jobs have ended
                return False
            return True

    def end(self) -> None:
        while True:
            with self._lock:
                if (thread := self._thread) is None:
                    self.stop.set()
                    return
            self._post(self.stop.set)
            thread.join()
            if self.stop.is_set():  # else it could not make its loop
                return

    def abandon(self, front: LoopThread) -> None:
        """Nobody can call any more, or wait: let the thread end, and say so."""
        if self._thread is not None and self.is_here and not self.stop.is_set():
            self._forgotten = True
            self._post(self.stop.set)
            warnings.warn(_never_closed(self.name), ResourceWarning, 3, front)

    def end_at_exit(self) -> bool:
        """Whether somebody forgot to."""
        if self._thread is None or not self.is_here:
            return False
        self._forgotten = True
        self._post(self.stop.set)
        self._thread.join(_PATIENCE_AT_EXIT)
        return True

    # --- in the thread -------------------------------------------------------------------------------------------

    def _begin(self, job: _Job[Any]) -> None:
        if self.stop.is_set():  # what begins now would be left behind
            job.fail(ClientClosedError(_CLOSED))
        else:
            job.begin(_Frame(self))

    def _live(self, turn: list[None]) -> None:
        try:
            turn.pop()
        except IndexError:
            return
        try:
            loop = _new_event_loop()
        except Exception as error:  # noqa: BLE001 - too many open files, for instance: for those who call
            with self._lock:
                left = [*self._jobs]
                self._forget_thread()
            for job in left:
                job.fail(error)
            return
        with self._lock:
            self._loop = loop
            while self._posted:
                loop.call_soon(self._posted.pop(0))
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                try:
                    runner.run(self._until_told())
                finally:  # told, or by what a subscriber raised to end the program; now all tasks are cancelled
                    self.stop.set()
        finally:
            with self._lock:
                left = [*self._jobs]
            for job in left:
                job.fail(ClientClosedError(_ENDED))
            _LIVING.discard(self)

    async def _until_told(self) -> None:
        try:
            await self.stop.wait()
        finally:
            try:
                await self._close()
            except Exception:
                if self._forgotten:
                    raise  # else whoever closed it has been told


class _Frame:
    """What those know of a call that work on its behalf, in whatever thread: by the context that they have of it.

    Not the call itself, since contexts are kept for long, by connections for instance.
    """

    __slots__ = ("below", "cancelled", "ended", "life")

    def __init__(self, life: _Life) -> None:
        self.life = life
        self.below: set[_Job[Any]] = set()
        """Calls that are waited for by what this one waits for. Nobody but the loop can wake those who wait."""
        self.cancelled = False
        self.ended = False


_FRAME: ContextVar[_Frame | None] = ContextVar("nudgescribe call", default=None)


class _Job(Generic[T]):
    """One call: handed over by a thread, done in the loop."""

    __slots__ = (
        "_begun",
        "_ended",
        "_frame",
        "_gate",
        "_result",
        "_task",
        "_work",
        "above",
        "error",
        "forget",
        "taken",
    )

    _result: T

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._frame: _Frame | None = None
        self.above: _Frame | None = None
        self._begun = False
        self._ended = False
        # No threading.Event: whoever is interrupted in the wrong moment of waiting for one leaves it locked, and then the
        # event loop waits for ever as it sets it.
        self._gate = threading.Lock()
        self._gate.acquire()
        self.error: BaseException | None = None
        self.taken = False
        self.forget: Callable[[_Job[Any]], None]

    # --- in the thread of the caller -----------------------------------------------------------------------------

    def wait(self) -> None:
        glance = _GLANCE if threading.current_thread() is threading.main_thread() else -1
        while not self._ended:
            self._gate.acquire(timeout=glance)

    def result(self, *, closed: bool) -> T:
        try:
            if self.error is None:
                return self._result
            if closed and isinstance(self.error, asyncio.CancelledError):
                raise ClientClosedError(_ENDED) from self.error
            raise self.error
        finally:
            del self  # see LoopThread.call

    # --- in the thread of the loop -------------------------------------------------------------------------------

    def begin(self, frame: _Frame) -> None:
        if self._ended:
            return
        if self.above is not None:
            if self.above.cancelled:
                self.fail(asyncio.CancelledError())
                return
            self.above.below.add(self)
        self._frame = frame
        self._task = asyncio.get_running_loop().create_task(self._carry_out(frame), name="nudgescribe call")

    def cancel(self) -> None:
        if self._ended:
            return
        if self._frame is not None:
            self._frame.cancelled = True
            for job in [*self._frame.below]:
                job.cancel()
        if self._task is not None:
            self._task.cancel()
        if not self._begun:  # nor will it: its thread was interrupted while handing it over, or at once
            self.fail(asyncio.CancelledError())

    def fail(self, error: BaseException) -> None:
        if not self._ended:
            self.error = error
            self._end()

    async def _carry_out(self, frame: _Frame) -> None:
        _FRAME.set(frame)
        self._begun = True
        # All that is raised is for the caller: what ends a program must not end the loop of the other calls.
        try:
            self._result = await self._work()
        except BaseException as error:  # noqa: BLE001 - see above
            self.error = error
        finally:
            self._end()
            del self  # see LoopThread.call

    def _end(self) -> None:
        self.forget(self)
        if self._frame is not None:
            self._frame.ended = True
        if self.above is not None:
            self.above.below.discard(self)
        self._ended = True
        self._gate.release()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """That of uvloop, where it is installed (extra ``speed``): nobody else can choose it for this thread."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - it need not be installed
    except ImportError:
        return asyncio.new_event_loop()
    return new_event_loop()


def _never_closed(name: str) -> str:
    return f"{name} was never closed: use `with` or `ns.close()`."


_LIVING: set[_Life] = set()


@atexit.register
def _end_all() -> None:
    """The threads of daemons are cut off in the middle of whatever they do, if they are not ended before."""
    for life in [life for life in (*_LIVING,) if life.end_at_exit()]:
        warnings.warn(_never_closed(life.name), ResourceWarning, 2)
