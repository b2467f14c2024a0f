# ruff: noqa: ARG002 - the places at which a transport is broken have the arguments that one of them needs
"""No rule is one that cannot fail: for each there is a transport that breaks it, and keeps the others of its subject.

Most are ``AiohttpTransport`` with one promise taken back. Those that cannot be made of it, since aiohttp is not to be
persuaded to do it wrong, are a client written at home in thirty lines, as one often sees them.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import netrc
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

import aiohttp
import attrs
import pytest

from nudgescribe_async.errors import (
    ClientClosedError,
    ConfigurationError,
    NudgescribeError,
    OutcomeUnknownError,
    RequestNotSentError,
    ResponseDecodeError,
)
from nudgescribe_async.testing import RULES, TransportSettings, check_transport
from nudgescribe_async.transport import BytesStream, ByteStream, Headers, Request, Response, StreamBody
from nudgescribe_async.transport.aiohttp import AiohttpTransport

SLOW = {"timeouts.slow_answer", "timeouts.slow_body", "bodies.held_up", "answers.held_up"}
"""Those that take their time are tried on the transports that are to break them, and not on their neighbours."""


class Broken:
    """``AiohttpTransport``, with places to break it at."""

    def __init__(self, settings: TransportSettings) -> None:
        self.settings = settings
        self.closed = False
        self.inner = self.make(settings)

    def make(self, settings: TransportSettings) -> AiohttpTransport:
        return made(settings)

    def before(self, request: Request) -> Request:
        return request

    def after(self, request: Request, response: Response) -> Response:
        return response

    def failed(self, request: Request, error: NudgescribeError) -> Exception | Response:
        return error

    async def send(self, request: Request) -> Response:
        try:
            response = await self.inner.send(self.before(request))
        except NudgescribeError as error:
            other = self.failed(request, error)
            if isinstance(other, Response):
                return other
            if other is error:
                raise
            raise other from error.__cause__
        return self.after(request, response)

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()


def made(settings: TransportSettings, **changes: Any) -> AiohttpTransport:
    options: dict[str, Any] = {
        "proxy": settings.proxy,
        "trust_env": settings.trust_env,
        "ssl_context": settings.ssl_context,
    }
    if settings.limit is not None:
        options["limit"] = settings.limit
    return AiohttpTransport(**(options | changes))


class Pieces:
    """The body of an answer, with places to break it at."""

    def __init__(self, response: Response) -> None:
        self.stream = response.stream
        self.pieces = aiter(response.stream)
        self.closed = self.ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self.pieces)
        except StopAsyncIteration:
            self.ended = True
            raise

    async def aclose(self) -> None:
        self.closed = True
        await self.stream.aclose()


class Blaming(Pieces):
    """Raises something else for what goes wrong in a body."""

    def __init__(self, response: Response, other: Exception) -> None:
        super().__init__(response)
        self.other = other

    async def __anext__(self) -> bytes:
        try:
            return await super().__anext__()
        except OutcomeUnknownError as error:
            raise self.other from error


class Lines:
    """The stream of the body of a request, with places to break it at."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self.stream = stream
        self.ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self.stream)
        except StopAsyncIteration:
            self.ended = True
            raise

    async def aclose(self) -> None:
        await self.stream.aclose()  # type: ignore[attr-defined]


def with_stream(
    request: Request, change: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]], **also: Any
) -> Request:
    body = request.body
    assert isinstance(body, StreamBody)
    return attrs.evolve(request, body=attrs.evolve(body, open=lambda: change(body.open()), **also))


def with_pieces(response: Response, stream: ByteStream) -> Response:
    return attrs.evolve(response, stream=stream)


def as_other(error: NudgescribeError, kind: type[NudgescribeError]) -> NudgescribeError:
    return kind(error.message)


# --- the collection ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Case:
    rule: str
    says: str
    also: frozenset[str]
    alone: bool
    patience: float
    make: Callable[[TransportSettings], Any]


CASES: dict[str, Case] = {}


def breaks(
    rule: str, says: str, *, also: Iterable[str] = (), alone: bool = False, patience: float = 10.0
) -> Callable[[type[Any]], type[Any]]:
    """A transport that breaks this rule.

    Args:
        rule: which one.
        says: a part of what it is told.
        also: other rules of the subject that say the same of another situation.
        alone: it has more faults than this one, or leaves something behind, which breaks every rule.
        patience: for one that hangs.
    """

    def written(make: type[Any]) -> type[Any]:
        assert rule not in CASES
        CASES[rule] = Case(rule, says, frozenset(also), alone, patience, make)
        return make

    return written


# --- requests ---------------------------------------------------------------------------------------------------------


@breaks("requests.headers_as_given", "User-Agent: 'conformance/1' arrived as ['mine']")
class ReplacesTheUserAgent(Broken):
    def before(self, request: Request) -> Request:
        return attrs.evolve(request, headers=request.headers.with_header("User-Agent", "mine"))


@breaks("requests.nothing_added", "GET: these headers were added: content-type")
class AddsTheTypeOfContent(Broken):
    def before(self, request: Request) -> Request:
        if "Content-Type" in request.headers:
            return request
        return attrs.evolve(request, headers=request.headers.with_header("Content-Type", "text/plain"))


@breaks("requests.host", "It came with Host: ['elsewhere']")
class NamesAnotherHost(Broken):
    def before(self, request: Request) -> Request:
        return attrs.evolve(request, headers=request.headers.with_header("Host", "elsewhere"))


@breaks("requests.address_as_given", "arrived as /x/y?signature=a%2Bb%3D")
class DecodesAddresses(Broken):
    def before(self, request: Request) -> Request:
        return attrs.evolve(request, url=request.url.replace("%2F", "/"))


