"""Which columns a table has, of what types, and what of an answer stands in which.

The types are those of the contract: what every answer must have cannot be null, moments are timestamps, and what has a shape
of its own is JSON. The last column is ``extra``: JSON with all that has no column, or does not fit the one it has. So
nothing that came is left out, unless you leave out a column.
"""

from __future__ import annotations

import typing
from datetime import UTC, datetime
from operator import attrgetter, methodcaller
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import attrs
from attrs import frozen

from nudgescribe_async.bulk.export.columns import columns_of, compact
from nudgescribe_async.bulk.export.values import MISFIT, day, double, money, plain_text
from nudgescribe_async.endpoints.models import Campaign, Customer, CustomerGroup, ProfileField, WorkspaceCampaigns
from nudgescribe_async.errors import ConfigurationError, ResponseDecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = [
    "CAMPAIGNS",
    "CUSTOMERS",
    "EXTRA",
    "GROUPS",
    "MESSAGES",
    "PAGE",
    "PROFILE_FIELDS",
    "Field",
    "Kind",
    "Table",
    "campaign_rows",
    "chosen",
    "customer_fields",
    "message_fields",
    "message_rows",
    "model_rows",
]

Kind: TypeAlias = Literal["text", "json", "whole", "flag", "number", "currency", "date", "timestamp"]

EXTRA: Final = "extra"
PAGE: Final = "page"
_PROFILE: Final = "extended_profile"


@frozen(kw_only=True)
class Field:
    """One column.

    Attributes:
        name: what it is called.
        kind: what stands in it.
        needed: whether it is never null.
        profile_field: the profile field that it is of; ``None`` if it is no column of a profile.
        format: the format of that field, if it has one.
    """

    name: str
    kind: Kind
    needed: bool = False
    profile_field: str | None = None
    format: str | None = None


_PAGE_FIELD = Field(name=PAGE, kind="whole", needed=True)


def _kind(annotation: object) -> tuple[Kind, bool]:
    """What stands in a column for a field of a model, and whether it may be null."""
    is_union = typing.get_origin(annotation) in {typing.Union, UnionType}
    members = set(typing.get_args(annotation)) if is_union else {annotation}
    optional = NoneType in members
    members.discard(NoneType)
    if all(isinstance(member, type) and issubclass(member, str) for member in members):
        return "text", optional
    kinds: Mapping[object, Kind] = {bool: "flag", int: "whole", datetime: "timestamp"}
    return (kinds.get(next(iter(members)), "json") if len(members) == 1 else "json"), optional


def _of_model(model: type, *, leave_out: Collection[str] = ()) -> tuple[Field, ...]:
    """The columns for a model of the contract, ``extra`` left out."""
    hints = typing.get_type_hints(model)
    found: list[Field] = []
    for attribute in attrs.fields(model):
        if attribute.name != EXTRA and attribute.name not in leave_out:
            kind, optional = _kind(hints[attribute.name])
            found.append(Field(name=attribute.name, kind=kind, needed=not optional))
    return tuple(found)


_EXTRA_FIELD = Field(name=EXTRA, kind="json")
CUSTOMERS: Final = (*_of_model(Customer), _PAGE_FIELD, _EXTRA_FIELD)
GROUPS: Final = (*_of_model(CustomerGroup), _EXTRA_FIELD)
PROFILE_FIELDS: Final = (*_of_model(ProfileField), _EXTRA_FIELD)
CAMPAIGNS: Final = (*_of_model(WorkspaceCampaigns, leave_out={"campaigns"}), *_of_model(Campaign), _EXTRA_FIELD)
MESSAGES: Final = (
    Field(name="campaign_id", kind="text", needed=True),
    Field(name="run_number", kind="whole", needed=True),
    _PAGE_FIELD,
    Field(name="position", kind="whole", needed=True),
    _EXTRA_FIELD,
)


