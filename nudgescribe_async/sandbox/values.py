"""The small frozen values that the parts of the sandbox hand to each other."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attrs import Attribute

RefusalKind = Literal[
    "bad_request", "missing_fields", "invalid_workspace", "unauthorised", "quota_exceeded", "payload_too_large"
]
CampaignState = Literal["Ready for review", "Ready to publish", "Published"]
STATES: tuple[CampaignState, ...] = ("Ready for review", "Ready to publish", "Published")
EDITIONS = (1, 2, 3)


class SandboxError(Exception):
    """The sandbox cannot start, or was asked in code for something that makes no sense."""


class Refusal(Exception):  # noqa: N818 - an answer of the service, not an error of the sandbox
    """A request is refused. The edition decides which HTTP status that is."""

    def __init__(self, kind: RefusalKind, message: str) -> None:
        super().__init__(message)
        self.kind: RefusalKind = kind
        self.message = message


@frozen(kw_only=True)
class SandboxCredentials:
    """What a client logs in with, and where it may work afterwards.

    Attributes:
        api_key: the API key of the account.
        email: the e-mail address of the account's user.
        password: the password of that user.
        account_id: the account.
        workspace_id: the first workspace of the account.
    """

    api_key: str = field(repr=lambda _: "***")
    email: str = field(repr=lambda _: "***")
    password: str = field(repr=lambda _: "***")
    account_id: str
    workspace_id: str


@frozen(kw_only=True)
class Caller:
    """Who sent a request: every query is limited to this account."""

    account_id: str
    user_id: str


@frozen(kw_only=True)
class LogRecord:
    """One request that was answered, or was left without an answer.

    Attributes:
        operation: the operation of the contract, ``None`` for other paths and for the storage.
        method: the HTTP method.
        path: the path, without the query (that of a signed URL is a secret).
        status: the HTTP status of the answer; 0 if there was none, because a fault dropped the connection, or the
            client or the sandbox went away first.
        when: when the request came, in UTC.
        seconds: how long it took to answer.
        request_id: the ``x-request-id`` of the answer.
        origin: ``"api"`` or ``"storage"``.
        body: the JSON of the request, or the parts of a form, secrets masked; ``None`` if there was none,
            if it was larger than 64 KiB, or if the request was answered before it was read.
        fault: the name of the fault that befell the request, joined by ``+`` if there were several.
        effect: whether the request changed something.
    """

    operation: str | None
    method: str
    path: str
    status: int
    when: datetime
    seconds: float
    request_id: str
    origin: str = "api"
    body: Any = None
    fault: str | None = None
    effect: bool = False


@define(kw_only=True)
class Visit:
    """A request while it is under way: what its log record will tell."""

    operation: str | None = None
    body: Any = None
    faults: list[str] = field(factory=list[str])
    effect: bool = False
    lost: bool = False
    download: bool = False
    request_id: str = field(factory=lambda: uuid.uuid4().hex)
    when: datetime = field(factory=lambda: datetime.now(UTC))
    start: float = field(factory=time.perf_counter)


@frozen(kw_only=True)
class ExampleData:
    """The ids of the example data, by name."""

    workspace_id: str
    customer_groups: Mapping[str, str]
    campaigns: Mapping[str, str]


def at_least(minimum: float) -> Any:
    """A validator of numbers."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{attribute.name} must be a number, not {type(value).__name__}")
        _within(attribute.name, value, minimum)

    return check


def whole(minimum: int) -> Any:
    """A validator of whole numbers."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{attribute.name} must be a whole number, not {type(value).__name__}")
        _within(attribute.name, value, minimum)

    return check


def flag(instance: object, attribute: Attribute[Any], value: object) -> None:
    """A validator of flags: a text such as ``"no"`` would be true."""
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be True or False, not {type(value).__name__}")


def _within(name: str, value: float, minimum: float) -> None:
    if value >= 2**63:
        raise ValueError(f"{name} must be at least {minimum} and below 2**63, not {value}")
    if not value >= minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {value}")


def _optional_whole(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        whole(0)(instance, attribute, value)


def _first_page(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        whole(0)(instance, attribute, value)
        if value not in {0, 1}:
            raise ValueError(f"first_page must be 0 or 1, not {value!r}")


def _running_state(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _name(instance, attribute, value)
        if str(value).strip().lower() in {state.lower() for state in STATES}:
            raise ValueError(
                f"{attribute.name} must be a state of its own, and not {value!r}: that allows what comes next."
            )


def _edition(instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"edition must be 1, 2 or 3, not {type(value).__name__}")
    if value not in EDITIONS:
        raise ValueError(f"edition must be 1, 2 or 3, not {value!r}")


def _name(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a text, not {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{attribute.name} must not be empty")


@frozen(kw_only=True)
class Settings:
    """How the service behaves. The docstring of ``Sandbox`` says what each one means."""

    edition: int = field(default=3, validator=_edition)
    page_size: int = field(default=100, validator=whole(1))
    first_page: int | None = field(default=None, validator=_first_page)
    rows_per_file: int = field(default=5_000, validator=whole(1))
    latency: float = field(default=0.0, validator=at_least(0))
    job_time: float = field(default=0.0, validator=at_least(0))
    queue_above: int = field(default=1_000, validator=whole(0))
    max_upload_bytes: int = field(default=2**30, validator=whole(1))
    access_token_lifetime: float = field(default=14 * 86_400.0, validator=at_least(0))
    refresh_token_lifetime: float = field(default=15 * 86_400.0, validator=at_least(0))
    rotate_refresh_tokens: bool = field(default=True, validator=flag)
    announce_expiry: bool = field(default=True, validator=flag)
    url_lifetime: float = field(default=3_600.0, validator=at_least(0))
    identifier_field: str = field(default="external_id", validator=_name)
    publish_quota: int | None = field(default=None, validator=_optional_whole)
    state_while_running: str | None = field(default=None, validator=_running_state)


def timestamp(moment: datetime | None = None) -> str:
    """A moment, or now, as the service writes it: ISO 8601, UTC, milliseconds, ``Z``."""
    moment = datetime.now(UTC) if moment is None else moment.astimezone(UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_timestamp(text: str) -> datetime:
    """Read a timestamp; one without a zone is UTC. ``ValueError`` if it is none."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error
