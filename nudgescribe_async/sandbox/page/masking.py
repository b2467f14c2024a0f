"""What the page never shows: keys, passwords, tokens, signatures.

The log of the sandbox masks the fields of a body that are secret by their name. This is the second line: it finds the
secrets of this sandbox, and what has the shape of one, wherever they stand, be it in a path or in a field of another
name.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

_MASK = "***"
_NAMES = {
    "apicode",
    "apikey",
    "authorization",
    "email",
    "password",
    "secret",
    "signature",
    "xapikey",
    "xauthcontext",
}
_SHAPES = (
    (re.compile(r"eyJ[\w-]{4,}\.[\w-]{4,}\.[\w-]+"), _MASK),  # a JWT
    (re.compile(r"nsk_\w{8,}"), _MASK),
    (re.compile(r"(?i)\b(bearer)(\s+|%20|\+)[^\s\"',;]+"), rf"\1 {_MASK}"),
    (
        re.compile(r"(?i)([?&](?:[\w-]*(?:signature|token|key|password|secret|credential)[\w-]*)=)[^&\s\"'#]+"),
        rf"\1{_MASK}",
    ),
)
# Those change the direction of the text around them; all other invisible ones are of the categories below.
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_INVISIBLE = {"Cc", "Cs", "Zl", "Zp"}
_PLAIN = re.compile(r"[\x20-\x7e\n\t]*")


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """A text without secrets: those that are given, and what looks like one."""
    for secret in secrets:
        text = text.replace(secret, _MASK)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def body_text(body: object, limit: int) -> tuple[str, bool]:
    """The beginning of a JSON body, in lines, and whether it is all of it. It is not yet masked but for names."""
    parts: list[str] = []
    size = 0
    for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(_by_name(body)):
        parts.append(part)
        size += len(part)
        if size > limit:
            return "".join(parts), False
    return "".join(parts), True


def _by_name(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        return {name: _MASK if _is_secret(name) else _by_name(item) for name, item in items.items()}
    if isinstance(value, list):
        return [_by_name(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _is_secret(name: str) -> bool:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return plain in _NAMES or plain.endswith("token")


def visible(text: str) -> str:
    """A text in which nothing is hidden: control characters and turns of direction are written as escapes."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        f"\\u{ord(letter):04x}"
        if letter in _DIRECTIONS or (letter not in "\n\t" and unicodedata.category(letter) in _INVISIBLE)
        else letter
        for letter in text
    )


def shortened(text: str, limit: int) -> str:
    """At most so many characters, with a mark where something is left out."""
    return text if len(text) <= limit else text[:limit] + "\u2026"
