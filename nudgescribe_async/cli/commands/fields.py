"""``nudgescribe fields``: the profile fields of a workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from nudgescribe_async.cli.choosing import the_one
from nudgescribe_async.cli.context import InContext, Workspace, Yes  # noqa: TC001 - read at run time
from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.cli.output import Column
from nudgescribe_async.cli.wording import spoken_as_command

if TYPE_CHECKING:
    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.endpoints.models import ProfileField

__all__ = ["app"]

app = App(name="fields")

Field = Annotated[str, Parameter(help="The id of the profile field, or its name if no other field has it.")]
Kind = Literal["string", "number", "char", "Date", "currency"]


async def _find(ns: Nudgescribe, workspace: str, wanted: str) -> ProfileField:
    return the_one(
        wanted,
        await ns.profile_fields.list(workspace),
        what="profile field",
        id_of=lambda field: field.profile_field_id,
        name_of=lambda field: field.field_name,
        workspace=workspace,
        listed_by="fields list",
    )


@app.command(name="list")
async def list_fields(*, workspace: Workspace = None, context: InContext) -> None:
    """List the profile fields of the workspace: the columns that an upload may have."""
    async with context.client() as ns:
        fields = await ns.profile_fields.list(context.workspace(workspace))
    context.output.table(
        fields,
        [Column("id", whole=True), Column("name"), Column("type"), Column("format"), Column("required")],
        lambda field: (
            field.profile_field_id,
            field.field_name,
            field.field_type,
            field.field_format,
            field.is_required,
        ),
        empty="There are no profile fields in this workspace.",
    )


@app.command
async def create(
    name: Annotated[str, Parameter(help="The name of the field, as in the header of an upload.")],
    kind: Annotated[Kind, Parameter(help="The type of the values.")],
    /,
    *,
    pattern: Annotated[
        str | None,
        Parameter(
            name="--format",
            help="The format of dates (such as yyyy-MM-dd), or the currency (such as USD). Date and currency need one.",
        ),
    ] = None,
    required: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Every customer must have a value.")
    ] = False,
    workspace: Workspace = None,
    context: InContext,
) -> None:
    """Create a profile field."""
    with spoken_as_command():
        async with context.client() as ns:
            field = await ns.profile_fields.create(
                context.workspace(workspace), name, kind, field_format=pattern, is_required=required
            )
    context.output.document(field, f"The profile field {field.field_name!r} was created: {field.profile_field_id}")


@app.command
async def update(
    field: Field,
    /,
    *,
    name: Annotated[str | None, Parameter(help="The new name.")] = None,
    kind: Annotated[Kind | None, Parameter(name="--type", help="The new type of the values.")] = None,
    pattern: Annotated[
        str | None, Parameter(name="--format", help="The new format of dates, or the new currency.")
    ] = None,
    required: Annotated[
        bool | None, Parameter(negative="--optional", help="Whether every customer must have a value.")
    ] = None,
    workspace: Workspace = None,
    context: InContext,
) -> None:
    """Change a profile field. What is not given stays as it is."""
    if name is None and kind is None and pattern is None and required is None:
        raise UsageError("Nothing is to be changed.", hint="Give --name, --type, --format, --required or --optional.")
    place = context.workspace(workspace)
    with spoken_as_command():
        async with context.client() as ns:
            found = await _find(ns, place, field)
            changed = await ns.profile_fields.update(place, found.profile_field_id, name, kind, pattern, required)
    context.output.document(changed, f"The profile field {changed.field_name!r} was changed: {found.profile_field_id}")


@app.command
async def delete(field: Field, /, *, yes: Yes = False, workspace: Workspace = None, context: InContext) -> None:
    """Delete a profile field. That cannot be undone."""
    place = context.workspace(workspace)
    async with context.client() as ns:
        found = await _find(ns, place, field)
        await context.confirm(
            f"Delete the profile field {found.field_name!r} ({found.profile_field_id}) "
            f"of all customers of the workspace {place}?",
            yes=yes,
        )
        await ns.profile_fields.delete(place, found.profile_field_id)
    context.output.document(
        {"deleted": found}, f"The profile field {found.field_name!r} was deleted: {found.profile_field_id}"
    )
