"""The client as a whole: what it is made of, how it is closed, and which loop it belongs to."""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import subprocess
import sys
import warnings
from contextlib import closing
from typing import Any

import pytest
from helpers import CREDENTIALS, Service, client, hanging, settle

import nudgescribe_async
from nudgescribe_async import (
    CallOptions,
    ClientClosedError,
    ConfigurationError,
    Credentials,
    Nudgescribe,
    Request,
    Response,
    RetryPolicy,
    Timeout,
)
from nudgescribe_async.clock import SystemClock
from nudgescribe_async.sandbox import Sandbox
from nudgescribe_async.testing import ScriptedTransport, VirtualClock, answer

# --- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 30},
        {"retry": 3},
        {"token_store": "path"},
        {"clock": object()},
        {"transport": object()},
        {"transport": ScriptedTransport},
        {"concurrency": 0},
        {"concurrency": True},
        {"concurrency": 1.5},
        {"api_code": ""},
        {"api_code": " "},
        {"api_code": "c\n"},
        {"api_code": "é"},
        {"api_code": 5},
        {"client_address": "nowhere"},
        {"client_address": ""},
        {"client_address": 127},
        {"client_address": b"\x7f\x00\x00\x01"},
        {"client_address": "fe80::1%a\nb"},
        {"base_url": 5},
        {"credentials": None},
        {"credentials": "text"},
    ],
)
def test_a_wrong_argument_is_named_when_the_client_is_built(options: dict[str, Any]) -> None:
    name = "api_key" if "credentials" in options else next(iter(options))
    with pytest.raises(ConfigurationError, match=name):
        Nudgescribe(**({"credentials": CREDENTIALS} | options))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (("API_KEY", "k"), ("EMAIL", "e"), ("PASSWORD", "p")):
        monkeypatch.setenv(f"NUDGESCRIBE_{name}", value)
    for name in ("BASE_URL", "API_CODE"):
        monkeypatch.delenv(f"NUDGESCRIBE_{name}", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NUDGESCRIBE_BASE_URL", ""),
        ("NUDGESCRIBE_BASE_URL", "http://example.org"),
        ("NUDGESCRIBE_BASE_URL", "garbage"),
        ("NUDGESCRIBE_API_CODE", " "),
        ("NUDGESCRIBE_API_CODE", "two\nlines"),
    ],
)
def test_a_wrong_variable_is_named(environment: pytest.MonkeyPatch, variable: str, value: str) -> None:
    environment.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        Nudgescribe.from_env()


