"""Uploads, end to end: every row ends up where the report says, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pickle
import random
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import Service, client

from nudgescribe_async import (
    BadRequestError,
    CallOptions,
    ClientClosedError,
    DeadlineExceededError,
    Nudgescribe,
    NudgescribeError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RequestNotSentError,
    RetryPolicy,
    UploadSourceError,
)
from nudgescribe_async.bulk.dates import DATE_FORMATS
from nudgescribe_async.bulk.upload import RowProblem, UploadChunk, UploadReport, job
from nudgescribe_async.sandbox import (
    BadAnswer,
    LoseAnswer,
    LoseRequest,
    RateLimit,
    RefuseToken,
    Sandbox,
    Status,
    create_sample_fields,
    sample_csv,
    sample_customers,
)
from nudgescribe_async.testing import FaultProxy, Reset, Stall, answer

CHECK = "customers.check"
QUICK = RetryPolicy(base=0.001, longest=0.01)
FIELDS: list[tuple[str, str, str | None]] = [
    ("external_id", "string", None),
    ("note", "string", None),
    ("points", "number", None),
    ("letter", "char", None),
    ("dollars", "currency", "USD"),
    ("yen", "currency", "JPY"),
    ("dinars", "currency", "KWD"),
    *((f"day {index}", "Date", format_) for index, format_ in enumerate(DATE_FORMATS)),
]


@pytest.fixture
async def ns(sandbox: Sandbox) -> AsyncIterator[Nudgescribe]:
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, retry=QUICK) as ns:
        yield ns


@pytest.fixture
async def group(sandbox: Sandbox) -> str:
    await create_sample_fields(sandbox)
    return await sandbox.create_customer_group("g")


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """No temporary file, and no other, is open when the upload has ended."""

    def opened() -> set[str]:
        folder = Path("/proc/self/fd")
        targets: set[str] = set()
        for entry in folder.iterdir() if folder.is_dir() else ():
            with suppress(OSError):
                targets.add(str(entry.readlink()))
        return {target for target in targets if "(deleted)" in target or target.endswith(".csv")}

    before = opened()
    yield
    assert opened() <= before


async def stored(sandbox: Sandbox, ns: Nudgescribe, group: str) -> list[Mapping[str, object]]:
    await sandbox.drain()
    return [sandbox.decrypt(item.customer_id, item.extended_profile) async for item in ns.customers.iter(group)]


async def ids(sandbox: Sandbox, ns: Nudgescribe, group: str) -> list[object]:
    return [profile["external_id"] for profile in await stored(sandbox, ns, group)]


def rows(count: int, start: int = 1) -> list[dict[str, object]]:
    return [{"external_id": f"c{number}", "purchases": number} for number in range(start, start + count)]


def folder(path: Path) -> list[Path]:
    return list(path.iterdir())


def states(report: UploadReport) -> list[str]:
    return [chunk.state for chunk in report.chunks]


# --- what goes up comes back -------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_real_customers_come_back_row_for_row_in_their_order(
    sandbox: Sandbox, ns: Nudgescribe, group: str, tmp_path: Path
) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(sample_csv())
    report = await ns.customers.upload(sandbox.workspace_id, group, path)
    assert report.complete
    assert (report.rows, report.accepted, report.problems, report.remarks) == (23_570, 23_570, (), ())
    assert [(chunk.first_row, chunk.last_row) for chunk in report.chunks] == [
        (1, 10_000),
        (10_001, 20_000),
        (20_001, 23_570),
    ]
    assert all(chunk.job_uid and chunk.request_id for chunk in report.chunks)
    back = [{name: str(value) for name, value in row.items()} for row in await stored(sandbox, ns, group)]
    assert back == sample_customers()


async def test_text_that_looks_like_a_formula_a_quote_or_a_line_break_is_data(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", ' "a", ', "a\r\nb\rc\nd", "\u2028", "\ufeffx", "😀"]
    report = await ns.customers.upload(sandbox.workspace_id, group, [{"external_id": text} for text in texts])
    assert report.complete
    assert await ids(sandbox, ns, group) == texts


async def test_chunks_end_by_rows_and_by_bytes(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    by_rows = await ns.customers.upload(sandbox.workspace_id, group, rows(2_500), rows_per_chunk=999, dry_run=True)
    assert [chunk.rows for chunk in by_rows.chunks] == [999, 999, 502]
    by_bytes = await ns.customers.upload(sandbox.workspace_id, group, rows(25), chunk_bytes=1, dry_run=True)
    assert [chunk.rows for chunk in by_bytes.chunks] == [1] * 25


async def test_more_chunks_in_flight_send_every_row_once(ns: Nudgescribe, sandbox: Sandbox, group: str) -> None:
    report = await ns.customers.upload(sandbox.workspace_id, group, rows(1_000), rows_per_chunk=50, concurrency=4)
    assert (report.complete, report.accepted, len(report.chunks)) == (True, 1_000, 20)
    assert sorted(await ids(sandbox, ns, group), key=str) == sorted(
        (row["external_id"] for row in rows(1_000)), key=str
    )


async def test_empty_cells_are_no_values_and_columns_can_be_left_out(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    source: list[dict[str, object]] = [
        {"external_id": "1", "purchases": None, "shoe": 3},
        {"shoe": 4, "external_id": "2"},
    ]
    await ns.customers.upload(sandbox.workspace_id, group, source, fields=["external_id", "purchases"])
    assert await stored(sandbox, ns, group) == [{"external_id": "1"}, {"external_id": "2"}]


# --- bad rows ----------------------------------------------------------------------------------------------------


def bad_values(random_: random.Random) -> list[tuple[str, str, str]]:
    """Field, value and reason: every kind."""
    number = "must be a decimal number"
    kinds = [
        ("external_id", "", "is required"),
        ("points", "many", number),
        ("points", "1e3", number),
        ("points", "1" * 41, number),
        ("letter", "ab", "must be one character"),
        ("dollars", "1.234", "must have at most 2 decimals, as USD has"),
        ("dollars", "$1", number),
        ("yen", "1.5", "must have at most 0 decimals, as JPY has"),
        ("dinars", "1.2345", "must have at most 3 decimals, as KWD has"),
    ]
    for index, format_ in enumerate(DATE_FORMATS):
        kinds.append((f"day {index}", "soon", f"must be a date like {format_}"))
        absent = format_.replace("yyyy", "2023").replace("yy", "23").replace("dd", "30")
        absent = absent.replace("MMMM", "February").replace("MMM", "Feb").replace("MM", "02")
        kinds.append((f"day {index}", absent, f"must be a date like {format_}, and that day does not exist"))
    return random_.sample(kinds, len(kinds))


def troubled_file(good_and_bad: int, bad: int) -> tuple[bytes, list[tuple[int, int, str, str]], list[str]]:
    """A file with blank lines and cells of several lines; where it is wrong and why; the ids of the good rows."""
    random_ = random.Random(4)
    kinds = bad_values(random_)
    wrong_rows = set(random_.sample(range(1, good_and_bad + 1), bad))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [name for name, _, _ in FIELDS])
    writer.writeheader()
    expected: list[tuple[int, int, str, str]] = []
    good: list[str] = []
    line = 2
    order = [name for name, _, _ in FIELDS]
    for row in range(1, good_and_bad + 1):
        while random_.random() < 0.1:
            text.write("\r\n")
            line += 1
        note = "a\nb\r\n\nc" if random_.random() < 0.2 else "n"
        values = {"external_id": f"c{row}", "note": note, "points": " 12.5 ", "dollars": "-3.50"}
        if row in wrong_rows:
            problems = [kinds[(row + more) % len(kinds)] for more in range(random_.choice([1, 1, 1, 2]))]
            for name, value, reason in sorted(problems, key=lambda problem: order.index(problem[0])):
                if any(known[:3] == (row, line, name) for known in expected):
                    continue
                values[name] = value
                expected.append((row, line, name, reason))
        else:
            good.append(f"c{row}")
        writer.writerow(values)
        line += 1 + 3 * (note != "n")
    return text.getvalue().encode(), expected, good


async def troubled_group(sandbox: Sandbox) -> str:
    for name, type_, format_ in FIELDS:
        await sandbox.create_profile_field(name, type_, field_format=format_, is_required=name == "external_id")
    return await sandbox.create_customer_group("g")


@pytest.mark.parametrize("by", ["check", "service"])
async def test_500_bad_rows_of_every_kind_are_reported_with_row_line_field_and_reason(
    by: str, sandbox: Sandbox, ns: Nudgescribe
) -> None:
    group = await troubled_group(sandbox)
    data, expected, good = troubled_file(3_000, 500)
    assert {(name, reason) for name, _, reason in bad_values(random.Random(1))} == {item[2:] for item in expected}
    report = await ns.customers.upload(
        sandbox.workspace_id, group, data, validate=by == "check", rows_per_chunk=700, concurrency=1
    )
    found = [(problem.row, problem.line, problem.field, problem.reason) for problem in report.problems]
    assert found == expected
    assert {problem.by for problem in report.problems} == {by}
    assert report.problems_total == len(expected)
    assert (report.refused_by_check, report.refused_by_service) == ((500, 0) if by == "check" else (0, 500))
    assert (report.rows, report.accepted, report.complete, report.remarks) == (3_000, 2_500, True, ())
    assert await ids(sandbox, ns, group) == good


async def test_going_on_at_a_row_keeps_the_numbers_of_the_file_and_checks_no_row_before(
    sandbox: Sandbox, ns: Nudgescribe
) -> None:
    group = await troubled_group(sandbox)
    data, expected, good = troubled_file(3_000, 500)
    head, _, rest = data.partition(b"\r\n")
    # The first row, ragged in place of what it was; the lines after it stay where they are.
    first = next(csv.reader(io.StringIO(rest.lstrip().decode(), newline="")))
    assert first[0] == "c1"
    data = head + b"\r\n" + rest.replace(b"c1,", b"c1,,,", 1)
    report = await ns.customers.upload(sandbox.workspace_id, group, data, from_row=1_234, to_row=2_345)
    found = [(problem.row, problem.line, problem.field, problem.reason) for problem in report.problems]
    assert found == [item for item in expected if 1_234 <= item[0] <= 2_345]
    assert report.rows == 1_112
    assert await ids(sandbox, ns, group) == [name for name in good if 1_234 <= int(name[1:]) <= 2_345]


async def test_bad_rows_can_refuse_the_whole(sandbox: Sandbox, ns: Nudgescribe) -> None:
    group = await troubled_group(sandbox)
    data, expected, _ = troubled_file(600, 50)
    with pytest.raises(UploadSourceError, match=r"50 of 600 rows are not fit") as caught:
        await ns.customers.upload(sandbox.workspace_id, group, data, bad_rows="refuse")
    first = [f"row {row}, line {line}, field {name!r}: {reason}" for row, line, name, reason in expected[:3]]
    assert f"{'; '.join(first)}; and {len(expected) - 3} more problems. error.report" in str(caught.value)
    report = vars(caught.value)["report"]
    assert [(problem.row, problem.field) for problem in report.problems] == [
        (row, name) for row, _, name, _ in expected
    ]
    assert sandbox.count(CHECK) == 0


async def test_a_value_that_comes_twice_is_noticed_if_asked(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    names = ["a", "b", "a", "", "c", "b", "a "] + [f"n{number}" for number in range(2_000)] + ["c"]
    source = [{"external_id": name, "purchases": "x" if index == 0 else 1} for index, name in enumerate(names)]
    report = await ns.customers.upload(sandbox.workspace_id, group, source, unique="external_id", dry_run=True)
    assert [(problem.row, problem.reason) for problem in report.problems] == [
        (1, "must be a decimal number"),
        (4, "is required"),
        (6, "has the value of an earlier row"),
        (2_008, "has the value of an earlier row"),
    ]
    assert report.refused_by_check == 4
    with pytest.raises(UploadSourceError, match="no column 'shoe', which unique= names") as caught:
        await ns.customers.upload(sandbox.workspace_id, group, source, unique="shoe")
    assert caught.value.field == "shoe"


async def test_the_report_keeps_as_many_problems_as_asked_and_counts_all(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    source = [{"external_id": "", "purchases": "x"}] * 50
    report = await ns.customers.upload(sandbox.workspace_id, group, source, keep_problems=7)
    assert (len(report.problems), report.problems_total, report.refused_by_check) == (7, 100, 50)
    assert (report.chunks, report.complete, sandbox.count(CHECK)) == ((), True, 0)


async def test_values_that_cannot_be_written_are_bad_rows_too(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    source: list[dict[str, object]] = [
        {"external_id": "1", "purchases": True},
        {"external_id": ["2"], "purchases": 1},
        {"external_id": "3", "purchases": 3},
    ]
    report = await ns.customers.upload(sandbox.workspace_id, group, source, validate=False)
    assert [(problem.row, problem.field) for problem in report.problems] == [(1, "purchases"), (2, "external_id")]
    assert await ids(sandbox, ns, group) == ["3"]


# --- what the service says ---------------------------------------------------------------------------------------


async def uploaded(receipt: Mapping[str, Any], **options: Any) -> UploadReport:
    """The report of six good rows in two chunks, to which the service says this."""
    service = Service()
    service.on_call = lambda request: answer(200, [] if request.url.endswith("/cpf") else receipt)
    async with client(service) as ns:
        return await ns.customers.upload("w", "g", rows(6), rows_per_chunk=3, validate=False, **options)


@pytest.mark.parametrize(
    ("receipt", "remark", "unexplained"),
    [
        ({"success": True, "accepted_count": 3, "rejected_count": 0}, "", 0),
        ({"success": True}, "did not say how many", 0),
        ({"success": True, "accepted_count": 2, "rejected_count": 0}, "took 2 and refused 0 rows, and was sent 3", 0),
        ({"success": True, "accepted_count": 1, "rejected_count": 2}, "no reason for 2 of the rows", 2),
        ({"success": False, "accepted_count": 3, "rejected_count": 0}, '"success": false', 0),
        (
            {"accepted_count": 3, "rejected_count": 0, "errors": [{"row": 1, "field": "a", "message": "b"}]},
            "named 1 row, and said that it refused 0",
            0,
        ),
        (
            {"accepted_count": 2, "rejected_count": 1, "errors": [{"row": 4, "field": "a", "message": "b"}]},
            "Of the service's reasons, 1 names no row",
            1,
        ),
    ],
)
async def test_nothing_is_claimed_that_the_service_did_not_say(
    receipt: Mapping[str, Any], remark: str, unexplained: int
) -> None:
    report = await uploaded(receipt)
    for chunk in report.chunks:
        assert remark in chunk.remark
        assert bool(chunk.remark) is bool(remark)
        assert chunk.unexplained == unexplained
    assert report.refused_by_service == 2 * receipt.get("rejected_count", 0)
    for chunk in report.chunks:
        assert (chunk.accepted, chunk.rejected) == (receipt.get("accepted_count"), receipt.get("rejected_count"))


async def test_no_success_without_a_word_about_the_rows_is_an_unknown_outcome() -> None:
    report = await uploaded({"success": False})
    assert states(report) == ["unknown", "not_sent"]
    with pytest.raises(OutcomeUnknownError, match=r"look|Look"):
        report.raise_for_failures()


async def test_rows_of_the_service_are_rows_of_the_source() -> None:
    receipt = {"accepted_count": 2, "rejected_count": 1, "errors": [{"row": 2, "field": "a", "message": "m" * 900}]}
    report = await uploaded(receipt)
    assert [(problem.row, problem.field, problem.by) for problem in report.problems] == [
        (2, "a", "service"),
        (5, "a", "service"),
    ]
    assert {len(problem.reason) for problem in report.problems} == {500}


async def test_the_report_pickles_prints_no_person_and_becomes_json_and_csv(tmp_path: Path) -> None:
    errors = [{"row": 1, "field": "external_id", "message": "Zebedee is no id"}]
    report = await uploaded({"accepted_count": 2, "rejected_count": 1, "errors": errors})
    assert pickle.loads(pickle.dumps(report)) == report
    assert "Zebedee" not in repr(report) + repr(report.problems) + repr(report.chunks)
    parts = json.loads(json.dumps(report.as_dict()))
    assert parts["problems"][1]["row"] == 4
    assert (parts["accepted"], parts["complete"], parts["failure"]) == (4, True, None)
    report.write_csv(tmp_path / "problems.csv")
    assert (tmp_path / "problems.csv").read_text(encoding="utf-8").splitlines() == [
        "row,line,field,reason,by",
        "1,,external_id,Zebedee is no id,service",
        "4,,external_id,Zebedee is no id,service",
    ]
    assert repr(RowProblem(row=1, line=2, field="f", reason="is required")).endswith("by check: 'is required'>")


# --- what must not look like success -----------------------------------------------------------------------------


async def test_refused_rows_are_a_failure_if_the_caller_says_so(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    source: list[dict[str, object]] = [{"external_id": "", "purchases": "x"}] * 50
    for dry_run in (False, True):
        report = await ns.customers.upload(sandbox.workspace_id, group, source, dry_run=dry_run)
        report.raise_for_failures()
        with pytest.raises(NudgescribeError) as caught:
            report.raise_for_failures(refused=True)
        assert str(caught.value) == (
            "50 of 50 rows were refused, 0 accepted: row 1, field 'external_id': is required; row 1, field 'purchases': "
            "must be a decimal number; row 2, field 'external_id': is required; and 97 more problems. The problems of "
            "the report have the rows and the reasons. (operation customers.upload)"
        )
    good = await ns.customers.upload(sandbox.workspace_id, group, rows(3))
    good.raise_for_failures(refused=True)
    with pytest.raises(TypeError, match="refused"):
        good.raise_for_failures(refused="yes")  # type: ignore[arg-type]


async def test_refusals_of_the_service_are_a_failure_too_without_its_words() -> None:
    errors = [{"row": 1, "field": "external_id", "message": "Zebedee is no id"}]
    report = await uploaded({"accepted_count": 2, "rejected_count": 1, "errors": errors}, keep_problems=1)
    with pytest.raises(NudgescribeError, match="2 of 6 rows were refused, 4 accepted: row 1, field") as caught:
        report.raise_for_failures(refused=True)
    assert "Zebedee" not in str(caught.value)
    assert "and 1 more problem." in str(caught.value)
    none_kept = await uploaded({"accepted_count": 2, "rejected_count": 1, "errors": errors}, keep_problems=0)
    with pytest.raises(NudgescribeError, match=r"4 accepted\. The problems"):
        none_kept.raise_for_failures(refused=True)


async def test_what_ended_the_sending_comes_before_refused_rows(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    sandbox.inject(Status(400), operation=CHECK)
    report = await ns.customers.upload(sandbox.workspace_id, group, [*rows(3), {"external_id": "", "purchases": 1}])
    with pytest.raises(BadRequestError):
        report.raise_for_failures(refused=True)


async def test_an_upload_that_took_nothing_does_not_read_like_a_success(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    async def upload(items: list[dict[str, object]], **options: Any) -> str:
        return str(await ns.customers.upload(sandbox.workspace_id, group, items, rows_per_chunk=10, **options))

    bad: list[dict[str, object]] = [{"external_id": "", "purchases": 1}]
    assert await upload(bad) == (
        "<UploadReport NOTHING was accepted: 1 row, 0 accepted, 1 refused by the check, 0 by the service; chunks: none>"
    )
    assert await upload(bad, validate=False) == (
        "<UploadReport NOTHING was accepted: 1 row, 0 accepted, 0 refused by the check, 1 by the service; chunks: 1 sent>"
    )
    assert await upload([*rows(20), *bad]) == (
        "<UploadReport complete: 21 rows, 20 accepted, 1 refused by the check, 0 by the service; chunks: 2 sent>"
    )
    assert await upload([*rows(20), *bad], dry_run=True) == (
        "<UploadReport dry run: 21 rows, 20 would be sent in 2 chunks, 1 refused by the check>"
    )
    sandbox.inject(LoseAnswer(), operation=CHECK)
    assert await upload(rows(20)) == (
        "<UploadReport NOT COMPLETE: 20 rows, 0 accepted, 0 refused by the check, 0 by the service; chunks: 1 UNKNOWN, "
        "1 not sent; OutcomeUnknownError: call raise_for_failures()>"
    )
    unsaid = str(await uploaded({"success": True}))
    assert unsaid.startswith("<UploadReport NOT COMPLETE: 6 rows, 0 accepted")
    assert unsaid.endswith("chunks: 2 sent; see remarks>")


async def test_a_chunk_that_is_refused_as_a_whole_does_not_read_like_a_success(
    sandbox: Sandbox, ns: Nudgescribe
) -> None:
    await create_sample_fields(sandbox)
    report = await ns.customers.upload(sandbox.workspace_id, "no-such-group", rows(3), validate=False)
    assert not report.complete
    assert str(report) == (
        "<UploadReport NOT COMPLETE, NOTHING was accepted: 3 rows, 0 accepted, 0 refused by the check, 0 by the service; "
        "chunks: 1 REFUSED as a whole; BadRequestError: call raise_for_failures()>"
    )


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_wrong_group_is_noticed_before_anything_is_read(
    dry_run: bool, sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    taken: list[int] = []

    def source() -> Iterator[dict[str, object]]:
        taken.append(1)
        yield {"external_id": "1"}

    with pytest.raises(UploadSourceError, match="customer_group_id: the workspace has no such customer group"):
        await ns.customers.upload(sandbox.workspace_id, "no-such-group", source, dry_run=dry_run)
    assert (taken, sandbox.count(CHECK)) == ([], 0)
    assert sandbox.count("customer_groups.list") == 1


async def test_who_may_not_see_the_groups_uploads_all_the_same(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    sandbox.inject(Status(403), operation="customer_groups.list", times=None)
    assert (await ns.customers.upload(sandbox.workspace_id, group, rows(3))).complete
    asked = sandbox.count("customer_groups.list")
    await ns.customers.upload(sandbox.workspace_id, group, rows(3), validate=False)
    assert sandbox.count("customer_groups.list") == asked


async def test_rows_that_are_queued_are_counted_as_such(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    source = [*rows(2_003), {"external_id": "", "purchases": 1}]
    report = await ns.customers.upload(
        sandbox.workspace_id, group, source, validate=False, fields=["external_id"], rows_per_chunk=1_500
    )
    assert [chunk.job_uid is not None for chunk in report.chunks] == [True, False]
    assert (report.queued, report.accepted, report.as_dict()["queued"]) == (1_500, 2_003, 1_500)
    assert "2,003 accepted, 1,500 queued: they appear later, 0 refused by the check, 1 by the service" in str(report)
    assert (await uploaded({"success": True, "job_uid": "j"})).queued == 6


# --- what goes wrong on the way ----------------------------------------------------------------------------------


async def test_a_lost_answer_ends_the_upload_and_nothing_is_sent_twice(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    sandbox.inject(LoseAnswer(), operation=CHECK, skip=2)
    told: list[UploadChunk] = []
    report = await ns.customers.upload(sandbox.workspace_id, group, rows(50), rows_per_chunk=10, on_chunk=told.append)
    assert states(report) == ["sent", "sent", "unknown", "not_sent", "not_sent"]
    assert not report.complete
    assert told == list(report.chunks[:3])
    assert sandbox.effects[CHECK] == 3
    assert report.unknown == (report.chunks[2],)
    again = pickle.loads(pickle.dumps(report))
    assert (again.chunks, str(again.failure)) == (report.chunks, str(report.failure))
    assert json.loads(json.dumps(report.as_dict()))["failure"] == str(report.failure) == report.chunks[2].error
    with pytest.raises(OutcomeUnknownError):
        report.raise_for_failures()
    # One looks, finds that it did take effect, and goes on behind it.
    assert (await ids(sandbox, ns, group))[-1] == "c30"
    rest = await ns.customers.upload(
        sandbox.workspace_id, group, rows(50), rows_per_chunk=10, from_row=report.unknown[0].last_row + 1
    )
    assert (rest.rows, rest.from_row, rest.chunks[0].first_row, rest.complete) == (20, 31, 31, True)
    assert await ids(sandbox, ns, group) == [row["external_id"] for row in rows(50)]
    assert sandbox.effects[CHECK] == 5


async def test_a_lost_answer_on_the_wire_is_as_exact(sandbox: Sandbox, group: str) -> None:
    async with (
        FaultProxy(sandbox.url) as proxy,
        Nudgescribe(sandbox.credentials, base_url=proxy.url, retry=QUICK) as ns,
    ):
        proxy.inject(Reset(at="after_request"), operation=CHECK, skip=2)
        report = await ns.customers.upload(sandbox.workspace_id, group, rows(50), rows_per_chunk=10)
    assert states(report) == ["sent", "sent", "unknown", "not_sent", "not_sent"]
    assert sandbox.effects[CHECK] == 3


async def test_with_more_in_flight_those_end_and_nothing_more_begins(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    sandbox.inject(LoseAnswer(), operation=CHECK, skip=1)
    report = await ns.customers.upload(sandbox.workspace_id, group, rows(100), rows_per_chunk=10, concurrency=2)
    assert states(report).count("unknown") == 1
    assert states(report)[4:] == ["not_sent"] * 6
    assert sandbox.effects[CHECK] == states(report).count("sent") + 1


async def test_an_unknown_chunk_is_sent_again_only_if_the_caller_says_so(
    sandbox: Sandbox, ns: Nudgescribe, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "PAUSES", (0.0, 0.0))
    sandbox.inject(LoseAnswer(), operation=CHECK, skip=1, times=2)
    report = await ns.customers.upload(sandbox.workspace_id, group, rows(30), rows_per_chunk=10, repeat_unknown=True)
    assert (report.complete, report.accepted) == (True, 30)
    assert sandbox.effects[CHECK] == 5
    assert await ids(sandbox, ns, group) == [row["external_id"] for row in rows(30)]
    sandbox.inject(LoseAnswer(), operation=CHECK, times=None)
    gone = await ns.customers.upload(sandbox.workspace_id, group, rows(1), repeat_unknown=True)
    assert states(gone) == ["unknown"]
    assert sandbox.effects[CHECK] == 8


@pytest.mark.parametrize(
    "fault",
    [RefuseToken(), Status(429, retry_after=0), Status(503, retry_after=0), LoseRequest()],
    ids=lambda fault: str(fault).split("(")[0] + str(getattr(fault, "status", "")),
)
async def test_what_had_no_effect_is_sent_again_as_a_whole(
    fault: Any, sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    sandbox.inject(fault, operation=CHECK, skip=1)
    report = await ns.customers.upload(sandbox.workspace_id, group, rows(3_000), rows_per_chunk=1_000)
    if isinstance(fault, LoseRequest):  # which the client cannot tell from a lost answer
        assert states(report) == ["sent", "unknown", "not_sent"]
        assert sandbox.effects[CHECK] == 1
        return
    assert (report.complete, report.accepted) == (True, 3_000)
    assert sandbox.effects[CHECK] == 3
    assert await ids(sandbox, ns, group) == [row["external_id"] for row in rows(3_000)]


async def test_a_rule_of_so_many_requests_is_waited_out(sandbox: Sandbox, group: str) -> None:
    sandbox.inject(RateLimit(2, 0.2, retry_after=False), operation=CHECK)
    async with Nudgescribe(
        sandbox.credentials, base_url=sandbox.url, retry=RetryPolicy(attempts=20, base=0.1, longest=0.1)
    ) as ns:
        report = await ns.customers.upload(sandbox.workspace_id, group, rows(60), rows_per_chunk=10)
    assert (report.complete, sandbox.effects[CHECK]) == (True, 6)


@pytest.mark.parametrize("repeat_unknown", [False, True])
async def test_a_chunk_whose_time_is_up_is_unknown_and_not_sent_again(
    repeat_unknown: bool, sandbox: Sandbox, group: str
) -> None:
    async with (
        FaultProxy(sandbox.url) as proxy,
        Nudgescribe(sandbox.credentials, base_url=proxy.url, retry=QUICK) as ns,
    ):
        proxy.inject(Stall(at="head"), operation=CHECK)
        report = await ns.customers.upload(
            sandbox.workspace_id, group, rows(3), repeat_unknown=repeat_unknown, options=CallOptions(timeout=1.0)
        )
    assert states(report) == ["unknown"]
    assert isinstance(report.failure, DeadlineExceededError)
    assert sandbox.effects[CHECK] == 1


async def test_a_chunk_that_is_refused_as_a_whole_ends_the_upload(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    sandbox.inject(Status(400), operation=CHECK, skip=1)
    report = await ns.customers.upload(sandbox.workspace_id, group, rows(30), rows_per_chunk=10)
    assert states(report) == ["sent", "refused", "not_sent"]
    assert report.chunks[1].error is not None
    assert report.chunks[1].request_id
    assert [chunk.first_row for chunk in report.not_sent] == [11, 21]
    with pytest.raises(BadRequestError):
        report.raise_for_failures()
    redone = await ns.customers.upload(
        sandbox.workspace_id, group, rows(30), from_row=report.not_sent[0].first_row, to_row=20
    )
    assert (redone.complete, redone.rows, redone.accepted) == (True, 10, 10)
    assert await ids(sandbox, ns, group) == [row["external_id"] for row in rows(20)]


async def test_an_answer_that_cannot_be_read_is_unknown(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    sandbox.inject(BadAnswer(b"<html>"), operation=CHECK)
    report = await ns.customers.upload(sandbox.workspace_id, group, rows(3))
    assert states(report) == ["unknown"]


async def test_a_service_that_is_not_there_is_not_sent_to(ns: Nudgescribe, group: str, sandbox: Sandbox) -> None:
    async with (
        FaultProxy(sandbox.url) as proxy,
        Nudgescribe(sandbox.credentials, base_url=proxy.url, retry=RetryPolicy(attempts=1)) as other,
    ):
        closing: list[UploadChunk] = []
        down = proxy.refuse()
        report = await other.customers.upload(
            sandbox.workspace_id, group, gone_down(rows(4), down), rows_per_chunk=2, on_chunk=closing.append
        )
    assert states(report) == ["not_sent", "not_sent"]
    assert closing == [report.chunks[0]]
    assert isinstance(report.failure, RequestNotSentError)


async def gone_down(items: list[dict[str, object]], down: Any) -> AsyncIterator[dict[str, object]]:
    for item in items:
        yield item
    await down


async def test_fields_that_may_not_be_read_are_an_error_and_validate_false_needs_none(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    sandbox.inject(Status(403), operation="profile_fields.list", times=None)
    with pytest.raises(PermissionDeniedError):
        await ns.customers.upload(sandbox.workspace_id, group, rows(3))
    assert sandbox.count(CHECK) == 0
    report = await ns.customers.upload(sandbox.workspace_id, group, rows(3), validate=False)
    assert (report.complete, report.accepted) == (True, 3)


# --- the dry run, and what is chosen ------------------------------------------------------------------------------


async def test_a_dry_run_reports_all_and_sends_nothing(sandbox: Sandbox, ns: Nudgescribe) -> None:
    group = await troubled_group(sandbox)
    data, expected, good = troubled_file(400, 40)
    report = await ns.customers.upload(sandbox.workspace_id, group, data, dry_run=True, rows_per_chunk=100)
    assert (report.complete, report.dry_run, report.refused_by_check) == (False, True, 40)
    assert report.problems_total == len(expected)
    assert sum(chunk.rows for chunk in report.chunks) == len(good)
    assert set(states(report)) == {"not_sent"}
    assert sandbox.count(CHECK) == 0
    report.raise_for_failures()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"encoding": "klingon"}, ValueError, "klingon"),
        ({"encoding": "hex"}, ValueError, "hex"),
        ({"encoding": 8}, TypeError, "encoding"),
        ({"delimiter": ",,"}, ValueError, "delimiter"),
        ({"delimiter": '"'}, ValueError, "delimiter"),
        ({"delimiter": 3}, TypeError, "delimiter"),
        ({"from_row": 0}, ValueError, "from_row"),
        ({"from_row": 3, "to_row": 2}, ValueError, "to_row"),
        ({"to_row": 0}, ValueError, "to_row"),
        ({"concurrency": 0}, ValueError, "concurrency"),
        ({"rows_per_chunk": True}, TypeError, "rows_per_chunk"),
        ({"concurrency": "x"}, TypeError, "concurrency"),
        ({"chunk_bytes": 1.5}, TypeError, "chunk_bytes"),
        ({"max_cell_bytes": 0}, ValueError, "max_cell_bytes"),
        ({"dry_run": "no"}, TypeError, "dry_run"),
        ({"validate": 0}, TypeError, "validate"),
        ({"repeat_unknown": None}, TypeError, "repeat_unknown"),
        ({"on_chunk": asyncio.sleep}, TypeError, "on_chunk must be a plain function, not a coroutine function"),
        ({"keep_problems": -1}, ValueError, "keep_problems"),
        ({"bad_rows": "keep"}, ValueError, "bad_rows"),
        ({"on_chunk": 1}, TypeError, "on_chunk"),
        ({"unique": ["a"]}, TypeError, "unique"),
        ({"spool": 3}, TypeError, "spool must be the path of a folder, not int"),
        ({"fields": "external_id"}, TypeError, "fields"),
        ({"fields": []}, ValueError, "fields"),
        ({"fields": ["a", "a "]}, ValueError, "fields"),
    ],
)
async def test_options_that_cannot_be_right_are_refused_before_anything_is_asked(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    service = Service()
    async with client(service) as ns:
        with pytest.raises(error, match=words):
            await ns.customers.upload("w", "g", rows(1), **options)
        with pytest.raises(ValueError, match="customer_group_id"):
            await ns.customers.upload("w", " ", rows(1))
    assert service.requests == []


async def test_to_row_ends_the_reading(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    taken = 0

    def endless() -> Iterator[dict[str, object]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"external_id": str(taken)}

    report = await ns.customers.upload(sandbox.workspace_id, group, endless(), from_row=3, to_row=5)
    assert (report.rows, report.complete) == (3, True)
    assert taken <= 1_000
    assert await ids(sandbox, ns, group) == ["3", "4", "5"]


# --- cancelling and closing --------------------------------------------------------------------------------------


async def test_cancelling_while_reading_closes_the_source_and_sends_nothing(
    sandbox: Sandbox, ns: Nudgescribe, group: str, tmp_path: Path
) -> None:
    reading, closed = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[dict[str, object]]:
        try:
            for row in rows(2_500):
                yield row
            reading.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    task = asyncio.create_task(ns.customers.upload(sandbox.workspace_id, group, source(), spool=tmp_path))
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert (folder(tmp_path), sandbox.count(CHECK)) == ([], 0)


async def test_cancelling_while_sending_tells_of_the_chunk_under_way(
    sandbox: Sandbox, group: str, tmp_path: Path
) -> None:
    told: list[UploadChunk] = []
    async with (
        FaultProxy(sandbox.url) as proxy,
        Nudgescribe(sandbox.credentials, base_url=proxy.url, retry=QUICK) as ns,
    ):
        proxy.inject(Stall(at="head"), operation=CHECK, skip=1)
        task = asyncio.create_task(
            ns.customers.upload(
                sandbox.workspace_id, group, rows(30), rows_per_chunk=10, spool=tmp_path, on_chunk=told.append
            )
        )
        while sandbox.effects[CHECK] < 2:
            await asyncio.sleep(0.005)
        assert folder(tmp_path) == []  # it has no name while it is there
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert [(chunk.number, chunk.state) for chunk in told] == [(1, "sent"), (2, "unknown")]
    assert caught.value.__notes__[-1] == (
        "customers.upload: rows 1 to 10 were sent, rows 11 to 20 may have been sent, rows 21 to 30 were not sent. Then: "
        "look whether rows 11 to 20 are in the group, and if not upload the source with from_row=11, to_row=20; "
        "go on with from_row=21."
    )
    # What the note says, done.
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, retry=QUICK) as ns:
        assert (await ids(sandbox, ns, group))[-1] == "c20"
        await ns.customers.upload(sandbox.workspace_id, group, rows(30), from_row=21)
        assert await ids(sandbox, ns, group) == [row["external_id"] for row in rows(30)]


async def test_ctrl_c_leaves_the_note_where_a_person_sees_it(sandbox: Sandbox, group: str) -> None:
    program = f"""
