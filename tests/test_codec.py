"""Bytes to objects: what is forgiven, what is refused, and what the refusal says."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from operations import ENDPOINTS, endpoint

import nudgescribe_async
from nudgescribe_async import codec
from nudgescribe_async.codec import Codec, InvalidJSONError, dumps, loads
from nudgescribe_async.endpoints.models import (
    Campaign,
    CampaignStatus,
    Customer,
    CustomerGroup,
    MessageStatus,
    ProfileFieldType,
)
from nudgescribe_async.errors import ResponseDecodeError

CODEC = Codec()
GROUP: dict[str, Any] = {"customer_group_id": "g", "workspace_id": "w", "group_name": "VIP"}
CUSTOMER: dict[str, Any] = {"customer_id": "c", "customer_group_id": "g", "extended_profile": {}}
RECEIPT: dict[str, Any] = {
    "success": True,
    "rerun_id": "r",
    "run_number": 2,
    "campaign_status": "Published",
    "job_uid": "j",
    "archived_count": 0,
    "comparison": {"matched_count": 1, "new_count": 2, "orphaned_count": 3},
}


def group(**changes: Any) -> CustomerGroup:
    found = CODEC.decode(endpoint("customer_groups.create"), dumps({**GROUP, **changes}))
    assert isinstance(found, CustomerGroup)
    return found


def refused(operation: str, value: Any) -> ResponseDecodeError:
    with pytest.raises(ResponseDecodeError) as caught:
        CODEC.decode(endpoint(operation), json.dumps(value).encode())
    return caught.value


@pytest.fixture(params=["msgspec", "standard library"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test of this module runs with the fast pass and without."""
    if request.param == "msgspec":
        pytest.importorskip("msgspec")
        assert codec._fast_pass is not None
    else:
        without_msgspec(monkeypatch)


def without_msgspec(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_fast_loads", "_fast_dumps", "_fast_pass"):
        monkeypatch.setattr(codec, name, None)


# --- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"-0", 0),
        (b"1e5", 100_000.0),
        (b"1e-400", 0.0),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", 2.0**64),
        (b"-9223372036854775809", -(2.0**63)),
        (b"123456789012345678901234567890", 123456789012345678901234567890.0),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        (b'"\\uD83D\\uDE00\\n\\\\ud800"', "\N{GRINNING FACE}\n\\ud800"),
        (b'"\\u0000\\/"', "\0/"),
        (b'\xef\xbb\xbf{"a": []}', {"a": []}),
        (b'"\xef\xbb\xbf"', "\ufeff"),
        (b" \t\r\n[true, false, null]\n", [True, False, None]),
        (b"[" * 300 + b"]" * 300, None),
    ],
)
def test_both_libraries_read_the_same_value(text: bytes, value: Any) -> None:
    found = loads(text)
    if value is not None:
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"NaN",
        b"-NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e400",
        b"-1e309",
        b"9" * 400,
        b"9" * 5_000,
        b"-" + b"9" * 5_000,
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"1_000",
        b"0x10",
        "\N{ARABIC-INDIC DIGIT ONE}".encode(),
        b"[1]x",
        b"[1] [2]",
        b"1\x00",
        b"[1,]",
        b"{'a': 1}",
        b"{a: 1}",
        b'{"a": 1,}',
        b'"\t"',
        b'"\x00"',
        b'"\\x41"',
        b'"\\u12"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\uD800\\u0041"',
        b'"\\ud800\\ud800\\udc00"',
        b'"\\\\\\ud800"',
        b'{"\\ud800": 1}',
        b'{"a": "\\ud800", "a": 1}',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xa01",
        b"\xff\xfe1\x00",
        b"\xef\xbb\xbf\xef\xbb\xbf1",
        b"\xef\xbb\xbf",
        b"[" * 2_000 + b"]" * 2_000,
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"tru",
        b"<html></html>",
    ],
)
def test_both_libraries_refuse_the_same_texts(text: bytes) -> None:
    with pytest.raises(InvalidJSONError, match=r"^not JSON") as caught:
        loads(text)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_what_is_wrong_is_said_in_words_that_quote_nothing() -> None:
    for text, said in {
        b"[1,\n2,\n?]": "not JSON (line 3, column 1)",
        b'"\xff"': "not JSON (no valid UTF-8)",
        b"[" * 100_000: "not JSON (nested too deeply)",
        b"1e999": "not JSON (a number that no double can hold)",
    }.items():
        with pytest.raises(InvalidJSONError) as caught:
            loads(text)
        assert str(caught.value) == said


