"""What a value looks like, in words that hold nothing of it.

The report of the doctor is made of these words alone, and a recording replaces each value by another one that looks
the same. So a recorded session has the same report.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from attrs import define, field

__all__ = [
    "LENGTHS",
    "MOST_NAMES",
    "NO_MEDIA_TYPE",
    "TIMESTAMP",
    "Names",
    "form_of",
    "is_header",
    "is_moment",
    "is_nameable",
    "keys_of",
    "length_class",
    "mask_of",
    "media_type_of",
]

TIMESTAMP: Final = "a timestamp"
"""ISO 8601 in UTC with milliseconds and ``Z``, as the reference has it."""

LENGTHS: Final = (8, 32, 128, 512, 4_096)

_EXACT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:[Zz]|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
_DIGIT = re.compile(r"[0-9]")
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?")
_FORMS: Final = (
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), "a UUID"),
    (re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*"), "a JWT"),
    (re.compile(r"https?://\S+"), "a URL"),
    (re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+"), "an e-mail address"),
    (_NUMBER, "a number as text"),
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_DIGITS_OF_A_NAME = 3
MOST_NAMES: Final = 32
"""An object with more unknown keys is a map, whose keys may be ids or people, whatever they look like."""
_MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]{1,60}")
NO_MEDIA_TYPE: Final = "something that is no media type"
_HEADER = re.compile(r"[a-z][a-z-]{0,39}")
_OF_THE_WAY: Final = frozenset({"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"})
"""Headers that say something of the connection alone."""


def form_of(value: object) -> str:
    """What a JSON value looks like."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a whole number" if value.is_integer() else "a number"
        case str():
            return _form_of_text(value)
        case list():
            return "an array"
        case _:
            return "an object"


def _form_of_text(text: str) -> str:
    if not text:
        return "an empty text"
    if is_moment(text):
        return TIMESTAMP if _EXACT.fullmatch(text) else f"a timestamp like {mask_of(text)}"
    for pattern, form in _FORMS:
        if pattern.fullmatch(text):
            return form
    longest = length_class(text)
    if longest is None:
        return f"a text of more than {LENGTHS[-1]:,} characters"
    return f"a text of up to {longest:,} characters"


def length_class(text: str) -> int | None:
    """The length that a text does not exceed, of a few; ``None`` for long ones."""
    return next((longest for longest in LENGTHS if len(text) <= longest), None)


def is_moment(text: str) -> bool:
    """Whether a text is written as a date or a moment."""
    return _MOMENT.fullmatch(text) is not None


def mask_of(text: str) -> str:
    """How a moment is written: its digits are nines."""
    return _DIGIT.sub("9", text)


def is_nameable(key: object) -> bool:
    """Whether the name of a field may be told: what could be an id, or what a person wrote, is counted instead."""
    if not isinstance(key, str) or not _NAME.fullmatch(key.strip()):
        return False
    return len(_DIGIT.findall(key)) <= _DIGITS_OF_A_NAME


@define
class Names:
    """Which names of unknown fields are told: those that look like names, and few of them in one kind of object."""

    _told: dict[object, set[str]] = field(factory=dict[object, set[str]], init=False)

    def may_tell(self, key: str, *, of: object, among: int) -> bool:
        """Whether one may be told.

        Args:
            key: the name.
            of: the kind of object.
            among: how many unknown ones this object has.
        """
        if not is_nameable(key) or among > MOST_NAMES:
            return False
        told = self._told.setdefault(of, set())
        if len(told) < MOST_NAMES:
            told.add(key.strip())
        return key.strip() in told


def media_type_of(content_type: str) -> str:
    """The media type in a header, in small letters; ``NO_MEDIA_TYPE`` for what could be anything, nothing for nothing."""
    kind = content_type.partition(";")[0].strip().lower()
    is_one = _MEDIA_TYPE.fullmatch(kind) is not None and len(_DIGIT.findall(kind)) <= _DIGITS_OF_A_NAME
    return kind if is_one or not kind else NO_MEDIA_TYPE


def is_header(name: str) -> bool:
    """Whether the name of a header, in small letters, may be told, and says something of the service."""
    return _HEADER.fullmatch(name) is not None and name not in _OF_THE_WAY


def keys_of(value: object) -> list[str]:
    """The keys of an object of JSON; none of anything else."""
    return list(cast("dict[str, Any]", value)) if isinstance(value, dict) else []
