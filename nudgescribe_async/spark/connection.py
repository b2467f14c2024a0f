"""Which service, whose account, how fast: what a task needs to make its client, in whatever process it runs.

A ``Connection`` travels with the tasks. It holds the credentials only if they were given as options, and then in a wrap
whose ``repr`` keeps quiet; else each process takes them from its environment. Tokens do not travel: processes of one
machine share them through a file that only their user may read, so that many tasks log in once.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import field, frozen

from nudgescribe_async.bulk.files import is_private, own_folder
from nudgescribe_async.client import Nudgescribe
from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.shapes import Secret, hidden
from nudgescribe_async.spark.options import HIDDEN
from nudgescribe_async.spark.pace import Lane, PacedTransport
from nudgescribe_async.token_store import FileTokenStore

if TYPE_CHECKING:
    from nudgescribe_async.profiles import ProfileDecryptor
    from nudgescribe_async.spark.options import Given

__all__ = ["CONNECTION_OPTIONS", "Connection"]

_LOGIN: Final = (f"{HIDDEN}api_key", f"{HIDDEN}email", f"{HIDDEN}password")
"""The options that ``_Login`` is made of."""
CONNECTION_OPTIONS: Final = frozenset(
    {*_LOGIN, "secret_api_code", "base_url", "first_page", "token_folder", "profile_decryptor"}
)
"""The names of the options that a ``Connection`` is made of; allowed wherever there is one."""

_log = logging.getLogger("nudgescribe_async.spark")


@frozen(kw_only=True)
class _Login:
    """The credentials of a user, which pickle: ``Credentials`` refuse to, since nobody should by accident."""

    api_key: str = field(repr=hidden, converter=Secret)
    email: str = field(repr=hidden, converter=Secret)
    password: str = field(repr=hidden, converter=Secret)


@frozen(kw_only=True)
class Connection:
    """How to reach the service. It pickles, and its ``repr`` shows no secret.

    Attributes:
        login: the credentials; ``None`` to take them from the environment of the process.
        api_code: goes into the header ``x-auth-context``; ``None`` to take it from the environment, if it is there.
        base_url: the address; ``None`` to take it from the environment, else that of the service.
        first_page: from where pages are counted; ``None`` for what the contract says.
        token_folder: where the tokens are kept; ``None`` for a folder of the user's under that for temporary files.
        profile_decryptor: the name of what makes a ``ProfileDecryptor``, as in ``"package.module:function"``.
    """

    login: _Login | None = field(default=None, repr=hidden)
    api_code: str | None = field(default=None, repr=hidden)
    base_url: str | None = None
    first_page: int | None = None
    token_folder: str | None = None
    profile_decryptor: str | None = None

    @classmethod
    def of(cls, given: Given) -> Connection:
        """The connection that options describe.

        Raises:
            ConfigurationError: an option is wrong, or one of three is missing. No value of a secret one is in the text.
        """
        there = [name for name in _LOGIN if name in given]
        if there and len(there) < len(_LOGIN):
            missing = " and ".join(repr(name) for name in _LOGIN if name not in given)
            raise ConfigurationError(f"Credentials as options are three, or none. Missing: {missing}.")
        folder = given.text("token_folder")
        if folder is not None and not Path(folder).is_absolute():
            raise given.wrong("token_folder", f"must be an absolute path, of a folder on each machine; got {folder!r}")
        decryptor = given.text("profile_decryptor")
        if decryptor is not None and not all(decryptor.partition(":")[::2]):
            raise given.wrong("profile_decryptor", f"must be as in 'package.module:function'; got {decryptor!r}")
        return cls(
            login=_Login(**{name.removeprefix(HIDDEN): given.needed(name) for name in _LOGIN}) if there else None,
            api_code=given.text("secret_api_code"),
            base_url=given.text("base_url"),
            first_page=given.whole("first_page", least=0, most=1),
            token_folder=folder,
            profile_decryptor=decryptor,
        )

    def check(self) -> None:
        """See on the driver that a client can be made, as far as that does not depend on the machine.

        Raises:
            ConfigurationError: it cannot.
        """
        if self.login is not None:
            self.new_client(tokens_kept=False)

    def new_client(
        self,
        *,
        lane: Lane | None = None,
        concurrency: int = 64,
        tokens_kept: bool = True,
        decrypting: bool = False,
    ) -> Nudgescribe:
        """A client, for this process and one event loop.

        Args:
            lane: its share of a limit on requests.
            concurrency: the most requests in flight.
            tokens_kept: whether tokens are shared with the other processes of this machine.
            decrypting: whether it is to read profiles. Keys need not be where nobody does.

        Raises:
            ConfigurationError: the credentials are missing or wrong, or something else that the client was to be made of.
        """
        # Only what was given: the rest is for the environment, or the default.
        given: dict[str, Any] = {
            "credentials": self.login,
            "api_code": self.api_code,
            "base_url": self.base_url,
            "first_page": self.first_page,
            "profile_decryptor": self._decryptor() if decrypting else None,
        }
        if lane is not None:
            from nudgescribe_async.transport.aiohttp import AiohttpTransport  # noqa: PLC0415 - the client loads it, too

            given["transport"] = PacedTransport(AiohttpTransport(limit=0), lane)
        if tokens_kept:
            given["token_store"] = self._token_store()
        return Nudgescribe.from_env(
            concurrency=concurrency, **{name: value for name, value in given.items() if value is not None}
        )

    def _decryptor(self) -> ProfileDecryptor | None:
        if self.profile_decryptor is None:
            return None
        module, _, name = self.profile_decryptor.partition(":")
        try:
            made = getattr(import_module(module), name)()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"The option 'profile_decryptor': there is no {self.profile_decryptor} here: {error}. It must be importable "
                "on every executor."
            ) from None
        return cast("ProfileDecryptor", made)

    def _token_store(self) -> FileTokenStore | None:
        """A file for all processes of this user on this machine; without one, each process logs in by itself."""
        try:
            folder = _private_folder(self.token_folder)
            return FileTokenStore(folder / "spark-tokens.json")
        except (OSError, ConfigurationError) as error:
            if self.token_folder is not None:
                raise ConfigurationError(f"The option 'token_folder': {error}") from None
            _log.warning("Tokens are not shared between the tasks of this machine: %s", error)
            return None


def _private_folder(given: str | None) -> Path:
    """A folder that only the user of this process may look into."""
    folder = Path(given) if given is not None else own_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_private(folder):
        raise ConfigurationError(
            f"{folder} is not a folder of yours alone. Make it one (mode 0700), or name another as 'token_folder'."
        )
    return folder
