"""Pages that count from 0, should the contract be wrong: on a real socket, against a sandbox that counts so."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from helpers import CREDENTIALS

from nudgescribe_async import BadRequestError, ConfigurationError, Customer, Nudgescribe
from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.customers import COUNT_PAGES, LIST
from nudgescribe_async.endpoints.messages import FETCH_CSV, FETCH_JSON, FETCH_URL
from nudgescribe_async.sandbox import Sandbox

PEOPLE = [str(number) for number in range(8)]


@asynccontextmanager
async def service(
    first_page: int | None, *, client: int | None
) -> AsyncIterator[tuple[Nudgescribe, Sandbox, str, str]]:
    """Eight customers on pages of three, and their messages in files of three."""
    async with Sandbox(first_page=first_page, page_size=3, rows_per_file=3) as sandbox:
        await sandbox.create_profile_field("external_id", "string")
        group = await sandbox.create_customer_group("g", customers=[{"external_id": name} for name in PEOPLE])
        campaign = await sandbox.create_campaign("c", group, status="Published")
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, first_page=client) as ns:
            yield ns, sandbox, group, campaign


def names(sandbox: Sandbox, customers: list[Customer]) -> list[str]:
    return [str(sandbox.decrypt(item.customer_id, item.extended_profile)["external_id"]) for item in customers]


@pytest.mark.parametrize("first", [0, 1, None])
async def test_pages_of_customers_count_from_there(first: int | None) -> None:
    async with service(first, client=first) as (ns, sandbox, group, _):
        number = 1 if first is None else first
        pages = [names(sandbox, await ns.customers.list(group, page=number + index)) for index in range(4)]
        assert pages == [PEOPLE[:3], PEOPLE[3:6], PEOPLE[6:], []]
        assert names(sandbox, await ns.customers.list(group)) == PEOPLE[:3]
        assert [record.body["page"] for record in sandbox.log if record.operation == "customers.list"] == [
            *range(number, number + 4),
            number,  # the first page is what is sent, not what is left to the service
        ]
        assert await ns.customers.count_pages(group) == 3  # how many there are is no number of a page


@pytest.mark.parametrize("first", [0, 1])
async def test_files_of_messages_count_from_there(first: int) -> None:
    async with service(first, client=first) as (ns, _, _, campaign):
        assert await ns.messages.count_pages(campaign) == 3
        texts = [await ns.messages.fetch(campaign, first + index) for index in range(3)]
        assert [[row["external_id"] for row in csv.DictReader(io.StringIO(text))] for text in texts] == [
            PEOPLE[:3],
            PEOPLE[3:6],
            PEOPLE[6:],
        ]
        rows = [await ns.messages.fetch(campaign, first + index, format="json") for index in range(3)]
        assert [row["external_id"] for page in rows for row in page] == PEOPLE
        assert (await ns.messages.fetch(campaign, first, format="url")).url
        with pytest.raises(BadRequestError, match="no such page"):
            await ns.messages.fetch(campaign, first + 3)


@pytest.mark.parametrize(("client", "below"), [(0, -1), (1, 0), (None, 0), (None, -3)])
async def test_a_page_before_the_first_is_refused_and_nothing_is_sent(client: int | None, below: int) -> None:
    async with service(0, client=client) as (ns, sandbox, group, campaign):
        for call in (ns.customers.list(group, page=below), ns.messages.fetch(campaign, below)):
            with pytest.raises(ValueError, match=rf"page must be at least {client or (0 if client == 0 else 1)}, not"):
                await call
        assert not list(sandbox.log)


async def test_a_client_that_counts_otherwise_than_the_service_is_told_so_or_reads_the_wrong_page() -> None:
    async with service(1, client=0) as (ns, _, group, _):
        with pytest.raises(BadRequestError, match="page must be at least 1"):
            await ns.customers.list(group)
    async with service(0, client=None) as (ns, sandbox, group, _):
        assert names(sandbox, await ns.customers.list(group)) == PEOPLE[3:6]


@pytest.mark.parametrize("wrong", [2, -1, True, False, 0.0, "0"])
def test_another_first_page_is_a_mistake(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^first_page must be 0 or 1; got"):
        Nudgescribe(CREDENTIALS, first_page=wrong)


def test_the_session_knows_from_where_to_count() -> None:
    for first, expected in ((None, 1), (0, 0), (1, 1)):
        session = Nudgescribe(CREDENTIALS, first_page=first)._session
        assert [session.first_page(endpoint) for endpoint in (LIST, FETCH_CSV, FETCH_JSON, FETCH_URL)] == [expected] * 4
    assert (LIST.first_page, FETCH_CSV.first_page, COUNT_PAGES.first_page) == (1, 1, None)


def test_the_first_page_is_filled_in_only_where_a_page_may_be_left_out() -> None:
    assert checked(LIST, {"customer_group_id": "g"}) == {"customer_group_id": "g", "page": 1}
    assert checked(LIST, {"customer_group_id": "g", "page": None}, first_page=0)["page"] == 0
    with pytest.raises(TypeError, match="page must be a whole number, not None"):
        checked(FETCH_CSV, {"campaign_id": "c", "format": "csv"}, first_page=0)
    assert checked(COUNT_PAGES, {"customer_group_id": "g"}, first_page=0) == {"customer_group_id": "g"}


@pytest.mark.parametrize("first", [0, 1])
async def test_iterators_begin_at_the_first_page_and_miss_none(first: int) -> None:
    async with service(first, client=first) as (ns, sandbox, group, campaign):
        assert names(sandbox, [item async for item in ns.customers.iter(group)]) == PEOPLE
        assert [row["external_id"] async for row in ns.messages.iter(campaign)] == PEOPLE
        for operation in ("customers.list", "messages.fetch"):
            asked = {record.body["page"] for record in sandbox.log if record.operation == operation}
            assert asked == {first, first + 1, first + 2}
