"""metrics.jsonl as curves, in memory and time that do not grow with the file.

A series keeps at most 2 x BUCKETS buckets; when they are full neighbours are merged, so a bucket
always stands for equally many points. Of a file over READ_MAX, equally spaced pieces are read.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

BUCKETS = 150
READ_MAX = 16 * 1024 * 1024
PIECE = 64 * 1024
LINE_MAX = 64 * 1024
SERIES_MAX = 96
NAME_MAX = 80
# What says when, not how well.
NOT_CURVES = frozenset(
    "step phase_step epoch progress eta_s elapsed_s time timestamp wall_time".split()
)


@dataclass(slots=True)
class Bucket:
    """Some neighbouring points: where, how many, and of their values sum, least and greatest."""

    first: float
    last: float
    count: int
    total: float
    low: float
    high: float

    @property
    def x(self) -> float:
        return self.first / 2 + self.last / 2

    @property
    def mean(self) -> float:
        """Within the bounds also where the sum is beyond every float."""
        return min(self.high, max(self.low, self.total / self.count))

    def merged(self, other: Bucket) -> Bucket:
        return Bucket(
            min(self.first, other.first),
            max(self.last, other.last),
            self.count + other.count,
            self.total + other.total,
            min(self.low, other.low),
            max(self.high, other.high),
        )


@dataclass(slots=True)
class Series:
    """One metric of one phase. `not_finite`: where it first was NaN or infinite."""

    metric: str
    phase: str
    buckets: list[Bucket] = field(default_factory=list)
    count: int = 0
    not_finite: float | None = None
    latest: float | None = None
    _size: int = 1

    def add(self, x: float, value: float) -> None:
        if not math.isfinite(value):
            self.not_finite = x if self.not_finite is None else self.not_finite
            return
        self.count += 1
        self.latest = value
        point = Bucket(x, x, 1, value, value, value)
        if self.buckets and self.buckets[-1].count < self._size:
            self.buckets[-1] = self.buckets[-1].merged(point)
            return
        if len(self.buckets) >= 2 * BUCKETS:
            pairs = zip(self.buckets[::2], self.buckets[1::2], strict=True)
            self.buckets = [one.merged(two) for one, two in pairs]
            self._size *= 2
        self.buckets.append(point)


@dataclass(slots=True)
class Curves:
    """What a metrics.jsonl tells. `lines` were read, `torn` of them were no lawful line."""

    series: dict[tuple[str, str], Series] = field(default_factory=dict)
    lines: int = 0
    torn: int = 0
    dropped: int = 0  # values of series past SERIES_MAX
    read: int = 0  # bytes
    size: int = 0

    @property
    def sampled(self) -> bool:
        return self.read < self.size

    def metrics(self) -> dict[str, list[Series]]:
        """metric -> its series, a phase each, both in the order in which they first came."""
        found: dict[str, list[Series]] = {}
        for each in self.series.values():
            if each.count or each.not_finite is not None:
                found.setdefault(each.metric, []).append(each)
        return found


def read_curves(path: Path, *, read_max: int = READ_MAX) -> Curves | None:
    """The curves of the file, or None when there is no regular file. Torn lines are counted."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        return None
    with os.fdopen(fd, "rb") as file:
        curves = Curves(size=info.st_size)
        for line in _lines(file, curves, read_max):
            curves.lines += 1
            _take(curves, line)
    return curves


def _lines(file: BinaryIO, curves: Curves, read_max: int) -> Iterator[bytes]:
    if curves.size <= read_max:
        yield from _whole_lines(file, curves.size, curves)
        return
    pieces = max(read_max // PIECE, 2)
    for number in range(pieces):
        at = (curves.size - PIECE) * number // (pieces - 1)
        file.seek(at)
        room = PIECE
        if at:
            begun = file.readline(PIECE)  # of a line that began before; its end is left out
            curves.read += len(begun)
            room -= len(begun)
        yield from _whole_lines(file, room, curves)


def _whole_lines(file: BinaryIO, room: int, curves: Curves) -> Iterator[bytes]:
    """Lines of up to LINE_MAX bytes out of the next `room` bytes; longer ones count as torn."""
    while room > 0:
        line = file.readline(LINE_MAX)
        if not line:
            return
        room -= len(line)
        curves.read += len(line)
        if not line.endswith(b"\n") and len(line) >= LINE_MAX:
            curves.lines += 1
            curves.torn += 1
            while rest := file.readline(LINE_MAX):
                room -= len(rest)
                curves.read += len(rest)
                if rest.endswith(b"\n"):
                    break
        elif line.strip():
            yield line


def _take(curves: Curves, line: bytes) -> None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        curves.torn += 1
        return
    if not isinstance(record, dict):
        curves.torn += 1
        return
    step = record.get("step")
    x = float(step) if _is_number(step) and math.isfinite(step) else float(curves.lines)
    phase = str(record.get("phase") or "")[:NAME_MAX]
    for name, value in record.items():
        if name in NOT_CURVES or not _is_number(value):
            continue
        key = (name[:NAME_MAX], phase)
        known = curves.series.get(key)
        if known is None:
            if len(curves.series) >= SERIES_MAX:
                curves.dropped += 1
                continue
            known = curves.series[key] = Series(*key)
        known.add(x, float(value))


def _is_number(value: Any) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < 2**63
