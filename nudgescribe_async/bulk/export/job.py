"""An export as a coroutine: pages come from an iteration, and go to the disk in a thread, one after the other."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from attrs import frozen

from nudgescribe_async.arguments import check_flag, check_number, is_asynchronous, kind
from nudgescribe_async.bulk.export.arrow import need_pyarrow
from nudgescribe_async.bulk.export.columns import columns_of
from nudgescribe_async.bulk.export.plan import Plan, plan_of
from nudgescribe_async.bulk.export.remote import Remote
from nudgescribe_async.bulk.export.report import ExportProgress, ExportReport
from nudgescribe_async.bulk.export.target import LocalFile, LocalFolder
from nudgescribe_async.bulk.export.writing import Writing
from nudgescribe_async.errors import ExportError, NudgescribeError, PageDriftError
from nudgescribe_async.threads import check, stoppable

if TYPE_CHECKING:
    import os

    from nudgescribe_async.bulk.export.target import Target
    from nudgescribe_async.bulk.export.writing import Amounts
    from nudgescribe_async.consistency import Consistency
    from nudgescribe_async.endpoints.models import Customer, ProfileField
    from nudgescribe_async.paging import Page, PageIterator

__all__ = ["Source", "export"]

P = ParamSpec("P")
T = TypeVar("T")

_LOGGER = logging.getLogger("nudgescribe_async")
_GOES_ON = "What customers.export has written is kept: the same call goes on from there."
_NOT_BEGUN = "This was customers.export, and nothing was written yet."


@frozen(kw_only=True)
class Source:
    """What an export knows of the client.

    Attributes:
        iterate: begins an iteration over the customers, at a cursor of an earlier one (JSON) if there is one.
        fields: asks for the profile fields of a workspace.
        decrypted: whether the client reads profiles.
        consistency: what the iteration does about changes of the group.
        asked: what is exported, for the checkpoint and the manifest: plain values, no secrets.
    """

    iterate: Callable[[str | None], PageIterator[Customer]]
    fields: Callable[[str], Awaitable[Sequence[ProfileField]]]
    decrypted: bool
    consistency: Consistency
    asked: Mapping[str, str | None]


class _Thread:
    """Work that blocks, off the event loop, a piece at a time. Long pieces look at ``pause`` and end early."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def pause(self) -> None:
        """Called by long work between its pieces."""
        check(self._stop)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a piece of work. Cancelling waits for its end, so that nobody writes behind anybody's back."""
        try:
            return await stoppable(self._stop, work, *args, **kwargs)
        finally:
            self._stop.clear()


async def export(
    source: Source,
    destination: str | os.PathLike[str],
    format: str | None,  # noqa: A002 - the name that the caller knows
    *,
    rows_per_part: int | None,
    workspace_id: str | None,
    overwrite: bool,
    restart: bool,
    storage_options: Mapping[str, Any] | None,
    spool: str | os.PathLike[str] | None,
    checkpoint_every: float,
    on_progress: Callable[[ExportProgress], None] | None,
) -> ExportReport:
    """Export; see ``Customers.export``."""
    check_flag("overwrite", overwrite)
    check_flag("restart", restart)
    check_number("checkpoint_every", checkpoint_every, "a number of seconds, 0 or more", least=0)
    if on_progress is not None and (not callable(on_progress) or is_asynchronous(on_progress)):
        what = "a coroutine function" if callable(on_progress) else kind(on_progress)
        raise TypeError(f"on_progress must be a plain function, not {what}.")
    if workspace_id is not None and not isinstance(cast("object", workspace_id), str):
        raise TypeError(f"workspace_id must be a text, not {kind(workspace_id)}.")
    if workspace_id is not None and not workspace_id.strip():
        raise ValueError("workspace_id must not be empty. Left out, it is the workspace of the first customer.")
    profiles = "decrypted" if source.decrypted else "as sent"
    asked = {**source.asked, "workspace_id": workspace_id, "profiles": profiles, "consistency": source.consistency}
    plan = plan_of(destination, format, rows_per_part=rows_per_part, asked=asked)
    source.iterate(None)  # what is wrong with the arguments is said before a file is touched
    thread = _Thread()
    if plan.format == "parquet":
        await thread.run(need_pyarrow)
    writing = Writing(
        plan,
        _target(plan, storage_options, spool),
        consistency=source.consistency,
        overwrite=overwrite,
        restart=restart,
        every=checkpoint_every,
        pause=thread.pause,
    )
    job = _Job(source=source, writing=writing, thread=thread, workspace_id=workspace_id, on_progress=on_progress)
    try:
        await thread.run(writing.open)
        report = await job.run()
    except BaseException:
        await thread.run(writing.close)
        raise
    try:
        await thread.run(writing.close, reported=True)
    except BaseException:  # cancelled at the very end: the caller gets no report, but the same call will
        await thread.run(writing.keep)
        raise
    return report


