"""What a caller passes is checked before anything is sent, and what is wrong is named."""

from __future__ import annotations

import math
from collections import OrderedDict, UserDict, deque
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from operations import ENDPOINTS, endpoint

from nudgescribe_async.codec import dumps, loads
from nudgescribe_async.endpoint import Argument, Kind, checked, timestamp

GROUP = {"workspace_id": "w", "customer_group_id": "g"}


def sent(operation: str, **values: object) -> dict[str, Any]:
    return checked(endpoint(operation), values)


def sent_customer(value: object) -> Any:
    """What becomes of a value inside a customer."""
    (customer,) = sent("customers.check", **GROUP, customers=[{"a": value}])["customers"]
    return customer["a"]


# A right value for each kind of argument, and wrong ones with the error that they give.
RIGHT: dict[Kind, object] = {
    Kind.TEXT: "csv",
    Kind.INTEGER: 1,
    Kind.BOOLEAN: True,
    Kind.TIMESTAMP: datetime(2025, 9, 8, tzinfo=UTC),
    Kind.TEXTS: ["a"],
    Kind.OBJECTS: [{"customer_id": "c", "extended_profile": {}}],
    Kind.FILE: b"id\n",
}
WRONG: dict[Kind, list[object]] = {
    Kind.TEXT: [5, True, b"csv", ["csv"], 1.5, object(), {"csv"}],
    Kind.INTEGER: ["1", 1.0, True, Decimal(1), b"1", [1]],
    Kind.BOOLEAN: [1, 0, "true", []],
    Kind.TIMESTAMP: ["2025-09-08T00:00:00Z", date(2025, 9, 8), 1757289600, 1.5],
    Kind.TEXTS: ["abc", b"abc", bytearray(b"abc"), {"a"}, {"a": 1}, 5, iter(["a"])],
    Kind.OBJECTS: ["abc", b"abc", {"customer_id": "c"}, 5, iter([{}]), {1}],
    Kind.FILE: [],
}
ARGUMENTS = [
    (name, argument)
    for name, value in ENDPOINTS.items()
    for argument in value.arguments
    if name in ("messages.FETCH_CSV", "messages.FETCH_JSON") or not name.startswith("messages.FETCH")
]
WRONG_ARGUMENTS = [
    pytest.param(name, argument, wrong, id=f"{name}-{argument.name}-{type(wrong).__name__}")
    for name, argument in ARGUMENTS
    for wrong in WRONG[argument.kind]
]


def _values(name: str, without: str) -> dict[str, object]:
    value = ENDPOINTS[name]
    others = {argument.name: RIGHT[argument.kind] for argument in value.arguments if argument.name != without}
    if value.exactly_one and without in value.exactly_one:
        others = {key: item for key, item in others.items() if key not in value.exactly_one}
    elif value.exactly_one:
        del others[value.exactly_one[1]]
    return others


@pytest.mark.parametrize(("name", "argument", "wrong"), WRONG_ARGUMENTS)
def test_an_argument_of_the_wrong_type_is_named_with_its_operation(
    name: str, argument: Argument, wrong: object
) -> None:
    value = ENDPOINTS[name]
    with pytest.raises(TypeError) as caught:
        checked(value, {**_values(name, argument.name), argument.name: wrong})
    wanted = f"{value.operation}: {argument.name} must be {argument.kind.value}, not {type(wrong).__name__}."
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("name", "argument"), [pytest.param(*item, id=f"{item[0]}-{item[1].name}") for item in ARGUMENTS]
)
def test_none_is_left_out_or_refused_if_the_argument_is_needed(name: str, argument: Argument) -> None:
    value = ENDPOINTS[name]
    for others in (_values(name, argument.name), {**_values(name, argument.name), argument.name: None}):
        if argument.required or argument.name in value.exactly_one:
            with pytest.raises(TypeError, match=rf"^{value.operation}: .*\b{argument.name}\b"):
                checked(value, others)
        else:
            body = checked(value, others)
            assert body.get(argument.name) == argument.first_page  # left out means the first page
            assert (argument.name in body) == (argument.first_page is not None)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_right_values_pass(name: str) -> None:
    values = _values(name, "")
    assert set(checked(ENDPOINTS[name], values)) == set(values)


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\N{NO-BREAK SPACE}"])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^customers\.list: customer_group_id must not be empty\.$"):
        sent("customers.list", customer_group_id=text, page=1)
    with pytest.raises(ValueError, match=r"^customers\.delete: customer_ids\[1\] must not be empty\.$"):
        sent("customers.delete", customer_group_id="g", customer_ids=["a", text])


def test_text_is_sent_as_it_is() -> None:
    text = " Ünïcode \N{GRINNING FACE}\0\n"
    assert sent("customer_groups.create", workspace_id="w", group_name=text)["group_name"] == text


