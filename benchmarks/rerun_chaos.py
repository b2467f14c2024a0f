"""Chaos for ``ns.reruns.run``: lost requests, lost answers, 503s, ``kill -9``; and each campaign has exactly one new run.

A sandbox and the fault proxy run here; what runs the campaigns is a process of its own. Of all that it sends, 30 % take
effect and the answer is lost, 20 % are lost on their way, and 10 % are answered with 503, of which half took effect. It is
killed at moments drawn by lot, and started again with the same call each time; in the end it is left to finish. (Of the
503s that the table counts as done, two in five are lost on their way, like any other answer.)

In every second round somebody publishes each campaign the moment it has a new run: nothing but the orchestrator itself
then keeps it from running twice. In the others the service refuses a second run, which looks like a refusal of the first.

Prints a table, and exits with 1, and says what was wrong, if any promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import Factory, define, frozen

from nudgescribe_async import Nudgescribe
from nudgescribe_async.sandbox import Sandbox, Status
from nudgescribe_async.testing import Close, FaultProxy, Replace, Reset

LOST_AFTER, LOST_BEFORE, REFUSED = 0.30, 0.20, 0.10
DEBUG = {
    "PYTHONASYNCIODEBUG",
    "PYTHONDEVMODE",
}  # they have the orchestrator say what is slow, where only errors are due
MOST_CALLS = 10
"""After the kills. One is enough, unless a call of its ten attempts has used up all."""
LONGEST_CALL = 300.0
MOST_WRONG = 20
RUN_EXISTS = {"started", "ready", "publishing", "published", "downloaded", "failed"}
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbusy"

PREAMBLE = ""
"""What the orchestrator does first: a test breaks something here."""
ORCHESTRATOR = """
import asyncio, sys
from pathlib import Path
from nudgescribe_async import Nudgescribe, NudgescribeError, RerunPlan, RetryBudget, RetryPolicy


async def main(plan, journal, report, settle, concurrency):
    # The patience of the defaults, and their attempts; but here an outage is over after milliseconds.
    retry = RetryPolicy(attempts=10, base=0.01, longest=0.1)
    async with Nudgescribe.from_env(retry=retry, retry_budget=RetryBudget(reserve=1e6)) as ns:
        done = await ns.reruns.run(
            RerunPlan.from_csv(plan), journal=journal, settle=float(settle), concurrency=int(concurrency)
        )
    Path(report).write_text(done.to_json())


try:
    asyncio.run(main(*sys.argv[1:]))
except NudgescribeError as error:
    sys.exit(f"GAVE UP: {error}")
