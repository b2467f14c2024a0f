"""What is to be run again: campaigns, and the group that each is for.

::

    plan = RerunPlan([RerunRequest("c-1", "g-7"), RerunRequest("c-2", "g-9")])
    plan = await asyncio.to_thread(RerunPlan.from_csv, "quarter.csv")

A plan is a value. Making one asks the service nothing: whether the campaigns and groups exist is looked up when it is run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from attrs import Attribute, field, frozen

from nudgescribe_async.arguments import kind
from nudgescribe_async.bulk.files import canonical
from nudgescribe_async.rerun.plan_file import PlanFile

if TYPE_CHECKING:
    from typing import Self

__all__ = ["RerunPlan", "RerunRequest"]

_LISTED = 10


def _text(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"RerunRequest({attribute.name}=...) must be a text; got {kind(value)}.")


@frozen
class RerunRequest:
    """One campaign, and the customer group to run it for.

    Attributes:
        campaign_id: the campaign (contract: seed).
        new_customer_group_id: the group, of the campaign's workspace (contract: seed).
    """

    campaign_id: str = field(validator=_text)
    new_customer_group_id: str = field(validator=_text)


def _requests(requests: Iterable[RerunRequest]) -> tuple[RerunRequest, ...]:
    if isinstance(cast("object", requests), str | bytes | Mapping) or not isinstance(
        cast("object", requests), Iterable
    ):
        raise TypeError(f"A plan must be an iterable of RerunRequest; got {kind(requests)}.")
    found = tuple(requests)
    for position, request in enumerate(found, 1):
        if not isinstance(cast("object", request), RerunRequest):
            raise TypeError(
                f"A plan must be an iterable of RerunRequest; item {position} of it is {kind(request)}. "
                "Make it RerunRequest(campaign_id, new_customer_group_id)."
            )
    return found


def _count(requests: tuple[RerunRequest, ...]) -> str:
    return f"<{len(requests):,}>"


@frozen(slots=False)  # for what is computed once
class RerunPlan:
    """Campaigns to run again, in the order in which they are to be started.

    Made of any iterable of ``RerunRequest``, or of a file with ``from_csv``. Whatever is wrong with one of them, such as a
    campaign that is there twice, is in the report of the run, and stops no other.

    Two plans with the same items have the same ``digest``, whatever their order: by that a journal knows its plan.
    ``repr()`` says only how many items there are.

    Attributes:
        requests: what to run.

    Raises:
        TypeError: something else than an iterable of requests was given.
    """

    requests: tuple[RerunRequest, ...] = field(converter=_requests, repr=_count)

    def __iter__(self) -> Iterator[RerunRequest]:
        return iter(self.requests)

    def __len__(self) -> int:
        return len(self.requests)

    @classmethod
    def of(cls, plan: Iterable[RerunRequest]) -> Self:
        """The plan itself, or one made of any iterable of requests."""
        return plan if isinstance(plan, cls) else cls(plan)

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        *,
        campaign_column: str = "campaign_id",
        group_column: str = "new_customer_group_id",
        encoding: str = "utf-8",
        delimiter: str = ",",
    ) -> Self:
        """The plan in a CSV file (RFC 4180), a row for each campaign. It blocks: use ``asyncio.to_thread`` in a service.

        The first line names the columns. They may stand in any order, and others are left out, but every row must have as
        many cells as the header. White space around ids and names of columns is taken off, as is a byte order mark;
        lines end with LF or CRLF, and blank ones are skipped.

        Args:
            path: the file. It is read as a whole.
            campaign_column: the column of the campaigns.
            group_column: the column of the groups that they are to be run for.
            encoding: of the file, such as ``"cp1252"``.
            delimiter: what divides the cells, such as ``";"``.

        Raises:
            RerunPlanError: it cannot be read (``__cause__`` is the ``OSError`` then), or is no plan: a column is missing or
                there twice, a row is too short or too long, an id is empty, there is no row at all, a quote is not closed,
                it cannot be decoded. ``line`` is the first line that is wrong, and the text names the first ten; of the file
                it repeats the names of columns only.
            TypeError: an argument is of the wrong type.
            ValueError: an argument cannot be right.
        """
        file = PlanFile(
            path=path,
            campaign_column=campaign_column,
            group_column=group_column,
            encoding=encoding,
            delimiter=delimiter,
        )
        return cls(RerunRequest(campaign, group) for campaign, group in file.read())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is to be run, whatever the order: 64 hexadecimal digits."""
        pairs = sorted([request.campaign_id, request.new_customer_group_id] for request in self.requests)
        return hashlib.sha256(canonical(pairs)).hexdigest()

    def mistakes(self) -> Mapping[int, str]:
        """What is wrong with items of the plan as such, by their index: ids that cannot be, campaigns that are there twice."""
        return self._mistakes

    @cached_property
    def _mistakes(self) -> Mapping[int, str]:
        places: dict[str, list[int]] = {}
        for position, request in enumerate(self.requests, 1):
            places.setdefault(request.campaign_id, []).append(position)
        found: dict[int, str] = {}
        for index, request in enumerate(self.requests):
            same = places[request.campaign_id]
            campaign, group = request.campaign_id, request.new_customer_group_id
            if not campaign.strip():
                found[index] = "The campaign id is empty."
            elif not group.strip():
                found[index] = "The id of the customer group is empty."
            elif campaign != campaign.strip() or group != group.strip():
                found[index] = "An id has white space at its beginning or end."
            elif not _is_text(campaign) or not _is_text(group):
                found[index] = "An id has characters that no text can have (half of a surrogate pair)."
            elif len(same) > 1:
                items = ", ".join(map(str, same[:_LISTED])) + (" and more" if len(same) > _LISTED else "")
                found[index] = f"The campaign is in the plan {len(same)} times (items {items}), so none of them is run."
        return found


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
