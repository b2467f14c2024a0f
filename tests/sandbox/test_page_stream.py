"""What a page hears of what happens, and how that ends."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from page_markup import Markup

from nudgescribe_async.sandbox import Delay, LoseAnswer, Sandbox
from nudgescribe_async.sandbox.page import stream

EVENTS = "/_sandbox/events"
PATIENCE = 20.0


class Listener:
    """A browser's EventSource, without its patience."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.last_id = ""
        self.comments = 0

    async def next(self, *names: str) -> tuple[str, str]:
        """The next event, of the names given."""
        async with asyncio.timeout(PATIENCE):
            while True:
                fields: dict[str, str] = {}
                while line := (await self._line()):
                    if line.startswith(":"):
                        self.comments += 1
                    else:
                        name, _, value = line.partition(": ")
                        assert name not in fields
                        fields[name] = value
                self.last_id = fields.get("id", self.last_id)
                if "event" in fields and (not names or fields["event"] in names):
                    return fields["event"], fields["data"]

    async def _line(self) -> str:
        line = await self.answer.content.readline()
        if not line:
            raise EOFError
        assert line.endswith(b"\n")
        return line.decode()[:-1]

    async def rows(self, count: int) -> list[dict[str, Any]]:
        """The data of ``log`` events, until they have told of so many requests."""
        seen: list[dict[str, Any]] = []
        while sum(data["count"] for data in seen) < count:
            seen.append(json.loads((await self.next("log"))[1]))
        return seen


Listen = Callable[..., Any]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    async with aiohttp.ClientSession(headers={"Accept": "text/html"}) as http:

        @asynccontextmanager
        async def begin(
            sandbox: Sandbox, *, after: str | None = None, last_id: str = "", **query: str
        ) -> AsyncIterator[Listener]:
            if after is None:
                async with http.get(sandbox.url + "/") as answer:
                    after = str(Markup(await answer.text()).one("body")["data-events"])
            headers = {"Last-Event-ID": last_id} if last_id else {}
            url = sandbox.url + EVENTS
            async with http.get(url, params={"after": after, **query}, headers=headers) as answer:
                assert answer.status == 200
                assert answer.content_type == "text/event-stream"
                yield Listener(answer)

        yield begin


def names_of(data: dict[str, Any]) -> list[str]:
    """The operations in the rows of an event."""
    return [str(row[1]).partition(" ")[0] for row in table(data)]


def table(data: dict[str, Any]) -> list[list[str]]:
    markup = f"<table><caption>rows</caption><thead><tr></tr></thead>{data['rows']}</table>"
    return Markup(markup).table("rows")


def followers(sandbox: Sandbox) -> set[Any]:
    """Those whom the page sends to, which it tells nobody."""
    outermost: Any = sandbox.app.middlewares[0]
    found: set[Any] = outermost.__self__._streams._followers
    return found


async def test_requests_are_told_as_they_are_answered(api: Any, listen: Listen) -> None:
    async with listen(api.sandbox) as listener:
        await api.call("POST", "/v1/campaign/all")
        (first,) = await listener.rows(1)
        await api.call("PUT", "/v1/cg", workspace_id=api.sandbox.workspace_id, group_name="<b>")
        await api.send("GET", "/v1/nothing", token=None)
        rest = await listener.rows(2)

    assert names_of(first) == ["campaigns.list"]
    assert (first["count"], first["failed"], first["skipped"], first["total"]) == (1, 0, 0, 2)
    assert [name for data in reversed(rest) for name in names_of(data)] == ["GET", "customer_groups.create"]
    assert sum(data["failed"] for data in rest) == 1
    assert rest[-1]["total"] == 4
    assert "&lt;b&gt;" in "".join(data["rows"] for data in rest)


async def test_downloads_and_lost_answers_are_told_too(start: Any, listen: Listen) -> None:
    api = await start(example=True)
    campaign = api.sandbox.example.campaigns["Welcome back"]
    link = (await api.ok("POST", "/v1/messages/fetch", campaign_id=campaign, page=1, format="url"))["url"]
    async with listen(api.sandbox) as listener, aiohttp.ClientSession() as http:
        async with http.get(link):
            pass
        (data,) = await listener.rows(1)
        assert table(data)[0][1].startswith("download /files/")
        api.sandbox.inject(LoseAnswer())
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await http.post(api.sandbox.url + "/v1/auth", json={})
        (data,) = await listener.rows(1)
        assert table(data)[0][2] == "no answer"


