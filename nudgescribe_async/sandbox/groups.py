"""Workspaces and customer groups.

A group that any campaign's current run is for cannot be deleted (400): its campaign could not be published or
looked at any more. That rule is the sandbox's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nudgescribe_async.sandbox.store import Database, new_id, now
from nudgescribe_async.sandbox.values import Refusal

if TYPE_CHECKING:
    from nudgescribe_async.sandbox.values import Caller, RefusalKind

_LISTED = (
    "customer_group_id",
    "account_id",
    "workspace_id",
    "group_name",
    "created_at",
    "updated_at",
    "created_by",
    "updated_by",
)
_CREATED = ("customer_group_id", "account_id", "workspace_id", "group_name", "created_by", "created_at", "updated_at")
_RENAMED = ("customer_group_id", "workspace_id", "group_name", "created_at", "updated_at")


def need_workspace(
    db: Database, who: Caller, workspace_id: str, *, kind: RefusalKind = "bad_request", message: str = ""
) -> None:
    """Refuse a workspace that the caller's account does not have."""
    query = "SELECT 1 FROM workspaces WHERE workspace_id = ? AND account_id = ?"
    if db.one(query, workspace_id, who.account_id) is None:
        raise Refusal(kind, message or "Bad Request: there is no such workspace")


def need_group(db: Database, who: Caller, customer_group_id: str, workspace_id: str | None = None) -> Any:
    """The row of a group of the caller's account, and of the workspace if one is named."""
    query = "SELECT * FROM groups WHERE customer_group_id = ? AND account_id = ?"
    row = db.one(query, customer_group_id, who.account_id)
    if row is None or workspace_id not in {None, row["workspace_id"]}:
        raise Refusal("bad_request", "Bad Request: there is no such customer group")
    return row


def create_workspace(db: Database, account_id: str, name: str) -> str:
    """Another workspace of an account."""
    workspace_id = new_id()
    db.run("INSERT INTO workspaces VALUES (?, ?, ?, (SELECT count(*) FROM workspaces))", workspace_id, account_id, name)
    return workspace_id


def create(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``PUT /v1/cg``: another group each time, whatever it is called."""
    need_workspace(db, who, body["workspace_id"])
    moment = now()
    row = {
        "customer_group_id": new_id(),
        "account_id": who.account_id,
        "workspace_id": body["workspace_id"],
        "group_name": body["group_name"],
        "created_at": moment,
        "updated_at": moment,
        "created_by": who.user_id,
        "updated_by": who.user_id,
    }
    db.run(f"INSERT INTO groups ({', '.join(_LISTED)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row.values())  # noqa: S608
    return {name: row[name] for name in _CREATED}


def list_all(db: Database, who: Caller, body: dict[str, Any]) -> list[dict[str, Any]]:
    """``POST /v1/cg``."""
    need_workspace(db, who, body["workspace_id"])
    rows = db.all("SELECT * FROM groups WHERE workspace_id = ? ORDER BY position", body["workspace_id"])
    return [{name: row[name] for name in _LISTED} for row in rows]


def update(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``PATCH /v1/cg``: edition 1 answers with a TAB behind two of the keys, as its page shows."""
    need_workspace(db, who, body["workspace_id"])
    row = need_group(db, who, body["customer_group_id"], body["workspace_id"])
    db.run(
        "UPDATE groups SET group_name = ?, updated_at = ?, updated_by = ? WHERE customer_group_id = ?",
        body["group_name"],
        now(),
        who.user_id,
        row["customer_group_id"],
    )
    row = need_group(db, who, body["customer_group_id"])
    tab = "\t" if db.settings.edition == 1 else ""
    return {name + tab * name.endswith("_at"): row[name] for name in _RENAMED}


def delete(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``DELETE /v1/cg``: the group, its customers, and what is queued for it."""
    need_workspace(db, who, body["workspace_id"])
    group_id = need_group(db, who, body["customer_group_id"], body["workspace_id"])["customer_group_id"]
    if db.one("SELECT 1 FROM campaigns WHERE customer_group_id = ?", group_id) is not None:
        raise Refusal("bad_request", "Bad Request: a campaign uses this customer group")
    db.run("DELETE FROM customers WHERE customer_group_id = ?", group_id)
    db.run("DELETE FROM groups WHERE customer_group_id = ?", group_id)
    db.customers_changed(group_id)
    return {"success": True, "message": "Customer group deleted successfully"}
