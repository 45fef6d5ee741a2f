"""Pictures of a report, as SVG text that takes its colours from the page. Pure."""

from __future__ import annotations

import html
import itertools
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator import sanitize
from orchestrator.report.curves import Series

WIDTH, HEIGHT = 640.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 26.0, 12.0, 28.0
COLOURS = 6
GREATEST = sys.float_info.max
LEAST = 1e-290  # what is closer is drawn as one value
NUMBERS_UP_TO = 12  # classes whose cells hold their count
CELLS_UP_TO = 64  # classes, or groups of them, a side


def safe(text: str) -> str:
    return html.escape(sanitize.line(text))


class Drawn(NamedTuple):
    """A series and the class of its line; `quiet`: it belongs to the run compared with."""

    series: Series
    colour: str
    quiet: bool = False


# --- lines ----------------------------------------------------------------------------------------


class Axis(NamedTuple):
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return (math.log10(max(value, self.low)) - low) / (high - low)
        return share(value, self.low, self.high)


def share(value: float, low: float, high: float) -> float:
    """Where it is between the two, 0 to 1. Halves: their difference may be beyond every float."""
    span = high / 2 - low / 2
    return (value / 2 - low / 2) / span if span > 0 else 0.5


def line_chart(drawn: Sequence[Drawn], title: str) -> str:
    """One picture: each series a line of its means, in a band from its least to its greatest."""
    points = [each for one in drawn for each in one.series.buckets]
    if not points:
        return ""
    across = _axis(min(b.first for b in points), max(b.last for b in points), tight=True)
    lows = [b.low for b in points]
    up = _value_axis(min(lows), max(b.high for b in points))

    def place(x: float, y: float) -> str:
        left = LEFT + across.share(x) * (WIDTH - LEFT - RIGHT)
        return f"{left:.1f},{HEIGHT - BOTTOM - up.share(y) * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [_grid(across, up)]
    for one in sorted(drawn, key=lambda each: not each.quiet):
        buckets = sorted(one.series.buckets, key=lambda each: each.x)
        quiet = " q" if one.quiet else ""
        if any(each.count > 1 for each in buckets) and not one.quiet:
            edge = [place(b.x, b.high) for b in buckets] + [
                place(b.x, b.low) for b in reversed(buckets)
            ]
            parts.append(f'<polygon class="band {one.colour}" points="{" ".join(edge)}"/>')
        line = " ".join(place(b.x, b.mean) for b in buckets)
        if len(buckets) == 1:
            x, _, y = line.partition(",")
            parts.append(f'<circle class="dot {one.colour}{quiet}" cx="{x}" cy="{y}" r="3"/>')
        parts.append(f'<polyline class="line {one.colour}{quiet}" points="{line}"/>')
        if one.series.not_finite is not None and across.low <= one.series.not_finite:
            x = place(min(one.series.not_finite, across.high), up.low).partition(",")[0]
            parts.append(f'<line class="nan" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    return _svg(WIDTH, HEIGHT, title, "".join(parts))


def _svg(width: float, height: float, title: str, inside: str, kind: str = "chart") -> str:
    shape = f' style="max-width:{width * 1.1:.0f}px"' if kind == "matrix" else ""
    return (
        f'<svg class="{kind}"{shape} viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{safe(title)}">{inside}</svg>'
    )


def _axis(low: float, high: float, *, tight: bool = False) -> Axis:
    if high / 2 - low / 2 < LEAST:
        room = max(abs(low) * 0.05, 0.0 if abs(low) > LEAST else 0.5)
    else:
        room = 0.0 if tight else high * 0.06 - low * 0.06
    return Axis(max(low - room, -GREATEST), min(high + room, GREATEST))


def _value_axis(low: float, high: float) -> Axis:
    """Logarithmic when the values are positive and span more than three decades."""
    if low > 0 and high / low > 1000:
        return Axis(low / 1.3 or low, min(high * 1.3, GREATEST), True)
    return _axis(low, high)


def _grid(across: Axis, up: Axis) -> str:
    parts = []
    for value in ticks(up):
        y = HEIGHT - BOTTOM - up.share(value) * (HEIGHT - TOP - BOTTOM)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{number(value)}</text>"
        )
    for value in ticks(across, 6):
        x = LEFT + across.share(value) * (WIDTH - LEFT - RIGHT)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{number(value)}</text>"
        )
    base = HEIGHT - BOTTOM
    return f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>' + (
        "".join(parts)
    )


