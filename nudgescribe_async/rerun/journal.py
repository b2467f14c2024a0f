"""The journal of a plan: a SQLite file that knows of each campaign what was about to be done, and what came of it.

The file is docs/journal.md. Everything here blocks, and is called in threads, one call at a time. What ``write`` has
returned for is on the disk: after a crash of the process, or of the machine, the next one who opens the journal reads it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, get_args

from attrs import fields

from nudgescribe_async.bulk.files import InUseError, Lock, canonical, flush_folder
from nudgescribe_async.errors import JournalError
from nudgescribe_async.rerun.difference import Difference, to_run
from nudgescribe_async.rerun.holder import (
    holder_in,
    is_beginning,
    is_this_process,
    iso,
    read_holder,
    sign,
    signature,
)
from nudgescribe_async.rerun.item import ItemState, RerunItem, RerunStep, check_move
from nudgescribe_async.version import __version__

if TYPE_CHECKING:
    from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest

__all__ = ["Journal", "default_path"]

APPLICATION: Final = 0x4E534A31
"""The ``application_id`` by which SQLite files tell whose they are: "NSJ1"."""
VERSION: Final = 1
"""Of the schema; the ``user_version`` of the file."""
BUSY_SECONDS = 5.0
"""How long a program that has locked the database is waited for."""

COLUMNS: Final = {field.name: str(field.type) for field in fields(RerunItem)}
"""Those of ``items``, but for the position."""
_STATES: Final = ", ".join(f"'{state}'" for state in get_args(ItemState))
_KINDS: Final = {
    "str": "{0} TEXT NOT NULL CHECK (typeof({0}) = 'text')",
    "str | None": "{0} TEXT CHECK (typeof({0}) IN ('text', 'null'))",
    "int": "{0} INTEGER NOT NULL CHECK (typeof({0}) = 'integer' AND {0} >= 0)",
    "int | None": "{0} INTEGER CHECK (typeof({0}) IN ('integer', 'null'))",
    "bool": "{0} INTEGER NOT NULL CHECK ({0} IN (0, 1))",
    "ItemState": f"{{0}} TEXT NOT NULL CHECK (typeof({{0}}) = 'text' AND {{0}} IN ({_STATES}))",
}
"""What columns are like. The types are constraints, so that ``quick_check`` finds a damaged value too."""
_FLAGS: Final = frozenset(name for name, kind in COLUMNS.items() if kind == "bool")

# A new attribute of an item is a new schema: it needs a new VERSION.
_SCHEMA: Final = (
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
    """CREATE TABLE job (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        plan_digest TEXT NOT NULL CHECK (length(plan_digest) = 64),
        service TEXT NOT NULL,
        created_at TEXT NOT NULL,
        package_version TEXT NOT NULL,
        opened_at TEXT NOT NULL
    )""",
    "CREATE TABLE items (\n        position INTEGER NOT NULL UNIQUE,\n        "
    + ",\n        ".join(_KINDS[kind].format(name) for name, kind in COLUMNS.items())
    + ",\n        PRIMARY KEY (campaign_id)\n    )",
    """CREATE TABLE steps (
        id INTEGER PRIMARY KEY,
        campaign_id TEXT NOT NULL,
        at TEXT NOT NULL,
        step TEXT NOT NULL,
        detail TEXT NOT NULL
    )""",
    """CREATE TRIGGER steps_are_not_changed BEFORE UPDATE ON steps
        BEGIN SELECT RAISE(ABORT, 'steps are only appended'); END""",
    """CREATE TRIGGER steps_are_not_removed BEFORE DELETE ON steps
        BEGIN SELECT RAISE(ABORT, 'steps are only appended'); END""",
)

# Texts travel as bytes: the service may send half of a surrogate pair, which no binding of SQLite takes as a text, and
# what is known of a campaign must not fail to be written for its name.
_VALUES: Final = tuple(
    f"CAST(:{name} AS TEXT)" if "TEXT" in _KINDS[kind] else f":{name}" for name, kind in COLUMNS.items()
)
_INSERT: Final = f"INSERT INTO items (position, {', '.join(COLUMNS)}) VALUES (:position, {', '.join(_VALUES)})"  # noqa: S608 - names of our own
_DELETE: Final = "DELETE FROM items WHERE campaign_id = CAST(? AS TEXT)"
_MOVE: Final = "UPDATE items SET position = ? WHERE campaign_id = CAST(? AS TEXT)"
_UPDATE: Final = (
    "UPDATE items SET "  # noqa: S608 - names of our own
    + ", ".join(f"{name} = {value}" for name, value in zip(COLUMNS, _VALUES, strict=True))
    + " WHERE campaign_id = CAST(:campaign_id AS TEXT)"
)
_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM items ORDER BY position"  # noqa: S608 - names of our own
_STEP: Final = (
    "INSERT INTO steps (campaign_id, at, step, detail)"
    " VALUES (CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT))"
)


def _stored(value: object) -> object:
    return value.encode(errors="surrogatepass") if isinstance(value, str) else value


def read_text(data: bytes) -> str:
    """A text as it stands in the file."""
    return data.decode(errors="surrogatepass")


def _row(item: RerunItem) -> dict[str, object]:
    return {name: _stored(getattr(item, name)) for name in COLUMNS}


def read_item(row: Sequence[Any]) -> RerunItem:
    """An item from the values of ``COLUMNS``."""
    values: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    values.update({name: bool(values[name]) for name in _FLAGS})
    return RerunItem(**values)


# --- what goes wrong ---------------------------------------------------------------------------------------------------

_AGAIN = "then make the same call again, which goes on where it stopped."
_LOST = (
    "If it is lost, ask `reruns.history` of each campaign, and begin a new journal with a plan of those that do not have "
    "their new run yet: a new journal for the whole plan, or an older copy of this one, knows nothing of the runs that "
    "were made, and would make them twice."
)


def _error(path: Path, message: str, advice: str, *, holder: str = "") -> JournalError:
    error = JournalError(message)
    error.path, error.advice, error.holder = str(path), advice, holder
    return error


def _damaged(path: Path, how: str) -> JournalError:
    return _error(path, f"The journal {path} is damaged: {how}.", _LOST)


def _database_error(path: Path, error: sqlite3.Error) -> JournalError:
    """What SQLite says, in words that tell what to do."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the rest of it are details
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return _error(
                path,
                f"Another program has locked the journal {path} for more than {BUSY_SECONDS:g} seconds.",
                f"End its transaction (in the `sqlite3` shell: COMMIT or .quit), {_AGAIN}",
            )
        case sqlite3.SQLITE_FULL:
            return _error(path, f"The disk has no room for the journal {path}.", f"Make room, {_AGAIN}")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _damaged(path, str(error))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return _error(
                path,
                f"The journal {path} cannot be opened for writing: {error}.",
                f"See to it that this user may write the file, and make files in its folder; {_AGAIN}",
            )
        case _:
            return _error(
                path,
                f"The journal {path} cannot be read or written: {error}.",
                f"See whether its disk is full, over a quota, or gone, {_AGAIN}",
            )


