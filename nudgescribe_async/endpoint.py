"""An operation of the contract as a value, and the check of what a caller passes to it.

The modules in ``endpoints/`` are generated and consist of such values, each with a thin coroutine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import frozen

if TYPE_CHECKING:
    from nudgescribe_async.shapes import JSON, Evidence

__all__ = ["Argument", "Bearer", "Effect", "Endpoint", "Kind", "RetryClass", "checked", "timestamp"]

T = TypeVar("T")

_INT64 = (-(2**63), 2**63 - 1)
_DEEPEST = 100  # any JSON library writes as many, and none of them any number


class Effect(StrEnum):
    """What an operation does to the service (``x-effect``)."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    ACTION = "action"


class RetryClass(StrEnum):
    """Whether an operation may be sent again when nobody knows what became of it (``x-retry``)."""

    SAFE = "safe"
    """It changes nothing."""

    IDEMPOTENT = "idempotent"
    """Twice is the same as once."""

    UNSAFE = "unsafe"
    """Twice is twice: sent again only if the first time provably had no effect."""


class Bearer(Enum):
    """Which token goes with an operation."""

    ACCESS = auto()
    """The access token, which the session looks after."""

    REFRESH = auto()
    """The refresh token, handed in by the caller."""

    NONE = auto()


class Kind(Enum):
    """What an argument may be."""

    TEXT = "text"
    INTEGER = "a whole number"
    BOOLEAN = "True or False"
    TIMESTAMP = "an aware datetime"
    TEXTS = "a list of texts"
    OBJECTS = "a list of mappings"
    FILE = "a path, bytes, a binary file, or an iterator of bytes or a function that gives one"


@frozen
class Argument:
    """One argument of an operation.

    Attributes:
        name: as in the contract, and as in the coroutine.
        kind: what it may be.
        required: whether it must be given.
        minimum: the smallest whole number allowed.
        first_page: the number of the first page, if this is the number of a page. It is what is sent if the
            argument is left out, and nothing below it is allowed.
        choices: the only texts allowed; empty if any text is.
        keys: what each mapping of a list of mappings must have.
        header: the header it travels in; ``None`` if it travels in the body.
    """

    name: str
    kind: Kind
    required: bool = True
    minimum: int | None = None
    first_page: int | None = None
    choices: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    header: str | None = None


@frozen(kw_only=True)
class Endpoint(Generic[T]):
    """One operation of the contract.

    Attributes:
        operation: its name, such as ``"customers.list"``.
        method: the HTTP method. It says nothing about what may be sent again; ``retry`` does.
        path: below the base URL.
        effect: what it does.
        retry: whether it may be sent again.
        evidence: how well method and path are known.
        answer: the type of what it answers. ``str`` stands for the text of the body as it is.
        arguments: what a caller may pass, in order.
        bearer: which token goes with it.
        context_headers: whether it takes ``x-auth-context`` and ``x-ip``.
        unwrap: names of which the first present in the answer holds the answer.
        partial: whether ``"success": false`` is a result rather than a refusal.
        exactly_one: arguments of which exactly one must be given.
        look: the read that tells whether an unsafe operation took effect.
    """

    operation: str
    method: str
    path: str
    effect: Effect
    retry: RetryClass
    evidence: Evidence
    answer: type[T]
    arguments: tuple[Argument, ...] = ()
    bearer: Bearer = Bearer.ACCESS
    context_headers: bool = False
    unwrap: tuple[str, ...] = ()
    partial: bool = False
    exactly_one: tuple[str, ...] = ()
    look: str | None = None

    @property
    def first_page(self) -> int | None:
        """The number of the first page, as the contract has it; ``None`` where there are no pages."""
        return next((item.first_page for item in self.arguments if item.first_page is not None), None)


def timestamp(moment: datetime) -> str:
    """A moment as the service writes it: ISO 8601 in UTC with milliseconds and ``Z``.

    Microseconds are kept where there are any, so that nothing is lost.
    """
    moment = moment.astimezone(UTC)
    precision = "milliseconds" if moment.microsecond % 1000 == 0 else "microseconds"
    return moment.isoformat(timespec=precision).removesuffix("+00:00") + "Z"


def checked(endpoint: Endpoint[Any], values: Mapping[str, object], *, first_page: int | None = None) -> dict[str, Any]:
    """The arguments of a call, checked and ready to be sent; what was left out is left out, but for the first page.

    Args:
        endpoint: the operation.
        values: what the caller passed.
        first_page: the number of the first page, where the contract is wrong about it.

    Raises:
        TypeError: an argument is missing, of the wrong type, or one too many; the text names it.
        ValueError: an argument has a value that cannot be right, such as an empty id.
    """
    body: dict[str, Any] = {}
    for argument in endpoint.arguments:
        value = values.get(argument.name)
        first = argument.first_page if argument.first_page is None or first_page is None else first_page
        if value is None and not argument.required:
            value = first
        if value is None:
            if argument.required:
                raise TypeError(f"{endpoint.operation}: {argument.name} must be {argument.kind.value}, not None.")
            continue
        where = f"{endpoint.operation}: {argument.name}"
        fit = body[argument.name] = _CHECKS[argument.kind](where, argument, value)
        if first is not None:
            _at_least(where, first, cast("int", fit))
    if endpoint.exactly_one and sum(name in body for name in endpoint.exactly_one) != 1:
        raise TypeError(f"{endpoint.operation}: give exactly one of {' and '.join(endpoint.exactly_one)}.")
    return body


