"""What those who carry on the work rely on: the commands, the hooks, the workflows, the changelog's keeper."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
HOOKS = ROOT / ".pre-commit-config.yaml"
COMMANDS = ["lint", "types", "tests", "tests_debug", "generate", "docs"]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{path.stem}.{name}", job) for path in WORKFLOWS for name, job in read(path)["jobs"].items()]


def steps() -> list[dict[str, Any]]:
    return [step for _, job in jobs() for step in job.get("steps", [])]


# --- CONTRIBUTING.md ----------------------------------------------------------------------------------------------


def sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    decorated = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    return {node.name for node in decorated if ast.unparse(node.decorator_list[0]).startswith("nox.session")}


def contributing() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_commands_are_sessions_of_nox() -> None:
    table = re.findall(r"^\| `nox -s (\w+)` \|", contributing(), re.MULTILINE)
    assert table == COMMANDS
    named = {name for words in re.findall(r"`nox -s ([\w ]+?)(?: --[^`]*)?`", contributing()) for name in words.split()}
    assert named >= set(COMMANDS)
    assert named <= sessions()
    assert {"soak", "crash", "chaos", "simulate"} <= sessions()


@pytest.mark.skipif(importlib.util.find_spec("nox") is None, reason="nox is not installed where it runs the tests")
def test_nox_lists_what_we_read_in_its_file() -> None:
    command = [sys.executable, "-m", "nox", "-l", "--noxfile", str(ROOT / "noxfile.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "NO_COLOR": "1"})
    assert set(re.findall(r"^[*-] (\w+)", done.stdout, re.MULTILINE)) == sessions()


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_each_file_that_is_named_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    files = re.findall(r"\]\(([^)#:]+)\)|`((?:nudgescribe_async|docs|tests|\.ci|\.github)/[\w./-]+)`", text)
    for path in (linked or quoted for linked, quoted in files):
        assert (ROOT / path).exists(), path


def test_no_file_of_the_contribution_names_a_registry_or_a_machine() -> None:
    files = [path for path in (ROOT / ".github").rglob("*") if path.is_file()]
    for path in [*files, HOOKS, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / ".ci" / "changelog.py"]:
        assert not re.search(r"https?://|pypi\.org|(?<!\w)/(home|tmp|work|root)/", path.read_text(encoding="utf-8")), (
            path
        )


# --- pre-commit ---------------------------------------------------------------------------------------------------


def hooks() -> list[dict[str, Any]]:
    return [hook for repository in read(HOOKS)["repos"] for hook in repository["hooks"]]


def entry(hook: dict[str, Any]) -> list[str]:
    """What pre-commit would run, found where the tests run."""
    program, *arguments = shlex.split(hook["entry"])
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = sys.executable if program == "python" else shutil.which(program, path=here)
    if found is None and program == "lint-imports":
        pytest.skip("import-linter is not installed where nox runs the tests; its session lint runs it")
    assert found is not None, program
    return [found, *arguments]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: hook["id"])
def test_the_entry_of_each_hook_runs(hook: dict[str, Any]) -> None:
    files = [] if hook.get("pass_filenames") is False else [str(ROOT / ".ci" / "changelog.py")]
    done = run(ROOT, *entry(hook), *files)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_hook_refuses_what_the_lint_refuses(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import os\nx = {'a':1}\n")
    (ruff,) = (hook for hook in hooks() if hook["id"] == "ruff")
    done = run(tmp_path, *entry(ruff), "bad.py")
    assert done.returncode == 1
    assert "F401" in done.stdout


def test_a_hook_refuses_an_import_that_the_lint_refuses(tmp_path: Path) -> None:
    (imports,) = (hook for hook in hooks() if hook["id"] == "imports")
    package = shutil.copytree(
        ROOT / "nudgescribe_async", tmp_path / "nudgescribe_async", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (package / "retry.py").open("a") as file:
        file.write("\nimport nudgescribe_async.client\n")
    done = run(tmp_path, *entry(imports))
    assert done.returncode == 1
    assert "nudgescribe_async.retry is not allowed to import nudgescribe_async.client" in done.stdout


def test_each_check_of_the_lint_is_a_hook() -> None:
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    lint = noxfile.partition("def lint(")[2].partition("@nox.session")[0]
    programs = {shlex.split(hook["entry"])[0] for hook in hooks()}
    assert set(re.findall(r'session\.run\("([\w-]+)"', lint)) == programs - {"python"}


def test_the_hooks_have_the_versions_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    known = {
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["contract"],
        *project["dependency-groups"]["lint"],
    }
    for hook in hooks():
        assert set(hook["additional_dependencies"]) <= known, hook["id"]


def test_the_hook_of_the_generated_files_looks_at_all_of_them() -> None:
    (pattern,) = (re.compile(hook["files"]) for hook in hooks() if hook["id"] == "generated")
    for path in (
        "nudgescribe_async/contract/openapi.yaml",
        "nudgescribe_async/contract/openapi.json",
        "nudgescribe_async/contract/generate.py",
        "nudgescribe_async/endpoints/customers.py",
        "docs/operations.md",
    ):
        assert pattern.search(path), path
        assert (ROOT / path).exists(), path
    assert not pattern.search("nudgescribe_async/client.py")


# --- the workflows ------------------------------------------------------------------------------------------------


def test_ci_is_what_runs_here() -> None:
    job = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["run"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    versions = {entry["python"]: entry["experimental"] for entry in job["strategy"]["matrix"]["include"]}
    assert versions == {"3.11": False, "3.12": True, "3.13": True}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = {line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line}
    assert set(versions) == promised


def test_each_action_is_pinned_to_a_commit_that_is_named() -> None:
    lines = [line.strip() for path in WORKFLOWS for line in path.read_text(encoding="utf-8").splitlines()]
    used = [line for line in lines if re.match(r"(- )?uses:", line)]
    assert len(used) > 8
    ours = re.compile(r"uses: \./\.github/workflows/\w+\.yml$")
    pinned = re.compile(r"uses: ([\w-]+/[\w-]+)@([0-9a-f]{40})  # (v\d+\.\d+\.\d+)$")
    found: dict[str, set[tuple[str, str]]] = {}
    for line in used:
        match = pinned.search(line)
        assert match or ours.search(line), line
        if match:
            found.setdefault(match[1], set()).add((match[2], match[3]))
    assert all(len(versions) == 1 for versions in found.values()), found  # one version of each


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_no_more_than_read_unless_a_job_says_so(path: Path) -> None:
    assert read(path)["permissions"] in ({}, {"contents": "read"})


def test_only_a_release_may_write_and_each_job_what_it_has_to() -> None:
    more = {name: job["permissions"] for name, job in jobs() if "write" in job.get("permissions", {}).values()}
    assert more == {
        "release.build": {"contents": "read", "id-token": "write", "attestations": "write"},
        "release.publish": {"id-token": "write"},
        "release.announce": {"contents": "write"},
    }
    assert dict(jobs())["release.publish"]["environment"] == "pypi"
    for step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # What others choose, such as the name of a branch, is never part of a script.
        assert "${{" not in step.get("run", ""), step


def test_a_release_is_checked_tested_built_signed_and_published_in_this_order() -> None:
    release = read(ROOT / ".github" / "workflows" / "release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads "on" so
    order = {name: job.get("needs") for name, job in release["jobs"].items()}
    assert order == {"check": None, "ci": "check", "build": "ci", "publish": "build", "announce": "publish"}
    assert release["jobs"]["ci"]["uses"] == "./.github/workflows/ci.yml"
    build = [step.get("uses", step.get("run", "")) for step in release["jobs"]["build"]["steps"]]
    assert [number for number, step in enumerate(build) if "nox -s build" in step] == [2]
    assert build[3] == "mv .nox/build/tmp/dist dist"
    assert build[4].startswith("actions/attest-build-provenance@")
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert 'Path(session.create_tmp()) / "dist"' in noxfile.partition("def build(")[2].partition("@nox.session")[0]
    (check,) = (step["run"] for step in release["jobs"]["check"]["steps"] if "run" in step)
    assert check == 'python3 .ci/changelog.py released "$TAG" > notes.md'


def test_dependabot_looks_after_the_actions_and_the_packages() -> None:
    found = read(ROOT / ".github" / "dependabot.yml")
    assert found["version"] == 2
    assert {update["package-ecosystem"] for update in found["updates"]} == {"github-actions", "pip"}


# --- issues -------------------------------------------------------------------------------------------------------


def test_there_is_a_form_for_each_kind_of_issue() -> None:
    assert [path.stem for path in FORMS] == ["bug", "config", "contract", "feature"]
    assert read(ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml") == {"blank_issues_enabled": False}


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_a_form_is_one_that_github_takes(path: Path) -> None:
    form = read(path)
    assert set(form) == {"name", "description", "labels", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names)
    assert "version" in names
    for field in fields:
        assert field["type"] in {"input", "textarea", "dropdown"}
        assert field["attributes"]["label"]
        assert ("options" in field["attributes"]) == (field["type"] == "dropdown")


# --- the changelog ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keeper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("changelog_keeper", ROOT / ".ci" / "changelog.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("paths", "labels", "sentence"),
    [
        ([], [], None),
        (["docs/index.md", "tests/test_retry.py"], [], None),
        (["nudgescribe_async/retry.py", "CHANGELOG.md"], [], None),
        (["nudgescribe_async/retry.py"], ["bug", "no changelog"], None),
        (["nudgescribe_async/retry.py"], ["bug"], "nudgescribe_async/retry.py changed, and CHANGELOG.md did not."),
        (["nudgescribe_async/b.py", "nudgescribe_async/a.py"], [], "nudgescribe_async/a.py and 1 more changed"),
        (["nudgescribe_async/retry.py", "docs/CHANGELOG.md"], [], "CHANGELOG.md did not"),
    ],
)
def test_a_change_of_the_package_comes_with_one_of_the_changelog(
    keeper: ModuleType, paths: list[str], labels: list[str], sentence: str | None
) -> None:
    said = keeper.unmentioned(paths, labels)
    assert (sentence is None and said is None) or (sentence is not None and sentence in said)


GOOD = "# Changelog\n\n## 0.2.0 (2026-12-01)\n\n### Added\n\n- Something.\n\n## 0.1.0 (2026-11-01)\n\nThe first.\n"


@pytest.mark.parametrize(
    ("tag", "version", "changelog", "sentence"),
    [
        ("v0.2.0", "0.2.0", GOOD, None),
        ("v0.1.0", "0.1.0", GOOD, None),
        ("0.2.0", "0.2.0", GOOD, "The tag is 0.2.0, and the version of the package is 0.2.0: the tag must be v0.2.0."),
        ("v0.2.1", "0.2.0", GOOD, "the tag must be v0.2.0"),
        ("v0.3.0", "0.3.0", GOOD, "CHANGELOG.md has no section ## 0.3.0 (YYYY-MM-DD)."),
        ("v0.2", "0.2", GOOD, "has no section ## 0.2 "),
        ("v0.2.0", "0.2.0", GOOD.replace("2026-12-01", "unreleased"), "says (unreleased), and must say the day"),
        ("v0.2.0", "0.2.0", GOOD.replace("2026-12-01", "2026-13-01"), "says (2026-13-01), and must say the day"),
        ("v0.2.0", "0.2.0", GOOD.replace("2026-12-01", "20261201"), "says (20261201), and must say the day"),
        ("v0.2.0", "0.2.0", "## 0.2.0 (2026-12-01)\n\n## 0.1.0 (2026-11-01)\n", "the section of 0.2.0 is empty"),
        ("v0.2.0", "0x2.0", GOOD, "the tag must be v0x2.0"),
    ],
)
def test_a_release_has_its_tag_its_version_and_its_section(
    keeper: ModuleType, tag: str, version: str, changelog: str, sentence: str | None
) -> None:
    said = keeper.unreleasable(tag, version, changelog)
    assert (sentence is None and said is None) or (sentence is not None and sentence in said)


def test_a_version_is_no_pattern(keeper: ModuleType) -> None:
    assert keeper.section("## 0x2x0 (2026-12-01)\n\nNo.\n", "0.2.0") is None


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "nudgescribe_async").mkdir()
    (tmp_path / "nudgescribe_async" / "version.py").write_text('"""It."""\n\n__version__ = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(GOOD)
    for command in ("init -q -b main", "add .", "commit -q -m one", "checkout -q -b work"):
        who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
        assert run(tmp_path, "git", *who, *command.split()).returncode == 0
    return tmp_path


def commit(checkout: Path) -> None:
    who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    assert run(checkout, "git", "add", "--all").returncode == 0
    assert run(checkout, "git", *who, "commit", "-q", "-m", "two").returncode == 0


def keep(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(checkout, sys.executable, str(ROOT / ".ci" / "changelog.py"), "--root", str(checkout), *arguments)


def test_the_command_compares_with_where_the_branch_began(checkout: Path) -> None:
    assert keep(checkout, "changed", "--base", "main").returncode == 0
    (checkout / "nudgescribe_async" / "grün.py").write_text("")
    commit(checkout)
    done = keep(checkout, "changed", "--base", "main", "--labels", "bug,feature")
    assert done.returncode == 1
    assert done.stderr.startswith("nudgescribe_async/grün.py changed, and CHANGELOG.md did not.")
    assert keep(checkout, "changed", "--base", "main", "--labels", "bug,no changelog").returncode == 0
    (checkout / "CHANGELOG.md").write_text(GOOD.replace("Something", "Green"))
    commit(checkout)
    assert keep(checkout, "changed", "--base", "main").returncode == 0


def test_a_module_that_is_moved_away_was_changed(checkout: Path) -> None:
    (checkout / "nudgescribe_async" / "version.py").rename(checkout / "version.py")
    commit(checkout)
    assert keep(checkout, "changed", "--base", "main").returncode == 1


def test_a_base_that_there_is_not_is_a_failure(checkout: Path) -> None:
    done = keep(checkout, "changed", "--base", "origin/main")
    assert done.returncode == 1
    assert done.stderr.startswith("git cannot say what changed since origin/main:")


def test_the_command_prints_what_the_release_says(checkout: Path) -> None:
    done = keep(checkout, "released", "v0.2.0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "### Added\n\n- Something.\n", "")
    done = keep(checkout, "released", "v0.3.0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the tag must be v0.2.0" in done.stderr


def test_a_package_that_says_no_version_is_a_failure(checkout: Path) -> None:
    (checkout / "nudgescribe_async" / "version.py").write_text("")
    done = keep(checkout, "released", "v0.2.0")
    assert done.returncode == 1
    assert "says no __version__" in done.stderr


def test_the_changelog_of_this_project_can_be_read(keeper: ModuleType) -> None:
    version = keeper.version_of((ROOT / "nudgescribe_async" / "version.py").read_text(encoding="utf-8"))
    found = keeper.section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    assert found is not None
    assert found[1]
