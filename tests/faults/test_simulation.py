"""Histories of controllers, host and link under all the dice can do to them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.usecases import submit as submitting
from remote.adopt import Watcher
from tests.faults.simulation.many import played, replayed

ROOT = Path(__file__).resolve().parents[2]


def test_f47_f49_no_history_breaks_an_invariant(full: bool, pytestconfig: pytest.Config) -> None:
    seed = pytestconfig.getoption("seed")
    chosen = ["--seed", str(seed)] if seed is not None else ["--seeds", "10000" if full else "500"]
    argv = [sys.executable, "-m", "tests.faults.simulation", *chosen]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    print(done.stdout)


def test_a_seed_gives_the_same_history_each_time() -> None:
    first, again = replayed(41), replayed(41)
    assert first == again
    assert "JOB" in first[1]


def test_histories_leave_no_descriptor_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    broken, told, _ = played(range(20))
    assert broken is None, told
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_controller_that_gives_up_too_early_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(ctx: Any, ledger: Any, run: Any, exc: BaseException, began: Any) -> None:
        ledger.never_started(run.run_id, ctx.now(), "something went wrong")

    monkeypatch.setattr(submitting, "_note_failure", give_up)
    broken, told, _ = played(range(300))
    assert broken is not None
    assert "I3" in told
    holds, replay = replayed(broken)
    assert not holds
    assert "I3" in replay


def test_f23_jobs_that_lost_their_supervisor_are_adopted_and_their_ends_known() -> None:
    broken, told, kinds = played(range(300))
    assert broken is None, told
    assert kinds["adopted"] >= 3


def test_f23_a_watcher_that_calls_every_end_a_success_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Watcher._watched
    monkeypatch.setattr(
        Watcher, "_watched", lambda self: real(self)._replace(verdict="succeeded", exit_code=0)
    )
    broken, told, _ = played(range(1000))
    assert broken is not None
    assert "I3" in told
