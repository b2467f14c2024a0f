"""An upload from its source to its report: one pass that checks and keeps, then one request after the other.

Nothing is sent before the pass has ended well. After that, what is known is never lost: a report is returned whatever
becomes of the requests, and each of them is told to ``on_chunk`` when it ends.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from attrs import define, evolve, field, frozen

from nudgescribe_async.arguments import check_delimiter, check_encoding, check_flag, check_whole, kind
from nudgescribe_async.bulk.upload.faults import fault
from nudgescribe_async.bulk.upload.header import match
from nudgescribe_async.bulk.upload.intake import CsvIntake, MappingIntake, TableIntake
from nudgescribe_async.bulk.upload.judge import Judge, Problems
from nudgescribe_async.bulk.upload.report import RowProblem, UploadChunk, UploadReport, counted, reasons
from nudgescribe_async.bulk.upload.rules import rules_of
from nudgescribe_async.bulk.upload.sources import Kind, Source
from nudgescribe_async.bulk.upload.spool import Spool
from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.customer_groups import LIST as LIST_GROUPS
from nudgescribe_async.endpoints.customers import CHECK
from nudgescribe_async.endpoints.profile_fields import LIST as LIST_FIELDS
from nudgescribe_async.errors import (
    APIStatusError,
    ClientClosedError,
    DeadlineExceededError,
    NudgescribeError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RequestNotSentError,
)
from nudgescribe_async.options import bulk
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
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
_LOGGER = logging.getLogger("nudgescribe_async")
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
        """
        names = None if fields is None else _checked_fields(fields)
        self = cls(encoding=check_encoding(encoding), fields=names, **others)  # type: ignore[arg-type]  # checked below
        check_delimiter(self.delimiter)
        for name in ("from_row", "rows_per_chunk", "chunk_bytes", "max_cell_bytes", "concurrency"):
            check_whole(name, getattr(self, name), "a whole number, 1 or more", least=1)
        check_whole("keep_problems", self.keep_problems, "a whole number, 0 or more", least=0)
        for name in ("validate", "dry_run", "repeat_unknown"):
            check_flag(name, getattr(self, name))
        if self.to_row is not None:
            check_whole("to_row", self.to_row, "a whole number, 1 or more, or None for the last row", least=1)
            if self.to_row < self.from_row:
                raise ValueError(f"to_row ({self.to_row}) is before from_row ({self.from_row}).")
        if self.bad_rows not in {"skip", "refuse"}:
            raise ValueError(f"bad_rows must be 'skip' or 'refuse'; got {self.bad_rows!r}.")
        if self.unique is not None and not isinstance(self.unique, str):
            raise TypeError(f"unique must be the name of a field, not {type(self.unique).__name__}.")
        if self.spool is not None and not isinstance(self.spool, str | os.PathLike):
            raise TypeError(f"spool must be the path of a folder, not {kind(self.spool)}.")
        if self.on_chunk is not None and (not callable(self.on_chunk) or inspect.iscoroutinefunction(self.on_chunk)):
            what = "a coroutine function" if callable(self.on_chunk) else kind(self.on_chunk)
            raise TypeError(f"on_chunk must be a plain function, not {what}.")
        return self

    def csv(self) -> Intake:
        """For bytes."""
        return CsvIntake(
            self._match,
            encoding=self.encoding,
            delimiter=self.delimiter,
            max_cell_bytes=self.max_cell_bytes,
            from_row=self.from_row,
            to_row=self.to_row,
        )

    def mappings(self) -> Intake:
        """For lists of mappings."""
        return MappingIntake(self._match, wanted=self.fields, from_row=self.from_row)

    def table(self) -> Intake:
        """For parts of tables."""
        return TableIntake(self._match)

    def _match(self, header: Sequence[str], line: int | None) -> Columns:
        columns = match(header, self.rules, self.fields, line=line)
        if self.unique is not None and self.unique not in columns.names:
            raise fault(f"The source has no column {self.unique!r}, which unique= names.", line=line, field=self.unique)
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
    checked_source = Source(source, choices)  # what cannot be right is told before anything is asked of the service
    if choices.validate:
        try:
            await _check_group(session, ids, options)
            fields = await session.call(LIST_FIELDS, {"workspace_id": workspace_id}, options)
        except BaseException:
            await checked_source.discard()
            raise
        choices = evolve(choices, rules=rules_of(fields))
    work = _Pass(choices)
    try:
        await work.run(source)
        return await _Sending(session, ids, work, options).run()
    finally:
        if work.spool is not None:
            await in_thread(work.spool.close)


