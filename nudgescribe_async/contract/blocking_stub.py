"""From the async client to what type checkers and editors are told of the blocking one: ``blocking/client.pyi``.

The sources are read and not imported, since some of them may just have been generated. Whatever they have of which this
does not know what it would be without ``await`` is an error.
"""

from __future__ import annotations

import ast
import builtins
from pathlib import Path
from typing import TypeAlias

from attrs import define, field

from nudgescribe_async.contract.check import ContractError
from nudgescribe_async.contract.generate import COMMAND, formatted

__all__ = ["STUB", "blocking_stub"]

STUB = Path("nudgescribe_async", "blocking", "client.pyi")

_HEADER = f"""# Generated from nudgescribe_async/client.py, resources/ and endpoints/ by `{COMMAND}`: do not edit.
# ruff: noqa: A002, PYI021 - the API calls things format, and editors show docstrings
"""
_CLIENT, _BLOCKING = "nudgescribe_async.client", "nudgescribe_async.blocking.client"
_TWINS = {
    "Facade": "from nudgescribe_async.blocking.facade import Facade",
    "PageIterator": "from nudgescribe_async.blocking.pages import PageIterator",
    "threading": "import threading",
}
"""What is imported from elsewhere than in the sources."""
_AWAITED = ("Async", "Awaitable", "Coroutine", "asyncio")
"""How the names of types begin that mean nothing without ``await``."""

_DECORATORS = ("overload", "deprecated", "classmethod")
"""Those that leave a method what it is; the last one for ``from_env``."""
_CLIENTS_OWN = {"__init__", "from_env", "aclose"}
"""The public methods of the async client: ``close`` and the rest of ``Facade`` are written by hand."""

_Method: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@define
class _Module:
    """A module of the package."""

    name: str
    tree: ast.Module
    origins: dict[str, str] = field(init=False)
    """By name, the statement that imports it."""

    def __attrs_post_init__(self) -> None:
        self.origins = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                self.origins |= {item.asname or item.name: f"from {node.module} {_import(item)}" for item in node.names}
            elif isinstance(node, ast.Import):
                self.origins |= {item.asname or item.name.partition(".")[0]: _import(item) for item in node.names}

    def class_named(self, name: str) -> ast.ClassDef:
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node
        raise ContractError(f"{self.name} has no class {name}, of which the blocking client has to know.")


@define
class _Writer:
    """Collects what the stub is made of.

    Attributes:
        root: the checkout.
        generated: files that were generated, and are not written yet.
        imports: by name, the statement for it.
    """

    root: Path
    generated: dict[Path, str]
    imports: dict[str, str] = field(factory=dict[str, str])

    def module(self, name: str) -> _Module:
        path = self.root.joinpath(*name.split(".")).with_suffix(".py")
        text = self.generated.get(path)
        return _Module(name, ast.parse(text if text is not None else path.read_text(encoding="utf-8")))

    def home(self, module: _Module, name: str) -> _Module:
        """The module that a class comes from."""
        origin = module.origins.get(name)
        return module if origin is None else self.module(origin.split()[1])

    def resource(self, module: _Module, name: str) -> ast.ClassDef | None:
        """The twin of a class; ``None`` if nothing of it is awaited."""
        methods = self._methods(module, name)
        if not any(isinstance(method, ast.AsyncFunctionDef) for method, _ in methods):
            return None
        for method, home in methods:
            returns = "" if method.returns is None else ast.unparse(method.returns)
            # What is not awaited gives an iterator over pages, and nothing else does: ``blocking`` tells them apart by that.
            is_awaited = isinstance(method, ast.AsyncFunctionDef)
            fits = "PageIterator" not in returns if is_awaited else returns.startswith("PageIterator[")
            if not fits:
                raise _unknown(home, method.name, _BLOCKING)
        body = [self.method(method, home) for method, home in methods]
        return _class(name, [], _docstring(module.class_named(name)), body)

    def _methods(self, module: _Module, name: str) -> list[tuple[_Method, _Module]]:
        """The public methods of a class, those of its bases first, and where they stand."""
        node = module.class_named(name)
        for unknown in (*node.body, *node.bases):
            if not _is_known(unknown):
                raise _unknown(module, ast.unparse(unknown), _BLOCKING)
        own = [
            method
            for method in node.body
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and not method.name.startswith("_")
        ]
        bases = [base for base in node.bases if isinstance(base, ast.Name)]
        inherited = [found for base in bases for found in self._methods(self.home(module, base.id), base.id)]
        hidden = {method.name for method in own}
        return [
            *(found for found in inherited if found[0].name not in hidden),
            *((method, module) for method in _typed(own)),
        ]

    def method(self, method: _Method, module: _Module) -> ast.stmt:
        """The method without ``await``."""
        arguments, returns = method.args, method.returns
        given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in filter(None, given):
            argument.annotation = self._annotation(argument.annotation, module)
        arguments.defaults = [_plain(value) for value in arguments.defaults]
        arguments.kw_defaults = [value and _plain(value) for value in arguments.kw_defaults]
        for decorator in method.decorator_list:
            if not ast.unparse(decorator).startswith(_DECORATORS):
                raise _unknown(module, f"{method.name} with @{ast.unparse(decorator)}", _BLOCKING)
            self._annotation(decorator, module)
        if returns is None and method.name != "__init__":
            raise _unknown(module, f"{method.name}, of which nobody says what it returns,", STUB)
        text = _docstring(method)
        return ast.FunctionDef(
            name=method.name,
            args=arguments,
            body=[text if text is not None else ast.Expr(ast.Constant(...))],
            decorator_list=method.decorator_list,
            returns=self._annotation(returns, module),
        )

    def _annotation(self, node: ast.expr | None, module: _Module) -> ast.expr | None:
        """An annotation without what is awaited; its names are imported."""
        if node is None:
            return None
        waiting: ast.expr = _WithThreads().visit(node)
        for part in ast.walk(waiting):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value in module.origins:
                raise _unknown(module, ast.unparse(waiting), STUB)  # a type in quotes
            name = part.id if isinstance(part, ast.Name) else part.attr if isinstance(part, ast.Attribute) else ""
            if name.startswith(_AWAITED) or "asyncio" in module.origins.get(name, "").split(" import ")[0].split():
                raise _unknown(module, ast.unparse(waiting), STUB)
            if isinstance(part, ast.Name):
                self.need(part.id, module)
        return waiting

    def need(self, name: str, module: _Module) -> None:
        """Import a name that a module uses."""
        origin = _TWINS.get(name, module.origins.get(name))
        if origin is None and not hasattr(builtins, name):
            origin = f"from {module.name} import {name}"
        if origin is not None and self.imports.setdefault(name, origin) != origin:
            raise ContractError(f"{name} would mean two things in {STUB}: {origin}; {self.imports[name]}.")


