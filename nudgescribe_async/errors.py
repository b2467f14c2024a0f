"""Everything that this package raises on purpose.

::

    NudgescribeError
    ├── ConfigurationError              wrong or missing settings; nothing was sent
    ├── ClientClosedError               the client was closed before or during the call
    ├── TransportError
    │   ├── RequestNotSentError         the server cannot have seen the request
    │   └── OutcomeUnknownError         sent, no usable answer: it may have taken effect
    │       └── ServerOutcomeUnknownError   5xx after a call that must not happen twice
    ├── DeadlineExceededError           the time given to the call ran out
    ├── APIStatusError                  the service answered, and the answer is a refusal
    │   ├── BadRequestError 400         QuotaExceededError 402     ConflictError 409
    │   ├── MissingFieldsError 401      PermissionDeniedError 403  PayloadTooLargeError 413
    │   ├── NotFoundError 404           RateLimitedError 429       UnprocessableEntityError 422
    │   └── ServerError 5xx
    ├── AuthenticationError             no usable token could be had
    ├── ResponseDecodeError             the answer does not fit the contract
    ├── PageError                       one page of many could not be had
    │   └── PageDriftError              the set changed while its pages were read
    ├── DownloadError                   a message file did not come whole, or cannot be kept
    ├── ExportError                     an export cannot be written, or not be continued
    ├── UploadSourceError               what was to be uploaded is not fit to be sent; nothing was sent
    ├── ProfileError                    the profile of a customer cannot be read
    └── RerunError                      campaigns of a plan were not all run again, or the run of one failed
        ├── RerunPlanError              a file is no plan; nothing was sent
        └── JournalError                the journal of reruns cannot be used

Wrong *arguments* (an empty id, a page of the wrong type) are programming errors and raise the
built-in ``TypeError`` or ``ValueError`` before anything is sent.

Every error pickles and copies, names the operation and the request id in its text where they are
known, lists its attempts, and holds no secret: texts that come from the service are searched for
the client's keys and tokens before they are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nudgescribe_async.bulk.upload import UploadReport
    from nudgescribe_async.cursor import PageCursor
    from nudgescribe_async.rerun.report import RerunReport

__all__ = [
    "APIStatusError",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "DeadlineExceededError",
    "DownloadError",
    "ExportError",
    "JournalError",
    "MissingFieldsError",
    "NotFoundError",
    "NudgescribeError",
    "OutcomeUnknownError",
    "PageDriftError",
    "PageError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "ProfileError",
    "QuotaExceededError",
    "RateLimitedError",
    "RequestNotSentError",
    "RerunError",
    "RerunPlanError",
    "ResponseDecodeError",
    "ServerError",
    "ServerOutcomeUnknownError",
    "TransportError",
    "UnprocessableEntityError",
    "UploadSourceError",
    "status_error",
]


@frozen(kw_only=True)
class Attempt:
    """One request of a call, as far as it got.

    Attributes:
        number: counts from 1 within the call.
        after: seconds between the start of the call and the start of this attempt.
        seconds: how long the attempt took.
        status: the HTTP status of the answer, ``None`` if there was none.
        error: the name of the error that ended the attempt, ``None`` if there was an answer.
        request_id: what the service called the request, if it said.
    """

    number: int
    after: float
    seconds: float
    status: int | None = None
    error: str | None = None
    request_id: str | None = None


class NudgescribeError(Exception):
    """The base of all errors of this package.

    Attributes:
        message: what went wrong, without the context that ``str()`` adds.
        operation: the operation of the contract, such as ``"customers.list"``.
        request_id: the id that the service gave to the (last) request.
        attempts: every request that was made for the call, oldest first.
        not_repeated: why there was no further attempt, where the failure as such allowed one.
        may_have_taken_effect: whether the call may have changed something at the service all the same. Never
            true for a read.
        look: the read that tells whether it did, such as ``"customer_groups.list"``.
        advice: what to do next, as a sentence; empty where that depends on what you want.
    """

    may_have_taken_effect: bool = False
    look: str | None = None
    advice: str = ""

    def __init__(
        self,
        message: str,
        *,
        operation: str | None = None,
        request_id: str | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.request_id = request_id
        self.attempts = tuple(attempts)
        self.not_repeated: str | None = None

    def __str__(self) -> str:
        context: list[str] = []
        if self.operation is not None:
            context.append(f"operation {self.operation}")
        if self.request_id is not None:
            context.append(f"request id {self.request_id}")
        if len(self.attempts) > 1:
            context.append(f"{len(self.attempts)} attempts")
        if self.not_repeated is not None:
            context.append(f"not tried again: {self.not_repeated}")
        text = f"{self.message} {self.advice}".rstrip()
        return f"{text} ({', '.join(context)})" if context else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own __reduce__ would call the class with positional arguments only.
        return _restore, (type(self), self.args), self.__dict__


def _restore(cls: type[NudgescribeError], args: tuple[object, ...]) -> NudgescribeError:
    return cls.__new__(cls, *args)


class ConfigurationError(NudgescribeError):
    """Settings are wrong or missing. Nothing was sent."""


class ClientClosedError(NudgescribeError):
    """The client is closed, or was closed while the call was under way. Build a new one.

    Attributes:
        report: of an upload that was under way, what is known of it; ``None`` for anything else.
    """

    report: UploadReport | None = None


class TransportError(NudgescribeError):
    """There was no usable answer. One of the two subclasses says what the server may have seen."""


class RequestNotSentError(TransportError):
    """The server cannot have seen the request, so sending it again is always safe."""

    advice = "Nothing has happened: try again later."


class OutcomeUnknownError(TransportError):
    """The request was sent, at least in part, and nobody knows what became of it: it may have taken effect.

    Look before you send a writing call again: ``look`` names the read that tells.
    """


class DeadlineExceededError(NudgescribeError):
    """The time given to the call ran out.

    Attributes:
        phase: what the call was doing, such as ``"waiting for a free slot"``.
    """

    phase: str = ""

    def __init__(
        self,
        message: str,
        *,
        may_have_taken_effect: bool,
        operation: str | None = None,
        request_id: str | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message, operation=operation, request_id=request_id, attempts=attempts)
        self.may_have_taken_effect = may_have_taken_effect


class APIStatusError(NudgescribeError):
    """The service answered, and the answer is not a success.

    Attributes:
        status: the HTTP status. It is 200 where the service says ``"success": false`` in a 200.
        said: the service's own words, at most 500 characters, secrets masked; empty if it said nothing.
        code: the service's own code of the error, if it gave one.
        body: the start of the body as text, at most 2,000 characters, secrets masked.
        retry_after: seconds to wait, if the service said so.
    """

    meaning: ClassVar[str] = "The service refused the request"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        said: str = "",
        code: str | None = None,
        body: str = "",
        retry_after: float | None = None,
        operation: str | None = None,
        request_id: str | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message, operation=operation, request_id=request_id, attempts=attempts)
        self.status = status
        self.said = said
        self.code = code
        self.body = body
        self.retry_after = retry_after


class BadRequestError(APIStatusError):
    """400: an argument is wrong, or a prerequisite is not met."""

    meaning = "The service found the request wrong"
    advice = "Check the arguments, and what has to be done before this."


class QuotaExceededError(APIStatusError):
    """402: the account's quota is used up."""

    meaning = "The quota of the account is used up"
    advice = "Ask for a larger quota."


