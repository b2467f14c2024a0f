"""The soak: many mixed calls by many callers through the fault proxy, and what must be true of every one of them.

Each caller has a workspace of its own, and a model of what must be in it. Every answer to a read is compared with the
model. Every write happens exactly once, or its error says that it may have taken effect; then the read that the error
names is asked, and must show the state before the write or the one after it, and nothing else. In the end the service
is stopped, and its database is compared with all models, and the effects that it counted with those that are known.

Exits with 1, and says what was wrong, if any promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gc
import io
import json
import os
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from attrs import Factory, define, field

from nudgescribe_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CallOptions,
    Credentials,
    DeadlineExceededError,
    Nudgescribe,
    NudgescribeError,
    PageError,
    PermissionDeniedError,
    ResponseDecodeError,
    Timeout,
    TransportError,
)
from nudgescribe_async.events import (
    CallGivenUp,
    Event,
    RequestFinished,
    RequestRetrying,
    RequestsPaused,
    RequestStarted,
    TokenRenewalFailed,
    TokenRenewed,
)
from nudgescribe_async.sandbox.profiles import Key

READ_TIMEOUT = 2.0  # a stall costs its caller as much
TOKEN_LIFETIME = 3.0
MOST_RSS_GROWTH = 8 * 2**20
MOST_SOCKETS = 64 + 4  # the client's concurrency; the event loop has two, and a renewal needs no slot
SAMPLES_PER_TENTH = 10
LEAST_STEP = 100  # calls between two samples, which take their time
LOOK_AGAIN = 0.3
MOST_LOOKS = 20
MOST_WRONG = 50
READY, PUBLISHED = "Ready to publish", "Published"
UNSAFE = {
    "customers.check",
    "customer_groups.create",
    "profile_fields.create",
    "messages.publish",
    "reruns.initiate",
}
TRANSIENT = {408, 429, 500, 502, 503, 504}

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
"""One thing that the service has: its id, ``None`` as long as nobody knows it, and all else."""


# --- what happened ---------------------------------------------------------------------------------------------------


@define
class Record:
    """One call, as far as its requests are concerned."""

    requests: int = 0


RECORD: ContextVar[Record | None] = ContextVar("record", default=None)


@define
class Sample:
    """The process at one moment."""

    calls: int
    rss: int
    sockets: int
    tasks: int
    objects: int


def _rss() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _sockets() -> int:
    count = 0
    with suppress(OSError):
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                count += str(descriptor.readlink()).startswith("socket:")
    return count


@define
class Tally:
    """Counts, and keeps what was wrong."""

    total: int
    started_calls: int = 0
    finished_calls: int = 0
    calls: Counter[str] = Factory(Counter[str])
    succeeded: Counter[str] = Factory(Counter[str])
    refused_rightly: Counter[str] = Factory(Counter[str])
    abandoned: Counter[str] = Factory(Counter[str])
    errors: Counter[str] = Factory(Counter[str])
    misread: int = 0
    """Answers that looked like one, and were none."""
    effects: Counter[str] = Factory(Counter[str])
    unknown: Counter[str] = Factory(Counter[str])
    looks: int = 0
    requests: Counter[str] = Factory(Counter[str])
    failures: Counter[str] = Factory(Counter[str])
    retries: int = 0
    given_up: Counter[str] = Factory(Counter[str])
    pauses: int = 0
    paused_seconds: float = 0.0
    renewals: Counter[str] = Factory(Counter[str])
    failed_renewals: Counter[str] = Factory(Counter[str])
    wrong: list[str] = Factory(list[str])
    wrong_count: int = 0
    samples: list[Sample] = Factory(list[Sample])

    def complain(self, text: str) -> None:
        """A promise is broken."""
        self.wrong_count += 1
        if len(self.wrong) < MOST_WRONG:
            self.wrong.append(text)

    def take(self) -> bool:
        """Whether one more call is wanted."""
        if self.started_calls >= self.total or self.wrong_count >= MOST_WRONG:
            return False
        self.started_calls += 1
        return True

    def finish(self) -> None:
        """One call has ended."""
        self.finished_calls += 1
        step = max(self.total // (10 * SAMPLES_PER_TENTH), LEAST_STEP)
        if self.finished_calls % step == 0:
            gc.collect()
            self.samples.append(
                Sample(self.finished_calls, _rss(), _sockets(), len(asyncio.all_tasks()), len(gc.get_objects()))
            )
        if self.finished_calls % max(self.total // 10, 1) == 0:
            print(f"  {self.finished_calls:,} calls", file=sys.stderr, flush=True)

    def hear(self, event: Event) -> None:
        """What the client tells its subscribers."""
        match event:
            case RequestStarted():
                self.requests[event.operation] += 1
                record = RECORD.get()
                if record is not None and not event.operation.startswith("auth."):
                    record.requests += 1
            case RequestFinished():
                if event.error is not None:
                    self.failures[event.error] += 1
                elif event.status is not None and event.status >= 300:
                    self.failures[str(event.status)] += 1
            case RequestRetrying():
                self.retries += 1
            case CallGivenUp():
                self.given_up[re.sub(r"[0-9.]+ s", "... s", event.reason)] += 1
            case RequestsPaused():
                self.pauses += 1
                self.paused_seconds += event.seconds
            case TokenRenewed():
                self.renewals[event.source] += 1
            case TokenRenewalFailed():
                self.failed_renewals[event.source] += 1
            case _:
                pass

    # --- errors --------------------------------------------------------------------------------------------------

    def failed(self, operation: str, error: NudgescribeError, *, impatient: bool = False) -> None:
        """A call ended with an error: is it one that it may end with?"""
        cause = error.__cause__ if isinstance(error, PageError) else error
        self.errors[type(cause).__name__] += 1
        # What is visibly no answer is a failed request already.
        self.misread += isinstance(cause, ResponseDecodeError) and not cause.unreadable
        if not isinstance(cause, NudgescribeError) or not self._is_due(cause, impatient=impatient):
            self.complain(f"{operation} ended with an error that no fault explains: {type(cause).__name__}: {cause}")
        if cause is not None and operation not in LOOKS and getattr(cause, "may_have_taken_effect", False):
            self.complain(f"{operation} changes nothing, and says that it may have: {cause}")

    @staticmethod
    def _is_due(error: NudgescribeError, *, impatient: bool) -> bool:
        why = error.not_repeated
        if why is not None and not why.startswith("that was attempt "):
            return impatient and why.endswith("after the deadline")
        match error:
            case DeadlineExceededError():
                return impatient
            # A body that was damaged on its way; a token that was refused twice, though it was good.
            case ResponseDecodeError() | PermissionDeniedError():
                return True
            case AuthenticationError():
                return error.status is None
            case TransportError():
                return True
            case APIStatusError():
                return error.status in TRANSIENT
            case _:
                return False


# --- one caller ------------------------------------------------------------------------------------------------------

LOOKS = {
    "customers.check": "customers.iter",
    "customers.update": "customers.iter",
    "customers.delete": "customers.iter",
    "customer_groups.create": "customer_groups.list",
    "customer_groups.update": "customer_groups.list",
    "customer_groups.delete": "customer_groups.list",
    "profile_fields.create": "profile_fields.list",
    "profile_fields.update": "profile_fields.list",
    "profile_fields.delete": "profile_fields.list",
    "messages.publish": "campaigns.list",
    "reruns.initiate": "reruns.history",
}


def fits(actual: Sequence[Row], expected: Sequence[Row]) -> bool:
    """Whether the service has what the model has. An id that the model does not know may be any."""
    return len(actual) == len(expected) and all(
        known[0] in {None, row[0]} and known[1:] == row[1:] for row, known in zip(actual, expected, strict=True)
    )


@define
class Caller:
    """One caller, its workspace, and what it knows of it."""

    ns: Nudgescribe
    tally: Tally
    number: int
    given: Mapping[str, Any]
    setup: Mapping[str, Any]
    key: Key
    chance: random.Random
    groups: list[Row] = field(init=False)
    fields: list[Row] = field(init=False)
    customers: list[Row] = field(init=False, factory=list[Row])
    runs: list[Row] = field(init=False)
    status: list[Row] = field(init=False, factory=lambda: [(None, PUBLISHED)])
    audiences: dict[str, list[Row]] = field(init=False)
    published: set[int] = field(init=False, factory=lambda: {1})
    _versions: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        groups: dict[str, str] = self.given["groups"]
        self.groups = [(group, name) for name, group in groups.items()]
        self.fields = [
            (profile_field, name, "string", name == "external_id")
            for name, profile_field in self.given["fields"].items()
        ]
        self.runs = [(None, 1, groups["A"])]
        self.audiences = {
            groups[name]: [(None, customer) for customer in customers]
            for name, customers in self.given["customers"].items()
        }

    @property
    def workspace(self) -> str:
        """The caller's own."""
        return str(self.given["workspace_id"])

    @property
    def campaign(self) -> str:
        """The one of its workspace."""
        return str(self.given["campaign_id"])

    @property
    def list_group(self) -> str:
        """The group whose customers come and go."""
        return str(self.given["groups"]["list"])

    async def work(self) -> None:
        """Call until enough calls were made."""
        names, weights = zip(*WEIGHTS.items(), strict=True)
        while self.tally.take():
            name = self.chance.choices(names, weights)[0]
            try:
                await ACTIONS[name](self)
            except Exception:  # noqa: BLE001 - whatever it is, it is no error of the package, and so a broken promise
                self.tally.complain(f"caller {self.number}, {name}: {traceback.format_exc(limit=-4)}")
            self.tally.finish()

    def complain(self, text: str) -> None:
        """A promise is broken."""
        self.tally.complain(f"caller {self.number}: {text}")

    def version(self, prefix: str) -> str:
        """A text that was never used before."""
        self._versions += 1
        return f"{prefix}{self.number:03}-{self._versions}"

    # --- reading -----------------------------------------------------------------------------------------------------

    async def read(
        self, operation: str, send: Callable[[CallOptions | None], Awaitable[T]], check: Callable[[T], bool]
    ) -> None:
        """One read. Now and then its caller has no patience, or goes away."""
        RECORD.set(Record())
        self.tally.calls[operation] += 1
        mood = self.chance.random()
        impatient = CallOptions(timeout=self.chance.uniform(0.005, 0.1)) if mood < 0.005 else None
        try:
            if mood > 0.997:
                task = asyncio.ensure_future(send(None))
                await asyncio.wait([task], timeout=self.chance.uniform(0, 0.05))
                if task.cancel():
                    self.tally.abandoned[operation] += 1
                    await asyncio.wait([task])
                    if task.cancelled():
                        return
                answer = await task
            else:
                answer = await send(impatient)
        except NudgescribeError as error:
            self.tally.failed(operation, error, impatient=impatient is not None)
            return
        self.tally.succeeded[operation] += 1
        if not check(answer):
            self.complain(f"{operation} gave a wrong answer: {answer!r:.500}")

    async def see_groups(self, options: CallOptions | None = None) -> list[Row]:
        """The groups of the workspace."""
        groups = await self.ns.customer_groups.list(self.workspace, options=options)
        return [(group.customer_group_id, group.group_name) for group in groups]

    async def see_fields(self, options: CallOptions | None = None) -> list[Row]:
        """Its profile fields."""
        found = await self.ns.profile_fields.list(self.workspace, options=options)
        return [(item.profile_field_id, item.field_name, item.field_type, item.is_required) for item in found]

    def opened(self, customer: Any) -> Row:
        """A customer with what is in the envelope."""
        return customer.customer_id, self.key.open_profile(customer.customer_id, customer.extended_profile)

    async def see_customers(self) -> list[Row]:
        """The customers who come and go."""
        return [self.opened(customer) async for customer in self.ns.customers.iter(self.list_group, concurrency=3)]

    async def see_runs(self, options: CallOptions | None = None) -> list[Row]:
        """The runs of the campaign, oldest first."""
        runs = await self.ns.reruns.history(self.campaign, options=options)
        return [(run.rerun_id, run.run_number, run.customer_group_id) for run in reversed(runs)]

    async def see_status(self, options: CallOptions | None = None) -> list[Row]:
        """Where the campaign stands."""
        for workspace in await self.ns.campaigns.list(options=options):
            if workspace.workspace_id == self.workspace:
                return [(None, campaign.campaign_status) for campaign in workspace.campaigns]
        return []

    def adopt(self, part: str, actual: list[Row]) -> bool:
        """Whether a part of the workspace is as it must be; ids that were not known are from now on."""
        if not fits(actual, getattr(self, part)):
            return False
        setattr(self, part, actual)
        return True

    # --- writing -----------------------------------------------------------------------------------------------------

    async def write(
        self,
        operation: str,
        part: str,
        after: list[Row] | None,
        send: Callable[[], Awaitable[T]],
        receive: Callable[[T, Record], list[Row] | None],
    ) -> bool:
        """One write, and whether it took effect.

        Args:
            operation: what is called.
            part: which part of the workspace it changes.
            after: that part as it must be afterwards; ``None`` if the service has to refuse.
            send: calls.
            receive: that part with what the answer tells of it; ``None`` if the answer is wrong.
        """
        record = Record()
        RECORD.set(record)
        self.tally.calls[operation] += 1
        try:
            answer = await send()
        except NudgescribeError as error:
            return await self.resolve(operation, part, after, error)
        self.tally.succeeded[operation] += 1
        self.tally.effects[operation] += 1
        if after is None:
            self.complain(f"{operation} was accepted, and had to be refused: {answer!r:.500}")
            return True
        received = receive(answer, record)
        if received is None:
            self.complain(f"{operation} gave a wrong answer after {record.requests} requests: {answer!r:.500}")
        setattr(self, part, received if received is not None else after)
        return True

    async def resolve(self, operation: str, part: str, after: list[Row] | None, error: NudgescribeError) -> bool:
        """What became of a write that failed: by what its error says, and by what the service shows."""
        unknown = error.may_have_taken_effect
        if isinstance(error, BadRequestError) and (after is None or unknown):
            self.tally.refused_rightly[operation] += 1
        else:
            self.tally.failed(operation, error)
        if unknown and error.look != LOOKS[operation]:
            self.complain(f"{operation} may have taken effect, and the error says to look with {error.look}: {error}")
        took = await self.took_effect(operation, part, after)
        if took:
            self.tally.effects[operation] += 1
        if unknown:
            self.tally.unknown[f"{operation}: {'it had taken effect' if took else 'it had not'}"] += 1
        elif took:
            self.complain(
                f"{operation} took effect, and the error does not say that it may have: {type(error).__name__}: {error}"
            )
        return took

    async def took_effect(self, operation: str, part: str, after: list[Row] | None) -> bool:
        """Whether the service has the state after a write, and not the one before it."""
        before: list[Row] = getattr(self, part)
        for turn in range(3):
            if turn:
                await asyncio.sleep(LOOK_AGAIN)
            actual = await self.look(operation)
            if after is not None and fits(actual, after):
                setattr(self, part, actual)
                return True
            if not fits(actual, before):
                self.complain(
                    f"{operation}: neither before nor after it: {actual!r:.1000} is neither {before!r:.1000} nor {after!r:.1000}"
                )
                setattr(self, part, actual)
                return False
        return False

    async def look(self, operation: str) -> list[Row]:
        """Ask with the read that the error names, until it answers."""
        sees: dict[str, Callable[[], Awaitable[list[Row]]]] = {
            "customer_groups.list": self.see_groups,
            "profile_fields.list": self.see_fields,
            "customers.iter": self.see_customers,
            "campaigns.list": self.see_status,
            "reruns.history": self.see_runs,
        }
        for _ in range(MOST_LOOKS):
            self.tally.looks += 1
            try:
                return await sees[LOOKS[operation]]()
            except NudgescribeError as error:
                self.tally.failed(LOOKS[operation], error)
                await asyncio.sleep(LOOK_AGAIN)
        raise RuntimeError(f"{LOOKS[operation]} failed {MOST_LOOKS} times")


