"""The config of a run as typed values: what JSON says, checked once, before anything is loaded.

Key names are those of the published MDLM and BD3-LM configurations where these have one
(`training.ema`, `lr_scheduler.num_warmup_steps`, `loader.global_batch_size`, ...), so that a
reference file can be compared key by key. Every key is required: a default that fills a gap
silently is how an incomplete config gets trained for nine hours.
"""

from __future__ import annotations

import difflib
import json
import math
import types
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from jobs.textdiff.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    name: str  # selfmade | sst2 | imdb
    phrases: bool  # sst2 only: train on the labelled phrases beside the sentences
    max_train: int | None  # at most so many training texts, taken after the seeded shuffle
    selfmade_train: int
    selfmade_test: int
    dev_examples: int  # selfmade, imdb: size of the dev split (sst2 brings its own)
    vocab_size: int  # at most so many words, the two special tokens not counted
    min_count: int  # a word seen less often in training is <unk>


@dataclass(frozen=True, slots=True)
class Model:
    size: str  # tiny | small | medium; the four below override it when not null
    length: int  # tokens; longer texts are cut
    hidden_size: int | None
    cond_dim: int | None
    n_blocks: int | None
    n_heads: int | None
    dropout: float


@dataclass(frozen=True, slots=True)
class Noise:
    type: str  # loglinear
    eps: float  # the share of tokens that stays visible at t = 1


@dataclass(frozen=True, slots=True)
class Training:
    ema: float
    antithetic_sampling: bool  # the field's name; what it does is stratify t over the batch
    sampling_eps_min: float
    sampling_eps_max: float
    max_steps: int  # optimizer steps of each class's fine-tune


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


@dataclass(frozen=True, slots=True)
class Loader:
    global_batch_size: int  # texts per step


@dataclass(frozen=True, slots=True)
class Pretrain:
    steps: int  # 0: no pretraining
    checkpoint: str | None  # a file to start from instead; relative paths: from the code's root
    lr: float
    num_warmup_steps: int


@dataclass(frozen=True, slots=True)
class Eval:
    draws: int  # noise draws per text and class
    estimator: str  # shared | independent
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
    eval: Eval


CHOICES = {
    "data.name": ("selfmade", "sst2", "imdb"),
    "model.size": ("tiny", "small", "medium"),
    "noise.type": ("loglinear",),
    "lr_scheduler.name": ("constant_warmup",),
    "trainer.precision": ("bf16", "fp32"),
    "eval.estimator": ("shared", "independent"),
    "eval.split": ("test", "dev"),
    "parameterization": ("subs",),
    "time_conditioning": (False,),
    "T": (0,),
}
AT_LEAST_ONE = (
    "data.max_train data.selfmade_train data.selfmade_test data.dev_examples data.vocab_size "
    "data.min_count model.length model.hidden_size model.cond_dim model.n_blocks model.n_heads "
    "training.max_steps loader.global_batch_size eval.draws eval.max_examples eval.batch_tokens"
).split()
POSITIVE = ("optim.lr", "optim.eps", "pretrain.lr", "trainer.gradient_clip_val")
IN_UNIT = ("training.ema", "optim.beta1", "optim.beta2", "model.dropout", "noise.eps")


def load(path: Path) -> Config:
    """The checked config in the JSON file at `path`; ConfigError says what is wrong and where."""
    try:
        tree = json.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"config {path}: not JSON: {error}") from error
    return from_tree(tree)


def from_tree(tree: Any) -> Config:
    """A decoded JSON object as a Config; every key known, present, of its type and in its range."""
    config = _build(Config, tree, "")
    _check(config)
    return config


def shortened(config: Config, *, steps: int, batch: int, examples: int, draws: int) -> Config:
    """The same model, data and recipe with next to no work: for a canary on the real host."""
    return replace(
        config,
        training=replace(config.training, max_steps=steps),
        lr_scheduler=replace(config.lr_scheduler, num_warmup_steps=0),
        pretrain=replace(
            config.pretrain, steps=min(steps, config.pretrain.steps), num_warmup_steps=0
        ),
        loader=Loader(global_batch_size=min(batch, config.loader.global_batch_size)),
        eval=replace(config.eval, draws=min(draws, config.eval.draws), max_examples=examples),
    )


def _build(cls: type[T], tree: Any, at: str) -> T:
    if not isinstance(tree, dict):
        raise ConfigError(f"config {at or '(top)'}: expected a mapping, got {_kind(tree)}")
    hints = get_type_hints(cls)
    for key in tree:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {_join(at, near[0])}?" if near else ""
            raise ConfigError(f"config {_join(at, key)}: unknown key{hint}")
    missing = [name for name in hints if name not in tree]
    if missing:
        raise ConfigError(f"config {_join(at, missing[0])}: missing")
    return cls(**{name: _value(hints[name], tree[name], _join(at, name)) for name in hints})


def _value(kind: Any, value: Any, at: str) -> Any:
    if is_dataclass(kind):
        return _build(kind, value, at)  # type: ignore[arg-type]
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (arg for arg in get_args(kind) if arg is not type(None))
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:  # `is`: true is not 1
        raise ConfigError(f"config {at}: expected {kind.__name__}, got {_kind(value)}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"config {at}: expected a finite number, got {value}")
    return value


def _check(config: Config) -> None:
    flat = dict(_flat(config, ""))
    for key, allowed in CHOICES.items():
        if flat[key] not in allowed:
            words = " | ".join(json.dumps(choice) for choice in allowed)
            raise ConfigError(f"config {key}: {json.dumps(flat[key])} is not one of {words}")
    for key in AT_LEAST_ONE:
        if flat[key] is not None and flat[key] < 1:
            raise ConfigError(f"config {key}: must be at least 1, is {flat[key]}")
    for key in POSITIVE:
        if flat[key] <= 0:
            raise ConfigError(f"config {key}: must be above 0, is {flat[key]}")
    for key in IN_UNIT:
        if not 0 <= flat[key] < 1:
            raise ConfigError(f"config {key}: must be in [0, 1), is {flat[key]}")
    _check_schedules(config)


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
    if config.pretrain.steps < 0:
        raise ConfigError(f"config pretrain.steps: must be at least 0, is {config.pretrain.steps}")
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


def _flat(value: Any, at: str) -> list[tuple[str, Any]]:
    if not is_dataclass(value):
        return [(at, value)]
    pairs = ((_join(at, field.name), getattr(value, field.name)) for field in fields(value))
    return [leaf for key, child in pairs for leaf in _flat(child, key)]


def _join(at: str, key: object) -> str:
    return f"{at}.{key}" if at else str(key)


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    word = names.get(type(value), type(value).__name__)
    return word if isinstance(value, (dict, list)) else f"{word} ({json.dumps(value)})"
