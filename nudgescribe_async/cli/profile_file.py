"""``nudgescribe.toml``: named profiles with everything but secrets.

::

    default_profile = "dev"

    [profiles.dev]
    base_url = "https://..."
    email = "..."
    workspace_id = "..."
    api_key_file = "secrets/api-key"      # relative to the file; only its owner may read it
    password_file = "secrets/password"

A secret in the file itself is refused: such files are sent around and end up in version control. A file that was found
in the working directory is used only if it belongs to whoever runs the command, and nobody else can write to it: it says
where the credentials are sent. Even then they are sent to no address of its own choice: a file that came with a folder
belongs to whoever unpacked it.
"""

from __future__ import annotations

import os
import stat
import tomllib
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, cast

from attrs import frozen

from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.cli.settings import SECRETS, Found
from nudgescribe_async.shapes import Secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Profile", "ProfileFile", "config_folder", "find_file", "home_folder"]

NAME = "nudgescribe.toml"
PLAIN = ("base_url", "email", "workspace_id")
FILES = tuple(f"{name}_file" for name in SECRETS)


@frozen(kw_only=True)
class Profile:
    """One profile of the file.

    Attributes:
        name: as in the file.
        path: the file.
        values: its settings, checked.
        happened_upon: whether the file was found in the working directory, and nobody has named it.
    """

    name: str
    path: Path
    values: Mapping[str, str]
    happened_upon: bool = False

    @property
    def source(self) -> str:
        """Where its settings come from, for people."""
        return f"profile {self.name} in {self.path}"

    def get(self, setting: str) -> Found | None:
        """A setting of the profile; that of a secret is read from the file that the profile names.

        Raises:
            UsageError: the file of a secret cannot be used.
        """
        if setting in self.values:
            return Found(value=self.values[setting], source=self.source)
        named = self.values.get(f"{setting}_file")
        if named is None:
            return None
        who = f"{setting}_file of {self.source}"
        try:
            secret_file = self.path.parent / Path(named).expanduser()
        except RuntimeError:  # a home that nobody knows
            raise UsageError(f"{named}, which {who} names, cannot be found.") from None
        return Found(
            value=_read_secret(secret_file, who),
            source=str(secret_file),
        )


@frozen(kw_only=True)
class ProfileFile:
    """The profiles of a file.

    Attributes:
        path: the file.
        default: the profile that is used if none is chosen: ``default_profile``, or the only one.
        profiles: by name.
    """

    path: Path
    default: str | None
    profiles: Mapping[str, Profile]

    @classmethod
    def read(cls, path: Path, *, guarded: bool) -> ProfileFile:
        """Read the file.

        Args:
            path: the file.
            guarded: it was found in the working directory: refuse one that somebody else could have written.

        Raises:
            UsageError: it cannot be read, or is wrong; the sentence names file and key.
        """
        try:
            with path.open("rb") as file:
                if guarded:
                    _check_owner(path, os.fstat(file.fileno()))
                content = tomllib.load(file)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            where = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8"
            raise UsageError(f"{path} is no TOML: {where}.") from None
        except RecursionError:
            raise UsageError(f"{path} is no file of profiles: it is nested too deeply.") from None
        return cls._checked(path, content, happened_upon=guarded)

    @classmethod
    def _checked(cls, path: Path, content: Mapping[str, object], *, happened_upon: bool) -> ProfileFile:
        _known(path, "", content, ("default_profile", "profiles"))
        tables = content.get("profiles", {})
        if not isinstance(tables, dict):
            raise UsageError(
                f"{path}: profiles must be tables.", hint="Write [profiles.dev], and the settings below it."
            )
        profiles: dict[str, Profile] = {}
        for name, table in cast("dict[str, object]", tables).items():
            place = f"profiles.{name}"
            if not isinstance(table, dict):
                raise UsageError(
                    f"{path}: {place} must be a table.", hint=f"Write [{place}], and the settings below it."
                )
            values = cast("dict[str, object]", table)
            _known(path, place, values, (*PLAIN, *FILES))
            for key, value in values.items():
                if not isinstance(value, str) or not value.strip():
                    kind = "is empty" if isinstance(value, str) else f"must be text, not {type(value).__name__}"
                    raise UsageError(f"{path}: {place}.{key} {kind}.")
            profiles[name] = Profile(
                name=name, path=path, values=cast("dict[str, str]", values), happened_upon=happened_upon
            )
        default = content.get("default_profile")
        if default is not None and (not isinstance(default, str) or default not in profiles):
            raise UsageError(
                f"{path}: default_profile is {default!r}, and there is no such profile.", hint=_choice(profiles)
            )
        only = next(iter(profiles)) if len(profiles) == 1 else None
        return cls(path=path, default=default or only, profiles=profiles)

    def choose(self, name: str | None, source: str) -> Profile | None:
        """The profile of this name, or the default.

        Args:
            name: what was asked for, if anything.
            source: who asked for it.

        Raises:
            UsageError: there is no such profile.
        """
        wanted = name if name is not None else self.default
        if wanted is None:
            return None
        if wanted not in self.profiles:
            raise UsageError(
                f"{self.path} has no profile {wanted!r}, which {source} names.", hint=_choice(self.profiles)
            )
        return self.profiles[wanted]


