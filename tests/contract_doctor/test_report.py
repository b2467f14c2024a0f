"""The report holds shapes, and nothing of anybody; the patch marks what was confirmed."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_spec_validator import validate
from operations import checkout

from nudgescribe_async import ConfigurationError
from nudgescribe_async.contract.__main__ import main
from nudgescribe_async.contract.generate import generate
from nudgescribe_async.contract_doctor import ContractReport, Difference, examine, examine_recording
from nudgescribe_async.contract_doctor.comparing import Comparison
from nudgescribe_async.contract_doctor.contract import Contract, name_of
from nudgescribe_async.contract_doctor.counting import Page, judge, wanted
from nudgescribe_async.contract_doctor.forms import form_of, is_nameable
from nudgescribe_async.contract_doctor.watching import Exchange
from nudgescribe_async.sandbox import Sandbox

MARK = "MARKED"
ROOT = checkout()
PLACE = "nudgescribe_async/contract/openapi.yaml"
in_checkout = pytest.mark.skipif(ROOT is None, reason="the tests were taken out of the checkout")


@pytest.fixture
async def report() -> ContractReport:
    async with Sandbox(example=True) as sandbox:
        return await examine(sandbox.credentials, base_url=sandbox.url, pause=0.0)


def marked(value: Any, key: str = "") -> Any:
    """A mark in every text, and in every key of what is no object of the contract."""
    match value:
        case str() if key != "access_token":
            return f"{MARK} {value}"
        case list():
            return [marked(item) for item in value]
        case dict() if key in {"extended_profile", "segment"} or "external_id" in value:
            return {f"{MARK}_{name}": marked(item) for name, item in value.items()}
        case dict():
            return {name: marked(item, name) for name, item in value.items()}
        case _:
            return value


def everywhere(path: str, asked: dict[str, Any], answer: Any) -> None:
    answer.headers["x-request-id"] = answer.headers["set-cookie"] = MARK
    answer.headers[f"x-{MARK}-4711"] = "1"
    if answer.json is not None:
        answer.json = marked(answer.json)
    elif answer.status == 200:
        answer.data = answer.data.replace(b"customer", MARK.encode())


async def test_no_value_and_no_key_of_a_profile_is_in_the_report(tool: Any) -> None:
    def back(path: str, asked: dict[str, Any]) -> None:
        asked.update({name: value.removeprefix(f"{MARK} ") for name, value in asked.items() if isinstance(value, str)})

    report = await tool.examine(tool.plant(everywhere, before=back), api_code=f"{MARK}-code")
    assert report.requests > 15
    assert {each.kind for each in report.findings} == {Difference.OTHER_FORMAT, Difference.UNKNOWN_VALUE}
    for text in (str(report), repr(report), report.to_json()):
        assert MARK not in text
        assert "external" not in text


async def test_ids_as_keys_and_names_of_people_as_keys_are_not_told(tool: Any) -> None:
    def by_id(path: str, asked: dict[str, Any], answer: Any) -> None:
        if path == "/v1/cg":
            answer.json = {f"{MARK}{number}": item for number, item in enumerate(answer.json)}
        if path == "/v1/cpf":
            answer.json = [{f"{MARK}_{number}": 1 for number in range(3)}]
        if path == "/v1/campaign/rerun/history":
            answer.json = {f"{MARK}@example.org": answer.json}

    report = await tool.examine(tool.plant(by_id))
    assert {(each.kind, each.operation) for each in report.findings} == {
        (Difference.WRONG_TYPE, "customer_groups.list"),
        (Difference.ENVELOPE, "profile_fields.list"),
        (Difference.ENVELOPE, "reruns.history"),
    }
    assert MARK not in str(report) + report.to_json()


async def test_the_json_says_what_the_text_says(report: ContractReport) -> None:
    document = json.loads(report.to_json())
    assert document["conforms"] is True
    assert document["assumptions"]["counts"]["confirmed"] == len(report.confirmed)
    assert f"{len(report.confirmed)} are confirmed" in str(report)
    shapes = next(each["shapes"] for each in document["asked"] if each["operation"] == "customers.list")
    assert shapes["$[].customer_id"] == {"a UUID": 200 + 100 - 33}
    report.to_json().encode("ascii")


# --- the patch ---------------------------------------------------------------------------------------


def applied(patch: str, folder: Path, *command: str) -> str:
    shutil.copytree(str(files("nudgescribe_async").joinpath("contract")), folder / PLACE.rpartition("/")[0])
    (folder / "patch").write_text(patch, encoding="utf-8")
    subprocess.run([*command, "patch"], cwd=folder, check=True, capture_output=True)
    return (folder / PLACE).read_text(encoding="utf-8")


def test_git_and_patch_take_it_and_nothing_but_the_evidence_changes(report: ContractReport, tmp_path: Path) -> None:
    patch = report.patch()
    before = files("nudgescribe_async").joinpath("contract", "openapi.yaml").read_text(encoding="utf-8")
    after, again = (
        applied(patch, tmp_path / command[0], *command) for command in (("git", "apply"), ("patch", "-p1", "-i"))
    )
    assert again == after
    changed = [(old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert len(changed) == len(report.confirmed)
    assert all(old.replace("x-evidence: assumed", "x-evidence: observed") == new for old, new in changed)
    document = yaml.load(after, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    validate(document)
    assert {name_of(pointer) for pointer in Contract(document).assumptions()} == {
        each.name for each in report.assumptions if each.standing != "confirmed"
    }


@in_checkout
def test_the_generator_takes_the_patched_contract(
    report: ContractReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ROOT is not None
    for part in ("pyproject.toml", "docs/operations.md"):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, tmp_path / part)
    code = shutil.ignore_patterns("contract", "data", "static", "__pycache__")
    shutil.copytree(ROOT / "nudgescribe_async", tmp_path / "nudgescribe_async", ignore=code)
    applied(report.patch(), tmp_path, "git", "apply")
    monkeypatch.setattr(sys, "argv", ["contract", "--root", str(tmp_path)])
    assert main() == 0
    texts = {path.name: text for path, text in generate(tmp_path).items()}
    assert texts["operations.md"].count("| observed |") > 40
    assert "**observed** (named by analogy" in texts["operations.md"]
    assert "metadata=OBSERVED" in texts["models.py"]
    spaces: dict[str, Any] = {"__name__": "models"}
    exec(compile(texts["models.py"], "models.py", "exec"), spaces)
    assert str(spaces["Campaign"].__attrs_attrs__[0].metadata["evidence"]) == "observed"


def test_there_is_no_patch_where_nothing_was_confirmed() -> None:
    nothing = ContractReport(contract="3", requests=1, findings=(), assumptions=(), asked=())
    assert nothing.patch() == ""
    assert "the answers to 1 request." in str(nothing)


def test_without_yaml_the_extra_is_named(report: ContractReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigurationError, match=re.escape("nudgescribe_async[contract]")):
        report.patch()


# --- the words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (None, "null"),
        (True, "true or false"),
        (3, "a whole number"),
        (3.0, "a whole number"),
        (3.5, "a number"),
        ([], "an array"),
        ({}, "an object"),
        ("", "an empty text"),
        ("2025-09-08T18:18:21.462Z", "a timestamp"),
        ("2025-09-08 18:18:21+02:00", "a timestamp like 9999-99-99 99:99:99+99:99"),
        ("2025-09-08", "a timestamp like 9999-99-99"),
        ("F47AC10B-58CC-4372-A567-0E02B2C3D479", "a UUID"),
        ("eyJhbGciOiJub25lIn0.e30.x", "a JWT"),
        ("https://example.org/x?y", "a URL"),
        ("someone@example.org", "an e-mail address"),
        ("-12.50", "a number as text"),
        ("gold", "a text of up to 8 characters"),
        ("x" * 5_000, "a text of more than 4,096 characters"),
    ],
)
def test_a_form_holds_nothing_of_the_value(value: Any, form: str) -> None:
    assert form_of(value) == form


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("loyalty_tier", True),
        ("line2", True),
        ("a b", False),
        ("4711", False),
        ("c4711", False),
        ("someone@example.org", False),
        ("x" * 50, False),
        (3, False),
    ],
)
def test_a_key_is_told_if_it_looks_like_a_name(key: object, told: bool) -> None:
    assert is_nameable(key) is told


def test_pages_of_which_the_last_is_the_longest_have_several_sizes() -> None:
    pages = {0: Page(()), 1: Page(("a",), 1), 2: Page(("b", "c"), 2), 3: Page(())}
    assert wanted(1, 2) == (1, 2, 3)
    assert [each.kind for each in judge(pages, first=1, stated=1, count=2)] == [Difference.PAGE_SIZE]


async def test_many_new_names_are_a_map_and_are_not_told(tool: Any, tmp_path: Path) -> None:
    people = [f"{first}_{last}" for first in ("Anna", "Ben", "Cleo") for last in "abcdefghijklmnopqrstuvwxyz"]

    def by_person(path: str, asked: dict[str, Any], answer: Any) -> None:
        if path == "/v1/cg":
            answer.json[0] |= dict.fromkeys(people, 1)
        if path == "/v1/customer/pages":
            answer.json = dict.fromkeys(people, 1)
        if path == "/v1/cpf":
            answer.json = {"Anna_list": answer.json, **dict.fromkeys(people, 1)}
        if path == "/v1/campaign/rerun/history":  # one in each
            answer.json = [answer.json[0] | {f"z_{person}": 1} for person in people]

    path = tmp_path / "session.jsonl"
    report = await tool.examine(tool.plant(by_person), record=path)
    for text in (str(report), report.to_json(), path.read_text()):
        assert "Anna" not in text.replace("z_Anna", "")
        assert len(set(re.findall(r"z_\w+", text))) == 32
    assert "fields whose names are not told" in str(report)
    assert await examine_recording(path) == report


# --- a contract that is not as it was installed ------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "received"), [(0.5, None), (1, None), ("0.5", "a number as text"), (True, "true or false")]
)
def test_a_field_that_is_a_number_is_compared_with_one(share: object, received: str | None) -> None:
    document = copy.deepcopy(dict(Contract.load().document))
    document["components"]["schemas"]["CustomerGroup"]["properties"]["share"] = {"type": "number"}
    contract = Contract(document)
    comparison = Comparison(contract)
    group = {"customer_group_id": "g", "workspace_id": "w", "group_name": "n", "share": share}
    exchange = Exchange(
        operation=next(each for each in contract.operations if each.name == "customer_groups.list"),
        body={},
        status=200,
        content_type="application/json",
        headers=(),
        value=[group],
        start=b"",
    )
    comparison.compare(exchange)
    found = [each for each in comparison.findings() if each.where == "$[].share"]
    assert [(each.kind, each.expected, each.received) for each in found] == (
        [] if received is None else [(Difference.WRONG_TYPE, "a number", received)]
    )


class Edited:
    """In place of the file of the contract."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self, *_: str) -> Edited:
        return self

    joinpath = __call__

    def read_bytes(self) -> bytes:
        return self._data


