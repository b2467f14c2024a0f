"""What is printed where: JSON and text, for any terminal and any encoding, and for nobody."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field

from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.output import Column, Output, OutputClosedError
from nudgescribe_async.cli.plain import plain
from nudgescribe_async.endpoints.models import Campaign, CampaignStatus, DownloadLink, Tokens
from nudgescribe_async.shapes import Secret

if TYPE_CHECKING:
    from command_line import Service, Shell

ID = "8c50171f-699e-4e1f-b153-ac98468c2192"


class Terminal(io.TextIOWrapper):
    """A stream that says it is one."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        self.flush()
        kept = self.buffer
        assert isinstance(kept, io.BytesIO)
        return kept.getvalue().decode(self.encoding)


def terminal(monkeypatch: pytest.MonkeyPatch, *, width: int, encoding: str = "utf-8") -> Terminal:
    stream = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    return stream


def test_values_become_json() -> None:
    class Colour(Enum):
        RED = "red"

    @define
    class Thing:
        name: str
        _hidden: int = 1
        extra: dict[str, int] = field(factory=dict)

    campaign = Campaign(campaign_id=ID, campaign_status=CampaignStatus.PUBLISHED)
    assert plain(campaign)["campaign_status"] == "Published"  # type: ignore[call-overload,index]
    assert plain(
        {"a": (1, 2.5, None, True), Colour.RED: {3}, "t": datetime(2026, 11, 1, tzinfo=UTC), "d": date(2026, 11, 1)}
    ) == {"a": [1, 2.5, None, True], "Colour.RED": [3], "t": "2026-11-01T00:00:00+00:00", "d": "2026-11-01"}
    assert plain([Thing("x"), Thing("y", extra={"z": 1})]) == [{"name": "x"}, {"name": "y", "extra": {"z": 1}}]
    assert plain(Path("a/b")) == str(Path("a/b"))


@pytest.mark.parametrize(
    "value", [Tokens(access_token="hush"), DownloadLink(url="https://hush"), Secret("hush"), b"hush", object()]
)
def test_what_is_secret_or_no_json_is_not_printed(value: object) -> None:
    with pytest.raises(TypeError) as refused:
        plain({"deep": [value]})
    assert "hush" not in str(refused.value)


COLUMNS = [Column("id", whole=True), Column("name"), Column("rows", right=True)]
ROWS = [(ID, "a group of everybody who came back in spring", 12_345), (ID, None, None)]


def test_a_table_fits_its_terminal_and_cuts_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (30, 40, 60, 80, 120):
        screen = terminal(monkeypatch, width=width)
        Output().table(ROWS, COLUMNS, lambda row: row, empty="none")
        lines = screen.shown.splitlines()
        assert sum(ID in line for line in lines) == 2, screen.shown
        assert "12,345" in screen.shown
        if width >= 60:
            assert max(len(re.sub(r"\x1b\[\d+m", "", line)) for line in lines) <= width
            assert re.sub(r"\x1b\[\d+m", "", lines[0]).split() == ["id", "name", "rows"]
        else:
            assert lines[0] == f"id: {ID}"  # the terminal breaks it, and copying gives it whole
            assert "name: a group of everybody who came back in spring" in lines
        assert "…" not in screen.shown


def test_a_table_that_is_piped_has_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table([(ID, "x" * 500, 1)], COLUMNS, lambda row: row, empty="none")
    assert [line.split() for line in capsys.readouterr().out.splitlines()[2:]] == [[ID, "x" * 500, "1"]]


def test_letters_that_a_terminal_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch, width=80, encoding="ascii")
    output = Output()
    output.table([("é", "中文", 1)], COLUMNS, lambda row: row, empty="none")
    output.json = True
    output.document({"name": "中文"}, "")
    assert screen.shown.isascii()
    assert r"\u4e2d\u6587" in screen.shown
    assert json.loads(screen.shown.splitlines()[-1]) == {"name": "中文"}


def test_colour_is_for_terminals_and_for_those_who_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from nudgescribe_async.cli.failures import CommandError, failure_of

    failure = failure_of(CommandError("It failed.", hint="Try [bold]again[/bold]."))
    screen = terminal(monkeypatch, width=80)
    Output().failure(failure)
    assert "\x1b[1;31mError: \x1b[0mIt failed." in screen.shown
    assert "[bold]again[/bold]" in screen.shown
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        screen = terminal(monkeypatch, width=80)
        with monkeypatch.context() as other:
            other.setenv(name, value)
            Output().failure(failure)
        assert "\x1b" not in screen.shown, name


def test_progress_is_for_terminals_that_can_move(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not Output().shows_progress
    terminal(monkeypatch, width=80)
    assert Output().shows_progress
    monkeypatch.setenv("TERM", "dumb")
    assert not Output().shows_progress


class Closed:
    """A stream that nobody reads."""

    encoding = "utf-8"

    def __init__(self, *, at_write: bool) -> None:
        self._at_write = at_write

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        raise OSError("in memory")

    def write(self, text: str) -> int:
        if self._at_write:
            raise BrokenPipeError
        return len(text)

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("at_write", [True, False])
def test_if_nobody_reads_the_command_ends_silently(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at_write: bool
) -> None:
    for arguments in (["groups", "list"], ["groups", "list", "--json"], ["groups", "--help"]):
        with monkeypatch.context() as other:
            other.setattr(sys, "stdout", Closed(at_write=at_write))
            result = shell(*arguments)
        assert (result.code, result.err) == (ExitCode.CLOSED_PIPE, ""), result


def test_a_failure_behind_output_that_nobody_reads_keeps_its_code(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUDGESCRIBE_PASSWORD", "wrong")
    with monkeypatch.context() as other:
        other.setattr(sys, "stdout", Closed(at_write=False))
        result = shell("whoami", "--json")
    assert result.code == 2
    assert "refused the login" in result.error["message"]


def test_streams_that_the_shell_has_closed_are_no_reason_to_crash(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setattr(sys, "stderr", None)
        assert "January 1997" in shell("groups", "list").out
        assert shell("groups", "list", "--workspace", "").code == 0
        assert shell("groups", "lst").code == 2
        other.setattr(sys, "stdout", None)
        assert shell("groups", "list").code == 0


def test_a_closed_stderr_changes_no_exit_code(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Closed(at_write=True))
    assert shell("groups", "list").code == ExitCode.USAGE
    monkeypatch.setattr(sys, "stdout", Closed(at_write=True))
    assert shell("groups", "list", "--debug").code == ExitCode.USAGE


def test_bytes_come_behind_the_text_that_was_printed_before(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output = Output()
    output.text("first")
    output.raw(b"\xff\x00")
    output.row({}, "last")
    assert capsysbinary.readouterr().out == b"first\n\xff\x00last\n"


def test_bytes_that_nobody_reads_end_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise BrokenPipeError(f"{len(data)} bytes")

    stream = io.TextIOWrapper(Gone(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(OutputClosedError):
        Output().raw(b"x")


def test_what_was_not_read_is_thrown_away_before_the_process_ends(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    with os.fdopen(ours, "w", encoding="utf-8") as pipe:
        with monkeypatch.context() as other:
            other.setattr(sys, "stdout", pipe)
            result = shell("groups", "list")
        assert (result.code, result.err) == (141, "")
        # Closing the stream would raise BrokenPipeError, as the interpreter does when it ends.