"""
# As whoever publishes without delay. What the sandbox keeps people from doing, it does not keep its database from.
AT_ONCE = (
    """CREATE TRIGGER published_at_once AFTER UPDATE OF campaign_status ON campaigns
    WHEN NEW.campaign_status != 'Published' BEGIN
        UPDATE campaigns SET campaign_status = 'Published' WHERE campaign_id = NEW.campaign_id;
    END""",
    """CREATE TRIGGER messages_at_once AFTER INSERT ON messages
    BEGIN UPDATE messages SET review_status = 'Published' WHERE message_id = NEW.message_id; END""",
)


@frozen(kw_only=True)
class Choices:
    """What is the same in each round."""

    campaigns: int = 400
    kills: int = 10
    settle: float = 0.5
    concurrency: int = 32


@define
class Round:
    """One seed, and what became of it."""

    seed: int
    at_once: bool
    seconds: float = 0.0
    kills: int = 0
    calls: int = 0
    gave_up: int = 0
    requests: int = 0
    faults: Counter[str] = Factory(Counter[str])
    sent: int = 0
    effects: int = 0
    adopted: int = 0
    absent: int = 0
    twice: int = 0
    forgotten: int = 0
    wrong: list[str] = Factory(list[str])

    def complain(self, text: str) -> None:
        """A promise is broken."""
        self.wrong.append(text)


# --- the world -------------------------------------------------------------------------------------------------------


async def people_and_campaigns(sandbox: Sandbox, count: int, chance: random.Random) -> dict[str, str]:
    """Published campaigns of one segment each; the group that each is to be run for: A or B, half of them each."""
    await sandbox.create_profile_field("external_id", "string", is_required=True)
    before, *wanted = [
        await sandbox.create_customer_group(name, customers=[{"external_id": name}]) for name in ("before", "A", "B")
    ]
    plan = {
        await sandbox.create_campaign(f"Campaign {number}", before): wanted[number % len(wanted)]
        for number in range(count)
    }
    mixed = list(plan.items())
    chance.shuffle(mixed)
    return dict(mixed)


def publish_at_once(database: Any) -> None:
    """See ``AT_ONCE``."""
    for trigger in AT_ONCE:
        database.run(trigger)


def let_things_go_wrong(sandbox: Sandbox, proxy: FaultProxy) -> Callable[[], Counter[str]]:
    """With every operation, for ever. What comes back counts."""
    half = REFUSED / 2
    left = 1.0  # a share is one of what the faults before it have left
    network = []
    for kind, fault, share in (
        ("lost after", Reset(at="after_request"), LOST_AFTER / 2),
        ("lost after", Close(at="after_request"), LOST_AFTER / 2),
        ("lost before", Reset(at="before_request"), LOST_BEFORE / 2),
        ("lost before", Close(at="before_request"), LOST_BEFORE / 2),
        ("503", Replace(raw=UNAVAILABLE, then="keep"), half),
    ):
        network.append((kind, proxy.inject(fault, times=None, share=share / left)))
        left -= share
    # Only those whose answer is not lost are seen as 503, and the sandbox does not know which they are.
    at_work = sandbox.inject(Status(503, after_work=True), times=None, share=half / left)

    def counted() -> Counter[str]:
        counts: Counter[str] = Counter()
        for kind, injection in network:
            counts[kind] += injection.fired
        counts["503 after the work"] = at_work.fired
        return counts

    return counted


# --- the orchestrator ------------------------------------------------------------------------------------------------


class Orchestrator:
    """Calls ``reruns.run`` in a process of its own, always in the same way."""

    def __init__(self, folder: Path, sandbox: Sandbox, url: str, choices: Choices) -> None:
        self.journal, self.report = folder / "reruns.db", folder / "report.json"
        self._plan = folder / "plan.csv"
        self._choices = choices
        self._environment = {name: value for name, value in os.environ.items() if name not in DEBUG} | {
            "NUDGESCRIBE_API_KEY": sandbox.credentials.api_key,
            "NUDGESCRIBE_EMAIL": sandbox.credentials.email,
            "NUDGESCRIBE_PASSWORD": sandbox.credentials.password,
            "NUDGESCRIBE_BASE_URL": url,
        }

    def write_plan(self, plan: Mapping[str, str]) -> None:
        """As the CSV file that it is read from."""
        with self._plan.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("campaign_id", "new_customer_group_id"), *plan.items()])

    async def start(self) -> asyncio.subprocess.Process:
        """Make the call."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", PREAMBLE + ORCHESTRATOR),
            *map(os.fspath, (self._plan, self.journal, self.report)),
            *(str(self._choices.settle), str(self._choices.concurrency)),
            env=self._environment,
            stderr=asyncio.subprocess.PIPE,
        )

    def known(self) -> dict[str, str]:
        """The state of each campaign, as the journal has it on the disk. Looked up in a copy, so that nothing is touched."""
        with tempfile.TemporaryDirectory() as folder:
            for file in self.journal.parent.glob(f"{self.journal.name}*"):
                if not file.name.endswith(("-shm", ".lock")):
                    shutil.copy(file, folder)
            with closing(sqlite3.connect(Path(folder) / self.journal.name)) as database:
                try:
                    return dict(database.execute("SELECT campaign_id, state FROM items").fetchall())
                except sqlite3.OperationalError:  # killed before there was any
                    return {}


