"""Whether to send again: a pure decision over what is known.

=====================  =====================  ===========================
failure                safe, idempotent       unsafe
=====================  =====================  ===========================
not sent               again                  again
outcome unknown        again                  stop
429                    again                  again
503 with Retry-After   again                  again
408 500 502 503 504    again                  stop
any other answer       stop                   stop
=====================  =====================  ===========================

The wait is drawn by ``backoff``'s generators (exponential, full jitter); nothing else of that
library is used, since its decorators know neither effects nor deadlines.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeAlias

import backoff
from attrs import frozen

from nudgescribe_async.endpoint import RetryClass
from nudgescribe_async.errors import APIStatusError, NudgescribeError, RequestNotSentError, TransportError

if TYPE_CHECKING:
    from nudgescribe_async.options import RetryPolicy

__all__ = [
    "Decision",
    "Retry",
    "Stop",
    "decide",
    "http_date",
    "in_brief",
    "refused_before_work",
    "retry_after_seconds",
]

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


@frozen
class Retry:
    """Send again after so many seconds."""

    after: float
    reason: str


@frozen
class Stop:
    """Do not send again."""

    why: str


Decision: TypeAlias = Retry | Stop


def decide(
    retry_class: RetryClass,
    failure: NudgescribeError,
    *,
    attempts: int,
    policy: RetryPolicy,
    time_left: float | None = None,
    replayable: bool = True,
) -> Decision:
    """What to do after a failure.

    Args:
        retry_class: what the contract says of the operation.
        failure: what went wrong this time.
        attempts: how many requests were made, this one included.
        policy: how often and how long.
        time_left: seconds until the deadline of the call; ``None`` if there is none.
        replayable: whether the body can be sent again.
    """
    if not _may_repeat(retry_class, failure):
        return Stop("it may have taken effect" if isinstance(failure, TransportError) else "the answer is final")
    if not replayable:
        return Stop("the body cannot be sent again")
    if attempts >= policy.attempts:
        return Stop(f"{attempts} attempts were made")
    wanted = failure.retry_after if isinstance(failure, APIStatusError) else None
    if wanted is not None and wanted > policy.longest_retry_after:
        return Stop(f"the service asks to wait {wanted:.0f} s")
    after = _wait(attempts, policy) if wanted is None else wanted
    if time_left is not None and after >= time_left:
        return Stop("the time left is shorter than the wait")
    return Retry(after, in_brief(failure))


def in_brief(error: NudgescribeError) -> str:
    """What went wrong, without the words of the service, which may hold anything and are nothing for a log."""
    return f"{error.meaning} (HTTP {error.status})" if isinstance(error, APIStatusError) else error.message


def refused_before_work(error: APIStatusError) -> bool:
    """Whether the service says that it did not even begin."""
    return error.status == 429 or (error.status == 503 and error.retry_after is not None)


def _may_repeat(retry_class: RetryClass, failure: NudgescribeError) -> bool:
    match failure:
        case RequestNotSentError():
            return True
        case TransportError():
            return retry_class is not RetryClass.UNSAFE
        case APIStatusError(status=status):
            return refused_before_work(failure) or (retry_class is not RetryClass.UNSAFE and status in _TRANSIENT)
        case _:
            return False


def _wait(attempts: int, policy: RetryPolicy) -> float:
    waits = backoff.expo(factor=policy.base, max_value=policy.longest)
    next(waits)  # the generator starts with an empty turn
    wait = policy.longest
    for _ in range(min(attempts, 64)):
        wait = next(waits)
    return float(backoff.full_jitter(wait))


def retry_after_seconds(value: str | None, *, now: float) -> float | None:
    """The seconds that a ``Retry-After`` header asks for: a number, or a date.

    Args:
        value: the header; ``None`` if there is none.
        now: seconds since 1970, to count from if it is a date; best taken from the same answer's
            ``Date``, so that a clock that is off does no harm.

    Returns:
        Seconds, 0 or more; ``None`` if there is no header, or one that cannot be read.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    moment = http_date(text)
    return None if moment is None else max(0.0, moment - now)


def http_date(text: str) -> float | None:
    """Seconds since 1970 of a date in a header; ``None`` if it cannot be read. Without a zone it is UTC."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
