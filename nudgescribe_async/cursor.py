"""Where an iteration over pages stands, as a value: saved, sent, and handed in again with ``resume_from=``."""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["PageCursor", "digest"]

_VERSION = 1
MOST_AHEAD = 1_000
"""How far an iteration in the order of completion goes beyond the first page that is still missing, in pages."""


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
        ahead: pages beyond it that were handed out as a whole, by an iteration in the order of completion.
        part: a page of which some items were handed out: its number, and how many of them.
        total: how many pages there were at the start; ``None`` if that is not known.
        last: a fingerprint of the item handed out last, in the order of pages; by it, a shift is noticed when the
            iteration goes on. ``None`` if items cannot be told apart.
        tail: a fingerprint of what the last page was at the start; ``None`` if nobody looked.
    """

    query: str
    page: int
    ahead: frozenset[int] = field(factory=_no_pages)
    part: tuple[int, int] | None = None
    total: int | None = None
    last: str | None = None
    tail: str | None = None

    def after(self, page: int, last: str | None) -> Self:
        """The cursor once one more page was handed out as a whole."""
        part = None if self.part is None or self.part[0] == page else self.part
        if page != self.page:
            return evolve(self, ahead=self.ahead | {page}, part=part, last=None)
        following = page + 1
        if not self.ahead:  # nearly always; and cheaper than ``evolve``
            return type(self)(query=self.query, page=following, part=part, total=self.total, last=last, tail=self.tail)
        while following in self.ahead:
            following += 1
        left = frozenset(number for number in self.ahead if number > following)
        last = last if following == page + 1 and not left else None
        return evolve(self, page=following, ahead=left, part=part, last=last)

    def within(self, page: int, items: int, last: str | None) -> Self:
        """The cursor once so many items of a page were handed out."""
        return evolve(self, part=(page, items), last=last if page == self.page and not self.ahead else None)

    def has(self, page: int) -> bool:
        """Whether a page was handed out as a whole."""
        return page < self.page or page in self.ahead

    def to_json(self) -> str:
        """The cursor as one line of JSON."""
        bits = sum(1 << (number - self.page - 1) for number in self.ahead)
        where = {"page": self.page, "ahead": f"{bits:x}", "part": self.part}
        parts = {"v": _VERSION, "query": self.query, **where, "total": self.total, "last": self.last, "tail": self.tail}
        return json.dumps(parts, separators=(",", ":"))

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
        bits, page, part = int(found["ahead"], 16), found["page"], found["part"]
        return cls(
            query=found["query"],
            page=page,
            ahead=frozenset(page + 1 + index for index in range(bits.bit_length()) if bits >> index & 1),
            part=None if part is None else (part[0], part[1]),
            total=found["total"],
            last=found["last"],
            tail=found["tail"],
        )


def _problems(parts: dict[str, Any]) -> Iterator[str]:
    missing = {"query", "page", "ahead", "part", "total", "last", "tail"} - parts.keys()
    if missing:
        yield f"it lacks {', '.join(sorted(missing))}"
        return
    if not _is_whole(parts["page"]):
        yield "page is no whole number"
    if parts["total"] is not None and not _is_whole(parts["total"]):
        yield "total is no whole number"
    part = parts["part"]
    if part is not None and not (
        isinstance(part, list) and [*map(_is_whole, cast("list[object]", part))] == [True] * 2
    ):
        yield "part is no page with a number of items"
    if not isinstance(parts["query"], str):
        yield "query is no text"
    for name in ("last", "tail"):
        if parts[name] is not None and not isinstance(parts[name], str):
            yield f"{name} is no text"
    ahead = parts["ahead"]
    if not isinstance(ahead, str) or len(ahead) > MOST_AHEAD or re.fullmatch("[0-9a-f]+", ahead) is None:
        yield "ahead is no set of pages"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