def test_what_is_written_is_compact_utf_8() -> None:
    value: dict[str, Any] = {"a": [1, 2.5, True, None, "ü\n"], "b": {}}
    assert dumps(value) == '{"a":[1,2.5,true,null,"ü\\n"],"b":{}}'.encode()
    assert loads(dumps(value)) == value


@pytest.fixture
def msgspec_is_missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    monkeypatch.delitem(sys.modules, "nudgescribe_async.codec_fast", raising=False)
    monkeypatch.delattr(nudgescribe_async, "codec_fast", raising=False)
    saved = dict(vars(codec))
    yield
    vars(codec).update(saved)


@pytest.mark.usefixtures("msgspec_is_missing")
def test_without_msgspec_the_standard_library_is_used() -> None:
    fresh = importlib.reload(codec)
    assert (fresh._fast_loads, fresh._fast_dumps, fresh._fast_pass) == (None, None, None)
    assert fresh.loads(fresh.dumps({"a": [1]})) == {"a": [1]}


# --- what is forgiven ------------------------------------------------------------------------------


def test_what_the_contract_does_not_know_is_kept() -> None:
    found = group(colour="red", nested={"deep": [1, {"x ": None}]}, extra={"mine": 1}, nothing=None)
    assert found.extra == {
        "colour": "red",
        "nested": {"deep": [1, {"x ": None}]},
        "extra": {"mine": 1},
        "nothing": None,
    }
    assert CODEC.unstructure(found) == {**GROUP, **found.extra}


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\r\n", "\N{NO-BREAK SPACE}", " \t "])
def test_white_space_around_a_known_key_is_no_part_of_it(space: str) -> None:
    values = {space + key + space: value for key, value in GROUP.items()}
    found = CODEC.decode(endpoint("customer_groups.create"), json.dumps(values).encode())
    assert (found.customer_group_id, found.workspace_id, found.group_name, found.extra) == ("g", "w", "VIP", {})


def test_white_space_around_an_unknown_key_stays() -> None:
    assert group(**{"colour\t": "red"}).extra == {"colour\t": "red"}


@pytest.mark.parametrize("exact_first", [True, False])
def test_of_two_spellings_of_a_key_the_exact_one_counts_and_the_other_is_kept(exact_first: bool) -> None:
    pairs = [("created_at", "2025-09-08T18:18:21.462Z"), ("created_at\t", "2020-01-01T00:00:00.000Z")]
    found = group(**dict(pairs if exact_first else reversed(pairs)))
    assert found.created_at == datetime(2025, 9, 8, 18, 18, 21, 462_000, tzinfo=UTC)
    assert found.extra == {"created_at\t": "2020-01-01T00:00:00.000Z"}


def test_of_two_spellings_with_white_space_the_first_counts_and_the_other_is_kept() -> None:
    found = group(**{"created_by ": "ann", "created_by\t": "bob"})
    assert (found.created_by, found.extra) == ("ann", {"created_by\t": "bob"})


