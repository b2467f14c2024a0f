"""The contract is whole, and everything that is generated from it is up to date."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import edit
from openapi_spec_validator import validate
from operations import DOCUMENT, ENDPOINTS, checkout, endpoint, nodes

from nudgescribe_async.contract.__main__ import main
from nudgescribe_async.contract.check import ContractError
from nudgescribe_async.contract.generate import generate, read
from nudgescribe_async.endpoints import models
from nudgescribe_async.profiles import HasProfile
from nudgescribe_async.shapes import Evidence

# The table of the reference: operation, method and path, effect, retry class, evidence of method and path.
OPERATIONS = {
    "auth.authenticate": ("POST", "/v1/auth", "action", "safe", "reference"),
    "auth.reauthenticate": ("GET", "/v1/auth", "action", "unsafe", "reference"),
    "customers.check": ("POST", "/v1/customer/check", "create", "unsafe", "reference"),
    "customers.count_pages": ("POST", "/v1/customer/pages", "read", "safe", "reference"),
    "customers.list": ("POST", "/v1/customer", "read", "safe", "seed"),
    "customers.update": ("PATCH", "/v1/customer", "update", "idempotent", "reference"),
    "customers.delete": ("DELETE", "/v1/customer", "delete", "idempotent", "reference"),
    "customer_groups.create": ("PUT", "/v1/cg", "create", "unsafe", "seed"),
    "customer_groups.list": ("POST", "/v1/cg", "read", "safe", "seed"),
    "customer_groups.update": ("PATCH", "/v1/cg", "update", "idempotent", "seed"),
    "customer_groups.delete": ("DELETE", "/v1/cg", "delete", "idempotent", "reference"),
    "profile_fields.create": ("PUT", "/v1/cpf", "create", "unsafe", "reference"),
    "profile_fields.list": ("POST", "/v1/cpf", "read", "safe", "reference"),
    "profile_fields.update": ("PATCH", "/v1/cpf", "update", "idempotent", "reference"),
    "profile_fields.delete": ("DELETE", "/v1/cpf", "delete", "idempotent", "reference"),
    "campaigns.list": ("POST", "/v1/campaign/all", "read", "safe", "reference"),
    "messages.publish": ("POST", "/v1/messages/publish", "action", "unsafe", "reference"),
    "messages.count_pages": ("POST", "/v1/messages/pages", "read", "safe", "reference"),
    "messages.fetch": ("POST", "/v1/messages/fetch", "read", "safe", "reference"),
    "reruns.history": ("POST", "/v1/campaign/rerun/history", "read", "safe", "reference"),
    "reruns.messages": ("POST", "/v1/campaign/rerun/messages", "read", "safe", "reference"),
    "reruns.initiate": ("POST", "/v1/campaign/rerun/initiate", "action", "unsafe", "seed"),
}
EVIDENCE = {str(evidence) for evidence in Evidence}
ROOT = checkout()
GENERATED = ("pyproject.toml", "nudgescribe_async", "docs/operations.md")
in_checkout = pytest.mark.skipif(ROOT is None, reason="the tests were taken out of the checkout")


def _below(node: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield path, node
        for key, item in node.items():
            yield from _below(item, f"{path}/{key}")
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _below(item, f"{path}/{index}")


def test_the_contract_is_valid_openapi() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    validate(DOCUMENT)


def test_the_json_says_what_the_yaml_says() -> None:
    text = files("nudgescribe_async").joinpath("contract", "openapi.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == DOCUMENT


def test_it_has_the_operations_of_the_reference_and_no_other() -> None:
    found = {
        node["operationId"]: (method, path, node["x-effect"], node["x-retry"], node["x-evidence"])
        for method, path, node in nodes()
    }
    assert found == OPERATIONS
    assert len(found) == 22


def test_what_changes_nothing_is_safe_and_what_makes_something_new_is_not() -> None:
    for _, _, node in nodes():
        effect, retry = node["x-effect"], node["x-retry"]
        assert (effect == "read") == (retry == "safe") or node["operationId"] == "auth.authenticate"
        if effect == "create":
            assert retry == "unsafe"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_generated_endpoint_says_what_the_contract_says(operation: str) -> None:
    for value in (value for value in ENDPOINTS.values() if value.operation == operation):
        assert OPERATIONS[operation] == (value.method, value.path, value.effect, value.retry, value.evidence)


def test_there_is_no_endpoint_beyond_the_contract() -> None:
    assert {value.operation for value in ENDPOINTS.values()} == set(OPERATIONS)
    assert len(ENDPOINTS) == 24  # messages.fetch answers in three ways


def test_every_property_carries_its_evidence() -> None:
    seen = 0
    for path, node in _below(DOCUMENT["components"]["schemas"]):
        properties = node.get("properties")
        if isinstance(properties, dict) and not path.endswith("/properties"):
            for name, schema in properties.items():
                assert schema.get("x-evidence") in EVIDENCE, f"{path}/{name}"
                assert schema.get("description"), f"{path}/{name}"
                seen += 1
    assert seen > 100


def test_every_response_and_every_parameter_carries_its_evidence() -> None:
    components = DOCUMENT["components"]
    for name, node in {**components["responses"], **components["parameters"]}.items():
        assert node.get("x-evidence") in EVIDENCE, name
    for _, _, node in nodes():
        for status, response in node["responses"].items():
            assert "$ref" in response or response.get("x-evidence") in EVIDENCE, (node["operationId"], status)
        for parameter in node.get("parameters", ()):
            assert "$ref" in parameter or parameter.get("x-evidence") in EVIDENCE, node["operationId"]


def test_what_the_seeds_state_is_marked_so_and_nothing_else_is() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    stated = {
        name
        for name, schema in schemas.items()
        if any(item["x-evidence"] == "seed" for item in schema.get("properties", {}).values())
    }
    assert stated == {
        "ListCustomersBody",
        "CreateCustomerGroupBody",
        "ListCustomerGroupsBody",
        "UpdateCustomerGroupBody",
        "InitiateRerunBody",
        "Customer",
        "CustomerGroup",
        "RerunReceipt",
        "RerunComparison",
    }
    for name in stated:
        assert {item["x-evidence"] for item in schemas[name]["properties"].values()} == {"seed"}, name


def test_every_reference_leads_somewhere() -> None:
    for path, node in _below(DOCUMENT):
        if isinstance(reference := node.get("$ref"), str):
            found: Any = DOCUMENT
            for step in reference.removeprefix("#/").split("/"):
                assert step in found, path
                found = found[step]


def test_the_look_of_an_operation_that_changes_something_is_another_operation_or_its_iterator() -> None:
    for value in ENDPOINTS.values():
        assert (value.look is not None) == (value.retry != "safe"), value.operation
        if value.look is not None:
            assert value.look in {*OPERATIONS, "customers.iter"}


# --- generating ------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    assert ROOT is not None
    for name in GENERATED:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    return tmp_path


def _edit(root: Path, old: str, new: str) -> None:
    edit(root / "nudgescribe_async" / "contract" / "openapi.yaml", old, new)


@in_checkout
def test_generating_again_changes_nothing() -> None:
    assert ROOT is not None
    texts = generate(ROOT)
    assert {path for path, text in texts.items() if path.read_text(encoding="utf-8") != text} == set()
    assert {path.name for path in texts if path.parent.name == "endpoints"} == {
        path.name for path in (ROOT / "nudgescribe_async" / "endpoints").glob("*.py")
    }


@in_checkout
def test_the_page_of_the_docs_lists_every_operation_with_its_evidence() -> None:
    assert ROOT is not None
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for operation, (method, path, effect, retry, evidence) in OPERATIONS.items():
        assert f"`{method} {path}` | {effect} | {retry} | {evidence} |" in page
        assert f"\n## {operation}\n" in page


@in_checkout
def test_one_edit_of_the_contract_changes_the_code_the_page_and_the_json(copy: Path) -> None:
    before = generate(copy)
    _edit(copy, "        published_from:\n", "        published_since:\n")
    after = generate(copy)
    changed = {path.relative_to(copy).as_posix() for path, text in after.items() if before[path] != text}
    assert changed == {
        "nudgescribe_async/endpoints/campaigns.py",
        "nudgescribe_async/contract/openapi.json",
        "docs/operations.md",
    }
    code = after[copy / "nudgescribe_async" / "endpoints" / "campaigns.py"]
    assert 'Argument("published_since", Kind.TIMESTAMP, required=False)' in code
    assert "published_since: datetime | None = None" in code
    assert "published_from" not in code
    compile(code, "campaigns.py", "exec")


@in_checkout
def test_an_edit_of_the_retry_class_reaches_the_endpoint_and_its_docstring(copy: Path) -> None:
    before = generate(copy)
    path = copy / "nudgescribe_async" / "endpoints" / "customers.py"
    assert "retry=RetryClass.IDEMPOTENT" in before[path].split('operation="customers.update"')[1].split(")")[0]
    _edit(
        copy,
        "x-retry: idempotent\n      x-look: customers.iter\n      deprecated: true\n",
        "x-retry: safe\n      deprecated: true\n",
    )
    code = generate(copy)[path]
    assert "retry=RetryClass.SAFE" in code.split('operation="customers.update"')[1].split(")")[0]


@in_checkout
def test_a_new_required_property_becomes_a_field_without_a_default(copy: Path) -> None:
    _edit(copy, "      required: [message_id]\n", "      required: [message_id, content]\n")
    code = generate(copy)[copy / "nudgescribe_async" / "endpoints" / "models.py"]
    assert "    content: str = attrs.field(repr=hidden, metadata=ASSUMED)\n" in code


@in_checkout
def test_pages_that_count_from_0_reach_the_endpoint_and_the_page_of_the_docs(copy: Path) -> None:
    page = "      type: integer\n          minimum: 1\n          default: 1\n"
    _edit(
        copy,
        "x-first-page: {value: 1, x-evidence: assumed}\n"
        '          description: "The page. Left out: the first."\n    ' + page,
        "x-first-page: {value: 0, x-evidence: seed}\n"
        '          description: "The page. Left out: the first."\n    ' + page.replace("1", "0"),
    )
    texts = generate(copy)
    code = texts[copy / "nudgescribe_async" / "endpoints" / "customers.py"]
    assert 'Argument("page", Kind.INTEGER, required=False, first_page=0)' in code
    assert "page: int | None = None" in code
    assert "Pages count from 0 (seed), unless" in " ".join(code.split())
    docs = texts[copy / "docs" / "operations.md"]
    assert "Pages count from 0 (seed) in `customers.list`, from 1 (assumed) in `messages.fetch`;" in docs


def test_the_model_with_a_profile_is_the_one_of_the_contract() -> None:
    marked = {name for name, schema in DOCUMENT["components"]["schemas"].items() if schema.get("x-profile")}
    assert marked == {name for name in models.__all__ if issubclass(getattr(models, name), HasProfile)} == {"Customer"}


@in_checkout
def test_the_command_says_what_differs_then_writes_it_then_is_content(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["contract", "--root", str(copy), *arguments])
        return main(), capsys.readouterr().out

    assert run("--check") == (0, "Everything is up to date.\n")
    models = copy / "nudgescribe_async" / "endpoints" / "models.py"
    whole = models.read_text(encoding="utf-8")
    models.write_text(whole + "# by hand\n", encoding="utf-8")
    (copy / "docs" / "operations.md").unlink()
    (copy / "docs").rmdir()
    differs = "differs: nudgescribe_async/endpoints/models.py\ndiffers: docs/operations.md\n"
    assert run("--check") == (1, differs)
    assert models.read_text(encoding="utf-8") != whole
    assert run() == (0, differs.replace("differs", "written"))
    assert models.read_text(encoding="utf-8") == whole
    assert run() == (0, "Everything is up to date.\n")


def test_the_contract_names_the_endpoint_that_takes_two_kinds_of_body() -> None:
    assert endpoint("customers.check").exactly_one == ("customers", "file")
    assert [value.operation for value in ENDPOINTS.values() if value.partial] == ["customers.check"]


def test_the_json_is_written_for_people_too() -> None:
    text = files("nudgescribe_async").joinpath("contract", "openapi.json").read_text(encoding="utf-8")
    assert text == json.dumps(DOCUMENT, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "x-evidence: seed\n      x-effect: read",
            "x-evidence: certain\n      x-effect: read",
            "is 'certain'; it must be",
        ),
        ("      x-look: campaigns.list\n", "", "x-look must name the read that tells"),
        ("x-look: campaigns.list", "x-look: [campaigns]", "x-look must name the read that tells"),
        ("x-retry: unsafe", "x-retry: perhaps", "is 'perhaps'; it must be one of 'safe', 'idempotent', 'unsafe'"),
        ("x-unwrap: [pages, total_pages]", "x-unwrap: pages", "must be a list of names"),
        ("x-unwrap: [pages, total_pages]", "x-unwrap: [page_count]", "'page_count', which no alternative has"),
        ("required: [url]", "required: [link]", "required names 'link', which is no property"),
        ("x-partial: true", "x-partly: true", "x-partly is no extension"),
        ("x-first-page: {value: 1", "x-first-page: {value: 0", "page.minimum is 1, and pages count from 0"),
        ("x-first-page: {value: 1", "x-first-page: {value: 2", "must be like {value: 1, x-evidence: assumed}"),
        ("{value: 1, x-evidence: assumed}", "1", "must be like {value: 1, x-evidence: assumed}"),
        ("{value: 1, x-evidence: assumed}", "{value: 1}", "must be like {value: 1, x-evidence: assumed}"),
        ("          default: 1\n", "          default: 2\n", "page.default is 2, and pages count from 1"),
        (
            "required: [customer_id, customer_group_id, extended_profile]\n",
            "required: [customer_id, customer_group_id]\n",
            "Customer.x-profile needs 'extended_profile' among the required properties",
        ),
        ("x-profile: true", "x-profile: maybe", "must be one of True, False"),
        ("openapi: 3.1.0", "openapi: [", "is no YAML"),
    ],
)
def test_what_the_generator_cannot_use_is_refused_before_anything_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    problem: str,
) -> None:
    contract = tmp_path / "nudgescribe_async" / "contract" / "openapi.yaml"
    contract.parent.mkdir(parents=True)
    text = files("nudgescribe_async.contract").joinpath("openapi.yaml").read_text(encoding="utf-8")
    assert old in text
    contract.write_text(text.replace(old, new, 1), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["contract", "--root", str(tmp_path)])
    assert main() == 1
    assert problem in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["openapi.yaml"]


def test_a_property_without_evidence_is_refused() -> None:
    text = files("nudgescribe_async.contract").joinpath("openapi.yaml").read_text(encoding="utf-8")
    with pytest.raises(ContractError, match=r"schemas\.DownloadLink\.properties\.url has no x-evidence"):
        read(text.replace("        url:\n          x-evidence: assumed\n", "        url:\n", 1))