def config_folder(environ: Mapping[str, str]) -> Path:
    """The user's folder for settings: ``$XDG_CONFIG_HOME/nudgescribe``, else ``~/.config/nudgescribe``."""
    given = Path(environ.get("XDG_CONFIG_HOME", ""))
    return (given if given.is_absolute() else home_folder() / ".config") / "nudgescribe"


def home_folder() -> Path:
    """The home of the user; the root where there is none, as in a container whose user has no entry in /etc/passwd."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def find_file(environ: Mapping[str, str]) -> tuple[Path, bool] | None:
    """The file in use, if nobody named one: in the working directory, else in the user's folder.

    Returns:
        The path, and whether it is to be guarded.
    """
    with suppress(FileNotFoundError):  # the working directory was deleted
        here = Path.cwd() / NAME
        if here.is_file():
            return here, True
    home = config_folder(environ) / NAME
    return (home, False) if home.is_file() else None


def _known(path: Path, place: str, table: Mapping[str, object], keys: Collection[str]) -> None:
    for key in table:
        full = f"{place}.{key}" if place else key
        if key in keys:
            continue
        if key in SECRETS:
            raise UsageError(
                f"{path}: {full} is a secret, and does not belong into this file.",
                hint=f'Take it out, and write {key}_file = "..." with a file that you alone can read, set '
                f"NUDGESCRIBE_{key.upper()}, or run `nudgescribe login`.",
            )
        close = get_close_matches(key, keys, n=1)
        raise UsageError(
            f"{path}: there is no setting {full}.",
            hint=f"Perhaps {close[0]}?" if close else f"There are: {', '.join(keys)}.",
        )


def _choice(profiles: Collection[str]) -> str:
    return f"There are: {', '.join(profiles)}." if profiles else "There are none: write [profiles.dev], for one."


def _check_owner(path: Path, status: os.stat_result) -> None:
    if not hasattr(os, "getuid"):  # Windows has other rules
        return
    if status.st_uid not in {os.getuid(), 0} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"{path} could have been written by somebody else, and says where credentials are sent: it is not used.",
            hint=f"If it is yours: chown it, and chmod go-w {path}; or name it with --config.",
        )


def _read_secret(path: Path, who: str) -> Secret:
    try:
        with path.open(encoding="utf-8") as file:
            if hasattr(os, "getuid") and os.fstat(file.fileno()).st_mode & 0o077:
                raise UsageError(f"Others may read {path}, which {who} names.", hint=f"Run: chmod 600 {path}")
            secret = file.read(10_000).strip()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"{path}, which {who} names, cannot be read: {reason}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}, which {who} names, is no text in UTF-8.") from None
    except ValueError:  # a null character
        raise UsageError(f"{who} names no path.") from None
    if not secret:
        raise UsageError(f"{path}, which {who} names, is empty.")
    return Secret(secret)
