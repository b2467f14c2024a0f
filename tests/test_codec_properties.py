"""Whatever the contract allows is understood; whatever else comes is kept in ``extra`` or refused in words."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations import ENDPOINTS, answer_schema, endpoint

from nudgescribe_async import codec
from nudgescribe_async.codec import Codec, InvalidJSONError, dumps, loads
from nudgescribe_async.endpoints import models
from nudgescribe_async.errors import ResponseDecodeError

CODEC = Codec()
if TYPE_CHECKING:
    from nudgescribe_async.endpoint import Endpoint

JSON_ENDPOINTS = {name: value for name, value in ENDPOINTS.items() if value.answer is not str}
few = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))

_TIMESTAMPS = ["2025-09-08T18:18:21.462Z", "2025-09-08T18:18:21", "2025-09-08T18:18:21.1+05:30", "string", ""]
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
_OBJECTS = st.dictionaries(st.text(max_size=5), _SCALARS | st.lists(_SCALARS, max_size=2), max_size=3)


def answers(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """The answers that a schema allows, with properties that it does not mention.

    ``hypothesis-jsonschema`` is made for this, and breaks on newer versions of hypothesis, whose inner parts it uses.
    """
    if choices := schema.get("oneOf", schema.get("anyOf")):
        return st.one_of([answers(choice) for choice in choices])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([_of_kind(kind, schema) for kind in kinds])


def _of_kind(kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", -(2**63)), 2**63) | st.integers(0, 2**50).map(float)
        case "string" if "x-names" in schema:
            names = schema["x-names"]
            return st.sampled_from([*names, *map(str.upper, names), f" {names[0]}\t"]) | st.text(max_size=8)
        case "string" if schema.get("x-format") == "timestamp":
            return st.sampled_from(_TIMESTAMPS) | st.datetimes().map(datetime.isoformat) | st.text(max_size=8)
        case "string":
            return st.text(min_size=schema.get("minLength", 0), max_size=12)
        case "array":
            return st.lists(answers(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
        case "object":
            known = {name: answers(item) for name, item in schema.get("properties", {}).items()}
            required = {name: known.pop(name) for name in schema.get("required", ())}
            others = _OBJECTS.map(lambda found: {key: item for key, item in found.items() if key not in _KNOWN})
            documented = st.fixed_dictionaries(required, optional=known)
            return st.builds(lambda first, second: {**first, **second}, documented, others)
        case _:
            raise AssertionError(f"the contract has a new type: {kind}")


_KNOWN = {key for model in vars(models).values() for key in getattr(model, "__annotations__", ())} | {"total_pages"}
ANSWERS = {name: answers(answer_schema(value, name)) for name, value in JSON_ENDPOINTS.items()}


def _kept(before: Any, after: Any) -> bool:
    """Whether nothing of an answer is lost: what is ``null`` may go, and known states and moments are tidied."""
    match before:
        case dict():
            return isinstance(after, dict) and all(
                item is None or (key in after and _kept(item, after[key])) for key, item in before.items()
            )
        case list():
            return len(before) == len(after) and all(map(_kept, before, after))
        case str():
            return bool(before == after or before.strip().casefold() == after.casefold() or _same_moment(before, after))
        case _:
            return bool(before == after)


def _same_moment(before: str, after: str) -> bool:
    try:
        return _naive_utc(before) == _naive_utc(after)
    except ValueError:
        return False


def _naive_utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=None) - (moment.utcoffset() or timedelta(0))


def _attempt(value: Endpoint[Any], data: bytes) -> None:
    """Decode. Nothing but ``ResponseDecodeError`` may come out, with all that it promises."""
    error: ResponseDecodeError | None = None
    result: Any = None
    try:
        result = CODEC.decode(value, data)
    except ResponseDecodeError as caught:
        error = caught
    if error is None:
        again = dumps(CODEC.unstructure(result)) if value.answer is not str else data
        assert CODEC.decode(value, again) == result
        return
    assert error.operation == value.operation
    assert error.path.startswith("$")
    assert error.expected
    assert error.received
    assert error.evidence in ("seed", "reference", "assumed") or error.expected in ("JSON", "UTF-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_contract_allows_is_understood_and_nothing_of_it_is_lost(name: str) -> None:
    value = JSON_ENDPOINTS[name]

    @few
    @given(ANSWERS[name])
    def check(answer: Any) -> None:
        result = CODEC.decode(value, json.dumps(answer).encode())
        back = CODEC.unstructure(result)
        assert CODEC.decode(value, dumps(back)) == result
        if value.unwrap:
            answer = (
                answer if not isinstance(answer, dict) else next(answer[key] for key in value.unwrap if key in answer)
            )
        assert _kept(answer, back), (answer, back)

    check()


_KEYS = sorted(_KNOWN | {"pages"})
_SPACE = st.sampled_from(["", " ", "\t", "\n", "\N{NO-BREAK SPACE}"])
_LEAVES = _SCALARS | st.integers(-(2**70), 2**70) | st.sampled_from(_TIMESTAMPS)
_ANY_KEY = st.sampled_from(_KEYS) | st.text(max_size=4)
ANY_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ANY_KEY, inner, max_size=5),
    max_leaves=12,
)


@st.composite
def mutations(draw: st.DrawFn, value: Any) -> Any:
    """An answer with things dropped, added, renamed and replaced."""
    if draw(st.integers(0, 7)) == 0:
        return draw(ANY_JSON)
    if isinstance(value, list):
        return [draw(mutations(item)) for item in value]
    if isinstance(value, dict):
        changed: dict[str, Any] = {}
        for key, item in value.items():
            what = draw(st.integers(0, 9))
            if what == 0:
                continue
            name = draw(_SPACE) + key + draw(_SPACE) if what == 1 else key
            changed[name] = draw(mutations(item))
        if draw(st.booleans()):
            changed[draw(_ANY_KEY)] = draw(ANY_JSON)
        return changed
    return value


@pytest.mark.parametrize("name", ANSWERS)
def test_any_json_is_understood_or_refused_in_words(name: str) -> None:
    @few
    @given(ANY_JSON)
    def check(answer: Any) -> None:
        _attempt(JSON_ENDPOINTS[name], json.dumps(answer).encode())

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_nearly_right_is_understood_or_refused_in_words(name: str) -> None:
    @few
    @given(ANSWERS[name].flatmap(mutations))
    def check(answer: Any) -> None:
        _attempt(JSON_ENDPOINTS[name], json.dumps(answer).encode())

    check()


@many
@given(
    st.sampled_from(sorted(ENDPOINTS)),
    st.binary(max_size=60) | st.text('[]{}:,"\\u0dD8eE+-.1 ntrf', max_size=30).map(str.encode),
)
def test_any_bytes_are_understood_or_refused_in_words(name: str, data: bytes) -> None:
    _attempt(ENDPOINTS[name], data)


@pytest.mark.parametrize("depth", [100, 500, 5_000, 100_000])
@pytest.mark.parametrize(
    ("before", "after"),
    [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"customer_id":"c","customer_group_id":"g","extended_profile":{"a":', b"}}]")],
)
def test_any_depth_is_understood_or_refused_in_words(depth: int, before: bytes, after: bytes) -> None:
    if b"customer" in before:
        data = before + b"[" * depth + b"]" * depth + after
    else:
        data = before * depth + b"1" + after * depth
    with suppress(ResponseDecodeError):
        CODEC.decode(endpoint("customers.list"), data)


# --- the two JSON libraries ------------------------------------------------------------------------


def _both(data: bytes) -> list[Any]:
    """What is read without msgspec and with it; an ``InvalidJSONError`` is the class itself."""
    fast = pytest.importorskip("nudgescribe_async.codec_fast", exc_type=ImportError)
    found: list[Any] = []
    said: list[str] = []
    for backend in (None, fast.fast_loads):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec, "_fast_loads", backend)
            try:
                found.append(loads(data))
            except InvalidJSONError as error:
                found.append(InvalidJSONError)
                said.append(str(error))
    assert all(text.startswith("not JSON") for text in said)
    return found


def _shape(value: Any) -> Any:
    """A value with its types, so that 1, 1.0 and true differ, and -0.0 from 0.0."""
    match value:
        case dict():
            return {key: _shape(item) for key, item in value.items()}
        case list():
            return [_shape(item) for item in value]
        case _:
            return (type(value).__name__, repr(value))


@many
@given(
    st.binary(max_size=40)
    | st.text(max_size=20).map(str.encode)
    | st.text('[]{}:,"\\u0dD8cC9eE+-.1 \t\n', max_size=30).map(str.encode)
)
def test_the_libraries_agree_on_any_bytes(data: bytes) -> None:
    first, second = _both(data)
    assert _shape(first) == _shape(second)


@many
@given(
    st.lists(
        st.sampled_from(["\\ud83d", "\\ude00", "\\\\", "\\u0041", "\\uD800", "\\uDFFF", "ud800", "x", "\\n"]),
        max_size=6,
    )
)
def test_the_libraries_agree_on_surrogates(parts: list[str]) -> None:
    first, second = _both(f'{{"a": "{"".join(parts)}", "b": ["{"".join(reversed(parts))}"]}}'.encode())
    assert _shape(first) == _shape(second)


@many
@given(
    st.tuples(
        st.sampled_from(["", "-", "+"]),
        st.text("0123456789", max_size=25),
        st.sampled_from(["", ".", ".0", ".5", ".05"]),
        st.sampled_from(["", "e5", "E-5", "e+308", "e309", "e", "e400", "e-400"]),
    ).map("".join)
)
def test_the_libraries_agree_on_numbers(text: str) -> None:
    first, second = _both(f"[{text}]".encode())
    assert _shape(first) == _shape(second)


@many
@given(ANY_JSON)
def test_the_libraries_agree_on_any_value_and_write_what_both_can_read(value: Any) -> None:
    fast = pytest.importorskip("nudgescribe_async.codec_fast", exc_type=ImportError)
    first, second = _both(json.dumps(value).encode())
    assert _shape(first) == _shape(second)
    for write in (codec._standard_dumps, fast.fast_dumps):
        for found in _both(write(first)):
            assert _shape(found) == _shape(first)
