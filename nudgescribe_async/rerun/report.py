"""What became of a plan, campaign by campaign."""

from __future__ import annotations

import errno
import json
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from attrs import field, frozen

from nudgescribe_async.arguments import check_whole
from nudgescribe_async.bulk.files import replace_file
from nudgescribe_async.bulk.upload.report import counted
from nudgescribe_async.endpoint import timestamp
from nudgescribe_async.errors import NudgescribeError, RerunError
from nudgescribe_async.rerun.decide import stands

if TYPE_CHECKING:
    import os

    from nudgescribe_async.endpoints.models import RerunComparison
    from nudgescribe_async.rerun.item import RerunStep

__all__ = [
    "ADVICE",
    "SERIOUS",
    "Need",
    "RerunOutcome",
    "RerunReport",
    "RerunState",
    "cells",
    "cut",
    "cut_middle",
    "duration",
    "need_of",
    "one_line",
    "sentence",
    "verdict",
]

RerunState: TypeAlias = Literal["succeeded", "unfinished", "refused", "conflict", "unknown", "not_started"]
"""``"succeeded"``: the campaign has its one new run, and all that was asked for and needs no people is done.
``"unfinished"``: it has the run, and a later step that was asked for is not done.
``"refused"``: it may not be run, and was not.
``"conflict"``: somebody else has run it for another group meanwhile; nothing more was sent.
``"unknown"``: it may have the run or not; the same call again finds out.
``"not_started"``: it was not run; the same call again does it."""

SERIOUS: Final[tuple[RerunState, ...]] = ("unknown", "conflict", "unfinished", "refused", "not_started")
"""The states that are no success, the one that matters most first."""

Need: TypeAlias = Literal["unknown", "conflict", "failed", "unfinished", "plan", "refused", "not_started"]
"""What a campaign needs that did not succeed: the states, and of ``"unfinished"`` those apart with which the service
itself has failed, of ``"refused"`` those apart with which the plan is wrong."""

ADVICE: Final[Mapping[Need, str]] = {
    "unknown": "Call ns.reruns.run again with the same plan and journal: it asks the history of the service first, and runs "
    "no campaign twice.",
    "conflict": "Find out who has run them for another group, and decide which run is to stand.",
    "failed": "Ask the service what is wrong with the run; the same call of ns.reruns.run looks at it again.",
    "unfinished": "Call ns.reruns.run again with the same plan and journal: it goes on with the steps that are left, "
    "and publishes only with publish=True.",
    "plan": "Correct the plan, and call ns.reruns.run again with it, the same journal, and amend=True.",
    "refused": "Repair at the service what the reasons name, and call ns.reruns.run again with the same plan and journal; or "
    "correct the plan, and call it with the same journal and amend=True.",
    "not_started": "Call ns.reruns.run again with the same plan and journal: it runs them.",
}
"""What to do next about the campaigns that need something, for the program."""

_NEED_NAMES: Final[Mapping[Need, str]] = {"failed": "failed at the service", "plan": "wrong in the plan"}
_PLAN_IS_WRONG = ("The campaign is in the plan", "The campaign id", "The id of", "An id has")
_SERVICE_FAILED = "The service has failed"

_SHOWN = 3  # reasons in the text of an error
_REASON_LENGTH = 240
_ID_LENGTH = 80
_JOINERS = "\u200c\u200d"  # without them, Persian and Hindi names are misspelt

_REQUESTED = frozenset({"intended", "lost", "denied"})
"""Steps after which a request is under way, or may be."""
_AT_WORK = frozenset({"started", "adopted", "publishing"})
"""Steps after which the service is at work."""
_LONGEST_REQUEST = 1_800.0  # seconds: whatever lies longer between two steps was a time without any call


