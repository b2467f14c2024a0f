"""``kill -9`` at any moment, and files larger than memory should be."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from message_shop import Shop, serve_with_ranges, table

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, sys
from helpers import CREDENTIALS
from nudgescribe_async import Nudgescribe
from nudgescribe_async.bulk.download import partial
from nudgescribe_async.events import PageFetched

partial.CHECKPOINT_EVERY = int(sys.argv[3])

def peak():
    # Not of getrusage: that is also the peak of the process that started this one.
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("VmHWM"))

async def main():
    async with Nudgescribe(CREDENTIALS, base_url=sys.argv[1]) as ns:
        ns.events.subscribe(lambda event: isinstance(event, PageFetched) and print("page", event.page, flush=True))
        await ns.messages.count_pages("c")
        print("ready", peak(), flush=True)
        report = await ns.messages.download("c", sys.argv[2], concurrency=3, overwrite=True)
        print("done", report.rows, sum(file.resumed for file in report.files), flush=True)
        print("peak", peak(), flush=True)

asyncio.run(main())
"""


async def program(shop: Shop, directory: Path, checkpoint: int = 8 * 2**20) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, shop.service.url, str(directory), str(checkpoint)),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])},
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


async def told(process: asyncio.subprocess.Process) -> dict[str, list[str]]:
    output, _ = await process.communicate()
    return {line.split()[0]: line.split()[1:] for line in output.decode().splitlines()}


class Sent:
    """How many pieces a storage has sent, and who waits for how many."""

    def __init__(self) -> None:
        self.pieces = 0
        self._changed = asyncio.Event()

    def one_more(self) -> None:
        self.pieces += 1
        self._changed.set()

    async def until(self, pieces: int) -> None:
        while self.pieces < pieces:
            self._changed.clear()
            await self._changed.wait()


def slowly(shop: Shop, sent: Sent) -> Any:
    """As a storage does that is far away: in pieces, with a pause after each."""

    async def serve(request: web.Request, page: int) -> web.StreamResponse:
        whole = await serve_with_ranges(request, shop.files[page - 1])
        body = whole.body
        assert isinstance(body, bytes)
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        response.content_length = len(body)
        await response.prepare(request)
        for start in range(0, len(body), 64 * 2**10):
            await response.write(body[start : start + 64 * 2**10])
            sent.one_more()
            await asyncio.sleep(0.004)
        return response

    return serve


async def test_kill_at_random_moments_and_the_same_call_again(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    files = [table(8_000 if page % 3 else 200, page=page) for page in range(1, 43)]
    kills = 0
    async with Shop(files) as shop:
        whole = await program(shop, tmp_path / "whole")
        assert (await told(whole))["done"][0] == str(28 * 8_000 + 14 * 200)
        sent = Sent()
        shop.serve = slowly(shop, sent)
        before = len(shop.ranges)
        while kills < 10:
            process = await program(shop, tmp_path / "cut", checkpoint=2**18)
            ended = asyncio.create_task(process.communicate())
            reached = asyncio.create_task(sent.until(sent.pieces + chance.randrange(1, 31)))
            await asyncio.wait({ended, reached}, return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            if ended.done():
                break
            await asyncio.sleep(chance.uniform(0.0, 0.01))
            process.kill()
            await ended
            kills += 1
        shop.serve = shop.serve_whole
        report = await told(await program(shop, tmp_path / "cut"))
        asked = shop.ranges[before:]

    assert kills >= 8, f"it was done too early; seed {seed}"
    assert report["done"][0] == str(28 * 8_000 + 14 * 200)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole"), f"seed {seed}"
    assert any(wanted is not None for wanted in asked), f"nothing was continued; seed {seed}"
    assert json.loads((tmp_path / "cut" / "manifest.json").read_text())["complete"]


async def test_kill_while_a_set_is_replaced_leaves_the_old_one_or_one_that_is_plainly_unfinished(
    tmp_path: Path,
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    states: set[tuple[bool, int]] = set()
    async with Shop([table(200, page=page) for page in range(1, 21)]) as shop:
        await told(await program(shop, tmp_path))
        old = contents(tmp_path)
        shop.files, shop.run = [table(8_000, page=page) for page in range(101, 115)], 2
        sent = Sent()
        shop.serve = slowly(shop, sent)
        for pieces in (1, 3, 20, 45, 40):  # of 12 in each file, three at a time: in the fourth, some have come whole
            process = await program(shop, tmp_path, checkpoint=2**18)
            ended = asyncio.create_task(process.communicate())
            await sent.until(sent.pieces + pieces)
            await asyncio.sleep(chance.uniform(0.0, 0.02))
            process.kill()
            await ended
            found = contents(tmp_path)
            manifest = json.loads(found["manifest.json"])
            states.add((manifest["complete"], manifest["current_run"]))
            if manifest["complete"]:
                assert {name: found[name] for name in old} == old, f"seed {seed}"
            for page, entry in manifest["files"].items():
                if not manifest["complete"]:
                    assert found[entry["name"]] == shop.files[int(page) - 1], f"seed {seed}"
        shop.serve = shop.serve_whole
        await told(await program(shop, tmp_path))

    assert states == {(True, 1), (False, 2)}, f"seed {seed}"
    found = contents(tmp_path)
    assert json.loads(found["manifest.json"])["complete"]
    pages = [f"page-{page:05d}.csv" for page in range(1, 15)]
    assert sorted(found) == [".lock", "manifest.json", *pages], f"seed {seed}"
    assert [found[name] for name in pages] == shop.files


async def test_memory_does_not_grow_with_the_size_of_a_file(tmp_path: Path) -> None:
    rows = 50 * 2**20 // 100
    content = b"customer_id,message\r\n" + b"".join(b'"%07d","%b"\r\n' % (row, b"x" * 86) for row in range(rows))
    assert len(content) > 50 * 2**20
    async with Shop([content]) as shop:
        found = await told(await program(shop, tmp_path))

    assert found["done"][0] == str(rows)
    assert (tmp_path / "page-00001.csv").stat().st_size == len(content)
    growth = (int(found["peak"][0]) - int(found["ready"][0])) / 1_024
    assert growth < 16, f"{growth:.1f} MiB"
