"""A million rows take no more memory than a few thousand, and arrive all the same."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from aiohttp import web

linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
FIELDS = [
    ("external_id", "string", None),
    ("name", "string", None),
    ("birthday", "Date", "dd.MM.yyyy"),
    ("spend", "currency", "EUR"),
    ("points", "number", None),
]
PROGRAM = """
import asyncio, json, sys, time
from nudgescribe_async import Credentials, Nudgescribe

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

async def main(url, *paths):
    found = []
    async with Nudgescribe(Credentials(api_key="k", email="e@x.org", password="p"), base_url=url) as ns:
        for path in paths:
            begun = time.perf_counter()
            report = await ns.customers.upload("w", "g", path)
            seconds = time.perf_counter() - begun
            problems = [(problem.row, problem.line, problem.field) for problem in report.problems]
            found.append([peak(), report.rows, report.accepted, report.complete, problems, seconds])
    print(json.dumps(found))

asyncio.run(main(*sys.argv[1:]))
"""


class Service:
    """A fast stand-in: counts the rows that come, and takes all."""

    def __init__(self) -> None:
        self.rows = 0
        self.last = b""
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v1/auth", self._login)
        app.router.add_post("/v1/cg", self._groups)
        app.router.add_post("/v1/cpf", self._fields)
        app.router.add_post("/v1/customer/check", self._check)
        self.runner = web.AppRunner(app, access_log=None)

    async def _login(self, _: web.Request) -> web.Response:
        return web.json_response({"access_token": "t", "refresh_token": "r", "expires_in": 10_000})

    async def _groups(self, _: web.Request) -> web.Response:
        return web.json_response([{"customer_group_id": "g", "workspace_id": "w", "group_name": "G"}])

    async def _fields(self, _: web.Request) -> web.Response:
        keys = ("field_name", "field_type", "field_format")
        return web.json_response([{"profile_field_id": "1", **dict(zip(keys, field, strict=True))} for field in FIELDS])

    async def _check(self, request: web.Request) -> web.Response:
        body = await request.read()
        content = body[body.index(b"external_id,") : body.rindex(b"\r\n--")]
        count = content.count(b"\r\n") - 1
        self.rows += count
        self.last = content.rsplit(b"\r\n", 2)[-2]
        return web.json_response({"success": True, "accepted_count": count, "rejected_count": 0, "errors": []})


def write(path: Path, rows: int, bad: set[int]) -> list[tuple[int, int, str]]:
    """A file with a blank line before each bad row; the places of the bad rows."""
    places: list[tuple[int, int, str]] = []
    line = 1
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("external_id,name,birthday,spend,points\r\n")
        for row in range(1, rows + 1):
            line += 1
            day = "31.01.1980"
            if row in bad:
                file.write("\r\n")
                line += 1
                day = "31.02.1980"
                places.append((row, line, "birthday"))
            file.write(f'c{row},"Müller, {row}",{day},{row}.25,{row}\r\n')
    return places


async def measure(folder: Path, large: int) -> None:
    small = 50_000
    paths = [folder / "small.csv", folder / "large.csv"]
    bad = [set(range(7, count + 1, count // 500)) for count in (small, large)]
    places = [
        await asyncio.to_thread(write, path, count, wrong)
        for path, count, wrong in zip(paths, (small, large), bad, strict=True)
    ]
    service = Service()
    await service.runner.setup()
    try:
        await web.TCPSite(service.runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{service.runner.addresses[0][1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, url, *map(str, paths), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    finally:
        await service.runner.cleanup()
    found = json.loads(output)
    for count, expected, result in zip((small, large), places, found, strict=True):
        assert len(expected) == 500
        assert result[1:4] == [count, count - 500, True]
        assert [tuple(place) for place in result[4]] == expected
    assert service.rows == small + large - 1_000
    assert service.last.startswith(b"c%d," % large)
    grown = found[1][0] - found[0][0]
    assert grown < 8, f"memory grew by {grown:.1f} MB from {small:,} rows to {large:,}"


@linux
@pytest.mark.slow
async def test_a_million_rows_take_the_memory_of_fifty_thousand(tmp_path: Path) -> None:
    await measure(tmp_path, 1_000_000)
