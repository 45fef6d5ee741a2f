"""Guards: rules that a run must keep while it goes on, looked at by its supervisor alone.

Each guard is a small object with a `take(record)` for a line of metrics.jsonl and a `look(now)` for
the passing of time; both return what is wrong, with its evidence, or None. Nothing here acts: the
supervisor does. A guard fires when its rule is first broken and, where the trouble can pass, again
only after it had passed.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from remote import events, files, gpu
from remote.layout import RunFiles
from remote.series import LINE_MAX, Series

Spec = Dict[str, Any]
Trouble = Tuple[str, Dict[str, Any]]  # in words; in numbers

EVERY = 2.0  # seconds between two looks
DISK_EVERY = 10.0
FIRINGS_MAX = 5  # of one guard in one run
FEW = 30  # examples; of fewer nothing is concluded
NULLS = 10  # lines in a row
Z99 = 2.326  # one-sided 1 % of the normal curve


class Firing(NamedTuple):
    action: str  # warn | stop | kill
    grace: float  # seconds between TERM and KILL
    message: str
    evidence: Dict[str, Any]
    guard: Spec


class Guard:
    """One rule. Without news it is content."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.start = float(spec.get("from") or 0)

    def take(self, record: Dict[str, Any], step: float, now: float) -> Optional[Trouble]:
        return None

    def look(self, now: float) -> Optional[Trouble]:
        return None


class Finite(Guard):
    """The metric never is NaN or infinite.

    `null` means that nothing was measured, but many writers turn NaN into it. So a metric that was
    a number three times also fires when it has become null for good: on NULLS lines in a row, and
    on three times as many as ever stood between two of its numbers.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.numbers = 0  # lines that had one
        self.nulls = 0  # lines in a row that had null instead
        self.gap = 0  # the most of them between two numbers

    def take(self, record: Dict[str, Any], step: float, now: float) -> Optional[Trouble]:
        if step < self.start:
            return None
        name = self.spec["metric"]
        value = value_of(record, name)
        if value is None:
            return self._nothing(record, name, step)
        if math.isfinite(value):
            self.numbers += 1
            self.gap, self.nulls = max(self.gap, self.nulls), 0
            return None
        return "%s is %s at step %g" % (name, value, step), {"step": step, "value": str(value)}

    def _nothing(self, record: Dict[str, Any], name: str, step: float) -> Optional[Trouble]:
        if not self.numbers or found_at(record, name, "") is not None:
            return None
        self.nulls += 1
        if self.numbers < 3 or self.nulls < max(NULLS, 3 * self.gap):
            return None
        words = "%s has been null on %d lines in a row at step %g (NaN, as many writers put it)"
        return words % (name, self.nulls, step), {"step": step, "lines": self.nulls}


class Range(Guard):
    """The metric stays within [min, max] from a step on."""

    def take(self, record: Dict[str, Any], step: float, now: float) -> Optional[Trouble]:
        name, low, high = self.spec["metric"], self.spec.get("min"), self.spec.get("max")
        value = value_of(record, name)
        if value is None or step < self.start:
            return None
        told = None
        if low is not None and not value >= low:
            told = "below the least allowed, %g" % low
        elif high is not None and not value <= high:
            told = "above the most allowed, %g" % high
        if told is None:
            return None
        words = "%s is %.6g at step %g, %s" % (name, value, step, told)
        return words, {"step": step, "value": value if math.isfinite(value) else str(value)}


class Stalled(Guard):
    """The metric gets better at least once in so many steps, or in so many seconds."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.sign = -1.0 if spec.get("better") == "higher" else 1.0
        self.best: Optional[float] = None
        self.at_step = self.at_time = 0.0

    def take(self, record: Dict[str, Any], step: float, now: float) -> Optional[Trouble]:
        value = value_of(record, self.spec["metric"])
        if value is None or step < self.start:
            return None
        if self.best is None or self.sign * value < self.sign * self.best:
            self.best, self.at_step, self.at_time = value, step, now
            return None
        limit = self.spec.get("steps")
        if limit is None or step - self.at_step < limit:
            return None
        return self._told("%g steps" % (step - self.at_step))

    def look(self, now: float) -> Optional[Trouble]:
        limit = self.spec.get("seconds")
        if limit is None or self.best is None or now - self.at_time < limit:
            return None
        return self._told("%.0f s" % (now - self.at_time))

    def _told(self, span: str) -> Trouble:
        name = self.spec["metric"]
        words = "%s has not improved for %s: best %.6g at step %g"
        evidence = {"best": self.best, "step": self.at_step}
        return words % (name, span, self.best, self.at_step), evidence


