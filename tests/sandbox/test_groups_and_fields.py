from __future__ import annotations

from typing import Any

import pytest

TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def workspace(api: Any) -> str:
    return str(api.sandbox.workspace_id)


async def field(api: Any, workspace: str, name: str = "f", kind: str = "string", **more: Any) -> Any:
    return await api.ok("PUT", "/v1/cpf", workspace_id=workspace, field_name=name, field_type=kind, **more)


async def test_creating_twice_makes_two_groups(api: Any, workspace: str) -> None:
    body = {"workspace_id": workspace, "group_name": "VIP"}
    first = await api.ok("PUT", "/v1/cg", **body)
    second = await api.ok("PUT", "/v1/cg", **body)

    assert first["customer_group_id"] != second["customer_group_id"]
    assert "updated_by" not in first
    listed = await api.ok("POST", "/v1/cg", workspace_id=workspace)
    assert [group["customer_group_id"] for group in listed] == [
        first["customer_group_id"],
        second["customer_group_id"],
    ]
    assert all(group["updated_by"] == group["created_by"] for group in listed)
    assert api.sandbox.effects["customer_groups.create"] == 2


async def test_renaming_keeps_the_customers(api: Any, workspace: str) -> None:
    group = await api.group([{"name": "a"}], name="string")
    await api.ok("PATCH", "/v1/cg", workspace_id=workspace, customer_group_id=group, group_name="new 🎉")

    (listed,) = await api.ok("POST", "/v1/cg", workspace_id=workspace)
    assert listed["group_name"] == "new 🎉"
    assert await api.profiles(group) == [{"name": "a"}]


async def test_deleting_a_group_deletes_its_customers(api: Any, workspace: str) -> None:
    group = await api.group([{"name": "a"}], name="string")
    body = {"workspace_id": workspace, "customer_group_id": group}
    await api.ok("DELETE", "/v1/cg", **body)

    assert (await api.call("DELETE", "/v1/cg", **body)).status == 400
    assert (await api.call("POST", "/v1/customer", customer_group_id=group, page=1)).status == 400
    assert await api.ok("POST", "/v1/cg", workspace_id=workspace) == []


async def test_a_group_in_use_is_not_deleted(api: Any, workspace: str) -> None:
    group = await api.group()
    await api.sandbox.create_campaign("c", group)

    answer = await api.call("DELETE", "/v1/cg", workspace_id=workspace, customer_group_id=group)

    assert (answer.status, answer.message) == (400, "Bad Request: a campaign uses this customer group")


async def test_a_group_belongs_to_its_workspace(api: Any) -> None:
    group = await api.group()
    elsewhere = await api.sandbox.create_workspace("elsewhere")
    body = {"workspace_id": elsewhere, "customer_group_id": group}

    assert (await api.call("PATCH", "/v1/cg", **body, group_name="x")).status == 400
    assert (await api.call("DELETE", "/v1/cg", **body)).status == 400
    assert await api.ok("POST", "/v1/cg", workspace_id=elsewhere) == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 401, "Missing Fields: workspace_id, group_name"),
        ({"workspace_id": 5}, 401, "Missing Fields: group_name"),
        ({"workspace_id": 5, "group_name": "x"}, 400, "Bad Request: workspace_id must be a text"),
        ({"workspace_id": None, "group_name": "x"}, 400, "Bad Request: workspace_id must be a text"),
        ({"workspace_id": "w", "group_name": ""}, 400, "Bad Request: group_name must not be empty"),
        ({"workspace_id": "w", "group_name": "x", "y": 1}, 400, "Bad Request: y is not a field of this operation"),
    ],
)
async def test_the_body_is_held_against_the_contract(api: Any, body: Any, status: int, message: str) -> None:
    answer = await api.call("PUT", "/v1/cg", **body)

    assert (answer.status, answer.message) == (status, message)


async def test_a_profile_field_comes_back_as_it_was_made(api: Any, workspace: str) -> None:
    made = await field(api, workspace, "joined", "Date", field_format="MMM dd, yyyy", is_required=True)

    assert made["field_type"] == "Date"
    assert made["field_format"] == "MMM dd, yyyy"
    assert made["is_required"] is True
    assert await api.ok("POST", "/v1/cpf", workspace_id=workspace) == [made]


@pytest.mark.parametrize(
    ("kind", "format_"),
    [
        ("Date", None),
        ("Date", "yyyy"),
        ("Date", "USD"),
        ("currency", None),
        ("currency", "usd"),
        ("currency", "ABC"),
        ("string", "USD"),
        ("number", "yyyy-MM-dd"),
        ("char", "x"),
        ("date", "yyyy-MM-dd"),
        ("text", None),
        ("", None),
    ],
)
async def test_a_format_must_belong_to_its_type(api: Any, workspace: str, kind: str, format_: str | None) -> None:
    more = {} if format_ is None else {"field_format": format_}
    answer = await api.call("PUT", "/v1/cpf", workspace_id=workspace, field_name="f", field_type=kind, **more)

    assert answer.status == 400
    assert await api.ok("POST", "/v1/cpf", workspace_id=workspace) == []


