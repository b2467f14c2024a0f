"""Reading request bodies: JSON, and forms with a file that may be larger than memory.

Whatever comes in, the outcome is a value or a ``Refusal``: invalid UTF-8, text that is no Unicode (lone surrogates,
which no database can store), numbers too long to read, nesting too deep to follow, a body that breaks off.
"""

from __future__ import annotations

import json
import tempfile
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

from aiohttp import BodyPartReader, ClientError, web
from aiohttp.http_exceptions import HttpProcessingError
from attrs import define, field

from nudgescribe_async.sandbox.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    OnThread = Callable[..., Awaitable[Any]]

_CHUNK = 2**20
_DEEPEST = 100  # levels of a JSON body
_IN_MEMORY = 2**20  # bytes of an uploaded file; beyond, it goes to a temporary file
_FIELD_LIMIT = 10_000  # bytes of a part of a form that is not the file
_PLAIN_ENCODINGS = {"", "binary", "8bit", "7bit"}
_MALFORMED = (ValueError, LookupError, RuntimeError, AssertionError, Warning)
_BROKEN = (ClientError, HttpProcessingError, web.RequestPayloadError, *_MALFORMED)


@define
class Form:
    """A form: its fields, with an empty text in the place of the file, which stands beside them."""

    fields: dict[str, Any] = field(factory=dict[str, Any])
    file: IO[bytes] | None = None
    size: int = 0

    def close(self) -> None:
        """Delete the temporary file."""
        if self.file is not None:
            self.file.close()


async def read_json(request: web.Request, limit: int, on_thread: OnThread) -> tuple[int, dict[str, Any]]:
    """The size of a body, and the JSON object that it is."""
    raw = bytearray()
    too_large = Refusal("payload_too_large" if _is_upload(request) else "bad_request", "The body is too large")
    if (request.content_length or 0) > limit:
        raise too_large
    try:
        async for chunk in request.content.iter_chunked(_CHUNK):
            raw += chunk
            if len(raw) > limit:
                raise too_large
    except _BROKEN:
        raise Refusal("bad_request", "Bad Request: the body is broken off, or is not encoded as it says") from None
    if not raw:
        return 0, {}
    if request.content_type != "application/json":
        raise Refusal("bad_request", "Bad Request: the body must be application/json")
    if len(raw) <= _IN_MEMORY // 16:
        return len(raw), parse_json(bytes(raw))
    return len(raw), await on_thread(parse_json, bytes(raw))


def _is_upload(request: web.Request) -> bool:
    """Whether the contract knows 413 here."""
    return request.path == "/v1/customer/check"


def parse_json(raw: bytes) -> dict[str, Any]:
    """A JSON object, and nothing that cannot be worked with."""
    try:
        body: object = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        if b"\\u" in raw:
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refusal("bad_request", "Bad Request: the body is not valid JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise Refusal("bad_request", "Bad Request: the body must be a JSON object")
    if _is_deeper(cast("object", body), _DEEPEST):
        raise Refusal("bad_request", f"Bad Request: the body is nested deeper than {_DEEPEST} levels")
    return body  # pyright: ignore[reportUnknownVariableType]


def _is_deeper(value: object, levels: int) -> bool:
    """Whether there are more levels, looked at level by level, since recursion has its own limit."""
    level = [value]
    for _ in range(levels):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in cast("Iterable[object]", outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def read_form(request: web.Request, limit: int, on_thread: OnThread) -> Form:
    """The parts of a form. The caller closes it."""
    form = Form()
    if (request.content_length or 0) > limit + _FIELD_LIMIT:
        raise Refusal("payload_too_large", "The upload is too large")
    try:
        await _read_parts(request, form, limit, on_thread)
    except Refusal:
        await on_thread(form.close)
        raise
    except _BROKEN:
        await on_thread(form.close)
        raise Refusal("bad_request", "Bad Request: the form is broken off, or malformed") from None
    except BaseException:
        await on_thread(form.close)
        raise
    return form


async def _read_parts(request: web.Request, form: Form, limit: int, on_thread: OnThread) -> None:
    reader = await request.multipart()
    async for part in reader:
        if not isinstance(part, BodyPartReader):
            raise Refusal("bad_request", "Bad Request: the form has a form in it")
        if part.headers.get("Content-Transfer-Encoding", "").lower() not in _PLAIN_ENCODINGS:
            raise Refusal("bad_request", "Bad Request: parts must not be encoded")
        name = part.name or ""
        if name in form.fields:
            raise Refusal("bad_request", f"Bad Request: the form has {name[:100]!r} twice")
        if name == "file":
            form.fields[name] = ""
            await _read_file(part, form, limit, on_thread)
        else:
            form.fields[name] = await _read_field(part)
        name.encode()  # a name that is no Unicode is a ValueError here


async def _read_field(part: BodyPartReader) -> str:
    raw = bytearray()
    while chunk := await part.read_chunk(_FIELD_LIMIT):
        raw += chunk
        if len(raw) > _FIELD_LIMIT:
            raise Refusal("bad_request", "Bad Request: a field of the form is too long")
    return raw.decode("utf-8")


async def _read_file(part: BodyPartReader, form: Form, limit: int, on_thread: OnThread) -> None:
    file: IO[bytes] = await on_thread(lambda: tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - the form closes it
    form.file = file
    buffer = bytearray()
    while chunk := await part.read_chunk(2**16):
        form.size += len(chunk)
        if form.size > limit:
            raise Refusal("payload_too_large", "The upload is too large")
        buffer += chunk
        if len(buffer) >= _CHUNK:
            await on_thread(file.write, bytes(buffer))
            buffer.clear()
    await on_thread(file.write, bytes(buffer))
    await on_thread(file.seek, 0)
