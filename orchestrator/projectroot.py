"""Which folder is the project, and what is a job there. Light: nearly every command asks it."""

from __future__ import annotations

from pathlib import Path

from orchestrator import names
from orchestrator.errors import UsageError
from orchestrator.paths import PROJECT_FILE
from remote.wire import JOURNAL

JOBS_DIR = "jobs"


def nearest_project(start: Path) -> Path | None:
    """The nearest folder from `start` (resolved) upward that holds orch.yaml.

    A folder of fetched results, and what lies in it, is none: its files are a host's words, and
    what a project says of its hosts is executed.
    """
    found = None
    for folder in (start, *start.parents):
        if found is None and (folder / PROJECT_FILE).is_file():
            found = folder
        if found is not None and (folder / JOURNAL).is_file():
            found = None
    return found


def job_path(project: Path, name: str) -> Path:
    """Where the job's file is, or would be. UsageError when the name is not allowed."""
    return project / JOBS_DIR / f"{names.job_name(name)}.yaml"


def has_job(project: str, name: str) -> bool:
    """Whether the project has a file for a job of that name, good or bad."""
    try:
        return job_path(Path(project), name).is_file()
    except (UsageError, OSError):
        return False
