"""A transport over ``httpx`` (extra ``httpx``), for houses in which it is the rule.

What happens when several things happen at once:

=====================  ============================================================================
many ``send`` at once  allowed; ``limit`` of them are on the wire, the others wait for a connection
``send`` is cancelled  the connection is dropped, the body's stream is closed, then the
                       cancellation goes on
``aclose`` meanwhile   who waits for a connection gets ``ClientClosedError``; who waits for an answer
                       gets ``OutcomeUnknownError``
``send`` afterwards    ``ClientClosedError``
another event loop     ``ConfigurationError``: connections belong to the loop that opened them
=====================  ============================================================================

A request is sent exactly once: httpx's transport, other than its client, follows no redirects and keeps no cookies,
and its pool takes another connection only as long as nothing was written to the first.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast
from urllib.parse import urlsplit

from nudgescribe_async.errors import ClientClosedError, ConfigurationError, NudgescribeError, OutcomeUnknownError
from nudgescribe_async.transport import Headers, Request, Response
from nudgescribe_async.transport._checked import (
    checked_body,
    checked_headers,
    checked_limit,
    checked_method,
    checked_proxy,
    checked_seconds,
    checked_url,
    positive,
    proxy_of_environment,
    refuse_beside,
    refuse_plain_http_through,
    refuse_useless,
    without_text,
)
from nudgescribe_async.transport._failures import address_of
from nudgescribe_async.transport._lifetime import CLOSED_MEANWHILE, Lifetime
from nudgescribe_async.transport._unpacking import ACCEPT_ENCODING
from nudgescribe_async.transport._upload import PIECE, Upload

try:
    import httpx

    from nudgescribe_async.transport._httpx_duplex import DuplexTransport
    from nudgescribe_async.transport._httpx_errors import mapped, without_secrets
    from nudgescribe_async.transport._httpx_orphans import close_orphans
    from nudgescribe_async.transport._httpx_pools import Place, Pools
    from nudgescribe_async.transport._httpx_unpacking import body_of
except ImportError:
    raise ConfigurationError(
        'HttpxTransport needs the package httpx: pip install "nudgescribe_async[httpx]".'
    ) from None

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

__all__ = ["HttpxTransport"]


# Built once, when this module is loaded: it takes some 16 ms, for which no call shall wait.
_SYSTEM_TLS: Final = ssl.create_default_context()


class HttpxTransport:
    """Sends requests with ``httpx``.

    No cookies, no netrc, no redirects, no retries, no total timeout. Certificates are checked against the authorities
    of the system, and not against httpx's own bundle.

    Args:
        transport: one of yours, such as ``httpx.AsyncHTTPTransport(uds=...)``, made in the event loop in which ``send``
            will be called; it is never closed. Proxy, TLS and limits are its affair, and it must be made with
            ``retries=0``. Of one that is no ``httpx.AsyncHTTPTransport`` it is not known when it hands a request to a
            connection, so more of its errors are an ``OutcomeUnknownError``.
        proxy: the URL of a proxy for every request, with ``user:password@`` if it wants them.
        proxy_headers: headers for the proxy, sent when a tunnel for https is asked for.
        trust_env: take the proxy from ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``. Nothing else is taken from the
            environment.
        ssl_context: for a private certificate authority, or client certificates.
        limit: the most connections at once; 0 is no limit.
        keepalive_timeout: seconds that an idle connection is kept. Keep it below the server's, or requests run into
            connections that the server is just closing.

    Raises:
        ConfigurationError: the options contradict one another.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        proxy: str | None = None,
        proxy_headers: Mapping[str, str] | None = None,
        trust_env: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        limit: int = 100,
        keepalive_timeout: float = 15.0,
    ) -> None:
        if transport is not None:
            if not isinstance(cast("object", transport), httpx.AsyncBaseTransport):
                raise ConfigurationError(
                    "transport must be one of httpx's for asynchronous use, such as httpx.AsyncHTTPTransport(); "
                    f"{type(transport).__name__} is none."
                )
            refuse_beside(
                "transport",
                proxy=proxy is not None,
                proxy_headers=proxy_headers is not None,
                trust_env=trust_env,
                ssl_context=ssl_context is not None,
                limit=limit != 100,
                keepalive_timeout=keepalive_timeout != 15.0,
            )
        refuse_useless(proxy_headers, has_proxy=proxy is not None or trust_env)
        self._given = transport
        self._proxy = None if proxy is None else checked_proxy(proxy)
        self._proxy_headers = None if proxy_headers is None else checked_headers(Headers(proxy_headers))
        self._trust_env = trust_env
        self._ssl_context = _SYSTEM_TLS if ssl_context is None else ssl_context
        self._limit = checked_limit("limit", limit) or None
        self._keepalive = positive("keepalive_timeout", keepalive_timeout)
        self._pools: dict[str | None, Pools] = {}  # by proxy
        self._urls: dict[str, _Address] = {}
        self._waiting: set[asyncio.Timeout] = set()
        self._lifetime = Lifetime()

    def __repr__(self) -> str:
        whose = "pools of its own" if self._given is None else "a given transport"
        return f"<HttpxTransport with {whose}{', closed' if self._lifetime.closed else ''}>"

    async def send(self, request: Request) -> Response:  # noqa: RET503 - _raise does not return
        """Send the request exactly once; return when the headers of the answer are here.

        Safe to call from any number of tasks of one event loop. When cancelled, the connection is dropped and the
        body's stream is closed before the cancellation goes on.

        Raises:
            ConfigurationError: the request cannot be sent as it is, or its body stream gave another number of bytes
                than its ``length``. The server has not seen a whole request.
            RequestNotSentError: there was no connection to send it on.
            OutcomeUnknownError: it was sent, at least in part, and no answer came.
            ClientClosedError: the transport is closed.
            Exception: whatever the body's stream raised, as it is. The server has not seen a whole request.
        """
        self._lifetime.enter()
        address = self._urls.get(request.url)
        if address is None:
            address = _Address(request.url)
            if "authorization" in request.headers and len(self._urls) < 64:  # else it may be signed, and is not kept
                self._urls[request.url] = address
        length = checked_body(request, request.headers)
        checked_method(request.method)
        connect = checked_seconds("connect_timeout", request.connect_timeout)
        read = checked_seconds("read_timeout", request.read_timeout)
        given = self._given
        pools = await self._pools_for(address) if given is None else None

        headers = _prepared_headers(request.headers)
        upload: Upload | None = None
        content: bytes | Upload | None = None
        if isinstance(request.body, bytes) and len(request.body) <= PIECE:
            content = request.body
        elif request.body is not None:
            content = upload = Upload(request.body)
            if length is not None:
                headers = httpx.Headers(headers)
                headers["Content-Length"] = str(length)
        message: httpx.Request | None = None
        sending = _Sending(watched=given is None or isinstance(given, httpx.AsyncHTTPTransport))
        extensions: dict[str, Any] = {
            "timeout": {"connect": connect, "pool": connect, "read": read, "write": read},
        }
        if sending.watched:
            extensions["trace"] = sending.trace
        try:
            async with asyncio.timeout(connect if sending.watched else None) as sending.scope:
                self._waiting.add(sending.scope)
                sending.place = Place(cast("httpx.AsyncBaseTransport", given)) if pools is None else await pools.take()
                message = httpx.Request(
                    request.method, address, headers=headers, content=content, extensions=extensions
                )
                message.url = address  # it has made a copy, which is a plain one
                answer = await sending.place.transport.handle_async_request(message)
        except asyncio.CancelledError:
            try:
                await sending.given_up()
            finally:
                if upload is not None:
                    await upload.aclose()
            raise
        except Exception as error:  # noqa: BLE001 - it is raised again below, as another
            failure = error
        else:
            stream = _AnswerStream(answer, request, sending)
            try:
                if upload is not None:
                    await upload.aclose()
            except BaseException:
                await stream.aclose()
                raise
            return Response(
                status=answer.status_code,
                headers=Headers(
                    [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers.raw]
                ),
                stream=stream,
            )
        finally:
            if sending.scope is not None:
                self._waiting.discard(sending.scope)
            del message, headers, content  # tracebacks may be shown with their locals
        # Outside of the except block, so that the body's own exception gets no context that is not its own.
        try:
            await sending.given_up()
        finally:
            if upload is not None:
                await upload.aclose()
        self._raise(failure, request, upload, sending)

    def _raise(self, failure: Exception, request: Request, upload: Upload | None, sending: _Sending) -> NoReturn:
        if upload is not None and upload.error is not None:
            raise upload.error
        if isinstance(failure, NudgescribeError):
            raise failure
        error: NudgescribeError = mapped(failure, request, reached=sending.reached)  # before its texts are taken away
        if self._lifetime.closed and sending.reached is False:
            error = ClientClosedError(CLOSED_MEANWHILE)
        raise error from without_secrets(failure, request)

    async def aclose(self) -> None:
        """Close the connections; those of a given transport are left alone.

        May be called more than once, by several tasks, and before the first ``send``. Requests on their way are cut
        off. If the waiting is cancelled, the closing goes on by itself.
        """
        await self._lifetime.leave(self._close)

    async def _close(self) -> None:
        for scope in [*self._waiting]:
            with suppress(RuntimeError):  # it has just ended
                scope.reschedule(-math.inf)
        await asyncio.sleep(0)
        for pools in self._pools.values():
            await pools.aclose()
        await asyncio.sleep(0)  # sockets are closed one turn of the loop later

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _pools_for(self, address: _Address) -> Pools:
        proxy = self._proxy
        if address.plain:
            refuse_plain_http_through(None if proxy is None else urlsplit(proxy).hostname)
        elif proxy is None and self._trust_env:
            proxy = await asyncio.to_thread(proxy_of_environment, "https", address.host_and_port)
            self._lifetime.enter()  # it may have been closed meanwhile
        pools = self._pools.get(proxy)
        if pools is None:
            pools = self._pools[proxy] = Pools(
                partial(self._new_pool, proxy), limit=self._limit, keepalive=self._keepalive
            )
        return pools

    def _new_pool(self, proxy: str | None, size: int) -> DuplexTransport:
        return DuplexTransport(
            verify=self._ssl_context,
            trust_env=False,
            limits=httpx.Limits(max_connections=size, max_keepalive_connections=size, keepalive_expiry=self._keepalive),
            proxy=None if proxy is None else _proxy(proxy, self._proxy_headers, self._ssl_context),
            retries=0,
        )


