"""Checks requests against the contract, the file that the client is generated from.

Only what the contract's request bodies use is understood: ``$ref``, ``type``, ``required``, ``properties``,
``additionalProperties: false``, ``items``, ``minItems``, ``minLength``, ``minimum`` and ``enum``. Missing fields
are reported before wrong ones, since the service has a status of its own for them.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from nudgescribe_async.sandbox.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_METHODS = ("get", "put", "post", "patch", "delete")


@frozen(kw_only=True)
class Operation:
    """One operation of the contract."""

    operation_id: str
    method: str
    path: str
    effect: str
    first_page: int | None
    json_schema: Mapping[str, Any] | None
    form_schema: Mapping[str, Any] | None


@frozen
class Contract:
    """The contract: its text as it is served, and its operations."""

    text: bytes
    _document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def load(cls, first_page: int | None = None) -> Contract:
        """Read the contract that is installed with the package; with another first page, if one is given."""
        text = files("nudgescribe_async").joinpath("contract", "openapi.json").read_bytes()
        document = json.loads(text)
        if first_page is not None:
            for schema in document["components"]["schemas"].values():
                for item in schema.get("properties", {}).values():
                    if "x-first-page" in item:
                        item["x-first-page"]["value"] = first_page
                        item |= {name: first_page for name in ("minimum", "default") if name in item}
            text = json.dumps(document, indent=1, ensure_ascii=False).encode()
        return cls(text, document)

    def operations(self) -> Iterator[Operation]:
        """Every operation, in the order of the contract."""
        for path, item in self._document["paths"].items():
            for method in _METHODS:
                if method in item:
                    content = item[method].get("requestBody", {}).get("content", {})
                    json_schema = content.get("application/json", {}).get("schema")
                    yield Operation(
                        operation_id=item[method]["operationId"],
                        method=method.upper(),
                        path=path,
                        effect=item[method]["x-effect"],
                        first_page=self._first_page(json_schema),
                        json_schema=json_schema,
                        form_schema=content.get("multipart/form-data", {}).get("schema"),
                    )

    def _first_page(self, schema: Mapping[str, Any] | None) -> int | None:
        """The number of the first page, where a request names a page."""
        page = self._resolve(schema or {}).get("properties", {}).get("page", {})
        return int(page["x-first-page"]["value"]) if "x-first-page" in page else None

    def check(self, schema: Mapping[str, Any], value: Any) -> None:
        """Raise the refusal that a value deserves, if it deserves one."""
        missing: list[str] = []
        wrong: list[str] = []
        self._walk(schema, value, "", missing, wrong)
        if missing:
            raise Refusal("missing_fields", f"Missing Fields: {', '.join(missing[:10])}")
        if wrong:
            raise Refusal("bad_request", f"Bad Request: {'; '.join(wrong[:10])}")

    def _resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            schema = self._document["components"]["schemas"][name]
        return schema

    def _walk(self, schema: Mapping[str, Any], value: Any, where: str, missing: list[str], wrong: list[str]) -> None:
        schema = self._resolve(schema)
        name = where or "the body"
        kind = schema.get("type")
        if isinstance(kind, str) and not _is(value, kind):
            wrong.append(f"{name} must be {_SPOKEN[kind]}")
        elif isinstance(value, dict):
            self._walk_object(schema, value, where, missing, wrong)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, list):
            if len(value) < schema.get("minItems", 0):  # pyright: ignore[reportUnknownArgumentType]
                wrong.append(f"{name} must not be empty")
            for index, item in enumerate(value):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
                self._walk(schema.get("items", {}), item, f"{where}[{index}]", missing, wrong)
        elif isinstance(value, str) and len(value) < schema.get("minLength", 0):
            wrong.append(f"{name} must not be empty")
        elif kind == "integer" and value < schema.get("minimum", value):
            wrong.append(f"{name} must be at least {schema['minimum']}")
        elif "enum" in schema and value not in schema["enum"]:
            wrong.append(f"{name} must be one of {', '.join(map(str, schema['enum']))}")

    def _walk_object(
        self, schema: Mapping[str, Any], value: dict[str, Any], where: str, missing: list[str], wrong: list[str]
    ) -> None:
        prefix = f"{where}." if where else ""
        missing.extend(prefix + name for name in schema.get("required", ()) if name not in value)
        properties = schema.get("properties", {})
        for name, item in value.items():
            if name in properties:
                self._walk(properties[name], item, prefix + name, missing, wrong)
            elif schema.get("additionalProperties") is False:
                wrong.append(f"{(prefix + name)[:100]} is not a field of this operation")


_SPOKEN = {
    "object": "an object",
    "array": "an array",
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
}


def _is(value: object, kind: str) -> bool:
    if kind == "integer":
        # 1.0 is an integer to JSON Schema; whoever uses the value makes an int of it.
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole and not isinstance(value, bool)
    types: dict[str, type] = {"object": dict, "array": list, "string": str, "boolean": bool}
    return isinstance(value, types[kind])
