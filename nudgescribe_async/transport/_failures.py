"""Words for what went wrong, and what must not be in them, whichever library has failed."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nudgescribe_async.transport import Request

__all__ = ["address_of", "chain", "in_seconds", "masked", "reason_of", "secrets_of"]


def address_of(request: Request) -> str:
    """The host and port that a request is for."""
    parts = urlsplit(request.url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def reason_of(error: OSError) -> str:
    """Why, in words of the system. What a library adds may hold the URL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or "it does not fit"
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS error"
    if isinstance(error, socket.gaierror):
        return error.strerror or "no address"
    return os.strerror(error.errno) if error.errno else "the connection was lost"


def in_seconds(seconds: float | None) -> str:
    """A limit of time, for a text."""
    return "the time allowed" if seconds is None else f"{seconds:g} s"


def secrets_of(request: Request) -> list[str]:
    """What must not be shown, the longest first: header values, with and without a ``Bearer``, and the query."""
    found = set(request.headers.values())
    found |= {value.rpartition(" ")[2] for value in found if len(value.split(" ")) == 2}
    found.add(urlsplit(request.url).query)
    return sorted((value for value in found if len(value) >= 6), key=len, reverse=True)  # shorter ones hide nothing


def masked(text: str, secrets: list[str]) -> str:
    """A text without them."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it, each once."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        todo += [link.__context__, link.__cause__]
        if isinstance(link, BaseExceptionGroup):
            todo += reversed(cast("BaseExceptionGroup[BaseException]", link).exceptions)