def _wrong_type(where: str, wanted: str, value: object) -> TypeError:
    return TypeError(f"{where} must be {wanted}, not {type(value).__name__}.")


def _text(where: str, argument: Argument, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong_type(where, argument.kind.value, value)
    if argument.choices and value not in argument.choices:
        raise ValueError(f"{where} must be one of {', '.join(map(repr, argument.choices))}.")
    return _sendable(where, value)


def _sendable(where: str, value: str) -> str:
    if not value.strip():
        raise ValueError(f"{where} must not be empty.")
    return _encodable(where, value)


def _encodable(where: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} has a lone surrogate at position {error.start}, which UTF-8 cannot hold.") from None
    return str.__str__(value)  # the text itself, where str() would give the name of a member of an enumeration


def _integer(where: str, argument: Argument, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(where, argument.kind.value, value)
    if not _INT64[0] <= value <= _INT64[1]:
        raise ValueError(f"{where} does not fit into 64 bits.")
    if argument.minimum is not None:
        _at_least(where, argument.minimum, value)
    return int(value)


def _at_least(where: str, minimum: int, value: int) -> None:
    if value < minimum:
        raise ValueError(f"{where} must be at least {minimum}, not {value}.")


def _boolean(where: str, argument: Argument, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(where, argument.kind.value, value)
    return value


def _moment(where: str, argument: Argument, value: object) -> str:
    if not isinstance(value, datetime):
        raise _wrong_type(where, argument.kind.value, value)
    if value.utcoffset() is None:
        raise ValueError(f"{where} must be an aware datetime; give it a tzinfo, such as datetime.UTC.")
    try:
        return timestamp(value)
    except OverflowError:
        raise ValueError(f"{where} lies beyond the years 1 to 9999 in UTC.") from None


def _sequence(where: str, argument: Argument, value: object) -> Sequence[object]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        raise _wrong_type(where, argument.kind.value, value)
    items = cast("Sequence[object]", value)
    if not items:
        raise ValueError(f"{where} is empty: there is nothing to send.")
    return items


def _texts(where: str, argument: Argument, value: object) -> list[str]:
    texts: list[str] = []
    for index, item in enumerate(_sequence(where, argument, value)):
        if not isinstance(item, str):
            raise _wrong_type(f"{where}[{index}]", "text", item)
        texts.append(_sendable(f"{where}[{index}]", item))
    return texts


def _objects(where: str, argument: Argument, value: object) -> list[dict[str, JSON]]:
    objects: list[dict[str, JSON]] = []
    for index, item in enumerate(_sequence(where, argument, value)):
        if not isinstance(item, Mapping):
            raise _wrong_type(f"{where}[{index}]", "a mapping", item)
        plain = _plain(f"{where}[{index}]", cast("object", item))
        assert isinstance(plain, dict)  # noqa: S101 - a mapping comes out as one; for the type checkers
        for key in argument.keys:
            if key not in plain:
                raise ValueError(f"{where}[{index}] lacks {key!r}.")
        objects.append(plain)
    return objects


def _plain(where: str, value: object, depth: int = 0) -> JSON:
    """The value in the types that every JSON library writes alike."""
    if depth > _DEEPEST:
        raise ValueError(f"{where.partition('[')[0]} is nested more than {_DEEPEST} levels deep, or holds itself.")
    match value:
        case None | bool():
            return value
        case str():
            return _encodable(where, value)
        case int():
            if not _INT64[0] <= value <= _INT64[1]:
                raise ValueError(f"{where} does not fit into 64 bits; send it as text.")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{where} is {value}, which JSON cannot hold.")
            return float(value)
        case Mapping():
            plain: dict[str, JSON] = {}
            for key, item in cast("Mapping[object, object]", value).items():
                if not isinstance(key, str):
                    raise _wrong_type(f"a key of {where}", "text", key)
                plain[_encodable(f"a key of {where}", key)] = _plain(f"{where}[{key!r}]", item, depth + 1)
            return plain
        case list() | tuple():
            items = cast("Sequence[object]", value)
            return [_plain(f"{where}[{index}]", item, depth + 1) for index, item in enumerate(items)]
        case _:
            raise _wrong_type(where, "a value that JSON can hold (give dates and decimals as text)", value)


def _file(where: str, argument: Argument, value: object) -> object:
    return value  # transport.multipart.file_body judges it, since it knows what it can read


_CHECKS: Mapping[Kind, Callable[[str, Argument, object], object]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.BOOLEAN: _boolean,
    Kind.TIMESTAMP: _moment,
    Kind.TEXTS: _texts,
    Kind.OBJECTS: _objects,
    Kind.FILE: _file,
}
