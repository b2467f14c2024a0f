"""``Nudgescribe``: builds the parts, hands them to each other, closes them."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import warnings
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from nudgescribe_async.address import checked_base_url
from nudgescribe_async.auth import Credentials, SupportsCredentials, TokenManager, TokenStore
from nudgescribe_async.clock import Clock, SystemClock
from nudgescribe_async.codec import dumps
from nudgescribe_async.endpoints.auth import AuthEndpoints
from nudgescribe_async.endpoints.campaigns import CampaignsEndpoints
from nudgescribe_async.endpoints.customer_groups import CustomerGroupsEndpoints
from nudgescribe_async.endpoints.profile_fields import ProfileFieldsEndpoints
from nudgescribe_async.errors import ClientClosedError, ConfigurationError
from nudgescribe_async.events import Events
from nudgescribe_async.options import LONGEST, Priority, RetryBudget, RetryPolicy, Timeout, check_whole_number
from nudgescribe_async.profiles import checked_decryptor
from nudgescribe_async.reading import MAX_ANSWER_BYTES
from nudgescribe_async.resources.auth import Auth
from nudgescribe_async.resources.customers import Customers
from nudgescribe_async.resources.messages import Messages
from nudgescribe_async.resources.reruns import Reruns
from nudgescribe_async.session import Session
from nudgescribe_async.shapes import Secret
from nudgescribe_async.throttle import Budget, Throttle
from nudgescribe_async.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Self

    from nudgescribe_async.endpoints.models import Tokens
    from nudgescribe_async.profiles import ProfileDecryptor

__all__ = ["DEFAULT_BASE_URL", "Nudgescribe"]

DEFAULT_BASE_URL = "https://client-api.nudgescribe.com"


class _Issuer:
    """Buys tokens with the credentials, through the session as everything else."""

    def __init__(self, session: Session, credentials: Credentials) -> None:
        self._endpoints = AuthEndpoints(session)
        self._credentials = credentials

    async def authenticate(self) -> Tokens:
        owner = self._credentials
        # Tracebacks that show local variables show those of the coroutines that these go through.
        return await self._endpoints.authenticate(Secret(owner.api_key), Secret(owner.email), Secret(owner.password))

    async def reauthenticate(self, refresh_token: str) -> Tokens:
        return await self._endpoints.reauthenticate(refresh_token)


class Nudgescribe:
    """The client.

    ::

        async with Nudgescribe(Credentials(api_key=..., email=..., password=...)) as ns:
            groups = await ns.customer_groups.list(workspace_id)

    One client serves any number of concurrent calls, for as long as the service runs; it logs in with the
    first call and renews its token in time. It belongs to the event loop of its first call, and says so when
    used from another. Nothing is opened before the first call, so a client may be built anywhere, and closed
    without having been used. Without ``async with``, call ``aclose()``; a client that was used and is
    forgotten warns with ``ResourceWarning``.

    Args:
        credentials: ``Credentials``, or anything with ``api_key``, ``email`` and ``password``.
        base_url: the address of the service; ``https://``, or plain ``http://`` on loopback.
        transport: sends the requests; an ``AiohttpTransport`` if left out. It is closed with the client.
        token_store: where tokens are kept; in memory if left out. See ``FileTokenStore``.
        concurrency: the most requests in flight at once, over all calls and iterators.
        timeout: how long things may take.
        retry: how often and how long apart calls are tried. Left out: 4 attempts of a plain call, 10 of the
            calls of an iterator, which then live through an outage of about a minute.
        retry_budget: how many retries all calls together may make.
        max_answer_bytes: a longer answer is not read to its end, and is a ``ResponseDecodeError``.
        first_page: from where the service counts pages, 0 or 1, should the contract be wrong about it (contract:
            1, assumed). Holds for ``customers.list``, ``messages.fetch`` and all that reads pages.
        profile_decryptor: what ``customer.profile()`` decrypts with; nothing else does. See ``ProfileDecryptor``.
        api_code: goes into the header ``x-auth-context`` of the message and rerun operations (contract:
            reference).
        client_address: the IP address of the end client for the service's audit log, in the header
            ``x-ip`` of the same operations (contract: reference).
        clock: the time, for tests.

    Attributes:
        auth: logging in and renewing by hand.
        customers: the customers of a group.
        customer_groups: the groups of a workspace.
        profile_fields: what a workspace knows of each customer.
        campaigns: the campaigns of the account.
        messages: publishing and reading messages.
        reruns: running campaigns again.
        events: tells subscribers what happens.

    Raises:
        ConfigurationError: an argument is missing or wrong; the error names it. Nothing was sent.
    """

    def __init__(
        self,
        credentials: SupportsCredentials,
        *,
        base_url: str = DEFAULT_BASE_URL,
        transport: Transport | None = None,
        token_store: TokenStore | None = None,
        concurrency: int = 64,
        timeout: Timeout | None = None,
        retry: RetryPolicy | None = None,
        retry_budget: RetryBudget | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        first_page: int | None = None,
        profile_decryptor: ProfileDecryptor | None = None,
        api_code: str | None = None,
        client_address: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(api_code, str):
            api_code = Secret(api_code)
        owner = Credentials.of(credentials)
        _check("timeout", timeout, Timeout)
        _check("retry", retry, RetryPolicy)
        _check("retry_budget", retry_budget, RetryBudget)
        check_whole_number("max_answer_bytes", max_answer_bytes)
        _check_first_page(first_page)
        profile_decryptor = checked_decryptor(profile_decryptor)
        _check_methods("token_store", token_store, ("lock", "load", "save"))
        _check_methods("clock", clock, ("monotonic", "time", "sleep", "call_later"))
        clock = clock if clock is not None else SystemClock()
        base_url = checked_base_url(base_url)
        context_headers = _context_headers(api_code, client_address)
        self.events = Events()
        throttle = Throttle(concurrency, clock=clock, events=self.events)
        self._transport = _transport(transport)
        self._clock = clock
        self._session = Session(
            base_url=base_url,
            transport=self._transport,
            throttle=throttle,
            budget=Budget(retry_budget if retry_budget is not None else RetryBudget(), clock=clock),
            clock=clock,
            events=self.events,
            timeout=timeout if timeout is not None else Timeout(),
            retry={
                Priority.INTERACTIVE: retry if retry is not None else RetryPolicy(),
                Priority.BULK: retry if retry is not None else RetryPolicy(attempts=10),
            },
            max_answer_bytes=max_answer_bytes,
            context_headers=context_headers,
            secrets=filter(None, (owner.api_key, owner.email, owner.password, api_code)),
            first_page=first_page,
            profile_decryptor=profile_decryptor,
        )
        self._tokens = self._session.tokens = TokenManager(
            _Issuer(self._session, owner),
            fingerprint=owner.fingerprint(base_url),
            store=token_store,
            clock=clock,
            events=self.events,
        )
        self._closing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._closed = False
        self.auth = Auth(self._session, self._tokens)
        self.customers = Customers(self._session)
        self.customer_groups = CustomerGroupsEndpoints(self._session)
        self.profile_fields = ProfileFieldsEndpoints(self._session)
        self.campaigns = CampaignsEndpoints(self._session)
        self.messages = Messages(self._session)
        self.reruns = Reruns(self._session)

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A client with the settings of the environment.

        ``NUDGESCRIBE_API_KEY``, ``NUDGESCRIBE_EMAIL`` and ``NUDGESCRIBE_PASSWORD`` are needed;
        ``NUDGESCRIBE_BASE_URL`` and ``NUDGESCRIBE_API_CODE`` are used if they are there.

        Args:
            options: as for ``Nudgescribe(...)``; they win over the environment.

        Raises:
            ConfigurationError: a variable is missing, empty or wrong; the error names it.
        """
        credentials = options.pop("credentials", None) or Credentials.from_env()
        for name, variable, check in (
            ("base_url", "NUDGESCRIBE_BASE_URL", checked_base_url),
            ("api_code", "NUDGESCRIBE_API_CODE", _secret_api_code),
        ):
            if variable in os.environ and name not in options:
                if not os.environ[variable].strip():
                    raise ConfigurationError(f"{variable} is set in the environment, and empty. Unset it or fill it.")
                try:
                    options[name] = check(os.environ[variable])
                except ConfigurationError as error:
                    raise ConfigurationError(f"{variable} in the environment is wrong: {error.message}") from None
        return cls(credentials, **options)

    def __repr__(self) -> str:
        session = getattr(self, "_session", None)  # a traceback may show one that could not be built
        if session is None:
            return "<Nudgescribe>"
        return f"<Nudgescribe {session.base_url}{' closed' if self._closed else ''}>"

    async def __aenter__(self) -> Self:
        if self._closed:
            raise ClientClosedError("The client is closed; build a new one.")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self, *, grace: float = 10.0) -> None:
        """Close the client.

        New calls are refused with ``ClientClosedError`` from now on. Calls under way have ``grace`` seconds to
        end; those that have not ended by then are ended, and raise ``ClientClosedError``, which says whether
        they may have taken effect. Then renewals and the transport are closed.

        May be called more than once, by several tasks, and before the first call; the shortest grace counts.
        Cancelling it cuts the grace short, and still closes: it returns when all is closed. From another event
        loop than that of the calls it closes only if that one is gone.

        Args:
            grace: seconds; 0 or less ends them at once.

        Raises:
            ConfigurationError: the client is in use in another event loop, or ``grace`` is no number of seconds.
                It stays open.
        """
        if isinstance(grace, bool) or not isinstance(cast("object", grace), int | float) or grace != grace:  # noqa: PLR0124 - no number
            raise ConfigurationError(f"grace must be a number of seconds; got {grace!r}.")
        if self._closing is not None and self._closing.done() and not self._closing.cancelled():
            return self._closing.result()
        self._session.refuse_calls()
        self._closed = True
        if self._closing is None or self._closing.done() or self._closing.get_loop().is_closed():
            self._hurry = asyncio.Event()
            self._closing = asyncio.create_task(self._close(self._hurry), name="nudgescribe close")
        closing, hurry, timer = self._closing, self._hurry, None
        if grace <= 0:
            hurry.set()
        elif grace <= LONGEST:
            timer = self._clock.call_later(grace, hurry.set)
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            hurry.set()
            while not closing.done():
                with suppress(asyncio.CancelledError):  # once is enough
                    await asyncio.wait([closing])
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise  # else it was the task of closing that was cancelled, which is done all the same
        finally:
            if timer is not None:
                timer.cancel()

    async def _close(self, hurry: asyncio.Event) -> None:
        """End the calls, then renewals, then connections.

        An event loop that shuts down cancels every task, this one too. That is a reason to hurry, and none to
        leave something open.
        """
        try:
            await _to_the_end(partial(self._session.aclose, hurry), hurry)
        finally:
            try:
                await _to_the_end(self._tokens.aclose, hurry)
            finally:
                await _to_the_end(self._transport.aclose, hurry)

    def __del__(self) -> None:
        # Only says so: closing needs an event loop, which may be gone or belong to somebody else.
        if not getattr(self, "_closed", True) and self._session.used:
            warnings.warn(
                f"{self!r} was never closed: use `async with` or `await ns.aclose()`.", ResourceWarning, 2, self
            )


