"""``SandboxFaults``: what the fixture ``nudgescribe_faults`` gives to a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import EllipsisType

    from nudgescribe_async.injection import Injection
    from nudgescribe_async.sandbox import LogRecord, SandboxFault
    from nudgescribe_async.testing._sandbox_thread import Moment, ThreadedSandbox

__all__ = ["SandboxFaults"]


class SandboxFaults:
    """Lets things go wrong in the sandbox of a test, and says what was requested of it.

    Requests and effects are those of this test: of a sandbox that tests share, those since the fixture was set up. What
    is injected ends with the test, whoever injected it, before the fixtures of the test are taken down.
    """

    def __init__(self, sandbox: ThreadedSandbox, since: Moment) -> None:
        self._sandbox = sandbox
        self._since = since

    def __repr__(self) -> str:
        return f"<SandboxFaults: {len(self.injections)} may still happen, {len(self.requests)} requests>"

    # --- what is to go wrong -------------------------------------------------------------------------------------

    def inject(
        self,
        fault: SandboxFault,
        *,
        operation: str | None = None,
        times: int | EllipsisType | None = ...,
        skip: int = 0,
        share: float = 1.0,
        seconds: float | None = None,
    ) -> Injection[SandboxFault]:
        """Let a fault happen to requests from now on, as ``Sandbox.inject`` does."""
        return self._sandbox.inject(fault, operation=operation, times=times, skip=skip, share=share, seconds=seconds)

    @property
    def injections(self) -> tuple[Injection[SandboxFault], ...]:
        """The faults that may still happen, oldest first."""
        return self._sandbox.injections

    def clear(self) -> None:
        """End all faults."""
        self._sandbox.clear_faults()

    # --- what happened -------------------------------------------------------------------------------------------

    @property
    def requests(self) -> tuple[LogRecord, ...]:
        """The requests, oldest first, in the order in which they were answered, or left without an answer."""
        return self._sandbox.log_since(self._since)

    def count(self, operation: str | None, status: int | None = None) -> int:
        """How many requests for an operation were answered, with one status or any, as ``Sandbox.count`` counts."""
        return self._sandbox.count_since(self._since, operation, status)

    @property
    def effects(self) -> Mapping[str, int]:
        """How often each operation changed something, as ``Sandbox.effects``."""
        return self._sandbox.effects_since(self._since)
