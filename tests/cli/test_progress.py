"""How far a job is: what is measured, what is drawn, and what somebody sees on a terminal."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pyte
import pytest
from rich.console import Console
from terminal import Terminal

from nudgescribe_async.cli.output import OutputClosedError
from nudgescribe_async.cli.progress import Meter, Progress
from nudgescribe_async.events import RequestRetrying, RequestsPaused, RequestsResumed

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Process, Service

JANUARY = "January 1997"


# --- what is measured --------------------------------------------------------------------------------------------------


class Watch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def measured(*amounts: tuple[float, int, int]) -> Meter:
    watch = Watch()
    meter = Meter(now=watch)
    for at, done, items in amounts:
        watch.now = at
        meter.update(done, 100, items)
    return meter


def test_nothing_is_known_before_anything_has_moved() -> None:
    meter = Meter()
    assert (meter.share, meter.rate, meter.left) == (None, None, None)
    meter = measured((1.0, 10, 1_000))
    assert (meter.share, meter.rate, meter.left) == (0.1, None, None)


def test_rate_and_time_left() -> None:
    meter = measured((0.0, 10, 1_000), (2.0, 30, 3_000))
    assert (meter.share, meter.rate, meter.left) == (0.3, 1_000.0, 7.0)


def test_what_an_earlier_call_has_done_is_no_speed() -> None:
    meter = measured((0.0, 90, 9_000), (1.0, 91, 9_100))
    assert (meter.rate, meter.left) == (100.0, 9.0)


def test_a_job_that_stands_still_does_not_look_quick() -> None:
    watch = Watch()
    meter = Meter(now=watch)
    meter.update(0, 100)
    watch.now = 1.0
    meter.update(50, 100)
    watch.now = 10.0
    assert (meter.rate, meter.left) == (5.0, 10.0)


def test_the_rate_follows_a_service_that_has_become_slower() -> None:
    quick = [(float(second), second, second * 1_000) for second in range(10)]
    slow = [(float(second), 10 + second // 10, 10_000 + second) for second in range(10, 100)]
    assert measured(*quick, *slow).rate == pytest.approx(1.0, abs=0.05)


def test_without_a_total_there_is_no_end() -> None:
    watch = Watch()
    meter = Meter(now=watch)
    meter.update(1, None)
    watch.now = 1.0
    meter.update(2, None)
    assert (meter.share, meter.rate, meter.left) == (None, 1.0, None)
    meter.update(200, 100)
    assert (meter.share, meter.left) == (1.0, 0.0)


# --- what is drawn -----------------------------------------------------------------------------------------------------


class Paper(io.StringIO):
    """A terminal that keeps what was written, and may go away."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding
        self.trouble: Exception | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override] # of a stream, it is read only
        return self._encoding

    def write(self, text: str) -> int:
        if self.trouble is not None:
            raise self.trouble
        text.encode(self._encoding)
        return super().write(text)


def console(paper: Paper, width: int = 100) -> Console:
    return Console(file=paper, force_terminal=True, width=width, legacy_windows=False, color_system=None)


def lines(paper: Paper, width: int = 100) -> list[str]:
    """What stands there, without blank lines."""
    screen = pyte.Screen(width, 10)
    pyte.Stream(screen).feed(paper.getvalue().replace("\n", "\r\n"))
    return [line.rstrip() for line in screen.display if line.strip()]


def progress(paper: Paper, width: int = 100, **options: Any) -> Progress:
    return Progress(console(paper, width), "Exporting", "customers", delay=0.0, every=0.01, **options)


async def drawn(shown: Progress, paper: Paper, width: int = 100) -> list[str]:
    paper.seek(0)
    paper.truncate()
    await asyncio.sleep(0.05)
    return lines(paper, width)


def move(shown: Progress) -> None:
    watch = Watch()
    shown.meter = Meter(now=watch)
    shown.update(10, 100, 1_000)
    watch.now = 2.0
    shown.update(30, 100, 3_000)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (100, "Exporting ━━━━━━━                   30% 3,000 customers 1,000/s 0:07 left"),
        (60, "Exporting  30% 3,000 customers 1,000/s 0:07 left"),
        (40, "Exporting  30% 1,000/s 0:07 left"),
    ],
)
async def test_a_line_fits_its_terminal(width: int, expected: str) -> None:
    paper = Paper()
    with progress(paper, width) as shown:
        move(shown)
        [line] = await drawn(shown, paper, width)
    assert " ".join(line.replace("╺", "").replace("╸", "").split()) == " ".join(expected.split())
    assert lines(paper, width) == []


async def test_it_waits_before_it_shows_anything() -> None:
    paper = Paper()
    with Progress(console(paper), "Exporting", "customers", delay=60.0) as shown:
        move(shown)
        assert await drawn(shown, paper) == []
    assert paper.getvalue() == ""


@pytest.mark.parametrize("shown", [True, False])
async def test_outside_a_terminal_nothing_is_written(shown: bool) -> None:
    paper = Paper()
    where = Console(file=paper) if shown else console(paper)
    with Progress(where, "Exporting", "customers", delay=0.0, shown=shown) as it:
        move(it)
        await drawn(it, paper)
    assert paper.getvalue() == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
