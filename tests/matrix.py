"""Every operation, and every fault: how one is called, and what the other does, so that tests can cross them.

A *row* is an operation in one of its forms, or a call that needs a token first. A *trouble* is a fault of the network
(``FaultProxy``) or of the service (``Sandbox``). ``observe`` lets one befall the other, through the real client over
real sockets, and tells what happened; it judges nothing. What ought to happen is stated where it is tested.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, evolve, field, frozen

from nudgescribe_async import (
    AuthenticationError,
    CallOptions,
    CustomerGroup,
    DeleteReceipt,
    DownloadLink,
    Nudgescribe,
    NudgescribeError,
    ProfileField,
    PublishReceipt,
    Receipt,
    RerunReceipt,
    RetryPolicy,
    Timeout,
    Tokens,
    UpdateReceipt,
    UploadReceipt,
)
from nudgescribe_async.clock import SystemClock
from nudgescribe_async.events import Event, RequestRetrying, RequestStarted, TokenRenewed
from nudgescribe_async.sandbox import (
    BadAnswer,
    Delay,
    LoseAnswer,
    LoseRequest,
    RateLimit,
    RefuseToken,
    RevokeTokens,
    Sandbox,
    SandboxFault,
    Status,
)
from nudgescribe_async.testing import Close, Corrupt, FaultProxy, Replace, Reset, Stall, Trickle, Truncate
from nudgescribe_async.transport.aiohttp import AiohttpTransport

if TYPE_CHECKING:
    from nudgescribe_async.testing import ProxyFault
    from nudgescribe_async.transport import Transport

ATTEMPTS = 3
API_CODE = "code-MARKED-4d81"
_READ = 0.8  # a stalled answer is given up after so many seconds
_DEADLINE = 3.0  # long enough to send a request in on a busy machine
_LATE = 5.0  # more than the deadline

Ids = Mapping[str, str]
Call = Callable[[Nudgescribe, Ids, CallOptions | None], Awaitable[object]]


# --- rows ------------------------------------------------------------------------------------------------------------


class Kind(Enum):
    """In which state the client makes the call, and so which request the fault befalls."""

    PLAIN = auto()
    """It has a good token; the fault befalls the operation itself."""

    LOGIN = auto()
    """It has no token yet; the fault befalls the login."""

    RENEWAL = auto()
    """Its token is revoked; the fault befalls the renewal."""


@frozen(kw_only=True)
class Row:
    """One way to call an operation. What repeating it means is stated here, and not taken from the contract."""

    name: str
    operation: str
    retry: str
    look: str | None
    call: Call
    answer: type
    needs: str = ""
    kind: Kind = Kind.PLAIN

    @property
    def target(self) -> str:
        """The operation that the fault befalls."""
        return {Kind.PLAIN: self.operation, Kind.LOGIN: "auth.authenticate", Kind.RENEWAL: "auth.reauthenticate"}[
            self.kind
        ]


def _row(
    name: str, retry: str, look: str | None, answer: type, call: Call, *, needs: str = "", kind: Kind = Kind.PLAIN
) -> Row:
    return Row(
        name=name,
        operation=name.partition("(")[0],
        retry=retry,
        look=look,
        call=call,
        answer=answer,
        needs=needs,
        kind=kind,
    )


async def _fetch(ns: Nudgescribe, ids: Ids, options: CallOptions | None, form: str) -> object:
    return await ns.messages.fetch(ids["campaign"], 1, form, options=options)  # type: ignore[call-overload]


ROWS: tuple[Row, ...] = (
    _row("auth.authenticate", "safe", None, Tokens, lambda ns, _, __: ns.auth.authenticate()),
    _row("auth.reauthenticate", "unsafe", "auth.authenticate", Tokens, lambda ns, _, __: ns.auth.reauthenticate()),
    _row(
        "customers.check(file)",
        "unsafe",
        "customers.iter",
        UploadReceipt,
        lambda ns, ids, o: ns.customers.check(ids["workspace"], ids["group"], file=b"external_id\n7\n8\n", options=o),
        needs="group",
    ),
    _row(
        "customers.check(customers)",
        "unsafe",
        "customers.iter",
        UploadReceipt,
        lambda ns, ids, o: ns.customers.check(
            ids["workspace"], ids["group"], customers=[{"external_id": "7"}], options=o
        ),
        needs="group",
    ),
    _row(
        "customers.count_pages",
        "safe",
        None,
        int,
        lambda ns, ids, o: ns.customers.count_pages(ids["group"], options=o),
        needs="group",
    ),
    _row(
        "customers.list",
        "safe",
        None,
        list,
        lambda ns, ids, o: ns.customers.list(ids["group"], options=o),
        needs="group",
    ),
    _row(
        "customers.update",
        "idempotent",
        "customers.iter",
        UpdateReceipt,
        lambda ns, ids, o: ns.customers.update(
            ids["group"],
            [{"customer_id": ids["customer"], "extended_profile": {"external_id": "new"}}],
            options=o,
        ),
        needs="customer",
    ),
    _row(
        "customers.delete",
        "idempotent",
        "customers.iter",
        DeleteReceipt,
        lambda ns, ids, o: ns.customers.delete(ids["group"], [ids["customer"]], options=o),
        needs="customer",
    ),
    _row(
        "customer_groups.create",
        "unsafe",
        "customer_groups.list",
        CustomerGroup,
        lambda ns, ids, o: ns.customer_groups.create(ids["workspace"], "New", options=o),
    ),
    _row(
        "customer_groups.list",
        "safe",
        None,
        list,
        lambda ns, ids, o: ns.customer_groups.list(ids["workspace"], options=o),
        needs="group",
    ),
    _row(
        "customer_groups.update",
        "idempotent",
        "customer_groups.list",
        CustomerGroup,
        lambda ns, ids, o: ns.customer_groups.update(ids["workspace"], ids["group"], "Renamed", options=o),
        needs="group",
    ),
    _row(
        "customer_groups.delete",
        "idempotent",
        "customer_groups.list",
        Receipt,
        lambda ns, ids, o: ns.customer_groups.delete(ids["workspace"], ids["group"], options=o),
        needs="group",
    ),
    _row(
        "profile_fields.create",
        "unsafe",
        "profile_fields.list",
        ProfileField,
        lambda ns, ids, o: ns.profile_fields.create(ids["workspace"], "city", "string", options=o),
    ),
    _row(
        "profile_fields.list",
        "safe",
        None,
        list,
        lambda ns, ids, o: ns.profile_fields.list(ids["workspace"], options=o),
        needs="field",
    ),
    _row(
        "profile_fields.update",
        "idempotent",
        "profile_fields.list",
        ProfileField,
        lambda ns, ids, o: ns.profile_fields.update(ids["workspace"], ids["field"], field_name="renamed", options=o),
        needs="field",
    ),
    _row(
        "profile_fields.delete",
        "idempotent",
        "profile_fields.list",
        Receipt,
        lambda ns, ids, o: ns.profile_fields.delete(ids["workspace"], ids["field"], options=o),
        needs="field",
    ),
    _row("campaigns.list", "safe", None, list, lambda ns, _, o: ns.campaigns.list(options=o), needs="Published"),
    _row(
        "messages.publish",
        "unsafe",
        "campaigns.list",
        PublishReceipt,
        lambda ns, ids, o: ns.messages.publish(ids["campaign"], options=o),
        needs="Ready to publish",
    ),
    _row(
        "messages.count_pages",
        "safe",
        None,
        int,
        lambda ns, ids, o: ns.messages.count_pages(ids["campaign"], options=o),
        needs="Published",
    ),
    *(
        _row(
            f"messages.fetch({form})",
            "safe",
            None,
            answer,
            lambda ns, ids, o, form=form: _fetch(ns, ids, o, form),  # type: ignore[misc]
            needs="Published",
        )
        for form, answer in (("csv", str), ("json", list), ("url", DownloadLink))
    ),
    _row(
        "reruns.history",
        "safe",
        None,
        list,
        lambda ns, ids, o: ns.reruns.history(ids["campaign"], options=o),
        needs="Published",
    ),
    _row(
        "reruns.messages",
        "safe",
        None,
        list,
        lambda ns, ids, o: ns.reruns.messages(ids["campaign"], options=o),
        needs="Published",
    ),
    _row(
        "reruns.initiate",
        "unsafe",
        "reruns.history",
        RerunReceipt,
        lambda ns, ids, o: ns.reruns.initiate(ids["campaign"], ids["group"], options=o),
        needs="Published",
    ),
    *(
        _row(f"{operation}({kind.name.lower()})", retry, look, answer, call, kind=kind)
        for kind in (Kind.LOGIN, Kind.RENEWAL)
        for operation, retry, look, answer, call in (
            (
                "customer_groups.create",
                "unsafe",
                "customer_groups.list",
                CustomerGroup,
                lambda ns, ids, o: ns.customer_groups.create(ids["workspace"], "New", options=o),
            ),
            (
                "customer_groups.list",
                "safe",
                None,
                list,
                lambda ns, ids, o: ns.customer_groups.list(ids["workspace"], options=o),
            ),
        )
    ),
)


async def _prepare(sandbox: Sandbox, needs: str) -> Ids:
    """What the call of a row is about, made without a request."""
    ids = {"workspace": sandbox.workspace_id}
    if needs in {"field", "group", "customer", "Published", "Ready to publish"}:
        ids["field"] = await sandbox.create_profile_field("external_id", "string")
    if needs not in {"", "field"}:
        people = [{"external_id": "1"}, {"external_id": "2"}]
        ids["group"] = await sandbox.create_customer_group("Old", customers=people)
    if needs in {"Published", "Ready to publish"}:
        ids["campaign"] = await sandbox.create_campaign("C", ids["group"], status=needs)  # type: ignore[arg-type]
    if needs == "customer":
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
            ids["customer"] = (await ns.customers.list(ids["group"]))[0].customer_id
    return ids


# --- troubles --------------------------------------------------------------------------------------------------------


class Back(Enum):
    """What the client gets to see."""

    ANSWER = auto()
    """The true answer, if in an unusual way."""

    NO_CONNECTION = auto()
    """It could not connect."""

    LOST = auto()
    """A connection, and no usable answer on it."""

    BUSY = auto()
    """A refusal before the work: 429, or 503 with ``Retry-After``."""

    FAILED = auto()
    """408, 500, 502, 503 or 504: nobody knows how far the work has come."""

    FINAL = auto()
    """Another refusal."""

    UNREADABLE = auto()
    """A success that is visibly no answer of the service."""

    NONSENSE = auto()
    """A success that looks like an answer, and does not fit the contract."""

    REFUSED_TOKEN = auto()
    """The token is not accepted."""

    TOO_LATE = auto()
    """Nothing, before the deadline of the call."""


@frozen(kw_only=True)
class Trouble:
    """One fault, with what the server does and what the client gets to see of it."""

    name: str
    back: Back
    done: bool
    """Whether the server does the work all the same."""
    fault: Callable[[], ProxyFault | SandboxFault] | None = None
    """``None``: nobody listens."""
    status: int = 0
    tokens: str = ""
    """What becomes of the tokens: the ``access`` token of the request or ``all`` of them are refused."""
    late: bool = False
    """Whether the client renews its token while the refusal is on its way."""
    slow: bool = False
    """Whether it takes real time, so that all rows had better have it at once."""
    retry_after: float = 0.0
    in_body: bool = False
    """Whether the status arrives, and the rest does not."""

    def seen_by(self, row: Row) -> Trouble:
        """As the client sees it in answer to this operation: of a file of rows, only a page or nothing is visibly none."""
        if (
            self.back is Back.UNREADABLE
            and row.answer is str
            and self.name in {"corrupt-body", "answer-truncated-json"}
        ):
            return evolve(self, back=Back.NONSENSE)
        return self

    def befalls(self, row: Row) -> bool:
        """Whether there is such a cell."""
        if self.tokens and row.target == "auth.authenticate":
            return False  # a login has no token
        if self.late and row.target == "auth.reauthenticate":
            return False  # there is one renewal at a time
        # To keep the renewal from connecting would keep the call from it.
        return not (self.fault is None and row.kind is Kind.RENEWAL)


def _garbage() -> bytes:
    return bytes(range(14, 32)) + b"\r\n\r\n"


_HALF = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n[{"
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)  # a moment that is over asks for no wait, and is asked for all the same
_JSON = "application/json"
_BAD: dict[str, tuple[bytes, str]] = {
    "html": (b"<!doctype html><html><body>Sign in to the network</body></html>", "text/html"),
    "truncated-json": (b'[{"customer_group_id": "g', _JSON),
    "empty": (b"", _JSON),
    "null": (b"null", _JSON),
    "wrong-type": (b'"text"', _JSON),
    "invalid-utf8": (b'{"a": "\xff\xfe"}', _JSON),
}


def _lost(
    name: str,
    fault: Callable[[], ProxyFault | SandboxFault],
    *,
    done: bool,
    slow: bool = False,
    in_body: bool = False,
) -> Trouble:
    return Trouble(name=name, back=Back.LOST, done=done, fault=fault, slow=slow, in_body=in_body)


def _status(
    name: str, status: int, back: Back, *, done: bool = False, retry_after: float | datetime | None = None
) -> Trouble:
    return Trouble(
        name=name,
        back=back,
        done=done,
        status=status,
        fault=lambda: Status(status, retry_after=retry_after, after_work=done),
        retry_after=retry_after if isinstance(retry_after, float) else 0.0,
    )


def _network() -> list[Trouble]:
    troubles = [Trouble(name="refused-connection", back=Back.NO_CONNECTION, done=False)]
    for kind in (Reset, Close):
        for at, done in (("before_request", False), ("in_request", False), ("after_request", True), ("in_body", True)):
            troubles.append(
                _lost(
                    f"{kind.__name__.lower()}-{at}",
                    lambda kind=kind, at=at: kind(at=at),  # type: ignore[misc]
                    done=done,
                    in_body=at == "in_body",
                )
            )
    troubles.append(_lost("truncate", Truncate, done=True, in_body=True))
    for at, done in (("request", False), ("head", True), ("body", True)):
        troubles.append(
            _lost(
                f"stall-{at}",
                lambda at=at: Stall(at=at),  # type: ignore[misc]
                done=done,
                slow=True,
                in_body=at == "body",
            )
        )
    troubles += [
        Trouble(name="trickle", back=Back.ANSWER, done=True, fault=lambda: Trickle(pause=0.0)),
        _lost("corrupt-status", lambda: Corrupt(where="status"), done=True),
        _lost("corrupt-head", lambda: Corrupt(where="head"), done=True),
        Trouble(
            name="corrupt-body",
            back=Back.UNREADABLE,
            done=True,
            status=200,
            fault=lambda: Corrupt(where="body"),
            in_body=True,
        ),
        _lost("replaced-by-garbage", lambda: Replace(raw=_garbage()), done=False),
        _lost("replaced-by-nothing", lambda: Replace(raw=b""), done=False),
        _lost("replaced-by-half-an-answer", lambda: Replace(raw=_HALF), done=False),
    ]
    return troubles


def _service() -> list[Trouble]:
    troubles = [
        _status("429", 429, Back.BUSY),
        _status("429-in-seconds", 429, Back.BUSY, retry_after=0.03),
        _status("429-at-a-date", 429, Back.BUSY, retry_after=_LONG_AGO),
        _status("503-in-seconds", 503, Back.BUSY, retry_after=0.03),
        _status("503-at-a-date", 503, Back.BUSY, retry_after=_LONG_AGO),
    ]
    troubles += [_status(str(status), status, Back.FAILED) for status in (408, 500, 502, 503, 504)]
    troubles += [_status(f"{status}-after-work", status, Back.FAILED, done=True) for status in (500, 502, 504)]
    troubles += [_status(str(status), status, Back.FINAL) for status in (400, 402, 404, 409, 413, 422)]
    troubles += [
        Trouble(name="delay", back=Back.TOO_LATE, done=True, fault=lambda: Delay(_LATE), slow=True),
        _lost("lose-request", LoseRequest, done=False),
        _lost("lose-answer", LoseAnswer, done=True),
        Trouble(
            name="refuse-token",
            back=Back.REFUSED_TOKEN,
            done=False,
            status=403,
            fault=RefuseToken,
            tokens="access",
        ),
        Trouble(
            name="refuse-token-401",
            back=Back.REFUSED_TOKEN,
            done=False,
            status=401,
            fault=lambda: RefuseToken(status=401),
            tokens="access",
        ),
        Trouble(
            name="refuse-token-late",
            back=Back.REFUSED_TOKEN,
            done=False,
            status=403,
            fault=lambda: RefuseToken(delay=_LATE / 3),
            tokens="access",
            late=True,
            slow=True,
        ),
        Trouble(
            name="revoke-tokens",
            back=Back.REFUSED_TOKEN,
            done=False,
            status=403,
            fault=RevokeTokens,
            tokens="access",
        ),
        Trouble(
            name="revoke-all-tokens",
            back=Back.REFUSED_TOKEN,
            done=False,
            status=403,
            fault=lambda: RevokeTokens(refresh_tokens=True),
            tokens="all",
        ),
    ]
    for name, (body, content_type) in _BAD.items():
        troubles.append(
            Trouble(
                name=f"answer-{name}",
                back=Back.UNREADABLE if name in {"html", "truncated-json", "empty"} else Back.NONSENSE,
                done=True,
                status=200,
                fault=lambda body=body, kind=content_type: BadAnswer(body, content_type=kind),  # type: ignore[misc]
            )
        )
    troubles.append(
        Trouble(
            name="rate-limit",
            back=Back.BUSY,
            done=False,
            status=429,
            fault=lambda: RateLimit(requests=1, per=3_600, retry_after=False),
        )
    )
    return troubles


TROUBLES: tuple[Trouble, ...] = (*_network(), *_service())


# --- transports ------------------------------------------------------------------------------------------------------


def _httpx() -> Transport:
    from nudgescribe_async.transport.httpx import HttpxTransport

    return HttpxTransport()


def _pyreqwest() -> Transport:
    from nudgescribe_async.transport.pyreqwest import PyreqwestTransport

    return PyreqwestTransport()


# Those that have a socket. The first is the one of most users, and of all other tests.
TRANSPORTS: Mapping[str, Callable[[], Transport]] = {
    "aiohttp": AiohttpTransport,
    "httpx": _httpx,
    "pyreqwest": _pyreqwest,
}


def may_hold_one_more(transport: str, row: Row, trouble: Trouble) -> bool:
    """Whether there may be one connection more than requests at once, as the transport says itself.

    That over pyreqwest has other connections for uploads, and cannot take back a request that nobody waits for any more:
    it is answered, and its connection kept for the next.
    """
    return transport == "pyreqwest" and (row.name == "customers.check(file)" or trouble.back is Back.TOO_LATE)


def may_be_stuck(transport: str, row: Row, trouble: Trouble) -> bool:
    """Whether a connection may outlive the client, as the transport says itself.

    That over pyreqwest waits for the answer to an upload that was sent whole as long as the server does not close.
    """
    return transport == "pyreqwest" and row.name == "customers.check(file)" and trouble.name.startswith("stall-")


# --- one cell --------------------------------------------------------------------------------------------------------


@define(kw_only=True)
class Observation:
    """What happened in one cell: in the call, and on the way to it and from it."""

    answer: object = None
    error: NudgescribeError | None = None
    sent: Counter[str] = field(factory=Counter[str])
    """Requests that the client has sent, or tried to."""
    arrived: Counter[str] = field(factory=Counter[str])
    """Those whose head came through to the proxy."""
    effects: Counter[str] = field(factory=Counter[str])
    logged_effects: Counter[str] = field(factory=Counter[str])
    waits: list[float] = field(factory=list[float])
    """How long the client said that it would wait before a retry."""
    tokens_from: list[str] = field(factory=list[str])
    connections_too_many: int = 0
    """Those that are open when all is over, beyond as many as there were requests at once."""
    connections_at_the_end: int = 0
    as_meant: bool = True
    """Whether each request came as far as the trouble lets it, before the client gave it up."""


class Witness(Protocol):
    """Who looks at all that happens in a cell."""

    def begin(self, sandbox: Sandbox, proxy: FaultProxy, ns: Nudgescribe) -> None:
        """Before the first request."""
        ...

    def end(self, observation: Observation) -> None:
        """After the last one, while everything is still there."""
        ...


class _Clock(SystemClock):
    """Tells when the client is about to wait."""

    def __init__(self) -> None:
        self.before_sleep: Callable[[], Awaitable[None]] | None = None

    async def sleep(self, seconds: float) -> None:
        if self.before_sleep is not None:
            await self.before_sleep()
        await super().sleep(seconds)


@define
class _Counts:
    arrived: Counter[str]
    effects: Counter[str]
    logged: Counter[str]

    @classmethod
    def of(cls, sandbox: Sandbox, proxy: FaultProxy) -> _Counts:
        return cls(
            Counter(exchange.operation for exchange in proxy.log if exchange.operation is not None),
            Counter(sandbox.effects),
            Counter(record.operation for record in sandbox.log if record.effect and record.operation is not None),
        )


async def observe(
    row: Row, trouble: Trouble, *, forever: bool, transport: str = "aiohttp", witness: Witness | None = None
) -> Observation:
    """Let a trouble befall a call over a transport, once or for ever."""
    observation = Observation()
    clock = _Clock()
    options = CallOptions(timeout=_DEADLINE) if trouble.back is Back.TOO_LATE else None
    timeout = Timeout(
        # What is not called with options has the client's own deadline.
        total=_DEADLINE if trouble.back is Back.TOO_LATE and row.operation.startswith("auth.") else None,
        read=_READ if trouble.name.startswith("stall") else 30.0,
    )
    async with Sandbox() as sandbox, FaultProxy(sandbox.url, seed=1) as proxy:
        ids = await _prepare(sandbox, row.needs)
        ns = Nudgescribe(
            sandbox.credentials,
            base_url=proxy.url,
            retry=RetryPolicy(attempts=ATTEMPTS, base=0.001, longest=0.002),
            timeout=timeout,
            api_code=API_CODE,
            clock=clock,
            transport=TRANSPORTS[transport](),
        )
        if witness is not None:
            witness.begin(sandbox, proxy, ns)
        async with ns:
            if row.kind is not Kind.LOGIN:
                await ns.auth.authenticate()
            if row.kind is Kind.RENEWAL:
                await sandbox.revoke_tokens()
            async with _in_trouble(row, trouble, sandbox, proxy, clock, forever=forever):
                before, behind = _Counts.of(sandbox, proxy), len(sandbox.log) - proxy.count()
                unsubscribe = ns.events.subscribe(lambda event: _note(observation, event))
                renewing = asyncio.ensure_future(_renew_meanwhile(ns, row, proxy)) if trouble.late else None
                try:
                    observation.answer = await row.call(ns, ids, options)
                except NudgescribeError as error:
                    observation.error = error
                if renewing is not None:
                    await renewing
            unsubscribe()
            if trouble.back is Back.TOO_LATE:
                await _until(
                    lambda: len(sandbox.log) - proxy.count() == behind, seconds=5.0
                )  # the server is still at it
            after = _Counts.of(sandbox, proxy)
            observation.arrived = after.arrived - before.arrived
            observation.effects = after.effects - before.effects
            observation.logged_effects = after.logged - before.logged
            observation.as_meant = +observation.arrived == +observation.sent and (
                not trouble.done or len(sandbox.log) - proxy.count() == behind
            )
            await _use_again(ns, sandbox, row, observation.error)
            at_once = 2 if trouble.late or (row.kind is Kind.RENEWAL and trouble.back is Back.TOO_LATE) else 1
            at_once += may_hold_one_more(transport, row, trouble)
            await _until(lambda: proxy.connections <= at_once)
            observation.connections_too_many = max(0, proxy.connections - at_once)
            if witness is not None:
                witness.end(observation)
        if not may_be_stuck(transport, row, trouble):
            await _until(lambda: proxy.connections == 0)
            observation.connections_at_the_end = proxy.connections
    return observation


@asynccontextmanager
async def _in_trouble(
    row: Row, trouble: Trouble, sandbox: Sandbox, proxy: FaultProxy, clock: _Clock, *, forever: bool
) -> AsyncIterator[None]:
    times = None if forever else 1
    fault = None if trouble.fault is None else trouble.fault()
    operation: str | None = row.target
    if isinstance(fault, RateLimit):
        # Somebody else has used up what is allowed. The renewal is not the first request of its call, so it is named.
        operation = row.target if row.target == "auth.reauthenticate" else None
        sandbox.inject(fault, operation=operation, times=times)
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as other:
            await other.auth.authenticate()
            if operation is not None:
                await other.auth.reauthenticate()
    elif fault is None:
        await proxy.refuse()
        for _ in range(20):  # the client learns that its connection is gone
            await asyncio.sleep(0)
        if not forever:
            clock.before_sleep = proxy.accept
    elif isinstance(fault, SandboxFault):
        sandbox.inject(fault, operation=operation, times=times)
    else:
        proxy.inject(fault, operation=operation, times=times)
    yield
    sandbox.clear_faults()
    proxy.clear()
    clock.before_sleep = None
    await proxy.accept()


async def _renew_meanwhile(ns: Nudgescribe, row: Row, proxy: FaultProxy) -> None:
    await _until(lambda: proxy.count(row.target) > 0)
    await ns.auth.reauthenticate()


async def _use_again(ns: Nudgescribe, sandbox: Sandbox, row: Row, error: NudgescribeError | None) -> None:
    """A plain call, as after any other.

    Refused credentials are held back for a while, unless somebody logs in. An operation that is refused with a fresh
    token is thought to be forbidden for a while, so another one is called.
    """
    if isinstance(error, AuthenticationError):
        await ns.auth.authenticate()
    if row.operation == "profile_fields.list":
        await ns.campaigns.list()
    else:
        await ns.profile_fields.list(sandbox.workspace_id)


async def _until(condition: Callable[[], bool], *, seconds: float = 2.0) -> None:
    """Wait until something is so, or for so long; the caller looks which."""
    ends = asyncio.get_running_loop().time() + seconds
    while not condition() and asyncio.get_running_loop().time() < ends:
        await asyncio.sleep(0.001)


def _note(observation: Observation, event: Event) -> None:
    match event:
        case RequestStarted(operation=operation):
            observation.sent[operation] += 1
        case RequestRetrying(after=after):
            observation.waits.append(after)
        case TokenRenewed(source=source):
            observation.tokens_from.append(source)
        case _:
            pass


# --- many cells at once ----------------------------------------------------------------------------------------------

_TOGETHER: dict[tuple[str, str, bool], dict[str, Observation | BaseException]] = {}


async def observed(row: Row, trouble: Trouble, *, forever: bool, transport: str = "aiohttp") -> Observation:
    """As ``observe``; of a slow trouble, all rows have it at once, and the result is kept for the others' turn."""
    if not trouble.slow:
        return await observe(row, trouble, forever=forever, transport=transport)
    key = transport, trouble.name, forever
    if key not in _TOGETHER:
        rows = [row for row in ROWS if trouble.befalls(row)]
        results: list[Any] = await asyncio.gather(
            *(observe(row, trouble, forever=forever, transport=transport) for row in rows), return_exceptions=True
        )
        _TOGETHER[key] = {row.name: result for row, result in zip(rows, results, strict=True)}
    result = _TOGETHER[key][row.name]
    if isinstance(result, BaseException):
        raise result
    # On a machine that is busy, with all of them at once, the client's patience can end before the server has begun.
    # Then it was another trouble than this one.
    return result if result.as_meant else await observe(row, trouble, forever=forever, transport=transport)
