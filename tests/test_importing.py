"""What is loaded when: nothing before it is needed, and nothing on the event loop that could have been loaded before.

Each test is a program of its own, since what is loaded stays loaded.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import nudgescribe_async

# What no service needs that makes calls and reads pages.
ENGINES = ("nudgescribe_async.bulk", "nudgescribe_async.rerun", "sqlite3", "difflib", "pyarrow", "fsspec")
NEVER = ("jwt", "cryptography", "yaml", "nudgescribe_async.sandbox", "nudgescribe_async.testing", "aiohttp.web")
HTTP = ("aiohttp", "multidict", "yarl")

LOADED = """
def loaded(*names):
    return [module for module in sorted(sys.modules) if any(f"{module}.".startswith(f"{name}.") for name in names)]
"""


def output(program: str) -> str:
    """What a program writes. ``-P``: the installed package is tested, and not a checkout in the working directory."""
    command = [sys.executable, "-P", "-W", "error", "-c", f"import sys\n{LOADED}\n{program}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- importing ------------------------------------------------------------------------------------


def test_importing_the_package_loads_its_version_and_nothing_else_of_it() -> None:
    program = "import nudgescribe_async\nprint(loaded('nudgescribe_async', 'asyncio', 'attr', 'logging', 'ssl'))"
    assert output(program) == "['nudgescribe_async', 'nudgescribe_async.version']"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("errors", (*HTTP, *ENGINES, *NEVER, "asyncio", "ssl", "cattrs", "msgspec", "json")),
        ("endpoints.models", (*HTTP, *ENGINES, *NEVER, "asyncio", "ssl", "cattrs", "msgspec")),
        ("options", (*HTTP, *ENGINES, *NEVER, "asyncio", "ssl", "cattrs", "msgspec", "json")),
        ("transport", (*HTTP, *ENGINES, *NEVER, "asyncio", "ssl", "cattrs", "msgspec", "json")),
        ("paging", (*HTTP, *ENGINES, *NEVER, "cattrs", "msgspec")),
        ("client", (*HTTP, *ENGINES, *NEVER, "httpx", "opentelemetry", "pyreqwest", "pyspark")),
        ("blocking", (*HTTP, *ENGINES, *NEVER, "uvloop")),
        ("transport.httpx", ("aiohttp", *ENGINES, *NEVER, "cattrs", "msgspec")),
        ("transport.pyreqwest", ("aiohttp", *ENGINES, *NEVER, "cattrs", "msgspec")),
        ("transport.aiohttp", (*ENGINES, *NEVER, "cattrs", "msgspec")),
        ("sandbox", ("nudgescribe_async.client", "nudgescribe_async.session", "cattrs", "msgspec")),
    ],
)
def test_importing_a_module_loads_nothing_that_it_can_do_without(module: str, unwanted: tuple[str, ...]) -> None:
    assert output(f"import nudgescribe_async.{module}\nprint(loaded(*{unwanted}))") == "[]"


# --- building a client, and the first call --------------------------------------------------------

CLIENT = """
import asyncio
from nudgescribe_async import Credentials, NotFoundError, Nudgescribe

OWNER = Credentials(api_key="key-0001", email="owner@x.test", password="password-0001")
"""

SERVICE = """
import contextlib

ANSWERS = {
    "/v1/auth": (200, '{"access_token": "token-0001", "refresh_token": "token-0002", "expires_in": 1000}'),
    "/v1/customer/pages": (200, '{"pages": 2}'),
    "/v1/customer": (200, '[{"customer_id": "c", "customer_group_id": "g", "extended_profile": {"a": "b"}}]'),
    "/v1/cg": (404, '{"success": false, "message": "There is no such workspace"}'),
    "/v1/messages/pages": (200, '{"pages": 1}'),
    "/v1/messages/fetch": (200, "customer_id,message\\r\\nc,Hello\\r\\n"),
}

async def serve(reader, writer):
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            lines = head.lower().split(b"\\r\\n")
            await reader.readexactly(sum(int(line[15:]) for line in lines if line.startswith(b"content-length:")))
            status, body = ANSWERS[head.split()[1].decode()]
            kind = "application/json" if body[0] in "[{" else "text/csv"
            about = f"Content-Type: {kind}\\r\\nContent-Length: {len(body)}"
            writer.write(f"HTTP/1.1 {status} .\\r\\n{about}\\r\\n\\r\\n{body}".encode())
    writer.close()
"""


def test_building_a_client_loads_no_engine() -> None:
    program = f"{CLIENT}\nNudgescribe(OWNER)\nprint('aiohttp' in sys.modules, loaded(*{ENGINES + NEVER}))"
    assert output(program) == "True []"


def test_a_client_with_a_transport_of_its_own_loads_no_http_library() -> None:
    program = f"""{CLIENT}
