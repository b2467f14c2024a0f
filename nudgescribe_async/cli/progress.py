"""How far a job is, for somebody who watches: on a terminal, from the second second on, and gone when the job ends.

=======================  =================================================================================
it takes under a second  nothing is shown
no terminal              nothing is shown: logs and pipes stay clean
nothing comes            the line says what was last known, and that the service asked to wait, if it did
a narrow terminal        the bar goes first, then the amount; percentage, rate and time left stay
no UTF-8, ``NO_COLOR``   plain letters; no colours
the terminal goes away   nothing more is shown, and the job goes on
however the job ends     the line is removed; what is to stay is printed by the command
=======================  =================================================================================

The line is drawn by timers of the event loop, so that no thread outlives a job, and never to standard output.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import define, field
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nudgescribe_async.cli.output import OutputClosedError
from nudgescribe_async.events import RequestRetrying, RequestsPaused, RequestsResumed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from rich.console import Console

    from nudgescribe_async.events import Event

__all__ = ["Meter", "Progress"]

DELAY: Final = 1.0
"""Seconds that a job has before anything is shown of it."""
EVERY: Final = 0.2
"""Seconds between two drawings."""
WINDOW: Final = 30.0
"""Seconds that a rate is of, so that it follows a service that has become slower."""
_WIDE: Final = 72
_MIDDLE: Final = 48
_BAR: Final = 24


@define
class Meter:
    """Rate and time left, from what is done so far.

    What an earlier call has done counts as done, and not as speed: the first amount that is told is where measuring begins.

    Attributes:
        done: steps that are done, such as pages.
        total: steps that there are; ``None`` if nobody knows.
        items: what the steps were made of, such as customers.
    """

    now: Callable[[], float] = time.monotonic
    done: int = 0
    total: int | None = None
    items: int = 0
    _samples: deque[tuple[float, int, int]] = field(factory=deque[tuple[float, int, int]])

    def update(self, done: int, total: int | None, items: int | None = None) -> None:
        """Take note of what is done by now; without ``items``, the steps themselves are what is counted."""
        self.done, self.total, self.items = done, total, done if items is None else items
        at = self.now()
        self._samples.append((at, self.done, self.items))
        while len(self._samples) > 2 and self._samples[1][0] < at - WINDOW:
            self._samples.popleft()

    @property
    def share(self) -> float | None:
        """How much is done: from 0 to 1; ``None`` if nobody knows."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def rate(self) -> float | None:
        """Items a second."""
        seconds, _, items = self._moved()
        return items / seconds if seconds > 0 and items > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds until it is done, if it goes on like this."""
        seconds, steps, _ = self._moved()
        if self.total is None or seconds <= 0 or steps <= 0:
            return None
        return max(0, self.total - self.done) * seconds / steps

    def _moved(self) -> tuple[float, int, int]:
        if not self._samples:
            return 0.0, 0, 0
        (began, done, items), (_, last_done, last_items) = self._samples[0], self._samples[-1]
        # Until now, and not until the last step: a job that stands still must not look quick.
        return self.now() - began, last_done - done, last_items - items


class Progress:
    """One line about one job. Use it as a context; outside a terminal it does nothing.

    Args:
        console: where it is shown: that of standard error.
        what: what is being done, in a word, such as ``"Exporting"``.
        noun: what is counted, such as ``"customers"``.
        shown: ``False`` shows nothing on a terminal neither.
        delay: seconds that pass before anything is shown.
    """

    def __init__(
        self, console: Console, what: str, noun: str, *, shown: bool = True, delay: float = DELAY, every: float = EVERY
    ) -> None:
        self.meter = Meter()
        self._console = console
        self._what = what
        self._noun = noun
        self._shown = shown and console.is_terminal and not console.is_dumb_terminal
        self._delay = delay
        self._every = every
        self._remark = ""
        self._look: Callable[[], None] | None = None
        self._live: Live | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        if self._shown:
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._draw)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._remove()

    def update(self, done: int, total: int | None, items: int | None = None) -> None:
        """So much is done by now. Without ``items``, the steps are what is counted."""
        self.meter.update(done, total, items)
        self._remark = ""

    def begin(self, what: str, noun: str, look: Callable[[], None] | None = None) -> None:
        """The next part of the job, which is measured for itself.

        Args:
            what: what is being done.
            noun: what is counted.
            look: called now and before each drawing, to update; for what tells nobody how far it is.
        """
        self._what, self._noun, self._look = what, noun, look
        self.meter = Meter()
        if look is not None:
            look()

    def say(self, remark: str) -> None:
        """What is waited for, until the next update."""
        self._remark = remark

    def hear(self, event: Event) -> None:
        """A subscriber of the client's events: tells why nothing moves."""
        if isinstance(event, RequestsPaused):
            self.say(f"the service asked to wait {event.seconds:.0f} s")
        elif isinstance(event, RequestRetrying) and not event.asked:
            self.say(f"attempt {event.attempt} failed, trying again")
        elif isinstance(event, RequestsResumed):
            self.say("")

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        self._timer = None
        if self._look is not None:
            self._look()
        try:
            if self._live is None:
                self._live = Live(
                    console=self._console,
                    get_renderable=self._line,
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=False,
                )
                self._live.start()
            self._live.refresh()
        except (OSError, OutputClosedError):  # the terminal is gone; the job is more than its progress
            self._remove()
            return
        self._timer = asyncio.get_running_loop().call_later(self._every, self._draw)

    def _remove(self) -> None:
        live, self._live = self._live, None
        if live is None:
            return
        try:
            live.stop()
        except (OSError, OutputClosedError):
            self._console.quiet = True

    def _line(self) -> Table:
        width = self._console.width
        line = Table.grid(padding=(0, 1), expand=False)
        cells: list[Text | ProgressBar] = [Text(self._what, no_wrap=True)]
        meter = self.meter
        if width >= _WIDE and not self._remark:
            share = meter.share
            bar = ProgressBar(
                total=1.0, completed=share or 0.0, width=_BAR, pulse=share is None, animation_time=meter.now()
            )
            cells.append(bar)
        cells += [Text(part, no_wrap=True, overflow="ellipsis") for part in self._parts(width)]
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_row(*cells)
        return line

    def _parts(self, width: int) -> list[str]:
        meter = self.meter
        parts: list[str] = []
        if meter.share is not None:
            parts.append(f"{int(meter.share * 100):3d}%")
        if meter.items and (width >= _MIDDLE or meter.share is None):
            parts.append(f"{meter.items:,} {self._noun}")
        if self._remark:
            parts.append(self._remark)
            return parts
        if (rate := meter.rate) is not None:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if (left := meter.left) is not None:
            parts.append(f"{_clock(left)} left")
        return parts


def _clock(seconds: float) -> str:
    """Such as ``0:07``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
