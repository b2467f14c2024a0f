"""Spark's read on separate worker processes, against the plain export: the same rows, whatever process is killed meanwhile.

``local-cluster[2,1,1024]``: two executors with a core each, in JVMs of their own, and each with Python workers of its own. The
stand-in is ``spark_server.py``; for the limit on requests, the sandbox. What is read is written as Parquet, as one would, and
compared with the export: how many rows, how many different ids, and the sum over a hash of all columns of each row, which
does not depend on their order.

    python benchmarks/spark_cluster.py                      # 1,000,000 rows, 100 a page
    python benchmarks/spark_cluster.py --records 1000       # 1,000 a page
    python benchmarks/spark_cluster.py --small              # only shows that it works

It ends with 1 if any two results differ, or the limit was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as spark_functions

from nudgescribe_async import Credentials, Nudgescribe
from nudgescribe_async.sandbox import RateLimit, Sandbox
from nudgescribe_async.spark import NudgescribeDataSource

SERVER = Path(__file__).parent / "spark_server.py"
GROUP = "group"
LOGIN = {"secret_api_key": "key", "secret_email": "a@example.com", "secret_password": "a password"}
MEGABYTE = 2**20
EXECUTOR = "CoarseGrainedExecutorBackend"
WORKER = "pyspark.daemon pyspark.worker"
LIMIT = 50
COLUMNS = (
    "customer_id",
    "customer_group_id",
    "extended_profile",
    "account_id",
    "workspace_id",
    "created_at",
    "updated_at",
    "created_by",
    "updated_by",
)
MOMENTS = {"created_at", "updated_at"}


@dataclass(frozen=True)
class Rows:
    """What was read: how many rows, how many different ids, and the sum of their hashes."""

    count: int
    ids: int
    checksum: int


@dataclass
class Run:
    """One row of the table."""

    name: str
    rows: Rows
    seconds: float
    requests: int = 0
    page_requests: int = 0
    logins: int = 0
    most_in_a_second: int = 0
    refused: int = 0
    worker_megabytes: float = 0.0
    worker_megabytes_at_half: float = 0.0
    killed: list[str] = field(default_factory=list)


# --- what is compared ------------------------------------------------------------------------------------------------


def rows_of_export(path: Path) -> Rows:
    """From the lines of an export."""
    count, checksum, ids = 0, 0, set[str]()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            customer = json.loads(line)
            count += 1
            ids.add(customer["customer_id"])
            text = "\x1f".join(_cell(name, customer[name]) for name in COLUMNS)
            checksum += int(hashlib.md5(text.encode()).hexdigest()[:15], 16)
    return Rows(count, len(ids), checksum)


def _cell(name: str, value: Any) -> str:
    if name in MOMENTS:
        return str(round(datetime.fromisoformat(value).timestamp() * 1_000_000))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return str(value)


def rows_of_frame(frame: DataFrame) -> Rows:
    """The same from a dataframe."""
    f = spark_functions
    cells = [f.unix_micros(name).cast("string") if name in MOMENTS else f.col(name) for name in COLUMNS]
    digest = f.conv(f.substring(f.md5(f.concat_ws("\x1f", *cells)), 1, 15), 16, 10).cast("decimal(20, 0)")
    found = frame.agg(f.count("*"), f.countDistinct("customer_id"), f.sum(digest)).collect()[0]
    return Rows(int(found[0]), int(found[1]), int(found[2] or 0))


# --- processes -------------------------------------------------------------------------------------------------------


@contextmanager
def stand_in(pages: int, records: int, latency: float) -> Iterator[str]:
    """The server, in a process of its own."""
    arguments = ["--pages", str(pages), "--records", str(records), "--latency", str(latency)]
    with subprocess.Popen([sys.executable, str(SERVER), *arguments], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def counts(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/counts") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@dataclass(frozen=True)
class Process:
    """A process that this one, or one of its own, has started."""

    pid: int
    parent: int
    command: str

    @property
    def peak(self) -> int:
        """The most memory that it had, in bytes."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
        return 0


