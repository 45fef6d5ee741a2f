"""Going on with a run that has ended: the same directory, the job's own checkpoint, a new attempt.

The attempt is in the ledger before the host is asked for it, and the host starts it at most once,
whoever asks. An answer that is lost leaves it `unknown`; `orch reconcile` settles it.
"""

from __future__ import annotations

from typing import Any

from orchestrator import inflight
from orchestrator.domain import Run, RunState, Verdict
from orchestrator.errors import (
    HostUnfit,
    OrchError,
    OutcomeUnknown,
    PreflightRefused,
    TransportError,
    answer_words,
)
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import Orders, hearsay_of, orders_of
from orchestrator.spec import load_job
from orchestrator.transport.base import Agent
from orchestrator.transport.replies import run_status
from orchestrator.usecases import hostevents, silence
from orchestrator.usecases.asking import meet
from orchestrator.usecases.context import Context
from orchestrator.usecases.deliver import START_WITHIN
from orchestrator.usecases.settle import settle


def resume(ctx: Context, ledger: Ledger, run: Run) -> tuple[Run, Agent]:
    """The run, its next attempt started or queued, and the open connection to go on with.

    PreflightRefused for a run that goes on, has succeeded or never started, and for a host that
    cannot go on with it; the run is then as it was.
    """
    if run.reached_no_host:
        refuse(run)
    orders = _orders(ctx, run)
    asked = {
        "secrets": {name: ctx.secret(name) for name in orders.secrets},
        "webhook": ctx.webhook(orders.notify),
    }
    with silence.of(ctx, ledger, run, "it was not resumed"):
        agent = ctx.connect(ctx.host_of(run))
    try:
        with silence.of(ctx, ledger, run, "it was not resumed"):
            known = meet(ctx, ledger, run, agent)
        refuse(known)
        return _start(ctx, ledger, known, agent, asked), agent
    except BaseException:
        agent.close()
        raise


def _orders(ctx: Context, run: Run) -> Orders:
    """What of this shell a new attempt is given. Of a run that was found on a host the job's own
    file says it, not the host."""
    if hearsay_of(run.spec) is None:
        return orders_of(run.spec)
    spec = load_job(ctx.folder_of(run), run.job, profile=run.profile)
    return Orders(spec.secrets, spec.notify)


def refuse(run: Run) -> None:
    """PreflightRefused unless there is something to go on with."""
    if run.state is not RunState.FINISHED:
        raise PreflightRefused(
            f"{run.run_id} has not ended: it is {run.state.value} on {run.host}",
            hint=f"`orch tail {run.run_id}` follows it, `orch cancel {run.run_id}` ends it",
        )
    if run.verdict is Verdict.SUCCEEDED:
        raise PreflightRefused(
            f"{run.run_id} has succeeded; there is nothing to go on with",
            hint=f"`orch retry {run.run_id}` makes a new run of the same job",
        )
    if run.never_ran:
        raise PreflightRefused(
            f"{run.run_id} never started; there is nothing to go on with",
            hint=f"`orch retry {run.run_id}` makes a new run of the same job",
        )


def _start(ctx: Context, ledger: Ledger, before: Run, agent: Agent, asked: dict[str, Any]) -> Run:
    """`asked`: what only this shell knows, for the host's memory and no disk."""
    attempt = before.attempt + 1
    with inflight.hold(ctx.layout.inflight(before.run_id)) as is_ours:
        if not is_ours or not ledger.resuming(before.run_id, ctx.now(), attempt):
            raise PreflightRefused(
                f"{before.run_id} is being resumed by another command",
                hint=f"`orch tail {before.run_id}` follows it",
            )
        body = {"run_id": before.run_id, "attempt": attempt, **asked}
        try:
            status = run_status(agent.call("resume", body, within=START_WITHIN), before.run_id)
        except BaseException as exc:
            raise _failure(ctx, ledger, before, exc) from None
        known = settle(ledger, ledger.get(before.run_id), status, ctx.now())
    for event in ledger.events(known.run_id):
        if event.kind == hostevents.CHANGED and event.data.get("attempt") == attempt:
            ctx.say(f"{known.run_id}: {event.data['message']}")
    return known


def _failure(ctx: Context, ledger: Ledger, before: Run, exc: BaseException) -> BaseException:
    """A refusal leaves the run as it was; anything else leaves the attempt unknown."""
    unknown = isinstance(exc, TransportError) and not isinstance(exc, HostUnfit)
    if isinstance(exc, OrchError) and not unknown:
        ledger.not_resumed(before, ctx.now(), exc.message)
        if before.run_id not in exc.message:
            exc.message = f"{before.run_id} was not resumed: {exc.message}"
            exc.hint = exc.hint and exc.hint.replace("RUN", before.run_id)
        return exc
    reason = exc.message if isinstance(exc, OrchError) else type(exc).__name__
    ledger.unknown(before.run_id, ctx.now(), reason)
    if not isinstance(exc, TransportError):
        return exc
    return OutcomeUnknown(
        f"{before.run_id}: attempt {before.attempt + 1} was asked for on {before.host}, "
        f"{answer_words(exc)}",
        hint=f"it may be going; `orch reconcile {before.run_id}` asks the host; "
        "no attempt is started twice",
    )


def is_due(run: Run) -> bool:
    """Whether its spec wants a lost run to go on by itself, which nobody on the host can do."""
    return run.verdict is Verdict.LOST and run.attempt <= orders_of(run.spec).after_lost


def resume_if_due(ctx: Context, ledger: Ledger, run: Run) -> Run:
    """The run, going on if it was lost and its spec asks for it; what hinders that is only said."""
    if not is_due(run):
        return run
    try:
        known, agent = resume(ctx, ledger, run)
    except OrchError as exc:
        ctx.say(f"{run.run_id} was lost and could not go on as its spec asks: {exc.message}")
        return ledger.get(run.run_id)
    agent.close()
    ctx.say(f"{run.run_id} was lost; attempt {known.attempt} goes on as its spec asks")
    return known
