"""``nudgescribe doctor --contract``: live, recorded and replayed, and how it ends."""

from __future__ import annotations

import json
import socket
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from nudgescribe_async.sandbox import BadAnswer, LoseRequest, Status

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Process, Result, Service, Shell


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nudgescribe_async.contract_doctor.examination.PAUSE", 0.0)


def harmless(service: Service, *texts: str) -> None:
    ids = [service.sandbox.workspace_id, *service.groups.values(), *service.campaigns.values(), *service.groups]
    for text in texts:
        assert not any(each in text for each in [*service.secrets, *ids]), text


def test_a_service_that_conforms_ends_with_0(settings: Service, shell: Shell) -> None:
    told = shell("doctor", "--contract")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("Nothing differs from the contract in the answers to 22 requests.")
    document = shell("doctor", "--contract", "--json")
    assert document.code == 0
    assert document.document["conforms"] is True
    harmless(settings, told.out, document.out)
    assert dict(settings.sandbox.effects) == {}


def test_differences_end_with_4(settings: Service, shell: Shell) -> None:
    settings.inject(
        BadAnswer(b'{"data": []}', content_type="application/json"), operation="profile_fields.list", times=2
    )
    told = shell("doctor", "--contract")
    assert told.code == 4
    assert "! $: another envelope" in told.out
    assert [each["kind"] for each in shell("doctor", "--contract", "--json").document["findings"]] == [
        "another envelope"
    ]


def test_what_was_not_answered_ends_with_3(settings: Service, shell: Shell) -> None:
    settings.inject(Status(500), operation="reruns.history")
    told = shell("doctor", "--contract")
    assert told.code == 3
    assert "Not answered: reruns.history: refused with 500." in told.out
    assert shell("doctor", "--contract", "--max-requests", "3").code == 3


def test_refused_credentials_end_with_2(settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUDGESCRIBE_PASSWORD", "wrong")
    assert shell("doctor", "--contract").code == 2


def test_a_service_that_is_not_there_ends_with_1(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        monkeypatch.setenv("NUDGESCRIBE_BASE_URL", f"http://127.0.0.1:{bound.getsockname()[1]}")
    told = shell("doctor", "--contract")
    assert (told.code, told.out) == (1, "")


def test_missing_settings_end_with_2(shell: Shell) -> None:
    assert shell("doctor", "--contract").code == 2


def test_a_session_is_recorded_and_replayed_without_settings(
    settings: Service, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, campaign = settings.groups["Returning customers"], settings.campaigns["Spring sale"]
    ids = ("--group", group, "--campaign", campaign, "--workspace", settings.sandbox.workspace_id)
    live = shell("doctor", "--contract", "--record", "session.jsonl", *ids)
    assert (live.code, live.err) == (0, "")
    recording = home / "session.jsonl"
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
    harmless(settings, recording.read_text())
    for name in settings.environment:
        monkeypatch.delenv(name)
    assert shell("doctor", "--contract", "--replay", "session.jsonl").out == live.out


def test_a_recording_is_replaced_by_one_that_got_past_the_login_alone(
    settings: Service, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, before = home / "session.jsonl", {*home.iterdir(), home / "session.jsonl"}
    arguments = ("doctor", "--contract", "--record", recording.name, "--overwrite")
    assert shell(*arguments).code == 0
    first = recording.read_text()
    with monkeypatch.context() as wrong:
        wrong.setenv("NUDGESCRIBE_PASSWORD", "wrong")
        assert shell(*arguments).code == 2
    settings.inject(LoseRequest(), operation="auth.authenticate", times=1)
    assert shell(*arguments).code == 1
    settings.inject(Status(418), operation="auth.authenticate", times=1)
    told = shell(*arguments)
    assert told.code == 4
    assert "session.jsonl is as it was" in told.err
    assert recording.read_text() == first
    assert {*home.iterdir()} == before
    assert shell(*arguments, "--max-requests", "2").code == 3
    assert len(recording.read_text().splitlines()) == 3
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
    assert {*home.iterdir()} == before


def test_a_recording_that_cannot_be_replaced_hides_nothing(
    settings: Service, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    (home / "session.jsonl").write_text("before")
    monkeypatch.setattr("os.replace", refuse)
    told = shell("doctor", "--contract", "--record", "session.jsonl", "--overwrite")
    assert told.code == 3
    assert "Nothing differs" in told.out
    assert "Read-only file system" in told.err
    assert (home / "session.jsonl").read_text() == "before"


def test_report_and_patch_are_written(settings: Service, shell: Shell, home: Path) -> None:
    files = ("--report", "report.json", "--patch", "contract.patch")
    told = shell("doctor", "--contract", *files)
    assert told.code == 0
    assert "51 assumptions as observed" in told.err
    report = json.loads((home / "report.json").read_text())
    assert len(report["assumptions"]["confirmed"]) == 51
    assert (home / "contract.patch").read_text().count("\n+") == 52  # one is the name of the file
    again = shell("doctor", "--contract", *files)
    assert again.code == 2
    assert "is there already" in again.err
    recorded = shell("doctor", "--contract", *files, "--record", "session.jsonl", "--overwrite")
    assert recorded.code == 0
    assert shell("doctor", "--contract", "--record", "session.jsonl", "--overwrite").code == 0


def test_a_file_that_cannot_be_written_hides_nothing(
    settings: Service, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    (home / "contract.patch").touch()
    told = shell("doctor", "--contract", "--report", "report.json", "--patch", "contract.patch", "--overwrite")
    assert told.code == 3
    assert "Nothing differs" in told.out
    assert told.err.count("No space left") == 2
    assert "as observed" not in told.err


def test_that_there_is_no_yaml_for_a_patch_is_told_before_anything_is_sent(
    settings: Service, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    told = shell("doctor", "--contract", "--patch", "contract.patch", "--record", "session.jsonl")
    assert (told.code, told.out) == (2, "")
    assert "nudgescribe_async[contract]" in told.err
    assert not settings.sandbox.log
    assert not (home / "session.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--patch", "x"), "--patch goes with --contract only."),
        (("--max-requests", "3"), "--max-requests goes with --contract only."),
        (("--contract", "--replay", "x", "--record", "y"), "--record is for the service"),
        (("--contract", "--replay", "x", "--group", "y"), "--group is for the service"),
        (("--contract", "--report", "x", "--patch", "./x"), "must name different files"),
        (("--contract", "--report", "none/x"), "There is no folder none."),
        (("--contract", "--replay", "none"), "none cannot be read"),
        (("--contract", "--max-requests", "0"), "max-requests"),
    ],
)
def test_what_does_not_go_together_is_refused(
    shell: Shell, settings: Service, arguments: tuple[str, ...], sentence: str
) -> None:
    result: Result = shell("doctor", *arguments)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err
    assert not settings.sandbox.log


@pytest.mark.slow
def test_as_a_process(settings: Service, process: Process) -> None:
    result = process("doctor", "--contract", "--max-requests", "2")
    assert result.code == 3
    assert "limit of requests" in result.out
    harmless(settings, result.out, result.err)
