"""The journal: what it keeps, whom it refuses, and what it says where the disk does not play along."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from attrs import evolve, fields
from hypothesis import given, settings
from hypothesis import strategies as st

from nudgescribe_async import ConfigurationError
from nudgescribe_async.address import checked_base_url
from nudgescribe_async.bulk.files import names_in
from nudgescribe_async.errors import JournalError
from nudgescribe_async.rerun import journal as module
from nudgescribe_async.rerun.holder import signature
from nudgescribe_async.rerun.item import _MOVES, ItemState, RerunItem
from nudgescribe_async.rerun.journal import Journal, default_path
from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest
from nudgescribe_async.testing import VirtualClock

SERVICE = "https://api.example.com"
BEGAN = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
PLAN = RerunPlan.of([RerunRequest(f"c{number}", f"g{number}") for number in range(1, 6)])


def now() -> float:
    return BEGAN.timestamp()


def opened(path: Path, plan: RerunPlan = PLAN, service: str = SERVICE, *, amend: bool = False) -> Journal:
    return Journal.open(path, plan, service=service, now=now, amend=amend)


def refused(path: Path, plan: RerunPlan = PLAN, service: str = SERVICE, *, amend: bool = False) -> JournalError:
    with pytest.raises(JournalError) as caught:
        opened(path, plan, service, amend=amend)
    assert caught.value.path == str(path)
    assert caught.value.advice.endswith(".")
    return caught.value


def intended(item: RerunItem, attempts: int = 1) -> RerunItem:
    return evolve(item, state="intended", attempts=attempts, newest_run=3)


def query(path: Path, statement: str) -> Any:
    """What another program would see."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names_in(folder)}


def open_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()]) if Path("/proc/self/fd").is_dir() else 0


PREAMBLE: Final = """
import json, os, resource, signal, sys, time
from pathlib import Path
from attrs import evolve
from nudgescribe_async.errors import JournalError
from nudgescribe_async.rerun import journal
from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest

path = Path(sys.argv[1])
plan = RerunPlan.of([RerunRequest(f"c{number}", f"g{number}") for number in range(1, 6)])

def opened():
    return journal.Journal.open(path, plan, service="https://api.example.com", now=time.time)

def intended(item, attempts):
    return evolve(item, state="intended", attempts=attempts, reason="x" * 2000)

def said(error):
    return {"text": str(error), "cause": type(error.__cause__).__name__, "path": error.path}
"""


def child(program: str, path: Path, *, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-c", PREAMBLE + program, str(path)], capture_output=True, text=True, check=False
    )


def answer(program: str, path: Path, *, before: tuple[str, ...] = ()) -> Any:
    ended = child(program, path, before=before)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


# --- what it keeps -----------------------------------------------------------------------------------------------------