def test_keys_inside_a_profile_are_the_customers_own() -> None:
    profile = {" name ": "x", "created_at\t": "string", "": None, "deep\t": {"\tkey": [{" a": 1}]}}
    (customer,) = CODEC.decode(
        endpoint("customers.list"), json.dumps([{**CUSTOMER, "extended_profile": profile}]).encode()
    )
    assert customer.extended_profile == profile
    rows = [{" column\t": "1", "created_at": "string"}]
    assert CODEC.decode(ENDPOINTS["messages.FETCH_JSON"], json.dumps(rows).encode()) == rows


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Published", CampaignStatus.PUBLISHED),
        ("published", CampaignStatus.PUBLISHED),
        ("READY TO PUBLISH", CampaignStatus.READY_TO_PUBLISH),
        ("Ready to Publish", CampaignStatus.READY_TO_PUBLISH),
        (" Ready for review\n", CampaignStatus.READY_FOR_REVIEW),
    ],
)
def test_a_known_state_is_recognised_whatever_its_case(text: str, status: CampaignStatus) -> None:
    receipt = CODEC.decode(endpoint("reruns.initiate"), json.dumps({**RECEIPT, "campaign_status": text}).encode())
    assert receipt.campaign_status is status


@pytest.mark.parametrize("text", ["Archived", "", " ", "published!", "PUBLISHED "[::-1]])
def test_an_unknown_state_is_kept_as_it_came(text: str) -> None:
    receipt = CODEC.decode(endpoint("reruns.initiate"), json.dumps({**RECEIPT, "campaign_status": text}).encode())
    assert receipt.campaign_status == text
    assert type(receipt.campaign_status) is str
    assert CODEC.unstructure(receipt)["campaign_status"] == text


def test_every_open_enumeration_is_read_without_regard_to_case() -> None:
    field = {"profile_field_id": "p", "field_name": "born", "field_type": "DATE"}
    assert CODEC.decode(endpoint("profile_fields.create"), dumps(field)).field_type is ProfileFieldType.DATE
    (message,) = CODEC.decode(endpoint("reruns.messages"), b'[{"message_id": "m", "review_status": "approved"}]')
    assert message.review_status is MessageStatus.APPROVED
    (message,) = CODEC.decode(endpoint("reruns.messages"), b'[{"message_id": "m", "review_status": null}]')
    assert message.review_status is None


@pytest.mark.parametrize("name", ["account_id", "created_at", "created_by"])
def test_null_for_an_optional_field_is_none_and_for_a_required_one_an_error(name: str) -> None:
    assert getattr(group(**{name: None}), name) is None
    error = refused("customer_groups.create", {**GROUP, "group_name": None})
    assert (error.path, error.expected, error.received) == ("$.group_name", "a text", "null")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-09-08T18:18:21.462Z", datetime(2025, 9, 8, 18, 18, 21, 462_000, tzinfo=UTC)),
        ("2025-09-08T18:18:21Z", datetime(2025, 9, 8, 18, 18, 21, tzinfo=UTC)),
        ("2025-09-08T18:18:21.462", datetime(2025, 9, 8, 18, 18, 21, 462_000, tzinfo=UTC)),
        ("2025-09-08T20:18:21.462+02:00", datetime(2025, 9, 8, 18, 18, 21, 462_000, tzinfo=UTC)),
        ("2025-09-08 18:18:21", datetime(2025, 9, 8, 18, 18, 21, tzinfo=UTC)),
        ("2025-09-08T18:18:21.123456Z", datetime(2025, 9, 8, 18, 18, 21, 123_456, tzinfo=UTC)),
        ("2025-09-08", datetime(2025, 9, 8, tzinfo=UTC)),
        ("2025-09-08t18:18:21z", datetime(2025, 9, 8, 18, 18, 21, tzinfo=UTC)),
        ("2025-09-08T18:18:21.1234564Z", datetime(2025, 9, 8, 18, 18, 21, 123_456, tzinfo=UTC)),
        ("2025-09-08T18:18:21.1234565Z", datetime(2025, 9, 8, 18, 18, 21, 123_457, tzinfo=UTC)),
        ("2025-12-31T23:59:59.999999999Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2025-09-08T20:18:21.1234565+02:00", datetime(2025, 9, 8, 18, 18, 21, 123_457, tzinfo=UTC)),
        ("2025-09-08T18:18:21.1234565", datetime(2025, 9, 8, 18, 18, 21, 123_457, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999Z", datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
    ],
)
def test_a_timestamp_is_an_aware_datetime_in_utc(text: str, moment: datetime) -> None:
    found = group(created_at=text)
    assert found.created_at == moment
    assert found.created_at is not None
    assert found.created_at.utcoffset() == timedelta(0)
    assert found.extra == {}
    again = CODEC.decode(endpoint("customer_groups.create"), dumps(CODEC.unstructure(found)))
    assert again == found


