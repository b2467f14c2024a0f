"""``ns.customers``: the endpoints, and all customers of a group as one stream."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from attrs import evolve

from nudgescribe_async.cursor import digest
from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.customers import COUNT_PAGES, LIST, CustomersEndpoints
from nudgescribe_async.options import CallOptions, bulk
from nudgescribe_async.paging import PageIterator, PageSource

if TYPE_CHECKING:
    from nudgescribe_async.consistency import Consistency
    from nudgescribe_async.cursor import PageCursor
    from nudgescribe_async.endpoints.models import Customer
    from nudgescribe_async.page_window import Order
    from nudgescribe_async.reading import Answer

_ITER = evolve(COUNT_PAGES, operation="customers.iter")  # so that errors name what was called

__all__ = ["Customers"]


class Customers(CustomersEndpoints):
    """The customers of one customer group, page by page or all in one stream, up and down."""

    __slots__ = ()

    def iter(
        self,
        customer_group_id: str,
        *,
        concurrency: int = 8,
        prefetch: int | None = None,
        order: Order = "page",
        consistency: Consistency = "warn",
        resume_from: PageCursor | str | None = None,
        options: CallOptions | None = None,
    ) -> PageIterator[Customer]:
        """All customers of a group, in the order of the service.

        Asks for the number of pages (``customers.count_pages``) and, several at a time, for the pages
        (``customers.list``); at the end, for the number of pages once more. Pages are no snapshot: of customers
        that are added or removed meanwhile, some may be missed or come twice. What is noticed of that is in the
        ``report`` of the iterator; ``consistency`` says what to do about it.

        Args:
            customer_group_id: the group.
            concurrency: the most requests in flight; the client's own limit holds as well.
            prefetch: the most pages ahead of the consumer; twice ``concurrency`` if left out.
            order: ``"page"``, or ``"completion"``: whichever page comes first.
            consistency: ``"warn"`` logs and reports changes, and looks for customers who came before on the last 16
                pages, in memory that does not grow. ``"dedupe"`` lets no customer come twice, and ``"strict"`` raises
                ``PageDriftError`` at the first change; both keep every id (about 120 MB for a million).
            resume_from: the cursor of an earlier iteration over the same group, or its JSON.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            A ``PageIterator``: use it with ``async for``. Leaving the loop early cancels what is in flight.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """
        options = bulk(options)
        group = checked(_ITER, {"customer_group_id": customer_group_id})

        async def fetch(page: int) -> Answer:
            return await self._session.exchange(LIST, {**group, "page": page}, options)

        return PageIterator(
            PageSource(
                operation=LIST.operation,
                count=partial(self._session.call, COUNT_PAGES, group, options),
                fetch=fetch,
                decode=partial(self._session.decode, LIST),
                query=digest(LIST.operation, self._session.base_url, group, self._session.first_page(LIST)),
                first_page=self._session.first_page(LIST),
                identify=attrgetter("customer_id"),
                even=True,
                weigh=lambda answer: len(answer.body),
            ),
            concurrency=concurrency,
            prefetch=prefetch,
            order=order,
            consistency=consistency,
            resume_from=resume_from,
            events=self._session.events,
        )
