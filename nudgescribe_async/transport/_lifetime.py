"""From the first ``send`` to the end of ``aclose``: in one event loop, and closed once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from nudgescribe_async.errors import ClientClosedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["CLOSED_MEANWHILE", "Lifetime"]

CLOSED_MEANWHILE: Final = "The transport was closed while the request waited for a connection. Nothing was sent."


class Lifetime:
    """Whether a transport may still send, and in which event loop.

    Closing happens once, however many tasks ask for it. Whoever is cancelled while waiting for it leaves it going.

    Args:
        loop: the event loop that it belongs to; if left out, that of the first ``send``.

    Attributes:
        closed: whether nothing more may be sent.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.closed = False
        self._loop = loop
        self._closing: asyncio.Task[None] | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        """The running loop, if something may be sent in it.

        Raises:
            ClientClosedError: the transport is closed.
            ConfigurationError: it belongs to another event loop.
        """
        if self.closed:
            raise ClientClosedError("The transport is closed. Nothing was sent.")
        running = asyncio.get_running_loop()
        if self._loop is not running:
            if self._loop is not None:
                raise ConfigurationError(
                    "The transport belongs to the event loop that used it first, and this is another one:"
                    " make one transport for each event loop. Nothing was sent."
                )
            self._loop = running
        return running

    async def leave(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Close with ``close``, or wait until it is closed.

        Raises:
            ConfigurationError: it was used in another event loop, which still is.
        """
        self.closed = True
        running = asyncio.get_running_loop()
        if self._closing is None:
            if self._loop is not None and self._loop is not running and not self._loop.is_closed():
                raise ConfigurationError("The transport was used in another event loop: close it there.")
            self._closing = running.create_task(close())
        if self._closing.done():
            self._closing.result()
        else:
            await asyncio.shield(self._closing)
