"""Finding what somebody means by an id, or by a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nudgescribe_async.cli.failures import CommandError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["the_one"]

T = TypeVar("T")


def the_one(
    wanted: str,
    known: Sequence[T],
    *,
    what: str,
    id_of: Callable[[T], str],
    name_of: Callable[[T], str],
    workspace: str,
    listed_by: str,
) -> T:
    """What has this id, or else this name.

    Args:
        wanted: an id or a name.
        known: all that there are.
        what: what they are, in the singular, such as ``group``.
        id_of: the id of one.
        name_of: its name.
        workspace: where they are from.
        listed_by: the command that lists them.

    Raises:
        CommandError: there is none.
        UsageError: several have this name.
    """
    for each in known:
        if id_of(each) == wanted:
            return each
    named = [each for each in known if name_of(each) == wanted]
    if not named:
        raise CommandError(
            f"The workspace {workspace} has no {what} {wanted!r}.", hint=f"`nudgescribe {listed_by}` shows them."
        )
    if len(named) > 1:
        ids = ", ".join(map(id_of, named))
        raise UsageError(f"{len(named)} {what}s are named {wanted!r}.", hint=f"Use the id of one: {ids}.")
    return named[0]
