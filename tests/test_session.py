"""One call: its deadline, its attempts, what is known of it afterwards, and what never leaves it."""

from __future__ import annotations

import asyncio
import copy
import gc
import io
import json
import logging
import pickle
import socket
import traceback
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from helpers import (
    API_KEY,
    CREDENTIALS,
    ONCE,
    PASSWORD,
    Server,
    Service,
    client,
    hanging,
    names,
    raising,
    settle,
    watch,
)

from nudgescribe_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CallOptions,
    ClientClosedError,
    ConfigurationError,
    Credentials,
    DeadlineExceededError,
    MemoryTokenStore,
    NotFoundError,
    Nudgescribe,
    NudgescribeError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Request,
    RequestNotSentError,
    Response,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
    ServerOutcomeUnknownError,
    Timeout,
)
from nudgescribe_async.address import checked_base_url
from nudgescribe_async.events import RequestFinished, RequestRetrying, RequestStarted
from nudgescribe_async.sandbox import Sandbox
from nudgescribe_async.testing import VirtualClock, answer
from nudgescribe_async.transport import Headers

Call = Callable[[Nudgescribe], Awaitable[object]]
READ: Call = lambda ns: ns.customer_groups.list("w")  # noqa: E731
CREATE: Call = lambda ns: ns.customer_groups.create("w", "n")  # noqa: E731
UPDATE: Call = lambda ns: ns.customer_groups.update("w", "g", "n")  # noqa: E731
SOON = CallOptions(timeout=0.03)
GROUP = {"customer_group_id": "g", "workspace_id": "w", "group_name": "n"}

# --- base_url --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:80",
        "http://127.8.9.10/",
        "http://localhost:8080",
        "http://LOCALHOST.",
        "http://[::1]:80",
        "https://client-api.nudgescribe.com",
        " https://host/prefix/ ",
        "HTTPS://host",
    ],
)
def test_addresses_that_are_fine(url: str) -> None:
    assert checked_base_url(url) == url.strip().rstrip("/")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://example.org", "unencrypted to example.org"),
        ("http://localhost.example.org", "unencrypted"),
        ("http://127.0.0.1.example.org", "unencrypted"),
        ("http://127.1", "unencrypted"),
        ("http://[::2]", "unencrypted"),
        ("http://10.0.0.1", "unencrypted"),
        ("http://0.0.0.0", "unencrypted"),
        ("http://evil.example[::1]", "cannot be read"),
        ("http://[::1].evil.example", "cannot be read"),
        ("https://u:MARKED", "cannot be read"),
        ("https://user@host", "user name"),
        ("https://user:marked@host", "user name"),
        ("https://:@host", "user name"),
        ("https://host?x=1", "no query"),
        ("https://host?", "no query"),
        ("https://host#", "no fragment"),
        ("https://host/#x", "no fragment"),
        ("https://ho st", "white space"),
        ("https://host/\nx", "white space"),
        ("https://host/\x7f", "white space"),
        ("https://good\\.evil.example", "backslash"),
        ("https://host:port", "no URL"),
        ("https://host:99999", "no URL"),
        ("https://[::1", "no URL"),
        ("https://", "name a host"),
        ("https:///path", "name a host"),
        ("ftp://host", "begin with https"),
        ("host", "begin with https"),
        ("", "address of the service"),
        ("  ", "address of the service"),
        (None, "address of the service"),
        (b"https://host", "address of the service"),
    ],
)
def test_addresses_that_are_refused(url: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as caught:
        Nudgescribe(CREDENTIALS, base_url=url)
    assert "marked" not in str(caught.value)


# --- deadlines -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "effect", "text"),
    [
        (READ, False, "changes nothing, so trying again is safe"),
        (CREATE, True, "look with customer_groups.list"),
        (UPDATE, True, "may have taken effect"),
    ],
)
async def test_a_deadline_at_a_server_that_hangs(call: Call, effect: bool, text: str) -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with (
        Server(handler) as server,
        Nudgescribe(CREDENTIALS, base_url=server.url, timeout=Timeout(total=0.3)) as ns,
    ):
        await ns.auth.authenticate()
        with pytest.raises(DeadlineExceededError, match=text) as caught:
            await call(ns)
        assert caught.value.may_have_taken_effect is effect
        assert caught.value.operation is not None
        assert len(server.calls) == 1


