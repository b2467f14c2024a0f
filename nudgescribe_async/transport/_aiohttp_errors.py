"""What aiohttp raises, and what this package makes of it.

The question is always the same: what can the server have seen? The table answers it for each class;
the transport adds what it knows, namely whether the request had been handed to a connection at all.
No text here holds a query, a user name or the value of a header.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, cast

import aiohttp
from aiohttp.client_exceptions import TooManyRedirects, UnixClientConnectorError
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

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
from nudgescribe_async.transport._unpacking import DamagedBodyError

if TYPE_CHECKING:
    from nudgescribe_async.transport import Request

__all__ = ["OUTCOMES", "mapped", "without_secrets"]

# Every exception of aiohttp's client, by what the server can have seen. A test walks over all of
# them, so that one that a new aiohttp brings is noticed. Where it is known that no byte of the
# request had left, ``OutcomeUnknownError`` becomes ``RequestNotSentError``.
OUTCOMES: Final[dict[type[BaseException], Outcome]] = {
    # No connection, so no request.
    aiohttp.ClientConnectorError: RequestNotSentError,
    aiohttp.ClientConnectorDNSError: RequestNotSentError,
    aiohttp.ClientConnectorSSLError: RequestNotSentError,
    aiohttp.ClientConnectorCertificateError: RequestNotSentError,
    aiohttp.ClientProxyConnectionError: RequestNotSentError,
    aiohttp.ClientSSLError: RequestNotSentError,
    UnixClientConnectorError: RequestNotSentError,
    aiohttp.ConnectionTimeoutError: RequestNotSentError,
    aiohttp.ServerFingerprintMismatch: RequestNotSentError,
    aiohttp.ClientHttpProxyError: RequestNotSentError,
    # There was a connection, and it did not bring an answer.
    aiohttp.ClientError: OutcomeUnknownError,
    aiohttp.ClientConnectionError: OutcomeUnknownError,
    aiohttp.ClientConnectionResetError: OutcomeUnknownError,
    aiohttp.ClientOSError: OutcomeUnknownError,
    aiohttp.ServerConnectionError: OutcomeUnknownError,
    aiohttp.ServerDisconnectedError: OutcomeUnknownError,
    aiohttp.ServerTimeoutError: OutcomeUnknownError,
    aiohttp.SocketTimeoutError: OutcomeUnknownError,
    aiohttp.ClientPayloadError: OutcomeUnknownError,
    # There was an answer, and it cannot be understood.
    aiohttp.ClientResponseError: OutcomeUnknownError,
    aiohttp.ContentTypeError: OutcomeUnknownError,
    aiohttp.WSServerHandshakeError: OutcomeUnknownError,
    aiohttp.WSMessageTypeError: OutcomeUnknownError,
    # Redirects are not followed, so these cannot happen. If they do, something was sent.
    TooManyRedirects: OutcomeUnknownError,
    aiohttp.RedirectClientError: OutcomeUnknownError,
    aiohttp.InvalidUrlRedirectClientError: OutcomeUnknownError,
    aiohttp.NonHttpUrlRedirectClientError: OutcomeUnknownError,
    # The request cannot be sent as it is.
    aiohttp.InvalidURL: ConfigurationError,
    aiohttp.InvalidUrlClientError: ConfigurationError,
    aiohttp.NonHttpUrlClientError: ConfigurationError,
    TypeError: ConfigurationError,
    ValueError: ConfigurationError,
    RuntimeError: ConfigurationError,
    # What asyncio raises by itself.
    socket.gaierror: RequestNotSentError,
    OSError: OutcomeUnknownError,
    TimeoutError: OutcomeUnknownError,
    Exception: OutcomeUnknownError,
}
if hasattr(aiohttp, "UploadAbortedError"):  # since aiohttp 3.14.4
    OUTCOMES[aiohttp.UploadAbortedError] = OutcomeUnknownError


def mapped(error: Exception, request: Request, *, reached: bool | None) -> NudgescribeError:
    """What to raise for an error of aiohttp or asyncio.

    Args:
        error: the error.
        request: the request that it ended.
        reached: whether anything was handed to a connection, if that is known.
    """
    outcome = outcome_of(error, OUTCOMES, reached=reached)
    if outcome is ConfigurationError:
        return ConfigurationError(f"aiohttp cannot send this request{_harmless(error, request)}. Nothing was sent.")
    what = _what_happened(error, address_of(request), request, outcome)
    if outcome is RequestNotSentError:
        return RequestNotSentError(f"{what} Nothing was sent.")
    return OutcomeUnknownError(what)


def _what_happened(error: Exception, where: str, request: Request, outcome: Outcome) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or "it does not fit"
            return (
                f"The TLS certificate of {error.host}:{error.port} was refused: {reason}. Check the base URL,"
                " or give an ssl_context that trusts who issued the certificate."
            )
        case aiohttp.ServerFingerprintMismatch():
            return f"The TLS certificate of {where} is not the one whose fingerprint the session expects."
        case aiohttp.ClientSSLError():
            return f"The TLS handshake with {error.host}:{error.port} failed: {reason_of(error.os_error)}."
        case aiohttp.ClientConnectorDNSError():
            return f"The name of {error.host}:{error.port} was not found: {reason_of(error.os_error)}."
        case aiohttp.ClientProxyConnectionError():
            return f"No connection to the proxy {error.host}:{error.port}: {reason_of(error.os_error)}."
        case aiohttp.ClientConnectorError():
            return f"No connection to {error.host}:{error.port}: {reason_of(error.os_error)}."
        case aiohttp.ClientHttpProxyError():
            return f"The proxy refused to connect to {where}, with status {error.status}."
        case aiohttp.ConnectionTimeoutError():
            return f"There was no connection to {where} within {in_seconds(request.connect_timeout)}."
        case TimeoutError() if outcome is RequestNotSentError:
            return f"There was no connection to {where} within {in_seconds(request.connect_timeout)}."
        case aiohttp.ServerTimeoutError():
            return f"{where} sent nothing for {in_seconds(request.read_timeout)}."
        case TimeoutError():
            return f"{where} took nothing more of the body for {in_seconds(request.read_timeout)}."
        case aiohttp.ServerDisconnectedError():
            return f"The connection to {where} was closed without a whole answer."
        case aiohttp.ClientPayloadError() | DamagedBodyError():
            return f"The body of the answer of {where} broke off, or is damaged."
        case aiohttp.ClientResponseError():
            return f"The answer of {where} is not valid HTTP."
        case OSError():
            return f"The connection to {where} failed: {reason_of(error)}."
        case _:
            return f"The exchange with {where} failed with {type(error).__name__}."


def _harmless(error: Exception, request: Request) -> str:
    text = str(error)
    if type(error) not in {TypeError, ValueError, RuntimeError} or any(s in text for s in secrets_of(request)):
        return ""
    return f": {text.rstrip('.')}"


def without_secrets(error: BaseException, request: Request) -> BaseException:
    """The error, fit to be a ``__cause__``: tracebacks print it, and aiohttp puts whole URLs into its texts."""
    secrets = secrets_of(request)
    if isinstance(error, aiohttp.InvalidURL):  # it keeps the URL where nobody else can reach
        return type(error)(str(_without(str(error), secrets)))
    for link in chain(error):
        link.__traceback__ = None  # the frames of aiohttp's parser hold the answer as it came
        if isinstance(link, aiohttp.ClientResponseError):
            bare = aiohttp.RequestInfo(
                link.request_info.url.with_user(None).with_query(None),
                link.request_info.method,
                CIMultiDictProxy(CIMultiDict[str]()),
                link.request_info.real_url.with_user(None).with_query(None),
            )
            # The message of a parser quotes what it could not read: the answer, or a request sent back.
            link.request_info, link.headers, link.message = bare, None, "not valid HTTP"
            link.args = (bare, link.history)
        elif isinstance(link, HttpProcessingError):
            link.headers, link.message = None, "not valid HTTP"
            link.args = (link.message,)
        else:
            link.args = tuple(_without(part, secrets) for part in cast("tuple[object, ...]", link.args))
            if isinstance(link, aiohttp.ServerDisconnectedError):  # it may hold what had come of an answer
                link.message = "Server disconnected"
                link.args = (link.message,)
            elif isinstance(link, OSError) and isinstance(link.strerror, str):
                link.strerror = str(_without(link.strerror, secrets))
    return error


def _without(part: object, secrets: list[str]) -> object:
    if isinstance(part, ConnectionKey):  # its proxy may hold a password
        return f"{part.host}:{part.port}"
    if not isinstance(part, (str, URL)):
        return part
    return masked(str(part), secrets)
