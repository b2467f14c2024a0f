"""From an answer as it comes to a typed object, or to the error that says what came instead.

Knows nothing of attempts, slots and events: that is the session's affair.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

from attrs import define, field

from nudgescribe_async.call import tell
from nudgescribe_async.codec import Codec, InvalidJSONError, loads, looks_whole
from nudgescribe_async.endpoint import Bearer, Endpoint, RetryClass
from nudgescribe_async.errors import APIStatusError, Attempt, OutcomeUnknownError, ResponseDecodeError
from nudgescribe_async.message_file import end_is_known, is_visibly_none, not_a_file, says_otherwise
from nudgescribe_async.refusal import mask, printable, read_refusal, request_id, what_came
from nudgescribe_async.shapes import hidden
from nudgescribe_async.transport import SHOWN_HEADERS, Headers, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nudgescribe_async.call import Call, Sink
    from nudgescribe_async.clock import Clock

__all__ = ["MAX_ANSWER_BYTES", "Answer", "Reader"]

T = TypeVar("T")

MAX_ANSWER_BYTES = 64 * 2**20
MAX_REFUSAL_BYTES = 64 * 2**10
_WORDS = re.compile(rb"[A-Za-z ,.:;'!()\r\n]{1,200}")
_CODE = re.compile(rb"<Code>([A-Za-z]{1,80})</Code>")  # in XML, as S3, Azure and Google Cloud Storage have it
_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
_WORTH_HIDING = 6  # letters of a part of a signed URL; shorter ones hide nothing, and stand everywhere


@define(kw_only=True)
class Answer:
    """A success, not decoded yet."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    request_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    call: int = 0
    """The number of the call, for events."""
    unsettled: bool = False
    """Whether an earlier attempt of the call may have taken effect."""
    token: str | None = field(default=None, repr=hidden)
    link: str | None = field(default=None, repr=hidden)
    """The signed URL that it is from."""


