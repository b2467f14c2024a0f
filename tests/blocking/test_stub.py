"""What type checkers and editors are told of the blocking client is what it is."""

from __future__ import annotations

import ast
import inspect
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blocking_service import client, running
from helpers import edit
from operations import checkout

from nudgescribe_async.contract.blocking_stub import STUB, blocking_stub
from nudgescribe_async.contract.check import ContractError
from nudgescribe_async.contract.generate import generate

if TYPE_CHECKING:
    from typing import assert_type

    from nudgescribe_async import Customer, CustomerGroup, DownloadLink, ExportReport, Nudgescribe, Page, blocking

ROOT = checkout()
in_checkout = pytest.mark.skipif(ROOT is None, reason="the tests were taken out of the checkout")
SOURCES = ("client.py", "resources", "endpoints", "blocking", "contract", "auth.py", "events.py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    assert ROOT is not None
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "nudgescribe_async"
    package.mkdir()
    for name in SOURCES:
        source = ROOT / "nudgescribe_async" / name
        if source.is_dir():
            shutil.copytree(source, package / name)
        else:
            shutil.copy(source, package)
    return tmp_path


# --- it is up to date ---------------------------------------------------------------------------------------------------


@in_checkout
def test_generating_again_changes_nothing() -> None:
    assert ROOT is not None
    assert blocking_stub(ROOT, generate(ROOT)) == {ROOT / STUB: (ROOT / STUB).read_text(encoding="utf-8")}


def _functions(stub: ast.ClassDef) -> Iterator[tuple[str, list[ast.FunctionDef]]]:
    functions = [node for node in stub.body if isinstance(node, ast.FunctionDef)]
    for name in dict.fromkeys(node.name for node in functions):
        yield name, [node for node in functions if node.name == name]


def _names(node: ast.FunctionDef) -> list[str]:
    every = [*node.args.args, *node.args.kwonlyargs]
    return [argument.arg for argument in every if argument.arg != "self"]


@in_checkout
def test_what_the_stub_says_is_what_there_is() -> None:
    assert ROOT is not None
    tree = ast.parse((ROOT / STUB).read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    told = {
        node.target.id: classes[node.annotation.id]
        for node in classes["Nudgescribe"].body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.annotation, ast.Name)
    }
    with running() as sandbox, client(sandbox) as ns:
        parts: dict[str, Any] = {name: part for name, part in vars(ns).items() if not name.startswith("_")}
        assert sorted(parts) == sorted(told)
        for name, part in parts.items():
            public = [method for method in dir(part) if not method.endswith("_")]
            assert sorted(public) == sorted(method for method, _ in _functions(told[name]))
            assert inspect.getdoc(type(part)) == ast.get_docstring(told[name])
            for method, nodes in _functions(told[name]):
                found = getattr(part, method)
                assert [*inspect.signature(found).parameters] == _names(nodes[-1])
                assert inspect.getdoc(found) == ast.get_docstring(nodes[0])
                assert "async for" not in (found.__doc__ or "")
                assert not inspect.iscoroutinefunction(found)
                assert found.__qualname__ == f"{type(part).__name__}.{method}"
        assert [*inspect.signature(type(ns)).parameters] == _names(
            dict(_functions(classes["Nudgescribe"]))["__init__"][0]
        )


@in_checkout
def test_a_change_of_the_sources_reaches_the_stub(copy: Path) -> None:
    before = blocking_stub(copy, {})[copy / STUB]
    edit(copy / "nudgescribe_async" / "resources" / "auth.py", "async def reauthenticate(", "async def renew(")
    after = blocking_stub(copy, {})[copy / STUB]
    assert "def reauthenticate(self) -> Tokens:" in before
    assert after == before.replace("def reauthenticate(", "def renew(")


@in_checkout
def test_what_has_just_been_generated_comes_before_what_is_written(copy: Path) -> None:
    path = copy / "nudgescribe_async" / "endpoints" / "campaigns.py"
    generated = {path: path.read_text(encoding="utf-8").replace("published_from:", "published_since:")}
    assert "published_since: datetime | None = None" in blocking_stub(copy, generated)[copy / STUB]


@in_checkout
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "async def reauthenticate(self) -> Tokens:",
            "async def reauthenticate(self) -> AsyncIterator[Tokens]:",
            r"resources\.auth: what is AsyncIterator\[Tokens\] without await\?",
        ),
        (
            "async def reauthenticate(self) -> Tokens:",
            "def reauthenticate(self) -> Tokens:",
            r"resources\.auth: what is reauthenticate without await\?",
        ),
        (
            "    from nudgescribe_async.endpoints.models import Tokens\n",
            "    from nudgescribe_async.auth import Tokens\n    from nudgescribe_async.shapes import Tokens\n",
            "",
        ),
        ("class Auth:", "class Tokens_:", "resources.auth has no class Auth"),
    ],
)
def test_what_it_does_not_know_is_an_error(copy: Path, old: str, new: str, problem: str) -> None:
    edit(copy / "nudgescribe_async" / "resources" / "auth.py", old, new)
    if not problem:
        edit(
            copy / "nudgescribe_async" / "client.py",
            "        api_code: str | None = None,\n        client_address",
            "        api_code: Tokens | None = None,\n        client_address",
        )
        problem = "Tokens would mean two things"
    with pytest.raises(ContractError, match=problem):
        blocking_stub(copy, {})


