from __future__ import annotations

import pytest

from nudgescribe_async.sandbox import currencies, validation

GOOD = [
    ("string", None, "  é\n ", "  é\n "),
    ("number", None, "5", 5),
    ("number", None, " -5.50 ", -5.5),
    ("number", None, "+.5", 0.5),
    ("number", None, "007", 7),
    ("number", None, 12, 12),
    ("number", None, 1e-7, 1e-7),
    ("number", None, 1.5, 1.5),
    ("char", None, "é", "é"),
    ("char", None, " ", " "),
    ("currency", "USD", "89.00", "89.00"),
    ("currency", "USD", "89", "89"),
    ("currency", "USD", -1, "-1"),
    ("currency", "USD", 0.1, "0.1"),
    ("currency", "JPY", "100", "100"),
    ("currency", "KWD", "1.234", "1.234"),
    ("currency", "CLF", "1.2345", "1.2345"),
    ("Date", "yyyy-MM-dd", "2024-02-29", "2024-02-29"),
    ("Date", "dd/MM/yyyy", "31/12/1999", "31/12/1999"),
    ("Date", "MM/dd/yyyy", "12/31/1999", "12/31/1999"),
    ("Date", "dd-MM-yyyy", "31-12-1999", "31-12-1999"),
    ("Date", "MM-dd-yyyy", "12-31-1999", "12-31-1999"),
    ("Date", "dd.MM.yyyy", "31.12.1999", "31.12.1999"),
    ("Date", "yyyy/MM/dd", "1999/12/31", "1999/12/31"),
    ("Date", "dd MMM yyyy", "31 Dec 1999", "31 Dec 1999"),
    ("Date", "MMM dd, yyyy", "dec 31, 1999", "dec 31, 1999"),
    ("Date", "MMMM dd, yyyy", "December 31, 1999", "December 31, 1999"),
    ("Date", "dd MMMM yyyy", "31 december 1999", "31 december 1999"),
    ("Date", "yy/MM/dd", "99/12/31", "99/12/31"),
    ("Date", "dd/MM/yy", "31/12/99", "31/12/99"),
    ("Date", "MM/dd/yy", "12/31/99", "12/31/99"),
]
BAD = [
    ("string", None, 5),
    ("string", None, True),
    ("string", None, ["x"]),
    ("number", None, "1e5"),
    ("number", None, "1,000"),
    ("number", None, "0x10"),
    ("number", None, "٣"),
    ("number", None, "nan"),
    ("number", None, "."),
    ("number", None, "9" * 41),
    ("number", None, 10**40),
    ("number", None, float("inf")),
    ("number", None, 1e300),
    ("number", None, True),
    ("number", None, {}),
    ("char", None, "ab"),
    ("char", None, 1),
    ("currency", "USD", "1.234"),
    ("currency", "JPY", "1.5"),
    ("currency", "USD", "$1"),
    ("currency", "USD", False),
    ("Date", "yyyy-MM-dd", "2023-02-29"),
    ("Date", "yyyy-MM-dd", "2023-2-9"),
    ("Date", "yyyy-MM-dd", "2023-02-09T00:00:00"),
    ("Date", "yyyy-MM-dd", "0000-01-01"),
    ("Date", "dd.MM.yyyy", "31x12x1999"),
    ("Date", "MM/dd/yyyy", "31/12/1999"),
    ("Date", "dd MMM yyyy", "31 December 1999"),
    ("Date", "dd MMMM yyyy", "31 Dec 1999"),
    ("Date", "yyyy-MM-dd", 20230101),
]


def field(type_: str, format_: str | None) -> validation.Field:
    validation.check_definition(type_, format_)
    return validation.build("id", "f", type_, format_, required=False)


@pytest.mark.parametrize(("type_", "format_", "value", "stored"), GOOD)
def test_good_values_are_stored(type_: str, format_: str | None, value: object, stored: object) -> None:
    found = field(type_, format_).parse(value)

    assert found == stored
    assert type(found) is type(stored)


@pytest.mark.parametrize(("type_", "format_", "value"), BAD)
def test_bad_values_are_refused_without_repeating_them(type_: str, format_: str | None, value: object) -> None:
    with pytest.raises(ValueError, match="must ") as refused:
        field(type_, format_).parse(value)

    assert len(str(refused.value)) < 100


def test_every_date_format_of_the_reference_is_tried_above() -> None:
    assert {format_ for type_, format_, *_ in GOOD if type_ == "Date"} == set(validation.DATE_FORMATS)
    assert len(validation.DATE_FORMATS) == 14


def test_currencies_have_the_decimals_of_the_standard() -> None:
    digits = currencies.MINOR_DIGITS

    assert len(digits) > 160
    assert all(len(code) == 3 and code.isupper() for code in digits)
    assert [digits[code] for code in ("USD", "EUR", "JPY", "BHD", "UYW")] == [2, 2, 0, 3, 4]
