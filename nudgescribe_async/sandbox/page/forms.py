"""The form that makes a fault: which fields each kind has, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import attrs
from attrs import field, frozen

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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nudgescribe_async.injection import Injection

Values = Mapping[str, str]

_AFTER_WORK = "The work is done first, and only its answer is replaced"


class FormError(Exception):
    """What was entered cannot be right. Says why, in a sentence."""


@frozen(kw_only=True)
class Entry:
    """One field of the form.

    Attributes:
        name: what it is called in what the browser sends.
        kind: ``number``, ``text``, ``lines``, ``flag`` or ``choice``.
        default: what it holds at first; ``"on"`` for a flag that is set.
        hint: what the label does not say.
        choices: of a choice, value to label.
    """

    name: str
    label: str
    kind: str = "number"
    default: str = ""
    hint: str = ""
    choices: Mapping[str, str] = field(factory=dict[str, str])


@frozen(kw_only=True)
class Kind:
    """A kind of fault as a part of the form."""

    name: str
    title: str
    explanation: str
    entries: Sequence[Entry] = ()
    build: Callable[[Values], SandboxFault]


def _whole(values: Values, name: str, label: str) -> int:
    text = values.get(name, "").strip()
    try:
        number = int(text)
    except ValueError:
        raise FormError(f"{label} must be a whole number, not {text[:40]!r}.") from None
    if abs(number) >= 2**63:
        raise FormError(f"{label} must be below 2**63.")
    return number


def _number(values: Values, name: str, label: str) -> float:
    text = values.get(name, "").strip()
    try:
        return float(text)
    except ValueError:
        raise FormError(f"{label} must be a number, not {text[:40]!r}.") from None


def _flag(values: Values, name: str) -> bool:
    return values.get(name) == "on"


def _status(values: Values) -> Status:
    retry_after = values.get("status.retry_after", "").strip()
    body = values.get("status.body", "")
    return Status(
        _whole(values, "status.status", "The status"),
        retry_after=_number(values, "status.retry_after", "Retry-After") if retry_after else None,
        body=body.encode() if body else None,
        after_work=_flag(values, "status.after_work"),
    )


def _rate_limit(values: Values) -> RateLimit:
    chosen = values.get("limit.retry_after", "seconds")
    return RateLimit(
        _whole(values, "limit.requests", "The number of requests"),
        _number(values, "limit.per", "The number of seconds"),
        retry_after="date" if chosen == "date" else chosen == "seconds",
    )


def _refuse_token(values: Values) -> RefuseToken:
    chosen = values.get("refuse.status", "")
    return RefuseToken(
        status=_whole(values, "refuse.status", "The status") if chosen else None,
        delay=_number(values, "refuse.delay", "The delay"),
    )


def _bad_answer(values: Values) -> BadAnswer:
    return BadAnswer(
        values.get("bad.body", "").encode(),
        content_type=values.get("bad.content_type", ""),
        status=_whole(values, "bad.status", "The status"),
        after_work=_flag(values, "bad.after_work"),
    )


KINDS = (
    Kind(
        name="Status",
        title="Status: another status than the true one",
        explanation="Any status from 300 on, such as 503, 429 or 500.",
        entries=(
            Entry(name="status.status", label="Status", default="503"),
            Entry(name="status.retry_after", label="Retry-After, in seconds", hint="Empty: no such header."),
            Entry(
                name="status.body", label="Body", kind="lines", hint="Empty: JSON in the shape of the sandbox's errors."
            ),
            Entry(name="status.after_work", label=_AFTER_WORK, kind="flag"),
        ),
        build=_status,
    ),
    Kind(
        name="Delay",
        title="Delay: a late answer",
        explanation="Whatever comes of the request is late.",
        entries=(
            Entry(name="delay.seconds", label="Seconds", default="2"),
            Entry(name="delay.before_work", label="The work is late too", kind="flag"),
        ),
        build=lambda values: Delay(
            _number(values, "delay.seconds", "The number of seconds"), before_work=_flag(values, "delay.before_work")
        ),
    ),
    Kind(
        name="LoseAnswer",
        title="LoseAnswer: done, and no answer",
        explanation="The work is done, and the connection breaks.",
        build=lambda _: LoseAnswer(),
    ),
    Kind(
        name="LoseRequest",
        title="LoseRequest: not done, and no answer",
        explanation="The connection breaks before anything is done.",
        build=lambda _: LoseRequest(),
    ),
    Kind(
        name="RateLimit",
        title="RateLimit: 429 beyond a rate",
        explanation="All callers together. Refusals count as the times that it happened.",
        entries=(
            Entry(name="limit.requests", label="Requests", default="5"),
            Entry(name="limit.per", label="in so many seconds", default="1"),
            Entry(
                name="limit.retry_after",
                label="Retry-After",
                kind="choice",
                default="seconds",
                choices={"seconds": "in seconds", "date": "as a date", "none": "not sent"},
            ),
        ),
        build=_rate_limit,
    ),
    Kind(
        name="RefuseToken",
        title="RefuseToken: a good token is refused",
        explanation="The client has to renew it, or to log in again.",
        entries=(
            Entry(
                name="refuse.status",
                label="Status",
                kind="choice",
                choices={"": "as the edition has it", "401": "401", "403": "403"},
            ),
            Entry(name="refuse.delay", label="Seconds until it is refused", default="0"),
        ),
        build=_refuse_token,
    ),
    Kind(
        name="RevokeTokens",
        title="RevokeTokens: all tokens are revoked",
        explanation="At the moment when the request comes, which is then judged as any other.",
        entries=(Entry(name="revoke.refresh_tokens", label="Refresh tokens too", kind="flag"),),
        build=lambda values: RevokeTokens(refresh_tokens=_flag(values, "revoke.refresh_tokens")),
    ),
    Kind(
        name="BadAnswer",
        title="BadAnswer: nonsense instead of the true answer",
        explanation="Such as HTML of a proxy, or JSON that breaks off.",
        entries=(
            Entry(name="bad.status", label="Status", default="200"),
            Entry(name="bad.content_type", label="Content-Type", kind="text", default="application/json"),
            Entry(name="bad.body", label="Body", kind="lines", default='{"success": tr'),
            Entry(name="bad.after_work", label=_AFTER_WORK, kind="flag", default="on"),
        ),
        build=_bad_answer,
    ),
    Kind(
        name="ShiftPages",
        title="ShiftPages: pages move while they are read",
        explanation="From a request of customers.list on, its group is seen as if it had changed at its beginning.",
        entries=(
            Entry(
                name="shift.by",
                label="Customers who seem to be gone",
                default="1",
                hint="Below zero: customers who seem to have been added.",
            ),
        ),
        build=lambda values: ShiftPages(_whole(values, "shift.by", "The number of customers")),
    ),
)
_BY_NAME = {kind.name: kind for kind in KINDS}


@frozen(kw_only=True)
class Order:
    """What the form asks for: the arguments of ``inject``."""

    fault: SandboxFault
    operation: str | None
    times: int | None
    skip: int
    share: float
    seconds: float | None


def read(values: Values) -> Order:
    """What was entered.

    Raises:
        FormError: it cannot be right.
    """
    kind = _BY_NAME.get(values.get("kind", ""))
    if kind is None:
        raise FormError("Choose what is to go wrong.")
    try:
        fault = kind.build(values)
    except (TypeError, ValueError) as error:
        raise FormError(f"{kind.name}: {error}.") from None
    optional = {name: values.get(name, "").strip() for name in ("times", "skip", "share", "seconds")}
    share = _number(values, "share", "The share") / 100 if optional["share"] else 1.0
    return Order(
        fault=fault,
        operation=values.get("operation") or None,
        times=_whole(values, "times", "How often") if optional["times"] else None,
        skip=_whole(values, "skip", "How many are spared") if optional["skip"] else 0,
        share=share,
        seconds=_number(values, "seconds", "For how long") if optional["seconds"] else None,
    )


def notation(fault: SandboxFault) -> str:
    """A fault as it is written in code, without what is as it is by default. Bodies are counted, not shown."""
    parts: list[str] = []
    for attribute in attrs.fields(cast("Any", type(fault))):
        value: object = getattr(fault, attribute.name)
        default: Any = attribute.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a function to type checkers, a class to Python
            default = default.factory()
        if value == default:
            continue
        text = _short(value)
        parts.append(f"{attribute.name}={text}" if attribute.kw_only else text)
    return f"{type(fault).__name__}({', '.join(parts)})"


def _short(value: object) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return f"<{len(value)} headers>"  # pyright: ignore[reportUnknownArgumentType]
    return "<a stream>" if callable(value) else repr(value) if isinstance(value, str | int | float) else str(value)


def plan(injection: Injection[SandboxFault]) -> str:
    """How often it happens, in words."""
    often = "once" if injection.times == 1 else f"{_count(injection.times)} times"
    parts = ["until it is removed" if injection.times is None else often]
    if injection.share < 1:
        parts.append(f"to {injection.share * 100:g} % of the requests")
    if injection.skip:
        parts.append(f"after {_count(injection.skip)} that are spared")
    if injection.seconds is not None:
        parts.append(f"for {injection.seconds:g} s from when it was made")
    return ", ".join(parts)


def _count(number: int | None) -> str:
    # Code may say anything, and Python writes no number of more than 4,300 digits.
    return str(number) if number is None or number < 2**63 else "2**63 or more"
