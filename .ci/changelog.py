"""What the changelog owes to those who use the package. Needs nothing but Python and git.

``changed``: whoever changes the package says so. ``released``: a release has its section, with a date.
"""
# ruff: noqa: INP001 - a script

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

PACKAGE = "nudgescribe_async/"
CHANGELOG = "CHANGELOG.md"
LABEL = "no changelog"

_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def unmentioned(paths: Collection[str], labels: Collection[str]) -> str | None:
    """What is wrong with a change that touches these files, if anything."""
    touched = sorted(path for path in paths if path.startswith(PACKAGE))
    if not touched or CHANGELOG in paths or LABEL in labels:
        return None
    more = f" and {len(touched) - 1} more" if len(touched) > 1 else ""
    return (
        f"{touched[0]}{more} changed, and {CHANGELOG} did not. Say there what it means for those who use the package, "
        f'or label the pull request "{LABEL}".'
    )


def section(changelog: str, version: str) -> tuple[str, str] | None:
    """What stands in brackets after a version, and what is said of it."""
    heading = re.search(rf"^## {re.escape(version)} \((.*)\)$", changelog, re.MULTILINE)
    if heading is None:
        return None
    text, _, _ = changelog[heading.end() :].partition("\n## ")
    return heading[1], text.strip()


def unreleasable(tag: str, version: str, changelog: str) -> str | None:
    """What is wrong with a release, if anything."""
    if tag != f"v{version}":
        return f"The tag is {tag}, and the version of the package is {version}: the tag must be v{version}."
    found = section(changelog, version)
    if found is None:
        return f"{CHANGELOG} has no section ## {version} (YYYY-MM-DD)."
    when, text = found
    if not _is_day(when):
        return f"{CHANGELOG}: the section of {version} says ({when}), and must say the day of the release (YYYY-MM-DD)."
    if not text:
        return f"{CHANGELOG}: the section of {version} is empty."
    return None


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return _DATE.fullmatch(text) is not None  # there are other forms of the standard


def version_of(text: str) -> str:
    """The version in ``version.py``, without importing it."""
    found = _VERSION.search(text)
    if found is None:
        raise SystemExit(f"{PACKAGE}version.py says no __version__.")
    return found[1]


def changed_since(root: Path, base: str) -> list[str]:
    """The files that differ from where this branch left ``base``; a file that was moved counts twice."""
    command = ["git", "diff", "--name-only", "--no-renames", "-z", f"{base}...HEAD", "--"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 - git, by name
    if done.returncode:
        raise SystemExit(f"git cannot say what changed since {base}: {done.stderr.strip()}")
    return done.stdout.split("\0")[:-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, or 1 and a sentence on stderr."""
    parser = argparse.ArgumentParser(prog="changelog.py", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent, help="the checkout")
    commands = parser.add_subparsers(dest="command", required=True)
    changed = commands.add_parser("changed", help="does a change of the package come with one of the changelog?")
    changed.add_argument("--base", required=True, help="what to compare with, such as origin/main")
    changed.add_argument("--labels", default="", help="the labels of the pull request, separated by commas")
    released = commands.add_parser("released", help="may this tag be released? Prints what the changelog says of it")
    released.add_argument("tag", help="such as v0.2.0")
    options = parser.parse_args(arguments)

    if options.command == "changed":
        problem = unmentioned(changed_since(options.root, options.base), options.labels.split(","))
        text = None
    else:
        version = version_of((options.root / PACKAGE / "version.py").read_text(encoding="utf-8"))
        changelog = (options.root / CHANGELOG).read_text(encoding="utf-8")
        problem = unreleasable(options.tag, version, changelog)
        text = section(changelog, version)
    if problem is not None:
        sys.stderr.write(f"{problem}\n")
        return 1
    if text is not None:
        sys.stdout.write(f"{text[1]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
