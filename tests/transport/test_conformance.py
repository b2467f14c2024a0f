"""Every transport of this package keeps every rule; and the suite itself: what it tells, and what it leaves behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.testing import (
    RULES,
    BrokenPromiseError,
    ConformanceReport,
    Need,
    NotApplicableError,
    Rule,
    TransportSettings,
    Verdict,
    check_transport,
)
from nudgescribe_async.transport import BytesStream, Request, Response, Transport
from nudgescribe_async.transport.aiohttp import AiohttpTransport
from nudgescribe_async.transport.in_process import InProcessTransport

BY_NAME = {rule.name: rule for rule in RULES}


def limited(settings: TransportSettings) -> dict[str, Any]:
    return {} if settings.limit is None else {"limit": settings.limit}


def aiohttp(settings: TransportSettings) -> Transport:
    return AiohttpTransport(
        proxy=settings.proxy, trust_env=settings.trust_env, ssl_context=settings.ssl_context, **limited(settings)
    )


def in_process(settings: TransportSettings) -> Transport:
    if settings.application is None:
        raise NotApplicableError("It speaks to no socket.")
    settings.only("application", "limit")
    return InProcessTransport(settings.application(), shutdown_timeout=0.1, **limited(settings))


def httpx(settings: TransportSettings) -> Transport:
    pytest.importorskip("httpx")
    from nudgescribe_async.transport.httpx import HttpxTransport

    return HttpxTransport(
        proxy=settings.proxy, trust_env=settings.trust_env, ssl_context=settings.ssl_context, **limited(settings)
    )


_GIVEN_UP = "pyreqwest gives a request up, and cannot take it back: its connection goes when the answer comes."
PYREQWEST_CANNOT = {
    "timeouts.waiting_for_a_connection": _GIVEN_UP,
    "cancelling.connecting": _GIVEN_UP,
    "cancelling.waiting_for_the_answer": _GIVEN_UP,
    "cancelling.place_given_back": _GIVEN_UP,
    "closing.waiting": _GIVEN_UP,
    "closing.nothing_left": _GIVEN_UP,
}


def pyreqwest_as_it_is(settings: TransportSettings) -> Transport:
    pytest.importorskip("pyreqwest")
    from nudgescribe_async.transport.pyreqwest import PyreqwestTransport

    return PyreqwestTransport(
        proxy=settings.proxy,
        trust_env=settings.trust_env,
        certificate_authority=settings.certificate_authority,
        **limited(settings),
    )


def pyreqwest(settings: TransportSettings) -> Transport:
    if settings.rule in PYREQWEST_CANNOT:
        raise NotApplicableError(PYREQWEST_CANNOT[settings.rule])
    return pyreqwest_as_it_is(settings)


TRANSPORTS = {"aiohttp": aiohttp, "in_process": in_process, "httpx": httpx, "pyreqwest": pyreqwest}


def is_applicable(transport: str, rule: Rule) -> bool:
    """Said here once more, so that no rule is left out unnoticed."""
    if transport == "pyreqwest":
        return rule.name not in PYREQWEST_CANNOT
    return transport != "in_process" or Need.SOCKET not in rule.needs


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("rule", RULES, ids=str)
async def test_every_transport_keeps_every_rule(rule: Rule, transport: str) -> None:
    if is_applicable(transport, rule):
        try:
            await rule.check(TRANSPORTS[transport])
        except NotApplicableError as reason:
            pytest.fail(f"left out: {reason}")
    else:
        with pytest.raises(NotApplicableError):
            await rule.check(TRANSPORTS[transport])


@pytest.mark.parametrize("rule", PYREQWEST_CANNOT)
async def test_what_a_transport_is_said_not_to_do_it_does_not_do(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should this fail, the library has learned it, and the rule is left out for no reason."""
    monkeypatch.setattr("nudgescribe_async.testing.conformance._bench.SOON", 0.3)
    monkeypatch.setattr("nudgescribe_async.testing.conformance._servers.GOODBYE", 0.3)
    with pytest.raises(BrokenPromiseError):
        await BY_NAME[rule].check(pyreqwest_as_it_is)


