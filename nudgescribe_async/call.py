"""What is known of a call under way, and what its error says when it ends badly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field

from nudgescribe_async.endpoint import Bearer, Endpoint, RetryClass
from nudgescribe_async.errors import (
    APIStatusError,
    Attempt,
    ClientClosedError,
    ConfigurationError,
    DeadlineExceededError,
    NudgescribeError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestNotSentError,
    ResponseDecodeError,
    ServerOutcomeUnknownError,
)
from nudgescribe_async.retry import failed_at_work
from nudgescribe_async.shapes import hidden
from nudgescribe_async.transport import is_replayable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async.options import Priority, RetryPolicy
    from nudgescribe_async.transport import Headers, Response, StreamBody

__all__ = ["Call", "Once", "Sink", "tell"]


class Sink(Protocol):
    """Takes the body of a success while it arrives, instead of having it held in memory.

    One call makes one or more attempts with the same sink, one after the other.
    """

    def headers(self) -> Mapping[str, str]:
        """What the next attempt asks for besides, such as the rest of what an earlier one broke off in."""
        ...

    async def receive(self, response: Response) -> None:
        """Take the body: from its start, or the rest that was asked for.

        Raises:
            OutcomeUnknownError: it broke off. As with any answer, the call is tried again.
            ResponseDecodeError: it is not what was asked for; it is tried again if that is ``unreadable``.
            OSError: it cannot be kept. The call ends with it.
        """
        ...


class Once(Protocol):
    """Has a say in a call that must not happen twice, when all is ready and its request would be sent next."""

    @property
    def replaced(self) -> int | None:
        """The status for which the token was replaced when this was called before; ``None`` if it was not."""
        ...

    def check(self, replaced: int | None) -> None:
        """Look whether to send it; what is raised ends the call, and nothing is sent.

        Args:
            replaced: the status for which the token was replaced.
        """
        ...


@define
class Call:
    """One call, from its first attempt to its last."""

    number: int
    endpoint: Endpoint[Any]
    url: str = field(repr=False)
    headers: Headers
    """Those of every attempt."""
    body: bytes | StreamBody | None = field(repr=False)
    policy: RetryPolicy
    priority: Priority
    started: float
    total: float | None
    """The seconds that all of it may take."""
    attempts: list[Attempt] = field(factory=list[Attempt])
    token: str | None = field(default=None, repr=hidden)
    link: str | None = field(default=None, repr=hidden)
    """The signed URL that it goes to, at another origin, instead of to the service: with no token, and nothing else
    that is the user's."""
    sink: Sink | None = None
    """What takes the body of its answer."""
    once: Once | None = None
    """What has a say before each request."""
    without_token: int = 0
    """How often it could not be sent, since there was no token."""
    repeated: bool = False
    """Whether it took a retry from the client's budget."""
    refusal_headers: tuple[tuple[str, str], ...] = ()
    """What may be told of the headers of the last refusal."""
    era: int = 0
    """What the throttle gave it with the slot."""
    phase: str = "beginning"
    under_way: bool = False
    """Whether a request is on its way."""
    unsettled: bool = False
    """Whether one was, and nobody knows what became of it."""

    @property
    def replayable(self) -> bool:
        """Whether it can be sent a second time with the same body."""
        return is_replayable(self.body)

    @property
    def renews(self) -> bool:
        """Whether it fetches tokens for the others: it needs no slot, and goes on while the client closes."""
        return self.endpoint.bearer is not Bearer.ACCESS and self.link is None

    @property
    def deadline(self) -> float | None:
        """The moment on the client's clock when time is up."""
        return None if self.total is None else self.started + self.total

    @property
    def may_have_taken_effect(self) -> bool:
        """Whether it may have changed something at the service."""
        return (self.under_way or self.unsettled) and self.endpoint.retry is not RetryClass.SAFE

    def ended(self, outcome: object) -> None:
        """Take note of what an attempt led to. What a server says that failed in its work proves nothing."""
        self.under_way = False
        if isinstance(outcome, APIStatusError):
            self.unsettled = self.unsettled or failed_at_work(outcome) or _points_elsewhere(outcome)
        elif isinstance(outcome, OutcomeUnknownError | ResponseDecodeError):
            self.unsettled = True

    # --- what its error says -------------------------------------------------------------------------------

    def final(self, failure: NudgescribeError, *, not_repeated: str | None = None) -> NudgescribeError:
        """The error that the call ends with, made of what went wrong last."""
        unsafe = self.endpoint.retry is RetryClass.UNSAFE
        if isinstance(failure, RequestNotSentError) and self.may_have_taken_effect:
            # This time; an earlier one may have got through.
            failure = OutcomeUnknownError(
                f"An earlier attempt was sent, and its outcome is not known. {failure.message}"
            )
        elif unsafe and isinstance(failure, APIStatusError) and failed_at_work(failure):
            failure = _unknown(failure)
        elif self.may_have_taken_effect and isinstance(failure, ClientClosedError | ConfigurationError):
            failure.message += " An earlier attempt was sent."
        elif (
            self.may_have_taken_effect
            and isinstance(failure, APIStatusError)
            and len(self.attempts) > 1
            and not failed_at_work(failure)
        ):
            failure.message += " An earlier attempt was sent, and this may be its consequence."
        failure.not_repeated = not_repeated
        failure = self._told(failure)
        if not self.replayable and not_repeated is not None and not failure.may_have_taken_effect:
            failure.advice = "Open the file again, or pass its path or a function that gives its bytes; then try again."
        return failure

    def out_of_time(self, *, closed: bool, paused: bool) -> NudgescribeError:
        """The error of a call whose time ran out, or that was ended because the client closes."""
        if paused and self.phase == "waiting for a free slot":
            self.phase = "waiting for the end of a pause that the service asked for"
        if closed:
            failure: NudgescribeError = ClientClosedError(f"The client was closed while the call was {self.phase}.")
        else:
            failure = DeadlineExceededError(
                f"The call did not end within {self.total:g} s; it was {self.phase}.",
                may_have_taken_effect=self.may_have_taken_effect,
            )
            failure.phase = self.phase
        return self._told(failure)

    def _told(self, failure: NudgescribeError) -> NudgescribeError:
        """The failure with all that is known of the call."""
        failure.operation = self.endpoint.operation
        failure.attempts = tuple(self.attempts)
        tell(failure, self.endpoint, may_have_taken_effect=self.may_have_taken_effect)
        return failure


