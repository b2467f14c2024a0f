"""What was found, for a terminal and for ``docs/benchmarks/``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.chart import svg
from suite.figures import Goal, Outcome, Table, from_json, to_json
from suite.machine import Surroundings

__all__ = ["CannotWriteError", "for_terminal", "kept", "markdown", "merged", "write"]

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
GOALS = (
    "pages-floor",
    "pages-httpx",
    "pages-generated",
    "transports-floor",
    "latency-20",
    "latency-20-letter",
    "latency-floor",
    "latency-100",
    "latency-100-letter",
    "latency-jitter",
    "latency-jitter-letter",
    "collect",
    "call",
    "import-whole",
    "import",
    "memory",
    "growth",
    "callers",
)
"""In the order in which they are told."""


class CannotWriteError(Exception):
    """The results cannot be kept where they are to be; the text says why."""


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text, with the columns below one another; all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def goal_rows(goals: Sequence[Goal]) -> list[tuple[str, ...]]:
    """A line for each, below a header."""
    rows: list[tuple[str, ...]] = [("goal", "wanted", "measured", "", "")]
    for goal in goals:
        measured = f"{goal.figure}{goal.unit}" if goal.figure else ""
        rows.append((goal.text, goal.wanted, measured, goal.verdict, goal.note))
    return rows


def for_terminal(name: str, outcome: Outcome) -> str:
    """What one benchmark found."""
    lines = ["", f"== {name}", outcome.about]
    for table in outcome.tables:
        lines += ["", table.title, *columns([table.columns, *([*map(str, row)] for row in table.rows)])]
        lines += [table.note] if table.note else []
    lines += ["", *outcome.notes] if outcome.notes else []
    lines += ["", *columns(goal_rows(outcome.goals))] if outcome.goals else []
    return "\n".join(lines)


# --- docs/benchmarks -------------------------------------------------------------------------------------------------


def merged(
    kept: Mapping[str, Any], found: Mapping[str, Outcome], where: Surroundings, order: Sequence[str]
) -> dict[str, Any]:
    """What was kept, with what was found now in the place of the same benchmarks."""
    now = {name: {"surroundings": where, "outcome": to_json(outcome)} for name, outcome in found.items()}
    everything = {**kept, **now}
    return {name: everything[name] for name in order if name in everything}


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    header, *others = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    line = ["---", *(["---:"] * (len(header) - 1))]
    return ["", *(f"| {' | '.join(row)} |" for row in (header, line, *others)), ""]


def _table(table: Table) -> list[str]:
    rows = [[*table.columns], *([*map(str, row)] for row in table.rows)]
    return ["", f"**{table.title}**", *_markdown_table(rows), *([table.note, ""] if table.note else [])]


def _goals(outcomes: Mapping[str, Outcome], runs: Mapping[str, str]) -> list[str]:
    """The table; with the run that each line is from, if they are from several."""
    found = [(goal, runs[name]) for name, outcome in outcomes.items() for goal in outcome.goals]
    found.sort(key=lambda pair: GOALS.index(pair[0].key))
    header, *rows = goal_rows([goal for goal, _ in found])
    lines = [header, *((*row[:3], row[3] if row[3].startswith("met") else f"**{row[3]}**", row[4]) for row in rows)]
    if len({run for _, run in found}) > 1:
        lines = [(*line, run) for line, run in zip(lines, ("from", *(run for _, run in found)), strict=True)]
    return _markdown_table(lines)


HEAD = """\
# Benchmarks

What this package costs, next to raw aiohttp with orjson to plain dicts (*the floor*, which nothing that is built on
aiohttp can beat by much) and next to the clients that one would use instead. Written by `nox -s bench -- --write`: do not
edit. What the figures mean, and what was done about them, is in [the profile](profile.md).

Every figure is the median of several rounds, with the least and the most behind it. A ratio is the median of the ratios
of each round. Machines are noisy, so compare what stands in one table, and nothing across machines.
"""

READINGS = """\
A note is no part of a goal. Where a goal is read otherwise than by the letter:

- Efficiency: the ideal has no time for finding out how many pages there are, so one count is granted; the line below each
  has the goal by the letter.
- Cost a record: by the letter from 10 pages to 10,000, here from 100, since over 10 what is paid once shows; the note has
  10 against 100.