def test_what_the_rules_are_called() -> None:
    assert len(BY_NAME) == len(RULES)
    subjects = [rule.subject for rule in RULES]
    assert sorted({*subjects}, key=subjects.index) == [
        "requests", "bodies", "answers", "connections", "failures", "timeouts", "cancelling", "closing", "tls", "proxies",
    ]  # fmt: skip
    for rule in RULES:
        assert rule.promise.endswith("."), rule
        assert str(rule) == rule.name


# What is told of a transport


class Deaf:
    """Answers everything with an empty 200, and sends nothing."""

    async def send(self, _: Request) -> Response:
        return Response(status=200)

    async def aclose(self) -> None:
        pass


async def test_a_report_names_what_is_broken_and_what_is_not_applicable() -> None:
    names = ["requests.bad_address", "bodies.every_method", "answers.any_status", "connections.limit", "tls.trusted"]

    def make(settings: TransportSettings) -> Transport:
        settings.only("certificate_authority")
        return Deaf()

    report = await check_transport(make, rules=[BY_NAME[name] for name in names])
    assert not report
    assert [verdict.rule.name for verdict in report.broken] == [names[0], names[1], names[2], names[4]]
    assert report.kept == ()
    (left_out,) = report.not_applicable
    assert (left_out.rule.name, left_out.error) == ("connections.limit", None)
    assert str(report) == (
        "5 rules: 0 kept, 4 broken, 1 not applicable.\n"
        "\n"
        "broken: requests.bad_address\n"
        "  An address that cannot be used is a ConfigurationError that does not repeat it.\n"
        "  The address '': expected ConfigurationError, and got no error.\n"
        "\n"
        "broken: bodies.every_method\n"
        "  Every method can carry a body of bytes, GET and DELETE too, or none.\n"
        "  GET with no body: it arrived as None.\n"
        "\n"
        "broken: answers.any_status\n"
        "  A status is never an exception.\n"
        "  The status 201 came out as 200.\n"
        "\n"
        "broken: tls.trusted\n"
        "  It speaks TLS with a server whose certificate its authority has issued, and keeps the connection.\n"
        "  The answer was b''.\n"
        "\n"
        "not applicable:\n"
        "  connections.limit: The transport cannot be given limit."
    )


async def test_a_report_of_a_good_transport_is_true() -> None:
    rules = [BY_NAME["answers.no_cookie"], BY_NAME["answers.no_redirect"]]

    async def make(settings: TransportSettings) -> Transport:  # a coroutine will do, too
        return aiohttp(settings)

    report = await check_transport(make, rules=iter(rules))
    assert report
    assert report == ConformanceReport(tuple(Verdict(rule=rule, outcome="kept") for rule in rules))
    assert str(report) == "2 rules: 2 kept, 0 broken, 0 not applicable."


async def test_what_a_transport_raises_is_the_cause_of_what_is_told() -> None:
    class Failing(Deaf):
        async def send(self, _: Request) -> Response:
            raise LookupError("inside")

    with pytest.raises(
        BrokenPromiseError, match=r"(?s)^answers.no_cookie: No cookie is kept\..*LookupError: inside"
    ) as caught:
        await BY_NAME["answers.no_cookie"].check(lambda _: Failing())
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(
        BrokenPromiseError, match=r"(?s)expected RequestNotSentError, and got builtins.LookupError"
    ) as caught:
        await BY_NAME["failures.refused"].check(lambda _: Failing())
    assert isinstance(caught.value.__cause__, LookupError)


async def test_a_transport_that_cannot_be_made_breaks_the_rule() -> None:
    def make(_: TransportSettings) -> Transport:
        raise LookupError("no such library")

    with pytest.raises(BrokenPromiseError, match="no such library"):
        await BY_NAME["answers.no_cookie"].check(make)


async def test_a_transport_that_hangs_breaks_the_rule() -> None:
    class Hanging(Deaf):
        async def send(self, _: Request) -> Response:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(BrokenPromiseError, match=r"It hangs: it has not come to an end in 0.05 s"):
        await BY_NAME["answers.no_cookie"].check(lambda _: Hanging(), patience=0.05)


async def test_a_transport_whose_closing_hangs_breaks_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nudgescribe_async.testing.conformance._bench.PATIENCE_OF_CLOSING", 0.05)

    class Hanging(AiohttpTransport):
        async def aclose(self) -> None:
            await super().aclose()
            await asyncio.Event().wait()

    with pytest.raises(BrokenPromiseError, match=r"aclose\(\) did not come to an end"):
        await BY_NAME["answers.no_cookie"].check(lambda _: Hanging())


