"""Which columns an export has, and what of a customer stands in which.

The documented fields of a customer come first, then, where profiles are readable, a column for each profile field
of the workspace, then ``extra``: JSON with everything that has no column or does not fit the one it has. So nothing
that the models hold is left out. The columns are settled when an export begins, and stay when fields are added or removed meanwhile.
"""

from __future__ import annotations

import json
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from attrs import asdict, field, frozen

from nudgescribe_async.bulk.export.values import MISFIT, plain_text
from nudgescribe_async.endpoints.models import Customer, ProfileFieldType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nudgescribe_async.endpoints.models import ProfileField

__all__ = ["Column", "Columns", "Kind", "columns_of", "compact"]

Kind: TypeAlias = Literal["text", "timestamp", "json", "number", "date", "currency"]
Fit: TypeAlias = "Callable[[object], object]"

EXTRA = "extra"
PROFILE = "extended_profile"
_DOCUMENTED: tuple[tuple[str, Kind], ...] = (
    ("customer_id", "text"),
    ("account_id", "text"),
    ("workspace_id", "text"),
    ("customer_group_id", "text"),
    (PROFILE, "json"),
    ("created_at", "timestamp"),
    ("updated_at", "timestamp"),
    ("created_by", "text"),
    ("updated_by", "text"),
)
_KINDS: Mapping[str, Kind] = {
    ProfileFieldType.NUMBER: "number",
    ProfileFieldType.DATE: "date",
    ProfileFieldType.CURRENCY: "currency",
}


def compact(value: object) -> str:
    """A value as JSON text that any encoding can write; what JSON cannot hold, as its ``str()``."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text if plain_text(text) is not MISFIT else json.dumps(value, separators=(",", ":"), default=str)


@frozen(kw_only=True)
class Column:
    """One column.

    Attributes:
        name: what it is called.
        kind: what stands in it.
        field: the profile field that it is of; ``None`` if it is of the customer itself.
        format: the format of that field, if it has one.
    """

    name: str
    kind: Kind
    field: str | None = None
    format: str | None = None


@frozen(kw_only=True)
class Columns:
    """All columns of an export, in their order; ``extra`` is the last.

    Attributes:
        all: the columns.
        decrypted: whether profiles are in the clear.
    """

    all: tuple[Column, ...]
    decrypted: bool
    _known: frozenset[str] = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_known", frozenset(each.field for each in self.all if each.field is not None))

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called."""
        return tuple(column.name for column in self.all)

    def to_plain(self) -> list[dict[str, Any]]:
        """The columns as JSON values."""
        return [{name: value for name, value in asdict(column).items() if value is not None} for column in self.all]

    @classmethod
    def from_plain(cls, columns: Sequence[Mapping[str, Any]], *, decrypted: bool) -> Columns:
        """The columns that ``to_plain`` gave."""
        return cls(all=tuple(Column(**column) for column in columns), decrypted=decrypted)

    def profile(self, customer: Customer) -> Mapping[str, object]:
        """The profile, in the clear if it is to be."""
        return customer.profile() if self.decrypted else customer.extended_profile

    def table(
        self, customers: Sequence[Customer], fits: Mapping[str, Callable[[object, str | None], object]]
    ) -> list[list[Any]]:
        """Customers as columns of values.

        Args:
            customers: the customers.
            fits: for each kind, what makes a value of it one that the column holds, or ``MISFIT``. ``None`` is no value, and
                is not asked about.
        """
        extras: list[dict[str, object]] = [dict(customer.extra) for customer in customers]
        left: list[dict[str, object]] = [{} for _ in customers]
        has_profile_column = any(column.name == PROFILE and column.field is None for column in self.all)
        profiles = [self.profile(customer) for customer in customers]
        if not has_profile_column:
            for profile, rest in zip(profiles, left, strict=True):
                rest.update((name, value) for name, value in profile.items() if name not in self._known)
        table: list[list[Any]] = []
        for column in self.all[:-1]:
            fit, pattern = fits[column.kind], column.format
            values: list[object]
            if column.field is not None:
                name = column.field
                values = [profile.get(name) for profile in profiles]
                cells = [None if value is None else fit(value, pattern) for value in values]
                for row, cell in enumerate(cells):
                    if cell is MISFIT:
                        left[row][name], cells[row] = values[row], None
            else:
                values = (
                    cast("list[object]", profiles)
                    if column.name == PROFILE
                    else [*map(attrgetter(column.name), customers)]
                )
                cells = [None if value is None else fit(value, pattern) for value in values]
                for row, cell in enumerate(cells):
                    if cell is MISFIT:
                        extras[row][column.name], cells[row] = values[row], None
            table.append(cells)
        for extra, rest in zip(extras, left, strict=True):
            if rest:
                extra[PROFILE] = rest
        table.append([compact(extra) if extra else None for extra in extras])
        return table


def columns_of(fields: Sequence[ProfileField] | None, *, decrypted: bool) -> Columns:
    """The columns for the profile fields of a workspace.

    Args:
        fields: the profile fields; ``None`` if they are not known, or profiles are not readable: then the
            profile is one column, of JSON.
        decrypted: whether profiles are in the clear.
    """
    named = [Column(name=name, kind=kind) for name, kind in _DOCUMENTED if fields is None or name != PROFILE]
    taken = {EXTRA, *(name for name, _ in _DOCUMENTED)}
    for each in fields or ():
        if any(column.field == each.field_name for column in named):
            continue  # two fields of one name are one
        name = each.field_name
        while name in taken:
            name = f"profile.{name}"
        taken.add(name)
        kind = _KINDS.get(each.field_type, "text")
        pattern = each.field_format if kind in {"date", "currency"} else None
        named.append(Column(name=name, kind=kind, field=each.field_name, format=pattern))
    return Columns(all=(*named, Column(name=EXTRA, kind="json")), decrypted=decrypted)
