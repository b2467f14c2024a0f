from __future__ import annotations

import asyncio
import builtins
import io
import os
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiohttp import web

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.transport import Request, StreamBody
from nudgescribe_async.transport.in_process import InProcessTransport
from nudgescribe_async.transport.multipart import PIECE, file_body, multipart_body

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator
    from pathlib import Path


async def everything(body: StreamBody) -> bytes:
    return b"".join([chunk async for chunk in body.open()])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files that the package opens, and the threads that do it."""
    files: list[Any] = []
    real = builtins.open

    def remembering(*args: Any, **kwargs: Any) -> Any:
        file = real(*args, **kwargs)
        files.append(file)
        return file

    monkeypatch.setattr(builtins, "open", remembering)
    return files


# Sources


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE + 7])
@pytest.mark.parametrize("as_text", [True, False])
async def test_a_path(tmp_path: Path, size: int, as_text: bool, opened: list[Any]) -> None:
    path = tmp_path / "customers.csv"
    data = os.urandom(size)
    path.write_bytes(data)
    body = file_body(str(path) if as_text else path)
    assert (body.length, body.replayable) == (size, True)
    assert await everything(body) == data
    assert await everything(body) == data
    assert opened
    assert all(file.closed for file in opened)


async def test_a_path_is_read_off_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(b"a")
    body = file_body(path)
    threads = set()
    real = builtins.open

    def remembering(*args: Any, **kwargs: Any) -> Any:
        threads.add(threading.current_thread())
        return real(*args, **kwargs)

    monkeypatch.setattr(builtins, "open", remembering)
    await everything(body)
    assert threads
    assert threading.current_thread() not in threads


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_body(tmp_path / "missing.csv")
    with pytest.raises(IsADirectoryError):
        file_body(tmp_path)


@pytest.mark.parametrize("now", [b"ab", b"abcdef"], ids=["shorter", "longer"])
async def test_a_file_that_changes_before_it_is_sent(tmp_path: Path, now: bytes, opened: list[Any]) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(b"abcd")
    body = file_body(path)
    path.write_bytes(now)
    with pytest.raises(ConfigurationError, match=f"customers.csv changed .* had 4 bytes, then {len(now)}"):
        await everything(body)
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("grows", [True, False])
async def test_a_file_that_changes_while_it_is_sent(tmp_path: Path, grows: bool, opened: list[Any]) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(bytes(2 * PIECE))
    stream = file_body(path).open()
    await anext(stream)
    os.truncate(path, 3 * PIECE if grows else PIECE)
    with pytest.raises(ConfigurationError, match="changed"):
        [chunk async for chunk in stream]
    assert all(file.closed for file in opened)


async def test_a_file_that_vanishes_before_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(b"abcd")
    body = file_body(path)
    path.unlink()
    _, form = multipart_body({}, name="file", filename="f", content_type="text/csv", file=body)
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handler)
    async with InProcessTransport(app) as transport:
        with pytest.raises(FileNotFoundError):
            await transport.send(Request(method="POST", url="https://a.test/", body=form))
    assert asked == []


async def test_leaving_early_closes_the_file(tmp_path: Path, opened: list[Any]) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(bytes(3 * PIECE))
    stream = file_body(path).open()
    async with aclosing(stream):  # type: ignore[type-var]
        await anext(stream)
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("when", ["open", "read"])
async def test_cancelling_closes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Any], when: str
) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(bytes(3 * PIECE))
    body = file_body(path)
    loop = asyncio.get_running_loop()
    busy, go_on = asyncio.Event(), threading.Event()
    real = builtins.open

    def slow(*args: Any, **kwargs: Any) -> Any:
        loop.call_soon_threadsafe(busy.set)
        go_on.wait()
        return real(*args, **kwargs)

    stream = body.open()
    if when == "open":
        monkeypatch.setattr(builtins, "open", slow)
    else:
        await anext(stream)

        class Slow:
            def __init__(self, file: Any) -> None:
                self.file = file

            def read(self, size: int) -> bytes:
                loop.call_soon_threadsafe(busy.set)
                go_on.wait()
                return bytes(self.file.read(size))

            def close(self) -> None:
                self.file.close()

        frame = stream.ag_await  # type: ignore[attr-defined]
        assert frame is None
        inner = stream.ag_frame.f_locals["chunks"].ag_frame.f_locals["file"]  # type: ignore[attr-defined]
        inner._file = Slow(inner._file)
    reading = asyncio.ensure_future(anext(stream))
    await busy.wait()
    reading.cancel()
    reading.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not reading.done()  # the thread still has the file
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert opened
    assert all(file.closed for file in opened)


@pytest.mark.parametrize(
    "data",
    [b"", b"abc", bytearray(b"abc"), memoryview(b"abc"), bytes(2 * PIECE + 1)],
    ids=["none", "bytes", "bytearray", "memoryview", "many"],
)
async def test_bytes(data: Any) -> None:
    body = file_body(data)
    assert (body.length, body.replayable) == (len(data), True)
    assert await everything(body) == await everything(body) == bytes(data)


async def test_a_file_that_is_open(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(b"abcdef")
    with path.open("rb") as file:
        file.read(2)
        body = file_body(file)
        assert (body.length, body.replayable) == (4, False)
        assert await everything(body) == b"cdef"
        with pytest.raises(ConfigurationError, match="only once"):
            body.open()
        assert not file.closed


async def test_a_buffer_and_anything_with_read() -> None:
    buffer = io.BytesIO(b"abcdef")
    buffer.seek(1)
    body = file_body(buffer)
    assert (body.length, body.replayable) == (5, False)
    assert await everything(body) == b"bcdef"

    class Source:
        left = iter((b"ab", b"c"))

        def read(self, _: int) -> bytes:
            return next(self.left, b"")

    body = file_body(Source())  # type: ignore[arg-type]
    assert (body.length, body.replayable) == (None, False)
    assert await everything(body) == b"abc"


async def test_a_function() -> None:
    async def rows() -> AsyncIterator[bytes]:
        yield b"a,b\n"
        yield b"1,2\n"

    body = file_body(rows)
    assert (body.length, body.replayable) == (None, True)
    assert await everything(body) == await everything(body) == b"a,b\n1,2\n"
    assert file_body(body) is body


@pytest.mark.parametrize("kind", ["async generator", "generator", "iterator", "iterable"])
async def test_an_iterator_is_read_once_and_closed(kind: str) -> None:
    closed: list[str] = []

    async def rows() -> AsyncIterator[bytes]:
        try:
            yield b"abc"
            yield b""
            yield b"de"
        finally:
            closed.append("async")

    def plain() -> Iterator[bytes]:
        try:
            yield from (b"abc", b"", b"de")
        finally:
            closed.append(threading.current_thread().name)

    class Iterable:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return rows()

    sources: dict[str, Any] = {
        "async generator": rows, "generator": plain, "iterator": lambda: iter([b"abc", b"", b"de"]), "iterable": Iterable,
    }  # fmt: skip
    body = file_body(sources[kind]())
    assert (body.length, body.replayable) == (None, False)
    assert [chunk async for chunk in body.open()] == [b"abc", b"de"]
    with pytest.raises(ConfigurationError, match=r"An iterator can be read only once.*a function that gives one"):
        body.open()
    if kind == "generator":
        assert closed != [threading.current_thread().name]  # it ran where it may block
    assert len(closed) == (kind != "iterator")


@pytest.mark.parametrize("left", ["async", "plain"])
async def test_an_iterator_that_is_not_read_to_its_end_is_closed_too(left: str) -> None:
    closed: list[bool] = []

    async def rows() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"abc"
        finally:
            closed.append(True)

    def plain() -> Iterator[bytes]:
        try:
            while True:
                yield b"abc"
        finally:
            closed.append(True)

    chunks = file_body(rows() if left == "async" else plain()).open()
    assert await anext(chunks) == b"abc"
    await cast("AsyncGenerator[bytes, None]", chunks).aclose()
    assert closed == [True]


async def test_an_iterator_of_something_else() -> None:
    with pytest.raises(TypeError, match="The iterator of a file gave str, not bytes"):
        [chunk async for chunk in file_body(iter(["a"])).open()]  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="The iterator of a file gave NoneType, not bytes"):
        [chunk async for chunk in file_body(iter([b"a", None])).open()]  # type: ignore[arg-type]


async def test_functions_that_give_something_else() -> None:
    async def coroutine() -> bytes:
        return b""

    for function in (coroutine, lambda: [b"a"], lambda: None):
        with pytest.raises(TypeError, match="async generator"):
            file_body(function).open()  # type: ignore[arg-type]


def test_a_pipe_is_refused_since_no_deadline_could_end_a_thread_that_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="may wait for ever"):
        file_body(path)
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file, os.fdopen(writer, "wb"), pytest.raises(ValueError, match="may wait for ever"):
        file_body(file)


@pytest.mark.parametrize("content", ["external_id\nA-1\n", "external_id\r"])
def test_the_content_of_a_file_is_not_taken_for_its_path_nor_quoted(content: str) -> None:
    with pytest.raises(TypeError, match="pass content as bytes") as caught:
        file_body(content)
    assert "A-1" not in str(caught.value)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ValueError, match="path of the file is empty"):
        file_body("")


@pytest.mark.parametrize("source", [None, 7, ["rows"], object()], ids=lambda source: type(source).__name__)
def test_what_is_no_file(source: Any) -> None:
    with pytest.raises(TypeError, match="a path, bytes, a file opened with 'rb', a function"):
        file_body(source)


def test_a_file_in_text_mode(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_text("a")
    with path.open() as file, pytest.raises(TypeError, match="open it with 'rb'"):
        file_body(file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="open it with 'rb'"):
        file_body(io.StringIO("a"))  # type: ignore[arg-type]


async def test_a_file_whose_read_gives_text() -> None:
    class Source:
        def read(self, _: int) -> str:
            return "text"

    with pytest.raises(TypeError, match="gave str, not bytes"):
        await everything(file_body(Source()))  # type: ignore[arg-type]


# Forms


async def parsed(content_type: str, body: StreamBody) -> list[tuple[str | None, str | None, str | None, bytes]]:
    parts: list[tuple[str | None, str | None, str | None, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        assert body.length is None or request.content_length == body.length
        async for part in await request.multipart():
            assert part is not None
            parts.append((part.name, part.filename, part.headers.get("Content-Type"), bytes(await part.read())))  # type: ignore[union-attr]
        return web.Response()

    app = web.Application(client_max_size=100_000_000)
    app.router.add_post("/", handler)
    async with InProcessTransport(app) as transport:
        request = Request(method="POST", url="https://a.test/", body=body, headers={"Content-Type": content_type})
        response = await transport.send(request)
        await response.aclose()
        assert response.status == 200
    return parts


async def test_a_form_arrives() -> None:
    data = os.urandom(3 * PIECE + 5)
    content_type, body = multipart_body(
        {"workspace_id": "7", "name": "Zoë\r\nsecond line"},
        name="file",
        filename="customers.csv",
        content_type="text/csv; charset=utf-8",
        file=data,
    )
    assert body.replayable
    assert len(await everything(body)) == body.length
    for _ in range(2):
        assert await parsed(content_type, body) == [
            ("workspace_id", None, None, b"7"),
            ("name", None, None, "Zoë\r\nsecond line".encode()),
            ("file", "customers.csv", "text/csv; charset=utf-8", data),
        ]


async def test_a_form_of_an_unknown_length() -> None:
    async def rows() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    content_type, body = multipart_body(
        {}, name="file", filename="f.csv", content_type="text/csv", file=StreamBody(open=rows, replayable=False)
    )
    assert (body.length, body.replayable) == (None, False)
    assert await parsed(content_type, body) == [("file", "f.csv", "text/csv", b"ab")]


async def test_a_form_of_an_empty_file() -> None:
    content_type, body = multipart_body({}, name="file", filename="f.csv", content_type="text/csv", file=b"")
    assert await parsed(content_type, body) == [("file", "f.csv", "text/csv", b"")]


async def test_names_are_escaped_as_browsers_do() -> None:
    _, body = multipart_body(
        {'a"b\r\nX: 1': "v"}, name="file", filename='é"\\\n.csv', content_type="text/csv", file=b""
    )
    text = (await everything(body)).decode()
    assert 'name="a%22b%0D%0AX: 1"\r\n' in text
    assert 'filename="é%22\\%0A.csv"\r\n' in text


def test_boundaries_are_never_the_same() -> None:
    made = {multipart_body({}, name="f", filename="f", content_type="a/b", file=b"")[0] for _ in range(100)}
    assert len(made) == 100
    assert all(len(content_type.partition("boundary=")[2]) <= 70 for content_type in made)  # RFC 2046


@pytest.mark.parametrize("content_type", ["text/csv\r\nX: 1", "text/çsv"])
def test_a_content_type_that_is_none(content_type: str) -> None:
    with pytest.raises(ValueError, match="content type"):
        multipart_body({}, name="f", filename="f", content_type=content_type, file=b"")


def test_a_field_that_is_no_text() -> None:
    with pytest.raises(TypeError, match="workspace_id"):
        multipart_body({"workspace_id": 7}, name="f", filename="f", content_type="a/b", file=b"")  # type: ignore[dict-item]


async def test_the_file_is_closed_when_the_form_is_left(tmp_path: Path, opened: list[Any]) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(bytes(3 * PIECE))
    _, body = multipart_body({}, name="f", filename="f", content_type="a/b", file=file_body(path))
    stream = body.open()
    async with aclosing(stream):  # type: ignore[type-var]
        await anext(stream)
    assert opened
    assert all(file.closed for file in opened)
