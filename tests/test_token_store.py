"""Where tokens are kept: one file for many processes, and nobody else."""

# ruff: noqa: ASYNC240 - a small file in a test blocks nobody

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers import START, Service, client, settle

from nudgescribe_async import ClientClosedError, ConfigurationError, FileTokenStore, Nudgescribe, StoredTokens
from nudgescribe_async.sandbox import Sandbox

if TYPE_CHECKING:
    from nudgescribe_async.testing import VirtualClock

TOKENS = StoredTokens(
    access_token="access",
    refresh_token="refresh",
    obtained_at=START,
    expires_at=START + 1,
    refresh_expires_at=START + 2,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


async def test_what_is_saved_is_loaded_and_only_the_owner_may_read_it(path: Path) -> None:
    store = FileTokenStore(path)
    assert await store.load("a") is None
    before = os.umask(0)
    try:
        async with store.lock():
            await store.save("a", TOKENS)
            await store.save("b", StoredTokens.from_plain(TOKENS.to_plain() | {"refresh_token": None}) or TOKENS)
    finally:
        os.umask(before)
    assert await store.load("a") == TOKENS
    assert (await FileTokenStore(str(path)).load("b") or TOKENS).refresh_token is None
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert sorted(file.name for file in path.parent.iterdir()) == ["tokens.json", "tokens.json.lock"]
    assert "access" not in f"{store!r} {TOKENS!r}".replace("access_token", "")


async def test_what_is_forgotten_is_gone_and_the_rest_stays(path: Path) -> None:
    store = FileTokenStore(path)
    assert not await store.forget("a")
    assert not path.exists()
    for name in ("a", "b"):
        await store.save(name, TOKENS)
    async with store.lock():
        forgetting = asyncio.create_task(store.forget("a"))
        await settle()
        assert not forgetting.done()  # somebody is at it
    assert await forgetting
    assert await store.load("a") is None
    assert await store.load("b") == TOKENS
    assert not await store.forget("a")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
async def test_a_file_that_others_may_read_is_refused_with_advice(path: Path, mode: int) -> None:
    path.write_text("")
    path.chmod(mode)
    service = Service()
    async with client(service, token_store=FileTokenStore(path)) as ns:
        with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
            await ns.customer_groups.list("w")
        assert service.requests == []
        path.chmod(0o600)
        await ns.customer_groups.list("w")


GOOD = TOKENS.to_plain()
BROKEN: list[object] = [
    None,
    [],
    {},
    GOOD | {"access_token": None},
    GOOD | {"access_token": ""},
    GOOD | {"access_token": "line\nbreak"},
    GOOD | {"access_token": "ünicode"},
    GOOD | {"refresh_token": 5},
    GOOD | {"expires_at": "soon"},
    GOOD | {"expires_at": float("nan")},
    GOOD | {"expires_at": float("inf")},
    GOOD | {"obtained_at": 10**400},
    {name: item for name, item in GOOD.items() if name != "obtained_at"},
]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"null",
        b"[1]",
        b"garbage",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"my": "config"}',
        b'{"version": 2, "accounts": {}}',
        b'{"version": 1}',
        b'{"version": 1, "accounts": []}',
    ],
)
async def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    service = Service()
    async with client(service, token_store=FileTokenStore(path)) as ns:
        with pytest.raises(ConfigurationError, match="is no token file, and is left as it is"):
            await ns.customer_groups.list("w")
    assert service.requests == []
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        *(json.dumps({"version": 1, "accounts": {"FP": value}}).encode() for value in BROKEN),
    ],
)
async def test_tokens_that_cannot_be_understood_count_as_none_and_are_replaced(path: Path, content: bytes) -> None:
    service = Service()
    store = FileTokenStore(path)
    async with client(service, token_store=store) as ns:
        fingerprint = ns._tokens._fingerprint
        path.write_bytes(content.replace(b"FP", fingerprint.encode()))
        path.chmod(0o600)
        assert await ns.customer_groups.list("w") == []
        assert service.logins == 1
        assert (await store.load(fingerprint) or TOKENS).access_token == "access-MARKED-1"


async def test_a_folder_that_is_missing_or_no_folder_and_a_path_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs the path of a file"):
        FileTokenStore("")
    service = Service()
    for wrong, text in ((tmp_path / "no" / "file", "cannot be locked: No such file"), (tmp_path, "cannot be read")):
        async with client(service, token_store=FileTokenStore(wrong)) as ns:
            with pytest.raises(ConfigurationError, match=text):
                await ns.customer_groups.list("w")
    assert service.requests == []
    (tmp_path.parent / f"{tmp_path.name}.lock").unlink(missing_ok=True)


async def test_a_folder_that_cannot_be_written_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    store = FileTokenStore(path)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(ConfigurationError, match="cannot be written: Permission denied"):
        await store.save("a", TOKENS)
    service = Service()
    async with client(service, token_store=store) as ns:
        assert await ns.customer_groups.list("w") == []
        assert await ns.customer_groups.list("w") == []
    assert service.logins == 1


