"""Runs into an MLflow tracking store, by MLflow's own client (the extra `orch[mlflow]`).

A job is an experiment. A run has its config as params, its result and learning curves as metrics,
and what MLflow has no field for as tags `orch.*`. A run that is there already is found by its
`orch.run_id`: one that had ended is left alone, one that was going on is brought up to date.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.clock import parse_iso
from orchestrator.domain import Run, Verdict
from orchestrator.errors import OrchError, UsageError
from orchestrator.nested import leaves
from orchestrator.report.curves import Curves
from orchestrator.wording import counted

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

VALUE_MAX = 5000  # of a param or a tag; stores take 6000 and more
BATCH = {"metrics": 500, "params": 90, "tags": 90}  # what one request may hold, with room
STATUS = {Verdict.SUCCEEDED: "FINISHED", Verdict.CANCELLED: "KILLED", Verdict.KILLED: "KILLED"}


def export(
    runs: Sequence[Run], uri: str, curves_of: Callable[[Run], Curves | None]
) -> tuple[int, int]:
    """(runs written, runs that were there as they are). OrchError when the store refuses."""
    client, failed = _client(uri)
    written = known = 0
    try:
        experiments: dict[str, str] = {}
        for run in runs:
            if run.job not in experiments:
                experiments[run.job] = _experiment(client, run.job)
            if _write(client, experiments[run.job], run, curves_of):
                written += 1
            else:
                known += 1
    except failed as exc:
        were = counted(written, "run was", "runs were")
        raise OrchError(
            f"the MLflow store {uri} refused: {exc}; {were} written",
            hint="the same command goes on with the others",
        ) from None
    return written, known


def _client(uri: str) -> tuple[MlflowClient, tuple[type[Exception], ...]]:
    # The program that was asked for writes to the store that was named, and tells nobody else.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # A server that is not there is found out in seconds, not in minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise UsageError(
            "MLflow is not installed here", hint="pip install 'orch[mlflow]', then run this again"
        ) from None
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        return MlflowClient(tracking_uri=uri), (MlflowException, OSError)
    except (MlflowException, OSError, ImportError) as exc:
        raise OrchError(
            f"the MLflow store {uri} cannot be opened: {exc}",
            hint="a server (http://HOST:PORT), or a database (sqlite:///FILE)",
        ) from None


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found is not None else client.create_experiment(name))


def _write(
    client: MlflowClient, experiment: str, run: Run, curves_of: Callable[[Run], Curves | None]
) -> bool:
    """False when it is there and had ended."""
    there = client.search_runs([experiment], f"tags.`orch.run_id` = '{run.run_id}'", max_results=1)
    if there and there[0].info.status not in ("RUNNING", "SCHEDULED"):
        return False
    if there:
        target = there[0].info.run_id
    else:
        made = client.create_run(
            experiment,
            start_time=_milliseconds(run.started_at or run.created_at),
            tags={"orch.run_id": run.run_id},
            run_name=run.run_id,
        )
        target = made.info.run_id
    metrics = [*_metrics(run), *_points(run, curves_of(run))]
    _log(client, target, metrics, [] if there else list(_params(run)), list(_tags(run)))
    if not run.state.is_open and run.verdict is not None:
        ended = _milliseconds(run.ended_at) if run.ended_at else None
        client.set_terminated(target, STATUS.get(run.verdict, "FAILED"), ended)
    return True


def _log(
    client: MlflowClient,
    target: str,
    metrics: list[Metric],
    params: list[Param],
    tags: list[RunTag],
) -> None:
    for kind, items in (("metrics", metrics), ("params", params), ("tags", tags)):
        step = BATCH[kind]
        for at in range(0, len(items), step):
            client.log_batch(target, **{kind: items[at : at + step]})


def _milliseconds(at: str) -> int:
    return round(parse_iso(at).timestamp() * 1000)


def _name(text: str) -> str:
    """MLflow's names: letters, digits and a few signs, at most 250."""
    return re.sub(r"[^\w\-. /:]", "_", text)[:250]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= VALUE_MAX else text[: VALUE_MAX - 1] + "…"


def _params(run: Run) -> Iterator[Param]:
    from mlflow.entities import Param

    for key, value in leaves(run.config):
        yield Param(_name(key), _text(value))


def _tags(run: Run) -> Iterator[RunTag]:
    from mlflow.entities import RunTag

    told = {
        "orch.config_hash": run.config_hash,
        "orch.state": run.state.value,
        "orch.verdict": run.verdict.value if run.verdict else None,
        "orch.outcome": run.outcome.value if run.outcome else None,
        "orch.outcome_reasons": "; ".join(run.outcome_reasons),
        "orch.host": run.host,
        "orch.profile": run.profile,
        "orch.snapshot": run.snapshot,
        "orch.supersedes": run.supersedes,
        "mlflow.source.name": run.job,
        "mlflow.source.git.commit": run.git_commit,
        "mlflow.note.content": run.note,
        **run.tags,
    }
    for key, value in told.items():
        if value:
            yield RunTag(_name(key), _text(value))


def _metrics(run: Run) -> Iterator[Metric]:
    from mlflow.entities import Metric

    at = _milliseconds(run.ended_at or run.created_at)
    values = dict(leaves(run.metrics))
    if run.accuracy is not None:
        values["accuracy"] = run.accuracy
    for key, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and math.isfinite(value):
            yield Metric(_name(key), float(value), at, 0)


def _points(run: Run, curves: Curves | None) -> Iterator[Metric]:
    """The curves as a report draws them: at most a few hundred points each."""
    from mlflow.entities import Metric

    at = _milliseconds(run.started_at or run.created_at)
    for (metric, phase), series in (curves.series if curves else {}).items():
        name = _name(f"curves/{phase}/{metric}" if phase else f"curves/{metric}")
        for bucket in series.buckets:
            yield Metric(name, bucket.mean, at, int(bucket.last))
