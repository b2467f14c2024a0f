"""The other side of the soak: the sandbox behind the fault proxy, in a process of its own.

Speaks lines of JSON with whoever started it. It says first what there is (``setup``); then it is told ``faults`` (they
begin now) and ``report`` (they end; what happened is told). It ends with its input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import attrs

from nudgescribe_async.sandbox import (
    BadAnswer,
    Delay,
    LoseAnswer,
    LoseRequest,
    RefuseToken,
    RevokeTokens,
    Sandbox,
    SandboxFault,
    Status,
)
from nudgescribe_async.testing import Close, Corrupt, FaultProxy, ProxyFault, Reset, Stall, Trickle, Truncate

if TYPE_CHECKING:
    from nudgescribe_async.injection import Injection

PAGE_SIZE = 10
ROWS_PER_FILE = 8
CITIES = ("Oslo", "Bergen", "Tromsø")
AUDIENCE = 12
TEMPLATE = 'Dear {external_id}, news for "{segment}",\nwith regards.'

# How the faults are shared out. A stall costs its caller the client's whole read timeout, and a 429 costs all
# callers a pause: both are few, so that they are met often, and do not set the pace.
PROXY_FAULTS: Mapping[ProxyFault, int] = {
    Reset(at="before_request"): 70,
    Reset(at="in_request"): 70,
    Reset(at="after_request"): 70,
    Reset(at="in_body"): 60,
    Close(at="before_request"): 40,
    Close(at="in_request"): 40,
    Close(at="after_request"): 60,
    Truncate(): 60,
    Stall(at="request"): 6,
    Stall(at="head"): 10,
    Stall(at="body"): 6,
    Corrupt(where="status"): 40,
    Corrupt(where="head"): 40,
    Corrupt(where="body"): 20,
}
# Byte by byte takes the proxy long, so only answers that are small.
TRICKLES = ("customers.count_pages", "customers.update", "customer_groups.update", "messages.count_pages")
TRICKLE = 20
SANDBOX_FAULTS: Mapping[SandboxFault, int] = {
    LoseAnswer(): 70,
    LoseRequest(): 50,
    Status(500): 30,
    Status(500, after_work=True): 30,
    Status(502): 20,
    Status(502, after_work=True): 20,
    Status(503): 20,
    Status(503, after_work=True): 20,
    Status(504): 10,
    Status(504, after_work=True): 30,
    Status(408): 10,
    Status(503, retry_after=0.05): 8,
    Status(429, retry_after=0.05): 8,
    Status(429): 2,
    BadAnswer(b"<html><body>Welcome!</body></html>"): 10,
    BadAnswer(b'{"success": tr', content_type="application/json"): 5,
    BadAnswer(b"", content_type="application/json", after_work=False): 5,
    RefuseToken(): 4,
    RefuseToken(delay=0.3): 2,
    RevokeTokens(): 1,
    RevokeTokens(refresh_tokens=True): 1,
    Delay(0.2): 20,
    Delay(0.2, before_work=True): 20,
}
# Renewals are a request in a thousand, and have to be met all the same: so these come on top, as shares of their own.
RENEWALS = ("auth.authenticate", "auth.reauthenticate")
PROXY_FAULTS_OF_RENEWALS: Mapping[ProxyFault, float] = {
    Reset(at="before_request"): 0.6,
    Reset(at="after_request"): 0.6,
}
SANDBOX_FAULTS_OF_RENEWALS: Mapping[SandboxFault, float] = {
    LoseAnswer(): 0.6,
    Status(503): 0.4,
    Status(500, after_work=True): 0.4,
    BadAnswer(b"<html><body>Welcome!</body></html>"): 0.2,
}


def name_of(fault: ProxyFault | SandboxFault) -> str:
    """A fault in a word or two, for the table."""
    values: dict[str, Any] = attrs.asdict(cast("attrs.AttrsInstance", fault), recurse=False)
    shown = [
        f"{name}={value}" if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value not in (None, {}, False) and not isinstance(value, bytes) and name not in {"content_type", "pause"}
    ]
    if isinstance(fault, BadAnswer):
        shown = [f"{len(fault.body)} bytes" if isinstance(fault.body, bytes) else "stream"]
    return f"{type(fault).__name__}({', '.join(shown)})" if shown else type(fault).__name__


def customers_of(caller: int, audience: str) -> list[dict[str, str]]:
    """The customers of one of the two groups that a caller's campaign is run for in turn."""
    return [
        {"external_id": f"{audience}{caller:03}-{number:03}", "city": CITIES[number % len(CITIES)], "note": 'æ, "x"'}
        for number in range(AUDIENCE)
    ]


