"""Whether to send again: a pure decision over what is known.

=====================  =====================  ===========================
failure                safe, idempotent       unsafe
=====================  =====================  ===========================
not sent               again                  again
outcome unknown        again                  stop
429                    again                  again
503 with Retry-After   again                  again
408 500 502 503 504    again                  stop
unreadable success     again                  stop
any other answer       stop                   stop
=====================  =====================  ===========================

Unreadable is what is no answer of the service at all (HTML, nothing, half of it, garbled). A success that
can be read and does not fit the contract is final: the same question would have the same answer.

Then come the body (can it be sent a second time?), the number of attempts, the time left, and the
client's budget of retries; whatever says no is told in the error (``not_repeated``).

The wait is drawn by ``backoff``'s generators (exponential, full jitter); nothing else of that
library is used, since its decorators know neither effects nor deadlines.
"""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeAlias

import backoff
from attrs import frozen

from nudgescribe_async.endpoint import RetryClass
from nudgescribe_async.errors import (
    APIStatusError,
    NudgescribeError,
    RequestNotSentError,
    ResponseDecodeError,
    TransportError,
)

if TYPE_CHECKING:
    from nudgescribe_async.options import RetryPolicy

__all__ = [
    "Decision",
    "Retry",
    "Stop",
    "decide",
    "failed_at_work",
    "http_date",
    "in_brief",
    "in_trouble",
    "pause_after",
    "refused_before_work",
    "retry_after_seconds",
]

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_BELIEVED = 120.0


@frozen
class Retry:
    """Send again after so many seconds."""

    after: float
    reason: str
    costs: bool
    """Whether it takes one from the client's budget of retries: all do but those after a 429."""


@frozen
class Stop:
    """Do not send again."""

    why: str
    final: bool = False
    """Whether the failure as such rules it out, whatever the attempts, the time and the budget."""


Decision: TypeAlias = Retry | Stop


def decide(
    retry_class: RetryClass,
    failure: NudgescribeError,
    *,
    attempts: int,
    policy: RetryPolicy,
    time_left: float | None = None,
    replayable: bool = True,
    budget: float = math.inf,
) -> Decision:
    """What to do after a failure.

    Args:
        retry_class: what the contract says of the operation.
        failure: what went wrong this time.
        attempts: how many requests were made, this one included.
        policy: how often and how long.
        time_left: seconds until the deadline of the call; ``None`` if there is none.
        replayable: whether the body can be sent again.
        budget: how many retries the client has left; without end for a call that waits for its turn.
    """
    if not _may_repeat(retry_class, failure):
        lost = isinstance(failure, TransportError)
        return Stop("it may have taken effect" if lost else "the answer is final", final=True)
    if not replayable:
        return Stop("the body cannot be sent a second time")
    if attempts >= policy.attempts:
        return Stop(f"that was attempt {attempts} of {policy.attempts} (RetryPolicy)")
    wanted = failure.retry_after if isinstance(failure, APIStatusError) else None
    if wanted is not None and wanted > policy.longest_retry_after:
        return Stop(
            f"the service asks to wait {wanted:,.0f} s, longer than the {policy.longest_retry_after:g} s allowed"
        )
    after = _drawn(attempts, policy)
    if wanted is not None:
        after = max(after, _spread(wanted))  # 0 is no time to recover in
    if time_left is not None and after >= time_left:
        return Stop(f"the next attempt would be in {after:.1f} s, after the deadline")
    costs = not (isinstance(failure, APIStatusError) and failure.status == 429)
    if costs and budget < 1:
        return Stop("the client's budget of retries is used up")
    return Retry(after, in_brief(failure), costs)


def pause_after(failure: NudgescribeError, *, attempts: int, policy: RetryPolicy) -> float | None:
    """How long no call of the client should be sent after a failure, in seconds; ``None`` if they may go on.

    What the service asks for, if it is no longer than the policy allows; where that is nothing, or next to
    it, what the refused call itself would wait.
    """
    if not isinstance(failure, APIStatusError) or not refused_before_work(failure):
        return None
    return max(_drawn(attempts, policy), min(failure.retry_after or 0.0, policy.longest_retry_after))


def in_brief(error: NudgescribeError) -> str:
    """What went wrong, without the words of the service, which may hold anything and are nothing for a log."""
    return f"{error.meaning} (HTTP {error.status})" if isinstance(error, APIStatusError) else error.message


def refused_before_work(error: APIStatusError) -> bool:
    """Whether the service says that it did not even begin."""
    return error.status == 429 or (error.status == 503 and error.retry_after is not None)


def in_trouble(status: int) -> bool:
    """Whether a status tells of the state of the service, and nothing of what was asked."""
    return status >= 500 or status in (408, 429)


def failed_at_work(error: APIStatusError) -> bool:
    """Whether the service says that it failed, and not that it did not even begin: its work may be done."""
    return in_trouble(error.status) and not refused_before_work(error)


def _may_repeat(retry_class: RetryClass, failure: NudgescribeError) -> bool:
    match failure:
        case RequestNotSentError():
            return True
        case TransportError():
            return retry_class is not RetryClass.UNSAFE
        case ResponseDecodeError(unreadable=True):
            return retry_class is not RetryClass.UNSAFE
        case APIStatusError(status=status):
            return refused_before_work(failure) or (retry_class is not RetryClass.UNSAFE and status in _TRANSIENT)
        case _:
            return False


def _spread(wanted: float) -> float:
    """Never earlier than asked for, and not all at the same moment."""
    return wanted + float(backoff.full_jitter(wanted / 10))


def _drawn(attempts: int, policy: RetryPolicy) -> float:
    waits = backoff.expo(factor=policy.base, max_value=policy.longest)
    next(waits)  # the generator starts with an empty turn
    wait = policy.longest
    for _ in range(min(attempts, 64)):
        wait = next(waits)
    return float(backoff.full_jitter(wait))


def retry_after_seconds(value: str | None, *, sent: float | None, now: float) -> float | None:
    """The seconds that a ``Retry-After`` header asks for: a number, or a date.

    Args:
        value: the header; ``None`` if there is none.
        sent: when the answer was sent by the server's own clock (its ``Date``), in seconds since 1970: with
            it, it does no harm if one of the clocks is off.
        now: seconds since 1970 by our clock, for an answer without ``Date``. Two minutes are the most that
            is believed then: more is more likely a clock that is off.

    Returns:
        Seconds, 0 or more; ``None`` if there is no header, or one that cannot be read or believed.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    moment = http_date(text)
    if moment is None:
        return None
    if sent is not None:
        return max(0.0, moment - sent)
    return moment - now if 0 <= moment - now <= _BELIEVED else None


def http_date(text: str) -> float | None:
    """Seconds since 1970 of a date in a header; ``None`` if it cannot be read. Without a zone it is UTC."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
