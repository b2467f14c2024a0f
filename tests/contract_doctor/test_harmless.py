"""What the doctor asks changes nothing, is little, and ends when it is told to."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, cast

import pytest

from nudgescribe_async import (
    AuthenticationError,
    ConfigurationError,
    Credentials,
    Request,
    RequestNotSentError,
    TransportError,
)
from nudgescribe_async.clock import SystemClock
from nudgescribe_async.contract_doctor import ContractReport, Difference, examine
from nudgescribe_async.contract_doctor.contract import Contract
from nudgescribe_async.contract_doctor.watching import NOTHING, Watching
from nudgescribe_async.sandbox import LoseAnswer, RateLimit, Sandbox, Status
from nudgescribe_async.testing import FaultProxy, ScriptedTransport, Stall, VirtualClock, answer

CREDENTIALS = Credentials(api_key="key", email="someone@example.org", password="password")


async def look(sandbox: Sandbox, **options: Any) -> Any:
    return await examine(sandbox.credentials, base_url=sandbox.url, **({"pause": 0.0} | options))


async def test_every_operation_that_only_reads_is_asked_and_no_other() -> None:
    async with Sandbox(example=True) as sandbox:
        report = await look(sandbox)
        asked = {record.operation for record in sandbox.log}
        assert sandbox.effects == {}
    harmless = {each.name for each in Contract.load().operations if each.effect == "read"} | {"auth.authenticate"}
    assert asked == harmless
    assert {each.operation for each in report.asked} == harmless


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/other"),
        *(
            (each.method, each.path)
            for each in Contract.load().operations
            if each.effect != "read" and each.name != "auth.authenticate"
        ),
    ],
)
async def test_nothing_else_gets_through(method: str, path: str) -> None:
    inner = ScriptedTransport()
    watching = Watching(inner, Contract.load(), 10, 0.0, VirtualClock())
    with pytest.raises(RequestNotSentError):
        await watching.send(Request(method=method, url=f"https://example.org{path}"))
    assert not inner.requests
    assert not watching.sent


async def test_the_limit_of_requests_is_kept_and_told() -> None:
    async with Sandbox(example=True) as sandbox:
        report = await look(sandbox, max_requests=5)
        assert len(sandbox.log) == report.requests == 5
    assert not report.complete
    assert "limit of requests" in str(report)
    watching = Watching(ScriptedTransport(), Contract.load(), 0, 0.0, VirtualClock())
    with pytest.raises(RequestNotSentError, match="as many"):
        await watching.send(Request(method="POST", url="https://example.org/v1/cg"))


async def test_a_limit_that_is_just_enough_cuts_nothing_short() -> None:
    async with Sandbox(example=True) as sandbox:
        whole = await look(sandbox)
        enough = await look(sandbox, max_requests=whole.requests)
    assert enough == whole
    assert enough.complete


async def test_without_credentials_all_settings_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(example=True) as sandbox:
        given = sandbox.credentials
        for name, value in (("API_KEY", given.api_key), ("EMAIL", given.email), ("PASSWORD", given.password)):
            monkeypatch.setenv(f"NUDGESCRIBE_{name}", value)
        monkeypatch.setenv("NUDGESCRIBE_BASE_URL", sandbox.url)
        report = await examine(pause=0.0, max_requests=3)
        assert len(sandbox.log) == report.requests == 3
    monkeypatch.delenv("NUDGESCRIBE_API_KEY")
    with pytest.raises(ConfigurationError, match="NUDGESCRIBE_API_KEY"):
        await examine()


class NotingClock(SystemClock):
    """Notes what is waited for, and waits for nothing."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


async def test_requests_come_one_after_the_other_with_a_pause() -> None:
    clock = NotingClock()
    transport = ScriptedTransport()
    under_way = 0

    async def slowly(_: object) -> Any:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0)
        under_way -= 1
        return answer(200, [])

    for operation in ("campaigns.list", "customer_groups.list", "profile_fields.list"):
        transport.on(operation, slowly)
    report = await examine(CREDENTIALS, transport=transport, pause=2.0, clock=clock, workspace_id="w")
    assert report.requests == len(transport.requests) == 4
    assert clock.waited == [2.0, 2.0, 2.0]
    assert "no campaign is known" in str(report)
    assert transport.closed


async def test_a_request_for_fewer_requests_ends_it() -> None:
    async with Sandbox(example=True) as sandbox:
        sandbox.inject(RateLimit(5, per=3_600.0))
        report = await look(sandbox)
        assert len(sandbox.log) == report.requests
    assert report.requests < 10
    assert not report.complete
    assert "fewer requests" in str(report)
    assert "limit of requests" not in str(report)
    assert "RateLimited (an answer)" in [each.name for each in report.confirmed]


