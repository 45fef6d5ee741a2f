"""Notifications from here, for hosts that reach nobody: `notify: {by: controller}` in a spec."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator import inflight
from orchestrator.domain import Run, RunState
from orchestrator.errors import OrchError
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import orders_of
from orchestrator.usecases.context import Context

DEADLINE = 120.0  # seconds: three tries of a webhook, a minute of a command


def of_end(ctx: Context, ledger: Ledger, run: Run) -> None:
    """Whom the spec names is told of the run's end; a failure is only said.

    Once for each attempt: that it was told is a line of the run's timeline, and two commands that
    see the end at once do not both tell it.
    """
    order = dict(orders_of(run.spec).notify or {})
    asked = order.get("by", "host") != "host" and "end" in order.get("events", ())
    if run.state is not RunState.FINISHED or not asked:
        return
    with _alone(ctx, run) as is_ours:
        if not is_ours or _was_told(ledger, run):
            return
        problems = _deliver(ctx, run, order)
        for problem in problems:
            ctx.say(f"{run.run_id}: {problem}")
        ledger.event(run.run_id, ctx.now(), "told", {"attempt": run.attempt, "problems": problems})


@contextmanager
def _alone(ctx: Context, run: Run) -> Iterator[bool]:
    """Whether no other command is telling it. Where nothing can be written, nobody can know."""
    with ExitStack() as held:
        try:
            is_ours = held.enter_context(inflight.hold(ctx.layout.telling(run.run_id)))
        except OSError:
            is_ours = True
        yield is_ours


def _was_told(ledger: Ledger, run: Run) -> bool:
    told = [event.data for event in ledger.events(run.run_id) if event.kind == "told"]
    return any(each.get("attempt") == run.attempt for each in told)


def _deliver(ctx: Context, run: Run, order: dict[str, object]) -> list[str]:
    webhook = str(order.get("webhook") or "")
    if webhook.startswith("$"):
        order["webhook"] = ctx.env.get(webhook.strip("${}"))
        if not order["webhook"]:
            return [f"{webhook} is not set here: nobody was told"]
    verdict = run.verdict.value if run.verdict else run.state.value
    text = ": ".join([verdict, *run.outcome_reasons[:3]])
    if run.outcome is not None:
        text += f", outcome {run.outcome.value}"
    message = {
        "text": f"{run.job} ({run.run_id}): {text}",
        "event": "end",
        "run_id": run.run_id,
        "job": run.job,
    }
    project = Path(run.project)
    body = {"order": order, "message": message, "cwd": str(project if project.is_dir() else os.sep)}
    try:
        with ctx.connect(ctx.host_in(run.project, "local")) as agent:
            reply = agent.call("notify", body, deadline=DEADLINE)
    except OrchError as exc:
        return [f"nobody was told: {exc.message}"]
    problems = reply.get("problems")
    return [str(each)[:300] for each in problems] if isinstance(problems, list) else []
