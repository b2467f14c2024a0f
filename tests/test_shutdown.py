"""Closing, in real processes that are told to stop, and in event loops that go down."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web
from helpers import CREDENTIALS, free_port

import nudgescribe_async
from nudgescribe_async import ClientClosedError, Nudgescribe

if sys.platform == "win32":
    pytest.skip("Windows has no signals like these, and no /dev/fd.", allow_module_level=True)

for needed in ("fastapi", "uvicorn"):
    pytest.importorskip(needed)

Ask = Callable[[str], "asyncio.Task[tuple[int, str] | None]"]
PACKAGE = Path(nudgescribe_async.__file__).parent
PAGE = Path(__file__).parent.parent / "docs" / "services.md"
PATIENCE = 20.0
DEBUG = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE")  # each process has its own
HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None
LOOPS = pytest.mark.parametrize(
    "loop", ["asyncio", pytest.param("uvloop", marks=pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not there"))]
)
UPLOAD = 64 * 2**20  # far more than sockets hold, so that it stays on its way

# What no stop may leave on stderr.
BAD = ("Task was destroyed", "never retrieved", "never awaited", "nclosed", "ResourceWarning", "Traceback", "Exception")
SLOW = re.compile(r"^Executing .* took .* seconds\n", re.MULTILINE)  # debug mode says so of a busy machine


class Upstream:
    """The service, as slow as it gets: what is asked for decides whether there is an answer, and when."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.release = asyncio.Event()
        self.resume_reading = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/customer/check":
            self.seen.add("upload")
            await self.resume_reading.wait()
            await request.read()
            await asyncio.Event().wait()
        if request.path == "/v1/auth":
            if request.method != "POST":
                self.seen.add("renewal")
                await asyncio.Event().wait()
            return web.json_response({"access_token": "token", "refresh_token": "refresh", "expires_in": 1_000})
        asked = await request.json()
        if request.path == "/v1/customer/pages":
            return web.json_response({"pages": 9})
        if request.path == "/v1/customer":
            page = f"page {asked['page']}"
            self.seen.add(f"{page} again" if page in self.seen else page)
            if asked["page"] > 1:
                await asyncio.Event().wait()
            profile: dict[str, Any] = {}
            return web.json_response([{"customer_id": "c", "customer_group_id": "g", "extended_profile": profile}])
        self.seen.add(asked["workspace_id"])
        if asked["workspace_id"] == "held":
            await self.release.wait()
        if asked["workspace_id"] == "hangs":
            await asyncio.Event().wait()
        return web.json_response([])

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self.seen.issuperset(names):
                await asyncio.sleep(0.005)

    async def until_nobody_is_connected(self) -> None:
        self.resume_reading.set()  # who does not read does not notice
        async with asyncio.timeout(PATIENCE):
            while self._runner.server is not None and self._runner.server.connections:
                await asyncio.sleep(0.005)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


# --- processes -------------------------------------------------------------------------------------

PREAMBLE = '''
import asyncio, json, os, socket, sys, time

from nudgescribe_async import Nudgescribe, NudgescribeError

UPSTREAM = int(os.environ["NUDGESCRIBE_BASE_URL"].rpartition(":")[2])
results = {}


def say(what):
    print(what, flush=True)


def left():
    """How many connections to the service, and handles of the file that is uploaded, are open."""
    connections = files = 0
    path = os.environ["FILE"]
    for name in os.listdir("/dev/fd"):
        try:
            descriptor = os.dup(int(name))
        except OSError:
            continue
        try:
            files += os.path.samestat(os.fstat(descriptor), os.stat(path))
            with socket.socket(fileno=descriptor) as opened:
                descriptor = None
                connections += opened.family == socket.AF_INET and opened.getpeername()[1] == UPSTREAM
        except OSError:
            pass
        finally:
            if descriptor is not None:
                os.close(descriptor)
    return {"connections": int(connections), "files": int(files)}


def client_tasks():
    """The tasks of the client and of the HTTP client under it."""
    ours = ("nudgescribe_async", "aiohttp/client", "aiohttp/connector")
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return [repr(task) for task in tasks if any(part in task.get_coro().cr_code.co_filename for part in ours)]


async def noted(name, work):
    try:
        await work
        results[name] = "answered"
    except NudgescribeError as error:
        results[name] = type(error).__name__
    except asyncio.CancelledError:
        results[name] = "cancelled"
        raise
'''