async def test_a_service_in_trouble_is_no_difference() -> None:
    async with Sandbox(example=True) as sandbox:
        sandbox.inject(Status(500), operation="customers.list")
        sandbox.inject(Status(403), operation="messages.fetch")
        sandbox.inject(LoseAnswer(), operation="reruns.history")
        report = await look(sandbox)
        logins = sandbox.count("auth.authenticate")
    assert report.conforms, str(report)
    assert logins == 1
    assert not report.complete
    assert report.unanswered == (
        "customers.list: refused with 500",
        "reruns.history: nothing came (OutcomeUnknownError)",
        "messages.fetch: refused with 403",
    )


async def test_what_is_refused_now_and_then_is_told_once(tool: Any) -> None:
    def refuse(path: str, asked: dict[str, Any], answer: Any) -> None:
        if asked.keys() & {"published_from", "published_to"}:
            answer.status = 500
        if path == "/v1/messages/pages":
            answer.status = 403
        if answer.status != 200:
            answer.json = {"success": False, "message": "no", "code": "no"}

    report = await tool.examine(tool.plant(refuse))
    assert report.conforms
    assert report.unanswered == ("campaigns.list: refused with 500", "messages.count_pages: refused with 403")


async def test_no_answer_at_all_is_told(sandbox: Sandbox) -> None:
    transport = ScriptedTransport()
    for operation in ("campaigns.list", "customer_groups.list", "profile_fields.list"):
        transport.on(operation, RequestNotSentError("The connection was refused."))
    report = await examine(CREDENTIALS, transport=transport, workspace_id="w", pause=0.0)
    assert "campaigns.list: nothing came (RequestNotSentError)" in report.unanswered
    assert not report.complete


async def test_refused_credentials_are_an_error() -> None:
    async with Sandbox() as sandbox:
        wrong = Credentials(api_key="wrong", email="someone@example.org", password="wrong")
        with pytest.raises(AuthenticationError):
            await examine(wrong, base_url=sandbox.url, pause=0.0)


async def test_a_service_that_is_not_there_is_an_error() -> None:
    async with Sandbox() as sandbox:
        url = sandbox.url
    with pytest.raises(TransportError):
        await examine(CREDENTIALS, base_url=url, pause=0.0)


async def test_a_login_without_a_token_ends_with_what_was_found() -> None:
    transport = ScriptedTransport()
    transport.on("auth.authenticate", answer(200, {"token": "abc"}))
    report = await examine(CREDENTIALS, transport=transport, pause=0.0)
    assert [each.kind for each in report.findings] == [Difference.ENVELOPE]
    assert report.requests == 1
    assert "no token was obtained" in str(report)


async def test_an_account_with_nothing_in_it_conforms() -> None:
    async with Sandbox() as sandbox:
        report = await look(sandbox, workspace_id=sandbox.workspace_id)
        nothing = await look(sandbox)
    assert report.conforms
    assert report.complete
    assert "the pages of customers, since no group is known" in report.skipped
    assert "customer_groups.list and profile_fields.list, since no workspace is known" in nothing.skipped


async def test_a_group_without_customers_is_passed_over_and_a_campaign_without_files_is_told() -> None:
    async with Sandbox(example=True) as sandbox:
        workspace = await sandbox.create_workspace("other")
        for name in ("a", "b"):
            await sandbox.create_customer_group(name, workspace_id=workspace)
        unpublished = sandbox.example.campaigns["Thank you"]
        report = await look(sandbox, workspace_id=workspace, campaign_id=unpublished)
        empty = await look(sandbox, workspace_id=workspace, customer_group_id=await sandbox.create_customer_group("c"))
    assert report.conforms
    assert "messages.fetch, since the campaign has no file" in report.skipped
    assert "how the pages of customers.list are counted, since there is none" in empty.skipped


@pytest.mark.parametrize("options", [{"max_requests": 0}, {"pause": -1}, {"patience": 0}])
async def test_wrong_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        await examine(CREDENTIALS, **options)
    with pytest.raises(TypeError, match="must be"):
        await examine(CREDENTIALS, **{name: cast("Any", "x") for name in options})


async def test_wrong_credentials_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        await examine(Credentials(api_key="", email="a", password="b"))


async def test_cancelling_leaves_nothing_behind() -> None:
    async with Sandbox(example=True, latency=0.05) as sandbox:
        task = asyncio.create_task(look(sandbox))
        while not sandbox.log and not task.done():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_answer_that_is_too_long_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nudgescribe_async.contract_doctor.watching.MAX_ANSWER_BYTES", 20_000)
    async with Sandbox(example=True) as sandbox:
        report = await look(sandbox)
    assert {(each.kind, each.operation) for each in report.findings} == {
        (Difference.NOT_JSON, "customers.list"),
        (Difference.NOT_JSON, "messages.fetch"),
    }
    assert "more than anybody reads" in str(report)


