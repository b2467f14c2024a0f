"""Sources that are made to take memory or time, or to be altered in silence: found by an attack on the upload."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import aiohttp
import pytest
from helpers import Service, client

from nudgescribe_async import CallOptions, Nudgescribe, RetryPolicy, ServerError, UploadReport, UploadSourceError
from nudgescribe_async.bulk.upload import arrow
from nudgescribe_async.bulk.upload.header import match
from nudgescribe_async.bulk.upload.intake import CsvIntake, MappingIntake
from nudgescribe_async.bulk.upload.rules import unjudged
from nudgescribe_async.bulk.upload.spool import Spool
from nudgescribe_async.sandbox import Sandbox, Status

SECRET = "Zebedee-MARKED"


async def check(source: Any, **options: Any) -> UploadReport:
    """The pass alone, with nobody to judge the names."""
    async with client(Service()) as ns:
        return await ns.customers.upload("w", "g", source, validate=False, dry_run=True, **options)


@pytest.fixture
async def ns(sandbox: Sandbox) -> AsyncIterator[Nudgescribe]:
    for name, type_, format_ in (
        ("external_id", "string", None),
        ("note", "string", None),
        ("day", "Date", "dd.MM.yyyy"),
    ):
        await sandbox.create_profile_field(name, type_, field_format=format_)
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        yield ns


async def kept(sandbox: Sandbox, ns: Nudgescribe, source: Any, **options: Any) -> tuple[UploadReport, list[Any]]:
    """The report, and the customers that came of it."""
    group = await sandbox.create_customer_group("g")
    report = await ns.customers.upload(sandbox.workspace_id, group, source, **options)
    found = await ns.customers.list(group)
    return report, [sandbox.decrypt(item.customer_id, item.extended_profile) for item in found]


# --- rows without end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("begin", "place"), [(b"", (None, 1)), (b"a\n1\n", (2, 3))], ids=["header", "row"])
async def test_a_row_of_many_lines_without_end_is_left_early(begin: bytes, place: tuple[int | None, int]) -> None:
    given = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal given
        yield begin
        while given < 100:
            given += 1
            yield b'"\n",' * 50_000

    with pytest.raises(UploadSourceError, match="The row has more than 1,048,576 characters") as caught:
        await check(source(), max_cell_bytes=1_000)
    assert (caught.value.row, caught.value.line) == place
    assert given < 10


async def test_the_length_of_a_row_is_counted_anew_for_each() -> None:
    cell = b'"' + b"x\n" * 150_000 + b'"'
    report = await check(b"a,b\n" + (cell + b"," + cell + b"\n") * 4, max_cell_bytes=300_000)
    assert report.rows == 4


# --- encodings ------------------------------------------------------------------------------------------------------------

TEXT = f"a\n{SECRET}\n"


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (TEXT.encode("utf-16-le"), "utf-8", "encoding='utf-16-le'"),
        (TEXT.encode("utf-16-le"), "utf-16", "does not begin with the mark of UTF-16. Without a mark, pass encoding='utf-16-le'"),
        (TEXT.encode("utf-32-le"), "utf-32", "Without a mark, pass encoding='utf-32-le'"),
        (TEXT.encode("utf-32"), "utf-8", "encoded in UTF-32, by the mark that it begins with. Save it as UTF-8, or pass encoding='utf-32'"),
        (TEXT.encode("utf-32"), "utf-16", "encoded in UTF-32"),
        (b"\0\0\xfe\xff" + TEXT.encode("utf-32-be"), "utf-16", "encoded in UTF-32"),
        (TEXT.encode("utf-16"), "utf-32", "encoded in UTF-16"),
    ],
)  # fmt: skip
async def test_what_is_advised_of_an_encoding_is_right(data: bytes, encoding: str, words: str) -> None:
    with pytest.raises(UploadSourceError) as caught:
        await check(data, encoding=encoding)
    assert words in str(caught.value)
    assert SECRET not in repr((caught.value, caught.value.__cause__))
    _, found, advised = str(caught.value).rpartition("pass encoding='")
    if found:
        assert (await check(data, encoding=advised.partition("'")[0])).rows == 1


@pytest.mark.parametrize(
    "pieces",
    [
        [b"external_id\nA", b"\xa6", b"\xa65\x0b\x949", b"\xfc6\xa2\xa8\xa6 ", b"\r\n"],
        [b"external_id\n", b";\x81", b"6", b"\xa65\x0b\x949", b"\xfc6\xa2\xa8\xa6 ", b"\r\r\n"],
    ],
)
def test_a_bad_character_across_pieces_is_said_as_one_within(pieces: list[bytes]) -> None:
    intake = CsvIntake(lambda names, _: match(names, None, None), encoding="gb18030", delimiter=",", max_cell_bytes=99, from_row=1)  # fmt: skip
    with pytest.raises(UploadSourceError, match="not encoded in gb18030") as caught:
        list(map(intake.feed, pieces))
    assert (caught.value.row, caught.value.line) == (1, 2)


# --- going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        b"id,x\nA,1\nB,2\nC\nA,3\nB,4\nC,5\nD,6\n",
        [{"id": "A"}, {"id": "B"}, {"name": "C"}, *({"id": name} for name in "ABCD")],
    ],
    ids=["file", "mappings"],
)
async def test_repeats_of_rows_before_the_first_one_wanted_are_refused(source: Any) -> None:
    report = await check(source, unique="id", from_row=4)
    assert [(problem.row, problem.field) for problem in report.problems] == [(4, "id"), (5, "id")]
    assert (report.rows, report.refused_by_check, [chunk.rows for chunk in report.chunks]) == (4, 2, [2])


async def test_bad_rows_before_the_first_one_wanted_are_neither_reported_nor_remembered(
    sandbox: Sandbox, ns: Nudgescribe
) -> None:
    source = b"external_id,day\nA,31.02.2020\nB,29.02.2020\nA,01.02.2020\nB,\n"
    report, found = await kept(sandbox, ns, source, unique="external_id", from_row=3)
    assert [(problem.row, problem.reason) for problem in report.problems] == [(4, "has the value of an earlier row")]
    assert [customer["external_id"] for customer in found] == ["A"]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_mappings_are_not_asked_for_beyond_the_last_row_wanted(kind: str) -> None:
    given: list[int] = []

    def rows() -> Iterator[Any]:
        for number in range(1, 5):
            given.append(number)
            yield {"id": number}

    async def later() -> AsyncIterator[Any]:
        for row in rows():
            yield row
            if given == [1, 2]:
                await asyncio.Event().wait()  # the next one is not to be waited for

    report = await check(rows() if kind == "plain" else later(), to_row=2)
    assert (report.rows, given) == (2, [1, 2])


@pytest.mark.parametrize(
    "behind", [b"x,y\n", b'"x"y\n', b"\xff\n", b"\0\n", b"x" * 2_000 + b"\n", b'"'], ids=lambda data: repr(data[:8])
)
async def test_what_is_behind_the_last_row_wanted_is_not_looked_at(behind: bytes) -> None:
    report = await check(b"id\nA\n\nB\n" + behind, to_row=2, max_cell_bytes=1_000)
    assert [chunk.rows for chunk in report.chunks] == [2]
    with pytest.raises(UploadSourceError):
        await check(b"id\nA\n\nB\n" + behind, to_row=3, max_cell_bytes=1_000)


async def test_bytes_that_are_long_in_coming_are_not_waited_for_behind_the_last_row_wanted() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"external_id\nA\n"
        await asyncio.Event().wait()

    assert (await check(source(), to_row=1)).rows == 1


@pytest.mark.parametrize("unfit", [{"other": 1}, {"id": 1, "other": 2}, 7])
async def test_mappings_before_the_first_row_wanted_need_not_fit(unfit: Any) -> None:
    source = [{"id": 1}, unfit, {"id": 3}]
    report = await check(source, from_row=3)
    assert [(chunk.first_row, chunk.rows) for chunk in report.chunks] == [(3, 1)]
    with pytest.raises(UploadSourceError, match="Row 2"):
        await check(source, from_row=2)
    with pytest.raises(UploadSourceError, match="Row 1"):
        await check([7, {"id": 3}], from_row=2)  # the first one names the fields


# --- the disk -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
async def test_a_full_disk_does_not_hide_why_an_upload_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[Any] = []

    def full(**_: Any) -> Any:
        files.append(Path("/dev/full").open("w+b"))  # noqa: SIM115 - closed by the spool
        return files[-1]

    monkeypatch.setattr("nudgescribe_async.bulk.upload.spool.tempfile.TemporaryFile", full)
    with pytest.raises(UploadSourceError, match="Row 1,001"):
        await check([{"a": 1}] * 1_000 + [{"b": 1}])
    going = asyncio.Event()

    async def slow() -> AsyncIterator[Any]:
        for _ in range(1_000):
            yield {"a": 1}
        going.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(check(slow()))
    await going.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [file.closed for file in files] == [True, True]
    with pytest.raises(OSError, match="No space left"):
        await check(b"a\n1\n")


# --- pieces ---------------------------------------------------------------------------------------------------------------


class Lines:
    """Many small pieces, plain or async."""

    def __init__(self, count: int) -> None:
        self._pieces = [b"external_id\n", *(b"A%d\n" % number for number in range(count))]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def later(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_small_pieces_are_taken_together(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    feed = CsvIntake.feed

    def watched(self: CsvIntake, piece: Any) -> Any:
        fed.append(len(piece))
        return feed(self, piece)

    monkeypatch.setattr(CsvIntake, "feed", watched)
    lines = Lines(100_000)
    report = await check(lines if kind == "plain" else lines.later())
    assert report.rows == 100_000
    assert len(fed) == 3
    assert max(fed) < 2**18 + 10


@pytest.mark.parametrize("first", [b"external_id\nA\n", {"external_id": "A"}], ids=["bytes", "mapping"])
async def test_a_source_that_gives_little_and_waits_can_be_cancelled(first: Any) -> None:
    waiting, closed = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[Any]:
        try:
            yield first
            waiting.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    task = asyncio.create_task(check(source()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


async def test_answers_and_streams_that_are_read_asynchronously_are_sources() -> None:
    data = b"external_id\n" + b"x" * 200_000 + b"\nB\n"  # longer than a line of theirs may be
    ours = asyncio.StreamReader()
    theirs = aiohttp.StreamReader(Mock(), 2**16, loop=asyncio.get_running_loop())
    for stream in (ours, theirs):
        stream.feed_data(data)
        stream.feed_eof()
        assert (await check(stream)).rows == 2
        assert (await check(lambda: stream_of(data))).rows == 2


def stream_of(data: bytes) -> asyncio.StreamReader:
    stream = asyncio.StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    return stream


async def test_bytes_after_mappings_are_refused_as_the_row_that_they_are() -> None:
    with pytest.raises(UploadSourceError, match="Row 3: The source gave bytes"):
        await check([{"a": 1}, {"a": 2}, SECRET.encode()])


async def test_mappings_of_large_bytes_are_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    feed = MappingIntake.feed

    def watched(self: MappingIntake, piece: Any) -> Any:
        fed.append(len(piece))
        return feed(self, piece)

    monkeypatch.setattr(MappingIntake, "feed", watched)
    report = await check({"a": bytes(100_000)} for _ in range(30))
    assert report.refused_by_check == 30
    assert fed == [3] * 10


async def test_a_large_bytearray_is_neither_copied_nor_held(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[Any] = []
    feed = CsvIntake.feed

    def watched(self: CsvIntake, piece: Any) -> Any:
        fed.append(piece)
        return feed(self, piece)

    monkeypatch.setattr(CsvIntake, "feed", watched)
    source = bytearray(b"a\n1\n").ljust(2**26, b"\n")
    tracemalloc.start()
    try:
        await check(source, to_row=1)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert len(fed) == 1
    source += b"x"  # which is an error while somebody holds a view of it


@pytest.mark.parametrize(
    "source",
    [
        memoryview(bytes(byte for byte in b"a\n1\n2\n\n\n" for _ in "ab"))[::2],
        memoryview(b"a\n1\n2\n\n\n").cast("B", [2, 4]),
        memoryview(b"a\n1\n2\n\n\n").cast("I"),
    ],
    ids=["every other byte", "two dimensions", "numbers"],
)
@pytest.mark.parametrize("wrap", [lambda view: view, lambda view: [view]], ids=["itself", "listed"])
async def test_any_view_of_bytes_is_read_by_its_bytes(source: memoryview, wrap: Any) -> None:
    assert (await check(wrap(source))).rows == 2


async def test_generators_are_closed_when_the_fields_cannot_be_read(sandbox: Sandbox, ns: Nudgescribe) -> None:
    closed: list[str] = []

    def plain() -> Iterator[bytes]:
        with suppress(GeneratorExit):
            yield b"external_id\n"
            yield b"1\n"
        closed.append("plain")

    async def later() -> AsyncIterator[bytes]:
        with suppress(GeneratorExit):
            yield b"external_id\n"
            yield b"1\n"
        closed.append("async")

    begun, later_begun = plain(), later()
    next(begun)
    await anext(later_begun)
    group = await sandbox.create_customer_group("g")
    sandbox.inject(Status(500), operation="profile_fields.list", times=None)
    for source in (begun, later_begun):
        with pytest.raises(ServerError):
            await ns.customers.upload(
                sandbox.workspace_id, group, source, options=CallOptions(retries=RetryPolicy(attempts=1))
            )
    assert closed == ["plain", "async"]


# --- names ----------------------------------------------------------------------------------------------------------------


async def test_white_space_around_names_of_fields_empties_no_cell(sandbox: Sandbox, ns: Nudgescribe) -> None:
    source = [{"external_id": "A", "note ": "hello"}, {"note": "x", " note": "y", 3: "z"}, {"external_id": "C"}]
    _, found = await kept(sandbox, ns, source, fields=["external_id", "note "])
    assert found == [{"external_id": "A", "note": "hello"}, {"note": "x"}, {"external_id": "C"}]


class Name(str):
    """Counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        type(self).compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_many_fields_are_found_in_many_columns_without_a_comparison_of_all() -> None:
    header = [f"c{number}" for number in range(2_000)]
    columns = match(header, None, [Name(name) for name in header[::2]])
    assert columns.picked == tuple(range(0, 2_000, 2))
    assert Name.compared < 20_000


