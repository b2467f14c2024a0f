"""What pyreqwest raises, and what this package makes of it.

Its classes do not say what the server can have seen: a ``ConnectError`` may be a connection that was never made, or one
that was reset after the request. The causes do, which it has from hyper, the library that sends: only there it says
that there was no connection, or that the request is handed back unsent. Everything else may have been sent. No text
here holds a query, a user name or the value of a header.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, cast

from pyreqwest.exceptions import (
    BuilderError,
    ClientClosedError,
    DecodeError,
    DetailedPyreqwestError,
    PyreqwestError,
    ReadTimeoutError,
    RequestTimeoutError,
)

from nudgescribe_async.errors import (
    ConfigurationError,
    NudgescribeError,
    OutcomeUnknownError,
    RequestNotSentError,
)
from nudgescribe_async.transport._failures import address_of, chain, in_seconds, masked, secrets_of
from nudgescribe_async.transport._unpacking import DamagedBodyError

if TYPE_CHECKING:
    from nudgescribe_async.transport import Request

__all__ = ["mapped", "without_secrets"]

# In the words of hyper-util's client: it could not connect; it gives a request back of which nothing was written.
NOT_SENT: Final = frozenset({"client error (Connect)", "client error (Canceled)"})

_URL: Final = re.compile(r" for url \(.*\)", re.DOTALL)
_ERRNO: Final = re.compile(r"\(os error (\d+)\)")
_CERTIFICATE: Final = re.compile(r"invalid peer certificate: (.*)", re.DOTALL)


def causes_of(error: BaseException) -> list[str]:
    """What led to an error, the first thing last."""
    details = cast("dict[str, list[dict[str, str]] | None]", getattr(error, "details", {}))
    return [cause["message"] for cause in details.get("causes") or []]


def mapped(error: Exception, request: Request, *, reached: bool | None) -> NudgescribeError:
    """What to raise for an error of pyreqwest.

    Args:
        error: the error.
        request: the request that it ended.
        reached: whether anything was handed to a connection, if that is known.
    """
    causes, where = causes_of(error), address_of(request)
    if reached is not True and isinstance(error, BuilderError):
        return ConfigurationError("pyreqwest cannot send this request as it is. Nothing was sent.")
    if reached is False or (reached is None and not NOT_SENT.isdisjoint(causes)):
        return RequestNotSentError(f"{_no_connection(error, causes, where, request)} Nothing was sent.")
    return OutcomeUnknownError(_no_answer(error, causes, where, request))


def _no_connection(error: Exception, causes: list[str], where: str, request: Request) -> str:
    last = causes[-1] if causes else ""
    certificate = next((found for cause in causes if (found := _CERTIFICATE.search(cause))), None)
    if isinstance(error, TimeoutError) or "timed out" in last:
        return f"There was no connection to {where} within {in_seconds(request.connect_timeout)}."
    if certificate is not None:
        return (
            f"The TLS certificate of {where} was refused: {certificate.group(1).rstrip('.')}. Check the base URL,"
            " or give a certificate_authority that has issued the certificate."
        )
    if "dns error" in causes:
        return f"The name of {where} was not found."
    if any(cause.startswith("tunnel error") for cause in causes):
        refused = "it wants other credentials" if "authorization required" in last else "it gave no reason"
        return f"The proxy refused to connect to {where}: {refused}."
    return f"No connection to {where}: {_reason(causes)}."


def _no_answer(error: Exception, causes: list[str], where: str, request: Request) -> str:
    match error:
        case ReadTimeoutError():
            return f"{where} sent nothing for {in_seconds(request.read_timeout)}."
        case RequestTimeoutError() | TimeoutError():
            return f"{where} did not answer within {in_seconds(request.read_timeout)}."
        case ClientClosedError():
            return f"The transport was closed before {where} had answered."
        case DecodeError() | DamagedBodyError():
            return f"The answer of {where} is not valid HTTP, or broke off, or is damaged."
        case DetailedPyreqwestError():
            return f"The connection to {where} was closed without a whole answer: {_reason(causes)}."
        case _:
            return f"The exchange with {where} failed with {type(error).__name__}."


def _reason(causes: list[str]) -> str:
    """Why, in words of the system. Those of the library may hold the URL."""
    number = next((found for cause in causes if (found := _ERRNO.search(cause))), None)
    return os.strerror(int(number.group(1))) if number is not None else "the connection was lost"


def without_secrets(error: BaseException, request: Request) -> BaseException:
    """The error, fit to be a ``__cause__``: the library puts whole URLs into its texts."""
    secrets = secrets_of(request)
    for link in chain(error):
        link.__traceback__ = None
        if isinstance(link, PyreqwestError):
            link.message = masked(_URL.sub("", link.message), secrets)
            link.args = (link.message,)
        if isinstance(link, DetailedPyreqwestError):
            shown = [masked(_URL.sub("", cause), secrets) for cause in causes_of(link)]
            link.details = {"causes": [{"message": cause} for cause in shown]}
            link.args = (link.message, link.details)
        elif not isinstance(link, PyreqwestError):
            link.args = tuple(masked(part, secrets) if isinstance(part, str) else part for part in link.args)
    return error
