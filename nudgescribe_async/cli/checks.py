"""The checks of ``nudgescribe doctor``, each of which builds on those before it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
import urllib.request
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from attrs import define, field, frozen

from nudgescribe_async.cli.failures import UsageError, failure_of
from nudgescribe_async.errors import NudgescribeError
from nudgescribe_async.options import RetryPolicy, Timeout
from nudgescribe_async.transport.aiohttp import AiohttpTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nudgescribe_async.cli.context import Context
    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.endpoints.models import WorkspaceCampaigns
    from nudgescribe_async.transport import Request, Response

__all__ = ["Check", "examine"]

LARGEST_SKEW = 30.0
"""Seconds that the clocks may differ: tokens are taken for expired when they are not, and logs do not match."""

PATIENCE = 10.0
"""Seconds for one step of a connection."""


@frozen(kw_only=True)
class Check:
    """What became of one check.

    Attributes:
        name: what was checked.
        result: how it ended.
        detail: what was found, or why it was not run.
        advice: what to do about it, if it failed.
    """

    name: str
    result: Literal["ok", "failed", "not run"]
    detail: str
    advice: str = ""


@define
class _Skipped(Exception):  # noqa: N818 - nothing is wrong
    """There is nothing to check."""

    why: str


@define
class _Protocol:
    """What was found, check for check."""

    checks: list[Check] = field(factory=list[Check])
    broken: str | None = None
    """The name of the check that the following ones would need."""

    async def check(
        self, name: str, work: Callable[[], Awaitable[str]], *, vital: bool = False, possible: bool = False
    ) -> None:
        """Make one check, unless a vital one failed before, and it is not ``possible`` all the same."""
        if self.broken is not None and not possible:
            self.checks.append(Check(name=name, result="not run", detail=f'because "{self.broken}" failed'))
            return
        try:
            detail = await work()
        except _Skipped as skipped:
            self.checks.append(Check(name=name, result="not run", detail=skipped.why))
            return
        except (NudgescribeError, UsageError, OSError, _FaultError) as error:
            failure = failure_of(error) if not isinstance(error, _FaultError) else error
            advice = failure.hint or "Correct that, and run this again."
            self.checks.append(Check(name=name, result="failed", detail=failure.message, advice=advice))
            if vital:
                self.broken = name
            return
        self.checks.append(Check(name=name, result="ok", detail=detail))


@define
class _FaultError(Exception):
    """A check failed."""

    message: str
    hint: str


class _Listening:
    """A transport that remembers how far the clock of the service is from ours."""

    def __init__(self, transport: AiohttpTransport) -> None:
        self._transport = transport
        self.skew: float | None = None

    async def send(self, request: Request) -> Response:
        """Send the request, and look at the date of the answer."""
        sent = time.time()
        response = await self._transport.send(request)
        now = time.time()
        try:
            there = parsedate_to_datetime(response.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError):
            return response
        # The date is of a whole second, at some moment between sending and receiving.
        self.skew = min((there + part - moment for part in (0.0, 1.0) for moment in (sent, now)), key=abs)
        if there <= now and sent <= there + 1:
            self.skew = 0.0
        return response

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


async def examine(context: Context) -> list[Check]:
    """All checks, in their order."""
    protocol = _Protocol()

    async def settings() -> str:
        context.settings.need_credentials()
        context.settings.need_destination()
        return "; ".join(f"{name} from {item.source}" for name, item in context.settings.found.items())

    await protocol.check("settings", settings, vital=True)
    base_url = context.settings.base_url if protocol.broken is None else ""
    await _connection(protocol, base_url)
    transport = _Listening(AiohttpTransport(limit=0, trust_env=True))
    if protocol.broken is not None:
        await _service(protocol, None, transport, None)
        return protocol.checks
    timeout = Timeout(total=30.0, connect=PATIENCE, read=20.0)
    async with context.client(transport=transport, timeout=timeout, retry=RetryPolicy(attempts=2)) as ns:
        await _service(protocol, ns, transport, context.settings.workspace_id)
    return protocol.checks


# --- the way to the host ---------------------------------------------------------------------------


async def _connection(protocol: _Protocol, base_url: str) -> None:
    parts = urlsplit(base_url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    proxy = _proxy(parts.scheme, host)

    def direct() -> None:
        if proxy is not None:
            raise _Skipped(f"requests go through the proxy {proxy}")

    async def name() -> str:
        direct()
        try:
            found = await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo(host, port, type=1), PATIENCE)
        except OSError as error:
            raise _FaultError(
                f"{host} has no address: {_reason(error)}.",
                "Check the base URL, the network, and whether a VPN is needed.",
            ) from None
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        return f"{host} is {', '.join(addresses)}"

    async def reach() -> str:
        direct()
        await _connect(host, port, None)
        return f"port {port} of {host} answers"

    async def tls() -> str:
        direct()
        if not secure:
            raise _Skipped("plain http, which is for this machine only")
        context = await asyncio.to_thread(ssl.create_default_context)
        version = await _connect(host, port, context)
        return f"the certificate of {host} is good ({version})"

    await protocol.check("host name", name, vital=True)
    await protocol.check("connection", reach, vital=True)
    await protocol.check("TLS", tls, vital=True)


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> str:
    """Connect and hang up; the version of TLS."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port, ssl=context), PATIENCE)
    except ssl.SSLError as error:
        raise _FaultError(
            f"TLS with {host} fails: {getattr(error, 'verify_message', '') or error.reason or type(error).__name__}.",
            "If your company inspects TLS, name its certificates in SSL_CERT_FILE.",
        ) from None
    except OSError as error:
        raise _FaultError(
            f"{host} does not answer on port {port}: {_reason(error)}.",
            "Check the base URL and the firewall; if a proxy is needed, set HTTPS_PROXY.",
        ) from None
    encrypted = writer.get_extra_info("ssl_object")
    version = "" if encrypted is None else str(encrypted.version())
    writer.close()
    with suppress(OSError):  # it was there, which is all that was asked
        await writer.wait_closed()
    return version