async def test_a_deadline_while_waiting_for_a_token_or_a_slot_means_not_sent() -> None:
    service, started = Service(), asyncio.Event()
    service.on_login = hanging()
    async with client(service) as ns:
        with pytest.raises(DeadlineExceededError) as caught:
            await ns.customer_groups.create("w", "n", options=SOON)
        assert caught.value.may_have_taken_effect is False
        assert len(service.requests) == 1
        await ns.aclose(grace=0)
    service = Service()
    service.on_call = hanging(started)
    async with client(service, concurrency=1) as ns:
        first = asyncio.create_task(ns.customer_groups.list("w"))
        await started.wait()
        with pytest.raises(DeadlineExceededError) as caught:
            await ns.customer_groups.create("w", "n", options=SOON)
        assert caught.value.may_have_taken_effect is False
        assert caught.value.attempts == ()
        assert len(service.requests) == 2
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize(
    ("first", "may"),
    [
        (OutcomeUnknownError("lost"), True),
        (answer(500, {}), True),
        (answer(504, {}), True),
        (answer(408, {}), True),
        (RequestNotSentError("no"), False),
        (answer(429, {}), False),
        (answer(503, {}, headers={"Retry-After": "0"}), False),
    ],
)
async def test_a_deadline_remembers_what_earlier_attempts_may_have_done(first: Any, may: bool) -> None:
    """And not only the last one: an update that got through, and then found nobody there."""
    service, again = Service(), asyncio.Event()
    outcomes = iter([first, RequestNotSentError("not this time")])

    async def call(_: Request) -> Response:
        outcome = next(outcomes, None)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            again.set()
            raise RequestNotSentError("nor this time")
        return outcome  # type: ignore[no-any-return]

    class Stuck(VirtualClock):
        async def sleep(self, seconds: float) -> None:  # noqa: ARG002
            if again.is_set():
                await asyncio.Event().wait()

    service.on_call = call
    async with client(service, clock=Stuck()) as ns:
        options = CallOptions(timeout=0.05, retries=RetryPolicy(base=1e-6))
        with pytest.raises(DeadlineExceededError) as caught:
            await ns.customer_groups.update("w", "g", "n", options=options)
    assert caught.value.may_have_taken_effect is may
    assert len(caught.value.attempts) == 3


async def test_an_earlier_attempt_that_was_lost_is_not_forgotten_when_the_last_was_not_sent(
    clock: VirtualClock,
) -> None:
    service = Service()
    service.on_call = raising(OutcomeUnknownError("lost"), RequestNotSentError("nobody there"))
    async with client(service, clock=clock) as ns:
        with pytest.raises(
            OutcomeUnknownError, match=r"earlier attempt.*nobody there.*may have taken effect"
        ) as caught:
            await ns.customer_groups.update("w", "g", "n")
        assert [a.error for a in caught.value.attempts] == ["OutcomeUnknownError"] + ["RequestNotSentError"] * 3
        service.on_call = raising(OutcomeUnknownError("lost"), RequestNotSentError("nobody there"))
        with pytest.raises(RequestNotSentError):
            await ns.customer_groups.list("w")


@pytest.mark.parametrize("login", [answer(401, {}), answer(500, {}), answer(200, []), RequestNotSentError("no")])
@pytest.mark.parametrize("second", ["refused", "not even tried"])
async def test_a_lost_attempt_is_not_forgotten_when_no_token_can_be_had(
    login: Response | Exception, second: str, clock: VirtualClock
) -> None:
    service = Service(expires_in=1_000)

    def lose(_: Request) -> Response:
        service.on_renewal = raising(answer(403, {}))
        service.on_login = raising(login)
        service.on_call = raising(answer(403, {}))
        if second == "not even tried":
            clock.now += 5_000  # the token has expired by the time of the second attempt
        raise OutcomeUnknownError("lost")

    service.on_call = lose
    async with client(service, clock=clock) as ns:
        with pytest.raises(OutcomeUnknownError, match=r"earlier attempt.*No (other )?token could be had") as caught:
            await ns.customer_groups.update("w", "g", "n")
        assert caught.value.may_have_taken_effect
        assert caught.value.look == "customer_groups.list"
        assert caught.value.operation == "customer_groups.update"
        assert caught.value.attempts[0].error == "OutcomeUnknownError"
        with pytest.raises(NudgescribeError) as caught_too:
            await ns.customer_groups.update("w", "g", "n")
        assert not caught_too.value.may_have_taken_effect


async def test_a_success_that_says_no_after_a_lost_attempt_may_be_its_consequence(clock: VirtualClock) -> None:
    service = Service()
    service.on_call = raising(OutcomeUnknownError("lost"), answer(200, {"success": False, "message": "exists"}))
    async with client(service, clock=clock) as ns:
        events = watch(ns)
        with pytest.raises(APIStatusError, match="An earlier attempt was sent, and this may be its cons") as caught:
            await ns.customer_groups.update("w", "g", "n")
    assert caught.value.may_have_taken_effect
    assert caught.value.look == "customer_groups.list"
    assert names(events).count("EffectUnknown") == 1


@pytest.mark.parametrize(
    ("status", "may"), [(303, True), (302, True), (301, True), (307, False), (308, False), (304, False)]
)
async def test_a_redirect_may_be_the_answer_to_work_that_was_done(status: int, may: bool) -> None:
    service = Service()
    service.on_call = raising(answer(status, {}, headers={"Location": "/created/7"}))
    async with client(service) as ns:
        with pytest.raises(APIStatusError) as caught:
            await ns.customer_groups.create("w", "n")
        assert caught.value.may_have_taken_effect is may
        with pytest.raises(APIStatusError) as caught:
            await ns.customer_groups.list("w")
        assert not caught.value.may_have_taken_effect


