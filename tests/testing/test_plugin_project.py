"""The project of docs/pytest.md, with pytest as a process of its own; under nox, with the installed wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECT = HERE / "plugin_project"
PAGE = HERE.parent.parent / "docs" / "pytest.md"
ELSEWHERE = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTEST_ADDOPTS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")
# What else is installed beside the tests of this package takes a second to load, and has no part in this.
OTHERS = ("schemathesis", "hypothesispytest", "pytest_cov", "aiohttp")

pytestmark = pytest.mark.slow

WHERE_FROM = """
import os
from pathlib import Path

import nudgescribe_async


def test_where_the_package_was_imported_from(pytestconfig):
    plugin = pytestconfig.pluginmanager.get_plugin("nudgescribe")
    assert Path(plugin.__file__).is_relative_to(Path(nudgescribe_async.__file__).parent)
    if "NUDGESCRIBE_TEST_INSTALLED" in os.environ:
        assert "site-packages" in Path(plugin.__file__).parts
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__")))


def run(project: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    others = [word for name in OTHERS for word in ("-p", f"no:{name}")]
    # -P: the installed package is tested, and not a checkout in the working directory.
    command = [sys.executable, "-P", "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *others, *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


def outcome(output: str) -> str:
    """The last line, without the time that it took."""
    return re.sub(r" in [\d.]+s.*", "", output.splitlines()[-1]).strip("= ")


def test_the_project_passes_with_all_plugins_in_auto_mode(project: Path) -> None:
    (project / "tests" / "test_where.py").write_text(WHERE_FROM)
    output = run(project)
    assert outcome(output) == "7 passed", output
    assert re.search(r"^plugins: .*asyncio", output, re.MULTILINE)
    assert re.search(r"^plugins: .*anyio", output, re.MULTILINE)
    assert "mode=Mode.AUTO" in output


def test_a_sandbox_of_the_session_keeps_what_a_test_has_made(project: Path) -> None:
    output = run(project, "-o", "nudgescribe_sandbox_scope=session", "tests/test_groups.py", "-k", "first or second")
    assert outcome(output) == "1 failed, 1 passed, 1 deselected", output
    section = output.partition("Nudgescribe sandbox ---")[2]
    assert "customer_groups.list  POST" in section
    assert "customer_groups.create  PUT" not in section  # the first test has made it
    assert "LoseAnswer on customer_groups.create: happened 0 of 1 times" in section


def test_both_modes_stand_side_by_side(project: Path) -> None:
    output = run(project, "-o", "asyncio_mode=strict", "modes")
    assert outcome(output) == "2 passed", output


def test_anyio_alone(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    output = run(project, "-p", "no:asyncio", "modes/test_anyio.py")
    assert outcome(output) == "1 passed", output


def test_a_failure_and_a_wrong_mark_are_told(project: Path) -> None:
    text = (project / "tests" / "test_groups.py").read_text()
    (project / "tests" / "test_groups.py").write_text(text.replace("fault.fired == 1", "fault.fired == 2"))
    text = (project / "tests" / "test_options.py").read_text()
    (project / "tests" / "test_options.py").write_text(text.replace("latency=60", "latenzy=60"))
    output = run(project)
    assert outcome(output) == "1 failed, 4 passed, 1 error", output
    assert "@pytest.mark.nudgescribe: the sandbox has no option 'latenzy'. Perhaps latency?" in output
    section = output.partition("Nudgescribe sandbox ---")[2]
    assert "customer_groups.create  PUT /v1/cg  (fault: LoseAnswer, no answer, changed something)" in section


def test_the_mark_and_the_fixtures_are_documented_by_pytest(project: Path) -> None:
    assert "@pytest.mark.nudgescribe(**options)" in run(project, "--markers")
    output = run(project, "--fixtures", "-v")
    for name in ("sandbox", "client", "faults", "sandbox_options", "client_options"):
        assert re.search(rf"^nudgescribe_{name}\b", output, re.MULTILINE)


def test_the_page_shows_the_project_as_it_is() -> None:
    blocks = re.findall(
        r"^```(?:python|toml)[^\n]*\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    files = [path for path in PROJECT.rglob("*") if path.suffix in {".py", ".toml"}]
    assert sorted(blocks) == sorted(path.read_text(encoding="utf-8") for path in files)
