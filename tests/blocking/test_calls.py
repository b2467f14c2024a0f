"""The client for those who do not await: calls from threads, coroutines, notebooks and callbacks; closing."""

from __future__ import annotations

import ast
import asyncio
import contextvars
import gc
import os
import pickle
import threading
import time
import traceback
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blocking_service import JANUARY, PATIENCE, WELCOME, client, for_ever, loop_threads, running, seen
from helpers import CREDENTIALS, Service

import nudgescribe_async
from nudgescribe_async import (
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    RerunRequest,
    blocking,
)
from nudgescribe_async.blocking import loop_thread
from nudgescribe_async.events import Event, RequestStarted, RerunProgress
from nudgescribe_async.sandbox import Delay

if TYPE_CHECKING:
    from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox

SPAN: contextvars.ContextVar[str] = contextvars.ContextVar("SPAN", default="none")


@pytest.fixture(scope="module")
def shared() -> Iterator[ThreadedSandbox]:
    with running() as sandbox:
        yield sandbox


# --- calls --------------------------------------------------------------------------------------------------------------


def test_calls_return_what_the_async_client_returns(ns: blocking.Nudgescribe, live: ThreadedSandbox) -> None:
    workspace = live.example.workspace_id
    made = ns.customer_groups.create(workspace, "Made without await")
    assert made.customer_group_id in [item.customer_group_id for item in ns.customer_groups.list(workspace)]
    ns.customer_groups.delete(workspace, made.customer_group_id)
    assert isinstance(ns.messages.fetch(live.example.campaigns[WELCOME], 1, format="csv"), str)
    assert ns.auth.authenticate().expires_in is not None
    assert repr(ns) == f"<blocking.Nudgescribe {live.url}>"
    assert str(loop_threads()) == "['nudgescribe event loop']"


