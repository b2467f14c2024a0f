"""``POST /v1/customer/check``: customers from a CSV file or from JSON.

The whole upload is refused (400) if its header names no fields or unknown ones, or lacks a required one, and if it
is not CSV in UTF-8. Otherwise each row is judged by itself: bad rows are reported, good ones are taken. Row 1 is the
first row below the header; blank lines are not counted.

With an identifier field in the workspace, a customer of the group with the same identifier is updated: the fields
that the row names are set, or cleared where they are empty, and the others stay. If an identifier comes twice in one
upload, the last row wins. Every other row is a new customer.

Rows are staged in batches, sealed, and become visible all at once: at the end of the request, or in a job where there
are more than ``queue_above`` of them. The receipt is exact either way.
"""

from __future__ import annotations

import csv
import io
import json
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from nudgescribe_async.sandbox import fields
from nudgescribe_async.sandbox.groups import need_group, need_workspace
from nudgescribe_async.sandbox.store import Database, new_id, now
from nudgescribe_async.sandbox.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nudgescribe_async.sandbox.values import Caller

_BATCH = 1_000
_MOST_ERRORS = 1_000
_BAD_ROW = "the row has another number of columns than the header"


class Upload:
    """One upload on its way in. All methods run on the store's thread."""

    def __init__(self, db: Database, who: Caller, body: dict[str, Any], file: IO[bytes] | None) -> None:
        need_workspace(db, who, body["workspace_id"])
        self._group = need_group(db, who, body["customer_group_id"], body["workspace_id"])
        self._fields = fields.of_workspace(db, body["workspace_id"])
        self._key = db.key(who.account_id)
        self._who = who
        self._upload_id = new_id()
        self._rows = 0
        self._accepted = 0
        self._errors: list[dict[str, Any]] = []
        self._source = self._from_json(body["customers"]) if file is None else self._from_csv(file)
        db.run(
            "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)",
            self._upload_id,
            who.account_id,
            body["workspace_id"],
            self._group["customer_group_id"],
            who.user_id,
            now(),
        )

    def stage(self, db: Database) -> bool:
        """Take the next rows in; whether there were any."""
        batch = list(islice(self._source, _BATCH))
        staged: list[tuple[object, ...]] = []
        identifier = db.settings.identifier_field
        for row in batch:
            self._rows += 1
            wrong: list[tuple[str | None, str]] = [(None, _BAD_ROW)]
            if row is not None:
                values, cleared, found = fields.parse_profile(self._fields, row, partial=False)
                wrong = list(found)
                if not wrong:
                    customer_id = new_id()
                    staged.append(
                        (
                            self._upload_id,
                            self._rows,
                            customer_id,
                            self._key.blind(values[identifier]) if identifier in values else None,
                            self._key.seal_profile(customer_id, values),
                            json.dumps(cleared) if cleared else "[]",
                        )
                    )
                    self._accepted += 1
            room = _MOST_ERRORS - len(self._errors)
            self._errors.extend(
                {"row": self._rows, "field": name, "message": text} for name, text in wrong[: max(room, 0)]
            )
        db.run_many("INSERT INTO staged VALUES (?, ?, ?, ?, ?, ?)", staged)
        return bool(batch)

    def finish(self, db: Database, *, queue: bool = True) -> dict[str, Any]:
        """Make the rows visible, or queue the job that will; the receipt."""
        # The group may have been deleted while the rows came in.
        need_group(db, self._who, self._group["customer_group_id"])
        job_uid = None
        if queue and self._rows > db.settings.queue_above:
            job_uid = db.enqueue("upload", upload_id=self._upload_id)
        else:
            apply(db, self._upload_id)
        receipt = {"success": True} | ({} if job_uid is None else {"job_uid": job_uid})
        return receipt | {
            "accepted_count": self._accepted,
            "rejected_count": self._rows - self._accepted,
            "errors": self._errors,
            "message": "Customers uploaded successfully" if job_uid is None else "Customers queued for upload",
        }

    def abandon(self, db: Database) -> None:
        """Forget what was staged."""
        _forget(db, self._upload_id)

    def _from_json(self, customers: list[dict[str, Any]]) -> Iterator[dict[str, Any] | None]:
        self._check_names({name: None for customer in customers for name in customer})
        return iter(customers)

    def _from_csv(self, file: IO[bytes]) -> Iterator[dict[str, Any] | None]:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, strict=True)
        header = [name.strip() for name in _next_row(reader) or ()]
        if not any(header):
            raise Refusal("bad_request", "Bad Request: the file is empty, it needs a header that names profile fields")
        if len(set(header)) < len(header):
            raise Refusal("bad_request", "Bad Request: the header names a field twice")
        self._check_names(dict.fromkeys(header))
        absent = [name for name, field in self._fields.items() if field.required and name not in header]
        if absent:
            raise Refusal("bad_request", f"Bad Request: the header lacks required fields: {', '.join(absent)}")
        return self._csv_rows(reader, header)

    @staticmethod
    def _csv_rows(reader: Iterator[list[str]], header: list[str]) -> Iterator[dict[str, Any] | None]:
        while (row := _next_row(reader)) is not None:
            yield dict(zip(header, row, strict=True)) if len(row) == len(header) else None

    def _check_names(self, names: dict[str, None]) -> None:
        unknown = [name[:100] for name in names if name not in self._fields]
        if unknown:
            listed = ", ".join(repr(name) for name in unknown[:20])
            raise Refusal("bad_request", f"Bad Request: the workspace has no profile fields called {listed}")


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row that is not blank, ``None`` at the end."""
    try:
        for row in reader:
            if row:
                return row
    except UnicodeDecodeError:
        raise Refusal("bad_request", "Bad Request: the file is not encoded in UTF-8") from None
    except csv.Error as error:
        raise Refusal("bad_request", f"Bad Request: the file is not valid CSV: {error}") from None
    return None


def apply(db: Database, upload_id: str) -> None:
    """Move the staged rows of an upload to its group."""
    upload = db.one("SELECT * FROM uploads WHERE upload_id = ?", upload_id)
    if upload is None:
        return
    group_id = upload["customer_group_id"]
    if db.one("SELECT 1 FROM groups WHERE customer_group_id = ?", group_id) is None:
        _forget(db, upload_id)
        return
    db.run(
        "DELETE FROM staged WHERE upload_id = ?1 AND blind IS NOT NULL AND idx NOT IN "
        "(SELECT max(idx) FROM staged WHERE upload_id = ?1 AND blind IS NOT NULL GROUP BY blind)",
        upload_id,
    )
    _merge(db, upload)
    moment = now()
    db.run(
        "INSERT INTO customers (customer_id, account_id, workspace_id, customer_group_id, blind, profile, created_at, "
        "updated_at, created_by, updated_by) SELECT customer_id, ?2, ?3, ?4, blind, profile, ?5, ?5, ?6, ?6 "
        "FROM staged WHERE upload_id = ?1 ORDER BY idx",
        upload_id,
        upload["account_id"],
        upload["workspace_id"],
        group_id,
        moment,
        upload["user_id"],
    )
    _forget(db, upload_id)
    db.customers_changed(group_id)


def _merge(db: Database, upload: Any) -> None:
    """Update the customers whom the group has already, and take their rows out of the stage."""
    key = db.key(upload["account_id"])
    rows = db.all(
        "SELECT s.idx, s.customer_id AS staged_id, s.profile AS staged_profile, s.cleared, c.seq, c.customer_id, "
        "c.profile FROM staged s JOIN customers c ON c.customer_group_id = ? AND c.blind = s.blind "
        "WHERE s.upload_id = ?",
        upload["customer_group_id"],
        upload["upload_id"],
    )
    moment = now()
    changed: list[tuple[object, ...]] = []
    for row in rows:
        cleared = json.loads(row["cleared"])
        profile = key.open_profile(row["customer_id"], row["profile"])
        profile = {name: value for name, value in profile.items() if name not in cleared}
        profile |= key.open_profile(row["staged_id"], row["staged_profile"])
        changed.append((key.seal_profile(row["customer_id"], profile), moment, upload["user_id"], row["seq"]))
    db.run_many("UPDATE customers SET profile = ?, updated_at = ?, updated_by = ? WHERE seq = ?", changed)
    db.run_many(
        "DELETE FROM staged WHERE upload_id = ? AND idx = ?", [(upload["upload_id"], row["idx"]) for row in rows]
    )


def _forget(db: Database, upload_id: str) -> None:
    db.run("DELETE FROM staged WHERE upload_id = ?", upload_id)
    db.run("DELETE FROM uploads WHERE upload_id = ?", upload_id)
