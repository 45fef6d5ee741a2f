"""The main job on real text, over a real sshd: from the specs of this repository to the ledger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.checks.binomial import upper_tail
from tests.contract.desk import Desk

pytestmark = [pytest.mark.ssh, pytest.mark.torch, pytest.mark.data]


def test_sst2_over_ssh_beats_guessing_and_reaches_the_ledger(jobs_desk: Desk) -> None:
    job, settings = "mdlm-pretrained-fixed", ["--profile", "cpu-smoke", "--set", "data.name=sst2"]
    jobs_desk.env["ORCH_DATA"] = os.environ["ORCH_DATA"]
    jobs_desk.orch("submit", job, *settings, "-f", timeout=400)
    jobs_desk.orch("fetch-results", job)
    run = jobs_desk.show(job)
    assert (run["state"], run["verdict"], run["outcome"]) == ("finished", "succeeded", "ok")
    assert run["fetched"] == "complete" and set(run["data"]) == {"sst2"}

    matrix = run["confusion_matrix"]
    total = sum(map(sum, matrix))
    right = sum(matrix[at][at] for at in range(len(matrix)))
    majority = max(map(sum, matrix)) / total
    assert total == run["metrics"]["n"] >= 800
    assert run["accuracy"] == pytest.approx(right / total, abs=5e-4)
    assert upper_tail(right, total, majority) < 0.01

    predictions = Path(run["results_path"]) / "predictions.jsonl"
    assert len(predictions.read_text().splitlines()) == total
