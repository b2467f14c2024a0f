"""Reading a group page by page: throughput and CPU, nothing in the way but the client itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server import Settings

from suite.context import WITHOUT_SNIFFIO, Context
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
    rates: dict[str, dict[str, list[float]]] = {}
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
            rates[kind] = rate
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
            slower = "; without sniffio, which httpx is faster with" if WITHOUT_SNIFFIO in context.notes else ""
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
                            note=f"by CPU: {ratio(cpu[peer], cpu['ours'])}{slower}",
                        )
                    )
    return Outcome(
        about=(
            "The number of pages, then all of them, 16 at once and 32 ahead, every record visited in order. A page is "
            "decoded when its turn comes, but by the generated client, which decodes where it fetches. The server answers at once."
            f"{'' if context.small else rust(rates)}"
        ),
        tables=tables,
        charts=charts,
        goals=goals,
        notes=context.notes,
        samples=samples,
    )


def rust(rates: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """A sentence about the one peer that is built otherwise, if it took part; ``rates`` are by size of page and name."""
    if not all({"pyreqwest", "ours", "floor"} <= {*rate} for rate in rates.values()):
        return ""
    both = {kind: [ratio(rate["pyreqwest"], rate[name]) for name in ("ours", "floor")] for kind, rate in rates.items()}
    faster = all(figure.median > 1 for figures in both.values() for figure in figures)
    figures = "; ".join(f"{ours} and {floor} times at {kind}" for kind, (ours, floor) in both.items())
    return (
        f" {ENTRANTS['pyreqwest'].title}, with a transport in Rust and plain Structs as records, "
        f"{'is faster' if faster else 'is not faster throughout'} than this package and than the floor, "
        f"by records a second: {figures}."
    )
