"""What of a customer stands in which column, in which format; and that nothing of it is ever lost."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bulk.export_source import FIELDS, Plain, customer, customers, fields, read_csv, read_ndjson
from hypothesis import given, settings
from hypothesis import strategies as st

from nudgescribe_async.bulk.dates import DATE_FORMATS
from nudgescribe_async.bulk.export.arrow import Arrow, pack
from nudgescribe_async.bulk.export.columns import Columns, columns_of
from nudgescribe_async.bulk.export.text import Csv, Gzip, Ndjson
from nudgescribe_async.bulk.export.values import MISFIT, day, decimal_text, double, money, plain_text
from nudgescribe_async.endpoints.models import Customer, ProfileField
from nudgescribe_async.profiles import attach
from nudgescribe_async.sandbox.validation import DATE_FORMATS as SANDBOX_FORMATS
from nudgescribe_async.sandbox.validation import build

DECRYPTED = columns_of(fields(), decrypted=True)
AS_SENT = columns_of(None, decrypted=False)


def readable(*people: Customer) -> list[Customer]:
    attach(Plain(), list(people))
    return list(people)


def packed(folder: Path, people: list[Customer], columns: Columns = DECRYPTED) -> Any:
    from pyarrow import parquet

    arrow = Arrow(columns)
    (folder / "stream").write_bytes(arrow.head() + (arrow.encode(people) if people else b""))
    pack(folder / "stream", folder / "file", pause=lambda: None)
    return parquet.read_table(folder / "file")


def csv_rows(people: list[Customer], columns: Columns = DECRYPTED) -> list[dict[str, str]]:
    text = Csv(columns)
    return read_csv(text.head() + text.encode(people))


# --- values ------------------------------------------------------------------------------------------------------


def test_the_date_formats_are_those_of_the_reference() -> None:
    assert DATE_FORMATS == SANDBOX_FORMATS
    assert len(DATE_FORMATS) == 14


@pytest.mark.parametrize("pattern", DATE_FORMATS)
@given(moment=st.dates(date(2000, 1, 1), date(2099, 12, 31)))
@settings(max_examples=25, deadline=None)
def test_a_day_in_every_format_is_that_day(pattern: str, moment: date) -> None:
    codes = {"yyyy": "%Y", "yy": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "dd": "%d"}
    text = pattern
    for token, code in codes.items():
        text = text.replace(token, code) if code not in text.lower() or token in text else text
    written = moment.strftime(text)
    assert build("id", "f", "Date", pattern, required=False).parse(written) == written
    assert day(written, pattern) == moment


@pytest.mark.parametrize(
    "value",
    ["31.02.2001", "2001-02-03", "1.2.2001", "", " 01.02.2001", "01.02.2001\n", "\u0660\u0661.02.2001", 20010203, True],
)
def test_what_is_no_day_of_the_format_fits_no_column_of_days(value: object) -> None:
    assert day(value, "dd.MM.yyyy") is MISFIT


def test_a_day_in_a_format_that_nobody_knows_is_left_alone() -> None:
    assert day("2001", "yyyy") is MISFIT
    assert day("2001-01-01", None) is MISFIT


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (-0.5, -0.5),
        (2**53, 2.0**53),
        (2**60, 2.0**60),
        ("12.50", 12.5),
        ("0.1", 0.1),
        ("1e3", 1000.0),
        (10**22, 1e22),
    ],
)
def test_a_number_that_a_double_holds(value: object, number: float) -> None:
    assert double(value) == number


@pytest.mark.parametrize(
    "value",
    [
        10**23,
        2**53 + 1,
        "9007199254740993",
        "0.1000000000000000055511151231257827",
        "1" * 61,
        "",
        "x",
        "1_0",
        "nan",
        "inf",
        "1e999",
        float("inf"),
        float("nan"),
        True,
        [1],
        {"a": 1},
        10**70,
    ],
)
def test_a_number_that_no_double_holds_is_not_rounded(value: object) -> None:
    assert double(value) is MISFIT


def is_the_same(found: float, value: float | str) -> bool:
    """Whole numbers to the last digit, others as they are written."""
    came = Decimal(repr(value) if isinstance(value, float) else value)
    return Decimal(found) == came or (not isinstance(value, int) and Decimal(repr(found)) == came)


@given(st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False) | st.decimals().map(str))
def test_what_a_double_holds_is_what_came(value: float | str) -> None:
    found = double(value)
    if found is not MISFIT:
        assert isinstance(found, float)
        assert is_the_same(found, value)


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        ("12.5", "12.5"),
        ("12.50000", "12.5"),
        (7, "7"),
        (0.25, "0.25"),
        ("9" * 34, "9" * 34),
        ("-.5", "-0.5"),
        ("0." + "0" * 40, "0"),
        ("0.00", "0"),
        ("12e3", "12000"),
    ],
)
def test_an_amount_that_the_column_holds(value: object, amount: str) -> None:
    assert money(value) == Decimal(amount)


@pytest.mark.parametrize("value", ["1.00001", "1" + "0" * 34, "1,5", "EUR 5", "", True, None, 1e-7, "1e-9"])
def test_an_amount_that_the_column_cannot_hold(value: object) -> None:
    assert money(value) is MISFIT


def test_half_of_a_surrogate_pair_fits_no_text() -> None:
    assert plain_text("\ud800") is MISFIT
    assert plain_text("\U0001f388") == "\U0001f388"
    assert decimal_text("\ud800") is MISFIT


# --- columns -----------------------------------------------------------------------------------------------------


def test_the_columns_are_the_documented_ones_then_the_fields_of_the_workspace_then_extra() -> None:
    documented = ("customer_id", "account_id", "workspace_id", "customer_group_id")
    stamps = ("created_at", "updated_at", "created_by", "updated_by")
    assert AS_SENT.names == (*documented, "extended_profile", *stamps, "extra")
    assert DECRYPTED.names == (
        *documented,
        *stamps,
        "external_id",
        "profile.customer_id",
        "points",
        "grade",
        "born",
        "spent",
        "extra",
    )


def test_fields_whose_names_are_taken_get_others() -> None:
    def field(name: str) -> ProfileField:
        return ProfileField(profile_field_id=name, field_name=name, field_type="string")

    names = ["extra", "profile.extra", "extended_profile", "x", "x"]
    columns = columns_of([field(name) for name in names], decrypted=True)
    assert columns.names[8:] == ("profile.extra", "profile.profile.extra", "profile.extended_profile", "x", "extra")
    (person,) = readable(customer(1, extended_profile={"extra": "1", "profile.extra": "2", "x": "3"}, extra={"n": 1}))
    (row,) = csv_rows([person], columns)
    assert (row["profile.extra"], row["profile.profile.extra"], row["x"], row["extra"]) == ("1", "2", "3", '{"n":1}')


def test_columns_are_the_same_after_a_checkpoint() -> None:
    plain = json.loads(json.dumps(DECRYPTED.to_plain()))
    assert Columns.from_plain(plain, decrypted=True) == DECRYPTED


def test_a_readable_profile_of_unknown_fields_is_one_column_of_json() -> None:
    columns = columns_of(None, decrypted=True)
    assert columns.names == AS_SENT.names
    (row,) = csv_rows(readable(customer(1)), columns)
    assert json.loads(row["extended_profile"]) == customer(1).extended_profile
    assert row["extra"] == ""


# --- what a file says, read back -----------------------------------------------------------------------------------


def test_ndjson_is_what_the_service_said() -> None:
    people = [customer(1), customer(5, created_at=None, extra={"created_at": "string", "tier": 5})]
    first, second = read_ndjson(Ndjson(AS_SENT).encode(people))
    assert [*first] == [
        "customer_id",
        "account_id",
        "workspace_id",
        "customer_group_id",
        "extended_profile",
        "created_at",
        "updated_at",
        "created_by",
        "updated_by",
    ]
    assert first["extended_profile"] == customer(1).extended_profile
    assert (first["created_at"], first["updated_at"]) == ("2025-01-02T03:04:05.000001Z", None)
    assert (second["created_at"], second["tier"]) == ("string", 5)


def test_ndjson_has_no_line_break_within_a_line_and_any_character() -> None:
    nasty = {"a": "\n\r\u2028\u0000\ud800", "b": "ü🎈"}
    text = Ndjson(AS_SENT).encode([customer(1, extended_profile=nasty)])
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    assert read_ndjson(text)[0]["extended_profile"] == nasty


def test_csv_has_the_texts_as_they_are() -> None:
    first, second = csv_rows(readable(customer(1), customer(5)))
    assert first["external_id"] == '00001, "x"\r\ny'
    assert (first["points"], first["born"], first["spent"], first["grade"]) == ("7", "02.02.2001", "1.50", "A")
    assert first["profile.customer_id"] == "other"
    assert json.loads(second["extra"]) == {"tier": 5, "extended_profile": {"undeclared": [5]}}


def test_csv_tells_an_empty_text_from_none() -> None:
    text = Csv(AS_SENT).encode([customer(1, created_by="", updated_by=None, extended_profile={})])
    assert text.endswith(b',"",,\r\n')
    assert b"\xef\xbb\xbf" not in Csv(AS_SENT).head()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\r\n \t;\u2028\u0085\x00'), max_size=12)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_from_csv(rows: list[tuple[str, str, str]]) -> None:
    text = Csv(AS_SENT)
    people = [customer(1, customer_id=a, account_id=b, created_by=c, extended_profile={a: b}) for a, b, c in rows]
    read = list(csv.reader(io.StringIO((text.head() + text.encode(people)).decode(), newline=""), strict=True))[1:]
    assert [(row[0], row[1], row[7]) for row in read] == rows
    assert [json.loads(row[4]) for row in read] == [{a: b} for a, b, _ in rows]


def test_csv_keeps_numbers_to_the_last_digit() -> None:
    (row,) = csv_rows(readable(customer(1, extended_profile={"points": 2**64 - 1, "spent": "1.5000000001"})))
    assert (row["points"], row["spent"], row["extra"]) == ("18446744073709551615", "1.5000000001", "")


MISFITS = {"external_id": 5, "points": "n/a", "grade": None, "born": ["x"], "spent": {"a": 1}, "more": True}


def test_what_fits_no_column_of_a_csv_is_in_extra_as_it_came() -> None:
    (row,) = csv_rows(readable(customer(1, extended_profile=MISFITS)))
    assert [row[name] for name in ("external_id", "points", "grade", "born", "spent")] == [""] * 5
    assert json.loads(row["extra"])["extended_profile"] == {
        name: value for name, value in MISFITS.items() if value is not None
    }


def test_parquet_has_types(tmp_path: Path) -> None:
    table = packed(tmp_path, readable(customer(1)))
    types = {name: str(table.schema.field(name).type) for name in table.schema.names}
    assert [types[name] for name in ("points", "grade", "born", "spent", "created_at", "extra")] == [
        "double",
        "string",
        "date32[day]",
        "decimal128(38, 4)",
        "timestamp[us, tz=UTC]",
        "string",
    ]
    (row,) = table.to_pylist()
    assert (row["points"], row["born"], row["spent"]) == (7.0, date(2001, 2, 2), Decimal("1.5000"))
    assert row["created_at"] == datetime(2025, 1, 2, 3, 4, 5, 1, UTC)
    assert (row["external_id"], row["updated_at"], row["created_by"]) == ('00001, "x"\r\ny', None, "")


def test_what_fits_no_column_of_parquet_is_in_extra_as_it_came(tmp_path: Path) -> None:
    profile = MISFITS | {"points": 2**53 + 1, "born": "31.02.2001", "spent": "1.00001", "grade": "\ud800"}
    person = customer(1, extended_profile=profile, created_at=None, extra={"created_at": "string"})
    (row,) = packed(tmp_path, readable(person)).to_pylist()
    assert [row[name] for name in ("external_id", "points", "grade", "born", "spent", "created_at")] == [None] * 6
    assert json.loads(row["extra"]) == {"created_at": "string", "extended_profile": profile}


def test_parquet_without_a_row_has_its_columns(tmp_path: Path) -> None:
    table = packed(tmp_path, [])
    assert (table.num_rows, tuple(table.schema.names)) == (0, DECRYPTED.names)


def test_row_groups_end_with_a_page_and_are_the_same_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("nudgescribe_async.bulk.export.arrow.GROUP", 5)
    arrow, people = Arrow(AS_SENT), customers(16)
    pages = [people[:3], people[3:6], people[6:16]]
    (tmp_path / "stream").write_bytes(arrow.head() + b"".join(map(arrow.encode, pages)))
    for name in ("one", "two"):
        pack(tmp_path / "stream", tmp_path / name, pause=lambda: None)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = parquet.read_metadata(tmp_path / "one")
    assert [found.row_group(number).num_rows for number in range(found.num_row_groups)] == [6, 10]
    assert parquet.read_table(tmp_path / "one").column("customer_id").to_pylist() == [p.customer_id for p in people]


PROFILES = st.dictionaries(
    st.sampled_from([name for name, _, _ in FIELDS] + ["more"]),
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["1.5", "01.02.2003", "1.00001", "x", ""])
    | st.lists(st.integers(), max_size=2),
    max_size=7,
)


@given(PROFILES)
@settings(max_examples=100, deadline=None)
def test_no_value_of_a_profile_is_lost_in_parquet(profile: dict[str, Any]) -> None:
    table = DECRYPTED.table(readable(customer(1, extended_profile=profile)), Arrow._FITS)
    row = {column.field or column.name: cells[0] for column, cells in zip(DECRYPTED.all[8:], table[8:], strict=True)}
    rest = (json.loads(row["extra"]) if row["extra"] else {}).get("extended_profile", {})
    for name, value in profile.items():
        if value is None and name not in rest:
            continue
        if name in rest:
            assert row.get(name) is None
            assert rest[name] == value
        elif name == "points":
            assert is_the_same(row[name], value)
        elif name == "spent":
            assert row[name] == Decimal(repr(value) if isinstance(value, float) else value)
        elif name == "born":
            assert row[name].strftime("%d.%m.%Y") == value
        else:
            assert row[name] == value


def test_compressed_pages_are_one_file_to_every_reader() -> None:
    import gzip

    plain = Csv(AS_SENT)
    packed_ = Gzip(plain)
    pages = [customers(3), customers(2)]
    data = packed_.head() + b"".join(map(packed_.encode, pages))
    assert gzip.decompress(data) == plain.head() + b"".join(map(plain.encode, pages))
    assert data == packed_.head() + b"".join(map(packed_.encode, pages))
