"""What users of pydantic write down of a customer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, TypeAdapter


class Customer(BaseModel):
    """The fields that the contract has."""

    customer_id: str
    customer_group_id: str
    extended_profile: dict[str, Any]
    account_id: str | None = None
    workspace_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: str | None = None
    updated_by: str | None = None


class PageCount(BaseModel):
    """How many pages there are."""

    pages: int


CUSTOMERS = TypeAdapter(list[Customer])
PAGE_COUNT = TypeAdapter(PageCount)
