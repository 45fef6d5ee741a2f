"""What the ledger keeps of the spec a run was made from, with the run.

Two kinds. What a result is held against (`Recorded`) may be told by anybody. What this machine does
by itself for a run (`Orders`: send secrets, start attempts, call commands) is obeyed only where the
run was submitted with this ledger. A run that was found on a host carries a mark (`Hearsay`), which
no host can set: what a host records is read by `told`, which lets through nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from orchestrator import lawful, names
from orchestrator.checks.confusion import count_of
from orchestrator.checks.outcome import beside
from orchestrator.confighash import config_hash
from orchestrator.domain import Host, Run
from orchestrator.errors import UsageError
from orchestrator.jobspec import GRACE, GRACE_MAX, Baseline, Bound, Expect, JobSpec

TEXT_MAX = 4096
FOUND = "found"  # the mark
DATA = ("expect", "metrics", "results", "volatile", "grace")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a run's result is held against, what proves its config hash, and how long it may take to
    leave."""

    expect: Expect = field(default_factory=Expect)
    metrics_file: str = "results/metrics.json"
    metrics_primary: str = "accuracy"
    metrics_declared: bool = False
    results_dir: str = "results"
    results_exclude: tuple[str, ...] = ()
    volatile: tuple[str, ...] | None = None  # None: not recorded
    grace: float = GRACE  # seconds between TERM and KILL


@dataclass(frozen=True, slots=True)
class Orders:
    """What this machine does by itself for a run."""

    secrets: tuple[str, ...] = ()  # names
    notify: Mapping[str, Any] | None = None
    after_lost: int = 0  # how many attempts may follow the first when the run was lost


@dataclass(frozen=True, slots=True)
class Hearsay:
    """Of a run that was found on a host: all that is known of it, its host has told."""

    foreign: bool  # nobody but the host says of which project it is: nothing there is believed
    host: Host | None  # the host as it was asked; None: as the run's project names it


# --- written --------------------------------------------------------------------------------------


def recorded(spec: JobSpec) -> dict[str, Any]:
    """The spec's expect, metrics, results, grace, notify and retry as a JSON value for the ledger,
    and the names of its secrets."""
    kept = Recorded(
        expect=spec.expect,
        metrics_file=spec.metrics_file,
        metrics_primary=spec.metrics_primary,
        metrics_declared=spec.metrics_declared,
        results_dir=spec.results_dir,
        results_exclude=spec.results_exclude,
        volatile=spec.volatile,
        grace=spec.resources.grace,
    )
    notify = {"notify": dict(spec.notify)} if spec.notify else {}
    return {**_json(kept), **notify, "retry": retry_order(spec), "secrets": list(spec.secrets)}


def retry_order(spec: JobSpec) -> dict[str, Any] | None:
    """`retry` as the host is told of it."""
    if spec.retry is None:
        return None
    asked = spec.retry
    return {"on": list(asked.on), "exit": list(asked.exits), "max": asked.max}


def found(record: Mapping[str, Any], hearsay: Hearsay) -> dict[str, Any]:
    """The record with the mark."""
    host = asdict(hearsay.host) if hearsay.host is not None else None
    return {**record, FOUND: {"foreign": hearsay.foreign, "host": host}}


def _json(kept: Recorded) -> dict[str, Any]:
    bounds = {name: asdict(bound) for name, bound in kept.expect.metrics.items()}
    expect: dict[str, Any] = {"metrics": bounds, "predictions": kept.expect.predictions}
    baseline = kept.expect.baseline
    if baseline is not None:
        expect["tolerance"] = kept.expect.tolerance
        expect["baseline"] = asdict(baseline)
    told: dict[str, Any] = {
        "expect": expect,
        "metrics": {
            "file": kept.metrics_file,
            "primary": kept.metrics_primary,
            "declared": kept.metrics_declared,
        },
        "results": {"dir": kept.results_dir, "exclude": list(kept.results_exclude)},
        "grace": kept.grace,
    }
    if kept.volatile is not None:
        told["volatile"] = list(kept.volatile)
    return told


# --- read back ------------------------------------------------------------------------------------