async def _to_the_end(step: Callable[[], Awaitable[None]], hurry: asyncio.Event) -> None:
    """Take a step of closing, and take it again if it was cancelled."""
    try:
        await step()
    except asyncio.CancelledError:
        hurry.set()
        await step()
        raise


def _check(name: str, value: object, kind: type[Timeout | RetryPolicy | RetryBudget]) -> None:
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be a {kind.__name__}(...), not {type(value).__name__}.")


def _check_first_page(value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value not in {0, 1}):
        raise ConfigurationError(f"first_page must be 0 or 1; got {value!r}.")


def _check_methods(name: str, value: object, methods: Sequence[str]) -> None:
    if value is not None and not all(callable(getattr(value, method, None)) for method in methods):
        raise ConfigurationError(f"{name} must have {', '.join(methods)}; {type(value).__name__} has not.")


def _context_headers(api_code: str | None, client_address: str | None) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    if api_code is not None:
        context = dumps({"api_access": True, "api_code": _checked_api_code(api_code)})
        headers["x-auth-context"] = Secret(context.decode())
    if client_address is not None:
        headers["x-ip"] = _checked_address(client_address)
    return headers


def _checked_api_code(api_code: object) -> str:
    if not isinstance(api_code, str) or not api_code.strip() or not api_code.isascii() or not api_code.isprintable():
        raise ConfigurationError("api_code must be text of printable ASCII letters, and not empty.")
    return str.__str__(api_code)  # no Secret any more, since JSON knows plain text only


def _secret_api_code(api_code: object) -> Secret:
    return Secret(_checked_api_code(api_code))


def _checked_address(address: object) -> str:
    try:
        # A number is an address to ipaddress, and so is one with a zone, which means nothing elsewhere.
        if isinstance(address, int | bytes) or "%" in str(address):
            raise ValueError
        return str(ipaddress.ip_address(cast("str", address)))
    except ValueError:
        raise ConfigurationError(f"client_address must be an IP address; got {address!r}.") from None


def _transport(transport: Transport | None) -> Transport:
    if transport is None:
        # Loading aiohttp takes longer than all the rest; whoever brings another transport is spared it.
        from nudgescribe_async.transport.aiohttp import AiohttpTransport  # noqa: PLC0415

        return AiohttpTransport(limit=0)  # the client's own limit holds
    given: object = transport
    if isinstance(given, type):
        raise ConfigurationError(f"transport must be an object, and this is the class: {given.__name__}(...).")
    if not isinstance(given, Transport):
        raise ConfigurationError(f"transport must have send() and aclose(); {type(given).__name__} has not.")
    return transport