async def test_answers_that_never_end_do_not_hold_it_up_for_long() -> None:
    async with Sandbox(example=True) as sandbox, FaultProxy(sandbox.url) as proxy:
        for operation in ("campaigns.list", "customer_groups.list", "profile_fields.list", "customers.count_pages"):
            proxy.inject(Stall(at="body"), operation=operation)
        report = await examine(
            sandbox.credentials, base_url=proxy.url, pause=0.0, patience=0.3, workspace_id="w", customer_group_id="g"
        )
    assert report.unanswered[0] == "campaigns.list: nothing came (DeadlineExceededError)"
    assert report.unanswered[-1] == "all answers together took more than 0.3 s, so nothing more was asked"
    assert report.requests <= 3  # the second one too, if the clocks differ by a hair
    assert not report.complete


async def test_slow_answers_end_it_and_pauses_do_not() -> None:
    clock = Hurrying()

    async def slowly(_: object) -> Any:
        clock.ahead += 100.0
        return answer(200, [])

    async def look(patience: float) -> ContractReport:
        transport = ScriptedTransport()
        for operation in ("campaigns.list", "customer_groups.list", "profile_fields.list"):
            transport.on(operation, slowly)
        return await examine(
            CREDENTIALS, transport=transport, pause=1_000.0, patience=patience, clock=clock, workspace_id="w"
        )

    report = await look(150.0)
    assert report.requests == 3
    assert report.unanswered == ("all answers together took more than 150 s, so nothing more was asked",)
    report = await look(1_000.0)
    assert report.requests == 4
    assert report.complete, str(report)


class Hurrying(SystemClock):
    """Waits for nothing, and time passes all the same."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def time(self) -> float:
        return super().time() + self.ahead

    async def sleep(self, seconds: float) -> None:
        self.ahead += seconds


async def test_it_logs_in_once_even_if_the_token_expires() -> None:
    clock, transport = Hurrying(), ScriptedTransport()

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    def token(seconds: float) -> str:
        now = round(clock.time())
        return f"{part({'alg': 'none'})}.{part({'iat': now, 'exp': now + seconds})}.x"

    def login(_: object) -> Any:
        return answer(200, {"access_token": token(8), "refresh_token": token(9_999), "expires_in": 8})

    transport.on("auth.authenticate", login)
    for operation in ("campaigns.list", "customer_groups.list", "profile_fields.list"):
        transport.on(operation, answer(200, []))
    report = await examine(CREDENTIALS, transport=transport, pause=5.0, clock=clock, workspace_id="w")
    assert transport.count("auth.authenticate") == 1
    assert not report.complete


async def test_requests_at_once_are_not_too_many_either() -> None:
    inner = ScriptedTransport()
    inner.on("campaigns.list", answer(200, []))
    watching = Watching(inner, Contract.load(), 2, 0.0, SystemClock())
    request = Request(method="POST", url="https://example.org/v1/campaign/all")
    results = await asyncio.gather(*(watching.send(request) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(each, RequestNotSentError) for each in results) == 2
    assert len(inner.requests) == 2


async def test_of_what_came_before_no_values_are_kept() -> None:
    inner = ScriptedTransport()
    inner.on("campaigns.list", answer(200, ["large"]))
    watching = Watching(inner, Contract.load(), 2, 0.0, SystemClock())
    for _ in range(2):
        await watching.send(Request(method="POST", url="https://example.org/v1/campaign/all"))
    assert [each.value for each in watching.exchanges] == [NOTHING, ["large"]]


NOTHING_ELSE: dict[str, Any] = {"campaigns.list": [], "customer_groups.list": [], "profile_fields.list": []}


@pytest.mark.parametrize(
    "answers",
    [
        {"messages.count_pages": {"pages": 1}, "messages.fetch": {"url": "https://[anna/x"}},
        {"messages.count_pages": {"pages": 1}, "messages.fetch": {"url": "https://anna\u2100schmidt/x"}},
        {"messages.count_pages": {"pages": 2**63}, "messages.fetch": {"url": "https://x.invalid"}},
        {"customers.count_pages": {"pages": 2**63}, "customers.list": [{"customer_id": "c"}]},
        {"reruns.history": [{"run_number": True}]},
        {"reruns.history": [{"run_number": 2**63}]},
    ],
)
async def test_what_no_service_means_is_a_report_and_no_error(answers: dict[str, Any]) -> None:
    transport = ScriptedTransport()
    rest = {
        "customers.count_pages": 0,
        "customers.list": [],
        "reruns.history": [],
        "reruns.messages": [],
        "messages.count_pages": 0,
    }
    for operation, value in (NOTHING_ELSE | rest | answers).items():
        transport.on(operation, answer(200, value))
    report = await examine(
        CREDENTIALS, transport=transport, pause=0.0, workspace_id="w", customer_group_id="g", campaign_id="c"
    )
    assert report.requests == len(transport.requests)
    assert "anna" not in str(report) + report.to_json()
