"""The runs of campaigns as a stream in Spark, through restarts, against the sandbox on a real socket."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pyspark", reason="the extra spark is not installed")

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from spark_service import Filled

pytestmark = pytest.mark.slow

Options = dict[str, str]


def flow(spark: SparkSession, options: Options, lake: Path, **more: str) -> None:
    """Let all that is there flow into the lake, and stop."""
    stream = spark.readStream.format("nudgescribe").options(**options, resource="messages", **more).load()
    query = (
        stream.writeStream.format("parquet")
        .option("checkpointLocation", str(lake / "checkpoint"))
        .option("path", str(lake / "rows"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()  # raises what ended the query


def in_the_lake(spark: SparkSession, lake: Path) -> Counter[tuple[str, int]]:
    rows = spark.read.parquet(str(lake / "rows")).collect()
    assert len({(row.campaign_id, row.run_number, row.page, row.position) for row in rows}) == len(rows)
    return Counter((row.campaign_id, row.run_number) for row in rows)


def test_each_run_flows_once_through_restarts(
    spark: SparkSession, options: Options, filled: Filled, tmp_path: Path
) -> None:
    one, other = filled.campaign(3), filled.campaign(1)
    both = f"{one}, {other}"
    flow(spark, options, tmp_path, campaign_id=both)
    assert in_the_lake(spark, tmp_path) == {(one, 1): 3, (other, 1): 1}
    filled.rerun(one, 5)
    filled.rerun(other, 2, publish=False)
    flow(spark, options, tmp_path, campaign_id=both)
    assert in_the_lake(spark, tmp_path) == {(one, 1): 3, (other, 1): 1, (one, 2): 5}
    # A batch that was planned, and whose end was never written down, is done again: the same rows into the same files.
    for log in (tmp_path / "checkpoint" / "commits", tmp_path / "rows" / "_spark_metadata"):
        (log / "1").unlink()
        (log / ".1.crc").unlink()
    third = filled.campaign(4)
    flow(spark, options, tmp_path, campaign_id=f"{both},{third}")
    assert in_the_lake(spark, tmp_path) == {(one, 1): 3, (other, 1): 1, (one, 2): 5, (third, 1): 4}


def test_a_stream_may_begin_after_the_latest_run(
    spark: SparkSession, options: Options, filled: Filled, tmp_path: Path
) -> None:
    campaign = filled.campaign(3)
    flow(spark, options, tmp_path, campaign_id=campaign, start_after="latest")
    filled.rerun(campaign, 2)
    flow(spark, options, tmp_path, campaign_id=campaign, start_after="latest")
    assert in_the_lake(spark, tmp_path) == {(campaign, 2): 2}