@pytest.mark.parametrize(
    "text",
    [
        "string",
        "",
        " 2025-09-08T18:18:21Z",
        "2025-13-01T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "0000-00-00T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "1757355501462",
        "2025-09-08T18:18:61Z",
        "2025-09-08T18:18:21+99:00",
        "9999-12-31T23:59:59.9999995Z",  # rounded, after the last year
        "0001-01-01T00:00:00+01:00",  # before the first year, in UTC
        "9999-12-31T23:59:59-01:00",  # after the last
        "\N{FULLWIDTH DIGIT TWO}025-09-08",
        "\0",
    ],
)
def test_a_text_that_is_no_timestamp_gives_none_and_is_kept(text: str) -> None:
    found = group(created_at=text, updated_at="2025-09-08T18:18:21Z")
    assert found.created_at is None
    assert found.updated_at is not None
    assert found.extra == {"created_at": text}
    assert CODEC.unstructure(found)["created_at"] == text


def test_a_text_that_is_no_timestamp_is_kept_under_the_name_without_the_tab() -> None:
    assert group(**{"created_at\t": "string"}).extra == {"created_at": "string"}


def test_a_field_that_was_set_later_counts_more_than_the_text_that_was_kept() -> None:
    found = group(created_at="string")
    found.created_at = datetime(2025, 9, 8, 20, tzinfo=timezone(timedelta(hours=2)))
    assert CODEC.unstructure(found)["created_at"] == "2025-09-08T18:00:00.000Z"


@pytest.mark.parametrize("value", [5, True, 1.5, [], {}])
def test_an_optional_timestamp_that_is_no_text_is_an_error(value: Any) -> None:
    error = refused("customer_groups.create", {**GROUP, "created_at": value})
    assert (error.path, error.expected) == ("$.created_at", "a timestamp")


@pytest.mark.parametrize(("text", "number"), [(b"3", 3), (b"3.0", 3), (b"-0.0", 0), (b"3e2", 300)])
def test_a_number_without_a_fraction_is_a_whole_number(text: bytes, number: int) -> None:
    (record,) = CODEC.decode(endpoint("reruns.history"), b'[{"run_number": %s}]' % text)
    assert record.run_number == number
    assert type(record.run_number) is int


@pytest.mark.parametrize("value", [1.5, True, "3", None, 1e300, 2.0**53, [3], {}])
def test_anything_else_is_no_whole_number(value: Any) -> None:
    error = refused("reruns.history", [{"run_number": value}])
    assert (error.path, error.expected, error.evidence) == ("$[0].run_number", "a whole number", "reference")


@pytest.mark.parametrize("value", [1, 0, "true", None, []])
def test_only_true_and_false_are_truths(value: Any) -> None:
    assert refused("reruns.initiate", {**RECEIPT, "success": value}).expected == "true or false"


# --- the number of pages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b'{"pages": 7}',
        b'{"total_pages": 7}',
        b"7",
        b"7.0",
        b'{"pages\\t": 7}',
        b'{"pages": 7, "total_pages": 9}',
        b'{"pages": 7, "pages\\t": 9}',
        b'{"pages\\t": 9, "pages": 7}',
    ],
)
@pytest.mark.parametrize("operation", ["customers.count_pages", "messages.count_pages"])
def test_a_number_of_pages_is_read_in_each_of_its_shapes(operation: str, text: bytes) -> None:
    assert CODEC.decode(endpoint(operation), text) == 7


