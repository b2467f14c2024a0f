"""Logging in, who that is, and logging out."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import pytest

from nudgescribe_async.cli.account import TokenState
from nudgescribe_async.token_store import StoredTokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_line import MemoryKeyring, Service, Shell


@pytest.fixture
def types(keyboard: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Somebody at the terminal: lines that are typed in the open, and secrets that are not shown."""

    def sit_down(*lines: str, secrets: dict[str, str] | None = None) -> list[str]:
        keyboard(*lines)
        asked: list[str] = []

        def answer(prompt: str, _: object) -> str:
            asked.append(prompt)
            if (secrets or {}).get(prompt) is None:
                raise EOFError
            return (secrets or {})[prompt]

        monkeypatch.setattr(getpass, "getpass", answer)  # it would ask the terminal of whoever runs the tests
        return asked

    return sit_down


def test_login_checks_the_settings_that_are_there(settings: Service, shell: Shell) -> None:
    result = shell("login")
    assert (result.code, result.err) == (0, "")
    assert settings.sandbox.credentials.email in result.out
    assert "good for another 14 days" in result.out
    assert not any(secret in result.out for secret in settings.secrets)
    assert shell("groups", "list").code == 0
    assert settings.sandbox.count("auth.authenticate") == 1

    assert shell("login", "--json").document["kept_in_keyring"] == []
    assert settings.sandbox.count("auth.authenticate") == 2  # a token that is kept says nothing of the password


def test_login_asks_for_what_is_missing_and_the_next_command_finds_it(
    settings: Service,
    shell: Shell,
    types: Callable[..., list[str]],
    memory_keyring: MemoryKeyring,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
) -> None:
    owner = settings.sandbox.credentials
    for name in ("NUDGESCRIBE_API_KEY", "NUDGESCRIBE_EMAIL", "NUDGESCRIBE_PASSWORD"):
        monkeypatch.delenv(name)
    asked = types(owner.email, secrets={"API key: ": f" {owner.api_key} ", "Password: ": owner.password})

    result = shell("login")
    assert result.code == 0
    assert asked == ["API key: ", "Password: "]
    assert "In the keyring now: api_key, password." in result.out
    assert not any(secret in result.out + result.err for secret in settings.secrets)
    assert set(memory_keyring.kept.values()) == {owner.api_key, owner.password}

    # The e-mail address is no secret, and the output says what to write where. Do as it says.
    _, _, lines = result.err.partition("nudgescribe.toml:\n\n")
    (home / "nudgescribe.toml").write_text(lines)
    (home / "nudgescribe.toml").chmod(0o600)
    monkeypatch.delenv("NUDGESCRIBE_BASE_URL")
    assert shell("groups", "list").code == 0
    assert shell("whoami", "--json").document["settings"]["password"]["source"] == "keyring"

    forgotten = shell("logout")
    assert "api_key, password, token" in forgotten.out
    assert not memory_keyring.kept
    assert shell("groups", "list").code == 2


