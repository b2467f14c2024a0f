"""Where settings come from, what wins, and what is said of those that are wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import keyring
import pytest
from command_line import MemoryKeyring

from nudgescribe_async.cli import context
from nudgescribe_async.cli import keyring as secrets
from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.cli.settings import DEFAULT_BASE_URL, resolve

if TYPE_CHECKING:
    from command_line import Service, Shell

URL = "https://api.example"
EMPTY = "NUDGESCRIBE_PASSWORD is set in the environment, and empty."


def toml(folder: Path, text: str, name: str = "nudgescribe.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def secret(folder: Path, name: str, value: str, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(value)
    path.chmod(mode)
    return path


def test_flags_win_over_the_environment_and_that_over_the_profile_and_that_over_the_keyring(
    home: Path, service: Service, shell: Shell, memory_keyring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret(home, "key", "from-the-file\n")
    toml(
        home,
        f'[profiles.dev]\nbase_url = "{URL}"\nemail = "profile@x.example"\napi_key_file = "key"\nworkspace_id = "w"',
    )
    for name in ("api_key", "password", "api_code"):
        secrets.keep(service.sandbox.url, "env@x.example", name, "from-the-keyring")
    monkeypatch.setenv("NUDGESCRIBE_EMAIL", "env@x.example")
    monkeypatch.setenv("NUDGESCRIBE_BASE_URL", "https://env.example")
    monkeypatch.setenv("NUDGESCRIBE_API_CODE", "from-the-environment")

    told = shell("whoami", "--base-url", service.sandbox.url, "--json")
    assert told.code == 2  # the service refuses them; what was found is told all the same
    found = told.document["settings"]
    assert {name: item["source"].split(" in ")[0] for name, item in found.items()} == {
        "base_url": "--base-url",
        "email": "NUDGESCRIBE_EMAIL",
        "workspace_id": "profile dev",
        "api_key": str(home / "key"),
        "password": "keyring",
        "api_code": "NUDGESCRIBE_API_CODE",
    }
    assert found["base_url"]["value"] == service.sandbox.url
    assert "from-the" not in told.out + told.err
    assert told.document["profile"] == "dev"


def test_the_keyring_gives_secrets_to_the_service_they_were_kept_for_alone(memory_keyring: MemoryKeyring) -> None:
    secrets.keep(URL, "a@x.example", "password", "one")
    found = {
        (url, email): resolve(
            flags={"base_url": url},
            environ={"NUDGESCRIBE_EMAIL": email},
            profile=None,
            keyring=secrets.look_up,
        ).get("password")
        for url in (URL, "https://API.example:443/", "https://evil.example")
        for email in ("a@x.example", "b@x.example")
    }
    assert [place for place, value in found.items() if value] == [
        (URL, "a@x.example"),
        ("https://API.example:443/", "a@x.example"),
    ]


class Broken(MemoryKeyring):
    """One that is locked."""

    def get_password(self, service: str, username: str) -> str | None:
        raise RuntimeError(f"{service}, {username}: locked")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise RuntimeError(f"{service}, {username}, {len(password)}: locked")


def test_a_keyring_that_is_missing_or_broken_is_one_that_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not secrets.usable()
    assert secrets.look_up(URL, "a", "password") is None
    assert not secrets.keep(URL, "a", "password", "x")
    assert not secrets.forget(URL, "a", "password")

    keyring.set_keyring(Broken())
    assert secrets.usable()
    assert secrets.look_up(URL, "a", "password") is None
    assert not secrets.keep(URL, "a", "password", "x")

    def fails() -> None:
        raise RuntimeError("no such backend")

    monkeypatch.setattr(keyring, "get_keyring", fails)
    assert not secrets.usable()
    monkeypatch.setitem(__import__("sys").modules, "keyring", None)
    assert not secrets.usable()


def test_a_secret_is_forgotten_or_stays_if_the_keyring_refuses(memory_keyring: MemoryKeyring) -> None:
    secrets.keep(URL, "a", "password", "x")
    assert secrets.forget(URL, "a", "password")
    assert not memory_keyring.kept

    class Stubborn(MemoryKeyring):
        def delete_password(self, service: str, username: str) -> None:
            raise RuntimeError(f"{service}, {username}: locked")

    keyring.set_keyring(Stubborn())
    secrets.keep(URL, "a", "password", "x")
    assert not secrets.forget(URL, "a", "password")


def test_the_address_is_built_in_if_nobody_says_another() -> None:
    found = resolve(flags={}, environ={}, profile=None, keyring=lambda *_: None)
    assert found.base_url == DEFAULT_BASE_URL

    from nudgescribe_async.client import DEFAULT_BASE_URL as OF_THE_CLIENT

    assert DEFAULT_BASE_URL == OF_THE_CLIENT


def test_no_repr_of_settings_shows_a_secret() -> None:
    found = resolve(
        flags={},
        environ={"NUDGESCRIBE_API_KEY": "hush", "NUDGESCRIBE_PASSWORD": "hush", "NUDGESCRIBE_EMAIL": "a@x.example"},
        profile=None,
        keyring=lambda *_: "hush",
    )
    assert found.missing == []
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("x = ", "is no TOML: Invalid value (at end of document)", ""),
        ("colour = 1", "there is no setting colour.", "default_profile, profiles"),
        ("profiles = 1", "profiles must be tables.", "[profiles.dev]"),
        ("[profiles]\ndev = 1", "profiles.dev must be a table.", "[profiles.dev]"),
        ('[profiles.dev]\nbase-url = "x"', "there is no setting profiles.dev.base-url.", "Perhaps base_url?"),
        ("[profiles.dev]\nbase_url = 1", "profiles.dev.base_url must be text, not int.", ""),
        ('[profiles.dev]\nemail = " "', "profiles.dev.email is empty.", ""),
        ('[profiles.dev]\npassword = "hush"', "profiles.dev.password is a secret", "password_file"),
        ('api_key = "hush"', "api_key is a secret", "nudgescribe login"),
        ('default_profile = "prod"\n[profiles.dev]', "default_profile is 'prod'", "There are: dev."),
        ("default_profile = 1", "default_profile is 1", "There are none"),
        ('[profiles.dev]\nbase_url = "http://api.example"', "tokens would travel unencrypted", ""),
        ('[profiles.dev]\nbase_url = "x"', "base URL from profile dev in", ""),
        ('[profiles.dev]\npassword_file = "gone"', "cannot be read: No such file or directory.", ""),
    ],
)
def test_a_wrong_file_is_one_sentence(home: Path, shell: Shell, text: str, sentence: str, hint: str) -> None:
    path = toml(home, text)
    result = shell("whoami")
    assert result.code == 2
    assert result.out == ""
    first, *rest = result.err.splitlines()
    assert str(path) in first
    assert sentence in first
    assert hint in "".join(rest)
    assert "hush" not in result.err


def test_a_file_that_is_no_text_or_not_there_is_one_sentence(home: Path, shell: Shell) -> None:
    path = toml(home, "")
    path.write_bytes(b"\xff")
    assert f"{path} is no TOML: it is not UTF-8." in shell("whoami").err
    result = shell("whoami", "--config", "gone.toml")
    assert (result.code, result.err.splitlines()) == (
        2,
        ["Error: gone.toml cannot be read: No such file or directory."],
    )


@pytest.mark.parametrize(("mode", "value", "sentence"), [(0o640, "x", "Others may read"), (0o600, " \n", "is empty")])
def test_the_file_of_a_secret_is_for_its_owner_alone(
    home: Path, shell: Shell, mode: int, value: str, sentence: str
) -> None:
    path = secret(home, "password", value, mode)
    toml(home, '[profiles.dev]\npassword_file = "password"')
    result = shell("whoami")
    assert result.code == 2
    assert sentence in result.err
    assert str(path) in result.err


def test_the_file_of_a_secret_must_be_text(home: Path, shell: Shell) -> None:
    secret(home, "password", "").write_bytes(b"\xff\xfe")
    toml(home, '[profiles.dev]\npassword_file = "password"')
    assert "is no text in UTF-8" in shell("whoami").err


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_in_the_working_directory_that_others_can_write_is_not_used(home: Path, shell: Shell, mode: int) -> None:
    path = toml(home, f'[profiles.dev]\nbase_url = "{URL}"')
    path.chmod(mode)
    result = shell("whoami")
    assert result.code == 2
    assert "could have been written by somebody else" in result.err
    assert shell("whoami", "--config", str(path), "--json").document["profile"] == "dev"


def test_a_file_in_the_working_directory_of_somebody_else_is_not_used(
    home: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml(home, f'[profiles.dev]\nbase_url = "{URL}"')
    if os.getuid() == 0:
        os.chown(home / "nudgescribe.toml", 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert "could have been written by somebody else" in shell("whoami").err


def test_where_files_have_no_owners_nobody_checks_them(
    home: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret(home, "password", "x", 0o644)
    toml(home, '[profiles.dev]\npassword_file = "password"').chmod(0o666)
    monkeypatch.delattr(os, "getuid")  # as on Windows
    assert shell("whoami", "--json").document["settings"]["password"]["source"] == str(home / "password")


def test_the_profile_is_chosen_by_flag_then_environment_then_file(
    home: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f'[profiles.{name}]\nemail = "{name}@x.example"\n' for name in ("dev", "prod", "test"))

    def email(*arguments: str) -> object:
        return shell("whoami", "--json", *arguments).document["settings"]["email"]

    path = toml(home, text)
    assert email() is None
    hint = shell("whoami").err
    assert "--profile takes one of dev, prod, test" in hint

    toml(home, f'default_profile = "dev"\n{text}')
    assert email() == {"value": "dev@x.example", "secret": False, "source": f"profile dev in {path}"}
    monkeypatch.setenv("NUDGESCRIBE_PROFILE", "prod")
    assert email()["value"] == "prod@x.example"  # type: ignore[index]
    assert email("--profile", "test")["value"] == "test@x.example"  # type: ignore[index]

    wrong = shell("whoami", "--profile", "live")
    assert wrong.code == 2
    assert "has no profile 'live', which --profile names" in wrong.err
    assert "There are: dev, prod, test." in wrong.err


def test_the_file_is_found_by_flag_then_environment_then_here_then_at_home(
    home: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used(*arguments: str) -> object:
        return shell("whoami", "--json", *arguments).document["file"]

    assert used() is None
    assert "which --profile names" in shell("whoami", "--profile", "dev").err
    monkeypatch.setenv("NUDGESCRIBE_PROFILE", "dev")
    assert "which NUDGESCRIBE_PROFILE names" in shell("whoami").err

    paths = [
        toml(home / ".config" / "nudgescribe", "[profiles.dev]"),
        toml(home / "xdg" / "nudgescribe", "[profiles.dev]"),
        toml(home, "[profiles.dev]"),
        toml(home, "[profiles.dev]", "environment.toml"),
        toml(home, "[profiles.dev]", "flag.toml"),
    ]
    paths[2].rename(home / "hidden")
    assert used() == str(paths[0])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    assert used() == str(paths[1])
    (home / "hidden").rename(paths[2])
    assert used() == str(paths[2])
    monkeypatch.setenv("NUDGESCRIBE_CONFIG", str(paths[3]))
    assert used() == str(paths[3])
    assert used("--config", str(paths[4])) == str(paths[4])


def test_missing_settings_are_named_with_what_to_do(shell: Shell) -> None:
    result = shell("groups", "list", "--workspace", "w")
    sentence, hint = result.err.splitlines()
    assert (result.code, result.out) == (2, "")
    assert sentence == "Error: Settings are missing: api_key, email, password."
    assert "NUDGESCRIBE_API_KEY, NUDGESCRIBE_EMAIL, NUDGESCRIBE_PASSWORD" in hint
    assert "nudgescribe login" in hint


def test_where_nothing_can_be_kept_each_command_logs_in_and_says_why(
    home: Path, settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    for _ in range(2):
        result = shell("groups", "list")
        assert result.code == 0
        assert "the token is not kept for the next command (Not a directory: " in result.err
    assert settings.sandbox.count("auth.authenticate") == 2

    with monkeypatch.context() as other:
        other.setattr(os, "access", lambda *_: False)  # root may write anywhere
        other.setenv("XDG_STATE_HOME", str(home))
        assert "cannot be written" in shell("whoami").err
    assert shell("login", "--json").document["token"] is None
    assert shell("logout", "--json").document["forgotten"] == []
    monkeypatch.setattr(context, "find_spec", lambda _: None)
    assert shell("groups", "list").err == ""


def test_the_keyring_is_left_alone_if_all_secrets_are_elsewhere() -> None:
    def asked(*_: str) -> str:
        raise AssertionError("the keyring was asked")

    environ = {"NUDGESCRIBE_API_KEY": "k", "NUDGESCRIBE_EMAIL": "a@x.example", "NUDGESCRIBE_PASSWORD": "p"}
    found = resolve(flags={}, environ=environ, profile=None, keyring=asked)
    assert (found.missing, found.get("api_code")) == ([], None)


def test_an_empty_variable_is_a_mistake() -> None:
    with pytest.raises(UsageError) as wrong:
        resolve(flags={}, environ={"NUDGESCRIBE_PASSWORD": ""}, profile=None, keyring=lambda *_: None)
    assert wrong.value.message == EMPTY


def test_tokens_are_kept_from_command_to_command_for_their_owner_alone(
    home: Path, settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        assert shell("groups", "list").code == 0
    assert settings.sandbox.count("auth.authenticate") == 1
    kept = home / ".local" / "state" / "nudgescribe"
    assert (kept.stat().st_mode & 0o777, (kept / "tokens.json").stat().st_mode & 0o777) == (0o700, 0o600)

    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    assert shell("groups", "list").code == 0
    assert (home / "state" / "nudgescribe" / "tokens.json").is_file()
    assert settings.sandbox.count("auth.authenticate") == 2


def test_a_file_that_nobody_named_does_not_decide_where_credentials_go(
    home: Path, settings: Service, shell: Shell, memory_keyring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = "https://localhost.invalid"
    path = toml(home, f'[profiles.dev]\nbase_url = "{elsewhere}"')
    monkeypatch.delenv("NUDGESCRIBE_BASE_URL")
    for command in (("groups", "list"), ("login",), ("whoami",)):
        refused = shell(*command)
        assert refused.code == 2
        assert f"{path}, which nobody has named, would have the credentials sent to {elsewhere}" in refused.err
        assert "--config" in refused.err
    assert elsewhere in shell("whoami").out
    assert shell("doctor", "--json").document["checks"][0]["result"] == "failed"

    def agreed(*arguments: str) -> bool:
        return shell("groups", "list", *arguments).code == 1  # nobody is there

    assert agreed("--config", str(path))
    monkeypatch.setenv("NUDGESCRIBE_BASE_URL", elsewhere)
    assert agreed()
    monkeypatch.delenv("NUDGESCRIBE_BASE_URL")
    for name in ("api_key", "password"):
        monkeypatch.delenv(f"NUDGESCRIBE_{name.upper()}")
        secrets.keep(elsewhere, settings.sandbox.credentials.email, name, "kept-for-this-address")
    assert agreed()
    toml(home, f'[profiles.dev]\nbase_url = "{settings.sandbox.url}"')
    for name, value in settings.environment.items():
        if name != "NUDGESCRIBE_BASE_URL":
            monkeypatch.setenv(name, value)
    assert shell("groups", "list").code == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = " + "[" * 100_000, "nested too deeply"),
        ('[profiles.dev]\napi_key_file = "~nobody-at-all/key"', "cannot be found"),
        ('[profiles.dev]\napi_key_file = "a\\u0000b"', "names no path"),
    ],
    ids=["depth", "home", "null"],
)
def test_a_file_that_leads_nowhere_is_one_sentence(home: Path, shell: Shell, text: str, sentence: str) -> None:
    toml(home, text)
    result = shell("whoami")
    assert result.code == 2
    assert sentence in result.err


def test_no_letter_of_a_file_commands_the_terminal(home: Path, shell: Shell) -> None:
    toml(home, '[profiles."\\u001b]0;x"]')
    named = shell("--profile", "dev", "whoami")
    toml(home, '[profiles.dev]\n"\\u001b[31m" = "x"')
    assert "\x1b" not in named.err + shell("whoami").err
    assert r"\x1b]0;x" in named.err


def test_without_a_home_or_a_working_directory_the_environment_is_enough(
    home: Path, settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    def deleted() -> Path:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr(Path, "cwd", deleted)
    assert shell("whoami", "--config", "~nobody-at-all/x").code == 2
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    result = shell("groups", "list")
    assert (result.code, result.err) == (0, "")
    assert shell("whoami", "--profile", "dev").code == 2
