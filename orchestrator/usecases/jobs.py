"""The jobs of a project, each with what its file says or why it does not load."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import OrchError
from orchestrator.spec import job_names, load_job
from orchestrator.usecases.context import Context


@dataclass(frozen=True, slots=True)
class JobLine:
    name: str
    description: str
    profiles: tuple[str, ...] = ()
    error: str | None = None


def list_jobs(ctx: Context) -> list[JobLine]:
    project = ctx.project()
    lines = []
    for name in job_names(project):
        try:
            spec = load_job(project, name)
        except OrchError as exc:
            lines.append(JobLine(name, "", error=exc.message))
        else:
            lines.append(JobLine(name, spec.description, spec.profiles))
    return lines
