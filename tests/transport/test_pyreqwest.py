"""What is special about the transport over pyreqwest. ``test_conformance`` has the rules, and those that it cannot keep."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import pickle
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from helpers import free_port

from nudgescribe_async.errors import (
    ClientClosedError,
    ConfigurationError,
    NudgescribeError,
    OutcomeUnknownError,
    RequestNotSentError,
)
from nudgescribe_async.transport import Headers, Request, StreamBody

pyreqwest = pytest.importorskip("pyreqwest")

from pyreqwest import exceptions  # noqa: E402 - it may be missing

from nudgescribe_async.transport import pyreqwest as module  # noqa: E402
from nudgescribe_async.transport._pyreqwest_errors import mapped, without_secrets  # noqa: E402
from nudgescribe_async.transport.pyreqwest import PyreqwestTransport  # noqa: E402

if TYPE_CHECKING:
    import trustme

ServeApp = Callable[..., Awaitable[Any]]
ServeRaw = Callable[..., Awaitable[Any]]

SECRET = "s3cr3t-of-the-test"
REQUEST = Request(
    method="PUT",
    url=f"https://api.example.test/v1/cg?signature={SECRET}-query",
    headers={"Authorization": f"Bearer {SECRET}-token", "X-API-Key": f"{SECRET}-key"},
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# Errors


async def failure(transport: PyreqwestTransport, url: str, **options: Any) -> NudgescribeError:
    async def fetch() -> None:
        await (await transport.send(Request(method="PUT", url=url, **options))).read()

    with pytest.raises(NudgescribeError) as caught:
        await fetch()
    error = caught.value
    assert SECRET not in "".join(traceback.format_exception(error)) + repr(error.__cause__)
    assert pickle.loads(pickle.dumps(error)).message == error.message
    return error


async def test_nobody_listens() -> None:
    port = free_port()
    async with PyreqwestTransport() as transport:
        error = await failure(transport, f"http://127.0.0.1:{port}/?{SECRET}")
    assert isinstance(error, RequestNotSentError)
    assert error.message == f"No connection to 127.0.0.1:{port}: Connection refused. Nothing was sent."


async def test_the_name_is_unknown() -> None:
    async with PyreqwestTransport() as transport:
        error = await failure(transport, "http://nowhere.invalid/")
    assert isinstance(error, RequestNotSentError)
    assert error.message == "The name of nowhere.invalid:80 was not found. Nothing was sent."


async def test_a_certificate_that_nobody_known_has_issued(serve_raw: ServeRaw, server_tls: ssl.SSLContext) -> None:
    async def handler(_: Any, __: Any) -> None:
        raise AssertionError

    server = await serve_raw(handler, tls=server_tls)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's complaint
    async with PyreqwestTransport() as transport:
        error = await failure(transport, f"{server.url}/?{SECRET}")
    assert isinstance(error, RequestNotSentError)
    assert "The TLS certificate of 127.0.0.1" in error.message
    assert "give a certificate_authority" in error.message


@pytest.mark.parametrize(("status", "says"), [(407, "it wants other credentials"), (403, "it gave no reason")])
async def test_a_proxy_that_refuses(serve_raw: ServeRaw, status: int, says: str) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)

    server = await serve_raw(handler)
    proxy = server.url.replace("//", f"//me:{SECRET}@")
    async with PyreqwestTransport(proxy=proxy, proxy_headers={"X-P": "1"}) as transport:
        error = await failure(transport, f"https://api.example.test/?{SECRET}")
    assert isinstance(error, RequestNotSentError)
    assert error.message == f"The proxy refused to connect to api.example.test:443: {says}. Nothing was sent."
    assert server.requests[0].values("X-P") == ["1"]


async def test_no_connection_in_time(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, __: Any) -> None:
        raise AssertionError  # it speaks no TLS, and waits for a head that never comes

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        url = f"https://127.0.0.1:{server.port}/?{SECRET}"
        error = await failure(transport, url, connect_timeout=0.05)
    assert isinstance(error, RequestNotSentError)
    assert "within 0.05 s. Nothing was sent." in error.message


async def test_no_answer_in_time(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.gone()

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        error = await failure(transport, f"{server.url}/?{SECRET}", read_timeout=0.05)
    assert isinstance(error, OutcomeUnknownError)
    assert "did not answer within 0.05 s" in error.message
    await server.lost.wait()


async def test_a_body_that_stops(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.Event().wait()

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        error = await failure(transport, server.url, read_timeout=0.05)
        assert isinstance(error, OutcomeUnknownError)
        assert "sent nothing for 0.05 s" in error.message
        # The same of the answer to an upload, for which the limit is kept here.
        error = await failure(transport, server.url, read_timeout=0.05, body=bytes(300_000))
        assert isinstance(error, OutcomeUnknownError)
        assert "within 0.05 s" in error.message


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "is not valid HTTP"),
        (b"", "was closed without a whole answer: the connection was lost."),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\ngeheim geheim geheim",
            "or is damaged",
        ),
    ],
)
async def test_an_answer_that_is_none(serve_raw: ServeRaw, answer: bytes, says: str) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(answer)
        connection.close()

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        error = await failure(transport, f"{server.url}/?{SECRET}")
    assert isinstance(error, OutcomeUnknownError)
    assert says in error.message
    assert "geheim" not in "".join(traceback.format_exception(error))
    assert len(server.requests) == 1


async def test_a_connection_that_is_reset(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        connection.reset()

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        error = await failure(transport, server.url)
    assert isinstance(error, OutcomeUnknownError)  # though the library calls it a ConnectError
    assert isinstance(error.__cause__, exceptions.ConnectError)
    assert "Connection reset by peer" in error.message


async def test_closing_while_it_waits_for_the_answer(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, __: Any) -> None:
        arrived.set()
        await asyncio.Event().wait()

    arrived = asyncio.Event()
    server = await serve_raw(handler)
    transport = PyreqwestTransport()
    sending = asyncio.create_task(transport.send(Request(method="PUT", url=server.url, read_timeout=1.0)))
    await arrived.wait()
    await transport.aclose()
    with pytest.raises(OutcomeUnknownError, match="The transport was closed before"):
        await sending


def detailed(cls: Any, *causes: str) -> Any:
    return cls("error", {"causes": [{"message": cause} for cause in causes]})


FOR_URL = f"error sending request for url (https://api.example.test/v1/cg?signature={SECRET}-query)"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (
            detailed(exceptions.ConnectError, FOR_URL, "client error (Connect)", "tcp connect error"),
            RequestNotSentError,
        ),
        # The request came back from the connection, of which nothing had been written.
        (
            detailed(exceptions.RequestError, FOR_URL, "client error (Canceled)", "operation was canceled"),
            RequestNotSentError,
        ),
        (
            detailed(exceptions.ConnectError, FOR_URL, "client error (SendRequest)", "connection closed"),
            OutcomeUnknownError,
        ),
        (detailed(exceptions.ConnectTimeoutError, FOR_URL, "operation timed out"), OutcomeUnknownError),
        (detailed(exceptions.RequestPanicError, "panic"), OutcomeUnknownError),
        (detailed(exceptions.BuilderError, "builder error"), ConfigurationError),
        (exceptions.PyreqwestError(f"what is new {SECRET}-token"), OutcomeUnknownError),
        (ValueError(f"what is new {SECRET}-token"), OutcomeUnknownError),
    ],
)
def test_what_the_server_can_have_seen(error: Exception, outcome: type[NudgescribeError]) -> None:
    result = mapped(error, REQUEST, reached=None)
    assert type(result) is outcome
    assert type(mapped(error, REQUEST, reached=True)) is OutcomeUnknownError
    result.__cause__ = without_secrets(error, REQUEST)
    assert SECRET not in "".join(traceback.format_exception(result)) + repr(error) + str(vars(error))


# Requests


async def test_headers_are_sent_in_title_case_and_ascii(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(
            b"HTTP/1.1 200 OK\r\nX-Name: M\xfcller\r\nX-Many: 1\r\nX-many: 2\r\nContent-Length: 2\r\n\r\nok"
        )

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        response = await transport.send(Request(method="GET", url=server.url, headers={"x-api-KEY": "1"}))
        await response.aclose()
        assert dict(response.headers) == {"x-many": "1, 2", "content-length": "2"}
        with pytest.raises(ConfigurationError, match="X-Name holds a character that pyreqwest cannot send"):
            await transport.send(Request(method="GET", url=server.url, headers={"X-Name": "Müller"}))
    assert "X-Api-Key: 1" in server.requests[0].head
    assert len(server.requests) == 1


@pytest.mark.parametrize("target", ["/?a='x'", "/a/../b", "/a/%2e%2E/b", "/a\\b", '/?a="x"', "/<>"])
async def test_an_address_that_would_be_changed_is_refused(target: str) -> None:
    async with PyreqwestTransport() as transport:
        with pytest.raises(ConfigurationError, match="would be changed") as caught:
            await transport.send(Request(method="GET", url=f"https://api.example.test{target}"))
    assert target not in str(caught.value)


@pytest.mark.parametrize("url", ["https://xn--\N{PILE OF POO}.invalid/geheim", "https://1.2.3.4.5.999999/geheim"])
async def test_an_address_that_cannot_be_parsed(url: str) -> None:
    async with PyreqwestTransport() as transport:
        with pytest.raises(ConfigurationError, match="URL") as caught:
            await transport.send(Request(method="GET", url=url))
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "PUT"])
async def test_a_body_of_unknown_length_is_sent_with_every_method(serve_app: ServeApp, method: str) -> None:
    """By itself the library leaves it out with GET and HEAD."""
    seen: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(await request.read())
        return web.Response()

    async def stream() -> AsyncIterator[bytes]:
        yield b"ab"

    app = web.Application()
    app.router.add_route("*", "/", handler)
    server = await serve_app(app)
    async with PyreqwestTransport() as transport:
        request = Request(method=method, url=str(server.make_url("/")), body=StreamBody(open=stream))
        await (await transport.send(request)).aclose()
    assert seen == [b"ab"]


async def test_limits_of_time_have_clients_of_their_own_but_not_ever_more_of_them(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(OK)

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        for seconds in range(1, 20):
            request = Request(method="GET", url=server.url, connect_timeout=None, read_timeout=float(seconds))
            assert await (await transport.send(request)).read() == b"ok"
        assert len(transport._clients) == module.MOST_CLIENTS


async def test_concurrent_first_requests_make_one_client(serve_raw: ServeRaw, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(OK)

    made: list[object] = []
    new_client = PyreqwestTransport._new_client

    def counted(self: PyreqwestTransport, *key: Any) -> Any:
        made.append(key)
        return new_client(self, *key)

    monkeypatch.setattr(PyreqwestTransport, "_new_client", counted)
    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:

        async def one() -> None:
            assert await (await transport.send(Request(method="GET", url=server.url))).read() == b"ok"

        await asyncio.gather(*(one() for _ in range(20)))
    assert made == [(10.0, 60.0, None)]


async def test_closing_while_the_client_is_made() -> None:
    transport = PyreqwestTransport()
    sending = asyncio.create_task(transport.send(Request(method="GET", url=f"http://127.0.0.1:{free_port()}")))
    await asyncio.sleep(0)
    await transport.aclose()
    with pytest.raises(ClientClosedError, match="Nothing was sent"):
        await sending
    assert not transport._clients


async def test_the_headers_of_an_operation_are_converted_once(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(OK)

    server = await serve_raw(handler)
    headers = Headers({"Authorization": "Bearer token"})
    async with PyreqwestTransport() as transport:
        await (await transport.send(Request(method="GET", url=server.url, headers=headers))).read()
        first = headers.prepared
        await (await transport.send(Request(method="GET", url=server.url, headers=headers))).read()
        assert headers.prepared is first
        assert [*transport._urls] == [server.url]
    assert [request.values("Authorization") for request in server.requests] == [["Bearer token"]] * 2


# Answers


@pytest.mark.parametrize("encoding", ["length", "chunked", "gzip"])
@pytest.mark.parametrize("size", [0, 1, 999, 1_000, 1_001, 3_000_000])
async def test_a_body_is_read_whole_as_far_as_the_limit_goes(serve_app: ServeApp, encoding: str, size: int) -> None:
    body = bytes(size)

    async def handler(request: web.Request) -> web.StreamResponse:
        if encoding == "length":
            return web.Response(body=body)
        if encoding == "gzip":
            return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, size, 700_000):
            await response.write(body[start : start + 700_000])
        return response

    app = web.Application()
    app.router.add_get("/", handler)
    server = await serve_app(app)
    async with PyreqwestTransport() as transport:

        async def whole(limit: int | None) -> bytes | None:
            response = await transport.send(Request(method="GET", url=str(server.make_url("/"))))
            read = await response.stream.read_whole(limit)  # type: ignore[attr-defined]
            assert isinstance(read, bytes | None)
            return read

        assert await whole(None) == body
        assert await whole(4_000_000) == body
        assert await whole(1_000) == (body if size <= 1_000 else None)


async def test_what_was_read_to_its_end_can_be_read_again_as_nothing(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(OK)

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        response = await transport.send(Request(method="GET", url=server.url))
        assert await response.read() == b"ok"
        assert await response.read() == b""
        await response.aclose()


async def test_the_answer_to_an_upload_is_read_up_to_the_limit(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(OK)

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        for limit, expected in ((2, b"ok"), (1, None), (None, b"ok")):
            response = await transport.send(Request(method="PUT", url=server.url, body=bytes(300_000)))
            assert await response.stream.read_whole(limit) == expected  # type: ignore[attr-defined]


@pytest.mark.parametrize("whole", [True, False])
async def test_closing_ends_who_is_reading(serve_raw: ServeRaw, whole: bool) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await connection.gone()

    server = await serve_raw(handler)
    transport = PyreqwestTransport()
    response = await transport.send(Request(method="GET", url=server.url))
    idle = await transport.send(Request(method="GET", url=server.url))

    async def read() -> None:
        if whole:
            await response.read()
        else:
            [chunk async for chunk in response.stream]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    await transport.aclose()
    with pytest.raises(OutcomeUnknownError):
        await reading
    with pytest.raises(OutcomeUnknownError, match="given up before its end"):
        await idle.read()
    await server.lost.wait()


async def test_cancelling_who_reads_a_whole_body_drops_the_connection(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await connection.gone()

    server = await serve_raw(handler)
    async with PyreqwestTransport() as transport:
        response = await transport.send(Request(method="GET", url=server.url))
        reading = asyncio.create_task(response.read())
        await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await server.lost.wait()


# Options


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": "socks5://127.0.0.1:1"},
        {"proxy": "http://me:geheim@host:port"},
        {"proxy_headers": {"X": "1"}},
        {"proxy": "http://proxy:1", "proxy_headers": {"X": "geheim\n"}},
        {"certificate_authority": "-----BEGIN CERTIFICATE-----\ngeheim\n-----END CERTIFICATE-----\n"},
        {"certificate_authority": "/etc/ssl/geheim.pem"},
        {"certificate_authority": ""},
        {"client_certificate": b"geheim"},
        {"client_certificate": b"-----BEGIN PRIVATE KEY-----\ngeheim\n-----END PRIVATE KEY-----\n"},
        {"limit": -1},
        {"keepalive_timeout": 0},
    ],
    ids=str,
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PyreqwestTransport(**options)
    assert "geheim" not in str(caught.value) + str(caught.value.__cause__)


async def test_a_client_certificate(serve_app: ServeApp, authority: trustme.CA) -> None:
    strict = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(strict)
    authority.configure_trust(strict)
    strict.verify_mode = ssl.CERT_REQUIRED
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's complaint
    mine = authority.issue_cert("client@example.com")
    certificate = b"".join(pem.bytes() for pem in mine.cert_chain_pems) + mine.private_key_pem.bytes()
    server = await serve_app(web.Application(), context=strict)
    url = str(server.make_url("/"))
    trusted = authority.cert_pem.bytes()
    async with PyreqwestTransport(certificate_authority=trusted, client_certificate=certificate) as transport:
        assert (await transport.send(Request(method="GET", url=url))).status == 404
    async with PyreqwestTransport(certificate_authority=trusted.decode()) as transport:
        # With TLS 1.3 the server judges the certificate after the handshake, so the request may have been sent.
        assert isinstance(await failure(transport, url), OutcomeUnknownError | RequestNotSentError)


async def test_without_a_limit(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        if len(server.requests) == 20:
            all_here.set()
        await all_here.wait()
        await connection.say(OK)

    all_here = asyncio.Event()
    server = await serve_raw(handler)
    async with PyreqwestTransport(limit=0) as transport:
        assert repr(transport) == "<PyreqwestTransport>"
        requests = [transport.send(Request(method="GET", url=server.url)) for _ in range(20)]
        for response in await asyncio.gather(*requests):
            await response.aclose()
    assert repr(transport) == "<PyreqwestTransport, closed>"


def test_a_missing_package_is_a_configuration_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nudgescribe_async.transport.pyreqwest")
    monkeypatch.setitem(sys.modules, "pyreqwest.client", None)
    with pytest.raises(ConfigurationError, match=r'pip install "nudgescribe_async\[pyreqwest\]"'):
        importlib.import_module("nudgescribe_async.transport.pyreqwest")
