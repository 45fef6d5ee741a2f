"""Ending a run: TERM, grace, KILL, down to the last grandchild."""

from __future__ import annotations

from orchestrator.domain import Run, RunState, Verdict
from orchestrator.errors import NotFinished
from orchestrator.ledger.store import Ledger
from orchestrator.transport.base import Agent
from orchestrator.transport.replies import only_status
from orchestrator.usecases import places
from orchestrator.usecases.context import Context
from orchestrator.usecases.reconcile import UNSETTLED, meet
from orchestrator.usecases.settle import settle, settle_anew

PATIENCE = 40.0  # seconds: 10 of grace, the kill, the exit record


def cancel(ctx: Context, ledger: Ledger, run: Run) -> tuple[Run, bool]:
    """(the run, whether it had ended before). Raises when its processes have not gone in time."""
    if run.state is RunState.FINISHED and run.cause != "gone":
        return run, True
    with ctx.connect(ctx.host_of(run)) as agent:
        if run.state not in UNSETTLED or run.attempt > 1:
            run = _seen_again(ctx, ledger, run, agent)
            if run.state is RunState.FINISHED:
                return run, True
        if run.state in UNSETTLED and run.attempt > 1:
            run = meet(ctx, ledger, run, agent)
        body = {"run_id": run.run_id, "patience": PATIENCE}
        status = agent.call("cancel", body, deadline=PATIENCE + 30)
    known = settle(ledger, run, status, ctx.now())
    if known.state is not RunState.FINISHED:
        raise NotFinished(
            f"{run.run_id}: asked to end on {run.host}; it has not ended yet",
            hint=f"`orch wait {run.run_id}` follows it; repeating the cancel is harmless; "
            "a process that the kernel does not let go (state D) ends with what it waits for",
        )
    return known, bool(status.get("already")) or known.verdict is not Verdict.CANCELLED


def _seen_again(ctx: Context, ledger: Ledger, run: Run, agent: Agent) -> Run:
    """The run that was on its host before, by what that says now; NotFound where another place
    answers: what it closes would be no run of ours."""
    status = only_status(agent.call("status", {"run_ids": [run.run_id]}), run.run_id)
    if status["phase"] == "absent" and places.is_elsewhere(ledger, run, status):
        raise places.absent(ledger, run, status)
    return settle_anew(ledger, run, status, ctx.now())