@frozen(kw_only=True)
class RerunOutcome:
    """What became of one campaign of a plan.

    Attributes:
        position: of the plan; the first is 1.
        campaign_id: the campaign.
        new_customer_group_id: the group that it was to be run for.
        state: see ``RerunState``.
        reason: why it is not ``"succeeded"``, as a sentence, in the service's own words where it said why.
        campaign_name: its name, as far as known.
        previous_run: the newest run before.
        run_number: the run that was made.
        rerun_id: its id.
        adopted: whether the answer to the request was lost, and the run was found in the history.
        attempts: requests to run it that were sent, those of earlier calls included.
        campaign_status: where the campaign stood when it was last asked, such as ``"Ready for review"``.
        archived_count: messages of the run before that were archived.
        comparison: how the segments of the two runs compare, as far as the service said.
        published: whether the messages of the run are known to be published.
        directory: where they were downloaded to.
        files: how many files they are.
        steps: what happened, oldest first, in earlier calls too.
        error: the error of this call behind ``reason``, if there is one.
    """

    position: int
    campaign_id: str
    new_customer_group_id: str
    state: RerunState
    reason: str = ""
    campaign_name: str | None = None
    previous_run: int | None = None
    run_number: int | None = None
    rerun_id: str | None = None
    adopted: bool = False
    attempts: int = 0
    campaign_status: str | None = None
    archived_count: int | None = None
    comparison: RerunComparison | None = None
    published: bool = False
    directory: Path | None = None
    files: int | None = None
    steps: tuple[RerunStep, ...] = ()
    error: NudgescribeError | None = field(default=None, repr=False, eq=False)

    @property
    def title(self) -> str:
        """What people call the campaign: its name, or its id where the name is not known."""
        return self.campaign_name or self.campaign_id

    @property
    def begins(self) -> datetime | None:
        """When its first step was; ``None`` if there is none."""
        return min((step.at for step in self.steps), default=None)

    @property
    def ends(self) -> datetime | None:
        """When its last step was; ``None`` if there is none."""
        return max((step.at for step in self.steps), default=None)

    @property
    def seconds(self) -> float | None:
        """How long something was under way; ``None`` if nothing ever was, as when it was refused before it was sent.

        That is: from each request to what became of it, from the begin of a run until it was seen to be ready, and from
        asking for publication until it was seen. Not in it: pauses, waiting for people, downloading, and the time between
        calls, unless the service was at work in it, or nobody looked whether it was.
        """
        steps = sorted(self.steps, key=lambda step: step.at)
        gaps = [
            gap
            for before, after in pairwise(steps)
            for gap in [(after.at - before.at).total_seconds()]
            if before.step in _AT_WORK or (before.step in _REQUESTED and gap <= _LONGEST_REQUEST)
        ]
        return sum(gaps) if gaps else None

    @property
    def in_review(self) -> bool:
        """Whether it has succeeded, and people have to look at its messages now."""
        return self.state == "succeeded" and stands(self.campaign_status) == "in review"

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON can hold it."""
        comparison = self.comparison
        return {
            "position": self.position,
            "campaign_id": self.campaign_id,
            "campaign_name": self.campaign_name,
            "new_customer_group_id": self.new_customer_group_id,
            "state": self.state,
            "reason": self.reason,
            "previous_run": self.previous_run,
            "run_number": self.run_number,
            "rerun_id": self.rerun_id,
            "adopted": self.adopted,
            "attempts": self.attempts,
            "campaign_status": None if self.campaign_status is None else str(self.campaign_status),
            "archived_count": self.archived_count,
            "comparison": None
            if comparison is None
            else {
                "matched_count": comparison.matched_count,
                "new_count": comparison.new_count,
                "orphaned_count": comparison.orphaned_count,
            },
            "published": self.published,
            "directory": None if self.directory is None else str(self.directory),
            "files": self.files,
            "seconds": self.seconds,
            "steps": [{"at": timestamp(step.at), "step": step.step, "detail": step.detail} for step in self.steps],
            "error": None if self.error is None else str(self.error),
        }


@frozen(kw_only=True, repr=False)
class RerunReport:
    """What became of a plan. It pickles; ``repr()`` holds nothing of the service's own words.

    Attributes:
        outcomes: one for each item, in the order of the plan.
        journal: the journal.
        began: when this call began; UTC.
        ended: when it ended; UTC.
        sent: requests to run a campaign that this call has sent.
        stopped: why it ended before everything was done, as a sentence; empty if nothing stopped it.
    """

    outcomes: tuple[RerunOutcome, ...]
    journal: Path
    began: datetime
    ended: datetime
    sent: int = 0
    stopped: str = ""

    def __iter__(self) -> Iterator[RerunOutcome]:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    def __bool__(self) -> bool:
        return True  # a report of an empty plan is a report: ``if report`` must not ask for its length

    def _of(self, state: RerunState) -> tuple[RerunOutcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.state == state)

    @property
    def succeeded(self) -> tuple[RerunOutcome, ...]:
        """The campaigns that have their one new run, and with which nothing is left to do but by people.

        It does not say that letters can go out: see ``published`` and ``in_review``.
        """
        return self._of("succeeded")

    @property
    def published(self) -> tuple[RerunOutcome, ...]:
        """The campaigns whose new run is known to be published, whatever else is left to do with it."""
        return tuple(outcome for outcome in self.outcomes if outcome.published)

    @property
    def in_review(self) -> tuple[RerunOutcome, ...]:
        """Those of ``succeeded`` that wait for people: their messages are ``Ready for review``."""
        return tuple(outcome for outcome in self.outcomes if outcome.in_review)

    @property
    def unfinished(self) -> tuple[RerunOutcome, ...]:
        """The campaigns that have their run, and a later step that was asked for is not done."""
        return self._of("unfinished")

    @property
    def refused(self) -> tuple[RerunOutcome, ...]:
        """The campaigns that may not be run, and were not. ``reason`` says why."""
        return self._of("refused")

    @property
    def conflicts(self) -> tuple[RerunOutcome, ...]:
        """The campaigns that somebody else has run for another group meanwhile."""
        return self._of("conflict")

    @property
    def unknown(self) -> tuple[RerunOutcome, ...]:
        """The campaigns that may have their run or not. The same call again finds out; do not start them by hand."""
        return self._of("unknown")

    @property
    def not_started(self) -> tuple[RerunOutcome, ...]:
        """The campaigns that were not run. The same call again does it."""
        return self._of("not_started")

    @property
    def complete(self) -> bool:
        """Whether all campaigns succeeded: each has its one new run, and the program has nothing left to do.

        It says nothing about people. Of a complete report, all runs may still wait to be reviewed (``in_review``), and none
        may be published (``published``): a job that is to end only when letters can go out asks for these, too.
        """
        return all(outcome.state == "succeeded" for outcome in self.outcomes)

    @property
    def seconds(self) -> float:
        """How long this call took, by the clock of the machine."""
        return max(0.0, (self.ended - self.began).total_seconds())

    @property
    def counts(self) -> dict[RerunState, int]:
        """How many campaigns are in each state, those in which there are none included."""
        found: dict[RerunState, int] = dict.fromkeys(get_args(RerunState), 0)
        for outcome in self.outcomes:
            found[outcome.state] += 1
        return found

    @property
    def earlier(self) -> tuple[RerunOutcome, ...]:
        """The campaigns whose run was made by an earlier call with the same journal."""
        return tuple(
            outcome
            for outcome in self.outcomes
            if any(step.step in {"started", "adopted"} and step.at < self.began for step in outcome.steps)
        )

    @property
    def nothing_new(self) -> bool:
        """Whether this call has neither run a campaign nor taken any other step: the journal had all of it before."""
        return self.sent == 0 and not any(step.at >= self.began for item in self.outcomes for step in item.steps)

    def raise_for_failures(self) -> None:
        """Raise if not all campaigns have succeeded. After this, the report is ``complete``; people may have to review.

        Raises:
            RerunError: how many there are of each state, and the first three different reasons, each with how many campaigns
                it is of; those first that matter most: unknown, conflict, unfinished, refused, not started. The reasons may
                be in the service's own words. ``report`` is this report; ``advice`` says what to do next.
        """
        if self.complete:
            return
        failing = [outcome for state in SERIOUS for outcome in self._of(state)]
        reasons: dict[tuple[RerunState, str], list[RerunOutcome]] = {}
        for outcome in failing:
            reasons.setdefault((outcome.state, one_line(outcome.reason)), []).append(outcome)
        same = list(reasons.values())
        shown = "; ".join(map(_why, same[:_SHOWN]))
        left = sum(map(len, same[_SHOWN:]))
        more = f"; and {left:,} more" if left else ""
        stopped = f" Stopped: {cut_middle(sentence(self.stopped), _REASON_LENGTH)}" if self.stopped else ""
        error = RerunError(
            f"{len(failing):,} of {counted(len(self.outcomes), 'campaign')} {'is' if len(failing) == 1 else 'are'} not done "
            f"({', '.join(_failing(self))}): {shown}{more}.{stopped}",
            operation="reruns.run",
        )
        found = {need for need in map(need_of, failing) if need is not None}
        needs: list[Need] = [need for need in get_args(Need) if need in found]
        error.advice = " ".join(
            ADVICE[need] if len(needs) == 1 else f"{_need_name(need).capitalize()}: {ADVICE[need]}" for need in needs
        )
        if self.unknown:
            error.may_have_taken_effect, error.look = True, "reruns.history"
        error.report = self
        raise error from failing[0].error

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it. Reasons and errors may be in the service's own words."""
        return {
            "complete": self.complete,
            "counts": {**self.counts, "in_review": len(self.in_review), "published": len(self.published)},
            "seconds": self.seconds,
            "began": timestamp(self.began),
            "ended": timestamp(self.ended),
            "sent": self.sent,
            "stopped": self.stopped,
            "journal": str(self.journal),
            "outcomes": [outcome.as_dict() for outcome in self.outcomes],
        }

    def to_json(self, *, indent: int = 2) -> str:
        """The report as JSON: ASCII only, so that any file and any terminal can take it."""
        return json.dumps(self.as_dict(), indent=indent)

    def as_table(self, *, width: int | None = None) -> str:
        """The report as text with aligned columns, for terminals and logs. Below it: the journal, and the verdict last.

        Control characters and the commands of terminals that are in names and reasons are made harmless.

        Args:
            width: how many cells a line may have, at least 60. Columns are left out for it, which a line below then says:
                attempts, seconds, groups and comparisons before an id or a name of usual length is cut, others if that is
                not enough. Only the sentences of the last lines may be longer. ``None``: nothing is cut or left out.

        Raises:
            TypeError: ``width`` is no whole number.
            ValueError: it is too low.
        """
        if width is not None:
            check_whole("width", width, "a whole number of cells, 60 or more, or None", least=60)
        last = [f"Journal: {one_line(str(self.journal))}", f"{_capital(self.headline)}."]
        if self.stopped:
            last.insert(1, f"Stopped: {sentence(self.stopped)}")
        return "\n".join([*_table(self.outcomes, width), *last])

    def as_html(self) -> str:
        """The report as one HTML page for people, with a timeline. It needs no other file, no script and no network.

        It takes a second or so for 10,000 campaigns: in an asyncio service, call it with ``asyncio.to_thread``.
        """
        from nudgescribe_async.rerun.page import render  # noqa: PLC0415 - it knows the report

        return render(self)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write ``as_html()`` to a file. It blocks: in an asyncio service, call it with ``asyncio.to_thread``.

        An existing file is replaced as a whole: nobody sees half a page, and a crash leaves the old one or the new one.

        Raises:
            OSError: it cannot be written; the folder must exist, and what is there already must be a file.
            ValueError: the path is none.
        """
        target = Path(path)
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "Not a regular file", str(target))
        replace_file(target, self.as_html().encode(errors="backslashreplace"))

    def __repr__(self) -> str:
        ends = ["stopped early"] if self.stopped else []
        ends += [] if self.complete else ["call raise_for_failures()"]
        return f"<RerunReport {'; '.join([self.headline, f'journal {str(self.journal)!r}', *ends])}>"

    @property
    def headline(self) -> str:
        """The report in one line, the verdict first, without any of the service's words."""
        head, body = verdict(self)
        if not self.outcomes:
            return f"{head}: {body}; nothing was sent"
        parts = [body]
        if self.complete and self.nothing_new:
            parts.append("nothing was sent")
        else:
            parts.append(f"{counted(self.sent, 'request')} to run a campaign in {duration(self.seconds)}")
        return f"{head}: {'; '.join(parts)}"


