"""The writer by itself: what it checks on the driver, what a task does with a partition, and what the driver says then."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyspark", reason="the extra spark is not installed")

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    IntegerType,
    StringType,
    StructType,
)

from nudgescribe_async import Nudgescribe
from nudgescribe_async.errors import (
    APIStatusError,
    AuthenticationError,
    ConfigurationError,
    NudgescribeError,
    UploadSourceError,
)
from nudgescribe_async.sandbox import BadAnswer, LoseAnswer, Sandbox, Status
from nudgescribe_async.spark.writing import CustomersWriter, PartitionWritten, customers_writer
from nudgescribe_async.spark.writing_report import PartitionReport

SCHEMA = "external_id string,age string,since date"
TYPES: dict[str, DataType] = {
    "string": StringType(),
    "date": DateType(),
    "double": DoubleType(),
    "boolean": BooleanType(),
    "array<int>": ArrayType(IntegerType()),
}


@pytest.fixture
async def service(sandbox: Sandbox, options_for: Callable[[Sandbox], dict[str, str]]) -> dict[str, str]:
    """The options of a write to a group of the sandbox."""
    await sandbox.create_profile_field("external_id", "string")
    await sandbox.create_profile_field("age", "number")
    await sandbox.create_profile_field("since", "Date", field_format="dd/MM/yyyy")
    group = await sandbox.create_customer_group("g")
    return {**options_for(sandbox), "workspace_id": sandbox.workspace_id, "customer_group_id": group}


@pytest.fixture
def task() -> Iterator[TaskContext]:
    """The second attempt of partition 3."""
    context = TaskContext._getOrCreate()
    context._partitionId, context._attemptNumber = 3, 1
    yield context
    TaskContext._taskContext = None


def schema(text: str = SCHEMA) -> StructType:
    made = StructType()
    for column in text.split(","):
        name, _, kind = column.rpartition(" ")
        made.add(name, TYPES[kind])
    return made


async def writer(options: dict[str, str], columns: str = SCHEMA, **more: str) -> CustomersWriter:
    made = await asyncio.to_thread(customers_writer, {**options, **more}, schema(columns), overwrite=False)
    # As Spark does it: what a task and the driver get has been pickled.
    again = pickle.loads(pickle.dumps(made))
    assert isinstance(again, CustomersWriter)
    return again


async def write(made: CustomersWriter, *batches: pa.RecordBatch) -> PartitionReport:
    message = await asyncio.to_thread(made.write, iter(batches))
    assert isinstance(message, PartitionWritten)
    again = pickle.loads(pickle.dumps(message))
    assert isinstance(again, PartitionWritten)
    return again.report


def batch(*rows: tuple[str | None, str | None]) -> pa.RecordBatch:
    """Rows of external_id and age."""
    ids, ages = ([row[index] for row in rows] for index in (0, 1))
    columns = {"external_id": pa.array(ids, pa.string()), "age": pa.array(ages, pa.string())}
    return pa.RecordBatch.from_pydict({**columns, "since": pa.array([None] * len(rows), pa.date32())})


async def profiles(sandbox: Sandbox, options: dict[str, str], field: str = "external_id") -> Counter[object]:
    """How often each value of a field is there."""
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        customers = await ns.customers.iter(options["customer_group_id"]).collect()
    return Counter(sandbox.decrypt(one.customer_id, one.extended_profile)[field] for one in customers)


GOOD = batch(("A1", "1"), ("A2", "2"))
MIXED = batch(("A1", "1"), (None, "2"), ("A3", "three"), (" ", "4"), ("A5", "five"), ("A6", "6"))


# --- what is known before a task starts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ("external_id string,agee string", "'agee'.*did you mean 'age'"),
        ("nothing string,fits string", "None of the columns 'nothing', 'fits'.*it has 'external_id', 'age', 'since'"),
        ("external_id string,age array<int>,since boolean", r"'age' \(array<int>\), 'since' \(boolean\)"),
        ("external_id string, external_id string", "same name in the columns 1 and 2"),
    ],
)
async def test_columns_that_do_not_fit_are_named_before_a_task_starts(
    service: dict[str, str], columns: str, names: str
) -> None:
    with pytest.raises(UploadSourceError, match=names) as caught:
        await writer(service, columns)
    assert "Nothing was sent." in str(caught.value)
    assert "fields=" not in str(caught.value)  # which a write has not


async def test_a_required_field_without_a_column_is_named(service: dict[str, str], sandbox: Sandbox) -> None:
    await sandbox.create_profile_field("country", "string", is_required=True)
    with pytest.raises(UploadSourceError, match="no column for 'country', which the workspace requires") as caught:
        await writer(service)
    assert "Nothing was sent." in str(caught.value)


async def test_a_group_that_the_workspace_has_not_is_refused(service: dict[str, str], sandbox: Sandbox) -> None:
    with pytest.raises(UploadSourceError, match="no such customer group"):
        await writer(service, customer_group_id="another")
    # Who may not see the groups is let through.
    sandbox.inject(Status(403), operation="customer_groups.list", times=None)
    await writer(service, customer_group_id="another")


async def test_to_overwrite_is_refused_and_says_why(service: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r'no operation that empties a group. Use mode\("append"\)'):
        await asyncio.to_thread(customers_writer, service, schema(), overwrite=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nonsense": "1"}, "no option 'nonsense' for writing customers"),
        ({"resource": "messages"}, "'resource' for writing customers must be one of 'customers'"),
        ({"identifier": "id"}, "'identifier'.*must be a column of the dataframe; it has 'external_id', 'age', 'since'"),
        ({"refused_rows": "ignore"}, "must be one of 'fail', 'report'; got 'ignore'"),
        ({"refused_rows": "report"}, "nobody would see it: name a file with the option 'report'"),
        ({"report": "report.json"}, "must be the absolute path of a file"),
        ({"report": "/there/is/no/such/folder/report.json"}, "in a folder that is there"),
        ({"requests_per_second": "10"}, "'requests_per_second' and 'parallelism' go together"),
        ({"rows_per_request": "0"}, "must be a whole number, at least 1"),
        ({"workspace_id": " "}, "'workspace_id'.*must not be empty"),
    ],
)
async def test_wrong_options_are_refused_with_a_sentence(
    service: dict[str, str], options: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        await writer(service, **options)


async def test_without_validation_nothing_is_asked_of_the_service(service: dict[str, str], sandbox: Sandbox) -> None:
    made = await writer(service, "age string,nobody_knows string", validate="false")
    assert not sandbox.log
    strange = pa.RecordBatch.from_pydict({"age": ["1"], "nobody_knows": ["2"]})
    report = await write(made, strange)
    assert report.failure is not None
    assert "nobody_knows" in report.failure
    assert [record.operation for record in sandbox.log] == ["auth.authenticate", "customers.check"]


async def test_more_partitions_than_share_the_limit_are_refused(service: dict[str, str], task: TaskContext) -> None:
    made = await writer(service, requests_per_second="1000", parallelism="3")
    with pytest.raises(ConfigurationError, match=r"'parallelism' says 3.*df.coalesce\(3\)"):
        await write(made, GOOD)
    task._partitionId, task._attemptNumber = 2, 0
    assert (await write(made, GOOD)).accepted == 2


# --- a partition -----------------------------------------------------------------------------------------------------


async def test_a_partition_is_uploaded_and_accounted_for(service: dict[str, str], sandbox: Sandbox) -> None:
    made = await writer(service, rows_per_request="2")
    report = await write(made, GOOD, GOOD.slice(0, 0), batch(("A3", "3")))
    assert (report.rows, report.accepted, report.requests, report.failure) == (3, 3, 2, None)
    assert await profiles(sandbox, service) == {"A1": 1, "A2": 1, "A3": 1}


async def test_a_partition_without_rows_asks_nothing(service: dict[str, str], sandbox: Sandbox) -> None:
    made = await writer(service)
    before = len(sandbox.log)
    assert await write(made) == await write(made, GOOD.slice(0, 0)) == PartitionReport(partition=0)
    assert len(sandbox.log) == before


async def test_refused_rows_have_their_place_in_the_partition(
    service: dict[str, str], sandbox: Sandbox, task: TaskContext
) -> None:
    made = await writer(service, identifier="external_id")
    sandbox.inject(_refuse_row(2), operation="customers.check")  # of those that are sent: A6, after A1
    report = await write(made, MIXED.slice(0, 2), MIXED.slice(2))
    assert (report.rows, report.refused_by_check, report.refused_by_service, report.accepted) == (6, 4, 1, 1)
    assert [(one.row, one.field, one.by) for one in report.refused] == [
        (2, "external_id", "check"),
        (3, "age", "check"),
        (4, "external_id", "check"),
        (5, "age", "check"),
        (6, "age", "service"),
    ]
    assert report.reasons == 5
    assert {one.place for one in report.refused} == {(3 << 33) + row for row in range(1, 6)}
    assert "secret of A6" not in repr(report)  # the service's words may repeat values


def _refuse_row(row: int) -> BadAnswer:
    error = {"row": row, "field": "age", "message": "secret of A6"}
    body = {"success": True, "accepted_count": 1, "rejected_count": 1, "errors": [error], "message": ""}
    return BadAnswer(json.dumps(body).encode(), content_type="application/json")


async def test_what_the_service_calls_a_field_is_kept_only_if_it_is_one(
    service: dict[str, str], sandbox: Sandbox
) -> None:
    body = {"success": True, "accepted_count": 1, "rejected_count": 1, "message": ""}
    errors = [{"row": None, "field": "Johanna", "message": "is no name"}]
    sandbox.inject(
        BadAnswer(json.dumps({**body, "errors": errors}).encode(), content_type="application/json"),
        operation="customers.check",
    )
    report = await write(await writer(service), GOOD)
    assert [(one.row, one.place, one.field) for one in report.refused] == [(None, None, None)]


async def test_a_partition_of_rows_without_identifier_sends_nothing(service: dict[str, str], sandbox: Sandbox) -> None:
    made = await writer(service, identifier="external_id", keep_refused="1")
    report = await write(made, batch((None, "1"), ("", "2")))
    assert (report.rows, report.refused_by_check, report.reasons) == (2, 2, 2)
    assert [one.reason for one in report.refused] == ["is required, as the identifier"]
    assert not sandbox.count("customers.check")


async def test_an_identifier_that_is_a_number(service: dict[str, str], sandbox: Sandbox) -> None:
    made = await writer(service, "age double", identifier="age")
    report = await write(made, pa.RecordBatch.from_pydict({"age": pa.array([1.0, float("nan"), None, 4.0])}))
    assert (report.accepted, report.refused_by_check) == (2, 2)


# --- trouble ---------------------------------------------------------------------------------------------------------


async def test_without_an_identifier_an_unknown_outcome_is_reported_and_not_repeated(
    service: dict[str, str], sandbox: Sandbox
) -> None:
    # Without what the sandbox knows customers by: it would have them twice.
    made = await writer(service, "age string", rows_per_request="1")
    sandbox.inject(LoseAnswer(), operation="customers.check", times=1, skip=1)
    report = await write(made, pa.RecordBatch.from_pydict({"age": ["1", "2", "3"]}))
    assert (report.accepted, report.unknown, report.not_sent) == (1, 1, 1)
    assert report.failure is not None
    assert report.failure.startswith("Of 3 rows, 1 were sent, 1 may have been sent, 1 were not sent.")
    assert await profiles(sandbox, service, "age") == {1: 1, 2: 1}
    with pytest.raises(NudgescribeError, match=r"broke off.*1 unknown, 1 not sent.*Partition 0: Of 3 rows") as caught:
        made.commit([PartitionWritten(report)])
    assert caught.value.may_have_taken_effect


async def test_without_an_identifier_a_second_attempt_sends_nothing(
    service: dict[str, str], sandbox: Sandbox, task: TaskContext
) -> None:
    made = await writer(service)
    before = len(sandbox.log)
    with pytest.raises(NudgescribeError, match=r"Partition 3, attempt 1: An earlier attempt .* nothing was sent now"):
        await write(made, GOOD)
    assert len(sandbox.log) == before


async def test_a_second_dry_run_is_one_as_the_first(
    service: dict[str, str], sandbox: Sandbox, task: TaskContext
) -> None:
    made = await writer(service, dry_run="true")
    report = await write(made, MIXED)
    assert (report.attempt, report.rows, report.refused_by_check, report.accepted, report.not_sent) == (1, 6, 2, 0, 0)
    assert not sandbox.count("customers.check")
    with pytest.raises(NudgescribeError, match=r"2 of 6 rows would be refused.*nothing was sent \(dry run\)"):
        made.commit([PartitionWritten(report)])


async def test_with_an_identifier_a_failure_is_for_spark_to_try_again(
    service: dict[str, str], sandbox: Sandbox, task: TaskContext
) -> None:
    task._attemptNumber = 0
    made = await writer(service, identifier="external_id", rows_per_request="1")
    sandbox.inject(Status(400), operation="customers.check", times=None, skip=1)
    with pytest.raises(
        APIStatusError, match="Partition 3, attempt 0: Of 2 rows, 1 were sent, 1 were refused"
    ) as caught:
        await write(made, GOOD)
    assert "Repeating does no harm, since the rows have 'external_id'" in str(caught.value)
    sandbox.clear_faults()
    task._attemptNumber = 1
    assert (await write(made, GOOD)).accepted == 2
    assert await profiles(sandbox, service) == {"A1": 1, "A2": 1}


async def test_without_a_token_a_partition_says_so(service: dict[str, str], sandbox: Sandbox) -> None:
    made = await writer(service, validate="false", secret_password="wrong")
    report = await write(made, GOOD)
    assert report.failure is not None
    assert "wrong" not in report.failure
    assert report.accepted == 0
    made = await writer(service, validate="false", secret_password="wrong", identifier="external_id")
    with pytest.raises(AuthenticationError, match="Partition 0, attempt 0"):
        await write(made, GOOD)


async def test_what_an_upload_raises_before_it_sends_is_told_as_well(service: dict[str, str], sandbox: Sandbox) -> None:
    once, often = await writer(service), await writer(service, identifier="external_id")
    sandbox.inject(Status(400), operation="profile_fields.list", times=None)
    report = await write(once, GOOD)
    assert (report.rows, report.accepted) == (0, 0)
    assert "profile_fields.list" in str(report.failure)
    with pytest.raises(APIStatusError, match="Partition 0, attempt 0"):
        await write(often, GOOD)
    assert not sandbox.count("customers.check")


# --- the driver ------------------------------------------------------------------------------------------------------


def part(number: int, **counts: int) -> PartitionWritten:
    return PartitionWritten(PartitionReport(partition=number, **counts))  # type: ignore[arg-type]  # counts only


async def test_refused_rows_fail_the_write_unless_they_are_reported(
    service: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await writer(service)
    refused = PartitionWritten(await write(await writer(service, identifier="external_id"), MIXED))
    with pytest.raises(NudgescribeError) as caught:
        made.commit([part(0, rows=4, accepted=4, queued=4), refused])
    assert str(caught.value) == (
        "4 of 10 rows were refused: partition 0, row 2, field 'external_id': is required, as the identifier; partition 0,"
        " row 3, field 'age': must be a decimal number; partition 0, row 4, field 'external_id': is required, as the"
        " identifier; and 1 more reason. 10 rows, 6 accepted, 4 of them queued: they appear later, 4 refused by the check,"
        " 0 by the service; 2 partitions. The option report keeps all of that in a file; with refused_rows=report it is no"
        " failure. (operation customers.upload)"
    )
    path = tmp_path / "report.json"
    made = await writer(service, refused_rows="report", report=str(path))
    made.commit([refused])
    kept = json.loads(path.read_text())
    assert kept["state"] == "written"
    assert (kept["rows"], kept["refused_by_check"]) == (6, 4)
    assert kept["partitions"][0]["refused"][1] == {
        "row": 3,
        "place": 2,
        "field": "age",
        "reason": "must be a decimal number",
        "by": "check",
    }
    made.abort([refused])  # as Spark does after a commit that raised: it says nothing new
    assert not capsys.readouterr().err


async def test_refusals_without_a_reason_are_a_failure_too(service: dict[str, str]) -> None:
    made = await writer(service)
    with pytest.raises(NudgescribeError, match=r"^1 of 2 rows were refused. 2 rows, 1 accepted"):
        made.commit([part(0, rows=2, accepted=1, refused_by_service=1)])


async def test_an_abort_says_what_is_known(
    service: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    made = await writer(service, report=str(path))
    made.abort([part(0, rows=2, accepted=2), *[None] * 12])
    said = capsys.readouterr().err
    assert "aborted, and nothing is taken back: 2 rows, 2 accepted" in said
    assert "of which 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more gave no account" in said
    kept = json.loads(path.read_text())
    assert (kept["state"], kept["accepted"], kept["without_report"]) == ("failed", 2, [*range(1, 13)])


async def test_a_report_that_cannot_be_written_is_told_with_the_error(service: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "folder" / "report.json"
    path.parent.mkdir()
    made = await writer(service, report=str(path))
    path.parent.rmdir()
    with pytest.raises(ConfigurationError, match=r"cannot be written: No such file or directory.*2 rows, 2 accepted"):
        made.commit([part(0, rows=2, accepted=2)])
    # Nor is it lost with an abort, which has no error of its own.
    with pytest.raises(ConfigurationError, match="gave no account"):
        made.abort([None])


async def test_four_broken_partitions(service: dict[str, str]) -> None:
    made = await writer(service)
    broken = [PartitionWritten(PartitionReport(partition=number, failure=f"Why {number}.")) for number in range(4)]
    with pytest.raises(NudgescribeError, match=r"4 partitions broke off.*Partition 2: Why 2. And 1 more.") as caught:
        made.commit([*broken])
    assert not caught.value.may_have_taken_effect


async def test_no_secret_in_what_travels_but_those_that_were_options(service: dict[str, str]) -> None:
    made = await writer(service)
    assert service["secret_password"] not in repr(vars(made))
    report = PartitionWritten(await write(made, GOOD))
    for name in ("secret_api_key", "secret_email", "secret_password"):
        assert service[name].encode() not in pickle.dumps(report)
