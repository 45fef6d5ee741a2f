"""What a results folder holds of earlier attempts, and whether this job may go on with it.

All of it must be this very job's: one that trains on other texts, or otherwise, would spoil both.
How weights are judged and how often they are saved may differ, since they do not follow from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jobs.textdiff import files, metrics, sources, typed
from jobs.textdiff.config import Config
from jobs.textdiff.errors import TrainingError

RESOLVED = "config.resolved.json"
CHECKPOINTS = "checkpoints"
BESIDE_TRAINING = ("checkpoint_minutes", "validate_minutes", "validate_texts")  # of `trainer`


def of_weights(config: Config) -> dict[str, Any]:
    """The part of a config that weights follow from."""
    judging = {key for key, _ in typed.flat(config) if key.startswith("eval.")}
    if config.class_likelihood.steps:  # it begins with the averaged weights or the last
        judging.remove("eval.weights")
    beside = judging | {f"trainer.{name}" for name in BESIDE_TRAINING}
    return {key: value for key, value in typed.flat(config) if key not in beside}


def check_same(results: Path, config: Config, digest: str) -> None:
    """TrainingError when the job that wrote `results` was another one."""
    found = _resolved(results)
    if "weights_follow_from" in found:
        others = _changed(config, found.get("config"))
        check_digest(results / RESOLVED, found["weights_follow_from"], digest, others)


def check_digest(path: Path, found: object, digest: str, keys: Iterable[str] = ()) -> None:
    """TrainingError when what is in `path` followed from something else; `keys` of the config are
    known to differ."""
    if found != digest:
        named = f" ({sources.some(names)})" if (names := list(keys)) else ""
        raise TrainingError(
            f"{path} was made with another config{named}, other training texts, another vocabulary "
            "or start, or by an earlier version of this code: start a new run, in a results folder "
            "of its own"
        )


def check_resume(results: Path, config: Config, say: Callable[[str], None]) -> None:
    """TrainingError when there were checkpoints to go on from and there are none now."""
    folder = results / CHECKPOINTS
    if any(folder.glob("*.pt")):
        return
    # The folder is made with the first checkpoint; half a one says that there was none yet.
    emptied = folder.exists() and not any(folder.glob(f"*{files.PARTIAL}"))
    points = metrics.points(results / metrics.POINTS)
    minutes = _at(_resolved(results), "config.trainer.checkpoint_minutes")  # of the attempt before
    if not isinstance(minutes, (int, float)):
        minutes = config.trainer.checkpoint_minutes
    if emptied or saved(points, minutes):
        raise TrainingError(
            f"a resume from step 0: no checkpoint in {folder}; start a new run instead"
        )
    say("no checkpoint was written before: training begins again at step 0")


def saved(points: Iterable[metrics.Point], minutes: float) -> bool:
    """Whether a job that left these points had written a checkpoint: one stands between two phases,
    and one falls due after `minutes` of a phase. Whoever could not write it did not train on."""
    before = began = None
    for point in points:
        if before is not None and point.phase != before.phase:
            return True
        if before is None or began is None or point.phase_step <= before.phase_step:
            began = point  # of an attempt
        elif before.elapsed - began.elapsed >= 60 * minutes:
            return True
        before = point
    return False


def sweep(results: Path) -> None:
    """What a crash left half written is gone."""
    for folder in (results / CHECKPOINTS, results):
        files.sweep(folder)


def _resolved(results: Path) -> Mapping[str, Any]:
    """What the attempt before has written of its config; nothing, where that is none of ours."""
    try:
        found = json.loads((results / RESOLVED).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _changed(config: Config, found: object) -> list[str]:
    """The keys that weights follow from and that have another value in `found`, decoded JSON."""
    return [
        key
        for key, value in of_weights(config).items()
        if json.dumps(value) != json.dumps(_at(found, key))
    ]


def _at(tree: object, key: str) -> object:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
