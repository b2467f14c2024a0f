from __future__ import annotations

from typing import Any

import attrs
import pytest

CONTEXT = '{"api_access": true, "api_code": "c"}'


async def renamed(api: Any) -> dict[str, Any]:
    group = await api.group()
    body = {"workspace_id": api.sandbox.workspace_id, "customer_group_id": group, "group_name": "new"}
    found: dict[str, Any] = await api.ok("PATCH", "/v1/cg", **body)
    return found


@pytest.mark.parametrize(
    ("edition", "token", "field", "workspace"), [(1, 401, 400, 400), (2, 403, 401, 401), (3, 403, 401, 401)]
)
async def test_each_edition_has_statuses_of_its_own(
    start: Any, edition: int, token: int, field: int, workspace: int
) -> None:
    api = await start(edition=edition)

    assert (await api.send("POST", "/v1/cg", json={}, token="wrong")).status == token
    assert (await api.send("GET", "/v1/auth", token="wrong")).status == token
    assert (await api.log_in(attrs.evolve(api.sandbox.credentials, password="wrong"))).status == token
    assert (await api.call("POST", "/v1/cg")).status == field
    assert (await api.call("POST", "/v1/cpf", workspace_id="unknown")).status == workspace
    assert (await api.call("POST", "/v1/cg", workspace_id="unknown")).status == 400


async def test_edition_1_writes_a_tab_behind_two_keys(start: Any) -> None:
    answer = await renamed(await start(edition=1))

    assert list(answer) == ["customer_group_id", "workspace_id", "group_name", "created_at\t", "updated_at\t"]


async def test_edition_3_does_not(api: Any) -> None:
    answer = await renamed(api)

    assert list(answer) == ["customer_group_id", "workspace_id", "group_name", "created_at", "updated_at"]


@pytest.mark.parametrize(("edition", "status"), [(1, 404), (2, 404), (3, 400)])
async def test_reruns_came_with_edition_3(start: Any, edition: int, status: int) -> None:
    api = await start(edition=edition)

    assert (await api.call("POST", "/v1/campaign/rerun/history", campaign_id="unknown")).status == status


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v1/cg/", "/v2/cg", "/v1/customer/check/x", "/%00", "/%ff"])
async def test_an_unknown_path_is_404(api: Any, path: str) -> None:
    assert (await api.call("POST", path)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/cg", {"PUT", "POST", "PATCH", "DELETE"}),
        ("HEAD", "/v1/auth", {"GET", "POST"}),
        ("TRACE", "/v1/auth", {"GET", "POST"}),
        ("OPTIONS", "/v1/customer/pages", {"POST"}),
        ("POST", "/", {"GET"}),
    ],
)
async def test_an_unsupported_method_is_405(api: Any, method: str, path: str, allowed: set[str]) -> None:
    answer = await api.send(method, path, token=None)

    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == allowed


@pytest.mark.parametrize(
    ("context", "status"),
    [(CONTEXT, 200), ("nonsense", 400), ("[]", 400), ("{}", 400), ('{"api_code": "c"}', 400), ("[" * 4_000, 400)],
)
async def test_the_context_header_must_be_what_the_guides_say(api: Any, context: str, status: int) -> None:
    headers = {"x-auth-context": context}

    assert (await api.send("POST", "/v1/campaign/all", json={}, headers=headers)).status == status


async def test_a_bad_token_is_said_before_a_bad_body(api: Any) -> None:
    answer = await api.send("POST", "/v1/cg", data=b"{", token="wrong")

    assert answer.status == 403


async def test_every_answer_has_an_id_of_its_own(api: Any) -> None:
    answers = [await api.send("GET", path, token=None) for path in ("/", "/openapi.json", "/nothing", "/v1/auth", "/")]

    assert len({answer.headers["x-request-id"] for answer in answers}) == 5


async def test_the_root_says_what_this_is(api: Any) -> None:
    answer = await api.send("GET", "/", token=None)

    assert "sandbox" in answer.body.decode()
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_the_contract_can_be_had(api: Any) -> None:
    assert (await api.send("GET", "/openapi.json", token=None)).json["openapi"] == "3.1.0"