async def test_changes_are_told_whoever_makes_them(start: Any, listen: Listen) -> None:
    api = await start(job_time=0.4, queue_above=0)
    sandbox = api.sandbox
    group = await api.group(n="number")
    body = {"workspace_id": sandbox.workspace_id, "customer_group_id": group, "customers": [{"n": 1}]}
    async with listen(sandbox, log="0") as listener:
        await listener.next("change")  # there may have been some since the page was made
        await sandbox.create_customer_group("by code")
        await listener.next("change")
        injection = sandbox.inject(Delay(0), times=3)
        await listener.next("change")
        injection.remove()
        await listener.next("change")
        await api.ok("POST", "/v1/customer/check", **body)
        await listener.next("change")
        while await api.pages(group) == 0:  # its job has no request of its own
            await listener.next("change")


async def test_without_the_log_there_are_no_rows(api: Any, listen: Listen) -> None:
    async with listen(api.sandbox, log="0") as listener:
        await listener.next("change")
        await api.call("POST", "/v1/campaign/all")
        assert await listener.next() == ("change", "")


async def test_who_connects_again_gets_what_came_since(api: Any, listen: Listen) -> None:
    async with listen(api.sandbox) as listener:
        await api.call("POST", "/v1/campaign/all")
        await listener.rows(1)
        last = listener.last_id
    for _ in range(3):
        await api.call("POST", "/v1/cg", workspace_id=api.sandbox.workspace_id)

    # A browser keeps asking for the address that it began with; what it says in the header is newer.
    async with listen(api.sandbox, after=last.replace("-2", "-0"), last_id=last) as listener:
        (data,) = await listener.rows(1)

    assert names_of(data) == ["customer_groups.list"] * 3
    assert (data["count"], data["total"]) == (3, 5)


async def test_a_flood_is_told_in_part_and_counted(start: Any, listen: Listen) -> None:
    api = await start(log_size=30)
    async with listen(api.sandbox) as listener:
        await listener.next("change")
        last = listener.last_id
    await asyncio.gather(*(api.call("POST", "/v1/campaign/all") for _ in range(200)))

    async with listen(api.sandbox, after=last) as listener:
        (data,) = await listener.rows(1)

    assert (data["count"], data["skipped"], len(names_of(data))) == (200, 170, 30)


@pytest.mark.parametrize("number", ["", "x", "-5", "9" * 18, "9" * 400, "\u0663"])
async def test_odd_positions_are_the_present(api: Any, listen: Listen, number: str) -> None:
    async with listen(api.sandbox) as listener:
        await listener.next("change")
        boot = listener.last_id.partition("-")[0]
    async with listen(api.sandbox, after=f"{boot}-{number}") as listener:
        await listener.next("change")
        await api.call("POST", "/v1/campaign/all")
        (data,) = await listener.rows(1)

    assert data["count"] == 1


@pytest.mark.parametrize("after", ["", "nonsense", "0123456789abcdef-1"])
async def test_the_page_of_another_sandbox_is_told_to_load_again(api: Any, listen: Listen, after: str) -> None:
    async with listen(api.sandbox, after=after) as listener:
        assert await listener.next() == ("restart", "")
        with pytest.raises(EOFError):
            await listener.next()


