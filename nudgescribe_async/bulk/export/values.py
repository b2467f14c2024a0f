"""Whether a value of a profile fits the column of its field, without a loss. What does not is kept elsewhere, as it is.

A value fits if the column gives back the same number, amount, day or text. So a whole number that no double holds does
not fit a column of doubles, and ``1.50`` fits a column of amounts, which says ``1.5000``.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

from nudgescribe_async.bulk import dates

__all__ = ["MISFIT", "day", "decimal_text", "double", "money", "plain_text"]

MISFIT: Final = object()
"""In place of a value that does not fit."""

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_LONGEST = 60
"""Characters of a number; more fits no column, and reading thousands of digits takes long."""

_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DIGITS_OF_MONEY = 34
"""Before the point."""


def plain_text(value: object) -> object:
    """A text that UTF-8 can write."""
    if type(value) is not str:
        return MISFIT
    return value if value.isascii() or _encodes(value) else MISFIT


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def decimal_text(value: object) -> object:
    """A number as text that loses nothing; a text that is a number, as it is."""
    if type(value) is int:
        return str(value) if abs(value) < 10**_LONGEST else MISFIT
    if type(value) is float:
        return repr(value) if math.isfinite(value) else MISFIT
    if type(value) is str and len(value) <= _LONGEST and _NUMBER.fullmatch(value):
        return value
    return MISFIT


def double(value: object) -> object:
    """A number that a double gives back as it was."""
    if type(value) is float:
        return value if math.isfinite(value) else MISFIT
    text = decimal_text(value)
    if not isinstance(text, str):
        return MISFIT
    found = float(text)
    if not math.isfinite(found):
        return MISFIT
    if _WHOLE.fullmatch(text):
        return found if int(found) == int(text) else MISFIT
    # The shortest text of a double is what it is shown as, and what it is taken for.
    return found if Decimal(repr(found)) == Decimal(text) else MISFIT


def money(value: object) -> object:
    """An amount with four decimals at most, as a column ``decimal128(38, 4)`` holds it."""
    text = decimal_text(value)
    if not isinstance(text, str):
        return MISFIT
    amount = Decimal(text)
    _, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - neither infinite nor NaN
    # Counted by hand: arithmetic with decimals rounds to 28 digits.
    significant = len(digits)
    while significant > 1 and digits[significant - 1] == 0:
        significant -= 1
    lowest = exponent + len(digits) - significant
    fits = digits == (0,) * len(digits) or (lowest >= -4 and amount.adjusted() < _DIGITS_OF_MONEY)
    return amount if fits else MISFIT


def day(value: object, pattern: str | None) -> object:
    """A day, written in the format of its field."""
    if type(value) is not str or pattern not in dates.DATE_FORMATS:
        return MISFIT
    try:
        return dates.reader(pattern)(value)
    except ValueError:
        return MISFIT
