from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

from jobs.textdiff import phases, validation, verdict
from jobs.textdiff.classifier import Classifier
from jobs.textdiff.evaluate import Scored

pytestmark = pytest.mark.torch

SETTINGS = SimpleNamespace(eval=SimpleNamespace(stop_z=0.0, draws=2), seed=1)
JUDGE = Classifier([], ("a", "b"), None, SETTINGS)  # type: ignore[arg-type]
# Of 8 tokens one is masked in the first draw, all in the second: the bound says class 0, what the
# masked tokens cost class 1.
TEXT = Scored(((40.0, 60.0), (56.0, 50.0)), tokens=8, levels=(0.125, 1.0))


def test_what_was_trained_on_class_likelihood_is_judged_by_the_score_that_was_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Classifier] = []

    def scored(job: Any, judge: Classifier, split: Any, phase: str) -> list[Scored]:
        asked.append(judge)
        return [TEXT, TEXT]

    monkeypatch.setattr(phases, "classifier", lambda job, done, raw: JUDGE)
    monkeypatch.setattr(verdict, "_scored", scored)
    job = SimpleNamespace(config=SETTINGS, evaluated=SimpleNamespace(labels=(1, 0)))
    row = verdict.class_likelihood_row(job, None, raw=False)["class_likelihood"]  # type: ignore[arg-type]
    assert [one.by_bound for one in asked] == [False]
    assert row["confusion_matrix"] == [[0, 1], [0, 1]]
    assert row["nelbo"] == {"a": 50.0, "b": 53.0}
    gap = (40 * 0.125 + 60 - 56 * 0.125 - 50) / 2
    assert row["gap"]["mean_by_label"] == pytest.approx({"a": -gap, "b": gap})


@pytest.mark.parametrize(("phase", "accuracy"), [("train", 0.0), ("class-likelihood", 1.0)])
def test_so_it_is_while_it_trains(
    monkeypatch: pytest.MonkeyPatch, phase: str, accuracy: float
) -> None:
    model = SimpleNamespace(load_state_dict=lambda weights: None)
    judge = replace(JUDGE, models=[model])  # type: ignore[list-item]
    split = SimpleNamespace(labels=(1,))
    monkeypatch.setattr(phases, "_probed", lambda job, labels, told: (judge, split))
    monkeypatch.setattr(validation, "look", lambda judge, split: [TEXT])
    job = SimpleNamespace(dataset=SimpleNamespace(labels=("a", "b")))
    look = phases.of_one_model(job, phase)({})  # type: ignore[arg-type]
    assert look == {"val_nelbo": 53.0 / 8, "canary_accuracy": accuracy}
