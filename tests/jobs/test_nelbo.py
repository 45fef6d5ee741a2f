from __future__ import annotations

import itertools
import math
import random

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch
from torch import Generator, Tensor

from jobs.textdiff import nelbo
from jobs.textdiff.diffusion import LogLinear
from jobs.textdiff.model import Denoiser
from tests.jobs.test_model import SHAPE

pytestmark = pytest.mark.torch

WORDS, LENGTH, MASK = 3, 4, 3
CPU = torch.device("cpu")
NOISE = LogLinear(1e-3)


class Exact:
    """Knows the true joint of all 3**4 texts, and so every conditional of it.

    For such a denoiser the bound is tight: averaged over all orders of unmasking, the summed
    -log p(word | visible words) is -log p(text).
    """

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        texts = list(itertools.product(range(WORDS), repeat=LENGTH))
        weights = [rng.expovariate(1) ** 1.5 + 1e-3 for _ in texts]
        self.joint = {t: w / sum(weights) for t, w in zip(texts, weights, strict=True)}
        self.known: dict[tuple[int, ...], list[list[float]]] = {}

    def features(
        self, tokens_BL: Tensor, valid_BL: Tensor | None = None, classes_B: Tensor | None = None
    ) -> Tensor:
        return torch.tensor([self._conditionals(tuple(row)) for row in tokens_BL.tolist()])

    def logits(self, features_ND: Tensor) -> Tensor:
        return torch.cat([features_ND, torch.zeros(len(features_ND), 1)], dim=1)

    def _conditionals(self, seen: tuple[int, ...]) -> list[list[float]]:
        if seen not in self.known:
            table = [[0.0] * WORDS for _ in range(LENGTH)]
            for text, chance in self.joint.items():
                if all(s in (MASK, w) for s, w in zip(seen, text, strict=True)):
                    for place, word in enumerate(text):
                        table[place][word] += chance
            self.known[seen] = [[math.log(p) if p else -99.0 for p in row] for row in table]
        return self.known[seen]


TEXT = [0, 2, 1, 1]


def draw(estimator: str, count: int, seed: int) -> nelbo.Draws:
    generator = Generator().manual_seed(seed)
    if estimator == "shared":
        return nelbo.shared_draws(LENGTH, count, generator)
    return nelbo.independent_draws(LENGTH, count, generator, noise=NOISE, low=1e-3, high=1.0)


@pytest.mark.parametrize(("estimator", "seeds"), [("shared", 500), ("independent", 2500)])
def test_an_estimator_is_right_on_average_where_the_truth_is_known(
    estimator: str, seeds: int
) -> None:
    exact = Exact(1)
    draws = [draw(estimator, 4, seed) for seed in range(seeds)]
    means = nelbo.estimates(exact, [TEXT] * seeds, draws, MASK, CPU).mean(1)
    truth = -math.log(exact.joint[tuple(TEXT)])
    error = float(means.std()) / math.sqrt(seeds)
    assert error < 0.06 * truth  # tight enough for the next line to mean something
    assert abs(float(means.mean()) - truth) < 4 * error


def test_noise_shared_by_the_classes_makes_their_difference_far_quieter() -> None:
    one, other = Exact(1), Exact(2)
    spread = {}
    for estimator in ("shared", "independent"):
        first = [draw(estimator, 1, seed) for seed in range(400)]
        second = first
        if estimator == "independent":
            second = [draw(estimator, 1, seed) for seed in range(1000, 1400)]
        scores = [
            nelbo.estimates(exact, [TEXT] * 400, draws, MASK, CPU)[:, 0]
            for exact, draws in ((one, first), (other, second))
        ]
        spread[estimator] = float((scores[0] - scores[1]).var())
    assert spread["shared"] < spread["independent"] / 5


@pytest.mark.parametrize(("length", "count"), [(1, 4), (5, 3), (7, 7), (20, 8), (3, 16)])
def test_shared_masks_have_one_count_from_each_stratum_and_its_weight(
    length: int, count: int
) -> None:
    for seed in range(20):
        draws = nelbo.shared_draws(length, count, Generator().manual_seed(seed))
        k = draws.masked_KL.sum(1)
        assert int(k.min()) >= 1
        torch.testing.assert_close(draws.weight_K, length / k.float())
        for place, masked in enumerate(k.tolist()):
            assert length * place / count < masked <= length * (place + 1) / count + 1


def test_shared_masks_cover_all_positions_equally_often() -> None:
    for seed in range(20):
        covered = nelbo.shared_draws(13, 6, Generator().manual_seed(seed)).masked_KL.sum(0)
        assert int(covered.max() - covered.min()) <= 1


def test_each_shared_mask_is_a_fair_choice_of_positions() -> None:
    total = torch.zeros(6)
    for seed in range(3000):
        total += nelbo.shared_draws(6, 3, Generator().manual_seed(seed)).masked_KL[0].float()
    share = total / total.sum()
    assert float((share - 1 / 6).abs().max()) < 0.02


@pytest.mark.parametrize(("count", "rounds"), [(8, 2), (12, 4), (6, 6), (5, 1)])
def test_each_round_has_a_draw_of_each_of_its_strata_and_all_rounds_of_all(
    count: int, rounds: int
) -> None:
    length, each = 240, count // rounds
    for seed in range(20):
        draws = nelbo.shared_draws(length, count, Generator().manual_seed(seed), rounds=rounds)
        level = draws.level_K * (1 - 1e-6)
        assert sorted((level * count).long().tolist()) == list(range(count))
        for turn in range(rounds):
            part = draws.part(turn * each, (turn + 1) * each).level_K * (1 - 1e-6)
            assert (part * each).long().tolist() == list(range(each))


def test_a_first_round_alone_is_right_on_average() -> None:
    exact, seeds = Exact(1), 1500
    draws = [
        nelbo.shared_draws(LENGTH, 4, Generator().manual_seed(seed), rounds=4).part(0, 1)
        for seed in range(seeds)
    ]
    means = nelbo.estimates(exact, [TEXT] * seeds, draws, MASK, CPU)[:, 0]
    truth = -math.log(exact.joint[tuple(TEXT)])
    error = float(means.std()) / math.sqrt(seeds)
    assert error < 0.06 * truth
    assert abs(float(means.mean()) - truth) < 4 * error


def test_classes_of_one_model_in_one_pass_cost_what_they_cost_alone() -> None:
    torch.manual_seed(0)
    told = Denoiser(SHAPE, 11, 0.0, classes=2).eval()
    for parameter in told.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = [[1, 2, 3], [4, 5]]
    draws = [
        [nelbo.shared_draws(len(ids), 3, Generator().manual_seed(seed)) for ids in tokens]
        for seed in (1, 2)
    ]
    together = nelbo.class_estimates(told, tokens, draws, 10, CPU, [0, 1])
    for label in (0, 1):
        alone = nelbo.class_estimates(told, tokens, [draws[label]], 10, CPU, [label])
        torch.testing.assert_close(together[label], alone[0])
    assert not torch.allclose(together[0], together[1])
