"""How it ends when nobody asked for it: Ctrl-C, forgotten clients, the exit of the interpreter, forks."""

from __future__ import annotations

import asyncio
import dis
import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blocking_service import JANUARY, PATIENCE, WELCOME, client, for_ever, interrupt, loop_threads, running, seen

from nudgescribe_async import ClientClosedError, Nudgescribe, RerunReport, RerunRequest, blocking
from nudgescribe_async.blocking import loop_thread
from nudgescribe_async.events import RequestFinished, RequestStarted
from nudgescribe_async.sandbox import Delay

if TYPE_CHECKING:
    from types import FrameType

    from nudgescribe_async.events import Event
    from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox


@pytest.fixture(scope="module")
def shared() -> Iterator[ThreadedSandbox]:
    with running(latency=0.002) as sandbox:
        yield sandbox


# --- Ctrl-C -------------------------------------------------------------------------------------------------------------


def test_ctrl_c_cancels_the_call_and_waits_for_its_end(ns: blocking.Nudgescribe) -> None:
    steps: list[str] = []

    async def work(_: Nudgescribe) -> None:
        interrupt()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            steps.append("cancelled")
            await asyncio.sleep(0.01)
            steps.append("cleaned up")
            error.add_note("Rows 1 to 10 were sent.")
            raise

    with pytest.raises(KeyboardInterrupt) as caught:
        ns.run(work)
    assert steps == ["cancelled", "cleaned up"]
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert caught.value.__cause__.__notes__ == ["Rows 1 to 10 were sent."]
    assert ns.campaigns.list()


def test_what_a_handler_of_a_signal_raises_does_so_too(ns: blocking.Nudgescribe) -> None:
    """Such as limits of time, whose errors must not be taken for one of the call's own."""

    def handle(*_: object) -> None:
        raise TimeoutError("The job has had its hour.")

    async def work(_: Nudgescribe) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.Event().wait()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(TimeoutError, match="has had its hour"):
            ns.run(work)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_again_cuts_the_cleaning_up_short_and_a_third_time_nobody_waits(ns: blocking.Nudgescribe) -> None:
    cancelled = 0
    ended = threading.Event()

    async def stubborn(_: Nudgescribe) -> None:
        nonlocal cancelled
        while True:
            interrupt()
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled == 3:
                    ended.set()
                    raise

    with pytest.raises(KeyboardInterrupt) as caught:
        ns.run(stubborn)
    assert (cancelled, ended.is_set(), caught.value.__cause__) == (2, False, None)
    ns.close()
    assert ended.is_set()


