"""What is to be tested: a small program of yours."""

import asyncio
import os
from pathlib import Path

from nudgescribe_async import Nudgescribe, OutcomeUnknownError


async def find_group(ns: Nudgescribe, workspace_id: str, name: str) -> str | None:
    for group in await ns.customer_groups.list(workspace_id):
        if group.group_name == name:
            return group.customer_group_id
    return None


async def group_for(ns: Nudgescribe, workspace_id: str, name: str) -> str:
    """The group of this name. It is made if there is none, and never twice."""
    found = await find_group(ns, workspace_id, name)
    if found is not None:
        return found
    try:
        return (await ns.customer_groups.create(workspace_id, name)).customer_group_id
    except OutcomeUnknownError:
        made = await find_group(ns, workspace_id, name)  # the answer was lost: was it made?
        if made is None:
            raise
        return made


async def group_names() -> list[str]:
    async with Nudgescribe.from_env() as ns:
        groups = await ns.customer_groups.list(os.environ["NUDGESCRIBE_WORKSPACE_ID"])
    return [group.group_name for group in groups]


def main() -> None:
    with asyncio.Runner() as runner:
        names = runner.run(group_names())
    Path("groups.txt").write_text("\n".join(sorted(names)), encoding="utf-8")
