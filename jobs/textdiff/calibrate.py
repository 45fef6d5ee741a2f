"""A score that weighs the noise levels: what a text costs at many masks and at few tells classes
apart unequally well. The weights are fitted on dev, by logistic regression, and with them a bias
for each class: the prior of this score is the classes' shares in dev, not uniform.

cost of class c = sum over bins b of w_b x (mean estimate of c at level b) - bias_c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jobs.textdiff.evaluate import Scored

PENALTY = 1e-2  # on the squared weights, of differences scaled to unit size


@dataclass(frozen=True, slots=True)
class Calibration:
    """`weight_B` per bin of level, `bias_C` per class; `scale` in nats."""

    weight_B: Tensor
    bias_C: Tensor
    scale: float

    def costs(self, scored: Sequence[Scored]) -> list[tuple[float, ...]]:
        x_NCB = _differences(scored, len(self.weight_B)) / self.scale
        return [tuple(row) for row in (x_NCB @ self.weight_B - self.bias_C).tolist()]


def fit(scored: Sequence[Scored], truth: Sequence[int], *, bins: int) -> Calibration:
    """The weights that make the labels of `scored` likeliest, from a fixed start."""
    x_NCB = _differences(scored, bins)
    scale = float(x_NCB.std()) or 1.0
    x_NCB, labels_N = x_NCB / scale, torch.tensor(truth)
    weight_B = torch.full((bins,), 1 / bins, dtype=torch.float64, requires_grad=True)
    bias_C = torch.zeros(x_NCB.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_B, bias_C], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(-(x_NCB @ weight_B) + bias_C, labels_N)
        value = value + PENALTY * (weight_B.square().sum() + bias_C.square().sum()) / 2
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return Calibration(weight_B.detach(), bias_C.detach(), scale)


def _differences(scored: Sequence[Scored], bins: int) -> Tensor:
    """[N, C, bins] mean estimate by level, less that of class 0; 0 in a bin without draws."""
    rows = []
    for text in scored:
        costs_CK = torch.tensor(text.estimates, dtype=torch.float64)
        at_K = (torch.tensor(text.levels) * bins).long().clamp(max=bins - 1)
        picked_KB = F.one_hot(at_K, bins).double()
        count_B = picked_KB.sum(0).clamp(min=1)
        rows.append(((costs_CK - costs_CK[:1]) @ picked_KB) / count_B)
    return torch.stack(rows)
