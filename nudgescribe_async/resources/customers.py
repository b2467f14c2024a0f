"""``ns.customers``: the endpoints, and all customers of a group as one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.customers import COUNT_PAGES, LIST, CustomersEndpoints
from nudgescribe_async.options import CallOptions, bulk
from nudgescribe_async.paging import PageIterator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nudgescribe_async.endpoints.models import Customer
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
        options: CallOptions | None = None,
    ) -> PageIterator[Customer]:
        """All customers of a group, in the order of the service.

        Asks for the number of pages (``customers.count_pages``), then for the pages (``customers.list``),
        several at a time. Pages are no snapshot: customers that are added or removed meanwhile may be
        missed or come twice.

        Args:
            customer_group_id: the group.
            concurrency: the most requests in flight; the client's own limit holds as well.
            prefetch: the most pages ahead of the consumer; twice ``concurrency`` if left out.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            A ``PageIterator``: use it with ``async for``. Leaving the loop early cancels what is in flight.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """
        options = bulk(options)
        checked(_ITER, {"customer_group_id": customer_group_id})

        async def fetch(page: int) -> Answer:
            return await self._session.exchange(LIST, {"customer_group_id": customer_group_id, "page": page}, options)

        def decode(answer: Answer) -> Iterable[Customer]:
            return self._session.decode(LIST, answer)

        return PageIterator(
            operation=LIST.operation,
            count=lambda: self.count_pages(customer_group_id, options=options),
            fetch=fetch,
            decode=decode,
            concurrency=concurrency,
            prefetch=prefetch,
            events=self._session.events,
        )
