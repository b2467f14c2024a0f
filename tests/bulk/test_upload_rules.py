"""What may stand in a field: judged as the sandbox judges, and written as the field wants it."""

from __future__ import annotations

import string
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nudgescribe_async import ProfileField
from nudgescribe_async.bulk.dates import DATE_FORMATS
from nudgescribe_async.bulk.upload.currencies import decimals_of
from nudgescribe_async.bulk.upload.rules import Rule, rules_of, unjudged
from nudgescribe_async.sandbox import validation
from nudgescribe_async.sandbox.currencies import MINOR_DIGITS

FORMATS: list[tuple[str, str | None]] = [
    ("string", None),
    ("number", None),
    ("char", None),
    *(("Date", format_) for format_ in validation.DATE_FORMATS),
    *(("currency", code) for code in ("USD", "JPY", "KWD", "CLF")),
]
HINT = ": write 12.50, not 12,50"
NAMES = [
    "Jan",
    "February",
    "may",
    "MAY",
    "Sept",
    "sep",
    "DECEMBER",
    "Mai",
    "\u017fep",
]  # the last with a long s, which is an s to some


def rule(type_: str, format_: str | None = None, *, required: bool = False) -> Rule:
    field = ProfileField(
        profile_field_id="1", field_name="f", field_type=type_, field_format=format_, is_required=required
    )
    return rules_of([field])["f"]


def oracle(type_: str, format_: str | None, text: str) -> str | None:
    try:
        validation.build("1", "f", type_, format_, required=False).parse(text)
    except ValueError as error:
        return str(error)
    return None


def verdict(type_: str, format_: str | None, text: str) -> str | None:
    check = rule(type_, format_).check
    return None if check is None else check(text)


pieces = st.one_of(
    st.integers(0, 99).map("{:02}".format),
    st.integers(0, 10_000).map(str),
    st.sampled_from([*NAMES, *"/-. ,", ", ", "yyyy"]),
)
numbers = st.text(alphabet="0123456789.+-eE_, \t٣", max_size=45)
dates = st.tuples(
    st.sampled_from(["", " ", "\u00a0"]),
    st.integers(0, 10_000),
    st.integers(0, 14),
    st.integers(0, 33),
    st.sampled_from(NAMES),
    st.sampled_from(DATE_FORMATS),
).map(
    lambda part: (
        part[0]
        + part[5]
        .replace("yyyy", f"{part[1]:04}")
        .replace("yy", f"{part[1] % 100:02}")
        .replace("MMMM", part[4])
        .replace("MMM", part[4])
        .replace("MM", f"{part[2]:02}")
        .replace("dd", f"{part[3]:02}")
        + part[0]
    )
)


@given(
    st.sampled_from(FORMATS),
    st.one_of(st.text(min_size=1, max_size=6), numbers, dates, st.lists(pieces, max_size=7).map("".join)).filter(bool),
)
@example(("number", None), "\u0661")
@example(("number", None), "1_000")
@example(("number", None), "1" * 41)
@example(("number", None), f" {'1' * 40} ")
@example(("currency", "JPY"), "1.")
@example(("currency", "JPY"), "1.0")
@example(("currency", "KWD"), "1.2345")
@example(("Date", "yyyy-MM-dd"), "2023-02-29")
@example(("Date", "yyyy-MM-dd"), "0000-01-01")
@example(("Date", "yyyy-MM-dd"), "2024-02-29\n")
@example(("Date", "dd.MM.yyyy"), "01x02x2024")
@example(("Date", "dd/MM/yy"), "29/02/00")
@example(("Date", "MMM dd, yyyy"), "\u017fep 01, 2024")
@example(("Date", "dd MMM yyyy"), "01 MAY 2024")
@example(("Date", "MMMM dd, yyyy"), "february 29, 2024")
@example(("char", None), "e\u0301")
def test_every_value_is_judged_as_the_sandbox_judges_it(kind: tuple[str, str | None], text: str) -> None:
    mine = verdict(*kind, text)
    assert (mine if mine is None else mine.removesuffix(HINT)) == oracle(*kind, text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("12,50", True),
        (" -1.250,50 ", True),
        ("1,250.50", True),
        (",5", True),
        ("12;50", False),
        ("twelve, or so", False),
        ("12,", False),
    ],
)
def test_a_number_with_a_comma_is_refused_with_a_hint(text: str, hint: bool) -> None:
    for type_, format_ in (("number", None), ("currency", "EUR"), ("currency", "XYZ")):
        assert verdict(type_, format_, text) == "must be a decimal number" + (HINT if hint else "")


@given(st.sampled_from(validation.DATE_FORMATS), st.dates(date(2000, 1, 1), date(2099, 12, 31)))
def test_every_day_is_written_in_every_format_as_the_sandbox_reads_it(format_: str, day: date) -> None:
    text = rule("Date", format_).write(day)
    assert verdict("Date", format_, text) is oracle("Date", format_, text) is None
    assert rule("Date", format_).write(datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC)) == text


