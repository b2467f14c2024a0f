"""Whatever holds the customers, the same customers arrive."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import ChainMap
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from helpers import Service, client

from nudgescribe_async import ConfigurationError, Nudgescribe, UploadSourceError
from nudgescribe_async.bulk.upload import arrow, sources
from nudgescribe_async.sandbox import Sandbox, create_sample_fields
from nudgescribe_async.testing import answer

PROFILES: list[Mapping[str, object]] = [
    {"external_id": "1", "first_purchase": "2024-01-31", "purchases": 2, "total_spend": "12.50", "colour": "red"},
    {"external_id": "2", "first_purchase": "1999-12-01", "total_spend": "0.1", "colour": "red"},
    {"external_id": "3", "purchases": -1, "total_spend": "99.99"},
]
CSV = (
    b"external_id,first_purchase,purchases,total_spend,colour\r\n"
    b"1,2024-01-31,2,12.50,red\r\n2,1999-12-01,,0.1,red\r\n3,,-1,99.99,\r\n"
)
VALUES: list[dict[str, object]] = [
    {
        "external_id": "1",
        "first_purchase": date(2024, 1, 31),
        "purchases": 2,
        "total_spend": Decimal("12.50"),
        "colour": "red",
    },
    {
        "external_id": "2",
        "first_purchase": datetime(1999, 12, 1, 23, tzinfo=UTC),
        "purchases": None,
        "total_spend": 0.1,
        "colour": "red",
    },
    {
        "external_id": 3,
        "first_purchase": "",
        "purchases": -1.0,
        "total_spend": "99.99",
        "colour": float("nan"),
    },
]


@pytest.fixture
async def group(sandbox: Sandbox) -> str:
    await create_sample_fields(sandbox)
    await sandbox.create_profile_field("colour", "string")
    return await sandbox.create_customer_group("g")


@pytest.fixture
async def ns(sandbox: Sandbox) -> AsyncIterator[Nudgescribe]:
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        yield ns


async def stored(sandbox: Sandbox, ns: Nudgescribe, group: str) -> list[Mapping[str, object]]:
    return [sandbox.decrypt(item.customer_id, item.extended_profile) for item in await ns.customers.list(group)]


class Pathlike:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


class Reader:
    """A file object of somebody else's."""

    def __init__(self) -> None:
        self._data = io.BytesIO(CSV)

    def read(self, size: int) -> bytes:
        return self._data.read(min(size, 7))


class Items:
    """An asynchronous iterable that is no generator."""

    def __init__(self, items: list[Any]) -> None:
        self._items = iter(items)

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None


def plain() -> Iterator[dict[str, object]]:
    yield from VALUES


async def asynchronous() -> AsyncIterator[dict[str, object]]:
    for value in VALUES:
        await asyncio.sleep(0)
        yield value


async def binary() -> AsyncIterator[bytes]:
    for start in range(0, len(CSV), 11):
        yield CSV[start : start + 11]


def written(folder: Path) -> Path:
    path = folder / "customers.csv"
    path.write_bytes(CSV)
    return path


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(str, id="path"),
        pytest.param(lambda path: path, id="Path"),
        pytest.param(Pathlike, id="path-like"),
        pytest.param(lambda _: CSV, id="bytes"),
        pytest.param(lambda _: bytearray(CSV), id="bytearray"),
        pytest.param(lambda _: memoryview(CSV), id="memoryview"),
        pytest.param(lambda _: io.BytesIO(CSV), id="BytesIO"),
        pytest.param(lambda _: Reader(), id="file object"),
        pytest.param(lambda path: lambda: path.open("rb"), id="function that opens a file"),
        pytest.param(lambda _: [CSV[:9], CSV[9:]], id="list of bytes"),
        pytest.param(lambda _: binary(), id="async generator of bytes"),
        pytest.param(lambda _: VALUES, id="list"),
        pytest.param(lambda _: [ChainMap(value) for value in VALUES], id="other mappings"),
        pytest.param(lambda _: [dict(reversed(list(value.items()))) for value in VALUES], id="other orders"),
        pytest.param(lambda _: plain(), id="generator"),
        pytest.param(lambda _: plain, id="generator function"),
        pytest.param(lambda _: asynchronous(), id="async generator"),
        pytest.param(lambda _: asynchronous, id="async generator function"),
        pytest.param(lambda _: Items(list(VALUES)), id="async iterable"),
    ],
)
async def test_every_source_gives_the_same_customers(
    make: Any, sandbox: Sandbox, ns: Nudgescribe, group: str, tmp_path: Path
) -> None:
    report = await ns.customers.upload(sandbox.workspace_id, group, make(written(tmp_path)))
    assert (report.complete, report.rows, report.problems) == (True, 3, ())
    assert await stored(sandbox, ns, group) == PROFILES


