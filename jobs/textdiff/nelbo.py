"""Estimates of the bound on -log p(text): which tokens to mask, and how to weigh what they cost.

An estimate is the mean over draws of weight x (summed -log p of the masked tokens). `shared` is
unbiased. `independent` leaves out the levels below eps_min and above 1 - noise.eps: with the
published 1e-3 for both its mean is off by less than a thousandth of the bound. The two differ in
what happens when two models are compared on one text.

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

Shape suffixes: K draws, L tokens, G draws a round (K / rounds), S rounds, R rows of a forward pass
(class x text x draw); others see `model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from jobs.textdiff.batches import collate
from jobs.textdiff.diffusion import Denoises, LogLinear, masked_nll, sample_t


@dataclass(frozen=True, slots=True)
class Draws:
    """Masks of one text and the weight of each."""

    masked_KL: Tensor  # bool
    weight_K: Tensor

    @property
    def level_K(self) -> Tensor:
        """The share of tokens that is masked."""
        return self.masked_KL.float().mean(1)

    def part(self, first: int, last: int) -> Draws:
        return Draws(self.masked_KL[first:last], self.weight_K[first:last])


def shared_draws(length: int, count: int, generator: Generator, *, rounds: int = 1) -> Draws:
    """Fixed-count masks in `count` strata, for all classes together.

    In `rounds` equal parts that can be stopped after any of them: each part has one draw in each of
    its own count / rounds strata, and all parts together one in each of `count`.

    For 4 draws, 5 tokens and 2 rounds of 2 draws: the strata of all are [0, 1/4), [1/4, 2/4), ...
    and a round has one draw in each half, so that round 1 may have strata 1 and 2, then round 2 has
    0 and 3. Say u is 0.30, 0.60, 0.10, 0.80 and so k = floor(5 u) + 1 is 2, 4, 1, 5. In a random
    order of the positions, 3 0 4 1 2, the draws mask stretches laid end to end and around: 3 0,
    then 4 1 2 3, then 0, then 4 1 2 3 0. The weights are 5/2, 5/4, 5/1, 5/5.
    """
    each = count // rounds
    finer_GS = torch.rand(each, rounds, generator=generator).argsort(1)
    place_SG = torch.arange(each) * rounds + finer_GS.T
    u_K = (place_SG.reshape(-1) + torch.rand(count, generator=generator)) / count
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
    model: Denoises,
    tokens: Sequence[list[int]],
    draws: Sequence[Draws],
    mask_id: int,
    device: torch.device,
) -> Tensor:
    """[B, K] nats of a model that is told no class: every draw's estimate for every text, in one
    forward pass of B x K rows."""
    return class_estimates(model, tokens, [draws], mask_id, device, [None])[0]


def class_estimates(
    model: Denoises,
    tokens: Sequence[list[int]],
    draws: Sequence[Sequence[Draws]],
    mask_id: int,
    device: torch.device,
    labels: Sequence[int | None],
) -> Tensor:
    """[C, B, K] nats for the class labels of one model, in one forward pass of C x B x K rows; on
    the device, which may still be at work on it.

    `draws` has the texts' draws of each class. A label of None: the model has no classes.
    """
    count, batch = len(draws[0][0].weight_K), collate(tokens, range(len(tokens)))
    longest, repeats = batch.tokens_BL.shape[1], len(labels)
    masked_RL = torch.cat([_padded(draw.masked_KL, longest) for own in draws for draw in own])
    weight_R = torch.cat([draw.weight_K for own in draws for draw in own])
    rows_RL, valid_RL = (
        x_BL.repeat_interleave(count, dim=0).repeat(repeats, 1)
        for x_BL in (batch.tokens_BL, batch.valid_BL)
    )
    seen_RL = None if bool(batch.valid_BL.all()) else valid_RL.to(device)
    classes_R = None
    if labels[0] is not None:
        classes_R = torch.tensor(labels).repeat_interleave(len(tokens) * count).to(device)
    with torch.inference_mode():
        nll_R = masked_nll(
            model, rows_RL.to(device), masked_RL.to(device), mask_id, seen_RL, classes_R
        )
    return (weight_R.to(device) * nll_R).view(repeats, len(tokens), count)


def _padded(masked_KL: Tensor, longest: int) -> Tensor:
    return torch.nn.functional.pad(masked_KL, (0, longest - masked_KL.shape[1]))