def _proxy(scheme: str, host: str) -> str | None:
    """The host of the proxy that the environment names for this one, if any. Plain http never goes through one."""
    if scheme == "http":
        return None
    proxy = urllib.request.getproxies_environment().get(scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return urlsplit(proxy if "://" in proxy else f"//{proxy}").hostname or "that is set"


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"nothing came within {PATIENCE:.0f} s"
    text = error.strerror if isinstance(error, socket.gaierror) or error.errno is None else os.strerror(error.errno)
    return (text or type(error).__name__).lower()


# --- the service -----------------------------------------------------------------------------------


async def _service(protocol: _Protocol, ns: Nudgescribe | None, transport: _Listening, workspace: str | None) -> None:
    account = _Account(ns, workspace)
    await protocol.check("login", account.login, vital=True)

    async def clock() -> str:
        if transport.skew is None:
            raise _Skipped("no answer had a date")
        if abs(transport.skew) > LARGEST_SKEW:
            direction = "behind" if transport.skew > 0 else "ahead of"
            raise _FaultError(
                f"the clock of this machine is {abs(transport.skew):.0f} s {direction} that of the service.",
                "Set it, by NTP for one: the life of tokens is counted by it.",
            )
        return f"differs by {abs(transport.skew):.0f} s from that of the service"

    await protocol.check("clock", clock, possible=transport.skew is not None)
    for name, read in account.reads().items():
        await protocol.check(name, read)


@define
class _Account:
    """One read of each kind, each with what an earlier one has found."""

    _client: Nudgescribe | None
    _workspace: str | None
    _group: str | None = None
    _campaign: str | None = None
    _published: bool = False

    @property
    def _ns(self) -> Nudgescribe:
        assert self._client is not None  # noqa: S101 - nothing is checked without a client
        return self._client

    def reads(self) -> dict[str, Callable[[], Awaitable[str]]]:
        """Operation to check, in their order."""
        return {
            "campaigns.list": self._campaigns,
            "customer_groups.list": self._groups,
            "profile_fields.list": self._fields,
            "customers.count_pages": self._customer_pages,
            "customers.list": self._customers,
            "reruns.history": self._history,
            "reruns.messages": self._run_messages,
            "messages.count_pages": self._message_pages,
            "messages.fetch": self._link,
        }

    async def login(self) -> str:
        tokens = await self._ns.auth.authenticate()
        return f"a token was obtained, which is good for {(tokens.expires_in or 0) / 3600:.0f} hours"

    async def _campaigns(self) -> str:
        workspaces: list[WorkspaceCampaigns] = await self._ns.campaigns.list()
        if self._workspace is None and workspaces:
            self._workspace = workspaces[0].workspace_id
        for place in workspaces:
            for campaign in place.campaigns:
                published = str(campaign.campaign_status or "").lower() == "published"
                if self._campaign is None or (published and not self._published):
                    self._campaign, self._published = campaign.campaign_id, published
        return f"{sum(len(place.campaigns) for place in workspaces)} in {len(workspaces)} workspaces"

    async def _groups(self) -> str:
        groups = await self._ns.customer_groups.list(self._needed(self._workspace, "workspace"))
        self._group = groups[0].customer_group_id if groups else None
        return f"{len(groups)} in workspace {self._workspace}"

    async def _fields(self) -> str:
        fields = await self._ns.profile_fields.list(self._needed(self._workspace, "workspace"))
        return f"{len(fields)} in workspace {self._workspace}"

    async def _customer_pages(self) -> str:
        pages = await self._ns.customers.count_pages(self._needed(self._group, "group"))
        return f"{pages} of group {self._group}"

    async def _customers(self) -> str:
        customers = await self._ns.customers.list(self._needed(self._group, "group"))
        return f"{len(customers)} on the first page of group {self._group}"

    async def _history(self) -> str:
        runs = await self._ns.reruns.history(self._needed(self._campaign, "campaign"))
        return f"{len(runs)} runs of campaign {self._campaign}"

    async def _run_messages(self) -> str:
        messages = await self._ns.reruns.messages(self._needed(self._campaign, "campaign"))
        return f"{len(messages)} of the current run of campaign {self._campaign}"

    async def _message_pages(self) -> str:
        files = await self._ns.messages.count_pages(self._needed(self._campaign, "campaign"))
        self._published = files > 0
        return f"{files} files of campaign {self._campaign}"

    async def _link(self) -> str:
        campaign = self._needed(self._campaign, "campaign")
        if not self._published:
            raise _Skipped("there is no file to fetch")
        await self._ns.messages.fetch(campaign, 1, format="url")
        return f"a link to the first file of campaign {campaign}"

    def _needed(self, value: str | None, what: str) -> str:
        if value is None:
            raise _Skipped(f"no {what} is known")
        return value
