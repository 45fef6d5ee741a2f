"""The training parts of the job, in order: pretrain, fine-tune, perhaps tell classes apart.

A part that has ended leaves its checkpoint; one that was interrupted leaves its state. A job that
is started again with the same results folder goes on from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.textdiff import (
    checkpoint,
    data,
    earlier,
    gpt2,
    metrics,
    model,
    objectives,
    pretrained,
    validation,
)
from jobs.textdiff.checkpoint import Checkpoint
from jobs.textdiff.classifier import CLASS_VECTORS, Classifier
from jobs.textdiff.config import Config
from jobs.textdiff.data import Dataset
from jobs.textdiff.objectives import Objective
from jobs.textdiff.parallel import World
from jobs.textdiff.tokenizer import Tokenizer
from jobs.textdiff.train import Hooks, Schedule, StepReport, Stopped, fit

CLASS_LIKELIHOOD = "class-likelihood"  # the phase, and its checkpoint's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything the phases need, decided before the first of them."""

    config: Config
    dataset: Dataset
    unlabelled: tuple[str, ...]  # to pretrain on, beside the training texts
    tokenizer: Tokenizer
    start: pretrained.Found | None  # of a named checkpoint
    evaluated: data.Split

    results: Path
    world: World
    say: Callable[[str], None]
    reporter: metrics.Reporter
    resumes: bool  # checkpoints in `results` are gone on from
    stopping: Callable[[], bool]
    deferred: Callable[[], AbstractContextManager[None]]  # within it a signal only sets `stopping`

    @property
    def conditional(self) -> bool:
        return self.config.model.classes != "separate"

    @property
    def folder(self) -> Path:
        return self.results / earlier.CHECKPOINTS

    @property
    def digest(self) -> str:
        """Of all that the weights follow from: config, training texts, vocabulary and start.
        Checkpoints of others are not gone on from."""
        found = hashlib.sha256(repr(earlier.of_weights(self.config)).encode())
        train = self.dataset.train
        for part in (train.texts, map(str, train.labels), self.unlabelled):
            for text in part:
                found.update(text.encode("utf8", "surrogatepass") + b"\0")
            found.update(b"\n")
        start = "" if self.start is None else checkpoint.digest(self.start.weights)
        found.update(f"{self.tokenizer.sha256} {start}".encode())
        return found.hexdigest()

    def fresh_model(self, *, classes: bool = False) -> nn.Module:
        """The same random start for the same seed; `classes`: with class vectors, if configured."""
        torch.manual_seed(self.config.seed)
        config = self.config.model
        count = len(self.dataset.labels) if classes and self.conditional else 0
        rows = self.tokenizer.rows(causal=config.exact)
        made: nn.Module
        if config.exact:
            made = gpt2.made(config, rows, count)
        else:
            shape = model.shape_of(config)
            made = model.Denoiser(
                shape, rows, config.dropout, count, config.classes, config.head_init
            )
        return made.to(self.world.device)

    def objective(self, network: nn.Module, labels: Sequence[int] | None = None) -> Objective:
        if self.config.model.exact:
            return objectives.NextToken(network, self.tokenizer, labels)
        return objectives.Diffusion(network, self.config, self.tokenizer, labels)

    def schedule(self) -> Schedule:
        warmup = self.config.lr_scheduler.num_warmup_steps
        return Schedule(self.config.training.max_steps, self.config.optim.lr, warmup)


