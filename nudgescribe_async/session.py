"""The one funnel that every request goes through.

A call is checked and encoded, waits for a token and for a free slot, is sent, and is read to its end;
what went wrong is judged by ``retry``; what came back is decoded by ``codec``. One deadline spans all
of it.

A call that is refused (401, 403) gets another token once, if ``auth`` thinks that helps, and is sent
again once. What is refused again is final.
"""

from __future__ import annotations

import asyncio
import platform
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define, evolve, field, frozen

from nudgescribe_async.address import checked_base_url
from nudgescribe_async.auth import Replacement
from nudgescribe_async.codec import Codec, InvalidJSONError, dumps, loads
from nudgescribe_async.endpoint import Bearer, Endpoint, Kind, RetryClass, checked
from nudgescribe_async.errors import (
    APIStatusError,
    Attempt,
    ClientClosedError,
    ConfigurationError,
    DeadlineExceededError,
    NudgescribeError,
    OutcomeUnknownError,
    RequestNotSentError,
    ResponseDecodeError,
    TransportError,
)
from nudgescribe_async.events import Events, RequestFinished, RequestRetrying, RequestStarted
from nudgescribe_async.message_file import end_is_known, not_a_file
from nudgescribe_async.options import CallOptions, RetryPolicy, Timeout
from nudgescribe_async.refusal import read_refusal, request_id
from nudgescribe_async.retry import Retry, decide, refused_before_work
from nudgescribe_async.shapes import Secret, hidden
from nudgescribe_async.transport import Headers, Request, Response, StreamBody, Transport
from nudgescribe_async.transport.multipart import FileSource, file_body, multipart_body
from nudgescribe_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping

    from nudgescribe_async.auth import TokenManager
    from nudgescribe_async.clock import Clock
    from nudgescribe_async.throttle import Throttle

__all__ = ["Answer", "Session"]

T = TypeVar("T")

USER_AGENT = f"nudgescribe_async/{__version__} Python/{platform.python_version()}"
MAX_ANSWER_BYTES = 256 * 2**20
MAX_REFUSAL_BYTES = 64 * 2**10
_DEFAULT = CallOptions()


def _judges_tokens(status: int) -> bool:
    return status < 500 and status not in (408, 429)


