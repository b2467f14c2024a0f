"""Where an iteration over pages stands, as a value: saved, sent, and handed in again with ``resume_from=``."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["PageCursor", "digest"]

_VERSION = 1
MOST_AHEAD = 1_000
"""The most pages that an iteration by completion hands out beyond the first one that is still missing."""


def digest(*parts: object) -> str:
    """A short fingerprint, 64 bits in hexadecimal, of values that ``repr`` tells apart."""
    return blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _no_pages() -> frozenset[int]:
    return frozenset()


@frozen(kw_only=True)
class PageCursor:
    """Where an iteration can go on. Immutable; it pickles, and ``to_json()`` is a few hundred bytes, whatever was read.

    It holds no customer and no secret. It fits the very query that it is from, at the same address of the service,
    and is refused by any other.

    Attributes:
        query: a fingerprint of what was asked for.
        page: the first page that was not handed out as a whole, as the service counts.
        items: how many items of that page were handed out.
        ahead: pages beyond it that were handed out as a whole, by an iteration in the order of completion.
        total: how many pages there were at the start; ``None`` if that is not known.
        last: a fingerprint of the item handed out last, in the order of pages; by it, a shift is noticed when the
            iteration goes on. ``None`` if items cannot be told apart.
    """

    query: str
    page: int
    items: int = 0
    ahead: frozenset[int] = field(factory=_no_pages)
    total: int | None = None
    last: str | None = None

    def after(self, page: int, last: str | None) -> Self:
        """The cursor once one more page was handed out as a whole."""
        if page != self.page:
            return evolve(self, ahead=self.ahead | {page}, last=None)
        following = page + 1
        while following in self.ahead:
            following += 1
        left = frozenset(number for number in self.ahead if number > following)
        return evolve(self, page=following, items=0, ahead=left, last=last if following == page + 1 else None)

    def to_json(self) -> str:
        """The cursor as one line of JSON."""
        bits = sum(1 << (number - self.page - 1) for number in self.ahead)
        parts = {"v": _VERSION, "query": self.query, "page": self.page, "items": self.items, "ahead": f"{bits:x}"}
        return json.dumps(parts | {"total": self.total, "last": self.last}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The cursor that ``to_json()`` wrote.

        Raises:
            TypeError: ``text`` is no text.
            ValueError: it is not a cursor, or one of a version that this package does not know.
        """
        if not isinstance(text, str | bytes):
            raise TypeError(f"A cursor is read from text, not from {type(text).__name__}.")
        try:
            parts = json.loads(text)
        except ValueError:
            parts = None
        if not isinstance(parts, dict) or "v" not in parts:
            raise ValueError("This is no cursor: pass what to_json() gave.")
        found = cast("dict[str, Any]", parts)
        if found["v"] != _VERSION:
            raise ValueError(f"The cursor is of version {found['v']!r}; this package knows version {_VERSION}.")
        problem = next(_problems(found), None)
        if problem is not None:
            raise ValueError(f"The cursor is damaged: {problem}.")
        bits, page = int(found["ahead"], 16), found["page"]
        ahead = frozenset(page + 1 + index for index in range(bits.bit_length()) if bits >> index & 1)
        return cls(
            query=found["query"],
            page=page,
            items=found["items"],
            ahead=ahead,
            total=found["total"],
            last=found["last"],
        )


def _problems(parts: dict[str, Any]) -> Iterator[str]:
    for name in ("page", "items", "total"):
        value = parts.get(name)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not whole and not (name == "total" and value is None and "total" in parts):
            yield f"{name} is no whole number"
    for name in ("query", "last"):
        if not isinstance(parts.get(name), str) and not (name == "last" and parts.get(name) is None):
            yield f"{name} is no text"
    ahead = parts.get("ahead")
    try:
        usable = isinstance(ahead, str) and len(ahead) <= MOST_AHEAD and int(ahead, 16) >= 0
    except ValueError:
        usable = False
    if not usable:
        yield "ahead is no set of pages"