def patch_with(monkeypatch: pytest.MonkeyPatch, report: ContractReport, data: bytes) -> str:
    monkeypatch.setattr("nudgescribe_async.contract_doctor.patch.files", Edited(data))
    return report.patch()


def original() -> bytes:
    return files("nudgescribe_async").joinpath("contract", "openapi.yaml").read_bytes()


def test_what_is_observed_already_stays_so(
    report: ContractReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = applied(report.patch(), tmp_path, "git", "apply").encode()
    assert patch_with(monkeypatch, report, after) == ""


def test_lines_end_as_those_of_the_contract_do(
    report: ContractReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / PLACE
    place.parent.mkdir(parents=True)
    place.write_bytes(original().replace(b"\n", b"\r\n"))
    (tmp_path / "patch").write_bytes(patch_with(monkeypatch, report, place.read_bytes()).encode())
    subprocess.run(["git", "apply", "patch"], cwd=tmp_path, check=True, capture_output=True)
    after = place.read_bytes()
    assert after.count(b"x-evidence: observed") == len(report.confirmed)
    assert after.count(b"\r\n") == after.count(b"\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"run_number:", b"run_no:"),
        (b"x-evidence: assumed", b'x-evidence: "assumed"'),
        (b"x-evidence: assumed", b"x-evidence: reference"),
        (b"openapi: ", b"openapi: : ["),
    ],
)
def test_a_contract_that_was_edited_and_not_generated_from_is_not_guessed_at(
    report: ContractReport, monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes
) -> None:
    with pytest.raises(ConfigurationError, match="has been edited"):
        patch_with(monkeypatch, report, original().replace(old, new))
