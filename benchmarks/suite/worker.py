"""A process that does pieces of work when it is asked to, and says what they cost.

``python worker.py CONTENDER`` says that it is ready, or which package is missing. Then it reads a line of JSON for each
piece of work: ``{"url": ..., "client": ..., "do": "read", "with": {...}}``, and answers with ``{"wall": seconds, "cpu":
seconds of all its threads, "result": ...}``, or with ``{"error": ...}``. It ends with its input.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

EXTRA = ("msgspec", "orjson", "uvloop")
"""What the extra ``speed`` installs, now or in the past."""


def without_speed() -> None:
    """Have it that none of the extra ``speed`` is installed."""
    for name in EXTRA:
        sys.modules[name] = None  # type: ignore[assignment]  # which is how an import is made to fail


async def work(contender: str, orders: TextIO, answers: TextIO) -> None:
    try:
        kind = importlib.import_module(f"suite.contenders.{contender}").Contender
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}), file=answers, flush=True)
        return
    print(json.dumps({"ready": contender}), file=answers, flush=True)
    opened: dict[str, Any] = {}
    try:
        # Reading blocks the event loop: between two pieces of work, nothing of this process is to run.
        for line in orders:
            order = json.loads(line)
            key = f"{order['url']} {order['client']}"
            try:
                if key not in opened:
                    opened[key] = kind(order["url"])
                answer = await timed(getattr(opened[key], order["do"]), order["with"])
            except Exception:  # noqa: BLE001 - it is for the other end to say
                answer = {"error": traceback.format_exc()}
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        for client in opened.values():
            await client.aclose()


async def timed(do: Any, given: dict[str, Any]) -> dict[str, Any]:
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    result = await do(**given)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "result": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender")
    parser.add_argument("--without-speed", action="store_true")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    sys.path[0] = os.fspath(Path(__file__).parents[1])  # for `suite` and `server`; not for the modules beside this one
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    if options.without_speed:
        without_speed()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints, prints among the errors
    factory = importlib.import_module("uvloop").new_event_loop if options.uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work(options.contender, sys.stdin, answers))


if __name__ == "__main__":
    main()
    # At once: threads of other languages do not always outlive the interpreter well.
    sys.stderr.flush()
    os._exit(0)
