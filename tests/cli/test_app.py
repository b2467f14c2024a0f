"""The command as a whole: its tree, its help, its exit codes, and how it ends."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from command_line import when

import nudgescribe_async.cli as command
from nudgescribe_async import __version__, errors
from nudgescribe_async.cli import app as assembly
from nudgescribe_async.cli.app import app
from nudgescribe_async.cli.context import Context
from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.failures import CommandError, failure_of
from nudgescribe_async.cli.running import Interruption, run
from nudgescribe_async.sandbox import Delay, LoseAnswer, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Service, Shell
    from cyclopts import App

# --- the tree --------------------------------------------------------------------------------------


def commands(root: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """All that can be run, by its words."""
    for name in root:
        if name.startswith("-"):
            continue
        found = root[name]
        inner = list(commands(found, (*path, name)))
        yield from inner
        if not inner:
            yield (*path, name), found


ALL = dict(commands(app))


def test_the_command_has_all_that_is_promised() -> None:
    promised = """campaigns list; completion; customers count; customers delete; customers export; customers upload; demo; doctor;
        fields create; fields delete; fields list; fields update; groups create; groups delete; groups list; groups rename;
        login; logout; messages download; messages publish; reruns history; reruns plan; reruns report; reruns run;
        reruns status; sandbox; whoami"""
    assert {" ".join(words) for words in ALL} >= {" ".join(line.split()) for line in promised.split(";")}


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_explains_itself_and_has_the_options_of_every_command(
    shell: Shell, words: tuple[str, ...]
) -> None:
    result = shell(*words, "--help")
    assert (result.code, result.err) == (0, "")
    text = " ".join(result.out.replace("│", " ").split())
    for option in ("--json", "--debug", "--profile", "--config", "--base-url"):
        assert option in text
    assert "Exit codes:" in text
    found = ALL[words].default_command
    assert found is not None
    assert found.__doc__
    assert found.__doc__.split("\n\n")[0].rstrip().endswith(".")


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_is_explained_in_a_whole_sentence_and_none_takes_a_secret(words: tuple[str, ...]) -> None:
    for argument in ALL[words].assemble_argument_collection(parse_docstring=True):
        shown = argument.parameter.help
        if argument.parameter.show is False or not argument.parse or argument.name == "*":
            continue
        assert shown, f"{argument.name} has no help"
        assert not shown[0].islower(), shown
        assert shown.rstrip().endswith("."), shown
        assert not {"password", "api-key", "secret", "token"} & set(argument.name.split("-")), argument.name


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_what_destroys_can_be_told_not_to_ask(words: tuple[str, ...]) -> None:
    found = ALL[words].default_command
    assert found is not None
    if "delete" in words:
        assert "yes" in inspect.signature(found).parameters


def test_the_groups_and_the_whole_command_explain_themselves(shell: Shell) -> None:
    for words in ((), ("groups",), ("fields",), ("customers",), ("campaigns",), ("messages",), ("reruns",)):
        bare = shell(*words)
        assert (bare.code, bare.err) == (0, "")
        assert bare.out == shell(*words, "--help").out
    for code in ExitCode:
        assert f"{int(code)} " in shell("--help").out.split("Exit codes:")[1]
    assert shell("--version").out == f"{__version__}\n"


def test_help_loads_neither_the_client_nor_the_sandbox() -> None:
    program = "import sys; from nudgescribe_async.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    loaded = done.stderr
    assert "nudgescribe_async.cli.app" in loaded
    for heavy in ("aiohttp", "nudgescribe_async.client", "nudgescribe_async.sandbox", "keyring.core"):
        assert f"'{heavy}'" not in loaded


# --- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing"], 'Unknown command "nothing".'),
        (["groups", "lst"], 'Did you mean "list"?'),
        (["groups", "list", "--bogus"], "Unknown option: --bogus."),
        (["groups", "create"], "requires an argument"),
        (["groups", "list", "extra"], "extra"),
        (["groups", "list", "--profile"], "--profile requires an argument"),
        (["fields", "create", "a", "b"], "Choose from"),
        (["completion", "tcsh"], "Choose from"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_a_hint(shell: Shell, arguments: list[str], sentence: str) -> None:
    result = shell(*arguments)
    first, hint = result.err.splitlines()
    assert (result.code, result.out) == (2, "")
    assert first.startswith("Error: ")
    assert sentence in first
    assert "--help" in hint

    result = shell(*arguments[:2], "--json", *arguments[2:])
    assert (result.code, result.out) == (2, "")
    assert result.error["exit_code"] == 2


def test_the_options_of_every_command_may_stand_anywhere(settings: Service, shell: Shell) -> None:
    expected = shell("groups", "list", "--json").out
    assert expected
    for words in (["--json", "groups", "list"], ["groups", "--json", "list"]):
        assert shell(*words).out == expected
    assert shell("--base-url", "http://127.0.0.1:1x", "groups", "list").code == 2


# --- failures --------------------------------------------------------------------------------------


def test_a_traceback_is_shown_with_debug_alone(settings: Service, shell: Shell) -> None:
    plain = shell("groups", "delete", "Nobody", "--yes")
    assert "Traceback" not in plain.err
    debug = shell("groups", "delete", "Nobody", "--yes", "--debug")
    assert "Traceback" in debug.err
    assert "Debug: " in debug.err  # and what was sent
    assert "customer_groups.list" in debug.err
    assert debug.code == plain.code == 1
    assert not any(secret in debug.err for secret in settings.secrets)


def test_a_fault_of_the_command_itself_tells_its_class_alone(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> str:
        raise LookupError("hush")

    monkeypatch.setattr(Context, "workspace", breaks)
    monkeypatch.setattr(Context, "client", breaks)
    result = shell("groups", "list")
    assert result.code == 1
    assert "LookupError" in result.err
    assert "--debug" in result.err
    assert "hush" not in result.err


def test_a_file_that_cannot_be_written_is_one_sentence(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("HOME", str(home / "file"))
    result = shell("completion", "bash", "--install")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error: Not a directory: ")
    assert "Traceback" not in result.err
    assert failure_of(OSError()).message == "OSError."


def test_wrong_credentials_are_one_sentence_and_a_hint(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUDGESCRIBE_PASSWORD", "wrong-password")
    result = shell("groups", "list")
    sentence, hint = result.err.splitlines()
    assert (result.code, result.out) == (2, "")
    assert "refused the login" in sentence
    assert "whoami" in hint
    assert "wrong-password" not in result.err
    assert shell("groups", "list", "--json").error["status"] == 403


def test_what_may_have_taken_effect_says_so_and_where_to_look(settings: Service, shell: Shell) -> None:
    settings.inject(LoseAnswer(), operation="customer_groups.create")
    result = shell("groups", "create", "Spring")
    assert result.code == 1
    assert result.err.count("taken effect") == 1
    assert "may have taken effect: look with `nudgescribe groups list`" in result.err
    settings.inject(LoseAnswer(), operation="customer_groups.create")
    assert shell("groups", "create", "Spring", "--json").error["may_have_taken_effect"] is True


def test_what_may_have_taken_effect_says_so_also_without_the_words_of_the_package() -> None:
    error = errors.OutcomeUnknownError("Lost.")
    error.may_have_taken_effect, error.look = True, "campaigns.list"
    assert failure_of(error).hint == "It may have taken effect: look with campaigns.list before you do it again."


def test_retries_are_told_as_warnings_and_errors_once(settings: Service, shell: Shell) -> None:
    settings.inject(Status(503, retry_after=0.01), operation="customer_groups.list", times=1)
    result = shell("groups", "list")
    assert result.code == 0
    assert "January 1997" in result.out
    logger = logging.getLogger("nudgescribe_async")
    assert not [handler for handler in logger.handlers if "Noting" in type(handler).__name__]
    assert logger.propagate


def test_unknown_failures_of_the_package_have_a_code_each() -> None:
    assert failure_of(errors.ConfigurationError("x")).code == ExitCode.USAGE
    assert failure_of(errors.NotFoundError("x", status=404, operation="o")).details["status"] == 404
    attempts = [errors.Attempt(number=number, after=0, seconds=0) for number in (1, 2)]
    told = failure_of(errors.RequestNotSentError("Gone.", operation="o", request_id="r", attempts=attempts))
    assert told.message == "Gone. (operation o, request id r, 2 attempts)"
    assert "doctor" in told.hint
    assert failure_of(CommandError("x", code=ExitCode.PARTIAL)).code == ExitCode.PARTIAL


def test_the_exit_code_of_a_command_is_that_of_the_process(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def partly(*_: object, **__: object) -> int:
        return ExitCode.PARTIAL

    monkeypatch.setattr(app["groups"]["list"], "default_command", partly)
    assert shell("groups", "list").code == 3


# --- how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")],
)
def test_a_signal_ends_a_command_with_one_line(
    settings: Service, shell: Shell, number: signal.Signals, code: int, word: str
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for arguments in (["groups", "list"], ["groups", "list", "--json"]):
        fault = settings.inject(Delay(60, before_work=True), operation="customer_groups.list")
        thread = when(lambda fault=fault: fault.fired > 0, lambda: os.kill(os.getpid(), number))  # type: ignore[misc]
        result = shell(*arguments)
        thread.join()
        assert (result.code, result.out) == (code, "")
        if "--json" in arguments:
            assert result.error == {"kind": word[:-1], "message": word, "hint": "", "exit_code": code}
        else:
            assert result.err == f"{word}\n"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_the_advice_of_a_command_stands_on_the_line_and_a_second_signal_cancels_again() -> None:
    told: list[asyncio.CancelledError] = []

    async def stubborn() -> None:
        while len(told) < 2:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(60)
            except asyncio.CancelledError as error:
                told.append(error)
        told[-1].add_note("Run it again.")
        raise told[-1]

    with pytest.raises(Interruption) as ended:
        run(stubborn())
    assert (ended.value.number, ended.value.advice, len(told)) == (signal.SIGINT, "Run it again.", 2)


def test_a_cancellation_that_nobody_asked_for_is_none_of_a_signal() -> None:
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(cancels_itself())


def test_ctrl_c_before_anything_has_begun_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(assembly, "execute", interrupted)
    assert command.main(["groups"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_ctrl_c_in_a_command_without_an_event_loop_is_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Context, "settings", property(interrupted))
    result = shell("whoami")
    assert (result.code, result.err) == (130, "Interrupted.\n")


def test_without_the_extra_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "rich" else True)
    assert command.main([]) == 1
    assert capsys.readouterr().err == 'The command needs two more packages: pip install "nudgescribe_async[cli]".\n'


def test_a_process_leaves_the_last_ctrl_c_to_the_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nudgescribe", "--version"])
    before = signal.getsignal(signal.SIGINT)
    try:
        assert command.main() == 0
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().out == f"{__version__}\n"
