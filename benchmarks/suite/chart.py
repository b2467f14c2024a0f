"""Bars as SVG: written by hand, so that the same figures make the same file, which follows a dark theme."""

from __future__ import annotations

from xml.sax.saxutils import escape

from suite.figures import Chart, short

__all__ = ["svg"]

WIDTH, VALUE, ROW, TOP, BOTTOM = 760, 100, 26, 40, 10
LETTER = 7.4  # of a label, at most
OURS, FLOOR = "nudgescribe_async", "floor"

STYLE = """text{font:13px system-ui,sans-serif;fill:#24292f}
.title{font-weight:600}
.value{font-variant-numeric:tabular-nums}
.peer{fill:#8c959f}.floor{fill:#57606a}.ours{fill:#4051b5}
.spread{stroke:#24292f;stroke-width:1.5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.peer{fill:#6e7681}.floor{fill:#9aa4af}.ours{fill:#7d8ff0}.spread{stroke:#e6edf3}}"""


def svg(chart: Chart) -> str:
    """The chart as a file: a bar for each median, a line from the least to the most."""
    height = TOP + ROW * len(chart.bars) + BOTTOM
    longest = max((bar.figure.high for bar in chart.bars), default=1.0) or 1.0
    label = round(max((len(bar.name) for bar in chart.bars), default=0) * LETTER) + 8
    span = WIDTH - label - VALUE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(chart.title)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="0" y="18">{escape(chart.title)}</text>',
    ]
    for index, bar in enumerate(chart.bars):
        top = TOP + ROW * index
        middle = top + ROW / 2 - 2
        kind = "ours" if OURS in bar.name else "floor" if FLOOR in bar.name else "peer"
        low, median, high = (value / longest * span for value in (bar.figure.low, bar.figure.median, bar.figure.high))
        value = f"{short(bar.figure.median)} {chart.unit}".strip()
        lines += [
            f'<text x="{label - 8}" y="{middle + 4.5:g}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect class="{kind}" x="{label}" y="{top}" width="{median:.1f}" height="{ROW - 6}" rx="2"/>',
            f'<path class="spread" d="M{label + low:.1f} {middle:g}H{label + high:.1f}"/>',
            f'<text class="value" x="{label + high + 8:.1f}" y="{middle + 4.5:g}">{escape(value)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
