"""A session of Spark, and a service for it: the sandbox in a thread of its own, which the processes of Spark ask.

Without PySpark, Java, or a pandas that PySpark works with, what needs Spark is skipped; with ``NUDGESCRIBE_TEST_SPARK=1``
it fails.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from spark_service import Filled

from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nudgescribe_async.sandbox import Sandbox

DEMANDED = os.environ.get("NUDGESCRIBE_TEST_SPARK") == "1"


def why_not() -> str | None:
    """What Spark lacks here."""
    if find_spec("pyspark") is None:
        return "the extra spark is not installed"
    if find_spec("pandas") is not None and int(version("pandas").partition(".")[0]) >= 3:
        return "PySpark does not work with pandas 3"
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        return "there is no Java"
    return None


@pytest.fixture(scope="session")
def spark_is_here() -> None:
    """For what starts a Spark of its own."""
    reason = why_not()
    if reason is not None:
        pytest.fail(reason) if DEMANDED else pytest.skip(reason)


@pytest.fixture(scope="session")
def spark(spark_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A session on this machine: two tasks at once, each tried four times."""
    from pyspark.sql import SparkSession

    from nudgescribe_async.spark import NudgescribeDataSource

    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    session = (
        SparkSession.builder.master("local[2,4]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        # Code that runs once is not worth compiling well: that takes half of the time.
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    session.dataSource.register(NudgescribeDataSource)
    yield session
    session.stop()


@pytest.fixture
def served() -> Iterator[ThreadedSandbox]:
    """A service with 10 customers on a page, and two rows in a file."""
    sandbox = ThreadedSandbox(page_size=10, rows_per_file=2)
    sandbox.start()
    yield sandbox
    sandbox.stop()


@pytest.fixture
def options_for(tmp_path: Path) -> Callable[[Sandbox], dict[str, str]]:
    """The options that lead to a service."""

    def found(sandbox: Sandbox) -> dict[str, str]:
        return {
            "base_url": sandbox.url,
            "secret_api_key": sandbox.credentials.api_key,
            "secret_email": sandbox.credentials.email,
            "secret_password": sandbox.credentials.password,
            "token_folder": str(tmp_path / "tokens"),
        }

    return found


@pytest.fixture
def options(served: ThreadedSandbox, options_for: Callable[[Sandbox], dict[str, str]]) -> dict[str, str]:
    """The options that lead to the service."""
    return options_for(served)


@pytest.fixture
def filled(served: ThreadedSandbox) -> Filled:
    """Puts things into the service."""

    async def fields() -> None:
        await served.create_profile_field("external_id", "string")
        await served.create_profile_field("age", "number")

    asyncio.run(fields())
    return Filled(served)
