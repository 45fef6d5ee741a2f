"""The config of a run as typed values: what JSON says, checked once, before anything is loaded.

Key names are those of the published MDLM and BD3-LM configurations where these have one
(`training.ema`, `lr_scheduler.num_warmup_steps`, `loader.global_batch_size`, ...), so that a
reference file can be compared key by key. One schema serves every job; see `typed` for how strict.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.textdiff import typed
from jobs.textdiff.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Data:
    name: str  # selfmade | sst2 | imdb | files | hub
    train: str | None  # files: TSV, CSV or JSONL, also .gz or .xz; relative paths: in $ORCH_DATA
    dev: str | None  # files: null cuts `dev_examples` off train
    test: str | None
    text: str  # files, hub: names of the columns
    label: str
    hub: str | None  # hub: a data set's name there, for the package `datasets`
    phrases: bool  # sst2 only: train on the labelled phrases beside the sentences
    max_train: int | None  # at most so many training texts, taken after the seeded shuffle
    selfmade_train: int
    selfmade_test: int
    dev_examples: int  # size of the dev split where the data brings none
    tokenizer: str  # words | bpe (both built on train) | gpt2 (from $ORCH_DATA/gpt2-bpe)
    vocab_size: int  # words, bpe: at most so many, special tokens not counted
    min_count: int  # words, bpe: what is seen less often in training is not in the vocabulary


@dataclass(frozen=True, slots=True)
class Model:
    architecture: str  # mdlm | gpt2 | gpt2-both-ways
    classes: str  # separate: a model a class; added, adaln: one model, where its class vector goes
    size: str  # tiny | small | medium; the four below override it when not null
    length: int  # tokens; longer texts lose their middle
    hidden_size: int | None
    cond_dim: int | None
    n_blocks: int | None
    n_heads: int | None
    dropout: float
    head_init: str = "zero"  # zero, as published; uniform: as torch starts a linear layer

    @property
    def exact(self) -> bool:
        """A causal model: its likelihood takes no draws."""
        return self.architecture != "mdlm"


@dataclass(frozen=True, slots=True)
class Noise:
    # loglinear: each token alone; uniform: exactly k of L tokens, k uniform in 1..L; unweighted:
    # the same masks, and in training the loss without the bound's weight
    type: str
    eps: float  # loglinear: the share of tokens that stays visible at t = 1

    @property
    def counted(self) -> bool:
        return self.type != "loglinear"


@dataclass(frozen=True, slots=True)
class Training:
    ema: float
    antithetic_sampling: bool  # the field's name; what it does is stratify t over the batch
    sampling_eps_min: float
    sampling_eps_max: float
    max_steps: int  # optimizer steps of each class's model; of the one model, if there is one


@dataclass(frozen=True, slots=True)
class Scheduler:
    name: str  # constant_warmup
    num_warmup_steps: int


@dataclass(frozen=True, slots=True)
class Optim:
    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class Trainer:
    gradient_clip_val: float
    precision: str  # bf16 (autocast on a GPU, fp32 elsewhere) | fp32
    checkpoint_minutes: float
    validate_minutes: float
    validate_texts: int  # of dev


@dataclass(frozen=True, slots=True)
class Loader:
    global_batch_size: int  # texts per step, over all processes


@dataclass(frozen=True, slots=True)
class Pretrain:
    steps: int  # 0: no pretraining
    texts: str | None  # more texts without labels: a file or folder, relative paths: in $ORCH_DATA
    checkpoint: str | None  # to start from instead; relative paths: in $ORCH_DATA
    strict: bool  # false: whatever fits of the checkpoint is loaded
    waive_keys: tuple[str, ...]  # with strict: what may be missing, unexpected or of another shape
    lr: float
    num_warmup_steps: int


@dataclass(frozen=True, slots=True)
class ClassLikelihood:
    """Training on -log p(class | text) after the generative one; its result is a row of its own."""

    steps: int  # 0: none; needs model.classes added or adaln
    lr: float
    generative: float  # weight of the generative loss beside it


@dataclass(frozen=True, slots=True)
class Eval:
    draws: int  # noise draws per text and class, at most
    round: int  # draws per round; divides `draws`
    stop_z: float  # a text is done when its gap is beyond z standard errors; 0: never
    estimator: str  # shared | independent; gpt2's likelihood is exact, without draws
    weights: str  # ema | raw
    calibrate: bool  # also weigh the noise levels as dev says; a row of its own, not on dev itself
    table: bool  # also {raw, ema} x {independent, shared with 1, 8, 32 draws}, each a row
    split: str  # test | dev; choose settings on dev only
    max_examples: int | None  # at most so many, taken after a seeded shuffle
    batch_tokens: int  # tokens of one forward pass


@dataclass(frozen=True, slots=True)
class Config:
    seed: int
    T: int  # 0: continuous time
    parameterization: str  # subs
    time_conditioning: bool
    data: Data
    model: Model
    noise: Noise
    training: Training
    lr_scheduler: Scheduler
    optim: Optim
    trainer: Trainer
    loader: Loader
    pretrain: Pretrain
    class_likelihood: ClassLikelihood
    eval: Eval


# What the published code falls back to where these are missing (bd3lms, commit 1c3e8f4,
# diffusion.py `_loss` without buffers; mdlm never reads them). Used only when asked for by name.
FALLBACKS = {("training", "sampling_eps_min"): 1e-3, ("training", "sampling_eps_max"): 1.0}

GPT2_BOTH_WAYS = "gpt2-both-ways"
CHOICES = {
    "data.name": ("selfmade", "sst2", "imdb", "files", "hub"),
    "data.tokenizer": ("words", "bpe", "gpt2"),
    "model.architecture": ("mdlm", "gpt2", GPT2_BOTH_WAYS),
    "model.classes": ("separate", "added", "adaln"),
    "model.size": ("tiny", "small", "medium"),
    "model.head_init": ("zero", "uniform"),
    "noise.type": ("loglinear", "uniform", "unweighted"),
    "lr_scheduler.name": ("constant_warmup",),
    "trainer.precision": ("bf16", "fp32"),
    "eval.estimator": ("shared", "independent"),
    "eval.weights": ("ema", "raw"),
    "eval.split": ("test", "dev"),
    "parameterization": ("subs",),
    "time_conditioning": (False,),
    "T": (0,),
}
AT_LEAST_ONE = (
    "data.max_train data.selfmade_train data.selfmade_test data.dev_examples data.vocab_size "
    "data.min_count model.length model.hidden_size model.cond_dim model.n_blocks model.n_heads "
    "training.max_steps trainer.validate_texts loader.global_batch_size eval.draws eval.round "
    "eval.max_examples eval.batch_tokens"
).split()
POSITIVE = (
    "optim.lr optim.eps pretrain.lr trainer.gradient_clip_val trainer.checkpoint_minutes "
    "trainer.validate_minutes class_likelihood.lr baselines.C baselines.alpha"
).split()
NOT_NEGATIVE = (
    "optim.weight_decay pretrain.steps class_likelihood.steps class_likelihood.generative "
    "eval.stop_z"
).split()
AT_MOST = {  # beyond, some library gives up in its own way
    "data.vocab_size": 1_000_000,
    "model.length": 1_000_000,
    "model.hidden_size": 65_536,
    "model.cond_dim": 65_536,
    "model.n_blocks": 1_000,
    "eval.draws": 100_000,
}
SEEDS = 2**63
IN_UNIT = ("training.ema", "optim.beta1", "optim.beta2", "model.dropout", "noise.eps")


def load(path: Path, *, lenient: bool = False) -> tuple[Config, list[str]]:
    """The checked config in the JSON file at `path`, and a line for each key that was filled in.

    `lenient`: keys of FALLBACKS may be missing, as in the published code. Else none may.
    """
    tree = typed.read(path)
    filled = _fill(tree) if lenient else []
    return from_tree(tree), filled


def from_tree(tree: Any) -> Config:
    """A decoded JSON object as a Config; every key known, present, of its type and in its range."""
    config = typed.build(Config, tree)
    check_ranges(config)
    check_data(config.data)
    _check_schedules(config)
    _check_parts(config)
    check_unread(config, UNREAD)
    return config


def check_ranges(config: Any) -> None:
    """Choices and ranges of whichever of the known keys `config` has."""
    for key, value in typed.flat(config):
        if key in CHOICES and value not in CHOICES[key]:
            words = " | ".join(json.dumps(choice) for choice in CHOICES[key])
            raise ConfigError(f"config {key}: {json.dumps(value)} is not one of {words}")
        if value is None:
            continue
        if key in AT_LEAST_ONE and value < 1:
            raise ConfigError(f"config {key}: must be at least 1, is {value}")
        if key in AT_MOST and value > AT_MOST[key]:
            raise ConfigError(f"config {key}: must be at most {AT_MOST[key]:,}")
        if key == "seed" and not -SEEDS <= value < SEEDS:
            raise ConfigError("config seed: must be from -2**63 to 2**63 - 1")
        if key in POSITIVE and value <= 0:
            raise ConfigError(f"config {key}: must be above 0, is {value}")
        if key in NOT_NEGATIVE and value < 0:
            raise ConfigError(f"config {key}: must be at least 0, is {value}")
        if key in IN_UNIT and not 0 <= value < 1:
            raise ConfigError(f"config {key}: must be in [0, 1), is {value}")


def shortened(config: Config, *, steps: int, batch: int, examples: int, draws: int) -> Config:
    """The same model, data and recipe with next to no work: for a canary on the real host."""
    few = min(draws, config.eval.draws)
    return replace(
        config,
        training=replace(config.training, max_steps=steps),
        lr_scheduler=replace(config.lr_scheduler, num_warmup_steps=0),
        pretrain=replace(
            config.pretrain, steps=min(steps, config.pretrain.steps), num_warmup_steps=0
        ),
        class_likelihood=replace(
            config.class_likelihood, steps=min(steps, config.class_likelihood.steps)
        ),
        loader=Loader(global_batch_size=min(batch, config.loader.global_batch_size)),
        eval=replace(config.eval, draws=few, round=few, max_examples=examples, table=False),
    )


def _fill(tree: Any) -> list[str]:
    filled = []
    for (section, key), value in FALLBACKS.items():
        part = tree.get(section) if isinstance(tree, dict) else None
        if isinstance(part, dict) and key not in part:
            part[key] = value
            filled.append(f"{section}.{key} is missing; the published code falls back to {value}")
    return filled


def check_data(data: Data) -> None:
    """What the data's kind needs is there."""
    wanted = {"files": ("train", "test"), "hub": ("hub",)}
    for key in wanted.get(data.name, ()):
        if getattr(data, key) is None:
            raise ConfigError(f"config data.{key}: must be set for data.name {data.name}")