class Predictions(Guard):
    """An evaluation on the way is worth more than a constant answer.

    It looks at lines that carry a `confusion_matrix` (rows: true classes), or `accuracy` with the
    share of the largest class as `majority` and the number of examples as `n`.
    """

    def take(self, record: Dict[str, Any], step: float, now: float) -> Optional[Trouble]:
        if step < self.start:
            return None
        matrix = record.get("confusion_matrix")
        if matrix is not None and _is_matrix(matrix):
            return _degenerate(matrix, record.get("labels"), step)
        hits, share, n = (value_of(record, name) for name in ("accuracy", "majority", "n"))
        if hits is None or share is None or n is None:
            return None
        return _at_majority(hits * n, share * n, n, step)


def _is_matrix(value: Any) -> bool:
    if not isinstance(value, list) or not 2 <= len(value) <= 10000:
        return False
    rows = all(isinstance(row, list) and len(row) == len(value) for row in value)
    return rows and all(type(count) is int and count >= 0 for row in value for count in row)


def _degenerate(matrix: List[List[int]], labels: Any, step: float) -> Optional[Trouble]:
    true = [sum(row) for row in matrix]
    total = sum(true)
    if total < FEW:
        return None
    for at, there in enumerate(true):
        called = sum(row[at] for row in matrix)
        if there >= FEW // 2 and called < 0.05 * there:
            named = isinstance(labels, list) and len(labels) == len(matrix)
            words = "class `%s` is %s predicted at step %g: %d of %d"
            often = "never" if not called else "almost never"
            name = str(labels[at] if named else at)[:80]
            evidence = {"step": step, "class": at, "predicted": called, "true": there, "n": total}
            return words % (name, often, step, matrix[at][at], there), evidence
    right = sum(matrix[at][at] for at in range(len(matrix)))
    return _at_majority(right, max(true), total, step)


def _at_majority(hits: float, most: float, n: float, step: float) -> Optional[Trouble]:
    share = most / n if n >= FEW else 1.0
    if n < FEW or not 0.0 < share < 1.0 or not math.isfinite(hits):
        return None
    if hits >= most + Z99 * math.sqrt(n * share * (1.0 - share)):
        return None
    words = (
        "accuracy is %.1f %% at step %g (n = %d), no better than the %.1f %% of the largest class"
    )
    evidence = {"step": step, "accuracy": hits / n, "majority": share, "n": int(n)}
    return words % (100.0 * hits / n, step, n, 100.0 * share), evidence


class Silence(Guard):
    """`log: idle`: log and metrics keep growing. `log: first`: something comes at all."""

    def __init__(self, spec: Spec, sizes: Callable[[], Tuple[int, int]], now: float) -> None:
        super().__init__(spec)
        self.sizes = sizes
        self.begun = self.since = now
        self.known = sizes()

    def look(self, now: float) -> Optional[Trouble]:
        sizes = self.sizes()
        first = self.spec["log"] == "first"
        if sizes != self.known:
            self.known, self.since = sizes, now
            if first:
                self.begun = math.inf
        silent = now - (self.begun if first else self.since)
        if silent < float(self.spec["after"]):
            return None
        words = "no first output after %.0f s" if first else "no output for %.0f s"
        return words % silent, {"seconds": round(silent), "log_bytes": sizes[0]}


class IdleGpu(Guard):
    """The run's GPUs do something."""

    def __init__(self, spec: Spec, cards: List[gpu.Gpu], now: float) -> None:
        super().__init__(spec)
        self.uuids = {card.uuid for card in cards}
        self.after = float(spec["after"])
        self.every = max(5.0, min(60.0, self.after / 5.0))
        self.due = now + self.every
        self.since: Optional[float] = None
        self.last: Optional[Trouble] = None

    def look(self, now: float) -> Optional[Trouble]:
        if self.uuids and now >= self.due:
            self.due = now + self.every
            self.last = self._judge(now, self._busy())
        return self.last

    def _judge(self, now: float, busy: Optional[int]) -> Optional[Trouble]:
        if busy is None or busy > float(self.spec.get("below") or 5):
            self.since = None
            return None
        self.since = now if self.since is None else self.since
        if now - self.since < self.after:
            return None
        span = now - self.since
        words = "its GPU has been idle for %.0f s: %d %% busy at most"
        return words % (span, busy), {"seconds": round(span), "utilization": busy}

    def _busy(self) -> Optional[int]:
        """Per cent of the busiest card; None where nvidia-smi does not tell."""
        try:
            cards = [card for card in gpu.probe() if card.uuid in self.uuids]
        except gpu.NoAnswer:
            return None
        told = [card.utilization for card in cards if card.utilization is not None]
        return max(told) if told and len(told) == len(self.uuids) else None


