"""What an argument must be, said in one sentence where it is given, and not in a traceback where it is used.

For the client, the sandbox and the tools for tests alike. Knows nothing else of the package.
"""

from __future__ import annotations

import codecs
import inspect
import math
import sys

__all__ = ["check_delimiter", "check_encoding", "check_flag", "check_number", "check_whole", "is_asynchronous", "kind"]


def check_number(
    name: str,
    value: object,
    wanted: str,
    *,
    least: float = -sys.float_info.max,
    above: float = -math.inf,
    most: float = sys.float_info.max,
) -> None:
    """Refuse what is no finite number.

    Args:
        name: the argument, as the caller knows it.
        value: what was given.
        wanted: what it must be, as the end of "... must be".
        least: the lowest that it may be.
        above: what it must be more than.
        most: the highest that it may be.

    Raises:
        TypeError: it is no number.
        ValueError: it is too low, too high, infinite, or not a number after all.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {wanted}; got {kind(value)}.")
    if not (least <= value <= most and value > above):
        raise ValueError(f"{name} must be {wanted}; got {value}.")


def check_whole(name: str, value: object, wanted: str, *, least: int, most: int | None = None) -> None:
    """The same for whole numbers."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {wanted}; got {kind(value)}.")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} must be {wanted}; got {value}.")


def check_flag(name: str, value: object) -> None:
    """The same for flags: a text such as ``"no"`` would be true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {kind(value)}.")


def check_delimiter(delimiter: object) -> None:
    """The same for what divides the cells of a CSV file.

    Raises:
        TypeError: it is no text.
        ValueError: it is not one character, or one that has another meaning.
    """
    if not isinstance(delimiter, str):
        raise TypeError(f"delimiter must be a text, not {type(delimiter).__name__}.")
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise ValueError("delimiter must be one character, and neither a quote nor a line break.")


def check_encoding(encoding: str) -> str:
    """The usual name of an encoding.

    Raises:
        TypeError: it is no text.
        ValueError: Python knows no such encoding of text.
    """
    if not isinstance(encoding, str):
        raise TypeError(f"encoding must be a text such as 'latin-1', not {type(encoding).__name__}.")
    try:
        "a".encode(encoding)  # refuses those that are none of text, such as hex
        codecs.getincrementaldecoder(encoding)
        return codecs.lookup(encoding).name.removesuffix("-sig")  # the mark is taken off in any case
    except (LookupError, ValueError):
        raise ValueError(f"encoding: Python knows no encoding of text called {encoding!r}.") from None


def is_asynchronous(function: object) -> bool:
    """Whether calling it gives a coroutine, which nobody would await."""
    called = getattr(function, "__call__", None)  # noqa: B004 - of an object, the method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def kind(value: object) -> str:
    """What something is, for a message."""
    return "None" if value is None else type(value).__name__
