"""The command as a real process: on a pseudo-terminal, piped, interrupted, and in hostile surroundings."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import COMMAND, when
from terminal import Terminal

from nudgescribe_async.sandbox import Delay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from command_line import Process, Service

pytestmark = pytest.mark.slow

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ESCAPE = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Terminal]]:
    with ExitStack() as opened:
        yield lambda *arguments, **options: opened.enter_context(Terminal(*arguments, height=60, **options))


def test_a_terminal_has_colour_and_a_pipe_has_none(
    settings: Service, on_terminal: Callable[..., Terminal], process: Process
) -> None:
    coloured = on_terminal("doctor")
    assert coloured.wait() == 0
    assert "\x1b[32mok" in coloured.said

    plain = on_terminal("doctor", env={"NO_COLOR": "1"})
    assert plain.wait() == 0
    assert not ESCAPE.search(plain.said)

    piped = process("doctor")
    assert (piped.code, piped.err) == (0, "")
    assert not ESCAPE.search(piped.out)


def test_a_terminal_of_40_columns_shows_whole_ids(settings: Service, on_terminal: Callable[..., Terminal]) -> None:
    narrow = on_terminal("campaigns", "list", width=40)
    assert narrow.wait() == 0
    for name, campaign_id in settings.campaigns.items():
        assert f"id: {campaign_id}" in narrow.screen.splitlines()
        assert f"name: {name}" in narrow.screen.splitlines()

    wide = on_terminal("campaigns", "list", width=140)
    assert wide.wait() == 0
    assert wide.screen.splitlines()[0].split() == ["id", "name", "status", "run", "published", "workspace"]

    explained = on_terminal("groups", "--help", width=40)
    assert explained.wait() == 0
    assert max(len(ESCAPE.sub("", line)) for line in explained.said.splitlines()) <= 40


def test_what_destroys_asks_on_a_terminal(settings: Service, on_terminal: Callable[..., Terminal]) -> None:
    customers = [{"external_id": "1"}, {"external_id": "2"}]
    group_id = settings.call(lambda sandbox: sandbox.create_customer_group("Old friends", customers=customers))
    for answer, code, deleted in (("\n", 1, 0), ("no\n", 1, 0), ("y\n", 0, 1)):
        asking = on_terminal("groups", "delete", "Old friends")
        asking.hear("[y/N]")
        assert f"Delete the group 'Old friends' ({group_id}) with 2 customers?" in asking.said.replace("\r\n", " ")
        asking.type(answer)
        assert asking.wait() == code
        assert ("Nothing was done." in asking.said) == (code == 1)
        assert settings.sandbox.effects["customer_groups.delete"] == deleted


def test_ctrl_c_at_a_question_ends_it_and_does_nothing(settings: Service, on_terminal: Callable[..., Terminal]) -> None:
    asking = on_terminal("fields", "delete", "purchases")
    asking.hear("[y/N]")
    before = len(asking.said)
    asking.type("\x03")
    assert asking.wait() == 130
    assert asking.said[before:].split() in (["Interrupted."], ["^CInterrupted."])
    assert settings.sandbox.effects["profile_fields.delete"] == 0


def test_login_shows_no_secret_that_is_typed(
    settings: Service, on_terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = settings.sandbox.credentials
    for name in ("NUDGESCRIBE_API_KEY", "NUDGESCRIBE_EMAIL", "NUDGESCRIBE_PASSWORD"):
        monkeypatch.delenv(name)
    typing = on_terminal("login")
    for prompt, keys in (
        ("E-mail address: ", owner.email),
        ("API key: ", owner.api_key),
        ("Password: ", owner.password),
    ):
        typing.hear(prompt)
        typing.type(f"{keys}\n")
    assert typing.wait() == 0
    assert owner.email in typing.said
    assert owner.api_key not in typing.said
    assert owner.password not in typing.said
    assert "The credentials of" in typing.said
    assert settings.sandbox.count("auth.authenticate", 200) == 1

    leaving = on_terminal("login")
    leaving.hear("E-mail address: ")
    leaving.type("a@x.example\n")
    leaving.hear("API key: ")
    leaving.type("\x03")
    assert leaving.wait() == 130
    assert "Traceback" not in leaving.said


def test_a_locale_without_other_letters_is_no_reason_to_crash(
    settings: Service, process: Process, on_terminal: Callable[..., Terminal]
) -> None:
    settings.call(lambda sandbox: sandbox.create_customer_group("Kundschaft 東京 é"))
    text = process("groups", "list", env=ASCII)
    assert (text.code, text.err) == (0, "")
    assert text.out.isascii()
    assert r"Kundschaft \u6771\u4eac \xe9" in text.out

    lines = process("groups", "list", "--json", env=ASCII)
    assert "Kundschaft 東京 é" in {line["group_name"] for line in lines.lines}

    shown = on_terminal("groups", "--help", env=ASCII)
    assert shown.wait() == 0
    assert shown.said.isascii()


def test_a_pipe_that_nobody_reads_ends_the_command_silently(settings: Service) -> None:
    for arguments in (["groups", "list", "--json"], ["--help"]):
        running = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        with running.stderr as stderr:
            said = stderr.read()
        assert (running.wait(30), said) == (141, b""), arguments


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_it_waits_for_the_service_is_one_line(
    settings: Service, number: signal.Signals, code: int
) -> None:
    fault = settings.inject(Delay(60, before_work=True), operation="campaigns.list")
    running = subprocess.Popen([*COMMAND, "campaigns", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    thread = when(lambda: fault.fired > 0, lambda: running.send_signal(number))
    out, err = running.communicate(timeout=60)
    thread.join()
    word = b"Interrupted.\n" if number == signal.SIGINT else b"Terminated.\n"
    assert (running.returncode, out, err) == (code, b"", word)


@pytest.mark.parametrize("module", ["nudgescribe_async.cli.app", "rich.table", "nudgescribe_async.client"])
def test_ctrl_c_while_it_is_loaded_is_one_line(settings: Service, module: str) -> None:
    program = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from nudgescribe_async.cli import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, "groups", "list"], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"Interrupted.\n")


def test_what_goes_wrong_is_a_sentence_and_a_hint_for_the_process_too(settings: Service, process: Process) -> None:
    for env, code, sentence in (
        ({"NUDGESCRIBE_PASSWORD": "wrong"}, 2, "refused the login"),
        ({"NUDGESCRIBE_BASE_URL": "http://127.0.0.1:1"}, 1, "127.0.0.1:1"),
        ({"NUDGESCRIBE_API_KEY": ""}, 2, "NUDGESCRIBE_API_KEY is set in the environment, and empty."),
    ):
        result = process("groups", "list", env=env)
        lines = [line for line in result.err.splitlines() if not line.startswith("Warning: ")]
        assert (result.code, result.out) == (code, ""), result.err
        assert sentence in lines[0]
        assert lines[0].startswith("Error: ")
        assert all(line.startswith("Hint: ") for line in lines[1:])


def test_the_sandbox_is_a_process_to_work_with_until_ctrl_c(process: Process) -> None:
    running = subprocess.Popen(
        [*COMMAND, "sandbox", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    assert running.stdout is not None
    text = ""
    while not text.endswith("Ctrl-C.\n"):
        text += running.stdout.readline()
        assert running.poll() is None
    environment = dict(re.findall(r"^export (\w+)=(\S+)$", text, re.MULTILINE))
    listed = process("groups", "list", "--json", env=environment)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (0, "", "")
    assert {line["group_name"] for line in listed.lines} == {"January 1997", "Returning customers"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk")
def test_a_full_disk_behind_stderr_changes_no_exit_code(settings: Service) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([*COMMAND, "groups", "lost"], stderr=full, timeout=60, check=False)
    assert ended.returncode == 2
