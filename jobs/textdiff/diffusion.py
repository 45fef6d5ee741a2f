"""Masked diffusion: the noise, the SUBS parameterization and the masks.

A token is masked with probability P(t) = (1 - eps) t (log-linear noise: sigma(t) = -log(1 - P(t))),
never unmasked. The continuous-time bound on -log p(text) is the integral over t of
sigma'(t) / expm1(sigma(t)) = 1 / t times the summed -log p of the masked tokens.
Source: Sahoo et al. 2024, "Simple and Effective Masked Diffusion Language Models".

SUBS: the mask itself is never predicted, and a visible token is carried over with probability 1,
so it costs exactly 0. Because of that the head is computed at masked positions only.

Shape suffixes: see `model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from jobs.textdiff import fused
from jobs.textdiff.fused import NEVER


class Denoises(Protocol):
    def features(
        self, tokens_BL: Tensor, valid_BL: Tensor | None = None, classes_B: Tensor | None = None
    ) -> Tensor: ...

    def logits(self, features_ND: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class LogLinear:
    eps: float

    def mask_probability(self, t: Tensor) -> Tensor:
        return (1 - self.eps) * t

    def weight(self, t: Tensor) -> Tensor:
        """sigma' / expm1(sigma): 1 / t, whatever eps is."""
        return 1 / t


def sample_t(
    count: int, low: float, high: float, *, stratified: bool, generator: Generator
) -> Tensor:
    """[count] noise levels in [low, high], uniform one by one.

    Stratified: exactly one in each of `count` equal parts, in order.
    """
    u = torch.rand(count, generator=generator)
    if stratified:
        u = (torch.arange(count) + u) / count
    return low + u * (high - low)


def subs_log_probs(logits_BLV: Tensor, noisy_BL: Tensor, mask_id: int) -> Tensor:
    """[B, L, V] log-probabilities of the clean tokens: the definition, for all positions."""
    scores = logits_BLV.clone()
    scores[..., mask_id] = NEVER
    log_probs = scores.log_softmax(dim=-1)
    carried = torch.full_like(log_probs, NEVER).scatter(-1, noisy_BL[..., None], 0.0)
    return torch.where((noisy_BL == mask_id)[..., None], log_probs, carried)


def masked_nll(
    model: Denoises,
    clean_BL: Tensor,
    masked_BL: Tensor,
    mask_id: int,
    valid_BL: Tensor | None = None,
    classes_B: Tensor | None = None,
) -> Tensor:
    """[B] summed -log p of the masked tokens given the visible ones, in nats.

    Equal to the sum of -`subs_log_probs` at the clean tokens, at the price of the masked ones only.
    """
    rows_N, at_N = fused.places(masked_BL)  # first: a GPU is waited for here
    noisy_BL = torch.where(masked_BL, mask_id, clean_BL)
    features_BLD = model.features(noisy_BL, valid_BL, classes_B)
    logits_NV = model.logits(features_BLD.flatten(0, 1).index_select(0, at_N))
    nll_N = fused.token_nll(logits_NV, clean_BL.flatten()[at_N], mask_id)
    return torch.zeros(len(clean_BL), device=nll_N.device).index_add(0, rows_N, nll_N)


def token_masks(
    valid_BL: Tensor, t_B: Tensor, noise: LogLinear, generator: Generator
) -> tuple[Tensor, Tensor]:
    """([B, L] masks, [B] weights): each token masked alone with P(t); the weight is 1 / t."""
    uniform_BL = torch.rand(valid_BL.shape, generator=generator)
    masked_BL = (uniform_BL < noise.mask_probability(t_B)[:, None]) & valid_BL
    return masked_BL, noise.weight(t_B)


def count_masks(valid_BL: Tensor, u_B: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """([B, L] masks, [B] weights): exactly k of a text's L tokens masked; the weight is L / k.

    `u_B` in [0, 1) says which k of 1..L. The same bound as above with far less variance: no text
    is without a mask, and the weight fits the number masked. Source: Nie et al. 2025 (LLaDA).
    """
    length_B = valid_BL.sum(1)
    k_B = (u_B * length_B).long().clamp(max=length_B - 1) + 1
    uniform_BL = torch.rand(valid_BL.shape, generator=generator).masked_fill(~valid_BL, 2.0)
    masked_BL = uniform_BL.argsort(1).argsort(1) < k_B[:, None]
    return masked_BL, length_B / k_B
