"""What the caller of ``Reruns.run`` chose."""

from __future__ import annotations

import asyncio
import inspect
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from attrs import frozen

from nudgescribe_async.arguments import check_flag, check_number, check_whole, kind
from nudgescribe_async.rerun.outcome import Asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from nudgescribe_async.events import RerunProgress

__all__ = ["LONGEST", "Choices"]

LONGEST = 1e9
"""Seconds; what is longer is a slip."""


@frozen(kw_only=True, slots=False)
class Choices:
    """What the caller chose."""

    concurrency: int
    journal: Path | None
    settle: float
    wait: bool
    publish: bool
    download: Path | None
    on_event: Callable[[RerunProgress], object] | None
    fail_fast: bool
    amend: bool
    wait_timeout: float | None
    grace: float
    stop: asyncio.Event | None

    @classmethod
    def of(
        cls,
        *,
        concurrency: object,
        journal: str | os.PathLike[str] | None,
        settle: float,
        wait: bool,
        publish: bool,
        download: str | os.PathLike[str] | None,
        on_event: Callable[[RerunProgress], object] | None,
        fail_fast: bool,
        amend: bool,
        wait_timeout: float | None,
        grace: float,
        stop: asyncio.Event | None,
    ) -> Choices:
        """The choices, checked.

        Raises:
            TypeError: one is of the wrong type.
            ValueError: one has a value that cannot be right.
        """
        check_whole("concurrency", concurrency, "a whole number above 0", least=1)
        check_number("settle", settle, "a number of seconds, 0 or more", least=0, most=LONGEST)
        check_number("grace", grace, "a number of seconds, 0 or more", least=0, most=LONGEST)
        if wait_timeout is not None:
            check_number("wait_timeout", wait_timeout, "a number of seconds above 0, or None", above=0, most=LONGEST)
        for name, flag in (("wait", wait), ("publish", publish), ("fail_fast", fail_fast), ("amend", amend)):
            check_flag(name, flag)
        if amend and journal is None:
            raise ValueError("amend=True needs journal=: the journal of the call before, which its report names.")
        if on_event is not None and (not callable(on_event) or _is_async(on_event)):
            what = "an async one, which nobody would await" if callable(on_event) else kind(on_event)
            raise TypeError(f"on_event must be a plain function of a RerunProgress; got {what}.")
        if stop is not None and not isinstance(stop, asyncio.Event):
            raise TypeError(f"stop must be an asyncio.Event; got {kind(stop)}.")
        return cls(
            concurrency=int(str(concurrency)),
            journal=None if journal is None else _path("journal", journal),
            settle=float(settle),
            wait=wait,
            publish=publish,
            download=None if download is None else _path("download", download),
            on_event=on_event,
            fail_fast=fail_fast,
            amend=amend,
            wait_timeout=wait_timeout,
            grace=float(grace),
            stop=stop,
        )

    @cached_property
    def asked(self) -> Asked:
        """What is to be done with a run that exists."""
        return Asked(
            wait=self.wait or self.publish,
            publish=self.publish,
            download=self.download is not None,
            directory=self.download,
        )


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


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or (
        callable(function) and inspect.iscoroutinefunction(type(function).__call__)
    )
