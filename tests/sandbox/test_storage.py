from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import aiohttp
import pytest

FETCH = "/v1/messages/fetch"


@pytest.fixture
async def link(api: Any) -> str:
    return await signed(api)


async def signed(api: Any) -> str:
    group = await api.group([{"n": n} for n in range(5)], n="number")
    campaign = await api.sandbox.create_campaign("c", group)
    answer = await api.ok("POST", FETCH, campaign_id=campaign, page=1, format="url")
    assert answer["expires_in"] == int(api.sandbox._settings.url_lifetime)
    return str(answer["url"])


async def get(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
    async with aiohttp.ClientSession() as http, http.request(method, url, headers=headers) as response:
        assert response.headers["x-request-id"]
        return response.status, await response.read(), response.headers


async def test_a_signed_url_needs_nothing_else(api: Any, link: str) -> None:
    status, body, headers = await get(link)

    assert status == 200
    assert body.startswith(b"customer_id,external_id,segment,message\r\n")
    assert headers["Content-Type"] == "text/csv; charset=utf-8"


async def test_the_storage_is_another_origin(api: Any, link: str) -> None:
    assert link.startswith(api.sandbox.storage_url + "/")
    assert api.sandbox.storage_url != api.sandbox.url
    assert (await get(link.replace(api.sandbox.storage_url, api.sandbox.url)))[0] == 404


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "X-Auth-Context", "Cookie"])
async def test_credentials_that_leak_are_noticed(link: str, name: str) -> None:
    status, body, _ = await get(link, **{name: "x"})

    assert status == 400
    assert body.decode().lower().endswith(name.lower())


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("signature=.", "signature=x"),
        ("signature=.*", "signature="),
        ("[?].*", ""),
        ("expires=[0-9]+", "expires=9999999999"),
        ("expires=[^&]+", "expires=%ff"),
        ("expires=[^&]+", "expires=nan"),
        ("files/.", "files/z"),
        ("signature=.*", "signature=%c3%a9"),
    ],
)
async def test_a_forged_url_is_refused(link: str, pattern: str, replacement: str) -> None:
    forged = re.sub(pattern, replacement, link)

    assert forged != link
    assert (await get(forged))[0] == 403


async def test_an_expired_url_is_refused(start: Any) -> None:
    api = await start(url_lifetime=0)

    status, body, _ = await get(await signed(api))

    assert (status, body) == (403, b"The URL has expired")


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=10-", 206, slice(10, None)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=0-999999", 206, slice(0, None)),
        ("bytes=999999-", 416, slice(0, 0)),
        ("nonsense", 416, slice(0, 0)),
    ],
)
async def test_ranges_are_served(link: str, wanted: str, status: int, part: slice) -> None:
    _, whole, _ = await get(link)
    found, body, headers = await get(link, Range=wanted)

    assert found == status
    assert body == whole[part]
    assert headers["Content-Range"].endswith(f"/{len(whole)}")


async def test_a_file_that_did_not_change_is_not_sent_again(link: str) -> None:
    _, whole, headers = await get(link)

    assert (await get(link, **{"If-None-Match": headers["ETag"]}))[:2] == (304, b"")
    assert (await get(link, **{"Range": "bytes=0-4", "If-Range": headers["ETag"]}))[0] == 206
    assert (await get(link, **{"Range": "bytes=0-4", "If-Range": '"other"'}))[:2] == (200, whole)
    assert (await get(link, "HEAD"))[:2] == (200, b"")


async def test_the_checksum_of_the_whole_file_comes_with_every_part_of_it(link: str) -> None:
    _, whole, headers = await get(link)
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(whole).digest()).decode()}:"

    assert headers["Repr-Digest"] == digest
    assert (await get(link, Range="bytes=3-9"))[2]["Repr-Digest"] == digest
    assert (await get(link, "HEAD"))[2]["Repr-Digest"] == digest
    assert "Repr-Digest" not in (await get(link, Range="bytes=999999-"))[2]


async def test_requests_to_the_storage_are_logged_without_the_signature(api: Any, link: str) -> None:
    await get(link)

    record = api.sandbox.log[-1]
    assert (record.origin, record.operation, record.status) == ("storage", None, 200)
    assert "signature" not in repr(record)


async def test_other_paths_and_methods_of_the_storage(api: Any, link: str) -> None:
    assert (await get(api.sandbox.storage_url))[0] == 404
    assert (await get(link, "POST"))[0] == 405
