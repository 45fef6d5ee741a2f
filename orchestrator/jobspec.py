"""A job spec as types: `jobs/<name>.yaml`, read and resolved. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GRACE, GRACE_MAX = 10.0, 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Stage:
    """One command of a job. `argv` is executed as it is; a string became `("sh", "-c", text)`."""

    name: str
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReferenceFile:
    path: str  # relative to the project root, or to `repo`
    at: str | None = None  # the dotted key under which the file's content belongs
    repo: str | None = None  # a local clone: the file as it is in `commit`
    commit: str | None = None
    overrides: tuple[str, ...] = ()  # as on Hydra's command line

    @property
    def shown(self) -> str:
        return f"{self.repo}@{self.commit}:{self.path}" if self.repo else self.path


@dataclass(frozen=True, slots=True)
class Reference:
    files: tuple[ReferenceFile, ...]
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    waive: Mapping[str, str] = field(default_factory=dict)  # dotted key -> reason


@dataclass(frozen=True, slots=True)
class Rule:
    """A relation the config must keep, as an expression over its keys."""

    text: str
    why: str | None = None
    waive: str | None = None  # the reason for which a breach is let pass


@dataclass(frozen=True, slots=True)
class Resources:
    gpus_min: int = 0
    gpus_max: int = 0
    gpu_memory: int | None = None  # bytes
    disk: int | None = None  # bytes
    time: float | None = None  # seconds
    grace: float = GRACE  # seconds between TERM and KILL


@dataclass(frozen=True, slots=True)
class DataSource:
    """Data a job reads: sent by content (`source`, unexpanded) or already on the host (`at`)."""

    name: str
    source: str | None = None
    at: str | None = None
    when: Mapping[str, Any] = field(default_factory=dict)  # dotted config key -> required value


@dataclass(frozen=True, slots=True)
class Bound:
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier run's accuracy, as it was when the new run was submitted."""

    run_id: str
    accuracy: float
    n: int | None = None  # examples


@dataclass(frozen=True, slots=True)
class Expect:
    metrics: Mapping[str, Bound] = field(default_factory=dict)
    predictions: str | None = None  # "not-degenerate" | "any" | None
    against: str | None = None  # "best", or what names a run
    tolerance: float = 0.0
    baseline: Baseline | None = None  # what `against` meant at submit
    same: tuple[str, ...] = ()  # config keys, or what lies above them, of comparable runs


@dataclass(frozen=True, slots=True)
class Retry:
    """After which ends a run goes on by itself, and how many attempts may follow the first."""

    on: tuple[str, ...] = ()  # lost | oom
    exits: tuple[int, ...] = ()
    max: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file the job starts from, and the model it must fit."""

    file: str  # in the project, or on the host
    on_host: bool
    model_file: str | None = None  # a listing, or another checkpoint
    model_command: tuple[str, ...] = ()  # prints the listing
    model_on_host: bool = False  # it runs there, in the job's environment
    least: float = 1.0  # share of the model's parameters that must load
    root: str | None = None  # where in the file the state dict is
    strip: str | None = None
    add: str | None = None
    waive: str | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """A short command that must go well on the host before the run itself is started."""

    argv: tuple[str, ...]
    time: float  # seconds
    metrics_file: str | None = None  # None: the job's own
    expect: Expect = Expect()
    scale: str | None = None  # over the config: how many times as long the run itself takes


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job as one run would execute it: profile and overrides applied, every default filled."""

    name: str
    path: Path
    stages: tuple[Stage, ...]  # in an order that respects `needs`
    config: Mapping[str, Any]
    description: str = ""
    profile: str | None = None
    profiles: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    volatile: tuple[str, ...] = ()  # dotted config keys left out of the hash
    reference: Reference | None = None
    rules: tuple[Rule, ...] = ()
    resources: Resources = Resources()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    data: tuple[DataSource, ...] = ()
    requirements: str | None = None  # setup.requirements, relative to the project root
    results_dir: str = "results"
    results_exclude: tuple[str, ...] = ()
    metrics_file: str = "results/metrics.json"
    metrics_primary: str = "accuracy"
    metrics_declared: bool = False  # the spec names `metrics` or `expect`: a metrics file is owed
    expect: Expect = Expect()
    guards: tuple[Mapping[str, Any], ...] = ()  # in the form their host takes
    notify: Mapping[str, Any] | None = None
    checkpoint: Checkpoint | None = None
    canary: Canary | None = None
    retry: Retry | None = None
