"""What a profile field may be, and what may stand in it.

Values are judged the same way in a CSV file, where everything is text, and in JSON. An empty text and ``null`` are
no value. Numbers become numbers; an amount of money stays a text, since it is exact; a date stays as it was written.
No message repeats the value that it refuses: values are personal.
"""

from __future__ import annotations

import math
import re
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import field, frozen

from nudgescribe_async.sandbox.currencies import MINOR_DIGITS
from nudgescribe_async.sandbox.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

Value = str | int | float

FIELD_TYPES = ("string", "number", "char", "Date", "currency")
DATE_FORMATS = (
    "yyyy-MM-dd",
    "dd/MM/yyyy",
    "MM/dd/yyyy",
    "dd-MM-yyyy",
    "MM-dd-yyyy",
    "dd.MM.yyyy",
    "yyyy/MM/dd",
    "dd MMM yyyy",
    "MMM dd, yyyy",
    "MMMM dd, yyyy",
    "dd MMMM yyyy",
    "yy/MM/dd",
    "dd/MM/yy",
    "MM/dd/yy",
)
_MONTHS = (
    "january february march april may june july august september october november december".split()  # noqa: SIM905
)
_TOKENS = {
    "yyyy": r"(?P<year>\d{4})",
    "yy": r"(?P<short>\d{2})",
    "MMMM": rf"(?P<name>{'|'.join(_MONTHS)})",
    "MMM": rf"(?P<name>{'|'.join(month[:3] for month in _MONTHS)})",
    "MM": r"(?P<month>\d{2})",
    "dd": r"(?P<day>\d{2})",
}
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_MAX_NUMBER = 40  # characters; more is a mistake, and Python refuses to read integers of thousands of digits


@frozen
class Field:
    """A profile field, ready to judge values."""

    profile_field_id: str
    name: str
    type: str
    format: str | None
    required: bool
    parse: Callable[[object], Value] = field(repr=False)
    """Gives the value to store; ``ValueError`` with a sentence if the value does not fit."""


def build(profile_field_id: str, name: str, type_: str, format_: str | None, *, required: bool) -> Field:
    """A field that judges values by its type and format, which must have been checked before."""
    parsers: dict[str, Callable[[object], Value]] = {"string": _string, "number": _number, "char": _char}
    if type_ == "Date":
        parse = _date(format_ or "")
    elif type_ == "currency":
        parse = _money(format_ or "")
    else:
        parse = parsers[type_]
    return Field(profile_field_id, name, type_, format_, required, parse)


def check_definition(type_: str, format_: str | None) -> None:
    """Refuse a type that does not exist, and a format that does not belong to the type."""
    if type_ not in FIELD_TYPES:
        raise Refusal("bad_request", f"field_type must be one of {', '.join(FIELD_TYPES)}")
    if type_ == "Date" and format_ not in DATE_FORMATS:
        raise Refusal("bad_request", f"A Date needs a field_format, one of: {'; '.join(DATE_FORMATS)}")
    if type_ == "currency" and format_ not in MINOR_DIGITS:
        raise Refusal("bad_request", "A currency needs a field_format, an ISO 4217 code such as USD")
    if type_ not in {"Date", "currency"} and format_ is not None:
        raise Refusal("bad_request", f"A {type_} takes no field_format")


def is_empty(value: object) -> bool:
    """Whether a value means that there is none."""
    return value is None or value == ""


def _string(value: object) -> Value:
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004 - all refusals of a value are ValueErrors
    return value


def _char(value: object) -> Value:
    if not isinstance(value, str) or len(value) != 1:
        raise ValueError("must be one character")
    return value


def _decimal_text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a decimal number")  # noqa: TRY004 - all refusals of a value are ValueErrors
    if isinstance(value, float):
        text = f"{Decimal(repr(value)):f}" if math.isfinite(value) and abs(value) < 1e18 else ""
    else:
        text = value.strip() if isinstance(value, str) else str(value) if abs(value) < 10**_MAX_NUMBER else ""
    if len(text) > _MAX_NUMBER or not _NUMBER.fullmatch(text):
        raise ValueError("must be a decimal number")
    return text


def _number(value: object) -> Value:
    text = _decimal_text(value)
    return float(text) if "." in text else int(text)


def _money(currency: str) -> Callable[[object], Value]:
    digits = MINOR_DIGITS[currency]

    def parse(value: object) -> Value:
        text = _decimal_text(value)
        if len(text.partition(".")[2]) > digits:
            raise ValueError(f"must have at most {digits} decimals, as {currency} has")
        return text

    return parse


def _date(format_: str) -> Callable[[object], Value]:
    pattern = re.compile(
        re.sub("yyyy|yy|MMMM|MMM|MM|dd|[.]", lambda found: _TOKENS.get(found[0], re.escape(found[0])), format_),
        re.ASCII | re.IGNORECASE,
    )

    def parse(value: object) -> Value:
        text = value.strip() if isinstance(value, str) else ""
        found = pattern.fullmatch(text)
        if found is None:
            raise ValueError(f"must be a date like {format_}")
        parts = found.groupdict()
        name = parts.get("name")
        month = [m[:3] for m in _MONTHS].index(name[:3].lower()) + 1 if name else int(parts["month"])
        year = int(parts.get("year") or f"20{parts['short']}")
        try:
            date(year, month, int(parts["day"]))
        except ValueError:
            raise ValueError(f"must be a date like {format_}, and that day does not exist") from None
        return text

    return parse
