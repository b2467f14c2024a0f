"""What a command is given: its settings, a client, and its output."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from attrs import frozen
from cyclopts import Group, Parameter

from nudgescribe_async.cli import keyring
from nudgescribe_async.cli.failures import CommandError, UsageError
from nudgescribe_async.cli.profile_file import NAME, ProfileFile, config_folder, find_file, home_folder
from nudgescribe_async.cli.settings import resolve

if TYPE_CHECKING:
    from nudgescribe_async.cli.output import Output
    from nudgescribe_async.cli.profile_file import Profile
    from nudgescribe_async.cli.settings import Settings
    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.token_store import FileTokenStore

__all__ = ["Context", "GlobalOptions", "InContext", "Workspace", "Yes", "may_ask", "state_folder"]


@Parameter(name="*", group=Group("Options of every command", sort_key=100))
@frozen(kw_only=True)
class GlobalOptions:
    """The options that every command has."""

    profile: Annotated[
        str | None, Parameter(help="The profile of nudgescribe.toml to use. Default: NUDGESCRIBE_PROFILE.")
    ] = None
    config: Annotated[
        Path | None,
        Parameter(
            help="The file with the profiles. Default: NUDGESCRIBE_CONFIG, else nudgescribe.toml in the working "
            "directory, else the one in the folder for your settings."
        ),
    ] = None
    base_url: Annotated[
        str | None, Parameter(help="The address of the service. Default: NUDGESCRIBE_BASE_URL, else the profile's.")
    ] = None
    json: Annotated[
        bool, Parameter(negative=(), help="Print results as JSON, one document or one a line.", show_default=False)
    ] = False
    debug: Annotated[
        bool, Parameter(negative=(), help="Log to stderr, and show tracebacks of errors.", show_default=False)
    ] = False


class Context:
    """What a command is given.

    Attributes:
        options: the options that every command has.
        output: where results and notes go.
    """

    def __init__(self, options: GlobalOptions, output: Output) -> None:
        self.options = options
        self.output = output

    @cached_property
    def file(self) -> ProfileFile | None:
        """The file with the profiles, if there is one.

        Raises:
            UsageError: it is wrong, or the one that was named is not there.
        """
        named = self.options.config or os.environ.get("NUDGESCRIBE_CONFIG")
        if named:
            try:
                path = Path(named).expanduser()
            except RuntimeError:
                raise UsageError(f"{named} cannot be found: there is no such home folder.") from None
            return ProfileFile.read(path, guarded=False)
        found = find_file(os.environ)
        return None if found is None else ProfileFile.read(found[0], guarded=found[1])

    @cached_property
    def settings(self) -> Settings:
        """The settings, and where each was found. Nothing is read before they are asked for.

        Raises:
            UsageError: one of them is wrong.
        """
        profile, notes = self._profile()
        return resolve(
            flags={"base_url": self.options.base_url},
            environ=os.environ,
            profile=profile,
            keyring=keyring.look_up,
            notes=notes,
        )

    def _profile(self) -> tuple[Profile | None, tuple[str, ...]]:
        name, source = self.options.profile, "--profile"
        if name is None:
            name, source = os.environ.get("NUDGESCRIBE_PROFILE") or None, "NUDGESCRIBE_PROFILE"
        if self.file is None:
            if name is not None:
                raise UsageError(
                    f"There is no {NAME} with the profile {name!r}, which {source} names.",
                    hint=f"Looked for it in the working directory and {config_folder(os.environ)}; or name one with "
                    "--config.",
                )
            return None, ()
        profile = self.file.choose(name, source)
        if profile is None and self.file.profiles:
            names = ", ".join(self.file.profiles)
            return None, (f"No profile of {self.file.path} was chosen: --profile takes one of {names}.",)
        return profile, ()

    def workspace(self, given: str | None) -> str:
        """The workspace to work in: what ``--workspace`` says, else that of the settings.

        Raises:
            UsageError: there is none.
        """
        workspace = given or self.settings.workspace_id
        if not workspace:
            raise UsageError(
                "No workspace is given.",
                hint="Use --workspace, set NUDGESCRIBE_WORKSPACE_ID, or put workspace_id into the profile. "
                "`nudgescribe whoami` lists the workspaces.",
            )
        return workspace

    def client(self, **options: Any) -> Nudgescribe:
        """A client with the settings, to be used as ``async with context.client() as ns:``.

        Its tokens are kept in the user's folder for state, so that not every command logs in anew.

        Args:
            options: for ``Nudgescribe``; they win.

        Raises:
            UsageError: settings are missing or wrong.
            ConfigurationError: likewise.
        """
        api_key, email, password = self.settings.need_credentials()
        self.settings.need_destination()
        from nudgescribe_async.auth import Credentials  # noqa: PLC0415 - slow to load
        from nudgescribe_async.client import Nudgescribe  # noqa: PLC0415 - slow to load, too

        options.setdefault("base_url", self.settings.base_url)
        if (api_code := self.settings.get("api_code")) is not None:
            options.setdefault("api_code", api_code)
        options.setdefault("token_store", self.token_store)
        if "transport" not in options:
            from nudgescribe_async.transport.aiohttp import AiohttpTransport  # noqa: PLC0415 - slow to load, too

            options["transport"] = AiohttpTransport(limit=0, trust_env=True)  # proxies, as every command has them
        return Nudgescribe(Credentials(api_key=api_key, email=email, password=password), **options)

    @cached_property
    def token_store(self) -> FileTokenStore | None:
        """Where tokens are kept from command to command, of all accounts; ``None`` where that is not possible.

        Without it each command logs in anew, which is said once: a job in a container whose files cannot be written
        works all the same.
        """
        if find_spec("fcntl") is None:  # Windows; FileTokenStore needs its locks
            return None
        from nudgescribe_async.auth import FileTokenStore  # noqa: PLC0415 - slow to load

        try:
            folder = state_folder()
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}"
        else:
            if os.access(folder, os.W_OK):
                return FileTokenStore(folder / "tokens.json")
            reason = f"{folder} cannot be written"
        self.output.note(
            f"Note: the token is not kept for the next command ({reason}). XDG_STATE_HOME names another folder."
        )
        return None

    async def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is done that cannot be undone.

        The event loop goes on meanwhile, and Ctrl-C ends the question.

        Args:
            question: what will be done, with names and numbers, and without ``[y/N]``.
            yes: ``--yes`` was given: do not ask.

        Raises:
            UsageError: there is nobody to ask.
            CommandError: the answer was no.
        """
        if yes:
            return
        if not may_ask():
            raise UsageError(
                f"This asks first: {question} And there is no terminal to ask on.",
                hint="Nothing was done. Use --yes if that is what you want.",
            )
        self.output.notes.print(f"{question} [y/N] ", end="", soft_wrap=True, highlight=False, markup=False)
        answer = await _line()
        if answer.strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was done.")


def may_ask() -> bool:
    """Whether there is somebody at a terminal, who sees the question, too. Python has no stream that the shell closed."""
    streams: tuple[TextIO | None, ...] = (sys.stdin, sys.stderr)
    return all(stream is not None and stream.isatty() for stream in streams)


async def _line() -> str:
    """A line from the terminal, without standing in the way of anything else."""
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    try:
        loop.add_reader(sys.stdin.fileno(), there.set)
    except NotImplementedError:  # Windows, where the question has to stand in the way
        return sys.stdin.readline()
    try:
        await there.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()


def state_folder() -> Path:
    """The user's folder for what commands keep: ``$XDG_STATE_HOME/nudgescribe``, else ``~/.local/state/nudgescribe``.

    It is made if it is not there, for the user alone.
    """
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    folder = (given if given.is_absolute() else home_folder() / ".local" / "state") / "nudgescribe"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


InContext = Annotated[Context, Parameter(parse=False)]

Workspace = Annotated[
    str | None,
    Parameter(
        name="--workspace", help="The id of the workspace. Default: NUDGESCRIBE_WORKSPACE_ID, else the profile's."
    ),
]

Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Do not ask.", show_default=False)]