# --- what callers do -------------------------------------------------------------------------------------------------


async def list_groups(caller: Caller) -> None:
    await caller.read("customer_groups.list", caller.see_groups, lambda actual: caller.adopt("groups", actual))


async def list_fields(caller: Caller) -> None:
    await caller.read("profile_fields.list", caller.see_fields, lambda actual: caller.adopt("fields", actual))


def _some_group(caller: Caller) -> tuple[str, list[Row]]:
    """A group, and who is in it."""
    groups = {caller.list_group: caller.customers, **caller.audiences}
    group = caller.chance.choice([caller.list_group, *groups])
    return group, groups[group]


def _pages(rows: Sequence[object], size: int) -> int:
    return -(-len(rows) // size)


async def count_pages(caller: Caller) -> None:
    group, expected = _some_group(caller)
    pages = _pages(expected, caller.setup["page_size"])
    await caller.read(
        "customers.count_pages",
        lambda options: caller.ns.customers.count_pages(group, options=options),
        lambda actual: actual == pages,
    )


async def list_page(caller: Caller) -> None:
    group, expected = _some_group(caller)
    size = caller.setup["page_size"]
    page = caller.chance.randint(1, _pages(expected, size) + 1)
    wanted = expected[(page - 1) * size : page * size]

    def check(actual: list[Any]) -> bool:
        return fits([caller.opened(customer) for customer in actual], wanted) and all(
            (customer.workspace_id, customer.customer_group_id) == (caller.workspace, group) for customer in actual
        )

    await caller.read("customers.list", lambda options: caller.ns.customers.list(group, page, options=options), check)


async def iterate_customers(caller: Caller) -> None:
    group, expected = _some_group(caller)
    seen: list[Row] = []
    enough = caller.chance.randint(1, 12) if caller.chance.random() < 0.2 else None

    async def send(options: CallOptions | None) -> list[Row]:
        async with caller.ns.customers.iter(group, concurrency=3, options=options) as customers:
            async for customer in customers:
                seen.append(caller.opened(customer))
                if len(seen) == enough:
                    break
        return seen

    def check(actual: list[Row]) -> bool:
        if not fits(actual, expected[: len(expected) if enough is None else enough]):
            return False
        if group == caller.list_group and enough is None:
            caller.customers = actual
        elif enough is None:
            caller.audiences[group] = actual
        return True

    await caller.read("customers.iter", send, check)
    if not fits(seen, expected[: len(seen)]):  # also if it failed half way
        caller.complain(f"customers.iter handed out {seen!r:.500}")


async def list_campaigns(caller: Caller) -> None:
    _, number, group = caller.runs[-1]
    wanted = (caller.campaign, f"Campaign {caller.number}", caller.status[0][1], group, number)

    def check(actual: list[Any]) -> bool:
        mine = [workspace for workspace in actual if workspace.workspace_id == caller.workspace]
        return [
            (item.campaign_id, item.campaign_name, item.campaign_status, item.customer_group_id, item.run_number)
            for workspace in mine
            for item in workspace.campaigns
        ] == [wanted]

    await caller.read("campaigns.list", lambda options: caller.ns.campaigns.list(options=options), check)


def _history_is_right(caller: Caller, actual: list[Any]) -> bool:
    names = {str(group): name for group, name in caller.groups}
    segments = len({customer[1]["city"] for customer in next(iter(caller.audiences.values()))})
    for place, run in enumerate(actual):
        first = run.run_number == 1
        comparison = run.comparison
        if (run.campaign_status, run.customer_group_name, run.segment_count, run.archived_count) != (
            caller.status[0][1] if place == 0 else PUBLISHED,
            names[run.customer_group_id],
            segments,
            0 if first else segments,
        ):
            return False
        if (comparison is None) != first or (
            comparison is not None
            and (comparison.matched_count, comparison.new_count, comparison.orphaned_count) != (segments, 0, 0)
        ):
            return False
    rows = [(run.rerun_id, run.run_number, run.customer_group_id) for run in reversed(actual)]
    return caller.adopt("runs", rows)


async def history(caller: Caller) -> None:
    await caller.read(
        "reruns.history",
        lambda options: caller.ns.reruns.history(caller.campaign, options=options),
        lambda actual: _history_is_right(caller, actual),
    )


def _some_run(caller: Caller) -> tuple[int | None, int]:
    """What to ask for, and the run that it is."""
    current = int(caller.runs[-1][1])
    number = caller.chance.randint(1, current)
    return (None, current) if caller.chance.random() < 0.5 else (number, number)


async def run_messages(caller: Caller) -> None:
    asked, number = _some_run(caller)
    is_current = number == caller.runs[-1][1]
    status = "Approved" if is_current and caller.status[0][1] != PUBLISHED else PUBLISHED
    cities = {row[1]["city"] for row in next(iter(caller.audiences.values()))}
    text: str = caller.setup["template"]
    wanted = sorted(
        (city, text.replace("{segment}", f"city: {city}"), number, status, not is_current) for city in cities
    )

    def check(actual: list[Any]) -> bool:
        return wanted == sorted(
            (item.segment["city"], item.content, item.run_number, item.review_status, item.is_archived)
            for item in actual
        )

    await caller.read(
        "reruns.messages", lambda options: caller.ns.reruns.messages(caller.campaign, asked, options=options), check
    )


def _rows_of(caller: Caller, number: int) -> list[dict[str, str]]:
    """All rows of the files of a run, as they must be; the id is empty where nobody knows it yet."""
    if number not in caller.published:
        return []
    group = caller.runs[number - 1][2]
    text: str = caller.setup["template"]
    rows: list[dict[str, str]] = []
    for customer_id, profile in caller.audiences[group]:
        segment = f"city: {profile['city']}"
        message = text.replace("{segment}", segment).replace("{external_id}", profile["external_id"])
        rows.append(
            {
                "customer_id": customer_id or "",
                "external_id": profile["external_id"],
                "segment": segment,
                "message": message,
            }
        )
    return rows


def _rows_fit(actual: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, str]]) -> bool:
    return len(actual) == len(expected) and all(
        dict(row) == {**known, "customer_id": known["customer_id"] or row.get("customer_id")}
        for row, known in zip(actual, expected, strict=True)
    )


