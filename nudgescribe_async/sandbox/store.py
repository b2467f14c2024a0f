"""The database, and the one thread that touches it.

Everything that blocks (SQLite, encryption, reading uploads, writing files) runs on one dedicated thread, in the
order in which it was asked for. So the event loop never waits, and no two pieces of work overlap: that is the whole
concurrency model, and what makes every operation atomic. A unit of work that raises leaves nothing behind.

A file belongs to one running sandbox at a time. It holds everything, the account keys included: it is made for
tests, not for real people's data.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from nudgescribe_async.sandbox.profiles import Key
from nudgescribe_async.sandbox.values import SandboxError, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from nudgescribe_async.sandbox.values import Settings

_P = ParamSpec("_P")
_T = TypeVar("_T")

_APPLICATION_ID = 0x4E756467  # "Nudg"
_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE accounts (account_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, role_code TEXT NOT NULL,
    key BLOB NOT NULL, secret BLOB NOT NULL, publishes INTEGER NOT NULL DEFAULT 0, position INTEGER NOT NULL);
CREATE TABLE used_tokens (jti TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE workspaces (workspace_id TEXT PRIMARY KEY, account_id TEXT NOT NULL, name TEXT NOT NULL,
    position INTEGER NOT NULL);
CREATE TABLE groups (position INTEGER PRIMARY KEY AUTOINCREMENT, customer_group_id TEXT NOT NULL UNIQUE,
    account_id TEXT NOT NULL, workspace_id TEXT NOT NULL, group_name TEXT NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, created_by TEXT NOT NULL, updated_by TEXT NOT NULL);
CREATE TABLE fields (position INTEGER PRIMARY KEY AUTOINCREMENT, profile_field_id TEXT NOT NULL UNIQUE,
    workspace_id TEXT NOT NULL, field_name TEXT NOT NULL, field_type TEXT NOT NULL, field_format TEXT,
    is_required INTEGER NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE (workspace_id, field_name));
CREATE TABLE customers (seq INTEGER PRIMARY KEY AUTOINCREMENT, customer_id TEXT NOT NULL UNIQUE,
    account_id TEXT NOT NULL, workspace_id TEXT NOT NULL, customer_group_id TEXT NOT NULL, blind TEXT,
    profile TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    created_by TEXT NOT NULL, updated_by TEXT NOT NULL);
CREATE INDEX customers_by_group ON customers (customer_group_id, seq);
CREATE UNIQUE INDEX customers_by_blind ON customers (customer_group_id, blind) WHERE blind IS NOT NULL;
CREATE TABLE uploads (upload_id TEXT PRIMARY KEY, account_id TEXT NOT NULL, workspace_id TEXT NOT NULL,
    customer_group_id TEXT NOT NULL, user_id TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE staged (upload_id TEXT NOT NULL, idx INTEGER NOT NULL, customer_id TEXT NOT NULL, blind TEXT,
    profile TEXT NOT NULL, cleared TEXT NOT NULL, PRIMARY KEY (upload_id, idx)) WITHOUT ROWID;
CREATE INDEX staged_by_blind ON staged (upload_id, blind);
CREATE TABLE jobs (position INTEGER PRIMARY KEY AUTOINCREMENT, job_uid TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    payload TEXT NOT NULL, due REAL NOT NULL);
CREATE INDEX jobs_by_due ON jobs (due, position);
CREATE TABLE campaigns (position INTEGER PRIMARY KEY AUTOINCREMENT, campaign_id TEXT NOT NULL UNIQUE,
    account_id TEXT NOT NULL, workspace_id TEXT NOT NULL, campaign_name TEXT NOT NULL, campaign_status TEXT NOT NULL,
    customer_group_id TEXT NOT NULL, run_number INTEGER NOT NULL, segment_by TEXT NOT NULL, template TEXT,
    publishing INTEGER NOT NULL DEFAULT 0, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, published_at TEXT);
CREATE TABLE runs (campaign_id TEXT NOT NULL, run_number INTEGER NOT NULL, rerun_id TEXT,
    customer_group_id TEXT NOT NULL, customer_group_name TEXT NOT NULL, segment_count INTEGER NOT NULL,
    archived_count INTEGER NOT NULL, comparison TEXT, created_at TEXT NOT NULL,
    PRIMARY KEY (campaign_id, run_number)) WITHOUT ROWID;
CREATE TABLE messages (position INTEGER PRIMARY KEY AUTOINCREMENT, message_id TEXT NOT NULL UNIQUE,
    campaign_id TEXT NOT NULL, run_number INTEGER NOT NULL, segment_key TEXT NOT NULL, segment BLOB NOT NULL,
    content BLOB NOT NULL, review_status TEXT NOT NULL, is_archived INTEGER NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE INDEX messages_by_run ON messages (campaign_id, run_number, position);
CREATE TABLE files (file_id TEXT PRIMARY KEY, campaign_id TEXT NOT NULL, run_number INTEGER NOT NULL,
    page INTEGER NOT NULL, account_id TEXT NOT NULL, rows INTEGER NOT NULL, etag TEXT NOT NULL, sealed BLOB NOT NULL,
    UNIQUE (campaign_id, run_number, page));
"""


