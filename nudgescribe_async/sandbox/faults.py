"""What can go wrong with a request, as values for ``Sandbox.inject``.

=================  =====================  ===========================================================
fault              the work               the answer
=================  =====================  ===========================================================
``Status``         not done, or done      another status, with or without ``Retry-After``
``Delay``          done                   late
``LoseAnswer``     done                   none: the connection breaks
``LoseRequest``    not done               none: the connection breaks
``RefuseToken``    not done               the token is refused, at once or late
``RevokeTokens``   not done               the token is refused, and so is every other of its age
``BadAnswer``      done, or not done      nonsense
``ShiftPages``     done                   pages of a group that changed while it was being read
``RateLimit``      not done, beyond it    429
=================  =====================  ===========================================================

``Sandbox.inject`` says which requests they befall.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

from attrs import field, frozen

from nudgescribe_async.sandbox.values import at_least, flag, whole

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = [
    "BadAnswer",
    "Body",
    "Delay",
    "LoseAnswer",
    "LoseRequest",
    "RateLimit",
    "RefuseToken",
    "RevokeTokens",
    "SandboxFault",
    "ShiftPages",
    "Status",
]

Body: TypeAlias = bytes | Callable[[], AsyncIterator[bytes]]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_FRAMING = {"connection", "content-length", "transfer-encoding", "upgrade"}


def _status(instance: object, attribute: Attribute[Any], value: object) -> None:
    whole(200)(instance, attribute, value)
    if isinstance(value, int) and value > 599:
        raise ValueError(f"{attribute.name} must be at most 599, not {value}")


def _status_of_no_success(instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and value < 300:
        raise ValueError(
            f"{attribute.name} must be at least 300, not {value}: an answer that claims success, and is none, "
            "is a BadAnswer(body, status=...)"
        )
    _status(instance, attribute, value)


def _status_of_refusal(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is None:
        return
    wanted = "401 or 403, which refuse a token, or None for that of the edition"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{attribute.name} must be {wanted}, not {type(value).__name__}")
    if value not in {401, 403}:
        raise ValueError(f"{attribute.name} must be {wanted}, not {value}")


def _moment(instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{attribute.name} must have a time zone, such as datetime.now(UTC) has")
    elif value is not None:
        at_least(0)(instance, attribute, value)


def _optional_bytes(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, bytes):
        raise TypeError(f"{attribute.name} must be bytes, not {type(value).__name__}")


def _body(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, bytes) and not callable(value):
        raise TypeError(
            f"{attribute.name} must be bytes, or a function that gives an async iterator of bytes, "
            f"not {type(value).__name__}"
        )


def _header_value(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, not {type(value).__name__}")
    if not _VALUE.fullmatch(value):
        raise ValueError(f"{name} is no value of a header: {value!r}")


def _content_type(instance: object, attribute: Attribute[Any], value: object) -> None:
    _header_value(attribute.name, value)


def _headers(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{attribute.name} must be a mapping of texts to texts, not {type(value).__name__}")
    for name, text in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str):
            raise TypeError(f"{attribute.name} must have texts for names, not {type(name).__name__}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{attribute.name} has a name that is none of a header: {name!r}")
        if name.lower() in _FRAMING:
            raise ValueError(f"{attribute.name} must leave {name} to the server")
        _header_value(f"{attribute.name}[{name!r}]", text)


def _own(headers: Any) -> Any:
    return dict(cast("Mapping[object, object]", headers)) if isinstance(headers, Mapping) else headers


def _no_headers() -> Mapping[str, str]:
    return {}


def _header_field() -> Any:
    return field(factory=_no_headers, converter=_own, validator=_headers, hash=False, kw_only=True)


class SandboxFault:
    """What all faults of the sandbox are.

    Attributes:
        default_times: how often the fault happens if nobody says so; ``None`` for ever.
    """

    __slots__ = ()
    default_times: ClassVar[int | None] = 1


@frozen
class Status(SandboxFault):
    """Another status in the place of the true answer.

    Attributes:
        status: from 300 to 599. An answer that claims success, and is none, is a ``BadAnswer``.
        retry_after: seconds (sent as a number) or an aware moment (sent as an HTTP date).
        body: left out: JSON in the shape of the sandbox's errors.
        headers: more headers; JSON is announced unless they say otherwise.
        after_work: whether the work is done before the answer is replaced.
    """

    status: int = field(validator=_status_of_no_success)
    retry_after: float | datetime | None = field(default=None, validator=_moment, kw_only=True)
    body: bytes | None = field(default=None, validator=_optional_bytes, kw_only=True)
    headers: Mapping[str, str] = _header_field()
    after_work: bool = field(default=False, validator=flag, kw_only=True)

    @property
    def phrase(self) -> str:
        """What the status is called."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return f"Status {self.status}"