# --- tables ---------------------------------------------------------------------------------------------------------------


def test_a_text_that_many_rows_share_is_written_a_few_rows_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ["a"], rows_per_chunk=10_000, chunk_bytes=2**30)
    rows = [["x" * 20_000]] * 500
    tracemalloc.start()
    try:
        spool.add(rows, range(1, 501), None)
        assert tracemalloc.get_traced_memory()[1] < 2**22
        spool.end()
    finally:
        tracemalloc.stop()
        spool.close()
    assert [(chunk.rows, chunk.last_row) for chunk in spool.chunks] == [(500, 500)]


async def test_a_dictionary_of_large_texts_is_sent_in_chunks_of_their_size() -> None:
    pa = pytest.importorskip("pyarrow")
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int8()), pa.array(["x" * 10_000]))
    report = await check(pa.table({"a": texts}), chunk_bytes=100_000)
    assert [chunk.rows for chunk in report.chunks] == [10] * 50


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_parts_are_small_where_a_few_rows_are_large(kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    texts = [*["x" * 400_000] * 20, *(str(number) for number in range(5_000))]
    table = pa.table({"a": pa.array(["", *texts], pa.type_for_alias(kind))}).slice(1)
    found = [part.rows([0]) for part in arrow.parts(table)]
    assert [row[0] for rows in found for row in rows] == texts
    assert max(sum(len(str(row[0])) for row in rows) for rows in found) < 1_100_000
    assert len(found) < 40


def test_what_rows_share_is_made_once_and_does_not_make_parts_small() -> None:
    pa = pytest.importorskip("pyarrow")
    words = [f"{number}-{'x' * 1_000}" for number in range(4_000)]
    for kind in (pa.string(), pa.string_view()):
        column = pa.DictionaryArray.from_arrays(pa.array([3_999, 3_999, None, 0] * 500), pa.array(words, kind))
        (part,) = arrow.parts(pa.table({"a": column}))
        rows = part.rows([0])
        assert [row[0] for row in rows] == [words[3_999], words[3_999], None, words[0]] * 500
        assert rows[0][0] is rows[1][0]


@pytest.mark.parametrize("runs", [[3, 4, 4_500], [1_999, 2_000, 2_001], [5]])
def test_runs_are_read_as_what_they_stand_for(runs: list[int]) -> None:
    pa = pytest.importorskip("pyarrow")
    values = [0.1, None, 0.3][: len(runs)]
    column = pa.RunEndEncodedArray.from_arrays(runs, pa.array(values, pa.float32()))
    meant = [value for value, end, begin in zip(values, runs, [0, *runs], strict=False) for _ in range(begin, end)]
    for table in (pa.table({"a": column}), pa.table({"a": column}).slice(2)):
        got = [row[0] for part in arrow.parts(table) for row in part.rows([0])]
        assert got == meant[-len(table) :]


def test_narrow_floats_of_a_large_dictionary_get_no_digits_that_they_never_had() -> None:
    pa = pytest.importorskip("pyarrow")
    floats = [number + 0.1 for number in range(2_500)]
    column = pa.DictionaryArray.from_arrays(pa.array(range(2_500)), pa.array(floats, pa.float32()))
    got = [unjudged("a").write(row[0]) for part in arrow.parts(pa.table({"a": column})) for row in part.rows([0])]
    assert got == [f"{number}.1" for number in range(2_500)]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789"),
        (1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001"),
        (1_700_000_000_123_456_000, "2023-11-14T22:13:20.123456"),
        (-1, "1969-12-31T23:59:59.999999999"),
        (0, "1970-01-01T00:00:00"),
        (None, ""),
    ],
)
def test_nanoseconds_of_tables_are_kept(count: int | None, text: str) -> None:
    pa = pytest.importorskip("pyarrow")
    column = pa.array([count], pa.timestamp("ns"))
    (part,) = arrow.parts(pa.table({"a": column, "b": column.cast(pa.timestamp("ns", "+02:00"))}))
    ((naive, aware),) = part.rows([0, 1])
    assert unjudged("a").write(naive) == text
    assert not type(naive).__module__.startswith("pandas")
    if text:
        assert unjudged("a").write(aware).endswith("+02:00")
        assert isinstance(aware, datetime)
        assert aware.astimezone(UTC).replace(tzinfo=None) == naive
        assert aware.utcoffset() == timedelta(hours=2)