def _check_parts(config: Config) -> None:
    exact = config.model.exact
    if config.eval.draws % config.eval.round and not exact:
        raise ConfigError(
            f"config eval.round: {config.eval.round} does not divide eval.draws {config.eval.draws}"
        )
    if exact and config.model.classes == "adaln":
        raise ConfigError("config model.classes: gpt2 has no adaLN; use separate or added")
    for key in ("calibrate", "table"):
        if exact and getattr(config.eval, key):
            raise ConfigError(f"config eval.{key}: gpt2's likelihood is exact, without draws")
    for key, wanted in (
        ("eval.calibrate", config.eval.calibrate),
        ("class_likelihood.steps", config.class_likelihood.steps),
    ):
        if wanted and config.eval.estimator != "shared":
            raise ConfigError(f"config {key}: needs eval.estimator shared")
    if config.class_likelihood.steps and config.model.classes == "separate":
        raise ConfigError("config class_likelihood.steps: needs model.classes added or adaln")
    if config.eval.calibrate and config.eval.stop_z:
        raise ConfigError(
            "config eval.stop_z: must be 0 with eval.calibrate, which needs all draws"
        )


def _exact(config: Config) -> str:
    return f"model.architecture {config.model.architecture}" if config.model.exact else ""


def _without_levels(config: Config) -> str:
    by_noise = config.eval.estimator == "independent" or config.eval.table
    counted = config.noise.counted and not by_noise
    return _exact(config) or (f"noise.type {config.noise.type}" if counted else "")