@contextmanager
def _explained(path: Path) -> Generator[None]:
    """Whatever fails in here is an error of the journal."""
    try:
        yield
    except sqlite3.Error as error:
        raise _database_error(path, error) from error
    except (OSError, OverflowError, ValueError) as error:
        # ValueError: a path with a NUL in it, a text that is no UTF-8, a time that is none.
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _error(
            path,
            f"The journal {path} cannot be used: {why}.",
            f"See to its folder, disk and permissions, {_AGAIN}",
        ) from error


# --- whose it is -------------------------------------------------------------------------------------------------------


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _take_lock(path: Path) -> Lock:
    lock = _beside(path, ".lock")
    try:
        return Lock(lock)
    except InUseError as error:
        holder = read_holder(lock)
        if is_this_process(holder):
            who, advice = f"another call of this process ({holder})", f"Wait until that call has ended, {_AGAIN}"
        else:
            who = holder
            advice = f"Wait until that process has ended, or end it, {_AGAIN}"
            advice += " Its lock ends with it: there is nothing to remove."
        message = f"The journal {path} is held by {who}: only one at a time can work with it."
        raise _error(path, message, advice, holder=holder) from error


# --- the file ----------------------------------------------------------------------------------------------------------


def default_path(plan: RerunPlan, service: str) -> Path:
    """Where the journal of a plan is kept if nobody says where: in the user's state folder. Nothing is made here.

    That is ``$XDG_STATE_HOME`` if it is an absolute path, else ``~/.local/state``; on macOS and Windows too. The name
    depends on the plan, in whatever order, and on the service.

    Raises:
        JournalError: this user has no home.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    name = hashlib.sha256(canonical([plan.digest, service])).hexdigest()[:16] + ".db"
    if os.path.isabs(state):  # noqa: PTH117 - the empty text is no path
        folder = Path(state)
    else:
        try:
            folder = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise _error(
                Path(name), "There is no place for the journal: this user has no home.", "Say where: journal=PATH."
            ) from error
    return folder / "nudgescribe" / "reruns" / name


def _check_kind(path: Path) -> None:
    """Refuse what no journal can be, before anything is made beside it."""
    try:
        mode = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode.st_mode):
        what = "is a link: its lock would lie beside the link, and not beside the file"
    elif stat.S_ISDIR(mode.st_mode):
        what = "is a folder"
    elif not stat.S_ISREG(mode.st_mode):
        what = "is no regular file"
    elif mode.st_nlink > 1:
        what = "has another name too (a hard link), under which it could be opened at the same time"
    else:
        return
    raise _error(path, f"The journal {path} {what}.", "Name a file, such as reruns.db.")


def _make_folder(folder: Path) -> None:
    missing: list[Path] = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        with suppress(PermissionError):  # one may have the right to make something there, and not to read
            flush_folder(path.parent)


def _is_empty(path: Path) -> bool:
    """Whether there is nothing in the file, or no file."""
    try:
        return not path.lstat().st_size
    except FileNotFoundError:
        return True


def _check_gone(path: Path, *, begun: bool) -> None:
    """Refuse to begin a journal where there was one: it would run everything again.

    Args:
        path: the journal. Nothing is in it.
        begun: whether the lock file says that there was one.
    """
    log, lock = _beside(path, "-wal"), _beside(path, ".lock")
    with suppress(FileNotFoundError):
        if log.lstat().st_size:
            raise _error(
                path,
                f"The journal {path} has been removed or emptied, but {log.name}, which may hold what was written last, "
                "is still there.",
                f"Put back the journal beside it. {_LOST}",
            )
    if begun:
        raise _error(
            path,
            f"The journal {path} has been removed or emptied, or was never begun: its lock file {lock.name} was there "
            "before this call.",
            f"Put back the journal. {_LOST} For a new round, which runs everything again, remove {lock.name}, or name "
            "another journal.",
        )


def _make_file(path: Path) -> None:
    """Have an empty file, for this user only. SQLite gives the files that it makes beside it the same mode."""
    with suppress(FileNotFoundError):
        path.chmod(0o600)
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    flush_folder(path.parent)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{how}", uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = read_text
    return connection


def _value(connection: sqlite3.Connection, pragma: str) -> Any:
    return connection.execute(f"PRAGMA {pragma}").fetchone()[0]


def _check_whose(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether there is a journal in the file that this version can read; ``False`` if nothing is in it."""
    if not _value(connection, "page_count"):
        return False
    if _value(connection, "application_id") != APPLICATION:
        raise _error(path, f"{path} is a SQLite database, but no journal of reruns.", "Name another file.")
    if (version := _value(connection, "user_version")) != VERSION:
        raise _error(
            path,
            f"The journal {path} has version {version}, and this is nudgescribe_async {__version__}, which knows version "
            f"{VERSION}.",
            "Continue with the nudgescribe_async that began it, or with a later one.",
        )
    return True


