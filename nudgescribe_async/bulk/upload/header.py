"""Which columns of a source are sent, and by which rule each is judged."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import TYPE_CHECKING

from attrs import frozen

from nudgescribe_async.bulk.upload.faults import fault
from nudgescribe_async.bulk.upload.rules import Rule, unjudged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nudgescribe_async.errors import UploadSourceError

__all__ = ["Columns", "match"]

_SHOWN = 60  # characters of a name
_LISTED = 5  # and one more, rather than say that there is one more


@frozen(kw_only=True)
class Columns:
    """The columns that are sent.

    Attributes:
        width: how many columns the source has.
        picked: the index in the source of each column that is sent.
        rules: the rule of each column that is sent.
    """

    width: int
    picked: tuple[int, ...]
    rules: tuple[Rule, ...]

    @property
    def names(self) -> list[str]:
        """The header of what is sent."""
        return [rule.name for rule in self.rules]


def match(
    header: Sequence[str], rules: Mapping[str, Rule] | None, wanted: Sequence[str] | None, *, line: int | None = None
) -> Columns:
    """Compare the header of a source with the fields of the workspace.

    Args:
        header: the names of the columns.
        rules: the rules of the workspace; ``None`` leaves names to the service.
        wanted: the columns to send; ``None`` for all.
        line: the line of the file that the header stands in.

    Raises:
        UploadSourceError: a name comes twice, is unknown, or a required field has no column. A header that has no
            field in it is not repeated, since it may be the first customer.
    """
    names = [name.strip() for name in header]
    present, chosen = set(names), set(wanted or ())
    absent = [name for name in wanted or () if name not in present]
    if absent:
        raise fault(f"The source has no column {_listed(absent)}, which fields= names.", line=line, field=_only(absent))
    picked = [index for index, name in enumerate(names) if wanted is None or name in chosen]
    counts = Counter(names[index] for index in picked)
    for name, count in counts.items():
        if count > 1:
            at = [str(index + 1) for index in picked if names[index] == name][:_LISTED]
            raise fault(
                f"The header has the same name in the columns {' and '.join(at)}"
                f"{f': {_quoted(name)}' if rules is not None and name in rules else ''}.",
                line=line,
                field=name if rules is not None and name in rules else None,
                advice="Rename or remove one of them.",
            )
    if rules is None:
        blank = next((index for index in picked if not names[index]), None)
        if blank is not None:
            raise fault(f"Column {blank + 1} of the header has no name.", line=line, advice="Name or remove it.")
        return _columns(names, picked, [unjudged(names[index]) for index in picked])
    unknown = [index for index in picked if names[index] not in rules]
    if unknown:
        raise _unknown(names, unknown, rules, line, nothing_fits=len(unknown) == len(picked))
    lacking = [rule.name for rule in rules.values() if rule.required and rule.name not in counts]
    if lacking:
        raise fault(
            f"The source has no column for {_listed(lacking)}, which the workspace requires of every customer.",
            line=line,
            field=_only(lacking),
            advice="Add the column, or name it in fields=." if wanted is not None else "Add the column.",
        )
    return _columns(names, picked, [rules[names[index]] for index in picked])


def _columns(names: Sequence[str], picked: Sequence[int], rules: Sequence[Rule]) -> Columns:
    return Columns(width=len(names), picked=tuple(picked), rules=tuple(rules))


def _unknown(
    names: Sequence[str], unknown: Sequence[int], rules: Mapping[str, Rule], line: int | None, *, nothing_fits: bool
) -> UploadSourceError:
    hints: list[str] = []
    lower = {name.lower(): name for name in rules}
    shown = unknown[: _shown(len(unknown))]
    for index in shown:
        close = difflib.get_close_matches(names[index].lower()[:200], lower, n=1)
        hint = f"; did you mean {_quoted(lower[close[0]])}?" if close else "."
        # What has no field in it may be a customer, whose values are nobody's business here.
        name = "" if nothing_fits else f", {_quoted(names[index])},"
        hints.append(f"Column {index + 1}{name} is no profile field of the workspace{hint}")
    if len(unknown) > len(shown):
        hints.append(f"{len(unknown) - len(shown)} more columns are none either.")
    advice = "Rename it, create the field, or name the columns to send: fields=[...]."
    if nothing_fits:
        advice = f"The first row must name profile fields; the workspace has {_listed(list(rules))}."
        if len(names) == 1:
            other = next((mark for mark in ";\t|," if mark in names[0]), None)
            advice += f" The cells may be divided by {other!r}: pass delimiter={other!r}." if other else ""
    field = None if nothing_fits else _only([names[index] for index in unknown])
    return fault(" ".join(hints), line=line, field=field, advice=advice)


def _only(names: Sequence[str]) -> str | None:
    """The one name that a fault is about, unless it is so long that it is none."""
    return names[0] if len(names) == 1 and len(names[0]) <= _SHOWN else None


def _shown(count: int) -> int:
    return count if count <= _LISTED + 1 else _LISTED


def _quoted(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")


def _listed(names: Sequence[str]) -> str:
    shown = names[: _shown(len(names))]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return (", ".join(_quoted(name) for name in shown) or "none") + more
