"""Certificates for the rules about TLS, made when the first of them is asked for."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from nudgescribe_async.errors import ConfigurationError

if TYPE_CHECKING:
    import trustme

__all__ = ["Certificates", "certificates"]


class Certificates:
    """An authority, and what it has issued.

    Attributes:
        authority: its own certificate, as PEM.
    """

    def __init__(self, authority: trustme.CA) -> None:
        self._authority = authority
        self.authority = authority.cert_pem.bytes().decode()

    def server(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """For a server of these names; without any, for 127.0.0.1 and localhost."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        until = datetime(2001, 1, 1, tzinfo=UTC) if expired else None
        since = datetime(2000, 1, 1, tzinfo=UTC) if expired else None
        issued = self._authority.issue_cert(*(names or ("127.0.0.1", "localhost")), not_before=since, not_after=until)
        issued.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] - of OpenSSL's contexts, too
        return context


@lru_cache(maxsize=1)
def certificates() -> Certificates:
    """Made once for all rules.

    Raises:
        ConfigurationError: ``trustme`` is not installed.
    """
    try:
        import trustme  # noqa: PLC0415 - only the rules about TLS need it
    except ImportError:
        raise ConfigurationError(
            "The rules about TLS make certificates with trustme, which is not installed: pip install trustme."
            " Or leave these rules out: those without Need.TLS in their needs."
        ) from None
    return Certificates(trustme.CA())