@pytest.mark.parametrize(
    ("value", "path", "expected", "received"),
    [
        ({}, "$", "an object with 'pages'", "an object without"),
        ({"count": 3}, "$", "an object with 'pages'", "an object without"),
        ({"pages": "3"}, "$.pages", "a whole number", "a text of 1 characters"),
        ({"total_pages": None}, "$.total_pages", "a whole number", "null"),
        ({"pages": -1}, "$.pages", "a number that is not negative", "a negative one"),
        (-1, "$", "a number that is not negative", "a negative one"),
        ([3], "$", "a whole number", "an array of 1"),
        (True, "$", "a whole number", "true or false"),
    ],
)
def test_a_number_of_pages_that_is_none_is_an_error(value: Any, path: str, expected: str, received: str) -> None:
    error = refused("customers.count_pages", value)
    assert (error.path, error.expected, error.received) == (path, expected, received)
    assert error.evidence == "assumed"  # the body; the path is known from the reference


# --- what an error says ----------------------------------------------------------------------------

_CAMPAIGNS = [
    {"workspace_id": "w", "campaigns": []},
    {"workspace_id": "w", "campaigns": [{"campaign_id": "c", "created_at": "string"}, {"campaign_id": 5}]},
]


@pytest.mark.parametrize(
    ("operation", "value", "path", "expected", "received", "evidence"),
    [
        ("customers.list", {"secret": "hunter2"}, "$", "an array", "an object", "seed"),
        ("customers.list", None, "$", "an array", "null", "seed"),
        ("campaigns.list", {"secret": "hunter2"}, "$", "an array", "an object", "assumed"),
        ("customers.list", [CUSTOMER, "hunter2"], "$[1]", "an object", "a text of 7 characters", "seed"),
        ("customers.list", [{**CUSTOMER, "customer_id": ""}, {}], "$[1].customer_id", "a value", "nothing", "seed"),
        ("customers.list", [{**CUSTOMER, "account_id": 12345}], "$[0].account_id", "a text", "a number", "seed"),
        (
            "customers.list",
            [{**CUSTOMER, "extended_profile": ["hunter2"] * 3}],
            "$[0].extended_profile",
            "an object",
            "an array of 3",
            "seed",
        ),
        ("campaigns.list", _CAMPAIGNS, "$[1].campaigns[1].campaign_id", "a text", "a number", "assumed"),
        (
            "campaigns.list",
            [{"workspace_id": "w", "campaigns": [{"campaign_id": "c", "campaign_status": {"hunter2": 1}}]}],
            "$[0].campaigns[0].campaign_status",
            "a text",
            "an object",
            "reference",
        ),
        (
            "reruns.initiate",
            {**RECEIPT, "comparison": {"matched_count": 1, "new_count": "hunter2", "orphaned_count": 0}},
            "$.comparison.new_count",
            "a whole number",
            "a text of 7 characters",
            "seed",
        ),
        (
            "reruns.initiate",
            {**RECEIPT, "comparison": {"matched_count": 1, "new_count": 1}},
            "$.comparison.orphaned_count",
            "a value",
            "nothing",
            "seed",
        ),
        ("reruns.initiate", {**RECEIPT, "comparison": None}, "$.comparison", "an object", "null", "seed"),
        ("customers.check", {"errors": [{"row": 1}, {"row": "hunter2"}]}, "$.errors[1].row", "a whole number", "a text of 7 characters", "assumed"),
        ("customers.check", {"errors": "hunter2"}, "$.errors", "an array", "a text of 7 characters", "assumed"),
        ("customers.check", {"message": False}, "$.message", "a text", "true or false", "assumed"),
        ("customer_groups.create", {**GROUP, "created_by": 5, "created_at": "hunter2"}, "$.created_by", "a text", "a number", "seed"),
    ],
)  # fmt: skip
def test_an_error_says_what_is_wrong_and_where_and_how_well_that_is_known_and_quotes_nothing(
    operation: str, value: Any, path: str, expected: str, received: str, evidence: str
) -> None:
    error = refused(operation, value)
    assert (error.path, error.expected, error.received, error.evidence) == (path, expected, received, evidence)
    assert error.operation == operation
    for part in (f"at {path} ", expected, received, f"evidence: {evidence}", f"operation {operation}"):
        assert part in str(error)
    assert "hunter2" not in f"{error!s} {error!r} {error.__dict__}"
    assert "12345" not in str(error)


