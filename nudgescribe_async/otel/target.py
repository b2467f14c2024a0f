"""What a call is named, and the attributes that all calls to one place have."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import evolve, frozen

from nudgescribe_async.otel import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async.events import CallStarted

__all__ = ["Target", "Targets", "error_type"]

_PORTS = {"https": 443, "http": 80}
_MOST = 256
"""So many places are remembered: the operations are some twenty, but signed URLs may be of any host."""
_MOST_HOSTS = 16
"""So many hosts of signed URLs have metrics of their own. The service names them, and each would be a series for good."""
_OTHER_HOSTS = "other"


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
        self._hosts: set[tuple[str | int, ...]] = set()

    def of(self, event: CallStarted) -> Target:
        """The target of a call."""
        key = (event.operation, event.url, event.signed)
        target = self._known.get(key)
        if target is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            target = self._known[key] = self._without_too_many_hosts(_target(event), signed=event.signed)
        return target

    def _without_too_many_hosts(self, target: Target, *, signed: bool) -> Target:
        if not signed:
            return target
        host = tuple(target.labels.values())
        if len(self._hosts) < _MOST_HOSTS:
            self._hosts.add(host)
        if host in self._hosts:
            return target
        labels = {name: value for name, value in target.labels.items() if name != names.SERVER_PORT}
        return evolve(target, labels=labels | {names.SERVER_ADDRESS: _OTHER_HOSTS})


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
