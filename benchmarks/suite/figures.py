"""What a benchmark finds: figures with their spread, in tables, charts and goals. Plain values, kept as JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import cattrs
from attrs import field, frozen

__all__ = [
    "Bar",
    "Cell",
    "Chart",
    "Figure",
    "Goal",
    "Outcome",
    "Table",
    "from_json",
    "median_of",
    "ratio",
    "short",
    "to_json",
]


def short(value: float) -> str:
    """Three digits that count."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


@frozen
class Figure:
    """The median of several rounds, and the least and the most."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        if self.rounds == 1:
            return short(self.median)
        return f"{short(self.median)} ({short(self.low)} to {short(self.high)})"

    def times(self, factor: float) -> Figure:
        """The same in another unit."""
        low, high = sorted((self.low * factor, self.high * factor))
        return Figure(self.median * factor, low, high, self.rounds)


Cell: TypeAlias = Figure | str


def median_of(values: Iterable[float]) -> Figure:
    """The figure of several rounds."""
    rounds = sorted(values)
    return Figure(statistics.median(rounds), rounds[0], rounds[-1], len(rounds))


def ratio(above: Sequence[float], below: Sequence[float]) -> Figure:
    """The figure of the ratios of each round: what disturbs a round disturbs both."""
    return median_of(mine / theirs for mine, theirs in zip(above, below, strict=True))


@frozen(kw_only=True)
class Table:
    """Columns with names, and rows of text and figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@frozen
class Bar:
    """One line of a chart."""

    name: str
    figure: Figure


@frozen(kw_only=True)
class Chart:
    """Bars, the longest as long as the chart."""

    file: str
    title: str
    unit: str
    bars: Sequence[Bar]


@frozen(kw_only=True)
class Goal:
    """What was to be reached, and what was."""

    key: str
    text: str
    sign: Literal[">=", "<="]
    bound: float
    unit: str = ""
    figure: Figure | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """``None`` if it was not measured."""
        if self.figure is None:
            return None
        return self.figure.median >= self.bound if self.sign == ">=" else self.figure.median <= self.bound

    @property
    def verdict(self) -> str:
        """Whether it was met, and whether all rounds say so."""
        if self.figure is None:
            return "not measured"
        across = self.figure.low < self.bound < self.figure.high
        if self.met:
            return "met, not in every round" if across else "met"
        return "not met, but in some rounds" if across else "not met"

    @property
    def wanted(self) -> str:
        """The bound as a reader writes it."""
        return f"{'≥' if self.sign == '>=' else '≤'} {self.bound:g}{self.unit}"


@frozen(kw_only=True)
class Outcome:
    """All that one benchmark found.

    ``about`` says what was done. ``samples`` are the rounds that the figures are made of, by what was measured.
    """

    about: str
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    goals: Sequence[Goal] = ()
    notes: Sequence[str] = ()
    samples: Mapping[str, Sequence[float]] = field(factory=dict)


_converter = cattrs.Converter()
_converter.register_structure_hook(Cell, lambda value, _: value if isinstance(value, str) else Figure(**value))
_converter.register_unstructure_hook(float, lambda value: float(f"{value:.5g}"))


def to_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome in types that JSON has."""
    plain: dict[str, Any] = _converter.unstructure(outcome)
    return plain


def from_json(plain: Mapping[str, Any]) -> Outcome:
    """The outcome that was kept."""
    return _converter.structure(plain, Outcome)
