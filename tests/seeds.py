"""The five examples of the public reference, as they stand there. Data only."""

from __future__ import annotations

from typing import Any

from attrs import frozen


@frozen
class Seed:
    """One operation page: its request, its answer, and the TAB keys of the latter."""

    operation: str
    request: dict[str, Any]
    answer: str


SEEDS = (
    Seed(
        "customer_groups.update",
        {
            "workspace_id": "your-workspace-id",
            "customer_group_id": "your-customer-group-id",
            "group_name": "Premium VIP Customers",
        },
        r"""{
    "customer_group_id": "your-customer-group-id",
    "workspace_id": "your-workspace-id",
    "group_name": "Premium VIP Customers",
    "created_at\t": "2025-09-08T18:18:21.462Z",
    "updated_at\t": "2025-09-08T18:18:21.462Z"
}""",
    ),
    Seed(
        "customer_groups.create",
        {"workspace_id": "your-workspace-id", "group_name": "VIP Customers"},
        """{
    "customer_group_id": "string",
    "account_id": "string",
    "workspace_id": "string",
    "group_name": "string",
    "created_by": "string",
    "created_at": "string",
    "updated_at": "string"
}""",
    ),
    Seed(
        "customer_groups.list",
        {"workspace_id": "your-workspace-id"},
        """[
    {
        "customer_group_id": "string",
        "account_id": "string",
        "workspace_id": "string",
        "group_name": "string",
        "created_at": "string",
        "updated_at": "string",
        "created_by": "string",
        "updated_by": "string"
    }
]""",
    ),
    Seed(
        "customers.list",
        {"customer_group_id": "your-customer-group-id", "page": 10},
        """[
    {
        "customer_id": "string",
        "account_id": "string",
        "workspace_id": "string",
        "customer_group_id": "string",
        "extended_profile": {},
        "created_at": "string",
        "updated_at": "string",
        "created_by": "string",
        "updated_by": "string"
    }
]""",
    ),
    Seed(
        "reruns.initiate",
        {"campaign_id": "your-campaign-uuid", "new_customer_group_id": "your-new-customer-group-uuid"},
        """{
    "success": true,
    "rerun_id": "your-campaign-rerun-uuid",
    "run_number": 3,
    "campaign_status": "Ready for review",
    "job_uid": "your-job-uuid",
    "archived_count": 10,
    "comparison": {
        "matched_count": 8,
        "new_count": 4,
        "orphaned_count": 2
    },
    "message": "Campaign rerun initiated successfully"
}""",
    ),
)
BY_OPERATION = {seed.operation: seed for seed in SEEDS}