async def test_a_silent_stream_beats(api: Any, listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_HEARTBEAT_SECONDS", 0.0)
    async with listen(api.sandbox) as listener:
        await listener.next("change")
        while listener.comments < 2:
            await api.call("POST", "/v1/campaign/all")
            await listener.next()


async def test_streams_are_no_requests_of_the_service(api: Any, listen: Listen) -> None:
    before = api.sandbox.log
    async with listen(api.sandbox) as listener:
        await listener.next("change")
        assert api.sandbox.log == before
    assert api.sandbox.log == before


# --- how it ends ------------------------------------------------------------------------------------------------------


async def test_the_sandbox_stops_while_browsers_follow(listen: Listen) -> None:
    sandbox = Sandbox()
    async with sandbox, listen(sandbox) as one, listen(sandbox, log="0") as two:
        for listener in (one, two):
            await listener.next("change")
        assert len(followers(sandbox)) == 2

        await sandbox.aclose()

        for listener in (one, two):
            with pytest.raises(EOFError):  # and no broken connection
                await listener.next()
    assert followers(sandbox) == set()


async def test_stopping_does_not_wait_for_a_browser_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffers are full: the stream is stuck in sending, and loses its connection."""
    monkeypatch.setattr("nudgescribe_async.sandbox.server._SHUTDOWN_SECONDS", 3_600.0)
    monkeypatch.setattr("nudgescribe_async.sandbox.page.site.Page._rows", lambda *_: "x" * 2**24)
    async with Sandbox() as sandbox, aiohttp.ClientSession(sandbox.url) as http:
        async with http.get("/", headers={"Accept": "text/html"}) as answer:
            position = Markup(await answer.text()).one("body")["data-events"]
        async with http.get(EVENTS, params={"after": position}):
            async with http.post("/v1/auth", json={}):
                pass
            async with asyncio.timeout(PATIENCE):
                while not any(follower._sending for follower in followers(sandbox)):
                    await asyncio.sleep(0.01)
                await sandbox.aclose()
    assert followers(sandbox) == set()


async def test_a_browser_that_leaves_is_forgotten_though_there_is_nothing_to_tell(
    api: Any, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_HEARTBEAT_SECONDS", 3_600.0)
    async with listen(api.sandbox) as listener:
        await listener.next("change")
        assert len(followers(api.sandbox)) == 1
        listener.answer.close()
    async with asyncio.timeout(PATIENCE):
        while followers(api.sandbox):
            await asyncio.sleep(0.01)


async def test_too_many_browsers_are_refused(api: Any, listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_MOST", 2)
    async with listen(api.sandbox) as one, listen(api.sandbox) as two:
        await one.next("change")
        await two.next("change")
        async with aiohttp.ClientSession() as http, http.get(api.sandbox.url + EVENTS) as answer:
            assert answer.status == 503
            assert "Close some of them" in await answer.text()


async def started(*options: str) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "nudgescribe_async.sandbox", "--port", "0", "--no-example", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, (await process.stdout.readuntil(b"Ctrl-C.\n")).decode()


@pytest.mark.slow
async def test_the_process_says_where_its_page_is_and_ends_while_a_browser_follows() -> None:
    process, text = await started()
    (url,) = re.findall(r"^# Its page, to open in a browser: (\S+)$", text, re.MULTILINE)
    assert f"export NUDGESCRIBE_BASE_URL={url.rstrip('/')}\n" in text
    async with aiohttp.ClientSession(headers={"Accept": "text/html"}) as http:
        async with http.get(url) as answer:
            position = Markup(await answer.text()).one("body")["data-events"]
        async with http.get(url + EVENTS[1:], params={"after": str(position)}) as answer:
            await Listener(answer).next("change")
            process.terminate()
            async with asyncio.timeout(PATIENCE):
                assert (await process.communicate(), process.returncode) == ((b"", b""), 0)

    process, text = await started("--no-page")
    process.terminate()
    await process.communicate()
    assert "page" not in text


# --- what was found by attacking it -----------------------------------------------------------------------------------


async def test_a_stream_that_fails_ends_and_is_no_second_answer(
    api: Any, listen: Listen, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with listen(api.sandbox) as listener:
        await listener.next("change")
        monkeypatch.setattr("nudgescribe_async.sandbox.page.record.body_text", lambda *_: 1 / 0)
        await api.call("POST", "/v1/cg", workspace_id="w")
        with pytest.raises(EOFError):
            await listener.next("restart")
        assert followers(api.sandbox) == set()
        monkeypatch.undo()
        async with listen(api.sandbox, after=listener.last_id) as again:  # as a browser does
            assert names_of((await again.rows(1))[0]) == ["customer_groups.list"]
    assert "failed while a browser followed" in caplog.text


async def test_many_browsers_cost_little_more_than_one(
    api: Any, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    rendered = api.sandbox.app.middlewares[0].__self__._streams
    render = rendered._render

    def noted(rows: Any) -> str:
        made.extend(rows)
        return str(render(rows))

    monkeypatch.setattr(rendered, "_render", noted)
    async with AsyncExitStack() as stack:
        all_ = [await stack.enter_async_context(listen(api.sandbox)) for _ in range(5)]
        for _ in range(10):
            await api.call("POST", "/v1/cg", workspace_id="w")
        for listener in all_:
            assert sum(data["count"] for data in await listener.rows(10)) == 10
    assert len(made) == 10
