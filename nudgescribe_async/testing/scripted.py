"""A transport that answers what a test tells it to."""

from __future__ import annotations

import asyncio
import itertools
import json as standard_json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from enum import Enum
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from attrs import define, field, frozen

from nudgescribe_async.arguments import check_whole, kind
from nudgescribe_async.codec import InvalidJSONError, loads
from nudgescribe_async.errors import ClientClosedError, NudgescribeError
from nudgescribe_async.shapes import hidden
from nudgescribe_async.testing._operations import OPERATIONS, check_name
from nudgescribe_async.transport import BytesStream, Headers, Request, Response, StreamBody

if TYPE_CHECKING:
    from nudgescribe_async.clock import Clock

__all__ = ["HANG", "Script", "ScriptedTransport", "SentRequest", "Step", "answer"]

_LIFETIME = 14 * 86_400  # of an access token, as the service's own


class Hang(Enum):
    """The type of ``HANG``."""

    HANG = "never answers"


HANG: Final = Hang.HANG
"""In a script: an answer that never comes. Give the call a timeout."""


@frozen(kw_only=True)
class SentRequest:
    """A request that a ``ScriptedTransport`` was given.

    Attributes:
        operation: of the contract, such as ``"customers.list"``.
        method: in capital letters.
        path: of the URL.
        headers: all of them, ``Authorization`` included; ``repr()`` hides the values of most.
        body: the value, if it says that it is JSON; else the bytes, of a long body the first only; ``None`` if there
            was none. ``repr()`` hides it.
        size: how many bytes the body had.
        at: when it was sent, in seconds of the clock that the transport was given; ``None`` without one.
    """

    operation: str
    method: str
    path: str
    headers: Headers
    body: Any = field(default=None, repr=hidden)
    size: int = 0
    at: float | None = None


Step: TypeAlias = Response | BaseException | Literal[Hang.HANG]
"""What becomes of one request: an answer, an error to raise, or ``HANG``."""

_Computed: TypeAlias = Callable[[SentRequest], Step | Awaitable[Step]]

Script: TypeAlias = Step | _Computed | Sequence[Step | _Computed]
"""What becomes of all requests of an operation: the same each time, what a function makes of each, or one after
the other."""


