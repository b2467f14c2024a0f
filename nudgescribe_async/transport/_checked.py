"""What is checked before anything is sent, whichever library sends it.

What one library would refuse, another would send in a form of its own, and a third would cut in two. So all of
them get what was checked here. No text here holds a query, a user name or the value of a header.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from nudgescribe_async.address import is_loopback
from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.transport import Headers, Request, StreamBody

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "checked_body",
    "checked_headers",
    "checked_limit",
    "checked_method",
    "checked_proxy",
    "checked_seconds",
    "checked_url",
    "has_unusable",
    "positive",
    "proxy_of_environment",
    "refuse_beside",
    "refuse_plain_http_through",
    "refuse_useless",
    "without_text",
]

_TOKEN: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_NOT_IN_VALUES: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_IN_URLS: Final = re.compile(r"[\x00-\x20\x7f]")


# Requests


def checked_method(method: str) -> str:
    """A method that HTTP can carry."""
    if not _TOKEN.fullmatch(method):
        raise ConfigurationError(f"{method!r} is no HTTP method.")
    return method


def checked_headers(headers: Headers) -> list[tuple[str, str]]:
    """The names as they were given, and the values: nothing in them that would make another header of it."""
    checked: list[tuple[str, str]] = []
    for name, value in headers.pairs():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ConfigurationError(f"{name!r} cannot be the name of a header. Nothing was sent.")
        if not isinstance(value, str):
            raise ConfigurationError(f"The value of the header {name} must be a str. Nothing was sent.")
        if _NOT_IN_VALUES.search(value):
            raise ConfigurationError(f"The value of the header {name} holds a control character. Nothing was sent.")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise ConfigurationError(
                f"The value of the header {name} holds a character that headers cannot carry. Nothing was sent."
            ) from None
        checked.append((name, value))
    return checked


def checked_body(request: Request, headers: Mapping[str, object]) -> int | None:
    """The length of the body, or ``None`` if it is not known.

    Args:
        request: the body is its.
        headers: a mapping that does not mind the case of names.
    """
    if "transfer-encoding" in headers:
        raise ConfigurationError("The transport frames the body: leave out the header Transfer-Encoding.")
    body = cast("object", request.body)
    if body is None:
        length: int | None = 0
    elif isinstance(body, bytes):
        length = len(body)
    elif isinstance(body, StreamBody):
        length = body.length
    else:
        raise ConfigurationError(f"A body must be bytes, a StreamBody or None, not {type(body).__name__}.")
    announced = headers.get("content-length")
    if announced is not None and announced != str(length):
        raise ConfigurationError("The header Content-Length contradicts the body: leave it out.")
    return length


def checked_url(text: str) -> SplitResult:
    """The parts of an absolute URL. It is not quoted: it may be a signed one."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except (ValueError, TypeError) as error:
        raise ConfigurationError("The URL cannot be parsed. Check the base URL.") from without_text(error)
    if parts.scheme not in {"http", "https"} or not host or port == 0 or has_unusable(text):
        raise ConfigurationError("The URL must be absolute, begin with https:// or http://, and hold no spaces.")
    if "@" in parts.netloc:
        raise ConfigurationError("The URL must not hold a user name or a password.")
    return parts


def has_unusable(url: str) -> bool:
    """Whether a URL holds what could end it before its end."""
    return _NOT_IN_URLS.search(url) is not None


def checked_seconds(name: str, seconds: float | None) -> float | None:
    """A limit of time: some libraries would take 0 for "for ever"."""
    if seconds is not None and not seconds > 0:
        raise ConfigurationError(f"{name} must be more than 0 seconds, or None for no limit; not {seconds}.")
    return seconds


def without_text(error: Exception) -> Exception:
    """The error of a parser, which quotes what it could not parse."""
    error.args = ()
    return error


# Options of a transport


def checked_limit(name: str, value: int) -> int:
    """A number of connections; 0 is no limit."""
    if value < 0:
        raise ConfigurationError(f"{name} must be 0 (no limit) or more, not {value}.")
    return value


def positive(name: str, number: float) -> float:
    """A number that makes no sense if it is 0."""
    if not number > 0:
        raise ConfigurationError(f"{name} must be more than 0, not {number}.")
    return number


def refuse_beside(what: str, **given: bool) -> None:
    """No options of a library's object beside the object itself, which has its own.

    Args:
        what: the argument that takes the object.
        given: whether each of the options was given.
    """
    names = ", ".join(name for name, is_given in given.items() if is_given)
    if names:
        raise ConfigurationError(
            f"{names} cannot be given together with {what}: set it on the {what}, or give no {what}."
        )


def refuse_useless(proxy_headers: Mapping[str, str] | None, *, has_proxy: bool) -> None:
    """No headers for a proxy that there is not."""
    if proxy_headers is not None and not has_proxy:
        raise ConfigurationError("proxy_headers needs proxy or trust_env: without a proxy nobody gets them.")


def checked_proxy(text: str) -> str:
    """The URL of a proxy. It is not quoted: it may hold a password."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except (ValueError, TypeError) as error:
        raise ConfigurationError("The URL of the proxy cannot be parsed.") from without_text(error)
    if not usable or has_unusable(text):
        raise ConfigurationError("The URL of the proxy must look like http://host:port or https://host:port.")
    return text


def proxy_of_environment(scheme: str, address: str) -> str | None:
    """The proxy for ``address`` (``host:port``); blocking, since some systems ask their settings."""
    proxy = getproxies().get(scheme)
    if proxy is None or proxy_bypass(address):
        return None
    return checked_proxy(proxy if "://" in proxy else f"http://{proxy}")


def refuse_plain_http_through(proxy_host: str | None) -> None:
    """Plain http is for loopback, or somebody's own service: what goes over it must not pass through others."""
    if proxy_host is not None and not is_loopback(proxy_host):
        raise ConfigurationError("A request over plain http is not sent through a proxy on another host.")
