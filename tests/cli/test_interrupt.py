"""Ctrl-C, SIGTERM and closed pipes at any moment: what is left can be gone on with, and the output says how."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import COMMAND, Result
from terminal import Terminal

from nudgescribe_async import Nudgescribe
from nudgescribe_async.sandbox import Delay, LoseAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from command_line import Service, Shell

    from nudgescribe_async.sandbox import Sandbox

JANUARY, RETURNING, WELCOME, SPRING = "January 1997", "Returning customers", "Welcome back", "Spring sale"
INITIATE = "reruns.initiate"


@pytest.fixture
def slow(start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> Service:
    """Takes its time, which leaves some for signals."""
    service = start_service(page_size=20, latency=0.01, rows_per_file=20)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    return service


@pytest.fixture
def typed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """As the shell, and the command knows how it was typed."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["nudgescribe", *arguments])
        return shell(*arguments)

    return run


@contextmanager
def sent_when(when: Callable[[], bool], *numbers: signal.Signals) -> Generator[None]:
    """Signals to this very process, the first as soon as something is so, the others one after the other."""
    over = threading.Event()

    def watch() -> None:
        while not when():
            if over.wait(0.002):
                return
        for number in numbers:
            if over.is_set():
                return
            os.kill(os.getpid(), number)
            over.wait(0.3)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def begun(service: Service, operation: str, count: int = 1) -> Callable[[], bool]:
    """Whether so many requests were answered since now."""
    before = service.sandbox.count(operation)
    return lambda: service.sandbox.count(operation) >= before + count


@contextmanager
def ended_after(service: Service, operation: str, count: int, *numbers: signal.Signals) -> Generator[None]:
    """Signals as soon as so many requests were answered; those that come next are held back until then."""
    held = service.inject(Delay(1.0), operation=operation, skip=count, times=None)
    try:
        with sent_when(begun(service, operation, count), *numbers):
            yield
    finally:
        held.remove()


def command_in(text: str) -> list[str]:
    """The arguments of the command that a text ends with."""
    found = " ".join(text.split("nudgescribe ", 1)[1].split())
    return shlex.split(found)


# --- export ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")]
)
def test_an_export_that_is_ended_goes_on_by_the_command_that_it_prints(
    slow: Service, typed: Shell, home: Path, number: signal.Signals, code: int, word: str
) -> None:
    with ended_after(slow, "customers.list", 12, number):
        ended = typed("customers", "export", JANUARY, "x y.csv", "--concurrency", "2")
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"{word} ")
    assert "customers are kept" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (home / "x y.csv").exists()
    rest = typed(*command_in(ended.err), "--json")
    assert (rest.code, rest.document["resumed"]) == (0, True)
    assert typed("customers", "export", JANUARY, "undisturbed.csv").code == 0
    assert (home / "x y.csv").read_bytes() == (home / "undisturbed.csv").read_bytes()


