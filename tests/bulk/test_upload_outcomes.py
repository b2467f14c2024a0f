"""What an upload says of rows whose outcome is in doubt, and that whoever goes by it loses none and doubles none."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from helpers import Service, client, watch

from nudgescribe_async import (
    APIStatusError,
    ClientClosedError,
    Nudgescribe,
    NudgescribeError,
    OutcomeUnknownError,
    RetryPolicy,
    UploadSourceError,
)
from nudgescribe_async.bulk.upload import UploadChunk, UploadReport, job
from nudgescribe_async.events import RequestRetrying
from nudgescribe_async.profiles import AesGcmProfiles
from nudgescribe_async.resources.customers import Customers
from nudgescribe_async.sandbox import LoseAnswer, LoseRequest, Sandbox, Status, create_sample_fields
from nudgescribe_async.testing import FaultProxy, answer

CHECK = "customers.check"
QUICK = RetryPolicy(base=0.001, longest=0.01)
EARLIER = "An earlier attempt was sent, and its outcome is not known."
PAGE = Path(__file__).parents[2] / "docs" / "upload.md"


@pytest.fixture
async def ns(sandbox: Sandbox) -> AsyncIterator[Nudgescribe]:
    decryptor = AesGcmProfiles(sandbox.profile_key)
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, retry=QUICK, profile_decryptor=decryptor) as ns:
        yield ns


@pytest.fixture
async def group(sandbox: Sandbox) -> str:
    await create_sample_fields(sandbox)
    return await sandbox.create_customer_group("g")


def rows(count: int) -> list[dict[str, object]]:
    return [{"external_id": f"c{number}", "purchases": number} for number in range(1, count + 1)]


async def ids(ns: Nudgescribe, group: str) -> list[object]:
    return [customer.profile()["external_id"] async for customer in ns.customers.iter(group)]


def states(report: UploadReport) -> list[str]:
    return [chunk.state for chunk in report.chunks]


def chunks(*states: Any) -> tuple[UploadChunk, ...]:
    """Of ten rows each."""
    return tuple(
        UploadChunk(number=number, first_row=number * 10 - 9, last_row=number * 10, rows=10, state=state)
        for number, state in enumerate(states, start=1)
    )


# --- sent again, since the first outcome was not known --------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 402, 413, 429])
async def test_a_refusal_does_not_undo_what_an_earlier_attempt_may_have_done(
    status: int, sandbox: Sandbox, ns: Nudgescribe, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "PAUSES", (0.0, 0.0, 0.0))
    sandbox.inject(LoseAnswer(), operation=CHECK)
    sandbox.inject(Status(status), operation=CHECK, times=None)
    told: list[UploadChunk] = []
    report = await ns.customers.upload(
        sandbox.workspace_id, group, rows(4), rows_per_chunk=2, repeat_unknown=True, on_chunk=told.append
    )
    assert states(report) == ["unknown", "not_sent"]
    assert told == [report.chunks[0]] == list(report.unknown)
    failure = report.failure
    assert isinstance(failure, APIStatusError)
    assert (failure.status, failure.may_have_taken_effect, failure.look) == (status, True, "customers.iter")
    assert failure.message.startswith(EARLIER)
    assert "look with customers.iter" in failure.advice
    assert report.chunks[0].error == str(failure)
    assert await ids(ns, group) == ["c1", "c2"]
    # A refusal ends the repeating at once; only a 429 is waited out, by the rules of any call.
    assert sandbox.count(CHECK, status=status) == (QUICK.attempts if status == 429 else 1)


class Pause:
    """The pause before a chunk is sent again, which ends when the test says so."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.over = asyncio.Event()


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch) -> Pause:
    pause, sleep = Pause(), asyncio.sleep

    async def slept(seconds: float) -> None:
        if seconds == 60.0:
            pause.begun.set()
            await pause.over.wait()
        else:
            await sleep(seconds)

    monkeypatch.setattr(job, "PAUSES", (60.0,))
    monkeypatch.setattr(asyncio, "sleep", slept)
    return pause


