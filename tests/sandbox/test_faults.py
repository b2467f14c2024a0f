"""Faults, on a real socket, seen by a client that believes nothing: what comes back, and what was done."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import math
import pickle
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from attrs import frozen

import nudgescribe_async.sandbox
from nudgescribe_async.errors import OutcomeUnknownError
from nudgescribe_async.sandbox import (
    BadAnswer,
    Delay,
    LoseAnswer,
    LoseRequest,
    RateLimit,
    RefuseToken,
    RevokeTokens,
    Sandbox,
    SandboxError,
    SandboxFault,
    ShiftPages,
    Status,
    trouble,
)
from nudgescribe_async.sandbox.__main__ import main, rate, share
from nudgescribe_async.sandbox.uploads import Upload
from nudgescribe_async.transport import Request
from nudgescribe_async.transport.in_process import InProcessTransport

LOST = 0
CREATE = "customer_groups.create"
SOME: Any = nudgescribe_async.sandbox  # for arguments of wrong types


@frozen
class Seen:
    """What came back; ``LOST`` for a connection that broke."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@frozen
class Service:
    """A sandbox, and the barest client of it: each request on a connection of its own, nothing sent again."""

    driver: Any
    http: aiohttp.ClientSession

    @property
    def sandbox(self) -> Sandbox:
        sandbox: Sandbox = self.driver.sandbox
        return sandbox

    async def send(self, method: str, path: str, *, token: str | None = None, **options: Any) -> Seen:
        headers = {"Authorization": f"Bearer {token or self.driver.token}"} | options.pop("headers", {})
        try:
            async with self.http.request(method, path, headers=headers, **options) as answer:
                return Seen(answer.status, answer.headers, await answer.read())
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return Seen(LOST, {}, b"")

    async def create(self, name: str = "x") -> Seen:
        return await self.send("PUT", "/v1/cg", json={"workspace_id": self.sandbox.workspace_id, "group_name": name})

    async def groups(self) -> Seen:
        return await self.send("POST", "/v1/cg", json={"workspace_id": self.sandbox.workspace_id})

    async def log_in(self) -> Seen:
        credentials = self.sandbox.credentials
        body = {"email": credentials.email, "password": credentials.password}
        return await self.send("POST", "/v1/auth", json=body, headers={"x-api-key": credentials.api_key})

    async def page(self, group: str, page: int) -> list[dict[str, Any]]:
        answer = await self.send("POST", "/v1/customer", json={"customer_group_id": group, "page": page})
        assert answer.status == 200, answer
        rows: list[dict[str, Any]] = answer.json
        return rows

    async def numbers(self, group: str, page: int) -> list[Any]:
        """The customers of a page by their field ``n``, ``None`` for those who have none."""
        open_ = self.sandbox.decrypt
        return [open_(r["customer_id"], r["extended_profile"]).get("n") for r in await self.page(group, page)]

    async def counted(self, group: str) -> int:
        return int((await self.send("POST", "/v1/customer/pages", json={"customer_group_id": group})).json["pages"])

    async def waiting(self, requests: int = 1) -> None:
        """Return when so many answers are held back."""
        async with asyncio.timeout(10):
            while self.sandbox._now.api.waiting < requests:
                await asyncio.sleep(0)


