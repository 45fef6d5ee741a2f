"""The jobs of a project, each with what its file says or why it does not load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain import Run
from orchestrator.errors import OrchError
from orchestrator.spec import job_names, load_job
from orchestrator.usecases.context import Context
from orchestrator.usecases.listing import met


@dataclass(frozen=True, slots=True)
class JobLine:
    name: str
    description: str = ""
    profiles: tuple[str, ...] = ()
    latest: Run | None = None
    error: str | None = None


def list_jobs(ctx: Context) -> list[JobLine]:
    """Each job with its latest run, by its host's latest word if there is one."""
    project = ctx.project()
    names = job_names(project)
    with ctx.ledger(readonly=True) as ledger:
        latest = [run for name in names if (run := ledger.latest(str(project), name))]
    known = {run.job: run for run in met(ctx, latest)}
    return [_line(project, name, known.get(name)) for name in names]


def _line(project: Path, name: str, latest: Run | None) -> JobLine:
    try:
        spec = load_job(project, name)
    except OrchError as exc:
        return JobLine(name, latest=latest, error=exc.message)
    return JobLine(name, spec.description, spec.profiles, latest)
