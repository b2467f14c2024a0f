"""The contract as the doctor reads it: operations, schemas, and where each assumption stands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

from attrs import field, frozen

__all__ = ["Contract", "Node", "Operation", "Pointer", "name_of"]

Pointer: TypeAlias = tuple[str | int, ...]
"""Where something stands in the contract: keys and indexes, from the top."""

Node: TypeAlias = Mapping[str, Any]


@frozen(kw_only=True)
class Operation:
    """One operation of the contract.

    Attributes:
        name: such as ``"customers.list"``.
        method: in capital letters.
        path: below the address of the service.
        effect: ``"read"``, or what else it does.
        node: all that the contract says.
        pointer: where.
    """

    name: str
    method: str
    path: str
    effect: str
    node: Node = field(repr=False)
    pointer: Pointer = field(repr=False)

    @property
    def statuses(self) -> set[int]:
        """Those that the contract lists."""
        return {int(status) for status in self.node["responses"]}


@frozen
class Contract:
    """The contract that is installed with the package."""

    document: Node = field(repr=False)

    @staticmethod
    @cache
    def load() -> Contract:
        """Read it; once."""
        text = files("nudgescribe_async").joinpath("contract", "openapi.json").read_bytes()
        return Contract(json.loads(text))

    @property
    def version(self) -> str:
        """The edition of the reference that it describes."""
        return str(self.document["info"]["version"])

    @property
    def operations(self) -> Sequence[Operation]:
        """All operations."""
        return [
            Operation(
                name=node["operationId"],
                method=method.upper(),
                path=path,
                effect=node["x-effect"],
                node=node,
                pointer=("paths", path, method),
            )
            for path, methods in self.document["paths"].items()
            for method, node in methods.items()
        ]

    def requested(self, method: str, url: str) -> Operation | None:
        """The operation that a request is for, whatever the path of the address that the service has."""
        path = urlsplit(url).path
        found = (each for each in self.operations if each.method == method and path.endswith(each.path))
        return next(found, None)

    def at(self, pointer: Pointer) -> tuple[Pointer, Node]:
        """What stands there, or where it refers to."""
        node: Any = self.document
        for key in pointer:
            node = node[key]
        if "$ref" in node:
            return self.at(tuple(str(node["$ref"]).removeprefix("#/").split("/")))
        return pointer, cast("Node", node)

    def answer(self, operation: Operation, choice: str | None) -> tuple[Pointer, str]:
        """Where the schema of a success is, and its type of content.

        Args:
            operation: the operation.
            choice: of what decides about the answer, such as the format of a file, if anything does.
        """
        if choice is None:
            return (*operation.pointer, "responses", "200", "content", "application/json", "schema"), "application/json"
        how = operation.node["x-answer-by"][choice]
        if "mediaType" in how:
            kind = str(how["mediaType"])
            return (*operation.pointer, "responses", "200", "content", kind, "schema"), kind
        return ("components", "schemas", str(how["schema"])), "application/json"

    def choice(self, operation: Operation, body: Node) -> str | None:
        """What a request has chosen, where that decides about the answer."""
        decides = operation.node.get("x-answer-by", {}).get("property")
        if decides is None:
            return None
        properties = self.at(self.body(operation))[1]["properties"]
        return str(body.get(decides, properties[decides].get("default")))

    def body(self, operation: Operation) -> Pointer:
        """Where the schema of the JSON body is; all operations but the renewal of tokens have one."""
        return self.at((*operation.pointer, "requestBody", "content", "application/json", "schema"))[0]

    def assumptions(self) -> Iterator[Pointer]:
        """Where the contract says that it assumes something."""
        return _assumed(self.document, ())


def _assumed(node: Any, pointer: Pointer) -> Iterator[Pointer]:
    items: Iterable[tuple[str | int, Any]]
    if isinstance(node, dict):
        if cast("Node", node).get("x-evidence") == "assumed":
            yield pointer
        items = cast("dict[str, Any]", node).items()
    elif isinstance(node, list):
        items = enumerate(cast("list[object]", node))
    else:
        return
    for key, item in items:
        yield from _assumed(item, (*pointer, key))


def name_of(pointer: Pointer) -> str:
    """What stands somewhere in the contract, for people: ``Campaign.run_number``."""
    words = [str(key) for key in pointer if key not in {"components", "schemas", "properties", "oneOf"}]
    if "x-first-page" in words:
        return f"{'.'.join(words[:-1])} (where pages begin)"
    if isinstance(pointer[-1], int):
        return f"{'.'.join(words[:-1])} (as a bare number)"
    if pointer[:2] == ("components", "responses"):
        return f"{words[-1]} (an answer)"
    return ".".join(word for word in words if not word.isdigit())
