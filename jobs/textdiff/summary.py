"""What an evaluation comes to: the numbers of metrics.json and the rows of predictions.jsonl."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

MOST_IN_TABLE = 20  # classes; of hundreds, a table with their names takes megabytes

if TYPE_CHECKING:  # torch is not needed to count
    from jobs.textdiff.evaluate import Decision, Scored


def accuracy(
    decisions: Sequence[Decision], truth: Sequence[int], labels: Sequence[str]
) -> dict[str, Any]:
    """Accuracy and what it must be read with; rows of the confusion matrix are true labels."""
    n, classes = len(truth), range(len(labels))
    matrix = [[0 for _ in classes] for _ in classes]
    for true, decision in zip(truth, decisions, strict=True):
        matrix[true][decision.predicted] += 1
    right = sum(matrix[c][c] for c in classes)
    return {
        "accuracy": right / n,
        "accuracy_interval": list(wilson(right, n)),
        "n": n,
        "labels": list(labels),
        "confusion_matrix": matrix,
        "majority_accuracy": max(sum(row) for row in matrix) / n,
        "predicted_share": _by(labels, [sum(row[c] for row in matrix) / n for c in classes]),
        "true_share": _by(labels, [sum(row) / n for row in matrix]),
        "ties": sum(decision.tie for decision in decisions),
    }


def bounds(
    scored: Sequence[Scored], truth: Sequence[int], labels: Sequence[str], *, draws: int
) -> dict[str, Any]:
    """Means of the bound, of each text's first `draws`, which all texts have. `nelbo_per_token`, a
    row a class, is left out where these are many: the predictions have what it is made of."""
    found = [text.bounds(draws) for text in scored]
    table = {"nelbo_per_token": _nelbo_table(scored, found, truth, labels)}
    return {
        "nelbo": _by(labels, list(map(statistics.fmean, zip(*found, strict=True)))),
        **(table if len(labels) <= MOST_IN_TABLE else {}),
    }


def gaps(scored: Sequence[Scored], truth: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """The lowest other class's score less the true class's, in nats: above zero where the text is
    classified rightly."""
    every = [text.gap(true) for text, true in zip(scored, truth, strict=True)]
    own = {
        name: [gap for gap, true in zip(every, truth, strict=True) if true == label]
        for label, name in enumerate(labels)
    }
    return {
        "gap": {
            "mean": statistics.fmean(every),
            "se": _se(every),
            "mean_by_label": {name: statistics.fmean(own[name]) for name in labels if own[name]},
            "se_by_label": {name: _se(own[name]) for name in labels if own[name]},
            "noise_se": _mean_noise(scored, truth),
        },
        "draws_used": statistics.fmean(text.draws for text in scored),
    }


def predictions(
    scored: Sequence[Scored],
    decisions: Sequence[Decision],
    truth: Sequence[int],
    labels: Sequence[str],
) -> Iterator[Mapping[str, Any]]:
    for row, (text, decision, true) in enumerate(zip(scored, decisions, truth, strict=True)):
        yield {
            "row": row,
            "label": labels[true],
            "predicted": labels[decision.predicted],
            "scores": list(text.scores),
            "gap": text.gap(true),
            "gap_se": text.gap_se(true),
            "draws": text.draws,
            "tie": decision.tie,
            "tokens": text.tokens,
        }


def wilson(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % score interval of a share. Source: Wilson 1927."""
    share, spread = right / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _by(labels: Sequence[str], values: Sequence[float]) -> Mapping[str, float]:
    return dict(zip(labels, values, strict=True))


def _nelbo_table(
    scored: Sequence[Scored],
    bounds: Sequence[Sequence[float]],
    truth: Sequence[int],
    labels: Sequence[str],
) -> dict[str, Mapping[str, float]]:
    """true label -> model -> nats per token."""
    table: dict[str, Mapping[str, float]] = {}
    for true, name in enumerate(labels):
        rows = [row for row, own in enumerate(truth) if own == true]
        tokens = sum(scored[row].tokens for row in rows)
        if rows:
            costs = zip(*(bounds[row] for row in rows), strict=True)
            table[name] = _by(labels, [sum(own) / tokens for own in costs])
    return table


def _se(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _mean_noise(scored: Sequence[Scored], truth: Sequence[int]) -> float | None:
    pairs = zip(scored, truth, strict=True)
    known = [error for text, true in pairs if (error := text.gap_se(true)) is not None]
    return statistics.fmean(known) if known else None
