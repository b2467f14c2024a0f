"""From nothing to the first answer: imports, and the first call."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server import Settings

from suite.context import Context
from suite.crew import Cost, interleaved
from suite.figures import Goal, Outcome, Table, median_of, ratio

CLIENT = 'Nudgescribe(Credentials(api_key="k", email="a@example.com", password="p"))'
MODULES = (
    "import importlib, pkgutil, nudgescribe_async as package\n"
    "skip = ('sandbox', 'testing', 'contract', 'demo')\n"
    "for module in pkgutil.walk_packages(package.__path__, 'nudgescribe_async.'):\n"
    "    name = module.name.split('.')\n"
    "    if not {*name} & {'__main__', *SKIPPED}:\n"
    "        importlib.import_module(module.name)\n"
)
PROGRAMS = {
    "python": "pass",
    "import nudgescribe_async": "import nudgescribe_async",
    "from nudgescribe_async import Nudgescribe": "from nudgescribe_async import Nudgescribe",
    "a client with its transport": f"from nudgescribe_async import Credentials, Nudgescribe\n{CLIENT}",
    "from nudgescribe_async import *": "from nudgescribe_async import *",
    "every module but sandbox, testing, contract, demo": MODULES.replace("*SKIPPED", "*skip"),
    "every module": MODULES.replace("*SKIPPED", "*()"),
    "import aiohttp": "import aiohttp",
    "import aiohttp, attrs, cattrs, backoff": "import aiohttp, attrs, cattrs, backoff",
}
BARE, OURS, AIOHTTP = "python", "import nudgescribe_async", "import aiohttp"
WHOLE, FOUR = "every module but sandbox, testing, contract, demo", "import aiohttp, attrs, cattrs, backoff"


@contextmanager
def _on(core: int | None) -> Iterator[None]:
    """What is started meanwhile runs on this core."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _start(program: str, core: int | None) -> Cost:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with _on(core):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        # -P: neither this folder nor the checkout is where modules are looked for.
        done = subprocess.run(
            [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False, env=environment
        )
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{program!r} failed:\n{done.stderr[-2000:]}")
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, None)


def startup(context: Context) -> Outcome:
    crew = context.crew
    works: dict[str, Callable[[], Cost]] = {}
    for title, program in PROGRAMS.items():
        try:
            _start(program, crew.core)  # and bytecode is written
        except RuntimeError as error:
            context.notes.append(f"{title} is left out: {str(error).strip().splitlines()[-1]}")
        else:
            works[title] = lambda program=program: _start(program, crew.core)  # type: ignore[misc]  # a default that binds
    costs = interleaved(works, context.turns(15), context.tell)
    cpu = {title: [cost.cpu * 1e3 for cost in costs[title]] for title in works}
    more = {
        title: [mine - bare for mine, bare in zip(cpu[title], cpu[BARE], strict=True)]
        for title in works
        if title != BARE
    }
    imports = Table(
        title="A fresh process, ms of CPU",
        columns=("", "all", "without the interpreter", "of `import aiohttp`", "of the four", "wall, ms"),
        rows=[
            (
                f"`{title}`",
                median_of(cpu[title]),
                median_of(more[title]) if title in more else "",
                ratio(more[title], more[AIOHTTP]) if title in more else "",
                ratio(more[title], more[FOUR]) if title in more else "",
                median_of(cost.wall * 1e3 for cost in costs[title]),
            )
            for title in works
        ],
        note="The ratios are without the interpreter. `the four`: aiohttp, attrs, cattrs and backoff.",
    )
    first, samples = _first_call(context)
    return Outcome(
        about="What it takes until a program can make a call, and until the first one is answered.",
        tables=[imports, first],
        goals=_goals(cpu, more),
        notes=context.notes,
        samples={**{f"{title}, ms of CPU": values for title, values in cpu.items()}, **samples},
    )


def _goals(cpu: dict[str, list[float]], more: dict[str, list[float]]) -> list[Goal]:
    times = " ×"  # noqa: RUF001 - it is what is meant
    goals = []
    if WHOLE in cpu:
        goals.append(
            Goal(
                key="import-whole",
                text="import of the whole package (every module that a client can need) against its four dependencies",
                sign="<=",
                bound=1.15,
                unit=times,
                figure=ratio(more[WHOLE], more[FOUR]),
                note=(
                    f"the interpreter included: {ratio(cpu[WHOLE], cpu[FOUR])}; a client with its transport: "
                    f"{ratio(more['a client with its transport'], more[FOUR])}"
                ),
            )
        )
    goals.append(
        Goal(
            key="import",
            text="`import nudgescribe_async` against `import aiohttp`",
            sign="<=",
            bound=0.6,
            unit=times,
            figure=ratio(more[OURS], more[AIOHTTP]),
            note=(
                f"the interpreter included: {ratio(cpu[OURS], cpu[AIOHTTP])}; `from nudgescribe_async import Nudgescribe`: "
                f"{ratio(more['from nudgescribe_async import Nudgescribe'], more[AIOHTTP])}"
            ),
        )
    )
    return goals


STEPS = ("built", "built, held up", "first", "first, held up", "second", "second, held up")


def _first_call(context: Context) -> tuple[Table, dict[str, list[float]]]:
    crew = context.crew
    url = crew.serve(Settings(pages=7, records=1))

    def work(do: str) -> Callable[[], Cost]:
        def run() -> Cost:
            try:
                return crew.ask("starting", url, do)
            finally:
                crew.dismiss("starting")

        return run

    titles = {"floor": "aiohttp + orjson (the floor), no login", "ours": "nudgescribe_async[speed], with its login"}
    if not context.installed("orjson"):
        del titles["floor"]
    costs = interleaved({do: work(do) for do in titles}, context.turns(9), context.tell)
    samples = {f"{do}: {step}, ms": [cost.result[step] * 1e3 for cost in costs[do]] for do in titles for step in STEPS}
    table = Table(
        title="The first call of a process, ms",
        columns=("", *STEPS),
        rows=[(title, *(median_of(samples[f"{do}: {step}, ms"]) for step in STEPS)) for do, title in titles.items()],
        note=(
            "Built within a running event loop, imports included, which is the worst case: a client may be built before. "
            "`held up`: the longest that the event loop did nothing else."
        ),
    )
    return table, samples
