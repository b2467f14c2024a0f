"""Answers that are damaged on the way. The same seed damages the same answer in the same way."""

from __future__ import annotations

import random
import string

__all__ = ["Flips", "corrupt_head", "corrupt_status"]


class Flips:
    """Flips the upper bit of bytes of a body, at places that do not depend on how it was cut into pieces."""

    def __init__(self, seed: int) -> None:
        self._random = _chance(seed)
        self._offset = 0
        self._next = 0

    def __call__(self, buffer: bytearray, start: int, stop: int) -> None:
        end = self._offset + stop - start
        while self._next < end:
            buffer[start + self._next - self._offset] ^= 0x80
            self._next += self._random.randint(2, 500)  # two neighbours could be a letter in UTF-8
        self._offset = end


def corrupt_status(head: bytes, seed: int) -> bytes:
    """The head with nonsense for a status line."""
    line, separator, rest = head.partition(b"\n")
    letters = "".join(_chance(seed).choices(string.ascii_lowercase, k=max(len(line.rstrip(b"\r")), 12)))
    return letters.encode() + (b"\r" if line.endswith(b"\r") else b"") + separator + rest


def corrupt_head(head: bytes, seed: int) -> bytes:
    """The head with one more line, which is no header."""
    line, separator, rest = head.partition(b"\n")
    # Control characters and no colon: no reading of the grammar, however lenient, makes a header of it.
    nonsense = bytes(_chance(seed).choices(range(0x0E, 0x20), k=12))
    return line + separator + nonsense + b" " + nonsense + b"\r\n" + rest


def _chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - chooses bytes, keeps no secret
