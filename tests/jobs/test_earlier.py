"""A results folder that is used again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

from jobs.textdiff import config, earlier
from jobs.textdiff.errors import TrainingError
from jobs.textdiff.metrics import Point
from tests.jobs.conftest import tiny
from tests.jobs.test_pipeline import run

pytestmark = pytest.mark.torch


def small(tree: dict[str, Any]) -> dict[str, Any]:
    tree["eval"] |= {"max_examples": 8}
    tree["pretrain"] |= {"steps": 6}
    tree["training"] |= {"max_steps": 6}
    return tree


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_weights_are_judged_otherwise_without_being_trained_anew(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    assert run(tmp_path, small(tree)).returncode == 0
    tree["eval"] |= {"batch_tokens": 64, "draws": 8, "max_examples": 9}
    tree["trainer"] |= {"checkpoint_minutes": 9.0, "validate_minutes": 9.0, "validate_texts": 9}
    again = run(tmp_path, tree)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 3
    assert json.loads((tmp_path / "results" / "metrics.json").read_text())["n"] == 9


def test_class_likelihood_begins_with_weights_that_eval_names() -> None:
    tree = tiny("mdlm-conditional", "cpu")
    assert "eval.weights" in earlier.of_weights(config.from_tree(tree))
    tree["class_likelihood"] |= {"steps": 0}
    assert "eval.weights" not in earlier.of_weights(config.from_tree(tree))


def test_another_jobs_results_are_refused_and_left_as_they_are(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    assert run(tmp_path, small(tree)).returncode == 0
    before = contents(tmp_path / "results")
    tree["optim"] |= {"lr": 0.5}
    done = run(tmp_path, tree)
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1)
    assert "config.resolved.json was made with another config (optim.lr), other" in done.stderr
    other = run(tmp_path, tiny("simple-diffusion", "cpu"))  # its checkpoints have other names
    assert (other.returncode, len(other.stderr.splitlines())) == (5, 1)
    assert contents(tmp_path / "results") == before


def test_a_run_that_had_checkpoints_does_not_begin_again_when_they_are_gone(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    assert run(tmp_path, small(tree)).returncode == 0
    (tmp_path / "results" / "metrics.json").unlink()
    shutil.rmtree(tmp_path / "results" / "checkpoints")
    before = contents(tmp_path / "results")
    done = run(tmp_path, tree, attempt=2)
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1)
    assert "a resume from step 0: no checkpoint in" in done.stderr
    assert contents(tmp_path / "results") == before


@pytest.mark.parametrize(
    ("saved", "points"),
    [
        (False, []),
        (False, [("a", 1, 1.0), ("a", 2, 59.0), ("a", 3, 60.0)]),
        # Whether it was written when it fell due is not known, only that nothing came after.
        (False, [("a", 1, 1.0), ("a", 2, 90.0)]),
        (True, [("a", 1, 1.0), ("a", 2, 90.0), ("a", 3, 91.0)]),
        (True, [("a", 1, 1.0), ("b", 1, 2.0)]),
        # Each attempt was ended before one fell due.
        (False, [("a", 1, 1.0), ("a", 9, 50.0), ("a", 1, 51.0), ("a", 9, 99.0), ("a", 10, 99.5)]),
    ],
)
def test_what_was_trained_tells_whether_there_was_a_checkpoint(
    saved: bool, points: list[tuple[str, int, float]]
) -> None:
    told = [Point(place, name, spent, step) for place, (name, step, spent) in enumerate(points)]
    assert earlier.saved(told, 1.0) == saved


@pytest.mark.parametrize(("before", "now", "was_saved"), [(30.0, 0.5, False), (0.5, 30.0, True)])
def test_when_a_checkpoint_fell_due_is_the_earlier_attempts_own_matter(
    before: float, now: float, was_saved: bool, tmp_path: Path, tree: dict[str, Any]
) -> None:
    tree["trainer"] |= {"checkpoint_minutes": before}
    (tmp_path / earlier.RESOLVED).write_text(json.dumps({"config": tree}))
    points = [
        {"step": step, "phase": "a", "phase_step": step, "elapsed_s": 45.0 * step}
        for step in (1, 2, 3)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    tree["trainer"] |= {"checkpoint_minutes": now}
    said: list[str] = []
    try:
        earlier.check_resume(tmp_path, config.from_tree(tree), said.append)
    except TrainingError:
        assert was_saved
    else:
        assert not was_saved and "begins again" in said[0]
