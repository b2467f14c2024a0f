"""Journals that nobody named: a plan that is corrected must not run again what the plan before has run."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nudgescribe_async import JournalError, Nudgescribe, RerunPlan, RerunRequest
from nudgescribe_async.rerun.item import RerunItem
from nudgescribe_async.rerun.journal import Journal
from nudgescribe_async.rerun.shelf import Shelf
from nudgescribe_async.sandbox.faults import Delay

if TYPE_CHECKING:
    from nudgescribe_async.rerun.item import ItemState
    from nudgescribe_async.sandbox import Sandbox

SERVICE = "https://service.example"
ITEM = RerunItem(campaign_id="c1", new_customer_group_id="g1")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def journal(path: Path, *moves: ItemState, service: str = SERVICE) -> Journal:
    plan = RerunPlan([RerunRequest("c1", "g1"), RerunRequest("c2", "g1")])
    opened = Journal.open(path, plan, service=service, now=lambda: 1_767_225_600.0)
    for state in moves:
        opened.write(RerunItem(campaign_id="c1", new_customer_group_id="g1", state=state), state)
    return opened


def look(path: Path, service: str = SERVICE) -> Shelf:
    shelf = Shelf.beside(path, service, now=1_767_225_600.0)
    shelf.close()
    return shelf


@pytest.mark.parametrize(
    ("moves", "words"),
    [
        ((), ""),
        (("refused",), ""),
        (("intended", "planned"), ""),
        (("intended", "conflict"), ""),
        (("intended", "started"), "It has its run for this very group already, last seen on 2026-01-01"),
        (("intended", "started", "published", "downloaded"), "It has its run for this very group already"),
        (("intended",), "A request to run it was sent on 2026-01-01, and what became of it is not known"),
    ],
)
def test_what_another_journal_has_done_is_an_objection(
    tmp_path: Path, moves: tuple[ItemState, ...], words: str
) -> None:
    journal(tmp_path / "other.db", *moves).close()
    objection = look(tmp_path / "this.db").objection(ITEM)
    assert objection.startswith(words)
    assert bool(objection) == bool(words)
    assert not words or str(tmp_path / "other.db") in objection


def test_it_is_seen_while_the_other_journal_is_in_use(tmp_path: Path) -> None:
    other = journal(tmp_path / "other.db", "intended", "started")
    assert look(tmp_path / "this.db").objection(ITEM)
    other.close()


def test_another_campaign_group_service_or_file_is_no_objection(tmp_path: Path) -> None:
    journal(tmp_path / "other.db", "intended", "started").close()
    (tmp_path / "empty.db").touch()
    sqlite3.connect(tmp_path / "theirs.db").execute("CREATE TABLE t (x)").connection.close()
    shelf = look(tmp_path / "this.db")
    assert shelf.objection(RerunItem(campaign_id="c1", new_customer_group_id="g2")) == ""
    assert shelf.objection(RerunItem(campaign_id="c2", new_customer_group_id="g1")) == ""
    assert look(tmp_path / "this.db", "https://other.example").objection(ITEM) == ""
    assert look(tmp_path / "other.db").objection(ITEM) == ""  # its own does not count


@pytest.mark.parametrize("damage", ["garbage", "version"])
def test_a_journal_that_cannot_be_read_is_not_passed_over(tmp_path: Path, damage: str) -> None:
    other = tmp_path / "other.db"
    if damage == "garbage":
        other.write_bytes(b"no database at all, but long enough" * 100)
    else:
        journal(other).close()
        with sqlite3.connect(other) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    with pytest.raises(JournalError, match=r"cannot be read: .*It may have run campaigns of this plan") as caught:
        look(tmp_path / "this.db")
    assert caught.value.path == str(other)


def test_the_group_in_other_letters_is_the_same_group(tmp_path: Path) -> None:
    journal(tmp_path / "other.db", "intended", "started").close()
    shelf = look(tmp_path / "this.db")
    assert shelf.objection(RerunItem(campaign_id="c1", new_customer_group_id="G1"))
    assert not shelf.objection(RerunItem(campaign_id="C1", new_customer_group_id="g1"))


def test_one_at_a_time_works_with_the_folder_until_it_lets_go_of_it(tmp_path: Path) -> None:
    first = Shelf.beside(tmp_path / "one.db", SERVICE, now=1_767_225_600.0)
    with pytest.raises(JournalError, match=f"is under way: process {os.getpid()} ") as caught:
        Shelf.beside(tmp_path / "two.db", SERVICE, now=1_767_225_600.0)
    assert caught.value.path == str(tmp_path / "two.db")
    assert "Wait until it has ended" in caught.value.advice
    first.close()
    first.close()
    second = Shelf.beside(tmp_path / "two.db", SERVICE, now=1_767_225_600.0)
    first.close()
    with pytest.raises(JournalError, match="is under way"):
        look(tmp_path / "one.db")
    second.close()
    look(tmp_path / "one.db")


def test_the_folder_is_let_go_of_if_a_journal_there_cannot_be_read(tmp_path: Path) -> None:
    garbage = tmp_path / "other.db"
    garbage.write_bytes(b"no database at all, but long enough" * 100)
    for _ in range(2):
        with pytest.raises(JournalError, match="cannot be read"):
            look(tmp_path / "this.db")
    garbage.unlink()
    look(tmp_path / "this.db")


def test_a_shelf_that_knows_nothing_objects_to_nothing() -> None:
    shelf = Shelf()
    assert shelf.objection(ITEM) == ""
    shelf.close()


async def test_a_corrected_plan_runs_only_what_the_plan_before_has_not(sandbox: Sandbox) -> None:
    group = await sandbox.create_customer_group("Everybody")
    good, bad = [await sandbox.create_campaign(name, group) for name in ("Good", "Bad")]
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        first = await ns.reruns.run([RerunRequest(good, group), RerunRequest(bad, "wrong")], publish=True)
        assert [outcome.state for outcome in first.outcomes] == ["succeeded", "refused"]

        # Published again, so that the service would take it.
        second = await ns.reruns.run([RerunRequest(good, group), RerunRequest(bad, group)], publish=True)
        assert second.journal != first.journal
        assert [outcome.state for outcome in second.outcomes] == ["refused", "succeeded"]
        assert str(first.journal) in second.outcomes[0].reason
        assert sandbox.effects["reruns.initiate"] == 2

        # Another group is another matter, and so is a journal that was named.
        other = await sandbox.create_customer_group("Others")
        assert (await ns.reruns.run([RerunRequest(good, other)], publish=True)).complete
        named = await ns.reruns.run([RerunRequest(good, group)], journal=first.journal.with_name("named.db"))
        assert named.complete


async def test_a_damaged_neighbour_is_told_before_anything_is_sent(sandbox: Sandbox, tmp_path: Path) -> None:
    group = await sandbox.create_customer_group("Everybody")
    campaign = await sandbox.create_campaign("One", group)
    folder = tmp_path / "nudgescribe" / "reruns"
    folder.mkdir(parents=True)
    (folder / "old.db").write_bytes(b"no database at all, but long enough" * 100)
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        with pytest.raises(JournalError, match=r"old\.db"):
            await ns.reruns.run([RerunRequest(campaign, group)])
    assert sandbox.log == ()


async def test_two_calls_without_a_journal_at_once_are_told_of_each_other(sandbox: Sandbox) -> None:
    group = await sandbox.create_customer_group("Everybody")
    one, two = [await sandbox.create_campaign(name, group) for name in ("One", "Two")]
    sandbox.inject(Delay(0.3), operation="reruns.initiate")
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        first = asyncio.create_task(ns.reruns.run([RerunRequest(one, group)]))
        while not sandbox.count("reruns.messages"):
            await asyncio.sleep(0.01)
        with pytest.raises(JournalError, match=r"names no journal is under way: process \d+") as caught:
            await ns.reruns.run([RerunRequest(two, group)])
        assert f"process {os.getpid()} " in caught.value.holder
        named = await ns.reruns.run(
            [RerunRequest(two, group)], journal=Path(caught.value.path).with_name("named.sqlite")
        )
        assert named.complete
        assert (await first).complete
        assert (await ns.reruns.run([RerunRequest(one, group), RerunRequest(two, "wrong")])).refused  # it is free again


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(JournalError, match=r"unnamed\.lock"):
        look(tmp_path / "this.db")
    tmp_path.chmod(0o700)


def test_a_lock_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "unnamed.lock").mkdir()
    with pytest.raises(JournalError, match=r"unnamed\.lock"):
        look(tmp_path / "this.db")
