"""A quick look at a model in training, on some texts of dev; nothing is decided by it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace

from jobs.textdiff import evaluate
from jobs.textdiff.classifier import Classifier
from jobs.textdiff.data import Split

DRAWS = 4


def validate(
    judge: Classifier, split: Split, *, own: int | None = None, every: Classifier | None = None
) -> Mapping[str, float]:
    """Nats per token, and an accuracy where there is one.

    val_nelbo        of the texts the model is for: all, or those of its class `own`
    val_nelbo_other  of the other classes' texts, under a model of one class: what it has learnt of
                     its class is how much more they cost
    canary_accuracy  once every class has a model: of `judge`, or of `every`
    """
    judge = _quick(judge)
    ids = judge.tokenizer.encode_all(split.texts)
    scored = [text for _, text in sorted(evaluate.score(judge, ids).items())]
    rows = range(len(ids))
    if len(judge.labels) == 1:
        mine = [row for row in rows if own is None or split.labels[row] == own]
        found = {"val_nelbo": _per_token(scored, mine, [0] * len(ids))}
        rest = [row for row in rows if row not in set(mine)]
        if rest:
            found["val_nelbo_other"] = _per_token(scored, rest, [0] * len(ids))
        if every is None:
            return found
        judge = _quick(every)
        scored = [text for _, text in sorted(evaluate.score(judge, ids).items())]
    else:
        found = {"val_nelbo": _per_token(scored, list(rows), list(split.labels))}
    decisions = evaluate.decide(scored, judge.config.seed)
    right = [d.predicted == t for d, t in zip(decisions, split.labels, strict=True)]
    return found | {"canary_accuracy": statistics.fmean(right)}


def _quick(judge: Classifier) -> Classifier:
    settings = replace(judge.config.eval, draws=DRAWS, round=DRAWS, stop_z=0.0, estimator="shared")
    return replace(judge, config=replace(judge.config, eval=settings))


def _per_token(scored: list[evaluate.Scored], rows: list[int], labels: list[int]) -> float:
    tokens = sum(scored[row].tokens for row in rows)
    return sum(scored[row].scores[labels[row]] for row in rows) / max(1, tokens)