def test_without_a_keyring_login_says_how_to_set_what_was_typed(
    settings: Service, shell: Shell, types: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUDGESCRIBE_PASSWORD")
    types("unused", secrets={"Password: ": settings.sandbox.credentials.password})
    result = shell("login", "--json")
    assert result.code == 0
    assert result.document["kept_in_keyring"] == []
    assert "NUDGESCRIBE_PASSWORD" in result.err
    assert "password_file" in result.err


def test_login_again_asks_though_there_are_secrets(
    settings: Service, shell: Shell, types: Callable[..., list[str]], memory_keyring: MemoryKeyring
) -> None:
    owner = settings.sandbox.credentials
    right = {"API key: ": owner.api_key, "Password: ": owner.password, "API code: ": "code"}
    assert types("unused", secrets=right) == []
    asked = types("unused", secrets=right)
    assert shell("login", "--again", "--with-api-code").code == 0
    assert asked == ["API key: ", "Password: ", "API code: "]

    types("unused", secrets=right | {"Password: ": "wrong-password"})
    memory_keyring.kept.clear()
    result = shell("login", "--again")
    assert result.code == 2
    assert "refused the login" in result.err
    assert "wrong-password" not in result.err
    assert not memory_keyring.kept  # nothing that was refused is kept


def test_an_api_code_is_kept_only_where_the_next_command_looks_for_it(
    settings: Service, shell: Shell, types: Callable[..., list[str]], memory_keyring: MemoryKeyring
) -> None:
    types("unused", secrets={"API code: ": "code"})
    result = shell("login", "--with-api-code")
    assert result.code == 0
    assert not memory_keyring.kept
    assert "NUDGESCRIBE_API_CODE" in result.err
    assert settings.sandbox.count("auth.authenticate") == 1


def test_an_answer_that_is_empty_is_asked_for_again_and_an_end_of_file_ends(
    settings: Service, shell: Shell, types: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUDGESCRIBE_EMAIL")
    types("", "  ", settings.sandbox.credentials.email)
    assert shell("login").code == 0

    types()
    ended = shell("login")
    assert ended.code == 2
    assert "The terminal was closed" in ended.err
    monkeypatch.setenv("NUDGESCRIBE_EMAIL", "a@x.example")
    types("unused", secrets={})
    assert shell("login", "--again").code == 2


def test_without_a_terminal_login_says_what_to_set(shell: Shell) -> None:
    result = shell("login")
    assert (result.code, result.out) == (2, "")
    assert "no terminal" in result.err
    assert "NUDGESCRIBE_EMAIL, NUDGESCRIBE_API_KEY, NUDGESCRIBE_PASSWORD" in result.err


def test_logout_forgets_the_token_and_says_if_there_was_nothing(
    settings: Service, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nothing" in shell("logout").out
    shell("login")
    assert "token" in shell("logout").out
    kept = (home / ".local" / "state" / "nudgescribe" / "tokens.json").read_text()
    assert "eyJ" not in kept  # neither token of the account
    assert shell("whoami", "--json").document["workspaces"]  # which logs in anew
    assert settings.sandbox.count("auth.authenticate") == 2
    monkeypatch.delenv("NUDGESCRIBE_PASSWORD")
    assert shell("logout", "--json").document["forgotten"] == []
    monkeypatch.delenv("NUDGESCRIBE_EMAIL")
    assert shell("logout").code == 2


def test_whoami_shows_everything_but_secrets(settings: Service, shell: Shell) -> None:
    result = shell("whoami")
    assert (result.code, result.err) == (0, "")
    for shown in (
        settings.sandbox.url,
        settings.sandbox.workspace_id,
        settings.sandbox.account_id,
        "Default workspace",
        "NUDGESCRIBE_PASSWORD in the environment",
        "good for another 14 days",
    ):
        assert shown in result.out
    document = shell("whoami", "--json")
    assert document.document["token"]["claims"]["account_id"] == settings.sandbox.account_id
    assert document.document["settings"]["password"] == {
        "value": None,
        "secret": True,
        "source": "NUDGESCRIBE_PASSWORD in the environment",
    }
    assert not any(secret in result.out + document.out for secret in settings.secrets)
    assert "eyJ" not in result.out + document.out


def test_whoami_shows_what_there_is_though_the_service_refuses(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUDGESCRIBE_PASSWORD", "wrong")
    result = shell("whoami")
    assert result.code == 2
    assert "NUDGESCRIBE_EMAIL in the environment" in result.out
    assert "refused the login" in result.err
    assert shell("whoami", "--json").document["token"] is None


@pytest.mark.parametrize(
    ("token", "claims"),
    [
        ("x.eyJhY2NvdW50X2lkIjoiYSIsInVzZXJfaWQiOjF9.y", {"account_id": "a"}),
        ("opaque", {}),
        ("x.!!.y", {}),
        ("x.W10.y", {}),
    ],
)
def test_a_token_is_told_by_its_age_and_its_claims(token: str, claims: dict[str, str]) -> None:
    stored = StoredTokens(access_token=token, obtained_at=0, expires_at=60, refresh_expires_at=90)
    state = TokenState.of(stored)
    assert state.claims == claims
    assert state.renewable_until is None
    assert " days old, expired " in state.as_text()
    assert token not in repr(state)
