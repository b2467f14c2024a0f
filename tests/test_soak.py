"""The short form of ``nox -s soak``, and that the soak notices each kind of broken promise."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nudgescribe_async import BadRequestError, OutcomeUnknownError, call, retry
from nudgescribe_async.endpoint import RetryClass
from nudgescribe_async.endpoints.messages import MessagesEndpoints

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "soak.py"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not here")]


def test_ten_thousand_calls_keep_every_promise(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-W", "error", os.fspath(SCRIPT), "--calls", "10000", "--json", os.fspath(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    told: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    assert told["wrong"] == 0
    assert told["calls"] == 10_000
    assert told["faults"]["all"] > 400
    assert told["unknown outcomes"]["all"] > 20
    assert told["tokens"]["logins"] + told["tokens"]["renewals"] > 2
    assert told["succeeded"] > 9_000
    assert "Every promise was kept." in done.stdout


@pytest.fixture
def soak() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nudgescribe_soak", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Soak = Callable[..., str]


@pytest.fixture
def complaints(soak: ModuleType, capsys: pytest.CaptureFixture[str]) -> Soak:
    """Runs a small soak that must fail, and gives what it complains of."""

    def run(*, calls: int = 600) -> str:
        assert soak.main(["--calls", str(calls), "--callers", "48", "--faults", "20%"]) == 1
        captured = capsys.readouterr()
        assert "promises were broken." in captured.out
        return captured.err

    return run


def test_a_small_soak_passes_if_nothing_is_broken(soak: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--calls", "300", "--callers", "16", "--faults", "2%", "--seed", "7"]) == 0, (
        capsys.readouterr().err
    )


def test_a_write_that_is_sent_twice_is_noticed(complaints: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = retry._may_repeat

    def careless(retry_class: RetryClass, failure: Any) -> bool:
        return honest(RetryClass.IDEMPOTENT, failure)

    monkeypatch.setattr(retry, "_may_repeat", careless)
    assert "effects at the service" in complaints()


def test_an_error_that_hides_an_effect_is_noticed(complaints: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(failure: Any, endpoint: Any, *, may_have_taken_effect: bool) -> None:
        """Says nothing of the effect."""

    monkeypatch.setattr(call, "tell", silent)
    assert "the error does not say that it may have" in complaints()


def test_an_answer_that_is_wrong_is_noticed(complaints: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = MessagesEndpoints.count_pages

    async def wrong(self: MessagesEndpoints, *arguments: Any, **options: Any) -> int:
        return await honest(self, *arguments, **options) + 1

    monkeypatch.setattr(MessagesEndpoints, "count_pages", wrong)
    assert "messages.count_pages gave a wrong answer" in complaints(calls=200)


def test_a_refusal_without_a_reason_is_noticed(complaints: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object, **__: object) -> int:
        raise BadRequestError("no", status=400)

    monkeypatch.setattr(MessagesEndpoints, "count_pages", refused)
    assert "ended with an error that no fault explains: BadRequestError" in complaints(calls=200)


def test_an_empty_budget_of_retries_is_noticed(complaints: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object, **__: object) -> int:
        error = OutcomeUnknownError("lost")
        error.not_repeated = "the client's budget of retries is used up"
        raise error

    monkeypatch.setattr(MessagesEndpoints, "count_pages", refused)
    assert "the client's budget of retries is used up" in complaints(calls=200)


FORGETFUL = """
import asyncio, runpy, sys
from nudgescribe_async.transport.aiohttp import AiohttpTransport

kept = []

async def aclose(self):
    kept.append((self, asyncio.create_task(asyncio.sleep(60))))

AiohttpTransport.aclose = aclose
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_sockets_and_tasks_that_are_left_are_noticed() -> None:
    command = [sys.executable, "-c", FORGETFUL, os.fspath(SCRIPT), "--calls", "200", "--callers", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "tasks are left" in done.stderr
    assert "sockets are left open" in done.stderr
