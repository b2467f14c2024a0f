"""The short form of ``benchmarks/rerun_simulation.py``, and that it notices what must not be."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import rerun_service

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rerun_simulation.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not here")


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))  # the script adds to it
    spec = importlib.util.spec_from_file_location("nudgescribe_rerun_simulation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def requests(table: str) -> dict[str, int]:
    rows = re.findall(r"^\| ([^|*]+) \| `[^`]+` \| ([0-9,]+) \|", table, re.MULTILINE)
    found: dict[str, int] = {}
    for what, number in rows:
        found[what] = found.get(what, 0) + int(number.replace(",", ""))
    return found


def test_a_hundred_campaigns(simulation: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulation.main(["--campaigns", "100"]) == 0
    said = capsys.readouterr().out
    assert requests(said)["run again"] >= 100
    assert "verify after no usable answer" not in said
    assert "100 campaigns in one call; 0 runs were found in the history" in said


def test_with_lost_answers_and_waiting(simulation: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--campaigns", "60", "--lost-after", "0.1", "--lost-before", "0.1", "--unavailable-after", "0.1"]
    assert simulation.main([*options, "--wait", "--generation-time", "60"]) == 0
    said = capsys.readouterr().out
    counted = requests(said)
    assert counted["verify after no usable answer"] > 5
    assert counted["wait, publish"] > 0
    assert "exactly one new run, and the report says so." in said


def test_it_complains_of_a_second_run(
    simulation: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[..., Any] = rerun_service.RerunService._initiate

    def twice(self: rerun_service.RerunService, body: Mapping[str, Any]) -> object:
        done = run(self, body)
        self.set_state(body["campaign_id"], "Published")
        self.rerun_by_somebody_else(body["campaign_id"], body["new_customer_group_id"])
        return done

    monkeypatch.setattr(rerun_service.RerunService, "_initiate", twice)
    assert simulation.main(["--campaigns", "3"]) == 1
    captured = capsys.readouterr()
    assert "c-00001 has 2 new runs, and is reported as succeeded." in captured.err
    assert "Something is wrong." in captured.out
