"""What ``docs/spark.md`` shows, run in Spark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyspark", reason="the extra spark is not installed")

from documentation_blocks import DOCS, blocks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from spark_service import Filled

    from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(spark: SparkSession, served: ThreadedSandbox, tmp_path: Path) -> Iterator[None]:
    """What the processes of Spark find in their environment, from the next registration on."""
    credentials = served.credentials
    ours = {
        "NUDGESCRIBE_API_KEY": credentials.api_key,
        "NUDGESCRIBE_EMAIL": credentials.email,
        "NUDGESCRIBE_PASSWORD": credentials.password,
        "NUDGESCRIBE_BASE_URL": served.url,
        "TMPDIR": str(tmp_path),  # where tokens are kept
    }
    known: dict[str, str] = spark.sparkContext.environment
    known.update(ours)
    yield
    for name in ours:
        del known[name]


@pytest.mark.usefixtures("environment")
def test_what_the_guide_shows(spark: SparkSession, served: ThreadedSandbox, filled: Filled, tmp_path: Path) -> None:
    shown: dict[str, Any] = {}
    for block in blocks(DOCS / "spark.md"):
        if block.language == "python":
            exec(compile(block.text, block.name, "exec"), shown)
    assert shown["spark"] is spark
    campaign = filled.campaign(3)
    (group,) = {
        row.customer_group_id
        for row in spark.read.format("nudgescribe").option("resource", "campaigns").load().collect()
    }
    assert shown["customers"](spark, group).count() == 3
    assert shown["letters"](spark, campaign).where("message is not null").count() == 3
    query = shown["letters_into"](spark, tmp_path, [campaign])
    query.processAllAvailable()
    query.stop()
    assert spark.read.parquet(f"{tmp_path}/letters").count() == 3
    assert served.count("auth.authenticate") == 1