def test_a_new_journal_has_every_campaign_of_the_plan_as_planned(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    journal = opened(path)
    assert (journal.path, journal.continued, journal.taken_over) == (path, False, "")
    assert dict(journal.items) == {
        request.campaign_id: RerunItem(
            campaign_id=request.campaign_id, new_customer_group_id=request.new_customer_group_id
        )
        for request in PLAN
    }
    assert journal.steps() == {f"c{number}": () for number in range(1, 6)}
    journal.close()
    journal.close()
    assert names_in(tmp_path) == {"reruns.db", "reruns.db.lock"}


COLUMNS_OF_VERSION_1 = [
    "position",
    "campaign_id",
    "new_customer_group_id",
    "state",
    "campaign_name",
    "attempts",
    "newest_run",
    "run_number",
    "rerun_id",
    "adopted",
    "job_uid",
    "campaign_status",
    "archived_count",
    "matched_count",
    "new_count",
    "orphaned_count",
    "publish_attempts",
    "publish_accepted",
    "directory",
    "files",
    "reason",
]


def test_the_file_is_what_its_page_says(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    journal = opened(path)
    journal.write(intended(journal.items["c2"]), "intended", "for the first time")
    assert journal._connection is not None
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    journal.close()
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert query(path, "PRAGMA application_id") == [(0x4E534A31,)]
    assert query(path, "PRAGMA user_version") == [(1,)]
    at = "2026-11-21T10:00:00.000000+00:00"
    [(digest, service, created, opened_at)] = query(path, "SELECT plan_digest, service, created_at, opened_at FROM job")
    assert (digest, service, created, opened_at) == (PLAN.digest, SERVICE, at, at)
    columns = [row[1] for row in query(path, "PRAGMA table_info(items)")]
    assert columns == COLUMNS_OF_VERSION_1, "another schema needs another VERSION, and a line in docs/journal.md"
    assert query(path, "SELECT position, campaign_id, state FROM items ORDER BY position LIMIT 2") == [
        (1, "c1", "planned"),
        (2, "c2", "intended"),
    ]
    assert query(path, "SELECT * FROM steps") == [(1, "c2", at, "intended", "for the first time")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE items SET state = 'unheard of'",
        "UPDATE items SET attempts = -1",
        "UPDATE items SET run_number = 'many'",
        "UPDATE steps SET step = 'other'",
        "DELETE FROM steps",
        "INSERT INTO job SELECT 2, plan_digest, service, created_at, package_version, opened_at FROM job",
    ],
)
def test_a_person_cannot_write_nonsense_into_it_by_mistake(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        journal.write(intended(journal.items["c1"]), "intended")
    with pytest.raises(sqlite3.IntegrityError):
        query(path, statement)


WHOLE = RerunItem(
    campaign_id="c1",
    new_customer_group_id="g1",
    state="intended",
    campaign_name="Spring \u00e9\U0001f33c \ud800 and \0 and '\"; DROP TABLE items",
    attempts=2,
    newest_run=3,
    run_number=4,
    rerun_id="r-4",
    adopted=True,
    job_uid="job",
    campaign_status="Ready for review",
    archived_count=5,
    matched_count=6,
    new_count=7,
    orphaned_count=8,
    publish_attempts=9,
    publish_accepted=True,
    directory="/some/where",
    files=10,
    reason="because",
)


def test_every_attribute_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    defaults = {field.name: field.default for field in fields(RerunItem)}
    assert all(getattr(WHOLE, name) != default for name, default in defaults.items())
    journal = opened(path)
    journal.write(WHOLE, "intended", "half of a pair: \udfff")
    journal.close()
    with closing(opened(path)) as again:
        assert again.continued
        assert again.items["c1"] == WHOLE
        assert again.items["c1"].adopted is True
        assert [step.detail for step in again.steps()["c1"]] == ["half of a pair: \udfff"]
        assert again.items["c2"].state == "planned"


def test_ids_are_any_texts(tmp_path: Path) -> None:
    plan = RerunPlan.of([RerunRequest(name, "g") for name in ("a\0b", "a", "\N{GRINNING FACE}", "x y", "A")])
    path = tmp_path / "reruns.db"
    with closing(opened(path, plan)) as journal:
        for item in tuple(journal.items.values()):
            journal.write(intended(item), "intended", item.campaign_id)
    with closing(opened(path, plan)) as journal:
        assert [*journal.items] == ["a\0b", "a", "\N{GRINNING FACE}", "x y", "A"]
        assert {item.state for item in journal.items.values()} == {"intended"}
        assert all(step.detail == name for name, steps in journal.steps().items() for step in steps)


def test_items_with_which_something_is_wrong_are_not_in_it(tmp_path: Path) -> None:
    plan = RerunPlan.of(
        [
            RerunRequest(*pair)
            for pair in [("a", "1"), ("b", "1"), ("a", "2"), ("", "3"), ("c", " "), ("\udc00", "4"), ("d", "\ud800")]
        ]
    )
    with closing(opened(tmp_path / "reruns.db", plan)) as journal:
        assert [*journal.items] == ["b"]
    with closing(opened(tmp_path / "reruns.db", plan)) as journal:
        assert [*journal.items] == ["b"]


def test_it_goes_on_with_the_same_plan_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        journal.write(intended(journal.items["c4"]), "intended")
        journal.write(evolve(journal.items["c4"], state="started", run_number=4), "started", "run 4")
        before = dict(journal.items)
    with closing(opened(path, RerunPlan.of(reversed(PLAN.requests)))) as journal:
        assert (journal.continued, journal.taken_over) == (True, "")
        assert dict(journal.items) == before
        steps = journal.steps()["c4"]
    assert [(step.at, step.step, step.detail) for step in steps] == [
        (BEGAN, "intended", ""),
        (BEGAN, "started", "run 4"),
    ]


def test_items_cannot_be_changed_but_by_writing(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "reruns.db")) as journal:
        with pytest.raises(TypeError):
            journal.items["c1"] = WHOLE  # type: ignore[index]
        seen = journal.items
        journal.write(WHOLE, "intended")
        assert seen["c1"] == WHOLE


def test_what_may_not_be_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    journal = opened(path)
    item = journal.items["c1"]
    with pytest.raises(ValueError, match="'planned' cannot become 'published'"):
        journal.write(evolve(item, state="published"), "published")
    with pytest.raises(KeyError, match="c9"):
        journal.write(evolve(item, campaign_id="c9", state="intended"), "intended")
    with pytest.raises(ValueError, match="group"):
        journal.write(evolve(item, new_customer_group_id="g2", state="intended"), "intended")
    with pytest.raises(JournalError):
        journal.write(evolve(item, state="intended", run_number=2**63), "intended")
    with pytest.raises(JournalError):
        journal.write(evolve(item, state="intended", attempts=-1), "intended")
    assert journal.items["c1"] == item
    journal.write(intended(item), "intended")
    journal.close()
    assert query(path, "SELECT campaign_id, step FROM steps") == [("c1", "intended")]


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = opened(tmp_path / "reruns.db")
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.write(WHOLE, "intended")
    with pytest.raises(JournalError, match="is closed"):
        journal.steps()


STATES = get_args(ItemState)
texts = st.none() | st.text(max_size=20)
counts = st.none() | st.integers(min_value=0, max_value=2**62)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_written_is_read_again_and_whatever_may_not_be_changes_nothing(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "reruns.db"
        journal = stack.enter_context(closing(opened(path)))
        model = dict(journal.items)
        steps: dict[str, list[tuple[str, str]]] = {name: [] for name in model}
        for _ in range(data.draw(st.integers(0, 12))):
            name = data.draw(st.sampled_from(sorted(model)[:2]))
            legal = sorted({*_MOVES[model[name].state], model[name].state})
            after = data.draw(st.sampled_from(legal) | st.sampled_from(STATES))
            item = evolve(
                model[name],
                state=after,
                attempts=data.draw(st.integers(0, 2**62)),
                newest_run=data.draw(counts),
                adopted=data.draw(st.booleans()),
                campaign_name=data.draw(texts),
                reason=data.draw(st.text(max_size=20)),
            )
            detail = data.draw(st.text(max_size=20))
            if after in legal:
                journal.write(item, after, detail)
                model[name] = item
                steps[name].append((after, detail))
            else:
                with pytest.raises(ValueError, match="cannot become"):
                    journal.write(item, after, detail)
            if data.draw(st.booleans()):
                journal.close()
                journal = stack.enter_context(closing(opened(path)))
                assert journal.continued
            assert dict(journal.items) == model
        journal.close()
        journal = stack.enter_context(closing(opened(path)))
        assert dict(journal.items) == model
        found = {name: [(step.step, step.detail) for step in made] for name, made in journal.steps().items()}
        assert found == steps


# --- whose it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_nobody_else_may_read_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "state" / "reruns" / "x.db"
    if umask == 0o777:  # this one is for the file alone
        path = tmp_path / "x.db"
    before = os.umask(umask)
    try:
        journal = opened(path)
    finally:
        os.umask(before)
    journal.write(WHOLE, "intended")
    modes = {name: stat.S_IMODE((path.parent / name).stat().st_mode) for name in names_in(path.parent)}
    journal.close()
    if umask == 0o777:
        assert modes.pop("x.db.lock") == 0  # held by its descriptor
        assert modes == dict.fromkeys(["x.db", "x.db-wal", "x.db-shm"], 0o600)
        return
    assert modes == dict.fromkeys(["x.db", "x.db-wal", "x.db-shm", "x.db.lock"], 0o600)
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)} == {0o700}


