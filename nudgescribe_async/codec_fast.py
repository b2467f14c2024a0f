"""The fast pass of the codec: msgspec, and functions that are generated for each model (extra ``speed``).

msgspec reads the bytes into structs that have exactly the fields of the contract, of exactly its types. A
generated function then moves these into the model, past its ``__init__``. So a record costs little more than
plain dicts do: msgspec could write into the models itself, but that takes longer, and drops unknown keys.

This pass forgives nothing and explains nothing. Where it raises, whatever it is, the other pass decides from
the same bytes; where it does not, the other would have given the same. msgspec's errors quote keys of the
answer: they must not become the context of another.

Struct fields are of narrower types than the contract's where msgspec takes more than ``codec`` promises: whole
numbers of more than 64 bits, and nesting, which is left to the other pass beyond ``_DEPTH`` levels.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from types import GenericAlias, NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import attrs
import msgspec

from nudgescribe_async.codec_values import in_utc, is_open_enumeration, open_enumeration

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fast_dumps", "fast_loads", "fast_pass"]

_INT = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_COUNT = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_DEPTH = 4  # each level doubles what msgspec builds for a type


def _json_value(depth: int) -> Any:
    kind: Any = Union[None, bool, _INT, float, str]  # noqa: UP007 - built step by step
    scalar = kind
    for _ in range(depth):
        kind = Union[scalar, list[kind], dict[str, kind]]  # noqa: UP007
    return kind


_JSON = _json_value(_DEPTH)
fast_loads: Callable[[bytes], Any] = msgspec.json.Decoder(_JSON).decode
fast_dumps: Callable[[Any], bytes] = msgspec.json.Encoder().encode


@cache
def fast_pass(answer: Any, unwrap: tuple[str, ...]) -> Callable[[bytes], Any] | None:
    """What reads an answer of a type, built once; ``None`` if it is of a type that this pass does not know.

    Args:
        answer: the type.
        unwrap: names of which the first present in the answer holds the answer.
    """
    try:
        wire, convert = _wire(answer), _conversion(answer)
        if not unwrap:
            return _composed(wire, convert)
        if answer is int:
            wire = _COUNT
        return _composed(*_unwrapped(wire, convert, unwrap))
    except TypeError:
        return None


def _composed(wire: Any, convert: Callable[[Any], Any] | None) -> Callable[[bytes], Any]:
    read = msgspec.json.Decoder(wire).decode
    if convert is None:
        return read

    def decode(data: bytes) -> Any:
        return convert(read(data))

    return decode


def _unwrapped(
    wire: Any, convert: Callable[[Any], Any] | None, names: tuple[str, ...]
) -> tuple[Any, Callable[[Any], Any]]:
    envelope = _struct("Envelope", [(name, wire | msgspec.UnsetType, msgspec.UNSET) for name in names])

    def unwrap(value: Any) -> Any:
        if type(value) is envelope:
            value = first_of(value)
        return value if convert is None else convert(value)

    def first_of(fields: Any) -> Any:
        for name in names:
            if (item := getattr(fields, name)) is not msgspec.UNSET:
                return item
        raise ValueError("none of the names")

    return wire | envelope, unwrap


# --- types -----------------------------------------------------------------------------------------


def _wire(kind: Any) -> Any:
    """The type that msgspec reads for a type of the models."""
    if kind in (str, bool, datetime):
        return kind
    if kind is int:
        return _INT
    if is_open_enumeration(kind):
        return str | None if NoneType in get_args(kind) else str
    if attrs.has(kind):
        return _wire_struct(kind)
    if get_origin(kind) is dict:
        return GenericAlias(dict, (str, _JSON))
    if get_origin(kind) is list:
        return GenericAlias(list, (_wire(get_args(kind)[0]),))
    if (inner := _optional(kind)) is not None:
        return _wire(inner) | None
    raise TypeError(f"no fast pass for {kind}")


def _optional(kind: Any) -> Any:
    """What an optional type is if it is not ``None``; ``None`` for any other type."""
    if get_origin(kind) not in (Union, UnionType) or NoneType not in get_args(kind):
        return None
    inner = [argument for argument in get_args(kind) if argument is not NoneType]
    return inner[0] if len(inner) == 1 else None


def _fields(model: Any) -> list[attrs.Attribute[Any]]:
    attrs.resolve_types(model)
    return [attribute for attribute in attrs.fields(model) if attribute.name != "extra"]


@cache
def _wire_struct(model: Any) -> Any:
    fields: list[Any] = []
    for item in _fields(model):
        if item.default is not attrs.NOTHING and item.default is not None:
            raise TypeError(f"no fast pass for the default of {item.name}")
        fields.append((item.name, _wire(item.type), *(() if item.default is attrs.NOTHING else (None,))))
    return _struct(model.__name__, fields)


def _struct(name: str, fields: list[Any]) -> Any:
    # Structs live for one answer, and are part of no cycle.
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True, gc=False)


# --- generated functions ---------------------------------------------------------------------------


def _conversion(kind: Any) -> Callable[[Any], Any] | None:
    """What makes a value of a type from what msgspec read; ``None`` if it is that already."""
    if attrs.has(kind):
        return _converted(kind)[0]
    if get_origin(kind) is list and attrs.has(item := get_args(kind)[0]):
        return _converted(item)[1]
    inner = _optional(kind)
    if kind is datetime or is_open_enumeration(kind) or (inner is not None and _conversion(inner) is not None):
        raise TypeError(f"no fast pass for {kind} but as a field")
    if get_origin(kind) is list and _conversion(get_args(kind)[0]) is not None:
        raise TypeError(f"no fast pass for {kind}")
    return None


@cache
def _converted(model: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """What makes a model from a struct, and a list of models from a list of structs, in place."""
    names: dict[str, Any] = {"Model": model, "new": object.__new__, "UTC": UTC, "in_utc": in_utc}
    moves = [line for item in _fields(model) for line in _moved(item.name, item.type, names)]
    moves.append("model.extra = {}")
    source = [
        "def one(wire):",
        "    model = new(Model)",
        *("    " + line for line in moves),
        "    return model",
        "def many(values):",
        "    for index, wire in enumerate(values):",
        "        values[index] = model = new(Model)",
        *("        " + line for line in moves),
        "    return values",
    ]
    exec(compile("\n".join(source), f"<fast pass: {model.__name__}>", "exec"), names)  # noqa: S102 - our own text
    return names["one"], names["many"]


def _moved(name: str, kind: Any, names: dict[str, Any]) -> list[str]:
    """The lines that move a field; what they need is put among the names."""
    kind_of_value = _optional(kind) or kind
    if kind_of_value is datetime:
        wanted, change = "value.tzinfo is not UTC", "value = in_utc(value)"
    elif is_open_enumeration(kind):
        exact, read = open_enumeration(kind)
        names[f"exact_{name}"], names[f"read_{name}"] = exact.get, read
        wanted, change = "", f"value = exact_{name}(value) or read_{name}(value)"
    elif (convert := _conversion(kind_of_value)) is not None:
        names[f"convert_{name}"] = convert
        wanted, change = "", f"value = convert_{name}(value)"
    else:
        return [f"model.{name} = wire.{name}"]
    conditions = " and ".join(filter(None, ["value is not None" if NoneType in get_args(kind) else "", wanted]))
    changed = [f"if {conditions}:", f"    {change}"] if conditions else [change]
    return [f"value = wire.{name}", *changed, f"model.{name} = value"]