async def count_files(caller: Caller) -> None:
    asked, number = _some_run(caller)
    pages = _pages(_rows_of(caller, number), caller.setup["rows_per_file"])
    await caller.read(
        "messages.count_pages",
        lambda options: caller.ns.messages.count_pages(caller.campaign, asked, options=options),
        lambda actual: actual == pages,
    )


async def fetch_file(caller: Caller) -> None:
    asked, number = _some_run(caller)
    rows, size = _rows_of(caller, number), caller.setup["rows_per_file"]
    if not rows:  # not published yet, so there are no files
        await count_files(caller)
        return
    page = caller.chance.randint(1, _pages(rows, size))
    wanted = rows[(page - 1) * size : page * size]
    ns, campaign = caller.ns, caller.campaign
    kind = caller.chance.choice(["csv", "csv", "json", "url"] if asked is None else ["csv", "json"])
    if kind == "csv":
        await caller.read(
            "messages.fetch",
            lambda options: ns.messages.fetch(campaign, page, "csv", asked, options=options),
            lambda text: _rows_fit(list(csv.DictReader(io.StringIO(text, newline=""))), wanted),
        )
    elif kind == "json":
        await caller.read(
            "messages.fetch",
            lambda options: ns.messages.fetch(campaign, page, "json", asked, options=options),
            lambda actual: _rows_fit(actual, wanted),
        )
    else:
        await caller.read(
            "messages.fetch",
            lambda options: ns.messages.fetch(campaign, page, "url", asked, options=options),
            lambda link: "/files/" in link.url and link.expires_in == 3600,
        )


