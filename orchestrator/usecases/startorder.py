"""What a host is told with a start. Pure: `docs/how-it-works.md` says what it keeps of it where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.domain import Run
from orchestrator.jobspec import DataSource
from orchestrator.manifest import Scan
from orchestrator.recorded import retry_order
from orchestrator.usecases.plan import Plan


def body(plan: Plan, run: Run, scan: Scan, data: Mapping[str, Scan]) -> dict[str, Any]:
    """The request `start`, but for content that travels with it."""
    return {
        "run_id": run.run_id,
        "tree": scan.tree,
        "tree_bytes": scan.size,
        "unique": plan.unique,
        "config": json.dumps(plan.spec.config, indent=1, ensure_ascii=False) + "\n",
        "spec": _described(plan, run, scan, data),
        "order": _order(plan),
        "data": [_data_item(source, place, data) for source, place in plan.data],
    }


def _described(plan: Plan, run: Run, scan: Scan, data: Mapping[str, Scan]) -> dict[str, Any]:
    """The run, for those who find it there."""
    spec = plan.spec
    return {
        "job": run.job,
        "project": run.project,
        "created_at": run.created_at,
        "config_hash": run.config_hash,
        "results_dir": spec.results_dir,
        "results_exclude": list(spec.results_exclude),
        "metrics_file": spec.metrics_file,
        "recorded": dict(run.spec),
        "supersedes": run.supersedes,
        "tags": dict(run.tags),
        "note": run.note,
        # From here on: what only a ledger that is made anew needs.
        "host": run.host,
        "profile": run.profile,
        "overrides": dict(run.overrides),
        "findings": list(run.findings),
        "forced": run.forced,
        "git_commit": run.git_commit,
        "git_dirty": run.git_dirty,
        "snapshot": scan.tree,
        "data": {name: item.tree for name, item in data.items()},
    }


def _order(plan: Plan) -> dict[str, Any]:
    """What its supervisor does. Secrets are in no other part."""
    spec, needs = plan.spec, plan.spec.resources
    return {
        "stages": [{"name": s.name, "argv": list(s.argv)} for s in spec.stages],
        "env": dict(spec.env),
        "secrets": dict(plan.secrets),
        "results_dir": spec.results_dir,
        "requirements": spec.requirements,
        "requirement_files": list(plan.requirements),
        "session": plan.host.session,
        "gpus_min": needs.gpus_min,
        "gpus_max": needs.gpus_max,
        "gpu_memory": needs.gpu_memory,
        "gpu_use": plan.gpu_use,
        "disk": needs.disk,
        "time": needs.time,
        "grace": needs.grace,
        "retry": retry_order(spec),
        "guards": list(spec.guards),
        "notify": {**spec.notify, "job": spec.name} if spec.notify else None,
        "webhook": plan.webhook,
    }


def _data_item(source: DataSource, place: Path | None, data: Mapping[str, Scan]) -> dict[str, Any]:
    """How the host finds it; of one file, sent as a folder that holds it, its name in there."""
    if place is None:
        return {"name": source.name, "at": source.at}
    item = {"name": source.name, "tree": data[source.name].tree}
    return item if place.is_dir() else {**item, "file": place.name}
