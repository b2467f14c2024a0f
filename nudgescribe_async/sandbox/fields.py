"""Profile fields: what a workspace knows of each customer.

Profiles are encrypted as a whole, so renaming a field and deleting one opens and seals every profile of the
workspace again, those of queued uploads too. Deleting a field deletes the data held in it.
"""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

from nudgescribe_async.sandbox import validation
from nudgescribe_async.sandbox.groups import need_workspace
from nudgescribe_async.sandbox.store import Database, new_id, now
from nudgescribe_async.sandbox.validation import is_empty
from nudgescribe_async.sandbox.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from nudgescribe_async.sandbox.validation import Field, Value
    from nudgescribe_async.sandbox.values import Caller

_BATCH = 2_000


def _row(row: Any) -> dict[str, Any]:
    names = ("profile_field_id", "workspace_id", "field_name", "field_type", "field_format")
    return {
        **{name: row[name] for name in names},
        "is_required": bool(row["is_required"]),
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def _need_workspace(db: Database, who: Caller, body: dict[str, Any]) -> str:
    workspace_id: str = body["workspace_id"]
    need_workspace(db, who, workspace_id, kind="invalid_workspace", message="Invalid Workspace")
    return workspace_id


def _need_field(db: Database, workspace_id: str, profile_field_id: str) -> Any:
    query = "SELECT * FROM fields WHERE profile_field_id = ? AND workspace_id = ?"
    row = db.one(query, profile_field_id, workspace_id)
    if row is None:
        raise Refusal("bad_request", "Bad Request: there is no such profile field")
    return row


def _check_name(name: str) -> None:
    if name != name.strip():
        raise Refusal("bad_request", "Bad Request: field_name must not begin or end with white space")


def of_workspace(db: Database, workspace_id: str) -> dict[str, Field]:
    """The fields of a workspace by name, ready to judge values."""
    rows = db.all("SELECT * FROM fields WHERE workspace_id = ? ORDER BY position", workspace_id)
    return {
        row["field_name"]: validation.build(
            row["profile_field_id"],
            row["field_name"],
            row["field_type"],
            row["field_format"],
            required=bool(row["is_required"]),
        )
        for row in rows
    }


def create(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``PUT /v1/cpf``: names are unique in a workspace."""
    workspace_id = _need_workspace(db, who, body)
    validation.check_definition(body["field_type"], body.get("field_format"))
    _check_name(body["field_name"])
    moment = now()
    profile_field_id = new_id()
    try:
        db.run(
            "INSERT INTO fields (profile_field_id, workspace_id, field_name, field_type, field_format, is_required, "
            "created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            profile_field_id,
            workspace_id,
            body["field_name"],
            body["field_type"],
            body.get("field_format"),
            body.get("is_required", False),
            moment,
            moment,
        )
    except sqlite3.IntegrityError:
        raise Refusal("bad_request", "Bad Request: the workspace has a field of this name") from None
    return _row(_need_field(db, workspace_id, profile_field_id))


def list_all(db: Database, who: Caller, body: dict[str, Any]) -> list[dict[str, Any]]:
    """``POST /v1/cpf``."""
    workspace_id = _need_workspace(db, who, body)
    return [_row(row) for row in db.all("SELECT * FROM fields WHERE workspace_id = ? ORDER BY position", workspace_id)]


def update(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``PATCH /v1/cpf``: what is left out stays; type and format stay as long as there are values."""
    workspace_id = _need_workspace(db, who, body)
    row = _need_field(db, workspace_id, body["profile_field_id"])
    name = body.get("field_name", row["field_name"])
    type_ = body.get("field_type", row["field_type"])
    # A new type does not inherit the format of the old one, which would never fit.
    inherited = row["field_format"] if type_ == row["field_type"] else None
    format_ = body.get("field_format", inherited)
    validation.check_definition(type_, format_)
    _check_name(name)
    changed = (type_, format_) != (row["field_type"], row["field_format"])
    if changed and _has_values(db, who.account_id, workspace_id, row["field_name"]):
        raise Refusal("bad_request", "Bad Request: type and format cannot change while customers have values")
    try:
        db.run(
            "UPDATE fields SET field_name = ?, field_type = ?, field_format = ?, is_required = ?, updated_at = ? "
            "WHERE profile_field_id = ?",
            name,
            type_,
            format_,
            body.get("is_required", bool(row["is_required"])),
            now(),
            row["profile_field_id"],
        )
        if name != row["field_name"]:
            _rewrite(db, who.account_id, workspace_id, lambda profile: _rename(profile, row["field_name"], name))
    except sqlite3.IntegrityError:
        raise Refusal(
            "bad_request", "Bad Request: the workspace has a field of this name, or its values do not identify"
        ) from None
    return _row(_need_field(db, workspace_id, row["profile_field_id"]))


def delete(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``DELETE /v1/cpf``: the field and every value of it."""
    workspace_id = _need_workspace(db, who, body)
    row = _need_field(db, workspace_id, body["profile_field_id"])
    db.run("DELETE FROM fields WHERE profile_field_id = ?", row["profile_field_id"])
    _rewrite(db, who.account_id, workspace_id, lambda profile: _rename(profile, row["field_name"], None))
    return {"success": True, "message": "Profile field deleted successfully"}


def parse_profile(
    fields: dict[str, Field], given: dict[str, Any], *, partial: bool
) -> tuple[dict[str, Value], list[str], list[tuple[str, str]]]:
    """Judge the values of one customer.

    Returns the values to store, the fields to clear, and what is wrong (field and sentence). ``partial`` means
    that only the fields given are judged; otherwise a required field that is not given is wrong.
    """
    values: dict[str, Value] = {}
    cleared: list[str] = []
    wrong: list[tuple[str, str]] = []
    for name, value in given.items():
        field = fields.get(name)
        if field is None:
            wrong.append((name, "is not a profile field of the workspace"))
        elif is_empty(value):
            if field.required:
                wrong.append((name, "is required"))
            cleared.append(name)
        else:
            try:
                values[name] = field.parse(value)
            except ValueError as error:
                wrong.append((name, str(error)))
    if not partial:
        wrong.extend((name, "is required") for name, field in fields.items() if field.required and name not in given)
    return values, cleared, wrong


def _rename(profile: dict[str, Value], old: str, new: str | None) -> bool:
    if old not in profile:
        return False
    value = profile.pop(old)
    if new is not None:
        profile[new] = value
    return True


def _has_values(db: Database, account_id: str, workspace_id: str, name: str) -> bool:
    key = db.key(account_id)
    query = (
        "SELECT customer_id, profile FROM customers WHERE workspace_id = ? "
        "UNION ALL SELECT s.customer_id, s.profile FROM staged s JOIN uploads u USING (upload_id) "
        "WHERE u.workspace_id = ?"
    )
    rows = db.all(query, workspace_id, workspace_id)
    return any(name in key.open_profile(row["customer_id"], row["profile"]) for row in rows)


def _rewrite(db: Database, account_id: str, workspace_id: str, change: Callable[[dict[str, Value]], bool]) -> None:
    """Open, change and seal every profile of a workspace. ``change`` says whether it changed anything."""
    key = db.key(account_id)
    identifier = db.settings.identifier_field

    def sealed(customer_id: str, profile: dict[str, Value]) -> tuple[str | None, str]:
        blind = key.blind(profile[identifier]) if identifier in profile else None
        return blind, key.seal_profile(customer_id, profile)

    last = 0
    while rows := db.all(
        "SELECT seq, customer_id, profile FROM customers WHERE workspace_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        workspace_id,
        last,
        _BATCH,
    ):
        last = rows[-1]["seq"]
        changed: list[tuple[object, ...]] = []
        for row in rows:
            profile = key.open_profile(row["customer_id"], row["profile"])
            if change(profile):
                changed.append((*sealed(row["customer_id"], profile), row["seq"]))
        db.run_many("UPDATE customers SET blind = ?, profile = ? WHERE seq = ?", changed)
    for upload in db.all("SELECT upload_id FROM uploads WHERE workspace_id = ?", workspace_id):
        changed = []
        for row in db.all("SELECT * FROM staged WHERE upload_id = ?", upload["upload_id"]):
            profile = key.open_profile(row["customer_id"], row["profile"])
            cleared = dict.fromkeys(json.loads(row["cleared"]), "")
            if change(profile) | change(cleared):  # type: ignore[arg-type]
                changed.append(
                    (*sealed(row["customer_id"], profile), json.dumps(list(cleared)), row["upload_id"], row["idx"])
                )
        db.run_many("UPDATE staged SET blind = ?, profile = ?, cleared = ? WHERE upload_id = ? AND idx = ?", changed)
