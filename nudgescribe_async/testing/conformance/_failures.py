"""Rules about what goes wrong: which error says it, and that no error says too much."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from typing import Final

from nudgescribe_async.errors import NudgescribeError, OutcomeUnknownError, RequestNotSentError
from nudgescribe_async.testing.conformance._bench import Bench, expect, settle, text_of
from nudgescribe_async.testing.conformance._rule import RuleBook
from nudgescribe_async.testing.conformance._servers import HOST, OK, RawConnection, RawRequest, saying
from nudgescribe_async.testing.conformance._values import Need
from nudgescribe_async.transport import Request

__all__ = ["BOOK"]

BOOK: Final = RuleBook("failures", Need.SOCKET)
SECRET: Final = "MARKED-by-the-conformance-suite"  # noqa: S105 - it is looked for where no secret may be


def _port_of_nobody() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


@BOOK.rule("Where nobody listens, it is a RequestNotSentError.")
async def refused(bench: Bench) -> None:
    transport = await bench.transport()
    for method in ("GET", "PUT", "POST"):
        with bench.expect_error(RequestNotSentError, f"{method} to a port where nobody listens"):
            await transport.send(Request(method=method, url=f"http://{HOST}:{_port_of_nobody()}/", body=b"body"))


@BOOK.rule("Where the name of the host is not known, it is a RequestNotSentError.")
async def unknown_name(bench: Bench) -> None:
    transport = await bench.transport()
    with bench.expect_error(RequestNotSentError, "A host whose name nobody knows"):
        await transport.send(Request(method="PUT", url="http://nowhere.invalid/", connect_timeout=5))


@BOOK.rule("A connection that ends before there is an answer is an OutcomeUnknownError.")
async def no_answer(bench: Bench) -> None:
    ends = {"closed": RawConnection.close, "reset": RawConnection.reset}

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        _, how, when = request.target.split("/")
        if when == "within":
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Le")
        ends[how](connection)

    server = await bench.raw(handler)
    transport = await bench.transport()
    for how in ends:
        for when in ("before", "within"):
            for body in (None, b"body"):
                with bench.expect_error(OutcomeUnknownError, f"The connection was {how} {when} the head of the answer"):
                    await transport.send(Request(method="PUT", url=f"{server.url}/{how}/{when}", body=body))


@BOOK.rule("A connection that ends while the request is sent is an OutcomeUnknownError.")
async def cut_while_sending(bench: Bench) -> None:
    async def handler(request: RawRequest, connection: RawConnection) -> None:
        await connection.reader.read(1)
        (connection.reset if request.target == "/reset" else connection.writer.transport.abort)()

    server = await bench.raw(handler, read_bodies=False)
    transport = await bench.transport()
    for how in ("reset", "close"):
        server.requests.clear()
        with bench.expect_error(OutcomeUnknownError, f"A {how} in the middle of an upload"):
            await transport.send(Request(method="PUT", url=f"{server.url}/{how}", body=bytes(30_000_000)))
        expect(len(server.requests) == 1, f"The request was sent {len(server.requests)} times.")


@BOOK.rule("A connection that is reset within the body of an answer is an OutcomeUnknownError.")
async def cut_while_reading(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def handler(_: RawRequest, connection: RawConnection) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nxxxxx")
        await go_on.wait()
        connection.reset()

    server = await bench.raw(handler)
    transport = await bench.transport()
    response = await transport.send(Request(method="GET", url=server.url))
    pieces = aiter(response.stream)
    got = await anext(pieces)
    expect(got == b"xxxxx", f"The first piece was {got!r}.")
    go_on.set()
    with bench.expect_error(OutcomeUnknownError, "The connection was reset within the body of the answer"):
        await anext(pieces)
    await response.aclose()


@BOOK.rule("An answer that is no HTTP is an OutcomeUnknownError.")
async def malformed_head(bench: Bench) -> None:
    bad = {
        "nothing of HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "a status that is no number": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "a line that is no header": b"HTTP/1.1 200 OK\r\nthis is no header\r\nContent-Length: 0\r\n\r\n",
        "a header without a name": b"HTTP/1.1 200 OK\r\n: value\r\nContent-Length: 0\r\n\r\n",
    }

    server = await bench.raw(saying(bad.values()))
    transport = await bench.transport()
    for number, what in enumerate(bad):
        with bench.expect_error(OutcomeUnknownError, f"An answer with {what}"):
            async with await transport.send(Request(method="PUT", url=f"{server.url}/{number}")) as response:
                await response.read()
    expect(len(server.requests) == len(bad), f"{len(bad)} requests were sent {len(server.requests)} times.")


@BOOK.rule("A head that does not end is given up, as an OutcomeUnknownError.")
async def endless_head(bench: Bench) -> None:
    written = 0

    async def handler(_: RawRequest, connection: RawConnection) -> None:
        nonlocal written
        await connection.say(b"HTTP/1.1 200 OK\r\n")
        for number in range(2_000):
            await connection.say(f"X-{number}: {'x' * 4_000}\r\n".encode() * 4)
            written += 4 * 4_000

    server = await bench.raw(handler)
    transport = await bench.transport()
    with bench.expect_error(OutcomeUnknownError, "An answer with headers without end"):
        await transport.send(Request(method="PUT", url=server.url, read_timeout=1))
    expect(written < 30_000_000, f"{written:,} bytes of headers were taken.")


@BOOK.rule("After a failure the transport goes on with the next request.")
async def life_goes_on(bench: Bench) -> None:
    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.target == "/close":
            connection.close()
        elif request.target == "/reset":
            connection.reset()
        elif request.target == "/nonsense":
            await connection.say(b"nonsense\r\n\r\n")
            connection.close()
        elif request.target == "/half":
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            connection.close()
        else:
            await connection.say(OK)

    server = await bench.raw(handler)
    transport = await bench.transport()
    for target in ("/close", "/reset", "/nonsense", "/half"):
        with bench.expect_error(OutcomeUnknownError, target):
            async with await transport.send(Request(method="PUT", url=server.url + target)) as response:
                await response.read()
        got = await bench.fetch(transport, Request(method="GET", url=server.url))
        expect(got == b"ok", f"The request after {target} was answered with {got!r}.")


def _secret_request(url: str, method: str = "PUT") -> Request:
    return Request(
        method=method,
        url=f"{url}/path?signature={SECRET}-query",
        headers={"Authorization": f"Bearer {SECRET}-token", "X-API-Key": f"{SECRET}-key"},
        body=f'{{"password": "{SECRET}-body"}}'.encode(),
        connect_timeout=5,
        read_timeout=5,
    )


@BOOK.rule("No error, none of its causes and no traceback holds a query, the value of a header, a body or an answer.")
async def no_secret_in_errors(bench: Bench) -> None:
    answers = {
        "nothing": b"",
        "the request, sent back": None,
        "a bad header": f"HTTP/1.1 200 OK\r\nbad header {SECRET}\r\n\r\n".encode(),
        "a bad status": f"HTTP/1.1 {SECRET} OK\r\n\r\n".encode(),
        "a bad length": f"HTTP/1.1 200 OK\r\nContent-Length: {SECRET}\r\n\r\n".encode(),
        "half a head": f"HTTP/1.1 200 OK\r\nX-Token: {SECRET}\r\n".encode(),
        "a bad chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n".encode(),
        "half a body": f"HTTP/1.1 200 OK\r\nX: {SECRET}\r\nContent-Length: 1000\r\n\r\n{SECRET}".encode(),
        "a body that is no gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 40\r\n\r\n"
        + SECRET.encode().ljust(40),
    }

    async def handler(request: RawRequest, connection: RawConnection) -> None:
        said = [*answers.values()][len(server.requests) - 1]
        await connection.say(request.head.encode() + request.body if said is None else said)
        connection.close()

    server = await bench.raw(handler)
    transport = await bench.transport()
    errors: dict[str, NudgescribeError] = {}
    for what in answers:
        with bench.expect_error(OutcomeUnknownError, what) as caught:
            async with await transport.send(_secret_request(server.url)) as response:
                await response.read()
        errors[what] = caught.error
    with bench.expect_error(RequestNotSentError, "Nobody listens") as refused:
        await transport.send(_secret_request(f"http://{HOST}:{_port_of_nobody()}"))
    errors["nobody listens"] = refused.error
    with bench.expect_error(RequestNotSentError, "Nobody knows the name") as unknown:
        await transport.send(_secret_request("http://nowhere.invalid"))
    errors["nobody knows the name"] = unknown.error
    for what, error in errors.items():
        _expect_no_secret(error, what)


def _expect_no_secret(error: NudgescribeError, what: str) -> None:
    text = text_of(error)
    position = text.find(SECRET)
    around = text[max(position - 60, 0) : position + 60].replace(SECRET, "***")
    expect(position < 0, f"{what}: the error, or one of its causes, shows what nobody may see: ...{around!r}...")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was pickled just now
    expect(str(again) == str(error), f"{what}: the error is another one when it has been pickled: {again!r}")


@BOOK.rule("No query, value of a header or body of a request comes into a log, whatever its level.")
async def no_secret_in_logs(bench: Bench) -> None:
    async def handler(request: RawRequest, connection: RawConnection) -> None:
        if request.method == "GET":
            await connection.say(OK)
        else:
            connection.close()

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.name}: {record.getMessage()} {record.exc_info}")

    lines: list[str] = []
    kept, root = Kept(), logging.getLogger()
    level = root.level
    server = await bench.raw(handler)
    transport = await bench.transport()
    root.addHandler(kept)
    root.setLevel(1)
    try:
        await bench.fetch(transport, _secret_request(server.url, "GET"))
        with bench.expect_error(OutcomeUnknownError, "The server closed without an answer"):
            await transport.send(_secret_request(server.url))
        await settle(5)
    finally:
        root.setLevel(level)
        root.removeHandler(kept)
    found = [line.replace(SECRET, "***")[:120] for line in lines if SECRET in line]
    expect(not found, f"What nobody may see was logged: {'; '.join(found)}")
