"""``ns.auth``: renewing by hand what the session renews by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nudgescribe_async.endpoints.auth import AUTHENTICATE, REAUTHENTICATE

if TYPE_CHECKING:
    from nudgescribe_async.auth import TokenManager
    from nudgescribe_async.endpoints.models import Tokens
    from nudgescribe_async.session import Session

__all__ = ["Auth"]


class Auth:
    """The tokens of the client.

    There is seldom a reason to call these: the session logs in with the first call, and renews in time.
    """

    __slots__ = ("_session", "_tokens")

    def __init__(self, session: Session, tokens: TokenManager) -> None:
        self._session = session
        self._tokens = tokens

    async def authenticate(self) -> Tokens:
        """Log in now, with the credentials of the client.

        Worth a call at start-up, to find out about wrong credentials before the first customer does, and
        after the credentials were changed at the service. The new tokens are used by all calls from then on;
        what comes back is a copy.

        ``POST /v1/auth`` (reference). Callers that arrive meanwhile share the login.

        Returns:
            The tokens; ``expires_in`` is what is left of the access token's life, in seconds.

        Raises:
            AuthenticationError: the service refused the credentials.
            NudgescribeError: the service could not be asked.
        """
        return await self._session.shared(self._tokens.login(), AUTHENTICATE.operation)

    async def reauthenticate(self) -> Tokens:
        """Renew now: with the refresh token, or by logging in where that does not work.

        ``GET /v1/auth`` (reference). Callers that arrive meanwhile share the renewal.

        Returns:
            The tokens; ``expires_in`` is what is left of the access token's life, in seconds.

        Raises:
            AuthenticationError: the service refused both.
            NudgescribeError: the service could not be asked.
        """
        return await self._session.shared(self._tokens.refresh(), REAUTHENTICATE.operation)
