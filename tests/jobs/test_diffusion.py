from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch
from torch import Generator, Tensor

from jobs.textdiff import batches, config, objectives
from jobs.textdiff.diffusion import (
    LogLinear,
    count_masks,
    masked_nll,
    sample_t,
    subs_log_probs,
    token_masks,
)
from jobs.textdiff.model import Denoiser
from jobs.textdiff.tokenizer import Tokenizer
from tests.jobs.test_model import SHAPE, model

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
    sigma = -torch.log1p(-(1 - NOISE.eps) * t)
    (slope,) = torch.autograd.grad(sigma.sum(), t)
    torch.testing.assert_close(NOISE.weight(t), slope / torch.expm1(sigma))
    torch.testing.assert_close(NOISE.mask_probability(t), 1 - torch.exp(-sigma))


def masks(t: float, valid: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    levels = torch.full((len(valid),), t)
    return token_masks(valid, levels, NOISE, Generator().manual_seed(seed))


def test_tokens_are_masked_at_their_rate_and_padding_never() -> None:
    valid = torch.arange(400) < torch.tensor([[400], [200]])
    masked, weight = masks(0.3, valid)
    assert weight.tolist() == pytest.approx([1 / 0.3] * 2)
    assert not masked[1, 200:].any()
    for row, tokens in ((0, 400), (1, 200)):
        share, spread = float(masked[row].sum() / tokens), (0.3 * 0.7 / tokens) ** 0.5
        assert abs(share - 0.3 * 0.999) < 4 * spread


@pytest.mark.parametrize("u", [0.0, 0.34, 0.99])
def test_counted_masks_hide_exactly_so_many_and_padding_never(u: float) -> None:
    valid = torch.arange(9) < torch.tensor([[9], [3], [1]])
    masked, weight = count_masks(valid, torch.full((3,), u), Generator().manual_seed(1))
    expected = [int(u * length) + 1 for length in (9, 3, 1)]
    assert masked.sum(1).tolist() == expected
    assert not (masked & ~valid).any()
    pairs = zip((9, 3, 1), expected, strict=True)
    assert weight.tolist() == pytest.approx([length / k for length, k in pairs])


def test_counted_masks_choose_every_position_equally_often() -> None:
    valid = torch.ones(4000, 5, dtype=torch.bool)
    masked, _ = count_masks(valid, torch.full((4000,), 0.3), Generator().manual_seed(2))
    share = masked.float().mean(0)
    assert float((share - 0.4).abs().max()) < 0.04


def objective(tree: dict[str, Any], **noise: object) -> objectives.Diffusion:
    tree["noise"] |= noise
    words = Tokenizer("words", "\n".join("abcdefghij"), 10, 8)
    return objectives.Diffusion(model(), config.from_tree(tree), words)


@pytest.mark.parametrize("noise", ["loglinear", "uniform", "unweighted"])
def test_the_loss_is_the_weighted_cost_over_all_tokens_masked_or_not(
    tree: dict[str, Any], noise: str
) -> None:
    whole = objective(tree, type=noise)
    batch = batches.collate([[1, 2, 3, 4, 5, 6, 7, 8], [3, 4, 5]], [0, 1])
    rows = whole.prepare(batch, Generator().manual_seed(3))
    clean, valid, masked, _ = rows
    cost = masked_nll(model(), clean, masked, MASK, valid)
    again = objectives.draw_masks(whole.config, valid, Generator().manual_seed(3))
    assert torch.equal(again[0], masked)
    expected = (again[1] * cost).sum().item() / 11
    assert whole(*rows).sum().item() == pytest.approx(expected, rel=1e-5)
    assert masked.any()


def test_unweighted_masks_are_those_of_uniform_and_weigh_a_token_as_much_in_the_mean(
    tree: dict[str, Any],
) -> None:
    lengths = torch.tensor([1, 2, 8]).repeat(2000)
    valid = torch.arange(8) < lengths[:, None]
    drawn = {}
    for noise in ("uniform", "unweighted"):
        config_ = objective(tree, type=noise).config
        drawn[noise] = objectives.draw_masks(config_, valid, Generator().manual_seed(3))
    assert torch.equal(drawn["uniform"][0], drawn["unweighted"][0])
    for length in (1, 2, 8):
        own = lengths == length
        for masked, weight in drawn.values():
            mean = (masked[own].sum(1) * weight[own]).mean() / length
            assert float(mean) == pytest.approx(1.0, abs=0.03)
        assert len(drawn["unweighted"][1][own].unique()) == 1


def test_the_class_likelihood_is_bayes_rule_over_what_masked_tokens_cost(
    tree: dict[str, Any],
) -> None:
    torch.manual_seed(0)
    told = Denoiser(SHAPE, 11, 0.0, classes=3).eval()
    for parameter in told.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tree["model"] |= {"classes": "added"}
    tree["class_likelihood"] |= {"generative": 0.5}
    built, words = config.from_tree(tree), Tokenizer("words", "\n".join("abcdefghij"), 10, 8)
    whole = objectives.ClassLikelihood(told, built, words, [2, 0], 3)
    batch = batches.collate([[1, 2, 3, 4], [5, 6]], [0, 1])
    rows = whole.prepare(batch, Generator().manual_seed(1))
    clean, valid, masked, weight = rows[3:]
    costs = torch.stack(
        [masked_nll(told, clean, masked, MASK, valid, torch.full((2,), c)) for c in (0, 1, 2)]
    )
    own = costs[[2, 0], [0, 1]]
    assert (weight > 1).any()  # it counts for what the text costs, not for which class is chosen
    expected = (own + (-costs).logsumexp(0)).mean() + 0.5 * (weight * own).sum() / 6
    assert whole(*rows).sum().item() == pytest.approx(expected.item(), rel=1e-5)