@pytest.fixture
async def deaf(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Something that minds no cancelling, until the test is over."""
    monkeypatch.setattr("nudgescribe_async.testing.conformance._bench.PATIENCE_OF_CLOSING", 0.05)
    before, over = asyncio.all_tasks(), asyncio.Event()

    async def wait() -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    yield wait
    over.set()
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        await asyncio.wait(left)


@pytest.mark.parametrize("rule", ["answers.no_cookie", "bodies.every_method", "requests.headers_as_given"])
async def test_a_transport_that_cannot_be_cancelled_does_not_hold_up_the_suite(
    rule: str, deaf: Callable[[], Awaitable[None]]
) -> None:
    class Sending(AiohttpTransport):
        async def send(self, request: Request) -> Response:
            await deaf()
            return await super().send(request)

    class Reading(AiohttpTransport):
        async def send(self, request: Request) -> Response:
            response = await super().send(request)
            await response.aclose()
            return Response(status=200, headers=response.headers, stream=DeafStream())

    class DeafStream:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await deaf()
            yield b""

        async def aclose(self) -> None:
            await deaf()

    def sending(_: TransportSettings) -> Transport:
        return Sending()

    def reading(_: TransportSettings) -> Transport:
        return Reading()

    for make in (sending, reading):
        with pytest.raises(BrokenPromiseError, match=r"It hangs: .* Nor did it when it was cancelled"):
            await BY_NAME[rule].check(make, patience=0.1)


async def test_a_transport_whose_closing_cannot_be_cancelled_does_not_hold_up_the_suite(
    deaf: Callable[[], Awaitable[None]],
) -> None:
    class Closing(AiohttpTransport):
        async def aclose(self) -> None:
            await super().aclose()
            await deaf()

    with pytest.raises(BrokenPromiseError, match=r"aclose\(\) did not come to an end"):
        await BY_NAME["answers.no_cookie"].check(lambda _: Closing())


async def test_a_cancellation_that_nobody_asked_for_breaks_the_rule_and_does_not_end_the_suite() -> None:
    class Sending(AiohttpTransport):
        async def send(self, _: Request) -> Response:
            raise asyncio.CancelledError

    class Closing(AiohttpTransport):
        async def aclose(self) -> None:
            await super().aclose()
            raise asyncio.CancelledError

    def sending(_: TransportSettings) -> Transport:
        return Sending()

    def closing(_: TransportSettings) -> Transport:
        return Closing()

    rules = [BY_NAME["answers.no_cookie"]]
    report = await check_transport(sending, rules=rules)
    assert "It raised CancelledError, and nobody had cancelled it." in str(report)
    report = await check_transport(closing, rules=rules)
    assert "aclose() raised CancelledError, and nobody had cancelled it." in str(report)


async def test_what_a_transport_leaves_behind_breaks_any_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaking(AiohttpTransport):
        async def send(self, request: Request) -> Response:
            self.task = asyncio.create_task(forget_me_not())
            return await super().send(request)

    class Open(AiohttpTransport):
        async def aclose(self) -> None:
            pass

    class Failing(AiohttpTransport):
        async def aclose(self) -> None:
            await super().aclose()
            raise LookupError("inside")

    async def forget_me_not() -> None:
        await asyncio.Event().wait()

    made: list[AiohttpTransport] = []

    def make_open(_: TransportSettings) -> Transport:
        made.append(Open())
        return made[-1]

    monkeypatch.setattr("nudgescribe_async.testing.conformance._servers.GOODBYE", 0.2)
    for make, told in (
        (lambda _: Leaking(), r"Tasks are left: .*forget_me_not"),
        (make_open, r"After aclose\(\) the transport still held a connection to port"),
        (lambda _: Failing(), r"aclose\(\) raised builtins.LookupError: inside"),
    ):
        with pytest.raises(BrokenPromiseError, match=told):
            await BY_NAME["connections.used_again"].check(make)
    await AiohttpTransport.aclose(made[0])


async def test_what_the_event_loop_complains_of_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    told: list[dict[str, Any]] = []

    class Complaining(AiohttpTransport):
        async def aclose(self) -> None:
            await super().aclose()
            asyncio.get_running_loop().call_exception_handler({"message": "a complaint"})

    await BY_NAME["answers.no_cookie"].check(lambda _: Complaining())
    assert "a complaint" in caplog.text
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    await BY_NAME["answers.no_cookie"].check(lambda _: Complaining())
    assert told == [{"message": "a complaint"}]


async def test_cancelling_the_suite_leaves_nothing() -> None:
    sent = asyncio.Event()
    closed = asyncio.Event()

    class Hanging(AiohttpTransport):
        async def send(self, _: Request) -> Response:
            sent.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def aclose(self) -> None:
            closed.set()
            await super().aclose()

    checking = asyncio.create_task(check_transport(lambda _: Hanging()))
    await sent.wait()
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    assert closed.is_set()


async def test_without_trustme_the_rules_about_tls_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from nudgescribe_async.testing.conformance._certificates import certificates

    certificates.cache_clear()
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ConfigurationError, match=r"pip install trustme"):
        await BY_NAME["tls.trusted"].check(aiohttp)
    with pytest.raises(ConfigurationError, match=r"Need\.TLS"):
        await check_transport(aiohttp, rules=[BY_NAME["proxies.tunnel"]])
    without = [rule for rule in RULES if Need.TLS not in rule.needs]
    assert {"proxies.forwarded", "answers.no_cookie"} < {rule.name for rule in without}
    assert await check_transport(aiohttp, rules=[BY_NAME["answers.no_cookie"]])


# What a rule asks of a transport


def test_a_transport_says_which_settings_it_can_be_given() -> None:
    TransportSettings().only()
    TransportSettings(application=object).only()  # type: ignore[arg-type]
    TransportSettings(limit=3, proxy="http://me:geheim@proxy:1").only("proxy", "limit")
    with pytest.raises(NotApplicableError, match=r"^The transport cannot be given proxy, trust_env\.$"):
        TransportSettings(limit=3, proxy="http://me:geheim@proxy:1", trust_env=True).only("limit")
    with pytest.raises(ValueError, match="There is no setting 'limits'; there are certificate_authority, proxy"):
        TransportSettings().only("limits")


def test_settings_show_no_password_and_have_a_context_only_where_there_is_an_authority() -> None:
    trustme = pytest.importorskip("trustme")
    assert "geheim" not in repr(TransportSettings(proxy="http://me:geheim@proxy:1"))
    assert TransportSettings().ssl_context is None
    authority = trustme.CA().cert_pem.bytes().decode()
    context = TransportSettings(certificate_authority=authority).ssl_context
    assert context is not None
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


async def test_whole_streams_are_tried_both_ways() -> None:
    """A response may be read whole or in pieces, and a fault in one of the two must not hide in the other."""

    class Shortening(AiohttpTransport):
        async def send(self, request: Request) -> Response:
            response = await super().send(request)
            body = await response.read()
            return Response(status=response.status, headers=response.headers, stream=Pieces(body))

    class Pieces(BytesStream):
        async def read_whole(self, _: int | None) -> bytes | None:
            return self.data[:-1]

    with pytest.raises(BrokenPromiseError):
        await BY_NAME["answers.decompressed"].check(lambda _: Shortening())


@pytest.mark.parametrize(
    ("rule", "says", "told"),
    [
        ("connections.used_again", b"this is no request\r\nat all\r\n\r\n", "took 4 connections"),
        ("connections.used_again", b"nonsense\r\n\r\n", "took 4 connections"),
        ("proxies.without_credentials", b"CONNECT nonsense HTTP/1.1\r\n\r\n", "the status 400"),
    ],
)
async def test_nonsense_is_no_trouble_for_the_servers_of_the_suite(rule: str, says: bytes, told: str) -> None:
    class Babbling(Deaf):
        def __init__(self, settings: TransportSettings) -> None:
            self.proxy = settings.proxy

        async def send(self, request: Request) -> Response:
            where = urlsplit(self.proxy or request.url)
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            writer.write(says)
            answer = await reader.read()
            writer.close()
            return Response(status=400 if b" 400 " in answer else 200)

    with pytest.raises(BrokenPromiseError, match=told):
        await BY_NAME[rule].check(Babbling)
