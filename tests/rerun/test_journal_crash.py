"""A process that is killed while it writes the journal loses nothing that it was told is written."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from nudgescribe_async.rerun.journal import Journal
from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest

KILLS = int(os.environ.get("NUDGESCRIBE_JOURNAL_KILLS", "10"))
CAMPAIGNS = 20
SERVICE = "https://api.example.com"
PLAN = RerunPlan.of([RerunRequest(f"c{number}", "g") for number in range(CAMPAIGNS)])

PROGRAM = f"""
import sys, time
from itertools import count
from pathlib import Path
from attrs import evolve
from nudgescribe_async.rerun.journal import Journal
from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest

plan = RerunPlan.of([RerunRequest(f"c{{number}}", "g") for number in range({CAMPAIGNS})])
journal = Journal.open(Path(sys.argv[1]), plan, service={SERVICE!r}, now=time.time)
for number in count():
    item = journal.items[f"c{{number % {CAMPAIGNS}}}"]
    item = evolve(item, state="intended", attempts=item.attempts + 1, reason="x" * (number % 3_000))
    journal.write(item, "intended", str(item.attempts))
    sys.stdout.write(f"{{item.campaign_id}} {{item.attempts}}\\n")
    sys.stdout.flush()
"""


def killed(path: Path, after: float) -> tuple[int, list[tuple[str, int]]]:
    """The process, and what it said that it had written."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # from here on it is at it
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        said = first + process.stdout.read()
        assert process.wait() == -signal.SIGKILL
    lines = [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]
    return process.pid, [(campaign, int(attempts)) for campaign, attempts in lines]


def test_what_was_written_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "reruns.db"
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    attempts = dict.fromkeys((request.campaign_id for request in PLAN), 0)
    total = 0
    for kill in range(KILLS):
        process, said = killed(path, chance.uniform(0, 0.1))
        assert said, (seed, kill)
        attempts |= said
        with closing(Journal.open(path, PLAN, service=SERVICE, now=time.time)) as journal:
            assert journal.continued
            assert journal.taken_over.startswith(f"process {process} on {os.uname().nodename}, since ")
            more = {name: item.attempts - attempts[name] for name, item in journal.items.items()}
            assert sorted(more.values())[:-1] == [0] * (CAMPAIGNS - 1), (seed, kill, more)
            assert max(more.values()) in {0, 1}, (seed, kill, more)  # the one that it could not speak of any more
            attempts = {name: item.attempts for name, item in journal.items.items()}
            total += len(said) + max(more.values())
            steps = journal.steps()
            assert {name: [int(step.detail) for step in made] for name, made in steps.items()} == {
                name: list(range(1, count + 1)) for name, count in attempts.items()
            }
            assert sum(map(len, steps.values())) == total
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    with closing(Journal.open(path, PLAN, service=SERVICE, now=time.time)) as journal:
        assert journal.taken_over == ""


def test_of_a_log_that_is_cut_anywhere_what_is_whole_is_read(tmp_path: Path) -> None:
    """As after a power cut on a disk that had not yet kept its promise: what is there is older, and never wrong."""
    path = tmp_path / "reruns.db"
    killed(path, 0.02)
    log = path.with_name("reruns.db-wal").read_bytes()
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    found = list[int]()
    for size in sorted(chance.randrange(len(log)) for _ in range(8)):
        folder = tmp_path / str(size)
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
        (folder / "reruns.db-wal").write_bytes(log[:size])
        with closing(Journal.open(folder / "reruns.db", PLAN, service=SERVICE, now=time.time)) as journal:
            steps = journal.steps()
            for name, item in journal.items.items():
                assert [int(step.detail) for step in steps[name]] == list(range(1, item.attempts + 1)), (seed, size)
            found.append(sum(map(len, steps.values())))
    assert found == sorted(found), seed


AMENDING = f"""
import json, os, signal, sqlite3, sys, time
from pathlib import Path
from nudgescribe_async.rerun import journal as module
from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest

folder, wide = Path(sys.argv[1]), "g" * 80_000  # more than fits into the memory that SQLite takes for it
old = RerunPlan.of([RerunRequest(f"c{{number}}", wide) for number in range(40)])
new = RerunPlan.of([RerunRequest(f"c{{number}}", wide + "h") for number in range(50, 10, -1)])
left = None

class Connection(sqlite3.Connection):
    def execute(self, *arguments):
        global left
        if left is not None:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*arguments)

def connect(path, how):
    made = sqlite3.connect(f"{{path.as_uri()}}?{{how}}", uri=True, isolation_level=None, factory=Connection)
    made.text_factory = module.read_text
    return made

def opened(path, plan, **options):
    return module.Journal.open(path, plan, service={SERVICE!r}, now=time.time, **options)

def state(path):
    with sqlite3.connect(path) as connection:
        job = connection.execute("SELECT plan_digest FROM job").fetchone()
        items = connection.execute("SELECT position, campaign_id, new_customer_group_id FROM items ORDER BY 1").fetchall()
        steps = connection.execute("SELECT count(*) FROM steps").fetchone()
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    connection.close()
    return job, items, steps

module._connect = connect
path, found = folder / "first.db", []
opened(path, old).close()
begun, before = path.read_bytes(), state(path)
left = 10_000
journal = opened(path, new, amend=True)
calls, left = 10_000 - left, None
journal.close()
after = state(path)
for kill in [*range(1, calls, 12), calls - 1, calls, calls + 1]:  # the last but two is the COMMIT
    path = folder / f"{{kill}}.db"
    path.write_bytes(begun)
    process = os.fork()
    if process == 0:
        left = kill
        opened(path, new, amend=True)
        os._exit(0)
    _, ended = os.waitpid(process, 0)
    is_new = state(path) == after
    assert is_new or state(path) == before, kill
    found.append((is_new, ended))
    opened(path, new, amend=True).close()  # whatever was left, it can be gone on with
    assert state(path) == after, kill
    path.unlink()
print(json.dumps(found))
"""


def test_a_plan_is_amended_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", AMENDING, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert len(found) > 10
    assert found == [*([[False, signal.SIGKILL]] * (len(found) - 2)), [True, signal.SIGKILL], [True, 0]]
