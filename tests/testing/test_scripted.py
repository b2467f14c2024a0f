"""The scripted transport: answers by operation, in order, every time; and what it keeps of the requests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest
from helpers import CREDENTIALS, ONCE, START
from operations import ENDPOINTS

from nudgescribe_async import (
    AuthenticationError,
    CallOptions,
    ClientClosedError,
    DeadlineExceededError,
    Headers,
    Nudgescribe,
    OutcomeUnknownError,
    Request,
    RequestNotSentError,
    Response,
    RetryPolicy,
    StreamBody,
    Timeout,
    Transport,
)
from nudgescribe_async.testing import HANG, ScriptedTransport, SentRequest, VirtualClock, answer
from nudgescribe_async.testing._operations import OPERATIONS

GROUP = {"customer_group_id": "g", "group_name": "Gold", "workspace_id": "w"}
CUSTOMER = {"customer_id": "c", "customer_group_id": "g", "extended_profile": {}}


def client(transport: Transport, **options: Any) -> Nudgescribe:
    return Nudgescribe(CREDENTIALS, transport=transport, clock=options.pop("clock", None) or VirtualClock(), **options)


def request(operation: str = "customer_groups.list", **options: Any) -> Request:
    method, path = next(key for key, name in OPERATIONS.items() if name == operation)
    return Request(method=method, url=f"https://any.example/v1x{path}?query=1", **options)


# --- scripts ---------------------------------------------------------------------------------------


def test_every_operation_of_the_contract_can_be_scripted() -> None:
    assert set(OPERATIONS.values()) == {endpoint.operation for endpoint in ENDPOINTS.values()}
    assert len(OPERATIONS) == 22


@pytest.mark.parametrize("operation", sorted(OPERATIONS.values()))
async def test_a_request_is_known_by_its_method_and_path(operation: str) -> None:
    transport = ScriptedTransport()
    transport.on(operation, answer(299))
    assert (await transport.send(request(operation))).status == 299
    assert [sent.operation for sent in transport.requests] == [operation]
    assert transport.count(operation) == 1


async def test_one_answer_is_given_every_time_and_can_be_read_every_time() -> None:
    transport = ScriptedTransport()
    transport.on("customer_groups.list", answer(200, [GROUP]))
    async with client(transport) as ns:
        calls = [await ns.customer_groups.list("w") for _ in range(3)]
        calls += await asyncio.gather(*(ns.customer_groups.list("w") for _ in range(20)))
    assert {groups[0].group_name for groups in calls} == {"Gold"}
    assert transport.count("customer_groups.list") == 23


async def test_a_list_is_one_after_the_other_whatever_each_is() -> None:
    transport = ScriptedTransport()
    clock = VirtualClock()
    transport.on(
        "customers.list",
        [
            RequestNotSentError("nobody there"),
            answer(503, headers={"Retry-After": "7"}),
            lambda sent: answer(200, [CUSTOMER | {"customer_id": sent.path}]),
        ],
    )
    async with client(transport, clock=clock) as ns:
        assert [customer.customer_id for customer in await ns.customers.list("g")] == ["/v1/customer"]
    assert transport.count("customers.list") == 3
    assert len(clock.slept) == 2
    assert clock.slept[1] >= 7


async def test_beyond_the_end_of_a_list_is_an_error_that_says_so() -> None:
    transport = ScriptedTransport()
    transport.on("customers.list", [answer(200, []), answer(200, [])])
    transport.on("messages.publish", [])
    async with client(transport) as ns:
        await ns.customers.list("g")
        await ns.customers.list("g")
        with pytest.raises(AssertionError, match=r"customers\.list was requested 3 times, and its script is 2 long"):
            await ns.customers.list("g")
        with pytest.raises(AssertionError, match=r"messages\.publish was requested 1 times, and its script is 0 long"):
            await ns.messages.publish("c")


async def test_without_a_script_it_is_an_error_that_names_what_there_is() -> None:
    transport = ScriptedTransport()
    transport.on("customers.list", [answer(200, []), HANG])
    transport.on("reruns.history", answer(200, []))
    async with client(transport) as ns:
        await ns.customers.list("g")
        with pytest.raises(AssertionError) as caught:
            await ns.reruns.initiate("c", "g")
    assert str(caught.value) == (
        "reruns.initiate was requested, and has no script. Scripted: auth.authenticate, auth.reauthenticate, "
        "customers.list (1 of 2 used), reruns.history."
    )
    assert transport.count("reruns.initiate") == 1  # and was not tried again


async def test_what_is_no_operation_is_an_error() -> None:
    transport = ScriptedTransport()
    with pytest.raises(AssertionError, match="PUT /v1/campaign/all is no operation"):
        await transport.send(Request(method="PUT", url="https://any.example/v1/campaign/all?signature=secret"))


async def test_a_function_sees_the_request_and_may_be_a_coroutine_function() -> None:
    transport = ScriptedTransport()
    seen: list[SentRequest] = []

    async def history(sent: SentRequest) -> Response:
        await asyncio.sleep(0)
        seen.append(sent)
        return answer(200, [])

    def create(sent: SentRequest) -> Response:
        return answer(200, GROUP | {"group_name": sent.body["group_name"]})

    def publish(_: SentRequest) -> Response:
        raise OutcomeUnknownError("lost")

    transport.on("reruns.history", history)
    transport.on("customer_groups.create", create)
    transport.on("messages.publish", publish)
    transport.on("reruns.initiate", lambda _: RequestNotSentError("handed back"))
    async with client(transport, retry=ONCE) as ns:
        await ns.reruns.history("c")
        assert (await ns.customer_groups.create("w", "Silver")).group_name == "Silver"
        with pytest.raises(OutcomeUnknownError):
            await ns.messages.publish("c")
        with pytest.raises(RequestNotSentError, match="handed back"):
            await ns.reruns.initiate("c", "g")
    assert [sent.operation for sent in seen] == ["reruns.history"]
    assert seen[0] is transport.requests[1]


async def test_what_hangs_is_ended_by_the_deadline_or_by_cancelling_it() -> None:
    transport = ScriptedTransport()
    transport.on("messages.publish", HANG)
    call = asyncio.create_task(transport.send(request("messages.publish")))
    await asyncio.sleep(0)
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    clock = VirtualClock()
    async with client(transport, timeout=Timeout(total=300), clock=clock) as ns:
        with pytest.raises(DeadlineExceededError) as caught:
            await ns.messages.publish("c")
    assert caught.value.may_have_taken_effect
    assert clock.now == START + 300


async def test_errors_are_raised_as_they_are() -> None:
    class Odd(Exception):  # noqa: N818
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} {two}")

    odd, cause = Odd(1, 2), OSError("cut")
    lost = OutcomeUnknownError("lost")
    lost.__cause__ = cause
    transport = ScriptedTransport()
    for error in (odd, KeyboardInterrupt("now"), lost):
        transport.on("customers.list", error)
        with pytest.raises(type(error), match=str(error)) as caught:
            await transport.send(request("customers.list"))
        assert caught.value.__cause__ is (cause if error is lost else None)
    transport.on("customers.list", odd)
    async with client(transport) as ns:
        with pytest.raises(Odd) as found:
            await ns.customers.list("g")
    assert found.value is odd


async def test_what_the_client_adds_to_an_error_is_not_found_in_the_next() -> None:
    transport = ScriptedTransport()
    lost = OutcomeUnknownError("lost")
    transport.on("messages.publish", lost)
    texts: list[str] = []
    async with client(transport, retry=ONCE) as ns:
        for _ in range(2):
            with pytest.raises(OutcomeUnknownError) as caught:
                await ns.messages.publish("c")
            texts.append(str(caught.value))
            assert len(caught.value.attempts) == 1
    assert texts[0] == texts[1]
    assert (lost.operation, lost.attempts, lost.message) == (None, (), "lost")


@pytest.mark.parametrize("script", [None, "later", 200, RequestNotSentError, [answer(), 3], [[answer()]], {"a": 1}])
def test_what_is_no_script_is_refused(script: Any) -> None:
    with pytest.raises(TypeError, match=r"customers\.list: .* is neither an answer"):
        ScriptedTransport().on("customers.list", script)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no operation 'customers\.lst'.*customers\.list"):
        ScriptedTransport().on("customers.lst", answer())


async def test_a_function_that_gives_something_else_is_an_error() -> None:
    transport = ScriptedTransport()
    transport.on("customers.list", lambda _: 200)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match=r"script of customers\.list gave something else: 200"):
        await transport.send(request("customers.list"))


async def test_a_new_script_takes_the_place_of_the_old_one() -> None:
    transport = ScriptedTransport()
    transport.on("customers.list", [answer(500)])
    transport.on("customers.list", [answer(201)])
    assert (await transport.send(request("customers.list"))).status == 201


def chunks(*given: bytes) -> AsyncIterator[bytes]:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in given:
            yield chunk

    return stream()


async def test_a_body_that_can_be_read_once_is_good_for_one_answer_only() -> None:
    transport = ScriptedTransport()
    with pytest.raises(TypeError, match="read once only"):
        transport.on("messages.fetch", Response(status=200, stream=chunks(b"a")))  # type: ignore[arg-type]
    transport.on("messages.fetch", lambda _: Response(status=200, stream=chunks(b"a", b"b")))  # type: ignore[arg-type]
    for _ in range(2):
        assert await (await transport.send(request("messages.fetch"))).read() == b"ab"


# --- tokens ----------------------------------------------------------------------------------------


async def test_logins_and_renewals_are_answered_each_time_with_other_tokens() -> None:
    transport = ScriptedTransport()
    clock = VirtualClock()
    transport.on("customer_groups.list", answer(200, []))
    async with client(transport, clock=clock) as ns:
        await ns.customer_groups.list("w")
        clock.now += 14 * 86_400
        await ns.customer_groups.list("w")
        clock.now += 30 * 86_400
        await ns.customer_groups.list("w")
    assert [(sent.operation, sent.headers.get("authorization")) for sent in transport.requests] == [
        ("auth.authenticate", None),
        ("customer_groups.list", "Bearer access-1"),
        ("auth.reauthenticate", "Bearer refresh-1"),
        ("customer_groups.list", "Bearer access-2"),
        ("auth.authenticate", None),
        ("customer_groups.list", "Bearer access-3"),
    ]


async def test_a_login_can_be_scripted_too() -> None:
    transport = ScriptedTransport()
    transport.on("auth.authenticate", answer(403, {"message": "locked"}))
    async with client(transport) as ns:
        with pytest.raises(AuthenticationError):
            await ns.customer_groups.list("w")
    transport = ScriptedTransport()
    transport.on("auth.authenticate", [])
    async with client(transport) as ns:
        with pytest.raises(AssertionError, match=r"auth\.authenticate was requested 1 times"):
            await ns.customer_groups.list("w")


# --- what it keeps ---------------------------------------------------------------------------------


async def test_what_was_sent_can_be_read_and_its_repr_keeps_quiet() -> None:
    clock = VirtualClock()
    transport = ScriptedTransport(clock=clock)
    transport.on("customers.list", answer(200, []))
    async with client(transport, clock=clock) as ns:
        await clock.sleep(5)
        await ns.customers.list("g", page=3, options=CallOptions(headers={"X-Trace": "t"}))
    login, sent = transport.requests
    assert (sent.operation, sent.method, sent.path, sent.at) == ("customers.list", "POST", "/v1/customer", START + 5)
    assert sent.body == {"customer_group_id": "g", "page": 3}
    assert sent.headers["x-trace"] == "t"
    assert {CREDENTIALS.api_key, CREDENTIALS.password} <= {*login.headers.values(), *login.body.values()}
    shown = repr(transport.requests) + repr(transport)
    assert "customers.list" in shown
    for secret in (CREDENTIALS.api_key, CREDENTIALS.password, CREDENTIALS.email, "access-1", "'g'", "'t'"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("kind", "body", "kept"),
    [
        ("application/json", b'{"a": [1]}', {"a": [1]}),
        ("Application/JSON; charset=utf-8", b"null", None),
        ("application/json", b"{broken", b"{broken"),
        ("application/json", b"", b""),
        ("text/csv", b"1", b"1"),
        (None, b"1", b"1"),
        ("application/json", None, None),
    ],
)
async def test_json_is_read_and_the_rest_kept_as_it_is(kind: str | None, body: bytes | None, kept: object) -> None:
    transport = ScriptedTransport()
    transport.on("customers.list", answer())
    headers = Headers({} if kind is None else {"content-type": kind})
    await transport.send(request("customers.list", headers=headers, body=body))
    assert transport.requests[0].body == kept
    assert transport.requests[0].size == len(body or b"")
    assert transport.requests[0].at is None


async def test_an_upload_is_read_to_its_end_and_its_start_is_kept() -> None:
    transport = ScriptedTransport(keep=10)
    transport.on("customers.check", answer())
    ends: list[str] = []

    async def stream() -> AsyncIterator[bytes]:
        try:
            for chunk in (b"1234567", b"89abcde", b"fgh"):
                yield chunk
            ends.append("read")
        finally:
            ends.append("closed")

    await transport.send(request("customers.check", body=StreamBody(open=stream)))
    assert ends == ["read", "closed"]
    (sent,) = transport.requests
    assert (sent.body, sent.size) == (b"123456789a", 17)


async def test_a_file_goes_through_the_whole_client() -> None:
    transport = ScriptedTransport()
    receipt = {"success": True, "accepted_count": 1, "rejected_count": 0, "errors": [], "message": ""}
    transport.on("customers.check", answer(200, receipt))
    async with client(transport) as ns:
        assert (await ns.customers.check("w", "g", file=b"external_id\n7\n")).accepted_count == 1
    body = transport.requests[-1].body
    assert b"external_id\n7\n" in body


async def test_what_the_body_raises_comes_out_and_the_request_was_never_whole() -> None:
    transport = ScriptedTransport()
    transport.on("customers.check", [answer()])
    closed: list[bool] = []

    async def stream() -> AsyncIterator[bytes]:
        try:
            yield b"1"
            raise OSError("the disk is gone")
        finally:
            closed.append(True)

    with pytest.raises(OSError, match="disk"):
        await transport.send(request("customers.check", body=StreamBody(open=stream)))
    assert transport.requests == ()
    assert closed == [True]
    await transport.send(request("customers.check"))  # the script has not moved on


async def test_a_stream_is_closed_when_the_request_is_cancelled() -> None:
    transport = ScriptedTransport()
    closed: list[bool] = []

    async def stream() -> AsyncIterator[bytes]:
        try:
            yield b"1"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    call = asyncio.create_task(transport.send(request("customers.check", body=StreamBody(open=stream))))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    assert closed == [True]


async def test_a_stream_that_cannot_be_closed_is_fine() -> None:
    class Once:
        def __init__(self) -> None:
            self.left = [b"a", b"b"]

        def __aiter__(self) -> Once:
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    transport = ScriptedTransport()
    transport.on("customers.check", answer())
    await transport.send(request("customers.check", body=StreamBody(open=Once)))
    assert transport.requests[0].body == b"ab"


# --- closing ---------------------------------------------------------------------------------------


async def test_closing_is_counted_and_nothing_is_sent_afterwards() -> None:
    transport = ScriptedTransport()
    transport.on("customers.list", answer(200, []))
    assert isinstance(transport, Transport)
    async with client(transport) as ns:
        await ns.customers.list("g")
        assert transport.closed == 0
    assert transport.closed == 1
    with pytest.raises(ClientClosedError):
        await transport.send(request("customers.list"))
    await transport.aclose()
    assert transport.closed == 2
    assert transport.count("customers.list") == 1


# --- answer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "status", "headers", "body"),
    [
        (answer(), 200, {"content-length": "0"}, b""),
        (answer(503), 503, {"content-length": "0"}, b""),
        (answer(200, []), 200, {"content-type": "application/json", "content-length": "2"}, b"[]"),
        (answer(200, {"ä": 1}), 200, {"content-type": "application/json", "content-length": "8"}, '{"ä":1}'.encode()),
        (answer(200, ""), 200, {"content-type": "application/json", "content-length": "2"}, b'""'),
        (answer(body=b"a\n1\n"), 200, {"content-type": "text/csv", "content-length": "4"}, b"a\n1\n"),
        (answer(body=b""), 200, {"content-type": "text/csv", "content-length": "0"}, b""),
        (
            answer(404, [], headers={"Content-Type": "text/html", "X-Request-Id": "r"}),
            404,
            {"content-type": "text/html", "content-length": "2", "x-request-id": "r"},
            b"[]",
        ),
        (
            answer(body=b"cut", headers={"Content-Length": "10"}),
            200,
            {"content-type": "text/csv", "content-length": "10"},
            b"cut",
        ),
    ],
)
async def test_an_answer_has_the_headers_that_a_server_would_send(
    given: Response, status: int, headers: dict[str, str], body: bytes
) -> None:
    assert given.status == status
    assert given.headers == Headers(headers)
    assert await given.read() == await given.read() == body


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(TypeError, match="not both"):
        answer(200, [], body=b"")
    with pytest.raises(TypeError):
        answer(200, object())
    with pytest.raises(ValueError, match="JSON"):
        answer(200, float("nan"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"headers": {"Retry-After": 5}}, TypeError, r"headers\['Retry-After'\] must be a text, .*; got 5: write '5'"),
        ({"headers": {"X-Api-Key": b"geheim"}}, TypeError, r"headers\['X-Api-Key'\] must be a text, .*; got bytes.$"),
        ({"headers": {5: "5"}}, TypeError, "headers must have texts for names; got 5"),
        ({"headers": [("Retry-After", "5")]}, TypeError, "headers must be a mapping of texts to texts; got list"),
        ({"headers": ""}, TypeError, "headers must be a mapping of texts to texts; got str"),
        ({"status": "200"}, TypeError, "status must be a whole number from 100 to 999; got str"),
        ({"status": None}, TypeError, "status must be .*; got None"),
        ({"status": True}, TypeError, "status must be .*; got bool"),
        ({"status": 99}, ValueError, "status must be .*; got 99"),
        ({"status": 1_000}, ValueError, "status must be .*; got 1000"),
        ({"body": "text"}, TypeError, "body must be bytes; got str: encode a text"),
        ({"body": {}}, TypeError, "body must be bytes; got dict: .* give a value as json="),
        ({"json": b"[]"}, TypeError, "json must be .*; got bytes: give them as body="),
    ],
)
def test_what_cannot_be_an_answer_is_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        answer(**options)


async def test_the_statuses_at_the_edges_and_those_of_the_standard_library_are_answers() -> None:
    statuses = [answer(100).status, answer(999).status, answer(HTTPStatus.NOT_FOUND).status]
    assert statuses == [100, 999, 404]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"clock": 5}, TypeError, r"clock must be a clock, such as VirtualClock\(\), or None; got int"),
        ({"clock": VirtualClock}, TypeError, "clock must be a clock, and not the class of one; got VirtualClock"),
        ({"keep": "1"}, TypeError, "keep must be a whole number of bytes, 0 or more; got str"),
        ({"keep": -1}, ValueError, "keep must be .*; got -1"),
    ],
)
def test_a_transport_that_cannot_be_is_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ScriptedTransport(**options)


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        ("customer_group.list", ValueError, "no operation 'customer_group.list'. Perhaps customer_groups.list or .*?"),
        ("nonsense", ValueError, "no operation 'nonsense'. There are: auth.authenticate, .*reruns.messages."),
        ("", ValueError, "no operation ''. There are: "),
        (None, TypeError, 'operation must be a text such as "customers.list", not NoneType'),
        (["customers.list"], TypeError, "operation must be a text .*, not list"),
    ],
)
def test_what_is_no_operation_is_neither_counted_nor_scripted(
    operation: Any, error: type[Exception], message: str
) -> None:
    transport = ScriptedTransport()
    with pytest.raises(error, match=message):
        transport.count(operation)
    with pytest.raises(error, match=message):
        transport.on(operation, answer())
    assert transport.count("customer_groups.list") == 0


async def test_a_message_file_can_be_scripted() -> None:
    transport = ScriptedTransport()
    transport.on("messages.fetch", answer(body=b"customer_id,message\n1,Hello\n"))
    async with client(transport) as ns:
        assert "Hello" in await ns.messages.fetch("c", 1)


async def test_the_retries_of_a_client_can_be_watched_without_waiting() -> None:
    transport = ScriptedTransport()
    clock = VirtualClock()
    transport.on("customers.list", answer(500))
    async with client(transport, clock=clock, retry=RetryPolicy(attempts=5, base=60, longest=600)) as ns:
        with pytest.raises(Exception, match="failed"):
            await ns.customers.list("g")
    assert transport.count("customers.list") == 5
    assert clock.now == pytest.approx(START + sum(clock.slept))


def test_nothing_is_loaded_that_is_not_needed() -> None:
    program = "import nudgescribe_async.testing, sys; print([m for m in ('aiohttp', 'pytest') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
