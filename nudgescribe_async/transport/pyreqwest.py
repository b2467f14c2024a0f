"""A transport over ``pyreqwest`` (extra ``pyreqwest``): HTTP in Rust, in a thread beside that of the event loop.

Faster than aiohttp where answers are small; ``docs/benchmarks`` has the figures. What happens when several things happen at once:

=====================  ============================================================================
many ``send`` at once  allowed; ``limit`` of them are under way, the others wait
``send`` is cancelled  the body's stream is closed, then the cancellation goes on; see below
``aclose`` meanwhile   who waits for a place gets ``ClientClosedError``; who waits for an answer
                       gets ``OutcomeUnknownError``
``send`` afterwards    ``ClientClosedError``
another event loop     ``ConfigurationError``, as for the other transports
=====================  ============================================================================

A request is sent exactly once. The library takes another connection only if it has a request back of which nothing was
written; requests over HTTP/1.1, and others are not sent, have no other retries.

What it does less well than ``AiohttpTransport``, since pyreqwest has no way (0.15):

- A request that is cancelled, or cut off by ``aclose``, while it waits for the head of its answer is given up and not
  taken back: if it was not sent yet, it still may be; its connection goes, or is used again, when the head comes, or
  ``read_timeout`` after the request. An upload whose body was not yet sent to its end is cut off at once.
  One that was sent whole keeps its connection until the server answers or closes. Calls with a deadline get their
  ``DeadlineExceededError`` in time all the same, and nothing is sent twice.
- Uploads have connections of their own, apart from those of the other requests.
- ``read_timeout`` begins with the request, not with the connection, until the head of the answer is here. When it ends
  a request before there was a connection, that is an ``OutcomeUnknownError`` as well.
- ``connect_timeout`` counts twice: once for waiting for a place, and once for the connection.
- Names of headers are sent in title case (``X-Api-Key``), whatever case they were given in. Values are ASCII.
- An address that it would change, such as one with ``'`` in its query, is a ``ConfigurationError``. Ours have none.
- ``aclose`` lets go of the idle connections, which are closed by its thread a moment later. That thread stays until
  the process ends, and does not survive a ``fork``.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
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
    refuse_plain_http_through,
    refuse_useless,
    without_text,
)
from nudgescribe_async.transport._failures import address_of, in_seconds
from nudgescribe_async.transport._lifetime import Lifetime
from nudgescribe_async.transport._unpacking import ACCEPT_ENCODING, DamagedBodyError, unpacker_for
from nudgescribe_async.transport._upload import PIECE, Upload

try:
    from pyreqwest.client import Client, ClientBuilder
    from pyreqwest.http import HeaderMap, Url
    from pyreqwest.proxy import ProxyBuilder

    from nudgescribe_async.transport._pyreqwest_errors import mapped, without_secrets
except ImportError:
    raise ConfigurationError(
        'PyreqwestTransport needs the package pyreqwest: pip install "nudgescribe_async[pyreqwest]".'
    ) from None

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from pyreqwest.request import StreamRequest
    from pyreqwest.response import Response as Answer

__all__ = ["PyreqwestTransport"]

CLOSED_MEANWHILE: Final = "The transport was closed while the request waited for a place. Nothing was sent."
MOST_CLIENTS: Final = 8
MOST_AT_ONCE: Final = 2**20  # of a body whose length is not known

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


class PyreqwestTransport:
    """Sends requests with ``pyreqwest``.

    No cookies, no redirects, no retries, no netrc, no total timeout; HTTP/1.1. A client of yours cannot be given, since
    nobody could see whether it follows redirects.

    Args:
        proxy: the URL of a proxy for every request, with ``user:password@`` if it wants them.
        proxy_headers: headers for the proxy, sent when a tunnel for https is asked for.
        trust_env: take the proxy from ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``. Nothing else is taken from the
            environment.
        certificate_authority: certificates, as PEM, of authorities to trust in addition to those of the system. Making a
            transport with one takes some 10 ms: do so before the event loop runs.
        client_certificate: a certificate and its key, as PEM, one after the other; the key is not encrypted.
        limit: the most requests at once; 0 is no limit.
        keepalive_timeout: seconds that an idle connection is kept. Keep it below the server's, or requests run into
            connections that the server is just closing.

    Raises:
        ConfigurationError: the options contradict one another, or a certificate cannot be read.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        proxy_headers: Mapping[str, str] | None = None,
        trust_env: bool = False,
        certificate_authority: str | bytes | None = None,
        client_certificate: str | bytes | None = None,
        limit: int = 100,
        keepalive_timeout: float = 15.0,
    ) -> None:
        refuse_useless(proxy_headers, has_proxy=proxy is not None or trust_env)
        self._proxy = None if proxy is None else checked_proxy(proxy)
        self._proxy_headers = None if proxy_headers is None else checked_headers(Headers(proxy_headers))
        self._trust_env = trust_env
        self._authority = _pem("certificate_authority", certificate_authority)
        self._identity = _pem("client_certificate", client_certificate)
        most = checked_limit("limit", limit)
        self._keepalive = timedelta(seconds=positive("keepalive_timeout", keepalive_timeout))
        self._places = asyncio.Semaphore(most) if most else None
        self._building = asyncio.Lock()
        self._clients: dict[tuple[float | None, float | None, str | None], Client] = {}
        self._urls: dict[str, Url] = {}
        self._waiting: set[asyncio.Timeout] = set()
        self._answers: set[_AnswerStream] = set()  # those that are not read to their end
        self._lifetime = Lifetime()
        if self._authority or self._identity or proxy is not None:
            self._new_client(None, None, self._proxy)  # what is wrong with them comes out here

    def __repr__(self) -> str:
        return f"<PyreqwestTransport{', closed' if self._lifetime.closed else ''}>"

    async def send(self, request: Request) -> Response:
        """Send the request exactly once; return when the headers of the answer are here.

        Safe to call from any number of tasks of one event loop. When cancelled, the body's stream is closed before the
        cancellation goes on; what becomes of the connection is said at the top of this module.

        Raises:
            ConfigurationError: the request cannot be sent as it is, or its body stream gave another number of bytes
                than its ``length``. The server has not seen a whole request.
            RequestNotSentError: there was no connection to send it on.
            OutcomeUnknownError: it was sent, at least in part, and no answer came.
            ClientClosedError: the transport is closed.
            Exception: whatever the body's stream raised, as it is. The server has not seen a whole request.
        """
        self._lifetime.enter()
        url = self._urls.get(request.url)
        if url is None:
            url = _checked_url(request.url)
            if "authorization" in request.headers and len(self._urls) < 64:  # else it may be signed, and is not kept
                self._urls[request.url] = url
        headers = request.headers.prepared
        if type(headers) is not HeaderMap:
            headers = request.headers.prepared = _header_map(request.headers)
        body = request.body
        length: int | None = None
        if not (type(body) is bytes and "content-length" not in headers and "transfer-encoding" not in headers):
            length = checked_body(request, request.headers)
        elif len(body) > PIECE:
            length = len(body)
        if request.method not in _METHODS:
            checked_method(request.method)
        proxy = self._proxy
        if url.scheme == "http":
            refuse_plain_http_through(None if proxy is None else urlsplit(proxy).hostname)
        elif proxy is None and self._trust_env:
            proxy = await asyncio.to_thread(
                proxy_of_environment, "https", f"{url.host_str}:{url.port_or_known_default}"
            )
            self._lifetime.enter()  # it may have been closed meanwhile

        await self._place(request)
        # Of a body that takes its time the library would count that against the server.
        uploads = not (body is None or (isinstance(body, bytes) and len(body) <= PIECE))
        scope: asyncio.Timeout | None = None
        upload: Upload | None = None
        turn = _Turn()
        try:
            key = (request.connect_timeout, None if uploads else request.read_timeout, proxy)
            client = self._clients.get(key) or await self._new(*key)
            builder = client.request(request.method, url).headers(headers)
            if uploads:
                checked_seconds("read_timeout", request.read_timeout)
                scope = asyncio.timeout(None)
                upload = Upload(cast("Any", body), partial(_watch, scope, request.read_timeout))
                # Said in any case: the library would send no body with GET, if it did not know how long it is.
                framing = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
                if framing[0] not in headers:
                    builder = builder.header(*framing)
                builder = builder.body_stream(upload)
            elif body:
                builder = builder.body_bytes(cast("bytes", body))
            message = builder.streamed_read_buffer_limit(0).build_streamed()
            del client, builder  # whoever keeps an error keeps this frame, and with them the connections
            if scope is None:
                answer = await message.__aenter__()
            else:
                async with scope:
                    answer = await message.__aenter__()
            if turn.is_cancelled:
                await message.__aexit__(None, None, None)
                raise asyncio.CancelledError
        except BaseException as error:
            self.give_back()
            if upload is not None:
                await upload.aclose()
            if not isinstance(error, Exception):
                raise
            failure = error
        else:
            received = _headers(answer)
            stream = _AnswerStream(
                self, answer, message, request, upload=upload, packed=received.get("content-encoding")
            )
            return Response(status=answer.status, headers=received, stream=stream)
        # Outside of the except block, so that the body's own exception gets no context that is not its own.
        if turn.is_cancelled:
            raise asyncio.CancelledError
        if upload is not None and upload.error is not None:
            raise upload.error
        raise self._mapped(failure, request, upload, expired=scope is not None and scope.expired())

    def _mapped(
        self, failure: Exception, request: Request, upload: Upload | None, *, expired: bool
    ) -> NudgescribeError:
        if isinstance(failure, NudgescribeError):
            return failure
        if upload is not None and expired:
            what = "sent nothing" if upload.ended else "took nothing more of the body"
            error: NudgescribeError = OutcomeUnknownError(
                f"{address_of(request)} {what} for {in_seconds(request.read_timeout)}."
            )
        else:
            error = mapped(failure, request, reached=None)
        error.__cause__ = without_secrets(failure, request)
        return error

    async def aclose(self) -> None:
        """Close the clients.

        May be called more than once, by several tasks, and before the first ``send``. Requests on their way are cut
        off; what becomes of their connections is said at the top of this module.
        """
        await self._lifetime.leave(self._close)

    async def _close(self) -> None:
        for scope in [*self._waiting]:
            with suppress(RuntimeError):  # it has just ended
                scope.reschedule(-math.inf)
        while self._clients:
            await self._clients.popitem()[1].close()
        for answer in [*self._answers]:
            await answer.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Places

    async def _place(self, request: Request) -> None:
        """Wait for a place, if there is none."""
        places = self._places
        if places is None:
            return
        if not places.locked():
            await places.acquire()  # which does not wait
            return
        scope = asyncio.timeout(checked_seconds("connect_timeout", request.connect_timeout))
        self._waiting.add(scope)
        try:
            async with scope:
                await places.acquire()
        except TimeoutError as error:
            if self._lifetime.closed:
                raise ClientClosedError(CLOSED_MEANWHILE) from None
            raise mapped(error, request, reached=False) from None
        finally:
            self._waiting.discard(scope)
        if self._lifetime.closed:
            places.release()
            raise ClientClosedError(CLOSED_MEANWHILE)

    def open(self, answer: _AnswerStream) -> None:
        """Keep an answer, to drop its connection when the transport is closed."""
        self._answers.add(answer)

    def ended(self, answer: _AnswerStream) -> None:
        """Forget it, and let another request have its place."""
        self._answers.discard(answer)
        self.give_back()

    def give_back(self) -> None:
        """Let another request have a place."""
        if self._places is not None:
            self._places.release()

    # Clients

    async def _new(self, connect: float | None, read: float | None, proxy: str | None) -> Client:
        """A client with these limits of time, which the library keeps by client, and not by request.

        Built in a thread: reading the certificates of the system takes some 10 ms.
        """
        key = (checked_seconds("connect_timeout", connect), checked_seconds("read_timeout", read), proxy)
        async with self._building:
            client = self._clients.get(key)
            if client is None:
                client = await asyncio.to_thread(self._new_client, *key)
                self._lifetime.enter()  # it may have been closed meanwhile
                if len(self._clients) >= MOST_CLIENTS:
                    del self._clients[next(iter(self._clients))]  # who uses it still has it
                self._clients[key] = client
        return client

    def _new_client(self, connect: float | None, read: float | None, proxy: str | None) -> Client:
        builder = (
            ClientBuilder()
            .http1_only()
            .no_proxy()
            .follow_redirects(enable=False)
            .default_cookie_store(enable=False)
            .referer(enable=False)
            .runtime_multithreaded(enable=False)
            # The library would hand over what it unpacks 8 KiB at a time, and the threads alternate at each.
            .gzip(enable=False)
            .deflate(enable=False)
            .brotli(enable=False)
            .zstd(enable=False)
            .pool_idle_timeout(self._keepalive)
        )
        if connect is not None:
            builder = builder.connect_timeout(timedelta(seconds=connect))
        if read is not None:
            builder = builder.read_timeout(timedelta(seconds=read))
        try:
            if proxy is not None:
                route = ProxyBuilder.all(proxy)
                builder = builder.proxy(route if self._proxy_headers is None else route.headers(self._proxy_headers))
            if self._authority is not None:
                builder = builder.add_root_certificate_pem(self._authority)
            if self._identity is not None:
                builder = builder.identity_pem(self._identity)
            return builder.build()
        except ValueError as error:  # which quotes nothing that was given, but that is not promised
            raise ConfigurationError(
                "The proxy, the certificate_authority or the client_certificate cannot be used as it is."
            ) from without_text(error)
        except RuntimeError as error:
            raise ConfigurationError(
                "pyreqwest has no thread in this process and cannot start one. It does not survive a fork: start worker"
                " processes with spawn. Nothing was sent."
            ) from without_text(error)


