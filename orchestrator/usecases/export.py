"""The ledger out of orch: as a file, or into another program's store."""

from __future__ import annotations

from orchestrator.domain import Run
from orchestrator.errors import UsageError
from orchestrator.usecases.context import Context
from orchestrator.usecases.listing import met
from orchestrator.usecases.report import curves_of


def export(ctx: Context, format_: str, *, everywhere: bool) -> str:
    from orchestrator import export as formats

    if format_ not in ("csv", "json"):
        raise UsageError(f"no export format {format_!r}", hint="csv, json or mlflow")
    runs = _all_runs(ctx, everywhere)
    return formats.to_csv(runs) if format_ == "csv" else formats.to_json_text(runs)


def export_to_mlflow(ctx: Context, to: str | None, *, everywhere: bool) -> tuple[str, int, int]:
    """(the store, runs written there, runs that were there as they are)."""
    from orchestrator import mlflowstore

    uri = to or ctx.env.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise UsageError(
            "no MLflow store is named", hint="--to URI, or MLFLOW_TRACKING_URI in this shell"
        )
    return uri, *mlflowstore.export(_all_runs(ctx, everywhere), uri, curves_of)


def _all_runs(ctx: Context, everywhere: bool) -> list[Run]:
    """Open ones by their hosts' latest word, if there is one."""
    project = None if everywhere else ctx.project_or_none()
    with ctx.ledger(readonly=True) as ledger:
        runs = ledger.runs(project=str(project) if project else None, newest_first=False)
    return met(ctx, runs)
