"""The evaluating part of the job: each row of its result, the first of them the job's accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from jobs.textdiff import (
    calibrate,
    checkpoint,
    data,
    evaluate,
    files,
    metrics,
    phases,
    selfmade,
    summary,
)
from jobs.textdiff.checkpoint import Checkpoint
from jobs.textdiff.classifier import Classifier
from jobs.textdiff.config import GPT2_BOTH_WAYS
from jobs.textdiff.evaluate import Scored
from jobs.textdiff.phases import Job
from jobs.textdiff.tokenizer import Tokenizer

CALIBRATION_BINS = 8
TABLE = [("independent", 1), ("shared", 1), ("shared", 8), ("shared", 32)]


def main_row(job: Job, judge: Classifier) -> dict[str, Any]:
    """predictions.jsonl is written; gives the evaluation's part of metrics.json."""
    texts, labels = job.evaluated, job.dataset.labels
    scored = _scored(job, judge, texts, "eval")
    decisions = evaluate.decide(scored, job.config.seed)
    if job.world.first:
        rows = summary.predictions(scored, decisions, texts.labels, labels)
        files.write_lines(job.results / "predictions.jsonl", rows)
    found = summary.accuracy(decisions, texts.labels, labels)
    found |= summary.bounds(scored, texts.labels, labels, draws=_unbiased(job))
    found |= summary.gaps(scored, texts.labels, labels)
    found["variants"] = _calibrated(job, judge, scored, "calibrated")
    return found | bayes(job.dataset.grammar, texts)


def onwards_row(job: Job, done: Sequence[Checkpoint], *, raw: bool) -> dict[str, Any]:
    """Of models that read both ways the ones that read from the beginning, alone."""
    model = replace(job.config.model, architecture="gpt2")
    one_way = replace(job, config=replace(job.config, model=model))
    kept = [checkpoint.part(each, "onwards.") for each in done]
    judge = phases.classifier(one_way, kept, raw=raw)
    decisions = evaluate.decide(
        _scored(one_way, judge, job.evaluated, "eval:onwards"), job.config.seed
    )
    return {"onwards": summary.accuracy(decisions, job.evaluated.labels, job.dataset.labels)}


def class_likelihood_row(job: Job, done: Checkpoint, *, raw: bool) -> dict[str, Any]:
    """The same weights trained on to tell classes apart: no longer a purely generative model, and
    judged by the score that was trained."""
    judge = replace(phases.classifier(job, [done], raw=raw), by_bound=False)
    scored = _scored(job, judge, job.evaluated, "eval:class-likelihood")
    truth, trained = job.evaluated.labels, evaluate.judged(judge, scored)
    found = summary.accuracy(evaluate.decide(trained, job.config.seed), truth, judge.labels)
    found |= summary.bounds(scored, truth, judge.labels, draws=_unbiased(job))
    found |= summary.gaps(trained, truth, judge.labels)
    return {"class_likelihood": found}


def table(job: Job, done: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    """What the estimator and the averaging are worth: the same training, judged in eight ways."""
    rows = []
    for weights in ("raw", "ema"):
        judge = phases.classifier(job, done, raw=weights == "raw")
        for estimator, draws in TABLE:
            settings = replace(
                job.config.eval, draws=draws, round=draws, stop_z=0.0, estimator=estimator
            )
            own = replace(judge, config=replace(job.config, eval=settings))
            scored = _scored(job, own, job.evaluated, f"table:{weights}:{estimator}:{draws}")
            decisions = evaluate.decide(scored, job.config.seed)
            found = summary.accuracy(decisions, job.evaluated.labels, job.dataset.labels)
            keys = ("accuracy", "accuracy_interval", "n", "predicted_share", "ties")
            row = {"weights": weights, "estimator": estimator, "draws": draws}
            rows.append(row | {key: found[key] for key in keys})
    return rows


def bayes(grammar: selfmade.Grammar | None, texts: data.Split) -> dict[str, float]:
    """The best accuracy there can be, where it is known: expected, and on these very texts."""
    if grammar is None:
        return {}
    right = sum(
        int((selfmade.log_odds(grammar, text) > 0) == bool(label))
        for text, label in zip(texts.texts, texts.labels, strict=True)
    )
    return {
        "bayes_accuracy": selfmade.bayes_accuracy(grammar),
        "bayes_accuracy_here": right / len(texts),
    }


def work(job: Job) -> list[metrics.Phase]:
    """The phases above, in tokens passed forward at most."""
    settings, classes = job.config.eval, len(job.dataset.labels)

    def once(split: data.Split) -> float:
        """Work of one draw for every class."""
        return float(classes * sum(map(len, _ids(job.tokenizer, split.texts))))

    draws = 1 if job.config.model.exact else settings.draws
    each = once(job.evaluated)
    found = [metrics.Phase("eval", draws * each)]
    if job.config.model.architecture == GPT2_BOTH_WAYS:
        found.append(metrics.Phase("eval:onwards", each))
    if _calibrates(job):
        found.append(metrics.Phase("calibrate", draws * once(job.dataset.dev)))
    if job.config.class_likelihood.steps:
        found.append(metrics.Phase("eval:class-likelihood", draws * each))
    if settings.table:
        found += [
            metrics.Phase(f"table:{weights}:{estimator}:{count}", count * each)
            for weights in ("raw", "ema")
            for estimator, count in TABLE
        ]
    return found


def _calibrated(
    job: Job, judge: Classifier, scored: Sequence[Scored], name: str
) -> dict[str, Mapping[str, Any]]:
    if not _calibrates(job):
        return {}
    dev = _scored(job, judge, job.dataset.dev, "calibrate")
    fitted = calibrate.fit(dev, job.dataset.dev.labels, bins=CALIBRATION_BINS)
    decisions = evaluate.choose(fitted.costs(scored), job.config.seed)
    found = summary.accuracy(decisions, job.evaluated.labels, job.dataset.labels)
    about = {"level_weights": fitted.weight_B.tolist(), "fitted_on": len(dev), "prior": "as in dev"}
    return {name: found | about}


def _unbiased(job: Job) -> int:
    """Draws that every text has, whatever its first ones said: all, or one round's."""
    return job.config.eval.round if job.config.eval.stop_z else job.config.eval.draws


def _calibrates(job: Job) -> bool:
    """Not where dev itself is judged: the weights are fitted on its labels. A class that dev lacks
    would never be predicted."""
    lacks = set(range(len(job.dataset.labels))) - set(job.dataset.dev.labels)
    return job.config.eval.calibrate and job.config.eval.split != "dev" and not lacks


def _scored(job: Job, judge: Classifier, split: data.Split, phase: str) -> list[Scored]:
    """Every text, each process scoring its share."""
    ids = _ids(job.tokenizer, split.texts)
    report = job.reporter.phase(phase)
    rows = range(job.world.rank, len(ids), job.world.size)
    own = evaluate.score(judge, ids, rows=rows, report=report, say=job.say)
    merged = {row: text for part in job.world.gather(own) for row, text in part.items()}
    return [merged[row] for row in range(len(ids))]


@cache
def _ids(tokenizer: Tokenizer, texts: tuple[str, ...]) -> list[list[int]]:
    """Kept: an evaluation looks at the same texts many times."""
    return tokenizer.encode_all(texts)
