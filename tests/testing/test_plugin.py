"""The pytest plugin: in each of the ways in which a project may run its coroutines, and when it is used wrongly.

Most of these run pytest inside pytest, with the plugins that they name and no others. ``test_plugin_project.py`` shows
the same on a project of its own, as a process.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import nudgescribe_async.testing
from nudgescribe_async.testing import _sandbox_thread, plugin

pytest_plugins = ["pytester"]
# Who names a plugin that is loaded already is told that its assertions are not rewritten.
ALREADY = "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"
pytestmark = pytest.mark.filterwarnings(ALREADY)

ASYNCIO = ("-p", "asyncio", "-o", "asyncio_default_fixture_loop_scope=function")
STRICT = (*ASYNCIO, "-o", "asyncio_mode=strict")
AUTO = (*ASYNCIO, "-o", "asyncio_mode=auto")
ANYIO = ("-p", "anyio")

HEAD = """
import asyncio
import pytest
from nudgescribe_async import Nudgescribe
from nudgescribe_async.sandbox import Delay, LoseAnswer, RevokeTokens, Sandbox, Status
"""


class Project:
    """A project in a folder of its own, and the plugins that it has."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester

    def run(self, text: str, *options: str, ini: str = "", conftest: str = "") -> pytest.RunResult:
        self.pytester.makepyfile(test_it=HEAD + text)
        self.pytester.makeini(f"[pytest]\nfilterwarnings =\n  error\n  {ALREADY}\naddopts = --strict-markers\n{ini}")
        if conftest:
            self.pytester.makeconftest(HEAD + conftest)
        return self.pytester.runpytest_inprocess("-p", "nudgescribe", "-p", "no:cacheprovider", *options)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Project(pytester)


