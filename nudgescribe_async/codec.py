"""Bytes to typed objects and back. The only module that knows cattrs and, with ``codec_fast``, msgspec.

An answer is read up to three times. The fast pass (``codec_fast``, where msgspec is installed) takes what is
exactly as the contract has it. What it does not take is read anew by the tolerant pass: ``loads`` and cattrs. What
that refuses is looked at once more with cattrs' detailed validation, which finds where and what. An answer that
the fast pass takes comes out as the tolerant pass would have read it.

Whether msgspec reads it or the standard library, JSON is the same: ``NaN``, infinities, numbers beyond a double, invalid UTF-8 and lone
surrogates are refused, a byte order mark is skipped, and a whole number beyond 64 bits is read as a float (the
limit that JSON itself warns of; ids travel as text). What is nested some hundred levels deep is read, what is
nested more than 1,024 deep is not.

What is forgiven, since the service does it: white space around the keys of a documented object; keys
that the contract does not know (kept in ``extra``); an optional timestamp whose text is none
(``None``, and the text kept in ``extra``); an unknown value of an open enumeration (kept as it came).
Keys inside a profile or a row of messages are the customer's own and are left alone.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, Union, cast, get_args, get_origin

import attrs
from cattrs import BaseValidationError, Converter, transform_error
from cattrs.errors import IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from nudgescribe_async.codec_values import is_open_enumeration, moment, open_enumeration
from nudgescribe_async.endpoint import timestamp
from nudgescribe_async.errors import ResponseDecodeError
from nudgescribe_async.shapes import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from nudgescribe_async.endpoint import Endpoint
    from nudgescribe_async.shapes import JSON

__all__ = ["Codec", "InvalidJSONError", "dumps", "loads"]

T = TypeVar("T")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


# --- JSON ------------------------------------------------------------------------------------------


class InvalidJSONError(ValueError):
    """The bytes are no JSON that this package accepts."""


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _integer(text: str) -> int | float:
    number = int(text) if len(text) < 21 else float(text)
    return number if -(2**63) <= number < 2**64 else _finite(text)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refused(text)


_decode = json.JSONDecoder(parse_constant=_refused, parse_float=_finite, parse_int=_integer).decode


_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(?P<lone>u[dD][89a-fA-F])|.)")


def _standard_loads(data: bytes) -> Any:
    text = data.decode()
    value = _decode(text)
    # A single character is found many times faster than two or more.
    suspicious = "\\" in text and ("\\ud" in text or "\\uD" in text)
    for escape in _ESCAPE.finditer(text) if suspicious else ():
        if escape["lone"] is not None:  # half of a surrogate pair: a text that no encoder can write
            raise json.JSONDecodeError("lone surrogate", text, escape.start())
    return value


def _standard_dumps(value: JSON) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


_fast_loads: Callable[[bytes], Any] | None = None
_fast_dumps: Callable[[Any], bytes] | None = None
_fast_pass: Callable[[Any, tuple[str, ...]], Callable[[bytes], Any] | None] | None = None
with suppress(ImportError):  # the extra `speed`
    from nudgescribe_async import codec_fast

    _fast_loads, _fast_dumps, _fast_pass = codec_fast.fast_loads, codec_fast.fast_dumps, codec_fast.fast_pass


def looks_whole(data: bytes) -> bool:
    """Whether this may be a JSON object or array, by a look at both ends."""
    return (data[:64].lstrip()[:1], data[-64:].rstrip()[-1:]) in {(b"{", b"}"), (b"[", b"]")}


def loads(data: bytes) -> Any:
    """The value of a JSON document.

    Raises:
        InvalidJSONError: it is none; the text says where, and quotes nothing.
    """
    if _fast_loads is not None:
        try:
            return _fast_loads(data)
        except Exception:  # noqa: BLE001, S110 - whatever it is, the standard library decides
            pass
    problem = "a number that no double can hold"
    try:
        return _standard_loads(data.removeprefix(_BYTE_ORDER_MARK))
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}"
    except UnicodeError:
        problem = "no valid UTF-8"
    except RecursionError:
        problem = "nested too deeply"
    except ValueError:
        pass
    # Out here, and without the data, so that no traceback holds what may be a token or a customer.
    del data
    raise InvalidJSONError(f"not JSON ({problem})")


def dumps(value: JSON) -> bytes:
    """A value as JSON, compact, in UTF-8; ``endpoint.checked`` saw to it that it can be."""
    return _standard_dumps(value) if _fast_dumps is None else _fast_dumps(value)


# --- structure -------------------------------------------------------------------------------------


class _MismatchError(ValueError):
    """A value is not what the contract says. It never leaves this module."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(expected)
        self.expected = expected
        self.received = _kind(value)


