"""The canary: the spec's short command, as a run of its own, before the run it is for.

It goes the whole way: same host, code, data, environment, GPUs, secrets and guards. Its run is in
the ledger under the job's name with `.canary` after it, so that it is no earlier run of the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import names
from orchestrator.checks import relations
from orchestrator.clock import seconds_between, span_words
from orchestrator.domain import Finding, Run, Severity, Verdict
from orchestrator.errors import Interrupted, OrchError, PreflightRefused, UsageError
from orchestrator.jobspec import Canary, JobSpec, Stage
from orchestrator.transport.base import CALL_DEADLINE, Agent, End
from orchestrator.usecases import follow
from orchestrator.usecases.cancel import CANCEL_ASKED
from orchestrator.usecases.check import Preflight
from orchestrator.usecases.context import Context
from orchestrator.usecases.deliver import read_content
from orchestrator.usecases.plan import Plan, Request, make_plan, refuse_unforced
from orchestrator.usecases.submit import submit
from orchestrator.wording import size

RULE = "canary"
LOG_LINES = 15


def passed(ctx: Context, plan: Plan, request: Request) -> Plan:
    """The plan with what its canary showed among the findings, and with the canary's own content.

    PreflightRefused when a finding refuses before or after it, unless the request forces; then it
    is recorded with the run.
    """
    refuse_unforced(plan, request)
    content = read_content(ctx, plan)
    plan = replace(plan, content=content)
    plan = with_findings(plan, run_canary(ctx, plan, request))
    plan = replace(plan, content=replace(content, sent=True))
    refuse_unforced(plan, request)
    return plan


def checked(
    ctx: Context, job: str, profile: str | None, overrides: Sequence[str], host: str | None
) -> Preflight:
    """Preflight, and the canary on the host when nothing refuses before it."""
    request = Request(job, host, profile, overrides)
    plan = make_plan(ctx, request)
    if plan.spec.canary is None:
        raise UsageError(f"job `{job}` has no `canary:` in its spec")
    if plan.found.ok:
        plan = with_findings(plan, run_canary(ctx, plan, request))
    return plan.found


def told(plan: Plan) -> list[Finding]:
    return [finding for finding in plan.found.findings if finding.rule == RULE]


def with_findings(plan: Plan, findings: list[Finding]) -> Plan:
    return replace(plan, found=plan.found.more(findings))


def run_canary(ctx: Context, plan: Plan, request: Request) -> list[Finding]:
    """Runs it to its end and tells what it showed; its own first finding refuses if it failed."""
    assert plan.spec.canary is not None
    spec = _short(plan.spec, plan.spec.canary)
    short = replace(plan, found=Preflight(spec, plan.found.config_hash, ()), webhook=None)
    asked = replace(request, supersedes=None, force=False, forced=())
    run, agent = submit(ctx, short, asked)
    limit = span_words(plan.spec.canary.time)
    try:
        agent.close()
        ctx.say(f"the canary {run.run_id} runs on {run.host} first, {limit} at most")
        with ctx.ledger() as ledger:
            run = follow.wait(ctx, ledger, run, None, ctx.say)
            fired = [e.data for e in ledger.events(run.run_id) if e.kind == "guard"]
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the canary {run.run_id} goes on on {run.host}, nothing else was started",
            hint=f"`orch cancel {run.run_id}` ends it",
        ) from None
    with ctx.connect(plan.host) as agent:
        found = _findings(ctx, plan.spec, run, agent)
    _refuse_cancelled(ctx, plan.spec.name, run)
    warned = [data.get("message") for data in fired if not data.get("acted")]
    return found + [_finding(Severity.WARNING, f"in the canary: {text}", run) for text in warned]


def _refuse_cancelled(ctx: Context, job: str, run: Run) -> None:
    """Whoever cancels a canary wants nothing to start after it, forced or not; one that had ended
    by then may have passed."""
    with ctx.ledger(readonly=True) as ledger:
        asked = any(event.kind == CANCEL_ASKED for event in ledger.events(run.run_id))
    if asked or run.verdict is Verdict.CANCELLED:
        raise PreflightRefused(
            f"{job}: its canary {run.run_id} was cancelled; nothing else was started",
            hint=f"`orch submit {job}` starts anew",
        )


def _short(spec: JobSpec, canary: Canary) -> JobSpec:
    """The job as its canary is run; a one-sided result is not held against so few examples."""
    expect = canary.expect
    declared = bool(expect.metrics) or expect.predictions == "not-degenerate"
    if expect.predictions is None:
        expect = replace(expect, predictions="any")
    return replace(
        spec,
        name=names.canary_of(spec.name),
        stages=(Stage("canary", canary.argv),),
        env={**spec.env, "ORCH_CANARY": "1"},
        resources=replace(spec.resources, time=canary.time),
        metrics_file=canary.metrics_file or spec.metrics_file,
        metrics_primary="accuracy",
        metrics_declared=declared or canary.metrics_file is not None,
        expect=expect,
        canary=None,
        notify=None,
        retry=None,
    )


# --- what it showed -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the run itself would take, as far as its canary tells."""

    seconds: float | None = None
    disk: float | None = None