def _unless(*names: str) -> Callable[[Any], str]:
    return lambda config: "" if config.data.name in names else f"data.name {config.data.name}"


def _without_a_column(config: Any) -> str:
    pretrain = getattr(config, "pretrain", None)  # baselines have none
    return "" if pretrain and pretrain.texts else _unless("files", "hub")(config)


def _without_a_checkpoint(config: Config) -> str:
    return "" if config.pretrain.checkpoint else "pretrain.checkpoint null"


# Keys that not every config reads: what each holds where it is not read, the published value or
# else the specs', and what leaves it unread ("": it is read). One that was changed and does nothing
# would be hashed and compared as if it did. Not here: what a profile sets for a part or a data set
# that `--set` may leave out (pretrain.lr with pretrain.steps 0, data.selfmade_train for other
# data); whether it was changed cannot be told.
Unread = Mapping[str, tuple[Any, Callable[[Any], str]]]
UNREAD_DATA: Unread = {
    "data.train": (None, _unless("files")),
    "data.dev": (None, _unless("files")),
    "data.test": (None, _unless("files")),
    "data.hub": (None, _unless("hub")),
    "data.text": ("text", _without_a_column),
    "data.label": ("label", _unless("files", "hub")),
    "data.phrases": (True, _unless("sst2")),
}
UNREAD: Unread = {
    **UNREAD_DATA,
    "model.cond_dim": (None, _exact),
    "model.head_init": ("zero", _exact),
    "noise.type": ("loglinear", _exact),
    "noise.eps": (1e-3, _without_levels),
    "training.antithetic_sampling": (True, _exact),
    "training.sampling_eps_min": (1e-3, _without_levels),
    "training.sampling_eps_max": (1.0, _without_levels),
    "pretrain.waive_keys": ((), _without_a_checkpoint),
    "eval.draws": (1, _exact),
    "eval.round": (1, _exact),
    "eval.stop_z": (0.0, _exact),
    "eval.estimator": ("shared", _exact),
}


