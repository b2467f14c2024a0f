"""The contract and the generated endpoints, as the tests look at them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from nudgescribe_async.endpoint import Endpoint

RESOURCES = ("auth", "customers", "customer_groups", "profile_fields", "campaigns", "messages", "reruns")
DOCUMENT: dict[str, Any] = json.loads(
    files("nudgescribe_async").joinpath("contract", "openapi.json").read_text(encoding="utf-8")
)


def _endpoints() -> Iterator[tuple[str, Endpoint[Any]]]:
    for resource in RESOURCES:
        module = importlib.import_module(f"nudgescribe_async.endpoints.{resource}")
        for name, value in vars(module).items():
            if isinstance(value, Endpoint):
                yield f"{resource}.{name}", value


ENDPOINTS: dict[str, Endpoint[Any]] = dict(_endpoints())


def endpoint(operation: str) -> Endpoint[Any]:
    """The first endpoint of an operation."""
    return next(value for value in ENDPOINTS.values() if value.operation == operation)


def nodes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each operation."""
    for path, methods in DOCUMENT["paths"].items():
        for method, node in methods.items():
            yield method.upper(), path, node


def checkout() -> Path | None:
    """The checkout that the tests lie in; ``None`` if they were taken out of it."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").exists() and (folder / "nudgescribe_async" / "contract").is_dir():
            return folder
    return None


def resolved(node: Any) -> Any:
    """A schema with its references put in place, without what only this package understands."""
    if isinstance(node, list):
        return [resolved(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return resolved(DOCUMENT["components"]["schemas"][node["$ref"].rpartition("/")[2]])
    return {key: resolved(item) for key, item in node.items() if key not in ("description", "examples")}


def answer_schema(value: Endpoint[Any], name: str) -> Any:
    """The schema of what an endpoint answers."""
    node = next(node for _, _, node in nodes() if node["operationId"] == value.operation)
    if (choices := node.get("x-answer-by")) is not None:
        chosen = choices[name.rpartition("_")[2].lower()]
        return resolved({"$ref": f"#/components/schemas/{chosen['schema']}"}) if "schema" in chosen else None
    return resolved(node["responses"]["200"]["content"]["application/json"]["schema"])
