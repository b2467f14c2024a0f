"""A command on a pseudo-terminal, and what somebody sees there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import pexpect  # type: ignore[import-untyped]
import pyte
from command_line import COMMAND


class Terminal:
    """Runs a command on a terminal of its own, and keeps its screen.

    Attributes:
        output: all bytes that came.
        code: the exit code, once it has ended.
    """

    def __init__(
        self, *arguments: str, width: int = 100, height: int = 30, env: Mapping[str, str] | None = None
    ) -> None:
        program, *given = COMMAND
        self.output = b""
        self.code: int | None = None
        self._heard = 0
        self._screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self._screen)
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self._child = pexpect.spawn(
            program,
            [*given, *arguments],
            env=environment | {"TERM": "xterm-256color"} | dict(env or {}),
            dimensions=(height, width),
            timeout=30,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.close(force=True)

    @property
    def screen(self) -> str:
        """What stands there now."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def text(self) -> str:
        """What stands there now, as if lines had no end."""
        return "".join(self._screen.display)

    @property
    def said(self) -> str:
        """All that came, as text."""
        return self.output.decode()

    def hear(self, text: str) -> None:
        """Wait until this comes, after what was waited for before."""
        while (found := self.output.find(text.encode(), self._heard)) < 0:
            self._read()
        self._heard = found + len(text.encode())

    def until(self, seen: Callable[[str], bool]) -> str:
        """Wait until the screen is such; what it is then."""
        while not seen(self.screen):
            self._read()
        return self.screen

    def type(self, keys: str) -> None:
        """Press keys; ``"\\x03"`` is Ctrl-C."""
        self._child.send(keys)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.kill(number)

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        try:
            while True:
                self._read()
        except pexpect.EOF:
            self._child.wait()
        self.code = self._child.exitstatus
        assert self.code is not None, f"it was ended by signal {self._child.signalstatus}"
        return self.code

    def _read(self) -> None:
        piece = self._child.read_nonblocking(4096, timeout=30)
        self.output += piece
        self._stream.feed(piece)
