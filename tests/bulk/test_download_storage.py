"""Files by signed URL: what the storage is told, what is believed of it, and how a file is continued."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from helpers import CREDENTIALS, names, watch
from message_shop import QUICK, SIGNATURE, Shop, break_off, serve_with_ranges, table

from nudgescribe_async import (
    APIStatusError,
    CallOptions,
    DownloadError,
    Nudgescribe,
    OutcomeUnknownError,
    RequestNotSentError,
    ResponseDecodeError,
)
from nudgescribe_async.bulk.download.digests import offered
from nudgescribe_async.bulk.download.links import problem_of
from nudgescribe_async.events import RequestRetrying
from nudgescribe_async.sandbox import Sandbox, Status
from nudgescribe_async.testing import Close, FaultProxy, Reset, Truncate
from nudgescribe_async.transport import Headers

FILE = table(12_000)  # more than three batches
RANGES = {"ETag": '"one"', "Accept-Ranges": "bytes", "Content-Type": "text/csv"}


def shop_of(*files: bytes) -> Shop:
    return Shop(files or (FILE,))


async def failure(shop: Shop, directory: Path, **options: Any) -> DownloadError:
    async with shop.client() as ns:
        with pytest.raises(DownloadError) as caught:
            await ns.messages.download("c", directory, **options)
    return caught.value


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("page"))


# --- what the storage is told ------------------------------------------------------------------------------------------


async def test_the_storage_gets_nothing_of_the_user(tmp_path: Path) -> None:
    async with shop_of() as shop:
        ns = shop.client(api_code="code-MARKED", client_address="192.0.2.7")
        async with ns:
            await ns.messages.download("c", tmp_path, options=CallOptions(headers={"x-gateway-key": "gateway-MARKED"}))
        (_, _, headers, body) = shop.storage.requests[0]
        known = {name.lower() for name in headers}
        service = {name.lower() for _, _, headers, _ in shop.service.calls for name in headers}

    assert {"authorization", "x-auth-context", "x-ip", "x-gateway-key"} <= service
    assert known == {"host", "accept", "user-agent", "accept-encoding"}
    assert headers["Accept-Encoding"] == "identity"
    assert "MARKED" not in repr(headers).replace(SIGNATURE, "")
    assert body == b""


async def test_a_storage_that_refuses_says_nothing_of_the_token(tmp_path: Path) -> None:
    async with shop_of() as shop:
        for status in (401, 403):

            async def serve(_: web.Request, __: int, status: int = status) -> web.Response:
                return web.Response(status=status, text=f"no: {SIGNATURE}/= {SIGNATURE}%2F%3D")

            shop.serve = serve
            error = await failure(shop, tmp_path)
            assert f"the storage answered with HTTP {status}" in str(error)
            assert SIGNATURE not in str(error)
        assert shop.logins == 2, "one for each client"
        assert shop.links == 8, "four for each"
        assert len(shop.storage.requests) == 8, "no link was tried twice"


async def test_too_many_requests_at_the_storage_pause_nobody_else(tmp_path: Path) -> None:
    async with shop_of(FILE, FILE) as shop, shop.client() as ns:
        events = watch(ns)

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            if len(shop.storage.requests) == 1:
                return web.Response(status=429, headers={"Retry-After": "0.05"})
            return await serve_with_ranges(request, FILE)

        shop.serve = serve
        report = await ns.messages.download("c", tmp_path)

    assert report.pages == 2
    waits = [event.after for event in events if isinstance(event, RequestRetrying)]
    assert len(waits) == 1
    assert waits[0] >= 0.05
    assert "RequestsPaused" not in names(events)


# --- links -------------------------------------------------------------------------------------------------------------


async def test_an_expired_link_is_replaced_by_a_fresh_one(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        group = await sandbox.create_customer_group("g", customers=[{}])
        campaign = await sandbox.create_campaign("c", group)
        storage = sandbox._now.api._storage
        lifetimes = iter((0.001, 0.001, 60.0))
        sign = storage.sign

        def signed(file_id: str) -> dict[str, object]:
            storage._lifetime = next(lifetimes)
            link = sign(file_id)
            time.sleep(0.005)
            return link | {"expires_in": 3_600}  # which is not true

        storage.sign = signed  # type: ignore[method-assign]
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, retry=QUICK) as ns:
            report = await ns.messages.download(campaign, tmp_path)

    assert report.rows == 1
    assert report.notes == ()
    assert [(record.operation, record.status) for record in sandbox.log if record.origin == "storage"] == [
        (None, 403),
        (None, 403),
        (None, 200),
    ]


@pytest.mark.parametrize("status", [400, 403, 404, 410])
async def test_links_that_are_refused_for_ever_are_few(tmp_path: Path, status: int) -> None:
    async with shop_of() as shop:

        async def serve(_: web.Request, __: int) -> web.Response:
            return web.Response(status=status, text="gone", headers={"x-request-id": "at-the-storage"})

        shop.serve = serve
        error = await failure(shop, tmp_path)

        assert shop.links == len(shop.storage.requests) == 4
    assert f'4 links to it were of no use; the last time, the storage answered with HTTP {status}: "gone"' in str(error)
    assert 'via="csv"' in error.advice
    assert isinstance(error.__cause__, APIStatusError)
    assert (error.page, error.operation, error.request_id) == (1, "messages.download", "at-the-storage")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The URL has expired", ': "The URL has expired".'),
        ("<Error><Code>AccessDenied</Code><X>secret+/=</X></Error>", ': "AccessDenied".'),
        ("secret+/=", "HTTP 403."),
        ("", "HTTP 403."),
    ],
)
async def test_of_what_a_storage_says_only_plain_words_are_told(tmp_path: Path, text: str, said: str) -> None:
    async with shop_of() as shop:

        async def serve(_: web.Request, __: int) -> web.Response:
            return web.Response(status=403, text=text, headers={"x-request-id": "secret+/="})

        shop.serve = serve
        error = await failure(shop, tmp_path)

    assert f"the storage answered with HTTP 403{said.removeprefix('HTTP 403')}" in str(error)
    assert "secret" not in repr(vars(error)) + repr(vars(error.__cause__))


@pytest.mark.parametrize("seconds", [0, -5])
async def test_a_link_whose_time_is_over_is_not_used(tmp_path: Path, seconds: int) -> None:
    async with shop_of() as shop:
        good = shop.link
        shop.link = lambda page: (
            good(page) if shop.links > 2 else web.json_response({"url": shop.url_of(page), "expires_in": seconds})
        )
        async with shop.client() as ns:
            await ns.messages.download("c", tmp_path / "a")
        assert (shop.links, len(shop.storage.requests)) == (3, 1)
        shop.link = lambda page: web.json_response({"url": shop.url_of(page), "expires_in": seconds})
        error = await failure(shop, tmp_path / "b")

        assert len(shop.storage.requests) == 1
    assert "each had expired when it came" in str(error)


async def test_a_link_that_expires_while_it_is_used_is_continued_with_a_fresh_one(tmp_path: Path) -> None:
    async with shop_of() as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            match len(shop.storage.requests):
                case 1:
                    return await break_off(request, FILE, 300_000, headers=RANGES)
                case 2:
                    return web.Response(status=403, text="expired")
            return await serve_with_ranges(request, FILE)

        shop.serve = serve
        async with shop.client() as ns:
            report = await ns.messages.download("c", tmp_path)

        assert shop.links == 2
        assert shop.ranges[0] is None
        assert shop.ranges[1] == shop.ranges[2]
        assert 0 < start_of(shop.ranges[1]) <= 300_000
    assert report.files[0].path.read_bytes() == FILE


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://storage.example.org/a?b=c", None),
        ("http://127.0.0.1:80/a?b=c", None),
        ("http://[::1]:80/a", None),
        ("http://storage.example.org/a?b=c", "plain http"),
        ("http://localhost.example.org/a", "plain http"),
        ("https://user@storage.example.org/a", "user name"),
        ("https://user:word@storage.example.org/a", "user name"),
        ("ftp://storage.example.org/a", "no absolute URL"),
        ("//storage.example.org/a", "no absolute URL"),
        ("/a", "no absolute URL"),
        ("", "no absolute URL"),
        ("https://storage.example.org/a b", "no absolute URL"),
        ("https://storage.example.org\\@evil.example/", "no absolute URL"),
        ("https://storage.example.org:port/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
    ],
)
def test_which_links_may_be_followed(url: str, problem: str | None) -> None:
    found = problem_of(url)
    assert found is None if problem is None else found is not None and problem in found


async def test_a_link_that_would_show_the_files_to_others_is_not_followed(tmp_path: Path) -> None:
    async with shop_of() as shop, shop.client() as ns:
        shop.link = lambda _: web.json_response({"url": f"http://storage.example.org/?{SIGNATURE}"})
        report = await ns.messages.download("c", tmp_path)

    assert report.files[0].via == "csv"
    assert "plain http" in report.notes[0]
    assert "storage.example.org" not in repr(report)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_service_without_links_gives_csv_for_all_the_rest(tmp_path: Path, status: int) -> None:
    async with shop_of(*[table(3, page=page) for page in range(1, 6)]) as shop, shop.client() as ns:
        good = shop.link
        shop.link = lambda page: (
            good(page) if page < 3 else web.json_response({"message": f"No {SIGNATURE}"}, status=status)
        )
        report = await ns.messages.download("c", tmp_path, concurrency=1)

        assert [file.via for file in report.files] == ["url", "url", "csv", "csv", "csv"]
        assert shop.csvs == 3
        assert shop.links <= 4  # a refusal may be about the token, and is asked once more then
    assert len(report.notes) == 1
    assert report.notes[0].startswith("Signed URLs were not to be had: ")
    assert f"HTTP {status}" in report.notes[0]
    assert SIGNATURE not in repr(report)


async def test_a_service_in_trouble_is_not_one_without_links(tmp_path: Path) -> None:
    async with shop_of(table(3)) as shop:
        shop.link = lambda _: web.json_response({}, status=503)
        error = await failure(shop, tmp_path)

        assert shop.csvs == 0
    assert len(error.attempts) == 4


async def test_a_storage_that_cannot_be_reached(tmp_path: Path) -> None:
    async with shop_of(table(3)) as shop:
        shop.link = lambda _: web.json_response({"url": f"http://127.0.0.1:9/x?{SIGNATURE}"})
        error = await failure(shop, tmp_path)

    assert isinstance(error.__cause__, RequestNotSentError)
    assert 'via="csv" does without the storage' in str(error)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    async with shop_of() as shop:

        async def serve(_: web.Request, __: int) -> web.Response:
            return web.Response(status=status, headers={"Location": f"{shop.storage.url}/files/1?{SIGNATURE}"})

        shop.serve = serve
        error = await failure(shop, tmp_path)

        assert len(shop.storage.requests) == 1
    assert f"HTTP {status}, a redirect, which is not followed" in str(error)
    assert SIGNATURE not in str(error)


# --- continued -----------------------------------------------------------------------------------------------------------


async def test_a_connection_that_breaks_again_and_again_is_continued_each_time(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with shop_of() as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            whole = await serve_with_ranges(request, FILE)
            rest = FILE if whole.status == 200 else FILE[request.http_range.start :]
            if len(shop.storage.requests) > 3:
                return whole
            after = chance.randrange(200_000, len(rest) // 2)
            extra = {name: whole.headers[name] for name in ("Content-Range",) if name in whole.headers}
            return await break_off(request, rest, after, headers=RANGES | extra, status=whole.status)

        shop.serve = serve
        async with shop.client() as ns:
            report = await ns.messages.download("c", tmp_path)

        starts = [start_of(wanted) for wanted in shop.ranges]
        if_range = [headers.get("If-Range") for _, _, headers, _ in shop.storage.requests]
    assert len(starts) == 4
    assert starts == sorted(set(starts)), "what had come was asked for again"
    assert if_range == [None, '"one"', '"one"', '"one"']
    assert report.files[0].path.read_bytes() == FILE
    assert report.files[0].resumed


def start_of(wanted: str | None) -> int:
    """Where a range begins. A connection that breaks may take the last of what it carried with it."""
    return 0 if wanted is None else int(wanted.removeprefix("bytes=").removesuffix("-"))


@pytest.mark.parametrize("fault", [Reset(at="in_body"), Truncate(), Close(at="after_request")])
async def test_the_sandbox_behind_a_network_that_breaks(tmp_path: Path, fault: Any) -> None:
    async with Sandbox(rows_per_file=3_000) as sandbox:
        await sandbox.create_profile_field("n", "number")
        group = await sandbox.create_customer_group("g", customers=[{"n": n} for n in range(3_000)])
        campaign = await sandbox.create_campaign("c", group)
        async with FaultProxy(sandbox.storage_url) as proxy:
            sandbox._now.api._storage.origin = proxy.url
            proxy.inject(fault, times=2)
            async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, retry=QUICK) as ns:
                report = await ns.messages.download(campaign, tmp_path)
                whole = (await ns.messages.fetch(campaign, 1, "csv")).encode()

    assert report.files[0].path.read_bytes() == whole
    statuses = [record.status for record in sandbox.log if record.origin == "storage"]
    assert len(statuses) == 3
    assert statuses[0] == 200
    # An end of the connection may overtake what was sent before it; then there is nothing to continue.
    assert report.files[0].resumed == (statuses[-1] == 206)


async def test_a_file_that_was_replaced_meanwhile_comes_anew(tmp_path: Path) -> None:
    other = table(11_000, page=2)
    async with shop_of() as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            if len(shop.storage.requests) == 1:
                return await break_off(request, FILE, 400_000, headers=RANGES)
            return await serve_with_ranges(request, other, etag='"two"')

        shop.serve = serve
        async with shop.client() as ns:
            report = await ns.messages.download("c", tmp_path)

        assert shop.ranges[0] is None
        assert 0 < start_of(shop.ranges[1]) <= 400_000
    assert report.files[0].path.read_bytes() == other
    assert not report.files[0].resumed


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/csv"},
        {"Content-Type": "text/csv", "ETag": '"one"'},
        {"Content-Type": "text/csv", "ETag": '"one"', "Accept-Ranges": "none"},
        {"Content-Type": "text/csv", "ETag": 'W/"one"', "Accept-Ranges": "bytes"},
        {"Content-Type": "text/csv", "ETag": "one", "Accept-Ranges": "bytes"},
        {"Content-Type": "text/csv", "Accept-Ranges": "bytes"},
    ],
)
async def test_a_storage_that_cannot_continue_is_asked_for_all_of_it(tmp_path: Path, headers: dict[str, str]) -> None:
    async with shop_of() as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            if len(shop.storage.requests) < 3:
                return await break_off(request, FILE, 500_000, headers=headers)
            return web.Response(body=FILE, headers=headers)

        shop.serve = serve
        async with shop.client() as ns:
            report = await ns.messages.download("c", tmp_path)

        assert shop.ranges == [None, None, None]
    assert report.files[0].path.read_bytes() == FILE


SIZE, AT = len(FILE), 400_000
Odd = Callable[[int], web.Response]


def part(later: int = 0, earlier: int = 0, more: int = 0, *, whole: bool = False, headers: Any = ()) -> Odd:
    """A part that begins later than the one that was asked for, or ends earlier, or is of a file with more in it."""

    def answer(at: int) -> web.Response:
        start, stop = 0 if whole else at + later, SIZE - earlier
        named = {name: value.format(at=at) for name, value in dict(headers).items()}
        return web.Response(
            status=206,
            body=FILE[start:stop],
            headers={**RANGES, "Content-Range": f"bytes {start}-{stop - 1}/{SIZE + more}", **named},
        )

    return answer


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(part(-1), id="begins earlier"),
        pytest.param(part(1), id="begins later"),
        pytest.param(part(whole=True), id="is the whole"),
        pytest.param(part(more=1), id="another total"),
        pytest.param(part(earlier=5), id="ends earlier"),
        pytest.param(part(headers={"ETag": '"two"'}), id="another file"),
        pytest.param(part(headers={"Content-Range": "bytes */9"}), id="no range"),
        pytest.param(part(headers={"Content-Range": f"bytes {{at}}-{SIZE - 1}/*"}), id="no total"),
        pytest.param(part(headers={"Content-Range": ""}), id="nothing"),
        pytest.param(lambda _: web.Response(status=416, headers={"Content-Range": f"bytes */{SIZE}"}), id="416"),
        pytest.param(lambda _: web.Response(status=202, text="wait"), id="202"),
    ],
)
async def test_an_odd_answer_to_a_range_starts_anew(tmp_path: Path, odd: Odd) -> None:
    async with shop_of() as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            match len(shop.storage.requests):
                case 1:
                    return await break_off(request, FILE, AT, headers=RANGES)
                case 2:
                    return odd(start_of(request.headers["Range"]))
            return await serve_with_ranges(request, FILE)

        shop.serve = serve
        async with shop.client() as ns:
            report = await ns.messages.download("c", tmp_path)

        assert shop.ranges[0] is shop.ranges[2] is None
        assert 0 < start_of(shop.ranges[1]) <= AT
        assert len(shop.ranges) == 3
    assert report.files[0].path.read_bytes() == FILE
    assert not report.files[0].resumed


async def test_a_part_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    async with shop_of() as shop:

        async def serve(_: web.Request, __: int) -> web.StreamResponse:
            return part(whole=True)(0)

        shop.serve = serve
        error = await failure(shop, tmp_path)
    assert "status 206" in str(error)
    assert isinstance(error.__cause__, ResponseDecodeError)


@pytest.mark.slow
async def test_what_an_earlier_call_left_is_continued_only_if_it_is_what_that_one_noted(tmp_path: Path) -> None:
    partial = tmp_path / "page-00001.csv.partial"
    async with shop_of() as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            return await break_off(request, FILE, 600_000, headers=RANGES)

        async def half(damage: Callable[[bytes], bytes]) -> list[str | None]:
            shop.serve = serve
            await failure(shop, tmp_path, overwrite=True)
            noted = json.loads((tmp_path / "manifest.json").read_text())["unfinished"]["1"]
            assert noted["etag"] == '"one"'
            partial.write_bytes(damage(partial.read_bytes()))
            shop.serve, before = shop.serve_whole, len(shop.ranges)
            async with shop.client() as ns:
                report = await ns.messages.download("c", tmp_path)
            assert report.files[0].path.read_bytes() == FILE
            (tmp_path / "page-00001.csv").unlink()
            return shop.ranges[before:]

        assert 0 < start_of(*await half(lambda content: content)) <= 600_000
        assert 0 < start_of(*await half(lambda content: content + b"more")) <= 600_000
        assert await half(lambda content: content[:-1]) == [None]
        assert await half(lambda content: b"?" + content[1:]) == [None]
        assert await half(lambda _: b"") == [None]


# --- verified ------------------------------------------------------------------------------------------------------------


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


SHA256, SHA512 = hashlib.sha256(FILE).digest(), hashlib.sha512(FILE).digest()
MD5 = hashlib.md5(FILE).digest()
GOOD = [
    {"Repr-Digest": f"sha-256=:{encoded(SHA256)}:"},
    {"Repr-Digest": f"sha-512=:{encoded(SHA512)}:"},
    {"Repr-Digest": f"unixsum=:AAA=:, SHA-256=:{encoded(SHA256)}:, sha-512=:{encoded(SHA512)}:"},
    {"Content-MD5": encoded(MD5)},
    {"x-amz-checksum-sha256": encoded(SHA256)},
    {"x-goog-hash": f"crc32c=AAAAAA==,md5={encoded(MD5)}"},
]
MEANINGLESS = [
    {"Repr-Digest": "sha-256=:AAAA:"},
    {"Repr-Digest": "sha-256=!"},
    {"Content-MD5": "no"},
    {"x-amz-checksum-sha256": f"{encoded(bytes(32))}-2"},
    {"x-goog-hash": "crc32c=AAAAAA=="},
]


@pytest.mark.parametrize("headers", [*GOOD, *MEANINGLESS], ids=str)
@pytest.mark.parametrize("broken", [False, True])
async def test_right_checksums_pass(tmp_path: Path, headers: dict[str, str], broken: bool) -> None:
    async with shop_of() as shop, shop.client() as ns:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            if broken and len(shop.storage.requests) == 1:
                return await break_off(request, FILE, 300_000, headers=RANGES | headers)
            response = await serve_with_ranges(request, FILE)
            response.headers.update(headers)
            return response

        shop.serve = serve
        assert (await ns.messages.download("c", tmp_path)).files[0].resumed is broken
        assert len(shop.ranges) == 1 + broken


@pytest.mark.parametrize("headers", GOOD, ids=str)
@pytest.mark.parametrize("broken", [False, True])
async def test_a_wrong_checksum_is_noticed_of_the_whole_file(
    tmp_path: Path, headers: dict[str, str], broken: bool
) -> None:
    damaged = FILE[:1_000] + bytes([FILE[1_000] ^ 1]) + FILE[1_001:]
    async with shop_of() as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            if broken and "Range" not in request.headers:
                return await break_off(request, damaged, 300_000, headers=RANGES | headers)
            response = await serve_with_ranges(request, damaged)
            response.headers.update(headers)
            return response

        shop.serve = serve
        error = await failure(shop, tmp_path)

        assert len([wanted for wanted in shop.ranges if wanted is None]) == 3, "it starts anew, and not for ever"
    assert "checksum that the storage gave with it" in str(error)
    assert error.page == 1
    assert left(tmp_path) == ["page-00001.csv.rejected"]


async def test_a_file_that_comes_damaged_once_comes_again(tmp_path: Path) -> None:
    async with shop_of() as shop, shop.client() as ns:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            content = FILE[:-3] + b"?\r\n" if len(shop.storage.requests) == 1 else FILE
            response = await serve_with_ranges(request, content)
            response.headers.update(GOOD[0])
            return response

        shop.serve = serve
        report = await ns.messages.download("c", tmp_path)
        assert len(shop.ranges) == 2
    assert report.files[0].path.read_bytes() == FILE
    assert left(tmp_path) == ["page-00001.csv"]


def test_checksums_of_a_part_are_told_from_those_of_the_whole() -> None:
    headers = Headers({"Content-MD5": encoded(MD5), **GOOD[0]})

    assert offered(headers, part=False) == {("md5", MD5), ("sha256", SHA256)}
    assert offered(headers, part=True) == {("sha256", SHA256)}


async def test_a_file_whose_end_nothing_tells_is_not_believed(tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\n" + FILE[:300_000])
        writer.close()

    async with shop_of() as shop, await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        shop.link = lambda _: web.json_response({"url": f"http://127.0.0.1:{port}/{SIGNATURE}"})
        error = await failure(shop, tmp_path)
    assert "nothing tells where it ends" in str(error)
    assert isinstance(error.__cause__, OutcomeUnknownError)
    assert not [name for name in left(tmp_path) if name.endswith(".csv")]


Answer = Callable[[], web.Response]


@pytest.mark.parametrize("via", ["url", "csv"])
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            lambda: web.Response(
                body=gzip.compress(FILE), headers={"Content-Encoding": "gzip"}, content_type="text/csv"
            ),
            "cut off",
        ),
        (lambda: web.Response(text="<html><title>Log in</title></html>", content_type="text/html"), "web page"),
        (lambda: web.Response(text="<!DOCTYPE html>\n<p>Log in", content_type="text/csv"), "HTML"),
        (lambda: web.Response(body=b"", content_type="text/csv"), "empty"),
        (lambda: web.Response(body=b"\xef\xbb\xbf", content_type="text/csv"), "empty"),
        (lambda: web.json_response([{"customer_id": "1"}]), "application/json, not CSV"),
        (lambda: web.Response(text='{"success": true,\n"a": 1}', content_type="text/csv"), "JSON, not CSV"),
        (lambda: web.Response(text='[{"a": 1},\n{"a": 2}]', content_type="text/csv"), "JSON, not CSV"),
        (lambda: web.Response(text='<?xml version="1.0"?>\n<Error>', content_type="text/csv"), "XML or HTML, not CSV"),
        (lambda: web.Response(text="Service busy", content_type="text/plain"), "a single line of text/plain"),
        (lambda: web.Response(text="a,b\n1,2\n3\n", content_type="text/csv"), "1 cells in row 2, under 2 columns"),
        (lambda: web.Response(text="a,b\n1,2\n3,4,5\n", content_type="text/csv"), "3 cells in row 2"),
        (lambda: web.Response(text="a,a\n1,2\n", content_type="text/csv"), "no header of different names"),
        (lambda: web.Response(text='a,b\n1,"2\n3,4\n', content_type="text/csv"), "is no CSV after row 0"),
        (lambda: web.Response(text='a,b\n1,"2"x\n', content_type="text/csv"), "is no CSV after row 0"),
        (lambda: web.Response(body=b"a,b\n1,\xff\n", content_type="text/csv"), "is not UTF-8 after row 0"),
    ],
)
async def test_what_is_no_file_of_messages_gets_no_name_of_one(
    tmp_path: Path, via: Any, answer: Answer, text: str
) -> None:
    async with shop_of() as shop:

        async def serve(_: web.Request, __: int) -> web.Response:
            return answer()

        shop.serve = serve
        shop.on_csv = lambda _: answer()
        error = await failure(shop, tmp_path, via=via)
        assert len(shop.storage.requests) + shop.csvs <= 8
    assert "Page 1 of 1" in str(error)
    assert text in str(error)
    assert error.page == 1
    assert "page-00001.csv" not in left(tmp_path)
    assert not json.loads((tmp_path / "manifest.json").read_text())["complete"]


async def test_a_ragged_file_that_a_checksum_vouches_for_is_not_fetched_again(tmp_path: Path) -> None:
    ragged = b"a,b\r\n1,2\r\n3\r\n"
    async with shop_of(ragged) as shop:

        async def serve(request: web.Request, _: int) -> web.Response:
            response = await serve_with_ranges(request, ragged)
            response.headers["Content-MD5"] = encoded(hashlib.md5(ragged).digest())
            return response

        shop.serve = serve
        error = await failure(shop, tmp_path)
        assert len(shop.ranges) == 1
        assert "1 cells in row 2" in str(error)
        assert (tmp_path / "page-00001.csv.rejected").read_bytes() == ragged
        shop.files, shop.serve = [b"a,b\r\n1,2\r\n"], shop.serve_whole
        async with shop.client() as ns:
            assert (await ns.messages.download("c", tmp_path)).rows == 1
    assert left(tmp_path) == ["page-00001.csv"]


@pytest.mark.parametrize("via", ["url", "csv"])
@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"a,b\r\n1,2\r\n", 1),
        (b"\xef\xbb\xbfa,b\n1,2\n\n3,4", 2),
        (b'\xef\xbb\xbf"a","b"\r\n"1\r\n2","x ""y"" \xc3\xbc"\r\n', 1),
        (b"a,b\r\n", 0),
        (b"a\r\n" + b"x" * 300_000 + b"\r\n", 1),
        (table(1_500), 1_500),
    ],
    ids=["plain", "BOM", "quoted", "a header alone", "a long cell", "many rows"],
)
async def test_files_of_all_kinds(tmp_path: Path, via: Any, content: bytes, rows: int) -> None:
    async with shop_of(content) as shop, shop.client() as ns:
        report = await ns.messages.download("c", tmp_path, via=via)

    assert (report.rows, report.files[0].via) == (rows, via)
    assert report.files[0].path.read_bytes() == content


async def test_csv_that_breaks_off_comes_anew(tmp_path: Path) -> None:
    async with Sandbox(rows_per_file=3_000) as sandbox:
        await sandbox.create_profile_field("n", "number")
        group = await sandbox.create_customer_group("g", customers=[{"n": n} for n in range(3_000)])
        campaign = await sandbox.create_campaign("c", group)
        async with FaultProxy(sandbox.url) as proxy:
            proxy.inject(Truncate(), operation="messages.fetch", times=2)
            async with Nudgescribe(sandbox.credentials, base_url=proxy.url, retry=QUICK) as ns:
                report = await ns.messages.download(campaign, tmp_path, via="csv")

        assert proxy.count("messages.fetch") == 3
    assert report.rows == 3_000
    assert not report.files[0].resumed


async def test_a_service_that_gives_csv_is_never_asked_for_a_part_of_it(tmp_path: Path) -> None:
    async with shop_of() as shop, FaultProxy(shop.service.url) as proxy:
        shop.on_csv = lambda _: web.Response(body=FILE, headers=RANGES)
        proxy.inject(Truncate(), operation="messages.fetch", times=2)
        async with Nudgescribe(CREDENTIALS, base_url=proxy.url, retry=QUICK) as ns:
            report = await ns.messages.download("c", tmp_path, via="csv")

        assert shop.csvs == 3
        assert not [headers for _, _, headers, _ in shop.service.calls if "Range" in headers]
    assert report.files[0].path.read_bytes() == FILE


@pytest.mark.parametrize(("slots", "concurrency", "most"), [(64, 3, 3), (2, 8, 2)])
async def test_files_under_way_are_few_and_take_the_slots_of_the_client(
    tmp_path: Path, slots: int, concurrency: int, most: int
) -> None:
    under_way = highest = 0
    async with shop_of(*[table(3, page=page) for page in range(1, 21)]) as shop:

        async def serve(request: web.Request, page: int) -> web.StreamResponse:
            nonlocal under_way, highest
            under_way += 1
            highest = max(highest, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return await shop.serve_whole(request, page)

        shop.serve = serve
        async with shop.client(concurrency=slots) as ns:
            await ns.messages.download("c", tmp_path, concurrency=concurrency)
    assert highest == most


async def test_a_storage_in_trouble_is_asked_again_with_the_same_link(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        campaign = await sandbox.create_campaign("c", await sandbox.create_customer_group("g", customers=[{}]))
        sandbox.inject(Status(503), operation="storage.download", times=2)
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, retry=QUICK) as ns:
            report = await ns.messages.download(campaign, tmp_path)

        assert sandbox.count("messages.fetch") == 1
        assert sandbox.count("storage.download") == 3
    assert report.rows == 1