async def test_the_pause_begins_with_the_head_of_the_refusal(clock: VirtualClock) -> None:
    class Slow:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            started.set()
            await release.wait()
            yield b"{}"

        async def aclose(self) -> None:
            pass

    started, release, service = asyncio.Event(), asyncio.Event(), Service()
    service.on_call = lambda _: answer(200, [])
    async with client(service, clock=clock) as ns:
        await ns.auth.authenticate()
        service.on_call = raising(Response(status=429, headers={"Retry-After": "60"}, stream=Slow()), answer(200, []))
        first = asyncio.create_task(ns.customer_groups.list("w"))
        await started.wait()
        second = asyncio.create_task(ns.customer_groups.list("w"))
        await settle()
        assert len(service.requests) == 2  # the login and the first
        release.set()
        began = clock.now
        await asyncio.gather(first, second)
        assert clock.now - began >= 59


async def test_no_words_of_the_service_are_in_the_log_of_a_bulk_call_without_a_token(
    caplog: pytest.LogCaptureFixture, clock: VirtualClock
) -> None:
    caplog.set_level("DEBUG", "nudgescribe_async")
    service = Service()
    service.on_login = raising(answer(500, {"message": "row of customer anna@example.org"}))
    async with client(service, clock=clock) as ns:
        with pytest.raises(RequestNotSentError):
            await ns.customer_groups.list("w", options=CallOptions(priority="bulk", retries=2))
    assert "attempt 1 failed" in caplog.text
    assert "anna" not in caplog.text


async def test_a_bulk_call_outlasts_a_login_that_is_in_trouble_after_a_refusal(clock: VirtualClock) -> None:
    service = Service()
    async with client(service, clock=clock) as ns:
        await ns.auth.authenticate()
        service.on_call = raising(answer(403, {}), answer(200, []))
        service.on_renewal = raising(answer(403, {}))
        service.on_login = raising(*[answer(503, {})] * 6, service.tokens())
        assert await ns.customer_groups.list("w", options=CallOptions(priority="bulk")) == []
        service.on_call = raising(answer(403, {}), answer(200, []))
        service.on_login = raising(*[answer(503, {})] * 6, service.tokens())
        clock.now += 100  # a refusal soon after the renewal would not be taken for one of the token
        with pytest.raises(ServerError):  # a plain one has had the four attempts of the login
            await ns.customer_groups.list("w")


async def test_headers_in_the_log_are_printable(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "nudgescribe_async")
    service = Service()
    headers = {"Content-Type": "a\x1b]0;owned\x07\x1b[2J\udcff", "Retry-After": "5\u202e"}
    service.on_call = raising(answer(400, {}, headers=headers))
    async with client(service) as ns:
        with pytest.raises(APIStatusError):
            await ns.customer_groups.list("w")
    assert "content-type: a\ufffd]0;owned" in caplog.text
    assert all(letter.isprintable() or letter == "\n" for letter in caplog.text)


async def test_a_refusal_after_a_lost_attempt_may_be_its_consequence(clock: VirtualClock) -> None:
    service = Service()
    service.on_call = raising(OutcomeUnknownError("lost"), answer(400, {"message": "There is no such group."}))
    async with client(service, clock=clock) as ns:
        with pytest.raises(BadRequestError, match="An earlier attempt was sent, and this may be its cons") as caught:
            await ns.customer_groups.delete("w", "g")
        assert caught.value.may_have_taken_effect
        assert caught.value.look == "customer_groups.list"
        service.on_call = raising(answer(400, {"message": "There is no such group."}))
        with pytest.raises(BadRequestError) as caught:
            await ns.customer_groups.delete("w", "g")
        assert not caught.value.may_have_taken_effect
        assert "earlier" not in str(caught.value)


async def test_a_failure_at_work_of_what_must_not_happen_twice_is_unknown_and_keeps_what_was_said() -> None:
    service = Service()
    service.on_call = raising(answer(502, {"message": "Bad Gateway", "code": "gw"}))
    async with client(service) as ns:
        with pytest.raises(ServerError) as caught:
            await ns.reruns.initiate("c", "g")
        error = caught.value
        assert isinstance(error, ServerOutcomeUnknownError)
        assert isinstance(error, OutcomeUnknownError)
        assert (error.status, error.said, error.code) == (502, "Bad Gateway", "gw")
        assert "look with reruns.history before you send it again" in str(error)
        assert error.may_have_taken_effect
        with pytest.raises(ServerError) as caught:  # what may be repeated needs no look: it can be sent again
            await ns.customer_groups.update("w", "g", "n", options=CallOptions(retries=0))
        assert not isinstance(caught.value, OutcomeUnknownError)
        assert caught.value.may_have_taken_effect


