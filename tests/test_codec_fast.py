"""The fast pass takes what is as documented, and gives what the tolerant pass would have given."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin
from unittest import mock

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from operations import ENDPOINTS, answer_schema, endpoint
from test_codec_properties import ANSWERS, _of_kind, mutations

from nudgescribe_async import codec
from nudgescribe_async.codec import Codec
from nudgescribe_async.codec_values import moment
from nudgescribe_async.endpoints import models
from nudgescribe_async.errors import ResponseDecodeError
from nudgescribe_async.profiles import HasProfile
from nudgescribe_async.shapes import NotPickled

if TYPE_CHECKING:
    from nudgescribe_async.endpoint import Endpoint

msgspec = pytest.importorskip("msgspec")
fast = pytest.importorskip("nudgescribe_async.codec_fast")

JSON_ENDPOINTS = {name: value for name, value in ENDPOINTS.items() if value.answer is not str}
MODELS = [model for model in vars(models).values() if isinstance(model, type) and attrs.has(model)]
T = TypeVar("T")


class Tolerant(Codec):
    """The tolerant pass alone."""

    def decode(self, endpoint: Endpoint[T], data: bytes) -> T:
        with mock.patch.object(codec, "_fast_pass", None):
            return super().decode(endpoint, data)


FAST = Codec()
TOLERANT = Tolerant()
several = settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
few = settings(several, max_examples=25)

MOMENT = "2025-09-08T18:18:21.462Z"
GROUP = {"customer_group_id": "g", "workspace_id": "w", "group_name": "VIP"}
CUSTOMER = {"customer_id": "c", "customer_group_id": "g", "extended_profile": {}}


def taken(value: Endpoint[Any], data: bytes) -> Any:
    """What the fast pass makes of an answer; ``None`` if it leaves it to the other."""
    read = fast.fast_pass(value.answer, value.unwrap)
    assert read is not None
    try:
        return read(data)
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None


def shape(value: Any) -> Any:
    """A value with its types, all the way down, and with the order of keys."""
    match value:
        case dict():
            return [(key, shape(item)) for key, item in value.items()]
        case list():
            return [shape(item) for item in value]
        case datetime():
            return (repr(value), value.tzinfo is UTC)
        case _ if attrs.has(type(value)):
            names = [attribute.name for attribute in attrs.fields(type(value))]
            return (type(value).__name__, [(name, shape(getattr(value, name))) for name in names])
        case _:
            return (type(value).__name__, repr(value))


def result(reader: Codec, value: Endpoint[Any], data: bytes) -> Any:
    """The shape of what a codec makes of an answer, or everything that its refusal says."""
    try:
        return shape(reader.decode(value, data))
    except ResponseDecodeError as error:
        context = error.__context__
        said = (str(error), error.path, error.expected, error.received, error.evidence, error.operation)
    assert context is None
    return said


def documented(schema: dict[str, Any], *, whole: bool) -> Any:
    """An answer with everything that a schema mentions, or only with what it demands."""
    if choices := schema.get("oneOf", schema.get("anyOf")):
        return documented(choices[0], whole=whole)
    kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
    if kind == "array":
        return [documented(schema["items"], whole=whole) for _ in range(3)]
    if kind == "object":
        if "properties" not in schema:
            return {"name": "ü", "nested": [{"n": 1, "x": [2.5, None, True]}], "": "\N{GRINNING FACE}\n"}
        names = schema["properties"] if whole else schema.get("required", ())
        return {name: documented(schema["properties"][name], whole=whole) for name in names}
    if "x-names" in schema:
        return schema["x-names"][-1]
    return MOMENT if schema.get("x-format") == "timestamp" else _DOCUMENTED[kind]


_DOCUMENTED = {"string": "text", "integer": 7, "boolean": True, "number": 1.5}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", JSON_ENDPOINTS)
def test_what_is_as_documented_is_taken(name: str, whole: bool) -> None:
    value = JSON_ENDPOINTS[name]
    answer = documented(answer_schema(value, name), whole=whole)
    for data in (json.dumps(answer).encode(), json.dumps(answer, ensure_ascii=False, indent=1).encode()):
        assert taken(value, data) is not None
        assert result(FAST, value, data) == result(TOLERANT, value, data)


# --- both passes -----------------------------------------------------------------------------------

_SPACE = st.sampled_from(["", "", "", " ", "\n\t"])
_TIMESTAMPS = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["2025-09-08", "0001-01-01", "9999-12-31", "2024-02-29", "20250908", "2025-02-29"]),
    st.sampled_from(["T", "T", "t", " ", "_", ""]),
    st.sampled_from(["18:18:21", "00:00:00", "23:59:59", "23:59:60", "24:00:00", "181821", "18:18"]),
    st.sampled_from(["", ".", ","]),
    st.text("0123459", max_size=9),
    st.sampled_from(["", "Z", "Z", "z", "+00:00", "-00:00", "+02:00", "-23:59", "+0530", "+24:00", "+00", " Z", "Z "]),
)
_NUMBERS = st.sampled_from(
    ["-0", "0.0", "-0.0", "3.0", "3e2", "9007199254740992.0", "1.5", "1e999", "1e-999", "01", "NaN", "-Infinity"]
    + [str(sign * number) for sign in (1, -1) for number in (2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30)]
)
_TEXTS = st.sampled_from(
    ['"\\ud83d\\ude00"', '"\\ud800"', '"\\udc00x"', '"\t"', '"\\/"', '"\\u0000"', '"published"', '"DATE "']
)
_ODD = (
    _TIMESTAMPS.map(json.dumps)
    | _NUMBERS
    | _TEXTS
    | st.sampled_from(
        ["true", "null", "[]", "{}", "[[[[[[[[1]]]]]]]]", "nul", '{"a":{"b":{"c":{"d":{"e":{"f":9e9}}}}}}']
    )
    | st.sampled_from([f'{{"deep": [{{"number": {number}}}]}}' for number in (2**63 - 1, 2**63, -(2**63) - 1, 10**30)])
)


@st.composite
def texts(draw: st.DrawFn, value: Any) -> str:
    """A value as JSON, now and then with odd things in it, and with keys that are there twice."""
    if draw(st.integers(0, 24)) == 0:
        return draw(_ODD)
    space = draw(_SPACE)
    if isinstance(value, list):
        return f"[{space}{','.join([draw(texts(item)) for item in value])}{space}]"
    if isinstance(value, dict):
        pairs = list(value.items())
        if pairs and draw(st.integers(0, 9)) == 0:
            pairs.append((draw(st.sampled_from(pairs))[0], draw(st.sampled_from(pairs))[1]))
        members = [f"{json.dumps(key)}{space}:{space}{draw(texts(item))}" for key, item in pairs]
        return f"{space}{{{','.join(members)}}}"
    if isinstance(value, str) and value[4:5] == "-" and draw(st.booleans()):
        return json.dumps(draw(_TIMESTAMPS))
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


def exact(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """The answers that the fast pass ought to take: those that a schema mentions, without anything else."""
    if choices := schema.get("oneOf", schema.get("anyOf")):
        return st.one_of([exact(choice) for choice in choices])
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return st.one_of([_exact_kind(kind, schema) for kind in kinds])


def _exact_kind(kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind == "array":
        return st.lists(exact(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
    if kind == "integer":
        return st.integers(schema.get("minimum", -(2**63)), 2**63 - 1)
    if schema.get("x-format") == "timestamp" and kind == "string":
        return st.datetimes().map(lambda when: when.isoformat() + "Z") | st.just(MOMENT)
    if kind == "object" and "properties" in schema:
        known = {name: exact(item) for name, item in schema["properties"].items()}
        required = {name: known.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(required, optional=known)
    return _of_kind(kind, schema)


EXACT = {name: exact(answer_schema(value, name)) for name, value in JSON_ENDPOINTS.items()}


def check_both(name: str, text: str) -> None:
    value = JSON_ENDPOINTS[name]
    data = text.encode(errors="surrogatepass")
    expected = result(TOLERANT, value, data)
    assert result(FAST, value, data) == expected
    if (found := taken(value, data)) is not None:  # and not only because the other pass came to help
        assert shape(found) == expected


@pytest.mark.parametrize("name", ANSWERS)
def test_both_passes_agree_on_what_the_contract_allows(name: str) -> None:
    @few
    @given(EXACT[name].flatmap(texts) | EXACT[name].map(json.dumps) | ANSWERS[name].flatmap(texts))
    def check(text: str) -> None:
        check_both(name, text)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_both_passes_agree_on_what_is_nearly_right(name: str) -> None:
    @several
    @given((EXACT[name] | ANSWERS[name]).flatmap(mutations).flatmap(texts))
    def check(text: str) -> None:
        check_both(name, text)

    check()


@several
@given(_TIMESTAMPS)
@example("2025-09-08T18:18:21.1234565Z")
@example("2025-09-08T18:18:21.1234564z")
@example("2025-12-31T23:59:59.9999995-00:30")
@example("0001-01-01T00:00:00+02:00")
@example("9999-12-31T23:59:59Z")
def test_both_passes_agree_on_timestamps(text: str) -> None:
    check_both("customer_groups.CREATE", json.dumps({**GROUP, "created_at": text}))


@pytest.mark.parametrize(
    "profile",
    [
        '{"a": 1, "a": "x", "b": 2, "a": 3}',
        '{"": -0, "\\u0061": -0.0, "a": 1e400}',
        '{"a": 18446744073709551615}',
        '{"a": [18446744073709551616]}',
        '{"a": {"b": [-9223372036854775809]}}',
        '{"a": 1e-400, "b": 0.1e1, "c": 9007199254740993.0}',
        '{"a\\t": {" b": "\\ud83d\\ude00"}}',
        '{"a": "\\ud83d"}',
        '{"a": "\u2028\x7f"}',
        '{"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}',
        '{"a": [[[[[[[[[1]]]]]]]]]}',
        "[]",
        "null",
    ],
)
def test_both_passes_agree_on_profiles(profile: str) -> None:
    check_both("customers.LIST", f'[{{"customer_id": "c", "customer_group_id": "g", "extended_profile": {profile}}}]')


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"pages": 7}',
        b'{"pages": 7} ',
        b'{"pages": 7, "pages": 8}',
        b'{"total_pages": 7, "pages": 8}',
        b'{"total_pages": 7}',
        b'{"pages": null, "total_pages": 7}',
        b'{"pages": -1, "total_pages": 7}',
        b'{"pages": -1}',
        b'{"pages": 7, "other": 1}',
        b'{"pages\\t": 7}',
        b"{}",
        b"7",
        b"-7",
        b"7.0",
        b"true",
        b"18446744073709551616",
        b"9007199254740993.0",
        b"[7]",
        b'"7"',
        b"7 7",
        b"",
        b"\xff",
    ],
)
def test_both_passes_agree_on_numbers_of_pages(data: bytes) -> None:
    value = endpoint("customers.count_pages")
    assert result(FAST, value, data) == result(TOLERANT, value, data)
    if (found := taken(value, data)) is not None:
        assert shape(found) == result(TOLERANT, value, data)


@pytest.mark.parametrize("odd", ["customer_id\t", "colour", "extra"])
def test_one_odd_record_of_many_comes_out_as_ever(odd: str) -> None:
    records = [{**CUSTOMER, "created_at": MOMENT} for _ in range(5)]
    records[3] = {**records[3], odd: {"x": 1}} if odd != "customer_id\t" else {"customer_id\t": "c", **records[3]}
    data = json.dumps(records).encode()
    assert taken(endpoint("customers.list"), data) is None
    assert result(FAST, endpoint("customers.list"), data) == result(TOLERANT, endpoint("customers.list"), data)
    assert FAST.decode(endpoint("customers.list"), data)[3].extra


@attrs.define(kw_only=True)
class WithDefault:
    number: int = 5
    extra: dict[str, Any] = attrs.field(factory=dict)


@pytest.mark.parametrize(
    "kind", [set, dict[str, bytes] | int, datetime, list[datetime], models.Customer | None, list[list[models.Customer]], WithDefault]
)  # fmt: skip
def test_a_type_that_the_fast_pass_does_not_know_is_left_to_the_other(kind: Any) -> None:
    assert fast.fast_pass(kind, ()) is None


def test_a_short_text_is_no_moment() -> None:
    for text in ("z", "", "Z"):
        with pytest.raises(ValueError, match="Invalid isoformat"):
            moment(text)


# --- the models ------------------------------------------------------------------------------------


def value_of(kind: Any) -> Any:
    """Some value of the type of a field, as JSON."""
    kinds = [kind, *get_args(kind)]
    if get_origin(kind) is list:
        return [value_of(kinds[1])] * 2
    for one in kinds:
        if attrs.has(one):
            return {item.name: value_of(item.type) for item in attrs.fields(one) if item.name != "extra"}
        if get_origin(one) is list:
            return value_of(one)
        if one is dict or get_origin(one) is dict:
            return {"a": [1, "b"]}
        if isinstance(one, type) and issubclass(one, StrEnum):
            return next(iter(one)).value
        if one in _VALUES:
            return _VALUES[one]
    raise AssertionError(f"a new type: {kind}")


_VALUES = {datetime: MOMENT, bool: True, int: 3, str: "text"}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_an_instance_that_was_made_past_init_is_like_any_other(model: Any, whole: bool) -> None:
    attrs.resolve_types(model)
    values = value_of(model)
    if not whole:
        values = {item.name: values[item.name] for item in attrs.fields(model) if item.default is attrs.NOTHING}
    made = fast.fast_pass(model, ())(json.dumps(values).encode())
    usual = codec._converter(detailed=False).structure(values, model)
    assert type(made) is type(usual) is model
    assert shape(made) == shape(usual)
    assert made == usual
    assert repr(made) == repr(usual)
    assert attrs.asdict(made) == attrs.asdict(usual)
    assert attrs.evolve(made) == usual
    assert copy.copy(made) == copy.deepcopy(made) == usual
    if isinstance(made, NotPickled):
        with pytest.raises(TypeError, match="holds a secret"):
            pickle.dumps(made)
    else:
        assert shape(pickle.loads(pickle.dumps(made))) == shape(usual)
    assert not isinstance(made, HasProfile) or not hasattr(made, "_decryptor")
    made.extra["x"] = 1
    assert usual.extra == {}


@pytest.mark.parametrize("model", MODELS)
def test_nothing_of_a_model_is_done_by_its_init_alone(model: Any) -> None:
    for attribute in attrs.fields(model):
        assert attribute.validator is None
        assert attribute.converter is None
        assert attribute.default in (attrs.NOTHING, None) or attribute.name == "extra"
    names = {name for name in dir(model) if name in ("__attrs_post_init__", "__attrs_pre_init__", "__attrs_init__")}
    assert names == set()
    assert model.__new__ is object.__new__
    assert set(inspect.signature(model).parameters) == {item.name for item in attrs.fields(model)}
