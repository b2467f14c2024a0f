"""Every operation, and every fault: no secret in anything that somebody may see.

The cells are those of the matrix. All that can be seen in one is kept as text, and searched for what is secret in it:
what the user logs in with, the code of the API, every token that the sandbox issued, every signed URL.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from attrs import evolve, fields, frozen
from matrix import API_CODE, ROWS, TROUBLES, Back, Observation, Row, Trouble, observe

import nudgescribe_async
from nudgescribe_async import NudgescribeError
from nudgescribe_async.sandbox import BadAnswer, Sandbox, Status
from nudgescribe_async.testing import FaultProxy, Replace

if TYPE_CHECKING:
    from types import FrameType

    from nudgescribe_async import Nudgescribe
    from nudgescribe_async.events import Event

pytestmark = pytest.mark.slow

PACKAGE = str(Path(nudgescribe_async.__file__).parent)
SANDBOX, PROXY = str(Path(PACKAGE, "sandbox")), str(Path(PACKAGE, "testing"))
HTTP_LIBRARY = str(Path(aiohttp.__file__).parent)
TESTS = str(Path(__file__).parent)


class Eyes(logging.Handler):
    """Sees all that happens in one cell, as a log, a subscriber and an error tracker would."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.secrets: dict[str, str] = {}
        self.whole: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.frames = 0
        self.records = 0

    # --- what is secret ------------------------------------------------------------------------------------------

    def hide(self, name: str, secret: str) -> None:
        """Remember a secret, in the ways in which it may be written."""
        self.whole.append(secret)
        for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe="")):
            self.secrets[form] = name

    def begin(self, sandbox: Sandbox, proxy: FaultProxy, ns: Nudgescribe) -> None:
        self.sandbox, self.proxy, self.ns = sandbox, proxy, ns
        self.hide("the API key", sandbox.credentials.api_key)
        self.hide("the e-mail address", sandbox.credentials.email)
        self.hide("the password", sandbox.credentials.password)
        self.hide("the API code", API_CODE)
        running = sandbox._now
        issue, sign = running.office.issue, running.api._storage.sign

        def issued(account_id: str, kind: Any) -> str:
            token = issue(account_id, kind)
            self.hide(f"an {kind} token", token)
            for part in token.split(".")[1:]:  # the head of a JWT is the same everywhere
                self.secrets[part] = f"a part of an {kind} token"
            return token

        def signed(file_id: str) -> dict[str, Any]:
            link = sign(file_id)
            self.hide("a signed URL", urlsplit(str(link["url"])).query)
            return link

        running.office.issue = issued  # type: ignore[method-assign]
        running.api._storage.sign = signed  # type: ignore[method-assign]
        ns.events.subscribe(self.event)

    # --- what can be seen ----------------------------------------------------------------------------------------

    def see(self, where: str, *texts: str) -> None:
        self.texts += [(where, text) for text in texts]

    def event(self, event: Event) -> None:
        name = type(event).__name__
        values = [str(getattr(event, item.name)) for item in fields(type(event))]
        self.see(f"the event {name}", repr(event), str(event), *values, pickle.dumps(event, 0).decode("latin-1"))
        self.live(sys._getframe(1))

    def live(self, frame: FrameType | None) -> None:
        """What a profiler, or an error tracker of a subscriber that fails, sees of the call while it is under way."""
        own = [
            (item, number)
            for item, number in traceback.walk_stack(frame)
            if item.f_code.co_filename.startswith((PACKAGE, HTTP_LIBRARY))
        ]
        self.stack("the live stack", traceback.StackSummary.extract(iter(own), lookup_lines=False, capture_locals=True))

    def stack(self, where: str, summary: traceback.StackSummary) -> None:
        for frame in summary:
            # The frames of the tests hold what they look for, and those of the sandbox and the proxy, which fail in this
            # process when a connection breaks, hold what they were sent, as those of any server do. Nothing else is
            # left out: neither asyncio nor aiohttp.
            if frame.filename.startswith((TESTS, SANDBOX, PROXY)):
                continue
            self.frames += 1
            for name, value in (frame.locals or {}).items():
                self.see(f"{where}, {Path(frame.filename).name}:{frame.lineno} {frame.name}, local {name}", value)

    def error(self, error: BaseException) -> None:
        """An error with all that hangs on it."""
        seen: set[int] = set()
        todo: list[BaseException | None] = [error]
        while todo:
            link = todo.pop()
            if link is None or id(link) in seen:
                continue
            seen.add(id(link))
            # What is suppressed when it is printed is there all the same.
            todo += [link.__cause__, link.__context__]
            if isinstance(link, BaseExceptionGroup):
                todo += link.exceptions
            where = f"the error {type(link).__name__}"
            self.see(where, repr(link), str(link), repr(link.args), str(link.args), repr(vars(link)))
            self.see(where, *(str(value) for value in vars(link).values()), *getattr(link, "__notes__", ()))
            trace = traceback.TracebackException.from_exception(link, lookup_lines=False, capture_locals=True)
            self.see(where, *trace.format_exception_only())
            self.stack(where, trace.stack)
            if isinstance(link, NudgescribeError):
                for protocol in (0, pickle.HIGHEST_PROTOCOL):
                    self.see(f"{where}, pickled", pickle.dumps(link, protocol).decode("latin-1"))

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1
        where = f"the log of {record.name}"
        self.see(where, record.getMessage(), repr(record.args), str(record.args))
        self.see(where, *(f"{name}={value!r} {value}" for name, value in vars(record).items()))
        if record.exc_info is not None and record.exc_info[1] is not None:
            self.error(record.exc_info[1])

    def end(self, observation: Observation) -> None:
        if observation.error is not None:
            self.error(observation.error)
        self.see("the answer", repr(observation.answer))
        ns = self.ns
        for value in (
            ns,
            ns._session,
            ns._transport,
            ns._tokens,
            ns.auth,
            ns.customers,
            ns.customers.iter("g"),
            ns.messages.iter("c"),
            ns.events,
        ):
            self.see(f"the repr of {type(value).__name__}", repr(value), str(value))
        self.see("the log of the proxy", repr(self.proxy.log), repr(self.proxy))
        self.see("the log of the sandbox", repr(self.sandbox.log), repr(self.sandbox), repr(self.sandbox.credentials))

    def leaks(self) -> list[str]:
        """Where which secret shows; without the secret, lest the test's own report is a leak."""
        everything = "\0".join(text for _, text in self.texts)
        shown = {secret: name for secret, name in self.secrets.items() if secret in everything}
        found = {f"{name} in {where}" for where, text in self.texts for secret, name in shown.items() if secret in text}
        return sorted(found)


