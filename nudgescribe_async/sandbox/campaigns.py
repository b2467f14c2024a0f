"""Campaigns: made in code, since the API cannot; written, reviewed, listed.

::

    (generated) -> Ready for review -> Ready to publish -> Published
                        ^    approve        |  ^   publish     |
                        +-----reject--------+  +---- rerun ---+  (or back to Ready for review)

With the setting ``state_while_running``, a campaign is in that state from its rerun until the job of it has run. In code it
can be put in any state, which stops what is queued for it.

A campaign has one message for each segment of its group. A message is ``Pending`` until it is approved or rejected,
and ``Published`` once its campaign is. Texts and segments are sealed like profiles, for they hold profile values.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nudgescribe_async.sandbox import fields, segments
from nudgescribe_async.sandbox.groups import need_group
from nudgescribe_async.sandbox.store import Database, new_id, now
from nudgescribe_async.sandbox.values import STATES, Refusal, SandboxError, parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nudgescribe_async.sandbox.segments import Segment, SegmentBy
    from nudgescribe_async.sandbox.values import Caller

READY_FOR_REVIEW, READY_TO_PUBLISH, PUBLISHED = STATES
_STAGES = {"Pending": "In review", "Approved": "Approved", "Rejected": "Returned to the author", "Published": "Done"}
# The texts need quoting in a CSV file, on purpose: whoever reads the files has to get that right.
_TEXTS = (
    'you are one of our "{segment}" customers, and we have something for you.',
    "good to see you again!\nFor {segment}: free delivery, until Sunday.",
    "thank you, from all of us; {segment} is a club of its own.",
)


def create(
    db: Database,
    who: Caller,
    *,
    name: str,
    customer_group_id: str,
    segment_by: Mapping[str, Sequence[float] | None],
    template: str | None,
) -> str:
    """A campaign with its messages written, ready for review."""
    group = need_group(db, who, customer_group_id)
    rules = segments.normalise(segment_by, fields.of_workspace(db, group["workspace_id"]))
    campaign_id = new_id()
    moment = now()
    db.run(
        "INSERT INTO campaigns (campaign_id, account_id, workspace_id, campaign_name, campaign_status, "
        "customer_group_id, run_number, segment_by, template, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?)",
        campaign_id,
        who.account_id,
        group["workspace_id"],
        name,
        READY_FOR_REVIEW,
        customer_group_id,
        json.dumps(rules),
        template,
        moment,
        moment,
    )
    found = segments.of_group(db, who.account_id, customer_group_id, rules)
    db.run(
        "INSERT INTO runs VALUES (?, 1, NULL, ?, ?, ?, 0, NULL, ?)",
        campaign_id,
        customer_group_id,
        group["group_name"],
        len(found),
        moment,
    )
    write_messages(db, need(db, who, campaign_id), found.values())
    return campaign_id


def need(db: Database, who: Caller, campaign_id: str) -> Any:
    """The row of a campaign of the caller's account."""
    query = "SELECT * FROM campaigns WHERE campaign_id = ? AND account_id = ?"
    row = db.one(query, campaign_id, who.account_id)
    if row is None:
        raise Refusal("bad_request", "Bad Request: there is no such campaign")
    return row


def rules_of(campaign: Any) -> SegmentBy:
    """How a campaign divides its customers."""
    rules: SegmentBy = json.loads(campaign["segment_by"])
    return rules


def write_messages(db: Database, campaign: Any, wanted: Iterable[Segment]) -> None:
    """Write the message of each segment, for the current run."""
    identifier = db.settings.identifier_field
    for number, segment in enumerate(wanted):
        text = campaign["template"] or f"Dear customer {{{identifier}}}, {_TEXTS[number % len(_TEXTS)]}"
        text = text.replace("{segment}", segments.label(segment))
        add_message(db, campaign, segment, text, status="Pending", run_number=campaign["run_number"])


def add_message(db: Database, campaign: Any, segment: Segment, text: str, *, status: str, run_number: int) -> None:
    """Add one message to a run."""
    key = db.key(campaign["account_id"])
    message_id = new_id()
    moment = now()
    db.run(
        "INSERT INTO messages (message_id, campaign_id, run_number, segment_key, segment, content, review_status, "
        "is_archived, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
        message_id,
        campaign["campaign_id"],
        run_number,
        segments.segment_key(key, segment),
        key.seal(f"{message_id}:segment", json.dumps(segment).encode()),
        key.seal(f"{message_id}:content", text.encode()),
        status,
        moment,
        moment,
    )


def segment_and_text(db: Database, account_id: str, message: Any) -> tuple[Segment, str]:
    """What is sealed in a message."""
    key = db.key(account_id)
    segment: Segment = json.loads(key.open(f"{message['message_id']}:segment", message["segment"]))
    return segment, key.open(f"{message['message_id']}:content", message["content"]).decode()


