"""What whoever works on campaigns needs: the service, the journal, a place among the others, and when to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import asyncio

    from nudgescribe_async.rerun.halt import Halt
    from nudgescribe_async.rerun.ledger import Ledger
    from nudgescribe_async.rerun.service import Service
    from nudgescribe_async.session import Session

__all__ = ["Means", "Worker"]


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