async def test_a_moment_with_nanoseconds_is_a_day_in_a_field_of_days(sandbox: Sandbox, ns: Nudgescribe) -> None:
    pa = pytest.importorskip("pyarrow")
    day = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    _, found = await kept(sandbox, ns, pa.table({"external_id": ["A"], "day": day}))
    assert found == [{"external_id": "A", "day": "14.11.2023"}]


async def test_values_of_other_libraries_are_bad_rows_rather_than_their_numbers(
    sandbox: Sandbox, ns: Nudgescribe
) -> None:
    pa = pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    periods = pandas.DataFrame({"external_id": ["A", "B"], "note": pandas.PeriodIndex(["2020-01-01", None], freq="D")})
    report, found = await kept(sandbox, ns, periods)
    assert [(problem.row, problem.reason) for problem in report.problems] == [
        (1, "must be a text, a number or a date, not pandas.period")
    ]
    assert found == [{"external_id": "B"}]
    unknown = pa.field("note", pa.int64(), metadata={"ARROW:extension:name": "others.period"})
    schema = pa.schema([pa.field("external_id", pa.string()), unknown])
    report, found = await kept(sandbox, ns, pa.table([["A", "B"], [18_262, None]], schema=schema))
    assert [(problem.row, problem.field) for problem in report.problems] == [(1, "note")]
    assert found == [{"external_id": "B"}]


async def test_identifiers_and_json_of_arrow_are_texts(sandbox: Sandbox, ns: Nudgescribe) -> None:
    pa = pytest.importorskip("pyarrow")
    identifier = UUID("12345678-1234-5678-1234-567812345678")
    table = pa.table(
        {
            "external_id": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([identifier.bytes], pa.binary(16))),
            "note": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'])),
            "day": [date(2020, 2, 29)],
        }
    )
    _, found = await kept(sandbox, ns, table)
    assert found == [{"external_id": str(identifier), "note": '{"a": 1}', "day": "29.02.2020"}]
