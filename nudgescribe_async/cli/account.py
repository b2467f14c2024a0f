"""The account behind the settings, and its token as far as it is known here."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async.auth import StoredTokens

__all__ = ["TokenState"]

CLAIMS = ("account_id", "user_id", "role_code")


@frozen(kw_only=True)
class TokenState:
    """What is known of the token that is kept for an account.

    Attributes:
        obtained_at: when it was bought.
        expires_at: when it ends.
        renewable_until: when the refresh token ends, if there is one.
        claims: account, user and role, as the token says; nobody has checked them here.
    """

    obtained_at: datetime
    expires_at: datetime
    renewable_until: datetime | None
    claims: Mapping[str, str]

    @classmethod
    def of(cls, tokens: StoredTokens) -> TokenState:
        """What may be told of these tokens."""
        return cls(
            obtained_at=_moment(tokens.obtained_at),
            expires_at=_moment(tokens.expires_at),
            renewable_until=None if tokens.refresh_token is None else _moment(tokens.refresh_expires_at),
            claims=_claims(tokens.access_token),
        )

    def as_text(self) -> str:
        """Age and end, in a sentence."""
        now = time.time()
        age = _duration(now - self.obtained_at.timestamp())
        left = self.expires_at.timestamp() - now
        end = f"good for another {_duration(left)}" if left > 0 else f"expired {_duration(-left)} ago"
        return f"{age} old, {end}"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds), UTC)


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def _claims(token: str) -> dict[str, str]:
    """Those claims of a JWT that say whose it is; none if it is no JWT."""
    parts = token.split(".")
    try:
        claims: object = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError):
        return {}
    known = cast("dict[str, Any]", claims) if isinstance(claims, dict) else {}
    return {name: known[name] for name in CLAIMS if isinstance(known.get(name), str)}