def tables() -> list[Any]:
    pa = pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    columns: dict[str, list[Any]] = {
        "external_id": ["1", "2", "3"],
        "first_purchase": [date(2024, 1, 31), date(1999, 12, 1), None],
        "purchases": [2, None, -1],
        "total_spend": [Decimal("12.50"), Decimal("0.10"), Decimal("99.99")],
        "colour": ["red", "red", None],
    }
    moments = [None if day is None else datetime(day.year, day.month, day.day) for day in columns["first_purchase"]]  # noqa: DTZ001 - tables have such
    table = pa.table(columns)
    frame = pandas.DataFrame(
        columns | {"first_purchase": pandas.to_datetime(moments), "colour": pandas.Categorical(columns["colour"])}
    )
    ours = polars.DataFrame(columns).with_columns(polars.col("colour").cast(polars.Categorical))

    class Interchange:
        def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pandas would rather not have it any more
                return self._made()

        def _made(self) -> Any:
            floats = frame.assign(total_spend=[12.5, 0.1, 99.99], first_purchase=["2024-01-31", "1999-12-01", None])
            return floats.drop(columns=["colour"]).assign(colour=["red", "red", None]).__dataframe__()

    class Array:
        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            return table.to_batches()[0].__arrow_c_array__(requested_schema)

    return [
        pytest.param(Array(), id="anything with an Arrow array"),
        pytest.param(table, id="pyarrow table"),
        pytest.param(table.to_batches()[0], id="record batch"),
        pytest.param(pa.RecordBatchReader.from_batches(table.schema, table.to_batches()), id="reader"),
        pytest.param(lambda: table, id="function that gives a table"),
        pytest.param(
            table.set_column(4, "colour", table["colour"].dictionary_encode())
            .set_column(1, "first_purchase", pa.array(moments, pa.timestamp("ns", "UTC")))
            .set_column(3, "total_spend", pa.array([12.5, 0.1, 99.99], pa.float32())),
            id="narrow floats, nanoseconds, dictionary",
        ),
        pytest.param(frame, id="pandas"),
        pytest.param(frame.assign(total_spend=[12.5, 0.1, 99.99], external_id=[1.0, 2, 3]), id="pandas floats"),
        pytest.param(frame.set_index(pandas.Index([7, 5, 9])), id="pandas with an index"),
        pytest.param(frame.set_index("external_id"), id="pandas with its column for an index"),
        pytest.param(ours, id="polars"),
        pytest.param(ours.lazy().collect(), id="polars, collected"),
        pytest.param(polars.concat([ours[:1], ours[1:]], rechunk=False), id="polars in chunks"),
        pytest.param(Interchange(), id="interchange"),
    ]


