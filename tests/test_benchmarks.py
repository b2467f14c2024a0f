"""What the benchmarks make of their figures. Not the figures: no test asserts a time."""

# ruff: noqa: E402, RUF001 - the benchmarks are found by their folder, which may not be here; and times is a sign

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
if not FOLDER.exists():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(os.fspath(FOLDER))

from server import Settings, page_body
from suite.chart import svg
from suite.figures import Bar, Chart, Figure, Goal, Outcome, Table, from_json, median_of, ratio, short, to_json
from suite.report import for_terminal, markdown, merged, write

WHERE = {"date": "2026-01-02", "commit": "abc", "machine": "2 cores", "python": "CPython", "packages": "aiohttp 3"}


def outcome(figure: Figure, about: str = "What was done.") -> Outcome:
    return Outcome(
        about=about,
        tables=[
            Table(title="Cost", columns=("", "µs"), rows=[("this | that", figure), ("nothing", "")], note="A note.")
        ],
        charts=[Chart(file="cost", title="Cost < all", unit="µs", bars=[Bar("nudgescribe_async", figure)])],
        goals=[Goal(key="call", text="a call", sign="<=", bound=1.25, unit=" ×", figure=figure, note="by CPU")],
        notes=["A peer is left out."],
        samples={"call": [1.0, 2.0]},
    )


def test_a_figure_is_the_median_with_the_least_and_the_most() -> None:
    assert median_of([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0, 3)
    assert str(Figure(2.0, 1.0, 3.0, 3)) == "2.00 (1.00 to 3.00)"
    assert str(median_of([1234.5])) == "1,234"


def test_a_ratio_is_taken_within_each_round() -> None:
    # The second round was disturbed, for both alike. A ratio of medians would be 6.67.
    assert ratio([2.0, 20.0, 30.0], [1.0, 10.0, 3.0]) == Figure(2.0, 2.0, 10.0, 3)
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_another_unit_keeps_the_order_of_least_and_most() -> None:
    assert Figure(2.0, 1.0, 3.0, 3).times(-1.0) == Figure(-2.0, -3.0, -1.0, 3)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.012345, "0.0123"), (0.9876, "0.988"), (12.345, "12.3"), (123456.7, "123,457")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("sign", "median", "met"), [(">=", 0.8, True), (">=", 0.79, False), ("<=", 0.8, True), ("<=", 0.81, False)]
)
def test_a_goal_is_met_by_the_median(sign: str, median: float, met: bool) -> None:
    figure = Figure(median, 0.0, 2.0, 3)
    goal = Goal(key="call", text="a call", sign=">=" if sign == ">=" else "<=", bound=0.8, figure=figure)
    assert goal.met is met
    assert Goal(key="call", text="a call", sign="<=", bound=0.8).met is None


def test_what_is_kept_comes_back() -> None:
    found = outcome(Figure(1.5, 1.0, 2.0, 3))
    again = from_json(json.loads(json.dumps(to_json(found))))
    assert to_json(again) == to_json(found)
    assert again.goals[0].figure == Figure(1.5, 1.0, 2.0, 3)
    assert [*again.tables[0].rows[0]] == ["this | that", Figure(1.5, 1.0, 2.0, 3)]


def test_another_run_replaces_its_own_and_keeps_the_rest() -> None:
    order = ("pages", "call", "layers")
    figure = Figure(1.0, 1.0, 1.0, 1)
    first = merged({}, {"layers": outcome(figure, "old"), "pages": outcome(figure, "old")}, WHERE, order)
    later = {**WHERE, "commit": "def"}
    second = merged(first, {"call": outcome(figure, "new"), "pages": outcome(figure, "new")}, later, order)
    assert [*second] == ["pages", "call", "layers"]
    assert [second[name]["outcome"]["about"] for name in second] == ["new", "new", "old"]
    assert [second[name]["surroundings"]["commit"] for name in second] == ["def", "def", "abc"]
    # A benchmark that there is no more leaves no results behind.
    assert [*merged(second, {}, WHERE, ("call",))] == ["call"]


def test_the_page_has_every_figure_goal_and_note() -> None:
    results = merged({}, {"call": outcome(Figure(1.5, 1.0, 2.0, 3))}, WHERE, ("call",))
    text = markdown(results, ("call",))
    assert "| a call | ≤ 1.25 × | 1.50 (1.00 to 2.00) × | **not met** | by CPU |" in text
    assert "| this \\| that | 1.50 (1.00 to 2.00) |" in text
    assert "![Cost < all](cost.svg)" in text
    assert "A peer is left out." in text
    assert "2026-01-02, commit abc; 2 cores" in text
    assert "not met" not in markdown(
        merged({}, {"call": outcome(Figure(1.2, 1.0, 2.0, 3))}, WHERE, ("call",)), ("call",)
    )


def test_writing_leaves_what_is_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "profile.md").write_text("by hand", encoding="utf-8")
    write({"call": outcome(Figure(1.5, 1.0, 2.0, 3))}, WHERE, ("call", "pages"), tmp_path)
    write({"pages": outcome(Figure(1.5, 1.0, 2.0, 3))}, WHERE, ("call", "pages"), tmp_path)
    assert (tmp_path / "profile.md").read_text(encoding="utf-8") == "by hand"
    assert [*json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))] == ["call", "pages"]
    assert {file.name for file in tmp_path.iterdir()} == {"profile.md", "results.json", "index.md", "cost.svg"}


def test_a_chart_is_the_same_for_the_same_figures_and_escapes_its_text() -> None:
    (chart,) = outcome(Figure(1.5, 1.0, 2.0, 3)).charts
    assert svg(chart) == svg(chart)
    assert "Cost &lt; all" in svg(chart)
    assert "1.50 µs" in svg(chart)


def test_a_table_on_a_terminal_is_in_columns() -> None:
    text = for_terminal("call", outcome(Figure(1.5, 1.0, 2.0, 3)))
    assert "                              µs\nthis | that  1.50 (1.00 to 2.00)\nnothing\nA note." in text


def test_the_delay_of_a_page_is_the_same_for_everybody() -> None:
    settings = Settings(pages=160, records=1, latency=0.02, jitter=0.5)
    delays = [settings.delay(page) for page in range(1, 161)]
    assert delays == [settings.delay(page) for page in range(1, 161)]
    assert 0.01 <= min(delays) < 0.012
    assert 0.028 < max(delays) <= 0.03
    assert settings.ideal(16) == pytest.approx(sum(delays) / 16)
    assert Settings(pages=33, records=1, latency=0.02).ideal(16) == pytest.approx(0.06)


def test_a_page_has_its_number_in_every_id() -> None:
    customers = json.loads(page_body(2, page=b"00000007"))
    assert [customer["customer_id"] for customer in customers] == ["00000007-00000000", "00000007-00000001"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nonsense",), "there is no benchmark 'nonsense'; there are pages, "),
        (("--rounds", "0"), "--rounds must be at least 1, not 0"),
        (("--small", "--write"), "leave --small or --write out"),
    ],
)
def test_wrong_use_is_told_before_anything_is_measured(arguments: tuple[str, ...], complaint: str) -> None:
    command = [sys.executable, os.fspath(FOLDER / "run.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert complaint in " ".join(done.stderr.split())