def customer_fields(profile_fields: Sequence[ProfileField]) -> tuple[Field, ...]:
    """The columns of customers, with one for each profile field in place of ``extended_profile``.

    As in an export, a name that is taken already has ``profile.`` before it. Here that is also one that differs in upper and
    lower case alone: Spark takes both for the same.
    """
    taken = {field.name for field in CUSTOMERS}
    typed: list[Field] = []
    for column in columns_of(profile_fields, decrypted=True).all:
        if column.field is None:
            continue
        name = column.name
        while name.lower() in taken:
            name = f"profile.{name}"
        taken.add(name.lower())
        typed.append(Field(name=name, kind=column.kind, profile_field=column.field, format=column.format))
    documented = [field for field in CUSTOMERS[:-1] if field.name != _PROFILE]
    return (*documented, *typed, _EXTRA_FIELD)


def message_fields(columns: Sequence[str]) -> tuple[Field, ...]:
    """The columns of messages, with one for each column of the files that is wanted.

    Raises:
        ConfigurationError: a name is taken by a column that is always there, or two differ in upper and lower case alone,
            which Spark takes for the same.
    """
    always = {field.name for field in MESSAGES}
    taken = sorted(name for name in columns if name.lower() in always)
    if taken:
        raise ConfigurationError(
            f"The option 'message_columns' names {', '.join(map(repr, taken))}, which is a column anyway. What the files have "
            "under that name is in 'extra'."
        )
    alike = [name for name in columns if [other.lower() for other in columns].count(name.lower()) > 1]
    if alike:
        raise ConfigurationError(
            f"The option 'message_columns' names {', '.join(map(repr, alike))}, which Spark takes for the same. Leave all but "
            "one out: what the files have under the others is in 'extra'."
        )
    return (*MESSAGES[:-1], *(Field(name=name, kind="text") for name in columns), _EXTRA_FIELD)


def chosen(fields: Sequence[Field], names: Sequence[str]) -> tuple[Field, ...]:
    """The columns that are wanted, in the order in which they are.

    Raises:
        ConfigurationError: there is none of that name; the text has those that there are.
    """
    known = {field.name: field for field in fields}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(
            f"There is no column {', '.join(map(repr, unknown))}. Those that there are: {', '.join(known)}."
        )
    return tuple(known[name] for name in names)


