"""What is to be read, as the options say it; and how it is divided among tasks. Pure values, which travel with the tasks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

from attrs import evolve, frozen

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.spark.connection import CONNECTION_OPTIONS, Connection
from nudgescribe_async.spark.options import Given
from nudgescribe_async.spark.pace import Lane

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["KNOWN", "STREAM_ONLY", "Job", "Limits", "Range", "Resource", "Runs", "Share", "divided"]

Resource: TypeAlias = Literal["customers", "messages", "campaigns", "groups", "profile_fields"]
Runs: TypeAlias = "tuple[int, ...] | Literal['latest', 'all']"

PARALLELISM: Final = 8
CONCURRENCY: Final = 4
"""Requests in flight of a task, if nothing is said."""

_EVERYWHERE: Final = CONNECTION_OPTIONS | {"resource", "columns", "requests_per_second", "concurrency"}
_PAGED: Final = _EVERYWHERE | {"parallelism", "pages_per_partition", "consistency", "pages"}
KNOWN: Final[Mapping[Resource, frozenset[str]]] = {
    "customers": _PAGED | {"customer_group_id", "workspace_id", "profile_columns"},
    "messages": _PAGED | {"campaign_id", "run_number", "message_columns"},
    "campaigns": _EVERYWHERE,
    "groups": _EVERYWHERE | {"workspace_id"},
    "profile_fields": _EVERYWHERE | {"workspace_id"},
}
STREAM_ONLY: Final = frozenset({"start_after", "poll_seconds"})
STREAM: Final = KNOWN["messages"] - {"run_number", "pages"} | STREAM_ONLY


@frozen(kw_only=True)
class Limits:
    """How hard the service may be asked, by all tasks of a read together.

    Attributes:
        parallelism: how many tasks read at once.
        concurrency: the most requests in flight; ``None`` for some of each task.
        per_second: the most requests a second; ``None`` for no limit.
    """

    parallelism: int = PARALLELISM
    concurrency: int | None = None
    per_second: float | None = None

    @classmethod
    def of(cls, given: Given) -> Limits:
        """The limits that options describe."""
        return cls(
            parallelism=given.whole("parallelism", most=100_000) or PARALLELISM,
            concurrency=given.whole("concurrency", most=100_000),
            per_second=given.number("requests_per_second"),
        )


@frozen(kw_only=True)
class Range:
    """Pages of one set, one after the other.

    Attributes:
        first: the first page.
        last: the last page; below ``first`` if there were none when the read was planned.
        first_of_all: the first page of the set.
        pages: how many pages the set had when the read was planned.
        campaign_id: whose messages; ``None`` for customers.
        run_number: of which run.
    """

    first: int
    last: int
    first_of_all: int = 1
    pages: int
    campaign_id: str | None = None
    run_number: int | None = None

    def __len__(self) -> int:
        return max(self.last - self.first + 1, 0)

    def __str__(self) -> str:
        of = f" of run {self.run_number} of campaign {self.campaign_id}" if self.campaign_id is not None else ""
        return f"pages {self.first} to {self.last} of {self.pages}{of}" if self.pages else f"no pages{of}"

    @property
    def ends_the_set(self) -> bool:
        """Whether no pages come after it."""
        return self.last >= self.first_of_all + self.pages - 1


@frozen(kw_only=True)
class Share:
    """What one task reads.

    Attributes:
        number: counts from 0.
        shares: how many there are.
        lanes: how many tasks read at once, at most.
        ranges: the pages; none if the resource has no pages.
    """

    number: int = 0
    shares: int = 1
    lanes: int = 1
    ranges: tuple[Range, ...] = ()

    def __str__(self) -> str:
        what = f" ({'; '.join(map(str, self.ranges))})" if self.ranges else ""
        return f"partition {self.number + 1} of {self.shares}{what}"


def divided(sets: Iterable[Range], *, at_most: int, longest: int | None = None) -> list[tuple[Range, ...]]:
    """Sets of pages, laid end to end and cut into parts whose numbers of pages differ by one at most.

    Args:
        sets: each with all pages of its set.
        at_most: how many parts, if ``longest`` does not ask for more.
        longest: pages of the longest part.
    """
    whole = [*sets]
    pages = sum(map(len, whole))
    if not pages:
        return [(each,) for each in whole]
    count = max(min(pages, at_most), -(-pages // longest) if longest is not None else 1)
    size, more = divmod(pages, count)
    left = [each for each in whole if len(each)]
    parts: list[tuple[Range, ...]] = []
    for number in range(count):
        room = size + (number < more)
        part: list[Range] = []
        while room:
            each = left.pop(0)
            if len(each) > room:
                left.insert(0, evolve(each, first=each.first + room))
                each = evolve(each, last=each.first + room - 1)
            part.append(each)
            room -= len(each)
        parts.append(tuple(part))
    return parts


@frozen(kw_only=True)
class Job:
    """A read, as the options ask for it.

    Attributes:
        connection: how to reach the service.
        resource: what is read.
        limits: how hard the service may be asked.
        customer_group_id: whose customers.
        workspace_id: whose groups or profile fields; or whose profile fields become columns.
        campaign_ids: whose messages.
        runs: of which runs: numbers, the latest that has files, or all that have.
        pages: the first page that is wanted, and the last one; ``None`` for no end.
        profile_columns: whether each profile field is a column.
        message_columns: which columns of the files are columns.
        columns: which columns are wanted; ``None`` for all.
        pages_per_partition: the most pages of a task; ``None`` for what the parallelism gives.
        strict: whether a change meanwhile is an error.
        start_after: where a stream begins: after so many runs, or after the latest.
        poll_seconds: how long a stream waits at least before it asks again for new runs.
    """

    connection: Connection
    resource: Resource
    limits: Limits
    customer_group_id: str | None
    workspace_id: str | None
    campaign_ids: tuple[str, ...]
    runs: Runs
    pages: tuple[int, int | None]
    profile_columns: bool
    message_columns: tuple[str, ...]
    columns: tuple[str, ...] | None
    pages_per_partition: int | None
    strict: bool
    start_after: int | Literal["latest"]
    poll_seconds: float

    @classmethod
    def of(cls, options: Mapping[str, str], *, stream: bool = False) -> Job:
        """The read that options describe.

        Args:
            options: the options.
            stream: whether it is one that goes on.

        Raises:
            ConfigurationError: an option is not known, wrong or missing. No value of a secret one is in the text.
        """
        names = {name.lower(): text for name, text in options.items()}
        resource = cast("Resource", names.get("resource", "customers").strip().lower())
        if resource not in KNOWN:
            raise ConfigurationError(
                f"The option 'resource' must be one of {', '.join(map(repr, KNOWN))}; got {resource!r}."
            )
        if stream and resource != "messages":
            raise ConfigurationError(
                "A stream reads the messages of the runs of campaigns: give the option 'resource' with 'messages'. Anything "
                f"else has no order in which it is added; got {resource!r}."
            )
        doing = f"{'a stream of' if stream else 'reading'} {resource.replace('_', ' ')}"
        given = Given(options, known=STREAM if stream else KNOWN[resource], doing=doing)
        job = cls(
            connection=Connection.of(given),
            resource=resource,
            limits=Limits.of(given),
            customer_group_id=given.needed("customer_group_id") if resource == "customers" else None,
            workspace_id=given.needed("workspace_id")
            if resource in {"groups", "profile_fields"}
            else given.text("workspace_id"),
            campaign_ids=_campaigns(given) if resource == "messages" else (),
            runs=_runs(given),
            pages=_pages(given),
            profile_columns=given.flag("profile_columns", default=False),
            message_columns=given.names("message_columns") or (),
            columns=given.names("columns"),
            pages_per_partition=given.whole("pages_per_partition"),
            strict=_strict(given),
            start_after=_start(given),
            poll_seconds=given.number("poll_seconds") or 10.0,
        )
        if job.profile_columns:
            given.needed("workspace_id", ", whose profile fields become columns")
            given.needed("profile_decryptor", ": profiles come encrypted, and have no types before they are read")
        return job

    def shares(self, sets: Iterable[Range]) -> list[Share]:
        """Divide sets of pages among tasks.

        There are as many tasks as may read at once, so that the limits hold wherever Spark runs them, unless ranges
        are to be shorter. Then the limits hold if no more of them run at once than ``parallelism`` says.
        """
        limits = self.limits
        at_most = limits.parallelism if limits.concurrency is None else min(limits.parallelism, limits.concurrency)
        parts = divided(sets, at_most=at_most, longest=self.pages_per_partition)
        lanes = min(at_most, len(parts))
        return [
            Share(number=number, shares=len(parts), lanes=lanes, ranges=ranges) for number, ranges in enumerate(parts)
        ]

    def lane(self, share: Share) -> Lane | None:
        """A task's part of the requests a second."""
        if self.limits.per_second is None:
            return None
        return Lane(number=share.number % share.lanes, lanes=share.lanes, per_second=self.limits.per_second)

    def in_flight(self, share: Share) -> int:
        """A task's part of the requests in flight."""
        return CONCURRENCY if self.limits.concurrency is None else max(1, self.limits.concurrency // share.lanes)


def _campaigns(given: Given) -> tuple[str, ...]:
    given.needed("campaign_id")
    return given.names("campaign_id") or ()


def _runs(given: Given) -> Runs:
    text = (given.text("run_number") or "latest").lower()
    if text in {"latest", "all"}:
        return cast("Runs", text)
    numbers = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("0*[1-9][0-9]{0,17}", number) for number in numbers):
        raise given.wrong("run_number", f"must be numbers of runs with commas between, 'latest' or 'all'; got {text!r}")
    return tuple(sorted({*map(int, numbers)}))


def _pages(given: Given) -> tuple[int, int | None]:
    text = given.text("pages")
    if text is None:
        return 0, None
    found = re.fullmatch(r"([0-9]{1,18})\s*(?:(-)\s*([0-9]{1,18})?)?", text)
    if found is None:
        raise given.wrong("pages", f"must be as in '7', '10-20' or '10-'; got {text!r}")
    first, last = int(found[1]), int(found[3]) if found[3] else None
    if found[2] is None:
        last = first
    if last is not None and last < first:
        raise given.wrong("pages", f"must not end before it begins; got {text!r}")
    return first, last


def _strict(given: Given) -> bool:
    if (given.text("consistency") or "").lower() == "dedupe":
        raise given.wrong(
            "consistency",
            "must be 'warn' or 'strict': a task knows only its own pages. Use dropDuplicates(['customer_id']) in Spark",
        )
    return given.one_of("consistency", ("warn", "strict"), "warn") == "strict"


def _start(given: Given) -> int | Literal["latest"]:
    if (given.text("start_after") or "").lower() == "latest":
        return "latest"
    return given.whole("start_after", least=0) or 0