- Cost a call: "flat" is read as "no dearer", so a call that is cheaper with more callers meets it.
- Import: the CPU of a fresh process without that of a bare interpreter; the notes have both with it.
- "The whole package": every module but those of the sandbox, of testing, of the contract and of the demo, which no client
  needs.
"""

METHOD = """\
## Method

- The server is a process of its own on a core of its own. It has its answers rendered beforehand, and writes the number
  of the page into them; it is never what is waited for, and says how busy it was. Where answers take their time, its
  timers are good to a tenth of a millisecond.
- Each contender is a process of its own, on the other core, started once and warm. Where there is no other core, that is
  said below the figures. Rounds are interleaved: in each, every contender does the same work once, one after the other,
  and another one begins.
- *CPU* is that of all threads of the contender, in user and system mode.
- The work is checked: every contender reads everything once with a look at each id and its place; in the rounds that count,
  the number of records is.
- A customer has the nine fields of the contract, with an encrypted profile: 750 bytes of JSON. *Profiles in the clear* are
  of eleven keys, with a list and an object.
- Each peer is written as its own users would at their best: one client that is kept, as many connections as are used,
  a sliding window of tasks, models that read bytes without a detour. All run on the event loop of asyncio, but where uvloop is named.
- `nudgescribe_async[speed]` is this package with the extra `speed`; `nudgescribe_async` without it.

## Repeat it

```console
$ nox -s bench                      # all of them, in a few minutes
$ nox -s bench -- pages call        # some of them
$ nox -s bench -- --rounds 15 call  # with more rounds
$ nox -s bench -- --small           # whether they work, in less than a minute
$ nox -s bench -- --write           # into docs/benchmarks/; what is not run stays as it is
```

The benchmarks are `{names}`. All samples are in [results.json](results.json).
"""


def markdown(results: Mapping[str, Any], order: Sequence[str]) -> str:
    """The page."""
    outcomes = {name: from_json(result["outcome"]) for name, result in results.items()}
    runs = {name: _run(result["surroundings"]) for name, result in results.items()}
    lines = [HEAD, "## Goals", *_goals(outcomes, runs)]
    lines += [READINGS, METHOD.format(names="`, `".join(order))]
    for name, outcome in outcomes.items():
        lines += [f"## `{name}`", "", outcome.about]
        for chart in outcome.charts:
            lines += ["", f"![{chart.title}]({chart.file}.svg)"]
        for table in outcome.tables:
            lines += _table(table)
        lines += [*(f"{note}\n" for note in outcome.notes)]
        where = results[name]["surroundings"]
        lines += ["", where.get("sharing", ""), "", _where(where), ""]
    return _tidy("\n".join(lines))


def _run(surroundings: Surroundings) -> str:
    return f"{surroundings['date']}, commit {surroundings['commit']}"


def _where(surroundings: Surroundings) -> str:
    return (
        f"<small>{_run(surroundings)}; {surroundings['machine']}; "
        f"{surroundings['python']}; {surroundings['packages']}</small>"
    )


def _tidy(text: str) -> str:
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip() + "\n"


def kept(folder: Path = FOLDER) -> dict[str, Any]:
    """What other runs found.

    Raises:
        CannotWriteError: it is damaged, or nothing can be written beside it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CannotWriteError(f"Nothing can be written to {folder}: {error.strerror}.") from error
    file = folder / "results.json"
    if not file.exists():
        return {}
    try:
        results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        markdown(results, [*results])
    except Exception as error:
        raise CannotWriteError(
            f"{file} is damaged ({type(error).__name__}: {error}). Get it back from git, or delete it and run all benchmarks."
        ) from error
    return results


def write(found: Mapping[str, Outcome], where: Surroundings, order: Sequence[str], folder: Path = FOLDER) -> None:
    """Put what was found into a folder, beside what other runs found.

    Raises:
        CannotWriteError: what they found is damaged, or nothing can be written there.
    """
    results = merged(kept(folder), found, where, order)
    for result in results.values():
        for chart in from_json(result["outcome"]).charts:
            _replace(folder / f"{chart.file}.svg", svg(chart))
    _replace(folder / "index.md", markdown(results, order))
    # Last: whatever comes between, the next run begins with what was whole.
    _replace(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _replace(file: Path, text: str) -> None:
    """Write it whole or not at all."""
    beside = file.with_name(f".{file.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
