"""The runs of campaigns as a stream: each run that gets files flows once, whole, in the order of the runs of its campaign.

An offset is, for each campaign, the last run that was read. Spark writes it down before a batch, and again when the batch
is done; after a restart it asks for the same batch again, from one offset to the other, and files do not change once they
are there. So no run is lost, and none comes twice in a sink that keeps Spark's promise.

``DataSourceStreamReader``, and not the simple one: that one reads the rows on the driver, and files are large.
"""

from __future__ import annotations

import asyncio
import math
from importlib import import_module
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any

from pyspark.sql.datasource import DataSourceStreamReader

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.spark.reading import for_the_driver, runs_with_files
from nudgescribe_async.spark.source import Part, RowsOfShares

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyspark.sql.datasource import InputPartition
    from pyspark.sql.types import StructType

    from nudgescribe_async.spark.columns import Field
    from nudgescribe_async.spark.job import Job, Range, Share

__all__ = ["RunsReader"]

_SINCE_42 = "pyspark.sql.streaming.datasource"
if TYPE_CHECKING:
    from pyspark.sql.streaming.datasource import SupportsTriggerAvailableNow
else:  # before PySpark 4.2, a query that ends by itself is one batch
    SupportsTriggerAvailableNow = (
        import_module(_SINCE_42).SupportsTriggerAvailableNow if find_spec(_SINCE_42) is not None else object
    )


class RunsReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """Finds the runs that are new, on the driver, and reads them, on the executors.

    Args:
        job: which campaigns, and from where.
        fields: all columns that there are.
        schema: those that are asked for.
    """

    def __init__(self, job: Job, fields: Sequence[Field], schema: StructType) -> None:
        self._job = job
        self._rows = RowsOfShares(job, fields, schema)
        self._looked = -math.inf
        self._found: dict[str, int] = {}
        self._target: dict[str, int] | None = None

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """Where a new stream begins: see the option ``start_after``."""
        start = self._job.start_after
        if start == "latest":
            self._found = asyncio.run(self._latest({}))
            # Spark writes down where the first batch ends, not where it began, and asks here again if it did not end. So
            # it ends here: a run that comes before the next look is in the second batch, whose beginning is known.
            self._looked = monotonic()
            return _merged({}, self._found)
        return _merged({}, dict.fromkeys(self._job.campaign_ids, start))

    def latestOffset(self, start: Mapping[str, Any] | None = None, limit: object = None) -> dict[str, Any]:  # noqa: ARG002, N802 - Spark's names
        """The latest run of each campaign that has files.

        Args:
            start: where the batch will begin. PySpark gives it since 4.2.
            limit: is not asked for.
        """
        known = _known(start or {})
        if self._target is not None:
            return _merged(known, self._target)
        # Spark asks again and again, many times a second unless the query has a trigger.
        if monotonic() - self._looked >= self._job.poll_seconds:
            self._found = asyncio.run(self._latest(known))
            self._looked = monotonic()
        return _merged(known, self._found)

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 - Spark's name
        """A query that ends by itself ends with the runs that have files now."""
        self._target = asyncio.run(self._latest({}))

    def partitions(self, start: Mapping[str, Any], end: Mapping[str, Any]) -> Sequence[InputPartition]:
        """The files of the runs between two offsets."""
        return [Part(share) for share in asyncio.run(self._plan(_known(start), _known(end)))]

    def read(self, partition: InputPartition) -> Iterator[Any]:
        """Read one share."""
        return self._rows.read(partition)

    def commit(self, end: Mapping[str, Any]) -> None:
        """Nothing: Spark's checkpoint is the only place that knows how far a stream has come."""

    async def _latest(self, known: Mapping[str, int]) -> dict[str, int]:
        async with for_the_driver(self._job) as ns:

            async def latest(campaign: str) -> int:
                after = known.get(campaign, self._first())
                runs = await runs_with_files(ns, self._job, campaign, after=after, only_latest=True)
                return runs[-1].run_number or after if runs else after

            campaigns = self._job.campaign_ids
            return dict(zip(campaigns, await asyncio.gather(*map(latest, campaigns)), strict=True))

    def _first(self) -> int:
        """Where a campaign begins that was not asked for before."""
        return 0 if self._job.start_after == "latest" else self._job.start_after

    async def _plan(self, start: dict[str, int], end: dict[str, int]) -> list[Share]:
        sets: list[Range] = []
        async with for_the_driver(self._job) as ns:
            for campaign, last in end.items():
                after = start.get(campaign, self._first())
                if last <= after:
                    continue
                runs = await runs_with_files(ns, self._job, campaign, after=after, up_to=last)
                if not runs or runs[-1].run_number != last:
                    raise ConfigurationError(
                        f"Run {last} of campaign {campaign} had files when the batch was planned, and has none now."
                    )
                sets += runs
        return self._job.shares(sets) if sets else []


def _known(offset: Mapping[str, Any]) -> dict[str, int]:
    """An offset, as it comes out of a checkpoint."""
    return {str(campaign): int(run) for campaign, run in offset.items()}


def _merged(known: Mapping[str, int], found: Mapping[str, int]) -> dict[str, Any]:
    """An offset. Never back, and always in one order, since Spark compares offsets as text.

    What is known of campaigns that are no longer asked for stays, should they come back.
    """
    return {
        campaign: max(known.get(campaign, 0), found.get(campaign, 0))
        for campaign in sorted(known.keys() | found.keys())
    }