class Nowhere:
    async def send(self, request): ...
    async def aclose(self): ...

Nudgescribe(OWNER, transport=Nowhere())
print(loaded(*{HTTP + ENGINES + NEVER}))"""
    assert output(program) == "[]"


def test_a_call_loads_nothing_that_building_the_client_has_not_loaded() -> None:
    program = f"""{CLIENT}{SERVICE}
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    ns = Nudgescribe(OWNER, base_url=f"http://127.0.0.1:{{server.sockets[0].getsockname()[1]}}")
    before = set(sys.modules)
    seen = {{}}

    def look(when):
        seen[when] = sorted(set(sys.modules) - before)
        before.update(sys.modules)

    assert (await ns.customers.list("g"))[0].customer_id == "c"
    look("a call")
    assert len([customer async for customer in ns.customers.iter("g")]) == 2
    look("an iteration")
    assert [row async for row in ns.messages.iter("m")] == [{{"customer_id": "c", "message": "Hello"}}]
    look("messages")
    try:
        await ns.customer_groups.list("w")
    except NotFoundError as error:
        assert "no such workspace" in str(error), error
    look("an error")
    await ns.aclose()
    look("closing")
    server.close()
    print({{when: modules for when, modules in seen.items() if modules}})

asyncio.run(main())"""
    assert output(program) == "{}"


# --- engines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "engine"),
    [
        ("ns.customers.export('g', 'file', 'no such format')", "bulk.export.job"),
        ("ns.customers.upload('w', 'g', b'', rows_per_chunk=0)", "bulk.upload.job"),
        ("ns.messages.download('m', 'folder', concurrency=0)", "bulk.download.job"),
        ("ns.reruns.run([])", "rerun.job"),
        ("ns.reruns.wait('m', -1)", "rerun.wait"),
    ],
)
def test_a_job_loads_its_engine_off_the_event_loop(call: str, engine: str) -> None:
    program = f"""{CLIENT}
import importlib.abc, threading

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        found.append((name, threading.get_ident()))

async def main():
    async with Nudgescribe(OWNER) as ns:
        sys.meta_path.insert(0, Watch())
        try:
            await {call}
        except ValueError:
            ours = [(name, thread) for name, thread in found if name.startswith("nudgescribe_async.")]
            print("nudgescribe_async.{engine}" in dict(ours), [name for name, thread in ours if thread == HERE])

found = []
HERE = threading.get_ident()
asyncio.run(main())"""
    assert output(program) == "True []"


async def test_an_engine_that_is_loaded_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    from nudgescribe_async import engines

    def refuse(*_: object) -> None:
        raise AssertionError

    importlib.import_module("nudgescribe_async.bulk.upload.job")
    monkeypatch.setattr(engines, "in_own_thread", refuse)
    await engines.load_engine("nudgescribe_async.bulk.upload.job")


def test_callers_wait_for_an_engine_that_is_being_loaded_and_the_event_loop_does_not() -> None:
    program = f"""{CLIENT}
import importlib.abc, threading
from nudgescribe_async.engines import load_engine

NAME = "nudgescribe_async.bulk.upload.job"

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "nudgescribe_async.bulk.upload.judge":  # in the middle of it
            began.set()
            go_on.wait(5)  # a limit, lest the test hang where it should fail

async def load():
    await load_engine(NAME)
    return hasattr(sys.modules[NAME], "upload")

async def main():
    sys.meta_path.insert(0, Slow())
    first = asyncio.create_task(load())
    await asyncio.to_thread(began.wait, 5)
    second = asyncio.create_task(load())
    cancelled = asyncio.create_task(load())
    for _ in range(10):
        await asyncio.sleep(0)
    cancelled.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    print(first.done(), second.done(), cancelled.done())
    go_on.set()
    print(await first, await second)
    await asyncio.wait([cancelled])
    print(cancelled.cancelled())

