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

History = list[tuple[float, str]]


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
                return seed, f"{told(getattr(exc, 'history', []))}\n{traceback.format_exc()}", kinds
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


def kinds_of(history: History) -> list[str]:
    """What a reader wants counted: kills, cuts, restarts, jobs, commands."""
    found = []
    for _, text in history:
        if not (text.startswith("$") or text[0].isupper()):
            continue
        words = text.split()
        if words[0] == "KILL":
            found.append("killed: " + words[1])
        elif words[0] in ("LINK", "REBOOT", "$"):
            found.append(" ".join(words[:2]))
        elif words[0] == "ADOPTED":
            found.append("adopted")
        elif words[0] == "JOB" and words[-1] == "begins":
            found.append("jobs")
    return found


def replayed(seed: int) -> tuple[bool, str]:
    """(whether the invariants hold, the history of this one seed and what broke)."""
    with place() as folder:
        try:
            return True, told(play(seed, Fixed.make(folder / "project"), folder))
        except BaseException as exc:
            return False, f"{told(getattr(exc, 'history', []))}\n{traceback.format_exc()}"


def told(history: History) -> str:
    """For a person to read."""
    return "\n".join(f"{seconds:8.2f} {text}" for seconds, text in history)