async def test_from_env_takes_what_is_there_and_arguments_win(
    environment: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    assert repr(Nudgescribe.from_env()) == "<Nudgescribe https://client-api.nudgescribe.com>"
    environment.setenv("NUDGESCRIBE_BASE_URL", "https://example.org/")
    environment.setenv("NUDGESCRIBE_API_CODE", "code")
    ns = Nudgescribe.from_env()
    assert repr(ns) == "<Nudgescribe https://example.org>"
    assert "code" in ns._session._context_headers["x-auth-context"]
    async with Nudgescribe.from_env(credentials=sandbox.credentials, base_url=sandbox.url) as ns:
        assert await ns.customer_groups.list(sandbox.workspace_id) == []


def test_a_traceback_with_locals_shows_nothing_of_the_environment(environment: pytest.MonkeyPatch) -> None:
    import traceback

    environment.setenv("NUDGESCRIBE_PASSWORD", "MARKED")
    environment.delenv("NUDGESCRIBE_EMAIL")
    with pytest.raises(ConfigurationError) as caught:
        Nudgescribe.from_env()
    text = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "MARKED" not in text


def test_a_traceback_with_locals_shows_a_client_that_could_not_be_built(environment: pytest.MonkeyPatch) -> None:
    import traceback

    environment.setenv("NUDGESCRIBE_API_CODE", "MARKED")
    with pytest.raises(ConfigurationError) as caught:
        Nudgescribe.from_env(concurrency=0)
    text = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "self = <Nudgescribe>" in text
    assert "MARKED" not in text


async def test_anything_with_the_three_attributes_is_credentials(sandbox: Sandbox) -> None:
    assert Credentials.of(sandbox.credentials).email == sandbox.credentials.email
    async with Nudgescribe(
        sandbox.credentials, base_url=sandbox.url, timeout=Timeout(total=30), retry=RetryPolicy(attempts=2)
    ) as ns:
        assert await ns.campaigns.list() == []


# --- closing ---------------------------------------------------------------------------------------


async def test_a_closed_client_refuses_every_call(sandbox: Sandbox) -> None:
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        await ns.campaigns.list()
    assert repr(ns).endswith(" closed>")
    for call in (
        ns.campaigns.list,
        ns.auth.authenticate,
        ns.auth.reauthenticate,
        lambda: ns.customers.iter("g").__anext__(),
        lambda: ns.messages.fetch("c", 1, "url"),
    ):
        with pytest.raises(ClientClosedError, match="closed"):
            await call()
    with pytest.raises(ClientClosedError):
        async with ns:
            pass
    await ns.aclose()


async def test_closing_before_the_first_call_twice_and_at_once() -> None:
    service = Service()
    ns = client(service)
    await ns.aclose()
    await asyncio.gather(*(ns.aclose() for _ in range(5)))
    assert service.closed == 1
    assert service.requests == []
    ns = Nudgescribe(CREDENTIALS)
    await asyncio.gather(*(ns.aclose() for _ in range(5)))


async def test_no_call_is_admitted_from_the_moment_aclose_is_called() -> None:
    service, started, go = Service(), asyncio.Event(), asyncio.Event()

    async def call(_: Request) -> Response:
        started.set()
        await go.wait()
        return answer(200, [])

    service.on_call = call
    ns = client(service)
    under_way = asyncio.create_task(ns.campaigns.list())
    await started.wait()
    closing, late = ns.aclose(), ns.campaigns.list()
    tasks = [asyncio.ensure_future(closing), asyncio.ensure_future(late), asyncio.ensure_future(ns.auth.authenticate())]
    await settle()
    assert not tasks[0].done()
    for refused in tasks[1:]:
        with pytest.raises(ClientClosedError):
            await refused
    go.set()
    assert await under_way == []
    await tasks[0]
    assert service.logins == 1


async def test_calls_under_way_end_within_the_grace_even_if_they_need_a_token() -> None:
    service, started, go = Service(), asyncio.Event(), asyncio.Event()

    async def call(request: Request) -> Response:
        started.set()
        await go.wait()
        return service.authorised(request)

    service.on_call = call
    ns = client(service)
    tasks = [asyncio.create_task(ns.campaigns.list()) for _ in range(5)]
    await started.wait()
    closing = asyncio.create_task(ns.aclose())
    await settle()
    service.good.clear()  # all of them are refused now, and renew
    go.set()
    assert await asyncio.gather(*tasks) == [[]] * 5
    await closing
    assert (service.logins, service.renewals, service.closed) == (1, 1, 1)


@pytest.mark.parametrize("grace", [0, -1, 0.02])
async def test_what_does_not_end_is_cut_and_says_whether_it_may_have_taken_effect(grace: float) -> None:
    service, started = Service(), asyncio.Event()
    service.on_call = hanging(started)
    ns = client(service, concurrency=2)
    create = asyncio.create_task(ns.customer_groups.create("w", "n"))
    read = asyncio.create_task(ns.campaigns.list())
    await started.wait()
    queued = asyncio.create_task(ns.reruns.initiate("c", "g"))
    await settle()
    await ns.aclose(grace=grace)
    with pytest.raises(ClientClosedError, match=r"may have taken effect: look with customer_groups\.list") as caught:
        await create
    assert caught.value.operation == "customer_groups.create"
    assert caught.value.may_have_taken_effect
    assert caught.value.look == "customer_groups.list"
    with pytest.raises(ClientClosedError, match=r"closed while the call was waiting for the answer\. \(") as caught:
        await read
    assert not caught.value.may_have_taken_effect
    with pytest.raises(ClientClosedError, match=r"waiting for a free slot\. It has not taken effect") as caught:
        await queued
    assert not caught.value.may_have_taken_effect
    assert service.closed == 1


async def test_closing_over_a_real_socket_with_calls_in_flight() -> None:
    async with Sandbox(latency=0.1) as sandbox:
        ns = Nudgescribe(sandbox.credentials, base_url=sandbox.url)
        tasks = [asyncio.create_task(ns.customer_groups.list(sandbox.workspace_id)) for _ in range(20)]
        await settle()
        await ns.aclose()
        assert await asyncio.gather(*tasks) == [[]] * 20
        ns = Nudgescribe(sandbox.credentials, base_url=sandbox.url)
        tasks = [asyncio.create_task(ns.customer_groups.list(sandbox.workspace_id)) for _ in range(20)]
        await settle()
        await ns.aclose(grace=0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {ClientClosedError}


async def test_closing_while_a_renewal_hangs(clock: VirtualClock) -> None:
    service, started = Service(), asyncio.Event()
    ns = client(service, clock=clock)
    await ns.campaigns.list()
    service.on_renewal = hanging(started)
    clock.now += 900
    await ns.campaigns.list()  # the renewal runs behind it
    await started.wait()
    clock.now += 100
    waiting = asyncio.create_task(ns.campaigns.list())
    await settle()
    await ns.aclose(grace=0)
    with pytest.raises(ClientClosedError):
        await waiting


async def test_a_cancelled_aclose_still_closes() -> None:
    service, started = Service(), asyncio.Event()
    service.on_call = hanging(started)
    ns = client(service)
    call = asyncio.create_task(ns.campaigns.list())
    await started.wait()
    closing, second = asyncio.create_task(ns.aclose(grace=1_000)), asyncio.create_task(ns.aclose())
    await settle()
    assert not closing.done()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await second
    assert service.closed == 1
    with pytest.raises(ClientClosedError):
        await call
    await ns.aclose()


async def test_a_closing_task_that_is_cancelled_itself_still_closes() -> None:
    """As when ``asyncio.run`` ends: it cancels every task that there is."""
    service, started = Service(), asyncio.Event()
    service.on_call = hanging(started)
    ns = client(service)
    call = asyncio.create_task(ns.campaigns.list())
    await started.wait()
    closing = asyncio.create_task(ns.aclose(grace=1_000))
    await settle()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.gather(call, closing, return_exceptions=True)
    await settle()
    assert service.closed == 1
    await ns.aclose()


async def test_closing_from_within_a_task_group() -> None:
    service, started = Service(), asyncio.Event()
    service.on_call = hanging(started)
    ns = client(service)

    async def call() -> None:
        with pytest.raises(ClientClosedError):
            await ns.campaigns.list()

    async with asyncio.TaskGroup() as group:
        group.create_task(call())
        await started.wait()
        group.create_task(ns.aclose(grace=0))
    assert service.closed == 1


async def test_a_failure_in_the_block_is_not_hidden_by_closing() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with client(Service()) as ns:
            await ns.campaigns.list()
            _ = 1 / 0


async def test_a_transport_that_cannot_close_says_so_every_time() -> None:
    class Broken(Service):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("stuck")

    service = Broken()
    ns = client(service)
    for _ in range(2):
        with pytest.raises(OSError, match="stuck"):
            await ns.aclose()
    assert service.closed == 1


# --- forgotten clients -----------------------------------------------------------------------------


def _forget(ns: Nudgescribe) -> None:
    del ns
    gc.collect()


async def test_a_used_client_that_is_forgotten_warns_and_an_unused_or_closed_one_does_not() -> None:
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Nudgescribe(CREDENTIALS)
        gc.collect()
        ns = client(Service())
        await ns.campaigns.list()
        await ns.aclose()
        del ns
        gc.collect()
        with pytest.raises(ConfigurationError):
            Nudgescribe(CREDENTIALS, timeout=3)  # type: ignore[arg-type]
        gc.collect()
        assert caught == []
        ns = client(Service())
        await ns.campaigns.list()
        del ns
        gc.collect()
    assert [(item.category, "never closed" in str(item.message)) for item in caught] == [(ResourceWarning, True)]


# --- event loops -----------------------------------------------------------------------------------


def test_another_event_loop_is_a_clear_error_while_the_first_is_there() -> None:
    service = Service()
    ns = client(service)
    with closing(asyncio.new_event_loop()) as first, closing(asyncio.new_event_loop()) as second:
        first.run_until_complete(ns.campaigns.list())
        for call in (ns.campaigns.list, ns.auth.authenticate, ns.auth.reauthenticate, ns.customers.iter("g").__anext__):
            with pytest.raises(ConfigurationError, match="another event loop"):
                second.run_until_complete(call())
        with pytest.raises(ConfigurationError, match="close it there"):
            second.run_until_complete(ns.aclose())
        assert service.closed == 0
        first.run_until_complete(ns.campaigns.list())  # it stays open
        first.run_until_complete(ns.aclose())
        second.run_until_complete(ns.aclose())  # closed is closed
    assert service.closed == 1


def test_another_event_loop_while_a_login_is_under_way_in_the_first() -> None:
    service = Service()
    service.on_login = hanging()
    ns = client(service)
    with closing(asyncio.new_event_loop()) as first, closing(asyncio.new_event_loop()) as second:
        call = first.create_task(ns.campaigns.list())
        first.run_until_complete(settle())
        for other in (ns.campaigns.list, ns.auth.authenticate, ns.auth.reauthenticate, ns.aclose):
            with pytest.raises(ConfigurationError, match="another event loop"):
                second.run_until_complete(asyncio.wait_for(other(), 5))
        first.run_until_complete(ns.aclose(grace=0))
        with pytest.raises(ClientClosedError):
            first.run_until_complete(call)


def test_a_client_whose_loop_is_gone_can_be_closed_from_the_next() -> None:
    service = Service()
    ns = client(service)
    asyncio.run(_use(ns))
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(_use(ns))
    asyncio.run(ns.aclose())
    asyncio.run(ns.aclose())
    assert service.closed == 1


async def _use(ns: Nudgescribe) -> None:
    await ns.campaigns.list()


def test_a_client_whose_loop_went_down_with_calls_under_way_can_be_closed_from_the_next() -> None:
    service = Service()
    service.on_login = hanging()
    ns = client(service)
    loop = asyncio.new_event_loop()
    call = loop.create_task(ns.campaigns.list())
    loop.run_until_complete(settle())
    renewal = ns._tokens._renewal
    assert renewal is not None
    loop.close()
    asyncio.run(asyncio.wait_for(ns.aclose(), 5))
    assert service.closed == 1
    for task in (call, renewal, *asyncio.all_tasks(loop)):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()


def test_a_client_is_built_without_a_loop_and_serves_real_sockets_in_one() -> None:
    async def main() -> None:
        async with Sandbox() as sandbox:
            ns = Nudgescribe(sandbox.credentials, base_url=sandbox.url)
            await asyncio.gather(*(ns.customer_groups.list(sandbox.workspace_id) for _ in range(100)))
            await ns.aclose()

    ns = Nudgescribe(CREDENTIALS)
    asyncio.run(main())
    asyncio.run(ns.aclose())


# --- the face --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["nudgescribe_async", "nudgescribe_async.errors", "nudgescribe_async.endpoints.models"]
)
def test_importing_loads_no_http_library_and_no_sandbox(module: str) -> None:
    unwanted = ["aiohttp", "multidict", "sqlite3", "jwt", "cryptography", "nudgescribe_async.sandbox", "yaml"]
    code = f"import {module}, sys; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_building_a_client_with_another_transport_loads_no_aiohttp() -> None:
    code = (
        "import sys\n"
        "from nudgescribe_async import *\n"
        "class T:\n"
        "    async def send(self, request): ...\n"
        "    async def aclose(self): ...\n"
        "Nudgescribe(Credentials(api_key='k', email='e', password='p'), transport=T())\n"
        "print('aiohttp' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_all_is_complete_sorted_and_documented() -> None:
    names = nudgescribe_async.__all__
    assert len(names) == len(set(names))

    def rank(name: str) -> tuple[int, str]:  # constants, classes, the rest: as ruff sorts
        return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)

    assert names == sorted(names, key=rank)
    public = {
        name
        for name, value in vars(nudgescribe_async).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public <= {*names, "TYPE_CHECKING"}  # what nobody has asked for yet is not among them
    from nudgescribe_async import errors
    from nudgescribe_async.endpoints import models

    assert set(models.__all__) <= set(names)
    assert set(errors.__all__) - {"status_error"} <= set(names)
    for name in names:
        value = getattr(nudgescribe_async, name)
        if inspect.isclass(value):
            assert value.__doc__, name
            for method, function in inspect.getmembers(value, inspect.isfunction):
                if not method.startswith("_") and function.__module__.startswith("nudgescribe_async"):
                    assert function.__doc__, f"{name}.{method}"


async def test_the_system_clock() -> None:
    clock = SystemClock()
    before = clock.monotonic(), clock.time()
    await clock.sleep(0)
    assert clock.monotonic() >= before[0]
    assert clock.time() > 1.6e9


async def test_options_may_be_given_to_every_operation() -> None:
    service = Service()
    service.on_call = lambda _: answer(500, {})
    async with client(service) as ns:
        groups = (ns.customers, ns.customer_groups, ns.profile_fields, ns.campaigns, ns.messages, ns.reruns)
        for resource in groups:
            for name, method in inspect.getmembers(resource, inspect.ismethod):
                if not name.startswith("_"):
                    assert "options" in inspect.signature(method).parameters, name
    assert CallOptions().headers == {}


@pytest.mark.parametrize("grace", [None, "5", True, math.nan])
async def test_a_grace_that_is_no_number_of_seconds_is_refused_and_leaves_the_client_open(grace: Any) -> None:
    service = Service()
    async with client(service) as ns:
        with pytest.raises(ConfigurationError, match="grace must be a number of seconds"):
            await ns.aclose(grace=grace)
        assert await ns.customer_groups.list("w") == []
