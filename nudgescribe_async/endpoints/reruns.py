"""Reruns: running a published campaign again for another customer group.

Generated from ``contract/openapi.yaml`` by ``nox -s generate``: do not edit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nudgescribe_async.endpoint import Argument, Effect, Endpoint, Kind, RetryClass
from nudgescribe_async.endpoints.models import RerunReceipt, RerunRecord, RunMessage
from nudgescribe_async.shapes import Evidence

if TYPE_CHECKING:
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.session import Session

HISTORY: Final = Endpoint(
    operation="reruns.history",
    method="POST",
    path="/v1/campaign/rerun/history",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(Argument("campaign_id", Kind.TEXT),),
    context_headers=True,
    answer=list[RerunRecord],
)

MESSAGES: Final = Endpoint(
    operation="reruns.messages",
    method="POST",
    path="/v1/campaign/rerun/messages",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("campaign_id", Kind.TEXT),
        Argument("run_number", Kind.INTEGER, required=False, minimum=1),
    ),
    context_headers=True,
    answer=list[RunMessage],
)

INITIATE: Final = Endpoint(
    operation="reruns.initiate",
    method="POST",
    path="/v1/campaign/rerun/initiate",
    effect=Effect.ACTION,
    retry=RetryClass.UNSAFE,
    evidence=Evidence.SEED,
    arguments=(
        Argument("campaign_id", Kind.TEXT),
        Argument("new_customer_group_id", Kind.TEXT),
    ),
    context_headers=True,
    look="reruns.history",
    answer=RerunReceipt,
)


class RerunsEndpoints:
    """Running a published campaign again for another customer group.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def history(self, campaign_id: str, *, options: CallOptions | None = None) -> list[RerunRecord]:
        """The runs of a campaign, newest first.

        A campaign that was never rerun answers one synthesised run with number 1.

        ``POST /v1/campaign/rerun/history`` (reference). Changes nothing, and is tried again after a
        passing failure.

        Args:
            campaign_id: The campaign (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``RerunRecord``, in the order of the service.

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
        return await self._session.call(HISTORY, {"campaign_id": campaign_id}, options)

    async def messages(
        self, campaign_id: str, run_number: int | None = None, *, options: CallOptions | None = None
    ) -> list[RunMessage]:
        """The messages of a run.

        With ``run_number``, the archived messages of that run are included; without, the active
        messages of the current run.

        ``POST /v1/campaign/rerun/messages`` (reference). Changes nothing, and is tried again after
        a passing failure.

        Args:
            campaign_id: The campaign (assumed).
            run_number: A run in the campaign's history. Left out: the current run (reference).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``RunMessage``, in the order of the service.

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
        return await self._session.call(MESSAGES, {"campaign_id": campaign_id, "run_number": run_number}, options)

    async def initiate(
        self, campaign_id: str, new_customer_group_id: str, *, options: CallOptions | None = None
    ) -> RerunReceipt:
        """Run a published campaign again for another customer group.

        One atomic call: segment preview, run record, state of the campaign, archiving of the
        previous run's messages, and a queued job. Not repeatable. The campaign and all messages of
        its current run must be ``Published``. Afterwards the campaign is ``Ready for review`` where
        new segments need messages, and ``Ready to publish`` where all matched.

        ``POST /v1/campaign/rerun/initiate`` (seed). Sent again only if the first time provably had
        no effect.

        Args:
            campaign_id: The campaign (seed).
            new_customer_group_id: The group to run the campaign for (seed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``RerunReceipt``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``reruns.history``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """
        return await self._session.call(
            INITIATE, {"campaign_id": campaign_id, "new_customer_group_id": new_customer_group_id}, options
        )