@frozen
class Delay(SandboxFault):
    """Whatever comes of the request is late.

    Attributes:
        seconds: how late.
        before_work: whether to wait before the work instead of after it.
    """

    seconds: float = field(validator=at_least(0))
    before_work: bool = field(default=False, validator=flag, kw_only=True)


@frozen
class LoseAnswer(SandboxFault):
    """The work is done, and the connection is dropped without an answer."""


@frozen
class LoseRequest(SandboxFault):
    """The connection is dropped before anything is done."""


@frozen(kw_only=True)
class RefuseToken(SandboxFault):
    """The token of this request is refused although it is good. With ``delay``, the answer to it comes late.

    A refusal that is late enough arrives when the client has renewed its tokens already.

    Attributes:
        status: 401 or 403; left out: as the edition has it (403; 401 in edition 1).
        delay: seconds.
    """

    status: int | None = field(default=None, validator=_status_of_refusal)
    delay: float = field(default=0.0, validator=at_least(0))


@frozen(kw_only=True)
class RevokeTokens(SandboxFault):
    """As ``Sandbox.revoke_tokens()``, at the moment when the request comes, which is then judged as any other.

    Attributes:
        refresh_tokens: whether refresh tokens are revoked too.
    """

    refresh_tokens: bool = field(default=False, validator=flag)


@frozen
class BadAnswer(SandboxFault):
    """Nonsense in the place of the true answer.

    Attributes:
        body: bytes, or a function that gives an async iterator of them, which need not end. It is called anew for each
            answer, and what it gave is closed when the client goes away.
        content_type: what the answer says that it is.
        status: from 200 to 599.
        headers: more headers, such as a ``Content-Encoding``; nothing is encoded.
        after_work: whether the work is done before.
    """

    body: Body = field(validator=_body, repr=lambda body: f"<{len(body)} bytes>" if isinstance(body, bytes) else "...")
    content_type: str = field(default="text/html", validator=_content_type, kw_only=True)
    status: int = field(default=200, validator=_status, kw_only=True)
    headers: Mapping[str, str] = _header_field()
    after_work: bool = field(default=True, validator=flag, kw_only=True)


def _shift(instance: object, attribute: Attribute[Any], value: object) -> None:
    whole(-(2**31))(instance, attribute, value)
    if value == 0:
        raise ValueError(f"{attribute.name} must not be 0: that shifts nothing")
    if isinstance(value, int) and value > 2**31:
        raise ValueError(f"{attribute.name} must be at most {2**31}, not {value}")


@frozen
class ShiftPages(SandboxFault):
    """From this request of ``customers.list`` on, its group is seen as if it had changed at its beginning.

    Attributes:
        by: so many customers are gone from the front; if negative, so many were added there.
    """

    by: int = field(default=1, validator=_shift)


def _above_zero(instance: object, attribute: Attribute[Any], value: object) -> None:
    at_least(0)(instance, attribute, value)
    if value == 0:
        raise ValueError(f"{attribute.name} must be above 0")


def _retry_after(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, bool | str):
        raise TypeError(f'{attribute.name} must be True, False or "date", not {type(value).__name__}')
    if isinstance(value, str) and value != "date":
        raise ValueError(f'{attribute.name} must be True, False or "date", not {value!r}')


@frozen
class RateLimit(SandboxFault):
    """A rule: at most ``requests`` in any ``per`` seconds, all callers together; those beyond are refused with 429.

    Refused requests are not counted. The rule holds for ever, unless it is told for how long, or how many refusals.

    Attributes:
        requests: how many.
        per: seconds.
        retry_after: whether refusals say when there is room again, in whole seconds, rounded up; ``"date"`` says it as
            an HTTP date.
    """

    default_times: ClassVar[int | None] = None

    requests: int = field(validator=whole(1))
    per: float = field(validator=_above_zero)
    retry_after: bool | Literal["date"] = field(default=True, validator=_retry_after, kw_only=True)


def http_date(moment: datetime) -> str:
    """A moment as headers have it, in whole seconds."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)
