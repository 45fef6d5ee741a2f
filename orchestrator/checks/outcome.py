"""What a result is worth, from the bytes of its metrics file. Pure; never raises for any bytes.

The first that holds decides: invalid_result, degenerate, below_target, then ok when something was
expected and unverified when nothing was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from orchestrator.checks.binomial import difference
from orchestrator.checks.confusion import (
    Contradiction,
    Matrix,
    agrees,
    count_of,
    degeneracy,
    labels_of,
    matrix_of,
    no_gain,
)
from orchestrator.domain import Judged, Outcome
from orchestrator.jobspec import Baseline, Bound, Expect
from orchestrator.nested import lookup
from orchestrator.strictjson import JsonRefused, cut, loads
from orchestrator.wording import value as words

ACCURACY = "accuracy"
NESTED = (
    ".accuracy"  # how the name of one ends that lies deeper, with a matrix of its own beside it
)
MAJORITY = ("majority", "majority_accuracy")  # the largest class's share of the examples


@dataclass(frozen=True, slots=True)
class _Scores:
    """One evaluation: an accuracy with what lies beside it; `fault` says why it cannot be true."""

    accuracy: float | None = None
    matrix: Matrix = ()
    labels: tuple[str, ...] = ()
    n: int | None = None
    majority: float | None = None
    where: str = ""  # in words, of one that is nested
    fault: str | None = None

    @property
    def shows(self) -> bool:
        """Whether it can be seen here that the predictions are one-sided."""
        return bool(self.matrix) or self.majority is not None


@dataclass(frozen=True, slots=True)
class _Read:
    """A metrics file's content; `fault` says why it cannot be true, and then no accuracy is set."""

    metrics: Mapping[str, Any]
    scores: _Scores = _Scores()  # those of the primary accuracy
    seen: tuple[_Scores, ...] = ()  # those in which one-sided predictions are looked for
    fault: str | None = None


def judge(
    metrics_bytes: bytes | None,
    *,
    metrics_declared: bool,
    expect: Expect,
    primary: str,
    succeeded: bool,
) -> Judged:
    """The result's outcome with its reasons, in words and numbers.

    `metrics_bytes` is the file as it came, None when there is none. A run that did not succeed is
    `unverified`: its metrics are kept, its accuracy is not counted. `accuracy` is set only where it
    can be believed, so never with `invalid_result`.
    """
    if metrics_bytes is None:
        if succeeded and (metrics_declared or _expects(expect)):
            return Judged(Outcome.INVALID_RESULT, ("the metrics file is missing (metrics.json)",))
        return Judged(Outcome.UNVERIFIED)
    read = _read(metrics_bytes, primary, expect)
    if not succeeded:
        return _uncounted(read)
    if read.fault is not None:
        return _judged(Outcome.INVALID_RESULT, (read.fault,), read)
    reasons = tuple(reason for each in read.seen for reason in _degenerate(each))
    if reasons and expect.predictions != "any":
        return _judged(Outcome.DEGENERATE, reasons, read)
    reasons = tuple(_unmet(expect, read))
    if reasons:
        return _judged(Outcome.BELOW_TARGET, reasons, read)
    return _judged(Outcome.OK if _expects(expect) else Outcome.UNVERIFIED, (), read)


def _judged(outcome: Outcome, reasons: tuple[str, ...], read: _Read) -> Judged:
    scores = read.scores
    matrix = next((each for each in (scores, *read.seen) if each.matrix), scores)
    return Judged(
        outcome,
        reasons,
        scores.accuracy,
        read.metrics,
        matrix.matrix,
        matrix.labels or scores.labels,
    )


def _degenerate(scores: _Scores) -> tuple[str, ...]:
    """Why a constant answer would do as well: by the matrix, else by the largest class's share."""
    reasons: tuple[str, ...] = ()
    if scores.matrix:
        reasons = degeneracy(scores.matrix, scores.labels)
    elif scores.accuracy is not None and scores.majority is not None:
        reasons = no_gain(scores.accuracy, scores.majority, scores.n)
    return tuple(scores.where + reason for reason in reasons)


def _uncounted(read: _Read) -> Judged:
    reason = "the run did not succeed: metrics kept, accuracy not counted"
    if read.fault is not None:
        reason = f"the run did not succeed, and its result is not usable: {read.fault}"
    scores = replace(read.scores, accuracy=None)
    return _judged(Outcome.UNVERIFIED, (reason,), replace(read, scores=scores))


# --- reading --------------------------------------------------------------------------------------


def _read(raw: bytes, primary: str, expect: Expect) -> _Read:
    try:
        metrics = loads(raw)
    except JsonRefused as error:
        return _Read({}, fault=f"metrics.json: {error}")
    if not isinstance(metrics, dict):
        return _Read({}, fault="metrics.json: it is not an object with named metrics")
    top = _scores(metrics)
    nested = {
        name: _scores(beside(metrics, name), f"in `{cut(name.removesuffix(NESTED))}`: ")
        for name in (primary, *expect.metrics)
        if name.endswith(NESTED)
    }
    own = nested.get(primary)
    telling = tuple(each for each in nested.values() if each.shows)
    seen = telling if own is not None and own.shows else (top, *telling)
    faults = (
        top.fault,
        _primary_fault(metrics, primary),
        *(each.fault for each in nested.values()),
    )
    fault = next((each for each in faults if each is not None), None)
    scores = own or top
    if fault is not None:
        scores = replace(scores, accuracy=None)
    return _Read(metrics, scores, seen, fault)


