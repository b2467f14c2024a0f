"""What a refusal says. The service's own shape is not documented, and proxies have others."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any, cast

from nudgescribe_async.codec import InvalidJSONError, loads
from nudgescribe_async.errors import APIStatusError, status_error
from nudgescribe_async.retry import http_date, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nudgescribe_async.transport import Headers

__all__ = ["mask", "printable", "read_refusal", "request_id", "what_came"]

_MESSAGE_LENGTH = 500
_BODY_LENGTH = 2_000
_READ_LENGTH = 64 * 2**10
_DEEPEST = 8
_REQUEST_IDS = ("x-request-id", "x-correlation-id", "x-amzn-requestid", "cf-ray")
_ANY_REQUEST_ID = frozenset(_REQUEST_IDS)
_HTML = re.compile(r"<(?:!doctype|html|head|body|title)\b", re.IGNORECASE)
_TITLE = re.compile(r"<(title|h1)\b[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([/\"\\]))")


def mask(text: str, secrets: Iterable[str]) -> str:
    r"""The text without the secrets, be they written plainly or escaped as in JSON or HTML.

    A text in which a secret is escaped in an unusual way, such as ``\/`` for a slash, comes back with
    all its escapes undone.
    """
    if text.isascii() and "\\" not in text and "&" not in text:
        # Nothing is escaped, so a secret can stand there only as it is. Every answer's request id comes by here.
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text
    forms = _forms(secrets)
    for form in forms:
        text = text.replace(form, "***")
    plain = html.unescape(_ESCAPE.sub(lambda escape: escape[2] or chr(int(escape[1], 16)), text))
    plain = plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # joins surrogate pairs
    if any(form in plain for form in forms):
        text = plain
        for form in forms:
            text = text.replace(form, "***")
    return text


def _forms(secrets: Iterable[str]) -> list[str]:
    """The secrets as they may be written; the longest first, since one may be a part of another."""
    forms = {
        form
        for secret in secrets
        for form in (
            secret,
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
            html.escape(secret),
        )
    }
    return sorted(filter(None, forms), key=len, reverse=True)


def _start(body: bytes, secrets: Iterable[str]) -> str:
    """The start of a body, masked. Where it was cut off, so may be a secret: what may be one's start goes."""
    text = mask(body[:_READ_LENGTH].decode(errors="replace"), secrets)
    if len(body) >= _READ_LENGTH:
        text = text.rstrip("\ufffd")
        for form in _forms(secrets):
            for length in range(min(len(form), len(text)), 0, -1):
                if text.endswith(form[:length]):
                    text = text[:-length]
                    break
    return text[: 4 * _BODY_LENGTH]


def printable(text: str) -> str:
    """The text without what no log can take: lone surrogates, and the commands of terminals."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def request_id(headers: Headers, secrets: Iterable[str] = ()) -> str | None:
    """What the service, or a proxy before it, calls the request."""
    for name in _REQUEST_IDS if headers.has_any(_ANY_REQUEST_ID) else ():
        if value := headers.get(name, "").strip():
            return printable(mask(value, secrets)[:200])
    return None


def read_refusal(
    status: int,
    headers: Headers,
    body: bytes,
    *,
    now: float,
    secrets: Iterable[str] = (),
) -> APIStatusError:
    """The error for an answer that is no success.

    Understood are JSON objects with ``message``, ``error`` (a text, or an object with ``message`` and
    ``code``), ``detail`` or ``title``, JSON texts, plain text, HTML, and nothing at all.

    Args:
        status: the HTTP status.
        headers: for ``Retry-After``, ``Date`` and ``Location``.
        body: as it came.
        now: seconds since 1970, for an answer without ``Date``.
        secrets: masked in all that is kept.
    """
    kind = status_error(status)
    secrets = tuple(secrets)
    text = _start(body, secrets)
    said, code = _what_it_says(body, text)
    said = printable(" ".join(mask(said, secrets).split())[:_MESSAGE_LENGTH])
    meaning = kind.meaning
    if 300 <= status <= 399:
        meaning = (
            "The service sent a redirect, which is not followed, since the token must not go elsewhere; check base_url"
        )
    return kind(
        f'{meaning} (HTTP {status}): "{said}".' if said else f"{meaning} (HTTP {status}, without an explanation).",
        status=status,
        said=said,
        code=printable(mask(code, secrets)[:100]) if code is not None else None,
        body=text[:_BODY_LENGTH].encode(errors="replace").decode(),
        retry_after=retry_after_seconds(headers.get("retry-after"), sent=http_date(headers.get("date", "")), now=now),
        request_id=request_id(headers, secrets),
    )


def what_came(body: bytes, secrets: Iterable[str]) -> str | None:
    """What an answer is that was to be data, in words: a web page, or nothing; ``None`` if that is not plain."""
    if not body.strip():
        return "empty"
    text = _start(body[:_READ_LENGTH], tuple(secrets))
    if not _HTML.search(text):
        return None
    title = _TITLE.search(text)
    said = printable(" ".join(html.unescape(_TAG.sub(" ", title[2])).split())[:100]) if title else ""
    return f'a web page ("{said}")' if said else "a web page"


def _what_it_says(body: bytes, text: str) -> tuple[str, str | None]:
    try:
        return _from_json(loads(body))
    except InvalidJSONError:
        if _HTML.search(text):
            title = _TITLE.search(text)
            return html.unescape(_TAG.sub(" ", title[2] if title else text)), None
        return text, None


def _from_json(value: Any, depth: int = 0) -> tuple[str, str | None]:
    if depth > _DEEPEST:
        return "", None
    match value:
        case str():
            return value, None
        case dict():
            fields = {key.strip().lower(): item for key, item in cast("dict[str, Any]", value).items()}
            code = fields.get("code", fields.get("error_code"))
            for name in ("message", "error", "detail", "title", "errors", "msg"):
                if fields.get(name):
                    said, inner = _from_json(fields[name], depth + 1)
                    if said:
                        return said, str(code) if isinstance(code, str | int) else inner
            return "", str(code) if isinstance(code, str | int) else None
        case list():
            items = (_from_json(item, depth + 1)[0] for item in value[:5])  # pyright: ignore[reportUnknownVariableType] - JSON
            return "; ".join(filter(None, items)), None
        case _:
            return "", None
