"""The settings of a command, and where each was found.

What comes first wins:

1. flags (no secret is one),
2. the environment,
3. the profile in ``nudgescribe.toml``,
4. the keyring, for secrets alone.

A file that was merely found in the working directory may come from anybody, with a folder that was unpacked or cloned.
It does not decide where credentials go: see ``Settings.need_destination``.

Resolving is pure but for the files of secrets and the keyring. The keyring is asked last, and only if the API key or the
password is nowhere else.
Every mistake is one sentence that names the place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import frozen

from nudgescribe_async.address import checked_base_url, is_loopback
from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.shapes import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nudgescribe_async.cli.profile_file import Profile

__all__ = ["KEYRING", "SECRETS", "TYPED", "Found", "Settings", "resolve"]

KEYRING = "keyring"
"""What is said of the source of a secret that the keyring has."""

TYPED = "the terminal"
"""What is said of the source of a setting that the user has typed, having been told where it goes."""

DEFAULT_BASE_URL = "https://client-api.nudgescribe.com"

SECRETS = ("api_key", "password", "api_code")

VARIABLES: dict[str, str] = {
    "base_url": "NUDGESCRIBE_BASE_URL",
    "email": "NUDGESCRIBE_EMAIL",
    "workspace_id": "NUDGESCRIBE_WORKSPACE_ID",
    "api_key": "NUDGESCRIBE_API_KEY",
    "password": "NUDGESCRIBE_PASSWORD",
    "api_code": "NUDGESCRIBE_API_CODE",
}
"""Setting to variable of the environment."""

NEEDED = ("api_key", "email", "password")


@frozen(kw_only=True)
class Found:
    """One setting.

    Attributes:
        value: a ``Secret`` if it is one.
        source: where it was found, for people.
    """

    value: str
    source: str


@frozen(kw_only=True)
class Settings:
    """What was found.

    Attributes:
        found: each setting that there is, by name.
        profile: the profile in use, if any.
        notes: what may explain why something is missing.
    """

    found: Mapping[str, Found]
    profile: Profile | None = None
    notes: tuple[str, ...] = ()

    def get(self, name: str) -> str | None:
        """The value of a setting, if there is one."""
        found = self.found.get(name)
        return None if found is None else found.value

    @property
    def base_url(self) -> str:
        """The address of the service."""
        return self.found["base_url"].value

    @property
    def workspace_id(self) -> str | None:
        """The workspace that commands work in, if none is given."""
        return self.get("workspace_id")

    @property
    def missing(self) -> list[str]:
        """What a client needs, and is not there."""
        return [name for name in NEEDED if name not in self.found]

    def need_credentials(self) -> tuple[str, str, str]:
        """API key, e-mail address and password.

        Raises:
            UsageError: one is missing; the sentence names it, and the hint what can be done.
        """
        if self.missing:
            names = ", ".join(VARIABLES[name] for name in self.missing)
            hint = f"Set {names} in the environment, or run `nudgescribe login`."
            raise UsageError(
                f"Settings are missing: {', '.join(self.missing)}.",
                hint=" ".join([hint, *self.notes, "`nudgescribe whoami` shows what was found."]),
            )
        return self.found["api_key"].value, self.found["email"].value, self.found["password"].value

    def need_destination(self) -> None:
        """Refuse an address that only a file in the working directory names, and to which the user never agreed.

        Such a file could name an address of its author, and any file of the user as a secret. What the keyring has was
        kept for this very address, and what was typed was typed for it; nothing leaves this machine for loopback.

        Raises:
            UsageError: the file has to be named.
        """
        profile, address = self.profile, self.base_url
        if profile is None or not profile.happened_upon or self.found["base_url"].source != profile.source:
            return
        agreed = all(self.found[name].source in {KEYRING, TYPED} for name in SECRETS if name in self.found)
        if agreed or address == DEFAULT_BASE_URL or is_loopback(urlsplit(address).hostname or ""):
            return
        raise UsageError(
            f"{profile.path}, which nobody has named, would have the credentials sent to {address}: nothing was sent.",
            hint="If that is right, name the file with --config or NUDGESCRIBE_CONFIG, or the address with "
            "NUDGESCRIBE_BASE_URL.",
        )


def resolve(
    *,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    profile: Profile | None,
    keyring: Callable[[str, str, str], str | None],
    notes: tuple[str, ...] = (),
) -> Settings:
    """The settings, by precedence.

    Args:
        flags: setting to what was given for it.
        environ: the environment.
        profile: the profile chosen, if any.
        keyring: asked with address, e-mail address and name of a secret that was found nowhere else.
        notes: for ``Settings.notes``.

    Raises:
        UsageError: a setting is empty or wrong, or the file of a secret cannot be used.
    """
    found: dict[str, Found] = {}
    for name, variable in VARIABLES.items():
        if (given := flags.get(name)) is not None:
            found[name] = Found(value=given, source=f"--{name.replace('_', '-')}")
        elif variable in environ:
            if not environ[variable].strip():
                raise UsageError(f"{variable} is set in the environment, and empty.", hint="Unset it, or fill it.")
            value = Secret(environ[variable]) if name in SECRETS else environ[variable]
            found[name] = Found(value=value, source=f"{variable} in the environment")
        elif profile is not None and (item := profile.get(name)) is not None:
            found[name] = item
    found.setdefault("base_url", Found(value=DEFAULT_BASE_URL, source="built in"))
    found["base_url"] = _checked(found["base_url"])
    email = found.get("email")
    # Loading a keyring takes time, and may ask the user to unlock it: whoever has no secret in it is spared that.
    if email is not None and not {"api_key", "password"} <= found.keys():
        for name in SECRETS:
            if name not in found and (kept := keyring(found["base_url"].value, email.value, name)):
                found[name] = Found(value=Secret(kept), source=KEYRING)
    return Settings(found=found, profile=profile, notes=notes)


def _checked(base_url: Found) -> Found:
    try:
        return Found(value=checked_base_url(base_url.value), source=base_url.source)
    except ConfigurationError as error:
        sentence = error.message.removeprefix("base_url ")
        raise UsageError(f"The base URL from {base_url.source} is wrong: it {sentence}") from None