@pytest.mark.parametrize(
    "name", ["tab\there.csv", "line\nbreak.csv", ":x:.csv", "$HOME `x` 'y'.csv", "back\\slash\x1b[3m.csv"]
)
def test_the_command_that_is_printed_can_be_pasted_whatever_the_name(slow: Service, typed: Shell, name: str) -> None:
    with ended_after(slow, "customers.list", 5, signal.SIGINT):
        ended = typed("customers", "export", JANUARY, name, "--concurrency", "1")
    command = ended.err.split("run it again: nudgescribe ")[1].rstrip("\n")
    pasted = subprocess.run(["/bin/bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    assert pasted.stdout.decode().split("\0")[2:-1] == [JANUARY, name, "--concurrency", "1"]


def test_an_export_that_began_anew_goes_on_without_beginning_anew_again(slow: Service, typed: Shell) -> None:
    with ended_after(slow, "customers.list", 5, signal.SIGINT):
        ended = typed("customers", "export", JANUARY, "x.csv", "--restart", "--concurrency", "1")
    assert "customers are kept" in ended.err
    assert command_in(ended.err) == ["customers", "export", JANUARY, "x.csv", "--concurrency", "1"]


def test_with_json_the_end_is_one_line_of_json(slow: Service, typed: Shell) -> None:
    with ended_after(slow, "customers.list", 5, signal.SIGINT):
        ended = typed("customers", "export", JANUARY, "x.csv", "--json")
    assert (ended.code, ended.out) == (130, "")
    assert ended.error["exit_code"] == 130
    assert "run it again: nudgescribe customers export" in ended.error["message"]


def test_a_password_in_a_url_is_not_printed_with_the_command(slow: Service, typed: Shell, home: Path) -> None:
    with ended_after(slow, "customers.list", 5, signal.SIGINT):
        ended = typed("customers", "export", JANUARY, "memory://user:MARKED@host/x.csv", "--spool", str(home))
    assert ended.code == 130
    assert "the very same command" in ended.err
    assert "MARKED" not in ended.err


def test_a_stream_that_is_ended_says_that_it_is_not_complete(slow: Service, typed: Shell) -> None:
    with ended_after(slow, "customers.list", 10, signal.SIGINT):
        ended = typed("customers", "export", JANUARY, "-", "--concurrency", "1")
    assert ended.code == 130
    assert f"not complete: {len(ended.lines):,} customers" in ended.err


def test_ctrl_c_on_a_terminal_leaves_it_tidy(slow: Service, home: Path) -> None:
    arguments = ["customers", "export", JANUARY, "x.csv", "--concurrency", "1"]
    held = slow.inject(Delay(1.0), operation="customers.list", skip=5, times=None)
    with Terminal(*arguments, env={"PYTHONIOENCODING": "utf-8"}) as terminal:
        terminal.until(lambda screen: "Exporting" in screen)
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert "Exporting" not in terminal.screen
        assert terminal.output.rfind(b"\x1b[?25h") > terminal.output.rfind(b"\x1b[?25l")
        printed = terminal.text[terminal.text.index("Interrupted.") :].strip()
    # The process was started as Python; what it knows of its command line is what followed.
    assert printed.endswith("nudgescribe customers export 'January 1997' x.csv --concurrency 1")
    assert (home / "x.csv.partial").exists()
    held.remove()
    rest = Terminal(*command_in(printed), "--json")
    with rest as terminal:
        assert terminal.wait() == 0
        assert '"resumed": true' in terminal.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", JANUARY, "x.csv"], "The export is complete."),
        (["upload", JANUARY, "new.csv"], "The upload had ended: <UploadReport complete: 3 rows, 3 accepted"),
    ],
)
def test_what_is_ended_when_all_was_done_says_that_it_is_done(
    slow: Service, typed: Shell, home: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    close = Nudgescribe.aclose

    async def interrupted(ns: Nudgescribe) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await close(ns)

    (home / "new.csv").write_text(rows(3))
    monkeypatch.setattr(Nudgescribe, "aclose", interrupted)
    ended = typed("customers", *arguments)
    assert (ended.code, ended.out) == (130, "")
    assert said in ended.err
    assert "run it again" not in ended.err


# --- closed pipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["customers", "export", JANUARY, "-"], ["customers", "export", JANUARY, "-", "--concurrency", "1"]]
)
def test_whoever_reads_the_first_line_and_goes_causes_no_traceback(slow: Service, arguments: list[str]) -> None:
    command = shlex.join([*COMMAND, *arguments])
    done = subprocess.run(
        ["/bin/bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    row, code = done.stdout.decode().splitlines()
    assert row.startswith('{"customer_id":')
    assert (code, done.stderr.decode()) == ("141", "")


@pytest.mark.parametrize("where", ["pipe", "terminal"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stream_that_nobody_reads_can_be_ended(
    start_service: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    number: signal.Signals,
    code: int,
) -> None:
    # Each page is far larger than what a pipe or a terminal takes, and what a stream of Python keeps.
    for name, value in start_service(page_size=200).environment.items():
        monkeypatch.setenv(name, value)
    read_end, write_end = os.pipe() if where == "pipe" else pty.openpty()
    # Without "-W error", by which a write that blocks is ended with the signal.
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND[-1], "customers", "export", JANUARY, "-"],
        stdout=write_end,
        stderr=subprocess.PIPE,
    )
    try:
        before = -1
        while (waiting := readable(read_end)) < 4_000 or waiting != before:  # full, and nothing more comes
            assert process.poll() is None
            before = waiting
            time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert os.get_blocking(write_end)
    finally:
        process.kill()
        process.wait()
        os.close(read_end)
        os.close(write_end)
    assert process.returncode == code
    assert b"What was written is not complete" in said


def readable(descriptor: int) -> int:
    """How many bytes are there to be read."""
    [count] = array.array("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return count


def test_a_stream_to_a_pipe_that_does_not_block_waits_for_its_reader(slow: Service) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)  # as other programs leave it that share it
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4_096)
    process = subprocess.Popen([*COMMAND, "customers", "export", JANUARY, "-"], stdout=write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        lines = file.read().splitlines()
    assert (process.wait(30), len(lines)) == (0, 467)


def test_a_stream_to_a_full_disk_says_so(slow: Service) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "customers", "export", JANUARY, "-"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr.decode()) == (1, "Error: No space left on device.\n")


# --- upload ------------------------------------------------------------------------------------------------------------


def rows(count: int) -> str:
    return "\n".join(["external_id,purchases", *(f"A{number:05d},3" for number in range(count)), ""])


def test_an_upload_that_is_ended_accounts_for_the_rows_and_says_how_to_go_on(
    slow: Service, typed: Shell, home: Path
) -> None:
    (home / "new.csv").write_text(rows(60))
    group = slow.call(lambda sandbox: sandbox.create_customer_group("Empty"))
    arguments = ["customers", "upload", group, "new.csv", "--rows-per-chunk", "10"]
    held = slow.inject(Delay(5.0), operation="customers.check", skip=2)
    with sent_when(lambda: held.fired == 1, signal.SIGINT):
        ended = typed(*arguments)
    assert (ended.code, ended.out) == (130, "")
    assert "Rows 1 to 20 were sent, rows 21 to 30 may have been sent, rows 31 to 60 were not sent" in ended.err
    assert "go on with --from-row 31" in ended.err
    assert "from_row" not in ended.err
    count = typed("customers", "count", group, "--exact", "--json").document["customers"]
    assert count in {20, 30}
    if count == 20:  # looked, and they are not there
        assert typed(*arguments, "--from-row", "21", "--to-row", "30").code == 0
    assert typed(*arguments, "--from-row", "31").code == 0
    assert typed("customers", "count", group, "--exact", "--json").document["customers"] == 60


def test_an_upload_that_is_ended_before_it_sends_says_so(slow: Service, typed: Shell, home: Path) -> None:
    (home / "new.csv").write_text(rows(3))
    slow.inject(Delay(5.0), operation="profile_fields.list")
    with sent_when(begun(slow, "customer_groups.list", 2), signal.SIGTERM):
        ended = typed("customers", "upload", JANUARY, "new.csv")
    assert (ended.code, ended.err) == (143, "Terminated. Nothing was sent.\n")


def test_an_upload_from_a_pipe_that_never_ends_can_be_ended(slow: Service, typed: Shell) -> None:
    read_end, write_end = os.pipe()
    kept = os.dup(0)
    try:
        os.dup2(read_end, 0)
        os.close(read_end)
        os.write(write_end, rows(3).encode())
        checked = begun(slow, "profile_fields.list")

        def waits_for_the_pipe() -> bool:
            if checked():
                time.sleep(0.2)
                return True
            return False

        with sent_when(waits_for_the_pipe, signal.SIGINT):
            ended = typed("customers", "upload", JANUARY, "-")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(write_end)
    assert (ended.code, ended.err) == (130, "Interrupted. Nothing was sent.\n")
    assert slow.sandbox.count("customers.check") == 0


@pytest.mark.parametrize("format_", ["csv", "ndjson"])
def test_an_upload_from_a_pipe_reads_it_to_its_end(slow: Service, typed: Shell, format_: str) -> None:
    text = (
        rows(30) if format_ == "csv" else "\n".join(f'{{"external_id": "A{n}", "purchases": {n}}}' for n in range(30))
    )
    read_end, write_end = os.pipe()
    kept = os.dup(0)
    os.write(write_end, text.encode())
    os.close(write_end)
    try:
        os.dup2(read_end, 0)
        os.close(read_end)
        result = typed("customers", "upload", JANUARY, "-", "--format", format_, "--json")
        assert os.get_blocking(0)  # others may have it from the same shell
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert (result.code, result.document["accepted"]) == (0, 30)


# --- delete, publish, download -----------------------------------------------------------------------------------------


def test_a_deletion_that_is_ended_goes_on(slow: Service, typed: Shell, home: Path) -> None:
    ids = [line["customer_id"] for line in typed("customers", "export", JANUARY, "-").lines]
    (home / "ids").write_text("\n".join([*ids[:3], *(f"nobody-{number}" for number in range(1_500))]))
    held = slow.inject(Delay(5.0), operation="customers.delete", skip=1)
    with sent_when(lambda: held.fired == 1, signal.SIGINT):
        ended = typed("customers", "delete", JANUARY, "--ids-file", "ids", "--yes")
    assert ended.code == 130
    assert "1,000 of 1,503 ids were dealt with, 503 more may have been" in ended.err
    rest = typed(*command_in(ended.err), "--json")
    assert (rest.code, rest.document["asked"]) == (1, 1_503)  # they are gone by now
    assert typed("customers", "count", JANUARY, "--exact", "--json").document["customers"] == len(ids) - 3


@contextmanager
def standard_input(descriptor: int) -> Generator[None]:
    """Something else as standard input of this very process, which it takes over."""
    kept = os.dup(0)
    os.dup2(descriptor, 0)
    os.close(descriptor)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_a_deletion_by_a_pipe_that_never_ends_can_be_ended(slow: Service, typed: Shell) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"a\n")
    with standard_input(read_end):
        # What is there has been read, and more is waited for.
        with sent_when(lambda: readable(0) == 0, signal.SIGINT):
            ended = typed("customers", "delete", JANUARY, "--ids-file", "-", "--yes")
        assert os.get_blocking(0)
    os.close(write_end)
    assert (ended.code, ended.err) == (130, "Interrupted. Nothing was deleted.\n")
    assert slow.sandbox.count("customers.delete") == 0