PLAIN = (
    PREAMBLE
    + """
import signal

from nudgescribe_async.clock import SystemClock

GRACE = float(os.environ["GRACE"])


class Clock(SystemClock):
    ahead = 0.0

    def monotonic(self):
        return super().monotonic() + self.ahead


async def iterate(ns):
    async for _ in ns.customers.iter("g"):
        pass


async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    clock = Clock()
    ns = Nudgescribe.from_env(clock=clock)
    try:
        await ns.customer_groups.list("quick")
        clock.ahead = 900.0  # the next call starts a renewal, and does not wait for it
        work = {
            "held": ns.customer_groups.list("held"),
            "hangs": ns.customer_groups.list("hangs"),
            "upload": ns.customers.check("w", "g", file=os.environ["FILE"]),
            "iterator": iterate(ns),
        }
        tasks = [asyncio.create_task(noted(name, each)) for name, each in work.items()]
        async for _ in ns.customers.iter("g"):
            say("half-way")
            if "LEAVE" in os.environ:
                await asyncio.to_thread(sys.stdin.readline)
                tasks.append(asyncio.create_task(noted("closing", ns.aclose(grace=GRACE))))
                await asyncio.sleep(0.05)
                raise SystemExit(3)
            await asyncio.Event().wait()
    finally:
        if "LEAVE" not in os.environ:
            say("closing")
            started = time.monotonic()
            try:
                await noted("closing", ns.aclose(grace=GRACE))
            finally:
                results["seconds"] = time.monotonic() - started
                results.update({"tasks": client_tasks()} | left())


def new_loop():
    if os.environ["LOOP"] == "asyncio":
        return asyncio.new_event_loop()
    import uvloop
    return uvloop.new_event_loop()


try:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
except KeyboardInterrupt:
    code = 130
except asyncio.CancelledError:
    code = 143
except SystemExit as end:
    code = end.code
say(json.dumps(left() | results))
sys.exit(code)
"""
)


