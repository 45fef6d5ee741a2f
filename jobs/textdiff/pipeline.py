"""The job: pretrain, fine-tune, compare the classes on unseen texts.

    python -m jobs.textdiff.pipeline            the whole job
      --canary      a few steps of everything, results in canary/
      --pretrain    pretrain only; its checkpoint is the result
      --lenient     keys that the published code falls back for may be missing in the config

Reads $ORCH_CONFIG and, for real data, $ORCH_DATA; writes config.resolved.json, metrics.jsonl,
metrics.json, predictions.jsonl and checkpoints/ under $ORCH_RESULTS_DIR. Started again with the
same results folder, it goes on from its newest checkpoint. SIGTERM, Ctrl-C: the state is saved,
exit code 143, 130. Other exit codes: see `errors`. Under torchrun every process takes a share of
each batch.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jobs.textdiff import config as configs
from jobs.textdiff import (
    data,
    earlier,
    errors,
    files,
    metrics,
    parallel,
    phases,
    pretrained,
    sources,
    tokenizer,
    verdict,
)
from jobs.textdiff.config import Config
from jobs.textdiff.data import Dataset
from jobs.textdiff.errors import ConfigError, DataError
from jobs.textdiff.metrics import Console
from jobs.textdiff.parallel import World
from jobs.textdiff.phases import Job
from jobs.textdiff.signals import STOPPED, Signals
from jobs.textdiff.tokenizer import Tokenizer
from jobs.textdiff.train import Stopped, memory_mb

MAX_THREADS = 2
MOST_MODELS = 100
FEW_TEXTS = 20
CANARY = {"steps": 5, "batch": 16, "examples": 16, "draws": 2}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the run's host gave it."""

    config: Path
    results: Path
    data: Path | None
    world: World
    attempt: int = 1  # above 1: the run was resumed


@dataclass(frozen=True, slots=True)
class Mode:
    canary: bool = False
    pretrain: bool = False
    lenient: bool = False


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="jobs.textdiff.pipeline")
    for name in ("canary", "pretrain", "lenient"):
        parser.add_argument(f"--{name}", action="store_true")
    args = parser.parse_args(argv)
    first = parallel.rank_of(env) == "0"  # of the processes that torchrun started
    signals = Signals(speaks=first)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signals.handle)
    torch.set_num_threads(min(MAX_THREADS, torch.get_num_threads()))  # OMP_NUM_THREADS may say 1
    console = metrics.Console(sys.stdout, silent=not first)
    try:
        around = surroundings(env)
        run(around, Mode(**vars(args)), signals, clock=time.monotonic, console=console)
        parallel.leave(around.world)
    except Stopped:
        console.say(STOPPED)
        return 128 + (signals.number or signal.SIGTERM)  # 0: another process was asked
    except Exception as error:
        told = errors.in_one_line(error, Path(env.get("ORCH_RESULTS_DIR", ".")))
        if told is None:
            raise
        if first or isinstance(error, errors.PlaceError) or not isinstance(error, errors.ALIKE):
            where = "" if first else f"process {env['RANK']}: "
            metrics.Console(sys.stderr).say(f"error: {where}{told[0]}")
        return told[1]
    return 0


def surroundings(env: Mapping[str, str]) -> Surroundings:
    """From the run's environment; ConfigError names a variable that is missing."""
    for name in ("ORCH_CONFIG", "ORCH_RESULTS_DIR"):
        if not env.get(name):
            raise ConfigError(f"{name} is not set; whoever starts a run sets it")
    attempt = env.get("ORCH_ATTEMPT") or "1"
    if not (attempt.isascii() and attempt.isdigit()):
        raise ConfigError(f"ORCH_ATTEMPT: {attempt[:40]!r} is no number of an attempt: 1, 2, ...")
    folder = env.get("ORCH_DATA")
    return Surroundings(
        Path(env["ORCH_CONFIG"]),
        Path(env["ORCH_RESULTS_DIR"]),
        Path(folder) if folder else None,
        parallel.world(env),
        int(attempt),
    )


def run(
    around: Surroundings,
    mode: Mode,
    signals: Signals,
    *,
    clock: Callable[[], float],
    console: Console,
) -> dict[str, Any]:
    """metrics.json and what belongs to it are written; gives what metrics.json says."""
    began = clock()
    config, filled = configs.load(around.config, lenient=mode.lenient)
    if mode.pretrain:
        _check_pretrains(config)
    for line in filled:
        console.say(f"warning: {line}")
    results = around.results / "canary" if mode.canary else around.results
    if mode.canary:
        config = configs.shortened(config, **CANARY)
    else:
        signals.kept = lambda: any((results / earlier.CHECKPOINTS).glob("*.pt"))
    reporter = metrics.Reporter(
        results if around.world.first else None, clock=clock, show=console.show
    )
    job = prepare(config, replace(around, results=results), mode, signals, reporter, console.say)
    _begin(job, mode, around.attempt)
    with contextlib.closing(reporter):
        final = _pretrained_only(job) if mode.pretrain else _carried_out(job)
    final["seconds"] = {name: round(spent, 2) for name, spent in job.reporter.seconds.items()}
    final["seconds"] |= {"total": round(job.reporter.earlier + clock() - began, 2)}
    final["tokens_per_s"] = {k: round(v, 1) for k, v in job.reporter.rates("tokens").items()}
    if around.world.peak is not None:
        whole = around.world.peak * around.world.size
        final["mfu"] = {k: round(v / whole, 4) for k, v in job.reporter.rates("flops").items()}
    final["memory_mb"] = round(memory_mb(around.world.device), 1)
    if around.world.first:
        if mode.canary:  # they were written to see that they can be; they are of no use
            shutil.rmtree(job.folder, ignore_errors=True)
        files.write_json(results / "metrics.json", final)
    _conclude(final, console.say)
    return final


