"""The parts of the job, in order: pretrain, fine-tune a class, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.textdiff import checkpoint, data, evaluate, metrics, selfmade
from jobs.textdiff.config import Config
from jobs.textdiff.data import LABELS, Dataset
from jobs.textdiff.model import Denoiser, shape_of
from jobs.textdiff.tokenizer import Tokenizer
from jobs.textdiff.train import Schedule, StepReport, fit


@dataclass(frozen=True, slots=True)
class Job:
    """Everything the phases need, decided before the first of them."""

    config: Config
    dataset: Dataset
    words: Tokenizer
    evaluated: data.Split
    results: Path
    device: torch.device
    say: Callable[[str], None]
    reporter: metrics.Reporter

    def fresh_model(self) -> Denoiser:
        """The same random start for the same seed."""
        torch.manual_seed(self.config.seed)
        config = self.config.model
        return Denoiser(shape_of(config), self.words.model_size, config.dropout).to(self.device)


@dataclass(frozen=True, slots=True)
class Start:
    """The weights each class starts from; None: its own random start."""

    weights: Mapping[str, Tensor] | None
    source: str
    share: float | None  # of the model's numbers that come from the checkpoint


def pretrained(job: Job) -> Start:
    """The start of every class: a named checkpoint, or one trained here on all texts, unlabelled.

    Either way it is read back from disk and must fit the model in full.
    """
    settings = job.config.pretrain
    if settings.checkpoint is None and settings.steps == 0:
        return Start(None, "none", None)
    path = Path(settings.checkpoint or job.results / "checkpoints" / "pretrained.pt")
    model = job.fresh_model()
    if settings.checkpoint is None:
        schedule = Schedule(settings.steps, settings.lr, settings.num_warmup_steps)
        weights = _fit(job, model, job.dataset.train.texts, schedule, "pretrain")
        checkpoint.save(path, checkpoint.Checkpoint(weights, job.words.words))
    found = checkpoint.read(path)
    share = checkpoint.load_into(model, found.weights).share
    job.say(f"start: {share:.1%} of the model's numbers come from {path.name}")
    return Start(found.weights, "own" if settings.checkpoint is None else "checkpoint", share)


def fine_tuned(job: Job, start: Start, label: int) -> Denoiser:
    """A model of one class's texts, its averaged weights in place and saved."""
    model = job.fresh_model()
    if start.weights is not None:
        checkpoint.load_into(model, start.weights)
    config, name = job.config, LABELS[label]
    schedule = Schedule(
        config.training.max_steps, config.optim.lr, config.lr_scheduler.num_warmup_steps
    )
    texts = job.dataset.train.of_class(label)
    weights = _fit(job, model, texts, schedule, f"train:{name}")
    checkpoint.load_into(model, weights)
    path = job.results / "checkpoints" / f"{name}.pt"
    checkpoint.save(path, checkpoint.Checkpoint(weights, job.words.words))
    return model


def evaluated(job: Job, models: Sequence[Denoiser]) -> dict[str, Any]:
    """predictions.jsonl is written; gives the evaluation's part of metrics.json."""
    config, texts = job.config, job.evaluated
    report = job.reporter.phase("eval")
    ids = job.words.encode_all(texts.texts)
    scored = evaluate.score(
        models,
        ids,
        config,
        mask_id=job.words.mask_id,
        report=lambda done: report(done / len(texts), texts=done),
    )
    decisions = evaluate.decide(scored, config.seed)
    metrics.write_lines(
        job.results / "predictions.jsonl",
        (
            {
                "row": row,
                "label": LABELS[true],
                "predicted": LABELS[decision.predicted],
                "nelbo": list(text.scores),
                "gap": text.gap,
                "gap_se": text.gap_se,
                "tie": decision.tie,
                "tokens": text.tokens,
            }
            for row, (text, decision, true) in enumerate(
                zip(scored, decisions, texts.labels, strict=True)
            )
        ),
    )
    final = evaluate.summary(scored, decisions, texts.labels, LABELS)
    return final | bayes(job.dataset.grammar, texts)


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


def _fit(
    job: Job, model: Denoiser, texts: Sequence[str], schedule: Schedule, phase: str
) -> Mapping[str, Tensor]:
    report = job.reporter.phase(phase)

    def on_step(step: StepReport) -> None:
        report(step.step / schedule.steps, loss=step.loss, lr=step.lr, phase_step=step.step)

    return fit(
        model,
        job.words.encode_all(texts),
        job.config,
        schedule,
        mask_id=job.words.mask_id,
        seed=f"{job.config.seed}:{phase}",
        report=on_step,
    )