async def iterate_messages(caller: Caller) -> None:
    asked, number = _some_run(caller)
    wanted = _rows_of(caller, number)

    async def send(options: CallOptions | None) -> list[dict[str, str]]:
        return [row async for row in caller.ns.messages.iter(caller.campaign, asked, concurrency=2, options=options)]

    await caller.read("messages.iter", send, lambda actual: _rows_fit(actual, wanted))


async def create_group(caller: Caller) -> None:
    if len(caller.groups) > 7:
        await delete_group(caller)
        return
    name = caller.version("Group ")
    after: list[Row] = [*caller.groups, (None, name)]
    await caller.write(
        "customer_groups.create",
        "groups",
        after,
        lambda: caller.ns.customer_groups.create(caller.workspace, name),
        lambda group, _: [*after[:-1], (group.customer_group_id, name)] if group.group_name == name else None,
    )


def _place(caller: Caller, rows: list[Row], spared: int) -> int | None:
    """Which of those that were added later, and whose id is known."""
    places = [place for place, row in enumerate(rows) if place >= spared and row[0] is not None]
    return caller.chance.choice(places) if places else None


async def rename_group(caller: Caller) -> None:
    place = _place(caller, caller.groups, 0)
    if place is None:
        await list_groups(caller)
        return
    group, name = caller.groups[place][0], caller.version("Group ")
    after = [*caller.groups[:place], (group, name), *caller.groups[place + 1 :]]
    await caller.write(
        "customer_groups.update",
        "groups",
        after,
        lambda: caller.ns.customer_groups.update(caller.workspace, group, name),
        lambda answer, _: after if (answer.customer_group_id, answer.group_name) == (group, name) else None,
    )