def descendants() -> dict[int, Process]:
    """The processes below this one."""
    everybody: dict[int, Process] = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(folder.name)
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            everybody[pid] = Process(pid, parent, command)
    below, found = {os.getpid()}, dict[int, Process]()
    while new := [one for one in everybody.values() if one.parent in below and one.pid not in found]:
        found.update((one.pid, one) for one in new)
        below.update(one.pid for one in new)
    return found


def executors() -> list[Process]:
    return [one for one in descendants().values() if EXECUTOR in one.command and one.command.startswith("/")]


def python_workers() -> list[Process]:
    """Those that run tasks: children of the daemon that each executor has, which looks the same."""
    found = descendants()
    return [
        one
        for one in found.values()
        if WORKER in one.command and one.parent in found and WORKER in found[one.parent].command
    ]


# --- a read ----------------------------------------------------------------------------------------------------------


class Watch(threading.Thread):
    """Looks at the workers while they read, and kills processes in the middle if it is told to, one after the other."""

    def __init__(self, url: str, pages: int, victims: Sequence[Callable[[], list[Process]]] = ()) -> None:
        super().__init__(daemon=True)
        self._url, self._pages, self._victims = url, pages, [*victims]
        self._before = counts(url)["kinds"].get("/v1/customer", 0)
        self._ended = threading.Event()
        self.peak = self.at_half = 0
        self.killed: list[str] = []

    def run(self) -> None:
        while not self._ended.wait(0.1):
            self.peak = max([self.peak, *(one.peak for one in python_workers())])
            read = counts(self._url)["kinds"].get("/v1/customer", 0) - self._before
            if read < self._pages / 2:
                self.at_half = self.peak
            due = self._pages * 0.4 * (1 + len(self.killed) / 2)
            if self._victims and read > due and (found := self._victims[0]()):
                os.kill(found[0].pid, signal.SIGKILL)
                kind = "executor" if EXECUTOR in found[0].command else "Python worker"
                self.killed.append(f"{kind} {found[0].pid} after {read:,} pages")
                del self._victims[0]

    def end(self) -> None:
        self._ended.set()
        self.join()


def read(
    spark: SparkSession,
    url: str,
    folder: Path,
    name: str,
    pages: int,
    *victims: Callable[[], list[Process]],
    tasks: int = 16,
) -> Run:
    """Read with Spark into Parquet, and look what is there."""
    target = str(folder / name.replace(" ", "-"))
    options = {**LOGIN, "base_url": url, "customer_group_id": GROUP, "token_folder": str(folder / "tokens")}
    frame = spark.read.format("nudgescribe").options(**options, parallelism=str(tasks)).load()
    before = counts(url)["kinds"]
    watch = Watch(url, pages, victims)
    watch.start()
    begun = time.perf_counter()
    frame.write.parquet(target)
    seconds = time.perf_counter() - begun
    watch.end()
    after = counts(url)
    kinds = {kind: number - before.get(kind, 0) for kind, number in after["kinds"].items()}
    return Run(
        name,
        rows_of_frame(spark.read.parquet(target)),
        seconds,
        requests=sum(kinds.values()),
        page_requests=kinds["/v1/customer"],
        logins=kinds.get("/v1/auth", 0),
        worker_megabytes=watch.peak / MEGABYTE,
        worker_megabytes_at_half=watch.at_half / MEGABYTE,
        killed=watch.killed,
    )


async def _export(url: str, path: Path) -> None:
    credentials = Credentials(api_key="key", email="a@example.com", password="a password")
    async with Nudgescribe(credentials, base_url=url) as ns:
        await ns.customers.export(GROUP, path, concurrency=16)


def export(url: str, folder: Path) -> Run:
    """The plain export of one process."""
    path = folder / "export.ndjson"
    before = counts(url)["kinds"]
    begun = time.perf_counter()
    asyncio.run(_export(url, path))
    seconds = time.perf_counter() - begun
    kinds = {kind: number - before.get(kind, 0) for kind, number in counts(url)["kinds"].items()}
    rows = rows_of_export(path)
    path.unlink()
    return Run(
        "plain export",
        rows,
        seconds,
        requests=sum(kinds.values()),
        page_requests=kinds["/v1/customer"],
        logins=kinds.get("/v1/auth", 0),
    )


