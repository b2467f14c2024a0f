"""``ns.messages``: the endpoints, and all rows of a campaign's message files as one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.messages import COUNT_PAGES, FETCH_CSV, MessagesEndpoints
from nudgescribe_async.errors import ResponseDecodeError
from nudgescribe_async.message_file import read_rows
from nudgescribe_async.options import CallOptions, bulk
from nudgescribe_async.paging import PageIterator

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        options: CallOptions | None = None,
    ) -> PageIterator[dict[str, str]]:
        """All published messages of a campaign, one row of its CSV files after the other.

        Asks for the number of files (``messages.count_pages``), then for the files as CSV
        (``messages.fetch``), several at a time. The parsed JSON of the service is not used, since it is cut at
        1,000 rows without notice.

        Args:
            campaign_id: the campaign.
            run_number: a run in the campaign's history; left out, the current run.
            concurrency: the most requests in flight; the client's own limit holds as well.
            prefetch: the most files ahead of the consumer; twice ``concurrency`` if left out.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            A ``PageIterator`` of rows, each a mapping of column to text: use it with ``async for``. Leaving the
            loop early cancels what is in flight.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """
        which = {"campaign_id": campaign_id, "run_number": run_number}
        options = bulk(options)
        checked(_ITER, which)

        async def fetch(page: int) -> Answer:
            return await self._session.exchange(FETCH_CSV, {**which, "page": page, "format": "csv"}, options)

        def decode(answer: Answer) -> Iterable[dict[str, str]]:
            text = self._session.decode(FETCH_CSV, answer)
            try:
                return read_rows(text)
            except ResponseDecodeError as error:
                error.request_id, error.attempts = answer.request_id, answer.attempts
                raise

        return PageIterator(
            operation=FETCH_CSV.operation,
            count=lambda: self.count_pages(campaign_id, run_number, options=options),
            fetch=fetch,
            decode=decode,
            concurrency=concurrency,
            prefetch=prefetch,
            events=self._session.events,
        )
