"""Rules about the head of a request: its address, its headers, and what cannot be sent."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import attrs

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.testing.conformance._bench import Bench, expect
from nudgescribe_async.testing.conformance._bodies import METHODS
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import Counted, say_ok
from nudgescribe_async.testing.conformance._values import Need
from nudgescribe_async.transport import Request

__all__ = ["BOOK"]

BOOK: Final = RuleBook("requests")
OF_HTTP: Final = {"host", "connection", "accept", "accept-encoding", "user-agent", "content-length", "te"}
"""What a transport may add: how HTTP goes about it, and nothing of what is meant."""


@BOOK.rule("A header arrives once, with the value that it was given, under its name in whatever case.", Need.SOCKET)
async def headers_as_given(bench: Bench) -> None:
    given = {
        "Authorization": "Bearer token",
        "x-lower": "1, 2",
        "X-UPPER": "a  b",
        "X-Empty": "",
        "Content-Type": "text/csv; charset=utf-8",
        "Accept": "text/csv",
        "Accept-Encoding": "identity",
        "User-Agent": "conformance/1",
        "X-Quoted": '"a\tb"; c=\\',
    }
    server = await bench.raw(say_ok)
    transport = await bench.transport()
    for method, body in (("GET", None), ("POST", b"body"), ("DELETE", b"body")):
        await bench.fetch(transport, Request(method=method, url=server.url, headers=given, body=body))
        for name, value in given.items():
            got = server.requests[-1].values(name)
            expect(got == [value], f"{method}: {name}: {value!r} arrived as {got}.")


@BOOK.rule(
    "Nothing is added to the headers but what HTTP itself needs: no credentials, no type of content.", Need.SOCKET
)
async def nothing_added(bench: Bench) -> None:
    server = await bench.raw(say_ok)
    transport = await bench.transport()
    for method in METHODS:
        for body in (None, b"body"):
            request = Request(method=method, url=server.url, headers={"X-Given": "1"}, body=body)
            await bench.fetch(transport, request)
            names = [name.lower() for name, _ in server.requests[-1].headers]
            added = {*names} - OF_HTTP - {"x-given"}
            expect(not added, f"{method}: these headers were added: {', '.join(sorted(added))}.")
            twice = [name for name, count in Counter(names).items() if count > 1]
            expect(not twice, f"{method}: these headers came more than once: {', '.join(twice)}.")


@BOOK.rule(
    "Each request says which host it is for, and asks for nothing but HTTP/1.1 on a plain connection.", Need.SOCKET
)
async def host(bench: Bench) -> None:
    server = await bench.raw(say_ok)
    transport = await bench.transport()
    await bench.fetch(transport, Request(method="GET", url=f"{server.url}/path"))
    (request,) = server.requests
    expect(request.line == "GET /path HTTP/1.1", f"The request began with {request.line!r}.")
    got = request.values("Host")
    expect(got == [f"127.0.0.1:{server.port}"], f"It came with Host: {got}.")
    expect(not request.values("Upgrade"), "It asked for another protocol.")


@BOOK.rule(
    "What came encoded in an address, a signature for instance, is sent as it came; what would be changed is refused.",
    Need.SOCKET,
)
async def address_as_given(bench: Bench) -> None:
    server = await bench.raw(say_ok)
    transport = await bench.transport()
    usual = (
        "/x%2Fy?signature=a%2Bb%3D&empty=&space=%20&plus=+",
        "/a//b?x=/%2F?&y=a:b@c",
        "/?q=%E2%82%AC&r=%e2%82%ac",
    )
    for target in (*usual, "/?a=1;b=2&c=(x)*!~", "/?it's", "/?a=|^`{}"):
        try:
            await bench.fetch(transport, Request(method="GET", url=server.url + target))
        except ConfigurationError:
            if target in usual:
                raise
            continue
        got = server.requests[-1].target
        expect(got == target, f"{target} arrived as {got}.")


@BOOK.rule("A header that cannot be sent is a ConfigurationError that does not repeat its value; nothing is sent.")
async def bad_header(bench: Bench) -> None:
    counted = Counted()
    transport, url = await bench.application(counted.handler)
    for value in ("geheim\r\nX-Evil: 1", "geheim\nb", "geheim\rb", "geheim\x00b", "geheim Ελλάδα"):
        with bench.expect_error(ConfigurationError, f"A header with the value {value!r}") as caught:
            await transport.send(Request(method="GET", url=url, headers={"X-Name": value}))
        expect("geheim" not in str(caught.error), f"The error repeats the value of the header: {caught.error}")
    for name in ("bad name", "", "X:Y", "X\r\nY", "Ελλάδα"):
        with bench.expect_error(ConfigurationError, f"A header with the name {name!r}"):
            await transport.send(Request(method="GET", url=url, headers={name: "1"}))
    expect(counted.seen == 0, "A request with a header that cannot be sent was sent.")
    await bench.fetch(transport, Request(method="GET", url=url))


@BOOK.rule("The transport frames the body: a header that contradicts it is a ConfigurationError; nothing is sent.")
async def framing(bench: Bench) -> None:
    counted = Counted()
    transport, url = await bench.application(counted.handler)
    for name, value, body in (
        ("Transfer-Encoding", "chunked", b"body"),
        ("transfer-encoding", "chunked", None),
        ("Content-Length", "7", b"body"),
        ("content-length", "7", None),
    ):
        with bench.expect_error(ConfigurationError, f"The header {name}: {value} with the body {body!r}"):
            await transport.send(Request(method="PUT", url=url, headers={name: value}, body=body))
    expect(counted.seen == 0, "A request with a header that contradicts its body was sent.")
    for headers in ({"Content-Length": "4"}, {"content-length": "4"}):
        await bench.fetch(transport, Request(method="PUT", url=url, headers=headers, body=b"body"))


@BOOK.rule("An address that cannot be used is a ConfigurationError that does not repeat it.")
async def bad_address(bench: Bench) -> None:
    transport, _ = await bench.application(Counted().handler)
    for url in (
        "",
        "/relative",
        "ftp://geheim.example/",
        "https://",
        "https://host:geheim/",
        "https://user:geheim@host/",
        "https://host/geheim geheim",
        "https://host/\r\nX-geheim: 1",
        "http://[geheim",
    ):
        with bench.expect_error(ConfigurationError, f"The address {url!r}") as caught:
            await transport.send(Request(method="GET", url=url))
        expect("geheim" not in str(caught.error), f"The error repeats the address: {caught.error}")


@BOOK.rule("What else cannot be sent is a ConfigurationError: a method, a body, a timeout.")
async def bad_request(bench: Bench) -> None:
    counted = Counted()
    transport, url = await bench.application(counted.handler)
    good = Request(method="GET", url=url)
    changes: tuple[dict[str, Any], ...] = (
        {"method": "GE T"},
        {"method": ""},
        {"method": "GET\r\n"},
        {"body": "text"},
        {"body": 7},
        {"headers": {"X-Number": 1}},
        {"connect_timeout": 0},
        {"read_timeout": -1},
    )
    for change in changes:
        with bench.expect_error(ConfigurationError, f"A request with {change}"):
            await transport.send(attrs.evolve(good, **change))
    expect(counted.seen == 0, "A request that cannot be sent as it is was sent.")
    await bench.fetch(transport, Request(method="GET", url=url))
