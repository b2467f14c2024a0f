"""For tests of the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nudgescribe_async.rerun import job, ledger


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is written on the event loop, so that a virtual clock does not jump meanwhile."""

    async def at_once(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return work(*arguments, **options)

    monkeypatch.setattr(job, "in_thread", at_once)
    monkeypatch.setattr(ledger, "in_thread", at_once)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "reruns.db"
