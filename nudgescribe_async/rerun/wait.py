"""Waiting for a single run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nudgescribe_async.arguments import check_number, check_whole
from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.reruns import HISTORY
from nudgescribe_async.errors import RerunError
from nudgescribe_async.rerun.choices import LONGEST
from nudgescribe_async.rerun.decide import SETTLED, stands
from nudgescribe_async.rerun.service import Service
from nudgescribe_async.rerun.watch import Watch

if TYPE_CHECKING:
    from nudgescribe_async.endpoints.models import RerunRecord
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.session import Session

__all__ = ["wait"]

OPERATION = "reruns.wait"


async def wait(
    session: Session, campaign_id: str, run_number: int, seconds: float | None, options: CallOptions | None
) -> RerunRecord:
    """See ``Reruns.wait``."""
    checked(HISTORY, {"campaign_id": campaign_id})
    check_whole("run_number", run_number, "a whole number above 0", least=1)
    if seconds is not None:
        check_number("timeout", seconds, "a number of seconds above 0, or None", above=0, most=LONGEST)
    session.admit(OPERATION)
    async with Watch(Service(session, options), session.clock, asyncio.Semaphore(1), OPERATION) as watch:
        forget = session.when_closing(watch.close)
        try:
            record = await watch.until(campaign_id, run_number, SETTLED, seconds)
        finally:
            forget()
    if stands(record.campaign_status) == "failed":
        error = RerunError(
            f"The service has failed in its work on run {run_number}: it says {record.campaign_status!r}.",
            operation=OPERATION,
        )
        error.advice = "Ask the service what is wrong with the campaign."
        raise error
    return record
