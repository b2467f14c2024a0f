"""Events reach every subscriber, whatever the others do, and the log by their part's name."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

import attrs
import pytest

from nudgescribe_async.events import (
    CallEnded,
    CallGivenUp,
    CallStarted,
    EffectUnknown,
    Event,
    Events,
    Job,
    JobEnded,
    JobStarted,
    PageFetched,
    PagesDrifted,
    RequestFinished,
    RequestRetrying,
    RequestsPaused,
    RequestsResumed,
    RequestStarted,
    RerunProgress,
    RerunsBegan,
    SpanEvent,
    TokenRenewalFailed,
    TokenRenewed,
    log_event,
)

STARTED = RequestStarted(operation="customers.list", call=7, attempt=1)


def progress(step: str, *, final: bool = False) -> RerunProgress:
    detail = "" if final else "run 2"
    return RerunProgress(operation="a.b", campaign_id="c-1", step=step, detail=detail, done=4, total=1_000, final=final)


EXAMPLES: list[tuple[Event, str, int]] = [
    (STARTED, "nudgescribe_async.session", logging.DEBUG),
    (
        RequestFinished(operation="a.b", call=7, attempt=1, seconds=0.5, status=200),
        "nudgescribe_async.session",
        logging.DEBUG,
    ),
    (CallGivenUp(operation="a.b", call=7, attempts=4, reason="no"), "nudgescribe_async.retry", logging.WARNING),
    (
        EffectUnknown(operation="a.b", call=7, error="CancelledError", phase="waiting for the answer", look="a.list"),
        "nudgescribe_async.session",
        logging.WARNING,
    ),
    (
        RequestsPaused(operation="a.b", status=429, seconds=1.0, concurrency=4),
        "nudgescribe_async.throttle",
        logging.WARNING,
    ),
    (RequestsResumed(concurrency=4, waiting=9), "nudgescribe_async.throttle", logging.INFO),
    (
        RequestRetrying(operation="a.b", call=7, attempt=1, after=0.5, reason="no"),
        "nudgescribe_async.retry",
        logging.INFO,
    ),
    (TokenRenewed(source="login", expires_after=60.0), "nudgescribe_async.auth", logging.INFO),
    (TokenRenewalFailed(source="refresh", error="no"), "nudgescribe_async.auth", logging.WARNING),
    (PageFetched(operation="a.b", page=1, total=2), "nudgescribe_async.paging", logging.DEBUG),
    (PagesDrifted(operation="a.b", drift="Oh."), "nudgescribe_async.paging", logging.WARNING),
    (RerunsBegan(operation="a.b", campaigns=3, settled=1, journal="j.db"), "nudgescribe_async.rerun", logging.INFO),
    (RerunsBegan(operation="a.b", campaigns=0, settled=0, journal="j.db"), "nudgescribe_async.rerun", logging.INFO),
    (RerunsBegan(operation="a.b", campaigns=3, settled=3, journal="j.db"), "nudgescribe_async.rerun", logging.WARNING),
    (
        RerunsBegan(operation="a.b", campaigns=3, settled=1, journal="j.db", named=False),
        "nudgescribe_async.rerun",
        logging.WARNING,
    ),
    (progress("started"), "nudgescribe_async.rerun", logging.INFO),
    (progress("lost"), "nudgescribe_async.rerun", logging.WARNING),
    (progress("refused"), "nudgescribe_async.rerun", logging.WARNING),
    (progress("refused", final=True), "nudgescribe_async.rerun", logging.DEBUG),
    (progress("not_started", final=True), "nudgescribe_async.rerun", logging.WARNING),
]


@pytest.mark.parametrize(("event", "logger", "level"), EXAMPLES, ids=lambda item: type(item).__name__)
def test_an_event_is_one_line_in_the_log_of_its_part(
    event: Event, logger: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "nudgescribe_async")
    Events().emit(event)
    assert caplog.record_tuples == [(logger, level, str(event))]
    assert vars(caplog.records[0])["event"] == type(event).__name__
    assert vars(caplog.records[0])["nudgescribe"] == attrs.asdict(event)


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (STARTED, "customers.list (call 7): attempt 1 is sent"),
        (
            RequestFinished(operation="a.b", call=7, attempt=2, seconds=0.5, status=200, request_id="r-1"),
            "a.b (call 7): attempt 2 was answered with 200 after 0.500 s, request id r-1",
        ),
        (
            RequestFinished(
                operation="a.b", call=7, attempt=1, seconds=0.25, status=429, headers=(("retry-after", "1"),)
            ),
            "a.b (call 7): attempt 1 was answered with 429 after 0.250 s, retry-after: 1",
        ),
        (
            RequestFinished(operation="a.b", call=7, attempt=1, seconds=60.0, error="OutcomeUnknownError"),
            "a.b (call 7): attempt 1 ended with OutcomeUnknownError after 60.000 s",
        ),
        (
            RequestRetrying(operation="a.b", call=7, attempt=1, after=0.5, reason="The service failed (HTTP 503)"),
            "a.b (call 7): attempt 1 failed, the next one is in 0.50 s: The service failed (HTTP 503)",
        ),
        (
            CallGivenUp(operation="a.b", call=7, attempts=4, reason="enough"),
            "a.b (call 7): given up after 4 attempts: enough",
        ),
        (CallGivenUp(operation="a.b", call=7, attempts=1, reason="no"), "a.b (call 7): given up after 1 attempt: no"),
        (
            EffectUnknown(operation="a.b", call=7, error="CancelledError", phase="reading the answer", look="a.list"),
            "a.b (call 7) ended with CancelledError while reading the answer, and may have taken effect: look with a.list",
        ),
        (
            RequestsPaused(operation="a.b", status=429, seconds=1.0, concurrency=4),
            "a.b was refused with 429: nothing is sent for 1.00 s, then at most 4 at once",
        ),
        (RequestsResumed(concurrency=4, waiting=9), "The pause is over; calls in line: 9, at once: at most 4"),
        (
            TokenRenewed(source="login", expires_after=3600.0),
            "There is a new access token from the login; it expires in 3,600 s",
        ),
        (TokenRenewalFailed(source="refresh", error="no"), "The refresh gave no token: no"),
        (
            PageFetched(operation="a.b", page=1_001, total=2_000, done=1_001, items=200_200, seconds=4.0),
            "a.b: page 1,001 of 2,000; 200,200 items so far, 50,050 a second",
        ),
        (PageFetched(operation="a.b", page=1, total=None), "a.b: page 1; 0 items so far, 0 a second"),
        (PagesDrifted(operation="a.b", drift="Oh."), "a.b: the set changed while its pages were read. Oh."),
        (
            RerunsBegan(operation="a.b", campaigns=1_300, settled=1, journal="j.db"),
            "a.b: the journal is j.db. Campaigns: 1,300, done by earlier calls: 1",
        ),
        (
            RerunsBegan(operation="a.b", campaigns=3, settled=3, journal="j.db", taken_over="process 7"),
            (
                "a.b: the journal is j.db; it was left behind by process 7. Campaigns: 3, all of them done by earlier calls: "
                "nothing is sent. For a new round, name another journal"
            ),
        ),
        (progress("started"), "a.b: campaign c-1 started: run 2 (4 of 1,000 done)"),
        (progress("not_started", final=True), "a.b: campaign c-1 is done with: not started (4 of 1,000 done)"),
    ],
    ids=lambda item: type(item).__name__,
)
def test_a_line_of_the_log_is_a_sentence(event: Event, sentence: str) -> None:
    assert str(event) == sentence


def test_every_kind_of_event_has_its_logger() -> None:
    assert {type(event) for event, _, _ in EXAMPLES} == set(Event.__args__)


@pytest.mark.parametrize(("event", "logger", "level"), EXAMPLES, ids=lambda item: type(item).__name__)
def test_an_event_cannot_be_changed_and_has_no_room_for_a_secret(event: Event, logger: str, level: int) -> None:
    names = {attribute.name for attribute in attrs.fields(type(event))}
    assert names <= {"operation", "attempt", "seconds", "status", "error", "request_id", "after", "reason", "source", "expires_after", "page", "total", "attempts", "concurrency", "waiting", "headers", "call", "asked", "phase", "look", "done", "items", "drift", "campaigns", "settled", "journal", "taken_over", "named", "campaign_id", "step", "detail", "final"}  # fmt: skip
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, min(names), 1)


def test_subscribers_are_told_in_the_order_in_which_they_came() -> None:
    events, told = Events(), list[str]()
    events.subscribe(lambda _: told.append("first"))
    events.subscribe(lambda _: told.append("second"))
    events.emit(STARTED)
    assert told == ["first", "second"]


def test_a_subscriber_that_raises_harms_nobody_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    events, told = Events(), list[Event]()

    def broken(event: Event) -> None:
        raise ZeroDivisionError("my fault")

    events.subscribe(broken)
    events.subscribe(told.append)
    events.emit(STARTED)
    events.emit(STARTED)
    assert told == [STARTED, STARTED]
    records = [record for record in caplog.records if record.name == "nudgescribe_async.events"]
    assert [record.getMessage() for record in records] == ["A subscriber failed on RequestStarted."] * 2
    assert all(record.exc_info is not None and record.exc_info[0] is ZeroDivisionError for record in records)
    assert all(record.levelno == logging.ERROR for record in records)


def test_whoever_ends_the_program_is_not_held_back() -> None:
    events = Events()

    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    events.subscribe(stop)
    with pytest.raises(KeyboardInterrupt):
        events.emit(STARTED)


def test_who_unsubscribes_is_told_no_more_and_may_say_so_twice() -> None:
    events, told = Events(), list[Event]()
    end = events.subscribe(told.append)
    events.emit(STARTED)
    end()
    end()
    events.emit(STARTED)
    assert told == [STARTED]


def test_who_subscribes_twice_is_told_twice_and_ends_each_by_itself() -> None:
    events, told = Events(), list[Event]()
    first, second = events.subscribe(told.append), events.subscribe(told.append)
    events.emit(STARTED)
    first()
    first()
    events.emit(STARTED)
    assert len(told) == 3
    second()
    events.emit(STARTED)
    assert len(told) == 3


def test_a_subscriber_may_unsubscribe_or_subscribe_while_it_is_told() -> None:
    events, told = Events(), list[str]()

    def once(event: Event) -> None:
        told.append("once")
        end()
        events.subscribe(lambda _: told.append("late"))

    end = events.subscribe(once)
    events.subscribe(lambda _: told.append("always"))
    events.emit(STARTED)
    assert told == ["once", "always"]
    events.emit(STARTED)
    assert told == ["once", "always", "always", "late"]


def test_two_clients_do_not_share_their_subscribers() -> None:
    told = list[Event]()
    Events().subscribe(told.append)
    Events().emit(STARTED)
    assert told == []


def test_the_log_is_silent_unless_somebody_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "nudgescribe_async")
    log_event(STARTED)
    assert caplog.records == []


def test_a_retry_that_the_service_asked_for_is_told_softly_since_the_pause_is_told_aloud(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "nudgescribe_async")
    log_event(RequestRetrying(operation="a.b", call=1, attempt=1, after=1.0, reason="no", asked=True))
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


async def _coroutine(event: Event) -> None: ...


@pytest.mark.parametrize("subscriber", [_coroutine, None, "print"])
def test_what_cannot_be_told_at_once_is_refused(subscriber: Any) -> None:
    with pytest.raises(TypeError, match="A subscriber must be a plain function"):
        Events().subscribe(subscriber)


# --- where calls and jobs begin and end ----------------------------------------------------------------------------------


BEGINS = CallStarted(operation="a.b", call=7, method="POST", url="https://x.test/v1/cg")
SPAN_EXAMPLES: list[tuple[SpanEvent, str]] = [
    (BEGINS, "a.b (call 7) begins: POST https://x.test/v1/cg"),
    (
        CallEnded(operation="a.b", call=7, seconds=0.5, attempts=2, status=200),
        "a.b (call 7) ended after 0.500 s, attempts: 2",
    ),
    (
        CallEnded(operation="a.b", call=7, seconds=0.5, attempts=0, error="CancelledError"),
        "a.b (call 7) ended with CancelledError after 0.500 s, attempts: 0",
    ),
    (JobStarted(operation="a.b", job=1, kind="pages"), "a.b (job 1, pages) begins"),
    (JobStarted(operation="a.b", job=2, kind="rerun", campaign_id="c"), "a.b (job 2, rerun, campaign c) begins"),
    (JobEnded(operation="a.b", job=1, kind="pages", outcome="left", done=2), "a.b (job 1, pages) ended: left"),
    (
        JobEnded(operation="a.b", job=1, kind="pages", outcome="failed", error="PageError"),
        "a.b (job 1, pages) ended: failed, PageError",
    ),
]


@pytest.mark.parametrize(("event", "sentence"), SPAN_EXAMPLES)
def test_what_says_where_something_begins_or_ends_is_a_sentence_with_room_for_no_secret(
    event: SpanEvent, sentence: str
) -> None:
    assert str(event) == sentence
    names = {attribute.name for attribute in attrs.fields(type(event))}
    assert names <= {"operation", "call", "method", "url", "signed", "seconds", "attempts", "status", "error", "job", "kind", "total", "campaign_id", "outcome", "done", "items"}  # fmt: skip
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, min(names), 1)


def test_only_who_asks_is_told_where_calls_begin_and_end_and_the_log_never_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "nudgescribe_async")
    events, told, all_of_it = Events(), list[Event](), list[Event | SpanEvent]()
    events.subscribe(told.append)
    before = events.spans_heard
    assert events.job("a.b", "pages") is None
    end = events.subscribe(all_of_it.append, spans=True)
    assert (before, events.spans_heard) == (False, True)
    events.emit(STARTED)
    events.emit_span(BEGINS)
    assert (told, all_of_it) == ([STARTED], [STARTED, BEGINS])
    end()
    end()
    assert not events.spans_heard
    events.emit_span(BEGINS)
    assert len(all_of_it) == 2
    assert [record.getMessage() for record in caplog.records] == [str(STARTED)]


def test_a_subscriber_that_raises_where_a_call_begins_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    events, told = Events(), list[Event | SpanEvent]()

    def broken(_: Event | SpanEvent) -> None:
        raise ZeroDivisionError("my fault")

    events.subscribe(broken, spans=True)
    events.subscribe(told.append, spans=True)
    events.emit_span(BEGINS)
    assert told == [BEGINS]
    assert "A subscriber failed on CallStarted." in caplog.text


WHERE: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="outside")


async def test_a_job_has_a_context_of_its_own_which_each_of_its_tasks_has_a_copy_of() -> None:
    events, told = Events(), list[tuple[str, str]]()

    def subscriber(event: Event | SpanEvent) -> None:
        told.append((type(event).__name__, WHERE.get()))
        if isinstance(event, JobStarted):
            WHERE.set(f"job {event.job}")

    async def work() -> str:
        before = WHERE.get()
        WHERE.set("a task's own")
        await asyncio.sleep(0)
        return before

    events.subscribe(subscriber, spans=True)
    job = events.job("a.b", "reruns", total=2)
    assert isinstance(job, Job)
    part = job.begin("a.b", "rerun", campaign_id="c")
    assert WHERE.get() == "outside"
    tasks = [job.task(work(), name="a"), job.task(work(), name="b"), part.task(work(), name="c")]
    assert await asyncio.gather(*tasks) == ["job 1", "job 1", "job 2"]
    part.tell(STARTED)
    part.end("succeeded")
    part.end("unknown")
    job.end("complete", done=1)
    assert told == [
        ("JobStarted", "outside"),
        ("JobStarted", "job 1"),
        ("RequestStarted", "job 2"),
        ("JobEnded", "job 2"),
        ("JobEnded", "job 1"),
    ]
    assert WHERE.get() == "outside"