class _AnswerStream:
    """The body of an answer, decompressed."""

    def __init__(
        self,
        transport: PyreqwestTransport,
        answer: Answer,
        message: StreamRequest,
        request: Request,
        *,
        upload: Upload | None = None,
        packed: str | None = None,
    ) -> None:
        self._transport: PyreqwestTransport | None = transport
        self._answer = answer
        self._message = message
        self._request = request
        self._upload = upload
        self._patience = None if upload is None else request.read_timeout  # of others the library sees to it
        self._turn: _Turn | None = None  # of the task that reads right now
        self._ended = False
        self._unpacker = unpacker_for(packed)
        self._begun = False
        transport.open(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await (self._next() if self._unpacker is None else self._unpacker.next_of(self._next))
        except DamagedBodyError as error:
            failure = error
        else:
            if piece:
                return piece
            raise StopAsyncIteration
        raise await self._failed(failure)

    async def _next(self) -> bytes:
        """The next chunk, as it comes; an empty one at the end."""
        if self._ended:
            return b""
        self._refuse_if_closed()
        turn = self._turn = _Turn()
        self._begun = True
        chunk = b""
        try:
            async with asyncio.timeout(self._patience):
                more = await self._answer.body_reader.read_chunk()
            chunk = b"" if more is None else more.to_bytes()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it was sent
            failure = error
        else:
            if not (turn.is_cut or turn.is_cancelled):
                self._turn = None
                if not chunk:
                    await self._end()
                return chunk
            failure = asyncio.CancelledError()
        finally:
            more, chunk = None, b""
        raise await self._failed(failure, turn)

    async def read_whole(self, limit: int | None) -> bytes | None:
        if self._upload is not None or self._begun or self._ended:
            return await self._read_by_chunks(limit)
        announced = self._answer.get_header("content-length")
        length = int(announced) if announced is not None and announced.isdecimal() else None
        if self._unpacker is None:
            return await self._read_as_it_comes(limit, length)
        if length is not None and length <= PIECE:
            self._unpacker.take(await self._read_as_it_comes(None, length) or b"")
        return await self._read_by_chunks(limit)

    async def _read_as_it_comes(self, limit: int | None, length: int | None) -> bytes | None:
        self._refuse_if_closed()
        turn = self._turn = _Turn()
        whole, parts, size = b"", list[bytes](), 0
        try:
            if limit is None or (length is not None and length <= limit):
                whole = (await self._answer.bytes()).to_bytes()
            else:
                reader = self._answer.body_reader
                while size <= limit and (more := await reader.read(min(MOST_AT_ONCE, limit + 1 - size))):
                    parts.append(more.to_bytes())
                    size += len(more)
                if size <= limit:
                    whole = b"".join(parts)
            if turn.is_cut or turn.is_cancelled:
                raise asyncio.CancelledError
        except BaseException as error:  # noqa: BLE001 - whatever it is, it was sent
            whole = b""  # tracebacks may be kept with their locals, and this may be a token or a customer
            failure = error
        else:
            self._turn = None
            if limit is not None and size > limit:
                await self.aclose()
                return None
            await self._end()
            return whole
        finally:
            parts.clear()
            more = None
        raise await self._failed(failure, turn)

    def _refuse_if_closed(self) -> None:
        if self._transport is None:
            raise self._given_up()

    def _given_up(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(f"The answer of {address_of(self._request)} was given up before its end.")

    async def _failed(self, failure: BaseException, turn: _Turn | None = None) -> BaseException:
        """What to raise, the connection being dropped: whoever is cancelled, is; who was cut off gets an error."""
        self._turn = None
        was_cut = turn is not None and turn.end()
        await self.aclose()
        is_cancelled = turn is not None and turn.is_cancelled
        if is_cancelled or was_cut or isinstance(failure, Exception):
            failure.__traceback__ = None  # it refers to the frame of the caller, which refers to it
        if is_cancelled:
            return asyncio.CancelledError()
        if was_cut:
            return self._given_up()
        if not isinstance(failure, Exception):
            return failure
        error = mapped(failure, self._request, reached=True)
        error.__cause__ = without_secrets(failure, self._request)
        return error

    async def _read_by_chunks(self, limit: int | None) -> bytes | None:
        chunks, size = list[bytes](), 0
        try:
            async for chunk in self:
                size += len(chunk)
                if limit is not None and size > limit:
                    return None
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            chunks.clear()  # tracebacks may be kept with their locals, and this may be a token or a customer
            chunk = b""
            await self.aclose()

    async def _end(self) -> None:
        self._ended = True
        self._let_go()
        if self._upload is not None:  # an answer may come before the end of the request
            await self._upload.aclose()

    async def aclose(self) -> None:
        if self._unpacker is not None:
            self._unpacker.forget()
        if self._transport is None:
            return
        if self._turn is not None:  # by another task than the one that reads, which does the rest
            self._turn.cut()
            return
        self._let_go()
        try:
            await self._message.__aexit__(None, None, None)
        finally:
            if self._upload is not None:
                await self._upload.aclose()

    def _let_go(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.ended(self)


class _Turn:
    """The time in which a task waits for the library, which prefers an answer that is here to a cancellation.

    So a cancellation is counted here, and does not depend on what comes out.
    """

    __slots__ = ("_before", "_task", "is_cut")

    def __init__(self) -> None:
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._before = self._task.cancelling()
        self.is_cut = False

    @property
    def is_cancelled(self) -> bool:
        """Whether the task was cancelled meanwhile, and not only cut off."""
        return self._task.cancelling() > self._before + self.is_cut

    def cut(self) -> None:
        """End the wait, by another task."""
        if not self.is_cut:
            self.is_cut = True
            self._task.cancel()

    def end(self) -> bool:
        """Take the cut back; whether there was one."""
        was_cut, self.is_cut = self.is_cut, False
        if was_cut:
            self._task.uncancel()
        return was_cut


def _watch(scope: asyncio.Timeout, patience: float | None, servers_turn: bool) -> None:
    """See to it that the server takes a piece of a body, or answers, in time; and leave the body itself alone."""
    if patience is not None:
        with suppress(RuntimeError):  # it is over
            scope.reschedule(asyncio.get_running_loop().time() + patience if servers_turn else None)


def _pem(option: str, certificates: str | bytes | None) -> bytes | None:
    if certificates is None:
        return None
    pem = certificates.encode("ascii", "replace") if isinstance(certificates, str) else certificates
    if b"-----BEGIN " not in pem:  # of text without a certificate the library would take none, and say nothing
        raise ConfigurationError(f"{option} has no certificate in it: give the PEM itself, and not the path of a file.")
    return pem


def _checked_url(text: str) -> Url:
    parts = checked_url(text)
    try:
        url = Url(text)
    except ValueError as error:
        raise ConfigurationError("The URL cannot be parsed. Check the base URL.") from without_text(error)
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    if target.isascii() and f"{url.path}{'?' if url.query_string else ''}{url.query_string or ''}" != target:
        # A signature would not fit any more.
        raise ConfigurationError("The URL would be changed by pyreqwest: encode what is special in it.")
    return url


def _header_map(headers: Headers) -> HeaderMap:
    """The headers as pyreqwest takes them, checked once for all the times that they are sent."""
    pairs = checked_headers(headers)
    for name, value in pairs:
        if not value.isascii():
            raise ConfigurationError(f"The value of the header {name} holds a character that pyreqwest cannot send.")
    if "accept-encoding" not in headers:
        pairs = [*pairs, ("Accept-Encoding", ACCEPT_ENCODING)]
    return HeaderMap(pairs)


def _headers(answer: Answer) -> Headers:
    try:
        return Headers([*answer.headers.items()])
    except ValueError:  # a value that is not ASCII: the others count all the same
        found: list[tuple[str, str]] = []
        for name in dict.fromkeys(answer.headers.keys()):
            with suppress(ValueError):
                found += [(name, value) for value in answer.headers.getall(name)]
        return Headers(found)
