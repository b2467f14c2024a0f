"""``nudgescribe login``, ``logout`` and ``whoami``: credentials, and what is known of them."""

from __future__ import annotations

import getpass
import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

from attrs import define, evolve, field
from cyclopts import Parameter

from nudgescribe_async.cli import keyring
from nudgescribe_async.cli.account import TokenState
from nudgescribe_async.cli.context import Context, InContext, may_ask
from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.cli.output import Column
from nudgescribe_async.cli.profile_file import NAME, config_folder
from nudgescribe_async.cli.running import run
from nudgescribe_async.cli.settings import KEYRING, SECRETS, TYPED, VARIABLES, Found, Settings
from nudgescribe_async.errors import NudgescribeError
from nudgescribe_async.shapes import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async.endpoints.models import WorkspaceCampaigns

__all__ = ["login", "logout", "whoami"]

TITLES = {"email": "E-mail address", "api_key": "API key", "password": "Password", "api_code": "API code"}


def login(
    *,
    again: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="Ask for the secrets even if there are some, because they have changed.",
        ),
    ] = False,
    with_api_code: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Ask for the API code, too.")
    ] = False,
    context: InContext,
) -> None:
    """Check the credentials, and keep those that were typed in the keyring."""
    settings, typed = _ask(context, again=again, with_api_code=with_api_code)
    context.settings = settings
    state = run(_log_in(context))
    kept = _keep(settings, typed)
    email = settings.get("email")
    document = {"base_url": settings.base_url, "email": email, "token": state, "kept_in_keyring": sorted(kept)}
    lines = [f"The credentials of {email} work at {settings.base_url}."]
    if state is not None:
        lines.append(f"Token: {state.as_text()}.")
    if kept:
        lines.append(f"In the keyring now: {', '.join(sorted(kept))}.")
    context.output.document(document, "\n".join(lines))
    for note in _not_kept(typed, kept, settings):
        context.output.note(note)


def logout(*, context: InContext) -> None:
    """Forget the secrets in the keyring, and the token of the account."""
    settings = context.settings
    email = settings.get("email")
    if email is None:
        raise UsageError("There is no e-mail address, so nobody is logged in.", hint="`nudgescribe whoami` shows why.")
    token = run(_forget_token(context)) if not settings.missing else False
    forgotten = [name for name in SECRETS if keyring.forget(settings.base_url, email, name)]
    document = {"base_url": settings.base_url, "email": email, "forgotten": [*forgotten, *(["token"] if token else [])]}
    what = ", ".join(document["forgotten"]) or "nothing, for there was nothing"
    context.output.document(document, f"Forgotten of {email} at {settings.base_url}: {what}.")


def whoami(*, context: InContext) -> int:
    """Show the settings in use and where they come from, the workspaces of the account, and the age of the token."""
    settings = context.settings
    workspaces: list[WorkspaceCampaigns] = []
    state: TokenState | None = None
    failure: NudgescribeError | UsageError | None = None
    if not settings.missing:
        try:
            workspaces = run(_workspaces(context))
        except (NudgescribeError, UsageError) as error:
            failure = error
        state = run(_stored(context))
    document = {
        "profile": None if settings.profile is None else settings.profile.name,
        "file": None if context.file is None else context.file.path,
        "settings": {name: _told(name, settings.found.get(name)) for name in VARIABLES},
        "missing": settings.missing,
        "token": state,
        "workspaces": [
            {"workspace_id": item.workspace_id, "workspace_name": item.workspace_name, "campaigns": len(item.campaigns)}
            for item in workspaces
        ],
    }
    output = context.output
    if output.json:
        output.document(document, "")
    else:
        rows = [(name, *_cells(name, settings.found.get(name))) for name in VARIABLES]
        output.text(output.as_table([Column("setting"), Column("value", whole=True), Column("from")], rows))
        if state is not None:
            whose = "".join(f", {name} {value}" for name, value in state.claims.items())
            output.text(f"\nToken: {state.as_text()}{whose}")
        if workspaces:
            columns = [Column("workspace", whole=True), Column("name"), Column("campaigns", right=True)]
            cells = [(item.workspace_id, item.workspace_name, len(item.campaigns)) for item in workspaces]
            output.text("")
            output.text(output.as_table(columns, cells))
    settings.need_credentials()
    if failure is not None:
        raise failure
    return ExitCode.OK


# --- asking ----------------------------------------------------------------------------------------


@define
class _Typed:
    values: dict[str, str] = field(factory=dict[str, str], repr=False)


