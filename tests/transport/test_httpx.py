"""What is special about the transport over httpx; the rules that all transports keep are tried in ``test_conformance``."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pickle
import socket
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from helpers import free_port

from nudgescribe_async.errors import (
    ClientClosedError,
    ConfigurationError,
    NudgescribeError,
    OutcomeUnknownError,
    RequestNotSentError,
)
from nudgescribe_async.transport import Request, StreamBody

httpx = pytest.importorskip("httpx")
httpcore = pytest.importorskip("httpcore")

from nudgescribe_async.transport._httpx_duplex import DuplexTransport  # noqa: E402 - it needs httpx
from nudgescribe_async.transport._httpx_errors import OUTCOMES, mapped  # noqa: E402
from nudgescribe_async.transport._httpx_pools import SIZE, Place, Pools  # noqa: E402
from nudgescribe_async.transport.httpx import HttpxTransport  # noqa: E402

ServeRaw = Callable[..., Awaitable[Any]]

SECRET = "s3cr3t-of-the-test"
REQUEST = Request(
    method="PUT",
    url=f"https://api.example.test/v1/cg?signature={SECRET}-query",
    headers={"Authorization": f"Bearer {SECRET}-token", "X-API-Key": f"{SECRET}-key"},
)


# Errors


def all_of_httpx() -> set[type[BaseException]]:
    found: set[type[BaseException]] = {
        cls for cls in vars(httpx).values() if inspect.isclass(cls) and issubclass(cls, Exception)
    }
    waiting = [*found]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            if cls.__module__.startswith("httpx") and cls not in found:
                found.add(cls)
                waiting.append(cls)
    return found - {httpx.CookieConflict}  # which is no error of a request


def test_every_exception_of_httpx_has_an_outcome() -> None:
    missing = {cls.__name__ for cls in all_of_httpx() if not any(base in OUTCOMES for base in cls.__mro__[:-3])}
    assert missing == set(), "decide what the server can have seen, and add them to OUTCOMES"


def example(cls: Any) -> Any:
    text = f"went wrong at {REQUEST.url} with Bearer {SECRET}-token, {SECRET}-key"
    if issubclass(cls, httpx.HTTPStatusError):
        return cls(text, request=httpx.Request("GET", "https://x"), response=httpx.Response(500))
    return cls(text)


CASES = sorted(OUTCOMES, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", CASES)
async def test_what_a_transport_of_httpx_raises_is_mapped(cls: type[BaseException]) -> None:
    given = example(cls)

    def answer(_: Any) -> Any:
        raise given

    async with HttpxTransport(httpx.MockTransport(answer)) as transport:
        with pytest.raises(OUTCOMES[cls]) as caught:
            await transport.send(REQUEST)
    error = caught.value
    assert isinstance(error, NudgescribeError)
    assert error.__cause__ is given
    assert SECRET not in "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__)
    assert pickle.loads(pickle.dumps(error)).message == error.message
    if type(error) is not ConfigurationError:
        assert "api.example.test:443" in error.message
    assert error.message.endswith("Nothing was sent.") == (type(error) is not OutcomeUnknownError)


@pytest.mark.parametrize("cls", CASES)
def test_what_had_reached_a_connection_may_have_taken_effect(cls: type[BaseException]) -> None:
    assert type(mapped(example(cls), REQUEST, reached=True)) is OutcomeUnknownError


@pytest.mark.parametrize("cls", CASES)
def test_what_had_not_reached_a_connection_was_not_sent(cls: type[BaseException]) -> None:
    assert isinstance(mapped(example(cls), REQUEST, reached=False), RequestNotSentError | ConfigurationError)


async def failure(transport: HttpxTransport, url: str, **options: Any) -> NudgescribeError:
    with pytest.raises(NudgescribeError) as caught:
        await transport.send(Request(method="PUT", url=url, **options))
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value


async def test_nobody_listens() -> None:
    port = free_port()
    async with HttpxTransport() as transport:
        error = await failure(transport, f"http://127.0.0.1:{port}/?{SECRET}")
    assert isinstance(error, RequestNotSentError)
    assert error.message == f"No connection to 127.0.0.1:{port}: Connection refused. Nothing was sent."


async def test_the_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with HttpxTransport() as transport:
        error = await failure(transport, "http://nowhere.invalid/")
    assert isinstance(error, RequestNotSentError)
    assert "No connection to nowhere.invalid:80: Name or service not known." in error.message


async def test_a_certificate_that_nobody_known_has_issued(serve_raw: ServeRaw, server_tls: ssl.SSLContext) -> None:
    async def handler(_: Any, __: Any) -> None:
        raise AssertionError

    server = await serve_raw(handler, tls=server_tls)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's complaint
    async with HttpxTransport() as transport:
        error = await failure(transport, f"{server.url}/?{SECRET}")
    assert isinstance(error, RequestNotSentError)
    assert "certificate of 127.0.0.1" in error.message
    assert "give an ssl_context" in error.message


async def test_a_server_that_speaks_no_tls(serve_raw: ServeRaw) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server, HttpxTransport() as transport:
        error = await failure(transport, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert isinstance(error, RequestNotSentError)
    assert "The TLS handshake with 127.0.0.1" in error.message


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not valid HTTP"),
        (b"", "closed without a whole answer"),
        (b"HTTP/1.1 200 OK\r\nX-Token: geheim geheim", "closed without a whole answer"),
    ],
)
async def test_an_answer_that_is_none(serve_raw: ServeRaw, answer: bytes, says: str) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(answer)
        connection.close()

    server = await serve_raw(handler)
    async with HttpxTransport() as transport:
        error = await failure(transport, f"{server.url}/?{SECRET}")
    assert isinstance(error, OutcomeUnknownError)
    assert says in error.message
    assert "geheim" not in "".join(traceback.format_exception(error))
    assert len(server.requests) == 1


async def test_a_connection_that_is_reset(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        connection.reset()

    server = await serve_raw(handler)
    async with HttpxTransport() as transport:
        error = await failure(transport, server.url)
    assert isinstance(error, OutcomeUnknownError)
    assert "failed: Connection reset by peer" in error.message


async def test_a_proxy_that_refuses(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")

    server = await serve_raw(handler)
    async with HttpxTransport(
        proxy=server.url.replace("//", f"//me:{SECRET}@"), proxy_headers={"X-P": "1"}
    ) as transport:
        error = await failure(transport, f"https://api.example.test/?{SECRET}")
    assert isinstance(error, RequestNotSentError)
    assert "refused to connect to api.example.test:443, with status 407." in error.message
    (asked,) = server.requests
    assert asked.values("X-P") == ["1"]


# Early answers


async def test_an_informational_answer_does_not_end_an_upload(serve_raw: ServeRaw) -> None:
    half = asyncio.Event()

    async def handler(request: Any, connection: Any) -> None:
        got = b""
        await connection.say(b"HTTP/1.1 102 Processing\r\n\r\n")
        half.set()
        while not got.endswith(b"\r\n0\r\n\r\n"):
            got += await connection.reader.read(65_536)
        await connection.say(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%d" % (len(str(len(got))), len(got)))

    async def upload() -> AsyncIterator[bytes]:
        for number in range(20):
            yield bytes(100_000)
            if number == 10:
                await half.wait()

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        response = await transport.send(Request(method="PUT", url=server.url, body=StreamBody(open=upload)))
        assert response.status == 201
        assert int(await response.read()) > 2_000_000


async def test_an_early_answer_is_read_in_the_pieces_that_are_asked_for(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 50000\r\nConnection: close\r\n\r\n" + bytes(50_000)
        )
        await asyncio.Event().wait()

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        response = await transport.send(Request(method="PUT", url=server.url, body=bytes(50_000_000)))
        assert response.status == 413
        assert await response.read() == bytes(50_000)


async def test_a_server_that_reads_no_more_of_an_upload_and_says_nothing(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, __: Any) -> None:
        await asyncio.Event().wait()

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        error = await failure(transport, server.url, body=bytes(50_000_000), read_timeout=0.05)
    assert isinstance(error, OutcomeUnknownError)
    assert "took nothing more of the body for 0.05 s" in error.message


async def test_an_upload_that_is_answered_late(serve_raw: ServeRaw) -> None:
    """The listening task goes on from the writing to the reading, whose limit of time holds."""

    async def handler(request: Any, connection: Any) -> None:
        await connection.reader.readexactly(3_000_000)
        if request.target == "/answered":
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        else:
            await asyncio.Event().wait()

    server = await serve_raw(handler, read_bodies=False)
    async with HttpxTransport() as transport:
        for _ in range(2):
            response = await transport.send(Request(method="PUT", url=f"{server.url}/answered", body=bytes(3_000_000)))
            assert await response.read() == b"ok"
        error = await failure(transport, server.url, body=bytes(3_000_000), read_timeout=0.05)
    assert "sent nothing for 0.05 s" in error.message
    assert server.connections == 1


# Pools


def size_of(place: Place) -> int:
    return int(getattr(place.transport, "size"))  # noqa: B009 - only those of the test below have one


async def test_pools_are_small_and_closed_when_nobody_needs_them_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []

    class Pool(httpx.AsyncBaseTransport):  # type: ignore[misc, name-defined]  # httpx is found by importorskip
        def __init__(self, size: int) -> None:
            self.size = size

        async def aclose(self) -> None:
            closed.append(self.size)

    loop = asyncio.get_running_loop()
    pools = Pools(Pool, limit=SIZE + 3, keepalive=10.0)
    places = [await pools.take() for _ in range(SIZE + 3)]
    assert sorted({size_of(place) for place in places}) == [3, SIZE]
    waiting = asyncio.create_task(pools.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    for place in places:
        place.give_back()
        place.give_back()
    places = [await waiting]
    assert size_of(places[0]) == SIZE
    assert closed == []
    later = loop.time() + 60
    monkeypatch.setattr(loop, "time", lambda: later)
    (await pools.take()).give_back()
    assert closed == [3]
    await pools.aclose()
    assert closed == [3, SIZE]


async def test_a_pool_that_cannot_be_closed_costs_no_place() -> None:
    class Pool(httpx.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def aclose(self) -> None:
            raise RuntimeError("no")

    pools = Pools(lambda _: Pool(), limit=SIZE + 1, keepalive=-1.0)
    for place in [await pools.take() for _ in range(SIZE + 1)]:
        place.give_back()
    with pytest.raises(RuntimeError, match="no"):
        await pools.take()
    for _ in range(SIZE + 1):
        await pools.take()


async def test_without_a_limit(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        if len(server.requests) == 20:
            all_here.set()
        await all_here.wait()
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    all_here = asyncio.Event()
    server = await serve_raw(handler)
    async with HttpxTransport(limit=0) as transport:
        requests = [transport.send(Request(method="GET", url=server.url)) for _ in range(20)]
        for response in await asyncio.gather(*requests):
            await response.aclose()


# Transports of others, and options


async def test_a_given_transport_is_used_and_left_open() -> None:
    seen = []

    class Theirs(httpx.MockTransport):  # type: ignore[misc, name-defined]
        async def aclose(self) -> None:
            raise AssertionError

    def answer(request: Any) -> Any:
        seen.append(str(request.url))
        return httpx.Response(201, content=b"theirs", headers={"X-One": "1"})

    transport = HttpxTransport(Theirs(answer))
    assert repr(transport) == "<HttpxTransport with a given transport>"
    response = await transport.send(Request(method="GET", url="https://api.example.test/a?b=%27'"))
    assert (response.status, response.headers["x-one"], await response.read()) == (201, "1", b"theirs")
    await transport.aclose()
    assert seen == ["https://api.example.test/a?b=%27'"]
    assert repr(transport) == "<HttpxTransport with a given transport, closed>"
    with pytest.raises(ClientClosedError):
        await transport.send(Request(method="GET", url="https://api.example.test/"))


async def test_of_a_given_transport_of_httpx_it_is_known_when_it_sends(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        connection.close()

    server = await serve_raw(handler)
    async with httpx.AsyncHTTPTransport() as theirs:
        transport = HttpxTransport(theirs)
        assert type(await failure(transport, server.url)) is OutcomeUnknownError
        assert type(await failure(transport, f"http://127.0.0.1:{free_port()}")) is RequestNotSentError


@pytest.mark.parametrize("kind", ["AsyncClient", "HTTPTransport"])
def test_what_is_no_transport_for_asynchronous_use_is_refused(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"httpx\.AsyncHTTPTransport\(\); {kind} is none"):
        HttpxTransport(getattr(httpx, kind)())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proxy", "http://127.0.0.1:1"),
        ("proxy_headers", {"X": "1"}),
        ("trust_env", True),
        ("ssl_context", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)),
        ("limit", 5),
        ("keepalive_timeout", 1.0),
    ],
)
def test_a_transport_and_its_settings_cannot_both_be_given(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} cannot be given together with transport"):
        HttpxTransport(httpx.MockTransport(lambda _: httpx.Response(200)), **{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": "socks5://127.0.0.1:1"},
        {"proxy": "127.0.0.1:1"},
        {"proxy": "http://me:geheim@host:port"},
        {"proxy_headers": {"X": "1"}},
        {"proxy": "http://proxy:1", "proxy_headers": {"X": "geheim\n"}},
        {"limit": -1},
        {"keepalive_timeout": 0},
    ],
    ids=str,
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HttpxTransport(**options)
    assert "geheim" not in str(caught.value) + str(caught.value.__cause__)


async def test_a_proxy_that_httpx_cannot_parse() -> None:
    async with HttpxTransport(proxy="http://me:geheim@xn--\N{PILE OF POO}.invalid:1") as transport:
        error = await failure(transport, "https://api.example.test/")
    assert isinstance(error, ConfigurationError)
    assert "geheim" not in str(error) + repr(error.__cause__)


async def test_a_url_that_httpx_cannot_parse() -> None:
    async with HttpxTransport() as transport:
        error = await failure(transport, f"https://api.example.test/{'x' * 70_000}")
    assert isinstance(error, ConfigurationError)
    assert "xxxx" not in "".join(traceback.format_exception(error))


async def test_a_path_that_is_not_ascii_is_encoded(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await serve_raw(handler)
    async with HttpxTransport() as transport:
        await (await transport.send(Request(method="GET", url=f"{server.url}/Vogel/Müller?a=1"))).aclose()
    assert server.requests[0].target == "/Vogel/M%C3%BCller?a=1"


def test_a_missing_package_is_a_configuration_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nudgescribe_async.transport.httpx")
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigurationError, match=r'pip install "nudgescribe_async\[httpx\]"'):
        importlib.import_module("nudgescribe_async.transport.httpx")


async def test_cancelling_the_close_does_not_stop_it(serve_raw: ServeRaw) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await serve_raw(handler)
    transport = HttpxTransport()
    await (await transport.send(Request(method="GET", url=server.url))).read()
    closing = asyncio.create_task(transport.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    await transport.aclose()
    await transport.aclose()
    await server.lost.wait()


def test_the_listening_is_in_place() -> None:
    """What it stands on is not public: should httpx rename it, this says so."""
    pool: Any = DuplexTransport()._pool
    assert type(pool._network_backend).__name__ == "_Network"


@pytest.mark.parametrize("twice", [False, True])
async def test_of_requests_that_were_cancelled_at_any_turn_no_connection_is_left(
    serve_raw: ServeRaw, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, twice: bool
) -> None:
    async def handler(_: Any, connection: Any) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        connection.close()

    server = await serve_raw(handler, tls=server_tls)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server complains of broken handshakes
    async with HttpxTransport(ssl_context=client_tls, limit=1) as transport:

        async def fetch() -> bytes:
            async with await transport.send(Request(method="PUT", url=server.url)) as response:
                return await response.read()

        for turns in range(100):
            task = asyncio.create_task(fetch())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            if twice:
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait({task})
            async with asyncio.timeout(10):
                assert await fetch() == b"ok"
        (pools,) = transport._pools.values()
        (pool,) = pools._pools
        assert isinstance(pool.transport, DuplexTransport)
        assert len(pool.transport._streams) == 0
