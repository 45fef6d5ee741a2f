"""Shell completion: jobs, profiles, config keys, hosts, runs, columns. Silent on any failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from orchestrator.errors import OrchError

if TYPE_CHECKING:
    from orchestrator.jobspec import JobSpec


def jobs(incomplete: str) -> list[str]:
    from orchestrator.console import context
    from orchestrator.spec import job_names

    try:
        project = context().project_or_none()
        found = job_names(project) if project is not None else []
        return [name for name in found if name.startswith(incomplete)]
    except (OrchError, OSError):
        return []


def runs(incomplete: str) -> list[str]:
    from orchestrator.console import context

    try:
        ctx = context()
        project = ctx.project_or_none()
        with ctx.ledger(readonly=True) as ledger:
            found = ledger.runs(project=str(project) if project else None, limit=200)
        names = {run.run_id: None for run in found} | {run.job: None for run in found}
        return [name for name in names if name.startswith(incomplete)]
    except (OrchError, OSError):
        return []


def hosts(incomplete: str) -> list[str]:
    from orchestrator.console import context
    from orchestrator.usecases.hosts import known_hosts

    try:
        names = [host.name for host, _ in known_hosts(context())]
        return [name for name in names if name.startswith(incomplete)]
    except (OrchError, OSError):
        return []


def profiles(ctx: typer.Context, incomplete: str) -> list[str]:
    """Of the job that stands before on the line."""
    spec = _job_on_the_line(ctx, None)
    return [name for name in spec.profiles if name.startswith(incomplete)] if spec else []


def overrides(ctx: typer.Context, incomplete: str) -> list[str]:
    """`k.e.y=` for each config key of the job, and the profile, that stand before on the line."""
    from orchestrator.nested import leaves

    spec = _job_on_the_line(ctx, ctx.params.get("profile"))
    keys = [f"{key}=" for key, _ in leaves(spec.config)] if spec else []
    return [key for key in keys if key.startswith(incomplete)]


def _job_on_the_line(ctx: typer.Context, profile: str | None) -> JobSpec | None:
    from orchestrator.console import context
    from orchestrator.spec import load_job

    try:
        project = context().project_or_none()
        # Before an option without its value yet, the parser has not come to the arguments.
        job = ctx.params.get("job") or next(iter(ctx.args), None)
        return load_job(project, job, profile=profile) if project and job else None
    except (OrchError, OSError):
        return None


def states(incomplete: str) -> list[str]:
    from orchestrator.selection import STATES

    return [name for name in dict.fromkeys(STATES) if name.startswith(incomplete)]


def outcomes(incomplete: str) -> list[str]:
    from orchestrator.selection import OUTCOMES

    return [name for name in OUTCOMES if name.startswith(incomplete)]


def sorts(incomplete: str) -> list[str]:
    from orchestrator.selection import COLUMNS

    return [name for name in COLUMNS if name.startswith(incomplete)]


def formats(incomplete: str) -> list[str]:
    from orchestrator.usecases.export import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]
