"""``ns.reruns``: the endpoints, and many campaigns run again, each exactly once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nudgescribe_async.endpoints.reruns import RerunsEndpoints
from nudgescribe_async.engines import load_engine

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from nudgescribe_async.endpoints.models import RerunRecord
    from nudgescribe_async.events import RerunProgress
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.rerun.plan import RerunRequest
    from nudgescribe_async.rerun.report import RerunReport
    from nudgescribe_async.session import Session

__all__ = ["Reruns"]


class Reruns(RerunsEndpoints):
    """Running published campaigns again: one, or hundreds."""

    __slots__ = ("_busy",)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._busy: set[str] = set()

    async def run(
        self,
        plan: Iterable[RerunRequest],
        *,
        concurrency: int = 8,
        journal: str | os.PathLike[str] | None = None,
        settle: float = 10.0,
        wait: bool = False,
        publish: bool = False,
        download: str | os.PathLike[str] | None = None,
        on_event: Callable[[RerunProgress], object] | None = None,
        fail_fast: bool = False,
        amend: bool = False,
        wait_timeout: float | None = None,
        grace: float = 10.0,
        stop: asyncio.Event | None = None,
        options: CallOptions | None = None,
    ) -> RerunReport:
        """Run the campaigns of a plan again, every one exactly once.

        The service has no key by which it would know a request again. So each intention is written to a journal before
        the request is sent, with the newest run that the campaign's history knew, and each outcome after it. Where no
        answer came, or one that says nothing (a timeout, a lost connection, a 5xx, a crash, a cancellation), the
        history is asked: a newer run for the wanted group is adopted; one for another group is somebody else's, and a
        conflict; if there is none after ``settle`` seconds, the campaign is sent again. The same call made again
        continues: whatever ended the one before, ``kill -9`` included, nothing is done twice and nothing is forgotten. The
        guide says in plain words what this cannot protect from.

        If a row of the plan was wrong, correct it, and make the call with the same journal and ``amend=True``: a journal of its
        own for the corrected plan would run again what has its run.

        First all campaigns are checked, and nothing is sent before that: the campaign is known and ``Published``, the
        group is one of its workspace, every message of its current run is ``Published``. What fails that is refused,
        and stops no other. A later call looks again at what was refused or not started, and finds out about what is not known; conflicts
        are left to you.

        One process at a time works with a journal: another one is told who does. All that is written to it is written in
        threads. Cancelling starts nothing new, gives what is in flight ``grace`` seconds to end and to be verified (what
        changes nothing, or can go on another time, ends at once), and raises ``CancelledError`` with the report so far as its
        attribute ``report``, unless it comes before the journal is open; cancelling twice does not wait. So does closing the
        client, which returns the report; the grace is that of ``aclose`` then.

        Args:
            plan: what to run, for which group. ``RerunPlan.from_csv`` reads it from a file.
            concurrency: campaigns at work at once; the client's own limit holds as well.
            journal: the file; left out, one for this plan in the user's folder for state
                (``$XDG_STATE_HOME/nudgescribe/reruns``), which is in the report. Another round of the same plan needs another journal.
            settle: seconds after which a request that nobody has answered does not arrive any more. Longer than the service,
                and whatever stands before it, may sit on a request.
            wait: wait until the service has done with each run: until the campaign is ``Ready for review``, ``Ready to
                publish`` or ``Published``.
            publish: wait, and publish the runs that are ``Ready to publish``; those to be reviewed are left to people, and
                published by a later call.
            download: a folder, into which the messages of published runs go: ``<campaign>/run-<number>/page-00001.csv``.
            on_event: a plain function, called on the event loop with each ``RerunProgress``. What it raises is logged; what ends
                a program (``KeyboardInterrupt``, ``SystemExit``) stops the call in good order, and is raised then.
            fail_fast: start nothing new once a campaign was not run as wanted.
            amend: the plan was corrected since the call before: what was refused, or not sent yet, may differ from what the
                journal has. All else must be in the plan as it was, and is not run again. Needs ``journal``.
            wait_timeout: seconds that each run is waited for; without end if left out, but for publications that an earlier call
                has asked for.
            grace: seconds that a cancelled call gives to what is in flight.
            stop: set it, and the call ends in good order and returns its report: for handlers of signals.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            ``RerunReport``. Call ``raise_for_failures()`` on it, or look at ``complete``.

        Raises:
            TypeError: an argument, or an item of the plan, is of the wrong type.
            ValueError: an argument has a value that cannot be right, or the plan is empty.
            JournalError: the journal is in use, is of another plan, or cannot be used. Nothing was sent without an entry
                in it; ``report`` has what was done before it failed, if anything was.
            NudgescribeError: the campaigns of the account could not be had. Nothing was sent.
        """
        await load_engine("nudgescribe_async.rerun.job", "nudgescribe_async.rerun.choices")
        from nudgescribe_async.rerun.choices import Choices  # noqa: PLC0415 - see engines.py
        from nudgescribe_async.rerun.job import run  # noqa: PLC0415 - see engines.py
        from nudgescribe_async.rerun.plan import RerunPlan  # noqa: PLC0415 - see engines.py

        choices = Choices(
            concurrency=concurrency,
            journal=journal,
            settle=settle,
            wait=wait,
            publish=publish,
            download=download,
            on_event=on_event,
            fail_fast=fail_fast,
            amend=amend,
            wait_timeout=wait_timeout,
            grace=grace,
            stop=stop,
        )
        plan = RerunPlan.of(plan)
        if not plan.requests:
            raise ValueError("The plan is empty: there is no campaign to run. Was it an iterator that is used up?")
        return await run(self._session, plan, choices, options, self._busy)

    async def wait(
        self,
        campaign_id: str,
        run_number: int,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline of the client's clock, and its error says more
        options: CallOptions | None = None,
    ) -> RerunRecord:
        """Wait until the service has done with a run.

        Asks the history, at first each second, then less often, up to every half minute. Cancelling it changes nothing;
        closing the client ends it.

        Args:
            campaign_id: the campaign.
            run_number: the run; a ``RerunReceipt`` and the history have it.
            timeout: seconds; without end if left out.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            The record of the run. Its ``campaign_status`` is ``Ready for review``, ``Ready to publish`` or ``Published``.

        Raises:
            DeadlineExceededError: time ran out.
            RerunError: the service says that it has failed; or the campaign has no such run, for ten seconds, since a history
                may lag behind.
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
            NudgescribeError: the service could not be asked.
        """
        await load_engine("nudgescribe_async.rerun.wait")
        from nudgescribe_async.rerun.wait import wait  # noqa: PLC0415 - see engines.py

        return await wait(self._session, campaign_id, run_number, timeout, options)