def _look(path: Path) -> None:
    """Refuse a database of somebody else without any trace: ``immutable`` neither locks nor makes nor removes a file."""
    with closing(_connect(path, "mode=ro&immutable=1")) as connection, suppress(sqlite3.DatabaseError):
        _check_whose(path, connection)
    # What cannot be read so may be a journal whose making was cut short, which SQLite takes back when it opens it.


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has taken it back itself if the disk is full
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _begin(connection: sqlite3.Connection, plan: RerunPlan, service: str, at: str) -> None:
    with _transaction(connection):
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO job VALUES (1, ?, ?, ?, ?, ?)", (plan.digest, service, at, __version__, at))
        for position, request in to_run(plan).items():
            _insert(connection, position, request)


def _insert(connection: sqlite3.Connection, position: int, request: RerunRequest) -> None:
    item = RerunItem(campaign_id=request.campaign_id, new_customer_group_id=request.new_customer_group_id)
    connection.execute(_INSERT, _row(item) | {"position": position})


def _amend(
    connection: sqlite3.Connection, items: Mapping[str, RerunItem], change: Difference, digest: str, at: str
) -> None:
    """Make the journal one for another plan. What was sent for the campaigns that are in both stays as it is."""

    def note(campaign_id: str, step: str, detail: str) -> None:
        connection.execute(_STEP, [_stored(text) for text in (campaign_id, at, step, detail)])

    connection.execute("UPDATE job SET plan_digest = ?", (digest,))
    connection.execute("UPDATE items SET position = -position")  # no two may have the same one, on the way neither
    for step, names in (("removed", change.removed), ("amended", change.regrouped)):
        for name in names:
            connection.execute(_DELETE, (_stored(name),))
            note(name, step, f"it was to be run for the group {items[name].new_customer_group_id}")
    for position, request in change.requests.items():
        name = request.campaign_id
        if name in items and items[name].new_customer_group_id == request.new_customer_group_id:
            connection.execute(_MOVE, (position, _stored(name)))
            continue
        _insert(connection, position, request)
        if name not in items:
            note(name, "added", "the plan was amended")


