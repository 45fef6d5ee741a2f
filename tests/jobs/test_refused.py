"""What a training job says where it cannot begin or go on: one line, and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch

from jobs.textdiff import baselines, parallel, pipeline
from jobs.textdiff.errors import ConfigError, TrainingError
from jobs.textdiff.parallel import World
from jobs.textdiff.phases import Job
from jobs.textdiff.train import Stopped
from orchestrator import spec
from tests.jobs.conftest import ROOT, tiny
from tests.jobs.test_pipeline import run

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("main", [pipeline.main, baselines.main])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "not enough memory: MemoryError; a smaller "),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto"), "CUDA out of memory. Tried; a "),
        (RuntimeError("x DefaultCPUAllocator: can't allocate memory: 9"), "not enough memory: x "),
        (
            OSError(28, "No space left on device"),
            "results: No space left on device; what was saved",
        ),
    ],
)
def test_what_is_no_fault_of_the_code_is_one_line(
    tmp_path: Path,
    error: Exception,
    told: str,
    main: Callable[[Sequence[str], Mapping[str, str]], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules[main.__module__], "run", fails)
    done = run(tmp_path, {}, main=main)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("error: ") and told in done.stderr


def test_a_fault_of_the_code_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "run", lambda *_, **__: {}["absent"])
    with pytest.raises(KeyError):
        run(tmp_path, {})


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_first_alone_tells_what_all_of_them_meet(
    rank: str, tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    place = World(int(rank), 2, torch.device("cpu"))  # the other one never comes
    monkeypatch.setattr(parallel, "world", lambda env: place)
    tree["data"]["name"] = "imdb"
    done = run(tmp_path, tree)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1 - int(rank))

    def fails(*_: Any, **__: Any) -> None:
        raise TrainingError("a text's score is not finite")

    monkeypatch.setattr(pipeline, "run", fails)  # of its own share of the texts
    where = "process 1: " if rank == "1" else ""
    assert run(tmp_path, tree).stderr == f"error: {where}a text's score is not finite\n"


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE: 'x' is no number of processes"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK: '-1' is no number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK: 2 is not below WORLD_SIZE 2"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": ""}, "LOCAL_RANK: '' is no number"),
        ({"WORLD_SIZE": "2"}, "MASTER_ADDR is not set, but WORLD_SIZE is 2"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "x"}, "MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "y"}, "MASTER_PORT: 'y' is no"),
        ({"WORLD_SIZE": "1", "RANK": "1"}, "RANK: 1 is not below WORLD_SIZE 1"),
    ],
)
def test_a_place_among_processes_that_is_none_is_one_line(
    tmp_path: Path, env: Mapping[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=told):
        parallel.world(env)
    done = run(tmp_path, {})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert told in done.stderr


def test_a_rank_without_a_number_of_processes_is_none() -> None:
    assert parallel.world({"RANK": "1", "LOCAL_RANK": "1"}).first
    assert parallel.rank_of({"RANK": "1"}) == "0"


def test_whoever_leaves_because_another_process_was_asked_to_ends_as_that_one_does(
    tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*_: Any, **__: Any) -> None:
        raise Stopped

    monkeypatch.setattr(pipeline, "run", stops)
    assert run(tmp_path, tree).returncode == 143


def test_a_number_of_an_attempt_that_is_none_is_one_line(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    done = run(tmp_path, tree, attempt="x")  # type: ignore[arg-type]
    assert (done.returncode, done.stderr.splitlines()) == (
        2, ["error: ORCH_ATTEMPT: 'x' is no number of an attempt: 1, 2, ..."],
    )  # fmt: skip


FILES = {"name": "files", "train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}


def files(folder: Path, **classes: Sequence[str]) -> str:
    """Splits of a text a class each, in a folder of their own."""
    (folder / "data").mkdir()
    for name, labels in classes.items():
        lines = [f"{label}\t{name} of {place}" for place, label in enumerate(labels)]
        text = "\n".join(["label\ttext", *lines]) + "\n"
        (folder / "data" / f"{name}.tsv").write_text(text)
    return str(folder / "data")


def test_more_classes_than_anybody_trains_a_model_each_for_are_refused_before_training(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    tree["data"] |= FILES
    names = [f"id-{number:03}" for number in range(101)]
    data = files(tmp_path, train=names, dev=names[:2], test=names[:2])
    done = run(tmp_path, tree, data=data)
    assert (done.returncode, done.stdout) == (3, "")
    assert "101 classes (id-000, id-001, " in done.stderr and "data.label" in done.stderr


def test_a_dev_split_that_lacks_a_class_calibrates_nothing_and_that_is_said(
    tmp_path: Path,
) -> None:
    tree = tiny("mdlm-conditional", "cpu")
    tree["data"] |= {**FILES, "min_count": 1}
    data = files(tmp_path, train="ab" * 9, dev="a", test="ab")
    done = run(tmp_path, tree, "--canary", data=data)
    assert done.returncode == 0, done.stderr
    assert "warning: fewer than 20 training texts of a, b" in done.stdout
    assert "warning: nothing is calibrated, dev has no text of b" in done.stdout
    final = json.loads((tmp_path / "results" / "canary" / "metrics.json").read_text())
    assert "calibrated" not in final["variants"]
    assert final["prior"] == "uniform"


@pytest.mark.parametrize("name", ["baselines", "gpt2"])
def test_texts_without_a_word_are_one_line_before_training(tmp_path: Path, name: str) -> None:
    made = tiny("gpt2", "cpu") if name == "gpt2" else dict(spec.load_job(ROOT, name).config)
    made["data"] = made["data"] | FILES
    data = files(tmp_path, train="ab" * 3, dev="ab", test="ab")
    lines = [f"{label}\t<br{space}>" for label in "ab" for space in ("", " ", "/")]
    (tmp_path / "data" / "train.tsv").write_text("\n".join(["label\ttext", *lines]) + "\n")
    done = run(
        tmp_path, made, data=data, main=(baselines if name == "baselines" else pipeline).main
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "no training text has a word in it" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("tokenizer", "bpe"), ("vocab_size", "9"), ("min_count", "2"), ("hub", "a/b")],
)
def test_baselines_refuse_a_change_of_what_they_do_not_read(
    tmp_path: Path, key: str, value: str
) -> None:
    job = spec.load_job(ROOT, "baselines", overrides={f"data.{key}": value})
    done = run(tmp_path, dict(job.config), main=baselines.main)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: config data.{key}: ")
    assert "has no effect with" in done.stderr


def test_baselines_are_written_also_where_nobody_hears_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = spec.load_job(ROOT, "baselines", profile="cpu")
    (tmp_path / "config.json").write_text(json.dumps(job.config))
    env = {"ORCH_CONFIG": str(tmp_path / "config.json"), "ORCH_RESULTS_DIR": str(tmp_path)}
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert baselines.main(["--canary"], env) == 0
    assert json.loads((tmp_path / "canary" / "metrics.json").read_text())["n"] > 0


@pytest.mark.parametrize("classes", ["added", "adaln"])
@pytest.mark.parametrize("counts", [[30] * 40, [1000, 1000, 5, 5]], ids=["many", "rare"])
@pytest.mark.parametrize("noise", ["uniform", "loglinear"])  # a coin may mask nothing of a text
def test_classes_that_a_short_training_never_met_are_no_equal_models(
    tmp_path: Path, noise: str, classes: str, counts: Sequence[int]
) -> None:
    tree = tiny("simple-diffusion", "cpu")
    tree["noise"] |= {"type": noise}
    tree["data"] |= {**FILES, "min_count": 1}
    tree["model"] |= {"classes": classes, "head_init": "zero"}
    tree["eval"] |= {"draws": 1, "round": 1, "stop_z": 0.0}
    tree["trainer"] |= {"validate_texts": 4}
    labels = [f"c{label}" for label, count in enumerate(counts) for _ in range(count)]
    few = sorted(set(labels))
    data = files(tmp_path, train=labels, dev=few, test=few)
    done = run(tmp_path, tree, "--canary", data=data)
    assert done.returncode == 0, done.stderr
    assert "warning: these steps of training were too few to learn c" in done.stdout


@pytest.mark.parametrize("classes", ["added", "adaln"])
def test_one_model_that_is_never_told_the_class_is_an_error_in_a_canary_too(
    tmp_path: Path, classes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tiny("simple-diffusion", "cpu")
    tree["model"] |= {"classes": classes, "head_init": "zero"}
    assert run(tmp_path, tree, "--canary").returncode == 0
    plain = Job.objective
    monkeypatch.setattr(Job, "objective", lambda job, network, labels=None: plain(job, network))
    done = run(tmp_path, tree, "--canary")
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1)
    assert "the classes' models are the same weights" in done.stderr


@pytest.mark.parametrize("key", ["C", "alpha"])
def test_baselines_refuse_a_strength_that_is_none(tmp_path: Path, key: str) -> None:
    job = spec.load_job(ROOT, "baselines", overrides={f"baselines.{key}": "-1.0"})
    done = run(tmp_path, dict(job.config), main=baselines.main)
    assert done.returncode == 2
    assert done.stderr == f"error: config baselines.{key}: must be above 0, is -1.0\n"
