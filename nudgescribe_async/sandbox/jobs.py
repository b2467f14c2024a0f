"""Queued work: large uploads, publishing, reruns.

Jobs are rows of the database, so they survive a restart and are queued by the very transaction that needs them. They
run one at a time, in the order of their due time, each in a transaction that removes it from the queue as well. A job
that fails is a defect of the sandbox: it is taken off the queue and reported by ``drain``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from nudgescribe_async.sandbox import messages, reruns, uploads
from nudgescribe_async.sandbox.values import SandboxError

if TYPE_CHECKING:
    from nudgescribe_async.sandbox.store import Database, Store

_logger = logging.getLogger(__name__)


class Jobs:
    """Runs what is queued. One background task, which ends with ``stop``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._work = asyncio.Event()
        self._idle = asyncio.Condition()
        self._hurry = False
        self._failures: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with what an earlier sandbox left in the queue."""
        self._work.set()
        self._task = asyncio.create_task(self._run(), name="nudgescribe sandbox jobs")

    def wake(self) -> None:
        """There may be something in the queue."""
        self._work.set()

    async def drain(self, *, hurry: bool = False) -> None:
        """Return once the queue is empty; with ``hurry``, jobs do not wait for their time to come."""
        self._check_running()
        self._hurry = self._hurry or hurry
        async with self._idle:
            self._work.set()
            while await self._store.read(_count):
                self._check_running()
                await self._idle.wait()
            if hurry:
                self._hurry = False  # what is queued from now on waits again
        if self._failures:
            failures, self._failures = self._failures, []
            raise SandboxError(f"A job failed: {'; '.join(failures)}")

    def _check_running(self) -> None:
        if self._task is None or self._task.done():
            raise SandboxError("The sandbox is not running: enter it with 'async with'.")

    async def stop(self) -> None:
        """Stop after the job that is under way. What is queued stays queued. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        try:
            while True:
                await self._step()
        finally:
            async with self._idle:
                self._idle.notify_all()  # whoever drains must learn that nothing runs any more

    async def _step(self) -> None:
        self._work.clear()
        due = await self._store.write(self._run_next)
        async with self._idle:
            self._idle.notify_all()
        if due != 0:
            # Not wait_for(): up to Python 3.11 it loses a cancellation that comes in the same turn as the work.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(due - time.time(), 0)):
                    await self._work.wait()

    def _run_next(self, db: Database) -> float | None:
        """Run the next job if its time has come: 0 if it had, when it will have, or ``None`` for an empty queue."""
        job = db.one("SELECT * FROM jobs ORDER BY due, position LIMIT 1")
        if job is None:
            return None
        if job["due"] > time.time() and not self._hurry:
            return float(job["due"])
        db.run("DELETE FROM jobs WHERE position = ?", job["position"])
        db.run("SAVEPOINT job")
        try:
            _perform(db, job["kind"], json.loads(job["payload"]))
        except Exception as error:
            _logger.exception("The job %s (%s) failed", job["job_uid"], job["kind"])
            self._failures.append(f"{job['kind']} {job['job_uid']}: {error!r}")
            db.rollback_to("job")
        db.run("RELEASE job")
        return 0


def _perform(db: Database, kind: str, payload: dict[str, Any]) -> None:
    if kind == "upload":
        uploads.apply(db, payload["upload_id"])
    elif kind == "publish":
        messages.export(db, payload["campaign_id"])
    elif kind == "rerun":
        reruns.complete(db, payload["campaign_id"], payload["run_number"], payload.get("ready"))
    else:
        raise SandboxError(f"There is no kind of job called {kind}.")


def _count(db: Database) -> int:
    return int(db.one("SELECT count(*) AS n FROM jobs")["n"])