async def test_a_write_that_is_cut_off_leaves_its_trace(caplog: pytest.LogCaptureFixture, clock: VirtualClock) -> None:
    caplog.set_level("INFO", "nudgescribe_async")
    service, started = Service(), asyncio.Event()
    service.on_call = hanging(started)
    async with client(service, clock=clock) as ns:
        await ns.auth.authenticate()
        events = watch(ns)
        write = asyncio.create_task(ns.customer_groups.create("w", "n"))
        await started.wait()
        write.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await write
        assert caught.value.__notes__ == [
            (
                "customer_groups.create was cancelled while waiting for the answer. It may have taken effect: look with "
                "customer_groups.list before you send it again."
            )
        ]
        with pytest.raises(DeadlineExceededError) as late:
            await ns.customer_groups.create("w", "n", options=CallOptions(timeout=5.0))
        assert [(attempt.error, attempt.seconds) for attempt in late.value.attempts] == [("CancelledError", 5.0)]
        read = asyncio.create_task(ns.customer_groups.list("w"))
        await settle()
        read.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await read
        assert not hasattr(caught.value, "__notes__")  # it changes nothing
    assert names(events) == [
        "RequestStarted", "RequestFinished", "EffectUnknown",
        "RequestStarted", "RequestFinished", "EffectUnknown",
        "RequestStarted", "RequestFinished",
    ]  # fmt: skip
    assert [event.error for event in events if isinstance(event, RequestFinished)] == ["CancelledError"] * 3
    assert len({event.call for event in events if isinstance(event, RequestStarted)}) == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.partition(" ended with ")[2] for text in warnings] == [
        f"{error} while waiting for the answer, and may have taken effect: look with customer_groups.list"
        for error in ("CancelledError", "DeadlineExceededError")
    ]


async def test_a_body_that_is_used_up_is_named_as_the_reason(clock: VirtualClock) -> None:
    service = Service()
    async with client(service, clock=clock) as ns:
        await ns.auth.authenticate()
        for status, why, bought in (
            (503, "the body cannot be sent a second time", 0),
            (403, "there is a new token, but the body cannot be sent a second time", 1),
        ):
            service.on_call = raising(answer(status, {}, headers={"Retry-After": "1"}))
            before = service.bought
            with pytest.raises(APIStatusError) as caught:
                await ns.customers.check("w", "g", file=iter([b"external_id\n", b"1\n"]))
            assert caught.value.not_repeated == why
            assert caught.value.advice.startswith("Open the file again, or pass its path or a function")
            assert len(caught.value.attempts) == 1
            assert service.bought - before == bought


async def test_a_success_that_says_no_is_told_as_it_is() -> None:
    service = Service()
    service.on_call = raising(answer(201, {"success": False, "message": "Queue is full"}))
    async with client(service) as ns:
        with pytest.raises(APIStatusError, match=r'answered with 201, and "success": false: "Queue is full"\.'):
            await ns.customer_groups.create("w", "n")
        service.on_call = raising(answer(200, {"success": False}))
        with pytest.raises(APIStatusError, match=r'answered with 200, and "success": false, without an explanation\.'):
            await ns.customer_groups.create("w", "n")


async def test_cancelling_frees_the_slot_and_the_connection() -> None:
    gone = asyncio.Event()
    started = asyncio.Event()

    async def handler(_: web.Request) -> web.StreamResponse:
        if started.is_set():
            return web.json_response([])
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    async with Server(handler) as server, Nudgescribe(CREDENTIALS, base_url=server.url, concurrency=1) as ns:
        call = asyncio.create_task(ns.customer_groups.list("w"))
        await started.wait()
        waiting = asyncio.create_task(ns.customer_groups.list("w"))
        await settle()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await waiting == []
        assert ns._session._active == set()


async def test_a_timeout_that_is_not_ours_is_left_alone() -> None:
    async def stream() -> Any:
        yield b"a"
        raise TimeoutError("the caller's own")

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response({})

    async with Server(handler) as server, Nudgescribe(CREDENTIALS, base_url=server.url) as ns:
        with pytest.raises(TimeoutError, match="the caller's own"):
            await ns.customers.check("w", "g", file=stream)


# --- retries ---------------------------------------------------------------------------------------


def counting(statuses: list[int], body: object, **headers: str) -> tuple[Server, list[int]]:
    left = list(statuses)

    async def handler(_: web.Request) -> web.StreamResponse:
        status = left.pop(0) if left else 200
        return web.json_response(body if status == 200 else {"message": "wait"}, status=status, headers=headers)

    return Server(handler), left