def check_unread(config: Any, table: Unread) -> None:
    """A key that this config does not read has the value of `table`."""
    values = dict(typed.flat(config))
    for key, (value, unread) in table.items():
        why = unread(config)
        if why and values[key] != value:
            raise ConfigError(
                f"config {key}: {json.dumps(values[key])} has no effect with {why}; leave it at "
                f"{json.dumps(value)}"
            )


def _check_schedules(config: Config) -> None:
    low, high = config.training.sampling_eps_min, config.training.sampling_eps_max
    if not 0 < low < high <= 1:
        raise ConfigError(
            "config training.sampling_eps_min, sampling_eps_max: "
            f"need 0 < min < max <= 1, are {low}, {high}"
        )
    _check_warmup(
        "lr_scheduler.num_warmup_steps",
        config.lr_scheduler.num_warmup_steps,
        "training.max_steps",
        config.training.max_steps,
    )
    if config.pretrain.steps and config.pretrain.checkpoint is None:
        _check_warmup(
            "pretrain.num_warmup_steps",
            config.pretrain.num_warmup_steps,
            "pretrain.steps",
            config.pretrain.steps,
        )


def _check_warmup(key: str, warmup: int, total_key: str, total: int) -> None:
    if warmup < 0:
        raise ConfigError(f"config {key}: must be at least 0, is {warmup}")
    if warmup >= total:
        raise ConfigError(
            f"config {key}: {warmup} is not below {total_key} {total}: "
            "the learning rate would never reach its peak"
        )
