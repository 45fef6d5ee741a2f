"""Which class's model finds a text likelier: scores, decisions, and what they are worth.

The score of class c is the estimated bound on -log p(text | c) in nats; the lower one wins. The
prior is uniform. `gap` = score(negative) - score(positive): above zero means positive.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from jobs.textdiff import batches, nelbo
from jobs.textdiff.config import Config
from jobs.textdiff.diffusion import LogLinear
from jobs.textdiff.errors import TrainingError
from jobs.textdiff.model import Denoiser
from jobs.textdiff.train import precision


@dataclass(frozen=True, slots=True)
class Scored:
    """One text: the draws' estimates by class, [C][K] nats."""

    estimates: tuple[tuple[float, ...], ...]
    tokens: int

    @property
    def scores(self) -> tuple[float, ...]:
        return tuple(statistics.fmean(draws) for draws in self.estimates)

    @property
    def gap(self) -> float:
        negative, positive = self.scores
        return negative - positive

    @property
    def gap_se(self) -> float | None:
        """Standard error of the gap over the draws, strata not credited; None at one draw."""
        differences = [a - b for a, b in zip(*self.estimates, strict=True)]
        if len(differences) < 2:
            return None
        return statistics.stdev(differences) / math.sqrt(len(differences))


@dataclass(frozen=True, slots=True)
class Decision:
    predicted: int
    tie: bool


def score(
    models: Sequence[Denoiser],
    ids: Sequence[list[int]],
    config: Config,
    *,
    mask_id: int,
    report: Callable[[int], None],
) -> list[Scored]:
    """Every text under every class's model, in the order of `ids`.

    The noise of a text depends on the seed and its row alone, not on how texts are grouped.
    `report` is told how many texts are done. TrainingError: a score that is not finite.
    """
    device = next(models[0].parameters()).device
    result: dict[int, Scored] = {}
    for model in models:
        model.eval()
    for rows in batches.by_length(ids, config.eval.batch_tokens, copies=config.eval.draws):
        tokens = [ids[row] for row in rows]
        by_class = []
        for label, model in enumerate(models):
            draws = [_draws(config, len(ids[row]), row, label) for row in rows]
            with precision(config, device):
                by_class.append(nelbo.estimates(model, tokens, draws, mask_id, device))
        _keep(result, rows, tokens, torch.stack(by_class))
        report(len(result))
    return [result[row] for row in range(len(ids))]


def decide(scored: Sequence[Scored], seed: int) -> list[Decision]:
    """The likelier class of each text. A tie is decided by a seeded coin and marked as a tie."""
    coin = random.Random(f"{seed}:ties")
    decisions = []
    for text in scored:
        tie = text.gap == 0
        decisions.append(Decision(coin.randrange(2) if tie else int(text.gap > 0), tie))
    return decisions


def summary(
    scored: Sequence[Scored],
    decisions: Sequence[Decision],
    truth: Sequence[int],
    labels: Sequence[str],
) -> dict[str, Any]:
    """What metrics.json says of the evaluation; rows of the confusion matrix are true labels."""
    n, classes = len(truth), range(len(labels))
    matrix = [[0 for _ in classes] for _ in classes]
    for true, decision in zip(truth, decisions, strict=True):
        matrix[true][decision.predicted] += 1
    right = sum(matrix[c][c] for c in classes)
    gaps = [text.gap for text in scored]
    own = {
        labels[c]: [gap for gap, true in zip(gaps, truth, strict=True) if true == c]
        for c in classes
    }
    return {
        "accuracy": right / n,
        "accuracy_interval": list(wilson(right, n)),
        "n": n,
        "labels": list(labels),
        "confusion_matrix": matrix,
        "majority_accuracy": max(sum(row) for row in matrix) / n,
        "predicted_share": _by(labels, [sum(row[c] for row in matrix) / n for c in classes]),
        "true_share": _by(labels, [sum(row) / n for row in matrix]),
        "ties": sum(decision.tie for decision in decisions),
        "nelbo": _by(labels, [statistics.fmean(t.scores[c] for t in scored) for c in classes]),
        "nelbo_per_token": _nelbo_table(scored, truth, labels),
        "gap": {
            "mean": statistics.fmean(gaps),
            "se": _se(gaps),
            "mean_by_label": {name: statistics.fmean(own[name]) for name in labels if own[name]},
            "se_by_label": {name: _se(own[name]) for name in labels if own[name]},
            "noise_se": _mean_noise(scored),
        },
    }


def wilson(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % score interval of a share. Source: Wilson 1927."""
    share, spread = right / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _draws(config: Config, length: int, row: int, label: int) -> nelbo.Draws:
    shared = config.eval.estimator == "shared"
    name = f"{config.seed}:{row}" if shared else f"{config.seed}:{row}:{label}"
    generator = Generator().manual_seed(random.Random(name).getrandbits(62))
    if shared:
        return nelbo.shared_draws(length, config.eval.draws, generator)
    return nelbo.independent_draws(
        length,
        config.eval.draws,
        generator,
        noise=LogLinear(config.noise.eps),
        low=config.training.sampling_eps_min,
        high=config.training.sampling_eps_max,
    )


def _keep(
    result: dict[int, Scored], rows: Sequence[int], tokens: Sequence[list[int]], values: Tensor
) -> None:
    if not bool(torch.isfinite(values).all()):
        raise TrainingError("a text's score is not finite: the weights are broken")
    for at, row in enumerate(rows):
        result[row] = Scored(tuple(tuple(c) for c in values[:, at].tolist()), len(tokens[at]))


def _by(labels: Sequence[str], values: Sequence[float]) -> Mapping[str, float]:
    return dict(zip(labels, values, strict=True))


def _nelbo_table(
    scored: Sequence[Scored], truth: Sequence[int], labels: Sequence[str]
) -> dict[str, Mapping[str, float]]:
    """true label -> model -> nats per token."""
    table: dict[str, Mapping[str, float]] = {}
    for true, name in enumerate(labels):
        texts = [text for text, own in zip(scored, truth, strict=True) if own == true]
        tokens = sum(text.tokens for text in texts)
        if texts:
            table[name] = _by(
                labels,
                [sum(t.scores[c] for t in texts) / tokens for c in range(len(labels))],
            )
    return table


def _se(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _mean_noise(scored: Sequence[Scored]) -> float | None:
    known = [text.gap_se for text in scored if text.gap_se is not None]
    return statistics.fmean(known) if known else None
