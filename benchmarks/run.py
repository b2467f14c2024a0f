"""Ratios, taken in one run: interleaved rounds, medians, the spread beside them.

``pages``: customers typed by ``ns.customers.iter`` against raw aiohttp with ``json`` (and ``orjson``) to plain
dicts through the same kind of window, 100 records a page. ``call``: one small call against the same with raw
aiohttp. CPU seconds of this process are compared, not the wall clock, since machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import orjson

from nudgescribe_async import Credentials, Nudgescribe

CONCURRENCY = 16
GROUP = {"customer_group_id": "group"}

Contender: TypeAlias = Callable[[str, int], Coroutine[Any, Any, None]]


async def raw(url: str, pages: int, loads: Callable[[bytes], object]) -> None:
    slots = asyncio.Semaphore(CONCURRENCY)
    headers = {"Authorization": "Bearer a.b.c", "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session:

        async def fetch(page: int) -> object:
            body = json.dumps({**GROUP, "page": page}).encode()
            async with slots, session.post(f"{url}/v1/customer", data=body, headers=headers) as response:
                return loads(await response.read())

        window = [asyncio.create_task(fetch(page)) for page in range(1, 2 * CONCURRENCY + 1)]
        for page in range(1, pages + 1):
            await window.pop(0)
            if page + 2 * CONCURRENCY <= pages:
                window.append(asyncio.create_task(fetch(page + 2 * CONCURRENCY)))


async def raw_json(url: str, pages: int) -> None:
    await raw(url, pages, json.loads)


async def raw_orjson(url: str, pages: int) -> None:
    await raw(url, pages, orjson.loads)


async def typed(url: str, pages: int) -> None:
    credentials = Credentials(api_key="key", email="a@example.com", password="secret")
    async with Nudgescribe(credentials, base_url=url) as ns:
        count = 0
        async for _ in ns.customers.iter("group", concurrency=CONCURRENCY):
            count += 1
        if count % pages:
            raise SystemExit(f"{count} records of {pages} pages")


async def raw_calls(url: str, calls: int) -> None:
    headers = {"Authorization": "Bearer a.b.c", "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session:
        for _ in range(calls):
            data = json.dumps(GROUP).encode()
            async with session.post(f"{url}/v1/customer/pages", data=data, headers=headers) as response:
                orjson.loads(await response.read())


async def typed_calls(url: str, calls: int) -> None:
    credentials = Credentials(api_key="key", email="a@example.com", password="secret")
    async with Nudgescribe(credentials, base_url=url) as ns:
        for _ in range(calls):
            await ns.customers.count_pages("group")


BENCHMARKS: dict[str, tuple[Contender, dict[str, Contender], int, int]] = {
    "pages": (typed, {"raw aiohttp + json": raw_json, "raw aiohttp + orjson": raw_orjson}, 400, 100),
    "call": (typed_calls, {"raw aiohttp + orjson": raw_calls}, 2000, 1),
}


def measure(name: str, *, small: bool) -> None:
    ours, others, pages, records = BENCHMARKS[name]
    pages, rounds = (pages // 10, 2) if small else (pages, 7)
    command = [sys.executable, str(Path(__file__).with_name("server.py"))]
    command += ["--pages", str(pages), "--records", str(records)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            contenders = {"nudgescribe_async": ours, **others}
            seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
            for turn in range(rounds + 1):
                for contender, work in contenders.items():
                    started = time.process_time()
                    asyncio.run(work(url, pages))
                    if turn:  # the first round warms up
                        seconds[contender].append(time.process_time() - started)
        finally:
            server.terminate()
    print(f"\n{name}: {pages} x {records} records, {rounds} rounds")
    for contender in others:
        ratios = [mine / theirs for mine, theirs in zip(seconds["nudgescribe_async"], seconds[contender], strict=True)]
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"  CPU against {contender:<22} {middle:5.2f} x   ({low:.2f} to {high:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help="which benchmarks; all if left out")
    parser.add_argument("--small", action="store_true", help="only show that they work")
    options = parser.parse_args()
    for name in options.names or BENCHMARKS:
        measure(name, small=options.small)


if __name__ == "__main__":
    main()