def test_an_empty_file_is_a_new_journal(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    path.touch(0o644)
    journal = opened(path)
    assert not journal.continued
    assert len(journal.items) == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    journal.close()


def test_a_second_one_in_this_process_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    journal = opened(path)
    before = open_descriptors()
    error = refused(path)
    assert open_descriptors() == before
    assert error.holder == f"process {os.getpid()} on {os.uname().nodename}, since 2026-11-21 10:00:00 UTC"
    assert error.holder in str(error)
    assert f"is held by another call of this process ({error.holder})" in str(error)
    assert "Wait until that call has ended, then" in error.advice
    assert "end it" not in error.advice
    journal.write(WHOLE, "intended")  # and the first is not disturbed
    journal.close()
    with closing(opened(path)) as again:
        assert (again.items["c1"], again.taken_over) == (WHOLE, "")


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    program = """
try:
    opened()
except JournalError as error:
    print(json.dumps([error.holder, str(error)]))
"""
    with closing(opened(path)):
        holder, text = answer(program, path)
    assert holder == f"process {os.getpid()} on {os.uname().nodename}, since 2026-11-21 10:00:00 UTC"
    assert f"is held by {holder}" in text
    assert "or end it" in text
    assert "nothing to remove" in text


def test_a_holder_that_says_nothing_holds_it_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)):
        path.with_name("reruns.db.lock").write_text("")
        assert refused(path).holder == "another process, which has not said its name"


@pytest.mark.parametrize(
    "nonsense",
    ["nonsense", "[1]", "{}", '{"process": 1, "machine": "a\\u001bb", "since": "2026-11-21T10:00:00+00:00"}'],
)
def test_a_lock_file_with_nonsense_is_taken_over_from_a_nameless_process(tmp_path: Path, nonsense: str) -> None:
    path = tmp_path / "reruns.db"
    opened(path).close()
    path.with_name("reruns.db.lock").write_text(nonsense)
    with closing(opened(path)) as journal:
        assert journal.taken_over == "another process, which has not said its name"


def test_closing_clears_the_name_and_leaves_the_lock_file(tmp_path: Path) -> None:
    path, lock = tmp_path / "reruns.db", tmp_path / "reruns.db.lock"
    journal = opened(path)
    held = json.loads(lock.read_text())
    assert held == {
        "process": os.getpid(),
        "machine": os.uname().nodename,
        "since": "2026-11-21T10:00:00.000000+00:00",
    }
    journal.close()
    assert lock.read_bytes() == b""


OTHERS = [f"d{number}" for number in range(1, 6)]


@pytest.mark.parametrize(
    ("requests", "parts"),
    [
        (
            [("c1", "g1"), ("n1", "g")],
            ["only in the journal: 4 (c2, c3, c4, ...)", "only in the plan: 1 (n1)"],
        ),
        ([(f"c{n}", f"g{n}") for n in range(1, 5)], ["only in the journal: 1 (c5)", "only in the plan: none"]),
        (
            [*((f"c{n}", f"g{n}") for n in range(1, 6)), *((name, "g") for name in OTHERS)],
            ["only in the journal: none", "only in the plan: 5 (d1, d2, d3, ...)"],
        ),
        (
            [("c1", "other"), *((f"c{n}", f"g{n}") for n in range(2, 6))],
            ["only in the plan: none", "in both, but for another group: 1 (c1)"],
        ),
        ([*((f"c{n}", f"g{n}") for n in range(1, 6)), ("", "g")], ["differ only in items that are not run"]),
    ],
)
def test_a_journal_of_another_plan_is_refused_and_left_alone(
    tmp_path: Path, requests: list[tuple[str, str]], parts: list[str]
) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        journal.write(WHOLE, "intended")
    lock = tmp_path / "reruns.db.lock"
    lock.write_text("somebody who crashed")
    before, descriptors = contents(tmp_path), open_descriptors()
    error = refused(path, RerunPlan.of([RerunRequest(*pair) for pair in requests]))
    assert "for another plan" in str(error)
    assert "It has run, or may have run, 1 campaign of this plan." in str(error)
    assert "pass amend=True" in error.advice
    assert "would run that campaign again" in error.advice
    assert [part for part in parts if part not in str(error)] == []
    assert contents(tmp_path) == before
    assert open_descriptors() == descriptors
    opened(path).close()