def test_the_environment_has_the_settings(live: ThreadedSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUDGESCRIBE_BASE_URL", live.url)
    for name in ("api_key", "email", "password"):
        monkeypatch.setenv(f"NUDGESCRIBE_{name.upper()}", getattr(live.credentials, name))

    class Ours(blocking.Nudgescribe):
        pass

    with Ours.from_env(concurrency=3) as ns:
        assert type(ns) is Ours
        assert ns.campaigns.list()


def test_an_error_shows_where_it_was_called_and_where_it_arose_and_no_secret(
    ns: blocking.Nudgescribe, live: ThreadedSandbox
) -> None:
    with pytest.raises(BadRequestError) as caught:
        ns.customers.list("no such group")
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == test_an_error_shows_where_it_was_called_and_where_it_arose_and_no_secret.__name__
    assert names[-1] == "_wait_or_raise"
    assert "ns.customers.list(" in shown
    secrets = (live.credentials.api_key, live.credentials.password)
    assert [secret for secret in secrets if secret in shown] == []


@pytest.mark.parametrize("build", [blocking.Nudgescribe, blocking.Nudgescribe.from_env])
def test_a_wrong_argument_is_refused_without_a_word_of_secrets(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("api_key", "email", "password"):
        monkeypatch.setenv(f"NUDGESCRIBE_{name.upper()}", str(getattr(CREDENTIALS, name)))
    arguments = [CREDENTIALS] if build is blocking.Nudgescribe else []
    with pytest.raises(ConfigurationError, match="concurrency") as caught:
        build(*arguments, api_code="code-MARKED-1f", concurrency=0)
    frames = [
        frame for frame, _ in traceback.walk_tb(caught.value.__traceback__) if "blocking" in frame.f_code.co_filename
    ]
    ours = [frame for frame in frames if frame.f_code.co_filename.endswith("client.py")]
    assert ours
    assert "<blocking.Nudgescribe>" in repr([frame.f_locals for frame in ours]) or not arguments
    assert not [frame for frame in ours if "MARKED" in repr(frame.f_locals)]


def test_an_error_is_free_as_soon_as_nobody_holds_it(ns: blocking.Nudgescribe) -> None:
    """Else the frames of each failure, with all that they hold, would wait for the garbage collector."""

    class OwnError(Exception):
        pass

    async def fail(_: object) -> None:
        raise OwnError

    def called() -> weakref.ref[OwnError]:
        try:
            ns.run(fail)
        except OwnError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        assert called()() is None
    finally:
        gc.enable()


def test_threads_share_the_client_and_are_not_in_each_others_way(ns: blocking.Nudgescribe, group: str) -> None:
    together = asyncio.Barrier(8)

    async def meet(inner: nudgescribe_async.Nudgescribe, page: int) -> list[str]:
        await together.wait()  # never ends if one call waits for the other
        return [customer.customer_id for customer in await inner.customers.list(group, page)]

    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(lambda page: ns.run(meet, page), range(1, 9))]
        alike = [*threads.map(lambda page: ns.customers.list(group, page), range(1, 9))]
    assert found == [[customer.customer_id for customer in page] for page in alike]
    assert len({item for page in found for item in page}) == 80


def test_context_variables_are_those_of_each_caller(ns: blocking.Nudgescribe, group: str) -> None:
    heard: list[str] = []
    ns.events.subscribe(lambda event: heard.append(SPAN.get()) if isinstance(event, RequestStarted) else None)

    async def change(_: object) -> str:
        before = SPAN.get()
        SPAN.set("of the call alone")
        return before

    SPAN.set("one")
    ns.auth.authenticate()
    heard.clear()
    ns.customers.list(group)
    context = contextvars.copy_context()
    context.run(SPAN.set, "two")
    context.run(ns.customers.list, group)
    assert heard == ["one", "two"]
    assert (ns.run(change), SPAN.get()) == ("one", "one")


def test_own_coroutines_are_awaited_with_the_client(ns: blocking.Nudgescribe, group: str) -> None:
    async def pages(inner: nudgescribe_async.Nudgescribe, *numbers: int, group: str) -> list[int]:
        found = await asyncio.gather(*(inner.customers.list(group, page=number) for number in numbers))
        return [len(page) for page in found]

    assert ns.run(pages, 1, 2, 3, group=group) == [10, 10, 10]


def test_a_coroutine_in_the_place_of_its_function_is_refused(ns: blocking.Nudgescribe) -> None:
    with pytest.raises(TypeError, match=r"run\(work\), not run\(work\(\)\)"):
        ns.run(for_ever())  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_what_ends_programs_ends_the_call_and_not_the_loop_of_the_others(
    ns: blocking.Nudgescribe, ending: type[BaseException]
) -> None:
    async def leave(_: object) -> None:
        raise ending

    with pytest.raises(ending):
        ns.run(leave)
    assert ns.campaigns.list()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_is_ended_from_within_ends_the_calls(live: ThreadedSandbox, group: str) -> None:
    def leave(event: Event) -> None:
        if isinstance(event, RequestStarted) and event.operation == "customers.list":
            raise SystemExit

    ns = client(live)
    with ThreadPoolExecutor(1) as threads:
        begun = seen(ns, "campaigns.list", RequestStarted)
        live.inject(Delay(PATIENCE, before_work=True), operation="campaigns.list")
        waiting = threads.submit(ns.campaigns.list)
        assert begun.wait(PATIENCE)
        ns.events.subscribe(leave)
        with pytest.raises(ClientClosedError):
            ns.customers.iter(group).collect()  # its requests are tasks of their own
        with pytest.raises(ClientClosedError):
            waiting.result()
    with pytest.raises(ClientClosedError, match="build a new one"):
        ns.campaigns.list()
    ns.close()
    assert not loop_threads()


# --- where it must not be called ----------------------------------------------------------------------------------------


def test_a_call_in_the_thread_of_the_loop_says_that_it_would_wait_for_itself(
    ns: blocking.Nudgescribe, live: ThreadedSandbox, group: str
) -> None:
    failures: list[Exception] = []
    with client(live) as another:

        def subscriber(event: Event) -> None:
            for call in (ns.close, ns.campaigns.list, another.campaigns.list, ns.customers.iter(group).close):
                try:
                    call()
                except ConfigurationError as error:
                    failures.append(error)

        end = ns.events.subscribe(subscriber)
        assert ns.customers.list(group)
        end()
        assert len(failures) >= 8
        assert {str(failure) for failure in failures} == {str(failures[0]), str(failures[2])}
        assert "would wait for itself for ever" in str(failures[0])

        async def within(_: object) -> object:
            return ns.customers.count_pages(group)

        with pytest.warns(RuntimeWarning, match="called in a coroutine"), pytest.raises(ConfigurationError):
            ns.run(within)
    assert ns.campaigns.list()


async def test_a_coroutine_is_told_that_its_loop_stands_still(ns: blocking.Nudgescribe, group: str) -> None:
    with pytest.warns(RuntimeWarning, match=r"Customers\.list is called in a coroutine.*await") as told:
        assert ns.customers.list(group)
    assert told[0].filename == __file__
    with pytest.warns(RuntimeWarning, match=r"Customers\.iter"):
        assert len([*ns.customers.iter(group)]) == 467
    assert await asyncio.to_thread(ns.customers.list, group)
    with pytest.warns(RuntimeWarning, match=r"run is called in a coroutine") as told:
        ns.run(_nothing)
    assert told[0].filename == __file__

    async def generator() -> AsyncIterator[int]:
        yield ns.customers.count_pages(group)

    with pytest.warns(RuntimeWarning, match=r"Customers\.count_pages is called in a coroutine"):
        assert [number async for number in generator()] == [47]


async def test_a_cell_of_a_notebook_runs_where_a_loop_runs(live: ThreadedSandbox) -> None:
    """As IPython runs cells: within a coroutine of the kernel, in the thread of its running loop."""
    cell = """
with blocking.Nudgescribe(live.credentials, base_url=live.url) as ns:
    found = [customer.customer_id for customer in ns.customers.iter(group)]
    in_comprehension = [ns.customers.count_pages(each) for each in (group,)]

def helper():
    with blocking.Nudgescribe(live.credentials, base_url=live.url) as ns:
        return ns.customers.iter(group).collect()

collected = helper()
"""
    space: dict[str, Any] = {"blocking": blocking, "live": live, "group": live.example.customer_groups[JANUARY]}
    assert asyncio.get_running_loop().is_running()
    exec(compile(cell, "<cell>", "exec", dont_inherit=True), space)
    awaiting = f"import asyncio\nawait asyncio.sleep(0)\n{cell}"  # a cell may await as well
    await eval(compile(awaiting, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True), space)
    assert (len(set(space["found"])), len(space["collected"]), space["in_comprehension"]) == (467, 467, [47])


def test_a_client_is_not_pickled(ns: blocking.Nudgescribe) -> None:
    with pytest.raises(TypeError, match="Build one where the work is done"):
        pickle.dumps(ns)


def test_in_a_forked_process_a_used_client_says_so(
    live: ThreadedSandbox, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a fork sees, in this process, for the sake of coverage; with a real one in ``test_end.py``."""
    ns, unused = client(live), client(live)
    ns.campaigns.list()
    stream = ns.customers.iter(group)
    next(stream)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", os.getppid)
        with pytest.raises(ConfigurationError, match="before this process was forked"):
            ns.campaigns.list()
        with pytest.raises(ConfigurationError, match="before this process was forked"):
            list(stream)
        stream.close()
        ns.close()
        loop_thread._end_all()
        assert loop_threads()
        assert unused.campaigns.list()
        unused.close()
    assert ns.campaigns.list()
    ns.close()


# --- closing ------------------------------------------------------------------------------------------------------------


def test_nothing_is_begun_before_the_first_call(live: ThreadedSandbox) -> None:
    client(live)
    with client(live) as ns:
        assert not loop_threads()
        ns.campaigns.list()
        assert loop_threads()
    assert not loop_threads()


def test_a_closed_client_refuses_and_may_be_closed_again(live: ThreadedSandbox, group: str) -> None:
    ns = client(live)
    begun, unbegun = ns.customers.iter(group), ns.customers.iter(group)
    next(begun)
    ns.close()
    ns.close(grace=0)
    for call in (ns.campaigns.list, ns.customers.iter(group).collect, unbegun.__next__, lambda: ns.run(for_ever)):
        with pytest.raises(ClientClosedError):
            call()
    with pytest.raises(ClientClosedError, match="build a new one"), ns:
        pass
    for _ in range(9):
        next(begun)  # what had come
    with pytest.raises(ClientClosedError):
        next(begun)
    begun.close()
    assert begun.cursor.page == 2
    assert repr(ns) == f"<blocking.Nudgescribe {live.url} closed>"


def test_closing_before_the_first_call_closes_the_transport() -> None:
    service = Service()
    blocking.Nudgescribe(CREDENTIALS, transport=service).close()
    assert service.closed == 1
    assert not loop_threads()


def test_calls_of_other_threads_have_the_grace_and_end(live: ThreadedSandbox, group: str) -> None:
    live.inject(Delay(PATIENCE, before_work=True), operation="customers.list")
    ns = client(live)
    begun = seen(ns, "customers.list", RequestStarted)
    with ThreadPoolExecutor(4) as threads:
        waiting: list[Future[Any]] = [threads.submit(ns.customers.list, group), threads.submit(ns.run, for_ever)]
        assert begun.wait(PATIENCE)
        ns.run(_nothing)  # and so the other one has begun too
        closing = [threads.submit(ns.close, grace=grace) for grace in (PATIENCE, 0)]
        assert [each.result(PATIENCE) for each in closing] == [None, None]
        for each in waiting:
            with pytest.raises(ClientClosedError):
                each.result(PATIENCE)
    assert not loop_threads()


async def _nothing(_: object) -> None:
    pass


def test_a_grace_that_is_none_closes_nothing(ns: blocking.Nudgescribe) -> None:
    with pytest.raises(ConfigurationError, match="grace"):
        ns.close(grace="soon")  # type: ignore[arg-type]
    assert ns.campaigns.list()


def test_a_transport_that_cannot_be_closed_says_so_and_the_thread_ends(group: str) -> None:
    class Broken(Service):
        async def aclose(self) -> None:
            raise OSError("It is stuck.")

    ns = blocking.Nudgescribe(CREDENTIALS, transport=Broken())
    ns.customers.list(group)
    with pytest.raises(OSError, match="It is stuck"):
        ns.close()
    assert not loop_threads()


def test_no_thread_to_be_had_is_an_error_and_leaves_nothing(
    live: ThreadedSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    ns = client(live)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            ns.campaigns.list()
    assert ns.campaigns.list()
    ns.close()


def test_a_client_for_which_there_is_no_thread_cannot_be_closed_in_good_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    ns = blocking.Nudgescribe(CREDENTIALS, transport=Service())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            ns.close()
    with pytest.raises(ClientClosedError):
        ns.campaigns.list()


def test_a_call_that_comes_as_the_loop_ends_is_refused(live: ThreadedSandbox) -> None:
    ns, go_on, begun = client(live), threading.Event(), threading.Event()
    life = ns._thread._life

    came: list[str] = []

    async def come_too_late(_: object) -> None:
        came.append("late")  # it might be left behind half done

    async def hold_the_loop_up(_: object) -> None:
        begun.set()
        go_on.wait(PATIENCE)

    with ThreadPoolExecutor(2) as threads:
        threads.submit(ns.run, hold_the_loop_up)
        assert begun.wait(PATIENCE)
        life._post(life.stop.set)
        late = threads.submit(ns.run, come_too_late)
        while len(life._jobs) < 2:
            time.sleep(0.001)
        lost: loop_thread._Job[None] = loop_thread._Job(_nothing_at_all)
        lost.forget = life._jobs.discard
        life._jobs.add(lost)  # handed over after the last turn of the loop
        go_on.set()
        with pytest.raises(ClientClosedError):
            late.result(PATIENCE)
        lost.wait()
        assert isinstance(lost.error, ClientClosedError)
    assert not came
    ns.close()


async def _nothing_at_all() -> None:
    pass


def test_a_call_to_a_loop_that_has_just_closed_is_refused(
    ns: blocking.Nudgescribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    ns.campaigns.list()
    closed = asyncio.new_event_loop()
    closed.close()
    with monkeypatch.context() as patch:
        patch.setattr(ns._thread._life, "_loop", closed)
        with pytest.raises(ClientClosedError):
            ns.campaigns.list()


def test_threads_that_close_in_the_same_moment(live: ThreadedSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    ns = client(live)
    ns.close()
    monkeypatch.setattr(loop_thread.LoopThread, "ended", False)  # as the other one has seen it
    ns.close()


def test_what_goes_wrong_with_closing_a_forgotten_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    class Broken(Service):
        async def aclose(self) -> None:
            raise OSError("It is stuck.")

    ns = blocking.Nudgescribe(CREDENTIALS, transport=Broken())
    ns.customers.list("g")
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "nudgescribe event loop")
    with pytest.warns(ResourceWarning, match="never closed"):
        del ns
    thread.join(PATIENCE)
    assert [str(each.exc_value) for each in told] == ["It is stuck."]


def test_a_forgotten_client_says_so_and_is_closed_in_the_background() -> None:
    service = Service()
    ns = blocking.Nudgescribe(CREDENTIALS, transport=service)
    part = ns.customers
    part.list("g")
    del ns
    gc.collect()
    assert part.list("g") == []  # as long as anybody can call it
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "nudgescribe event loop")
    with pytest.warns(
        ResourceWarning, match=r"<blocking\.Nudgescribe .*> was never closed: use `with` or `ns.close\(\)`"
    ):
        del part
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert service.closed == 1


def test_one_that_never_called_may_be_forgotten() -> None:
    service = Service()
    blocking.Nudgescribe(CREDENTIALS, transport=service)
    gc.collect()
    assert service.closed == 0


def test_without_uvloop_it_is_the_loop_of_asyncio(live: ThreadedSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    async def kind(_: object) -> str:
        return type(asyncio.get_running_loop()).__module__

    monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    with client(live) as ns:
        assert ns.run(kind).startswith("asyncio")


# --- jobs ---------------------------------------------------------------------------------------------------------------


def test_an_upload_reads_from_another_group_as_it_is_iterated(
    ns: blocking.Nudgescribe, live: ThreadedSandbox, group: str
) -> None:
    workspace = live.example.workspace_id
    target = ns.customer_groups.create(workspace, "Copied").customer_group_id
    threads: set[str] = set()
    rows = (
        live.decrypt(customer.customer_id, customer.extended_profile) | {"external_id": f"copy of {number}"}
        for number, customer in enumerate(ns.customers.iter(group))
    )
    report = ns.customers.upload(
        workspace, target, rows, on_chunk=lambda _: threads.add(threading.current_thread().name)
    )
    report.raise_for_failures(refused=True)
    assert len(ns.customers.iter(target).collect()) == 467
    assert threads == {"nudgescribe event loop"}


def test_an_iterator_that_an_upload_reads_from_may_not_close_the_client(
    ns: blocking.Nudgescribe, live: ThreadedSandbox
) -> None:
    """The end of the thread would wait for the upload, which waits for the iterator, which waits for the end."""
    failures: list[ConfigurationError] = []

    def rows() -> Iterator[dict[str, str]]:
        yield {"external_id": "one who closes"}
        with pytest.raises(ConfigurationError, match="one of its calls is waiting for") as caught:
            ns.close(grace=0)
        failures.append(caught.value)
        with client(live) as another:  # which is none of its business
            another.campaigns.list()

    workspace = live.example.workspace_id
    target = ns.customer_groups.create(workspace, "Closing").customer_group_id
    assert ns.customers.upload(workspace, target, rows()).rows == 1
    assert len(failures) == 1


def test_reruns_stop_when_a_thread_says_so(tmp_path: Path) -> None:
    with running(job_time=3_600.0, state_while_running="Generating") as live, client(live) as ns:
        plan = [RerunRequest(live.example.campaigns[WELCOME], live.example.customer_groups["Returning customers"])]
        stop = threading.Event()
        with pytest.raises(TypeError, match=r"stop must be a threading\.Event, not Event"):
            ns.reruns.run(plan, journal=tmp_path / "j.db", stop=asyncio.Event())  # type: ignore[arg-type]

        def say_so(progress: RerunProgress) -> None:
            if progress.step == "started":
                stop.set()

        told = ns.reruns.run(plan, journal=tmp_path / "j.db", wait=True, stop=stop, on_event=say_so)
        assert not told.complete  # else it would wait for an hour
        for never in (None, threading.Event()):
            again = ns.reruns.run(plan, journal=tmp_path / "j.db", settle=0.01, stop=never)
            assert again.complete
        assert "nudgescribe stop" not in ns.run(_tasks)
        assert live.effects["reruns.initiate"] == 1


async def _tasks(_: object) -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]
