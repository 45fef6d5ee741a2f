"""Ending a run: TERM, grace, KILL, down to the last grandchild."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.domain import ExitRecord, Judged, Outcome, Run, RunState, Verdict
from orchestrator.errors import NotFinished
from orchestrator.ledger.store import Ledger
from orchestrator.usecases.context import Context
from orchestrator.usecases.reconcile import GONE, UNSETTLED, meet
from orchestrator.usecases.settle import settle

PATIENCE = 40.0  # seconds: 10 of grace, the kill, the exit record


def cancel(ctx: Context, ledger: Ledger, run: Run) -> tuple[Run, bool]:
    """(the run, whether it had ended before). Raises when its processes have not gone in time."""
    if run.state is RunState.FINISHED:
        return run, True
    with ctx.connect(ctx.host_of(run)) as agent:
        if run.attempt > 1 and run.state in UNSETTLED:
            run = meet(ctx, ledger, run, agent)
        seen = run.state in (RunState.QUEUED, RunState.RUNNING)
        body = {"run_id": run.run_id, "patience": PATIENCE, "seen": seen}
        status = agent.call("cancel", body, deadline=PATIENCE + 30)
    known = settle(ledger, run, status, ctx.now())
    if status.get("phase") == "absent":
        known = _vanished(ledger, known, status, ctx.now())
    if known.state is not RunState.FINISHED:
        raise NotFinished(
            f"{run.run_id}: asked to end on {run.host}; it has not ended yet",
            hint=f"`orch wait {run.run_id}` follows it; repeating the cancel is harmless; "
            "a process that the kernel does not let go (state D) ends with what it waits for",
        )
    return known, bool(status.get("already")) or known.verdict is not Verdict.CANCELLED


def _vanished(ledger: Ledger, run: Run, status: Mapping[str, Any], at: str) -> Run:
    """The run's directory was taken away from its host, so that only we can write down its end."""
    if status.get("living") != 0:
        return run
    if status.get("ended"):
        told = "cancelled by its user; its directory had been taken away from its host"
        record = ExitRecord(Verdict.CANCELLED, ended_at=at, reasons=(told,), attempt=run.attempt)
        ledger.finished(run.run_id, at, record, Judged(Outcome.UNVERIFIED))
    else:
        ledger.lost(run.run_id, at, GONE)
    return ledger.get(run.run_id)