class Child:
    """A Python process under way."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.output = ""

    async def says(self, what: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while what not in self.output:
                line = await self.process.stdout.readline()
                assert line, f"it ended: {self.output} {(await self.process.communicate())[1].decode()}"
                self.output += line.decode()

    async def ended(self) -> tuple[int, dict[str, Any], str]:
        """Its exit code, what it reported, and what it wrote to stderr."""
        async with asyncio.timeout(PATIENCE):
            output, errors = await self.process.communicate()
        code = self.process.returncode
        assert code is not None
        self.output += output.decode()
        text = SLOW.sub("", errors.decode())
        reports = [line for line in self.output.splitlines() if line.startswith("{")]
        assert reports, (self.output, text)
        return code, json.loads(reports[-1]), text


@asynccontextmanager
async def child(program: str, upstream: Upstream, file: Path, *flags: str, **settings: str) -> AsyncIterator[Child]:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name not in DEBUG} | {
        "NUDGESCRIBE_API_KEY": CREDENTIALS.api_key,
        "NUDGESCRIBE_EMAIL": CREDENTIALS.email,
        "NUDGESCRIBE_PASSWORD": CREDENTIALS.password,
        "NUDGESCRIBE_BASE_URL": upstream.url,
        "FILE": str(file),
        "PORT": str(port),
        "PYTHONASYNCIODEBUG": settings.pop("DEBUG", "0"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(flags or ("-X", "dev", "-W", "error")),
        "-c",
        program,
        env=environment | settings,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Child(process, port)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def together(*runs: Coroutine[Any, Any, None]) -> None:
    """Processes side by side: most of their time they wait."""
    async with asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(run)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "customers.csv"
    with path.open("wb") as opened:
        opened.truncate(UPLOAD)
    return path


ALL_UNDER_WAY = ("held", "hangs", "upload", "renewal", "page 2")


@pytest.mark.slow
async def test_a_program_that_is_interrupted_gives_its_calls_the_grace_and_leaves_nothing(file: Path) -> None:
    async def run(number: signal.Signals, code: int, loop: str, debug: str) -> None:
        async with Upstream() as upstream:
            async with child(PLAIN, upstream, file, GRACE="0.5", LOOP=loop, DEBUG=debug) as program:
                await upstream.until(*ALL_UNDER_WAY)
                await program.says("half-way")
                program.process.send_signal(number)
                await program.says("closing")
                upstream.release.set()
                ended, report, errors = await program.ended()
            await upstream.until_nobody_is_connected()
        assert errors == ""
        assert 0.4 < report.pop("seconds") < PATIENCE
        assert report == {
            "held": "answered",
            "hangs": "ClientClosedError",
            "upload": "ClientClosedError",
            "iterator": "ClientClosedError",
            "closing": "answered",
            "tasks": [],
            "connections": 0,
            "files": 0,
        }
        assert ended == code

    await together(
        run(signal.SIGINT, 130, "asyncio", "0"),
        run(signal.SIGTERM, 143, "asyncio", "1"),
        *([run(signal.SIGINT, 130, "uvloop", "0")] if HAS_UVLOOP else []),
    )


@LOOPS
async def test_a_second_ctrl_c_while_it_closes_cuts_the_grace_short_and_leaves_nothing(
    upstream: Upstream, file: Path, loop: str
) -> None:
    async with child(PLAIN, upstream, file, GRACE="1000", LOOP=loop, DEBUG="1") as program:
        # All pages of both iterators: a signal is raised in whatever runs just then, and here it is to find all waiting.
        await upstream.until(*ALL_UNDER_WAY, *(f"page {number} again" for number in range(2, 10)))
        await program.says("half-way")
        program.process.send_signal(signal.SIGINT)
        await program.says("closing")
        await asyncio.sleep(0.05)  # into the grace
        program.process.send_signal(signal.SIGINT)
        ended, report, errors = await program.ended()
    assert errors == ""
    assert report.pop("seconds") < PATIENCE
    assert report == dict.fromkeys(("held", "hangs", "upload", "iterator", "closing"), "cancelled") | {
        "tasks": [],
        "connections": 0,
        "files": 0,
    }
    assert ended == 130


async def test_a_program_that_ends_while_a_task_of_it_is_closing_the_client_leaves_nothing(
    upstream: Upstream, file: Path
) -> None:
    async with child(PLAIN, upstream, file, GRACE="1000", LOOP="asyncio", LEAVE="1") as program:
        await upstream.until(*ALL_UNDER_WAY)
        await program.says("half-way")
        assert program.process.stdin is not None
        program.process.stdin.write(b"\n")
        ended, report, errors = await program.ended()
    assert errors == ""
    assert report == dict.fromkeys(("held", "hangs", "upload", "iterator", "closing"), "cancelled") | {
        "connections": 0,
        "files": 0,
    }
    assert ended == 3


FORGOTTEN = (
    PREAMBLE
    + """
async def main():
    ns = Nudgescribe.from_env()
    calls = [asyncio.create_task(noted(name, ns.customer_groups.list(name))) for name in ("quick", "hangs")]
    await asyncio.gather(*calls)


try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
import gc
gc.collect()
say(json.dumps(results | left()))
"""
)


async def test_a_program_that_forgets_to_close_is_warned_and_nothing_worse(upstream: Upstream, file: Path) -> None:
    async with child(FORGOTTEN, upstream, file, "-X", "dev") as program:
        await upstream.until("quick", "hangs")
        program.process.send_signal(signal.SIGINT)
        ended, report, errors = await program.ended()
    assert ended == 0
    assert report == {"quick": "answered", "hangs": "cancelled", "connections": 0, "files": 0}
    assert "ResourceWarning: <Nudgescribe" in errors
    assert not [line for line in errors.splitlines() if "Traceback" in line or "Task" in line or "Exception" in line]


# --- services --------------------------------------------------------------------------------------

EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

REPORTING = (
    PREAMBLE
    + """
closing, entering = Nudgescribe.aclose, Nudgescribe.__aenter__
background = []


