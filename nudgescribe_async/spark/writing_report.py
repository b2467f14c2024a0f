"""What became of the rows that Spark wrote: of one partition, and of all of them.

Nothing of a customer is in it. The service's own words about a row may repeat its values, so they are left out; what the
check says of a row repeats none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from attrs import asdict, frozen

from nudgescribe_async.bulk.files import replace_file
from nudgescribe_async.bulk.upload.report import counted
from nudgescribe_async.errors import NudgescribeError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from nudgescribe_async.bulk.upload import RowProblem, UploadReport

__all__ = ["PartitionReport", "RefusedRow", "WriteReport", "account"]

_OPERATION = "customers.upload"
_REFUSED_BY_SERVICE = "refused by the service"
_SHOWN = 3  # refused rows, and failures, in the text of an error
_NAMED = 10  # partitions there
_STATES = {
    "sent": "were sent",
    "unknown": "may have been sent",
    "refused": "were refused as a whole",
    "not_sent": "were not sent",
}
_COUNTS = ("rows", "accepted", "queued", "refused_by_check", "refused_by_service", "unknown", "not_sent")


@frozen(kw_only=True)
class RefusedRow:
    """A reason why a row was refused; a row may have several.

    Attributes:
        row: counts from 1 within the partition. ``None`` where the service named none.
        place: what Spark's ``monotonically_increasing_id()`` gives for that row.
        field: the profile field; ``None`` if it is about the whole row.
        reason: what is wrong, without the value; of the service, only that it was refused.
        by: ``"check"`` for the check before sending, ``"service"`` for the service.
    """

    row: int | None
    place: int | None
    field: str | None
    reason: str
    by: Literal["check", "service"]

    @classmethod
    def of(cls, problem: RowProblem, *, partition: int, fields: Collection[str]) -> RefusedRow:
        """Of a problem that an upload has reported.

        Args:
            problem: it; its row counts within the partition.
            partition: the number of the partition.
            fields: the columns that were sent: whatever else the service may call a field is left out.
        """
        return cls(
            row=problem.row,
            # Spark has the partition in the upper bits, and the row in the lower 33.
            place=None if problem.row is None else (partition << 33) + problem.row - 1,
            field=problem.field if problem.field in fields else None,
            reason=problem.reason if problem.by == "check" else _REFUSED_BY_SERVICE,
            by=problem.by,
        )


@frozen(kw_only=True)
class PartitionReport:
    """What became of the rows of one partition. It pickles.

    Attributes:
        partition: its number, from 0.
        attempt: which attempt of Spark's it was, from 0.
        rows: how many it has.
        accepted: rows that the service said it took, those that it queued included.
        queued: rows that it took, and that appear among the customers only later.
        refused_by_check: rows that were not fit to be sent.
        refused_by_service: rows that the service refused, as far as it said.
        unknown: rows in requests that may have had an effect, or not.
        not_sent: rows in requests that had none.
        requests: how many there were, or in a dry run would be.
        job_uids: the jobs of what was queued.
        remarks: what does not fit in the service's answers.
        reasons: how many reasons for refused rows there were.
        refused: the first of them.
        failure: what ended the sending, as a sentence.
    """

    partition: int
    attempt: int = 0
    rows: int = 0
    accepted: int = 0
    queued: int = 0
    refused_by_check: int = 0
    refused_by_service: int = 0
    unknown: int = 0
    not_sent: int = 0
    requests: int = 0
    job_uids: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    reasons: int = 0
    refused: tuple[RefusedRow, ...] = ()
    failure: str | None = None

    @classmethod
    def of(
        cls, report: UploadReport, *, partition: int, attempt: int, refused_row: Callable[[RowProblem], RefusedRow]
    ) -> PartitionReport:
        """Of the upload of one partition. ``failure`` is left to the caller."""
        return cls(
            partition=partition,
            attempt=attempt,
            rows=report.rows,
            accepted=report.accepted,
            queued=report.queued,
            refused_by_check=report.refused_by_check,
            refused_by_service=report.refused_by_service,
            unknown=sum(chunk.rows for chunk in report.unknown),
            not_sent=0 if report.dry_run else sum(chunk.rows for chunk in report.not_sent),
            requests=len(report.chunks),
            job_uids=tuple(chunk.job_uid for chunk in report.chunks if chunk.job_uid is not None),
            remarks=report.remarks,
            reasons=report.problems_total,
            refused=tuple(map(refused_row, report.problems)),
        )


@frozen(kw_only=True)
class WriteReport:
    """What became of a whole write.

    Attributes:
        workspace_id: the workspace.
        customer_group_id: the group.
        dry_run: whether nothing was to be sent.
        partitions: the report of each partition; ``None`` of one that gave none, since its task failed, or was ended
            because another one had. Rows of it may have been written all the same.
    """

    workspace_id: str
    customer_group_id: str
    dry_run: bool = False
    partitions: tuple[PartitionReport | None, ...]

    @property
    def known(self) -> tuple[PartitionReport, ...]:
        """The reports that there are."""
        return tuple(partition for partition in self.partitions if partition is not None)

    @property
    def without_report(self) -> tuple[int, ...]:
        """The numbers of the partitions that gave none."""
        return tuple(number for number, partition in enumerate(self.partitions) if partition is None)

    @property
    def failed(self) -> tuple[PartitionReport, ...]:
        """The partitions of which the sending ended before its end."""
        return tuple(partition for partition in self.known if partition.failure is not None)

    @property
    def refused(self) -> int:
        """How many rows were refused, by the check or by the service."""
        return self._total("refused_by_check") + self._total("refused_by_service")

    @property
    def state(self) -> Literal["written", "dry run", "failed"]:
        """Whether all that was fit to be written is. Rows may have been refused."""
        if self.without_report or self.failed:
            return "failed"
        return "dry run" if self.dry_run else "written"

    def __str__(self) -> str:
        rows, accepted, queued, by_check, by_service, unknown, not_sent = map(self._total, _COUNTS)
        parts = [counted(rows, "row"), "nothing was sent (dry run)" if self.dry_run else f"{accepted:,} accepted"]
        parts += [f"{queued:,} of them queued: they appear later"] if queued else []
        parts += [f"{by_check:,} refused by the check"]
        parts += [] if self.dry_run else [f"{by_service:,} by the service"]
        parts += [f"{unknown:,} unknown"] if unknown else []
        parts += [f"{not_sent:,} not sent"] if not_sent else []
        text = f"{', '.join(parts)}; {counted(len(self.partitions), 'partition')}"
        if not self.without_report:
            return f"{text}."
        named = ", ".join(map(str, self.without_report[:_NAMED]))
        more = f" and {len(self.without_report) - _NAMED:,} more" if len(self.without_report) > _NAMED else ""
        return f"{text}, of which {named}{more} gave no account: rows of it may have been written all the same."

    def raise_for_failures(self, *, refused: bool) -> None:
        """Raise what ended the sending of partitions; or that rows were refused, if that is a failure.

        Raises:
            NudgescribeError: with the counts, and the first three of what it is about.
        """
        if self.failed:
            shown = [f"Partition {one.partition}: {one.failure}" for one in self.failed[:_SHOWN]]
            more = len(self.failed) - len(shown)
            error = NudgescribeError(
                f"The sending of {counted(len(self.failed), 'partition')} broke off. {self} {' '.join(shown)}"
                f"{f' And {more:,} more.' if more else ''}",
                operation=_OPERATION,
            )
            error.may_have_taken_effect = self._total("accepted") + self._total("unknown") > 0
            raise error
        if refused and self.refused:
            would = "would be" if self.dry_run else "were"
            error = NudgescribeError(
                f"{self.refused:,} of {counted(self._total('rows'), 'row')} {would} refused{self._reasons()}. {self}",
                operation=_OPERATION,
            )
            error.advice = "The option report keeps all of that in a file; with refused_rows=report it is no failure."
            error.may_have_taken_effect = self._total("accepted") > 0
            raise error

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {
            "state": self.state,
            "workspace_id": self.workspace_id,
            "customer_group_id": self.customer_group_id,
            **{name: self._total(name) for name in _COUNTS},
            "without_report": list(self.without_report),
            "partitions": [asdict(partition) for partition in self.known],
        }

    def write(self, path: Path) -> None:
        """Write it to a file as JSON; one that is there is replaced."""
        replace_file(path, json.dumps(self.as_dict(), indent=1).encode())

    def _total(self, name: str) -> int:
        return sum(getattr(partition, name) for partition in self.known)

    def _reasons(self) -> str:
        rows = [(one.partition, refused) for one in self.known for refused in one.refused][:_SHOWN]
        shown = [
            ", ".join(
                [
                    f"partition {partition}",
                    *([] if refused.row is None else [f"row {refused.row:,}"]),
                    *([] if refused.field is None else [f"field {refused.field!r}"]),
                ]
            )
            + f": {refused.reason}"
            for partition, refused in rows
        ]
        left = self._total("reasons") - len(shown)
        more = [f"and {counted(left, 'more reason')}"] if shown and left > 0 else []
        return f": {'; '.join([*shown, *more])}" if shown else ""


def account(report: UploadReport) -> str:
    """What is known of an upload that did not come to its end, as a sentence."""
    rows = {state: sum(chunk.rows for chunk in report.chunks if chunk.state == state) for state in _STATES}
    parts = [f"{rows[state]:,} {text}" for state, text in _STATES.items() if rows[state]]
    return f"Of {counted(report.rows, 'row')}, {', '.join(parts) or 'none was sent'}."
