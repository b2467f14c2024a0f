"""What a rule asks of a transport, and the two ways in which it may not get it."""

from __future__ import annotations

import ssl
import unittest
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import attrs
from attrs import field, frozen

from nudgescribe_async.transport import Transport

if TYPE_CHECKING:
    from aiohttp.web import Application

__all__ = ["BrokenPromiseError", "Need", "NotApplicableError", "TransportFactory", "TransportSettings"]


class BrokenPromiseError(AssertionError):
    """A transport does not keep a rule. Its text says what was promised, and what came instead."""


class NotApplicableError(unittest.SkipTest):
    """A transport cannot do what a rule is about, and says so.

    A transport factory raises it, with the reason, which is shown. It is a ``SkipTest``, which pytest and unittest both
    report as skipped.
    """


class Need(Enum):
    """What a rule needs beyond a transport."""

    SOCKET = "socket"
    """A server on loopback that speaks bytes: not for a transport into an application."""

    TLS = "tls"
    """Certificates, for which ``trustme`` has to be installed."""

    PROXY = "proxy"
    """A transport that can be told to use a proxy."""


@frozen(kw_only=True)
class TransportSettings:
    """What the transport of a rule is to be like. What is left at its default is the transport's own affair.

    Attributes:
        certificate_authority: the certificate, as PEM, of the authority to trust; ``None`` for those of the system.
        proxy: the URL of a proxy on loopback, with user and password if it wants them.
        trust_env: whether to take the proxy from the environment.
        limit: the most connections at once.
        rule: the name of the rule, for a transport that is known not to keep it: its factory raises
            ``NotApplicableError`` with the reason.
        application: makes the application that answers, for a transport that goes into one without a socket. Every
            other transport leaves it alone: the same application listens where the requests are sent to.
    """

    certificate_authority: str | None = None
    proxy: str | None = field(default=None, repr=False)
    trust_env: bool = False
    limit: int | None = None
    rule: str = ""
    application: Callable[[], Application] | None = field(default=None, repr=False)

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """A new context that trusts ``certificate_authority`` alone; ``None`` where there is none."""
        if self.certificate_authority is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.certificate_authority)
        return context

    def only(self, *names: str) -> None:
        """Say that the transport can be given these settings and no others.

        Raises:
            NotApplicableError: the rule wants another one.
            ValueError: there is no setting of that name.
        """
        known = {setting.name: setting for setting in attrs.fields(TransportSettings)}
        for name in names:
            if name not in known:
                raise ValueError(f"There is no setting {name!r}; there are {', '.join(known)}.")
        asked = [name for name, setting in known.items() if getattr(self, name) != setting.default]
        missing = [name for name in asked if name not in {*names, "rule", "application"}]
        if missing:
            raise NotApplicableError(f"The transport cannot be given {', '.join(missing)}.")


TransportFactory: TypeAlias = Callable[[TransportSettings], Transport | Awaitable[Transport]]
"""Makes a transport for one rule, which closes it. May raise ``NotApplicableError``."""
