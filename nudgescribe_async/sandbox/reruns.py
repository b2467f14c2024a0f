"""Reruns: a published campaign again, for another customer group.

Initiating one is a single transaction: the segments of the new group are compared with those of the current run, the
run is recorded, messages of the previous run whose segment matched go to the archive and their texts to the new run
(approved already), and a job is queued. The job archives the orphaned messages and writes those of new segments. With the
setting ``state_while_running`` it also moves the campaign to the state that it has otherwise from the beginning.
``archived_count`` is the number of messages of the previous run, orphans included, as in the example of the reference.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nudgescribe_async.sandbox import campaigns, segments
from nudgescribe_async.sandbox.groups import need_group
from nudgescribe_async.sandbox.messages import need_run
from nudgescribe_async.sandbox.store import Database, new_id, now
from nudgescribe_async.sandbox.values import Refusal

if TYPE_CHECKING:
    from nudgescribe_async.sandbox.values import Caller


def initiate(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``POST /v1/campaign/rerun/initiate``."""
    campaign = campaigns.need(db, who, body["campaign_id"])
    group = need_group(db, who, body["new_customer_group_id"])
    if group["workspace_id"] != campaign["workspace_id"]:
        raise Refusal("bad_request", "Bad Request: the customer group is in another workspace than the campaign")
    if campaign["campaign_status"] != campaigns.PUBLISHED:
        raise Refusal("bad_request", f"Bad Request: the campaign is '{campaign['campaign_status']}', not 'Published'")
    previous = campaigns.current_messages(db, campaign)
    unpublished = sum(row["review_status"] != "Published" for row in previous)
    if unpublished:
        raise Refusal("bad_request", f"Bad Request: {unpublished} messages of the current run are not 'Published'")

    wanted = segments.of_group(db, who.account_id, group["customer_group_id"], campaigns.rules_of(campaign))
    matched = [row for row in previous if row["segment_key"] in wanted]
    comparison = {
        "matched_count": len(matched),
        "new_count": len(wanted) - len(matched),
        "orphaned_count": len(previous) - len(matched),
    }
    rerun_id = new_id()
    run_number = campaign["run_number"] + 1
    ready = campaigns.READY_FOR_REVIEW if comparison["new_count"] else campaigns.READY_TO_PUBLISH
    status = db.settings.state_while_running or ready
    db.run(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        campaign["campaign_id"],
        run_number,
        rerun_id,
        group["customer_group_id"],
        group["group_name"],
        len(wanted),
        len(previous),
        json.dumps(comparison),
        now(),
    )
    db.run(
        "UPDATE campaigns SET customer_group_id = ?, run_number = ? WHERE campaign_id = ?",
        group["customer_group_id"],
        run_number,
        campaign["campaign_id"],
    )
    campaigns.set_status(db, campaign["campaign_id"], status)
    _archive(db, matched)
    for row in matched:
        segment, text = campaigns.segment_and_text(db, who.account_id, row)
        campaigns.add_message(db, campaign, segment, text, status="Approved", run_number=run_number)
    job_uid = db.enqueue("rerun", campaign_id=campaign["campaign_id"], run_number=run_number, ready=ready)
    return {
        "success": True,
        "rerun_id": rerun_id,
        "run_number": run_number,
        "campaign_status": status,
        "job_uid": job_uid,
        "archived_count": len(previous),
        "comparison": comparison,
        "message": "Campaign rerun initiated successfully",
    }


def complete(db: Database, campaign_id: str, run_number: int, ready: str | None) -> None:
    """The job of a rerun: archive the orphans, write the messages of new segments, move to the state ``ready``.

    ``ready`` is ``None`` for what an older sandbox has queued: the campaign is in that state then.
    """
    _archive(
        db,
        db.all(
            "SELECT message_id FROM messages WHERE campaign_id = ? AND run_number < ? AND NOT is_archived",
            campaign_id,
            run_number,
        ),
    )
    campaign = db.one("SELECT * FROM campaigns WHERE campaign_id = ?", campaign_id)
    state: str = ready or campaign["campaign_status"]
    have = {row["segment_key"] for row in campaigns.current_messages(db, campaign)}
    wanted = segments.of_group(db, campaign["account_id"], campaign["customer_group_id"], campaigns.rules_of(campaign))
    if state == campaigns.READY_FOR_REVIEW:
        campaigns.write_messages(db, campaign, [segment for key, segment in wanted.items() if key not in have])
    if state != campaign["campaign_status"]:
        campaigns.set_status(db, campaign_id, state)


def _archive(db: Database, messages: list[Any]) -> None:
    moment = now()
    db.run_many(
        "UPDATE messages SET is_archived = 1, updated_at = ? WHERE message_id = ?",
        [(moment, row["message_id"]) for row in messages],
    )


def history(db: Database, who: Caller, body: dict[str, Any]) -> list[dict[str, Any]]:
    """``POST /v1/campaign/rerun/history``: newest first, down to run 1, which is no rerun and has no id."""
    campaign = campaigns.need(db, who, body["campaign_id"])
    rows = db.all(
        "SELECT r.*, coalesce(g.group_name, r.customer_group_name) AS group_name FROM runs r "
        "LEFT JOIN groups g USING (customer_group_id) WHERE r.campaign_id = ? ORDER BY r.run_number DESC",
        campaign["campaign_id"],
    )
    return [
        {
            "rerun_id": row["rerun_id"],
            "run_number": row["run_number"],
            "customer_group_id": row["customer_group_id"],
            "customer_group_name": row["group_name"],
            "segment_count": row["segment_count"],
            "archived_count": row["archived_count"],
            "comparison": None if row["comparison"] is None else json.loads(row["comparison"]),
            # Only a published run can have been followed by another.
            "campaign_status": campaign["campaign_status"]
            if row["run_number"] == campaign["run_number"]
            else campaigns.PUBLISHED,
            "created_at": row["created_at"],
        }
        for row in rows
    ]


def messages(db: Database, who: Caller, body: dict[str, Any]) -> list[dict[str, Any]]:
    """``POST /v1/campaign/rerun/messages``: active ones of the current run, or all of the run that is named."""
    campaign = campaigns.need(db, who, body["campaign_id"])
    if "run_number" not in body:
        rows = campaigns.current_messages(db, campaign)
    else:
        query = "SELECT * FROM messages WHERE campaign_id = ? AND run_number = ? ORDER BY position"
        rows = db.all(query, campaign["campaign_id"], need_run(campaign, body))
    return [campaigns.message_json(db, who.account_id, row) for row in rows]
