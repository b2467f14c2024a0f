"""The one funnel that every request goes through.

A call is checked and encoded, waits for a token and for a free slot, is sent, and is read to its end;
what went wrong is judged by ``retry``; what came back is decoded by ``codec``. One deadline, on the
client's clock, spans all of it. ``throttle`` has what all calls share.

A call that is refused (401, 403) gets another token once, if ``auth`` thinks that helps, and is sent
again once. What is refused again is final.

``follow`` sends a call to a signed URL of another origin instead, which is told nothing of the user.
"""

from __future__ import annotations

import asyncio
import logging
import math
import platform
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from attrs import frozen

from nudgescribe_async.address import checked_base_url
from nudgescribe_async.auth import Replacement
from nudgescribe_async.call import Call
from nudgescribe_async.codec import dumps
from nudgescribe_async.endpoint import Bearer, Endpoint, Kind, checked
from nudgescribe_async.errors import (
    APIStatusError,
    Attempt,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    DeadlineExceededError,
    NudgescribeError,
    RequestNotSentError,
    ResponseDecodeError,
    TransportError,
)
from nudgescribe_async.events import (
    CallEnded,
    CallGivenUp,
    CallStarted,
    EffectUnknown,
    Events,
    RequestFinished,
    RequestRetrying,
    RequestStarted,
)
from nudgescribe_async.options import CallOptions, Priority, RetryPolicy, Timeout
from nudgescribe_async.profiles import attach
from nudgescribe_async.reading import Answer, Reader
from nudgescribe_async.retry import Retry, decide, in_brief, in_trouble, pause_after, refused_before_work
from nudgescribe_async.shapes import Secret
from nudgescribe_async.transport import Headers, Request, Response, StreamBody, Transport
from nudgescribe_async.transport.multipart import FileSource, file_body, multipart_body
from nudgescribe_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping

    from nudgescribe_async.auth import TokenManager
    from nudgescribe_async.call import Once, Sink
    from nudgescribe_async.clock import Clock
    from nudgescribe_async.endpoint import Argument
    from nudgescribe_async.profiles import ProfileDecryptor
    from nudgescribe_async.throttle import Budget, Throttle

__all__ = ["Session"]

T = TypeVar("T")

USER_AGENT = f"nudgescribe_async/{__version__} Python/{platform.python_version()}"
_LOGGER = logging.getLogger("nudgescribe_async.session")
_DEFAULT = CallOptions()
_NO_TOKEN = (TransportError, DeadlineExceededError, APIStatusError, AuthenticationError)


