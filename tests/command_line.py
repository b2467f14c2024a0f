"""What the tests of the command have in hands: how one ended, and a service to drive it against."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define, field, frozen
from keyring.backend import KeyringBackend

if TYPE_CHECKING:
    from nudgescribe_async.sandbox import Sandbox

T = TypeVar("T")

COMMAND = (
    sys.executable,
    "-W",
    "error",
    "-c",
    "import sys; from nudgescribe_async.cli import main; sys.exit(main())",
)
"""What the script ``nudgescribe`` does."""


@frozen
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document of stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents of stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The error that ``--json`` has printed."""
        return json.loads(self.err.splitlines()[-1])["error"]


@define
class Service:
    """A sandbox with example data, in an event loop of its own."""

    sandbox: Sandbox
    loop: asyncio.AbstractEventLoop = field(repr=False)

    def call(self, work: Callable[[Sandbox], Coroutine[Any, Any, T]]) -> T:
        """Do something to the sandbox where it lives, such as ``service.call(lambda sb: sb.add_account())``."""
        waiting: Future[T] = asyncio.run_coroutine_threadsafe(work(self.sandbox), self.loop)
        return waiting.result(30)

    def inject(self, fault: Any, **options: Any) -> Any:
        """Let a fault happen; everything as with ``Sandbox.inject``."""

        async def do(sandbox: Sandbox) -> Any:
            return sandbox.inject(fault, **options)

        return self.call(do)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the sandbox prints."""
        owner = self.sandbox.credentials
        return {
            "NUDGESCRIBE_BASE_URL": self.sandbox.url,
            "NUDGESCRIBE_API_KEY": owner.api_key,
            "NUDGESCRIBE_EMAIL": owner.email,
            "NUDGESCRIBE_PASSWORD": owner.password,
            "NUDGESCRIBE_WORKSPACE_ID": self.sandbox.workspace_id,
        }

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no command may show."""
        owner = self.sandbox.credentials
        return owner.api_key, owner.password

    @property
    def groups(self) -> Mapping[str, str]:
        """Name to id, of the example."""
        return self.sandbox.example.customer_groups

    @property
    def campaigns(self) -> Mapping[str, str]:
        """Name to id, of the example."""
        return self.sandbox.example.campaigns


class MemoryKeyring(KeyringBackend):
    """A keyring that forgets when the test ends."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


Shell = Callable[..., Result]
Process = Callable[..., Result]


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Do something from another thread, as soon as it is time."""

    def wait() -> None:
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
