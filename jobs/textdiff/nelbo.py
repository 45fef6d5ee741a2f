"""Estimates of the bound on -log p(text): which tokens to mask, and how to weigh what they cost.

An estimate is the mean over draws of weight x (summed -log p of the masked tokens). Both ways of
drawing are unbiased; they differ in what happens when two models are compared on one text.

shared       One set of masks a text, the same for every class. The number k of masked tokens runs
             through 1..L in strata (one draw in each of K equal parts), exactly k tokens are
             masked, the weight is L / k. The masks are consecutive stretches of one random order of
             the positions, laid end to end, so that all positions are masked about equally often.
             In the class difference everything the classes have in common cancels.
independent  A noise level uniform in [eps_min, eps_max] and a mask of its own for each class and
             draw, the weight 1 / t: the training loss used as a score. The noise of two
             draws is far larger than the difference of the classes.

Why L / k: with k uniform on 1..L, the mean of (L / k) x cost is sum_k (1 / k) x mean cost of a
random k-subset, which the integral of the 1 / t bound over t in [0, 1] equals term by term.

Shape suffixes: K draws, L tokens; others see `model`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from jobs.textdiff.diffusion import Denoises, LogLinear, masked_nll, sample_t


@dataclass(frozen=True, slots=True)
class Draws:
    """Masks of one text and the weight of each."""

    masked_KL: Tensor  # bool
    weight_K: Tensor


def shared_draws(length: int, count: int, generator: Generator) -> Draws:
    """Fixed-count masks in strata, for all classes together."""
    u_K = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    k_K = (u_K * length).long().clamp(max=length - 1) + 1
    order_L = torch.randperm(length, generator=generator)
    start_K = k_K.cumsum(0) - k_K
    place_KL = (torch.arange(length) - start_K[:, None]) % length
    masked_KL = torch.zeros(count, length, dtype=torch.bool)
    masked_KL[:, order_L] = place_KL < k_K[:, None]
    return Draws(masked_KL, length / k_K.float())


def independent_draws(
    length: int, count: int, generator: Generator, *, noise: LogLinear, low: float, high: float
) -> Draws:
    """Noise levels and masks as in training, none of them balanced."""
    t_K = sample_t(count, low, high, stratified=False, generator=generator)
    uniform_KL = torch.rand(count, length, generator=generator)
    return Draws(uniform_KL < noise.mask_probability(t_K)[:, None], noise.weight(t_K))


def estimates(
    model: Denoises, tokens: list[list[int]], draws: list[Draws], mask_id: int, device: torch.device
) -> Tensor:
    """[B, K] nats: every draw's estimate for every text, in one forward pass of B x K rows."""
    longest = max(len(ids) for ids in tokens)
    count = len(draws[0].weight_K)
    clean_BL = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in tokens])
    lengths_B = torch.tensor([len(ids) for ids in tokens])
    valid_BL = torch.arange(longest) < lengths_B[:, None]
    masked_BKL = torch.stack([_padded(draw.masked_KL, longest) for draw in draws])
    weight_BK = torch.stack([draw.weight_K for draw in draws])

    rows_RL = clean_BL.repeat_interleave(count, dim=0).to(device)
    valid_RL = None if bool(valid_BL.all()) else valid_BL.repeat_interleave(count, dim=0).to(device)
    with torch.inference_mode():
        nll_R = masked_nll(model, rows_RL, masked_BKL.flatten(0, 1).to(device), mask_id, valid_RL)
    return weight_BK * nll_R.cpu().view(len(tokens), count)


def _padded(masked_KL: Tensor, longest: int) -> Tensor:
    return torch.nn.functional.pad(masked_KL, (0, longest - masked_KL.shape[1]))
