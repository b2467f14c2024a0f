"""Sessions on disk: what was asked and what came, every value replaced by a made-up one of the same form."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

from attrs import define, field

from nudgescribe_async import errors
from nudgescribe_async.codec import InvalidJSONError, dumps, loads
from nudgescribe_async.contract_doctor.contract import Contract
from nudgescribe_async.contract_doctor.disguise import Disguise
from nudgescribe_async.contract_doctor.forms import is_header
from nudgescribe_async.contract_doctor.watching import START_OF_A_FILE
from nudgescribe_async.errors import ConfigurationError, OutcomeUnknownError, RequestNotSentError, TransportError
from nudgescribe_async.reading import MAX_ANSWER_BYTES
from nudgescribe_async.threads import in_thread
from nudgescribe_async.transport import BytesStream, Headers, Response

if TYPE_CHECKING:
    from nudgescribe_async.contract_doctor.contract import Operation
    from nudgescribe_async.shapes import JSON
    from nudgescribe_async.transport import ByteStream, Request, Transport

__all__ = ["NotRecordedError", "RecordingTransport", "ReplayingTransport"]

_LOGGER = logging.getLogger("nudgescribe_async.contract_doctor")
_VERSION: Final = 1
_FIRST: Final = "nudgescribe_recording"
_ERRORS: Final = frozenset({OutcomeUnknownError.__name__, RequestNotSentError.__name__})
_Key: TypeAlias = tuple[str, bytes]


class NotRecordedError(AssertionError):
    """A request was made that the recording does not have. It comes out of the call, which does not repeat it."""


class RecordingTransport:
    """Sends requests as the transport within it does, and writes down what came, without a single value of it.

    ::

        transport = RecordingTransport(AiohttpTransport(), "session.jsonl")
        async with Nudgescribe(credentials, transport=transport) as ns:
            ...

    The file has a line of JSON for each request to an operation of the contract, in the order in which answers ended. Ids,
    names, texts, numbers, moments, tokens and URLs are replaced by made-up ones of the same form and about the same
    length; equal ones stay equal, so that ids still join. What paging goes by is kept: numbers of pages and of runs, how
    long tokens live, and what the contract lists, such as the states of campaigns. Names of fields are kept if they look
    like names; keys of profiles, of segments and of message files are made up. Of a file of messages the first rows are
    written. Signed URLs that are opened are not written down at all.

    The file is made by the first request, readable by its owner only. Any number of calls at once; what is cancelled is not
    written. If the disk is full, the call goes on whose answer cannot be written, and those after it are not sent.

    Args:
        inner: sends the requests; it is closed with this one.
        path: of the file, which must not be there yet.
        notes: what to keep with it, as JSON; nothing secret.

    Raises:
        ConfigurationError: the file is there already, or cannot be made; from the first request, and nothing was sent. Or
            an earlier answer could not be written; nothing was sent since.
    """

    def __init__(
        self, inner: Transport, path: str | os.PathLike[str], *, notes: Mapping[str, JSON] | None = None
    ) -> None:
        self._inner = inner
        self._path = os.fspath(path)
        self._notes = dict(notes) if notes is not None else {}
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._disguise: Disguise | None = None
        self._trouble: str | None = None

    def __repr__(self) -> str:
        return f"<RecordingTransport {self._path} of {self._inner!r}>"

    async def send(self, request: Request) -> Response:
        """Send the request, and write down what comes."""
        contract = await in_thread(self._begun)
        operation = contract.requested(request.method, request.url)
        if operation is None:
            return await self._inner.send(request)
        body = request.body if isinstance(request.body, bytes) else None
        try:
            response = await self._inner.send(request)
        except TransportError as error:
            kind = OutcomeUnknownError if isinstance(error, OutcomeUnknownError) else RequestNotSentError
            await in_thread(self._write, operation, body, {"error": kind.__name__})
            raise

        async def note(data: bytes, *, whole: bool) -> None:
            await in_thread(self._note, operation, body, response, data, whole)

        # Of a file, which may be as large as it likes, the first rows are written down.
        most = START_OF_A_FILE if _is_csv(response.headers) else MAX_ANSWER_BYTES
        return Response(status=response.status, headers=response.headers, stream=_Noted(response.stream, note, most))

    async def aclose(self) -> None:
        """Close the file, and the transport within. May be called more than once."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        await self._inner.aclose()

    def _begun(self) -> Contract:
        contract = Contract.load()
        with self._lock:
            if self._trouble is not None:
                raise ConfigurationError(f"{self._path} cannot be recorded to: {self._trouble}.")
            if self._disguise is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                try:
                    self._descriptor = os.open(self._path, flags, 0o600)
                except FileExistsError:
                    raise ConfigurationError(
                        f"{self._path} is there already: name another file to record to."
                    ) from None
                except OSError as error:
                    raise ConfigurationError(f"{self._path} cannot be recorded to: {error.strerror}.") from None
                self._disguise = Disguise(contract)
                self._line({_FIRST: _VERSION, "contract": contract.version, "notes": self._notes})
        return contract

    def _note(self, operation: Operation, body: bytes | None, response: Response, data: bytes, whole: bool) -> None:
        said: dict[str, Any] = {"status": response.status}
        disguise = self._disguise
        assert disguise is not None  # noqa: S101 - it was made before the request was sent
        names = {name.lower(): value for name, value in response.headers.items()}
        said["headers"] = {name: disguise.header(name, value) for name, value in names.items() if is_header(name)}
        asked = _object(body)
        with self._lock:  # it remembers what numbers became
            try:
                value = loads(data) if whole else None
            except InvalidJSONError:
                value = None
            if value is None and data.strip() != b"null":
                said["text"] = disguise.text(data, is_csv=_is_csv(response.headers))
            elif 200 <= response.status < 300:
                said["json"] = disguise.answer(operation, asked, value)
            else:
                said["json"] = disguise.refusal(value)
        self._write(operation, body, said)

    def _write(self, operation: Operation, body: bytes | None, said: Mapping[str, Any]) -> None:
        disguise = self._disguise
        assert disguise is not None  # noqa: S101 - it was made before the request was sent
        line: dict[str, Any] = {"operation": operation.name, "method": operation.method, "path": operation.path}
        with self._lock:
            has_body = body and "requestBody" in operation.node
            line["body"] = disguise.request(operation, _object(body)) if has_body else None
            self._line(line | dict(said))

    def _line(self, line: Mapping[str, Any]) -> None:
        if self._descriptor is None or self._trouble is not None:  # it was closed meanwhile, or is full
            return
        data = memoryview(json.dumps(line).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            # The call has its answer, and may have changed something: so the next one fails instead.
            self._trouble = error.strerror
            _LOGGER.warning("%s cannot be recorded to any more: %s.", self._path, error.strerror)


class _Note(Protocol):
    def __call__(self, data: bytes, *, whole: bool) -> Awaitable[None]: ...


@define
class _Noted:
    """A body that is noted when it has been read, or given up."""

    _inner: ByteStream
    _note: _Note
    _most: int
    _kept: bytearray = field(factory=bytearray, init=False)
    _whole: bool = field(default=False, init=False)
    _done: bool = field(default=False, init=False)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._kept += chunk[: self._most - len(self._kept)]
            yield chunk
        self._whole = True

    async def aclose(self) -> None:
        await self._inner.aclose()
        if not self._done:
            self._done = True
            data, self._kept = bytes(self._kept), bytearray()
            await self._note(data, whole=self._whole)


class ReplayingTransport:
    """Answers from a recording: offline, always the same, and without the data of anybody.

    A request is answered as the one with the same operation and body was; if there were several, one after the other, the
    last one again and again. Logins and renewals are answered whatever the credentials. The ids to ask for stand in the
    file. A request that it does not have is a ``NotRecordedError``.

    Args:
        path: of the recording, which is read at once.

    Attributes:
        notes: what was kept with it.

    Raises:
        ConfigurationError: the file cannot be read, or is no recording. A last line that was cut off is left out.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._contract = Contract.load()
        first, *lines = _read(self._path)
        self.notes: Mapping[str, Any] = first["notes"]
        self._lines = lines
        self._answers: defaultdict[_Key, list[dict[str, Any]]] = defaultdict(list)
        self._used: defaultdict[_Key, int] = defaultdict(int)
        for line in self._lines:
            self._answers[self._key(line["operation"], line["body"])].append(line)

    def __repr__(self) -> str:
        return f"<ReplayingTransport {self._path}: {len(self)} requests>"

    def __len__(self) -> int:
        """How many requests were recorded."""
        return len(self._lines)

    def first(self, operation: str, argument: str) -> str | None:
        """What the first request of an operation asked for; ``None`` if there was none.

        Args:
            operation: such as ``"customers.list"``.
            argument: such as ``"customer_group_id"``.
        """
        bodies = [line["body"] for line in self._lines if line["operation"] == operation and line["body"]]
        value = bodies[0].get(argument) if bodies else None
        return value if isinstance(value, str) else None

    async def send(self, request: Request) -> Response:
        """Answer as was answered.

        Raises:
            NotRecordedError: the recording has no such request.
            TransportError: there was none.
        """
        operation = self._contract.requested(request.method, request.url)
        name = "what is no operation of the contract" if operation is None else operation.name
        body = _object(request.body) if isinstance(request.body, bytes) else None
        key = self._key(name, body)
        if key not in self._answers:
            others = sum(known == name for known, _ in self._answers)
            raise NotRecordedError(
                f"{self._path} has no request of {name} with this body, and {others} with others."
                if others
                else f"{self._path} has no request of {name}."
            )
        answers = self._answers[key]
        line = answers[min(self._used[key], len(answers) - 1)]
        self._used[key] += 1
        if "error" in line:
            raise getattr(errors, line["error"])("The connection broke, as it did when this was recorded.")
        data = dumps(line["json"]) if "json" in line else line["text"].encode()
        headers = {**line["headers"], "content-length": str(len(data))}
        return Response(status=line["status"], headers=headers, stream=BytesStream(data))

    async def aclose(self) -> None:
        """Nothing to close."""

    @staticmethod
    def _key(operation: str, body: Any) -> _Key:
        if operation.startswith("auth."):
            return operation, b""
        return operation, json.dumps(body, sort_keys=True).encode()


def _is_csv(headers: Headers) -> bool:
    return headers.get("content-type", "").strip().lower().startswith("text/csv")


def _object(body: bytes | None) -> dict[str, Any]:
    try:
        value: object = loads(body) if body else {}
    except InvalidJSONError:  # a form
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _read(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - any path-like
            texts = file.readlines()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, start=1):
        try:
            line: object = loads(text)
        except InvalidJSONError:
            if number > 1 and not text.endswith(b"\n"):
                break  # whoever wrote it was killed, or the disk was full
            line = None
        if not isinstance(line, dict) or not (_is_first if number == 1 else _is_line)(cast("dict[str, Any]", line)):
            of = "of this version" if number == 1 else f"throughout: line {number} is something else"
            raise ConfigurationError(f"{path} is no recording {of}.")
        lines.append(cast("dict[str, Any]", line))
    if not lines:
        raise ConfigurationError(f"{path} is no recording of this version.")
    return lines


def _is_first(line: dict[str, Any]) -> bool:
    return line.get(_FIRST) == _VERSION and isinstance(line.get("notes"), dict)


def _is_line(line: dict[str, Any]) -> bool:
    """Whether it is a request and what came, or did not."""
    body, status, headers = line.get("body", ()), line.get("status"), line.get("headers")
    if not isinstance(line.get("operation"), str) or not isinstance(body, dict | None):
        return False
    if "error" in line:
        return line["error"] in _ERRORS
    return (
        isinstance(status, int)
        and 100 <= status <= 999
        and isinstance(headers, dict)
        and all(isinstance(value, str) for value in cast("dict[str, object]", headers).values())
        and ("json" in line or isinstance(line.get("text"), str))
    )
