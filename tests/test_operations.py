"""Every operation, through its coroutine, over a real socket."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from helpers import CREDENTIALS, Server
from operations import nodes
from seeds import BY_OPERATION

from nudgescribe_async import (
    CallOptions,
    CampaignStatus,
    Customer,
    CustomerGroup,
    DeleteReceipt,
    DownloadLink,
    MessageStatus,
    MissingFieldsError,
    Nudgescribe,
    ProfileField,
    ProfileFieldType,
    PublishReceipt,
    Receipt,
    RerunReceipt,
    RerunRecord,
    RunMessage,
    Tokens,
    UpdateReceipt,
    UploadReceipt,
    WorkspaceCampaigns,
)
from nudgescribe_async.sandbox import Sandbox


async def test_all_22_operations_with_typed_answers(tmp_path: Path) -> None:
    called: Counter[str | None] = Counter()
    async with Sandbox(rows_per_file=3) as sandbox, Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        workspace = sandbox.workspace_id

        tokens = await ns.auth.authenticate()
        assert isinstance(tokens, Tokens)
        assert 14 * 86_400 - 60 < (tokens.expires_in or 0) <= 14 * 86_400
        renewed = await ns.auth.reauthenticate()
        assert renewed.access_token != tokens.access_token
        assert renewed.refresh_token != tokens.refresh_token

        created = await ns.profile_fields.create(workspace, "external_id", "string", is_required=True)
        assert isinstance(created, ProfileField)
        assert created.field_type is ProfileFieldType.STRING
        assert created.is_required is True
        joined = await ns.profile_fields.create(workspace, "joined", ProfileFieldType.DATE, "yyyy-MM-dd")
        assert (joined.field_format, joined.is_required) == ("yyyy-MM-dd", False)
        changed = await ns.profile_fields.update(workspace, joined.profile_field_id, field_name="since")
        assert (changed.field_name, changed.field_type) == ("since", ProfileFieldType.DATE)
        assert [item.field_name for item in await ns.profile_fields.list(workspace)] == ["external_id", "since"]
        gone = await ns.profile_fields.delete(workspace, joined.profile_field_id)
        assert isinstance(gone, Receipt)
        assert gone.success is True

        group = await ns.customer_groups.create(workspace, "A")
        assert isinstance(group, CustomerGroup)
        assert group.created_at is not None
        assert group.created_at.tzinfo is not None
        group_id = group.customer_group_id
        renamed = await ns.customer_groups.update(workspace, group_id, "B")
        assert (renamed.group_name, renamed.account_id) == ("B", None)
        other = await ns.customer_groups.create(workspace, "Other")
        assert [item.group_name for item in await ns.customer_groups.list(workspace)] == ["B", "Other"]
        assert (await ns.customer_groups.delete(workspace, other.customer_group_id)).success is True

        path = tmp_path / "customers.csv"
        path.write_text("external_id\n1\n2\n")
        for receipt in (
            await ns.customers.check(workspace, group_id, file=path),
            await ns.customers.check(workspace, group_id, file=b"external_id\n3\n4\n"),
            await ns.customers.check(workspace, group_id, customers=[{"external_id": "5"}, {"external_id": "6"}]),
        ):
            assert isinstance(receipt, UploadReceipt)
            assert (receipt.success, receipt.accepted_count, receipt.rejected_count, receipt.errors) == (True, 2, 0, [])
        mixed = await ns.customers.check(workspace, group_id, customers=[{"external_id": ""}, {"external_id": "7"}])
        assert (mixed.accepted_count, mixed.rejected_count) == (1, 1)
        assert mixed.errors is not None
        assert mixed.errors[0].field == "external_id"
        await sandbox.drain()
        assert await ns.customers.count_pages(group_id) == 1
        listed = await ns.customers.list(group_id)
        assert all(isinstance(item, Customer) for item in listed)
        assert [sandbox.decrypt(c.customer_id, c.extended_profile)["external_id"] for c in listed] == list("1234567")
        assert await ns.customers.list(group_id, page=2) == []
        update = await ns.customers.update(
            group_id, [{"customer_id": listed[0].customer_id, "extended_profile": {"external_id": "one"}}]
        )
        assert isinstance(update, UpdateReceipt)
        assert update.updated_count == 1
        removed = await ns.customers.delete(group_id, [listed[6].customer_id, listed[5].customer_id])
        assert isinstance(removed, DeleteReceipt)
        assert removed.deleted_count == 2

        campaign = await sandbox.create_campaign("C", group_id, status="Ready to publish")
        published = await ns.messages.publish(campaign)
        assert isinstance(published, PublishReceipt)
        assert published.job_uid
        await sandbox.drain()
        now = datetime.now(UTC)
        hour = timedelta(hours=1)
        found = await ns.campaigns.list(published_from=now - hour, published_to=now + hour)
        assert isinstance(found[0], WorkspaceCampaigns)
        assert found[0].campaigns[0].campaign_status is CampaignStatus.PUBLISHED
        assert [c for w in await ns.campaigns.list(published_to=now - hour) for c in w.campaigns] == []
        assert [c for w in await ns.campaigns.list() for c in w.campaigns] == found[0].campaigns

        assert await ns.messages.count_pages(campaign) == 2
        text = await ns.messages.fetch(campaign, 1)
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [row["external_id"] for row in rows] == ["one", "2", "3"]
        assert await ns.messages.fetch(campaign, 1, format="json") == rows
        link = await ns.messages.fetch(campaign, 2, "url")
        assert isinstance(link, DownloadLink)
        assert link.url.startswith(sandbox.storage_url)
        assert [row async for row in ns.messages.iter(campaign)][:3] == rows

        history = await ns.reruns.history(campaign)
        assert [type(item) for item in history] == [RerunRecord]
        assert (history[0].run_number, history[0].rerun_id, history[0].comparison) == (1, None, None)
        messages = await ns.reruns.messages(campaign)
        assert isinstance(messages[0], RunMessage)
        assert messages[0].review_status is MessageStatus.PUBLISHED
        rerun = await ns.reruns.initiate(campaign, group_id)
        assert isinstance(rerun, RerunReceipt)
        assert (rerun.run_number, rerun.comparison.matched_count) == (2, 1)
        await sandbox.drain()
        assert [item.run_number for item in await ns.reruns.history(campaign)] == [2, 1]
        assert all(item.is_archived for item in await ns.reruns.messages(campaign, run_number=1))
        assert await ns.messages.count_pages(campaign, run_number=1) == 2

        called.update(record.operation for record in sandbox.log)
        assert all(record.status == 200 for record in sandbox.log)
    contract = {node["operationId"] for _, _, node in nodes()}
    assert len(contract) == 22
    assert set(called) == contract


async def test_customers_that_come_once_and_in_order_over_many_pages() -> None:
    everybody = [{"external_id": f"{number:05}"} for number in range(3_000)]
    async with Sandbox(page_size=70) as sandbox:
        await sandbox.create_profile_field("external_id", "string")
        group = await sandbox.create_customer_group("All", customers=everybody)
        async with (
            Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns,
            ns.customers.iter(group, concurrency=7) as customers,
        ):
            found = [sandbox.decrypt(c.customer_id, c.extended_profile) async for c in customers]
    assert found == everybody
    assert sandbox.count("customers.list") == 44  # the last page twice
    assert sandbox.count("customers.count_pages") == 2  # once more at the end, since pages are no snapshot


Call = Callable[[Nudgescribe], Awaitable[object]]

SEEDED: dict[str, tuple[str, str, Call]] = {
    "customers.list": ("POST", "/v1/customer", lambda ns: ns.customers.list("your-customer-group-id", 10)),
    "customer_groups.create": (
        "PUT",
        "/v1/cg",
        lambda ns: ns.customer_groups.create("your-workspace-id", "VIP Customers"),
    ),
    "customer_groups.list": ("POST", "/v1/cg", lambda ns: ns.customer_groups.list(workspace_id="your-workspace-id")),
    "customer_groups.update": (
        "PATCH",
        "/v1/cg",
        lambda ns: ns.customer_groups.update("your-workspace-id", "your-customer-group-id", "Premium VIP Customers"),
    ),
    "reruns.initiate": (
        "POST",
        "/v1/campaign/rerun/initiate",
        lambda ns: ns.reruns.initiate("your-campaign-uuid", new_customer_group_id="your-new-customer-group-uuid"),
    ),
}


@pytest.mark.parametrize("operation", SEEDED)
async def test_what_the_reference_shows_is_what_a_server_gets_and_what_the_caller_has(operation: str) -> None:
    method, path, call = SEEDED[operation]
    seed = BY_OPERATION[operation]

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=seed.answer.encode(), content_type="application/json")

    async with Server(handler) as server, Nudgescribe(CREDENTIALS, base_url=server.url) as ns:
        result = await call(ns)
    ((sent_method, sent_path, headers, body),) = server.calls
    assert (sent_method, sent_path) == (method, path)
    assert json.loads(body) == seed.request
    assert headers["Authorization"] == "Bearer token"
    assert headers["Content-Type"] == "application/json"
    assert not {"x-auth-context", "x-ip", "x-api-key", "Cookie"} & set(headers)
    first = result[0] if isinstance(result, list) else result
    assert isinstance(first, Customer | CustomerGroup | RerunReceipt)


async def test_the_login_and_the_renewal_on_the_wire() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response([])

    async with Server(handler) as server, Nudgescribe(CREDENTIALS, base_url=f"{server.url}/") as ns:
        await ns.auth.authenticate()
        await ns.auth.reauthenticate()
    (post, path, headers, body), (get, _, renewal_headers, renewal_body) = server.requests
    assert (post, path, get) == ("POST", "/v1/auth", "GET")
    assert headers["x-api-key"] == CREDENTIALS.api_key
    assert "Authorization" not in headers
    assert json.loads(body) == {"email": CREDENTIALS.email, "password": CREDENTIALS.password}
    assert renewal_headers["Authorization"] == "Bearer refresh"
    assert renewal_body == b""
    assert "x-api-key" not in renewal_headers


CONTEXT = {
    "messages.publish": lambda ns: ns.messages.publish("c"),
    "messages.count_pages": lambda ns: ns.messages.count_pages("c"),
    "messages.fetch": lambda ns: ns.messages.fetch("c", 1),
    "reruns.history": lambda ns: ns.reruns.history("c"),
    "reruns.messages": lambda ns: ns.reruns.messages("c"),
    "reruns.initiate": lambda ns: ns.reruns.initiate("c", "g"),
}
NO_CONTEXT = {
    "customers.list": lambda ns: ns.customers.list("g"),
    "customers.check": lambda ns: ns.customers.check("w", "g", file=b"a\n1\n"),
    "customer_groups.list": lambda ns: ns.customer_groups.list("w"),
    "profile_fields.list": lambda ns: ns.profile_fields.list("w"),
    "campaigns.list": lambda ns: ns.campaigns.list(),
}


async def _headers(call: Call, options: CallOptions | None = None, **configured: str) -> list[dict[str, str]]:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"message": "enough"}, status=400)

    async with Server(handler) as server, Nudgescribe(CREDENTIALS, base_url=server.url, **configured) as ns:  # type: ignore[arg-type]
        with pytest.raises(Exception, match="enough"):
            await call(ns)
    assert options is None
    return [{name.lower(): value for name, value in request[2].items()} for request in server.requests]


@pytest.mark.parametrize("operation", CONTEXT)
async def test_context_headers_go_with_message_and_rerun_operations_if_configured(operation: str) -> None:
    login, call = await _headers(CONTEXT[operation], api_code="CODE", client_address="2001:DB8::1")
    assert json.loads(call["x-auth-context"]) == {"api_access": True, "api_code": "CODE"}
    assert call["x-ip"] == "2001:db8::1"
    assert not {"x-auth-context", "x-ip"} & set(login)
    for request in await _headers(CONTEXT[operation]):
        assert not {"x-auth-context", "x-ip"} & set(request)


@pytest.mark.parametrize("operation", NO_CONTEXT)
async def test_context_headers_go_with_nothing_else(operation: str) -> None:
    for request in await _headers(NO_CONTEXT[operation], api_code="CODE", client_address="192.0.2.1"):
        assert not {"x-auth-context", "x-ip"} & set(request)


async def test_the_sandbox_understands_the_context_headers() -> None:
    async with (
        Sandbox(example=True) as sandbox,
        Nudgescribe(sandbox.credentials, base_url=sandbox.url, api_code="x", client_address="::1") as ns,
    ):
        assert await ns.messages.count_pages(sandbox.example.campaigns["Welcome back"]) == 1


async def test_extra_headers_are_sent_and_replace_those_that_may_be_replaced() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response([])

    options = CallOptions(
        headers={"X-Trace": "1", "user-agent": "mine", "ACCEPT": "application/x", "X-IP": "192.0.2.9"}
    )
    async with Server(handler) as server, Nudgescribe(CREDENTIALS, base_url=server.url, client_address="::1") as ns:
        await ns.reruns.history("c", options=options)
        await ns.reruns.history("c")
    first, second = [{name.lower(): value for name, value in call[2].items()} for call in server.calls]
    assert (first["x-trace"], first["user-agent"], first["accept"]) == ("1", "mine", "application/x")
    assert (first["x-ip"], second["x-ip"]) == ("192.0.2.9", "::1")
    assert second["user-agent"].startswith("nudgescribe_async/")


async def test_what_is_left_out_is_not_sent_and_wrong_arguments_send_nothing(sandbox: Sandbox) -> None:
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        await ns.profile_fields.create(sandbox.workspace_id, "a", "string")
        await ns.campaigns.list()
        with pytest.raises(MissingFieldsError, match="Invalid Workspace"):
            await ns.profile_fields.list("nowhere")
        before = len(sandbox.log)
        for wrong in (
            lambda: ns.customers.list(""),
            lambda: ns.customers.list("g", 0),
            lambda: ns.customers.check("w", "g"),
            lambda: ns.customers.check("w", "g", file=b"x", customers=[{}]),
            lambda: ns.campaigns.list(datetime(2026, 1, 1)),  # noqa: DTZ001 - that is what is wrong
        ):
            with pytest.raises((TypeError, ValueError)):
                await wrong()
        assert len(sandbox.log) == before
    bodies = {record.operation: record.body for record in sandbox.log}
    assert bodies["profile_fields.create"] == {
        "workspace_id": sandbox.workspace_id,
        "field_name": "a",
        "field_type": "string",
    }
    assert bodies["campaigns.list"] == {}


async def test_many_clients_of_two_accounts_do_not_mix(sandbox: Sandbox) -> None:
    second = await sandbox.add_account()
    async with (
        Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns,
        Nudgescribe(second, base_url=sandbox.url) as other,
    ):
        await asyncio.gather(
            ns.customer_groups.create(sandbox.workspace_id, "mine"),
            other.customer_groups.create(second.workspace_id, "theirs"),
        )
        assert [g.group_name for g in await ns.customer_groups.list(sandbox.workspace_id)] == ["mine"]
        assert [g.group_name for g in await other.customer_groups.list(second.workspace_id)] == ["theirs"]
