"""The pytest plugin: fixtures with a sandbox, a client for it, and its faults. See ``docs/pytest.md``.

pytest loads this module in every run, whether or not a test has a use for it. So it imports nothing but pytest; the
sandbox and the client are imported by the first test that asks for them.

Who runs on which event loop:

=======================  =========================================================================================
``nudgescribe_sandbox``  on a loop of its own, in a thread of its own: it may outlive the loop of a test, and answers a
                         test that has none
``nudgescribe_client``   on the loop of the test, from its first call to its end
``nudgescribe_faults``   on none
=======================  =========================================================================================
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping

    import pluggy

    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.sandbox import Sandbox
    from nudgescribe_async.testing._sandbox_thread import Moment, ThreadedSandbox
    from nudgescribe_async.testing.sandbox_faults import SandboxFaults

    Scope = Literal["session", "package", "module", "class", "function"]

_LOOPS: tuple[Scope, ...] = ("function", "class", "module", "package", "session")
# The package of a fixture is that of the module that defines it: one of a plugin has none but the session.
_SCOPES = ("function", "class", "module", "session")
_SCOPE = "nudgescribe_sandbox_scope"
_EXAMPLE = "nudgescribe_sandbox_example"
_MARKER = "nudgescribe(**options): options of the sandbox, such as latency=0.2 or example=True; those of Sandbox"
_MARK = "nudgescribe"
_FIXTURES = {"nudgescribe_sandbox", "nudgescribe_client", "nudgescribe_faults"}

_BUILT = "Nudgescribe(nudgescribe_sandbox.credentials, base_url=nudgescribe_sandbox.url)"

_RUNNING = pytest.StashKey["list[ThreadedSandbox]"]()
_BEGINNING = pytest.StashKey["Mapping[ThreadedSandbox, Moment]"]()
_NOTHING: Mapping[ThreadedSandbox, Moment] = {}


# --- what pytest asks --------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings, for ``pyproject.toml`` or ``pytest.ini``."""
    parser.addini(_SCOPE, f"who shares a sandbox of Nudgescribe: one of {', '.join(_SCOPES)}", default="function")
    parser.addini(_EXAMPLE, "whether the sandbox of Nudgescribe begins with example data", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Check the settings; have a client for each of the plugins that run coroutines."""
    config.addinivalue_line("markers", _MARKER)
    scope = config.getini(_SCOPE)
    if scope not in _SCOPES:
        raise pytest.UsageError(f"{_SCOPE} must be one of {', '.join(_SCOPES)}; got {scope!r}.")
    config.stash[_RUNNING] = []
    config.pluginmanager.register(_clients(config), "nudgescribe clients")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note how far the sandboxes are, and refuse options that would have no effect."""
    running = item.config.stash[_RUNNING]
    if running:
        from nudgescribe_async.sandbox import SandboxError  # noqa: PLC0415 - loaded by now

        try:
            item.stash[_BEGINNING] = {sandbox: sandbox.moment() for sandbox in running}
        except SandboxError as error:
            _fail(str(error))
    scope = item.config.getini(_SCOPE)
    if scope != "function" and _FIXTURES & set(getattr(item, "fixturenames", ())):
        shared = _node_of_the_sandbox(item, scope)
        if any(node is not shared and shared in node.iter_parents() for node, _ in item.iter_markers_with_node(_MARK)):
            _fail(
                f"The sandbox is shared ({_SCOPE} = {scope}), so it can have no options of {item.name} alone. Set them "
                f"for the whole {scope}: in the fixture nudgescribe_sandbox_options, or with a mark on the {scope}."
            )


# The two below are wrappers of the older kind: pluggy before 1.2 knows no other, and pytest would not even start.


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, None]:
    """End the faults before the fixtures are taken down, and those that they have left too."""
    _end_faults(item.config)
    yield
    _end_faults(item.config)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Let the report of a test that failed show what was requested of its sandbox."""
    outcome = yield
    if outcome.excinfo is not None:  # no report; raising it here once more would put the blame on this plugin
        return
    report = outcome.get_result()
    if report.failed:
        for sandbox in item.config.stash[_RUNNING]:
            text = _story(sandbox, item.stash.get(_BEGINNING, _NOTHING).get(sandbox))
            if text:
                report.sections.append(("Nudgescribe sandbox", text))


# --- the fixtures ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def nudgescribe_sandbox_options() -> Mapping[str, Any]:
    """Options of every sandbox, such as ``{"page_size": 10}``. Override it in ``conftest.py``; marks go before it."""
    return {}


@pytest.fixture(scope="session")
def nudgescribe_client_options() -> Mapping[str, Any]:
    """Options of every client, such as ``{"retry": RetryPolicy(attempts=1)}``. Override it where you need others."""
    return {}


def _scope_of_the_sandbox(fixture_name: str, config: pytest.Config) -> Scope:
    return cast("Scope", config.getini(_SCOPE))


@pytest.fixture(scope=_scope_of_the_sandbox)
def nudgescribe_sandbox(
    request: pytest.FixtureRequest, nudgescribe_sandbox_options: Mapping[str, Any]
) -> Iterator[Sandbox]:
    """The Nudgescribe service, running: a ``Sandbox``.

    It serves from a thread of its own, so tests need not be coroutines; its coroutines can be awaited on any asyncio
    loop. Its options come from ``nudgescribe_sandbox_options`` and ``@pytest.mark.nudgescribe(...)``. Each test has its
    own sandbox, unless ``nudgescribe_sandbox_scope`` says otherwise.
    """
    try:
        from nudgescribe_async.sandbox import SandboxError  # noqa: PLC0415 - only where it is used
        from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox  # noqa: PLC0415
    except ImportError as error:
        _fail(str(error))
    try:
        sandbox = ThreadedSandbox(**_sandbox_options(request, nudgescribe_sandbox_options))
        sandbox.start()
    except (TypeError, ValueError, SandboxError) as error:
        _fail(f"The sandbox cannot start: {error}")
    running = request.config.stash[_RUNNING]
    running.append(sandbox)
    try:
        yield sandbox
    finally:
        running.remove(sandbox)
        sandbox.stop()


@pytest.fixture
def nudgescribe_client(
    request: pytest.FixtureRequest,
    nudgescribe_sandbox: Sandbox,  # not used here, but pytest has to know of both before the test: they may have params
    nudgescribe_client_options: Mapping[str, Any],
) -> Nudgescribe:
    """A client of ``nudgescribe_sandbox``, for tests that are coroutines; closed after the test.

    Works with pytest-asyncio in both of its modes, whatever the scope of the loop, and with anyio on asyncio. Its
    options come from ``nudgescribe_client_options``.
    """
    fixture = _fixture_of_the_client(request)
    import_module("nudgescribe_async.client")  # here, and not on the event loop
    return cast("Nudgescribe", request.getfixturevalue(fixture))


@pytest.fixture
def nudgescribe_faults(request: pytest.FixtureRequest, nudgescribe_sandbox: Sandbox) -> SandboxFaults:
    """Lets things go wrong in ``nudgescribe_sandbox``, and says what this test requested of it: ``SandboxFaults``.

    Faults end with the test, whoever injected them.
    """
    from nudgescribe_async.testing._sandbox_thread import Moment, ThreadedSandbox  # noqa: PLC0415
    from nudgescribe_async.testing.sandbox_faults import SandboxFaults  # noqa: PLC0415

    if not isinstance(nudgescribe_sandbox, ThreadedSandbox):
        _fail("nudgescribe_faults needs the fixture nudgescribe_sandbox as the plugin has it; here is another one.")
    own = request.config.getini(_SCOPE) == "function"
    return SandboxFaults(nudgescribe_sandbox, Moment() if own else nudgescribe_sandbox.moment())


# --- options -----------------------------------------------------------------------------------------------------


def _node_of_the_sandbox(item: pytest.Item, scope: str) -> pytest.Item | pytest.Collector:
    """What a sandbox of this scope belongs to."""
    kinds: dict[str, type[pytest.Collector]] = {
        "class": pytest.Class,
        "module": pytest.Module,
        "session": pytest.Session,
    }
    return item.getparent(kinds[scope]) or item  # a function in no class has one for itself


def _sandbox_options(request: pytest.FixtureRequest, general: Mapping[str, Any]) -> dict[str, Any]:
    from nudgescribe_async.sandbox import Sandbox  # noqa: PLC0415

    known = set(inspect.signature(Sandbox).parameters)
    options = {"example": request.config.getini(_EXAMPLE)}
    _add(options, general, known, "nudgescribe_sandbox_options")
    for mark in reversed(list(request.node.iter_markers(_MARK))):  # the closest last: it has the last word
        if mark.args:
            _fail(f"@pytest.mark.nudgescribe takes options by name, such as latency=0.2; got {mark.args[0]!r}.")
        _add(options, mark.kwargs, known, "@pytest.mark.nudgescribe")
    if options.get("listen", True) is not True:
        _fail("listen=False is not for the fixture nudgescribe_sandbox: it is another thread, and reached by its url.")
    return options


def _add(options: dict[str, Any], more: Mapping[str, Any], known: set[str], origin: str) -> None:
    for name in more:
        if name not in known:
            from difflib import get_close_matches  # noqa: PLC0415

            close = get_close_matches(name, sorted(known), n=1)
            hint = f"Perhaps {close[0]}?" if close else f"There are: {', '.join(sorted(known))}."
            _fail(f"{origin}: the sandbox has no option {name!r}. {hint}")
    options.update(more)


# --- clients -----------------------------------------------------------------------------------------------------


def _clients(config: pytest.Config) -> ModuleType:
    """A fixture of the client for each of the loops that a test may run on.

    pytest-asyncio takes no part in a test of anyio, nor anyio in one of its. Each only recognises what is made for it,
    pytest-asyncio in its strict mode, and for one loop at that.
    """
    fixtures = ModuleType("nudgescribe_clients")  # pytest looks for fixtures in modules and classes
    if _with_asyncio(config) and not _outdated_asyncio():
        import pytest_asyncio  # noqa: PLC0415 - is loaded already

        for scope in _LOOPS:
            name = f"_nudgescribe_client_in_{scope}_loop"
            setattr(fixtures, name, pytest_asyncio.fixture(_new_client(), loop_scope=scope, name=name))
    if _with_anyio(config):
        name = "_nudgescribe_client_in_anyio"
        setattr(fixtures, name, pytest.fixture(_new_client(), name=name))
    return fixtures


def _with_asyncio(config: pytest.Config) -> bool:
    return any(map(config.pluginmanager.has_plugin, ("asyncio", "pytest_asyncio.plugin")))


def _outdated_asyncio() -> str | None:
    """The version of a pytest-asyncio that is too old: runs in which nobody asks for a client go on with it."""
    version = str(getattr(sys.modules.get("pytest_asyncio"), "__version__", "0"))
    return version if version.startswith("0") else None


def _with_anyio(config: pytest.Config) -> bool:
    return any(map(config.pluginmanager.has_plugin, ("anyio", "anyio.pytest_plugin")))


def _new_client() -> Callable[[Sandbox, Mapping[str, Any]], AsyncIterator[Nudgescribe]]:
    async def client(
        nudgescribe_sandbox: Sandbox, nudgescribe_client_options: Mapping[str, Any]
    ) -> AsyncIterator[Nudgescribe]:
        from nudgescribe_async.client import Nudgescribe  # noqa: PLC0415 - loaded by now

        options: dict[str, Any] = {"base_url": nudgescribe_sandbox.url, **nudgescribe_client_options}
        ns = Nudgescribe(nudgescribe_sandbox.credentials, **options)
        try:
            yield ns
        finally:
            await ns.aclose(grace=0)  # what a test has not waited for, nobody waits for

    return client


def _fixture_of_the_client(request: pytest.FixtureRequest) -> str:
    """The fixture whose loop is that of the test, or a failure that says why there is none."""
    config, test = request.config, request.node
    with_asyncio, with_anyio, outdated = _with_asyncio(config), _with_anyio(config), _outdated_asyncio()
    if _runs_already():
        _fail(
            f"{test.name} asks for nudgescribe_client when its event loop runs already. Have it among the arguments of "
            "the test, or in @pytest.mark.usefixtures: then it is there before."
        )
    if _is_of_unittest(test):
        _fail(
            f"{test.name} is run by unittest, on an event loop that no fixture knows. Build a client in it: {_BUILT}."
        )
    if not _is_coroutine(test):
        _fail(
            "nudgescribe_client is for tests that are coroutines (async def). In others, build a client in the "
            f"coroutine that they run: {_BUILT}."
        )
    mark = test.get_closest_marker("asyncio") if with_asyncio else None  # pytest-asyncio's auto mode marks them all
    on_anyio = with_anyio and "anyio_backend" in request.fixturenames
    if mark is not None and on_anyio:
        _fail(
            f"{test.name} is run by pytest-asyncio, and its fixtures by anyio, on another event loop. Set "
            'asyncio_mode = "strict" if anyio is to run it; else take the mark "anyio" off.'
        )
    if mark is not None and outdated is not None:
        _fail(f"nudgescribe_client needs pytest-asyncio 1.0 or newer; here is {outdated}.")
    if mark is not None:
        scope = mark.kwargs.get("loop_scope") or mark.kwargs.get("scope")
        return f"_nudgescribe_client_in_{scope or config.getini('asyncio_default_test_loop_scope')}_loop"
    if on_anyio:
        backend = request.getfixturevalue("anyio_backend")
        name = backend if isinstance(backend, str) else backend[0]
        if name != "asyncio":
            _fail(
                f"nudgescribe_async is made of asyncio, and this test runs on {name}. Let a fixture anyio_backend "
                'return "asyncio".'
            )
        return "_nudgescribe_client_in_anyio"
    if not with_asyncio and not with_anyio:
        _fail("nudgescribe_client needs a plugin that runs coroutines: pip install pytest-asyncio, or anyio.")
    marks = [f"@pytest.mark.{mark}" for mark, there in (("asyncio", with_asyncio), ("anyio", with_anyio)) if there]
    mode = ', or set asyncio_mode = "auto"' if with_asyncio else ""
    return _fail(f"No plugin runs {test.name}: mark it with {' or '.join(marks)}{mode}.")


def _runs_already() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 - documented, and raises nothing


def _is_of_unittest(test: pytest.Item) -> bool:
    unittest, kind = sys.modules.get("unittest"), getattr(test, "cls", None)
    return unittest is not None and kind is not None and issubclass(kind, unittest.TestCase)


def _is_coroutine(test: pytest.Item) -> bool:
    function = getattr(test, "obj", None)
    hypothesis = getattr(function, "hypothesis", None)
    return inspect.iscoroutinefunction(getattr(hypothesis, "inner_test", function))


# --- the end of a test -------------------------------------------------------------------------------------------


def _end_faults(config: pytest.Config) -> None:
    running = config.stash[_RUNNING]
    if running:
        from nudgescribe_async.sandbox import SandboxError  # noqa: PLC0415 - loaded by now

        for sandbox in running:
            # One that does not answer is told of in the report, and must not keep fixtures from being taken down.
            with contextlib.suppress(SandboxError):
                sandbox.clear_faults()


def _story(sandbox: ThreadedSandbox, beginning: Moment | None) -> str:
    from nudgescribe_async.sandbox import SandboxError  # noqa: PLC0415 - who runs a sandbox has time for it
    from nudgescribe_async.testing._sandbox_story import story  # noqa: PLC0415
    from nudgescribe_async.testing._sandbox_thread import Moment  # noqa: PLC0415

    try:
        return story(sandbox.log_since(Moment() if beginning is None else beginning), sandbox.injections)
    except SandboxError as error:
        return str(error)


def _fail(sentence: str) -> NoReturn:
    raise pytest.fail.Exception(sentence, pytrace=False) from None