async def delete_group(caller: Caller) -> None:
    place = _place(caller, caller.groups, 3)
    if place is None:
        await list_groups(caller)
        return
    group = caller.groups[place][0]
    after = [*caller.groups[:place], *caller.groups[place + 1 :]]
    await caller.write(
        "customer_groups.delete",
        "groups",
        after,
        lambda: caller.ns.customer_groups.delete(caller.workspace, group),
        lambda answer, _: after if answer.success else None,
    )


async def create_field(caller: Caller) -> None:
    if len(caller.fields) > 6:
        await delete_field(caller)
        return
    name = caller.version("field ")
    after: list[Row] = [*caller.fields, (None, name, "number", False)]
    await caller.write(
        "profile_fields.create",
        "fields",
        after,
        lambda: caller.ns.profile_fields.create(caller.workspace, name, "number"),
        lambda answer, _: (
            [*after[:-1], (answer.profile_field_id, *after[-1][1:])] if answer.field_name == name else None
        ),
    )


async def rename_field(caller: Caller) -> None:
    place = _place(caller, caller.fields, 3)
    if place is None:
        await list_fields(caller)
        return
    profile_field, _, *rest = caller.fields[place]
    name = caller.version("field ")
    after = [*caller.fields[:place], (profile_field, name, *rest), *caller.fields[place + 1 :]]
    await caller.write(
        "profile_fields.update",
        "fields",
        after,
        lambda: caller.ns.profile_fields.update(caller.workspace, profile_field, name),
        lambda answer, _: after if (answer.profile_field_id, answer.field_name) == (profile_field, name) else None,
    )


async def delete_field(caller: Caller) -> None:
    place = _place(caller, caller.fields, 3)
    if place is None:
        await list_fields(caller)
        return
    profile_field = caller.fields[place][0]
    after = [*caller.fields[:place], *caller.fields[place + 1 :]]
    await caller.write(
        "profile_fields.delete",
        "fields",
        after,
        lambda: caller.ns.profile_fields.delete(caller.workspace, profile_field),
        lambda answer, _: after if answer.success else None,
    )