def model_rows(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Objects of a model as rows."""
    return [attrs.asdict(item) for item in items]


def campaign_rows(workspaces: Sequence[WorkspaceCampaigns]) -> list[dict[str, Any]]:
    """A row for each campaign, with the workspace that it is of."""
    rows: list[dict[str, Any]] = []
    for workspace in workspaces:
        about = {"workspace_id": workspace.workspace_id, "workspace_name": workspace.workspace_name}
        beyond = {"workspace": workspace.extra} if workspace.extra else {}
        for campaign in workspace.campaigns:
            row = attrs.asdict(campaign)
            rows.append({**about, **row, EXTRA: {**row[EXTRA], **beyond}})
    return rows


def _plain(value: object) -> object:
    # An enum is a text with a name of its own, which is none of the column's business.
    return plain_text(value if type(value) is str or not isinstance(value, str) else str.__str__(value))


def _whole(value: object) -> object:
    """A number that a column of 64 bits holds."""
    return value if -(2**63) <= cast("int", value) < 2**63 else MISFIT


def _moment(value: object) -> object:
    """A moment in the years that Python knows, in UTC as well: Spark counts further, and cannot hand it out."""
    try:
        cast("datetime", value).astimezone(UTC)
    except OverflowError:
        return MISFIT
    return value


_FITS: Final[Mapping[str, Callable[[object, str | None], object]]] = {
    "text": lambda value, _: _plain(value),
    "json": lambda value, _: compact(value),
    "whole": lambda value, _: _whole(value),
    "flag": lambda value, _: value,
    "number": lambda value, _: double(value),
    "currency": lambda value, _: money(value),
    "date": day,
    "timestamp": lambda value, _: _moment(value),
}


class Table:
    """Makes columns of items.

    Args:
        fields: all columns that there are.
        wanted: the names of those that are asked for, in their order.
        operation: what the items are the answer to, for errors.
    """

    def __init__(self, fields: Sequence[Field], wanted: Sequence[str], *, operation: str) -> None:
        self._wanted = tuple(wanted)
        self._operation = operation
        # What is in ``extra`` depends on all columns, and not on those that are asked for.
        self._fields = tuple(field for field in fields if EXTRA in wanted or field.name in wanted)
        self._typed = frozenset(field.profile_field for field in fields if field.profile_field is not None)
        self._of_profile = any(field.profile_field is not None for field in self._fields)

    def columns(
        self, items: Sequence[Any], given: Mapping[str, Sequence[object]], *, attributes: bool = False
    ) -> list[list[Any]]:
        """The cells, column by column.

        Args:
            items: mappings; or objects with attributes.
            given: columns that are at hand.
            attributes: whether the items are objects. Their profiles are read with ``profile()``, if columns are of them.

        Raises:
            ResponseDecodeError: a value that is never null cannot be held by Spark.
            ProfileError: a profile cannot be read.
        """
        profiles: list[Mapping[str, Any]] = [item.profile() for item in items] if self._of_profile else []
        misfits: list[dict[str, object]] = [{} for _ in items]
        made: dict[str, list[Any]] = {}
        for field in self._fields:
            if field.name == EXTRA:
                continue
            values: list[Any]
            if field.name in given:
                values = [*given[field.name]]
            elif field.profile_field is not None:
                values = [*map(_getter(field.profile_field), profiles)]
            else:
                values = [*map((attrgetter if attributes else _getter)(field.name), items)]
            made[field.name] = self._fitted(field, values, misfits)
        if EXTRA in self._wanted:
            made[EXTRA] = self._extra(items, profiles, misfits, attributes=attributes)
        return [made[name] for name in self._wanted]

    def _fitted(self, field: Field, values: list[Any], misfits: list[dict[str, object]]) -> list[Any]:
        fit, pattern = _FITS[field.kind], field.format
        cells: list[Any] = [None if value is None else fit(value, pattern) for value in values]
        for row, cell in enumerate(cells):
            if cell is MISFIT:
                left = misfits[row]
                if field.profile_field is not None:
                    left = cast("dict[str, object]", left.setdefault(_PROFILE, {}))
                left[field.profile_field or field.name], cells[row] = values[row], None
        if field.needed and None in cells:
            raise ResponseDecodeError(
                f"{field.name} of an item cannot be held by Spark.",
                operation=self._operation,
                expected="a text of Unicode characters" if field.kind == "text" else "a number or a moment in range",
                received="half of a surrogate pair" if field.kind == "text" else "one that is out of range",
            )
        return cells

    def _extra(
        self,
        items: Sequence[Any],
        profiles: Sequence[Mapping[str, Any]],
        misfits: list[dict[str, object]],
        *,
        attributes: bool,
    ) -> list[str | None]:
        for row, profile in enumerate(profiles):
            for name, value in profile.items():
                if name not in self._typed:
                    cast("dict[str, object]", misfits[row].setdefault(_PROFILE, {}))[name] = value
        cells: list[str | None] = []
        for item, left in zip(items, misfits, strict=True):
            beyond: Mapping[str, object] = item.extra if attributes else item.get(EXTRA) or {}
            cells.append(compact({**beyond, **left}) if beyond or left else None)
        return cells


def _getter(name: str) -> Callable[[Any], Any]:
    return methodcaller("get", name)


def message_rows(rows: Sequence[Mapping[str, str]], columns: Collection[str]) -> list[dict[str, Any]]:
    """Rows of a message file: what has no column of its own is ``extra``."""
    return [{**row, EXTRA: {name: cell for name, cell in row.items() if name not in columns}} for row in rows]
