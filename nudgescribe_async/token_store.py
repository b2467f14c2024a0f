"""Tokens with the moment they end, and the places where they can be kept."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import os
import tempfile
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from attrs import converters, define, field, frozen

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.shapes import NotPickled, Secret, hidden
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from nudgescribe_async.endpoints.models import Tokens

__all__ = ["FileTokenStore", "MemoryTokenStore", "StoredTokens", "TokenStore", "fits_header"]

P = ParamSpec("P")
T = TypeVar("T")

ACCESS_LIFETIME = 14 * 24 * 3600.0
"""Seconds; what the reference documents, for tokens that do not say."""

REFRESH_LIFETIME = 15 * 24 * 3600.0
"""Seconds; likewise."""


@frozen(kw_only=True)
class StoredTokens(NotPickled):
    """Tokens, and when they end. ``repr()`` hides them, and they cannot be pickled.

    Attributes:
        access_token: goes with every call.
        refresh_token: buys the next access token.
        obtained_at: seconds since 1970.
        expires_at: seconds since 1970; when the access token ends.
        refresh_expires_at: seconds since 1970; when the refresh token ends.
    """

    access_token: str = field(converter=Secret, repr=hidden)
    refresh_token: str | None = field(default=None, converter=converters.optional(Secret), repr=hidden)
    obtained_at: float
    expires_at: float
    refresh_expires_at: float

    @classmethod
    def from_answer(cls, tokens: Tokens, *, before: StoredTokens | None, now: float) -> StoredTokens:
        """The tokens of an answer; a refresh token that it lacks is taken over from ``before``.

        The end of the access token is had from ``expires_in``, else from the claims of the token if it
        is a JWT, else from the documented 14 days. Of the claims ``exp`` less ``iat`` is used, so that a
        wrong clock on either side does no harm.
        """
        announced = float(tokens.expires_in or 0)
        lifetime = announced if announced > 0 else _lifetime(tokens.access_token, now) or ACCESS_LIFETIME
        kept = before.refresh_token if before is not None else None
        kept_until = before.refresh_expires_at if before is not None else now
        fresh = tokens.refresh_token
        return cls(
            access_token=tokens.access_token,
            refresh_token=fresh or kept,
            obtained_at=now,
            expires_at=now + lifetime,
            refresh_expires_at=now + (_lifetime(fresh, now) or REFRESH_LIFETIME) if fresh else kept_until,
        )

    @classmethod
    def from_plain(cls, values: object) -> StoredTokens | None:
        """The tokens from what ``to_plain`` gave; ``None`` if it is anything else."""
        match values:
            case {
                "access_token": str(access_token),
                "refresh_token": str() | None as refresh_token,
                "obtained_at": int() | float() as obtained_at,
                "expires_at": int() | float() as expires_at,
                "refresh_expires_at": int() | float() as refresh_expires_at,
            } if fits_header(access_token) and all(map(_is_moment, (obtained_at, expires_at, refresh_expires_at))):
                return cls(
                    access_token=access_token,
                    refresh_token=refresh_token,
                    obtained_at=obtained_at,
                    expires_at=expires_at,
                    refresh_expires_at=refresh_expires_at,
                )
            case _:
                return None

    def to_plain(self) -> dict[str, str | float | None]:
        """The tokens as JSON values, for a store that guards them."""
        return {
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "obtained_at": self.obtained_at,
            "expires_at": self.expires_at,
            "refresh_expires_at": self.refresh_expires_at,
        }

    @property
    def usable_until(self) -> float:
        """When the access token counts as expired: a little early, lest it be refused on the way."""
        return self.expires_at - min(30.0, (self.expires_at - self.obtained_at) / 20)


def fits_header(token: str) -> bool:
    """Whether a token can be sent."""
    return token != "" and token.isascii() and token.isprintable() and " " not in token


def _is_moment(value: float) -> bool:
    return abs(value) < 1e15  # seconds; neither infinite nor NaN, and small enough to count with


def _lifetime(token: str, now: float) -> float | None:
    """The seconds that a JWT is good for by its own claims; ``None`` if it does not say, or is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        issued = claims.get("iat", now)
        lifetime = float(claims["exp"]) - float(issued)
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return lifetime if 0 < lifetime < math.inf else None


class TokenStore(Protocol):
    """Where tokens outlive the client, for those who restart often.

    ``lock`` is held from looking into the store until the renewed tokens are saved, so that processes
    that share a store do not use a refresh token twice.
    """

    def lock(self) -> AbstractAsyncContextManager[None, bool | None]:
        """Keep others out."""
        ...

    async def load(self, fingerprint: str) -> StoredTokens | None:
        """The tokens saved last; ``None`` if there are none that can be read."""
        ...

    async def save(self, fingerprint: str, tokens: StoredTokens) -> None:
        """Keep these tokens."""
        ...


