"""What the texts of the service mean, for both passes of the codec: timestamps and open enumerations."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_utc", "is_open_enumeration", "moment", "open_enumeration"]

_FINER = re.compile(r"[.,][0-9]{6}[5-9]")
_WITH_MICROSECONDS = len("2025-09-08T18:18:21.462000")
_MICROSECOND = timedelta(microseconds=1)


def moment(text: str) -> datetime:
    """The moment that a text in ISO 8601 names, in UTC; without an offset it is meant in UTC.

    What is finer than a microsecond is rounded half up, and RFC 3339's lower case is understood, as by msgspec.

    Raises:
        ValueError: it names none.
        OverflowError: it lies beyond the years 1 to 9999 in UTC.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        if text[-1:] != "z":
            raise
        found = datetime.fromisoformat(text[:-1] + "Z")
    if len(text) > _WITH_MICROSECONDS and _FINER.search(text):
        found += _MICROSECOND
    return found if found.tzinfo is UTC else in_utc(found)


def in_utc(found: datetime) -> datetime:
    """The same moment in UTC; without an offset it is meant in UTC."""
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def is_open_enumeration(kind: Any) -> bool:
    """Whether a type is ``SomeEnum | str``, or that and ``None``."""
    arguments = get_args(kind)
    return get_origin(kind) in (Union, UnionType) and str in arguments and any(map(_is_enumeration, arguments))


def _is_enumeration(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def open_enumeration(kind: Any) -> tuple[dict[str, StrEnum], Callable[[str], StrEnum | str]]:
    """The members of an open enumeration as the contract writes them, and what reads any other text."""
    enumeration = next(filter(_is_enumeration, get_args(kind)))
    exact: dict[str, StrEnum] = {member.value: member for member in enumeration}
    folded: dict[str, StrEnum] = {member.value.casefold(): member for member in enumeration}

    def read(text: str) -> StrEnum | str:
        return folded.get(text.strip().casefold(), text)

    return exact, read
