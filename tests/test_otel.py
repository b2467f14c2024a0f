"""Spans and metrics of OpenTelemetry: what a client exports, against the sandbox, kept in memory by the SDK."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from helpers import Server, Service, client, hanging, settle
from opentelemetry import baggage, context, metrics, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import url_attributes as incubating_url
from opentelemetry.semconv._incubating.metrics import http_metrics as incubating_metrics
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes
from opentelemetry.semconv.metrics import http_metrics
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from otel_recorder import Listening, Recorder, events, own_id, parent_of, status, value

from nudgescribe_async import (
    CallOptions,
    ConfigurationError,
    DeadlineExceededError,
    Nudgescribe,
    PageError,
    RateLimitedError,
    RerunRequest,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
    ServerOutcomeUnknownError,
)
from nudgescribe_async.events import CallStarted
from nudgescribe_async.otel import Instrumentation, instrument, names
from nudgescribe_async.otel.target import Targets
from nudgescribe_async.sandbox import BadAnswer, Delay, LoseAnswer, RevokeTokens, Sandbox, ShiftPages, Status
from nudgescribe_async.testing import VirtualClock, answer

QUICK = RetryPolicy(attempts=4, base=0.001)
GROUPS = "POST /v1/cg"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def made(sandbox: Sandbox, **options: Any) -> Nudgescribe:
    return Nudgescribe(sandbox.credentials, base_url=sandbox.url, **{"retry": QUICK} | options)


# --- names -------------------------------------------------------------------------------------------------------------


def test_names_of_the_conventions_are_those_of_the_conventions() -> None:
    theirs = {
        names.ERROR_TYPE: error_attributes.ERROR_TYPE,
        names.METHOD: http_attributes.HTTP_REQUEST_METHOD,
        names.RESEND_COUNT: http_attributes.HTTP_REQUEST_RESEND_COUNT,
        names.STATUS_CODE: http_attributes.HTTP_RESPONSE_STATUS_CODE,
        names.SERVER_ADDRESS: server_attributes.SERVER_ADDRESS,
        names.SERVER_PORT: server_attributes.SERVER_PORT,
        names.URL_FULL: url_attributes.URL_FULL,
        names.URL_SCHEME: url_attributes.URL_SCHEME,
        names.URL_TEMPLATE: incubating_url.URL_TEMPLATE,
        names.REQUEST_DURATION: http_metrics.HTTP_CLIENT_REQUEST_DURATION,
        names.ACTIVE_REQUESTS: incubating_metrics.HTTP_CLIENT_ACTIVE_REQUESTS,
    }
    assert all(name == known for name, known in theirs.items())
    ours = {name for key, name in vars(names).items() if key.isupper() and isinstance(name, str)} - {names.SCHEMA_URL}
    assert {name for name in ours if not name.startswith("nudgescribe.")} == {*theirs}


# --- one call ------------------------------------------------------------------------------------------------------------


async def test_a_call_is_one_client_span_with_the_attributes_of_the_conventions(
    sandbox: Sandbox, recorder: Recorder
) -> None:
    async with made(sandbox) as ns:
        recorder.on(ns)
        await ns.customer_groups.list(sandbox.workspace_id)
    span = recorder.one(GROUPS)
    assert (span.kind, status(span), parent_of(span)) == (trace.SpanKind.CLIENT, "UNSET", None)
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, span.instrumentation_scope.schema_url) == (
        "nudgescribe_async",
        names.SCHEMA_URL,
    )
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": int(sandbox.url.rpartition(":")[2]),
        "url.full": f"{sandbox.url}/v1/cg",
        "url.scheme": "http",
        "url.template": "/v1/cg",
        "nudgescribe.operation": "customer_groups.list",
    }
    (attempt,) = events(span, "attempt")
    assert attempt.pop("attempt.duration") > 0
    assert attempt.pop("attempt.wait") > 0  # for the token
    assert attempt == {
        "attempt.number": 1,
        "http.response.status_code": 200,
        "request.id": sandbox.log[-1].request_id,
    }
    # The login is a call of its own, within the one that needed it.
    login = recorder.one("POST /v1/auth")
    assert (parent_of(login), value(login, "operation")) == (own_id(span), "auth.authenticate")
    assert events(span, "token.renewed") == [{"token.source": "login"}]
    assert recorder.open == []


async def test_metrics_have_the_instruments_units_and_buckets_of_the_conventions(
    sandbox: Sandbox, recorder: Recorder
) -> None:
    async with made(sandbox) as ns:
        recorder.on(ns)
        await ns.customer_groups.list(sandbox.workspace_id)
    found = recorder.metrics()
    assert {name: metric.unit for name, metric in found.items()} == {
        "http.client.request.duration": "s",
        "http.client.active_requests": "{request}",
        "nudgescribe.client.call.duration": "s",
        "nudgescribe.client.active_calls": "{call}",
        "nudgescribe.client.token.renewals": "{renewal}",
    }
    duration = found["http.client.request.duration"].data.data_points
    assert {point.explicit_bounds for point in duration} == {
        (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    }
    assert {point.attributes["url.template"]: (point.count, set(point.attributes)) for point in duration} == {
        path: (
            1,
            {
                "http.request.method",
                "http.response.status_code",
                "server.address",
                "server.port",
                "url.scheme",
                "url.template",
            },
        )
        for path in ("/v1/auth", "/v1/cg")
    }
    assert recorder.sums("nudgescribe.client.call.duration", "nudgescribe.operation") == {
        "auth.authenticate": 1,
        "customer_groups.list": 1,
    }
    assert recorder.sums("nudgescribe.client.token.renewals", "nudgescribe.token.source", "error.type") == {
        ("login", None): 1
    }
    for name in ("http.client.active_requests", "nudgescribe.client.active_calls"):
        assert set(recorder.sums(name, "nudgescribe.operation").values()) == {0}


async def test_attempts_are_events_and_are_counted(sandbox: Sandbox, recorder: Recorder) -> None:
    sandbox.inject(Status(503), operation="customer_groups.list", times=2)
    async with made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        await ns.customer_groups.list(sandbox.workspace_id)
    span = recorder.one(GROUPS)
    assert (status(span), value(span, "http.request.resend_count")) == ("UNSET", 2)
    assert [
        (attempt["attempt.number"], attempt["http.response.status_code"], attempt.get("error.type"))
        for attempt in events(span, "attempt")
    ] == [(1, 503, "503"), (2, 503, "503"), (3, 200, None)]
    assert recorder.sums("nudgescribe.client.retries", "nudgescribe.operation", "error.type") == {
        ("customer_groups.list", "503"): 2
    }
    labels = ("http.response.status_code", "error.type")
    assert recorder.sums("http.client.request.duration", *labels) == {(503, "503"): 2, (200, None): 1}
    assert recorder.sums("nudgescribe.client.call.duration", *labels) == {(200, None): 1}


async def test_a_call_that_fails_has_the_status_and_the_kind_of_its_error(sandbox: Sandbox, recorder: Recorder) -> None:
    operation = "customer_groups.list"
    async with made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        sandbox.inject(Status(500), operation=operation, times=4)
        with pytest.raises(ServerError):
            await ns.customer_groups.list(sandbox.workspace_id)
        sandbox.inject(LoseAnswer(), operation=operation, times=1)
        with pytest.raises(Exception, match=r"outcome|answer"):
            await ns.customer_groups.list(sandbox.workspace_id, options=CallOptions(retries=0))
        sandbox.inject(BadAnswer(b'{"customer_group_id": 1}', content_type="application/json"), operation=operation)
        with pytest.raises(ResponseDecodeError):
            await ns.customer_groups.list(sandbox.workspace_id, options=CallOptions(retries=0))
    assert [
        (
            status(span),
            value(span, "http.response.status_code"),
            value(span, "error.type"),
            len(events(span, "given_up")),
        )
        for span in recorder.named(GROUPS)
    ] == [
        ("ERROR", 500, "500", 1),
        ("ERROR", None, "OutcomeUnknownError", 1),
        ("ERROR", 200, "ResponseDecodeError", 0),
    ]


async def test_a_write_whose_effect_is_unknown_says_so(sandbox: Sandbox, recorder: Recorder) -> None:
    sandbox.inject(Status(502, after_work=True), operation="customer_groups.create")
    async with made(sandbox) as ns:
        recorder.on(ns)
        with pytest.raises(ServerOutcomeUnknownError):
            await ns.customer_groups.create(sandbox.workspace_id, "Returning customers")
    span = recorder.one("PUT /v1/cg")
    assert (value(span, "call.effect_unknown"), value(span, "error.type")) == (True, "502")


async def test_a_pause_is_seen_where_it_was_asked_for(sandbox: Sandbox, recorder: Recorder) -> None:
    sandbox.inject(Status(429, retry_after=0.01), operation="customer_groups.list")
    async with made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        await ns.customer_groups.list(sandbox.workspace_id)
    span = recorder.one(GROUPS)
    (pause,) = events(span, "paused")
    assert (pause["http.response.status_code"], pause["pause.duration"] > 0) == (429, True)
    assert events(span, "attempt")[1]["attempt.wait"] >= 0.01
    assert recorder.sums("nudgescribe.client.pause.duration", "http.response.status_code") == {429: 1}


async def test_a_renewal_is_seen_where_it_was_needed(sandbox: Sandbox, recorder: Recorder) -> None:
    async with made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        sandbox.inject(RevokeTokens(refresh_tokens=True), operation="customer_groups.list")
        await ns.customer_groups.list(sandbox.workspace_id)
    span = recorder.one(GROUPS)
    assert [attempt["http.response.status_code"] for attempt in events(span, "attempt")] == [403, 200]
    assert events(span, "token.renewal_failed") == [{"token.source": "refresh"}]
    assert events(span, "token.renewed") == [{"token.source": "login"}]
    assert {span.name: (parent_of(span), value(span, "error.type")) for span in recorder.spans[1:]} == {
        "GET /v1/auth": (own_id(span), "403"),
        "POST /v1/auth": (own_id(span), None),
    }
    assert recorder.sums("nudgescribe.client.token.renewals", "nudgescribe.token.source", "error.type") == {
        ("refresh", "TokenRenewalFailed"): 1,
        ("login", None): 1,
    }


async def test_calls_that_are_cut_off_end_with_the_reason(sandbox: Sandbox, recorder: Recorder) -> None:
    sandbox.inject(Delay(30, before_work=True), operation="customer_groups.list", times=2)
    async with made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        with pytest.raises(DeadlineExceededError):
            await ns.customer_groups.list(sandbox.workspace_id, options=CallOptions(timeout=0.05))
        call = asyncio.create_task(ns.customer_groups.list(sandbox.workspace_id))
        await asyncio.sleep(0.02)
        assert recorder.open == [GROUPS]
        call.cancel()
        await asyncio.wait([call])
        assert recorder.open == []
    spans = recorder.named(GROUPS)
    assert [(status(span), value(span, "error.type")) for span in spans] == [
        ("ERROR", "DeadlineExceededError"),
        ("ERROR", "CancelledError"),
    ]
    assert [events(span, "attempt")[0]["error.type"] for span in spans] == ["CancelledError"] * 2
    assert set(recorder.sums("http.client.active_requests", "url.template").values()) == {0}


# --- parents ---------------------------------------------------------------------------------------------------------------


async def test_concurrent_calls_are_children_of_the_span_of_their_own_caller(
    sandbox: Sandbox, recorder: Recorder
) -> None:
    tracer = recorder.tracer_provider.get_tracer("a service")

    async def handle(number: int) -> None:
        with tracer.start_as_current_span(f"request {number}", kind=trace.SpanKind.SERVER) as span:
            await asyncio.gather(*(ns.customer_groups.list(sandbox.workspace_id) for _ in range(3)))
            await ns.campaigns.list()
            assert trace.get_current_span() is span

    async with made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        await asyncio.gather(*map(handle, range(5)))
    servers = [span for span in recorder.spans if span.kind is trace.SpanKind.SERVER]
    assert len(servers) == 5
    for server in servers:
        assert recorder.child_names(server) == {GROUPS: 3, "POST /v1/campaign/all": 1}
    assert len(recorder.spans) == 5 * 5


async def test_an_iteration_is_a_span_and_its_calls_are_children_in_whichever_task(recorder: Recorder) -> None:
    tracer = recorder.tracer_provider.get_tracer("a job")
    async with Sandbox(example=True, page_size=5) as sandbox, made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        group = sandbox.example.customer_groups["January 1997"]
        with tracer.start_as_current_span("nightly") as nightly:
            # Two at a time, and the consumer's own calls in the middle of both are no part of them.
            async for customer in ns.customers.iter(group, concurrency=3):
                assert trace.get_current_span() is nightly
                if customer.customer_id.endswith("0"):
                    await ns.campaigns.list()
            both = (ns.customers.iter(group, concurrency=2) for _ in range(2))
            first, second = await asyncio.gather(*(stream.collect() for stream in both))
        assert [customer.customer_id for customer in first] == [customer.customer_id for customer in second]
        pages = await ns.customers.count_pages(group)
    parent = recorder.one("nightly")
    jobs = recorder.named("customers.list pages")
    assert [(parent_of(job), status(job), job.kind.name) for job in jobs] == [(own_id(parent), "UNSET", "INTERNAL")] * 3
    for job in jobs:
        assert (value(job, "outcome"), value(job, "pages"), value(job, "items")) == ("complete", pages, len(first))
        calls = recorder.child_names(job)
        assert set(calls) == {"POST /v1/customer", "POST /v1/customer/pages"}
        assert calls["POST /v1/customer"] >= pages
    assert {parent_of(span) for span in recorder.of("campaigns.list")} <= {own_id(parent)}
    assert recorder.open == []


async def test_an_iteration_that_ends_otherwise_says_how(recorder: Recorder) -> None:
    async with Sandbox(example=True, page_size=2) as sandbox, made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        group = sandbox.example.customer_groups["January 1997"]
        async with ns.customers.iter(group, concurrency=2) as stream:
            async for _ in stream:
                break
        assert recorder.open == []
        async for _ in ns.customers.iter(group, concurrency=2):
            break  # nobody closes it: Python lets go of it
        await settle()
        assert recorder.open == []
        sandbox.inject(Status(500), operation="customers.list", times=None)
        with pytest.raises(PageError):
            await ns.customers.iter(group).collect()
        sandbox.clear_faults()
        sandbox.inject(Status(403), operation="customers.count_pages", times=None)
        with pytest.raises(Exception, match=r"customers\.count_pages"):
            await ns.customers.iter(group).collect()
        sandbox.clear_faults()
        sandbox.inject(Delay(30), operation="customers.list", times=None)
        reading = asyncio.create_task(ns.customers.iter(group).collect())
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.wait([reading])
        assert recorder.open == []
    jobs = recorder.named("customers.list pages")
    assert [(value(job, "outcome"), status(job), value(job, "error.type")) for job in jobs] == [
        ("left", "UNSET", None),
        ("left", "UNSET", None),
        ("failed", "ERROR", "PageError"),
        ("failed", "ERROR", "PermissionDeniedError"),
        ("failed", "ERROR", "CancelledError"),
    ]
    # What was asked for ahead and not wanted is no error of its own: no trace is red since somebody has left a loop.
    cut = [span for span in recorder.of("customers.list") if value(span, "call.cut_off")]
    assert cut
    assert {(status(span), value(span, "error.type")) for span in cut} == {("UNSET", None)}


async def test_a_set_that_moves_is_seen_on_the_span_of_its_iteration(recorder: Recorder) -> None:
    async with Sandbox(example=True, page_size=2) as sandbox, made(sandbox) as ns:
        recorder.on(ns)
        group = sandbox.example.customer_groups["January 1997"]
        sandbox.inject(ShiftPages(-1), operation="customers.list", skip=2)
        await ns.customers.iter(group, concurrency=1, prefetch=1).collect()
    assert events(recorder.one("customers.list pages"), "pages.drifted")


async def test_an_iteration_goes_on_from_a_cursor_with_all_its_calls_within(recorder: Recorder) -> None:
    async with Sandbox(example=True, page_size=2) as sandbox, made(sandbox) as ns:
        await ns.auth.authenticate()
        group = sandbox.example.customer_groups["January 1997"]
        async with ns.customers.iter(group) as first:
            async for page in first.pages():
                if page.number == 2:
                    break
        recorder.on(ns)
        await ns.customers.iter(group, resume_from=first.cursor, consistency="strict").collect()
    job = recorder.one("customers.list pages")
    assert {parent_of(span) for span in recorder.spans if span is not job} == {own_id(job)}
    assert len(recorder.of("customers.count_pages")) == 2


async def test_a_rerun_is_a_span_with_each_campaign_in_it_also_if_an_answer_is_lost(
    recorder: Recorder, tmp_path: Path
) -> None:
    async with Sandbox(example=True) as sandbox, made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        old, new = (sandbox.example.customer_groups[name] for name in ("January 1997", "Returning customers"))
        campaigns = [await sandbox.create_campaign(f"Letter {number}", old) for number in range(3)]
        draft = await sandbox.create_campaign("Letter 3", old, status="Ready to publish")
        sandbox.inject(LoseAnswer(), operation="reruns.initiate", times=1)
        report = await ns.reruns.run(
            [RerunRequest(campaign_id=each, new_customer_group_id=new) for each in (*campaigns, draft)],
            journal=tmp_path / "journal.db",
            settle=0.01,
            wait=True,
            concurrency=2,
        )
    assert [outcome.state for outcome in report] == ["succeeded"] * 3 + ["refused"]
    plan = recorder.one("reruns.run")
    assert (status(plan), value(plan, "error.type"), value(plan, "outcome")) == ("ERROR", "incomplete", "incomplete")
    assert (value(plan, "campaigns"), value(plan, "campaigns.succeeded")) == (4, 3)
    within = recorder.named("reruns.run campaign")
    assert {value(span, "campaign.id") for span in within} == {*campaigns}  # the other was refused before
    assert {parent_of(span) for span in within} == {own_id(plan)}
    for span in within:
        (outcome,) = (each for each in report if each.campaign_id == value(span, "campaign.id"))
        assert (status(span), value(span, "outcome")) == ("UNSET", "succeeded")
        assert [event["step"] for event in events(span, "rerun.step")] == [
            step.step for step in outcome.steps if step.step != "planned"
        ]
        calls = recorder.child_names(span)
        assert calls.pop("POST /v1/campaign/rerun/initiate") == outcome.attempts
        assert {*calls} == {"POST /v1/campaign/rerun/history"}
    lost = next(span for span in within if any(event["step"] == "lost" for event in events(span, "rerun.step")))
    (initiate,) = (span for span in recorder.of("reruns.initiate") if parent_of(span) == own_id(lost))
    assert (value(initiate, "error.type"), value(initiate, "call.effect_unknown")) == ("OutcomeUnknownError", True)
    # Nothing of it is outside.
    mine = {own_id(plan), *map(own_id, within)}
    assert {parent_of(span) for span in recorder.spans if span is not plan} <= mine
    assert recorder.open == []


async def test_a_rerun_that_is_cut_short_leaves_no_span_open(recorder: Recorder, tmp_path: Path) -> None:
    async with Sandbox(example=True) as sandbox, made(sandbox) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        old, new = (sandbox.example.customer_groups[name] for name in ("January 1997", "Returning customers"))
        campaign = await sandbox.create_campaign("Letter", old)
        sandbox.inject(Delay(30), operation="reruns.initiate", times=None)
        plan = [RerunRequest(campaign_id=campaign, new_customer_group_id=new)]
        running = asyncio.create_task(ns.reruns.run(plan, journal=tmp_path / "journal.db", grace=0.01))
        while (
            "PUT /v1/campaign/rerun/initiate" not in recorder.open
            and "POST /v1/campaign/rerun/initiate" not in recorder.open
        ):
            await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait([running])
        assert recorder.open == []
        sandbox.clear_faults()
        sandbox.inject(Status(403), operation="campaigns.list", times=None)
        with pytest.raises(Exception, match=r"campaigns\.list"):
            await ns.reruns.run(plan, journal=tmp_path / "another.db")
    assert [(value(span, "outcome"), value(span, "error.type")) for span in recorder.named("reruns.run")] == [
        ("failed", "CancelledError"),
        ("failed", "PermissionDeniedError"),
    ]
    (span,) = recorder.named("reruns.run campaign")
    assert (value(span, "outcome"), status(span)) == ("unknown", "ERROR")


# --- the context in headers ---------------------------------------------------------------------------------------------


async def test_the_context_arrives_with_every_attempt_and_no_baggage(recorder: Recorder) -> None:
    answers = iter([503, 200, 200])

    async def handle(_: Any) -> Any:
        return web.json_response([], status=next(answers))

    async with Server(handle) as server, client(None, base_url=server.url, retry=QUICK) as ns:
        with recorder.on(ns):
            token = context.attach(baggage.set_baggage("customer", "MARKED-customer"))
            await ns.customer_groups.list("w")
            context.detach(token)
        await ns.customer_groups.list("w")
    span, login = (recorder.one(name).get_span_context() for name in (GROUPS, "POST /v1/auth"))
    carried = [(path, headers.get("traceparent"), headers.get("baggage")) for _, path, headers, _ in server.requests]

    def written(of: Any) -> str:
        return f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"

    assert carried == [
        ("/v1/auth", written(login), None),
        ("/v1/cg", written(span), None),
        ("/v1/cg", written(span), None),
        ("/v1/cg", None, None),
    ]


async def test_a_signed_url_of_another_origin_is_told_no_context_and_the_span_no_signature(
    recorder: Recorder, tmp_path: Path
) -> None:
    transport = Listening()
    async with Sandbox(example=True) as sandbox, made(sandbox, transport=transport) as ns:
        recorder.on(ns)
        (campaign, *_) = sandbox.example.campaigns.values()
        await ns.messages.download(campaign, tmp_path)
        storage = sandbox.storage_url
    far = [request for request in transport.sent if request.url.startswith(storage)]
    near = [request for request in transport.sent if not request.url.startswith(storage)]
    assert far
    assert not any("traceparent" in request.headers for request in far)
    assert all("traceparent" in request.headers for request in near)
    spans = [span for span in recorder.spans if span.name == "GET"]
    assert len(spans) == len(far)
    for span in spans:
        assert value(span, "url.full") == f"{storage}/REDACTED?REDACTED"
        assert value(span, "server.port") == int(storage.rpartition(":")[2])
        assert value(span, "url.template") is None
    everything = recorder.everything()
    for request in far:
        assert request.url.partition("?")[2] not in everything
        assert request.url.partition("?")[0].removeprefix(storage) not in everything


async def test_headers_of_the_call_itself_stay_and_propagation_may_be_left_out(recorder: Recorder) -> None:
    service = Service()
    async with client(service) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)
        await ns.campaigns.list(options=CallOptions(headers={"Traceparent": "mine"}))
        assert service.requests[-1].headers["traceparent"] == "mine"
    async with client(service) as ns:
        with recorder.on(ns, propagate=False):
            await ns.campaigns.list()
        assert not ns.events.spans_heard
        assert "traceparent" not in service.requests[-1].headers


class Naughty(TextMapPropagator):
    """A propagator that writes whatever it likes."""

    def __init__(self, headers: dict[str, Any] | Exception) -> None:
        self.headers = headers

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        raise NotImplementedError

    def inject(self, carrier: Any, *_: Any, **__: Any) -> None:
        if isinstance(self.headers, Exception):
            raise self.headers
        carrier.update(self.headers)

    @property
    def fields(self) -> set[str]:
        return set()


async def called_twice(propagator: Naughty, recorder: Recorder) -> Service:
    """What a service got of two calls, while this is everybody's propagator."""
    service, before = Service(), propagate.get_global_textmap()
    propagate.set_global_textmap(propagator)
    try:
        async with client(service) as ns:
            recorder.on(ns)
            for _ in range(2):
                assert await ns.campaigns.list() == []
    finally:
        propagate.set_global_textmap(before)
    return service


