"""Customers: the customers of one customer group, page by page, up and down.

Generated from ``contract/openapi.yaml`` by ``nox -s generate``: do not edit.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Final

from nudgescribe_async.endpoint import Argument, Effect, Endpoint, Kind, RetryClass
from nudgescribe_async.endpoints.models import Customer, CustomerChange, DeleteReceipt, UpdateReceipt, UploadReceipt
from nudgescribe_async.shapes import JSON, Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.session import Session
    from nudgescribe_async.transport.multipart import FileSource

CHECK: Final = Endpoint(
    operation="customers.check",
    method="POST",
    path="/v1/customer/check",
    effect=Effect.CREATE,
    retry=RetryClass.UNSAFE,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("workspace_id", Kind.TEXT),
        Argument("customer_group_id", Kind.TEXT),
        Argument("customers", Kind.OBJECTS, required=False),
        Argument("file", Kind.FILE, required=False),
    ),
    partial=True,
    exactly_one=("customers", "file"),
    look="customers.iter",
    answer=UploadReceipt,
)

COUNT_PAGES: Final = Endpoint(
    operation="customers.count_pages",
    method="POST",
    path="/v1/customer/pages",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(Argument("customer_group_id", Kind.TEXT),),
    unwrap=("pages", "total_pages"),
    answer=int,
)

LIST: Final = Endpoint(
    operation="customers.list",
    method="POST",
    path="/v1/customer",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.SEED,
    arguments=(
        Argument("customer_group_id", Kind.TEXT),
        Argument("page", Kind.INTEGER, required=False, first_page=1),
    ),
    answer=list[Customer],
)

UPDATE: Final = Endpoint(
    operation="customers.update",
    method="PATCH",
    path="/v1/customer",
    effect=Effect.UPDATE,
    retry=RetryClass.IDEMPOTENT,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("customer_group_id", Kind.TEXT),
        Argument("customers", Kind.OBJECTS, keys=("customer_id", "extended_profile")),
    ),
    look="customers.iter",
    answer=UpdateReceipt,
)

DELETE: Final = Endpoint(
    operation="customers.delete",
    method="DELETE",
    path="/v1/customer",
    effect=Effect.DELETE,
    retry=RetryClass.IDEMPOTENT,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("customer_group_id", Kind.TEXT),
        Argument("customer_ids", Kind.TEXTS),
    ),
    look="customers.iter",
    answer=DeleteReceipt,
)


class CustomersEndpoints:
    """The customers of one customer group, page by page, up and down.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def check(
        self,
        workspace_id: str,
        customer_group_id: str,
        *,
        customers: Sequence[Mapping[str, JSON]] | None = None,
        file: FileSource | None = None,
        options: CallOptions | None = None,
    ) -> UploadReceipt:
        """Upload customers, validated against the profile fields of the workspace.

        Takes either a CSV file or a list of customers, each a mapping of profile fields to values.
        This writes, whatever its name says: new customers are added to the group; a customer whose
        unique identifier is known already is updated. Large uploads are queued.
        ``customers.upload`` checks before it sends, and says which rows were refused.

        ``POST /v1/customer/check`` (reference). Sent again only if the first time provably had no
        effect.

        Args:
            workspace_id: The workspace (assumed).
            customer_group_id: The group that receives the customers (assumed).
            customers: Customers, each a mapping of profile field to value (reference). Give either
                this or ``file``.
            file: A CSV file; its header names profile fields (reference). Give either this or
                ``customers``.
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``UploadReceipt``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            PayloadTooLargeError: send less at once.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``customers.iter``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """
        return await self._session.call(
            CHECK,
            {
                "workspace_id": workspace_id,
                "customer_group_id": customer_group_id,
                "customers": customers,
                "file": file,
            },
            options,
        )

    async def count_pages(self, customer_group_id: str, *, options: CallOptions | None = None) -> int:
        """The number of pages of a customer group.

        ``POST /v1/customer/pages`` (reference). Changes nothing, and is tried again after a passing
        failure.

        Args:
            customer_group_id: The group (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            How many.

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
        return await self._session.call(COUNT_PAGES, {"customer_group_id": customer_group_id}, options)

    async def list(
        self, customer_group_id: str, page: int | None = None, *, options: CallOptions | None = None
    ) -> builtins.list[Customer]:
        """One page of the customers of a group.

        The profiles come back encrypted.

        ``POST /v1/customer`` (seed). Changes nothing, and is tried again after a passing failure.

        Args:
            customer_group_id: The group (seed).
            page: The page. Left out: the first (seed). Pages count from 1 (assumed), unless
                ``first_page`` of the client says otherwise.
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``Customer``, in the order of the service.

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
        return await self._session.call(LIST, {"customer_group_id": customer_group_id, "page": page}, options)

    async def update(
        self, customer_group_id: str, customers: Sequence[CustomerChange], *, options: CallOptions | None = None
    ) -> UpdateReceipt:
        """Change the profiles of customers.

        Only edition 1 of the reference has this operation; later editions update through
        ``customers.check``.

        ``PATCH /v1/customer`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            customer_group_id: The group (assumed).
            customers: The customers, each with its new profile (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``UpdateReceipt``.

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
            UPDATE, {"customer_group_id": customer_group_id, "customers": customers}, options
        )

    async def delete(
        self, customer_group_id: str, customer_ids: Sequence[str], *, options: CallOptions | None = None
    ) -> DeleteReceipt:
        """Remove customers from a group.

        ``DELETE /v1/customer`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            customer_group_id: The group (assumed).
            customer_ids: The customers (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``DeleteReceipt``.

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
            DELETE, {"customer_group_id": customer_group_id, "customer_ids": customer_ids}, options
        )
