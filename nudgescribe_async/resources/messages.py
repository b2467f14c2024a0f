"""``ns.messages``: the endpoints, and all rows of a campaign's message files as one stream."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve

from nudgescribe_async.cursor import digest
from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.messages import COUNT_PAGES, FETCH_CSV, MessagesEndpoints
from nudgescribe_async.engines import load_engine
from nudgescribe_async.errors import ResponseDecodeError
from nudgescribe_async.message_file import Rows
from nudgescribe_async.options import CallOptions, bulk
from nudgescribe_async.paging import PageIterator, PageSource

if TYPE_CHECKING:
    import os

    from nudgescribe_async.bulk.download import DownloadReport
    from nudgescribe_async.bulk.download.report import Via
    from nudgescribe_async.consistency import Consistency
    from nudgescribe_async.cursor import PageCursor
    from nudgescribe_async.page_window import Order
    from nudgescribe_async.reading import Answer

_ITER = evolve(COUNT_PAGES, operation="messages.iter")  # so that errors name what was called

__all__ = ["Messages"]


class Messages(MessagesEndpoints):
    """Publishing the messages of a campaign, and reading what was published."""

    __slots__ = ()

    def iter(
        self,
        campaign_id: str,
        run_number: int | None = None,
        *,
        concurrency: int = 8,
        prefetch: int | None = None,
        order: Order = "page",
        consistency: Consistency = "warn",
        resume_from: PageCursor | str | None = None,
        options: CallOptions | None = None,
    ) -> PageIterator[dict[str, str]]:
        """All published messages of a campaign, one row of its CSV files after the other.

        Asks for the number of files (``messages.count_pages``) and, several at a time, for the files as CSV
        (``messages.fetch``); at the end, for their number once more. The parsed JSON of the service is not used,
        since it is cut at 1,000 rows without notice. Each file is checked as a whole before its first row is handed
        out.

        Args:
            campaign_id: the campaign.
            run_number: a run in the campaign's history; left out, the current run.
            concurrency: the most requests in flight; the client's own limit holds as well.
            prefetch: the most files ahead of the consumer; twice ``concurrency`` if left out.
            order: ``"page"``, or ``"completion"``: whichever file comes first.
            consistency: ``"warn"`` logs and reports another number of files at the end than at the start, and a file
                without rows; ``"strict"`` raises ``PageDriftError``. Rows have no documented id, so ``"dedupe"`` is as
                ``"warn"``.
            resume_from: the cursor of an earlier iteration over the same messages, or its JSON.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            A ``PageIterator`` of rows, each a mapping of column to text: use it with ``async for``. Leaving the
            loop early cancels what is in flight.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """
        options = bulk(options)
        which = checked(_ITER, {"campaign_id": campaign_id, "run_number": run_number})

        async def fetch(page: int) -> Answer:
            return await self._session.exchange(FETCH_CSV, {**which, "page": page, "format": "csv"}, options)

        def decode(answer: Answer) -> Rows:
            try:
                return Rows(self._session.decode(FETCH_CSV, answer))
            except ResponseDecodeError as error:
                error.request_id, error.attempts = answer.request_id, answer.attempts
                raise

        return PageIterator(
            PageSource(
                operation=FETCH_CSV.operation,
                count=partial(self._session.call, COUNT_PAGES, which, options),
                fetch=fetch,
                decode=decode,
                query=digest(FETCH_CSV.operation, self._session.base_url, which, self._session.first_page(FETCH_CSV)),
                first_page=self._session.first_page(FETCH_CSV),
                weigh=lambda answer: len(answer.body),
            ),
            concurrency=concurrency,
            prefetch=prefetch,
            order=order,
            consistency=consistency,
            resume_from=resume_from,
            events=self._session.events,
        )

    async def download(
        self,
        campaign_id: str,
        directory: str | os.PathLike[str],
        run_number: int | None = None,
        *,
        concurrency: int = 4,
        via: Via = "url",
        overwrite: bool = False,
        options: CallOptions | None = None,
    ) -> DownloadReport:
        """All message files of a campaign, each whole and checked, into a directory.

        A page is a file, ``page-00001.csv`` and so on, as it was published, byte for byte. It is streamed to
        ``page-00001.csv.partial``, and renamed when its length, the checksums that came with it, and its rows are
        right; so what has the name of a page is a page. ``manifest.json`` says what is there, and is the journal
        meanwhile: the same call again, also after the process was killed, skips the files that are finished and
        unchanged, and continues the others. Memory does not grow with the size of a file, and nothing blocks the
        event loop.

        Files of the current run come by signed URL from the storage, which gets no token, key or other header of
        yours; those of a run that is named, or if the service has no signed URLs to give, come from the service
        itself. Asks which run is the current one at the start and at the end, so that files of two runs are never
        mixed. A ``PageFetched`` tells of each file that is in its place.

        One call at a time may work in a directory, in whichever process. Cancelling returns when no task, file or
        connection is left; closing the client ends it with ``ClientClosedError``. Either way the same call continues.

        A run without files is an error, and changes nothing. Files that are replaced, with ``overwrite`` or since the
        run has another number of files, stay until the first new one is whole, and the last of them until all are.

        Args:
            campaign_id: the campaign.
            directory: where the files go; it and its parents are made if they are not there, once the service has said
                that there are files.
            run_number: a run in the campaign's history; left out, the current run.
            concurrency: the most files under way; the client's own limit holds as well.
            via: ``"url"``: by signed URL where possible; ``"csv"``: always from the service itself.
            overwrite: whether the files of a download of something else that the directory holds may be replaced.
                What the directory holds of the same run is continued nevertheless.
            options: timeout, retries and headers of each request; the headers go to the service alone. Their
                priority is ``"bulk"`` if none is given.

        Returns:
            A ``DownloadReport``: every file with its rows, bytes and SHA-256, and what was noticed.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right, or ``directory`` is a file.
            DownloadError: a file could not be had or kept (``page`` says which, ``__cause__`` why); the number of files
                or the current run could not be had (``__cause__`` says why); there are no files; the directory holds
                something else, or is in use; the campaign was rerun meanwhile.
            AuthenticationError: there is no token to be had.
            ConfigurationError: the client belongs to another event loop, or this platform has no file locks.
            ClientClosedError: the client is closed, or was closed meanwhile.
        """
        await load_engine("nudgescribe_async.bulk.download.job")
        from nudgescribe_async.bulk.download.job import download  # noqa: PLC0415 - see engines.py

        return await download(
            self._session,
            campaign_id,
            directory,
            run_number,
            concurrency=concurrency,
            via=via,
            overwrite=overwrite,
            options=options,
        )
