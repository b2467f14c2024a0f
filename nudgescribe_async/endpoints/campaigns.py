"""Campaigns: the campaigns of the account.

Generated from ``contract/openapi.yaml`` by ``nox -s generate``: do not edit.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Final

from nudgescribe_async.endpoint import Argument, Effect, Endpoint, Kind, RetryClass
from nudgescribe_async.endpoints.models import WorkspaceCampaigns
from nudgescribe_async.shapes import Evidence

if TYPE_CHECKING:
    from datetime import datetime

    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.session import Session

LIST: Final = Endpoint(
    operation="campaigns.list",
    method="POST",
    path="/v1/campaign/all",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("published_from", Kind.TIMESTAMP, required=False),
        Argument("published_to", Kind.TIMESTAMP, required=False),
    ),
    answer=list[WorkspaceCampaigns],
)


class CampaignsEndpoints:
    """The campaigns of the account.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(
        self,
        published_from: datetime | None = None,
        published_to: datetime | None = None,
        *,
        options: CallOptions | None = None,
    ) -> builtins.list[WorkspaceCampaigns]:
        """All campaigns of the account, grouped by workspace.

        The window on the date of publication is optional at both ends.

        ``POST /v1/campaign/all`` (reference). Changes nothing, and is tried again after a passing
        failure.

        Args:
            published_from: Only campaigns published at this moment or later (assumed).
            published_to: Only campaigns published at this moment or earlier (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``WorkspaceCampaigns``, in the order of the service.

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
        return await self._session.call(LIST, {"published_from": published_from, "published_to": published_to}, options)
