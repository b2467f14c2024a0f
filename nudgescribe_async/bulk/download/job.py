"""``ns.messages.download``: all files of a run, into a directory.

======================  =========================================================================================
the call fails          pages under way are ended; what is finished, and what can be continued, stays
it is cancelled         the same; it returns when no task, file or connection of it is left
the process is killed   the same, but for at most 8 MiB of each page under way
the same call again     skips what is finished and unchanged, continues the rest
there are no files      an error: nothing in the directory is changed, and nothing is called complete
two calls at once       the second is refused, in whichever process it is
the run changed         an error, at the start or the end: files of two runs are never taken for one
the run is not told     the download goes on, and the report says so
the files changed       another number of them: all come anew, and the report says so; at the end, an error
others are replaced     none of them is touched before the first new file is whole; then the manifest is of the new
                        ones, and what is left of the others goes at the very end
the client is closed    ``ClientClosedError``
======================  =========================================================================================
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from nudgescribe_async.bulk.download.folder import Folder
from nudgescribe_async.bulk.download.journal import Journal
from nudgescribe_async.bulk.download.manifest import Manifest, ManifestError
from nudgescribe_async.bulk.download.pages import CONTINUES, OPERATION, Pages, disk_trouble
from nudgescribe_async.bulk.download.report import DownloadedFile, DownloadReport
from nudgescribe_async.bulk.files import InUseError
from nudgescribe_async.cursor import digest
from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.messages import COUNT_PAGES, FETCH_CSV
from nudgescribe_async.endpoints.models import CampaignStatus
from nudgescribe_async.endpoints.reruns import HISTORY
from nudgescribe_async.errors import (
    APIStatusError,
    DeadlineExceededError,
    DownloadError,
    NotFoundError,
    NudgescribeError,
    PermissionDeniedError,
    ResponseDecodeError,
    TransportError,
)
from nudgescribe_async.events import PageFetched
from nudgescribe_async.options import CallOptions, bulk
from nudgescribe_async.retry import in_trouble
from nudgescribe_async.tasks import end
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from nudgescribe_async.bulk.download.report import Via
    from nudgescribe_async.endpoints.models import RerunRecord
    from nudgescribe_async.session import Session

__all__ = ["download"]

_ARGUMENTS = evolve(COUNT_PAGES, operation=OPERATION)  # so that errors name what was called
_NO_RUNS = 0
"""The current run of a campaign in whose history there is none yet. ``None``: the service did not tell."""
_ELSE = "Choose another directory, or pass overwrite=True to replace what is there."
_CHECK = "Check the id of the campaign, and run_number if you gave one: they must belong to this account."


async def download(
    session: Session,
    campaign_id: str,
    directory: str | os.PathLike[str],
    run_number: int | None,
    *,
    concurrency: int,
    via: Via,
    overwrite: bool,
    options: CallOptions | None,
) -> DownloadReport:
    """See ``Messages.download``."""
    which = checked(_ARGUMENTS, {"campaign_id": campaign_id, "run_number": run_number})
    path = _checked_directory(directory)
    _check_choices(concurrency, via, overwrite)
    options = bulk(options)
    if not isinstance(cast("object", options), CallOptions):
        raise TypeError(f"{OPERATION}: options must be CallOptions(...), not {type(options).__name__}.")
    session.admit(OPERATION)
    job = _Download(
        session, which, Folder(path), concurrency=concurrency, via=via, overwrite=overwrite, options=options
    )
    return await job.run()


def _checked_directory(directory: object) -> Path:
    path: object = directory
    if isinstance(directory, os.PathLike):
        path = os.fspath(cast("os.PathLike[str]", directory))
    if not isinstance(path, str):
        raise TypeError(f"{OPERATION}: directory must be a path, not {type(path).__name__}.")
    if not path.strip() or "\0" in path:
        raise ValueError(f"{OPERATION}: directory must be a path, and not empty.")
    return Path(path)


def _check_choices(concurrency: object, via: object, overwrite: object) -> None:
    if isinstance(concurrency, bool) or not isinstance(concurrency, int):
        raise TypeError(f"{OPERATION}: concurrency must be a whole number, not {type(concurrency).__name__}.")
    if concurrency < 1:
        raise ValueError(f"{OPERATION}: concurrency must be at least 1, not {concurrency}.")
    if not isinstance(via, str):
        raise TypeError(f"{OPERATION}: via must be 'url' or 'csv', not {type(via).__name__}.")
    if via not in ("url", "csv"):
        raise ValueError(f"{OPERATION}: via must be 'url' or 'csv', not {via!r}.")
    if not isinstance(overwrite, bool):
        raise TypeError(f"{OPERATION}: overwrite must be True or False, not {type(overwrite).__name__}.")


class _Download:
    """One call."""

    def __init__(
        self,
        session: Session,
        which: Mapping[str, Any],
        folder: Folder,
        *,
        concurrency: int,
        via: Via,
        overwrite: bool,
        options: CallOptions,
    ) -> None:
        self._session = session
        self._which = which
        self._folder = folder
        self._concurrency = concurrency
        # Signed URLs are not to be had for a run that is named.
        self._via: Via = via if "run_number" not in which else "csv"
        self._overwrite = overwrite
        self._options = options
        self._stop = threading.Event()
        self._started = session.clock.monotonic()
        self._first_page = session.first_page(FETCH_CSV)
        self._query = digest(OPERATION, session.base_url, which, self._first_page)
        self._notes: list[str] = []
        self._history: Sequence[RerunRecord] = ()
        self._done = self._rows = 0

    async def run(self) -> DownloadReport:
        try:
            return await self._run()
        except asyncio.CancelledError as error:
            error.add_note(
                f"{OPERATION} was cancelled. What is finished in {self._folder.path} stays: the same call goes on."
            )
            raise
        except OSError as error:
            raise disk_trouble(error, self._folder) from error
        finally:
            self._folder.close()

    async def _run(self) -> DownloadReport:
        was_there = await in_thread(self._enter, make=False)
        found = await in_thread(self._found) if was_there else None
        current_run = await self._current_run()
        total = await self._count()
        if total == 0:
            raise await self._no_files(current_run)
        if not was_there:  # now that there is something to put there
            await in_thread(self._enter, make=True)
            found = await in_thread(self._found)
        wanted = Manifest(
            query=self._query,
            campaign_id=self._which["campaign_id"],
            run_number=self._which.get("run_number"),
            current_run=current_run,
            pages=total,
        )
        manifest = self._settled(found, wanted)
        goes_on = manifest is not wanted
        if not goes_on:
            manifest = await in_thread(self._folder.read_draft, wanted)
        numbers = range(self._first_page, self._first_page + total)
        self._folder.expect(numbers[-1])
        journal = Journal(self._folder, manifest, begun=goes_on)
        if not await in_thread(self._folder.holds_something):
            await journal.begin()
        pages = Pages(
            session=self._session,
            folder=self._folder,
            journal=journal,
            which=self._which,
            total=total,
            via=self._via,
            options=self._options,
            stop=self._stop,
        )
        try:
            files = await self._get(pages, numbers)
        except DownloadError as error:
            await self._blame_a_rerun(error, manifest.current_run, journal)
            raise
        changed = manifest != found or not manifest.complete or not all(file.skipped for file in files)
        if changed:
            await self._check_the_same(manifest.current_run, total, journal)
        await in_thread(self._folder.tidy, {file.path.name for file in files})
        if changed:
            await journal.complete()
        return DownloadReport(
            directory=self._folder.path,
            campaign_id=manifest.campaign_id,
            run_number=manifest.run_number,
            current_run=manifest.current_run or None,
            pages=total,
            files=tuple(files),
            seconds=self._session.clock.monotonic() - self._started,
            notes=(*self._notes, *pages.notes),
        )

    # --- what is there, and what is wanted -------------------------------------------------------------------------

    def _enter(self, *, make: bool) -> bool:
        """Take the directory, if it is there or to be made; whether it was taken. Blocks."""
        try:
            if not make and not self._folder.is_there():
                return False
            self._folder.open()
        except InUseError:
            failure = self._error(f"Another download is at work in {self._folder.path}.")
            failure.advice = "Wait until it has ended, or choose another directory."
            raise failure from None
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"{OPERATION}: directory is no directory: {self._folder.path}.") from None
        return True

    def _found(self) -> Manifest | None:
        """What an earlier call left that this one may continue. Blocks."""
        try:
            found = self._folder.read_manifest()
        except ManifestError as error:
            if not self._overwrite:
                raise self._error(f"{self._folder.manifest} {error}.", _ELSE) from None
            return None
        if self._overwrite:
            return found if found is not None and found.query == self._query else None
        if found is None:
            strays = self._folder.strays()
            if strays:
                what = f"{self._folder.path} holds {strays[0].name}, and no manifest that says what it is."
                raise self._error(what, _ELSE)
        elif found.query != self._query:
            raise self._error(self._difference(found), _ELSE)
        return found

    def _difference(self, found: Manifest) -> str:
        campaign_id, run_number = self._which["campaign_id"], self._which.get("run_number")
        here, wanted = _run_of(found.run_number, found.current_run), _run_of(run_number)
        if found.campaign_id != campaign_id:
            here, wanted = f"{here} of campaign {found.campaign_id}", f"{wanted} of campaign {campaign_id}"
        elif found.run_number != run_number:
            here, wanted = f"{here} of campaign {campaign_id}", f"{wanted} of it"
        else:
            return (
                f"{self._folder.path} holds a download of {here} of campaign {campaign_id}, but from another service "
                "(base_url), or with pages that were counted from another number (first_page)."
            )
        return f"{self._folder.path} holds a download of {here}, and this call asks for {wanted}."

    def _settled(self, found: Manifest | None, wanted: Manifest) -> Manifest:
        """The manifest to go on with."""
        if found is None:
            return wanted
        if _differ(found.current_run, wanted.current_run):
            if self._overwrite:
                return wanted
            raise self._rerun(found.current_run, wanted.current_run, f"What is in {self._folder.path} is of")
        if found.pages != wanted.pages:
            self._notes.append(
                f"The run had {found.pages:,} files when the download began, and has {wanted.pages:,} now: they may be "
                "others, so all came anew."
            )
            return wanted
        if found.current_run is None and wanted.current_run is not None:
            self._note_unknown()
            return evolve(found, current_run=wanted.current_run)
        return found

    async def _current_run(self) -> int | None:
        if "run_number" in self._which:
            return None
        with self._asking("which run is the current one"):
            try:
                self._history = await self._ask_history()
            except (NotFoundError, PermissionDeniedError):
                self._note_unknown()
                return None
        return max((run.run_number for run in self._history), default=_NO_RUNS)

    def _note_unknown(self) -> None:
        note = "The service did not tell which run is the current one, so that a rerun meanwhile goes unnoticed."
        if note not in self._notes:
            self._notes.append(note)

    async def _ask_history(self) -> Sequence[RerunRecord]:
        return await self._session.call(HISTORY, {"campaign_id": self._which["campaign_id"]}, self._options)

    async def _count(self) -> int:
        with self._asking("how many files there are"):
            return await self._session.call(COUNT_PAGES, self._which, self._options)

    @contextmanager
    def _asking(self, what: str) -> Generator[None, None, None]:
        """What goes wrong with a question is told as of the download: it is nothing that the caller has asked."""
        try:
            yield
        except (TransportError, DeadlineExceededError, APIStatusError, ResponseDecodeError) as error:
            failure = DownloadError(
                f"Campaign {self._which['campaign_id']} could not be downloaded, since the service did not say {what}: "
                f"{error.message}",
                operation=error.operation or OPERATION,
                request_id=error.request_id,
                attempts=error.attempts,
            )
            failure.not_repeated = error.not_repeated
            refused = isinstance(error, APIStatusError) and not in_trouble(error.status)
            failure.advice = _CHECK if refused else CONTINUES
            raise failure from error

    async def _no_files(self, current_run: int | None) -> DownloadError:
        """The error for a run that there is nothing of."""
        number = self._which.get("run_number", current_run or None)
        if "run_number" in self._which:
            with suppress(NudgescribeError):  # then nobody knows its state
                self._history = await self._ask_history()
        state = next((run.campaign_status for run in self._history if run.run_number == number), None)
        said = "" if state is None else f": it is {str(state)!r}"
        if state == CampaignStatus.PUBLISHED:
            advice = "Its files may still be written: try again later. Perhaps there was nobody in its customer group."
        else:
            approve = "Have its messages approved, publish" if state == CampaignStatus.READY_FOR_REVIEW else "Publish"
            advice = f"{approve} it (ns.messages.publish), and make the same call when that is done."
        return self._error(
            f"{_run_of(number).capitalize()} of campaign {self._which['campaign_id']} has no files yet{said}. "
            f"{self._folder.path} is left as it was.",
            f"{advice} For another run, pass its run_number= and another directory.",
        )

    async def _check_the_same(self, current_run: int | None, total: int, journal: Journal) -> None:
        count = await self._count()
        now = await self._current_run()
        if _differ(now, current_run):
            await journal.forget()
            raise self._rerun(current_run, now, "Files were downloaded of")
        if count != total:
            await journal.forget()
            what = f"The run had {total:,} files when the download began, and {count:,} at its end."
            raise self._error(what, "They may be others now: the same call downloads them anew.")

    async def _blame_a_rerun(self, error: DownloadError, current_run: int | None, journal: Journal) -> None:
        """A page that is suddenly not there is, more likely than not, one of a run that is not the current one any more."""
        cause = error.__cause__
        if current_run is None or not isinstance(cause, APIStatusError) or cause.status >= 500:
            return
        now = current_run
        with suppress(NudgescribeError):
            now = await self._current_run() or current_run
        if now != current_run:
            await journal.forget()
            raise self._rerun(current_run, now, "Files were being downloaded of") from error

    def _rerun(self, before: int | None, now: int | None, what: str) -> DownloadError:
        return self._error(
            f"{what} run {before or '?'} of the campaign, and the current run is {now or '?'}: it was rerun meanwhile.",
            "For the new run, choose another directory or pass overwrite=True; for the earlier one, "
            f"run_number={before or '...'} and another directory.",
        )

    def _error(self, message: str, advice: str = "") -> DownloadError:
        error = DownloadError(message, operation=OPERATION)
        error.advice = advice
        return error

    # --- all pages -------------------------------------------------------------------------------------------------

    async def _get(self, pages: Pages, numbers: range) -> list[DownloadedFile]:
        """All files, in order; or the first error, when everything else has ended."""
        left = iter(numbers)
        files: dict[int, DownloadedFile] = {}

        async def work() -> None:
            for number in left:
                files[number] = await pages.get(number)
                self._tell(files[number], len(numbers))

        tasks = [
            asyncio.create_task(work(), name="nudgescribe download")
            for _ in range(min(self._concurrency, len(numbers)))
        ]
        try:
            if tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            if len(files) < len(numbers):
                self._stop.set()
            await end(tasks)
        errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
        if errors:
            raise min(errors, key=lambda error: error.page or 0 if isinstance(error, DownloadError) else -1)
        if len(files) < len(numbers):
            raise asyncio.CancelledError  # somebody has cancelled every task that there is
        return [files[number] for number in numbers]

    def _tell(self, file: DownloadedFile, total: int) -> None:
        self._done += 1
        self._rows += file.rows
        self._session.events.emit(
            PageFetched(
                operation=OPERATION,
                page=file.page,
                total=total,
                done=self._done,
                items=self._rows,
                seconds=self._session.clock.monotonic() - self._started,
            )
        )


def _differ(one: int | None, other: int | None) -> bool:
    """Whether two runs are known to be two."""
    return one is not None and other is not None and one != other


def _run_of(number: int | None, current: int | None = None) -> str:
    if number is not None:
        return f"run {number}"
    return "the current run" if not current else f"the current run (which was run {current})"
