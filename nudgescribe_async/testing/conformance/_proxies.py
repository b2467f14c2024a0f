"""Rules about proxies, those that are given and those of the environment."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nudgescribe_async.errors import RequestNotSentError
from nudgescribe_async.testing.conformance._bench import Bench, expect, text_of
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import RawConnection, RawRequest, RawServer, say_ok
from nudgescribe_async.testing.conformance._values import Need
from nudgescribe_async.transport import Request, Transport

__all__ = ["BOOK"]

BOOK: Final = RuleBook("proxies", Need.SOCKET)
USER: Final = "conformance-user"
PASSWORD: Final = "pass word/MARKED:%"  # noqa: S105 - with what has to be encoded in a URL
ENCODED: Final = "pass%20word%2FMARKED%3A%25"
CREDENTIALS: Final = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
HEADERS: Final = {"Authorization": "Bearer token-of-the-target"}
VARIABLES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "netrc")


@contextmanager
def _environment(**values: str) -> Generator[None]:
    """With these variables, and none of the others that say something about proxies."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.lower() in VARIABLES]:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        for name in {*os.environ} - {*before}:
            del os.environ[name]
        os.environ.update(before)


async def _tls_server(bench: Bench) -> RawServer:
    return await bench.raw(say_ok, tls=bench.certificates.server())


async def _send(bench: Bench, transport: Transport, server: RawServer) -> RawRequest:
    """Send a request with a header for the target alone, and see how it arrives."""
    request = Request(method="PUT", url=f"{server.url}/path?query=1", headers=HEADERS, body=b"body")
    await bench.fetch(transport, request)
    arrived = server.requests[-1]
    expect(arrived.target == "/path?query=1", f"The target was asked for {arrived.target}.")
    expect(arrived.values("Authorization") == [HEADERS["Authorization"]], "The target did not get Authorization.")
    expect(arrived.body == b"body", f"The body arrived as {arrived.body!r}.")
    got = arrived.values("Proxy-Authorization")
    expect(not got, "The credentials of the proxy were sent to the target.")
    return arrived


@BOOK.rule(
    "https goes through a tunnel, whose proxy gets its credentials and nothing of the request.", Need.PROXY, Need.TLS
)
async def tunnel(bench: Bench) -> None:
    server = await _tls_server(bench)
    proxy = await bench.proxy(credentials=CREDENTIALS)
    transport = await bench.transport(
        proxy=f"http://{USER}:{ENCODED}@{proxy.address}", certificate_authority=bench.certificates.authority
    )
    for _ in range(2):
        await _send(bench, transport, server)
    expect(len(proxy.requests) > 0, "The request did not go through the proxy.")
    asked = proxy.requests[0]
    expect(
        asked.line == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1",
        f"The proxy was asked {asked.line!r} instead of 'CONNECT 127.0.0.1:{server.port} HTTP/1.1'.",
    )
    expect(asked.values("Proxy-Authorization") == [CREDENTIALS], "The proxy did not get its credentials as they are.")
    expect("token-of-the-target" not in asked.head, "The proxy was shown a header of the request.")
    expect(len(proxy.requests) == 1, f"Two requests, one after the other, took {len(proxy.requests)} tunnels.")


@BOOK.rule("http is forwarded: the proxy is asked for the whole address, and gets its credentials.", Need.PROXY)
async def forwarded(bench: Bench) -> None:
    server = await bench.raw(say_ok)
    proxy = await bench.proxy(credentials=CREDENTIALS)
    transport = await bench.transport(proxy=f"http://{USER}:{ENCODED}@{proxy.address}")
    await _send(bench, transport, server)
    expect(len(proxy.requests) == 1, f"The proxy was asked {len(proxy.requests)} times.")
    line = f"PUT http://127.0.0.1:{server.port}/path?query=1 HTTP/1.1"
    expect(proxy.requests[0].line == line, f"The proxy was asked {proxy.requests[0].line!r} instead of {line!r}.")


@BOOK.rule("A proxy without credentials is sent none.", Need.PROXY, Need.TLS)
async def without_credentials(bench: Bench) -> None:
    proxy = await bench.proxy()
    transport = await bench.transport(
        proxy=f"http://{proxy.address}", certificate_authority=bench.certificates.authority
    )
    for server in (await _tls_server(bench), await bench.raw(say_ok)):
        proxy.requests.clear()
        await _send(bench, transport, server)
        expect(len(proxy.requests) == 1, f"The proxy was asked {len(proxy.requests)} times.")
        expect(not proxy.requests[0].values("Proxy-Authorization"), "The proxy got credentials that nobody gave.")


async def _not_sent(transport: Transport, url: str, bench: Bench, when: str) -> None:
    request = Request(method="PUT", url=f"{url}/?signature=MARKED-query", headers={"X-Key": "MARKED-key"}, body=b"body")
    with bench.expect_error(RequestNotSentError, when) as caught:
        await transport.send(request)
    text = text_of(caught.error)
    for secret in (ENCODED, PASSWORD, "MARKED", CREDENTIALS.partition(" ")[2]):
        expect(secret not in text, f"{when}: the error, or one of its causes, shows what nobody may see.")