def _expire(scope: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # it has just ended
        scope.reschedule(-math.inf)


def _checked_options(endpoint: Endpoint[Any], options: CallOptions | None) -> CallOptions:
    options = options if options is not None else _DEFAULT
    if not isinstance(options, CallOptions):
        raise TypeError(f"{endpoint.operation}: options must be CallOptions(...), not {type(options).__name__}.")
    return options


def _forget_frames(error: BaseException) -> None:
    """Let go of the frames of an HTTP library: they hold the URL in a form that shows all of it."""
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is not None and (link is error or link.__traceback__ is not None):
            link.__traceback__ = None
            todo += [link.__cause__, link.__context__]


def _origin(link: str) -> str:
    parts = urlsplit(link)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


async def _first(*events: asyncio.Event) -> None:
    """Return when one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


@frozen
class _Form:
    """What all requests of an operation have in common."""

    endpoint: Endpoint[Any]
    url: str
    headers: Headers
    in_headers: tuple[Argument, ...]
    """The arguments that travel in headers."""
    file: str | None
    """The argument that is a file."""


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
        budget: Budget,
        clock: Clock,
        events: Events,
        timeout: Timeout,
        retry: Mapping[Priority, RetryPolicy],
        max_answer_bytes: int,
        context_headers: Mapping[str, str],
        secrets: Iterable[str],
        first_page: int | None = None,
        profile_decryptor: ProfileDecryptor | None = None,
    ) -> None:
        self.base_url = checked_base_url(base_url)
        self.events = events
        self._transport = transport
        self._throttle = throttle
        self._budget = budget
        self._clock = clock
        self._timeout = timeout
        self._retry = dict(retry)
        self._context_headers = dict(context_headers)
        self._secrets = tuple(secrets)
        self._first_page = first_page
        self._profile_decryptor = profile_decryptor
        self._forms: dict[str, _Form] = {}
        self._token: str | None = None  # the one that went along last
        self._authorized: dict[str, Headers] = {}  # the headers of operations with it
        self._reader = Reader(secrets=self._all_secrets, clock=clock, max_answer_bytes=max_answer_bytes)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._cut = False  # whether closing has ended calls
        self._calls = 0
        self._active: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._to_tell: list[Callable[[], None]] = []
        self._more_headers: list[Callable[[int], Mapping[str, str]]] = []

    @property
    def clock(self) -> Clock:
        """The client's time."""
        return self._clock

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
        closing: bool = False,
        once: Once | None = None,
    ) -> T:
        """One call: its typed answer, or an error of ``nudgescribe_async.errors``.

        Args:
            endpoint: the operation.
            values: its arguments; ``None`` is left out.
            options: for this call alone.
            bearer: the token, for an operation that has one handed in.
            closing: whether it may begin while the client closes, being part of something that has begun before; see
                ``together``.
            once: has a say right before each request.

        Raises:
            TypeError: an argument is missing or of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """
        call = self._begin(endpoint, values, options, closing=closing)
        call.once = once
        if self.events.spans_heard:
            return await self._told(call, lambda: self._decoded(call, bearer))
        return self.decode(endpoint, await self._conduct(call, bearer))

    async def exchange(
        self,
        endpoint: Endpoint[Any],
        values: Mapping[str, object],
        options: CallOptions | None = None,
        *,
        into: Sink | None = None,
    ) -> Answer:
        """One call, its answer left as it came. See ``call``.

        Args:
            endpoint: the operation.
            values: its arguments.
            options: for this call alone.
            into: takes the body of a success, however long, so that the answer has none. What says itself that it
                is no file is in the answer nevertheless; ``decode`` raises what there is to say of it.
        """
        call = self._begin(endpoint, values, options)
        call.sink = into
        return await self._exchanged(call)

    async def follow(
        self, endpoint: Endpoint[str], link: Secret, options: CallOptions | None = None, *, into: Sink
    ) -> Answer:
        """One call to a signed URL of another origin, which is told nothing of the user.

        Slots, priority, retries, deadline, events and closing are those of any call. But no token and no header of
        ``options`` goes along, a refusal renews no token, and "too many" from there pauses nobody but this call.

        Args:
            endpoint: what the call is named, and whether it may be sent again; its path does not count.
            link: the URL, which whoever gives it has checked. It shows nowhere.
            options: for this call alone.
            into: as for ``exchange``.
        """
        self.admit(endpoint.operation)
        options = _checked_options(endpoint, options)
        headers = Headers({"Accept": "*/*", "User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        call = self._new_call(endpoint, link, headers, None, options)
        call.link, call.sink = link, into
        return await self._exchanged(call)

    def retry_policy(self, options: CallOptions) -> RetryPolicy:
        """How often and how long apart a call with these options is tried."""
        priority = options.priority if options.priority is not None else Priority.INTERACTIVE
        return options.retries if options.retries is not None else self._retry[priority]

    def add_headers(self, more: Callable[[int], Mapping[str, str]]) -> Callable[[], None]:
        """Have every request of the service carry what ``more`` gives for its call; what comes back ends that.

        It is called with the number of the call, in the context in which the call is made, before each attempt. A header
        that is there already stays. Requests to other origins, by signed URL, get none. If it raises, or gives what no
        header can be, that is logged, and the request is sent without.
        """
        self._more_headers.append(more)

        def end() -> None:
            if more in self._more_headers:
                self._more_headers.remove(more)

        return end

    def _begin(
        self,
        endpoint: Endpoint[Any],
        values: Mapping[str, object],
        options: CallOptions | None,
        *,
        closing: bool = False,
    ) -> Call:
        # Calls under way may need a token while the client closes.
        self.admit(endpoint.operation, closing=closing or endpoint.bearer is not Bearer.ACCESS)
        options = _checked_options(endpoint, options)
        # In no variables: tracebacks may show those, and the body may hold a password.
        return self._new_call(endpoint, *self._message(endpoint, values, options), options)

    async def _exchanged(self, call: Call) -> Answer:
        if self.events.spans_heard:
            return await self._told(call, lambda: self._conduct(call, None))
        return await self._conduct(call, None)

    async def _decoded(self, call: Call, bearer: str | None) -> Any:
        return self.decode(call.endpoint, await self._conduct(call, bearer))

    async def _told(self, call: Call, work: Callable[[], Awaitable[T]]) -> T:
        """Await a call, and tell where it begins and ends."""
        operation, error, status = call.endpoint.operation, None, None
        try:
            self.events.emit_span(
                CallStarted(
                    operation=operation,
                    call=call.number,
                    method=call.endpoint.method,
                    url=call.url if call.link is None else _origin(call.link),
                    signed=call.link is not None,
                )
            )
            result = await work()
            status = call.attempts[-1].status
        except BaseException as failure:
            error = type(failure).__name__
            status = failure.status if isinstance(failure, APIStatusError) else None
            raise
        finally:
            self.events.emit_span(
                CallEnded(
                    operation=operation,
                    call=call.number,
                    seconds=self._clock.monotonic() - call.started,
                    attempts=len(call.attempts),
                    status=status,
                    error=error,
                )
            )
        return result

    def _new_call(
        self,
        endpoint: Endpoint[Any],
        url: str,
        headers: Headers,
        body: bytes | StreamBody | None,
        options: CallOptions,
    ) -> Call:
        priority = options.priority if options.priority is not None else Priority.INTERACTIVE
        self._calls += 1
        return Call(
            self._calls,
            endpoint,
            url,
            headers,
            body,
            self.retry_policy(options),
            priority,
            self._clock.monotonic(),
            options.timeout if options.timeout is not None else self._timeout.total,
        )

    async def _conduct(self, call: Call, bearer: str | None) -> Answer:
        endpoint = call.endpoint

        def ended(*, closed: bool) -> NudgescribeError:
            return call.out_of_time(closed=closed, paused=self._throttle.paused)

        try:
            return await self._until(self._run(call, bearer), ended, call.total, counts=not call.renews)
        except NudgescribeError as error:
            if error.may_have_taken_effect:
                self._warn(endpoint, call.number, error, call.phase)
            raise
        except asyncio.CancelledError as error:
            if call.may_have_taken_effect:
                self._warn(endpoint, call.number, error, call.phase)
                error.add_note(
                    f"{endpoint.operation} was cancelled while {call.phase}. It may have taken effect: look with "
                    f"{endpoint.look} before you send it again."
                )
            raise

    def _warn(self, endpoint: Endpoint[Any], call: int, error: BaseException, phase: str) -> None:
        if endpoint.bearer is Bearer.ACCESS:  # else it is about tokens, which are had anew
            name = type(error).__name__
            self.events.emit(
                EffectUnknown(operation=endpoint.operation, call=call, error=name, phase=phase, look=endpoint.look)
            )

    async def shared(self, work: Coroutine[Any, Any, T], operation: str) -> T:
        """Await what several callers share, as a call of one of them: closing gives it time, then ends it."""
        return await self._as_one(work, operation, "the call waited for a token")

    async def together(self, work: Coroutine[Any, Any, T], operation: str) -> T:
        """Await several calls that must not be torn apart: closing gives all of them time, then ends them.

        Those after the first may say ``closing=True``.
        """
        return await self._as_one(work, operation, "it was under way")

    async def _as_one(self, work: Coroutine[Any, Any, T], operation: str, doing: str) -> T:
        try:
            self.admit(operation)
        except BaseException:
            work.close()
            raise

        def ended(*, closed: bool) -> NudgescribeError:
            return ClientClosedError(f"The client was closed while {doing}.", operation=operation)

        return await self._until(work, ended, None)

    async def _until(
        self,
        work: Coroutine[Any, Any, T],
        out_of_time: Callable[..., NudgescribeError],
        seconds: float | None,
        *,
        counts: bool = True,
    ) -> T:
        """Await a call until its time is up, or until closing ends it.

        Args:
            work: the call.
            out_of_time: makes the error of a call that did not end by itself.
            seconds: how long it may take.
            counts: whether closing waits for it.
        """
        scope = asyncio.timeout(None)  # its clock is that of the event loop; ours decides when it is due
        timer = None
        try:
            async with scope:
                if counts:
                    self._active.add(scope)
                if seconds is not None:
                    timer = self._clock.call_later(seconds, lambda: _expire(scope))
                return await work
        except TimeoutError:
            if not scope.expired():
                raise
            raise out_of_time(closed=self._cut) from None
        finally:
            if timer is not None:
                timer.cancel()
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
            result = self._reader.decode(endpoint, answer)
        except NudgescribeError as error:
            if error.may_have_taken_effect:
                self._warn(endpoint, answer.call, error, "reading the answer")
            raise
        if self._profile_decryptor is not None:
            attach(self._profile_decryptor, result)
        return result

    def first_page(self, endpoint: Endpoint[Any]) -> int:
        """The number of the first page of an operation that has pages: the client's, or else the contract's."""
        stated = endpoint.first_page if endpoint.first_page is not None else 1
        return stated if self._first_page is None else self._first_page

    @property
    def reads_profiles(self) -> bool:
        """Whether the customers of an answer can be read in the clear."""
        return self._profile_decryptor is not None

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
            self._to_tell.clear()
        self._closed = True
        for tell in tuple(self._to_tell):
            tell()

    def when_closing(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Have ``tell`` called once calls are refused; what comes back ends that. For what waits between its calls."""
        self._to_tell.append(tell)

        def forget() -> None:
            if tell in self._to_tell:
                self._to_tell.remove(tell)

        return forget

    async def aclose(self, hurry: asyncio.Event) -> None:
        """Wait for the calls under way until ``hurry``; then end the rest.

        Does not let itself be cancelled before no call is left: cancelling is another way of saying ``hurry``.
        """
        cancelled: asyncio.CancelledError | None = None
        while self._active:
            self._idle.clear()
            if hurry.is_set():
                self._cut = True
                for scope in tuple(self._active):
                    _expire(scope)
            try:
                await _first(self._idle, *(() if hurry.is_set() else (hurry,)))
            except asyncio.CancelledError as error:
                cancelled = error
                hurry.set()
        self._throttle.close()
        self._budget.close()
        self._token = None
        self._authorized.clear()
        if cancelled is not None:
            raise cancelled

    # --- one call ----------------------------------------------------------------------------------

    def _message(
        self, endpoint: Endpoint[Any], values: Mapping[str, object], options: CallOptions
    ) -> tuple[str, Headers, bytes | StreamBody | None]:
        """Where a call goes, its headers but for the token, and its body."""
        arguments = checked(endpoint, values, first_page=self._first_page)
        form = self._forms.get(endpoint.operation)
        if form is None or form.endpoint is not endpoint:
            form = self._forms[endpoint.operation] = self._form(endpoint)
        headers = form.headers
        for name, value in Headers(options.headers).pairs() if options.headers else ():
            headers = headers.with_header(name, value)
        for argument in form.in_headers:
            if argument.header is not None and argument.name in arguments:
                headers = headers.with_header(argument.header, Secret(arguments.pop(argument.name)))
        body: bytes | StreamBody | None = None
        if form.file is not None and form.file in arguments:
            source = cast("FileSource", arguments.pop(form.file))
            content_type, body = multipart_body(
                arguments, name=form.file, filename="customers.csv", content_type="text/csv", file=file_body(source)
            )
            headers = headers.with_header("Content-Type", content_type)
        elif endpoint.arguments:
            body = dumps(arguments)
        return form.url, headers, body

    def _form(self, endpoint: Endpoint[Any]) -> _Form:
        headers: dict[str, str] = {
            "Accept": "text/csv" if endpoint.answer is str else "application/json",
            "User-Agent": USER_AGENT,
        }
        if endpoint.answer is str:
            headers["Accept-Encoding"] = "identity"  # see message_file.end_is_known
        if endpoint.context_headers:
            headers |= self._context_headers
        if endpoint.arguments:
            headers["Content-Type"] = "application/json"
        return _Form(
            endpoint=endpoint,
            url=self.base_url + endpoint.path,
            headers=Headers(headers),
            in_headers=tuple(item for item in endpoint.arguments if item.header is not None),
            file=next((item.name for item in endpoint.arguments if item.kind is Kind.FILE), None),
        )

    async def _run(self, call: Call, bearer: str | None) -> Answer:
        call.token = bearer
        replaced = call.once.replaced if call.once is not None else None
        while True:
            if call.endpoint.bearer is Bearer.ACCESS:
                call.phase = "waiting for a token"
                try:
                    call.token = await self.tokens.token()
                except _NO_TOKEN as error:
                    await self._wait_without_token(call, error)
                    continue
            outcome = await self._attempt(call, replaced)
            status = outcome.status if isinstance(outcome, Answer | APIStatusError) else None
            # The service in trouble says nothing of the token.
            if replaced is not None and call.token is not None and status is not None and not in_trouble(status):
                self.tokens.settle(call.token, replaced, call.endpoint.operation, helped=status != replaced)
            if isinstance(outcome, Answer):
                return outcome
            try:
                renewed = replaced is None and await self._renewed(call, status)
            except _NO_TOKEN as error:
                await self._wait_without_token(call, error)
                continue
            try:
                if not renewed:
                    await self._wait_or_raise(call, outcome)
                elif call.replayable:
                    replaced = status
                else:
                    why = "there is a new token, but the body cannot be sent a second time"
                    raise call.final(outcome, not_repeated=why)
            finally:
                del outcome  # an error holds the frames that it came through, and would hold itself

    async def _renewed(self, call: Call, status: int | None) -> bool:
        """Whether there is another token for the call, which was answered with this status."""
        if call.token is None or status not in (401, 403) or call.renews:
            return False
        call.phase = "waiting for another token"
        return await self.tokens.replace(call.token, status, call.endpoint.operation) is not Replacement.KEPT

    async def _wait_without_token(self, call: Call, error: NudgescribeError) -> None:
        """What follows where no token could be had: the login has been repeated already, so only bulk waits longer.

        Whatever became of the login's request, the call itself was not sent.
        """
        refused = isinstance(error, AuthenticationError) or (
            isinstance(error, APIStatusError) and not in_trouble(error.status)
        )
        patient = call.priority is Priority.BULK and call.replayable and not refused
        why = in_brief(error).partition(". ")[0].rstrip(".")  # the rest is about the login's own request
        unsent = RequestNotSentError(
            f"No other token could be had, so the refused call was not sent again: {why}."
            if call.attempts and call.attempts[-1].status in (401, 403)
            else f"No token could be had, so nothing was sent: {why}."
        )
        try:
            if not patient:
                if isinstance(error, APIStatusError | AuthenticationError) and not call.may_have_taken_effect:
                    raise error
                raise call.final(unsent) from error
            call.without_token += 1
            try:
                await self._wait_or_raise(call, unsent)
            except NudgescribeError as failure:
                raise failure from error
        finally:
            del error, unsent  # see _run

    async def _wait_or_raise(self, call: Call, failure: NudgescribeError) -> None:
        deadline = call.deadline
        waits_its_turn = call.priority is Priority.BULK and self._budget.refills
        operation, number = call.endpoint.operation, len(call.attempts) + call.without_token
        decision = decide(
            call.endpoint.retry,
            failure,
            attempts=number,
            policy=call.policy,
            time_left=deadline - self._clock.monotonic() if deadline is not None else None,
            replayable=call.replayable,
            budget=math.inf if waits_its_turn else self._budget.left,
        )
        if not isinstance(decision, Retry):
            try:
                if decision.final:
                    raise call.final(failure)
                given_up = CallGivenUp(operation=operation, call=call.number, attempts=number, reason=decision.why)
                self.events.emit(given_up)
                raise call.final(failure, not_repeated=decision.why)
            finally:
                del failure  # see _run
        call.repeated = call.repeated or decision.costs
        if decision.costs and not waits_its_turn:
            self._budget.take()
        self.events.emit(
            RequestRetrying(
                operation=operation,
                call=call.number,
                attempt=number,
                after=decision.after,
                reason=decision.reason,
                asked=isinstance(failure, APIStatusError) and refused_before_work(failure),
            )
        )
        call.phase = f"waiting for its next attempt, since {decision.reason[:1].lower()}{decision.reason[1:]}"
        try:
            await self._clock.sleep(decision.after)
        except asyncio.CancelledError:
            if decision.costs and not waits_its_turn:
                self._budget.give_back()
            raise
        if decision.costs and waits_its_turn:
            call.phase = "waiting for the client's budget of retries"
            await self._budget.turn()

    async def _attempt(self, call: Call, replaced: int | None) -> Answer | NudgescribeError:
        """One request: its answer, or what went wrong."""
        call.phase = "waiting for a free slot"
        if call.renews:
            call.era = await self._throttle.gate()
            return await self._send(call)
        call.era = await self._throttle.acquire(call.priority)
        try:
            if call.token is not None:
                call.token = self.tokens.newest(call.token)  # waiting for the slot may have taken long
            if call.once is not None:
                call.once.check(replaced)
            return await self._send(call)
        finally:
            self._throttle.release()

    async def _send(self, call: Call) -> Answer | NudgescribeError:
        headers = call.headers
        for name, value in call.sink.headers().items() if call.sink is not None else ():
            headers = headers.with_header(name, value)
        if call.token is not None:
            headers = self._with_token(call.endpoint, headers, call.token)
        if self._more_headers and call.link is None:
            headers = self._with_more(call.number, headers)
        request = Request(
            method=call.endpoint.method,
            url=call.url,
            headers=headers,
            body=call.body,
            connect_timeout=self._timeout.connect,
            read_timeout=self._timeout.read,
        )
        operation, number = call.endpoint.operation, len(call.attempts) + 1
        started = self._clock.monotonic()
        if self.events.heard(RequestStarted):
            self.events.emit(RequestStarted(operation=operation, call=call.number, attempt=number))
        call.under_way = True
        call.phase = "waiting for the answer"
        outcome: Answer | NudgescribeError
        try:
            outcome = await self._answer(call, await self._transport.send(request))
        except BaseException as error:
            if call.link is not None:
                _forget_frames(error)
            if isinstance(error, ClientClosedError | ConfigurationError):
                call.under_way = False
                self._finished(call, number, started, error)
                raise call.final(error) from error.__cause__
            if not isinstance(error, TransportError | ResponseDecodeError):
                call.attempts.append(self._finished(call, number, started, error))
                raise
            outcome = error
        call.ended(outcome)
        call.attempts.append(self._finished(call, number, started, outcome))
        if isinstance(outcome, Answer):
            if call.link is None:
                self._throttle.succeeded(call.era)
            self._budget.succeeded(repeated=call.repeated)
            outcome.attempts, outcome.unsettled = tuple(call.attempts), call.may_have_taken_effect
        try:
            return outcome
        finally:
            del outcome  # see _run

    def _with_token(self, endpoint: Endpoint[Any], headers: Headers, token: str) -> Headers:
        """The headers with a token; those that all requests of an operation have are made once for each access token."""
        form = self._forms.get(endpoint.operation)
        if form is None or form.headers is not headers or endpoint.bearer is not Bearer.ACCESS:
            return headers.with_header("Authorization", Secret(f"Bearer {token}"))
        if self._token != token:
            self._token = Secret(token)
            self._authorized.clear()
        authorized = self._authorized.get(endpoint.operation)
        if authorized is None:
            authorized = headers.with_header("Authorization", Secret(f"Bearer {token}"))
            self._authorized[endpoint.operation] = authorized
        return authorized

    def _with_more(self, call: int, headers: Headers) -> Headers:
        """The headers with those that somebody adds to every request."""
        for more in tuple(self._more_headers):
            try:
                added = CallOptions(headers=more(call)).headers  # checked as those of a user are
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it is no affair of the call
                _LOGGER.warning("No headers could be added to a request: %s.", type(error).__name__)
                continue
            for name, value in added.items():
                if name not in headers:
                    headers = headers.with_header(name, value)
        return headers

    def _finished(self, call: Call, number: int, started: float, outcome: Answer | BaseException) -> Attempt:
        """What there is to remember of an attempt; everybody is told."""
        status = outcome.status if isinstance(outcome, Answer | APIStatusError) else None
        attempt = Attempt(
            number=number,
            after=started - call.started,
            seconds=self._clock.monotonic() - started,
            status=status,
            error=None if status is not None else type(outcome).__name__,
            request_id=outcome.request_id if isinstance(outcome, Answer | NudgescribeError) else None,
        )
        if self.events.heard(RequestFinished):
            self.events.emit(
                RequestFinished(
                    operation=call.endpoint.operation,
                    call=call.number,
                    attempt=number,
                    seconds=attempt.seconds,
                    status=attempt.status,
                    error=attempt.error,
                    request_id=attempt.request_id,
                    headers=call.refusal_headers if isinstance(outcome, APIStatusError) else (),
                )
            )
        return attempt

    async def _answer(self, call: Call, response: Response) -> Answer | APIStatusError:
        async with response:
            if 200 <= response.status <= 299:
                call.phase = "reading the answer"
                return await self._reader.success(call, response)
            # The pause begins with the head of the refusal: its body may be slow.
            head = self._reader.refusal_of(call, response.status, response.headers, b"")
            pause = pause_after(head, attempts=len(call.attempts) + 1, policy=call.policy)
            if pause is not None and call.link is None:
                operation = call.endpoint.operation
                self._throttle.refused(pause, era=call.era, operation=operation, status=response.status)
            return await self._reader.refusal(call, response)

    def _all_secrets(self, token: str | None) -> tuple[str, ...]:
        """What is masked in texts of the service. A call's own token need not be the one at hand."""
        return (*self._secrets, *self.tokens.secrets(), *filter(None, (token,)))