def prepare(
    config: Config,
    around: Surroundings,
    mode: Mode,
    signals: Signals,
    reporter: metrics.Reporter,
    say: Callable[[str], None],
) -> Job:
    """Data read, vocabulary built; nothing written, nothing trained."""
    dataset = data.load(config.data, config.seed, around.data)
    _check_models(config, dataset)
    start, words = _start(config, dataset, around.data)
    more: tuple[str, ...] = ()
    if config.pretrain.texts is not None and start is None:
        more = data.more_texts(config.data, config.pretrain.texts, around.data, dataset)
    judged = dataset.split(config.eval.split)
    return Job(
        config=config,
        dataset=dataset,
        unlabelled=more,
        tokenizer=words,
        start=start,
        evaluated=data.sample(judged, config.eval.max_examples, config.seed),
        results=around.results,
        world=around.world,
        say=say,
        reporter=reporter,
        resumes=not mode.canary,
        stopping=lambda: signals.asked,
        deferred=signals.deferred,
    )


def _begin(job: Job, mode: Mode, attempt: int) -> None:
    """The results folder is this job's, the work is planned, the resolved config dumped."""
    if job.resumes:
        earlier.check_same(job.results, job.config, job.digest)
        if attempt > 1:
            earlier.check_resume(job.results, job.config, job.say)
    job.world.wait()  # until all have looked
    job.reporter.plan(_plan(job, mode))
    facts = about(job) | {"device": parallel.named(job.world), "processes": job.world.size}
    if job.world.first:
        earlier.sweep(job.results)
        resolved = {"config": dataclasses.asdict(job.config), "facts": facts}
        resolved |= {"weights_follow_from": job.digest}
        files.write_json(job.results / earlier.RESOLVED, resolved)
    _introduce(job, facts)


def about(job: Job) -> dict[str, Any]:
    """What the numbers are made with."""
    config, dataset = job.config, job.dataset
    network = job.fresh_model(classes=True)
    return {
        "draws": config.eval.draws,
        "estimator": "exact" if config.model.exact else config.eval.estimator,
        "weights": config.eval.weights,
        "prior": "uniform",
        "architecture": config.model.architecture,
        "classes": config.model.classes,
        "split": config.eval.split,
        "data": dataset.name,
        "train_texts": len(dataset.train),
        "unlabelled_texts": len(job.unlabelled),
        "dropped_from_train": dataset.dropped,
        "dropped_from_dev": dataset.dropped_dev,
        "cut_texts": job.tokenizer.cut(job.evaluated.texts),
        "tokenizer": job.tokenizer.kind,
        "vocabulary": job.tokenizer.size,
        "vocabulary_sha256": job.tokenizer.sha256,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "device": str(job.world.device),
        "torch": torch.__version__,
    }


def _carried_out(job: Job) -> dict[str, Any]:
    start = phases.pretrain(job)
    done = phases.fine_tune(job, start)
    raw = job.config.eval.weights == "raw"
    judge = phases.classifier(job, done, raw=raw)
    told = phases.told_classes(job, done)
    weights = judge.digests(told)
    if untold := [name for label, name in enumerate(judge.labels) if label not in told]:
        job.say(f"warning: these steps of training were too few to learn {sources.some(untold)}")
    final = verdict.main_row(job, judge)
    if job.config.model.architecture == configs.GPT2_BOTH_WAYS:
        final["variants"] |= verdict.onwards_row(job, done, raw=raw)
    if job.config.class_likelihood.steps:
        apart = phases.tell_classes_apart(job, done[0], raw=raw)
        final["variants"] |= verdict.class_likelihood_row(job, apart, raw=raw)
    if job.config.eval.table:
        final["table"] = verdict.table(job, done)
    return final | about(job) | {"weights_sha256": weights, "pretrained": start.about()}


def _pretrained_only(job: Job) -> dict[str, Any]:
    start = phases.pretrain(job)
    network = job.fresh_model()
    network.load_state_dict(dict(start.weights or {}))
    found = phases.of_one_model(job, "pretrain")(network.state_dict())
    return {**found, "pretrained": start.about()} | about(job)


