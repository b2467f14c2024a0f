"""Dates in the formats that a profile field may have.

The formats are those of the reference. ``yy`` is a year from 2000 on, and names of months are English; neither is
documented.
"""

from __future__ import annotations

import re
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DATE_FORMATS", "NoDateError", "reader", "write"]

DATE_FORMATS: Final = (
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
# Not from the locale: the service reads English.
_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_NUMBERS: Final = {name[:3].lower(): number for number, name in enumerate(_MONTHS, start=1)}
_PARTS: Final = re.compile("yyyy|yy|MMMM|MMM|MM|dd")
_PATTERNS: Final = {
    "yyyy": "([0-9]{4})",
    "yy": "([0-9]{2})",
    "MMMM": f"({'|'.join(_MONTHS)})",
    "MMM": f"({'|'.join(month[:3] for month in _MONTHS)})",
    "MM": "([0-9]{2})",
    "dd": "([0-9]{2})",
}


class NoDateError(ValueError):
    """A text is not written as the format says."""


@cache
def reader(format_: str) -> Callable[[str], date]:
    """What reads a text of a format.

    It raises ``NoDateError`` if the text is none, and ``ValueError`` if there is no such day.
    """
    parts = _PARTS.findall(format_)
    pattern = re.compile(
        "".join(_PATTERNS.get(piece) or re.escape(piece) for piece in re.split(f"({_PARTS.pattern})", format_)),
        re.ASCII | re.IGNORECASE,
    )
    century = 0 if "yyyy" in parts else 2000
    year, day = next(i for i, part in enumerate(parts, 1) if part in {"yyyy", "yy"}), parts.index("dd") + 1
    month = next(i for i, part in enumerate(parts, 1) if part.startswith("MM"))
    named = "MMM" in format_

    def read(text: str) -> date:
        found = pattern.fullmatch(text)
        if found is None:
            raise NoDateError(f"must be a date like {format_}")
        number = _NUMBERS[found[month][:3].lower()] if named else int(found[month])
        return date(century + int(found[year]), number, int(found[day]))

    return read


def write(day: date, format_: str) -> str:
    """A day as text.

    Raises:
        ValueError: the format has no room for its year.
    """
    if "yyyy" not in format_ and not 2000 <= day.year <= 2099:
        raise ValueError(f"is in a year that {format_} cannot hold")
    written = {
        "yyyy": f"{day.year:04}",
        "yy": f"{day.year % 100:02}",
        "MMMM": _MONTHS[day.month - 1],
        "MMM": _MONTHS[day.month - 1][:3],
        "MM": f"{day.month:02}",
        "dd": f"{day.day:02}",
    }
    return _PARTS.sub(lambda part: written[part[0]], format_)
