"""A rule: what a transport promises, and the scenario that shows whether it keeps it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from attrs import field, frozen

from nudgescribe_async.testing.conformance._bench import Bench, shown
from nudgescribe_async.testing.conformance._certificates import certificates
from nudgescribe_async.testing.conformance._values import (
    BrokenPromiseError,
    Need,
    NotApplicableError,
    TransportFactory,
)

__all__ = ["Rule", "RuleBook"]

Scenario: TypeAlias = Callable[[Bench], Awaitable[None]]


@frozen(kw_only=True)
class Rule:
    """Something that every transport promises.

    Attributes:
        name: its subject and what it is about, such as ``"bodies.every_method"``.
        promise: one sentence.
        needs: what it needs beyond a transport.
    """

    name: str
    promise: str
    needs: frozenset[Need] = frozenset()
    _scenario: Scenario = field(alias="scenario", repr=False, eq=False)

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        """The first part of its name."""
        return self.name.partition(".")[0]

    async def check(self, factory: TransportFactory, *, patience: float = 20.0) -> None:
        """See whether the transports that ``factory`` makes keep it.

        Servers are started on loopback, and are gone when this returns. What a transport has left behind
        after its ``aclose``, a task or a connection, breaks any rule.

        Args:
            factory: makes a transport for given settings.
            patience: seconds after which a transport is taken to hang, which breaks any rule.

        Raises:
            BrokenPromiseError: they do not; the text says what came instead, the cause is what was raised.
            NotApplicableError: they cannot do what the rule is about, and the factory says so.
            ConfigurationError: the rule needs a package that is not installed.
        """
        __tracebackhide__ = True  # pytest shows the test, then, and what was promised
        if Need.TLS in self.needs:
            certificates()
        try:
            async with Bench(factory, self.name) as bench:
                await bench.try_out(self._scenario(bench), patience)
        except BrokenPromiseError as error:
            raise BrokenPromiseError(f"{self.name}: {self.promise}\n{error}") from error.__cause__
        except NotApplicableError:
            raise
        except Exception as error:
            raise BrokenPromiseError(f"{self.name}: {self.promise}\n{shown(error)}") from error


class RuleBook:
    """The rules of one subject, in the order in which they were written down."""

    def __init__(self, subject: str, *needs: Need) -> None:
        self._subject = subject
        self._needs = frozenset(needs)
        self.rules: list[Rule] = []

    def rule(self, promise: str, *needs: Need) -> Callable[[Scenario], Scenario]:
        """Make a rule of a scenario, and call it by the name of its function."""

        def written(scenario: Scenario) -> Scenario:
            name = f"{self._subject}.{getattr(scenario, '__name__', '')}"
            self.rules.append(Rule(name=name, promise=promise, needs=self._needs | {*needs}, scenario=scenario))
            return scenario

        return written
