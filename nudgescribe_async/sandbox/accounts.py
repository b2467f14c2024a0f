"""Accounts: each with one user, a key of its own, and a first workspace."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from nudgescribe_async.sandbox import groups
from nudgescribe_async.sandbox.profiles import new_secret
from nudgescribe_async.sandbox.store import Database, new_id
from nudgescribe_async.sandbox.tokens import Account, TokenOffice
from nudgescribe_async.sandbox.values import SandboxCredentials

if TYPE_CHECKING:
    from nudgescribe_async.sandbox.values import Settings


def open_office(db: Database, settings: Settings) -> TokenOffice:
    """The office that knows all accounts of a database; a new database gets its first one."""
    revoked = {kind: float(db.meta(f"revoked {kind}", lambda: b"0")) for kind in ("access", "refresh")}
    office = TokenOffice(db.meta("jwt secret", new_secret), settings, revoked=revoked)
    for row in db.all("SELECT * FROM accounts ORDER BY position"):
        account = Account(row["account_id"], row["user_id"], row["role_code"], bytes(row["secret"]))
        office.accounts[account.account_id] = account
    if not office.accounts:
        account, _ = add(db)
        office.accounts[account.account_id] = account
    return office


def add(db: Database) -> tuple[Account, str]:
    """Another account, and its first workspace."""
    account = Account(new_id(), new_id(), "ADMIN", secrets.token_bytes(32))
    db.run(
        "INSERT INTO accounts (account_id, user_id, role_code, key, secret, position) "
        "VALUES (?, ?, ?, ?, ?, (SELECT count(*) FROM accounts))",
        account.account_id,
        account.user_id,
        account.role_code,
        new_secret(),
        account.secret,
    )
    return account, groups.create_workspace(db, account.account_id, "Default workspace")


def first_workspaces(db: Database) -> dict[str, str]:
    """The first workspace of each account."""
    rows = db.all("SELECT account_id, workspace_id FROM workspaces ORDER BY position DESC")
    return {row["account_id"]: row["workspace_id"] for row in rows}


def credentials(account: Account, workspace_id: str) -> SandboxCredentials:
    """What a client of the account needs."""
    return SandboxCredentials(
        api_key=account.api_key,
        email=account.email,
        password=account.password,
        account_id=account.account_id,
        workspace_id=workspace_id,
    )
