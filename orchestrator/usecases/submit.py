"""Submit: preflight, intent in the ledger, content to the host, at most one start.

Order matters. The run id and its intent are committed before anything touches the network, so that
no run can exist that the ledger does not know. Once the start was sent, a lost answer leaves the
run `unknown` and is never sent again under another id.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import inflight, names
from orchestrator.background import Background
from orchestrator.domain import Finding, Host, Run, RunState, Verdict
from orchestrator.errors import (
    HostUnfit,
    Interrupted,
    OrchError,
    OutcomeUnknown,
    TransportError,
)
from orchestrator.gitlisting import GitListing
from orchestrator.jobspec import DataSource, JobSpec
from orchestrator.ledger.store import Ledger
from orchestrator.manifest import MAX_FILE, Scan
from orchestrator.recorded import recorded, retry_order
from orchestrator.spec import load_job
from orchestrator.transport.base import Agent
from orchestrator.transport.connect import check_name
from orchestrator.transport.replies import unlawful, words
from orchestrator.usecases import datasets, ready, survey, sync
from orchestrator.usecases.check import MEND, Preflight, preflight, refuse
from orchestrator.usecases.context import Context
from orchestrator.usecases.settle import settle
from orchestrator.wording import size

START_WITHIN = 3600.0  # seconds in which the host may copy a large tree, with signs of life
TOKEN = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class Request:
    job: str
    host: str | None = None
    profile: str | None = None
    overrides: Sequence[str] | Mapping[str, str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    force: bool = False
    forced: Sequence[Mapping[str, Any]] = ()  # findings, as recorded, that were forced before
    supersedes: str | None = None
    canary: bool = True
    gpu_use: str = "alone"  # | queue: wait while others use them | share: run beside others
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a submit would do; `--dry-run` shows it and stops."""

    project: Path
    host: Host
    found: Preflight
    data: tuple[tuple[DataSource, Path | None], ...]  # with the local folder of what is sent
    secrets: Mapping[str, str]
    webhook: str | None  # the address in the clear: for the host's memory, never for a disk
    max_file: int
    listing: GitListing
    gpu_use: str = "alone"
    requirements: tuple[str, ...] = ()  # its setup.requirements, then the files that includes
    left_out: tuple[tuple[str, str], ...] = ()  # of the data: (which file, why)
    unique: str | None = None  # the job of whose config no other run may be on the host
    content: ready.Content | None = None  # None: it is read while the host is connected to

    @property
    def spec(self) -> JobSpec:
        return self.found.spec


def make_plan(ctx: Context, request: Request) -> Plan:
    """Everything that can go wrong before a run exists goes wrong here."""
    project = ctx.project()
    listing = GitListing(project)  # git works while the spec is read
    config = ctx.config()
    spec = load_job(project, request.job, profile=request.profile, overrides=request.overrides)
    host = ctx.host(request.host)
    data = ready.folders(ctx, spec)
    left_out = datasets.left_out(data)
    secrets = {name: ctx.secret(name) for name in spec.secrets}
    webhook = ctx.webhook(spec.notify)
    check_name(host, ctx.env)
    listing.paths()  # git may refuse
    found = preflight(ctx, spec, every=False)  # asking costs a connection
    found = found.more(survey.checkpoint_findings(ctx, spec, host))
    found = found.more(survey.gpu_findings(ctx, spec, host, request.gpu_use))
    return Plan(
        project=project,
        host=host,
        found=found,
        data=data,
        secrets=secrets,
        webhook=webhook,
        max_file=config.max_file_size or MAX_FILE,
        listing=listing,
        gpu_use=request.gpu_use,
        requirements=tuple(ready.requirements(ctx, spec)),
        left_out=left_out,
        unique=spec.name if request.unique else None,
    )


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
        sent = threading.Event()
        return _begin(ctx, plan, ledger, run, sent, announce)


def refuse_unforced(plan: Plan, request: Request, hint: str = MEND) -> None:
    """PreflightRefused for what refuses the plan and is not forced."""
    bad = unforced(plan, request)
    if bad:
        raise refuse(plan.spec.name, bad, hint)


def unforced(plan: Plan, request: Request) -> list[Finding]:
    """What refuses the plan, but for what its request forces: all, or what was forced before."""
    bad = [] if request.force else [each for each in plan.found.findings if each.refuses]
    return [each for each in bad if _as_recorded(each) not in request.forced]


