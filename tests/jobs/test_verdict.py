from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

from jobs.textdiff import phases, verdict
from jobs.textdiff.classifier import Classifier
from jobs.textdiff.evaluate import Scored

pytestmark = pytest.mark.torch


def test_what_was_trained_on_class_likelihood_is_judged_by_the_score_that_was_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 8 tokens one is masked in the first draw, all in the second: the bound says class 0, what
    the masked tokens cost class 1."""
    text = Scored(((40.0, 60.0), (56.0, 50.0)), tokens=8, levels=(0.125, 1.0))
    asked: list[Classifier] = []

    def scored(job: Any, judge: Classifier, split: Any, phase: str) -> list[Scored]:
        asked.append(judge)
        return [text, text]

    settings = SimpleNamespace(eval=SimpleNamespace(stop_z=0.0, draws=2), seed=1)
    judge = Classifier([], ("a", "b"), None, settings)  # type: ignore[arg-type]
    monkeypatch.setattr(phases, "classifier", lambda job, done, raw: judge)
    monkeypatch.setattr(verdict, "_scored", scored)
    job = SimpleNamespace(config=settings, evaluated=SimpleNamespace(labels=(1, 0)))
    row = verdict.class_likelihood_row(job, None, raw=False)["class_likelihood"]  # type: ignore[arg-type]
    assert [one.by_bound for one in asked] == [False]
    assert row["confusion_matrix"] == [[0, 1], [0, 1]]
    assert row["nelbo"] == {"a": 50.0, "b": 53.0}
    gap = (40 * 0.125 + 60 - 56 * 0.125 - 50) / 2
    assert row["gap"]["mean_by_label"] == pytest.approx({"a": -gap, "b": gap})