class LowDisk(Guard):
    """So much is free where the run lies."""

    def __init__(self, spec: Spec, path: str) -> None:
        super().__init__(spec)
        self.path = path
        self.due = 0.0
        self.last: Optional[Trouble] = None

    def look(self, now: float) -> Optional[Trouble]:
        if now >= self.due:
            self.due = now + DISK_EVERY
            self.last = self._judge()
        return self.last

    def _judge(self) -> Optional[Trouble]:
        try:
            free = files.free_bytes(self.path)
        except OSError:
            return None
        if free >= int(self.spec["free"]):
            return None
        words = "%d MB are free where the run lies, less than %d MB"
        return words % (free >> 20, int(self.spec["free"]) >> 20), {"free": free}


class Guards:
    """All guards of a run from its job's start on."""

    def __init__(self, run: RunFiles, specs: List[Spec], cards: List[gpu.Gpu]) -> None:
        self.run = run
        self.series = Series(run)
        now = time.monotonic()
        self.due = now + EVERY
        self.lines = 0
        self.guards = [self._made(spec, cards, now) for spec in specs]
        self.fired = [0] * len(specs)
        self.reads = any("metric" in spec or "predictions" in spec for spec in specs)
        self.troubled = [False] * len(specs)
        self._recall(specs)

    def _recall(self, specs: List[Spec]) -> None:
        """What fired in this attempt under an earlier supervisor is known already."""
        for event in events.read(self.run):
            if event.get("attempt") == self.run.attempt and event.get("guard") in specs:
                at = specs.index(event["guard"])
                self.troubled[at] = True
                self.fired[at] += 1

    def _made(self, spec: Spec, cards: List[gpu.Gpu], now: float) -> Guard:
        if "log" in spec:
            return Silence(spec, self._sizes, now)
        if "gpu" in spec:
            return IdleGpu(spec, cards, now)
        if "disk" in spec:
            return LowDisk(spec, self.run.path)
        if "predictions" in spec:
            return Predictions(spec)
        if spec.get("rule") == "finite":
            return Finite(spec)
        return Stalled(spec) if "steps" in spec or "seconds" in spec else Range(spec)

    def _sizes(self) -> Tuple[int, int]:
        try:
            return os.stat(self.run.log).st_size, self.series.size
        except OSError:
            return 0, self.series.size

    def look(self, looks: Optional[int] = None) -> List[Firing]:
        """What fired since the last look; the next one is due at `self.due` (monotonic)."""
        now = time.monotonic()
        found: List[Firing] = []

        def take(record: Dict[str, Any]) -> None:
            self.lines += 1
            told = value_of(record, "step")
            step = told if told is not None and math.isfinite(told) else float(self.lines)
            for at, guard in enumerate(self.guards):
                self._note(at, guard.take(record, step, now), False, found)

        more = False
        if self.reads:
            before = self.series.overlong
            more = self.series.read(take, looks) if looks else self.series.read(take)
            if self.series.overlong and not before:
                found.append(_overlong())
        else:
            self.series.measure()
        for at, guard in enumerate(self.guards):
            passing = isinstance(guard, (Silence, IdleGpu, LowDisk))
            self._note(at, guard.look(now), passing, found)
        self.due = now + (0.05 if more else EVERY)
        return found

    def said(self) -> None:
        """The log grew by the supervisor's own words: that is no output of the job."""
        for guard in self.guards:
            if isinstance(guard, Silence):
                guard.known = self._sizes()

    def _note(
        self, at: int, trouble: Optional[Trouble], passing: bool, found: List[Firing]
    ) -> None:
        if trouble is None:
            self.troubled[at] = self.troubled[at] and not passing
            return
        if self.troubled[at] or self.fired[at] >= FIRINGS_MAX:
            return
        self.troubled[at] = True
        self.fired[at] += 1
        spec = self.guards[at].spec
        action, grace = str(spec.get("action") or "warn"), float(spec.get("grace") or 0)
        found.append(Firing(action, grace, trouble[0], trouble[1], spec))


def _overlong() -> Firing:
    """What a guard did not see is told, once: it might have been the line that mattered."""
    words = "a line of metrics.jsonl is longer than %d MiB: the guards pass such lines over"
    return Firing("warn", 0.0, words % (LINE_MAX >> 20), {}, {"metrics": "overlong"})


def value_of(record: Dict[str, Any], name: str) -> Optional[float]:
    """A metric as a number, NaN and infinity included; by its name or a dotted path."""
    value = found_at(record, name, None)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and value.lower().lstrip("+-") not in ("nan", "inf", "infinity"):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def found_at(record: Dict[str, Any], name: str, absent: Any) -> Any:
    """What stands under the name or dotted path; `absent` when nothing does."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return absent
        value = value[part]
    return value
