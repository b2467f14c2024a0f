"""What a request that was given up leaves behind in a pool of httpcore, which is what httpx sends with.

httpcore waits at places where it does not expect to be cancelled: before it connects, between connecting and sending,
and while it closes what it has sent on, since its shields hold off anyio's cancellations and not those of asyncio. A
connection that is lost there stays open, and takes a place in its pool for ever. There is no public way to tell. Should
these attributes go one day, nothing is looked for, and a rule of the conformance suite notices.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from nudgescribe_async.tasks import outlast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx

__all__ = ["close_orphans"]


async def close_orphans(
    transport: httpx.AsyncBaseTransport, trace: Callable[[str, Mapping[str, Any]], Awaitable[None]]
) -> asyncio.CancelledError | None:
    """Close the connections that no request has, however often this is cancelled: the last time, if it was.

    Args:
        transport: the one with the pool.
        trace: of the request that was given up, by which it is known.
    """
    pool: Any = getattr(transport, "_pool", None)
    if not all(hasattr(pool, name) for name in ("_requests", "_connections", "_assign_requests_to_connections")):
        return None
    requests: list[Any] = pool._requests  # noqa: SLF001
    connections: list[Any] = pool._connections  # noqa: SLF001
    for entry in [entry for entry in requests if entry.request.extensions.get("trace") == trace]:
        requests.remove(entry)
    wanted = {id(entry.connection) for entry in requests}
    orphans = [
        connection
        for connection in connections
        if id(connection) not in wanted and not connection.is_idle() and not connection.is_closed()
    ]
    if not orphans:
        return None
    for orphan in orphans:
        connections.remove(orphan)
    orphans += pool._assign_requests_to_connections()  # noqa: SLF001 - somebody may wait for their places
    return await outlast([asyncio.ensure_future(_close(orphans))])


async def _close(connections: list[Any]) -> None:
    await asyncio.gather(*(connection.aclose() for connection in connections), return_exceptions=True)
