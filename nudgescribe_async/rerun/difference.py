"""How a plan differs from the one that a journal knows, and what of that was sent already.

A campaign that may have a run by this journal cannot be taken out of it, nor be given another group: its line is all that
is known of that run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from nudgescribe_async.rerun.item import RerunItem
    from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest

__all__ = ["Difference", "may_be_changed", "to_run"]


def to_run(plan: RerunPlan) -> Mapping[int, RerunRequest]:
    """What can be run of a plan, by its position in it; the first is 1."""
    mistakes = plan.mistakes()
    return {index + 1: request for index, request in enumerate(plan.requests) if index not in mistakes}


def may_be_changed(item: RerunItem) -> bool:
    """Whether a campaign has no run by this journal: nothing was sent, or the service said no, and no run came of it."""
    return item.state == "refused" or (item.state == "planned" and item.attempts == 0)


@frozen(kw_only=True)
class Difference:
    """What is another in a plan than in a journal; campaigns, by their ids.

    Attributes:
        requests: what can be run of the plan, by its position in it.
        added: they are only in the plan.
        removed: they are only in the journal.
        regrouped: they are in both, but for another group.
        repeated: they are in the plan, for whichever group, and the journal has run them, or may have.
        overturned: the journal has run them, or may have, and the plan has them not at all, or for another group.
    """

    requests: Mapping[int, RerunRequest]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    regrouped: tuple[str, ...]
    repeated: tuple[str, ...]
    overturned: tuple[str, ...]

    @classmethod
    def between(cls, items: Mapping[str, RerunItem], plan: RerunPlan) -> Self:
        """Compare what a journal knows with a plan."""
        requests = to_run(plan)
        groups = {request.campaign_id: request.new_customer_group_id for request in requests.values()}
        sent = [name for name, item in items.items() if not may_be_changed(item)]
        return cls(
            requests=requests,
            added=tuple(name for name in groups if name not in items),
            removed=tuple(name for name in items if name not in groups),
            regrouped=tuple(
                name for name, group in groups.items() if name in items and items[name].new_customer_group_id != group
            ),
            repeated=tuple(name for name in sent if name in groups),
            overturned=tuple(name for name in sent if groups.get(name) != items[name].new_customer_group_id),
        )
