"""The data source: what Spark calls, on the driver and on the executors. All of it is synchronous, with an event loop within."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.spark.arrow import Batches, fitting, spark_schema
from nudgescribe_async.spark.columns import Table, chosen
from nudgescribe_async.spark.job import STREAM_ONLY, Job, Share
from nudgescribe_async.spark.options import without_secrets
from nudgescribe_async.spark.reading import chunks, fields_of, operation_of, plan

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from pyspark.sql.datasource import DataSourceStreamReader, DataSourceWriter
    from pyspark.sql.types import StructType

    from nudgescribe_async.spark.columns import Field

__all__ = ["NudgescribeDataSource", "NudgescribeReader", "Part", "RowsOfShares"]


class NudgescribeDataSource(DataSource):
    """Nudgescribe as a data source of Spark.

    ::

        spark.dataSource.register(NudgescribeDataSource)
        customers = spark.read.format("nudgescribe").option("customer_group_id", group_id).load()

    The guide has the options. Spark plans a ``DataFrame`` once, with the pages that there are at its first action, and reads
    them anew with each; ``load()`` again to plan anew, and ``cache()`` or write what you use more than once. Wrong options
    are a ``ConfigurationError`` on the driver, the text of which is in the exception that Spark raises.
    """

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        for name, text in without_secrets(dict(options)).items():
            self.options[name] = text
        self._fields: tuple[Field, ...] | None = None

    @classmethod
    def name(cls) -> str:
        """``"nudgescribe"``."""
        return "nudgescribe"

    def schema(self) -> StructType:
        """The columns that are read: all, or those of the option ``columns``."""
        # Nobody says whether it is for a stream; some options are for streams alone.
        job = self._job(stream=any(name in self.options for name in STREAM_ONLY))
        fields = self._all_fields(job)
        return spark_schema(fields if job.columns is None else chosen(fields, job.columns))

    def reader(self, schema: StructType) -> DataSourceReader:
        """What plans and does a read."""
        job = self._job()
        return NudgescribeReader(job, self._all_fields(job), schema)

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        """What reads the runs of campaigns as they come."""
        from nudgescribe_async.spark.streaming import RunsReader  # noqa: PLC0415 - only for streams

        job = self._job(stream=True)
        return RunsReader(job, self._all_fields(job), schema)

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceWriter:
        """What uploads customers."""
        from nudgescribe_async.spark.writing import customers_writer  # noqa: PLC0415 - only for writes

        return customers_writer(self.options, schema, overwrite=overwrite)

    def streamWriter(self, schema: StructType, overwrite: bool) -> NoReturn:  # noqa: ARG002, N802 - Spark's names
        """Nothing: there is no sink for streams.

        Raises:
            ConfigurationError: always; it says what to do instead.
        """
        raise ConfigurationError(
            "There is no sink for streams. Write each batch with foreachBatch and df.write, with the option 'identifier'."
        )

    def _job(self, *, stream: bool = False) -> Job:
        job = Job.of(self.options, stream=stream)
        job.connection.check()
        return job

    def _all_fields(self, job: Job) -> tuple[Field, ...]:
        """Asked for once: the columns that a plan has are those that are read."""
        if self._fields is None:
            self._fields = asyncio.run(fields_of(job))
        return self._fields


class Part(InputPartition):
    """What a task gets."""

    def __init__(self, share: Share) -> None:
        super().__init__(share)

    def __repr__(self) -> str:
        return f"<{self.value}>"


class NudgescribeReader(DataSourceReader):
    """A read: divided on the driver, done on the executors, where a copy of this is.

    Takes no filters over, though PySpark would hand them over since 4.1. Spark (seen in 4.3.0) keeps the plan of a
    ``DataFrame`` that filters were taken over for, and reads by it in other queries with the same ``DataFrame`` that have other
    filters, or none: rows would be missing, and nobody would know. The options ``pages`` and ``run_number`` spare the
    same requests.

    Args:
        job: what is read.
        fields: all columns that there are.
        schema: those that are asked for.
    """

    def __init__(self, job: Job, fields: Sequence[Field], schema: StructType) -> None:
        self._job = job
        self._rows = RowsOfShares(job, fields, schema)

    def partitions(self) -> Sequence[InputPartition]:
        """Ask how many pages there are, and divide them."""
        return [Part(share) for share in asyncio.run(plan(self._job))]

    def read(self, partition: InputPartition) -> Iterator[Any]:
        """Read one share."""
        return self._rows.read(partition)


class RowsOfShares:
    """Reads shares, as record batches, in any process."""

    def __init__(self, job: Job, fields: Sequence[Field], schema: StructType) -> None:
        self._job = job
        self._fields = tuple(fields)
        self._schema = schema
        self._wanted = fitting(schema, fields)

    def read(self, partition: InputPartition) -> Iterator[Any]:
        """The rows of a share, or an error that says which one it was.

        The event loop stands still while Spark takes a batch; what is in flight then waits in the buffers of the system. A
        reader that is let go of, as by ``limit()``, cancels what is in flight.
        """
        share = partition.value
        if share is None:  # there is none, and Spark makes one all the same
            return
        with asyncio.Runner() as runner:
            batches = self._batches(share)
            try:
                while (batch := runner.run(_next(batches))) is not None:
                    yield batch
            except Exception as error:
                error.add_note(f"This was {share} of reading {self._job.resource.replace('_', ' ')} with Spark.")
                raise
            finally:
                runner.run(_close(batches))

    async def _batches(self, share: Share) -> AsyncGenerator[Any, None]:
        made = Batches(self._wanted, self._schema)
        table = Table(self._fields, [field.name for field in self._wanted], operation=operation_of(self._job))
        async for chunk in chunks(self._job, share):
            yield made.batch(table.columns(chunk.items, chunk.given, attributes=chunk.attributes))


async def _next(batches: AsyncGenerator[Any, None]) -> Any:
    return await anext(batches, None)


async def _close(batches: AsyncGenerator[Any, None]) -> None:
    await batches.aclose()