def write(spark: SparkSession, url: str, folder: Path, rows: int) -> Run:
    """Upload as many customers, in eight partitions. Of what came, the stand-in only counts the rows."""
    options = {**LOGIN, "base_url": url, "workspace_id": "workspace", "customer_group_id": GROUP}
    frame = spark.range(0, rows, 1, 8).selectExpr(
        "concat('K', lpad(id, 10, '0')) external_id",
        "'Johanna' first_name",
        "id % 1000 purchases",
        "date_add(date'2020-01-01', cast(id % 1000 as int)) first_purchase",
    )
    before, uploaded = counts(url)["kinds"], counts(url)["uploaded"]
    watch = Watch(url, 0)
    watch.start()
    begun = time.perf_counter()
    writer = frame.write.format("nudgescribe").mode("append").options(**options, token_folder=str(folder / "tokens"))
    writer.option("identifier", "external_id").save()
    seconds = time.perf_counter() - begun
    watch.end()
    after = counts(url)
    kinds = {kind: number - before.get(kind, 0) for kind, number in after["kinds"].items()}
    arrived = after["uploaded"] - uploaded
    return Run(
        "Spark, written",
        Rows(arrived, arrived, 0),
        seconds,
        requests=sum(kinds.values()),
        logins=kinds.get("/v1/auth", 0),
        worker_megabytes=watch.peak / MEGABYTE,
    )


# --- the limit -------------------------------------------------------------------------------------------------------