@breaks("requests.bad_header", "got no error")
class RepairsHeaders(Broken):
    def before(self, request: Request) -> Request:
        def repaired(value: Any) -> Any:
            return "".join(letter for letter in value if " " <= letter < "\x7f") if isinstance(value, str) else value

        if any("\t" in str(value) for value in request.headers.values()):
            return request
        return attrs.evolve(request, headers=[(name, repaired(value)) for name, value in request.headers.items()])


@breaks("requests.framing", "The header Transfer-Encoding: chunked with the body b'body'")
class DropsContradictions(Broken):
    def before(self, request: Request) -> Request:
        framing = {"transfer-encoding", "content-length"}
        kept = [(name, value) for name, value in request.headers.items() if name.lower() not in framing]
        return attrs.evolve(request, headers=kept)


@breaks("requests.bad_address", "The error repeats the address")
class RepeatsTheAddress(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return ConfigurationError(f"{error.message} {request.url}") if "URL" in error.message else error


@breaks("requests.bad_request", "got no error")
class TakesNoTimeForAll(Broken):
    def before(self, request: Request) -> Request:
        return attrs.evolve(request, read_timeout=None) if (request.read_timeout or 0) <= 0 else request


# --- bodies -----------------------------------------------------------------------------------------------------------


@breaks("bodies.every_method", "DELETE with 10 bytes", also=["bodies.framed"])
class DeletesWithoutBody(Broken):
    def before(self, request: Request) -> Request:
        is_it = request.method == "DELETE" and isinstance(request.body, bytes)
        return attrs.evolve(request, body=None) if is_it else request


@breaks("bodies.large", "An answer of 12 MiB did not arrive whole")
class ForgetsAPiece(Broken):
    def after(self, request: Request, response: Response) -> Response:
        class Forgetting(Pieces):
            size = 0

            async def __anext__(self) -> bytes:
                piece = await super().__anext__()
                self.size += len(piece)
                return piece[:-1] if self.size > 1_000_000 else piece

        return with_pieces(response, Forgetting(response))


@breaks("bodies.with_length", "DELETE: Content-Length was None")
class ForgetsTheLength(Broken):
    def before(self, request: Request) -> Request:
        is_it = request.method == "DELETE" and isinstance(request.body, StreamBody)
        return with_stream(request, Lines, length=None) if is_it else request


@breaks("bodies.without_length", "DELETE: Content-Length was 4 instead of None")
class CollectsToHaveALength(Broken):
    async def send(self, request: Request) -> Response:
        if request.method == "DELETE" and isinstance(request.body, StreamBody):
            request = attrs.evolve(request, body=b"".join([chunk async for chunk in request.body.open()]))
        return await super().send(request)


@breaks("bodies.empty_chunks", "b'' arrived")
class EndsAtAnEmptyChunk(Broken):
    class Ending(Lines):
        async def __anext__(self) -> bytes:
            chunk = await super().__anext__()
            if not chunk:
                raise StopAsyncIteration
            return chunk

    def before(self, request: Request) -> Request:
        is_it = isinstance(request.body, StreamBody) and request.body.length is None
        return with_stream(request, self.Ending) if is_it else request


@breaks("bodies.opened_anew", "Send 2: of b'abab', b'' arrived", also=["bodies.framed"])
class OpensOnce(Broken):
    opened: ClassVar[dict[Any, tuple[Any, AsyncIterator[bytes]]]] = {}

    def before(self, request: Request) -> Request:
        body = request.body
        if not isinstance(body, StreamBody):
            return request

        def remembered() -> AsyncIterator[bytes]:
            if id(body) not in self.opened:
                self.opened[id(body)] = body, body.open()
            return self.opened[id(body)][1]

        return attrs.evolve(
            request, body=StreamBody(open=remembered, length=None if id(body) in self.opened else body.length)
        )


@breaks("bodies.closed", "aclose() of the stream of its body was not called")
class ClosesNoStreamThatHasEnded(Broken):
    class Unclosed(Lines):
        async def aclose(self) -> None:
            if not self.ended:
                await super().aclose()

    def before(self, request: Request) -> Request:
        return with_stream(request, self.Unclosed) if isinstance(request.body, StreamBody) else request


@breaks("bodies.streamed", "the server still does not have the first one", also=["bodies.answered_in_silence"])
class LooksAhead(Broken):
    class Ahead(Lines):
        held: bytes | None = None

        async def __anext__(self) -> bytes:
            if self.ended:
                raise StopAsyncIteration
            held = await super().__anext__() if self.held is None else self.held
            self.held = None
            with suppress(StopAsyncIteration):
                self.held = await super().__anext__()
            return held

    def before(self, request: Request) -> Request:
        return with_stream(request, self.Ahead) if isinstance(request.body, StreamBody) else request


@breaks("bodies.held_up", "were taken: they must be in memory")
class ReadsAhead(Broken):
    class Ahead(Lines):
        def __init__(self, stream: AsyncIterator[bytes]) -> None:
            super().__init__(stream)
            self.kept: list[bytes] = []

        async def __anext__(self) -> bytes:
            if not self.kept:
                self.kept.append(await super().__anext__())
                with suppress(StopAsyncIteration):
                    while len(self.kept[0]) == 65_536 and len(self.kept) < 600:
                        self.kept.append(await super().__anext__())
            return self.kept.pop(0)

    def before(self, request: Request) -> Request:
        return with_stream(request, self.Ahead) if isinstance(request.body, StreamBody) else request


@breaks(
    "bodies.error_of_the_stream", "expected FileNotFoundError, and got nudgescribe_async.errors.OutcomeUnknownError"
)
class WrapsErrorsOfTheStream(Broken):
    async def send(self, request: Request) -> Response:
        try:
            return await super().send(request)
        except FileNotFoundError as error:
            raise OutcomeUnknownError("The body failed.") from error


@breaks("bodies.error_of_opening", "expected PermissionError, and got nudgescribe_async.errors.RequestNotSentError")
class WrapsErrorsOfOpening(Broken):
    async def send(self, request: Request) -> Response:
        try:
            return await super().send(request)
        except PermissionError as error:
            raise RequestNotSentError("The body failed.") from error


@breaks("bodies.wrong_length", "got no error")
class MakesItFit(Broken):
    def before(self, request: Request) -> Request:
        body = request.body
        if not isinstance(body, StreamBody) or body.length is None or body.length > 1_000:
            return request
        length = body.length

        class Fitted(Lines):
            def __init__(self, stream: AsyncIterator[bytes], left: int) -> None:
                super().__init__(stream)
                self.left = left

            async def __anext__(self) -> bytes:
                try:
                    chunk = (await super().__anext__())[: self.left]
                except StopAsyncIteration:
                    if not self.left:
                        raise
                    chunk = bytes(self.left)
                self.left -= len(chunk)
                return chunk

        return with_stream(request, lambda stream: Fitted(stream, length))


@breaks("bodies.answered_early", "OutcomeUnknownError: The upload was not taken", also=["bodies.answered_in_silence"])
class InsistsOnUploading(Broken):
    async def send(self, request: Request) -> Response:
        streams: list[Lines] = []

        def watched(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            streams.append(Lines(stream))
            return streams[-1]

        if isinstance(request.body, StreamBody):
            request = with_stream(request, watched)
        response = await super().send(request)
        if not all(stream.ended for stream in streams):
            await response.aclose()
            raise OutcomeUnknownError("The upload was not taken.")
        return response


@breaks("bodies.answered_and_closed", "OutcomeUnknownError")
class TakesAnEarlyAnswerForATrouble(Broken):
    def after(self, request: Request, response: Response) -> Response:
        if response.status == 413 and isinstance(request.body, bytes):
            raise OutcomeUnknownError("The connection was closed.")
        return response


@breaks("bodies.answered_in_silence", "send still waited for the stream")
class WaitsForASilentStream(Broken):
    async def send(self, request: Request) -> Response:
        given = list[bytes]()

        class Counted(Lines):
            async def __anext__(self) -> bytes:
                given.append(await super().__anext__())
                return given[-1]

        if isinstance(request.body, StreamBody):
            request = with_stream(request, Counted)
        response = await super().send(request)
        if response.status == 413 and len(given) == 1:
            try:
                await asyncio.Event().wait()
            finally:
                await response.aclose()
        return response


@breaks("bodies.closed_by_the_server", "was not closed when send raised", also=["bodies.answered_early"])
class ClosesTheStreamSomeTime(Broken):
    def __init__(self, settings: TransportSettings) -> None:
        super().__init__(settings)
        self.forgotten: list[Lines] = []

    async def send(self, request: Request) -> Response:
        forgotten = self.forgotten

        class Late(Lines):
            async def aclose(self) -> None:
                forgotten.append(self)

        if isinstance(request.body, StreamBody):
            request = with_stream(request, Late)
        response = await super().send(request)
        await self.close_them()
        return response

    async def close_them(self) -> None:
        for lines in self.forgotten:
            if hasattr(lines.stream, "aclose"):
                await lines.stream.aclose()
        self.forgotten.clear()

    async def aclose(self) -> None:
        await super().aclose()
        await self.close_them()


@breaks("bodies.framed", "did not arrive as they were")
class SendsSomethingForNothing(Broken):
    def before(self, request: Request) -> Request:
        is_it = isinstance(request.body, StreamBody) and request.body.length == 0
        return attrs.evolve(request, body=b"\r\n") if is_it else request


# --- answers ----------------------------------------------------------------------------------------------------------


@breaks("answers.any_status", "OutcomeUnknownError")
class RaisesForAStatus(Broken):
    def after(self, request: Request, response: Response) -> Response:
        if response.status >= 500:
            raise OutcomeUnknownError(f"The status was {response.status}.")
        return response


@breaks("answers.no_redirect", "GET: the redirect 301 came out as 200")
class FollowsRedirects(Broken):
    async def send(self, request: Request) -> Response:
        response = await super().send(request)
        if "Location" not in response.headers:
            return response
        await response.aclose()
        return await super().send(attrs.evolve(request, url=urljoin(request.url, response.headers["Location"])))


@breaks("answers.no_cookie", "A cookie of the first answer was sent with the second request")
class KeepsCookies(Broken):
    cookie: str | None = None

    def before(self, request: Request) -> Request:
        if self.cookie is None:
            return request
        return attrs.evolve(request, headers=request.headers.with_header("Cookie", self.cookie))

    def after(self, request: Request, response: Response) -> Response:
        self.cookie = response.headers.get("Set-Cookie", "").partition(";")[0] or None
        return response


@breaks("answers.headers", "The header X-Many of the answer was 'one'")
class KeepsOneOfRepeatedHeaders(Broken):
    def after(self, request: Request, response: Response) -> Response:
        first = Headers([(name, value.partition(",")[0]) for name, value in response.headers.items()])
        return attrs.evolve(response, headers=first)


@breaks("answers.streamed", "did not come out", also=["answers.held_up"])
class ReadsAllBeforeItReturns(Broken):
    class Whole:
        def __init__(self, data: bytes) -> None:
            self.data = data
            self.closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for start in range(0, len(self.data), 1_000):
                if self.closed:
                    raise OutcomeUnknownError("It was closed.")
                yield self.data[start : start + 1_000]

        async def aclose(self) -> None:
            self.closed = True

    async def send(self, request: Request) -> Response:
        response = await super().send(request)
        return with_pieces(response, self.Whole(await response.read()))


@breaks("answers.held_up", "were taken: they must be in memory")
class ReadsAllInTheBackground(Broken):
    class Pumped(Pieces):
        def __init__(self, response: Response) -> None:
            super().__init__(response)
            self.queue: asyncio.Queue[bytes | Exception] = asyncio.Queue()
            self.task = asyncio.create_task(self.pump())

        async def pump(self) -> None:
            try:
                async for piece in self.stream:
                    self.queue.put_nowait(piece)
                self.queue.put_nowait(b"")
            except NudgescribeError as error:
                self.queue.put_nowait(error)

        async def __anext__(self) -> bytes:
            if self.closed:
                raise OutcomeUnknownError("It was closed.")
            piece = await self.queue.get()
            if isinstance(piece, Exception):
                raise piece
            if not piece:
                self.queue.put_nowait(b"")
                raise StopAsyncIteration
            return piece

        async def aclose(self) -> None:
            self.task.cancel()
            await asyncio.wait({self.task})
            await super().aclose()

    def after(self, request: Request, response: Response) -> Response:
        return with_pieces(response, self.Pumped(response))


@breaks("answers.decompressed", "deflate: of 210,000 bytes")
class LeavesItCompressed(Broken):
    async def send(self, request: Request) -> Response:
        response = await super().send(request)
        if response.headers.get("Content-Encoding") != "deflate":
            return response
        return with_pieces(response, BytesStream(gzip.compress(await response.read())))


@breaks("answers.no_empty_piece", "came in these pieces: [b'x', b'']")
class EndsWithAnEmptyPiece(Broken):
    class Ending(Pieces):
        async def __anext__(self) -> bytes:
            was_ended = self.ended
            try:
                return await super().__anext__()
            except StopAsyncIteration:
                if was_ended:
                    raise
                return b""

    def after(self, request: Request, response: Response) -> Response:
        return with_pieces(response, self.Ending(response))


@breaks("answers.without_body", "HEAD with the status 200 has no body")
class AnswersHeadWithABody(Broken):
    async def send(self, request: Request) -> Response:
        response = await super().send(request)
        if request.method == "HEAD":
            await response.aclose()
            response = with_pieces(response, BytesStream(bytes(100)))
        return response


@breaks("answers.until_the_end", "OutcomeUnknownError")
class WantsALength(Broken):
    async def send(self, request: Request) -> Response:
        response = await super().send(request)
        if response.headers.get("Connection") == "close" and "Content-Length" not in response.headers:
            await response.aclose()
            raise OutcomeUnknownError("The answer has no length.")
        return response


@breaks("answers.limit_of_reading", "got no error")
class KnowsNoLimit(Broken):
    class Unlimited(Pieces):
        async def read_whole(self, limit: int | None) -> bytes | None:
            try:
                return b"".join([piece async for piece in self])
            finally:
                await self.aclose()

    def after(self, request: Request, response: Response) -> Response:
        return with_pieces(response, self.Unlimited(response))


@breaks("answers.closed_more_than_once", "its stream ended as if it were whole")
class EndsWhenItIsClosed(Broken):
    class Ending(Pieces):
        async def __anext__(self) -> bytes:
            if self.closed:
                raise StopAsyncIteration
            return await super().__anext__()

    def after(self, request: Request, response: Response) -> Response:
        return with_pieces(response, self.Ending(response))


@breaks("answers.never_cut_silently", "half of the bytes that Content-Length announced")
class TakesWhatItGets(Broken):
    class Satisfied(Pieces):
        async def __anext__(self) -> bytes:
            try:
                return await super().__anext__()
            except OutcomeUnknownError:
                if self.closed:
                    raise
                raise StopAsyncIteration from None

    def after(self, request: Request, response: Response) -> Response:
        is_it = "Content-Encoding" not in response.headers and "Content-Length" in response.headers
        return with_pieces(response, self.Satisfied(response)) if is_it else response


@breaks("answers.all_of_the_members", "ends too early for gzip: expected OutcomeUnknownError")
class TakesWhatIsUnpacked(Broken):
    class Satisfied(Pieces):
        async def __anext__(self) -> bytes:
            try:
                return await super().__anext__()
            except OutcomeUnknownError:
                raise StopAsyncIteration from None

    def after(self, request: Request, response: Response) -> Response:
        is_it = response.headers.get("Content-Encoding") == "gzip" and request.url.endswith("/1")
        return with_pieces(response, self.Satisfied(response)) if is_it else response


@breaks("answers.malformed_body", "An answer with a body that is no gzip: expected OutcomeUnknownError")
class BlamesTheAnswer(Broken):
    def after(self, request: Request, response: Response) -> Response:
        is_it = "Content-Encoding" in response.headers and response.headers.get("Content-Length") == "6"
        damaged = ResponseDecodeError("The answer is damaged.")
        return with_pieces(response, Blaming(response, damaged)) if is_it else response


@breaks("answers.in_order", "/b was answered with b'/a'")
class AnswersFromACache(Broken):
    answers: ClassVar[dict[str, bytes]] = {}

    async def send(self, request: Request) -> Response:
        response = await super().send(request)
        path = urlsplit(request.url).path
        if path not in {"/a", "/b", "/c"}:
            return response
        return with_pieces(
            response, BytesStream(self.answers.setdefault("of a path of one letter", await response.read()))
        )


class OverASession(Broken):
    """A session of its own: aiohttp's protocol, and not that of ``AiohttpTransport``."""

    connector: ClassVar[dict[str, Any]] = {}

    def make(self, settings: TransportSettings) -> AiohttpTransport:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.limit or 100, **self.connector),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return AiohttpTransport(self.session)

    async def aclose(self) -> None:
        await super().aclose()
        await self.session.close()


@breaks("answers.unasked", "was answered with b'stale'")
class TakesAnyAnswer(OverASession):
    pass


# --- connections ------------------------------------------------------------------------------------------------------


@breaks("connections.used_again", "took 4 connections", also=["connections.limit"])
class KeepsNoConnection(OverASession):
    connector: ClassVar[dict[str, Any]] = {"force_close": True}


@breaks("connections.dropped_if_unread", "its connection was not dropped")
class DropsNothing(Broken):
    def __init__(self, settings: TransportSettings) -> None:
        super().__init__(settings)
        self.kept: list[ByteStream] = []

    def after(self, request: Request, response: Response) -> Response:
        kept = self.kept

        class Kept(Pieces):
            async def aclose(self) -> None:
                kept.append(self.stream)

        return with_pieces(response, Kept(response))

    async def aclose(self) -> None:
        for stream in self.kept:
            await stream.aclose()
        await super().aclose()


@breaks("connections.sent_once", "the request was sent 2 times", alone=True)
class PlainAiohttp:
    """What one writes first: aiohttp, as it comes."""

    def __init__(self, settings: TransportSettings) -> None:
        self.session = aiohttp.ClientSession()

    async def send(self, request: Request) -> Response:
        body = request.body.open() if isinstance(request.body, StreamBody) else request.body
        try:
            answer = await self.session.request(request.method, request.url, headers=dict(request.headers), data=body)
        except aiohttp.ClientError as error:
            raise OutcomeUnknownError("No answer.") from error
        async with answer:
            return Response(
                status=answer.status, headers=[*answer.headers.items()], stream=BytesStream(await answer.read())
            )

    async def aclose(self) -> None:
        await self.session.close()


@breaks("connections.sent_once_after_a_reset", "the request was sent 2 times")
class SendsAgainAfterAReset(Broken):
    async def send(self, request: Request) -> Response:
        try:
            return await super().send(request)
        except OutcomeUnknownError as error:
            if not isinstance(error.__cause__, aiohttp.ClientOSError):
                raise
            return await super().send(request)


@breaks("connections.sent_once_on_a_new_connection", "the request was sent 2 times")
class SendsAgainAtFirst(Broken):
    was_answered = False

    async def send(self, request: Request) -> Response:
        try:
            response = await super().send(request)
        except OutcomeUnknownError:
            if self.was_answered:
                raise
            response = await super().send(request)
        self.was_answered = True
        return response


@breaks("connections.limit", "requests were on the wire at once")
class KnowsNoLimitOfConnections(Broken):
    def make(self, settings: TransportSettings) -> AiohttpTransport:
        return made(attrs.evolve(settings, limit=None))


@breaks("connections.a_thousand_at_once", "got the answer to another one")
class HasOneRequestInMind(Broken):
    async def send(self, request: Request) -> Response:
        self.request = request
        await asyncio.sleep(0)
        return await super().send(self.request)


# --- failures ---------------------------------------------------------------------------------------------------------


@breaks("failures.refused", "expected RequestNotSentError", also=["failures.no_secret_in_errors"])
class IsNotSureOfRefusals(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return as_other(error, OutcomeUnknownError) if "Connection refused" in error.message else error


@breaks("failures.unknown_name", "expected RequestNotSentError", also=["failures.no_secret_in_errors"])
class IsNotSureOfNames(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return as_other(error, OutcomeUnknownError) if "was not found" in error.message else error


@breaks("failures.no_answer", "expected OutcomeUnknownError", also=["failures.life_goes_on"])
class IsTooSureOfResets(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        is_it = isinstance(error.__cause__, aiohttp.ClientOSError) and request.body is None
        return as_other(error, RequestNotSentError) if is_it else error


@breaks("failures.cut_while_sending", "the middle of an upload: expected OutcomeUnknownError")
class IsTooSureOfUploads(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        is_it = isinstance(request.body, bytes) and len(request.body) > 1_000
        return as_other(error, RequestNotSentError) if is_it else error


@breaks("failures.cut_while_reading", "expected OutcomeUnknownError, and got builtins.ConnectionResetError")
class LetsErrorsOfTheBodyThrough(Broken):
    def after(self, request: Request, response: Response) -> Response:
        is_it = response.headers.get("Content-Length") == "1000" and "X" not in response.headers
        return with_pieces(response, Blaming(response, ConnectionResetError("reset"))) if is_it else response


@breaks("failures.malformed_head", "expected OutcomeUnknownError")
class BlamesTheHead(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        is_it = "not valid HTTP" in error.message and request.url.endswith("/1")
        return ResponseDecodeError(error.message) if is_it else error


@breaks("failures.life_goes_on", "RequestNotSentError")
class NeverRecovers(Broken):
    has_failed = False

    async def send(self, request: Request) -> Response:
        if self.has_failed and request.method == "GET":
            raise RequestNotSentError("There was an error before.")
        return await super().send(request)

    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        self.has_failed = True
        return error


@breaks("failures.no_secret_in_errors", "shows what nobody may see")
class ShowsTheAddress(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return type(error)(f"{error.message} {request.url}")


@breaks("failures.no_secret_in_logs", "What nobody may see was logged: broken: PUT http://127.0.0.1")
class LogsTheAddress(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        logging.getLogger("broken").debug("%s %s", request.method, request.url)
        return error


# --- timeouts ---------------------------------------------------------------------------------------------------------


@breaks("timeouts.connecting", "expected RequestNotSentError")
class IsNotSureOfHandshakes(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return as_other(error, OutcomeUnknownError) if request.url.startswith("https") else error


@breaks("timeouts.waiting_for_a_connection", "expected RequestNotSentError")
class IsNotSureWhetherItWaited(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return as_other(error, OutcomeUnknownError) if request.url.startswith("http:") else error


@breaks("timeouts.no_answer", "No answer within read_timeout: expected OutcomeUnknownError")
class TakesSilenceForNothingSent(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return as_other(error, RequestNotSentError) if request.body is None else error


@breaks("timeouts.stalled_answer", "expected OutcomeUnknownError, and got builtins.TimeoutError")
class LetsTimeoutsThrough(Broken):
    def after(self, request: Request, response: Response) -> Response:
        return with_pieces(response, Blaming(response, TimeoutError()))


@breaks("timeouts.stalled_upload", "within read_timeout: expected OutcomeUnknownError")
class LetsTimeoutsOfUploadsThrough(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return TimeoutError() if isinstance(request.body, StreamBody) else error


@breaks("timeouts.slow_answer", "It was given up")
class HasATotalTimeout(Broken):
    def after(self, request: Request, response: Response) -> Response:
        until = time.monotonic() + (request.read_timeout or 60)

        class Totalled(Pieces):
            async def __anext__(self) -> bytes:
                if time.monotonic() > until:
                    raise OutcomeUnknownError("It took too long.")
                return await super().__anext__()

        return with_pieces(response, Totalled(response))


@breaks("timeouts.slow_body", "It was given up")
class CountsTheTimeOfTheBody(Broken):
    async def send(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(request.read_timeout):
                return await super().send(request)
        except TimeoutError as error:
            raise OutcomeUnknownError("It took too long.") from error


@breaks("timeouts.no_timeout", "It was given up")
class HasADefaultTimeout(Broken):
    def before(self, request: Request) -> Request:
        return attrs.evolve(request, read_timeout=0.01) if request.read_timeout is None else request


# --- cancelling -------------------------------------------------------------------------------------------------------


class Shielding(Broken):
    """Lets some requests go on when they are cancelled, until it is closed."""

    def __init__(self, settings: TransportSettings) -> None:
        super().__init__(settings)
        self.tasks: set[asyncio.Task[Response]] = set()

    def goes_on(self, request: Request) -> bool:
        raise NotImplementedError

    async def send(self, request: Request) -> Response:
        if not self.goes_on(request):
            return await super().send(request)
        task = asyncio.create_task(super().send(request))
        self.tasks.add(task)
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(result, Response):
                await result.aclose()
        await super().aclose()


@breaks("cancelling.waiting_for_a_connection", "'/never'")
class GoesOnWaiting(Shielding):
    def goes_on(self, request: Request) -> bool:
        return request.url.endswith("/never")


@breaks("cancelling.connecting", "the connection is still there")
class GoesOnConnecting(Shielding):
    def goes_on(self, request: Request) -> bool:
        return request.url.startswith("https")


@breaks("cancelling.sending", "the stream of the body was not closed", also=["cancelling.sending_to_nobody"])
class GoesOnSending(Shielding):
    def goes_on(self, request: Request) -> bool:
        return isinstance(request.body, StreamBody)


@breaks("cancelling.sending_to_nobody", "it was cancelled, and does not end")
class SaysGoodbye(Broken):
    async def send(self, request: Request) -> Response:
        try:
            return await super().send(request)
        except asyncio.CancelledError:
            if isinstance(request.body, bytes) and len(request.body) > 1_000_000:
                await asyncio.Event().wait()
            raise


@breaks("cancelling.waiting_for_the_answer", "and the connection is still there")
class GoesOnWaitingForTheAnswer(Shielding):
    def goes_on(self, request: Request) -> bool:
        return request.method == "PUT" and request.url.endswith("/hang")


@breaks("cancelling.reading", "and the connection is still there")
class GoesOnReading(DropsNothing):
    def after(self, request: Request, response: Response) -> Response:
        return response if self.settings.limit == 2 else super().after(request, response)


class WithPlaces(Broken):
    """Counts its connections itself."""

    def __init__(self, settings: TransportSettings) -> None:
        super().__init__(settings)
        self.places = asyncio.Semaphore(settings.limit or 1_000)


@breaks("cancelling.place_given_back", "hangs", also=("cancelling.at_any_turn",), patience=1.5)
class KeepsPlaces(WithPlaces):
    async def send(self, request: Request) -> Response:
        await self.places.acquire()
        response = await super().send(request)
        self.places.release()
        return response


@breaks("cancelling.at_any_turn", "The only connection was not free for the next request, when one was cancelled")
class GivesPlacesBackLater(WithPlaces):
    async def send(self, request: Request) -> Response:
        await self.places.acquire()
        try:
            return await super().send(request)
        finally:
            await asyncio.sleep(0)  # as closing something would
            self.places.release()


# --- closing ----------------------------------------------------------------------------------------------------------


@breaks("closing.a_transport", "has no send, or no aclose", alone=True)
class CannotBeClosed:
    def __init__(self, settings: TransportSettings) -> None:
        self.inner = made(settings)

    async def send(self, request: Request) -> Response:
        return await self.inner.send(request)


@breaks("closing.more_than_once", "RuntimeError: already closing")
class ClosesOnce(Broken):
    closing = False

    async def aclose(self) -> None:
        if self.closing:
            raise RuntimeError("already closing")
        self.closing = True
        await super().aclose()
        await asyncio.sleep(0)
        self.closing = False


@breaks("closing.send_afterwards", "send after aclose: expected ClientClosedError")
class DoesNotSayThatItIsClosed(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return as_other(error, RequestNotSentError) if isinstance(error, ClientClosedError) else error


@breaks("closing.under_way", "expected OutcomeUnknownError")
class IsTooSureWhenItCloses(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        is_it = self.closed and isinstance(error, OutcomeUnknownError)
        return as_other(error, ClientClosedError) if is_it else error


@breaks("closing.waiting", "OutcomeUnknownError")
class IsNotSureWhenItCloses(Broken):
    async def send(self, request: Request) -> Response:
        was_closed = self.closed
        try:
            return await super().send(request)
        except ClientClosedError as error:
            if was_closed:
                raise
            raise OutcomeUnknownError(error.message) from error


@breaks("closing.open_responses", "which ended as if it were whole")
class EndsWhenTheTransportIsClosed(Broken):
    def after(self, request: Request, response: Response) -> Response:
        transport = self

        class Ending(Pieces):
            async def __anext__(self) -> bytes:
                try:
                    return await super().__anext__()
                except OutcomeUnknownError:
                    if not transport.closed:
                        raise
                    raise StopAsyncIteration from None

        return with_pieces(response, Ending(response))


@breaks("closing.nothing_left", "a connection is still open", alone=True)
class ClosesInAWhile(Broken):
    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
        else:
            await super().aclose()


@breaks("closing.another_event_loop", "RuntimeError: attached to a different loop")
class KnowsNothingOfLoops(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return RuntimeError("attached to a different loop") if "event loop" in error.message else error


# --- TLS --------------------------------------------------------------------------------------------------------------


@breaks("tls.trusted", "RequestNotSentError", also=["tls.broken_off", "tls.upload"])
class TrustsOnlyTheSystem(Broken):
    def make(self, settings: TransportSettings) -> AiohttpTransport:
        return made(settings, ssl_context=None)


@breaks("tls.unknown_authority", "got no error")
class TrustsAnybody(Broken):
    def make(self, settings: TransportSettings) -> AiohttpTransport:
        context = settings.ssl_context
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return made(settings, ssl_context=context)


@breaks("tls.another_host", "got no error")
class LooksAtNoName(Broken):
    def make(self, settings: TransportSettings) -> AiohttpTransport:
        context = settings.ssl_context
        if context is not None:
            context.check_hostname = False
        return made(settings, ssl_context=context)


@breaks("tls.expired", "got no error")
class LooksAtNoDate(Broken):
    def make(self, settings: TransportSettings) -> AiohttpTransport:
        context = settings.ssl_context
        if context is not None:
            context.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME
        return made(settings, ssl_context=context)


@breaks("tls.no_tls", "expected RequestNotSentError")
class IsNotSureWithoutTls(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        is_it = not isinstance(error.__cause__, aiohttp.ClientConnectorCertificateError)
        return as_other(error, OutcomeUnknownError) if is_it else error


@breaks("tls.broken_off", "its TLS connection is still there")
class DropsNoTls(DropsNothing):
    pass


@breaks("tls.upload", "did not arrive as it was")
class LosesTheEnd(Broken):
    class Losing(Lines):
        size = 0

        async def __anext__(self) -> bytes:
            chunk = await super().__anext__()
            self.size += len(chunk)
            return chunk if self.size < 2_000_000 else b""

    def before(self, request: Request) -> Request:
        is_it = isinstance(request.body, StreamBody) and request.body.length is None
        return with_stream(request, self.Losing) if is_it else request


# --- proxies ----------------------------------------------------------------------------------------------------------


@breaks("proxies.tunnel", "The proxy was shown a header of the request")
class ShowsTheProxyTooMuch(Broken):
    def make(self, settings: TransportSettings) -> AiohttpTransport:
        shown = None if settings.proxy is None else {"X-Authorization": "Bearer token-of-the-target"}
        return made(settings, proxy_headers=shown)


@breaks("proxies.forwarded", "The proxy was asked 0 times")
class ForwardsNothing(Broken):
    def __init__(self, settings: TransportSettings) -> None:
        super().__init__(settings)
        self.direct = made(attrs.evolve(settings, proxy=None))

    async def send(self, request: Request) -> Response:
        if request.url.startswith("http:") and "@" in (self.settings.proxy or ""):
            return await self.direct.send(request)
        return await super().send(request)

    async def aclose(self) -> None:
        await self.direct.aclose()
        await super().aclose()


@breaks("proxies.without_credentials", "The proxy got credentials that nobody gave")
class InventsCredentials(Broken):
    def make(self, settings: TransportSettings) -> AiohttpTransport:
        proxy = settings.proxy
        return made(settings, proxy=proxy if proxy is None or "@" in proxy else proxy.replace("//", "//anonymous:x@"))


@breaks("proxies.not_there", "expected RequestNotSentError")
class IsNotSureWithoutTheProxy(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        return as_other(error, OutcomeUnknownError) if "No connection to the proxy" in error.message else error


@breaks("proxies.refused", "expected RequestNotSentError, and got no error")
class TakesARefusalForAnAnswer(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception | Response:
        cause = error.__cause__
        return Response(status=cause.status) if isinstance(cause, aiohttp.ClientHttpProxyError) else error


@breaks("proxies.hung_up", "expected RequestNotSentError")
class IsNotSureOfHangingUp(Broken):
    def failed(self, request: Request, error: NudgescribeError) -> Exception:
        is_it = isinstance(error.__cause__, aiohttp.ServerDisconnectedError)
        return as_other(error, OutcomeUnknownError) if is_it else error


@breaks("proxies.answered_by_the_proxy", "RequestNotSentError")
class TakesAnAnswerForARefusal(Broken):
    async def send(self, request: Request) -> Response:
        response = await super().send(request)
        if response.status == 407:
            await response.aclose()
            raise RequestNotSentError("The proxy refused.")
        return response


@breaks("proxies.not_of_the_environment", "which nobody had asked for")
class AlwaysAsksTheEnvironment(Broken):
    def make(self, settings: TransportSettings) -> AiohttpTransport:
        return made(settings, trust_env=True)


@breaks("proxies.of_the_environment", "The proxy of the environment was asked 0 times")
class NeverAsksTheEnvironment(Broken):
    def make(self, settings: TransportSettings) -> AiohttpTransport:
        return made(settings, trust_env=False)


class ReadsNetrc(Broken):
    trust_env: ClassVar[bool]

    def before(self, request: Request) -> Request:
        file = os.environ.get("NETRC")
        if file is None or self.settings.trust_env is not self.trust_env or "Authorization" in request.headers:
            return request
        login, _, password = netrc.netrc(file).authenticators("127.0.0.1") or ("", "", "")
        credentials = base64.b64encode(f"{login}:{password}".encode()).decode()
        return attrs.evolve(request, headers=request.headers.with_header("Authorization", f"Basic {credentials}"))


@breaks("proxies.no_netrc", "with the credentials of netrc")
class ReadsNetrcByItself(ReadsNetrc):
    trust_env = False


@breaks("proxies.no_netrc_with_the_environment", "with the credentials of netrc")
class ReadsNetrcWithTheEnvironment(ReadsNetrc):
    trust_env = True


# --- a client written at home -----------------------------------------------------------------------------------------


class HomeMade:
    """HTTP as one remembers it: one connection, kept for ever; what comes first is the answer; again if it fails."""

    most = 2**30
    attempts = 1

    def __init__(self, settings: TransportSettings) -> None:
        self.kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request) -> Response:
        for attempt in range(self.attempts):
            try:
                async with asyncio.timeout(request.read_timeout):
                    return await self.once(request)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                await self.drop()
                if attempt + 1 == self.attempts:
                    raise OutcomeUnknownError("No answer.") from error
        raise AssertionError

    async def once(self, request: Request) -> Response:
        parts = urlsplit(request.url)
        if self.kept is None:
            self.kept = await asyncio.open_connection(parts.hostname, parts.port, limit=self.most)
        reader, writer = self.kept
        body = request.body
        length = f"Content-Length: {len(body)}\r\n" if isinstance(body, bytes) else ""
        chunked = "Transfer-Encoding: chunked\r\n" if isinstance(body, StreamBody) else ""
        writer.write(
            f"{request.method} {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n{length}{chunked}\r\n".encode()
        )
        if isinstance(body, bytes):
            writer.write(body)
        elif isinstance(body, StreamBody):
            async with asyncio.timeout(0.5):  # for whoever waits for this test
                async for chunk in body.open():
                    writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    await writer.drain()
        return await self.answer(reader)

    async def answer(self, reader: asyncio.StreamReader) -> Response:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = Headers([(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:-2])])
        body = await reader.readexactly(int(headers.get("Content-Length", 0)))
        return Response(status=int(lines[0].split(" ")[1]), headers=headers, stream=BytesStream(body))

    async def drop(self) -> None:
        if self.kept is not None:
            self.kept[1].transport.abort()
            self.kept = None
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self.drop()


@breaks("answers.informational", "The status was 100 instead of 201", alone=True)
class TakesTheFirstHead(HomeMade):
    pass


@breaks("answers.byte_by_byte", "Of b'abcde', b'' came", alone=True)
class KnowsOnlyLengths(HomeMade):
    pass


@breaks("connections.told_to_close", "Three such answers took 1 connections", alone=True)
class DoesNotListen(HomeMade):
    pass


@breaks("connections.closed_while_idle", "the connection had been closed before", alone=True)
class DoesNotLook(HomeMade):
    pass


@breaks("connections.race_with_an_idle_close", "the server saw the request 2 times", alone=True)
class TriesAgain(HomeMade):
    attempts = 2


@breaks("failures.endless_head", "bytes of headers were taken", alone=True)
class ReadsHeadsOfAnySize(HomeMade):
    pass


# --- the test ---------------------------------------------------------------------------------------------------------


def test_there_is_a_broken_transport_for_every_rule() -> None:
    assert {rule.name for rule in RULES} == {*CASES}


@pytest.fixture(autouse=True)
def what_takes_no_time_takes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nudgescribe_async.testing.conformance._bench.SOON", 0.4)


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.rule)
async def test_it_is_this_rule_that_a_broken_transport_breaks(case: Case) -> None:
    made: list[Any] = []

    def make(settings: TransportSettings) -> Any:
        made.append(case.make(settings))
        return made[-1]

    subject = case.rule.partition(".")[0]
    of_subject = [rule for rule in RULES if rule.subject == subject and rule.name not in SLOW and not case.alone]
    rules = [rule for rule in RULES if rule in of_subject or rule.name in {case.rule, *case.also}]
    try:
        report = await check_transport(make, rules=rules, patience=case.patience)
    finally:
        for transport in made:
            await (transport.aclose() if hasattr(transport, "aclose") else transport.inner.aclose())
    assert {verdict.rule.name for verdict in report.broken} == {case.rule, *case.also}, report
    assert not report.not_applicable
    (reason,) = (verdict.reason for verdict in report.broken if verdict.rule.name == case.rule)
    assert case.says in reason
