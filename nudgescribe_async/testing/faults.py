"""What can go wrong on the wire, as values."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Literal

import attrs
from attrs import field, frozen

__all__ = ["KINDS", "Close", "Corrupt", "ProxyFault", "Replace", "Reset", "Stall", "Trickle", "Truncate"]


def _one_of(*choices: str) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def check(fault: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        name = f"{type(fault).__name__}.{attribute.name}"
        known = ", ".join(map(repr, choices))
        if not isinstance(value, str):
            raise TypeError(f"{name} must be one of {known}; got {type(value).__name__}.")
        if value not in choices:
            raise ValueError(f"{name} must be one of {known}; got {value!r}.")

    return check


def _seconds(fault: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    name = f"{type(fault).__name__}.{attribute.name}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}.")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a number of seconds, 0 or more; got {value}.")


def _answer_bytes(fault: object, _: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bytes) and not callable(value):
        raise TypeError(
            "Replace.raw must be bytes, or be callable and return an asynchronous iterator of bytes;"
            f" got {type(value).__name__}."
        )


def _shown(raw: object) -> str:
    return f"<{len(raw):,} bytes>" if isinstance(raw, bytes) else getattr(raw, "__qualname__", type(raw).__name__)


@frozen(kw_only=True)
class ProxyFault:
    """What a fault of the proxy is; see its subclasses."""


_ENDS = ("before_request", "in_request", "after_request", "in_body")


@frozen(kw_only=True)
class Reset(ProxyFault):
    """The connection is reset: the client gets ``ECONNRESET``.

    Attributes:
        at: ``"before_request"``: the server sees nothing. ``"in_request"``: the server gets half of the body (of the
            head, if there is no body, or the client wants to be asked for it), then a reset as well.
            ``"after_request"``: the server has done its work and answered, and none of the answer arrives.
            ``"in_body"``: the head and half of the body of the answer arrive (half of the head, if there is no body).
    """

    at: Literal["before_request", "in_request", "after_request", "in_body"] = field(validator=_one_of(*_ENDS))


@frozen(kw_only=True)
class Close(ProxyFault):
    """The connection is closed in good order: the client reads an end of file.

    Attributes:
        at: as for ``Reset``; ``"in_body"`` is what ``Truncate`` does.
    """

    at: Literal["before_request", "in_request", "after_request", "in_body"] = field(validator=_one_of(*_ENDS))


@frozen(kw_only=True)
class Truncate(ProxyFault):
    """The answer ends in the middle of its body, with an end of file."""


@frozen(kw_only=True)
class Stall(ProxyFault):
    """Nothing moves any more, and the connection stays open.

    Attributes:
        at: ``"request"``: the rest of the request is not read, and nothing of it reaches the server until the stall is
            over. ``"head"``: the server has the whole request, the answer does not begin. ``"body"``: half of the body
            of the answer arrives (half of the head, if there is no body).
        seconds: how long; ``None`` until the client gives up or the proxy is closed.
    """

    at: Literal["request", "head", "body"] = field(validator=_one_of("request", "head", "body"))
    seconds: float | None = field(default=None, validator=attrs.validators.optional(_seconds))


@frozen(kw_only=True)
class Trickle(ProxyFault):
    """The answer arrives byte by byte, each in a segment of its own.

    Attributes:
        pause: seconds after each byte.
    """

    pause: float = field(default=0.001, validator=_seconds)


@frozen(kw_only=True)
class Corrupt(ProxyFault):
    """Bytes of the answer are changed on the way. The same seed changes the same answer in the same way.

    Attributes:
        where: ``"status"``: the status line is nonsense. ``"head"``: one line of the head is no header. ``"body"``:
            bits are flipped in the first byte and in some of the others (lengths stay; an answer without a body passes
            unchanged), so that what was ASCII is not even UTF-8.
    """

    where: Literal["status", "head", "body"] = field(validator=_one_of("status", "head", "body"))


@frozen(kw_only=True)
class Replace(ProxyFault):
    """The server does not see the request; the client gets these bytes for an answer.

    The request is read to its end first.

    Attributes:
        raw: the answer with its status line and head, or a callable that returns an asynchronous iterator of its
            pieces, which may be endless.
        then: ``"close"`` the connection, or ``"keep"`` it for the next request.
    """

    raw: bytes | Callable[[], AsyncIterator[bytes]] = field(validator=_answer_bytes, repr=_shown)
    then: Literal["close", "keep"] = field(default="close", validator=_one_of("close", "keep"))


KINDS: Final[tuple[type[ProxyFault], ...]] = (Reset, Close, Truncate, Stall, Trickle, Corrupt, Replace)
"""What can be injected."""
