"""Many small pools of connections in place of a large one.

Whenever a request comes or goes, httpcore compares each idle connection of a pool with all others: with a hundred of
them that takes longer than the request. And who waits for a connection is looked at as often. So pools are of a few
connections each, and nobody waits in them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from attrs import define

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

__all__ = ["Place", "Pools"]

SIZE: Final = 8


@define(eq=False)
class Place:
    """A place in a pool, for one request."""

    transport: httpx.AsyncBaseTransport
    _pools: Pools | None = None
    _pool: _Pool | None = None

    def give_back(self) -> None:
        """Let another request have it. May be called more than once."""
        pools, self._pools = self._pools, None
        if pools is not None and self._pool is not None:
            pools.given_back(self._pool)


@define(eq=False)
class _Pool:
    transport: httpx.AsyncBaseTransport
    size: int
    used: int = 0
    idle_since: float = 0.0


class Pools:
    """Pools for one route: direct, or through one proxy.

    The first that has room is used, so that few connections stay open where few are needed. One that nobody has used
    for ``keepalive`` seconds is closed when the next request comes.

    Args:
        make: makes one for so many connections.
        limit: the most requests at once; ``None`` is no limit.
        keepalive: seconds.
    """

    def __init__(self, make: Callable[[int], httpx.AsyncBaseTransport], *, limit: int | None, keepalive: float) -> None:
        self._make = make
        self._limit = limit
        self._keepalive = keepalive
        self._pools: list[_Pool] = []
        self._free = None if limit is None else asyncio.Semaphore(limit)

    async def take(self) -> Place:
        """Wait for a place."""
        if self._free is not None:
            await self._free.acquire()
        pool = next((pool for pool in self._pools if pool.used < pool.size), None)
        if pool is None:
            size = SIZE if self._limit is None else min(SIZE, self._limit - SIZE * len(self._pools))
            pool = _Pool(self._make(size), size)
            self._pools.append(pool)
        pool.used += 1
        place = Place(pool.transport, self, pool)
        if len(self._pools) > 1:
            try:
                await self._close_unused()
            except BaseException:
                place.give_back()
                raise
        return place

    def given_back(self, pool: _Pool) -> None:
        """A request has ended."""
        pool.used -= 1
        pool.idle_since = asyncio.get_running_loop().time()
        if self._free is not None:
            self._free.release()

    async def _close_unused(self) -> None:
        oldest = asyncio.get_running_loop().time() - self._keepalive
        # Only the last, so that all but the last stay of full size.
        while not self._pools[-1].used and self._pools[-1].idle_since < oldest:
            await self._pools.pop().transport.aclose()

    async def aclose(self) -> None:
        """Close all connections, used or not."""
        for pool in self._pools:
            await pool.transport.aclose()
