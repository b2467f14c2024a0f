"""The transport over ``aiohttp``: the one that is used unless another is asked for.

What happens when several things happen at once:

=====================  ============================================================================
many ``send`` at once  allowed; ``limit`` of them are on the wire, the others wait for a connection
the first ``send``     makes the session, inside the running event loop; concurrent ones share it
``send`` is cancelled  the connection is dropped, the body's stream is closed, then the
                       cancellation goes on
``aclose`` meanwhile   who waits for a connection gets ``ClientClosedError``; who waits for an answer
                       gets ``OutcomeUnknownError``
``send`` afterwards    ``ClientClosedError``
another event loop     ``ConfigurationError``: connections belong to the loop that opened them
=====================  ============================================================================

A request is sent exactly once. aiohttp by itself sends GET, PUT and DELETE a second time when a kept
connection turns out to be dead, whatever the service did with the first; see ``_Sending``.
"""

from __future__ import annotations

import asyncio
import select
import socket
import weakref
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from nudgescribe_async.errors import ClientClosedError, ConfigurationError, NudgescribeError
from nudgescribe_async.transport import Headers, Request, Response, StreamBody
from nudgescribe_async.transport._aiohttp_errors import mapped, without_secrets
from nudgescribe_async.transport._checked import (
    checked_body,
    checked_headers,
    checked_limit,
    checked_method,
    checked_proxy,
    checked_seconds,
    has_unusable,
    positive,
    proxy_of_environment,
    refuse_beside,
    refuse_plain_http_through,
    refuse_useless,
    without_text,
)
from nudgescribe_async.transport._lifetime import CLOSED_MEANWHILE, Lifetime
from nudgescribe_async.transport._unpacking import ACCEPT_ENCODING, unpacker_for
from nudgescribe_async.transport._upload import PIECE, wrong_length

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import Self

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

__all__ = ["AiohttpTransport"]

SMALL: Final = 16 * 1024  # what the buffers of a connection take in any case
CLOSE_GRACE: Final = 2.0  # seconds that closing connections may take before they are cut

_NOT_ADDED = (hdrs.CONTENT_TYPE,)


