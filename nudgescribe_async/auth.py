"""Who calls, and the tokens that prove it.

What a caller that needs a token gets, by the state of the token at hand:

==========  =======================================  ==========================================
state       when                                     what happens
==========  =======================================  ==========================================
fresh       until shortly before it expires          it is used
ageing      in the last part of its life             it is used; one renewal starts behind it
expired     from just before its end on, or absent   callers wait for the renewal
refused     the service said 401 or 403              the refused call waits for the renewal
==========  =======================================  ==========================================

There is one renewal at a time. It is a task of its own that all callers wait for, so that cancelling
one of them, the one that happened to start it included, fails nobody else. It looks into the store
(another process may have renewed already), then tries the refresh token, then the credentials.

A refused call asks for another token by naming the one it was sent with. If that is no longer the
current one, no renewal is needed. If the current one was bought *because* of such a refusal, and is
refused in the same way, then the refusal is not about the token: from then on refusals with that
status renew nothing. For 401, which in newer editions of the service means a missing field, that holds
for as long as the client lives; for 403, which stands for a bad token and for a missing permission
alike, it holds for the same operation, and one renewal is tried again after a minute, then after two,
four, and so on up to an hour.

Refused credentials are not sent again for ten seconds (then twenty, and so on up to five minutes):
callers get the same error at once. A locked account helps nobody.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import math
import os
import random
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

from attrs import Attribute, define, field, frozen

from nudgescribe_async.clock import Clock, SystemClock
from nudgescribe_async.endpoints.models import Tokens
from nudgescribe_async.errors import (
    APIStatusError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    NudgescribeError,
    ResponseDecodeError,
    ServerError,
)
from nudgescribe_async.events import Events, TokenRenewalFailed, TokenRenewed
from nudgescribe_async.retry import in_brief
from nudgescribe_async.shapes import NotPickled, Secret, hidden
from nudgescribe_async.token_store import FileTokenStore, MemoryTokenStore, StoredTokens, TokenStore, fits_header

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Credentials",
    "FileTokenStore",
    "MemoryTokenStore",
    "StoredTokens",
    "SupportsCredentials",
    "TokenIssuer",
    "TokenManager",
    "TokenStore",
    "Tokens",
]

VERDICT_WITHIN = 60.0
"""Seconds in which a second refusal with the same status shows that the token was not the reason."""


# --- credentials -----------------------------------------------------------------------------------


class SupportsCredentials(Protocol):
    """Anything with an API key, an e-mail address and a password."""

    @property
    def api_key(self) -> str:
        """The API key of the account."""
        ...

    @property
    def email(self) -> str:
        """The user's e-mail address."""
        ...

    @property
    def password(self) -> str:
        """The user's password."""
        ...


def _credential(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"Credentials({attribute.name}=...) must be text, not {type(value).__name__}.")
    if not value.strip():
        raise ConfigurationError(f"Credentials({attribute.name}=...) is empty.")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise ConfigurationError(f"Credentials({attribute.name}=...) has a line break or another control character.")
    if attribute.name == "api_key" and not value.isascii():
        raise ConfigurationError("Credentials(api_key=...) has letters beyond ASCII, which no header can hold.")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in value):
        raise ConfigurationError(f"Credentials({attribute.name}=...) has a lone surrogate.")


