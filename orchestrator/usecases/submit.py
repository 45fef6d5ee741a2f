"""Submit: preflight, intent in the ledger, content to the host, at most one start.

Order matters. The run id and its intent are committed before anything touches the network, so that
no run can exist that the ledger does not know. Once the start was sent, a lost answer leaves the
run `unknown` and is never sent again under another id.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress

from orchestrator import inflight, names
from orchestrator.clock import span_words
from orchestrator.domain import Run, RunState, Verdict
from orchestrator.errors import (
    HostUnfit,
    Interrupted,
    LedgerError,
    OrchError,
    OutcomeUnknown,
    TransportError,
    answer_words,
)
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import recorded
from orchestrator.transport.base import Agent
from orchestrator.usecases import ready
from orchestrator.usecases.context import Context
from orchestrator.usecases.deliver import Start, deliver
from orchestrator.usecases.plan import Plan, Request, finding_json, refuse_unforced

AHEAD = 60.0  # seconds that clocks may differ before it is worth a word
TOKEN = "abcdefghijkmnpqrstuvwxyz23456789"


def submit(
    ctx: Context,
    plan: Plan,
    request: Request,
    announce: Callable[[Run], None] = lambda _run: None,
) -> tuple[Run, Agent]:
    """The run, started (or queued) on its host, and the open connection to go on with.

    `announce` is called as soon as the run is recorded. Raises with nothing started (the run is
    then `never_started`), or OutcomeUnknown when the start was sent and no answer came.
    """
    refuse_unforced(plan, request)
    with ctx.ledger() as ledger:
        run = _intent(ctx, plan, request, ledger)
        return _begin(ctx, plan, ledger, run, announce)


def _begin(
    ctx: Context,
    plan: Plan,
    ledger: Ledger,
    run: Run,
    announce: Callable[[Run], None],
) -> tuple[Run, Agent]:
    began = Start()
    try:
        with inflight.hold(ctx.layout.inflight(run.run_id)):
            ledger.intend(run)
            announce(run)
            return deliver(ctx, plan, ledger, run, began)
    except BaseException as exc:
        # Where the ledger cannot be written, the run stays an intent, which the next look settles.
        with suppress(LedgerError):
            _note_failure(ctx, ledger, run, exc, began)
        unknown = isinstance(exc, TransportError) and not isinstance(exc, HostUnfit)
        if began.sent and unknown:
            raise OutcomeUnknown(
                f"{run.run_id}: the start was sent to {plan.host.name}, {answer_words(exc)}",
                hint=f"the run may be going; `orch reconcile {run.run_id}` asks the host; "
                "it is never started twice",
            ) from None
        if isinstance(exc, KeyboardInterrupt):
            raise interrupted(run, began.sent) from None
        if isinstance(exc, OrchError) and began.taken:
            exc.message = f"{plan.host.name} has taken {run.run_id}, but {exc.message}"
            exc.hint = f"`orch reconcile {run.run_id}` asks the host and writes down what it says"
        elif isinstance(exc, OrchError) and _never_began(ledger, run):
            exc.message += f"; {run.run_id} was not started"
        raise


def _intent(ctx: Context, plan: Plan, request: Request, ledger: Ledger) -> Run:
    spec = plan.spec
    supersedes = request.supersedes
    if supersedes is None:
        same = ledger.same_config(plan.found.config_hash, spec.name)
        mine = [run for run in same if run.project == str(plan.project) and not run.never_ran]
        supersedes = mine[-1].run_id if mine else None
    git = ready.git_state(plan.project, spec, plan.listing)
    return Run(
        run_id=_new_id(ctx, ledger, str(plan.project)),
        job=spec.name,
        project=str(plan.project),
        state=RunState.INTENT,
        config_hash=plan.found.config_hash,
        config=spec.config,
        host=plan.host.name,
        created_at=ctx.now(),
        profile=spec.profile,
        overrides=dict(spec.overrides),
        findings=tuple(finding_json(finding) for finding in plan.found.findings),
        forced=not plan.found.ok,
        git_commit=git.commit,
        git_dirty=git.dirty,
        supersedes=supersedes,
        tags=dict(request.tags),
        note=request.note,
        spec=recorded(spec),
    )


def _new_id(ctx: Context, ledger: Ledger, project: str) -> str:
    """An id behind those of the project, which then is its latest run whatever the clocks say."""
    newest = next(iter(ledger.ids(project=project, limit=1)), None)
    now, token = ctx.clock.now(), "".join(secrets.choice(TOKEN) for _ in range(5))
    made = names.time_of(newest) if newest else None
    ahead = (made - now).total_seconds() if made else 0.0
    if ahead > AHEAD:
        ctx.say(
            f"{newest}, the newest run here, is {span_words(ahead)} ahead of this machine's clock; "
            "the new run's id follows it, so that the new run is the latest, and its times are true"
        )
    return names.new_run_id(now, token, newest)


def _note_failure(ctx: Context, ledger: Ledger, run: Run, exc: BaseException, began: Start) -> None:
    """A run whose start was never sent, or that its host refused, did not start; any other whose
    start was sent is unknown."""
    reason = exc.message if isinstance(exc, OrchError) else type(exc).__name__
    if isinstance(exc, KeyboardInterrupt):
        reason = "interrupted before it was started"
    current = ledger.find(run.run_id)
    if current is None or current.state not in (RunState.INTENT, RunState.SYNCED):
        return
    refused = isinstance(exc, HostUnfit) or (
        isinstance(exc, OrchError) and not isinstance(exc, TransportError)
    )
    if began.taken or (began.sent and not refused):
        ledger.unknown(run.run_id, ctx.now(), reason)
        return
    ledger.never_started(run.run_id, ctx.now(), reason)


def _never_began(ledger: Ledger, run: Run) -> bool:
    known = ledger.find(run.run_id)
    return known is not None and known.verdict is Verdict.NEVER_STARTED


def interrupted(run: Run, sent: bool) -> Interrupted:
    """What is true of a run whose submit was ended by Ctrl-C."""
    if not sent:
        return Interrupted(f"interrupted; {run.run_id} was not started")
    return Interrupted(
        f"interrupted; {run.run_id} may be going on {run.host}",
        hint=f"`orch wait {run.run_id}` asks the host, `orch cancel {run.run_id}` ends it",
    )
