"""What the README and the documentation show is run, and not only read.

``documentation_blocks.py`` says how a page tells what is done with its blocks.
"""

from __future__ import annotations

import asyncio
import configparser
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import metadata
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import documentation_command
import documentation_troubles
import pytest
import yaml
from documentation_blocks import DOCS, PAGES, ROOT, Block, blocks, fits
from helpers import free_port

import nudgescribe_async
from nudgescribe_async import errors
from nudgescribe_async.sandbox import Sandbox

NOT_INHERITED = (
    "PYTHONASYNCIODEBUG",  # would say on stderr what took long, which is no matter of the examples
    "PYTHONDEVMODE",
    "PYTHONSAFEPATH",  # keeps the checkout off the path; no program runs there
)
RUNNER = Path(__file__).with_name("documentation_runner.py")
TUTORIAL = DOCS / "tutorial.md"
PATIENCE = 60.0
LANGUAGES = {"python", "sh", "console", "text", "toml", "json", "yaml", "ini", "csv", "diff"}
MAY_NOT_RUN = 12
"""So many blocks of all pages may say why they cannot be run."""


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a sandbox with example data: copying it is twenty times as fast as filling another one."""
    path = tmp_path_factory.mktemp("example") / "sandbox.db"

    async def fill() -> None:
        async with Sandbox(example=True, db=path):
            pass

    asyncio.run(fill())
    return path


@asynccontextmanager
async def example_sandbox(example: Path, folder: Path) -> AsyncIterator[Sandbox]:
    """A service of its own for each, with the same example data."""
    copy = folder / "service.db"
    shutil.copy(example, copy)
    async with Sandbox(example=True, db=copy) as sandbox:
        yield sandbox


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def environment(settings: dict[str, str]) -> dict[str, str]:
    """That of a reader, who has no settings yet, and runs programs of the folder that the shell is in."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in NOT_INHERITED and not name.startswith("NUDGESCRIBE_")
    }
    path = os.pathsep.join([os.fspath(Path(sys.executable).parent), inherited.get("PATH", "")])
    return inherited | {"PATH": path, "PYTHONWARNINGS": "error"} | settings


def settings_of(sandbox: Sandbox) -> dict[str, str]:
    """What the sandbox prints for a shell when it runs on its own."""
    return {
        "NUDGESCRIBE_API_KEY": sandbox.credentials.api_key,
        "NUDGESCRIBE_EMAIL": sandbox.credentials.email,
        "NUDGESCRIBE_PASSWORD": sandbox.credentials.password,
        "NUDGESCRIBE_BASE_URL": sandbox.url,
        "NUDGESCRIBE_WORKSPACE_ID": sandbox.workspace_id,
        "NUDGESCRIBE_PROFILE_KEY": sandbox.profile_key.hex(),
    }


def settings_of_nobody() -> list[str]:
    return ["NUDGESCRIBE_API_KEY", "NUDGESCRIBE_EMAIL", "NUDGESCRIBE_PASSWORD", "NUDGESCRIBE_BASE_URL"]


def ids_of(sandbox: Sandbox) -> dict[str, str]:
    return {
        "workspace_id": sandbox.example.workspace_id,
        "customer_group_id": sandbox.example.customer_groups["January 1997"],
        "campaign_id": sandbox.example.campaigns["Welcome back"],
    }


def filled_in(text: str, sandbox: Sandbox | None) -> str:
    if sandbox is None:
        return text
    for name, found in ids_of(sandbox).items():
        text = text.replace(f"your-{name.replace('_', '-')}", found)
    return text


# --- Python -----------------------------------------------------------------------------------------------------------


