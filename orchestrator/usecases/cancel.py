"""Ending a run: TERM, grace, KILL, down to the last grandchild."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator import names
from orchestrator.domain import ExitRecord, Judged, Outcome, Run, RunState, Verdict
from orchestrator.errors import Interrupted, NotFinished, NotFound, OrchError
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import recorded_of
from orchestrator.transport.base import Agent
from orchestrator.transport.replies import only_status
from orchestrator.usecases import places, silence
from orchestrator.usecases.asking import GONE, UNSETTLED, meet, question, statuses
from orchestrator.usecases.context import Context
from orchestrator.usecases.settle import settle, settle_anew

PATIENCE = 30.0  # seconds beside the run's grace: the kill, the exit record

CANCEL_ASKED = "cancel_asked"  # the event of a canary: nothing is to start after it


def cancel_chosen(ctx: Context, ledger: Ledger, selector: str) -> tuple[Run, bool]:
    """`cancel` of what the selector means: the canary, for a job whose run is still to come."""
    canary = _open_canary(ctx, ledger, selector)
    try:
        run = ctx.live_run(ledger, selector, to_change=True)
    except NotFound:
        if canary is None:
            raise
    else:
        if canary is None:
            return cancel(ctx, ledger, run)
        if run.state.is_open:
            ctx.say(f"a canary of {selector} goes on too: `orch cancel {canary.run_id}` ends it")
            return cancel(ctx, ledger, run)
    ctx.say(f"{canary.run_id}, the canary of {selector}, is meant; the run after it will not start")
    ledger.event(canary.run_id, ctx.now(), CANCEL_ASKED, {})
    ended = cancel(ctx, ledger, canary)
    later = ledger.latest(canary.project, selector)
    if later and later.state.is_open and later.run_id > canary.run_id:
        return cancel(ctx, ledger, later)  # it had begun before anything was asked
    return ended


def _open_canary(ctx: Context, ledger: Ledger, job: str) -> Run | None:
    project = ctx.project_or_none()
    where = str(project) if project else None
    found = ledger.runs(project=where, job=names.canary_of(job), open_only=True, limit=1)
    return next(iter(found), None)


def cancel(ctx: Context, ledger: Ledger, run: Run) -> tuple[Run, bool]:
    """(the run, whether it had ended before). Raises when its processes have not gone in time."""
    asked: list[Run] = []
    try:
        if run.verdict is Verdict.NEVER_STARTED:
            run = _looked_for(ctx, ledger, run)
        if run.state is RunState.FINISHED and run.cause != "gone":
            return run, True
        return _cancel(ctx, ledger, run, asked.append)
    except KeyboardInterrupt:
        raise _interrupted(run, bool(asked)) from None


def _looked_for(ctx: Context, ledger: Ledger, run: Run) -> Run:
    """A run that counts as never started, by its host's word if that can be had: who cancels it
    may have seen it run. Of a silent host nothing is concluded."""
    try:
        with ctx.connect(ctx.host_of(run)) as agent:
            status = only_status(statuses(agent, question(ctx, [run])), run.run_id)
    except OrchError as exc:
        ctx.say(f"whether {run.run_id} did start was not asked: {exc.message}")
        return run
    return settle_anew(ledger, run, status, ctx.now())


def _interrupted(run: Run, asked: bool) -> Interrupted:
    if not asked:
        return Interrupted(
            f"interrupted before {run.host} was asked to end {run.run_id}",
            hint=f"`orch cancel {run.run_id}` asks it",
        )
    return Interrupted(
        f"interrupted; {run.host} was asked to end {run.run_id}, which may take it a while yet",
        hint=f"`orch wait {run.run_id}` follows it; repeating the cancel is harmless",
    )


def _cancel(
    ctx: Context, ledger: Ledger, run: Run, asking: Callable[[Run], None]
) -> tuple[Run, bool]:
    undone = silence.of(ctx, ledger, run, "it was not cancelled")
    with undone, ctx.connect(ctx.host_of(run)) as agent:
        if run.state not in UNSETTLED or run.attempt > 1:
            told = _seen_again(ledger, run, agent)
            if run.state is RunState.FINISHED:
                run = settle_anew(ledger, run, told, ctx.now())
                if run.state is RunState.FINISHED:
                    return run, True
        if run.state in UNSETTLED and run.attempt > 1:
            run = meet(ctx, ledger, run, agent)
        seen = run.state in (RunState.QUEUED, RunState.RUNNING)
        grace = recorded_of(run.spec).grace
        ctx.say(
            f"{run.run_id}: asked to end on {run.host}; what has not saved its state and left "
            f"within {grace:g} s is killed"
        )
        body = {"run_id": run.run_id, "patience": grace + PATIENCE, "seen": seen}
        asking(run)
        asked = "whether the cancel reached it is not known; repeating it is harmless"
        with silence.of(ctx, ledger, run, asked):
            status = agent.call("cancel", body, deadline=grace + PATIENCE + 30)
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


def _seen_again(ledger: Ledger, run: Run, agent: Agent) -> dict[str, Any]:
    """What its host says of a run that was there before; NotFound where another place answers: what
    it closes would be no run of ours. A job without its supervisor gets a new one only with the
    cancel, which it then knows of."""
    asked = {"run_ids": [run.run_id], "untouched": True}
    status = only_status(statuses(agent, asked), run.run_id)
    if status["phase"] == "absent" and places.is_elsewhere(ledger, run, status):
        raise places.absent(ledger, run, status)
    return status


def _vanished(ledger: Ledger, run: Run, status: Mapping[str, Any], at: str) -> Run:
    """The run's directory was taken away from its host, so that only we can write down its end."""
    if status.get("living") != 0:
        return run
    if status.get("ended"):
        told = "cancelled by its user; its directory had been taken away from its host"
        record = ExitRecord(Verdict.CANCELLED, ended_at=at, reasons=(told,), attempt=run.attempt)
        ledger.finished(run.run_id, at, record, Judged(Outcome.UNVERIFIED))
    else:
        ledger.lost(run.run_id, at, GONE, run.attempt)
    return ledger.get(run.run_id)
