"""``Nudgescribe`` without ``await``: whatever the async client has, led through the thread in the background.

No signature stands here: what the async client has one day, this one has too. What type checkers and editors are told is
``client.pyi``, which is generated from the same sources.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

from nudgescribe_async.blocking.facade import Facade, warn_coroutines
from nudgescribe_async.blocking.pages import PageIterator
from nudgescribe_async.client import Nudgescribe as AsyncNudgescribe
from nudgescribe_async.shapes import Secret
from nudgescribe_async.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Self

    from nudgescribe_async.blocking.loop_thread import LoopThread
    from nudgescribe_async.paging import PageIterator as AsyncPageIterator

__all__ = ["Nudgescribe"]

_GLANCE = 0.1
"""Seconds between two looks at a ``threading.Event``, which no coroutine can wait for."""


class Nudgescribe(Facade):
    """The client for scripts, notebooks and threads.

    ::

        with blocking.Nudgescribe(Credentials(api_key=..., email=..., password=...)) as ns:
            groups = ns.customer_groups.list(workspace_id)
            for customer in ns.customers.iter(customer_group_id):
                ...

    It has what ``nudgescribe_async.Nudgescribe`` has, with the same arguments, results and errors; only nothing is awaited.
    Iterators are for ``for``, ``stop`` of ``ns.reruns.run`` is a ``threading.Event``, and ``close`` closes.

    Any number of threads may use one client at once: their calls run side by side in the event loop of a thread in the
    background, which begins with the first call and ends with ``close``. Subscribers and ``on_...`` functions are called
    in that thread. A client that was used and is forgotten warns with ``ResourceWarning``.

    Raises:
        ConfigurationError: an argument is missing or wrong; the error names it. Nothing was sent.
    """

    @wraps(AsyncNudgescribe.__init__, assigned=("__annotations__",))
    def __init__(self, *arguments: Any, **options: Any) -> None:
        if isinstance(options.get("api_code"), str):
            options["api_code"] = Secret(options["api_code"])  # tracebacks may show local variables
        self._take(AsyncNudgescribe(*arguments, **options))

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A client with the settings of the environment; see ``nudgescribe_async.Nudgescribe.from_env``."""
        if isinstance(options.get("api_code"), str):
            options["api_code"] = Secret(options["api_code"])
        made = cls.__new__(cls)
        Nudgescribe._take(made, AsyncNudgescribe.from_env(**options))
        return made

    def _take(self, client: AsyncNudgescribe) -> None:
        super()._take(client)
        parts: dict[str, Any] = vars(client)
        for name, part in parts.items():
            kind = part.__class__
            if not name.startswith("_") and inspect.getmembers(kind, inspect.iscoroutinefunction):
                setattr(self, name, _twin_of(kind)(part, self._thread))


class _Twin:
    """A resource of a client."""

    __slots__ = ("part_", "thread_")  # with names that no operation has

    def __init__(self, part: Any, thread: LoopThread) -> None:
        self.part_ = part
        self.thread_ = thread


@cache
def _twin_of(kind: type) -> type[_Twin]:
    """The class with the methods of another, which wait for what theirs await."""
    members: dict[str, Any] = {"__doc__": _in_other_words(kind.__doc__), "__module__": __name__, "__slots__": ()}
    for name, member in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_"):
            waiting = _waiting(member) if inspect.iscoroutinefunction(member) else _making(member)
            waiting.__doc__ = _in_other_words(member.__doc__)
            waiting.__qualname__, waiting.__module__ = f"{kind.__name__}.{name}", __name__
            members[name] = waiting
    return type(kind.__name__, (_Twin,), members)


def _waiting(member: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    can_stop = "stop" in inspect.signature(member).parameters

    @wraps(member)
    def call(self: _Twin, *arguments: Any, **options: Any) -> Any:
        warn_coroutines(call.__qualname__)
        work = partial(member, self.part_, *arguments, **options)
        if can_stop and options.get("stop") is not None:
            work = partial(_stopping, work, options["stop"])
        return self.thread_.call(work)

    return call


def _making(member: Callable[..., AsyncPageIterator[Any]]) -> Callable[..., PageIterator[Any]]:
    @wraps(member)
    def make(self: _Twin, *arguments: Any, **options: Any) -> PageIterator[Any]:
        warn_coroutines(make.__qualname__)
        return PageIterator(member(self.part_, *arguments, **options), self.thread_)

    return make


def _in_other_words(text: str | None) -> str | None:
    return text and text.replace("``async ", "``")


async def _stopping(work: Callable[..., Coroutine[Any, Any, Any]], stop: threading.Event) -> Any:
    """The call, which is told to stop by an event of threads."""
    if not isinstance(stop, threading.Event):
        raise TypeError(f"stop must be a threading.Event, not {type(stop).__name__}.")
    told = asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            await asyncio.sleep(_GLANCE)
        told.set()

    watching = asyncio.create_task(watch(), name="nudgescribe stop")
    try:
        return await work(stop=told)
    finally:
        await end([watching])
