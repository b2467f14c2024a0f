"""``nudgescribe reruns``, in process against a sandbox; what a journal says is read without one."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from rich.console import Console

from nudgescribe_async.cli.commands import reruns
from nudgescribe_async.cli.journal_view import read_journal
from nudgescribe_async.rerun.follow import target_of
from nudgescribe_async.rerun.item import RerunItem
from nudgescribe_async.rerun.report import RerunReport
from nudgescribe_async.sandbox import LoseAnswer, Sandbox, Status

if TYPE_CHECKING:
    from command_line import Result, Service, Shell

    from nudgescribe_async.cli.output import Output

JANUARY, RETURNING = "January 1997", "Returning customers"
INITIATE = "reruns.initiate"


@pytest.fixture
def campaigns(settings: Service) -> list[str]:
    """Four campaigns that can be run again."""

    async def make(sandbox: Sandbox) -> list[str]:
        return [await sandbox.create_campaign(f"Campaign {number}", settings.groups[JANUARY]) for number in range(4)]

    return settings.call(make)


def write(home: Path, *pairs: tuple[str, str], name: str = "plan.csv") -> str:
    lines = ["campaign_id,new_customer_group_id", *(",".join(pair) for pair in pairs), ""]
    (home / name).write_text("\n".join(lines))
    return name


@pytest.fixture
def plan(settings: Service, campaigns: list[str], home: Path) -> str:
    group = settings.groups[RETURNING]
    return write(home, *((campaign, group) for campaign in campaigns))


def run(shell: Shell, plan: str, *more: str) -> Result:
    return shell("reruns", "run", plan, "--journal", "j.db", "--yes", "--settle", "0", *more)


# --- plan --------------------------------------------------------------------------------------------------------------


def test_a_plan_is_looked_at_and_nothing_is_changed(
    settings: Service, shell: Shell, plan: str, campaigns: list[str], home: Path
) -> None:
    result = shell("reruns", "plan", plan, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.document["counts"]["run"] == 4
    assert [item["campaign_id"] for item in result.document["items"]] == campaigns
    assert result.document["items"][0]["campaign_name"] == "Campaign 0"
    assert not sum(settings.sandbox.effects.values())
    assert sorted(path.name for path in home.iterdir() if path.is_file()) == ["plan.csv"]
    text = shell("reruns", "plan", plan)
    assert "4 campaigns: 4 would be run." in text.out
    offline = shell("reruns", "plan", plan, "--offline")
    assert "The service was not asked" in offline.out


def test_what_would_be_refused_is_told_with_its_reason(
    settings: Service, shell: Shell, campaigns: list[str], home: Path
) -> None:
    group = settings.groups[RETURNING]
    plan = write(
        home,
        (campaigns[0], group),
        (campaigns[1], "nowhere"),
        ("nobody", group),
        (settings.campaigns["Thank you"], group),
        (campaigns[2], group),
        (campaigns[2], group),
    )
    result = shell("reruns", "plan", plan, "--json")
    assert result.code == 3
    assert [item["would"] for item in result.document["items"]] == ["run", *["refuse"] * 5]
    assert all(item["reason"] for item in result.document["items"][1:])
    assert shell("reruns", "plan", write(home, ("nobody", group))).code == 1


def test_a_campaign_that_cannot_be_looked_at_is_told(settings: Service, shell: Shell, plan: str) -> None:
    settings.inject(Status(400), operation="reruns.messages", times=1)
    result = shell("reruns", "plan", plan, "--json")
    assert result.code == 3
    assert sorted(item["would"] for item in result.document["items"]) == ["run", "run", "run", "unchecked"]


def test_a_plan_with_its_journal_shows_what_is_left(
    settings: Service, shell: Shell, plan: str, campaigns: list[str], home: Path
) -> None:
    group = settings.groups[RETURNING]
    first = write(home, *((campaign, group) for campaign in campaigns[:2]), name="first.csv")
    assert run(shell, first).code == 0
    other = shell("reruns", "plan", plan, "--journal", "j.db", "--json")
    assert other.code == 1
    assert "--amend" in other.error["hint"]
    result = shell("reruns", "plan", plan, "--journal", "j.db", "--amend", "--json")
    assert result.code == 0
    assert [item["would"] for item in result.document["items"]] == ["nothing", "nothing", "run", "run"]
    moved = write(home, (campaigns[0], settings.groups[JANUARY]), name="moved.csv")
    refused = shell("reruns", "plan", moved, "--journal", "j.db", "--amend")
    assert refused.code == 1
    assert "cannot be amended" in refused.err
    again = shell("reruns", "plan", first, "--journal", "j.db", "--base-url", "http://localhost:1", "--offline")
    assert again.code == 1
    assert "is for the service" in again.err


def test_a_plan_that_was_corrected_is_run_with_the_same_journal(
    settings: Service, shell: Shell, campaigns: list[str], home: Path
) -> None:
    group = settings.groups[RETURNING]
    wrong = write(home, (campaigns[0], group), (campaigns[1], "nowhere"), (campaigns[2], group))
    assert run(shell, wrong).code == 3
    right = write(home, (campaigns[0], group), (campaigns[1], group), (campaigns[2], group), name="right.csv")
    outlook = shell("reruns", "plan", right, "--journal", "j.db", "--amend", "--json").document
    assert [item["would"] for item in outlook["items"]] == ["nothing", "run", "nothing"]
    asked = shell("reruns", "run", right, "--journal", "j.db", "--amend", "--wait")
    assert asked.code == 2
    assert "1 would be run; 2 with a run already: the steps after it would be done. Then wait until" in asked.err
    assert run(shell, right, "--amend").code == 0
    assert settings.sandbox.effects[INITIATE] == 3


def test_a_conflict_is_left_to_people(settings: Service, shell: Shell, plan: str, campaigns: list[str]) -> None:
    assert run(shell, plan).code == 0
    with closing(sqlite3.connect("j.db")) as connection:
        connection.execute("UPDATE items SET state = 'conflict', reason = 'Somebody else.' WHERE position = 2")
        connection.execute("UPDATE items SET state = 'started' WHERE position = 1")
        connection.commit()
    result = shell("reruns", "plan", plan, "--journal", "j.db", "--json")
    assert result.code == 3
    assert [item["would"] for item in result.document["items"]] == ["nothing", "conflict", "nothing", "nothing"]
    assert result.document["items"][1]["reason"] == "Somebody else."


@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        ("campaign_id;new_customer_group_id\na;b\n", [], 1, "--delimiter ';'"),
        ("campaign,group\na,b\n", [], 1, "--campaign-column"),
        ("campaign_id,new_customer_group_id\na\n", [], 1, "too short"),
        ("campaign_id,new_customer_group_id\n", [], 1, "no campaigns"),
        (None, [], 1, "cannot be read"),
        ("campaign_id,new_customer_group_id\na,b\n", ["--encoding", "klingon"], 2, "encoding"),
        ("campaign_id,new_customer_group_id\na,b\n", ["--journal", "missing.db"], 1, "no journal"),
    ],
)
def test_a_file_that_is_no_plan(
    settings: Service, shell: Shell, home: Path, content: str | None, arguments: list[str], code: int, said: str
) -> None:
    if content is not None:
        (home / "plan.csv").write_text(content)
    result = shell("reruns", "plan", "plan.csv", *arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.err


def test_a_plan_with_columns_of_its_own(settings: Service, shell: Shell, campaigns: list[str], home: Path) -> None:
    (home / "plan.csv").write_bytes(f"Gruppe;Kampägne\n{settings.groups[RETURNING]};{campaigns[0]}\n".encode("cp1252"))
    result = shell(
        *["reruns", "plan", "plan.csv", "--delimiter", ";", "--encoding", "cp1252"],
        *["--campaign-column", "Kampägne", "--group-column", "Gruppe"],
    )
    assert result.code == 0


# --- run ---------------------------------------------------------------------------------------------------------------


def test_without_a_terminal_nothing_is_run_unless_it_is_said(
    settings: Service, shell: Shell, plan: str, home: Path
) -> None:
    result = shell("reruns", "run", plan, "--journal", "j.db", "--publish", "--download", "letters")
    assert result.code == 2
    assert "4 campaigns: 4 would be run." in result.err
    assert "publish those that need no review" in result.err
    assert "letters" in result.err
    assert settings.sandbox.url in result.err
    assert not (home / "j.db").exists()
    assert shell("reruns", "run", plan, "--yes").code == 2  # no journal


def test_campaigns_are_run_once_however_often_the_command_is(
    settings: Service, shell: Shell, plan: str, home: Path
) -> None:
    first = run(shell, plan, "--json", "--html", "report.html")
    assert first.code == 0
    assert first.document["counts"]["succeeded"] == 4
    assert (home / "report.html").read_text().startswith("<!doctype html>")
    assert settings.sandbox.effects[INITIATE] == 4
    # Nothing is left to do, so there is nothing to ask.
    again = shell("reruns", "run", plan, "--journal", "j.db")
    assert again.code == 0
    assert "all 4 campaigns" in again.out or "4 of 4 campaigns" in again.out
    assert settings.sandbox.effects[INITIATE] == 4
    assert run(shell, plan, "--html", "report.html").code == 2
    assert run(shell, plan, "--html", "nowhere/report.html").code == 2
    assert run(shell, plan, "--html", "report.html", "--overwrite").code == 0


def test_what_did_not_succeed_is_part_of_it_and_told(
    settings: Service, shell: Shell, campaigns: list[str], home: Path
) -> None:
    group = settings.groups[RETURNING]
    plan = write(home, (campaigns[0], group), ("nobody", group), (campaigns[1], group), (campaigns[1], group))
    result = run(shell, plan)
    assert result.code == 3
    assert "The account has no such campaign" in result.out
    assert "1 refused: " in result.err
    assert "2 plan: " in result.err
    assert "ns.reruns" not in result.err + result.out
    assert "=True" not in result.err
    nothing = write(home, ("nobody", group), name="other.csv")
    assert shell("reruns", "run", nothing, "--journal", "other.db", "--yes").code == 1


def test_the_command_to_go_on_with_replaces_the_page(
    settings: Service, shell: Shell, campaigns: list[str], home: Path
) -> None:
    plan = write(home, (campaigns[0], settings.groups[RETURNING]), ("nobody", "nowhere"))
    result = run(shell, plan, "--html", "report.html", "--json")
    assert (result.code, result.document["next"].endswith(" --overwrite")) == (3, True)


def test_a_lost_answer_is_found_in_the_history(settings: Service, shell: Shell, plan: str) -> None:
    settings.inject(LoseAnswer(), operation=INITIATE, times=2)
    result = run(shell, plan, "--json")
    assert result.code == 0
    assert sum(item["adopted"] for item in result.document["outcomes"]) == 2
    assert settings.sandbox.effects[INITIATE] == 4


def test_what_is_not_known_is_verified_by_the_same_command(settings: Service, shell: Shell, plan: str) -> None:
    settings.inject(LoseAnswer(), operation=INITIATE, times=1)
    fault = settings.inject(Status(400), operation="reruns.history", skip=4, times=None)
    result = run(shell, plan, "--json", "--concurrency", "8")
    assert result.code == 3
    assert result.document["counts"]["unknown"] == 1
    assert result.document["next"].split()[0] == "nudgescribe"
    fault.remove()
    looked = shell("reruns", "plan", plan, "--journal", "j.db", "--json")
    assert looked.document["counts"] | {"verify": 1, "nothing": 3} == looked.document["counts"]
    status = shell("reruns", "status", "j.db", "--json").document
    assert (status["complete"], status["counts"]["unknown"]) == (False, 1)
    assert run(shell, plan).code == 0
    assert settings.sandbox.effects[INITIATE] == 4


def test_runs_are_published_and_downloaded(settings: Service, shell: Shell, plan: str, home: Path) -> None:
    waiting = run(shell, plan, "--publish", "--download", "letters", "--json")
    assert waiting.code == 0
    document = shell("reruns", "status", "j.db", "--json").document
    assert document["counts"]["in_review"] + document["counts"]["published"] == 4
    text = shell("reruns", "status", "j.db").out
    assert "of these, " in text


def test_what_is_told_when_it_is_ended(home: Path) -> None:
    so_far = reruns._Sofar()
    assert so_far.advice("again", home / "j.db") == "Nothing was sent."
    (home / "j.db").touch()
    assert so_far.advice("again", home / "j.db") == "To go on, run it again: again"
    so_far.done, so_far.total = 1, 2
    assert so_far.advice("again", home / "j.db") == "1 of 2 campaigns are done with. To go on, run it again: again"


class Screen:
    """As much of an Output as a table asks for."""

    def __init__(self, width: int) -> None:
        self.results = Console(file=io.StringIO(), force_terminal=True, width=width)


@pytest.mark.parametrize(("width", "most"), [(60, 60), (100, 100), (40, 200)])
def test_a_report_fits_the_terminal(
    settings: Service, shell: Shell, campaigns: list[str], home: Path, width: int, most: int
) -> None:
    run(shell, write(home, (campaigns[0], settings.groups[RETURNING]), ("nobody", "nowhere")))
    text = reruns._report_as_text(read_journal("j.db").report(), cast("Output", Screen(width)))
    *table, _, headline = text.splitlines()
    table = [line for line in table if not line.startswith("Left out")]
    assert all(len(line) <= most for line in table)
    assert headline.startswith("NOT COMPLETE")
    if width == 40:
        assert table == [f"{campaigns[0]}: succeeded, run 2", "nobody: refused: The account has no such campaign."]


# --- what the journal says -----------------------------------------------------------------------------------------------


@pytest.fixture
def journal(shell: Shell, plan: str) -> str:
    assert run(shell, plan).code == 0
    return "j.db"


def test_a_status_needs_no_settings_and_leaves_no_trace(
    journal: str, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch, settings: Service
) -> None:
    for name in settings.environment:
        monkeypatch.delenv(name)
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    result = shell("reruns", "status", journal, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.document["service"] == settings.sandbox.url
    assert (result.document["campaigns"], result.document["complete"]) == (4, True)
    assert (result.document["held_by"], result.document["at_work"]) == (None, False)
    text = shell("reruns", "status", journal)
    assert "At work:   nobody" in text.out
    assert {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()} == before


def test_a_report_is_a_table_json_csv_or_a_page(journal: str, shell: Shell, home: Path, campaigns: list[str]) -> None:
    table = shell("reruns", "report", journal)
    assert all(campaign in table.out for campaign in campaigns)
    document = shell("reruns", "report", journal, "--json").document
    assert [item["campaign_id"] for item in document["outcomes"]] == campaigns
    assert document["sent"] == 4
    found = list(csv.DictReader(io.StringIO(shell("reruns", "report", journal, "--csv").out)))
    assert [row["campaign_id"] for row in found] == campaigns
    assert found[0]["matched_count"].isdigit()
    page = shell("reruns", "report", journal, "--html", "report.html")
    assert (page.code, page.out) == (0, "")
    assert campaigns[0] in (home / "report.html").read_text()
    assert shell("reruns", "report", journal, "--html", "report.html").code == 2
    assert shell("reruns", "report", journal, "--csv", "--json").code == 2


def test_a_report_shows_what_was_asked_for_by_what_was_begun(
    settings: Service, shell: Shell, plan: str, home: Path
) -> None:
    assert run(shell, plan, "--publish", "--download", "letters").code == 0
    with closing(sqlite3.connect("j.db")) as connection:
        connection.execute(
            "UPDATE items SET state = 'published', run_number = 2, publish_attempts = 1, publish_accepted = 1 "
            "WHERE position > 1"
        )
        [campaign] = connection.execute("SELECT campaign_id FROM items WHERE position = 1").fetchone()
        item = RerunItem(campaign_id=campaign, new_customer_group_id="g", run_number=2)
        connection.execute(
            "UPDATE items SET state = 'downloaded', run_number = 2, publish_attempts = 1, files = 1, directory = ? "
            "WHERE position = 1",
            (str(target_of(item, home / "letters")),),
        )
        connection.commit()
    document = shell("reruns", "report", "j.db", "--json").document
    assert [item["state"] for item in document["outcomes"]] == ["succeeded", *["unfinished"] * 3]
    assert "not downloaded" in document["outcomes"][1]["reason"]


def test_items_that_the_journal_does_not_have_are_told(
    settings: Service, shell: Shell, campaigns: list[str], home: Path
) -> None:
    group = settings.groups[RETURNING]
    plan = write(home, (campaigns[1], group), (campaigns[1], group), (campaigns[0], group))
    run(shell, plan)
    assert "2 items of the plan are not in the journal" in shell("reruns", "status", "j.db").err
    assert "2 items of the plan are not in the journal" in shell("reruns", "report", "j.db").err


def sign(home: Path, process: int, machine: str) -> None:
    text = json.dumps({"process": process, "machine": machine, "since": "2026-11-21T10:00:00.000000+00:00"})
    (home / "j.db.lock").write_text(text + "\n")


def test_who_is_at_work_with_a_journal_or_was_ended(
    journal: str, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(home, os.getpid(), platform.node())
    assert shell("reruns", "status", journal, "--json").document["at_work"] is True
    assert f"process {os.getpid()} on" in shell("reruns", "status", journal).out
    sign(home, 2**22 + 1, platform.node())
    gone = shell("reruns", "status", journal)
    assert "was ended and did not close it" in gone.out
    sign(home, 1, "elsewhere")
    assert shell("reruns", "status", journal, "--json").document["at_work"] is True
    (home / "j.db.lock").write_text("no signature")
    assert shell("reruns", "status", journal, "--json").document["at_work"] is True
    sign(home, 1, platform.node())
    monkeypatch.setattr(os, "kill", _not_mine)
    assert shell("reruns", "status", journal, "--json").document["at_work"] is True


def _not_mine(process: int, number: int) -> None:
    raise PermissionError


def test_a_journal_that_a_crash_has_left_is_read_with_what_was_written_last(
    journal: str, shell: Shell, home: Path
) -> None:
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE items SET state = 'intended' WHERE position = 1")
        connection.commit()
        assert (home / "j.db-wal").stat().st_size
        document = shell("reruns", "status", journal, "--json").document
    assert document["counts"]["unknown"] == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: None, "no journal"),
        (lambda path: path.write_bytes(b""), "no journal"),
        (lambda path: path.mkdir(), "no journal"),
        (lambda path: path.write_bytes(b"no database" * 200), "no SQLite database"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE x (y)").connection.close(), "no journal of reruns"),
        (lambda path: _versioned(path), "version 99"),  # noqa: PLW0108 - stands below,
    ],
)
@pytest.mark.parametrize("command", ["status", "report"])
def test_a_file_that_is_no_journal(
    shell: Shell, home: Path, make: Callable[[Path], object], said: str, command: str
) -> None:
    make(home / "j.db")
    result = shell("reruns", command, "j.db")
    assert (result.code, result.out) == (1, "")
    assert said in result.err


def _versioned(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {0x4E534A31}")
        connection.execute("PRAGMA user_version = 99")
        connection.commit()


def test_a_journal_with_other_columns_is_no_traceback(journal: str, shell: Shell) -> None:
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("DROP TABLE items")
        connection.commit()
    result = shell("reruns", "status", journal)
    assert result.code == 1
    assert "cannot be read" in result.err


def test_the_history_of_a_campaign(settings: Service, journal: str, shell: Shell, campaigns: list[str]) -> None:
    lines = shell("reruns", "history", campaigns[0], "--json").lines
    assert [line["run_number"] for line in lines] == [2, 1]
    assert settings.groups[RETURNING] in shell("reruns", "history", campaigns[0]).out
    assert shell("reruns", "history", "nobody").code == 1


# --- the files of a report ---------------------------------------------------------------------------------------------


def test_a_page_replaces_neither_the_plan_nor_the_journal(shell: Shell, plan: str, home: Path) -> None:
    assert run(shell, plan).code == 0
    for name in (plan, "j.db", "./j.db"):
        assert run(shell, plan, "--html", name, "--overwrite").code == 2
    assert shell("reruns", "report", "j.db", "--html", "j.db", "--overwrite").code == 2
    assert shell("reruns", "status", "j.db", "--json").document["complete"] is True
    assert (home / plan).read_text().startswith("campaign_id,")


def test_a_page_that_cannot_be_written_hides_nothing_of_the_run(
    shell: Shell, plan: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "folder").mkdir()
    assert run(shell, plan, "--html", "folder", "--overwrite").code == 2
    assert not (home / "j.db").exists()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x.html")

    monkeypatch.setattr(RerunReport, "write_html", full)
    result = run(shell, plan, "--html", "x.html", "--json")
    assert (result.code, result.document["counts"]["succeeded"]) == (3, 4)
    assert result.error["exit_code"] == 3
    assert "No space left on device" in result.error["message"]


def test_a_name_is_no_formula_and_obeys_no_terminal(settings: Service, shell: Shell, home: Path) -> None:
    name = '=HYPERLINK("x") \x1b[31m'
    campaign = settings.call(lambda sandbox: sandbox.create_campaign(name, settings.groups[JANUARY]))
    assert run(shell, write(home, (campaign, settings.groups[RETURNING]))).code == 0
    out = shell("reruns", "report", "j.db", "--csv").out
    assert "\x1b" not in out
    [row] = csv.DictReader(io.StringIO(out))
    assert row["campaign_name"] == '\'=HYPERLINK("x") \\x1b[31m'