class Database:
    """One connection with the keys and settings that queries need. Used on the store's thread only."""

    def __init__(self, connection: sqlite3.Connection, settings: Settings) -> None:
        self._sql = connection
        self.settings = settings
        self._keys: dict[str, Key] = {}
        self._page_starts: dict[str, tuple[list[int], int]] = {}

    def one(self, query: str, *arguments: object) -> Any:
        """The first row, or ``None``."""
        return self._sql.execute(query, arguments).fetchone()

    def all(self, query: str, *arguments: object) -> list[Any]:
        """All rows."""
        return self._sql.execute(query, arguments).fetchall()

    def run(self, query: str, *arguments: object) -> int:
        """Change something; the number of rows it touched."""
        return self._sql.execute(query, arguments).rowcount

    def run_many(self, query: str, rows: list[tuple[object, ...]]) -> int:
        """The same for many rows."""
        return self._sql.executemany(query, rows).rowcount

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All of it or nothing."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._page_starts.clear()
            self._sql.execute("ROLLBACK")
            raise
        self._sql.execute("COMMIT")

    def rollback_to(self, savepoint: str) -> None:
        """Undo a part of a transaction."""
        self._page_starts.clear()
        self._sql.execute(f"ROLLBACK TO {savepoint}")

    def meta(self, name: str, default: Callable[[], bytes]) -> bytes:
        """A value that is made once in the life of the database."""
        row = self.one("SELECT value FROM meta WHERE name = ?", name)
        if row is not None:
            return bytes(row["value"])
        value = default()
        self.set_meta(name, value)
        return value

    def set_meta(self, name: str, value: bytes) -> None:
        """Keep a value under a name."""
        self.run("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", name, value)

    def key(self, account_id: str) -> Key:
        """The key of an account."""
        if account_id not in self._keys:
            row = self.one("SELECT key FROM accounts WHERE account_id = ?", account_id)
            self._keys[account_id] = Key(bytes(row["key"]))
        return self._keys[account_id]

    def enqueue(self, kind: str, **payload: object) -> str:
        """Queue a job, together with whatever else this transaction does."""
        job_uid = new_id()
        self.run(
            "INSERT INTO jobs (job_uid, kind, payload, due) VALUES (?, ?, ?, ?)",
            job_uid,
            kind,
            json.dumps(payload),
            time.time() + self.settings.job_time,
        )
        return job_uid

    def page_starts(self, customer_group_id: str) -> tuple[list[int], int]:
        """Where each page of a group begins, and how many customers there are.

        Kept until customers come or go, so that a page far into a large group costs no more than the first.
        """
        if customer_group_id not in self._page_starts:
            starts: list[int] = []
            count = 0
            query = "SELECT seq FROM customers WHERE customer_group_id = ? ORDER BY seq"
            for (seq,) in self._sql.execute(query, (customer_group_id,)):
                if count % self.settings.page_size == 0:
                    starts.append(seq)
                count += 1
            self._page_starts[customer_group_id] = starts, count
        return self._page_starts[customer_group_id]

    def customers_changed(self, customer_group_id: str) -> None:
        """Customers came to a group or left it."""
        self._page_starts.pop(customer_group_id, None)

    def close(self) -> None:
        """Close the connection."""
        self._sql.close()


class Store:
    """The asynchronous face of the database."""

    def __init__(self, path: str | None, settings: Settings) -> None:
        self._path = path
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nudgescribe-sandbox")
        self._db: Database | None = None

    async def open(self) -> None:
        """Open the database, and make it if there is none."""
        self._db = await self._on_thread(_open, self._path, self._settings)

    async def call(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do work on the thread that neither reads nor writes the database."""
        return await self._on_thread(lambda: work(*args, **kwargs))

    async def read(self, work: Callable[[Database], _T]) -> _T:
        """Do work that only reads."""
        return await self._on_thread(work, self._opened())

    async def write(self, work: Callable[[Database], _T]) -> _T:
        """Do work in a transaction."""
        return await self._on_thread(_transact, self._opened(), work)

    async def close(self) -> None:
        """Close the database after what is under way, and end the thread. Idempotent."""
        db, self._db = self._db, None
        if db is not None:
            await self._on_thread(db.close)
        self._thread.shutdown(wait=True)  # nothing is left on the thread: this does not block

    def _opened(self) -> Database:
        if self._db is None:
            raise SandboxError("The sandbox is not running: enter it with 'async with'.")
        return self._db

    async def _on_thread(self, work: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)


def new_id() -> str:
    """An id as the service makes them."""
    return str(uuid.uuid4())


def now() -> str:
    """The time, as it is stored."""
    return timestamp()


def _transact(db: Database, work: Callable[[Database], _T]) -> _T:
    with db.transaction():
        return work(db)


def _open(path: str | None, settings: Settings) -> Database:
    try:
        connection = sqlite3.connect(
            ":memory:" if path is None else path, timeout=0.2, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise SandboxError(f"The database {path} cannot be opened: {error}.") from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        if "locked" in str(error):
            raise SandboxError(f"Another sandbox is running on the database {path}.") from error
        raise SandboxError(f"{path} is not a database of the sandbox: {error}.") from error
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    return Database(connection, settings)


def _prepare(connection: sqlite3.Connection, path: str | None) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if objects and application_id != _APPLICATION_ID:
        raise SandboxError(f"{path} is not a database of the sandbox.")
    if objects and version != _VERSION:
        raise SandboxError(
            f"{path} was made by another version of the sandbox (format {version}, this one reads {_VERSION}): "
            "start with a new file."
        )
    # One running sandbox to a file: it keeps things in memory that another one would not know of.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")
    if not objects:
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {_VERSION}; COMMIT;"
        )
    # Uploads whose request was cut off by the end of the last sandbox.
    connection.execute(
        "DELETE FROM uploads WHERE upload_id NOT IN (SELECT json_extract(payload, '$.upload_id') FROM jobs "
        "WHERE kind = 'upload')"
    )
    connection.execute("DELETE FROM staged WHERE upload_id NOT IN (SELECT upload_id FROM uploads)")
