"""What is left of the time when answers take theirs: latency, and the first record."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from server import Settings

from suite.contender import CONCURRENCY
from suite.context import Context
from suite.crew import Cost, interleaved
from suite.entrants import ENTRANTS
from suite.figures import Bar, Chart, Goal, Outcome, Table, median_of, ratio, short


@frozen(kw_only=True)
class Kind:
    """One setting of the latency benchmark."""

    title: str
    key: str
    settings: Settings
    rounds: int
    who: tuple[str, ...]
    bound: float


def latency(context: Context) -> Outcome:
    fast = ("floor", "ours", "plain", "pyreqwest")
    small = context.small
    kinds = [
        Kind(
            title="20 ms, 800 pages of 100",
            key="latency-20",
            settings=Settings(pages=32 if small else 800, records=100, latency=0.02),
            rounds=5,
            who=(*fast, "httpx", "requests"),
            bound=0.93,
        ),
        Kind(
            title="100 ms, 320 pages of 100",
            key="latency-100",
            settings=Settings(pages=32 if small else 320, records=100, latency=0.1),
            rounds=3,
            who=("floor", "ours", "httpx"),
            bound=0.975,
        ),
        Kind(
            title="20 ms ± 50 %, 800 pages of 100",
            key="latency-jitter",
            settings=Settings(pages=32 if small else 800, records=100, latency=0.02, jitter=0.5),
            rounds=5,
            who=("floor", "ours"),
            bound=0.93,
        ),
    ]
    tables, goals, charts = [], [], []
    samples: dict[str, list[float]] = {}
    for kind in kinds:
        who, settings = context.present(kind.who), kind.settings
        costs, _ = context.read(who, settings, context.turns(kind.rounds), check=False)
        ideal = settings.ideal(CONCURRENCY)
        strict = {name: [ideal / cost.wall for cost in costs[name]] for name in who}
        counted = {name: [(ideal + settings.latency) / cost.wall for cost in costs[name]] for name in who}
        tables.append(
            Table(
                title=kind.title,
                columns=("", "of the ideal", "of the ideal and one count", "of the floor's", "seconds"),
                rows=[
                    (
                        ENTRANTS[name].title,
                        median_of(strict[name]),
                        median_of(counted[name]),
                        ratio(strict[name], strict["floor"]) if "floor" in who else "",
                        median_of(cost.wall for cost in costs[name]),
                    )
                    for name in who
                ],
            )
        )
        samples |= {f"{kind.title}, {name}, seconds": [cost.wall for cost in costs[name]] for name in who}
        goals.append(
            Goal(
                key=kind.key,
                text=f"efficiency at {kind.title}, concurrency {CONCURRENCY}, one count granted",
                sign=">=",
                bound=kind.bound,
                unit=" of the ideal",
                figure=median_of(counted["ours"]),
                note=_at_most(
                    (ideal + settings.latency) / (ideal + 2 * settings.latency), "who counts twice", settings
                ),
            )
        )
        goals.append(
            Goal(
                key=f"{kind.key}-letter",
                text="the same by the letter, no count granted",
                sign=">=",
                bound=kind.bound,
                unit=" of the ideal",
                figure=median_of(strict["ours"]),
                note=_at_most(ideal / (ideal + settings.latency), "who counts once", settings),
            )
        )
        if kind.key == "latency-20":
            if "floor" in who:
                goals.append(
                    Goal(
                        key="latency-floor",
                        text="the same against what the floor reaches",
                        sign=">=",
                        bound=0.985,
                        figure=ratio(strict["ours"], strict["floor"]),
                    )
                )
            charts.append(
                Chart(
                    file="latency-20",
                    title="Part of the ideal at 20 ms, 800 pages of 100, 16 at once",
                    unit="",
                    bars=[Bar(ENTRANTS[name].title, median_of(counted[name])) for name in who],
                )
            )
    return Outcome(
        about=(
            "All pages are read while every answer takes its time, 16 at once. The ideal is `ceil(pages / 16)` times the "
            "latency (with jitter: the sum of all latencies, by 16): nothing but pages. The others ask for the count, then for "
            "all pages. `iter` asks for the count and the first page together; for the last page in the beginning, to compare it "
            "when its turn comes, and all other pages; and for the count once more, when the last page has been handed out. "
            "The second column grants one count, one latency: nobody knows how many pages to ask for before it is here. The "
            "count at the end is granted nowhere."
        ),
        tables=tables,
        charts=charts,
        goals=goals,
        notes=context.notes,
        samples=samples,
    )


def _at_most(part: float, who: str, settings: Settings) -> str:
    """With jitter, nobody can say."""
    return "" if settings.jitter else f"{short(part)} at most for {who}"


def first(context: Context) -> Outcome:
    names, crew = context.present(("floor", "ours", "plain", "pyreqwest", "httpx")), context.crew
    latency = 0.02
    url = crew.serve(Settings(pages=800, records=100, latency=latency))

    def work(name: str) -> Callable[[], Cost]:
        def run() -> Cost:
            crew.ask(name, url, "callers", callers=CONCURRENCY, times=CONCURRENCY)
            return crew.ask(name, url, "first")

        return run

    for name in names:
        work(name)()
    costs = interleaved({name: work(name) for name in names}, context.turns(11), context.tell)
    seconds = {name: [float(cost.result) for cost in costs[name]] for name in names}
    return Outcome(
        about="From asking for the first record to having it, 800 pages of 100, every answer after 20 ms.",
        tables=[
            Table(
                title="The first record at 20 ms",
                columns=("", "ms", "latencies"),
                rows=[
                    (
                        ENTRANTS[name].title,
                        median_of(seconds[name]).times(1e3),
                        median_of(seconds[name]).times(1 / latency),
                    )
                    for name in names
                ],
            )
        ],
        notes=context.notes,
        samples={f"{name}, seconds": seconds[name] for name in names},
    )