def test_ctrl_c_while_the_call_is_handed_over(ns: blocking.Nudgescribe, monkeypatch: pytest.MonkeyPatch) -> None:
    ns.campaigns.list()
    loop: Any = ns._thread._life._loop
    times = 0

    class Interrupted:
        def call_soon_threadsafe(self, *arguments: object) -> None:
            nonlocal times
            times += 1
            if times == 1:
                raise KeyboardInterrupt
            loop.call_soon_threadsafe(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ns._thread._life, "_loop", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            ns.run(for_ever)
    assert ns.campaigns.list()


def test_ctrl_c_in_a_loop_over_pages_leaves_a_cursor(
    ns: blocking.Nudgescribe, live: ThreadedSandbox, group: str
) -> None:
    live.inject(Delay(PATIENCE, before_work=True), operation="customers.list", skip=3, times=None)
    cancelled = seen(ns, "customers.list", RequestFinished, error="CancelledError")
    begun = 0

    def count(event: Event) -> None:
        nonlocal begun
        if isinstance(event, RequestStarted) and event.operation == "customers.list":
            begun += 1
            if begun == 4:
                threading.Timer(0.2, interrupt).start()  # when the loop has nothing left to do but wait

    unsubscribe = ns.events.subscribe(count)
    stream = ns.customers.iter(group, concurrency=1)
    found: list[str] = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the loop is what is tested
        for customer in stream:
            found.append(customer.customer_id)  # noqa: PERF401 - a comprehension is what an error leaves nothing of
    assert cancelled.wait(PATIENCE)
    unsubscribe()
    live.clear_faults()
    found += (customer.customer_id for customer in ns.customers.iter(group, resume_from=stream.cursor))
    assert found == [customer.customer_id for customer in ns.customers.iter(group)]


def test_an_export_goes_on_after_ctrl_c(ns: blocking.Nudgescribe, group: str, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    ns.customers.export(group, whole)
    with pytest.raises(KeyboardInterrupt):
        ns.customers.export(group, broken, on_progress=lambda done: interrupt() if done.pages == 5 else None)
    assert not broken.exists()
    report = ns.customers.export(group, broken)
    assert broken.read_bytes() == whole.read_bytes()
    assert report.rows == 467


def test_ctrl_c_reaches_the_call_that_the_rows_of_an_upload_come_from(
    ns: blocking.Nudgescribe, live: ThreadedSandbox, group: str
) -> None:
    """It is waited for in a thread, which nothing else wakes: not even the end of the upload."""
    live.inject(Delay(PATIENCE, before_work=True), operation="customers.list", skip=1, times=None)
    cancelled = seen(ns, "customers.list", RequestFinished, error="CancelledError")
    workspace, asked = live.example.workspace_id, live.count("customers.list")
    target = ns.customer_groups.create(workspace, "Interrupted").customer_group_id
    stream = ns.customers.iter(group, concurrency=1)

    def rows() -> Iterator[dict[str, str]]:
        for number, _ in enumerate(stream):
            if number == 9:
                threading.Timer(0.05, interrupt).start()
            yield {"external_id": f"interrupted {number}"}

    with pytest.raises(KeyboardInterrupt):
        ns.customers.upload(workspace, target, rows())
    assert cancelled.wait(PATIENCE)
    assert not ns._thread._life._jobs
    live.clear_faults()
    assert live.count("customers.list") - asked <= 2
    assert ns.campaigns.list()


def test_rows_that_ask_for_more_after_ctrl_c_get_nothing(
    ns: blocking.Nudgescribe, live: ThreadedSandbox, group: str
) -> None:
    came: list[BaseException] = []
    workspace = live.example.workspace_id
    target = ns.customer_groups.create(workspace, "Too late").customer_group_id

    def rows() -> Iterator[dict[str, str]]:
        yield {"external_id": "too late"}
        ns.run(_nothing)
        interrupt()
        while not any(job._frame and job._frame.cancelled for job in [*ns._thread._life._jobs]):
            time.sleep(0.001)
        try:
            ns.customers.list(group)
        except BaseException as error:
            came.append(error)
            raise

    with pytest.raises(KeyboardInterrupt):
        ns.customers.upload(workspace, target, rows())
    assert [type(error) for error in came] == [asyncio.CancelledError]


def test_reruns_go_on_after_ctrl_c_and_the_error_has_their_report(tmp_path: Path) -> None:
    with running() as live, client(live) as ns:
        journal = tmp_path / "j.db"
        plan = [RerunRequest(live.example.campaigns[WELCOME], live.example.customer_groups["Returning customers"])]
        once = iter([interrupt])  # a third time, nobody would wait for the report
        with pytest.raises(KeyboardInterrupt) as caught:
            ns.reruns.run(plan, journal=journal, settle=0.05, on_event=lambda _: next(once, int)())
        cause = caught.value.__cause__
        assert isinstance(cause, asyncio.CancelledError)
        assert isinstance(getattr(cause, "report", None), RerunReport)
        report = ns.reruns.run(plan, journal=journal, settle=0.05)
        assert report.complete
        assert live.effects["reruns.initiate"] == 1


def test_ctrl_c_while_closing_cuts_the_grace_short(live: ThreadedSandbox, group: str) -> None:
    live.inject(Delay(PATIENCE, before_work=True), operation="customers.list")
    ns = client(live)
    begun = seen(ns, "customers.list", RequestStarted)
    failures: list[BaseException] = []

    def call() -> None:
        try:
            ns.customers.list(group)
        except Exception as error:  # noqa: BLE001 - compared below
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(PATIENCE)
    threading.Timer(0.05, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        ns.close(grace=PATIENCE)
    thread.join(PATIENCE)
    assert [type(failure).__name__ for failure in failures] == ["ClientClosedError"]
    assert not loop_threads()


def test_ctrl_c_before_the_call_has_begun(ns: blocking.Nudgescribe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled before its first step does nothing, and so says nothing of its end either."""
    life, begun, go_on = ns._thread._life, threading.Event(), threading.Event()
    post = life._post

    def posted(callback: Callable[[], object]) -> bool:
        taken = post(callback)
        if not isinstance(callback, partial):  # it is not the beginning, but the end
            go_on.set()
        return taken

    async def hold_the_loop_up(_: Nudgescribe) -> None:
        begun.set()
        go_on.wait(PATIENCE)

    def interrupt_the_second() -> None:
        while len(life._jobs) < 2:
            time.sleep(0.001)
        time.sleep(0.02)
        interrupt()

    ran: list[str] = []

    async def late(_: Nudgescribe) -> None:
        ran.append("late")

    holding = threading.Thread(target=lambda: ns.run(hold_the_loop_up))
    interrupting = threading.Thread(target=interrupt_the_second)
    holding.start()
    assert begun.wait(PATIENCE)
    interrupting.start()
    monkeypatch.setattr(life, "_post", posted)
    with pytest.raises(KeyboardInterrupt) as caught:
        ns.run(late)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert not ran
    holding.join()
    interrupting.join()


def _interrupted_at(step: int, work: Callable[[], object]) -> bool:
    """Whether the work had as many steps: moments of the waiting thread in which Python looks for signals."""
    left, before = step, dict["FrameType", str]()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != loop_thread.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last = before.get(frame, "")
            before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            left -= last.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    traced = sys.gettrace()
    gc.collect()
    gc.disable()  # no finalizer is to be interrupted
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(traced)
        gc.enable()
    return left <= 0


@pytest.mark.parametrize("late", [True, False])
def test_ctrl_c_while_the_thread_is_begun(
    live: ThreadedSandbox, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if late:
            start(thread)
        raise KeyboardInterrupt

    with client(live) as ns:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ns.campaigns.list()
        assert ns.campaigns.list()
        assert len(loop_threads()) == 1
    assert not loop_threads()


def test_a_thread_without_an_event_loop_says_so_to_all_who_wait(
    live: ThreadedSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files, for instance; the next call tries again, and closing does not wait for ever."""
    asked, go_on = threading.Event(), threading.Event()
    failures: list[Exception] = []

    def refuse() -> asyncio.AbstractEventLoop:
        asked.set()
        go_on.wait(PATIENCE)
        raise OSError(errno.EMFILE, "Too many open files")

    def call(work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            failures.append(error)

    ns = client(live)
    callers = [threading.Thread(target=call, args=(ns.campaigns.list,)) for _ in range(3)]
    again = threading.Thread(target=call, args=(ns.campaigns.list,))
    closing = threading.Thread(target=call, args=(ns.close,))
    with monkeypatch.context() as patch:
        patch.setattr(loop_thread, "_new_event_loop", refuse)
        for thread in callers:
            thread.start()
        assert asked.wait(PATIENCE)
        while len(ns._thread._life._jobs) < len(callers):
            time.sleep(0.001)
        go_on.set()
        for thread in callers:
            thread.join(PATIENCE)
        assert [str(failure) for failure in failures] == ["[Errno 24] Too many open files"] * 3
        assert not loop_threads()

        asked.clear()
        go_on.clear()
        again.start()
        assert asked.wait(PATIENCE)
        closing.start()
        while not ns._thread._life._posted[1:]:
            time.sleep(0.001)
        go_on.set()
        again.join(PATIENCE)
        closing.join(PATIENCE)
    assert len(failures) == 5
    assert not loop_threads()
    with pytest.raises(ClientClosedError):
        ns.campaigns.list()

    with client(live) as ns, monkeypatch.context() as patch:
        patch.setattr(loop_thread, "_new_event_loop", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            ns.campaigns.list()
        patch.undo()
        assert ns.campaigns.list()


@pytest.mark.parametrize("first", [True, False])
def test_ctrl_c_in_any_moment_of_a_call_leaves_a_client_that_works(live: ThreadedSandbox, *, first: bool) -> None:
    """Not one that waits for ever for a lock that was being taken, or for a thread that was being started."""
    step, interrupted = 0, True
    ns = client(live)
    ns.run(_nothing)
    while interrupted:
        if first:
            ns.close()
            ns = client(live)
        step += 1
        interrupted = _interrupted_at(step, lambda ns=ns: ns.run(_nothing))  # type: ignore[misc]
        again = threading.Thread(target=ns.run, args=(_nothing,), daemon=True)
        again.start()
        again.join(PATIENCE)
        assert not again.is_alive(), step
    ns.close()
    assert step > 10


async def _nothing(_: Nudgescribe) -> None:
    pass


def test_the_main_thread_looks_up_from_waiting_now_and_then() -> None:
    """A signal that comes as the waiting begins is noticed late, and not never."""
    job: Any = loop_thread._Job(asyncio.Event().wait)
    job.forget = set().discard
    patience: list[float] = []

    class Gate:
        def acquire(self, *, timeout: float) -> None:
            patience.append(timeout)
            if len(patience) == 3:
                job.fail(TimeoutError())

        def release(self) -> None:
            patience.append(0)

    job._gate = Gate()
    job.wait()
    assert patience == [loop_thread._GLANCE] * 3 + [0]
    assert 0 < loop_thread._GLANCE <= 1


# --- the exit of the interpreter ----------------------------------------------------------------------------------------


def test_at_exit_forgotten_clients_are_closed_and_named(live: ThreadedSandbox) -> None:
    """As the interpreter does it, in this one; the next tests show that it does."""
    ns, closed = client(live), client(live)
    ns.campaigns.list()
    closed.campaigns.list()
    closed.close()
    with pytest.warns(ResourceWarning, match="was never closed") as told:
        loop_thread._end_all()
    assert len(told) == 1
    assert not loop_threads()
    loop_thread._end_all()
    del ns  # and says nothing any more


HEAD = """
import asyncio, faulthandler, os, sys, threading, time
from nudgescribe_async import blocking
from nudgescribe_async.blocking import loop_thread

faulthandler.dump_traceback_later(25, exit=True)
group = os.environ["GROUP"]
"""


def program(
    live: ThreadedSandbox, text: str, *, dev: bool = False, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    names = ("api_key", "email", "password")
    settings = {f"NUDGESCRIBE_{name.upper()}": getattr(live.credentials, name) for name in names}
    settings |= {"NUDGESCRIBE_BASE_URL": live.url, "GROUP": live.example.customer_groups[JANUARY]}
    command = [sys.executable, "-P", "-W", "always::ResourceWarning", *(["-X", "dev"] if dev else []), "-c"]
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONDEVMODE", "PYTHONASYNCIODEBUG")
    }
    return subprocess.run(
        [*command, HEAD + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        check=False,
        env=inherited | settings,
        timeout=PATIENCE,
        cwd=folder,
    )


def test_a_script_that_closes_leaves_nothing_to_say(live: ThreadedSandbox) -> None:
    done = program(
        live,
        """
        with blocking.Nudgescribe.from_env() as ns:
            print(sum(1 for customer in ns.customers.iter(group)))
        """,
        dev=True,
    )
    said = [
        line for line in done.stderr.splitlines() if not line.startswith("Executing <")
    ]  # took long on a busy machine
    assert (done.returncode, done.stdout, said) == (0, "467\n", [])


@pytest.mark.parametrize("under_way", ["", "threading.Thread(target=lambda: ns.run(wait), daemon=True).start()"])
def test_a_script_that_forgets_ends_and_is_told(live: ThreadedSandbox, under_way: str) -> None:
    done = program(
        live,
        f"""
        async def wait(_):
            await asyncio.Event().wait()

        ns = blocking.Nudgescribe.from_env()
        stream = ns.customers.iter(group)
        next(stream)
        {under_way}
        print(ns.customers.count_pages(group))
        """,
    )
    assert (done.returncode, done.stdout) == (0, "47\n"), done.stderr
    assert done.stderr.count("ResourceWarning") == 1, done.stderr
    assert "was never closed: use `with` or `ns.close()`" in done.stderr
    assert "Traceback" not in done.stderr or under_way, done.stderr


def test_a_loop_that_is_stuck_does_not_keep_the_interpreter(live: ThreadedSandbox) -> None:
    done = program(
        live,
        """
        loop_thread._PATIENCE_AT_EXIT = 0.1
        stuck = threading.Event()

        async def block(_):
            stuck.set()
            time.sleep(1_000)

        ns = blocking.Nudgescribe.from_env()
        threading.Thread(target=lambda: ns.run(block), daemon=True).start()
        stuck.wait()
        print("the end")
        """,
    )
    assert (done.returncode, done.stdout) == (0, "the end\n"), done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_a_script_as_it_ends_any(live: ThreadedSandbox, tmp_path: Path) -> None:
    done = program(
        live,
        """
        import signal

        with blocking.Nudgescribe.from_env() as ns:
            ns.customers.export(group, "out.csv", on_progress=lambda _: os.kill(os.getpid(), signal.SIGINT))
        """,
        dev=True,
        folder=tmp_path,
    )
    assert done.returncode == -signal.SIGINT, done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt"), done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert live.credentials.password not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no forks")
def test_a_fork_is_told_to_build_its_own(live: ThreadedSandbox) -> None:
    done = program(
        live,
        """
        import signal, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        faulthandler.cancel_dump_traceback_later()  # a fork would wait for its thread for ever

        ns, unused = blocking.Nudgescribe.from_env(), blocking.Nudgescribe.from_env()
        stream = ns.customers.iter(group)
        next(stream)
        if os.fork() == 0:
            signal.alarm(25)
            try:
                ns.customers.list(group)
            except Exception as error:
                print(type(error).__name__, flush=True)
            stream.close()
            ns.close()
            with unused:
                print(unused.customers.count_pages(group), flush=True)
            del stream, ns
            sys.exit()
        os.wait()
        print(1 + sum(1 for _ in stream))
        ns.close()
        """,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["ConfigurationError", "47", "467"]), done.stderr
    assert "Traceback" not in done.stderr
