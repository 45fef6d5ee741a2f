"""Many histories in one process."""

from __future__ import annotations

import gc
import subprocess
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.simulation.story import Fixed, play


def played(seeds: range) -> tuple[int | None, str, Counter[str]]:
    """(the first seed that broke an invariant, how, how often each kind of event took place)."""
    kinds: Counter[str] = Counter()
    gc.freeze()
    gc.set_threshold(200_000)  # a history makes many short-lived objects and few cycles
    with place() as folder:
        fixed = Fixed.make(folder / "project")
        for seed in seeds:
            try:
                kinds.update(kinds_of(play(seed, fixed, folder)))
            except BaseException as exc:
                history = "\n".join(getattr(exc, "history", []))
                return seed, f"{history}\n{traceback.format_exc()}", kinds
            kinds["histories"] += 1
    return None, "", kinds


@contextmanager
def place() -> Iterator[Path]:
    """A folder in memory, where there is such a thing. `rm` empties it faster than python does."""
    shared = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="orch-sim-", dir=shared if shared.is_dir() else None)
    try:
        yield Path(folder)
    finally:
        subprocess.run(["rm", "-rf", "--", folder], check=True)


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
    with place() as folder:
        try:
            return True, "\n".join(play(seed, Fixed.make(folder / "project"), folder))
        except BaseException as exc:
            history = "\n".join(getattr(exc, "history", []))
            return False, f"{history}\n{traceback.format_exc()}"
