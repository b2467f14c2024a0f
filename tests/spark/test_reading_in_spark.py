"""Reads in Spark: planned in a process of its own, done in others, against the sandbox on a real socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyspark", reason="the extra spark is not installed")

from pyspark.errors import PySparkException

from nudgescribe_async.sandbox import RateLimit, Status

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from spark_service import Filled

    from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox

pytestmark = pytest.mark.slow

Options = dict[str, str]


def read(spark: SparkSession, options: Options, **more: str) -> DataFrame:
    return spark.read.format("nudgescribe").options(**options, **more).load()


def test_customers_are_read_by_several_tasks_with_one_login(
    spark: SparkSession, served: ThreadedSandbox, options: Options, filled: Filled
) -> None:
    group = filled.group(95)
    frame = read(spark, options, customer_group_id=group, parallelism="3")
    assert frame.rdd.getNumPartitions() == 3
    rows = frame.collect()
    assert len(rows) == 95
    assert {row.customer_group_id for row in rows} == {group}
    assert [row.page for row in rows] == [1 + number // 10 for number in range(95)]
    read_profiles = {served.decrypt(row.customer_id, json.loads(row.extended_profile))["external_id"] for row in rows}
    assert read_profiles == {f"C{number}" for number in range(95)}
    assert served.count("auth.authenticate") == 1


def test_a_limit_on_requests_is_never_exceeded(
    spark: SparkSession, served: ThreadedSandbox, options: Options, filled: Filled
) -> None:
    group = filled.group(600)
    served.inject(RateLimit(50, 1))
    frame = read(spark, options, customer_group_id=group, requests_per_second="50", parallelism="2")
    assert frame.select("customer_id").distinct().count() == 600
    assert served.count("customers.list", 200) >= 60
    assert {record.status for record in served.log} == {200}


def test_a_task_that_failed_is_tried_again_and_doubles_no_row(
    spark: SparkSession, served: ThreadedSandbox, options: Options, filled: Filled
) -> None:
    group = filled.group(200)
    refused = served.inject(Status(404), operation="customers.list", times=2, skip=9)
    rows = read(spark, options, customer_group_id=group, parallelism="2").select("customer_id").collect()
    assert refused.fired == 2
    assert len(rows) == len({row.customer_id for row in rows}) == 200


def test_an_error_says_which_task_it_is_of_and_no_secret(
    spark: SparkSession, served: ThreadedSandbox, options: Options, filled: Filled
) -> None:
    group = filled.group(100)
    served.inject(Status(404), operation="customers.list", times=None)
    with pytest.raises(PySparkException) as failed:
        read(spark, options, customer_group_id=group, parallelism="2").collect()
    text = str(failed.value)
    assert "PageError" in text
    assert "operation customers.list" in text
    assert "partition 1 of 2 (pages 1 to 5 of 10)" in text or "partition 2 of 2 (pages 6 to 10 of 10)" in text
    for secret in (value for name, value in options.items() if name.startswith("secret_")):
        assert secret not in text


def test_wrong_options_are_an_error_on_the_driver(spark: SparkSession, options: Options) -> None:
    with pytest.raises(PySparkException, match="There is no option 'custmer_group_id' for reading customers"):
        read(spark, options, custmer_group_id="1")
    with pytest.raises(PySparkException, match="needs the option 'customer_group_id'"):
        read(spark, options)


def test_no_plan_shows_a_secret(spark: SparkSession, options: Options, filled: Filled) -> None:
    frame = read(spark, options, customer_group_id=filled.group(1))
    frame.createOrReplaceTempView("customers")
    plan = str(frame._jdf.queryExecution().toString()) + repr(frame)
    plan += str(spark.sql("EXPLAIN EXTENDED SELECT * FROM customers").collect())
    plan += str(spark.sql("DESCRIBE EXTENDED customers").collect())
    for secret in (value for name, value in options.items() if name.startswith("secret_")):
        assert secret not in plan


def test_a_schema_of_ones_own_reads_only_what_is_in_it(spark: SparkSession, options: Options, filled: Filled) -> None:
    group = filled.group(12)
    reader = spark.read.format("nudgescribe").options(**options, customer_group_id=group)
    frame = reader.schema("created_at timestamp, customer_id string").load()
    assert frame.columns == ["created_at", "customer_id"]
    assert len(frame.collect()) == 12
    with pytest.raises(PySparkException, match="The column 'page' is bigint"):
        reader.schema("page string").load().collect()
    with pytest.raises(PySparkException, match="There is no column 'surname'"):
        reader.schema("surname string").load().collect()


def test_limit_ends_a_read_early(
    spark: SparkSession, served: ThreadedSandbox, options: Options, filled: Filled
) -> None:
    group = filled.group(100)
    assert len(read(spark, options, customer_group_id=group, parallelism="2").limit(3).collect()) == 3
    assert served.count("customers.list") <= 6  # of one task, which has half of the pages


def test_filters_are_left_to_spark_which_mixes_up_those_of_two_queries(
    spark: SparkSession, served: ThreadedSandbox, options: Options, filled: Filled
) -> None:
    frame = read(spark, options, customer_group_id=filled.group(100), parallelism="2")
    spark.conf.set("spark.sql.python.filterPushdown.enabled", "true")
    try:
        both = frame.where("page = 3").union(frame.where("page = 5"))
        assert sorted(row.page for row in both.collect()) == [3] * 10 + [5] * 10
        assert frame.where("page = 11").collect() == []
        assert frame.count() == 100
    finally:
        spark.conf.unset("spark.sql.python.filterPushdown.enabled")


def test_pages_and_runs_that_are_asked_for_spare_requests(
    spark: SparkSession, served: ThreadedSandbox, options: Options, filled: Filled
) -> None:
    group = filled.group(100)
    rows = read(spark, options, customer_group_id=group, pages="4-5").collect()
    assert [row.page for row in rows] == [4] * 10 + [5] * 10
    assert served.count("customers.list") == 2
    assert read(spark, options, customer_group_id=group, pages="11-").collect() == []
    campaign = filled.campaign(3)
    filled.rerun(campaign, 5)
    messages = read(spark, options, resource="messages", campaign_id=campaign, run_number="1")
    assert {row.run_number for row in messages.collect()} == {1}
    assert served.count("messages.fetch") == 2


def test_messages_of_the_latest_run(spark: SparkSession, options: Options, filled: Filled) -> None:
    campaign = filled.campaign(3)
    filled.rerun(campaign, 5)
    frame = read(spark, options, resource="messages", campaign_id=campaign, message_columns="message,segment")
    assert [field.simpleString() for field in frame.schema] == [
        "campaign_id:string",
        "run_number:bigint",
        "page:bigint",
        "position:bigint",
        "message:string",
        "segment:string",
        "extra:string",
    ]
    rows = frame.orderBy("page", "position").collect()
    assert [(row.run_number, row.page, row.position) for row in rows] == [
        (2, 1, 1),
        (2, 1, 2),
        (2, 2, 1),
        (2, 2, 2),
        (2, 3, 1),
    ]
    assert [json.loads(row.extra)["external_id"] for row in rows] == ["C0", "C1", "C2", "C3", "C4"]
    assert all(row.message for row in rows)


@pytest.mark.parametrize(
    ("resource", "columns"),
    [
        ("campaigns", {"workspace_id", "campaign_id", "campaign_status"}),
        ("groups", {"customer_group_id", "group_name", "created_at"}),
        ("profile_fields", {"profile_field_id", "field_type", "is_required"}),
    ],
)
def test_what_has_no_pages(
    spark: SparkSession, served: ThreadedSandbox, options: Options, filled: Filled, resource: str, columns: set[str]
) -> None:
    filled.campaign(3)
    more = {} if resource == "campaigns" else {"workspace_id": served.workspace_id}
    frame = read(spark, options, resource=resource, **more)
    assert columns < set(frame.columns)
    rows: list[Any] = frame.collect()
    assert len(rows) == (2 if resource == "profile_fields" else 1)


def test_an_empty_group(spark: SparkSession, options: Options, filled: Filled) -> None:
    assert read(spark, options, customer_group_id=filled.group(0)).collect() == []
