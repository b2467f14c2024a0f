"""A service whose answers have deliberately other shapes: a real server, on a real socket, in front of a sandbox."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from attrs import define, frozen

from nudgescribe_async.contract_doctor import ContractReport, examine
from nudgescribe_async.sandbox import Sandbox


@define
class Answer:
    """An answer of the sandbox, to be changed in place. What is JSON is in ``json``, everything else in ``data``."""

    status: int
    headers: dict[str, str]
    data: bytes
    json: Any = None


def _as_it_is(path: str, asked: dict[str, Any]) -> None:
    pass


def _unchanged(path: str, asked: dict[str, Any], answer: Answer) -> None:
    pass


@frozen
class Plant:
    """One other shape.

    Attributes:
        after: changes an answer, given the path and the JSON of the request.
        before: changes what is asked.
    """

    after: Callable[[str, dict[str, Any], Answer], None] = _unchanged
    before: Callable[[str, dict[str, Any]], None] = _as_it_is


@asynccontextmanager
async def reshaped(sandbox: Sandbox, plants: Iterable[Plant]) -> AsyncIterator[str]:
    """The address of a service that answers as the sandbox does, in other shapes."""
    plants = list(plants)

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        for plant in plants:
            plant.before(request.path, body)
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in {"host", "content-length"}
        }
        async with session.request(request.method, sandbox.url + request.path, json=body, headers=headers) as response:
            answer = Answer(response.status, {"Content-Type": response.content_type}, await response.read())
        if answer.headers["Content-Type"] == "application/json":
            answer.json = json.loads(answer.data)
        for plant in plants:
            plant.after(request.path, body, answer)
        data = answer.data if answer.json is None else json.dumps(answer.json).encode()
        return web.Response(status=answer.status, headers=answer.headers, body=data)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    async with AsyncExitStack() as exits:
        session = await exits.enter_async_context(aiohttp.ClientSession())
        await runner.setup()
        exits.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a sandbox with example data: copying it is faster than filling another one."""
    path = tmp_path_factory.mktemp("example") / "sandbox.db"

    async def fill() -> None:
        async with Sandbox(example=True, rows_per_file=100, db=path):
            pass

    # In a thread of its own, since the loop of a test may be running here.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(fill())).result()
    return path


@define
class Tool:
    """What the tests of the doctor have in hands."""

    example: Path
    folder: Path
    plant: type[Plant] = Plant

    async def examine(self, *plants: Plant, settings: dict[str, Any] | None = None, **options: Any) -> ContractReport:
        """The report on a sandbox whose answers are changed by these."""
        copy = shutil.copy(self.example, self.folder / f"{uuid4()}.db")
        async with (
            Sandbox(example=True, rows_per_file=100, db=copy, **(settings or {})) as sandbox,
            reshaped(sandbox, plants) as url,
        ):
            return await examine(sandbox.credentials, **{"base_url": url, "pause": 0.0, **options})


@pytest.fixture
def tool(example: Path, tmp_path: Path) -> Tool:
    return Tool(example, tmp_path)
