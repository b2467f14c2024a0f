"""Values of the package as values of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from enum import Enum
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, cast

from attrs import fields, has

from nudgescribe_async.shapes import NotPickled, Secret

if TYPE_CHECKING:
    from attrs import AttrsInstance

    from nudgescribe_async.shapes import JSON

__all__ = ["members", "plain"]


def plain(value: object) -> JSON:
    """A value as JSON has it.

    Objects of attrs become mappings of their public fields; ``extra`` is left out where it is empty. Moments are
    ISO 8601, and enumerations their value.

    Raises:
        TypeError: the value holds a secret, or is nothing that JSON could hold.
    """
    match value:
        case NotPickled() | Secret():
            raise TypeError(f"{type(value).__name__} holds a secret, and is not printed.")
        case bytes() | bytearray():
            raise TypeError("Bytes are nothing that JSON can hold.")
        case None | bool() | int() | float():
            return value
        case Enum():
            return plain(value.value)
        case str():
            return str(value)
        case datetime() | date():
            return value.isoformat()
        case PathLike():
            return str(fspath(cast("PathLike[str]", value)))
        case Mapping():
            return {str(name): plain(item) for name, item in cast("Mapping[object, object]", value).items()}
        case Sequence() | AbstractSet():
            return [plain(item) for item in cast("Sequence[object]", value)]
        case _ if has(type(value)):
            return members(value)
        case _:
            raise TypeError(f"{type(value).__name__} is nothing that JSON can hold.")


def members(value: Any) -> dict[str, JSON]:
    """The public fields of an object of attrs, as JSON has them.

    Raises:
        TypeError: as ``plain``.
    """
    found = {
        item.name: getattr(value, item.name)
        for item in fields(cast("type[AttrsInstance]", type(value)))
        if not item.name.startswith("_")
    }
    return {name: plain(item) for name, item in found.items() if name != "extra" or item}
