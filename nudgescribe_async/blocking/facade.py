"""What a blocking client has besides that of the async one."""

from __future__ import annotations

import inspect
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

from nudgescribe_async.blocking.loop_thread import LoopThread
from nudgescribe_async.errors import ClientClosedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Self

    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.events import Events

__all__ = ["Facade", "warn_coroutines"]

P = ParamSpec("P")
T = TypeVar("T")


class Facade:
    """A client in an event loop in the background."""

    _client: Nudgescribe
    _thread: LoopThread

    def _take(self, client: Nudgescribe) -> None:
        self._client = client
        self._thread = LoopThread(partial(client.aclose, grace=0), repr(self))

    @property
    def events(self) -> Events:
        """Tells subscribers what happens, in the thread in the background.

        They must be quick, since all calls wait for them, and they must not call the client.
        """
        return self._client.events

    def run(
        self, work: Callable[Concatenate[Nudgescribe, P], Coroutine[Any, Any, T]], *args: P.args, **options: P.kwargs
    ) -> T:
        """What a coroutine function of yours returns: ``ns.run(work, ...)`` awaits ``work(client, ...)`` in the background.

        For what is to happen at once: ``asyncio.gather`` and the like, with the same connections, tokens and limits. The
        client that it is given is an async one; leave closing it to the one that you have here. Waiting, Ctrl-C and context
        variables are as with any call.

        Args:
            work: a coroutine function.
            args: what it takes besides the client.
            options: the same.

        Raises:
            TypeError: ``work`` is a coroutine, and no function.
            ClientClosedError: the client is closed, or was closed meanwhile.
        """
        warn_coroutines("run")
        given: object = work
        if inspect.iscoroutine(given):
            given.close()
            raise TypeError(
                "run() takes a coroutine function, which it calls with the client: run(work), not run(work())."
            )
        return self._thread.call(partial(work, self._client, *args, **options))

    def close(self, *, grace: float = 10.0) -> None:
        """Close the client, and end its thread.

        New calls are refused with ``ClientClosedError`` from now on. Those that other threads wait for have ``grace``
        seconds to end; those that have not ended by then are ended, and raise ``ClientClosedError``, which says
        whether they may have taken effect. What ``run`` has begun is cancelled then.

        May be called more than once, by several threads, and before the first call; the shortest grace counts. Ctrl-C cuts
        the grace short. In a process that was forked from the one that has the thread, it does nothing.

        Args:
            grace: seconds; 0 or less ends them at once.

        Raises:
            ConfigurationError: ``grace`` is no number of seconds; or this is a function that the client calls, or an
                iterator that it reads from, which would wait for itself. It stays open.
        """
        if self._thread.ended or not self._thread.is_here:
            return self._thread.end()
        self._thread.check_end()
        try:
            self._thread.call(partial(self._client.aclose, grace=grace))
        except ConfigurationError:
            raise
        except ClientClosedError:
            pass  # another thread has done so meanwhile
        except BaseException:  # Ctrl-C, or a transport that fails to close
            self._thread.end()
            raise
        return self._thread.end()

    def __enter__(self) -> Self:
        if self._thread.ended:
            raise ClientClosedError("The client is closed; build a new one.")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        client = getattr(self, "_client", None)  # a traceback may show one that could not be built
        return "<blocking.Nudgescribe>" if client is None else repr(client).replace("<", "<blocking.", 1)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "A client cannot be pickled: it has connections, and a thread. Build one where the work is done, such as in "
            "the function that Spark runs on its workers."
        )


def warn_coroutines(name: str) -> None:
    """A coroutine that calls its caller holds up its event loop. A cell of a notebook, whose name is in brackets, may."""
    caller = sys._getframe(2).f_code  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    if caller.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR) and not caller.co_name.startswith("<"):
        warnings.warn(
            f"{name} is called in a coroutine, and nothing else of its event loop goes on until it returns: await "
            "nudgescribe_async.Nudgescribe there.",
            RuntimeWarning,
            3,
        )
