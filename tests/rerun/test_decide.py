"""What follows from what the service says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudgescribe_async import (
    Attempt,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    DeadlineExceededError,
    NudgescribeError,
    OutcomeUnknownError,
    RequestNotSentError,
    ResponseDecodeError,
)
from nudgescribe_async.endpoints.models import RerunRecord
from nudgescribe_async.errors import ServerOutcomeUnknownError, status_error
from nudgescribe_async.rerun.decide import (
    Absent,
    Found,
    SomebodyElses,
    Unclear,
    brief,
    concerns_all,
    is_refusal,
    judge,
    may_have_arrived,
    named,
    newest_run,
    stands,
    was_denied,
    whole,
)

MINE, OTHER = "g-mine", "g-other"


def record(number: int, group: str | None = OTHER) -> RerunRecord:
    return RerunRecord(run_number=number, customer_group_id=group)


def test_the_newest_run_is_the_highest_number_whatever_the_order() -> None:
    assert newest_run([record(2), record(7), record(3)]) == 7


def test_a_campaign_without_a_history_has_been_run_once() -> None:
    assert newest_run([]) == 1


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ([], Absent()),
        ([record(1, MINE)], Absent()),
        ([record(3, MINE), record(1), record(2, MINE)], Absent()),
        ([record(4, MINE), record(3)], Found(record(4, MINE), 0)),
        ([record(9, MINE)], Found(record(9, MINE), 0)),
        ([record(4, OTHER)], SomebodyElses(record(4, OTHER))),
        ([record(5, OTHER), record(4, "g-third")], SomebodyElses(record(4, "g-third"))),
        ([record(4, None)], Unclear(record(4, None))),
        ([record(4, OTHER), record(5, None)], Unclear(record(5, None))),
        # Whoever runs it afterwards, or before, takes nothing from the one that was wanted.
        ([record(5, OTHER), record(4, MINE)], Found(record(4, MINE), 1)),
        ([record(5, MINE), record(4, OTHER)], Found(record(5, MINE), 1)),
        ([record(5, MINE), record(4, None)], Found(record(5, MINE), 1)),
        # The one that was made first is that of the first request.
        ([record(6, MINE), record(5, MINE)], Found(record(5, MINE), 1)),
        # Some say ids of groups in other letters than they were told.
        ([record(4, MINE.upper())], Found(record(4, MINE.upper()), 0)),
        ([record(4, f" {MINE}\t")], Found(record(4, f" {MINE}\t"), 0)),
        ([record(4, "")], SomebodyElses(record(4, ""))),
    ],
)
def test_what_a_history_says_of_an_intention(runs: list[RerunRecord], verdict: object) -> None:
    assert judge(runs, newest_known=3, customer_group_id=MINE) == verdict


def test_the_wanted_group_may_be_in_other_letters_too() -> None:
    assert judge([record(4, MINE)], newest_known=3, customer_group_id=f"{MINE.upper()} ") == Found(record(4, MINE), 0)


GROUPS = st.sampled_from([MINE, OTHER, None])
HISTORIES = st.lists(st.tuples(st.integers(1, 12), GROUPS), max_size=8, unique_by=lambda run: run[0])


@given(HISTORIES, st.integers(1, 12), st.randoms())
def test_a_verdict_says_what_the_history_holds(
    history: list[tuple[int, str | None]], known: int, random: object
) -> None:
    runs = [record(number, group) for number, group in history]
    newer = {run.run_number: run.customer_group_id for run in runs if run.run_number > known}
    verdict = judge(runs, newest_known=known, customer_group_id=MINE)
    match verdict:
        case Found(found, others):
            assert newer[found.run_number] == MINE
            assert others == len(newer) - 1
        case Absent():
            assert not newer
        case Unclear(found):
            assert newer[found.run_number] is None
            assert MINE not in newer.values()
        case SomebodyElses(found):
            assert found.run_number == min(newer)
            assert set(newer.values()) == {OTHER}
    random.shuffle(runs)  # type: ignore[attr-defined]
    assert judge(runs, newest_known=known, customer_group_id=MINE) == verdict


@given(HISTORIES)
def test_nothing_is_newer_than_the_newest(history: list[tuple[int, str | None]]) -> None:
    runs = [record(number, group) for number, group in history]
    assert judge(runs, newest_known=newest_run(runs), customer_group_id=MINE) == Absent()


@pytest.mark.parametrize(
    ("status", "where"),
    [
        ("Ready for review", "in review"),
        (" READY FOR REVIEW ", "in review"),
        ("Ready to publish", "publishable"),
        ("ready to publish", "publishable"),
        ("Published", "published"),
        ("PUBLISHED", "published"),
        ("Failed", "failed"),
        ("generation failed", "failed"),
        ("Error", "failed"),
        ("Aborted by the operator", "failed"),
        ("Cancelled", "failed"),
        ("Publishing", "working"),
        ("Unpublished", "working"),
        ("Ready", "working"),
        ("In progress", "working"),
        ("", "working"),
        (None, "working"),
    ],
)
def test_where_a_campaign_stands(status: str | None, where: str) -> None:
    assert stands(status) == where


def refused(status: int, retry_after: float | None = None) -> NudgescribeError:
    return status_error(status)("no", status=status, retry_after=retry_after)


def unsure(error: NudgescribeError) -> NudgescribeError:
    error.may_have_taken_effect = True
    return error


@pytest.mark.parametrize("status", [200, 304, 400, 401, 402, 403, 404, 405, 409, 410, 413, 418, 422])
def test_a_no_is_a_refusal(status: int) -> None:
    assert is_refusal(refused(status))


@pytest.mark.parametrize(
    "error",
    [
        *map(refused, (408, 429, 500, 501, 502, 503, 504, 599)),
        refused(429, 3.0),
        refused(503, 3.0),
        ServerOutcomeUnknownError("no", status=500),
        OutcomeUnknownError("gone"),
        RequestNotSentError("gone"),
        ResponseDecodeError("odd"),
        DeadlineExceededError("late", may_have_taken_effect=True),
        AuthenticationError("no", status=403),
        ClientClosedError("closed"),
    ],
)
def test_trouble_is_no_refusal(error: NudgescribeError) -> None:
    assert not is_refusal(error)


@pytest.mark.parametrize(
    ("error", "all_of_them"),
    [
        (AuthenticationError("no", status=403), True),
        (ClientClosedError("closed"), True),
        (ConfigurationError("wrong"), True),
        (refused(403), False),
        (refused(402), False),
        (OutcomeUnknownError("gone"), False),
        (RequestNotSentError("gone"), False),
    ],
)
def test_what_concerns_all_campaigns(error: NudgescribeError, all_of_them: bool) -> None:
    assert concerns_all(error) is all_of_them


@pytest.mark.parametrize(
    ("error", "arrived"),
    [
        *[(refused(status), True) for status in (500, 501, 502, 503, 504, 599)],
        (refused(503, 3.0), True),  # who says so may stand before the service, and may have passed it on
        (refused(429), False),
        (refused(429, 3.0), False),
        (RequestNotSentError("gone"), False),
        (AuthenticationError("no", status=403), False),
        (ConfigurationError("wrong"), False),
        (unsure(OutcomeUnknownError("gone")), True),
        (unsure(DeadlineExceededError("late", may_have_taken_effect=True)), True),
        (unsure(ClientClosedError("closed")), True),
        (DeadlineExceededError("late", may_have_taken_effect=False), False),
    ],
)
def test_what_may_have_had_an_effect(error: NudgescribeError, arrived: bool) -> None:
    assert may_have_arrived(error) is arrived


ANSWERED = [Attempt(number=1, after=0.0, seconds=0.1, status=401)]
BROKEN = [Attempt(number=1, after=0.0, seconds=0.1, error="RequestNotSentError")]


@pytest.mark.parametrize(
    ("error", "denied"),
    [
        (RequestNotSentError("no token", attempts=ANSWERED), True),
        (DeadlineExceededError("late", may_have_taken_effect=False, attempts=ANSWERED), True),
        (ClientClosedError("closed", attempts=ANSWERED), True),
        (AuthenticationError("no", status=403, attempts=BROKEN), True),
        (AuthenticationError("no"), True),
        (RequestNotSentError("gone", attempts=BROKEN), False),
        (RequestNotSentError("no token"), False),
        (DeadlineExceededError("late", may_have_taken_effect=False), False),
        (status_error(429)("too many", status=429, attempts=ANSWERED), False),
    ],
)
def test_what_was_refused_before_no_other_token_could_be_had(error: NudgescribeError, denied: bool) -> None:
    assert was_denied(error) is denied


@pytest.mark.parametrize(
    ("status", "kept"),
    [
        (None, None),
        ("Ready for review", "Ready for review"),
        ("PUBLISHED", "PUBLISHED"),
        ("Generating", "Generating"),
        ("Waiting for approval", "Waiting for approval"),
        ("re-run_pending", "re-run_pending"),
        ("", "in another state"),
        ("Held for Jane Doe", "in another state"),
        ("Failed: jane@example.org", "in another state"),
        ("Policy 12345", "in another state"),
        ("a" * 31, "in another state"),
        ("two\nlines", "in another state"),
        ("Generating\n", "in another state"),
    ],
)
def test_what_the_journal_keeps_of_a_state(status: str | None, kept: str | None) -> None:
    assert named(status) == kept


@pytest.mark.parametrize(
    ("number", "kept"),
    [(None, None), (0, 0), (7, 7), (2**63 - 1, 2**63 - 1), (2**63, None), (10**40, None), (-1, None)],
)
def test_a_count_that_a_database_can_hold(number: int | None, kept: int | None) -> None:
    assert whole(number) == kept


def test_what_the_journal_keeps_of_an_error_has_no_words_of_the_service() -> None:
    said = status_error(400)("Jane Doe has no address", status=400, said="Jane Doe has no address")
    assert "Jane" not in brief(said)
    assert "400" in brief(said)
    assert brief(ResponseDecodeError("an HTML page: Dear Jane Doe")) == "The answer could not be read."
    assert brief(OutcomeUnknownError("The connection broke.")) == "The connection broke."
