"""This package over each of its transports, next to the floor: pages of several sizes, and small calls."""

from __future__ import annotations

from server import Settings

from suite.benchmarks.calls import small_calls
from suite.context import Context
from suite.entrants import ENTRANTS
from suite.figures import Bar, Cell, Chart, Goal, Outcome, Table, median_of, ratio

ALL = (
    "floor",
    "ours",
    "ours-httpx",
    "ours-pyreqwest",
    "floor-uvloop",
    "ours-uvloop",
    "ours-pyreqwest-uvloop",
)
FASTEST = "ours-pyreqwest"


def transports(context: Context) -> Outcome:
    names = context.present(ALL)
    tables, goals = [], []
    samples: dict[str, list[float]] = {}
    bars: list[Bar] = []
    for records, count, rounds in ((1, 1_000, 5), (100, 400, 7), (1_000, 60, 5)):
        pages = context.amount(count, 20 if records < 1_000 else 4)
        costs, share = context.read(names, Settings(pages=pages, records=records), context.turns(rounds))
        rate = {name: [pages * records / cost.wall for cost in costs[name]] for name in names}
        cpu = {name: [cost.cpu / pages * 1e6 for cost in costs[name]] for name in names}
        a_page = "1 record" if records == 1 else f"{records:,} records"
        rows: list[list[Cell]] = []
        for name in names:
            row: list[Cell] = [ENTRANTS[name].title, median_of(rate[name]).times(1e-3)]
            row += [ratio(rate[name], rate["floor"]) if "floor" in names else ""]
            row += [median_of(cpu[name]), ratio(cpu[name], cpu["floor"]) if "floor" in names else ""]
            rows.append(row)
            samples[f"{a_page} a page, {name}, records a second"] = rate[name]
            samples[f"{a_page} a page, {name}, CPU a page in µs"] = cpu[name]
        tables.append(
            Table(
                title=f"{pages:,} pages of {a_page}",
                columns=("", "thousand records a second", "of the floor's", "µs of CPU a page", "of the floor's"),
                rows=rows,
                note=share,
            )
        )
        if records == 100:
            bars = [Bar(ENTRANTS[name].title, median_of(rate[name]).times(1e-3)) for name in names]
            if {"floor", FASTEST} <= {*names}:
                goals.append(
                    Goal(
                        key="transports-floor",
                        text="typed iteration with the fastest transport, 100 a page, concurrency 16, against the floor, untyped",
                        sign=">=",
                        bound=1.0,
                        figure=ratio(rate[FASTEST], rate["floor"]),
                        note=f"by CPU: {ratio(cpu['floor'], cpu[FASTEST])}",
                    )
                )
    tables.append(_calls(context, names, samples))
    return Outcome(
        about=(
            "The same client over each of its transports: the number of pages, then all of them, 16 at once, every record "
            "visited in order; and one small call after the other. pyreqwest works in a thread of its own beside that of "
            "the event loop, on the same core: its CPU is that of both."
        ),
        tables=tables,
        charts=[Chart(file="transports", title="thousand records a second, 100 a page", unit="k/s", bars=bars)],
        goals=goals,
        notes=context.notes,
        samples=samples,
    )


def _calls(context: Context, names: list[str], samples: dict[str, list[float]]) -> Table:
    cpu, wall = small_calls(context, names, 7)
    samples |= {f"small call, {name}, CPU in µs": cpu[name] for name in names}
    samples |= {f"small call, {name}, µs": wall[name] for name in names}
    return Table(
        title="One small call after the other",
        columns=("", "µs of CPU a call", "of the floor's", "µs a call", "of the floor's"),
        rows=[
            (
                ENTRANTS[name].title,
                median_of(cpu[name]),
                ratio(cpu[name], cpu["floor"]) if "floor" in names else "",
                median_of(wall[name]),
                ratio(wall[name], wall["floor"]) if "floor" in names else "",
            )
            for name in names
        ],
    )
