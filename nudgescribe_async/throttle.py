"""The bound on what is in flight, shared by plain calls and iterators of one client."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nudgescribe_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Throttle"]


class Throttle:
    """At most ``limit`` requests at once; the others wait in the order in which they came.

    A slot is held while a request is on its way and its answer is read. It is free while a call
    waits for a token or for its next attempt. Renewals of the token need none, or a client whose
    slots are all taken by calls that wait for a token would never move again.
    """

    def __init__(self, limit: int) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigurationError(f"concurrency must be a whole number above 0; got {limit!r}.")
        self.limit = limit
        # Binds itself to an event loop on first contention; the session sees to it that there is one.
        self._semaphore = asyncio.Semaphore(limit)

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None, None]:
        """Hold one slot."""
        async with self._semaphore:
            yield
