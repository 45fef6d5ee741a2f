from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch
from torch import Generator, Tensor

from jobs.textdiff.diffusion import (
    LogLinear,
    masked_nll,
    sample_t,
    subs_log_probs,
    training_loss,
)
from tests.jobs.test_model import model

pytestmark = pytest.mark.torch

MASK = 10
NOISE = LogLinear(1e-3)


def test_a_visible_token_is_carried_over_and_the_mask_is_never_predicted() -> None:
    logits = torch.randn(2, 4, 11, generator=Generator().manual_seed(0))
    noisy = torch.tensor([[1, MASK, 3, MASK], [MASK, 5, 6, 7]])
    probabilities = subs_log_probs(logits, noisy, MASK).exp()
    for row, place in [(0, 0), (0, 2), (1, 1), (1, 3)]:
        expected = torch.zeros(11)
        expected[noisy[row, place]] = 1
        assert torch.equal(probabilities[row, place], expected)
    assert probabilities[..., MASK].max() == 0
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 4))


def test_the_cost_of_masked_positions_alone_is_that_of_the_definition() -> None:
    some = model()
    clean = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [1, 1, 1, 1]])
    masked = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    noisy = torch.where(masked, MASK, clean)
    log_probs = subs_log_probs(some.logits(some.features(noisy)), noisy, MASK)
    expected = -log_probs.gather(-1, clean[..., None]).sum((1, 2))
    found = masked_nll(some, clean, masked, MASK)
    torch.testing.assert_close(found, expected)
    assert found[2] == 0


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_stratified_noise_levels_fall_one_in_each_part(count: int) -> None:
    low, high = 1e-3, 0.8
    for seed in range(20):
        generator = Generator().manual_seed(seed)
        t = sample_t(count, low, high, stratified=True, generator=generator)
        part = ((t - low) / (high - low) * count).floor().long()
        assert part.tolist() == list(range(count))


def test_noise_levels_without_strata_are_uniform_and_do_clump() -> None:
    generator = Generator().manual_seed(0)
    t = sample_t(4000, 0.1, 0.9, stratified=False, generator=generator)
    assert 0.1 <= t.min() < 0.11
    assert 0.89 < t.max() <= 0.9
    assert abs(float(t.mean()) - 0.5) < 0.02
    parts = ((t - 0.1) / 0.8 * 4000).floor().long()
    assert len(parts.unique()) < 3000


def test_the_weight_is_one_over_t_because_the_noise_is_log_linear() -> None:
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64).requires_grad_()
    sigma = NOISE.total(t)
    (slope,) = torch.autograd.grad(sigma.sum(), t)
    torch.testing.assert_close(NOISE.weight(t), slope / torch.expm1(sigma))
    torch.testing.assert_close(NOISE.mask_probability(t), 1 - torch.exp(-sigma))


def loss_at(t: float, clean: Tensor, valid: Tensor | None = None, seed: int = 0) -> float:
    return training_loss(
        model(),
        clean,
        valid,
        mask_id=MASK,
        noise=NOISE,
        draw_t=lambda count: torch.full((count,), t),
        generator=Generator().manual_seed(seed),
    ).item()


def test_the_loss_is_the_weighted_cost_over_all_tokens_masked_or_not() -> None:
    clean = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    some, t = model(), 0.5
    masked = torch.rand(clean.shape, generator=Generator().manual_seed(0)) < 0.999 * t
    assert 0 < int(masked.sum()) < 8
    cost = masked_nll(some, clean, masked, MASK).item()
    assert loss_at(t, clean) == pytest.approx(cost / t / 8, rel=1e-5)


def test_padding_is_neither_masked_nor_counted() -> None:
    clean = torch.tensor([[1, 2, 3, 0, 0, 0]])
    valid = torch.tensor([[True, True, True, False, False, False]])
    everything = masked_nll(model(), clean[:, :3], valid[:, :3], MASK).item()
    # At t = 1 all but one token in a thousand is masked; this seed masks all three.
    assert loss_at(1.0, clean, valid) == pytest.approx(everything / 3, rel=1e-4)
