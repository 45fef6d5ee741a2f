"""Shell completion: names of jobs, hosts and runs. Silent on any failure."""

from __future__ import annotations

from orchestrator.errors import OrchError


def jobs(incomplete: str) -> list[str]:
    from orchestrator.console import context

    try:
        project = context().project_or_none()
        if project is None:
            return []
        found = sorted(file.stem for file in (project / "jobs").glob("*.yaml"))
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
