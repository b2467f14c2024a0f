"""Reading a group page by page: throughput and CPU, nothing in the way but the client itself."""

from __future__ import annotations

from server import Settings

from suite.context import Context
from suite.entrants import ENTRANTS
from suite.figures import Bar, Chart, Goal, Outcome, Table, median_of, ratio

ALL = (
    "floor",
    "ours",
    "plain",
    "pyreqwest",
    "niquests",
    "requests",
    "httpx",
    "generated",
    "floor-uvloop",
    "ours-uvloop",
)
PEERS = {"httpx": ("httpx + pydantic", 7), "generated": ("openapi-python-client's generated client", 5)}


def pages(context: Context) -> Outcome:
    names = context.present(ALL)
    tables, charts, goals = [], [], []
    samples: dict[str, list[float]] = {}
    for records, count, readable, rounds, who in (
        (100, 400, False, 7, names),
        (1_000, 60, False, 5, names),
        (100, 400, True, 5, [name for name in names if name in ("floor", "ours", "plain")]),
    ):
        count = context.amount(count, 20 if records == 100 else 4)  # noqa: PLW2901 - less of the same
        settings = Settings(pages=count, records=records, readable=readable)
        costs, share = context.read(who, settings, context.turns(rounds))
        cpu = {name: [cost.cpu / (count * records) * 1e6 for cost in costs[name]] for name in who}
        rate = {name: [count * records / cost.wall for cost in costs[name]] for name in who}
        kind = f"{records:,} a page" + (", profiles in the clear" if readable else "")
        tables.append(
            Table(
                title=f"{count:,} pages of {records:,}" + (", profiles in the clear" if readable else ""),
                columns=("", "thousand records a second", "of the floor's", "µs of CPU a record", "of the floor's"),
                rows=[
                    (
                        ENTRANTS[name].title,
                        median_of(rate[name]).times(1e-3),
                        ratio(rate[name], rate["floor"]) if "floor" in who else "",
                        median_of(cpu[name]),
                        ratio(cpu[name], cpu["floor"]) if "floor" in who else "",
                    )
                    for name in who
                ],
                note=share,
            )
        )
        for name in who:
            samples[f"{kind}, {name}, CPU a record in µs"] = cpu[name]
            samples[f"{kind}, {name}, records a second"] = rate[name]
        if not readable:
            charts.append(
                Chart(
                    file=f"pages-{records}",
                    title=f"µs of CPU a record, {records:,} a page",
                    unit="µs",
                    bars=[Bar(ENTRANTS[name].title, median_of(cpu[name])) for name in who],
                )
            )
        if records == 100 and not readable and "ours" in who:
            if "floor" in who:
                goals.append(
                    Goal(
                        key="pages-floor",
                        text="typed iteration, 100 a page, 0 ms, concurrency 16: throughput against the floor",
                        sign=">=",
                        bound=0.80,
                        figure=ratio(rate["ours"], rate["floor"]),
                        note=f"by CPU: {ratio(cpu['floor'], cpu['ours'])}",
                    )
                )
            for peer, (title, bound) in PEERS.items():
                if peer in who:
                    goals.append(
                        Goal(
                            key=f"pages-{peer}",
                            text=f"the same against {title}",
                            sign=">=",
                            bound=bound,
                            unit=" ×",  # noqa: RUF001 - it is what is meant
                            figure=ratio(rate["ours"], rate[peer]),
                            note=f"by CPU: {ratio(cpu[peer], cpu['ours'])}",
                        )
                    )
    return Outcome(
        about=(
            "The number of pages, then all of them, 16 at once and 32 ahead, every record visited in order. A page is "
            "decoded when its turn comes, but by the generated client, which decodes where it fetches. The server answers at once."
        ),
        tables=tables,
        charts=charts,
        goals=goals,
        notes=context.notes,
        samples=samples,
    )
