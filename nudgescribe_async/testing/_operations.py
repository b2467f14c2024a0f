"""The operations of the contract, for what sees of a call nothing but the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from nudgescribe_async.endpoint import Endpoint
from nudgescribe_async.endpoints import auth, campaigns, customer_groups, customers, messages, profile_fields, reruns
from nudgescribe_async.injection import check_operation

__all__ = ["NAMES", "OPERATIONS", "check_name"]

OPERATIONS: Final[Mapping[tuple[str, str], str]] = {
    (value.method, value.path): value.operation
    for module in (auth, campaigns, customer_groups, customers, messages, profile_fields, reruns)
    for value in cast("Mapping[str, object]", vars(module)).values()
    if isinstance(value, Endpoint)
}
"""The operation behind each method and path. No path has parameters."""

NAMES: Final = frozenset(OPERATIONS.values())


def check_name(operation: str) -> None:
    """Refuse what is no operation.

    Raises:
        TypeError: it is no text.
        ValueError: there is none of that name.
    """
    check_operation(operation, NAMES)