async def test_a_crash_while_writing_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileTokenStore(path)
    await store.save("a", TOKENS)

    for error in (OSError("crash"), RuntimeError("crash")):

        def crash(_: int, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", crash)
            with pytest.raises((ConfigurationError, RuntimeError)):
                await store.save("a", StoredTokens.from_plain(GOOD | {"access_token": "newer"}) or TOKENS)
    assert await store.load("a") == TOKENS
    assert [file.name for file in path.parent.iterdir()] == ["tokens.json"]


def test_a_platform_without_file_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(ConfigurationError, match="POSIX file locks"):
        FileTokenStore(path)


async def test_waiting_for_the_lock_can_be_cancelled_and_the_lock_is_free_afterwards(path: Path) -> None:
    one, two = FileTokenStore(path), FileTokenStore(path)

    async def take() -> None:
        async with two.lock():
            pass

    async with one.lock():
        waiting = asyncio.create_task(take())
        await asyncio.sleep(0.02)  # some turns of the wait for the lock
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        service = Service()
        ns = client(service, token_store=two)
        call = asyncio.create_task(ns.customer_groups.list("w"))
        await settle()
        await ns.aclose(grace=0)
        with pytest.raises(ClientClosedError):
            await call
        assert service.requests == []
    await take()


async def test_the_lock_is_free_although_a_forked_process_has_the_file_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited: list[int] = []
    opened = os.open

    def open_and_inherit(*arguments: Any) -> int:
        descriptor = opened(*arguments)
        inherited.append(os.dup(descriptor))  # what fork() does to it
        return descriptor

    monkeypatch.setattr(os, "open", open_and_inherit)
    async with FileTokenStore(path).lock():
        pass
    async with asyncio.timeout(5), FileTokenStore(path).lock():
        pass
    for descriptor in inherited:
        os.close(descriptor)


@pytest.mark.parametrize("method", ["_read", "_write"])
async def test_cancelling_waits_for_the_file_work_so_that_the_lock_outlasts_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    store = FileTokenStore(path)
    entered, go = threading.Event(), threading.Event()
    work: Callable[..., Any] = getattr(store, method)

    def slow(*arguments: Any) -> Any:
        entered.set()
        go.wait(10)
        return work(*arguments)

    monkeypatch.setattr(store, method, slow)

    async def use() -> None:
        async with store.lock():
            await (store.load("a") if method == "_read" else store.save("a", TOKENS))

    using = asyncio.create_task(use())
    await asyncio.to_thread(entered.wait, 10)
    using.cancel()
    await settle()
    assert not using.done(), "the lock must not be given up while the thread works"
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    monkeypatch.undo()
    assert await store.load("a") == (None if method == "_read" else TOKENS)


async def test_a_restarted_client_with_a_fresh_token_does_not_log_in(
    sandbox: Sandbox, path: Path, clock: VirtualClock
) -> None:
    options: dict[str, Any] = {"base_url": sandbox.url, "token_store": FileTokenStore(path), "clock": clock}
    for _ in range(3):
        async with Nudgescribe(sandbox.credentials, **options) as ns:
            await asyncio.gather(*(ns.customer_groups.list(sandbox.workspace_id) for _ in range(5)))
    assert (sandbox.count("auth.authenticate"), sandbox.count("auth.reauthenticate")) == (1, 0)
    await sandbox.revoke_tokens()
    async with Nudgescribe(sandbox.credentials, **options) as ns:
        await ns.customer_groups.list(sandbox.workspace_id)
    assert (sandbox.count("auth.authenticate"), sandbox.count("auth.reauthenticate")) == (1, 1)
    clock.now += 14.5 * 86_400
    async with Nudgescribe(sandbox.credentials, **options) as ns:
        await ns.customer_groups.list(sandbox.workspace_id)
    assert (sandbox.count("auth.authenticate"), sandbox.count("auth.reauthenticate")) == (1, 2)
    second = await sandbox.add_account()
    async with Nudgescribe(second, **options) as ns:
        await ns.customer_groups.list(second.workspace_id)
    assert sandbox.count("auth.authenticate") == 2
    assert len(json.loads(path.read_text())["accounts"]) == 2
    assert sandbox.credentials.email not in path.read_text()


DEBUG = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE")  # they tell of slow callbacks on stderr
PROCESS = """
import asyncio, sys
from nudgescribe_async import Credentials, FileTokenStore, Nudgescribe

async def main(url, path, key, email, password, workspace):
    store = FileTokenStore(path)
    credentials = Credentials(api_key=key, email=email, password=password)
    async with Nudgescribe(credentials, base_url=url, token_store=store) as ns:
        print("ready", flush=True)
        while (line := await asyncio.to_thread(sys.stdin.readline)) != "end\\n":
            await asyncio.gather(*(ns.customer_groups.list(workspace) for _ in range(5)))
            print("done", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_that_share_a_file_log_in_once_and_use_no_refresh_token_twice(path: Path) -> None:
    async with Sandbox(latency=0.05) as sandbox:
        own = sandbox.credentials
        arguments = [sandbox.url, str(path), own.api_key, own.email, own.password, own.workspace_id]
        quiet = {name: value for name, value in os.environ.items() if name not in DEBUG}
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                PROCESS,
                *arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=quiet,
            )
            for _ in range(4)
        ]

        async def tell(process: asyncio.subprocess.Process, word: str, reply: bytes) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(word.encode())
            await process.stdin.drain()
            assert await process.stdout.readline() == reply

        try:
            await asyncio.gather(*(tell(process, "", b"ready\n") for process in processes))
            await asyncio.gather(*(tell(process, "go\n", b"done\n") for process in processes))
            assert sandbox.count("auth.authenticate") == 1
            for renewals in (1, 2):
                await sandbox.revoke_tokens()
                await asyncio.gather(*(tell(process, "go\n", b"done\n") for process in processes))
                assert sandbox.count("auth.reauthenticate", 200) == renewals
        finally:
            results = await asyncio.gather(*(process.communicate(b"end\n") for process in processes))
        assert [stderr for _, stderr in results] == [b""] * 4
        assert [process.returncode for process in processes] == [0] * 4
        assert sandbox.count("auth.authenticate") == 1
        assert sandbox.count("auth.reauthenticate") == 2
        assert sandbox.count("customer_groups.list", 200) == 60
