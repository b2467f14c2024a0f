"""What the service answers, as typed values.

Generated from ``contract/openapi.yaml`` by ``nox -s generate``: do not edit.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TypedDict

import attrs

from nudgescribe_async.profiles import HasProfile
from nudgescribe_async.shapes import ASSUMED, JSON, REFERENCE, SEED, NotPickled, hidden, names_only, no_extra

__all__ = [
    "Campaign",
    "CampaignStatus",
    "Customer",
    "CustomerChange",
    "CustomerGroup",
    "DeleteReceipt",
    "DownloadLink",
    "MessageStatus",
    "ProfileField",
    "ProfileFieldType",
    "PublishReceipt",
    "Receipt",
    "RerunComparison",
    "RerunReceipt",
    "RerunRecord",
    "RowError",
    "RunMessage",
    "Tokens",
    "UpdateReceipt",
    "UploadReceipt",
    "WorkspaceCampaigns",
]


class CampaignStatus(StrEnum):
    """Where a campaign stands. Compared without regard to case; a state that is not listed is kept
    as it came.
    """

    READY_FOR_REVIEW = "Ready for review"
    READY_TO_PUBLISH = "Ready to publish"
    PUBLISHED = "Published"


class MessageStatus(StrEnum):
    """Where a message stands. Compared without regard to case; a state that is not listed is kept
    as it came.
    """

    PENDING = "Pending"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    PUBLISHED = "Published"


class ProfileFieldType(StrEnum):
    """The type of a profile field. ``Date`` and ``currency`` need a format."""

    STRING = "string"
    NUMBER = "number"
    CHAR = "char"
    DATE = "Date"
    CURRENCY = "currency"


@attrs.define(kw_only=True)
class Tokens(NotPickled):
    """What a login or a renewal gives. Both tokens are JWTs, with ``user_id``, ``account_id`` and
    ``role_code`` among their claims.

    It holds a secret: ``repr()`` hides it, and it cannot be pickled.

    Attributes:
        access_token: Goes with every call as the bearer (assumed).
        refresh_token: Buys the next access token. Absent: the old one stays (assumed).
        expires_in: Lifetime of the access token in seconds (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    access_token: str = attrs.field(repr=hidden, metadata=ASSUMED)
    refresh_token: str | None = attrs.field(default=None, repr=hidden, metadata=ASSUMED)
    expires_in: int | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class Customer(HasProfile):
    """One customer of a group. ``profile()`` gives the profile in the clear, with the
    ``profile_decryptor`` of the client.

    Attributes:
        customer_id: The customer (seed).
        customer_group_id: The group that was asked for (seed).
        extended_profile: The profile, encrypted by the service; how to decrypt it is not documented
            (seed).
        account_id: The account (seed).
        workspace_id: The workspace (seed).
        created_at: When the customer was created (seed).
        updated_at: When the customer was last changed (seed).
        created_by: The user who created the customer (seed).
        updated_by: The user who last changed the customer (seed).
        extra: What the answer holds beyond the contract, as it came.
    """

    customer_id: str = attrs.field(metadata=SEED)
    customer_group_id: str = attrs.field(metadata=SEED)
    extended_profile: dict[str, JSON] = attrs.field(repr=names_only, metadata=SEED)
    account_id: str | None = attrs.field(default=None, metadata=SEED)
    workspace_id: str | None = attrs.field(default=None, metadata=SEED)
    created_at: datetime | None = attrs.field(default=None, metadata=SEED)
    updated_at: datetime | None = attrs.field(default=None, metadata=SEED)
    created_by: str | None = attrs.field(default=None, metadata=SEED)
    updated_by: str | None = attrs.field(default=None, metadata=SEED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class CustomerGroup:
    """A named set of customers in a workspace. The answer to ``customer_groups.update`` lacks
    ``account_id`` and ``created_by``, the answer to ``customer_groups.create`` lacks
    ``updated_by``, and edition 1 of the service writes a TAB behind two of the keys.

    Attributes:
        customer_group_id: The group (seed).
        workspace_id: The workspace (seed).
        group_name: The name of the group (seed).
        account_id: The account (seed).
        created_at: When the group was created (seed).
        updated_at: When the group was last changed (seed).
        created_by: The user who created the group (seed).
        updated_by: The user who last changed the group (seed).
        extra: What the answer holds beyond the contract, as it came.
    """

    customer_group_id: str = attrs.field(metadata=SEED)
    workspace_id: str = attrs.field(metadata=SEED)
    group_name: str = attrs.field(metadata=SEED)
    account_id: str | None = attrs.field(default=None, metadata=SEED)
    created_at: datetime | None = attrs.field(default=None, metadata=SEED)
    updated_at: datetime | None = attrs.field(default=None, metadata=SEED)
    created_by: str | None = attrs.field(default=None, metadata=SEED)
    updated_by: str | None = attrs.field(default=None, metadata=SEED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class ProfileField:
    """One thing that a workspace knows of each customer.

    Attributes:
        profile_field_id: The profile field (assumed).
        field_name: The name, as in the header of an upload (assumed).
        field_type: The type of the values (reference).
        workspace_id: The workspace (assumed).
        field_format: The date format or the currency, for ``Date`` and ``currency`` (reference).
        is_required: Whether every customer must have a value (assumed).
        created_at: When the field was created (assumed).
        updated_at: When the field was last changed (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    profile_field_id: str = attrs.field(metadata=ASSUMED)
    field_name: str = attrs.field(metadata=ASSUMED)
    field_type: ProfileFieldType | str = attrs.field(metadata=REFERENCE)
    workspace_id: str | None = attrs.field(default=None, metadata=ASSUMED)
    field_format: str | None = attrs.field(default=None, metadata=REFERENCE)
    is_required: bool | None = attrs.field(default=None, metadata=ASSUMED)
    created_at: datetime | None = attrs.field(default=None, metadata=ASSUMED)
    updated_at: datetime | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class RowError:
    """Why one value of an upload was refused.

    Attributes:
        row: The row of the upload; the first row below the header is 1 (assumed).
        field: The profile field (assumed).
        message: What is wrong with the value (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    row: int | None = attrs.field(default=None, metadata=ASSUMED)
    field: str | None = attrs.field(default=None, metadata=ASSUMED)
    message: str | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class UploadReceipt:
    """What became of an upload. A queued upload has a ``job_uid``.

    Attributes:
        success: Whether the upload was taken (assumed).
        job_uid: The queued job of a large upload (assumed).
        accepted_count: Rows taken (assumed).
        rejected_count: Rows refused (assumed).
        errors: Why rows were refused (assumed).
        message: A sentence for people (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    success: bool | None = attrs.field(default=None, metadata=ASSUMED)
    job_uid: str | None = attrs.field(default=None, metadata=ASSUMED)
    accepted_count: int | None = attrs.field(default=None, metadata=ASSUMED)
    rejected_count: int | None = attrs.field(default=None, metadata=ASSUMED)
    errors: list[RowError] | None = attrs.field(default=None, metadata=ASSUMED)
    message: str | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class UpdateReceipt:
    """What became of a change of customers.

    Attributes:
        success: Whether the change was made (assumed).
        updated_count: Customers changed (assumed).
        message: A sentence for people (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    success: bool | None = attrs.field(default=None, metadata=ASSUMED)
    updated_count: int | None = attrs.field(default=None, metadata=ASSUMED)
    message: str | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class DeleteReceipt:
    """What became of a removal of customers.

    Attributes:
        success: Whether the removal was made (assumed).
        deleted_count: Customers removed (assumed).
        message: A sentence for people (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    success: bool | None = attrs.field(default=None, metadata=ASSUMED)
    deleted_count: int | None = attrs.field(default=None, metadata=ASSUMED)
    message: str | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class Receipt:
    """That something was done.

    Attributes:
        success: Whether it was done (assumed).
        message: A sentence for people (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    success: bool | None = attrs.field(default=None, metadata=ASSUMED)
    message: str | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class Campaign:
    """One campaign.

    Attributes:
        campaign_id: The campaign (assumed).
        campaign_name: The name of the campaign (assumed).
        campaign_status: Where the campaign stands (reference).
        customer_group_id: The group that the current run is for (assumed).
        run_number: The current run (assumed).
        created_at: When the campaign was created (assumed).
        updated_at: When the campaign was last changed (assumed).
        published_at: When the campaign was last published (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    campaign_id: str = attrs.field(metadata=ASSUMED)
    campaign_name: str | None = attrs.field(default=None, metadata=ASSUMED)
    campaign_status: CampaignStatus | str | None = attrs.field(default=None, metadata=REFERENCE)
    customer_group_id: str | None = attrs.field(default=None, metadata=ASSUMED)
    run_number: int | None = attrs.field(default=None, metadata=ASSUMED)
    created_at: datetime | None = attrs.field(default=None, metadata=ASSUMED)
    updated_at: datetime | None = attrs.field(default=None, metadata=ASSUMED)
    published_at: datetime | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class WorkspaceCampaigns:
    """The campaigns of one workspace.

    Attributes:
        workspace_id: The workspace (assumed).
        campaigns: Its campaigns (assumed).
        workspace_name: The name of the workspace (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    workspace_id: str = attrs.field(metadata=ASSUMED)
    campaigns: list[Campaign] = attrs.field(metadata=ASSUMED)
    workspace_name: str | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class PublishReceipt:
    """That the export of a campaign's messages was queued.

    Attributes:
        success: Whether it was queued (assumed).
        job_uid: The queued job (assumed).
        message: A sentence for people (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    success: bool | None = attrs.field(default=None, metadata=ASSUMED)
    job_uid: str | None = attrs.field(default=None, metadata=ASSUMED)
    message: str | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class DownloadLink(NotPickled):
    """Where a file can be had without a token, for a while. Whoever has the URL has the file.

    It holds a secret: ``repr()`` hides it, and it cannot be pickled.

    Attributes:
        url: The signed URL (assumed).
        expires_in: Lifetime of the URL in seconds (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    url: str = attrs.field(repr=hidden, metadata=ASSUMED)
    expires_in: int | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class RerunComparison:
    """How the segments of the new group compare with those of the previous run.

    Attributes:
        matched_count: Segments that both have (seed).
        new_count: Segments that need new messages (seed).
        orphaned_count: Segments that only the previous run had (seed).
        extra: What the answer holds beyond the contract, as it came.
    """

    matched_count: int = attrs.field(metadata=SEED)
    new_count: int = attrs.field(metadata=SEED)
    orphaned_count: int = attrs.field(metadata=SEED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class RerunReceipt:
    """That a run was made and its job queued.

    Attributes:
        success: Whether the run was made (seed).
        rerun_id: The run (seed).
        run_number: The number of the run in the campaign's history (seed).
        campaign_status: Where the campaign stands now (seed).
        job_uid: The queued job (seed).
        archived_count: Messages of the previous run that were archived (seed).
        comparison: How the segments of the two groups compare (seed).
        message: A sentence for people (seed).
        extra: What the answer holds beyond the contract, as it came.
    """

    success: bool = attrs.field(metadata=SEED)
    rerun_id: str = attrs.field(metadata=SEED)
    run_number: int = attrs.field(metadata=SEED)
    campaign_status: CampaignStatus | str = attrs.field(metadata=SEED)
    job_uid: str = attrs.field(metadata=SEED)
    archived_count: int = attrs.field(metadata=SEED)
    comparison: RerunComparison = attrs.field(metadata=SEED)
    message: str | None = attrs.field(default=None, metadata=SEED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class RerunRecord:
    """One run in the history of a campaign.

    Attributes:
        run_number: The number of the run; the first run of a campaign is 1 (reference).
        rerun_id: The run. A synthesised first run may have none (assumed).
        customer_group_id: The group that the run was for (assumed).
        customer_group_name: The name of that group (assumed).
        segment_count: Segments of the run (assumed).
        archived_count: Messages archived when the run began (assumed).
        comparison: How the segments compared with the run before (assumed).
        campaign_status: Where the campaign stood (assumed).
        created_at: When the run was made (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    run_number: int = attrs.field(metadata=REFERENCE)
    rerun_id: str | None = attrs.field(default=None, metadata=ASSUMED)
    customer_group_id: str | None = attrs.field(default=None, metadata=ASSUMED)
    customer_group_name: str | None = attrs.field(default=None, metadata=ASSUMED)
    segment_count: int | None = attrs.field(default=None, metadata=ASSUMED)
    archived_count: int | None = attrs.field(default=None, metadata=ASSUMED)
    comparison: RerunComparison | None = attrs.field(default=None, metadata=ASSUMED)
    campaign_status: CampaignStatus | str | None = attrs.field(default=None, metadata=ASSUMED)
    created_at: datetime | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


@attrs.define(kw_only=True)
class RunMessage:
    """One message of a run.

    Attributes:
        message_id: The message (assumed).
        campaign_id: The campaign (assumed).
        run_number: The run (assumed).
        segment: The segment that the message was written for (reference).
        content: The text of the message (assumed).
        review_status: Where the message stands (reference).
        approval_stage: How far the approval has come (reference).
        is_archived: Whether the message was archived (reference).
        created_at: When the message was written (assumed).
        updated_at: When the message was last changed (assumed).
        extra: What the answer holds beyond the contract, as it came.
    """

    message_id: str = attrs.field(metadata=ASSUMED)
    campaign_id: str | None = attrs.field(default=None, metadata=ASSUMED)
    run_number: int | None = attrs.field(default=None, metadata=ASSUMED)
    segment: dict[str, JSON] | None = attrs.field(default=None, metadata=REFERENCE)
    content: str | None = attrs.field(default=None, repr=hidden, metadata=ASSUMED)
    review_status: MessageStatus | str | None = attrs.field(default=None, metadata=REFERENCE)
    approval_stage: str | None = attrs.field(default=None, metadata=REFERENCE)
    is_archived: bool | None = attrs.field(default=None, metadata=REFERENCE)
    created_at: datetime | None = attrs.field(default=None, metadata=ASSUMED)
    updated_at: datetime | None = attrs.field(default=None, metadata=ASSUMED)
    extra: dict[str, JSON] = attrs.field(factory=no_extra, repr=names_only)


class CustomerChange(TypedDict):
    """One customer and the profile values to change.

    Attributes:
        customer_id: The customer (assumed).
        extended_profile: Profile field to value (assumed).
    """

    customer_id: str
    extended_profile: dict[str, JSON]
