"""``docs/command.md``: what stands below its marker is the help of the command, written by ``python tests/documentation_command.py``."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "command.md"
MARKER = (
    "<!-- Generated below from the help of the command by `python tests/documentation_command.py`: do not edit. -->\n"
)
COMMON = "Options of every command"


def generated() -> str:
    """All commands with their options, as Markdown."""
    from cyclopts import App

    from nudgescribe_async.cli.app import app

    assert isinstance(app, App)
    text = app.generate_docs(output_format="markdown", heading_level=2, flatten_commands=True)
    _, _, text = text.partition("**Options of every command**:")
    head, *sections = re.split(
        r"^(?=### )", text.replace("## nudgescribe ", "### nudgescribe ").replace("#### ", "### "), flags=re.MULTILINE
    )
    kept = [f"## {COMMON}\n{head.rstrip()}\n\n## The commands\n"]
    for section in sections:
        parts = re.split(r"^(?=\*\*[^*]+\*\*:$)", section, flags=re.MULTILINE)
        kept.append(
            "".join(part for part in parts if not part.startswith((f"**{COMMON}**", "**Commands**"))).rstrip() + "\n"
        )
    return "\n".join(kept)


def facts(markdown: str) -> dict[str, dict[str, str]]:
    """Command, to option or argument, to what is said of it: what must agree, however it is laid out."""
    found: dict[str, dict[str, str]] = {}
    command = ""
    for line in markdown.splitlines():
        if line.startswith("#"):
            command = line.lstrip("# ")
            found[command] = {}
        elif (item := re.match(r"\* `([^`]+)`(?:, `[^`]+`)*:? ?(.*)", line)) is not None:
            found[command][item[1]] = " ".join(item[2].split())
    return found


def main() -> None:
    before, marker, _ = PAGE.read_text(encoding="utf-8").partition(MARKER)
    assert marker, f"{PAGE} has no marker"
    PAGE.write_text(f"{before}{MARKER}\n{generated()}", encoding="utf-8")


if __name__ == "__main__":
    main()