@pytest.mark.parametrize(("run", "said"), [(0, "no campaign"), (1, "1 campaign"), (3, "3 campaigns")])
def test_it_is_said_how_many_campaigns_a_new_journal_would_run_again(tmp_path: Path, run: int, said: str) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        for number in range(1, run + 1):
            journal.write(intended(journal.items[f"c{number}"]), "intended")
        journal.write(evolve(journal.items["c4"], state="refused"), "refused")
        journal.write(intended(journal.items["c5"]), "intended")  # it is not in the other plan
    error = refused(path, RerunPlan.of([*PLAN.requests[:4], RerunRequest("c6", "g6")]))
    assert str(error).startswith(f"The journal {path} is for another plan; campaigns only in the journal: 1 (c5)")
    assert f"It has run, or may have run, {said} of this plan." in str(error)
    assert "If the plan was corrected, pass amend=True: what was run stays, and is not run again." in error.advice
    again = {0: "", 1: " would run that campaign again; it", 3: " would run those 3 campaigns again; it"}[run]
    assert f"A new journal{again} is for a new round." in error.advice


def test_a_journal_of_another_service_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    opened(path).close()
    before = contents(tmp_path)
    error = refused(path, service="https://other.example.com")
    assert f"is for the service {SERVICE}, and not for https://other.example.com" in str(error)
    assert contents(tmp_path) == before


def test_an_address_cannot_bring_a_password_into_it() -> None:
    with pytest.raises(ConfigurationError):
        checked_base_url("https://somebody:secret@api.example.com")


@pytest.mark.parametrize(
    ("statements", "part"),
    [
        (["CREATE TABLE mine (x)"], "is a SQLite database, but no journal"),
        (["PRAGMA application_id = 7", "CREATE TABLE mine (x)"], "is a SQLite database, but no journal"),
        ([f"PRAGMA application_id = {0x4E534A31}", "PRAGMA user_version = 2", "CREATE TABLE items (x)"], "version 2"),
    ],
)
def test_a_database_of_somebody_else_and_a_later_journal_are_left_untouched(
    tmp_path: Path, statements: list[str], part: str
) -> None:
    path = tmp_path / "theirs.db"
    program = f"""
import sqlite3
connection = sqlite3.connect(path, isolation_level=None)
for statement in {[*statements, "PRAGMA journal_mode = WAL", "CREATE TABLE more (x)"]!r}:
    connection.execute(statement)
os._exit(0)  # a crash: what was written last is in the file beside
"""
    assert child(program, path).returncode == 0
    before = contents(tmp_path)
    assert len(before["theirs.db-wal"]) > 4096
    error = refused(path)
    assert part in str(error)
    after = contents(tmp_path)
    assert after == before


# --- a plan that is corrected ------------------------------------------------------------------------------------------


def requests(**groups: str) -> RerunPlan:
    return RerunPlan.of([RerunRequest(name, group) for name, group in groups.items()])


def test_what_was_never_sent_may_be_amended(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        journal.write(intended(journal.items["c2"]), "intended")
        journal.write(evolve(journal.items["c2"], state="started", run_number=4), "started")
        journal.write(evolve(journal.items["c3"], state="refused", reason="no such group"), "refused", "no such group")
        journal.write(evolve(journal.items["c4"], state="refused", reason="no such campaign"), "refused")
        started = journal.items["c2"]
    right = requests(c5="g5", n1="g", c2="g2", c3="right", c1="g1")
    with closing(opened(path, right, amend=True)) as journal:
        assert journal.continued
        assert [*journal.items] == ["c5", "n1", "c2", "c3", "c1"]
        assert journal.items["c2"] == started
        for name, group in (("c5", "g5"), ("n1", "g"), ("c3", "right"), ("c1", "g1")):
            assert journal.items[name] == RerunItem(campaign_id=name, new_customer_group_id=group)
        assert {name: [(step.step, step.detail) for step in made] for name, made in journal.steps().items()} == {
            "c5": [],
            "n1": [("added", "the plan was amended")],
            "c2": [("intended", ""), ("started", "")],
            "c3": [("refused", "no such group"), ("amended", "it was to be run for the group g3")],
            "c1": [],
        }
        assert journal.steps()["n1"][0].at == BEGAN
        journal.write(intended(journal.items["n1"]), "intended")
    assert query(path, "SELECT step, detail FROM steps WHERE campaign_id = 'c4' ORDER BY id") == [
        ("refused", ""),
        ("removed", "it was to be run for the group g4"),
    ]
    assert query(path, "SELECT position, campaign_id FROM items ORDER BY position") == [
        *enumerate(("c5", "n1", "c2", "c3", "c1"), 1)
    ]
    assert query(path, "SELECT plan_digest FROM job") == [(right.digest,)]
    assert query(path, "PRAGMA quick_check") + query(path, "PRAGMA foreign_key_check") == [("ok",)]
    assert "for another plan" in str(refused(path))
    with closing(opened(path, right)) as journal:
        assert journal.items["n1"].state == "intended"


def test_a_campaign_may_be_taken_out_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    opened(path).close()
    opened(path, requests(c1="g1"), amend=True).close()
    with closing(opened(path, requests(c2="other", c1="g1"), amend=True)) as journal:
        assert journal.items["c2"] == RerunItem(campaign_id="c2", new_customer_group_id="other")
        assert [step.step for step in journal.steps()["c2"]] == ["removed", "added"]


def test_amending_to_the_same_plan_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path, amend=True)) as journal:
        assert not journal.continued
        journal.write(intended(journal.items["c1"]), "intended")
        item = journal.items["c1"]
    rows = "SELECT * FROM items ORDER BY position"
    before = query(path, rows)
    for plan in (PLAN, RerunPlan.of(reversed(PLAN.requests))):
        with closing(opened(path, plan, amend=True)) as journal:
            assert journal.items["c1"] == item
            assert [step.step for step in journal.steps()["c1"]] == ["intended"]
        assert query(path, rows) == before