async def entered(ns):
    for name in os.environ.get("BACKGROUND", "").split():
        background.append(asyncio.create_task(noted(name, ns.customer_groups.list(name))))
    return await entering(ns)


async def reporting(ns, *, grace=1.0):
    say("closing")
    await closing(ns, grace=grace)
    say(json.dumps(results | left() | {"tasks": client_tasks()}))


def told(server):
    shutdown = server.shutdown

    async def telling(*arguments, **options):
        say("stopping")
        return await shutdown(*arguments, **options)

    server.shutdown = telling


Nudgescribe.aclose, Nudgescribe.__aenter__ = reporting, entered
"""
)


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def until_it_listens(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await listens(port):
            await asyncio.sleep(0.01)


async def asked(session: aiohttp.ClientSession, url: str) -> tuple[int, str] | None:
    """What a service answers; ``None`` if it hangs up."""
    try:
        async with session.get(url) as response:
            return response.status, await response.text()
    except aiohttp.ClientError:
        return None


@asynccontextmanager
async def service(program: str, upstream: Upstream, file: Path, **settings: str) -> AsyncIterator[tuple[Child, Ask]]:
    """A service under way, and a function that asks it for groups."""
    server = "uvicorn import Server" if "uvicorn" in program else "aiohttp.web import Application"
    text = f"{REPORTING}\nfrom {server} as server_of_this_program\n\ntold(server_of_this_program)\n{program}"
    async with child(text, upstream, file, **settings) as process, aiohttp.ClientSession() as session:

        def ask(workspace_id: str) -> asyncio.Task[tuple[int, str] | None]:
            return asyncio.create_task(asked(session, f"http://127.0.0.1:{process.port}/groups/{workspace_id}"))

        await until_it_listens(process.port)
        yield process, ask


def changed(program: str, pattern: str, by: str | Callable[[re.Match[str]], str]) -> str:
    found, count = re.subn(pattern, by, program)
    assert count == 1
    return found


def assert_nothing_bad(errors: str) -> None:
    assert not [line for line in errors.splitlines() if any(bad in line for bad in BAD)], errors


AIOHTTP, FASTAPI, CLOSE_FIRST, _ = EXAMPLES
GRACEFULLY = r"(shutdown_timeout|timeout_graceful_shutdown)=10(\.0)?"
CODES = [  # uvicorn dies of SIGTERM, once all is closed
    (AIOHTTP, signal.SIGTERM, 0),
    (AIOHTTP, signal.SIGINT, 0),
    (FASTAPI, signal.SIGTERM, -signal.SIGTERM),
    (FASTAPI, signal.SIGINT, 0),
]


@pytest.mark.slow
async def test_a_service_answers_what_can_be_answered_and_hangs_up_on_the_rest(file: Path) -> None:
    async def run(example: str, number: signal.Signals, code: int) -> None:
        program = changed(example, GRACEFULLY, r"\1=2")
        async with Upstream() as upstream, service(program, upstream, file) as (process, ask):
            assert await ask("quick") == (200, "[]")
            held, hangs = ask("held"), ask("hangs")
            await upstream.until("held", "hangs")
            process.process.send_signal(number)
            await process.says("stopping")
            upstream.release.set()
            assert await held == (200, "[]")
            assert await hangs in (None, (500, "Internal Server Error"))
            ended, report, errors = await process.ended()
            await upstream.until_nobody_is_connected()
        assert report == {"connections": 0, "files": 0, "tasks": []}
        if example is FASTAPI:  # uvicorn tells of the handler that it cancelled
            errors, _, cancelled = errors.partition("ERROR:    Exception in ASGI application\nTraceback")
            errors += cancelled.partition("asyncio.exceptions.CancelledError")[2]
        assert_nothing_bad(errors)
        assert ended == code

    await together(*(run(*each) for each in CODES))


@pytest.mark.slow
async def test_a_deadline_below_the_grace_of_the_service_leaves_nobody_without_an_answer(file: Path) -> None:
    async def run(example: str) -> None:
        program = changed(example, r"total=8\.0", "total=0.5")
        async with Upstream() as upstream, service(program, upstream, file, DEBUG="1") as (process, ask):
            hangs = ask("hangs")
            await upstream.until("hangs")
            process.process.send_signal(signal.SIGTERM)
            status, text = await hangs or (0, "")
            assert (status, "DeadlineExceededError" in text) == (502, True)
            _, report, errors = await process.ended()
        assert report == {"connections": 0, "files": 0, "tasks": []}
        assert_nothing_bad(errors)

    await together(run(AIOHTTP), run(FASTAPI))


@pytest.mark.slow
async def test_work_behind_the_handlers_of_a_service_has_the_grace_of_the_client(file: Path) -> None:
    async def run(example: str, number: signal.Signals, code: int) -> None:
        async with (
            Upstream() as upstream,
            service(example, upstream, file, BACKGROUND="held hangs") as (process, _),
        ):
            await upstream.until("held", "hangs")
            process.process.send_signal(number)
            await process.says("closing")
            upstream.release.set()
            ended, report, errors = await process.ended()
            await upstream.until_nobody_is_connected()
        expected = {"held": "answered", "hangs": "ClientClosedError"}
        assert report == expected | {"connections": 0, "files": 0, "tasks": []}
        assert_nothing_bad(errors)
        assert ended == code

    await together(*(run(*each) for each in CODES))


@pytest.mark.slow
async def test_an_aiohttp_service_that_closes_the_client_first_answers_every_handler(
    upstream: Upstream, file: Path
) -> None:
    program = changed(AIOHTTP, r"(?m)^    app\.cleanup_ctx.*\n", r"\g<0>    app.on_shutdown.append(close)\n")
    snippet = changed(CLOSE_FIRST, r"grace=5\.0", "grace=1.0")
    program = changed(program, r"(?m)^def create_app", lambda found: f"{snippet}\n\n{found[0]}")
    async with service(program, upstream, file) as (process, ask):
        held, hangs = ask("held"), ask("hangs")
        await upstream.until("held", "hangs")
        process.process.send_signal(signal.SIGTERM)
        await process.says("closing")
        upstream.release.set()
        assert await held == (200, "[]")
        assert await hangs == (502, "ClientClosedError")
        ended, report, errors = await process.ended()
    assert report == {"connections": 0, "files": 0, "tasks": []}
    assert_nothing_bad(errors)
    assert ended == 0


GONE = (
    PREAMBLE
    + """
