"""A sandbox on an event loop of its own, in a thread of its own.

Fixtures are shared between tests that run on different event loops, on other libraries than asyncio, or on none. A
sandbox on the loop of one test would not answer in the next; one that has its own answers all of them, also while a test
blocks, waits in a debugger, or runs a program of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import field, frozen

from nudgescribe_async.sandbox import Sandbox, SandboxError
from nudgescribe_async.sandbox.trouble import DOWNLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import EllipsisType

    from nudgescribe_async.injection import Injection
    from nudgescribe_async.sandbox import LogRecord, SandboxFault

__all__ = ["Moment", "ThreadedSandbox"]

_T = TypeVar("_T")

_PATIENCE = 60.0  # seconds; long enough for a sandbox that takes in a large upload on a slow machine
_PATIENCE_LOST = 1.0  # whoever waited in vain once does not wait as long again at each step of a test's end


@frozen
class Moment:
    """How much had happened in a sandbox by then; nothing, if made without arguments."""

    counts: Counter[tuple[str | None, int]] = field(factory=Counter[tuple[str | None, int]])
    effects: Counter[str] = field(factory=Counter[str])


class ThreadedSandbox(Sandbox):
    """A sandbox that is started and stopped without ``await``.

    All that ``Sandbox`` has works from any thread: coroutines are awaited on any asyncio loop, and done on the sandbox's.
    What a ``BadAnswer`` has for a body is made on the sandbox's loop too. If that blocks, whoever asks the sandbox for
    something waits a minute and then gets a ``SandboxError``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Future[None] = Future()
        self._patience = _PATIENCE
        self._started: Future[None] = Future()
        self._stopped: Future[None] = Future()
        self._thread = threading.Thread(
            target=_settle, args=(self._stopped, self._serve_here), name="nudgescribe sandbox", daemon=True
        )

    def start(self) -> None:
        """Start. Raises what entering the sandbox raises; nothing is left then, nor if the waiting is interrupted."""
        try:
            self._thread.start()
            wait([self._started, self._stopped], return_when=FIRST_COMPLETED)
        except BaseException:  # Ctrl-C, or a time limit: nobody will stop what is not known to have started
            self._let_end()
            if self._thread.is_alive():
                self._thread.join(self._patience)
            raise
        if not self._started.done():
            self._thread.join()
            self._stopped.result()

    def stop(self) -> None:
        """Stop, and end the thread. Idempotent."""
        self._let_end()
        self._thread.join(self._patience)
        if self._thread.is_alive():
            raise self._no_answer()
        self._stopped.result()

    def _let_end(self) -> None:
        with contextlib.suppress(InvalidStateError):  # it is to end already
            self._end.set_result(None)

    def _no_answer(self) -> SandboxError:
        waited, self._patience = self._patience, min(self._patience, _PATIENCE_LOST)
        return SandboxError(
            f"The sandbox has not answered for {waited:g} s: its thread is busy. A function that makes the body of a "
            "BadAnswer runs there; it must not block, nor wait for the test."
        )

    def _serve_here(self) -> None:
        asyncio.run(self._life())

    async def _life(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self:
            self._started.set_result(None)
            await asyncio.wrap_future(self._end)

    def _do(self, work: Callable[[], _T]) -> _T:
        """Do it in the thread: what the sandbox keeps is changed there, and must not be read in the middle of a change."""
        if self._loop is None or not self._thread.is_alive() or threading.current_thread() is self._thread:
            return work()
        done: Future[_T] = Future()
        self._loop.call_soon_threadsafe(_settle, done, work)
        wait([done], self._patience)
        if done.cancel():  # not begun: nor will it be, when nobody expects it any more
            raise self._no_answer()
        return done.result()

    async def _await(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            raise SandboxError("The coroutines of the sandbox are for asyncio: no loop of asyncio runs here.") from None
        if self._loop is None or not self._thread.is_alive() or here is self._loop:
            return await work()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))

    def inject(
        self,
        fault: SandboxFault,
        *,
        operation: str | None = None,
        times: int | EllipsisType | None = ...,
        skip: int = 0,
        share: float = 1.0,
        seconds: float | None = None,
    ) -> Injection[SandboxFault]:
        plan = functools.partial(
            super().inject, fault, operation=operation, times=times, skip=skip, share=share, seconds=seconds
        )
        injection = self._do(plan)
        remove = injection._remove  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        injection._remove = lambda which: self._do(functools.partial(remove, which))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return injection

    # --- since a moment ------------------------------------------------------------------------------------------

    def moment(self) -> Moment:
        """Now."""
        return self._do(lambda: Moment(self._now.api.counts.copy(), self._now.api.effects.copy()))

    def log_since(self, moment: Moment) -> tuple[LogRecord, ...]:
        """The requests of the log that came to their end after a moment."""

        def read() -> tuple[LogRecord, ...]:
            new = self._now.api.counts.total() - moment.counts.total()
            return tuple(self._now.api.log)[-new:] if new else ()

        return self._do(read)

    def count_since(self, moment: Moment, operation: str | None, status: int | None = None) -> int:
        """``count``, without what was before."""
        names = {None, DOWNLOAD} if operation is None else {operation}
        before = sum(
            n
            for (known, answer), n in moment.counts.items()
            if known in names and (answer == status if status is not None else answer != 0)
        )
        return self.count(operation, status) - before

    def effects_since(self, moment: Moment) -> Mapping[str, int]:
        """``effects``, without what was before."""
        effects = cast("Counter[str]", self.effects)  # a copy, which knows what operations there are
        for operation, n in moment.effects.items():
            effects[operation] -= n
            if not effects[operation]:
                del effects[operation]
        return effects


def _settle(future: Future[_T], work: Callable[[], _T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - raised where somebody waits for it
        future.set_exception(error)
    else:
        future.set_result(result)


def _done_in_the_thread(member: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(member)
    def do(self: ThreadedSandbox, *args: Any, **options: Any) -> Any:
        return self._do(functools.partial(member, self, *args, **options))  # pyright: ignore[reportPrivateUsage]

    return do


def _awaited_from_anywhere(member: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(member)
    async def do(self: ThreadedSandbox, *args: Any, **options: Any) -> Any:
        return await self._await(functools.partial(member, self, *args, **options))  # pyright: ignore[reportPrivateUsage]

    return do


def _take_over() -> None:
    """Lead all that a sandbox has in public into its thread, also what it will have one day."""
    for name in dir(Sandbox):
        if name.startswith("_") or name in vars(ThreadedSandbox):
            continue
        member = inspect.getattr_static(Sandbox, name)
        if inspect.iscoroutinefunction(member):
            setattr(ThreadedSandbox, name, _awaited_from_anywhere(member))
        elif inspect.isfunction(member):
            setattr(ThreadedSandbox, name, _done_in_the_thread(member))
        elif isinstance(member, property) and member.fget is not None:
            setattr(ThreadedSandbox, name, property(_done_in_the_thread(member.fget), doc=member.__doc__))


_take_over()
