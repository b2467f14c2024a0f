"""The report of a rerun as a page for people: what came of it, what needs somebody, and when what happened.

One file that needs nothing else: no script, no picture, no font, no network; its own policy forbids them. Whatever came
from the service or from the plan is escaped, and can neither add markup nor style. Long tables are cut into parts that
a browser lays out only when they come into sight, so that 10,000 campaigns can be read as well as three.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from attrs import frozen

from nudgescribe_async.bulk.upload.report import counted
from nudgescribe_async.rerun.decide import stands
from nudgescribe_async.rerun.report import (
    ADVICE,
    RerunOutcome,
    RerunReport,
    cut,
    duration,
    need_of,
    one_line,
    sentence,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async.rerun.item import RerunStep
    from nudgescribe_async.rerun.report import Need

__all__ = ["render"]

_PART = 50  # rows of a table
_ONE_AXIS = 500  # campaigns that are shown on one axis; of more, each part of the table has its own
_ROW_HEIGHT = 30  # pixels, about: what a browser assumes of parts that it has not laid out
_IDLE = 1_800.0  # seconds without any step that may be cut out of the axis
_MOST_CUTS = 7
_CUT_WIDTH = 1.5  # percent of the axis
_LEAST_SHARE = 0.6  # of an even share of the axis, for a stretch that is short
_STEPS_TOLD = 40  # in the marks of one campaign

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE: Final = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d0d7de;--head:#f3f5f7;--grid:#e4e8ec;
--ask:#08468f;--check:#b35900;--make:#5b93d6;--out:#1a7f4b;--get:#7a4fc9;--good:#14663b;--bad:#b3261e;--warn:#8a4b00}
@media screen and (prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e8ebee;--soft:#a4adb8;--line:#3a424c;
--head:#1d2228;--grid:#2a3038;--ask:#8cc0ff;--check:#f0a04b;--make:#4a78b0;--out:#4cc587;--get:#b294f2;--good:#5fd39a;
--bad:#ff8a80;--warn:#f2b366}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1440px;margin:0 auto;padding:1.5rem 1.25rem 3rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .6rem}h1 small{font-size:1rem;font-weight:400;margin-left:.5rem;white-space:nowrap}
.verdict{max-width:none;border-left:6px solid;padding:.1rem 0 .1rem .8rem;font-size:1.3rem;line-height:1.3}
.verdict span{color:var(--fg)}.warn{color:var(--warn)}
h2{font-size:1.2rem;margin:2.4rem 0 .5rem}
h3{font-size:1rem;margin:1.4rem 0 .2rem}p{margin:.3rem 0;max-width:52rem}
.soft,small{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
code,.id{font:12px/1.4 ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
bdi,td,th{unicode-bidi:isolate}
.cards{display:flex;flex-wrap:wrap;gap:.6rem;padding:0;margin:1.1rem 0;list-style:none}
.cards li{flex:1 1 8rem;border:1px solid var(--line);border-top:4px solid var(--soft);border-radius:6px;padding:.5rem .8rem}
.cards b{display:block;font-size:1.7rem;line-height:1.2}.cards small{display:block}
.cards .ok{border-top-color:var(--good)}.cards .no{border-top-color:var(--bad)}.cards .on{border-top-color:var(--warn)}
.cards .zero{border-color:var(--line);border-top-width:1px;padding-top:calc(.5rem + 3px);color:var(--soft)}.zero b{font-weight:400}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.6rem 0}dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:13.5px}
caption{text-align:left;color:var(--soft);padding:.35rem 0;font-size:13px}
caption.h{position:absolute;width:1px;height:1px;padding:0;overflow:hidden;clip-path:inset(50%)}
.nb{white-space:nowrap}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);overflow-wrap:break-word}
thead th{background:var(--head);vertical-align:bottom;overflow-wrap:normal;padding-left:.3rem}
tbody th{font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th .id,td .id{display:block;font-weight:400;color:var(--soft)}
.s{white-space:nowrap}.s:before{font-weight:700;margin-right:.3em}
.su:before{content:"\\2713";color:var(--good)}.un:before,.re:before,.ns:before,.uf:before,.co:before{color:var(--bad)}
.un:before{content:"?"}.re:before{content:"\\2715"}.ns:before{content:"\\2013"}.uf:before{content:"\\2026"}
.co:before{content:"\\2260"}
.box{overflow-x:auto}.box table{min-width:60rem}
.part{content-visibility:auto}
.tl table{table-layout:fixed;min-width:44rem}.tl th{width:17rem}.tl th,.tl td{padding-top:0;padding-bottom:0}
.tl thead td{position:relative;height:2.9em;padding:0;background:var(--head);color:var(--soft);font-size:11.5px;
font-variant-numeric:tabular-nums}
.tl tbody th{font-weight:400;line-height:25px;height:26px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.tl tbody th small{display:inline-block;min-width:2.6em;font-variant-numeric:tabular-nums}
.tl tbody td{position:relative;height:26px;padding:0}
.t{position:absolute;bottom:0;white-space:nowrap;padding-left:3px;border-left:1px solid var(--soft);line-height:1.25}
.tl .k{background:var(--k)}.k i,.k b{position:absolute}.k i{top:8px;height:10px;min-width:2px}
i.w{top:12px!important;height:2px!important;background:var(--soft);opacity:.55}
.a{background:var(--ask)}.g{background:var(--make)}.p{background:var(--out)}
.f{background:repeating-linear-gradient(135deg,var(--bad) 0 2px,transparent 2px 5px);outline:1px solid var(--bad)}
.d{background:repeating-linear-gradient(90deg,var(--get) 0 4px,transparent 4px 6px)}
.v{background:repeating-linear-gradient(45deg,var(--check) 0 3px,transparent 3px 6px);outline:1px solid var(--check)}
.k b{top:5px;height:16px;width:7px;margin-left:-3px;border:solid transparent;border-width:0 2px;background:var(--fg);
background-clip:padding-box;font:700 12px/16px "DejaVu Sans",system-ui,sans-serif;text-align:center}
.k .q,.k .x,.k .o{width:14px;margin-left:-7px;border:1px solid;border-radius:8px;background:var(--bg);line-height:14px}
.k .q{color:var(--check)}.k .x{color:var(--bad)}.k .o{color:var(--good)}
.q:before{content:"?"}.x:before{content:"\\2715"}.o:before{content:"\\2713"}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.3rem;padding:0;margin:.6rem 0;list-style:none;font-size:13px}
.key .k{position:relative;display:inline-block;width:30px;height:26px;vertical-align:middle;margin-right:.4rem}
.key .k i{left:0;width:30px}.key .k b{left:15px}
@media screen{.tl thead td,.tl thead th{border-bottom-color:var(--soft)}}
@page{size:landscape;margin:12mm}
@media print{main{max-width:none;padding:0}.part{content-visibility:visible}.box{overflow:visible}
.box table,.tl table{min-width:0}tr,.cards li{break-inside:avoid}h2,h3,caption{break-after:avoid}
body{font-size:11px}table,caption,.key{font-size:9.5px}.id,code{font-size:8px}.id{min-width:8em}
h1{font-size:1.3rem}.verdict{font-size:1.1rem}.cards b{font-size:1.2rem}.cards li{flex-basis:5rem}.tl th{width:11rem}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""

_STATE_CLASSES: Final = {
    "succeeded": "su",
    "unknown": "un",
    "refused": "re",
    "not_started": "ns",
    "unfinished": "uf",
    "conflict": "co",
}
_NEEDS: Final[Mapping[Need, tuple[str, str, str]]] = {
    "unknown": (
        "Unknown",
        "They may have their run or not.",
        "Do not start them by hand: their letters might be written twice. Have the program run once more; it finds out.",
    ),
    "conflict": (
        "Conflict",
        "Somebody else has run them for another group meanwhile, and nothing more was sent.",
        "Find out who it was, and decide which run is to stand.",
    ),
    "failed": (
        "Failed at the service",
        "They have their run, and the service has failed in its work on it.",
        "Ask the service what is wrong with the run.",
    ),
    "unfinished": (
        "Unfinished",
        "They have their run, and a later step that was asked for is not done.",
        "Have the program run once more: it goes on where it stopped.",
    ),
    "plan": (
        "Refused: the plan is wrong",
        "They were not run, since the list of what to run has a mistake.",
        "Correct the list as the reasons say, and have the program run once more.",
    ),
    "refused": (
        "Refused",
        "They may not be run as they stand, and were not.",
        "Repair what the reasons name, or correct the list of what to run; then have the program run once more.",
    ),
    "not_started": (
        "Not started",
        "They were not run, and can be.",
        "Have the program run once more.",
    ),
}
"""The heading, what it means, and what people are to do."""
_PROGRAM: Final[Mapping[Need, str]] = {
    "conflict": "Nothing more is sent for them with this journal.",
    "failed": "The same call of ns.reruns.run looks at them again.",
    "refused": "The same call of ns.reruns.run looks at them again; for a corrected plan, make it with the same journal and "
    "amend=True.",
}
"""What is for the program where ``ADVICE`` speaks of people."""

_MARKS: Final = {
    "lost": "q",
    "denied": "x",
    "absent": "o",
    "adopted": "o",
    "refused": "x",
    "conflict": "x",
    "failed": "x",
}
_NOT_PUBLISHED: Final = {"unsent": "x", "denied": "x", "absent": "x", "ready": "x", "lost": "q"}
"""The marks of steps that say of a publication that it is not done. Of a run, most of them are no bad news."""
_MATTER: Final = ("x", "q", "o", "")  # of several marks on one spot, the one that is shown

_PHASES: Final = {
    ("started", "ready"): "g",
    ("started", "failed"): "g",
    ("started", "published"): "g",
    ("adopted", "ready"): "g",
    ("adopted", "failed"): "g",
    ("adopted", "published"): "g",
    ("intended", "absent"): "v",
    ("intended", "adopted"): "v",
    ("publishing", "publishing"): "p",
    ("publishing", "published"): "p",
    ("publishing", "lost"): "f",
    ("publishing", "unsent"): "f",
    ("publishing", "denied"): "f",
    ("publishing", "absent"): "f",
    ("publishing", "ready"): "f",
    ("publishing", "failed"): "f",
    ("published", "downloaded"): "d",
    ("ready", "downloaded"): "d",
}


def _phase(before: str, after: str) -> str:
    """What a campaign was doing between two steps: the class of the piece of its bar."""
    if before in {"lost", "denied"}:
        return "v"
    return _PHASES.get((before, after)) or ("a" if before == "intended" else "w")


def _phases(steps: Sequence[RerunStep]) -> list[str]:
    """The phases between steps, one less than there are steps."""
    phases = [_phase(before.step, after.step) for before, after in pairwise(steps)]
    for index in range(len(phases) - 2, -1, -1):  # a publication that comes to nothing has failed from its begin
        if steps[index].step == steps[index + 1].step == "publishing":
            phases[index] = phases[index + 1]
    return phases


def _kinds(steps: Iterable[RerunStep]) -> Iterator[str]:
    """The classes of the marks of steps."""
    publishing = False
    for step in steps:
        if step.step == "publishing" or not publishing:
            publishing = step.step == "publishing"
            yield _MARKS.get(step.step, "")
        else:  # it is asked for, and not decided as long as it may be that an answer is lost
            publishing = step.step in {"lost", "denied"}
            yield _NOT_PUBLISHED.get(step.step, _MARKS.get(step.step, ""))


def _html(text: str) -> str:
    return escape(one_line(text))


def _moment(moment: datetime | float) -> str:
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


@frozen
class _Stretch:
    """A piece of the axis in which things happened: seconds of the epoch, and percents of the width."""

    begins: float
    ends: float
    left: float
    width: float

    def at(self, moment: float) -> float:
        length = self.ends - self.begins
        return self.left + self.width * (min(moment, self.ends) - self.begins) / length if length else self.left


@frozen
class _Axis:
    """The time of all campaigns, without the long pieces in which nothing happened."""

    stretches: tuple[_Stretch, ...]

    def at(self, moment: float) -> float:
        """Where a moment is, in percent of the width. All moments asked for are of steps."""
        index = bisect_right([stretch.begins for stretch in self.stretches], moment) - 1
        return self.stretches[max(index, 0)].at(moment)

    @property
    def cuts(self) -> Iterator[tuple[_Stretch, _Stretch]]:
        return pairwise(self.stretches)


def _axis(outcomes: Iterable[RerunOutcome]) -> _Axis:
    moments = sorted({step.at.timestamp() for outcome in outcomes for step in outcome.steps})
    if not moments:
        return _Axis(())
    pieces: list[tuple[float, float]] = []
    begins = moments[0]
    limit = _limit([after - before for before, after in pairwise(moments)])
    for before, after in pairwise(moments):
        if after - before > limit:
            pieces.append((begins, before))
            begins = after
    pieces.append((begins, moments[-1]))
    lengths = [end - begin for begin, end in pieces]
    total = sum(lengths) or 1.0
    weights = [max(length / total, _LEAST_SHARE / len(pieces)) for length in lengths]
    room = 98.0 - _CUT_WIDTH * (len(pieces) - 1)  # marks on the ends need some, too
    stretches: list[_Stretch] = []
    left = 1.0
    for (begin, end), weight in zip(pieces, weights, strict=True):
        width = room * weight / sum(weights)
        stretches.append(_Stretch(begin, end, left, width))
        left += width + _CUT_WIDTH
    return _Axis(tuple(stretches))


def _limit(gaps: Sequence[float]) -> float:
    """How long nothing must have happened for it to be cut out.

    Longer than half an hour, and than all the time together that is made of gaps less than half as long; and only a few
    are cut out, the longest, or none of those that are alike.
    """
    limit = math.inf
    active, index, ordered = 0.0, 0, sorted(gaps)
    for gap in ordered:
        while ordered[index] < gap / 2:
            active += ordered[index]
            index += 1
        if gap > _IDLE and gap > active:
            limit = math.nextafter(gap, 0)
            break
    longest = ordered[::-1]
    return max(limit, longest[_MOST_CUTS]) if len(longest) > _MOST_CUTS else limit


_STEPS_OF_AXIS: Final = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1_800,
    3_600,
    7_200,
    10_800,
    21_600,
    43_200,
    86_400,
)


def _ticks(stretch: _Stretch) -> Iterator[tuple[float, str]]:
    """Where an axis has its marks, and what stands there. The first is the begin of the stretch, with its date."""
    first = datetime.fromtimestamp(stretch.begins, UTC)
    yield stretch.left, f"{first:%Y-%m-%d}<br>{first:%H:%M:%S}"
    length = stretch.ends - stretch.begins
    wanted = length / max(1.0, stretch.width / 11)
    if not length:
        return
    size = next((size for size in _STEPS_OF_AXIS if size >= wanted), None)
    if size is None:
        size = math.ceil(wanted / 86_400) * 86_400
    form = "%d %b" if size >= 86_400 else "%d %b %H:%M" if length > 86_400 else "%H:%M" if size >= 60 else "%H:%M:%S"
    moment = math.ceil(stretch.begins / size) * size
    while moment < stretch.ends:
        place = stretch.at(moment)
        if stretch.left + 8 <= place <= stretch.left + stretch.width - 6:
            yield place, format(datetime.fromtimestamp(moment, UTC), form)
        moment += size


def _grid(axis: _Axis, places: Iterable[float]) -> str:
    """The lines of the axis as the background of every row: no markup in the rows themselves."""
    layers = [f"linear-gradient(var(--grid),var(--grid)) {_number(place)}% 0/1px 100% no-repeat" for place in places]
    for before, _ in axis.cuts:
        place = (before.left + before.width) / (100 - _CUT_WIDTH) * 100  # what a percentage of a wide picture means
        layers.append(
            "repeating-linear-gradient(135deg,var(--line) 0 2px,transparent 2px 5px) "
            f"{_number(place)}% 0/{_number(_CUT_WIDTH)}% 100% no-repeat"
        )
    return ",".join(layers)


def _bar(steps: Sequence[RerunStep], axis: _Axis, form: str) -> str:
    """The bar of one campaign, piece by piece, and the marks of its steps; steps on one spot share a mark."""
    ordered = sorted(steps, key=lambda step: step.at)
    places = [axis.at(step.at.timestamp()) for step in ordered]
    pieces: list[tuple[str, float, float]] = []
    for phase, (left, right) in zip(_phases(ordered), pairwise(places), strict=True):
        if pieces and pieces[-1][0] == phase:
            pieces[-1] = (phase, pieces[-1][1], right)
        elif right - left >= 0.01:
            pieces.append((phase, left, right))
    parts = [
        f"<i class={phase} style=left:{_number(left)}%;width:{_number(right - left)}%></i>"
        for phase, left, right in pieces
    ]
    hidden = range(_STEPS_TOLD // 2, len(ordered) - _STEPS_TOLD // 2) if len(ordered) > _STEPS_TOLD else range(0)
    marks: list[tuple[float, str, list[str]]] = []
    for index, (step, place, kind) in enumerate(zip(ordered, places, _kinds(ordered), strict=True)):
        if index in hidden:
            if index == hidden.start:
                marks.append((place, "", [f"... {counted(len(hidden), 'more step')} ..."]))
            continue
        detail = f" ({cut(one_line(step.detail), 120)})" if step.detail else ""
        told = f"{step.at.astimezone(UTC).strftime(form)} {one_line(step.step)}{detail}"
        if marks and place - marks[-1][0] < 0.3:
            spot, other, texts = marks[-1]
            marks[-1] = (spot, min(kind, other, key=_MATTER.index), [*texts, told])
        else:
            marks.append((place, kind, [told]))
    for place, kind, texts in marks:
        shape = f" class={kind}" if kind else ""
        parts.append(f'<b{shape} style=left:{_number(place)}% title="{escape("; ".join(texts))}"></b>')
    return "".join(parts)


def _parts(outcomes: Sequence[RerunOutcome]) -> Iterator[tuple[Sequence[RerunOutcome], str]]:
    """The campaigns in parts, so that a browser need not lay out all of them, and what to add to a caption."""
    total = len(outcomes)
    for first in range(0, total, _PART):
        some = outcomes[first : first + _PART]
        yield some, f", {first + 1:,} to {first + len(some):,} of {total:,}" if total > _PART else ""


def _table(
    caption: str, head: str, rows: Sequence[str], *, hidden: bool = False, kind: str = "", style: str = ""
) -> str:
    height = _ROW_HEIGHT * (len(rows) + 2)
    lines = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return (
        f'<div class="part box{kind}" style="contain-intrinsic-size:auto {height}px{style}" role=group tabindex=0 '
        f'aria-label="{caption}"><table><caption{" class=h" if hidden else ""}>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>\n"
    )


def _tables(
    outcomes: Sequence[RerunOutcome], what: str, head: str, row: Callable[[RerunOutcome], str]
) -> Iterator[str]:
    for some, span in _parts(outcomes):  # where there is one part, the heading above says what the caption says
        yield _table(f"{what}{span}", head, [row(outcome) for outcome in some], hidden=not span)


def _heads(*names: str) -> str:
    """The heads of columns; one that begins with ``>`` has numbers below it."""
    return "".join(
        f"<th scope=col class=n>{name[1:]}</th>" if name.startswith(">") else f"<th scope=col>{name}</th>"
        for name in names
    )


def _state(outcome: RerunOutcome) -> str:
    return f'<span class="s {_STATE_CLASSES[outcome.state]}">{outcome.state.replace("_", " ")}</span>'


def _campaign(outcome: RerunOutcome) -> str:
    name = f"<bdi>{_html(outcome.campaign_name)}</bdi>" if outcome.campaign_name else ""
    return f"<th scope=row>{name}<span class=id>{_html(outcome.campaign_id)}</span></th>"


def _count(value: float | None) -> str:
    return f"<td class=n>{'' if value is None else f'{value:,}'}</td>"


def _group(outcome: RerunOutcome) -> str:
    return f"<td><span class=id>{_html(outcome.new_customer_group_id)}</span></td>"


def _needing(outcome: RerunOutcome) -> str:
    return (
        f"{_count(outcome.position)}{_campaign(outcome)}{_group(outcome)}<td>{_state(outcome)}</td>"
        f"{_count(outcome.attempts)}<td>{_html(outcome.reason)}</td>"
    )


def _reviewed(outcome: RerunOutcome) -> str:
    comparison, ends = outcome.comparison, outcome.ends
    counts = (None, None) if comparison is None else (comparison.new_count, comparison.matched_count)
    since = "" if ends is None else f"<span class=nb>{_moment(ends)}</span>"
    return (
        f"{_count(outcome.position)}{_campaign(outcome)}{_group(outcome)}{_count(outcome.run_number)}"
        f"{''.join(map(_count, counts))}<td>{since}</td>"
    )


def _whole(outcome: RerunOutcome) -> str:
    runs = "" if outcome.run_number is None else f"{outcome.run_number:,}"
    if runs and outcome.previous_run is not None:
        runs = f"{outcome.previous_run:,} &rarr; {runs}"
    found = " <small>found in the history</small>" if outcome.adopted else ""
    rerun = f"<span class=id>{_html(outcome.rerun_id)}</span>" if outcome.rerun_id else ""
    status = _html(outcome.campaign_status or "")
    published = (
        "<br><small>published</small>" if outcome.published and stands(outcome.campaign_status) != "published" else ""
    )
    comparison = outcome.comparison
    counts = (
        (None, None, None)
        if comparison is None
        else (comparison.matched_count, comparison.new_count, comparison.orphaned_count)
    )
    place = "" if outcome.directory is None else f' title="{_html(str(outcome.directory))}"'
    files = "" if outcome.files is None else f"{outcome.files:,}"
    begins, seconds = outcome.begins, outcome.seconds
    took = "" if begins is None else f"<span class=nb>{_moment(begins)}</span>"
    took += f"<br><small>{duration(seconds)}</small>" if seconds else ""
    return (
        f"{_count(outcome.position)}{_campaign(outcome)}{_group(outcome)}<td>{_state(outcome)}</td>"
        f"<td>{status}{published}</td><td>{runs}{found}{rerun}</td>{_count(outcome.attempts)}"
        f"{''.join(map(_count, counts))}{_count(outcome.archived_count)}<td class=n{place}>{files}</td><td>{took}</td>"
    )


def _cards(report: RerunReport) -> Iterator[str]:
    counts = report.counts
    downloaded = [outcome for outcome in report.outcomes if outcome.directory is not None]
    files = sum(outcome.files or 0 for outcome in downloaded)
    cards = [
        ("ok", counts["succeeded"], "succeeded", "have their one new run"),
        ("on", len(report.in_review), "in review", "of those that succeeded; people have to look at them"),
        ("ok", len(report.published), "published", "their letters can go out"),
        *([("ok", len(downloaded), "downloaded", counted(files, "file"))] if downloaded else []),
        ("no", counts["unfinished"], "unfinished", "have their run, a later step is not done"),
        ("no", counts["refused"], "refused", "may not be run"),
        ("no", counts["conflict"], "conflict" if counts["conflict"] == 1 else "conflicts", "run by somebody else"),
        ("no", counts["unknown"], "unknown", "may have run or not"),
        ("no", counts["not_started"], "not started", ""),
    ]
    yield "<ul class=cards>"
    for kind, number, name, more in cards:
        small = f"<small>{more}</small>" if more and number else ""
        yield f"<li class={kind if number else 'zero'}><b>{number:,}</b> {name}{small}</li>"
    yield "</ul>\n"


def _facts(report: RerunReport) -> Iterator[str]:
    total, published = len(report), len(report.published)
    facts = [
        ("This call", f"{_moment(report.began)} to {_moment(report.ended)} UTC, {duration(report.seconds)}"),
        ("Requests", f"{counted(report.sent, 'request')} to run a campaign sent by this call"),
        ("Journal", f"<code>{_html(str(report.journal))}</code>"),
    ]
    if report.stopped:
        facts.insert(1, ("Stopped", f"<b class=bad>{escape(sentence(report.stopped))}</b>"))
    if total:
        others = "" if published == total else " No letters of the other runs can go out yet."
        none = f"None of {counted(total, 'campaign')}: no letters of these runs can go out yet."
        facts.insert(0, ("Published", f"{published:,} of {counted(total, 'campaign')}.{others}" if published else none))
    yield "<dl>"
    yield from (f"<dt>{name}</dt><dd>{fact}</dd>" for name, fact in facts)
    yield "</dl>\n"


def _asks(meaning: str, people: str, program: str) -> str:
    return (
        f"<p>{escape(meaning)} <b>What to do:</b> {escape(people)}</p>\n"
        f"<p class=soft>For whoever runs the program: {escape(program)}</p>\n"
    )


def _action(report: RerunReport) -> Iterator[str]:
    yield "<section><h2>What needs somebody</h2>\n"
    needs = [need_of(outcome) for outcome in report.outcomes]
    for need, (name, meaning, people) in _NEEDS.items():
        some = [outcome for outcome, needed in zip(report.outcomes, needs, strict=True) if needed == need]
        if some:
            yield f"<h3>{name}: {len(some):,}</h3>\n{_asks(meaning, people, _PROGRAM.get(need, ADVICE[need]))}"
            head = _heads(">#", "Campaign", "Group", "State", ">Attempts", "Reason")
            yield from _tables(some, f"{name}: campaigns and reasons", head, _needing)
    waiting = report.in_review
    if waiting:
        yield f"<h3>Waiting for review: {len(waiting):,}</h3>\n" + _asks(
            "They have their new run, and people have to review its messages before it can be published.",
            "Review and approve them at the service; then have the program run once more to publish them.",
            "The same call of ns.reruns.run with publish=True publishes what was approved.",
        )
        head = _heads(">#", "Campaign", "Group", ">Run", ">New segments", ">Matched", "Last step (UTC)")
        yield from _tables(waiting, "Campaigns that wait for review", head, _reviewed)
    ready = [outcome for outcome in report.outcomes if _may_be_published(outcome)]
    if ready:
        yield f"<h3>Ready to publish: {len(ready):,}</h3>\n" + _asks(
            "They have their new run, which needs no review any more, and the program was not asked to publish it.",
            "Publish them at the service, or have the program do it.",
            "The same call of ns.reruns.run with publish=True publishes them.",
        )
    if report.complete and not waiting and not ready:
        yield "<p>Nothing needs anybody.</p>"
    yield "</section>\n"


def _may_be_published(outcome: RerunOutcome) -> bool:
    ready = stands(outcome.campaign_status) == "publishable"
    return outcome.state == "succeeded" and ready and not outcome.published


_KEY: Final = (
    ("<i class=a></i>", "asking for the run"),
    ("<i class=v></i>", "answer lost, or a no that is not trusted yet: the history is asked"),
    ("<i class=g></i>", "the service makes the messages"),
    ("<i class=p></i>", "publication"),
    ("<i class=f></i>", "publication that was not done: refused, or its answer lost"),
    ("<i class=d></i>", "download"),
    ("<i class=w></i>", "waiting: for people, for a later call"),
    ("<b></b>", "a step"),
    ("<b class=q></b>", "lost: no usable answer came"),
    ("<b class=o></b>", "cleared up: the run was found (adopted), or there is none (absent)"),
    ("<b class=x></b>", "the service said no (denied), refused, conflict, failed, or not published"),
)


def _timeline(report: RerunReport) -> Iterator[str]:
    yield "<section><h2>Timeline</h2>\n"
    moments = [step.at for outcome in report.outcomes for step in outcome.steps]
    if not moments:
        yield "<p>No campaign has taken a step.</p></section>\n"
        return
    yield (
        "<p>A row for each campaign, from its first step to its last; all times are UTC. Point at a mark to read what "
        "happened when. Steps of earlier calls with the same journal are shown too.</p>\n<ul class=key>"
    )
    yield from (f"<li><span class=k aria-hidden=true>{sign}</span>{meaning}</li>" for sign, meaning in _KEY)
    yield "</ul>\n"
    common = _axis(report.outcomes) if len(report.outcomes) <= _ONE_AXIS else None
    if common is None:
        yield (
            "<p>The campaigns are too many for one axis: each part of the table has its own, from the first step in it "
            f"to the last. All of them: {_moment(min(moments))} to {_moment(max(moments))}.</p>\n"
        )
    else:
        yield _cuts(common)
    one_day = len({moment.astimezone(UTC).date() for moment in moments}) == 1
    form = "%H:%M:%S" if one_day else "%Y-%m-%d %H:%M:%S"
    for some, span in _parts(report.outcomes):
        axis = common or _axis(some)
        if common is None:
            yield _cuts(axis)
        ticks = [tick for stretch in axis.stretches for tick in _ticks(stretch)]
        labels = "".join(f"<span class=t style=left:{_number(place)}%>{label}</span>" for place, label in ticks)
        yield _table(
            f"Timeline of the campaigns{span}",
            f"<th scope=col>Campaign</th><td>{labels}</td>",
            [_course(outcome, axis, form) for outcome in some],
            hidden=not span,
            kind=" tl",
            style=f";--k:{_grid(axis, [place for place, _ in ticks]) or 'none'}",
        )
    yield "</section>\n"


def _cuts(axis: _Axis) -> str:
    cuts = [
        f"{duration(after.begins - before.ends)} ({_moment(before.ends)} to {_moment(after.begins)})"
        for before, after in axis.cuts
    ]
    if not cuts:
        return ""
    return (
        "<p>Where the rows are hatched, time in which nothing happened is cut out, and the pieces between have each a scale "
        f"of their own. Cut out: {', '.join(cuts)}.</p>\n"
    )


def _course(outcome: RerunOutcome, axis: _Axis, form: str) -> str:
    state = "" if outcome.state == "succeeded" else f"{_state(outcome)} "
    return (
        f"<th scope=row><small>{outcome.position}</small> {state}<bdi>{_html(outcome.title)}</bdi></th>"
        f"<td class=k>{_bar(outcome.steps, axis, form)}</td>"
    )


def _all(report: RerunReport) -> Iterator[str]:
    yield "<section><h2>All campaigns</h2>\n"
    if not report.outcomes:
        yield "<p>The plan is empty.</p>"
    else:
        yield (
            "<p class=soft>Matched: segments that both runs have. New: segments that need new messages. Orphaned: segments "
            "that only the run before had. Archived: messages of the run before. First step: UTC; below it, how long "
            "something was under way.</p>\n"
        )
    head = _heads(
        ">#", "Campaign", "Group", "State", "Status", "Run", ">Attempts", ">Matched", ">New", ">Orphaned", ">Archived",
        ">Files", "First step"
    )  # fmt: skip
    yield from _tables(report.outcomes, "All campaigns in the order of the plan", head, _whole)
    yield "</section>\n"


def render(report: RerunReport) -> str:
    """The page."""
    return "".join(_page(report))


def _page(report: RerunReport) -> Iterator[str]:
    head, body = verdict(report)
    head = head[:1].upper() + head[1:]
    when = report.began.astimezone(UTC)
    yield (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(f'Campaign reruns, {when:%Y-%m-%d}: {head}: {body}')}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><main>\n<h1>Campaign reruns <small>{when:%Y-%m-%d}, {when:%H:%M} UTC</small></h1>\n"
    )
    kind = "bad" if not report.complete else "warn" if report.in_review else "good"
    yield f'<p class="verdict {kind}"><b>{escape(head)}:</b> <span>{escape(body)}.</span></p>\n'
    if report.nothing_new and report.outcomes and report.complete:
        yield "<p>Nothing was sent by this call: what is shown here was done by earlier calls with the same journal.</p>\n"
    yield from _cards(report)
    yield from _facts(report)
    yield from _action(report)
    yield from _timeline(report)
    yield from _all(report)
    yield "</main></body></html>\n"
