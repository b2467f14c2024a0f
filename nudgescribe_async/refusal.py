"""What a refusal says. The service's own shape is not documented, and proxies have others."""

from __future__ import annotations

import html
import json
import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

from nudgescribe_async.codec import InvalidJSONError, loads
from nudgescribe_async.errors import APIStatusError, status_error
from nudgescribe_async.retry import retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nudgescribe_async.transport import Headers

__all__ = ["mask", "read_refusal", "request_id"]

_MESSAGE_LENGTH = 500
_BODY_LENGTH = 2_000
_HTML = re.compile(r"<(?:!doctype|html|head|body|title)\b", re.IGNORECASE)
_TITLE = re.compile(r"<(title|h1)\b[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


def mask(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, be they written plainly or as in JSON."""
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            text = text.replace(form, "***")
    return text


def request_id(headers: Headers, secrets: Iterable[str] = ()) -> str | None:
    """What the service, or a proxy before it, calls the request."""
    for name in ("x-request-id", "x-correlation-id", "x-amzn-requestid", "cf-ray"):
        if value := headers.get(name, "").strip():
            return mask(value[:200], secrets)
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
        now: seconds since 1970, where the answer has no ``Date``.
        secrets: masked in all that is kept.
    """
    kind = status_error(status)
    text = mask(body[: 4 * _BODY_LENGTH].decode(errors="replace"), secrets)
    said, code = _what_it_says(body, text)
    said = mask(" ".join(said.split()), secrets)[:_MESSAGE_LENGTH]
    meaning = kind.meaning
    if 300 <= status <= 399:
        meaning = (
            "The service sent a redirect, which is not followed, since the token must not go elsewhere; check base_url"
        )
    return kind(
        f"{meaning} (HTTP {status}): {said}" if said else f"{meaning} (HTTP {status}, without an explanation).",
        status=status,
        code=mask(code, secrets)[:100] if code is not None else None,
        body=text[:_BODY_LENGTH],
        retry_after=retry_after_seconds(headers.get("retry-after"), now=_date(headers, now)),
        request_id=request_id(headers, secrets),
    )


def _date(headers: Headers, now: float) -> float:
    """When the answer was sent by the service's own clock, so that ours may be wrong."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return now


def _what_it_says(body: bytes, text: str) -> tuple[str, str | None]:
    try:
        return _from_json(loads(body))
    except InvalidJSONError:
        if _HTML.search(text):
            title = _TITLE.search(text)
            return html.unescape(_TAG.sub(" ", title[2] if title else text)), None
        return text, None


def _from_json(value: Any) -> tuple[str, str | None]:
    match value:
        case str():
            return value, None
        case dict():
            fields = {key.strip().lower(): item for key, item in cast("dict[str, Any]", value).items()}
            code = fields.get("code", fields.get("error_code"))
            for name in ("message", "error", "detail", "title", "errors"):
                if fields.get(name):
                    said, inner = _from_json(fields[name])
                    if said:
                        return said, str(code) if isinstance(code, str | int) else inner
            return "", str(code) if isinstance(code, str | int) else None
        case list():
            items = (_from_json(item)[0] for item in value[:5])  # pyright: ignore[reportUnknownVariableType] - JSON
            return "; ".join(filter(None, items)), None
        case _:
            return "", None