def _findings(ctx: Context, spec: JobSpec, run: Run, agent: Agent) -> list[Finding]:
    if run.verdict is not Verdict.SUCCEEDED or (run.outcome and not run.outcome.passes):
        ctx.say(_log_end(agent, run))
        return [_finding(Severity.ERROR, f"the canary failed: {_account(run)}", run)]
    used = _used(agent, run)
    estimate = estimated(spec, run)
    told = f"the canary passed: {_account(run)}"
    if estimate.seconds is not None:
        told += f"; the run itself would take about {span_words(estimate.seconds)}"
    found = [_finding(Severity.INFO, told, run, estimate=estimate.seconds)]
    limit = spec.resources.time
    if estimate.seconds is not None and limit is not None and estimate.seconds > limit:
        about = f"about {span_words(estimate.seconds)}, and its time limit is {span_words(limit)}"
        found.append(_finding(Severity.WARNING, f"the run itself would take {about}", run))
    needed = max(estimate.disk or 0, used.get("bytes") or 0)
    free = used.get("free")
    if isinstance(free, int) and needed > free:
        room = f"{size(free)} are free on {run.host}"
        about = f"{size(needed)} of results, and {room}"
        found.append(_finding(Severity.WARNING, f"the run itself would write {about}", run))
    return found


def estimated(spec: JobSpec, run: Run) -> Estimate:
    """From the canary's own metrics (`estimate: {seconds, disk_bytes}`), else by `canary.scale`."""
    told = run.metrics.get("estimate")
    told = told if isinstance(told, Mapping) else {}
    seconds, disk = (_positive(told.get(key)) for key in ("seconds", "disk_bytes"))
    if seconds is None and spec.canary is not None and spec.canary.scale is not None:
        times = relations.number(spec.config, spec.canary.scale)
        took = _took(run)
        seconds = took * times if times is not None and took is not None else None
    return Estimate(seconds, disk)


def _positive(value: Any) -> float | None:
    lawful = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if lawful and 0 < value < 1e15 else None


def _took(run: Run) -> float | None:
    if run.started_at is None or run.ended_at is None:
        return None
    try:
        return seconds_between(run.started_at, run.ended_at)
    except ValueError:
        return None


def _account(run: Run) -> str:
    parts = [run.verdict.value if run.verdict else run.state.value]
    took = _took(run)
    if took is not None:
        parts.append(f"{took:.1f} s")
    if run.accuracy is not None:
        parts.append(f"accuracy {100 * run.accuracy:.1f} %")
    if run.outcome is not None and not run.outcome.passes:
        parts.append(run.outcome.value)
    parts += run.outcome_reasons[:3]
    return f"{run.run_id}, " + ", ".join(parts)


def _finding(severity: Severity, message: str, run: Run, **more: Any) -> Finding:
    about = {
        "run_id": run.run_id,
        "verdict": run.verdict.value if run.verdict else None,
        "outcome": run.outcome.value if run.outcome else None,
        "accuracy": run.accuracy,
        "seconds": _took(run),
        **more,
    }
    return Finding(severity, RULE, message, key="canary", ours=about)


def _used(agent: Agent, run: Run) -> Mapping[str, Any]:
    try:
        return agent.call("usage", {"run_id": run.run_id})
    except OrchError:
        return {}  # an estimate is no reason to stop


def _log_end(agent: Agent, run: Run) -> str:
    from orchestrator import sanitize
    from remote import wire

    body = {"run_id": run.run_id, "follow": False, "offset": 0, "lines": LOG_LINES}
    try:
        raw = b""
        for frame in agent.exchange("stream", body, within=CALL_DEADLINE):
            if not isinstance(frame, End) and frame.kind == wire.DATA:
                raw = (raw + frame.payload)[-8192:]
    except OrchError:
        return f"`orch tail {run.run_id}` shows the canary's log"
    cleaner = sanitize.LogSanitizer()
    text = (cleaner.feed(raw) + cleaner.finish()).rstrip()
    return f"the end of the canary's log:\n{text}" if text else "the canary's log is empty"
