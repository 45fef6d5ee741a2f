"""What a run says about itself: lines in the log, points in metrics.jsonl, the final metrics.json.

Every point carries `step` (optimizer steps and evaluation batches so far), `phase`, `progress`
(0 to 1 of the whole job, by planned work), `eta_s` and `elapsed_s`, of all attempts together.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, TextIO

POINTS = "metrics.jsonl"
LOG_EVERY_S = 1.5
POINT_EVERY_S = 0.5
CLEAR = "\r\x1b[K"
SHOWN = ("loss", "lr", "phase_step", "tokens_per_s", "val_nelbo", "canary_accuracy", "canary_auc")
SUMMED = ("tokens", "flops")
ETA_FROM = 0.01  # of the work: before, the start-up would be taken for the pace


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the job. `work` is in any unit, the same for all phases of one job."""

    name: str
    work: float


class Console:
    """The job's own words. On a terminal the progress is one line that changes, elsewhere lines.

    A character that the stream has no code for is escaped, and once nobody hears (a reader that is
    gone, a log on a full disk), nothing more is said: no reason to end a training.
    """

    def __init__(self, stream: TextIO | None, *, silent: bool = False) -> None:
        self._stream, self._silent = stream, silent
        self._live = stream is not None and stream.isatty()

    def say(self, line: str) -> None:
        """A line that stays."""
        self._write(f"{CLEAR}{line}\n" if self._live else f"{line}\n")

    def show(self, line: str) -> None:
        """A line that the next one replaces, where that can be."""
        self._write(f"{CLEAR}{line}" if self._live else f"{line}\n")

    def _write(self, text: str) -> None:
        if self._silent or self._stream is None:
            return
        code = getattr(self._stream, "encoding", None) or "utf8"
        try:
            self._stream.write(text.encode(code, "backslashreplace").decode(code))
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it was closed
            self._silent = True
            _lead_nowhere(self._stream)


def _lead_nowhere(stream: TextIO) -> None:
    """What the stream still holds is dropped: python would end with 120 over it."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class Reporter:
    """Appends points to `results`/metrics.jsonl and shows lines, neither too often.

    The last point of a phase is always written, and each with a validation. `results` None:
    nothing is written or shown. Of a run that was resumed, `seconds` and `earlier` hold what its
    points say that the attempts before took.
    """

    def __init__(
        self,
        results: Path | None,
        *,
        clock: Callable[[], float],
        show: Callable[[str], None],
    ) -> None:
        self._path = None if results is None else results / POINTS
        self._file: IO[str] | None = None  # open from the first point on
        self._step, self._before = (0, {}) if self._path is None else _before(self._path)
        self.earlier = sum(self._before.values())  # seconds
        self._clock, self._show = clock, show
        self._began = clock()
        self._logged = self._pointed = -float("inf")
        self._first: float | None = None  # progress of the first point: what a resume begins with
        self.seconds = dict(self._before)  # by phase
        self._sums: dict[tuple[str, str], float] = {}  # by phase and what is summed
        self.plan([])

    def plan(self, phases: Iterable[Phase]) -> None:
        """What is to be done, in this order."""
        self._phases = tuple(phases)
        self._total = sum(phase.work for phase in self._phases) or 1.0

    def phase(self, name: str) -> Callable[..., None]:
        """`report(done_share, **values)` for the phase; call it once a step."""
        began = self._clock()
        names = [phase.name for phase in self._phases]
        place = names.index(name) if name in names else len(names)
        before = sum(phase.work for phase in self._phases[:place])
        work = self._phases[place].work if place < len(names) else 0.0

        def report(done: float, **values: float | int) -> None:
            self._step += 1
            self.seconds[name] = self._before.get(name, 0.0) + self._clock() - began
            for what in SUMMED:
                self._sums[name, what] = self._sums.get((name, what), 0) + values.get(what, 0)
            self._point(name, (before + done * work) / self._total, done >= 1.0, values)

        return report

    def rates(self, what: str) -> dict[str, float]:
        """`what` per second in each phase that had any since the job was last started."""
        own = {name: spent - self._before.get(name, 0.0) for name, spent in self.seconds.items()}
        return {
            name: total / own[name]
            for (name, summed), total in self._sums.items()
            if summed == what and total and own[name] > 0
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _point(
        self, name: str, progress: float, last: bool, values: Mapping[str, float | int]
    ) -> None:
        if self._path is None:
            return
        now = self._clock()
        spent = now - self._began
        self._first = progress if self._first is None else self._first
        gone = progress - self._first
        eta = spent * (1 - progress) / gone if gone >= ETA_FROM else None
        last = last or "val_nelbo" in values
        if last or now - self._pointed >= POINT_EVERY_S:
            self._pointed = now
            point = {"step": self._step, "phase": name, **values, "progress": round(progress, 5)}
            point |= {"eta_s": None if eta is None else round(eta, 1)}
            point |= {"elapsed_s": round(self.earlier + spent, 2)}
            self._append(json.dumps(point, allow_nan=False) + "\n")
        if last or now - self._logged >= LOG_EVERY_S:
            self._logged = now
            shown = "  ".join(f"{k} {_short(v)}" for k, v in values.items() if k in SHOWN)
            left = "" if eta is None else f"  about {eta:.0f} s left"
            self._show(f"{progress:4.0%}  {name}  {shown}{left}")

    def _append(self, line: str) -> None:
        assert self._path is not None
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf8")
        self._file.write(line)
        self._file.flush()


class Point(NamedTuple):
    """Of a line of metrics.jsonl."""

    step: int
    phase: str
    elapsed: float  # seconds, of all attempts
    phase_step: int  # 0 in an evaluation


def points(path: Path) -> Iterator[Point]:
    """What is no point is passed over; a missing file has none."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    for line in content.splitlines():
        try:
            told = json.loads(line)
            phase, counted = str(told["phase"]), int(told.get("phase_step", 0))
            point = Point(int(told["step"]), phase, float(told["elapsed_s"]), counted)
        except (ValueError, TypeError, KeyError, OverflowError):
            continue
        if math.isfinite(point.elapsed):
            yield point


def _before(path: Path) -> tuple[int, dict[str, float]]:
    """What is in metrics.jsonl: the last point's step, 0 without any, and seconds by phase.

    A line that a crash cut off is taken away.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    step, seconds, before = 0, dict[str, float](), 0.0
    for point in points(path):
        step, elapsed = point.step, point.elapsed
        before = 0.0 if elapsed < before else before  # an attempt that counted its own time alone
        seconds[point.phase] = seconds.get(point.phase, 0.0) + elapsed - before
        before = elapsed
    return step, seconds


def _short(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