@frozen(kw_only=True)
class Credentials(NotPickled):
    """What the user logs in with. ``repr()`` hides all of it, and it cannot be pickled.

    Attributes:
        api_key: the API key of the account.
        email: the user's e-mail address.
        password: the user's password.

    Raises:
        ConfigurationError: one of them is empty or no text; the error names it.
    """

    api_key: str = field(repr=hidden, validator=_credential)
    email: str = field(repr=hidden, validator=_credential)
    password: str = field(repr=hidden, validator=_credential)

    @classmethod
    def of(cls, credentials: SupportsCredentials) -> Credentials:
        """The credentials in anything that has them."""
        if isinstance(credentials, Credentials):
            return credentials
        for name in ("api_key", "email", "password"):
            if not hasattr(credentials, name):
                raise ConfigurationError(
                    f"Credentials are needed, with api_key, email and password; {type(credentials).__name__} has no {name}."
                )
        return cls(api_key=credentials.api_key, email=credentials.email, password=credentials.password)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Credentials:
        """The credentials in ``NUDGESCRIBE_API_KEY``, ``NUDGESCRIBE_EMAIL`` and ``NUDGESCRIBE_PASSWORD``.

        Args:
            environ: instead of ``os.environ``.

        Raises:
            ConfigurationError: variables are missing, empty or wrong; the error names them.
        """
        names = {"api_key": "NUDGESCRIBE_API_KEY", "email": "NUDGESCRIBE_EMAIL", "password": "NUDGESCRIBE_PASSWORD"}
        # No local variable holds the environment, lest a traceback shows it.
        found = {
            name: Secret((os.environ if environ is None else environ).get(variable, ""))
            for name, variable in names.items()
        }
        missing = [names[name] for name, value in found.items() if not value.strip()]
        if missing:
            raise ConfigurationError(f"Set {', '.join(missing)} in the environment: missing or empty.")
        try:
            return cls(**found)
        except ConfigurationError as error:
            text = error.message
            for name, variable in names.items():
                text = text.replace(f"Credentials({name}=...)", f"{variable} in the environment")
            raise ConfigurationError(text) from None

    def fingerprint(self, base_url: str) -> str:
        """A name for these credentials at this service, from which they cannot be told."""
        return hashlib.sha256(f"{base_url}\0{self.email}\0{self.api_key}".encode()).hexdigest()[:32]


# --- the manager -----------------------------------------------------------------------------------


class TokenIssuer(Protocol):
    """Where tokens come from."""

    async def authenticate(self) -> Tokens:
        """Log in with the credentials."""
        ...

    async def reauthenticate(self, refresh_token: str) -> Tokens:
        """Exchange a refresh token."""
        ...


class Replacement(Enum):
    """What became of a token that was refused."""

    NEWER = auto()
    """There was a newer one already."""

    RENEWED = auto()
    """A new one was bought, because of this refusal or another of the same token."""

    KEPT = auto()
    """The refusal is not about the token: none was bought."""


@define
class _Gate:
    """Whether refusals with one status renew the token."""

    survivals: int = 0
    closed_until: float = -math.inf


@define
class _Held:
    """The tokens at hand, with their moments on the monotonic clock."""

    tokens: StoredTokens
    renew_at: float
    expires_at: float
    held_since: float
    bought_for: int | None = None
    """The status of the refusal that they were bought for, until it is known whether that helped."""


