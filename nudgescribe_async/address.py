"""The address of the service: what may be one, and what would give tokens away."""

from __future__ import annotations

import ipaddress
import re
from typing import cast
from urllib.parse import urlsplit

from nudgescribe_async.errors import ConfigurationError

__all__ = ["checked_base_url", "is_loopback", "normal_address"]

# A host, or an address in brackets, then perhaps a port; nothing that parsers of URLs read differently.
_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\[\]@:]+)(:\d*)?")


def checked_base_url(url: str) -> str:
    """The address of the service, without a slash at the end.

    Raises:
        ConfigurationError: it is no absolute URL, has a part that it must not have, or would send
            tokens unencrypted to a host other than this one. The text quotes no more than the host.
    """
    if not isinstance(cast("object", url), str) or not url.strip():
        raise ConfigurationError(f"base_url must be the address of the service; got {url!r}.")
    url = url.strip()
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError("base_url is no URL: its host or port cannot be read.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError("base_url must begin with https:// (or http:// on loopback) and name a host.")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("base_url must not hold a user name or password; give Credentials instead.")
    if any(letter in "?#\\" or letter.isspace() or not letter.isprintable() for letter in url):
        raise ConfigurationError(
            "base_url must end with the path: no query, no fragment, no white space, no backslash."
        )
    if not _NETLOC.fullmatch(parts.netloc):
        raise ConfigurationError("base_url is no URL: its host cannot be read.")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            f"base_url must begin with https://: tokens would travel unencrypted to {host}. Plain http is for loopback."
        )
    return url.rstrip("/")


def normal_address(address: str) -> str:
    """A checked address in one way of writing, by which what is kept for a service is found again."""
    parts = urlsplit(address)
    host = (parts.hostname or "").rstrip(".")
    port = "" if parts.port in {None, {"https": 443, "http": 80}.get(parts.scheme)} else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
