"""What OpenTelemetry must not do: fail a call, leave a span open, tell a secret, or anything of a customer."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import Service, client, settle
from opentelemetry import context, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from otel_recorder import Listening, Recorder, value

from nudgescribe_async import (
    APIStatusError,
    Nudgescribe,
    NudgescribeError,
    Request,
    RerunRequest,
    Response,
    RetryPolicy,
)
from nudgescribe_async.otel import instrument
from nudgescribe_async.sandbox import LoseAnswer, RefuseToken, Sandbox, Status
from nudgescribe_async.testing import answer

QUICK = RetryPolicy(attempts=3, base=0.001)
MARK = "MARKED-3c9e"


# --- what raises -----------------------------------------------------------------------------------------------------------


class BrokenError(Exception):
    """What a part of OpenTelemetry raises."""


class BrokenSpan(trace.NonRecordingSpan):
    """Raises where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self._where = where

    def is_recording(self) -> bool:
        return True

    def _maybe(self, where: str) -> None:
        if where == self._where:
            raise BrokenError(MARK)

    def set_attribute(self, *_: Any, **__: Any) -> None:
        self._maybe("set_attribute")

    def add_event(self, *_: Any, **__: Any) -> None:
        self._maybe("add_event")

    def set_status(self, *_: Any, **__: Any) -> None:
        self._maybe("set_status")

    def end(self, *_: Any, **__: Any) -> None:
        self._maybe("end")


class BrokenTracing(trace.TracerProvider):
    """Its spans raise, or its tracer does."""

    def __init__(self, where: str) -> None:
        self._where = where

    def get_tracer(self, *_: Any, **__: Any) -> Any:
        where = self._where

        class Tracer(trace.NoOpTracer):
            def start_span(self, *_: Any, **__: Any) -> Any:
                if where == "start_span":
                    raise BrokenError(MARK)
                return BrokenSpan(where)

        return Tracer()


class _BrokenInstrument:
    def add(self, *_: Any, **__: Any) -> None:
        raise BrokenError(MARK)

    record = add


class BrokenMetrics(NoOpMeterProvider):
    """Nothing can be recorded."""

    def get_meter(self, *_: Any, **__: Any) -> Any:
        class Meter:
            def __getattr__(self, name: str) -> Any:
                return lambda *_, **__: _BrokenInstrument()

        return Meter()


def with_processor(processor: SpanProcessor) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(processor)
    return provider


class BrokenStart(SpanProcessor):
    def on_start(self, *_: Any, **__: Any) -> None:
        raise BrokenError(MARK)


class BrokenEnd(SpanProcessor):
    def on_end(self, *_: Any, **__: Any) -> None:
        raise BrokenError(MARK)


class BrokenExporter(SpanExporter):
    def export(self, *_: Any, **__: Any) -> Any:
        raise BrokenError(MARK)

    def shutdown(self) -> None: ...


class BrokenSampler(Sampler):
    def should_sample(self, *_: Any, **__: Any) -> Any:
        raise BrokenError(MARK)

    def get_description(self) -> str:
        return "broken"


def broken(what: str) -> dict[str, Any]:
    if what == "metrics":
        return {"meter_provider": BrokenMetrics()}
    if what == "exporter":
        return {"tracer_provider": with_processor(SimpleSpanProcessor(BrokenExporter()))}
    if what == "on_start":
        return {"tracer_provider": with_processor(BrokenStart())}
    if what == "on_end":
        return {"tracer_provider": with_processor(BrokenEnd())}
    if what == "sampler":
        return {"tracer_provider": TracerProvider(sampler=BrokenSampler())}
    return {"tracer_provider": BrokenTracing(what)}