def test_a_deletion_that_is_ended_before_it_begins_says_so(slow: Service, typed: Shell) -> None:
    slow.inject(Delay(5.0), operation="customer_groups.list")
    with sent_when(begun(slow, "auth.authenticate"), signal.SIGINT):
        ended = typed("customers", "delete", JANUARY, "a", "--yes")
    assert (ended.code, ended.err) == (130, "Interrupted. Nothing was deleted.\n")


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ("campaigns.list", "Nothing was published."),
        ("messages.publish", "It may have been published: `nudgescribe campaigns list`"),
        ("messages.count_pages", "It was sent, and goes on at the service: `nudgescribe campaigns list`"),
    ],
)
def test_a_publication_that_is_ended_says_what_is_known(slow: Service, typed: Shell, operation: str, said: str) -> None:
    slow.inject(Delay(5.0), operation=operation)
    waiting = {"campaigns.list": "auth.authenticate", "messages.publish": "campaigns.list"}.get(operation)
    when = begun(slow, waiting) if waiting else begun(slow, "campaigns.list", 2)
    with sent_when(when, signal.SIGINT):
        ended = typed("messages", "publish", slow.campaigns[SPRING], "--yes", "--wait")
    assert (ended.code, ended.out) == (130, "")
    assert said in ended.err or (operation == "messages.publish" and "Nothing was published." in ended.err)