ns = Nudgescribe.from_env()


async def first():
    await ns.customer_groups.list("quick")
    background = asyncio.create_task(noted("hangs", ns.customer_groups.list("hangs")))
    await asyncio.to_thread(sys.stdin.readline)
    return background


async def last():
    try:
        await ns.aclose(grace=0)
    finally:
        say(json.dumps(results | left() | {"tasks": client_tasks()}))


asyncio.run(first())
asyncio.run(last())
"""
)


async def test_a_client_whose_loop_is_gone_is_closed_from_the_next_with_its_connections(
    upstream: Upstream, file: Path
) -> None:
    async with child(GONE, upstream, file) as program:
        await upstream.until("hangs")
        assert program.process.stdin is not None
        program.process.stdin.write(b"\n")
        ended, report, errors = await program.ended()
    assert errors == ""
    assert report == {"hangs": "cancelled", "connections": 0, "files": 0, "tasks": []}
    assert ended == 0


# --- event loops -----------------------------------------------------------------------------------


def runs_in_package(task: asyncio.Task[Any]) -> bool:
    return any(Path(frame.f_code.co_filename).is_relative_to(PACKAGE) for frame in task.get_stack())


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def run_in(loop: str, scenario: Callable[[Upstream, Nudgescribe], Coroutine[Any, Any, None]]) -> None:
    """Run it, and look whether the server has lost every connection when it is over."""

    async def run() -> None:
        async with Upstream() as upstream:
            await scenario(upstream, Nudgescribe(CREDENTIALS, base_url=upstream.url))
            await upstream.until_nobody_is_connected()
            # What is left of the server's tasks goes with the loop; the client's may not be there.
            assert [task for task in asyncio.all_tasks() if runs_in_package(task)] == []

    with asyncio.Runner(loop_factory=lambda: new_loop(loop), debug=True) as runner:
        runner.run(run())


def connections_to(port: int) -> int:
    """How many connections to a port this process has open."""
    found = 0
    for each in Path("/dev/fd").iterdir():
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(each.name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(each.name))) as opened:
                found += opened.family == socket.AF_INET and opened.getpeername()[1] == port
    return found


async def under_way(upstream: Upstream, ns: Nudgescribe) -> asyncio.Task[object]:
    call: asyncio.Task[object] = asyncio.create_task(ns.customer_groups.list("hangs"))
    await upstream.until("hangs")
    return call


async def refused(ns: Nudgescribe) -> None:
    with pytest.raises(ClientClosedError):
        await ns.customer_groups.list("quick")


@LOOPS
def test_a_task_that_is_cancelled_twice_while_it_closes_still_closes(loop: str) -> None:
    async def scenario(upstream: Upstream, ns: Nudgescribe) -> None:
        call = await under_way(upstream, ns)
        closing = asyncio.create_task(ns.aclose(grace=1_000))
        await asyncio.sleep(0.01)
        assert not closing.done()
        closing.cancel()
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert call.done()
        assert connections_to(upstream.port) == 0
        with pytest.raises(ClientClosedError):
            await call
        assert repr(ns).endswith(" closed>")
        await refused(ns)
        await ns.aclose()

    run_in(loop, scenario)


@LOOPS
def test_a_timeout_around_closing_closes(loop: str) -> None:
    async def scenario(upstream: Upstream, ns: Nudgescribe) -> None:
        call = await under_way(upstream, ns)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await ns.aclose(grace=1_000)
        assert call.done()
        with pytest.raises(ClientClosedError):
            await call
        await upstream.until_nobody_is_connected()
        # The task goes on: nothing of the cancellation is left in it.
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run_in(loop, scenario)


@LOOPS
def test_a_task_group_that_fails_with_the_client_inside(loop: str) -> None:
    async def scenario(upstream: Upstream, ns: Nudgescribe) -> None:
        async def fail() -> None:
            await upstream.until("hangs", "page 2")
            raise ValueError("of the program")

        async def iterate() -> None:
            async for _ in ns.customers.iter("g"):
                await asyncio.sleep(0)

        with pytest.raises(ExceptionGroup) as failure:  # noqa: PT012
            async with ns, asyncio.TaskGroup() as group:
                calls = [group.create_task(ns.customer_groups.list("hangs")), group.create_task(iterate())]
                group.create_task(fail())
        assert [str(error) for error in failure.value.exceptions] == ["of the program"]
        assert all(call.cancelled() for call in calls)
        await refused(ns)

    run_in(loop, scenario)


@LOOPS
def test_a_task_group_that_fails_while_one_of_its_tasks_closes_the_client(loop: str) -> None:
    async def scenario(upstream: Upstream, ns: Nudgescribe) -> None:
        call = await under_way(upstream, ns)

        async def fail() -> None:
            await asyncio.sleep(0.02)
            raise ValueError("of the program")

        with pytest.raises(ExceptionGroup) as failure:  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                closing = group.create_task(ns.aclose(grace=1_000))
                group.create_task(fail())
        assert [str(error) for error in failure.value.exceptions] == ["of the program"]
        assert closing.cancelled()
        assert call.done()
        assert isinstance(call.exception(), ClientClosedError)
        await refused(ns)

    run_in(loop, scenario)


@LOOPS
def test_an_upload_that_is_cancelled_lets_go_of_its_connection_though_nobody_reads_it(loop: str, file: Path) -> None:
    async def scenario(upstream: Upstream, ns: Nudgescribe) -> None:
        async with ns:
            call = asyncio.create_task(ns.customers.check("w", "g", file=file))
            await upstream.until("upload")
            await asyncio.sleep(0.2)  # what sockets hold is full by then
            assert connections_to(upstream.port) == 1
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            async with asyncio.timeout(1.0):
                while connections_to(upstream.port):
                    await asyncio.sleep(0.01)

    run_in(loop, scenario)