import asyncio, os, signal, sys
from nudgescribe_async import Nudgescribe

async def main():
    async with Nudgescribe.from_env() as ns:
        rows = [{{"external_id": str(number)}} for number in range(30)]
        interrupt = lambda chunk: os.kill(os.getpid(), signal.SIGINT)
        await ns.customers.upload({sandbox.workspace_id!r}, {group!r}, rows, rows_per_chunk=10, on_chunk=interrupt)

asyncio.run(main())
"""
    settings = {
        "NUDGESCRIBE_API_KEY": sandbox.credentials.api_key,
        "NUDGESCRIBE_EMAIL": sandbox.credentials.email,
        "NUDGESCRIBE_PASSWORD": sandbox.credentials.password,
        "NUDGESCRIBE_BASE_URL": sandbox.url,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=dict(os.environ) | settings, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode != 0
    assert b"customers.upload: rows 1 to 10 were sent" in errors
    assert b"go on with from_row=21" in errors


async def test_with_more_in_flight_the_note_names_each_that_is_unknown(sandbox: Sandbox, group: str) -> None:
    async with (
        FaultProxy(sandbox.url) as proxy,
        Nudgescribe(sandbox.credentials, base_url=proxy.url, retry=QUICK) as ns,
    ):
        proxy.inject(Stall(at="head"), operation=CHECK, times=2)
        task = asyncio.create_task(
            ns.customers.upload(sandbox.workspace_id, group, rows(50), rows_per_chunk=10, concurrency=2)
        )
        while sandbox.effects[CHECK] < 2:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    note = caught.value.__notes__[-1]
    assert "rows 1 to 20 may have been sent, rows 21 to 50 were not sent" in note
    assert "from_row=1, to_row=10; look whether rows 11 to 20 are in the group" in note
    assert note.endswith("from_row=11, to_row=20; go on with from_row=21.")


@pytest.mark.parametrize(
    ("ends", "note"),
    [
        (
            ["sent", "not_sent", "sent", "unknown", "not_sent", "not_sent"],
            (
                "rows 1 to 10 and 21 to 30 were sent, rows 31 to 40 may have been sent, rows 11 to 20 and 41 to 60 were "
                "not sent. Then: upload the source with from_row=11, to_row=20; look whether rows 31 to 40 are in the "
                "group, and if not upload the source with from_row=31, to_row=40; go on with from_row=41."
            ),
        ),
        (["not_sent", "not_sent"], "rows 1 to 20 were not sent. Then: go on with from_row=1."),
        (["sent", "sent"], "rows 1 to 20 were sent. Then: nothing is left to send."),
    ],
)
def test_the_note_leaves_no_row_out(ends: list[Any], note: str) -> None:
    chunks = [
        UploadChunk(number=number, first_row=number * 10 - 9, last_row=number * 10, rows=10, state=state)
        for number, state in enumerate(ends, start=1)
    ]
    assert job._account(chunks) == f"customers.upload: {note}"


async def test_closing_the_client_between_two_chunks_raises_with_the_report(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    closing: list[asyncio.Task[None]] = []

    def close(chunk: UploadChunk) -> None:
        if not closing:
            ns._session.refuse_calls()

    with pytest.raises(ClientClosedError) as caught:
        await ns.customers.upload(sandbox.workspace_id, group, rows(30), rows_per_chunk=10, on_chunk=close)
    report = vars(caught.value)["report"]
    assert states(report) == ["sent", "not_sent", "not_sent"]


async def test_what_on_chunk_raises_is_logged_and_the_upload_goes_on(
    sandbox: Sandbox, ns: Nudgescribe, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    def on_chunk(chunk: UploadChunk) -> None:
        raise LookupError(f"mine {chunk.number}")

    for concurrency in (1, 3):
        report = await ns.customers.upload(
            sandbox.workspace_id, group, rows(3), rows_per_chunk=1, on_chunk=on_chunk, concurrency=concurrency
        )
        assert (report.complete, report.accepted) == (True, 3)
    logged = [record for record in caplog.records if record.getMessage() == "on_chunk failed."]
    assert len(logged) == 6
    assert all(record.exc_info is not None and record.exc_info[0] is LookupError for record in logged)


async def test_what_the_source_raises_comes_out_and_nothing_is_sent(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    def failing() -> Iterator[dict[str, object]]:
        yield from rows(5)
        raise LookupError("of the source")

    with pytest.raises(LookupError, match="of the source"):
        await ns.customers.upload(sandbox.workspace_id, group, failing())
    assert sandbox.count(CHECK) == 0


async def test_a_folder_that_is_not_there_is_said(
    sandbox: Sandbox, ns: Nudgescribe, group: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"spool, the folder .*/none'$"):
        await ns.customers.upload(sandbox.workspace_id, group, rows(1), spool=tmp_path / "none")
    assert sandbox.count(CHECK) == 0


async def test_the_loop_goes_on_turning_while_a_file_is_read(sandbox: Sandbox, ns: Nudgescribe, group: str) -> None:
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    data = b"external_id,purchases\n" + b"".join(b"%d,%d\n" % (number, number) for number in range(200_000))
    await ns.profile_fields.list(sandbox.workspace_id)  # logged in, and connected
    watching = asyncio.create_task(watch())
    report = await ns.customers.upload(sandbox.workspace_id, group, data, dry_run=True)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert report.rows == 200_000
    assert turns > 30, turns