@pytest.mark.parametrize("table", tables())
async def test_every_table_gives_the_same_customers(table: Any, sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    report = await ns.customers.upload(sandbox.workspace_id, group, table)
    assert (report.complete, report.rows, report.problems) == (True, 3, ())
    money = [{**profile, "total_spend": Decimal(str(profile["total_spend"]))} for profile in PROFILES]
    assert [
        {**profile, "total_spend": Decimal(str(profile["total_spend"]))} for profile in await stored(sandbox, ns, group)
    ] == money


async def test_gaps_of_pandas_in_mappings_are_no_values(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    pandas = pytest.importorskip("pandas")
    numpy = pytest.importorskip("numpy")
    source = [
        {"external_id": "1", "first_purchase": pandas.NaT, "purchases": pandas.NA, "total_spend": numpy.nan},
        {
            "external_id": numpy.int64(2),
            "first_purchase": pandas.Timestamp("2024-01-31"),
            "purchases": numpy.int8(2),
            "total_spend": numpy.float32(0.1),
        },
        {"external_id": "3", "first_purchase": None, "purchases": numpy.bool_(1), "total_spend": None},
    ]
    report = await ns.customers.upload(sandbox.workspace_id, group, source)
    assert [(problem.row, problem.field) for problem in report.problems] == [(3, "purchases")]
    assert await stored(sandbox, ns, group) == [
        {"external_id": "1"},
        {"external_id": "2", "first_purchase": "2024-01-31", "purchases": 2, "total_spend": "0.1"},
    ]


async def test_a_table_without_rows_or_columns_or_types_is_refused(
    ns: Nudgescribe, group: str, sandbox: Sandbox
) -> None:
    pa = pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    for table, words in (
        (pa.table({"external_id": pa.array([], pa.string())}), "no rows"),
        (pa.table({"shoe": [1]}), "no profile field"),
        (pa.table([[1], [2]], names=["external_id", "external_id"]), "same name"),
        (pandas.DataFrame({"external_id": ["Zebedee", 1]}, dtype=object), "cannot be read as Arrow data"),
        (pa.table({}), "The table has no"),
    ):
        with pytest.raises(UploadSourceError, match=words) as caught:
            await ns.customers.upload(sandbox.workspace_id, group, table)
        assert "Zebedee" not in str(caught.value)
    assert sandbox.count("customers.check") == 0


async def test_a_moment_that_python_cannot_hold_is_said_with_its_column(
    ns: Nudgescribe, group: str, sandbox: Sandbox
) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"external_id": ["1"], "first_purchase": pa.array([2**40], pa.timestamp("s"))})
    with pytest.raises(UploadSourceError, match=r"Column 2 of the table, of the type timestamp\[s\]"):
        await ns.customers.upload(sandbox.workspace_id, group, table)
    assert sandbox.count("customers.check") == 0


async def test_a_column_of_many_categories_is_read_as_one_of_few(ns: Nudgescribe, group: str, sandbox: Sandbox) -> None:
    pa = pytest.importorskip("pyarrow")
    names = pa.array([f"c{number}" for number in range(3_000)]).dictionary_encode()
    report = await ns.customers.upload(
        sandbox.workspace_id, group, pa.table({"external_id": names}), from_row=2_999, dry_run=False
    )
    assert report.accepted == 2
    assert [profile["external_id"] for profile in await stored(sandbox, ns, group)] == ["c2998", "c2999"]


async def test_a_table_of_large_values_is_taken_in_small_parts() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": ["x" * 100_000] * 100, "b": pa.array(["y"] * 100).dictionary_encode()})
    async with client(Service()) as ns:
        report = await ns.customers.upload("w", "g", table, validate=False, dry_run=True, chunk_bytes=2_000_000)
    assert [chunk.rows for chunk in report.chunks] == [20] * 5


async def test_values_of_tables_that_no_field_takes_are_bad_rows(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"external_id": ["1", "2"], "purchases": [True, None], "colour": [["a"], None]})
    report = await ns.customers.upload(sandbox.workspace_id, group, table)
    assert [(problem.row, problem.field) for problem in report.problems] == [(1, "purchases"), (1, "colour")]
    assert await stored(sandbox, ns, group) == [{"external_id": "2"}]


