"""What may stand in a profile field, and how a value of Python is written for it.

The types and formats are those of the reference; what exactly the service accepts of each is not documented, so these
rules are the narrowest that it must understand: a type, format or currency that is not known here is not judged, and
``validate=False`` judges nothing at all. The service has the last word either way.

No reason repeats the value that it is about: values are personal.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from numbers import Integral, Real
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

from attrs import field, frozen

from nudgescribe_async.bulk import dates
from nudgescribe_async.bulk.upload.currencies import decimals_of
from nudgescribe_async.endpoints.models import ProfileFieldType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nudgescribe_async.endpoints.models import ProfileField

__all__ = ["REPEATED", "REQUIRED", "Rule", "rules_of", "unjudged"]

REQUIRED: Final = "is required"
REPEATED: Final = "has the value of an earlier row"
_NOT_A_NUMBER: Final = "must be a decimal number"
_WITH_COMMA: Final = f"{_NOT_A_NUMBER}: write 12.50, not 12,50"
_LONGEST_NUMBER: Final = 40
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_COMMA: Final = re.compile(r"[+-]?[0-9.]*,[0-9.,]*[0-9]")


@frozen(kw_only=True)
class Rule:
    """One profile field.

    Attributes:
        name: the field.
        required: whether there must be a value.
        check: the reason why a text that is not empty is refused, if it is. ``None`` if any text will do.
        date_format: how dates are written, for a field of dates.
        decimals: the most decimals, for an amount of money.
    """

    name: str
    required: bool = False
    check: Callable[[str], str | None] | None = field(default=None, repr=False)
    date_format: str | None = None
    decimals: int | None = None

    def write(self, value: object) -> str:
        """A value of Python as the text that goes into the cell; empty for one that means "none".

        Raises:
            ValueError: it cannot be written; the text is a reason, and does not repeat the value.
        """
        if isinstance(value, Enum):
            value = value.value
        if value is None or _is_missing(value):
            return ""
        if isinstance(value, str):
            return _sendable(str.__str__(value))
        if isinstance(value, bool):
            raise ValueError("must not be a truth value: write the text or number that is meant")  # noqa: TRY004 - as all reasons
        if isinstance(value, date):
            return self._write_date(value)
        if isinstance(value, Integral):
            return _plain_integer(int(value))
        if isinstance(value, Decimal | Real):
            return self._write_number(value)
        if isinstance(value, UUID):
            return str(value)
        raise ValueError(f"must be a text, a number or a date, not {type(value).__name__}")

    def _write_date(self, value: date) -> str:
        if self.date_format is None:
            return value.isoformat()
        return dates.write(value.date() if isinstance(value, datetime) else value, self.date_format)

    def _write_number(self, value: Decimal | Real) -> str:
        # The shortest text that means the same float, also for the narrower ones of numpy.
        try:
            number = value if isinstance(value, Decimal) else Decimal(str(value))
        except InvalidOperation:
            raise ValueError(f"must be a text, a number or a date, not {type(value).__name__}") from None
        if number.is_infinite():
            raise ValueError("must not be infinite")
        if number and (abs(number.adjusted()) > _LONGEST_NUMBER or len(number.as_tuple().digits) > _LONGEST_NUMBER):
            raise ValueError(_NOT_A_NUMBER)
        text = f"{number:f}"
        whole, point, decimals = text.partition(".")
        # Zeros say nothing, and a whole float is what becomes of a whole number in a column that has gaps.
        if point and not isinstance(value, Decimal):
            decimals = decimals.rstrip("0")
        elif point and self.decimals is not None:
            while len(decimals) > self.decimals and decimals.endswith("0"):
                decimals = decimals[:-1]
        return f"{whole}.{decimals}" if decimals else whole


def rules_of(fields: Iterable[ProfileField]) -> dict[str, Rule]:
    """The rules of a workspace, by the name of the field."""
    return {field.field_name: _rule(field) for field in fields}


def unjudged(name: str) -> Rule:
    """The rule of a field of which nothing is known: any text, and dates in ISO 8601."""
    return Rule(name=name)


def _rule(field: ProfileField) -> Rule:
    required, format_ = bool(field.is_required), field.field_format or ""
    if field.field_type == ProfileFieldType.NUMBER:
        return Rule(name=field.field_name, required=required, check=_check_number)
    if field.field_type == ProfileFieldType.CHAR:
        return Rule(name=field.field_name, required=required, check=_check_char)
    if field.field_type == ProfileFieldType.CURRENCY:
        decimals = decimals_of(format_)
        check = _check_number if decimals is None else _money(format_, decimals)
        return Rule(name=field.field_name, required=required, check=check, decimals=decimals)
    if field.field_type == ProfileFieldType.DATE and format_ in dates.DATE_FORMATS:
        return Rule(name=field.field_name, required=required, check=_dates(format_), date_format=format_)
    return Rule(name=field.field_name, required=required)


def _check_number(text: str) -> str | None:
    text = text.strip()
    if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text):
        return None
    return _WITH_COMMA if _COMMA.fullmatch(text) else _NOT_A_NUMBER


def _check_char(text: str) -> str | None:
    return None if len(text) == 1 else "must be one character"


def _money(currency: str, most: int) -> Callable[[str], str | None]:
    reason = f"must have at most {most} decimals, as {currency} has"

    def check(text: str) -> str | None:
        wrong = _check_number(text)
        if wrong is None and len(text.strip().partition(".")[2]) > most:
            return reason
        return wrong

    return check


def _dates(format_: str) -> Callable[[str], str | None]:
    read = dates.reader(format_)
    wrong = f"must be a date like {format_}"
    absent = f"{wrong}, and that day does not exist"

    def check(text: str) -> str | None:
        try:
            read(text.strip())
        except dates.NoDateError:
            return wrong
        except ValueError:
            return absent
        return None

    return check


def _is_missing(value: object) -> bool:
    """NaN in all its forms, and what pandas has for a gap, without importing it."""
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, Real):
        return bool(cast("object", value) != cast("object", value))  # NaN, whatever library it is of
    return type(value).__name__ in {"NAType", "NaTType"} and type(value).__module__.startswith("pandas.")


def _plain_integer(number: int) -> str:
    if abs(number) >= 10**_LONGEST_NUMBER:
        raise ValueError(_NOT_A_NUMBER)
    return str(number)


def _sendable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half of a character (a lone surrogate), which UTF-8 cannot hold") from None
    return text