def _target(plan: Plan, storage_options: object, spool: object) -> Target:
    if plan.url:
        if storage_options is not None and not isinstance(storage_options, Mapping):
            raise TypeError(f"storage_options must be a mapping, not {kind(storage_options)}.")
        folder = Path(cast("str | os.PathLike[str]", spool)) if spool is not None else None
        return Remote(plan, options=cast("Mapping[str, Any]", storage_options or {}), spool=folder)
    if storage_options is not None or spool is not None:
        raise ValueError("storage_options and spool are for destinations that are URLs.")
    path = Path(plan.destination)
    return LocalFile(path) if plan.rows_per_part is None else LocalFolder(path)


@frozen(kw_only=True, eq=False)
class _Job:
    source: Source
    writing: Writing
    thread: _Thread
    workspace_id: str | None
    on_progress: Callable[[ExportProgress], None] | None

    async def run(self) -> ExportReport:
        """Read what is left, then put everything in its place."""
        if self.writing.written:
            return await self.thread.run(self.writing.finish, None)
        stream = self._iterate()
        try:
            await self._read(stream)
        except PageDriftError as error:
            await self.thread.run(self.writing.drifted, error.drift or error.message)
            error.advice = "What was written is not to be trusted: begin anew with restart=True, when nobody writes."
            raise
        except BaseException as error:
            await self._keep(error)
            raise
        return await self.thread.run(self.writing.finish, stream.report)

    def _iterate(self) -> PageIterator[Customer]:
        try:
            return self.source.iterate(self.writing.cursor)
        except ValueError as error:
            raise ExportError(
                f"The reading cannot go on where it stopped: {error} restart=True begins anew."
            ) from error

    async def _read(self, stream: PageIterator[Customer]) -> None:
        started, before = time.monotonic(), self.writing.amounts()[1] if self.writing.begun else 0
        empty: list[Page[Customer]] = []

        async def write(page: Page[Customer]) -> None:
            add = partial(self.writing.add, page.items, page.cursor, page.total, stream.report)
            amounts = await self.thread.run(add)
            self._tell(amounts, page.total, time.monotonic() - started, before)

        async with aclosing(stream.pages()) as pages:
            async for page in pages:
                if not self.writing.begun and not page.items:
                    empty.append(page)  # the columns are those of the workspace of the first customer
                    continue
                if not self.writing.begun:
                    await self._begin(page)
                while empty:
                    await write(empty.pop(0))
                await write(page)
                del page  # lest a page be held while the next one is waited for
        if not self.writing.begun:
            await self._begin(None)
            while empty:
                await write(empty.pop(0))

    async def _begin(self, page: Page[Customer] | None) -> None:
        fields: Sequence[ProfileField] | None = None
        if self.source.decrypted:
            items = page.items if page is not None else ()
            workspace = self.workspace_id or next((item.workspace_id for item in items if item.workspace_id), None)
            fields = await self.source.fields(workspace) if workspace is not None else None
        await self.thread.run(self.writing.begin, columns_of(fields, decrypted=self.source.decrypted))

    async def _keep(self, error: BaseException) -> None:
        """Leave things so that the same call goes on here. What went wrong first is what is told."""
        try:
            await self.thread.run(self.writing.save)
        except ExportError as trouble:
            error.add_note(f"The last checkpoint could not be written, an earlier one is there: {trouble.message}")
        if not isinstance(error, NudgescribeError) or isinstance(error, ExportError):
            return
        if self.writing.begun:
            error.advice = f"{error.advice} {_GOES_ON}".lstrip()
        else:
            error.advice = f"{error.advice} {_NOT_BEGUN}".lstrip()

    def _tell(self, amounts: Amounts, total: int | None, seconds: float, before: int) -> None:
        if self.on_progress is None:
            return
        pages, rows, size = amounts
        rate = (rows - before) / seconds if seconds > 0 else 0.0
        try:
            show = cast("Callable[[ExportProgress], object]", self.on_progress)
            returned = show(ExportProgress(pages=pages, total=total, rows=rows, bytes=size, seconds=seconds, rate=rate))
            if inspect.iscoroutine(returned):
                returned.close()
                _LOGGER.error("on_progress returned a coroutine, which nobody awaits: it must be a plain function.")
        except Exception:  # whatever it does wrong is its own affair
            _LOGGER.exception("on_progress failed.")