@pytest.mark.parametrize(
    "headers",
    [ZeroDivisionError("MARKED"), {"x": "a\r\nb: MARKED"}, {"x": 7}],
    ids=["raises", "a line break", "no text"],
)
async def test_a_propagator_that_writes_nonsense_harms_no_call(
    headers: Any, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    service = await called_twice(Naughty(headers), recorder)
    assert "x" not in service.requests[-1].headers
    (said,) = caplog.records
    assert (said.name, said.levelname) == ("nudgescribe_async.otel", "WARNING")
    assert "MARKED" not in caplog.text


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "Proxy-Authorization", "x-api-key"])
async def test_a_propagator_sets_no_header_of_the_client_and_the_others_are_sent(
    name: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    service = await called_twice(Naughty({name: "PLANTED", "X-Trace": "7"}), recorder)
    assert len(service.requests) == 3  # the login, too, which has no token of its own
    assert all("PLANTED" not in request.headers.get(name, "") for request in service.requests)
    assert all(request.headers["x-trace"] == "7" for request in service.requests)
    (said,) = caplog.records
    assert (said.name, said.levelname) == ("nudgescribe_async.otel", "WARNING")
    assert name in said.getMessage()
    assert "PLANTED" not in caplog.text


async def test_a_context_that_servers_would_refuse_is_left_out(recorder: Recorder) -> None:
    members = [(f"vendor{number}", "v" * 250) for number in range(32)]
    for state, passed_on in ((trace.TraceState(members), False), (trace.TraceState(members[:2]), True)):
        theirs = trace.NonRecordingSpan(trace.SpanContext(1, 2, True, trace.TraceFlags(1), state))
        token, service = context.attach(trace.set_span_in_context(theirs)), Service()
        try:
            async with client(service) as ns:
                recorder.on(ns)
                await ns.campaigns.list()
        finally:
            context.detach(token)
        assert ("tracestate" in service.requests[-1].headers) is passed_on
        assert f"{1:032x}" in service.requests[-1].headers["traceparent"]


async def test_a_propagator_that_writes_what_cannot_be_encoded_harms_no_call(
    sandbox: Sandbox, recorder: Recorder
) -> None:
    before, transport = propagate.get_global_textmap(), Listening()
    propagate.set_global_textmap(Naughty({"x": "\ud800", "y": "\u00fc", "z": "7"}))
    try:
        async with made(sandbox, transport=transport) as ns:
            recorder.on(ns)
            assert await ns.campaigns.list() == []
    finally:
        propagate.set_global_textmap(before)
    assert [name for name in "xyz" if name in transport.sent[-1].headers] == ["z"]


async def test_a_propagator_of_the_users_is_used(recorder: Recorder) -> None:
    service, before = Service(), propagate.get_global_textmap()
    propagate.set_global_textmap(Naughty({"X-Trace": "7"}))
    try:
        async with client(service) as ns:
            recorder.on(ns)
            await ns.campaigns.list()
    finally:
        propagate.set_global_textmap(before)
    assert service.requests[-1].headers["x-trace"] == "7"


async def test_without_sampling_nothing_is_recorded_and_the_context_says_so() -> None:
    recorder, service = Recorder(sampler=ALWAYS_OFF), Service()
    async with client(service) as ns:
        recorder.on(ns)
        await ns.campaigns.list()
    assert recorder.spans == []
    assert len(service.requests) == 2
    assert not any(
        int(request.headers["traceparent"][-2:], 16) & trace.TraceFlags.SAMPLED for request in service.requests
    )
    assert recorder.sums("nudgescribe.client.call.duration", "nudgescribe.operation")["campaigns.list"] == 1


async def test_without_an_sdk_the_callers_context_is_passed_on() -> None:
    service = Service()
    received = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    async with client(service) as ns:
        instrument(ns, tracer_provider=trace.NoOpTracerProvider(), meter_provider=metrics.NoOpMeterProvider())
        token = context.attach(TraceContextTextMapPropagator().extract(received))
        try:
            await ns.campaigns.list()
        finally:
            context.detach(token)
    assert {request.headers["traceparent"] for request in service.requests} == {received["traceparent"]}


# --- switching it on and off ----------------------------------------------------------------------------------------------


async def test_twice_is_once_and_other_arguments_are_refused(recorder: Recorder) -> None:
    async with client(Service()) as ns:
        first = recorder.on(ns)
        assert recorder.on(ns) is first
        with pytest.raises(ConfigurationError, match="instrumented already, with other arguments"):
            recorder.on(ns, propagate=False)
        with pytest.raises(ConfigurationError, match="uninstrument"):
            Recorder().on(ns)
        await ns.campaigns.list()
        assert len(recorder.of("campaigns.list")) == 1
        first.uninstrument()
        first.uninstrument()
        assert not first.active
        await ns.campaigns.list()
        assert len(recorder.of("campaigns.list")) == 1
        again = recorder.on(ns, propagate=False)
        assert again is not first
        await ns.campaigns.list()
        assert len(recorder.of("campaigns.list")) == 2


async def test_clients_are_told_apart(recorder: Recorder) -> None:
    other = Recorder()
    async with client(Service()) as one, client(Service()) as two, client(Service()) as three:
        recorder.on(one)
        other.on(two)
        await asyncio.gather(one.campaigns.list(), two.campaigns.list(), three.campaigns.list())
    assert len(recorder.of("campaigns.list")) == len(other.of("campaigns.list")) == 1


async def test_a_client_within_another_ones_transport_has_spans_of_its_own(recorder: Recorder) -> None:
    inner, outer = Service(), Service()
    async with client(inner) as two, client(outer) as one:
        await one.auth.authenticate()

        async def ask_another(_: Any) -> Any:
            inner.on_call = hanging()
            await two.campaigns.list()

        outer.on_call = ask_another
        recorder.on(one)
        recorder.on(two)
        reading = asyncio.create_task(one.customers.iter("g", concurrency=1).collect())
        await settle(60)
        reading.cancel()
        await asyncio.wait([reading])
    spans = {value(span, "operation"): span for span in recorder.spans if span.kind is trace.SpanKind.CLIENT}
    within = spans["campaigns.list"]
    (without,) = (span for operation, span in spans.items() if operation.startswith("customers."))
    assert parent_of(within) == own_id(without)
    assert (status(without), status(within), value(within, "error.type")) == ("UNSET", "ERROR", "CancelledError")
    assert events(within, "token.renewed") == [{"token.source": "login"}]
    assert events(without, "token.renewed") == []


async def test_a_renewal_behind_a_token_that_works_still_outlives_the_call_that_began_it(
    recorder: Recorder, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    service, release = Service(), asyncio.Event()
    async with client(service, clock=clock) as ns:
        await ns.auth.authenticate()
        recorder.on(ns)

        async def slow(request: Any) -> Any:
            await release.wait()
            return service.renew(request)

        service.on_renewal = slow
        clock.now += 900
        await ns.campaigns.list()
        await settle()
        assert recorder.open == ["GET /v1/auth"]
        release.set()
        await settle()
        assert service.renewals == 1
    span, renewal = recorder.one("POST /v1/campaign/all"), recorder.one("GET /v1/auth")
    assert parent_of(renewal) == own_id(span)
    assert events(span, "token.renewed") == []
    assert recorder.sums("nudgescribe.client.token.renewals", "nudgescribe.token.source") == {"refresh": 1}
    assert [record.name for record in caplog.records if record.name.startswith("opentelemetry")] == []


async def test_what_is_under_way_is_told_to_its_end_and_what_began_before_is_left_out(recorder: Recorder) -> None:
    service = Service()
    async with client(service, retry=QUICK) as ns:
        await ns.auth.authenticate()
        release, later = asyncio.Event(), asyncio.Event()

        async def slow(request: Any) -> Any:
            await (later if request.url.endswith("/cg") and request.method == "POST" else release).wait()
            if request.method == "PUT":
                return answer(500, {"message": "no"})
            if request.url.endswith("/pages"):
                return answer(200, {"pages": 0})
            return answer(503 if request.url.endswith("/all") else 200, [])

        service.on_call = slow
        ns.events.subscribe(lambda _: None, spans=True)  # so that the ends of these are told
        before = [asyncio.create_task(ns.campaigns.list()), asyncio.create_task(ns.customer_groups.create("w", "n"))]
        await settle()
        instrumentation = recorder.on(ns)
        within = asyncio.create_task(ns.customer_groups.list("w"))
        await settle()
        instrumentation.uninstrument()
        assert not instrumentation.active
        after = [
            asyncio.create_task(ns.profile_fields.list("w")),
            asyncio.create_task(ns.customers.iter("g").collect()),
        ]
        await settle()
        assert recorder.open == [GROUPS]
        listeners = len(ns.events._subscribers)
        release.set()
        await asyncio.wait([*before, *after])
        later.set()
        assert await within == []
        assert recorder.open == []
        assert [span.name for span in recorder.spans] == [GROUPS]
        assert len(ns.events._subscribers) == listeners - 1  # it listens no more
        assert recorder.sums("http.client.active_requests", "url.template") == {"/v1/cg": 0}
        assert recorder.sums("nudgescribe.client.retries", "nudgescribe.operation") == {}
        assert all(isinstance(call.exception(), ServerError) for call in before)


async def test_what_is_under_way_while_a_client_is_instrumented_anew_is_told_once(recorder: Recorder) -> None:
    service, release = Service(), asyncio.Event()
    async with client(service, retry=RetryPolicy(attempts=1)) as ns:
        await ns.auth.authenticate()

        async def answers(request: Any) -> Any:
            if request.url.endswith("/all"):
                await release.wait()
                return answer(200, [])
            return answer(429, {"message": "no"}, headers={"Retry-After": "0"})

        service.on_call = answers
        first = recorder.on(ns)
        under_way = asyncio.create_task(ns.campaigns.list())
        await settle()
        first.uninstrument()
        recorder.on(ns)
        with pytest.raises(RateLimitedError):
            await ns.customer_groups.list("w")
        release.set()
        await under_way
    assert len(events(recorder.one(GROUPS), "paused")) == 1
    assert recorder.sums("nudgescribe.client.pause.duration", "http.response.status_code") == {429: 1}
    assert recorder.open == []


def test_places_that_are_remembered_are_not_without_end() -> None:
    targets = Targets()
    for number in range(1_000):
        event = CallStarted(operation="a.b", call=1, method="GET", url=f"https://{number}.x.test", signed=True)
        assert targets.of(event).attributes["server.address"] == f"{number}.x.test"
        assert targets.of(event) is targets.of(event)
    assert len(targets._known) <= 256


def test_hosts_that_the_service_names_are_not_series_of_metrics_without_end() -> None:
    targets = Targets()
    hosts = [
        targets.of(
            CallStarted(operation="a.b", call=1, method="GET", url=f"https://{number % 100}.x.test", signed=True)
        ).labels["server.address"]
        for number in range(1_000)
    ]
    assert len(set(hosts)) == 17
    assert hosts[:16] == hosts[100:116] == [f"{number}.x.test" for number in range(16)]
    assert set(hosts[16:100]) == {"other"}
    plain = CallStarted(operation="a.b", call=1, method="GET", url="https://x.test/v1/cg")
    assert (targets.of(plain).name, targets.of(plain).labels["server.port"]) == ("GET /v1/cg", 443)


async def test_a_closed_client_has_nothing_to_tell_and_closing_ends_all(recorder: Recorder) -> None:
    service = Service()
    ns = client(service)
    await ns.auth.authenticate()
    instrumentation = recorder.on(ns)
    service.on_call = hanging()
    call = asyncio.create_task(ns.campaigns.list())
    await settle()
    await ns.aclose(grace=0)
    await asyncio.wait([call])
    assert recorder.open == []
    assert value(recorder.one("POST /v1/campaign/all"), "error.type") == "ClientClosedError"
    instrumentation.uninstrument()
    assert recorder.on(ns).active
    assert len(recorder.spans) == 1


async def test_a_client_that_is_let_go_of_is_not_kept(recorder: Recorder) -> None:
    ns = client(Service())
    recorder.on(ns)
    await ns.campaigns.list()
    await ns.aclose()
    gone = weakref.ref(ns)
    del ns
    await settle()
    gc.collect()
    assert gone() is None


def test_only_a_client_can_be_instrumented() -> None:
    with pytest.raises(TypeError, match=r"not builtins\.str\. Of a blocking client, instrument"):
        instrument("https://client-api.nudgescribe.com")  # type: ignore[arg-type]


async def test_the_global_providers_are_used_if_none_is_given() -> None:
    async with client(Service()) as ns:
        with instrument(ns) as instrumentation:
            assert isinstance(instrumentation, Instrumentation)
            assert await ns.campaigns.list() == []


def run(program: str) -> str:
    command = [sys.executable, "-P", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_extra_is_named_if_it_is_missing() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
from nudgescribe_async import ConfigurationError
try:
    import nudgescribe_async.otel
except ConfigurationError as error:
    print(error)
"""
    assert 'pip install "nudgescribe_async[otel]"' in run(program)


def test_nothing_of_it_is_imported_unless_it_is_used_and_then_not_the_sdk() -> None:
    program = """
import sys
import nudgescribe_async.client
print([name for name in sys.modules if name.startswith(("opentelemetry", "nudgescribe_async.otel"))])
import nudgescribe_async.otel
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.semconv"))])
"""
    assert run(program) == "[]\n[]"