async def moment(
    process: asyncio.subprocess.Process, proxy: FaultProxy, kills: int, campaigns: int, chance: random.Random
) -> None:
    """Return at some moment of a call, or when the process ends.

    Moments are chosen by what was sent, since nobody knows how fast the machine is: some while it starts and looks at the
    campaigns, most while it runs them. So that all kills find something to disturb, each leaves its share to the others.

    Args:
        process: what makes the call.
        proxy: counts what is sent.
        kills: how many are left, this one included.
        campaigns: how many have no run yet.
        chance: draws.
    """
    ended = asyncio.ensure_future(process.wait())

    async def sent(count: int, operation: str | None) -> None:
        target = proxy.count(operation) + count
        while not ended.done() and proxy.count(operation) < target:
            await asyncio.wait({ended}, timeout=0.002)

    try:
        dice = chance.random()
        if dice < 0.1:
            await asyncio.wait({ended}, timeout=chance.uniform(0, 0.5))
        elif dice < 0.3:
            await sent(chance.randint(1, max(campaigns, 1)), None)
        else:
            await sent(chance.randint(1, max(int(1.4 * campaigns / (kills + 2)), 1)), "reruns.initiate")
            await sent(chance.choice((0, chance.randint(0, 9), chance.randint(0, 60))), None)
        await asyncio.wait({ended}, timeout=chance.uniform(0, 0.01))
    finally:
        ended.cancel()
        await asyncio.wait({ended})


async def kill_it(
    orchestrator: Orchestrator,
    proxy: FaultProxy,
    left: int,
    result: Round,
    choices: Choices,
    chance: random.Random,
) -> None:
    """Make the call, and kill it."""
    sent = proxy.count("reruns.initiate")
    process = await orchestrator.start()
    result.calls += 1
    try:
        await moment(process, proxy, choices.kills - result.kills, left, chance)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        _, errors = await process.communicate()
    if process.returncode == -signal.SIGKILL:
        result.kills += 1
    elif not _gave_up(process, errors, proxy.count("reruns.initiate") - sent, result):
        _look_at_end(process, errors, result)


async def let_it_finish(orchestrator: Orchestrator, proxy: FaultProxy, result: Round) -> Mapping[str, Any]:
    """Make the call until all is done; its last report."""
    report: dict[str, Any] = {"complete": False, "outcomes": []}
    for _ in range(MOST_CALLS):
        sent = proxy.count("reruns.initiate")
        process = await orchestrator.start()
        result.calls += 1
        try:
            async with asyncio.timeout(LONGEST_CALL):
                _, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if _gave_up(process, errors, proxy.count("reruns.initiate") - sent, result):
            continue
        if not _look_at_end(process, errors, result):
            break
        report = json.loads(orchestrator.report.read_text(encoding="utf-8"))
        if report["complete"]:
            break
    else:
        result.complain(f"it is not done after {MOST_CALLS} calls: {report['counts']}")
    return report


def _gave_up(process: asyncio.subprocess.Process, errors: bytes, sent: int, result: Round) -> bool:
    """Whether it could not even begin, which it may with such a service: then nothing may have been sent."""
    if process.returncode != 1 or not errors.startswith(b"GAVE UP: "):
        return False
    result.gave_up += 1
    if sent:
        result.complain(f"it gave up, and had sent {sent} requests in that call: {_last(errors)}")
    return True


def _look_at_end(process: asyncio.subprocess.Process, errors: bytes, result: Round) -> bool:
    """Whether it has ended as a call that has said all that it has to say."""
    if process.returncode or errors:
        result.complain(f"the process ended with {process.returncode}: {_last(errors)}")
        return False
    return True


def _last(errors: bytes) -> str:
    return errors.decode(errors="replace")[-1_500:].strip()