class Reader:
    """Reads the answers of one client.

    Args:
        secrets: what is masked in texts of the service, given the token of a call.
        clock: for ``Retry-After``.
        max_answer_bytes: a longer success is not read to its end.
    """

    def __init__(
        self, *, secrets: Callable[[str | None], tuple[str, ...]], clock: Clock, max_answer_bytes: int
    ) -> None:
        self._secrets = secrets
        self._clock = clock
        self._max_answer_bytes = max_answer_bytes
        self._codec = Codec()

    async def refusal(self, call: Call, response: Response) -> APIStatusError:
        """The error for an answer that is no success."""
        start = await response.read_start(MAX_REFUSAL_BYTES)
        if call.link is None:
            call.refusal_headers = self._shown(response.headers, tuple(self._hidden(call)))
        return self.refusal_of(call, response.status, response.headers, start)

    def refusal_of(self, call: Call, status: int, headers: Headers, body: bytes) -> APIStatusError:
        """The error for a refusal that is here already, as a whole or only its head."""
        return self._refusal(call.endpoint, status, headers, body, call)

    def _refusal(
        self, endpoint: Endpoint[Any], status: int, headers: Headers, body: bytes, to: Call | Answer
    ) -> APIStatusError:
        if to.link is not None:
            body = _harmless(body)
        error = read_refusal(status, headers, body, now=self._clock.time(), secrets=self._hidden(to))
        error.request_id = self._known_as(headers, to)
        if endpoint.bearer is not Bearer.ACCESS:
            error.body = ""  # it may hold tokens that nobody has seen before, and so nobody can mask
        return error

    async def success(self, call: Call, response: Response) -> Answer:
        """The answer, read to its end. What the call has a sink for goes there, and nothing of it is in the answer.

        What says itself that it is no file is never for the sink: it is short, and ``decode`` tells what it is.

        Raises:
            OutcomeUnknownError: it broke off, or nothing tells whether it did.
            ResponseDecodeError: it is too long, or visibly no answer of the service (``unreadable``).
        """
        if call.endpoint.answer is str and not end_is_known(response.headers):
            raise OutcomeUnknownError("The answer may have been cut off, since nothing tells where it ends.")
        known_as = self._known_as(response.headers, call)
        sink = None if call.sink is None or says_otherwise(response.headers) else call.sink
        answer = Answer(
            status=response.status,
            headers=response.headers,
            body=await self._body(
                response, known_as, sink
            ),  # in no variable: tracebacks may show those, and this may be a token
            request_id=known_as,
            token=call.token,
            link=call.link,
            call=call.number,
        )
        if sink is None:
            self._refuse_what_is_none(call.endpoint, answer)
            if not (call.endpoint.answer is str or looks_whole(answer.body) or end_is_known(response.headers)):
                # Half of an object is no JSON, but half of a number is one.
                raise OutcomeUnknownError("The answer may have been cut off, since nothing tells where it ends.")
        return answer

    async def _body(self, response: Response, known_as: str | None, sink: Sink | None) -> bytes:
        try:
            if sink is not None:
                await sink.receive(response)
                return b""
            return await response.read(limit=self._max_answer_bytes)
        except ResponseDecodeError as error:
            error.request_id = known_as
            if sink is None:
                error.message += " max_answer_bytes= of the client sets another limit."
            raise

    def _refuse_what_is_none(self, endpoint: Endpoint[Any], answer: Answer) -> None:
        if endpoint.answer is str:
            if not is_visibly_none(answer.status, answer.headers, answer.body):
                return
        elif looks_whole(answer.body) or _json(answer.body) is not _NO_JSON:
            return
        try:
            self.decode(endpoint, answer)
        except ResponseDecodeError as error:
            error.unreadable = True
            what = what_came(answer.body, tuple(self._hidden(answer)))
            if what is not None:
                if answer.link is not None:
                    what = what.partition(" (")[0]  # without the words on it
                error.message = f"The answer is {what}, not {'CSV' if endpoint.answer is str else 'JSON'}."
            if endpoint.retry is RetryClass.SAFE:
                error.advice = "Something between you and the service may have answered: check base_url and proxies."
            raise

    def decode(self, endpoint: Endpoint[T], answer: Answer) -> T:
        """The typed object in an answer.

        Raises:
            ResponseDecodeError: it does not fit the contract.
            APIStatusError: it says ``"success": false``.
        """
        try:
            if endpoint.answer is str and (what := not_a_file(answer.status, answer.headers, answer.body)):
                raise ResponseDecodeError(
                    f"The answer is {what}, not CSV.", expected="text/csv", received=what, operation=endpoint.operation
                )
            result = self._codec.decode(endpoint, answer.body)
        except ResponseDecodeError as error:
            if answer.link is None and _says_no(answer.body):
                raise self._no(endpoint, answer) from None
            error.request_id, error.attempts = answer.request_id, answer.attempts
            tell(error, endpoint, may_have_taken_effect=endpoint.retry is not RetryClass.SAFE)
            raise
        if getattr(result, "success", None) is False and not endpoint.partial:
            raise self._no(endpoint, answer)
        return result

    def _no(self, endpoint: Endpoint[Any], answer: Answer) -> APIStatusError:
        error = self._refusal(endpoint, answer.status, answer.headers, answer.body, answer)
        says = f': "{error.said}"' if error.said else ", without an explanation"
        error.message = f'The service answered with {answer.status}, and "success": false{says}.'
        error.operation, error.attempts = endpoint.operation, answer.attempts
        if answer.unsettled:
            error.message += " An earlier attempt was sent, and this may be its consequence."
            tell(error, endpoint, may_have_taken_effect=True)
        return error

    def _hidden(self, what: Call | Answer) -> Iterator[str]:
        """What is masked in what the service, or a storage, says in answer to a call."""
        yield from self._secrets(what.token)
        yield from _parts(what.link)

    def _known_as(self, headers: Headers, to: Call | Answer) -> str | None:
        """What the service, or a storage, calls the request."""
        known_as = request_id(headers, self._hidden(to))
        return known_as if to.link is None or (known_as and _ID.fullmatch(known_as)) else None

    def _shown(self, headers: Headers, secrets: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """What may be told of the headers of a refusal."""
        return tuple(
            (name.lower(), printable(mask(value, secrets)[:200]))
            for name, value in headers.items()
            if name.lower() in SHOWN_HEADERS
        )


def _harmless(body: bytes) -> bytes:
    """What a storage says, if it is plain words. Else it may quote the signature, in a spelling that nobody masks."""
    if _WORDS.fullmatch(body):
        return body
    code = _CODE.search(body)
    return code[1] if code else b""


def _parts(link: str | None) -> set[str]:
    """A signed URL, and what of it may be quoted alone."""
    if link is None:
        return set()
    query = urlsplit(link).query
    raw = {part.partition("=")[2] for part in query.split("&")}
    values = raw | {value for _, value in parse_qsl(query)}
    return {link, query} | {value for value in values if len(value) >= _WORTH_HIDING}


def _says_no(body: bytes) -> bool:
    # A function of its own: what is parsed here must not be in the frame of an error.
    said = _json(body)
    return isinstance(said, dict) and cast("dict[str, object]", said).get("success") is False


_NO_JSON = object()


def _json(body: bytes) -> object:
    try:
        return cast("object", loads(body))
    except InvalidJSONError:
        return _NO_JSON
