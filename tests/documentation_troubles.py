"""Provokes the errors that ``docs/troubleshooting.md`` quotes: by the name of the class, what raises one, for each quotation."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trustme
from attrs import frozen

from nudgescribe_async import (
    JSON,
    AesGcmProfiles,
    CallOptions,
    Credentials,
    Nudgescribe,
    NudgescribeError,
    RerunPlan,
    RerunRequest,
    RetryPolicy,
    Timeout,
)
from nudgescribe_async.sandbox import BadAnswer, LoseAnswer, Sandbox, ShiftPages, Status
from nudgescribe_async.testing import FaultProxy, Stall

ONCE = RetryPolicy(attempts=1)
QUICK = RetryPolicy(base=0.001, longest=0.01)


@frozen
class World:
    """A sandbox with its example data, a client of it, and an empty folder."""

    sandbox: Sandbox
    ns: Nudgescribe
    folder: Path

    @property
    def group(self) -> str:
        return self.sandbox.example.customer_groups["January 1997"]

    @property
    def campaign(self) -> str:
        return self.sandbox.example.campaigns["Welcome back"]

    def client(self, **options: object) -> Nudgescribe:
        defaults: dict[str, object] = {"base_url": self.sandbox.url, "retry": ONCE}
        return Nudgescribe(self.sandbox.credentials, **(defaults | options))  # type: ignore[arg-type]


Provocation = Callable[[World], Awaitable[object]]


async def no_settings(world: World) -> object:
    return Nudgescribe.from_env()


async def plain_http(world: World) -> object:
    return world.client(base_url="http://client-api.example.com")


async def another_loop(world: World) -> object:
    await world.ns.campaigns.list()
    return await asyncio.to_thread(lambda: asyncio.run(_list(world.ns)))


async def _list(ns: Nudgescribe) -> object:
    return await ns.campaigns.list()


async def closed(world: World) -> object:
    await world.ns.aclose()
    return await world.ns.campaigns.list()


async def closed_meanwhile(world: World) -> object:
    await world.ns.campaigns.list()
    async with FaultProxy(world.sandbox.url) as proxy, world.client(base_url=proxy.url) as ns:
        await ns.campaigns.list()
        proxy.inject(Stall(at="head"), operation="customer_groups.create")
        call = asyncio.ensure_future(ns.customer_groups.create(world.sandbox.workspace_id, "Spring"))
        while not world.sandbox.effects["customer_groups.create"]:
            await asyncio.sleep(0.01)
        await ns.aclose(grace=0)
        return await call


async def nobody_listens(world: World) -> object:
    async with FaultProxy(world.sandbox.url) as proxy, proxy.down(), world.client(base_url=proxy.url) as ns:
        return await ns.campaigns.list()


async def strange_authority(world: World) -> object:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)

    async def gone(*streams: object) -> None:
        """Nobody comes as far as this."""

    server = await asyncio.start_server(gone, "localhost", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, world.client(base_url=f"https://localhost:{port}") as ns:
        return await ns.campaigns.list()


async def lost_answer(world: World) -> object:
    world.sandbox.inject(LoseAnswer(), operation="customer_groups.create")
    return await world.ns.customer_groups.create(world.sandbox.workspace_id, "Spring")


async def failed_after_work(world: World) -> object:
    world.sandbox.inject(Status(502, after_work=True), operation="customer_groups.create")
    return await world.ns.customer_groups.create(world.sandbox.workspace_id, "Spring")


async def too_late(world: World) -> object:
    async with FaultProxy(world.sandbox.url) as proxy, world.client(base_url=proxy.url) as ns:
        await ns.campaigns.list()
        proxy.inject(Stall(at="head"), operation="customer_groups.create")
        return await ns.customer_groups.create(world.sandbox.workspace_id, "Spring", options=CallOptions(timeout=0.3))


def status(number: int, operation: str = "campaigns.list", **options: object) -> Provocation:
    async def provoke(world: World) -> object:
        world.sandbox.inject(Status(number, **options), operation=operation, times=None)  # type: ignore[arg-type]
        async with world.client() as ns:
            return await ns.campaigns.list()

    return provoke


async def unknown_group(world: World) -> object:
    return await world.ns.customers.list("no-such-group")


async def not_published(world: World) -> object:
    campaign = world.sandbox.example.campaigns["Thank you"]
    return await world.ns.messages.publish(campaign)


@asynccontextmanager
async def elsewhere(**options: int) -> AsyncIterator[tuple[Sandbox, Nudgescribe]]:
    """A sandbox with other options."""
    async with (
        Sandbox(example=True, **options) as sandbox,  # type: ignore[arg-type]
        Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns,
    ):
        yield sandbox, ns


async def quota(world: World) -> object:
    async with elsewhere(publish_quota=0) as (sandbox, ns):
        return await ns.messages.publish(sandbox.example.campaigns["Spring sale"])


async def no_such_address(world: World) -> object:
    async with elsewhere(edition=1) as (sandbox, ns):
        return await ns.reruns.history(sandbox.example.campaigns["Welcome back"])


async def wrong_base_url(world: World) -> object:
    async with world.client(base_url=f"{world.sandbox.url}/v1") as ns:
        return await ns.campaigns.list()


async def large_upload(world: World) -> object:
    async with elsewhere(max_upload_bytes=100) as (sandbox, ns):
        group = sandbox.example.customer_groups["January 1997"]
        rows: list[dict[str, JSON]] = [{"external_id": f"A{number}"} for number in range(20)]
        return await ns.customers.check(sandbox.workspace_id, group, customers=rows)


async def wrong_password(world: World) -> object:
    known = world.sandbox.credentials
    wrong = Credentials(api_key=known.api_key, email=known.email, password="not-this")
    async with Nudgescribe(wrong, base_url=world.sandbox.url) as ns:
        return await ns.campaigns.list()


def bad_answer(body: bytes, content_type: str) -> Provocation:
    async def provoke(world: World) -> object:
        fault = BadAnswer(body, content_type=content_type)
        world.sandbox.inject(fault, operation="customer_groups.list", times=None)
        async with world.client() as ns:
            return await ns.customer_groups.list(world.sandbox.workspace_id)

    return provoke


async def no_page(world: World) -> object:
    world.sandbox.inject(Status(500), operation="customers.list", skip=3, times=None)
    async with world.client(retry=QUICK) as ns:
        return [customer async for customer in ns.customers.iter(world.group)]


async def drift(world: World) -> object:
    world.sandbox.inject(ShiftPages(-2), operation="customers.list", skip=2)
    stream = world.ns.customers.iter(world.group, consistency="strict", concurrency=1)
    return [customer async for customer in stream]


async def no_files(world: World) -> object:
    return await world.ns.messages.download(world.sandbox.example.campaigns["Thank you"], world.folder / "messages")


async def taken(world: World) -> object:
    (world.folder / "customers.csv").write_text("", encoding="utf-8")
    return await world.ns.customers.export(world.group, world.folder / "customers.csv")


async def unknown_column(world: World) -> object:
    content = b"external_id,shoe_size\r\nA1,42\r\n"
    return await world.ns.customers.upload(world.sandbox.workspace_id, world.group, content)


async def broken_row(world: World) -> object:
    content = b"external_id,purchases\r\nA1,3\r\nA2\r\n"
    return await world.ns.customers.upload(world.sandbox.workspace_id, world.group, content)


async def wrong_key(world: World) -> object:
    async with world.client(profile_decryptor=AesGcmProfiles(bytes(32))) as ns:
        return (await ns.customers.list(world.group))[0].profile()


async def refused_campaign(world: World) -> object:
    plan = [RerunRequest(world.sandbox.example.campaigns["Thank you"], world.group)]
    report = await world.ns.reruns.run(plan, journal=world.folder / "reruns.db")
    report.raise_for_failures()
    return report


async def no_plan(world: World) -> object:
    path = world.folder / "plan.csv"
    path.write_text("campaign_id,group\nc-1,g-1\n", encoding="utf-8")
    return RerunPlan.from_csv(path)


async def another_plan(world: World) -> object:
    journal = world.folder / "reruns.db"
    await world.ns.reruns.run([RerunRequest(world.campaign, "no-such-group")], journal=journal)
    return await world.ns.reruns.run([RerunRequest(world.campaign, world.group)], journal=journal)


PROVOCATIONS: dict[str, list[Provocation]] = {
    "ConfigurationError": [no_settings, plain_http, another_loop],
    "ClientClosedError": [closed, closed_meanwhile],
    "RequestNotSentError": [nobody_listens, strange_authority],
    "OutcomeUnknownError": [lost_answer],
    "ServerOutcomeUnknownError": [failed_after_work],
    "DeadlineExceededError": [too_late],
    "BadRequestError": [unknown_group, not_published],
    "MissingFieldsError": [status(401)],
    "QuotaExceededError": [quota],
    "PermissionDeniedError": [status(403)],
    "NotFoundError": [no_such_address],
    "ConflictError": [status(409)],
    "PayloadTooLargeError": [large_upload],
    "UnprocessableEntityError": [status(422)],
    "RateLimitedError": [status(429, retry_after=3_600)],
    "ServerError": [status(503)],
    "APIStatusError": [status(418)],
    "AuthenticationError": [wrong_password, wrong_base_url],
    "ResponseDecodeError": [
        bad_answer(b"<html>", "text/html"),
        bad_answer(b'[{"customer_group_id": "g-1"}]', "application/json"),
    ],
    "PageError": [no_page],
    "PageDriftError": [drift],
    "DownloadError": [no_files],
    "ExportError": [taken],
    "UploadSourceError": [unknown_column, broken_row],
    "ProfileError": [wrong_key],
    "RerunError": [refused_campaign],
    "RerunPlanError": [no_plan],
    "JournalError": [another_plan],
}


async def provoked(sandbox: Sandbox, name: str, number: int, folder: Path) -> NudgescribeError:
    """The error itself."""
    async with Nudgescribe(
        sandbox.credentials,
        base_url=sandbox.url,
        retry=QUICK,
        profile_decryptor=AesGcmProfiles(sandbox.profile_key),
        timeout=Timeout(total=60),
    ) as ns:
        try:
            await PROVOCATIONS[name][number](World(sandbox, ns, folder))
        except NudgescribeError as error:
            return error
    raise AssertionError(f"{name} {number}: nothing was raised")
