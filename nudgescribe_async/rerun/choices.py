"""What the caller of ``Reruns.run`` chose."""

from __future__ import annotations

import asyncio
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from attrs import field, frozen

from nudgescribe_async.arguments import check_flag, check_number, check_whole, is_asynchronous, kind
from nudgescribe_async.rerun.outcome import Asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from nudgescribe_async.events import RerunProgress

__all__ = ["LONGEST", "Choices"]

LONGEST = 1e9
"""Seconds; what is longer is a slip."""


def _path(name: str, value: object) -> Path:
    wrong = f"{name} must be a path; got {kind(value)}."
    text = os.fspath(cast("os.PathLike[str]", value)) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(wrong)
    if not text.strip() or "\0" in text:
        raise ValueError(f"{name} must be a path, and not empty.")
    if text == ":memory:":
        raise ValueError(f"{name} must be a file: what is kept in memory is gone when it is needed.")
    try:
        return Path(text).expanduser().absolute()  # wherever the process goes
    except RuntimeError as error:
        raise ValueError(f"{name} must be a path: {error}") from None


def _journal(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else _path("journal", value)


def _download(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else _path("download", value)


@frozen(kw_only=True, slots=False)  # for what is computed once
class Choices:
    """What the caller chose, checked.

    Raises:
        TypeError: one is of the wrong type.
        ValueError: one has a value that cannot be right.
    """

    concurrency: int
    journal: Path | None = field(converter=_journal)
    settle: float
    wait: bool
    publish: bool
    download: Path | None = field(converter=_download)
    on_event: Callable[[RerunProgress], object] | None
    fail_fast: bool
    amend: bool
    wait_timeout: float | None
    grace: float
    stop: asyncio.Event | None

    def __attrs_post_init__(self) -> None:
        check_whole("concurrency", self.concurrency, "a whole number above 0", least=1)
        check_number("settle", self.settle, "a number of seconds, 0 or more", least=0, most=LONGEST)
        check_number("grace", self.grace, "a number of seconds, 0 or more", least=0, most=LONGEST)
        if self.wait_timeout is not None:
            wanted = "a number of seconds above 0, or None"
            check_number("wait_timeout", self.wait_timeout, wanted, above=0, most=LONGEST)
        for name in ("wait", "publish", "fail_fast", "amend"):
            check_flag(name, getattr(self, name))
        if self.amend and self.journal is None:
            raise ValueError("amend=True needs journal=: the journal of the call before, which its report names.")
        if self.on_event is not None and (not callable(self.on_event) or is_asynchronous(self.on_event)):
            what = "an async one, which nobody would await" if callable(self.on_event) else kind(self.on_event)
            raise TypeError(f"on_event must be a plain function of a RerunProgress; got {what}.")
        if self.stop is not None and not isinstance(cast("object", self.stop), asyncio.Event):
            raise TypeError(f"stop must be an asyncio.Event; got {kind(self.stop)}.")

    @cached_property
    def asked(self) -> Asked:
        """What is to be done with a run that exists."""
        return Asked(
            wait=self.wait or self.publish,
            publish=self.publish,
            directory=self.download,
        )