def test_the_formats_and_currencies_are_all_known() -> None:
    assert set(DATE_FORMATS) == set(validation.DATE_FORMATS)
    codes = {first + second + third for first in string.ascii_uppercase for second in string.ascii_uppercase
             for third in string.ascii_uppercase}  # fmt: skip
    assert {code: digits for code in codes if (digits := decimals_of(code)) is not None} == dict(MINOR_DIGITS)


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        ("yyyy-MM-dd", "2024-05-09"),
        ("dd/MM/yyyy", "09/05/2024"),
        ("MM/dd/yyyy", "05/09/2024"),
        ("dd-MM-yyyy", "09-05-2024"),
        ("MM-dd-yyyy", "05-09-2024"),
        ("dd.MM.yyyy", "09.05.2024"),
        ("yyyy/MM/dd", "2024/05/09"),
        ("dd MMM yyyy", "09 May 2024"),
        ("MMM dd, yyyy", "May 09, 2024"),
        ("MMMM dd, yyyy", "May 09, 2024"),
        ("dd MMMM yyyy", "09 May 2024"),
        ("yy/MM/dd", "24/05/09"),
        ("dd/MM/yy", "09/05/24"),
        ("MM/dd/yy", "05/09/24"),
    ],
)
def test_a_day_is_written_in_the_format_of_the_field(format_: str, text: str) -> None:
    assert rule("Date", format_).write(date(2024, 5, 9)) == text


class Colour(StrEnum):
    RED = "red"


class Level(Enum):
    HIGH = 3


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (("string", None), None, ""),
        (("string", None), float("nan"), ""),
        (("number", None), Decimal("NaN"), ""),
        (("string", None), " kept as it is ", " kept as it is "),
        (("string", None), "=1+1", "=1+1"),
        (("string", None), Colour.RED, "red"),
        (("number", None), Level.HIGH, "3"),
        (("string", None), UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (("string", None), 1234.0, "1234"),
        (("string", None), 10**20, "1" + "0" * 20),
        (("number", None), 1e22, "1" + "0" * 22),
        (("number", None), 1e-7, "0.0000001"),
        (("number", None), -0.5, "-0.5"),
        (("currency", "USD"), Decimal("12.50"), "12.50"),
        (("currency", "USD"), Decimal("1E+2"), "100"),
        (("currency", "JPY"), Decimal("1200.00"), "1200"),
        (("currency", "JPY"), 1200.0, "1200"),
        (("string", None), date(2024, 5, 9), "2024-05-09"),
        (("Date", "yyyy-MM-dd"), "2024-05-09", "2024-05-09"),
        (("Date", "yyyy-MM-dd"), date(33, 4, 3), "0033-04-03"),
        (("Date", "a format of later years"), date(2024, 5, 9), "2024-05-09"),
    ],
)
def test_a_value_is_written_for_its_field(kind: tuple[str, str | None], value: object, text: str) -> None:
    assert rule(*kind).write(value) == text


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (("string", None), True, "truth value"),
        (("number", None), float("inf"), "infinite"),
        (("number", None), Decimal("-Infinity"), "infinite"),
        (("number", None), Decimal("1E+1000000"), "decimal number"),
        pytest.param(("number", None), 10**5_000, "decimal number", id="an endless integer"),
        (("string", None), b"bytes", "not bytes"),
        (("string", None), ["a"], "not list"),
        (("string", None), {"a": 1}, "not dict"),
        (("number", None), Fraction(1, 3), "not Fraction"),
        (("string", None), "a\0b", "NUL"),
        (("string", None), "a\ud800b", "surrogate"),
        (("Date", "dd/MM/yy"), date(1999, 1, 1), "year"),
    ],
)
def test_a_value_that_cannot_be_written_is_refused_without_being_repeated(
    kind: tuple[str, str | None], value: object, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        rule(*kind).write(value)


def test_money_is_never_rounded() -> None:
    money = rule("currency", "USD")
    assert money.check is not None
    assert money.check(money.write(0.1 + 0.2)) == "must have at most 2 decimals, as USD has"


@pytest.mark.parametrize("kind", [("Date", "yyyyMMdd"), ("colour", None), ("Date", None)])
def test_what_is_not_known_here_is_left_to_the_service(kind: tuple[str, str | None]) -> None:
    assert rule(*kind).check is None
    assert unjudged("f").check is None


def test_a_currency_that_is_not_known_here_is_still_a_number() -> None:
    assert verdict("currency", "XYZ", "1.23456789") is None
    assert verdict("currency", "XYZ", "much") == "must be a decimal number"


@given(st.sampled_from(FORMATS), st.one_of(st.integers(), st.floats(), st.decimals(), st.dates(), st.text()))
def test_whatever_is_written_is_a_text_that_csv_can_hold(kind: tuple[str, str | None], value: Any) -> None:
    try:
        text = rule(*kind).write(value)
    except ValueError:
        return
    assert type(text) is str
    assert "\0" not in text.encode().decode()