# --- the judgment ----------------------------------------------------------------------------------------------------


def runs_made(sandbox: Sandbox) -> list[tuple[str, str]]:
    """The campaign and the group of each run that was made, by the sandbox's log."""
    return [
        (record.body["campaign_id"], record.body["new_customer_group_id"])
        for record in sandbox.log
        if record.operation == "reruns.initiate" and record.effect
    ]


def compare_journal(known: Mapping[str, str], sandbox: Sandbox, result: Round) -> None:
    """After a kill: nothing is written that was not, and nothing was sent that is not written."""
    made = {campaign for campaign, _ in runs_made(sandbox)}
    for campaign, state in known.items():
        if state in RUN_EXISTS and campaign not in made:
            result.complain(f"{campaign} is {state!r} in the journal, and has no run")
    for campaign in made:
        state = known.get(campaign, "missing")
        if state != "intended" and state not in RUN_EXISTS:
            result.complain(f"{campaign} has a run, and is {state!r} in the journal")


async def histories(sandbox: Sandbox, campaigns: Iterable[str]) -> dict[str, list[tuple[int, str | None, str | None]]]:
    """The runs of each campaign, as the service tells them, nothing being in the way any more."""
    slots = asyncio.Semaphore(16)
    found: dict[str, list[tuple[int, str | None, str | None]]] = {}
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:

        async def ask(campaign: str) -> None:
            async with slots:
                records = await ns.reruns.history(campaign)
            found[campaign] = sorted((it.run_number, it.customer_group_id, it.rerun_id) for it in records)

        await asyncio.gather(*map(ask, campaigns))
    return found


async def compare(sandbox: Sandbox, plan: Mapping[str, str], report: Mapping[str, Any], result: Round) -> None:
    """In the end: what the sandbox has, what it was asked for, and what the report says."""
    made = Counter(runs_made(sandbox))
    arrived = Counter(record.body["campaign_id"] for record in sandbox.log if record.operation == "reruns.initiate")
    if sandbox.effects["reruns.initiate"] != len(plan):
        result.complain(f"{sandbox.effects['reruns.initiate']} runs were made for {len(plan)} campaigns")
    if set(made) != set(plan.items()):
        result.complain(f"by the log, {len(set(made) ^ set(plan.items()))} campaigns were run otherwise than planned")
    outcomes = {outcome["campaign_id"]: outcome for outcome in report["outcomes"]}
    if list(outcomes) != list(plan):
        result.complain("the report is not one of this plan, campaign by campaign")
    for campaign, runs in (await histories(sandbox, plan)).items():
        result.twice += len(runs) > 2
        result.forgotten += len(runs) < 2
        if [run[:2] for run in runs][1:] != [(2, plan[campaign])]:
            result.complain(f"{campaign} has the runs {runs}, and was to have one more, for {plan[campaign]}")
            continue
        outcome = outcomes.get(campaign, {})
        told = [
            outcome.get(name) for name in ("state", "run_number", "new_customer_group_id", "rerun_id", "previous_run")
        ]
        if told != ["succeeded", 2, plan[campaign], runs[1][2], 1]:
            result.complain(f"{campaign} has {runs[1]}, and the report says {told}")
        elif outcome["attempts"] < arrived[campaign]:
            result.complain(
                f"{campaign} was asked for {arrived[campaign]} times; {outcome['attempts']} are written down"
            )
    for outcome in outcomes.values():
        result.adopted += outcome["adopted"]
        result.absent += sum(step["step"] == "absent" for step in outcome["steps"])
    attempts = sum(outcome["attempts"] for outcome in outcomes.values())
    if attempts < result.sent:
        result.complain(f"{result.sent} requests were sent, and {attempts} are written down")


