"""A sandbox in a thread of its own, and what the tests of the blocking client need besides."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nudgescribe_async import RetryPolicy, blocking
from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox

if TYPE_CHECKING:
    from nudgescribe_async.events import Event

JANUARY, WELCOME = "January 1997", "Welcome back"
PATIENCE = 30.0
QUICK = RetryPolicy(attempts=2, base=0.001, longest=0.002)


@contextmanager
def running(**options: Any) -> Iterator[ThreadedSandbox]:
    sandbox = ThreadedSandbox(example=True, page_size=10, **options)
    sandbox.start()
    try:
        yield sandbox
    finally:
        sandbox.stop()


def client(sandbox: ThreadedSandbox, **options: Any) -> blocking.Nudgescribe:
    return blocking.Nudgescribe(sandbox.credentials, base_url=sandbox.url, **{"retry": QUICK} | options)


def interrupt() -> None:
    """Ctrl-C."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


def seen(ns: blocking.Nudgescribe, operation: str, kind: type[Event], **fields: object) -> threading.Event:
    """Set when such an event comes."""
    came = threading.Event()

    def look(event: Event) -> None:
        if isinstance(event, kind) and getattr(event, "operation", None) == operation:
            came_so = all(getattr(event, name) == value for name, value in fields.items())
            if came_so:
                came.set()

    ns.events.subscribe(look)
    return came


def loop_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "nudgescribe event loop"]


async def for_ever(*_: object) -> None:
    await asyncio.Event().wait()
