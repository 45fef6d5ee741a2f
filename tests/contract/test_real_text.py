"""The main job on real text, over a real sshd: from the specs of this repository to the ledger."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.checks.binomial import upper_tail
from tests.helpers.cli import run_orch
from tests.helpers.project import commit_all, run_git, write_yaml
from tests.helpers.sshd import PrivateSshd

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.ssh, pytest.mark.torch, pytest.mark.data]


def test_sst2_over_ssh_beats_guessing_and_reaches_the_ledger(
    tmp_path: Path, make_sshd: Callable[..., PrivateSshd]
) -> None:
    # The same user on both sides: this interpreter, which has torch, must be readable there.
    server = make_sshd(as_root=os.getuid() == 0)
    project = tmp_path / "project"
    shutil.copytree(ROOT / "jobs", project / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    host = {"ssh": server.alias, "root": str(server.root_dir), "python": sys.executable}
    write_yaml(project / "orch.yaml", {"name": "real", "hosts": {"box": host}})
    run_git(project, "init", "-q")
    commit_all(project, "as it is")
    env = {"ORCH_SSH_CONFIG": str(server.client_config), "ORCH_DATA": os.environ["ORCH_DATA"]}
    job = "mdlm-pretrained-fixed"

    def orch(*args: str, timeout: float = 400) -> str:
        done = run_orch(args, home=tmp_path / "home", project=project, env=env, timeout=timeout)
        assert done.returncode == 0, done.stderr
        return done.stdout

    orch("submit", job, "--host", "box", "--profile", "cpu-smoke", "--set", "data.name=sst2", "-f")
    orch("fetch-results", job)
    run = json.loads(orch("show", job, "--json"))
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