async def upload(caller: Caller) -> None:
    if len(caller.customers) > 24:
        await delete_customers(caller)
        return
    note = caller.version("note ")
    rows = [
        {"external_id": caller.version("L"), "city": "Oslo", "note": f'{note}, "{number}"'}
        for number in range(caller.chance.randint(1, 3))
    ]
    new: list[Row] = [(None, row) for row in rows]
    after = list(caller.customers)
    if after and caller.chance.random() < 0.5:  # a row of somebody who is there already
        place = caller.chance.randrange(len(after))
        customer, profile = after[place]
        after[place] = customer, {**profile, "note": note}
        rows.append(after[place][1])
    after += new
    accepted, rejected = len(rows), 0
    if caller.chance.random() < 0.2:
        rows.append({"external_id": "", "city": "Oslo", "note": note})
        rejected = 1
    if caller.chance.random() < 0.5:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["external_id", "city", "note"])
        writer.writeheader()
        writer.writerows(rows)
        content: dict[str, Any] = {"file": text.getvalue().encode()}
    else:
        content = {"customers": rows}
    await caller.write(
        "customers.check",
        "customers",
        after,
        lambda: caller.ns.customers.check(caller.workspace, caller.list_group, **content),
        lambda receipt, _: after if (receipt.accepted_count, receipt.rejected_count) == (accepted, rejected) else None,
    )


def _some_customers(caller: Caller) -> list[str]:
    known = [customer for customer, _ in caller.customers if customer is not None]
    return caller.chance.sample(known, min(len(known), caller.chance.randint(1, 3)))


async def change_customers(caller: Caller) -> None:
    chosen = _some_customers(caller)
    if not chosen:
        await iterate_customers(caller)
        return
    note = caller.version("note ")
    after = [
        (customer, {**profile, "note": note} if customer in chosen else profile)
        for customer, profile in caller.customers
    ]
    await caller.write(
        "customers.update",
        "customers",
        after,
        lambda: caller.ns.customers.update(
            caller.list_group,
            [{"customer_id": customer, "extended_profile": {"note": note}} for customer in chosen],
        ),
        lambda receipt, _: after if receipt.updated_count == len(chosen) else None,
    )


async def delete_customers(caller: Caller) -> None:
    chosen = _some_customers(caller)
    if not chosen:
        await iterate_customers(caller)
        return
    after = [row for row in caller.customers if row[0] not in chosen]
    await caller.write(
        "customers.delete",
        "customers",
        after,
        lambda: caller.ns.customers.delete(caller.list_group, chosen),
        # The second request of one call finds nobody left, if the answer to the first was lost.
        lambda receipt, record: (
            after
            if receipt.deleted_count == len(chosen) or (record.requests > 1 and receipt.deleted_count == 0)
            else None
        ),
    )


async def rerun(caller: Caller) -> None:
    """A rerun, and later its publication: whichever is next."""
    if caller.status[0][1] == READY:
        await publish(caller)
        return
    audiences = list(caller.audiences)
    number, group = int(caller.runs[-1][1]) + 1, caller.chance.choice(audiences)
    after = [*caller.runs, (None, number, group)]

    def receive(receipt: Any, _: Record) -> list[Row] | None:
        good = (receipt.success, receipt.run_number, receipt.campaign_status) == (True, number, READY)
        return [*after[:-1], (receipt.rerun_id, number, group)] if good else None

    if await caller.write(
        "reruns.initiate", "runs", after, lambda: caller.ns.reruns.initiate(caller.campaign, group), receive
    ):
        caller.status = [(None, READY)]


async def publish(caller: Caller) -> None:
    after: list[Row] = [(None, PUBLISHED)]
    if not await caller.write(
        "messages.publish",
        "status",
        after,
        lambda: caller.ns.messages.publish(caller.campaign),
        lambda receipt, _: after if receipt.success and receipt.job_uid else None,
    ):
        return
    for _ in range(100):  # the job is queued, and nothing else is asked of the campaign before it is done
        if await caller.look("messages.publish") == after:
            caller.published.add(int(caller.runs[-1][1]))
            return
        await asyncio.sleep(0.05)
    caller.complain("a campaign whose publication was accepted is not published")


async def wrongly(caller: Caller) -> None:
    """Something that the service has to refuse."""
    ns, chance = caller.ns, caller.chance
    status = caller.status[0][1]
    if status == PUBLISHED and chance.random() < 0.4:
        await caller.write(
            "messages.publish", "status", None, lambda: ns.messages.publish(caller.campaign), lambda *_: None
        )
    elif status == READY and chance.random() < 0.8:
        group = chance.choice(list(caller.audiences))
        await caller.write(
            "reruns.initiate", "runs", None, lambda: ns.reruns.initiate(caller.campaign, group), lambda *_: None
        )
    elif chance.random() < 0.5:
        name: str = chance.choice(caller.fields)[1]
        await caller.write(
            "profile_fields.create",
            "fields",
            None,
            lambda: ns.profile_fields.create(caller.workspace, name, "string"),
            lambda *_: None,
        )
    else:
        await caller.write(
            "customers.check",
            "customers",
            None,
            lambda: ns.customers.check(
                caller.workspace, caller.list_group, customers=[{"external_id": "x", "unknown": "y"}]
            ),
            lambda *_: None,
        )


async def renew(caller: Caller) -> None:
    """By hand, what the client does by itself."""
    login = caller.chance.random() < 0.3
    await caller.read(
        "auth.authenticate" if login else "auth.reauthenticate",
        lambda _: caller.ns.auth.authenticate() if login else caller.ns.auth.reauthenticate(),
        lambda tokens: bool(tokens.access_token),
    )