async def _check_group(session: Session, ids: Mapping[str, object], options: CallOptions | None) -> None:
    """Notice a wrong group before a large source is read for nothing. Who may not see the groups is let through."""
    try:
        groups = await session.call(LIST_GROUPS, {"workspace_id": ids["workspace_id"]}, options)
    except PermissionDeniedError:
        return
    if all(group.customer_group_id != ids["customer_group_id"] for group in groups):
        raise fault(
            "customer_group_id: the workspace has no such customer group.",
            advice="customer_groups.list has those that it has.",
        )


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
                f"{count:,} of {counted(report.rows, 'row')} {'is' if count == 1 else 'are'} not fit to be sent"
                f"{reasons(report.problems, report.problems_total)}",
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
    _touched: set[int] = field(init=False, factory=set[int])
    """The chunks of which a request has ended such that they may have taken effect."""
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
        try:
            if workers <= 1:
                await self._send_on(self._work.spool)
            else:
                await _all([self._send_on(self._work.spool) for _ in range(workers)])
        except BaseException as error:
            # Nobody gets a report: what is known of the rows goes along with what ended it.
            error.add_note(_account(self._chunks, choices.to_row))
            raise
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
                state = "unknown" if index in self._touched or _may_have_taken_effect(error) else "not_sent"
                self._settle(index, {"state": state, "error": f"The upload was ended: {type(error).__name__}."})
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
        if self._work.choices.on_chunk is None:
            return
        try:
            self._work.choices.on_chunk(chunk)
        except Exception:  # whatever it does wrong is its own affair
            _LOGGER.exception("on_chunk failed.")

    async def _send(self, spool: Spool, index: int) -> dict[str, Any]:
        kept = spool.chunks[index]
        pauses = iter(PAUSES if self._work.choices.repeat_unknown else ())
        lost: NudgescribeError | None = None
        while True:
            try:
                answer = await self._session.exchange(CHECK, {**self._ids, "file": spool.body(kept)}, self._options)
                self._touched.add(index)
                receipt = self._session.decode(CHECK, answer)
                _check_receipt(receipt, answer.request_id)
                return {"request_id": answer.request_id, **await self._read(spool, kept, receipt)}
            except OSError as error:  # of the spool, in the middle of the body
                why = f"The kept rows could not be read: {error.strerror or error}."
                raise _unknown(why, None) from error
            except NudgescribeError as error:
                final = not error.may_have_taken_effect or isinstance(error, ClientClosedError | DeadlineExceededError)
                pause = None if final else next(pauses, None)
                if pause is None:
                    raise _with_lost(error, lost) from error.__cause__
                lost = error
            self._touched.add(index)
            await asyncio.sleep(pause)

    async def _read(self, spool: Spool, kept: Kept, receipt: UploadReceipt) -> dict[str, Any]:
        """What a receipt says of a chunk, compared with what was sent."""
        errors = receipt.errors or []
        named = sorted({error.row for error in errors if error.row is not None and 1 <= error.row <= kept.rows})
        places: dict[int, tuple[int, int | None]] = {}
        unread: list[str] = []
        if named:
            try:
                places = dict(zip(named, await in_thread(partial(spool.places, kept, named)), strict=True))
            except OSError:  # the chunk has been sent, and that must not get lost with the places
                unread = ["Which rows of the source the service refused could not be read from the kept rows."]
        for error in errors:
            row, line = (None, None) if error.row is None else places.get(error.row, (None, None))
            reason = (error.message or "refused without a reason")[:_LONGEST_REASON]
            self._work.problems.add(RowProblem(row=row, line=line, field=error.field, reason=reason, by="service"))
        accepted, rejected = _count(receipt.accepted_count), _count(receipt.rejected_count)
        self._refused += len(named) if rejected is None else rejected
        own = frozenset(named)
        nameless = sum(error.row not in own for error in errors)
        unexplained = max((rejected or 0) - len(named), 0)
        return {
            "state": "sent",
            "accepted": accepted,
            "rejected": rejected,
            "unexplained": unexplained,
            "job_uid": receipt.job_uid,
            "remark": " ".join(_remarks(receipt, kept.rows, len(named), nameless, unexplained) + unread),
        }


