"""The jobs of a project, each with what its file says or why it does not load."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.domain import Run
from orchestrator.errors import OrchError
from orchestrator.spec import job_names, load_job
from orchestrator.usecases.context import Context


@dataclass(frozen=True, slots=True)
class JobLine:
    name: str
    description: str = ""
    profiles: tuple[str, ...] = ()
    latest: Run | None = None
    error: str | None = None


def list_jobs(ctx: Context) -> list[JobLine]:
    project = ctx.project()
    lines = []
    with ctx.ledger(readonly=True) as ledger:
        for name in job_names(project):
            latest = ledger.latest(str(project), name)
            try:
                spec = load_job(project, name)
            except OrchError as exc:
                lines.append(JobLine(name, latest=latest, error=exc.message))
            else:
                lines.append(JobLine(name, spec.description, spec.profiles, latest))
    return lines