@frozen(kw_only=True)
class Answer:
    """A success, not decoded yet."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    request_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    token: str | None = field(default=None, repr=hidden)


@define
class _Call:
    """What is known of a call under way."""

    endpoint: Endpoint[Any]
    request: Request
    policy: RetryPolicy
    started: float
    deadline: float | None
    attempts: list[Attempt] = field(factory=list[Attempt])
    token: str | None = field(default=None, repr=hidden)
    under_way: bool = False
    """Whether a request is on its way."""
    unsettled: bool = False
    """Whether one was, and nobody knows what became of it."""

    @property
    def may_have_taken_effect(self) -> bool:
        return (self.under_way or self.unsettled) and self.endpoint.retry is not RetryClass.SAFE

    def ended(self, outcome: Answer | NudgescribeError) -> None:
        """What is known after an attempt. What a server says that failed in its work proves nothing."""
        self.under_way = False
        match outcome:
            case OutcomeUnknownError():
                self.unsettled = True
            case APIStatusError(status=status):
                failed_at_work = (status == 408 or status >= 500) and not refused_before_work(outcome)
                self.unsettled = self.unsettled or failed_at_work
            case _:
                pass


class Session:
    """Sends the calls of one client.

    Any number of calls at once, within one event loop: the first call decides which. ``tokens`` is set by
    the client, since tokens are had through the session that needs them.
    """

    tokens: TokenManager

    def __init__(
        self,
        *,
        base_url: str,
        transport: Transport,
        throttle: Throttle,
        clock: Clock,
        events: Events,
        timeout: Timeout,
        retry: RetryPolicy,
        context_headers: Mapping[str, str],
        secrets: Iterable[str],
    ) -> None:
        self.base_url = checked_base_url(base_url)
        self.events = events
        self._transport = transport
        self._throttle = throttle
        self._clock = clock
        self._timeout = timeout
        self._retry = retry
        self._context_headers = dict(context_headers)
        self._secrets = tuple(secrets)
        self._codec = Codec()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._active: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()

    @property
    def used(self) -> bool:
        """Whether a call was ever made."""
        return self._loop is not None

    async def call(
        self,
        endpoint: Endpoint[T],
        values: Mapping[str, object],
        options: CallOptions | None = None,
        *,
        bearer: str | None = None,
    ) -> T:
        """One call: its typed answer, or an error of ``nudgescribe_async.errors``.

        Args:
            endpoint: the operation.
            values: its arguments; ``None`` is left out.
            options: for this call alone.
            bearer: the token, for an operation that has one handed in.

        Raises:
            TypeError: an argument is missing or of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """
        return self.decode(endpoint, await self.exchange(endpoint, values, options, bearer=bearer))

    async def exchange(
        self,
        endpoint: Endpoint[Any],
        values: Mapping[str, object],
        options: CallOptions | None = None,
        *,
        bearer: str | None = None,
    ) -> Answer:
        """One call, its answer left as it came. See ``call``."""
        # Calls under way may need a token while the client closes.
        self.admit(endpoint.operation, closing=endpoint.bearer is not Bearer.ACCESS)
        options = options if options is not None else _DEFAULT
        if not isinstance(options, CallOptions):
            raise TypeError(f"{endpoint.operation}: options must be CallOptions(...), not {type(options).__name__}.")
        started = self._clock.monotonic()
        total = options.timeout if options.timeout is not None else self._timeout.total
        call = _Call(
            endpoint,
            self._request(endpoint, values, options),
            options.retries if options.retries is not None else self._retry,
            started,
            started + total if total is not None else None,
        )
        scope = asyncio.timeout(total)
        try:
            async with scope:
                self._active.add(scope)
                return await self._run(call, bearer)
        except TimeoutError:
            if not scope.expired():
                raise
            raise self._out_of_time(call, total) from None
        finally:
            self._active.discard(scope)
            if not self._active:
                self._idle.set()

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
            if self._says_no(answer):
                raise self._no(endpoint, answer) from None
            error.request_id, error.attempts = answer.request_id, answer.attempts
            if endpoint.retry is not RetryClass.SAFE:
                error.message += " The service answered with success, so the call has probably taken effect."
            raise
        if getattr(result, "success", None) is False and not endpoint.partial:
            raise self._no(endpoint, answer)
        return result

    def admit(self, operation: str, *, closing: bool = False) -> None:
        """Whether a call may begin.

        Args:
            operation: for the error.
            closing: whether it may begin while the client closes.

        Raises:
            ClientClosedError: the client is closed.
            ConfigurationError: it belongs to another event loop.
        """
        if self._closed and not closing:
            raise ClientClosedError("The client is closed; build a new one.", operation=operation)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError(
                "The client belongs to another event loop, the one of its first call. Build one client per event loop.",
                operation=operation,
            )

    def refuse_calls(self) -> None:
        """Admit no further calls.

        Raises:
            ConfigurationError: the client belongs to another event loop, which is still there.
        """
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            if not self._loop.is_closed():
                raise ConfigurationError(
                    "The client belongs to another event loop, the one of its first call: close it there."
                )
            self._active.clear()  # what ran in a loop that is gone will never end
        self._closed = True

    async def aclose(self, grace: float, hurry: asyncio.Event) -> None:
        """Give the calls under way ``grace`` seconds, or until ``hurry``; end the rest."""
        if self._active and grace > 0:
            self._idle.clear()
            waits = [asyncio.ensure_future(self._idle.wait()), asyncio.ensure_future(hurry.wait())]
            try:
                await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if self._active:
            self._idle.clear()
            for scope in tuple(self._active):
                with suppress(RuntimeError):  # it has just ended
                    scope.reschedule(asyncio.get_running_loop().time())
            await self._idle.wait()

    # --- one call ----------------------------------------------------------------------------------

    def _request(self, endpoint: Endpoint[Any], values: Mapping[str, object], options: CallOptions) -> Request:
        arguments = checked(endpoint, values)
        headers: dict[str, str] = {
            "Accept": "text/csv" if endpoint.answer is str else "application/json",
            "User-Agent": USER_AGENT,
        }
        if endpoint.answer is str:
            headers["Accept-Encoding"] = "identity"  # see message_file.end_is_known
        if endpoint.context_headers:
            headers |= self._context_headers
        # The same name twice, in letters of another case, would make one header of both values.
        given = {name.lower() for name in options.headers}
        headers = {name: value for name, value in headers.items() if name.lower() not in given} | dict(options.headers)
        for argument in endpoint.arguments:
            if argument.header is not None and argument.name in arguments:
                headers[argument.header] = Secret(arguments.pop(argument.name))
        body: bytes | StreamBody | None = None
        file = next(
            (item.name for item in endpoint.arguments if item.kind is Kind.FILE and item.name in arguments), None
        )
        if file is not None:
            source = cast("FileSource", arguments.pop(file))
            headers["Content-Type"], body = multipart_body(
                arguments, name=file, filename="customers.csv", content_type="text/csv", file=file_body(source)
            )
        elif endpoint.arguments:
            headers["Content-Type"], body = "application/json", dumps(arguments)
        return Request(
            method=endpoint.method,
            url=self.base_url + endpoint.path,
            headers=Headers(headers),
            body=body,
            connect_timeout=self._timeout.connect,
            read_timeout=self._timeout.read,
        )

    async def _run(self, call: _Call, bearer: str | None) -> Answer:
        replaced: int | None = None
        while True:
            if call.endpoint.bearer is Bearer.ACCESS:
                call.token = await self._had(call, self.tokens.token())
            else:
                call.token = bearer
            outcome = await self._attempt(call)
            status = outcome.status if isinstance(outcome, Answer | APIStatusError) else None
            # The service in trouble says nothing of the token.
            if replaced is not None and call.token is not None and status is not None and _judges_tokens(status):
                self.tokens.settle(call.token, replaced, call.endpoint.operation, helped=status != replaced)
            if isinstance(outcome, Answer):
                return outcome
            if await self._replaced(call, status, already=replaced is not None):
                replaced = status
            else:
                await self._wait_or_raise(call, outcome)

    async def _replaced(self, call: _Call, status: int | None, *, already: bool) -> bool:
        """Whether the call, refused as it was, is worth sending again with another token."""
        if already or call.token is None or status not in (401, 403) or call.endpoint.bearer is not Bearer.ACCESS:
            return False
        replacement = await self._had(call, self.tokens.replace(call.token, status, call.endpoint.operation))
        # If the body is used up, the other token is for the next call.
        return replacement is not Replacement.KEPT and call.request.replayable

    async def _had(self, call: _Call, tokens: Awaitable[T]) -> T:
        """What the token manager gives. Whatever became of *its* request, the call was not sent."""
        try:
            return await tokens
        except (TransportError, DeadlineExceededError) as error:
            why = error.message.partition(". ")[0].rstrip(".")  # the rest is about the login's own request
            unsent = RequestNotSentError(f"No token could be had, so nothing was sent: {why}.")
            raise self._final(call, unsent) from error

    async def _wait_or_raise(self, call: _Call, failure: NudgescribeError) -> None:
        now = self._clock.monotonic()
        decision = decide(
            call.endpoint.retry,
            failure,
            attempts=len(call.attempts),
            policy=call.policy,
            time_left=call.deadline - now if call.deadline is not None else None,
            replayable=call.request.replayable,
        )
        if not isinstance(decision, Retry):
            raise self._final(call, failure)
        self.events.emit(
            RequestRetrying(
                operation=call.endpoint.operation,
                attempt=len(call.attempts),
                after=decision.after,
                reason=decision.reason,
            )
        )
        await self._clock.sleep(decision.after)

    async def _attempt(self, call: _Call) -> Answer | NudgescribeError:
        """One request: its answer, or what went wrong."""
        if call.token is None or call.endpoint.bearer is not Bearer.ACCESS:
            return await self._send(call)
        async with self._throttle.slot():
            call.token = self.tokens.newest(call.token)  # waiting for the slot may have taken long
            return await self._send(call)

    async def _send(self, call: _Call) -> Answer | NudgescribeError:
        request = call.request
        if call.token is not None:
            bearer = Secret(f"Bearer {call.token}")
            request = evolve(request, headers=Headers({**request.headers, "Authorization": bearer}))
        operation, number = call.endpoint.operation, len(call.attempts) + 1
        started = self._clock.monotonic()
        outcome: Answer | NudgescribeError
        self.events.emit(RequestStarted(operation=operation, attempt=number))
        call.under_way = True
        try:
            outcome = await self._answer(call, await self._transport.send(request))
        except TransportError as error:
            outcome = error
        except NudgescribeError as error:
            call.under_way = False
            raise self._final(call, error) from error.__cause__
        call.ended(outcome)
        attempt = Attempt(
            number=number,
            after=started - call.started,
            seconds=self._clock.monotonic() - started,
            status=outcome.status if isinstance(outcome, Answer | APIStatusError) else None,
            error=type(outcome).__name__ if isinstance(outcome, TransportError) else None,
            request_id=outcome.request_id,
        )
        call.attempts.append(attempt)
        self.events.emit(
            RequestFinished(
                operation=operation,
                attempt=number,
                seconds=attempt.seconds,
                status=attempt.status,
                error=attempt.error,
                request_id=attempt.request_id,
            )
        )
        if isinstance(outcome, Answer):
            return evolve(outcome, attempts=tuple(call.attempts))
        return outcome

    async def _answer(self, call: _Call, response: Response) -> Answer | APIStatusError:
        async with response:
            if not 200 <= response.status <= 299:
                start = await response.read_start(MAX_REFUSAL_BYTES)
                return self._refusal(call.endpoint, response.status, response.headers, start, call.token)
            if call.endpoint.answer is str and not end_is_known(response.headers):
                raise OutcomeUnknownError("The answer may have been cut off, since nothing tells where it ends.")
            return Answer(
                status=response.status,
                headers=response.headers,
                body=await response.read(limit=MAX_ANSWER_BYTES),
                request_id=request_id(response.headers, self._all_secrets(call.token)),
                token=call.token,
            )

    def _refusal(
        self, endpoint: Endpoint[Any], status: int, headers: Headers, body: bytes, token: str | None
    ) -> APIStatusError:
        error = read_refusal(status, headers, body, now=self._clock.time(), secrets=self._all_secrets(token))
        if endpoint.bearer is not Bearer.ACCESS:
            error.body = ""  # it may hold tokens that nobody has seen before, and so nobody can mask
        return error

    def _final(self, call: _Call, failure: NudgescribeError) -> NudgescribeError:
        if isinstance(failure, RequestNotSentError) and call.may_have_taken_effect:
            # This time; an earlier one may have got through.
            failure = OutcomeUnknownError(
                f"An earlier attempt was sent, and its outcome is not known. {failure.message}"
            )
        failure.operation = call.endpoint.operation
        failure.attempts = tuple(call.attempts)
        if isinstance(failure, ClientClosedError | ConfigurationError) and call.may_have_taken_effect:
            failure.message += " An earlier attempt was sent, and may have taken effect."
        if isinstance(failure, OutcomeUnknownError) and call.endpoint.retry is not RetryClass.SAFE:
            look = f"look with {call.endpoint.look}" if call.endpoint.look is not None else "look"
            failure.message += f" The call may have taken effect: {look} before you send it again."
        return failure

    def _out_of_time(self, call: _Call, total: float | None) -> NudgescribeError:
        known = "It has not taken effect."
        if call.may_have_taken_effect:
            look = f": look with {call.endpoint.look} before you send it again" if call.endpoint.look else ""
            known = f"It may have taken effect{look}."
        if self._closed:
            return ClientClosedError(
                f"The client was closed while the call was under way. {known}",
                operation=call.endpoint.operation,
                attempts=call.attempts,
            )
        return DeadlineExceededError(
            f"The call did not end within {total} s. {known}",
            may_have_taken_effect=call.may_have_taken_effect,
            operation=call.endpoint.operation,
            attempts=call.attempts,
        )

    def _all_secrets(self, token: str | None) -> tuple[str, ...]:
        """What is masked in texts of the service. A call's own token need not be the one at hand."""
        return (*self._secrets, *self.tokens.secrets(), *filter(None, (token,)))

    def _says_no(self, answer: Answer) -> bool:
        try:
            value = loads(answer.body)
        except InvalidJSONError:
            return False
        return isinstance(value, dict) and cast("dict[str, object]", value).get("success") is False

    def _no(self, endpoint: Endpoint[Any], answer: Answer) -> APIStatusError:
        error = self._refusal(endpoint, answer.status, answer.headers, answer.body, answer.token)
        error.operation, error.attempts = endpoint.operation, answer.attempts
        return error
