"""What the benchmarks make of their figures. Not the figures: no test asserts a time."""

# ruff: noqa: E402, RUF001 - the benchmarks are found by their folder, which may not be here; and times is a sign

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
if not FOLDER.exists():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(os.fspath(FOLDER))

from run import arguments
from server import Settings, page_body
from suite import context, crew, machine
from suite.benchmarks import pages
from suite.chart import svg
from suite.figures import Bar, Chart, Figure, Goal, Outcome, Table, from_json, median_of, ratio, short, to_json
from suite.report import CannotWriteError, for_terminal, kept, markdown, merged, write

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


@pytest.mark.parametrize(
    ("low", "median", "high", "verdict"),
    [
        (0.9, 1.0, 1.25, "met"),
        (0.9, 1.0, 1.26, "met, not in every round"),
        (1.2, 1.3, 1.4, "not met, but in some rounds"),
        (1.26, 1.3, 1.4, "not met"),
    ],
)
def test_a_verdict_says_if_not_all_rounds_agree(low: float, median: float, high: float, verdict: str) -> None:
    goal = Goal(key="call", text="a call", sign="<=", bound=1.25, figure=Figure(median, low, high, 3))
    assert goal.verdict == verdict
    # Turned round, for a goal that is to be exceeded.
    goal = Goal(key="call", text="a call", sign=">=", bound=-1.25, figure=Figure(-median, -high, -low, 3))
    assert goal.verdict == verdict
    assert Goal(key="call", text="a call", sign="<=", bound=0.8).verdict == "not measured"


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
    assert "| a call | ≤ 1.25 × | 1.50 (1.00 to 2.00) × | **not met, but in some rounds** | by CPU |" in text
    assert "| this \\| that | 1.50 (1.00 to 2.00) |" in text
    assert "![Cost < all](cost.svg)" in text
    assert "A peer is left out." in text
    assert "2026-01-02, commit abc; 2 cores" in text
    met = markdown(merged({}, {"call": outcome(Figure(1.2, 1.0, 1.2, 3))}, WHERE, ("call",)), ("call",))
    assert "| met | by CPU |\n" in met


def test_the_goals_say_which_run_they_are_from_if_there_are_several() -> None:
    figure, order = Figure(1.0, 1.0, 1.0, 3), ("pages", "call")
    first = merged({}, {"call": outcome(figure), "pages": outcome(figure)}, WHERE, order)
    assert "2026-01-02" not in markdown(first, order).partition("## Method")[0]
    goals = markdown(merged(first, {"call": outcome(figure)}, {**WHERE, "commit": "def"}, order), order)
    assert "| met | by CPU | 2026-01-02, commit abc |" in goals
    assert "| met | by CPU | 2026-01-02, commit def |" in goals


def test_the_page_says_that_a_core_was_shared() -> None:
    order, found = ("call",), {"call": outcome(Figure(1.0, 1.0, 1.0, 3))}
    assert "share one" in markdown(merged({}, found, {**WHERE, "sharing": "They share one."}, order), order)
    assert "share one" not in markdown(merged({}, found, {**WHERE, "sharing": ""}, order), order)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes cannot be bound to cores here")
@pytest.mark.parametrize(("usable", "cores", "shared"), [({5}, "1 core,", True), ({3, 5}, "2 cores,", False)])
def test_the_cores_are_those_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, usable: set[int], cores: str, shared: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable)
    where = machine.surroundings()
    assert where["machine"].startswith(cores)
    assert where["sharing"].startswith("Server and contenders share one core") is shared
    assert crew.cores() == ((None, None) if shared else (3, 5))


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_a_commit_is_that_and_changes_only_if_more_than_the_results_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, module = tmp_path / "docs" / "benchmarks" / "results.json", tmp_path / "module.py"
    results.parent.mkdir(parents=True)
    results.touch()
    module.touch()
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    for command in (("init", "--quiet"), ("add", "."), (*author, "commit", "--quiet", "--message", "a")):
        subprocess.run(("git", *command), cwd=tmp_path, check=True)
    monkeypatch.setattr(machine, "CHECKOUT", tmp_path)
    results.write_text("{}", encoding="utf-8")
    assert "changes" not in machine.surroundings()["commit"]
    module.write_text("1", encoding="utf-8")
    assert machine.surroundings()["commit"].endswith(" and changes")


