"""Customers and messages of the sandbox, read by iterators, on a real socket, while things change and break."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from operator import length_hint

import pytest

from nudgescribe_async import Customer, Nudgescribe, PageDriftError, PageError, PageIterator, RetryPolicy
from nudgescribe_async.events import PageFetched
from nudgescribe_async.message_file import Rows
from nudgescribe_async.sandbox import Sandbox, ShiftPages, Status

NUMBER = 230


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(page_size=10, rows_per_file=40) as running:
        await running.create_profile_field("external_id", "string")
        yield running


@pytest.fixture
async def ns(sandbox: Sandbox) -> AsyncIterator[Nudgescribe]:
    retry = RetryPolicy(attempts=2, base=0.001, longest=0.002)
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, retry=retry) as client:
        yield client


@pytest.fixture
async def group(sandbox: Sandbox) -> str:
    customers = [{"external_id": f"{number:05}"} for number in range(NUMBER)]
    return await sandbox.create_customer_group("g", customers=customers)


@pytest.fixture
async def ids(ns: Nudgescribe, group: str) -> list[str]:
    pages = range(1, await ns.customers.count_pages(group) + 1)
    found = [customer.customer_id for page in pages for customer in await ns.customers.list(group, page)]
    assert len(set(found)) == NUMBER
    return found


async def test_a_page_that_fails_for_good_and_the_rest_with_its_cursor(
    sandbox: Sandbox, ns: Nudgescribe, group: str, ids: list[str]
) -> None:
    # Pages 1 to 6 are answered, and the look at the last one; the next request is refused, and so are all after it.
    sandbox.inject(Status(400), operation="customers.list", skip=7, times=None)
    found = list[str]()
    with pytest.raises(PageError) as caught:
        await _into(found, ns.customers.iter(group, concurrency=1))
    sandbox.clear_faults()
    assert found == ids[:60]
    assert caught.value.cursor is not None
    rest = ns.customers.iter(group, resume_from=caught.value.cursor.to_json(), consistency="strict")
    assert [*found, *[customer.customer_id async for customer in rest]] == ids


async def test_a_cursor_fits_its_own_query_alone(ns: Nudgescribe, sandbox: Sandbox, group: str) -> None:
    another = await sandbox.create_customer_group("another")
    cursor = ns.customers.iter(group).cursor
    ns.customers.iter(group, resume_from=cursor)
    for refused in (
        lambda: ns.customers.iter(another, resume_from=cursor),
        lambda: ns.messages.iter(group, resume_from=cursor),
        lambda: ns.messages.iter("c", 2, resume_from=ns.messages.iter("c", 1).cursor),
    ):
        with pytest.raises(ValueError, match="a cursor of another query"):
            refused()
    elsewhere = Nudgescribe(sandbox.credentials, base_url="https://another.example")
    with pytest.raises(ValueError, match="another address"):
        elsewhere.customers.iter(group, resume_from=cursor)


@pytest.mark.parametrize("shift", [5, -5])
@pytest.mark.parametrize("consistency", ["warn", "dedupe", "strict"])
async def test_pages_that_shift_on_the_way(
    sandbox: Sandbox, ns: Nudgescribe, group: str, ids: list[str], shift: int, consistency: str
) -> None:
    sandbox.inject(ShiftPages(shift), operation="customers.list", skip=10)
    stream = ns.customers.iter(group, concurrency=1, consistency=consistency)  # type: ignore[arg-type]
    if consistency == "strict":
        with pytest.raises(PageDriftError):
            await _ids(stream)
        return
    found = await _ids(stream)
    report = stream.report
    if shift < 0:  # five were added in front: five come again
        assert report.repeated == 5
        assert len(found) == len(set(found)) + (5 if consistency == "warn" else 0)
        assert report.drift[0].startswith("At least 5 items" if consistency == "warn" else "5 items")
    else:  # five are gone from the front, and five were missed, which shows at the end alone
        assert len(found) == NUMBER - 5
        assert report.repeated == 0
    assert report.drift


async def _into(found: list[str], stream: PageIterator[Customer]) -> None:
    async for customer in stream:
        found.append(customer.customer_id)  # noqa: PERF401 - what was found before an error stays


async def _ids(stream: PageIterator[Customer]) -> list[str]:
    return [customer.customer_id async for customer in stream]


async def test_really_deleted_and_really_added_while_it_reads(
    sandbox: Sandbox, ns: Nudgescribe, group: str, ids: list[str]
) -> None:
    stream = ns.customers.iter(group, concurrency=1, prefetch=1)
    found = list[str]()
    async for page in stream.pages():
        found += [customer.customer_id for customer in page.items]
        if page.number == 5:
            await ns.customers.delete(group, ids[:12])
            await ns.customers.check(
                sandbox.workspace_id, group, customers=[{"external_id": f"new {number}"} for number in range(25)]
            )
    assert stream.report.complete
    assert stream.report.total == 23
    assert stream.report.total_at_end == 25
    assert "There were 23 pages at the start, and 25 at the end." in stream.report.drift
    assert len(found) == 230
    missed = set(ids) - set(found)
    assert len(missed) == 12  # nobody can see who


@pytest.fixture
async def campaign(sandbox: Sandbox, group: str) -> str:
    return await sandbox.create_campaign("c", group)


async def test_messages_go_on_within_a_file(ns: Nudgescribe, campaign: str) -> None:
    everything = [row async for row in ns.messages.iter(campaign)]
    assert len(everything) == NUMBER
    stream = ns.messages.iter(campaign)
    first = [await anext(stream) for _ in range(95)]
    await stream.aclose()
    assert stream.cursor.part == (3, 15)
    assert stream.report.items == 95
    rest = [row async for row in ns.messages.iter(campaign, resume_from=stream.cursor)]
    assert [*first, *rest] == everything


async def test_progress_on_a_socket(ns: Nudgescribe, campaign: str) -> None:
    told = list[PageFetched]()
    ns.events.subscribe(lambda event: told.append(event) if isinstance(event, PageFetched) else None)
    stream = ns.messages.iter(campaign, order="completion")
    assert len([row async for row in stream]) == NUMBER
    assert [(event.done, event.total) for event in told] == [(done, 6) for done in range(1, 7)]
    assert told[-1].items == stream.report.items == NUMBER
    assert stream.report.drift == ()


# --- rows ------------------------------------------------------------------------------------------------------------

AWKWARD = [
    ["plain", "1"],
    ['with "quotes"', "line\r\nbreak"],
    ["\u2028 and \x0b, no ends of lines", "\x1c\x1d\x1e\x85"],
    ["", " "],
    ["last", "'"],
]


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_rows_are_made_as_they_are_asked_for_and_are_those_of_the_csv_module(end: str, mark: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([["a", "b"], *AWKWARD * 200])
    rows = Rows(mark + text.getvalue())
    assert len(rows) == 1_000
    assert [[*row.values()] for row in rows] == AWKWARD * 200
    assert {tuple(row) for row in rows} == {("a", "b")}
    iterator = iter(rows)
    for left in range(1_000, 0, -1):
        assert length_hint(iterator) == left
        next(iterator)
    assert (length_hint(iterator), next(iterator, None)) == (0, None)
    assert {"a": "plain", "b": "1"} in rows
    assert {"a": "plain", "b": "2"} not in rows


def test_lines_may_end_as_on_old_machines() -> None:
    assert [*Rows("a,b\r1,2\r3,4")] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_empty_lines_are_no_rows() -> None:
    rows = Rows("a,b\r\n\r\n1,2\r\n\r\n\r\n3,4\r\n\r\n")
    assert (len(rows), [*rows]) == (2, [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}])
