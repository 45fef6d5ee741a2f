"""Runs for tests of the ledger and of what is shown of it."""

from __future__ import annotations

from typing import Any

from orchestrator.domain import Run, RunState
from orchestrator.ledger.store import Ledger
from orchestrator.usecases import asking
from orchestrator.usecases.context import Context

AT = "2026-11-23T09:19:29.123456Z"
HASH = "c1:" + "ab12" * 16


def a_run(run_id: str = "20261123-091929-123k3x7q", **changes: Any) -> Run:
    """A run that was just intended, with `changes`."""
    values: dict[str, Any] = {
        "run_id": run_id,
        "job": "train",
        "project": "/projects/here",
        "state": RunState.INTENT,
        "config_hash": HASH,
        "config": {"training": {"ema": 0.9999, "steps": [1, 2]}, "name": "größe"},
        "host": "nigel",
        "created_at": AT,
    }
    return Run(**{**values, **changes})


def refreshed(ctx: Context, ledger: Ledger, run: Run) -> Run:
    """The run by its host's latest word, as commands learn it that meet an open run."""
    with ctx.connect(ctx.host_of(run)) as agent:
        return asking.meet(ctx, ledger, run, agent)


def an_id(second: int) -> str:
    """Run ids that sort by `second`, below 86 400."""
    hour, minute = divmod(second // 60, 60)
    return f"20261123-{hour:02d}{minute:02d}{second % 60:02d}-123k3x7q"
