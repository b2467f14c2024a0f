"""The data source without Spark's own processes: what they would call, called here, with what they would pickle, pickled."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

pytest.importorskip("pyspark", reason="the extra spark is not installed")

from pyspark import cloudpickle
from pyspark.sql.datasource import CaseInsensitiveDict, DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import LongType, StringType, StructField, StructType, TimestampType

import nudgescribe_async.spark
from nudgescribe_async import ConfigurationError, PageError
from nudgescribe_async.sandbox import Status
from nudgescribe_async.spark import NudgescribeDataSource

if TYPE_CHECKING:
    from spark_service import Filled

    from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox

T = TypeVar("T")

Options = dict[str, str]


def elsewhere(value: T) -> T:
    """As it comes to another process."""
    return cast("T", cloudpickle.loads(cast("Any", cloudpickle).dumps(value)))


def source(options: Options, **more: str) -> NudgescribeDataSource:
    return elsewhere(NudgescribeDataSource(CaseInsensitiveDict(options, **more)))


def rows_of(reader: DataSourceReader, partitions: Any = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for partition in reader.partitions() if partitions is None else partitions:
        batches: Any = elsewhere(reader).read(elsewhere(partition))
        for batch in batches:
            found += batch.to_pylist()
    return found


def test_it_is_registered_by_its_name() -> None:
    assert NudgescribeDataSource.name() == "nudgescribe"
    assert issubclass(NudgescribeDataSource, DataSource)


def test_customers(options: Options, filled: Filled) -> None:
    known = source(options, customer_group_id=filled.group(95), parallelism="4")
    schema = known.schema()
    assert schema["customer_id"] == StructField("customer_id", StringType(), nullable=False)
    assert schema["created_at"] == StructField("created_at", TimestampType(), nullable=True)
    reader = known.reader(schema)
    assert [repr(partition) for partition in reader.partitions()][1] == "<partition 2 of 4 (pages 4 to 6 of 10)>"
    rows = rows_of(reader)
    assert len(rows) == 95
    assert rows[0]["created_at"].utcoffset() == UTC.utcoffset(None)
    assert json.loads(rows[0]["extended_profile"])["alg"] == "A256GCM"


def test_batches_are_of_the_types_that_spark_expects(options: Options, filled: Filled) -> None:
    group = filled.group(3)
    for schema in (None, StructType([StructField("page", LongType()), StructField("extra", StringType())])):
        known = source(options, customer_group_id=group)
        reader = known.reader(schema if schema is not None else known.schema())
        (partition,) = reader.partitions()
        batches: Any = reader.read(partition)
        (batch,) = batches
        assert batch.schema == to_arrow_schema(schema if schema is not None else known.schema(), timezone="UTC")


def test_columns_that_are_asked_for(options: Options, filled: Filled) -> None:
    known = source(options, customer_group_id=filled.group(3), columns="page, customer_id")
    assert known.schema().fieldNames() == ["page", "customer_id"]
    assert [set(row) for row in rows_of(known.reader(known.schema()))] == [{"page", "customer_id"}] * 3
    with pytest.raises(ConfigurationError, match="There is no column 'surname'"):
        source(options, customer_group_id="g", columns="surname").schema()


@pytest.mark.parametrize(
    ("field", "says"),
    [
        (StructField("page", StringType()), "The column 'page' is bigint, and the schema that was given has string"),
        (StructField("extra", StringType(), nullable=False), "The column 'extra' may be null"),
        (StructField("surname", StringType()), "There is no column 'surname'"),
    ],
)
def test_a_schema_that_does_not_fit(options: Options, field: StructField, says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        source(options, customer_group_id="g").reader(StructType([field]))
    assert says in str(refused.value)


def test_no_partition_is_none(options: Options, filled: Filled) -> None:
    known = source(options, customer_group_id=filled.group(3), pages="5-")
    reader = known.reader(known.schema())
    assert reader.partitions() == []
    assert rows_of(reader, [InputPartition(None)]) == []


def test_an_error_names_the_task(served: ThreadedSandbox, options: Options, filled: Filled) -> None:
    known = source(options, customer_group_id=filled.group(30), parallelism="2")
    reader = known.reader(known.schema())
    partitions = reader.partitions()
    served.inject(Status(404), operation="customers.list", times=None)
    with pytest.raises(PageError) as failed:
        rows_of(reader, partitions[1:])
    assert failed.value.__notes__ == ["This was partition 2 of 2 (pages 3 to 3 of 3) of reading customers with Spark."]


def test_a_reader_that_is_let_go_of_leaves_nothing(
    served: ThreadedSandbox, options: Options, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nudgescribe_async.spark.reading.ROWS", 10)
    known = source(options, customer_group_id=filled.group(200), parallelism="1")
    reader = known.reader(known.schema())
    batches: Any = reader.read(reader.partitions()[0])
    assert next(batches).num_rows == 10
    batches.close()
    assert served.count("customers.list") < 20
    assert list(batches) == []


def test_secrets_are_in_no_repr(options: Options) -> None:
    known = source(options, customer_group_id="g")
    shown = repr(known.options) + repr(vars(known)) + repr(vars(known.reader(known.schema())))
    for secret in (text for name, text in options.items() if name.startswith("secret_")):
        assert secret not in shown


def test_a_stream_goes_on_from_where_it_was(options: Options, filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = filled.campaign(3), filled.campaign(1, "Ready for review")
    known = source(options, resource="messages", campaign_id=f"{one},{other}", poll_seconds="100")
    now = 1_000.0
    monkeypatch.setattr("nudgescribe_async.spark.streaming.monotonic", lambda: now)
    schema = known.schema()
    reader = known.streamReader(schema)
    start = reader.initialOffset()
    assert start == {one: 0, other: 0}
    first = reader.latestOffset(start, None)  # type: ignore[arg-type]
    assert first == {one: 1, other: 0}
    assert list(first) == sorted(first)
    rows = rows_of(reader, reader.partitions(start, first))  # type: ignore[arg-type]
    assert [row["run_number"] for row in rows] == [1, 1, 1]
    filled.rerun(one, 4)
    assert reader.latestOffset(first, None) == first  # type: ignore[arg-type]
    now += 100
    second = reader.latestOffset(first, None)  # type: ignore[arg-type]
    assert second == {one: 2, other: 0}
    ahead = {one: 9, other: 0}  # of a checkpoint that knows more than the last look at the service
    assert reader.latestOffset(ahead, None) == ahead  # type: ignore[arg-type]
    reader.commit(second)
    again = source(options, resource="messages", campaign_id=one).streamReader(schema)
    assert len(rows_of(again, again.partitions(first, second))) == 4  # type: ignore[arg-type]
    assert again.partitions(second, second) == []
    assert again.latestOffset(second, None) == second  # type: ignore[arg-type]
    again.prepareForTriggerAvailableNow()  # type: ignore[attr-defined]
    filled.rerun(one, 5)
    now += 100
    assert again.latestOffset(first, None) == second  # type: ignore[arg-type]
    reader.stop()


def test_a_stream_that_begins_after_the_latest_run(options: Options, filled: Filled) -> None:
    campaign = filled.campaign(3)
    known = source(options, resource="messages", campaign_id=campaign, start_after="latest")
    reader = known.streamReader(known.schema())
    assert reader.initialOffset() == {campaign: 1}
    with pytest.raises(ConfigurationError, match=r"Run 2 of campaign .* had files when the batch was planned"):
        reader.partitions({campaign: 1}, {campaign: 2})
    with pytest.raises(ConfigurationError, match="There is no option 'start_after' for reading messages"):
        known.reader(known.schema())


def test_the_first_batch_after_the_latest_run_can_be_done_again(options: Options, filled: Filled) -> None:
    """Spark keeps where it ends, and asks anew where it began: nothing may lie between."""
    campaign = filled.campaign(3)
    known = source(options, resource="messages", campaign_id=campaign, start_after="latest")
    schema = known.schema()
    reader = known.streamReader(schema)
    start = reader.initialOffset()
    filled.rerun(campaign, 4)
    end = reader.latestOffset(start, None)  # type: ignore[arg-type]
    again = source(options, resource="messages", campaign_id=campaign, start_after="latest").streamReader(schema)
    assert again.partitions(again.initialOffset(), end) == []
    following = again.latestOffset(end, None)  # type: ignore[arg-type]
    assert len(rows_of(again, again.partitions(end, following))) == 4  # type: ignore[arg-type]


def test_a_write_is_handed_on(options: Options) -> None:
    with pytest.raises(ConfigurationError, match="Customers cannot be replaced"):
        source(options).writer(StructType(), overwrite=True)


def test_a_sink_for_streams_is_refused_with_what_to_do_instead(options: Options) -> None:
    with pytest.raises(ConfigurationError, match="foreachBatch"):
        source(options).streamWriter(StructType([]), overwrite=False)


def test_the_face_is_no_more_than_the_source() -> None:
    code = (
        "import sys, nudgescribe_async.spark as spark\n"
        "from nudgescribe_async.spark import reading\n"
        "assert not any(name.startswith(('pyspark', 'pyarrow')) for name in sys.modules)\n"
        "print(spark.__all__, hasattr(spark, 'nothing'))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "['NudgescribeDataSource'] False\n"


@pytest.mark.parametrize("package", ["pyspark", "pyarrow"])
def test_without_a_package_the_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ConfigurationError, match=r'pip install "nudgescribe_async\[spark\]"'):
        nudgescribe_async.spark.NudgescribeDataSource  # noqa: B018 - loaded when it is asked for
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        nudgescribe_async.spark.nothing  # noqa: B018
