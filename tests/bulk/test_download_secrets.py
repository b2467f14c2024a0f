"""A signed URL is as good as a password: nothing of it shows, whatever happens."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from helpers import API_KEY, PASSWORD
from message_shop import QUICK, SIGNATURE, Shop, break_off, serve_with_ranges, table

import nudgescribe_async
from nudgescribe_async import CallOptions, DownloadError, NudgescribeError

if TYPE_CHECKING:
    from nudgescribe_async.events import Event

SECRETS = {
    "the signature": SIGNATURE,
    "the key": API_KEY,
    "the password": PASSWORD,
    "the token": "access-",
}
LIBRARIES = (str(Path(nudgescribe_async.__file__).parent), str(Path(aiohttp.__file__).parent), asyncio.__path__[0])
FILE = table(9_000)


class Eyes(logging.Handler):
    """Keeps all that can be seen, as text."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.texts: list[tuple[str, str]] = []
        self.frames = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append((f"the log of {record.name}", f"{record.getMessage()} {vars(record)!r}"))

    def event(self, event: Event) -> None:
        self.texts.append((f"the event {type(event).__name__}", f"{event!r} {event}"))
        for task in asyncio.all_tasks():
            self.texts.append(("a task", repr(task)))
            for frame in task.get_stack():
                self.frame("a live task", frame.f_code.co_filename, frame.f_code.co_name, frame.f_locals)

    def frame(self, where: str, filename: str, name: str, values: dict[str, Any]) -> None:
        if not filename.startswith(LIBRARIES) or "/web" in filename:  # the servers of these tests know what they serve
            return
        self.frames += 1
        self.texts += [(f"{where}, {name}, local {key}", repr(value)) for key, value in values.items()]

    def error(self, error: BaseException | None) -> None:
        seen: set[int] = set()
        todo = [error]
        while todo:
            link = todo.pop()
            if link is None or id(link) in seen:
                continue
            seen.add(id(link))
            todo += [link.__cause__, link.__context__]
            where = f"the error {type(link).__name__}"
            self.texts.append((where, f"{link!r} {link} {link.args!r} {vars(link)!r} {getattr(link, '__notes__', ())}"))
            for frame, _ in traceback.walk_tb(link.__traceback__):
                self.frame(where, frame.f_code.co_filename, frame.f_code.co_name, frame.f_locals)

    def directory(self, directory: Path) -> None:
        for path in directory.iterdir():
            if path.suffix != ".csv":
                self.texts.append((path.name, path.read_text(errors="replace")))

    def leaks(self) -> list[str]:
        forms = {form: name for name, secret in SECRETS.items() for form in (secret, quote(secret, safe=""))}
        return sorted(
            {f"{name} in {where}" for where, text in self.texts for form, name in forms.items() if form in text}
        )


Trouble = Callable[[Shop, web.Request], Awaitable[web.StreamResponse]]


async def fine(_: Shop, request: web.Request) -> web.StreamResponse:
    return await serve_with_ranges(request, FILE)


async def refuses_in_its_words(_: Shop, request: web.Request) -> web.StreamResponse:
    query = request.query_string
    text = f"<Error><SignatureProvided>{request.query['X-Signature']}</SignatureProvided>{query} {request.url}</Error>"
    return web.Response(status=403, text=text, headers={"x-request-id": query, "Content-Type": "application/xml"})


async def fails_in_its_words(_: Shop, request: web.Request) -> web.StreamResponse:
    return web.Response(status=503, text=str(request.url), headers={"x-request-id": str(request.url)})


async def says_json(_: Shop, request: web.Request) -> web.StreamResponse:
    return web.json_response({"success": False, "message": str(request.url), "code": request.query_string})


async def says_html(_: Shop, request: web.Request) -> web.StreamResponse:
    return web.Response(text=f"<html><title>{request.url}</title></html>", content_type="text/html")


async def redirects(_: Shop, request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": str(request.url)})


async def breaks(_: Shop, request: web.Request) -> web.StreamResponse:
    return await break_off(request, FILE, 300_000, headers={"ETag": f'"{request.query_string}"'})


async def drops(_: Shop, request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hangs(_: Shop, __: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def hangs_in_the_body(_: Shop, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "9999999", "Content-Type": "text/csv"})
    await response.prepare(request)
    await response.write(FILE[:300_000])
    await asyncio.Event().wait()
    raise AssertionError


TROUBLES: list[Trouble] = [
    fine,
    refuses_in_its_words,
    fails_in_its_words,
    says_json,
    says_html,
    redirects,
    breaks,
    drops,
    hangs,
    hangs_in_the_body,
]


CASES = [
    pytest.param(trouble, end, id=f"{trouble.__name__} {end}")
    for trouble in TROUBLES
    for end in ("by itself", "by its deadline", "cancelled")
    if end != "by itself" or trouble not in (hangs, hangs_in_the_body)
]


@pytest.mark.parametrize(("trouble", "end"), CASES)
async def test_nothing_of_a_signed_url_shows(trouble: Trouble, end: str, tmp_path: Path) -> None:
    eyes = Eyes()
    root = logging.getLogger()
    level = root.level
    root.addHandler(eyes)
    root.setLevel(logging.DEBUG)
    error: BaseException | None = None
    try:
        async with Shop([FILE, FILE]) as shop, shop.client(retry=QUICK) as ns:
            reached = asyncio.Event()

            async def serve(request: web.Request, _: int) -> web.StreamResponse:
                reached.set()
                if end != "by itself" and trouble is fine:
                    return await hangs(shop, request)
                return await trouble(shop, request)

            shop.serve = serve
            ns.events.subscribe(eyes.event)
            options = CallOptions(timeout=0.2) if end == "by its deadline" else None
            download = asyncio.create_task(ns.messages.download("c", tmp_path, options=options))
            if end == "cancelled":
                await reached.wait()
                download.cancel()
            try:
                eyes.texts.append(("the report", repr(await download)))
            except (NudgescribeError, asyncio.CancelledError) as caught:
                error = caught
            eyes.error(error)
            eyes.texts += [("a repr", repr(value)) for value in (ns, ns._session, ns._transport, ns.messages)]
    finally:
        root.setLevel(level)
        root.removeHandler(eyes)
    eyes.directory(tmp_path)

    if trouble is not fine and end != "cancelled":
        assert isinstance(error, DownloadError)
    assert eyes.frames, "no frame was seen"
    assert eyes.leaks() == []
