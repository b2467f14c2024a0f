"""A sandbox whose pages count from 0: its answers, its refusals, and the contract that it serves."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from nudgescribe_async.sandbox import Sandbox
from nudgescribe_async.sandbox.__main__ import main

Start = Callable[..., Awaitable[Any]]
PEOPLE = [{"external_id": str(number)} for number in range(5)]


@pytest.mark.parametrize("first", [0, 1])
async def test_pages_count_from_where_it_was_told(start: Start, first: int) -> None:
    api = await start(first_page=first, page_size=2, rows_per_file=2)
    group = await api.group(PEOPLE, external_id="string")
    sizes = [
        len(await api.ok("POST", "/v1/customer", customer_group_id=group, page=first + index)) for index in range(4)
    ]
    assert sizes == [2, 2, 1, 0]
    assert len(await api.ok("POST", "/v1/customer", customer_group_id=group, page=float(first))) == 2
    campaign = await api.sandbox.create_campaign("c", group, status="Published")
    rows = [
        await api.ok("POST", "/v1/messages/fetch", campaign_id=campaign, page=first + index, format="json")
        for index in range(3)
    ]
    assert [[row["external_id"] for row in page] for page in rows] == [["0", "1"], ["2", "3"], ["4"]]


@pytest.mark.parametrize("first", [0, 1])
async def test_a_page_before_the_first_is_refused(start: Start, first: int) -> None:
    api = await start(first_page=first)
    group = await api.group(PEOPLE, external_id="string")
    for path, body in (("/v1/customer", {"customer_group_id": group}), ("/v1/messages/fetch", {"campaign_id": "c"})):
        answer = await api.call("POST", path, **body, page=first - 1)
        assert answer.status == 400
        assert answer.message == f"Bad Request: page must be at least {first}"


async def test_the_log_has_the_page_as_it_was_sent(start: Start) -> None:
    api = await start(first_page=0)
    group = await api.group(PEOPLE, external_id="string")
    await api.ok("POST", "/v1/customer", customer_group_id=group, page=0)
    assert api.sandbox.log[-1].body == {"customer_group_id": group, "page": 0}


@pytest.mark.parametrize(("option", "first"), [(None, 1), (1, 1), (0, 0)])
async def test_the_contract_that_it_serves_says_so(option: int | None, first: int) -> None:
    async with (
        Sandbox(first_page=option) as sandbox,
        aiohttp.ClientSession(sandbox.url) as http,
        http.get("/openapi.json") as response,
    ):
        document = json.loads(await response.read())
    schemas = document["components"]["schemas"]
    for name in ("ListCustomersBody", "FetchMessagesBody"):
        page = schemas[name]["properties"]["page"]
        assert (page["x-first-page"]["value"], page["minimum"], page.get("default", first)) == (first, first, first)
    assert schemas["CountMessagePagesBody"]["properties"]["run_number"]["minimum"] == 1


@pytest.mark.parametrize(("wrong", "kind"), [(2, ValueError), (-1, ValueError), (True, TypeError), ("0", TypeError)])
def test_another_first_page_is_a_mistake(wrong: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="first_page must be"):
        Sandbox(first_page=wrong)


def test_the_command_refuses_it_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--first-page", "2"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("error: first_page must be 0 or 1, not 2")
