"""Guards over the lines of metrics.jsonl: each is told a record, says what is wrong with it. Pure.

`take(record)` is for a line, `look(now)` for the passing of time; both return what is wrong, with
its evidence, or None.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Tuple

Spec = Dict[str, Any]
Trouble = Tuple[str, Dict[str, Any]]  # in words; in numbers

FEW = 30  # examples; of fewer nothing is concluded
COUNT_MAX = 1 << 53  # in a matrix: what a float can hold
NULLS = 10  # lines in a row
Z99 = 2.326  # one-sided 1 % of the normal curve


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
    """The metric gets better at least once in so many steps, or in so many seconds.

    A value that is not finite is no improvement, and nothing to improve on.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.sign = -1.0 if spec.get("better") == "higher" else 1.0
        self.best: Optional[float] = None
        self.at_step = self.at_time = 0.0

    def take(self, record: Dict[str, Any], step: float, now: float) -> Optional[Trouble]:
        value = value_of(record, self.spec["metric"])
        if value is None or step < self.start:
            return None
        better = self.best is None or self.sign * value < self.sign * self.best
        if better and math.isfinite(value):
            self.best, self.at_step, self.at_time = value, step, now
            return None
        limit = self.spec.get("steps")
        if limit is None or self.best is None or step - self.at_step < limit:
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
            counts = [[int(count) for count in row] for row in matrix]
            return _degenerate(counts, record.get("labels"), step)
        hits, share, n = (value_of(record, name) for name in ("accuracy", "majority", "n"))
        if hits is None or share is None or n is None:
            return None
        return _at_majority(hits * n, share * n, n, step)


def _is_matrix(value: Any) -> bool:
    if not isinstance(value, list) or not 2 <= len(value) <= 10000:
        return False
    rows = all(isinstance(row, list) and len(row) == len(value) for row in value)
    return rows and all(
        type(count) in (int, float) and 0 <= count <= COUNT_MAX and int(count) == count
        for row in value
        for count in row
    )


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
