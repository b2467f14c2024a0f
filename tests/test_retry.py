"""The decision to send again: the table of the module, its limits, and its waits."""

from __future__ import annotations

import math
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudgescribe_async import retry
from nudgescribe_async.endpoint import RetryClass
from nudgescribe_async.errors import (
    APIStatusError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    DeadlineExceededError,
    NudgescribeError,
    OutcomeUnknownError,
    PageError,
    RequestNotSentError,
    ResponseDecodeError,
    TransportError,
    status_error,
)
from nudgescribe_async.options import RetryPolicy
from nudgescribe_async.retry import Retry, Stop, decide, http_date, pause_after, retry_after_seconds

SAFE, IDEMPOTENT, UNSAFE = RetryClass.SAFE, RetryClass.IDEMPOTENT, RetryClass.UNSAFE
POLICY = RetryPolicy(attempts=4, base=0.5, longest=30.0, longest_retry_after=120.0)


@pytest.fixture
def middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)


def refusal(status: int, retry_after: float | None = None) -> APIStatusError:
    return status_error(status)("It said: hunter2", status=status, retry_after=retry_after)


def test_the_table_of_the_docstring_is_what_happens() -> None:
    table = (retry.__doc__ or "").split("=====\n")[2].split("\n=====")[0]
    rows = [re.split(r"\s{2,}", line) for line in table.splitlines()]
    assert len(rows) == 7
    unreadable = ResponseDecodeError("no")
    unreadable.unreadable = True
    failures: dict[str, list[NudgescribeError]] = {
        "not sent": [RequestNotSentError("no")],
        "outcome unknown": [OutcomeUnknownError("no"), TransportError("no")],
        "429": [refusal(429), refusal(429, 1.0)],
        "503 with Retry-After": [refusal(503, 1.0), refusal(503, 0.0)],
        "408 500 502 503 504": [refusal(status) for status in (408, 500, 502, 503, 504)],
        "unreadable success": [unreadable],
        "any other answer": [
            ResponseDecodeError("no"),
            *(
                refusal(status, after)
                for status in {*range(200, 600)} - {408, 429, 500, 502, 503, 504}
                for after in (None, 1.0)
            ),
        ],
    }
    assert {row[0] for row in rows} == set(failures)
    for name, repeatable, unsafe in rows:
        for failure in failures[name]:
            for kind, wanted in ((SAFE, repeatable), (IDEMPOTENT, repeatable), (UNSAFE, unsafe)):
                found = decide(kind, failure, attempts=1, policy=POLICY)
                assert isinstance(found, Retry if wanted == "again" else Stop), (name, kind, failure)


@pytest.mark.parametrize(
    "failure",
    [
        ResponseDecodeError("no"),
        AuthenticationError("no"),
        ConfigurationError("no"),
        ClientClosedError("no"),
        DeadlineExceededError("no", may_have_taken_effect=False),
        PageError("no"),
        NudgescribeError("no"),
    ],
    ids=lambda failure: type(failure).__name__,
)
@pytest.mark.parametrize("kind", RetryClass)
def test_nothing_else_is_sent_again(kind: RetryClass, failure: NudgescribeError) -> None:
    assert decide(kind, failure, attempts=1, policy=POLICY) == Stop("the answer is final", final=True)


def test_the_reason_to_stop_says_whether_it_may_have_taken_effect() -> None:
    lost = decide(UNSAFE, OutcomeUnknownError("no"), attempts=1, policy=POLICY)
    assert lost == Stop("it may have taken effect", final=True)
    assert decide(UNSAFE, refusal(500), attempts=1, policy=POLICY) == Stop("the answer is final", final=True)


@pytest.mark.parametrize("attempts", range(1, 8))
def test_it_ends_with_the_attempts(attempts: int) -> None:
    found = decide(SAFE, refusal(500), attempts=attempts, policy=POLICY)
    if attempts >= 4:
        assert found == Stop(f"that was attempt {attempts} of 4 (RetryPolicy)")
    else:
        assert isinstance(found, Retry)


def test_one_attempt_switches_retries_off_even_for_what_was_not_sent() -> None:
    found = decide(SAFE, RequestNotSentError("no"), attempts=1, policy=RetryPolicy(attempts=1))
    assert found == Stop("that was attempt 1 of 1 (RetryPolicy)")