class _WithThreads(ast.NodeTransformer):
    """Threads cannot wait for the events of event loops."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if ast.unparse(node) == "asyncio.Event":
            return ast.Attribute(ast.Name("threading"), "Event")
        return self.generic_visit(node)


def _unknown(module: _Module, what: str, who: object) -> ContractError:
    return ContractError(f"{module.name}: what is {what} without await? {who} has to know.")


def _import(item: ast.alias) -> str:
    return f"import {item.name}" + (f" as {item.asname}" if item.asname else "")


def _is_known(node: ast.AST) -> bool:
    """Whether it is among what a class of operations may have: methods, a docstring, bases, and what is private."""
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id.startswith("_") for target in node.targets)
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id.startswith("_")
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Name) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def _typed(methods: list[_Method]) -> list[_Method]:
    """Without the implementations of overloads, whose docstrings go to the first of each."""
    overloads: dict[str, _Method] = {}
    kept: list[_Method] = []
    for method in methods:
        if any(ast.unparse(decorator) == "overload" for decorator in method.decorator_list):
            overloads.setdefault(method.name, method)
        elif method.name in overloads:
            overloads[method.name].body = method.body
            continue
        kept.append(method)
    return kept


def _docstring(node: _Method | ast.ClassDef) -> ast.stmt | None:
    """As ``blocking`` words it at run time."""
    text = ast.get_docstring(node, clean=False)
    return None if text is None else ast.Expr(ast.Constant(text.replace("``async ", "``")))


def _plain(default: ast.expr) -> ast.expr:
    """A default that says something where it stands."""
    return default if isinstance(default, ast.Constant) else ast.Constant(...)


def _class(name: str, bases: list[ast.expr], text: ast.stmt | None, body: list[ast.stmt]) -> ast.ClassDef:
    return ast.ClassDef(
        name=name, bases=bases, keywords=[], body=[*([] if text is None else [text]), *body], decorator_list=[]
    )


def blocking_stub(root: Path, generated: dict[Path, str]) -> dict[Path, str]:
    """The stub by its path, as it ought to be.

    Args:
        root: the checkout.
        generated: other files that were generated, and may not be written yet.

    Raises:
        ContractError: the sources have something of which this does not know what it would be without ``await``.
    """
    writer = _Writer(root, generated)
    client = writer.module(_CLIENT)
    theirs = client.class_named("Nudgescribe")
    ours = writer.module(_BLOCKING).class_named("Nudgescribe")
    resources: list[ast.stmt] = []
    attributes: list[ast.stmt] = []
    for node in theirs.body:
        if isinstance(node, _Method) and not node.name.startswith("_") and node.name not in _CLIENTS_OWN:
            raise _unknown(client, node.name, "nudgescribe_async.blocking.facade")
    for name, kind in _parts(theirs):
        resource = writer.resource(writer.home(client, kind), kind)
        if resource is not None:
            resources.append(resource)
            attributes.append(ast.AnnAssign(ast.Name(name), ast.Name(kind), value=None, simple=1))
    made = [
        writer.method(node, client)
        for node in theirs.body
        if isinstance(node, ast.FunctionDef) and node.name in {"__init__", "from_env"}
    ]
    writer.need("Facade", client)
    whole = _class("Nudgescribe", [ast.Name("Facade")], _docstring(ours), [*attributes, *made])
    tree = ast.fix_missing_locations(ast.Module([*resources, whole], []))
    text = "\n".join([_HEADER, *writer.imports.values(), '__all__ = ["Nudgescribe"]', ast.unparse(tree), ""])
    return {root / STUB: formatted(text, root / STUB, root)}


def _parts(client: ast.ClassDef) -> list[tuple[str, str]]:
    """The public attributes that a client sets, and the classes that it makes them of."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(client):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if not isinstance(target, ast.Attribute) or ast.unparse(target.value) != "self":
                continue
            value = node.value if isinstance(node, ast.Assign) else None
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                found.append((target.attr, value.func.id))
            elif not target.attr.startswith("_"):
                raise ContractError(f"{_CLIENT}: what is {ast.unparse(node)} without await? {_BLOCKING} has to know.")
    return [(name, kind) for name, kind in found if not name.startswith("_")]