@BOOK.rule("A proxy that is not there is a RequestNotSentError, without its password.", Need.PROXY, Need.TLS)
async def not_there(bench: Bench) -> None:
    proxy = await bench.proxy()
    await proxy.stop()
    transport = await bench.transport(
        proxy=f"http://{USER}:{ENCODED}@{proxy.address}", certificate_authority=bench.certificates.authority
    )
    for url in ("https://127.0.0.1:9", "http://127.0.0.1:9"):
        await _not_sent(transport, url, bench, f"No proxy, for {url[:5].rstrip(':')}")


@BOOK.rule(
    "A proxy that refuses a tunnel (407, 403, 502) is a RequestNotSentError, without its password.",
    Need.PROXY,
    Need.TLS,
)
async def refused(bench: Bench) -> None:
    for status in (407, 403, 502):
        proxy = await bench.proxy(refuse=status)
        transport = await bench.transport(
            proxy=f"http://{USER}:{ENCODED}@{proxy.address}", certificate_authority=bench.certificates.authority
        )
        await _not_sent(transport, "https://127.0.0.1:9", bench, f"A proxy that refused a tunnel with {status}")
        expect(len(proxy.requests) > 0, "The proxy was not asked.")


@BOOK.rule("A proxy that hangs up before there is a tunnel is a RequestNotSentError.", Need.PROXY, Need.TLS)
async def hung_up(bench: Bench) -> None:
    async def handler(_: RawRequest, connection: RawConnection) -> None:
        connection.close()

    proxy = await bench.raw(handler)
    transport = await bench.transport(
        proxy=f"http://{USER}:{ENCODED}@127.0.0.1:{proxy.port}", certificate_authority=bench.certificates.authority
    )
    await _not_sent(transport, "https://127.0.0.1:9", bench, "A proxy that hung up")
    expect(len(proxy.requests) == 1, f"The proxy was asked {len(proxy.requests)} times.")


@BOOK.rule("What the proxy says to a request that it forwards is an answer, 407 too.", Need.PROXY)
async def answered_by_the_proxy(bench: Bench) -> None:
    proxy = await bench.proxy(refuse=407)
    transport = await bench.transport(proxy=f"http://{proxy.address}")
    async with await transport.send(Request(method="GET", url="http://127.0.0.1:9/")) as response:
        expect(response.status == 407, f"The status was {response.status} instead of 407.")


@BOOK.rule("The proxies of the environment are not used unless that is asked for.", Need.TLS)
async def not_of_the_environment(bench: Bench) -> None:
    proxy = await bench.proxy()
    servers = (await _tls_server(bench), await bench.raw(say_ok))
    address = f"http://{proxy.address}"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    with _environment(**dict.fromkeys(names, address)):
        transport = await bench.transport(certificate_authority=bench.certificates.authority)
        for server in servers:
            await _send(bench, transport, server)
    expect(not proxy.requests, "A request went through a proxy of the environment, which nobody had asked for.")


@BOOK.rule(
    "With trust_env https goes through the proxy of the environment, but for the hosts of no_proxy.",
    Need.PROXY,
    Need.TLS,
)
async def of_the_environment(bench: Bench) -> None:
    proxy = await bench.proxy(credentials=CREDENTIALS)
    server = await _tls_server(bench)
    address = f"http://{USER}:{ENCODED}@{proxy.address}"
    with _environment(https_proxy=address, HTTPS_PROXY=address):
        transport = await bench.transport(trust_env=True, certificate_authority=bench.certificates.authority)
        await _send(bench, transport, server)
    expect(len(proxy.requests) == 1, f"The proxy of the environment was asked {len(proxy.requests)} times.")
    with _environment(https_proxy=address, HTTPS_PROXY=address, no_proxy="127.0.0.1", NO_PROXY="127.0.0.1"):
        transport = await bench.transport(trust_env=True, certificate_authority=bench.certificates.authority)
        await _send(bench, transport, server)
    expect(len(proxy.requests) == 1, "The proxy of the environment was used for a host of no_proxy.")


def _write_netrc(home: Path) -> str:
    path = home / ".netrc"
    path.write_text("machine 127.0.0.1 login me password geheim\ndefault login me password geheim\n")
    path.chmod(0o600)
    return str(path)


async def _without_netrc(bench: Bench, *, trust_env: bool) -> None:
    server = await bench.raw(say_ok)
    with tempfile.TemporaryDirectory() as folder, _environment(NETRC=_write_netrc(Path(folder)), HOME=folder):
        transport = await bench.transport(trust_env=trust_env)
        await bench.fetch(transport, Request(method="GET", url=server.url))
        await bench.fetch(transport, Request(method="GET", url=server.url, headers=HEADERS))
    got = [request.values("Authorization") for request in server.requests]
    expect(got == [[], [HEADERS["Authorization"]]], "A request was sent with the credentials of netrc.")


@BOOK.rule("netrc is never read.")
async def no_netrc(bench: Bench) -> None:
    await _without_netrc(bench, trust_env=False)


@BOOK.rule("netrc is not read with trust_env either.")
async def no_netrc_with_the_environment(bench: Bench) -> None:
    await _without_netrc(bench, trust_env=True)