began, go_on = threading.Event(), threading.Event()
asyncio.run(main())"""
    assert output(program) == "False False False\nTrue True\nTrue"


# --- the face -------------------------------------------------------------------------------------


def test_each_name_is_that_of_the_module_that_it_is_said_to_come_from() -> None:
    homes = nudgescribe_async._HOMES
    for home, names in homes.items():
        module = importlib.import_module(f"nudgescribe_async.{home}")
        for name in names:
            assert name in module.__all__
            assert getattr(nudgescribe_async, name) is getattr(module, name)
    exported = [name for names in homes.values() for name in names]
    assert sorted([*exported, "__version__"]) == sorted(nudgescribe_async.__all__)


def test_type_checkers_and_the_interpreter_are_told_the_same() -> None:
    tree = ast.parse(Path(nudgescribe_async.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {
        (node.module or "").removeprefix("nudgescribe_async."): tuple(alias.name for alias in node.names)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert told == nudgescribe_async._HOMES


def test_the_star_brings_all_that_is_said_and_nothing_else() -> None:
    program = (
        "before = set(globals())\nfrom nudgescribe_async import *\nprint(sorted(set(globals()) - before - {'before'}))"
    )
    assert output(program) == str(sorted(nudgescribe_async.__all__))


def test_dir_shows_the_names_before_they_are_loaded_and_no_machinery() -> None:
    program = "import nudgescribe_async\nprint(dir(nudgescribe_async))\nprint(len(loaded('nudgescribe_async')))"
    shown, count = output(program).splitlines()
    names = ast.literal_eval(shown)
    assert count == "2"
    assert set(nudgescribe_async.__all__) < set(names)
    assert {"errors", "events", "__doc__", "__path__"} < set(names)
    assert not [name for name in names if name.startswith("_") and not name.startswith("__")]
    assert names == sorted(names)
    assert not {"TYPE_CHECKING", "importlib"} & set(names)


def test_what_a_test_puts_in_the_place_of_a_name_does_not_stay() -> None:
    program = """
import nudgescribe_async as face
from unittest import mock
with mock.patch("nudgescribe_async.options.Timeout"):
    print(isinstance(face.Timeout, mock.Mock))
with mock.patch("nudgescribe_async.Priority"):
    print(isinstance(face.Priority, mock.Mock))
print(face.Timeout.__name__, face.Priority.__name__, face.Timeout is face.Timeout)
"""
    assert output(program).split() == ["True", "True", "Timeout", "Priority", "True"]


async def test_an_engine_is_loaded_though_all_threads_of_the_event_loop_are_busy() -> None:
    program = f"""{CLIENT}
from nudgescribe_async.engines import load_engine
import threading

async def main():
    free = threading.Event()
    loop = asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, free.wait) for _ in range(40)]
    await load_engine("nudgescribe_async.bulk.upload.job")
    free.set()
    await asyncio.gather(*busy)
    await loop.shutdown_default_executor()
    await load_engine("nudgescribe_async.bulk.download.job")
    print(loaded("nudgescribe_async.bulk.upload.job", "nudgescribe_async.bulk.download.job"))

asyncio.run(main())
"""
    assert output(program) == "['nudgescribe_async.bulk.download.job', 'nudgescribe_async.bulk.upload.job']"


def test_the_modules_are_attributes_whether_or_not_they_were_imported() -> None:
    program = """
import nudgescribe_async as face
print(face.errors.NotFoundError.__name__, face.endpoints.models.Customer.__name__, face.events.Event is not None)
print(face.bulk.export.ExportReport.__name__, face.bulk.upload.UploadReport.__name__)"""
    assert output(program) == "NotFoundError Customer True\nExportReport UploadReport"


def test_a_name_that_is_not_there_is_an_attribute_error_like_any_other() -> None:
    with pytest.raises(AttributeError, match=r"^module 'nudgescribe_async' has no attribute 'Nudgescrib'$") as caught:
        nudgescribe_async.Nudgescrib  # type: ignore[attr-defined]  # noqa: B018 - pyright: ignore
    assert (caught.value.name, caught.value.obj) == ("Nudgescrib", nudgescribe_async)
    assert not hasattr(nudgescribe_async, "_HOME")
    with pytest.raises(ImportError, match="cannot import name 'Nudgescrib'"):
        from nudgescribe_async import Nudgescrib  # type: ignore[attr-defined]  # noqa: F401


def test_a_mistyped_name_is_put_right_by_the_interpreter() -> None:
    program = "import nudgescribe_async\nnudgescribe_async.Nudgescrib"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert "Did you mean: 'Nudgescribe'?" in done.stderr


def test_values_are_pickled_with_the_module_that_they_come_from() -> None:
    program = """
import pickle, nudgescribe_async as face
plan = face.RerunPlan((face.RerunRequest("c", "g"),))
print(type(plan).__module__, face.ExportReport.__module__, face.UploadReport.__module__, face.DownloadReport.__module__)
print(pickle.loads(pickle.dumps(plan)) == plan)"""
    modules, same = output(program).splitlines()
    assert modules.split() == [
        "nudgescribe_async.rerun.plan",
        "nudgescribe_async.bulk.export.report",
        "nudgescribe_async.bulk.upload.report",
        "nudgescribe_async.bulk.download.report",
    ]
    assert same == "True"
