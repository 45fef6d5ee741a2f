from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch

from jobs.textdiff import config, evaluate
from jobs.textdiff.errors import TrainingError
from jobs.textdiff.evaluate import Decision, Scored
from tests.jobs.test_model import model

pytestmark = pytest.mark.torch

LABELS = ("negative", "positive")


def scored(negative: float, positive: float) -> Scored:
    return Scored(((negative,), (positive,)), tokens=4)


def test_the_likelier_class_wins() -> None:
    decisions = evaluate.decide([scored(3.0, 2.0), scored(2.0, 3.0)], seed=1)
    assert decisions == [Decision(1, False), Decision(0, False)]


def test_a_tie_is_counted_and_decided_by_a_coin_not_by_the_order_of_classes() -> None:
    texts = [scored(2.0, 2.0)] * 400
    decisions = evaluate.decide(texts, seed=1)
    assert all(decision.tie for decision in decisions)
    heads = sum(decision.predicted for decision in decisions)
    assert 150 < heads < 250
    assert decisions == evaluate.decide(texts, seed=1)
    assert decisions != evaluate.decide(texts, seed=2)
    assert evaluate.summary(texts, decisions, [0, 1] * 200, LABELS)["ties"] == 400


def test_exchanging_the_models_flips_every_prediction(tree: dict[str, Any]) -> None:
    built = config.from_tree(tree)
    ids = [[i, i + 1, i + 2] for i in range(8)]
    found = []
    for models in ([model(1), model(2)], [model(2), model(1)]):
        texts = evaluate.score(models, ids, built, mask_id=10, report=lambda done: None)
        found.append([decision.predicted for decision in evaluate.decide(texts, seed=1)])
    assert found[0] == [1 - predicted for predicted in found[1]]
    assert len(set(found[0])) == 2


def test_always_one_class_shows_in_the_shares() -> None:
    truth = [0] * 578 + [1] * 422
    texts = [scored(1.0, 2.0)] * 1000
    final = evaluate.summary(texts, evaluate.decide(texts, seed=1), truth, LABELS)
    assert final["accuracy"] == final["majority_accuracy"] == 0.578
    assert final["confusion_matrix"] == [[578, 0], [422, 0]]
    assert final["predicted_share"] == {"negative": 1.0, "positive": 0.0}
    assert final["ties"] == 0


def test_rows_of_the_confusion_matrix_are_true_labels() -> None:
    texts = [scored(1.0, 2.0), scored(1.0, 2.0), scored(2.0, 1.0)]
    final = evaluate.summary(texts, evaluate.decide(texts, seed=1), [0, 1, 1], LABELS)
    assert final["confusion_matrix"] == [[1, 0], [1, 1]]
    assert final["gap"]["mean_by_label"] == {"negative": -1.0, "positive": 0.0}
    assert final["nelbo_per_token"]["negative"] == {"negative": 0.25, "positive": 0.5}


def test_the_interval_is_wilsons() -> None:
    assert evaluate.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert evaluate.wilson(0, 10)[0] == 0.0
    assert evaluate.wilson(10, 10)[1] == pytest.approx(1.0)


def test_the_error_of_a_gap_comes_from_its_draws() -> None:
    text = Scored(((1.0, 3.0), (1.0, 1.0)), tokens=2)
    assert text.gap == 1.0
    assert text.gap_se == pytest.approx(1.0)
    assert scored(1.0, 2.0).gap_se is None


def test_broken_weights_are_an_error_not_a_prediction(tree: dict[str, Any]) -> None:
    broken = model(1)
    with torch.no_grad():
        broken.backbone.output_layer.linear.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="not finite"):
        evaluate.score(
            [broken, model(2)],
            [[1, 2]],
            config.from_tree(tree),
            mask_id=10,
            report=lambda done: None,
        )
