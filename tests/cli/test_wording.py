"""The sentences of the package, in the words of commands: found in its source, so that none changes unnoticed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import nudgescribe_async
from nudgescribe_async.cli import wording
from nudgescribe_async.cli.wording import command_line, in_command_words, same_command

PACKAGE = Path(nudgescribe_async.__file__).parent
JOBS = ("bulk", "rerun")
"""What commands call, and whose errors and reports they show."""
OF_PROGRAMS = re.compile(
    r"\bns\.\w|=True\b|\b[a-z_]+=(?=[\s.,;{\'\"]|$)|\b(same|this) call\b|\b[Cc]all it (again|as|with)\b|error\.(cursor|report)"
)
MARKUP = re.compile(r"<\w|^ (title|class)=")
PROGRAMMERS_ONLY = {
    "{} to run a campaign sent by this call",  # the page
    "Nothing was sent by this call: what is shown here was done by earlier calls with the same journal.",  # the page
}


def sentences(*folders: str) -> Iterator[str]:
    """All texts in the source but docstrings, with ``{}`` for what is filled in."""
    for folder in folders:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    told.update(map(id, node.values))
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                    yield node.value


@pytest.mark.parametrize("sentence", [ours for ours, _ in wording._SENTENCES])
def test_each_sentence_is_still_said(sentence: str) -> None:
    assert any(sentence in text for text in sentences("."))


@pytest.mark.parametrize("name", wording._OPERATIONS)
def test_each_operation_is_still_there(name: str) -> None:
    resource, method = name.split(".")
    source = "\n".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "resources").glob("*.py"))
    source += "\n".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "endpoints").glob("*.py"))
    assert re.search(rf"def {method}\(", source), resource


def test_jobs_say_nothing_in_the_words_of_programs() -> None:
    left = {
        text
        for text in sentences(*JOBS)
        if not MARKUP.search(text) and " " in text and OF_PROGRAMS.search(in_command_words(text))
    }
    assert left - PROGRAMMERS_ONLY == set()


def test_a_command_is_printed_without_a_password_in_words() -> None:
    url = "s3://user:secret@host/x.csv"
    assert same_command(["customers", "export", "G", url]) == "the very same command"
    again = same_command(["customers", "export", "G", url, "--restart"], without="--restart")
    assert again == "the same command without --restart"
    assert same_command(["reruns", "run", "--", "p"], also="--overwrite") == "nudgescribe reruns run --overwrite -- p"
    assert same_command(["x", "--restart=true", "--", "--restart"], without="--restart") == "nudgescribe x -- --restart"


def test_what_is_no_text_is_quoted_as_bytes() -> None:
    assert command_line(["a b", "\udcff"]) == "nudgescribe 'a b' $'\\377'"
