"""Which requests a fault befalls, and which operations there are to name.

Shared by the sandbox and the tools for tests. Knows neither of them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from difflib import get_close_matches
from types import EllipsisType
from typing import Generic, TypeVar

from attrs import define, field

from nudgescribe_async.arguments import check_number, check_whole

__all__ = ["FaultPlan", "Injection", "check_operation"]

F = TypeVar("F")


def check_operation(operation: object, known: Collection[str]) -> None:
    """Refuse what names no operation: whoever counts the requests of one that there is not, counts 0 for ever.

    Raises:
        TypeError: it is no text.
        ValueError: there is none of that name.
    """
    if not isinstance(operation, str):
        raise TypeError(f'operation must be a text such as "customers.list", not {type(operation).__name__}.')
    if operation not in known:
        close = get_close_matches(operation, sorted(known))
        hint = f"Perhaps {' or '.join(close)}?" if close else f"There are: {', '.join(sorted(known))}."
        raise ValueError(f"There is no operation {operation!r}. {hint}")


@define(kw_only=True, eq=False)
class Injection(Generic[F]):
    """One fault, and which requests it befalls.

    Attributes:
        fault: what goes wrong.
        operation: only with this operation; ``None`` for any.
        times: how often at most; ``None`` for ever.
        skip: how many requests that it would befall are spared first.
        share: the probability with which it befalls each of them, above 0 and up to 1.
        seconds: how long it lasts from the moment it was injected; ``None`` for ever.
        fired: how often it has happened.
    """

    fault: F
    operation: str | None
    times: int | None
    skip: int
    share: float
    seconds: float | None
    fired: int = 0
    _ends: float | None = field(default=None, repr=False, alias="ends")
    _remove: Callable[[Injection[F]], None] = field(repr=False, alias="remove")

    def remove(self) -> None:
        """End it. May be called more than once."""
        self._remove(self)

    @property
    def over(self) -> bool:
        """Whether it will not happen any more by itself."""
        done = self.times is not None and self.fired >= self.times
        return done or (self._ends is not None and time.monotonic() >= self._ends)


class FaultPlan(Generic[F]):
    """The faults that are to happen, in the order in which they were injected.

    Args:
        operations: the names that ``operation`` may have.
        kinds: what a fault may be.
        seed: for ``share``, so that a run can be repeated.
    """

    def __init__(self, *, operations: Collection[str], kinds: tuple[type[F], ...], seed: int | None = None) -> None:
        self._operations = operations
        self._kinds = kinds
        self._random = random.Random(seed)  # noqa: S311 - chooses requests, keeps no secret
        self._injections: list[Injection[F]] = []

    def inject(
        self,
        fault: F,
        *,
        operation: str | None = None,
        times: int | EllipsisType | None = ...,
        skip: int = 0,
        share: float = 1.0,
        seconds: float | None = None,
    ) -> Injection[F]:
        """Let a fault happen.

        Args:
            fault: what is to go wrong.
            operation: only with this operation, such as ``"customers.list"``; left out: with any.
            times: how often at most; ``None`` for ever. Left out: once, or what the kind of fault has as its
                ``default_times``.
            skip: how many requests are spared first.
            share: the probability with which it happens each time.
            seconds: how long it lasts from now on; left out: until it has happened ``times`` times.

        Returns:
            The injection: ``fired`` counts, ``remove()`` ends it.

        Raises:
            TypeError: ``fault`` is no fault, or another argument is of the wrong type.
            ValueError: there is no such operation, or a number cannot be right.
        """
        if not isinstance(fault, self._kinds):
            known = ", ".join(kind.__name__ for kind in self._kinds)
            raise TypeError(f"fault must be one of {known}; got {type(fault).__name__}.")
        if operation is not None:
            check_operation(operation, self._operations)
        if isinstance(times, EllipsisType):
            default: int | None = getattr(fault, "default_times", 1)
            times = default
        if times is not None:
            check_whole("times", times, "a whole number, 1 or more, or None for ever", least=1)
        check_whole("skip", skip, "a whole number, 0 or more", least=0)
        check_number("share", share, "a number above 0 and up to 1", above=0, most=1)
        if seconds is not None:
            check_number("seconds", seconds, "a number above 0 and finite, or None for ever", above=0)
        injection = Injection(
            fault=fault,
            operation=operation,
            times=times,
            skip=skip,
            share=share,
            seconds=seconds,
            ends=None if seconds is None else time.monotonic() + seconds,
            remove=self._remove,
        )
        self._injections.append(injection)
        return injection

    @property
    def injections(self) -> tuple[Injection[F], ...]:
        """Those that may still happen, oldest first."""
        self._injections = [injection for injection in self._injections if not injection.over]
        return tuple(self._injections)

    def clear(self) -> None:
        """End all."""
        self._injections.clear()

    def take(
        self, operation: str | None, *kinds: type[F], when: Callable[[Injection[F]], bool] | None = None
    ) -> F | None:
        """The fault that befalls a request, if any: the first that applies.

        Args:
            operation: what is requested; ``None`` if it is no operation.
            kinds: only faults of these; all if left out.
            when: only if this says so, of those that apply otherwise. Asked before ``share`` and ``skip``.
        """
        for injection in self.injections:
            if injection.operation not in {None, operation} or (kinds and not isinstance(injection.fault, kinds)):
                continue
            if when is not None and not when(injection):
                continue
            if injection.share < 1 and self._random.random() >= injection.share:
                continue
            if injection.skip > 0:
                injection.skip -= 1
                continue
            injection.fired += 1
            return injection.fault
        return None

    def _remove(self, injection: Injection[F]) -> None:
        if injection in self._injections:
            self._injections.remove(injection)