@pytest.mark.parametrize(
    "what",
    [
        "metrics",
        "exporter",
        "on_start",
        "on_end",
        "sampler",
        "start_span",
        "set_attribute",
        "add_event",
        "set_status",
        "end",
    ],
)
async def test_whatever_raises_harms_no_call_and_is_said_once(
    what: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    outside = context.get_current()
    async with (
        Sandbox(example=True, page_size=5) as sandbox,
        Nudgescribe(sandbox.credentials, base_url=sandbox.url, retry=QUICK) as ns,
    ):
        instrumentation = instrument(ns, **broken(what))
        sandbox.inject(Status(503), operation="customer_groups.list", times=1)
        groups = await ns.customer_groups.list(sandbox.workspace_id)
        assert groups
        with pytest.raises(APIStatusError):
            await ns.customer_groups.list("nobody's")
        group = sandbox.example.customer_groups["January 1997"]
        assert await ns.customers.iter(group).collect()
        campaign = await sandbox.create_campaign("Letter", group)
        new = sandbox.example.customer_groups["Returning customers"]
        plan = [RerunRequest(campaign_id=campaign, new_customer_group_id=new)]
        assert (await ns.reruns.run(plan, journal=tmp_path / "journal.db")).complete
        instrumentation.uninstrument()
        assert not ns.events.spans_heard  # nothing counts as open for ever
    assert context.get_current() == outside
    said = [record for record in caplog.records if record.name == "nudgescribe_async.otel"]
    if what != "exporter":  # which the SDK looks after by itself
        assert [(record.levelname, "Broken" in record.getMessage()) for record in said] == [("WARNING", True)]
        assert MARK not in caplog.text
    assert not [record for record in caplog.records if record.name == "nudgescribe_async.events"]


# --- cancellation --------------------------------------------------------------------------------------------------------


async def _busy(ns: Nudgescribe) -> None:
    """A call that is refused, renews, is repeated; an iteration; and both side by side."""
    await ns.customer_groups.list("w")

    async def read() -> None:
        async with ns.customers.iter("g", concurrency=2) as stream:
            async for _ in stream:
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for work in (read(), ns.campaigns.list(), ns.customer_groups.create("w", "n")):
            tasks.create_task(work)


class Troubled(Service):
    """Answers after some turns of the event loop; refuses the first token, and fails now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.on_call = self._answer
        self.number = 0

    async def send(self, request: Request) -> Response:
        await asyncio.sleep(0)
        return await super().send(request)

    async def _answer(self, request: Request) -> Response:
        self.number += 1
        number, path = self.number, request.url.partition(".com")[2]
        await asyncio.sleep(0)
        if number == 1:
            return answer(403, {"message": "Unauthorised"})
        if number % 4 == 0 and request.method == "POST":
            return answer(503, {"message": "no"})
        if path.endswith("/pages"):
            return answer(200, {"pages": 4})
        if path == "/v1/customer":
            return answer(200, [{"customer_id": f"c{number}", "customer_group_id": "g", "extended_profile": {}}])
        if request.method == "PUT":
            return answer(200, {"customer_group_id": "g", "workspace_id": "w", "group_name": "n"})
        return answer(200, [])


async def test_no_span_is_left_open_at_whichever_moment_it_is_cancelled() -> None:
    recorder, done, turns, names = Recorder(), False, 0, set[str]()
    outside = context.get_current()
    while not done:
        async with client(Troubled(), retry=RetryPolicy(attempts=3, base=1e-6)) as ns:
            instrumentation = recorder.on(ns)
            busy = asyncio.create_task(_busy(ns))
            await settle(turns)
            names.update(recorder.open)
            done = busy.done()
            busy.cancel()
            await asyncio.wait([busy])
            assert busy.cancelled() or busy.result() is None
        assert recorder.open == [], turns
        assert context.get_current() is outside
        instrumentation.uninstrument()
        assert not ns.events.spans_heard
        assert set(recorder.sums("http.client.active_requests", "url.template").values()) <= {0}
        assert set(recorder.sums("nudgescribe.client.active_calls", "nudgescribe.operation").values()) <= {0}
        turns += 1
    assert turns > 30
    assert names == {
        "GET /v1/auth",
        "POST /v1/auth",
        "POST /v1/campaign/all",
        "POST /v1/cg",
        "POST /v1/customer",
        "POST /v1/customer/pages",
        "PUT /v1/cg",
        "customers.list pages",
    }


async def test_no_span_is_left_open_when_the_client_is_closed_at_whichever_moment() -> None:
    recorder, done, turns = Recorder(), False, 0
    while not done:
        ns = client(Troubled(), retry=RetryPolicy(attempts=3, base=1e-6))
        recorder.on(ns)
        busy = asyncio.create_task(_busy(ns))
        await settle(turns)
        done = busy.done()
        await ns.aclose(grace=0)
        await asyncio.wait([busy])
        assert recorder.open == [], turns
        assert isinstance(busy.exception(), NudgescribeError | ExceptionGroup | None)
        turns += 1
    assert turns > 30


async def test_a_call_that_is_thrown_away_in_another_context_is_ended_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder, service = Recorder(), Service()
    async with client(service) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)

        async def never(_: Request) -> Response:
            await asyncio.get_running_loop().create_future()
            raise AssertionError

        service.on_call = never
        call = ns.campaigns.list()
        contextvars.copy_context().run(call.send, None)
        assert recorder.open == ["POST /v1/campaign/all"]
        call.close()
        assert recorder.open == []
    assert value(recorder.one("POST /v1/campaign/all"), "error.type") == "GeneratorExit"
    assert caplog.records == []


# --- secrets and customers -----------------------------------------------------------------------------------------------


async def test_no_secret_and_nothing_of_a_customer_is_exported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nudgescribe_async")
    recorder, transport = Recorder(), Listening()
    people = [
        {"external_id": f"{MARK}-{number}", "email": f"{MARK}@example.org", "first_name": MARK} for number in range(3)
    ]
    said = json.dumps({"success": False, "message": f"{MARK} is no customer", "error": MARK}).encode()
    group_name = f"Group {MARK}"
    async with (
        Sandbox(example=True, page_size=2) as sandbox,
        Nudgescribe(
            sandbox.credentials, base_url=sandbox.url, transport=transport, retry=QUICK, api_code=f"code-{MARK}"
        ) as ns,
    ):
        recorder.on(ns)
        receipt = await ns.customer_groups.create(sandbox.workspace_id, group_name)
        group = receipt.customer_group_id
        for operation in (
            lambda: ns.customers.upload(sandbox.workspace_id, group, people),
            lambda: ns.customers.iter(group).collect(),
            lambda: ns.customers.delete(group, [f"{MARK}-customer"]),
            lambda: ns.customers.update(group, [{"customer_id": f"{MARK}-c", "extended_profile": {"name": MARK}}]),
            lambda: ns.customers.list(f"{MARK}-group"),
            ns.campaigns.list,
        ):
            await _whatever(operation)
            for fault in (Status(400, body=said), Status(500, body=said), RefuseToken(), LoseAnswer()):
                sandbox.inject(fault, times=1)
                await _whatever(operation)
                sandbox.clear_faults()
        old, new = (sandbox.example.customer_groups[name] for name in ("January 1997", "Returning customers"))
        campaign = await sandbox.create_campaign(f"Letter {MARK}", old)
        published = await sandbox.create_campaign(f"Letter {MARK}", old)
        await ns.messages.download(published, tmp_path / MARK)
        sandbox.inject(LoseAnswer(), operation="reruns.initiate")
        plan = [RerunRequest(campaign_id=campaign, new_customer_group_id=new)]
        await ns.reruns.run(plan, journal=tmp_path / f"{MARK}.db", settle=0.01)
        with pytest.raises(NudgescribeError):
            await ns.reruns.initiate(f"{MARK}-campaign", f"{MARK}-group")
        links = [request.url for request in transport.sent if request.url.startswith(sandbox.storage_url)]
        owner, workspace = sandbox.credentials, sandbox.workspace_id
    bearers = [request.headers.get("Authorization", "") for request in transport.sent]
    tokens = {bearer.partition(" ")[2] for bearer in bearers if bearer}
    everything = recorder.everything()
    # There was enough to find, and to be found.
    assert (len(recorder.spans) > 60, len(tokens) > 1, len(links) > 0) == (True, True, True)
    assert sum(MARK.encode() in request.body for request in transport.sent if isinstance(request.body, bytes)) > 10
    assert campaign in everything  # see the guide: the id of a campaign of a plan, and no other
    hidden = {MARK, group, old, new, workspace, owner.api_key, owner.email, owner.password, *tokens}
    hidden |= {part for link in links for part in link.partition("?")[::2]}
    assert [secret for secret in hidden if secret in everything] == []


async def _whatever(operation: Callable[[], Awaitable[object]]) -> None:
    with suppress(NudgescribeError):
        await operation()