def limited(spark: SparkSession, folder: Path, rows: int) -> tuple[Run, Run]:
    """A read from the sandbox, which refuses more than 50 requests in any second; and the export of the same."""
    loop = asyncio.new_event_loop()
    served = threading.Thread(target=loop.run_forever, daemon=True)
    served.start()

    def do(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    sandbox = Sandbox(log_size=100_000)
    do(sandbox.__aenter__())
    try:
        do(sandbox.create_profile_field("external_id", "string"))
        customers = [{"external_id": f"C{number}"} for number in range(rows)]
        group = do(sandbox.create_customer_group("customers", customers=customers))
        plain = folder / "sandbox.ndjson"
        begun = time.perf_counter()
        asyncio.run(_export_of(sandbox, group, plain))
        exported = Run("plain export, no limit", rows_of_export(plain), time.perf_counter() - begun)
        sandbox.inject(RateLimit(LIMIT, 1.0), times=None)
        before = len(sandbox.log)
        frame = (
            spark.read.format("nudgescribe")
            .options(base_url=sandbox.url, customer_group_id=group, token_folder=str(folder / "tokens"))
            .options(
                secret_api_key=sandbox.credentials.api_key,
                secret_email=sandbox.credentials.email,
                secret_password=sandbox.credentials.password,
            )
            .options(parallelism="2", requests_per_second=str(LIMIT))
            .load()
        )
        target = str(folder / "limited")
        begun = time.perf_counter()
        frame.write.parquet(target)
        seconds = time.perf_counter() - begun
        log = list(sandbox.log)[before:]
        moments = sorted(record.when.timestamp() for record in log)
        run = Run(
            f"limit of {LIMIT} a second",
            rows_of_frame(spark.read.parquet(target)),
            seconds,
            requests=len(log),
            page_requests=sum(record.operation == "customers.list" for record in log),
            logins=sum(record.operation == "auth.authenticate" for record in log),
            most_in_a_second=max(
                sum(moment - 1 < other <= moment for other in moments[max(0, index - 200) : index + 1])
                for index, moment in enumerate(moments)
            ),
            refused=sum(record.status != 200 for record in log),
        )
    finally:
        do(sandbox.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        served.join()
        loop.close()
    return exported, run


async def _export_of(sandbox: Sandbox, group: str, path: Path) -> None:
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        await ns.customers.export(group, path, concurrency=4)


# --- all of it -------------------------------------------------------------------------------------------------------


def session(*, small: bool) -> SparkSession:
    builder = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .appName("nudgescribe cluster")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.log.level", "FATAL")
    )
    if small:  # code that runs once is not worth compiling well
        for process in ("driver", "executor"):
            builder = builder.config(f"spark.{process}.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    spark = builder.getOrCreate()
    spark.dataSource.register(NudgescribeDataSource)
    return spark


def wrong(runs: list[Run], limits: tuple[Run, Run]) -> list[str]:
    """What was not as it must be."""
    found = [f"{run.name}: {run.rows} is not {runs[0].rows}" for run in runs[1:] if run.rows != runs[0].rows]
    found += [f"{run.name}: {run.rows.ids:,} different ids" for run in runs if run.rows.ids != run.rows.count]
    exported, run = limits
    if run.rows != exported.rows:
        found.append(f"{run.name}: {run.rows} is not {exported.rows}")
    if run.most_in_a_second > LIMIT:
        found.append(f"{run.name}: {run.most_in_a_second} requests in a second")
    if run.refused:
        found.append(f"{run.name}: {run.refused} requests failed")
    if any(not run.killed for run in runs if "killed" in run.name):
        found.append("nothing was killed")
    return found


def table(runs: list[Run]) -> str:
    head = (
        "",
        "rows",
        "ids",
        "checksum",
        "seconds",
        "rows/s",
        "requests",
        "logins",
        "most/s",
        "refused",
        "worker MB (half)",
    )
    lines = [
        (
            run.name,
            f"{run.rows.count:,}",
            f"{run.rows.ids:,}",
            f"{run.rows.checksum % 2**64:016x}" if run.rows.checksum else "",
            f"{run.seconds:.1f}",
            f"{run.rows.count / run.seconds:,.0f}",
            f"{run.requests:,}" if run.requests else "",
            str(run.logins) if run.requests else "",
            str(run.most_in_a_second or ""),
            str(run.refused) if run.most_in_a_second else "",
            f"{run.worker_megabytes:.0f}"
            + (f" ({run.worker_megabytes_at_half:.0f})" if run.worker_megabytes_at_half else "")
            if run.worker_megabytes
            else "",
        )
        for run in runs
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if index == 0 else cell.rjust(width) for index, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in (head, *lines))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=100, help="rows of a page")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds until an answer of the stand-in")
    parser.add_argument("--limited-rows", type=int, default=60_000, help="how many to read under the limit")
    parser.add_argument("--small", action="store_true", help="20,000 rows, 5,000 under the limit, both killed in one")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    if options.small:
        options.rows, options.limited_rows, options.latency = 20_000, 5_000, 0.05
    pages = options.rows // options.records
    folder = Path(tempfile.mkdtemp(prefix="nudgescribe-cluster-"))
    try:
        with stand_in(pages, options.records, options.latency) as url:
            runs = [export(url, folder)]
            spark = session(small=options.small)
            try:
                if options.small:
                    runs.append(read(spark, url, folder, "Spark", pages, tasks=8))
                    both = "Spark, Python worker and executor killed"
                    runs.append(read(spark, url, folder, both, pages, python_workers, executors, tasks=8))
                else:
                    runs.append(read(spark, url, folder, "Spark", pages))
                    runs.append(read(spark, url, folder, "Spark, Python worker killed", pages, python_workers))
                    runs.append(read(spark, url, folder, "Spark, executor killed", pages, executors))
                written = write(spark, url, folder, options.rows)
                limits = limited(spark, folder, options.limited_rows)
            finally:
                spark.stop()
    finally:
        shutil.rmtree(folder)
    faults = wrong(runs, limits)
    if written.rows.count != options.rows:
        faults.append(f"{written.name}: {written.rows.count:,} rows arrived")
    if options.json:
        print(json.dumps({"runs": [asdict(run) for run in [*runs, *limits, written]], "faults": faults}))
    else:
        print(f"{options.rows:,} rows, {options.records:,} a page, on {os.cpu_count()} cores\n")
        print(table([*runs, *limits, written]), "\n")
        print(*(f"{run.name}: {', '.join(run.killed)}" for run in runs if run.killed), sep="\n")
        print(*(faults or ["All are the same, and the limit was kept."]), sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
