"""The processes: a server on one core, the contenders on another, of which only one is at work at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self, TypeAlias

from attrs import define, field, frozen
from server import Settings

from suite.entrants import ENTRANTS, Entrant

__all__ = [
    "Cost",
    "Crew",
    "MissingPackageError",
    "ProcessDiedError",
    "WorkFailedError",
    "cores",
    "interleaved",
    "sharing",
]

HERE = Path(__file__).parent
LAST_WORDS = 4000


class ProcessDiedError(Exception):
    """A process of the benchmark ended where it should not have; the text has its last words."""


class MissingPackageError(Exception):
    """A contender cannot take part, since its package is not installed."""


class WorkFailedError(Exception):
    """A piece of work raised; the text has the traceback."""


def cores() -> tuple[int | None, int | None]:
    """The core of the server and that of the contenders; ``None`` where there is no choice."""
    if not hasattr(os, "sched_setaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def sharing() -> str:
    """What a reader must know if server and contenders have no cores of their own; empty if they have."""
    if cores() != (None, None):
        return ""
    if hasattr(os, "sched_getaffinity"):
        return "Server and contenders share one core here: what takes time on the clock has the server's work in it."
    return "Server and contenders cannot be bound to cores of their own here, and may get into each other's way."


@frozen
class Cost:
    """What a piece of work cost: seconds on the wall, seconds of CPU of all threads; and what came of it."""

    wall: float
    cpu: float
    result: Any


@define
class _Process:
    """One that answers each line with a line."""

    title: str
    command: Sequence[str]
    temporary: str
    """Where it has its temporary files: it may be killed, and then somebody else removes them."""
    process: subprocess.Popen[str] = field(init=False)
    errors: IO[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - `end` closes it
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["TMPDIR"] = self.temporary
        self.process = subprocess.Popen(
            [sys.executable, *self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us, who end it
        )

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self.died()
        return line

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            print(json.dumps(question), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise self.died() from None
        answer: dict[str, Any] = json.loads(self.read())
        return answer

    def died(self) -> ProcessDiedError:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.errors.seek(0)
        said = self.errors.read()[-LAST_WORDS:].strip()
        return ProcessDiedError(f"{self.title} ended with {self.process.poll()}:\n{said or '(it said nothing)'}")

    def end(self, patience: float) -> None:
        with suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()


Key: TypeAlias = tuple[str, str]


class Crew:
    """Starts processes when they are needed first, and ends all of them: use it with ``with``."""

    def __init__(self) -> None:
        self._server: _Process | None = None
        self._url = ""
        self._settings: Settings | None = None
        self._workers: dict[Key, _Process] = {}
        self._missing: dict[Key, str] = {}
        self._temporary = tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True)
        self.server_core, self.core = cores()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        patience = 5.0 if kind is None else 0.0
        for process in (*self._workers.values(), self._server):
            if process is not None:
                process.end(patience)
        self._temporary.cleanup()

    def serve(self, settings: Settings) -> str:
        """Have it served from now on; the address."""
        if self._server is None:
            command = [os.fspath(HERE.parent / "server.py"), "--controlled", "--pages", "1", "--records", "1"]
            command += ["--core", str(self.server_core)] if self.server_core is not None else []
            self._server = _Process("The server", command, self._temporary.name)
            self._url = f"http://127.0.0.1:{int(self._server.read())}"
        self._settings = settings
        self._server_cpu()
        return self._url

    def _server_cpu(self) -> float:
        """The seconds that it has used."""
        assert self._server is not None
        assert self._settings is not None
        cpu: float = self._server.ask(asdict(self._settings))["cpu"]
        return cpu

    def worker(self, name: str, crew: str = "") -> _Process:
        """The process of a contender.

        Args:
            name: of the entrant.
            crew: another one for another purpose.

        Raises:
            MissingPackageError: its package is not installed.
        """
        key = (name, crew)
        if key in self._missing:
            raise MissingPackageError(self._missing[key])
        if key not in self._workers:
            entrant = ENTRANTS[name]
            process = self._workers[key] = _Process(entrant.title, _command(entrant, self.core), self._temporary.name)
            hello = json.loads(process.read())
            if "missing" in hello:
                self._missing[key] = f"{entrant.title} is left out: the package {hello['missing']!r} is not installed."
                raise MissingPackageError(self._missing[key])
        return self._workers[key]

    def dismiss(self, name: str, crew: str = "") -> None:
        """End a contender's process: the next piece of work is for a fresh one."""
        worker = self._workers.pop((name, crew), None)
        if worker is not None:
            worker.end(5.0)

    def present(self, names: Sequence[str], notes: list[str]) -> list[str]:
        """Those of the contenders whose packages are installed; of the others it is noted."""
        here = []
        for name in names:
            try:
                self.worker(name)
            except MissingPackageError as error:
                if str(error) not in notes:
                    notes.append(str(error))
            else:
                here.append(name)
        return here

    def ask(self, name: str, url: str, do: str, /, *, client: str = "", crew: str = "", **given: Any) -> Cost:
        """Have a contender do a piece of work.

        Args:
            name: of the entrant.
            url: of the server.
            do: the piece of work: a method of its.
            client: which of its clients for this address; another name makes another one.
            crew: which of its processes.
            given: arguments of the method.
        """
        worker = self.worker(name, crew)
        answer = worker.ask({"url": url, "client": client, "do": do, "with": given})
        if "error" in answer:
            if self._server is not None and self._server.process.poll() is not None:
                raise self._server.died()
            raise WorkFailedError(f"{worker.title} failed at {do!r}:\n{answer['error']}")
        return Cost(answer["wall"], answer["cpu"], answer["result"])

    def watched(self, work: Callable[[], Cost]) -> tuple[Cost, float]:
        """A piece of work, and the part of its time in which the server was busy."""
        before = self._server_cpu()
        cost = work()
        return cost, (self._server_cpu() - before) / cost.wall


def _command(entrant: Entrant, core: int | None) -> list[str]:
    command = [os.fspath(HERE / "worker.py"), entrant.module]
    command += ["--without-speed"] if entrant.without_speed else []
    command += ["--uvloop"] if entrant.uvloop else []
    command += ["--core", str(core)] if core is not None else []
    return command


def interleaved(
    works: Mapping[str, Callable[[], Cost]], rounds: int, tell: Callable[[str], None]
) -> dict[str, list[Cost]]:
    """Each piece of work once a round, each round begun by another one."""
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    names = [*works]
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            costs[name].append(works[name]())
        tell(f"round {turn + 1} of {rounds}, {time.strftime('%H:%M:%S')}")
    return costs