class _NoTimestampError(_MismatchError):
    """A text that ought to be a timestamp."""


def _kind(value: object) -> str:
    """What a JSON value is, without its content."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return f"a text of {len(value)} characters" if value else "an empty text"
        case list():
            return f"an array of {len(cast('list[object]', value))}"
        case _:
            return "an object"


def _text(value: object, _: object) -> str:
    if type(value) is str:
        return value
    raise _MismatchError("a text", value)


def _optional_text(value: object, _: object) -> str | None:
    if type(value) is str or value is None:
        return value
    raise _MismatchError("a text", value)


def _whole_number(value: object, _: object) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)  # 3.0 is a whole number in JSON
    raise _MismatchError("a whole number", value)


def _truth(value: object, _: object) -> bool:
    if type(value) is bool:
        return value
    raise _MismatchError("true or false", value)


def _timestamp(value: object, _: object) -> datetime:
    if type(value) is not str:
        raise _MismatchError("a timestamp", value)
    try:
        return moment(value)
    except (ValueError, OverflowError):
        raise _NoTimestampError("a timestamp (ISO 8601)", value) from None


def _optional_timestamp(value: object, _: object) -> datetime | None:
    return None if value is None else _timestamp(value, _)


def _json_object(value: object, _: object) -> dict[str, JSON]:
    if type(value) is dict:
        return cast("dict[str, JSON]", value)
    raise _MismatchError("an object", value)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list


def _is_json_object(kind: Any) -> bool:
    return get_origin(kind) is dict


def _list_hook(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    item = get_args(kind)[0]
    structure = converter.get_structure_hook(item)

    def hook(value: object, _: object) -> Any:
        if type(value) is list:
            return [structure(element, item) for element in cast("list[object]", value)]
        raise _MismatchError("an array", value)

    def explaining_hook(value: object, _: object) -> Any:
        if type(value) is not list:
            raise _MismatchError("an array", value)
        structured: list[Any] = []
        for element in cast("list[object]", value):
            try:
                structured.append(structure(element, item))
            except (KeyError, ValueError, BaseValidationError) as error:
                # Only the first: cattrs would keep an error for each, which takes gigabytes where none of a million fits.
                error.add_note(IterableValidationNote("", len(structured), item))
                raise IterableValidationError("", [error], kind) from None  # pyright: ignore[reportCallIssue] - of its base
        return structured

    return explaining_hook if converter.detailed_validation else hook


def _open_enumeration_hook(kind: Any) -> Callable[[Any, Any], Any]:
    exact, read = open_enumeration(kind)
    optional = NoneType in get_args(kind)

    def hook(value: object, _: object) -> Any:
        if type(value) is str:
            return exact.get(value) or read(value)
        if value is None and optional:
            return None
        raise _MismatchError("a text", value)

    return hook


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType) and len(get_args(kind)) == 2 and NoneType in get_args(kind)


def _optional_hook(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    # cattrs looks the hook of an optional up for every value; this looks it up once, and the commonest need no other.
    (inner,) = (argument for argument in get_args(kind) if argument is not NoneType)
    if inner is str:
        return _optional_text
    if inner is datetime:
        return _optional_timestamp
    structure = converter.get_structure_hook(inner)

    def hook(value: object, _: object) -> Any:
        return None if value is None else structure(value, inner)

    return hook


def _has_timestamp(attribute: attrs.Attribute[Any]) -> bool:
    return datetime in get_args(attribute.type) and NoneType in get_args(attribute.type)


def _model_hook(model: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    """Structure one of the generated models.

    An answer as documented is handed to cattrs as it is. Anything else is tidied first.
    """
    attrs.resolve_types(model)
    structure = cast("Callable[[Any, Any], Any]", make_dict_structure_fn(model, converter, extra=override(omit=True)))
    attributes = {attribute.name: attribute for attribute in attrs.fields(model)}
    del attributes["extra"]
    known = frozenset(attributes)
    timestamps = tuple(name for name, attribute in attributes.items() if _has_timestamp(attribute))

    def tidied(value: dict[str, Any]) -> Any:
        fields = {key: item for key, item in value.items() if key in known}
        extra: dict[str, Any] = {}
        for key, item in value.items():
            if key not in known:
                name = key.strip()
                if name in known and name not in fields:
                    fields[name] = item
                else:
                    extra[key] = item
        for name in timestamps:
            if type(text := fields.get(name)) is str:
                try:
                    _timestamp(text, datetime)
                except _NoTimestampError:
                    extra[name] = fields.pop(name)
        instance = structure(fields, model)
        instance.extra = extra
        return instance

    def hook(value: Any, _: object) -> Any:
        if type(value) is not dict:
            raise _MismatchError("an object", value)
        if known.issuperset(cast("dict[str, Any]", value)):
            try:
                return structure(value, model)
            except (KeyError, ValueError, BaseValidationError):
                if not timestamps:
                    raise
        # Where a timestamp is none, that is forgiven, and only the rest is what is wrong.
        return tidied(cast("dict[str, Any]", value))

    return hook


@cache
def _converter(*, detailed: bool) -> Converter:
    converter = Converter(detailed_validation=detailed)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, _whole_number)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(datetime, _timestamp)
    converter.register_structure_hook_factory(attrs.has, _model_hook)
    converter.register_structure_hook_factory(_is_list, _list_hook)
    converter.register_structure_hook_func(_is_json_object, _json_object)
    converter.register_structure_hook_factory(_is_optional, _optional_hook)
    converter.register_structure_hook_factory(is_open_enumeration, _open_enumeration_hook)
    converter.register_unstructure_hook(datetime, timestamp)
    converter.register_unstructure_hook(StrEnum, lambda member: member.value)
    converter.register_unstructure_hook_factory(attrs.has, _model_unhook)
    return converter


@cache
def _structure(kind: Any) -> Callable[[Any, Any], Any]:
    return _converter(detailed=False).get_structure_hook(kind)


def _model_unhook(model: Any, converter: Converter) -> Callable[[Any], Any]:
    attrs.resolve_types(model)
    names = [attribute.name for attribute in attrs.fields(model) if attribute.name != "extra"]
    json_objects = {
        item.name for item in attrs.fields(model) if any(map(_is_json_object, (item.type, *get_args(item.type))))
    }

    def unhook(instance: Any) -> dict[str, Any]:
        fields = dict(cast("dict[str, Any]", instance.extra))
        for name in names:
            if (item := getattr(instance, name)) is not None:
                fields[name] = item if name in json_objects else converter.unstructure(item)
        return fields

    return unhook


class Codec:
    """Turns answers into typed objects, and objects into JSON.

    What a type needs is built when it is first met, in a millisecond or less, once for all codecs. A codec holds no
    state of calls, so one serves any number of callers, in any thread.
    """

    def decode(self, endpoint: Endpoint[T], data: bytes) -> T:
        """The answer of an operation.

        Raises:
            ResponseDecodeError: the bytes are no JSON, or do not fit the contract.
        """
        fast = None if _fast_pass is None or endpoint.answer is str else _fast_pass(endpoint.answer, endpoint.unwrap)
        if fast is not None:
            try:
                found: T = fast(data)
                return found  # noqa: TRY300
            except Exception:  # noqa: BLE001, S110 - whatever it is, the tolerant pass decides
                pass
        decoded: Callable[[Endpoint[T], bytes], T | ResponseDecodeError]
        decoded = self._decoded_text if endpoint.answer is str else self._decoded
        result = decoded(endpoint, data)
        del data  # an error is raised without it: tracebacks may be kept with their locals
        if isinstance(result, ResponseDecodeError):
            raise result
        return result

    def _decoded(self, endpoint: Endpoint[T], data: bytes) -> T | ResponseDecodeError:
        try:
            value = loads(data)
        except InvalidJSONError as error:
            return ResponseDecodeError(
                f"The answer is {error}.",
                expected="JSON",
                received=f"{len(data):,} bytes",
                operation=endpoint.operation,
            )
        return self._structured(endpoint, value)

    def _structured(self, endpoint: Endpoint[T], value: Any) -> T | ResponseDecodeError:
        root = "$"
        if endpoint.unwrap and type(value) is dict:
            items = cast("dict[str, Any]", value)
            fields = {key.strip(): item for key, item in items.items()} | items
            name = next((name for name in endpoint.unwrap if name in fields), endpoint.unwrap[0])
            if name not in fields:
                evidence = _shape_evidence(endpoint)
                return self._error(endpoint, "$", f"an object with {name!r}", "an object without", evidence)
            value, root = fields[name], f"$.{name}"
        answer: Any = endpoint.answer
        try:
            result: T = _structure(answer)(value, answer)
        except (KeyError, ValueError):
            return self._explained(endpoint, value, root)
        if endpoint.unwrap and isinstance(result, int) and result < 0:
            evidence = _shape_evidence(endpoint)
            return self._error(endpoint, root, "a number that is not negative", "a negative one", evidence)
        return result

    def unstructure(self, value: object) -> Any:
        """A model, or a list of them, as JSON values; what is ``None`` is left out."""
        return _converter(detailed=False).unstructure(value)

    def _decoded_text(self, endpoint: Endpoint[T], data: bytes) -> T | ResponseDecodeError:
        try:
            return cast("T", data.decode())
        except UnicodeDecodeError as error:
            return ResponseDecodeError(
                f"The answer is no valid UTF-8 (at byte {error.start:,}).",
                expected="UTF-8",
                received=f"{len(data):,} bytes",
                operation=endpoint.operation,
            )

    def _explained(self, endpoint: Endpoint[Any], value: Any, root: str) -> ResponseDecodeError:
        """What the detailed validation finds."""
        try:
            _converter(detailed=True).structure(value, endpoint.answer)
        except _MismatchError as error:
            return self._error(endpoint, root, error.expected, error.received, _shape_evidence(endpoint))
        except BaseValidationError as error:
            leaf, path = _first_leaf(error, root)
            evidence = _evidence(endpoint.answer, path) or _shape_evidence(endpoint)
            if isinstance(leaf, _MismatchError):
                return self._error(endpoint, path, leaf.expected, leaf.received, evidence)
            return self._error(endpoint, path, "a value", "nothing", evidence)
        raise AssertionError("the two passes disagree")  # pragma: no cover - both are made of the same hooks

    @staticmethod
    def _error(endpoint: Endpoint[Any], path: str, expected: str, received: str, evidence: str) -> ResponseDecodeError:
        return ResponseDecodeError(
            f"The answer does not fit the contract: at {path} it should have {expected}, and has {received} "
            f"(the contract's evidence: {evidence}).",
            path=path,
            expected=expected,
            received=received,
            evidence=evidence,
            operation=endpoint.operation,
        )


def _first_leaf(error: Exception, root: str) -> tuple[BaseException, str]:
    """The first thing that is wrong, and where, as cattrs tells it."""
    leaves: list[BaseException] = []

    def keep(leaf: BaseException, _: object) -> str:
        leaves.append(leaf)
        return ""

    messages = transform_error(cast("Any", error), path=root, format_exception=keep)
    return leaves[0], messages[0].rpartition(" @ ")[2]


def _shape_evidence(endpoint: Endpoint[Any]) -> str:
    """How well the contract knows what an operation answers as a whole.

    ``endpoint.evidence`` is that of the method and the path; bodies are stated by the seeds alone.
    """
    return str(endpoint.evidence if endpoint.evidence is Evidence.SEED else Evidence.ASSUMED)


def _evidence(kind: Any, path: str) -> str | None:
    """How well the contract knows the last named property of a path."""
    found: str | None = None
    for name in path.replace("[", ".[").split(".")[1:]:
        for argument in (kind, *get_args(kind)):
            if name.startswith("[") and get_origin(argument) is list:
                kind = get_args(argument)[0]
                break
            if attrs.has(argument) and name in (fields := attrs.fields_dict(argument)):
                kind, found = fields[name].type, str(fields[name].metadata.get("evidence", ""))
                break
    return found
