"""Who may look at the page, and who may change something with it.

The sandbox listens on loopback, where any web page that is open in the same browser can send requests to. So:

- The ``Host`` of a request must be a name of loopback, as long as the sandbox listens there only: another site whose
  name is made to point to this machine (DNS rebinding) learns nothing.
- Actions are ``POST`` requests with a token that only a page of this very process holds, and a browser must say that
  they come from here (``Origin``, ``Sec-Fetch-Site``). So are streams of events, but for the token.
- Another site can send the browser to a page, with a link, and that is all: what it asks for in any other way (an image,
  a script, ``fetch``, a frame) gets nothing, and costs nothing.
- No answer may be put into a frame, be read by another origin, or load anything from elsewhere. No script or style
  stands in the markup, so a text that becomes markup by mistake could still do nothing.

None of this holds for the API, which has tokens of its own.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOST = re.compile(r"[\w.:\[\]-]*", re.ASCII)  # no path, and no user in front of it
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not "no-referrer": with that, browsers send the Origin "null" with the page's own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Guard:
    """The rules of one sandbox.

    Args:
        host: what the sandbox listens on.

    Attributes:
        token: what the forms of the page send along. Another one for each process.
    """

    def __init__(self, host: str) -> None:
        self.token = secrets.token_urlsafe(32)
        # The name of a sandbox that opens no socket; it cannot be made to point anywhere (RFC 2606).
        self._names = {host.lower(), "api.sandbox.invalid"}
        self._loopback = _is_loopback(host.lower())

    def check_host(self, request: web.Request) -> None:
        """Refuse a request that was meant for another host."""
        name = _name(request.headers.get("Host", ""))
        if self._loopback and name not in self._names and not _is_loopback(name):
            raise web.HTTPMisdirectedRequest(
                text="This sandbox listens on this machine only, and the address names another one. "
                "Open it as http://localhost or http://127.0.0.1, with its port."
            )

    def check_reader(self, request: web.Request) -> None:
        """Refuse what a page of another site asks for, unless it is a link that somebody follows."""
        headers = request.headers
        inside = headers.get("Sec-Fetch-Site", "none") in {"same-origin", "none"}
        # A form of another site comes along here, and not past what is said of actions.
        followed = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        if not inside and not followed:
            raise web.HTTPForbidden(text="That was asked for by another site than this page.")

    def check_origin(self, request: web.Request) -> None:
        """Refuse what another site has sent from a browser."""
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = request.headers.get("Origin")
        foreign = origin is not None and _host_of(origin) != request.headers.get("Host", "").lower()
        if site != "same-origin" or foreign:
            raise web.HTTPForbidden(text="That was sent by another site than this page.")

    def check_action(self, request: web.Request, form: Mapping[str, object]) -> None:
        """Refuse what does not come from a form of this page."""
        self.check_origin(request)
        token = form.get("token")
        if not isinstance(token, str) or not hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
            raise web.HTTPForbidden(
                text="The form is not one of this sandbox: it may have been started anew since. Load the page again."
            )


def _host_of(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in {"http", "https"} else None


def _name(host: str) -> str | None:
    if not _HOST.fullmatch(host):
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_loopback(name: str | None) -> bool:
    if name is None:
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
