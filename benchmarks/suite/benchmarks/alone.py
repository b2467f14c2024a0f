"""What needs no server: decoding, and the parts of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from suite.context import Context
from suite.crew import Cost, interleaved
from suite.figures import Bar, Cell, Chart, Outcome, Table, median_of, ratio

ORJSON = "orjson.loads"
NOWHERE = "http://127.0.0.1:1"
WAYS = {
    "with speed": ("decoding", "ours"),
    "without": ("decoding-plain", "ours"),
    ORJSON: ("decoding", "orjson"),
    "json.loads": ("decoding", "json"),
}


def decode(context: Context) -> Outcome:
    crew = context.crew
    context.present(("decoding", "decoding-plain"))
    ways = {way: who for way, who in WAYS.items() if way != ORJSON or context.installed("orjson")}
    tables, charts = [], []
    samples: dict[str, list[float]] = {}
    names: list[str] = crew.ask("decoding", NOWHERE, "names").result
    budget = context.amount(20_000, 50)
    for readable in (False, True):
        sizes = (1, 10, 100, 1_000) if not readable else (100,)
        works: dict[str, Callable[[], Cost]] = {}
        for records in sizes:
            times = max(1, budget // records // 2)
            for way, (who, how) in ways.items():
                given = {"how": how, "records": records, "times": times, "readable": readable}
                works[f"{records}, {way}"] = lambda who=who, given=given: crew.ask(who, NOWHERE, "page", **given)  # type: ignore[misc]  # defaults that bind
        costs = interleaved(works, context.turns(7), context.tell)
        rows: list[tuple[Cell, ...]] = []
        for records in sizes:
            each = {way: [cost.result / records * 1e6 for cost in costs[f"{records}, {way}"]] for way in ways}
            samples |= {f"{records} a page, {readable=}, {way}, µs a record": values for way, values in each.items()}
            rows.append((f"{records:,}", *map(median_of, each.values()), _against(each)))
            if records == 100:
                charts.append(
                    Chart(
                        file=f"decode-{'readable' if readable else '100'}",
                        title="µs of CPU a customer, pages of 100" + (", profiles in the clear" if readable else ""),
                        unit="µs",
                        bars=[Bar(way, median_of(each[way])) for way in ways],
                    )
                )
        tables.append(
            Table(
                title="Customers"
                + (", profiles in the clear" if readable else "")
                + ": µs of CPU a record, by records a page",
                columns=("records a page", *ways, "with speed, of orjson.loads"),
                rows=rows,
            )
        )
    works = {}
    for name in names:
        for way, (who, how) in ways.items():
            given = {"how": how, "name": name, "times": max(1, budget // 40)}
            works[f"{name}, {way}"] = lambda who=who, given=given: crew.ask(who, NOWHERE, "model", **given)  # type: ignore[misc]  # defaults that bind
    costs = interleaved(works, context.turns(5), context.tell)
    rows = []
    for name in names:
        each = {way: [cost.result * 1e6 for cost in costs[f"{name}, {way}"]] for way in ways}
        rows.append((f"`{name}`", *map(median_of, each.values()), _against(each)))
    tables.append(
        Table(
            title="One answer of each type: µs of CPU",
            columns=("answer", *ways, "with speed, of orjson.loads"),
            rows=rows,
            note="Lists have one item. An answer of some hundred bytes is mostly the cost of being called.",
        )
    )
    return Outcome(
        about="From bytes that are here to typed objects, by this package; to plain dicts, by `orjson` and `json`.",
        tables=tables,
        charts=charts[:1],
        notes=context.notes,
        samples=samples,
    )


def _against(each: Mapping[str, Sequence[float]]) -> Cell:
    return ratio(each["with speed"], each[ORJSON]) if ORJSON in each else ""


def parts(context: Context) -> Outcome:
    crew = context.crew
    if not context.present(("parts",)):
        return Outcome(about="", notes=context.notes)
    names: list[str] = crew.ask("parts", NOWHERE, "names").result
    times = context.amount(2_000, 20)
    works: dict[str, Callable[[], Cost]] = {
        name: lambda name=name: crew.ask("parts", NOWHERE, "variant", name=name, times=times)  # type: ignore[misc]  # a default that binds
        for name in names
    }
    for run in works.values():
        run()
    costs = interleaved(works, context.turns(9), context.tell)
    cpu = {name: [cost.result * 1e6 for cost in costs[name]] for name in names}
    whole = cpu[names[0]]
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            median_of(cpu[name]),
            "" if name == names[0] else median_of(mine - all_ for mine, all_ in zip(cpu[name], whole, strict=True)),
        )
        for name in names
    ]
    return Outcome(
        about=(
            "A small call whose answer is at hand, so that there is no network in it; each part of the session taken out in "
            "turn. Whether to retry is decided after a failure only: what is left of retries in a call that succeeds is the "
            "budget that it pays into."
        ),
        tables=[Table(title="µs of CPU a call", columns=("", "a call", "difference"), rows=rows)],
        notes=context.notes,
        samples=cpu,
    )