def orders_of(record: Mapping[str, Any]) -> Orders:
    """What is to be done here for the run of that record; nothing for one that was found."""
    if hearsay_of(record) is not None:
        return Orders()
    retry = record.get("retry") or {}
    after_lost = int(retry.get("max") or 0) if "lost" in (retry.get("on") or ()) else 0
    return Orders(tuple(record.get("secrets") or ()), record.get("notify"), after_lost)


def hearsay_of(record: Mapping[str, Any]) -> Hearsay | None:
    """The mark of a run that was found; None for one that was submitted."""
    if FOUND not in record:
        return None
    mark = record[FOUND]
    host = mark["host"]
    known = {each.name for each in fields(Host)}
    asked = Host(**{key: host[key] for key in known & host.keys()}) if host else None
    return Hearsay(bool(mark["foreign"]), asked)


def told(record: Any) -> tuple[dict[str, Any], list[str]]:
    """What of a host's record is lawful, as the ledger keeps it; and the parts that had more."""
    raw = lawful.mapping(record)
    kept = _json(recorded_of(raw))
    return kept, [key for key in DATA if key in raw and not _holds(kept.get(key), raw[key])]


def _holds(kept: Any, raw: Any) -> bool:
    """Whether nothing of `raw` was left out or altered."""
    if isinstance(kept, dict) and isinstance(raw, dict):
        return all(key in kept and _holds(kept[key], raw[key]) for key in raw)
    return bool(kept == raw)


def recorded_of(record: Mapping[str, Any]) -> Recorded:
    """What a result is held against; what the record lacks, or has of another type, takes its
    default."""
    expect, metrics, results = (
        lawful.mapping(record.get(key)) for key in ("expect", "metrics", "results")
    )
    default = Recorded()
    grace = lawful.real(record.get("grace"))
    return Recorded(
        expect=_expect(expect),
        metrics_file=_text(metrics.get("file")) or default.metrics_file,
        metrics_primary=_text(metrics.get("primary")) or default.metrics_primary,
        metrics_declared=metrics.get("declared") is True,
        results_dir=_text(results.get("dir")) or default.results_dir,
        results_exclude=lawful.texts(results.get("exclude")) or default.results_exclude,
        volatile=lawful.texts(record.get("volatile")),
        grace=grace if grace is not None and 0 < grace <= GRACE_MAX else default.grace,
    )


def _expect(raw: Mapping[str, Any]) -> Expect:
    bounds = {
        name: Bound(low, high)
        for name, bound in lawful.mapping(raw.get("metrics")).items()
        for low, high in [_limits(lawful.mapping(bound))]
        if (low, high) != (None, None)
    }
    shape = raw.get("predictions")
    baseline = _baseline(lawful.mapping(raw.get("baseline")))
    tolerance = lawful.real(raw.get("tolerance")) or 0.0
    return Expect(
        bounds,
        shape if shape in ("not-degenerate", "any") else None,
        tolerance=tolerance if 0 <= tolerance < 1 and baseline is not None else 0.0,
        baseline=baseline,
    )


def _limits(raw: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return lawful.real(raw.get("min")), lawful.real(raw.get("max"))


def _baseline(raw: Mapping[str, Any]) -> Baseline | None:
    run_id, accuracy = raw.get("run_id"), lawful.real(raw.get("accuracy"))
    if not isinstance(run_id, str) or not names.is_run_id(run_id):
        return None
    if accuracy is None or not 0 <= accuracy <= 1:
        return None
    return Baseline(run_id, accuracy, lawful.count(raw.get("n"), 2**63))


def _text(value: Any) -> str | None:
    return lawful.whole_text(value, TEXT_MAX)


def hash_matches(run: Run) -> bool | None:
    """Whether the config gives the recorded hash; None when it cannot be told.

    Runs recorded before volatile keys were kept with them may have had some.
    """
    volatile = recorded_of(run.spec).volatile
    try:
        if config_hash(run.config, volatile or ()) == run.config_hash:
            return True
    except (UsageError, TypeError):
        return False
    return None if volatile is None else False


def examples(run: Run) -> int | None:
    """How many examples the accuracy was measured on, when the result says so."""
    told = beside(run.metrics, recorded_of(run.spec).metrics_primary).get("n")
    return count_of(told) or sum(map(sum, run.confusion_matrix)) or None
