"""The examples of the README and the documentation are run, not only read."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from nudgescribe_async.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEBUG = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def programs() -> list[tuple[str, str]]:
    return [
        (f"{page.name} {number}", block)
        for page in PAGES
        for number, block in enumerate(blocks(page), start=1)
        if "asyncio.run(" in block
    ]


async def run_program(text: str, settings: dict[str, str], folder: Path) -> tuple[int, str, str]:
    # Debug mode would say on stderr what took long, which is no matter of the examples.
    environment = {name: value for name, value in os.environ.items() if name not in DEBUG} | settings
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        text,
        env=environment,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_compiles(page: Path) -> None:
    for block in blocks(page):
        compile(block, page.name, "exec")


def test_the_readme_has_a_program_for_a_service_a_bulk_job_and_reruns() -> None:
    assert len([name for name, _ in programs() if name.startswith("README")]) == 3


@pytest.mark.parametrize(("name", "program"), programs(), ids=[name for name, _ in programs()])
async def test_every_program_runs_against_the_sandbox_as_it_stands(name: str, program: str, tmp_path: Path) -> None:
    async with Sandbox(example=True) as sandbox:
        published = sandbox.example.campaigns
        groups = sandbox.example.customer_groups
        program = program.replace("your-workspace-id", sandbox.example.workspace_id)
        program = program.replace("your-customer-group-id", next(iter(groups.values())))
        program = program.replace("your-campaign-id", next(iter(published.values())))
        code, output, errors = await run_program(
            program,
            {
                "NUDGESCRIBE_API_KEY": sandbox.credentials.api_key,
                "NUDGESCRIBE_EMAIL": sandbox.credentials.email,
                "NUDGESCRIBE_PASSWORD": sandbox.credentials.password,
                "NUDGESCRIBE_BASE_URL": sandbox.url,
                "NUDGESCRIBE_WORKSPACE_ID": sandbox.workspace_id,
            },
            tmp_path,
        )
    assert (code, errors) == (0, "")
    assert output.strip(), f"{name} printed nothing"


def test_the_two_commands_of_the_readme_stand_alone_on_their_lines() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox -s"
    assert [line for line in lines if line.startswith(start)] == [f"{start} demo", f"{start} tests"]
