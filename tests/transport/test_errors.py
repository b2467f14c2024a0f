"""Every exception of aiohttp becomes one of ours, deliberately, and none of them holds a secret."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import socket
import ssl
import traceback
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey
from helpers import free_port
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from nudgescribe_async.errors import (
    ClientClosedError,
    ConfigurationError,
    NudgescribeError,
    OutcomeUnknownError,
    RequestNotSentError,
)
from nudgescribe_async.transport import Request
from nudgescribe_async.transport._aiohttp_errors import OUTCOMES, mapped
from nudgescribe_async.transport.aiohttp import AiohttpTransport

if TYPE_CHECKING:
    from aioresponses import aioresponses

    from nudgescribe_async.testing.conformance._servers import RawConnection, RawRequest

SECRET = "s3cr3t-of-the-test"
ADDRESS = "https://api.example.test/v1/cg"
REQUEST = Request(
    method="PUT",
    url=f"{ADDRESS}?signature={SECRET}-query",
    headers={"Authorization": f"Bearer {SECRET}-token", "X-API-Key": f"{SECRET}-key"},
)
KEY = ConnectionKey("api.example.test", 443, True, True, URL(f"http://me:{SECRET}@proxy:1"), None, None)
INFO = aiohttp.RequestInfo(URL(REQUEST.url), "PUT", CIMultiDictProxy(CIMultiDict(REQUEST.headers)), URL(REQUEST.url))


def all_of_aiohttp() -> set[type[BaseException]]:
    found: set[type[BaseException]] = {
        cls for cls in vars(client_exceptions).values() if inspect.isclass(cls) and issubclass(cls, Exception)
    }
    found |= {cls for cls in vars(aiohttp).values() if inspect.isclass(cls) and issubclass(cls, aiohttp.ClientError)}
    waiting = [aiohttp.ClientError]
    while waiting:
        cls = waiting.pop()
        if cls.__module__.startswith("aiohttp."):
            found.add(cls)
        waiting.extend(cls.__subclasses__())
    return found


def test_every_exception_of_aiohttp_is_in_the_table() -> None:
    missing = {cls.__name__ for cls in all_of_aiohttp() if cls not in OUTCOMES}
    assert missing == set(), "decide what the server can have seen, and add them to OUTCOMES"


def example(cls: type[BaseException]) -> Any:
    refused = ConnectionRefusedError(111, "Connect call failed")
    made: Any = cls
    if issubclass(cls, aiohttp.ClientConnectorCertificateError):
        return made(KEY, ssl.SSLCertVerificationError(1, "certificate verify failed"))
    if issubclass(cls, client_exceptions.UnixClientConnectorError):
        return made("/run/socket", KEY, refused)
    if issubclass(cls, aiohttp.ClientConnectorError):
        return made(KEY, refused)
    if issubclass(cls, aiohttp.ClientResponseError):
        return made(INFO, (), status=407, message=f"no {SECRET}-token", headers=CIMultiDict({"X": SECRET}))
    if issubclass(cls, aiohttp.ServerFingerprintMismatch):
        return made(b"a", b"b", "api.example.test", 443)
    if issubclass(cls, aiohttp.ClientOSError):
        return made(32, f"Can not write request body for {REQUEST.url}")
    return made(f"went wrong at {REQUEST.url} with Bearer {SECRET}-token, {SECRET}-key")


CASES = sorted(OUTCOMES, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", CASES)
async def test_what_aiohttp_raises_is_mapped(
    answers: aioresponses, transport: AiohttpTransport, cls: type[BaseException]
) -> None:
    given = example(cls)
    answers.put(REQUEST.url, exception=given)
    with pytest.raises(OUTCOMES[cls]) as caught:
        await transport.send(REQUEST)
    error = caught.value
    assert isinstance(error, NudgescribeError)
    if isinstance(given, aiohttp.InvalidURL):  # its text is the URL, and cannot be changed
        assert type(error.__cause__) is type(given)
    else:
        assert error.__cause__ is given
    text = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__)
    assert SECRET not in text
    assert pickle.loads(pickle.dumps(error)).message == error.message
    if type(error) is not ConfigurationError:
        assert "api.example.test:443" in error.message
    assert error.message.endswith("Nothing was sent.") == (type(error) is not OutcomeUnknownError)


@pytest.mark.parametrize("cls", CASES)
def test_what_had_not_reached_a_connection_was_not_sent(cls: type[BaseException]) -> None:
    error = mapped(example(cls), REQUEST, reached=False)
    assert isinstance(error, RequestNotSentError | ConfigurationError)


@pytest.mark.parametrize("cls", CASES)
def test_what_had_reached_a_connection_may_have_taken_effect(cls: type[BaseException]) -> None:
    assert type(mapped(example(cls), REQUEST, reached=True)) is OutcomeUnknownError


async def test_an_answer_of_aiohttp_becomes_a_response(answers: aioresponses, transport: AiohttpTransport) -> None:
    answers.put(REQUEST.url, status=201, body=b"{}", headers={"X-Request-Id": "7"})
    response = await transport.send(REQUEST)
    assert (response.status, response.headers["x-request-id"], await response.read()) == (201, "7", b"{}")


async def test_cancellation_passes_through(answers: aioresponses, transport: AiohttpTransport) -> None:
    answers.put(REQUEST.url, exception=asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await transport.send(REQUEST)


# What they say, of real connections. Which errors they are is the affair of the conformance suite.


async def test_nobody_listens(transport: AiohttpTransport) -> None:
    port = free_port()
    with pytest.raises(RequestNotSentError, match=rf"No connection to 127.0.0.1:{port}: Connection refused. Nothing"):
        await transport.send(Request(method="PUT", url=f"http://127.0.0.1:{port}/?{SECRET}"))


async def test_the_name_is_unknown(transport: AiohttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(RequestNotSentError, match=r"The name of nowhere.invalid:80 was not found: Name or service"):
        await transport.send(Request(method="PUT", url="http://nowhere.invalid/"))


async def test_no_answer_in_time(serve_raw: Any, transport: AiohttpTransport) -> None:
    async def handler(_: RawRequest, __: RawConnection) -> None:
        await asyncio.Event().wait()

    server = await serve_raw(handler)
    with pytest.raises(OutcomeUnknownError, match=r"sent nothing for 0.01 s\.") as caught:
        await transport.send(Request(method="PUT", url=server.url, read_timeout=0.01))
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_a_server_that_stops_reading_the_upload(serve_raw: Any, transport: AiohttpTransport) -> None:
    async def handler(_: RawRequest, __: RawConnection) -> None:
        await asyncio.Event().wait()

    server = await serve_raw(handler, read_bodies=False)
    with pytest.raises(OutcomeUnknownError, match=r"took nothing more of the body for 0.01 s"):
        await transport.send(Request(method="PUT", url=server.url, body=bytes(50_000_000), read_timeout=0.01))


async def test_no_connection_in_time(serve_raw: Any, transport: AiohttpTransport, client_tls: ssl.SSLContext) -> None:
    async def handler(_: RawRequest, __: RawConnection) -> None:
        raise AssertionError  # it speaks no TLS, and waits for a head that never comes

    server = await serve_raw(handler)
    with pytest.raises(RequestNotSentError, match=r"no connection to 127.0.0.1:.* within 0.01 s. Nothing was sent"):
        await transport.send(
            Request(method="PUT", url=f"https://127.0.0.1:{server.port}/?{SECRET}", connect_timeout=0.01)
        )


async def test_no_free_connection_in_time(serve_raw: Any) -> None:
    async def handler(_: RawRequest, __: RawConnection) -> None:
        arrived.set()
        await asyncio.Event().wait()

    arrived = asyncio.Event()
    server = await serve_raw(handler)
    async with AiohttpTransport(limit=1) as transport:
        first = asyncio.create_task(transport.send(Request(method="PUT", url=server.url)))
        await arrived.wait()
        with pytest.raises(RequestNotSentError, match=r"within 0.01 s. Nothing was sent"):
            await transport.send(Request(method="PUT", url=server.url, connect_timeout=0.01))
        waiting = asyncio.create_task(transport.send(Request(method="PUT", url=server.url)))
        for _ in range(5):
            await asyncio.sleep(0)
        await transport.aclose()
        with pytest.raises(ClientClosedError, match=r"Nothing was sent"):
            await waiting
        with pytest.raises(OutcomeUnknownError):
            await first
    assert len(server.requests) == 1


def test_the_texts_say_which_way_to_look() -> None:
    def text(cls: type[BaseException]) -> str:
        return str(mapped(example(cls), REQUEST, reached=None))

    assert "proxy refused to connect to api.example.test:443, with status 407" in text(aiohttp.ClientHttpProxyError)
    assert "give an ssl_context" in text(aiohttp.ClientConnectorCertificateError)
    assert "fingerprint" in text(aiohttp.ServerFingerprintMismatch)
    assert "not valid HTTP" in text(aiohttp.ClientResponseError)
