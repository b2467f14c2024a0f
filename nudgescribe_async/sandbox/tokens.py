"""Access tokens and refresh tokens.

========================  ==================================================================================
access token              a JWT (HS256); accepted until ``exp``, to the fraction of a second
refresh token             the same with another ``kind``; neither is accepted in the place of the other
rotation on               a renewal gives a new refresh token, and the used one is refused for ever
rotation off              a renewal gives an access token only, and the refresh token stays good
revocation                everything issued up to that moment is refused; what is issued later is good
========================  ==================================================================================

Tokens are verified without the database, so that this costs microseconds; only a renewal is written down.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
import uuid
from typing import TYPE_CHECKING, Any, Literal

import jwt
from attrs import define, field

from nudgescribe_async.sandbox.values import Caller, Refusal

if TYPE_CHECKING:
    from nudgescribe_async.sandbox.store import Database
    from nudgescribe_async.sandbox.values import Settings

Kind = Literal["access", "refresh"]
_OPTIONS: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["exp", "iat", "jti"]}


@define
class Account:
    """An account with its one user. The credentials follow from the secret, so they need not be stored."""

    account_id: str
    user_id: str
    role_code: str
    secret: bytes = field(repr=False)

    @property
    def api_key(self) -> str:
        """The API key."""
        return f"nsk_{self._derive('api key')[:40]}"

    @property
    def email(self) -> str:
        """The e-mail address of the user."""
        return f"{self._derive('email')[:8]}@sandbox.example"

    @property
    def password(self) -> str:
        """The password of the user."""
        return self._derive("password")[:24]

    def _derive(self, what: str) -> str:
        return hmac.new(self.secret, what.encode(), hashlib.sha256).hexdigest()


class TokenOffice:
    """Issues tokens and judges them. Lives on the event loop; knows all accounts."""

    def __init__(self, secret: bytes, settings: Settings, *, revoked: dict[str, float]) -> None:
        self._secret = secret
        self._settings = settings
        self._revoked = revoked
        self.accounts: dict[str, Account] = {}

    def log_in(self, api_key: str, email: str, password: str) -> dict[str, Any]:
        """Tokens for credentials."""
        for account in self.accounts.values():
            right = (account.api_key, account.email, account.password)
            given = (api_key, email, password)
            if all([_same(a, b) for a, b in zip(right, given, strict=True)]):  # noqa: C419 - all three, whatever the first says
                return self._answer(account.account_id, with_refresh_token=True)
        raise Refusal("unauthorised", "Unauthorised")

    def renew(self, account_id: str) -> dict[str, Any]:
        """Tokens for a refresh token that was accepted."""
        return self._answer(account_id, with_refresh_token=self._settings.rotate_refresh_tokens)

    def verify(self, authorization: str | None, kind: Kind) -> tuple[Caller, dict[str, Any]]:
        """Who sent an ``Authorization`` header, and the claims of the token in it."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal("unauthorised", "Unauthorised")
        try:
            raw = token.strip().encode("ascii")
            claims: dict[str, Any] = jwt.decode(raw, self._secret, algorithms=["HS256"], options=_OPTIONS)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Refusal("unauthorised", "Unauthorised") from None
        issued, expires = float(claims["iat"]), float(claims["exp"])
        known = claims.get("account_id") in self.accounts
        if claims.get("kind") != kind or not known or expires <= time.time() or issued <= self._revoked[kind]:
            raise Refusal("unauthorised", "Unauthorised")
        return Caller(account_id=claims["account_id"], user_id=claims["user_id"]), claims

    def revoke(self, kind: Kind) -> float:
        """Refuse all tokens of a kind that exist; the moment up to which they are refused."""
        self._revoked[kind] = max(time.time(), math.nextafter(self._revoked[kind], math.inf))
        return self._revoked[kind]

    def issue(self, account_id: str, kind: Kind) -> str:
        """One token."""
        settings = self._settings
        lifetime = settings.access_token_lifetime if kind == "access" else settings.refresh_token_lifetime
        # A clock that stands still, or is set back, must not make a fresh token look revoked.
        issued = max(time.time(), math.nextafter(self._revoked[kind], math.inf))
        account = self.accounts[account_id]
        claims = {
            "user_id": account.user_id,
            "account_id": account_id,
            "role_code": account.role_code,
            "iat": issued,
            "exp": issued + lifetime,
            "jti": uuid.uuid4().hex,
            "kind": kind,
        }
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def _answer(self, account_id: str, *, with_refresh_token: bool) -> dict[str, Any]:
        answer: dict[str, Any] = {"access_token": self.issue(account_id, "access")}
        if with_refresh_token:
            answer["refresh_token"] = self.issue(account_id, "refresh")
        if self._settings.announce_expiry:
            # The contract has whole seconds: rounded down, so that nobody trusts a token for too long.
            answer["expires_in"] = int(self._settings.access_token_lifetime)
        return answer


def use_up(db: Database, claims: dict[str, Any]) -> None:
    """Take a refresh token out of circulation; a refusal if it was used before."""
    db.run("DELETE FROM used_tokens WHERE expires < ?", time.time())
    if db.run("INSERT OR IGNORE INTO used_tokens (jti, expires) VALUES (?, ?)", claims["jti"], claims["exp"]) == 0:
        raise Refusal("unauthorised", "Unauthorised")


def _same(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(), b.encode("utf-8", "surrogateescape"))
