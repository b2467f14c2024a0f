"""Reads from and writes to the service with Spark (extra ``spark``). See ``docs/spark.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nudgescribe_async.spark.source import NudgescribeDataSource

__all__ = ["NudgescribeDataSource"]


def __getattr__(name: str) -> object:
    # PySpark is loaded when it is needed, so that what knows nothing of it can be used, and tested, without.
    if name != "NudgescribeDataSource":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec("pyspark") is None or find_spec("pyarrow") is None:
        from nudgescribe_async.errors import ConfigurationError  # noqa: PLC0415

        raise ConfigurationError('Spark needs two more packages: pip install "nudgescribe_async[spark]".')
    from nudgescribe_async.spark.source import NudgescribeDataSource  # noqa: PLC0415

    return NudgescribeDataSource
