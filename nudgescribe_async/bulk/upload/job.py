"""An upload from its source to its report: one pass that checks and keeps, then one request after the other.

Nothing is sent before the pass has ended well. After that, what is known is never lost: a report is returned whatever
becomes of the requests, and each of them is told to ``on_chunk`` when it ends.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from attrs import define, evolve, field, frozen

from nudgescribe_async.bulk.upload.faults import fault
from nudgescribe_async.bulk.upload.header import match
from nudgescribe_async.bulk.upload.intake import CsvIntake, MappingIntake, TableIntake
from nudgescribe_async.bulk.upload.judge import Judge, Problems
from nudgescribe_async.bulk.upload.lines import check_encoding
from nudgescribe_async.bulk.upload.report import RowProblem, UploadChunk, UploadReport
from nudgescribe_async.bulk.upload.rules import rules_of
from nudgescribe_async.bulk.upload.sources import Kind, Source
from nudgescribe_async.bulk.upload.spool import Spool
from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.customers import CHECK
from nudgescribe_async.endpoints.profile_fields import LIST
from nudgescribe_async.errors import (
    APIStatusError,
    ClientClosedError,
    DeadlineExceededError,
    NudgescribeError,
    OutcomeUnknownError,
)
from nudgescribe_async.options import bulk, check_whole_number
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from nudgescribe_async.bulk.upload.header import Columns
    from nudgescribe_async.bulk.upload.intake import Batch, Intake
    from nudgescribe_async.bulk.upload.rules import Rule
    from nudgescribe_async.bulk.upload.sources import UploadSource
    from nudgescribe_async.bulk.upload.spool import Kept
    from nudgescribe_async.endpoints.models import UploadReceipt
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.session import Session

__all__ = ["Choices", "upload"]

_UPLOAD: Final = evolve(CHECK, operation="customers.upload", arguments=CHECK.arguments[:2], exactly_one=())
_LONGEST_REASON: Final = 500
PAUSES: Final = (1.0, 2.0, 4.0)
"""Seconds before a chunk whose outcome is not known is sent again, where the caller has said that it may be."""


@frozen(kw_only=True)
class Choices(Kind):
    """The options of one upload, as ``Customers.upload`` documents them."""

    encoding: str
    delimiter: str
    fields: tuple[str, ...] | None
    validate: bool
    unique: str | None
    bad_rows: Literal["skip", "refuse"]
    dry_run: bool
    from_row: int
    to_row: int | None
    rows_per_chunk: int
    chunk_bytes: int
    max_cell_bytes: int
    keep_problems: int
    concurrency: int
    repeat_unknown: bool
    spool: str | os.PathLike[str] | None
    on_chunk: Callable[[UploadChunk], object] | None = field(repr=False)
    rules: Mapping[str, Rule] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, *, encoding: str, fields: Sequence[str] | None, **others: object) -> Choices:
        """Check all of them.

        Raises:
            TypeError: one is of the wrong type.
            ValueError: one has a value that cannot be right.
            ConfigurationError: one that must be a whole number above 0 is none.
        """
        names = None if fields is None else _checked_fields(fields)
        self = cls(encoding=check_encoding(encoding), fields=names, **others)  # type: ignore[arg-type]
        _check_delimiter(self.delimiter)
        for name in ("from_row", "rows_per_chunk", "chunk_bytes", "max_cell_bytes", "concurrency"):
            check_whole_number(name, getattr(self, name))
        if self.keep_problems != 0:
            check_whole_number("keep_problems", self.keep_problems)
        if self.to_row is not None:
            check_whole_number("to_row", self.to_row)
            if self.to_row < self.from_row:
                raise ValueError(f"to_row ({self.to_row}) is before from_row ({self.from_row}).")
        if self.bad_rows not in {"skip", "refuse"}:
            raise ValueError(f"bad_rows must be 'skip' or 'refuse'; got {self.bad_rows!r}.")
        if self.unique is not None and not isinstance(self.unique, str):
            raise TypeError(f"unique must be the name of a field, not {type(self.unique).__name__}.")
        if self.on_chunk is not None and not callable(self.on_chunk):
            raise TypeError(f"on_chunk must be a function, not {type(self.on_chunk).__name__}.")
        return self

    def csv(self) -> Intake:
        """For bytes."""
        return CsvIntake(
            self._match,
            encoding=self.encoding,
            delimiter=self.delimiter,
            max_cell_bytes=self.max_cell_bytes,
            from_row=self.from_row,
        )

    def mappings(self) -> Intake:
        """For lists of mappings."""
        return MappingIntake(self._match, wanted=self.fields)

    def table(self) -> Intake:
        """For parts of tables."""
        return TableIntake(self._match)

    def _match(self, header: Sequence[str], line: int | None) -> Columns:
        columns = match(header, self.rules, self.fields, line=line)
        if self.unique is not None and self.unique not in columns.names:
            raise fault(f"The source has no column {self.unique!r}, which unique= names.", line=line)
        return columns


async def upload(
    session: Session,
    workspace_id: str,
    customer_group_id: str,
    source: UploadSource,
    choices: Choices,
    options: CallOptions | None,
) -> UploadReport:
    """See ``Customers.upload``."""
    options = bulk(options)
    ids = checked(_UPLOAD, {"workspace_id": workspace_id, "customer_group_id": customer_group_id})
    Source(source, choices)  # what cannot be right is told before anything is asked of the service
    if choices.validate:
        fields = await session.call(LIST, {"workspace_id": workspace_id}, options)
        choices = evolve(choices, rules=rules_of(fields))
    work = _Pass(choices)
    try:
        await work.run(source)
        return await _Sending(session, ids, work, options).run()
    finally:
        if work.spool is not None:
            await in_thread(work.spool.close)


class _Pass:
    """The one reading of the source."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.problems = Problems(choices.keep_problems)
        self.spool: Spool | None = None
        self.judge: Judge | None = None

    async def run(self, source: UploadSource) -> None:
        async with Source(source, self.choices) as opened:
            while (piece := await opened.next()) is not None:
                if await in_thread(partial(self._take, opened.intake, piece)):
                    break
            else:
                await in_thread(partial(self._end, opened.intake))
        if self.spool is not None:
            await in_thread(self.spool.end)
        report = self.report()
        if report.rows == 0:
            last = self.judge.last if self.judge is not None else 0
            raise fault(f"from_row is {self.choices.from_row:,}, and the source ends with row {last:,}.")
        if self.choices.bad_rows == "refuse" and report.refused_by_check:
            count = report.refused_by_check
            raise fault(
                f"{count:,} of {report.rows:,} rows {'is' if count == 1 else 'are'} not fit to be sent.",
                advice="error.report.problems has the rows and the reasons.",
                report=report,
            )

    def report(self) -> UploadReport:
        """What is known so far."""
        judge, choices = self.judge, self.choices
        return UploadReport(
            rows=0 if judge is None else judge.rows,
            from_row=choices.from_row,
            dry_run=choices.dry_run,
            refused_by_check=0 if judge is None else judge.refused,
            problems=tuple(self.problems.kept),
            problems_total=self.problems.total,
            chunks=tuple(
                UploadChunk(number=number, first_row=kept.first_row, last_row=kept.last_row, rows=kept.rows)
                for number, kept in enumerate(self.spool.chunks if self.spool is not None else (), start=1)
            ),
        )

    def _take(self, intake: Intake, piece: object) -> bool:
        """Whether that was all that is wanted."""
        self._judge(intake, intake.feed(piece))
        return self.judge is not None and self.judge.ended

    def _end(self, intake: Intake) -> None:
        self._judge(intake, intake.end())

    def _judge(self, intake: Intake, batch: Batch) -> None:
        columns, choices = intake.columns, self.choices
        if columns is None:
            return
        if self.judge is None:
            self.spool = Spool(
                choices.spool, columns.names, rows_per_chunk=choices.rows_per_chunk, chunk_bytes=choices.chunk_bytes
            )
            self.judge = Judge(
                columns,
                self.spool,
                self.problems,
                from_row=choices.from_row,
                to_row=choices.to_row,
                max_cell_bytes=choices.max_cell_bytes,
                unique=choices.unique,
            )
        self.judge.take(batch)


