"""The writer in Spark: tasks in processes of their own, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pyspark", reason="the extra spark is not installed")

from pyspark.errors import PySparkException
from pyspark.sql.functions import monotonically_increasing_id

from nudgescribe_async import Nudgescribe
from nudgescribe_async.sandbox import Status

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from nudgescribe_async import Customer
    from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox

pytestmark = pytest.mark.slow

ROWS = 400
PARTITIONS = 4


@pytest.fixture
def service(served: ThreadedSandbox, options: dict[str, str]) -> dict[str, str]:
    """The options of a write to a group of the sandbox."""

    async def make() -> str:
        await served.create_profile_field("external_id", "string")
        await served.create_profile_field("age", "number")
        await served.create_profile_field("since", "Date", field_format="dd/MM/yyyy")
        return await served.create_customer_group("g")

    return {**options, "workspace_id": served.workspace_id, "customer_group_id": asyncio.run(make())}


def rows(spark: SparkSession) -> DataFrame:
    """A column of each kind."""
    return spark.range(0, ROWS, 1, PARTITIONS).selectExpr(
        "concat('C', id) external_id",
        "cast(id / 4 as decimal(10, 2)) age",
        "date_add(date'2024-02-28', cast(id as int)) since",
    )


def save(frame: DataFrame, options: dict[str, str], mode: str = "append", **more: str) -> None:
    frame.write.format("nudgescribe").mode(mode).options(**{**options, **more}).save()


def profiles(served: ThreadedSandbox, options: dict[str, str]) -> list[dict[str, object]]:
    async def read() -> list[Customer]:
        async with Nudgescribe(served.credentials, base_url=served.url) as ns:
            return await ns.customers.iter(options["customer_group_id"]).collect()

    return [dict(served.decrypt(one.customer_id, one.extended_profile)) for one in asyncio.run(read())]


def test_a_dataframe_is_written_with_a_login_for_all_tasks(
    spark: SparkSession, service: dict[str, str], served: ThreadedSandbox, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    save(rows(spark), service, report=str(report))
    written = profiles(served, service)
    assert Counter(one["external_id"] for one in written) == Counter(f"C{number}" for number in range(ROWS))
    assert next(one for one in written if one["external_id"] == "C6") == {
        "external_id": "C6",
        "age": 1.5,
        "since": "05/03/2024",
    }
    kept = json.loads(report.read_text())
    assert (kept["state"], kept["rows"], kept["accepted"]) == ("written", ROWS, ROWS)
    assert [one["partition"] for one in kept["partitions"]] == [*range(PARTITIONS)]
    assert served.count("customers.check", 200) == PARTITIONS
    assert served.count("auth.authenticate") == 2  # the other one is of this test


def test_refused_rows_fail_the_write_and_are_found_again_by_their_place(
    spark: SparkSession, service: dict[str, str], served: ThreadedSandbox, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    frame = rows(spark).selectExpr("external_id", "if(external_id in ('C7', 'C207', 'C399'), 'x', '1') age")
    with pytest.raises(PySparkException, match=r"3 of 400 rows were refused: partition 0, row 8, field 'age'"):
        save(frame, service, report=str(report))
    assert len(profiles(served, service)) == ROWS - 3
    refused = [one["place"] for part in json.loads(report.read_text())["partitions"] for one in part["refused"]]
    placed = frame.withColumn("place", monotonically_increasing_id())
    found = placed.where(placed.place.isin(refused)).collect()
    assert [row.external_id for row in found] == ["C7", "C207", "C399"]
    # The same, reported and no failure; nobody is there twice, as the sandbox knows them by their external_id.
    save(frame, service, report=str(report), refused_rows="report", identifier="external_id")
    assert len(profiles(served, service)) == ROWS - 3


def test_a_task_that_breaks_off_in_the_middle_is_tried_again_if_that_does_no_harm(
    spark: SparkSession, service: dict[str, str], served: ThreadedSandbox, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    served.inject(Status(400), operation="customers.check", times=2, skip=3)
    save(rows(spark), service, identifier="external_id", rows_per_request="30", report=str(report))
    written = profiles(served, service)
    assert Counter(one["external_id"] for one in written) == Counter(f"C{number}" for number in range(ROWS))
    assert served.count("customers.check", 400) == 2
    kept = json.loads(report.read_text())
    assert kept["accepted"] == ROWS
    assert 1 <= sum(one["attempt"] for one in kept["partitions"]) <= 2


def test_without_an_identifier_a_task_that_breaks_off_is_reported_and_nothing_is_sent_twice(
    spark: SparkSession, service: dict[str, str], served: ThreadedSandbox, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    served.inject(Status(500, after_work=True), operation="customers.check", times=1, skip=3)
    with pytest.raises(PySparkException, match=r"The sending of 1 partition broke off\..* may have been sent"):
        # Without what the sandbox knows customers by: it would have them twice.
        save(rows(spark).select("age"), service, rows_per_request="30", report=str(report))
    kept = json.loads(report.read_text())
    assert (kept["state"], kept["unknown"]) == ("failed", 30)
    assert kept["accepted"] + kept["unknown"] + kept["not_sent"] == ROWS
    written = Counter(one["age"] for one in profiles(served, service))
    assert len(written) == kept["accepted"] + kept["unknown"]
    assert set(written.values()) == {1}


@pytest.mark.parametrize("identifier", ["external_id", None])
def test_a_worker_process_that_is_lost(
    spark: SparkSession, service: dict[str, str], served: ThreadedSandbox, tmp_path: Path, identifier: str | None
) -> None:
    lost = tmp_path / "lost"

    def lose_once(number: int) -> int:
        if number == 150:
            try:
                lost.touch(exist_ok=False)
            except FileExistsError:
                return number
            os._exit(1)
        return number

    spark.udf.register("lose_once", lose_once, "int")
    frame = rows(spark).selectExpr("external_id", "lose_once(cast(substr(external_id, 2) as int)) age")
    if identifier is None:
        with pytest.raises(PySparkException, match="An earlier attempt may have written rows of it"):
            save(frame.select("age"), service)
    else:
        save(frame, service, identifier=identifier)
    assert lost.exists()
    written = Counter(one["age"] for one in profiles(served, service))
    assert set(written.values()) == {1}
    assert 150 not in written if identifier is None else len(written) == ROWS


@pytest.mark.parametrize(
    ("mode", "more", "says"),
    [
        ("overwrite", {}, "no operation that empties a group"),
        ("error", {}, "cannot be written in the .ErrorIfExists. mode"),
        ("ignore", {}, "cannot be written in the .Ignore. mode"),
        ("append", {"nonsense": "1"}, "no option 'nonsense'"),
        ("append", {"api_key": "k"}, "Spark would show the option 'api_key'"),
        ("append", {"customer_group_id": "another"}, "no such customer group"),
    ],
)
def test_what_cannot_be_right_is_told_before_a_task_starts(
    spark: SparkSession, service: dict[str, str], served: ThreadedSandbox, mode: str, more: dict[str, str], says: str
) -> None:
    with pytest.raises(PySparkException, match=says):
        save(rows(spark), service, mode, **more)
    assert not served.count("customers.check")


def test_a_service_that_is_not_there(spark: SparkSession, service: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(PySparkException, match="RequestNotSentError"):
        save(rows(spark), service, base_url=f"http://127.0.0.1:{port}")


def test_a_stream_is_written_batch_by_batch(
    spark: SparkSession, service: dict[str, str], served: ThreadedSandbox, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    rows(spark).select("external_id", "age").write.parquet(str(source))

    def upload(batch: DataFrame, batch_id: int) -> None:
        save(batch, service, identifier="external_id", report=str(tmp_path / f"batch-{batch_id}.json"))

    stream = spark.readStream.schema("external_id string, age decimal(10, 2)").parquet(str(source))
    query = stream.writeStream.foreachBatch(upload).option("checkpointLocation", str(tmp_path / "checkpoints"))
    assert query.trigger(availableNow=True).start().awaitTermination(60)
    assert len(profiles(served, service)) == ROWS
    kept = json.loads((tmp_path / "batch-0.json").read_text())
    assert (kept["state"], kept["accepted"]) == ("written", ROWS)


SCRIPT = """
import json, sys
from pyspark.sql import SparkSession
from nudgescribe_async.spark import NudgescribeDataSource
options, events = json.loads(sys.stdin.readline()), sys.argv[1]
spark = (
    SparkSession.builder.master("local[2,2]").config("spark.ui.enabled", "false").config("spark.log.level", "INFO")
    .config("spark.eventLog.enabled", "true").config("spark.eventLog.compress", "false")
    .config("spark.eventLog.dir", events).config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC").getOrCreate()
)
spark.dataSource.register(NudgescribeDataSource)
frame = spark.range(0, 20, 1, 2).selectExpr("concat('C', id) external_id", "id age")
wrong = {"secret_password": options["secret_password"] + "x", "token_folder": options["token_folder"] + "-2"}
for more in ({"identifier": "external_id"}, {"nonsense": "1"}, wrong):
    try:
        frame.write.format("nudgescribe").mode("append").options(**{**options, **more}).save()
        print("done", *more)
    except Exception as error:
        print("error", *more, error)
spark.stop()
"""


@pytest.mark.usefixtures("spark_is_here")
def test_no_secret_in_errors_logs_plans_and_events(
    service: dict[str, str], served: ThreadedSandbox, tmp_path: Path
) -> None:
    events = tmp_path / "events"
    events.mkdir()
    served.inject(Status(400), operation="customers.check", times=1)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, events.as_uri()],
        input=json.dumps(service).encode() + b"\n",
        capture_output=True,
        check=False,
    )
    said = run.stdout + run.stderr
    assert run.returncode == 0, said.decode()
    assert run.stdout.splitlines()[:1] == [b"done identifier"], said.decode()
    assert run.stdout.count(b"error ") == 2, said.decode()
    logged = b"".join(path.read_bytes() for path in events.rglob("*") if path.is_file())
    assert b"AppendData" in logged
    assert b"external_id" in logged
    for name in ("secret_api_key", "secret_email", "secret_password"):
        assert service[name].encode() not in said, name
        assert service[name].encode() not in logged, name
    token = next(iter((tmp_path / "tokens").rglob("*.json"))).read_text()
    secrets = [text for text in _texts(json.loads(token)) if len(text) > 40]
    assert secrets
    for secret in secrets:
        assert secret.encode() not in said + logged


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
