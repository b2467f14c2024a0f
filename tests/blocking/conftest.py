"""A blocking client of a sandbox in a thread of its own; each module has its ``shared`` sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from blocking_service import JANUARY, client, loop_threads

if TYPE_CHECKING:
    from nudgescribe_async import blocking
    from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox


@pytest.fixture
def live(shared: ThreadedSandbox) -> Iterator[ThreadedSandbox]:
    yield shared
    shared.clear_faults()


@pytest.fixture
def ns(live: ThreadedSandbox) -> Iterator[blocking.Nudgescribe]:
    with client(live) as made:
        yield made
    assert not loop_threads()


@pytest.fixture
def group(live: ThreadedSandbox) -> str:
    return live.example.customer_groups[JANUARY]
