"""A transport that looks at what comes below the codec, and lets nothing through that could change something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define, evolve, field, frozen

from nudgescribe_async.codec import InvalidJSONError, loads
from nudgescribe_async.contract_doctor.forms import is_header, media_type_of
from nudgescribe_async.errors import RequestNotSentError, ResponseDecodeError
from nudgescribe_async.reading import MAX_ANSWER_BYTES
from nudgescribe_async.threads import in_thread
from nudgescribe_async.transport import BytesStream, Response

if TYPE_CHECKING:
    from nudgescribe_async.clock import Clock
    from nudgescribe_async.contract_doctor.contract import Contract, Operation
    from nudgescribe_async.transport import Request, Transport

__all__ = ["LOGIN", "NOTHING", "START_OF_A_FILE", "Exchange", "Watching"]

NOTHING: Final = object()
"""In place of a JSON value, where there is none."""

LOGIN: Final = "auth.authenticate"
START_OF_A_FILE: Final = 64 * 2**10
"""So many bytes of a file are looked at, and taken for a recording."""


@frozen(kw_only=True)
class Exchange:
    """A request, and what came. It holds the data of customers, and is gone when the report is made.

    Attributes:
        operation: what was asked.
        body: the JSON of the request.
        status: of the answer.
        content_type: of the answer, without parameters, in small letters.
        headers: names, in small letters.
        value: the JSON of the answer, or ``NOTHING``.
        start: the beginning of an answer that is none.
        too_long: whether the answer was longer than any ought to be, and not read.
    """

    operation: Operation
    body: dict[str, Any] = field(repr=False)
    status: int
    content_type: str
    headers: tuple[str, ...]
    value: Any = field(repr=False)
    start: bytes = field(repr=False)
    too_long: bool = False


@define
class Watching:
    """Sends harmless requests, with a pause before each but the first, keeps what came, and hands it on.

    Of refusals the session above sees a bare 400 instead: it would log in anew after some, and pause after others.

    Attributes:
        exchanges: what came; the values of the last one alone, as forty large answers would be too much to keep.
        waited: seconds, for all answers together; pauses do not count.
    """

    _inner: Transport
    _contract: Contract
    _most: int
    _pause: float
    _clock: Clock
    exchanges: list[Exchange] = field(factory=list[Exchange], init=False)
    waited: float = field(default=0.0, init=False)
    _sent: int = field(default=0, init=False)
    _has_logged_in: bool = field(default=False, init=False)

    @property
    def sent(self) -> int:
        """How many requests were sent."""
        return self._sent

    @property
    def left(self) -> int:
        """How many requests may still be sent."""
        return self._most - self._sent

    async def send(self, request: Request) -> Response:
        """Send a request that only reads, or logs in.

        Raises:
            RequestNotSentError: it does something else, logs in again, or there were enough.
        """
        operation = self._contract.requested(request.method, request.url)
        if operation is None or (operation.effect != "read" and operation.name != LOGIN):
            raise RequestNotSentError("The contract doctor sends nothing that could change something.")
        if self.left <= 0:
            raise RequestNotSentError("The contract doctor has sent as many requests as it may.")
        if operation.name == LOGIN:
            if self._has_logged_in:
                raise RequestNotSentError("The contract doctor logs in once.")
            self._has_logged_in = True
        self._sent += 1  # before anything is waited for, so that requests at once cannot be too many
        if self._sent > 1:
            await self._clock.sleep(self._pause)
        began = self._clock.monotonic()
        try:
            response = await self._inner.send(request)
            return await self._noted(operation, request, response)
        finally:
            self.waited += self._clock.monotonic() - began

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._inner.aclose()

    async def _noted(self, operation: Operation, request: Request, response: Response) -> Response:
        body = cast("dict[str, Any]", loads(request.body)) if isinstance(request.body, bytes) and request.body else {}
        choice = self._contract.choice(operation, body)
        is_file = choice is not None and self._contract.answer(operation, choice)[1] != "application/json"
        # Of a file of messages, which may be large, the beginning shows all that is to be seen.
        found = await (response.read_start(START_OF_A_FILE) if is_file else _read(response))
        data = b"" if found is None else found
        if self.exchanges:
            self.exchanges[-1] = evolve(self.exchanges[-1], value=NOTHING, start=b"")
        self.exchanges.append(
            Exchange(
                operation=operation,
                body=body,
                status=response.status,
                content_type=media_type_of(response.headers.get("content-type", "")),
                headers=tuple(sorted(filter(is_header, map(str.lower, response.headers)))),
                value=await in_thread(_parsed, data),
                start=data[:START_OF_A_FILE],
                too_long=found is None,
            )
        )
        # Of a file too, which may be cut off here: nobody above asks what was in it.
        if is_file or not 200 <= response.status < 300:
            return Response(status=400)
        return Response(status=response.status, headers=response.headers, stream=BytesStream(data))


async def _read(response: Response) -> bytes | None:
    """The body; ``None`` for one that is longer than any answer ought to be."""
    try:
        return await response.read(limit=MAX_ANSWER_BYTES)
    except ResponseDecodeError:
        return None


def _parsed(data: bytes) -> Any:
    try:
        return loads(data)
    except InvalidJSONError:
        return NOTHING
