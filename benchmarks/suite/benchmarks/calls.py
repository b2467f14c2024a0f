"""Small calls: one after the other, and by many callers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from server import Settings

from suite.benchmarks.pages import ALL
from suite.context import Context
from suite.crew import Cost, interleaved
from suite.entrants import ENTRANTS
from suite.figures import Bar, Cell, Chart, Goal, Outcome, Table, median_of, ratio

CALLERS = (1, 8, 64, 512)
TIMES = 1_000


def small_calls(
    context: Context, names: Sequence[str], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """One small call after the other: by entrant, the µs of CPU and the µs that each takes."""
    crew = context.crew
    url = crew.serve(Settings(pages=7, records=1))
    times = context.amount(TIMES, 20)

    def work(name: str) -> Callable[[], Cost]:
        def run() -> Cost:
            # A client of its own, with one connection; opened before, since it may have been closed meanwhile.
            crew.ask(name, url, "call", client="one by one", times=5)
            return crew.ask(name, url, "call", client="one by one", times=times)

        return run

    for name in names:
        work(name)()
    costs = interleaved({name: work(name) for name in names}, context.turns(rounds), context.tell)
    cpu = {name: [cost.cpu / times * 1e6 for cost in costs[name]] for name in names}
    wall = {name: [cost.wall / times * 1e6 for cost in costs[name]] for name in names}
    return cpu, wall


def call(context: Context) -> Outcome:
    names = context.present(ALL)
    cpu, wall = small_calls(context, names, 9)
    table = Table(
        title="One small call after the other",
        columns=("", "µs of CPU a call", "of the floor's", "µs a call"),
        rows=[
            (
                ENTRANTS[name].title,
                median_of(cpu[name]),
                ratio(cpu[name], cpu["floor"]) if "floor" in names else "",
                median_of(wall[name]),
            )
            for name in names
        ],
    )
    goals = []
    if "floor" in names:
        goals.append(
            Goal(
                key="call",
                text="CPU of one small call against raw aiohttp + orjson",
                sign="<=",
                bound=1.25,
                unit=" ×",  # noqa: RUF001 - it is what is meant
                figure=ratio(cpu["ours"], cpu["floor"]),
                note=f"without `speed`: {ratio(cpu['plain'], cpu['floor'])}",
            )
        )
    return Outcome(
        about=(
            f"The number of pages of a group, {context.amount(TIMES, 20):,} times, by one caller. The session, the token and the connection "
            "are there already."
        ),
        tables=[table],
        charts=[
            Chart(
                file="call",
                title="µs of CPU, one small call",
                unit="µs",
                bars=[Bar(ENTRANTS[name].title, median_of(cpu[name])) for name in names],
            )
        ],
        goals=goals,
        notes=context.notes,
        samples={f"{name}, CPU a call in µs": cpu[name] for name in names},
    )


def callers(context: Context) -> Outcome:
    names, crew = context.present(("floor", "ours", "plain")), context.crew
    url = crew.serve(Settings(pages=7, records=1))
    times = context.amount(2_048, 512)

    def work(name: str, at_once: int) -> Callable[[], Cost]:
        def run() -> Cost:
            client = f"{at_once} at once"
            crew.ask(name, url, "callers", client=client, callers=at_once, times=at_once)
            return crew.ask(name, url, "callers", client=client, callers=at_once, times=times)

        return run

    works = {f"{name} {at_once}": work(name, at_once) for at_once in CALLERS for name in names}
    for run in works.values():
        run()
    costs = interleaved(works, context.turns(7), context.tell)
    cpu = {key: [cost.cpu / times * 1e6 for cost in costs[key]] for key in works}
    rows: list[Sequence[Cell]] = [
        (
            ENTRANTS[name].title,
            *(median_of(cpu[f"{name} {at_once}"]) for at_once in CALLERS),
        )
        for name in names
    ]
    rows += [
        (f"{ENTRANTS[name].title}: of the floor's", *(ratio(cpu[f"{name} {n}"], cpu[f"floor {n}"]) for n in CALLERS))
        for name in names
        if name != "floor" and "floor" in names
    ]
    most = max(CALLERS[1:], key=lambda n: median_of(cpu[f"ours {n}"]).median)
    growth = ratio(cpu[f"ours {most}"], cpu["ours 1"])
    return Outcome(
        about=(
            f"{times:,} small calls in all, by 1, 8, 64 and 512 callers at once, µs of CPU a call. Of ours, 64 are in "
            "flight at most (`concurrency` of the client), of aiohttp 100: its own limits."
        ),
        tables=[Table(title="µs of CPU a call", columns=("callers", *map(str, CALLERS)), rows=rows)],
        goals=[
            Goal(
                key="callers",
                text="cost a call from 1 to 512 callers: the most against that of 1",
                sign="<=",
                bound=1.10,
                unit=" ×",  # noqa: RUF001 - it is what is meant
                figure=growth,
                note=f"the most is at {most}",
            )
        ],
        notes=context.notes,
        samples=cpu,
    )
