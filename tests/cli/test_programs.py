"""The sandbox, the demonstration and completion, started by the command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from command_line import when
from helpers import free_port

from nudgescribe_async import demo
from nudgescribe_async.cli import main
from nudgescribe_async.sandbox import sample_customers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from command_line import Shell


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def told_to_stop(port: int, number: signal.Signals) -> Any:
    return when(lambda: answers(port), lambda: os.kill(os.getpid(), number))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_prints_what_the_module_prints_and_ends_when_told(shell: Shell, number: signal.Signals) -> None:
    port = free_port()
    thread = told_to_stop(port, number)
    result = shell("sandbox", "--port", str(port), "--page-size", "10")
    thread.join()
    assert (result.code, result.err) == (0, "")
    assert result.out.count("export NUDGESCRIBE_") == 6
    assert f"http://127.0.0.1:{port}/" in result.out
    assert result.out.endswith("# Stop it with Ctrl-C.\n")


def test_the_sandbox_as_json_with_faults_and_nothing_else(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    thread = told_to_stop(port, signal.SIGINT)
    arguments = ["--error-rate", "5%", "--lose-answers", "1%", "--rate-limit", "10/s", "--no-example", "--json"]
    result = shell("sandbox", "--port", str(port), *arguments)
    thread.join()
    document = result.document
    assert document["environment"]["NUDGESCRIBE_BASE_URL"] == document["url"] == f"http://127.0.0.1:{port}"
    assert document["page_url"] == f"http://127.0.0.1:{port}/"
    assert document["customer_groups"] == document["campaigns"] == {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "x"], "Error: Argument --port: 'x' is not a whole number."),
        (["--bogus"], "Error: Unrecognized arguments: --bogus."),
        (["--edition", "4"], "Error: Edition must be 1, 2 or 3, not 4."),
    ],
)
def test_wrong_options_of_the_sandbox_are_one_sentence(shell: Shell, arguments: list[str], sentence: str) -> None:
    result = shell("sandbox", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[0] == sentence
    assert "sandbox --help" in result.err


def test_a_port_in_use_is_one_sentence(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = shell("sandbox", "--port", str(taken.getsockname()[1]), "--json")
    assert (result.code, result.out) == (1, "")
    assert "cannot listen on" in result.error["message"]


def test_the_help_of_the_sandbox_has_the_options_of_the_module(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nudgescribe_async.sandbox", "--help"], capture_output=True, text=True, check=True
    )
    options = set(re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE))
    shown = shell("sandbox", "--help").out
    assert len(options) > 20
    assert {option for option in options if option not in shown} == set()


def test_without_its_packages_the_sandbox_says_what_to_install(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from nudgescribe_async.cli.commands import sandbox as module

    monkeypatch.setattr(module, "find_spec", lambda _: None)
    for words in ("sandbox", "demo"):
        result = shell(words)
        assert (result.code, result.out) == (2, "")
        assert 'pip install "nudgescribe_async[cli,sandbox]"' in result.err
    assert "pip install" in module._options_as_text()


def test_the_demo_says_what_it_has_verified(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = demo.run

    async def shorter(folder: Path, customers: Sequence[dict[str, str]] | None = None) -> demo.Report:
        return await whole(folder, sample_customers()[:60])

    monkeypatch.setattr(demo, "run", shorter)
    told = shell("demo")
    assert (told.code, told.err) == (0, "")
    assert "exactly one rerun took place" in told.out
    assert "end to end" in told.out

    result = shell("demo", "--json")
    assert len(result.document["verified"]) == 9
    assert "end to end" in result.err


def test_the_demo_needs_no_stdout(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(folder: Path) -> demo.Report:
        return demo.Report(verified=[])

    monkeypatch.setattr(demo, "run", nothing)
    with monkeypatch.context() as closed:
        closed.setattr("sys.stdout", None)
        code = main(["demo"])
    assert code == 0


def test_a_demo_that_nobody_watches_ends_silently(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(folder: Path) -> demo.Report:
        raise BrokenPipeError

    monkeypatch.setattr(demo, "run", nobody)
    result = shell("demo")
    assert (result.code, result.err) == (141, "")


def test_the_demo_fails_if_something_differs(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def differs(folder: Path) -> demo.Report:
        raise demo.DifferenceError("row 3 is lost")

    monkeypatch.setattr(demo, "run", differs)
    result = shell("demo", "--json")
    assert result.code == 1
    assert result.error["message"] == "row 3 is lost"


# --- completion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bash", "zsh", "fish", "powershell"])
def test_there_is_a_script_for_each_shell(shell: Shell, name: str) -> None:
    result = shell("completion", name)
    assert (result.code, result.err) == (0, "")
    assert "nudgescribe" in result.out
    if name == "fish":
        assert shell("completion", name, "--json").document["script"].strip() == result.out.strip()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nudgescribe", "gro"], {"groups"}),
        (["nudgescribe", "groups", ""], {"list", "create", "rename", "delete"}),
        (["nudgescribe", "groups", "delete", "--ye"], {"--yes"}),
        (["nudgescribe", "groups", "list", "--prof"], {"--profile"}),
    ],
)
def test_bash_completes_commands_and_options(
    shell: Shell, tmp_path: Path, words: list[str], expected: set[str]
) -> None:
    (tmp_path / "completion.bash").write_text(shell("completion", "bash").out)
    program = (
        f"source {tmp_path}/completion.bash; COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1};"
        f" COMP_LINE={' '.join(words)!r}; COMP_POINT=${{#COMP_LINE}}; _nudgescribe; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert {line.strip() for line in done.stdout.splitlines()} >= expected


def test_the_script_is_installed_for_a_shell(shell: Shell, home: Path) -> None:
    result = shell("completion", "bash", "--install", "--json")
    assert result.code == 0
    path = home / ".local" / "share" / "bash-completion" / "completions" / "nudgescribe"
    assert result.document == {"installed": str(path)}
    assert "nudgescribe" in path.read_text()


def test_a_shell_that_cannot_be_told_has_to_be_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    import cyclopts.completion

    def unknown() -> str:
        raise cyclopts.completion.ShellDetectionError

    monkeypatch.setattr(cyclopts.completion, "detect_shell", unknown)
    result = shell("completion")
    assert result.code == 2
    assert "nudgescribe completion bash" in result.err