@pytest.mark.parametrize(
    ("call", "statuses", "sent", "error"),
    [
        (READ, [503, 502, 500], 4, None),
        (READ, [503] * 4, 4, ServerError),
        (READ, [404], 1, NotFoundError),
        (CREATE, [503], 1, ServerOutcomeUnknownError),
        (CREATE, [500], 1, ServerOutcomeUnknownError),
        (CREATE, [408], 1, ServerOutcomeUnknownError),
        (CREATE, [429, 429], 3, None),
        (UPDATE, [504, 408], 3, None),
    ],
)
async def test_what_is_sent_again_as_a_server_counts_it(
    call: Call, statuses: list[int], sent: int, error: type[NudgescribeError] | None, clock: VirtualClock
) -> None:
    server, _ = counting(statuses, [] if call is READ else GROUP)
    async with server, Nudgescribe(CREDENTIALS, base_url=server.url, clock=clock) as ns:
        events = watch(ns)
        if error is None:
            await call(ns)
        else:
            with pytest.raises(error) as caught:
                await call(ns)
            assert len(caught.value.attempts) == sent
            assert caught.value.may_have_taken_effect is (error is ServerOutcomeUnknownError)
    assert len(server.calls) == sent
    assert len(clock.slept) == sent - 1 == sum(isinstance(event, RequestRetrying) for event in events)
    assert len({body for _, _, _, body in server.calls}) == 1


async def test_a_writing_call_refused_before_work_is_sent_again_after_the_time_asked_for(clock: VirtualClock) -> None:
    server, _ = counting([503], GROUP, **{"Retry-After": "7"})
    async with server, Nudgescribe(CREDENTIALS, base_url=server.url, clock=clock) as ns:
        await ns.customer_groups.create("w", "n")
    assert len(server.calls) == 2
    assert len(clock.slept) == 1
    assert 7.0 <= clock.slept[0] <= 7.7


async def test_a_wait_longer_than_the_time_left_ends_the_call_at_once(clock: VirtualClock) -> None:
    service = Service()
    service.on_call = lambda _: answer(503, {}, headers={"Retry-After": "100"})
    async with client(service, clock=clock) as ns:
        with pytest.raises(ServerError):
            await ns.customer_groups.list("w", options=CallOptions(timeout=50))
    assert clock.slept == []


async def test_retries_of_one_call_and_of_the_client() -> None:
    service = Service()
    service.on_call = lambda _: answer(500, {})
    async with client(service, retry=RetryPolicy(attempts=2), clock=VirtualClock()) as ns:
        for options, sent in ((None, 2), (CallOptions(retries=0), 1), (CallOptions(retries=5), 6)):
            service.requests.clear()
            with pytest.raises(ServerError):
                await ns.customers.list("g", options=options)
            assert sum("customer" in request.url for request in service.requests) == sent


async def test_a_host_that_cannot_be_reached() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with Nudgescribe(CREDENTIALS, base_url=url, clock=VirtualClock()) as ns:
            with pytest.raises(RequestNotSentError, match="No connection") as caught:
                await ns.reruns.initiate("c", "g")
    assert caught.value.operation == "reruns.initiate"


async def test_a_connection_that_breaks_names_the_read_that_tells() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with Server(handler) as server, Nudgescribe(CREDENTIALS, base_url=server.url, clock=VirtualClock()) as ns:
        for call, read, sent in (
            (lambda: ns.reruns.initiate("c", "g"), "reruns.history", 1),
            (lambda: ns.customer_groups.create("w", "n"), "customer_groups.list", 1),
            (lambda: ns.messages.publish("c"), "campaigns.list", 1),
            (lambda: ns.profile_fields.create("w", "n", "string"), "profile_fields.list", 1),
            (lambda: ns.customers.check("w", "g", customers=[{"a": "1"}]), "customers", 1),
            (lambda: ns.customer_groups.delete("w", "g"), "look with customer_groups.list before you send it again", 4),
        ):
            server.requests.clear()
            with pytest.raises(OutcomeUnknownError, match=read) as caught:
                await call()
            assert len(server.calls) == sent == len(caught.value.attempts)
        with pytest.raises(OutcomeUnknownError) as caught:
            await ns.customer_groups.list("w")
        assert "look" not in str(caught.value)


# --- answers ---------------------------------------------------------------------------------------


async def test_a_success_that_says_no_is_an_error_with_its_request_id() -> None:
    service = Service()
    service.on_call = lambda _: answer(
        200, {"success": False, "message": "the segment is empty"}, headers={"X-Request-Id": "r1"}
    )
    async with client(service) as ns:
        for call in (
            lambda: ns.reruns.initiate("c", "g"),
            lambda: ns.customer_groups.delete("w", "g"),
            lambda: ns.customer_groups.list("w"),
            lambda: ns.messages.fetch("c", 1),
        ):
            with pytest.raises(APIStatusError, match="the segment is empty") as caught:
                await call()
            assert (caught.value.status, caught.value.request_id, len(caught.value.attempts)) == (200, "r1", 1)
            assert caught.value.operation is not None


