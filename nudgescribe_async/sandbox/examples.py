"""The example data: real customers, groups and campaigns to begin with."""

from __future__ import annotations

import csv
import gzip
import io
from importlib.resources import files
from typing import TYPE_CHECKING

from nudgescribe_async.sandbox.values import ExampleData

if TYPE_CHECKING:
    from nudgescribe_async.sandbox.server import Sandbox

SAMPLE_FIELDS = (
    ("external_id", "string", None),
    ("first_purchase", "Date", "yyyy-MM-dd"),
    ("last_purchase", "Date", "yyyy-MM-dd"),
    ("purchases", "number", None),
    ("cds_bought", "number", None),
    ("total_spend", "currency", "USD"),
)


def sample_csv() -> bytes:
    """The 23,570 customers of the CDNOW data set, as the CSV file that an upload takes."""
    packed = files("nudgescribe_async.sandbox").joinpath("data", "cdnow_customers.csv.gz").read_bytes()
    return gzip.decompress(packed)


def sample_customers() -> list[dict[str, str]]:
    """The 23,570 customers of the CDNOW data set, each a mapping of profile field to value.

    They are real people's purchases of 1997 and 1998, anonymous, published by Fader and Hardie.
    """
    return list(csv.DictReader(io.StringIO(sample_csv().decode(), newline="")))


async def create_sample_fields(sandbox: Sandbox, workspace_id: str | None = None) -> None:
    """The profile fields that the sample customers fit."""
    for name, type_, format_ in SAMPLE_FIELDS:
        await sandbox.create_profile_field(
            name, type_, field_format=format_, is_required=name == "external_id", workspace_id=workspace_id
        )


async def build(sandbox: Sandbox) -> ExampleData:
    """Two groups whose segments overlap, and a campaign in each state."""
    await create_sample_fields(sandbox)
    customers = sample_customers()
    first, second = customers[:500], customers[500:1_000]
    # The first group has no very good customers, the second no one-time buyers: so a rerun finds all three kinds.
    groups = {
        "January 1997": await sandbox.create_customer_group(
            "January 1997", customers=[c for c in first if int(c["purchases"]) < 10]
        ),
        "Returning customers": await sandbox.create_customer_group(
            "Returning customers", customers=[c for c in second if int(c["purchases"]) > 1]
        ),
    }
    segment_by = {"purchases": [2, 5, 10]}
    campaigns = {
        "Welcome back": await sandbox.create_campaign(
            "Welcome back", groups["January 1997"], segment_by=segment_by, status="Published"
        ),
        "Spring sale": await sandbox.create_campaign(
            "Spring sale", groups["January 1997"], segment_by=segment_by, status="Ready to publish"
        ),
        "Thank you": await sandbox.create_campaign(
            "Thank you", groups["Returning customers"], segment_by=segment_by, status="Ready for review"
        ),
    }
    return ExampleData(workspace_id=sandbox.workspace_id, customer_groups=groups, campaigns=campaigns)
