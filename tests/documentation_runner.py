"""Runs blocks of one page, one after the other, in a process of its own: starting one for each would take minutes.

Reads a job a line from standard input, as JSON, and answers each with a line: what was printed, what was said on the
standard error stream, and which functions were shown and never called.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import inspect
import io
import json
import logging
import os
import sys
import traceback
from typing import Any

CALLED = "__called__"


class _Marks(ast.NodeTransformer):
    """Has each function say that it was called."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def _function(self, node: Any) -> Any:
        self.generic_visit(node)
        name = f"{node.name} (line {node.lineno})"
        self.names.append(name)
        call = ast.Call(func=ast.Name(id=CALLED, ctx=ast.Load()), args=[ast.Constant(name)], keywords=[])
        node.body.insert(1 if ast.get_docstring(node) is not None else 0, ast.Expr(call))
        return node

    visit_FunctionDef = _function  # noqa: N815 - ast calls them so
    visit_AsyncFunctionDef = _function  # noqa: N815


async def _fragment(job: dict[str, Any], space: dict[str, Any], code: Any) -> None:
    """What is no program has a client at hand, and the ids of the example data; and may await at its top level."""
    space |= job["ids"]
    async with contextlib.AsyncExitStack() as stack:
        if job["ids"]:
            space["base_url"] = os.environ["NUDGESCRIBE_BASE_URL"]
        if job["wants_client"]:
            from nudgescribe_async import AesGcmProfiles, Credentials, Nudgescribe

            profiles = AesGcmProfiles(bytes.fromhex(os.environ["NUDGESCRIBE_PROFILE_KEY"]))
            names = ("api_key", "email", "password")
            space["credentials"] = Credentials(**{name: os.environ[f"NUDGESCRIBE_{name.upper()}"] for name in names})
            space["ns"] = await stack.enter_async_context(Nudgescribe.from_env(profile_decryptor=profiles))
        for part in (_compiled("first", job["first"]), code, _compiled("then", job["then"])):
            found = eval(part, space)
            if inspect.iscoroutine(found):
                await found


def _compiled(name: str, text: str | ast.Module) -> Any:
    return compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def run(job: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    output, errors = io.StringIO(), io.StringIO()
    os.chdir(job["folder"])
    if job["files"] not in sys.path:
        sys.path.append(job["files"])
    os.environ.update(job["environment"])
    marks = _Marks()
    called: set[str] = set()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            tree = ast.fix_missing_locations(marks.visit(ast.parse(job["text"])))
            if job["is_program"]:
                space = {"__name__": "__main__", CALLED: called.add}
                exec(compile(tree, job["name"], "exec", dont_inherit=True), space)
                space.clear()
            else:
                shared |= {"__name__": "fragment", CALLED: called.add}
                asyncio.run(_fragment(job, shared, _compiled(job["name"], tree)))
        except SystemExit as ending:
            if ending.code not in (None, 0):
                errors.write(f"It ended with {ending.code!r}\n")
        except BaseException:  # noqa: BLE001 - whatever it is, it is told to the test
            traceback.print_exc()
        gc.collect()  # what was forgotten says so now, and not in the next one
        for handler in list(logging.getLogger().handlers):
            logging.getLogger().removeHandler(handler)
        for logger in ("nudgescribe_async", "nudgescribe_async.session"):
            logging.getLogger(logger).setLevel(logging.NOTSET)
        logging.getLogger().setLevel(logging.WARNING)
    not_called = [name for name in marks.names if name not in called]
    return {"output": output.getvalue(), "errors": errors.getvalue(), "not_called": not_called}


def main() -> None:
    shared: dict[str, Any] = {}
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            answers.write(f"{json.dumps(run(json.loads(line), shared))}\n")
            answers.flush()


if __name__ == "__main__":
    main()