def verdict(report: RerunReport) -> tuple[str, str]:
    """Whether it is complete, such as ``"complete but for people"``, and what came of the campaigns, without a full stop."""
    if not report.outcomes:
        return "complete", "the plan is empty"
    head, body = _verdict(report)
    number = len(report.earlier)
    made = "was made by an earlier call" if number == 1 else "were made by earlier calls"
    before = f"; {counted(number, 'run')} {made}" if number and not (report.complete and report.nothing_new) else ""
    return head, f"{body}; {_published(report)}{before}"


def _verdict(report: RerunReport) -> tuple[str, str]:
    total, waiting = len(report), len(report.in_review)
    wait = f"{waiting:,} {'waits' if waiting == 1 else 'wait'} for review"
    if not report.complete:
        done = f"{report.counts['succeeded']:,} of {counted(total, 'campaign')} succeeded"
        done += f" ({wait})" if waiting else ""
        return "NOT COMPLETE", ", ".join([done, *_failing(report)])
    earlier = report.nothing_new
    if waiting:
        made = " from earlier calls" if earlier else ""
        has = "has its run" if total == 1 else "have their run"
        return "complete but for people", f"{total:,} of {counted(total, 'campaign')} {has}{made}, {wait}"
    every = "the one campaign" if total == 1 else f"all {total:,} campaigns"
    if earlier:
        return "complete", f"{every} {'was' if total == 1 else 'were'} done by earlier calls"
    return "complete", f"{every} {'has its run' if total == 1 else 'have their run'}"


