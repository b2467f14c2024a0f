"""``FaultProxy``: stands between a client and a server on loopback, and lets the network go wrong for real.

What a client makes of a fault depends on its sockets, its HTTP library and its event loop; here nothing of that is
replaced. The proxy passes bytes on as they come, and reads of HTTP/1.1 only where requests and answers begin and end.
Each connection of a client gets a connection of its own to the server, and whatever the one side does to its
connection, close it or reset it, is done to the other. What does not look like HTTP is passed on and counted nowhere.

A fault is decided on when the head of a request has arrived, and befalls that exchange alone, except that a connection
which it ends is lost to the requests that were sent ahead on it. Memory is bounded: a slow reader slows the writer
down, in both directions.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, Self, cast
from urllib.parse import urlsplit

from attrs import frozen

from nudgescribe_async.arguments import check_whole
from nudgescribe_async.injection import FaultPlan, Injection
from nudgescribe_async.testing._connection import Connection
from nudgescribe_async.testing._ends import End
from nudgescribe_async.testing._operations import NAMES, OPERATIONS, check_name
from nudgescribe_async.testing.faults import KINDS, ProxyFault

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Exchange", "FaultProxy"]

_LOG_SIZE: Final = 10_000
_BACKLOG: Final = 1_024


@frozen(kw_only=True)
class Exchange:
    """One request whose head has arrived.

    Attributes:
        operation: its name in the contract; ``None`` if it is none of it.
        method: the method.
        path: the path, without the query.
        fault: what befell it, if anything did.
    """

    operation: str | None
    method: str
    path: str
    fault: ProxyFault | None


class FaultProxy:
    """A proxy on loopback in which connections really break.

    ::

        async with FaultProxy(sandbox.url) as proxy:
            proxy.inject(Reset(at="after_request"), operation="customers.update")
            ...  # use proxy.url instead of sandbox.url

    Entering listens; leaving closes every socket and joins every task, whatever is under way. It can be entered once.
    Faults may be injected at any time, before entering as well; nothing here is safe to call from another thread.
    If the server cannot be reached, the client's connection is reset at its first request.

    Args:
        upstream: the address of a server on this machine, ``http://`` and a port.
        host: where to listen: an address of loopback, or ``"localhost"``, which stands for 127.0.0.1.
        port: the port; 0 takes a free one.
        seed: for ``share`` and for what ``Corrupt`` changes, so that a run can be repeated.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: ``upstream`` is no such address, one of the two is not on this machine, or ``port`` is none.
    """

    def __init__(self, upstream: str, *, host: str = "127.0.0.1", port: int = 0, seed: int | None = None) -> None:
        self._upstream_host, self._upstream_port, self._prefix = _checked_upstream(upstream)
        self._host = host
        self._address = _loopback(
            host, "host must be on loopback: whoever can reach the proxy reaches the server behind it, and sees tokens"
        )
        check_whole("port", port, "a whole number from 0 to 65535", least=0, most=65_535)
        if seed is not None and (isinstance(seed, bool) or not isinstance(cast("object", seed), int)):
            raise TypeError(f"seed must be a whole number, or None; got {type(seed).__name__}.")
        self._port = port
        self._seed = seed
        self._plan: FaultPlan[ProxyFault] = FaultPlan(operations=NAMES, kinds=KINDS, seed=seed)
        self._log: deque[Exchange] = deque(maxlen=_LOG_SIZE)
        self._counts: Counter[str | None] = Counter()
        self._connections: set[Connection] = set()
        self._state: Literal["new", "open", "closed"] = "new"
        self._turned_away = False  # connections that were on their way when the proxy began to refuse
        self._socket: socket.socket | None = None  # bound and not listening: keeps the port while refusing
        self._server: asyncio.Server | None = None

    # --- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError("A FaultProxy can be entered once: make another one.")
        self._socket = self._bound()
        self._port = self._socket.getsockname()[1]
        self._state = "open"
        try:
            await self.accept()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every socket and join every task. Idempotent; if it is cancelled, it closes all the same."""
        self._state = "closed"
        closing = asyncio.ensure_future(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            while not closing.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({closing})
            raise

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        # A connection that the event loop has accepted and not handed over yet comes within a turn or two.
        for _ in range(2):
            await asyncio.sleep(0)
            connections = list(self._connections)
            for connection in connections:
                connection.task.cancel()
            if connections:
                await asyncio.wait([connection.task for connection in connections])
                await asyncio.wait([end.closed for connection in connections for end in connection.ends()])
        if server is not None:
            await server.wait_closed()

    # --- what goes wrong ---------------------------------------------------------------------------------------

    def inject(
        self,
        fault: ProxyFault,
        *,
        operation: str | None = None,
        times: int | None = 1,
        skip: int = 0,
        share: float = 1.0,
        seconds: float | None = None,
    ) -> Injection[ProxyFault]:
        """Let a fault happen.

        Args:
            fault: what is to go wrong.
            operation: only with this operation, such as ``"customers.list"``; left out: with any request.
            times: how often at most; ``None`` for ever.
            skip: how many requests are spared first.
            share: the probability with which it happens each time.
            seconds: how long it lasts from now on; left out: until it has happened ``times`` times.

        Returns:
            The injection: ``fired`` counts, ``remove()`` ends it.

        Raises:
            TypeError: ``fault`` is no fault of the proxy, or another argument is of the wrong type.
            ValueError: there is no such operation, or a number cannot be right.
        """
        return self._plan.inject(fault, operation=operation, times=times, skip=skip, share=share, seconds=seconds)

    @property
    def injections(self) -> tuple[Injection[ProxyFault], ...]:
        """Those that may still happen, oldest first."""
        return self._plan.injections

    def clear(self) -> None:
        """End all injections. What has befallen an exchange already, such as a stall, goes on."""
        self._plan.clear()

    async def refuse(self, *, keep_connections: bool = False) -> None:
        """Stop listening: whoever connects is refused, until ``accept``. May be called again.

        The port stays reserved.

        Args:
            keep_connections: leave those that are established; otherwise they are reset, with what they are doing.
        """
        self._check_open()
        server, self._server = self._server, None
        self._turned_away = not keep_connections
        if server is not None:
            server.close()
            await asyncio.sleep(0)  # uvloop closes in its next turn
            self._socket = self._bound()
        if not keep_connections:
            connections = list(self._connections)
            for connection in connections:
                connection.reset()
            if connections:
                await asyncio.wait([connection.task for connection in connections])

    async def accept(self) -> None:
        """Listen again, on the same port. Does nothing while it listens."""
        self._check_open()
        if self._socket is None:
            return
        bound, self._socket = self._socket, None
        self._turned_away = False
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: End(self._accepted), sock=bound, backlog=_BACKLOG
            )
        except BaseException:
            bound.close()
            self._socket = self._bound()
            raise
        if self._state == "open":
            self._server = server
        else:  # closed meanwhile
            server.close()

    @asynccontextmanager
    async def down(self, *, keep_connections: bool = False) -> AsyncGenerator[None, None]:
        """Refuse connections inside of the block, accept them again after it."""
        await self.refuse(keep_connections=keep_connections)
        try:
            yield
        finally:
            if self._state == "open":
                await self.accept()

    # --- what has happened -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """What to give to the client instead of the server's address."""
        if self._state == "new":
            raise RuntimeError("The FaultProxy has no address yet: enter it with 'async with'.")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}{self._prefix}"

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return len(self._connections)

    @property
    def log(self) -> tuple[Exchange, ...]:
        """The last 10,000 exchanges, oldest first."""
        return tuple(self._log)

    def count(self, operation: str | None = None) -> int:
        """How many requests have come, of one operation or of all, whatever befell them.

        Raises:
            TypeError: ``operation`` is no text.
            ValueError: there is no such operation.
        """
        if operation is None:
            return self._counts.total()
        check_name(operation)
        return self._counts[operation]

    # --- inside ------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._state != "open":
            raise RuntimeError("The FaultProxy is not running: enter it with 'async with'.")

    def _bound(self) -> socket.socket:
        bound = socket.socket(socket.AF_INET6 if ":" in self._address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind((self._address, self._port))
        except BaseException:
            bound.close()
            raise
        return bound

    def _accepted(self, client: End) -> None:
        if self._state != "open" or self._turned_away:
            client.reset()
            return
        connection = Connection(client, connect=self._connect, decide=self._decide, seed=self._seed or 0)
        self._connections.add(connection)
        connection.task.add_done_callback(lambda _: self._connections.discard(connection))

    async def _connect(self) -> End:
        _, end = await asyncio.get_running_loop().create_connection(End, self._upstream_host, self._upstream_port)
        return end

    def _decide(self, method: str, target: str) -> ProxyFault | None:
        path = target if target.startswith("/") else urlsplit(target).path
        path = path.partition("?")[0]
        operation = OPERATIONS.get((method, path.removeprefix(self._prefix)))
        fault = self._plan.take(operation)
        self._counts[operation] += 1
        self._log.append(Exchange(operation=operation, method=method, path=path, fault=fault))
        return fault


def _checked_upstream(upstream: str) -> tuple[str, int, str]:
    if not isinstance(cast("object", upstream), str):
        raise TypeError(f"upstream must be an address such as 'http://127.0.0.1:8765', not {type(upstream).__name__}.")
    try:
        parts = urlsplit(upstream)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("upstream is no URL: its host or port cannot be read.") from None
    if parts.scheme != "http" or not host:
        raise ValueError("upstream must begin with http:// and name a host: the proxy has to read what it passes on.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("upstream must be a host, a port and perhaps a path, and nothing else.")
    _loopback(host, "upstream must be on this machine: the proxy would send tokens over a network unencrypted")
    return host, port or 80, parts.path.rstrip("/")


def _loopback(host: str, otherwise: str) -> str:
    """The address to listen on."""
    if not isinstance(cast("object", host), str):
        raise TypeError(f"host must be a text, not {type(host).__name__}.")
    if host.lower() == "localhost":
        return "127.0.0.1"
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise ValueError(f"{otherwise}. Use 127.0.0.1, ::1 or localhost; got {host!r}.")
