"""What a benchmark is given: the crew, how much of everything, and somebody to tell."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from attrs import field, frozen
from server import Settings

from suite.contender import CONCURRENCY
from suite.crew import Cost, Crew, interleaved
from suite.entrants import ENTRANTS

__all__ = ["WITHOUT_SNIFFIO", "Context", "titles"]

WITHOUT_SNIFFIO = "The package 'sniffio' is not installed: httpx is a quarter slower than it could be."


@frozen(kw_only=True)
class Context:
    """Of one run of one benchmark.

    Attributes:
        name: of the benchmark.
        crew: does the work.
        small: whether it is only to be shown that it works.
        rounds: how many; what each benchmark thinks right if ``None``.
        notes: what a reader should know; to be added to.
    """

    name: str
    crew: Crew
    small: bool
    rounds: int | None
    notes: list[str] = field(factory=list)

    def turns(self, usual: int) -> int:
        """How many rounds."""
        return 1 if self.small else self.rounds if self.rounds is not None else usual

    def amount(self, usual: int, small: int) -> int:
        """How much work."""
        return small if self.small else usual

    def tell(self, sentence: str) -> None:
        """Say what is going on, to who watches."""
        if sys.stderr.isatty():
            print(f"\r\033[K{self.name}: {sentence}", end="", file=sys.stderr, flush=True)

    def present(self, names: Sequence[str]) -> list[str]:
        """Those whose packages are installed; of what is amiss it is noted."""
        here = self.crew.present(names, self.notes)
        slower = find_spec("sniffio") is None and any("httpx" in ENTRANTS[name].packages for name in here)
        if slower and WITHOUT_SNIFFIO not in self.notes:
            self.notes.append(WITHOUT_SNIFFIO)
        return here

    def installed(self, package: str) -> bool:
        """Whether there is such a package; if not, it is noted what that means."""
        if find_spec(package) is not None:
            return True
        self.notes.append(f"What needs the package {package!r} is left out: it is not installed.")
        return False

    def read(
        self, names: Sequence[str], settings: Settings, rounds: int, *, check: bool = True
    ) -> tuple[dict[str, list[Cost]], str]:
        """Have everybody read all pages, interleaved; the costs, and how busy the server was.

        Each opens its connections before each round.

        Args:
            names: of the entrants.
            settings: of the server.
            rounds: how many.
            check: whether each reads once before with a look at all ids.
        """
        crew = self.crew
        url = crew.serve(settings)
        size: dict[str, Any] = {"pages": settings.pages, "records": settings.records}
        for name in names if check else ():
            self.tell(f"checking {ENTRANTS[name].title}")
            crew.ask(name, url, "check", **size)
        busy: dict[str, float] = {}

        def work(name: str) -> Callable[[], Cost]:
            def read() -> Cost:
                crew.ask(name, url, "callers", callers=CONCURRENCY, times=CONCURRENCY)
                cost, share = crew.watched(lambda: crew.ask(name, url, "read", **size))
                busy[name] = max(share, busy.get(name, 0.0))
                return cost

            return read

        costs = interleaved({name: work(name) for name in names}, rounds, self.tell)
        most = max(busy, key=lambda name: busy[name])
        share = f"The server was busy for {busy[most]:.0%} of the time at most (with {ENTRANTS[most].title})."
        return costs, share


def titles(names: Sequence[str]) -> list[str]:
    """As in tables."""
    return [ENTRANTS[name].title for name in names]
