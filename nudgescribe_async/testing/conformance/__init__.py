"""What every transport promises, as rules that can be tried: on ours, and on yours.

::

    import pytest
    from nudgescribe_async.testing.conformance import RULES

    @pytest.mark.parametrize("rule", RULES, ids=str)
    async def test_my_transport(rule):
        await rule.check(lambda settings: MyTransport())

Every rule sends real requests to servers on loopback that it starts itself, some of which break off, stall or talk
nonsense. A rule that is broken raises an ``AssertionError`` that says what was promised and what came instead; one
about something that a transport says it cannot do is skipped, and never counted as kept. ``docs/writing-a-transport.md``
shows it on a whole transport. Nothing here needs pytest.

One rule at a time in an event loop: some look at all tasks, some change the environment while they run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nudgescribe_async.testing.conformance import (
    _answers,
    _bodies,
    _cancelling,
    _closing,
    _connections,
    _failures,
    _proxies,
    _requests,
    _timeouts,
    _tls,
)
from nudgescribe_async.testing.conformance._report import ConformanceReport, Verdict, check_rules
from nudgescribe_async.testing.conformance._rule import Rule
from nudgescribe_async.testing.conformance._values import (
    BrokenPromiseError,
    Need,
    NotApplicableError,
    TransportFactory,
    TransportSettings,
)

__all__ = [
    "RULES",
    "BrokenPromiseError",
    "ConformanceReport",
    "Need",
    "NotApplicableError",
    "Rule",
    "TransportFactory",
    "TransportSettings",
    "Verdict",
    "check_transport",
]

RULES: Final[tuple[Rule, ...]] = (
    *_requests.BOOK.rules,
    *_bodies.BOOK.rules,
    *_answers.BOOK.rules,
    *_connections.BOOK.rules,
    *_failures.BOOK.rules,
    *_timeouts.BOOK.rules,
    *_cancelling.BOOK.rules,
    *_closing.BOOK.rules,
    *_tls.BOOK.rules,
    *_proxies.BOOK.rules,
)
"""All of them, by subject."""


async def check_transport(
    factory: TransportFactory, *, rules: Iterable[Rule] = RULES, patience: float = 20.0
) -> ConformanceReport:
    """Try the rules on the transports that ``factory`` makes, one after the other.

    Cancelling ends the rule that is under way, closes its transport and its servers, and goes on.

    Args:
        factory: makes a transport for given settings; called once or more for each rule, which closes it.
        rules: which ones.
        patience: seconds after which a transport is taken to hang in a rule.

    Raises:
        ConfigurationError: a rule needs a package that is not installed.
    """
    return await check_rules(factory, rules, patience)
