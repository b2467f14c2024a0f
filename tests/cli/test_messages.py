"""``nudgescribe messages``, in process against a sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nudgescribe_async.cli.commands import messages
from nudgescribe_async.sandbox import BadAnswer, LoseAnswer, Status

if TYPE_CHECKING:
    from command_line import Service, Shell

SPRING, WELCOME = "Spring sale", "Welcome back"
PUBLISH = "messages.publish"


@pytest.fixture
def publishable(settings: Service) -> str:
    return settings.campaigns[SPRING]


@pytest.fixture
def published(settings: Service) -> str:
    return settings.campaigns[WELCOME]


def test_a_campaign_is_published_when_it_is_said(settings: Service, shell: Shell, publishable: str) -> None:
    asked = shell("messages", "publish", publishable)
    assert asked.code == 2
    assert f"the campaign {SPRING!r} ({publishable}), which is Ready to publish" in asked.err
    assert settings.sandbox.count(PUBLISH) == 0
    result = shell("messages", "publish", publishable, "--yes", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.document["success"] is True
    assert settings.sandbox.effects[PUBLISH] == 1


def test_it_can_be_waited_for(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    service = start_service(job_time=0.2)
    monkeypatch.setattr(messages, "LOOK_EVERY", 0.05)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    result = shell("messages", "publish", service.campaigns[SPRING], "--yes", "--wait", "--json")
    assert (result.code, result.document["files"]) == (0, 1)


def test_who_may_not_see_campaigns_waits_for_the_files(
    settings: Service, shell: Shell, publishable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LOOK_EVERY", 0.05)
    settings.inject(Status(403), operation="campaigns.list", times=None)
    text = shell("messages", "publish", publishable, "--yes", "--wait")
    assert "is published: 1 file to download" in text.out


def test_a_lost_answer_is_told_and_never_repeated(settings: Service, shell: Shell, publishable: str) -> None:
    settings.inject(LoseAnswer(), operation=PUBLISH)
    result = shell("messages", "publish", publishable, "--yes", "--json")
    assert (result.code, result.out) == (1, "")
    assert result.error["may_have_taken_effect"] is True
    assert "`nudgescribe campaigns list`" in result.error["hint"]
    assert settings.sandbox.effects[PUBLISH] == 1


def test_a_publication_that_is_refused(settings: Service, shell: Shell, publishable: str) -> None:
    settings.inject(BadAnswer(b'{"success": false}', status=200), operation=PUBLISH)
    assert shell("messages", "publish", publishable, "--yes").code == 1
    assert shell("messages", "publish", settings.campaigns["Thank you"], "--yes").code == 1


def test_a_campaign_that_there_is_not(settings: Service, shell: Shell) -> None:
    result = shell("messages", "publish", "nobody", "--yes", "--json")
    assert result.code == 1
    assert "campaigns list" in result.error["hint"]
    assert settings.sandbox.count(PUBLISH) == 0


def test_who_may_not_see_campaigns_may_publish_one(settings: Service, shell: Shell, publishable: str) -> None:
    settings.inject(Status(403), operation="campaigns.list", times=None)
    result = shell("messages", "publish", publishable, "--yes")
    assert result.code == 0
    assert publishable in result.out


def test_messages_are_downloaded_into_a_folder(settings: Service, shell: Shell, home: Path, published: str) -> None:
    result = shell("messages", "download", published, "letters", "--json")
    assert (result.code, result.err) == (0, "")
    assert [Path(file["path"]).name for file in result.document["files"]] == ["page-00001.csv"]
    assert json.loads((home / "letters" / "manifest.json").read_text())["complete"] is True
    again = shell("messages", "download", published, "letters")
    assert again.code == 0
    assert "1 was there already" in again.out


def test_another_run_is_not_mixed_in(settings: Service, shell: Shell, published: str) -> None:
    assert shell("messages", "download", published, "letters").code == 0
    other = shell("messages", "download", published, "letters", "--run", "1")
    assert other.code == 1
    assert "--overwrite" in other.err
    assert "=True" not in other.err
    assert shell("messages", "download", published, "letters", "--run", "1", "--overwrite", "--via", "csv").code == 0


def test_what_is_noticed_is_told(settings: Service, shell: Shell, published: str) -> None:
    settings.inject(Status(403), operation="reruns.history", times=None)
    result = shell("messages", "download", published, "letters", "--json")
    assert result.code == 0
    assert result.document["notes"]
    assert "did not tell which run" in result.err


def test_a_download_that_breaks_goes_on_with_the_same_command(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, shell: Shell, home: Path
) -> None:
    service = start_service(rows_per_file=100)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    arguments = ["messages", "download", service.campaigns[WELCOME], "letters", "--via", "csv", "--concurrency", "1"]
    fault = service.inject(Status(400), operation="messages.fetch", skip=2, times=None)
    broken = shell(*arguments, "--json")
    assert (broken.code, broken.out) == (1, "")
    assert "2 files are there" in broken.error["hint"]
    fault.remove()
    rest = shell(*arguments, "--json")
    assert rest.code == 0
    assert [file["skipped"] for file in rest.document["files"]] == [True, True, False, False, False]


@pytest.mark.parametrize("arguments", [["--run", "0"], ["--via", "pigeon"], ["--concurrency", "0"]])
def test_what_cannot_be_right_is_a_usage_error(
    settings: Service, shell: Shell, published: str, arguments: list[str]
) -> None:
    result = shell("messages", "download", published, "letters", *arguments)
    assert (result.code, result.out) == (2, "")


def test_a_folder_that_is_a_file(settings: Service, shell: Shell, home: Path, published: str) -> None:
    (home / "letters").write_text("mine")
    result = shell("messages", "download", published, "letters")
    assert result.code == 2
    assert (home / "letters").read_text() == "mine"