def ticks(axis: Axis, about: int = 4) -> list[float]:
    """Round numbers within the axis: 1, 2 or 5 times a power of ten apart."""
    if axis.log:
        first, last = math.ceil(math.log10(axis.low)), math.floor(math.log10(axis.high))
        apart = max(1, (last - first) // about)
        return [10.0**power for power in range(first, last + 1, apart)]
    rough = axis.high / about - axis.low / about
    scale = 10.0 ** math.floor(math.log10(rough))
    apart_ = next(scale * each for each in (1, 2, 5, 10) if scale * each >= rough * 0.999)
    start = math.ceil(axis.low / apart_ - 1e-9)
    return [n * apart_ for n in range(start, math.floor(axis.high / apart_ + 1e-9) + 1)]


def number(value: float) -> str:
    """A number as an axis shows it: 1200, 0.25, 3e-4, 12M."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.4g}M" if size < 1e9 else f"{value:.2g}"
    if size >= 1e4:
        return f"{value / 1e3:.4g}k"
    if 0 < size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.4g}"


# --- the scale of the accuracy --------------------------------------------------------------------


_SCALE = (
    *((at, str(at), "middle") for at in (0, 25, 50, 75)),
    (100, "100 %", "end"),
)


class Mark(NamedTuple):
    share: float
    text: str
    kind: str  # base | goal | best


def accuracy_scale(
    accuracy: float, interval: tuple[float, float] | None, marks: Sequence[Mark]
) -> str:
    """0 to 100 %: the accuracy as a dot in its interval, and what it is to be measured against."""
    wide, high, left, right, y = 640.0, 106.0, 14.0, 14.0, 42.0

    def x(share: float) -> float:
        return left + min(max(share, 0.0), 1.0) * (wide - left - right)

    parts = [
        f'<line class="axis" x1="{x(0):.1f}" x2="{x(1):.1f}" y1="{y}" y2="{y}"/>',
        *(
            f'<text class="tick" x="{x(at / 100):.1f}" y="{high - 10}" text-anchor="{anchor}">'
            f"{word}</text>"
            f'<line class="grid" x1="{x(at / 100):.1f}" x2="{x(at / 100):.1f}" '
            f'y1="{y}" y2="{y + 8}"/>'
            for at, word, anchor in _SCALE
        ),
    ]
    taken: list[float] = []
    for mark in sorted(marks, key=lambda each: each.share):
        at = x(mark.share)
        low = any(abs(at - other) < 120 for other in taken)  # two words side by side
        taken.append(at)
        anchor = "start" if at < 90 else "end" if at > wide - 90 else "middle"
        word = y + 30 if low else y - 20
        parts.append(
            f'<line class="mark {mark.kind}" x1="{at:.1f}" x2="{at:.1f}" '
            f'y1="{y - 14}" y2="{y + 12}"/>'
            f'<text class="tick {mark.kind}" x="{at:.1f}" y="{word}" '
            f'text-anchor="{anchor}">{safe(mark.text)}</text>'
        )
    if interval is not None:
        parts.append(
            f'<rect class="interval" x="{x(interval[0]):.1f}" y="{y - 6}" rx="3" height="12" '
            f'width="{max(x(interval[1]) - x(interval[0]), 2):.1f}"/>'
        )
    parts.append(f'<circle class="here" cx="{x(accuracy):.1f}" cy="{y}" r="7"/>')
    return _svg(wide, high, f"accuracy {accuracy:.1%} on a scale of 0 to 100 %", "".join(parts))


# --- the confusion matrix -------------------------------------------------------------------------

Matrix = Sequence[Sequence[int]]


def binned(matrix: Matrix, most: int = CELLS_UP_TO) -> tuple[list[list[int]], list[range]]:
    """The matrix, or one of `most` groups of neighbouring classes a side; and which they are."""
    size = len(matrix)
    groups = min(size, most)
    edges = [size * at // groups for at in range(groups + 1)]
    spans = [range(low, high) for low, high in itertools.pairwise(edges)]
    cells = [[0] * groups for _ in spans]
    for row, span in zip(cells, spans, strict=True):
        for truth in filter(lambda each: any(matrix[each]), span):
            for at, other in enumerate(spans):
                row[at] += sum(matrix[truth][other.start : other.stop])
    return cells, spans


def matrix_picture(matrix: Matrix, labels: Sequence[str]) -> str:
    """Rows are what is true, columns what was predicted; a cell is as strong as its row's share."""
    cells, spans = binned(matrix)
    size = len(cells)
    names = [_group_name(span, labels) for span in spans]
    numbers = size <= NUMBERS_UP_TO
    margin = 8.0 + 6.6 * max(min(max(map(len, names)), 16), 6) if numbers else 26.0
    cell = min(96.0, max(44.0, 430.0 / size)) if numbers else 430.0 / size
    top = 44.0
    parts = [
        f'<text class="tick" x="{margin + cell * size / 2:.1f}" y="13" '
        'text-anchor="middle">predicted</text>',
    ]
    for truth, row in enumerate(cells):
        y = top + truth * cell
        total = sum(row)
        for guess, count in enumerate(row):
            share = count / total if total else 0.0
            parts.append(_cell(margin + guess * cell, y, cell, share, truth == guess))
            if numbers:
                dark = " on" if share > 0.55 else ""
                middle = f'x="{margin + (guess + 0.5) * cell:.1f}"'
                parts.append(
                    f'<text class="count{dark}" {middle} y="{y + cell / 2 + 1:.1f}" '
                    f'text-anchor="middle">{number(count) if count > 99999 else count}</text>'
                )
                if cell >= 60 and total:
                    parts.append(
                        f'<text class="share{dark}" {middle} y="{y + cell / 2 + 16:.1f}" '
                        f'text-anchor="middle">{share * 100:.0f} %</text>'
                    )
    if numbers:
        parts += _names(names, margin, top, cell)
    else:
        parts.append(
            f'<text class="tick" transform="translate(16 {top + cell * size / 2:.1f}) rotate(-90)" '
            'text-anchor="middle">true</text>'
        )
    width, height = margin + cell * size + 6, top + cell * size + 6
    words = f"confusion matrix of {len(matrix)} classes"
    return _svg(width, height, words, "".join(parts), "matrix")


def _cell(x: float, y: float, size: float, share: float, diagonal: bool) -> str:
    gap = 1.0 if size > 20 else 0.0
    kind = "hit" if diagonal else "miss"
    return (
        f'<rect class="cell" x="{x + gap:.2f}" y="{y + gap:.2f}" width="{size - 2 * gap:.2f}" '
        f'height="{size - 2 * gap:.2f}"/>'
        f'<rect class="{kind}" x="{x + gap:.2f}" y="{y + gap:.2f}" width="{size - 2 * gap:.2f}" '
        f'height="{size - 2 * gap:.2f}" fill-opacity="{share:.3f}"/>'
        if share or gap
        else ""
    )


def _names(names: Sequence[str], margin: float, top: float, cell: float) -> list[str]:
    room = max(int(cell / 6.6), 3)
    parts = []
    for at, name in enumerate(names):
        middle = (at + 0.5) * cell
        parts.append(
            f'<text class="name" x="{margin + middle:.1f}" y="{top - 9}" text-anchor="middle">'
            f"{safe(_cut(name, room))}</text>"
            f'<text class="name" x="{margin - 8:.1f}" y="{top + middle + 4:.1f}" '
            f'text-anchor="end">{safe(_cut(name, 16))}</text>'
        )
    return parts


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _group_name(span: range, labels: Sequence[str]) -> str:
    first = labels[span.start] if span.start < len(labels) else str(span.start)
    return first if len(span) == 1 else f"{first} +{len(span) - 1}"
