"""Every command as a real process: piped, on a terminal, in hostile surroundings, interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from attrs import frozen
from command_line import COMMAND
from terminal import Terminal

from nudgescribe_async.cli.app import app
from nudgescribe_async.sandbox import Delay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Process, Service
    from cyclopts import App

pytestmark = pytest.mark.slow

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;[0-9;]+)m")
CUSTOMERS = "external_id,first_purchase,purchases\nA-1,2026-01-31,3\nA-2,2026-02-28,1\n"
TRACES = ("Traceback", "never awaited", "Unclosed", "was destroyed")


@frozen
class Step:
    """One command line that succeeds, if those before it have.

    Attributes:
        words: the command.
        rest: its arguments; ``{customer}`` is the id of the first customer of the export before.
        asks: whether it sends a request, and so can be interrupted in the middle of one.
    """

    words: str
    rest: tuple[str, ...] = ()
    asks: bool = True

    def line(self, folder: Path) -> list[str]:
        export = folder / "out.ndjson"
        customer = json.loads(export.read_text().splitlines()[0])["customer_id"] if export.exists() else "none"
        return [*self.words.split(), *(part.replace("{customer}", customer) for part in self.rest)]


def steps(service: Service, folder: Path) -> list[Step]:
    """All commands, in an order in which they can be run one after the other in a folder, which gets their files."""
    rerun, publish = service.campaigns["Welcome back"], service.campaigns["Spring sale"]
    group = service.groups["Returning customers"]
    (folder / "customers.csv").write_text(CUSTOMERS)
    (folder / "plan.csv").write_text(f"campaign_id,new_customer_group_id\n{rerun},{group}\n")
    return [
        Step("login"),
        Step("whoami"),
        Step("doctor"),
        Step("doctor", ("--contract",)),
        Step("groups create", ("Spring",)),
        Step("groups rename", ("Spring", "Summer")),
        Step("groups list"),
        Step("fields create", ("city", "string")),
        Step("fields update", ("city", "--name", "town")),
        Step("fields list"),
        Step("customers upload", ("Summer", "customers.csv")),
        Step("customers count", ("Summer",)),
        Step("customers export", ("Summer", "out.ndjson")),
        Step("customers delete", ("Summer", "{customer}", "--yes")),
        Step("groups delete", ("Summer", "--yes")),
        Step("fields delete", ("town", "--yes")),
        Step("campaigns list"),
        Step("messages publish", (publish, "--yes")),
        Step("messages download", (publish, "messages")),
        Step("reruns plan", ("plan.csv",)),
        Step("reruns run", ("plan.csv", "--journal", "journal.db", "--yes")),
        Step("reruns status", ("journal.db",), asks=False),
        Step("reruns report", ("journal.db",), asks=False),
        Step("reruns history", (rerun,)),
        Step("completion", ("bash",), asks=False),
        Step("logout", asks=False),
        Step("demo", asks=False),
    ]


def all_commands(root: App, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name in root:
        if not name.startswith("-"):
            inner = [*all_commands(root[name], (*path, name))]
            yield from inner or [" ".join((*path, name))]


def harmless(service: Service, *texts: str) -> None:
    for text in texts:
        assert not any(trace in text for trace in TRACES), text
        assert not any(secret in text for secret in service.secrets), text


def test_every_command_is_driven_here_but_the_sandbox(service: Service, home: Path) -> None:
    # That one runs until it is told to stop: test_terminal.py and test_programs.py drive it.
    assert {step.words for step in steps(service, home)} == {*all_commands(app)} - {"sandbox"}


def test_piped_where_there_are_no_other_letters_than_ascii(settings: Service, process: Process, home: Path) -> None:
    for step in steps(settings, home):
        result = process(*step.line(home), env=ASCII)
        assert result.code == 0, (step, result)
        harmless(settings, result.out, result.err)
        (result.out + result.err).encode("ascii")
        assert "\x1b" not in result.out + result.err, step


def test_as_json(settings: Service, process: Process, home: Path) -> None:
    for step in steps(settings, home):
        result = process(*step.line(home), "--json")
        assert result.code == 0, (step, result)
        harmless(settings, result.out, result.err)
        assert result.out, step
        if step.words not in {"completion", "demo"}:  # which print a script, and a story
            assert all(isinstance(json.loads(line), dict) for line in result.out.splitlines()), (step, result.out)


@pytest.mark.parametrize(
    ("width", "env"), [(100, {}), (40, {"NO_COLOR": "1"} | ASCII)], ids=["wide", "narrow, ASCII, no colour"]
)
def test_on_a_terminal(settings: Service, home: Path, width: int, env: dict[str, str]) -> None:
    coloured = 0
    for step in steps(settings, home):
        with Terminal(*step.line(home), width=width, env=env) as terminal:
            assert terminal.wait() == 0, (step, terminal.screen)
            harmless(settings, terminal.output.decode("ascii" if env else "utf-8"))
            coloured += bool(COLOUR.search(terminal.output))
            assert terminal.output.rfind(b"\x1b[?25h") >= terminal.output.rfind(b"\x1b[?25l"), (
                step
            )  # the cursor is back
    assert bool(coloured) == ("NO_COLOR" not in env)


def test_with_a_reader_that_has_gone_away(settings: Service, home: Path) -> None:
    for step in steps(settings, home):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [*COMMAND, *step.line(home)], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
        os.close(writer)
        assert done.returncode == 141, (step, done)
        harmless(settings, done.stderr)
        assert "Error" not in done.stderr, step


def test_ctrl_c_in_the_middle_of_a_request(settings: Service, home: Path) -> None:
    for step in [step for step in steps(settings, home) if step.asks]:
        ended = end_during(settings, step.line(home), signal.SIGINT)
        assert ended.returncode == 130, (step, ended)
        harmless(settings, ended.stderr)
        assert ended.stderr.splitlines()[-1].startswith("Interrupted."), (step, ended.stderr)
    assert not settings.sandbox.effects, "something was done all the same"


def end_during(service: Service, line: list[str], number: signal.Signals) -> subprocess.CompletedProcess[str]:
    held = service.inject(Delay(3_600, before_work=True), times=None)
    child = subprocess.Popen([*COMMAND, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not held.fired and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
        held.remove()
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)