def _check_content(path: Path, connection: sqlite3.Connection, service: str) -> str:
    """Refuse what is damaged, or somebody else's. Returns the digest of the plan that it is for."""
    if (found := _value(connection, "quick_check(1)")) != "ok":
        raise _damaged(path, found)
    row = connection.execute("SELECT plan_digest, service FROM job").fetchone()
    if row is None:
        raise _damaged(path, "it does not say which plan it is for")
    digest, begun_for = str(row[0]), row[1]
    if begun_for != service:
        raise _error(
            path,
            f"The journal {path} is for the service {begun_for}, and not for {service}.",
            "Take another journal for another service.",
        )
    return digest


def _read(path: Path, connection: sqlite3.Connection) -> dict[str, RerunItem]:
    try:
        with closing(connection.execute(_SELECT)) as rows:  # else an error would keep the file open
            items = [read_item(row) for row in rows]
    except ValueError as error:
        raise _damaged(path, "it holds a text that is none") from error
    return {item.campaign_id: item for item in items}


def _check_items(path: Path, items: Mapping[str, RerunItem], plan: RerunPlan) -> None:
    """Whether somebody has written into it by hand."""
    wanted = {request.campaign_id: request.new_customer_group_id for request in to_run(plan).values()}
    if {name: item.new_customer_group_id for name, item in items.items()} != wanted:
        raise _damaged(path, "its campaigns are not those of the plan that it says it is for")


