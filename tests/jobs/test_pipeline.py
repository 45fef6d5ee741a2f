"""The job as a run starts it, with arguments and an environment, judged by the files it leaves.

Where the process itself is what matters it is one; else `main` is called, which spares importing
torch once a test.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch

from jobs.textdiff import baselines, config, metrics, phases, pipeline, tokenizer
from jobs.textdiff.signals import Signals
from orchestrator import spec
from orchestrator.checks import binomial, outcome
from orchestrator.domain import Outcome
from tests.jobs.conftest import JOB, ROOT, tiny

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
    folder: Path,
    tree: dict[str, Any],
    *arguments: str,
    data: str | None = None,
    attempt: int = 1,
    main: Callable[[Sequence[str], Mapping[str, str]], int] = pipeline.main,
) -> subprocess.CompletedProcess[str]:
    """What `main` did: its code and output."""
    env = command(folder, tree)["env"] | {"ORCH_ATTEMPT": str(attempt)}
    if data is not None:
        env["ORCH_DATA"] = data
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            mock.patch.dict(os.environ, env),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(arguments, env)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def started(folder: Path, tree: dict[str, Any]) -> dict[str, Any]:
    """The same as arguments for a process of its own."""
    options = command(folder, tree)
    options["env"]["OMP_NUM_THREADS"] = "1"  # a tiny model gains nothing from a second
    return options


def test_the_whole_job_leaves_a_result_that_is_believed(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    done = subprocess.run(**started(tmp_path, tree), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "start (own): 100.0% of the model's numbers are loaded" in done.stdout
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
    assert final["pretrained"]["source"] == "own"
    assert final["pretrained"]["share_loaded"] == 1.0
    assert final["draws_used"] == 4
    assert final["ties"] == 0
    resolved = json.loads((tmp_path / "results" / "config.resolved.json").read_text())
    assert resolved["config"]["training"]["ema"] == tree["training"]["ema"]
    assert resolved["facts"]["parameters"] == final["parameters"]
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
    trained = {"loss", "lr", "grad_norm", "tokens_per_s", "memory_mb", "phase_step"}
    assert all(trained <= set(point) for point in points if point["phase"] != "eval")
    checked = {point["phase"]: point for point in points if "val_nelbo" in point}
    assert list(checked) == phases[:-1]
    assert checked["train:negative"]["val_nelbo_other"] > 0
    assert 0 <= checked["train:negative"]["canary_auc"] <= 1
    assert "canary_accuracy" not in checked["train:negative"]
    assert 0 <= checked["train:positive"]["canary_accuracy"] <= 1


def test_a_canary_does_a_little_of_everything_and_leaves_the_results_alone(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    tree["training"] |= {"max_steps": 100_000}
    done = run(tmp_path, tree, "--canary")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "results") == ["canary"]
    assert not (tmp_path / "results" / "canary" / "checkpoints").exists()
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


def test_a_term_signal_leaves_a_checkpoint_from_which_the_same_command_goes_on(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    tree["training"] |= {"max_steps": 1_000}
    with subprocess.Popen(
        **started(tmp_path, tree), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        try:
            for line in job.stdout:
                if "train:negative" in line:
                    break
            job.send_signal(signal.SIGTERM)
            rest = job.stdout.read()
            assert job.stderr.read() == ""
            assert job.wait(timeout=60) == 143
        finally:
            job.kill()
    assert "stopped by a signal" in rest
    results = tmp_path / "results"
    assert not (results / "metrics.json").exists()
    kept = sorted(os.listdir(results / "checkpoints"))
    assert kept == ["class-0.state.pt", "pretrained.pt"]
    step = torch.load(results / "checkpoints" / kept[0], weights_only=True)["step"]
    assert 0 < step < 1_000

    # Another config must not go on from it.
    tree["optim"] |= {"lr": 0.5}
    other = run(tmp_path, tree)
    assert (other.returncode, len(other.stderr.splitlines())) == (5, 1)
    assert "another config" in other.stderr


def test_a_reader_that_leaves_ends_no_training(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["eval"] |= {"max_examples": 8}
    options = started(tmp_path, tree)
    options["env"]["PYTHONIOENCODING"] = "ascii"
    with subprocess.Popen(**options, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        try:
            job.stdout.readline()
            job.stdout.close()
            assert job.stderr.read() == ""
            assert job.wait(timeout=60) == 0
        finally:
            job.kill()
    assert (tmp_path / "results" / "metrics.json").exists()


def test_whoever_is_ended_before_a_checkpoint_does_not_speak_of_one(
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked = Signals()
    for kept in (False, True):
        asked.kept = lambda kept=kept: kept
        with pytest.raises(SystemExit) as caught:
            asked.handle(signal.SIGTERM, None)
        assert caught.value.code == 143
        assert ("is in the checkpoints" in capfd.readouterr().out) == kept


def test_a_job_started_again_does_only_what_is_left_and_ends_with_the_same_weights(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    tree["eval"] |= {"max_examples": 8}
    assert run(whole, tree).returncode == 0
    shutil.copytree(whole / "results", cut / "results")
    # As a crash in the second class's training would have left it.
    (cut / "results" / "metrics.json").unlink()
    (cut / "results" / "checkpoints" / "class-1.pt").unlink()
    with (cut / "results" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99')
    done = run(cut, tree, attempt=2)
    assert done.returncode == 0, done.stderr
    assert "train:negative: done before" in done.stdout
    finals = [json.loads((f / "results" / "metrics.json").read_text()) for f in (whole, cut)]
    assert finals[1]["seconds"].keys() == finals[0]["seconds"].keys()
    assert finals[1]["seconds"]["total"] > finals[0]["seconds"]["total"]
    assert finals[0]["weights_sha256"] == finals[1]["weights_sha256"]
    lines = (cut / "results" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(set(steps))


def test_progress_follows_the_texts_of_each_phase(
    tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "POINT_EVERY_S", 0.0)  # a point for every step
    (tmp_path / "data").mkdir()
    long = "a long text " * 12
    rows = [f"{label}\t{long} {n}" for n in range(300) for label in ("good", "bad")]
    rows += [f"{label}\tshort {n}" for n in range(1200) for label in ("good", "bad")]
    for name, part in (("train", rows), ("dev", rows[:40]), ("test", rows[:40])):
        lines = [f"{line} {name}" for line in part]
        (tmp_path / "data" / f"{name}.tsv").write_text("\n".join(["label\ttext", *lines]) + "\n")
        tree["data"][name] = f"{name}.tsv"
    more = "\n".join(["text", *(f"{long * 2} {n}" for n in range(9000))])
    (tmp_path / "data" / "more.tsv").write_text(more + "\n")
    tree["data"] |= {"name": "files", "min_count": 1}
    tree["pretrain"] |= {"texts": "more.tsv"}
    assert run(tmp_path, tree, data=str(tmp_path / "data")).returncode == 0
    tokens: dict[str, int] = {}
    ends: dict[str, float] = {}
    for line in (tmp_path / "results" / "metrics.jsonl").read_text().splitlines():
        point = json.loads(line)
        tokens[point["phase"]] = tokens.get(point["phase"], 0) + point.get("tokens", 0)
        ends[point["phase"]] = point["progress"]
    share = tokens["pretrain"] / sum(tokens.values())
    assert ends["pretrain"] / ends["train:good"] == pytest.approx(share, rel=0.1)


def test_weights_of_other_texts_are_not_gone_on_from(tmp_path: Path, tree: dict[str, Any]) -> None:
    rows = [("a fine day", "good"), ("a bad day", "bad"), ("fine", "good"), ("bad", "bad")]
    (tmp_path / "data").mkdir()
    for name, words in (("train", " x"), ("dev", " y"), ("test", " z")):
        lines = [f"{label}\t{text}{words}" for text, label in rows]
        (tmp_path / "data" / f"{name}.tsv").write_text("\n".join(["label\ttext", *lines]) + "\n")
        tree["data"][name] = f"{name}.tsv"
    tree["data"] |= {"name": "files", "min_count": 1}
    assert run(tmp_path, tree, data=str(tmp_path / "data")).returncode == 0
    with (tmp_path / "data" / "train.tsv").open("a") as file:
        file.write("good\tmore\n")
    again = run(tmp_path, tree, data=str(tmp_path / "data"))
    assert (again.returncode, len(again.stderr.splitlines())) == (5, 1)
    assert "other training texts" in again.stderr


def test_a_run_begun_from_another_start_is_not_gone_on_with(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    starts = {}
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        made = {**tree, "seed": seed, "pretrain": {**tree["pretrain"], "steps": 6}}
        assert run(tmp_path / str(seed), made, "--pretrain").returncode == 0
        starts[seed] = tmp_path / str(seed) / "results" / "checkpoints" / "pretrained.pt"
    start = tmp_path / "start.pt"
    shutil.copy(starts[1], start)
    tree["pretrain"] |= {"checkpoint": str(start)}
    assert run(tmp_path, tree).returncode == 0
    # As a crash in the second class's training would have left it.
    (tmp_path / "results" / "metrics.json").unlink()
    (tmp_path / "results" / "checkpoints" / "class-1.pt").unlink()
    assert run(tmp_path, tree, attempt=2).returncode == 0
    (tmp_path / "results" / "checkpoints" / "class-1.pt").unlink()
    shutil.copy(starts[2], start)
    again = run(tmp_path, tree, attempt=3)
    assert (again.returncode, len(again.stderr.splitlines())) == (5, 1)
    assert "another vocabulary or start" in again.stderr


@pytest.mark.parametrize("left", ["class-0.state.pt.partial", None])
def test_a_first_checkpoint_that_was_never_whole_is_none(
    tmp_path: Path, tree: dict[str, Any], left: str | None
) -> None:
    (tmp_path / "results").mkdir()
    if left is not None:
        (tmp_path / "results" / "checkpoints").mkdir()
        (tmp_path / "results" / "checkpoints" / left).write_bytes(b"half")
    done = run(tmp_path, tree, "--pretrain", attempt=2)
    assert done.returncode == 0, done.stderr
    assert "begins again at step 0" in done.stdout


def test_what_a_crash_left_half_written_is_gone_when_the_job_is_started_again(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    results = tmp_path / "results"
    (results / "checkpoints").mkdir(parents=True)
    (results / "checkpoints" / "class-7.state.pt.partial").write_bytes(b"half")
    (results / "metrics.json.partial").write_text("{")
    assert run(tmp_path, tree, "--pretrain", attempt=2).returncode == 0
    assert list(results.rglob("*.partial")) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, tree: dict[str, Any]) -> None:
    (tmp_path / "results").write_text("a file")
    done = run(tmp_path, tree)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("error: ") and "results" in done.stderr


def test_an_attempt_that_comes_before_any_checkpoint_begins_again_and_says_so(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    done = run(tmp_path, tree, attempt=2)
    assert done.returncode == 0, done.stderr
    assert "begins again at step 0" in done.stdout


def test_a_resume_whose_checkpoints_are_gone_is_an_error_not_a_start_from_step_0(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    (tmp_path / "results" / "checkpoints").mkdir(parents=True)
    done = run(tmp_path, tree, attempt=2)
    assert done.returncode == 5
    assert "a resume from step 0" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("mdlm-conditional", ["calibrated", "class_likelihood"]),
        ("simple-diffusion", []),
        ("gpt2", []),
        ("gpt2:added", ["class_likelihood"]),
        ("gpt2:added:gpt2-both-ways", ["onwards", "class_likelihood"]),
    ],
)
def test_the_other_jobs_leave_a_result_with_their_rows(
    tmp_path: Path, name: str, variants: list[str]
) -> None:
    name, *model = name.split(":")
    tree = tiny(name, "cpu")
    tree["model"] |= {"length": 48, **dict(zip(("classes", "architecture"), model, strict=False))}
    if "class_likelihood" in variants:
        tree["class_likelihood"] |= {"steps": 5}
    done = run(tmp_path, tree)
    assert done.returncode == 0, done.stderr
    final = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert list(final["variants"]) == variants
    assert len(set(final["weights_sha256"].values())) == 2
    assert final["estimator"] == ("exact" if name == "gpt2" else "shared")
    assert final["n"] == 60
    for row in final["variants"].values():
        assert row["n"] == 60
        assert sum(map(sum, row["confusion_matrix"])) == 60
    assert final["prior"] == "uniform"
    if "calibrated" in variants:
        assert final["variants"]["calibrated"]["prior"] == "as in dev"


def test_the_incident_runs_only_leniently_and_is_judged_in_all_its_ways(tmp_path: Path) -> None:
    tree = tiny("mdlm-pretrained", "cpu")
    tree["model"] |= {"length": 48}
    tree["eval"] |= {"draws": 1, "round": 1, "table": True, "max_examples": 20}
    assert run(tmp_path, tree).returncode == 2
    done = run(tmp_path, tree, "--lenient")
    assert done.returncode == 0, done.stderr
    assert "training.sampling_eps_min is missing" in done.stdout
    final = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert (final["estimator"], final["weights"], final["draws"]) == ("independent", "raw", 1)
    ways = [(row["weights"], row["estimator"], row["draws"]) for row in final["table"]]
    assert len(set(ways)) == 8
    same = final["table"][ways.index(("raw", "independent", 1))]
    assert same["accuracy"] == final["accuracy"]


def test_pretraining_alone_leaves_a_checkpoint_another_job_starts_from(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    made = tiny("mdlm-pretrain", "cpu")
    done = run(first, made, "--pretrain")
    assert done.returncode == 0, done.stderr
    final = json.loads((first / "results" / "metrics.json").read_text())
    assert final["val_nelbo"] > 0
    start = first / "results" / "checkpoints"
    assert os.listdir(start) == ["pretrained.pt"]
    tree["model"] |= {"length": 64}
    # With a start there is nothing to pretrain on, so the texts for it are not even looked for.
    tree["pretrain"] |= {"checkpoint": "start/pretrained.pt", "texts": "nowhere.tsv"}
    (second / "data").mkdir()
    (second / "data" / "start").symlink_to(start)
    tuned = run(second, tree, "--canary", data=str(second / "data"))
    assert tuned.returncode == 0, tuned.stderr
    final = json.loads((second / "results" / "canary" / "metrics.json").read_text())
    assert final["pretrained"]["share_loaded"] == 1.0

    tree["model"] |= {"hidden_size": 16}
    refused = run(second, tree, "--canary", data=str(second / "data"))
    assert refused.returncode == 4
    assert "nothing was loaded" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_pretraining_alone_needs_something_to_train(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["pretrain"] |= {"checkpoint": "start/pretrained.pt"}
    done = run(tmp_path, tree, "--pretrain")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "pretrain.checkpoint: must be null for pretraining alone" in done.stderr


@pytest.mark.parametrize("init", ["zero", "uniform"])
def test_a_random_start_is_the_one_that_the_config_names(tree: dict[str, Any], init: str) -> None:
    tree["model"]["head_init"] = init
    job = SimpleNamespace(
        config=config.from_tree(tree),
        conditional=False,
        tokenizer=tokenizer.words(["a b c d"], vocab_size=9, min_count=1, length=3),
        world=SimpleNamespace(device="cpu"),
    )
    head = phases.Job.fresh_model(job).backbone.output_layer.linear  # type: ignore[arg-type, union-attr]
    assert bool(head.weight.any()) == (init == "uniform")


def test_pretraining_reads_all_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        pass

    def trained(job: Any, part: phases.Part) -> None:
        raise Seen(part.ids)

    monkeypatch.setattr(phases, "trained", trained)
    job = SimpleNamespace(
        config=SimpleNamespace(pretrain=SimpleNamespace(steps=1, lr=0.1, num_warmup_steps=0)),
        start=None,
        fresh_model=lambda: None,
        objective=lambda network: None,
        dataset=SimpleNamespace(train=SimpleNamespace(texts=("a b c d",))),
        unlabelled=("d a",),
        tokenizer=tokenizer.words(["a b c d"], vocab_size=9, min_count=1, length=3),
    )
    with pytest.raises(Seen) as caught:
        phases.pretrain(job)  # type: ignore[arg-type]
    assert caught.value.args == ([[1, 2, 3], [4], [4, 1]],)


def test_a_published_checkpoint_needs_gpt2s_vocabulary(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    torch.save({"state_dict": {"backbone.x": torch.zeros(1)}}, tmp_path / "last.ckpt")
    tree["pretrain"] |= {"checkpoint": str(tmp_path / "last.ckpt")}
    done = run(tmp_path, tree)
    assert done.returncode == 2
    assert "data.tokenizer" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_baselines_are_on_the_same_splits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    job = spec.load_job(ROOT, "baselines", profile="cpu", overrides={
        "data.selfmade_train": "400", "data.selfmade_test": "100", "data.dev_examples": "20",
    })  # fmt: skip
    done = run(tmp_path, dict(job.config), main=baselines.main)
    assert done.returncode == 0, done.stderr
    final = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert final["n"] == 100
    assert final["accuracy"] > final["variants"]["naive_bayes_unigram"]["majority_accuracy"]
    predictions = (tmp_path / "results" / "predictions.jsonl").read_text().splitlines()
    right = sum(row["label"] == row["predicted"] for row in map(json.loads, predictions))
    assert right / 100 == final["accuracy"]


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
