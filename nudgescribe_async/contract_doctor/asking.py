"""What the doctor asks, in its order: reads only, each with ids that were given or that an earlier answer has shown."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from attrs import define, field

from nudgescribe_async.codec import dumps
from nudgescribe_async.contract_doctor import counting
from nudgescribe_async.contract_doctor.comparing import opened, schema_at
from nudgescribe_async.contract_doctor.counting import Page
from nudgescribe_async.contract_doctor.recording import NotRecordedError
from nudgescribe_async.contract_doctor.report import Difference
from nudgescribe_async.contract_doctor.watching import LOGIN, NOTHING
from nudgescribe_async.errors import NudgescribeError
from nudgescribe_async.options import CallOptions
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.contract_doctor.comparing import Comparison
    from nudgescribe_async.contract_doctor.watching import Exchange, Watching

__all__ = ["Questions"]

GROUPS_LOOKED_AT: Final = 3
"""Groups whose pages are counted, until one has customers."""

LONG_AGO: Final = datetime(1990, 1, 1, tzinfo=UTC)
FAR_AHEAD: Final = datetime(2190, 1, 1, tzinfo=UTC)

_TOO_MANY: Final = 2**53
"""Such numbers of pages and runs are not asked for: no service means them."""

ONCE: Final = CallOptions(retries=0)


class EnoughError(Exception):
    """No more requests may be sent. It never leaves this package."""


@define
class Questions:
    """One round of questions.

    Attributes:
        unanswered: what was not answered as it should be.
        skipped: what could not be asked.
        not_recorded: requests that a recording does not have, and that were not sent anywhere.
        cut_short: whether there was more to ask when no more requests might be sent.
    """

    _ns: Nudgescribe
    _watching: Watching
    _comparison: Comparison
    _workspace: str | None
    _group: str | None
    _campaign: str | None
    _patience: float
    unanswered: list[str] = field(factory=list[str], init=False)
    skipped: list[str] = field(factory=list[str], init=False)
    not_recorded: int = field(default=0, init=False)
    cut_short: bool = field(default=False, init=False)
    _groups: list[str] = field(factory=list[str], init=False)

    async def login(self) -> None:
        """Log in, as everything else needs it.

        Raises:
            NudgescribeError: that was refused, or did not get as far as the service.
        """
        try:
            await self._ns.auth.authenticate()
        except NotRecordedError:
            self.not_recorded += 1
            self.unanswered.append(f"{LOGIN}: not in the recording, so nothing else was asked")
            return
        except NudgescribeError:
            for exchange in self._watching.exchanges:
                self._comparison.compare(exchange)
            if not self._comparison.findings():
                raise
            self.unanswered.append(f"{LOGIN}: no token was obtained, so nothing else was asked")
            return
        exchange = self._watching.exchanges[-1]
        self._comparison.compare(exchange)
        self._confirm_arguments(exchange)

    async def all(self) -> None:
        """Everything after the login."""
        try:
            await self._campaigns()
            await self._workspaces()
            await self._customers()
            await self._runs()
            await self._files()
        except EnoughError:
            self.cut_short = True
            if self._watching.left <= 0:
                self.skipped.append("what would have come next, since the limit of requests was reached")

    # --- campaigns ---------------------------------------------------------------------------------------------

    async def _campaigns(self) -> None:
        exchange = await self._ask("campaigns.list", lambda: self._ns.campaigns.list(options=ONCE))
        workspaces = self._items(exchange)
        campaigns = [(place, each) for place in workspaces for each in _objects(_get(place, "campaigns"))]
        if self._campaign is None:
            # One that has files shows more.
            best = [each for _, each in campaigns if str(_get(each, "campaign_status")).casefold() == "published"]
            self._campaign = _first_id([*best, *(each for _, each in campaigns)], "campaign_id")
        for place, each in campaigns:
            if _get(each, "campaign_id") == self._campaign:
                self._workspace = self._workspace or _first_id([place], "workspace_id")
                self._group = self._group or _first_id([each], "customer_group_id")
        self._workspace = self._workspace or _first_id(workspaces, "workspace_id")
        if any(_get(each, "published_at") for _, each in campaigns):
            ns = self._ns
            await self._window("published_from", lambda: ns.campaigns.list(published_from=FAR_AHEAD, options=ONCE))
            await self._window("published_to", lambda: ns.campaigns.list(published_to=LONG_AGO, options=ONCE))
        else:
            self.skipped.append("the window of campaigns.list, since no campaign was ever published")

    async def _window(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        """Whether one end of the window leaves campaigns out that it must."""
        exchange = await self._ask("campaigns.list", ask, arguments=False)
        if exchange is None or exchange.status != 200:
            return
        if any(_objects(_get(place, "campaigns")) for place in self._items(exchange)):
            expected = "only campaigns that were published then"
            self._comparison.find(Difference.IGNORED_ARGUMENT, f"({name})", expected, "others, too")
            self._contradict(exchange, name)
        else:
            self._confirm(exchange, name)

    async def _workspaces(self) -> None:
        self._groups = [self._group] if self._group else []
        workspace = self._workspace
        if workspace is None:
            self.skipped.append("customer_groups.list and profile_fields.list, since no workspace is known")
            return
        ns = self._ns
        exchange = await self._ask("customer_groups.list", lambda: ns.customer_groups.list(workspace, options=ONCE))
        groups = [_get(each, "customer_group_id") for each in self._items(exchange)]
        await self._ask("profile_fields.list", lambda: ns.profile_fields.list(workspace, options=ONCE))
        self._groups += [each for each in groups if isinstance(each, str) and each and each != self._group]

    # --- pages -------------------------------------------------------------------------------------------------

    async def _customers(self) -> None:
        if not self._groups:
            self.skipped.append("the pages of customers, since no group is known")
            return
        chosen, count = "", 0
        for chosen in self._groups[:GROUPS_LOOKED_AT]:
            ask = partial(self._ns.customers.count_pages, chosen, options=ONCE)
            count = _count(await self._ask("customers.count_pages", ask))
            if count:
                break

        async def page(number: int) -> Page | None:
            exchange = await self._ask(
                "customers.list",
                lambda: self._ns.customers.list(chosen, page=number, options=ONCE),
                refusable=True,
            )
            items = self._items(exchange)
            marks = tuple(str(_get(each, "customer_id") or dumps(each)) for each in items)
            return _unless_failed(exchange, Page(marks, len(items)))

        await self._pages("customers.list", count, page)

    async def _files(self) -> None:
        campaign = self._campaign
        if campaign is None:
            self.skipped.append("the files of messages, since no campaign is known")
            return
        ns = self._ns
        exchange = await self._ask("messages.count_pages", lambda: ns.messages.count_pages(campaign, options=ONCE))
        count = _count(exchange)
        if not count:
            self.skipped.append("messages.fetch, since the campaign has no file")
            return

        async def page(number: int) -> Page | None:
            exchange = await self._ask(
                "messages.fetch",
                lambda: ns.messages.fetch(campaign, number, format="url", options=ONCE),
                refusable=True,
            )
            link = _get(exchange.value, "url") if exchange is not None and exchange.status == 200 else None
            # The signature in it is another one each time.
            return _unless_failed(exchange, Page((_path(link),) if isinstance(link, str) else ()))

        first = await self._pages("messages.fetch", count, page)
        if first is None:
            return
        rows = await self._ask(
            "messages.fetch", lambda: ns.messages.fetch(campaign, first, format="json", options=ONCE), refusable=True
        )
        text = await self._ask(
            "messages.fetch", lambda: ns.messages.fetch(campaign, first, format="csv", options=ONCE), refusable=True
        )
        came = [each for each in (rows, text) if each is not None and each.status == 200]
        if len(came) == 2 and isinstance(came[0].value, list) and came[1].content_type == "text/csv":
            self._confirm(came[0], "format")

    async def _pages(self, operation: str, count: int, ask: Callable[[int], Awaitable[Page | None]]) -> int | None:
        """Find out how pages are counted; the number of the first one."""
        seen: dict[int, Page] = {}

        async def look(*numbers: int) -> bool:
            for number in numbers:
                if number not in seen:
                    page = await ask(number)
                    if page is None:
                        return False
                    seen[number] = page
            return True

        if not await look(0, 1):
            return None
        first = counting.first_page(seen)
        if first is None:
            self.skipped.append(f"how the pages of {operation} are counted, since there is none")
            return None
        if not count or not await look(*counting.wanted(first, count)):
            return first
        self._comparison.about(operation)
        node = self._body_of(operation)["page"]
        stated = int(node["x-first-page"]["value"])
        found = counting.judge(seen, first=first, stated=stated, count=count)
        for each in found:
            self._comparison.find(each.kind, "(page)", each.expected, each.received)
        pointer = (*self._body_pointer(operation), "properties", "page")
        if any(each.kind is Difference.PAGES_REPEATED for each in found):
            self._comparison.contradicted.add(pointer)
        else:
            self._comparison.confirmed.add(pointer)
            judged = self._comparison.confirmed if first == stated else self._comparison.contradicted
            judged.add((*pointer, "x-first-page"))
        size = seen[first].size
        if size is not None and count > 1:
            self._comparison.remarks.append(f"a page of {operation} has {size:,} items")
        return first

    # --- runs --------------------------------------------------------------------------------------------------

    async def _runs(self) -> None:
        campaign = self._campaign
        if campaign is None:
            self.skipped.append("the runs of a campaign, since none is known")
            return
        ns = self._ns
        exchange = await self._ask("reruns.history", lambda: ns.reruns.history(campaign, options=ONCE))
        runs = [_get(each, "run_number") for each in self._items(exchange)]
        numbers = [each for each in runs if isinstance(each, int) and not isinstance(each, bool)]
        if numbers != sorted(numbers, reverse=True):
            self._comparison.about("reruns.history")
            self._comparison.find(Difference.ORDER, "$", "the newest run first", "older runs before newer ones")
        await self._ask("reruns.messages", lambda: ns.reruns.messages(campaign, options=ONCE))
        if numbers and min(numbers) > 0 and max(numbers) < _TOO_MANY:
            newest, oldest = max(numbers), min(numbers)
            await self._ask("reruns.messages", lambda: ns.reruns.messages(campaign, oldest, options=ONCE))
            await self._ask("messages.count_pages", lambda: ns.messages.count_pages(campaign, newest, options=ONCE))

    # --- one question ------------------------------------------------------------------------------------------

    async def _ask(
        self,
        operation: str,
        ask: Callable[[], Awaitable[object]],
        *,
        refusable: bool = False,
        arguments: bool = True,
    ) -> Exchange | None:
        """Ask, and compare what came; ``None`` if nothing did.

        Args:
            operation: what is asked.
            ask: how.
            refusable: whether a refusal with 400 or 404 is as good an answer as any.
            arguments: whether a success confirms the names of the arguments.

        Raises:
            EnoughError: no more requests may be sent.
        """
        if self._watching.left <= 0:
            raise EnoughError
        if self._watching.waited >= self._patience:
            limit = f"{self._patience:g} s"
            self._note_unanswered(f"all answers together took more than {limit}, so nothing more was asked")
            raise EnoughError
        before = len(self._watching.exchanges)
        problem = ""
        try:
            await ask()
        except NudgescribeError as error:
            problem = type(error).__name__
        except NotRecordedError:
            # It is of another program, or of an examination that was interrupted.
            self.not_recorded += 1
            self._note_unanswered(f"{operation}: not in the recording")
            return None
        if len(self._watching.exchanges) == before:
            self._note_unanswered(f"{operation}: nothing came ({problem})")
            return None
        exchange = self._watching.exchanges[-1]
        await in_thread(self._comparison.compare, exchange)  # a page may be large
        if exchange.status == 200:
            if arguments:
                self._confirm_arguments(exchange)
        elif not (refusable and exchange.status in {400, 404}) and exchange.status in exchange.operation.statuses:
            self._note_unanswered(f"{operation}: refused with {exchange.status}")
        if exchange.status == 429:
            self._note_unanswered("the service asked for fewer requests, so nothing more was asked")
            raise EnoughError
        return exchange

    def _note_unanswered(self, text: str) -> None:
        if text not in self.unanswered:
            self.unanswered.append(text)

    def _items(self, exchange: Exchange | None) -> list[dict[str, Any]]:
        """The items of a list, out of an envelope if need be."""
        if exchange is None or exchange.status != 200 or exchange.value is NOTHING:
            return []
        contract = self._comparison.contract
        pointer, _ = contract.answer(exchange.operation, contract.choice(exchange.operation, exchange.body))
        value, _ = opened(schema_at(contract, pointer), exchange.value)
        return _objects(value)

    # --- arguments ---------------------------------------------------------------------------------------------

    def _body_pointer(self, operation: str) -> tuple[str | int, ...]:
        contract = self._comparison.contract
        return contract.body(next(each for each in contract.operations if each.name == operation))

    def _body_of(self, operation: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self._comparison.contract.at(self._body_pointer(operation))[1]["properties"])

    def _confirm_arguments(self, exchange: Exchange) -> None:
        """What was asked for was found by these arguments, so they are called so."""
        for name in exchange.body:
            if name not in {"page", "format", "published_from", "published_to"}:
                self._confirm(exchange, name)

    def _confirm(self, exchange: Exchange, name: str) -> None:
        self._comparison.confirmed.add((*self._body_pointer(exchange.operation.name), "properties", name))

    def _contradict(self, exchange: Exchange, name: str) -> None:
        self._comparison.contradicted.add((*self._body_pointer(exchange.operation.name), "properties", name))


def _get(value: object, name: str) -> Any:
    """A field of an object, whatever white space is around its key."""
    if not isinstance(value, dict):
        return None
    items = cast("dict[str, Any]", value)
    return next((item for key, item in items.items() if key.strip() == name), None)


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [cast("dict[str, Any]", each) for each in cast("list[object]", value) if isinstance(each, dict)]


def _first_id(values: list[dict[str, Any]], name: str) -> str | None:
    return next((found for each in values if isinstance(found := _get(each, name), str) and found), None)


def _count(exchange: Exchange | None) -> int:
    """How many pages there are; none if the answer does not say."""
    if exchange is None or exchange.status != 200:
        return 0
    found: object = exchange.value
    if isinstance(found, dict):
        pages = _get(exchange.value, "pages")
        found = pages if pages is not None else _get(exchange.value, "total_pages")
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found < _TOO_MANY else 0


def _path(link: str) -> str:
    """The path of a link, or of what is none all of it."""
    try:
        return urlsplit(link).path
    except ValueError:
        return link


def _unless_failed(exchange: Exchange | None, page: Page) -> Page | None:
    """The page; nothing if the answer says nothing of it, as that of a service in trouble."""
    if exchange is None or (exchange.status != 200 and exchange.status not in {400, 404, 416, 422}):
        return None
    return page
