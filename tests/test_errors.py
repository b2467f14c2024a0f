"""The tree of errors: as drawn, whole after any copy, and clear in its texts."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from nudgescribe_async import errors
from nudgescribe_async.cursor import PageCursor
from nudgescribe_async.errors import (
    APIStatusError,
    Attempt,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DeadlineExceededError,
    MissingFieldsError,
    NotFoundError,
    NudgescribeError,
    PageError,
    PayloadTooLargeError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitedError,
    ResponseDecodeError,
    ServerError,
    UnprocessableEntityError,
    status_error,
)


def _all(base: type[NudgescribeError] = NudgescribeError) -> list[type[NudgescribeError]]:
    below = [found for child in base.__subclasses__() for found in _all(child)]
    return list(dict.fromkeys([base, *(item for item in below if item.__module__ == errors.__name__)]))


CLASSES = _all()
ATTEMPTS = (
    Attempt(number=1, after=0.0, seconds=0.25, error="OutcomeUnknownError"),
    Attempt(number=2, after=0.5, seconds=0.125, status=503, request_id="r-1"),
)
CURSOR = PageCursor(query="q", page=7, part=(7, 3), ahead=frozenset({9, 12}), total=40, last="l")
SPECIAL: dict[type[NudgescribeError], dict[str, Any]] = {
    DeadlineExceededError: {"may_have_taken_effect": True},
    APIStatusError: {"status": 418, "code": "teapot", "body": '{"a": 1}', "retry_after": 1.5},
    AuthenticationError: {"status": 403},
    ResponseDecodeError: {"path": "$[1].a", "expected": "a text", "received": "null", "evidence": "seed"},
    PageError: {"page": 7, "cursor": CURSOR},
}


def example(kind: type[NudgescribeError]) -> NudgescribeError:
    special = {
        key: value for base, values in SPECIAL.items() if issubclass(kind, base) for key, value in values.items()
    }
    return kind("It failed.", operation="customers.list", request_id="r-1", attempts=list(ATTEMPTS), **special)


def _pickled(protocol: int) -> Callable[[NudgescribeError], NudgescribeError]:
    def through(error: NudgescribeError) -> NudgescribeError:
        found: NudgescribeError = pickle.loads(pickle.dumps(error, protocol))
        return found

    return through


WAYS: dict[str, Callable[[NudgescribeError], NudgescribeError]] = {
    **{f"pickle {protocol}": _pickled(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_is_whole_after_it_was_pickled_or_copied(kind: type[NudgescribeError], way: str) -> None:
    error = example(kind)
    error.message += " Look first."  # as the session does
    error.add_note("page 3 of 9")
    again = WAYS[way](error)
    assert type(again) is kind
    assert again is not error
    assert again.__dict__ == error.__dict__
    assert again.args == error.args
    assert str(again) == str(error)
    assert again.__notes__ == ["page 3 of 9"]
    for name in ("operation", "request_id", "attempts", *(key for base, values in SPECIAL.items() if issubclass(kind, base) for key in values)):  # fmt: skip
        assert getattr(again, name) == getattr(error, name)
    again.operation = "changed"
    assert error.operation == "customers.list"


def test_a_deep_copy_shares_nothing_that_can_change() -> None:
    error = PageError("no")
    error.args = ("no", {"next": [8]})
    again = copy.deepcopy(error)
    again.args[1]["next"].append(9)
    assert error.args == ("no", {"next": [8]})


@pytest.mark.parametrize("kind", CLASSES)
def test_the_text_names_operation_request_and_attempts(kind: type[NudgescribeError]) -> None:
    advice = f" {kind.advice}" if kind.advice else ""
    assert str(example(kind)) == f"It failed.{advice} (operation customers.list, request id r-1, 2 attempts)"


@pytest.mark.parametrize("kind", CLASSES)
def test_the_text_says_why_it_was_not_tried_again_and_what_to_do(kind: type[NudgescribeError]) -> None:
    error = example(kind)
    error.not_repeated, error.advice = "2 attempts are all that was asked for", "Look with customers.list."
    assert str(error) == (
        "It failed. Look with customers.list. (operation customers.list, request id r-1, 2 attempts, "
        "not tried again: 2 attempts are all that was asked for)"
    )


@pytest.mark.parametrize("kind", CLASSES)
def test_advice_is_a_sentence(kind: type[NudgescribeError]) -> None:
    assert re.fullmatch(r"|[A-Z].*\.", kind.advice)


def test_the_text_names_only_what_is_known() -> None:
    assert str(NudgescribeError("No.")) == "No."
    assert str(NudgescribeError("No.", operation="a.b")) == "No. (operation a.b)"
    assert str(NudgescribeError("No.", request_id="r", attempts=ATTEMPTS[:1])) == "No. (request id r)"


def test_attempts_are_kept_as_they_were_given() -> None:
    given = list(ATTEMPTS)
    error = NudgescribeError("No.", attempts=given)
    given.clear()
    assert error.attempts == ATTEMPTS
    with pytest.raises(AttributeError):
        error.attempts[0].number = 5  # type: ignore[misc]


def test_an_error_can_be_raised_and_caught_by_each_of_its_bases() -> None:
    with pytest.raises(APIStatusError) as caught:
        raise RateLimitedError("slow down", status=429, retry_after=3.0)
    assert (caught.value.status, caught.value.retry_after, caught.value.code, caught.value.body) == (429, 3.0, None, "")


def test_the_drawing_in_the_docstring_is_the_tree() -> None:
    drawing = (errors.__doc__ or "").split("::\n")[1].split("\n\nWrong")[0]
    drawn: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in drawing.splitlines():
        names = re.findall(r"\b([A-Z]\w*Error)\b", line)
        if not names:
            continue
        column = line.index(names[0])
        while above and above[-1][0] >= column:
            above.pop()
        for name in names:
            assert name not in drawn
            drawn[name] = above[-1][1] if above else None
        above.append((column, names[0]))
    tree = {kind.__name__: kind.__base__.__name__ if kind is not NudgescribeError else None for kind in CLASSES if kind.__base__}  # fmt: skip
    assert drawn == tree


def test_the_statuses_in_the_drawing_are_those_of_the_classes() -> None:
    shown = re.findall(r"(\w+Error) (\d{3})\b", (errors.__doc__ or "").split("Wrong")[0])
    assert len(shown) == 9
    for name, status in shown:
        assert status_error(int(status)).__name__ == name


@pytest.mark.parametrize("status", range(400, 600))
def test_each_status_has_its_class(status: int) -> None:
    expected: type[APIStatusError] = {
        400: BadRequestError,
        401: MissingFieldsError,
        402: QuotaExceededError,
        403: PermissionDeniedError,
        404: NotFoundError,
        409: ConflictError,
        413: PayloadTooLargeError,
        422: UnprocessableEntityError,
        429: RateLimitedError,
    }.get(status, ServerError if status >= 500 else APIStatusError)
    assert status_error(status) is expected


@pytest.mark.parametrize("status", [100, 200, 301, 399, 600, 999, 0, -1])
def test_a_status_beyond_the_errors_has_the_base_class(status: int) -> None:
    assert status_error(status) is APIStatusError


def test_every_class_of_a_status_says_what_it_means() -> None:
    meanings = [kind.meaning for kind in CLASSES if issubclass(kind, APIStatusError) and "meaning" in vars(kind)]
    assert len(set(meanings)) == len(meanings)


def test_all_names_are_exported_in_order_and_importing_them_loads_no_http_library() -> None:
    assert errors.__all__ == sorted(errors.__all__)
    assert {kind.__name__ for kind in CLASSES} | {"Attempt", "status_error"} == set(errors.__all__)
    program = "import sys, nudgescribe_async.errors; assert 'aiohttp' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_documented(kind: type[NudgescribeError]) -> None:
    assert kind.__doc__
    assert kind.__doc__ != kind.__base__.__doc__ if kind.__base__ else True
