"""A million customers through one iterator: all, in order, once, in little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nudgescribe_async import Nudgescribe
from nudgescribe_async.sandbox import Sandbox

SERVER = Path(__file__).parent.parent / "benchmarks" / "server.py"
MEGABYTE = 2**20

READER = """
import asyncio, sys
from nudgescribe_async import Credentials, Nudgescribe

def peak():  # not ru_maxrss, which a process takes over from the one that started it
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

async def main(url, pages, records):
    async with Nudgescribe(Credentials(api_key="key", email="a@example.com", password="secret"), base_url=url) as ns:
        await ns.customers.list("group", page=1)
        before = peak()
        stream = ns.customers.iter("group")
        expected = ((page, index) for page in range(1, pages + 1) for index in range(records))
        async for customer in stream:
            page, index = next(expected)
            assert customer.customer_id == f"{page:08}-{index:08}", (customer.customer_id, page, index)
        assert next(expected, None) is None
        assert stream.report.drift == (), stream.report
        print(peak() - before)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@contextmanager
def stand_in(pages: int, records: int) -> Iterator[str]:
    arguments = [sys.executable, str(SERVER), "--pages", str(pages), "--records", str(records)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("records", [1_000, 100])
def test_a_million_customers_all_in_order_once_and_in_25_megabytes(records: int) -> None:
    pages = 1_000
    with stand_in(pages, records) as url:
        reader = subprocess.run(
            [sys.executable, "-c", READER, url, str(pages), str(records)], capture_output=True, text=True, check=False
        )
    assert reader.returncode == 0, reader.stderr
    assert int(reader.stdout) * 1024 < 25 * MEGABYTE


async def test_the_first_row_comes_after_one_round_trip() -> None:
    async with Sandbox(latency=0.2) as sandbox:
        await sandbox.create_profile_field("external_id", "string")
        group = await sandbox.create_customer_group("g", customers=[{"external_id": "1"}])
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
            await ns.auth.authenticate()
            async for _ in ns.customers.iter(group):
                pass
        count, page = (
            next(record for record in sandbox.log if record.operation == operation)
            for operation in ("customers.count_pages", "customers.list")
        )
    # Both were asked for before either was answered.
    assert abs((page.when - count.when).total_seconds()) < min(page.seconds, count.seconds)
