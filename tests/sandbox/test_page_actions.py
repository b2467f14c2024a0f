"""Faults made and ended on the page, and who may do that."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import attrs
import pytest
from page_markup import Markup

from nudgescribe_async.sandbox import (
    BadAnswer,
    Delay,
    LoseAnswer,
    LoseRequest,
    RateLimit,
    RefuseToken,
    RevokeTokens,
    Sandbox,
    SandboxFault,
    ShiftPages,
    Status,
)
from nudgescribe_async.sandbox import faults as every_fault
from nudgescribe_async.sandbox.page.forms import KINDS, notation
from nudgescribe_async.sandbox.page.guard import Guard
from nudgescribe_async.sandbox.page.switches import SWITCHES

SWITCH = "/_sandbox/faults/switch"
INJECT = "/_sandbox/faults/inject"
REMOVE = "/_sandbox/faults/remove"
CLEAR = "/_sandbox/faults/clear"
# What a browser sends when nothing but the kind of fault was chosen.
UNTOUCHED = {
    entry.name: entry.default for kind in KINDS for entry in kind.entries if entry.kind != "flag" or entry.default
} | {"operation": "", "times": "1", "share": "100", "skip": "0", "seconds": ""}


class Visitor:
    """Somebody who has the page open."""

    def __init__(self, sandbox: Sandbox, http: aiohttp.ClientSession, token: str) -> None:
        self.sandbox = sandbox
        self.http = http
        self.token = token

    async def send(self, path: str, /, headers: Any = None, **form: str) -> tuple[int, str]:
        data = {"token": self.token, **form}
        async with self.http.post(path, data=data, headers=headers, allow_redirects=False) as answer:
            if answer.status == 303:
                assert answer.headers["Location"] == "/#faults"
            return answer.status, await answer.text()

    async def inject(self, kind: str, /, **form: str) -> SandboxFault:
        entered = {name.replace("__", "."): value for name, value in form.items()}
        status, text = await self.send(INJECT, **{**UNTOUCHED, "kind": kind, **entered})
        assert status == 303, Markup(text).text
        return self.sandbox.injections[-1].fault

    async def page(self) -> Markup:
        async with self.http.get("/") as answer:
            return Markup(await answer.text())


@pytest.fixture
async def visit() -> AsyncIterator[Callable[..., Any]]:
    sessions: list[aiohttp.ClientSession] = []

    async def begin(sandbox: Sandbox) -> Visitor:
        http = aiohttp.ClientSession(sandbox.url, headers={"Accept": "text/html"})
        sessions.append(http)
        async with http.get("/") as answer:
            token = Markup(await answer.text()).all("input", name="token")[0]["value"]
        return Visitor(sandbox, http, str(token))

    yield begin
    for session in sessions:
        await session.close()


@pytest.fixture
async def visitor(sandbox: Sandbox, visit: Any) -> Visitor:
    begun: Visitor = await visit(sandbox)
    return begun


# --- switches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
async def test_a_switch_is_on_and_then_off(visitor: Visitor, switch: Any) -> None:
    button = f"switch-{switch.name}"
    assert (await visitor.page()).one("button", id=button)["aria-pressed"] == "false"

    assert (await visitor.send(SWITCH, name=switch.name, on="yes"))[0] == 303

    (injection,) = visitor.sandbox.injections
    assert (injection.fault, injection.share, injection.times) == (switch.fault, switch.share, None)
    assert (await visitor.page()).one("button", id=button)["aria-pressed"] == "true"
    assert (await visitor.send(SWITCH, name=switch.name, on="yes"))[0] == 303
    assert len(visitor.sandbox.injections) == 1  # a second click of somebody else adds none
    for _ in range(2):
        assert (await visitor.send(SWITCH, name=switch.name, on="no"))[0] == 303
    assert list(visitor.sandbox.injections) == []
    assert (await visitor.page()).one("button", id=button)["aria-pressed"] == "false"


async def test_a_fault_that_is_switched_on_is_felt(api: Any, visit: Any) -> None:
    visitor = await visit(api.sandbox)

    async def status() -> int:
        async with api.http.post("/v1/auth", json={}) as answer:
            return int(answer.status)

    assert await status() != 503
    await visitor.send(SWITCH, name="unavailable", on="yes")
    assert [await status(), await status()] == [503, 503]
    rows = (await visitor.page()).table("What may still go wrong")
    assert rows[0][:4] == ["Status(503, retry_after=1)", "any operation", "until it is removed", "2"]
    await visitor.send(SWITCH, name="unavailable", on="no")
    assert await status() != 503


async def test_a_switch_that_code_has_ended_is_off(visitor: Visitor) -> None:
    await visitor.send(SWITCH, name="slow", on="yes")
    visitor.sandbox.clear_faults()

    assert (await visitor.page()).one("button", id="switch-slow")["aria-pressed"] == "false"


async def test_there_is_a_switch_or_a_form_for_every_kind_of_fault() -> None:
    kinds = {
        name
        for name, value in vars(every_fault).items()
        if isinstance(value, type) and issubclass(value, SandboxFault) and value is not SandboxFault
    }

    assert {kind.name for kind in KINDS} == kinds
    assert {type(switch.fault).__name__ for switch in SWITCHES} == kinds - {"RevokeTokens"}
    entered = {
        name: {entry.name.partition(".")[2] for kind in KINDS if kind.name == name for entry in kind.entries}
        for name in kinds
    }
    for name in kinds:  # headers are for code
        assert entered[name] == {field.name for field in attrs.fields(getattr(every_fault, name))} - {"headers"}


# --- the form ---------------------------------------------------------------------------------------------------------


async def test_the_form_makes_any_fault(visitor: Visitor) -> None:
    make = visitor.inject

    assert await make("Status") == Status(503)
    assert await make(
        "Status", status__status="429", status__retry_after="0.5", status__body="ü\n", status__after_work="on"
    ) == Status(429, retry_after=0.5, body="ü\n".encode(), after_work=True)
    assert await make("Delay") == Delay(2)
    assert await make("Delay", delay__seconds="0.25", delay__before_work="on") == Delay(0.25, before_work=True)
    assert await make("LoseAnswer") == LoseAnswer()
    assert await make("LoseRequest") == LoseRequest()
    assert await make("RateLimit") == RateLimit(5, 1)
    assert await make("RateLimit", limit__requests="7", limit__per="0.5", limit__retry_after="date") == RateLimit(
        7, 0.5, retry_after="date"
    )
    assert await make("RateLimit", limit__retry_after="none") == RateLimit(5, 1, retry_after=False)
    assert await make("RefuseToken") == RefuseToken()
    assert await make("RefuseToken", refuse__status="401", refuse__delay="1") == RefuseToken(status=401, delay=1)
    assert await make("RevokeTokens") == RevokeTokens()
    assert await make("RevokeTokens", revoke__refresh_tokens="on") == RevokeTokens(refresh_tokens=True)
    assert await make("BadAnswer") == BadAnswer(b'{"success": tr', content_type="application/json")
    assert await make(
        "BadAnswer", bad__status="302", bad__content_type="text/plain", bad__body="", bad__after_work=""
    ) == BadAnswer(b"", content_type="text/plain", status=302, after_work=False)
    assert await make("ShiftPages", shift__by="-3") == ShiftPages(-3)


async def test_the_form_says_which_requests(visitor: Visitor) -> None:
    await visitor.inject("Delay", operation="customers.list", times="", share="12.5", skip="3", seconds="60")

    (injection,) = visitor.sandbox.injections
    assert (injection.operation, injection.times, injection.skip) == ("customers.list", None, 3)
    assert (injection.share, injection.seconds) == (0.125, 60)
    await visitor.inject("Delay", times="4")
    await visitor.inject("Delay", share="", skip="")
    rows = (await visitor.page()).table("What may still go wrong")
    assert [row[:4] for row in rows] == [
        [
            "Delay(2.0)",
            "customers.list",
            "until it is removed, to 12.5 % of the requests, after 3 that are spared, for 60 s from when it was made",
            "0",
        ],
        ["Delay(2.0)", "any operation", "4 times", "0"],
        ["Delay(2.0)", "any operation", "once", "0"],
    ]


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"kind": ""}, "Choose what is to go wrong."),
        ({"kind": "Object"}, "Choose what is to go wrong."),
        ({"status.status": "two"}, "The status must be a whole number, not 'two'."),
        ({"status.status": "200"}, "Status: status must be at least 300, not 200"),
        ({"status.status": "9" * 5_000}, "The status must be a whole number, not '9999"),
        ({"status.retry_after": "-1"}, "Status: retry_after must be at least 0"),
        ({"status.retry_after": "nan"}, "Status: retry_after must be at least 0"),
        ({"status.retry_after": "soon"}, "Retry-After must be a number, not 'soon'."),
        ({"times": "0"}, "times must be a whole number, 1 or more"),
        ({"times": "x"}, "How often must be a whole number, not 'x'."),
        ({"share": "0"}, "share must be a number above 0 and up to 1"),
        ({"share": "<b>"}, "The share must be a number, not '<b>'."),
        ({"skip": "-1"}, "skip must be a whole number, 0 or more"),
        ({"seconds": "0"}, "seconds must be a number above 0"),
        ({"operation": "customers.lst"}, "There is no operation 'customers.lst'. Perhaps customers.list"),
        ({"kind": "ShiftPages", "shift.by": "0"}, "ShiftPages: by must not be 0"),
        ({"kind": "ShiftPages", "operation": "campaigns.list"}, "ShiftPages moves the pages of customers.list"),
        ({"kind": "BadAnswer", "bad.content_type": "a\nb"}, "content_type is no value of a header"),
        ({"kind": "RefuseToken", "refuse.status": "500"}, "status must be 401 or 403"),
    ],
)
async def test_what_cannot_be_right_is_said_and_what_was_entered_stays(
    visitor: Visitor, form: dict[str, str], sentence: str
) -> None:
    entered = {**UNTOUCHED, "kind": "Status", "status.body": "<i>kept</i>", **form}

    status, text = await visitor.send(INJECT, **entered)

    page = Markup(text)
    assert status == 422
    assert visitor.sandbox.injections == ()
    assert sentence in page.text
    assert not page.all("b")
    assert not page.all("i")
    assert page.one("details", id="add") == {"class": "add", "id": "add", "open": None}
    assert page.one("input", id="skip")["value"] == entered["skip"]
    if entered["kind"] == "Status":
        assert page.one("input", id="entry-status-status")["value"] == entered["status.status"]
        assert "<i>kept</i>" in page.text


async def test_faults_are_removed_one_by_one_or_all(visitor: Visitor) -> None:
    sandbox = visitor.sandbox
    first, second, third = (sandbox.inject(Delay(number), times=None) for number in range(3))
    numbers = [found["value"] for found in (await visitor.page()).all("input", name="number")]

    await visitor.send(REMOVE, number=str(numbers[1]))
    assert sandbox.injections == (first, third)
    await visitor.send(REMOVE, number=str(numbers[1]))
    await visitor.send(REMOVE, number="nonsense")
    assert sandbox.injections == (first, third)
    again = [found["value"] for found in (await visitor.page()).all("input", name="number")]
    assert again == [numbers[0], numbers[2]]
    await visitor.send(CLEAR)
    assert list(sandbox.injections) == []
    assert second.fired == 0


async def test_a_switch_that_there_is_not_is_said(visitor: Visitor) -> None:
    status, text = await visitor.send(SWITCH, name="<b>", on="yes")

    assert (status, visitor.sandbox.injections) == (422, ())
    assert "There is no such switch." in Markup(text).text


def test_faults_are_written_as_in_code_and_bodies_are_counted() -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield b""

    assert notation(Status(503, retry_after=1.5, body=b"secret", headers={"x-key": "secret"})) == (
        "Status(503, retry_after=1.5, body=<6 bytes>, headers=<1 headers>)"
    )
    assert notation(BadAnswer(stream, after_work=False)) == "BadAnswer(<a stream>, after_work=False)"
    assert notation(BadAnswer(b"")) == "BadAnswer(<0 bytes>)"
    assert notation(RefuseToken(delay=1)) == "RefuseToken(delay=1)"
    assert notation(LoseAnswer()) == "LoseAnswer()"
    assert notation(RateLimit(5, 1, retry_after="date")) == "RateLimit(5, 1, retry_after='date')"


# --- who may do that --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [SWITCH, INJECT, REMOVE, CLEAR])
@pytest.mark.parametrize("token", ["", "wrong", "\udcff", None])
async def test_an_action_needs_the_token_of_this_sandbox(
    visitor: Visitor, visit: Any, path: str, token: str | None
) -> None:
    visitor.sandbox.inject(Status(503), times=None)
    form = {**UNTOUCHED, "name": "slow", "on": "yes", "kind": "Delay", "number": "1"}
    if token is None:
        async with Sandbox() as other:
            token = (await visit(other)).token
    visitor.token = token.encode("utf-8", "surrogateescape").decode("latin-1")

    status, text = await visitor.send(path, **form)

    assert (status, len(visitor.sandbox.injections)) == (403, 1)
    assert "Load the page again" in Markup(text).text
    async with visitor.http.post(path, json={"name": "slow", "on": "yes"}) as answer:
        assert answer.status == 403
    async with visitor.http.post(path) as answer:
        assert answer.status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Origin": "http://{host}"}, 303),
        ({"Origin": "https://{host}"}, 303),  # whatever is in front of it may speak TLS
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://{host}.evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "ftp://{host}"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Origin": "http://{host}", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_an_action_comes_from_the_page(visitor: Visitor, headers: dict[str, str], status: int) -> None:
    host = visitor.sandbox.url.removeprefix("http://")
    sent = {name: value.replace("{host}", host) for name, value in headers.items()}

    assert (await visitor.send(SWITCH, name="slow", on="yes", headers=sent))[0] == status
    assert len(visitor.sandbox.injections) == (status == 303)
    # The events do, too.
    async with visitor.http.get("/_sandbox/events", headers=sent) as answer:
        assert answer.status == (200 if status == 303 else 403)


@pytest.mark.parametrize("path", [SWITCH, INJECT, REMOVE, CLEAR])
async def test_nothing_changes_by_looking(visitor: Visitor, path: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        form = {"token": visitor.token, "name": "slow", "on": "yes", "kind": "Delay"}
        async with visitor.http.request(method, path, params=form) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
            assert "Access-Control-Allow-Origin" not in answer.headers
    assert visitor.sandbox.injections == ()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:80", 200),
        ("127.9.9.9:1", 200),
        ("localhost:9000", 200),  # a tunnel has another port
        ("LOCALHOST", 200),
        ("app.localhost", 200),
        ("[::1]:5", 200),
        ("evil.example", 421),
        ("evil.example:8765", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.168.1.5", 421),
        ("0.0.0.0", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
async def test_a_name_that_was_made_to_point_here_leads_nowhere(visitor: Visitor, host: str, status: int) -> None:
    text = ""
    for path in ("/", "/_sandbox/log", "/_sandbox/static/page.js"):
        async with visitor.http.get(path, headers={"Host": host}) as answer:
            text = await answer.text()
            assert answer.status == status
            assert visitor.token not in text or status == 200
    if status == 421:
        assert "Test service" in text
        assert (await visitor.send(CLEAR, headers={"Host": host}))[0] == 421
        # It is the page's rule, and none of the service, which has tokens.
        async with visitor.http.get("/openapi.json", headers={"Host": host}) as answer:
            assert answer.status == 200


async def test_a_sandbox_for_a_network_has_any_name() -> None:
    async with (
        Sandbox(host="0.0.0.0") as sandbox,
        aiohttp.ClientSession(headers={"Accept": "text/html", "Host": "sandbox.bank.example"}) as http,
        http.get(sandbox.url.replace("0.0.0.0", "127.0.0.1") + "/") as answer,
    ):
        assert answer.status == 200
    assert Guard("127.0.0.1").token != Guard("127.0.0.1").token


async def test_every_answer_of_the_page_forbids_what_it_does_not_need(visitor: Visitor) -> None:
    checked = 0
    for method, path in (
        ("GET", "/"),
        ("GET", "/_sandbox/log"),
        ("GET", "/_sandbox/nothing"),
        ("GET", "/_sandbox/static/page.js"),
        ("GET", "/_sandbox/events"),
        ("POST", SWITCH),
        ("GET", SWITCH),
    ):
        async with visitor.http.request(method, path) as answer:
            rules = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
            assert rules["default-src"] == "'none'"
            assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
            assert rules["frame-ancestors"] == rules["base-uri"] == "'none'"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Set-Cookie" not in answer.headers
            checked += 1
    assert checked == 7


async def test_pages_load_nothing_from_elsewhere(visitor: Visitor) -> None:
    page = await visitor.page()

    sources = [found[name] for _, found in page.elements for name in ("src", "href", "action") if name in found]
    assert all(str(source).startswith(("/", "#", "?")) and not str(source).startswith("//") for source in sources)
    assert not page.all("style")


async def test_a_form_that_is_too_large_is_refused(visitor: Visitor) -> None:
    form = io.BytesIO(f"token={visitor.token}&kind=LoseAnswer&x=".encode() + b"x" * (2**20 + 1))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with visitor.http.post(INJECT, data=form, headers=headers) as answer:
        assert answer.status == 413
        assert "Too Large" in Markup(await answer.text()).text
    assert visitor.sandbox.injections == ()


# --- what was found by attacking it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),  # a link
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_another_site_may_link_here_and_ask_for_nothing(
    visitor: Visitor, headers: dict[str, str], status: int
) -> None:
    for path in ("/", "/_sandbox/log", "/_sandbox/static/page.js"):
        async with visitor.http.get(path, headers=headers) as answer:
            assert answer.status == status
            assert (visitor.token in await answer.text()) == (path == "/" and status == 200)


@pytest.mark.parametrize(
    "host", ["x@localhost", "evil.example\\@localhost", "localhost/evil", "localhost?", "[::1%25lo]"]
)
async def test_an_odd_host_is_none_of_this_machine(visitor: Visitor, host: str) -> None:
    headers = {"Host": host, "X-Forwarded-Host": "localhost", "Forwarded": "host=localhost"}
    async with visitor.http.get("/", headers=headers) as answer:
        assert answer.status == 421


FIELD = b'--a\r\nContent-Disposition: form-data; name="token"\r\n'


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data", b"x", 403),
        ("multipart/form-data; boundary=a", b"garbage", 403),
        (
            "multipart/form-data; boundary=a",
            FIELD + b"Content-Type: text/plain; charset=bogus\r\n\r\nabc\r\n--a--\r\n",
            403,
        ),
        ("text/plain", b"token={token}", 403),
        ("application/x-www-form-urlencoded", b"token=\xff\xfe", 400),
        ("application/x-www-form-urlencoded; charset=bogus", b"token={token}", 400),
        ("application/x-www-form-urlencoded; charset=utf-16", b"a", 400),
    ],
)
async def test_what_is_no_form_of_a_browser_is_refused_and_not_a_failure(
    visitor: Visitor, content_type: str, body: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    visitor.sandbox.inject(Status(503), times=None)
    sent = body.replace(b"{token}", visitor.token.encode())

    async with visitor.http.post(CLEAR, data=sent, headers={"Content-Type": content_type}) as answer:
        assert answer.status == status
        assert "page failed" not in await answer.text()

    assert len(visitor.sandbox.injections) == 1
    assert caplog.records == []


@pytest.mark.parametrize("field", ["times", "skip", "status.status", "limit.requests", "shift.by"])
@pytest.mark.parametrize("number", ["9" * 4_000, "-" + "9" * 4_000, str(2**63)])
async def test_numbers_that_are_too_large_are_refused_in_a_sentence(visitor: Visitor, field: str, number: str) -> None:
    kind = {"limit.requests": "RateLimit", "shift.by": "ShiftPages"}.get(field, "Status")

    status, text = await visitor.send(INJECT, **{**UNTOUCHED, "kind": kind, field: number})

    assert (status, visitor.sandbox.injections) == (422, ())
    error = Markup(text).text.partition(" Switches ")[0].rpartition(" Faults ")[2]
    assert "must be" in error
    assert len(error) < 600


async def test_an_operation_that_there_is_not_is_said_briefly(visitor: Visitor) -> None:
    _, text = await visitor.send(INJECT, **{**UNTOUCHED, "kind": "LoseAnswer", "operation": "x" * 5_000})

    error = Markup(text).text.partition(" Switches ")[0].rpartition(" Faults ")[2]
    assert error.startswith("There is no operation 'xxx")
    assert len(error) < 600