METHOD = "    async def reauthenticate(self) -> Tokens:"


@in_checkout
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (METHOD, METHOD.replace("Tokens", "collections.abc.AsyncIterator[Tokens]")),
        (METHOD, METHOD.replace("Tokens", "PageIterator[Tokens]")),
        (METHOD, METHOD.replace(" -> Tokens", "")),
        (METHOD, METHOD.replace("Tokens", '"Session"')),
        (METHOD, f"    @staticmethod\n{METHOD}"),
        (METHOD, f"    @property\n{METHOD}".replace("async ", "").replace("Tokens", "PageIterator[Tokens]")),
        (METHOD, f"    if TYPE_CHECKING:\n        limit: int\n\n{METHOD}"),
        (METHOD, f"    limit: int = 3\n\n{METHOD}"),
        (METHOD, f"    renew = authenticate\n\n{METHOD}"),
        (METHOD, METHOD.replace("(self)", "(self, stop: Event)")),
        ("class Auth:", "class Auth(base.Endpoints):"),
        ("        self.auth = Auth(", "        self.auth: Auth = Auth("),
        ("        self.auth = Auth(", "        self.more = auth.Auth("),
        ("    async def aclose(", "    async def ping(self) -> None: ...\n\n    async def aclose("),
    ],
)
def test_no_form_that_it_does_not_know_is_left_out(copy: Path, old: str, new: str) -> None:
    package = copy / "nudgescribe_async"
    (path,) = (path for path in (package / "client.py", package / "resources" / "auth.py") if old in path.read_text())
    edit(path, old, new)
    if "Event" in new:
        edit(path, "if TYPE_CHECKING:\n", "if TYPE_CHECKING:\n    from asyncio import Event\n")
    with pytest.raises(ContractError, match="without await"):
        blocking_stub(copy, {})


@in_checkout
def test_arguments_of_all_kinds_stay_what_they_are(copy: Path) -> None:
    path = copy / "nudgescribe_async" / "resources" / "auth.py"
    edit(
        path,
        METHOD,
        "    async def reauthenticate(\n"
        "        self, a: int, /, b: str = 'b', *rest: Path_, c: bool = LATER, d: float, **more: object\n"
        "    ) -> Tokens:",
    )
    edit(path, "if TYPE_CHECKING:\n", "if TYPE_CHECKING:\n    from pathlib import Path as Path_\n")
    text = blocking_stub(copy, {})[copy / STUB]
    assert "from pathlib import Path as Path_\n" in text
    assert 'self, a: int, /, b: str = "b", *rest: Path_, c: bool = ..., d: float, **more: object' in text


@in_checkout
def test_the_command_compares_and_writes_it(copy: Path) -> None:
    (copy / "docs").mkdir()
    command = [sys.executable, "-m", "nudgescribe_async.contract", "--root", str(copy)]
    (copy / STUB).unlink()
    checked, written, again = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        for more in (["--check"], [], ["--check"])
    )
    assert (checked.returncode, f"differs: {STUB.as_posix()}\n" in checked.stdout) == (1, True)
    assert (written.returncode, f"written: {STUB.as_posix()}\n" in written.stdout) == (0, True)
    assert again.returncode == 0


# --- for type checkers --------------------------------------------------------------------------------------------------

if TYPE_CHECKING:

    def what_types_it_has(ns: blocking.Nudgescribe, stop: threading.Event) -> None:
        """Read by mypy, with every ``type: ignore`` that is not needed an error; and by pyright."""
        assert_type(ns.customers.list("g", page=2), list[Customer])
        assert_type(ns.customer_groups.list("w"), list[CustomerGroup])
        assert_type(ns.customers.iter("g"), blocking.PageIterator[Customer])
        for customer in ns.customers.iter("g", concurrency=2):
            assert_type(customer, Customer)
        with ns.messages.iter("c") as rows:
            assert_type(next(rows), dict[str, str])
        for page in ns.customers.iter("g").pages():
            assert_type(page, Page[Customer])
        assert_type(ns.customers.iter("g").collect(), list[Customer])
        assert_type(ns.messages.fetch("c", 1), str)
        assert_type(ns.messages.fetch("c", 1, format="url"), DownloadLink)
        assert_type(ns.customers.export("g", "file.csv"), ExportReport)
        ns.reruns.run([], stop=stop)

        async def count(inner: Nudgescribe, group: str, *, most: int) -> int:
            return min(most, await inner.customers.count_pages(group))

        assert_type(ns.run(count, "g", most=3), int)
        with blocking.Nudgescribe.from_env() as another:
            assert_type(another, blocking.Nudgescribe)

        ns.customers.list(1)  # type: ignore[arg-type]
        ns.customers.list("g", pages=1)  # type: ignore[call-arg]
        ns.customers.lst("g")  # type: ignore[attr-defined]
        ns.run(count, 1, most=3)  # type: ignore[arg-type]
        blocking.Nudgescribe(concurrency=3)  # type: ignore[call-arg]
