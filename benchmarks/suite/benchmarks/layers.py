"""Where the time goes: the same work through ever more layers, in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from server import Settings

from suite.context import Context
from suite.crew import Cost, interleaved
from suite.figures import Bar, Cell, Chart, Outcome, Table, median_of

CALL_LAYERS = (
    ("call_aiohttp", "aiohttp, bytes", None),
    ("call_floor", "aiohttp + orjson (the floor)", "call_aiohttp"),
    ("call_transport", "AiohttpTransport: send and read", "call_aiohttp"),
    ("call_exchange", "Session.exchange", "call_transport"),
    ("call_session", "Session.call", "call_exchange"),
    ("call_ours", "ns.customers.count_pages", "call_session"),
)
PAGE_LAYERS = (
    ("pages_aiohttp", "aiohttp, bytes, in a window", None),
    ("pages_floor", "aiohttp + orjson (the floor)", "pages_aiohttp"),
    ("pages_transport", "AiohttpTransport: send and read", "pages_aiohttp"),
    ("pages_exchange", "Session.exchange", "pages_transport"),
    ("pages_decode", "Session.decode, and a loop over the items", "pages_exchange"),
    ("pages_engine", "ns.customers.iter().pages(), and a loop", "pages_decode"),
    ("pages_items", "async for customer in ns.customers.iter()", "pages_engine"),
)
CANNED_CALLS = (
    ("canned_exchange", "Session.exchange", None),
    ("canned_session", "Session.call", "canned_exchange"),
    ("canned_ours", "ns.customers.count_pages", "canned_session"),
)
CANNED_PAGES = (
    ("canned_page_exchange", "Session.exchange", None),
    ("canned_page_list", "ns.customers.list, and a loop over the items", "canned_page_exchange"),
    ("canned_page_engine", "ns.customers.iter().pages(), and a loop", "canned_page_list"),
    ("canned_page_items", "async for customer in ns.customers.iter()", "canned_page_engine"),
)
RECORDS = 100


def layers(context: Context) -> Outcome:
    crew = context.crew
    if not context.present((name := "layers",)):
        return Outcome(about="", notes=context.notes)
    pages, times, round_pages = context.amount(200, 10), context.amount(500, 10), context.amount(100, 5)
    url = crew.serve(Settings(pages=pages, records=RECORDS))
    works: dict[str, Callable[[], Cost]] = {}

    def add(layers: Sequence[tuple[str, str, str | None]], **given: Any) -> None:
        for do, _, _ in layers:
            works[do] = lambda do=do: crew.ask(name, url, do, **given)  # type: ignore[misc]  # a default that binds

    add(CALL_LAYERS, times=times)
    add(PAGE_LAYERS, pages=pages)
    add(CANNED_CALLS, times=times)
    add(CANNED_PAGES, pages=round_pages, records=RECORDS)
    for run in works.values():
        run()
    costs = interleaved(works, context.turns(9), context.tell)
    cpu = {do: [cost.cpu * 1e6 for cost in costs[do]] for do in works}
    call = {do: [value / times for value in cpu[do]] for do, _, _ in (*CALL_LAYERS, *CANNED_CALLS)}
    page = {do: [value / pages for value in cpu[do]] for do, _, _ in PAGE_LAYERS}
    page |= {do: [value / round_pages for value in cpu[do]] for do, _, _ in CANNED_PAGES}
    tables = [
        _table("One small call, µs of CPU", CALL_LAYERS, call),
        _table("The same without a network, its answers at hand", CANNED_CALLS, call),
        _table(f"A page of {RECORDS}, µs of CPU", PAGE_LAYERS, page, per=RECORDS),
        _table("The same without a network, one after the other in the first two", CANNED_PAGES, page, per=RECORDS),
    ]
    profiles: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("a call", "profile_call", {"times": times}),
        (f"a page of {RECORDS}", "profile_pages", {"pages": round_pages, "records": RECORDS}),
    )
    for title, do, given in profiles:
        rows: list[tuple[str, str, str]] = [
            (f"`{function}`", f"{calls:.1f}", f"{own:.2f}")
            for function, calls, own in crew.ask(name, url, do, **given).result[: context.amount(25, 3)]
        ]
        tables.append(
            Table(
                title=f"Where our own code spends its time: {title}, without a network",
                columns=("function", f"times {title}", f"µs of its own {title}"),
                rows=rows,
                note="Under cProfile, which makes small functions look dearer than they are: a hint where to look.",
            )
        )
    return Outcome(
        about=(
            "The same calls and the same pages through ever more layers of this package, in one process. What a layer "
            "adds is the difference to the one that it stands on. Sharing a process, they share what one of them does to it: the "
            "large blocks that orjson frees make the C library keep memory that it would give back after each page."
        ),
        tables=tables,
        charts=[
            Chart(
                file="layers-page",
                title=f"µs of CPU, a page of {RECORDS}",
                unit="µs",
                bars=[Bar(title, median_of(page[do])) for do, title, _ in PAGE_LAYERS],
            ),
            Chart(
                file="layers-call",
                title="µs of CPU, one small call",
                unit="µs",
                bars=[Bar(title, median_of(call[do])) for do, title, _ in CALL_LAYERS],
            ),
        ],
        notes=context.notes,
        samples={**call, **page},
    )


def _table(
    title: str, layers: Sequence[tuple[str, str, str | None]], cpu: dict[str, list[float]], *, per: int = 1
) -> Table:
    names = {do: name for do, name, _ in layers}
    rows: list[Sequence[Cell]] = []
    for do, name, below in layers:
        more: Cell = ""
        if below is not None:
            more = median_of(mine - theirs for mine, theirs in zip(cpu[do], cpu[below], strict=True))
        row: list[Cell] = [name, median_of(cpu[do]), more, names[below] if below is not None else ""]
        if per > 1:
            row.append(median_of(cpu[do]).times(1 / per))
        rows.append(row)
    columns = ("layer", "all", "what it adds", "to", *((f"all, by record of {per}",) if per > 1 else ()))
    return Table(title=title, columns=columns, rows=rows)