async def test_names_are_unique_in_a_workspace(api: Any, workspace: str) -> None:
    await field(api, workspace)
    other = await field(api, workspace, "g")
    body = {"workspace_id": workspace, "field_name": "f"}

    assert (await api.call("PUT", "/v1/cpf", **body, field_type="number")).status == 400
    assert (await api.call("PATCH", "/v1/cpf", **body, profile_field_id=other["profile_field_id"])).status == 400
    await field(api, await api.sandbox.create_workspace("another"))


@pytest.mark.parametrize("name", [" f", "f ", "\tf", " "])
async def test_names_have_no_space_around_them(api: Any, workspace: str, name: str) -> None:
    answer = await api.call("PUT", "/v1/cpf", workspace_id=workspace, field_name=name, field_type="string")

    assert answer.status == 400


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
async def test_an_unknown_workspace_is_an_invalid_workspace(api: Any, method: str) -> None:
    more = {"PUT": {"field_name": "f", "field_type": "string"}, "POST": {}}
    body = more.get(method, {"profile_field_id": "x"})

    answer = await api.call(method, "/v1/cpf", workspace_id="unknown", **body)

    assert (answer.status, answer.message) == (401, "Invalid Workspace")


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_a_field_belongs_to_its_workspace(api: Any, workspace: str, method: str) -> None:
    made = await field(api, workspace)
    elsewhere = await api.sandbox.create_workspace("elsewhere")

    for place, name in ((elsewhere, made["profile_field_id"]), (workspace, "unknown")):
        assert (await api.call(method, "/v1/cpf", workspace_id=place, profile_field_id=name)).status == 400


async def test_a_change_leaves_out_what_stays(api: Any, workspace: str) -> None:
    made = await field(api, workspace, "f", "currency", field_format="USD")
    change = {"workspace_id": workspace, "profile_field_id": made["profile_field_id"]}

    changed = await api.ok("PATCH", "/v1/cpf", **change, field_format="EUR")
    assert (changed["field_name"], changed["field_type"], changed["field_format"]) == ("f", "currency", "EUR")
    changed = await api.ok("PATCH", "/v1/cpf", **change, field_type="number", is_required=True)
    assert (changed["field_type"], changed["field_format"], changed["is_required"]) == ("number", None, True)


async def test_a_type_stays_while_there_are_values(api: Any, workspace: str) -> None:
    group = await api.group([{"f": 1, "g": "x"}], f="number", g="string")
    (f, _) = await api.ok("POST", "/v1/cpf", workspace_id=workspace)
    change = {"workspace_id": workspace, "profile_field_id": f["profile_field_id"]}

    assert (await api.call("PATCH", "/v1/cpf", **change, field_type="string")).status == 400
    await api.ok("PATCH", "/v1/cpf", **change, field_type="number", is_required=True)
    (row,) = await api.ok("POST", "/v1/customer", customer_group_id=group, page=1)
    await api.ok("DELETE", "/v1/customer", customer_group_id=group, customer_ids=[row["customer_id"]])
    await api.ok("PATCH", "/v1/cpf", **change, field_type="string")


async def test_renaming_a_field_renames_the_data(api: Any, workspace: str) -> None:
    group = await api.group([{"f": 1, "g": "x"}], f="number", g="string")
    (f, _) = await api.ok("POST", "/v1/cpf", workspace_id=workspace)
    await api.ok("PATCH", "/v1/cpf", workspace_id=workspace, profile_field_id=f["profile_field_id"], field_name="h")

    assert await api.profiles(group) == [{"h": 1, "g": "x"}]


async def test_deleting_a_field_deletes_the_data(start: Any) -> None:
    api = await start(queue_above=0, job_time=3_600)
    workspace = api.sandbox.workspace_id
    group = await api.group([{"external_id": "1", "f": 1}], external_id="string", f="number")
    queued = {"workspace_id": workspace, "customer_group_id": group, "customers": [{"external_id": "2", "f": 2}]}
    await api.ok("POST", "/v1/customer/check", **queued)
    (_, f) = await api.ok("POST", "/v1/cpf", workspace_id=workspace)
    await api.ok("DELETE", "/v1/cpf", workspace_id=workspace, profile_field_id=f["profile_field_id"])
    await api.sandbox.drain(hurry=True)

    assert await api.profiles(group) == [{"external_id": "1"}, {"external_id": "2"}]


async def test_a_field_that_becomes_the_identifier_must_identify(api: Any, workspace: str) -> None:
    group = await api.group([{"f": "1"}, {"f": "1"}], f="string")
    (f,) = await api.ok("POST", "/v1/cpf", workspace_id=workspace)
    change = {"workspace_id": workspace, "profile_field_id": f["profile_field_id"], "field_name": "external_id"}

    assert (await api.call("PATCH", "/v1/cpf", **change)).status == 400
    assert await api.profiles(group) == [{"f": "1"}, {"f": "1"}]
    rows = await api.ok("POST", "/v1/customer", customer_group_id=group, page=1)
    await api.ok("DELETE", "/v1/customer", customer_group_id=group, customer_ids=[rows[0]["customer_id"]])
    await api.ok("PATCH", "/v1/cpf", **change)
    await api.ok(
        "POST",
        "/v1/customer/check",
        workspace_id=workspace,
        customer_group_id=group,
        customers=[{"external_id": "1"}, {"external_id": "2"}],
    )
    assert await api.profiles(group) == [{"external_id": "1"}, {"external_id": "2"}]
