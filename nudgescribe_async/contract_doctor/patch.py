"""The patch that marks in ``openapi.yaml`` what answers have confirmed, with comments and layout as they are."""

from __future__ import annotations

import difflib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nudgescribe_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nudgescribe_async.contract_doctor.contract import Pointer

__all__ = ["patch_of"]

PLACE = "nudgescribe_async/contract/openapi.yaml"
BEFORE, AFTER = "assumed", "observed"


def patch_of(pointers: Iterable[Pointer]) -> str:
    """A unified diff of ``openapi.yaml`` in which these are observed; empty if there are none.

    Raises:
        ConfigurationError: there is nothing installed that reads YAML.
    """
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            'A patch of the contract needs the package PyYAML: pip install "nudgescribe_async[contract]".'
        ) from None
    text = files("nudgescribe_async").joinpath("contract", "openapi.yaml").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    # That of C takes a tenth of the time, where PyYAML was built with it.
    top: Any = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    marks = [_mark(top, pointer) for pointer in pointers]
    # From the end, so that what stands before it stays where it is.
    for number, column in sorted(((int(mark.line), int(mark.column)) for mark in marks), reverse=True):
        lines[number] = lines[number][:column] + AFTER + lines[number][column + len(BEFORE) :]
    return "".join(difflib.unified_diff(text.splitlines(keepends=True), lines, f"a/{PLACE}", f"b/{PLACE}"))


def _mark(top: Any, pointer: Pointer) -> Any:
    """Where the evidence of something is written."""
    node = top
    for key in (*pointer, "x-evidence"):
        node = (
            node.value[key] if isinstance(key, int) else next(value for name, value in node.value if name.value == key)
        )
    return node.start_mark
