"""Files: read as CSV is meant, whatever the pieces; what is wrong with one is said, and nothing is sent."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import lzma
import pickle
import re
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nudgescribe_async import Nudgescribe, UploadSourceError
from nudgescribe_async.arguments import check_encoding
from nudgescribe_async.bulk.upload.header import match
from nudgescribe_async.bulk.upload.intake import CsvIntake
from nudgescribe_async.sandbox import Sandbox, create_sample_fields

SECRET = "Zebedee-MARKED"


def read(data: bytes, *, block: int = 2**18, encoding: str = "utf-8", most: int = 2**20) -> list[tuple[int, int, Any]]:
    """Row, line and cells of a file, with the header as row 0, however it is cut into blocks."""
    header: list[tuple[int, int, Any]] = []

    def begin(names: Any, line: int | None) -> Any:
        header.append((0, line or 0, list(names)))
        return match([f"c{index}" for index in range(len(names))], None, None)

    intake = CsvIntake(begin, encoding=check_encoding(encoding), delimiter=",", max_cell_bytes=most, from_row=1)
    rows: list[tuple[int, int, Any]] = []
    batches = [intake.feed(data[start : start + block]) for start in range(0, len(data), block)]
    for batch in [*batches, intake.end()]:
        assert batch.lines is not None
        numbers = range(batch.first, batch.first + len(batch.rows))
        rows.extend(zip(numbers, batch.lines, batch.rows, strict=True))
    return header + rows


cells = st.text(alphabet='ab,"\r\n ü😀\u2028\x0b\x85', max_size=4)


@given(
    st.integers(1, 3).flatmap(
        lambda width: st.tuples(
            st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6),
            # With another end than CRLF, the writer leaves a CR in a cell without quotes.
            st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), *((end, csv.QUOTE_ALL) for end in ("\r\n", "\n", "\r"))]),
        )
    ),
    st.integers(1, 9),
)
@example(([["a\r"], ["\r\nb"]], ("\r\n", csv.QUOTE_ALL)), 1)
def test_what_csv_writes_is_read_back_with_the_lines_whatever_the_blocks(
    table: tuple[list[list[str]], tuple[str, Any]], block: int
) -> None:
    rows, (end, quoting) = table
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([["x"] * len(rows[0]), *rows])
    data = text.getvalue()
    reader = csv.reader(io.StringIO(data, newline=""), strict=True)
    expected: list[tuple[int, int, list[str]]] = []
    line = 1
    for row in reader:
        if row:
            expected.append((len(expected), line, row))
        line = reader.line_num + 1
    assert read(data.encode(), block=block) == expected


@given(st.text(alphabet='a,"\n\r', max_size=12))
@example('a"b,"c"""\n')
@example('a,"b\n')
@example('"a"b\n')
@example("\n\na\n\n1\n")
def test_any_text_is_taken_or_refused_as_by_the_strict_reader_of_the_standard_library(text: str) -> None:
    text = f"x\n{text}"
    try:
        expected = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        expected = None
    if expected is not None and (len(expected) == 1 or any(len(row) != 1 for row in expected)):
        expected = None  # nothing below the header, or ragged
    try:
        rows = [row for _, _, row in read(text.encode(), block=3)]
    except UploadSourceError:
        rows = None
    assert rows == expected


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-be", "utf-32", "shift_jis", "utf-8-sig"])
@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
def test_other_encodings_are_read_in_any_blocks(encoding: str, block: int) -> None:
    word = "日本" if encoding == "shift_jis" else "Müller"
    data = f"a,b\r\n{word},2\r\n".encode(encoding)
    assert read(data, encoding=encoding, block=block) == [(0, 1, ["a", "b"]), (1, 2, [word, "2"])]