def test_a_download_that_is_ended_goes_on(slow: Service, typed: Shell, home: Path) -> None:
    arguments = ["messages", "download", slow.campaigns[WELCOME], "letters", "--via", "csv", "--concurrency", "1"]
    with ended_after(slow, "messages.fetch", 5, signal.SIGINT):
        ended = typed(*arguments)
    assert ended.code == 130
    assert "files are there" in ended.err
    rest = typed(*command_in(ended.err), "--json")
    assert rest.code == 0
    assert any(file["skipped"] for file in rest.document["files"])
    assert typed(*arguments[:3], "undisturbed", *arguments[4:]).code == 0
    for file in (home / "undisturbed").glob("*.csv"):
        assert file.read_bytes() == (home / "letters" / file.name).read_bytes()


# --- reruns ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(slow: Service, home: Path) -> list[str]:
    """The command for twelve campaigns."""

    async def make(sandbox: Sandbox) -> list[str]:
        return [await sandbox.create_campaign(f"Campaign {number}", slow.groups[JANUARY]) for number in range(12)]

    lines = [f"{campaign},{slow.groups[RETURNING]}" for campaign in slow.call(make)]
    (home / "plan.csv").write_text("\n".join(["campaign_id,new_customer_group_id", *lines, ""]))
    return ["reruns", "run", "plan.csv", "--journal", "j.db", "--yes", "--concurrency", "2", "--settle", "0"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_reruns_that_are_ended_go_on_and_each_is_made_once(
    slow: Service, typed: Shell, plan: list[str], number: signal.Signals, code: int
) -> None:
    held = slow.inject(Delay(0.3), operation=INITIATE, skip=4, times=None)
    with sent_when(begun(slow, INITIATE, 4), number):
        ended = typed(*plan)
    held.remove()
    assert (ended.code, ended.out) == (code, "")
    assert "Ending: nothing new is begun" in ended.err
    assert "of 12 campaigns are done with. To go on, run it again: nudgescribe reruns run plan.csv" in ended.err
    made = slow.sandbox.effects[INITIATE]
    assert 4 <= made < 12
    status = typed("reruns", "status", "j.db", "--json").document
    assert (status["complete"], status["counts"]["succeeded"]) == (False, made)
    rest = typed(*command_in(ended.err.splitlines()[-1]), "--json")
    assert (rest.code, rest.document["counts"]["succeeded"]) == (0, 12)
    assert slow.sandbox.effects[INITIATE] == 12


def test_a_second_ctrl_c_does_not_wait(slow: Service, typed: Shell, plan: list[str]) -> None:
    held = slow.inject(Delay(60.0), operation=INITIATE, skip=2, times=2)
    with sent_when(lambda: held.fired == 2, signal.SIGINT, signal.SIGINT):
        ended = typed(*plan, "--grace", "50")
    assert ended.code == 130
    assert "To go on, run it again" in ended.err
    slow.sandbox.clear_faults()
    # What was cut off is looked for in the history, and not made again.
    assert typed(*plan).code == 0
    assert slow.sandbox.effects[INITIATE] == 12


def test_reruns_that_are_ended_before_they_begin_have_sent_nothing(
    slow: Service, typed: Shell, plan: list[str], home: Path
) -> None:
    with Terminal(*[word for word in plan if word != "--yes"], width=300) as terminal:
        terminal.until(lambda screen: "[y/N]" in screen)
        assert "12 campaigns: 12 would be run." in terminal.text
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert "Interrupted. Nothing was sent." in terminal.text
    assert not (home / "j.db").exists()
    assert slow.sandbox.effects[INITIATE] == 0


@pytest.mark.parametrize("width", [50, 120])
def test_reruns_on_a_terminal_ask_show_how_far_they_are_and_end_with_a_table(
    slow: Service, plan: list[str], width: int
) -> None:
    slow.inject(LoseAnswer(), operation=INITIATE, times=1)
    slow.inject(Delay(0.3), operation=INITIATE, times=12)  # so that it takes longer than a second
    command = [word for word in plan if word != "--yes"]
    with Terminal(*command, width=width, env={"PYTHONIOENCODING": "utf-8"}) as terminal:
        terminal.until(lambda screen: "[y/N]" in screen)
        terminal.type("y\n")
        terminal.until(lambda screen: "Rerunning" in screen)
        assert terminal.wait() == 0
        assert "Rerunning" not in terminal.text
        assert "succeeded" in terminal.text
    assert slow.sandbox.effects[INITIATE] == 12


def test_no_is_no(slow: Service, plan: list[str]) -> None:
    with Terminal(*[word for word in plan if word != "--yes"], width=200) as terminal:
        terminal.until(lambda screen: "[y/N]" in screen)
        terminal.type("n\n")
        assert terminal.wait() == 1
        assert "Nothing was done" in terminal.text
    assert slow.sandbox.effects[INITIATE] == 0


def test_a_plan_that_is_ended_has_changed_nothing(slow: Service, typed: Shell, plan: list[str]) -> None:
    with sent_when(begun(slow, "reruns.messages"), signal.SIGINT):
        ended = typed("reruns", "plan", "plan.csv", "--concurrency", "1")
    assert (ended.code, ended.err) == (130, "Interrupted. Nothing was changed.\n")


def test_a_killed_run_is_taken_over(slow: Service, typed: Shell, plan: list[str]) -> None:
    process: subprocess.Popen[Any] = subprocess.Popen(
        [*COMMAND, *plan], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        when = begun(slow, INITIATE, 3)
        while not when():
            assert process.poll() is None
            time.sleep(0.005)
        document = typed("reruns", "status", "j.db", "--json").document
        assert document["at_work"] is True
        assert f"process {process.pid} on" in document["held_by"]
    finally:
        process.kill()
        process.wait()
    assert typed("reruns", "status", "j.db", "--json").document["at_work"] is False
    assert typed(*plan).code == 0
    assert slow.sandbox.effects[INITIATE] == 12
