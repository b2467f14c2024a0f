"""What the generated models are made of: JSON values, evidence, and a ``repr`` that keeps quiet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NoReturn, TypeAlias

__all__ = [
    "ASSUMED",
    "JSON",
    "OBSERVED",
    "REFERENCE",
    "SEED",
    "Evidence",
    "NotPickled",
    "Secret",
    "hidden",
    "names_only",
    "no_extra",
]

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None
"""A value that JSON can hold. Integers lie within 64 bits, floats are finite."""


class Evidence(StrEnum):
    """How well a fact of the contract is known."""

    SEED = "seed"
    """Stated by a page of the reference, example included."""

    REFERENCE = "reference"
    """Stated elsewhere in the public reference."""

    OBSERVED = "observed"
    """Named by analogy, and since seen in the answers of the service."""

    ASSUMED = "assumed"
    """Named by analogy: plausible, unverified."""


SEED: Mapping[str, Evidence] = {"evidence": Evidence.SEED}
REFERENCE: Mapping[str, Evidence] = {"evidence": Evidence.REFERENCE}
OBSERVED: Mapping[str, Evidence] = {"evidence": Evidence.OBSERVED}
ASSUMED: Mapping[str, Evidence] = {"evidence": Evidence.ASSUMED}


def hidden(value: object) -> str:
    """The ``repr`` of something that is secret or personal: only whether it is there."""
    return "None" if value is None else "***"


def names_only(value: Mapping[str, object]) -> str:
    """The ``repr`` of a mapping whose values are nobody's business: its keys."""
    return "{" + ", ".join(f"{name!r}: ***" for name in value) + "}"


def no_extra() -> dict[str, JSON]:
    """An empty ``extra``."""
    return {}


class Secret(str):
    """A text whose ``repr`` keeps quiet, so that tracebacks that show local variables do."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


class NotPickled:
    """A value with a secret in it. It copies as itself, and refuses to be pickled."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds a secret and is not pickled; read the secret anew on the other side, "
            "for example from the environment."
        )

    def __copy__(self) -> NotPickled:
        return self

    def __deepcopy__(self, memo: object) -> NotPickled:
        return self
