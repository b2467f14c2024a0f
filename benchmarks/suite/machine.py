"""What the figures depend on: machine, Python, versions, commit. Nothing that tells whose machine it is."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from suite.crew import sharing
from suite.entrants import ENTRANTS

__all__ = ["Surroundings", "surroundings"]

Surroundings: TypeAlias = dict[str, str]
CHECKOUT = Path(__file__).parents[2]


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    with suppress(OSError, subprocess.CalledProcessError):
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    return None


def _commit() -> str:
    commit = _git("rev-parse", "--short=10", "HEAD")
    if commit is None:
        return "not known"
    # What this writes itself is no change.
    changed = _git(
        "--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/benchmarks"
    )
    return f"{commit} and changes" if changed else commit


def _cores() -> str:
    """Those that this process may use."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{number} core{'' if number == 1 else 's'}"


def _versions(packages: Iterable[str]) -> str:
    known = []
    for package in sorted({*packages}, key=str.casefold):
        try:
            known.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            known.append(f"{package} not installed")
    return ", ".join(known)


def surroundings() -> Surroundings:
    """All that is worth knowing, by what it is."""
    packages = [package for entrant in ENTRANTS.values() for package in entrant.packages]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "machine": f"{_cores()}, {_processor()}, {platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _versions(packages),
        "sharing": sharing(),
    }
