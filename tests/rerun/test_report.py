"""What a report of reruns says, and that neither hostile texts nor large plans make it unreadable."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pytest
from attrs import fields
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nudgescribe_async.endpoints.models import RerunComparison
from nudgescribe_async.errors import ConflictError, RerunError
from nudgescribe_async.rerun import page
from nudgescribe_async.rerun.item import RerunStep
from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest
from nudgescribe_async.rerun.report import (
    ADVICE,
    SERIOUS,
    Need,
    RerunOutcome,
    RerunReport,
    RerunState,
    cells,
    cut,
    cut_middle,
    duration,
    need_of,
    one_line,
    sentence,
)

BEGAN = datetime(2026, 1, 12, 9, tzinfo=UTC)
Failing: TypeAlias = Literal["unknown", "conflict", "unfinished", "refused", "not_started"]
FAILING: tuple[Failing, ...] = (
    "unknown",
    "conflict",
    "unfinished",
    "refused",
    "not_started",
)
HOSTILE = "</td><script>alert('x')</script>\"' onmouseover=\"x\x1b[31m\x9b2J\r\n\u202eevil\ud800{}:url(//x.example)"


def steps(*parts: tuple[float, str]) -> tuple[RerunStep, ...]:
    return tuple(RerunStep(at=BEGAN + timedelta(seconds=after), step=name) for after, name in parts)


def outcome(position: int = 1, state: RerunState = "succeeded", **more: Any) -> RerunOutcome:
    parts: dict[str, Any] = {"campaign_id": f"campaign-{position}", "new_customer_group_id": f"group-{position}"}
    if state == "succeeded":
        parts["steps"] = steps((position, "intended"), (position + 1, "started"), (position + 61.5, "ready"))
    return RerunOutcome(position=position, state=state, **parts | more)


def report(*outcomes: RerunOutcome, **more: Any) -> RerunReport:
    parts: dict[str, Any] = {
        "journal": Path("/state/reruns.db"),
        "began": BEGAN,
        "ended": BEGAN + timedelta(seconds=90),
        "sent": 1,
    }
    return RerunReport(outcomes=outcomes, **parts | more)


def one_of_each() -> RerunReport:
    states = get_args(RerunState)
    return report(*(outcome(number, state, reason=f"Because of {number}.") for number, state in enumerate(states, 1)))


# ---------------------------------------------------------------------------------------------------- what it is asked


@pytest.mark.parametrize(
    ("name", "position"),
    [("succeeded", 1), ("unfinished", 2), ("refused", 3), ("conflicts", 4), ("unknown", 5), ("not_started", 6)],
)
def test_each_state_has_its_campaigns(name: str, position: int) -> None:
    assert [item.position for item in getattr(one_of_each(), name)] == [position]


def test_every_campaign_is_in_one_state_and_counted_there() -> None:
    whole = one_of_each()
    assert len(whole) == sum(whole.counts.values()) == 6
    assert list(whole) == list(whole.outcomes)
    assert set(SERIOUS) | {"succeeded"} == set(get_args(RerunState))
    assert set(get_args(Need)) == set(ADVICE) == set(page._NEEDS) == set(SERIOUS) | {"failed", "plan"}


@pytest.mark.parametrize("status", ["Ready for review", "READY FOR REVIEW"])
def test_in_review_are_those_that_succeeded_and_wait_for_people(status: str) -> None:
    waiting = outcome(1, campaign_status=status)
    refused = outcome(2, "refused", campaign_status=status)
    done = outcome(3, campaign_status="Ready to publish")
    whole = report(waiting, refused, done)
    assert whole.in_review == (waiting,)
    assert "NOT COMPLETE: 2 of 3 campaigns succeeded (1 waits for review), 1 refused; none is published; " in repr(
        whole
    )


def test_published_are_those_whose_run_is_whatever_else_is_left_to_do() -> None:
    whole = report(outcome(1, published=True), outcome(2, "unfinished", published=True), outcome(3, "refused"))
    assert [item.position for item in whole.published] == [1, 2]
    assert "; 2 are published; " in repr(whole)
    assert whole.as_dict()["counts"]["published"] == 2


def test_it_is_complete_only_if_all_succeeded() -> None:
    assert report(outcome(1), outcome(2)).complete
    assert report().complete
    for state in FAILING:
        assert not report(outcome(1), outcome(2, state)).complete


def test_a_report_is_true_even_of_an_empty_plan() -> None:
    assert report()
    assert len(report()) == 0
    assert "the plan is empty" in repr(report())


def test_a_campaign_begins_with_its_first_step_and_ends_with_its_last_in_whatever_order_the_clock_had_them() -> None:
    assert outcome(1).seconds == 61.5
    back = outcome(1, steps=steps((30, "intended"), (10, "started")))
    assert (back.seconds, back.begins, back.ends) == (20, BEGAN + timedelta(seconds=10), BEGAN + timedelta(seconds=30))
    none = outcome(1, "not_started")
    assert (none.seconds, none.begins, none.ends) == (None, None, None)
    assert report().seconds == 90
    assert report(ended=BEGAN - timedelta(seconds=1)).seconds == 0


DAY = 86_400


@pytest.mark.parametrize(
    ("parts", "seconds"),
    [
        ([(0, "refused")], None),
        ([(0, "refused"), (DAY, "refused")], None),  # nothing was ever sent
        ([(0, "refused"), (600, "intended"), (601, "started")], 1),
        ([(0, "intended"), (1, "denied"), (11, "refused"), (DAY, "refused")], 11),
        ([(0, "intended"), (1, "denied"), (11, "refused"), (600, "intended"), (603, "started")], 14),
        ([(0, "intended"), (5, "lost"), (15, "absent"), (16, "intended"), (17, "started")], 16),
        ([(0, "intended"), (1, "unsent"), (31, "intended"), (33, "started")], 3),
        ([(0, "intended"), (DAY, "adopted"), (DAY + 60, "ready")], 60),  # the process was killed
        ([(0, "intended"), (5, "lost"), (DAY, "adopted")], 5),
        ([(0, "intended"), (1, "started"), (7_201, "ready")], 7_201),  # the service takes its time
        ([(0, "started"), (60, "ready"), (DAY, "publishing"), (DAY + 9, "publishing"), (DAY + 30, "published")], 90),
        ([(0, "started"), (60, "published"), (90, "downloaded")], 60),
        ([(0, "intended")], None),
    ],
)
def test_the_seconds_of_a_campaign_are_those_in_which_something_was_under_way(
    parts: list[tuple[float, str]], seconds: float | None
) -> None:
    assert outcome(1, steps=steps(*parts)).seconds == seconds


def test_the_title_is_the_name_where_it_is_known() -> None:
    assert outcome(7).title == "campaign-7"
    assert outcome(7, campaign_name="Renewal").title == "Renewal"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min"), (725, "12 min 5 s"), (3_600, "1 h"), (12_000, "3 h 20 min"),
        (86_400, "1 day"), (58 * 86_400 + 7_200, "58 days 2 h"),
    ],
)  # fmt: skip
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# ---------------------------------------------------------------------------------------------------------- its repr


def test_the_repr_has_the_verdict_first_and_none_of_the_service_s_words() -> None:
    words = "The owner Jane Doe has locked it"
    whole = report(outcome(1), outcome(2, "refused", reason=words, campaign_name="Jane"), stopped=words)
    text = repr(whole)
    assert text.startswith("<RerunReport NOT COMPLETE: 1 of 2 campaigns succeeded, 1 refused; ")
    assert "Jane" not in text
    assert text.endswith("journal '/state/reruns.db'; stopped early; call raise_for_failures()>")
    assert str(whole) == text


def test_the_repr_of_a_success_asks_for_nothing() -> None:
    assert repr(report(outcome(1), outcome(2), sent=2)) == (
        "<RerunReport complete: all 2 campaigns have their run; none is published; 2 requests to run a campaign in "
        "1 min 30 s; journal '/state/reruns.db'>"
    )


WAITING: dict[str, Any] = {"campaign_status": "Ready for review"}
OUT: dict[str, Any] = {"campaign_status": "Published", "published": True}


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        ([{}], "complete: the one campaign has its run; it is not published; 1 request "),
        ([OUT], "complete: the one campaign has its run; it is published; 1 request "),
        ([WAITING], "complete but for people: 1 of 1 campaign has its run, 1 waits for review; it is not published; "),
        ([OUT, OUT], "complete: all 2 campaigns have their run; all are published; "),
        ([OUT, {}, {}], "complete: all 3 campaigns have their run; 1 is published; "),
        ([{}, {}], "complete: all 2 campaigns have their run; none is published; "),
        (
            [OUT] * 28 + [WAITING] * 12,
            "complete but for people: 40 of 40 campaigns have their run, 12 wait for review; 28 are published; ",
        ),
    ],
)
def test_the_verdict_says_who_waits_for_people_and_what_is_published(kinds: list[dict[str, Any]], text: str) -> None:
    whole = report(*(outcome(number, **more) for number, more in enumerate(kinds, 1)))
    assert whole.complete  # the program has nothing left to do
    assert whole.headline.startswith(text)
    assert "NOT" not in repr(whole)
    assert "raise_for_failures" not in repr(whole)


def test_a_journal_in_which_all_was_done_before_reads_as_such() -> None:
    old = [outcome(number) for number in range(1, 401)]
    later = report(*old, began=BEGAN + timedelta(days=1), ended=BEGAN + timedelta(days=1, seconds=2), sent=0)
    said = "omplete: all 400 campaigns were done by earlier calls; none is published; nothing was sent"
    assert f"c{said}" in repr(later)
    assert f"C{said}." in later.as_table()
    assert "Nothing was sent by this call" in later.as_html()
    assert "earlier calls" not in repr(report(*old, sent=0))  # the steps are of this call
    waiting = report(*old, outcome(401, **WAITING), began=later.began, ended=later.ended, sent=0)
    assert (
        "complete but for people: 401 of 401 campaigns have their run from earlier calls, 1 waits for review; none is "
        "published; nothing was sent"
    ) in repr(waiting)
    fresh = RerunStep(at=later.began, step="downloaded")
    downloads = report(*old, outcome(401, steps=(fresh,)), began=later.began, ended=later.ended, sent=0)
    assert "; 400 runs were made by earlier calls" in repr(downloads)
    assert "done by earlier calls" not in repr(downloads)
    assert len(downloads.earlier) == 400


# ----------------------------------------------------------------------------------------------------- its exception


def test_nothing_is_raised_when_all_succeeded() -> None:
    report(outcome(1), outcome(2, campaign_status="Ready for review")).raise_for_failures()
    report().raise_for_failures()


def raised(whole: RerunReport) -> RerunError:
    with pytest.raises(RerunError) as caught:
        whole.raise_for_failures()
    return caught.value


@pytest.mark.parametrize("state", FAILING)
def test_each_state_that_is_no_success_is_raised_with_what_to_do(state: Failing) -> None:
    whole = report(outcome(1), outcome(2, state, reason="It is so."))
    error = raised(whole)
    name = state.replace("_", " ")
    assert error.message == f"1 of 2 campaigns is not done (1 {name}): campaign 'campaign-2' is {name}: It is so."
    assert error.report is whole
    assert error.advice == ADVICE[state]
    assert error.operation == "reruns.run"
    assert error.may_have_taken_effect == (state == "unknown")
    assert error.look == ("reruns.history" if state == "unknown" else None)


def test_the_error_counts_each_state_shows_the_worst_three_and_advises_on_all() -> None:
    error = raised(one_of_each())
    assert "5 of 6 campaigns are not done (1 unknown, 1 conflict, 1 unfinished, 1 refused, 1 not started): " in str(
        error
    )
    assert re.findall(r"campaign 'campaign-(\d)' is", str(error)) == ["5", "4", "2"]
    assert "; and 2 more." in str(error)
    assert all(ADVICE[state] in error.advice for state in FAILING)
    assert "Not started: Call ns.reruns.run" in error.advice
    assert "(2 conflicts)" in str(raised(report(outcome(1, "conflict"), outcome(2, "conflict"))))


def test_long_and_hostile_reasons_do_not_flood_the_error() -> None:
    whole = report(
        *(outcome(number, "refused", reason=HOSTILE * 50, campaign_id=HOSTILE * 50) for number in range(1, 50))
    )
    text = str(raised(whole))
    assert len(text) < 1_500
    assert text.isprintable()


@pytest.mark.parametrize(
    ("stopped", "text"),
    [
        ("The client was closed.", " Stopped: The client was closed."),
        ("the client was closed", " Stopped: The client was closed."),
        ("Is it\nso?", " Stopped: Is it so?"),
    ],
)
def test_everything_says_why_the_call_was_stopped_in_a_sentence(stopped: str, text: str) -> None:
    whole = report(outcome(1, "not_started", reason="It was not sent."), stopped=stopped)
    assert raised(whole).message.endswith(f": campaign 'campaign-1' is not started: It was not sent.{text}")
    assert f"\n{text.strip()}\n" in whole.as_table()
    assert "Stopped" not in report(outcome(1)).as_table()
    parsed = checked(whole)
    assert ("dt", "Stopped") in parsed.pieces
    assert ("b", text.removeprefix(" Stopped: ")) in parsed.pieces
    assert ("dt", "Stopped") not in checked(report(outcome(1))).pieces
    assert "; stopped early; " in repr(whole)


@pytest.mark.parametrize(
    ("text", "said"),
    [("it is so", "It is so."), ("It is so.", "It is so."), ("is\x1bit so!", "Is\ufffdit so!"), ("", ".")],
)
def test_a_sentence_begins_and_ends_as_one(text: str, said: str) -> None:
    assert sentence(text) == said


def test_the_same_reason_is_told_once_with_how_many_campaigns_it_is_of() -> None:
    path = "/state/a/long/path/reruns.db"
    items = [outcome(number, "not_started", reason=f"The journal {path} cannot be written.") for number in range(1, 30)]
    text = str(
        raised(report(outcome(30, "refused", reason="No."), *items, outcome(31, "not_started", reason="Other.")))
    )
    assert text.count(path) == 1
    assert (
        "campaign 'campaign-30' is refused: No; 29 campaigns (the first is 'campaign-1') are not started: "
        f"The journal {path} cannot be written; campaign 'campaign-31' is not started: Other."
    ) in text
    assert "more" not in text


def test_one_reason_in_two_states_is_told_for_each_and_further_reasons_are_counted_in_campaigns() -> None:
    items = [outcome(1, "unknown", reason="So."), outcome(2, "refused", reason="So.")]
    items += [outcome(number, "not_started", reason=f"Reason {number // 10}.") for number in range(10, 40)]
    message = raised(report(*items)).message
    assert message == (
        "32 of 32 campaigns are not done (1 unknown, 1 refused, 30 not started): campaign 'campaign-1' is unknown: So; "
        "campaign 'campaign-2' is refused: So; 10 campaigns (the first is 'campaign-10') are not started: Reason 1; "
        "and 20 more."
    )


def test_of_a_long_reason_the_end_that_says_what_to_do_survives() -> None:
    reason = f"It was not sent: {'so it is, ' * 60}and that is why. Look with reruns.history, and decide."
    message = raised(report(outcome(1, "unknown", reason=reason))).message
    assert "campaign 'campaign-1' is unknown: It was not sent: so it is" in message
    assert message.endswith("and that is why. Look with reruns.history, and decide.")
    assert " \u2026 " in message
    assert len(message) < 400


@settings(deadline=None, database=None)
@given(st.text(), st.integers(10, 300))
def test_what_is_cut_in_the_middle_fits_and_keeps_both_ends(text: str, length: int) -> None:
    found = cut_middle(text, length)
    assert len(found) <= length
    assert (found == text) == (len(text) <= length or found == text)
    begin, _, end = found.partition(" \u2026 ") if len(text) > length else (text, "", text)
    assert text.startswith(begin)
    assert text.endswith(end)


@pytest.mark.parametrize(
    ("state", "more", "need"),
    [
        ("succeeded", {}, None),
        ("refused", {"reason": "The campaign is in the plan 2 times (items 1, 2), so none of them is run."}, "plan"),
        ("refused", {"reason": "The campaign id is empty."}, "plan"),
        ("refused", {"reason": "The id of the customer group is empty."}, "plan"),
        ("refused", {"reason": "An id has characters that no text can have (half of a surrogate pair)."}, "plan"),
        ("refused", {"reason": "The account has no such campaign."}, "refused"),
        ("not_started", {"reason": "The campaign is in the plan."}, "not_started"),
        ("unfinished", {"reason": "The service has failed in its work on run 2: the campaign is 'Failed'."}, "failed"),
        ("unfinished", {"reason": "Run 2 is there. The service has failed in its work on it."}, "failed"),
        ("unfinished", {"reason": "It is so.", "steps": steps((0, "started"), (9, "failed"))}, "failed"),
        ("unfinished", {"reason": "It is so.", "steps": steps((0, "failed"), (9, "ready"))}, "unfinished"),
        ("unknown", {"reason": "The service has failed."}, "unknown"),
        ("conflict", {}, "conflict"),
    ],
)
def test_each_campaign_needs_what_its_state_and_reason_say(
    state: RerunState, more: dict[str, Any], need: Need | None
) -> None:
    item = outcome(1, state, **more)
    assert need_of(item) == need
    if need is not None:
        assert raised(report(item)).advice == ADVICE[need]


def test_the_mistakes_of_a_plan_are_known_as_such() -> None:
    plan = RerunPlan(
        [
            RerunRequest("a", "g"),
            RerunRequest("a", "g"),
            RerunRequest("", "g"),
            RerunRequest("b", " "),
            RerunRequest("\ud800", "g"),
            RerunRequest("c", "g "),
        ]
    )
    mistakes = plan.mistakes()
    assert sorted(mistakes) == [0, 1, 2, 3, 4, 5]
    assert {need_of(outcome(1, "refused", reason=reason)) for reason in mistakes.values()} == {"plan"}


def test_the_advice_tells_the_plan_s_own_mistakes_from_what_the_service_says_and_names_amend() -> None:
    wrong = outcome(1, "refused", reason="The campaign is in the plan 2 times (items 1, 2), so none of them is run.")
    other = outcome(2, "refused", reason="The account has no such campaign.")
    advice = raised(report(wrong, other)).advice
    assert advice == f"Wrong in the plan: {ADVICE['plan']} Refused: {ADVICE['refused']}"
    assert ADVICE["plan"].startswith("Correct the plan")
    assert "amend=True" in ADVICE["plan"]
    assert "amend=True" in ADVICE["refused"]
    failed = outcome(1, "unfinished", reason="The service has failed in its work on run 2: the campaign is 'Failed'.")
    assert raised(report(failed)).advice.startswith("Ask the service what is wrong")


def test_error_and_report_pickle_with_the_errors_of_the_outcomes() -> None:
    cause = ConflictError("The state does not allow it.", status=409, said="no")
    whole = report(outcome(1), outcome(2, "refused", reason="No.", error=cause))
    error = raised(whole)
    assert error.__cause__ is cause
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.may_have_taken_effect, again.look, again.advice) == (False, None, error.advice)
    assert again.report == whole
    assert again.report.outcomes[1].error.status == 409


# -------------------------------------------------------------------------------------------------------------- JSON


def test_json_holds_all_of_it() -> None:
    item = outcome(
        1,
        campaign_name="Café",
        previous_run=2,
        run_number=3,
        rerun_id="r-1",
        adopted=True,
        attempts=2,
        campaign_status="Published",
        archived_count=5,
        comparison=RerunComparison(matched_count=1, new_count=2, orphaned_count=3, extra={"more": 4}),
        published=True,
        directory=Path("/out/1"),
        files=6,
        error=RerunError("It was so."),
    )
    whole = report(item, outcome(2, "unknown", reason="Nobody knows."))
    text = whole.to_json()
    assert text.isascii()
    assert json.loads(text) == whole.as_dict() == json.loads(whole.to_json(indent=0))
    found = json.loads(text)
    first = found.pop("outcomes")[0]
    assert found == {
        "complete": False,
        "counts": {
            "succeeded": 1, "unfinished": 0, "refused": 0, "conflict": 0, "unknown": 1, "not_started": 0, "in_review": 0,
            "published": 1,
        },
        "seconds": 90.0,
        "began": "2026-01-12T09:00:00.000Z",
        "ended": "2026-01-12T09:01:30.000Z",
        "sent": 1,
        "stopped": "",
        "journal": "/state/reruns.db",
    }  # fmt: skip
    assert set(first) == {attribute.name for attribute in fields(RerunOutcome)} | {"seconds"}
    assert first["comparison"] == {"matched_count": 1, "new_count": 2, "orphaned_count": 3}
    assert (first["directory"], first["error"]) == ("/out/1", "It was so.")
    assert first["steps"][0] == {"at": "2026-01-12T09:00:01.000Z", "step": "intended", "detail": ""}


@settings(deadline=None, database=None)
@given(st.text())
@example(HOSTILE)
def test_json_survives_any_text(text: str) -> None:
    whole = report(outcome(1, "refused", campaign_name=text, reason=text))
    encoded = whole.to_json().encode()
    assert json.loads(encoded)["outcomes"][0]["reason"] == text


# ------------------------------------------------------------------------------------------------------------- table


def wide(position: int) -> RerunOutcome:
    names = ["Renewal", "保険のご案内", "Cafe\u0301 crème", "Rückkehr 🎉", HOSTILE, "x" * 300]
    return outcome(
        position,
        get_args(RerunState)[position % 6],
        campaign_name=names[position % len(names)],
        campaign_status="Ready for review",
        run_number=position,
        comparison=RerunComparison(matched_count=1, new_count=20, orphaned_count=300),
        reason=names[(position + 1) % len(names)],
    )


def columns(lines: list[str], index: int) -> set[str]:
    """What stands where the gaps between the columns are."""
    place, gaps = 0, []
    for run in re.finditer(r"-+", lines[index]):
        gaps += [] if run.start() == 0 else [run.start() - 2, run.start() - 1]
        place = run.end()
    assert place
    found: set[str] = set()
    for line in [*lines[:index], *lines[index + 1 :]]:
        spread = "".join(letter + "\0" * (cells(letter) - 1) for letter in line if cells(letter))
        found |= {spread[gap] for gap in gaps if gap < len(spread)}
    return found


@pytest.mark.parametrize("width", [None, 60, 80, 100, 140, 400])
def test_the_columns_of_the_table_stay_aligned_with_any_letters(width: int | None) -> None:
    lines = report(*map(wide, range(1, 13))).as_table(width=width).splitlines()
    body = lines[:14]
    assert columns(body, 1) == {" "}
    assert all(line.replace("\u200d", "").isprintable() for line in lines)
    if width is not None:
        assert max(map(cells, body)) <= width
    assert [line.split()[0] for line in body[2:]] == [str(number) for number in range(1, 13)]


def test_the_table_names_its_columns_and_sums_up() -> None:
    lines = report(wide(1), wide(2)).as_table().splitlines()
    assert " ".join(lines[0].split()) == "# campaign name group state status run attempts matched/new/orphaned reason"
    assert "1/20/300" in lines[2]
    assert lines[-1].startswith("NOT COMPLETE: 0 of 2 campaigns succeeded, 1 unfinished, 1 refused; ")
    assert lines[-2] == "Journal: /state/reruns.db"
    assert len(lines) == 6


def test_a_narrow_table_keeps_state_and_reason_and_says_what_it_leaves_out() -> None:
    lines = report(*map(wide, range(1, 13))).as_table(width=60).splitlines()
    assert lines[0].split() == ["#", "campaign", "state", "reason"]
    assert lines[-3] == (
        "Left out, as the lines are short: attempts, seconds, group, matched/new/orphaned, run, status, name."
    )


def usual(position: int) -> RerunOutcome:
    return outcome(
        position,
        "refused" if position % 2 else "succeeded",
        campaign_id=f"0c7a1e5d-5d2b-4c9a-9a57-1f0e6c2d{position:04d}",
        new_customer_group_id=f"97351d5e-1111-4c9a-9a57-1f0e6c2d{position:04d}",
        campaign_name=f"Renewal of motor insurance, {position}",
        campaign_status="Ready for review",
        run_number=position,
        comparison=RerunComparison(matched_count=1, new_count=20, orphaned_count=300),
        reason="It is not published: publish its messages first." if position % 2 else "",
        steps=steps((1, "intended"), (2, "started"), (3, "ready")),
    )


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (None, "# campaign name group state status run attempts seconds matched/new/orphaned reason"),
        (240, "# campaign name group state status run attempts seconds matched/new/orphaned reason"),
        (225, "# campaign name group state status run seconds matched/new/orphaned reason"),
        (160, "# campaign name state status run reason"),
        (135, "# campaign name state status reason"),
        (100, "# campaign name state reason"),
        (80, "# campaign state reason"),
    ],
)
def test_columns_that_are_needed_less_go_before_ids_are_cut(width: int | None, names: str) -> None:
    whole = report(*map(usual, range(1, 9)))
    lines = whole.as_table(width=width).splitlines()
    assert " ".join(lines[0].split()) == names
    assert all(item.campaign_id in line for item, line in zip(whole, lines[2:10], strict=True))
    if width is None or width >= 160:
        assert all(
            item.campaign_name in line for item, line in zip(whole, lines[2:10], strict=True) if item.campaign_name
        )


def test_a_table_without_names_and_reasons_has_no_columns_for_them() -> None:
    lines = report(outcome(1)).as_table().splitlines()
    assert lines[0].split() == ["#", "campaign", "group", "state", "attempts", "seconds"]
    assert report().as_table() == ("Journal: /state/reruns.db\nComplete: the plan is empty; nothing was sent.")


def test_the_journal_in_the_table_commands_no_terminal() -> None:
    text = report(outcome(1), journal=Path("/state/\x1b[31m\nred")).as_table()
    assert "Journal: /state/\ufffd[31m red\n" in text


@pytest.mark.parametrize(("width", "kind"), [(59, ValueError), (True, TypeError), (80.0, TypeError)])
def test_a_width_that_is_none_is_refused(width: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^width must be a whole number of cells"):
        report(outcome(1)).as_table(width=width)


@settings(deadline=None, database=None)
@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=200)), min_size=1, max_size=4), st.integers(60, 200))
@example([(HOSTILE, HOSTILE)], 80)
@example([("\u0301" * 40, "\u200d\u200b\u00ad")], 60)
def test_no_text_breaks_the_table(texts: list[tuple[str, str]], width: int) -> None:
    items = [
        outcome(number, "refused", campaign_id=name, new_customer_group_id=reason, campaign_name=reason, reason=reason)
        for number, (name, reason) in enumerate(texts, 1)
    ]
    lines = report(*items).as_table(width=width).split("\n")
    body = lines[: len(items) + 2]
    assert columns(body, 1) <= {" "}
    assert max(map(cells, body)) <= width
    assert all(letter.isprintable() or letter in "\u200c\u200d" for line in lines for letter in line)


@pytest.mark.parametrize(
    ("text", "number"),
    [("abc", 3), ("保険", 4), ("e\u0301", 1), ("क्ष", 2), ("a\u200db", 2), ("🎉", 2), ("ü", 1), ("\uff21", 2), ("", 0)],
)
def test_cells_are_counted_as_terminals_do(text: str, number: int) -> None:
    assert cells(text) == number


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\r\n\tb\u2028c", "a b c"),
        ("\x1b[31mred\x9b2J", "\ufffd[31mred\ufffd2J"),
        ("\u202eevil", "\ufffdevil"),
        ("\ud800", "\ufffd"),
        ("\u0646\u200c\u0646", "\u0646\u200c\u0646"),
    ],
)
def test_a_text_of_anybody_s_is_one_harmless_line(text: str, line: str) -> None:
    assert one_line(text) == line


@settings(deadline=None, database=None)
@given(st.text(), st.integers(1, 50))
def test_what_is_cut_fits(text: str, width: int) -> None:
    assert cells(cut(text, width)) <= width or cells(text) <= width


# -------------------------------------------------------------------------------------------------------------- HTML

VOID = {"meta"}


class Page(HTMLParser):
    """The page as a browser would take it apart; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.pieces: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag not in VOID | {"br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return " ".join(data for tag, data in self.pieces if tag != "style")

    def of(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


NO_STYLE = re.compile(r"(left:[\d.]+%(;width:[\d.]+%)?|contain-intrinsic-size:auto \d+px(;--k:[a-z0-9 ,.%()/-]+)?)\Z")
ATTRIBUTES = {
    "aria-hidden", "aria-label", "charset", "class", "content", "http-equiv", "lang", "name", "role", "scope", "style",
    "tabindex", "title",
}  # fmt: skip
TAGS = {
    "b", "bdi", "body", "br", "caption", "code", "dd", "div", "dl", "dt", "h1", "h2", "h3", "head", "html", "i", "li",
    "main", "meta", "p", "section", "small", "span", "style", "table", "tbody", "td", "th", "thead", "title", "tr", "ul",
}  # fmt: skip


def checked(whole: RerunReport) -> Page:
    """The page, which holds nothing but what its template has, whatever is in the report."""
    text = whole.as_html()
    text.encode()  # lone surrogates would fail
    parsed = Page(text)
    assert set(parsed.tags) <= TAGS
    assert {name for _, name, _ in parsed.attributes} <= ATTRIBUTES
    assert parsed.tags["style"] == parsed.tags["title"] == parsed.tags["h1"] == parsed.tags["html"] == 1
    styles = [value for value in parsed.of("style") if not NO_STYLE.match(value)]
    assert not styles
    assert all(re.fullmatch(r"[a-z ]{1,12}", value) for value in parsed.of("class"))
    style = "".join(data for tag, data in parsed.pieces if tag == "style")
    assert style == page._STYLE
    return parsed


def everything() -> RerunReport:
    items = [wide(number) for number in range(1, 13)]
    lost = [
        (1, "intended"),
        (9, "lost"),
        (12, "absent"),
        (13, "intended"),
        (20, "lost"),
        (25, "adopted"),
        (60, "ready"),
    ]
    items += [
        outcome(13, steps=steps(*lost, (61, "publishing"), (64, "published"), (70, "downloaded")), files=2, adopted=True,
                directory=Path('/out/"><b>'), run_number=4, previous_run=3, rerun_id="r", published=True),
        outcome(14, "conflict", steps=steps((1, "intended"), (9, "lost"), (12, "conflict"))),
        outcome(15, "unfinished", steps=steps((1, "intended"), (2, "started"), (50, "failed"))),
        outcome(16, "refused", steps=steps((1, "refused"))),
        outcome(17, "not_started"),
        outcome(18, steps=steps(*((number, "whatever <b>") for number in range(90)))),
    ]  # fmt: skip
    return report(*items, stopped=HOSTILE, journal=Path(f"/state/{HOSTILE[:30]}"))


def test_the_page_is_well_formed_self_contained_and_has_every_campaign() -> None:
    whole = everything()
    parsed = checked(whole)
    text = whole.as_html()
    assert parsed.of("lang") == ["en"]
    policies = [value for _, name, value in parsed.attributes if name == "content" and "default-src" in value]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]
    assert parsed.tags["table"] == parsed.tags["caption"] == parsed.tags["thead"]
    assert all(value in {"col", "row"} for value in parsed.of("scope"))
    assert not re.search(r"://|@import|url\(|src=|href=", page._STYLE)
    assert not re.search(r"<(script|img|link|iframe|svg|form)|\shref=|\ssrc=", text)
    for item in whole:
        needed = item.state != "succeeded" or item.in_review
        assert parsed.pieces.count(("span", item.campaign_id)) == (2 if needed else 1)


def test_the_page_says_what_it_is_and_when_and_then_the_verdict() -> None:
    parsed = checked(one_of_each())
    words = " ".join(parsed.text.split())
    said = (
        "1 of 6 campaigns succeeded, 1 unknown, 1 conflict, 1 unfinished, 1 refused, 1 not started; none is published"
    )
    assert f"Campaign reruns 2026-01-12, 09:00 UTC NOT COMPLETE: {said}." in words
    assert ("title", f"Campaign reruns, 2026-01-12: NOT COMPLETE: {said}") in parsed.pieces
    assert ("h1", "Campaign reruns ") in parsed.pieces
    assert {("b", "1"), ("dd", "2026-01-12 09:00:00 to 2026-01-12 09:01:30 UTC, 1 min 30 s")} <= set(parsed.pieces)
    assert ("code", "/state/reruns.db") in parsed.pieces
    assert all(f"Because of {number}." in parsed.text for number in range(2, 7))
    done = checked(report(outcome(1), outcome(2)))
    assert "Complete: all 2 campaigns have their run; none is published." in " ".join(done.text.split())
    assert done.of("class").count("zero") == 7


@pytest.mark.parametrize(
    ("items", "kind"),
    [
        ([outcome(1)], "good"),
        ([outcome(1), outcome(2, **WAITING)], "warn"),
        ([outcome(1, **WAITING), outcome(2, "refused")], "bad"),
    ],
)
def test_the_verdict_has_the_colour_of_what_it_says(items: list[RerunOutcome], kind: str) -> None:
    assert [value for value in checked(report(*items)).of("class") if value.startswith("verdict")] == [
        f"verdict {kind}"
    ]


def test_in_another_zone_the_page_still_says_utc() -> None:
    zone = timezone(timedelta(hours=-10))
    whole = report(outcome(1), began=BEGAN.astimezone(zone), ended=BEGAN.astimezone(zone))
    assert "2026-01-12, 09:00 UTC" in checked(whole).text


def tiles(parsed: Page) -> dict[str, str]:
    """The numbers of the tiles by their names."""
    found: dict[str, str] = {}
    for (tag, number), (_, name) in pairwise(parsed.pieces):
        if tag == "b" and number.replace(",", "").isdigit():
            found[name.strip()] = number
    return found


def test_the_tiles_count_what_is_published_and_downloaded() -> None:
    out = [outcome(number, published=True, directory=Path("/out"), files=2) for number in range(1, 4)]
    parsed = checked(report(*out, outcome(4, published=True), outcome(5, **WAITING), outcome(6, "conflict")))
    found = tiles(parsed)
    assert (found["succeeded"], found["published"], found["downloaded"], found["in review"]) == ("5", "4", "3", "1")
    assert ("small", "6 files") in parsed.pieces
    assert found["conflict"] == "1"
    assert ("dd", "4 of 6 campaigns. No letters of the other runs can go out yet.") in parsed.pieces
    none = checked(report(outcome(1), outcome(2)))
    assert tiles(none)["published"] == "0"
    assert "downloaded" not in tiles(none)
    assert ("dd", "None of 2 campaigns: no letters of these runs can go out yet.") in none.pieces
    assert ("dd", "2 of 2 campaigns.") in checked(report(*out[:2])).pieces
    assert ("dt", "Published") not in checked(report()).pieces


def action_of(whole: RerunReport) -> str:
    text = whole.as_html()
    return text[text.index("What needs somebody") : text.index("<h2>Timeline")]


@pytest.mark.parametrize("items", [[], [outcome(1)], [outcome(1, **OUT), outcome(2)]])
def test_where_nothing_needs_anybody_it_says_so(items: list[RerunOutcome]) -> None:
    assert "<h2>What needs somebody</h2>\n<p>Nothing needs anybody.</p>".partition("<h2>")[2] in action_of(
        report(*items)
    )


def test_who_waits_for_review_is_listed_with_what_to_do() -> None:
    items = [outcome(1, **OUT), *(outcome(number, **WAITING, run_number=7) for number in (2, 3))]
    action = action_of(report(*items))
    assert "<h3>Waiting for review: 2</h3>" in action
    assert "<b>What to do:</b> Review and approve them at the service; then " in action
    assert "The same call of ns.reruns.run with publish=True publishes" in action
    assert action.index("at the service") < action.index("ns.reruns.run")  # people first
    assert [f">campaign-{number}<" in action for number in (1, 2, 3)] == [False, True, True]
    assert "Nothing needs anybody" not in action
    assert "<h3>" in action_of(report(outcome(1, **WAITING), outcome(2, "refused")))


def test_what_could_be_published_and_was_not_asked_for_is_said() -> None:
    ready = outcome(1, campaign_status="Ready to publish")
    action = action_of(report(ready, outcome(2, **OUT), outcome(3, "unfinished", campaign_status="Ready to publish")))
    assert "<h3>Ready to publish: 1</h3>" in action
    assert "Nothing needs anybody" not in action_of(report(ready))
    assert "Ready to publish" not in action_of(report(outcome(1, campaign_status="Ready to publish", published=True)))


def test_each_need_has_its_own_list_and_speaks_to_people_before_it_speaks_of_the_program() -> None:
    items = [outcome(number, state, reason=f"Because of {number}.") for number, state in enumerate(FAILING, 1)]
    items += [
        outcome(6, "refused", reason="The campaign is in the plan 2 times (items 6, 7), so none of them is run."),
        outcome(7, "unfinished", reason="The service has failed in its work on run 2: the campaign is 'Failed'."),
    ]
    action = action_of(report(*items))
    sections = action.split("<h3>")[1:]
    assert [section.partition("<")[0] for section in sections] == [
        "Unknown: 1", "Conflict: 1", "Failed at the service: 1", "Unfinished: 1", "Refused: the plan is wrong: 1",
        "Refused: 1", "Not started: 1",
    ]  # fmt: skip
    for section, position in zip(sections, (1, 2, 7, 3, 6, 4, 5), strict=True):
        people, program, table = (
            section.index(text) for text in ("<b>What to do:", "For whoever runs the program:", "<table")
        )
        assert people < program < table
        assert "ns.reruns" not in section[:program]
        assert re.findall(r"<span class=id>campaign-(\d)<", section) == [str(position)]
    assert "amend=True" in sections[4]
    assert "amend=True" in sections[5]
    assert "Ask the service what is wrong" in sections[2]
    assert all(section.count(ADVICE["failed"].partition(";")[0]) <= 1 for section in sections)
    assert all(section.count("Find out who") == (section is sections[1]) for section in sections)


def test_what_needs_somebody_comes_first_and_names_each_campaign_that_does() -> None:
    text = everything().as_html()
    action = action_of(everything())
    for item in everything():
        assert (f">{item.campaign_id}<" in action) == (item.state != "succeeded" or item.in_review)
    assert text.index("What needs somebody") < text.index("<h2>Timeline") < text.index("<h2>All campaigns")


def test_the_bars_show_what_a_campaign_was_doing() -> None:
    lost = [(0, "intended"), (10, "lost"), (20, "absent"), (21, "intended"), (31, "started"), (60, "ready")]
    whole = report(outcome(1, steps=steps(*lost, (61, "publishing"), (70, "published"), (100, "downloaded"))))
    text = whole.as_html()
    row = text[text.index("<td class=k>") : text.index("</td>", text.index("<td class=k>"))]
    pieces = re.findall(r"<i class=(\w) style=left:([\d.]+)%;width:([\d.]+)%>", row)
    assert [kind for kind, *_ in pieces] == ["a", "v", "w", "a", "g", "w", "p", "d"]
    ends = [(float(left), float(left) + float(width)) for _, left, width in pieces]
    assert ends[0][0] == 1
    assert ends[-1][1] == pytest.approx(99, abs=0.1)
    assert all(end == pytest.approx(begin, abs=0.02) for (_, end), (begin, _) in pairwise(ends))
    assert re.findall(r"<b(?: class=(\w))? style", row) == ["", "q", "o", "", "", "", "", "", ""]
    assert 'title="09:00:10 lost"' in row


@pytest.mark.parametrize(
    ("before", "after", "phase"),
    [
        ("intended", "unsent", "a"), ("intended", "refused", "a"), ("intended", "adopted", "v"), ("lost", "published", "v"),
        ("adopted", "ready", "g"), ("ready", "publishing", "w"), ("publishing", "publishing", "p"),
        ("publishing", "unsent", "f"), ("publishing", "lost", "f"), ("publishing", "absent", "f"),
        ("publishing", "denied", "f"), ("publishing", "ready", "f"), ("publishing", "failed", "f"),
        ("publishing", "published", "p"), ("ready", "downloaded", "d"), ("absent", "intended", "w"), ("new", "newer", "w"),
        ("intended", "denied", "a"), ("denied", "refused", "v"), ("denied", "adopted", "v"),
    ],
)  # fmt: skip
def test_each_piece_of_a_bar_is_what_lies_between_two_steps(before: str, after: str, phase: str) -> None:
    whole = report(outcome(1, steps=steps((0, before), (10, after))))
    assert f"<td class=k><i class={phase} style=left:1%;width:98%>" in whole.as_html()


def bar_of(*parts: tuple[float, str]) -> tuple[list[str], list[str]]:
    """The classes of the pieces and of the marks of a campaign with such steps."""
    text = report(outcome(1, steps=steps(*parts))).as_html()
    row = text[text.index("<td class=k>") : text.index("</td>", text.index("<td class=k>"))]
    return re.findall(r"<i class=(\w) ", row), re.findall(r"<b(?: class=(\w))? style", row)


@pytest.mark.parametrize(
    ("names", "pieces", "marks"),
    [
        ("publishing publishing published", "p", ["", "", ""]),
        ("publishing unsent", "f", ["", "x"]),
        ("publishing denied", "f", ["", "x"]),
        ("publishing publishing absent", "f", ["", "", "x"]),  # accepted, and nothing came of it
        ("publishing publishing", "p", ["", ""]),  # accepted, and not seen yet
        ("publishing lost ready", "fv", ["", "q", "x"]),
        ("publishing lost published", "fv", ["", "q", ""]),
        ("publishing lost absent", "fv", ["", "q", "x"]),
        ("publishing unsent publishing publishing published", "fwp", ["", "x", "", "", ""]),
        ("publishing lost publishing published", "fvp", ["", "q", "", ""]),
        ("ready publishing failed", "wf", ["", "", "x"]),
        ("intended lost absent intended started", "avwa", ["", "q", "o", "", ""]),  # of a run, it is no bad news
        ("intended unsent intended started ready", "awag", ["", "", "", "", ""]),
        ("intended denied refused", "av", ["", "x", "x"]),
        ("intended denied adopted", "av", ["", "x", "o"]),
        ("publishing published absent", "pw", ["", "", "o"]),
    ],
)
def test_a_publication_that_was_not_done_does_not_look_like_one(names: str, pieces: str, marks: list[str]) -> None:
    found = bar_of(*((10 * index, name) for index, name in enumerate(names.split())))
    assert ("".join(found[0]), found[1]) == (pieces, marks)


def test_all_that_is_drawn_is_explained() -> None:
    text = report(outcome(1)).as_html()
    key = text[text.index("<ul class=key>") : text.index("</ul>", text.index("<ul class=key>"))]
    drawn = {*page._PHASES.values(), "v", "w", "a"}
    assert set(re.findall(r"<i class=(\w)>", key)) == drawn
    assert set(re.findall(r"<b class=(\w)>", key)) == {*page._MARKS.values(), *page._NOT_PUBLISHED.values()}
    assert all(re.search(rf"(^|\}}|\n)(i)?\.{kind}\{{", page._STYLE) for kind in drawn - {"w"})


def test_steps_on_one_spot_share_a_mark_that_shows_the_worst() -> None:
    whole = report(outcome(1, steps=steps((0, "intended"), (0.01, "lost"), (0.02, "failed"), (1_000, "ready"))))
    text = whole.as_html()
    assert 'class=x style=left:1% title="09:00:00 intended; 09:00:00 lost; 09:00:00 failed"' in text


def test_campaigns_with_very_many_steps_do_not_flood_the_page() -> None:
    whole = report(outcome(1, steps=steps(*((number, "lost") for number in range(1_000)))))
    text = whole.as_html()
    assert "... 960 more steps ..." in text
    assert len(text) < 20_000


def test_a_long_time_in_which_nothing_happened_is_cut_out_and_said() -> None:
    days = 58 * 86_400
    january = [(0, "intended"), (1, "started"), (300, "ready")]
    items = [outcome(n, steps=steps(*january, (days + n, "publishing"), (days + n + 60, "published"))) for n in (1, 2)]
    text = report(*items).as_html()
    assert "Cut out: 57 days 23 h (2026-01-12 09:05:00 to 2026-03-11 09:00:01)" in text
    assert ">2026-03-11<br>09:00:01<" in text
    row = text[text.index("<td class=k>") : text.index("</td>", text.index("<td class=k>"))]
    widths = {
        kind: float(width) for kind, width in re.findall(r"<i class=(\w) style=left:[\d.]+%;width:([\d.]+)%>", row)
    }
    assert widths["g"] > 30
    assert widths["p"] > 20


@pytest.mark.parametrize(
    ("times", "stretches"),
    [
        ([0], 1),
        ([0, 0], 1),
        ([0, 1_700], 1),  # not long enough
        ([*range(0, 86_400, 60), 90_000], 1),  # an hour is little beside a day
        ([0, 60, 10_000, 10_060], 2),
        ([day * 86_400 + minute * 60 for day in range(7) for minute in range(60)], 7),
        ([day * 86_400 + minute * 60 for day in range(30) for minute in range(10)], 1),  # too many cuts, all alike
        ([0, 10, 40_000, 40_010, 10_000_000], 3),
    ],
)
def test_the_axis_leaves_out_idle_time_only(times: list[float], stretches: int) -> None:
    axis = page._axis([outcome(1, steps=steps(*((moment, "lost") for moment in times)))])
    assert len(axis.stretches) == stretches
    places = [axis.at((BEGAN + timedelta(seconds=moment)).timestamp()) for moment in times]
    assert places == sorted(places)
    assert places[0] == 1
    assert places[-1] <= 99.0001
    assert all(stretch.width > 98 / stretches * 0.3 for stretch in axis.stretches)


@settings(deadline=None, database=None)
@given(st.lists(st.floats(0, 1e8, allow_nan=False), min_size=1, max_size=30))
def test_any_steps_have_their_place_in_order(times: list[float]) -> None:
    whole = report(outcome(1, steps=steps(*((moment, "started") for moment in times))))
    axis = page._axis(whole.outcomes)
    found = sorted(step.at.timestamp() for step in whole.outcomes[0].steps)
    places = [axis.at(moment) for moment in found]
    assert places == sorted(places)
    assert all(0.99 <= place <= 99.01 for place in places)
    ticks = [place for stretch in axis.stretches for place, _ in page._ticks(stretch)]
    assert ticks == sorted(ticks)
    assert len(ticks) < 40
    checked(whole)


@settings(deadline=None, database=None)
@given(st.text(), st.text())
@example(HOSTILE, HOSTILE)
@example('"><script>alert(1)</script>', "</style><style>*{display:none}</style>")
@example("&#60;script>", "]]><!--")
def test_no_text_adds_markup_or_style_to_the_page(name: str, reason: str) -> None:
    text_step = RerunStep(at=BEGAN, step=name, detail=reason)
    items = [
        outcome(
            number,
            state,
            campaign_id=name,
            new_customer_group_id=reason,
            campaign_name=name,
            reason=reason,
            rerun_id=name,
            campaign_status=reason,
            steps=(text_step,),
            directory=Path("/out") / name.replace("\0", ""),
            files=1,
        )
        for number, state in enumerate(get_args(RerunState), 1)
    ]
    plain = report(*(outcome(number, state) for number, state in enumerate(get_args(RerunState), 1)))
    parsed = checked(report(*items, stopped=reason, journal=Path(name.replace("\0", ""))))
    assert parsed.tags["table"] == checked(plain).tags["table"]
    assert parsed.tags["tr"] == checked(plain).tags["tr"]
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", parsed.text + "".join(parsed.of("title"))
    )


