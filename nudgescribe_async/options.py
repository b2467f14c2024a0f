"""What a user may choose, as plain values: for the client, and for a single call."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, cast

from attrs import Attribute, evolve, field, frozen

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.shapes import names_only

__all__ = ["CallOptions", "Priority", "RetryBudget", "RetryPolicy", "Timeout", "bulk", "check_whole_number"]


LONGEST = 1e10
"""Seconds; what is longer is a slip, and more than timers can hold."""


def check_whole_number(name: str, value: object) -> None:
    """Refuse what is no whole number above 0.

    Raises:
        ConfigurationError: the text has the name and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number above 0; got {value!r}.")


def _is_seconds(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value <= LONGEST


def _seconds(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not _is_seconds(value):
        raise ConfigurationError(
            f"{type(instance).__name__}({attribute.name}=...) must be a number of seconds above 0, or None for "
            f"{'what the client has' if isinstance(instance, CallOptions) else 'no limit'}; got {value!r}."
        )


def _required_seconds(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not _is_seconds(value):
        raise ConfigurationError(
            f"{type(instance).__name__}({attribute.name}=...) must be a number of seconds above 0; got {value!r}."
        )


def _attempts(instance: object, attribute: Attribute[Any], value: object) -> None:
    check_whole_number("RetryPolicy(attempts=...)", value)


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how long apart a call is tried. *Whether* it may be is the contract's business.

    The wait before attempt ``n`` is drawn evenly between 0 and ``min(longest, base * 2 ** (n - 2))``
    seconds. If the service said how long to wait (``Retry-After``), and that is longer, it is obeyed, and up to a
    tenth is added, so that those who were told the same moment do not all come at once.

    Attributes:
        attempts: the most requests of one call; 1 switches retries off.
        base: seconds; the longest wait before the second attempt.
        longest: seconds; the longest wait of all.
        longest_retry_after: seconds; if the service asks for a longer wait, the call ends at once.
    """

    attempts: int = field(default=4, validator=_attempts)
    base: float = field(default=0.5, validator=_required_seconds)
    longest: float = field(default=30.0, validator=_required_seconds)
    longest_retry_after: float = field(default=120.0, validator=_required_seconds)


def _amount(instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigurationError(f"RetryBudget({attribute.name}=...) must be a number, 0 or above; got {value!r}.")


@frozen(kw_only=True)
class RetryBudget:
    """How many retries all calls of a client together may make, so that an outage is not multiplied.

    A retry takes one from the budget. Every call that succeeds puts ``share`` back, a call that succeeded
    only after a retry puts two back (retrying works again), and time puts ``per_second`` back; never more
    than ``reserve`` is saved up. Where it is empty, a plain call ends with the failure that it has, and
    the calls of an iterator wait until there is some.

    Retries after a 429 take nothing: the pause that all calls make then is what keeps them few. The second
    attempt of a call whose token was refused is no retry.

    Attributes:
        reserve: retries; what is there at first, and the most that is saved up.
        share: retries for each call that succeeds.
        per_second: retries for each second.
    """

    reserve: float = field(default=100.0, validator=_amount)
    share: float = field(default=0.2, validator=_amount)
    per_second: float = field(default=1.0, validator=_amount)


class Priority(StrEnum):
    """Who goes first when calls wait for a free slot."""

    INTERACTIVE = "interactive"
    """Somebody waits for the answer. Plain calls are this, unless ``CallOptions`` says otherwise."""

    BULK = "bulk"
    """Served after the interactive ones, apart from each eighth slot, so that it never stands still. Iterators are this."""


@frozen(kw_only=True)
class Timeout:
    """How long things may take, in seconds; ``None`` is no limit.

    Attributes:
        total: a whole call: queueing, pauses, renewal of the token, attempts, waits, and reading the answer.
            There is none by default, since it would end long uploads; retries and the two other
            limits end a call all the same.
        connect: getting a connection: a free place in the pool, the name, TCP and TLS together.
        read: without a byte from the server.
    """

    total: float | None = field(default=None, validator=_seconds)
    connect: float | None = field(default=10.0, validator=_seconds)
    read: float | None = field(default=60.0, validator=_seconds)


# Set by the session and the transports alone, or, as cookies, by nobody: a caller or a propagator who could set them would
# override what is promised of them.
RESERVED_HEADERS = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-api-key",
        "x-auth-context",
    }
)


def _retry_policy(value: RetryPolicy | int | None) -> RetryPolicy | None:
    if value is None or isinstance(value, RetryPolicy):
        return value
    if isinstance(value, bool) or not isinstance(cast("object", value), int) or value < 0:
        raise ConfigurationError(
            f"CallOptions(retries=...) must be a number of retries, 0 or more, or a RetryPolicy; got {value!r}."
        )
    return RetryPolicy(attempts=value + 1)


def _priority(value: Priority | str | None) -> Priority | None:
    try:
        return None if value is None else Priority(value)
    except ValueError:
        raise ConfigurationError(f"CallOptions(priority=...) must be 'interactive' or 'bulk'; got {value!r}.") from None


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _headers(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"CallOptions(headers=...) must be a mapping, not {type(value).__name__}.")
    for name, text in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ConfigurationError(f"CallOptions(headers=...): the name and value of {name!r} must be text.")
        if not _HEADER_NAME.fullmatch(name) or _CONTROL.search(text):
            raise ConfigurationError(f"CallOptions(headers=...): {name!r} or its value is not allowed in HTTP.")
        if name.lower() in RESERVED_HEADERS:
            raise ConfigurationError(f"CallOptions(headers=...): {name!r} is for the client to set, or for nobody.")


def _own(value: Mapping[str, str]) -> Mapping[str, str]:
    # A copy: what is changed after the check would not have been checked. What is no mapping is left to the check.
    return dict(value) if isinstance(cast("object", value), Mapping) else value


@frozen(kw_only=True)
class CallOptions:
    """Choices for one call; what is left out is as the client has it.

    Attributes:
        timeout: seconds for the whole call; see ``Timeout.total``.
        retries: how often the call may be repeated after the first attempt (0: never), or a whole
            ``RetryPolicy``. What may not be repeated is not repeated, whatever this says.
        headers: sent in addition. Those that the client sets itself, cookies, and the credentials of proxies are refused.
        priority: who goes first when calls wait for a free slot: ``"interactive"`` or ``"bulk"``.
    """

    timeout: float | None = field(default=None, validator=_seconds)
    retries: RetryPolicy | None = field(default=None, converter=_retry_policy)
    headers: Mapping[str, str] = field(factory=dict, converter=_own, validator=_headers, repr=names_only)
    priority: Priority | None = field(default=None, converter=_priority)


_BULK = CallOptions(priority=Priority.BULK)


def bulk(options: CallOptions | None) -> CallOptions:
    """The same options, with bulk priority unless they name one."""
    if options is None:
        return _BULK
    if isinstance(cast("object", options), CallOptions) and options.priority is None:
        return evolve(options, priority=Priority.BULK)
    return options
