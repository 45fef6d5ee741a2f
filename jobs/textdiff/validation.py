"""A quick look at a model in training, on some texts of dev; nothing is decided by it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jobs.textdiff import evaluate
from jobs.textdiff.classifier import Classifier
from jobs.textdiff.data import Split
from jobs.textdiff.evaluate import Scored

DRAWS = 4


def of_all_classes(judge: Classifier, split: Split) -> Mapping[str, float]:
    """Of models that know every class: nats per token under the true one, and the accuracy."""
    scored = look(judge, split)
    own = [text.scores[label] for text, label in zip(scored, split.labels, strict=True)]
    return {"val_nelbo": _per_token(own, scored), **_accuracy(judge, scored, split)}


def of_one_class(
    judge: Classifier,
    split: Split,
    own: int,
    *,
    before: Sequence[Scored] | None = None,
    every: Classifier | None = None,
) -> Mapping[str, float]:
    """Of the model of class `own`: what `learnt` says, and, with `every`, the models of all
    classes, the accuracy. `before` is what `look` gave for the start that the classes share.
    """
    found = learnt(look(judge, split), [label == own for label in split.labels], before)
    return found | (_accuracy(every, look(every, split), split) if every is not None else {})


def learnt(
    scored: Sequence[Scored], mine: Sequence[bool], before: Sequence[Scored] | None = None
) -> dict[str, float]:
    """What one class's model knows of its class while the others' may not be there yet.

    val_nelbo        nats per token of the texts of its class, which are `mine`
    val_nelbo_other  of the others: what it has learnt of its class is how much more they cost
    canary_auc       with `before`: how often training has made a text of its class cheaper, per
                     token, than one of another. 0.5: nothing that tells them apart; it goes by
                     ranks, so that all texts become cheaper does not matter
    """
    found = {}
    for name, wanted in (("val_nelbo", True), ("val_nelbo_other", False)):
        part = [text for text, is_mine in zip(scored, mine, strict=True) if is_mine == wanted]
        if part:
            found[name] = _per_token([text.scores[0] for text in part], part)
    if before is not None and len(found) == 2:
        pairs = zip(before, scored, strict=True)
        gains = [(was.scores[0] - now.scores[0]) / max(1, now.tokens) for was, now in pairs]
        found["canary_auc"] = auc(gains, mine)
    return found


def of_no_class(judge: Classifier, split: Split) -> Mapping[str, float]:
    """Of a model of any text: nats per token."""
    scored = look(judge, split)
    return {"val_nelbo": _per_token([text.scores[0] for text in scored], scored)}


def look(judge: Classifier, split: Split) -> list[Scored]:
    """The texts, scored with few draws, the same ones every time."""
    settings = replace(judge.config.eval, draws=DRAWS, round=DRAWS, stop_z=0.0, estimator="shared")
    quick = replace(judge, config=replace(judge.config, eval=settings))
    ids = judge.tokenizer.encode_all(split.texts)
    return [text for _, text in sorted(evaluate.score(quick, ids).items())]


def auc(values: Sequence[float], positive: Sequence[bool]) -> float:
    """The share of pairs in which the positive one has the higher value; ties count half."""
    high = [value for value, is_positive in zip(values, positive, strict=True) if is_positive]
    low = [value for value, is_positive in zip(values, positive, strict=True) if not is_positive]
    return statistics.fmean((a > b) + (a == b) / 2 for a in high for b in low)


def _accuracy(judge: Classifier, scored: Sequence[Scored], split: Split) -> dict[str, float]:
    decisions = evaluate.decide(evaluate.judged(judge, scored), judge.config.seed)
    right = [d.predicted == true for d, true in zip(decisions, split.labels, strict=True)]
    return {"canary_accuracy": statistics.fmean(right)}


def _per_token(costs: Sequence[float], scored: Sequence[Scored]) -> float:
    return sum(costs) / max(1, sum(text.tokens for text in scored))
