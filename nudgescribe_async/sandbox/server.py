"""``Sandbox``: puts the parts together, listens, and takes everything down again."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self, cast

import attrs
from aiohttp import web

from nudgescribe_async.sandbox import accounts, examples
from nudgescribe_async.sandbox.api import Api
from nudgescribe_async.sandbox.backstage import Backstage, Running
from nudgescribe_async.sandbox.contract import Contract
from nudgescribe_async.sandbox.jobs import Jobs
from nudgescribe_async.sandbox.page import Page
from nudgescribe_async.sandbox.profiles import new_secret
from nudgescribe_async.sandbox.storage import Storage
from nudgescribe_async.sandbox.store import Store
from nudgescribe_async.sandbox.values import ExampleData, SandboxError, Settings

if TYPE_CHECKING:
    from types import TracebackType

_SHUTDOWN_SECONDS = 0.5  # how long requests that are under way get when the sandbox closes


class Sandbox(Backstage):
    """The Nudgescribe service, embedded, for tests.

    ::

        async with Sandbox() as sandbox:
            ...  # sandbox.url, sandbox.credentials

    Several may run at once, each with its own ports. Entering starts the listeners, leaving stops them, cancels
    requests that are under way, and keeps what is queued for the next sandbox on the same file. A sandbox can be
    entered once. All amounts of time are seconds.

    Args:
        db: a file that survives, or ``None`` to keep everything in memory.
        host: where to listen. Loopback, unless you say otherwise.
        port: the port of the API; 0 takes a free one.
        storage_port: the port of the storage, which is another origin; 0 takes a free one.
        edition: the edition of the reference to behave like: 1, 2 or 3.
        page_size: customers on a page.
        first_page: from where the pages of customers and of messages count, 0 or 1; ``None`` is as in the contract.
        rows_per_file: rows of a published file.
        latency: how long every answer is held back after the work is done.
        job_time: how long a job waits in the queue.
        queue_above: an upload with more rows than this is queued.
        max_upload_bytes: larger uploads are refused with 413.
        access_token_lifetime: how long access tokens are good.
        refresh_token_lifetime: how long refresh tokens are good.
        rotate_refresh_tokens: whether a renewal gives a new refresh token and uses the old one up.
        announce_expiry: whether answers with tokens say ``expires_in``.
        url_lifetime: how long signed URLs are good.
        identifier_field: the profile field that identifies a customer, in workspaces that have it.
        publish_quota: how many times each account may publish; 402 after that. ``None`` is no limit.
        state_while_running: the state of a campaign while the job of its rerun is queued (see ``job_time``), such as
            ``"Generating"``; it can be neither published nor rerun meanwhile. ``None``: it is at once in the state that
            it has after the job.
        example: whether to begin with example groups and campaigns, see ``Sandbox.example``.
        listen: ``False`` opens no socket: drive ``app`` and ``storage_app`` yourself.
        log_size: how many requests the log keeps.
        fault_seed: makes the choice of requests that a fault befalls by chance repeatable.
        page: whether a browser that opens ``url`` gets the sandbox's page.

    Attributes:
        app: the application of the API.
        storage_app: the application of the storage.

    Raises:
        TypeError: an option is of the wrong type.
        ValueError: an option cannot be right.
    """

    def __init__(
        self,
        *,
        db: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        storage_port: int = 0,
        edition: int = 3,
        page_size: int = 100,
        first_page: int | None = None,
        rows_per_file: int = 5_000,
        latency: float = 0.0,
        job_time: float = 0.0,
        queue_above: int = 1_000,
        max_upload_bytes: int = 2**30,
        access_token_lifetime: float = 14 * 86_400.0,
        refresh_token_lifetime: float = 15 * 86_400.0,
        rotate_refresh_tokens: bool = True,
        announce_expiry: bool = True,
        url_lifetime: float = 3_600.0,
        identifier_field: str = "external_id",
        publish_quota: int | None = None,
        state_while_running: str | None = None,
        example: bool = False,
        listen: bool = True,
        log_size: int = 10_000,
        fault_seed: int | None = None,
        page: bool = True,
    ) -> None:
        super().__init__()
        self._settings = Settings(
            edition=edition,
            page_size=page_size,
            first_page=first_page,
            rows_per_file=rows_per_file,
            latency=latency,
            job_time=job_time,
            queue_above=queue_above,
            max_upload_bytes=max_upload_bytes,
            access_token_lifetime=access_token_lifetime,
            refresh_token_lifetime=refresh_token_lifetime,
            rotate_refresh_tokens=rotate_refresh_tokens,
            announce_expiry=announce_expiry,
            url_lifetime=url_lifetime,
            identifier_field=identifier_field,
            publish_quota=publish_quota,
            state_while_running=state_while_running,
        )
        self._path = _path(db)
        if not isinstance(cast("object", host), str):
            raise TypeError(f"host must be a text, not {type(host).__name__}")
        if not host.strip():
            raise ValueError("host must not be empty: that would listen on every network.")
        for name, number in {"port": port, "storage_port": storage_port, "log_size": log_size}.items():
            _check_whole(name, number, most=None if name == "log_size" else 65_535)
        for name, flag in {"example": example, "listen": listen, "page": page}.items():
            if not isinstance(cast("object", flag), bool):
                raise TypeError(f"{name} must be True or False, not {type(flag).__name__}")
        if fault_seed is not None and (isinstance(fault_seed, bool) or not isinstance(cast("object", fault_seed), int)):
            raise TypeError(f"fault_seed must be a whole number, not {type(fault_seed).__name__}")
        self._host = host
        self._ports = port, storage_port
        self._wants_example = example
        self._listen = listen
        self._log_size = log_size
        self._fault_seed = fault_seed
        self._wants_page = page
        self._exits = AsyncExitStack()
        self._entered = False

    # --- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise SandboxError("A sandbox can be entered once: make another one.")
        self._entered = True
        async with AsyncExitStack() as exits:
            self._running = await self._start(exits)
            if self._wants_example:
                await self._load_example(self._running)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        await self._exits.aclose()

    async def _start(self, exits: AsyncExitStack) -> Running:
        store = Store(self._path, self._settings)
        exits.push_async_callback(store.close)
        await store.open()
        office = await store.write(lambda db: accounts.open_office(db, self._settings))
        storage_secret = await store.write(lambda db: db.meta("storage secret", new_secret))
        keys = await store.read(lambda db: {key.kid: key for key in map(db.key, office.accounts)})
        storage = Storage(store, storage_secret, self._settings.url_lifetime)
        jobs = Jobs(store)
        api = Api(
            contract=Contract.load(self._settings.first_page),
            store=store,
            office=office,
            jobs=jobs,
            storage=storage,
            settings=self._settings,
            log_size=self._log_size,
            fault_seed=self._fault_seed,
        )
        if self._wants_page:
            Page(api=api, store=store, office=office, settings=self._settings, host=self._host)
        jobs.start()
        exits.push_async_callback(jobs.stop)
        exits.push_async_callback(api.end)
        url = await self._serve(exits, api.app, self._ports[0])
        storage_url = await self._serve(exits, api.storage_app, self._ports[1])
        storage.origin = storage_url or storage.origin
        workspaces = await store.read(accounts.first_workspaces)
        first = next(iter(office.accounts))
        return Running(
            store=store,
            api=api,
            jobs=jobs,
            office=office,
            keys=keys,
            url=url or "http://api.sandbox.invalid",
            storage_url=storage.origin,
            credentials=accounts.credentials(office.accounts[first], workspaces[first]),
            page_url=f"{url}/" if url and self._wants_page else None,
        )

    async def _serve(self, exits: AsyncExitStack, app: web.Application, port: int) -> str | None:
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        exits.push_async_callback(runner.cleanup)
        if not self._listen:
            return None
        try:
            server = await asyncio.get_running_loop().create_server(cast("web.Server", runner.server), self._host, port)
        except (OSError, UnicodeError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or "it is no name of a host"
            raise SandboxError(f"The sandbox cannot listen on {self._host}:{port}: {reason}.") from error
        exits.push_async_callback(_stop_listening, server)
        host, actual = server.sockets[0].getsockname()[:2]
        return f"http://[{host}]:{actual}" if ":" in host else f"http://{host}:{actual}"

    async def _load_example(self, running: Running) -> None:
        stored = await running.store.read(lambda db: db.one("SELECT value FROM meta WHERE name = 'example'"))
        if stored is None:
            running.example = await examples.build(self)
            text = json.dumps(attrs.asdict(running.example)).encode()
            await running.store.write(lambda db: db.set_meta("example", text))
        else:
            running.example = ExampleData(**json.loads(stored["value"]))


async def _stop_listening(server: asyncio.Server) -> None:
    """Close it, but not in the turn of the event loop in which it accepts a connection.

    Before Python 3.12 that connection would be lost, and stay open: its client would wait for an answer for long.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
        await asyncio.sleep(0)
    server.close()


def _path(db: str | os.PathLike[str] | None) -> str | None:
    if db is None:
        return None
    path: object = os.fspath(db) if isinstance(db, os.PathLike) else db
    if not isinstance(path, str):
        raise TypeError(f"db must be the path of a file, or None to keep everything in memory, not {type(db).__name__}")
    if not path:
        raise ValueError("db must not be empty: None keeps everything in memory.")
    return path


def _check_whole(name: str, value: object, *, most: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if most is not None and not 0 <= value <= most:
        raise ValueError(f"{name} must be from 0 to {most}, not {value}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, not {value}")
