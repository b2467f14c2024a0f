"""Words for what went wrong, and what must not be in them, whichever library has failed."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from typing import TYPE_CHECKING, TypeAlias, cast
from urllib.parse import urlsplit

from nudgescribe_async.errors import ConfigurationError, OutcomeUnknownError, RequestNotSentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nudgescribe_async.transport import Request

__all__ = ["Outcome", "address_of", "chain", "in_seconds", "masked", "outcome_of", "reason_of", "secrets_of"]

Outcome: TypeAlias = type[ConfigurationError] | type[RequestNotSentError] | type[OutcomeUnknownError]


def outcome_of(error: Exception, outcomes: Mapping[type[BaseException], Outcome], *, reached: bool | None) -> Outcome:
    """What the server can have seen, by the class of an error and by what the transport knows of the request.

    Args:
        error: what the library has raised.
        outcomes: its exceptions; those of an unlisted class count as their nearest base.
        reached: whether anything was handed to a connection, if that is known.
    """
    outcome = next(outcomes[cls] for cls in type(error).__mro__ if cls in outcomes)
    if reached is True:
        return OutcomeUnknownError
    if reached is False and outcome is OutcomeUnknownError:
        return RequestNotSentError
    return outcome


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
    """An error and all that led to it, each once.

    Called outside of an ``except`` block, it ends where the error meets what the caller of the transport is just dealing
    with, which Python takes for a part of what led to it: that is the caller's, and not ours to change.
    """
    handled = sys.exception()
    seen = set[int]() if handled is None or handled is error else {id(handled)}
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