def _published(report: RerunReport) -> str:
    number, total = len(report.published), len(report)
    if total == 1:
        return "it is published" if number else "it is not published"
    if number in (0, total):
        return "all are published" if number else "none is published"
    return f"{number:,} {'is' if number == 1 else 'are'} published"


def need_of(outcome: RerunOutcome) -> Need | None:
    """What a campaign needs; ``None`` if it has succeeded."""
    if outcome.state == "succeeded":
        return None
    if outcome.state == "refused" and outcome.reason.startswith(_PLAN_IS_WRONG):
        return "plan"
    if outcome.state == "unfinished":
        failed = _SERVICE_FAILED in outcome.reason or (outcome.steps and outcome.steps[-1].step == "failed")
        return "failed" if failed else "unfinished"
    return outcome.state


def _need_name(need: Need) -> str:
    return _NEED_NAMES.get(need, need.replace("_", " "))


def _words(state: RerunState) -> str:
    return state.replace("_", " ")


def _failing(report: RerunReport) -> list[str]:
    """How many campaigns there are of each state that is no success, such as ``"2 conflicts"``."""
    counts = report.counts
    return [
        f"{counts[state]:,} {'conflicts' if state == 'conflict' and counts[state] != 1 else _words(state)}"
        for state in SERIOUS
        if counts[state]
    ]


