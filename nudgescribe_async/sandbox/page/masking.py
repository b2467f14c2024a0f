"""What the page never shows: keys, passwords, tokens, signatures.

The log of the sandbox masks the fields of a body that are secret by their name. This is the second line: it finds the
secrets of this sandbox, and what has the shape of one, wherever they stand, be it in a path or in a field of another
name. Names, profiles and messages are shown as they are but for the secrets of this sandbox.
"""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

_MASK = "***"
_NAMES = {
    "authorization",
    "email",
    "xauthcontext",
}
_ENDINGS = ("apicode", "apikey", "password", "secret", "signature", "token")
_SHAPES = (
    (re.compile(r"eyJ[\w-]{4,}\.[\w-]{4,}\.[\w-]+"), _MASK),  # a JWT
    (re.compile(r"nsk_\w{8,}"), _MASK),
    (re.compile(r"(?i)\b(bearer)(\s+|%20|\+)[^\s\"',;]+"), rf"\1 {_MASK}"),
    (
        re.compile(r"(?i)([?&](?:[\w-]*(?:signature|token|key|password|secret|credential)[\w-]*)=)[^&\s\"'#]+"),
        rf"\1{_MASK}",
    ),
)
# "Cf" are those that change the direction of the text around them, and others that nobody sees. Languages and emojis
# need two of them: the joiners.
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_SEEN = frozenset("\n\t\u200c\u200d")
_PLAIN = re.compile(r"[\x20-\x7e\n\t]*")


def ways_to_write(secret: str) -> set[str]:
    """A secret as it may stand in a text: as it is, in a URL (or in one that is in another), and in Base64."""
    quoted = quote(secret, safe="")
    return {secret, quoted, quote(quoted, safe=""), *_in_base64(secret.encode())}


def _in_base64(secret: bytes) -> set[str]:
    # What is before and after it decides how it looks: of the letters at both ends, some bits are its neighbours'.
    found: set[str] = set()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + secret + bytes(2))
        letters = whole[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6].decode()
        found |= {letters, letters.replace("+", "-").replace("/", "_")}
    return found


def mask_own(text: str, secrets: Iterable[str]) -> str:
    """A text without the secrets that are given."""
    for secret in secrets:
        text = text.replace(secret, _MASK)
    return text


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """A text without secrets: those that are given, and what looks like one."""
    text = mask_own(text, secrets)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def body_text(body: object, limit: int) -> tuple[str, bool]:
    """The beginning of a JSON body, in lines, and whether it is all of it. It is not yet masked but for names.

    What is behind the limit costs nothing.
    """
    writer = _Writer(limit)
    try:
        writer.write(body, "\n")
    except _FullError:
        return "".join(writer.parts), False
    return "".join(writer.parts), True


class _FullError(Exception):
    """There is as much as was wanted."""


class _Writer:
    """Writes JSON as ``json.dumps`` with ``indent=2``, which encodes all of it, or is slower by far, piece by piece."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self._room = limit

    def write(self, value: Any, line: str) -> None:
        """Write a value that ends on the line that begins so."""
        deeper = line + "  "
        if value and isinstance(value, dict):
            comma = "{"
            for name, item in cast("dict[str, Any]", value).items():
                self._put(f"{comma}{deeper}{json.dumps(name, ensure_ascii=False)}: ")
                self.write(_MASK if _is_secret(name) else item, deeper)
                comma = ","
            self._put(line + "}")
        elif value and isinstance(value, list):
            comma = "["
            for item in value:  # pyright: ignore[reportUnknownVariableType]
                self._put(comma + deeper)
                self.write(item, deeper)
                comma = ","
            self._put(line + "]")
        else:
            self._put(json.dumps(value, ensure_ascii=False))

    def _put(self, text: str) -> None:
        self.parts.append(text)
        self._room -= len(text)
        if self._room < 0:
            raise _FullError


def _is_secret(name: str) -> bool:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return plain in _NAMES or plain.endswith(_ENDINGS)


def visible(text: str) -> str:
    """A text in which nothing is hidden: control characters, turns of direction and the like are written as escapes."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        f"\\u{ord(letter):04x}" if letter not in _SEEN and unicodedata.category(letter) in _INVISIBLE else letter
        for letter in text
    )


def on_one_line(text: str) -> str:
    """The same for a path, in which the end of a line has no place either."""
    return visible(text).replace("\n", "\\u000a").replace("\t", "\\u0009")


def shortened(text: str, limit: int) -> str:
    """At most so many characters, with a mark where something is left out."""
    return text if len(text) <= limit else text[:limit] + "\u2026"