Probe = Callable[[Mapping[str, Tensor]], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Part:
    """One training."""

    phase: str
    file: str  # of its checkpoint, without suffix
    objective: Objective
    ids: Sequence[list[int]]
    schedule: Schedule
    probe: Probe | None = None  # None: `of_one_model`


@dataclass(frozen=True, slots=True)
class Start:
    """The weights each class starts from; None: its own random start."""

    weights: Mapping[str, Tensor] | None
    source: str  # none | own | lightning | mdlm-hf | gpt2
    fit: checkpoint.Fit | None

    def about(self) -> dict[str, Any]:
        if self.fit is None:
            return {"source": self.source, "share_loaded": None}
        return {
            "source": self.source,
            "share_loaded": self.fit.share,
            "missing": list(self.fit.missing),
            "unexpected": list(self.fit.unexpected),
            "other_shape": list(self.fit.other_shape),
        }


def pretrain(job: Job) -> Start:
    """The start of every class: a named checkpoint, or one trained here on texts without labels.

    Either way it must fit the model as the config says: in full, unless keys are waived by name.
    """
    settings = job.config.pretrain
    if job.start is None and settings.steps == 0:
        return Start(None, "none", None)
    network = job.fresh_model()
    if job.start is not None:
        weights, source = job.start.weights, job.start.layout
    else:
        texts = job.dataset.train.texts + job.unlabelled
        schedule = Schedule(settings.steps, settings.lr, settings.num_warmup_steps)
        ids = job.tokenizer.pieces(texts)
        done = trained(job, Part("pretrain", "pretrained", job.objective(network), ids, schedule))
        weights, source = done.weights, "own"
    fitted = checkpoint.load_into(
        network, weights, waived=settings.waive_keys, strict=settings.strict
    )
    job.say(f"start ({source}): {fitted.share:.1%} of the model's numbers are loaded; {fitted}")
    return Start(network.state_dict(), source, fitted)


def fine_tune(job: Job, start: Start) -> list[Checkpoint]:
    """A model a class, or one for all, trained on from `start` and saved."""
    labels = job.dataset.labels
    if job.conditional:
        split = job.dataset.train
        network = begun(job, start)
        objective = job.objective(network, split.labels)
        ids = job.tokenizer.encode_all(split.texts)
        return [trained(job, Part("train", "all-classes", objective, ids, job.schedule()))]
    done: list[Checkpoint] = []
    for label, name in enumerate(labels):
        ids = job.tokenizer.encode_all(job.dataset.train.of_class(label))
        objective = job.objective(begun(job, start))
        probe = of_class(job, label, start, done)
        part = Part(f"train:{name}", f"class-{label}", objective, ids, job.schedule(), probe)
        done.append(trained(job, part))
    return done


def told_classes(job: Job, done: Sequence[Checkpoint]) -> set[int]:
    """Whose vector is no longer the zeros it began with: training has met a masked text of them.
    All, where none is, and where each has a model of its own."""
    every = range(len(job.dataset.labels))
    vectors = [w for name, w in done[0].raw.items() if name.endswith(CLASS_VECTORS)]
    return {c for c in every if any(bool(w[c].any()) for w in vectors)} or set(every)


def tell_classes_apart(job: Job, before: Checkpoint, *, raw: bool) -> Checkpoint:
    """The one model trained on by class likelihood; see `objectives.ClassLikelihood`."""
    settings, split = job.config.class_likelihood, job.dataset.train
    network = job.fresh_model(classes=True)
    checkpoint.load_into(network, before.raw if raw else before.weights)
    objective = objectives.ClassLikelihood(
        network, job.config, job.tokenizer, split.labels, len(job.dataset.labels)
    )
    schedule = Schedule(settings.steps, settings.lr, 0)
    ids = job.tokenizer.encode_all(split.texts)
    part = Part(CLASS_LIKELIHOOD, CLASS_LIKELIHOOD, objective, ids, schedule)
    return trained(job, part)


def begun(job: Job, start: Start) -> nn.Module:
    """A class's model before its first step; class vectors are new, the rest is `start`."""
    network = job.fresh_model(classes=True)
    if start.weights is not None:
        waived = [name for name in network.state_dict() if name.endswith(CLASS_VECTORS)]
        checkpoint.load_into(network, start.weights, waived=waived)
    return network


def classifier(
    job: Job, done: Sequence[Checkpoint], *, labels: Sequence[str] | None = None, raw: bool = False
) -> Classifier:
    """Models with the checkpoints' averaged (or last) weights in place."""
    models = []
    for found in done:
        network = job.fresh_model(classes=True)
        checkpoint.load_into(network, found.raw if raw else found.weights)
        models.append(network)
    return Classifier(models, labels or job.dataset.labels, job.tokenizer, job.config)


def trained(job: Job, part: Part) -> Checkpoint:
    """The part's checkpoint: the one in the folder, or one trained now, from its state if any.

    Stopped: a signal came, and the folder has what is needed to go on.
    """
    path, kept = job.folder / f"{part.file}.pt", job.folder / f"{part.file}.state.pt"
    digest = job.digest
    if job.resumes and path.exists():
        found = checkpoint.read(path)
        earlier.check_digest(path, found.config, digest)
        job.say(f"{part.phase}: done before, read from {path.name}")
        return found
    state = None
    if job.resumes and kept.exists():
        state = checkpoint.content(kept)
        earlier.check_digest(kept, state.get("config"), digest)
        job.say(f"{part.phase}: goes on after step {state['step']} of {part.schedule.steps}")
    hooks = Hooks(
        report=_reporting(job, part),
        save=lambda now: checkpoint.write(kept, {**now, "config": digest}),
        validate=part.probe or of_one_model(job, part.phase),
        stopping=job.stopping,
    )
    with job.deferred():
        averaged, last = fit(
            part.objective, part.ids, job.config, part.schedule, job.world,
            seed=_seed(job, part.phase), hooks=hooks, resume=state,
        )  # fmt: skip
        tokenizer = (job.tokenizer.kind, job.tokenizer.content)
        made = Checkpoint(averaged, last, tokenizer, digest)
        if job.world.first:
            checkpoint.save(path, made)
            kept.unlink(missing_ok=True)
        job.world.wait()
    if job.world.any(job.stopping()):
        raise Stopped
    return made


def _seed(job: Job, phase: str) -> str:
    return f"{job.config.seed}:{phase}"


def _reporting(job: Job, part: Part) -> Callable[[StepReport], None]:
    """Each step's figures, as a point of metrics.jsonl and a line on the console."""
    report, steps = job.reporter.phase(part.phase), part.schedule.steps

    def on_step(step: StepReport) -> None:
        report(
            step.step / steps,
            loss=step.loss,
            lr=step.lr,
            phase_step=step.step,
            grad_norm=step.grad_norm,
            tokens=step.tokens,
            tokens_per_s=round(step.tokens_per_s, 1),
            memory_mb=round(step.memory_mb, 1),
            **step.validation,
            **({} if step.mfu is None else {"flops": step.flops, "mfu": round(step.mfu, 4)}),
        )

    return on_step


def of_one_model(job: Job, phase: str) -> Probe:
    """What `validation` says of weights that are told the class, or, pretraining, of any text's."""
    told = phase != "pretrain"
    look = validation.of_all_classes if told else validation.of_no_class
    judge, split = _probed(job, job.dataset.labels if told else ("any",), told)
    judge = replace(judge, by_bound=phase != CLASS_LIKELIHOOD)

    def validate(weights: Mapping[str, Tensor]) -> Mapping[str, float]:
        judge.models[0].load_state_dict(dict(weights))
        return look(judge, split)

    return validate


def of_class(job: Job, label: int, start: Start, done: Sequence[Checkpoint]) -> Probe:
    """What `validation` says of one class's weights, beside the models that are `done`."""
    labels = job.dataset.labels
    judge, split = _probed(job, (labels[label],), True)
    before, every = None, None
    if start.weights is not None:
        judge.models[0].load_state_dict(dict(start.weights))
        before = validation.look(judge, split)
    if len(done) + 1 == len(labels):
        others = classifier(job, done, labels=labels[:-1])
        every = replace(judge, models=[*others.models, *judge.models], labels=labels)

    def validate(weights: Mapping[str, Tensor]) -> Mapping[str, float]:
        judge.models[0].load_state_dict(dict(weights))
        return validation.of_one_class(judge, split, label, before=before, every=every)

    return validate


def _probed(job: Job, labels: Sequence[str], told: bool) -> tuple[Classifier, data.Split]:
    network = job.fresh_model(classes=told)
    split = data.sample(job.dataset.dev, job.config.trainer.validate_texts, job.config.seed)
    return Classifier([network], labels, job.tokenizer, job.config), split
