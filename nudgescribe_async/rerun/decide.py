"""What follows from what the service says: pure functions.

*Verify, then decide.* Nobody can ask the service to run a campaign "once": a request has no key by which it would be
known again. What tells whether it took effect is the history of the campaign. An intention is written down with
the newest run that the history knew; a run with a higher number and the wanted group is then the one that was
intended, and one with a higher number and another group is somebody else's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from attrs import frozen

from nudgescribe_async.errors import (
    APIStatusError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    ResponseDecodeError,
)
from nudgescribe_async.retry import in_brief, in_trouble, refused_before_work

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nudgescribe_async.endpoints.models import RerunRecord
    from nudgescribe_async.errors import NudgescribeError

__all__ = [
    "SETTLED",
    "Absent",
    "Found",
    "SomebodyElses",
    "Unclear",
    "Verdict",
    "brief",
    "cause",
    "concerns_all",
    "folded",
    "is_refusal",
    "judge",
    "may_have_arrived",
    "named",
    "newest_run",
    "stands",
    "was_denied",
    "whole",
]

SETTLED: Final = frozenset({"in review", "publishable", "published"})
"""How a campaign stands, in the words of ``stands``, with which the service has done: the states that the reference names."""
FIRST_RUN = 1
"""What is published has been run once (contract: a campaign that was never rerun has one run, with number 1)."""

MOST = 2**63
_WORDS = re.compile(r"(?=.{1,30}$)[A-Za-z_-]+(?: [A-Za-z_-]+){0,2}")
_FAILED = re.compile(r"fail|error|abort|cancel", re.IGNORECASE)


@frozen
class Absent:
    """There is no newer run."""


@frozen
class Found:
    """There is a newer run, for the wanted group. ``others``: how many newer ones there are besides."""

    record: RerunRecord
    others: int


@frozen
class SomebodyElses:
    """There is a newer run, and it is for another group."""

    record: RerunRecord


@frozen
class Unclear:
    """There is a newer run, and the service does not say for which group."""

    record: RerunRecord


Verdict: TypeAlias = Absent | Found | SomebodyElses | Unclear


def newest_run(history: Iterable[RerunRecord]) -> int:
    """The highest number of a run."""
    return max((record.run_number for record in history), default=FIRST_RUN)


def judge(history: Sequence[RerunRecord], *, newest_known: int, customer_group_id: str) -> Verdict:
    """Whether a campaign has been run for a group since a time.

    Args:
        history: all runs of the campaign, in any order.
        newest_known: the newest run of that time.
        customer_group_id: the group; the case of its letters does not matter.
    """
    newer = sorted((record for record in history if record.run_number > newest_known), key=lambda it: it.run_number)
    if not newer:
        return Absent()
    wanted = folded(customer_group_id)
    for record in newer:
        if record.customer_group_id is not None and folded(record.customer_group_id) == wanted:
            return Found(record, len(newer) - 1)
    for record in newer:
        if record.customer_group_id is None:
            return Unclear(record)
    return SomebodyElses(newer[0])


def folded(customer_group_id: str) -> str:
    """By which a group is known: the case of its letters does not matter."""
    return customer_group_id.strip().casefold()


def stands(campaign_status: str | None) -> Literal["working", "in review", "publishable", "published", "failed"]:
    """Where a campaign stands. An unknown state is one in which the service is at work, unless it speaks of a failure."""
    match (campaign_status or "").strip().casefold():
        case "ready for review":
            return "in review"
        case "ready to publish":
            return "publishable"
        case "published":
            return "published"
        case other:
            return "failed" if _FAILED.search(other) else "working"


def is_refusal(error: NudgescribeError) -> bool:
    """Whether the service has looked at a request and said no. "Too many" and "not now" are no such refusals."""
    return isinstance(error, APIStatusError) and not in_trouble(error.status) and not refused_before_work(error)


def may_have_arrived(error: NudgescribeError) -> bool:
    """Whether a request may have had an effect. A 5xx is not believed that says when to come back: somebody says so who
    stands before the service, and may have passed the request on.
    """
    return error.may_have_taken_effect or (isinstance(error, APIStatusError) and error.status >= 500)


def was_denied(error: NudgescribeError) -> bool:
    """Whether a request that was let go was refused, and what ended the call came after that: no other token could be had.

    Such an error speaks of the login, or says that nothing was sent: this time.
    """
    if isinstance(error, APIStatusError):
        return False  # it is the answer
    # What refuses the login has the attempts of the login.
    return isinstance(error, AuthenticationError) or any(attempt.status is not None for attempt in error.attempts)


def brief(error: NudgescribeError) -> str:
    """What went wrong, without anything of the service's own, not the title of a page either: for the journal."""
    return "The answer could not be read." if isinstance(error, ResponseDecodeError) else in_brief(error)


def named(campaign_status: str | None) -> str | None:
    """Where a campaign stands, for the journal: the states that the reference names, and any others of up to three words.

    A service may put anything into an unknown state, a sentence about a customer for example.
    """
    if campaign_status is None or stands(campaign_status) in SETTLED:
        return None if campaign_status is None else str(campaign_status)
    return campaign_status if _WORDS.fullmatch(campaign_status) else "in another state"


def whole(number: int | None) -> int | None:
    """A count, if it can be one that a database can hold."""
    return number if number is not None and 0 <= number < MOST else None


def concerns_all(error: NudgescribeError) -> bool:
    """Whether no other call would fare better: there is no token to be had, or the client is closed."""
    return isinstance(error, AuthenticationError | ClientClosedError | ConfigurationError)


def cause(error: NudgescribeError) -> str:
    """Why everything stops, as the end of a sentence."""
    text = brief(error).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}"