def answer(
    status: int = 200, json: object = None, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer, with the ``Content-Type`` and ``Content-Length`` that a server would send.

    Args:
        status: the HTTP status, three digits.
        json: the body, to be written as JSON: what ``json.dumps`` takes. ``None`` is no body.
        body: the body as it is. Without a ``Content-Type`` in ``headers`` it goes as ``text/csv``, since a file of
            messages is the one thing that the service sends besides JSON.
        headers: further ones; they win over those two. Names and values are texts: ``{"Retry-After": "5"}``.

    Raises:
        TypeError: both bodies are given, ``json`` is nothing that JSON can hold, or an argument is of the wrong type.
        ValueError: ``json`` is a number that JSON cannot hold, or ``status`` is none.
    """
    check_whole("status", status, "a whole number from 100 to 999", least=100, most=999)
    if json is not None and body is not None:
        raise TypeError("Give json or body, not both.")
    if isinstance(json, bytes):
        raise TypeError("json must be a value to be written as JSON; got bytes: give them as body=...")
    if body is not None and not isinstance(cast("object", body), bytes):
        raise TypeError(f"body must be bytes; got {kind(body)}: encode a text, and give a value as json=...")
    plain: dict[str, str] = {}
    if body is not None:
        plain["content-type"] = "text/csv"
    elif json is not None:
        plain["content-type"], body = "application/json", _dumped(json)
    body = body if body is not None else b""
    plain["content-length"] = str(len(body))
    given = {} if headers is None else _checked(headers)
    return Response(status=status, headers=plain | given, stream=BytesStream(body))


def _checked(headers: object) -> dict[str, str]:
    """The headers, their names in small letters."""
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping of texts to texts; got {kind(headers)}.")
    checked: dict[str, str] = {}
    for name, value in cast("Mapping[object, object]", headers).items():
        if not isinstance(name, str):
            raise TypeError(f"headers must have texts for names; got {name!r}.")
        if not isinstance(value, str):
            # The value of another header may be a secret.
            given = f"{value}: write {str(value)!r}" if name.lower() == "retry-after" else kind(value)
            raise TypeError(f"headers[{name!r}] must be a text, as all values of headers are; got {given}.")
        checked[name.lower()] = value
    return checked


def _dumped(value: object) -> bytes:
    # Not the codec's: that writes with whichever library is installed, and they differ in what else they take.
    return standard_json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


@define
class _Script:
    """The script of one operation, and how far it got."""

    steps: Sequence[Step | _Computed]
    again: bool
    asked: int = 0

    def next(self) -> Step | _Computed | None:
        self.asked += 1
        if self.again:
            return self.steps[0]
        return self.steps[self.asked - 1] if self.asked <= len(self.steps) else None

    def __str__(self) -> str:
        return "" if self.again else f" ({min(self.asked, len(self.steps))} of {len(self.steps)} used)"


class ScriptedTransport:
    """Answers from a script, and keeps what it was asked. No socket, no server, no other thread.

    ::

        transport = ScriptedTransport()
        transport.on("customer_groups.list", answer(200, [...]))
        transport.on("customers.list", [answer(503, headers={"Retry-After": "1"}), answer(200, [...])])
        transport.on("reruns.initiate", lambda request: answer(200, {...: request.body}))
        transport.on("messages.publish", HANG)
        async with Nudgescribe(credentials, transport=transport, clock=VirtualClock()) as ns:
            ...
        assert transport.count("customers.list") == 2

    Logins and renewals are answered with tokens, other ones each time, unless there is a script for
    ``"auth.authenticate"`` or ``"auth.reauthenticate"``; whether calls carry the right token is not judged. A
    request that no script provides for is an ``AssertionError``: it comes out of the call, which does not
    repeat it.

    Args:
        clock: for ``SentRequest.at``; the one that the client has.
        keep: how many bytes of a body that is no JSON are kept.

    Attributes:
        closed: how often it was closed.

    Raises:
        TypeError: ``clock`` is none, or ``keep`` is no whole number.
        ValueError: ``keep`` is below 0.
    """

    def __init__(self, *, clock: Clock | None = None, keep: int = 2**20) -> None:
        if clock is not None and not callable(getattr(clock, "monotonic", None)):
            raise TypeError(f"clock must be a clock, such as VirtualClock(), or None; got {kind(clock)}.")
        if isinstance(clock, type):
            raise TypeError(f"clock must be a clock, and not the class of one; got {clock.__name__}.")
        check_whole("keep", keep, "a whole number of bytes, 0 or more", least=0)
        self.closed = 0
        self._clock = clock
        self._keep = keep
        self._requests: list[SentRequest] = []
        self._tokens = itertools.count(1)
        self._scripts: dict[str, _Script] = {}
        self.on("auth.authenticate", self._log_in)
        self.on("auth.reauthenticate", self._log_in)

    def __repr__(self) -> str:
        return f"<ScriptedTransport: {self._known()}; {len(self._requests)} requests>"

    def on(self, operation: str, script: Script) -> None:
        """Say what becomes of the requests of an operation, from now on.

        Args:
            operation: of the contract, such as ``"customers.list"``.
            script: what ``answer()`` gives, an error to raise, or ``HANG``: the same each time. A function of the
                ``SentRequest``, which may be a coroutine function: what it gives or raises. A list of all these: one
                after the other; a further request is an error, so an empty list forbids the operation.

        Raises:
            ValueError: there is no such operation.
            TypeError: ``script`` is none, or ``operation`` is no text.
        """
        check_name(operation)
        again = not isinstance(script, Sequence)
        steps: list[Step | _Computed] = [*script] if isinstance(script, Sequence) else [script]
        for step in steps:
            if isinstance(step, type) or not (callable(step) or _is_step(step)):
                raise TypeError(f"{operation}: {_NO_STEP.format(step)}, nor a function of the request.")
            if again and isinstance(step, Response) and hasattr(step.stream, "__anext__"):
                raise TypeError(
                    f"{operation}: the body can be read once only. Give answer(body=...), a stream that can be iterated "
                    "again, or a function that makes an answer each time."
                )
        self._scripts[operation] = _Script(steps, again)

    @property
    def requests(self) -> tuple[SentRequest, ...]:
        """What was sent, oldest first: whatever became of it, and logins included."""
        return tuple(self._requests)

    def count(self, operation: str) -> int:
        """How many requests of an operation were sent.

        Raises:
            TypeError: ``operation`` is no text.
            ValueError: there is no such operation.
        """
        check_name(operation)
        return sum(request.operation == operation for request in self._requests)

    async def send(self, request: Request) -> Response:
        """Read the body to its end, as a server would, and do what the script says.

        Raises:
            AssertionError: no script provides for the request.
        """
        if self.closed:
            raise ClientClosedError("The transport is closed. Nothing was sent.")
        path = urlsplit(request.url).path
        operation = next(
            (name for (method, end), name in OPERATIONS.items() if request.method == method and path.endswith(end)),
            None,
        )
        if operation is None:
            raise AssertionError(f"{request.method} {path} is no operation of the contract.")
        start, size = await _read(request.body, self._keep)
        sent = SentRequest(
            operation=operation,
            method=request.method,
            path=path,
            headers=request.headers,
            body=_parsed(request.headers, start) if request.body is not None else None,
            size=size,
            at=None if self._clock is None else self._clock.monotonic(),
        )
        self._requests.append(sent)
        return await self._perform(sent)

    async def aclose(self) -> None:
        """Refuse what is sent from now on."""
        self.closed += 1

    async def _perform(self, sent: SentRequest) -> Response:
        script = self._scripts.get(sent.operation)
        if script is None:
            raise AssertionError(f"{sent.operation} was requested, and has no script. Scripted: {self._known()}.")
        step = script.next()
        if step is None:
            raise AssertionError(
                f"{sent.operation} was requested {script.asked} times, and its script is {len(script.steps)} long. "
                f"Scripted: {self._known()}."
            )
        if callable(step):
            computed = step(sent)
            step = await computed if isawaitable(computed) else computed
        if not _is_step(cast("object", step)):
            raise TypeError(f"The script of {sent.operation} gave something else: {_NO_STEP.format(step)}.")
        return await _taken(step)

    def _known(self) -> str:
        return ", ".join(f"{operation}{script}" for operation, script in sorted(self._scripts.items()))

    def _log_in(self, _: SentRequest) -> Response:
        number = next(self._tokens)
        tokens = {
            "access_token": f"access-{number}",
            "refresh_token": f"refresh-{number}",
            "expires_in": _LIFETIME,
        }
        return answer(200, tokens)


_NO_STEP: Final = "{!r} is neither an answer, nor an error to raise, nor HANG"


def _is_step(value: object) -> bool:
    return isinstance(value, Response | BaseException | Hang)


async def _taken(step: Step) -> Response:
    if isinstance(step, Response):
        return step
    if isinstance(step, NudgescribeError):
        # The client adds to an error what it knows, and the next call must not find that in it.
        error = copy(step)
        raise error from step.__cause__
    if isinstance(step, BaseException):
        raise step
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable")


async def _read(body: bytes | StreamBody | None, keep: int) -> tuple[bytes, int]:
    """A body, or the start of a long one, and its size."""
    if not isinstance(body, StreamBody):
        return body or b"", len(body or b"")
    start, size = bytearray(), 0
    async for chunk in body.open():
        start += chunk[: max(keep - size, 0)]
        size += len(chunk)
    return bytes(start), size


def _parsed(headers: Headers, body: bytes) -> Any:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return body
    try:
        return loads(body)
    except InvalidJSONError:
        return body
