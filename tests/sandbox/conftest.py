from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from importlib.resources import files
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
from attrs import define, field

from nudgescribe_async.sandbox import Sandbox

DOCUMENT = json.loads(files("nudgescribe_async").joinpath("contract", "openapi.json").read_text())


@define
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        assert self.json["success"] is False
        return str(self.json["message"])


@define
class Driver:
    """A client that believes nothing: every answer must be one that the contract allows."""

    sandbox: Sandbox
    http: aiohttp.ClientSession
    token: str = ""
    refresh_token: str = ""
    checked: set[str] = field(factory=set[str])

    async def log_in(self, credentials: Any = None) -> Answer:
        given = credentials or self.sandbox.credentials
        answer = await self.send(
            "POST",
            "/v1/auth",
            headers={"x-api-key": given.api_key},
            json={"email": given.email, "password": given.password},
            token=None,
        )
        if answer.status == 200:
            self.token = answer.json["access_token"]
            self.refresh_token = answer.json["refresh_token"]
        return answer

    async def send(self, method: str, path: str, *, token: str | None = "", **options: Any) -> Answer:
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.token}"
        async with self.http.request(method, path, headers=headers, **options) as response:
            answer = Answer(response.status, response.headers, await response.read())
        self._check(method, path, answer)
        return answer

    async def call(self, method: str, path: str, /, **body: Any) -> Answer:
        return await self.send(method, path, json=body)

    async def ok(self, method: str, path: str, /, **body: Any) -> Any:
        answer = await self.call(method, path, **body)
        assert answer.status == 200, answer.body
        return answer.json

    async def upload(self, group: str, content: bytes, workspace: str | None = None) -> Answer:
        form = aiohttp.FormData()
        form.add_field("workspace_id", workspace or self.sandbox.workspace_id)
        form.add_field("customer_group_id", group)
        form.add_field("file", io.BytesIO(content), filename="customers.csv", content_type="text/csv")
        return await self.send("POST", "/v1/customer/check", data=form)

    async def pages(self, group: str) -> int:
        return int((await self.ok("POST", "/v1/customer/pages", customer_group_id=group))["pages"])

    async def profiles(self, group: str) -> list[dict[str, Any]]:
        """The decrypted profiles of a group, page by page."""
        found = []
        for page in range(1, await self.pages(group) + 1):
            rows = await self.ok("POST", "/v1/customer", customer_group_id=group, page=page)
            found += [dict(self.sandbox.decrypt(row["customer_id"], row["extended_profile"])) for row in rows]
        return found

    async def group(self, customers: Iterable[Mapping[str, object]] = (), **fields: Any) -> str:
        """A group, in a workspace with the fields given: a name to a type, or to a type and a format."""
        for name, kind in fields.items():
            type_, _, format_ = kind.partition(":")
            await self.sandbox.create_profile_field(name, type_, field_format=format_ or None)
        return await self.sandbox.create_customer_group("group", customers=list(customers))

    def _check(self, method: str, path: str, answer: Answer) -> None:
        assert answer.headers["x-request-id"]
        operation = DOCUMENT["paths"].get(path, {}).get(method.lower())
        if operation is None or answer.status in {404, 405}:
            return
        assert str(answer.status) in operation["responses"], f"{method} {path} answered {answer.status}"
        assert answer.status != 500, answer.body
        self.checked.add(operation["operationId"])
        response = operation["responses"][str(answer.status)]
        if "$ref" in response:
            response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
        media_type = answer.headers["Content-Type"].partition(";")[0]
        schema = response["content"][media_type]["schema"]
        if media_type == "application/json":
            jsonschema_rs.validate({"components": DOCUMENT["components"], **schema}, answer.json)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    """Starts a sandbox with options, and logs in to it."""
    async with AsyncExitStack() as exits:

        async def begin(**options: Any) -> Driver:
            sandbox = await exits.enter_async_context(Sandbox(**options))
            http = await exits.enter_async_context(aiohttp.ClientSession(sandbox.url))
            driver = Driver(sandbox, http)
            await driver.log_in()
            return driver

        yield begin


@pytest.fixture
async def api(start: Callable[..., Any]) -> Driver:
    """A sandbox with no options."""
    driver: Driver = await start()
    return driver
