"""Faults that are switched on and off by a click, and the list of all that may still happen."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from attrs import frozen

from nudgescribe_async.sandbox.faults import (
    BadAnswer,
    Delay,
    LoseAnswer,
    LoseRequest,
    RateLimit,
    RefuseToken,
    SandboxFault,
    ShiftPages,
    Status,
)
from nudgescribe_async.sandbox.page import forms

if TYPE_CHECKING:
    from nudgescribe_async.injection import Injection
    from nudgescribe_async.sandbox.trouble import Trouble


@frozen(kw_only=True)
class Switch:
    """A fault that is ready to be switched on, for any operation, until it is switched off."""

    name: str
    label: str
    fault: SandboxFault
    share: float = 1.0


_FIFTH = 0.2
_HTML = b"<!doctype html><title>Gateway</title><p>Please log in to the network."
SWITCHES = (
    Switch(
        name="unavailable", label="Unavailable: 503, and Retry-After of one second", fault=Status(503, retry_after=1)
    ),
    Switch(name="errors", label="Every fifth request fails with 500", fault=Status(500), share=_FIFTH),
    Switch(name="slow", label="Every answer is two seconds late", fault=Delay(2)),
    Switch(name="rate-limit", label="At most five requests a second, then 429", fault=RateLimit(5, 1)),
    Switch(name="lost-answers", label="Every fifth answer is lost; the work is done", fault=LoseAnswer(), share=_FIFTH),
    Switch(
        name="lost-requests", label="Every fifth request is lost; nothing is done", fault=LoseRequest(), share=_FIFTH
    ),
    Switch(name="tokens", label="Every fifth token is refused", fault=RefuseToken(), share=_FIFTH),
    Switch(name="nonsense", label="Every fifth answer is HTML", fault=BadAnswer(_HTML), share=_FIFTH),
    Switch(name="shift", label="Pages of customers shift with each that is read", fault=ShiftPages(1)),
)
_BY_NAME = {switch.name: switch for switch in SWITCHES}


@frozen(kw_only=True)
class Position:
    """A switch as it stands: how often its fault has happened, or ``None`` if it is off."""

    switch: Switch
    fired: int | None


@frozen(kw_only=True)
class Active:
    """A fault that may still happen."""

    number: int
    fault: str
    operation: str | None
    plan: str
    fired: int


class Switchboard:
    """What was switched on here, and numbers by which anything can be removed."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self._on: dict[str, Injection[SandboxFault]] = {}
        self._numbers: WeakKeyDictionary[Injection[SandboxFault], int] = WeakKeyDictionary()
        self._count = count(1)

    @property
    def operations(self) -> list[str]:
        """What a fault can be limited to."""
        return sorted(self._trouble.operations)

    def positions(self) -> list[Position]:
        """All switches."""
        active = set(self._trouble.injections)
        on = {name: injection.fired for name, injection in self._on.items() if injection in active}
        return [Position(switch=switch, fired=on.get(switch.name)) for switch in SWITCHES]

    def active(self) -> list[Active]:
        """All that may still happen, whoever has injected it, oldest first."""
        return [
            Active(
                number=self._number(injection),
                fault=forms.notation(injection.fault),
                operation=injection.operation,
                plan=forms.plan(injection),
                fired=injection.fired,
            )
            for injection in self._trouble.injections
        ]

    def state(self) -> tuple[tuple[int, int], ...]:
        """Something that is different after anything that ``active`` shows has changed."""
        return tuple((self._number(injection), injection.fired) for injection in self._trouble.injections)

    def switch(self, name: str, *, on: bool) -> str:
        """Switch one on or off, whatever it is now. What was done, in words.

        Raises:
            FormError: there is no such switch.
        """
        switch = _BY_NAME.get(name)
        if switch is None:
            raise forms.FormError("There is no such switch.")
        before = self._on.pop(name, None)
        if before is not None:
            before.remove()
        if on:
            self._on[name] = self._trouble.inject(
                switch.fault, operation=None, times=None, skip=0, share=switch.share, seconds=None
            )
        return f"Switched {'on' if on else 'off'}: {switch.label}."

    def inject(self, values: forms.Values) -> str:
        """Make a fault as it was entered. What was done, in words.

        Raises:
            FormError: what was entered cannot be right.
        """
        order = forms.read(values)
        try:
            self._trouble.inject(
                order.fault,
                operation=order.operation,
                times=order.times,
                skip=order.skip,
                share=order.share,
                seconds=order.seconds,
            )
        except ValueError as error:
            raise forms.FormError(f"{error}") from None
        return f"Added: {forms.notation(order.fault)}."

    def remove(self, number: str) -> str:
        """Remove one; that it is gone already is no error. What was done, in words."""
        for injection in self._trouble.injections:
            if str(self._number(injection)) == number:
                injection.remove()
                return f"Removed: {forms.notation(injection.fault)}."
        return "It had ended already."

    def clear(self) -> str:
        """End all. What was done, in words."""
        self._trouble.clear()
        return "All faults have ended."

    def _number(self, injection: Injection[SandboxFault]) -> int:
        if injection not in self._numbers:
            self._numbers[injection] = next(self._count)
        return self._numbers[injection]
