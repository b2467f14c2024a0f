"""What it costs to run many campaigns again: requests, time, and how much of it is looking rather than doing.

The whole client, with ``ns.reruns.run`` and its journal, against a model of the service on a virtual clock: hours pass in
seconds. Prints a table in Markdown, and exits with 1 if a campaign has not exactly one new run in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from nudgescribe_async import Credentials, Nudgescribe
from nudgescribe_async.testing import VirtualClock

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from rerun_service import (
    LOST_AFTER,
    LOST_BEFORE,
    UNAVAILABLE,
    UNAVAILABLE_AFTER,
    AskTrouble,
    RerunService,
    Trouble,
    by_chance,
    threads_hold,
)

if TYPE_CHECKING:
    from nudgescribe_async.rerun.report import RerunReport

CREDENTIALS = Credentials(api_key="key", email="someone@example.org", password="password")
MOST_CALLS = 20
CHECKS = ("campaigns.list", "customer_groups.list", "reruns.messages")
CHECK, KNOW, RUN, AGAIN, VERIFY, FOLLOW, LOG_IN = (
    "check beforehand",
    "newest run, for the intention",
    "run again",
    "look again after a 429",
    "verify after no usable answer",
    "wait, publish",
    "log in",
)


@define
class Purposes:
    """Asked for trouble with each request, and notes what the request is for."""

    trouble: AskTrouble
    waits: bool
    count: Counter[tuple[str, str]] = field(factory=Counter[tuple[str, str]])
    _asked: set[str] = field(factory=set[str])
    _doubtful: set[str] = field(factory=set[str])

    def __call__(self, operation: str, body: Mapping[str, Any]) -> Trouble | None:
        """What befalls a request."""
        trouble = self.trouble(operation, body)
        self.count[self._purpose(operation, str(body.get("campaign_id"))), operation] += 1
        if operation == "reruns.initiate":
            campaign = body["campaign_id"]
            self._asked.add(campaign)
            (self._doubtful.discard if trouble is None else self._doubtful.add)(campaign)
        return trouble

    def _purpose(self, operation: str, campaign: str) -> str:
        if operation.startswith("auth."):
            return LOG_IN
        if operation == "reruns.initiate":
            return RUN
        if operation == "reruns.history":
            if campaign not in self._asked:
                return KNOW
            if campaign in self._doubtful:
                return VERIFY
            return FOLLOW if self.waits else AGAIN
        # The list of campaigns is for waiting too, once there is something to wait for.
        return CHECK if operation in CHECKS and not (self._asked and operation == "campaigns.list") else FOLLOW


async def simulate(
    options: argparse.Namespace, folder: Path
) -> tuple[RerunService, list[RerunReport], Purposes, float]:
    clock = VirtualClock()
    purposes = Purposes(
        by_chance(
            {
                LOST_BEFORE: options.lost_before,
                LOST_AFTER: options.lost_after,
                UNAVAILABLE: options.unavailable,
                UNAVAILABLE_AFTER: options.unavailable_after,
            },
            options.seed,
        ),
        waits=options.wait,
    )
    service = RerunService(
        options.campaigns,
        clock=clock,
        latency=options.latency,
        rate=options.rate,
        generation_time=options.generation_time,
        share_new=options.share_new,
        seed=options.seed,
        trouble=purposes,
    )
    plan, began = service.plan(), clock.now
    reports: list[RerunReport] = []
    async with Nudgescribe(CREDENTIALS, transport=service, clock=clock) as ns:
        with threads_hold(clock):
            while len(reports) < MOST_CALLS and not (reports and reports[-1].complete):
                report = await ns.reruns.run(
                    plan,
                    concurrency=options.concurrency,
                    journal=folder / "reruns.db",
                    settle=options.settle,
                    wait=options.wait,
                )
                reports.append(report)
    return service, reports, purposes, clock.now - began


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min {rest:02} s" if hours else f"{minutes} min {rest:02} s"


def table(service: RerunService, purposes: Purposes, took: float) -> list[str]:
    total = service.requests.total()
    lines = ["| what for | operation | requests | share |", "|---|---|---:|---:|"]
    order = (LOG_IN, CHECK, KNOW, RUN, AGAIN, VERIFY, FOLLOW)
    rows = sorted(purposes.count.items(), key=lambda row: (order.index(row[0][0]), row[0][1]))
    lines += [f"| {what} | `{operation}` | {n:,} | {n / total:.2%} |" for (what, operation), n in rows]
    lines += [f"| **all** | | **{total:,}** | |", ""]
    limited = f"{service.limited:,} were answered with 429 ({service.limited / total:.2%})"
    lines.append(f"Virtual time: {duration(took)}, {total / took:.1f} requests a second; {limited}.")
    return lines


def wrong(service: RerunService, reports: Sequence[RerunReport]) -> list[str]:
    """What is not as it must be."""
    found = []
    for outcome in reports[-1].outcomes:
        runs = service.new_runs(outcome.campaign_id)
        if [(run.number, run.group) for run in runs] != [(outcome.run_number, outcome.new_customer_group_id)]:
            found.append(f"{outcome.campaign_id} has {len(runs)} new runs, and is reported as {outcome.state}.")
        elif outcome.state != "succeeded":
            found.append(f"{outcome.campaign_id} is {outcome.state}: {outcome.reason}")
    return found


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: from 0 to 1")
    return value


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--campaigns", type=int, default=10_000, help="how many")
    add("--concurrency", type=int, default=8, help="campaigns at work at once")
    add("--latency", type=float, default=0.3, help="seconds until an answer is there")
    add("--rate", type=float, default=20.0, help="requests a second that the service takes")
    add("--settle", type=float, default=10.0, help="seconds after which nothing arrives late any more")
    add("--lost-before", type=share, default=0.0, help="share of requests lost on their way")
    add("--lost-after", type=share, default=0.0, help="share of answers lost after the work")
    add("--unavailable", type=share, default=0.0, help="share of requests answered with 503, undone")
    add("--unavailable-after", type=share, default=0.0, help="share of requests answered with 503, done")
    add("--wait", action="store_true", help="wait until the runs are ready")
    add("--generation-time", type=float, default=0.0, help="seconds that the service works on a run")
    add("--share-new", type=share, default=0.3, help="share of the runs that are to be reviewed")
    add("--seed", type=int, default=1, help="of what is left to chance")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    began, worked = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        service, reports, purposes, took = asyncio.run(simulate(options, Path(folder)))
    real, cpu = time.perf_counter() - began, time.process_time() - worked
    print("\n".join(table(service, purposes, took)))
    calls = "one call" if len(reports) == 1 else f"{len(reports)} calls, each going on where the one before stopped"
    adopted = sum(outcome.adopted for outcome in reports[-1].outcomes)
    print(f"{options.campaigns:,} campaigns in {calls}; {adopted:,} runs were found in the history, not in an answer.")
    print(f"Real time: {real:.1f} s, {cpu:.1f} s of CPU.")
    complaints = wrong(service, reports)
    for complaint in complaints[:20]:
        print(complaint, file=sys.stderr)
    print("Something is wrong." if complaints else "Each campaign has exactly one new run, and the report says so.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
