"""The job as a run starts it: a process with an environment, judged by the files it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

from jobs.textdiff import pipeline
from jobs.textdiff.errors import TrainingError
from orchestrator import spec
from orchestrator.checks import binomial, outcome
from orchestrator.domain import Outcome
from tests.jobs.conftest import JOB, ROOT

pytestmark = pytest.mark.torch


def command(folder: Path, tree: dict[str, Any], *arguments: str) -> dict[str, Any]:
    """Arguments of subprocess.run for the job with this config."""
    (folder / "config.json").write_text(json.dumps(tree))
    env = {name: value for name, value in os.environ.items() if not name.startswith("ORCH_")}
    env |= spec.load_job(ROOT, JOB).env
    env |= {
        "ORCH_RUN_ID": "r1",
        "ORCH_RUN_DIR": str(folder),
        "ORCH_CONFIG": str(folder / "config.json"),
        "ORCH_RESULTS_DIR": str(folder / "results"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    argv = [sys.executable, "-m", "jobs.textdiff.pipeline", *arguments]
    return {"args": argv, "cwd": ROOT, "env": env, "text": True}


def run(
    folder: Path, tree: dict[str, Any], *arguments: str, data: str | None = None
) -> subprocess.CompletedProcess[str]:
    options = command(folder, tree, *arguments)
    if data is None:
        options["env"]["OMP_NUM_THREADS"] = "1"  # a tiny model gains nothing from a second
    else:
        options["env"]["ORCH_DATA"] = data
    return subprocess.run(**options, capture_output=True, timeout=300)


def test_the_whole_job_leaves_a_result_that_is_believed(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    done = run(tmp_path, tree)
    assert done.returncode == 0, done.stderr
    assert "100.0% of the model's numbers come from pretrained.pt" in done.stdout
    raw = (tmp_path / "results" / "metrics.json").read_bytes()
    final = json.loads(raw)
    judged = outcome.judge(
        raw,
        metrics_declared=True,
        expect=spec.load_job(ROOT, JOB).expect,
        primary="accuracy",
        succeeded=True,
    )
    assert judged.outcome is not Outcome.INVALID_RESULT, judged.reasons
    assert judged.accuracy == final["accuracy"]
    assert final["n"] == 60
    low, high = final["accuracy_interval"]
    assert low < final["accuracy"] < high
    assert 0.93 < final["bayes_accuracy"] < 0.97
    assert set(final["nelbo"]) == set(final["weights_sha256"]) == {"negative", "positive"}
    assert len(set(final["weights_sha256"].values())) == 2
    assert final["pretrained"] == {"source": "own", "share_loaded": 1.0}
    assert {"pretrain", "train:negative", "eval", "total"} <= set(final["seconds"])
    assert {"mean", "se"} <= set(final["gap"])

    predictions = (tmp_path / "results" / "predictions.jsonl").read_text().splitlines()
    right = sum(row["label"] == row["predicted"] for row in map(json.loads, predictions))
    assert right / len(predictions) == final["accuracy"]

    points = [
        json.loads(line)
        for line in (tmp_path / "results" / "metrics.jsonl").read_text().splitlines()
    ]
    progress = [point["progress"] for point in points]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert [point["step"] for point in points] == sorted({point["step"] for point in points})
    phases = list(dict.fromkeys(point["phase"] for point in points))
    assert phases == ["pretrain", "train:negative", "train:positive", "eval"]


def test_a_job_can_start_from_the_checkpoint_of_another(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    tree["eval"] |= {"max_examples": 4, "draws": 1}
    tree["training"] |= {"max_steps": 6}
    assert run(first, tree).returncode == 0
    start = first / "results" / "checkpoints" / "pretrained.pt"
    tree["pretrain"] |= {"checkpoint": str(start)}
    done = run(second, tree)
    assert done.returncode == 0, done.stderr
    finals = [json.loads((f / "results" / "metrics.json").read_text()) for f in (first, second)]
    assert finals[0]["weights_sha256"] == finals[1]["weights_sha256"]
    assert finals[1]["pretrained"] == {"source": "checkpoint", "share_loaded": 1.0}

    tree["model"] |= {"hidden_size": 16}
    refused = run(second, tree)
    assert refused.returncode == 4
    assert "nothing was loaded" in refused.stderr


def test_a_canary_does_a_little_of_everything_and_leaves_the_results_alone(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    tree["training"] |= {"max_steps": 100_000}
    done = run(tmp_path, tree, "--canary")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "results") == ["canary"]
    assert json.loads((tmp_path / "results" / "canary" / "metrics.json").read_text())["n"] == 16


def test_a_config_error_is_one_line_and_exit_code_2(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["training"]["emma"] = 0.1
    done = run(tmp_path, tree)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: config training.emma: unknown key; did you mean training.ema?\n"


def test_missing_data_is_one_line_that_says_what_to_set(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    tree["data"]["name"] = "imdb"
    done = run(tmp_path, tree)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "ORCH_DATA" in done.stderr


def test_a_term_signal_ends_the_job_at_once_with_143(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["training"] |= {"max_steps": 1_000_000}
    with subprocess.Popen(
        **command(tmp_path, tree), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        try:
            for line in job.stdout:
                if "train:negative" in line:
                    break
            job.send_signal(signal.SIGTERM)
            job.stdout.read()
            assert job.stderr.read() == ""
            assert job.wait(timeout=20) == 143
        finally:
            job.kill()
    assert not (tmp_path / "results" / "metrics.json").exists()
    assert (tmp_path / "results" / "checkpoints" / "pretrained.pt").exists()


def test_two_equal_models_are_an_error_not_a_coin_toss(
    tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tree))
    real = pipeline.phases.fine_tuned
    monkeypatch.setattr(pipeline.phases, "fine_tuned", lambda job, start, _: real(job, start, 0))
    around = pipeline.surroundings(
        {
            "ORCH_CONFIG": str(tmp_path / "config.json"),
            "ORCH_RESULTS_DIR": str(tmp_path / "results"),
        }
    )
    with pytest.raises(TrainingError, match="the same weights"):
        pipeline.run(around, canary=True, clock=lambda: 0.0, say=lambda line: None)


@pytest.mark.slow
@pytest.mark.data
def test_on_real_sentences_the_small_profile_beats_always_guessing_the_majority(
    tmp_path: Path,
) -> None:
    job = spec.load_job(ROOT, JOB, profile="cpu-smoke", overrides={"data.name": "sst2"})
    done = run(tmp_path, dict(job.config), data=os.environ["ORCH_DATA"])
    assert done.returncode == 0, done.stderr
    final = json.loads((tmp_path / "results" / "metrics.json").read_text())
    right = round(final["accuracy"] * final["n"])
    assert final["n"] >= 500
    assert binomial.upper_tail(right, final["n"], final["majority_accuracy"]) < 0.01
    assert final["ties"] == 0