def test_hostile_texts_can_still_be_read() -> None:
    parsed = checked(report(outcome(1, "refused", reason="if a < b && c > \"d\" then 'e'", campaign_name="<script>")))
    assert "if a < b && c > \"d\" then 'e'" in parsed.text
    assert ("bdi", "<script>") in parsed.pieces


def test_pages_of_nothing_and_of_campaigns_without_steps_say_so() -> None:
    assert "The plan is empty." in checked(report()).text
    assert "No campaign has taken a step." in checked(report(outcome(1, "not_started"))).text


def test_ten_thousand_campaigns_make_a_page_that_is_small_and_soon_there() -> None:
    names = ["intended", "lost", "absent", "intended", "started", "ready", "publishing", "published", "downloaded"]
    items = [
        outcome(
            number,
            "refused" if number % 10 == 0 else "succeeded",
            campaign_id=f"{number:036d}",
            new_customer_group_id=f"{number:036d}",
            campaign_name=f"A campaign with a name of usual length {number}",
            reason="It is not published: publish its messages first." if number % 10 == 0 else "",
            rerun_id=f"{number:036d}",
            run_number=2,
            comparison=RerunComparison(matched_count=1, new_count=2, orphaned_count=3),
            steps=steps(*((number + index * 9, name) for index, name in enumerate(names[number % 2 * 3 :]))),
        )
        for number in range(1, 10_001)
    ]
    text = report(*items).as_html()
    assert len(text.encode()) < 15_000_000
    assert text.count("<td class=k>") == 10_000
    assert text.count("too many for one axis") == 1
    assert "Timeline of the campaigns, 9,951 to 10,000 of 10,000" in text


# ------------------------------------------------------------------------------------------------------------- files


def test_the_page_is_written_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    whole = everything()
    whole.write_html(str(target))
    assert target.read_text(encoding="utf-8") == whole.as_html()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            report(outcome(1)).write_html(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    os.mkfifo(tmp_path / "pipe")
    for nothing in (tmp_path, tmp_path / "pipe", "/dev/null"):
        with pytest.raises(OSError, match="Not a regular file"):
            report(outcome(1)).write_html(nothing)
    report(outcome(1, campaign_id="half \ud800")).write_html(target)
    assert "half" in target.read_text(encoding="utf-8")
    with pytest.raises(FileNotFoundError):
        report(outcome(1)).write_html(tmp_path / "nowhere" / "report.html")