async def attempt(source: Any, **options: Any) -> UploadSourceError:
    async with Sandbox() as sandbox, Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        await create_sample_fields(sandbox)
        group = await sandbox.create_customer_group("g")
        with pytest.raises(UploadSourceError) as caught:
            await ns.customers.upload(sandbox.workspace_id, group, source, **options)
        assert sandbox.count("customers.check") == 0
        error = caught.value
        assert str(error).endswith("Nothing was sent. (operation customers.upload)")
        assert SECRET not in str(error)
        assert "  " not in str(error)
        assert error.__cause__ is None
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        return error


HEADER = b"external_id,first_purchase,purchases\n"
GOOD = b"1,2024-01-31,1\n"


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        pytest.param(b"", (None, None, None), "The file is empty.", id="empty"),
        pytest.param(codecs.BOM_UTF8, (None, None, None), "The file is empty.", id="mark only"),
        pytest.param(b"\r\n\n\r\n", (None, None, None), "The file is empty.", id="blank lines only"),
        pytest.param(HEADER, (None, None, None), "a header, and no rows", id="header only"),
        pytest.param(HEADER[:-1], (None, None, None), "a header, and no rows", id="header only, without an end"),
        pytest.param(b" , ,\n1,2,3\n", (None, 1, None), "The first row is empty.", id="header of nothing"),
        pytest.param(
            b"\nexternal_id,purchases,external_id\n1,1,1\n",
            (None, 2, "external_id"),
            "the same name in the columns 1 and 3: 'external_id'",
            id="duplicate header",
        ),
        pytest.param(
            b"external_id,Purchasse\n1,1\n",
            (None, 1, "Purchasse"),
            "Column 2, 'Purchasse', is no profile field of the workspace; did you mean 'purchases'?",
            id="misspelt header",
        ),
        pytest.param(
            f"{SECRET},2024-01-31\n".encode() + GOOD,
            (None, 1, None),
            "The first row must name profile fields; the workspace has 'external_id'",
            id="no header",
        ),
        pytest.param(b"external_id;purchases\n1;1\n", (None, 1, None), "pass delimiter=';'", id="another delimiter"),
        pytest.param(
            b"purchases\n1\n", (None, 1, "external_id"), "no column for 'external_id'", id="required column missing"
        ),
        pytest.param(
            HEADER + GOOD + b"\n2,2024-01-31\n",
            (2, 4, None),
            "Row 2, line 4 of the file: The row has 2 cells, and the header 3.",
            id="ragged row",
        ),
        pytest.param(
            HEADER + GOOD + b"  \n",
            (2, 3, None),
            "Row 2, line 3 of the file: The line has only blanks, and a row has 3 cells. Remove the line",
            id="a last line of blanks",
        ),
        pytest.param(
            HEADER + b'"1\n1",2024-01-31,1\n' + f"{SECRET},,,\n".encode(),
            (2, 4, None),
            "The row has 4 cells, and the header 3.",
            id="ragged row behind a line break in a cell",
        ),
        pytest.param(
            HEADER + GOOD + f"M\u00fcller {SECRET},2024-01-31,1\n".encode("latin-1"),
            (2, 3, None),
            "encoding='latin-1'",
            id="latin-1",
        ),
        pytest.param(HEADER + GOOD + b"\xc3", (2, 3, None), "not encoded in UTF-8", id="half a character at the end"),
        pytest.param((HEADER + GOOD).decode().encode("utf-16"), (None, None, None), "encoding='utf-16'", id="utf-16"),
        pytest.param(
            (HEADER + GOOD).decode().encode("utf-16-le"), (None, 1, None), "encoding='utf-16-le'", id="utf-16, no mark"
        ),
        pytest.param(HEADER + GOOD + b"2,\x00,1\n", (2, 3, None), "a NUL character", id="NUL"),
        pytest.param(
            HEADER + GOOD + b'2,"2024-01-31\n3,2024-01-31,1\n',
            (2, 3, "first_purchase"),
            "never closed",
            id="open quote",
        ),
        pytest.param(
            HEADER + f'"{SECRET}"x,,\n'.encode(), (1, 2, "external_id"), "than the delimiter", id="text behind a quote"
        ),
        pytest.param(
            HEADER + GOOD + b"2," + b"x" * 10_000_000 + b",1\n",
            (2, 3, "first_purchase"),
            "A cell has more than 1,048,576 bytes.",
            id="10 MB cell",
        ),
        pytest.param(
            HEADER + b'1,,"' + b"x\n" * 5_000_000 + b'"\n' + GOOD,
            (1, 2, "purchases"),
            "A cell has more than 1,048,576 bytes.",
            id="10 MB cell in quotes, of many lines",
        ),
        pytest.param(
            HEADER + b'1,,"' + b"x\n" * 1_000_000,
            (1, 2, "purchases"),
            "A cell has more than 1,048,576 bytes.",
            id="a quote that is never closed in a large file",
        ),
        pytest.param(
            HEADER + "1,{},\n".format("ü" * 600_000).encode(),
            (1, 2, "first_purchase"),
            "A cell has more than 1,048,576 bytes.",
            id="a cell of fewer characters than bytes",
        ),
        pytest.param(b"x" * 40_000_000, (None, 1, None), "more than 1,048,576 bytes", id="40 MB without a line break"),
        pytest.param(b"x,y," * 10_000_000, (None, 1, None), "The row has more than", id="40 MB of small cells"),
    ],
)
async def test_a_fault_of_the_file_has_a_place_and_a_remedy_and_nothing_is_sent(
    data: bytes, place: tuple[int | None, int | None, str | None], words: str
) -> None:
    error = await attempt(data)
    assert words in str(error)
    assert (error.row, vars(error)["line"], error.field) == place


