"""The classifiers that any other has to beat: naive Bayes and logistic regression on word counts.

    python -m jobs.textdiff.baselines             the whole job
    python -m jobs.textdiff.baselines --canary    on a few texts, results in canary/

Reads and writes what `pipeline` does, on the same splits. `accuracy` is logistic regression's on
words and word pairs; the others are in `variants`. Source of the settings (binary counts, C 0.3):
chosen beforehand, on no test set here.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jobs.textdiff import config as configs
from jobs.textdiff import data, errors, files, metrics, parallel, typed
from jobs.textdiff.data import Dataset
from jobs.textdiff.errors import ConfigError, DataError, JobError

CANARY_TEXTS = 500
UNREAD: configs.Unread = {  # these classifiers count words, and all of them
    **configs.UNREAD_DATA,
    "data.tokenizer": ("words", lambda config: "baselines"),
    "data.vocab_size": (30_000, lambda config: "baselines"),
    "data.min_count": (1, lambda config: "baselines"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    C: float  # inverse strength of logistic regression's penalty
    alpha: float  # naive Bayes: counts added to each word


@dataclass(frozen=True, slots=True)
class Eval:
    split: str
    max_examples: int | None


@dataclass(frozen=True, slots=True)
class Config:
    seed: int
    data: configs.Data
    baselines: Settings
    eval: Eval


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="jobs.textdiff.baselines")
    parser.add_argument("--canary", action="store_true", help="on a few texts")
    args = parser.parse_args(argv)
    try:
        run(env, canary=args.canary)
    except Exception as error:
        told = errors.in_one_line(error, Path(env.get("ORCH_RESULTS_DIR", ".")))
        if told is None:
            raise
        metrics.Console(sys.stderr).say(f"error: {told[0]}")
        return told[1]
    return 0


def run(env: Mapping[str, str], *, canary: bool) -> dict[str, Any]:
    """metrics.json and predictions.jsonl are written; gives what metrics.json says."""
    began = time.monotonic()
    for name in ("ORCH_CONFIG", "ORCH_RESULTS_DIR"):
        if not env.get(name):
            raise ConfigError(f"{name} is not set; whoever starts a run sets it")
    results = Path(env["ORCH_RESULTS_DIR"])
    config = typed.build(Config, typed.read(Path(env["ORCH_CONFIG"])))
    configs.check_ranges(config)
    configs.check_data(config.data)
    configs.check_unread(config, UNREAD)
    if canary:
        results = results / "canary"
    folder = env.get("ORCH_DATA")
    dataset = data.load(config.data, config.seed, Path(folder) if folder else None)
    if canary:
        dataset = replace(dataset, train=_few(dataset.train))
    texts = data.sample(dataset.split(config.eval.split), config.eval.max_examples, config.seed)
    console, rows = metrics.Console(sys.stdout), dict[str, dict[str, Any]]()
    for name, predicted in _predictions(config, dataset, texts):
        rows[name] = _row(predicted, texts, dataset.labels)
        console.say(f"{name}: {rows[name]['accuracy']:.1%}")
    final = rows.pop("logistic_regression_bigram") | {"variants": rows}
    final |= {
        "data": dataset.name,
        "split": config.eval.split,
        "train_texts": len(dataset.train),
        "dropped_from_train": dataset.dropped,
        "dropped_from_dev": dataset.dropped_dev,
        "device": parallel.named(parallel.World(0, 1, torch.device("cpu"))),
        "seconds": {"total": round(time.monotonic() - began, 2)},
    }
    files.write_lines(results / "predictions.jsonl", final.pop("predictions"))
    for row in rows.values():
        row.pop("predictions")
    files.write_json(results / "metrics.json", final)
    return final


def _few(train: data.Split) -> data.Split:
    """Some texts, of every class at least one."""
    first = {train.labels.index(label) for label in set(train.labels)}
    return train.at(sorted({*first, *range(min(CANARY_TEXTS, len(train)))}))


def _predictions(config: Config, dataset: Dataset, texts: data.Split) -> Any:
    """(name, predicted labels), logistic regression on words and pairs last."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.naive_bayes import MultinomialNB
    except ImportError:
        raise JobError("baselines need scikit-learn: pip install 'orch[jobs]'") from None
    from jobs.textdiff.tokenizer import split

    if not any(map(split, dataset.train.texts)):
        raise DataError(f"{dataset.name}: no training text has a word in it")
    for words, longest in (("unigram", 1), ("bigram", 2)):
        counted = CountVectorizer(
            tokenizer=split, token_pattern=None, lowercase=False, ngram_range=(1, longest)
        )
        train, test = counted.fit_transform(dataset.train.texts), counted.transform(texts.texts)
        bayes = MultinomialNB(alpha=config.baselines.alpha).fit(train, dataset.train.labels)
        yield f"naive_bayes_{words}", bayes.predict(test).tolist()
        train, test = train.sign(), test.sign()  # there or not
        logistic = LogisticRegression(C=config.baselines.C, max_iter=1000)
        logistic.fit(train, dataset.train.labels)
        yield f"logistic_regression_{words}", logistic.predict(test).tolist()


def _row(predicted: Sequence[int], texts: data.Split, labels: Sequence[str]) -> dict[str, Any]:
    from jobs.textdiff import summary
    from jobs.textdiff.evaluate import Decision

    found = summary.accuracy([Decision(label, False) for label in predicted], texts.labels, labels)
    found["predictions"] = [
        {"row": row, "label": labels[true], "predicted": labels[label]}
        for row, (label, true) in enumerate(zip(predicted, texts.labels, strict=True))
    ]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
