from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch

from jobs.textdiff import batches, config, gpt2, objectives
from jobs.textdiff.errors import ConfigError
from jobs.textdiff.model import Shape
from jobs.textdiff.tokenizer import Tokenizer

pytestmark = pytest.mark.torch

SHAPE = Shape(hidden=16, cond=0, blocks=2, heads=2)
START = 10


def model(seed: int = 0, classes: int = 0) -> gpt2.GPT2:
    torch.manual_seed(seed)
    made = gpt2.GPT2(SHAPE, 11, 0.0, classes).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize(("size", "count"), [("small", 124_439_808), ("medium", 354_823_168)])
def test_sizes_have_the_published_numbers_of_parameters(size: str, count: int) -> None:
    with torch.device("meta"):
        made = gpt2.GPT2(gpt2.SIZES[size], 50_257, 0.1)
    assert sum(weight.numel() for weight in made.parameters()) == count


def test_no_position_sees_what_comes_after_it() -> None:
    some = model()
    before = some.features(torch.tensor([[1, 2, 3, 4]]))
    after = some.features(torch.tensor([[1, 2, 9, 9]]))
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2:], before[:, 2:], atol=1e-4)


def test_the_likelihoods_of_all_texts_of_a_length_sum_to_one() -> None:
    some = model()
    pairs = torch.cartesian_prod(torch.arange(11), torch.arange(11))
    with torch.inference_mode():
        total = (-gpt2.nll(some, pairs, None, START)).exp().sum()
    assert float(total) == pytest.approx(1.0, rel=1e-4)


def test_padding_costs_nothing_and_changes_nothing() -> None:
    some = model()
    alone = gpt2.nll(some, torch.tensor([[1, 2, 3]]), None, START)
    valid = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    padded = gpt2.nll(some, torch.tensor([[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]]), valid, START)
    torch.testing.assert_close(padded[:1], alone)
    assert padded[1] > padded[0]


def test_a_fresh_model_is_nearly_undecided() -> None:
    torch.manual_seed(0)
    fresh = gpt2.GPT2(SHAPE, 11, 0.0)
    cost = gpt2.nll(fresh, torch.tensor([[1, 2, 3, 4]]), None, START)
    assert cost.item() == pytest.approx(4 * math.log(11), rel=0.02)


def test_one_model_is_told_the_class_at_every_position() -> None:
    told = model(classes=2)
    tokens = torch.tensor([[1, 2, 3], [1, 2, 3]])
    first, second = told.features(tokens, None, torch.tensor([0, 1]))
    assert bool(((first - second).abs().amax(1) > 1e-3).all())


def test_every_parameter_learns() -> None:
    some = model(classes=2)
    gpt2.nll(some, torch.tensor([[1, 2, 3]]), None, START, torch.tensor([1])).sum().backward()
    idle = [name for name, p in some.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_both_ways_is_the_mean_of_a_text_and_of_its_reverse() -> None:
    torch.manual_seed(3)
    both = gpt2.BothWays(SHAPE, 11, 0.0, classes=2).eval()
    for parameter in both.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    texts, valid = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]]), torch.ones(2, 5).bool()
    valid[0, 3:] = False
    found = gpt2.nll(both, texts, valid, START, torch.tensor([0, 1]))
    for row, text in enumerate(([1, 2, 3], [4, 5, 6, 7, 8])):
        label = torch.tensor([row])
        onwards = gpt2.nll(both.onwards, torch.tensor([text]), None, START, label)
        back = gpt2.nll(both.back, torch.tensor([text[::-1]]), None, START, label)
        torch.testing.assert_close(found[row : row + 1], (onwards + back) / 2)
        assert abs((onwards - back).item()) > 0.1
        torch.testing.assert_close(
            gpt2.nll(both, torch.tensor([text]), None, START, label), (onwards + back) / 2
        )


def test_what_cannot_be_built_is_a_config_error(tree: dict[str, Any]) -> None:
    for key, values in {
        "n_heads": {"hidden_size": 30, "n_heads": 4},
        "1024": {"length": 1025},
    }.items():
        changed = {**tree, "model": {**tree["model"], **values}}
        with pytest.raises(ConfigError, match=key):
            gpt2.shape_of(config.from_tree(changed).model)


def test_the_class_likelihood_is_bayes_rule_over_the_likelihoods(tree: dict[str, Any]) -> None:
    told = model(classes=3)
    tree["model"] |= {
        "architecture": "gpt2",
        "classes": "added",
        "cond_dim": None,
        "head_init": "zero",
    }
    tree["class_likelihood"] |= {"generative": 0.5}
    tree["eval"] |= {"draws": 1, "round": 1, "stop_z": 0.0}
    built, words = config.from_tree(tree), Tokenizer("words", "\n".join("abcdefghij"), 10, 8)
    whole = objectives.ClassLikelihood(told, built, words, [2, 0], 3)
    batch = batches.collate([[1, 2, 3, 4], [5, 6]], [0, 1])
    rows = whole.prepare(batch, torch.Generator().manual_seed(1))
    costs = torch.stack(
        [
            gpt2.nll(told, batch.tokens_BL, batch.valid_BL, START, torch.full((2,), label))
            for label in (0, 1, 2)
        ]
    )
    own = costs[[2, 0], [0, 1]]
    expected = (own + (-costs).logsumexp(0)).mean() + 0.5 * own.sum() / 6
    assert whole(*rows).sum().item() == pytest.approx(expected.item(), rel=1e-5)