class Runner:
    """The process that runs the blocks of a page."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, block: Block, sandbox: Sandbox | None, folder: Path, files: Path) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {
            "name": block.name,
            "text": filled_in(block.text, sandbox),
            "first": filled_in(block.first, sandbox),
            "then": filled_in(block.then, sandbox),
            "is_program": block.is_program,
            "wants_client": re.search(r"\b(ns|credentials)\b", block.first + block.text + block.then) is not None,
            "ids": {} if sandbox is None else ids_of(sandbox),
            "environment": ({} if sandbox is None else settings_of(sandbox))
            | {"XDG_STATE_HOME": os.fspath(folder / "state")},
            "folder": os.fspath(folder),
            "files": os.fspath(files),
        }
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line, f"{block.name} ended the process"
        found: dict[str, Any] = json.loads(line)
        return found


NEEDS_SERVICE = re.compile(r"from_env|your-|environ|\bns\b|\bcredentials\b|base_url|\w+_id\b")


async def run_block(process: Runner, block: Block, example: Path, folder: Path, files: Path) -> dict[str, Any]:
    """In a service of its own, if it looks like needing one: filling that takes a tenth of a second."""
    if NEEDS_SERVICE.search(block.first + block.text + block.then) is None:
        return await process.run(block, None, folder, files)
    async with example_sandbox(example, files) as sandbox:
        return await process.run(block, sandbox, folder, files)


@asynccontextmanager
async def runner() -> AsyncIterator[Runner]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        os.fspath(RUNNER),
        env=environment({}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        yield Runner(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


PYTEST_INI = """\
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


