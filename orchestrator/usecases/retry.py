"""A new run of the job as it is today, with the old run's profile and overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.compare import rows_of
from orchestrator.comparetext import brief
from orchestrator.domain import Run
from orchestrator.recorded import hearsay_of
from orchestrator.usecases.plan import Request


def request_for(
    run: Run,
    host: str | None,
    tags: Mapping[str, str],
    note: str | None,
    force: bool,
    gpu_use: str = "alone",
) -> Request:
    """`code` and spec are today's: a retry is a new run, not a replay.

    It has the old one's tags, but not the note: what was remarked on that is not true of this.
    Findings that were forced for it stay forced, where they are the very same; new ones refuse.
    That the run was forced is believed of one that was submitted from here.
    """
    import json

    return Request(
        job=run.job,
        host=run.host if host is None else host,
        profile=run.profile,
        overrides={key: json.dumps(value) for key, value in run.overrides.items()},
        tags={**run.tags, **tags},
        note=note,
        force=force,
        forced=run.findings if run.forced and hearsay_of(run.spec) is None else (),
        supersedes=run.run_id,
        gpu_use=gpu_use,
    )


def changes(old: Run, config: Mapping[str, Any]) -> list[str]:
    """What of the config is not as the old run had it, a line a key."""
    return [
        f"{row.key}: {brief(row.values[0])} -> {brief(row.values[1])}"
        for row in rows_of([old.config, config])
        if row.differs
    ]
