"""For the tests of those who use this package: faults that really happen, a clock nobody waits for, rules of transports.

See ``docs/testing.md``, for the fixtures ``docs/pytest.md``, and for transports ``docs/writing-a-transport.md``. A name
is loaded, with the module that it comes from, when it is asked for first: pytest loads the plugin in every run, and
whoever does not use it does not wait for it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nudgescribe_async.contract_doctor.recording import NotRecordedError, RecordingTransport, ReplayingTransport
    from nudgescribe_async.injection import Injection
    from nudgescribe_async.testing.clock import VirtualClock
    from nudgescribe_async.testing.conformance import (
        RULES,
        BrokenPromiseError,
        ConformanceReport,
        Need,
        NotApplicableError,
        Rule,
        TransportFactory,
        TransportSettings,
        Verdict,
        check_transport,
    )
    from nudgescribe_async.testing.faults import Close, Corrupt, ProxyFault, Replace, Reset, Stall, Trickle, Truncate
    from nudgescribe_async.testing.proxy import Exchange, FaultProxy
    from nudgescribe_async.testing.sandbox_faults import SandboxFaults
    from nudgescribe_async.testing.scripted import HANG, Script, ScriptedTransport, SentRequest, Step, answer

__all__ = [
    "HANG",
    "RULES",
    "BrokenPromiseError",
    "Close",
    "ConformanceReport",
    "Corrupt",
    "Exchange",
    "FaultProxy",
    "Injection",
    "Need",
    "NotApplicableError",
    "NotRecordedError",
    "ProxyFault",
    "RecordingTransport",
    "Replace",
    "ReplayingTransport",
    "Reset",
    "Rule",
    "SandboxFaults",
    "Script",
    "ScriptedTransport",
    "SentRequest",
    "Stall",
    "Step",
    "TransportFactory",
    "TransportSettings",
    "Trickle",
    "Truncate",
    "Verdict",
    "VirtualClock",
    "answer",
    "check_transport",
]

# Where the names come from; what type checkers read above, once more for the interpreter.
_HOMES = {
    "nudgescribe_async.contract_doctor.recording": ("NotRecordedError", "RecordingTransport", "ReplayingTransport"),
    "nudgescribe_async.injection": ("Injection",),
    "nudgescribe_async.testing.clock": ("VirtualClock",),
    "nudgescribe_async.testing.conformance": (
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
    ),
    "nudgescribe_async.testing.faults": (
        "Close",
        "Corrupt",
        "ProxyFault",
        "Replace",
        "Reset",
        "Stall",
        "Trickle",
        "Truncate",
    ),
    "nudgescribe_async.testing.proxy": ("Exchange", "FaultProxy"),
    "nudgescribe_async.testing.sandbox_faults": ("SandboxFaults",),
    "nudgescribe_async.testing.scripted": ("HANG", "Script", "ScriptedTransport", "SentRequest", "Step", "answer"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
# The modules themselves are attributes as well, whether or not somebody has imported them.
_MODULES = {"clock", "conformance", "faults", "proxy", "sandbox_faults", "scripted"}


if not TYPE_CHECKING:  # with it, a type checker would take any name for one of the package's

    def __getattr__(name: str) -> object:
        if name in _HOME_OF:
            return getattr(importlib.import_module(_HOME_OF[name]), name)
        if name in _MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))})
