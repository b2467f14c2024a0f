"""Auth: tokens. The session calls these by itself.

Generated from ``contract/openapi.yaml`` by ``nox -s generate``: do not edit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nudgescribe_async.endpoint import Argument, Bearer, Effect, Endpoint, Kind, RetryClass
from nudgescribe_async.endpoints.models import Tokens
from nudgescribe_async.shapes import Evidence

if TYPE_CHECKING:
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.session import Session

AUTHENTICATE: Final = Endpoint(
    operation="auth.authenticate",
    method="POST",
    path="/v1/auth",
    effect=Effect.ACTION,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("api_key", Kind.TEXT, header="x-api-key"),
        Argument("email", Kind.TEXT),
        Argument("password", Kind.TEXT),
    ),
    bearer=Bearer.NONE,
    answer=Tokens,
)

REAUTHENTICATE: Final = Endpoint(
    operation="auth.reauthenticate",
    method="GET",
    path="/v1/auth",
    effect=Effect.ACTION,
    retry=RetryClass.UNSAFE,
    evidence=Evidence.REFERENCE,
    bearer=Bearer.REFRESH,
    look="auth.authenticate",
    answer=Tokens,
)


class AuthEndpoints:
    """Tokens. The session calls these by itself.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def authenticate(
        self, api_key: str, email: str, password: str, *, options: CallOptions | None = None
    ) -> Tokens:
        """Log in with the API key, the e-mail address and the password.

        Answers an access token (14 days by default) and a refresh token (15 days). Both are JWTs.

        ``POST /v1/auth`` (reference). Doing it twice does no harm, so it is tried again after a
        passing failure.

        Args:
            api_key: The API key of the account (reference).
            email: The user's e-mail address (reference).
            password: The user's password (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``Tokens``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """
        return await self._session.call(
            AUTHENTICATE, {"api_key": api_key, "email": email, "password": password}, options
        )

    async def reauthenticate(self, refresh_token: str, *, options: CallOptions | None = None) -> Tokens:
        """Exchange the refresh token for a new access token.

        The refresh token is the bearer. Where no new refresh token comes back, the old one stays. A
        guide of the reference says ``TRACE``; three editions of the operation's page say ``GET``.

        ``GET /v1/auth`` (reference). Sent again only if the first time provably had no effect.

        Args:
            refresh_token: The refresh token (reference).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``Tokens``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``auth.authenticate``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """
        return await self._session.call(REAUTHENTICATE, {}, options, bearer=refresh_token)
