"""The command in process and as a process, and a service to drive it against."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keyring
import pytest
from command_line import COMMAND, MemoryKeyring, Process, Result, Service, Shell
from keyring.backends.fail import Keyring as NoKeyring

from nudgescribe_async.cli import main
from nudgescribe_async.sandbox import Sandbox


@pytest.fixture(scope="session")
def service_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="service", daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


@pytest.fixture
def start_service(service_loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., Service]]:
    """Starts sandboxes with options of your own: ``start_service(page_size=10, latency=0.01)``."""
    running: list[Service] = []

    def start(**options: Any) -> Service:
        async def enter() -> Sandbox:
            return await Sandbox(**({"example": True} | options)).__aenter__()

        sandbox = asyncio.run_coroutine_threadsafe(enter(), service_loop).result(30)
        running.append(Service(sandbox, service_loop))
        return running[-1]

    yield start
    for service in running:
        service.call(lambda sandbox: sandbox.__aexit__(None, None, None))


@pytest.fixture
def service(start_service: Callable[..., Service]) -> Service:
    return start_service()


@pytest.fixture
def memory_keyring() -> Iterator[MemoryKeyring]:
    backend = MemoryKeyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without settings, in a folder of their own that is the working directory, too."""
    for name in list(os.environ):
        if name.startswith(("NUDGESCRIBE_", "XDG_")) or name in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}:
            monkeypatch.delenv(name)
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE"):
        monkeypatch.delenv(name, raising=False)  # processes are to say what they say to users
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs a command in process, piped and without a terminal: ``shell("groups", "list")``.

    It is in the environment that the test has made with ``monkeypatch.setenv``; see ``settings``.
    """

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def settings(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The service, with its settings in the environment."""
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    return service


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Somebody at a terminal who types these lines, in process: ``keyboard("y")``; without lines, an end of file."""
    with ExitStack() as stack:

        def sit_down(*lines: str) -> None:
            ours, theirs = pty.openpty()
            stack.callback(os.close, ours)
            os.write(ours, "".join(f"{line}\n" for line in lines).encode() if lines else b"\x04")
            monkeypatch.setattr(sys, "stdin", stack.enter_context(os.fdopen(theirs, encoding="utf-8")))
            monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)

        yield sit_down


@pytest.fixture
def process() -> Process:
    """Runs a command as a process, piped: ``process("groups", "list", env={"NO_COLOR": "1"}, stdin="")``."""

    def run(*arguments: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Result:
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin.encode(),
            capture_output=True,
            env=os.environ | dict(env or {}),
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
