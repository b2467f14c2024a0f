"""Made-up values in place of those of the service, of the same form, and the same ones for the same.

What a value is replaced by follows from it and a key that is thrown away with the session, so nobody can go back, nor
try out what it may have been. Values that are equal stay equal, so that ids still join.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import io
import json
import re
import secrets
import uuid
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define, field

from nudgescribe_async.codec import loads
from nudgescribe_async.contract_doctor.comparing import opened, schema_at
from nudgescribe_async.contract_doctor.forms import (
    LENGTHS,
    MOST_NAMES,
    Names,
    form_of,
    is_moment,
    is_nameable,
    length_class,
    media_type_of,
)
from nudgescribe_async.contract_doctor.watching import START_OF_A_FILE

if TYPE_CHECKING:
    from nudgescribe_async.contract_doctor.contract import Contract, Operation, Pointer

__all__ = ["Disguise"]

_KEPT: Final = frozenset({"pages", "total_pages", "run_number", "expires_in", "page"})
"""Numbers that paging, runs and lifetimes go by."""

_CLAIMS: Final = ("user_id", "account_id", "role_code")
_NEVER: Final = 1_700_000_000
_LATEST: Final = 10**12
_ROWS: Final = 20
_DEEPEST: Final = 64
"""What is nested deeper is left out: nothing is compared there, and it could be too deep to be written."""
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_DIGIT: Final = re.compile(r"[0-9]")
_FRACTION: Final = re.compile(r"[.,]([0-9]+)")


@define
class Disguise:
    """Replaces values. One for each session."""

    _contract: Contract
    _key: bytes = field(factory=lambda: secrets.token_bytes(32), repr=False, init=False)
    _numbers: dict[int, int] = field(factory=dict[int, int], repr=False, init=False)
    _taken: set[int] = field(factory=set[int], repr=False, init=False)
    _texts: dict[str, str] = field(factory=dict[str, str], repr=False, init=False)
    _texts_taken: set[str] = field(factory=set[str], repr=False, init=False)
    _new_names: Names = field(factory=Names, repr=False, init=False)

    # --- requests and answers ----------------------------------------------------------------------------------

    def request(self, operation: Operation, body: dict[str, Any]) -> dict[str, Any]:
        """The body of a request: numbers, moments and what the contract lists stay, everything else is made up."""
        known = self._contract.at(self._contract.body(operation))[1]["properties"]

        def disguised(name: str, value: Any) -> Any:
            node = known.get(name, {})
            if node.get("x-secret"):
                return "made-up"
            is_time = node.get("x-format") == "timestamp" and isinstance(value, str) and is_moment(value)
            kept = isinstance(value, bool | int) or is_time or value in node.get("enum", ())
            return value if name in known and kept else self._any(value)

        return {name if name in known else self._name(name): disguised(name, value) for name, value in body.items()}

    def answer(self, operation: Operation, body: dict[str, Any], value: Any) -> Any:
        """The JSON of a success."""
        choice = self._contract.choice(operation, body)
        pointer, _ = self._contract.answer(operation, choice)
        resolved, node = self._contract.at(pointer)
        if "x-unwrap" in node:
            return self._pages(value, node)
        schema = schema_at(self._contract, resolved)
        inner, way = opened(schema, value)
        if not way:
            return self._known(value, resolved)
        if isinstance(value, list):
            return [self._known(inner, resolved)]
        items = cast("dict[str, Any]", value)
        return {
            self._told(key, len(items)): self._known(inner, resolved) if item is inner else self._any(item)
            for key, item in items.items()
        }

    def refusal(self, value: Any) -> Any:
        """The JSON of a refusal."""
        return self._known(value, ("components", "schemas", "Error"))

    def text(self, data: bytes, *, is_csv: bool) -> str:
        """What is no JSON: the first rows of a file, or something as short as nothing."""
        text = data[:START_OF_A_FILE].decode(errors="replace")
        if not text.strip():
            return ""
        if text.lstrip().startswith("<"):
            return "<html>made up</html>"
        return self._csv(text) if is_csv else self._letters("text", text, 12)

    def header(self, name: str, value: str) -> str:
        """The value of a header of an answer."""
        if name == "content-type":
            return media_type_of(value)
        if name == "retry-after" and value.strip().isdigit():
            return value.strip()
        return "made-up"

    # --- values of which the contract knows something ----------------------------------------------------------

    def _known(self, value: Any, pointer: Pointer) -> Any:
        schema = schema_at(self._contract, pointer)
        match value:
            case list() if schema.kind == "array":
                return [self._known(item, (*schema.pointer, "items")) for item in cast("list[object]", value)]
            case dict() if schema.kind == "object" and "properties" in schema.node:
                return self._object(cast("dict[str, Any]", value), schema.pointer, schema.node["properties"])
            case str() if "x-names" in schema.node and self._is_listed(value, schema.node["x-names"]):
                return value
            case int() if pointer[-1] in _KEPT:
                return value
            case _:
                return self._any(value)

    def _object(self, value: dict[str, Any], pointer: Pointer, known: dict[str, Any]) -> dict[str, Any]:
        unknown = sum(key.strip() not in known for key in value)
        recognised = unknown < len(value)
        found: dict[str, Any] = {}
        for key, item in value.items():
            if key.strip() in known:
                found[key] = self._known(item, (*pointer, "properties", key.strip()))
            else:
                told = recognised and self._new_names.may_tell(key, of=pointer, among=unknown)
                found[key if told else self._name(key)] = self._any(item)
        return found

    def _pages(self, value: Any, node: Any) -> Any:
        if not isinstance(value, dict):
            return value if isinstance(value, int) else self._any(value)
        items = cast("dict[str, Any]", value)
        return {
            key if key.strip() in node["x-unwrap"] else self._told(key, len(items)): item
            if key.strip() in node["x-unwrap"] and isinstance(item, int)
            else self._any(item)
            for key, item in items.items()
        }

    @staticmethod
    def _is_listed(value: str, names: list[str]) -> bool:
        return value.strip().casefold() in {name.casefold() for name in names}

    def _told(self, key: str, among: int) -> str:
        return key if is_nameable(key) and among <= MOST_NAMES else self._name(key)

    # --- any value ---------------------------------------------------------------------------------------------

    def _any(self, value: Any, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            return None
        match value:
            case None | bool():
                return value
            case int():
                return self._whole(value)
            case float():
                whole = self._whole(int(value)) if abs(value) < 1e300 else 1
                return float(whole) if value.is_integer() else whole + 0.5
            case str():
                return self._text(value)
            case list():
                return [self._any(item, depth + 1) for item in cast("list[object]", value)]
            case _:
                items = cast("dict[str, Any]", value)
                return {self._name(key): self._any(item, depth + 1) for key, item in items.items()}

    def _whole(self, value: int) -> int:
        """Another number of as many digits; no two become the same."""
        if value == 0:
            return 0
        if value not in self._numbers:
            digits = len(str(abs(value)))
            least, most = 10 ** (digits - 1), 10**digits - 1
            number = least + int.from_bytes(self._hash("whole", str(value))) % (most - least + 1)
            sign = -1 if value < 0 else 1
            while sign * number in self._taken:
                number = number + 1 if number < most else least
            self._taken.add(sign * number)
            self._numbers[value] = sign * number
        return self._numbers[value]

    def _text(self, text: str) -> str:
        if is_moment(text):
            return self._moment(text)
        match form_of(text):
            case "an empty text":
                return ""
            case "a UUID":
                return str(uuid.UUID(bytes=self._hash("uuid", text.lower())[:16], version=4))
            case "a JWT":
                return self._token(text)
            case "a URL":
                # A signed URL has another signature each time, and names the same file.
                place, _, query = text.partition("?")
                name = self._letters("url", place, 16)
                return f"https://made-up.invalid/{name}{'?signature=made-up' if query else ''}"
            case "an e-mail address":
                return f"{self._letters('e-mail', text, 8)}@made-up.invalid"
            case "a number as text":
                return self._number(text)
            case _:
                longest = length_class(text)
                length = LENGTHS[-1] + 1 if longest is None else longest
                # As short as its class has it: nobody wants to read more.
                shorter = (8, 16, 33, 129, 513)[LENGTHS.index(length)] if longest is not None else length
                return self._letters("text", text, shorter)

    def _number(self, text: str) -> str:
        """Another number as text, written in the same way; no two become the same, since ids are often written so."""
        if text not in self._texts:
            length = len(_DIGIT.findall(text))
            number = int.from_bytes(self._hash("digits", text))

            def written(number: int) -> str:
                digits = iter(f"{number % 10**length:0{length}d}")
                return _DIGIT.sub(lambda _: next(digits), text)

            while (made := written(number)) in self._texts_taken:
                number += 1
            self._texts_taken.add(made)
            self._texts[text] = made
        return self._texts[text]

    def _moment(self, text: str) -> str:
        """Another moment, written in the same way."""
        number = int.from_bytes(self._hash("moment", text))
        pieces = [2020 + number % 10, 1 + number // 10 % 12, 1 + number // 120 % 28]
        pieces += [number // 3_360 % 24, number // 80_640 % 60, number // 4_838_400 % 60]
        digits = "".join(f"{piece:02d}" for piece in pieces)
        date_and_time, rest = text[:19], text[19:]
        made, used = "", iter(digits)
        for letter in date_and_time:
            made += next(used) if letter.isdigit() else letter
        return made + _FRACTION.sub(lambda found: found[0][0] + self._digits(text, len(found[1])), rest)

    def _token(self, token: str) -> str:
        """A token that nobody takes, good for as long as the real one."""
        parts = token.split(".")
        try:
            claims: Any = loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except ValueError:
            claims = {}
        made: dict[str, Any] = {"jti": self._letters("token", token, 16), "iat": _NEVER}
        if isinstance(claims, dict):
            known = cast("dict[str, Any]", claims)
            lifetime = [known.get(name) for name in ("exp", "iat")]
            if all(isinstance(moment, int | float) and abs(moment) < _LATEST for moment in lifetime):
                made["exp"] = _NEVER + round(known["exp"] - known["iat"])
            made |= {name: self._any(known[name]) for name in _CLAIMS if name in known}
        return ".".join((_encoded({"alg": "none", "typ": "JWT"}), _encoded(made), "bWFkZS11cA"))

    def _csv(self, text: str) -> str:
        """The first rows, their cells made up."""
        *rows, last = csv.reader(io.StringIO(text, newline=""))
        rows = [*rows, last][: _ROWS + 1]
        made = io.StringIO(newline="")
        writer = csv.writer(made)
        writer.writerow([f"column_{number}" for number in range(1, len(rows[0]) + 1)])
        writer.writerows([[self._text(cell) for cell in row] for row in rows[1:]])
        return made.getvalue()

    def _name(self, key: str) -> str:
        """The key of a field whose name is not told: it begins such that nobody takes it for one."""
        return f"?{self._letters('name', key, 8)}"

    def _letters(self, kind: str, text: str, length: int) -> str:
        found = ""
        while len(found) < length:
            block = self._hash(kind, f"{len(found)}:{text}")
            found += "".join(_LETTERS[byte % len(_LETTERS)] for byte in block)
        return found[:length]

    def _digits(self, text: str, length: int) -> str:
        return "".join(str(ord(letter) % 10) for letter in self._letters("digits", text, length))

    def _hash(self, kind: str, text: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")