def _points_elsewhere(error: APIStatusError) -> bool:
    """Whether it may be the answer to work that was done: "created, see there", or a status that means nothing."""
    return error.status < 200 or error.status in (300, 301, 302, 303)


def tell(failure: NudgescribeError, endpoint: Endpoint[Any], *, may_have_taken_effect: bool) -> None:
    """Write on an error whether the call may have taken effect, and what to do about it."""
    failure.may_have_taken_effect = may_have_taken_effect
    if isinstance(failure, RateLimitedError) and failure.retry_after:
        failure.advice = f"Wait {failure.retry_after:,.0f} s, and have fewer calls in flight (concurrency=)."
    if may_have_taken_effect:
        failure.look = endpoint.look
        probably = "has probably" if isinstance(failure, ResponseDecodeError) else "may have"
        failure.advice = f"The call {probably} taken effect: look with {endpoint.look} before you send it again."
    elif endpoint.retry is RetryClass.SAFE:
        if isinstance(failure, OutcomeUnknownError | DeadlineExceededError):
            failure.advice = "It changes nothing, so trying again is safe."
    elif isinstance(failure, ClientClosedError | DeadlineExceededError):
        failure.advice = "It has not taken effect."


def _unknown(error: APIStatusError) -> ServerOutcomeUnknownError:
    return ServerOutcomeUnknownError(
        error.message,
        status=error.status,
        said=error.said,
        code=error.code,
        body=error.body,
        retry_after=error.retry_after,
        request_id=error.request_id,
    )
