"""A new run of the same job, with the same profile and overrides; it supersedes the old one."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.domain import Run
from orchestrator.usecases.submit import Request


def request_for(
    run: Run,
    host: str | None,
    tags: Mapping[str, str],
    note: str | None,
    force: bool,
    gpu_use: str = "alone",
) -> Request:
    """`code` and spec are today's: a retry is a new run, not a replay."""
    import json

    return Request(
        job=run.job,
        host=host or run.host,
        profile=run.profile,
        overrides={key: json.dumps(value) for key, value in run.overrides.items()},
        tags={**run.tags, **tags},
        note=note if note is not None else run.note,
        force=force or run.forced,
        supersedes=run.run_id,
        gpu_use=gpu_use,
    )
