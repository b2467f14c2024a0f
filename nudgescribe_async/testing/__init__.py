"""For the tests of those who use this package: faults that really happen, a clock nobody waits for.

See ``docs/testing.md``.
"""

from nudgescribe_async.injection import Injection
from nudgescribe_async.testing.clock import VirtualClock
from nudgescribe_async.testing.faults import Close, Corrupt, ProxyFault, Replace, Reset, Stall, Trickle, Truncate
from nudgescribe_async.testing.proxy import Exchange, FaultProxy
from nudgescribe_async.testing.scripted import HANG, Script, ScriptedTransport, SentRequest, Step, answer

__all__ = [
    "HANG",
    "Close",
    "Corrupt",
    "Exchange",
    "FaultProxy",
    "Injection",
    "ProxyFault",
    "Replace",
    "Reset",
    "Script",
    "ScriptedTransport",
    "SentRequest",
    "Stall",
    "Step",
    "Trickle",
    "Truncate",
    "VirtualClock",
    "answer",
]