@define
class _Sending:
    """The requests. The first failure is the last request: what comes after it stays in the report as not sent."""

    _session: Session
    _ids: Mapping[str, object]
    _work: _Pass
    _options: CallOptions | None
    _chunks: list[UploadChunk] = field(init=False, factory=list[UploadChunk])
    _refused: int = field(init=False, default=0)
    _next: int = field(init=False, default=0)
    _failure: NudgescribeError | None = field(init=False, default=None)
    _closed: ClientClosedError | None = field(init=False, default=None)

    async def run(self) -> UploadReport:
        """Send all chunks, or as many as can be.

        Raises:
            ClientClosedError: the client was closed meanwhile; its ``report`` says what is known.
        """
        choices, report = self._work.choices, self._work.report()
        if choices.dry_run or self._work.spool is None:
            return report
        checked_problems = len(report.problems)
        self._chunks = list(report.chunks)
        workers = min(choices.concurrency, len(self._chunks))
        if workers <= 1:
            await self._send_on(self._work.spool)
        else:
            await _all([self._send_on(self._work.spool) for _ in range(workers)])
        problems = self._work.problems
        late = sorted(problems.kept[checked_problems:], key=lambda problem: problem.row or 0)
        report = evolve(
            report,
            refused_by_service=self._refused,
            problems=(*problems.kept[:checked_problems], *late),
            problems_total=problems.total,
            chunks=tuple(self._chunks),
            failure=self._failure,
        )
        if self._closed is not None:
            self._closed.report = report
            raise self._closed
        return report

    async def _send_on(self, spool: Spool) -> None:
        while self._failure is None and self._next < len(self._chunks):
            index = self._next
            self._next += 1
            try:
                known = await self._send(spool, index)
            except NudgescribeError as error:
                self._fail(index, error)
                continue
            except BaseException as error:
                # Cut off: nobody waits for the report, so this is the last chance to tell.
                self._settle(index, {"state": "unknown", "error": f"The upload was ended: {type(error).__name__}."})
                raise
            self._settle(index, known)

    def _fail(self, index: int, error: NudgescribeError) -> None:
        if self._failure is None:
            self._failure = error
        if isinstance(error, ClientClosedError) and self._closed is None:
            self._closed = error
        state: Literal["unknown", "refused", "not_sent"] = "not_sent"
        if error.may_have_taken_effect:
            state = "unknown"
        elif isinstance(error, APIStatusError):
            state = "refused"
        self._settle(index, {"state": state, "error": str(error), "request_id": error.request_id})

    def _settle(self, index: int, known: Mapping[str, Any]) -> None:
        chunk = self._chunks[index] = evolve(self._chunks[index], **known)
        if self._work.choices.on_chunk is not None:
            self._work.choices.on_chunk(chunk)

    async def _send(self, spool: Spool, index: int) -> dict[str, Any]:
        kept = spool.chunks[index]
        for pause in (*PAUSES, None):
            try:
                answer = await self._session.exchange(CHECK, {**self._ids, "file": spool.body(kept)}, self._options)
                receipt = self._session.decode(CHECK, answer)
                _check_receipt(receipt, answer.request_id)
                return {"request_id": answer.request_id, **await self._read(spool, kept, receipt)}
            except NudgescribeError as error:
                final = isinstance(error, ClientClosedError | DeadlineExceededError) or pause is None
                if final or not error.may_have_taken_effect or not self._work.choices.repeat_unknown:
                    raise
                await asyncio.sleep(cast("float", pause))
        raise AssertionError("the last round returns or raises")  # pragma: no cover

    async def _read(self, spool: Spool, kept: Kept, receipt: UploadReceipt) -> dict[str, Any]:
        """What a receipt says of a chunk, compared with what was sent."""
        errors = receipt.errors or []
        named = sorted({error.row for error in errors if error.row is not None and 1 <= error.row <= kept.rows})
        places = dict(zip(named, await in_thread(partial(spool.places, kept, named)), strict=True)) if named else {}
        for error in errors:
            row, line = (None, None) if error.row is None else places.get(error.row, (None, None))
            reason = (error.message or "refused without a reason")[:_LONGEST_REASON]
            self._work.problems.add(RowProblem(row=row, line=line, field=error.field, reason=reason, by="service"))
        accepted, rejected = receipt.accepted_count, receipt.rejected_count
        self._refused += len(named) if rejected is None else rejected
        nameless = sum(error.row not in places for error in errors)
        unexplained = max((rejected or 0) - len(named), 0)
        return {
            "state": "sent",
            "accepted": accepted,
            "rejected": rejected,
            "unexplained": unexplained,
            "job_uid": receipt.job_uid,
            "remark": " ".join(_remarks(receipt, kept.rows, len(named), nameless, unexplained)),
        }