class AiohttpTransport:
    """Sends requests with ``aiohttp``.

    Without ``session`` it makes its own at the first ``send``: no cookies, no netrc, no total timeout
    (the deadline of a call is kept above the transport), and closes it in ``aclose``. The default TLS
    context is the one that aiohttp builds when it is imported, so no call waits for it.

    With ``session`` it uses that one and never closes it. Proxy, TLS, limits, default headers, cookies
    and tracing are then the session's affair. Its client middlewares are *not* run for these requests:
    the one that keeps aiohttp from sending twice takes their place. Its connector is aiohttp's own, which
    does not notice an answer that came unasked on an idle connection, and takes it for the next one; the
    connector of the own session does.

    Args:
        session: an open session of yours, made in the event loop in which ``send`` will be called.
        proxy: the URL of a proxy for every request, with ``user:password@`` if it wants them.
        proxy_headers: headers for the proxy, sent when a tunnel for https is asked for.
        trust_env: take the proxy from ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``. Nothing else is
            taken from the environment; netrc is never read.
        ssl_context: for a private certificate authority, or client certificates.
        limit: the most connections at once; 0 is no limit.
        limit_per_host: the most connections to one host and port; 0 is no limit.
        keepalive_timeout: seconds that an idle connection is kept. Keep it below the server's, or
            requests run into connections that the server is just closing.
        read_buffer: bytes that are read ahead of whoever reads the body of an answer.

    Raises:
        ConfigurationError: the options contradict one another.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        proxy: str | None = None,
        proxy_headers: Mapping[str, str] | None = None,
        trust_env: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        limit: int = 100,
        limit_per_host: int = 0,
        keepalive_timeout: float = 15.0,
        read_buffer: int = 64 * 1024,
    ) -> None:
        if session is not None:
            refuse_beside(
                "session",
                proxy=proxy is not None,
                proxy_headers=proxy_headers is not None,
                trust_env=trust_env,
                ssl_context=ssl_context is not None,
                limit=limit != 100,
                limit_per_host=limit_per_host != 0,
                keepalive_timeout=keepalive_timeout != 15.0,
                read_buffer=read_buffer != 64 * 1024,
            )
        refuse_useless(proxy_headers, has_proxy=proxy is not None or trust_env)
        self._session = session
        self._owns_session = session is None
        self._proxy = None if proxy is None else _proxy_url(proxy)
        self._proxy_headers = None if proxy_headers is None else _checked_headers(Headers(proxy_headers))
        self._trust_env = trust_env
        self._ssl_context = ssl_context
        self._limit = checked_limit("limit", limit)
        self._limit_per_host = checked_limit("limit_per_host", limit_per_host)
        self._keepalive_timeout = positive("keepalive_timeout", keepalive_timeout)
        self._read_buffer = int(positive("read_buffer", read_buffer))
        self._sockets = _Sockets()
        self._urls: dict[str, URL] = {}
        loop: asyncio.AbstractEventLoop | None = None
        if session is not None:
            with suppress(RuntimeError):
                loop = asyncio.get_running_loop()
        self._lifetime = Lifetime(loop)

    def __repr__(self) -> str:
        session = "its own session" if self._owns_session else "a given session"
        return f"<AiohttpTransport with {session}{', closed' if self._lifetime.closed else ''}>"

    async def send(self, request: Request) -> Response:  # noqa: RET503 - _raise does not return
        """Send the request exactly once; return when the headers of the answer are here.

        Safe to call from any number of tasks of one event loop. When cancelled, the connection is
        dropped and the body's stream is closed before the cancellation goes on.

        Raises:
            ConfigurationError: the request cannot be sent as it is, or its body stream gave another
                number of bytes than its ``length``. The server has not seen a whole request.
            RequestNotSentError: there was no connection to send it on.
            OutcomeUnknownError: it was sent, at least in part, and no answer came.
            ClientClosedError: the transport, or the session it was given, is closed.
            Exception: whatever the body's stream raised, as it is. The server has not seen a whole
                request.
        """
        session = self._ready_session()
        headers = _prepared_headers(request.headers)
        url = self._urls.get(request.url)
        if url is None:
            url = _checked_url(request.url)
            if hdrs.AUTHORIZATION in headers and len(self._urls) < 64:  # else it may be signed, and is not kept
                self._urls[request.url] = url
        body = _checked_body(request, headers)
        if session.auth is not None and hdrs.AUTHORIZATION in headers:
            raise ConfigurationError(
                "The session has auth= of its own, and the request has an Authorization header: make the session without."
            )
        checked_method(request.method)
        timeout = _timeout(request.connect_timeout, request.read_timeout)
        proxy = self._proxy
        if url.scheme == "http":
            refuse_plain_http_through(None if proxy is None else proxy.host)
        elif proxy is None and self._trust_env:
            proxy = await asyncio.to_thread(_proxy_of_environment, url)
        sending = _Sending()
        try:
            answer = await session.request(
                request.method,
                url,
                headers=headers,
                data=body,
                skip_auto_headers=_NOT_ADDED if hdrs.CONTENT_TYPE not in headers else None,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=False,  # see _AnswerStream
                proxy=proxy,
                proxy_headers=None if proxy is None else self._proxy_headers,
                timeout=timeout,
                middlewares=(sending.once,),
            )
        except asyncio.CancelledError as error:
            if body is not None:
                await body.finished()
            task = asyncio.current_task()
            if self._is_closed() and task is not None and not task.cancelling():
                # Nobody cancelled this task: a connector that is closed cancels who waits for it.
                raise ClientClosedError(CLOSED_MEANWHILE) from error
            raise
        except Exception as error:  # noqa: BLE001 - it is raised again below, as another
            failure = error
        else:
            return Response(
                status=answer.status,
                headers=Headers([*answer.headers.items()]),
                stream=_AnswerStream(answer, body, request),
            )
        # Outside of the except block, so that the body's own exception gets no context that is not its own.
        if body is not None:
            await body.finished()
        self._raise(failure, request, body, answered=sending.dropped())

    async def aclose(self) -> None:
        """Close the session if the transport made it, and wait until its connections are gone.

        May be called more than once, by several tasks, and before the first ``send``. Requests on
        their way are cut off. If the waiting is cancelled, the closing goes on by itself.
        """
        if self._session is None or not self._owns_session:
            self._lifetime.closed = True
        else:
            await self._lifetime.leave(partial(self._close, self._session))

    async def _close(self, session: aiohttp.ClientSession) -> None:
        closing = asyncio.ensure_future(session.close())
        await asyncio.wait({closing}, timeout=CLOSE_GRACE)
        await self._sockets.gone(CLOSE_GRACE)
        await closing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _ready_session(self) -> aiohttp.ClientSession:
        self._lifetime.enter()
        if self._session is None:
            self._session = self._new_session()
        if self._session.closed:
            raise ClientClosedError("The aiohttp session that the transport was given is closed. Nothing was sent.")
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        _keep_receive_buffers()
        return aiohttp.ClientSession(
            connector=_Connector(
                limit=self._limit,
                limit_per_host=self._limit_per_host,
                keepalive_timeout=self._keepalive_timeout,
                ssl=True if self._ssl_context is None else self._ssl_context,
                socket_factory=self._sockets.open,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=self._read_buffer,
        )

    def _is_closed(self) -> bool:
        return self._lifetime.closed or (self._session is not None and self._session.closed)

    def _raise(self, failure: Exception, request: Request, body: _Body | None, *, answered: bool) -> NoReturn:
        if body is not None and body.error is not None:
            raise body.error
        reached = True if answered else None
        if isinstance(failure, _NotSentAgain):
            reached, failure = failure.reached, failure.error
        cause = without_secrets(failure, request)
        if self._is_closed() and (reached is False or isinstance(failure, RuntimeError)):
            raise ClientClosedError(CLOSED_MEANWHILE) from cause
        raise mapped(failure, request, reached=reached) from cause


def _keep_receive_buffers() -> None:
    """Have glibc keep what asyncio receives into, 256 KiB each time, rather than get it from the system anew.

    It does so for blocks as large as any that was ever freed, up to 32 MiB, and none that large need be: pages of 72 kB
    cost an eighth less then. This block is never written to, so it takes no memory. Elsewhere it has no effect.
    """
    bytearray(2 * 2**20)


class _Connector(aiohttp.TCPConnector):
    """Gives no connection away on which something came that nobody asked for.

    A server, or a proxy that gives up on an idle connection, may send an answer before there is a request.
    The pool of aiohttp looks only whether the connection is open, so that answer would be taken for the
    one to the next request: a creation that never took place would look like one that did.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]
        self._looks: weakref.WeakKeyDictionary[object, Callable[[], bool]] = weakref.WeakKeyDictionary()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None:
                return connection
            look = self._looks.get(protocol)
            if look is None:
                self._looks[protocol] = _look(connection.transport)
            if not protocol.should_close and not (look is not None and look()):
                return connection
            connection.close()
            if look is None:  # the next one would hardly be better, and nobody counts these attempts
                raise aiohttp.ClientConnectionError("the server spoke before it was asked")