async def test_an_effect_that_was_in_doubt_stays_so_where_nothing_can_be_sent_any_more(
    sandbox: Sandbox, group: str, pause: Pause
) -> None:
    async with (
        FaultProxy(sandbox.url) as proxy,
        Nudgescribe(sandbox.credentials, base_url=proxy.url, retry=RetryPolicy(attempts=1)) as ns,
    ):
        sandbox.inject(LoseAnswer(), operation=CHECK)
        task = asyncio.create_task(ns.customers.upload(sandbox.workspace_id, group, rows(2), repeat_unknown=True))
        await pause.begun.wait()
        await proxy.refuse()
        pause.over.set()
        report = await task
    assert states(report) == ["unknown"]
    assert isinstance(report.failure, OutcomeUnknownError)
    assert report.failure.message.startswith(EARLIER)
    assert report.failure.may_have_taken_effect


async def test_closed_before_it_is_sent_again_it_may_have_taken_effect(
    sandbox: Sandbox, ns: Nudgescribe, group: str, pause: Pause
) -> None:
    sandbox.inject(LoseAnswer(), operation=CHECK)
    task = asyncio.create_task(
        ns.customers.upload(sandbox.workspace_id, group, rows(4), rows_per_chunk=2, repeat_unknown=True)
    )
    await pause.begun.wait()
    ns._session.refuse_calls()
    pause.over.set()
    with pytest.raises(ClientClosedError) as caught:
        await task
    report = caught.value.report
    assert report is not None
    assert states(report) == ["unknown", "not_sent"]
    assert caught.value.may_have_taken_effect
    assert caught.value.message.startswith(EARLIER)


async def test_cancelled_before_it_is_sent_again_it_may_have_taken_effect(
    sandbox: Sandbox, ns: Nudgescribe, group: str, pause: Pause
) -> None:
    told: list[UploadChunk] = []
    sandbox.inject(LoseAnswer(), operation=CHECK)
    task = asyncio.create_task(
        ns.customers.upload(
            sandbox.workspace_id, group, rows(4), rows_per_chunk=2, repeat_unknown=True, on_chunk=told.append
        )
    )
    await pause.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert [chunk.state for chunk in told] == ["unknown"]
    assert "rows 1 to 2 may have been sent" in caught.value.__notes__[-1]


async def test_cancelled_while_it_waits_for_its_turn_it_was_not_sent(sandbox: Sandbox, group: str) -> None:
    told: list[UploadChunk] = []
    sandbox.inject(Status(429, retry_after=60), operation=CHECK, skip=1)
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        events = watch(ns)
        task = asyncio.create_task(
            ns.customers.upload(sandbox.workspace_id, group, rows(6), rows_per_chunk=2, on_chunk=told.append)
        )
        while not any(isinstance(event, RequestRetrying) for event in events):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert [chunk.state for chunk in told] == ["sent", "not_sent"]
    assert caught.value.__notes__[-1] == (
        "customers.upload: rows 1 to 2 were sent, rows 3 to 6 were not sent. Then: go on with from_row=3."
    )


# --- what is left ----------------------------------------------------------------------------------------------------


