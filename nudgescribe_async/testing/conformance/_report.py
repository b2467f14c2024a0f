"""All rules over one transport, and what came of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from nudgescribe_async.testing.conformance._values import BrokenPromiseError, NotApplicableError, TransportFactory

if TYPE_CHECKING:
    from nudgescribe_async.testing.conformance._rule import Rule

__all__ = ["ConformanceReport", "Verdict", "check_rules"]


@frozen(kw_only=True)
class Verdict:
    """What came of one rule.

    Attributes:
        rule: the rule.
        outcome: whether it is kept.
        reason: what came instead, or why it does not apply.
        error: what the rule raised.
    """

    rule: Rule
    outcome: Literal["kept", "broken", "not applicable"]
    reason: str = ""
    error: BrokenPromiseError | None = field(default=None, repr=False)


@frozen
class ConformanceReport:
    """What came of all rules. Its text names every rule that is broken, and why; it is true if there is none.

    ::

        report = await check_transport(make)
        assert report, report

    Attributes:
        verdicts: one for each rule, in their order.
    """

    verdicts: tuple[Verdict, ...]

    def __bool__(self) -> bool:
        return not self.broken

    @property
    def kept(self) -> tuple[Verdict, ...]:
        """The rules that the transport keeps."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome == "kept")

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The rules that it breaks."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome == "broken")

    @property
    def not_applicable(self) -> tuple[Verdict, ...]:
        """The rules about what it cannot do, and says so."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome == "not applicable")

    def __str__(self) -> str:
        counts = f"{len(self.kept)} kept, {len(self.broken)} broken, {len(self.not_applicable)} not applicable"
        lines = [f"{len(self.verdicts)} rules: {counts}."]
        for verdict in self.broken:
            lines += ["", f"broken: {verdict.rule.name}", _indented(verdict.rule.promise), _indented(verdict.reason)]
        if self.not_applicable:
            lines += ["", "not applicable:"]
            lines += [f"  {verdict.rule.name}: {verdict.reason}" for verdict in self.not_applicable]
        return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


async def check_rules(factory: TransportFactory, rules: Iterable[Rule], patience: float) -> ConformanceReport:
    """One rule after the other."""
    return ConformanceReport(tuple([await _verdict(rule, factory, patience) for rule in rules]))


async def _verdict(rule: Rule, factory: TransportFactory, patience: float) -> Verdict:
    try:
        await rule.check(factory, patience=patience)
    except BrokenPromiseError as error:
        return Verdict(rule=rule, outcome="broken", reason=str(error).partition("\n")[2], error=error)
    except NotApplicableError as reason:
        return Verdict(rule=rule, outcome="not applicable", reason=str(reason))
    return Verdict(rule=rule, outcome="kept")