@define
class MemoryTokenStore:
    """Keeps tokens as long as it lives; give one to several clients to let them share tokens.

    Clients that share one must live in the same event loop.
    """

    _tokens: dict[str, StoredTokens] = field(factory=dict[str, StoredTokens], repr=False)
    _lock: asyncio.Lock = field(factory=asyncio.Lock, repr=False)

    @asynccontextmanager
    async def lock(self) -> AsyncGenerator[None, None]:
        """Keep other clients out."""
        async with self._lock:
            yield

    async def load(self, fingerprint: str) -> StoredTokens | None:
        """The tokens saved last."""
        return self._tokens.get(fingerprint)

    async def save(self, fingerprint: str, tokens: StoredTokens) -> None:
        """Keep these tokens."""
        self._tokens[fingerprint] = tokens


class FileTokenStore:
    """Keeps tokens in a file that only its owner may read (mode 0600), for any number of processes.

    The file is replaced as a whole, never changed in place, so that a crash leaves the old one or the
    new one. Processes wait for each other through a lock on a second file beside it (``.lock``). All
    file work is done in a thread; waiting for the lock can be cancelled. A file that is not one of ours
    is refused and left as it is; an empty one is taken. Works where POSIX file locks do.

    Args:
        path: the file; its folder must exist.

    Raises:
        ConfigurationError: others than the owner may read the file, it is no token file, it cannot be
            read or written, or the platform has no POSIX file locks.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        if not self._path.name:
            raise ConfigurationError(f"FileTokenStore needs the path of a file; got {str(path)!r}.")
        try:
            import fcntl  # noqa: PLC0415 - not on every platform
        except ImportError:
            raise ConfigurationError("FileTokenStore needs POSIX file locks, which this platform lacks.") from None
        self._fcntl = fcntl

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self._path)!r})"

    @asynccontextmanager
    async def lock(self) -> AsyncGenerator[None, None]:
        """Keep other processes and clients out."""
        try:
            descriptor = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable("locked", error) from error
        try:
            wait = 0.005
            while not self._try_lock(descriptor):
                await asyncio.sleep(wait)
                wait = min(wait * 2, 0.1)
            try:
                yield
            finally:
                # Closing alone would not do: a process that was forked meanwhile has the file open too.
                self._fcntl.flock(descriptor, self._fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _try_lock(self, descriptor: int) -> bool:
        try:
            self._fcntl.flock(descriptor, self._fcntl.LOCK_EX | self._fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def load(self, fingerprint: str) -> StoredTokens | None:
        """The tokens saved last."""
        accounts = await in_thread(self._read)
        return StoredTokens.from_plain(accounts.get(fingerprint))

    async def save(self, fingerprint: str, tokens: StoredTokens) -> None:
        """Keep these tokens."""
        await in_thread(self._write, fingerprint, tokens.to_plain())

    async def forget(self, fingerprint: str) -> bool:
        """Keep them no more, as when somebody logs out; whether there were any. Holds the lock meanwhile.

        The tokens stay good at the service, and in the memory of clients, until they expire.
        """
        async with self.lock():
            known = fingerprint in await in_thread(self._read)
            if known:
                await in_thread(self._write, fingerprint, None)
            return known

    def _read(self) -> dict[str, Any]:
        try:
            with self._path.open(encoding="utf-8") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise ConfigurationError(
                        f"Others may read the token file {self._path}. Run: chmod 600 {self._path} (or delete it)."
                    )
                text = file.read()
            content: object = json.loads(text or '{"version": 1, "accounts": {}}')
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unusable("read", error) from error
        except (ValueError, RecursionError):
            content = None
        known = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
        if known.get("version") != 1 or not isinstance(known.get("accounts"), dict):
            raise ConfigurationError(
                f"{self._path} is no token file, and is left as it is. Choose another path, or delete the file."
            )
        return cast("dict[str, Any]", known["accounts"])

    def _write(self, fingerprint: str, values: Mapping[str, object] | None) -> None:
        accounts = self._read()
        accounts.pop(fingerprint, None)
        if values is not None:
            accounts[fingerprint] = values
        try:
            # mkstemp makes the file with mode 0600.
            descriptor, name = tempfile.mkstemp(prefix=self._path.name, dir=self._path.parent)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump({"version": 1, "accounts": accounts}, file)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._unusable("written", error) from error

    def _unusable(self, verb: str, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"The token file {self._path} cannot be {verb}: {error.strerror or error}.")
