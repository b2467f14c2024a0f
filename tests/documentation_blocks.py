"""The blocks of a page, and the comments that say how they are tried.

A block with a title (```` ```python title="name.py" ````) is saved under that name for those that follow.

A page is plain Markdown. What its readers need not see stands in HTML comments:

``<!-- test: first`` and Python before a block
    runs before it, in the same place: imports that the text above has made, and things to work on.
``<!-- test: then`` and Python after a block
    runs after it: calls of what it defines, and what must be true now.
``<!-- test: output -->`` before a block of text
    the block is what the one before has printed; ``...`` stands for anything.
``<!-- test: provoked -->`` before a block of text
    the block is the text of the error that the heading above names: see ``documentation_troubles.py``.
``<!-- test: not run, REASON -->`` before a block
    it cannot be run here. ``test_documentation.py`` counts these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve, frozen

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *(page for name in ("README.md", "CONTRIBUTING.md") if (page := ROOT / name).exists()),
    *sorted(DOCS.rglob("*.md")),
]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)(?: +title=\"(?P<title>[^\"]+)\")?\s*$")
_COMMENT = re.compile(r"^ *<!-- test: (?P<kind>first|then|output|provoked|not run)(?P<rest>.*)$")


@frozen(kw_only=True)
class Block:
    """A fenced block: the first of a page has number 1."""

    page: Path
    number: int
    line: int
    language: str
    title: str | None
    text: str
    first: str = ""
    then: str = ""
    is_output: bool = False
    is_provoked: bool = False
    not_run: str = ""
    heading: str = ""

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"

    @property
    def is_program(self) -> bool:
        return self.language == "python" and "asyncio.run(" in self.text

    @property
    def is_module(self) -> bool:
        """Whether it is only there to be imported by a later one."""
        return self.language == "python" and self.title is not None and not self.is_program

    @property
    def is_for_pytest(self) -> bool:
        return self.language == "python" and re.search(r"^(async )?def test_", self.text, re.MULTILINE) is not None


def _comment(lines: Iterator[tuple[int, str]], rest: str) -> str:
    text = [rest]
    while "-->" not in text[-1]:
        text.append(next(lines)[1])
    text[-1] = text[-1].partition("-->")[0]
    return "\n".join(text)


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page. A comment that belongs to none, or a fence that is not closed, is an ``AssertionError``."""
    found: list[Block] = []
    first, is_output, is_provoked, not_run, waiting, heading = "", False, False, "", "", ""
    lines = iter(list(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)))
    for number, line in lines:
        comment, fence = _COMMENT.match(line), _FENCE.match(line)
        if comment is not None:
            text = _comment(lines, comment["rest"])
            match comment["kind"]:
                case "first":
                    first = text
                case "then":
                    assert found, f"{page.name}, line {number}: there is no block before this"
                    found[-1] = evolve(found[-1], then=text)
                case "output":
                    is_output = True
                case "provoked":
                    is_provoked = True
                case _:
                    not_run = text.strip(" ,")
                    assert not_run, f"{page.name}, line {number}: no reason is given"
            waiting = "" if comment["kind"] == "then" else comment["kind"]
        elif fence is not None:
            inside: list[str] = []
            for _, each in lines:
                if each.strip() == "```":
                    break
                inside.append(each.removeprefix(fence["indent"]))
            else:
                raise AssertionError(f"{page.name}, line {number}: the block is not closed")
            found.append(
                Block(
                    page=page,
                    number=len(found) + 1,
                    line=number,
                    language=fence["language"],
                    title=fence["title"],
                    text="\n".join(inside) + "\n",
                    first=first,
                    is_output=is_output,
                    is_provoked=is_provoked,
                    heading=heading,
                    not_run=not_run,
                )
            )
            first, is_output, is_provoked, not_run, waiting = "", False, False, "", ""
        else:
            heading = line.lstrip("#").strip() if line.startswith("#") else heading
            assert not line.lstrip().startswith("```"), f"{page.name}, line {number}: what kind of block is this?"
            assert not (waiting and line.strip()), (
                f"{page.name}, line {number}: a block belongs here, after {waiting!r}"
            )
    assert not waiting, f"{page.name}: nothing follows the last comment"
    return found


def fits(shown: str, printed: str) -> bool:
    """Whether this is what a page shows, whose ``...`` stand for anything. How far columns are apart does not count."""
    lines = [line.rstrip() for line in shown.strip().splitlines()]
    pattern = "\n".join(".*?".join(re.escape(part) for part in line.split("...")) for line in lines)
    pattern = re.sub(r"(?:\\ ){2,}", r" +", pattern)
    plain = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return re.fullmatch(pattern, plain, re.DOTALL) is not None