async def play(seed: int, choices: Choices, *, at_once: bool) -> Round:
    """One round, from the first campaign to the judgment."""
    chance = random.Random(seed)
    result = Round(seed, at_once)
    with tempfile.TemporaryDirectory(prefix="nudgescribe-chaos-") as folder:
        async with (
            Sandbox(fault_seed=seed, log_size=1_000_000) as sandbox,
            FaultProxy(sandbox.url, seed=seed) as proxy,
        ):
            plan = await people_and_campaigns(sandbox, choices.campaigns, chance)
            if at_once:
                await sandbox._write(publish_at_once)  # noqa: SLF001 - no API can
            orchestrator = Orchestrator(Path(folder), sandbox, proxy.url, choices)
            orchestrator.write_plan(plan)
            faults = let_things_go_wrong(sandbox, proxy)
            began = time.perf_counter()
            while result.kills < choices.kills and result.calls < 2 * choices.kills:
                left = choices.campaigns - sandbox.effects["reruns.initiate"]
                await kill_it(orchestrator, proxy, left, result, choices, chance)
                compare_journal(orchestrator.known(), sandbox, result)
            if result.kills < choices.kills:
                result.complain(f"only {result.kills} of {choices.kills} kills came before the end")
            report = await let_it_finish(orchestrator, proxy, result)
            result.seconds = time.perf_counter() - began
            result.faults, result.requests = faults(), proxy.count()
            result.sent, result.effects = proxy.count("reruns.initiate"), sandbox.effects["reruns.initiate"]
            sandbox.clear_faults()
            await sandbox.drain()
            compare_journal(orchestrator.known(), sandbox, result)
            await compare(sandbox, plan, report, result)
    return result


# --- the table -------------------------------------------------------------------------------------------------------

COLUMNS: Mapping[str, Callable[[Round], object]] = {
    "seed": lambda it: it.seed,
    "published at once": lambda it: "yes" if it.at_once else "no",
    "kills": lambda it: it.kills,
    "calls": lambda it: it.calls,
    "gave up": lambda it: it.gave_up,
    "requests": lambda it: it.requests,
    "lost after": lambda it: it.faults["lost after"],
    "lost before": lambda it: it.faults["lost before"],
    "503, not done": lambda it: it.faults["503"],
    "503, done": lambda it: it.faults["503 after the work"],
    "runs asked for": lambda it: it.sent,
    "runs made": lambda it: it.effects,
    "adopted": lambda it: it.adopted,
    "sent again": lambda it: it.absent,
    "run twice": lambda it: it.twice,
    "forgotten": lambda it: it.forgotten,
    "wrong": lambda it: len(it.wrong),
    "seconds": lambda it: f"{it.seconds:.1f}",
}


def row(cells: Iterable[object]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many rounds")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--campaigns", type=int, default=400)
    parser.add_argument("--kills", type=int, default=10, help="in each round")
    parser.add_argument("--settle", type=float, default=0.5)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures as well")
    options = parser.parse_args(arguments)
    choices = Choices(
        campaigns=options.campaigns, kills=options.kills, settle=options.settle, concurrency=options.concurrency
    )
    run: Callable[..., Round] = asyncio.run
    try:
        import uvloop  # noqa: PLC0415 - the service is not what is tested: the faster the better

        run = uvloop.run
    except ImportError:
        pass
    print(row(COLUMNS))
    print(row(["---:"] * len(COLUMNS)), flush=True)
    rounds = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        rounds.append(run(play(seed, choices, at_once=seed % 2 == 1)))
        print(row(column(rounds[-1]) for column in COLUMNS.values()), flush=True)
        for text in rounds[-1].wrong[:MOST_WRONG]:
            print(f"WRONG: seed {seed}: {text}", file=sys.stderr, flush=True)
    if options.json is not None:
        told = [{name: column(it) for name, column in COLUMNS.items()} | {"faults": dict(it.faults)} for it in rounds]
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    wrong = sum(len(it.wrong) for it in rounds)
    print(f"\n{f'{wrong} promises were broken.' if wrong else 'Every promise was kept.'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