class Service:
    """The sandbox, the proxy, and the faults."""

    def __init__(self, sandbox: Sandbox, proxy: FaultProxy) -> None:
        self._sandbox = sandbox
        self._proxy = proxy
        self._proxy_faults: list[Injection[ProxyFault]] = []
        self._sandbox_faults: list[Injection[SandboxFault]] = []

    async def setup(self, callers: int) -> dict[str, Any]:
        """A workspace for each caller: three fields, three groups, one campaign."""
        sandbox = self._sandbox
        workspaces: list[dict[str, Any]] = []
        for caller in range(callers):
            workspace = await sandbox.create_workspace(f"Workspace {caller}")
            fields = {
                name: await sandbox.create_profile_field(
                    name, "string", is_required=name == "external_id", workspace_id=workspace
                )
                for name in ("external_id", "city", "note")
            }
            groups: dict[str, str] = {
                audience: await sandbox.create_customer_group(
                    audience, customers=customers_of(caller, audience), workspace_id=workspace
                )
                for audience in ("A", "B")
            }
            campaign = await sandbox.create_campaign(
                f"Campaign {caller}", groups["A"], segment_by={"city": None}, template=TEMPLATE
            )
            groups["list"] = await sandbox.create_customer_group("list", workspace_id=workspace)
            workspaces.append(
                {
                    "workspace_id": workspace,
                    "fields": fields,
                    "groups": groups,
                    "campaign_id": campaign,
                    "customers": {audience: customers_of(caller, audience) for audience in ("A", "B")},
                }
            )
        credentials = sandbox.credentials
        return {
            "url": self._proxy.url,
            "api_key": credentials.api_key,
            "email": credentials.email,
            "password": credentials.password,
            "profile_key": sandbox.profile_key.hex(),
            "page_size": PAGE_SIZE,
            "rows_per_file": ROWS_PER_FILE,
            "template": TEMPLATE,
            "workspaces": workspaces,
        }

    def start_faults(self, share: float) -> dict[str, Any]:
        """From now on, this share of the requests goes wrong."""
        unit = share / (sum(PROXY_FAULTS.values()) + TRICKLE + sum(SANDBOX_FAULTS.values()))
        trickles = [Trickle(pause=0)] * len(TRICKLES)
        self._proxy_faults = [
            *(self._proxy.inject(fault, times=None, share=unit * parts) for fault, parts in PROXY_FAULTS.items()),
            *(
                self._proxy.inject(fault, operation=operation, times=None, share=min(unit * TRICKLE * 5, 1))
                for fault, operation in zip(trickles, TRICKLES, strict=True)
            ),
            *(
                self._proxy.inject(fault, operation=operation, times=None, share=share * part)
                for fault, part in PROXY_FAULTS_OF_RENEWALS.items()
                for operation in RENEWALS
            ),
        ]
        self._sandbox_faults = [
            *(self._sandbox.inject(fault, times=None, share=unit * parts) for fault, parts in SANDBOX_FAULTS.items()),
            *(
                self._sandbox.inject(fault, operation=operation, times=None, share=share * part)
                for fault, part in SANDBOX_FAULTS_OF_RENEWALS.items()
                for operation in RENEWALS
            ),
        ]
        return {}

    async def report(self) -> dict[str, Any]:
        """End the faults, let what is queued happen, and tell what did."""
        self._proxy.clear()
        self._sandbox.clear_faults()
        await self._sandbox.drain()
        fired: Counter[str] = Counter()
        for network in self._proxy_faults:
            fired[name_of(network.fault)] += network.fired
        for trouble in self._sandbox_faults:
            fired[name_of(trouble.fault)] += trouble.fired
        return {
            "faults": dict(fired),
            "effects": dict(self._sandbox.effects),
            "requests": self._proxy.count(),
            "requests_by_operation": {
                operation: self._proxy.count(operation)
                for operation in {exchange.operation for exchange in self._proxy.log if exchange.operation}
            },
            "connections": self._proxy.connections,
            "cpu_seconds": time.process_time(),
        }


def answer(value: Mapping[str, Any]) -> None:
    print(json.dumps(value), flush=True)


async def serve(options: argparse.Namespace) -> None:
    async with (
        Sandbox(
            db=options.db,
            page_size=PAGE_SIZE,
            rows_per_file=ROWS_PER_FILE,
            access_token_lifetime=options.token_lifetime,
            fault_seed=options.seed,
            log_size=1_000,
        ) as sandbox,
        FaultProxy(sandbox.url, seed=options.seed) as proxy,
    ):
        service = Service(sandbox, proxy)
        answer(await service.setup(options.callers))
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "faults":
                answer(service.start_faults(options.share))
            else:
                answer(await service.report())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", required=True)
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--token-lifetime", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    run: Callable[..., None] = asyncio.run
    try:
        import uvloop  # noqa: PLC0415 - the service is not what is tested: the faster the better

        run = uvloop.run
    except ImportError:
        pass
    run(serve(options))


if __name__ == "__main__":
    main()
