"""The log as the page shows it: numbered from the first request of the sandbox on, masked, shortened."""

from __future__ import annotations

import asyncio
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from attrs import frozen

from nudgescribe_async.sandbox.page.masking import body_text, mask, on_one_line, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from nudgescribe_async.sandbox.api import Api
    from nudgescribe_async.sandbox.values import LogRecord

_BODY_LIMIT = 2_000  # characters
_PATH_LIMIT = 200
_KEPT = 200  # rows that are made once, whoever looks at them

OUTCOMES = {
    "failed": "refused, failed or without an answer",
    "faults": "befallen by a fault",
    "changes": "that changed something",
}


@frozen(kw_only=True)
class Row:
    """One request.

    Attributes:
        number: counted from 1, in the order in which the requests were answered.
        outcome: what the status means, in words; empty if all is well.
        body: what was sent, masked and shortened; ``None`` if it is not known.
    """

    number: int
    operation: str | None
    method: str
    path: str
    status: int
    outcome: str
    when: datetime
    milliseconds: float
    request_id: str
    storage: bool
    body: str | None
    whole: bool
    fault: str | None
    effect: bool


class Record:
    """The log of one sandbox.

    Args:
        api: whose log it is.
        secrets: what must not be shown.
    """

    def __init__(self, api: Api, secrets: Callable[[], Collection[str]]) -> None:
        self._api = api
        self._secrets = secrets
        self._rows: dict[int, Row] = {}

    @property
    def total(self) -> int:
        """How many requests there have been, which is the number of the last one."""
        return self._api.counts.total()

    async def newest(self, most: int, *, after: int = 0, before: int | None = None) -> list[Row]:
        """The last requests, newest first: those with numbers above ``after`` and below ``before``."""
        return await self.search(most, lambda _: True, after=after, before=before)

    async def search(
        self, most: int, wanted: Callable[[LogRecord], bool], *, after: int = 0, before: int | None = None
    ) -> list[Row]:
        """The same, of those that are wanted. Between any two of them, the service has its turn."""
        last = self.total
        end = last + 1 if before is None else max(min(before, last + 1), 1)
        numbered = ((last - index, record) for index, record in enumerate(reversed(self._api.log)))
        new = takewhile(lambda pair: pair[0] > after, numbered)
        found = ((number, record) for number, record in new if number < end and wanted(record))
        return [await self._row(number, record) for number, record in [*islice(found, most)]]

    async def _row(self, number: int, record: LogRecord) -> Row:
        row = self._rows.get(number)
        if row is None:
            row = self._rows[number] = _row(number, record, self._secrets())
            while len(self._rows) > _KEPT:
                del self._rows[next(iter(self._rows))]
            await asyncio.sleep(0)
        return row


def wants(operation: str | None, outcome: str | None) -> Callable[[LogRecord], bool]:
    """What a search looks for."""

    def wanted(record: LogRecord) -> bool:
        if operation and record.operation != operation:
            return False
        match outcome:
            case "failed":
                return record.status == 0 or record.status >= 400
            case "faults":
                return record.fault is not None
            case "changes":
                return record.effect
            case _:
                return True

    return wanted


def _outcome(status: int) -> str:
    if status == 0:
        return "no answer"
    if status >= 500:
        return "failed"
    if status >= 400:
        return "refused"
    return ""


def _row(number: int, record: LogRecord, secrets: Collection[str]) -> Row:
    body: str | None = None
    whole = True
    if record.body is not None:
        body, whole = body_text(record.body, 2 * _BODY_LIMIT)
        body = mask(body, secrets)
        whole = whole and len(body) <= _BODY_LIMIT
        body = shortened(body, _BODY_LIMIT)
    return Row(
        number=number,
        operation=record.operation,
        method=record.method,
        path=shortened(mask(on_one_line(record.path), secrets), _PATH_LIMIT),
        status=record.status,
        outcome=_outcome(record.status),
        when=record.when,
        milliseconds=record.seconds * 1_000,
        request_id=record.request_id,
        storage=record.origin == "storage",
        body=body,
        whole=whole,
        fault=record.fault,
        effect=record.effect,
    )
