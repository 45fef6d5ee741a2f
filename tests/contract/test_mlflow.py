"""`orch ledger export --format mlflow`, into a real store; read back by MLflow itself."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, WORK, Desk, assert_clear

CURVE = """
with open(os.path.join(out, "metrics.jsonl"), "w") as file:
    for step in range(20):
        file.write(json.dumps({"step": step, "phase": "fit", "loss": 1 / (step + 1)}) + "\\n")
"""


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def desk(new_desk: MakeDesk) -> Desk:
    made = new_desk({"train": TRAIN}, files={"work.py": WORK + CURVE})
    made.submit("train", "--tag", "kind=first", "--note", "as it was")
    made.orch("wait")
    made.orch("fetch-results")
    return made


@pytest.mark.filterwarnings("ignore")  # MLflow's own, of the libraries under it
def test_runs_are_found_in_the_store_as_the_ledger_has_them(desk: Desk, tmp_path: Path) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    tracking = pytest.importorskip("mlflow.tracking", reason="the extra orch[mlflow] is not here")
    pytest.importorskip("sqlalchemy", reason="MLflow's database store needs sqlalchemy")
    uri = f"sqlite:///{tmp_path}/store.db"
    desk.orch("ledger", "export", "--format", "mlflow", "--to", uri, timeout=180)
    shown = desk.show()
    client = tracking.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("train")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == shown["run_id"] and found.info.status == "FINISHED"
    assert found.data.params == {"right": "45", "lr": "0.0001"}
    assert found.data.metrics["accuracy"] == 0.9 and found.data.metrics["n"] == 100
    tags = found.data.tags
    assert tags["orch.config_hash"] == shown["config_hash"] and tags["orch.outcome"] == "ok"
    assert tags["kind"] == "first" and tags["mlflow.note.content"] == "as it was"
    curve = client.get_metric_history(found.info.run_id, "curves/fit/loss")
    assert [(point.step, point.value) for point in curve] == [(s, 1 / (s + 1)) for s in range(20)]

    again = desk.orch("ledger", "export", "--format", "mlflow", "--to", uri, timeout=180)
    assert "0 runs written" in again.stderr and "1 were there" in again.stderr
    assert len(client.search_runs([experiment.experiment_id])) == 1

    nowhere = f"http://127.0.0.1:{free_port()}"
    refused = desk.orch(
        "ledger", "export", "--format", "mlflow", "--to", nowhere, code=1, timeout=180
    )
    assert_clear(refused, nowhere, "0 runs were written")


def test_without_mlflow_or_a_store_it_says_what_to_do(desk: Desk) -> None:
    assert_clear(desk.orch("ledger", "export", "--format", "mlflow", code=2), "--to")
    assert_clear(desk.orch("ledger", "export", "--format", "xml", code=2), "mlflow")
    try:
        import mlflow  # noqa: F401
    except ImportError:
        done = desk.orch("ledger", "export", "--format", "mlflow", "--to", "file:x", code=2)
        assert_clear(done, "orch[mlflow]")
