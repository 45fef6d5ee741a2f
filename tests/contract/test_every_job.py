"""Every training job of this repository, at its smallest, over a real sshd and to the ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.desk import Desk

JOBS = {
    "baselines": {"data.selfmade_train": "400"},
    "gpt2": {"eval.max_examples": "100"},
    "mdlm-conditional": {"class_likelihood.steps": "5", "eval.draws": "8", "eval.round": "8"},
    "mdlm-pretrain": {},
    "mdlm-pretrained": {},
    "simple-diffusion": {"eval.draws": "8", "eval.round": "8"},
}
TINY = {
    "data.selfmade_train": "400",
    "training.max_steps": "12",
    "lr_scheduler.num_warmup_steps": "5",
    "loader.global_batch_size": "16",
}

pytestmark = [pytest.mark.ssh, pytest.mark.torch, pytest.mark.slow]


def test_every_job_runs_over_ssh_and_its_result_reaches_the_ledger(jobs_desk: Desk) -> None:
    def orch(*args: str, good: tuple[int, ...] = (0, 7)) -> str:
        # 7: a model of twelve steps is not expected to be worth anything
        done = jobs_desk.orch(*args, code=None, timeout=300)
        assert done.returncode in good, done.stderr
        return done.stdout

    for job, own in JOBS.items():
        sizes = {"data.selfmade_test": "100", "data.dev_examples": "30"}
        sizes |= {} if job == "baselines" else TINY
        if job not in ("baselines", "simple-diffusion"):
            sizes |= {"pretrain.steps": "12", "pretrain.num_warmup_steps": "5"}
        settings = [part for k, v in (sizes | own).items() for part in ("--set", f"{k}={v}")]
        if job == "mdlm-pretrained":
            refused = orch("check", job, "--profile", "cpu", *settings, "--json", good=(5,))
            assert not json.loads(refused)["ok"]
            settings.append("--force")
        orch("submit", job, "--profile", "cpu", "--no-canary", "-f", *settings)
        orch("fetch-results", job)
        run = jobs_desk.show(job)
        assert run["verdict"] == "succeeded"
        if job == "mdlm-pretrain":
            assert run["metrics"]["val_nelbo"] > 0
            assert (Path(run["results_path"]) / "checkpoints" / "pretrained.pt").is_file()
        else:
            assert run["accuracy"] == run["metrics"]["accuracy"]
            assert sum(map(sum, run["confusion_matrix"])) == 100
