"""Pages by offset are no snapshot. What shows that the set changed while its pages were read.

If an item is added or removed in front of the pages that are still to come, everything behind it shifts: an item comes
twice, or is missed. What comes twice can be seen; what was missed cannot, only that something moved. So a clean report
says that no change was noticed, and never that there was none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CONSISTENCIES", "Consistency", "PageReport", "Watch"]

T = TypeVar("T")

Consistency: TypeAlias = Literal["warn", "dedupe", "strict"]
CONSISTENCIES: tuple[Consistency, ...] = ("warn", "dedupe", "strict")

NEAR = 16
"""How many pages back ``"warn"`` remembers at least which items came: where shifting offsets put a repetition."""


@frozen(kw_only=True)
class PageReport:
    """What an iteration over pages has read, and what it noticed of changes meanwhile.

    Attributes:
        operation: what was paged.
        consistency: what it was to do about changes.
        pages: how many pages were handed out, by this iteration.
        items: how many items were handed out, by this iteration.
        total: how many pages there were at the start; for one that was resumed, at the start of the first.
        total_at_resumption: how many there were when this iteration began, if it was resumed.
        total_at_end: how many there were at the end; ``None`` before that, or if the number could not be had.
        complete: whether it came to the end.
        repeated: how many items came that had come before. With ``"warn"``, of those near each other.
        short_pages: how many pages were shorter than others, without being the last.
        empty_pages: how many pages were empty that ought not to be.
        uncounted_pages: how many pages had items, though the service had said that there are none.
        last_page_changed: whether the last page was another one when its turn came than it had been at the start.
        moved: whether the items were no longer where the cursor said, when it was resumed.
        seconds: since the first request.
    """

    operation: str
    consistency: Consistency
    pages: int = 0
    items: int = 0
    total: int | None = None
    total_at_resumption: int | None = None
    total_at_end: int | None = None
    complete: bool = False
    repeated: int = 0
    short_pages: int = 0
    empty_pages: int = 0
    uncounted_pages: int = 0
    last_page_changed: bool = False
    moved: bool = False
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.seconds if self.seconds > 0 else 0.0

    @property
    def drift(self) -> tuple[str, ...]:
        """What was noticed of changes, each a sentence; empty if nothing was, which does not prove that there was none."""
        return tuple(self._sentences())

    def _sentences(self) -> Iterable[str]:
        if self.repeated:
            at_least = "At least " if self.consistency == "warn" else ""
            left_out = ", and were left out" if self.consistency == "dedupe" else ""
            yield f"{at_least}{_counted(self.repeated, 'item')} came more than once{left_out}."
        if self.short_pages:
            yield f"{_counted(self.short_pages, 'page')} had fewer items than others, without being the last."
        if self.empty_pages:
            yield f"{_counted(self.empty_pages, 'page')} had no items, though more were expected."
        if self.last_page_changed:
            yield "The last page was another one at the end than at the start."
        if self.moved:
            yield "The items had moved when the iteration was resumed."
        if self.uncounted_pages:
            yield f"{_counted(self.uncounted_pages, 'page')} had items, though the service had said that there are none."
        yield from self._totals()

    def _totals(self) -> Iterable[str]:
        before, when = self.total or 0, "at the start"
        resumed, ended = self.total_at_resumption, self.total_at_end
        if resumed is not None and resumed != before:
            yield f"There were {_counted(before, 'page')} at the start, and {resumed:,} when it was resumed."
            before, when = resumed, "when it was resumed"
        if ended is not None and ended != before:
            yield f"There were {_counted(before, 'page')} {when}, and {ended:,} at the end."

    def __str__(self) -> str:
        read = f"{self.operation}: {_counted(self.items, 'item')} on {_counted(self.pages, 'page')}"
        state = "" if self.complete else ", not to the end"
        noticed = " ".join(self.drift) or "No change was noticed meanwhile."
        return f"{read}{state}. {noticed}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


@define
class Watch(Generic[T]):
    """Looks at each page before it is handed out.

    Args:
        consistency: what to do about items that came before.
        identify: tells items apart; ``None`` if they cannot be.
        even: whether all pages but the last have the same number of items.
    """

    consistency: Consistency
    identify: Callable[[T], str] | None
    even: bool
    repeated: int = 0
    short_pages: int = 0
    empty_pages: int = 0
    uncounted_pages: int = 0
    last_page_changed: bool = False
    moved: bool = False
    nothing_new: bool = False
    """Whether all items of the page that was looked at last came before."""
    noticed: list[tuple[str, str]] = field(factory=list[tuple[str, str]])
    """What is new: its kind, and a sentence."""
    _seen: set[str] = field(factory=set[str])
    _before: set[str] = field(factory=set[str])
    """With ``"warn"``, what came on the last ``NEAR`` pages before those of ``_seen``, which are as many at most."""
    _pages_seen: int = 0
    _sizes: Counter[int] = field(factory=Counter[int])
    """How many pages there were of each size."""
    _last: tuple[int, int] = (-1, 0)
    """The number and size of the page that may be short, since none comes after it."""

    def look(self, number: int, items: Collection[T], *, last: bool | None) -> Sequence[int] | None:
        """Take note of a page; and which of its items are to be handed out.

        Args:
            number: the page.
            items: its items.
            last: whether it is the last one; ``None`` if only the page after it will tell.

        Returns:
            Where they stand on the page; ``None`` for all of them.
        """
        if not items:
            self.empty_pages += 1
            self._notice("empty", f"Page {number} has no items, though more were expected.")
        elif self.even:
            self._compare_sizes(number, len(items), last=last)
        if self.identify is None or not items:
            return None
        ids = [*map(self.identify, items)]
        size = len(self._seen)
        if self.consistency != "dedupe" and self._before.isdisjoint(ids):
            # One look at each id, if all are new, as they nearly always are.
            self._seen.update(ids)
            again = len(ids) - (len(self._seen) - size)
            first_ones = None
        else:
            new = set(ids) - self._seen - self._before
            again = len(ids) - len(new)
            first_ones = _first_ones(ids, set(new)) if again and self.consistency == "dedupe" else None
            self._seen.update(ids)
        self._forget()
        self.nothing_new = again == len(ids)
        if again:
            self.repeated += again
            self._notice("repeated", f"{_counted(again, 'item')} of page {number} came before.")
        return first_ones

    def remember(self, items: Collection[T]) -> None:
        """Know items that were handed out by an earlier iteration."""
        if self.identify is not None:
            self._seen.update(map(self.identify, items))
            self._forget()

    def found_moved(self) -> None:
        """Items are not where the cursor says."""
        self.moved = True
        self._notice("moved", "The items have moved since the cursor was made.")

    def compare_tails(self, before: str, now: str) -> None:
        """Compare the last page with what it was at the start."""
        if now != before:
            self.last_page_changed = True
            self._notice("tail", "The last page is not the one that it was at the start.")

    def found_uncounted(self) -> None:
        """There are items, and the service has said that there are no pages."""
        if not self.uncounted_pages:
            self._notice("uncounted", "There are items, though the service has said that there are no pages.")
        self.uncounted_pages += 1

    def compare_totals(self, before: int, now: int) -> None:
        """Compare the number of pages with what it was at the start."""
        if now != before:
            self._notice("total", f"There were {_counted(before, 'page')} at the start, and now there are {now:,}.")

    def _forget(self) -> None:
        """A page was seen: with ``"warn"``, what came long before it is forgotten."""
        if self.consistency == "warn":
            self._pages_seen += 1
            if self._pages_seen == NEAR:
                self._before, self._seen, self._pages_seen = self._seen, set(), 0

    def _compare_sizes(self, number: int, size: int, *, last: bool | None) -> None:
        self._sizes[size] += 1
        if last or (last is None and number > self._last[0]):
            self._last = number, size
        full = max(self._sizes)
        short = sum(pages for known, pages in self._sizes.items() if known < full) - (0 < self._last[1] < full)
        if short > self.short_pages:
            what = f"others {full:,}, and it is not the last" if size < full else "and pages before it had fewer"
            self._notice("short", f"Page {number} has {size:,} items, {what}.")
        self.short_pages = short

    def _notice(self, kind: str, sentence: str) -> None:
        self.noticed.append((kind, sentence))


def _first_ones(ids: list[str], new: set[str]) -> list[int]:
    where = list[int]()
    for position, known_as in enumerate(ids):
        if known_as in new:
            new.discard(known_as)
            where.append(position)
    return where