class MissingFieldsError(APIStatusError):
    """401 that survived a fresh token: a field is missing or names something that does not exist."""

    meaning = "The service misses a field, or does not know the workspace"
    advice = "Check the ids: they must belong to this account."


class PermissionDeniedError(APIStatusError):
    """403 that survived a fresh token: these credentials may not do this."""

    meaning = "These credentials may not do this"
    advice = "Ask for the role that this needs, or check the ids."


class NotFoundError(APIStatusError):
    """404: there is no such thing, or no such address; check the base URL."""

    meaning = "The service found nothing there"
    advice = "Check base_url, and whether the service's edition has this operation."


class ConflictError(APIStatusError):
    """409: the state of the thing does not allow this now."""

    meaning = "The state of the thing does not allow this"
    advice = "Read the state of the thing, then decide."


class PayloadTooLargeError(APIStatusError):
    """413: send less at once."""

    meaning = "The request is too large"
    advice = "Send less at once."


class UnprocessableEntityError(APIStatusError):
    """422: well formed, and still not acceptable."""

    meaning = "The service cannot work with the values given"
    advice = "Check the values."


class RateLimitedError(APIStatusError):
    """429: too many requests; ``retry_after`` says how long to wait, where the service does."""

    meaning = "Too many requests"
    advice = "Wait, and have fewer calls in flight (concurrency=)."


class ServerError(APIStatusError):
    """5xx: the service, or something in front of it, failed."""

    meaning = "The service failed"
    advice = "Try later."