def _some(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > 3 else ""
    return f"{len(ids):,} ({', '.join(ids[:3])}{more})" if ids else "none"


def _campaigns(count: int) -> str:
    return f"{count:,} campaign{'' if count == 1 else 's'}"


def _other_plan(path: Path, found: Difference) -> JournalError:
    parts = [f"campaigns only in the journal: {_some(found.removed)}", f"only in the plan: {_some(found.added)}"]
    if found.regrouped:
        parts.append(f"in both, but for another group: {_some(found.regrouped)}")
    if not (found.removed or found.added or found.regrouped):
        parts = ["they differ only in items that are not run, since something is wrong with them"]
    count = len(found.repeated)
    again = f"would run {'that campaign' if count == 1 else f'those {_campaigns(count)}'} again; it " if count else ""
    return _error(
        path,
        f"The journal {path} is for another plan; {'; '.join(parts)}. It has run, or may have run, "
        f"{_campaigns(count) if count else 'no campaign'} of this plan.",
        "If the plan was corrected, pass amend=True: what was run stays, and is not run again. "
        f"A new journal {again}is for a new round.",
    )


def _overturned(path: Path, campaigns: Sequence[str]) -> JournalError:
    were, them = ("was", "it") if len(campaigns) == 1 else ("were", "them")
    return _error(
        path,
        f"The journal {path} cannot be amended: {_campaigns(len(campaigns))} {were} sent already, and the plan has {them} no "
        f"longer, more than once, or for another group: {', '.join(campaigns[:3])}{', ...' if len(campaigns) > 3 else ''}.",
        f"Take {them} back into the plan as {'it' if them == 'it' else 'they'} {were}: what was run is not run again, and "
        "nobody else knows of it. What was never sent may be changed.",
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class Journal:
    """What is known of the campaigns of a plan. Made by ``open``; belongs to this process until ``close``.

    Calls are made one at a time, in whichever thread.

    Attributes:
        path: the file.
        continued: whether it had been begun before, for this plan or for the one that was amended.
        taken_over: who held it when it was left without being closed; empty if nobody.
    """

    def __init__(
        self,
        path: Path,
        lock: Lock,
        connection: sqlite3.Connection,
        items: dict[str, RerunItem],
        *,
        now: Callable[[], float],
        continued: bool,
        taken_over: str,
    ) -> None:
        self.path = path
        self.continued = continued
        self.taken_over = taken_over
        self._lock = lock
        self._connection: sqlite3.Connection | None = connection
        self._now = now
        self._items = items
        # Without one of them, what is written is not found again, or somebody else can open the journal as well.
        files = (path, *(_beside(path, suffix) for suffix in ("-wal", "-shm", ".lock")))
        self._files = {file: _identity(file) for file in files}

    @classmethod
    def open(
        cls, path: Path, plan: RerunPlan, *, service: str, now: Callable[[], float], amend: bool = False
    ) -> Journal:
        """Begin the journal of a plan, or go on with it; nobody else can until it is closed, or this process ends.

        Folders that are not there are made, for this user only. A file that is not a journal of this very plan and
        service is left as it is. A journal that was begun, and is not there any more, is not begun again: its lock file,
        which is made with it and stays, tells.

        Args:
            path: the file.
            plan: what is to be run; its order does not matter.
            service: the address of the service.
            now: seconds since 1970.
            amend: the plan was corrected. It may differ from that of the journal in what was never sent: such campaigns may
                be missing, or be for another group, and others may be added. The journal is then for this plan; each change
                is a step, and a crash leaves all of them or none.

        Raises:
            JournalError: somebody else holds it, it is for another plan or service, of another version, damaged, gone, or
                cannot be read or written. With ``amend``: a campaign that may have been run is not in the plan as it was.
            ConfigurationError: this system has no locks for it.
        """
        with _explained(path):
            path = path.absolute()
        with _explained(path), ExitStack() as undo:
            _check_kind(path)
            _make_folder(path.parent)
            lock_file = _beside(path, ".lock")
            known = _identity(lock_file)
            lock = _take_lock(path)
            undo.callback(lock.release)
            before, fresh = lock.signature(), _is_empty(path)
            # Whoever was killed while it began the journal has left nothing but a lock file that says so.
            beginning = fresh or is_beginning(before)
            made = _identity(lock_file) != known or (fresh and is_beginning(before))
            undo.callback(sign, lock, before)
            unmade = undo.enter_context(ExitStack())
            if made:  # it would say that there was a journal
                unmade.callback(_remove, lock_file)
            if fresh:
                _check_gone(path, begun=not made)
            lock.sign(signature(now(), beginning=beginning))
            if fresh:
                _make_file(path)
            _look(path)
            connection = undo.enter_context(closing(_connect(path, "mode=rw")))
            for pragma in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON", "trusted_schema = OFF"):
                connection.execute(f"PRAGMA {pragma}")
            change: Difference | None = None
            continued = _check_whose(path, connection)
            if continued:
                if _check_content(path, connection, service) != plan.digest:
                    change = Difference.between(_read(path, connection), plan)
                    if not amend:
                        raise _other_plan(path, change)
                    if change.overturned:
                        raise _overturned(path, change.overturned)
            else:
                _begin(connection, plan, service, iso(now()))
                unmade.pop_all()
            if beginning:
                lock.sign(signature(now()))
            items = _read(path, connection)
            if (mode := _value(connection, "journal_mode = WAL")) != "wal":
                raise _error(
                    path,
                    f"The journal {path} lies on a file system that cannot keep it safely: SQLite has no write-ahead log "
                    f"there (its mode is {mode!r}).",
                    "Take a journal on a disk of this machine.",
                )
            with _transaction(connection):  # also shows that the disk takes a write, before anything is sent
                connection.execute("UPDATE job SET opened_at = ?", (iso(now()),))
                if change is not None:
                    _amend(connection, items, change, plan.digest, iso(now()))
            items = items if change is None else _read(path, connection)
            _check_items(path, items, plan)
            journal = cls(
                path,
                lock,
                connection,
                items,
                now=now,
                continued=continued,
                taken_over=holder_in(before) if before else "",
            )
            undo.pop_all()
            return journal

    @property
    def items(self) -> Mapping[str, RerunItem]:
        """What is known of each campaign, by its id, in the order of the plan: as it was last written."""
        return MappingProxyType(self._items)

    def write(self, item: RerunItem, step: str, detail: str = "") -> None:
        """Put the item in the place of the one that was known, and note what happened. On the disk when it returns.

        If it fails, nothing is changed, and a later call may succeed.

        Args:
            item: what is known now.
            step: what happened.
            detail: a few words more.

        Raises:
            KeyError: the campaign is not in the journal.
            ValueError: what is known of a campaign cannot change so.
            JournalError: it cannot be written, or the file is not there any more.
        """
        before = self._items[item.campaign_id]
        if item.new_customer_group_id != before.new_customer_group_id:
            raise ValueError("The group that a campaign is to be run for cannot change.")
        check_move(before.state, item.state)
        connection = self._open()
        with _explained(self.path):
            note = (item.campaign_id, iso(self._now()), step, detail)
            with _transaction(connection):
                if connection.execute(_UPDATE, _row(item)).rowcount != 1:
                    raise _damaged(self.path, "a campaign has been removed from it")
                connection.execute(_STEP, [_stored(text) for text in note])
                self._check_place()  # last, since another program may have been waited for
        self._items[item.campaign_id] = item

    def steps(self) -> Mapping[str, tuple[RerunStep, ...]]:
        """What happened to each campaign, by its id, oldest first; in earlier calls too.

        Raises:
            JournalError: it cannot be read.
        """
        found: dict[str, list[RerunStep]] = {campaign: [] for campaign in self._items}
        connection = self._open()
        query = "SELECT campaign_id, at, step, detail FROM steps ORDER BY id"
        with _explained(self.path), closing(connection.execute(query)) as rows:
            for campaign, at, step, detail in rows:
                if campaign in found:  # else it was taken out of the plan
                    found[campaign].append(RerunStep(at=datetime.fromisoformat(at), step=step, detail=detail))
        return {campaign: tuple(steps) for campaign, steps in found.items()}

    def close(self) -> None:
        """Let others open it. May be called more than once."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            # What is not copied into the file is in the one beside it, and is read from there.
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with suppress(sqlite3.Error):
                connection.close()
        finally:
            # The lock file stays: whoever waits for it has it open, and would hold one that nobody else sees.
            sign(self._lock, "")
            self._lock.release()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise _error(self.path, f"The journal {self.path} is closed.", "Open it again.")
        return self._connection

    def _check_place(self) -> None:
        """Refuse to write what nobody would ever read."""
        for file, identity in self._files.items():
            if _identity(file) != identity:
                raise _error(
                    self.path,
                    f"{file} has been removed or replaced while the journal was in use.",
                    f"Put back what was there. {_LOST}",
                )
