"""What holds for every test."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from nudgescribe_async.sandbox import Sandbox
from nudgescribe_async.testing import VirtualClock


def pytest_configure() -> None:
    """Ctrl-C, as in a terminal: who starts the tests in the background has it ignored, by all that they start as well."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    """Set up first and so taken down last: whatever the test and its fixtures started must have ended."""
    yield
    for _ in range(10):  # what is cancelled needs a turn or two to end
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left: {left}"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running
