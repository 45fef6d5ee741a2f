"""Many histories in one process."""

from __future__ import annotations

import gc
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tests.faults.simulation.story import Fixed, play


def played(seeds: range) -> tuple[int | None, str, Counter[str]]:
    """(the first seed that broke an invariant, how, how often each kind of event took place)."""
    kinds: Counter[str] = Counter()
    gc.freeze()
    gc.set_threshold(50_000)  # a history makes many short-lived objects and few cycles
    with tempfile.TemporaryDirectory() as folder:
        fixed = Fixed.make(Path(folder) / "project")
        for seed in seeds:
            try:
                kinds.update(kinds_of(play(seed, fixed)))
            except BaseException as exc:
                history = "\n".join(getattr(exc, "history", []))
                return seed, f"{history}\n{traceback.format_exc()}", kinds
            kinds["histories"] += 1
    return None, "", kinds


def kinds_of(history: list[str]) -> list[str]:
    """What a reader wants counted: kills, cuts, restarts, jobs, commands."""
    found = []
    for line in history:
        word = line.split()[1]
        if word == "KILL":
            found.append("killed: " + line.split()[2])
        elif word in ("LINK", "REBOOT", "$"):
            found.append(" ".join(line.split()[1:3]))
        elif word == "ADOPTED":
            found.append("adopted")
        elif word == "JOB" and line.endswith("begins"):
            found.append("jobs")
    return found


def replayed(seed: int) -> tuple[bool, str]:
    """(whether the invariants hold, the history of this one seed and what broke)."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return True, "\n".join(play(seed, Fixed.make(Path(folder) / "project")))
        except BaseException as exc:
            history = "\n".join(getattr(exc, "history", []))
            return False, f"{history}\n{traceback.format_exc()}"
