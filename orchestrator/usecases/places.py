"""Where a run was started: a machine and a root there. What answers under its host's name today may
be another: an alias leads to another machine, or `root:` was changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from orchestrator.domain import Run
from orchestrator.errors import NotFound
from orchestrator.ledger.store import Ledger

TEXT_MAX = 300


def place(status: Mapping[str, Any]) -> list[str]:
    """[machine's name, root, digest of the machine's id] of who answered; empty if not told."""
    told = status.get("place")
    told = told if isinstance(told, dict) else {}
    name, root, number = (told.get(key) for key in ("name", "root", "id"))
    if not (isinstance(name, str) and isinstance(root, str) and isinstance(number, str)):
        return []
    digest = hashlib.sha256(number.encode("utf-8", "replace")).hexdigest()[:12]
    return [name[:TEXT_MAX], root[:TEXT_MAX], digest]


def of_start(ledger: Ledger, run: Run) -> list[str]:
    """The place where the run's latest attempt was started; empty where it was not noted."""
    noted = [event.data.get("place") for event in ledger.events(run.run_id)]
    return next((list(each) for each in reversed(noted) if each), [])


def is_elsewhere(ledger: Ledger, run: Run, status: Mapping[str, Any]) -> bool:
    """Whether who answered may be another place than the one where the run was started."""
    here = place(status)
    return not here or here != of_start(ledger, run)


def told(ledger: Ledger, run: Run, status: Mapping[str, Any]) -> str:
    """Which place the run is at and which one answered, for one line to the user."""
    there, here = of_start(ledger, run), place(status)
    if not there or not here:
        return f"it is not known on which machine and under which root {run.host} had it"
    return f"it was started on {_words(there)}, and what answers as {run.host} is {_words(here)}"


def _words(there: list[str]) -> str:
    return f"{there[0]} under {there[1]}"


def absent(ledger: Ledger, run: Run, status: Mapping[str, Any], more: str = "") -> NotFound:
    """The error for a run that its host does not have."""
    said = f"{run.run_id}: {run.host} has no such run{more}"
    if not is_elsewhere(ledger, run, status):
        return NotFound(said, hint=f"`orch reconcile {run.run_id}` writes down what is left of it")
    where = told(ledger, run, status)
    return NotFound(f"{said}; {where}; nothing was changed", hint=hint(run))


def hint(run: Run) -> str:
    return f"`root:` of {run.host} in orch.yaml and its ssh alias say where it is looked for"
