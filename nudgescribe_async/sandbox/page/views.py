"""What is read from the database. Each function is one short piece of work on the store's thread.

Between two of them the API has its turn, so a page holds nobody up, whatever the size of the groups: lists are cut to
pages, and the customers of each group are counted in a piece of work of their own.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from nudgescribe_async.sandbox import campaigns, messages, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nudgescribe_async.sandbox.store import Database

LISTED = 25  # groups, campaigns, jobs
PAGE = 50  # customers, messages, rows of a file
_FIELDS = 200  # profile fields, workspaces, runs, files


@frozen(kw_only=True)
class Part:
    """A page of a list.

    Attributes:
        number: which page, from 1 on.
        total: how many things the whole list has.
    """

    rows: Sequence[Any]
    number: int
    size: int
    total: int

    @property
    def pages(self) -> int:
        """How many pages there are; an empty list has one."""
        return max(-(-self.total // self.size), 1)

    @property
    def first(self) -> int:
        """The number of the first thing on the page; 0 if it is empty."""
        return (self.number - 1) * self.size + 1 if self.rows else 0

    @property
    def last(self) -> int:
        """The number of the last one."""
        return (self.number - 1) * self.size + len(self.rows)


def _part(db: Database, columns: str, rest: str, order: str, *arguments: object, number: int, size: int) -> Part:
    """A page of a query; one past the end is the last one."""
    total = int(db.one(f"SELECT count(*) AS n {rest}", *arguments)["n"])
    number = min(number, max(-(-total // size), 1))
    query = f"SELECT {columns} {rest} ORDER BY {order} LIMIT ? OFFSET ?"
    return Part(rows=db.all(query, *arguments, size, (number - 1) * size), number=number, size=size, total=total)


def changes(db: Database) -> int:
    """A number that is another one after any change."""
    return int(db.one("SELECT total_changes() AS n")["n"])


# --- the overview -----------------------------------------------------------------------------------------------------


def workspaces(db: Database) -> list[Any]:
    """The workspaces of all accounts."""
    return db.all("SELECT workspace_id, account_id, name FROM workspaces ORDER BY position LIMIT ?", _FIELDS)


def groups(db: Database, number: int) -> Part:
    """Customer groups, oldest first, not counted yet."""
    rest = "FROM groups g JOIN workspaces w USING (workspace_id)"
    return _part(db, "g.*, w.name AS workspace_name", rest, "g.position", number=number, size=LISTED)


@frozen
class Count:
    """How many customers a group had after so many changes of the database."""

    customers: int
    changes: int


def customer_count(db: Database, customer_group_id: str, known: Count | None = None) -> Count:
    """How many customers a group has. What is known is good as long as nothing has changed."""
    now = changes(db)
    if known is not None and known.changes == now:
        return known
    query = "SELECT count(*) AS n FROM customers WHERE customer_group_id = ?"
    return Count(customers=int(db.one(query, customer_group_id)["n"]), changes=now)


def profile_fields(db: Database) -> Part:
    """Profile fields of all workspaces."""
    rest = "FROM fields f JOIN workspaces w USING (workspace_id)"
    return _part(db, "f.*, w.name AS workspace_name", rest, "w.position, f.position", number=1, size=_FIELDS)


_CAMPAIGN = "c.*, coalesce(g.group_name, '') AS group_name, w.name AS workspace_name"
_CAMPAIGNS = "FROM campaigns c JOIN workspaces w USING (workspace_id) LEFT JOIN groups g USING (customer_group_id)"


def campaign_list(db: Database, number: int) -> Part:
    """Campaigns, oldest first."""
    return _part(db, _CAMPAIGN, _CAMPAIGNS, "c.position", number=number, size=LISTED)


def campaign_states(db: Database) -> list[Any]:
    """How many campaigns there are in each state."""
    query = "SELECT campaign_status, count(*) AS n FROM campaigns GROUP BY campaign_status ORDER BY campaign_status"
    return db.all(query)


@frozen(kw_only=True)
class Job:
    """Something that is queued.

    Attributes:
        about: the name of what it is about; ``link`` leads to it.
    """

    job_uid: str
    kind: str
    due: datetime
    about: str
    link: str | None


def jobs(db: Database) -> Part:
    """What is queued, in the order in which it will run."""
    part = _part(db, "*", "FROM jobs", "due, position", number=1, size=LISTED)
    return evolve(part, rows=[_job(db, row) for row in part.rows])


def _job(db: Database, row: Any) -> Job:
    payload: dict[str, Any] = json.loads(row["payload"])
    about, link = "", None
    if "campaign_id" in payload:
        found = db.one("SELECT campaign_name FROM campaigns WHERE campaign_id = ?", payload["campaign_id"])
        about, link = str(found["campaign_name"]), f"/_sandbox/campaigns/{payload['campaign_id']}"
    else:
        query = "SELECT u.customer_group_id, g.group_name FROM uploads u JOIN groups g USING (customer_group_id) WHERE upload_id = ?"
        found = db.one(query, payload["upload_id"])
        if found is not None:  # its group may have been deleted since
            about, link = str(found["group_name"]), f"/_sandbox/groups/{found['customer_group_id']}"
    due = datetime.fromtimestamp(row["due"], UTC)
    return Job(job_uid=row["job_uid"], kind=row["kind"], due=due, about=about, link=link)


# --- a group ----------------------------------------------------------------------------------------------------------


def group(db: Database, customer_group_id: str) -> Any:
    """The row of a group, or ``None``."""
    return db.one(
        "SELECT g.*, w.name AS workspace_name FROM groups g JOIN workspaces w USING (workspace_id) "
        "WHERE g.customer_group_id = ?",
        customer_group_id,
    )


@frozen(kw_only=True)
class Customers:
    """Customers of a group, opened. ``columns`` are the fields of the workspace; rows have a text for each."""

    columns: Sequence[str]
    part: Part


def customers(db: Database, group: Any, number: int, short: Callable[[str], str]) -> Customers:
    """A page of the customers of a group, in the order of the API. ``short`` makes of a value what is shown of it."""
    query = "SELECT field_name FROM fields WHERE workspace_id = ? ORDER BY position"
    columns = [str(row["field_name"]) for row in db.all(query, group["workspace_id"])]
    rest = "FROM customers WHERE customer_group_id = ?"
    names = "customer_id, profile, updated_at"
    part = _part(db, names, rest, "seq", group["customer_group_id"], number=number, size=PAGE)
    key = db.key(group["account_id"])
    rows: list[Any] = []
    for row in part.rows:
        profile = key.open_profile(row["customer_id"], row["profile"])
        values = [short(str(profile[name])) if name in profile else None for name in columns]
        rows.append((row["customer_id"], values, row["updated_at"]))
    return Customers(columns=columns, part=evolve(part, rows=rows))


# --- a campaign -------------------------------------------------------------------------------------------------------


def campaign(db: Database, campaign_id: str) -> Any:
    """The row of a campaign, or ``None``."""
    return db.one(f"SELECT {_CAMPAIGN} {_CAMPAIGNS} WHERE c.campaign_id = ?", campaign_id)


@frozen(kw_only=True)
class Run:
    """One run of a campaign."""

    run_number: int
    rerun_id: str | None
    customer_group_id: str
    group_name: str
    segment_count: int
    archived_count: int
    comparison: dict[str, int] | None
    created_at: str


def runs(db: Database, campaign_id: str) -> Part:
    """The runs of a campaign, newest first."""
    part = _part(
        db,
        "r.*, coalesce(g.group_name, r.customer_group_name) AS group_name",
        "FROM runs r LEFT JOIN groups g USING (customer_group_id) WHERE r.campaign_id = ?",
        "r.run_number DESC",
        campaign_id,
        number=1,
        size=_FIELDS,
    )
    rows = [
        Run(
            run_number=row["run_number"],
            rerun_id=row["rerun_id"],
            customer_group_id=row["customer_group_id"],
            group_name=row["group_name"],
            segment_count=row["segment_count"],
            archived_count=row["archived_count"],
            comparison=None if row["comparison"] is None else json.loads(row["comparison"]),
            created_at=row["created_at"],
        )
        for row in part.rows
    ]
    return evolve(part, rows=rows)


@frozen(kw_only=True)
class Message:
    """A message, opened."""

    message_id: str
    run_number: int
    segment: str
    text: str
    status: str
    updated_at: str


def message_list(
    db: Database, campaign: Any, short: Callable[[str], str], *, archived: bool, run_number: int | None, number: int
) -> Part:
    """A page of the messages of a campaign, of all runs or of one, newest run first."""
    rest = "FROM messages WHERE campaign_id = ? AND is_archived = ?"
    arguments: list[object] = [campaign["campaign_id"], archived]
    if run_number is not None:
        rest += " AND run_number = ?"
        arguments.append(run_number)
    # Sorting whole messages would take several times as long.
    part = _part(db, "position", rest, "run_number DESC, position", *arguments, number=number, size=PAGE)
    positions = json.dumps([row["position"] for row in part.rows])
    query = (
        "SELECT * FROM messages WHERE position IN (SELECT value FROM json_each(?)) ORDER BY run_number DESC, position"
    )
    rows: list[Message] = []
    for row in db.all(query, positions):
        segment, text = campaigns.segment_and_text(db, campaign["account_id"], row)
        rows.append(
            Message(
                message_id=row["message_id"],
                run_number=row["run_number"],
                segment=short(segments.label(segment)),
                text=short(text),
                status=row["review_status"],
                updated_at=row["updated_at"],
            )
        )
    return evolve(part, rows=rows)


_SEALING = 28  # bytes that encryption adds to a file


def files(db: Database, campaign_id: str, number: int) -> Part:
    """The published files of a campaign, newest run first."""
    names = f"file_id, run_number, page, rows, etag, length(sealed) - {_SEALING} AS bytes"
    rest = "FROM files WHERE campaign_id = ?"
    return _part(db, names, rest, "run_number DESC, page", campaign_id, number=number, size=LISTED)


@frozen(kw_only=True)
class File:
    """A published file, opened."""

    campaign_id: str
    campaign_name: str
    run_number: int
    page: int
    header: Sequence[str]
    part: Part


def file(db: Database, file_id: str, number: int, short: Callable[[str], str]) -> File | None:
    """A page of the rows of a published file."""
    query = (
        "SELECT f.campaign_id, f.run_number, f.page, f.rows, c.campaign_name FROM files f "
        "JOIN campaigns c USING (campaign_id) WHERE file_id = ?"
    )
    row = db.one(query, file_id)
    if row is None:
        return None
    content, _ = messages.read_file(db, file_id)
    reader = csv.reader(io.StringIO(content.decode(), newline=""))
    header = next(reader)
    number = min(number, max(-(-row["rows"] // PAGE), 1))
    start = (number - 1) * PAGE
    rows = [[short(value) for value in line] for line in islice(reader, start, start + PAGE)]
    return File(
        campaign_id=row["campaign_id"],
        campaign_name=row["campaign_name"],
        run_number=row["run_number"],
        page=row["page"],
        header=header,
        part=Part(rows=rows, number=number, size=PAGE, total=row["rows"]),
    )