@contextmanager
def logging_to(eyes: Eyes) -> Iterator[None]:
    """All loggers, at the level where most is told."""
    root = logging.getLogger()
    level = root.level
    root.addHandler(eyes)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(eyes)


# --- a service that says all that it knows ---------------------------------------------------------------------------


@frozen
class Echo:
    """A trouble in which the service, or what stands in front of it, says all the secrets that it has seen."""

    trouble: Trouble
    fault: Callable[[str], Any]


def _said(secrets: str) -> bytes:
    return json.dumps({"message": f"Denied: {secrets}", "code": secrets, "detail": [secrets]}).encode()


def _headers(secrets: str) -> dict[str, str]:
    return {"x-request-id": secrets, "x-correlation-id": secrets, "server": secrets}


ECHOES = (
    Echo(
        Trouble(name="echo-400", back=Back.FINAL, done=False),
        lambda secrets: Status(400, body=_said(secrets), headers=_headers(secrets)),
    ),
    Echo(
        Trouble(name="echo-403", back=Back.FINAL, done=False),
        lambda secrets: Status(403, body=_said(secrets), headers=_headers(secrets)),
    ),
    Echo(
        Trouble(name="echo-503", back=Back.FAILED, done=False),
        lambda secrets: Status(
            503, body=f"<html><title>{secrets}</title></html>".encode(), headers=_headers(secrets), retry_after=0
        ),
    ),
    Echo(
        Trouble(name="echo-200", back=Back.NONSENSE, done=False),
        lambda secrets: BadAnswer(
            json.dumps(secrets).encode(), content_type="application/json", headers=_headers(secrets)
        ),
    ),
    Echo(
        Trouble(name="echo-in-the-status-line", back=Back.LOST, done=False),
        lambda secrets: Replace(raw=secrets.encode() + b"\r\n\r\n"),
    ),
    Echo(
        Trouble(name="echo-in-the-head", back=Back.LOST, done=False),
        lambda secrets: Replace(raw=b"HTTP/1.1 200 OK\r\n" + secrets.encode() + b"\r\n\r\n"),
    ),
)


def _echoing(echo: Echo, eyes: Eyes) -> Trouble:
    return evolve(echo.trouble, fault=lambda: echo.fault(" ".join(eyes.whole)))


# --- the tests -------------------------------------------------------------------------------------------------------


async def look(row: Row, trouble: Trouble, eyes: Eyes) -> None:
    observation = await observe(row, trouble, forever=True, witness=eyes)
    assert observation.sent
    assert eyes.frames, "no frame was seen"
    assert len(eyes.secrets) >= 8


def told(rows: list[Row], eyes: list[Eyes]) -> list[str]:
    return [f"{row.name}: {leak}" for row, each in zip(rows, eyes, strict=True) for leak in each.leaks()]


@pytest.mark.parametrize("trouble", [pytest.param(trouble, id=trouble.name) for trouble in TROUBLES])
async def test_no_secret_shows_in_any_trouble(trouble: Trouble) -> None:
    rows = [row for row in ROWS if trouble.befalls(row)]
    eyes = [Eyes() for _ in rows]
    if trouble.slow:  # all at once, so there is one log for all
        with logging_to(eyes[0]):
            await asyncio.gather(*(look(row, trouble, each) for row, each in zip(rows, eyes, strict=True)))
        for each in eyes[1:]:
            eyes[0].secrets |= each.secrets
    else:
        for row, each in zip(rows, eyes, strict=True):
            with logging_to(each):
                await look(row, trouble, each)
            assert each.records, "no record was seen"
    assert told(rows, eyes) == []


@pytest.mark.parametrize("echo", [pytest.param(echo, id=echo.trouble.name) for echo in ECHOES])
async def test_no_secret_shows_that_the_service_says(echo: Echo) -> None:
    eyes = [Eyes() for _ in ROWS]
    for row, each in zip(ROWS, eyes, strict=True):
        with logging_to(each):
            await look(row, _echoing(echo, each), each)
    assert told([*ROWS], eyes) == []
