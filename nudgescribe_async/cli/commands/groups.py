"""``nudgescribe groups``: the customer groups of a workspace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from nudgescribe_async.cli.choosing import the_one
from nudgescribe_async.cli.context import InContext, Workspace, Yes  # noqa: TC001 - read at run time
from nudgescribe_async.cli.output import Column
from nudgescribe_async.cli.plain import members
from nudgescribe_async.cli.wording import spoken_as_command

if TYPE_CHECKING:
    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.endpoints.models import CustomerGroup
    from nudgescribe_async.shapes import JSON

__all__ = ["Group", "app", "count_customers", "find_group"]

app = App(name="groups")

Group = Annotated[str, Parameter(help="The id of the group, or its name if no other group has it.")]


async def find_group(ns: Nudgescribe, workspace: str, wanted: str) -> CustomerGroup:
    """The group of this id, or else of this name.

    Raises:
        CommandError: there is none.
        UsageError: several have this name.
    """
    return the_one(
        wanted,
        await ns.customer_groups.list(workspace),
        what="group",
        id_of=lambda group: group.customer_group_id,
        name_of=lambda group: group.group_name,
        workspace=workspace,
        listed_by="groups list",
    )


async def count_customers(ns: Nudgescribe, group_id: str) -> int:
    """How many customers a group has, from its number of pages and its first and last one.

    All pages but the last are taken to be as long as the first.
    """
    pages = await ns.customers.count_pages(group_id)
    if pages < 1:
        return 0
    ends = {1, pages}
    first, *rest = await asyncio.gather(*(ns.customers.list(group_id, page=page) for page in sorted(ends)))
    return (pages - 1) * len(first) + len(rest[0] if rest else first)


@app.command(name="list")
async def list_groups(
    *,
    counts: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="Say how many customers each group has, too. That takes up to three requests a group.",
        ),
    ] = False,
    workspace: Workspace = None,
    context: InContext,
) -> None:
    """List the groups of the workspace."""
    async with context.client() as ns:
        groups = await ns.customer_groups.list(context.workspace(workspace))
        known = await asyncio.gather(*(_known(ns, group, counted=counts) for group in groups))
    context.output.table(
        known,
        [Column("id", whole=True), Column("name"), *([Column("customers", right=True)] if counts else [])],
        lambda group: [group[name] for name in ("customer_group_id", "group_name", "customers") if name in group],
        empty="There are no groups in this workspace.",
    )


@app.command
async def create(
    name: Annotated[str, Parameter(help="The name of the group.")],
    /,
    *,
    workspace: Workspace = None,
    context: InContext,
) -> None:
    """Create a group. Its customers come with `nudgescribe customers upload`.

    The service makes another group each time, also of a name that there is already.
    """
    with spoken_as_command():
        async with context.client() as ns:
            group = await ns.customer_groups.create(context.workspace(workspace), name)
    context.output.document(group, f"The group {group.group_name!r} was created: {group.customer_group_id}")


@app.command
async def rename(
    group: Group,
    name: Annotated[str, Parameter(help="The new name.")],
    /,
    *,
    workspace: Workspace = None,
    context: InContext,
) -> None:
    """Rename a group. Its customers and its history stay."""
    place = context.workspace(workspace)
    with spoken_as_command():
        async with context.client() as ns:
            found = await find_group(ns, place, group)
            renamed = await ns.customer_groups.update(place, found.customer_group_id, name)
    context.output.document(
        renamed, f"The group {found.group_name!r} is named {renamed.group_name!r} now: {found.customer_group_id}"
    )


@app.command
async def delete(group: Group, /, *, yes: Yes = False, workspace: Workspace = None, context: InContext) -> None:
    """Delete a group. That cannot be undone."""
    place = context.workspace(workspace)
    async with context.client() as ns:
        found = await find_group(ns, place, group)
        if not yes:
            count = await count_customers(ns, found.customer_group_id)
            customers = "1 customer" if count == 1 else f"{count:,} customers"
            await context.confirm(
                f"Delete the group {found.group_name!r} ({found.customer_group_id}) with {customers}?", yes=yes
            )
        await ns.customer_groups.delete(place, found.customer_group_id)
    context.output.document(
        {"deleted": found}, f"The group {found.group_name!r} was deleted: {found.customer_group_id}"
    )


async def _known(ns: Nudgescribe, group: CustomerGroup, *, counted: bool) -> dict[str, JSON]:
    known = members(group)
    if counted:
        known["customers"] = await count_customers(ns, group.customer_group_id)
    return known
