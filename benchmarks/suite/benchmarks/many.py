"""A million records: kept in a list, in memory that does not grow, and whether more of them cost more each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from server import Settings

from suite.contender import AHEAD, CONCURRENCY
from suite.context import Context
from suite.crew import Cost, Crew, interleaved
from suite.entrants import ENTRANTS
from suite.figures import Cell, Goal, Outcome, Table, median_of, ratio

MEGABYTE = 2**20


def _size(settings: Settings) -> dict[str, Any]:
    return {"pages": settings.pages, "records": settings.records}


def collect(context: Context) -> Outcome:
    names, crew = context.present(("floor", "ours")), context.crew
    settings = Settings(pages=context.amount(1_000, 4), records=context.amount(1_000, 100))
    url, size = crew.serve(settings), _size(settings)
    total = settings.pages * settings.records
    ways = {
        "ours, streamed": ("ours", "read", "nudgescribe_async[speed], streamed"),
        "ours, collect()": ("ours", "collect", "nudgescribe_async[speed], collect()"),
        "ours, by hand": ("ours", "collect_by_hand", "nudgescribe_async[speed], a list by hand"),
        "floor, streamed": ("floor", "read", "aiohttp + orjson, streamed"),
        "floor, a list": ("floor", "collect", "aiohttp + orjson, a list"),
        "floor, a list, gc off": ("floor", "collect_without_gc", "aiohttp + orjson, a list, garbage collector off"),
    }

    def work(name: str, do: str) -> Callable[[], Cost]:
        def run() -> Cost:
            try:  # a process of its own, since a list of a million leaves one that is no longer as it was
                crew.ask(name, url, "callers", crew="collect", callers=CONCURRENCY, times=CONCURRENCY)
                return crew.ask(name, url, do, crew="collect", **size)
            finally:
                crew.dismiss(name, "collect")

        return run

    works = {way: work(name, do) for way, (name, do, _) in ways.items() if name in names}
    costs = interleaved(works, context.turns(3), context.tell)
    rate = {way: [total / cost.wall for cost in costs[way]] for way in works}
    cpu = {way: [cost.cpu / total * 1e6 for cost in costs[way]] for way in works}
    stream = {"ours": "ours, streamed", "floor": "floor, streamed"}
    goal = Goal(
        key="collect",
        text=f"collecting {total:,} customers into a list against streaming them",
        sign=">=",
        bound=0.5,
        unit=" of the rate",
        figure=ratio(rate["ours, collect()"], rate["ours, streamed"]),
        note=f"by CPU: {ratio(cpu['ours, streamed'], cpu['ours, collect()'])}",
    )
    return Outcome(
        about=f"{total:,} customers, in pages of {settings.records:,}, each way in a fresh process.",
        tables=[
            Table(
                title="Streamed, and kept in a list",
                columns=("", "thousand records a second", "of the rate of streaming", "µs of CPU a record"),
                rows=[
                    (
                        ways[way][2],
                        median_of(rate[way]).times(1e-3),
                        ratio(rate[way], rate[stream[ways[way][0]]]),
                        median_of(cpu[way]),
                    )
                    for way in works
                ],
            )
        ],
        goals=[goal],
        notes=context.notes,
        samples={f"{way}, records a second": rate[way] for way in works},
    )


def memory(context: Context) -> Outcome:
    names, crew = context.present(("floor", "ours")), context.crew
    settings = Settings(pages=context.amount(1_000, 10), records=context.amount(1_000, 100))
    url, size = crew.serve(settings), _size(settings)

    def work(name: str, pause: float) -> Callable[[], Cost]:
        def run() -> Cost:
            try:
                crew.ask(name, url, "callers", crew="memory", callers=CONCURRENCY, times=CONCURRENCY)
                return crew.ask(name, url, "memory", crew="memory", **size, pause=pause)
            finally:
                crew.dismiss(name, "memory")

        return run

    streamed = interleaved({name: work(name, 0) for name in names}, context.turns(3), context.tell)
    slow = interleaved({name: work(name, 0.002) for name in names}, context.turns(2), context.tell)
    total = settings.pages * settings.records

    def grown(costs: list[Cost]) -> list[float]:
        return [cost.result["bytes"] / MEGABYTE for cost in costs]

    rows = []
    for title, costs in (("as fast as they come", streamed), ("2 ms of pause after each page", slow)):
        for name in costs:
            ahead = "" if name == "floor" else median_of(cost.result["ahead"] for cost in costs[name])
            rows.append((f"{ENTRANTS[name].title}, {title}", median_of(grown(costs[name])), ahead))
    most = max(streamed["ours"], key=lambda cost: cost.result["bytes"])
    return Outcome(
        about=(
            f"How far the peak of memory grows over {total:,} records, pages of {settings.records:,}, {CONCURRENCY} at once, "
            f"{AHEAD} ahead: from after a first page to the end, each in a fresh process."
        ),
        tables=[Table(title="Growth of memory", columns=("", "MB", "pages ahead at most"), rows=rows)],
        goals=[
            Goal(
                key="memory",
                text=f"peak memory growth over {total:,} records, pages of {settings.records:,}, concurrency 16",
                sign="<=",
                bound=25,
                unit=" MB",
                figure=median_of(grown(streamed["ours"])),
                note=f"the most: {most.result['bytes'] / MEGABYTE:.1f}; with a slow consumer: {median_of(grown(slow['ours']))}",
            )
        ],
        notes=context.notes,
        samples={f"{name}, MB": grown(streamed[name]) for name in names},
    )


def growth(context: Context) -> Outcome:
    names, crew = context.present(("floor", "ours")), context.crew
    records, rounds = 100, context.turns(3)
    sizes = (10, 20) if context.small else (10, 100, 1_000, 10_000)
    cpu: dict[str, list[float]] = {}
    for pages in sizes:
        settings = Settings(pages=pages, records=records)
        url, times = crew.serve(settings), max(1, sizes[-1] // 10 // pages)
        works = {f"{name} {pages}": _repeated(crew, name, url, settings, times) for name in names}
        for name in names:
            crew.ask(name, url, "callers", callers=CONCURRENCY, times=CONCURRENCY)
        costs = interleaved(works, rounds, context.tell)
        for key in works:
            cpu[key] = [cost.cpu / (pages * records * times) * 1e6 for cost in costs[key]]
    fixed = {
        name: median_of(
            _fixed(few * sizes[0] * records, many * sizes[1] * records, sizes[0], sizes[1])
            for few, many in zip(cpu[f"{name} {sizes[0]}"], cpu[f"{name} {sizes[1]}"], strict=True)
        )
        for name in names
    }
    rows: list[Sequence[Cell]] = [
        (ENTRANTS[name].title, *(median_of(cpu[f"{name} {pages}"]) for pages in sizes), fixed[name]) for name in names
    ]
    later = [cpu[f"ours {pages}"] for pages in sizes[1:]]
    spread = ratio(
        [max(costs) for costs in zip(*later, strict=True)], [min(costs) for costs in zip(*later, strict=True)]
    )
    return Outcome(
        about=(
            f"Groups of {', '.join(f'{pages:,}' for pages in sizes)} pages of {records}, µs of CPU a record. What a group costs "
            "however many pages it has (the count, once more at the end, and a look at the last page) is in the last column; "
            f"over {sizes[0]} pages that shows."
        ),
        tables=[
            Table(
                title="µs of CPU a record",
                columns=("", *(f"{pages:,} pages" for pages in sizes), "µs for a group as such"),
                rows=rows,
            )
        ],
        goals=[
            Goal(
                key="growth",
                text=f"cost a record from {sizes[1]} to {sizes[-1]:,} pages: the most against the least",
                sign="<=",
                bound=1.10,
                unit=" ×",  # noqa: RUF001 - it is what is meant
                figure=spread,
                note=(
                    f"{sizes[0]} pages against {sizes[1]}, where what is paid once shows: "
                    f"{ratio(cpu[f'ours {sizes[0]}'], later[0])}"
                ),
            )
        ],
        notes=context.notes,
        samples=cpu,
    )


def _repeated(crew: Crew, name: str, url: str, settings: Settings, times: int) -> Callable[[], Cost]:
    def run() -> Cost:
        return crew.ask(name, url, "read_again", times=times, pages=settings.pages, records=settings.records)

    return run


def _fixed(few: float, many: float, few_pages: int, many_pages: int) -> float:
    """What is paid once, if so many pages cost so much in all."""
    return few - (many - few) / (many_pages - few_pages) * few_pages
