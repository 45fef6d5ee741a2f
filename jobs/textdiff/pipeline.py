"""The job: pretrain once, fine-tune one model per class from that, compare them on unseen texts.

    python -m jobs.textdiff.pipeline            the whole job
    python -m jobs.textdiff.pipeline --canary   a few steps of everything, results in canary/

Reads $ORCH_CONFIG and, for real data, $ORCH_DATA; writes metrics.jsonl, metrics.json,
predictions.jsonl and checkpoints/ under $ORCH_RESULTS_DIR. Exit codes: see `errors`; 143 after
SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from jobs.textdiff import checkpoint, data, metrics, phases, tokenizer
from jobs.textdiff import config as configs
from jobs.textdiff.config import Config
from jobs.textdiff.data import LABELS, Dataset
from jobs.textdiff.errors import ConfigError, JobError, TrainingError
from jobs.textdiff.phases import Job, Start
from jobs.textdiff.tokenizer import Tokenizer

MAX_THREADS = 2
CANARY = {"steps": 5, "batch": 16, "examples": 16, "draws": 2}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the run's host gave it."""

    config: Path
    results: Path
    data: Path | None
    device: torch.device


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="jobs.textdiff.pipeline")
    parser.add_argument("--canary", action="store_true", help="a few steps of everything")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _leave)
    torch.set_num_threads(min(MAX_THREADS, torch.get_num_threads()))  # OMP_NUM_THREADS may say 1
    try:
        run(surroundings(env), canary=args.canary, clock=time.monotonic, say=_say)
    except JobError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def surroundings(env: Mapping[str, str]) -> Surroundings:
    """From the run's environment; ConfigError names a variable that is missing."""
    for name in ("ORCH_CONFIG", "ORCH_RESULTS_DIR"):
        if not env.get(name):
            raise ConfigError(f"{name} is not set; whoever starts a run sets it")
    folder = env.get("ORCH_DATA")
    return Surroundings(
        Path(env["ORCH_CONFIG"]),
        Path(env["ORCH_RESULTS_DIR"]),
        Path(folder) if folder else None,
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )


def run(
    around: Surroundings,
    *,
    canary: bool,
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """metrics.json and predictions.jsonl are written; gives what metrics.json says."""
    began = clock()
    config = configs.load(around.config)
    results = around.results / "canary" if canary else around.results
    if canary:
        config = configs.shortened(config, **CANARY)
    job = prepare(config, around, results, clock=clock, say=say)
    with contextlib.closing(job.reporter):
        final = _carried_out(job)
    final["seconds"] = {name: round(spent, 2) for name, spent in job.reporter.seconds.items()}
    final["seconds"] |= {"total": round(clock() - began, 2)}
    metrics.write_json(results / "metrics.json", final)
    _conclude(final, say)
    return final


def prepare(
    config: Config,
    around: Surroundings,
    results: Path,
    *,
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> Job:
    """Data read, vocabulary built, work planned; the log says with what the run begins."""
    dataset = data.load(config, around.data)
    words = _vocabulary(config, dataset)
    evaluated = data.sample(dataset.split(config.eval.split), config.eval.max_examples, config.seed)
    reporter = metrics.Reporter(
        results, _plan(config, words, dataset, evaluated), clock=clock, say=say
    )
    job = Job(config, dataset, words, evaluated, results, around.device, say, reporter)
    size = sum(weight.numel() for weight in job.fresh_model().parameters())
    say(
        f"{dataset.name}: {len(dataset.train)} training texts ({dataset.dropped} dropped: also in "
        f"dev or test), {len(evaluated)} {config.eval.split} texts, {len(words.words)} words"
    )
    say(f"model: {size:,} parameters on {around.device}, torch {torch.__version__}")
    return job


def _carried_out(job: Job) -> dict[str, Any]:
    start = phases.pretrained(job)
    models = [phases.fine_tuned(job, start, label) for label in range(len(LABELS))]
    weights = [checkpoint.digest(model.state_dict()) for model in models]
    if len(set(weights)) < len(weights):
        raise TrainingError(f"the classes' models are the same weights ({weights[0][:12]})")
    return phases.evaluated(job, models) | about(job, start, weights)


def about(job: Job, start: Start, weights: Sequence[str]) -> dict[str, Any]:
    """What the numbers were made with."""
    config = job.config
    return {
        "weights_sha256": dict(zip(LABELS, weights, strict=True)),
        "draws": config.eval.draws,
        "estimator": config.eval.estimator,
        "split": config.eval.split,
        "data": job.dataset.name,
        "train_texts": len(job.dataset.train),
        "dropped_from_train": job.dataset.dropped,
        "vocabulary": len(job.words.words),
        "vocabulary_sha256": job.words.sha256,
        "parameters": sum(weight.numel() for weight in job.fresh_model().parameters()),
        "pretrained": {"source": start.source, "share_loaded": start.share},
        "device": str(job.device),
        "torch": torch.__version__,
    }


def _vocabulary(config: Config, dataset: Dataset) -> Tokenizer:
    """Built on train; with a named checkpoint: the checkpoint's, whose rows it gives meaning."""
    if config.pretrain.checkpoint is not None:
        words = checkpoint.read(Path(config.pretrain.checkpoint)).words
        return Tokenizer(words, config.model.length)
    return tokenizer.build(
        dataset.train.texts,
        vocab_size=config.data.vocab_size,
        min_count=config.data.min_count,
        length=config.model.length,
    )


def _plan(
    config: Config, words: Tokenizer, dataset: Dataset, evaluated: data.Split
) -> list[metrics.Phase]:
    """Work in tokens passed forward; a training step counts three times (there and back)."""
    some = dataset.train.texts[:1000]
    length = sum(map(len, words.encode_all(some))) / max(1, len(some))
    step = 3 * length * config.loader.global_batch_size
    pretrain = 0 if config.pretrain.checkpoint else config.pretrain.steps
    tokens = sum(map(len, words.encode_all(evaluated.texts)))
    return [
        metrics.Phase("pretrain", pretrain * step),
        *(metrics.Phase(f"train:{name}", config.training.max_steps * step) for name in LABELS),
        metrics.Phase("eval", len(LABELS) * config.eval.draws * tokens),
    ]


def _conclude(final: Mapping[str, Any], say: Callable[[str], None]) -> None:
    low, high = final["accuracy_interval"]
    say(
        f"accuracy {final['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%}) on {final['n']} "
        f"texts; always the majority: {final['majority_accuracy']:.1%}; ties {final['ties']}"
    )
    if "bayes_accuracy" in final:
        say(
            f"the best there can be: {final['bayes_accuracy']:.1%} expected, "
            f"{final['bayes_accuracy_here']:.1%} on these texts"
        )


def _say(line: str) -> None:
    print(line, flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    # os.write: the signal may have interrupted a print, whose buffer cannot be entered twice.
    os.write(1, b"stopped by a signal; finished phases have left their checkpoints\n")
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
