"""What httpx raises, and what this package makes of it.

The question is always the same: what can the server have seen? The table answers it for each class; the transport
adds what it knows, namely whether the request had been handed to a connection at all. No text here holds a query, a
user name or the value of a header.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Final

import httpx

from nudgescribe_async.errors import (
    ConfigurationError,
    NudgescribeError,
    OutcomeUnknownError,
    RequestNotSentError,
)
from nudgescribe_async.transport._failures import (
    Outcome,
    address_of,
    chain,
    in_seconds,
    masked,
    outcome_of,
    reason_of,
    secrets_of,
)

if TYPE_CHECKING:
    from nudgescribe_async.transport import Request

__all__ = ["OUTCOMES", "mapped", "without_secrets"]

# Every exception of httpx that a transport can raise, by what the server can have seen. A test walks over all of them,
# so that one that a new httpx brings is noticed.
OUTCOMES: Final[dict[type[BaseException], Outcome]] = {
    # No connection, so no request.
    httpx.ConnectError: RequestNotSentError,
    httpx.ConnectTimeout: RequestNotSentError,
    httpx.PoolTimeout: RequestNotSentError,
    httpx.ProxyError: RequestNotSentError,
    # There was a connection, and it did not bring an answer.
    httpx.HTTPError: OutcomeUnknownError,
    httpx.RequestError: OutcomeUnknownError,
    httpx.TransportError: OutcomeUnknownError,
    httpx.TimeoutException: OutcomeUnknownError,
    httpx.NetworkError: OutcomeUnknownError,
    httpx.ProtocolError: OutcomeUnknownError,
    httpx.ReadTimeout: OutcomeUnknownError,
    httpx.WriteTimeout: OutcomeUnknownError,
    httpx.ReadError: OutcomeUnknownError,
    httpx.WriteError: OutcomeUnknownError,
    httpx.CloseError: OutcomeUnknownError,
    # There was an answer, and it cannot be understood.
    httpx.RemoteProtocolError: OutcomeUnknownError,
    httpx.LocalProtocolError: OutcomeUnknownError,
    httpx.DecodingError: OutcomeUnknownError,
    # Redirects are not followed and statuses not judged, so these cannot happen. If they do, something was sent.
    httpx.TooManyRedirects: OutcomeUnknownError,
    httpx.HTTPStatusError: OutcomeUnknownError,
    # The request cannot be sent as it is.
    httpx.UnsupportedProtocol: ConfigurationError,
    httpx.InvalidURL: ConfigurationError,
    # A body of an answer that is read twice, or after its end: it was sent all the same.
    httpx.StreamError: OutcomeUnknownError,
    Exception: OutcomeUnknownError,
}


def mapped(error: Exception, request: Request, *, reached: bool | None) -> NudgescribeError:
    """What to raise for an error of httpx.

    Args:
        error: the error.
        request: the request that it ended.
        reached: whether anything was handed to a connection, if that is known.
    """
    outcome = outcome_of(error, OUTCOMES, reached=reached)
    if outcome is ConfigurationError:
        return ConfigurationError("httpx cannot send this request: its URL is not one for it. Nothing was sent.")
    what = _what_happened(error, address_of(request), request, outcome)
    if outcome is RequestNotSentError:
        return RequestNotSentError(f"{what} Nothing was sent.")
    return OutcomeUnknownError(what)


def _what_happened(error: Exception, where: str, request: Request, outcome: Outcome) -> str:
    system = next((link for link in chain(error) if isinstance(link, OSError) and link.errno), None)
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return f"There was no connection to {where} within {in_seconds(request.connect_timeout)}."
        case TimeoutError() if outcome is RequestNotSentError:
            return f"There was no connection to {where} within {in_seconds(request.connect_timeout)}."
        case httpx.ProxyError():
            status = re.match(r"\d{3}\b", str(error))
            with_status = f", with status {status.group()}" if status else ""
            return f"The proxy refused to connect to {where}{with_status}."
        case httpx.ConnectError() if isinstance(system, ssl.SSLCertVerificationError):
            return (
                f"The TLS certificate of {where} was refused: {reason_of(system)}. Check the base URL,"
                " or give an ssl_context that trusts who issued the certificate."
            )
        case httpx.ConnectError() if isinstance(system, ssl.SSLError):
            return f"The TLS handshake with {where} failed: {reason_of(system)}."
        case httpx.ConnectError():
            return f"No connection to {where}: {reason_of(system or OSError())}."
        case httpx.ReadTimeout():
            return f"{where} sent nothing for {in_seconds(request.read_timeout)}."
        case httpx.WriteTimeout():
            return f"{where} took nothing more of the body for {in_seconds(request.read_timeout)}."
        case httpx.DecodingError():
            return f"The body of the answer of {where} broke off, or is damaged."
        case httpx.RemoteProtocolError() if "without" in str(error):  # a response, or the rest of its body
            return f"The connection to {where} was closed without a whole answer."
        case httpx.ProtocolError():
            return f"The answer of {where} is not valid HTTP."
        case httpx.NetworkError():
            return f"The connection to {where} failed: {reason_of(system or OSError())}."
        case _:
            return f"The exchange with {where} failed with {type(error).__name__}."


def without_secrets(error: BaseException, request: Request) -> BaseException:
    """The error, fit to be a ``__cause__``: tracebacks print it, with all that led to it."""
    secrets = secrets_of(request)
    for link in chain(error):
        link.__traceback__ = None  # the frames hold the request, and the answer as it came
        if type(link).__name__.endswith("ProtocolError"):
            link.args = ("not valid HTTP",)  # h11 quotes what it could not read
        elif isinstance(link, httpx.InvalidURL):
            link.args = ()
        else:
            link.args = tuple(masked(part, secrets) if isinstance(part, str) else part for part in link.args)
    return error