ACTIONS: Mapping[str, Callable[[Caller], Awaitable[None]]] = {
    action.__name__: action
    for action in (
        list_groups,
        list_fields,
        count_pages,
        list_page,
        iterate_customers,
        list_campaigns,
        history,
        run_messages,
        count_files,
        fetch_file,
        iterate_messages,
        create_group,
        rename_group,
        delete_group,
        create_field,
        rename_field,
        delete_field,
        upload,
        change_customers,
        delete_customers,
        rerun,
        wrongly,
        renew,
    )
}
WEIGHTS: Mapping[str, float] = {
    "list_groups": 9,
    "list_fields": 6,
    "count_pages": 10,
    "list_page": 18,
    "iterate_customers": 4,
    "list_campaigns": 1,
    "history": 4,
    "run_messages": 4,
    "count_files": 6,
    "fetch_file": 9,
    "iterate_messages": 2,
    "create_group": 4,
    "rename_group": 4,
    "delete_group": 2,
    "create_field": 2.5,
    "rename_field": 2,
    "delete_field": 1.5,
    "upload": 5,
    "change_customers": 5,
    "delete_customers": 2,
    "rerun": 1,
    "wrongly": 1.5,
    "renew": 0.1,
}


# --- the run ---------------------------------------------------------------------------------------------------------


async def soak(setup: Mapping[str, Any], tally: Tally, *, seed: int) -> list[Caller]:
    """All calls, from the first to the closing of the client; the callers with what they know."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: tally.complain(f"the event loop: {context['message']}: {context}"))
    sockets = _sockets()
    credentials = Credentials(api_key=setup["api_key"], email=setup["email"], password=setup["password"])
    # All options but the read timeout are left as they are: the promises are those of the defaults.
    ns = Nudgescribe(credentials, base_url=setup["url"], timeout=Timeout(read=READ_TIMEOUT))
    ns.events.subscribe(tally.hear)
    key = Key(bytes.fromhex(setup["profile_key"]))
    callers = [
        Caller(ns, tally, number, given, setup, key, random.Random(f"{seed}/{number}"))
        for number, given in enumerate(setup["workspaces"])
    ]
    await asyncio.gather(*(caller.work() for caller in callers))
    await ns.aclose()
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        tally.complain(f"tasks are left: {left}")
    if _sockets() != sockets:
        tally.complain(f"{_sockets() - sockets} sockets are left open")
    return callers


def compare_with_database(path: Path, callers: Sequence[Caller], tally: Tally) -> None:
    """All that the service has kept, against all that the callers know."""
    with sqlite3.connect(path) as database:
        for caller in callers:
            workspace = (caller.workspace,)
            actual: dict[str, list[Row]] = {
                "groups": database.execute(
                    "SELECT customer_group_id, group_name FROM groups WHERE workspace_id = ? ORDER BY position",
                    workspace,
                ).fetchall(),
                "fields": [
                    (*row[:3], bool(row[3]))
                    for row in database.execute(
                        "SELECT profile_field_id, field_name, field_type, is_required FROM fields "
                        "WHERE workspace_id = ? ORDER BY position",
                        workspace,
                    )
                ],
                "runs": database.execute(
                    "SELECT rerun_id, run_number, customer_group_id FROM runs WHERE campaign_id = ? ORDER BY run_number",
                    (caller.campaign,),
                ).fetchall(),
                "status": [
                    (None, *row)
                    for row in database.execute(
                        "SELECT campaign_status FROM campaigns WHERE workspace_id = ?", workspace
                    )
                ],
            }
            expected: dict[str, list[Row]] = {name: getattr(caller, name) for name in actual}
            for group, rows in {caller.list_group: caller.customers, **caller.audiences}.items():
                expected[group] = rows
                actual[group] = [
                    (customer, caller.key.open_profile(customer, profile))
                    for customer, profile in database.execute(
                        "SELECT customer_id, profile FROM customers WHERE customer_group_id = ? ORDER BY seq", (group,)
                    )
                ]
            for name, rows in expected.items():
                if not fits(actual[name], rows):
                    tally.complain(
                        f"caller {caller.number}: in the end, {name} is {actual[name]!r:.500}, and must be {rows!r:.500}"
                    )
    database.close()


def compare_effects(report: Mapping[str, Any], tally: Tally) -> None:
    """What the service counted, against what is known."""
    effects: Mapping[str, int] = report["effects"]
    for operation in LOOKS:
        counted, known = effects.get(operation, 0), tally.effects[operation]
        if counted != known if operation in UNSAFE else not known <= counted <= tally.requests[operation]:
            tally.complain(f"{operation} had {counted:,} effects at the service, and {known:,} are known")
    # Fewer arrive than are sent; more would mean that something sends by itself.
    for operation, arrived in report["requests_by_operation"].items():
        if arrived > tally.requests[operation]:
            tally.complain(f"{operation}: {tally.requests[operation]:,} requests were sent, and {arrived:,} arrived")
    damaged = sum(count for name, count in report["faults"].items() if name.startswith(("BadAnswer", "Corrupt(body)")))
    unread = tally.failures["ResponseDecodeError"] + tally.misread
    if unread > damaged:
        tally.complain(f"more answers could not be read ({unread}) than were damaged ({damaged})")


def tenths(tally: Tally) -> tuple[list[Sample], list[Sample]]:
    """The samples of the first tenth without its first half, in which everything warms up, and of the last."""
    tenth = tally.total / 10
    return (
        [sample for sample in tally.samples if tenth / 2 < sample.calls <= tenth],
        [sample for sample in tally.samples if sample.calls > tally.total - tenth],
    )


def figures(
    tally: Tally, report: Mapping[str, Any], options: argparse.Namespace, seconds: float, cpu: float
) -> dict[str, Any]:
    """All that is told in the end; growth that is too much is complained of here."""
    first, last = tenths(tally)
    flat: dict[str, Any] = {}
    if first and last and first[0].rss:
        for name in ("rss", "sockets", "tasks", "objects"):
            flat[name] = [statistics.median(getattr(sample, name) for sample in samples) for samples in (first, last)]
        flat["most sockets"] = [max(sample.sockets for sample in samples) for samples in (first, last)]
        if flat["rss"][1] - flat["rss"][0] > MOST_RSS_GROWTH:
            tally.complain(f"memory has grown from {flat['rss'][0]:,} to {flat['rss'][1]:,} bytes")
        if flat["most sockets"][1] > MOST_SOCKETS:
            tally.complain(f"{flat['most sockets'][1]} sockets are open, and {MOST_SOCKETS} are enough")
    faults = {name: count for name, count in sorted(report["faults"].items(), key=lambda item: -item[1]) if count}
    share = sum(faults.values()) / max(report["requests"], 1)
    if tally.total >= 10_000 and not 0.8 * options.faults <= share <= 1.25 * options.faults:
        tally.complain(f"{share:.2%} of the requests went wrong, not {options.faults:.2%}")
    return {
        "calls": tally.finished_calls,
        "callers": options.callers,
        "seed": options.seed,
        "seconds": round(seconds, 1),
        "calls per second": round(tally.finished_calls / seconds, 1),
        "CPU seconds": {"client": round(cpu, 1), "service and proxy": round(report["cpu_seconds"], 1)},
        "requests": {"sent": tally.requests.total(), "arrived": report["requests"]},
        "faults": {"share": round(share, 4), "all": sum(faults.values()), **faults},
        "calls by operation": dict(tally.calls.most_common()),
        "succeeded": tally.succeeded.total(),
        "refused rightly": tally.refused_rightly.total(),
        "abandoned by their callers": tally.abandoned.total(),
        "retries": tally.retries,
        "pauses": {"all": tally.pauses, "seconds": round(tally.paused_seconds, 1)},
        "tokens": {
            "logins": tally.renewals["login"],
            "renewals": tally.renewals["refresh"],
            "failed renewals": tally.failed_renewals["refresh"],
            "failed logins": tally.failed_renewals["login"],
        },
        "unknown outcomes": {"all": tally.unknown.total(), **dict(sorted(tally.unknown.items()))},
        "looks": tally.looks,
        "failed requests": dict(tally.failures.most_common()),
        "failed calls": {"all": tally.errors.total(), **dict(tally.errors.most_common())},
        "given up": dict(tally.given_up.most_common()),
        "effects": {operation: report["effects"].get(operation, 0) for operation in sorted(LOOKS)},
        "first and last tenth": flat,
        "wrong": tally.wrong_count,
    }


def show(values: Mapping[str, Any], indent: str = "") -> None:
    """The table."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            print(f"{indent}{name}")
            show(value, indent + "    ")
        elif isinstance(value, list):
            first, last = value
            unit = "MiB" if name == "rss" else ""
            first, last = (first / 2**20, last / 2**20) if unit else (first, last)
            print(f"{indent}{name:<44} {first:>12,.1f} {last:>12,.1f} {unit}")
        elif name == "share":
            print(f"{indent}{name:<44} {value:>12.2%}")
        else:
            print(f"{indent}{name:<44} {value:>12,}")