async def test_the_last_row_wrong_in_a_large_file_is_enough_to_send_nothing() -> None:
    error = await attempt(HEADER + GOOD * 30_000 + b"x\n", rows_per_chunk=1_000)
    assert (error.row, vars(error)["line"]) == (30_001, 30_002)


@pytest.mark.parametrize("block", range(1, 16))
@pytest.mark.parametrize("encoding", ["utf-8", "shift_jis", "utf-16-be"])
def test_what_cannot_be_decoded_has_its_place_whatever_the_blocks(encoding: str, block: int) -> None:
    data = (
        "a\n\n日本\n".encode(encoding)
        + {"utf-8": b"\xff", "shift_jis": b"\x82\x01", "utf-16-be": b"\xd8\0\0a"}[encoding]
    )
    with pytest.raises(UploadSourceError, match="not encoded in") as caught:
        read(data, encoding=encoding, block=block)
    assert (caught.value.row, vars(caught.value)["line"]) == (2, 4)


async def test_a_mark_of_utf8_and_another_encoding_do_not_go_together() -> None:
    error = await attempt(codecs.BOM_UTF8 + HEADER + GOOD, encoding="latin-1")
    assert "Leave encoding out" in str(error)


async def test_a_wrong_encoding_is_named() -> None:
    error = await attempt(HEADER + "ü\n".encode(), encoding="ascii")
    assert "not encoded in ascii" in str(error)


async def test_many_unknown_names_are_counted_and_long_ones_cut() -> None:
    names = ["external_id", "x" * 500, *(f"shoe{number}" for number in range(9))]
    error = await attempt(",".join(names).encode() + b"\n1\n")
    assert "Column 6, 'shoe3', is no profile field of the workspace. 5 more columns are none either." in str(error)
    assert error.field is None
    six = await attempt(",".join(["external_id", *(f"shoe{number}" for number in range(6))]).encode() + b"\n1\n")
    assert "Column 7, 'shoe5', is no profile field" in str(six)
    assert "more" not in str(six)
    assert len(str(error)) < 700


async def test_a_column_without_a_name_is_a_fault_also_when_names_are_left_to_the_service() -> None:
    error = await attempt(b"external_id,\n1,2\n", validate=False)
    assert "Column 2 of the header has no name" in str(error)


async def test_fields_that_the_source_has_not_are_named() -> None:
    error = await attempt(HEADER + GOOD, fields=["external_id", "total_spend"])
    assert "no column 'total_spend'" in str(error)
    assert error.field == "total_spend"
    both = await attempt(HEADER + GOOD, fields=["external_id", "total_spend", "colour"])
    assert "no column 'total_spend', 'colour', which" in str(both)
    assert both.field is None


