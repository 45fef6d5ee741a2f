"""A new run of the job as it is today, with the old run's profile and overrides."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.compare import rows_of
from orchestrator.comparetext import brief_value
from orchestrator.domain import Run
from orchestrator.errors import UsageError
from orchestrator.paths import PROJECT_FILE
from orchestrator.recorded import hearsay_of
from orchestrator.runtext import submit_words
from orchestrator.usecases.context import Context
from orchestrator.usecases.plan import Request


def in_its_project(ctx: Context, run: Run) -> Context:
    """`ctx` within the run's own project, whichever it was called from: the same job is there only.

    UsageError when that project is not here, or when only a host says which it is.
    """
    here, its = ctx.project_or_none(), Path(run.project)
    called = f"called from the project {here}" if here else "called outside of a project"
    if not ctx.knows_project_of(run):
        raise UsageError(
            f"{run.run_id} was found on {run.host}, and only that host says that its project is "
            f"{its} ({called}); nothing was started",
            hint=f"if it is, repeat the command there: cd {shlex.quote(str(its))}",
        )
    if not (its / PROJECT_FILE).is_file():
        raise UsageError(
            f"{run.run_id} is a run of the project {its}, which is not there any more ({called}); "
            "nothing was started",
            hint=f"where that project lies now: {shlex.join(submit_words(run))}",
        )
    if here != its:
        ctx.say(f"{run.run_id} is a run of the project {its}: so is the new one")
    return ctx.within(its)


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
    return Request(
        job=run.job,
        host=run.host if host is None else host,
        profile=run.profile,
        overrides={key: json.dumps(value) for key, value in run.overrides.items()},
        tags={**run.tags, **tags},
        note=note,
        force=force,
        forced=run.findings if run.forced and hearsay_of(run.spec) is None else (),
        supersedes=None if run.never_ran else run.run_id,
        gpu_use=gpu_use,
    )


def changes(old: Run, config: Mapping[str, Any]) -> list[str]:
    """What of the config is not as the old run had it, a line a key."""
    return [
        f"{row.key}: {brief_value(row.values[0])} -> {brief_value(row.values[1])}"
        for row in rows_of([old.config, config], typed=True)
        if row.differs
    ]