class TokenManager:
    """Hands out the access token, and sees to it that there is one.

    Any number of callers at once. ``aclose`` ends the renewal under way, and fails those who wait for it
    with ``ClientClosedError``.
    """

    def __init__(
        self,
        issuer: TokenIssuer,
        *,
        fingerprint: str,
        store: TokenStore | None = None,
        clock: Clock | None = None,
        events: Events | None = None,
    ) -> None:
        self._issuer = issuer
        self._fingerprint = fingerprint
        self._store: TokenStore = store if store is not None else MemoryTokenStore()
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._events = events if events is not None else Events()
        self._held: _Held | None = None
        self._former: StoredTokens | None = None
        self._renewal: asyncio.Task[_Held] | None = None
        self._renewal_is_login = False
        self._refused: str | None = None
        self._gates: dict[tuple[int, str], _Gate] = {}
        self._bad_token_status: set[int] = set()
        self._background_after = -math.inf
        self._background_failures = 0
        self._rejection: AuthenticationError | None = None
        self._rejections = 0
        self._rejected_until = -math.inf
        self._closed = False

    def secrets(self) -> tuple[str, ...]:
        """The tokens at hand and those before them, so that they can be masked where a text from outside is kept."""
        return tuple(
            token
            for tokens in filter(None, (self._held.tokens if self._held is not None else None, self._former))
            for token in (tokens.access_token, tokens.refresh_token)
            if token is not None
        )

    def newest(self, token: str) -> str:
        """The token at hand, for a call that has waited since it got ``token``."""
        return token if self._held is None else self._held.tokens.access_token

    async def token(self) -> str:
        """An access token that ought to work.

        Raises:
            AuthenticationError: none could be had.
            NudgescribeError: the service could not be asked for one.
        """
        held = self._held
        if held is not None:
            now = self._clock.monotonic()
            if now < held.renew_at:
                return held.tokens.access_token
            if now < held.expires_at:
                if (
                    self._renewal is None
                    and not self._closed
                    and now >= max(self._background_after, self._rejected_until)
                ):
                    self._start(refresh=True)
                return held.tokens.access_token
        return (await self._renewed()).tokens.access_token

    async def replace(self, refused: str, status: int, operation: str) -> Replacement:
        """Another access token in place of one that the service refused, if that may help.

        Args:
            refused: the token that the refused call was sent with.
            status: 401 or 403.
            operation: what was refused.
        """
        held = self._held
        if held is None or held.tokens.access_token != refused:
            return Replacement.NEWER
        now = self._clock.monotonic()
        if now < self._gate(status, operation).closed_until:
            return Replacement.KEPT
        if held.bought_for == status and now - held.held_since < VERDICT_WITHIN:
            self.settle(refused, status, operation, helped=False)
            return Replacement.KEPT
        self._refused = refused
        await self._renewed(bought_for=status)
        return Replacement.RENEWED

    def settle(self, token: str, status: int, operation: str, *, helped: bool) -> None:
        """Whether a token that was bought because of a refusal was then accepted, or refused alike."""
        held = self._held
        if held is None or held.tokens.access_token != token or held.bought_for != status:
            return
        held.bought_for = None
        gate = self._gate(status, operation)
        if helped:
            self._bad_token_status.add(status)
            gate.survivals, gate.closed_until = 0, -math.inf
            return
        gate.survivals += 1
        if status == 401 and status not in self._bad_token_status:
            gate.closed_until = math.inf
        else:
            gate.closed_until = self._clock.monotonic() + _doubled(60.0, gate.survivals, longest=3600.0)

    def _gate(self, status: int, operation: str) -> _Gate:
        # A missing permission is one of an operation; what 401 means is a matter of the service's edition.
        return self._gates.setdefault((status, "" if status == 401 else operation), _Gate())

    async def login(self) -> Tokens:
        """Log in now, whatever the state of the token, and whatever was refused before."""
        while self._renewal is not None and not self._renewal_is_login:
            await asyncio.wait([self._renewal])  # a renewal with the refresh token is not what was asked for
        if self._renewal is None:
            self._rejected_until = -math.inf
        return self._copied(await self._renewed(refresh=False))

    async def refresh(self) -> Tokens:
        """Renew now, with the refresh token if there is one."""
        return self._copied(await self._renewed())

    def _copied(self, held: _Held) -> Tokens:
        return Tokens(
            access_token=held.tokens.access_token,
            refresh_token=held.tokens.refresh_token,
            expires_in=max(0, int(held.tokens.expires_at - self._clock.time())),
        )

    async def aclose(self) -> None:
        """End the renewal under way. May be called more than once."""
        self._closed = True
        renewal = self._renewal
        if renewal is not None and not renewal.get_loop().is_closed():
            renewal.cancel()
            await asyncio.wait([renewal])

    # --- the one renewal ---------------------------------------------------------------------------

    def _start(self, *, refresh: bool, bought_for: int | None = None) -> asyncio.Task[_Held]:
        renewal = asyncio.create_task(self._renew(refresh=refresh, bought_for=bought_for), name="nudgescribe renewal")
        self._renewal = renewal
        self._renewal_is_login = not refresh
        renewal.add_done_callback(self._ended)
        return renewal

    def _ended(self, renewal: asyncio.Task[_Held]) -> None:
        self._renewal = None
        if not renewal.cancelled() and renewal.exception() is not None:
            # Nobody may be waiting, if it ran behind a token that still works.
            self._background_failures += 1
            pause = _doubled(5.0, self._background_failures, longest=300.0)
            self._background_after = self._clock.monotonic() + pause
        else:
            self._background_failures = 0

    async def _renewed(self, *, refresh: bool = True, bought_for: int | None = None) -> _Held:
        """The result of the renewal under way, or of a new one.

        Args:
            refresh: whether a new one may use the refresh token.
            bought_for: the status that a new one is the answer to.
        """
        if self._closed:
            raise ClientClosedError("The client is closed.")
        if self._rejection is not None and self._clock.monotonic() < self._rejected_until:
            raise copy.copy(self._rejection)
        renewal = self._renewal or self._start(refresh=refresh, bought_for=bought_for)
        try:
            return await asyncio.shield(renewal)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if renewal.cancelled() and caller is not None and not caller.cancelling():
                raise ClientClosedError("The client was closed while the call waited for a token.") from None
            raise
        except NudgescribeError as error:
            # Many may be waiting; each gets an error of its own, since raising one writes on it.
            raise copy.copy(error) from error.__cause__

    async def _renew(self, *, refresh: bool, bought_for: int | None) -> _Held:
        async with self._store.lock():
            stored = await self._store.load(self._fingerprint)
            current = self._held.tokens if self._held is not None else None
            if refresh and stored is not None and self._is_news(stored, current):
                return self._hold(stored, source="store")
            newest = max(filter(None, (stored, current)), key=lambda tokens: tokens.obtained_at, default=None)
            tokens: StoredTokens | None = None
            source = "refresh"
            if refresh and newest is not None:
                tokens = await self._refreshed(newest)
            if tokens is None:
                source = "login"
                tokens = self._dated(await self._logged_in(), before=None)
            await self._save(tokens)
        return self._hold(tokens, source=source, bought_for=bought_for)

    async def _save(self, tokens: StoredTokens) -> None:
        try:
            await self._store.save(self._fingerprint, tokens)
        except ConfigurationError as error:
            # The tokens are good all the same, and throwing them away would mean a login for every call.
            self._events.emit(TokenRenewalFailed(source="store", error=in_brief(error)))

    def _is_news(self, stored: StoredTokens, current: StoredTokens | None) -> bool:
        """Whether the store has a token that is worth trying."""
        known = {self._refused} if current is None else {self._refused, current.access_token}
        return stored.access_token not in known and self._clock.time() < stored.usable_until

    async def _refreshed(self, newest: StoredTokens) -> StoredTokens | None:
        if newest.refresh_token is None or self._clock.time() >= newest.refresh_expires_at:
            return None
        try:
            return self._dated(await self._issuer.reauthenticate(newest.refresh_token), before=newest)
        except ClientClosedError:
            raise
        except NudgescribeError as error:
            # Refused, used up, or nobody knows: the credentials settle it.
            self._events.emit(TokenRenewalFailed(source="refresh", error=in_brief(error)))
            return None

    async def _logged_in(self) -> Tokens:
        try:
            tokens = await self._issuer.authenticate()
        except ResponseDecodeError as error:
            self._events.emit(TokenRenewalFailed(source="login", error=in_brief(error)))
            raise AuthenticationError(
                f"The service accepted the login, and its answer holds no token that can be read: {error.message}",
                operation=error.operation,
                request_id=error.request_id,
                attempts=error.attempts,
            ) from error
        except NudgescribeError as error:
            self._events.emit(TokenRenewalFailed(source="login", error=in_brief(error)))
            if not isinstance(error, APIStatusError) or isinstance(error, ServerError) or error.status in (408, 429):
                raise
            elsewhere = 300 <= error.status <= 399 or error.status in (404, 405, 410)
            check = "base_url" if elsewhere else "the API key, the e-mail address and the password"
            said = f': "{error.said}"' if error.said else ""
            rejection = AuthenticationError(
                f"The service refused the login (HTTP {error.status}){said}. Check {check}.",
                status=error.status,
                operation=error.operation,
                request_id=error.request_id,
                attempts=error.attempts,
            )
            self._rejections += 1
            pause = _doubled(10.0, self._rejections, longest=300.0)
            self._rejected_until = self._clock.monotonic() + pause
            self._rejection = copy.copy(rejection)  # without the traceback, which would keep its frames alive
            raise rejection from error
        self._rejection, self._rejections = None, 0
        return tokens

    def _dated(self, tokens: Tokens, *, before: StoredTokens | None) -> StoredTokens:
        if not fits_header(tokens.access_token):
            raise AuthenticationError(
                "The service answered with an access token that no header can hold.", operation="auth.authenticate"
            )
        return StoredTokens.from_answer(tokens, before=before, now=self._clock.time())

    def _hold(self, tokens: StoredTokens, *, source: str, bought_for: int | None = None) -> _Held:
        left = tokens.expires_at - self._clock.time()
        now = self._clock.monotonic()
        lifetime = max(tokens.expires_at - tokens.obtained_at, 0.0)
        # With jitter, so that a fleet that was started together does not renew together.
        ageing = min(3600.0, lifetime / 5) * random.uniform(0.75, 1.0)  # noqa: S311
        self._former = self._held.tokens if self._held is not None else None
        self._held = _Held(
            tokens,
            renew_at=now + left - ageing,
            expires_at=now + tokens.usable_until - self._clock.time(),
            held_since=now,
            bought_for=bought_for,
        )
        self._events.emit(TokenRenewed(source=source, expires_after=left))
        return self._held


def _doubled(first: float, times: int, *, longest: float) -> float:
    """A pause in seconds: ``first``, then twice as long each time, up to ``longest``."""
    return min(first * 2.0 ** min(times - 1, 10), longest)