async def test_the_check_is_before_the_first_request_also_when_only_rows_further_on_are_wanted() -> None:
    error = await attempt(HEADER + GOOD * 5, from_row=6)
    assert "from_row is 6, and the source ends with row 5" in str(error)


def a_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("customers.csv", HEADER + GOOD)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(gzip.compress(HEADER + GOOD), "packed with gzip", id="gzip"),
        pytest.param(lzma.compress(HEADER + GOOD), "packed with xz", id="xz"),
        pytest.param(a_zip(), "a zip archive or an Excel workbook (.xlsx)", id="zip"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", id="xls"),
        pytest.param(b"PAR1\x15\x04\x15", "a Parquet file", id="Parquet"),
        pytest.param(b"\x1f\x8b", "packed with gzip", id="shorter than the beginnings"),
    ],
)
async def test_a_file_that_is_no_text_is_told_by_its_first_bytes_with_what_to_do(
    data: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "customers"
    path.write_bytes(data)
    for source in (data, path, blocks(*(data[index : index + 1] for index in range(len(data))))):
        for options in ({}, {"encoding": "latin-1"}):
            if options and not isinstance(source, bytes | Path):
                continue  # it is read already
            error = await attempt(source, **options)
            assert f"The file is {words}, by its first bytes, and no CSV." in str(error)
            assert re.search(r"pass the table|Unpack it first", str(error))


def test_what_pyarrow_writes_is_told_to_be_parquet() -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for table in (pa.table({"external_id": ["1"]}), pa.table({"external_id": pa.array([], pa.string())})):
        file = io.BytesIO()
        parquet.write_table(table, file)
        with pytest.raises(UploadSourceError, match=r"a Parquet file.*pass the table"):
            read(file.getvalue())


def test_a_header_that_begins_like_one_of_them_is_text() -> None:
    assert read(b"PAR1,PKZIP\n1,2\n") == [(0, 1, ["PAR1", "PKZIP"]), (1, 2, ["1", "2"])]


async def blocks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("data", "options"),
    [
        pytest.param(codecs.BOM_UTF8 + HEADER + GOOD, {}, id="mark of UTF-8"),
        pytest.param((HEADER + GOOD).replace(b"\n", b"\r\n"), {}, id="CRLF"),
        pytest.param((HEADER + GOOD).replace(b"\n", b"\r"), {}, id="CR"),
        pytest.param((HEADER + GOOD)[:-1], {}, id="no end of the last line"),
        pytest.param(b"\n\n" + HEADER + b"\n" + GOOD + b"\n\n", {}, id="blank lines"),
        pytest.param((HEADER + GOOD).replace(b",", b" , ").replace(b"1 ", b"1"), {}, id="spaces around names"),
        pytest.param((HEADER + GOOD).replace(b",", b";"), {"delimiter": ";"}, id="semicolons"),
        pytest.param((HEADER + GOOD).decode().encode("utf-16"), {"encoding": "utf-16"}, id="UTF-16"),
        pytest.param(
            b"shoe," + HEADER + b"\xff," + GOOD,
            {"encoding": "latin-1", "fields": ["external_id", "first_purchase", "purchases"]},
            id="latin-1 with a column that is left out",
        ),
    ],
)
async def test_files_of_all_habits_simply_work(data: bytes, options: dict[str, Any], sandbox: Sandbox) -> None:
    await create_sample_fields(sandbox)
    group = await sandbox.create_customer_group("g")
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        report = await ns.customers.upload(sandbox.workspace_id, group, blocks(data[:5], data[5:]), **options)
        assert (report.complete, report.accepted, report.rows) == (True, 1, 1)
        (customer,) = await ns.customers.list(group)
    profile = sandbox.decrypt(customer.customer_id, customer.extended_profile)
    assert profile == {"external_id": "1", "first_purchase": "2024-01-31", "purchases": 1}