@pytest.mark.parametrize("failure", [RequestNotSentError("no"), refusal(429), refusal(500)])
def test_a_body_that_cannot_be_sent_again_ends_it(failure: NudgescribeError) -> None:
    found = decide(SAFE, failure, attempts=1, policy=POLICY, replayable=False)
    assert found == Stop("the body cannot be sent a second time")


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (0.0, Retry(0.25, "Too many requests (HTTP 429)", costs=False)),  # as if it had not said
        (0.1, Retry(0.25, "Too many requests (HTTP 429)", costs=False)),
        (10.0, Retry(10.5, "Too many requests (HTTP 429)", costs=False)),
        (120.0, Retry(126.0, "Too many requests (HTTP 429)", costs=False)),
        (121.0, Stop("the service asks to wait 121 s, longer than the 120 s allowed")),
        (math.inf, Stop("the service asks to wait inf s, longer than the 120 s allowed")),
    ],
)
@pytest.mark.usefixtures("middle")
def test_the_service_is_given_the_time_that_it_asks_for_up_to_a_limit(after: float, expected: object) -> None:
    assert decide(SAFE, refusal(429, after), attempts=1, policy=POLICY) == expected


@settings(max_examples=200, deadline=None, database=None)
@given(st.floats(0.0, 120.0))
def test_nobody_comes_back_earlier_than_asked_or_much_later(after: float) -> None:
    found = decide(SAFE, refusal(503, after), attempts=1, policy=POLICY)
    assert isinstance(found, Retry)
    assert after <= found.after <= max(after * 1.1, POLICY.base)


@pytest.mark.parametrize(
    ("failure", "costs"),
    [
        (RequestNotSentError("no"), True),
        (OutcomeUnknownError("no"), True),
        (refusal(500), True),
        (refusal(503), True),
        (refusal(429), False),
        (refusal(429, 1.0), False),
        (refusal(503, 1.0), True),
    ],
    ids=repr,
)
def test_only_what_follows_a_429_costs_nothing_of_the_budget(failure: NudgescribeError, costs: bool) -> None:
    full = decide(SAFE, failure, attempts=1, policy=POLICY, budget=1.0)
    assert isinstance(full, Retry)
    assert full.costs is costs
    empty = decide(SAFE, failure, attempts=1, policy=POLICY, budget=0.99)
    assert empty == Stop("the client's budget of retries is used up") if costs else isinstance(empty, Retry)