def test_what_is_not_run_may_be_amended_too(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    wrong = RerunPlan.of([RerunRequest("", "g"), *PLAN, RerunRequest("d", "g"), RerunRequest("d", "h")])
    opened(path, wrong).close()
    with closing(opened(path, amend=True)) as journal:
        assert [*journal.items] == [request.campaign_id for request in PLAN]
        assert [step for made in journal.steps().values() for step in made] == []
    assert query(path, "SELECT min(position), max(position) FROM items") == [(1, 5)]
    with closing(opened(path, wrong, amend=True)) as journal:
        assert [*journal.items] == [request.campaign_id for request in PLAN]
    assert query(path, "SELECT min(position), max(position) FROM items") == [(2, 6)]


SENT: Final[list[tuple[ItemState, ...]]] = [
    ("intended",),
    ("intended", "planned"),
    ("intended", "conflict"),
    ("conflict",),
    ("started",),
    ("intended", "started", "published", "downloaded"),
    ("intended", "started", "failed"),
]


@pytest.mark.parametrize("moves", SENT)
@pytest.mark.parametrize(
    "groups",
    [[("c2", "g2")], [("c1", "other"), ("c2", "g2")], [("c1", "g1"), ("c2", "g2"), ("c1", "g1")]],
)
def test_what_may_have_been_run_cannot_be_amended(
    tmp_path: Path, moves: tuple[ItemState, ...], groups: list[tuple[str, str]]
) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        for state in moves:
            item = journal.items["c1"]
            journal.write(evolve(item, state=state, attempts=item.attempts + (state == "intended")), state)
    before, descriptors = contents(tmp_path), open_descriptors()
    error = refused(path, RerunPlan.of([RerunRequest(*pair) for pair in groups]), amend=True)
    assert "cannot be amended: 1 campaign was sent already" in str(error)
    assert "for another group: c1." in str(error)
    assert "back into the plan" in error.advice
    assert contents(tmp_path) == before
    assert open_descriptors() == descriptors
    with closing(opened(path, requests(c2="g2", c1="g1"), amend=True)) as journal:
        assert [*journal.items] == ["c2", "c1"]
        assert journal.items["c1"].state == moves[-1]


def test_what_the_service_refused_can_be_amended(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        journal.write(evolve(journal.items["c1"], state="intended", attempts=1, newest_run=1), "intended")
        journal.write(evolve(journal.items["c1"], state="refused"), "refused")
    with closing(opened(path, requests(c1="another", c2="g2"), amend=True)) as journal:
        assert journal.items["c1"] == RerunItem(campaign_id="c1", new_customer_group_id="another")


def test_three_campaigns_that_stand_in_the_way_are_named(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        for item in tuple(journal.items.values()):
            journal.write(intended(item), "intended")
    error = refused(path, requests(c1="g1", c9="g9"), amend=True)
    assert "4 campaigns were sent already" in str(error)
    assert "for another group: c2, c3, c4, ...." in str(error)


SOME: Final = st.dictionaries(st.sampled_from([f"c{number}" for number in range(6)]), st.sampled_from("gh"))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_amending_loses_nothing_that_was_sent(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reruns.db"
        plan = requests(**data.draw(SOME))
        with closing(opened(path, plan)) as journal:
            for name in data.draw(st.sets(st.sampled_from([*journal.items])) if journal.items else st.just(set[str]())):
                journal.write(intended(journal.items[name]), "intended")
            model = dict(journal.items)
        for _ in range(3):
            wanted = data.draw(SOME)
            after = {
                name: model[name]
                if name in model and model[name].new_customer_group_id == group
                else RerunItem(campaign_id=name, new_customer_group_id=group)
                for name, group in wanted.items()
            }
            sent = {name for name, item in model.items() if item.attempts}
            if all(after.get(name) == model[name] for name in sent):
                model, plan = after, requests(**wanted)
                opened(path, plan, amend=True).close()
            else:
                refused(path, requests(**wanted), amend=True)
            with closing(opened(path, plan)) as journal:
                assert dict(journal.items) == model
                assert {name for name, made in journal.steps().items() for step in made if step.step == "intended"} == {
                    name for name, item in model.items() if item.attempts
                }


# --- what goes wrong ---------------------------------------------------------------------------------------------------


def garble(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))


def halve(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def scribble(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def drop(path: Path) -> None:
    query(path, "DROP TABLE items")


def unlawful(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE items SET state = 'x'")


def illegible(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE items SET reason = CAST(x'ff' AS TEXT)")


def nobody(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM job")


@pytest.mark.parametrize("damage", [garble, halve, cut, scribble, drop, unlawful, illegible, nobody])
def test_a_damaged_journal_is_refused_and_left_as_it_is(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "reruns.db"
    opened(path).close()
    damage(path)
    before, descriptors = path.read_bytes(), open_descriptors()
    error = refused(path)
    if damage is not drop:
        assert "is damaged" in str(error)
        assert "would make them twice" in error.advice
    assert path.read_bytes() == before
    assert open_descriptors() == descriptors


def test_the_cause_of_a_damage_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    scribble(path)
    assert isinstance(refused(path).__cause__, sqlite3.DatabaseError)


def test_a_journal_that_was_removed_and_whose_log_was_not_is_no_new_one(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    for made in (None, b""):
        path.with_name("reruns.db-wal").write_bytes(b"intentions")
        if made is not None:
            path.write_bytes(made)
        error = refused(path)
        assert "reruns.db-wal, which may hold what was written last" in str(error)
        assert path.with_name("reruns.db-wal").read_bytes() == b"intentions"
    path.with_name("reruns.db-wal").unlink()
    opened(path).close()


@pytest.mark.parametrize("left", [None, b""])
@pytest.mark.parametrize("crashed", [False, True])
def test_a_journal_that_is_gone_is_not_begun_again(tmp_path: Path, left: bytes | None, crashed: bool) -> None:
    path, lock = tmp_path / "reruns.db", tmp_path / "reruns.db.lock"
    if crashed:
        assert child("current = opened()\nos._exit(0)", path).returncode == 0
    else:
        opened(path).close()
    assert bool(lock.read_bytes()) is crashed
    for name in names_in(tmp_path) - {lock.name}:
        (tmp_path / name).unlink()
    if left is not None:
        path.write_bytes(left)
        path.with_name("reruns.db-wal").write_bytes(b"")
    before, descriptors = contents(tmp_path), open_descriptors()
    for amend in (False, True):
        error = refused(path, amend=amend)
        assert "has been removed or emptied, or was never begun: its lock file reruns.db.lock" in str(error)
        assert "Put back the journal." in error.advice
        assert "For a new round, which runs everything again, remove reruns.db.lock" in error.advice
        assert contents(tmp_path) == before
    assert open_descriptors() == descriptors
    lock.unlink()
    with closing(opened(path)) as journal:
        assert not journal.continued


@pytest.mark.parametrize("at", ["_make_file", "_look", "_connect", "_begin", "_insert", "signature"])
def test_what_fails_before_the_journal_is_begun_does_not_stand_in_the_way_of_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = tmp_path / "reruns.db"

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    descriptors = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(module, at, fails)
        for _ in range(2):
            assert "No space left" in str(refused(path))
            assert names_in(tmp_path) <= {"reruns.db"}
    assert open_descriptors() == descriptors
    with closing(opened(path)) as journal:
        assert not journal.continued


@pytest.mark.parametrize("at", ["_insert", "_value", "_identity"])
def test_a_process_that_is_killed_while_it_begins_does_not_stand_in_the_way_of_the_next_one(
    tmp_path: Path, at: str
) -> None:
    path = tmp_path / "reruns.db"
    program = f"""
real = journal.{at}
def killed(*arguments):
    if "{at}" != "_identity" or path.with_name("reruns.db.lock").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
journal.{at} = killed
opened()
"""
    for _ in range(2):
        assert child(program, path).returncode == -9
        assert (path.stat().st_size if path.exists() else 0) == 0
        assert path.with_name("reruns.db.lock").exists()
    if at == "_identity":  # before it could say that it begins
        assert "or was never begun" in str(refused(path))
        return
    with pytest.MonkeyPatch.context() as patch:  # nor does a failure after that
        patch.setattr(module, "_begin", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            opened(path)
    assert names_in(tmp_path) - {"reruns.db-journal"} == {"reruns.db"}
    with closing(opened(path)) as journal:
        assert not journal.continued
        assert "beginning" not in json.loads(path.with_name("reruns.db.lock").read_text())


def test_one_that_was_begun_and_fails_then_is_missed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reruns.db"
    real = module._connect
    with monkeypatch.context() as patch:
        patch.setattr(module, "_connect", lambda path, how: real(path, f"{how}&vfs=unix-none"))
        refused(path)
    assert path.stat().st_size
    path.unlink()
    assert "has been removed or emptied" in str(refused(path))


def test_a_journal_without_its_lock_file_is_none_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        journal.write(WHOLE, "intended")
    path.with_name("reruns.db.lock").unlink()
    before = contents(tmp_path)
    refused(path, requests(c9="g"))
    assert contents(tmp_path) == before
    with closing(opened(path)) as journal:
        assert journal.items["c1"] == WHOLE


def test_one_that_crashed_under_the_number_of_this_process_is_no_call_of_it(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    opened(path).close()
    held = signature(BEGAN.timestamp())  # as in containers, where all have the same number
    path.with_name("reruns.db.lock").write_text(held)
    with closing(opened(path)) as journal:
        assert journal.taken_over == f"process {os.getpid()} on {os.uname().nodename}, since 2026-11-21 10:00:00 UTC"


def make_folder(path: Path) -> None:
    path.mkdir()


def make_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere.db"))


def make_second_name(path: Path) -> None:
    opened(path).close()
    path.with_name("second.db").hardlink_to(path)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (make_folder, "is a folder"),
        (make_link, "is a link"),
        (make_second_name, "has another name too"),
        (make_pipe, "is no regular file"),
    ],
)
def test_what_is_no_file_of_its_own_is_refused(tmp_path: Path, make: Callable[[Path], None], part: str) -> None:
    path = tmp_path / "reruns.db"
    make(path)
    before = names_in(tmp_path)
    assert part in str(refused(path))
    assert names_in(tmp_path) == before


def test_a_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with closing(opened(tmp_path / "link" / "reruns.db")):
        assert refused(tmp_path / "real" / "reruns.db").holder


@pytest.mark.parametrize(
    ("name", "part"),
    [("file/reruns.db", "Not a directory"), ("x" * 300, "File name too long"), ("a\0b", "null byte")],
)
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, name: str, part: str) -> None:
    (tmp_path / "file").touch()
    error = refused(tmp_path / name)
    assert part in str(error)
    assert isinstance(error.__cause__, OSError | ValueError)
    assert names_in(tmp_path) == {"file"}


def test_names_that_mean_something_to_sqlite_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:x?mode=memory", "a%41#b"):
        with closing(Journal.open(Path(name), PLAN, service=SERVICE, now=now)) as journal:
            assert journal.path == tmp_path / name
            with pytest.raises(JournalError) as caught:
                Journal.open(Path(name), PLAN, service=SERVICE, now=now)
            assert caught.value.path == str(tmp_path / name)
            assert (tmp_path / name).is_file()


AS_SOMEBODY_ELSE = """
if os.getuid() == 0:  # for whom no mode of a file means anything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can reach, which those of the tests are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@pytest.mark.parametrize("begun", [False, True])
def test_a_folder_that_may_not_be_written_to_is_refused(reachable: Path, begun: bool) -> None:
    path = reachable / "reruns.db"
    if begun:
        opened(path).close()
    reachable.chmod(0o555)
    before = names_in(reachable)
    program = """
try:
    opened()
except JournalError as error:
    print(json.dumps(said(error)))
"""
    said = answer(AS_SOMEBODY_ELSE + program, path)
    assert said["cause"] == "PermissionError"
    assert said["path"] == str(path)
    assert f"{path} cannot be used: Permission denied" in said["text"]
    assert names_in(reachable) == before


def test_a_file_that_may_not_be_written_to_is_refused(reachable: Path) -> None:
    path = reachable / "reruns.db"
    opened(path).close()
    reachable.chmod(0o777)
    for file in reachable.iterdir():
        file.chmod(0o666)
    path.chmod(0o444)
    program = """
try:
    opened()
except JournalError as error:
    print(json.dumps(said(error)))
"""
    before = path.read_bytes()
    said = answer(AS_SOMEBODY_ELSE + program, path)
    assert said["cause"] == "OperationalError"
    assert "cannot be opened for writing" in said["text"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [0, 4096, 60_000])
def test_a_disk_that_is_full_at_the_beginning_is_said_before_anything_else(tmp_path: Path, size: int) -> None:
    """The limit is that of the system for the size of a file, since a full disk cannot be had everywhere."""
    path = tmp_path / "reruns.db"
    program = f"""
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
plan = RerunPlan.of([RerunRequest(f"c{{number}}" + "x" * 1000, "g") for number in range(100)])
try:
    opened()
except JournalError as error:
    failed = said(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal = opened()
print(json.dumps([failed, journal.continued, len(journal.items), journal.taken_over]))
"""
    failed, continued, items, taken_over = answer(program, path)
    assert failed["cause"] in {"OSError", "OperationalError"}
    assert "disk" in failed["text"]
    assert (continued, items, taken_over) == (False, 100, "")  # nothing is left of the first


FILLED = """
failed = None
for number in range(1, 10_000):
    try:
        current.write(intended(current.items["c1"], number), "intended")
    except JournalError as error:
        failed = said(error)
        break
kept = current.items["c1"].attempts
assert kept == number - 1, (kept, number)
steps = len(current.steps()["c1"])
"""


@pytest.mark.parametrize("orderly", [False, True])
def test_a_disk_that_gets_full_changes_nothing_and_may_get_room_again(tmp_path: Path, orderly: bool) -> None:
    path = tmp_path / "reruns.db"
    program = f"""
current = opened()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
{FILLED}
if {orderly}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    current.write(intended(current.items["c2"], 7), "intended")
    current.close()
print(json.dumps([failed, kept, steps]), flush=True)
os._exit(0)
"""
    failed, kept, steps = answer(program, path)
    assert failed["cause"] == "OperationalError"
    assert "disk" in failed["text"]
    assert kept == steps > 10
    with closing(opened(path)) as journal:
        assert bool(journal.taken_over) is not orderly
        assert journal.items["c1"].attempts == kept
        assert len(journal.steps()["c1"]) == kept
        assert journal.items["c2"].attempts == (7 if orderly else 0)


TMPFS = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=256k none "$0" && exec "$@"')


def test_a_real_disk_that_gets_full(tmp_path: Path) -> None:
    before = (*TMPFS, str(tmp_path))
    try:
        subprocess.run([*before, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may mount no small disk")
    program = f"""
ballast = path.with_name("ballast")
ballast.write_bytes(b"x" * 65_536)
current = opened()
{FILLED}
ballast.unlink()
current.write(intended(current.items["c2"], 7), "intended")
current.close()
again = opened()
print(json.dumps([failed, kept, steps, again.items["c1"].attempts, len(again.steps()["c1"]), again.items["c2"].attempts]))
"""
    failed, kept, steps, attempts, again, other = answer(program, tmp_path / "reruns.db", before=before)
    assert "has no room" in failed["text"]
    assert kept == steps == attempts == again > 5
    assert other == 7
    program = """
path.with_name("ballast").write_bytes(b"x" * 200_000)
try:
    plan = RerunPlan.of([RerunRequest(f"c{number}" + "x" * 1000, "g") for number in range(100)])
    opened()
except JournalError as error:
    print(json.dumps(said(error)))
"""
    assert "has no room" in answer(program, tmp_path / "reruns.db", before=before)["text"]
    program = """
try:
    path.with_name("ballast").write_bytes(b"x" * 1_000_000)
except OSError:
    pass
try:
    opened()
except JournalError as error:
    print(json.dumps(said(error)))
"""
    assert "No space left on device" in answer(program, tmp_path / "reruns.db", before=before)["text"]


@contextmanager
def locked_by_another_program(path: Path) -> Iterator[None]:
    program = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield


def test_another_program_that_has_locked_it_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    path = tmp_path / "reruns.db"
    journal = opened(path)
    with locked_by_another_program(path):
        with pytest.raises(JournalError, match="Another program has locked the journal") as caught:
            journal.write(WHOLE, "intended")
        assert journal.items["c1"].state == "planned"
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    journal.write(WHOLE, "intended")
    journal.close()
    with locked_by_another_program(path):
        assert "Another program has locked the journal" in str(refused(path))
    path.write_bytes(b"")
    path.with_name("reruns.db.lock").unlink()
    with locked_by_another_program(path):
        assert "Another program has locked the journal" in str(refused(path))


def test_somebody_may_look_while_it_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    journal = opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM steps").fetchone() == (0,)
        journal.write(WHOLE, "intended")
        assert reader.execute("SELECT count(*) FROM steps").fetchone() == (0,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM steps").fetchone() == (1,)
        journal.close()
    with closing(opened(path)) as again:
        assert again.items["c1"] == WHOLE


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", ".lock"])
@pytest.mark.parametrize("how", ["removed", "replaced", "renamed"])
def test_nothing_is_written_to_a_file_that_nobody_would_read(tmp_path: Path, suffix: str, how: str) -> None:
    path = tmp_path / "reruns.db"
    file = path.with_name(path.name + suffix)
    journal = opened(path)
    if how == "renamed":
        file.rename(tmp_path / "kept")
    elif how == "removed":
        file.unlink()
    else:
        (tmp_path / "other").write_bytes(b"")
        (tmp_path / "other").replace(file)
    with pytest.raises(JournalError, match="has been removed or replaced") as caught:
        journal.write(WHOLE, "intended")
    assert str(file) in str(caught.value)
    assert journal.items["c1"].state == "planned"
    assert journal.steps()["c1"] == ()
    if how == "renamed":  # whoever puts it back may go on
        (tmp_path / "kept").rename(file)
        journal.write(WHOLE, "intended")
        assert journal.items["c1"] == WHOLE
    journal.close()


def test_a_campaign_that_somebody_has_deleted_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    with closing(opened(path)) as journal:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("DELETE FROM items WHERE campaign_id = 'c1'")
        with pytest.raises(JournalError, match="a campaign has been removed"):
            journal.write(WHOLE, "intended")
        journal.write(intended(journal.items["c2"]), "intended")
        assert journal.steps()["c1"] == ()


@pytest.mark.parametrize("damage", ["at = 'yesterday'", "detail = CAST(x'ff' AS TEXT)"])
def test_a_step_that_cannot_be_read_is_an_error_of_the_journal(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "reruns.db"
    before = open_descriptors()
    journal = opened(path)
    journal.write(WHOLE, "intended")
    query(path, "DROP TRIGGER steps_are_not_changed")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE steps SET {damage}")
    with pytest.raises(JournalError, match="cannot be used") as caught:
        journal.steps()
    assert caught.value.__cause__ is not None
    journal.close()
    assert open_descriptors() == before


def test_a_file_system_without_a_write_ahead_log_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has ways to a file without shared memory, and so without such a log, as on some network file systems."""
    real, descriptors = module._connect, open_descriptors()
    monkeypatch.setattr(module, "_connect", lambda path, how: real(path, f"{how}&vfs=unix-none"))
    error = refused(tmp_path / "reruns.db")
    assert "cannot keep it safely" in str(error)
    assert "on a disk of this machine" in error.advice
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("at", ["_row", "_value"])
def test_a_journal_whose_making_is_cut_short_is_begun_anew_or_is_whole(tmp_path: Path, at: str) -> None:
    path = tmp_path / "reruns.db"
    program = f"""
real, calls = journal.{at}, [0]
def killed(*arguments):
    calls[0] += 1
    if "{at}" == "_row" and calls[0] == 90 or arguments[-1] == "journal_mode = WAL":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
journal.{at} = killed
plan = RerunPlan.of([RerunRequest(f"c{{number}}", "g" * 200_000) for number in range(100)])
opened()
"""
    assert child(program, path).returncode == -9
    plan = RerunPlan.of([RerunRequest(f"c{number}", "g" * 200_000) for number in range(100)])
    assert path.stat().st_size > 0  # of the first 90, since they do not fit into memory
    with closing(opened(path, plan)) as journal:
        assert journal.continued is (at == "_value")
        assert len(journal.items) == 100
        assert journal.taken_over.startswith("process ")


# --- where it is if nobody says ----------------------------------------------------------------------------------------


def test_the_default_is_in_the_state_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unfit in (None, "", "relative"):
        if unfit is None:
            monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_STATE_HOME", unfit)
        assert default_path(PLAN, SERVICE).parent == tmp_path / ".local" / "state" / "nudgescribe" / "reruns"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = default_path(PLAN, SERVICE)
    assert path.parent == tmp_path / "state" / "nudgescribe" / "reruns"
    assert len(path.stem) == 16
    assert int(path.stem, 16) >= 0
    assert path.suffix == ".db"
    assert names_in(tmp_path) == set()
    assert default_path(RerunPlan.of(reversed(PLAN.requests)), SERVICE) == path
    assert default_path(PLAN, SERVICE + "/v2") != path
    assert default_path(RerunPlan.of(PLAN.requests[1:]), SERVICE) != path
    with closing(opened(path)):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_user_without_a_home_has_to_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(JournalError, match="journal=PATH"):
        default_path(PLAN, SERVICE)


def test_the_time_is_the_clocks(tmp_path: Path) -> None:
    later = BEGAN + timedelta(hours=1, microseconds=5)
    clock = VirtualClock(BEGAN.timestamp())
    with closing(Journal.open(tmp_path / "x.db", PLAN, service=SERVICE, now=clock.time)) as journal:
        clock.now = later.timestamp()
        journal.write(WHOLE, "intended")
        assert [step.at for step in journal.steps()["c1"]] == [later]


@pytest.mark.parametrize(
    ("by_hand", "what"),
    [
        ("DELETE FROM items WHERE campaign_id = 'c2'", "its campaigns are not those of the plan"),
        ("UPDATE items SET new_customer_group_id = 'other'", "its campaigns are not those of the plan"),
    ],
)
def test_what_was_written_into_it_by_hand_is_noticed(tmp_path: Path, by_hand: str, what: str) -> None:
    path = tmp_path / "reruns.db"
    opened(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(by_hand)
    assert f"is damaged: {what}" in str(refused(path, PLAN))
