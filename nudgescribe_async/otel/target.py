"""What a call is named, and the attributes that all calls to one place have."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import frozen

from nudgescribe_async.otel import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async.events import CallStarted

__all__ = ["Target", "Targets", "error_type"]

_PORTS = {"https": 443, "http": 80}
_MOST = 256
"""So many places are remembered: the operations are some twenty, but signed URLs may be of any host."""


@frozen
class Target:
    """Where calls of an operation go.

    Attributes:
        name: of their spans.
        attributes: of their spans.
        labels: of their requests' metrics.
    """

    name: str
    attributes: Mapping[str, str | int]
    labels: Mapping[str, str | int]


class Targets:
    """The targets of one client, each made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, bool], Target] = {}

    def of(self, event: CallStarted) -> Target:
        """The target of a call."""
        key = (event.operation, event.url, event.signed)
        target = self._known.get(key)
        if target is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            target = self._known[key] = _target(event)
        return target


def _target(event: CallStarted) -> Target:
    parts = urlsplit(event.url)
    labels: dict[str, str | int] = {
        names.METHOD: event.method,
        names.SERVER_ADDRESS: parts.hostname or "",
        names.SERVER_PORT: parts.port or _PORTS.get(parts.scheme, 443),
        names.URL_SCHEME: parts.scheme,
    }
    if event.signed:
        # The path may name a bank or a campaign, and the query is the signature.
        full, name = f"{event.url}/REDACTED?REDACTED", event.method
    else:
        # No operation has an argument in its path, so the path is its own template.
        full, name = event.url, f"{event.method} {parts.path}"
        labels[names.URL_TEMPLATE] = parts.path
    return Target(
        name,
        attributes={**labels, names.URL_FULL: full, names.OPERATION: event.operation},
        labels=labels,
    )


def error_type(status: int | None, error: str | None) -> str | None:
    """What went wrong, by the convention: the status if it says so, else the error's class; ``None`` if nothing did."""
    return str(status) if status is not None and status >= 400 else error
