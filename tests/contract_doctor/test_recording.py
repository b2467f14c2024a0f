"""A recording holds nothing of anybody, and replays: the same report, and what users' tests want of it."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from nudgescribe_async import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    Credentials,
    Nudgescribe,
    OutcomeUnknownError,
    Request,
    RequestNotSentError,
    RetryPolicy,
)
from nudgescribe_async.contract_doctor import (
    NotRecordedError,
    RecordingTransport,
    ReplayingTransport,
    examine,
    examine_recording,
)
from nudgescribe_async.contract_doctor.contract import Contract
from nudgescribe_async.contract_doctor.disguise import Disguise
from nudgescribe_async.contract_doctor.forms import form_of
from nudgescribe_async.sandbox import LoseAnswer, Sandbox, Status
from nudgescribe_async.testing import ScriptedTransport, answer
from nudgescribe_async.transport.aiohttp import AiohttpTransport

MARK = "MARKED"
ANYBODY = Credentials(api_key="k", email="e@example.org", password="p")
ONCE = RetryPolicy(attempts=1)


def client(transport: Any, **options: Any) -> Nudgescribe:
    return Nudgescribe(ANYBODY, **({"transport": transport, "base_url": "https://example.org"} | options))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("edition", [1, 2, 3])
@pytest.mark.parametrize("given", [False, True])
async def test_a_recorded_session_has_the_same_report(tmp_path: Path, edition: int, given: bool) -> None:
    path = tmp_path / "session.jsonl"
    async with Sandbox(example=True, edition=edition, rows_per_file=100) as sandbox:
        ids: dict[str, Any] = {
            "workspace_id": sandbox.workspace_id,
            "customer_group_id": sandbox.example.customer_groups["Returning customers"],
            "campaign_id": sandbox.example.campaigns["Spring sale"],
        }
        live = await examine(
            sandbox.credentials, base_url=sandbox.url, pause=0.0, record=path, **(ids if given else {})
        )
    assert await examine_recording(path) == live
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_differences_and_limits_are_replayed_too(tool: Any, tmp_path: Path) -> None:
    def change(path: str, asked: dict[str, Any], answer: Any) -> None:
        if path == "/v1/cg":
            answer.json = {"data": [{**item, "tier": "gold", "x 1": 1} for item in answer.json], "secret 1": "x"}
        if path == "/v1/cpf":
            answer.json, answer.data = None, b"<html>"
        if path == "/v1/customer/pages":
            answer.json = answer.json["pages"]
        if path == "/v1/campaign/rerun/history":
            answer.json = {"by": answer.json[0]}
        if path == "/v1/campaign/rerun/messages":
            answer.json, answer.data = None, b"sorry, no"
        if path == "/v1/messages/pages":
            answer.json = {"total": 3, "pages": answer.json["pages"]}

    for number, limit in enumerate((40, 12)):
        path = tmp_path / str(number)
        live = await tool.examine(tool.plant(change), record=path, max_requests=limit)
        assert not live.conforms
        assert await examine_recording(path) == live


async def test_nothing_of_anybody_gets_in(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    async with Sandbox(example=True, rows_per_file=100) as sandbox:
        await sandbox.create_profile_field(f"{MARK}_field", "string")
        customers = [{"external_id": f"{MARK}-{number}", f"{MARK}_field": f"{MARK} value"} for number in range(3)]
        group = await sandbox.create_customer_group(f"{MARK} group", customers=customers)
        campaign = await sandbox.create_campaign(
            f"{MARK} campaign", group, segment_by={f"{MARK}_field": None}, template=f"{MARK} text", status="Published"
        )
        tokens: list[str] = []

        class Listening(AiohttpTransport):
            async def send(self, request: Request) -> Any:
                tokens.append(request.headers.get("authorization", "").removeprefix("Bearer "))
                return await super().send(request)

        transport = RecordingTransport(Listening(), path)
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, transport=transport, api_code=MARK) as ns:
            found = await ns.customers.list(group)
            assert await ns.messages.fetch(campaign, 1)
            rows = await ns.messages.fetch(campaign, 1, format="json")
            link = await ns.messages.fetch(campaign, 1, format="url")
            assert MARK in json.dumps(rows)
            await ns.messages.download(campaign, tmp_path / "files")
            await ns.reruns.history(campaign)
            await ns.reruns.messages(campaign)
            await ns.campaigns.list()
            await ns.customer_groups.list(sandbox.workspace_id)
            await ns.profile_fields.list(sandbox.workspace_id)
            await ns.customers.check(sandbox.workspace_id, group, customers=customers)
            await ns.customer_groups.create(sandbox.workspace_id, MARK)
            with pytest.raises(BadRequestError):
                await ns.customers.count_pages(MARK)
        owner = sandbox.credentials
        secret = {owner.api_key, owner.email, owner.password, owner.account_id, sandbox.workspace_id, group, campaign}
        secret |= {link.url, *link.url.split("="), sandbox.url, sandbox.url.partition("//")[2], *filter(None, tokens)}
        secret |= {part for token in tokens for part in token.split(".")[1:]}
        secret |= {MARK, MARK.lower(), *(each.customer_id for each in found)}
        secret |= {str(value) for each in found for value in each.extended_profile.values()}
    text = path.read_text()
    assert len(lines(path)) > 14
    for each in secret:
        assert each not in text, each


async def test_equal_values_stay_equal_so_that_ids_still_join(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    async with (
        Sandbox(example=True) as sandbox,
        Nudgescribe(
            sandbox.credentials, base_url=sandbox.url, transport=RecordingTransport(AiohttpTransport(), path)
        ) as ns,
    ):
        groups = await ns.customer_groups.list(sandbox.workspace_id)
        real = [await ns.customers.iter(group.customer_group_id).collect() for group in groups]
    replay = ReplayingTransport(path)
    assert len(replay) == len(lines(path)) - 1
    assert str(len(replay)) in repr(replay)
    workspace = replay.first("customer_groups.list", "workspace_id")
    assert workspace is not None
    assert replay.first("campaigns.list", "published_from") is None
    async with client(replay) as ns:
        groups = await ns.customer_groups.list(workspace)
        found = [await ns.customers.iter(group.customer_group_id).collect() for group in groups]
    assert [len(customers) for customers in found] == [len(customers) for customers in real]
    for group, customers in zip(groups, found, strict=True):
        assert {each.customer_group_id for each in customers} == {group.customer_group_id}
        assert len({each.customer_id for each in customers}) == len(customers)
        assert {each.workspace_id for each in customers} == {workspace}


async def test_answers_come_one_after_the_other_and_the_last_again(tmp_path: Path) -> None:
    inner = ScriptedTransport()
    inner.on("customers.count_pages", [answer(200, {"pages": 2}), answer(200, {"pages": 3})])
    path = tmp_path / "session.jsonl"
    async with client(RecordingTransport(inner, path, notes={"why": "a test"})) as ns:
        assert [await ns.customers.count_pages("group") for _ in range(2)] == [2, 3]
    replay = ReplayingTransport(path)
    assert replay.notes == {"why": "a test"}
    group = replay.first("customers.count_pages", "customer_group_id")
    assert group is not None
    async with client(replay) as ns:
        assert [await ns.customers.count_pages(group) for _ in range(3)] == [2, 3, 3]
        with pytest.raises(NotRecordedError, match="1 with others"):
            await ns.customers.count_pages("another")
        with pytest.raises(NotRecordedError, match=r"no request of campaigns\.list"):
            await ns.campaigns.list()
    with pytest.raises(NotRecordedError, match="no operation"):
        await replay.send(Request(method="GET", url="https://example.org/"))


async def test_errors_and_refusals_are_replayed(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    async with Sandbox(example=True) as sandbox:
        sandbox.inject(LoseAnswer(), operation="campaigns.list")
        sandbox.inject(Status(429, retry_after=7), operation="customer_groups.list")
        transport = RecordingTransport(AiohttpTransport(), path)
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, transport=transport, retry=ONCE) as ns:
            with pytest.raises(OutcomeUnknownError):
                await ns.campaigns.list()
            with pytest.raises(Exception, match="429"):
                await ns.customer_groups.list("w")
    async with client(ReplayingTransport(path), retry=ONCE) as ns:
        with pytest.raises(OutcomeUnknownError):
            await ns.campaigns.list()
    assert next(line for line in lines(path) if line.get("status") == 429)["headers"]["retry-after"] == "7"


async def test_what_was_not_sent_is_recorded_as_that(tmp_path: Path) -> None:
    inner = ScriptedTransport()
    inner.on("auth.authenticate", RequestNotSentError("no"))
    path = tmp_path / "session.jsonl"
    async with client(RecordingTransport(inner, path), retry=ONCE) as ns:
        with pytest.raises(Exception, match="no"):
            await ns.campaigns.list()
    assert lines(path)[1]["error"] == "RequestNotSentError"


async def test_a_refused_login_is_recorded_without_the_credentials(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    async with Sandbox() as sandbox:
        wrong = Credentials(api_key="wrong-key", email="wrong@example.org", password="wrong-password")
        transport = RecordingTransport(AiohttpTransport(), path)
        async with Nudgescribe(wrong, base_url=sandbox.url, transport=transport) as ns:
            with pytest.raises(AuthenticationError):
                await ns.campaigns.list()
    assert "wrong" not in path.read_text()
    assert lines(path)[1]["body"] == {"email": "made-up", "password": "made-up"}


async def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    path.write_text("mine")
    inner = ScriptedTransport()
    for where, text in ((path, "is there already"), (tmp_path / "none" / "x", "cannot be recorded to")):
        async with client(RecordingTransport(inner, where)) as ns:
            with pytest.raises(ConfigurationError, match=text):
                await ns.campaigns.list()
    assert path.read_text() == "mine"
    assert not inner.requests


@pytest.mark.parametrize("text", ["", "[]\n", "x\n", '{"nudgescribe_recording": 99}\n'])
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="no recording"):
        ReplayingTransport(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ReplayingTransport(tmp_path / "none")


async def test_a_body_that_is_given_up_is_recorded_without_it_and_once(tmp_path: Path) -> None:
    inner = ScriptedTransport()
    inner.on("campaigns.list", answer(200, []))
    path = tmp_path / "session.jsonl"
    transport = RecordingTransport(inner, path)
    assert "session.jsonl" in repr(transport)
    url = "https://example.org/v1/campaign/all"
    response = await transport.send(Request(method="POST", url=url, body=b"{}"))
    await response.aclose()
    await response.aclose()
    other = await transport.send(Request(method="POST", url=url, body=b"no JSON"))
    await transport.aclose()
    await other.aclose()  # too late
    assert inner.count("campaigns.list") == 2
    await transport.aclose()
    assert [line.get("text") for line in lines(path)[1:]] == [""]


# --- made-up values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        7,
        -4711,
        3.0,
        3.25,
        1e20,
        "",
        "gold",
        "a longer text of 30 characters",
        "x" * 100,
        "x" * 300,
        "x" * 3_000,
        "x" * 5_000,
        "2025-09-08T18:18:21.462Z",
        "2025-09-08 18:18:21,4621+02:00",
        "2025-09-08T18:18Z",
        "2025-09-08",
        "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "https://example.org/x",
        "https://example.org/x?signature=1",
        "someone@example.org",
        "-12.50",
        "eyJhbGciOiJub25lIn0.e30.x",
        "eyJhbGciOiJub25lIn0.AAAA.x",
        "eyJhbGciOiJub25lIn0.W10.x",
        [1, "a"],
        {"a": 1},
    ],
    ids=str,
)
def test_a_made_up_value_has_the_same_form_and_is_another(value: Any) -> None:
    disguise = Disguise(Contract.load())
    made = disguise._any(value)
    assert form_of(made) == form_of(value)
    assert made == disguise._any(value)
    if isinstance(value, str) and len(value) > 12:  # a shorter one may be the same by chance
        assert made != value
        assert made != Disguise(Contract.load())._any(value)


def test_no_two_numbers_become_the_same() -> None:
    disguise = Disguise(Contract.load())
    assert {disguise._any(number) for number in range(1, 10)} == set(range(1, 10))
    assert len({disguise._any(number) for number in range(10, 1_000)}) == 990


def test_a_made_up_token_lives_as_long() -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"iat": 1, "exp": 1_001, "user_id": MARK}).encode()).decode()
    made = Disguise(Contract.load())._any(f"eyJhbGciOiJub25lIn0.{claims.rstrip('=')}.x").split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(made + "=="))
    assert found["exp"] - found["iat"] == 1_000
    assert found["user_id"] != MARK


def test_what_was_asked_with_is_made_up_but_for_what_the_contract_lists() -> None:
    contract = Contract.load()
    operations = {each.name: each for each in contract.operations}
    disguise = Disguise(contract)
    asked = disguise.request(operations["messages.fetch"], {"campaign_id": MARK, "page": 2, "format": "url", "x": MARK})
    assert asked["page"] == 2
    assert asked["format"] == "url"
    assert MARK not in str(asked)
    window = {"published_from": "2026-01-31T00:00:00.000Z"}
    assert disguise.request(operations["campaigns.list"], window) == window
    assert disguise.header("content-type", "Text/CSV; charset=x") == "text/csv"
    assert disguise.header("content-type", MARK) == "something that is no media type"
    assert disguise.header("content-type", "text/x-4711-0815") == "something that is no media type"
    assert disguise.header("content-type", "") == ""
    assert disguise.header("retry-after", MARK) == "made-up"


async def test_numbers_as_text_stay_apart_so_that_pages_look_as_they_did(tool: Any, tmp_path: Path) -> None:
    number = 0

    def numbered(path: str, asked: dict[str, Any], answer: Any) -> None:
        nonlocal number
        if path == "/v1/customer" and answer.status == 200:
            for item in answer.json:
                number += 1
                item["customer_id"] = f"{number:03d}"

    path = tmp_path / "session.jsonl"
    live = await tool.examine(tool.plant(numbered), record=path)
    assert number > 200
    assert live.conforms
    assert await examine_recording(path) == live
    disguise = Disguise(Contract.load())
    assert len({disguise._any(f"{sign}{each}") for sign in "+-" for each in range(10)}) == 20
    assert form_of(disguise._any("\u0663")) == form_of("\u0663")  # a digit, and no number


@pytest.mark.parametrize("value", ["https://[anna", "https://anna\u2100schmidt/x", "https://x/\ufffd?", "http://?"])
def test_a_link_that_is_none_is_made_up_too(value: str) -> None:
    made = Disguise(Contract.load())._any(value)
    assert form_of(made) == form_of(value)
    assert made.isascii()
    assert "anna" not in made


def test_a_token_with_impossible_moments_is_made_up_too() -> None:
    claims = base64.urlsafe_b64encode(b'{"iat": -1e308, "exp": 1e308}').decode()
    assert form_of(Disguise(Contract.load())._any(f"eyJhbGciOiJub25lIn0.{claims.rstrip('=')}.x")) == "a JWT"


async def test_an_answer_nested_as_deep_as_can_be_read_is_recorded(tmp_path: Path) -> None:
    inner = ScriptedTransport()
    deep: Any = MARK
    for _ in range(900):
        deep = [deep]
    inner.on("customers.count_pages", answer(200, {"pages": 2, "deep": deep}))
    path = tmp_path / "session.jsonl"
    async with client(RecordingTransport(inner, path)) as ns:
        assert await ns.customers.count_pages("group") == 2
    replay = ReplayingTransport(path)
    async with client(replay) as ns:
        group = replay.first("customers.count_pages", "customer_group_id")
        assert await ns.customers.count_pages(group or "") == 2


async def test_what_is_no_moment_is_made_up_where_one_is_asked_for() -> None:
    operations = {each.name: each for each in Contract.load().operations}
    asked = Disguise(Contract.load()).request(operations["campaigns.list"], {"published_from": MARK})
    assert MARK not in str(asked)


async def test_a_full_disk_fails_no_call_that_was_sent_and_every_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inner = ScriptedTransport()
    inner.on("customers.count_pages", answer(200, {"pages": 2}))
    path, room, write = tmp_path / "session.jsonl", 1_500, os.write

    def little(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[: min(room, 100)])  # and never all at once
        room -= written
        return written

    async with client(RecordingTransport(inner, path)) as ns:
        monkeypatch.setattr("nudgescribe_async.contract_doctor.recording.os.write", little)
        calls = 0
        while "cannot be recorded" not in caplog.text:
            assert await ns.customers.count_pages("group") == 2
            calls += 1
        with pytest.raises(ConfigurationError, match="cannot be recorded to: No space left"):
            await ns.customers.count_pages("group")
        monkeypatch.undo()
        assert inner.count("customers.count_pages") == calls
    assert [record.levelname for record in caplog.records if "cannot be recorded" in record.getMessage()] == ["WARNING"]
    assert path.read_bytes()[-1:] != b"\n"
    assert len(ReplayingTransport(path)) == calls  # the login, and all calls but the last


async def test_what_remains_of_an_examination_that_was_interrupted_is_looked_at(tool: Any, tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    await tool.examine(record=path)
    whole = path.read_text().splitlines(keepends=True)
    for number in (1, 2, 5):
        path.write_text("".join(whole[:number]) + whole[number][:30])
        report = await examine_recording(path)
        assert report.conforms
        assert not report.complete
        assert report.requests == number - 1
        assert any("not in the recording" in each for each in report.unanswered)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        '{"operation": 1, "body": null}',
        '{"operation": "campaigns.list", "body": 1}',
        '{"operation": "campaigns.list", "body": null, "error": "NudgescribeError"}',
        '{"operation": "campaigns.list", "body": null, "status": "200", "headers": {}, "json": 1}',
        '{"operation": "campaigns.list", "body": null, "status": 99, "headers": {}, "json": 1}',
        '{"operation": "campaigns.list", "body": null, "status": 200, "headers": {"a": 1}, "json": 1}',
        '{"operation": "campaigns.list", "body": null, "status": 200, "headers": {}}',
        "torn",
    ],
)
def test_a_line_that_is_none_of_a_recording_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x"
    path.write_text(f'{{"nudgescribe_recording": 1, "notes": {{}}}}\n{line}\n')
    with pytest.raises(ConfigurationError, match="line 2 is something else"):
        ReplayingTransport(path)


async def test_notes_that_somebody_has_edited_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text('{"nudgescribe_recording": 1, "notes": {"max_requests": "x", "given": 7}}\n')
    assert (await examine_recording(path)).requests == 0
    path.write_text('{"nudgescribe_recording": 1, "notes": 1}\n')
    with pytest.raises(ConfigurationError, match="no recording of this version"):
        ReplayingTransport(path)
