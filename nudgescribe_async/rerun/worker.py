"""What whoever works on campaigns needs: the service, the journal, a place among the others, and when to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen

from nudgescribe_async.endpoint import RetryClass
from nudgescribe_async.errors import JournalError
from nudgescribe_async.rerun.decide import cause, concerns_all
from nudgescribe_async.retry import Retry, decide

if TYPE_CHECKING:
    import asyncio

    from nudgescribe_async.errors import NudgescribeError
    from nudgescribe_async.rerun.halt import Halt
    from nudgescribe_async.rerun.ledger import Ledger
    from nudgescribe_async.rerun.once import Once
    from nudgescribe_async.rerun.service import Service
    from nudgescribe_async.session import Session

__all__ = ["Means", "Trial", "Worker"]

ROUNDING = 1e-3
"""Timers may be so much too early."""


@frozen(kw_only=True)
class Means:
    """What one call works with.

    Attributes:
        session: of the client.
        service: what is asked of the service.
        ledger: the journal.
        halt: whether to stop.
        slots: one is taken for what is in flight.
        operation: what was called.
        settle: seconds after which a request does not arrive any more.
    """

    session: Session
    service: Service
    ledger: Ledger
    halt: Halt
    slots: asyncio.Semaphore
    operation: str
    settle: float


@define
class Trial:
    """What a call has tried with one campaign."""

    once: Once
    late_until: float | None = None
    """Until when a request may still arrive that nobody has heard of; ``None`` if there is none."""
    requests: int = 0
    unsent: int = 0
    """Requests that have provably not arrived, or were turned away before any work."""


class Worker:
    """Works on any number of campaigns at a time."""

    def __init__(self, means: Means) -> None:
        self._session = means.session
        self._service = means.service
        self._ledger = means.ledger
        self._halt = means.halt
        self._slots = means.slots
        self._operation = means.operation
        self._settle = means.settle
        self._clock = means.session.clock
        self._began = self._clock.monotonic()

    def _may_be_late(self, trial: Trial) -> None:
        """A request has gone its way, and what became of it is not known."""
        trial.late_until = self._clock.monotonic() + self._settle

    def _time_left(self, trial: Trial) -> float:
        """Seconds in which a request may still arrive."""
        left = 0.0 if trial.late_until is None else trial.late_until - self._clock.monotonic()
        return left if left > ROUNDING else 0.0

    def _stop_if_hopeless(self, error: NudgescribeError) -> None:
        """Stop everything if no other campaign would fare better."""
        if not isinstance(error, JournalError) and concerns_all(error):
            self._halt.now(cause(error))

    def _wait_to_repeat(self, campaign_id: str, error: NudgescribeError, trial: Trial) -> float | None:
        """Seconds after which to look, and send again, what had no effect; ``None`` if it was tried often enough."""
        trial.unsent += 1
        decision = decide(RetryClass.UNSAFE, error, attempts=trial.unsent, policy=self._service.patience)
        if isinstance(decision, Retry):
            return decision.after
        error.not_repeated = None if decision.final else decision.why
        self._ledger.note(campaign_id, str(error), error)
        return None