def _why(outcomes: list[RerunOutcome]) -> str:
    """Why campaigns did not succeed that are all in the same state for the same reason."""
    first = outcomes[0]
    reason = cut_middle(one_line(first.reason), _REASON_LENGTH).rstrip(".")
    name = cut_middle(one_line(first.campaign_id), _ID_LENGTH)
    who = f"campaign {name!r} is" if len(outcomes) == 1 else f"{len(outcomes):,} campaigns (the first is {name!r}) are"
    return f"{who} {_words(first.state)}" + (f": {reason}" if reason else "")


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def sentence(text: str) -> str:
    """A text of anybody's as one line that begins and ends as a sentence does."""
    line = one_line(text)
    return _capital(line if line.endswith((".", "!", "?")) else f"{line}.")


def duration(seconds: float) -> str:
    """Such as ``"0.4 s"``, ``"12 min 5 s"``, ``"3 h 20 min"``, ``"58 days 2 h"``."""
    if seconds < 59.95:  # what would be written as 60.0 s is a minute
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, rest in ((86_400, "day", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            number, left = divmod(whole, size)
            first = counted(number, unit) if unit == "day" else f"{number:,} {unit}"
            return f"{first} {left // smaller} {rest}" if left >= smaller else first
    return f"{whole} s"


def one_line(text: str) -> str:
    """A text of anybody's as one line that commands no terminal: no escape codes, no line breaks, no change of direction."""
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in _JOINERS else "\ufffd" for letter in text)


def _cells(letter: str) -> int:
    if unicodedata.category(letter) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1


def cells(text: str) -> int:
    """How many cells of a terminal a text takes, as far as one can tell."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, width: int) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    if cells(text) <= width:
        return text
    room, kept = width - 1, 0
    for letter in text:
        room -= _cells(letter)
        if room < 0:
            break
        kept += 1
    return text[:kept].rstrip() + "\u2026"


def cut_middle(text: str, length: int) -> str:
    """The text, or its begin and its end with an ellipsis between, of so many letters: what to do often stands at the end."""
    if len(text) <= length:
        return text
    end = length // 2
    begin = length - 3 - end
    return f"{text[:begin].rstrip()} \u2026 {text[-end:].lstrip()}"


_RIGHT = {"#", "run", "attempts", "seconds", "matched/new/orphaned"}
_LEFT_OUT_FIRST = (  # columns, and the widths that the texts are to have for which they are left out
    (("attempts", "seconds", "group", "matched/new/orphaned"), {"campaign": 40, "name": 40, "group": 40, "reason": 60}),
    (("run", "status"), {"campaign": 36, "name": 20, "reason": 40}),
    (("name",), {"campaign": 36, "name": 12, "reason": 24}),
)
_CUT_FIRST = (("name", 20), ("reason", 40), ("name", 12), ("reason", 24), ("campaign", 10), ("group", 10))
_BETWEEN = 2


def _row(outcome: RerunOutcome) -> dict[str, str]:
    comparison, seconds = outcome.comparison, outcome.seconds
    counts = () if comparison is None else (comparison.matched_count, comparison.new_count, comparison.orphaned_count)
    return {
        "#": str(outcome.position),
        "campaign": one_line(outcome.campaign_id),
        "name": one_line(outcome.campaign_name or ""),
        "group": one_line(outcome.new_customer_group_id),
        "state": _words(outcome.state),
        "status": cut(one_line(outcome.campaign_status or ""), 24),
        "run": "" if outcome.run_number is None else str(outcome.run_number),
        "attempts": str(outcome.attempts),
        "seconds": "" if seconds is None else f"{seconds:.1f}",
        "matched/new/orphaned": "/".join(map(str, counts)),
        "reason": one_line(outcome.reason),
    }


def _table(outcomes: tuple[RerunOutcome, ...], width: int | None) -> list[str]:
    rows = [_row(outcome) for outcome in outcomes]
    if not rows:
        return []
    widths = {name: max(cells(row[name]) for row in rows) for name in rows[0]}
    widths = {name: max(most, cells(name)) for name, most in widths.items() if most}  # nothing in it, no column
    left_out: list[str] = []
    if width is not None:
        for names, wished in _LEFT_OUT_FIRST:
            for name in names:
                if _total({key: min(most, wished.get(key, most)) for key, most in widths.items()}) <= width:
                    break
                if widths.pop(name, None) is not None:
                    left_out.append(name)
        for name, least in _CUT_FIRST:
            over = _total(widths) - width
            if over > 0 and name in widths:
                widths[name] = max(min(widths[name], least), widths[name] - over)
    lines = [_line(dict(zip(widths, widths, strict=True)), widths), "  ".join("-" * most for most in widths.values())]
    lines += [_line(row, widths) for row in rows]
    return [*lines, *([f"Left out, as the lines are short: {', '.join(left_out)}."] if left_out else [])]


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + _BETWEEN * (len(widths) - 1)


def _line(row: Mapping[str, str], widths: Mapping[str, int]) -> str:
    parts: list[str] = []
    for name, most in widths.items():
        text = cut(row[name], most)
        space = " " * (most - cells(text))
        parts.append(space + text if name in _RIGHT else text + space)
    return (" " * _BETWEEN).join(parts).rstrip()
