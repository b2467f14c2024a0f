"""The seam between this package and an HTTP library: three values and one protocol.

Nothing in here imports an HTTP library. A transport sends *one* request and hands back *one*
response: it does not retry, follow redirects, keep cookies, or know about tokens. All of that lies
above it, so that a transport stays short and every promise is kept by all of them alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeAlias, cast, runtime_checkable
from urllib.parse import urlsplit

from attrs import field, frozen

from nudgescribe_async.errors import OutcomeUnknownError, ResponseDecodeError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = [
    "ByteStream",
    "BytesStream",
    "Headers",
    "Request",
    "Response",
    "StreamBody",
    "Transport",
    "WholeByteStream",
]

# What may be shown. Everything else is a name without its value, so that a header that is new, or
# renamed, is hidden until somebody decides otherwise.
SHOWN_HEADERS = frozenset({"accept", "content-encoding", "content-length", "content-type", "retry-after", "user-agent"})


HeaderItems: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]


class Headers(Mapping[str, str]):
    """Headers by name, whatever the case of its letters; immutable.

    Several values of one name are joined with a comma, as HTTP allows. ``repr()`` shows the values
    of an allow-list of names only.

    Attributes:
        prepared: what a transport has made of them, for when they are sent again; no part of their value.
    """

    __slots__ = ("_by_name", "prepared")

    def __init__(self, items: HeaderItems = ()) -> None:
        self.prepared: object = None
        pairs = cast("list[tuple[str, str]]", items) if type(items) is list else _pairs(items)
        by_name = {name.lower(): (name, value) for name, value in pairs}
        if len(by_name) < len(pairs):
            by_name.clear()
            for name, value in pairs:
                known = by_name.get(name.lower())
                by_name[name.lower()] = (name, value) if known is None else (known[0], f"{known[1]}, {value}")
        self._by_name = by_name

    def pairs(self) -> Collection[tuple[str, str]]:
        """The names as they were given, and the values."""
        return self._by_name.values()

    def has_any(self, names: frozenset[str]) -> bool:
        """Whether one of these names, in small letters, is there."""
        return not names.isdisjoint(self._by_name)

    def with_header(self, name: str, value: str) -> Headers:
        """These, with another value of this one."""
        more = Headers()
        more._by_name.update(self._by_name)
        more._by_name[name.lower()] = (name, value)
        return more

    def __getitem__(self, name: str) -> str:
        return self._by_name[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._by_name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._plain() == other._plain()

    def __hash__(self) -> int:
        return hash(frozenset(self._plain().items()))

    def _plain(self) -> dict[str, str]:
        return {name: value for name, (_, value) in self._by_name.items()}

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name!r}: {value!r}" if name.lower() in SHOWN_HEADERS else f"{name!r}: ***"
            for name, value in self.items()
        )
        return f"Headers({{{shown}}})"


def _pairs(items: HeaderItems) -> list[tuple[str, str]]:
    return [*cast("Iterable[tuple[str, str]]", items.items() if isinstance(items, Mapping) else items)]


def _headers(items: HeaderItems) -> Headers:
    return items if isinstance(items, Headers) else Headers(items)


def _without_query(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # a repr must not raise, and a URL that cannot be parsed may be anything
        return "<a URL that cannot be parsed>"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@frozen(kw_only=True)
class StreamBody:
    """A body that is not held in memory, and can be sent again because it is opened anew each time.

    Attributes:
        open: called once per attempt; gives the chunks from the start.
        length: the number of bytes, if known; else the body is sent in chunks.
        replayable: ``False`` if ``open`` works only once, as for a file object that was handed in.
    """

    open: Callable[[], AsyncIterator[bytes]] = field(repr=False)
    length: int | None = None
    replayable: bool = True


@frozen(kw_only=True)
class Request:
    """One HTTP request.

    Attributes:
        method: in capital letters.
        url: absolute. ``repr()`` leaves out the query, which may be a signature.
        headers: sent as they are.
        body: bytes, a ``StreamBody``, or nothing. Any method may have one: this API sends bodies
            with ``DELETE``.
        connect_timeout: seconds for a connection: waiting for a free one, name, TCP, TLS together.
        read_timeout: seconds without a byte from the server, or, while a body is sent, in which the
            server takes nothing more of it.
    """

    method: str
    url: str = field(repr=_without_query)
    headers: Headers = field(factory=Headers, converter=_headers)
    body: bytes | StreamBody | None = field(default=None, repr=False)
    connect_timeout: float | None = 10.0
    read_timeout: float | None = 60.0

    @property
    def replayable(self) -> bool:
        """Whether the request can be sent a second time with the same body."""
        return is_replayable(self.body)


def is_replayable(body: bytes | StreamBody | None) -> bool:
    """Whether a body can be sent a second time."""
    return body is None or isinstance(body, bytes) or body.replayable


@runtime_checkable
class ByteStream(Protocol):
    """The body of a response while it arrives.

    Iterating raises ``OutcomeUnknownError`` if the connection breaks before the end. ``aclose()``
    gives the connection back (or drops it, if the body was not read to its end), and may be called
    more than once.

    One that can give all of it at once, cheaper than in chunks, says so as a ``WholeByteStream``.
    """

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """Give the connection back, or drop it."""
        ...


class WholeByteStream(ByteStream, Protocol):
    """A ``ByteStream`` that can be read to its end in one go."""

    async def read_whole(self, limit: int | None) -> bytes | None:
        """All of it, or ``None`` if it is longer than ``limit``; and the end of the response in any case.

        Raises:
            OutcomeUnknownError: the connection broke.
        """
        ...


@frozen
class BytesStream:
    """A body that is already here."""

    data: bytes = field(repr=False)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.data:
            yield self.data

    async def aclose(self) -> None:
        """Nothing to close."""


@frozen(kw_only=True)
class Response:
    """One HTTP response, its body perhaps still on the way.

    Use it as ``async with response:``, or ``aclose()`` it: until then it holds a connection.

    Attributes:
        status: any three-digit status, redirects included; a status is never an exception here.
        headers: as received.
        stream: the body; decompressed.
    """

    status: int
    headers: Headers = field(factory=Headers, converter=_headers)
    stream: ByteStream = field(factory=lambda: BytesStream(b""), repr=False)

    async def read(self, *, limit: int | None = None) -> bytes:
        """The whole body, and the end of the response: the connection is given back.

        Args:
            limit: the most bytes to accept; the rest of a longer body is not read.

        Raises:
            OutcomeUnknownError: the connection broke.
            ResponseDecodeError: the body is longer than ``limit``.
        """
        if hasattr(self.stream, "read_whole"):  # isinstance() of a protocol takes far longer
            whole = await cast("WholeByteStream", self.stream).read_whole(limit)
            return _too_long(limit) if whole is None else whole
        chunks: list[bytes] = []
        size = 0
        try:
            async for chunk in self.stream:
                size += len(chunk)
                if limit is not None and size > limit:
                    _too_long(limit)
                chunks.append(chunk)
        except BaseException:
            # Tracebacks may be kept with their locals, and this may be a token or a customer.
            chunks.clear()
            chunk = b""
            raise
        finally:
            await self.stream.aclose()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read_start(self, size: int) -> bytes:
        """At most ``size`` bytes of the body, as far as they come; then the end of the response."""
        start = bytearray()
        try:
            async for chunk in self.stream:
                start += chunk
                if len(start) >= size:
                    break
        except OutcomeUnknownError:
            pass  # the status is known, and this is all there is to explain it
        finally:
            await self.stream.aclose()
        return bytes(start[:size])

    async def aclose(self) -> None:
        """Give up what is left of the body. May be called more than once."""
        await self.stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _too_long(limit: int | None) -> NoReturn:
    raise ResponseDecodeError(
        f"The body of the answer is longer than the {limit:,} bytes allowed.",
        expected=f"at most {limit:,} bytes",
        received="more",
    )


@runtime_checkable
class Transport(Protocol):
    """Sends requests. Two coroutines are all that another HTTP library has to offer.

    ``send`` sends the request exactly once and returns when the headers of the answer are here.
    It raises nothing but ``ConfigurationError`` (the request cannot be sent as it is, or the stream
    of its body gave another number of bytes than its ``length``),
    ``RequestNotSentError`` (the server cannot have seen it), ``OutcomeUnknownError`` (it may have),
    ``ClientClosedError``, ``asyncio.CancelledError``, and whatever the stream of the body raised, as it
    is (the server has not seen a whole request then). When cancelled it leaves nothing behind. It
    follows no redirect, stores no cookie, and never sends a second time by itself.

    ``aclose`` closes what the transport opened, and only that. It may be called more than once, and
    before the first ``send``.
    """

    async def send(self, request: Request) -> Response:
        """Send the request once; return when the headers of the answer are here."""
        ...

    async def aclose(self) -> None:
        """Close what the transport opened."""
        ...