def shown(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


# --- who runs the test --------------------------------------------------------------------------------------------

USES_ALL = """
{mark}
async def test_all(nudgescribe_sandbox, nudgescribe_client, nudgescribe_faults):
    assert isinstance(nudgescribe_sandbox, Sandbox)
    assert isinstance(nudgescribe_client, Nudgescribe)
    group = await nudgescribe_sandbox.create_customer_group("Spring")
    (found,) = await nudgescribe_client.customer_groups.list(nudgescribe_sandbox.workspace_id)
    assert found.customer_group_id == group
    fault = nudgescribe_faults.inject(Status(503, retry_after=0), operation="customer_groups.list")
    await nudgescribe_client.customer_groups.list(nudgescribe_sandbox.workspace_id)
    assert fault.fired == 1
    assert nudgescribe_faults.count("customer_groups.list") == 3
    assert nudgescribe_faults.count("customer_groups.list", 503) == 1
    assert [request.operation for request in nudgescribe_faults.requests] == [
        "auth.authenticate", "customer_groups.list", "customer_groups.list", "customer_groups.list"
    ]
    assert dict(nudgescribe_faults.effects) == {{}}
"""
ON_ASYNCIO = "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"


@pytest.mark.parametrize(
    ("mark", "plugins"),
    [
        ("", AUTO),
        ("", (*AUTO, *ANYIO)),
        ("", (*ANYIO, *AUTO)),
        ("@pytest.mark.asyncio", STRICT),
        ("@pytest.mark.asyncio", (*STRICT, *ANYIO)),
        ("@pytest.mark.asyncio(loop_scope='module')", STRICT),
        ("@pytest.mark.asyncio(loop_scope='session')", (*AUTO, *ANYIO)),
        ("", (*AUTO, "-o", "asyncio_default_test_loop_scope=session")),
        ("", (*AUTO, "-o", "asyncio_default_fixture_loop_scope=session")),
        ("@pytest.mark.anyio", ANYIO),
        ("@pytest.mark.anyio", (*ANYIO, *STRICT)),
        ("@pytest.mark.anyio", (*STRICT, *ANYIO)),
        ("", (*ANYIO, "-o", "anyio_mode=auto")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value).replace("-p ", "").replace("-o ", ""),
)
def test_all_fixtures_work_whoever_runs_the_test(project: Project, mark: str, plugins: tuple[str, ...]) -> None:
    text = USES_ALL.format(mark=mark)
    if "anyio" in " ".join(plugins):
        text = ON_ASYNCIO + text
    project.run(text, *plugins).assert_outcomes(passed=1)


def test_options_of_clients_may_have_params(project: Project) -> None:
    text = """
@pytest.fixture(params=[1, 2])
def nudgescribe_client_options(request):
    from nudgescribe_async import RetryPolicy
    return {"retry": RetryPolicy(attempts=request.param)}

async def test_it(nudgescribe_client):
    assert await nudgescribe_client.campaigns.list() == []
"""
    project.run(text, *AUTO).assert_outcomes(passed=2)


def test_tests_of_both_plugins_stand_side_by_side(project: Project) -> None:
    text = """
@pytest.mark.asyncio
async def test_a(nudgescribe_client):
    await nudgescribe_client.campaigns.list()

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_b(nudgescribe_client):
    await nudgescribe_client.campaigns.list()
"""
    project.run(text, *STRICT, *ANYIO).assert_outcomes(passed=2)


def test_fixtures_of_the_user_have_the_client_until_they_are_taken_down(project: Project) -> None:
    text = """
@pytest.fixture
async def group(nudgescribe_client, nudgescribe_sandbox, nudgescribe_faults):
    made = await nudgescribe_client.customer_groups.create(nudgescribe_sandbox.workspace_id, "Spring")
    yield made.customer_group_id
    await nudgescribe_client.customer_groups.delete(nudgescribe_sandbox.workspace_id, made.customer_group_id)
    assert nudgescribe_faults.effects["customer_groups.delete"] == 1

async def test_it(group, nudgescribe_faults):
    nudgescribe_faults.inject(Status(500), times=None)  # over when the fixtures are taken down
"""
    project.run(text, *AUTO).assert_outcomes(passed=1)


def test_the_client_is_closed_and_ends_what_is_under_way(project: Project) -> None:
    text = """
clients = []

async def test_a(nudgescribe_client, nudgescribe_faults):
    nudgescribe_faults.inject(Delay(60))
    call = asyncio.ensure_future(nudgescribe_client.campaigns.list())
    call.add_done_callback(lambda call: clients.append(call.exception()))
    clients.append(nudgescribe_client)
    await asyncio.sleep(0)

async def test_b():
    from nudgescribe_async import ClientClosedError
    client, error = clients
    assert isinstance(error, ClientClosedError)
    with pytest.raises(ClientClosedError):
        await client.campaigns.list()
"""
    project.run(text, *AUTO).assert_outcomes(passed=2)


def test_a_hypothesis_test_is_a_coroutine_too(project: Project) -> None:
    text = """
from hypothesis import HealthCheck, given, settings, strategies

@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(strategies.integers())
async def test_it(nudgescribe_client, number):
    await nudgescribe_client.campaigns.list()
"""
    project.run(text, *AUTO).assert_outcomes(passed=1)


# --- who does not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plugins", "sentence"),
    [
        (
            "async def test_it(nudgescribe_client): ...",
            (),
            "nudgescribe_client needs a plugin that runs coroutines: pip install pytest-asyncio, or anyio.",
        ),
        (
            "async def test_it(nudgescribe_client): ...",
            STRICT,
            'No plugin runs test_it: mark it with @pytest.mark.asyncio, or set asyncio_mode = "auto".',
        ),
        (
            "async def test_it(nudgescribe_client): ...",
            ANYIO,
            "No plugin runs test_it: mark it with @pytest.mark.anyio.",
        ),
        (
            "async def test_it(nudgescribe_client): ...",
            (*STRICT, *ANYIO),
            "No plugin runs test_it: mark it with @pytest.mark.asyncio or @pytest.mark.anyio, or set",
        ),
        (
            "def test_it(nudgescribe_client): ...",
            AUTO,
            "nudgescribe_client is for tests that are coroutines (async def). In others, build a client in",
        ),
        (
            "@pytest.mark.parametrize('anyio_backend', ['trio'])\n@pytest.mark.anyio\nasync def test_it(nudgescribe_client): ...",
            ANYIO,
            'nudgescribe_async is made of asyncio, and this test runs on trio. Let a fixture anyio_backend return "asyncio"',
        ),
        (
            "@pytest.mark.parametrize('anyio_backend', ['asyncio'])\n@pytest.mark.anyio\nasync def test_it(nudgescribe_client): ...",
            (*ANYIO, *AUTO),
            "is run by pytest-asyncio, and its fixtures by anyio, on another event loop. Set asyncio_mode",
        ),
    ],
    ids=["no plugin", "no mark, strict", "no mark, anyio", "no mark, both", "no coroutine", "trio", "auto and anyio"],
)
def test_a_test_that_cannot_have_a_client_is_told_why(
    project: Project, text: str, plugins: tuple[str, ...], sentence: str
) -> None:
    result = project.run(text, *plugins)
    result.assert_outcomes(errors=1)
    assert sentence in shown(result)
    assert "Traceback" not in shown(result)
    assert "plugin.py" not in shown(result)  # the sentence, and not the way to it


def test_a_client_that_is_asked_for_too_late_says_where_to_ask(project: Project) -> None:
    text = """
async def test_it(request):
    request.getfixturevalue("nudgescribe_client")
"""
    result = project.run(text, *AUTO)
    result.assert_outcomes(failed=1)
    assert "test_it asks for nudgescribe_client when its event loop runs already. Have it among the" in shown(result)


@pytest.mark.parametrize("mark", ["", "@pytest.mark.asyncio"])
def test_a_test_of_unittest_is_told_to_build_a_client(project: Project, mark: str) -> None:
    text = f"""
import unittest

class TestIt(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def have(self, nudgescribe_client): ...

    {mark}
    async def test_it(self): ...
"""
    result = project.run(text, *STRICT)
    result.assert_outcomes(errors=1)
    assert "test_it is run by unittest, on an event loop that no fixture knows. Build a client in it:" in shown(result)


def test_an_older_pytest_asyncio_harms_nobody_who_asks_for_no_client(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pytest_asyncio

    def fixture(function: object, *, name: str) -> None:
        raise AssertionError("of 0.23: it knows no loop_scope")

    monkeypatch.setattr(pytest_asyncio, "__version__", "0.23.8")
    monkeypatch.setattr(pytest_asyncio, "fixture", fixture)
    text = """
def test_another(): ...

def test_sandbox(nudgescribe_sandbox): ...

@pytest.mark.asyncio
async def test_client(nudgescribe_client): ...
"""
    result = project.run(text, *STRICT)
    result.assert_outcomes(passed=2, errors=1)
    assert "nudgescribe_client needs pytest-asyncio 1.0 or newer; here is 0.23.8." in shown(result)


def test_the_hooks_are_such_as_an_older_pluggy_knows() -> None:
    hooks = {name: hook for name, hook in vars(plugin).items() if hasattr(hook, "pytest_impl")}
    assert {"pytest_runtest_setup", "pytest_runtest_teardown", "pytest_runtest_makereport"} <= set(hooks)
    assert not [name for name, hook in hooks.items() if hook.pytest_impl["wrapper"]]


def test_a_backend_may_come_with_options(project: Project) -> None:
    text = """
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})])
async def test_it(nudgescribe_client):
    assert await nudgescribe_client.campaigns.list() == []
"""
    project.run(text, *ANYIO).assert_outcomes(passed=1)


def test_the_sandbox_says_that_it_is_not_for_trio(project: Project) -> None:
    pytest.importorskip("trio")
    text = """
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_it(nudgescribe_sandbox):
    await nudgescribe_sandbox.create_customer_group("Spring")
"""
    result = project.run(text, *ANYIO)
    result.assert_outcomes(failed=1)
    assert "The coroutines of the sandbox are for asyncio: no loop of asyncio runs here." in shown(result)


def test_without_the_extra_the_command_that_installs_it_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("nudgescribe_async.sandbox")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "nudgescribe_async.testing._sandbox_thread", raising=False)
    project.pytester.makepyfile(test_it="def test_it(nudgescribe_sandbox): ...")
    conftest = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "jwt" else found(name, *rest)
def pytest_unconfigure():
    importlib.util.find_spec = found
"""
    project.pytester.makeconftest(conftest)
    result = project.pytester.runpytest_inprocess("-p", "nudgescribe")
    result.assert_outcomes(errors=1)
    sentence = 'The sandbox needs two more packages: pip install "nudgescribe_async[sandbox]".'
    # The summary at the end repeats it where lines may be long, as in CI.
    assert shown(result).partition("short test summary")[0].count(sentence) == 1


# --- tests that are no coroutines ---------------------------------------------------------------------------------


def test_a_synchronous_test_has_a_sandbox_that_answers(project: Project) -> None:
    text = """
import json
import urllib.request

def test_it(nudgescribe_sandbox, nudgescribe_faults):
    group = asyncio.run(nudgescribe_sandbox.create_customer_group("Spring"))

    async def job():
        async with Nudgescribe(nudgescribe_sandbox.credentials, base_url=nudgescribe_sandbox.url) as ns:
            return await ns.customer_groups.list(nudgescribe_sandbox.workspace_id)

    assert [found.customer_group_id for found in asyncio.run(job())] == [group]
    with urllib.request.urlopen(nudgescribe_sandbox.url + "/openapi.json") as answer:
        assert json.load(answer)["openapi"]
    assert nudgescribe_faults.count("customer_groups.list") == 1
    assert repr(nudgescribe_faults) == "<SandboxFaults: 0 may still happen, 3 requests>"
"""
    project.run(text).assert_outcomes(passed=1)


# --- options ------------------------------------------------------------------------------------------------------


def test_the_closest_mark_has_the_last_word(project: Project) -> None:
    text = """
pytestmark = pytest.mark.nudgescribe(page_size=2, example=True)

def size(sandbox):
    return sandbox._settings.page_size

def test_module(nudgescribe_sandbox):
    assert nudgescribe_sandbox.example and size(nudgescribe_sandbox) == 2

@pytest.mark.nudgescribe(page_size=3)
class TestClass:
    def test_class(self, nudgescribe_sandbox):
        assert nudgescribe_sandbox.example and size(nudgescribe_sandbox) == 3

    @pytest.mark.nudgescribe(page_size=4, example=False)
    def test_function(self, nudgescribe_sandbox):
        assert size(nudgescribe_sandbox) == 4
        with pytest.raises(Exception, match="no example data"):
            nudgescribe_sandbox.example
"""
    project.run(text).assert_outcomes(passed=3)


def test_options_of_all_sandboxes_and_clients_come_from_fixtures(project: Project) -> None:
    conftest = """
@pytest.fixture(scope="session")
def nudgescribe_sandbox_options():
    return {"page_size": 7}

@pytest.fixture
def nudgescribe_client_options():
    from nudgescribe_async import RetryPolicy
    return {"retry": RetryPolicy(attempts=1)}
"""
    text = """
async def test_it(nudgescribe_sandbox, nudgescribe_client, nudgescribe_faults):
    from nudgescribe_async import ServerError
    assert nudgescribe_sandbox._settings.page_size == 7
    nudgescribe_faults.inject(Status(500))
    with pytest.raises(ServerError):
        await nudgescribe_client.campaigns.list()
"""
    project.run(text, *AUTO, conftest=conftest).assert_outcomes(passed=1)


def test_a_proxy_can_stand_between_the_client_and_the_sandbox(project: Project) -> None:
    text = """
from nudgescribe_async.testing import FaultProxy, Truncate

@pytest.fixture
async def proxy(nudgescribe_sandbox):
    async with FaultProxy(nudgescribe_sandbox.url) as proxy:
        yield proxy

@pytest.fixture
def nudgescribe_client_options(proxy):
    return {"base_url": proxy.url}

async def test_it(nudgescribe_client, proxy):
    fault = proxy.inject(Truncate(), operation="campaigns.list")
    await nudgescribe_client.campaigns.list()
    assert fault.fired == 1
"""
    project.run(text, *AUTO).assert_outcomes(passed=1)


def test_the_example_data_can_be_there_for_all(project: Project) -> None:
    text = "def test_it(nudgescribe_sandbox):\n    assert nudgescribe_sandbox.example.campaigns\n"
    project.run(text, ini="nudgescribe_sandbox_example = true").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("mark", "sentence"),
    [
        ("latenzy=1", "@pytest.mark.nudgescribe: the sandbox has no option 'latenzy'. Perhaps latency?"),
        ("xyz=1", "the sandbox has no option 'xyz'. There are: access_token_lifetime, announce_expiry,"),
        ("latency='fast'", "The sandbox cannot start: latency must be a number, not str"),
        ("latency=-1", "The sandbox cannot start: latency must be at least 0, not -1"),
        ("True", "@pytest.mark.nudgescribe takes options by name, such as latency=0.2; got True."),
        ("listen=False", "listen=False is not for the fixture nudgescribe_sandbox"),
        ("host='host.invalid'", "The sandbox cannot start: The sandbox cannot listen on host.invalid:0"),
    ],
)
def test_a_wrong_option_is_named(project: Project, mark: str, sentence: str) -> None:
    result = project.run(f"@pytest.mark.nudgescribe({mark})\ndef test_it(nudgescribe_sandbox): ...")
    result.assert_outcomes(errors=1)
    assert sentence in shown(result)
    assert "Traceback" not in shown(result)


def test_a_wrong_option_of_all_is_named_with_its_fixture(project: Project) -> None:
    conftest = "@pytest.fixture(scope='session')\ndef nudgescribe_sandbox_options():\n    return {'page_syze': 1}"
    result = project.run("def test_it(nudgescribe_sandbox): ...", conftest=conftest)
    result.assert_outcomes(errors=1)
    assert "nudgescribe_sandbox_options: the sandbox has no option 'page_syze'. Perhaps page_size?" in shown(result)


def test_a_scope_that_there_is_not_stops_the_run(project: Project) -> None:
    result = project.run("def test_it(): ...", ini="nudgescribe_sandbox_scope = modul")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    sentence = "nudgescribe_sandbox_scope must be one of function, class, module, session; got 'modul'."
    assert sentence in result.stderr.str()


# --- scopes -------------------------------------------------------------------------------------------------------

TWO_MODULES = """
import pytest
seen = []

async def test_one(nudgescribe_sandbox, nudgescribe_client):
    await nudgescribe_client.customer_groups.create(nudgescribe_sandbox.workspace_id, "Spring")
    print("SANDBOX", nudgescribe_sandbox.url)

async def test_two(nudgescribe_sandbox, nudgescribe_client):
    await nudgescribe_client.customer_groups.list(nudgescribe_sandbox.workspace_id)
    print("SANDBOX", nudgescribe_sandbox.url)
"""


@pytest.mark.parametrize(("scope", "count"), [("function", 4), ("module", 2), ("session", 1)])
def test_sandboxes_are_shared_as_the_setting_says(project: Project, scope: str, count: int) -> None:
    project.pytester.makepyfile(test_other=TWO_MODULES)
    result = project.run(TWO_MODULES, *AUTO, "-s", ini=f"nudgescribe_sandbox_scope = {scope}")
    result.assert_outcomes(passed=4)
    assert len(set(re.findall("SANDBOX (.*)", result.stdout.str()))) == count


def test_a_fixture_of_the_session_fills_the_sandbox_once(project: Project) -> None:
    text = """
import pytest_asyncio

@pytest_asyncio.fixture(scope="session", loop_scope="session")  # on another loop than the tests
async def group(nudgescribe_sandbox):
    return await nudgescribe_sandbox.create_customer_group("Spring")

@pytest.mark.parametrize("number", [1, 2])
async def test_it(nudgescribe_sandbox, nudgescribe_client, nudgescribe_faults, group, number):
    (found,) = await nudgescribe_client.customer_groups.list(nudgescribe_sandbox.workspace_id)
    assert found.customer_group_id == group
    await nudgescribe_client.customer_groups.update(nudgescribe_sandbox.workspace_id, group, f"Group {number}")
    # Of this test alone: the sandbox has seen more by then.
    assert nudgescribe_faults.count("customer_groups.list") == 1
    assert nudgescribe_faults.count("customer_groups.list", 200) == 1
    assert nudgescribe_faults.count(None) == 0
    assert nudgescribe_faults.effects == {"customer_groups.update": 1}
    assert nudgescribe_faults.effects["customer_groups.create"] == 0
    with pytest.raises(ValueError):
        nudgescribe_faults.effects["customer_groups.lst"]
    assert len(nudgescribe_faults.requests) == 3
    assert nudgescribe_sandbox.count("customer_groups.update") == number

def test_nothing(nudgescribe_faults):
    assert nudgescribe_faults.requests == ()
    assert nudgescribe_faults.effects == {}
"""
    project.run(text, *AUTO, ini="nudgescribe_sandbox_scope = session").assert_outcomes(passed=3)


@pytest.mark.parametrize("through", ["nudgescribe_sandbox", "nudgescribe_faults"])
def test_a_fault_that_is_left_does_not_harm_the_next(project: Project, through: str) -> None:
    text = f"""
async def test_a(nudgescribe_sandbox, nudgescribe_faults):
    {through}.inject(Status(500), times=None)
    {through}.inject(LoseAnswer(), times=None)
    assert len(nudgescribe_faults.injections) == 2

async def test_b(nudgescribe_client, nudgescribe_faults):
    assert nudgescribe_faults.injections == ()
    await nudgescribe_client.campaigns.list()

@pytest.fixture
def leaves_it(nudgescribe_sandbox):
    yield
    nudgescribe_sandbox.inject(Status(500), times=None)

async def test_c(leaves_it): ...

async def test_d(nudgescribe_client):
    await nudgescribe_client.campaigns.list()
"""
    ini = "nudgescribe_sandbox_scope = session"
    project.run(text, *AUTO, ini=ini).assert_outcomes(passed=4)


def test_faults_can_be_ended_before_the_test_ends(project: Project) -> None:
    text = """
async def test_it(nudgescribe_client, nudgescribe_faults):
    first = nudgescribe_faults.inject(Status(500), times=None)
    first.remove()
    first.remove()
    await nudgescribe_client.campaigns.list()
    nudgescribe_faults.inject(Status(500), times=None)
    nudgescribe_faults.clear()
    await nudgescribe_client.campaigns.list()
    assert nudgescribe_faults.count("campaigns.list", 500) == 0
"""
    project.run(text, *AUTO).assert_outcomes(passed=1)


@pytest.mark.parametrize("where", ["function", "class"])
def test_a_shared_sandbox_has_no_options_of_a_single_test(project: Project, where: str) -> None:
    mark = "@pytest.mark.nudgescribe(latency=0)"
    text = f"""
{mark if where == "class" else ""}
class TestIt:
    {mark if where == "function" else ""}
    def test_it(self, nudgescribe_faults): ...

@pytest.mark.nudgescribe(latency=0)
def test_that_uses_none(): ...
"""
    result = project.run(text, ini="nudgescribe_sandbox_scope = module")
    result.assert_outcomes(errors=1, passed=1)
    sentence = "The sandbox is shared (nudgescribe_sandbox_scope = module), so it can have no options of test_it alone."
    assert sentence in shown(result)


def test_a_shared_sandbox_has_options_of_those_who_share_it(project: Project) -> None:
    text = """
pytestmark = pytest.mark.nudgescribe(example=True)

def test_it(nudgescribe_sandbox):
    assert nudgescribe_sandbox.example
"""
    project.run(text, ini="nudgescribe_sandbox_scope = module").assert_outcomes(passed=1)


def test_a_function_in_no_class_does_not_share_the_sandbox_of_a_class(project: Project) -> None:
    text = """
@pytest.mark.nudgescribe(example=True)
def test_it(nudgescribe_sandbox):
    assert nudgescribe_sandbox.example
"""
    project.run(text, ini="nudgescribe_sandbox_scope = class").assert_outcomes(passed=1)


def test_another_sandbox_of_that_name_has_no_faults_of_ours(project: Project) -> None:
    text = """
@pytest.fixture
def nudgescribe_sandbox():
    return Sandbox()

def test_it(nudgescribe_faults): ...
"""
    result = project.run(text)
    result.assert_outcomes(errors=1)
    assert "nudgescribe_faults needs the fixture nudgescribe_sandbox as the plugin has it" in shown(result)


# --- the report of a test that failed -----------------------------------------------------------------------------

FAILS = """
async def test_it(nudgescribe_sandbox, nudgescribe_client, nudgescribe_faults):
    nudgescribe_faults.inject(Status(503, retry_after=0, body=b"word of the body"), operation="customer_groups.list")
    nudgescribe_faults.inject(LoseAnswer(), operation="customer_groups.create")
    nudgescribe_faults.inject(Status(402), operation="messages.publish", times=3)
    nudgescribe_faults.inject(Delay(0.0), times=None)
    await nudgescribe_client.customer_groups.list(nudgescribe_sandbox.workspace_id)
    try:
        await nudgescribe_client.customer_groups.create(nudgescribe_sandbox.workspace_id, "Name in a body")
    except Exception:
        pass
    raise AssertionError(nudgescribe_sandbox.url)

async def test_passes(nudgescribe_client):
    await nudgescribe_client.campaigns.list()
"""


def test_the_report_of_a_test_that_failed_shows_its_requests(project: Project) -> None:
    result = project.run(FAILS, *AUTO)
    result.assert_outcomes(failed=1, passed=1)
    _, _, section = result.stdout.str().partition("Nudgescribe sandbox ---")
    section, _, _ = section.partition("\n=====")
    lines = section.splitlines()[1:]
    words = [" ".join(line.split()) for line in lines]
    assert words[0] == "requests: 4"
    assert " 200 " in words[1]
    assert words[1].endswith("ms auth.authenticate POST /v1/auth (fault: Delay)")
    assert " 503 " in words[2]
    assert "customer_groups.list" in words[2]
    assert words[2].endswith("(fault: Delay+Status)")
    assert " 200 " in words[3]
    assert " --- " in words[4]
    assert words[4].endswith("(fault: Delay+LoseAnswer, no answer, changed something)")
    assert words[5:] == [
        "faults that may still happen:",
        "Status on messages.publish: happened 0 of 3 times",
        "Delay on any operation: happened 4 times",
    ]
    assert result.stdout.str().count("Nudgescribe sandbox ---") == 1


def test_the_report_holds_no_secret_and_no_body(project: Project) -> None:
    text = """
async def test_it(nudgescribe_sandbox, nudgescribe_client):
    await nudgescribe_client.customer_groups.create(nudgescribe_sandbox.workspace_id, "Name in a body")
    owner = nudgescribe_sandbox.credentials
    with open("secrets.txt", "w") as file:
        file.write("\\n".join([owner.api_key, owner.email, owner.password]))
    assert False
"""
    result = project.run(text, *AUTO)
    result.assert_outcomes(failed=1)
    output = result.stdout.str()
    assert "customer_groups.create" in output
    assert "Nudgescribe sandbox ---" in output
    section = output.partition("Nudgescribe sandbox ---")[2]
    for secret in (project.pytester.path / "secrets.txt").read_text().splitlines():
        assert secret
        assert secret not in section
    assert "Name in a body" not in section


def test_a_secret_in_a_path_is_masked(project: Project) -> None:
    text = """
import urllib.error
import urllib.request

async def test_it(nudgescribe_sandbox, nudgescribe_client):
    tokens = await nudgescribe_client.auth.authenticate()
    for secret in (nudgescribe_sandbox.credentials.api_key, tokens.access_token):
        with pytest.raises(urllib.error.HTTPError):
            await asyncio.to_thread(urllib.request.urlopen, f"{nudgescribe_sandbox.url}/v1/{secret}/customers")
    assert False
"""
    result = project.run(text, *AUTO)
    result.assert_outcomes(failed=1)
    section = result.stdout.str().partition("Nudgescribe sandbox ---")[2]
    assert section.count("GET /v1/***/customers") == 2
    assert "nsk_" not in section
    assert "eyJ" not in section


def test_the_report_of_a_shared_sandbox_is_of_this_test(project: Project) -> None:
    text = """
async def test_a(nudgescribe_sandbox, nudgescribe_client):
    for _ in range(30):
        await nudgescribe_client.customer_groups.list(nudgescribe_sandbox.workspace_id)
    assert False

async def test_b(nudgescribe_client):
    await nudgescribe_client.campaigns.list()
    assert False

async def test_c():
    assert False
"""
    result = project.run(text, *AUTO, ini="nudgescribe_sandbox_scope = session")
    result.assert_outcomes(failed=3)
    output = result.stdout.str()
    assert output.count("Nudgescribe sandbox ---") == 2
    assert "the last 20 of 31 requests:" in output
    assert "requests: 2\n" in output


def test_a_path_does_nothing_to_a_terminal(project: Project) -> None:
    text = """
import urllib.error
import urllib.request

def test_it(nudgescribe_sandbox):
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(nudgescribe_sandbox.url + "/%1b[31m%0a" + 300 * "x" + "?token=5ecret")
    assert False
"""
    result = project.run(text)
    result.assert_outcomes(failed=1)
    section = result.stdout.str().partition("Nudgescribe sandbox ---")[2]
    assert r"404" in section
    assert r"GET /\x1b[31m\nxxx" in section
    assert 200 * "x" not in section
    assert "5ecret" not in section


def test_a_set_up_that_failed_is_reported_too(project: Project) -> None:
    text = """
@pytest.fixture
async def broken(nudgescribe_client):
    await nudgescribe_client.campaigns.list()
    raise RuntimeError("broken")

async def test_it(broken): ...
"""
    result = project.run(text, *AUTO)
    result.assert_outcomes(errors=1)
    assert "campaigns.list" in result.stdout.str().partition("Nudgescribe sandbox ---")[2]


@pytest.mark.parametrize(
    ("scope", "outcomes"),
    [
        ("function", {"failed": 1, "errors": 1, "passed": 1}),  # the end of the sandbox tells too
        ("session", {"failed": 1, "errors": 2}),  # and so does the set-up of the next test
    ],
)
def test_a_sandbox_that_does_not_answer_does_not_hold_up_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, scope: str, outcomes: dict[str, int]
) -> None:
    monkeypatch.setattr(_sandbox_thread, "_PATIENCE", 0.05)
    conftest = """
import threading
gate = threading.Event()

@pytest.fixture
def shut():
    return gate

@pytest.fixture
def goes_last():
    yield
    print("TAKEN DOWN")

def pytest_unconfigure():
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "nudgescribe sandbox":
            thread.join(10)
"""
    text = """
import threading

def test_a(goes_last, nudgescribe_sandbox, shut):
    began = threading.Event()
    def block():
        began.set()
        shut.wait(60)
    nudgescribe_sandbox._loop.call_soon_threadsafe(block)
    assert began.wait(10)
    raise AssertionError("the test itself")

def test_b(): ...
"""
    result = project.run(text, "-s", ini=f"nudgescribe_sandbox_scope = {scope}", conftest=conftest)
    result.assert_outcomes(**outcomes)
    output = shown(result)
    assert "AssertionError: the test itself" in output
    assert "TAKEN DOWN" in output
    assert "The sandbox has not answered for 0.05 s: its thread is busy." in output
    assert "INTERNALERROR" not in output
    assert not [thread for thread in threading.enumerate() if thread.name == "nudgescribe sandbox"]


def test_who_fails_to_make_a_report_is_not_taken_for_this_plugin(project: Project) -> None:
    conftest = """
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport():
    raise RuntimeError("no report")
"""
    result = project.run("def test_it(): ...", conftest=conftest)
    assert "RuntimeError: no report" in result.stdout.str()
    assert "Plugin: nudgescribe" not in result.stdout.str()


def test_a_test_that_another_plugin_stops_is_reported(project: Project) -> None:
    conftest = """
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if item.name == "test_b":
        raise RuntimeError("stopped")
"""
    text = "def test_a(nudgescribe_sandbox): ...\n\ndef test_b(nudgescribe_sandbox): ..."
    result = project.run(text, ini="nudgescribe_sandbox_scope = session", conftest=conftest)
    result.assert_outcomes(passed=1, errors=1)
    assert "INTERNALERROR" not in result.stdout.str()


# --- life ---------------------------------------------------------------------------------------------------------


def test_no_thread_is_left(project: Project) -> None:
    text = """
import threading

def test_it(nudgescribe_sandbox):
    assert "nudgescribe sandbox" in {thread.name for thread in threading.enumerate()}

def test_it_again():
    assert "nudgescribe sandbox" not in {thread.name for thread in threading.enumerate()}
"""
    project.run(text).assert_outcomes(passed=2)


# --- what it costs ------------------------------------------------------------------------------------------------


def output(program: str, *, safe_path: bool = True) -> str:
    command = [sys.executable, *(["-P"] if safe_path else []), "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HEAVY = ("aiohttp", "attr", "attrs", "asyncio", "cattrs", "cryptography", "jwt", "sqlite3", "ssl", "nudgescribe_async")


def test_a_run_that_does_not_use_the_plugin_loads_nothing_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(): ...")
    program = f"""
import os, sys
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
os.chdir({str(tmp_path)!r})
import pytest

def heavy():
    return {{name for name in sys.modules if name.partition(".")[0] in {HEAVY}}}

class Watch:
    def pytest_collection(self):
        print("LOADED", sorted(heavy() - before))

before = heavy()
code = pytest.main(["-q", "-p", "nudgescribe", "-p", "no:cacheprovider"], plugins=[Watch()])
print("LOADED", sorted(heavy() - before), int(code))
"""
    lines = [line for line in output(program).splitlines() if line.startswith("LOADED")]
    modules = ["nudgescribe_async", "nudgescribe_async.testing", "nudgescribe_async.testing.plugin"]
    expected = sorted([*modules, "nudgescribe_async.version"])
    assert lines == [f"LOADED {expected}", f"LOADED {expected} 0"]


# --- the face of nudgescribe_async.testing ------------------------------------------------------------------------


def test_importing_the_tools_loads_none_of_them() -> None:
    program = """
import sys
import nudgescribe_async.testing as tools
print(sorted(name for name in sys.modules if name.startswith("nudgescribe_async")))
print(dir(tools) == sorted(dir(tools)), {"VirtualClock", "clock", "__all__"} < set(dir(tools)))
print(tools.clock.VirtualClock is tools.VirtualClock, tools.faults.Reset.__name__)
"""
    assert output(program).splitlines() == [
        "['nudgescribe_async', 'nudgescribe_async.testing', 'nudgescribe_async.version']",
        "True True",
        "True Reset",
    ]


def test_the_modules_of_the_tools_are_attributes_whether_or_not_they_were_imported() -> None:
    load = vars(nudgescribe_async.testing)["__getattr__"]  # once imported, they are found without
    assert load("clock") is nudgescribe_async.testing.clock
    names = dir(nudgescribe_async.testing)
    assert {*nudgescribe_async.testing.__all__, "clock", "faults", "proxy", "scripted", "__all__"} < set(names)
    assert not {"importlib", "_HOMES", "TYPE_CHECKING"} & set(names)


def test_each_tool_is_that_of_the_module_that_it_is_said_to_come_from() -> None:
    homes = nudgescribe_async.testing._HOMES
    for home, names in homes.items():
        for name in names:
            assert getattr(nudgescribe_async.testing, name) is getattr(importlib.import_module(home), name)
    exported = [name for names in homes.values() for name in names]
    assert sorted(exported) == sorted(nudgescribe_async.testing.__all__)


def test_type_checkers_and_the_interpreter_are_told_the_same_of_the_tools() -> None:
    tree = ast.parse(Path(nudgescribe_async.testing.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {
        node.module: tuple(alias.name for alias in node.names)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert told == nudgescribe_async.testing._HOMES


def test_the_star_brings_all_tools() -> None:
    program = "from nudgescribe_async.testing import *\nprint(VirtualClock.__name__, SandboxFaults.__name__)"
    assert output(program) == "VirtualClock SandboxFaults"


def test_the_tools_need_no_extra() -> None:
    program = """
import sys
sys.modules["jwt"] = sys.modules["cryptography"] = None
from nudgescribe_async.testing import *
"""
    assert output(program) == ""


def test_a_tool_that_is_not_there_is_an_attribute_error_like_any_other() -> None:
    with pytest.raises(AttributeError, match=r"^module 'nudgescribe_async.testing' has no attribute 'VirtualClok'$"):
        nudgescribe_async.testing.VirtualClok  # type: ignore[attr-defined]  # noqa: B018