class _Address(httpx.URL):
    """A URL that is written into a request as it was given."""

    def __init__(self, text: str) -> None:
        parts = checked_url(text)
        try:
            super().__init__(text)
            str(self.host)  # of which httpx would only complain later
            self.raw_host.decode("ascii").encode("idna")  # no label is empty, or longer than a name may have
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigurationError("The URL cannot be parsed. Check the base URL.") from without_text(error)
        self.plain = parts.scheme == "http"
        self.host_and_port = f"{parts.hostname}:{parts.port or (80 if self.plain else 443)}"
        # What came encoded, a signature for instance, must not be encoded again.
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        self._as_given = path.encode("ascii") if path.isascii() else super().raw_path

    def __repr__(self) -> str:
        return f"<the URL of a request to {self.host_and_port}>"  # a query may be a signature

    @property
    def raw_path(self) -> bytes:
        """The path and the query."""
        return self._as_given


class _Sending:
    """One request on its way: what httpx tells of it, and the time it has to get a connection.

    Args:
        watched: whether httpx tells.
    """

    def __init__(self, *, watched: bool) -> None:
        self.watched = watched
        self.scope: asyncio.Timeout | None = None
        self.reached: bool | None = False if watched else None
        self.place: Place | None = None

    async def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Called by httpx at each step; the first byte of the request comes after this one."""
        if name == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            assert self.scope is not None  # noqa: S101 - it is there before httpx is called
            self.scope.reschedule(None)
            self.reached = True

    def give_back(self) -> None:
        """Let another request have the place."""
        if self.place is not None:
            self.place.give_back()

    async def given_up(self) -> None:
        """Let another request have the place, with nothing of this one left in it."""
        cancelled: asyncio.CancelledError | None = None
        try:
            if self.place is not None and self.watched:
                cancelled = await close_orphans(self.place.transport, self.trace)
        finally:
            self.give_back()
        if cancelled is not None:
            raise cancelled


class _AnswerStream:
    """The body of an answer, decompressed."""

    def __init__(self, answer: httpx.Response, request: Request, sending: _Sending) -> None:
        self._answer = answer
        self._request = request
        self._sending = sending
        self._chunks = body_of(answer)
        self._ended = self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._closed and not self._ended:
            raise OutcomeUnknownError(f"The answer of {address_of(self._request)} was given up before its end.")
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._ended = True
            self._sending.give_back()
            raise
        except Exception as error:  # noqa: BLE001 - the table knows them all
            failure = error
        await self.aclose()
        gone = mapped(failure, self._request, reached=True)
        gone.__cause__ = without_secrets(failure, self._request)
        raise gone

    async def aclose(self) -> None:
        self._closed = True
        try:
            await self._chunks.aclose()
            await self._answer.aclose()
        finally:
            if self._ended:
                self._sending.give_back()
            else:
                await self._sending.given_up()


def _proxy(url: str, headers: list[tuple[str, str]] | None, ssl_context: ssl.SSLContext) -> httpx.Proxy:
    tls = ssl_context if url.startswith("https") else None
    try:
        return httpx.Proxy(url, headers=headers, ssl_context=tls)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigurationError("The URL of the proxy cannot be parsed.") from without_text(error)


def _prepared_headers(headers: Headers) -> httpx.Headers:
    """The headers as httpx takes them, checked once for all the times that they are sent."""
    prepared = headers.prepared
    if type(prepared) is not httpx.Headers:
        pairs = checked_headers(headers)
        if "accept-encoding" not in headers:
            pairs.append(("Accept-Encoding", ACCEPT_ENCODING))
        raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in pairs]
        prepared = headers.prepared = httpx.Headers(raw)
    return prepared
