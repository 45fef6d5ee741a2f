"""`orch ledger export --format mlflow`, into a real MLflow server; read back by MLflow's client.

The server, its client and the `orch` that exports live in an environment of their own
(`make mlflow-venv`): an MLflow server brings a hundred packages.
"""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, WORK, Desk, assert_clear, until
from tests.helpers import processes
from tests.helpers.cli import assert_exit, orch_env
from tests.helpers.lanes import MLFLOW

CURVE = """
with open(os.path.join(out, "metrics.jsonl"), "w") as file:
    for step in range(20):
        file.write(json.dumps({"step": step, "phase": "fit", "loss": 1 / (step + 1)}) + "\\n")
"""
READ = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
found = []
for experiment in client.search_experiments():
    for run in client.search_runs([experiment.experiment_id]):
        curve = client.get_metric_history(run.info.run_id, "curves/fit/loss")
        found.append({"experiment": experiment.name, "name": run.info.run_name,
                      "status": run.info.status, "params": run.data.params,
                      "metrics": run.data.metrics, "tags": run.data.tags,
                      "curve": [[point.step, point.value] for point in curve]})
print(json.dumps(found))
"""
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=60) as reply:
            return bool(reply.read() == b"OK")
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server with a new store."""
    place, port = tmp_path / "mlflow", free_port()
    place.mkdir()
    argv = [str(MLFLOW / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--workers", "1", "--backend-store-uri", f"sqlite:///{place}/store.db"]
    env = orch_env(place, {**QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    with open(place / "log", "wb") as log:
        started = subprocess.Popen(argv, cwd=place, env=env, stdout=log, stderr=log)
    try:
        until(lambda: started.poll() is not None or answers(f"http://127.0.0.1:{port}"), 240, 0.2)
        assert started.poll() is None, (place / "log").read_text()[-3000:]
        yield f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        started.wait(30)
        processes.end(processes.with_environment("HOME", str(place)))


@pytest.fixture
def desk(new_desk: MakeDesk) -> Desk:
    made = new_desk({"train": TRAIN}, files={"work.py": WORK + CURVE})
    made.submit("train", "--tag", "kind=first", "--note", "as it was")
    made.orch("wait")
    made.orch("fetch-results")
    return made


def export(desk: Desk, uri: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`orch` of the environment that has MLflow."""
    argv = [str(MLFLOW / "orch"), "ledger", "export", "--format", "mlflow", "--to", uri]
    env = orch_env(desk.home, desk.env)
    done = subprocess.run(
        argv, cwd=desk.project, env=env, input="", capture_output=True, text=True, timeout=240
    )
    assert_exit(done, code)
    return done


def stored(uri: str, home: Path) -> list[dict[str, Any]]:
    argv = [str(MLFLOW / "python"), "-c", READ, uri]
    env = orch_env(home, QUIET)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=240, check=True)
    return list(json.loads(done.stdout))


@pytest.mark.mlflow
@pytest.mark.slow
def test_a_server_has_the_runs_as_the_ledger_has_them_and_each_once(
    desk: Desk, server: str, tmp_path: Path
) -> None:
    assert "1 run written" in export(desk, server).stderr
    shown = desk.show()
    (found,) = stored(server, tmp_path)
    assert (found["experiment"], found["name"]) == ("train", shown["run_id"])
    assert found["status"] == "FINISHED"
    assert found["params"] == {"right": "45", "lr": "0.0001"}
    assert found["metrics"]["accuracy"] == 0.9 and found["metrics"]["n"] == 100
    tags = found["tags"]
    assert tags["orch.config_hash"] == shown["config_hash"] and tags["orch.outcome"] == "ok"
    assert tags["kind"] == "first" and tags["mlflow.note.content"] == "as it was"
    assert found["curve"] == [[step, 1 / (step + 1)] for step in range(20)]

    again = export(desk, server)
    assert "0 runs written" in again.stderr and "1 was there" in again.stderr
    assert len(stored(server, tmp_path)) == 1


@pytest.mark.mlflow
@pytest.mark.slow
def test_a_server_that_is_not_there_is_named(desk: Desk) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert_clear(export(desk, nowhere, code=2), nowhere, "0 runs were written")


def test_without_mlflow_or_a_store_it_says_what_to_do(desk: Desk) -> None:
    assert_clear(desk.orch("ledger", "export", "--format", "mlflow", code=2), "--to")
    assert_clear(desk.orch("ledger", "export", "--format", "xml", code=2), "mlflow")
    try:
        import mlflow  # noqa: F401
    except ImportError:
        done = desk.orch("ledger", "export", "--format", "mlflow", "--to", "file:x", code=2)
        assert_clear(done, "orch[mlflow]")