def test_it_is_noted_that_httpx_is_slower_without_sniffio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "find_spec", lambda _: None)
    with crew.Crew() as everybody:
        monkeypatch.setattr(everybody, "present", lambda names, _: [*names])
        here = context.Context(name="call", crew=everybody, small=True, rounds=None)
        here.present(("floor", "ours"))
        assert here.notes == []
        here.present(("floor", "generated"))
        here.present(("httpx",))
        assert here.notes == [context.WITHOUT_SNIFFIO]


def test_no_temporary_file_outlives_the_crew_however_it_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    code = (
        "import tempfile; from pathlib import Path; folder = tempfile.mkdtemp(); "
        "Path(folder, 'file').touch(); print(folder, flush=True); input()"
    )
    with suppress(KeyboardInterrupt), crew.Crew() as everybody:
        monkeypatch.setattr(crew, "_command", lambda *_: ["-c", f"print('{{}}', flush=True); {code}"])
        folder = Path(everybody.worker("floor").read().strip())
        assert folder.is_relative_to(tmp_path)
        assert [*folder.iterdir()]
        raise KeyboardInterrupt
    assert not [*tmp_path.iterdir()]


def test_the_page_says_who_is_faster_by_the_figures() -> None:
    rates = {"100 a page": {"pyreqwest": [3.0], "ours": [2.0], "floor": [2.5]}}
    sentence = pages.rust(rates)
    assert "is faster than this package and than the floor" in sentence
    assert sentence.endswith("1.50 and 1.20 times at 100 a page.")
    assert "is not faster throughout" in pages.rust({"100 a page": {**rates["100 a page"], "floor": [4.0]}})
    assert not pages.rust({"100 a page": {"ours": [2.0], "floor": [2.5]}})


def test_writing_leaves_what_is_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "profile.md").write_text("by hand", encoding="utf-8")
    write({"call": outcome(Figure(1.5, 1.0, 2.0, 3))}, WHERE, ("call", "pages"), tmp_path)
    write({"pages": outcome(Figure(1.5, 1.0, 2.0, 3))}, WHERE, ("call", "pages"), tmp_path)
    assert (tmp_path / "profile.md").read_text(encoding="utf-8") == "by hand"
    assert [*json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))] == ["call", "pages"]
    assert {file.name for file in tmp_path.iterdir()} == {"profile.md", "results.json", "index.md", "cost.svg"}


def test_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    assert kept(tmp_path / "new") == {}
    (tmp_path / "results.json").write_text('{"call": {"surround', encoding="utf-8")
    with pytest.raises(CannotWriteError, match=r"results.json is damaged \(JSONDecodeError"):
        kept(tmp_path)
    (tmp_path / "results.json").write_text('{"call": {}}', encoding="utf-8")
    with pytest.raises(CannotWriteError, match=r"results.json is damaged \(KeyError"):
        kept(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match="Nothing can be written to"):
        kept(tmp_path / "file" / "results")


def test_a_file_is_replaced_as_a_whole_and_the_results_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {"call": outcome(Figure(1.5, 1.0, 2.0, 3))}
    write(found, WHERE, ("call",), tmp_path)
    before = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    replaced: list[str] = []

    def replace(_: Path, file: Path) -> None:
        if file.name == "results.json":
            raise OSError("the disk is full")
        replaced.append(file.name)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="the disk is full"):
        write(found, {**WHERE, "commit": "def"}, ("call",), tmp_path)
    assert replaced == ["cost.svg", "index.md"]
    assert {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == before


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
    ("given", "complaint"),
    [
        (("nonsense",), "there is no benchmark 'nonsense'; there are pages, "),
        (("--rounds", "0"), "--rounds must be at least 1, not 0"),
        (("--small", "--write"), "leave --small or --write out"),
    ],
)
def test_wrong_use_is_told_before_anything_is_measured(
    given: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(given)
    assert ended.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