def _look(transport: asyncio.Transport | None) -> Callable[[], bool]:
    """Tells whether something has come on a connection that the event loop has not seen yet."""
    connected = transport.get_extra_info("socket") if transport is not None else None
    if connected is None or not hasattr(select, "poll"):
        return bool  # which is false
    poll = select.poll()
    poll.register(connected.fileno(), select.POLLIN)
    return lambda: bool(poll.poll(0))


class _NotSentAgain(Exception):  # noqa: N818 - it never leaves this module
    """Carries an error through ``ClientSession``, which sends again only after errors of its own."""

    def __init__(self, error: Exception, *, reached: bool) -> None:
        super().__init__()
        self.error = error
        self.reached = reached  # False: no byte of the request had been handed to a connection


class _Sending:
    """One request, and what became of it: sent once, and never a second time.

    ``ClientSession`` sends GET, PUT, DELETE, HEAD, OPTIONS and TRACE again after ``ClientOSError`` and
    ``ServerDisconnectedError``, and has no option against it. ``PUT /v1/cg`` creates. As a middleware,
    which stands between the session and the connection, ``once`` makes the error one that it passes on.
    """

    def __init__(self) -> None:
        self._answer: aiohttp.ClientResponse | None = None

    async def once(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """Send it. ``ClientRequest.response`` is set when it is handed to a connection; no server has seen a byte before."""
        try:
            self._answer = await handler(request)
        except Exception as error:
            raise _NotSentAgain(error, reached=request.response is not None) from error
        return self._answer

    def dropped(self) -> bool:
        """Whether an answer was here and was given up, since something failed after it, such as a hook of the session."""
        if self._answer is not None:
            self._answer.close()
        return self._answer is not None


class _Body(aiohttp.Payload):
    """The body of one attempt: opened when it is written, closed whatever happens.

    The piece that completes the announced length is held back until the stream has ended, so that a
    stream that gives more than it announced never makes a whole request.
    """

    def __init__(self, body: bytes | StreamBody, *, patience: float | None) -> None:
        # aiohttp wants a content type, and skip_auto_headers keeps it from sending it.
        super().__init__(body, content_type="application/octet-stream")
        self._size = len(body) if isinstance(body, bytes) else body.length
        self._patience = patience
        self._is_written = False  # at this moment
        self._written: asyncio.Event | None = None
        self.error: Exception | None = None

    async def finished(self) -> None:
        """Wait until nothing is written any more and the stream is closed."""
        if self._is_written:
            if self._written is None:
                self._written = asyncio.Event()
            await self._written.wait()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002
        """Not for use: a stream is not shown."""
        raise TypeError("The body is a stream.")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """As ``write_with_length``."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002
        """Write the body. Errors of the stream are kept in ``error``, errors of the connection are not."""
        self._is_written = True
        connection = getattr(writer, "transport", None)  # the writer forgets it when it is closed
        try:
            if isinstance(self._value, bytes):
                await self._write_bytes(writer, self._value)
            else:
                await self._write_stream(writer, self._value)
        except (asyncio.CancelledError, TimeoutError):
            # aiohttp closes it, which waits until the server has read what is buffered: perhaps for ever.
            if connection is not None:
                connection.abort()
            raise
        finally:
            self._is_written = False
            if self._written is not None:
                self._written.set()

    async def _write_bytes(self, writer: AbstractStreamWriter, data: bytes) -> None:
        if len(data) <= SMALL:  # it is taken over at once, and nothing is waited for
            if data:
                await writer.write(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), PIECE):
            await self._piece(writer, view[start : start + PIECE])
        await self._drain(writer)

    async def _write_stream(self, writer: AbstractStreamWriter, body: StreamBody) -> None:
        written = 0
        held = b""
        try:
            stream = body.open()
        except Exception as error:
            self.error = error
            raise
        try:
            while (chunk := await self._next(stream)) is not None:
                if not chunk:
                    continue
                if body.length is not None and written + len(held) + len(chunk) > body.length:
                    self._wrong_length(f"more than the {body.length:,} bytes")
                if held:
                    await self._piece(writer, held)
                    written += len(held)
                held = chunk
                if body.length is None or written + len(held) < body.length:
                    await self._piece(writer, held)
                    written += len(held)
                    held = b""
            if body.length is not None and written + len(held) < body.length:
                self._wrong_length(f"{written + len(held):,} bytes instead of the {body.length:,}")
        finally:
            closing = getattr(stream, "aclose", None)
            if closing is not None:
                await closing()
        if held:
            await self._piece(writer, held)
        await self._drain(writer)

    async def _next(self, stream: AsyncIterator[bytes]) -> bytes | None:
        try:
            return await anext(stream)
        except StopAsyncIteration:
            return None
        except Exception as error:
            self.error = error
            raise

    def _wrong_length(self, what: str) -> NoReturn:
        self.error = wrong_length(what)
        raise self.error

    async def _piece(self, writer: AbstractStreamWriter, data: bytes | memoryview) -> None:
        async with asyncio.timeout(self._patience):
            await writer.write(data)

    async def _drain(self, writer: AbstractStreamWriter) -> None:
        async with asyncio.timeout(self._patience):
            await writer.drain()


class _AnswerStream:
    """The body of an answer. An iterator rather than a generator: there is nothing to finish when it is forgotten.

    It is unpacked here. aiohttp takes a gzip stream that was cut off for a whole one, and with its parser in C waits for
    ever for the end of a deflate stream that was.
    """

    def __init__(self, answer: aiohttp.ClientResponse, body: _Body | None, request: Request) -> None:
        self._answer = answer
        self._body = body
        self._request = request
        self._unpacker = unpacker_for(answer.headers.get(hdrs.CONTENT_ENCODING))
        read = answer.content.readany
        self._next = read if self._unpacker is None else partial(self._unpacker.next_of, read)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._next()
        except Exception as error:  # noqa: BLE001 - the table knows them all
            failure = error
        else:
            if not chunk:
                raise StopAsyncIteration
            return chunk
        self._drop()
        raise self._failed(failure)

    async def read_whole(self, limit: int | None) -> bytes | None:
        content, chunks, size = self._answer.content, list[bytes](), 0
        try:
            while chunk := await self._next():
                chunks.append(chunk)
                size += len(chunk)
                if limit is not None and size > limit:
                    return None
                if self._unpacker is None and content.at_eof() and content.exception() is None:
                    break
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except Exception as error:  # noqa: BLE001 - the table knows them all
            self._drop()
            failure = error
        finally:
            # Tracebacks may be kept with their locals, and this may be a token or a customer.
            chunks.clear()
            chunk = b""
            await self.aclose()
        raise self._failed(failure)

    def _failed(self, failure: Exception) -> NudgescribeError:
        error = mapped(failure, self._request, reached=True)
        error.__cause__ = without_secrets(failure, self._request)
        return error

    async def aclose(self) -> None:
        if not self._answer.closed:
            if self._answer.content.is_eof():
                self._answer.release()
            else:
                self._drop()
        if self._body is not None:  # an answer may come before the end of the request
            await self._body.finished()

    def _drop(self) -> None:
        connection = self._answer.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()  # a TLS transport would go on reading until the server agrees to close
        self._answer.close()


class _Socket(socket.socket):
    """A socket that says when it is closed."""

    owner: _Sockets

    def close(self) -> None:
        super().close()
        self.owner.closed(self)

    def detach(self) -> int:
        """What uvloop calls when it has closed the descriptor."""
        descriptor = super().detach()
        self.owner.closed(self)
        return descriptor


class _Sockets:
    """The open sockets of a session.

    ``ClientSession.close`` does not wait for connections that were dropped before, by a cancelled
    request for instance, and a TLS connection takes its time to close. Whoever ends the event loop
    then leaves a transport behind. Counting sockets needs nothing private of aiohttp.
    """

    def __init__(self) -> None:
        self._open: set[_Socket] = set()
        self._none: asyncio.Event | None = None

    def open(self, address: tuple[Any, ...]) -> socket.socket:
        """Make a socket as ``aiohttp`` would; ``address`` is an entry of ``getaddrinfo``."""
        opened = _Socket(address[0], address[1], address[2])
        opened.owner = self
        self._open.add(opened)
        return opened

    def closed(self, gone: _Socket) -> None:
        self._open.discard(gone)
        if not self._open and self._none is not None:
            self._none.set()

    async def gone(self, seconds: float) -> None:
        """Wait until all are closed; cut those that are not after ``seconds``."""
        self._none = asyncio.Event()
        if self._open and not await self._wait(self._none, seconds):
            for still_open in list(self._open):
                with suppress(OSError):
                    still_open.shutdown(socket.SHUT_RDWR)
            await self._wait(self._none, seconds)
        await asyncio.sleep(0)  # a TLS transport hears of it one turn of the loop later

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
        return event.is_set()


# Checks before anything is sent


def _checked_url(text: str) -> URL:
    try:
        # What came encoded, a signature for instance, must not be encoded again.
        url = URL(text, encoded=text.isascii())
        usable = url.scheme in {"http", "https"} and bool(url.host) and not has_unusable(text)
    except (ValueError, TypeError) as error:
        raise ConfigurationError("The URL cannot be parsed. Check the base URL.") from without_text(error)
    if not usable:
        raise ConfigurationError("The URL must be absolute, begin with https:// or http://, and hold no spaces.")
    if url.raw_user is not None or url.raw_password is not None:
        raise ConfigurationError("The URL must not hold a user name or a password.")
    return url


def _proxy_url(text: str) -> URL:
    try:
        return URL(checked_proxy(text))
    except ValueError as error:  # yarl is stricter here and there
        raise ConfigurationError("The URL of the proxy cannot be parsed.") from without_text(error)


def _proxy_of_environment(url: URL) -> URL | None:
    proxy = proxy_of_environment(url.scheme, f"{url.host}:{url.port}")
    return None if proxy is None else _proxy_url(proxy)


def _prepared_headers(headers: Headers) -> CIMultiDict[str]:
    """The headers as aiohttp takes them, checked once for all the times that they are sent."""
    prepared = headers.prepared
    if type(prepared) is not CIMultiDict:
        prepared = headers.prepared = _checked_headers(headers)
        prepared.setdefault(hdrs.ACCEPT_ENCODING, ACCEPT_ENCODING)
    return cast("CIMultiDict[str]", prepared)


def _checked_headers(headers: Headers) -> CIMultiDict[str]:
    return CIMultiDict(checked_headers(headers))


def _checked_body(request: Request, headers: CIMultiDict[str]) -> _Body | None:
    checked_body(request, headers)
    return None if request.body is None else _Body(request.body, patience=request.read_timeout)


@lru_cache(maxsize=16)
def _timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None,
        connect=checked_seconds("connect_timeout", connect),
        sock_read=checked_seconds("read_timeout", read),
    )
