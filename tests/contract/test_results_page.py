"""docs/results.md out of a real ledger: a tiny run, tagged as one on a GPU would be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli import orch_env, run_orch
from tests.helpers.project import commit_all, run_git, write_yaml

ROOT = Path(__file__).resolve().parents[2]
JOB = "mdlm-pretrained-fixed"
TINY = {
    "data.selfmade_train": 400, "data.selfmade_test": 40, "data.dev_examples": 20,
    "model.hidden_size": 32, "model.n_blocks": 1, "training.max_steps": 20,
    "lr_scheduler.num_warmup_steps": 5, "pretrain.steps": 20, "pretrain.num_warmup_steps": 5,
    "loader.global_batch_size": 16, "eval.draws": 4, "eval.round": 4, "eval.table": "true",
}  # fmt: skip

pytestmark = pytest.mark.torch


def test_a_tagged_run_becomes_its_row_its_ablation_and_its_goal(tmp_path: Path) -> None:
    project, home = tmp_path / "project", tmp_path / "home"
    shutil.copytree(ROOT / "jobs", project / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    write_yaml(project / "orch.yaml", {"name": "rows"})
    run_git(project, "init", "-q")
    commit_all(project, "as it is")

    def orch(*args: str, codes: tuple[int, ...] = (0,)) -> str:
        done = run_orch(args, home=home, project=project, timeout=400)
        assert done.returncode in codes, done.stderr
        return done.stdout

    settings = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    tag = ("--tag", "results=imdb/gpu", "--no-canary", "--force")
    # 7: so little training may well be no better than guessing, which is not the matter here.
    orch("submit", JOB, "--profile", "cpu-smoke", *settings, *tag, "-f", codes=(0, 7))
    orch("fetch-results", JOB, codes=(0, 7))
    run = json.loads(orch("show", JOB, "--json"))

    page = tmp_path / "results.md"

    def written(home: Path) -> str:
        argv = [sys.executable, "-m", "jobs.results", "--page", str(page)]
        env = orch_env(home, {"ORCH_PROJECT": str(project)})
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return page.read_text()

    text = written(home)
    assert written(tmp_path / "another machine") == text
    accuracy, config = f"{100 * run['accuracy']:.1f} %", run["config_hash"][:11]
    exactly = f"{100 * run['metrics']['accuracy']:.2f} %"
    rows = text[text.index("## All models: imdb, profile `gpu`") : text.index("## Goals")]
    row = next(line for line in rows.splitlines() if line.startswith(f"| `{JOB}`"))
    assert f"| {accuracy} |" in row
    assert f"| {config} |" in row
    assert "imdb, profile `gpu`, one pair of models a config" in text
    assert f"| imdb, `gpu` | `{JOB}` | >= 85.0 % | {exactly}, in " in text
    assert "| train:positive | 20 |" in text[text.index(f"How `{JOB}` learnt") :]
