"""Whether the contract can be used: its extensions say only what the generator understands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

__all__ = ["ContractError", "problems"]


class ContractError(Exception):
    """The contract says something that the generator cannot use. Nothing was written."""


EVIDENCE = ("seed", "reference", "observed", "assumed")
WORDS = {
    "x-evidence": EVIDENCE,
    "x-effect": ("read", "create", "update", "delete", "action"),
    "x-retry": ("safe", "idempotent", "unsafe"),
    "x-context-headers": EVIDENCE,
    "x-format": ("timestamp",),
    "x-secret": (True, False),
    "x-personal": (True, False),
    "x-partial": (True, False),
    "x-profile": (True, False),
}
PROFILE = ("customer_id", "extended_profile")  # what nudgescribe_async/profiles.py reads
LISTS = ("x-names", "x-unwrap")
OTHERS = ("x-answer-by", "x-first-page", "x-look")


def problems(node: object, where: str = "") -> Iterator[str]:
    """What is wrong with the extensions of the contract, and with what they and ``required`` name."""
    if isinstance(node, list):
        for index, item in enumerate(cast("list[object]", node)):
            yield from problems(item, f"{where}[{index}]")
    elif isinstance(node, dict):
        yield from _problems(cast("dict[str, Any]", node), where)


def _problems(node: dict[str, Any], where: str) -> Iterator[str]:
    for key, value in node.items():
        here = f"{where}.{key}".lstrip(".")
        if key in WORDS and value not in WORDS[key]:
            yield f"{here} is {value!r}; it must be one of {', '.join(map(repr, WORDS[key]))}."
        elif key in LISTS and not _is_names(value):
            yield f"{here} is {value!r}; it must be a list of names, such as [one, other]."
        elif key.startswith("x-") and key not in (*WORDS, *LISTS, *OTHERS):
            yield f"{here} is no extension of this contract."
        if key == "properties":
            for name, schema in value.items():
                if "x-evidence" not in schema:
                    yield f"{here}.{name} has no x-evidence."
            for name in set(node.get("required", ())) - set(value):
                yield f"{where}.required names {name!r}, which is no property."
        yield from problems(value, here)
    if node.get("x-retry", "safe") != "safe" and not re.fullmatch(r"[a-z_]+\.[a-z_]+", str(node.get("x-look"))):
        yield f"{where}.x-look must name the read that tells whether it took effect, such as customers.list."
    if "x-first-page" in node:
        yield from _wrong_first_page(node, where)
    if node.get("x-profile") is True:
        for name in PROFILE:
            if name not in node.get("required", ()):
                yield f"{where}.x-profile needs {name!r} among the required properties; see nudgescribe_async/profiles.py."
    if _is_names(node.get("x-unwrap")):
        alternatives: list[dict[str, Any]] = node.get("oneOf", [])
        known = {name for schema in alternatives for name in schema.get("properties", dict[str, Any]())}
        for name in node["x-unwrap"]:
            if name not in known:
                yield f"{where}.x-unwrap names {name!r}, which no alternative has as a property."


def _wrong_first_page(node: dict[str, Any], where: str) -> Iterator[str]:
    first = cast("dict[str, Any]", node["x-first-page"]) if isinstance(node["x-first-page"], dict) else {}
    if first.get("value") not in (0, 1) or "x-evidence" not in first:
        yield f"{where}.x-first-page must be like {{value: 1, x-evidence: assumed}}, with 0 or 1."
    else:
        for name in ("minimum", "default"):
            if node.get(name, first["value"]) != first["value"]:
                yield f"{where}.{name} is {node[name]!r}, and pages count from {first['value']}."


def _is_names(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(name, str) for name in cast("list[object]", value))
