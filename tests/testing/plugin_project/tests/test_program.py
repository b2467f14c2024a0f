from pathlib import Path

import letters
import pytest

from nudgescribe_async.sandbox import Sandbox


@pytest.mark.nudgescribe(example=True)
def test_the_program(nudgescribe_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    credentials = nudgescribe_sandbox.credentials
    monkeypatch.setenv("NUDGESCRIBE_BASE_URL", nudgescribe_sandbox.url)
    monkeypatch.setenv("NUDGESCRIBE_API_KEY", credentials.api_key)
    monkeypatch.setenv("NUDGESCRIBE_EMAIL", credentials.email)
    monkeypatch.setenv("NUDGESCRIBE_PASSWORD", credentials.password)
    monkeypatch.setenv("NUDGESCRIBE_WORKSPACE_ID", credentials.workspace_id)
    monkeypatch.chdir(tmp_path)
    letters.main()
    assert Path("groups.txt").read_text().splitlines() == sorted(nudgescribe_sandbox.example.customer_groups)