def _check_pretrains(config: Config) -> None:
    if config.pretrain.checkpoint is not None:
        raise ConfigError(
            "config pretrain.checkpoint: must be null for pretraining alone, which trains a start "
            f"of its own; with {config.pretrain.checkpoint} there would be nothing to train"
        )
    if not config.pretrain.steps:
        raise ConfigError("config pretrain.steps: must be at least 1 for pretraining alone")


def _check_models(config: Config, dataset: Dataset) -> None:
    classes = len(dataset.labels)
    if config.model.classes == "separate" and classes > MOST_MODELS:
        raise DataError(
            f"{dataset.name}: {classes} classes ({sources.some(dataset.labels)}) would be as many "
            f"models, at most {MOST_MODELS} are trained: does data.label name the right column? "
            "model.classes added trains one for all"
        )


def _start(
    config: Config, dataset: Dataset, folder: Path | None
) -> tuple[pretrained.Found | None, Tokenizer]:
    """The named checkpoint, if any, and the tokenizer: its own, or the one the config says.

    Words of the texts without labels do not count: in a vocabulary of limited size they would take
    the places of words that tell the classes apart.
    """
    if config.pretrain.checkpoint is None:
        texts = dataset.train.texts
        return None, tokenizer.make(config.data, texts, config.model.length, folder)
    found = pretrained.read(sources.locate(config.pretrain.checkpoint, folder))
    if found.tokenizer is not None:
        kind, content = found.tokenizer
        if kind != config.data.tokenizer:
            raise ConfigError(
                f"config data.tokenizer: {config.data.tokenizer}, but {config.pretrain.checkpoint} "
                f"was made with {kind}"
            )
        return found, tokenizer.restored(kind, content, config.model.length)
    if config.data.tokenizer != "gpt2":
        raise ConfigError(
            f"config data.tokenizer: a checkpoint in the layout {found.layout} needs gpt2, "
            f"not {config.data.tokenizer}"
        )
    return found, tokenizer.make(config.data, (), config.model.length, folder)


def _plan(job: Job, mode: Mode) -> list[metrics.Phase]:
    """Work in tokens passed forward; a training step counts three times (there and back)."""
    config, labels, texts = job.config, job.dataset.labels, job.dataset.train.texts
    each = 3 * config.loader.global_batch_size
    found = []
    if config.pretrain.steps and job.start is None:
        step = each * _mean_length(job.tokenizer.pieces, texts + job.unlabelled)
        found.append(metrics.Phase("pretrain", config.pretrain.steps * step))
    if mode.pretrain:
        return found
    step = each * _mean_length(job.tokenizer.encode_all, texts)
    names = ["train"] if job.conditional else [f"train:{name}" for name in labels]
    found += [metrics.Phase(name, config.training.max_steps * step) for name in names]
    evals = verdict.work(job)
    if config.class_likelihood.steps:
        after = step * len(labels) * config.class_likelihood.steps
        place = next(i for i, p in enumerate(evals) if p.name == "eval:class-likelihood")
        evals.insert(place, metrics.Phase(phases.CLASS_LIKELIHOOD, after))
    return found + evals


def _mean_length(encode: Callable[[Sequence[str]], list[list[int]]], texts: Sequence[str]) -> float:
    """In tokens, of what `encode` makes of some texts from everywhere among them."""
    found = encode(texts[:: 1 + len(texts) // 1000])
    return sum(map(len, found)) / max(1, len(found))


def _introduce(job: Job, facts: Mapping[str, Any]) -> None:
    job.say(
        f"{facts['data']}: {facts['train_texts']} training texts ({facts['dropped_from_train']} "
        f"dropped: also in dev or test), {len(job.evaluated)} {facts['split']} texts "
        f"({facts['cut_texts']} longer than {job.config.model.length} tokens, cut), "
        f"{facts['vocabulary']} {facts['tokenizer']} tokens"
    )
    train, dev = (Counter(split.labels) for split in (job.dataset.train, job.dataset.dev))
    few = [name for label, name in enumerate(job.dataset.labels) if train[label] < FEW_TEXTS]
    if few:
        job.say(f"warning: fewer than {FEW_TEXTS} training texts of {sources.some(few)}")
    lacking = [name for label, name in enumerate(job.dataset.labels) if not dev[label]]
    if lacking and job.config.eval.calibrate:
        job.say(f"warning: nothing is calibrated, dev has no text of {sources.some(lacking)}")
    job.say(
        f"model: {facts['parameters']:,} parameters on {facts['device']}, torch {facts['torch']}"
    )


def _conclude(final: Mapping[str, Any], say: Callable[[str], None]) -> None:
    if "accuracy" not in final:
        say(f"validation: {final['val_nelbo']:.4f} nats per token")
        return
    low, high = final["accuracy_interval"]
    say(
        f"accuracy {final['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%}) on {final['n']} "
        f"texts; always the majority: {final['majority_accuracy']:.1%}; ties {final['ties']}"
    )
    for name, row in final["variants"].items():
        say(f"{name}: {row['accuracy']:.1%}")
    if "bayes_accuracy" in final:
        say(
            f"the best there can be: {final['bayes_accuracy']:.1%} expected, "
            f"{final['bayes_accuracy_here']:.1%} on these texts"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