async def test_without_pyarrow_the_error_names_the_extra(
    sandbox: Sandbox, ns: Nudgescribe, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pytest.importorskip("pyarrow").table({"external_id": ["1"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"nudgescribe_async\[parquet\]"):
        await ns.customers.upload(sandbox.workspace_id, group, table)
    assert sandbox.count("customers.check") == 0


def test_arrow_tables_are_read_without_pandas_and_polars() -> None:
    pytest.importorskip("pyarrow")
    program = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {"pandas", "polars"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())  # pyarrow would load pandas by itself if it could
from datetime import datetime
import pyarrow as pa
from nudgescribe_async.bulk.upload import arrow
moments = pa.array([datetime(2024, 1, 1), None], pa.timestamp("ns", "Europe/Berlin"))
(part,) = arrow.parts(pa.table({"a": moments, "b": pa.array(["x", None]).dictionary_encode()}))
assert part.rows([1])[0] == ("x",) and part.rows([0])[1] == (None,)
assert part.rows([0])[0][0].year == 2024
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_class_of_tables_is_no_table() -> None:
    pandas = pytest.importorskip("pandas")
    assert arrow.is_table(pandas.DataFrame())
    assert not arrow.is_table(pandas.DataFrame)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("a,b\n1,2\n", TypeError, "pass content as bytes"),
        ("", ValueError, "empty path"),
        (io.StringIO("a"), TypeError, "open it with 'rb'"),
        ({"external_id": "1"}, TypeError, "one mapping"),
        (3, TypeError, "must be a path"),
        (None, TypeError, "must be a path"),
        (dict, TypeError, "must be a path"),
        (Path("/nowhere/at/all.csv"), FileNotFoundError, "all.csv"),
        (Path("/"), IsADirectoryError, "directory"),
        (lambda: "", ValueError, "What the function gave"),
        (lambda: 3, TypeError, "What the function gave"),
    ],
)
async def test_what_is_no_source_is_refused(source: Any, error: type[Exception], words: str) -> None:
    async with client(Service()) as ns:
        with pytest.raises(error, match=words):
            await ns.customers.upload("w", "g", source, validate=False)


async def test_a_single_column_and_a_lazy_frame_are_refused_with_what_to_do() -> None:
    pa = pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    async with client(Service()) as ns:
        for column in (pandas.Series(["1"]), polars.Series(["1"]), pa.array(["1"]), pa.chunked_array([["1"]])):
            with pytest.raises(UploadSourceError, match=r"is one column, and no table\. .*to_frame"):
                await ns.customers.upload("w", "g", column, validate=False)
        lazy: Any = polars.DataFrame({"a": ["1"]}).lazy()
        with pytest.raises(TypeError, match=r"a LazyFrame, which has no rows yet: collect\(\) it first"):
            await ns.customers.upload("w", "g", lazy, validate=False)


async def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb"):
        async with client(Service()) as ns:
            for source in (path, file, "/dev/null"):
                with pytest.raises(ValueError, match="wait for ever"):
                    await ns.customers.upload("w", "g", source, validate=False)


@pytest.mark.parametrize(
    ("source", "words", "row"),
    [
        ([], "The source has no rows.", None),
        ([{}], "has no fields", 1),
        ([{"external_id": "1"}, 7], "gave int", 2),
        ([{"external_id": "1"}, None], "gave NoneType", 2),
        ([None], "gave NoneType", 1),
        ([{1: "1"}], "no text", 1),
        ([{"external_id": "1", "purchases": 1}, {"external_id": "2"}], "not all the fields that row 1 has", 2),
        ([{"external_id": "1"}, {"external_id": "2", "purchases": 1}], "a field that row 1 has not", 2),
        (["text"], "gave str", 1),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_mappings_that_do_not_fit_are_refused(source: list[Any], words: str, row: int | None, kind: str) -> None:
    service = Service()
    service.on_call = lambda _: answer(200, [])
    async with client(service) as ns:
        with pytest.raises(UploadSourceError, match=words) as caught:
            await ns.customers.upload("w", "g", source if kind == "plain" else Items(source), validate=False)
    assert caught.value.row == row
    assert len(service.requests) == 0


async def test_bytes_and_then_something_else_are_refused() -> None:
    source: list[Any] = [b"a\n1\n", {"a": 1}]
    async with client(Service()) as ns:
        with pytest.raises(TypeError, match="bytes throughout"):
            await ns.customers.upload("w", "g", source, validate=False)


async def test_a_file_object_that_has_nothing_for_now_is_no_end() -> None:
    class Slow:
        def read(self, _: int) -> None:
            return None

    async with client(Service()) as ns:
        with pytest.raises(TypeError, match="NoneType"):
            await ns.customers.upload("w", "g", Slow(), validate=False)  # type: ignore[arg-type]


async def test_a_value_that_is_too_large_has_a_row_and_a_field() -> None:
    source = [{"a": "x"}, {"a": "ü" * 600}]
    async with client(Service()) as ns:
        with pytest.raises(UploadSourceError, match="more than 1,000 bytes") as caught:
            await ns.customers.upload("w", "g", source, validate=False, max_cell_bytes=1_000)
    assert (caught.value.row, caught.value.field) == (2, "a")


async def test_files_and_generators_are_closed_as_they_should_be(tmp_path: Path) -> None:
    path = written(tmp_path)
    closed: list[str] = []

    def generator() -> Iterator[dict[str, object]]:
        try:
            yield {"a": "1"}
            yield {"b": "1"}
        finally:
            closed.append("generator")

    async def async_generator() -> AsyncIterator[dict[str, object]]:
        try:
            yield {"a": "1"}
            yield {"b": "1"}
            yield {"c": "1"}
        finally:
            closed.append("async generator")

    service = Service()
    service.on_call = lambda _: answer(200, {"accepted_count": 3, "rejected_count": 0})
    async with client(service) as ns:
        for source in (generator(), async_generator()):
            with pytest.raises(UploadSourceError):
                await ns.customers.upload("w", "g", source, validate=False)
        with path.open("rb") as file:
            await ns.customers.upload("w", "g", file, validate=False)
            assert not file.closed
        made = path.open("rb")
        await ns.customers.upload("w", "g", lambda: made, validate=False)
        assert made.closed
    assert closed == ["generator", "async generator"]


async def test_a_file_that_is_being_opened_when_the_upload_is_cancelled_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    opening, go_on = threading.Event(), threading.Event()
    opened: list[Any] = []

    def slowly(path: Any) -> Any:
        opened.append(open(path, "rb"))  # noqa: PTH123, SIM115 - it is the upload's to close
        opening.set()
        go_on.wait(10)
        return opened[0]

    monkeypatch.setattr(sources, "_open_path", slowly)
    async with client(Service()) as ns:
        task = asyncio.create_task(ns.customers.upload("w", "g", path, validate=False))
        await asyncio.to_thread(opening.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert opened[0].closed


class Rows:
    """An iterable whose iterator is a generator."""

    def __init__(self) -> None:
        self.closed = False
        self.held: list[Any] = []

    def __iter__(self) -> Iterator[dict[str, object]]:
        iterator = self._rows()
        self.held.append(iterator)
        return iterator

    def _rows(self) -> Iterator[dict[str, object]]:
        try:
            while True:
                yield {"a": "1"}
        finally:
            self.closed = True


async def test_the_generator_within_an_iterable_is_closed_too() -> None:
    rows = Rows()
    async with client(Service()) as ns:
        await ns.customers.upload("w", "g", rows, validate=False, to_row=3, dry_run=True)
    assert rows.closed


async def test_generators_that_are_not_read_to_their_end_are_closed() -> None:
    closed: list[str] = []

    def generator() -> Iterator[dict[str, object]]:
        try:
            while True:
                yield {"a": "1"}
        finally:
            closed.append("generator")

    async def async_generator() -> AsyncIterator[dict[str, object]]:
        try:
            while True:
                yield {"a": "1"}
        finally:
            closed.append("async generator")

    held: list[Any] = [generator(), async_generator()]  # held, so that nothing else closes them
    async with client(Service()) as ns:
        for source in held:
            await ns.customers.upload("w", "g", source, validate=False, to_row=3, dry_run=True)
    assert closed == ["generator", "async generator"]
    del held


async def test_the_kept_rows_are_where_they_were_asked_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    make = tempfile.TemporaryFile

    def ask(**options: Any) -> Any:
        asked.append(options["dir"])
        return make(**options)

    monkeypatch.setattr("nudgescribe_async.bulk.upload.spool.tempfile.TemporaryFile", ask)
    async with client(Service()) as ns:
        await ns.customers.upload("w", "g", [{"a": "1"}], validate=False, dry_run=True, spool=tmp_path)
        await ns.customers.upload("w", "g", [{"a": "1"}], validate=False, dry_run=True)
    assert asked == [tmp_path, None]