async def failures_of_pytest(block: Block, folder: Path) -> list[str]:
    (folder / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
    (folder / "test_page.py").write_text(f"{block.first}\n\n{block.text}", encoding="utf-8")
    code, output, errors = await shell("python -m pytest -q -p no:cacheprovider", {}, folder)
    return [] if code == 0 and " passed" in output else [f"{block.name}:\n{output}{errors}"]


WITH_PYTHON = [page for page in PAGES if page != TUTORIAL and any(block.language == "python" for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
async def test_every_python_block_runs_as_it_stands(page: Path, example: Path, tmp_path: Path) -> None:
    printed, wrong = "", []
    files = tmp_path / "files"
    files.mkdir()
    async with runner() as process:
        for block in blocks(page):
            if block.title is not None:
                (files / block.title).write_text(block.text, encoding="utf-8")
            if block.is_module:
                assert block.title is not None
                uses = f"import {Path(block.title).stem}", f"from {Path(block.title).stem} import"
                assert any(use in later.text for use in uses for later in blocks(page)), f"{block.name}: not used"
            elif block.language == "python" and not block.not_run:
                folder = tmp_path / str(block.number)
                folder.mkdir()
                if block.is_for_pytest:
                    wrong += await failures_of_pytest(block, folder)
                    continue
                found = await run_block(process, block, example, folder, files)
                printed = found["output"]
                if found["errors"]:
                    wrong.append(f"{block.name} said:\n{found['errors']}")
                if found["not_called"]:
                    wrong.append(f"{block.name}: nobody calls {found['not_called']}")
                if block.is_program and not printed.strip():
                    wrong.append(f"{block.name} printed nothing")
            elif block.is_output and not fits(block.text, printed):
                wrong.append(f"{block.name}: printed was\n{printed}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["nobody calls", "it breaks", "a forgotten file"])
async def test_what_is_wrong_with_a_block_is_seen(name: str, tmp_path: Path) -> None:
    """The tests above can fail."""
    texts = {
        "nobody calls": ("async def shown():\n    pass\n", "not_called", "shown (line 1)"),
        "it breaks": ("await ns.campaigns.lst()\n", "errors", "AttributeError"),
        "a forgotten file": ("kept = open('new', 'w')\ndel kept\n", "errors", "ResourceWarning"),
    }
    text, where, what = texts[name]
    block = Block(page=DOCS / "index.md", number=1, line=1, language="python", title=None, text=text)
    async with runner() as process, Sandbox(example=True) as sandbox:
        found = await process.run(block, sandbox, tmp_path, tmp_path)
        assert what in str(found[where])


# --- The shell --------------------------------------------------------------------------------------------------------


def installs(command: list[str]) -> bool:
    """Whether a command of the shell installs or runs nox, which takes the network. What it names is looked at instead."""
    program = Path(command[0]).name if command else ""
    if program == "pip" and command[1] == "install":
        known = {*metadata("nudgescribe_async").get_all("Provides-Extra", [])}
        for extras in re.findall(r"\[(.*?)\]", " ".join(command)):
            assert {*extras.split(",")} <= known, f"{command} names an extra that there is not"
        return True
    if program == "pre-commit":
        return command[1:] == ["install"]
    if program == "nox":
        sessions = {*re.findall(r"^@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)}
        wanted = command[command.index("-s") + 1 :] if "-s" in command else []
        wanted = wanted[: wanted.index("--")] if "--" in wanted else wanted
        assert {*wanted} <= sessions, f"{command} names a session that there is not"
        return True
    return command[:3] == ["python3", "-m", "venv"] or command == [".", ".venv/bin/activate"]


def words(command: str) -> list[str]:
    """The words of a command; none of a line that is only a part of one."""
    try:
        return shlex.split(command, comments=True)
    except ValueError:
        return []


def commands(block: Block) -> list[str]:
    """What is left to run of a block for the shell, a command each."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    left = [" && ".join(part for part in line.split(" && ") if not installs(words(part))) for line in text.splitlines()]
    return [line.replace(".venv/bin/", "") for line in left if line.strip() and not line.startswith("#")]


def serves(command: str) -> bool:
    return "nudgescribe sandbox" in command or "nudgescribe_async.sandbox" in command


def on_free_port(command: str) -> str:
    return re.sub(r" --port \d+|$", " --port 0", command, count=1)


@asynccontextmanager
async def serving(command: str, folder: Path) -> AsyncIterator[str]:
    """The sandbox that a command starts, and what it prints at first."""
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command, comments=True),
        env=environment({}),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        said = ""
        while "Ctrl-C" not in said:
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            assert line, f"{command} ended: {said}{(await process.stderr.read()).decode()}"
            said += line
        yield said
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, errors.decode()) == (0, "")


async def shell(command: str, settings: dict[str, str], folder: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-eu",
        "-c",
        command,
        env=environment(settings),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


WITH_SHELL = [
    page for page in PAGES if page != TUTORIAL and any(block.language in ("sh", "console") for block in blocks(page))
]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SHELL, ids=named)
async def test_every_line_for_a_shell_runs_or_installs_what_there_is(page: Path, example: Path, tmp_path: Path) -> None:
    async with example_sandbox(example, tmp_path) as sandbox:
        settings = settings_of(sandbox) | {"HOME": os.fspath(tmp_path), "XDG_STATE_HOME": os.fspath(tmp_path)}
        printed = ""
        for block in blocks(page):
            if block.title is not None:
                (tmp_path / block.title).write_text(filled_in(block.text, sandbox), encoding="utf-8")
            if block.language in ("sh", "console") and not block.not_run:
                printed = ""
                lines = commands(block)
                for command in filter(serves, lines):
                    async with serving(on_free_port(command), tmp_path) as said:
                        assert "NUDGESCRIBE_BASE_URL=" in said
                script = "\n".join([*block.first.splitlines(), *(line for line in lines if not serves(line))])
                if script.strip():
                    code, printed, errors = await shell(filled_in(script, sandbox), settings, tmp_path)
                    assert code == 0, f"{block.name}: {script}\n{printed}{errors}"
            elif block.is_output and printed:
                assert fits(block.text, printed), f"{block.name}: printed was\n{printed}"


def test_the_two_commands_of_the_readme_stand_alone_on_their_lines() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox -s"
    assert [line for line in lines if line.startswith(start)] == [f"{start} demo", f"{start} tests"]


# --- The tutorial -----------------------------------------------------------------------------------------------------


def exports(said: str) -> dict[str, str]:
    """What a reader pastes into the other terminal."""
    return dict(line.removeprefix("export ").split("=", 1) for line in said.splitlines() if line.startswith("export "))


@pytest.mark.slow
async def test_the_tutorial_runs_from_top_to_bottom_as_it_is_printed(tmp_path: Path) -> None:
    port = str(free_port())
    settings, said, printed, steps = {"HOME": os.fspath(tmp_path), "XDG_STATE_HOME": os.fspath(tmp_path)}, "", "", 0
    async with AsyncExitStack() as stack:
        for block in blocks(TUTORIAL):
            assert not block.not_run, f"{block.name}: everything in a tutorial is run"
            text = block.text.replace("8765", port)
            if block.title is not None:
                (tmp_path / block.title).write_text(text, encoding="utf-8")
                assert block.title in TUTORIAL.read_text(encoding="utf-8").partition(block.text)[2], (
                    f"{block.name}: not used"
                )
            elif block.language == "sh":
                printed = ""
                for command in (each.replace("8765", port) for each in commands(block)):
                    if serves(command):
                        assert not said, "the service is started once"
                        said = printed = await stack.enter_async_context(serving(command, tmp_path))
                        settings |= exports(said)
                    else:
                        code, output, errors = await shell(command, settings, tmp_path)
                        assert code == 0, f"{block.name}: {command}\n{output}{errors}"
                        printed += output
                        steps += 1
            else:
                assert block.is_output, f"{block.name}: what is this?"
                # The page is narrower than what is printed.
                assert fits(text, printed) or fits(" ".join(text.split()), printed), (
                    f"{block.name}: printed was\n{printed}"
                )
    assert steps >= 8


# --- Everything else --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_other_block_is_what_it_says(page: Path) -> None:
    contract = (ROOT / "nudgescribe_async" / "contract" / "openapi.yaml").read_text(encoding="utf-8")
    for block in blocks(page):
        assert block.language in LANGUAGES, (
            f"{block.name}: a block says what it is, and {block.language!r} is not known"
        )
        match block.language:
            case "toml":
                tomllib.loads(block.text)
            case "json":
                json.loads(block.text)
            case "yaml":
                yaml.safe_load(block.text)
            case "ini":
                configparser.ConfigParser(interpolation=None, strict=False).read_string(block.text)
            case "diff":
                before = "\n".join(line[1:] for line in block.text.splitlines() if not line.startswith("+"))
                assert before in contract, f"{block.name}: the contract has no such lines"
            case "text":
                assert block.is_output or block.is_provoked or block.not_run, (
                    f"{block.name}: text is output, or says what it is"
                )
            case _:
                pass


def test_what_is_not_run_is_little_and_says_why() -> None:
    # Those that need Spark are run with it, by the session that has it.
    reasons = [
        f"{block.name}: {block.not_run}"
        for page in PAGES
        for block in blocks(page)
        if block.not_run and not (page.name.startswith("spark") and block.not_run.startswith("it needs Spark"))
    ]
    assert len(reasons) <= MAY_NOT_RUN, "\n".join(reasons)


# --- Troubleshooting --------------------------------------------------------------------------------------------------

TROUBLES = [block for block in blocks(DOCS / "troubleshooting.md") if block.is_provoked]


def test_every_public_error_has_an_entry() -> None:
    headings = re.findall(r"^### (\w+)$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    public = {name for name in nudgescribe_async.__all__ if name.endswith("Error") and hasattr(errors, name)}
    assert sorted(headings) == sorted(public)
    assert {block.heading for block in TROUBLES} == {*documentation_troubles.PROVOCATIONS}


@pytest.mark.parametrize("name", documentation_troubles.PROVOCATIONS)
async def test_the_text_of_an_error_is_quoted_as_it_appears(
    name: str, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in settings_of_nobody():
        monkeypatch.delenv(variable, raising=False)
    quoted = [block for block in TROUBLES if block.heading == name]
    assert len(quoted) == len(documentation_troubles.PROVOCATIONS[name])
    for number, block in enumerate(quoted):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with example_sandbox(example, folder) as sandbox:
            error = await documentation_troubles.provoked(sandbox, name, number, folder)
        assert type(error).__name__ == name
        assert fits(" ".join(block.text.split()), str(error)), f"{block.name}:\n{error}"


# --- The reference ----------------------------------------------------------------------------------------------------

PUBLIC = (
    "nudgescribe_async",
    *(
        f"nudgescribe_async.{name}"
        for name in ("blocking", "contract_doctor", "errors", "events", "otel", "sandbox", "testing", "transport")
    ),
)
# Spark is not there where all other tests are run; tests/spark looks at its one name.
ABSENT = () if importlib.util.find_spec("pyspark") is not None else ("nudgescribe_async.spark.",)


def directives() -> dict[str, str]:
    """What mkdocstrings is told to show, and on which page."""
    found: dict[str, str] = {}
    for page in DOCS.rglob("*.md"):
        for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert name not in found, f"{name} is on {found[name]} and on {page.name}"
            if not name.startswith(ABSENT):
                found[name] = page.name
    return found


def thing(name: str) -> object:
    """What a dotted name means."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        with suppress(ModuleNotFoundError):
            found: object = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                found = getattr(found, part)
            return found
    raise AssertionError(name)


def test_the_reference_shows_nothing_that_there_is_not() -> None:
    for name, page in directives().items():
        try:
            thing(name)
        except AttributeError as error:
            pytest.fail(f"{page}: {error}")


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """The names of a module that is shown as a whole are those that it exports."""
    shown = directives()
    wholes = [found for name in shown if isinstance(found := thing(name), ModuleType)]
    exported = {id(getattr(whole, name)) for whole in wholes for name in whole.__all__ if name != "__version__"}
    missing = [
        name
        for name in thing(module).__all__  # type: ignore[attr-defined]
        if f"{module}.{name}" not in shown and id(getattr(thing(module), name)) not in exported
    ]
    assert not missing


def test_every_operation_is_in_the_reference() -> None:
    contract = json.loads((ROOT / "nudgescribe_async" / "contract" / "openapi.json").read_text(encoding="utf-8"))
    operations = {
        each["operationId"] for path in contract["paths"].values() for each in path.values() if "operationId" in each
    }
    assert len(operations) == 22
    headings = {*re.findall(r"^## (\w+\.\w+)$", (DOCS / "operations.md").read_text(encoding="utf-8"), re.MULTILINE)}
    assert operations == headings
    client = nudgescribe_async.Nudgescribe(
        nudgescribe_async.Credentials(api_key="k", email="e@example.org", password="p")
    )
    for operation in operations:
        group, _, name = operation.partition(".")
        resource = type(getattr(client, group))
        assert callable(getattr(resource, name))
        assert f"{resource.__module__}.{resource.__qualname__}" in directives()


def test_the_page_of_the_command_has_what_its_help_has() -> None:
    pytest.importorskip("cyclopts")
    page = documentation_command.PAGE.read_text(encoding="utf-8").partition(documentation_command.MARKER)[2]
    again = "run `python tests/documentation_command.py`"
    assert documentation_command.facts(page) == documentation_command.facts(documentation_command.generated()), again


def test_the_page_of_the_command_lists_the_exit_codes() -> None:
    codes = importlib.import_module("nudgescribe_async.cli.exit_codes").ExitCode
    page = documentation_command.PAGE.read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == sorted(codes)


# --- The architecture -------------------------------------------------------------------------------------------------


def modules() -> set[str]:
    """Every module of the package itself, and every package in it."""
    package = ROOT / "nudgescribe_async"
    tops = {path.stem for path in package.glob("*.py") if path.stem != "__init__"}
    packages = {path.parent.relative_to(package).as_posix() for path in package.rglob("__init__.py")} - {"."}
    return tops | {name.replace("/", ".") for name in packages}


def test_the_architecture_names_every_module_and_package() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert not [name for name in modules() if f"`{name}`" not in page and f"`{name}/`" not in page]


def test_the_architecture_has_the_layers_of_the_lint() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    wanted = [{name.strip().removeprefix("nudgescribe_async.") for name in layer.split("|")} for layer in layers]
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \|", (DOCS / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [{*re.findall(r"\w+", row)} for row in rows] == wanted
    drawn = {*re.findall(r">([a-z_]+)</text>", (DOCS / "house.svg").read_text(encoding="utf-8"))}
    assert {*chain.from_iterable(wanted)} <= drawn


# --- Links ------------------------------------------------------------------------------------------------------------

LINKED = [*PAGES, *(page for name in ("CHANGELOG.md", "SECURITY.md") if (page := ROOT / name).exists())]


def prose(page: Path) -> str:
    """A page without its blocks, its comments, and what is set as code."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What can be linked to on a page, by the rules of Python-Markdown."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = unique = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        number = 0
        while unique in found:
            number += 1
            unique = f"{slug}_{number}"
        found.add(unique)
    return found | {*re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)}


@pytest.mark.parametrize("page", LINKED, ids=named)
def test_no_link_is_dead(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page))):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            assert path.startswith(("https://", "mailto:")), f"{target}: what is elsewhere is reached by https"
            continue
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            dead.append(target)
        elif DOCS in page.parents:
            assert found.is_relative_to(DOCS), f"{target} is not on the site"
    assert not dead


def test_the_links_of_a_page_are_found(tmp_path: Path) -> None:
    """The test above can fail."""
    page = tmp_path / "page.md"
    page.write_text("# A `b` c\n\n[good](#a-b-c) [bad](#a-c)\n", encoding="utf-8")
    assert anchors(page) == {"a-b-c"}
    with pytest.raises(AssertionError, match="a-c"):
        test_no_link_is_dead(page)


# --- The site ---------------------------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = re.findall(r"(?:- |: )(\S+\.md)\b", yaml.safe_dump(settings["nav"], width=1_000))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