def _begin(
    ctx: Context,
    plan: Plan,
    ledger: Ledger,
    run: Run,
    sent: threading.Event,
    announce: Callable[[Run], None],
) -> tuple[Run, Agent]:
    try:
        with inflight.hold(ctx.layout.inflight(run.run_id)):
            ledger.intend(run)
            announce(run)
            return _deliver(ctx, plan, ledger, run, sent)
    except BaseException as exc:
        _note_failure(ctx, ledger, run, exc, sent.is_set())
        lost = isinstance(exc, TransportError) and not isinstance(exc, HostUnfit)
        if sent.is_set() and lost:
            raise OutcomeUnknown(
                f"{run.run_id}: the start was sent to {plan.host.name}, its answer was lost "
                f"({exc})",
                hint=f"the run may be going; `orch reconcile {run.run_id}` asks the host; "
                "it is never started twice",
            ) from None
        if isinstance(exc, KeyboardInterrupt):
            raise interrupted(run, sent.is_set()) from None
        if isinstance(exc, OrchError) and _never_began(ledger, run):
            exc.message += f"; {run.run_id} was not started"
        raise


def _intent(ctx: Context, plan: Plan, request: Request, ledger: Ledger) -> Run:
    spec = plan.spec
    supersedes = request.supersedes
    if supersedes is None:
        same = ledger.same_config(plan.found.config_hash, spec.name)
        never = Verdict.NEVER_STARTED
        mine = [run for run in same if run.project == str(plan.project) and run.verdict != never]
        supersedes = mine[-1].run_id if mine else None
    token = "".join(secrets.choice(TOKEN) for _ in range(5))
    git = ready.git_state(plan.project, spec, plan.listing)
    return Run(
        run_id=names.new_run_id(ctx.clock.now(), token),
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


def finding_json(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "severity": finding.severity.value}


def _as_recorded(finding: Finding) -> Any:
    return json.loads(json.dumps(finding_json(finding), default=str))


def _note_failure(ctx: Context, ledger: Ledger, run: Run, exc: BaseException, sent: bool) -> None:
    """A run whose start was never sent did not start; one whose start was sent is unknown."""
    reason = exc.message if isinstance(exc, OrchError) else type(exc).__name__
    if isinstance(exc, KeyboardInterrupt):
        reason = "interrupted before it was started"
    current = ledger.find(run.run_id)
    if current is None or current.state not in (RunState.INTENT, RunState.SYNCED):
        return
    refused = isinstance(exc, HostUnfit) or (
        isinstance(exc, OrchError) and not isinstance(exc, TransportError)
    )
    if sent and not refused:
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


def _deliver(
    ctx: Context, plan: Plan, ledger: Ledger, run: Run, sent: threading.Event
) -> tuple[Run, Agent]:
    """Connect and read the tree at the same time; then content, then the start."""
    connecting = Background(lambda: ctx.connect(plan.host))
    try:
        content = plan.content or read_content(ctx, plan)
    except BaseException:
        connecting.discard(lambda agent: agent.close())
        raise
    agent = connecting.result()
    try:
        return _start(ctx, plan, ledger, run, agent, content, sent), agent
    except BaseException:
        agent.close()
        raise


def read_content(ctx: Context, plan: Plan) -> ready.Content:
    """The project's files and the data as they are now."""
    code = ready.code(ctx, plan.project, plan.spec, plan.listing, plan.max_file)
    content = ready.Content(code, datasets.scans(ctx, plan.data))
    ready.tell_left_out(ctx, (*code.skipped, *plan.left_out))
    return content


def _start(
    ctx: Context,
    plan: Plan,
    ledger: Ledger,
    run: Run,
    agent: Agent,
    content: ready.Content,
    sent: threading.Event,
) -> Run:
    scan, data = content.code, content.data
    remembered = ctx.layout.host_cache(plan.host.name, plan.project)
    old = scan.manifest if content.sent else _read(remembered)
    body = _start_body(plan, run, scan, data)
    attached: list[bytes] = []
    if old is None:
        _push(ctx, agent, scan, "code")
    elif old != scan.manifest:
        change = sync.inline_change(scan, old)
        if change is None:
            _push(ctx, agent, scan, "code")
        else:
            delta, objects = change
            body = {**body, "base": _tree(old), "delta": len(delta)}
            attached = [delta, *objects]
    reply = _start_call(agent, body, attached, sent)
    for _ in range(3):
        if not reply.get("need"):
            break
        sent.clear()
        if reply["need"] == "tree":
            _push(ctx, agent, scan, "code")
        else:
            for name in words(reply.get("names")):
                if name not in data:
                    raise unlawful(f"a wish for data {name[:80]!r}, which the job does not have")
                pushed = _push(ctx, agent, data[name], f"data {name}", dataset=True)
                if pushed.get("replaced"):
                    ctx.say(f"data {name} had been changed on {run.host} and is whole again there")
        body = {key: value for key, value in body.items() if key not in ("base", "delta")}
        reply = _start_call(agent, body, [], sent)
    hashes = {name: item.tree for name, item in data.items()}
    ledger.synced(run.run_id, ctx.now(), scan.tree, hashes)
    started = settle(ledger, ledger.get(run.run_id), reply, ctx.now())
    _remember(remembered, scan.manifest)
    return started


def _start_call(
    agent: Agent, body: Mapping[str, Any], attached: list[bytes], sent: threading.Event
) -> dict[str, Any]:
    sent.set()
    return agent.call("start", body, attached, within=START_WITHIN)


def _start_body(plan: Plan, run: Run, scan: Scan, data: Mapping[str, Scan]) -> dict[str, Any]:
    spec = plan.spec
    needs = spec.resources
    return {
        "run_id": run.run_id,
        "tree": scan.tree,
        "tree_bytes": scan.size,
        "unique": plan.unique,
        "config": json.dumps(spec.config, indent=1, ensure_ascii=False) + "\n",
        "spec": {
            "job": run.job,
            "project": run.project,
            "created_at": run.created_at,
            "config_hash": run.config_hash,
            "results_dir": spec.results_dir,
            "results_exclude": list(spec.results_exclude),
            "metrics_file": spec.metrics_file,
            "recorded": dict(run.spec),
            "supersedes": run.supersedes,
            "tags": dict(run.tags),
            "note": run.note,
            # From here on: what only a ledger that is made anew needs.
            "host": run.host,
            "profile": run.profile,
            "overrides": dict(run.overrides),
            "findings": list(run.findings),
            "forced": run.forced,
            "git_commit": run.git_commit,
            "git_dirty": run.git_dirty,
            "snapshot": scan.tree,
            "data": {name: item.tree for name, item in data.items()},
        },
        "order": {
            "stages": [{"name": s.name, "argv": list(s.argv)} for s in spec.stages],
            "env": dict(spec.env),
            "secrets": dict(plan.secrets),
            "results_dir": spec.results_dir,
            "requirements": spec.requirements,
            "requirement_files": list(plan.requirements),
            "session": plan.host.session,
            "gpus_min": needs.gpus_min,
            "gpus_max": needs.gpus_max,
            "gpu_memory": needs.gpu_memory,
            "gpu_use": plan.gpu_use,
            "disk": needs.disk,
            "time": needs.time,
            "retry": retry_order(spec),
            "guards": list(spec.guards),
            "notify": {**spec.notify, "job": spec.name} if spec.notify else None,
            "webhook": plan.webhook,
        },
        "data": [
            {"name": source.name, "tree": data[source.name].tree}
            if folder is not None
            else {"name": source.name, "at": source.at}
            for source, folder in plan.data
        ],
    }


def _push(
    ctx: Context, agent: Agent, scan: Scan, what: str, dataset: bool = False
) -> dict[str, Any]:
    shown = 0

    def progress(sent: int, total: int) -> None:
        nonlocal shown
        if total > (8 << 20) and sent * 10 // total > shown:
            shown = sent * 10 // total
            ctx.say(f"sending {what}: {size(sent)} of {size(total)}")

    return sync.push(agent, scan, dataset=dataset, progress=progress)


def _tree(manifest: bytes) -> str:
    from remote import wire

    return wire.tree_hash(manifest)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _remember(path: Path, manifest: bytes) -> None:
    """Best effort: without it the next submit only sends its manifest again."""
    tmp = path.with_suffix(f".tmp{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tmp.write_bytes(manifest)
        os.replace(tmp, path)
    except OSError:
        pass