def _remarks(receipt: UploadReceipt, rows: int, named: int, nameless: int, unexplained: int) -> list[str]:
    accepted, rejected = receipt.accepted_count, receipt.rejected_count
    remarks: list[str] = []
    if receipt.success is False:
        remarks.append('The service said "success": false.')
    if accepted is None or rejected is None:
        if accepted != rows:
            remarks.append("The service did not say how many rows it took and how many it refused.")
    elif accepted + rejected != rows:
        remarks.append(f"The service took {accepted:,} and refused {rejected:,} rows, and was sent {rows:,}.")
    if unexplained:
        remarks.append(f"The service gave no reason for {unexplained:,} of the rows that it refused.")
    if rejected is not None and named > rejected:
        remarks.append(f"The service named {named:,} rows, and said that it refused {rejected:,}.")
    if nameless:
        remarks.append(f"{nameless:,} reasons of the service name no row of the chunk.")
    return remarks


def _check_receipt(receipt: UploadReceipt, request_id: str | None) -> None:
    """Refuse one that says "no success" and nothing else."""
    if receipt.success is False and receipt.accepted_count is None and receipt.rejected_count is None:
        error = OutcomeUnknownError(
            'The service said "success": false, and not what became of the rows.',
            operation=CHECK.operation,
            request_id=request_id,
        )
        error.may_have_taken_effect, error.look = True, CHECK.look
        error.advice = f"Look with {CHECK.look} before you send them again."
        raise error


async def _all(work: Sequence[object]) -> None:
    """Run them side by side. If one fails, the others are cancelled, and waited for."""
    tasks = [asyncio.ensure_future(cast("asyncio.Future[None]", item)) for item in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _checked_fields(fields: Sequence[str]) -> tuple[str, ...]:
    if isinstance(fields, str) or not all(isinstance(name, str) for name in fields):
        raise TypeError("fields must be a list of names of profile fields.")
    names = tuple(name.strip() for name in fields)
    if not names or not all(names) or len(set(names)) < len(names):
        raise ValueError("fields must name at least one profile field, and none twice or with an empty name.")
    return names


def _check_delimiter(delimiter: object) -> None:
    if not isinstance(delimiter, str):
        raise TypeError(f"delimiter must be a text, not {type(delimiter).__name__}.")
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise ValueError("delimiter must be one character, and neither a quote nor a line break.")
