"""The ledger out of orch: as a file, or into another program's store."""

from __future__ import annotations

from pathlib import Path

from orchestrator.domain import Run
from orchestrator.errors import UsageError
from orchestrator.usecases.context import Context
from orchestrator.usecases.listing import met
from orchestrator.usecases.report import curves_of

FORMATS = ("csv", "json", "mlflow")


def form_of(format_: str | None, *, json: bool, to: str | None, output: str | None) -> str:
    """The format that the options mean together; UsageError where they contradict each other."""
    if format_ not in (None, *FORMATS):
        raise UsageError(f"no export format {format_!r}", hint="csv, json or mlflow")
    if json and format_ not in (None, "json"):
        raise UsageError(f"--json and --format {format_} contradict each other", hint="name one")
    form = "json" if json else format_ or "csv"
    if to is not None and form != "mlflow":
        raise UsageError(f"--to is for --format mlflow, not for {form}", hint="-o names a file")
    if output is not None and form == "mlflow":
        raise UsageError("-o is not for --format mlflow", hint="--to names the store")
    return form


def new_file(ctx: Context, name: str) -> Path:
    """The path to write to; UsageError where that would overwrite something."""
    path = ctx.cwd / name
    if path.is_file() or path.is_dir():
        raise UsageError(f"{path} exists; it was left alone", hint="name another file")
    return path


def export(ctx: Context, format_: str, *, everywhere: bool) -> str:
    """All runs as text, `csv` or `json`."""
    from orchestrator import export as formats

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
