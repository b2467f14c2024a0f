from __future__ import annotations

import ast
import asyncio
import copy
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from helpers import settle

import nudgescribe_async.sandbox
from nudgescribe_async import Nudgescribe
from nudgescribe_async.sandbox import Delay, Sandbox, SandboxError
from nudgescribe_async.sandbox.contract import Contract


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("nudgescribe-sandbox")]


async def test_a_file_survives_a_restart(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    async with Sandbox(db=file, example=True) as first:
        credentials, key, example = first.credentials, first.profile_key, first.example
        async with aiohttp.ClientSession(first.url) as http:
            body = {"email": credentials.email, "password": credentials.password}
            async with http.post("/v1/auth", json=body, headers={"x-api-key": credentials.api_key}) as response:
                token = (await response.json())["access_token"]
        other = await first.add_account()

    api = await start(db=file, example=True)

    assert api.sandbox.credentials == credentials
    assert api.sandbox.profile_key == key
    assert api.sandbox.example == example
    group = example.customer_groups["January 1997"]
    answer = await api.send("POST", "/v1/customer", json={"customer_group_id": group, "page": 1}, token=token)
    row = answer.json[0]
    assert api.sandbox.decrypt(row["customer_id"], row["extended_profile"])["external_id"] == "00001"
    assert (await api.log_in(other)).status == 200


async def test_revocation_and_used_tokens_survive_too(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    first = await start(db=file)
    await first.send("GET", "/v1/auth", token=first.refresh_token)
    await first.sandbox.revoke_tokens()
    await first.sandbox.aclose()

    second = await start(db=file)

    assert (await second.send("GET", "/v1/auth", token=first.refresh_token)).status == 403
    assert (await second.send("POST", "/v1/campaign/all", json={}, token=first.token)).status == 403


async def test_queued_jobs_run_after_a_restart(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    first = await start(db=file, queue_above=0, job_time=3_600)
    group = await first.group(n="number")
    campaign = await first.sandbox.create_campaign("c", group, status="Ready to publish")
    body = {"workspace_id": first.sandbox.workspace_id, "customer_group_id": group, "customers": [{"n": 1}]}
    await first.ok("POST", "/v1/customer/check", **body)
    await first.ok("POST", "/v1/messages/publish", campaign_id=campaign)
    await first.sandbox.aclose()

    second = await start(db=file)
    assert await second.pages(group) == 0
    await second.sandbox.drain(hurry=True)

    assert await second.profiles(group) == [{"n": 1}]
    (workspace,) = await second.ok("POST", "/v1/campaign/all")
    assert workspace["campaigns"][0]["campaign_status"] == "Published"


async def test_an_upload_that_was_cut_off_leaves_nothing_after_a_restart(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    await (await start(db=file)).sandbox.aclose()
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO uploads VALUES ('u', 'a', 'w', 'g', 'x', 't')")
        connection.execute("INSERT INTO staged VALUES ('u', 1, 'c', NULL, 'p', '[]')")
    connection.close()

    api = await start(db=file)

    found = await api.sandbox._now.store.read(
        lambda db: db.all("SELECT * FROM uploads") + db.all("SELECT * FROM staged")
    )
    assert found == []


async def test_the_file_holds_no_value_of_a_profile(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    api = await start(db=file, queue_above=1, job_time=3_600)
    secrets = ["Wolfeschlegelstein", "Llanfairpwll", "Bratwurst"]
    customers = [{"external_id": secrets[0], "city": secrets[1]}]
    group = await api.group(customers, external_id="string", city="string")
    await api.sandbox.create_campaign("c", group, segment_by={"city": None}, template="{external_id} lives in {city}")
    queued = [{"external_id": secrets[2], "city": secrets[2]}] * 2
    await api.ok(
        "POST",
        "/v1/customer/check",
        workspace_id=api.sandbox.workspace_id,
        customer_group_id=group,
        customers=queued,
    )
    await api.sandbox.aclose()

    stored = b"".join(path.read_bytes() for path in await asyncio.to_thread(lambda: list(tmp_path.iterdir())))
    assert group.encode() in stored
    assert b"A256GCM" in stored
    for secret in [*secrets, api.sandbox.credentials.password, api.sandbox.credentials.api_key]:
        assert secret.encode() not in stored


async def test_two_sandboxes_do_not_share_a_file(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    async with Sandbox(db=file):
        with pytest.raises(SandboxError, match="Another sandbox is running on the database"):
            async with Sandbox(db=file):
                pass
    async with Sandbox(db=file):
        pass


async def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("Dear diary, " * 1_000)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()

    for file in (text, other):
        before = file.read_bytes()
        with pytest.raises(SandboxError, match="is not a database of the sandbox"):
            async with Sandbox(db=file):
                pass
        assert file.read_bytes() == before
    with pytest.raises(SandboxError, match="cannot be opened"):
        async with Sandbox(db=tmp_path / "no" / "such" / "folder.db"):
            pass
    assert threads() == []


async def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    async with Sandbox(db=file):
        pass
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(SandboxError, match=r"another version of the sandbox \(format 99, this one reads 1\)"):
        async with Sandbox(db=file):
            pass


async def test_several_run_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    tasks = asyncio.all_tasks()
    async with Sandbox() as one, Sandbox() as two:
        assert len({one.url, two.url, one.storage_url, two.storage_url}) == 4
        assert one.credentials != two.credentials
        assert len(threads()) == 2

    assert threads() == []
    assert asyncio.all_tasks() == tasks
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(one.url)


async def test_closing_twice_is_closing_once() -> None:
    async with Sandbox() as sandbox:
        await sandbox.aclose()
        await sandbox.aclose()
        with pytest.raises(SandboxError, match="not running"):
            await sandbox.create_workspace("w")
        with pytest.raises(SandboxError, match="not running"):
            await sandbox.drain()


async def test_a_sandbox_is_entered_once() -> None:
    sandbox = Sandbox()
    with pytest.raises(SandboxError, match="not running"):
        _ = sandbox.url
    await sandbox.aclose()
    async with sandbox:
        pass
    with pytest.raises(SandboxError, match="make another one"):
        async with sandbox:
            pass


@pytest.mark.parametrize("option", ["port", "storage_port"])
async def test_a_port_in_use_is_said_clearly_and_leaves_nothing(option: str) -> None:
    tasks = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SandboxError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with Sandbox(**{option: port}):
                pass
    assert threads() == []
    assert asyncio.all_tasks() == tasks


async def test_closing_does_not_wait_for_slow_answers() -> None:
    async with Sandbox(latency=3_600) as sandbox, aiohttp.ClientSession(sandbox.url) as http:
        request = asyncio.create_task(http.get("/"))
        while not sandbox._now.api.waiting:
            await asyncio.sleep(0)
        await sandbox.aclose()
        with pytest.raises(aiohttp.ClientError):
            await request


async def test_who_connects_while_it_closes_is_not_forgotten() -> None:
    """A client whose connection stays open, and is heard by nobody, would wait for its answer for long."""
    complaints = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    for turns in range(4):
        async with Sandbox() as sandbox:
            address = urlsplit(sandbox.url)
            clients = [socket.create_connection((str(address.hostname), int(address.port or 0))) for _ in range(8)]
            for _ in range(turns):
                await asyncio.sleep(0)
        for client in clients:
            client.settimeout(5)
            with client, suppress(ConnectionResetError):
                assert client.recv(1) == b""
    assert not complaints


async def test_draining_ends_when_the_sandbox_closes(start: Any) -> None:
    api = await start(job_time=3_600)
    group = await api.group()
    campaign = await api.sandbox.create_campaign("c", group, status="Ready to publish")
    await api.ok("POST", "/v1/messages/publish", campaign_id=campaign)
    draining = asyncio.create_task(api.sandbox.drain())
    await asyncio.sleep(0)

    await api.sandbox.aclose()

    with pytest.raises(SandboxError, match="not running"):
        await draining


async def test_closing_in_the_very_turn_in_which_there_is_work_ends(start: Any) -> None:
    api = await start(job_time=3_600)
    campaign = await api.sandbox.create_campaign("c", await api.group(), status="Ready to publish")
    await api.ok("POST", "/v1/messages/publish", campaign_id=campaign)
    jobs = api.sandbox._now.jobs
    await asyncio.sleep(0.05)  # it waits for the job's time to come
    jobs.wake()
    stopping = asyncio.create_task(jobs.stop())
    ended, _ = await asyncio.wait([stopping], timeout=20)
    assert ended


async def test_a_job_that_fails_is_reported_and_undone(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api = await start(job_time=3_600)
    group = await api.group([{"n": 1}], n="number")
    campaign = await api.sandbox.create_campaign("c", group, status="Ready to publish")
    await api.ok("POST", "/v1/messages/publish", campaign_id=campaign)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("nudgescribe_async.sandbox.messages._render", fail)
    with pytest.raises(SandboxError, match=r"A job failed: publish .*on purpose"):
        await api.sandbox.drain(hurry=True)
    await api.sandbox.drain()
    assert (await api.ok("POST", "/v1/messages/pages", campaign_id=campaign))["pages"] == 0


async def test_a_sandbox_without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_server", refuse)
    async with Sandbox(listen=False) as sandbox:
        paths = {resource.canonical for resource in sandbox.app.router.resources()}
        assert "/v1/campaign/rerun/initiate" in paths
        assert {resource.canonical for resource in sandbox.storage_app.router.resources()} == {"/files/{file_id}"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edition": 4}, "edition must be 1, 2 or 3, not 4"),
        ({"page_size": 0}, "page_size must be at least 1, not 0"),
        ({"page_size": 2**63}, r"page_size must be at least 1 and below 2\*\*63, not 9"),
        ({"latency": -1}, "latency must be at least 0, not -1"),
        ({"job_time": float("nan")}, "job_time must be at least 0, not nan"),
        ({"publish_quota": -1}, "publish_quota must be at least 0, not -1"),
        ({"identifier_field": " "}, "identifier_field must not be empty"),
        ({"state_while_running": " "}, "state_while_running must not be empty"),
        ({"state_while_running": "ready to PUBLISH "}, "state_while_running must be a state of its own"),
        ({"port": -1}, "^port must be from 0 to 65535, not -1"),
        ({"port": 65_536}, "^port must be from 0 to 65535, not 65536"),
        ({"storage_port": 65_536}, "storage_port must be from 0 to 65535, not 65536"),
        ({"log_size": -1}, "log_size must be at least 0, not -1"),
        ({"db": ""}, "db must not be empty: None keeps"),
    ],
)
def test_options_that_cannot_be_right_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sandbox(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edition": "3"}, "edition must be 1, 2 or 3, not str"),
        ({"edition": True}, "edition must be 1, 2 or 3, not bool"),
        ({"page_size": 1.5}, "page_size must be a whole number, not float"),
        ({"page_size": True}, "page_size must be a whole number, not bool"),
        ({"access_token_lifetime": "14d"}, "access_token_lifetime must be a number, not str"),
        ({"rotate_refresh_tokens": "no"}, "rotate_refresh_tokens must be True or False, not str"),
        ({"announce_expiry": None}, "announce_expiry must be True or False, not NoneType"),
        ({"identifier_field": 5}, "identifier_field must be a text, not int"),
        ({"state_while_running": 1}, "state_while_running must be a text, not int"),
        ({"port": "8765"}, "^port must be a whole number, not str"),
        ({"storage_port": None}, "storage_port must be a whole number, not NoneType"),
        ({"log_size": "10"}, "log_size must be a whole number, not str"),
        ({"host": None}, "host must be a text, not NoneType"),
        ({"example": "no"}, "example must be True or False, not str"),
        ({"listen": 0}, "listen must be True or False, not int"),
        ({"db": 5}, "db must be the path of a file, .*, not int"),
        ({"db": b"file"}, "db must be the path of a file, .*, not bytes"),
        ({"db": Path}, "db must be the path of a file, .*, not type"),
    ],
)
def test_options_of_the_wrong_type_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Sandbox(**options)


async def test_what_is_no_operation_is_neither_counted_nor_without_effects(api: Any) -> None:
    sandbox: Sandbox = api.sandbox
    await api.ok("PUT", "/v1/cg", workspace_id=sandbox.workspace_id, group_name="Gold")

    for look in (sandbox.count, lambda name: sandbox.effects[name]):
        with pytest.raises(ValueError, match=r"no operation 'customer_group\.list'\. Perhaps customer_groups\.list"):
            look("customer_group.list")
        with pytest.raises(ValueError, match=r"no operation 'nonsense'\. There are: auth\.authenticate, .*storage\."):
            look("nonsense")
    with pytest.raises(TypeError, match=r"operation must be a text .*, not list"):
        sandbox.count(["customers.list"])  # type: ignore[arg-type]
    for status, error in (
        ("200", TypeError),
        (True, TypeError),
        (20, ValueError),
        (2_000, ValueError),
        (-1, ValueError),
    ):
        with pytest.raises(error, match="status must be an HTTP status, or 0 for no answer, not "):
            sandbox.count("customers.list", status)  # type: ignore[arg-type]

    assert (sandbox.count("customer_groups.create"), sandbox.count("customers.list")) == (1, 0)
    assert (sandbox.count("storage.download"), sandbox.count(None)) == (0, 0)
    assert (sandbox.effects["customer_groups.create"], sandbox.effects["customers.list"]) == (1, 0)
    assert dict(sandbox.effects) == {"customer_groups.create": 1}
    for copied in (copy.deepcopy(sandbox.effects), pickle.loads(pickle.dumps(sandbox.effects))):
        assert copied == sandbox.effects == {"customer_groups.create": 1}
        with pytest.raises(ValueError, match="no operation"):
            copied["customer_group.list"]


async def test_reading_has_no_effects(api: Any) -> None:
    group = await api.group()
    await api.pages(group)
    await api.call("PUT", "/v1/cg", workspace_id="unknown", group_name="x")

    assert dict(api.sandbox.effects) == {}


async def test_the_example_is_what_the_docs_say(start: Any) -> None:
    api = await start(example=True)
    campaigns, groups = api.sandbox.example.campaigns, api.sandbox.example.customer_groups

    (workspace,) = await api.ok("POST", "/v1/campaign/all")
    found = {c["campaign_name"]: c["campaign_status"] for c in workspace["campaigns"]}
    assert found == {
        "Welcome back": "Published",
        "Spring sale": "Ready to publish",
        "Thank you": "Ready for review",
    }
    answer = await api.ok(
        "POST",
        "/v1/campaign/rerun/initiate",
        campaign_id=campaigns["Welcome back"],
        new_customer_group_id=groups["Returning customers"],
    )
    assert all(answer["comparison"].values())


def test_every_operation_of_the_contract_has_a_route() -> None:
    contract = Contract.load()

    assert len(list(contract.operations())) == 22


def test_the_sandbox_imports_nothing_of_the_client() -> None:
    folder = Path(nudgescribe_async.sandbox.__file__).parent
    sources = list(folder.glob("*.py"))
    assert len(sources) > 20
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            ours = [name for name in names if name.startswith("nudgescribe_async")]
            neutral = {"nudgescribe_async.injection"}
            assert all(name.startswith("nudgescribe_async.sandbox") or name in neutral for name in ours), source


@pytest.mark.parametrize("missing", ["cryptography", "jwt"])
def test_a_missing_extra_is_one_clear_sentence(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import nudgescribe_async.sandbox"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    last = run.stderr.strip().splitlines()[-1]
    assert last == 'ImportError: The sandbox needs two more packages: pip install "nudgescribe_async[sandbox]".'


async def test_hurrying_ends_with_the_queue(start: Any) -> None:
    api = await start(job_time=3_600)
    group = await api.group()
    campaign = await api.sandbox.create_campaign("c", group, status="Ready to publish")
    await api.sandbox.drain(hurry=True)
    await api.ok("POST", "/v1/messages/publish", campaign_id=campaign)
    for _ in range(5):  # enough turns of the job runner to run it, if it were in a hurry
        await api.pages(group)

    (workspace,) = await api.ok("POST", "/v1/campaign/all")
    assert workspace["campaigns"][0]["campaign_status"] == "Ready to publish"


async def test_draining_ends_when_the_job_runner_dies(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api = await start()
    group = await api.group()
    campaign = await api.sandbox.create_campaign("c", group, status="Ready to publish")
    dying = threading.Event()

    def fail(*_: object) -> None:
        dying.wait()  # until somebody drains
        raise OSError("disk full")

    # From here on the runner fails, at the latest when the publication wakes it.
    monkeypatch.setattr(api.sandbox._now.jobs, "_run_next", fail)
    await api.ok("POST", "/v1/messages/publish", campaign_id=campaign)
    draining = asyncio.create_task(api.sandbox.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    dying.set()

    with pytest.raises(SandboxError, match="not running"):
        await draining
    with pytest.raises(OSError, match="disk full"):
        await api.sandbox.aclose()
    assert threads() == []


@pytest.mark.parametrize("host", ["", "  "])
def test_an_empty_host_would_listen_everywhere_and_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="host must not be empty"):
        Sandbox(host=host)


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
async def test_a_host_that_is_no_name_is_a_clear_error(host: str) -> None:
    with pytest.raises(SandboxError, match="cannot listen on"):
        async with Sandbox(host=host):
            pass


async def test_a_request_whose_client_has_gone_ends_with_the_sandbox() -> None:
    async with Sandbox() as sandbox:
        group = await sandbox.create_customer_group("g")
        injection = sandbox.inject(Delay(600), operation="customers.count_pages")
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
            call = asyncio.create_task(ns.customers.count_pages(group))
            while not injection.fired:
                await asyncio.sleep(0.001)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
