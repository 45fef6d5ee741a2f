from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch

from jobs.textdiff import batches, config
from jobs.textdiff.errors import TrainingError
from jobs.textdiff.model import Denoiser
from jobs.textdiff.train import Ema, Schedule, StepReport, fit
from tests.jobs.test_model import SHAPE

pytestmark = pytest.mark.torch

# Two patterns: what stands at one end tells the other.
IDS = [[1, 2, 3, 1], [4, 5, 6, 4, 5]] * 40


def trained(
    tree: dict[str, Any], steps: int = 40, *, seed: str = "a", lr: float = 1e-2
) -> tuple[dict[str, torch.Tensor], list[StepReport], Denoiser]:
    torch.manual_seed(0)
    model = Denoiser(SHAPE, 11, 0.0)
    reports: list[StepReport] = []
    weights = fit(
        model,
        IDS,
        config.from_tree(tree),
        Schedule(steps, lr, 5),
        mask_id=10,
        seed=seed,
        report=reports.append,
    )
    return weights, reports, model


def test_the_loss_falls(tree: dict[str, Any]) -> None:
    _, reports, _ = trained(tree)
    losses = [report.loss for report in reports]
    assert losses[0] > 1.5
    assert sum(losses[-10:]) / 10 < losses[0] / 2


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(
    tree: dict[str, Any],
) -> None:
    first, again, other = (trained(tree, 5, seed=seed)[0] for seed in "aab")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_result_is_the_average_not_the_last_weights(tree: dict[str, Any]) -> None:
    weights, _, model = trained(tree, 20)
    last = model.state_dict()
    assert set(weights) == set(last)
    name = "backbone.output_layer.linear.weight"
    assert not torch.allclose(weights[name], last[name])


def test_the_average_begins_quickly_and_slows_down() -> None:
    weight = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        weight.weight.fill_(0.0)
    ema = Ema(weight, 0.9)
    expected = 0.0
    for n in range(1, 200):
        with torch.no_grad():
            weight.weight.fill_(float(n))
        ema.update(weight)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        assert float(ema.shadow["weight"]) == pytest.approx(expected, rel=1e-5)
        if n == 1:
            assert expected == pytest.approx(1 - 2 / 11)


def test_the_rate_rises_to_its_peak_and_stays() -> None:
    schedule = Schedule(steps=100, lr=2.0, warmup=4)
    assert [schedule.rate(step) for step in (1, 2, 4, 5, 100)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert Schedule(steps=10, lr=2.0, warmup=0).rate(1) == 2.0


def test_a_loss_that_is_not_finite_stops_the_job_at_its_step(tree: dict[str, Any]) -> None:
    model = Denoiser(SHAPE, 11, 0.0)

    def poison(step: StepReport) -> None:
        if step.step == 3:
            torch.nn.init.constant_(model.backbone.output_layer.linear.bias, float("nan"))

    with pytest.raises(TrainingError, match="a: loss is nan at step 4 of 60"):
        fit(
            model,
            IDS,
            config.from_tree(tree),
            Schedule(60, 1e-3, 5),
            mask_id=10,
            seed="a",
            report=poison,
        )


def test_no_training_text_is_an_error(tree: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="no training text"):
        fit(
            Denoiser(SHAPE, 11, 0.0),
            [],
            config.from_tree(tree),
            Schedule(1, 1.0, 0),
            mask_id=10,
            seed="a",
            report=lambda step: None,
        )


def test_an_epoch_holds_every_text_once_in_batches_of_one_length() -> None:
    ids = [[1] * length for length in (3, 5) for _ in range(8)]
    stream = batches.endless(ids, 4, random.Random(1))
    for _ in range(2):
        epoch = [next(stream) for _ in range(4)]
        assert sorted(row for batch in epoch for row in batch.rows) == list(range(16))
        assert all(batch.valid_BL is None for batch in epoch)


def test_texts_of_different_lengths_are_padded_and_the_padding_is_known() -> None:
    batch = batches.collate([[1, 2], [3]], [0, 1])
    assert batch.tokens_BL.tolist() == [[1, 2], [3, 0]]
    assert batch.valid_BL is not None
    assert batch.valid_BL.tolist() == [[True, True], [True, False]]
    assert batch.tokens == 3


@pytest.mark.parametrize("tokens", [1, 12, 1000])
def test_evaluation_groups_hold_every_text_once_within_the_budget(tokens: int) -> None:
    ids = [[1] * (1 + i % 7) for i in range(30)]
    groups = list(batches.by_length(ids, tokens, copies=2))
    assert sorted(row for group in groups for row in group) == list(range(30))
    for group in groups:
        longest = max(len(ids[row]) for row in group)
        assert len(group) == 1 or len(group) * longest * 2 <= tokens


def test_gradients_are_clipped(tree: dict[str, Any]) -> None:
    tree["trainer"] |= {"gradient_clip_val": 1e-12}
    tree["optim"] |= {"eps": 1.0}  # AdamW divides by the gradient's size; this keeps it visible
    weights, _, _ = trained(tree, 3, lr=1.0)
    torch.manual_seed(0)
    start = Denoiser(SHAPE, 11, 0.0).state_dict()
    assert all(torch.allclose(weights[name], start[name], atol=1e-9) for name in weights)
    tree["trainer"] |= {"gradient_clip_val": 1.0}
    loose, _, _ = trained(tree, 3, lr=1.0)
    assert any(not torch.allclose(loose[name], start[name], atol=1e-9) for name in start)