def recipe() -> Any:
    """``upload_all`` of the documentation, as it stands there."""
    page = PAGE.read_text(encoding="utf-8")
    block = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def upload_all" in block)
    names: dict[str, Any] = {}
    exec(block, names)
    return names["upload_all"]


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("fault", [LoseAnswer(), LoseRequest()], ids=["effect", "no effect"])
@pytest.mark.parametrize("skip", [0, 1, 4, 6])
async def test_the_recipe_loses_no_row_and_doubles_none(
    skip: int,
    fault: Any,
    concurrency: int,
    sandbox: Sandbox,
    ns: Nudgescribe,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sandbox.inject(fault, operation=CHECK, skip=skip, times=2)
    monkeypatch.setattr(Customers, "upload", partialmethod(Customers.upload, rows_per_chunk=3))
    await recipe()(ns, sandbox.workspace_id, group, rows(20), concurrency)
    found = await ids(ns, group)
    assert sorted(map(str, found)) == sorted(str(row["external_id"]) for row in rows(20))
    if concurrency == 1:
        assert found == [row["external_id"] for row in rows(20)]


async def test_the_recipe_ends_with_an_error_where_the_service_refuses(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    sandbox.inject(Status(400), operation=CHECK)
    with pytest.raises(APIStatusError):
        await recipe()(ns, sandbox.workspace_id, group, rows(3))
    sandbox.inject(LoseRequest(), operation=CHECK, times=None)
    with pytest.raises(OutcomeUnknownError):
        await recipe()(ns, sandbox.workspace_id, group, rows(3), looks=2)


def test_what_is_left_is_what_was_not_sent_and_what_had_no_effect() -> None:
    report = UploadReport(
        rows=80,
        chunks=chunks("sent", "unknown", "not_sent", "sent", "unknown", "refused", "unknown", "not_sent"),
    )
    second, fifth, seventh = report.unknown
    assert report.left(took_effect=[]) == ((11, 30), (41, 50), (61, 80))
    assert report.left(took_effect=[second, seventh]) == ((21, 30), (41, 50), (71, 80))
    assert report.left(took_effect=iter(report.unknown)) == ((21, 30), (71, 80))
    assert UploadReport(rows=10, chunks=chunks("sent")).left(took_effect=()) == ()
    assert UploadReport(rows=10, chunks=chunks("not_sent")).left(took_effect=()) == ((1, 10),)
    with pytest.raises(ValueError, match=r"report\.unknown"):
        report.left(took_effect=[fifth, report.chunks[0]])


@pytest.mark.parametrize(
    "ends",
    [
        ["sent", "unknown", "not_sent", "sent", "unknown", "not_sent", "not_sent"],
        ["unknown", "unknown", "unknown", "not_sent"],
        ["not_sent", "sent", "unknown"],
        ["sent", "refused", "sent", "unknown", "not_sent"],
        ["sent", "sent"],
    ],
)
def test_the_note_of_a_cancelled_upload_names_the_rows_that_are_left(ends: list[Any]) -> None:
    report = UploadReport(rows=10 * len(ends), chunks=chunks(*ends))
    steps = job._account(report.chunks).partition("Then: ")[2].split("; ")

    def named(*, looked: bool) -> set[int]:
        found: set[int] = set()
        for step in steps:
            at = re.search(r"from_row=(\d+)(?:, to_row=(\d+))?", step)
            if at is not None and not (looked and "look whether" in step):
                found.update(range(int(at[1]), int(at[2] or report.rows) + 1))
        return found

    for took_effect in ((), report.unknown):
        ranges = report.left(took_effect=took_effect)
        assert named(looked=bool(took_effect)) == {row for first, last in ranges for row in range(first, last + 1)}


def test_the_note_does_not_go_on_beyond_the_last_row_that_was_wanted() -> None:
    assert job._account(chunks("sent", "not_sent", "not_sent"), 30).endswith("go on with from_row=11, to_row=30.")


# --- what the service has not said --------------------------------------------------------------------------------


async def uploaded(receipt: Mapping[str, Any]) -> UploadReport:
    """The report of six good rows in two chunks, to which the service says this."""
    service = Service()
    service.on_call = lambda _: answer(200, receipt)
    async with client(service) as ns:
        return await ns.customers.upload("w", "g", rows(6), rows_per_chunk=3, validate=False)


@pytest.mark.parametrize(
    "receipt",
    [
        {},
        {"success": True},
        {"success": True, "accepted_count": 1, "rejected_count": 0},
        {"success": False, "accepted_count": 0},
        {"accepted_count": -5, "rejected_count": 8},
        {"accepted_count": 5, "rejected_count": -2},
        {"accepted_count": 4, "rejected_count": 0},
    ],
    ids=str,
)
async def test_an_answer_that_does_not_account_for_the_rows_is_not_complete(receipt: Mapping[str, Any]) -> None:
    report = await uploaded(receipt)
    assert states(report) == ["sent", "sent"]
    assert not report.complete
    assert not any(chunk.answered for chunk in report.chunks)
    assert report.as_dict()["complete"] is False
    assert str(report).startswith("<UploadReport NOT COMPLETE")
    assert len(report.remarks) == 2
    assert report.failure is None
    with pytest.raises(NudgescribeError, match=r"the rows 1 to 3, 4 to 6\. .*remarks.*customers\.iter") as caught:
        report.raise_for_failures()
    assert caught.value.may_have_taken_effect
    assert report.left(took_effect=()) == ()


@pytest.mark.parametrize(
    "receipt",
    [
        {"accepted_count": 3, "rejected_count": 0},
        {"accepted_count": 3},
        {"rejected_count": 3},
        {"accepted_count": 1, "rejected_count": 2},
        {"job_uid": "j"},
        {"success": True, "job_uid": "j", "accepted_count": 0},
    ],
    ids=str,
)
async def test_an_answer_that_accounts_for_the_rows_or_queues_them_is_complete(receipt: Mapping[str, Any]) -> None:
    report = await uploaded(receipt)
    assert report.complete
    report.raise_for_failures()


async def test_numbers_below_zero_are_none() -> None:
    report = await uploaded({"accepted_count": -5, "rejected_count": 8})
    assert (report.accepted, report.chunks[0].accepted, report.chunks[0].rejected) == (0, None, 8)
    assert "below zero" in report.chunks[0].remark
    report = await uploaded({"accepted_count": 3, "rejected_count": -1})
    assert (report.accepted, report.refused_by_service, report.complete) == (6, 0, True)
    assert "below zero" in report.chunks[0].remark
    report = await uploaded({"success": False, "accepted_count": -1})
    assert states(report) == ["unknown", "not_sent"]


# --- a disk that fails ------------------------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many reads of the kept rows still succeed."""
    left, pread = [10**9], os.pread

    def read(*arguments: Any) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "Input/output error")
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", read)
    return left


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_kept_rows_that_cannot_be_read_end_the_sending_and_the_report_has_what_was_sent(
    concurrency: int, sandbox: Sandbox, ns: Nudgescribe, group: str, failing: list[int]
) -> None:
    failing[0] = 1
    report = await ns.customers.upload(sandbox.workspace_id, group, rows(10), rows_per_chunk=2, concurrency=concurrency)
    assert sorted(states(report)[:2]) == ["sent", "unknown"]
    assert set(states(report)[2:]) <= {"not_sent", "unknown"}
    assert isinstance(report.failure, OutcomeUnknownError)
    assert isinstance(report.failure.__cause__, OSError)
    assert "The kept rows could not be read: Input/output error." in str(report.failure)
    assert sandbox.effects[CHECK] == 1
    with pytest.raises(OutcomeUnknownError):
        report.raise_for_failures()


async def test_a_chunk_that_was_answered_stays_so_where_its_rows_cannot_be_read(failing: list[int]) -> None:
    service = Service()

    def said(_: Any) -> Any:
        failing[0] = 0
        error = {"row": 2, "field": "a", "message": "b"}
        return answer(200, {"accepted_count": 2, "rejected_count": 1, "errors": [error]})

    service.on_call = said
    async with client(service) as ns:
        report = await ns.customers.upload("w", "g", rows(3), validate=False)
    assert (states(report), report.complete, report.accepted, report.refused_by_service) == (["sent"], True, 2, 1)
    assert [(problem.row, problem.reason) for problem in report.problems] == [(None, "b")]
    assert "could not be read" in report.chunks[0].remark


async def test_a_source_that_cannot_be_read_is_still_an_error_of_the_pass(
    sandbox: Sandbox, ns: Nudgescribe, group: str
) -> None:
    with pytest.raises((OSError, UploadSourceError)):
        await ns.customers.upload(sandbox.workspace_id, group, "/no/such/file")
    assert sandbox.count(CHECK) == 0
