"""What must hold after any fault: the invariants I1 to I3, asked of the files and not of `orch`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.contract.desk import Desk, of_run, until

# A job that leaves its run's id behind each time it is started, outside of its run folder.
MARK = 'echo "$ORCH_RUN_ID" >> "$ORCH_RUN_DIR/../../marks"'


def host_root(desk: Desk) -> Path:
    return desk.home / ".orch"


def marks(root: Path) -> Counter[str]:
    """How often each run's job was started."""
    path = root / "marks"
    return Counter(path.read_text().split()) if path.exists() else Counter()


def on_host(root: Path) -> set[str]:
    """The runs the host knows."""
    runs = root / "runs"
    return {path.name for path in runs.iterdir()} if runs.exists() else set()


def settled(desk: Desk, root: Path, seconds: float = 60) -> None:
    """Every run that was started on the host has its end in the ledger."""

    def over() -> bool:
        desk.orch("ls", "--json")
        return not [
            run_id
            for run_id, state, _ in desk.rows()
            if state != "finished" and (root / "runs" / run_id / "started").exists()
        ]

    until(over, seconds, every=0.3)


def assert_truthful(desk: Desk, root: Path, *, host_was_hurt: bool = False) -> None:
    """After `settled`: at most one start a run, no run nobody knows, no verdict that is not so.

    `host_was_hurt`: something on the host was killed, so that a started run may be lost.
    """
    started, rows = marks(root), {row[0]: row[1:] for row in desk.rows()}
    assert not [run_id for run_id, count in started.items() if count > 1], "I1: started twice"
    assert on_host(root) <= rows.keys(), "I2: a run that no ledger knows"
    assert started.keys() <= rows.keys(), "I2: a job ran that no ledger knows"
    for run_id, (state, verdict) in rows.items():
        folder = root / "runs" / run_id
        told = f"{run_id}: {state} {verdict}"
        if verdict == "never_started":
            assert run_id not in started, f"I3: {told}, but its job ran"
        if verdict == "succeeded":
            assert run_id in started, f"I3: {told}, but its job never ran"
        if state == "finished":
            assert not of_run(run_id), f"I3: {told}, but it lives"
        if verdict not in (None, "never_started", "cancelled"):
            assert json.loads((folder / "exit.json").read_text())["verdict"] == verdict
        if run_id in started and not host_was_hurt:
            assert verdict == "succeeded", f"{told}, but its job ran to its end"
        if state != "finished":
            assert not (folder / "started").exists(), f"{told}, but the host started it"
