"""What a run says about itself: lines in the log, points in metrics.jsonl, the final metrics.json.

Every point carries `step` (optimizer steps and evaluation batches so far), `phase`, `progress`
(0 to 1 of the whole job, by planned work) and `eta_s`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG_EVERY_S = 1.5
POINT_EVERY_S = 0.5
ETA_FROM = 0.01  # of the work: before, the start-up would be taken for the pace


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the job. `work` is in any unit, the same for all phases of one job."""

    name: str
    work: float


class Reporter:
    """Appends points to `results`/metrics.jsonl and prints lines, neither too often.

    The last point of a phase is always written.
    """

    def __init__(
        self,
        results: Path,
        phases: Iterable[Phase],
        *,
        clock: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        results.mkdir(parents=True, exist_ok=True)
        self._file = (results / "metrics.jsonl").open("a", encoding="utf8")
        self._phases = tuple(phases)
        self._total = sum(phase.work for phase in self._phases) or 1.0
        self._clock, self._say = clock, say
        self._began = clock()
        self._logged = self._pointed = -float("inf")
        self._step = 0
        self.seconds: dict[str, float] = {}

    def phase(self, name: str) -> Callable[..., None]:
        """`report(done_share, **values)` for the phase; call it once a step."""
        began = self._clock()
        before = 0.0
        for phase in self._phases:
            if phase.name == name:
                break
            before += phase.work
        work = next(phase.work for phase in self._phases if phase.name == name)

        def report(done: float, **values: float | int) -> None:
            self._step += 1
            self.seconds[name] = self._clock() - began
            self._point(name, (before + done * work) / self._total, done >= 1.0, values)

        return report

    def close(self) -> None:
        self._file.close()

    def _point(
        self, name: str, progress: float, last: bool, values: Mapping[str, float | int]
    ) -> None:
        now = self._clock()
        spent = now - self._began
        eta = spent * (1 - progress) / progress if progress >= ETA_FROM else None
        if last or now - self._pointed >= POINT_EVERY_S:
            self._pointed = now
            point = {"step": self._step, "phase": name, **values, "progress": round(progress, 5)}
            point |= {"eta_s": None if eta is None else round(eta, 1), "elapsed_s": round(spent, 2)}
            self._file.write(json.dumps(point, allow_nan=False) + "\n")
            self._file.flush()
        if last or now - self._logged >= LOG_EVERY_S:
            self._logged = now
            shown = "  ".join(f"{key} {_short(value)}" for key, value in values.items())
            left = "" if eta is None else f"  about {eta:.0f} s left"
            self._say(f"{progress:4.0%}  {name}  {shown}{left}")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`path` holds `value`, all of it: a crash or a reader never meets half a file."""
    _write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """`path` holds one JSON object a line; whole, as above."""
    _write(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # else a crash after the rename may show an empty file
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _short(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