def test_a_lone_surrogate_is_refused_wherever_it_stands() -> None:
    bad = "ab\ud800"
    with pytest.raises(ValueError, match=r"^customer_groups\.create: group_name has a lone surrogate at position 2"):
        sent("customer_groups.create", workspace_id="w", group_name=bad)
    with pytest.raises(ValueError, match=r"customer_ids\[0\] has a lone surrogate"):
        sent("customers.delete", customer_group_id="g", customer_ids=[bad])
    with pytest.raises(ValueError, match=r"customers\[0\]\['a'\] has a lone surrogate"):
        sent_customer(bad)
    with pytest.raises(ValueError, match=r"a key of customers\.check: customers\[0\]\['a'\] has a lone surrogate"):
        sent_customer({bad: 1})


class _Colour(str, Enum):  # noqa: UP042 - str() of it differs from that of a StrEnum
    RED = "red"


class _Size(StrEnum):
    BIG = "big"


class _Number(IntEnum):
    ONE = 1


class _Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


@pytest.mark.parametrize(("value", "text"), [(_Colour.RED, "red"), (_Size.BIG, "big"), (_Loud("quiet"), "quiet")])
def test_a_member_of_an_enumeration_is_sent_as_its_text_and_not_as_its_name(value: str, text: str) -> None:
    for found in (
        sent("customer_groups.create", workspace_id="w", group_name=value)["group_name"],
        sent("customers.delete", customer_group_id="g", customer_ids=[value])["customer_ids"][0],
        sent_customer(value),
        next(iter(sent_customer({value: 1}))),
    ):
        assert found == text
        assert type(found) is str


def test_numbers_of_an_enumeration_are_numbers() -> None:
    assert type(sent("customers.list", customer_group_id="g", page=_Number.ONE)["page"]) is int
    assert type(sent_customer(_Number.ONE)) is int


@pytest.mark.parametrize("choice", ["xml", "CSV", "csv "])
def test_a_choice_that_is_none_is_refused_with_those_that_are(choice: str) -> None:
    with pytest.raises(ValueError, match=r"^messages\.fetch: format must be one of 'csv', 'json', 'url'\.$"):
        checked(ENDPOINTS["messages.FETCH_CSV"], {"campaign_id": "c", "page": 1, "format": choice})


@pytest.mark.parametrize("number", [0, -1, -(2**63)])
def test_a_page_below_the_first_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=rf"^customers\.list: page must be at least 1, not {number}\.$"):
        sent("customers.list", customer_group_id="g", page=number)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**5_000, -(10**5_000)], ids=range(4))
def test_a_number_beyond_64_bits_is_refused_with_advice(number: int) -> None:
    with pytest.raises(ValueError, match=r"^customers\.list: page does not fit into 64 bits\.$"):
        sent("customers.list", customer_group_id="g", page=number)
    with pytest.raises(
        ValueError, match=r"^customers\.check: customers\[0\]\['a'\] does not fit into 64 bits; send it as text\.$"
    ):
        sent_customer(number)


def test_what_json_has_a_word_for_is_sent_as_it_is() -> None:
    value: dict[str, Any] = {"none": None, "yes": True, "no": False, "number": 1.5, "": [], "text": "\n"}
    assert sent_customer(value) == value


def test_the_largest_numbers_are_sent() -> None:
    assert sent("customers.list", customer_group_id="g", page=2**63 - 1)["page"] == 2**63 - 1
    assert sent_customer([-(2**63), 2**63 - 1]) == [-(2**63), 2**63 - 1]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_float_that_json_cannot_hold_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match=r"customers\[0\]\['a'\]\[1\] is -?(nan|inf), which JSON cannot hold"):
        sent_customer([0.0, number])


