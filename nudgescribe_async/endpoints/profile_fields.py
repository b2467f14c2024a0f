"""Profile fields: what a workspace knows of each customer; uploads are validated against it.

Generated from ``contract/openapi.yaml`` by ``nox -s generate``: do not edit.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Final

from nudgescribe_async.endpoint import Argument, Effect, Endpoint, Kind, RetryClass
from nudgescribe_async.endpoints.models import ProfileField, ProfileFieldType, Receipt
from nudgescribe_async.shapes import Evidence

if TYPE_CHECKING:
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.session import Session

CREATE: Final = Endpoint(
    operation="profile_fields.create",
    method="PUT",
    path="/v1/cpf",
    effect=Effect.CREATE,
    retry=RetryClass.UNSAFE,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("workspace_id", Kind.TEXT),
        Argument("field_name", Kind.TEXT),
        Argument("field_type", Kind.TEXT),
        Argument("field_format", Kind.TEXT, required=False),
        Argument("is_required", Kind.BOOLEAN, required=False),
    ),
    look="profile_fields.list",
    answer=ProfileField,
)

LIST: Final = Endpoint(
    operation="profile_fields.list",
    method="POST",
    path="/v1/cpf",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(Argument("workspace_id", Kind.TEXT),),
    answer=list[ProfileField],
)

UPDATE: Final = Endpoint(
    operation="profile_fields.update",
    method="PATCH",
    path="/v1/cpf",
    effect=Effect.UPDATE,
    retry=RetryClass.IDEMPOTENT,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("workspace_id", Kind.TEXT),
        Argument("profile_field_id", Kind.TEXT),
        Argument("field_name", Kind.TEXT, required=False),
        Argument("field_type", Kind.TEXT, required=False),
        Argument("field_format", Kind.TEXT, required=False),
        Argument("is_required", Kind.BOOLEAN, required=False),
    ),
    look="profile_fields.list",
    answer=ProfileField,
)

DELETE: Final = Endpoint(
    operation="profile_fields.delete",
    method="DELETE",
    path="/v1/cpf",
    effect=Effect.DELETE,
    retry=RetryClass.IDEMPOTENT,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("workspace_id", Kind.TEXT),
        Argument("profile_field_id", Kind.TEXT),
    ),
    look="profile_fields.list",
    answer=Receipt,
)


class ProfileFieldsEndpoints:
    """What a workspace knows of each customer; uploads are validated against it.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(
        self,
        workspace_id: str,
        field_name: str,
        field_type: ProfileFieldType | str,
        field_format: str | None = None,
        is_required: bool | None = None,
        *,
        options: CallOptions | None = None,
    ) -> ProfileField:
        """Create a profile field.

        ``PUT /v1/cpf`` (reference). Sent again only if the first time provably had no effect.

        Args:
            workspace_id: The workspace (assumed).
            field_name: The name of the field, as in the header of an upload (assumed).
            field_type: The type of the values (reference).
            field_format: The date format or the currency; needed for ``Date`` and ``currency``
                (reference).
            is_required: Whether every customer must have a value (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``ProfileField``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``profile_fields.list``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """
        return await self._session.call(
            CREATE,
            {
                "workspace_id": workspace_id,
                "field_name": field_name,
                "field_type": field_type,
                "field_format": field_format,
                "is_required": is_required,
            },
            options,
        )

    async def list(self, workspace_id: str, *, options: CallOptions | None = None) -> builtins.list[ProfileField]:
        """All profile fields of a workspace.

        ``POST /v1/cpf`` (reference). Changes nothing, and is tried again after a passing failure.

        Args:
            workspace_id: The workspace (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``ProfileField``, in the order of the service.

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
        self,
        workspace_id: str,
        profile_field_id: str,
        field_name: str | None = None,
        field_type: ProfileFieldType | str | None = None,
        field_format: str | None = None,
        is_required: bool | None = None,
        *,
        options: CallOptions | None = None,
    ) -> ProfileField:
        """Change a profile field.

        What is left out stays as it is.

        ``PATCH /v1/cpf`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            workspace_id: The workspace (assumed).
            profile_field_id: The profile field (assumed).
            field_name: The name of the field, as in the header of an upload (assumed).
            field_type: The type of the values (reference).
            field_format: The date format or the currency; needed for ``Date`` and ``currency``
                (reference).
            is_required: Whether every customer must have a value (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``ProfileField``.

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
            {
                "workspace_id": workspace_id,
                "profile_field_id": profile_field_id,
                "field_name": field_name,
                "field_type": field_type,
                "field_format": field_format,
                "is_required": is_required,
            },
            options,
        )

    async def delete(self, workspace_id: str, profile_field_id: str, *, options: CallOptions | None = None) -> Receipt:
        """Delete a profile field, and the data held in it.

        ``DELETE /v1/cpf`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            workspace_id: The workspace (assumed).
            profile_field_id: The profile field (assumed).
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
            DELETE, {"workspace_id": workspace_id, "profile_field_id": profile_field_id}, options
        )