def test_an_error_does_not_carry_the_answer_in_its_context() -> None:
    error = refused("customers.list", [{**CUSTOMER, "account_id": 12345}])
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("data", [b'{"secret": "hunter2"', b'[{"customer_id": "hunter2"}]', b'"hunter2"'])
def test_no_frame_of_a_raised_error_holds_the_answer(data: bytes) -> None:
    with pytest.raises(ResponseDecodeError) as caught:
        Codec().decode(endpoint("customers.list"), bytes(data))
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    own = [frame for frame in trace.stack if "nudgescribe_async" in frame.filename]
    assert own
    assert "hunter2" not in str([frame.locals for frame in own])


def test_bytes_that_are_no_json_are_counted_not_quoted() -> None:
    with pytest.raises(ResponseDecodeError) as caught:
        CODEC.decode(endpoint("customers.list"), b"hunter2 " * 1_000)
    error = caught.value
    assert (error.path, error.expected, error.received) == ("$", "JSON", "8,000 bytes")
    assert str(error) == "The answer is not JSON (line 1, column 1). (operation customers.list)"


def test_a_file_is_text_as_it_came() -> None:
    text = 'id,name\r\n1,"ü\n"\r\n'
    assert CODEC.decode(ENDPOINTS["messages.FETCH_CSV"], text.encode()) == text
    assert CODEC.decode(ENDPOINTS["messages.FETCH_CSV"], b"") == ""


def test_a_file_that_is_no_utf_8_is_an_error_with_the_place() -> None:
    with pytest.raises(ResponseDecodeError, match=r"no valid UTF-8 \(at byte 1,024\)") as caught:
        CODEC.decode(ENDPOINTS["messages.FETCH_CSV"], b"a" * 1_024 + b"\xff" + b"b" * 100)
    assert (caught.value.expected, caught.value.received) == ("UTF-8", "1,125 bytes")
    assert caught.value.operation == "messages.fetch"


def test_objects_become_json_without_what_is_none() -> None:
    campaign = Campaign(campaign_id="c", campaign_status=CampaignStatus.PUBLISHED, run_number=None)
    values = CODEC.unstructure([campaign])
    assert values == [{"campaign_id": "c", "campaign_status": "Published"}]
    assert type(values[0]["campaign_status"]) is str
    assert dumps(values) == b'[{"campaign_id":"c","campaign_status":"Published"}]'


def test_a_profile_of_any_depth_that_can_be_read_can_be_given_back() -> None:
    text = b'[{"customer_id": "c", "customer_group_id": "g", "extended_profile": {"a": %s}}]' % (
        b"[" * 600 + b"]" * 600
    )
    (customer,) = CODEC.decode(endpoint("customers.list"), text)
    assert isinstance(customer, Customer)
    assert CODEC.unstructure(customer)["extended_profile"] == customer.extended_profile


@pytest.mark.parametrize(
    "wrong",
    [f"[{'0,' * 50_000}0]", f'[{{"workspace_id": "w", "campaigns": [{"0," * 50_000}0]}}]'],
)
def test_of_any_number_of_things_that_are_wrong_the_first_alone_is_explained(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained = list[int]()
    whole = codec._first_leaf

    def count(error: Exception) -> int:
        return sum(map(count, error.exceptions)) if isinstance(error, ExceptionGroup) else 1

    def first_leaf(error: Exception, root: str) -> tuple[BaseException, str]:
        explained.append(count(error))
        return whole(error, root)

    monkeypatch.setattr(codec, "_first_leaf", first_leaf)
    with pytest.raises(ResponseDecodeError, match=r"at \$\[0\]") as caught:
        CODEC.decode(endpoint("campaigns.list"), wrong.encode())
    assert explained == [1]
    assert caught.value.received == "a number"