class ServerOutcomeUnknownError(OutcomeUnknownError, ServerError):
    """5xx (or 408) in answer to a call that must not happen twice: it may have taken effect before the failure.

    Something in front of the service says 502 or 504 when the service took too long, and may have done its
    work all the same. So this is an ``OutcomeUnknownError`` as well as a ``ServerError``.
    """


_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: MissingFieldsError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: PayloadTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitedError,
}


def status_error(status: int) -> type[APIStatusError]:
    """The class for an HTTP status; ``APIStatusError`` itself for one that has none of its own."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ServerError if 500 <= status <= 599 else APIStatusError


class AuthenticationError(NudgescribeError):
    """No usable token could be had: the service refused the credentials, or gave nothing usable.

    Attributes:
        status: the HTTP status of the refusal, if there was one.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        operation: str | None = None,
        request_id: str | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message, operation=operation, request_id=request_id, attempts=attempts)
        self.status = status


class ResponseDecodeError(NudgescribeError):
    """The service answered with success, and the answer does not fit the contract.

    A writing call has probably taken effect all the same.

    Attributes:
        path: where in the JSON, such as ``$[3].created_at``.
        expected: what the contract says.
        received: what came instead: its kind and size, never its content.
        evidence: how well the contract knows this: ``seed``, ``reference``, ``observed`` or ``assumed``.
        unreadable: whether the answer is none of the service at all: HTML, empty, cut off, garbled. Asking again
            may help then, and was tried where that is safe.
    """

    unreadable: bool = False

    def __init__(
        self,
        message: str,
        *,
        path: str = "$",
        expected: str = "",
        received: str = "",
        evidence: str | None = None,
        operation: str | None = None,
        request_id: str | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message, operation=operation, request_id=request_id, attempts=attempts)
        self.path = path
        self.expected = expected
        self.received = received
        self.evidence = evidence


class PageError(NudgescribeError):
    """One page of many could not be had. ``__cause__`` says why.

    Attributes:
        page: the number of the page, as the service counts.
        cursor: where the iteration can go on, for ``resume_from=``. ``None`` if it cannot.
    """

    def __init__(
        self,
        message: str,
        *,
        page: int | None = None,
        cursor: PageCursor | None = None,
        operation: str | None = None,
        request_id: str | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message, operation=operation, request_id=request_id, attempts=attempts)
        self.page = page
        self.cursor = cursor


class PageDriftError(PageError):
    """The set changed while its pages were read, and ``consistency="strict"`` was asked for.

    Attributes:
        drift: what was noticed, as a sentence.
    """

    drift: str = ""


class DownloadError(NudgescribeError):
    """A message file did not come whole, or cannot be kept where it was to be; or there are none, or nobody said how many.

    Attributes:
        page: the number of the file, as the service counts; ``None`` if it is about all of them.
    """

    page: int | None = None


class ExportError(NudgescribeError):
    """An export cannot be written, or what an earlier one left cannot be continued. The text says which file."""


class UploadSourceError(NudgescribeError):
    """What was to be uploaded is not fit to be sent, or there is no such group. Nothing was sent.

    Attributes:
        row: the number of the row; 1 is the first below the header. ``None`` if it is about the whole.
        line: the line of the file at which the row begins, if it is a file.
        field: the profile field, if it is about one.
        report: with ``bad_rows="refuse"``, the report with all bad rows.
    """

    row: int | None = None
    line: int | None = None
    field: str | None = None
    report: UploadReport | None = None


class ProfileError(NudgescribeError):
    """The profile of a customer cannot be read: another key, a damaged envelope, an unknown scheme.

    Nothing of the profile is in it. ``__cause__`` is what a decryptor of your own raised.

    Attributes:
        customer_id: the customer; ``None`` if whoever raised it did not say.
    """

    customer_id: str | None = None


class RerunError(NudgescribeError):
    """Campaigns of a plan were not all run again, or the run of one failed at the service.

    Attributes:
        report: of all campaigns, as far as there is one.
    """

    report: RerunReport | None = None


class RerunPlanError(RerunError):
    """A file is no plan. Nothing was sent.

    Attributes:
        line: the line that is wrong; 1 is the first. ``None`` if it is about the whole file.
    """

    line: int | None = None


class JournalError(RerunError):
    """The journal of reruns cannot be used: it is held by somebody else, belongs to another plan, or cannot be read or written.

    No request is sent without an entry in the journal. What was sent before it failed is in ``report``, if anything was; the
    same call again, with a journal that can be used, finds out about the rest.

    Attributes:
        path: the journal.
        holder: who holds it: process, machine and time; empty if nobody does.
    """

    path: str = ""
    holder: str = ""
