"""Customers: pages, changes and removals. Uploads have a module of their own.

Pages follow the order in which customers were added, and are cut anew for every request: they are no snapshot.
A page is put together from stored text, envelopes included, without decrypting anything.
"""

from __future__ import annotations

import json
import math
import sqlite3
import uuid
from typing import TYPE_CHECKING, Any

from nudgescribe_async.sandbox import fields
from nudgescribe_async.sandbox.groups import need_group
from nudgescribe_async.sandbox.store import Database, now
from nudgescribe_async.sandbox.values import Refusal

if TYPE_CHECKING:
    from nudgescribe_async.sandbox.values import Caller

_COLUMNS = (
    "customer_id, account_id, workspace_id, customer_group_id, profile, created_at, updated_at, created_by, updated_by"
)


def count_pages(db: Database, who: Caller, body: dict[str, Any], *, shift: int = 0) -> dict[str, Any]:
    """``POST /v1/customer/pages``: an empty group has none."""
    need_group(db, who, body["customer_group_id"])
    return {"pages": _pages(db, body["customer_group_id"], shift)}


def _pages(db: Database, customer_group_id: str, shift: int) -> int:
    starts, count = db.page_starts(customer_group_id)
    return math.ceil(max(count - shift, 0) / db.settings.page_size) if shift else len(starts)


def page(db: Database, who: Caller, body: dict[str, Any], *, shift: int = 0) -> bytes:
    """``POST /v1/customer``: a page past the end is empty.

    With ``shift``, as if so many customers at the front were gone, or had been added there if it is negative. Those
    that were added do not exist: their profiles are empty, and no other operation knows them.
    """
    group = need_group(db, who, body["customer_group_id"])
    number = int(body["page"])
    if number > _pages(db, body["customer_group_id"], shift):
        return b"[]"
    size = db.settings.page_size
    first = (number - 1) * size + shift  # counted from the first customer who exists
    rows = [_added(db, who, group, index) for index in range(first, min(first + size, 0))]
    query = f"SELECT {_COLUMNS} FROM customers WHERE customer_group_id = ? "  # noqa: S608 - names from this module
    if shift:
        query += "ORDER BY seq LIMIT ? OFFSET ?"
        rows += db.all(query, body["customer_group_id"], size - len(rows), max(first, 0))
    else:
        starts, _ = db.page_starts(body["customer_group_id"])
        query += "AND seq >= ? ORDER BY seq LIMIT ?"
        rows += db.all(query, body["customer_group_id"], starts[number - 1], size)
    return f"[{','.join(map(_json, rows))}]".encode()


def _added(db: Database, who: Caller, group: Any, index: int) -> tuple[str, ...]:
    """A customer who seems to have been added at the front, the same one for every request."""
    group_id = group["customer_group_id"]
    customer_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{group_id} {index}"))
    profile = db.key(who.account_id).seal_profile(customer_id, {})
    moment = group["created_at"]
    ids = (customer_id, who.account_id, group["workspace_id"], group_id)
    return (*ids, profile, moment, moment, who.user_id, who.user_id)


def _json(row: Any) -> str:
    # Ids, times and envelopes hold nothing that JSON would escape, and this is the busiest loop of the sandbox.
    customer, account, workspace, group, profile, created_at, updated_at, created_by, updated_by = row
    return (
        f'{{"customer_id":"{customer}","account_id":"{account}","workspace_id":"{workspace}",'
        f'"customer_group_id":"{group}","extended_profile":{profile},"created_at":"{created_at}",'
        f'"updated_at":"{updated_at}","created_by":"{created_by}","updated_by":"{updated_by}"}}'
    )


def update(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``PATCH /v1/customer``: all of the changes or none. Fields that are left out stay, empty ones are cleared."""
    group = need_group(db, who, body["customer_group_id"])
    known = fields.of_workspace(db, group["workspace_id"])
    key = db.key(who.account_id)
    identifier = db.settings.identifier_field
    changed: set[str] = set()
    for change in body["customers"]:
        row = db.one(
            "SELECT seq, profile FROM customers WHERE customer_id = ? AND customer_group_id = ?",
            change["customer_id"],
            group["customer_group_id"],
        )
        if row is None:
            raise Refusal("bad_request", "Bad Request: the group has no such customer")
        values, cleared, wrong = fields.parse_profile(known, change["extended_profile"], partial=True)
        if wrong:
            raise Refusal("bad_request", "Bad Request: " + "; ".join(f"{n[:100]} {text}" for n, text in wrong[:10]))
        profile = key.open_profile(change["customer_id"], row["profile"]) | values
        profile = {name: value for name, value in profile.items() if name not in cleared}
        try:
            db.run(
                "UPDATE customers SET profile = ?, blind = ?, updated_at = ?, updated_by = ? WHERE seq = ?",
                key.seal_profile(change["customer_id"], profile),
                key.blind(profile[identifier]) if identifier in profile else None,
                now(),
                who.user_id,
                row["seq"],
            )
        except sqlite3.IntegrityError:
            raise Refusal("bad_request", f"Bad Request: another customer has this {identifier}") from None
        changed.add(change["customer_id"])
    return {"success": True, "updated_count": len(changed), "message": "Customers updated successfully"}


def delete(db: Database, who: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """``DELETE /v1/customer``: ids that the group does not have are not counted."""
    group = need_group(db, who, body["customer_group_id"])
    deleted = db.run(
        "DELETE FROM customers WHERE customer_group_id = ? AND customer_id IN (SELECT value FROM json_each(?))",
        group["customer_group_id"],
        json.dumps(body["customer_ids"]),
    )
    db.customers_changed(group["customer_group_id"])
    return {"success": True, "deleted_count": deleted, "message": "Customers deleted successfully"}
