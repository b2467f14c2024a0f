"""Publishing: the files that a campaign's messages are exported to.

A page is a file. Files are CSV with CRLF line ends (RFC 4180), one row for each customer of the group who has a
message, in the order of the group. They are sealed in the database. Those of earlier runs stay.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from nudgescribe_async.sandbox import campaigns, segments
from nudgescribe_async.sandbox.store import Database, new_id, now
from nudgescribe_async.sandbox.values import Refusal, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from nudgescribe_async.sandbox.validation import Value
    from nudgescribe_async.sandbox.values import Caller

_CAP = 1_000
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@frozen
class CsvAnswer:
    """An answer that is a CSV file."""

    content: bytes = field(repr=False)


@frozen
class LinkAnswer:
    """An answer that is a signed URL of a file."""

    file_id: str


def publish(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``POST /v1/messages/publish``: the state changes when the job has written the files."""
    campaign = campaigns.need(db, who, body["campaign_id"])
    if campaign["publishing"]:
        raise Refusal("bad_request", "Bad Request: the campaign is being published already")
    if campaign["campaign_status"] != campaigns.READY_TO_PUBLISH:
        raise Refusal(
            "bad_request", f"Bad Request: the campaign is '{campaign['campaign_status']}', not 'Ready to publish'"
        )
    used = db.one("SELECT publishes FROM accounts WHERE account_id = ?", who.account_id)["publishes"]
    quota = db.settings.publish_quota
    if quota is not None and used >= quota:
        raise Refusal("quota_exceeded", f"The export quota of {quota} is used up")
    db.run("UPDATE accounts SET publishes = publishes + 1 WHERE account_id = ?", who.account_id)
    db.run("UPDATE campaigns SET publishing = 1 WHERE campaign_id = ?", campaign["campaign_id"])
    job_uid = db.enqueue("publish", campaign_id=campaign["campaign_id"])
    return {"success": True, "job_uid": job_uid, "message": "Messages queued for publishing"}


def export(db: Database, campaign_id: str, published_at: datetime | None = None) -> None:
    """Write the files of the current run, and move the campaign and its messages to ``Published``."""
    campaign = db.one("SELECT * FROM campaigns WHERE campaign_id = ?", campaign_id)
    run = (campaign_id, campaign["run_number"])
    rows = _rows(db, campaign)
    page = 0
    while part := list(islice(rows, db.settings.rows_per_file)):
        page += 1
        file_id = new_id()
        content = _csv((*_columns(db), "segment", "message"), part)
        etag = hashlib.sha256(content).hexdigest()[:32]
        sealed = db.key(campaign["account_id"]).seal(file_id, content)
        db.run(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(file_id, *run, page, campaign["account_id"], len(part), etag, sealed),
        )
    db.run(
        "UPDATE messages SET review_status = 'Published', updated_at = ? "
        "WHERE campaign_id = ? AND run_number = ? AND NOT is_archived",
        now(),
        *run,
    )
    db.run(
        "UPDATE campaigns SET publishing = 0, published_at = ? WHERE campaign_id = ?",
        timestamp(published_at),
        campaign_id,
    )
    campaigns.set_status(db, campaign_id, campaigns.PUBLISHED)


def _columns(db: Database) -> tuple[str, str]:
    return "customer_id", db.settings.identifier_field


def _rows(db: Database, campaign: Any) -> Iterator[tuple[object, ...]]:
    account_id = campaign["account_id"]
    rules = campaigns.rules_of(campaign)
    key = db.key(account_id)
    texts: dict[tuple[str, ...], tuple[str, str]] = {}
    for message in campaigns.current_messages(db, campaign):
        segment, text = campaigns.segment_and_text(db, account_id, message)
        texts[tuple(segment[name] for name in rules)] = segments.label(segment), text
    query = "SELECT customer_id, profile FROM customers WHERE customer_group_id = ? ORDER BY seq"
    identifier = db.settings.identifier_field
    for row in db.all(query, campaign["customer_group_id"]):
        profile = key.open_profile(row["customer_id"], row["profile"])
        found = texts.get(tuple(segments.segment_of(rules, profile).values()))
        if found is not None:  # a customer who came after the messages were written may have none
            label, text = found
            yield row["customer_id"], profile.get(identifier, ""), label, _render(text, profile)


def _render(text: str, profile: dict[str, Value]) -> str:
    return _PLACEHOLDER.sub(lambda found: str(profile.get(found[1], "")), text)


def _csv(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def count_pages(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``POST /v1/messages/pages``: the files of the current run, or of the one that is named."""
    campaign = campaigns.need(db, who, body["campaign_id"])
    query = "SELECT count(*) AS pages FROM files WHERE campaign_id = ? AND run_number = ?"
    return {"pages": db.one(query, campaign["campaign_id"], need_run(campaign, body))["pages"]}


def need_run(campaign: Any, body: dict[str, Any]) -> int:
    """The run that a request names, or the current one."""
    # Runs are numbered without gaps. Numbers beyond 64 bits must not get as far as SQLite.
    run_number = int(body.get("run_number", campaign["run_number"]))
    if run_number > campaign["run_number"]:
        raise Refusal("bad_request", "Bad Request: the campaign has no such run")
    return run_number


def fetch(db: Database, who: Caller, body: dict[str, Any]) -> CsvAnswer | LinkAnswer | list[dict[str, str]]:
    """``POST /v1/messages/fetch``: a file as it is, as rows (cut at 1,000 without notice), or as a signed URL."""
    campaign = campaigns.need(db, who, body["campaign_id"])
    run_number = need_run(campaign, body)
    format_ = body.get("format", "csv")
    if format_ == "url" and run_number != campaign["run_number"]:
        raise Refusal("bad_request", "Bad Request: a signed URL is not to be had for a historical run")
    page = int(body["page"])
    row = None
    if page < 2**63:
        query = "SELECT file_id FROM files WHERE campaign_id = ? AND run_number = ? AND page = ?"
        row = db.one(query, campaign["campaign_id"], run_number, page)
    if row is None:
        raise Refusal("bad_request", "Bad Request: there is no such page; publish the campaign first")
    if format_ == "url":
        return LinkAnswer(row["file_id"])
    content, _ = read_file(db, row["file_id"])
    if format_ == "csv":
        return CsvAnswer(content)
    return list(islice(csv.DictReader(io.StringIO(content.decode(), newline="")), _CAP))


def read_file(db: Database, file_id: str) -> tuple[bytes, str]:
    """The content of a file and its ETag."""
    row = db.one("SELECT account_id, etag, sealed FROM files WHERE file_id = ?", file_id)
    if row is None:
        raise Refusal("bad_request", "There is no such file")
    return db.key(row["account_id"]).open(file_id, row["sealed"]), row["etag"]
