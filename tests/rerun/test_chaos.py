"""The short form of ``nox -s chaos``, and that it notices each kind of broken promise."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rerun_chaos.py"
SEED = int(os.environ.get("NUDGESCRIBE_CHAOS_SEED", str(random.randrange(1, 2**31, 2))))  # odd: published at once
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not here")]


def test_400_campaigns_and_ten_kills_and_each_has_exactly_one_new_run(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-W", "error", os.fspath(SCRIPT), "--seeds", "1", "--first-seed", str(SEED)]
    command += ["--settle", "2"]  # longer than a request may lie with a sandbox on a busy machine
    done = subprocess.run(
        [*command, "--json", os.fspath(figures)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"seed {SEED}\n{done.stdout}\n{done.stderr[-5000:]}"
    told: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))[0]
    assert (told["runs made"], told["run twice"], told["forgotten"], told["kills"]) == (400, 0, 0, 10)
    # All that was to go wrong did, and was noticed; the shares are far from what chance would do to them.
    assert told["calls"] > 10
    assert told["adopted"] > 100
    assert told["sent again"] > 30
    assert 0.25 < told["lost after"] / told["requests"] < 0.35
    assert 0.15 < told["lost before"] / told["requests"] < 0.25
    assert 0.03 < told["faults"]["503"] / told["requests"] < 0.07
    assert told["faults"]["503 after the work"] > 50
    assert "Every promise was kept." in done.stdout


@pytest.fixture
def chaos() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nudgescribe_chaos", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Sabotage = Callable[[str], str]


@pytest.fixture
def complaints(chaos: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sabotage:
    """Plays a small round with something broken in the orchestrator, and gives what is complained of."""

    def play(preamble: str) -> str:
        monkeypatch.setattr(chaos, "PREAMBLE", preamble)
        monkeypatch.setattr(chaos, "MOST_CALLS", 2)
        options = ["--campaigns", "24", "--kills", "1", "--settle", "0.2", "--first-seed", "7", "--seeds", "1"]
        assert chaos.main(options) == 1
        captured = capsys.readouterr()
        assert "promises were broken." in captured.out
        return captured.err

    return play


def test_what_is_sent_again_without_asking_is_noticed(complaints: Sabotage) -> None:
    blind = """
from nudgescribe_async.rerun import decide, start
start.judge = lambda *_, **__: decide.Absent()
"""
    told = complaints(blind)
    assert "runs were made for 24 campaigns" in told
    assert "and was to have one more" in told


def test_what_is_sent_without_being_written_down_is_noticed(complaints: Sabotage) -> None:
    careless = """
import time
from nudgescribe_async.rerun.journal import Journal
honest = Journal.write

def write(journal, item, step, detail=""):
    if step == "intended":
        journal._items[item.campaign_id] = item
    else:
        time.sleep(0.05)  # so that there is something to forget
        honest(journal, item, step, detail)

Journal.write = write
"""
    assert "has a run, and is 'planned' in the journal" in complaints(careless)


def test_a_success_that_is_none_is_noticed(complaints: Sabotage) -> None:
    boastful = """
from nudgescribe_async.rerun import outcome
from nudgescribe_async.rerun.start import Starter
honest, done = Starter.start, []

async def start(starter, campaign_id):
    done.append(campaign_id)
    if len(done) % 5:
        await honest(starter, campaign_id)

Starter.start = start
outcome.state_of = lambda *_: "succeeded"
"""
    told = complaints(boastful)
    assert "and was to have one more" in told
    assert "runs were made for 24 campaigns" in told


def test_a_run_that_is_written_down_and_was_not_made_is_noticed(complaints: Sabotage) -> None:
    hopeful = """
from nudgescribe_async.rerun.start import Starter

async def lost(starter, campaign_id, detail, trial, run_number=None):
    await starter._ledger.write(campaign_id, "started", "surely", state="started", run_number=2)

Starter._lost = lost
"""
    told = complaints(hopeful)
    assert "in the journal, and has no run" in told
    assert "and was to have one more" in told


def test_a_campaign_that_is_forgotten_is_noticed(complaints: Sabotage) -> None:
    forgetful = """
from nudgescribe_async.rerun import job
honest = job._Job._checked

async def checked(self, campaigns, ledger):
    return await honest(self, sorted(campaigns)[:-1], ledger)

job._Job._checked = checked
"""
    told = complaints(forgetful)
    assert "it is not done after 2 calls" in told
    assert "23 runs were made for 24 campaigns" in told


def test_requests_that_are_not_written_down_are_noticed(complaints: Sabotage) -> None:
    uncounted = """
from nudgescribe_async.rerun.ledger import Ledger
honest = Ledger.write

async def write(ledger, campaign_id, step, detail="", **changes):
    changes.pop("attempts", None)
    await honest(ledger, campaign_id, step, detail, **changes)

Ledger.write = write
"""
    assert "0 are written down" in complaints(uncounted)
