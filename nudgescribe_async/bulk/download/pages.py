"""One page: from a link, or from the service itself, to a file that was checked and is in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import evolve

from nudgescribe_async.bulk.download.content import Content, DamageError, examine
from nudgescribe_async.bulk.download.links import Link, problem_of
from nudgescribe_async.bulk.download.manifest import FinishedPage
from nudgescribe_async.bulk.download.partial import PartialFile
from nudgescribe_async.bulk.download.report import DownloadedFile
from nudgescribe_async.endpoint import Bearer, Effect, Endpoint, RetryClass
from nudgescribe_async.endpoints.messages import FETCH_CSV, FETCH_URL
from nudgescribe_async.errors import (
    APIStatusError,
    ConfigurationError,
    DeadlineExceededError,
    DownloadError,
    NudgescribeError,
    ResponseDecodeError,
    TransportError,
)
from nudgescribe_async.retry import in_brief, in_trouble
from nudgescribe_async.shapes import Evidence
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from typing import Any

    from nudgescribe_async.bulk.download.folder import Folder
    from nudgescribe_async.bulk.download.journal import Journal
    from nudgescribe_async.bulk.download.report import Via
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.reading import Answer
    from nudgescribe_async.session import Session

__all__ = ["CONTINUES", "OPERATION", "Pages", "disk_trouble"]

OPERATION: Final = "messages.download"
_LINKED: Final = Endpoint(
    operation=OPERATION,
    method="GET",
    path="",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.ASSUMED,
    bearer=Bearer.NONE,
    answer=str,
)
_LINKS = 4
"""Links to one page that are tried, one after the other."""
_ROUNDS = 3
"""How often a page is downloaded that comes damaged."""
_REFUSALS = frozenset({400, 401, 403, 404, 410})
CONTINUES = "What is finished stays: the same call continues."


class Pages:
    """Gets the pages of one download, several at a time if need be.

    Args:
        session: sends.
        folder: keeps.
        journal: notes.
        which: the campaign, and the run if one was named.
        total: how many pages there are.
        via: how they are to come.
        options: for each call.
        stop: ends what threads are at.

    Attributes:
        notes: what was noticed.
    """

    def __init__(
        self,
        *,
        session: Session,
        folder: Folder,
        journal: Journal,
        which: Mapping[str, Any],
        total: int,
        via: Via,
        options: CallOptions,
        stop: threading.Event,
    ) -> None:
        self._session = session
        self._folder = folder
        self._journal = journal
        self._which = which
        self._total = total
        self._via = via
        self._options = options
        self._stop = stop
        self.notes: list[str] = []

    async def get(self, page: int) -> DownloadedFile:
        """One page, unless it is here already.

        Raises:
            DownloadError: it could not be had, or not be kept.
        """
        try:
            kept = self._journal.finished.get(page)
            if kept is not None:
                if await in_thread(self._folder.is_as_noted, kept, self._stop):
                    return self._file(page, kept, skipped=True)
                self.notes.append(f"{kept.name} was changed or removed since it was downloaded, and came again.")
                await self._journal.reopen(page)
            return await self._download(page)
        except (TransportError, DeadlineExceededError, APIStatusError, ResponseDecodeError) as error:
            raise self._failure(page, error) from error
        except OSError as error:
            raise disk_trouble(error, self._folder, page=page) from error

    async def _download(self, page: int) -> DownloadedFile:
        partial = PartialFile(self._folder.partial(page), keep=lambda checkpoint: self._journal.keep(page, checkpoint))
        noted = self._journal.unfinished.get(page)
        if noted is not None and self._via == "url":
            await in_thread(partial.restore, noted, self._stop)
        damage: DamageError | None = None
        for _ in range(_ROUNDS):
            via = await self._fetch(page, partial)
            try:
                content = await in_thread(
                    examine, self._folder.partial(page), partial.headers_of_answer, partial.digests, self._stop
                )
            except DamageError as error:
                damage = error
                partial.start_anew()
                if error.as_published:
                    break
            else:
                return await self._finish(page, content, via, resumed=partial.continued)
        raise await self._damaged(page, damage) from damage

    async def _finish(self, page: int, content: Content, via: Via, *, resumed: bool) -> DownloadedFile:
        await self._journal.begin()
        path = await in_thread(self._folder.finish, page)
        entry = FinishedPage(name=path.name, bytes=content.bytes, rows=content.rows, sha256=content.sha256, via=via)
        await self._journal.finish(page, entry)
        return evolve(self._file(page, entry), resumed=resumed)

    def _file(self, page: int, entry: FinishedPage, *, skipped: bool = False) -> DownloadedFile:
        return DownloadedFile(
            page=page,
            path=self._folder.path / entry.name,
            rows=entry.rows,
            bytes=entry.bytes,
            sha256=entry.sha256,
            via=entry.via,
            skipped=skipped,
        )

    # --- how it comes ----------------------------------------------------------------------------------------------

    async def _fetch(self, page: int, partial: PartialFile) -> Via:
        """Have all of a page in its part; how it came."""
        try:
            if self._via == "url" and await self._fetch_by_link(page, partial):
                return "url"
            partial.ask_for_all()
            values = {**self._which, "page": page, "format": "csv"}
            answer = await self._session.exchange(FETCH_CSV, values, self._options, into=partial)
            self._refuse_what_is_none(FETCH_CSV, answer, partial)
        except BaseException:
            await self._keep(page, partial)
            raise
        return "csv"

    async def _keep(self, page: int, partial: PartialFile) -> None:
        checkpoint = partial.checkpoint()
        if checkpoint is not None:
            try:
                await self._journal.keep(page, checkpoint)
            except OSError:
                return  # then it comes again; what went wrong first is what the caller hears of

    async def _fetch_by_link(self, page: int, partial: PartialFile) -> bool:
        """Whether there was a link; then the page is here."""
        last: APIStatusError | None = None
        for _ in range(_LINKS):
            link = await self._link(page)
            if link is None:
                return False
            if not link.is_good(self._session.clock.monotonic()):
                continue
            try:
                answer = await self._session.follow(_LINKED, link.url, self._options, into=partial)
            except APIStatusError as error:
                last = error
                if error.status == 416:  # there is no such part: the file is another one
                    partial.start_anew()
                elif error.status not in _REFUSALS:
                    raise
            except ConfigurationError:  # whatever else that may be about, the service's own CSV would meet it too
                self._do_without_links("one cannot be followed")
                return False
            else:
                self._refuse_what_is_none(_LINKED, answer, partial)
                return True
        raise self._links_refused(page, last) from last

    async def _link(self, page: int) -> Link | None:
        """A fresh link; ``None`` if there is none that may be followed."""
        asked = self._session.clock.monotonic()
        try:
            values = {**self._which, "page": page, "format": "url"}
            answer = await self._session.call(FETCH_URL, values, self._options)
        except APIStatusError as error:
            if in_trouble(error.status):
                raise
            self._do_without_links(in_brief(error))
            return None
        except ResponseDecodeError as error:
            if error.unreadable:
                raise
            self._do_without_links("the answer was none")
            return None
        problem = problem_of(answer.url)
        if problem is not None:
            self._do_without_links(f"one must not be followed, since {problem}")
            return None
        return Link.of(answer, asked=asked)

    def _do_without_links(self, why: str) -> None:
        if self._via == "url":  # else another page has said so
            self._via = "csv"
            why = f"{why[:1].lower()}{why[1:]}"
            self.notes.append(f"Signed URLs were not to be had: {why}. Files came from the service itself, as CSV.")

    def _refuse_what_is_none(self, endpoint: Endpoint[str], answer: Answer, partial: PartialFile) -> None:
        if not partial.whole:  # it says itself that it is something else
            self._session.decode(endpoint, answer)
            raise ResponseDecodeError("The answer is no file of messages.", operation=endpoint.operation)

    # --- what goes wrong -------------------------------------------------------------------------------------------

    def _failure(self, page: int, error: NudgescribeError) -> DownloadError:
        said, advice = error.message, CONTINUES
        if error.operation == OPERATION:
            advice = f'{CONTINUES} via="csv" does without the storage.'
            if isinstance(error, APIStatusError):
                said = _of_storage(error)
        failure = DownloadError(
            f"Page {page} of {self._total} could not be downloaded: {said}",
            operation=error.operation or OPERATION,
            request_id=error.request_id,
            attempts=error.attempts,
        )
        failure.page, failure.not_repeated, failure.advice = page, error.not_repeated, advice
        return failure

    def _links_refused(self, page: int, last: APIStatusError | None) -> DownloadError:
        said = "each had expired when it came." if last is None else f"the last time, {_of_storage(last)}"
        failure = DownloadError(
            f"Page {page} of {self._total} could not be downloaded: {_LINKS} links to it were of no use; {said}",
            operation=OPERATION,
            request_id=None if last is None else last.request_id,
            attempts=() if last is None else last.attempts,
        )
        failure.page, failure.advice = page, f'{CONTINUES} via="csv" does without the storage.'
        return failure

    async def _damaged(self, page: int, damage: DamageError | None) -> DownloadError:
        rejected = await in_thread(self._folder.reject, page)
        self._journal.unfinished.pop(page, None)
        failure = DownloadError(
            f"Page {page} of {self._total} {damage}. It is not among the files; {rejected.name} is what came.",
            operation=OPERATION,
        )
        failure.page = page
        failure.advice = "What is finished stays; the same call tries this page again. Ask the service about it."
        return failure


def _of_storage(error: APIStatusError) -> str:
    what = ", a redirect, which is not followed" if 300 <= error.status <= 399 else ""
    said = f': "{error.said}"' if error.said else ""
    return f"the storage answered with HTTP {error.status}{what}{said}."


def disk_trouble(error: OSError, folder: Folder, *, page: int | None = None) -> DownloadError:
    """The error for a disk that refuses."""
    where = error.filename if isinstance(error.filename, str) else folder.path
    failure = DownloadError(f"{where} cannot be read or written: {error.strerror or error}.", operation=OPERATION)
    failure.page = page
    failure.advice = "Make room, or give the rights, then make the same call: it continues."
    return failure