async def test_an_upload_with_rejected_rows_is_a_result() -> None:
    service = Service()
    receipt = {"success": False, "accepted_count": 0, "rejected_count": 1, "errors": [{"row": 1}], "message": "m"}
    service.on_call = lambda _: answer(200, receipt)
    async with client(service) as ns:
        assert (await ns.customers.check("w", "g", file=b"a\n1\n")).success is False


async def test_an_answer_that_does_not_fit_says_that_a_writing_call_has_probably_taken_effect() -> None:
    service = Service()
    service.on_call = lambda _: answer(200, {"odd": "marked"}, headers={"X-Request-Id": "r1"})
    async with client(service) as ns:
        with pytest.raises(ResponseDecodeError, match=r"probably taken effect.*request id r1") as caught:
            await ns.customer_groups.create("w", "n")
        assert "marked" not in str(caught.value)
        with pytest.raises(ResponseDecodeError) as caught:
            await ns.customer_groups.list("w")
        assert "taken effect" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_and_the_token_goes_nowhere(status: int) -> None:
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        return web.json_response([])

    async with Server(elsewhere) as other:

        async def handler(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={"Location": f"{other.url}/v1/cg"})

        async with Server(handler) as server, Nudgescribe(CREDENTIALS, base_url=server.url) as ns:
            with pytest.raises(APIStatusError, match=r"redirect.*not followed") as caught:
                await ns.customer_groups.list("w")
            assert caught.value.status == status
            assert len(server.calls) == 1
        assert other.requests == []


async def test_no_token_goes_to_a_signed_url(sandbox: Sandbox) -> None:
    async with Sandbox(example=True) as shop, Nudgescribe(shop.credentials, base_url=shop.url) as ns:
        await ns.messages.fetch(shop.example.campaigns["Welcome back"], 1, "url")
        assert {record.origin for record in shop.log} == {"api"}


@pytest.mark.parametrize(
    ("failure", "logged_in"),
    [
        (answer(404, {}), True),
        (answer(500, {}), True),
        (RequestNotSentError, True),
        (OutcomeUnknownError, True),
        (RequestNotSentError, False),
        (answer(401, {}), False),
    ],
    ids=["refused", "in trouble", "not sent", "lost", "no token", "no login"],
)
async def test_an_error_is_free_as_soon_as_nobody_holds_it(
    clock: VirtualClock, failure: Response | type[NudgescribeError], *, logged_in: bool
) -> None:
    """With the frames that it came through, and what these hold: without waiting for the collector of cycles."""
    service = Service()

    def fail(_: Request) -> Response:
        if isinstance(failure, Response):
            return failure
        raise failure("nobody listens")

    async def failed() -> weakref.ref[NudgescribeError]:
        try:
            await ns.customer_groups.create("w", "g")
        except NudgescribeError as error:  # pytest.raises would make a cycle of its own
            return weakref.ref(error)
        raise AssertionError("it did not fail")

    async with client(service, clock=clock) as ns:
        if logged_in:
            await ns.auth.authenticate()
            service.on_call = fail
        else:
            service.on_login = fail
        gc.collect()
        gc.disable()
        try:
            error = await failed()
            await asyncio.sleep(0)
            assert error() is None
        finally:
            gc.enable()


