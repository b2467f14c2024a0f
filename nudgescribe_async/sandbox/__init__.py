"""The Nudgescribe service, embedded, to test integrations on. See ``docs/sandbox.md``.

It shares nothing with the client but the contract, so that a mistake in the one cannot hide in the other.
"""

from importlib.util import find_spec

if find_spec("cryptography") is None or find_spec("jwt") is None:
    raise ImportError('The sandbox needs two more packages: pip install "nudgescribe_async[sandbox]".')

from nudgescribe_async.sandbox.examples import create_sample_fields, sample_csv, sample_customers
from nudgescribe_async.sandbox.faults import (
    BadAnswer,
    Delay,
    LoseAnswer,
    LoseRequest,
    RateLimit,
    RefuseToken,
    RevokeTokens,
    SandboxFault,
    ShiftPages,
    Status,
)
from nudgescribe_async.sandbox.server import Sandbox
from nudgescribe_async.sandbox.values import ExampleData, LogRecord, SandboxCredentials, SandboxError

__all__ = [
    "BadAnswer",
    "Delay",
    "ExampleData",
    "LogRecord",
    "LoseAnswer",
    "LoseRequest",
    "RateLimit",
    "RefuseToken",
    "RevokeTokens",
    "Sandbox",
    "SandboxCredentials",
    "SandboxError",
    "SandboxFault",
    "ShiftPages",
    "Status",
    "create_sample_fields",
    "sample_csv",
    "sample_customers",
]