@pytest.mark.parametrize(
    "value", [b"x", bytearray(b"x"), date(2025, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), Decimal("1.5"), {1}, 1j, object(), iter("a")]
)  # fmt: skip
def test_a_value_that_json_has_no_word_for_is_refused_with_advice(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        sent_customer({"deep": [value]})
    assert str(caught.value) == (
        "customers.check: customers[0]['a']['deep'][0] must be a value that JSON can hold (give dates and decimals as "
        f"text), not {type(value).__name__}."
    )


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
def test_a_key_that_is_no_text_is_refused(key: object) -> None:
    with pytest.raises(TypeError, match=r"^a key of customers\.check: customers\[0\]\['a'\] must be text, not "):
        sent_customer({key: 1})


class _Items(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        return {"x": 1}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("x",))

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("mapping", [{"x": 1}, OrderedDict(x=1), MappingProxyType({"x": 1}), UserDict(x=1), _Items()])
def test_every_kind_of_mapping_is_a_customer(mapping: Mapping[str, object]) -> None:
    assert sent("customers.check", **GROUP, customers=(mapping,))["customers"] == [{"x": 1}]
    assert sent_customer(mapping) == {"x": 1}


def test_tuples_and_other_sequences_are_lists() -> None:
    assert sent("customers.delete", customer_group_id="g", customer_ids=("a", "b"))["customer_ids"] == ["a", "b"]
    assert sent("customers.delete", customer_group_id="g", customer_ids=deque("ab"))["customer_ids"] == ["a", "b"]
    assert sent_customer((1, (2, [3]))) == [1, [2, [3]]]


@pytest.mark.parametrize("empty", [[], ()])
def test_an_empty_list_is_refused(empty: object) -> None:
    with pytest.raises(ValueError, match=r"^customers\.delete: customer_ids is empty: there is nothing to send\.$"):
        sent("customers.delete", customer_group_id="g", customer_ids=empty)
    with pytest.raises(ValueError, match=r"^customers\.check: customers is empty: there is nothing to send\.$"):
        sent("customers.check", **GROUP, customers=empty)


def test_the_wrong_item_of_a_list_is_named() -> None:
    with pytest.raises(TypeError, match=r"^customers\.delete: customer_ids\[2\] must be text, not int\.$"):
        sent("customers.delete", customer_group_id="g", customer_ids=["a", "b", 3])
    with pytest.raises(TypeError, match=r"^customers\.check: customers\[1\] must be a mapping, not list\.$"):
        sent("customers.check", **GROUP, customers=[{}, []])


def test_a_change_of_a_customer_must_say_whose_and_what() -> None:
    whole = {"customer_id": "c", "extended_profile": {"a": 1}}
    assert sent("customers.update", customer_group_id="g", customers=[whole])["customers"] == [whole]
    for name in whole:
        part = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(ValueError, match=rf"^customers\.update: customers\[1\] lacks '{name}'\.$"):
            sent("customers.update", customer_group_id="g", customers=[whole, part])


def test_what_holds_itself_is_refused_before_the_stack_ends() -> None:
    circle: list[object] = []
    circle.append({"again": circle})
    with pytest.raises(ValueError, match=r"^customers\.check: customers is nested more than 100 levels deep"):
        sent_customer(circle)


def test_what_is_just_deep_enough_can_be_written_and_what_is_deeper_is_refused() -> None:
    deep: object = 1
    for _ in range(99):
        deep = [deep]
    body = sent("customers.check", **GROUP, customers=[{"a": deep}])
    assert loads(dumps(body)) == body
    with pytest.raises(ValueError, match="nested more than 100"):
        sent_customer([deep])


def test_the_caller_keeps_its_own_objects() -> None:
    inner = [1]
    found = sent_customer({"inner": inner})
    found["inner"].append(2)
    assert inner == [1]


def test_exactly_one_of_the_two_kinds_of_upload_is_needed() -> None:
    wanted = r"^customers\.check: give exactly one of customers and file\.$"
    with pytest.raises(TypeError, match=wanted):
        sent("customers.check", **GROUP)
    with pytest.raises(TypeError, match=wanted):
        sent("customers.check", **GROUP, customers=[{"a": 1}], file=b"x")
    assert sent("customers.check", **GROUP, file=b"x") == {**GROUP, "file": b"x"}


# --- moments ---------------------------------------------------------------------------------------


class _Nowhere(tzinfo):
    def utcoffset(self, _: datetime | None) -> None:
        return None

    def dst(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> str:
        return "nowhere"


@pytest.mark.parametrize("moment", [datetime(2025, 9, 8), datetime(2025, 9, 8, tzinfo=_Nowhere())])  # noqa: DTZ001
def test_a_naive_moment_is_refused_with_advice(moment: datetime) -> None:
    with pytest.raises(
        ValueError, match=r"^campaigns\.list: published_from must be an aware datetime; give it a tzinfo"
    ):
        sent("campaigns.list", published_from=moment)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2025, 9, 8, 18, 18, 21, 462_000, tzinfo=UTC), "2025-09-08T18:18:21.462Z"),
        (datetime(2025, 9, 8, tzinfo=UTC), "2025-09-08T00:00:00.000Z"),
        (datetime(2025, 9, 8, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2025-09-07T20:30:00.000Z"),
        (datetime(2025, 9, 8, 0, 0, 0, 1, tzinfo=UTC), "2025-09-08T00:00:00.000001Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_moment_is_written_as_the_service_writes_it(moment: datetime, text: str) -> None:
    assert timestamp(moment) == text
    assert sent("campaigns.list", published_to=moment) == {"published_to": text}


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_a_moment_beyond_the_calendar_is_refused_by_name(moment: datetime) -> None:
    with pytest.raises(ValueError, match=r"^campaigns\.list: published_to lies beyond the years 1 to 9999 in UTC\.$"):
        sent("campaigns.list", published_to=moment)
