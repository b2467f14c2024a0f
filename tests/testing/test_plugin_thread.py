"""The sandbox that the plugin starts: in a thread of its own, and used from others as if it were not."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine, Iterator

import pytest

from nudgescribe_async import Nudgescribe
from nudgescribe_async.sandbox import Delay, Sandbox, SandboxError, Status
from nudgescribe_async.sandbox.faults import SandboxFault
from nudgescribe_async.testing import _sandbox_thread
from nudgescribe_async.testing._sandbox_thread import Moment, ThreadedSandbox


@pytest.fixture
def live() -> Iterator[ThreadedSandbox]:
    sandbox = ThreadedSandbox()
    sandbox.start()
    yield sandbox
    sandbox.stop()


def test_all_that_a_sandbox_has_is_led_into_the_thread() -> None:
    for name in (name for name in dir(Sandbox) if not name.startswith("_")):
        ours, theirs = (inspect.getattr_static(kind, name) for kind in (ThreadedSandbox, Sandbox))
        assert ours is not theirs, name
        assert isinstance(ours, property) == isinstance(theirs, property), name
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs), name
        assert ours.__doc__ == theirs.__doc__ or name == "inject"


def test_nothing_of_its_own_hides_what_a_sandbox_has_in_private() -> None:
    own = {name for name in vars(ThreadedSandbox) if name.startswith("_") and not name.startswith("__")}
    assert not own & {*dir(Sandbox), *vars(Sandbox())}
    assert set(vars(Sandbox())) < set(vars(ThreadedSandbox()))
    assert not (set(vars(ThreadedSandbox())) - set(vars(Sandbox()))) & set(dir(Sandbox))


@pytest.mark.parametrize("name", ["log", "effects", "injections", "workspace_id"])
def test_what_is_read_is_read_in_the_thread(live: ThreadedSandbox, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    threads: list[str] = []

    def now(self: Sandbox) -> object:
        threads.append(threading.current_thread().name)
        return self._running

    monkeypatch.setattr(Sandbox, "_now", property(now))
    getattr(live, name)
    assert set(threads) == {"nudgescribe sandbox"}


def test_a_fault_is_injected_and_removed_in_the_thread(live: ThreadedSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[str, str]] = []
    plan = live._now.api.trouble._plan

    class Watched(list[SandboxFault]):
        def append(self, fault: SandboxFault) -> None:
            threads.append(("append", threading.current_thread().name))
            super().append(fault)

        def remove(self, fault: SandboxFault) -> None:
            threads.append(("remove", threading.current_thread().name))
            super().remove(fault)

    monkeypatch.setattr(plan, "_injections", Watched())
    live.inject(Status(500)).remove()
    assert threads == [("append", "nudgescribe sandbox"), ("remove", "nudgescribe sandbox")]
    assert live.injections == ()


def test_an_error_of_the_thread_is_raised_where_it_was_asked_for(live: ThreadedSandbox) -> None:
    with pytest.raises(ValueError, match=r"There is no operation .customers\.lst."):
        live.count("customers.lst")
    with pytest.raises(SandboxError, match="There is no customer group g-1"):
        asyncio.run(live.create_campaign("Spring", "g-1"))


def test_coroutines_are_awaited_on_one_loop_after_the_other(live: ThreadedSandbox) -> None:
    groups = {asyncio.run(live.create_customer_group(name)) for name in ("Spring", "Summer")}
    assert len(groups) == 2


async def test_what_is_cancelled_is_cancelled_in_the_thread_too(
    live: ThreadedSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = threading.Event(), threading.Event()

    async def drain(*, hurry: bool) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    monkeypatch.setattr(live._now.jobs, "drain", drain)
    task = asyncio.create_task(live.drain())
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 10)


async def test_it_answers_a_test_that_blocks_its_own_loop(live: ThreadedSandbox) -> None:
    live.inject(Delay(0.05))
    async with Nudgescribe(live.credentials, base_url=live.url) as ns:
        call = asyncio.create_task(ns.campaigns.list())
        while not live.log:
            await asyncio.sleep(0.001)
            threading.Event().wait(0.01)  # as a test that waits in a debugger
        assert await call == []


async def test_a_test_can_take_the_service_down(live: ThreadedSandbox) -> None:
    await live.aclose()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(live.url.rpartition(":")[2]))


def test_what_it_has_seen_can_be_read_when_it_is_stopped(live: ThreadedSandbox) -> None:
    asyncio.run(live.create_customer_group("Spring"))
    live.stop()
    live.stop()
    assert live.log == live.log_since(Moment()) == ()
    with pytest.raises(SandboxError, match="not running"):
        asyncio.run(live.create_customer_group("Summer"))


def test_a_sandbox_that_cannot_start_leaves_no_thread() -> None:
    sandbox = ThreadedSandbox(host="host.invalid")
    with pytest.raises(SandboxError, match="cannot listen"):
        sandbox.start()
    assert not sandbox._thread.is_alive()


def test_a_thread_that_has_no_event_loop_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(main: Coroutine[None, None, None]) -> None:
        main.close()
        raise OSError("Too many open files")

    monkeypatch.setattr(asyncio, "run", fail)
    with pytest.raises(OSError, match="Too many open files"):
        ThreadedSandbox().start()


def test_a_sandbox_that_fails_to_close_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = ThreadedSandbox()
    sandbox.start()
    close = Sandbox.aclose

    async def fail(self: Sandbox) -> None:
        await close(self)
        raise OSError("the disk is full")

    monkeypatch.setattr(ThreadedSandbox, "aclose", fail)
    with pytest.raises(OSError, match="the disk is full"):
        sandbox.stop()
    assert not sandbox._thread.is_alive()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, pytest.fail.Exception])
def test_who_is_interrupted_while_it_starts_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise interruption

    sandbox = ThreadedSandbox()
    with monkeypatch.context() as patch:
        patch.setattr(_sandbox_thread, "wait", interrupted)
        with pytest.raises(interruption):
            sandbox.start()
    assert not sandbox._thread.is_alive()
    sandbox.stop()


def test_one_that_is_busy_is_not_waited_for_without_end(live: ThreadedSandbox) -> None:
    began, gate = threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        gate.wait(60)

    assert live._loop is not None
    live._loop.call_soon_threadsafe(block)
    assert began.wait(10)
    live._patience = 0.01
    with pytest.raises(SandboxError, match=r"^The sandbox has not answered for 0.01 s: its thread is busy\."):
        live.inject(Status(500))
    with pytest.raises(SandboxError, match="has not answered"):
        live.stop()
    gate.set()
    live._patience = 60.0
    live.stop()


def test_what_nobody_waits_for_any_more_is_not_done_later(live: ThreadedSandbox) -> None:
    began, gate = threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        gate.wait(60)

    assert live._loop is not None
    live._loop.call_soon_threadsafe(block)
    assert began.wait(10)
    live._patience = 0.01
    with pytest.raises(SandboxError, match="has not answered"):
        live.inject(Status(500))
    gate.set()
    live._patience = 60.0
    assert live.injections == ()


def test_patience_is_lost_when_it_was_in_vain(live: ThreadedSandbox) -> None:
    assert live._patience == 60.0
    assert "for 60 s:" in str(live._no_answer())
    assert "for 1 s:" in str(live._no_answer())
