"""What pages say of how they are counted: pure decisions over what the pages of one set looked like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from nudgescribe_async.contract_doctor.report import Difference

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Discrepancy", "Page", "first_page", "judge", "wanted"]


@frozen
class Page:
    """What came for the number of a page.

    Attributes:
        marks: something by which its items are known again; empty if it has none, or was refused.
        size: how many items it has; ``None`` where that is not to be seen.
    """

    marks: tuple[str, ...] = field(repr=False)
    size: int | None = None

    @property
    def filled(self) -> bool:
        """Whether it has items."""
        return bool(self.marks)


@frozen
class Discrepancy:
    """How the pages differ from what the contract says of them."""

    kind: Difference
    expected: str
    received: str


def first_page(pages: Mapping[int, Page]) -> int | None:
    """The number of the first page, by what came for 0 and 1; ``None`` if nothing tells."""
    zero, one = pages[0], pages[1]
    if zero.filled:
        # Some services take 0 for the first page, too.
        return 1 if zero.marks == one.marks else 0
    return 1 if one.filled else None


def wanted(first: int, count: int) -> tuple[int, ...]:
    """The pages that tell the rest: the first two full ones, the last, and the one behind it."""
    numbers = {first, first + count - 1, first + count}
    return tuple(sorted(numbers | {first + 1} if count > 2 else numbers))


def judge(pages: Mapping[int, Page], *, first: int, stated: int, count: int) -> list[Discrepancy]:
    """What is wrong with pages.

    Args:
        pages: what came, by number: 0, 1 and those of ``wanted``.
        first: where they begin.
        stated: where they begin according to the contract.
        count: how many there are according to the service.
    """
    found: list[Discrepancy] = []
    if first != stated:
        found.append(Discrepancy(Difference.PAGE_BASE, f"{stated} as the first page", f"{first} as the first page"))
    own = {number: page for number, page in pages.items() if number >= first and page.filled}
    marks = [mark for page in own.values() for mark in set(page.marks)]
    if len(set(marks)) < len(marks):
        found.append(Discrepancy(Difference.PAGES_REPEATED, "other items on each page", "the same items on several"))
        return found
    last, behind = pages[first + count - 1], pages[first + count]
    if not last.filled:
        found.append(Discrepancy(Difference.PAGE_COUNT, f"{count:,} pages, as the service says", "fewer"))
    elif behind.filled:
        found.append(Discrepancy(Difference.PAGE_COUNT, f"{count:,} pages, as the service says", "more"))
    full = [page.size for number, page in own.items() if page.size is not None and number < first + count - 1]
    rest = last.size if last.filled else None
    if len(set(full)) > 1 or (full and rest is not None and rest > full[0]):
        sizes = sorted({size for size in [*full, rest] if size is not None})
        found.append(
            Discrepancy(
                Difference.PAGE_SIZE,
                "pages of one size, the last perhaps shorter",
                f"pages of {', '.join(map(str, sizes))}",
            )
        )
    return found