async def test_a_terminal_without_utf_8_gets_plain_letters(encoding: str) -> None:
    paper = Paper(encoding)
    with progress(paper) as shown:
        move(shown)
        [line] = await drawn(shown, paper)
    assert "30%" in line


async def test_without_a_total_there_is_no_percentage() -> None:
    paper = Paper()
    with progress(paper, 40) as shown:
        shown.update(5, None, 500)
        [line] = await drawn(shown, paper, 40)
        assert line == "Exporting 500 customers"


async def test_it_says_what_it_waits_for() -> None:
    paper = Paper()
    with progress(paper, 60) as shown:
        move(shown)
        shown.hear(RequestsPaused(operation="customers.list", status=429, seconds=3.2, concurrency=1))
        assert await drawn(shown, paper, 60) == ["Exporting  30% 3,000 customers the service asked to wait 3 s"]
        shown.hear(RequestsResumed(concurrency=1, waiting=0))
        assert "left" in (await drawn(shown, paper, 60))[0]
        shown.hear(RequestRetrying(operation="x", call=1, attempt=2, after=1.0, reason="503"))
        assert "attempt 2 failed" in (await drawn(shown, paper, 60))[0]
        shown.update(31, 100, 3_100)
        assert "left" in (await drawn(shown, paper, 60))[0]
        shown.hear(RequestRetrying(operation="x", call=1, attempt=2, after=1.0, reason="429", asked=True))
        assert "left" in (await drawn(shown, paper, 60))[0]


async def test_the_next_part_is_measured_for_itself_and_may_be_looked_at() -> None:
    paper = Paper()
    with progress(paper) as shown:
        move(shown)
        shown.begin("Sending", "rows", lambda: shown.update(50, 100))
        [line] = await drawn(shown, paper)
        assert line.startswith("Sending")
        assert "50%" in line


async def test_hours_are_shown() -> None:
    paper = Paper()
    with progress(paper) as shown:
        watch = Watch()
        shown.meter = Meter(now=watch)
        shown.update(0, 10_000)
        watch.now = 10.0
        shown.update(10, 10_000)
        [line] = await drawn(shown, paper)
    assert line.endswith("1.0/s 2:46:30 left")


@pytest.mark.parametrize("trouble", [OSError(5, "gone"), OutputClosedError()])
async def test_a_terminal_that_goes_away_harms_no_job(trouble: Exception) -> None:
    paper = Paper()
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    with progress(paper) as shown:
        move(shown)
        assert await drawn(shown, paper)
        paper.trouble = trouble
        await asyncio.sleep(0.05)
        shown.update(40, 100)
    paper.trouble = None
    with progress(paper) as shown:
        await asyncio.sleep(0.05)
        paper.trouble = trouble
    assert not failures


async def test_what_is_noted_meanwhile_stands_above() -> None:
    paper = Paper()
    where = console(paper)
    with Progress(where, "Exporting", "customers", delay=0.0, every=0.01) as shown:
        move(shown)
        await asyncio.sleep(0.03)
        where.print("Warning: look at this")
        await asyncio.sleep(0.03)
        first, second = lines(paper)
        assert first == "Warning: look at this"
        assert second.startswith("Exporting")
    assert lines(paper) == ["Warning: look at this"]


# --- what somebody sees ------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> Service:
    """94 pages, some seconds one after the other."""
    service = start_service(page_size=5, latency=0.02)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    return service


UTF_8 = {"PYTHONIOENCODING": "utf-8"}
ASCII = {"PYTHONIOENCODING": "ascii"}


@pytest.mark.parametrize(
    ("width", "env"),
    [(100, UTF_8), (40, UTF_8 | {"NO_COLOR": "1"}), (100, ASCII)],
    ids=["wide", "narrow and without colours", "without UTF-8"],
)
def test_an_export_on_a_terminal_shows_how_far_it_is_and_tidies_up(
    slow: Service, width: int, env: dict[str, str]
) -> None:
    with Terminal("customers", "export", JANUARY, "x.csv", "--concurrency", "1", width=width, env=env) as terminal:
        seen = terminal.until(lambda screen: "Exporting" in screen and "left" in screen and "/s" in screen)
        assert len(seen.splitlines()) == 1
        assert "%" in seen
        assert terminal.wait() == 0
        assert "467 customers are in" in terminal.text
        assert "Exporting" not in terminal.text
        assert "left" not in terminal.text
    if env is ASCII:
        assert terminal.output.isascii()
    assert (b"\x1b[3" in terminal.output) is ("NO_COLOR" not in env)


def test_a_stream_through_a_pipe_has_no_progress_in_it(slow: Service, process: Process) -> None:
    result = process("customers", "export", JANUARY, "-", "--concurrency", "2", "--json")
    assert (result.code, result.err) == (0, "")
    assert len(result.lines) == 467


def test_rows_on_a_terminal_are_progress_enough(slow: Service) -> None:
    with Terminal("customers", "export", JANUARY, "-", "--concurrency", "2", width=100) as terminal:
        assert terminal.wait() == 0
    assert b"Exporting" not in terminal.output
