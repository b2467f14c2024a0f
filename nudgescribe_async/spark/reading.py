"""What the driver asks before a read is divided, and what a task does with its share. Knows nothing of Spark.

A range of pages is a set of pages of its own to the page engine, whose first page is the first of the range. So a task has
all that the engine does: pages side by side, in order, bounded, tried again, and watched for changes. What only shows beyond
the range, another number of pages than was planned with, is looked for when the range has been read.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from itertools import count, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from attrs import define, evolve, field

from nudgescribe_async.endpoints.models import CampaignStatus
from nudgescribe_async.errors import ConfigurationError, PageDriftError, PageError
from nudgescribe_async.events import PagesDrifted
from nudgescribe_async.message_file import Rows
from nudgescribe_async.options import CallOptions, Priority
from nudgescribe_async.paging import PageIterator, PageSource
from nudgescribe_async.spark import columns
from nudgescribe_async.spark.job import Range, Share
from nudgescribe_async.spark.pace import Lane

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence

    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.cursor import PageCursor
    from nudgescribe_async.spark.columns import Field
    from nudgescribe_async.spark.job import Job

__all__ = ["Chunk", "chunks", "fields_of", "for_the_driver", "operation_of", "plan", "runs_with_files"]

ROWS: Final = 2_000
"""Rows from which on a batch is made; of customers it ends with a page."""

_BULK: Final = CallOptions(priority=Priority.BULK)
_OPERATIONS: Final[Mapping[str, str]] = {
    "customers": "customers.list",
    "messages": "messages.fetch",
    "campaigns": "campaigns.list",
    "groups": "customer_groups.list",
    "profile_fields": "profile_fields.list",
}
_FIELDS: Final[Mapping[str, tuple[Field, ...]]] = {
    "customers": columns.CUSTOMERS,
    "campaigns": columns.CAMPAIGNS,
    "groups": columns.GROUPS,
    "profile_fields": columns.PROFILE_FIELDS,
}


def operation_of(job: Job) -> str:
    """The operation that has the rows."""
    return _OPERATIONS[job.resource]


# --- on the driver ---------------------------------------------------------------------------------------------------


def for_the_driver(job: Job) -> Nudgescribe:
    """A client that keeps to the limits alone, before the tasks begin."""
    per_second = job.limits.per_second
    lane = None if per_second is None else Lane(number=0, lanes=1, per_second=per_second)
    return job.connection.new_client(lane=lane, concurrency=job.limits.concurrency or job.limits.parallelism)


async def fields_of(job: Job) -> tuple[Field, ...]:
    """All columns that a read has. Asks for the profile fields of the workspace, if they become columns."""
    if job.resource == "messages":
        return columns.message_fields(job.message_columns)
    if not job.profile_columns:
        return _FIELDS[job.resource]
    assert job.workspace_id is not None  # noqa: S101 - see Job.of
    async with for_the_driver(job) as ns:
        return columns.customer_fields(await ns.profile_fields.list(job.workspace_id, options=_BULK))


async def plan(job: Job) -> list[Share]:
    """Divide a read among tasks: ask how many pages there are."""
    if job.resource not in {"customers", "messages"}:
        return [Share()]
    async with for_the_driver(job) as ns:
        sets = await _sets(ns, job)
    return job.shares([left for each in sets if (left := _wanted(job, each)) is not None])


def _wanted(job: Job, pages: Range) -> Range | None:
    """What is left of a set; ``None`` if nothing is."""
    first, last = job.pages
    if not pages.pages:
        # Of customers without a page, page one is looked at all the same: it must not have items. Not by a read that
        # leaves it out: of two reads that divide the pages, each would have what came meanwhile.
        has_page_one = first <= pages.first and (last is None or last >= pages.first)
        return pages if job.resource == "customers" and has_page_one else None
    left = evolve(pages, first=max(first, pages.first), last=pages.last if last is None else min(last, pages.last))
    return left if len(left) else None


def _first_page(job: Job) -> int:
    # The contract: 1, assumed.
    return 1 if job.connection.first_page is None else job.connection.first_page


async def _sets(ns: Nudgescribe, job: Job) -> list[Range]:
    first = _first_page(job)
    if job.resource == "customers":
        assert job.customer_group_id is not None  # noqa: S101 - see Job.of
        pages = await ns.customers.count_pages(job.customer_group_id, options=_BULK)
        return [Range(first=first, last=first + pages - 1, first_of_all=first, pages=pages)]
    sets: list[Range] = []
    for campaign in job.campaign_ids:
        sets += await _runs(ns, job, campaign)
    return sets


async def _runs(ns: Nudgescribe, job: Job, campaign: str) -> list[Range]:
    """The runs that are asked for, each with its pages."""
    if not isinstance(job.runs, str):
        found = [await _run(ns, job, campaign, number) for number in job.runs]
        missing = next((each.run_number for each in found if not each.pages), None)
        if missing is not None:
            raise ConfigurationError(f"Run {missing} of campaign {campaign} has no files: it was not published.")
        return found
    # Named even if it is the current one, which may be another one in a minute.
    found = await runs_with_files(ns, job, campaign, only_latest=job.runs == "latest")
    if job.runs == "latest" and not found:
        raise ConfigurationError(f"No run of campaign {campaign} has files: none was published.")
    return found


async def _run(ns: Nudgescribe, job: Job, campaign: str, number: int) -> Range:
    pages, first = await ns.messages.count_pages(campaign, number, options=_BULK), _first_page(job)
    return Range(
        first=first,
        last=first + pages - 1,
        first_of_all=first,
        pages=pages,
        campaign_id=campaign,
        run_number=number,
    )


async def runs_with_files(
    ns: Nudgescribe,
    job: Job,
    campaign: str,
    *,
    after: int = 0,
    up_to: int | None = None,
    only_latest: bool = False,
) -> list[Range]:
    """The runs of a campaign that have files, the earliest first.

    Args:
        ns: the client.
        job: the read.
        campaign: the campaign.
        after: only runs after this one.
        up_to: no runs after this one.
        only_latest: only the last of them.
    """
    history = await ns.reruns.history(campaign, options=_BULK)
    newest = max((run.run_number for run in history), default=0)
    published = {
        run.run_number
        for run in history
        # Files come one after the other while a run is published; only a published one can have been followed by another.
        if run.run_number < newest or run.campaign_status in {None, CampaignStatus.PUBLISHED}
    }
    numbers = {number for number in published if after < number and (up_to is None or number <= up_to)}
    found: list[Range] = []
    for number in sorted(numbers, reverse=True):
        pages = await _run(ns, job, campaign, number)
        if pages.pages:
            found.append(pages)
            if only_latest:
                break
    return found[::-1]


# --- on an executor --------------------------------------------------------------------------------------------------


@define
class Chunk:
    """Items of about as many rows as a batch has, with the columns that are not in them.

    Attributes:
        items: the items.
        given: columns.
        attributes: whether the items are objects.
    """

    items: list[Any] = field(factory=list[Any])
    given: dict[str, list[Any]] = field(factory=dict[str, list[Any]])
    attributes: bool = False

    def add(self, items: Collection[Any], given: Mapping[str, Sequence[object]]) -> None:
        """Add items with columns of the same length."""
        self.items += items
        for name, cells in given.items():
            self.given.setdefault(name, []).extend(cells)


async def chunks(job: Job, share: Share) -> AsyncGenerator[Chunk, None]:
    """What a task reads: exactly the rows of its share, in their order, or an error.

    Raises:
        PageError: a page could not be had.
        PageDriftError: the set changed, and the read is strict.
        NudgescribeError: there is no token, or the answer of a resource without pages could not be had.
    """
    async with job.connection.new_client(
        lane=job.lane(share), concurrency=job.in_flight(share), decrypting=job.profile_columns
    ) as ns:
        if not share.ranges:
            yield await _without_pages(ns, job)
        for each in share.ranges:
            read = _customers if job.resource == "customers" else _messages
            async with aclosing(read(ns, job, share, each)) as found:
                async for chunk in found:
                    yield chunk


async def _without_pages(ns: Nudgescribe, job: Job) -> Chunk:
    if job.resource == "campaigns":
        return Chunk(columns.campaign_rows(await ns.campaigns.list(options=_BULK)))
    assert job.workspace_id is not None  # noqa: S101 - see Job.of
    ask = ns.customer_groups.list if job.resource == "groups" else ns.profile_fields.list
    return Chunk(columns.model_rows(await ask(job.workspace_id, options=_BULK)))


async def _customers(ns: Nudgescribe, job: Job, share: Share, pages: Range) -> AsyncGenerator[Chunk, None]:
    group = job.customer_group_id
    assert group is not None  # noqa: S101 - see Job.of
    reading = _Reading(
        ns,
        job,
        share,
        pages,
        fetch=lambda page: ns.customers.list(group, page, options=_BULK),
        decode=list[Any],
        ask=partial(ns.customers.count_pages, group, options=_BULK),
        identify=attrgetter("customer_id"),
    )
    chunk = Chunk(attributes=True)
    async with aclosing(reading.pages()) as found:
        async for number, items in found:
            chunk.add(items, {columns.PAGE: [number] * len(items)})
            if len(chunk.items) >= ROWS:
                yield chunk
                chunk = Chunk(attributes=True)
    if chunk.items:
        yield chunk


async def _messages(ns: Nudgescribe, job: Job, share: Share, pages: Range) -> AsyncGenerator[Chunk, None]:
    campaign, run = pages.campaign_id, pages.run_number
    assert campaign is not None  # noqa: S101 - see plan()
    reading = _Reading(
        ns,
        job,
        share,
        pages,
        fetch=lambda page: ns.messages.fetch(campaign, page, "csv", run, options=_BULK),
        decode=Rows,
        ask=partial(ns.messages.count_pages, campaign, run, options=_BULK),
        identify=None,
    )
    async with aclosing(reading.pages()) as found:
        async for number, items in found:
            rows, position = iter(items), count(1)
            while some := [*islice(rows, ROWS)]:
                size = len(some)
                chunk = Chunk()
                chunk.add(
                    columns.message_rows(some, job.message_columns),
                    {
                        "campaign_id": [campaign] * size,
                        "run_number": [run] * size,
                        columns.PAGE: [number] * size,
                        "position": [*islice(position, size)],
                    },
                )
                yield chunk


class _Reading:
    """A range, read by the page engine."""

    def __init__(
        self,
        ns: Nudgescribe,
        job: Job,
        share: Share,
        pages: Range,
        *,
        fetch: Callable[[int], Awaitable[Any]],
        decode: Callable[[Any], Collection[Any]],
        ask: Callable[[], Awaitable[int]],
        identify: Callable[[Any], str] | None,
    ) -> None:
        self._events = ns.events
        self._strict = job.strict
        self._pages = pages
        self._ask = ask
        self._operation = operation_of(job)
        self._even = identify is not None
        self._asked = False
        self._now: int | None = None
        """How many pages the set has by now, once somebody asked."""
        self._stream = PageIterator(
            PageSource(
                operation=self._operation,
                fetch=fetch,
                decode=decode,
                count=self._count,
                first_page=pages.first,
                identify=identify,
                even=self._even,
            ),
            concurrency=job.in_flight(share),
            consistency="strict" if job.strict else "warn",
            events=ns.events,
        )

    async def pages(self) -> AsyncGenerator[tuple[int, Collection[Any]], None]:
        """Each page with its number."""
        largest = latest = 0
        try:
            async with aclosing(self._stream.pages()) as found:
                async for page in found:
                    latest = len(page.items)
                    largest = max(largest, latest)
                    yield page.number, page.items
        except PageError as error:
            error.advice = "Spark tries the task again, as often as it is told to (spark.task.maxFailures)."
            raise
        if self._now is not None and self._now != self._pages.pages:
            self._drifted(
                f"There were {self._pages.pages:,} pages when the read was planned, and there are {self._now:,} now."
            )
        elif self._even and latest < largest and not self._pages.ends_the_set:
            self._drifted(f"Page {self._pages.last:,} has fewer items than others, and is not the last.")

    async def _count(self) -> int:
        """How many pages the range has: as many as planned, and later on, what is left of them in the set."""
        if not self._asked:
            self._asked = True
            return len(self._pages)
        self._now = await self._ask()
        if not self._pages.pages:
            return self._now
        return max(0, min(len(self._pages), self._pages.first_of_all + self._now - self._pages.first))

    def _drifted(self, sentence: str) -> None:
        if not self._strict:
            self._events.emit(PagesDrifted(operation=self._operation, drift=sentence))
            return
        cursor: PageCursor = self._stream.cursor
        failure = PageDriftError(
            f"The set changed while its pages were read. {sentence}",
            page=None,
            cursor=cursor,
            operation=self._operation,
        )
        failure.drift = sentence
        failure.advice = "Read it anew."
        raise failure