def _remarks(receipt: UploadReceipt, rows: int, named: int, nameless: int, unexplained: int) -> list[str]:
    accepted, rejected = _count(receipt.accepted_count), _count(receipt.rejected_count)
    remarks: list[str] = []
    if (accepted, rejected) != (receipt.accepted_count, receipt.rejected_count):
        remarks.append("The service gave a number of rows below zero, which does not count.")
    if receipt.success is False:
        remarks.append('The service said "success": false.')
    if accepted is None or rejected is None:
        if accepted != rows:
            remarks.append("The service did not say how many rows it took and how many it refused.")
    elif accepted + rejected != rows:
        remarks.append(f"The service took {accepted:,} and refused {counted(rejected, 'row')}, and was sent {rows:,}.")
    if unexplained:
        remarks.append(f"The service gave no reason for {unexplained:,} of the rows that it refused.")
    if rejected is not None and named > rejected:
        remarks.append(f"The service named {counted(named, 'row')}, and said that it refused {rejected:,}.")
    if nameless:
        remarks.append(
            f"Of the service's reasons, {nameless:,} {'names' if nameless == 1 else 'name'} no row of the chunk."
        )
    return remarks


def _count(number: int | None) -> int | None:
    """How many rows, if the service said so in earnest."""
    return None if number is None or number < 0 else number


def _account(chunks: Sequence[UploadChunk], to_row: int | None = None) -> str:
    """What is known when there is no report, and how to go on."""
    names = {
        "sent": "were sent",
        "unknown": "may have been sent",
        "refused": "were refused",
        "not_sent": "were not sent",
    }
    parts = [
        f"rows {_spans([chunk for chunk in chunks if chunk.state == state])} {name}"
        for state, name in names.items()
        if any(chunk.state == state for chunk in chunks)
    ]
    begun = max((index for index, chunk in enumerate(chunks) if chunk.state != "not_sent"), default=-1)
    steps = [
        (f"look whether rows {_spans([chunk])} are in the group, and if not " if chunk.state == "unknown" else "")
        + f"upload the source with from_row={chunk.first_row}, to_row={chunk.last_row}"
        for chunk in chunks[: begun + 1]
        if chunk.state in {"unknown", "not_sent"}
    ]
    end = "" if to_row is None else f", to_row={to_row}"
    steps += [f"go on with from_row={chunk.first_row}{end}" for chunk in chunks[begun + 1 : begun + 2]]
    return f"customers.upload: {', '.join(parts)}. Then: {'; '.join(steps) or 'nothing is left to send'}."


def _spans(chunks: Sequence[UploadChunk]) -> str:
    """Their rows, those that follow each other as one."""
    spans: list[tuple[int, int, int]] = []
    for chunk in chunks:
        if spans and spans[-1][2] + 1 == chunk.number:
            spans[-1] = (spans[-1][0], chunk.last_row, chunk.number)
        else:
            spans.append((chunk.first_row, chunk.last_row, chunk.number))
    return " and ".join(f"{first} to {last}" for first, last, _ in spans)


def _check_receipt(receipt: UploadReceipt, request_id: str | None) -> None:
    """Refuse one that says "no success" and nothing else."""
    if receipt.success is False and _count(receipt.accepted_count) is None and _count(receipt.rejected_count) is None:
        raise _unknown('The service said "success": false, and not what became of the rows.', request_id)


def _unknown(message: str, request_id: str | None) -> OutcomeUnknownError:
    error = OutcomeUnknownError(message, operation=CHECK.operation, request_id=request_id)
    error.may_have_taken_effect, error.look = True, CHECK.look
    error.advice = f"Look with {CHECK.look} before you send them again."
    return error


def _with_lost(error: NudgescribeError, lost: NudgescribeError | None) -> NudgescribeError:
    """The error of a chunk that may have taken effect before, be it that this request has not."""
    if lost is None or error.may_have_taken_effect:
        return error
    if isinstance(error, RequestNotSentError):  # whose class says that nothing has happened
        error = OutcomeUnknownError(
            error.message, operation=error.operation, request_id=error.request_id, attempts=error.attempts
        )
    error.message = f"An earlier attempt was sent, and its outcome is not known. {error.message}"
    error.may_have_taken_effect, error.look, error.advice = True, lost.look, lost.advice
    return error


def _may_have_taken_effect(error: BaseException) -> bool:
    """Whether a request under way may have, when this ended it. The session says so of a cancelled one in a note."""
    return not isinstance(error, asyncio.CancelledError) or any(
        "may have taken effect" in note for note in getattr(error, "__notes__", ())
    )


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
