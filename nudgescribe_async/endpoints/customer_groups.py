"""Customer groups: named sets of customers in a workspace.

Generated from ``contract/openapi.yaml`` by ``nox -s generate``: do not edit.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Final

from nudgescribe_async.endpoint import Argument, Effect, Endpoint, Kind, RetryClass
from nudgescribe_async.endpoints.models import CustomerGroup, Receipt
from nudgescribe_async.shapes import Evidence

if TYPE_CHECKING:
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.session import Session

CREATE: Final = Endpoint(
    operation="customer_groups.create",
    method="PUT",
    path="/v1/cg",
    effect=Effect.CREATE,
    retry=RetryClass.UNSAFE,
    evidence=Evidence.SEED,
    arguments=(
        Argument("workspace_id", Kind.TEXT),
        Argument("group_name", Kind.TEXT),
    ),
    look="customer_groups.list",
    answer=CustomerGroup,
)

LIST: Final = Endpoint(
    operation="customer_groups.list",
    method="POST",
    path="/v1/cg",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.SEED,
    arguments=(Argument("workspace_id", Kind.TEXT),),
    answer=list[CustomerGroup],
)

UPDATE: Final = Endpoint(
    operation="customer_groups.update",
    method="PATCH",
    path="/v1/cg",
    effect=Effect.UPDATE,
    retry=RetryClass.IDEMPOTENT,
    evidence=Evidence.SEED,
    arguments=(
        Argument("workspace_id", Kind.TEXT),
        Argument("customer_group_id", Kind.TEXT),
        Argument("group_name", Kind.TEXT),
    ),
    look="customer_groups.list",
    answer=CustomerGroup,
)

DELETE: Final = Endpoint(
    operation="customer_groups.delete",
    method="DELETE",
    path="/v1/cg",
    effect=Effect.DELETE,
    retry=RetryClass.IDEMPOTENT,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("workspace_id", Kind.TEXT),
        Argument("customer_group_id", Kind.TEXT),
    ),
    look="customer_groups.list",
    answer=Receipt,
)


class CustomerGroupsEndpoints:
    """Named sets of customers in a workspace.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(self, workspace_id: str, group_name: str, *, options: CallOptions | None = None) -> CustomerGroup:
        """Create a customer group.

        Creates another group each time, whatever the method suggests.

        ``PUT /v1/cg`` (seed). Sent again only if the first time provably had no effect.

        Args:
            workspace_id: The workspace (seed).
            group_name: The name of the group (seed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``CustomerGroup``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``customer_groups.list``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """
        return await self._session.call(CREATE, {"workspace_id": workspace_id, "group_name": group_name}, options)

    async def list(self, workspace_id: str, *, options: CallOptions | None = None) -> builtins.list[CustomerGroup]:
        """All customer groups of a workspace.

        ``POST /v1/cg`` (seed). Changes nothing, and is tried again after a passing failure.

        Args:
            workspace_id: The workspace (seed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``CustomerGroup``, in the order of the service.

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
        return await self._session.call(LIST, {"workspace_id": workspace_id}, options)

    async def update(
        self, workspace_id: str, customer_group_id: str, group_name: str, *, options: CallOptions | None = None
    ) -> CustomerGroup:
        """Rename a customer group.

        Assignments and history stay.

        ``PATCH /v1/cg`` (seed). Twice is the same as once, so it is tried again after a passing
        failure.

        Args:
            workspace_id: The workspace (seed).
            customer_group_id: The group (seed).
            group_name: The new name of the group (seed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``CustomerGroup``.

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
            UPDATE,
            {"workspace_id": workspace_id, "customer_group_id": customer_group_id, "group_name": group_name},
            options,
        )

    async def delete(self, workspace_id: str, customer_group_id: str, *, options: CallOptions | None = None) -> Receipt:
        """Delete a customer group.

        ``DELETE /v1/cg`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            workspace_id: The workspace (assumed).
            customer_group_id: The group (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``Receipt``.

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
            DELETE, {"workspace_id": workspace_id, "customer_group_id": customer_group_id}, options
        )