@pytest.mark.parametrize(
    ("failure", "seconds"),
    [
        (refusal(429, 7.0), 7.0),
        (refusal(503, 7.0), 7.0),
        (refusal(429, 0.0), 1.0),  # half of what attempt 3 may wait for at most
        (refusal(503, 0.0), 1.0),
        (refusal(429, 121.0), 120.0),
        (refusal(503, math.inf), 120.0),
        (refusal(429), 1.0),  # half of what attempt 3 may wait for at most
        (refusal(503), None),
        (refusal(500, 7.0), None),
        (refusal(403, 7.0), None),
        (OutcomeUnknownError("no"), None),
        (RequestNotSentError("no"), None),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("middle")
def test_all_calls_pause_for_what_the_service_asks_for_and_for_nothing_else(
    failure: NudgescribeError, seconds: float | None
) -> None:
    assert pause_after(failure, attempts=3, policy=POLICY) == seconds


@pytest.mark.parametrize(
    ("left", "kind"), [(None, Retry), (10.6, Retry), (10.5, Stop), (9.5, Stop), (0.0, Stop), (-1.0, Stop)]
)
@pytest.mark.usefixtures("middle")
def test_a_wait_that_does_not_fit_into_the_time_left_ends_it(left: float | None, kind: type) -> None:
    found = decide(SAFE, refusal(429, 10.0), attempts=1, policy=POLICY, time_left=left)
    assert isinstance(found, kind)
    if isinstance(found, Stop):
        assert found.why == "the next attempt would be in 10.5 s, after the deadline"


def test_no_time_left_ends_it_whatever_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)
    assert isinstance(decide(SAFE, refusal(500), attempts=1, policy=POLICY, time_left=0.0), Stop)


def test_the_reason_to_try_again_holds_nothing_that_the_service_said() -> None:
    found = decide(SAFE, refusal(503), attempts=1, policy=POLICY)
    assert isinstance(found, Retry)
    assert found.reason == "The service failed (HTTP 503)"


# --- waits -----------------------------------------------------------------------------------------


def _wait(attempts: int, policy: RetryPolicy) -> float:
    found = decide(SAFE, OutcomeUnknownError("no"), attempts=attempts, policy=policy)
    assert isinstance(found, Retry)
    return found.after


@pytest.mark.parametrize("attempts", [1, 2, 3, 5, 6, 7, 63, 64, 65, 1_000, 1_100, 10_000])
def test_the_longest_wait_doubles_up_to_the_limit(attempts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = RetryPolicy(attempts=20_000, base=0.5, longest=30.0)
    monkeypatch.setattr(random, "uniform", lambda *ends: max(ends))
    assert _wait(attempts, policy) == min(30.0, 0.5 * 2 ** min(attempts - 1, 100))
    monkeypatch.setattr(random, "uniform", lambda *ends: min(ends))
    assert _wait(attempts, policy) == 0.0


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.integers(1, 10_000),
    st.floats(1e-300, 1e10) | st.integers(1, 10**9),
    st.floats(1e-300, 1e10) | st.integers(1, 10**9),
)
def test_a_wait_is_never_beyond_its_bounds(attempts: int, base: float, longest: float) -> None:
    policy = RetryPolicy(attempts=20_000, base=base, longest=longest)
    wait = _wait(attempts, policy)
    assert type(wait) is float
    assert 0.0 <= wait <= min(longest, base * 2.0 ** min(attempts - 1, 200)) * (1 + 1e-9)


def test_the_waits_cover_their_range() -> None:
    random.seed(7)
    waits = [_wait(3, POLICY) for _ in range(2_000)]  # between 0 and 2 s
    counts = [sum(low <= wait < low + 0.25 for wait in waits) for low in (0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
    assert sum(counts) == len(waits)
    assert all(180 < count < 320 for count in counts)


# --- Retry-After -----------------------------------------------------------------------------------

NOW = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("007", 7.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 09:28:30 +0200", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2015 07:28:30", 30.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed Oct 21 07:28:30 2015", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("+5", None),
        ("1e5", None),
        (".", None),
        ("1.2.3", None),
        ("nan", None),
        ("inf", None),
        ("0x10", None),
        ("1_000", None),
        ("\N{SUPERSCRIPT TWO}", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("soon", None),
        ("120, 60", None),
        ("Wed, 99 Oct 2015 07:28:30 GMT", None),
        ("Wed, 21 Oct 99999 07:28:30 GMT", None),
        ("Wed, 21 Oct 2015 07:28:30 +9999999", None),
        ("9" * 400, math.inf),
        ("9" * 10_000, math.inf),
    ],
)
def test_retry_after_is_read_or_ignored(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, sent=NOW, now=0.0) == seconds


@pytest.mark.parametrize(
    ("our_clock_is_off_by", "seconds"),
    [(0.0, 30.0), (-90.0, 120.0), (30.0, 0.0), (31.0, None), (-91.0, None), (1e9, None), (-1e9, None)],
)
def test_a_date_without_the_servers_own_is_believed_within_reason(
    our_clock_is_off_by: float, seconds: float | None
) -> None:
    found = retry_after_seconds("Wed, 21 Oct 2015 07:28:30 GMT", sent=None, now=NOW + our_clock_is_off_by)
    assert found == seconds


_DATE_PARTS = ["Wed,", " ", "21", "Oct", "2015", ":", "07:28:30", "+0000", "GMT", "-", "99999", "(", ")", "0", ".", "am", '"', "\t", "1"]  # fmt: skip


@settings(max_examples=500, deadline=None, database=None)
@given(st.text(max_size=30) | st.lists(st.sampled_from(_DATE_PARTS), max_size=9).map("".join))
def test_no_header_breaks_the_reader(text: str) -> None:
    seconds = retry_after_seconds(text, sent=NOW, now=NOW)
    assert seconds is None or seconds >= 0.0
    date = http_date(text)
    assert date is None or math.isfinite(date)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of the machine cannot be chosen here")
def test_a_date_without_a_zone_is_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC-09:00")
        time.tzset()
        try:
            assert http_date("Wed, 21 Oct 2015 07:28:00 -0000") == NOW
            assert http_date("Wed, 21 Oct 2015 07:28:00") == NOW
        finally:
            patch.undo()
            time.tzset()