async def test_headers_that_cannot_be_added_harm_no_call(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()

    def fails(_: int) -> dict[str, str]:
        raise LookupError("of something secret")

    async with client(service) as ns:
        await ns.auth.authenticate()
        ends = [
            ns._session.add_headers(more) for more in (fails, lambda _: {"Cookie": "a=b"}, lambda _: {"X-More": "7"})
        ]
        await ns.customer_groups.list("w")
        for end in ends:
            end()
        await ns.customer_groups.list("w")
    added, alone = (request.headers for request in service.requests[-2:])
    assert (added.get("X-More"), alone.get("X-More"), "Cookie" in added) == ("7", None, False)
    assert [record.getMessage() for record in caplog.records if "No headers" in record.getMessage()] == [
        "No headers could be added to a request: LookupError.",
        "No headers could be added to a request: ConfigurationError.",
    ]


async def test_events_tell_what_happened(clock: VirtualClock) -> None:
    service = Service()
    service.on_call = raising(
        answer(500, {}, headers={"X-Request-Id": "r1"}), OutcomeUnknownError("lost"), answer(200, [])
    )
    async with client(service, clock=clock) as ns:
        await ns.auth.authenticate()
        events = watch(ns)
        await ns.customer_groups.list("w")
    assert names(events) == ["RequestStarted", "RequestFinished", "RequestRetrying"] * 2 + [
        "RequestStarted",
        "RequestFinished",
    ]
    finished = [event for event in events if isinstance(event, RequestFinished)]
    assert [(e.attempt, e.status, e.error, e.request_id) for e in finished] == [
        (1, 500, None, "r1"),
        (2, None, "OutcomeUnknownError", None),
        (3, 200, None, None),
    ]
    assert all(e.operation == "customer_groups.list" for e in events if isinstance(e, RequestStarted))


async def test_an_error_before_sending_is_no_attempt() -> None:
    service = Service()
    service.on_call = raising(ConfigurationError("the file changed"))
    async with client(service) as ns:
        with pytest.raises(ConfigurationError, match=r"operation customer_groups\.create") as caught:
            await ns.customer_groups.create("w", "n")
    assert caught.value.attempts == ()


# --- secrets ---------------------------------------------------------------------------------------

API_CODE = "code-MARKED-91c"


def shown(value: object) -> str:
    """All that somebody may print, log, pickle or send to an error tracker."""
    seen = [repr(value), str(value)]
    if isinstance(value, BaseException):
        seen += traceback.TracebackException.from_exception(value, capture_locals=True).format()
        seen += [repr(vars(value)), repr(value.args), repr(copy.copy(value))]
        if isinstance(value, NudgescribeError):
            seen.append(pickle.dumps(value, 0).decode("latin-1"))
            seen.append(repr(vars(pickle.loads(pickle.dumps(value)))))
    return "\n".join(seen)


def leaks(text: str) -> list[str]:
    """Where something marked shows; the token that this function itself looks for does not count."""
    return [text[max(0, at - 60) : at + 30] for at in range(len(text)) if text.startswith("MARKED", at)]


class Echo:
    """A server that answers every request with all that it got, wherever that fits."""

    def __init__(self) -> None:
        self.login = 200
        self.call: int | None = 400
        self.refresh = 200
        self.number = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        sent = (await request.read()).decode(errors="replace")
        headers = "; ".join(f"{name}: {value}" for name, value in request.headers.items())
        if request.path == "/v1/auth":
            status = self.login if request.method == "POST" else self.refresh
            if status == 200:
                self.number += 1
                tokens = {
                    "access_token": f"access-MARKED-{self.number}",
                    "refresh_token": f"refresh-MARKED-{self.number}",
                }
                return web.json_response(tokens | {"expires_in": 1_000})
        else:
            if self.call is None:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            status = self.call
            if status == 0:
                await asyncio.Event().wait()
        said = f"{headers} {sent}"
        body = {"success": False, "message": said, "code": said, "detail": {"headers": dict(request.headers)}}
        return web.json_response(body, status=status, headers={"x-request-id": headers.replace("\n", " ")})


class EchoServer(Server):
    def __init__(self, echo: Echo) -> None:
        super().__init__(echo)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        return await self.handler(request)


async def test_no_secret_is_shown_anywhere(caplog: pytest.LogCaptureFixture, clock: VirtualClock) -> None:
    caplog.set_level(logging.DEBUG)
    echo = Echo()
    seen: list[str] = []
    errors: list[BaseException] = []

    async def fails(work: Awaitable[object]) -> None:
        with pytest.raises(NudgescribeError) as caught:
            await work
        errors.append(caught.value)

    async with EchoServer(echo) as server:
        ns = Nudgescribe(CREDENTIALS, base_url=server.url, api_code=API_CODE, client_address="::1", clock=clock)
        ns.events.subscribe(lambda event: seen.append(f"{event!r} {event}"))
        echo.login = 403
        await fails(ns.customer_groups.list("w"))
        clock.now += 11
        echo.login = 500
        await fails(ns.customer_groups.list("w"))
        echo.login = 302
        await fails(ns.auth.authenticate())
        clock.now += 21
        echo.login = 200
        for status in (400, 401, 403, 404, 429, 500, 302, 200, None):
            echo.call = status
            await fails(ns.reruns.history("c"))
            await fails(ns.customer_groups.create("w", "n"))
            if status != 200:  # there it is a result
                await fails(ns.customers.check("w", "g", file=io.BytesIO(b"a\n1\n")))
        echo.refresh = 403
        await ns.auth.authenticate()
        await ns.auth.reauthenticate()
        echo.login = echo.refresh = 403
        await fails(ns.auth.reauthenticate())
        echo.call = 0
        await fails(ns.messages.publish("c", options=CallOptions(timeout=0.05)))
        hanging_call = asyncio.create_task(ns.messages.publish("c"))
        await settle()
        await ns.aclose(grace=0)
        await fails(hanging_call)
        await fails(ns.customer_groups.list("w"))
        things = [ns, ns._session, ns._tokens, ns._tokens._held, ns._transport, ns.auth, ns.customers, CREDENTIALS]
        seen += [repr(thing) for thing in things]
    assert {type(error) for error in errors} >= {
        AuthenticationError,
        PermissionDeniedError,
        OutcomeUnknownError,
        DeadlineExceededError,
        ClientClosedError,
        ServerError,
    }
    for error in errors:
        text = shown(error)
        for secret in (API_KEY, PASSWORD, json.dumps(PASSWORD)[1:-1], API_CODE, "access-MARKED", "refresh-MARKED"):
            # This test's own frame is not the package's.
            assert secret not in text, leaks(text)
    logged = "\n".join([*seen, caplog.text, *(repr(vars(record)) for record in caplog.records)])
    assert leaks(logged) == []
    assert "auth.authenticate" in logged


async def test_a_token_that_is_no_longer_at_hand_is_masked_all_the_same() -> None:
    """A slow answer quotes the token it was asked with, when another one is at hand already."""
    service, started, go = Service(), asyncio.Event(), asyncio.Event()

    async def call(request: Request) -> Response:
        started.set()
        await go.wait()
        quoted = request.headers["Authorization"]
        return answer(400, {"message": quoted}, headers={"X-Request-Id": quoted})

    service.on_call = call
    async with client(service) as ns:
        slow = asyncio.create_task(ns.customer_groups.list("w"))
        await started.wait()
        await ns.auth.reauthenticate()
        await ns.auth.authenticate()
        go.set()
        with pytest.raises(APIStatusError) as caught:
            await slow
    assert leaks(shown(caught.value)) == []


async def test_a_stored_refresh_token_that_the_service_quotes_is_masked(clock: VirtualClock) -> None:
    store, service = MemoryTokenStore(), Service()
    async with client(service, token_store=store, clock=clock) as ns:
        await ns.auth.authenticate()
    clock.now += 5_000
    for status in (403, 200):
        service.on_renewal = lambda r, status=status: answer(  # type: ignore[misc]
            status, {"success": False, "message": r.headers["Authorization"]}
        )
        service.on_login = lambda _: answer(500, {})
        async with client(service, token_store=store, clock=clock, retry=ONCE) as ns:
            events = watch(ns)
            with pytest.raises(ServerError) as caught:
                await ns.customer_groups.list("w")
            assert leaks(repr(events) + shown(caught.value)) == []


def test_the_values_on_the_way_show_nothing() -> None:
    request = Request(
        method="POST",
        url="https://host/x?signature=MARKED",
        headers={"Authorization": "Bearer MARKED", "x-api-key": "MARKED", "x-auth-context": "MARKED"},
        body=b"MARKED",
    )
    assert leaks(f"{request} {request!r} {request.headers}") == []
    credentials = Credentials(api_key="MARKED", email="MARKED", password="MARKED")
    assert leaks(f"{credentials} {credentials!r}") == []


@pytest.mark.parametrize("options", [{"timeout": 1}, 5, "fast"])
async def test_options_that_are_none_are_refused_by_name(options: Any) -> None:
    service = Service()
    async with client(service) as ns:
        with pytest.raises(TypeError, match=r"customer_groups\.list: options must be CallOptions"):
            await ns.customer_groups.list("w", options=options)
    assert service.requests == []


@pytest.mark.parametrize("last", [ClientClosedError("Nothing was sent."), ConfigurationError("Nothing was sent.")])
async def test_an_attempt_that_was_lost_is_not_forgotten_when_the_next_one_cannot_be_made(
    last: NudgescribeError, clock: VirtualClock
) -> None:
    failures: list[NudgescribeError] = [OutcomeUnknownError("lost"), last]
    service = Service()

    def respond(_: Request) -> Response:
        raise failures.pop(0)

    service.on_call = respond
    async with client(service, clock=clock) as ns:
        with pytest.raises(type(last), match=r"An earlier attempt was sent\. The call may have taken effect") as caught:
            await ns.customer_groups.update("w", "g", "n")
    assert caught.value.operation == "customer_groups.update"
    assert len(caught.value.attempts) == 1


async def test_a_refusal_whose_body_breaks_off_is_a_refusal_all_the_same() -> None:
    class Broken:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"half an expl"
            raise OutcomeUnknownError("broken")

        async def aclose(self) -> None:
            pass

    service = Service()
    service.on_call = lambda _: Response(status=400, stream=Broken())
    async with client(service) as ns:
        with pytest.raises(BadRequestError, match="half an expl"):
            await ns.customer_groups.list("w")


async def test_a_token_that_is_not_the_newest_any_more_is_kept_nowhere_and_none_after_closing() -> None:
    service = Service()

    def held() -> set[str]:
        gc.collect()
        headers = [item for item in gc.get_objects() if isinstance(item, Headers)]
        return {item["Authorization"] for item in headers if "Authorization" in item}

    before = held()
    async with client(service) as ns:
        for _ in range(4):
            await ns.customer_groups.list("w")
            await ns.campaigns.list()
            await ns.auth.reauthenticate()
        await ns.customer_groups.list("w")
        service.requests.clear()
        assert len(held() - before) == 1
    assert held() - before == set()


async def test_a_header_given_twice_in_letters_of_another_case_has_both_values() -> None:
    service = Service()
    async with client(service) as ns:
        await ns.campaigns.list(options=CallOptions(headers={"X-A": "1", "x-a": "2"}))
    assert service.requests[-1].headers["x-a"] == "1, 2"
