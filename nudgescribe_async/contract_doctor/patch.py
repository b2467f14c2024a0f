"""The patch that marks in ``openapi.yaml`` what answers have confirmed, with comments and layout as they are."""

from __future__ import annotations

import difflib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nudgescribe_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nudgescribe_async.contract_doctor.contract import Pointer

__all__ = ["need_yaml", "patch_of"]

PLACE = "nudgescribe_async/contract/openapi.yaml"
BEFORE, AFTER = "assumed", "observed"


def need_yaml() -> Any:
    """What reads YAML, PyYAML.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            'A patch of the contract needs the package PyYAML: pip install "nudgescribe_async[contract]".'
        ) from None
    return yaml


def patch_of(pointers: Iterable[Pointer]) -> str:
    """A unified diff of ``openapi.yaml`` in which these are observed; empty if there are none, or all are so already.

    Its lines end as those of the file do.

    Raises:
        ConfigurationError: there is nothing installed that reads YAML, or ``openapi.yaml`` was edited, and what is
            generated from it was not made anew.
    """
    yaml = need_yaml()
    # Not as text, which would have other ends of lines than the file.
    text = files("nudgescribe_async").joinpath("contract", "openapi.yaml").read_bytes().decode()
    lines = text.splitlines(keepends=True)
    # That of C takes a tenth of the time, where PyYAML was built with it.
    try:
        top: Any = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        marks = [mark for pointer in pointers if (mark := _mark(top, pointer, lines)) is not None]
    except (yaml.YAMLError, _EditedError):
        raise ConfigurationError(
            f"{PLACE} has been edited since openapi.json was made of it: generate (nox -s generate), and look again."
        ) from None
    # From the end, so that what stands before it stays where it is.
    for number, column in sorted(marks, reverse=True):
        lines[number] = lines[number][:column] + AFTER + lines[number][column + len(BEFORE) :]
    return "".join(difflib.unified_diff(text.splitlines(keepends=True), lines, f"a/{PLACE}", f"b/{PLACE}"))


class _EditedError(Exception):
    """Something is not where the contract that was compared with has it."""


def _mark(top: Any, pointer: Pointer, lines: list[str]) -> tuple[int, int] | None:
    """The line and column where the evidence of something is written; ``None`` if it is observed already."""
    node = top
    try:
        for key in (*pointer, "x-evidence"):
            node = (
                node.value[key]
                if isinstance(key, int)
                else next(value for name, value in node.value if name.value == key)
            )
        evidence, number, column = node.value, int(node.start_mark.line), int(node.start_mark.column)
    except (AttributeError, IndexError, StopIteration, TypeError, ValueError):
        raise _EditedError from None
    if evidence == AFTER:
        return None
    if not lines[number].startswith(BEFORE, column):  # quoted, or of another kind altogether
        raise _EditedError
    return number, column