def message_json(db: Database, account_id: str, message: Any) -> dict[str, Any]:
    """A message as the API shows it."""
    segment, text = segment_and_text(db, account_id, message)
    return {
        "message_id": message["message_id"],
        "campaign_id": message["campaign_id"],
        "run_number": message["run_number"],
        "segment": segment,
        "content": text,
        "review_status": message["review_status"],
        "approval_stage": _STAGES[message["review_status"]],
        "is_archived": bool(message["is_archived"]),
        "created_at": message["created_at"],
        "updated_at": message["updated_at"],
    }


def current_messages(db: Database, campaign: Any) -> list[Any]:
    """The active messages of the current run."""
    return db.all(
        "SELECT * FROM messages WHERE campaign_id = ? AND run_number = ? AND NOT is_archived ORDER BY position",
        campaign["campaign_id"],
        campaign["run_number"],
    )


def set_status(db: Database, campaign_id: str, status: str) -> None:
    """Move a campaign to another state."""
    db.run("UPDATE campaigns SET campaign_status = ?, updated_at = ? WHERE campaign_id = ?", status, now(), campaign_id)


def force_status(db: Database, campaign_id: str, status: str) -> None:
    """Move a campaign to any state. What is queued for it is dropped, or it would move on by itself."""
    db.run("DELETE FROM jobs WHERE json_extract(payload, '$.campaign_id') = ?", campaign_id)
    db.run("UPDATE campaigns SET publishing = 0 WHERE campaign_id = ?", campaign_id)
    set_status(db, campaign_id, status)


def review(db: Database, who: Caller, campaign_id: str, message_ids: Sequence[str] | None, *, approved: bool) -> str:
    """Approve or reject messages of the current run, all of them by default; the state of the campaign.

    A campaign goes to ``Ready to publish`` once all its messages are approved, and back to ``Ready for review`` once
    one is not. A published campaign stays published: rejecting a message of it takes that message back (so that a
    rerun is refused), approving puts it out again.
    """
    campaign = need(db, who, campaign_id)
    current = {row["message_id"]: row for row in current_messages(db, campaign)}
    for message_id in current if message_ids is None else message_ids:
        if message_id not in current:
            raise SandboxError(f"The current run of the campaign has no message {message_id}.")
    published = campaign["campaign_status"] == PUBLISHED
    if published and message_ids is None and not approved:
        raise SandboxError("The campaign is published: name the messages to take back.")
    if campaign["publishing"]:
        raise SandboxError("The campaign is being published: wait for that with drain().")
    status = ("Published" if published else "Approved") if approved else "Rejected"
    chosen = list(current) if message_ids is None else list(message_ids)
    db.run_many(
        "UPDATE messages SET review_status = ?, updated_at = ? WHERE message_id = ?",
        [(status, now(), message_id) for message_id in chosen],
    )
    if published:
        return PUBLISHED
    done = all(row["review_status"] == "Approved" for row in current_messages(db, campaign))
    set_status(db, campaign_id, READY_TO_PUBLISH if done else READY_FOR_REVIEW)
    return READY_TO_PUBLISH if done else READY_FOR_REVIEW


def list_all(db: Database, who: Caller, body: dict[str, Any]) -> list[dict[str, Any]]:
    """``POST /v1/campaign/all``: with a window, only campaigns that were published in it, its ends included.

    Workspaces without a campaign to show are left out.
    """
    try:
        window = [parse_timestamp(body[end]) if end in body else None for end in ("published_from", "published_to")]
    except ValueError:
        raise Refusal("bad_request", "Bad Request: published_from and published_to must be ISO 8601 times") from None
    rows = db.all(
        "SELECT c.*, w.name AS workspace_name FROM campaigns c JOIN workspaces w USING (workspace_id) "
        "WHERE c.account_id = ? ORDER BY w.position, c.position",
        who.account_id,
    )
    answer: dict[str, dict[str, Any]] = {}
    for row in rows:
        if not _within(row["published_at"], *window):
            continue
        workspace = answer.setdefault(
            row["workspace_id"],
            {"workspace_id": row["workspace_id"], "workspace_name": row["workspace_name"], "campaigns": []},
        )
        names = ("campaign_id", "campaign_name", "campaign_status", "customer_group_id", "run_number")
        times = ("created_at", "updated_at", "published_at")
        workspace["campaigns"].append({name: row[name] for name in names + times})
    return list(answer.values())


def _within(published_at: str | None, start: Any, end: Any) -> bool:
    if start is None and end is None:
        return True
    if published_at is None:
        return False
    moment = parse_timestamp(published_at)
    return (start is None or start <= moment) and (end is None or moment <= end)