def share(text: str) -> float:
    """``5%`` or ``0.05``."""
    number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < number < 0.5:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 50%, not {text}")
    return number


def run(options: argparse.Namespace, tally: Tally, database: Path) -> dict[str, Any]:
    """Start the service, call it, stop it, and compare."""
    command = [sys.executable, str(Path(__file__).with_name("soak_service.py"))]
    command += ["--db", str(database), "--callers", str(options.callers), "--share", str(options.faults)]
    command += ["--token-lifetime", str(TOKEN_LIFETIME), "--seed", str(options.seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        setup = json.loads(service.stdout.readline())

        def ask(what: str) -> dict[str, Any]:
            print(what, file=service.stdin, flush=True)
            answer: dict[str, Any] = json.loads(service.stdout.readline())  # type: ignore[union-attr]
            return answer

        ask("faults")
        began, cpu = time.perf_counter(), time.process_time()
        callers = asyncio.run(soak(setup, tally, seed=options.seed))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        report = ask("report")
        service.stdin.close()
        if service.wait(timeout=30):
            tally.complain(f"the service ended with {service.returncode}")
    compare_with_database(database, callers, tally)
    compare_effects(report, tally)
    return figures(tally, report, options, seconds, cpu)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--faults", type=share, default="5%", help="the share of the requests that go wrong")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures as well")
    options = parser.parse_args(arguments)
    tally = Tally(options.calls)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: tally.complain(f"nobody could be told of {what.exc_value!r} in {what.object!r}")
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("error")
            result = run(options, tally, Path(folder) / "soak.db")
            gc.collect()  # what is forgotten and not closed says so now
    finally:
        sys.unraisablehook = hook
    result["wrong"] = tally.wrong_count
    show(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for text in tally.wrong:
        print(f"WRONG: {text}", file=sys.stderr)
    print("Every promise was kept." if not tally.wrong_count else f"{tally.wrong_count} promises were broken.")
    return 1 if tally.wrong_count else 0


if __name__ == "__main__":
    sys.exit(main())
