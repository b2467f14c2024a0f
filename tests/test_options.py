"""What a user may choose, and what is refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.options import RESERVED_HEADERS, CallOptions, Priority, RetryBudget, RetryPolicy, Timeout, bulk

NUMBERS = [
    (Timeout, "total", True),
    (Timeout, "connect", True),
    (Timeout, "read", True),
    (CallOptions, "timeout", True),
    (RetryPolicy, "base", False),
    (RetryPolicy, "longest", False),
    (RetryPolicy, "longest_retry_after", False),
]
named = pytest.mark.parametrize(("kind", "name", "optional"), NUMBERS, ids=lambda item: getattr(item, "__name__", None))


@named
@pytest.mark.parametrize(
    "value", [0, -1, 0.0, -0.5, math.nan, math.inf, -math.inf, True, "5", [5], b"5", 1e11, 10**400]
)
def test_seconds_that_are_none_are_refused_by_name(kind: type[Any], name: str, optional: bool, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{kind.__name__}\({name}=\.\.\.\) must be a number of seconds"):
        kind(**{name: value})


@named
@pytest.mark.parametrize("value", [1, 0.001, 1e9, 10**6])
def test_seconds_are_kept(kind: type[Any], name: str, optional: bool, value: object) -> None:
    assert getattr(kind(**{name: value}), name) == value


@named
def test_none_is_no_limit_where_there_may_be_none(kind: type[Any], name: str, optional: bool) -> None:
    if optional:
        assert getattr(kind(**{name: None}), name) is None
    else:
        with pytest.raises(
            ConfigurationError, match=rf"^RetryPolicy\({name}=\.\.\.\) must be a number of seconds above 0; got"
        ):
            kind(**{name: None})


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, True, "3", None])
def test_attempts_that_are_none_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^RetryPolicy\(attempts=\.\.\.\) must be a whole number above 0"):
        RetryPolicy(attempts=value)


@pytest.mark.parametrize("retries", [0, 1, 7])
def test_a_number_of_retries_is_a_policy_with_one_attempt_more(retries: int) -> None:
    assert CallOptions(retries=retries).retries == RetryPolicy(attempts=retries + 1)


def test_a_policy_is_kept_and_none_is_left_to_the_client() -> None:
    policy = RetryPolicy(base=2.0)
    assert CallOptions(retries=policy).retries is policy
    assert CallOptions().retries is None
    assert CallOptions().timeout is None


@pytest.mark.parametrize("value", [-1, True, 1.5, "3", [3]])
def test_retries_that_are_none_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^CallOptions\(retries=\.\.\.\) must be a number of retries"):
        CallOptions(retries=value)


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_a_header_of_the_session_is_refused_whatever_its_case(name: str, case: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"'{case(name)}' is for the client to set, or for nobody") as caught:
        CallOptions(headers={case(name): "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", " ", "authorization ", " authorization", "authorization\t", "authorization:", "x\r\nauthorization", "a b", "ä", "a\0"]
)  # fmt: skip
def test_a_name_that_http_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="or its value is not allowed in HTTP"):
        CallOptions(headers={name: "x"})


@pytest.mark.parametrize("value", ["hunter2\r\nauthorization: x", "hunter2\n", "\0", "a\x7f"])
def test_a_value_that_would_begin_another_header_is_refused_and_not_quoted(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^CallOptions\(headers=\.\.\.\): 'x-a' or its value") as caught:
        CallOptions(headers={"x-a": value})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("headers", [[("a", "b")], "a: b", None, 5])
def test_headers_that_are_no_mapping_are_refused(headers: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^CallOptions\(headers=\.\.\.\) must be a mapping, not "):
        CallOptions(headers=headers)


@pytest.mark.parametrize("headers", [{"a": 1}, {"a": b"b"}, {1: "a"}, {b"a": "b"}, {"a": None}])
def test_headers_that_are_no_text_are_refused(headers: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"the name and value of .* must be text"):
        CallOptions(headers=headers)


def test_other_headers_are_kept_and_their_values_are_not_shown() -> None:
    options = CallOptions(headers={"X-Trace": "hunter2", "traceparent": "00-\tü"})
    assert options.headers == {"X-Trace": "hunter2", "traceparent": "00-\tü"}
    assert "hunter2" not in repr(options)
    assert "'X-Trace': ***" in repr(options)


def test_choices_do_not_change() -> None:
    with pytest.raises(AttributeError):
        RetryPolicy().attempts = 5  # type: ignore[misc]
    with pytest.raises(AttributeError):
        CallOptions().timeout = 5.0  # type: ignore[misc]


def test_headers_are_a_copy_that_nobody_changes_after_the_check() -> None:
    mine = {"X-Team": "crm"}
    options = CallOptions(headers=mine)
    mine["Authorization"] = "Bearer other"
    assert options.headers == {"X-Team": "crm"}


@pytest.mark.parametrize("name", ["reserve", "share", "per_second"])
@pytest.mark.parametrize("value", [-1, -0.1, math.nan, math.inf, True, None, "5"])
def test_a_budget_that_is_none_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^RetryBudget\({name}=\.\.\.\) must be a number, 0 or above"):
        RetryBudget(**{name: value})


def test_a_budget_of_nothing_is_one() -> None:
    assert RetryBudget(reserve=0, share=0, per_second=0).reserve == 0


@pytest.mark.parametrize("value", ["interactive", Priority.INTERACTIVE, "bulk", Priority.BULK])
def test_a_priority_is_known_by_its_name(value: Any) -> None:
    assert CallOptions(priority=value).priority is Priority(value)
    assert CallOptions().priority is None


@pytest.mark.parametrize("value", ["high", "", 1, True, ["bulk"], {}])
def test_a_priority_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^CallOptions\(priority=\.\.\.\) must be 'interactive' or 'bulk'"):
        CallOptions(priority=value)


def test_bulk_fills_in_the_priority_and_nothing_else() -> None:
    assert bulk(None) == CallOptions(priority=Priority.BULK)
    given = CallOptions(timeout=5.0, retries=2, headers={"X-Team": "crm"})
    assert bulk(given) == CallOptions(timeout=5.0, retries=2, headers={"X-Team": "crm"}, priority=Priority.BULK)
    urgent = CallOptions(priority=Priority.INTERACTIVE)
    assert bulk(urgent) is urgent
    wrong: Any = "fast"
    assert bulk(wrong) is wrong  # the session says what is wrong with it
