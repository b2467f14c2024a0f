"""Compares answers with the contract, value by value, and keeps nothing of the values."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define, field

from nudgescribe_async.contract_doctor.forms import (
    MOST_NAMES,
    TIMESTAMP,
    Names,
    form_of,
    is_moment,
    is_nameable,
    keys_of,
)
from nudgescribe_async.contract_doctor.report import BREAKS, Difference, Finding
from nudgescribe_async.contract_doctor.watching import NOTHING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async.contract_doctor.contract import Contract, Node, Pointer
    from nudgescribe_async.contract_doctor.watching import Exchange

__all__ = ["Comparison", "Schema", "opened", "schema_at"]

_WORDS: Final = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
}
_WRITTEN_AS: Final = {
    ("Tokens", "access_token"): "a JWT",
    ("Tokens", "refresh_token"): "a JWT",
    ("DownloadLink", "url"): "a URL",
}
_OPTIONAL: Final = "an optional one"
_UNTOLD: Final = "fields whose names are not told"
_REFUSAL: Final = ("components", "schemas", "Error")


@define
class Schema:
    """A schema with its references followed.

    Attributes:
        pointer: where it stands.
        node: what it says.
        kind: the type, without null.
        nullable: whether it may be null.
    """

    pointer: Pointer
    node: Node
    kind: str
    nullable: bool


def schema_at(contract: Contract, pointer: Pointer) -> Schema:
    """The schema that stands there, or that is referred to from there."""
    nullable = False
    while True:
        pointer, node = contract.at(pointer)
        if "anyOf" not in node:
            break
        chosen = next(index for index, item in enumerate(node["anyOf"]) if item.get("type") != "null")
        nullable = nullable or len(node["anyOf"]) > 1
        pointer = (*pointer, "anyOf", chosen)
    kinds: list[str] = node["type"] if isinstance(node.get("type"), list) else [node.get("type", "")]
    kind = next(each for each in kinds if each != "null")
    return Schema(pointer, node, kind, nullable or "null" in kinds)


def opened(schema: Schema, value: Any) -> tuple[Any, str]:
    """What is inside an envelope that the contract does not know, and the way there; else the value, and nothing."""
    known: Mapping[str, Node] = schema.node.get("properties", {})
    if schema.kind == "object" and isinstance(value, list):
        listed = cast("list[object]", value)
        return (listed[0], "[0]") if len(listed) == 1 and keys_of(listed[0]) else (listed, "")
    if not isinstance(value, dict):
        return value, ""
    items = cast("dict[str, Any]", value)
    if schema.kind == "array":
        inside = [key for key, item in items.items() if isinstance(item, list)]
    elif known.keys().isdisjoint(key.strip() for key in items):
        inside = [key for key, item in items.items() if not known.keys().isdisjoint(keys_of(item))]
    else:
        return items, ""
    if len(inside) != 1:
        return items, ""
    told = is_nameable(inside[0]) and len(items) <= MOST_NAMES
    return items[inside[0]], f".{inside[0].strip()}" if told else ".*"


@define
class _Sightings:
    """How often something was found, and of how many."""

    expected: str
    of: str
    count: int = 0


@define
class Comparison:
    """What was found so far.

    Attributes:
        confirmed: what answers have confirmed.
        contradicted: what they have contradicted.
        remarks: what was noticed besides.
        shapes: what was seen, by operation and place.
    """

    contract: Contract
    confirmed: set[Pointer] = field(factory=set["Pointer"], init=False)
    contradicted: set[Pointer] = field(factory=set["Pointer"], init=False)
    remarks: list[str] = field(factory=list[str], init=False)
    shapes: dict[tuple[str, str], Counter[str]] = field(factory=dict[tuple[str, str], Counter[str]], init=False)
    _found: dict[tuple[Difference, str, str, str], _Sightings] = field(
        factory=dict[tuple[Difference, str, str, str], "_Sightings"], init=False
    )
    _looked: Counter[tuple[str, str]] = field(factory=Counter[tuple[str, str]], init=False)
    _absent: Counter[tuple[str, str, str]] = field(factory=Counter[tuple[str, str, str]], init=False)
    _names: dict[Pointer, set[str]] = field(factory=dict["Pointer", set[str]], init=False)
    _new_names: Names = field(factory=Names, init=False)
    _operation: str = field(default="", init=False)

    # --- one answer --------------------------------------------------------------------------------------------

    def compare(self, exchange: Exchange) -> None:
        """Look at one answer."""
        operation = exchange.operation
        self._operation = operation.name
        status = exchange.status
        if status == 200:
            self._compare_success(exchange)
            return
        self._look("status")
        if status not in operation.statuses:
            kind = Difference.MISSING_OPERATION if status in {404, 405} else Difference.UNLISTED_STATUS
            listed = ", ".join(map(str, sorted(operation.statuses)))
            self.find(kind, "status", f"one of {listed}", str(status))
            return
        pointer, _ = self.contract.at((*operation.pointer, "responses", str(status)))
        self.confirmed.add(pointer)
        if exchange.value is NOTHING:
            self._look("refusal")
            self.find(Difference.NOT_JSON, "refusal", "JSON", _what_came(exchange))
        else:
            self._value(exchange.value, _REFUSAL, "refusal")

    def _compare_success(self, exchange: Exchange) -> None:
        choice = self.contract.choice(exchange.operation, exchange.body)
        pointer, content_type = self.contract.answer(exchange.operation, choice)
        self._look("$")
        if content_type == "application/json" and exchange.value is NOTHING:
            self.find(Difference.NOT_JSON, "$", "JSON", _what_came(exchange))
            return
        self._look("content-type")
        if exchange.content_type != content_type:
            received = exchange.content_type or "none"
            self.find(Difference.CONTENT_TYPE, "content-type", content_type, received)
        if content_type == "application/json":
            self._answer(exchange.value, pointer)
        elif exchange.value is not NOTHING:
            self.find(Difference.ENVELOPE, "$", "a file", f"JSON: {form_of(exchange.value)}")

    def _answer(self, value: Any, pointer: Pointer) -> None:
        resolved, node = self.contract.at(pointer)
        if "x-unwrap" in node:
            self._unwrapped(value, resolved, node)
            return
        schema = schema_at(self.contract, pointer)
        inner, way = opened(schema, value)
        if way:
            what = f"{form_of(value)} around it, at ${way}"
            self.find(Difference.ENVELOPE, "$", _expected(schema), what)
        self._value(inner, pointer, "$")

    def _unwrapped(self, value: Any, pointer: Pointer, node: Node) -> None:
        """A number of pages, which may come in several ways."""
        names: list[str] = node["x-unwrap"]
        if not isinstance(value, dict):
            bare = next(index for index, item in enumerate(node["oneOf"]) if "properties" not in item)
            if self._value(value, (*pointer, "oneOf", bare), "$"):
                self.confirmed.add((*pointer, "oneOf", bare))
            return
        items = cast("dict[str, Any]", value)
        for index, alternative in enumerate(node["oneOf"]):
            if not alternative.get("properties", {}).keys().isdisjoint({key.strip() for key in items}):
                self._value(items, (*pointer, "oneOf", index), "$")
                return
        named = sorted({f"{key.strip()!r}" for key in items if is_nameable(key)}) if len(items) <= MOST_NAMES else []
        told = ", ".join(named) or _UNTOLD
        expected = f"{' or '.join(map(repr, names))}, or a bare number"
        self.find(Difference.MISSING_FIELD, "$", expected, f"an object with {told}" if items else "an empty object")

    # --- one value ---------------------------------------------------------------------------------------------

    def _value(self, value: Any, pointer: Pointer, where: str) -> bool:
        """Compare one value with the schema that stands at ``pointer``; whether it confirms that."""
        schema = schema_at(self.contract, pointer)
        self._look(where)
        form = form_of(value)
        self.shapes.setdefault((self._operation, where), Counter())[form] += 1
        if value is None:
            if not schema.nullable:
                self.find(Difference.UNEXPECTED_NULL, where, _expected(schema), "null")
                self.contradicted.add(pointer)
            return False
        if not _is(value, schema.kind):
            self.find(Difference.WRONG_TYPE, where, _expected(schema), form)
            self.contradicted.add(pointer)
            return False
        match schema.kind:
            case "array":
                for item in cast("list[Any]", value):
                    self._value(item, (*schema.pointer, "items"), f"{where}[]")
            case "object" if "properties" in schema.node:
                return self._object(cast("dict[str, Any]", value), schema, where)
            case "object":
                self._look(f"{where}.*")
            case _:
                return self._plain(value, schema, pointer, where, form)
        if schema.node.get("x-evidence") is not None:
            self.confirmed.add(schema.pointer)
        return True

    def _plain(self, value: Any, schema: Schema, pointer: Pointer, where: str, form: str) -> bool:
        if "x-names" in schema.node:
            known = {name.casefold(): name for name in schema.node["x-names"]}
            name = known.get(str(value).strip().casefold())
            if name is None:
                self.find(Difference.UNKNOWN_VALUE, where, f"one of {', '.join(map(repr, known.values()))}", form)
            else:
                self._names.setdefault(schema.pointer, set()).add(name)
            return True
        written = _WRITTEN_AS.get((str(pointer[-3]), str(pointer[-1])))
        if schema.node.get("x-format") == "timestamp":
            written = TIMESTAMP
        if written is not None and form != written:
            expected = f"{written} such as 2025-09-08T18:18:21.462Z" if written == TIMESTAMP else written
            self.find(Difference.OTHER_FORMAT, where, expected, form)
            if written != TIMESTAMP or not is_moment(value):
                self.contradicted.add(pointer)
            return False
        if schema.kind == "integer" and value < schema.node.get("minimum", value):
            self.find(Difference.OTHER_FORMAT, where, f"{schema.node['minimum']} or more", "less")
            return False
        return True

    def _object(self, value: dict[str, Any], schema: Schema, where: str) -> bool:
        known: Mapping[str, Node] = schema.node["properties"]
        fields: dict[str, Any] = {key: item for key, item in value.items() if key in known}
        unknown: list[str] = []
        for key, item in value.items():
            if key in known:
                continue
            if (name := key.strip()) in known and name not in fields:
                fields[name] = item
                self.find(Difference.SPELLING, f"{where}.{name}", repr(name), "the name with white space around it")
            else:
                unknown.append(key)
        if not fields and unknown:
            expected = f"an object with {', '.join(schema.node.get('required', known))}"
            self.find(Difference.ENVELOPE, where, expected, "an object without any of its fields")
            self.contradicted.update((*schema.pointer, "properties", name) for name in schema.node.get("required", ()))
            return False
        for key in unknown:
            if self._new_names.may_tell(key, of=schema.pointer, among=len(unknown)):
                self.find(
                    Difference.NEW_FIELD, f"{where}.{key.strip()}", "no such field", form_of(value[key]), of=where
                )
            else:
                self.find(Difference.NEW_FIELD, f"{where}.*", "no such fields", _UNTOLD, of=where)
        for name in known:
            pointer = (*schema.pointer, "properties", name)
            if name in fields:
                if self._value(fields[name], pointer, f"{where}.{name}"):
                    self.confirmed.add(pointer)
            elif name in schema.node.get("required", ()):
                expected = _expected(schema_at(self.contract, pointer))
                self.find(Difference.MISSING_FIELD, f"{where}.{name}", expected, "not there", of=where)
                self.contradicted.add(pointer)
            else:
                self._absent[self._operation, where, name] += 1
        return True

    # --- what is found -----------------------------------------------------------------------------------------

    def _look(self, where: str) -> None:
        self._looked[self._operation, where] += 1

    def about(self, operation: str) -> None:
        """From now on findings are of this operation."""
        self._operation = operation

    def find(self, kind: Difference, where: str, expected: str, received: str, *, of: str | None = None) -> None:
        """Note a difference of the operation at hand.

        Args:
            kind: how it differs.
            where: the place.
            expected: what the contract says.
            received: what came instead.
            of: the place whose visits count, if it is another one.
        """
        key = kind, self._operation, where, received
        self._found.setdefault(key, _Sightings(expected, of or where)).count += 1

    def findings(self) -> tuple[Finding, ...]:
        """All differences, in the order in which operations and places were met."""
        for (operation, where, name), missing in self._absent.items():
            if missing == self._looked[operation, where]:
                self.about(operation)
                key = Difference.MISSING_FIELD, operation, f"{where}.{name}", "in no object"
                self._found[key] = _Sightings(_OPTIONAL, where, missing)
        found = [
            Finding(
                kind=kind,
                operation=operation,
                where=where,
                expected=seen.expected,
                received=received,
                count=seen.count,
                of=max(seen.count, self._looked[operation, seen.of]),
                breaks=kind in BREAKS or (kind is Difference.MISSING_FIELD and seen.expected != _OPTIONAL),
            )
            for (kind, operation, where, received), seen in self._found.items()
        ]
        order = {operation.name: index for index, operation in enumerate(self.contract.operations)}
        return tuple(sorted(found, key=lambda each: order[each.operation]))

    def settle(self) -> None:
        """Confirm the lists of names of which every one was seen."""
        for pointer, seen in self._names.items():
            if seen == set(self.contract.at(pointer)[1]["x-names"]):
                self.confirmed.add(pointer)


def _expected(schema: Schema) -> str:
    if schema.node.get("x-format") == "timestamp":
        return TIMESTAMP
    return _WORDS[schema.kind]


def _is(value: object, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return form_of(value) == _WORDS["integer"]
        case "number":
            return form_of(value) in {_WORDS["integer"], _WORDS["number"]}
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, dict)


def _what_came(exchange: Exchange) -> str:
    if exchange.too_long:
        return "more than anybody reads"
    if not exchange.start.strip():
        return "nothing"
    return "HTML" if exchange.start.lstrip()[:1] == b"<" else "something else"
