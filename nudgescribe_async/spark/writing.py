"""The writer: customers from a dataframe into a group, each partition an upload of its own.

What can be known before a task starts is checked on the driver: options, the group, columns and their types. An upload is
no transaction, and no API can take one back. So a partition is sent again only if that does no harm: if ``identifier``
names the column by which the service finds the customers that it has. Without it each partition is sent once: what broke
it off comes to the driver as a report, not as a failure that Spark would try again, and a second attempt, after a
process was lost, sends nothing.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from attrs import evolve, frozen
from pyspark import TaskContext
from pyspark.sql import types
from pyspark.sql.datasource import DataSourceArrowWriter, WriterCommitMessage

from nudgescribe_async.bulk.upload.header import match
from nudgescribe_async.bulk.upload.rules import rules_of
from nudgescribe_async.errors import ConfigurationError, NudgescribeError, PermissionDeniedError, UploadSourceError
from nudgescribe_async.spark.connection import CONNECTION_OPTIONS, Connection
from nudgescribe_async.spark.options import Given
from nudgescribe_async.spark.pace import Lane
from nudgescribe_async.spark.writing_report import PartitionReport, WriteReport, account
from nudgescribe_async.spark.writing_rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nudgescribe_async.bulk.upload import UploadReport, UploadSource
    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.endpoints.models import ProfileField
    from nudgescribe_async.spark.writing_rows import Batch

__all__ = ["CustomersWriter", "PartitionWritten", "WritePlan", "customers_writer"]

_DOING: Final = "writing customers"
_LIMIT: Final = "requests_per_second"
_KNOWN: Final = CONNECTION_OPTIONS | {
    "workspace_id",
    "customer_group_id",
    "identifier",
    "refused_rows",
    "report",
    "dry_run",
    "validate",
    "rows_per_request",
    "keep_refused",
    "spool",
    _LIMIT,
    "parallelism",
    "resource",
}
_SENDABLE: Final = (
    types.StringType,  # CHAR and VARCHAR are texts of Spark, too
    types.CharType,
    types.VarcharType,
    types.IntegralType,
    types.FractionalType,
    types.DateType,
    types.TimestampType,
    types.TimestampNTZType,
    types.NullType,
)
_SHOWN: Final = 20  # names in a message


@frozen(kw_only=True)
class WritePlan:
    """What was asked for, checked. It pickles.

    Attributes:
        workspace_id: the workspace.
        customer_group_id: the group.
        columns: the columns of the dataframe.
        identifier: the column by which the service finds the customers that it has.
        refused_fails: whether refused rows make the write fail.
        report: where the report is written.
        dry_run: only check.
        validate: whether names and values are checked before they are sent.
        rows_per_request: the most.
        keep_refused: of how many refused rows of a partition the reason is kept.
        spool: the folder on the executors for the rows that wait to be sent.
        per_second: the most requests a second of all partitions together.
        parallelism: how many partitions share that, at most.
    """

    workspace_id: str
    customer_group_id: str
    columns: tuple[str, ...]
    identifier: str | None
    refused_fails: bool
    report: str | None
    dry_run: bool
    validate: bool
    rows_per_request: int
    keep_refused: int
    spool: str | None
    per_second: float | None
    parallelism: int | None

    @classmethod
    def of(cls, given: Given, columns: Sequence[str]) -> WritePlan:
        """What the options ask for.

        Raises:
            ConfigurationError: one is missing, wrong, or does not go with another.
        """
        given.one_of("resource", ("customers",), "customers")
        identifier = given.text("identifier")
        if identifier is not None and identifier not in columns:
            raise given.wrong("identifier", f"must be a column of the dataframe; it has {_listed(columns)}")
        fails = given.one_of("refused_rows", ("fail", "report"), "fail") == "fail"
        report = given.text("report")
        if report is None and not fails:
            raise given.wrong(
                "refused_rows", "is 'report', and nobody would see it: name a file with the option 'report'"
            )
        if report is not None and not (Path(report).is_absolute() and Path(report).parent.is_dir()):
            raise given.wrong("report", "must be the absolute path of a file, in a folder that is there, on the driver")
        per_second, parallelism = given.number(_LIMIT), given.whole("parallelism")
        if (per_second is None) != (parallelism is None):
            raise ConfigurationError(
                f"The options {_LIMIT!r} and 'parallelism' go together: the limit is divided over so many partitions, which "
                "df.coalesce(...) or df.repartition(...) makes."
            )
        return cls(
            workspace_id=given.needed("workspace_id"),
            customer_group_id=given.needed("customer_group_id"),
            columns=tuple(columns),
            identifier=identifier,
            refused_fails=fails,
            report=report,
            dry_run=given.flag("dry_run", default=False),
            validate=given.flag("validate", default=True),
            rows_per_request=given.whole("rows_per_request") or 10_000,
            keep_refused=1_000 if (kept := given.whole("keep_refused", least=0)) is None else kept,
            spool=given.text("spool"),
            per_second=per_second,
            parallelism=parallelism,
        )

    def lane(self, partition: int | None) -> Lane | None:
        """The share of a partition in the limit; that of the driver, before all of them, if ``None``.

        Raises:
            ConfigurationError: there are more partitions than were to share it.
        """
        if self.per_second is None or self.parallelism is None:
            return None
        if partition is None:
            return Lane(number=0, lanes=1, per_second=self.per_second)
        if partition >= self.parallelism:
            raise ConfigurationError(
                f"The option 'parallelism' says {self.parallelism}, and the dataframe has more: the limit on requests would "
                f"not hold. Use df.coalesce({self.parallelism})."
            )
        return Lane(number=partition, lanes=self.parallelism, per_second=self.per_second)


class PartitionWritten(WriterCommitMessage):
    """What a task tells the driver."""

    def __init__(self, report: PartitionReport) -> None:
        self.report = report


def customers_writer(options: Mapping[str, str], schema: types.StructType, *, overwrite: bool) -> CustomersWriter:
    """The writer for a dataframe, after a look at all that can be known before its rows.

    Runs on the driver, before any task, and asks the service for the groups and the profile fields of the workspace.

    Args:
        options: as Spark hands them over.
        schema: of the dataframe.
        overwrite: whether Spark was asked to replace what is there, which is refused.

    Raises:
        ConfigurationError: an option is missing or wrong, or the mode is.
        UploadSourceError: a column is no profile field, has a type that no field takes, or one that is required is missing;
            or the workspace has no such group.
        NudgescribeError: the groups or the profile fields could not be read.
    """
    if overwrite:
        raise ConfigurationError(
            'Customers cannot be replaced: the service has no operation that empties a group. Use mode("append"), which '
            "updates those that it finds by their identifier and adds the others; or write to a new group."
        )
    given = Given(options, known=_KNOWN, doing=_DOING)
    connection = Connection.of(given)
    plan = WritePlan.of(given, schema.fieldNames())
    _check_types(schema)
    if plan.validate:
        fields = asyncio.run(_fields_of_the_workspace(connection, plan))
        _check_columns(plan.columns, fields)
    else:
        connection.check()
    return CustomersWriter(connection, plan)


class CustomersWriter(DataSourceArrowWriter):
    """Writes partitions in tasks, and reports on the driver. It pickles, with no secret but those that were options.

    A task that is ended leaves what it has sent; the service takes nothing back.
    """

    def __init__(self, connection: Connection, plan: WritePlan) -> None:
        self._connection = connection
        self._plan = plan

    def write(self, iterator: Iterator[Batch]) -> WriterCommitMessage:
        """Upload one partition. Runs in a task.

        Raises:
            NudgescribeError: with an identifier: it broke off, and may be tried again.
            ConfigurationError: there are more partitions than the option says.
        """
        context = TaskContext.get()
        partition, attempt = (0, 0) if context is None else (context.partitionId(), context.attemptNumber())
        self._plan.lane(partition)  # a wrong option is an error, not an outcome to report
        try:
            return PartitionWritten(self._written(iterator, partition, attempt))
        except NudgescribeError as error:
            error.message = f"Partition {partition}, attempt {attempt}: {error.message}"
            raise

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """Report. Runs on the driver, once all tasks have ended well; what it raises fails the write.

        Raises:
            NudgescribeError: a partition broke off; or rows were refused, unless ``refused_rows`` is ``"report"``.
            ConfigurationError: the report cannot be written.
        """
        report = self._report(messages)
        self._keep(report)
        report.raise_for_failures(refused=self._plan.refused_fails)

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        """Report, after a task has failed for good. Nothing is taken back. Spark also calls it when ``commit`` has raised."""
        report = self._report(messages)
        if not report.without_report:
            return  # commit() has said all of it
        # The error is that of the task. This process is one of Spark's, which shows what goes to its standard error.
        sys.stderr.write(f"nudgescribe: the write was aborted, and nothing is taken back: {report}\n")
        self._keep(report)

    def _report(self, messages: Iterable[WriterCommitMessage | None]) -> WriteReport:
        return WriteReport(
            workspace_id=self._plan.workspace_id,
            customer_group_id=self._plan.customer_group_id,
            dry_run=self._plan.dry_run,
            partitions=tuple(
                None if message is None else cast("PartitionWritten", message).report for message in messages
            ),
        )

    def _keep(self, report: WriteReport) -> None:
        if self._plan.report is None:
            return
        try:
            report.write(Path(self._plan.report))
        except OSError as error:
            raise ConfigurationError(
                f"The option 'report': the file cannot be written: {error.strerror}. What it would say: {report}"
            ) from None

    def _written(self, batches: Iterable[Batch], partition: int, attempt: int) -> PartitionReport:
        plan = self._plan
        if attempt and plan.identifier is None and not plan.dry_run:
            raise NudgescribeError(
                "An earlier attempt may have written rows of it, and without the option 'identifier' the service would have "
                "them twice. So nothing was sent now. Why the earlier one ended is in the log of its executor."
            )
        rows = Rows(batches, identifier=plan.identifier, partition=partition, fields=plan.columns)
        table = rows.table()
        if table is None:
            return rows.with_lacking(PartitionReport(partition=partition, attempt=attempt), keep=plan.keep_refused)
        try:
            report = asyncio.run(self._upload(table, partition))
        except NudgescribeError as error:
            if plan.identifier is not None:
                raise
            return PartitionReport(partition=partition, attempt=attempt, failure=str(error))
        known = PartitionReport.of(report, partition=partition, attempt=attempt, refused_row=rows.refused)
        return rows.with_lacking(evolve(known, failure=self._failure(report)), keep=plan.keep_refused)

    def _failure(self, report: UploadReport) -> str | None:
        """What ended the sending. With an identifier it is raised, for Spark to try again."""
        try:
            report.raise_for_failures()
        except NudgescribeError as error:
            error.message = f"{account(report)} {error.message}"
            if self._plan.identifier is None:
                return str(error)
            error.advice = f"Repeating does no harm, since the rows have {self._plan.identifier!r}."
            raise
        return None

    async def _upload(self, table: UploadSource, partition: int) -> UploadReport:
        plan = self._plan
        async with self._connection.new_client(lane=plan.lane(partition)) as ns:
            return await ns.customers.upload(
                plan.workspace_id,
                plan.customer_group_id,
                table,
                validate=plan.validate,
                dry_run=plan.dry_run,
                repeat_unknown=plan.identifier is not None,
                rows_per_chunk=plan.rows_per_request,
                keep_problems=plan.keep_refused,
                spool=plan.spool,
            )


async def _fields_of_the_workspace(connection: Connection, plan: WritePlan) -> Sequence[ProfileField]:
    """The profile fields, once it is known that the group is there."""
    async with connection.new_client(lane=plan.lane(None)) as ns:
        await _check_group(ns, plan)
        return await ns.profile_fields.list(plan.workspace_id)


async def _check_group(ns: Nudgescribe, plan: WritePlan) -> None:
    try:
        groups = await ns.customer_groups.list(plan.workspace_id)
    except PermissionDeniedError:
        return  # as an upload does: who may not see them may write to them all the same
    if all(group.customer_group_id != plan.customer_group_id for group in groups):
        raise _unfit("The workspace has no such customer group.", "customer_groups.list has those that it has.")


def _check_types(schema: types.StructType) -> None:
    wrong = [field for field in schema.fields if not isinstance(field.dataType, _SENDABLE)]
    if wrong:
        named = ", ".join(f"{field.name!r} ({field.dataType.simpleString()})" for field in wrong[:_SHOWN])
        raise _unfit(
            f"No profile field takes columns of these types: {named}.",
            "Leave them out with df.drop(...), or cast them to text, numbers or dates.",
        )


def _check_columns(columns: Sequence[str], fields: Sequence[ProfileField]) -> None:
    rules = rules_of(fields)
    unknown = [name for name in columns if name.strip() not in rules]
    if len(unknown) == len(columns):
        raise _unfit(
            f"None of the columns {_listed(columns)} is a profile field of the workspace; it has {_listed(list(rules))}.",
            "Rename the columns.",
        )
    try:
        match(columns, rules, None)
    except UploadSourceError as error:
        error.advice = "Nothing was sent."
        if unknown:
            error.advice = "Rename it, leave it out with df.drop(...), or create the field. Nothing was sent."
        raise


def _unfit(what: str, advice: str) -> UploadSourceError:
    error = UploadSourceError(what, operation="customers.upload")
    error.advice = f"{advice} Nothing was sent."
    return error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(map(repr, names[:_SHOWN])) or "none") + more