def _ask(context: Context, *, again: bool, with_api_code: bool) -> tuple[Settings, _Typed]:
    """The settings with what was typed for what they lack."""
    settings = context.settings
    wanted = [name for name in ("email", "api_key", "password") if name not in settings.found]
    if again:
        wanted = [*(["email"] if "email" in wanted else []), "api_key", "password"]
    if with_api_code and (again or "api_code" not in settings.found):
        wanted.append("api_code")
    typed = _Typed()
    if wanted and not may_ask():
        variables = ", ".join(VARIABLES[name] for name in wanted)
        raise UsageError(
            f"This asks for {', '.join(wanted)}, and there is no terminal to ask on.",
            hint=f"Set {variables} in the environment.",
        )
    if wanted:
        context.output.note(f"Logging in at {settings.base_url} (from {settings.found['base_url'].source}).")
    for name in wanted:
        typed.values[name] = _asked(context, name)
    found = {name: Found(value=value, source=TYPED) for name, value in typed.values.items()}
    return evolve(settings, found={**settings.found, **found}), typed


def _asked(context: Context, name: str) -> str:
    while True:
        try:
            if name in SECRETS:
                answer = getpass.getpass(f"{TITLES[name]}: ", sys.stderr)
            else:
                context.output.notes.print(f"{TITLES[name]}: ", end="")
                answer = sys.stdin.readline() or _end_of_file()
        except EOFError:
            raise UsageError("The terminal was closed before everything was typed.") from None
        if answer.strip():
            return Secret(answer.strip()) if name in SECRETS else answer.strip()


def _end_of_file() -> NoReturn:
    raise EOFError


# --- keeping ---------------------------------------------------------------------------------------


def _keep(settings: Settings, typed: _Typed) -> list[str]:
    """The names of those that the keyring has now, and that the next command looks for there."""
    email = settings.found["email"].value
    if not any(settings.found[name].source in {TYPED, KEYRING} for name in ("api_key", "password")):
        return []
    return [
        name
        for name, value in typed.values.items()
        if name in SECRETS and keyring.keep(settings.base_url, email, name, value)
    ]


def _not_kept(typed: _Typed, kept: list[str], settings: Settings) -> list[str]:
    """What the user has to do so that the next command finds what was typed."""
    notes: list[str] = []
    secrets = [name for name in typed.values if name in SECRETS and name not in kept]
    if secrets:
        variables = ", ".join(VARIABLES[name] for name in secrets)
        files = ", ".join(f"{name}_file" for name in secrets)
        notes.append(
            f"No keyring keeps {', '.join(secrets)}: set {variables} in the environment, or name files that you alone can "
            f"read in {NAME} ({files})."
        )
    if "email" in typed.values:
        file = config_folder(os.environ) / NAME if settings.profile is None else settings.profile.path
        name = "default" if settings.profile is None else settings.profile.name
        notes.append(
            f"For the next command set NUDGESCRIBE_EMAIL, or write into {file}:\n\n[profiles.{name}]\nbase_url = "
            f"{json.dumps(settings.base_url)}\nemail = {json.dumps(typed.values['email'])}\n"
        )
    return notes


# --- the service and the store ---------------------------------------------------------------------


async def _log_in(context: Context) -> TokenState | None:
    async with context.client() as ns:
        await ns.auth.authenticate()
    return await _stored(context)


async def _workspaces(context: Context) -> list[WorkspaceCampaigns]:
    async with context.client() as ns:
        return await ns.campaigns.list()


async def _stored(context: Context) -> TokenState | None:
    store = context.token_store
    tokens = None if store is None else await store.load(_fingerprint(context))
    return None if tokens is None else TokenState.of(tokens)


async def _forget_token(context: Context) -> bool:
    """Whether there was one."""
    store = context.token_store
    return store is not None and await store.forget(_fingerprint(context))


def _fingerprint(context: Context) -> str:
    from nudgescribe_async.auth import Credentials  # noqa: PLC0415 - slow to load

    api_key, email, password = context.settings.need_credentials()
    return Credentials(api_key=api_key, email=email, password=password).fingerprint(context.settings.base_url)


# --- telling ---------------------------------------------------------------------------------------


def _told(name: str, found: Found | None) -> Mapping[str, object] | None:
    if found is None:
        return None
    return {"value": None if name in SECRETS else found.value, "secret": name in SECRETS, "source": found.source}


def _cells(name: str, found: Found | None) -> tuple[str, str]:
    if found is None:
        return "", "nowhere"
    return "(set)" if name in SECRETS else found.value, found.source
