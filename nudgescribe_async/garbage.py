"""Python's garbage collector, while very many objects are made that all stay.

A full collection looks at every object that there is, and Python begins one whenever there are a quarter more than
at the last. Where a million objects are collected into a list, that takes longer than making them, and finds nothing.
"""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["full_collections_put_off"]

_NEVER = 2**31 - 1
_lock = Lock()
_inside = 0
_before = 0


def _forget() -> None:
    """In a process that was forked meanwhile, nobody is inside."""
    global _lock, _inside  # noqa: PLW0603 - there is one collector
    _lock = Lock()
    if _inside:
        _inside = 0
        _put_back()


def _put_back() -> None:
    """As it was before, unless somebody else has set it meanwhile."""
    youngest, young, last = gc.get_threshold()
    if last == _NEVER:
        gc.set_threshold(youngest, young, _before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def full_collections_put_off() -> Generator[None, None, None]:
    """Within it, only objects that are young are looked at for garbage, in the whole process.

    Any number at once, in any thread; as the last one ends, all is as it was before the first. Somebody else's setting
    that was made meanwhile is left alone.
    """
    global _inside, _before  # noqa: PLW0603 - there is one collector
    with _lock:
        if _inside == 0:
            youngest, young, _before = gc.get_threshold()
            gc.set_threshold(youngest, young, _NEVER)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _put_back()