def without_resending(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """What aiohttp's own test client does too: no silent second try of GET, PUT and DELETE."""
    session._retry_connection = False
    return session


@pytest.fixture
async def begin(start: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    sessions = []

    async def make(**options: Any) -> Service:
        driver = await start(**options)
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        sessions.append(without_resending(aiohttp.ClientSession(driver.sandbox.url, connector=connector)))
        return Service(driver, sessions[-1])

    yield make
    for session in sessions:
        await session.close()


@pytest.fixture
async def service(begin: Callable[..., Any]) -> Service:
    made: Service = await begin()
    return made


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A fault is no failure of the sandbox: its logs stay silent."""
    caplog.set_level("INFO")
    yield
    noise = [record.getMessage() for record in caplog.get_records("call")]
    assert [text for text in noise if not text.startswith("Executing ")] == []  # debug mode tells what is slow


# --- what each one does -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "effects"),
    [
        (Status(503), 503, 0),
        (Status(429, retry_after=1), 429, 0),
        (Status(500, after_work=True), 500, 1),
        (Delay(0.01), 200, 1),
        (Delay(0.01, before_work=True), 200, 1),
        (LoseAnswer(), LOST, 1),
        (LoseRequest(), LOST, 0),
        (RefuseToken(), 403, 0),
        (RefuseToken(status=401), 401, 0),
        (RefuseToken(delay=0.01), 403, 0),
        (RevokeTokens(), 403, 0),
        (RevokeTokens(refresh_tokens=True), 403, 0),
        (BadAnswer(b"<html>"), 200, 1),
        (BadAnswer(b"<html>", after_work=False, status=502), 502, 0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("edition", [1, 3])
async def test_each_fault_tells_the_truth_about_its_effect(
    begin: Any, fault: SandboxFault, status: int, effects: int, edition: int
) -> None:
    service = await begin(edition=edition)
    sandbox = service.sandbox
    injection = sandbox.inject(fault)
    assert sandbox.injections == (injection,)
    if edition == 1 and status == 403:
        status = 401

    seen = await service.create()

    record = sandbox.log[-1]
    assert seen.status == status
    assert (record.operation, record.status, record.effect) == (CREATE, status, bool(effects))
    assert record.fault == type(fault).__name__
    assert (record.body is None) == (effects == 0)  # what is refused is not even read
    assert sandbox.effects[CREATE] == effects
    assert (sandbox.count(CREATE), sandbox.count(CREATE, LOST)) == ((0, 1) if status == LOST else (1, 0))
    if status != LOST:
        assert seen.headers["x-request-id"] == record.request_id
    assert (injection.fired, sandbox.injections) == (1, ())

    await service.driver.log_in()
    assert len((await service.groups()).json) == effects
    assert (await service.create()).status == 200
    assert sandbox.log[-1].fault is None
    assert sandbox.effects[CREATE] == effects + 1


async def test_a_status_has_the_shape_of_the_sandbox_unless_told_otherwise(service: Service) -> None:
    service.sandbox.inject(Status(502))
    service.sandbox.inject(Status(599))
    service.sandbox.inject(Status(503, body=b"<p>", headers={"content-type": "text/plain", "server": "gate"}))
    service.sandbox.inject(Status(304))

    plain, unknown, own, empty = [await service.groups() for _ in range(4)]

    assert plain.json == {"success": False, "message": "Bad Gateway", "code": "bad_gateway"}
    assert plain.headers["Content-Type"] == "application/json"
    assert "Retry-After" not in plain.headers
    assert (unknown.status, unknown.json["message"]) == (599, "Status 599")
    assert (own.body, own.headers["Content-Type"], own.headers["Server"]) == (b"<p>", "text/plain", "gate")
    assert own.headers.getall("Content-Type") == ["text/plain"]
    assert (empty.status, empty.body) == (304, b"")


@pytest.mark.parametrize(
    ("given", "header"),
    [
        (0, "0"),
        (3, "3"),
        (100, "100"),
        (2.0, "2"),
        (1.5, "1.5"),
        (datetime(2030, 1, 31, 12, 0, 5, tzinfo=UTC), "Thu, 31 Jan 2030 12:00:05 GMT"),
        (datetime(2030, 1, 31, 12, 0, 5, tzinfo=timezone(timedelta(hours=2))), "Thu, 31 Jan 2030 10:00:05 GMT"),
    ],
)
async def test_retry_after_is_sent_as_seconds_or_as_a_date(service: Service, given: Any, header: str) -> None:
    service.sandbox.inject(Status(503, retry_after=given))

    assert (await service.groups()).headers["Retry-After"] == header


async def test_an_answer_is_late_before_or_after_the_work(service: Service) -> None:
    service.sandbox.inject(Delay(3_600, before_work=True), operation=CREATE)
    service.sandbox.inject(Delay(3_600), operation=CREATE)
    tasks = [asyncio.create_task(service.create("before"))]
    await service.waiting(1)
    tasks.append(asyncio.create_task(service.create("after")))
    await service.waiting(2)

    assert service.sandbox.effects[CREATE] == 1
    assert [group["group_name"] for group in (await service.groups()).json] == ["after"]
    assert service.sandbox.count(CREATE) == 0  # not answered yet
    log = service.sandbox._now.api.log
    await service.sandbox.aclose()
    await asyncio.gather(*tasks)
    assert [(r.status, r.effect, r.fault) for r in log if r.operation == CREATE] == [
        (LOST, False, "Delay"),
        (LOST, True, "Delay"),
    ]


async def test_a_delay_lasts_as_long_as_it_says(service: Service) -> None:
    service.sandbox.inject(Delay(0.05))

    await service.groups()

    assert service.sandbox.log[-1].seconds >= 0.05


async def test_a_lost_answer_is_lost_whatever_it_was(service: Service) -> None:
    service.sandbox.inject(LoseAnswer())

    assert (await service.send("PUT", "/v1/cg", json={})).status == LOST

    assert (service.sandbox.log[-1].status, service.sandbox.log[-1].effect) == (LOST, False)
    assert dict(service.sandbox.effects) == {}


async def test_a_token_is_refused_late_when_others_have_long_been_answered(service: Service) -> None:
    service.sandbox.inject(RefuseToken(delay=0.1), operation=CREATE)
    late = asyncio.create_task(service.create())
    await service.waiting()

    assert (await service.groups()).status == 200  # with the same token
    assert (await service.log_in()).status == 200
    assert (await late).json == {"success": False, "message": "Unauthorised", "code": "unauthorised"}

    assert [record.status for record in service.sandbox.log][-3:] == [200, 200, 403]
    assert service.sandbox.log[-1].operation == CREATE
    assert (await service.create()).status == 200


async def test_token_faults_pass_by_what_has_no_token(service: Service) -> None:
    sandbox = service.sandbox
    injections = [sandbox.inject(RefuseToken()), sandbox.inject(RevokeTokens())]

    assert (await service.log_in()).status == 200
    assert [injection.fired for injection in injections] == [0, 0]
    assert (await service.send("GET", "/v1/auth", token=service.driver.refresh_token)).status == 403
    assert [injection.fired for injection in injections] == [1, 1]
    assert sandbox.log[-1].fault == "RevokeTokens+RefuseToken"
    assert sandbox.effects["auth.reauthenticate"] == 0
    for fault in (RefuseToken(), RevokeTokens()):
        with pytest.raises(ValueError, match="about the token"):
            sandbox.inject(fault, operation="auth.authenticate")


@pytest.mark.parametrize("too", [False, True])
async def test_tokens_are_revoked_when_a_request_comes(service: Service, too: bool) -> None:
    service.sandbox.inject(RevokeTokens(refresh_tokens=too), skip=1)

    assert [(await service.groups()).status for _ in range(3)] == [200, 403, 403]

    assert [record.fault for record in service.sandbox.log][-3:] == [None, "RevokeTokens", None]
    renewed = await service.send("GET", "/v1/auth", token=service.driver.refresh_token)
    assert renewed.status == (403 if too else 200)


async def test_an_operation_that_loses_its_answer_uses_up_the_refresh_token(service: Service) -> None:
    service.sandbox.inject(LoseAnswer(), operation="auth.reauthenticate")

    statuses = [(await service.send("GET", "/v1/auth", token=service.driver.refresh_token)).status for _ in range(2)]

    assert statuses == [LOST, 403]
    assert service.sandbox.effects["auth.reauthenticate"] == 1


BOMB = gzip.compress(b"0" * 10_000_000)


@pytest.mark.parametrize(
    ("fault", "body", "headers"),
    [
        (BadAnswer(b"<html><title>Gateway</title>"), b"<html><title>Gateway</title>", {"Content-Type": "text/html"}),
        (BadAnswer(b'{"a": ', content_type="application/json"), b'{"a": ', {"Content-Type": "application/json"}),
        (BadAnswer(b"", content_type="text/csv; charset=latin-1"), b"", {"Content-Type": "text/csv; charset=latin-1"}),
        (BadAnswer(b"null", headers={"x-a": "b"}), b"null", {"X-A": "b"}),
        (BadAnswer(b"\xff\xfe"), b"\xff\xfe", {}),
        (BadAnswer(BOMB, headers={"content-encoding": "gzip"}), b"0" * 10_000_000, {"Content-Encoding": "gzip"}),
    ],
    ids=["html", "truncated", "empty", "null", "no utf-8", "bomb"],
)
async def test_nonsense_is_answered_as_it_is(service: Service, fault: Any, body: bytes, headers: Any) -> None:
    service.sandbox.inject(fault)

    seen = await service.groups()

    assert (seen.status, seen.body) == (200, body)
    assert headers.items() <= dict(seen.headers).items()


async def test_an_endless_body_ends_when_the_client_goes_away(service: Service) -> None:
    closed = asyncio.Event()
    begun = 0

    async def zeros() -> AsyncIterator[bytes]:
        nonlocal begun
        begun += 1
        try:
            while True:
                yield b"0" * 10_000
        finally:
            closed.set()

    kept = []  # lest the garbage collector close them

    def keep() -> AsyncIterator[bytes]:
        kept.append(zeros())
        return kept[-1]

    service.sandbox.inject(BadAnswer(keep), times=2)
    for turn in (1, 2):
        closed.clear()
        async with service.http.put("/v1/cg", json={}) as answer:
            assert (await answer.content.readexactly(1_000_000)).strip(b"0") == b""
        await asyncio.wait_for(closed.wait(), 10)
        assert begun == turn

    assert [record.status for record in service.sandbox.log][-2:] == [200, 200]
    assert (await service.groups()).status == 200  # and the sandbox lives on


async def test_an_endless_body_does_not_keep_the_sandbox_open(service: Service) -> None:
    async def zeros() -> AsyncIterator[bytes]:
        while True:
            yield b"0" * 10_000

    service.sandbox.inject(BadAnswer(zeros))
    async with service.http.post("/v1/cg") as answer:
        assert await answer.content.readexactly(10)
        await asyncio.wait_for(service.sandbox.aclose(), 10)


async def test_a_body_in_pieces_comes_whole(service: Service) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"[", b"", b"]"):
            yield piece

    service.sandbox.inject(BadAnswer(pieces), times=3)
    service.sandbox.inject(BadAnswer(pieces, status=204))

    assert [(await service.groups()).body for _ in range(4)] == [b"[]", b"[]", b"[]", b""]


# --- pages ------------------------------------------------------------------------------------------------------------


async def numbered(service: Service, count: int) -> str:
    group: str = await service.driver.group([{"n": n} for n in range(count)], n="number")
    return group


async def test_pages_shift_while_they_are_read(begin: Any) -> None:
    service = await begin(page_size=3)
    group = await numbered(service, 7)
    other = await service.sandbox.create_customer_group("other", customers=[{"n": 0}])
    injection = service.sandbox.inject(ShiftPages(), operation="customers.list", skip=1)

    assert await service.counted(group) == 3
    assert await service.numbers(group, 1) == [0, 1, 2]
    assert service.sandbox.log[-1].fault is None
    assert await service.numbers(group, 2) == [4, 5, 6]  # 3 is skipped
    assert await service.numbers(group, 3) == []
    assert await service.counted(group) == 2
    assert [record.fault for record in service.sandbox.log][-3:] == ["ShiftPages"] * 3
    assert injection.fired == 1
    assert await service.numbers(other, 1) == [0]
    assert service.sandbox.log[-1].fault is None

    service.sandbox.clear_faults()
    assert await service.numbers(group, 2) == [3, 4, 5]
    assert await service.counted(group) == 3
    assert dict(service.sandbox.effects) == {}


async def test_customers_come_twice_when_others_are_added_in_front(begin: Any) -> None:
    service = await begin(page_size=3)
    group = await numbered(service, 5)
    service.sandbox.inject(ShiftPages(-4), skip=1)

    assert await service.numbers(group, 1) == [0, 1, 2]
    assert await service.numbers(group, 2) == [None, 0, 1]
    assert await service.numbers(group, 3) == [2, 3, 4]
    assert await service.numbers(group, 1) == [None, None, None]
    assert await service.numbers(group, 4) == []
    assert await service.counted(group) == 3
    added = [(await service.page(group, page))[0]["customer_id"] for page in (1, 2, 1)]
    assert (added[0] == added[2], added[0] == added[1]) == (True, False)
    assert set((await service.page(group, 1))[0]) == set((await service.page(group, 3))[0])


async def test_pages_can_shift_with_every_request_until_nothing_is_left(begin: Any) -> None:
    service = await begin(page_size=2)
    group = await numbered(service, 6)
    injection = service.sandbox.inject(ShiftPages(2), times=None)

    assert [await service.numbers(group, 1) for _ in range(4)] == [[2, 3], [4, 5], [], []]
    assert await service.counted(group) == 0
    injection.remove()
    assert await service.numbers(group, 1) == []  # the past stays
    for number in (2**31, 10**300):
        assert await service.page(group, number) == []


async def test_only_a_page_that_is_read_shifts_them(service: Service) -> None:
    group = await numbered(service, 2)
    injection = service.sandbox.inject(ShiftPages())

    await service.groups()
    await service.counted(group)
    body = {"customer_group_id": group, "page": 1}
    await service.send("POST", "/v1/customer", json=body, token="wrong")
    await service.send("POST", "/v1/customer", json={"customer_group_id": group})
    assert injection.fired == 0
    assert await service.numbers(group, 1) == [1]
    for operation in ("customers.count_pages", "messages.fetch", CREATE):
        with pytest.raises(ValueError, match=r"ShiftPages moves the pages of customers\.list"):
            service.sandbox.inject(ShiftPages(), operation=operation)


# --- rates ------------------------------------------------------------------------------------------------------------


async def test_a_rate_limit_refuses_what_is_too_much_until_there_is_room(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: 100.0, time=lambda: 1_900_000_000.25)
    monkeypatch.setattr(trouble, "time", clock)
    injection = service.sandbox.inject(RateLimit(2, 10))

    assert [(await service.create()).status for _ in range(2)] == [200, 200]
    clock.monotonic = lambda: 102.5
    seen = await service.create()
    assert (seen.status, seen.headers["Retry-After"]) == (429, "8")
    assert seen.json["code"] == "too_many_requests"
    record = service.sandbox.log[-1]
    assert (record.status, record.fault, record.effect) == (429, "RateLimit", False)
    clock.monotonic = lambda: 110.0
    assert [(await service.create()).status for _ in range(3)] == [200, 200, 429]
    assert service.sandbox.effects[CREATE] == 4
    assert injection.fired == 2
    assert service.sandbox.injections == (injection,)
    injection.remove()
    assert (await service.create()).status == 200


async def test_a_rate_limit_says_the_time_or_nothing(service: Service) -> None:
    for form in ("date", False):
        before = math.floor(time.time())
        injection = service.sandbox.inject(RateLimit(1, 100, retry_after=form))
        await service.groups()
        header = (await service.groups()).headers.get("Retry-After")
        if form:
            assert before + 99 <= parsedate_to_datetime(header).timestamp() <= time.time() + 101
        else:
            assert header is None
        injection.remove()


async def test_a_rate_limit_of_one_operation_leaves_the_others(service: Service) -> None:
    service.sandbox.inject(RateLimit(1, 3_600), operation=CREATE, times=2)

    assert [(await service.groups()).status for _ in range(3)] == [200] * 3
    assert [(await service.create()).status for _ in range(4)] == [200, 429, 429, 200]  # two refusals, then it is over


async def test_no_more_than_the_limit_pass_at_once(service: Service) -> None:
    service.sandbox.inject(RateLimit(7, 3_600))

    seen = await asyncio.gather(*(service.create(str(n)) for n in range(30)))

    assert sorted(answer.status for answer in seen) == [200] * 7 + [429] * 23
    assert service.sandbox.effects[CREATE] == 7
    assert {answer.headers.get("Retry-After") for answer in seen if answer.status == 429} == {"3600"}


# --- which requests ---------------------------------------------------------------------------------------------------


async def test_logging_in_is_an_operation_and_the_rest_is_none(service: Service) -> None:
    injection = service.sandbox.inject(Status(503), times=None)

    assert (await service.log_in()).status == 503
    assert [(await service.send("GET", path)).status for path in ("/", "/openapi.json", "/nonsense")] == [200, 200, 404]
    assert (await service.send("PUT", "/v1/auth")).status == 405
    assert injection.fired == 1


async def test_downloads_have_faults_of_their_own(service: Service) -> None:
    group = await numbered(service, 3)
    campaign = await service.sandbox.create_campaign("c", group)
    body = {"campaign_id": campaign, "page": 1, "format": "url"}
    url = (await service.send("POST", "/v1/messages/fetch", json=body)).json["url"]
    everywhere = service.sandbox.inject(Status(503), times=None)

    async def download() -> int:
        try:
            async with without_resending(aiohttp.ClientSession()) as http, http.get(url) as answer:
                await answer.read()
                return answer.status
        except aiohttp.ServerDisconnectedError:
            return LOST

    assert await download() == 200
    service.sandbox.inject(LoseAnswer(), operation="storage.download")
    assert await download() == LOST
    record = service.sandbox.log[-1]
    assert (record.origin, record.operation, record.status, record.fault) == ("storage", None, LOST, "LoseAnswer")
    service.sandbox.inject(Status(404), operation="storage.download")
    assert [await download() for _ in range(2)] == [404, 200]
    assert everywhere.fired == 0
    assert service.sandbox.count("storage.download") == 3
    assert service.sandbox.count("storage.download", 200) == 2
    assert service.sandbox.count("storage.download", LOST) == 1
    assert service.sandbox.count(None, 200) == 2  # downloads are no operation of the contract
    with pytest.raises(ValueError, match="about the token"):
        service.sandbox.inject(RefuseToken(), operation="storage.download")


async def test_faults_of_different_kinds_befall_one_request_in_their_order(service: Service) -> None:
    sandbox = service.sandbox
    kept = [sandbox.inject(LoseAnswer()), sandbox.inject(Status(500))]
    sandbox.inject(RateLimit(1, 3_600), times=1)
    sandbox.inject(LoseRequest())
    sandbox.inject(Delay(0.01), times=3)

    assert (await service.create()).status == LOST
    assert [injection.fired for injection in kept] == [0, 0]
    assert [(await service.create()).status for _ in range(4)] == [LOST, 429, 500, 200]

    assert [(record.fault, record.effect) for record in sandbox.log][-5:] == [
        ("Delay+LoseRequest", False),
        ("Delay+LoseAnswer", True),  # the first of those that decide, and the one request of the limit
        ("Delay+RateLimit", False),
        ("Status", False),
        (None, True),
    ]
    assert sandbox.injections == ()


async def test_skipped_and_timed_and_removed(service: Service) -> None:
    sandbox = service.sandbox
    sandbox.inject(Status(503), skip=2, times=2)
    assert [(await service.groups()).status for _ in range(5)] == [200, 200, 503, 503, 200]

    removed = sandbox.inject(Status(503), times=None)
    assert (await service.groups()).status == 503
    removed.remove()
    assert (await service.groups()).status == 200

    sandbox.inject(Status(503), times=None, seconds=0.05)
    await asyncio.sleep(0.06)
    assert (await service.groups()).status == 200

    sandbox.inject(Status(503), times=None)
    sandbox.inject(Status(503), times=None)
    sandbox.clear_faults()
    assert ((await service.groups()).status, sandbox.injections) == (200, ())


async def test_a_share_befalls_the_same_requests_with_the_same_seed(begin: Any) -> None:
    runs = []
    for seed in (1, 1, 2):
        service = await begin(fault_seed=seed)
        injection = service.sandbox.inject(Status(503), times=None, share=0.5)
        runs.append([(await service.groups()).status for _ in range(40)])
        assert injection.fired == runs[-1].count(503)
        assert 0 < injection.fired < 40

    assert runs[0] == runs[1] != runs[2]


async def test_every_effect_is_counted_when_hundreds_lose_their_answers(begin: Any) -> None:
    service = await begin(fault_seed=7)
    sandbox = service.sandbox
    answer = sandbox.inject(LoseAnswer(), operation=CREATE, times=None, share=0.3)
    request = sandbox.inject(LoseRequest(), operation=CREATE, times=None, share=0.3)

    seen = await asyncio.gather(*(service.create(str(n)) for n in range(200)))

    made = {group["group_name"] for group in (await service.groups()).json}
    told = {group.json["group_name"] for group in seen if group.status == 200}
    assert sandbox.effects[CREATE] == len(made) == 200 - request.fired
    assert told < made
    assert len(made - told) == answer.fired > 0
    records = [record for record in sandbox.log if record.operation == CREATE]
    assert sum(record.effect for record in records) == len(made)
    assert {record.body["group_name"] for record in records if record.fault == "LoseAnswer"} == made - told
    assert sandbox.count(CREATE) == len(told)
    assert sandbox.count(CREATE, LOST) == answer.fired + request.fired


async def test_connections_of_others_stay(service: Service) -> None:
    service.sandbox.inject(Delay(0.1))
    late = asyncio.create_task(service.groups())
    await service.waiting()
    service.sandbox.inject(LoseAnswer())

    assert (await service.groups()).status == LOST
    assert (await late).status == 200


@pytest.mark.parametrize("fault", [LoseRequest(), Status(503), LoseAnswer()], ids=repr)
async def test_an_upload_is_befallen_too(service: Service, fault: SandboxFault) -> None:
    group = await numbered(service, 0)
    service.sandbox.inject(fault, operation="customers.check")
    form = aiohttp.FormData()
    form.add_field("workspace_id", service.sandbox.workspace_id)
    form.add_field("customer_group_id", group)
    form.add_field("file", io.BytesIO(b"n\n" + b"1\n" * 300_000), filename="f.csv", content_type="text/csv")

    seen = await service.send("POST", "/v1/customer/check", data=form)

    assert seen.status in {LOST, getattr(fault, "status", LOST)}
    await service.sandbox.drain(hurry=True)
    assert await service.counted(group) == (3_000 if isinstance(fault, LoseAnswer) else 0)
    assert service.sandbox.effects["customers.check"] == isinstance(fault, LoseAnswer)


async def test_a_rerun_whose_answer_is_lost_has_begun(service: Service) -> None:
    group = await numbered(service, 2)
    campaign = await service.sandbox.create_campaign("c", group)
    service.sandbox.inject(LoseAnswer(), operation="reruns.initiate")
    body = {"campaign_id": campaign, "new_customer_group_id": group}

    seen = await service.send("POST", "/v1/campaign/rerun/initiate", json=body)

    assert seen.status == LOST
    assert service.sandbox.effects["reruns.initiate"] == 1
    history = await service.send("POST", "/v1/campaign/rerun/history", json={"campaign_id": campaign})
    assert {run["run_number"] for run in history.json} == {1, 2}


async def test_effects_survive_a_restart_and_faults_do_not(begin: Any, tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    first = await begin(db=file, page_size=2)
    group = await numbered(first, 4)
    first.sandbox.inject(LoseAnswer())
    assert (await first.create()).status == LOST
    first.sandbox.inject(ShiftPages())
    assert await first.numbers(group, 1) == [1, 2]
    first.sandbox.inject(RevokeTokens())
    assert (await first.groups()).status == 403
    first.sandbox.inject(Status(503), times=None)
    await first.sandbox.aclose()

    second = await begin(db=file, page_size=2)

    assert second.sandbox.injections == ()
    assert [group["group_name"] for group in (await second.groups()).json] == ["group", "x"]
    assert await second.numbers(group, 1) == [0, 1]
    assert (await second.send("POST", "/v1/campaign/all", json={}, token=first.driver.token)).status == 403


# --- without a socket, and with a client that leaves -------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "effects"), [(LoseAnswer(), 1), (LoseRequest(), 0)], ids=["answer", "request"])
async def test_a_connection_in_memory_breaks_too(fault: SandboxFault, effects: int) -> None:
    async with Sandbox(listen=False) as sandbox, InProcessTransport(sandbox.app) as transport:
        token = sandbox._now.office.issue(sandbox.account_id, "access")
        body = json.dumps({"workspace_id": sandbox.workspace_id, "group_name": "x"}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = Request(method="PUT", url=f"{sandbox.url}/v1/cg", headers=headers, body=body)
        sandbox.inject(fault)

        with pytest.raises(OutcomeUnknownError):
            await transport.send(request)

        assert sandbox.effects[CREATE] == effects
        assert (sandbox.log[-1].status, sandbox.log[-1].effect) == (LOST, bool(effects))
        assert (await transport.send(request)).status == 200


async def test_work_of_a_client_that_went_away_is_counted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(listen=False) as sandbox, InProcessTransport(sandbox.app) as transport:
        token = sandbox._now.office.issue(sandbox.account_id, "access")
        body = json.dumps({"workspace_id": sandbox.workspace_id, "group_name": "x"}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        begun, write = asyncio.Event(), sandbox._now.store.write

        async def slow(work: Any) -> Any:
            begun.set()
            await asyncio.sleep(0.05)
            return await write(work)

        monkeypatch.setattr(sandbox._now.store, "write", slow)
        request = Request(method="PUT", url=f"{sandbox.url}/v1/cg", headers=headers, body=body)
        sending = asyncio.create_task(transport.send(request))
        await begun.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(10):
            while not sandbox.log:
                await asyncio.sleep(0.01)

        assert sandbox.effects[CREATE] == 1
        assert (sandbox.log[-1].status, sandbox.log[-1].effect, sandbox.log[-1].fault) == (LOST, True, None)


async def test_an_upload_whose_client_went_away_at_the_end_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(listen=False, queue_above=0) as sandbox, InProcessTransport(sandbox.app) as transport:
        await sandbox.create_profile_field("n", "number")
        group = await sandbox.create_customer_group("group")
        token = sandbox._now.office.issue(sandbox.account_id, "access")
        customers = {"workspace_id": sandbox.workspace_id, "customer_group_id": group, "customers": [{"n": 1}]}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        finishing, finish = asyncio.Event(), Upload.finish

        def slow(*args: Any, **options: Any) -> Any:
            loop.call_soon_threadsafe(finishing.set)
            time.sleep(0.05)
            return finish(*args, **options)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(Upload, "finish", slow)
        body = json.dumps(customers).encode()
        url = f"{sandbox.url}/v1/customer/check"
        sending = asyncio.create_task(transport.send(Request(method="POST", url=url, headers=headers, body=body)))
        await finishing.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(10):
            while not sandbox.log:
                await asyncio.sleep(0.01)
        await sandbox.drain()

        assert (sandbox.effects["customers.check"], sandbox.log[-1].effect) == (1, True)
        query = "SELECT count(*) AS n FROM customers"
        assert await sandbox._now.store.read(lambda db: db.one(query)["n"]) == 1


# --- what is refused at once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SOME.Status("503"), TypeError, "status must be a whole number, not str"),
        (lambda: SOME.Status(True), TypeError, "status must be a whole number, not bool"),
        (lambda: SOME.Status(100), ValueError, "status must be at least 300, not 100"),
        (
            lambda: SOME.Status(200),
            ValueError,
            r"status must be at least 300, not 200: .* is a BadAnswer\(body, status=",
        ),
        (lambda: SOME.Status(299), ValueError, "status must be at least 300, not 299"),
        (lambda: SOME.Status(600), ValueError, "status must be at most 599"),
        (lambda: SOME.Status(503, retry_after="1"), TypeError, "retry_after must be a number"),
        (lambda: SOME.Status(503, retry_after=-1), ValueError, "retry_after must be at least 0"),
        (lambda: SOME.Status(503, retry_after=float("nan")), ValueError, "retry_after must be at least 0"),
        (lambda: SOME.Status(503, retry_after=datetime(2030, 1, 1)), ValueError, "retry_after must have a time zone"),  # noqa: DTZ001
        (lambda: SOME.Status(503, body="text"), TypeError, "body must be bytes, not str"),
        (lambda: SOME.Status(503, headers=[("a", "b")]), TypeError, "headers must be a mapping"),
        (lambda: SOME.Status(503, headers={1: "b"}), TypeError, "headers must have texts for names"),
        (lambda: SOME.Status(503, headers={"a b": "b"}), ValueError, "headers has a name that is none of a header"),
        (lambda: SOME.Status(503, headers={"a": 1}), TypeError, r"headers\['a'\] must be a text, not int"),
        (lambda: SOME.Status(503, headers={"a": "b\r\nc: d"}), ValueError, r"headers\['a'\] is no value of a header"),
        (lambda: SOME.Status(503, headers={"content-length": "5"}), ValueError, "headers must leave content-length"),
        (lambda: SOME.Status(503, after_work=1), TypeError, "after_work must be True or False, not int"),
        (lambda: SOME.Status(503, 5), TypeError, "positional"),
        (lambda: SOME.Delay(-1), ValueError, "seconds must be at least 0"),
        (lambda: SOME.Delay(10**400), ValueError, "seconds must be at least 0"),
        (lambda: SOME.Delay(math.inf), ValueError, "seconds must be at least 0 and below 2\\*\\*63, not inf"),
        (lambda: SOME.Delay("1s"), TypeError, "seconds must be a number, not str"),
        (lambda: SOME.Delay(1, before_work="no"), TypeError, "before_work must be True or False"),
        (lambda: SOME.RefuseToken(status=200), ValueError, "status must be 401 or 403, .*, not 200"),
        (lambda: SOME.RefuseToken(status=404), ValueError, "status must be 401 or 403, .*, not 404"),
        (lambda: SOME.RefuseToken(status="401"), TypeError, "status must be 401 or 403, .*, not str"),
        (lambda: SOME.RefuseToken(status=True), TypeError, "status must be 401 or 403, .*, not bool"),
        (lambda: SOME.RefuseToken(delay=-1), ValueError, "delay must be at least 0"),
        (lambda: SOME.RevokeTokens(refresh_tokens="yes"), TypeError, "refresh_tokens must be True or False"),
        (lambda: SOME.BadAnswer("text"), TypeError, "body must be bytes, or a function"),
        (lambda: SOME.BadAnswer(b"", content_type=None), TypeError, "content_type must be a text"),
        (lambda: SOME.BadAnswer(b"", content_type="a\nb"), ValueError, "content_type is no value of a header"),
        (lambda: SOME.BadAnswer(b"", status=100), ValueError, "status must be at least 200"),
        (lambda: SOME.BadAnswer(b"", headers={"Transfer-Encoding": "x"}), ValueError, "headers must leave Transfer-"),
        (lambda: SOME.ShiftPages(0), ValueError, "by must not be 0"),
        (lambda: SOME.ShiftPages(1.5), TypeError, "by must be a whole number"),
        (lambda: SOME.ShiftPages(2**40), ValueError, "by must be at most"),
        (lambda: SOME.RateLimit(0, 1), ValueError, "requests must be at least 1"),
        (lambda: SOME.RateLimit(1, 0), ValueError, "per must be above 0"),
        (lambda: SOME.RateLimit(1, -1), ValueError, "per must be at least 0"),
        (lambda: SOME.RateLimit(1, 1, retry_after="no"), ValueError, 'retry_after must be True, False or "date"'),
        (lambda: SOME.RateLimit(1, 1, retry_after=5), TypeError, 'retry_after must be True, .* or "date", not int'),
    ],
)
def test_a_fault_that_cannot_be_is_refused_when_it_is_made(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("fault", "options", "error", "message"),
    [
        (Status, {}, TypeError, "fault must be one of BadAnswer, Delay, .*; got .*type"),
        (503, {}, TypeError, "fault must be one of .*; got int"),
        (SandboxFault(), {}, TypeError, "fault must be one of .*; got SandboxFault"),
        (LoseAnswer(), {"operation": "customers.lits"}, ValueError, "There is no operation 'customers.lits'"),
        (LoseAnswer(), {"operation": "/v1/cg"}, ValueError, "There is no operation"),
        (LoseAnswer(), {"operation": ["customers.list"]}, TypeError, "operation must be a text .*, not list"),
        (RefuseToken(), {"operation": ["customers.list"]}, TypeError, "operation must be a text .*, not list"),
        (ShiftPages(), {"operation": "customer.list"}, ValueError, "no operation 'customer.list'. Perhaps customers"),
        (LoseAnswer(), {"times": 0}, ValueError, "times must be a whole number, 1 or more, .*; got 0"),
        (LoseAnswer(), {"times": 1.0}, TypeError, "times must be a whole number, .*; got float"),
        (LoseAnswer(), {"skip": -1}, ValueError, "skip must be a whole number, 0 or more; got -1"),
        (LoseAnswer(), {"skip": None}, TypeError, "skip must be a whole number, 0 or more; got None"),
        (LoseAnswer(), {"share": 1.1}, ValueError, "share must be a number above 0 and up to 1; got 1.1"),
        (LoseAnswer(), {"share": 0}, ValueError, "share must be a number above 0 and up to 1; got 0"),
        (LoseAnswer(), {"seconds": 0}, ValueError, "seconds must be a number above 0 .*; got 0"),
        (LoseAnswer(), {"seconds": "1"}, TypeError, "seconds must be a number .*; got str"),
    ],
)
async def test_an_injection_that_cannot_be_is_refused(
    service: Service, fault: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        service.sandbox.inject(fault, **options)
    assert service.sandbox.injections == ()


async def test_an_edition_has_only_its_own_operations(begin: Any) -> None:
    service = await begin(edition=1)

    with pytest.raises(ValueError, match=r"There is no operation 'reruns\.initiate'"):
        service.sandbox.inject(LoseAnswer(), operation="reruns.initiate")
    with pytest.raises(ValueError, match=r"There is no operation 'reruns\.initiate'"):
        service.sandbox.count("reruns.initiate")


@pytest.mark.parametrize("seed", ["1", 1.5, True])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(TypeError, match="fault_seed must be a whole number"):
        Sandbox(fault_seed=seed)


def test_a_sandbox_that_does_not_run_has_no_faults() -> None:
    sandbox = Sandbox()
    for use in (lambda: sandbox.inject(LoseAnswer()), lambda: sandbox.injections, sandbox.clear_faults):
        with pytest.raises(SandboxError, match="not running"):
            use()


def test_faults_are_values() -> None:
    headers = {"a": "b"}
    fault = Status(503, headers=headers)
    headers["a"] = "c"

    assert fault == Status(503, headers={"a": "b"}) != Status(503)
    assert len({fault, Status(503, headers={"a": "b"}), Delay(1), Delay(1)}) == 2
    assert pickle.loads(pickle.dumps(fault)) == fault
    assert "secret" not in repr(BadAnswer(b"secret"))
    with pytest.raises(AttributeError):
        fault.status = 200  # type: ignore[misc]


# --- from the shell ---------------------------------------------------------------------------------------------------


async def run(*options: str, work: Callable[[str, dict[str, str]], Any]) -> Any:
    """What ``work`` gives while the command runs with the options; it must end silently."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "nudgescribe_async.sandbox", "--port", "0", "--no-example", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("Ctrl-C."):
        line = (await process.stdout.readline()).decode()
        assert line, (await process.communicate())[1].decode()
        text += line
    variables = dict(re.findall(r"^export NUDGESCRIBE_(\w+)=(\S+)$", text, re.MULTILINE))
    try:
        return await work(variables["BASE_URL"], variables)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (0, b"", b"")


async def log_in_often(url: str, variables: dict[str, str]) -> list[tuple[int, str | None]]:
    seen: list[tuple[int, str | None]] = []
    body = {"email": variables["EMAIL"], "password": variables["PASSWORD"]}
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(url, connector=connector, headers={"x-api-key": variables["API_KEY"]}) as http:
        for _ in range(40):
            try:
                async with http.post("/v1/auth", json=body) as answer:
                    seen.append((answer.status, answer.headers.get("Retry-After")))
            except aiohttp.ServerDisconnectedError:
                seen.append((LOST, None))
    return seen


@pytest.mark.slow
async def test_the_command_has_the_most_useful_faults() -> None:
    options = ("--error-rate", "30%", "--lose-answers", "0.3", "--fault-seed", "5")
    first = await run(*options, work=log_in_often)
    again = await run(*options, "--rate-limit", "38/h", work=log_in_often)

    statuses = [status for status, _ in first]
    assert min(statuses.count(200), statuses.count(503), statuses.count(LOST)) > 3
    assert again[:38] == first[:38]
    assert [status for status, _ in again[38:]] == [429, 429]
    assert 3_000 < int(str(again[-1][1])) <= 3_600


@pytest.mark.parametrize(
    ("text", "part"), [("5%", 0.05), ("0.05", 0.05), ("100%", 1), ("1", 1), ("0", 0), (" .5 % ", 0.005)]
)
def test_shares_are_read(text: str, part: float) -> None:
    assert share(text) == pytest.approx(part)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("10/s", RateLimit(10, 1)),
        ("100/min", RateLimit(100, 60)),
        ("5/10s", RateLimit(5, 10)),
        (" 1 / 1.5 S ", RateLimit(1, 1.5)),
        ("7/h", RateLimit(7, 3_600)),
    ],
)
def test_rates_are_read(text: str, limit: RateLimit) -> None:
    assert rate(text) == limit


@pytest.mark.parametrize(
    ("option", "text", "kind"),
    [
        *(("--error-rate", text, "a share such as 5% or 0.05") for text in ("5", "101%", "x", "", "%", "-1%", "nan")),
        ("--lose-answers", "many", "a share such as 5% or 0.05"),
        *(
            ("--rate-limit", text, "a rate such as 10/s or 100/min")
            for text in ("10", "10/", "/s", "0/s", "10/0s", "10/y", "10/..s", "ten/s", "1.5/s")
        ),
    ],
)
def test_bad_options_are_one_sentence(capsys: pytest.CaptureFixture[str], option: str, text: str, kind: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([f"{option}={text}"])

    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: argument {option}: {text!r} is not {kind}")
