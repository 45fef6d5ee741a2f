"""Which folder is the project. Light: nearly every command asks this first."""

from __future__ import annotations

from pathlib import Path

from orchestrator.paths import PROJECT_FILE
from remote.wire import JOURNAL


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
