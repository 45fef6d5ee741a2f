"""What a submit would do: everything that can go wrong before a run exists goes wrong here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.domain import Finding, Host
from orchestrator.gitlisting import GitListing
from orchestrator.jobspec import Canary, DataSource, JobSpec
from orchestrator.manifest import MAX_FILE
from orchestrator.spec import load_job
from orchestrator.transport.connect import check_name
from orchestrator.usecases import datasets, ready, survey
from orchestrator.usecases.check import Preflight, preflight, refuse
from orchestrator.usecases.context import Context


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
    canary: Canary | None = None  # what runs before the run itself
    unique: str | None = None  # the job of whose config no other run may be on the host
    content: ready.Content | None = None  # None: it is read while the host is connected to

    @property
    def spec(self) -> JobSpec:
        return self.found.spec


def make_plan(ctx: Context, request: Request) -> Plan:
    """Nothing is recorded, nothing is sent."""
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
        canary=spec.canary if request.canary else None,
        unique=spec.name if request.unique else None,
    )


def refuse_unforced(plan: Plan, request: Request) -> None:
    """PreflightRefused for what refuses the plan and is not forced."""
    bad = unforced(plan, request)
    if bad:
        raise refuse(plan.spec.name, bad)


def unforced(plan: Plan, request: Request) -> list[Finding]:
    """What refuses the plan, but for what its request forces: all, or what was forced before."""
    bad = [] if request.force else [each for each in plan.found.findings if each.refuses]
    return [each for each in bad if _as_recorded(each) not in request.forced]


def finding_json(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "severity": finding.severity.value}


def _as_recorded(finding: Finding) -> Any:
    return json.loads(json.dumps(finding_json(finding), default=str))
