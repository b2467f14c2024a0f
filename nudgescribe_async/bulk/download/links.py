"""Signed URLs: which may be followed, and until when."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import field, frozen

from nudgescribe_async.address import is_loopback
from nudgescribe_async.shapes import NotPickled, Secret, hidden

if TYPE_CHECKING:
    from nudgescribe_async.endpoints.models import DownloadLink

__all__ = ["Link", "problem_of"]

_UNFIT = re.compile(r"[\x00-\x20\x7f\\]")


@frozen(kw_only=True)
class Link(NotPickled):
    """A signed URL, and until when it is good by the client's clock.

    Attributes:
        url: the URL.
        until: on the clock that never goes back; ``None`` if nobody said.
    """

    url: Secret = field(repr=hidden)
    until: float | None

    @classmethod
    def of(cls, answer: DownloadLink, *, asked: float) -> Link:
        """The link in an answer to what was asked at a moment: its time runs since then at the latest."""
        until = None if answer.expires_in is None else asked + answer.expires_in
        return cls(url=Secret(answer.url), until=until)

    def is_good(self, now: float) -> bool:
        """Whether it is worth a try."""
        return self.until is None or now < self.until


def problem_of(url: str) -> str | None:
    """Why a URL must not be followed, without the URL; ``None`` if it may be."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "its host or port cannot be read"
    if parts.scheme not in ("http", "https") or not host or _UNFIT.search(url):
        return "it is no absolute URL of https"
    if parts.username is not None or parts.password is not None:
        return "it holds a user name or a password"
    if parts.scheme == "http" and not is_loopback(host):
        return "it is plain http, so that others could read along"
    return None