def beside(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What lies where the accuracy of this dotted name does; the top level for any other name."""
    if not name.endswith(NESTED):
        return metrics
    if name in metrics:
        prefix = name.removesuffix(ACCURACY)
        return {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
    found = _lookup(metrics, name.removesuffix(NESTED))
    return found if isinstance(found, Mapping) else {}


def _scores(metrics: Mapping[str, Any], where: str = "") -> _Scores:
    matrix: Matrix = ()
    labels: tuple[str, ...] = ()
    try:
        if metrics.get("confusion_matrix") is not None:
            matrix = matrix_of(metrics["confusion_matrix"])
        labels = labels_of(metrics.get("labels"), matrix)
        accuracy = _accuracy(metrics)
        n = _count(metrics)
        if matrix:
            agrees(matrix, accuracy, n)
    except Contradiction as error:
        return _Scores(matrix=matrix, labels=labels, where=where, fault=f"{where}{error}")
    return _Scores(accuracy, matrix, labels, n, _majority(metrics), where)


def _majority(metrics: Mapping[str, Any]) -> float | None:
    told = (metrics.get(name) for name in MAJORITY)
    share = next((float(share) for share in told if _is_number(share)), None)
    return share if share is not None and 0 < share <= 1 else None


def _accuracy(metrics: Mapping[str, Any]) -> float | None:
    if ACCURACY not in metrics:
        return None
    value = metrics[ACCURACY]
    if not _is_number(value):
        raise Contradiction(f"accuracy is {cut(words(value))}, which is not a number")
    if not 0 <= value <= 1:
        percent = f"; if it is a percentage, write {value / 100:g}" if 1.01 <= value <= 100 else ""
        raise Contradiction(f"accuracy is {cut(words(value))}, outside [0, 1]{percent}")
    return float(value)


def _primary_fault(metrics: Mapping[str, Any], primary: str) -> str | None:
    # Only a primary metric that the spec chose is owed: `accuracy` is the default of every job.
    value = _lookup(metrics, primary)
    if primary == ACCURACY or _is_number(value):
        return None
    told = "is missing" if value is None else f"is {cut(words(value))}, which is not a number"
    return f"the primary metric `{cut(primary)}` {told}"


def _count(metrics: Mapping[str, Any]) -> int | None:
    value = metrics.get("n")
    if value is None:
        return None
    count = count_of(value)
    if not count:
        raise Contradiction(f"n is {cut(words(value))}, which is not a number of examples")
    return count


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# --- expecting ------------------------------------------------------------------------------------


def _expects(expect: Expect) -> bool:
    return bool(expect.metrics or expect.baseline) or expect.predictions == "not-degenerate"


def _unmet(expect: Expect, read: _Read) -> Iterator[str]:
    for name, bound in expect.metrics.items():
        yield from _out_of_bounds(name, bound, _lookup(read.metrics, name))
    if expect.predictions == "not-degenerate" and not any(each.matrix for each in read.seen):
        yield "predictions: not-degenerate was expected, but there is no confusion_matrix to see it"
    if expect.baseline is not None:
        yield from _regression(expect.baseline, expect.tolerance, read.scores)


def _regression(base: Baseline, tolerance: float, scores: _Scores) -> Iterator[str]:
    """Worse than the baseline by more than is tolerated, and by more than chance explains."""
    if scores.accuracy is None:
        yield f"accuracy is missing; {base.run_id} has {_percent(base.accuracy)}"
        return
    lost = base.accuracy - scores.accuracy
    if lost <= tolerance + 1e-12:
        return
    n = scores.n or sum(map(sum, scores.matrix)) or None
    about = "without `n` chance cannot be told from loss"
    if n is not None and base.n is not None:
        low, high = difference(scores.accuracy, n, base.accuracy, base.n)
        if high >= 0.0:
            return
        about = f"95 % interval of the loss {-100 * high:.1f} to {-100 * low:.1f}, "
        about += f"n = {n} and {base.n}"
    yield (
        f"accuracy {_percent(scores.accuracy)} is {100 * lost:.1f} points below the "
        f"{_percent(base.accuracy)} of {base.run_id} ({about}); {100 * tolerance:g} are tolerated"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _out_of_bounds(name: str, bound: Bound, value: Any) -> Iterator[str]:
    if not _is_number(value):
        told = "is missing" if value is None else f"is {cut(words(value))}, which is not a number"
        yield f"{name} {told}; expected {_bounds(bound)}"
    elif bound.min is not None and value < bound.min:
        there, least = _apart(value, bound.min)
        yield f"{name} is {there}, below the expected minimum {least}"
    elif bound.max is not None and value > bound.max:
        there, most = _apart(value, bound.max)
        yield f"{name} is {there}, above the expected maximum {most}"


def _apart(value: float, limit: float) -> tuple[str, str]:
    """Two numbers that differ, in as many digits as show it."""
    short = f"{value:.6g}", f"{limit:.6g}"
    return short if short[0] != short[1] else (words(value), words(limit))


def _bounds(bound: Bound) -> str:
    parts = []
    if bound.min is not None:
        parts.append(f"at least {bound.min:.6g}")
    if bound.max is not None:
        parts.append(f"at most {bound.max:.6g}")
    return " and ".join(parts)


def _lookup(metrics: Mapping[str, Any], name: str) -> Any:
    """A metric by its name, or by a dotted path into nested ones."""
    return metrics[name] if name in metrics else lookup(metrics, name, None)
